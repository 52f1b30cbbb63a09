//! The parsed, bounded types of the lock domain.
//!
//! Promise: a value that exists is within its limits, so nothing behind the edge checks again. Keys and owners of usual
//! length are kept in place: making, copying and dropping them allocates nothing.
//! Absent: configuration (a server may accept less than these limits, never more), text formats of any
//! protocol, and clocks.

use std::fmt;
use std::num::NonZeroU32;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest owner, in bytes.
pub const OWNER_BYTES_MAX: usize = 4096;
/// Longest TTL, in milliseconds: 30 days.
pub const TTL_MS_MAX: u32 = 30 * 24 * 3600 * 1000;
/// Number of databases a client can `SELECT`.
pub const DATABASES: u8 = 16;
/// Largest token a fencing counter may reach: integers up to 2^53 - 1 survive every client's number type.
pub const TOKEN_MAX: i64 = (1 << 53) - 1;

const NANOS_PER_MS: u64 = 1_000_000;

/// Why bytes did not become a value of this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// A key of 0 bytes or more than [`KEY_BYTES_MAX`].
    KeyLength,
    /// An owner of 0 bytes or more than [`OWNER_BYTES_MAX`].
    OwnerLength,
    /// A database number of [`DATABASES`] or more.
    Database,
    /// A TTL of 0 or more than [`TTL_MS_MAX`].
    Ttl,
    /// A token outside 1…[`TOKEN_MAX`].
    Token,
    /// A limit of 0 holders.
    Limit,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Invalid::KeyLength => write!(f, "a key has 1 to {KEY_BYTES_MAX} bytes"),
            Invalid::OwnerLength => write!(f, "an owner has 1 to {OWNER_BYTES_MAX} bytes"),
            Invalid::Database => write!(f, "a database is 0 to {}", DATABASES - 1),
            Invalid::Ttl => write!(f, "a TTL is 1 to {TTL_MS_MAX} milliseconds"),
            Invalid::Token => write!(f, "a fencing token is 1 to {TOKEN_MAX}"),
            Invalid::Limit => write!(f, "a limit is at least 1"),
        }
    }
}

impl std::error::Error for Invalid {}

/// Bytes kept in place if there are few of them; enough for most keys, and for a UUID with a prefix as owner.
const IN_PLACE_MAX: usize = 46;

/// Bytes that are mostly few.
#[derive(Clone)]
enum ShortBytes {
    InPlace { length: u8, bytes: [u8; IN_PLACE_MAX] },
    Elsewhere(Box<[u8]>),
}

const _: () = assert!(size_of::<ShortBytes>() == 48);

impl ShortBytes {
    /// `first` and then `rest`.
    fn of(first: &[u8], rest: &[u8]) -> ShortBytes {
        let length = first.len() + rest.len();
        if length > IN_PLACE_MAX {
            return ShortBytes::Elsewhere([first, rest].concat().into_boxed_slice());
        }
        let mut bytes = [0; IN_PLACE_MAX];
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..length].copy_from_slice(rest);
        ShortBytes::InPlace { length: length as u8, bytes }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            ShortBytes::InPlace { length, bytes } => &bytes[..usize::from(*length)],
            ShortBytes::Elsewhere(bytes) => bytes,
        }
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &ShortBytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ShortBytes {}

impl std::hash::Hash for ShortBytes {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl PartialOrd for ShortBytes {
    fn partial_cmp(&self, other: &ShortBytes) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortBytes {
    fn cmp(&self, other: &ShortBytes) -> std::cmp::Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

/// What a lock is called: a database number and a binary-safe key of 1…[`KEY_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LockName(ShortBytes);

impl LockName {
    /// Copies `key`; fails on a length or database out of range.
    pub fn new(database: u8, key: &[u8]) -> Result<LockName, Invalid> {
        if database >= DATABASES {
            return Err(Invalid::Database);
        }
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Invalid::KeyLength);
        }
        Ok(LockName(ShortBytes::of(&[database], key)))
    }

    /// The database, 0…15.
    pub fn database(&self) -> u8 {
        self.as_bytes()[0]
    }

    /// The key as the client sent it.
    pub fn key(&self) -> &[u8] {
        &self.as_bytes()[1..]
    }

    /// Database and key as one run of bytes, for hashing.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.database(), self.key().escape_ascii())
    }
}

/// The opaque, secret word by which a client proves that a lease is its own: 1…[`OWNER_BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(ShortBytes);

impl Owner {
    /// Copies `bytes`; fails on a length out of range.
    pub fn new(bytes: &[u8]) -> Result<Owner, Invalid> {
        if bytes.is_empty() || bytes.len() > OWNER_BYTES_MAX {
            return Err(Invalid::OwnerLength);
        }
        Ok(Owner(ShortBytes::of(&[], bytes)))
    }

    /// The owner as the client sent it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// A point on the boot-time clock, in nanoseconds. Only ever compared; wall time is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than every other: the deadline of what has none.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// `nanos` since the machine booted.
    pub const fn from_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    /// The same point in a form that fits SQL integers; `None` for [`Timestamp::NEVER`].
    pub fn to_stored(self) -> Option<i64> {
        if self == Timestamp::NEVER { None } else { Some(i64::try_from(self.0).unwrap_or(i64::MAX)) }
    }

    /// The reverse of [`Timestamp::to_stored`]; a negative number is the start of time.
    pub fn from_stored(stored: Option<i64>) -> Timestamp {
        stored.map_or(Timestamp::NEVER, |nanos| Timestamp(u64::try_from(nanos).unwrap_or(0)))
    }

    /// Nanoseconds since the machine booted.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time `ttl` after this one; [`Timestamp::NEVER`] without a TTL.
    pub fn after(self, ttl: Option<Ttl>) -> Timestamp {
        match ttl {
            Some(ttl) => Timestamp(self.0.saturating_add(u64::from(ttl.as_millis()) * NANOS_PER_MS)),
            None => Timestamp::NEVER,
        }
    }

    /// The time `ttl` before this one; this one without a TTL.
    pub fn before(self, ttl: Option<Ttl>) -> Timestamp {
        let nanos = ttl.map_or(0, |ttl| u64::from(ttl.as_millis()) * NANOS_PER_MS);
        Timestamp(self.0.saturating_sub(nanos))
    }

    /// Milliseconds from `now` until this time, rounded up so that what is alive never shows 0.
    /// `None` for [`Timestamp::NEVER`]; 0 for what has passed.
    pub fn millis_left(self, now: Timestamp) -> Option<u64> {
        (self != Timestamp::NEVER).then(|| self.0.saturating_sub(now.0).div_ceil(NANOS_PER_MS))
    }

    /// Nanoseconds from `earlier` to this time; 0 when `earlier` is later.
    pub fn nanos_since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds from `earlier` to this time; 0 when `earlier` is later.
    pub fn millis_since(self, earlier: Timestamp) -> u64 {
        self.nanos_since(earlier) / NANOS_PER_MS
    }
}

/// How long a lease, a delay or a hold lasts: 1…[`TTL_MS_MAX`] milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(NonZeroU32);

impl Ttl {
    /// A TTL of `millis` milliseconds; fails on 0 and beyond [`TTL_MS_MAX`].
    pub fn from_millis(millis: u64) -> Result<Ttl, Invalid> {
        u32::try_from(millis)
            .ok()
            .filter(|&millis| millis <= TTL_MS_MAX)
            .and_then(NonZeroU32::new)
            .map(Ttl)
            .ok_or(Invalid::Ttl)
    }

    /// The TTL in milliseconds.
    pub fn as_millis(self) -> u32 {
        self.0.get()
    }
}

/// A number that grows with every grant, by which a resource refuses a holder that was paused too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(i64);

impl FencingToken {
    /// The token `n`; fails outside 1…[`TOKEN_MAX`].
    pub fn new(n: i64) -> Result<FencingToken, Invalid> {
        if (1..=TOKEN_MAX).contains(&n) { Ok(FencingToken(n)) } else { Err(Invalid::Token) }
    }

    /// The token as a number.
    pub fn get(self) -> i64 {
        self.0
    }
}

/// An unguessable 128-bit name of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// The id of these random bytes, with the marks of a random UUID in it.
    pub fn from_random(bytes: [u8; 16]) -> SessionId {
        const VERSION: u128 = 0xf << 76;
        const VARIANT: u128 = 0x3 << 62;
        SessionId((u128::from_be_bytes(bytes) & !VERSION & !VARIANT) | (0x4 << 76) | (0x2 << 62))
    }
}

/// One parked request, unique within a run of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// How many may hold a lock together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// One holder.
    Exclusive,
    /// Any number of shared holders.
    Shared,
    /// Fewer than this many others; never 1, which is [`Mode::Exclusive`].
    Limit(NonZeroU32),
}

impl Mode {
    /// The mode of `LIMIT n`; `LIMIT 1` is exclusive.
    pub fn limit(n: u32) -> Result<Mode, Invalid> {
        match NonZeroU32::new(n) {
            None => Err(Invalid::Limit),
            Some(n) if n.get() == 1 => Ok(Mode::Exclusive),
            Some(n) => Ok(Mode::Limit(n)),
        }
    }

    /// How many holders of this mode there may be; `None` without a bound.
    pub fn capacity(self) -> Option<u32> {
        match self {
            Mode::Exclusive => Some(1),
            Mode::Shared => None,
            Mode::Limit(n) => Some(n.get()),
        }
    }

    /// Whether both may be held at once, numbers aside.
    pub fn mixes_with(self, other: Mode) -> bool {
        matches!((self, other), (Mode::Shared, Mode::Shared) | (Mode::Limit(_), Mode::Limit(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_at_the_boundary_and_one_past_it() {
        assert!(LockName::new(15, &[0; KEY_BYTES_MAX]).is_ok());
        assert_eq!(LockName::new(16, b"k"), Err(Invalid::Database));
        assert_eq!(LockName::new(0, b""), Err(Invalid::KeyLength));
        assert_eq!(LockName::new(0, &[0; KEY_BYTES_MAX + 1]), Err(Invalid::KeyLength));
        assert!(Owner::new(&[0; OWNER_BYTES_MAX]).is_ok());
        assert_eq!(Owner::new(b""), Err(Invalid::OwnerLength));
        assert_eq!(Owner::new(&[0; OWNER_BYTES_MAX + 1]), Err(Invalid::OwnerLength));
        assert_eq!(Ttl::from_millis(0), Err(Invalid::Ttl));
        assert_eq!(Ttl::from_millis(1).map(Ttl::as_millis), Ok(1));
        assert_eq!(Ttl::from_millis(u64::from(TTL_MS_MAX)).map(Ttl::as_millis), Ok(TTL_MS_MAX));
        assert_eq!(Ttl::from_millis(u64::from(TTL_MS_MAX) + 1), Err(Invalid::Ttl));
        assert_eq!(Ttl::from_millis(u64::MAX), Err(Invalid::Ttl));
        assert_eq!(FencingToken::new(0), Err(Invalid::Token));
        assert!(FencingToken::new(TOKEN_MAX).is_ok());
        assert_eq!(FencingToken::new(TOKEN_MAX + 1), Err(Invalid::Token));
        assert_eq!(Mode::limit(0), Err(Invalid::Limit));
        assert_eq!(Mode::limit(1), Ok(Mode::Exclusive));
    }

    #[test]
    fn bytes_in_place_and_elsewhere_are_the_same_to_whoever_looks() {
        let all: Vec<u8> = (1..=2 * IN_PLACE_MAX as u8).collect();
        let mut before: Option<Owner> = None;
        for length in 1..=all.len() {
            let owner = Owner::new(&all[..length]).unwrap();
            assert_eq!((owner.as_bytes(), owner.clone()), (&all[..length], owner.clone()));
            assert!(before.is_none_or(|before| before < owner));
            let name = LockName::new(3, &all[..length]).unwrap();
            assert_eq!((name.database(), name.key()), (3, &all[..length]));
            before = Some(owner);
        }
    }

    #[test]
    fn what_is_alive_never_shows_zero_milliseconds() {
        let deadline = Timestamp::from_nanos(1_000_000);
        assert_eq!(deadline.millis_left(Timestamp::from_nanos(999_999)), Some(1));
        assert_eq!(deadline.millis_left(deadline), Some(0));
        assert_eq!(Timestamp::NEVER.millis_left(deadline), None);
    }
}
