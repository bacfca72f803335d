//! May a packet run its flow's program at once, and if not, why?

use super::{flows::flag, ingress::Context};
use crate::{exec, flow_table::Record};

/// Why a packet takes the slow path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlowPath {
    /// No flow has its key.
    Miss,
    /// It needs more than its flow's program whatever that is: a fragment, an ICMP error, TCP flags, a walk of its own.
    Special,
    /// The flow has no program, or something that its program depends on has changed.
    StaleProgram,
    /// It comes out of another tunnel, or by another underlay vif, than the last packet of its flow.
    IngressMoved,
    /// TCP's state machine has to see it.
    TcpControl,
    /// The program says so.
    Plan(exec::Exception),
}

impl From<exec::Exception> for SlowPath {
    fn from(exception: exec::Exception) -> Self {
        Self::Plan(exception)
    }
}

/// Is the packet one of this record's flow, and has no change concerned the flow by its addresses? Whether its program is current,
/// the program tells.
///
/// # Errors
/// [`SlowPath::Miss`], [`SlowPath::StaleProgram`], [`SlowPath::IngressMoved`].
#[inline(always)]
pub(super) fn admit(record: &Record, context: &Context) -> Result<(), SlowPath> {
    // An earlier packet of the batch may have changed the table.
    if !crate::flow_table::same_key(&record.key, &context.key) {
        return Err(SlowPath::Miss);
    }
    if record.flags & flag::STALE != 0 {
        return Err(SlowPath::StaleProgram);
    }
    if comes_as_before(record, context) { Ok(()) } else { Err(SlowPath::IngressMoved) }
}

/// Does the packet come out of the tunnel that the last one of its flow came out of, by the same underlay vif?
#[inline(always)]
pub(super) fn comes_as_before(record: &Record, context: &Context) -> bool {
    context
        .outer
        .is_none_or(|outer| record.rpf_source == outer.source.octets() && record.underlay_vif == context.vif.get())
}
