//! The types of values.

/// The type of a value. A string is not among them: it is the lease of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Fields with values.
    Hash,
    /// Members.
    Set,
    /// Members in the order of their scores.
    SortedSet,
    /// Items in the order of their positions.
    List,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Hash, Kind::Set, Kind::SortedSet, Kind::List];

    /// The name that TYPE returns.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
            Kind::List => "list",
        }
    }

    /// Inverse of [`Kind::name`].
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
