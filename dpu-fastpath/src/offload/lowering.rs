//! What the engine asks of lowering: rules for directions, and the shapes that they have.

use std::fmt::{Debug, Display};

use offload_rules::{
    VifId,
    forwarding::Snapshot,
    lower::{Direction, NicProfile, Rule, Shape, Unsupported, canary, lower, partial, priority, proactive},
};

/// Turns directions into rules. The engine learns which shapes a NIC refuses; it never looks into a rule.
pub trait Lowering: Send {
    /// What rules with the same items, masks and kinds of actions have in common.
    type Shape: Clone + Ord + Debug + Display + Send;

    /// Name of the NIC's profile.
    fn name(&self) -> &str;

    /// Milliseconds between two readings of a counter that can differ; 0: any time.
    fn refresh_ms(&self) -> u64;

    /// Rules that the NIC holds, where that is known.
    fn capacity(&self) -> Option<usize>;

    /// Rules to try at start, each with the shape that it stands for: few, since flows wait for them. They match no real packet. None
    /// as long as there is no port.
    fn canaries(&self, snapshot: &Snapshot) -> Vec<(Self::Shape, Rule)>;

    /// Rules that do not belong to a flow: steering of packets to the tables of flows.
    fn proactive(&self, snapshot: &Snapshot) -> Vec<Rule>;

    /// The rule that forwards or drops a direction in the NIC.
    ///
    /// # Errors
    /// The NIC, or the program, does not allow it.
    fn full(
        &self,
        snapshot: &Snapshot,
        direction: &Direction,
        priority: u32,
    ) -> Result<(Rule, Self::Shape), Unsupported>;

    /// The rule that marks a direction's packets with `mark`, and puts them into the queue `queue`. It may have a priority of its own.
    ///
    /// # Errors
    /// The NIC does not allow even that.
    fn partial(
        &self,
        snapshot: &Snapshot,
        direction: &Direction,
        priority: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Rule, Self::Shape), Unsupported>;
}

impl Lowering for NicProfile {
    type Shape = Shape;

    fn name(&self) -> &str {
        self.name
    }

    fn refresh_ms(&self) -> u64 {
        self.limits.counter_refresh_ms.value.into()
    }

    fn capacity(&self) -> Option<usize> {
        self.limits.rules.value.map(|rules| rules as usize)
    }

    fn canaries(&self, snapshot: &Snapshot) -> Vec<(Shape, Rule)> {
        let ports: Vec<VifId> =
            snapshot.vifs().filter(|vif| vif.kind.port().is_some()).map(|vif| vif.id).take(2).collect();
        let (Some(ingress), Some(egress)) = (ports.first(), ports.last()) else { return Vec::new() };
        // What the profile refuses by itself is not asked.
        Shape::representatives()
            .filter_map(|shape| Some((shape, canary(&shape, self, [*ingress, *egress]).ok()?)))
            .collect()
    }

    fn proactive(&self, snapshot: &Snapshot) -> Vec<Rule> {
        proactive(snapshot, self)
    }

    fn full(&self, _: &Snapshot, direction: &Direction, priority: u32) -> Result<(Rule, Shape), Unsupported> {
        let rule = lower(direction, self, priority == priority::FLOW_ALTERNATE)?;
        Ok((rule, Shape::of(direction)))
    }

    fn partial(
        &self,
        _: &Snapshot,
        direction: &Direction,
        _: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Rule, Shape), Unsupported> {
        Ok((partial(direction, mark, queue, self)?, Shape::of_partial(direction)))
    }
}
