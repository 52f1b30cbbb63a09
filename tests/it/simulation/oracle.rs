//! The oracle: what clients may rely on, compared with each other and with the server.

use std::sync::Arc;

use octostore::domain::SessionId;
use octostore::lock::Mode;

use super::disk::Fate;
use super::world::{KEYS, LONGEST_MS, World, name, owner};
use crate::linearizability::Call;

/// What a client may rely on.
#[derive(Clone, Debug)]
pub(super) struct Belief {
    pub(super) client: usize,
    pub(super) key: usize,
    pub(super) token: i64,
    pub(super) mode: Mode,
    pub(super) until_ms: u64,
    pub(super) hold_until_ms: u64,
    pub(super) session: Option<SessionId>,
}

impl World {
    /// What clients saw of each lock whose history can be checked.
    pub(crate) fn histories(&self) -> impl Iterator<Item = (&'static str, &[Call])> {
        KEYS.iter().zip(&self.calls).map(|((name, _), calls)| (*name, calls.as_slice()))
    }

    pub(super) fn forget_beliefs(&mut self, is_over: impl Fn(&Belief) -> bool) {
        self.beliefs.retain(|belief| !is_over(belief));
    }

    /// When a client can rely on its lease no more.
    pub(super) fn end_of(&self, belief: &Belief) -> u64 {
        let session = belief.session.map(|id| {
            let known = self.clients[belief.client].session.filter(|session| session.id == id);
            known.map_or(0, |session| session.until_ms)
        });
        belief.until_ms.min(session.unwrap_or(u64::MAX))
    }

    /// The server still has every lease that a client relies on, for at least as long.
    pub(super) fn look_at_beliefs(&mut self) -> Result<(), String> {
        if self.defect.is_some() {
            return Ok(());
        }
        self.say(|| "an observer looks".into());
        let engine = Arc::clone(&self.engine);
        let _one_commit = engine.one_commit();
        for belief in self.beliefs.clone() {
            let left = self.end_of(&belief).saturating_sub(self.now_ms);
            if left == 0 {
                continue;
            }
            let lease = engine.txn().read(&name(belief.key), |slot, now| {
                let lease = slot.lease_of(&owner(belief.client));
                lease.map(|lease| (lease.token.get(), lease.deadline.millis_left(now).unwrap_or(u64::MAX)))
            });
            let Ok(found) = lease else { continue };
            let limit = if belief.session.is_some() { 0 } else { left };
            let is_there = found.is_some_and(|(token, found)| token == belief.token && found >= limit);
            ensure(is_there, || {
                format!(
                    "client {} relies on token {} of {} for {left} ms, the server has {found:?}",
                    belief.client, belief.token, KEYS[belief.key].0
                )
            })?;
        }
        Ok(())
    }

    /// No two clients rely on the same lock at once.
    pub(super) fn check(&mut self) -> Result<(), String> {
        if self.defect.is_some() {
            return Ok(());
        }
        let now = self.now_ms;
        let valid: Vec<&Belief> = self.beliefs.iter().filter(|belief| self.end_of(belief) > now).collect();
        for (n, one) in valid.iter().enumerate() {
            for other in &valid[n + 1..] {
                ensure(one.key != other.key || one.mode.mixes_with(other.mode), || {
                    format!("{one:?} and {other:?} exclude each other")
                })?;
            }
            let holders = valid.iter().filter(|other| other.key == one.key).count();
            ensure(one.mode.capacity().is_none_or(|most| holders <= most as usize), || {
                format!("{holders} hold what {one:?} allows to fewer")
            })?;
        }
        Ok(())
    }

    /// Everyone goes, and time passes: nothing is left, in memory or on disk.
    pub(crate) fn end(&mut self) -> Result<(), String> {
        let engine = Arc::clone(&self.engine);
        let one_commit = engine.one_commit();
        for request in std::mem::take(&mut self.requests) {
            self.end_cut(request);
        }
        self.beliefs.clear();
        self.ghosts.clear();
        self.remove_values();
        drop(one_commit);
        for _ in 0..3 {
            self.now_ms += LONGEST_MS;
            self.clock.advance_millis(LONGEST_MS);
            {
                let _one_commit = self.engine.one_commit();
                self.engine.expire_due();
            }
            self.wait_for_journal();
            while self.disk.has_commit() {
                self.disk.decide(Fate::Kept);
                self.wait_for_journal();
            }
        }
        let (engine, stats) = (&self.engine, self.engine.lock_stats());
        let left = [
            stats.kept(),
            stats.waiting(),
            stats.keys(0),
            engine.deadlines() as u64,
            engine.sessions() as u64,
            self.disk.records(&format!("boot {}", self.boots)) as u64,
        ];
        ensure(self.defect.is_some() || left == [0; 6], || {
            format!("leases, waiters, keys, deadlines, sessions and records are left: {left:?}")
        })
    }
}

/// Things are so, or the simulation has found something.
pub(super) fn ensure(is_so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what()) }
}
