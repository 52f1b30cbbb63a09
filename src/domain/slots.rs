//! The hash slots of Redis Cluster, and the shards to which they belong.
//!
//! Guarantees: every slot belongs to exactly one shard, whatever their number. Not here: which
//! server leads a shard.

use std::fmt;
use std::ops::RangeInclusive;

/// The number of hash slots.
pub const SLOTS: u16 = 16384;
/// The largest number of shards.
pub const SHARDS_MAX: u16 = 1000;

/// The slot of a key: the CRC16 of its hash tag, which is what stands between the first `{` and the
/// next `}` if that is not empty, or of the whole key.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let begin = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[begin..].iter().position(|byte| *byte == b'}').filter(|length| *length > 0)?;
        Some(&key[begin..begin + length])
    };
    crc16(tag().unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the specification of Redis Cluster requires.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc >> 15 == 1 { 0x1021 } else { 0 })
    })
}

/// One of the shards among which the slots are divided evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardId {
    /// From 0.
    index: u16,
    count: u16,
}

impl ShardId {
    /// Reads `number/count`, such as `1/3` for the first of three shards.
    pub fn parse(text: &str) -> Option<ShardId> {
        let (number, count) = text.split_once('/')?;
        let (number, count) = (number.parse::<u16>().ok()?, count.parse().ok()?);
        let is_valid = (1..=SHARDS_MAX).contains(&count) && (1..=count).contains(&number);
        is_valid.then(|| ShardId { index: number - 1, count })
    }

    /// All shards, if there are `count`.
    pub fn all(count: u16) -> impl Iterator<Item = ShardId> {
        (0..count).map(move |index| ShardId { index, count })
    }

    /// The shard of a slot, if there are `count`.
    pub fn of_slot(slot: u16, count: u16) -> ShardId {
        // Less than `count`.
        let index = u32::from(slot) * u32::from(count) / u32::from(SLOTS);
        ShardId { index: index as u16, count }
    }

    /// Its number, from 1.
    pub fn number(self) -> u16 {
        self.index + 1
    }

    /// The number of shards.
    pub fn count(self) -> u16 {
        self.count
    }

    /// Its position among all shards.
    pub fn index(self) -> usize {
        self.index.into()
    }

    /// Its slots.
    pub fn slots(self) -> RangeInclusive<u16> {
        let first = |index: u16| {
            // At most the number of slots.
            (u32::from(index) * u32::from(SLOTS)).div_ceil(u32::from(self.count)) as u16
        };
        first(self.index)..=first(self.index + 1) - 1
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number(), self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // From the specification, and from CLUSTER KEYSLOT of a Redis server.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [
            ("", 0),
            ("foo", 12182),
            ("bar", 5061),
            ("hello", 866),
            ("user1000", 3443),
            ("{user1000}.following", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("foo{bar}{zap}", 5061),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn every_slot_belongs_to_one_shard() {
        for count in [1, 2, 3, 7, 16, 999, SHARDS_MAX] {
            let mut next = 0;
            for shard in ShardId::all(count) {
                let slots = shard.slots();
                assert_eq!(*slots.start(), next, "{shard}");
                assert!(slots.clone().all(|slot| ShardId::of_slot(slot, count) == shard), "{shard}");
                next = slots.end() + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }

    #[test]
    fn shards_are_numbered_from_one() {
        let shard = ShardId::parse("2/3").unwrap();
        assert_eq!((shard.number(), shard.index(), shard.count()), (2, 1, 3));
        assert_eq!(shard.to_string(), "2/3");
        for text in ["", "1", "0/3", "4/3", "1/0", "1/1001", "a/3", "1/3/3", "-1/3"] {
            assert_eq!(ShardId::parse(text), None, "{text}");
        }
    }
}
