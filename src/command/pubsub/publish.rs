//! `PUBLISH` and `SPUBLISH`.
//!
//! Guarantees: what a transaction or a script publishes is sent after it, and bounded in bytes. A
//! publication to very many subscribers takes turns. Not here: who has subscribed, delivery.

use std::collections::VecDeque;

use super::delivery;
use super::{Publication, TOPIC_WORK};
use crate::command::steps::{self, Steps};
use crate::command::{Args, Caller, Command, CommandError, Context, Flags, Group};
use crate::engine::AnyTxn;
use crate::glob::Work;
use crate::reply::Reply;

pub(super) const PUBLISH: Command = Command::new("publish", 3, publish)
    .group(Group::PubSub)
    .flags(Flags::FAST | Flags::PUBSUB | Flags::MAY_REPLICATE)
    .syntax("channel message")
    .summary(
        "Posts a message to a channel. Returns the number of subscribers that received it. \
         Event channels are reserved.",
    )
    .example("PUBLISH news hello");

pub(super) const SPUBLISH: Command = Command::new("spublish", 3, spublish)
    .group(Group::PubSub)
    .flags(Flags::FAST | Flags::PUBSUB | Flags::MAY_REPLICATE)
    .syntax("shardchannel message")
    .summary("Posts a message to a shard channel. Returns the number of subscribers that received it.")
    .example("SPUBLISH jobs hello");

fn spublish(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    post(context, Publication::shard_message(args.at(1), args.at(2)))
}

fn publish(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let channel = args.at(1);
    if delivery::is_reserved(channel) {
        return Err(CommandError::fixed(
            "ERR channels __lock__: and __lock@n__: are reserved for lock events",
        ));
    }
    post(context, Publication::message(channel, args.at(2)))
}

/// Sends a publication, or defers it to the end of the transaction or script.
fn post(context: &mut Context<'_>, publication: Publication) -> Result<Reply, CommandError> {
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
