//! Bounds the events from workers to control: a flood on many vifs must not delay link states, changes and new neighbours.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::worker::Event;

/// Queued events of the kind that repeats when it matters: unsolicited claims of neighbours.
const MOST_HEARSAY: usize = 8192;
/// Events that may wait in all, but for those of security associations.
const MOST: usize = 2 * MOST_HEARSAY;

/// Events under way from the workers to control.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Backlog {
    /// Takes room for these; leaves out what there is none for.
    pub fn enter(&self, events: &mut Vec<Event>) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let told = events.len();
        if waiting + told > MOST_HEARSAY {
            let full = waiting + told > MOST;
            events.retain(|event| match event {
                Event::Sa { .. } => true,
                Event::Needed { .. } | Event::PathMtu { .. } => !full,
                Event::Neighbour { claim, .. } => claim.is_answer() && !full,
            });
            self.lost.fetch_add((told - events.len()) as u64, Ordering::Relaxed);
        }
        self.waiting.fetch_add(events.len(), Ordering::Relaxed);
    }

    /// Control has taken in so many.
    pub fn leave(&self, events: usize) {
        self.waiting.fetch_sub(events, Ordering::Relaxed);
    }

    /// Events that were left out since the last call.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use offload_rules::{MacAddr, SaId, VifId};

    use super::*;
    use crate::worker::{NeighbourClaim, SaNews, Tenant};

    #[test]
    fn unsolicited_claims_are_shed_before_questions_and_sa_events_never() {
        let vif = VifId::new(1).unwrap();
        let neighbour = (vif, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let heard = Event::Neighbour { neighbour, claim: NeighbourClaim::Request { mac: MacAddr([2, 0, 0, 0, 0, 1]) } };
        let claim = NeighbourClaim::Advertisement { mac: None, solicited: true, replace: false };
        let answer = Event::Neighbour { neighbour, claim };
        let needed = Event::Needed { neighbour, tenant: Tenant::Vif(vif) };
        let sa = Event::Sa { sa: SaId::new(1).unwrap(), news: SaNews::Expiring };
        let backlog = Backlog::default();
        let told = |event: &Event, count: usize| {
            let mut events = vec![event.clone(); count];
            backlog.enter(&mut events);
            (events.len(), backlog.take_lost())
        };
        assert_eq!(told(&heard, MOST_HEARSAY), (MOST_HEARSAY, 0));
        assert_eq!(told(&heard, 1), (0, 1));
        assert_eq!(told(&answer, 1), (1, 0));
        assert_eq!(told(&needed, MOST - MOST_HEARSAY - 1), (MOST - MOST_HEARSAY - 1, 0));
        assert_eq!(told(&answer, 1), (0, 1));
        assert_eq!((told(&needed, 1), told(&sa, 1)), ((0, 1), (1, 0)));
        backlog.leave(MOST + 1);
        assert_eq!(told(&heard, 3), (3, 0));
    }
}
