//! Changes of a value that depend on the value.
//!
//! Guarantees: a change applies to the value that it was computed from. It uses compare-and-set,
//! and an exclusive transaction only after several failed attempts.

use std::slice;

use super::{CommandError, Context, Expiry, Op, Outcome, Owner, SetCondition, inspect, put};
use crate::command::steps::work_of_bytes;
use crate::domain::LockName;
use crate::engine::AnyTxn;

/// Maximum number of attempts at compare-and-set.
const ATTEMPTS: usize = 4;

/// The result of an edit.
pub(super) enum Edited {
    /// The value stays.
    Keep,
    /// The key has this value now.
    Set(Owner),
    /// The key is deleted.
    Delete,
}

/// Changes the value of a key as one operation. `edit` gets the value, or `None` if the key does
/// not exist. It runs again if the value has changed meanwhile.
pub(super) fn edit<R>(
    context: &mut Context<'_>,
    name: &LockName,
    expiry: Expiry,
    mut edit: impl FnMut(Option<&[u8]>) -> Result<(Edited, R), CommandError>,
) -> Result<R, CommandError> {
    let attempts = if matches!(context.txn, AnyTxn::Exclusive(_)) { 0 } else { ATTEMPTS };
    for _ in 0..attempts {
        let before = inspect(context, name)?;
        let (edited, result) = edit(before.as_ref().map(Owner::as_bytes))?;
        context.spend(work_of(&edited));
        if replace(context, name, before, edited, expiry)? {
            return Ok(result);
        }
    }
    context.atomically(slice::from_ref(name), |context| {
        let before = inspect(context, name)?;
        let (edited, result) = edit(before.as_ref().map(Owner::as_bytes))?;
        context.spend(work_of(&edited));
        match edited {
            Edited::Keep => {}
            // Ends a running lock-delay, as SET does.
            Edited::Set(value) => drop(put(context, name, value, SetCondition::Always, expiry)?),
            Edited::Delete => {
                context.txn.submit(name, &Op::Delete { if_owner: None })?;
            }
        }
        Ok(result)
    })
}

/// Units of work to make and store a value.
fn work_of(edited: &Edited) -> usize {
    match edited {
        Edited::Set(value) => work_of_bytes(2 * value.as_bytes().len()),
        Edited::Keep | Edited::Delete => 0,
    }
}

/// Applies an edit if the value is still `before`. Returns whether it was.
fn replace(
    context: &mut Context<'_>,
    name: &LockName,
    before: Option<Owner>,
    edited: Edited,
    expiry: Expiry,
) -> Result<bool, CommandError> {
    match (edited, before) {
        (Edited::Keep, _) | (Edited::Delete, None) => Ok(true),
        (Edited::Set(value), None) => put(context, name, value, SetCondition::IfFree, expiry),
        (Edited::Set(value), Some(before)) => {
            put(context, name, value, SetCondition::IfOwner(before), expiry)
        }
        (Edited::Delete, Some(before)) => {
            let outcome = context.txn.submit(name, &Op::Delete { if_owner: Some(before) })?;
            Ok(matches!(outcome, Outcome::Released(_)))
        }
    }
}
