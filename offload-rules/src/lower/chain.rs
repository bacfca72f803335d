//! A rule with the rules that it relies on.

use super::{Action, Rule};

/// A rule of a flow or for transit, and what must be in the NIC for it to be right: earlier stages that its packets come through, a
/// later one that finishes what it begins.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// In the order of creation: each is in the NIC before the next is created, the last of them before [`Self::rule`]. They leave in
    /// the reverse order. Equal rules of several chains are one rule in the NIC.
    pub needs: Vec<Rule>,
    /// The flow's own: it counts. For transit, the one that admits or forwards; of these only the latter counts.
    pub rule: Rule,
}

impl From<Rule> for Chain {
    /// A rule that relies on no other.
    fn from(rule: Rule) -> Self {
        Self { needs: Vec::new(), rule }
    }
}

impl Chain {
    /// All rules, in the order of creation.
    pub fn rules(&self) -> impl DoubleEndedIterator<Item = &Rule> {
        self.needs.iter().chain(std::iter::once(&self.rule))
    }

    /// Octets of each packet that the rule's counter does not see, since a stage before it has taken them off. A counter sees the packet
    /// as it hits the rule, whatever the rule then does to it.
    #[must_use]
    pub fn uncounted(&self) -> u8 {
        let popped = self.needs.iter().flat_map(|rule| &rule.actions).filter(|action| **action == Action::PopVlan);
        popped.fold(0, |octets, _| octets + 4)
    }
}
