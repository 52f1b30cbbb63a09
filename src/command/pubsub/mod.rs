//! `SUBSCRIBE`, `PSUBSCRIBE`, `UNSUBSCRIBE`, `PUNSUBSCRIBE`, `PUBLISH`, and the subscriptions of
//! one connection.
//!
//! Guarantees: the subscriptions of a connection are bounded in number and in bytes. A command that
//! would exceed either limit changes nothing. Lock events contain the token, never the owner. Not
//! here: the delivery of messages, sockets.

mod delivery;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::auth::User;
use crate::command::steps::{self, RemainingArgs, Steps, TURN_WORK};
use crate::command::{Args, Caller, ClientLimits, Command, CommandError, Context, Flags, Group, ServerState};
use crate::engine::AnyTxn;
use crate::glob::{Glob, Progress, Work};
use crate::reply::Reply;
pub(in crate::command) use delivery::key_of_message;
use delivery::{Notice, SUBSCRIPTION_BYTES, SubscriberQueue, Topic, Via};
pub use delivery::{PubSub, Publication};

/// The subscriptions of one connection.
#[derive(Default)]
pub(in crate::command) struct Subscriptions {
    queue: Option<Arc<SubscriberQueue>>,
    channels: BTreeSet<Arc<[u8]>>,
    patterns: BTreeMap<Glob, ()>,
    /// Their size, as counted against the limit.
    bytes: usize,
    /// Number of subscriptions that may match lock events, and of patterns among them.
    for_events: usize,
    patterns_for_events: usize,
    /// The common prefix of these patterns.
    prefix: Option<Arc<[u8]>>,
    /// The event that is matched against the patterns.
    matching: Option<Matching>,
}

/// A match of an event against the patterns, in progress.
struct Matching {
    notice: Arc<Notice>,
    /// The current or the last pattern.
    pattern: Option<Glob>,
    /// The progress with the current pattern; `None` between patterns.
    progress: Option<Progress>,
}

/// The next message for a subscriber.
pub enum Incoming {
    /// This message.
    Message(Reply),
    /// There is none.
    Nothing,
    /// The work of this turn is spent; there may be more messages.
    Unfinished,
}

/// The work that a connection may do for its subscriptions before it yields.
pub struct Turn(Work);

impl Default for Turn {
    fn default() -> Turn {
        Turn(Work::of_units(TURN_WORK))
    }
}

impl Matching {
    /// Finds the next pattern that matches. Fails if the work is spent.
    fn next(&mut self, patterns: &BTreeMap<Glob, ()>, work: &mut Work) -> Result<Option<Glob>, ()> {
        loop {
            if let (Some(glob), Some(progress)) = (&self.pattern, &mut self.progress) {
                // The client may have unsubscribed meanwhile.
                let matches = patterns.contains_key(glob)
                    && glob.advance(&self.notice.channel, progress, work).ok_or(())?;
                self.progress = None;
                if matches {
                    return Ok(Some(glob.clone()));
                }
            }
            let after = self.pattern.as_ref().map(|glob| &**glob.text());
            match delivery::next_candidate(patterns, after, &self.notice.channel, work) {
                Some(glob) => (self.pattern, self.progress) = (Some(glob.clone()), Some(Progress::default())),
                None => return Ok(None),
            }
        }
    }
}

fn may_hear(user: &User, notice: &Notice) -> bool {
    let key = || delivery::key_of_message(&notice.channel, &notice.payload);
    user.allows_everything() || user.may_hear(&notice.channel, key())
}

fn message(notice: &Notice, pattern: Option<&Glob>) -> Incoming {
    let (channel, payload) = (Reply::bulk(&notice.channel), Reply::bulk(&notice.payload));
    Incoming::Message(Reply::Push(match pattern {
        None => vec![Reply::bulk("message"), channel, payload],
        Some(glob) => vec![Reply::bulk("pmessage"), Reply::bulk(glob.text()), channel, payload],
    }))
}

impl Subscriptions {
    pub(in crate::command) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    pub(in crate::command) fn counts(&self) -> (usize, usize) {
        (self.channels.len(), self.patterns.len())
    }

    /// Whether the client has subscribed since the connection was opened or reset.
    pub(in crate::command) fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Removes the oldest message that `user` may hear.
    pub(in crate::command) fn next_message(&mut self, turn: &mut Turn, user: &User) -> Incoming {
        let work = &mut turn.0;
        loop {
            if let Some(matching) = &mut self.matching {
                match matching.next(&self.patterns, work) {
                    Ok(Some(glob)) => return message(&matching.notice, Some(&glob)),
                    Ok(None) => self.matching = None,
                    Err(()) => return Incoming::Unfinished,
                }
            }
            let Some(entry) = self.queue.as_ref().and_then(|queue| queue.take()) else {
                return Incoming::Nothing;
            };
            work.spend(1);
            if !may_hear(user, &entry.notice) {
                if work.is_spent() {
                    return Incoming::Unfinished;
                }
                continue;
            }
            match entry.via {
                Via::Channel => return message(&entry.notice, None),
                Via::Pattern(glob) => return message(&entry.notice, Some(&glob)),
                Via::Prefix(_) => {
                    self.matching = Some(Matching { notice: entry.notice, pattern: None, progress: None });
                }
            }
        }
    }

    /// Fails if `topics` more subscriptions of `bytes` bytes exceed the limits.
    fn check(&self, limits: &ClientLimits, topics: usize, bytes: usize) -> Result<(), CommandError> {
        if self.count() + topics > limits.subscriptions_max {
            return Err(CommandError::new(format!(
                "ERR subscription limit reached: {} channels and patterns (--subscriptions-max)",
                limits.subscriptions_max
            )));
        }
        if self.bytes + bytes > limits.subscriptions_bytes_max {
            return Err(CommandError::new(format!(
                "ERR the channels and patterns of a connection take at most {} bytes, {SUBSCRIPTION_BYTES} for each \
                 beside its name",
                limits.subscriptions_bytes_max
            )));
        }
        Ok(())
    }

    fn has(&self, kind: Kind, topic: &[u8]) -> bool {
        match kind {
            Kind::Channel => self.channels.contains(topic),
            Kind::Pattern => self.patterns.contains_key(topic),
        }
    }

    /// Adds a channel or pattern that is not subscribed to yet.
    fn add(&mut self, server: &ServerState, client: u64, kind: Kind, text: &[u8]) {
        let Some(queue) = &self.queue else { return };
        let shared: Arc<[u8]> = text.into();
        let topic = match kind {
            Kind::Channel => Topic::Channel(shared),
            Kind::Pattern => Topic::Pattern(Glob::of(shared)),
        };
        let is_for_events = topic.concerns_events();
        if is_for_events && self.for_events == 0 {
            server.pubsub.listen(client, Some(queue));
            server.engine.listen(true);
        }
        self.for_events += usize::from(is_for_events);
        self.bytes += cost(text);
        server.pubsub.subscribe(topic.clone(), client, queue);
        match topic {
            Topic::Channel(channel) => drop(self.channels.insert(channel)),
            Topic::Pattern(glob) => {
                if is_for_events {
                    self.patterns_for_events += 1;
                    let prefix = match &self.prefix {
                        Some(prefix) => &prefix[..delivery::common_bytes(prefix, glob.prefix())],
                        None => glob.prefix(),
                    };
                    let prefix = Some(Arc::from(prefix));
                    self.move_prefix(server, client, prefix);
                }
                self.patterns.insert(glob, ());
            }
        }
    }

    /// Removes a channel or pattern, if it is subscribed to.
    fn remove(&mut self, server: &ServerState, client: u64, kind: Kind, text: &[u8]) {
        let topic = match kind {
            Kind::Channel => self.channels.take(text).map(Topic::Channel),
            Kind::Pattern => self.patterns.remove_entry(text).map(|(glob, ())| Topic::Pattern(glob)),
        };
        let Some(topic) = topic else { return };
        self.bytes -= cost(text);
        server.pubsub.unsubscribe(&topic, client);
        if topic.concerns_events() {
            self.for_events -= 1;
            if let Topic::Pattern(_) = topic {
                self.patterns_for_events -= 1;
                if self.patterns_for_events == 0 {
                    self.move_prefix(server, client, None);
                }
            }
            if self.for_events == 0 {
                server.pubsub.listen(client, None);
                server.engine.listen(false);
            }
        }
    }

    fn move_prefix(&mut self, server: &ServerState, client: u64, prefix: Option<Arc<[u8]>>) {
        if let Some(queue) = &self.queue
            && prefix != self.prefix
        {
            server.pubsub.move_prefix(client, queue, self.prefix.as_ref(), prefix.as_ref());
            self.prefix = prefix;
        }
    }

    /// Removes some subscriptions. Returns whether any are left.
    pub(in crate::command) fn clear_some(&mut self, server: &ServerState, client: u64) -> bool {
        for _ in 0..TURN_WORK / TOPIC_WORK {
            if let Some(channel) = self.channels.first().cloned() {
                self.remove(server, client, Kind::Channel, &channel);
            } else if let Some((glob, ())) = self.patterns.first_key_value() {
                let pattern = Arc::clone(glob.text());
                self.remove(server, client, Kind::Pattern, &pattern);
            } else {
                self.queue = None;
                self.matching = None;
                return false;
            }
        }
        true
    }

    /// Removes all subscriptions.
    pub(in crate::command) fn clear(&mut self, server: &ServerState, client: u64) {
        while self.clear_some(server, client) {}
    }
}

/// The size of a subscription, as counted against the limit.
fn cost(text: &[u8]) -> usize {
    text.len() + SUBSCRIPTION_BYTES
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Channel,
    Pattern,
}

pub(in crate::command) const COMMANDS: &[Command] =
    &[SUBSCRIBE, PSUBSCRIBE, UNSUBSCRIBE, PUNSUBSCRIBE, PUBLISH];

const SUBSCRIBE: Command =
    Command::new("subscribe", -2, |context, args| subscribe(context, args, Kind::Channel))
        .takes_many()
        .group(Group::PubSub)
        .flags(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::PUBSUB | Flags::NOSCRIPT)
        .syntax("channel [channel ...]")
        .summary("Subscribes to channels. The events of a lock are published on __lock__:<key>.")
        .example("SUBSCRIBE __lock__:jobs:import");

const PSUBSCRIBE: Command =
    Command::new("psubscribe", -2, |context, args| subscribe(context, args, Kind::Pattern))
        .takes_many()
        .group(Group::PubSub)
        .flags(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::PUBSUB | Flags::NOSCRIPT)
        .syntax("pattern [pattern ...]")
        .summary(
            "Subscribes to channels that match patterns. __lock__:* matches the events of all \
             locks.",
        )
        .example("PSUBSCRIBE __lock__:jobs:*");

const UNSUBSCRIBE: Command =
    Command::new("unsubscribe", -1, |context, args| unsubscribe(context, args, Kind::Channel))
        .takes_many()
        .group(Group::PubSub)
        .flags(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::PUBSUB | Flags::NOSCRIPT)
        .syntax("[channel [channel ...]]")
        .summary("Unsubscribes from channels, or from all channels.")
        .example("UNSUBSCRIBE __lock__:jobs:import");

const PUNSUBSCRIBE: Command =
    Command::new("punsubscribe", -1, |context, args| unsubscribe(context, args, Kind::Pattern))
        .takes_many()
        .group(Group::PubSub)
        .flags(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::PUBSUB | Flags::NOSCRIPT)
        .syntax("[pattern [pattern ...]]")
        .summary("Unsubscribes from patterns, or from all patterns.")
        .example("PUNSUBSCRIBE __lock__:jobs:*");

const PUBLISH: Command = Command::new("publish", 3, publish)
    .group(Group::PubSub)
    .flags(Flags::FAST | Flags::PUBSUB | Flags::MAY_REPLICATE)
    .syntax("channel message")
    .summary(
        "Posts a message to a channel. Returns the number of subscribers that received it. \
         Event channels are reserved.",
    )
    .example("PUBLISH news hello");

fn publish(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let channel = args.at(1);
    if delivery::is_for_events(channel) {
        return Err(CommandError::fixed(
            "ERR channels __lock__: and __lock@n__: are reserved for lock events",
        ));
    }
    let publication = Publication::message(channel, args.at(2));
    match context.caller {
        Caller::Connection => context.in_turns(Publish(publication)),
        Caller::Queue { place } => {
            // Replaced by the number of subscribers when it is sent.
            context.client.deferred.push(Some(place), publication);
            Ok(Reply::Integer(0))
        }
        Caller::Script { .. } => {
            let bytes_max = context.server.client_limits.multi_bytes_max;
            if context.client.deferred.bytes + publication.size() > bytes_max {
                return Err(CommandError::new(format!(
                    "ERR messages published by a script exceed {bytes_max} bytes (--multi-bytes-max)"
                )));
            }
            let receivers = publication.count_receivers(&context.server.pubsub);
            context.client.deferred.push(None, publication);
            Ok(Reply::count(receivers))
        }
    }
}

/// Units of work on one channel or pattern.
const TOPIC_WORK: usize = 10;

struct Publish(Publication);

impl Steps for Publish {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<steps::Progress, CommandError> {
        Ok(match context.publish(&mut self.0) {
            Some(sent) => steps::Progress::Done(Reply::count(sent)),
            None => steps::Progress::More,
        })
    }
}

/// The publications of a transaction or a script, sent after its exclusive transaction.
#[derive(Default)]
pub(in crate::command) struct Deferred {
    /// Each with the position of its PUBLISH among the replies of EXEC.
    publications: VecDeque<(Option<usize>, Publication)>,
    bytes: usize,
}

impl Deferred {
    fn push(&mut self, place: Option<usize>, publication: Publication) {
        self.bytes += publication.size();
        self.publications.push_back((place, publication));
    }
}

/// The end of an EXEC or a script that published something.
struct PublishAll {
    reply: Reply,
    publications: VecDeque<(Option<usize>, Publication)>,
}

impl Steps for PublishAll {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<steps::Progress, CommandError> {
        while let Some((place, publication)) = self.publications.front_mut() {
            let Some(sent) = context.publish(publication) else { return Ok(steps::Progress::More) };
            if let (Some(place), Reply::Array(replies)) = (*place, &mut self.reply) {
                replies[place] = Reply::count(sent);
            }
            self.publications.pop_front();
        }
        Ok(steps::Progress::Done(std::mem::replace(&mut self.reply, Reply::Null)))
    }
}

impl Context<'_> {
    /// Sends the deferred publications, then returns `reply`. Inside an exclusive transaction, they
    /// stay deferred.
    pub(in crate::command) fn publish_deferred(&mut self, reply: Reply) -> Result<Reply, CommandError> {
        if let AnyTxn::Exclusive(_) = self.txn {
            return Ok(reply);
        }
        let Deferred { publications, .. } = std::mem::take(&mut self.client.deferred);
        if publications.is_empty() {
            return Ok(reply);
        }
        self.in_turns(PublishAll { reply, publications })
    }

    /// Continues a publication until the turn is used up. Returns the number of subscribers once
    /// all have received it.
    fn publish(&mut self, publication: &mut Publication) -> Option<usize> {
        // Every call makes progress.
        let units = self.turn_left().max(TOPIC_WORK);
        let mut work = Work::of_units(units);
        let sent = publication.advance_by(&self.server.pubsub, &mut work);
        self.spend(units - work.units());
        sent
    }
}

fn confirmation(verb: &'static str, topic: Option<&[u8]>, count: usize) -> Reply {
    let topic = topic.map_or(Reply::Null, Reply::bulk);
    Reply::Push(vec![Reply::bulk(verb), topic, Reply::count(count)])
}

fn subscribe(context: &mut Context<'_>, args: Args<'_>, kind: Kind) -> Result<Reply, CommandError> {
    let verb = if kind == Kind::Channel { "subscribe" } else { "psubscribe" };
    let limits = &context.server.client_limits;
    let info = Arc::clone(context.client.info());
    let subscriptions = &mut context.client.subscriptions;
    if kind == Kind::Pattern {
        args.from(1).try_for_each(Glob::check)?;
    }
    let sum = |topics: &mut dyn Iterator<Item = &[u8]>| {
        topics.fold((0, 0), |(topics, bytes), topic| (topics + 1, bytes + cost(topic)))
    };
    let (topics, bytes) = sum(&mut args.from(1));
    if subscriptions.check(limits, topics, bytes).is_err() {
        // Some of the topics may be subscribed to already.
        let (topics, bytes) = sum(&mut args.from(1).filter(|topic| !subscriptions.has(kind, topic)));
        subscriptions.check(limits, topics, bytes)?;
    }
    subscriptions.queue.get_or_insert_with(|| {
        Arc::new(SubscriberQueue::new(Arc::clone(&info), limits.subscriber_bytes_max))
    });
    context.in_turns(Subscribe { args: RemainingArgs::new(args, 1), kind, verb, confirmations: Vec::new() })
}

struct Subscribe {
    args: RemainingArgs,
    kind: Kind,
    verb: &'static str,
    confirmations: Vec<Reply>,
}

impl Steps for Subscribe {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<steps::Progress, CommandError> {
        let Subscribe { args, kind, verb, confirmations } = self;
        let are_done = args.each(context, |context, topic| {
            context.spend(TOPIC_WORK);
            let (server, id) = (context.server, context.client.info().id);
            let subscriptions = &mut context.client.subscriptions;
            if !subscriptions.has(*kind, topic) {
                subscriptions.add(server, id, *kind, topic);
            }
            confirmations.push(confirmation(verb, Some(topic), subscriptions.count()));
            Ok(())
        })?;
        Ok(match are_done {
            true => steps::Progress::Done(Reply::Sequence(std::mem::take(confirmations))),
            false => steps::Progress::More,
        })
    }
}

fn unsubscribe(context: &mut Context<'_>, args: Args<'_>, kind: Kind) -> Result<Reply, CommandError> {
    let verb = if kind == Kind::Channel { "unsubscribe" } else { "punsubscribe" };
    let subscriptions = &mut context.client.subscriptions;
    let topics: Vec<Arc<[u8]>> = match (args.len(), kind) {
        (1, Kind::Channel) => subscriptions.channels.iter().cloned().collect(),
        (1, Kind::Pattern) => subscriptions.patterns.keys().map(|glob| Arc::clone(glob.text())).collect(),
        _ => args.from(1).map(Arc::from).collect(),
    };
    if topics.is_empty() {
        return Ok(Reply::Sequence(vec![confirmation(verb, None, subscriptions.count())]));
    }
    context.in_turns(Unsubscribe { topics: topics.into_iter(), kind, verb, confirmations: Vec::new() })
}

struct Unsubscribe {
    topics: std::vec::IntoIter<Arc<[u8]>>,
    kind: Kind,
    verb: &'static str,
    confirmations: Vec<Reply>,
}

impl Steps for Unsubscribe {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<steps::Progress, CommandError> {
        for topic in self.topics.by_ref() {
            context.spend(TOPIC_WORK);
            let (server, id) = (context.server, context.client.info().id);
            let subscriptions = &mut context.client.subscriptions;
            subscriptions.remove(server, id, self.kind, &topic);
            self.confirmations.push(confirmation(self.verb, Some(&topic), subscriptions.count()));
            if !context.has_turn_left() {
                break;
            }
        }
        Ok(match self.topics.len() {
            0 => steps::Progress::Done(Reply::Sequence(std::mem::take(&mut self.confirmations))),
            _ => steps::Progress::More,
        })
    }
}
