//! Subscriptions, and the delivery of messages and events.
//!
//! Guarantees: a subscriber receives the messages of one publisher, and the events of one lock, in
//! order. No call does more than about half a millisecond of work, regardless of the subscriptions:
//! a [`Publication`] takes turns. The task of each connection matches its patterns against events, so
//! they cost other connections nothing. Not here: the queues of
//! connections, commands, sockets.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::queue::{Entry, Notice, Via};
use crate::command::ClientInfo;
use crate::command::steps::TURN_WORK;
use crate::domain::{KeyspaceEvents, LockName};
use crate::engine::LeaseEvent;
use crate::glob::{Glob, Progress, Work};

/// Subscribers that are served before the work that is left is checked, under one lock.
const SUBSCRIBERS_PER_STEP: usize = 128;
/// Connections with messages among which those with requests would have to wait.
const CROWD_MIN: usize = 32;
/// Connections that have many messages and may write some of them before those with requests go on.
const TURNS_AT_ONCE: usize = 8;
/// Units of work to put a message into one queue, which is rarely in a cache of the processor.
const WORK_PER_SUBSCRIBER: usize = 50;
/// Units of work to find an entry of a map.
const WORK_PER_LOOKUP: usize = 20;

/// Size of a subscription without its text, in bytes: its entries in the tables of the server and
/// of the connection.
pub(in crate::command) const SUBSCRIPTION_BYTES: usize = 192;

/// By the ids of the clients.
type Subscribers = Vec<(u64, Arc<ClientInfo>)>;

/// The subscriptions of all connections.
pub struct PubSub {
    topics: Mutex<Topics>,
    turns: Semaphore,
    /// The number of messages that the latest notice has become.
    audience: AtomicUsize,
}

impl Default for PubSub {
    fn default() -> PubSub {
        PubSub {
            topics: Mutex::default(),
            turns: Semaphore::new(TURNS_AT_ONCE),
            audience: AtomicUsize::new(0),
        }
    }
}

#[derive(Default)]
struct Topics {
    channels: BTreeMap<Arc<[u8]>, Subscribers>,
    shard_channels: BTreeMap<Arc<[u8]>, Subscribers>,
    /// Ordered by text; see [`next_candidate`].
    patterns: BTreeMap<Glob, Subscribers>,
    /// Connections with patterns for events, by the common prefix of these patterns. They
    /// match the events themselves.
    prefixes: BTreeMap<Arc<[u8]>, Subscribers>,
    /// Connections with subscriptions to events.
    listeners: BTreeMap<u64, Arc<ClientInfo>>,
}

/// A channel or a pattern.
#[derive(Clone)]
pub(in crate::command) enum Topic {
    Channel(Arc<[u8]>),
    ShardChannel(Arc<[u8]>),
    Pattern(Glob),
}

/// What the channels of events begin with.
const EVENTS: [&[u8]; 2] = [b"__lock", b"__key"];

impl Topic {
    /// Whether it may match an event.
    pub(in crate::command) fn concerns_events(&self) -> bool {
        match self {
            Topic::Channel(channel) => EVENTS.iter().any(|events| channel.starts_with(events)),
            Topic::ShardChannel(_) => false,
            Topic::Pattern(glob) => {
                let prefix = glob.prefix();
                EVENTS.iter().any(|events| prefix.starts_with(events) || events.starts_with(prefix))
            }
        }
    }
}

/// Whether only the server publishes on this channel.
pub(in crate::command) fn is_reserved(channel: &[u8]) -> bool {
    channel.starts_with(b"__lock__:") || channel.starts_with(b"__lock@")
}

/// The key that a message is about, if it is a lock event or a notification about a key.
pub(in crate::command) fn key_of_message<'m>(channel: &'m [u8], payload: &'m [u8]) -> Option<&'m [u8]> {
    let after_database = |prefix: &[u8]| {
        let rest = channel.strip_prefix(prefix)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest[digits..].strip_prefix(b"__:")
    };
    channel
        .strip_prefix(b"__lock__:")
        .or_else(|| after_database(b"__lock@"))
        .or_else(|| after_database(b"__keyspace@"))
        .or_else(|| after_database(b"__keyevent@").map(|_| payload))
}

/// `__lock__:<key>`, or `__lock@<n>__:<key>` outside database 0.
fn channel_of(event: &LeaseEvent) -> Vec<u8> {
    let mut channel = match event.name.database() {
        0 => b"__lock__:".to_vec(),
        database => format!("__lock@{database}__:").into_bytes(),
    };
    channel.extend_from_slice(event.name.key());
    channel
}

fn add(subscribers: &mut Subscribers, client: u64, info: &Arc<ClientInfo>) {
    if let Err(place) = subscribers.binary_search_by_key(&client, |(id, _)| *id) {
        // Common case: one subscriber.
        if subscribers.is_empty() {
            subscribers.reserve_exact(1);
        }
        subscribers.insert(place, (client, Arc::clone(info)));
    }
}

/// Removes a subscriber. Returns whether none is left.
fn remove(subscribers: &mut Subscribers, client: u64) -> bool {
    if let Ok(place) = subscribers.binary_search_by_key(&client, |(id, _)| *id) {
        subscribers.remove(place);
    }
    subscribers.is_empty()
}

fn remove_from(channels: &mut BTreeMap<Arc<[u8]>, Subscribers>, channel: &Arc<[u8]>, client: u64) {
    if channels.get_mut(channel).is_some_and(|subscribers| remove(subscribers, client)) {
        channels.remove(channel);
    }
}

impl Topics {
    fn subscribers(&self, notice: &Notice, via: &Via) -> &[(u64, Arc<ClientInfo>)] {
        let found = match via {
            Via::Channel => self.channels.get(&notice.channel),
            Via::ShardChannel => self.shard_channels.get(&notice.channel),
            Via::Pattern(glob) => self.patterns.get(glob),
            Via::Prefix(prefix) => self.prefixes.get(prefix),
            Via::Monitor | Via::Tracking | Via::BrokenRedirection => None,
        };
        found.map_or(&[], Vec::as_slice)
    }
}

impl PubSub {
    /// Waits for the turn of a connection that has many messages, in the order of the calls. It ends
    /// with the value, and is to include a yield: one event may be for thousands of connections, and
    /// those with requests are not to wait until all of these have had a turn. It must not include
    /// a wait for a client.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.turns.acquire().await.ok()
    }

    /// Whether many connections have messages at the same time.
    pub fn has_crowd(&self) -> bool {
        self.audience.load(Ordering::Relaxed) > CROWD_MIN
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock()
    }

    pub(in crate::command) fn subscribe(&self, topic: Topic, client: u64, info: &Arc<ClientInfo>) {
        let mut topics = self.topics();
        let subscribers = match topic {
            Topic::Channel(channel) => topics.channels.entry(channel).or_default(),
            Topic::ShardChannel(channel) => topics.shard_channels.entry(channel).or_default(),
            Topic::Pattern(glob) => topics.patterns.entry(glob).or_default(),
        };
        add(subscribers, client, info);
    }

    pub(in crate::command) fn unsubscribe(&self, topic: &Topic, client: u64) {
        let mut topics = self.topics();
        match topic {
            Topic::Channel(channel) => remove_from(&mut topics.channels, channel, client),
            Topic::ShardChannel(channel) => remove_from(&mut topics.shard_channels, channel, client),
            Topic::Pattern(glob) => {
                if topics.patterns.get_mut(glob).is_some_and(|subscribers| remove(subscribers, client)) {
                    topics.patterns.remove(glob);
                }
            }
        }
    }

    /// Adds or removes a connection with subscriptions to events.
    pub(in crate::command) fn listen(&self, client: u64, info: Option<&Arc<ClientInfo>>) {
        let mut topics = self.topics();
        match info {
            Some(info) => topics.listeners.insert(client, Arc::clone(info)),
            None => topics.listeners.remove(&client),
        };
    }

    /// Changes the prefix of the channels whose events a connection receives from `before` to
    /// `after`.
    pub(in crate::command) fn move_prefix(
        &self,
        client: u64,
        info: &Arc<ClientInfo>,
        before: Option<&Arc<[u8]>>,
        after: Option<&Arc<[u8]>>,
    ) {
        let mut topics = self.topics();
        if let Some(prefix) = before
            && topics.prefixes.get_mut(prefix).is_some_and(|subscribers| remove(subscribers, client))
        {
            topics.prefixes.remove(prefix);
        }
        if let Some(prefix) = after {
            add(topics.prefixes.entry(Arc::clone(prefix)).or_default(), client, info);
        }
    }

    /// Closes all connections with subscriptions to events. Returns their number.
    pub fn cut_off_listeners(&self) -> usize {
        let listeners: Vec<_> = self.topics().listeners.values().cloned().collect();
        listeners.iter().for_each(|info| info.cut_off());
        listeners.len()
    }

    /// The next channels after `after`, at most [`SUBSCRIBERS_PER_STEP`].
    pub(super) fn channels_after(&self, is_shard: bool, after: Option<&[u8]>) -> Vec<Arc<[u8]>> {
        let topics = self.topics();
        let channels = if is_shard { &topics.shard_channels } else { &topics.channels };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let next = channels.range::<[u8], _>((after, Bound::Unbounded)).take(SUBSCRIBERS_PER_STEP);
        next.map(|(channel, _)| Arc::clone(channel)).collect()
    }

    /// The number of subscribers of a channel.
    pub(super) fn channel_subscribers(&self, is_shard: bool, channel: &[u8]) -> usize {
        let topics = self.topics();
        let channels = if is_shard { &topics.shard_channels } else { &topics.channels };
        channels.get(channel).map_or(0, Vec::len)
    }

    /// The numbers of channels, of patterns and of shard channels with subscribers.
    pub(in crate::command) fn counts(&self) -> (usize, usize, usize) {
        let topics = self.topics();
        (topics.channels.len(), topics.patterns.len(), topics.shard_channels.len())
    }

    /// The number of subscribers that receive a notice in this way.
    fn subscribers(&self, notice: &Notice, via: &Via) -> usize {
        self.topics().subscribers(notice, via).len()
    }

    /// Sends a notice to the next subscribers after id `after`. Returns their number, and whether
    /// all have received it.
    fn send(&self, notice: &Arc<Notice>, via: &Via, after: &mut u64, work: &mut Work) -> (usize, bool) {
        let mut dropped = Vec::new();
        let topics = self.topics();
        let subscribers = topics.subscribers(notice, via);
        let rest = &subscribers[subscribers.partition_point(|(id, _)| *id <= *after)..];
        let served = &rest[..rest.len().min(SUBSCRIBERS_PER_STEP)];
        for (id, info) in served {
            if !info.queue_message(Entry { via: via.clone(), notice: Arc::clone(notice) }) {
                dropped.push(Arc::clone(info));
            }
            *after = *id;
        }
        let done = (served.len(), served.len() == rest.len());
        drop(topics);
        work.spend(WORK_PER_LOOKUP + done.0 * WORK_PER_SUBSCRIBER);
        dropped.iter().for_each(|info| info.log_cut_off());
        done
    }
}

/// The delivery of a message or an event to its subscribers, in turns.
///
/// Subscribers that come or go meanwhile may or may not receive it. All others receive it once for
/// each channel or pattern.
pub struct Publication {
    notice: Arc<Notice>,
    kind: Kind,
    sent: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message of a client.
    Message,
    /// A message of a client for a shard channel, which no pattern matches.
    ShardMessage,
    /// Subscribers match their patterns themselves.
    Event,
}

enum Stage {
    /// Finds the next pattern, or prefix, after this one.
    Find {
        after: Option<Via>,
    },
    /// Matches a pattern.
    Match {
        glob: Glob,
        progress: Progress,
    },
    /// Sends to the subscribers with ids above `after`.
    Send {
        via: Via,
        after: u64,
    },
    Done,
}

impl Publication {
    /// A message of a client.
    pub(in crate::command) fn message(channel: &[u8], payload: &[u8]) -> Publication {
        Publication::new(channel.into(), payload.into(), Kind::Message)
    }

    /// A message of a client for a shard channel.
    pub(in crate::command) fn shard_message(channel: &[u8], payload: &[u8]) -> Publication {
        Publication::new(channel.into(), payload.into(), Kind::ShardMessage)
    }

    /// A keyspace notification: what goes to each of the channels that `events` selects.
    pub(in crate::command) fn notifications(
        events: KeyspaceEvents,
        name: &LockName,
        event: &str,
    ) -> impl Iterator<Item = Publication> {
        let (database, event) = (name.database(), event.as_bytes());
        let to_key = events.contains(KeyspaceEvents::KEYSPACE).then(|| {
            let channel = [format!("__keyspace@{database}__:").as_bytes(), name.key()].concat();
            Publication::new(channel.into(), event.into(), Kind::Event)
        });
        let to_event = events.contains(KeyspaceEvents::KEYEVENT).then(|| {
            let channel = [format!("__keyevent@{database}__:").as_bytes(), event].concat();
            Publication::new(channel.into(), name.key().into(), Kind::Event)
        });
        to_key.into_iter().chain(to_event)
    }

    /// A lock event.
    pub(in crate::command) fn event(event: &LeaseEvent) -> Publication {
        let payload = format!("{} {}", event.kind.as_str(), event.token.get());
        Publication::new(channel_of(event).into(), payload.into_bytes().into(), Kind::Event)
    }

    fn new(channel: Arc<[u8]>, payload: Box<[u8]>, kind: Kind) -> Publication {
        let via = if kind == Kind::ShardMessage { Via::ShardChannel } else { Via::Channel };
        let stage = Stage::Send { via, after: 0 };
        Publication { notice: Arc::new(Notice { channel, payload }), kind, sent: 0, stage }
    }

    /// Size in bytes, as it is counted against limits.
    pub(in crate::command) fn size(&self) -> usize {
        size_of::<(Publication, Notice)>() + self.notice.channel.len() + self.notice.payload.len()
    }

    /// The number of times that it would be sent now. Patterns that exceed one turn of work do not
    /// count.
    pub(in crate::command) fn count_receivers(&self, pubsub: &PubSub) -> usize {
        let mut work = Work::of_units(TURN_WORK);
        if self.kind == Kind::ShardMessage {
            return pubsub.subscribers(&self.notice, &Via::ShardChannel);
        }
        let mut receivers = pubsub.subscribers(&self.notice, &Via::Channel);
        let mut after = None;
        while !work.is_spent()
            && let Stage::Match { glob, mut progress } =
                find(pubsub, &self.notice, self.kind, after.as_ref(), &mut work)
        {
            let matches = glob.advance(&self.notice.channel, &mut progress, &mut work);
            let via = Via::Pattern(glob);
            if matches == Some(true) {
                receivers += pubsub.subscribers(&self.notice, &via);
            }
            after = Some(via);
        }
        receivers
    }

    /// Does the work that is left in a turn. Returns the number of times that it was sent, or `None` if
    /// another turn is needed.
    pub(in crate::command) fn advance_by(&mut self, pubsub: &PubSub, work: &mut Work) -> Option<usize> {
        while !work.is_spent() {
            self.stage = match &mut self.stage {
                Stage::Done => break,
                Stage::Find { after } => find(pubsub, &self.notice, self.kind, after.as_ref(), work),
                Stage::Match { glob, progress } => match glob.advance(&self.notice.channel, progress, work) {
                    Some(true) => Stage::Send { via: Via::Pattern(glob.clone()), after: 0 },
                    Some(false) => Stage::Find { after: Some(Via::Pattern(glob.clone())) },
                    None => continue,
                },
                Stage::Send { via, after } => {
                    let (sent, is_done) = pubsub.send(&self.notice, via, after, work);
                    self.sent += sent;
                    match is_done {
                        true => Stage::Find { after: Some(via.clone()) },
                        false => continue,
                    }
                }
            };
        }
        let is_done = matches!(self.stage, Stage::Done);
        match is_done {
            true => pubsub.audience.store(self.sent, Ordering::Relaxed),
            // A crowd stays one until a notice shows that there is none.
            false => _ = pubsub.audience.fetch_max(self.sent, Ordering::Relaxed),
        }
        is_done.then_some(self.sent)
    }
}

/// The next pattern to match, or the next prefix to send to.
fn find(pubsub: &PubSub, notice: &Notice, kind: Kind, after: Option<&Via>, work: &mut Work) -> Stage {
    if kind == Kind::ShardMessage {
        return Stage::Done;
    }
    let topics = pubsub.topics();
    let channel = &notice.channel;
    if kind == Kind::Event {
        let after = match after {
            Some(Via::Prefix(prefix)) => Some(&**prefix),
            _ => None,
        };
        let found = next_prefix(&topics.prefixes, after, channel, work);
        return found
            .map_or(Stage::Done, |prefix| Stage::Send { via: Via::Prefix(Arc::clone(prefix)), after: 0 });
    }
    let after = match after {
        Some(Via::Pattern(glob)) => Some(&**glob.text()),
        _ => None,
    };
    let found = next_candidate(&topics.patterns, after, channel, work);
    found.map_or(Stage::Done, |glob| Stage::Match { glob: glob.clone(), progress: Progress::default() })
}

/// The lower bound of the texts after `after`.
fn start(after: Option<&[u8]>) -> Bound<Vec<u8>> {
    after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_vec()))
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

/// Finds the next text after `after` that is a prefix of `channel`.
pub(in crate::command) fn next_prefix<'t, V>(
    prefixes: &'t BTreeMap<Arc<[u8]>, V>,
    after: Option<&[u8]>,
    channel: &[u8],
    work: &mut Work,
) -> Option<&'t Arc<[u8]>> {
    let mut from = start(after);
    loop {
        work.spend(WORK_PER_LOOKUP);
        let (prefix, _) = prefixes.range::<[u8], _>((as_slice(&from), Bound::Unbounded)).next()?;
        if channel.starts_with(prefix) {
            return Some(prefix);
        }
        // All texts before this prefix of the channel differ from it in the same byte.
        let same = common_bytes(prefix, channel);
        if prefix.get(same) > channel.get(same) {
            return None;
        }
        from = Bound::Included(channel[..=same].to_vec());
    }
}

/// Finds the next pattern after `after` that may match `channel`: its text before the first special
/// character is a prefix of the channel. Patterns that differ from the channel in the same byte are
/// skipped at once.
pub(in crate::command) fn next_candidate<'t, V>(
    patterns: &'t BTreeMap<Glob, V>,
    after: Option<&[u8]>,
    channel: &[u8],
    work: &mut Work,
) -> Option<&'t Glob> {
    let mut from = start(after);
    loop {
        work.spend(WORK_PER_LOOKUP);
        let (glob, _) = patterns.range::<[u8], _>((as_slice(&from), Bound::Unbounded)).next()?;
        let prefix = glob.prefix();
        let same = common_bytes(prefix, channel);
        if same == prefix.len() {
            return Some(glob);
        }
        from = Bound::Included(successor(&glob.text()[..=same], channel)?);
    }
}

pub(in crate::command) fn common_bytes(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first text after all that start with `differing` that a pattern for `channel` may start
/// with. `differing` is a prefix of the channel except for its last byte.
fn successor(differing: &[u8], channel: &[u8]) -> Option<Vec<u8>> {
    const SPECIAL: [u8; 4] = [b'*', b'?', b'[', b'\\'];
    (0..differing.len()).rev().find_map(|place| {
        let next = SPECIAL.into_iter().chain(channel.get(place).copied());
        let next = next.filter(|byte| *byte > differing[place]).min()?;
        Some([&differing[..place], &[next]].concat())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(patterns: &BTreeMap<Glob, ()>, channel: &[u8]) -> (Vec<Glob>, u64) {
        let (mut found, mut work): (Vec<Glob>, _) = (Vec::new(), Work::new(u64::MAX));
        while let Some(glob) =
            next_candidate(patterns, found.last().map(|glob| &**glob.text()), channel, &mut work)
        {
            found.push(glob.clone());
        }
        (found, work.spent_of(u64::MAX))
    }

    fn globs(patterns: impl IntoIterator<Item = Vec<u8>>) -> BTreeMap<Glob, ()> {
        patterns.into_iter().map(|pattern| (Glob::new(&pattern).unwrap(), ())).collect()
    }

    fn args() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(&b"!Aac~*?[\\"[..]), 0..5)
    }

    proptest! {
        #[test]
        fn every_pattern_that_matches_is_a_candidate(
            patterns in proptest::collection::vec(args(), 0..40),
            channel in args(),
        ) {
            let patterns = globs(patterns);
            let (found, _) = candidates(&patterns, &channel);
            let may_match = |glob: &&Glob| channel.starts_with(glob.prefix());
            let expected: Vec<_> = patterns.keys().filter(may_match).cloned().collect();
            prop_assert_eq!(&found, &expected);
            for glob in patterns.keys().filter(|glob| glob.matches(&channel)) {
                prop_assert!(found.contains(glob));
            }
        }

        #[test]
        fn every_prefix_of_a_channel_is_found(
            prefixes in proptest::collection::vec(args(), 0..40),
            channel in args(),
        ) {
            let prefixes: BTreeMap<Arc<[u8]>, ()> =
                prefixes.into_iter().map(|prefix| (prefix.into(), ())).collect();
            let mut found: Vec<Arc<[u8]>> = Vec::new();
            let mut work = Work::new(u64::MAX);
            while let Some(prefix) =
                next_prefix(&prefixes, found.last().map(|prefix| &**prefix), &channel, &mut work)
            {
                found.push(Arc::clone(prefix));
            }
            let expected: Vec<_> =
                prefixes.keys().filter(|prefix| channel.starts_with(prefix)).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn patterns_with_another_prefix_cost_nothing() {
        let patterns = globs((0..10_000).map(|n| format!("user:{n}:*").into_bytes()));
        let (found, work) = candidates(&patterns, b"user:77:lock");
        assert_eq!(found.len(), 1);
        assert!(work < 500, "{work}");
        let (found, work) = candidates(&patterns, b"__lock__:user:77");
        assert!(found.is_empty() && work < 100, "{work}");
    }
}
