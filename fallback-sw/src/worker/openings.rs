//! Connections that the node opens for clients which have come back with a SYN cookie.

use std::collections::{BTreeSet, HashMap};

use offload_rules::VifId;

use super::cookie::{self, Cookie};

/// A connection that the server has not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    pub(super) cookie: Cookie,
    /// The client's window.
    pub(super) window: u16,
    pub(super) tries: u8,
    pub(super) due: u64,
}

/// Connections that their servers have not answered yet, by slot of the client's direction.
#[derive(Debug, Default)]
pub(super) struct Openings {
    all: HashMap<u32, Opening>,
    due: BTreeSet<(u64, u32)>,
    /// By vif: until when an ACK may hold a cookie that was given on it.
    cookies_until: Vec<u64>,
}

impl Openings {
    pub(super) fn put(&mut self, slot: u32, opening: Opening) {
        self.remove(slot);
        self.due.insert((opening.due, slot));
        self.all.insert(slot, opening);
    }

    /// Forgets one, when its flow goes or the server has answered.
    pub(super) fn remove(&mut self, slot: u32) {
        if let Some(old) = self.all.remove(&slot) {
            self.due.remove(&(old.due, slot));
        }
    }

    /// A cookie was given on a vif.
    pub(super) fn give_cookie(&mut self, vif: VifId, now: u64) {
        if self.cookies_until.len() <= vif.index() {
            self.cookies_until.resize(vif.index() + 1, 0);
        }
        if let Some(until) = self.cookies_until.get_mut(vif.index()) {
            *until = now + cookie::VALID_MS;
        }
    }

    /// May an ACK on this vif hold a cookie?
    pub(super) fn may_hold_cookie(&self, vif: VifId, now: u64) -> bool {
        self.cookies_until.get(vif.index()).is_some_and(|until| now < *until)
    }

    /// The connection whose client's direction is in this slot.
    pub(super) fn get(&self, slot: u32) -> Option<Opening> {
        self.all.get(&slot).copied()
    }

    pub(super) fn next_due(&self, now: u64) -> Option<(u32, Opening)> {
        let (due, slot) = *self.due.first()?;
        let opening = *self.all.get(&slot)?;
        (due <= now).then_some((slot, opening))
    }
}
