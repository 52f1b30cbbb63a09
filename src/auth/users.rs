//! The table of all users, shared by Redis and HTTP clients.
//!
//! Guarantees: a user that does not exist takes as long to authenticate as a wrong password. After
//! a change, [`Users::generation`] differs, so that connections notice it with one load. A change
//! is made as a whole or not at all. Not here: connections, files other than the users file.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::catalog::Catalog;
use super::file;
use super::rules::RuleError;
use super::secret::{Digest, PasswordHash};
use super::tokens::UsersConfig;
use super::user::{DEFAULT_USER, User};

/// All users.
pub struct Users {
    catalog: &'static Catalog,
    /// The key of the digests by which HTTP finds users.
    key: [u8; 32],
    table: RwLock<Arc<Table>>,
    /// Held while a change is prepared.
    changing: Mutex<()>,
    generation: AtomicU64,
    last_id: AtomicU64,
    /// The users that are defined beside the users file, `default` among them.
    beside_file: Mutex<Vec<User>>,
    file: Option<Box<str>>,
}

/// One version of the users.
#[derive(Default)]
struct Table {
    by_name: BTreeMap<Arc<str>, Arc<User>>,
    /// The user of each password; `None` if several users share it.
    by_password: HashMap<Digest, Option<Arc<User>>>,
}

/// Users whose connections a change affects.
#[derive(Debug, Default)]
pub struct Changed {
    /// They are gone or off.
    pub gone: Vec<Arc<str>>,
    /// They may use fewer keys or channels than before.
    pub reduced: Vec<Arc<str>>,
}

impl Users {
    /// A table of the configured users. `key` is secret.
    pub fn new(catalog: &'static Catalog, key: &[u8; 32], config: &UsersConfig) -> Users {
        let users = Users {
            catalog,
            key: *key,
            table: RwLock::default(),
            changing: Mutex::new(()),
            generation: AtomicU64::new(0),
            last_id: AtomicU64::new(0),
            beside_file: Mutex::new(config.beside_file(catalog)),
            file: config.file.as_deref().map(Box::from),
        };
        users.replace(config.in_file.clone());
        users
    }

    /// Only the user `default`, which needs no password.
    pub fn open(catalog: &'static Catalog) -> Users {
        Users::new(catalog, &[0; 32], &UsersConfig::default())
    }

    /// The commands that rules name.
    pub fn catalog(&self) -> &'static Catalog {
        self.catalog
    }

    /// Differs after each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read())
    }

    /// All users, in the order of their names.
    pub fn all(&self) -> Vec<Arc<User>> {
        self.table().by_name.values().cloned().collect()
    }

    /// The user of a name.
    pub fn find(&self, name: &[u8]) -> Option<Arc<User>> {
        let name = std::str::from_utf8(name).ok()?;
        self.table().by_name.get(name).cloned()
    }

    /// The user `default`.
    pub fn default_user(&self) -> Arc<User> {
        let found = self.find(DEFAULT_USER.as_bytes());
        found.unwrap_or_else(|| unreachable!("the table always has it"))
    }

    /// The current version of a user; `None` if it is gone or off.
    pub fn current(&self, user: &User) -> Option<Arc<User>> {
        self.find(user.name().as_bytes()).filter(|now| now.id == user.id && now.is_on())
    }

    /// The user of a name and a password, if it is on.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let given = PasswordHash::of(password);
        let Some(user) = self.find(name) else {
            // Takes as long as a comparison.
            let _ = std::hint::black_box(given == PasswordHash::NONE);
            return None;
        };
        let is_right = user.has_password(&given) | user.needs_no_password();
        (is_right & user.is_on()).then_some(user)
    }

    /// The user whose password this is, if it is on and no other user has the same password.
    pub fn with_password(&self, password: &[u8]) -> Option<Arc<User>> {
        let digest = PasswordHash::of(password).digest(&self.key);
        let found = self.table().by_password.get(&digest).cloned().flatten();
        found.filter(|user| user.is_on())
    }

    /// The user of this name, which a certificate has proved, if there is one that is on.
    pub fn with_certificate(&self, name: &str) -> Option<Arc<User>> {
        self.find(name.as_bytes()).filter(|user| user.is_on())
    }

    /// Creates or changes a user. `Err(None)`: the name is not valid.
    pub fn set<'r>(
        &self,
        name: &[u8],
        rules: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Changed, Option<(RuleError, &'r [u8])>> {
        let _changing = self.changing.lock();
        let mut user = match self.find(name) {
            Some(user) => User::clone(&user),
            None => {
                let mut user = User::new(name).ok_or(None)?;
                user.id = self.next_id();
                user
            }
        };
        user.apply_all(self.catalog, rules).map_err(Some)?;
        let mut by_name = self.table().by_name.clone();
        by_name.insert(Arc::clone(user.name()), Arc::new(user));
        Ok(self.publish(by_name))
    }

    /// Deletes users. Returns how many there were. The caller does not name `default`.
    pub fn delete<'n>(&self, names: impl Iterator<Item = &'n [u8]>) -> (usize, Changed) {
        let _changing = self.changing.lock();
        let mut by_name = self.table().by_name.clone();
        let is_deleted = |name: &[u8]| {
            let name = std::str::from_utf8(name).ok().filter(|name| *name != DEFAULT_USER);
            name.is_some_and(|name| by_name.remove(name).is_some())
        };
        let deleted = names.map(is_deleted).filter(|is_deleted| *is_deleted).count();
        (deleted, self.publish(by_name))
    }

    /// Replaces all users by these and those that are defined beside the users file. Users that keep
    /// their name keep their connections.
    fn replace(&self, users: Vec<User>) -> Changed {
        let _changing = self.changing.lock();
        let all = self.beside_file.lock().iter().cloned().chain(users).collect();
        self.publish_all(all)
    }

    /// Applies a new configuration. Without a users file, users that commands have created stay, and
    /// those whose configuration is the same as before stay as commands have changed them.
    pub fn reconfigure(&self, config: &UsersConfig) -> Changed {
        let _changing = self.changing.lock();
        let configured = config.beside_file(self.catalog);
        let before = std::mem::replace(&mut *self.beside_file.lock(), configured.clone());
        let mut all = configured;
        if self.file.is_some() {
            all.extend(config.in_file.iter().cloned());
        } else {
            let table = self.table();
            let is_kept = |user: &&Arc<User>| {
                let named =
                    |users: &[User]| users.iter().find(|known| known.name() == user.name()).map(User::line);
                named(&before) == named(&all)
            };
            let kept: Vec<User> =
                table.by_name.values().filter(is_kept).map(|user| User::clone(user)).collect();
            all.extend(kept);
        }
        self.publish_all(all)
    }

    /// Replaces all users; of several with one name, the last counts.
    fn publish_all(&self, users: Vec<User>) -> Changed {
        let before = self.table();
        let mut by_name: BTreeMap<Arc<str>, Arc<User>> = BTreeMap::new();
        for mut user in users {
            let known = before.by_name.get(user.name()).or_else(|| by_name.get(user.name()));
            user.id = known.map_or_else(|| self.next_id(), |known| known.id);
            by_name.insert(Arc::clone(user.name()), Arc::new(user));
        }
        self.publish(by_name)
    }

    /// The users file.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Reads the users file again. After an error, nothing has changed.
    pub fn load(&self, path: &str) -> Result<Changed, String> {
        Ok(self.replace(file::read_users(self.catalog, path)?))
    }

    /// Writes the users file.
    pub fn save(&self, path: &str) -> io::Result<()> {
        let _changing = self.changing.lock();
        file::write_users(path, self.table().by_name.values().map(|user| &**user))
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn publish(&self, by_name: BTreeMap<Arc<str>, Arc<User>>) -> Changed {
        let before = self.table();
        let mut changed = Changed::default();
        for old in before.by_name.values() {
            match by_name.get(old.name()).filter(|new| new.id == old.id) {
                Some(new) if new.is_on() || !old.is_on() => {
                    if !new.reaches_as_much_as(old) {
                        changed.reduced.push(Arc::clone(old.name()));
                    }
                }
                _ => changed.gone.push(Arc::clone(old.name())),
            }
        }
        let mut by_password = HashMap::new();
        for user in by_name.values() {
            for password in user.passwords() {
                let owner = by_password.entry(password.digest(&self.key)).or_insert(Some(Arc::clone(user)));
                if owner.as_ref().is_some_and(|owner| owner.name() != user.name()) {
                    *owner = None;
                }
            }
        }
        *self.table.write() = Arc::new(Table { by_name, by_password });
        self.generation.fetch_add(1, Ordering::AcqRel);
        changed
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.table().by_name.keys()).finish()
    }
}
