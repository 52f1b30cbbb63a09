//! kill -9 while values and scripts change: a restart finds all that was acknowledged, element by
//! element, and of the requests in flight a first part.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use octostore::engine::ScriptId;
use octostore::value::{End, Kind};

use super::kill_under_load;
use crate::support::client::{Client, encode};
use crate::support::process::Process;
use crate::support::random::{Random, setting};
use crate::support::values::{Change, KEYS, Model, ModelValue, kind_of, script};

const CLIENTS: usize = 3;
/// Longer than the test takes.
const TTL_MS_MAX: u64 = 1 << 40;

/// What a client knows of its keys, which no other client changes.
#[derive(Clone, Default)]
struct Known {
    acknowledged: Model,
    /// Sent, and not answered when the server died.
    in_flight: Vec<Change>,
}

fn name(client: usize, key: usize) -> String {
    format!("client {client} key {key}")
}

/// The request for a change.
fn request(client: usize, change: &Change) -> Vec<u8> {
    let words = match change {
        Change::Put { key, field, value, end } => {
            let (command, arguments) = match (kind_of(*key), end) {
                (Kind::Hash, _) => ("HSET", vec![field, value]),
                (Kind::Set, _) => ("SADD", vec![field]),
                (Kind::SortedSet, _) => ("ZADD", vec![value, field]),
                (Kind::List, End::Front) => ("LPUSH", vec![value]),
                (Kind::List, End::Back) => ("RPUSH", vec![value]),
            };
            let head = [command.into(), name(client, *key).into_bytes()];
            head.into_iter().chain(arguments.into_iter().map(|part| part.to_vec())).collect()
        }
        Change::Remove { key, field, end } => {
            let (command, argument) = match (kind_of(*key), end) {
                (Kind::Hash, _) => ("HDEL", Some(field)),
                (Kind::Set, _) => ("SREM", Some(field)),
                (Kind::SortedSet, _) => ("ZREM", Some(field)),
                (Kind::List, End::Front) => ("LPOP", None),
                (Kind::List, End::Back) => ("RPOP", None),
            };
            let head = [command.into(), name(client, *key).into_bytes()];
            head.into_iter().chain(argument.map(|part| part.to_vec())).collect::<Vec<Vec<u8>>>()
        }
        Change::Delete { key } => vec!["DEL".into(), name(client, *key).into()],
        Change::SetTtl { key, millis: Some(millis) } => {
            vec!["PEXPIRE".into(), name(client, *key).into(), millis.to_string().into()]
        }
        Change::SetTtl { key, millis: None } => vec!["PERSIST".into(), name(client, *key).into()],
        Change::Rename { from, to } => {
            vec!["RENAME".into(), name(client, *from).into(), name(client, *to).into()]
        }
        Change::PutScript(number) => vec!["SCRIPT".into(), "LOAD".into(), script(*number).into()],
    };
    encode(&words)
}

/// Changes values, several at once, until the server dies.
fn load(
    mut connection: Client,
    client: usize,
    seed: u64,
    mut known: Known,
    acknowledged: &AtomicU64,
) -> Known {
    let mut random = Random::new(seed);
    loop {
        let change = |_| Change::random(&mut random, TTL_MS_MAX);
        let mut changes: Vec<Change> = (0..6).map(change).collect();
        changes.truncate(1 + random.below(6) as usize);
        let requests: Vec<u8> = changes.iter().flat_map(|change| request(client, change)).collect();
        let mut answered = 0;
        if connection.stream().write_all(&requests).is_ok() {
            for change in &changes {
                let reply = connection.reply();
                if reply == "(closed)" {
                    break;
                }
                let is_missing = matches!(change, Change::Rename { .. }) && reply == "-ERR no such key";
                assert!(is_missing || !reply.starts_with('-'), "{change:?}: {reply}");
                known.acknowledged.apply(change, 0);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                answered += 1;
            }
        }
        if answered < changes.len() {
            known.in_flight = changes.split_off(answered);
            return known;
        }
    }
}

/// The value of a key, and whether it has a TTL.
fn found(connection: &mut Client, name: &str, key: usize) -> Option<(Vec<String>, bool)> {
    let reply = match kind_of(key) {
        Kind::Hash => connection.call(&["HGETALL", name]),
        Kind::Set => connection.call(&["SMEMBERS", name]),
        Kind::SortedSet => connection.call(&["ZRANGE", name, "0", "-1", "WITHSCORES"]),
        Kind::List => connection.call(&["LRANGE", name, "0", "-1"]),
    };
    let parts: Vec<String> = reply.lines().skip(1).map(|line| line.trim_start().to_owned()).collect();
    let mut elements: Vec<String> = match kind_of(key) {
        Kind::Hash | Kind::SortedSet => parts.chunks(2).map(|pair| pair.join(" ")).collect(),
        Kind::Set | Kind::List => parts,
    };
    if kind_of(key) != Kind::List {
        elements.sort();
    }
    let left = connection.call(&["PTTL", name]);
    assert_eq!(left == ":-2", elements.is_empty(), "{name}: {left}, {elements:?}");
    (!elements.is_empty()).then(|| (elements, left != ":-1"))
}

/// The same of the model.
fn expected(value: &ModelValue, key: usize) -> (Vec<String>, bool) {
    let quoted = |bytes: &[u8]| format!("\"{}\"", bytes.escape_ascii());
    let element = |(field, value): &(Bytes, Bytes)| match kind_of(key) {
        Kind::Hash | Kind::SortedSet => format!("{} {}", quoted(field), quoted(value)),
        Kind::Set => quoted(field),
        Kind::List => quoted(value),
    };
    let mut elements: Vec<String> = value.elements.iter().map(element).collect();
    if kind_of(key) != Kind::List {
        elements.sort();
    }
    (elements, value.ttl_ms.is_some())
}

/// Compares the recovered state with the acknowledged one, and resolves doubts.
fn check(server: &Process, client: usize, known: &mut Known) {
    let mut connection = server.connect();
    let found: Vec<_> = (0..KEYS).map(|key| found(&mut connection, &name(client, key), key)).collect();
    let of = |model: &Model| -> Vec<_> {
        (0..KEYS).map(|key| model.values.get(&key).map(|value| expected(value, key))).collect()
    };
    let Known { acknowledged, in_flight } = known;
    let before = of(acknowledged);
    let mut changes = in_flight.drain(..);
    while of(acknowledged) != found {
        let Some(change) = changes.next() else {
            panic!("client {client}: acknowledged was {before:#?}, the server has {found:#?}");
        };
        acknowledged.apply(&change, 0);
    }
    drop(changes);
    for number in &acknowledged.scripts {
        let id = ScriptId::of(script(*number).as_bytes()).to_string();
        assert_eq!(connection.call(&["EVALSHA", &id, "0"]), format!(":{number}"));
    }
}

#[test]
fn kill_9_under_load_loses_no_acknowledged_element() {
    let cycles = setting("OCTOSTORE_TEST_CRASHES").unwrap_or(30);
    let seed = setting("OCTOSTORE_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{cycles} cycles, seed {seed}");
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("octostore.db");
    let mut known = vec![Known::default(); CLIENTS];
    let mut operations = 0;
    for _ in 0..cycles {
        let server = Process::start(&data, &[]);
        known.iter_mut().enumerate().for_each(|(client, known)| check(&server, client, known));
        let acknowledged;
        (known, acknowledged) = kill_under_load(server, known, &mut random, 600, load);
        operations += acknowledged;
    }
    println!("{operations} acknowledged changes");
    assert!(operations > 0);
}
