//! Hairpin queues: what a rule puts into a receive queue of one port leaves by another's transmit queue, through that port's rules of
//! egress, with its metadata (ethdev guide, "Hairpin queue"; rte_flow guide, item META).

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::PortId;
use super::frame::Frame;
use super::nic::Nic;
use super::pipeline::{Disposition, DropReason, Outcome, Walk};
use super::table::Domain;

/// Receive queues that are hairpins, and the port that each leads to; `None`: not bound.
#[derive(Debug, Default)]
pub(crate) struct Hairpins(BTreeMap<(PortId, u16), Option<PortId>>);

impl Hairpins {
    /// `None`: an ordinary queue.
    pub(crate) fn of(&self, port: PortId, queue: u16) -> Option<Option<PortId>> {
        self.0.get(&(port, queue)).copied()
    }

    /// The queue of software that a hash falls on, of so many queues in all.
    pub(crate) fn spread(&self, port: PortId, queues: u16, hash: u32) -> u16 {
        if self.0.range((port, 0)..=(port, u16::MAX)).next().is_none() {
            return (hash % u32::from(queues.max(1))) as u16;
        }
        let ordinary: Vec<u16> = (0..queues).filter(|queue| self.of(port, *queue).is_none()).collect();
        ordinary.get(hash as usize % ordinary.len().max(1)).copied().unwrap_or(0)
    }
}

impl Nic {
    /// This receive queue is a hairpin, bound to a transmit queue of `to`, or not bound.
    pub fn set_hairpin(&mut self, port: PortId, queue: u16, to: Option<PortId>) {
        self.hairpins.0.insert((port, queue), to);
    }

    /// The port is configured anew: all of its queues are ordinary, and nothing leads to it.
    pub fn forget_hairpins(&mut self, port: PortId) {
        self.hairpins.0.retain(|(own, _), _| *own != port);
        self.unbind_hairpins(port);
    }

    /// The port stops: nothing leads to it or from it.
    pub fn unbind_hairpins(&mut self, port: PortId) {
        for ((own, _), to) in &mut self.hairpins.0 {
            if *own == port || *to == Some(port) {
                *to = None;
            }
        }
    }

    /// A packet that a rule has put into a hairpin queue.
    pub(crate) fn hairpin(&mut self, to: Option<PortId>, walk: &mut Walk, frame: &mut Frame, now: Duration) -> Outcome {
        let Some(port) = to.filter(|port| self.ports.contains_key(port)) else {
            self.stats.dropped += 1;
            return Outcome::Drop(DropReason::Unbound);
        };
        // Metadata goes along; tags of rules are of the one domain.
        walk.sent_from(port);
        let disposition = match self.run(Domain::Egress(port), walk, frame, now) {
            Disposition::Default => Disposition::Wire(port),
            disposition => disposition,
        };
        self.finish(port, walk, frame, disposition, now)
    }
}
