//! Values of several keys, from which commands compute another.
//!
//! Guarantees: the values are those of one instant, and a result is stored in the instant whose
//! values it was computed from. Computing from very many elements does not hold up other clients,
//! unless EXEC or a script does it, or the keys come and go meanwhile. Not here: what is computed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::values::Typed;
use super::{Args, CommandError, Context, name_or_none};
use crate::engine::{AnyTxn, Draft, ELEMENTS_AT_ONCE_MAX, HeldValue, SharedTxn, run_long, visit_elements};
use crate::reply::Reply;
use crate::value::{Kind, Value};

/// The value of a key at an instant; `None` if the key did not exist.
pub(super) type Source = Option<Arc<Value>>;

/// What the result is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Union,
    Intersection,
    Difference,
}

impl Operation {
    /// The number of elements that it visits.
    pub(super) fn visits(self, sources: &[Source]) -> usize {
        let lens = || sources.iter().map(len);
        match self {
            Operation::Union => lens().sum(),
            Operation::Intersection => lens().min().unwrap_or(0) * sources.len(),
            Operation::Difference => lens().next().unwrap_or(0) * sources.len(),
        }
    }
}

/// The number of elements of a source.
pub(super) fn len(source: &Source) -> usize {
    source.as_ref().map_or(0, |value| value.len())
}

/// The value of a source, if it has one of this type.
pub(super) fn of_type<T: Typed>(source: &Source) -> Option<&T> {
    source.as_deref().and_then(T::of)
}

/// What was found of some keys: all of them, or those before the first that is of another type.
struct Found {
    sources: Vec<Source>,
    error: Option<CommandError>,
}

impl Found {
    fn of(context: &Context<'_>, keys: &[&[u8]], kinds: &[Kind]) -> Found {
        let mut found = Found { sources: Vec::with_capacity(keys.len()), error: None };
        for key in keys {
            match look_up(context, key, kinds) {
                Ok(source) => found.sources.push(source),
                Err(error) => {
                    found.error = Some(error);
                    break;
                }
            }
        }
        found
    }

    /// Counts the lookups. Call it only once for a request, not each time that it is tried.
    fn counted(self, context: &Context<'_>) -> Result<Vec<Source>, CommandError> {
        if self.error.as_ref().is_some_and(CommandError::is_unsettled) {
            return Err(CommandError::UNSETTLED);
        }
        self.sources.iter().for_each(|source| context.count_lookup(source.is_some()));
        if self.error == Some(CommandError::WRONG_TYPE) {
            context.count_lookup(true);
        }
        self.error.map_or(Ok(self.sources), Err)
    }
}

fn look_up(context: &Context<'_>, key: &[u8], kinds: &[Kind]) -> Result<Source, CommandError> {
    let Some(name) = name_or_none(context, key)? else { return Ok(None) };
    match context.txn.share_value(&name)? {
        Some(of_other_type) if !kinds.contains(&of_other_type.kind()) => Err(CommandError::WRONG_TYPE),
        value => Ok(value),
    }
}

/// Checks that the value of a key is of one of these types. Counts as a lookup.
pub(super) fn check_type(context: &Context<'_>, key: &[u8], kinds: &[Kind]) -> Result<(), CommandError> {
    Found::of(context, &[key], kinds).counted(context).map(drop)
}

/// The values of the keys of a request, all at one instant, for a computation that visits `visits`
/// elements.
pub(super) fn sources(
    context: &mut Context<'_>,
    args: Args<'_>,
    keys: &[&[u8]],
    kinds: &[Kind],
    visits: impl Fn(&[Source]) -> usize,
) -> Result<Vec<Source>, CommandError> {
    let found = context.atomically_on_keys(args, |context| Ok(Found::of(context, keys, kinds)))?;
    if found.error.is_none() && visits(&found.sources) > ELEMENTS_AT_ONCE_MAX {
        context.txn.begin_long_work()?;
    }
    found.counted(context)
}

impl Context<'_> {
    /// Computes something that visits this many elements of [`sources`].
    pub(super) fn compute<R>(&mut self, elements: usize, work: impl FnOnce() -> R) -> R {
        self.spend_elements(elements);
        visit_elements(elements, work)
    }
}

/// A value to be stored that is computed from others.
pub(super) struct Stored<'a, V, C> {
    pub(super) destination: &'a [u8],
    pub(super) keys: &'a [&'a [u8]],
    /// The types that the keys may have.
    pub(super) kinds: &'a [Kind],
    /// How many elements the computation visits.
    pub(super) visits: V,
    pub(super) compute: C,
}

/// How often a value is computed before the transaction that stores it. The work is in vain if one
/// of the keys was created, deleted or replaced meanwhile.
const ATTEMPTS: usize = 3;

impl<V: Fn(&[Source]) -> usize, C: Fn(&[Source]) -> Draft> Stored<'_, V, C> {
    /// Computes the value and stores it. Replies with the number of its elements.
    pub(super) fn store(&self, context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
        context.check_transaction_budget()?;
        if let AnyTxn::Shared(txn) = context.txn
            && self.is_long(context, txn)?
        {
            return run_long(|| self.store_prepared(context, args, txn));
        }
        self.store_at_once(context, args)
    }

    /// Whether the computation visits very many elements.
    fn is_long(&self, context: &Context<'_>, txn: &SharedTxn<'_>) -> Result<bool, CommandError> {
        let mut sources = Vec::with_capacity(self.keys.len());
        for key in self.keys {
            let name = name_or_none(context, key)?;
            let source = name.map_or(Ok(None), |name| txn.share_before(&name))?;
            if source.as_ref().is_some_and(|value| !self.kinds.contains(&value.kind())) {
                return Ok(false);
            }
            sources.push(source);
        }
        Ok((self.visits)(&sources) > ELEMENTS_AT_ONCE_MAX)
    }

    /// Computes the value before the transaction that stores it. That takes the value if the keys
    /// still hold the same ones, which do not change while they are shared.
    fn store_prepared(
        &self,
        context: &mut Context<'_>,
        args: Args<'_>,
        txn: &SharedTxn<'_>,
    ) -> Result<Reply, CommandError> {
        for _ in 0..ATTEMPTS {
            let held = self.hold(context, txn)?;
            let source = |key: &&[u8]| held.get(key)?.as_deref().cloned();
            let prepared: Vec<Source> = self.keys.iter().map(source).collect();
            let visits = (self.visits)(&prepared);
            context.spend_elements(visits);
            let making = txn.make_value(bytes_of(&prepared, visits))?;
            let mut draft = Some((self.compute)(&prepared));
            drop(making);
            let stored = context.atomically_on_keys(args, |context| {
                let now = self.find(context);
                if now.error.is_some() || !are_same(&prepared, &now.sources) {
                    return Ok(None);
                }
                now.counted(context)?;
                self.put(context, &mut draft).map(Some)
            })?;
            if let Some(reply) = stored {
                return Ok(reply);
            }
            if !self.is_long(context, txn)? {
                break;
            }
        }
        self.store_at_once(context, args)
    }

    /// Holds the values of the keys.
    fn hold<'t>(
        &self,
        context: &Context<'_>,
        txn: &SharedTxn<'t>,
    ) -> Result<HashMap<&[u8], Option<HeldValue<'t>>>, CommandError> {
        let mut held = HashMap::new();
        for key in self.keys {
            if let Entry::Vacant(vacant) = held.entry(*key) {
                let name = name_or_none(context, key)?;
                vacant.insert(name.map_or(Ok(None), |name| txn.hold_value(&name))?);
            }
        }
        Ok(held)
    }

    fn store_at_once(&self, context: &mut Context<'_>, args: Args<'_>) -> Result<Reply, CommandError> {
        context.atomically_on_keys(args, |context| {
            let sources = self.find(context).counted(context)?;
            let draft = context.compute((self.visits)(&sources), || (self.compute)(&sources));
            self.put(context, &mut Some(draft))
        })
    }

    fn find(&self, context: &Context<'_>) -> Found {
        Found::of(context, self.keys, self.kinds)
    }

    fn put(&self, context: &mut Context<'_>, draft: &mut Option<Draft>) -> Result<Reply, CommandError> {
        let len = draft.as_ref().map_or(0, Draft::len);
        context.spend_elements(len);
        context.txn.replace_value(&context.key(self.destination)?, draft)?;
        Ok(Reply::count(len))
    }
}

/// About how many bytes a value has at most that is made of this many elements of the sources.
fn bytes_of(sources: &[Source], visits: usize) -> usize {
    let bytes: usize = sources.iter().flatten().map(|value| value.bytes()).sum();
    let elements: usize = sources.iter().map(len).sum();
    if visits < elements { bytes / elements * visits } else { bytes }
}

/// Whether keys still hold the values that they held.
fn are_same(before: &[Source], now: &[Source]) -> bool {
    before.iter().zip(now).all(|(before, now)| match (before, now) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        (before, now) => before.is_none() && now.is_none(),
    })
}
