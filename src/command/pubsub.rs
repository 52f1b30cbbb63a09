//! `SUBSCRIBE`, `PSUBSCRIBE`, `UNSUBSCRIBE`, `PUNSUBSCRIBE`, `PUBLISH`, and the lock events on `__lock__:<key>`.
//!
//! Promise: a subscriber gets the messages of one publisher, and the events of one lock, in order; one that does not
//! read is dropped at a limit. Events say what happened and the token, never the owner. Absent: sockets.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::glob::Glob;
use super::{Args, ClientInfo, Command, CommandError, Context, Flags, Group, Run, Service};
use crate::engine::Event;
use crate::reply::Reply;

type Subscribers = HashMap<u64, Arc<Mailbox>>;

/// Who listens to what.
#[derive(Default)]
pub struct Hub {
    topics: Mutex<Topics>,
}

#[derive(Default)]
struct Topics {
    channels: HashMap<Arc<[u8]>, Subscribers>,
    patterns: HashMap<Arc<[u8]>, Subscribers>,
    /// The patterns, ready to be matched.
    globs: HashMap<Arc<[u8]>, Glob>,
}

#[derive(Clone)]
struct Message {
    pattern: Option<Arc<[u8]>>,
    channel: Arc<[u8]>,
    payload: Arc<[u8]>,
}

impl Message {
    fn size(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or(0, |pattern| pattern.len());
        pattern + self.channel.len() + self.payload.len() + size_of::<Message>()
    }
}

/// Messages on their way to one connection.
pub struct Mailbox {
    queue: Mutex<Queue>,
    bytes_max: usize,
    info: Arc<ClientInfo>,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Mailbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, message: Message) {
        let mut queue = self.queue();
        queue.bytes += message.size();
        if queue.bytes > self.bytes_max {
            if !self.info.is_killed() {
                tracing::warn!(
                    client = %self.info.addr, bytes = queue.bytes,
                    "subscriber dropped: it does not read its messages (--subscriber-bytes-max)"
                );
            }
            *queue = Queue::default();
            drop(queue);
            self.info.kill();
            return;
        }
        queue.messages.push_back(message);
        drop(queue);
        self.info.call();
    }

    /// The oldest message, as the client gets it.
    pub fn take(&self) -> Option<Reply> {
        let mut queue = self.queue();
        let message = queue.messages.pop_front()?;
        queue.bytes -= message.size();
        let (channel, payload) = (Reply::bulk(&message.channel), Reply::bulk(&message.payload));
        Some(Reply::Push(match message.pattern {
            None => vec![Reply::bulk("message"), channel, payload],
            Some(pattern) => vec![Reply::bulk("pmessage"), Reply::bulk(&pattern), channel, payload],
        }))
    }
}

impl Hub {
    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends to everyone who listens. Answers how many times it was sent.
    fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        let topics = self.topics();
        let message = Message { pattern: None, channel: channel.into(), payload: payload.into() };
        let mut sent = 0;
        for mailbox in topics.channels.get(channel).into_iter().flat_map(Subscribers::values) {
            mailbox.push(message.clone());
            sent += 1;
        }
        for (pattern, subscribers) in &topics.patterns {
            if topics.globs.get(pattern).is_some_and(|glob| glob.matches(channel)) {
                for mailbox in subscribers.values() {
                    mailbox.push(Message { pattern: Some(Arc::clone(pattern)), ..message.clone() });
                    sent += 1;
                }
            }
        }
        sent
    }

    /// Passes a lock event on.
    pub fn tell(&self, event: &Event) {
        let text = format!("{} {}", event.kind.as_str(), event.token.get());
        self.publish(&channel_of(event), text.as_bytes());
    }

    /// How many channels and patterns somebody listens to.
    pub(super) fn counts(&self) -> (usize, usize) {
        let topics = self.topics();
        (topics.channels.len(), topics.patterns.len())
    }
}

/// `__lock__:<key>`, or `__lock@<n>__:<key>` outside database 0.
fn channel_of(event: &Event) -> Vec<u8> {
    let mut channel = match event.name.database() {
        0 => b"__lock__:".to_vec(),
        database => format!("__lock@{database}__:").into_bytes(),
    };
    channel.extend_from_slice(event.name.key());
    channel
}

/// What one connection listens to.
#[derive(Default)]
pub(super) struct Subscriptions {
    mailbox: Option<Arc<Mailbox>>,
    channels: BTreeSet<Arc<[u8]>>,
    patterns: BTreeSet<Arc<[u8]>>,
}

impl Subscriptions {
    pub(super) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.patterns.len())
    }

    pub(super) fn mailbox(&self) -> Option<&Arc<Mailbox>> {
        self.mailbox.as_ref()
    }

    pub(super) fn clear(&mut self, service: &Service, client: u64) {
        for kind in [Kind::Channel, Kind::Pattern] {
            for topic in std::mem::take(kind.own(self)) {
                leave(service, kind, client, &topic);
            }
        }
        self.mailbox = None;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Channel,
    Pattern,
}

impl Kind {
    fn own(self, subscriptions: &mut Subscriptions) -> &mut BTreeSet<Arc<[u8]>> {
        match self {
            Kind::Channel => &mut subscriptions.channels,
            Kind::Pattern => &mut subscriptions.patterns,
        }
    }

    fn all(self, topics: &mut Topics) -> &mut HashMap<Arc<[u8]>, Subscribers> {
        match self {
            Kind::Channel => &mut topics.channels,
            Kind::Pattern => &mut topics.patterns,
        }
    }
}

fn leave(service: &Service, kind: Kind, client: u64, topic: &Arc<[u8]>) {
    let mut topics = service.hub.topics();
    let all = kind.all(&mut topics);
    if let Some(subscribers) = all.get_mut(topic) {
        subscribers.remove(&client);
        if subscribers.is_empty() {
            all.remove(topic);
            if kind == Kind::Pattern {
                topics.globs.remove(topic);
            }
        }
        service.engine.listen(false);
    }
}

const fn command(
    name: &'static str,
    syntax: &'static str,
    arity: i8,
    flags: u16,
    summary: &'static str,
    run: super::Handler,
) -> Command {
    let (group, keys) = (Group::PubSub, (0, 0, 0));
    Command {
        name,
        syntax,
        summary,
        group,
        arity,
        flags: flags | Flags::PUBSUB,
        keys,
        run: Run::Handler(run),
    }
}

pub(super) const SUBSCRIBE: Command = command(
    "subscribe",
    "channel [channel ...]",
    -2,
    Flags::SUBSCRIBED | Flags::NO_MULTI,
    "Listens to channels; the events of a lock are on __lock__:<key>.",
    |context, words| subscribe(context, words, Kind::Channel),
);

pub(super) const PSUBSCRIBE: Command = command(
    "psubscribe",
    "pattern [pattern ...]",
    -2,
    Flags::SUBSCRIBED | Flags::NO_MULTI,
    "Listens to all channels that match; __lock__:* for the events of all locks.",
    |context, words| subscribe(context, words, Kind::Pattern),
);

pub(super) const UNSUBSCRIBE: Command = command(
    "unsubscribe",
    "[channel [channel ...]]",
    -1,
    Flags::SUBSCRIBED | Flags::NO_MULTI,
    "Stops listening to channels, or to all of them.",
    |context, words| unsubscribe(context, words, Kind::Channel),
);

pub(super) const PUNSUBSCRIBE: Command = command(
    "punsubscribe",
    "[pattern [pattern ...]]",
    -1,
    Flags::SUBSCRIBED | Flags::NO_MULTI,
    "Stops listening to patterns, or to all of them.",
    |context, words| unsubscribe(context, words, Kind::Pattern),
);

pub(super) const PUBLISH: Command = command(
    "publish",
    "channel message",
    3,
    Flags::FAST,
    "Sends a message to those who listen. Answers how many got it. Lock events cannot be sent.",
    |context, words| {
        let channel = words.word(1);
        if channel.starts_with(b"__lock__:") || channel.starts_with(b"__lock@") {
            return Err(CommandError::fixed(
                "ERR channels __lock__: and __lock@n__: are for the server's events",
            ));
        }
        Ok(Reply::count(context.service.hub.publish(channel, words.word(2))))
    },
);

fn confirmation(verb: &'static str, topic: Option<&[u8]>, count: usize) -> Reply {
    let topic = topic.map_or(Reply::Null, Reply::bulk);
    Reply::Push(vec![Reply::bulk(verb), topic, Reply::count(count)])
}

fn subscribe(context: &mut Context<'_>, words: Args<'_>, kind: Kind) -> Result<Reply, CommandError> {
    let verb = if kind == Kind::Channel { "subscribe" } else { "psubscribe" };
    let (service, limits) = (context.service, &context.service.limits);
    let info = Arc::clone(context.client.info());
    let subscriptions = &mut context.client.subscriptions;
    if subscriptions.count() + words.len() - 1 > limits.subscriptions_max {
        return Err(CommandError::new(format!(
            "ERR a connection listens to at most {} channels and patterns",
            limits.subscriptions_max
        )));
    }
    let globs = match kind {
        Kind::Channel => Vec::new(),
        Kind::Pattern => words.from(1).map(Glob::new).collect::<Result<Vec<_>, _>>()?,
    };
    let mailbox = Arc::clone(subscriptions.mailbox.get_or_insert_with(|| {
        let bytes_max = limits.subscriber_bytes_max;
        Arc::new(Mailbox { queue: Mutex::default(), bytes_max, info: Arc::clone(&info) })
    }));
    let mut confirmations = Vec::new();
    let mut globs = globs.into_iter();
    for topic in words.from(1) {
        let shared: Arc<[u8]> = topic.into();
        let glob = globs.next();
        if kind.own(subscriptions).insert(Arc::clone(&shared)) {
            let mut topics = service.hub.topics();
            topics.globs.extend(glob.map(|glob| (Arc::clone(&shared), glob)));
            kind.all(&mut topics).entry(shared).or_default().insert(info.id, Arc::clone(&mailbox));
            service.engine.listen(true);
        }
        confirmations.push(confirmation(verb, Some(topic), subscriptions.count()));
    }
    Ok(Reply::Sequence(confirmations))
}

fn unsubscribe(context: &mut Context<'_>, words: Args<'_>, kind: Kind) -> Result<Reply, CommandError> {
    let verb = if kind == Kind::Channel { "unsubscribe" } else { "punsubscribe" };
    let id = context.client.info().id;
    let subscriptions = &mut context.client.subscriptions;
    let topics: Vec<Arc<[u8]>> = match words.len() {
        1 => kind.own(subscriptions).iter().cloned().collect(),
        _ => words.from(1).map(Arc::from).collect(),
    };
    let mut confirmations = Vec::new();
    for topic in &topics {
        if kind.own(subscriptions).remove(topic) {
            leave(context.service, kind, id, topic);
        }
        confirmations.push(confirmation(verb, Some(topic), subscriptions.count()));
    }
    if confirmations.is_empty() {
        confirmations.push(confirmation(verb, None, subscriptions.count()));
    }
    Ok(Reply::Sequence(confirmations))
}
