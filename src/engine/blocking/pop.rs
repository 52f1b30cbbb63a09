//! Pops that may wait: elements taken from the first of several lists or sorted sets that has any.
//!
//! Guarantees: a pop, or a move to another list, is one change in one commit. A request that waits
//! joins its queues in the same instant in which it finds nothing. Not here: who is served next.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Blocked, Place, WaitOutcome};
use crate::domain::{KeyspaceEvents, LockName, Timestamp, WaiterId};
use crate::engine::keyspace::{Content, ttl_until};
use crate::engine::values::KeyWork;
use crate::engine::{Engine, ExclusiveTxn, SharedTxn, Unavailable};
use crate::journal::Seq;
use crate::value::{Edit, End, Kind, ListEdit, Score, Value};

/// What happens to the elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PopAction {
    /// At most `count` items are taken from a list.
    Items {
        /// The end that they are taken from.
        from: End,
        /// At least 1.
        count: usize,
    },
    /// At most `count` members are taken from a sorted set.
    Members {
        /// The end that they are taken from.
        from: End,
        /// At least 1.
        count: usize,
    },
    /// One item moves to another list, or to another place of its own list.
    Move {
        /// The end that it is taken from.
        from: End,
        /// The list that it is added to.
        destination: LockName,
        /// The end that it is added to.
        to: End,
    },
}

/// A request for elements of the first key that has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PopRequest {
    pub(super) keys: Vec<LockName>,
    pub(super) action: PopAction,
}

/// Elements that were taken out of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Popped {
    /// The key.
    pub name: LockName,
    /// The elements.
    pub elements: PoppedElements,
    pub(super) action: PopAction,
    /// The deadline of the value, if these were its last elements.
    pub(super) deadline: Timestamp,
}

/// Elements in the order in which they were taken; at least one.
#[derive(Debug, Clone, PartialEq)]
pub enum PoppedElements {
    /// Items of a list.
    Items(Vec<Box<[u8]>>),
    /// Members of a sorted set.
    Members(Vec<(Box<[u8]>, Score)>),
}

/// The result of a pop that may wait.
pub enum Popping {
    /// There were elements.
    Done(Arc<Popped>),
    /// In the queues.
    Blocked(Blocked),
}

/// [`Popping`] before anything was made of it.
enum Attempt {
    Popped(Popped),
    Joined((WaiterId, oneshot::Receiver<WaitOutcome>)),
}

impl PopAction {
    /// Redis' word for elements that are taken out.
    fn pop_event(&self) -> &'static str {
        match self {
            PopAction::Items { from, .. } | PopAction::Move { from, .. } => from.pop_event(),
            PopAction::Members { from: End::Front, .. } => "zpopmin",
            PopAction::Members { from: End::Back, .. } => "zpopmax",
        }
    }

    /// Redis' word for elements that are put back.
    fn return_event(&self) -> &'static str {
        match self {
            PopAction::Items { from, .. } | PopAction::Move { from, .. } => from.push_event(),
            PopAction::Members { .. } => "zadd",
        }
    }
}

#[allow(clippy::len_without_is_empty)] // There is at least one.
impl PoppedElements {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            PoppedElements::Items(items) => items.len(),
            PoppedElements::Members(members) => members.len(),
        }
    }
}

impl PopRequest {
    /// A request for elements of the first of these keys that has any. A move has one key.
    pub fn new(keys: Vec<LockName>, action: PopAction) -> PopRequest {
        PopRequest { keys: super::queues::without_repetitions(keys), action }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.action {
            PopAction::Members { .. } => Kind::SortedSet,
            PopAction::Items { .. } | PopAction::Move { .. } => Kind::List,
        }
    }

    /// All keys that it may use.
    fn names(&self) -> Vec<LockName> {
        let mut names = self.keys.clone();
        if let PopAction::Move { destination, .. } = &self.action {
            names.push(destination.clone());
        }
        names
    }

    /// Whether an element goes to another key.
    pub(super) fn moves_elsewhere(&self) -> bool {
        matches!(&self.action, PopAction::Move { destination, .. } if !self.keys.contains(destination))
    }
}

impl SharedTxn<'_> {
    /// Takes elements, or waits for some until the clock reaches `until`. Other requests that wait
    /// for the same keys go first.
    pub fn pop_or_wait(&self, request: PopRequest, until: Timestamp) -> Result<Popping, Unavailable> {
        let request = Arc::new(request);
        let attempt = match &request.keys[..] {
            [name] if !request.moves_elsewhere() => {
                self.prepare_edit(name)?;
                self.work_on_key(name, |key| {
                    Ok(match key.pop(&request, true)? {
                        Some(popped) => Attempt::Popped(popped),
                        None => Attempt::Joined(key.engine.join(key.scope.table.epoch, &request, until)?),
                    })
                })?
            }
            _ => {
                let names = request.names();
                self.exclusively_editing(&names, |exclusive| exclusive.pop_or_join(&request, until))??
            }
        };
        Ok(match attempt {
            Attempt::Popped(popped) => Popping::Done(Arc::new(popped)),
            Attempt::Joined(waiter) => {
                self.engine().core.deadlines.alarm.armed(until);
                Popping::Blocked(Blocked::new(Arc::clone(self.engine()), Place::Pop, waiter))
            }
        })
    }
}

impl ExclusiveTxn<'_> {
    /// Takes elements; `None` if there are none.
    pub fn pop(&self, request: &PopRequest) -> Result<Option<Popped>, Unavailable> {
        self.pop_any(request, false)
    }

    /// Takes elements of the first key that has any. Requests that wait for them go first if `waits`.
    fn pop_any(&self, request: &PopRequest, waits: bool) -> Result<Option<Popped>, Unavailable> {
        for name in &request.keys {
            let popped = match &request.action {
                PopAction::Move { .. } if request.moves_elsewhere() => {
                    self.move_first(name, request, waits)?
                }
                _ => self.work_on_key(name, |key| key.pop(request, waits))?,
            };
            if popped.is_some() {
                return Ok(popped);
            }
        }
        Ok(None)
    }

    fn pop_or_join(&self, request: &Arc<PopRequest>, until: Timestamp) -> Result<Attempt, Unavailable> {
        if let Some(popped) = self.pop_any(request, true)? {
            return Ok(Attempt::Popped(popped));
        }
        let joined = self.in_epoch(|table| self.engine().join(table.epoch, request, until));
        joined.map(Attempt::Joined).map_err(|why| self.refuse(why))
    }

    /// Moves an item of a list to another list. Refused if that has no room or is no list.
    pub(super) fn move_first(
        &self,
        name: &LockName,
        request: &PopRequest,
        waits: bool,
    ) -> Result<Option<Popped>, Unavailable> {
        let PopAction::Move { from, destination, to } = &request.action else { return Ok(None) };
        let first = self.work_on_key(name, |key| key.first(*from, waits))?;
        let Some((item, deadline)) = first else { return Ok(None) };
        self.set_event(to.push_event());
        self.value(destination, Kind::List, |edit| edit_list(edit, |list| to.push(list, &item)))?;
        self.set_event(from.pop_event());
        self.existing_value(name, Kind::List, |edit| edit_list(edit, |list| from.pop(list)))?;
        let elements = PoppedElements::Items(vec![item.into()]);
        Ok(Some(Popped { name: name.clone(), elements, action: request.action.clone(), deadline }))
    }

    /// Puts elements back to where they were.
    pub(super) fn return_popped(&self, popped: &Popped) -> Result<(), Unavailable> {
        match &popped.action {
            PopAction::Move { destination, .. } if *destination != popped.name => self.move_back(popped),
            _ => self.work_on_key(&popped.name, |key| key.put_elements(popped)),
        }
    }

    /// Moves an item back, if it is still where it was moved to.
    fn move_back(&self, popped: &Popped) -> Result<(), Unavailable> {
        let (PopAction::Move { destination, to, .. }, PoppedElements::Items(items)) =
            (&popped.action, &popped.elements)
        else {
            return Ok(());
        };
        let last_moved = self.work_on_key(destination, |key| match key.content().value() {
            Some(Value::List(list)) => Ok(to.peek(list).map(Box::from)),
            _ => Ok(None),
        })?;
        if last_moved.is_none() || last_moved.as_ref() != items.first() {
            return Ok(());
        }
        // First what may be refused.
        self.work_on_key(&popped.name, |key| key.put_elements(popped))?;
        self.set_event(to.pop_event());
        self.existing_value(destination, Kind::List, |edit| edit_list(edit, |list| to.pop(list)))?;
        Ok(())
    }
}

impl SharedTxn<'_> {
    /// Puts elements back to where they were. Returns the Seq of that change.
    pub(super) fn put_back(&self, popped: &Popped) -> Result<Seq, Unavailable> {
        match &popped.action {
            PopAction::Move { destination, .. } if *destination != popped.name => {
                let names = [popped.name.clone(), destination.clone()];
                self.exclusively(&names, |exclusive| {
                    exclusive.return_popped(popped).map(|()| exclusive.seen().seq())
                })?
            }
            _ => self.work_on_key(&popped.name, |key| key.put_elements(popped).map(|()| key.appended)),
        }
    }
}

impl Engine {
    /// Puts a request into its queues. Call it under the guards of its keys.
    fn join(
        &self,
        epoch: u64,
        request: &Arc<PopRequest>,
        until: Timestamp,
    ) -> Result<(WaiterId, oneshot::Receiver<WaitOutcome>), Unavailable> {
        let core = &*self.core;
        let (id, receiver) = core.waiters.register();
        let joined = match core.pops.join(id, request, until, core.config.waiters_per_lock_max) {
            false => Err(Unavailable::WaitersMax),
            // If the journal went down meanwhile, this request may have missed the notice.
            true => self.journal().append(epoch, []).map(drop).map_err(Unavailable::from),
        };
        if let Err(why) = joined {
            core.waiters.forget(id);
            core.pops.remove(id);
            return Err(why);
        }
        Ok((id, receiver))
    }
}

impl KeyWork<'_, '_> {
    /// Takes elements out; `None` if the key does not exist. Requests that wait for them go first if
    /// `waits`.
    pub(super) fn pop(&mut self, request: &PopRequest, waits: bool) -> Result<Option<Popped>, Unavailable> {
        if !self.is_poppable(request.kind(), waits)? {
            return Ok(None);
        }
        let deadline = self.content().deadline().unwrap_or(Timestamp::NEVER);
        let event = request.action.pop_event();
        let elements = match &request.action {
            // Within one list. Redis adds the item first.
            PopAction::Move { to, .. } => {
                self.scope.cause.event = to.push_event();
                let elements = self.edit(Kind::List, |edit| take(edit, &request.action))?;
                let notification = (KeyspaceEvents::LIST, event);
                self.engine.core.events.notify(self.appended, self.scope.name, notification);
                elements
            }
            _ => {
                self.scope.cause.event = event;
                self.edit(request.kind(), |edit| take(edit, &request.action))?
            }
        };
        let (name, action) = (self.scope.name.clone(), request.action.clone());
        Ok(elements.map(|elements| Popped { name, elements, action, deadline }))
    }

    /// A copy of the first item of a list and the deadline of the list.
    fn first(&mut self, from: End, waits: bool) -> Result<Option<(Vec<u8>, Timestamp)>, Unavailable> {
        if !self.is_poppable(Kind::List, waits)? {
            return Ok(None);
        }
        let deadline = self.content().deadline().unwrap_or(Timestamp::NEVER);
        let list = match self.content().value() {
            Some(Value::List(list)) => list,
            _ => return Ok(None),
        };
        Ok(from.peek(list).map(|item| (item.into(), deadline)))
    }

    /// Whether the key has elements, and they are not for requests that wait for them already.
    fn is_poppable(&self, kind: Kind, waits: bool) -> Result<bool, Unavailable> {
        match self.content() {
            Content::Value(keyed) if keyed.value.kind() == kind => {}
            content if content.exists() => return Err(Unavailable::WrongType),
            _ => return Ok(false),
        }
        let pops = &self.engine.core.pops;
        if waits && pops.is_awaited(self.scope.name, kind) {
            pops.signal(self.scope.name, kind);
            return Ok(false);
        }
        Ok(true)
    }

    /// Puts elements back to where they were. No limit applies: they were there.
    pub(super) fn put_elements(&mut self, popped: &Popped) -> Result<(), Unavailable> {
        let kind = match popped.elements {
            PoppedElements::Items(_) => Kind::List,
            PoppedElements::Members(_) => Kind::SortedSet,
        };
        self.scope.cause.event = popped.action.return_event();
        match self.content() {
            Content::Value(_) => self.edit(kind, |edit| put(edit, popped)),
            content if content.exists() => Err(Unavailable::WrongType),
            Content::Lock(slot) if !slot.is_vacant() => Err(Unavailable::WrongType),
            // The value comes back only for the time that it had left.
            Content::Lock(_) if popped.deadline <= self.scope.now => Ok(()),
            Content::Lock(_) => {
                let _one_commit = self.engine.one_commit();
                self.create(kind, |edit| put(edit, popped))?;
                match ttl_until(popped.deadline, self.scope.now) {
                    Some(ttl) => self.set_ttl(Some(ttl)).map(drop),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Edits a list; `None` if the value is none.
fn edit_list<R>(edit: &mut Edit<'_>, work: impl FnOnce(&mut ListEdit<'_>) -> R) -> Option<R> {
    edit.list().map(|mut list| work(&mut list))
}

/// Takes elements out of a value.
fn take(edit: &mut Edit<'_>, action: &PopAction) -> Option<PoppedElements> {
    match action {
        PopAction::Items { from, count } => {
            let mut list = edit.list()?;
            let items = std::iter::from_fn(|| from.pop(&mut list)).take(*count).collect();
            Some(PoppedElements::Items(items))
        }
        PopAction::Members { from, count } => {
            let mut sorted = edit.sorted_set()?;
            let (len, count) = (sorted.len(), (*count).min(sorted.len()));
            let members = match from {
                End::Front => sorted.remove_range(0..count),
                End::Back => {
                    let mut members = sorted.remove_range(len - count..len);
                    members.reverse();
                    members
                }
            };
            Some(PoppedElements::Members(members))
        }
        // Within one list.
        PopAction::Move { from, to, .. } => {
            let mut list = edit.list()?;
            let item = from.pop(&mut list)?;
            to.push(&mut list, &item);
            Some(PoppedElements::Items(vec![item]))
        }
    }
}

/// Puts elements back into a value. Members that were added again meanwhile stay as they are.
fn put(edit: &mut Edit<'_>, popped: &Popped) {
    match (&popped.action, &popped.elements) {
        (PopAction::Items { from, .. }, PoppedElements::Items(items)) => {
            edit_list(edit, |list| items.iter().rev().for_each(|item| from.push(list, item)));
        }
        (PopAction::Move { from, destination, to }, PoppedElements::Items(items)) => {
            let Some(item) = items.first() else { return };
            edit_list(edit, |list| {
                let is_elsewhere = *destination != popped.name;
                if is_elsewhere || (to.peek(list) == Some(&**item) && to.pop(list).is_some()) {
                    from.push(list, item);
                }
            });
        }
        (_, PoppedElements::Members(members)) => {
            let Some(mut sorted) = edit.sorted_set() else { return };
            for (member, score) in members {
                if sorted.score(member).is_none() {
                    sorted.insert(member, *score);
                }
            }
        }
        (PopAction::Members { .. }, PoppedElements::Items(_)) => {}
    }
}
