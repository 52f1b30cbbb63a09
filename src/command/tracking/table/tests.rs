//! Tests of who hears which key is out of date.

use super::*;
use crate::command::Clients;
use crate::domain::Timestamp;

struct World {
    clients: Clients,
    tracking: Tracking,
}

impl World {
    fn new() -> World {
        World { clients: Clients::default(), tracking: Tracking::default() }
    }

    fn connect(&self) -> Arc<ClientInfo> {
        self.clients.register(String::new(), String::new(), Timestamp::default(), usize::MAX)
    }

    fn track(&self, info: &Arc<ClientInfo>, is_noloop: bool, prefixes: &[&str]) {
        let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect();
        let wish = Wish { target: None, is_noloop, prefixes };
        assert!(self.tracking.enable(info, wish).is_some());
    }

    /// A client that tracks what it reads.
    fn reader(&self) -> Arc<ClientInfo> {
        let info = self.connect();
        self.track(&info, false, &[]);
        info
    }

    /// Delivers invalidation number `number`, of a change by `client`.
    fn change(&self, key: Option<&str>, client: u64, number: u64) {
        let mut invalidation = Invalidation::new(key.map(str::as_bytes), client, number);
        while !invalidation.advance(&self.tracking) {}
    }

    fn bytes(&self) -> usize {
        self.tracking.table.lock().bytes
    }
}

/// The keys that a client has heard of since the last call; `*` for all.
fn heard(info: &ClientInfo) -> Vec<String> {
    std::iter::from_fn(|| info.messages.take())
        .map(|entry| match entry.notice.channel.is_empty() {
            true => "*".to_owned(),
            false => String::from_utf8_lossy(&entry.notice.payload).into_owned(),
        })
        .collect()
}

#[test]
fn a_reader_hears_of_one_change_until_it_reads_again() {
    let world = World::new();
    let reader = world.reader();
    world.tracking.remember(reader.id, b"k", 0);
    world.change(Some("other"), 0, 1);
    world.change(Some("k"), 0, 2);
    world.change(Some("k"), 0, 3);
    assert_eq!(heard(&reader), ["k"]);
    assert_eq!(world.bytes(), 0);
    world.tracking.remember(reader.id, b"k", 3);
    world.change(Some("k"), 0, 4);
    assert_eq!(heard(&reader), ["k"]);
}

#[test]
fn a_change_between_two_reads_is_heard_of_although_the_second_includes_it() {
    let world = World::new();
    let reader = world.reader();
    world.tracking.remember(reader.id, b"k", 0);
    // Change 1 is on its way.
    world.tracking.remember(reader.id, b"k", 1);
    world.change(Some("k"), 0, 1);
    assert_eq!(heard(&reader), ["k"]);
    // What the second read returned is known to the client, perhaps after it heard of change 1.
    world.change(Some("k"), 0, 2);
    assert_eq!(heard(&reader), ["k"]);
}

#[test]
fn a_change_before_the_first_read_is_not_heard_of() {
    let world = World::new();
    let reader = world.reader();
    world.tracking.remember(reader.id, b"k", 7);
    world.change(Some("k"), 0, 7);
    assert_eq!(heard(&reader), [""; 0]);
    world.change(Some("k"), 0, 8);
    assert_eq!(heard(&reader), ["k"]);
}

#[test]
fn every_client_hears_that_all_keys_are_out_of_date() {
    let world = World::new();
    let readers: Vec<_> = (0..2 * PER_STEP + 1).map(|_| world.reader()).collect();
    world.change(None, 0, 1);
    assert!(readers.iter().all(|reader| heard(reader) == ["*"]));
}

#[test]
fn very_many_readers_hear_of_a_change_in_steps() {
    let world = World::new();
    let readers: Vec<_> = (0..2 * PER_STEP + 1).map(|_| world.reader()).collect();
    readers.iter().for_each(|reader| world.tracking.remember(reader.id, b"k", 0));
    world.change(Some("k"), 0, 1);
    assert!(readers.iter().all(|reader| heard(reader) == ["k"]));
    assert_eq!(world.bytes(), 0);
}

#[test]
fn prefixes_are_heard_of_without_a_read_and_own_changes_only_if_wanted() {
    let world = World::new();
    let [all, some, quiet] = [(); 3].map(|()| world.connect());
    world.track(&all, false, &[""]);
    world.track(&some, false, &["user:", "job:"]);
    world.track(&quiet, true, &["user:"]);
    world.change(Some("user:1"), quiet.id, 1);
    world.change(Some("job:1"), 0, 2);
    world.change(Some("user:2"), all.id, 3);
    assert_eq!(heard(&all), ["user:1", "job:1", "user:2"]);
    assert_eq!(heard(&some), ["user:1", "job:1", "user:2"]);
    assert_eq!(heard(&quiet), ["user:2"]);
}

#[test]
fn beyond_the_limit_of_a_client_its_keys_are_out_of_date_early() {
    let world = World::new();
    let reader = world.reader();
    let key = |n: usize| format!("{n:0872}");
    let fit = CLIENT_BYTES_MAX / cost(key(0).as_bytes());
    for n in 0..fit {
        world.tracking.remember(reader.id, key(n).as_bytes(), 0);
    }
    assert_eq!(heard(&reader), [""; 0]);
    assert!(world.bytes() <= CLIENT_BYTES_MAX);
    world.tracking.remember(reader.id, key(fit).as_bytes(), 0);
    assert_eq!(heard(&reader), [key(0)]);
    assert!(world.bytes() <= CLIENT_BYTES_MAX);
    // One that does not fit at all is out of date at once.
    let huge = "x".repeat(CLIENT_BYTES_MAX);
    world.tracking.remember(reader.id, huge.as_bytes(), 0);
    assert_eq!(heard(&reader).last(), Some(&huge));
}

#[test]
fn a_client_that_stops_takes_no_memory() {
    let world = World::new();
    let reader = world.connect();
    world.track(&reader, false, &["a", "b"]);
    (0..3 * PER_STEP).for_each(|n| world.tracking.remember(reader.id, n.to_string().as_bytes(), 0));
    while world.tracking.disable_some(reader.id) {}
    let table = world.tracking.table.lock();
    assert_eq!((table.bytes, table.keys.len(), table.prefixes.len(), table.clients.len()), (0, 0, 0, 0));
    drop(table);
    world.change(Some("a"), 0, 1);
    world.change(None, 0, 2);
    assert_eq!(heard(&reader), [""; 0]);
}

#[test]
fn prefixes_that_take_too_many_bytes_are_refused() {
    let world = World::new();
    let info = world.connect();
    let wish =
        |bytes: usize| Wish { target: None, is_noloop: false, prefixes: vec![vec![b'x'; bytes].into()] };
    assert!(world.tracking.enable(&info, wish(CLIENT_BYTES_MAX - ENTRY_BYTES + 1)).is_none());
    assert!(world.tracking.enable(&info, wish(CLIENT_BYTES_MAX - ENTRY_BYTES)).is_some());
}
