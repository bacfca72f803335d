//! The stage that decides on packets which cannot simply run a program, with the parts that it takes.

use super::{
    counters::Counters, env::Env, flow_state::FlowState, hit::SlowPath, ipsec::Ipsec, limits::Limits, outcome::Emit,
    respond::Responder, routed::Routed,
};

/// The stage that decides on packets which cannot simply run a program.
pub(super) struct Decider<'a> {
    pub(super) env: &'a Env,
    pub(super) state: &'a mut FlowState,
    pub(super) routed: &'a mut Routed,
    /// Which ESP was sent, for errors that quote it.
    pub(super) ipsec: &'a Ipsec,
    pub(super) limits: &'a mut Limits,
    pub(super) counters: &'a mut Counters,
    pub(super) emit: Emit<'a>,
}

/// A packet as the look-up has left it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookedUp {
    /// Why it does not simply run a program.
    pub(super) why: SlowPath,
    /// Slot of its flow, where `why` is about that.
    pub(super) slot: u32,
    /// Hash of its key.
    pub(super) hash: u64,
}

impl Decider<'_> {
    /// What answers packets in the node's name.
    pub(super) fn responder(&mut self) -> Responder<'_> {
        Responder {
            env: self.env,
            limits: &mut *self.limits,
            counters: &mut *self.counters,
            emit: self.emit.reborrow(),
        }
    }
}
