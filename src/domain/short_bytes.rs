//! Byte strings that are stored inline when short, and shared when long.
//!
//! Guarantees: making, copying and dropping up to [`IN_PLACE_MAX`] bytes does not allocate; copying more
//! does not copy them.

use std::sync::Arc;

/// Longest byte string that is stored inline; enough for most keys, and for an owner that is a UUID
/// with a prefix.
pub(super) const IN_PLACE_MAX: usize = 46;

/// A byte string that is usually short.
#[derive(Clone)]
pub(super) enum ShortBytes {
    InPlace { length: u8, bytes: [u8; IN_PLACE_MAX] },
    Shared(Arc<[u8]>),
}

const _: () = assert!(size_of::<ShortBytes>() == 48);

impl ShortBytes {
    /// Concatenates `first` and `rest`.
    #[inline]
    pub(super) fn of(first: &[u8], rest: &[u8]) -> ShortBytes {
        let length = first.len() + rest.len();
        if length > IN_PLACE_MAX {
            return ShortBytes::Shared([first, rest].concat().into());
        }
        let mut bytes = [0; IN_PLACE_MAX];
        bytes[..first.len()].copy_from_slice(first);
        bytes[first.len()..length].copy_from_slice(rest);
        ShortBytes::InPlace { length: length as u8, bytes }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            ShortBytes::InPlace { length, bytes } => &bytes[..usize::from(*length)],
            ShortBytes::Shared(bytes) => bytes,
        }
    }
}

impl PartialEq for ShortBytes {
    fn eq(&self, other: &ShortBytes) -> bool {
        match (self, other) {
            // Clones of a string of a megabyte are not compared byte by byte.
            (ShortBytes::Shared(a), ShortBytes::Shared(b)) if a.as_ptr() == b.as_ptr() => a.len() == b.len(),
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
