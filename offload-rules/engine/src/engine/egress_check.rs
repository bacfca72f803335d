//! Finds shapes whose packets the NIC counts and does not send: such a rule is not honoured either. rdma-core, for one, takes a rule from
//! wire to wire, counts its packets and drops them.
//!
//! For each port, what rules that lead to it have counted is compared with what the port has transmitted. The port's counter has
//! software's packets too, so a fault may hide behind them; where a port has no counter, nothing is suspected. Counters of rules are late
//! by the NIC's refresh interval, so that transmitted packets are summed over one window more than counted ones.

use std::collections::{BTreeMap, VecDeque};

use offload_rules::{
    VifId,
    lower::{Action, NotOffloaded, Rule},
};

use super::{Engine, rules::ShapeIndex};
use crate::{Lowering, RuleBackend};

/// Windows of the counters' interval that one judgement covers.
const WINDOWS: usize = 4;
/// Fewer packets than this say nothing.
const MIN_PACKETS: u64 = 100;

/// The port that a rule's packets leave by.
pub(super) fn egress_of(rule: &Rule) -> Option<VifId> {
    rule.actions.iter().find_map(|action| match action {
        Action::Port(vif) | Action::Hairpin(vif) => Some(*vif),
        _ => None,
    })
}

/// What rules have counted and the port has sent in one window.
#[derive(Debug, Clone, Copy)]
struct Window {
    counted: u64,
    sent: u64,
}

/// One port.
#[derive(Debug, Default)]
struct PortWatch {
    /// Packets counted in this window.
    counted: u64,
    /// The same by shape, since the port was judged last.
    shapes: BTreeMap<ShapeIndex, u64>,
    /// The last one at the end: one more than is judged.
    windows: VecDeque<Window>,
    since: usize,
    /// What had left at the end of the last window.
    left: Option<u64>,
    /// Judgements in a row that it lacks packets.
    lacking: u32,
}

impl PortWatch {
    /// Ends a window, with the port's counter of transmitted packets; `None`: the port has none. Returns the shapes whose packets do
    /// not leave, once that was found `times` times in a row.
    fn end_window(&mut self, left: Option<u64>, times: u32) -> Vec<ShapeIndex> {
        let counted = std::mem::take(&mut self.counted);
        let before = std::mem::replace(&mut self.left, left);
        let (Some(left), Some(before)) = (left, before) else {
            *self = Self { left, ..Self::default() };
            return Vec::new();
        };
        self.windows.push_back(Window { counted, sent: left.saturating_sub(before) });
        if self.windows.len() > WINDOWS + 1 {
            self.windows.pop_front();
        }
        self.since += 1;
        if self.since < WINDOWS {
            return Vec::new();
        }
        self.since = 0;
        let shapes = std::mem::take(&mut self.shapes);
        let left: u64 = self.windows.iter().map(|window| window.sent).sum();
        let counted: u64 = self.windows.iter().rev().take(WINDOWS).map(|window| window.counted).sum();
        let missing = counted.saturating_sub(left);
        // Half, since a port that is overrun loses some, too.
        self.lacking = if counted >= MIN_PACKETS && missing >= counted.div_ceil(2) { self.lacking + 1 } else { 0 };
        if self.lacking < times {
            return Vec::new();
        }
        self.lacking = 0;
        // One that has counted more than is missing has had packets leave.
        shapes.into_iter().filter(|(_, counted)| *counted <= missing + missing / 8).map(|(shape, _)| shape).collect()
    }
}

/// All ports that rules have led to.
#[derive(Debug, Default)]
pub(super) struct EgressCheck {
    ports: BTreeMap<VifId, PortWatch>,
    due: u64,
}

impl EgressCheck {
    /// A rule whose packets leave by this port has counted these.
    pub(super) fn counted(&mut self, port: Option<VifId>, shape: Option<ShapeIndex>, packets: u64) {
        let (Some(port), Some(shape)) = (port, shape.filter(|_| packets > 0)) else { return };
        let watch = self.ports.entry(port).or_default();
        watch.counted += packets;
        *watch.shapes.entry(shape).or_default() += packets;
    }

    /// The NIC has lost its rules.
    pub(super) fn forget(&mut self) {
        self.ports.clear();
    }
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// Ends the window when its time is over, and condemns shapes whose packets do not leave.
    pub(super) fn check_egress(&mut self, now: u64) {
        let times = self.config.egress_checks;
        if times == 0 || self.egress_check.due > now {
            return;
        }
        self.egress_check.due = now + self.query_interval();
        let mut dead = Vec::new();
        for (port, watch) in &mut self.egress_check.ports {
            for index in watch.end_window(self.backend.transmitted(*port), times) {
                let Some(shape) = self.shapes.get_mut(index).filter(|shape| shape.refused.is_none()) else { continue };
                tracing::error!(
                    shape = %shape.shape, %port,
                    "the NIC counts packets of this shape and does not send them: their flows go back to software"
                );
                (shape.refused, shape.proven) = (Some(NotOffloaded::NotHonoured), false);
                dead.push(index);
            }
        }
        if !dead.is_empty() {
            self.withdraw_shapes(&dead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [ShapeIndex; 0] = [];

    /// Looks at a port in windows of so many packets of shapes 0 and 1, of which so many leave.
    fn seen(windows: &[([u64; 2], u64)]) -> Vec<ShapeIndex> {
        let mut watch = PortWatch::default();
        let mut total = 7;
        let mut dead = watch.end_window(Some(total), 2);
        for ([one, two], left) in windows {
            for (shape, packets) in [(0, one), (1, two)].into_iter().filter(|(_, packets)| **packets > 0) {
                watch.counted += packets;
                *watch.shapes.entry(shape).or_default() += packets;
            }
            total += left;
            dead.extend(watch.end_window(Some(total), 2));
        }
        dead
    }

    #[test]
    fn what_is_counted_and_never_leaves_is_found_in_two_rounds() {
        assert_eq!(seen(&[([100, 0], 3); 4]), NONE, "once is not enough");
        assert_eq!(seen(&[([100, 0], 3); 8]), [0]);
    }

    #[test]
    fn a_shape_whose_packets_leave_is_not_condemned_with_another() {
        assert_eq!(seen(&[([100, 400], 380); 8]), NONE, "a fifth is lost: a port may be overrun");
        assert_eq!(seen(&[([400, 100], 100); 8]), [0, 1], "either may be the one: software is always right");
        assert_eq!(seen(&[([100, 900], 300); 8]), [0], "so much of the other can't be missing");
    }

    #[test]
    fn late_counters_and_software_s_packets_look_like_no_loss() {
        let honoured = [([100, 0], 100); 8];
        assert_eq!(seen(&honoured), NONE);
        // Everything has left a window before it was counted, and then there is nothing more.
        let mut late = vec![([0, 0], 4000)];
        late.extend([([4000, 0], 0), ([0, 0], 0), ([0, 0], 0), ([0, 0], 0), ([0, 0], 0), ([0, 0], 0), ([0, 0], 0)]);
        assert_eq!(seen(&late), NONE);
        assert_eq!(seen(&[([10, 0], 0); 8]), NONE, "too few to tell");
        assert_eq!(seen(&[([100, 0], 1000); 8]), NONE, "software sends by the port, too");
    }

    #[test]
    fn a_port_that_does_not_tell_is_suspected_of_nothing() {
        let mut watch = PortWatch::default();
        for _ in 0..20 {
            watch.counted += 1000;
            *watch.shapes.entry(0).or_default() += 1000;
            assert_eq!(watch.end_window(None, 1), NONE);
        }
    }
}
