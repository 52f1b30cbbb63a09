//! Whether the user of a connection may run a request.
//!
//! Guarantees: every request is checked here before its command runs, whether a connection sends it,
//! EXEC takes it from its queue, or a script calls it. Users who may do everything cost one look.
//! Not here: users and their rules, requests over HTTP (`http/users.rs`).

use std::sync::{Arc, LazyLock};

use super::dispatch::{Found, Mismatch, find};
use super::pubsub::key_of_message;
use super::registry::ClientInfo;
use super::{
    Args, Caller, Categories, Command, CommandError, Context, Flags, Group, KeyAccess, ServerState,
    commands_and_subcommands, options,
};
use crate::auth::{Catalog, Changed, Denial, DenialContext, DenialReason, Denied, KeyRights, User, Uses};

/// All commands as the rules of users see them.
pub fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
        let commands = commands_and_subcommands().map(|command| (command.name, command.categories().names()));
        Catalog::new(commands, Categories::all_names())
    });
    &CATALOG
}

impl KeyAccess {
    fn needs(self) -> KeyRights {
        match self {
            KeyAccess::Read => KeyRights::READ,
            KeyAccess::Write => KeyRights::WRITE,
            KeyAccess::ReadWrite => KeyRights::BOTH,
        }
    }
}

impl Found {
    /// Whether `user` may run this request. `Err(Err(_))`: the request is not valid.
    pub(super) fn check(self, user: &User, args: Args<'_>) -> Result<(), Result<Denied, CommandError>> {
        let Found { command, id } = self;
        if user.allows_everything() {
            return Ok(());
        }
        if command.keys.is_movable() {
            command.visit_keys(args, &mut |_, _| {}).map_err(Err)?;
        }
        // As in Redis, no rule keeps a client from authenticating.
        if command.is(Flags::NO_AUTH) {
            return Ok(());
        }
        user.check(id, &Request { command, args }).map_err(Ok)
    }
}

/// A request whose number of keys is valid.
struct Request<'a> {
    command: &'a Command,
    args: Args<'a>,
}

impl Uses for Request<'_> {
    fn every_key(&self) -> bool {
        self.command.is(Flags::EVERY_KEY)
    }

    fn visit_keys(&self, visit: &mut dyn FnMut(&[u8], KeyRights)) {
        let Request { command, args } = *self;
        // The only command whose access depends on an option.
        let reads = command.name == "set" && args.from(3).any(|arg| options::is(arg, "get"));
        let visited = command.visit_keys(args, &mut |key, access| {
            visit(key, if reads { KeyRights::BOTH } else { access.needs() });
        });
        debug_assert!(visited.is_ok(), "the number of keys was checked");
        if command.name == "subscribe" {
            let keys = args.from(1).filter_map(|channel| key_of_message(channel, b""));
            keys.for_each(|key| visit(key, KeyRights::READ));
        }
    }

    fn visit_channels(&self, visit: &mut dyn FnMut(&[u8], bool)) {
        let Request { command, args } = *self;
        if command.group != Group::PubSub {
            return;
        }
        match command.name {
            "publish" | "spublish" => visit(args.at(1), false),
            "psubscribe" => args.from(1).for_each(|pattern| visit(pattern, true)),
            "subscribe" | "ssubscribe" => args.from(1).for_each(|channel| visit(channel, false)),
            _ => {}
        }
    }
}

impl Context<'_> {
    /// Checks that the user of the connection may run this request.
    #[inline]
    pub(super) fn permit(&mut self, found: Found, args: Args<'_>) -> Result<(), CommandError> {
        if self.client.user.allows_everything() {
            return Ok(());
        }
        self.permit_by_rules(found, args)
    }

    #[inline(never)]
    fn permit_by_rules(&mut self, found: Found, args: Args<'_>) -> Result<(), CommandError> {
        // Each argument may be a key, which is compared with patterns.
        self.spend(args.len());
        found.check(&self.client.user, args).map_err(|why| match why {
            Err(invalid) => invalid,
            Ok(denied) => self.refuse(found.command, &denied),
        })
    }

    /// Whether the user of the connection may run this request, which need not be complete. `None`:
    /// there is no such command.
    pub(super) fn may_call(&mut self, args: Args<'_>) -> Option<bool> {
        self.spend(args.len());
        let user = &self.client.user;
        match find(args) {
            Ok(found) => Some(found.check(user, args).is_ok()),
            Err(Mismatch::Arity(command)) => {
                Some(catalog().find(command.name).is_some_and(|command| user.may_run(command)))
            }
            Err(Mismatch::Command | Mismatch::Subcommand(_)) => None,
        }
    }

    #[cold]
    fn refuse(&mut self, command: &'static Command, denied: &Denied) -> CommandError {
        let (reason, object) = match denied {
            Denied::Command => (DenialReason::Command, command.name.as_bytes()),
            Denied::Key(key) => (DenialReason::Key, key.as_slice()),
            Denied::Channel(channel) => (DenialReason::Channel, channel.as_slice()),
        };
        self.log_denial(reason, object, Arc::clone(self.client.user.name()));
        let name = self.client.user.name();
        CommandError::new(match self.caller {
            Caller::Connection => format!("NOPERM {}", denial_text(name, command.name, denied, false)),
            Caller::Queue { .. } => format!(
                "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
                 call. This command is no longer allowed for the following reason: {}",
                match denied {
                    Denied::Command => "no permission to execute the command or subcommand",
                    Denied::Key(_) => "no permission to touch the specified keys",
                    Denied::Channel(_) => {
                        "no permission to access one of the channels used as arguments to the command"
                    }
                }
            ),
            Caller::Script { .. } => {
                format!("NOPERM ACL failure in script: {}", denial_text(name, command.name, denied, false))
            }
        })
    }

    /// Adds an entry to ACL LOG.
    pub(super) fn log_denial(&self, reason: DenialReason, object: &[u8], user: Arc<str>) {
        let now = self.txn.now();
        self.server.denials.add(Denial {
            count: 1,
            reason,
            context: match self.caller {
                Caller::Connection => DenialContext::TopLevel,
                Caller::Queue { .. } => DenialContext::Multi,
                Caller::Script { .. } => DenialContext::Lua,
            },
            object: object.to_vec(),
            user,
            at: now,
            client: self.client.info().line(now),
        });
    }

    /// Closes the connections that a change of users affects, this one after its reply.
    pub(super) fn close_affected(&mut self, changed: &Changed) {
        let own = self.client.info().id;
        self.closes |= self.server.close_affected(changed, Some(own));
    }
}

impl ServerState {
    /// Closes the connections of users who are gone, and those that wait or have subscriptions of users
    /// who may use fewer keys or channels. Returns whether the connection `own` is among them, which stays open for its reply.
    pub fn close_affected(&self, changed: &Changed, own: Option<u64>) -> bool {
        if changed.gone.is_empty() && changed.reduced.is_empty() {
            return false;
        }
        let is_affected = |info: &ClientInfo| {
            info.user().is_some_and(|user| {
                changed.gone.contains(&user) || (changed.reduced.contains(&user) && info.is_listening())
            })
        };
        let mut is_own_affected = false;
        for info in self.clients.all().iter().filter(|info| is_affected(info)) {
            match own == Some(info.id) {
                true => is_own_affected = true,
                false => info.kill(),
            }
        }
        is_own_affected
    }
}

/// Says what a user may not do, in the words of Redis. `is_detailed`: with the key or channel.
pub(super) fn denial_text(user: &str, command: &str, denied: &Denied, is_detailed: bool) -> String {
    match denied {
        Denied::Command => format!("User {user} has no permissions to run the '{command}' command"),
        Denied::Key(key) if is_detailed => {
            format!("User {user} has no permissions to access the '{}' key", key.escape_ascii())
        }
        Denied::Channel(channel) if is_detailed => {
            format!("User {user} has no permissions to access the '{}' channel", channel.escape_ascii())
        }
        Denied::Key(_) => "No permissions to access a key".to_owned(),
        Denied::Channel(_) => "No permissions to access a channel".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{OwnedArgs, commands};

    fn check(rules: &str, request: &str) -> Result<(), Denied> {
        let mut user = User::new(b"alice").unwrap();
        user.apply_all(catalog(), rules.split(' ').map(str::as_bytes)).unwrap();
        let args = OwnedArgs::of(request.split(' '));
        find(args.as_args()).ok().unwrap().check(&user, args.as_args()).map_err(Result::unwrap)
    }

    #[test]
    fn a_command_is_found_with_its_place_in_the_catalog() {
        for command in commands_and_subcommands() {
            let help = (!command.subcommands().is_empty()).then_some("help");
            let mut args = OwnedArgs::of(command.name.split('|').chain(help));
            (args.as_args().len()..usize::from(command.arity.unsigned_abs())).for_each(|_| args.push(b"a"));
            let found = find(args.as_args()).ok().unwrap();
            assert_eq!(found.command.name, command.name);
            assert_eq!(Some(found.id), catalog().find(command.name), "{}", command.name);
        }
    }

    #[test]
    fn the_channels_of_every_command_are_known() {
        let pubsub = commands().filter(|command| command.is(Flags::PUBSUB));
        let names: Vec<_> = pubsub.map(|command| command.name).collect();
        assert_eq!(
            names,
            [
                "subscribe",
                "psubscribe",
                "ssubscribe",
                "unsubscribe",
                "punsubscribe",
                "sunsubscribe",
                "publish",
                "spublish"
            ]
        );
    }

    /// The commands of Redis 7.0 that change a key and return nothing of its value.
    const WRITE_ONLY: &str = "append copy del expire expireat hdel hmset hset hsetnx linsert lpush lpushx \
        lrem lset ltrim mset msetnx persist pexpire pexpireat psetex rpush rpushx sadd setex setnx setrange \
        srem unlink zadd zrem zremrangebylex zremrangebyrank zremrangebyscore";

    #[test]
    fn commands_that_return_no_value_need_no_right_to_read() {
        for command in commands().filter(|command| command.is(Flags::WRITE)) {
            let args: Vec<&str> = command.example.split(' ').collect();
            let mut accesses = Vec::new();
            let args = OwnedArgs::of(args);
            command.visit_keys(args.as_args(), &mut |_, access| accesses.push(access)).unwrap();
            let own = ["set", "lock", "renew", "unlock", "forceunlock"].contains(&command.name);
            let expected = own || WRITE_ONLY.split_whitespace().any(|name| name == command.name);
            let is_write_only = accesses.first() == Some(&KeyAccess::Write) && command.name != "copy";
            let stores = command.name.ends_with("store");
            assert_eq!(is_write_only || command.name == "copy", expected || stores, "{}", command.name);
        }
        assert_eq!(check("+set %W~a", "SET a b NX"), Ok(()));
        assert!(check("+set %W~a", "SET a b NX GET").is_err());
        assert_eq!(check("+smove %RW~a %W~b", "SMOVE a b c"), Ok(()));
    }

    #[test]
    fn the_events_of_a_lock_need_its_channel_and_its_key() {
        let rules = "+@all ~team:* &__lock__:* &__lock@2__:*";
        assert_eq!(check(rules, "SUBSCRIBE __lock__:team:a"), Ok(()));
        assert_eq!(check(rules, "SUBSCRIBE __lock@2__:team:a"), Ok(()));
        assert_eq!(check(rules, "SUBSCRIBE __lock__:x"), Err(Denied::Key(b"x".to_vec())));
        assert_eq!(check(rules, "PSUBSCRIBE __lock__:*"), Ok(()));
        assert_eq!(check(rules, "PSUBSCRIBE __lock__:a*"), Err(Denied::Channel(b"__lock__:a*".to_vec())));
        assert_eq!(check(rules, "UNSUBSCRIBE x"), Ok(()));
    }

    #[test]
    fn authentication_cannot_be_denied() {
        for request in ["AUTH a b", "HELLO 3", "QUIT", "RESET"] {
            assert_eq!(check("-@all", request), Ok(()), "{request}");
        }
        assert_eq!(check("-@all", "PING"), Err(Denied::Command));
    }

    #[test]
    fn a_command_that_affects_every_key_needs_all_keys() {
        for request in ["FLUSHALL", "FLUSHDB", "SLOWLOG GET", "MONITOR"] {
            assert!(check("+@all ~team:*", request).is_err(), "{request}");
            assert_eq!(check("+@all ~*", request), Ok(()), "{request}");
        }
    }

    #[test]
    fn an_invalid_number_of_keys_is_refused() {
        let mut user = User::new(b"alice").unwrap();
        user.apply(catalog(), b"+@all").unwrap();
        let args = OwnedArgs::of(["EVAL", "return 1", "2", "a"]);
        let found = find(args.as_args()).ok().unwrap();
        assert_eq!(found.check(&user, args.as_args()), Err(Err(CommandError::KEY_COUNT)));
    }
}
