//! The table of all commands, and look-up by name.
//!
//! Guarantees: a name is found in any case and at any length. The index is a constant: a duplicate
//! name does not compile. Not here: the rows, which stand beside their handlers.

use super::{
    Args, Command, Run, acl, blocking, cluster, connection, docs, hash, key, list, lock, options, pubsub,
    script, sentinel, server, set, sorted_set, string, transaction,
};

/// All commands by family, in the order of the documentation.
pub static FAMILIES: &[&[Command]] = &[
    lock::COMMANDS,
    string::COMMANDS,
    key::COMMANDS,
    hash::COMMANDS,
    set::COMMANDS,
    sorted_set::COMMANDS,
    list::COMMANDS,
    blocking::COMMANDS,
    transaction::COMMANDS,
    script::COMMANDS,
    pubsub::COMMANDS,
    connection::COMMANDS,
    docs::COMMANDS,
    acl::COMMANDS,
    server::COMMANDS,
    sentinel::COMMANDS,
    cluster::COMMANDS,
];

/// All commands, without subcommands.
pub fn commands() -> impl Iterator<Item = &'static Command> + Clone {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// All commands and their subcommands.
pub fn commands_and_subcommands() -> impl Iterator<Item = &'static Command> {
    commands().flat_map(|command| std::iter::once(command).chain(command.subcommands()))
}

/// The names of all commands and subcommands.
pub fn names() -> impl Iterator<Item = &'static str> {
    commands_and_subcommands().map(|command| command.name)
}

/// A hash table with linear probing.
type Index = [Slot; SLOTS];

#[derive(Clone, Copy)]
struct Slot {
    name: Folded,
    /// Whether the folded name and the length tell the name from all others.
    is_whole: bool,
    /// With its place in [`commands_and_subcommands`].
    command: Option<(&'static Command, u16)>,
}

/// A power of two, and more than twice the number of commands.
const SLOTS: usize = 1024;
const COMMANDS_MAX: usize = SLOTS / 2;

static INDEX: Index = index(FAMILIES);

/// The first and the last bytes of a name, in lower case. Up to [`FOLDED_BYTES`] letters, these and
/// the length are the whole name. An underscore is folded like one other byte.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Folded {
    head: u64,
    tail: u64,
}

const FOLDED_BYTES: usize = size_of::<Folded>();

impl Folded {
    const EMPTY: Folded = Folded { head: 0, tail: 0 };

    const fn of(name: &[u8]) -> Folded {
        // Sets the bit that makes letters small. It maps nothing else to a small letter.
        const SMALL: u64 = 0x2020_2020_2020_2020;
        let (head, tail) = if let (Some(head), Some(tail)) = (name.first_chunk(), name.last_chunk()) {
            (u64::from_le_bytes(*head), u64::from_le_bytes(*tail))
        } else if let (Some(head), Some(tail)) = (name.first_chunk(), name.last_chunk()) {
            (u32::from_le_bytes(*head) as u64, u32::from_le_bytes(*tail) as u64)
        } else if let [first, .., last] = name {
            (*first as u64, (name[name.len() / 2] as u64) << 8 | *last as u64)
        } else if let [only] = name {
            (*only as u64, 0)
        } else {
            (0, 0)
        };
        Folded { head: head | SMALL, tail: tail | SMALL }
    }

    /// The slot at which the search for a name of `bytes` bytes starts.
    const fn first_slot(self, bytes: usize) -> usize {
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self.head ^ self.tail.rotate_left(23) ^ bytes as u64;
        (mixed.wrapping_mul(GOLDEN_RATIO) >> (u64::BITS - SLOTS.trailing_zeros())) as usize
    }
}

const fn index(families: &[&'static [Command]]) -> Index {
    let mut index = [Slot { name: Folded::EMPTY, is_whole: false, command: None }; SLOTS];
    let (mut count, mut place) = (0, 0);
    let mut family = 0;
    while family < families.len() {
        let mut n = 0;
        while n < families[family].len() {
            let command = &families[family][n];
            let name = command.name.as_bytes();
            let is_plain = is_lower_case(name, false);
            assert!(is_plain || is_lower_case(name, true), "a name has an unexpected character");
            let folded = Folded::of(name);
            let mut slot = folded.first_slot(name.len());
            while let Some((other, _)) = index[slot].command {
                assert!(!name.eq_ignore_ascii_case(other.name.as_bytes()), "two commands of one name");
                slot = (slot + 1) % SLOTS;
            }
            let is_whole = is_plain && name.len() <= FOLDED_BYTES;
            index[slot] = Slot { name: folded, is_whole, command: Some((command, place)) };
            place += 1;
            if let Run::Subcommands(subcommands) = command.run {
                place += subcommands.len() as u16;
            }
            count += 1;
            assert!(count <= COMMANDS_MAX, "SLOTS is too small");
            n += 1;
        }
        family += 1;
    }
    index
}

/// Whether a name consists of small letters and, if `may_have_underscores`, underscores.
const fn is_lower_case(name: &[u8], may_have_underscores: bool) -> bool {
    let mut n = 0;
    while n < name.len() && (name[n].is_ascii_lowercase() || may_have_underscores && name[n] == b'_') {
        n += 1;
    }
    n == name.len()
}

fn find_in(index: &Index, name: &[u8]) -> Option<(&'static Command, u16)> {
    let folded = Folded::of(name);
    let mut slot = folded.first_slot(name.len());
    while let Slot { name: found, is_whole, command: Some((command, place)) } = index[slot] {
        let is_equal = || is_whole || command.name.as_bytes().eq_ignore_ascii_case(name);
        if found == folded && command.name.len() == name.len() && is_equal() {
            return Some((command, place));
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

impl Command {
    /// The command of a name, in any case.
    pub fn find(name: &[u8]) -> Option<&'static Command> {
        Command::find_with_place(name).map(|(command, _)| command)
    }

    /// The command of a name, in any case, and its place in [`commands_and_subcommands`]. Those of its
    /// subcommands follow.
    pub(super) fn find_with_place(name: &[u8]) -> Option<(&'static Command, u16)> {
        find_in(&INDEX, name)
    }

    /// The subcommand of a name without the container's, in any case.
    pub(super) fn subcommand(&self, own_name: &[u8]) -> Option<&'static Command> {
        self.subcommands().get(self.subcommand_number(own_name)?)
    }

    /// The number of a subcommand among all.
    pub(super) fn subcommand_number(&self, own_name: &[u8]) -> Option<usize> {
        self.subcommands().iter().position(|subcommand| options::is(own_name, subcommand.own_name()))
    }

    /// The command or subcommand that a request names.
    pub(super) fn of_request(args: Args<'_>) -> Option<&'static Command> {
        let command = Command::find(args.at(0))?;
        if command.subcommands().is_empty() { Some(command) } else { command.subcommand(args.at(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::OwnedArgs;
    use crate::reply::Reply;

    #[test]
    fn a_command_is_found_by_its_name_in_any_case() {
        for command in commands() {
            let upper = command.name.to_ascii_uppercase();
            for name in [command.name, &upper] {
                assert_eq!(Command::find(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
        }
    }

    #[test]
    fn a_name_that_differs_in_one_byte_is_not_found() {
        let is_found =
            |name: &[u8], expected: &str| Command::find(name).is_some_and(|found| found.name == expected);
        for command in commands() {
            let original = command.name.to_ascii_uppercase().into_bytes();
            for byte in 0..=u8::MAX {
                let mut name = original.clone();
                name[0] = byte;
                let is_same = byte.eq_ignore_ascii_case(&original[0]);
                assert_eq!(is_found(&name, command.name), is_same, "{byte} in {}", command.name);
                let longer = [&original[..], &[byte]].concat();
                assert!(!is_found(&longer, command.name), "{} and {byte}", command.name);
            }
        }
        assert!(Command::find(b"").is_none() && Command::find(&[b'A'; 100]).is_none());
    }

    #[test]
    fn a_name_of_any_length_is_found() {
        const fn named(name: &'static str) -> Command {
            Command::new(name, 1, |_, _| Ok(Reply::Null))
        }
        // Pairs that differ in one byte, in the middle if they are long.
        static NAMES: &[Command] = &[
            named("a"),
            named("b"),
            named("aa"),
            named("ab"),
            named("aaa"),
            named("aba"),
            named("aaaaaaaa"),
            named("aaaaaaaaaaaaaaaa"),
            named("aaaaaaaabaaaaaaa"),
            named("aaaaaaaaaaaaaaaaa"),
            named("aaaaaaaabaaaaaaaa"),
            named("zremrangebyscorewithanameoffortytwoletters"),
            named("zremrangebyscorewithxnameoffortytwoletters"),
        ];
        static LONG: Index = index(&[NAMES]);
        for command in NAMES {
            let found = find_in(&LONG, command.name.to_ascii_uppercase().as_bytes());
            assert_eq!(found.map(|(found, _)| found.name), Some(command.name));
        }
        for unknown in ["c", "ac", "aca", "aaaaaaaacaaaaaaa", "aaaaaaaacaaaaaaaa", "aaaaaaaaa"] {
            assert!(find_in(&LONG, unknown.as_bytes()).is_none(), "{unknown}");
        }
    }

    #[test]
    fn most_names_are_found_in_the_first_slot() {
        let is_first = |command: &&Command| {
            let slot = Folded::of(command.name.as_bytes()).first_slot(command.name.len());
            INDEX[slot].command.is_some_and(|(found, _)| found.name == command.name)
        };
        let (all, first) = (commands().count(), commands().filter(is_first).count());
        assert!(first * 10 >= all * 8, "{first} of {all}");
    }

    #[test]
    fn every_row_is_complete() {
        for command in commands_and_subcommands() {
            let name = command.name;
            assert!(!command.summary.is_empty(), "{name} has no summary");
            if command.subcommands().is_empty() {
                let example = OwnedArgs::of(command.example.split(' '));
                let named = Command::of_request(example.as_args()).map(|command| command.name);
                assert_eq!(named, Some(name), "the example of {name} is a request of another command");
                assert!(command.accepts(example.as_args().len()), "the example of {name} is invalid");
            }
        }
    }
}
