//! `/keys`: one page of the list of keys, sorted and filtered, once or live.
//!
//! Guarantees: shows the keys that the user may list, and their owners if it may run LOCKINFO for
//! them. Memory is that of one page, however many keys there are. The table is searched in steps, one
//! search at a time, and searches for all streams together take a small part of one processor.
//! Not here: single keys, changes.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::error::ApiError;
use super::live::{self, Frame, View};
use super::users::{Act, Caller, User};
use super::{HttpState, names};
use crate::domain::{LockName, Owner, Timestamp, Ttl};
use crate::engine::{Content, FoundKey, KeyKind, Scan, Unavailable};
use crate::lock::{Lease, Mode, Origin};

/// Keys on one page.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;
/// Entries of the table that are visited under one guard.
const ENTRIES_PER_STEP: usize = 256;
/// A stream rests after a search for this many times as long as it took, times the number of streams.
const REST: u32 = 20;
/// Time between two searches without any known change.
const SEARCH_AGAIN: Duration = Duration::from_secs(10);
/// Bytes of an owner that are shown.
const OWNER_BYTES_MAX: usize = 256;

/// By what a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// By key.
    Key,
    /// The latest grant first.
    Newest,
    /// Those that end next first.
    Ending,
    /// The longest queue first.
    Waiting,
}

impl Sort {
    /// The number by which a key is sorted, in ascending order and before its bytes.
    fn rank(self, found: &FoundKey<'_>) -> u64 {
        match self {
            Sort::Key => 0,
            Sort::Newest => u64::MAX - found.order().token.map_or(0, |token| token.get().unsigned_abs()),
            Sort::Ending => found.order().deadline.as_nanos(),
            Sort::Waiting => u64::MAX - found.order().waiters as u64,
        }
    }
}

/// A place in a sorted list.
type Position = (u64, Box<[u8]>);

/// What a request asks for.
#[derive(Debug, Clone)]
struct Query {
    database: u8,
    prefix: Vec<u8>,
    sort: Sort,
    /// The page begins behind this.
    after: Option<Position>,
    limit: usize,
}

impl Query {
    fn of(parts: &Parts) -> Result<Query, ApiError> {
        let sort = match names::query(parts, "sort")?.as_deref() {
            None | Some("key") => Sort::Key,
            Some("newest") => Sort::Newest,
            Some("ending") => Sort::Ending,
            Some("waiting") => Sort::Waiting,
            Some(_) => return Err(ApiError::invalid("sort is key, newest, ending or waiting")),
        };
        let limit = names::query(parts, "limit")?.map(|text| text.parse::<usize>().ok());
        let limit = limit.unwrap_or(Some(LIMIT_DEFAULT)).filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = limit.ok_or_else(|| ApiError::invalid(&format!("limit is 1 to {LIMIT_MAX}")))?;
        let after = names::query(parts, "after")?.map(|text| {
            let (rank, key) = text.split_once(':')?;
            Some((rank.parse().ok()?, names::unescape(key).into()))
        });
        let after = match after {
            Some(None) => return Err(ApiError::invalid("after is the next_page of another page")),
            after => after.flatten(),
        };
        let prefix = names::query(parts, "prefix")?.unwrap_or_default().into_bytes();
        Ok(Query { database: names::database(parts)?, prefix, sort, after, limit })
    }
}

/// Which keys are on the page.
#[derive(Debug, Default)]
struct Found {
    /// The positions of the page in order, and that of the key behind it.
    page: Vec<Position>,
    has_more: bool,
    total: usize,
    before: usize,
}

/// The kinds of keys that a user may list.
#[derive(Clone, Copy)]
struct Listed {
    locks: bool,
    values: bool,
}

impl Listed {
    fn by(user: &User) -> Result<Listed, ApiError> {
        let listed = Listed { locks: user.may_run("locks"), values: user.may_run("scan") };
        if !listed.locks && !listed.values {
            user.check("locks")?;
        }
        Ok(listed)
    }

    fn includes(self, kind: KeyKind) -> bool {
        match kind {
            KeyKind::Lock(_) => self.locks,
            KeyKind::Value(_) => self.values,
        }
    }
}

impl HttpState {
    /// Finds the keys of a page.
    async fn find(self: &Arc<Self>, query: &Query, user: &Arc<User>) -> Result<Found, ApiError> {
        static AT_ONCE: Semaphore = Semaphore::const_new(1);
        let turn = AT_ONCE.acquire().await.map_err(|_| ApiError::internal())?;
        let (shared, query, user, listed) =
            (Arc::clone(self), query.clone(), Arc::clone(user), Listed::by(user)?);
        let work = move || {
            let _turn = turn;
            let mut scan = Scan::new(query.database, 0, usize::MAX);
            let txn = shared.engine.txn();
            let (mut found, mut heap) = (Found::default(), BinaryHeap::<Position>::new());
            loop {
                let mut candidates = Vec::new();
                let scanned = txn.scan(&mut scan, ENTRIES_PER_STEP, |key| {
                    let is_shown = key.key().starts_with(&query.prefix)
                        && listed.includes(key.kind())
                        && user.may_list_key(key.key());
                    if is_shown {
                        candidates.push((query.sort.rank(key), Box::from(key.key())));
                    }
                });
                let scanned = match scanned {
                    Err(Unavailable::Unsettled | Unavailable::Busy) => continue,
                    scanned => scanned?,
                };
                if scanned.is_restarted {
                    (found, heap) = (Found::default(), BinaryHeap::new());
                }
                for position in candidates {
                    found.total += 1;
                    if query.after.as_ref().is_some_and(|after| position <= *after) {
                        found.before += 1;
                        continue;
                    }
                    heap.push(position);
                    if heap.len() > query.limit {
                        heap.pop();
                        found.has_more = true;
                    }
                }
                if scanned.is_done {
                    found.page = heap.into_sorted_vec();
                    return Ok::<_, Unavailable>((found, txn.finish()));
                }
            }
        };
        let (found, seq) = tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())??;
        self.engine.barrier(seq).await.map_err(|_| ApiError::internal())?;
        Ok(found)
    }

    /// Numbers that differ after a change that can change a list of keys.
    fn changes(&self) -> [u64; 12] {
        let (stats, values) = (self.engine.lock_stats(), self.engine.value_stats());
        let totals = stats.totals();
        [
            totals.grants,
            totals.repeats,
            totals.renewals,
            totals.releases,
            totals.session_ends,
            totals.expiries,
            totals.forced,
            totals.replaced,
            stats.waiting(),
            values.values(),
            values.expiries.read(),
            self.users.generation(),
        ]
    }

    /// Reads the keys of a page as they are now.
    async fn rows(&self, names: &[LockName]) -> Result<Vec<Row>, ApiError> {
        self.decide(|txn| {
            let mut rows = Vec::with_capacity(names.len());
            for name in names {
                let read = |content: &Content, _| content.kind().map(|kind| Row::of(name, kind, content));
                rows.extend(txn.read_key(name, read)?);
            }
            Ok(rows)
        })
        .await
    }
}

/// The holder of a lease, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// The first bytes.
    owner: Box<[u8]>,
    is_whole: bool,
    origin: Option<Arc<Origin>>,
}

/// The holder of a lease, as it is shown.
#[derive(Serialize)]
pub(super) struct HolderView {
    /// The pseudonym; `null` for a long string.
    id: Option<Uuid>,
    /// Percent-encoded; `null` for users who may not run LOCKINFO for the key, as are the next two.
    owner: Option<String>,
    address: Option<String>,
    client_name: Option<String>,
}

impl Holder {
    pub(super) fn of(owner: &Owner, origin: Option<&Arc<Origin>>) -> Holder {
        let bytes = owner.as_bytes();
        let shown = &bytes[..bytes.len().min(OWNER_BYTES_MAX)];
        Holder { owner: shown.into(), is_whole: shown.len() == bytes.len(), origin: origin.cloned() }
    }

    pub(super) fn view(&self, state: &HttpState, may_see: bool) -> HolderView {
        let owner = Owner::new(&self.owner).ok().filter(|_| self.is_whole);
        let origin = self.origin.as_deref().filter(|_| may_see);
        HolderView {
            id: owner.map(|owner| state.ids.holder(&owner)),
            owner: may_see.then(|| names::escape(&self.owner) + if self.is_whole { "" } else { "…" }),
            address: origin.map(|origin| origin.addr.clone()),
            client_name: origin.map(|origin| origin.client_name.clone()),
        }
    }
}

/// A key, at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: LockName,
    kind: KeyKind,
    token: i64,
    deadline: Timestamp,
    ttl: Option<Ttl>,
    renewals: u32,
    holders: usize,
    waiting: usize,
    newest: Option<Holder>,
}

#[derive(Serialize)]
struct RowView {
    key: String,
    kind: &'static str,
    fencing_token: i64,
    expires_at: Option<String>,
    ttl_ms: Option<u64>,
    renewals: u32,
    holders: usize,
    waiting: usize,
    /// The newest.
    holder: Option<HolderView>,
}

/// One page of the list.
#[derive(Serialize)]
struct KeysView {
    /// The time of the server at which this was the state.
    observed_at: String,
    total: usize,
    /// The number of keys on the pages before.
    before: usize,
    keys: Vec<RowView>,
    /// The parameter `after` of the next page; `null` on the last one.
    next_page: Option<String>,
}

pub(super) fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Lock(Mode::Exclusive) => "exclusive",
        KeyKind::Lock(Mode::Shared) => "shared",
        KeyKind::Lock(Mode::Limit(_)) => "limit",
        KeyKind::Value(kind) => kind.name(),
    }
}

impl Row {
    fn of(name: &LockName, kind: KeyKind, content: &Content) -> Row {
        let (lease, holders, waiting) = match content {
            Content::Lock(slot) => (slot.newest(), slot.holder_count(), slot.waiter_count()),
            Content::Value(_) => (None, 0, 0),
        };
        Row {
            name: name.clone(),
            kind,
            token: content.token().map_or(0, |token| token.get()),
            deadline: content.deadline().unwrap_or(Timestamp::NEVER),
            ttl: lease.and_then(|lease: &Lease| lease.effective_ttl),
            renewals: lease.map_or(0, |lease| lease.renewals),
            holders,
            waiting,
            newest: lease.map(|lease| Holder::of(&lease.owner, lease.origin.as_ref())),
        }
    }

    fn view(&self, state: &HttpState, user: &User) -> RowView {
        let may_see = user.may(Act::INSPECT, &self.name);
        RowView {
            key: names::escape(self.name.key()),
            kind: kind_name(self.kind),
            fencing_token: self.token,
            expires_at: (self.deadline != Timestamp::NEVER).then(|| state.format_time(self.deadline)),
            ttl_ms: self.ttl.map(Ttl::as_millis),
            renewals: self.renewals,
            holders: self.holders,
            waiting: self.waiting,
            holder: self.newest.as_ref().map(|holder| holder.view(state, may_see)),
        }
    }
}

/// A search, and what the server had done before it.
struct Search {
    found: Found,
    names: Vec<LockName>,
    at: Instant,
    took: Duration,
    changes: [u64; 12],
}

/// A page that follows the keys.
struct Keys {
    query: Query,
    search: Option<Search>,
    /// What was sent last: the rows, and who saw them.
    shown: Option<(Vec<Row>, usize, usize, u64)>,
}

impl Keys {
    fn new(query: Query) -> Keys {
        Keys { query, search: None, shown: None }
    }

    /// Whether the keys of the page may be others by now, and it is time to see.
    fn is_search_due(&self, state: &HttpState) -> bool {
        let Some(search) = &self.search else { return true };
        let streams = u32::try_from(state.streams.len()).unwrap_or(u32::MAX);
        let rest = search.took.saturating_mul(REST.saturating_mul(streams));
        let since = search.at.elapsed();
        since >= rest && (since >= SEARCH_AGAIN || state.changes() != search.changes)
    }

    async fn search(&mut self, state: &Arc<HttpState>, user: &Arc<User>) -> Result<(), ApiError> {
        let (start, changes) = (Instant::now(), state.changes());
        let found = state.find(&self.query, user).await?;
        let of_page = found.page.iter();
        let names = of_page.filter_map(|(_, key)| LockName::new(self.query.database, key).ok()).collect();
        self.search = Some(Search { found, names, at: Instant::now(), took: start.elapsed(), changes });
        Ok(())
    }

    fn view(&self, state: &HttpState, user: &User, rows: &[Row]) -> KeysView {
        let found = self.search.as_ref().map(|search| &search.found);
        let last = found.filter(|found| found.has_more).and_then(|found| found.page.last());
        KeysView {
            observed_at: state.format_time(state.engine.clock().now()),
            total: found.map_or(0, |found| found.total),
            before: found.map_or(0, |found| found.before),
            keys: rows.iter().map(|row| row.view(state, user)).collect(),
            next_page: last.map(|(rank, key)| format!("{rank}:{}", names::escape(key))),
        }
    }

    /// The rows that the user may see now.
    async fn rows(&self, state: &HttpState, user: &User) -> Result<Vec<Row>, ApiError> {
        let listed = Listed::by(user)?;
        let names = self.search.as_ref().map_or(&[][..], |search| &search.names);
        let mut rows = state.rows(names).await?;
        rows.retain(|row| listed.includes(row.kind) && user.may_list(&row.name));
        Ok(rows)
    }
}

impl View for Keys {
    async fn advance(
        &mut self,
        state: &Arc<HttpState>,
        user: &Arc<User>,
        frame: &mut Frame,
    ) -> Result<(), ApiError> {
        if self.is_search_due(state) {
            self.search(state, user).await?;
        }
        let rows = self.rows(state, user).await?;
        let (total, before) =
            self.search.as_ref().map_or((0, 0), |search| (search.found.total, search.found.before));
        let shown = Some((rows, total, before, state.users.generation()));
        if self.shown != shown {
            let rows = shown.as_ref().map_or(&[][..], |(rows, ..)| rows);
            frame.push("keys", &self.view(state, user, rows));
            self.shown = shown;
        }
        Ok(())
    }

    async fn once(mut self, state: &Arc<HttpState>, user: &Arc<User>) -> Result<Response, ApiError> {
        self.search(state, user).await?;
        let rows = self.rows(state, user).await?;
        Ok(live::json(&self.view(state, user, &rows)))
    }
}

pub(super) async fn list(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    let query = Query::of(&parts)?;
    let user = state.users.authenticate(Caller::of(&parts))?;
    Listed::by(&user)?;
    live::answer(state, &parts, user, Keys::new(query)).await
}
