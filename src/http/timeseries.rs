//! Requests and locks of each minute of the last week.
//!
//! Guarantees: memory is bounded. Not here: clocks; the caller supplies the time.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Number of minutes that are kept: a week.
const MINUTES_MAX: usize = 7 * 24 * 60;

/// Totals at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) unix_s: u64,
    pub(super) requests: u64,
    pub(super) acquires: u64,
    pub(super) releases: u64,
    pub(super) active_locks: u64,
}

/// The minutes: what each added to the totals, and the locks at its end.
#[derive(Default)]
pub(super) struct History {
    series: Mutex<Series>,
}

#[derive(Default)]
struct Series {
    last: Totals,
    minutes: VecDeque<Totals>,
}

impl History {
    /// Records the totals at the end of a minute.
    pub(super) fn record(&self, totals: Totals) {
        let mut series = self.series.lock();
        let minute = Totals {
            requests: totals.requests - series.last.requests,
            acquires: totals.acquires - series.last.acquires,
            releases: totals.releases - series.last.releases,
            ..totals
        };
        if series.minutes.len() == MINUTES_MAX {
            series.minutes.pop_front();
        }
        series.minutes.push_back(minute);
        series.last = totals;
    }

    /// The last `minutes` minutes, oldest first.
    pub(super) fn last(&self, minutes: usize) -> Vec<Totals> {
        let series = self.series.lock();
        let skipped = series.minutes.len().saturating_sub(minutes);
        series.minutes.iter().skip(skipped).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_differences_and_only_a_week_of_them_is_kept() {
        let history = History::default();
        for n in 1..=MINUTES_MAX as u64 + 5 {
            history.record(Totals { unix_s: n * 60, requests: n * n, active_locks: n, ..Totals::default() });
        }
        let last = history.last(2);
        let end = MINUTES_MAX as u64 + 5;
        assert_eq!(last.iter().map(|minute| minute.unix_s).collect::<Vec<_>>(), [(end - 1) * 60, end * 60]);
        assert_eq!((last[1].requests, last[1].active_locks), (2 * end - 1, end));
        assert_eq!(history.last(usize::MAX).len(), MINUTES_MAX);
    }
}
