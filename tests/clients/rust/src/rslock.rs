//! rslock over three servers.

use std::sync::Arc;
use std::time::Duration;

use redis::AsyncCommands;
use rslock::{Lock, LockError, LockManager};

use crate::support::{CriticalSection, connect, eventually, key, urls};

const TTL: Duration = Duration::from_secs(10);

/// A manager that tries once.
fn manager() -> LockManager {
    let mut manager = LockManager::new(urls());
    manager.set_retry(1, Duration::from_millis(10));
    manager
}

#[tokio::test]
async fn acquires_excludes_and_releases() {
    let (first, second, key) = (manager(), manager(), key());
    let lock = first.lock(key.as_bytes(), TTL).await.unwrap();
    assert!((9_000..10_000).contains(&lock.validity_time));
    assert!(!first.is_freed(&lock).await.unwrap());
    assert!(matches!(second.lock(key.as_bytes(), TTL).await, Err(LockError::Unavailable)));
    first.unlock(&lock).await;
    assert!(matches!(first.is_freed(&lock).await, Err(LockError::RedisKeyNotFound)));
    second.lock(key.as_bytes(), TTL).await.unwrap().release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_contend() {
    let (section, key) = (Arc::new(CriticalSection::default()), key());
    let workers = (0..4).map(|_| {
        let (section, key) = (Arc::clone(&section), key.clone());
        tokio::spawn(async move {
            let mut manager = LockManager::new(urls());
            manager.set_retry(1_000, Duration::from_millis(100));
            for _ in 0..3 {
                let guard = manager.acquire(key.as_bytes(), Duration::from_secs(30)).await.unwrap();
                section.visit().await;
                guard.release().await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert_eq!(section.visits(), 12);
}

#[tokio::test]
async fn extends() {
    let (manager, key) = (manager(), key());
    let lock = manager.lock(key.as_bytes(), Duration::from_secs(5)).await.unwrap();
    let lock = manager.extend(&lock, Duration::from_secs(20)).await.unwrap();
    let ttl: i64 = connect().await.pttl(&key).await.unwrap();
    assert!((19_000..=20_000).contains(&ttl), "{ttl}");
    lock.release().await;
}

#[tokio::test]
async fn refuses_to_release_and_to_extend_for_another() {
    let (manager, key) = (manager(), key());
    let lock = manager.lock(key.as_bytes(), TTL).await.unwrap();
    let stolen = Lock {
        resource: lock.resource.clone(),
        val: b"not its value".to_vec(),
        validity_time: lock.validity_time,
        lock_manager: manager.clone(),
    };
    assert!(matches!(manager.extend(&stolen, TTL).await, Err(LockError::Unavailable)));
    assert!(matches!(manager.is_freed(&stolen).await, Err(LockError::RedisKeyMismatch)));
    manager.unlock(&stolen).await;
    assert_eq!(connect().await.get::<_, Vec<u8>>(&key).await.unwrap(), lock.val);
}

#[tokio::test]
async fn expires() {
    let (first, second, key) = (manager(), manager(), key());
    let lock = first.lock(key.as_bytes(), Duration::from_millis(500)).await.unwrap();
    eventually(async || second.lock(key.as_bytes(), TTL).await.is_ok()).await;
    assert!(first.extend(&lock, TTL).await.is_err());
}

#[tokio::test]
async fn renews_while_a_routine_runs() {
    let (manager, key) = (manager(), key());
    let routine = async || {
        let mut connection = connect().await;
        let owner: Vec<u8> = connection.get(&key).await.unwrap();
        // Longer than the TTL.
        let end = tokio::time::Instant::now() + Duration::from_millis(1_500);
        while tokio::time::Instant::now() < end {
            assert_eq!(connection.get::<_, Vec<u8>>(&key).await.unwrap(), owner);
        }
    };
    manager.using(key.as_bytes(), Duration::from_millis(1_000), routine).await.unwrap();
    assert!(!connect().await.exists::<_, bool>(&key).await.unwrap());
}

#[tokio::test]
async fn a_minority_may_be_down() {
    let mut servers = urls();
    servers[2] = "redis://127.0.0.1:1".to_owned();
    let manager = LockManager::new(servers);
    manager.lock(key().as_bytes(), TTL).await.unwrap().release().await;
}
