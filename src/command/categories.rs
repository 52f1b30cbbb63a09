//! The categories of commands, by which access control lists grant and deny them.
//!
//! Guarantees: they derive from a command's group and flags, as in Redis, unless its row names
//! others. Not here: users, permissions.

use std::ops::BitOr;

use super::{Command, Flags, Group};

/// A set of categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Categories(u32);

impl Categories {
    /// No categories.
    pub const NONE: Categories = Categories(0);
    /// Keys of any kind.
    pub const KEYSPACE: Categories = Categories(1);
    /// Reads keys.
    pub const READ: Categories = Categories(1 << 1);
    /// May change keys.
    pub const WRITE: Categories = Categories(1 << 2);
    /// Sets.
    pub const SET: Categories = Categories(1 << 3);
    /// Sorted sets.
    pub const SORTED_SET: Categories = Categories(1 << 4);
    /// Lists.
    pub const LIST: Categories = Categories(1 << 5);
    /// Hashes.
    pub const HASH: Categories = Categories(1 << 6);
    /// Strings.
    pub const STRING: Categories = Categories(1 << 7);
    /// Publish and subscribe.
    pub const PUBSUB: Categories = Categories(1 << 8);
    /// For operators.
    pub const ADMIN: Categories = Categories(1 << 9);
    /// Takes constant or logarithmic time.
    pub const FAST: Categories = Categories(1 << 10);
    /// Is not fast.
    pub const SLOW: Categories = Categories(1 << 11);
    /// May block the connection.
    pub const BLOCKING: Categories = Categories(1 << 12);
    /// May harm other clients.
    pub const DANGEROUS: Categories = Categories(1 << 13);
    /// The connection itself.
    pub const CONNECTION: Categories = Categories(1 << 14);
    /// Transactions.
    pub const TRANSACTION: Categories = Categories(1 << 15);
    /// Scripts.
    pub const SCRIPTING: Categories = Categories(1 << 16);
    /// The native lock commands.
    pub const LOCK: Categories = Categories(1 << 17);

    /// Each category with its name, in Redis' order.
    const ALL: [(Categories, &'static str); 18] = [
        (Categories::KEYSPACE, "@keyspace"),
        (Categories::READ, "@read"),
        (Categories::WRITE, "@write"),
        (Categories::SET, "@set"),
        (Categories::SORTED_SET, "@sortedset"),
        (Categories::LIST, "@list"),
        (Categories::HASH, "@hash"),
        (Categories::STRING, "@string"),
        (Categories::PUBSUB, "@pubsub"),
        (Categories::ADMIN, "@admin"),
        (Categories::FAST, "@fast"),
        (Categories::SLOW, "@slow"),
        (Categories::BLOCKING, "@blocking"),
        (Categories::DANGEROUS, "@dangerous"),
        (Categories::CONNECTION, "@connection"),
        (Categories::TRANSACTION, "@transaction"),
        (Categories::SCRIPTING, "@scripting"),
        (Categories::LOCK, "@lock"),
    ];

    /// The category of a name in any case, without the `@`.
    pub fn find(name: &[u8]) -> Option<Categories> {
        let matches = |full: &str| full.as_bytes()[1..].eq_ignore_ascii_case(name);
        Categories::ALL.iter().find(|(_, full)| matches(full)).map(|(category, _)| *category)
    }

    /// The names of all categories, each with its `@`.
    pub fn all_names() -> impl Iterator<Item = &'static str> {
        Categories::ALL.iter().map(|(_, name)| *name)
    }

    /// The names, each with its `@`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Categories::ALL.iter();
        all.filter(move |(category, _)| self.contains(*category)).map(|(_, name)| *name)
    }

    /// Whether all of `others` are among them.
    pub const fn contains(self, others: Categories) -> bool {
        self.0 & others.0 == others.0
    }

    /// The union, for constants.
    pub(super) const fn and(self, others: Categories) -> Categories {
        Categories(self.0 | others.0)
    }

    fn of_group(group: Group) -> Categories {
        match group {
            Group::Lock => Categories::LOCK,
            Group::String => Categories::STRING,
            Group::Generic => Categories::KEYSPACE,
            Group::Hash => Categories::HASH,
            Group::Set => Categories::SET,
            Group::SortedSet => Categories::SORTED_SET,
            Group::List => Categories::LIST,
            Group::Scripting => Categories::SCRIPTING,
            Group::Transactions => Categories::TRANSACTION,
            Group::Connection => Categories::CONNECTION,
            Group::PubSub | Group::Server => Categories::NONE,
        }
    }

    fn of_flags(command: &Command) -> Categories {
        let when = |flag, categories| if command.is(flag) { categories } else { Categories::NONE };
        // A script that only reads is no command that only reads.
        let read = if command.group == Group::Scripting { Categories::NONE } else { Categories::READ };
        when(Flags::WRITE, Categories::WRITE)
            | when(Flags::READONLY, read)
            | when(Flags::ADMIN, Categories::ADMIN | Categories::DANGEROUS)
            | when(Flags::PUBSUB, Categories::PUBSUB)
            | when(Flags::BLOCKING, Categories::BLOCKING)
            | if command.is(Flags::FAST) { Categories::FAST } else { Categories::SLOW }
    }
}

impl BitOr for Categories {
    type Output = Categories;
    fn bitor(self, others: Categories) -> Categories {
        self.and(others)
    }
}

impl Command {
    /// The categories of the command. A container has only those of its flags, as in Redis.
    pub fn categories(&self) -> Categories {
        let own = match self.own_categories {
            Some(own) => own,
            None if !self.subcommands().is_empty() => Categories::NONE,
            None => Categories::of_group(self.group),
        };
        own | Categories::of_flags(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::commands_and_subcommands;

    /// What Redis 7.0 returns for the commands that both have.
    const REDIS: &str = "
auth: @fast @connection
client: @slow
client|getname: @slow @connection
client|id: @slow @connection
client|info: @slow @connection
client|kill: @admin @slow @dangerous @connection
client|list: @admin @slow @dangerous @connection
client|no-evict: @admin @slow @dangerous @connection
client|reply: @slow @connection
client|setname: @slow @connection
command: @slow @connection
command|count: @slow @connection
command|docs: @slow @connection
command|getkeys: @slow @connection
command|getkeysandflags: @slow @connection
command|info: @slow @connection
command|list: @slow @connection
config: @slow
config|get: @admin @slow @dangerous
dbsize: @keyspace @read @fast
del: @keyspace @write @slow
discard: @fast @transaction
echo: @fast @connection
exec: @slow @transaction
exists: @keyspace @read @fast
expire: @keyspace @write @fast
get: @read @string @fast
hello: @fast @connection
info: @slow @dangerous
keys: @keyspace @read @slow @dangerous
multi: @fast @transaction
persist: @keyspace @write @fast
pexpire: @keyspace @write @fast
ping: @fast @connection
psubscribe: @pubsub @slow
pttl: @keyspace @read @fast
publish: @pubsub @fast
punsubscribe: @pubsub @slow
quit: @fast @connection
reset: @fast @connection
scan: @keyspace @read @slow
select: @fast @connection
set: @write @string @slow
setnx: @write @string @fast
subscribe: @pubsub @slow
time: @fast
ttl: @keyspace @read @fast
type: @keyspace @read @fast
unlink: @keyspace @write @fast
unsubscribe: @pubsub @slow
unwatch: @fast @transaction
wait: @slow @connection
watch: @fast @transaction
";

    #[test]
    fn the_commands_of_redis_have_its_categories() {
        let mut compared = 0;
        for row in REDIS.lines().filter(|row| !row.is_empty()) {
            let (name, expected) = row.split_once(": ").expect("a name and categories");
            let command = commands_and_subcommands().find(|command| command.name == name);
            let command = command.unwrap_or_else(|| panic!("{name} is not a command"));
            let found: Vec<&str> = command.categories().names().collect();
            assert_eq!(found.join(" "), expected, "{name}");
            compared += 1;
        }
        assert!(compared > 40, "{compared}");
    }

    #[test]
    fn every_command_is_fast_or_slow() {
        for command in commands_and_subcommands() {
            let is = |category| command.categories().contains(category);
            assert_ne!(is(Categories::FAST), is(Categories::SLOW), "{}", command.name);
        }
    }

    #[test]
    fn a_category_is_found_by_its_name() {
        for (category, name) in Categories::ALL {
            assert_eq!(Categories::find(name[1..].to_uppercase().as_bytes()), Some(category));
            assert_eq!(category.names().collect::<Vec<_>>(), [name]);
        }
        assert_eq!(Categories::find(b"@read"), None);
        assert_eq!(Categories::find(b""), None);
    }
}
