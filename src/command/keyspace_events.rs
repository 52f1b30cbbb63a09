//! The classes of keyspace notifications, as the setting `notify-keyspace-events` names them.
//!
//! Not here: the notifications.

/// A set of classes, and where their notifications go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyspaceEvents(u32);

impl KeyspaceEvents {
    /// To the channel of the key: `__keyspace@0__:key`.
    pub const KEYSPACE: KeyspaceEvents = KeyspaceEvents(1);
    /// To the channel of the event: `__keyevent@0__:event`.
    pub const KEYEVENT: KeyspaceEvents = KeyspaceEvents(1 << 1);
    /// Commands on keys of any type.
    pub const GENERIC: KeyspaceEvents = KeyspaceEvents(1 << 2);
    /// Strings and locks.
    pub const STRING: KeyspaceEvents = KeyspaceEvents(1 << 3);
    /// Lists.
    pub const LIST: KeyspaceEvents = KeyspaceEvents(1 << 4);
    /// Sets.
    pub const SET: KeyspaceEvents = KeyspaceEvents(1 << 5);
    /// Hashes.
    pub const HASH: KeyspaceEvents = KeyspaceEvents(1 << 6);
    /// Sorted sets.
    pub const SORTED_SET: KeyspaceEvents = KeyspaceEvents(1 << 7);
    /// Keys that reached their deadline.
    pub const EXPIRED: KeyspaceEvents = KeyspaceEvents(1 << 8);
    /// Keys that were evicted, which never happens.
    pub const EVICTED: KeyspaceEvents = KeyspaceEvents(1 << 9);
    /// Streams, which do not exist.
    pub const STREAM: KeyspaceEvents = KeyspaceEvents(1 << 10);
    /// Modules, which do not exist.
    pub const MODULE: KeyspaceEvents = KeyspaceEvents(1 << 11);
    /// Reads of keys that do not exist.
    pub const KEY_MISS: KeyspaceEvents = KeyspaceEvents(1 << 12);
    /// Keys that were created.
    pub const NEW: KeyspaceEvents = KeyspaceEvents(1 << 13);

    /// The classes that `A` stands for.
    const ALL: KeyspaceEvents = KeyspaceEvents(0b1111_1111_1100);

    /// The letters in Redis' order.
    const LETTERS: [(char, KeyspaceEvents); 14] = [
        ('g', KeyspaceEvents::GENERIC),
        ('$', KeyspaceEvents::STRING),
        ('l', KeyspaceEvents::LIST),
        ('s', KeyspaceEvents::SET),
        ('h', KeyspaceEvents::HASH),
        ('z', KeyspaceEvents::SORTED_SET),
        ('x', KeyspaceEvents::EXPIRED),
        ('e', KeyspaceEvents::EVICTED),
        ('t', KeyspaceEvents::STREAM),
        ('d', KeyspaceEvents::MODULE),
        ('n', KeyspaceEvents::NEW),
        ('K', KeyspaceEvents::KEYSPACE),
        ('E', KeyspaceEvents::KEYEVENT),
        ('m', KeyspaceEvents::KEY_MISS),
    ];

    /// Reads a setting; `None` if it has a character that is no class.
    pub fn parse(text: &str) -> Option<KeyspaceEvents> {
        text.chars().try_fold(KeyspaceEvents::default(), |all, letter| {
            let known = KeyspaceEvents::LETTERS.iter().find(|(known, _)| *known == letter);
            let class = if letter == 'A' { KeyspaceEvents::ALL } else { known?.1 };
            Some(KeyspaceEvents(all.0 | class.0))
        })
    }

    /// The setting as Redis shows it: `A` stands for all of its classes, and `n` then goes without
    /// saying.
    pub fn text(self) -> String {
        let has_all = self.contains(KeyspaceEvents::ALL);
        let is_shown = |(_, class): &&(char, KeyspaceEvents)| {
            let is_in_all = KeyspaceEvents::ALL.contains(*class) || *class == KeyspaceEvents::NEW;
            self.contains(*class) && !(has_all && is_in_all)
        };
        let letters = KeyspaceEvents::LETTERS.iter().filter(is_shown).map(|(letter, _)| *letter);
        has_all.then_some('A').into_iter().chain(letters).collect()
    }

    /// Whether all of `others` are among them.
    pub fn contains(self, others: KeyspaceEvents) -> bool {
        self.0 & others.0 == others.0
    }

    /// The set as a number, for an atomic.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Inverse of [`KeyspaceEvents::bits`].
    pub(super) fn from_bits(bits: u32) -> KeyspaceEvents {
        KeyspaceEvents(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_shown_as_redis_shows_it() {
        for (text, shown) in [
            ("", Some("")),
            ("KEA", Some("AKE")),
            ("Kg$lshzxetdnm", Some("AKm")),
            ("Ex", Some("xE")),
            ("nK", Some("nK")),
            ("xyz", None),
        ] {
            let parsed = KeyspaceEvents::parse(text);
            assert_eq!(parsed.map(KeyspaceEvents::text).as_deref(), shown, "{text}");
            assert_eq!(parsed.map(|events| KeyspaceEvents::from_bits(events.bits())), parsed);
        }
    }
}
