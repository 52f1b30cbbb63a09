//! Rules that span both kinds of content: what an operation on a lock means for a value, and when a
//! value may take the place of a lock.
//!
//! Guarantees: DEL, EXPIRE, PERSIST and a SET without a condition on the owner act on any kind of
//! key; everything else that is meant for a lock is refused. Not here: how changes are carried out.

use super::content::Content;
use crate::domain::{Timestamp, Ttl};
use crate::lock::{Op, Outcome, Refusal, Request, SetCondition};

/// What an operation on a lock means for a key that holds a value.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) enum OnValue<'a> {
    /// It is an error: WRONGTYPE.
    Refuse,
    /// Nothing changes.
    Keep(Outcome),
    /// The value goes.
    Delete,
    /// The value goes, and the key is locked as the request says.
    Replace {
        request: &'a Request,
        /// The new lease ends when the value would have ended.
        keep_ttl: bool,
    },
    /// The value gets this TTL; `None`: it does not end by itself.
    SetTtl(Option<Ttl>),
}

impl OnValue<'_> {
    pub(in crate::engine) fn of(op: &Op) -> OnValue<'_> {
        match op {
            Op::Delete { if_owner: None } => OnValue::Delete,
            Op::SetTtl { ttl } => OnValue::SetTtl(*ttl),
            Op::Set { request, condition: SetCondition::Always | SetCondition::IfHeld, keep_ttl } => {
                OnValue::Replace { request, keep_ttl: *keep_ttl }
            }
            Op::Set { condition: SetCondition::IfFree, .. } => {
                OnValue::Keep(Outcome::Refused(Refusal::Condition))
            }
            // What these concern ended before the value took its place.
            Op::RevertGrant { .. } | Op::CancelWait { .. } => OnValue::Keep(Outcome::NotHeld),
            Op::EndSession { .. } => OnValue::Keep(Outcome::Released(0)),
            Op::Set { condition: SetCondition::IfOwner(_), .. }
            | Op::Delete { if_owner: Some(_) }
            | Op::Acquire { .. }
            | Op::Release { .. }
            | Op::Renew { .. }
            | Op::Force
            | Op::Inspect => OnValue::Refuse,
        }
    }
}

/// Whether a value may replace this content: another value, or a string, which is a lock held
/// exclusively without extras and without a queue. Holders and waiters of other locks asked for
/// more than a string promises.
pub(in crate::engine) fn is_replaceable(content: &Content) -> bool {
    match content {
        Content::Lock(slot) => slot.is_vacant() || slot.plain_lease().is_some(),
        Content::Value(_) => true,
    }
}

/// The TTL that ends at `deadline`, rounded up to a millisecond so that nothing ends early.
pub(in crate::engine) fn ttl_until(deadline: Timestamp, now: Timestamp) -> Option<Ttl> {
    deadline.millis_left(now).and_then(|millis| Ttl::from_millis(millis.max(1)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Owner, SessionId, WaiterId};
    use crate::lock::{Delay, Slot};

    fn owner() -> Owner {
        Owner::new(b"o").unwrap()
    }

    fn set(condition: SetCondition) -> Op {
        Op::Set { request: Request::exclusive(owner(), None), condition, keep_ttl: true }
    }

    #[test]
    fn only_operations_on_any_kind_of_key_touch_a_value() {
        let ttl = Ttl::from_millis(5).ok();
        let request = Request::exclusive(owner(), None);
        let token = None;
        for (op, expected) in [
            (Op::Delete { if_owner: None }, OnValue::Delete),
            (Op::SetTtl { ttl }, OnValue::SetTtl(ttl)),
            (set(SetCondition::Always), OnValue::Replace { request: &request, keep_ttl: true }),
            (set(SetCondition::IfHeld), OnValue::Replace { request: &request, keep_ttl: true }),
            (set(SetCondition::IfFree), OnValue::Keep(Outcome::Refused(Refusal::Condition))),
            (set(SetCondition::IfOwner(owner())), OnValue::Refuse),
            (Op::Delete { if_owner: Some(owner()) }, OnValue::Refuse),
            (Op::Acquire { request: request.clone(), wait: None }, OnValue::Refuse),
            (Op::Release { owner: owner(), token }, OnValue::Refuse),
            (Op::Renew { owner: owner(), ttl: None, token }, OnValue::Refuse),
            (Op::Force, OnValue::Refuse),
            (Op::Inspect, OnValue::Refuse),
            (Op::EndSession { session: SessionId(1), clean: true }, OnValue::Keep(Outcome::Released(0))),
            (Op::CancelWait { waiter: WaiterId(1), owner: owner() }, OnValue::Keep(Outcome::NotHeld)),
        ] {
            assert_eq!(OnValue::of(&op), expected, "{op:?}");
        }
    }

    #[test]
    fn a_lock_that_rests_keeps_its_place() {
        let mut slot = Slot::default();
        assert!(is_replaceable(&Content::Lock(slot.clone())));
        let length = Ttl::from_millis(1).unwrap();
        slot.restore_delay(Delay { until: Timestamp::NEVER, length });
        assert!(!is_replaceable(&Content::Lock(slot)));
    }
}
