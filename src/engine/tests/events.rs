//! Lock events.

use super::*;
use crate::engine::{Event, Interest, LeaseEvent};

fn leases(events: &[Event]) -> impl Iterator<Item = &LeaseEvent> {
    events.iter().map(|event| match event {
        Event::Lease(event) => event,
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn events_are_delivered_in_order_once_they_are_durable() {
    let faults = Arc::new(Faults::default());
    let backend = FaultyBackend::new(MemoryBackend::default(), Arc::clone(&faults));
    let engine = Engine::start(Box::new(backend), Clock::manual(), config()).unwrap();
    take(&engine, "unheard", request("a")).unwrap();
    engine.listen(Interest::Leases, true);
    let token = take(&engine, "k", request("a")).unwrap();
    engine.txn().submit(&name("k"), &Op::Force).unwrap();
    let Heard::Events(events) = engine.next_events(10).await else { panic!("none is lost") };
    let told: Vec<_> = leases(&events).map(|event| (event.kind.as_str(), event.token.get())).collect();
    assert_eq!(told, [("acquired", token), ("forced", token)]);
    let first = take(&engine, "k", request("a")).unwrap();
    set(&engine, "k", request("b"));
    let Heard::Events(events) = engine.next_events(10).await else { panic!("none is lost") };
    let told: Vec<_> = leases(&events).map(|event| (event.kind.as_str(), event.token.get())).collect();
    assert_eq!(told, [("acquired", first), ("replaced", first), ("acquired", first + 1)]);
    faults.fail_with(Some(JournalError::Full));
    let acquire = Op::Acquire { request: request("a"), wait: None };
    engine.txn().submit(&name("never"), &acquire).unwrap();
    assert_eq!(engine.barrier(engine.last()).await, Err(OutcomeUnknown));
    faults.fail_with(None);
    while engine.journal_down().is_some() {
        std::thread::yield_now();
    }
    take(&engine, "after", request("a")).unwrap();
    let Heard::Events(events) = engine.next_events(10).await else { panic!("none is lost") };
    let first = leases(&events).next().unwrap();
    assert_eq!(first.name, name("after"), "what failed did not happen");
}

#[tokio::test]
async fn the_event_queue_is_bounded_and_reports_lost_events() {
    let engine = Engine::start(Box::new(MemoryBackend::default()), Clock::manual(), config()).unwrap();
    engine.listen(Interest::Leases, true);
    let long = "k".repeat(1000);
    let renew = |count: usize| {
        let op = Op::Acquire { request: request("a"), wait: None };
        for _ in 0..count {
            engine.clock().advance_millis(1);
            engine.txn().submit(&name(&long), &op).unwrap();
        }
    };
    let events = &engine.core.events;
    renew(100);
    assert!(matches!(engine.next_events(64).await, Heard::Events(events) if events.len() == 64));
    assert!(matches!(engine.next_events(64).await, Heard::Events(events) if events.len() == 36));
    assert_eq!(events.bytes_queued(), 0);
    let fitting = crate::engine::events::QUEUE_BYTES_MAX / 1200;
    renew(fitting);
    assert!(events.bytes_queued() > crate::engine::events::QUEUE_BYTES_MAX / 2, "nothing is lost yet");
    renew(2 * fitting);
    assert!(events.bytes_queued() <= crate::engine::events::QUEUE_BYTES_MAX);
    assert_eq!(engine.next_events(64).await, Heard::Lost(3 * fitting as u64));
    renew(1);
    assert!(matches!(engine.next_events(64).await, Heard::Events(events) if events.len() == 1), "it goes on");
}
