//! The source of fencing tokens.
//!
//! Guarantees: every token is larger than all before it, through crashes and restarts. A reservation
//! is in the journal before every grant of a token under it, so it is durable before a token is
//! revealed, and a restart begins above it. Not here: clocks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::domain::{FencingToken, TOKEN_MAX};
use crate::journal::{Journal, Record, Seq};

/// Tokens reserved at once; the most that a crash skips.
const BLOCK: i64 = 32_768;

pub(super) struct Tokens {
    last: AtomicI64,
    reserved: AtomicI64,
    reservation: AtomicU64,
    reserving: Mutex<()>,
}

impl Tokens {
    /// Tokens start above `reserved`.
    pub(super) fn above(reserved: i64) -> Tokens {
        Tokens {
            last: AtomicI64::new(reserved),
            reserved: AtomicI64::new(reserved),
            reservation: AtomicU64::new(0),
            reserving: Mutex::new(()),
        }
    }

    /// Whether no token is left: after 2^53, some three hundred years at a million a second.
    pub(super) fn are_exhausted(&self) -> bool {
        self.last.load(Ordering::Relaxed) >= TOKEN_MAX - BLOCK
    }

    /// The next token. If the journal refuses the reservation it also refuses the grant that
    /// follows.
    pub(super) fn take(&self, journal: &Journal, epoch: u64) -> FencingToken {
        let token = self.last.fetch_add(1, Ordering::AcqRel) + 1;
        if token > self.reserved.load(Ordering::Acquire) {
            let guard = self.reserving.lock();
            if token > self.reserved.load(Ordering::Acquire) {
                let upto = token + BLOCK - 1;
                if let Ok(seq) = journal.append(epoch, [Record::TokensReserved(upto)]) {
                    self.reservation.store(seq.get(), Ordering::Release);
                    self.reserved.store(upto, Ordering::Release);
                }
            }
            drop(guard);
        }
        FencingToken::new(token.min(TOKEN_MAX)).unwrap_or_else(|_| unreachable!("tokens start above 0"))
    }

    /// The reservation that covers every token taken so far.
    pub(super) fn reservation(&self) -> Seq {
        Seq::from_u64(self.reservation.load(Ordering::Acquire))
    }

    /// The latest token taken, or what tokens start above.
    pub(super) fn last(&self) -> i64 {
        self.last.load(Ordering::Acquire)
    }

    /// Up to where tokens may be used.
    pub(super) fn reserved(&self) -> i64 {
        self.last.load(Ordering::Acquire).max(self.reserved.load(Ordering::Acquire))
    }

    /// Forgets reservations that may not be durable; tokens go on from the last one taken.
    pub(super) fn after_failure(&self) {
        self.reserved.store(0, Ordering::Release);
    }
}
