//! Gateways in use are watched closely, so that what they carry moves on within seconds when one is dead.
//!
//! The neighbour cache finds out within half a minute that a neighbour is gone (RFC 4861 §7.3), which is soon enough for a station:
//! nobody else can take its packets. A gateway takes the packets of many destinations, a composite may have another one for them, and
//! a NIC forwards to it without any software seeing the packets. So each gateway that a nexthop names is asked every three seconds,
//! at its MAC (RFC 1122 §2.3.2.1 "unicast poll"); what the cache does by itself stays as it is. A gateway that is found dead here keeps
//! its MAC until the cache gives it up: packets that have no other way still go there, in case it only answers no questions.
//!
//! Pure: no I/O, and time is a parameter.

use std::collections::{BTreeMap, BTreeSet};

use offload_rules::forwarding::GatewayState;

use super::neighbours::{
    Neighbours,
    nud::{Poll, Question, RETRANS_MS, State, UNICAST_SOLICITS},
};
use crate::worker::NeighbourKey;

/// Milliseconds between an answer and the next question.
pub const POLL_MS: u64 = 3_000;
/// Milliseconds between two questions to all for a dead gateway whose MAC is known: it may have another one by now.
const RETRY_MS: u64 = 2_000;
/// Questions sent in one tick; further ones wait for the next.
const MAX_QUESTIONS: usize = 64;

/// Something that was found out about a gateway.
pub type GatewayChange = (NeighbourKey, GatewayState);

/// One gateway.
///
/// ```text
///             3 questions without answer, or the cache gives it up
///   Alive ───────────────────────────────────────────────────────► Dead
///     ▲                             it answers                      │
///     └─────────────────────────────────────────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy)]
struct Watch {
    state: GatewayState,
    /// Questions since the last answer.
    asked: u8,
    /// When the last one was sent.
    asked_at: u64,
    /// When the next one is due.
    due: u64,
}

/// The gateways that are watched.
#[derive(Debug, Default)]
pub struct Gateways {
    watches: BTreeMap<NeighbourKey, Watch>,
    due: BTreeSet<(u64, NeighbourKey)>,
}

impl Gateways {
    /// Watches exactly these, which the cache [keeps](Neighbours::keep). Of one that is not watched any longer nothing is said. That one
    /// is dead is said again: the snapshot has forgotten it if its vif was away in between.
    pub fn watch(&mut self, wanted: &BTreeSet<NeighbourKey>, now: u64) -> Vec<GatewayChange> {
        let mut news = Vec::new();
        let due = &mut self.due;
        self.watches.retain(|key, watch| {
            let stays = wanted.contains(key);
            if !stays {
                due.remove(&(watch.due, *key));
                news.push((*key, GatewayState::Alive));
            } else if watch.state == GatewayState::Dead {
                news.push((*key, GatewayState::Dead));
            }
            stays
        });
        for key in wanted {
            self.watches.entry(*key).or_insert_with(|| {
                // The cache asks for it first.
                let due = now.saturating_add(POLL_MS);
                self.due.insert((due, *key));
                Watch { state: GatewayState::Alive, asked: 0, asked_at: now, due }
            });
        }
        news
    }

    /// Lets time pass: questions that are due go to `ask`.
    pub fn tick(
        &mut self,
        cache: &mut Neighbours,
        now: u64,
        ask: &mut Vec<(NeighbourKey, Question)>,
    ) -> Vec<GatewayChange> {
        let ripe = self.due.iter().take_while(|(due, _)| *due <= now).take(MAX_QUESTIONS);
        let ripe: Vec<_> = ripe.map(|(_, key)| *key).collect();
        let mut news = Vec::new();
        for key in ripe {
            news.extend(self.time_over(key, cache, now, ask));
        }
        news
    }

    fn time_over(
        &mut self,
        key: NeighbourKey,
        cache: &mut Neighbours,
        now: u64,
        ask: &mut Vec<(NeighbourKey, Question)>,
    ) -> Option<GatewayChange> {
        let watch = self.watches.get(&key)?;
        match cache.state(key) {
            // The cache asks for it, and tells when it gives up.
            None | Some(State::Incomplete | State::Unreachable) => {
                self.update(key, |watch| watch.due = now.saturating_add(POLL_MS));
                None
            }
            Some(_) if watch.asked < UNICAST_SOLICITS => {
                ask.extend(cache.poll(key, Poll::Station, now).map(|question| (key, question)));
                self.update(key, |watch| {
                    watch.asked += 1;
                    (watch.asked_at, watch.due) = (now, now.saturating_add(RETRANS_MS));
                });
                None
            }
            Some(_) => {
                ask.extend(cache.poll(key, Poll::Everybody, now).map(|question| (key, question)));
                self.update(key, |watch| (watch.asked_at, watch.due) = (now, now.saturating_add(RETRY_MS)));
                self.is_now(key, GatewayState::Dead)
            }
        }
    }

    /// A neighbour has told something: was it the answer of a gateway?
    pub fn told(&mut self, key: NeighbourKey, cache: &Neighbours, now: u64) -> Option<GatewayChange> {
        let watch = self.watches.get(&key)?;
        if cache.answered_since(key, watch.asked_at) {
            self.update(key, |watch| (watch.asked, watch.due) = (0, now.saturating_add(POLL_MS)));
            return self.is_now(key, GatewayState::Alive);
        }
        if watch.state == GatewayState::Dead {
            // It is heard of, so it is asked at once; not more often than once a second.
            self.update(key, |watch| watch.due = watch.due.min(now.max(watch.asked_at.saturating_add(RETRANS_MS))));
        }
        None
    }

    /// The cache has given a neighbour up.
    pub fn lost(&mut self, key: NeighbourKey) -> Option<GatewayChange> {
        self.is_now(key, GatewayState::Dead)
    }

    fn is_now(&mut self, key: NeighbourKey, state: GatewayState) -> Option<GatewayChange> {
        let watch = self.watches.get_mut(&key)?;
        (std::mem::replace(&mut watch.state, state) != state).then_some((key, state))
    }

    fn update(&mut self, key: NeighbourKey, change: impl FnOnce(&mut Watch)) {
        let Some(watch) = self.watches.get_mut(&key) else { return };
        self.due.remove(&(watch.due, key));
        change(watch);
        self.due.insert((watch.due, key));
    }
}

#[cfg(test)]
mod tests;
