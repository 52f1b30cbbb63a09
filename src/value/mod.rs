//! Values beside locks: hashes, sets, sorted sets and lists.

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Fields with a value each.
    Hash,
    /// Members without order.
    Set,
    /// Members ordered by score.
    SortedSet,
    /// Items in the order in which clients put them.
    List,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List];

    /// The name in `TYPE` and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::List => "list",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
