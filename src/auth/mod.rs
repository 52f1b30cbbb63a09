//! Users: their credentials, and what they may do.
//!
//! Guarantees: one table of users for Redis and HTTP clients. Secrets are never printed, and
//! comparing them takes the same time wherever the texts differ. Not here: protocols, connections,
//! and the commands themselves.

mod catalog;
mod failures;
mod file;
mod rules;
mod secret;
mod tokens;
mod user;
mod users;

pub use catalog::{Catalog, CommandId};
pub use failures::{Denial, DenialContext, DenialLog, DenialReason, WRONG_PASSWORD_DELAY, log_failed_login};
pub use file::{check_private, parse_users, read_private, read_users, without_mark};
pub use rules::{Denied, KeyRights, RuleError, Uses};
pub use secret::{Digest, PasswordHash, Proof, Secret};
pub use tokens::{UserConfig, UsersConfig};
pub use user::{DEFAULT_USER, SelectorRules, User, join_selectors};
pub use users::{Changed, Users};

#[cfg(test)]
mod tests;
