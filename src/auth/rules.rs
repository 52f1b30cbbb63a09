//! The grammar of access rules, which is that of Redis 7.
//!
//! Guarantees: a rule that is not supported is refused with the reason, and a text that was refused
//! has changed nothing of a stored user. No error repeats a password. Not here: users, files.

use std::fmt;

use super::catalog::{Catalog, CommandId, CommandSet};
use crate::glob::Glob;

/// Why a rule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleError {
    /// It is not a rule.
    Syntax,
    /// It names no command and no category.
    Unknown,
    /// It permits a command with some first arguments only.
    FirstArgument,
    /// It has a `|` in the name of a subcommand.
    SubcommandArgument,
    /// It is not the hash of a password.
    Hash,
    /// It removes a password that the user does not have.
    NoSuchPassword,
    /// It adds a key pattern to all keys.
    AfterAllKeys,
    /// It adds a channel pattern to all channels.
    AfterAllChannels,
    /// Its pattern is too long.
    PatternTooLong,
    /// It is a rule of Redis that has no meaning here.
    Unsupported,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RuleError::Syntax => "Syntax error",
            RuleError::Unknown => "Unknown command or category name in ACL",
            RuleError::FirstArgument => "Allowing first-arg of a command is not supported",
            RuleError::SubcommandArgument => "Allowing first-arg of a subcommand is not supported",
            RuleError::Hash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::NoSuchPassword => {
                "The password you are trying to remove from the user does not exist"
            }
            RuleError::AfterAllKeys => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any \
                 effect. Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::AfterAllChannels => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::PatternTooLong => "The pattern is too long",
            RuleError::Unsupported => "This rule is not supported",
        })
    }
}

/// What a command does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRights {
    /// It may reveal the value.
    pub reads: bool,
    /// It may change the key.
    pub writes: bool,
}

impl KeyRights {
    /// Reads.
    pub const READ: KeyRights = KeyRights { reads: true, writes: false };
    /// Writes, without revealing the value.
    pub const WRITE: KeyRights = KeyRights { reads: false, writes: true };
    /// Reads and writes.
    pub const BOTH: KeyRights = KeyRights { reads: true, writes: true };

    fn covers(self, wanted: KeyRights) -> bool {
        self.reads >= wanted.reads && self.writes >= wanted.writes
    }
}

/// What a request uses. It is visited once for each selector, so that checks need no list of it.
pub trait Uses {
    /// Whether the request affects keys that it does not name.
    fn every_key(&self) -> bool {
        false
    }

    /// Passes on the keys, each with the access to it.
    fn visit_keys(&self, visit: &mut dyn FnMut(&[u8], KeyRights));

    /// Passes on the channels. `true`: the channel is a pattern, which must be permitted literally.
    fn visit_channels(&self, visit: &mut dyn FnMut(&[u8], bool));
}

/// What a user may not use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command,
    /// This key.
    Key(Vec<u8>),
    /// This channel.
    Channel(Vec<u8>),
}

/// Commands, keys and channels that may be used together. A user has one of its own, and others in
/// parentheses.
#[derive(Clone, Default)]
pub(super) struct Selector {
    commands: CommandSet,
    /// Whether the last `+@all` or `-@all` allowed all commands, and with them those of later versions.
    starts_with_all: bool,
    /// The rules for commands after the last `+@all` or `-@all`, as given.
    command_rules: Vec<String>,
    allows_all_keys: bool,
    keys: Vec<(Glob, KeyRights)>,
    allows_all_channels: bool,
    channels: Vec<Glob>,
}

impl Selector {
    /// Everything.
    pub(super) fn everything(catalog: &Catalog) -> Selector {
        let mut selector = Selector::default();
        selector.set_all_commands(catalog, true);
        (selector.allows_all_keys, selector.allows_all_channels) = (true, true);
        selector
    }

    /// Applies one rule about commands, keys or channels.
    pub(super) fn apply(&mut self, catalog: &Catalog, rule: &[u8]) -> Result<(), RuleError> {
        let is = |name: &str| rule.eq_ignore_ascii_case(name.as_bytes());
        if is("allkeys") || is("~*") {
            self.keys.clear();
            self.allows_all_keys = true;
        } else if is("resetkeys") {
            self.keys.clear();
            self.allows_all_keys = false;
        } else if is("allchannels") || is("&*") {
            self.channels.clear();
            self.allows_all_channels = true;
        } else if is("resetchannels") {
            self.channels.clear();
            self.allows_all_channels = false;
        } else if is("allcommands") || is("+@all") {
            self.set_all_commands(catalog, true);
        } else if is("nocommands") || is("-@all") {
            self.set_all_commands(catalog, false);
        } else {
            match rule {
                [b'~', pattern @ ..] => return self.add_key(pattern, KeyRights::BOTH),
                [b'%', rest @ ..] => {
                    let (access, pattern) = split_access(rest).ok_or(RuleError::Syntax)?;
                    return self.add_key(pattern, access);
                }
                [b'&', pattern @ ..] => return self.add_channel(pattern),
                [sign @ (b'+' | b'-'), name @ ..] => return self.set_commands(catalog, *sign == b'+', name),
                _ => return Err(RuleError::Syntax),
            }
        }
        Ok(())
    }

    fn add_key(&mut self, pattern: &[u8], access: KeyRights) -> Result<(), RuleError> {
        if self.allows_all_keys {
            return Err(RuleError::AfterAllKeys);
        }
        let glob = glob(pattern)?;
        match self.keys.iter_mut().find(|(known, _)| *known == glob) {
            Some((_, known)) => {
                *known =
                    KeyRights { reads: known.reads | access.reads, writes: known.writes | access.writes };
            }
            None => self.keys.push((glob, access)),
        }
        // As `~*`, which is how the pattern is saved, and after which no file may have another one.
        if self.keys.iter().any(|(glob, access)| &**glob.text() == b"*" && *access == KeyRights::BOTH) {
            self.keys.clear();
            self.allows_all_keys = true;
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.allows_all_channels {
            return Err(RuleError::AfterAllChannels);
        }
        let glob = glob(pattern)?;
        if !self.channels.contains(&glob) {
            self.channels.push(glob);
        }
        Ok(())
    }

    fn set_all_commands(&mut self, catalog: &Catalog, are_allowed: bool) {
        self.commands = CommandSet::default();
        if let Some(all) = catalog.category("@all").filter(|_| are_allowed) {
            self.commands.set_all(all, true);
        }
        self.starts_with_all = are_allowed;
        self.command_rules.clear();
    }

    fn set_commands(&mut self, catalog: &Catalog, is_allowed: bool, name: &[u8]) -> Result<(), RuleError> {
        let name = std::str::from_utf8(name).map_err(|_| RuleError::Unknown)?.to_ascii_lowercase();
        let commands = match name.starts_with('@') {
            true => catalog.category(&name),
            false => catalog.family(&name),
        };
        let commands = commands.ok_or_else(|| match name.split_once('|') {
            Some((_, subcommand)) if subcommand.contains('|') => RuleError::SubcommandArgument,
            Some((command, _)) if is_allowed && catalog.is_without_subcommands(command) => {
                RuleError::FirstArgument
            }
            _ => RuleError::Unknown,
        })?;
        self.commands.set_all(commands, is_allowed);
        // A later rule replaces those that it covers.
        let covers = |rule: &str| {
            rule[1..].strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with('|'))
        };
        self.command_rules.retain(|rule| !covers(rule));
        self.command_rules.push(format!("{}{name}", if is_allowed { '+' } else { '-' }));
        Ok(())
    }

    pub(super) fn allows_everything(&self) -> bool {
        self.allows_all_commands() && self.allows_all_keys && self.allows_all_channels
    }

    fn allows_all_commands(&self) -> bool {
        self.starts_with_all && self.command_rules.is_empty()
    }

    pub(super) fn allows_command(&self, command: CommandId) -> bool {
        self.commands.contains(command)
    }

    pub(super) fn allows_key(&self, key: &[u8], access: KeyRights) -> bool {
        // Patterns with different rights may cover the key together.
        self.allows_all_keys || {
            let mut granted = KeyRights { reads: false, writes: false };
            self.keys.iter().any(|(pattern, given)| {
                if pattern.matches(key) {
                    granted.reads |= given.reads;
                    granted.writes |= given.writes;
                }
                granted.covers(access)
            })
        }
    }

    pub(super) fn allows_every_key(&self) -> bool {
        self.allows_all_keys
    }

    /// The literal prefix, if the only pattern for reading is one with a star behind it.
    pub(super) fn key_prefix(&self) -> Option<&[u8]> {
        let mut readable = self.keys.iter().filter(|(_, access)| access.reads);
        let (Some((pattern, _)), None) = (readable.next(), readable.next()) else { return None };
        pattern.is_prefix().then(|| pattern.prefix())
    }

    pub(super) fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.allows_all_channels
            || self.channels.iter().any(|allowed| match is_pattern {
                true => **allowed.text() == *channel,
                false => allowed.matches(channel),
            })
    }

    /// Whether a request of `command` is allowed.
    pub(super) fn check(&self, command: CommandId, uses: &impl Uses) -> Result<(), Denied> {
        if !self.allows_command(command) {
            return Err(Denied::Command);
        }
        if uses.every_key() && !self.allows_all_keys {
            return Err(Denied::Key(Vec::new()));
        }
        let mut result = Ok(());
        uses.visit_keys(&mut |key, access| {
            if result.is_ok() && !self.allows_key(key, access) {
                result = Err(Denied::Key(key.to_vec()));
            }
        });
        result?;
        let mut result = Ok(());
        uses.visit_channels(&mut |channel, is_pattern| {
            if result.is_ok() && !self.allows_channel(channel, is_pattern) {
                result = Err(Denied::Channel(channel.to_vec()));
            }
        });
        result
    }

    /// The rules about commands.
    pub(super) fn describe_commands(&self) -> String {
        // The base decides about commands that a later version adds.
        let base = if self.starts_with_all { "+@all" } else { "-@all" };
        let rules = self.command_rules.iter().map(String::as_str);
        std::iter::once(base).chain(rules).collect::<Vec<_>>().join(" ")
    }

    /// The patterns of keys, separated by spaces.
    pub(super) fn describe_keys(&self) -> Vec<u8> {
        if self.allows_all_keys {
            return b"~*".to_vec();
        }
        let pattern = |(glob, access): &(Glob, KeyRights)| {
            let prefix: &[u8] = match (access.reads, access.writes) {
                (true, true) => b"~",
                (true, false) => b"%R~",
                _ => b"%W~",
            };
            [prefix, glob.text()].concat()
        };
        self.keys.iter().map(pattern).collect::<Vec<_>>().join(&b' ')
    }

    /// The patterns of channels, separated by spaces.
    pub(super) fn describe_channels(&self) -> Vec<u8> {
        if self.allows_all_channels {
            return b"&*".to_vec();
        }
        let patterns = self.channels.iter().map(|glob| [b"&", &**glob.text()].concat());
        patterns.collect::<Vec<_>>().join(&b' ')
    }

    /// All rules in one line.
    pub(super) fn describe(&self) -> Vec<u8> {
        let (keys, channels) = (self.describe_keys(), self.describe_channels());
        let reset: &[u8] = if self.allows_all_channels { b"" } else { b"resetchannels" };
        let commands = self.describe_commands();
        let parts = [&keys, reset, &channels, commands.as_bytes()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b' ')
    }

    /// Whether all patterns of keys and channels of `before` are among those here.
    pub(super) fn reaches_as_much_as(&self, before: &Selector) -> bool {
        let channels = self.allows_all_channels
            || (!before.allows_all_channels
                && before.channels.iter().all(|known| self.channels.contains(known)));
        let keys = self.allows_all_keys
            || (!before.allows_all_keys && before.keys.iter().all(|known| self.keys.contains(known)));
        channels && keys
    }
}

/// Splits what follows a `%`: the access, and the pattern behind the `~`.
fn split_access(rest: &[u8]) -> Option<(KeyRights, &[u8])> {
    let end = rest.iter().position(|byte| *byte == b'~')?;
    let mut access = KeyRights { reads: false, writes: false };
    for letter in &rest[..end] {
        match letter.to_ascii_uppercase() {
            b'R' if !access.reads => access.reads = true,
            b'W' if !access.writes => access.writes = true,
            _ => return None,
        }
    }
    (end > 0).then(|| (access, &rest[end + 1..]))
}

fn glob(pattern: &[u8]) -> Result<Glob, RuleError> {
    if pattern.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        return Err(RuleError::Syntax);
    }
    Glob::new(pattern).map_err(|_| RuleError::PatternTooLong)
}
