//! The end of a value at its deadline.
//!
//! Guarantees: an expired value is gone for whatever happens next under the same guard. Not here: who
//! looks for values that are due (`engine/expiry`), leases (`lock/transition/expiry.rs`).

use std::mem;

use super::change::KeyWork;
use crate::engine::Unavailable;
use crate::engine::keyspace::Content;
use crate::engine::notifications::EXPIRED;

impl KeyWork<'_, '_> {
    /// Ends the value if its deadline has passed.
    #[inline]
    pub(in crate::engine) fn expire_value(&mut self) -> Result<(), Unavailable> {
        match &*self.key.content {
            Content::Value(keyed) if keyed.deadline <= self.scope.now => {
                self.engine.core.value_stats.expiries.add(1);
                // No client has changed it.
                let cause = mem::take(&mut self.scope.cause);
                let ended = self.end_value(&[EXPIRED]);
                self.scope.cause = cause;
                ended
            }
            _ => Ok(()),
        }
    }
}
