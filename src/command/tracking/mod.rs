//! `CLIENT TRACKING`, `CACHING`, `TRACKINGINFO` and `GETREDIR`: clients that cache what they read, and
//! hear when it is out of date.
//!
//! Guarantees: the keys of a command are remembered before it reads them. Not here: which changes make
//! a key out of date, and the table of who caches what.

mod table;

use std::sync::Arc;

use super::options::{self, integer};
use super::steps::KEY_WORK;
use super::{Args, Client, Command, CommandError, Context, Flags, Group, KeySpec};
use crate::engine::Interest;
use crate::reply::Reply;
use table::Wish;
pub use table::{Invalidation, Tracking};

pub(super) const TRACKING: Command = connection("client|tracking", -3, tracking)
    .syntax(
        "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] \
         [NOLOOP]",
    )
    .summary("Tells the connection, or another one, when keys that it has read change or expire.")
    .example("CLIENT TRACKING ON NOLOOP");

pub(super) const CACHING: Command = connection("client|caching", 3, caching)
    .syntax("YES | NO")
    .summary("Tracks the keys of the next command, or not, in the mode OPTIN or OPTOUT.")
    .example("CLIENT CACHING YES");

pub(super) const TRACKINGINFO: Command = connection("client|trackinginfo", 2, tracking_info)
    .summary("Returns how the connection tracks keys.")
    .example("CLIENT TRACKINGINFO");

pub(super) const GETREDIR: Command = connection("client|getredir", 2, redirection)
    .summary("Returns the id of the connection that hears of changes instead; 0: none, -1: no tracking.")
    .example("CLIENT GETREDIR");

const fn connection(name: &'static str, arity: i8, handler: super::Handler) -> Command {
    Command::new(name, arity, handler).group(Group::Connection).flags(Flags::NOSCRIPT)
}

/// Prefixes that one client tracks.
const PREFIXES_MAX: usize = 256;
/// Keys of one command that are remembered one by one. A client that reads more at once hears that all
/// of them are out of date.
const KEYS_MAX: usize = 1000;

/// Which commands' keys are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Those of all commands that read.
    All,
    /// Those of commands after CLIENT CACHING YES.
    OptIn,
    /// Those of all commands that read, except after CLIENT CACHING NO.
    OptOut,
    /// None: the client hears of all keys with some prefixes.
    Broadcast,
}

/// How a connection tracks keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientTracking {
    mode: Mode,
    is_noloop: bool,
    /// The connection that hears of changes instead.
    target: Option<u64>,
    /// CLIENT CACHING was sent for the next command.
    is_switched: bool,
}

impl ClientTracking {
    fn tracks_next(&self) -> bool {
        match self.mode {
            Mode::All => true,
            Mode::OptIn => self.is_switched,
            Mode::OptOut => !self.is_switched,
            Mode::Broadcast => false,
        }
    }

    /// The id of the target as CLIENT LIST shows it.
    pub(super) fn redirection(&self) -> i64 {
        self.target.map_or(0, |id| id.cast_signed())
    }

    pub(super) fn is_broadcast(&self) -> bool {
        self.mode == Mode::Broadcast
    }
}

fn tracking(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let (mut target, mut is_noloop, mut prefixes) = (None, false, Vec::new());
    let [mut broadcast, mut opt_in, mut opt_out] = [false; 3];
    let mut n = 3;
    while n < args.len() {
        match args.at(n) {
            arg if options::is(arg, "redirect") && n + 1 < args.len() => {
                n += 1;
                if target.is_some() {
                    return Err(CommandError::fixed(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                let id = u64::try_from(integer(args.at(n))?).unwrap_or(0);
                let info = context.server.clients.find(id);
                target = Some(
                    info.ok_or(CommandError::fixed("ERR The client ID you want redirect to does not exist"))?,
                );
            }
            arg if options::is(arg, "bcast") => broadcast = true,
            arg if options::is(arg, "optin") => opt_in = true,
            arg if options::is(arg, "optout") => opt_out = true,
            arg if options::is(arg, "noloop") => is_noloop = true,
            arg if options::is(arg, "prefix") && n + 1 < args.len() => {
                n += 1;
                if prefixes.len() == PREFIXES_MAX {
                    return Err(too_many_prefixes());
                }
                prefixes.push(Arc::from(args.at(n)));
            }
            _ => return Err(CommandError::SYNTAX),
        }
        n += 1;
    }
    match args.at(2) {
        arg if options::is(arg, "on") => {}
        arg if options::is(arg, "off") => {
            context.client.stop_tracking();
            return Ok(Reply::OK);
        }
        _ => return Err(CommandError::SYNTAX),
    }
    let mode = mode(context, [broadcast, opt_in, opt_out], !prefixes.is_empty())?;
    if broadcast {
        check_overlaps(context, &prefixes)?;
        let has_prefixes = !context.server.tracking.prefixes(context.client.info().id).is_empty();
        if prefixes.is_empty() && !has_prefixes {
            prefixes.push(Arc::default());
        }
    }
    let target_id = target.as_ref().map(|info| info.id);
    let wish = Wish { target, is_noloop, prefixes };
    let is_new = context.server.tracking.enable(context.client.info(), wish);
    if is_new.ok_or_else(too_many_prefixes)? {
        context.server.engine.listen(Interest::Invalidations, true);
    }
    context.client.tracking = Some(ClientTracking { mode, is_noloop, target: target_id, is_switched: false });
    Ok(Reply::OK)
}

fn too_many_prefixes() -> CommandError {
    CommandError::new(format!("ERR the prefixes are too many or too long (at most {PREFIXES_MAX})"))
}

/// The mode that the options ask for, if the current one permits it.
fn mode(
    context: &Context<'_>,
    [broadcast, opt_in, opt_out]: [bool; 3],
    has_prefixes: bool,
) -> Result<Mode, CommandError> {
    let current = context.client.tracking.as_ref().map(|tracking| tracking.mode);
    let refused = |text| Err(CommandError::fixed(text));
    if !broadcast && has_prefixes {
        return refused("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if current.is_some_and(|mode| (mode == Mode::Broadcast) != broadcast) {
        return refused(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        );
    }
    if broadcast && (opt_in || opt_out) {
        return refused("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if opt_in && opt_out {
        return refused("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if opt_in && current == Some(Mode::OptOut) || opt_out && current == Some(Mode::OptIn) {
        return refused(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        );
    }
    Ok(match () {
        () if broadcast => Mode::Broadcast,
        () if opt_in => Mode::OptIn,
        () if opt_out => Mode::OptOut,
        () => Mode::All,
    })
}

/// Fails if one of the prefixes begins with another, or with one that is tracked already.
fn check_overlaps(context: &Context<'_>, prefixes: &[Arc<[u8]>]) -> Result<(), CommandError> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refused = |prefix: &[u8], which: &str, other: &[u8]| {
        CommandError::new(format!(
            "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client must not overlap.",
            prefix.escape_ascii(),
            other.escape_ascii()
        ))
    };
    let tracked = context.server.tracking.prefixes(context.client.info().id);
    if tracked.len() + prefixes.len() > PREFIXES_MAX {
        return Err(too_many_prefixes());
    }
    for (n, prefix) in prefixes.iter().enumerate() {
        if let Some(other) = tracked.iter().find(|other| overlap(prefix, other)) {
            return Err(refused(prefix, "an existing", other));
        }
        if let Some(other) = prefixes[n + 1..].iter().find(|other| overlap(prefix, other)) {
            return Err(refused(prefix, "another provided", other));
        }
    }
    Ok(())
}

fn caching(context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
    let Some(tracking) = context
        .client
        .tracking
        .as_mut()
        .filter(|tracking| matches!(tracking.mode, Mode::OptIn | Mode::OptOut))
    else {
        return Err(CommandError::fixed(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
             mode enabled",
        ));
    };
    let needed = match args.at(2) {
        arg if options::is(arg, "yes") => Mode::OptIn,
        arg if options::is(arg, "no") => Mode::OptOut,
        _ => return Err(CommandError::SYNTAX),
    };
    if tracking.mode != needed {
        return Err(CommandError::fixed(match needed {
            Mode::OptIn => "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            _ => "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        }));
    }
    tracking.is_switched = true;
    Ok(Reply::OK)
}

fn redirection(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    Ok(Reply::Integer(context.client.tracking.as_ref().map_or(-1, ClientTracking::redirection)))
}

fn tracking_info(context: &mut Context<'_>, _: Args<'_>) -> Result<Reply, CommandError> {
    let id = context.client.info().id;
    let flags = match &context.client.tracking {
        None => vec!["off"],
        Some(tracking) => {
            let mut flags = vec!["on"];
            flags.extend(match (tracking.mode, tracking.is_switched) {
                (Mode::All, _) => &[][..],
                (Mode::Broadcast, _) => &["bcast"],
                (Mode::OptIn, false) => &["optin"],
                (Mode::OptIn, true) => &["optin", "caching-yes"],
                (Mode::OptOut, false) => &["optout"],
                (Mode::OptOut, true) => &["optout", "caching-no"],
            });
            flags.extend(tracking.is_noloop.then_some("noloop"));
            flags.extend(context.server.tracking.is_broken(id).then_some("broken_redirect"));
            flags
        }
    };
    let redirection = context.client.tracking.as_ref().map_or(-1, ClientTracking::redirection);
    let prefixes = context.server.tracking.prefixes(id);
    Ok(Reply::Map(vec![
        (Reply::bulk("flags"), Reply::Set(flags.into_iter().map(Reply::bulk).collect())),
        (Reply::bulk("redirect"), Reply::Integer(redirection)),
        (Reply::bulk("prefixes"), Reply::Array(prefixes.iter().map(Reply::bulk).collect())),
    ]))
}

impl Client {
    /// Stops to track keys.
    pub(super) fn stop_tracking(&mut self) {
        if self.tracking.take().is_some() {
            let (server, id) = (self.server(), self.info().id);
            while server.tracking.disable_some(id) {}
            server.engine.listen(Interest::Invalidations, false);
        }
    }

    /// Ends the effect of CLIENT CACHING after a command, which may be a transaction.
    pub(super) fn end_caching(&mut self, command: &Command) {
        if let Some(tracking) = &mut self.tracking
            && self.transaction.is_none()
            && !command.name.starts_with("client|")
        {
            tracking.is_switched = false;
        }
    }
}

impl Context<'_> {
    /// Remembers the keys that a command is about to read, if the client tracks keys.
    pub(super) fn track_keys(&mut self, command: &Command, args: Args<'_>) {
        let is_tracked = self.client.tracking.as_ref().is_some_and(ClientTracking::tracks_next);
        if !is_tracked || !command.is(Flags::READONLY) || matches!(command.keys, KeySpec::None) {
            return;
        }
        let (tracking, id) = (&self.server.tracking, self.client.info().id);
        if args.len() > KEYS_MAX {
            tracking.invalidate_all_of(id);
            return;
        }
        let (mut keys, last) = (0, self.server.engine.last_invalidation());
        // The handler refuses a request whose number of keys is wrong.
        let _ = command.visit_keys(args, &mut |key, _| {
            tracking.remember(id, key, last);
            keys += 1;
        });
        self.spend(keys * KEY_WORK);
    }
}
