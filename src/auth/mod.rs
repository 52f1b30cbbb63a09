//! Credentials of Redis and HTTP clients.
//!
//! Guarantees: one type for every secret; it is never printed, and comparing it takes the same time
//! wherever the texts differ. Not here: protocols, files, and what a user may do.

mod password;
mod secret;
mod users;

pub use password::CurrentPassword;
pub use secret::{Digest, Secret};
pub use users::{UserConfig, UsersConfig};
