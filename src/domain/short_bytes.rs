//! Byte strings that are stored inline when short, and shared when long.
//!
//! Guarantees: making, copying and dropping up to [`IN_PLACE_MAX`] bytes does not allocate; copying more
//! does not copy them.

use std::sync::Arc;

/// Longest byte string that is stored inline; enough for most keys, and for an owner that is a UUID
/// with a prefix.
pub(super) const IN_PLACE_MAX: usize = 47;

/// A byte string that is usually short.
///
/// Not an enum: its tag would be one byte, and what follows would be copied at odd addresses, in pieces
/// that overlap, whenever a name moves out of a `Result`.
#[derive(Clone)]
pub(super) struct ShortBytes {
    /// The bytes, if they are too many to be stored inline. In a box, so that the pointer is one word,
    /// and a lease two words shorter.
    shared: Option<Arc<Box<[u8]>>>,
    /// How many bytes are stored inline.
    length: u8,
    bytes: [u8; IN_PLACE_MAX],
}

const _: () = assert!(size_of::<ShortBytes>() == 56);

impl ShortBytes {
    /// Concatenates `first` and `rest`.
    #[inline]
    pub(super) fn of(first: &[u8], rest: &[u8]) -> ShortBytes {
        let length = first.len() + rest.len();
        let mut all = ShortBytes { shared: None, length: 0, bytes: [0; IN_PLACE_MAX] };
        if length > IN_PLACE_MAX {
            all.shared = Some(Arc::new([first, rest].concat().into()));
        } else {
            all.length = length as u8;
            all.bytes[..first.len()].copy_from_slice(first);
            all.bytes[first.len()..length].copy_from_slice(rest);
        }
        all
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match &self.shared {
            None => &self.bytes[..usize::from(self.length)],
            Some(bytes) => bytes,
        }
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &ShortBytes) -> bool {
        match (&self.shared, &other.shared) {
            // Clones of a string of a megabyte are not compared byte by byte.
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => true,
            _ => self.as_slice() == other.as_slice(),
        }
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
