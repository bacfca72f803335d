//! What should be in a NIC against what is.

use std::collections::BTreeMap;

use crate::lower::Rule;

/// One thing to do, in the order of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a, Id> {
    /// Create this rule.
    Install(Id, &'a Rule),
    /// Create this rule beside the one that is there, then destroy that one.
    Replace(Id, &'a Rule),
    /// Destroy what is there.
    Remove(Id),
}

/// A difference, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Desired, not installed.
    Missing(&'a Rule),
    /// Installed, not desired.
    Surplus(&'a Rule),
    /// Both, but not the same.
    Differs {
        /// What should be.
        desired: &'a Rule,
        /// What is.
        installed: &'a Rule,
    },
}

/// The differences by id. Rules that differ in priority alone are the same.
#[must_use]
pub fn diff<'a, Id: Copy + Ord>(
    desired: &'a BTreeMap<Id, Rule>,
    installed: &'a BTreeMap<Id, Rule>,
) -> Vec<(Id, Difference<'a>)> {
    let mut differences = BTreeMap::new();
    for (id, rule) in desired {
        match installed.get(id) {
            None => _ = differences.insert(*id, Difference::Missing(rule)),
            Some(there) if !there.equals(rule) => {
                differences.insert(*id, Difference::Differs { desired: rule, installed: there });
            }
            Some(_) => {}
        }
    }
    for (id, rule) in installed {
        if !desired.contains_key(id) {
            differences.insert(*id, Difference::Surplus(rule));
        }
    }
    differences.into_iter().collect()
}

/// What makes the installed rules the desired ones: removals first, so that a full table has room.
#[must_use]
pub fn reconcile<'a, Id: Copy + Ord>(
    desired: &'a BTreeMap<Id, Rule>,
    installed: &'a BTreeMap<Id, Rule>,
) -> Vec<Step<'a, Id>> {
    let (mut steps, mut creations) = (Vec::new(), Vec::new());
    for (id, difference) in diff(desired, installed) {
        match difference {
            Difference::Surplus(_) => steps.push(Step::Remove(id)),
            Difference::Missing(rule) => creations.push(Step::Install(id, rule)),
            Difference::Differs { desired, .. } => creations.push(Step::Replace(id, desired)),
        }
    }
    steps.append(&mut creations);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Action, Table};

    fn rule(priority: u32, queue: u16) -> Rule {
        Rule { table: Table::Flows, priority, items: Vec::new(), actions: vec![Action::Queue(queue)] }
    }

    #[test]
    fn what_is_missing_comes_what_is_too_many_goes_what_differs_is_replaced() {
        let desired = BTreeMap::from([(1, rule(2, 1)), (2, rule(2, 2)), (3, rule(2, 3)), (5, rule(2, 5))]);
        let installed = BTreeMap::from([(2, rule(3, 2)), (3, rule(2, 9)), (4, rule(2, 4)), (5, rule(2, 5))]);
        let expected = [Step::Remove(4), Step::Install(1, &desired[&1]), Step::Replace(3, &desired[&3])];
        assert_eq!(reconcile(&desired, &installed), expected);
        let ids: Vec<_> = diff(&desired, &installed).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [1, 3, 4]);
    }

    #[test]
    fn nothing_is_done_when_only_the_priority_differs() {
        let desired = BTreeMap::from([(1, rule(2, 1))]);
        let installed = BTreeMap::from([(1, rule(3, 1))]);
        assert!(reconcile(&desired, &installed).is_empty());
    }
}
