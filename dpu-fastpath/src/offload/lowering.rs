//! What the engine asks of lowering: rules for directions, and the shapes that they have.

use std::fmt::{Debug, Display};

use offload_rules::{
    forwarding::Snapshot,
    lower::{Direction, Rule, Unsupported},
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

    /// Rules to try at start, each with the shape that it stands for. They match no real packet.
    fn canaries(&self) -> Vec<(Self::Shape, Rule)>;

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

    /// The rule that marks a direction's packets with `mark`, and puts them into the queue `queue`.
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
