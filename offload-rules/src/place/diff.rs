//! The difference between the desired rules and the installed ones.

use std::{collections::BTreeMap, sync::Arc};

use crate::lower::Rule;

/// A difference, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Desired, not installed.
    Missing(&'a Arc<Rule>),
    /// Installed, not desired.
    Surplus(&'a Arc<Rule>),
    /// Both, but not the same.
    Differs {
        /// What should be.
        desired: &'a Arc<Rule>,
        /// What is.
        installed: &'a Arc<Rule>,
    },
}

/// The differences by id. Rules that differ in priority alone are the same.
#[must_use]
pub fn diff<'a, Id: Copy + Ord>(
    desired: &'a BTreeMap<Id, Arc<Rule>>,
    installed: &'a BTreeMap<Id, Arc<Rule>>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::{Action, Table};

    fn rule(priority: u32, queue: u16) -> Arc<Rule> {
        Arc::new(Rule { table: Table::Flows, priority, items: Vec::new(), actions: vec![Action::Queue(queue)] })
    }

    #[test]
    fn missing_different_and_extra_are_reported_and_a_priority_is_not() {
        let desired = BTreeMap::from([(1, rule(2, 1)), (2, rule(2, 2)), (3, rule(2, 3)), (5, rule(2, 5))]);
        let installed = BTreeMap::from([(2, rule(3, 2)), (3, rule(2, 9)), (4, rule(2, 4)), (5, rule(2, 5))]);
        let differs = Difference::Differs { desired: &desired[&3], installed: &installed[&3] };
        let expected = [(1, Difference::Missing(&desired[&1])), (3, differs), (4, Difference::Surplus(&installed[&4]))];
        assert_eq!(diff(&desired, &installed), expected);
    }
}
