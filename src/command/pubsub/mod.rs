//! `SUBSCRIBE`, `PSUBSCRIBE`, `SSUBSCRIBE` and their opposites, and the subscriptions of one
//! connection.
//!
//! Guarantees: the subscriptions of a connection are bounded in number and in bytes. A command that
//! would exceed either limit changes nothing. Not here: publishing, the delivery of messages,
//! sockets.

mod delivery;
mod listing;
mod publish;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::auth::User;
use crate::command::monitor::may_monitor;
use crate::command::steps::{self, RemainingArgs, Steps, TURN_WORK};
use crate::command::{
    Args, ClientInfo, ClientLimits, Command, CommandError, Context, Flags, Group, ServerState,
};
use crate::engine::Interest;
use crate::glob::{Glob, Progress, Work};
use crate::reply::Reply;
pub use delivery::{PubSub, Publication};
use delivery::{SUBSCRIPTION_BYTES, Topic};
pub(in crate::command) use delivery::{key_of_message, next_prefix};
pub(in crate::command) use publish::Deferred;
pub(in crate::command) use queue::{Entry, MessageQueue, Notice, Via};

/// The subscriptions of one connection.
#[derive(Default)]
pub(in crate::command) struct Subscriptions {
    /// The client has subscribed since the connection was opened or reset.
    have_begun: bool,
    channels: BTreeSet<Arc<[u8]>>,
    shard_channels: BTreeSet<Arc<[u8]>>,
    patterns: BTreeMap<Glob, ()>,
    /// Their size, as counted against the limit.
    bytes: usize,
    /// Number of subscriptions that may match events, and of patterns among them.
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

/// The channel of invalidations for a client that uses RESP2.
pub(in crate::command) const INVALIDATIONS: &str = "__redis__:invalidate";

/// Channels and patterns that a connection takes along when another service goes on with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subscribed {
    channels: Vec<Arc<[u8]>>,
    patterns: Vec<Arc<[u8]>>,
}

/// Maximum number of both; Sentinel has fewer channels.
const RESTORED_MAX: usize = 32;

/// The channels of Sentinel, as its documentation lists them, and the patterns of all of them.
const EVENTS_OF_SENTINEL: &[&[u8]] = &[
    b"+*",
    b"-*",
    b"+convert-to-slave",
    b"+elected-leader",
    b"+failover-detected",
    b"+failover-end",
    b"+failover-end-for-timeout",
    b"+failover-state-reconf-slaves",
    b"+failover-state-select-slave",
    b"+new-epoch",
    b"+odown",
    b"-odown",
    b"+reboot",
    b"-reboot",
    b"+reset-master",
    b"+sdown",
    b"-sdown",
    b"+sentinel",
    b"-dup-sentinel",
    b"+slave",
    b"+slave-reconf-done",
    b"+slave-reconf-inprog",
    b"+slave-reconf-sent",
    b"+switch-master",
    b"+tilt",
    b"-tilt",
    b"+try-failover",
];

/// Whether a channel or pattern is one that only Sentinel publishes on. Connections with others must
/// not go on where nothing is published.
fn is_event_of_sentinel(topic: &[u8]) -> bool {
    EVENTS_OF_SENTINEL.contains(&topic)
}

/// Whether a channel, or what a pattern matches, is one of Sentinel's: `+switch-master`, `-odown`.
pub(in crate::command) fn is_of_sentinel(topic: &[u8]) -> bool {
    matches!(topic.first(), Some(b'+' | b'-'))
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
        Turn(Work::of_units(TURN_WORK / 4))
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

/// Whether a user may see a message.
fn may_hear(user: &User, via: &Via, notice: &Notice) -> bool {
    if user.allows_everything() {
        return true;
    }
    match via {
        Via::Channel | Via::Pattern(_) | Via::Prefix(_) => {
            user.may_hear(&notice.channel, key_of_message(&notice.channel, &notice.payload))
        }
        Via::ShardChannel => user.may_hear(&notice.channel, None),
        // Without a channel, all keys are out of date.
        Via::Tracking => notice.channel.is_empty() || user.may_read(&notice.payload),
        Via::Monitor => may_monitor(user),
        Via::BrokenRedirection => true,
    }
}

/// A message as the client sees it; `None` if its connection shows no such messages.
fn message(via: &Via, notice: &Notice, protocol: u8, is_subscribed: bool) -> Option<Reply> {
    let (channel, payload) = (Reply::bulk(&notice.channel), Reply::bulk(&notice.payload));
    Some(Reply::Push(match via {
        Via::Channel | Via::Prefix(_) => vec![Reply::bulk("message"), channel, payload],
        Via::ShardChannel => vec![Reply::bulk("smessage"), channel, payload],
        Via::Pattern(glob) => vec![Reply::bulk("pmessage"), Reply::bulk(glob.text()), channel, payload],
        Via::Monitor => return Some(Reply::Status(String::from_utf8_lossy(&notice.payload).into_owned())),
        Via::Tracking => {
            let keys = if notice.channel.is_empty() { Reply::Null } else { Reply::Array(vec![payload]) };
            match protocol {
                2 if is_subscribed => vec![Reply::bulk("message"), Reply::bulk(INVALIDATIONS), keys],
                2 => return None,
                _ => vec![Reply::bulk("invalidate"), keys],
            }
        }
        Via::BrokenRedirection if protocol == 2 => return None,
        Via::BrokenRedirection => {
            let id = String::from_utf8_lossy(&notice.payload).parse().unwrap_or_default();
            vec![Reply::bulk("tracking-redir-broken"), Reply::Integer(id)]
        }
    }))
}

impl Subscriptions {
    pub(in crate::command) fn count(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shard_channels.len()
    }

    /// The numbers of channels, patterns and shard channels.
    pub(in crate::command) fn counts(&self) -> (usize, usize, usize) {
        (self.channels.len(), self.patterns.len(), self.shard_channels.len())
    }

    /// The number that the confirmation of a subscription shows.
    fn count_with(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
            Kind::ShardChannel => self.shard_channels.len(),
        }
    }

    /// Whether the client has subscribed since the connection was opened or reset.
    pub(in crate::command) fn have_begun(&self) -> bool {
        self.have_begun
    }

    /// Whether a message is being compared with the patterns.
    pub(in crate::command) fn is_matching(&self) -> bool {
        self.matching.is_some()
    }

    /// Removes the oldest message that `user` may hear.
    pub(in crate::command) fn next_message(
        &mut self,
        info: &ClientInfo,
        protocol: u8,
        turn: &mut Turn,
        user: &User,
    ) -> Incoming {
        let work = &mut turn.0;
        let is_subscribed = self.count() > 0;
        loop {
            let next = if let Some(matching) = &mut self.matching {
                match matching.next(&self.patterns, work) {
                    Ok(Some(glob)) => message(&Via::Pattern(glob), &matching.notice, protocol, is_subscribed),
                    Ok(None) => {
                        self.matching = None;
                        continue;
                    }
                    Err(()) => return Incoming::Unfinished,
                }
            } else {
                if work.is_spent() {
                    return Incoming::Unfinished;
                }
                let Some(Entry { via, notice }) = info.messages.take() else { return Incoming::Nothing };
                work.spend(queue::work_of(&notice));
                if !may_hear(user, &via, &notice) {
                    continue;
                }
                if let Via::Prefix(_) = via {
                    self.matching = Some(Matching { notice, pattern: None, progress: None });
                    continue;
                }
                message(&via, &notice, protocol, is_subscribed)
            };
            if let Some(message) = next {
                return Incoming::Message(message);
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
            Kind::ShardChannel => self.shard_channels.contains(topic),
            Kind::Pattern => self.patterns.contains_key(topic),
        }
    }

    /// Adds a channel or pattern that is not subscribed to yet.
    fn add(&mut self, server: &ServerState, info: &Arc<ClientInfo>, kind: Kind, text: &[u8]) {
        let client = info.id;
        let shared: Arc<[u8]> = text.into();
        let topic = match kind {
            Kind::Channel => Topic::Channel(shared),
            Kind::ShardChannel => Topic::ShardChannel(shared),
            Kind::Pattern => Topic::Pattern(Glob::of(shared)),
        };
        let is_for_events = topic.concerns_events();
        if is_for_events && self.for_events == 0 {
            server.pubsub.listen(client, Some(info));
            server.engine.listen(Interest::Leases, true);
        }
        self.for_events += usize::from(is_for_events);
        self.bytes += cost(text);
        server.pubsub.subscribe(topic.clone(), client, info);
        match topic {
            Topic::Channel(channel) => drop(self.channels.insert(channel)),
            Topic::ShardChannel(channel) => drop(self.shard_channels.insert(channel)),
            Topic::Pattern(glob) => {
                if is_for_events {
                    self.patterns_for_events += 1;
                    let prefix = match &self.prefix {
                        Some(prefix) => &prefix[..delivery::common_bytes(prefix, glob.prefix())],
                        None => glob.prefix(),
                    };
                    let prefix = Some(Arc::from(prefix));
                    self.move_prefix(server, info, prefix);
                }
                self.patterns.insert(glob, ());
            }
        }
    }

    /// Removes a channel or pattern, if it is subscribed to.
    fn remove(&mut self, server: &ServerState, info: &Arc<ClientInfo>, kind: Kind, text: &[u8]) {
        let client = info.id;
        let topic = match kind {
            Kind::Channel => self.channels.take(text).map(Topic::Channel),
            Kind::ShardChannel => self.shard_channels.take(text).map(Topic::ShardChannel),
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
                    self.move_prefix(server, info, None);
                }
            }
            if self.for_events == 0 {
                server.pubsub.listen(client, None);
                server.engine.listen(Interest::Leases, false);
            }
        }
    }

    fn move_prefix(&mut self, server: &ServerState, info: &Arc<ClientInfo>, prefix: Option<Arc<[u8]>>) {
        if prefix != self.prefix {
            server.pubsub.move_prefix(info.id, info, self.prefix.as_ref(), prefix.as_ref());
            self.prefix = prefix;
        }
    }

    /// The channels and patterns, if there are some, all of them are those of Sentinel, and they are
    /// few.
    pub(in crate::command) fn of_sentinel(&self) -> Option<Subscribed> {
        let channels = self.channels.iter().map(|channel| &**channel);
        let patterns = self.patterns.keys().map(|glob| &**glob.text());
        let is_it = (1..=RESTORED_MAX).contains(&self.count())
            && self.shard_channels.is_empty()
            && channels.clone().chain(patterns.clone()).all(is_event_of_sentinel);
        is_it.then(|| Subscribed {
            channels: channels.map(Arc::from).collect(),
            patterns: patterns.map(Arc::from).collect(),
        })
    }

    /// Subscribes to the channels and patterns of a connection that went on as this one.
    pub(in crate::command) fn restore(
        &mut self,
        server: &ServerState,
        info: &Arc<ClientInfo>,
        subscribed: &Subscribed,
    ) {
        let Subscribed { channels, patterns } = subscribed;
        channels.iter().for_each(|channel| self.add(server, info, Kind::Channel, channel));
        patterns.iter().for_each(|pattern| self.add(server, info, Kind::Pattern, pattern));
        self.have_begun |= self.count() > 0;
    }

    /// Removes some subscriptions. Returns whether any are left.
    pub(in crate::command) fn clear_some(&mut self, server: &ServerState, info: &Arc<ClientInfo>) -> bool {
        for _ in 0..TURN_WORK / TOPIC_WORK {
            if let Some(channel) = self.channels.first().cloned() {
                self.remove(server, info, Kind::Channel, &channel);
            } else if let Some(channel) = self.shard_channels.first().cloned() {
                self.remove(server, info, Kind::ShardChannel, &channel);
            } else if let Some((glob, ())) = self.patterns.first_key_value() {
                let pattern = Arc::clone(glob.text());
                self.remove(server, info, Kind::Pattern, &pattern);
            } else {
                self.have_begun = false;
                self.matching = None;
                info.messages.clear();
                return false;
            }
        }
        true
    }

    /// Removes all subscriptions.
    pub(in crate::command) fn clear(&mut self, server: &ServerState, info: &Arc<ClientInfo>) {
        while self.clear_some(server, info) {}
    }
}

/// The size of a subscription, as counted against the limit.
fn cost(text: &[u8]) -> usize {
    text.len() + SUBSCRIPTION_BYTES
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Channel,
    ShardChannel,
    Pattern,
}

impl Kind {
    fn verbs(self) -> (&'static str, &'static str) {
        match self {
            Kind::Channel => ("subscribe", "unsubscribe"),
            Kind::ShardChannel => ("ssubscribe", "sunsubscribe"),
            Kind::Pattern => ("psubscribe", "punsubscribe"),
        }
    }
}

pub(in crate::command) const COMMANDS: &[Command] = &[
    SUBSCRIBE,
    PSUBSCRIBE,
    SSUBSCRIBE,
    UNSUBSCRIBE,
    PUNSUBSCRIBE,
    SUNSUBSCRIBE,
    publish::PUBLISH,
    publish::SPUBLISH,
    listing::PUBSUB,
];

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

const SSUBSCRIBE: Command =
    Command::new("ssubscribe", -2, |context, args| subscribe(context, args, Kind::ShardChannel))
        .takes_many()
        .group(Group::PubSub)
        .flags(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::PUBSUB | Flags::NOSCRIPT)
        .syntax("shardchannel [shardchannel ...]")
        .summary("Subscribes to shard channels. There is one shard.")
        .example("SSUBSCRIBE jobs");

const SUNSUBSCRIBE: Command =
    Command::new("sunsubscribe", -1, |context, args| unsubscribe(context, args, Kind::ShardChannel))
        .takes_many()
        .group(Group::PubSub)
        .flags(Flags::SUBSCRIBED | Flags::NO_MULTI | Flags::PUBSUB | Flags::NOSCRIPT)
        .syntax("[shardchannel [shardchannel ...]]")
        .summary("Unsubscribes from shard channels, or from all shard channels.")
        .example("SUNSUBSCRIBE jobs");

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

/// Units of work on one channel or pattern.
const TOPIC_WORK: usize = 10;

fn confirmation(verb: &'static str, topic: Option<&[u8]>, count: usize) -> Reply {
    let topic = topic.map_or(Reply::Null, Reply::bulk);
    Reply::Push(vec![Reply::bulk(verb), topic, Reply::count(count)])
}

fn subscribe(context: &mut Context<'_>, args: Args<'_>, kind: Kind) -> Result<Reply, CommandError> {
    let (verb, _) = kind.verbs();
    let limits = &context.server.client_limits;
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
    subscriptions.have_begun = true;
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
            let (server, info) = (context.server, Arc::clone(context.client.info()));
            let subscriptions = &mut context.client.subscriptions;
            if !subscriptions.has(*kind, topic) {
                subscriptions.add(server, &info, *kind, topic);
            }
            confirmations.push(confirmation(verb, Some(topic), subscriptions.count_with(*kind)));
            Ok(())
        })?;
        Ok(match are_done {
            true => steps::Progress::Done(Reply::Sequence(std::mem::take(confirmations))),
            false => steps::Progress::More,
        })
    }
}

fn unsubscribe(context: &mut Context<'_>, args: Args<'_>, kind: Kind) -> Result<Reply, CommandError> {
    let (_, verb) = kind.verbs();
    let subscriptions = &mut context.client.subscriptions;
    let topics: Vec<Arc<[u8]>> = match (args.len(), kind) {
        (1, Kind::Channel) => subscriptions.channels.iter().cloned().collect(),
        (1, Kind::ShardChannel) => subscriptions.shard_channels.iter().cloned().collect(),
        (1, Kind::Pattern) => subscriptions.patterns.keys().map(|glob| Arc::clone(glob.text())).collect(),
        _ => args.from(1).map(Arc::from).collect(),
    };
    if topics.is_empty() {
        return Ok(Reply::Sequence(vec![confirmation(verb, None, subscriptions.count_with(kind))]));
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
            let (server, info) = (context.server, Arc::clone(context.client.info()));
            let subscriptions = &mut context.client.subscriptions;
            subscriptions.remove(server, &info, self.kind, &topic);
            let count = subscriptions.count_with(self.kind);
            self.confirmations.push(confirmation(self.verb, Some(&topic), count));
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
