//! The only source of random numbers.
//!
//! Guarantees: numbers of [`Entropy::system`] cannot be guessed; those of [`Entropy::seeded`] are
//! the same for the same seed, so that a simulated server can be run again. Not here: what the
//! numbers are used for.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Random numbers, of the system or made from a seed. Cloning gives a handle to the same source.
#[derive(Debug, Clone)]
pub struct Entropy(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Seeded { seed: u64, drawn: Arc<AtomicU64> },
}

impl Entropy {
    /// The random numbers of this machine.
    pub fn system() -> Entropy {
        Entropy(Source::System)
    }

    /// Numbers that `seed` decides. For tests only: they are not secret.
    pub fn seeded(seed: u64) -> Entropy {
        Entropy(Source::Seeded { seed, drawn: Arc::default() })
    }

    /// Fills `bytes` with random numbers.
    ///
    /// # Errors
    ///
    /// If the system has none.
    pub fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Source::System => getrandom::fill(bytes)
                .map_err(|error| io::Error::other(format!("no random numbers: {error}"))),
            Source::Seeded { drawn, .. } => {
                for chunk in bytes.chunks_mut(size_of::<u64>()) {
                    let mut hasher = self.hasher();
                    hasher.write_u64(drawn.fetch_add(1, Ordering::Relaxed));
                    chunk.copy_from_slice(&hasher.finish().to_le_bytes()[..chunk.len()]);
                }
                Ok(())
            }
        }
    }

    /// A random number. Where the system has none, one from the hash keys of the process.
    pub(crate) fn number(&self) -> u64 {
        let mut bytes = [0; size_of::<u64>()];
        match self.fill(&mut bytes) {
            Ok(()) => u64::from_le_bytes(bytes),
            Err(_) => self.hasher().finish(),
        }
    }

    /// A keyed hasher to clone for each value. A system source gives each caller another key.
    fn hasher(&self) -> DefaultHasher {
        match &self.0 {
            Source::System => RandomState::new().build_hasher(),
            Source::Seeded { seed, .. } => {
                let mut hasher = DefaultHasher::new();
                hasher.write_u64(*seed);
                hasher
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(entropy: &Entropy) -> [u8; 20] {
        let mut bytes = [0; 20];
        entropy.fill(&mut bytes).expect("random numbers");
        bytes
    }

    #[test]
    fn a_seed_repeats_its_numbers_and_hashes() {
        let (one, same, other) = (Entropy::seeded(1), Entropy::seeded(1), Entropy::seeded(2));
        let first = drawn(&one);
        assert_eq!(first, drawn(&same));
        assert_ne!(first, drawn(&other));
        assert_ne!(first, drawn(&one), "the next numbers are different ones");
        assert_eq!(one.hasher().finish(), same.hasher().finish());
        assert_ne!(one.hasher().finish(), other.hasher().finish());
    }

    #[test]
    fn the_system_source_repeats_nothing() {
        let entropy = Entropy::system();
        assert_ne!(drawn(&entropy), drawn(&entropy));
        assert_ne!(entropy.hasher().finish(), entropy.hasher().finish());
    }
}
