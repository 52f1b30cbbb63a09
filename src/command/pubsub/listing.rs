//! `PUBSUB`: which channels have subscribers, and how many.

use std::sync::Arc;

use super::delivery::key_of_message;
use crate::auth::User;
use crate::command::error::printable;
use crate::command::scan::may_list;
use crate::command::steps::{KEY_WORK, Progress, RemainingArgs, Steps};
use crate::command::{Args, Command, CommandError, Context, Flags, Group};
use crate::glob::Glob;
use crate::reply::Reply;

pub(super) const PUBSUB: Command = Command::container(
    "pubsub",
    -2,
    &[
        sub("pubsub|channels", -2, |context, args| channels(context, args, false))
            .syntax("[pattern]")
            .summary("Returns the channels that have subscribers.")
            .example("PUBSUB CHANNELS __lock__:*"),
        sub("pubsub|numsub", -2, |context, args| subscribers(context, args, false))
            .takes_many()
            .syntax("[channel [channel ...]]")
            .summary("Returns the numbers of subscribers of channels, those of patterns left out.")
            .example("PUBSUB NUMSUB jobs"),
        sub("pubsub|numpat", 2, patterns)
            .summary("Returns the number of patterns that have subscribers.")
            .example("PUBSUB NUMPAT"),
        sub("pubsub|shardchannels", -2, |context, args| channels(context, args, true))
            .syntax("[pattern]")
            .summary("Returns the shard channels that have subscribers.")
            .example("PUBSUB SHARDCHANNELS"),
        sub("pubsub|shardnumsub", -2, |context, args| subscribers(context, args, true))
            .takes_many()
            .syntax("[shardchannel [shardchannel ...]]")
            .summary("Returns the numbers of subscribers of shard channels.")
            .example("PUBSUB SHARDNUMSUB jobs"),
    ],
)
.group(Group::PubSub)
.summary("A container for Pub/Sub commands.");

const fn sub(name: &'static str, arity: i8, handler: crate::command::Handler) -> Command {
    Command::new(name, arity, handler).group(Group::PubSub).flags(Flags::PUBSUB)
}

fn channels(context: &mut Context<'_>, args: Args<'_>, is_shard: bool) -> Result<Reply, CommandError> {
    let pattern = match args.len() {
        2 => None,
        3 => Some(Glob::new(args.at(2))?),
        _ => {
            let name = printable(args.at(1), 128);
            return Err(CommandError::new(format!(
                "ERR unknown subcommand or wrong number of arguments for '{name}'. Try PUBSUB HELP."
            )));
        }
    };
    context.in_turns(Listing { is_shard, pattern, after: None, found: Vec::new() })
}

/// A PUBSUB CHANNELS in progress.
struct Listing {
    is_shard: bool,
    pattern: Option<Glob>,
    after: Option<Arc<[u8]>>,
    found: Vec<Reply>,
}

impl Steps for Listing {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        loop {
            let next = context.server.pubsub.channels_after(self.is_shard, self.after.as_deref());
            let Some(last) = next.last() else {
                return Ok(Progress::Done(Reply::Array(std::mem::take(&mut self.found))));
            };
            self.after = Some(Arc::clone(last));
            for channel in &next {
                context.spend(1 + self.pattern.as_ref().map_or(0, |pattern| pattern.work(channel.len())));
                let is_asked = self.pattern.as_ref().is_none_or(|pattern| pattern.matches(channel));
                if is_asked && may_see(&context.client.user, channel) {
                    self.found.push(Reply::bulk(channel));
                }
            }
            if !context.has_turn_left() {
                return Ok(Progress::More);
            }
        }
    }
}

/// Whether a list of channels shows this one: its name may have the name of a key in it.
fn may_see(user: &User, channel: &[u8]) -> bool {
    key_of_message(channel, b"").is_none_or(|key| key.is_empty() || may_list(user, key))
}

fn subscribers(context: &mut Context<'_>, args: Args<'_>, is_shard: bool) -> Result<Reply, CommandError> {
    context.in_turns(Counting { is_shard, channels: RemainingArgs::new(args, 2), counts: Vec::new() })
}

/// A PUBSUB NUMSUB in progress.
struct Counting {
    is_shard: bool,
    channels: RemainingArgs,
    counts: Vec<Reply>,
}

impl Steps for Counting {
    fn advance(&mut self, context: &mut Context<'_>) -> Result<Progress, CommandError> {
        let is_done = self.channels.each(context, |context, channel| {
            context.spend(KEY_WORK);
            let count = context.server.pubsub.channel_subscribers(self.is_shard, channel);
            self.counts.extend([Reply::bulk(channel), Reply::count(count)]);
            Ok(())
        })?;
        Ok(match is_done {
            true => Progress::Done(Reply::Array(std::mem::take(&mut self.counts))),
            false => Progress::More,
        })
    }
}

fn patterns(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::count(context.server.pubsub.counts().1))
}
