//! The commands as access rules see them: names, subcommands and categories.
//!
//! Guarantees: a set of commands is a bit for each, so a check is one look. Not here: the table of
//! commands, from which the server makes the catalog.

use rustc_hash::FxHashMap;

/// Maximum number of commands and subcommands.
const COMMANDS_MAX: usize = 512;
const WORDS: usize = COMMANDS_MAX / 64;

/// A command or subcommand, by its position in the [`Catalog`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandId(u16);

impl CommandId {
    /// The command at this position.
    pub fn new(position: u16) -> CommandId {
        CommandId(position)
    }
}

/// A set of commands.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct CommandSet {
    bits: [u64; WORDS],
}

impl CommandSet {
    pub(super) fn contains(&self, CommandId(n): CommandId) -> bool {
        self.bits.get(usize::from(n) / 64).is_some_and(|word| word & (1 << (n % 64)) != 0)
    }

    pub(super) fn set(&mut self, CommandId(n): CommandId, is_in: bool) {
        if let Some(word) = self.bits.get_mut(usize::from(n) / 64) {
            *word = *word & !(1 << (n % 64)) | u64::from(is_in) << (n % 64);
        }
    }

    pub(super) fn set_all(&mut self, others: &CommandSet, are_in: bool) {
        for (word, other) in self.bits.iter_mut().zip(&others.bits) {
            *word = if are_in { *word | other } else { *word & !other };
        }
    }
}

/// All commands.
pub struct Catalog {
    ids: FxHashMap<&'static str, CommandId>,
    /// A container's name, with the ids of the container and all its subcommands.
    families: FxHashMap<&'static str, CommandSet>,
    categories: FxHashMap<&'static str, CommandSet>,
    all: CommandSet,
}

impl Catalog {
    /// The catalog of these commands, each with the names of its categories (with their `@`). A
    /// subcommand is named `container|subcommand`. `categories` are the names of all categories.
    ///
    /// # Panics
    ///
    /// If there are more than 512 commands.
    pub fn new<C: IntoIterator<Item = &'static str>>(
        commands: impl IntoIterator<Item = (&'static str, C)>,
        categories: impl IntoIterator<Item = &'static str>,
    ) -> Catalog {
        let mut catalog = Catalog {
            ids: FxHashMap::default(),
            families: FxHashMap::default(),
            categories: categories.into_iter().map(|name| (name, CommandSet::default())).collect(),
            all: CommandSet::default(),
        };
        for (position, (name, categories)) in commands.into_iter().enumerate() {
            assert!(position < COMMANDS_MAX, "COMMANDS_MAX is too small");
            let id = CommandId(position as u16);
            catalog.ids.insert(name, id);
            catalog.all.set(id, true);
            let container = name.split('|').next().unwrap_or(name);
            for family in [name, container] {
                catalog.families.entry(family).or_default().set(id, true);
            }
            for category in categories {
                catalog.categories.entry(category).or_default().set(id, true);
            }
        }
        catalog
    }

    /// The command of a name in lower case.
    pub fn find(&self, name: &str) -> Option<CommandId> {
        self.ids.get(name).copied()
    }

    /// The command of a name in lower case, and its subcommands.
    pub(super) fn family(&self, name: &str) -> Option<&CommandSet> {
        self.families.get(name)
    }

    pub(super) fn is_without_subcommands(&self, name: &str) -> bool {
        self.find(name).is_some()
            && !self.ids.keys().any(|other| other.split('|').next() == Some(name) && *other != name)
    }

    /// The commands of a category, named in lower case with its `@`.
    pub(super) fn category(&self, name: &str) -> Option<&CommandSet> {
        if name == "@all" { Some(&self.all) } else { self.categories.get(name) }
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalog({} commands)", self.ids.len())
    }
}
