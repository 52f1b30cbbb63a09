//! Limits at and one past each boundary, and the representation of bytes.

use super::short_bytes::IN_PLACE_MAX;
use super::*;

#[test]
fn limits_hold_at_the_boundary_and_one_past_it() {
    assert!(LockName::new(15, &[0; KEY_BYTES_MAX]).is_ok());
    assert_eq!(LockName::new(16, b"k"), Err(Invalid::Database));
    let key_length = Invalid::KeyLength { min: 0, max: KEY_BYTES_MAX };
    assert!(LockName::new(0, b"").is_ok());
    assert_eq!(LockName::new(0, &[0; KEY_BYTES_MAX + 1]), Err(key_length));
    assert!(Owner::new(&vec![0; OWNER_BYTES_MAX]).is_ok());
    let owner_length = Invalid::OwnerLength { min: 0, max: OWNER_BYTES_MAX };
    assert!(Owner::new(b"").is_ok());
    assert_eq!(Owner::new(&vec![0; OWNER_BYTES_MAX + 1]), Err(owner_length));
    let ttl = Invalid::Ttl { max: TTL_MS_MAX };
    assert_eq!(Ttl::from_millis(0), Err(ttl));
    assert_eq!(Ttl::from_millis(1).map(Ttl::as_millis), Ok(1));
    assert_eq!(Ttl::from_millis(TTL_MS_MAX).map(Ttl::as_millis), Ok(TTL_MS_MAX));
    assert_eq!(Ttl::from_millis(TTL_MS_MAX + 1), Err(ttl));
    assert_eq!(Ttl::from_millis(u64::MAX), Err(ttl));
    assert_eq!(FencingToken::new(0), Err(Invalid::Token));
    assert!(FencingToken::new(TOKEN_MAX).is_ok());
    assert_eq!(FencingToken::new(TOKEN_MAX + 1), Err(Invalid::Token));
}

#[test]
fn configured_limits_hold_at_the_boundary_and_one_past_it() {
    let limits = Limits {
        ttl_ms_max: 500,
        ttl_ms_default: 500,
        key_bytes_max: 5,
        lock_key_bytes_max: 3,
        owner_bytes_max: 4,
        value_bytes_max: 6,
        ..Limits::default()
    };
    assert!(limits.lock_name(15, b"key").is_ok());
    assert_eq!(limits.lock_name(16, b"key"), Err(Invalid::Database));
    for key in [&b""[..], b"keys", &[0; KEY_BYTES_MAX + 1]] {
        assert_eq!(limits.lock_name(0, key), Err(Invalid::KeyLength { min: 1, max: 3 }));
    }
    assert!(limits.key(0, b"").is_ok() && limits.key(0, b"fives").is_ok());
    assert_eq!(limits.key(0, b"sixsix"), Err(Invalid::KeyLength { min: 0, max: 5 }));
    assert!(limits.value(b"").is_ok() && limits.value(b"sixsix").is_ok());
    assert_eq!(limits.value(b"sevense"), Err(Invalid::OwnerLength { min: 0, max: 6 }));
    assert!(limits.owner(b"four").is_ok());
    for owner in [&b""[..], b"fives"] {
        assert_eq!(limits.owner(owner), Err(Invalid::OwnerLength { min: 1, max: 4 }));
    }
    assert_eq!(limits.ttl(500), Ttl::from_millis(500));
    assert_eq!(limits.ttl_default(), limits.ttl(500));
    assert_eq!(
        (limits.ttl(0), limits.ttl(501)),
        (Err(Invalid::Ttl { max: 500 }), Err(Invalid::Ttl { max: 500 }))
    );
    assert_eq!((limits.ttl_at_most(499), limits.ttl_at_most(u64::MAX)), (limits.ttl(499), limits.ttl(500)));
}

#[test]
fn inline_and_boxed_bytes_compare_and_split_alike() {
    let all: Vec<u8> = (1..=2 * IN_PLACE_MAX as u8).collect();
    let mut before: Option<Owner> = None;
    for length in 1..=all.len() {
        let owner = Owner::new(&all[..length]).unwrap();
        assert_eq!((owner.as_bytes(), owner.clone()), (&all[..length], owner.clone()));
        assert_eq!(owner, Owner::new(&all[..length]).unwrap(), "made separately");
        assert!(before.is_none_or(|before| before < owner));
        let name = LockName::new(3, &all[..length]).unwrap();
        assert_eq!((name.database(), name.key()), (3, &all[..length]));
        before = Some(owner);
    }
}

#[test]
fn time_left_rounds_up_before_the_deadline() {
    let deadline = Timestamp::from_nanos(1_000_000);
    assert_eq!(deadline.millis_left(Timestamp::from_nanos(999_999)), Some(1));
    assert_eq!(deadline.millis_left(deadline), Some(0));
    assert_eq!(Timestamp::NEVER.millis_left(deadline), None);
}

#[test]
fn the_longest_ttl_ends_at_the_last_timestamp() {
    let longest = Ttl::from_millis(TTL_MS_MAX).ok();
    let deadline = Timestamp::from_nanos(1).after(longest);
    assert_eq!(deadline, Timestamp::LAST);
    assert_eq!(Timestamp::from_stored(deadline.to_stored()), Timestamp::LAST);
    assert!(deadline < Timestamp::NEVER);
    assert_eq!(Timestamp::from_nanos(1).before(longest), Timestamp::from_nanos(0));
}
