//! The only reader of system time.
//!
//! Guarantees: [`Clock::now`] never goes back and counts time in which the machine was suspended;
//! setting the wall clock does not move it. Wall time is for display, for times of day that clients
//! give, and for the first token of a restored database.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::domain::Timestamp;

const NANOS_PER_MS: u64 = 1_000_000;

/// How far the wall clock was ahead of the boot-time clock when it was last read, in nanoseconds.
/// Kept while it is right to the millisecond, so that one deadline is always shown as the same
/// time.
static WALL_AHEAD: AtomicI64 = AtomicI64::new(i64::MIN);

/// Time, real or made by a test. Cloning gives a handle to the same clock.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug, Default)]
struct Manual {
    boot_nanos: AtomicU64,
    wall_millis: AtomicU64,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that stands still until it is moved.
    pub fn manual() -> Clock {
        Clock(Source::Manual(Arc::default()))
    }

    /// Now, on the boot-time clock.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::from_nanos(boot_nanos()),
            Source::Manual(manual) => Timestamp::from_nanos(manual.boot_nanos.load(Ordering::SeqCst)),
        }
    }

    /// Milliseconds since 1970 by the wall clock: for display, for times that a client gave as such,
    /// and for the first token of a restored database.
    pub fn wall_millis(&self) -> u64 {
        match &self.0 {
            Source::System => wall_nanos() / NANOS_PER_MS,
            Source::Manual(manual) => manual.wall_millis.load(Ordering::SeqCst),
        }
    }

    /// The wall time at which `time` is, or was, in nanoseconds since 1970; for display. `None` for
    /// [`Timestamp::NEVER`].
    pub fn wall_nanos_of(&self, time: Timestamp) -> Option<i64> {
        let ahead = match &self.0 {
            Source::System => {
                let boot = i64::try_from(boot_nanos()).unwrap_or(i64::MAX);
                let wall = i64::try_from(wall_nanos()).unwrap_or(i64::MAX);
                let (ahead, kept) = (wall.saturating_sub(boot), WALL_AHEAD.load(Ordering::Relaxed));
                if ahead.abs_diff(kept) <= NANOS_PER_MS {
                    kept
                } else {
                    WALL_AHEAD.store(ahead, Ordering::Relaxed);
                    ahead
                }
            }
            Source::Manual(manual) => {
                let wall = manual.wall_millis.load(Ordering::SeqCst).saturating_mul(NANOS_PER_MS);
                let boot = manual.boot_nanos.load(Ordering::SeqCst);
                i64::try_from(wall).unwrap_or(i64::MAX).saturating_sub_unsigned(boot)
            }
        };
        time.to_stored().map(|nanos| nanos.saturating_add(ahead))
    }

    /// Advances both times of a manual clock. Does nothing to the system's clock.
    pub fn advance_millis(&self, millis: u64) {
        if let Source::Manual(manual) = &self.0 {
            manual.boot_nanos.fetch_add(millis * NANOS_PER_MS, Ordering::SeqCst);
            manual.wall_millis.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock's wall time, as NTP or an operator does. Does nothing to the system's
    /// clock.
    pub fn step_wall_to(&self, millis: u64) {
        if let Source::Manual(manual) = &self.0 {
            manual.wall_millis.store(millis, Ordering::SeqCst);
        }
    }
}

fn boot_nanos() -> u64 {
    // Other systems than Linux have only a monotonic clock.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[allow(clippy::disallowed_methods)]
fn wall_nanos() -> u64 {
    // A time before 1970 counts as 1970: displayed as such, and too early for a restore.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// Names what the boot-time clock counts from: this boot of the machine, and the offset of the time
/// namespace if there is one. `None` if the system does not report it; then every start counts as a
/// reboot.
pub fn boot_id() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let offsets = match std::fs::read_to_string("/proc/self/timens_offsets") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        offsets => Some(offsets.ok()?),
    };
    boot_era(boot.trim(), offsets.as_deref())
}

/// A process in a time namespace reads another time of the same boot, so its deadlines are of
/// another era. Without an offset it is the boot alone. `offsets` as in time_namespaces(7); `None`:
/// the kernel has none.
fn boot_era(boot: &str, offsets: Option<&str>) -> Option<String> {
    if boot.is_empty() {
        return None;
    }
    let Some(offsets) = offsets else { return Some(boot.to_owned()) };
    let offset = offsets.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let is_boottime = matches!(fields.next(), Some("boottime" | "7"));
        let number = |text: Option<&str>| text?.parse::<i64>().ok();
        is_boottime.then(|| Some((number(fields.next())?, number(fields.next())?))).flatten()
    });
    match offset? {
        (0, 0) => Some(boot.to_owned()),
        (seconds, nanos) => Some(format!("{boot} in a time namespace at {seconds} s {nanos} ns")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_offset_of_the_clock_is_another_boot() {
        fn era(offsets: Option<&str>) -> Option<String> {
            boot_era("id", offsets)
        }
        let plain = Some("id".to_owned());
        assert_eq!(era(None), plain, "a kernel without time namespaces");
        assert_eq!(era(Some("monotonic           0         0\nboottime            0         0\n")), plain);
        assert_eq!(era(Some("monotonic           5         0\nboottime            0         0\n")), plain);
        let shifted = |seconds, nanos| era(Some(&format!("monotonic 0 0\nboottime {seconds} {nanos}\n")));
        let eras = [plain, shifted(1, 0), shifted(0, 1), shifted(-1, 0), shifted(1, 1)];
        for (index, era) in eras.iter().enumerate() {
            assert!(era.is_some() && !eras[..index].contains(era), "{era:?}");
        }
        assert_eq!(shifted(1, 0), eras[1]);
        for unreadable in ["", "monotonic 0 0\n", "boottime\n", "boottime 0\n", "boottime x 0\n"] {
            assert_eq!(era(Some(unreadable)), None, "{unreadable:?}");
        }
        assert_eq!(boot_era("", None), None);
    }

    #[test]
    fn the_system_clock_goes_forward_and_a_wall_step_moves_nothing() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
        let manual = Clock::manual();
        manual.advance_millis(5);
        manual.step_wall_to(1_000_000);
        assert_eq!(manual.now(), Timestamp::from_nanos(5_000_000));
        assert_eq!(manual.clone().wall_millis(), 1_000_000);
        let second = Timestamp::from_nanos(6_000_000);
        assert_eq!(manual.wall_nanos_of(second), Some(1_000_001_000_000));
        assert_eq!(manual.wall_nanos_of(Timestamp::NEVER), None);
        let shown = clock.wall_nanos_of(first);
        assert_eq!((shown, clock.wall_nanos_of(Timestamp::NEVER)), (clock.wall_nanos_of(first), None));
    }
}
