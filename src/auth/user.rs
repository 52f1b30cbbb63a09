//! A user: its passwords, and what it may do.
//!
//! Guarantees: passwords are kept as hashes only. Not here: the grammar of rules about commands,
//! keys and channels; the table of all users.

use std::sync::Arc;

use super::catalog::{Catalog, CommandId};
use super::rules::{Denied, KeyRights, RuleError, Selector, Uses};
use super::secret::PasswordHash;

/// The user of connections that have not named another one.
pub const DEFAULT_USER: &str = "default";

/// Longest name of a user, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A user.
#[derive(Clone)]
pub struct User {
    /// Tells users apart that had the same name one after the other.
    pub(super) id: u64,
    name: Arc<str>,
    is_on: bool,
    needs_no_password: bool,
    passwords: Vec<PasswordHash>,
    root: Selector,
    selectors: Vec<Selector>,
    allows_everything: bool,
}

/// The rules of one selector as texts.
#[derive(Debug, PartialEq, Eq)]
pub struct SelectorRules {
    /// The commands.
    pub commands: String,
    /// The patterns of keys.
    pub keys: Vec<u8>,
    /// The patterns of channels.
    pub channels: Vec<u8>,
}

impl User {
    /// A user that is off and may do nothing; `None` if the name is not valid.
    pub fn new(name: &[u8]) -> Option<User> {
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        let name = std::str::from_utf8(name).ok().filter(|name| name.chars().all(is_plain))?;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return None;
        }
        Some(User {
            id: 0,
            name: name.into(),
            is_on: false,
            needs_no_password: false,
            passwords: Vec::new(),
            root: Selector::default(),
            selectors: Vec::new(),
            allows_everything: false,
        })
    }

    /// The user `default` as it is without configuration: it needs no password and may do everything.
    pub fn open_default(catalog: &Catalog) -> User {
        User {
            id: 0,
            name: DEFAULT_USER.into(),
            is_on: true,
            needs_no_password: true,
            passwords: Vec::new(),
            root: Selector::everything(catalog),
            selectors: Vec::new(),
            allows_everything: true,
        }
    }

    /// The name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether clients may authenticate as this user.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether any password authenticates the user.
    pub fn needs_no_password(&self) -> bool {
        self.needs_no_password
    }

    /// Whether a connection starts as this user, without authentication.
    pub fn is_open(&self) -> bool {
        self.is_on && self.needs_no_password
    }

    /// Replaces all passwords.
    pub(super) fn set_passwords(&mut self, passwords: impl IntoIterator<Item = PasswordHash>) {
        self.passwords = passwords.into_iter().collect();
        self.needs_no_password = false;
    }

    pub(super) fn passwords(&self) -> &[PasswordHash] {
        &self.passwords
    }

    /// Whether `given` is one of the passwords. Compares all of them.
    pub(super) fn has_password(&self, given: &PasswordHash) -> bool {
        self.passwords.iter().fold(false, |found, password| found | (password == given))
    }

    /// Applies rules in order. After an error, some may have been applied.
    pub fn apply_all<'r>(
        &mut self,
        catalog: &Catalog,
        rules: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<(), (RuleError, &'r [u8])> {
        for rule in rules {
            self.apply(catalog, rule).map_err(|error| (error, rule))?;
        }
        Ok(())
    }

    /// Applies one rule.
    pub fn apply(&mut self, catalog: &Catalog, rule: &[u8]) -> Result<(), RuleError> {
        let is = |name: &str| rule.eq_ignore_ascii_case(name.as_bytes());
        if rule.is_empty() || is("sanitize-payload") {
            // No command restores a payload that would have to be checked.
        } else if is("on") || is("off") {
            self.is_on = is("on");
        } else if is("nopass") || is("resetpass") {
            self.passwords.clear();
            self.needs_no_password = is("nopass");
        } else if is("clearselectors") {
            self.selectors.clear();
        } else if is("reset") {
            *self = User {
                id: self.id,
                is_on: false,
                needs_no_password: false,
                passwords: Vec::new(),
                root: Selector::default(),
                selectors: Vec::new(),
                allows_everything: false,
                name: Arc::clone(&self.name),
            };
        } else if is("skip-sanitize-payload") {
            return Err(RuleError::Unsupported);
        } else {
            match rule {
                [b'>', password @ ..] => self.add_password(PasswordHash::of(password)),
                [b'#', hash @ ..] => self.add_password(PasswordHash::parse(hash).ok_or(RuleError::Hash)?),
                [b'<', password @ ..] => self.remove_password(&PasswordHash::of(password))?,
                [b'!', hash @ ..] => {
                    self.remove_password(&PasswordHash::parse(hash).ok_or(RuleError::Hash)?)?;
                }
                [b'(', rules @ .., b')'] => {
                    let mut selector = Selector::default();
                    let rules = rules.split(u8::is_ascii_whitespace).filter(|rule| !rule.is_empty());
                    rules.into_iter().try_for_each(|rule| selector.apply(catalog, rule))?;
                    self.selectors.push(selector);
                }
                rule => self.root.apply(catalog, rule)?,
            }
        }
        self.allows_everything = self.root.allows_everything();
        Ok(())
    }

    pub(super) fn add_password(&mut self, password: PasswordHash) {
        self.needs_no_password = false;
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
    }

    fn remove_password(&mut self, password: &PasswordHash) -> Result<(), RuleError> {
        let place = self.passwords.iter().position(|known| known == password);
        self.passwords.remove(place.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    fn all_selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Whether the user may do everything, so that nothing needs to be checked.
    pub fn allows_everything(&self) -> bool {
        self.allows_everything
    }

    /// Whether a request of `command` is allowed by one of the selectors. The error is that of the
    /// selector that allows the most.
    pub fn check(&self, command: CommandId, uses: &impl Uses) -> Result<(), Denied> {
        if self.selectors.is_empty() {
            return self.root.check(command, uses);
        }
        let mut denied = Denied::Command;
        for selector in self.all_selectors() {
            match selector.check(command, uses) {
                Ok(()) => return Ok(()),
                Err(why) if std::mem::discriminant(&why) != std::mem::discriminant(&denied) => {
                    denied = denied.max(why);
                }
                Err(_) => {}
            }
        }
        Err(denied)
    }

    /// Whether a selector allows the command, whatever its arguments.
    pub fn may_run(&self, command: CommandId) -> bool {
        self.all_selectors().any(|selector| selector.allows_command(command))
    }

    /// Whether the user may read a key.
    pub fn may_read(&self, key: &[u8]) -> bool {
        self.all_selectors().any(|selector| selector.allows_key(key, KeyRights::READ))
    }

    /// Whether the user may read all keys.
    pub fn may_read_all(&self) -> bool {
        self.all_selectors().any(Selector::allows_every_key)
    }

    /// What all keys begin with that the user may read, if its only pattern is such a prefix.
    pub fn key_prefix(&self) -> Option<&[u8]> {
        if self.selectors.is_empty() { self.root.key_prefix() } else { None }
    }

    /// Whether the user may receive a message of `channel` that tells about `key`, if about any.
    pub fn may_hear(&self, channel: &[u8], key: Option<&[u8]>) -> bool {
        self.all_selectors().any(|selector| {
            selector.allows_channel(channel, false)
                && key.is_none_or(|key| selector.allows_key(key, KeyRights::READ))
        })
    }

    /// Whether the user has all patterns of keys and channels that it had as `before`.
    pub fn reaches_as_much_as(&self, before: &User) -> bool {
        before.all_selectors().all(|old| self.all_selectors().any(|new| new.reaches_as_much_as(old)))
    }

    /// The flags that ACL GETUSER shows.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let state = if self.is_on { "on" } else { "off" };
        std::iter::once(state).chain(self.needs_no_password.then_some("nopass"))
    }

    /// The hashes of the passwords, as hexadecimal digits.
    pub fn hashes(&self) -> impl Iterator<Item = String> {
        self.passwords.iter().map(|hash| hash.to_hex())
    }

    /// The rules of each selector, those outside parentheses first.
    pub fn rules(&self) -> impl Iterator<Item = SelectorRules> {
        self.all_selectors().map(|selector| SelectorRules {
            commands: selector.describe_commands(),
            keys: selector.describe_keys(),
            channels: selector.describe_channels(),
        })
    }

    /// The user as a line of a users file.
    pub fn line(&self) -> Vec<u8> {
        let mut words = vec![b"user".to_vec(), self.name.as_bytes().to_vec()];
        words.extend(self.flags().map(|flag| flag.as_bytes().to_vec()));
        words.extend(self.hashes().map(|hash| format!("#{hash}").into_bytes()));
        words.push(self.root.describe());
        words.extend(self.selectors.iter().map(|selector| [b"(", &*selector.describe(), b")"].concat()));
        words.join(&b' ')
    }
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({})", self.name)
    }
}

/// Joins the words of each selector in parentheses to one rule. Fails with the word that opens a
/// parenthesis which is not closed.
pub fn join_selectors<'r>(words: impl IntoIterator<Item = &'r [u8]>) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let mut rules: Vec<Vec<u8>> = Vec::new();
    let mut opened: Option<Vec<u8>> = None;
    for word in words {
        match &mut opened {
            Some(selector) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
            }
            None if word.first() == Some(&b'(') => opened = Some(word.to_vec()),
            None => rules.push(word.to_vec()),
        }
        if word.last() == Some(&b')') {
            rules.extend(opened.take());
        }
    }
    match opened {
        // The first word of the selector.
        Some(selector) => Err(selector.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec()),
        None => Ok(rules),
    }
}
