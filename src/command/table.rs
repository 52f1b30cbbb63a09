//! The table of all commands, and look-up by name.
//!
//! Guarantees: a name is found in any case and at any length. The index is a constant: a duplicate
//! name does not compile. Not here: the rows, which stand beside their handlers.

use super::{Args, Command, connection, docs, key, lock, options, pubsub, server, string, transaction};

/// All commands by family, in the order of the documentation.
pub static FAMILIES: &[&[Command]] = &[
    lock::COMMANDS,
    string::COMMANDS,
    key::COMMANDS,
    transaction::COMMANDS,
    pubsub::COMMANDS,
    connection::COMMANDS,
    docs::COMMANDS,
    server::COMMANDS,
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
type Index = [Option<&'static Command>; SLOTS];

/// A power of two, and more than twice the number of commands.
const SLOTS: usize = 512;
const COMMANDS_MAX: usize = SLOTS / 2;

static INDEX: Index = index(FAMILIES);
static NAME_BYTES_MAX: usize = longest(FAMILIES);

const fn index(families: &[&'static [Command]]) -> Index {
    let mut index = [None; SLOTS];
    let mut count = 0;
    let mut family = 0;
    while family < families.len() {
        let mut n = 0;
        while n < families[family].len() {
            let command = &families[family][n];
            let mut slot = first_slot(command.name.as_bytes());
            while let Some(other) = index[slot] {
                let other: &Command = other;
                assert!(!command.name.eq_ignore_ascii_case(other.name), "two commands of one name");
                slot = (slot + 1) % SLOTS;
            }
            index[slot] = Some(command);
            count += 1;
            assert!(count <= COMMANDS_MAX, "SLOTS is too small");
            n += 1;
        }
        family += 1;
    }
    index
}

const fn longest(families: &[&[Command]]) -> usize {
    let mut longest = 0;
    let mut family = 0;
    while family < families.len() {
        let mut n = 0;
        while n < families[family].len() {
            let bytes = families[family][n].name.len();
            longest = if bytes > longest { bytes } else { longest };
            n += 1;
        }
        family += 1;
    }
    longest
}

/// The slot at which the search for a name starts: FNV-1a of the lower-cased letters.
const fn first_slot(name: &[u8]) -> usize {
    let mut hash: u32 = 0x811c_9dc5;
    let mut n = 0;
    while n < name.len() {
        hash = (hash ^ (name[n] | 0x20) as u32).wrapping_mul(0x0100_0193);
        n += 1;
    }
    // The low bits of the product depend on the low bits of the letters only.
    (hash ^ (hash >> 16)) as usize % SLOTS
}

impl Command {
    /// The command of a name, in any case.
    pub fn find(name: &[u8]) -> Option<&'static Command> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut slot = first_slot(name);
        while let Some(command) = INDEX[slot] {
            if command.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(command);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }

    /// The subcommand of a name without the container's, in any case.
    pub(super) fn subcommand(&self, own_name: &[u8]) -> Option<&'static Command> {
        self.subcommands().iter().find(|subcommand| options::is(own_name, subcommand.own_name()))
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
            assert!(command.name.bytes().all(|byte| byte.is_ascii_lowercase()), "{}", command.name);
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
    fn the_index_takes_names_of_any_length() {
        const LONG: Command = Command::new("zremrangebyscorewithaverylongname", 1, |_, _| Ok(Reply::Null));
        static WITH_LONG: &[&[Command]] = &[&[LONG]];
        let slot = first_slot(b"ZREMRANGEBYSCOREWITHAVERYLONGNAME");
        assert_eq!(index(WITH_LONG)[slot].map(|command| command.name), Some(LONG.name));
        assert_eq!(longest(WITH_LONG), LONG.name.len());
    }

    #[test]
    fn most_names_are_found_in_the_first_slot() {
        let is_first = |command: &&Command| {
            INDEX[first_slot(command.name.as_bytes())].is_some_and(|found| found.name == command.name)
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
