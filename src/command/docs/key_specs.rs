//! The key specifications in `COMMAND INFO`, in the notation of Redis 7.

use super::bulk;
use super::key_flags::{KeyFlags, spec_flags};
use crate::command::{Command, KeyAccess, KeySpec};
use crate::reply::Reply;

/// The specifications of a command. Two keys with different access have one each.
pub(super) fn key_specs(command: &Command) -> Vec<Reply> {
    let spec = |access, begin_search, find_keys| spec(spec_flags(command, access), begin_search, find_keys);
    match command.keys {
        KeySpec::None => vec![],
        KeySpec::Range { first, last, step, access } => {
            // Relative to the first key.
            let last = if last > 0 { i64::from(last) - i64::from(first) } else { i64::from(last) };
            vec![spec(access, index(first), range(last, step))]
        }
        KeySpec::Two(first, second) => {
            vec![spec(first, index(1), range(0, 1)), spec(second, index(2), range(0, 1))]
        }
        KeySpec::Counted { count, access } => {
            let fields = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
            vec![spec(access, index(count), typed("keynum", &fields))]
        }
        KeySpec::Custom(_) => {
            vec![spec(KeyAccess::ReadWrite, typed("unknown", &[]), typed("unknown", &[]))]
        }
    }
}

fn spec(flags: KeyFlags, begin_search: Reply, find_keys: Reply) -> Reply {
    Reply::Map(vec![
        (bulk("flags"), flag_set(flags)),
        (bulk("begin_search"), begin_search),
        (bulk("find_keys"), find_keys),
    ])
}

pub(super) fn flag_set(flags: KeyFlags) -> Reply {
    Reply::Set(flags.iter().map(|flag| Reply::Simple(flag)).collect())
}

/// The search begins at argument `position`.
fn index(position: u8) -> Reply {
    typed("index", &[("index", i64::from(position))])
}

fn range(last: i64, step: u8) -> Reply {
    typed("range", &[("lastkey", last), ("keystep", i64::from(step)), ("limit", 0)])
}

fn typed(name: &str, fields: &[(&str, i64)]) -> Reply {
    let fields = fields.iter().map(|(key, value)| (bulk(key), Reply::Integer(*value)));
    Reply::Map(vec![(bulk("type"), bulk(name)), (bulk("spec"), Reply::Map(fields.collect()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the specifications, without the names of their fields.
    fn values(reply: &Reply) -> String {
        match reply {
            Reply::Map(pairs) => pairs.iter().map(|(_, value)| values(value)).collect::<Vec<_>>().join(" "),
            Reply::Set(all) => all.iter().map(values).collect::<Vec<_>>().join(" "),
            Reply::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
            Reply::Simple(text) => (*text).to_owned(),
            Reply::Integer(n) => n.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_kind_of_keys_is_described_as_redis_does() {
        let (read, write) = (KeyAccess::Read, KeyAccess::ReadWrite);
        let every_second = KeySpec::Range { first: 2, last: 6, step: 2, access: write };
        for (keys, expected) in [
            (KeySpec::None, &[][..]),
            (KeySpec::first(write), &["RW access update index 1 range 0 1 0"]),
            (KeySpec::all(read), &["RO access index 1 range -1 1 0"]),
            (every_second, &["RW access update index 2 range 4 2 0"]),
            (
                KeySpec::Two(read, write),
                &["RO access index 1 range 0 1 0", "RW access update index 2 range 0 1 0"],
            ),
            (KeySpec::Counted { count: 2, access: read }, &["RO access index 2 keynum 0 1 1"]),
            (KeySpec::Custom(|_, _| Ok(())), &["RW access update unknown  unknown "]),
        ] {
            let command = Command::new("", 1, |_, _| Ok(Reply::Null)).keys(keys);
            let found: Vec<String> = key_specs(&command).iter().map(values).collect();
            assert_eq!(found, expected, "{keys:?}");
        }
    }
}
