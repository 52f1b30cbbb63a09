//! Hashes of names, and the two parts of a hash.
//!
//! Guarantees: a hash has 32 bits; a client cannot find names that collide.
//! Not here: what is stored under a hash.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::domain::{LockName, Owner};
use crate::entropy::Entropy;

/// Hashes names. The key of the hash is secret and stays the same for the life of the process, so
/// that scans survive rebuilds.
#[derive(Clone)]
pub(in crate::engine) struct NameHash(SipHasher13);

impl NameHash {
    /// Of ten million names, one in a thousand shares its hash with another. That only costs
    /// memory.
    const BITS: u32 = 32;
    pub(in crate::engine) const LOWER_BITS: u32 = 24;
    /// The number of different upper parts.
    pub(in crate::engine) const UPPER_PARTS: usize = 1 << (NameHash::BITS - NameHash::LOWER_BITS);

    /// Takes a key that no client can guess.
    pub(in crate::engine) fn new(entropy: &Entropy) -> NameHash {
        NameHash(SipHasher13::new_with_keys(entropy.number(), entropy.number()))
    }

    pub(in crate::engine) fn of(&self, name: &LockName) -> u64 {
        self.0.hash(name.as_bytes()) >> (u64::BITS - NameHash::BITS)
    }

    /// The hash of a lock, by its hash, and an owner.
    pub(in crate::engine) fn with_owner(&self, hash: u64, owner: &Owner) -> u64 {
        let mut hasher = self.0;
        hasher.write_u64(hash);
        hasher.write(owner.as_bytes());
        hasher.finish()
    }

    /// The upper part of a hash.
    pub(in crate::engine) fn upper(hash: u64) -> usize {
        (hash >> NameHash::LOWER_BITS) as usize
    }

    /// The lower part of a hash.
    pub(in crate::engine) fn lower(hash: u64) -> u64 {
        hash & ((1 << NameHash::LOWER_BITS) - 1)
    }

    /// The hash of an upper part and of the lower part of `hash`.
    pub(in crate::engine) fn joined(upper: usize, hash: u64) -> u64 {
        ((upper as u64) << NameHash::LOWER_BITS) | NameHash::lower(hash)
    }
}
