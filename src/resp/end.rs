//! Why a connection ends.
//!
//! Guarantees: every error of a socket is one of these. Not here: what is logged about them.

use std::io;

use crate::net::WriteError;

/// Why a connection ends.
pub(super) enum End {
    Closed,
    Failed(io::Error),
    Stalled,
    Idle,
    Unauthenticated,
    /// Another service goes on with the connection.
    HandedOver,
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> End {
        match error {
            WriteError::Stalled => End::Stalled,
            WriteError::Failed(error) => End::Failed(error),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Failed(error)
    }
}
