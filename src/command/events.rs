//! The delivery of the engine's events to connections.
//!
//! Guarantees: the work of one turn is bounded, however many events it delivers. Not here: where events
//! come from, and who delivers.

use super::steps::TURN_WORK;
use super::tracking::Invalidation;
use super::{Publication, ServerState};
use crate::engine::{Engine, Event};
use crate::glob::Work;

/// What deliveries may still do before other tasks run.
pub struct DeliveryTurn(Work);

impl Default for DeliveryTurn {
    fn default() -> DeliveryTurn {
        DeliveryTurn(Work::of_units(TURN_WORK))
    }
}

/// The delivery of an event, in steps.
pub enum Delivery {
    /// To the subscribers of a channel.
    Publication(Publication),
    /// To clients that cache keys.
    Invalidation(Invalidation),
}

impl Delivery {
    /// What an event delivers: a keyspace notification may go to two channels.
    pub fn of(event: &Event, engine: &Engine) -> Vec<Delivery> {
        match event {
            Event::Lease(event) => vec![Delivery::Publication(Publication::event(event))],
            Event::Notification { name, event } => {
                let all = Publication::notifications(engine.notifications(), name, event);
                all.map(Delivery::Publication).collect()
            }
            Event::Invalidation { name, client, number } => {
                let key = name.as_ref().map(|name| name.key());
                vec![Delivery::Invalidation(Invalidation::new(key, *client, *number))]
            }
        }
    }

    /// A message of the server to the subscribers of a channel.
    pub fn message(channel: &str, payload: &str) -> Delivery {
        Delivery::Publication(Publication::message(channel.as_bytes(), payload.as_bytes()))
    }

    /// Events were lost: all that clients cache may be out of date.
    pub fn after_loss() -> Delivery {
        Delivery::Invalidation(Invalidation::new(None, 0, 0))
    }

    /// Goes on. Returns whether the delivery is complete; if not, it needs another turn.
    pub fn advance(&mut self, server: &ServerState, turn: &mut DeliveryTurn) -> bool {
        match self {
            Delivery::Publication(publication) => {
                publication.advance_by(&server.pubsub, &mut turn.0).is_some()
            }
            Delivery::Invalidation(invalidation) => invalidation.advance(&server.tracking),
        }
    }
}
