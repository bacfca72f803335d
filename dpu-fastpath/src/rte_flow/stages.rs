//! Numbers of stages: what the TAG register and the metadata of a packet say.

use std::collections::HashMap;

use offload_rules::lower::{Action, Item, Rule, Stage};

use super::unresolved::Unresolved;

/// Numbers that a rule holds: of the stages which it matches, in the TAG register and in the metadata, and of those which it writes.
pub(super) type StageNumbers = [Option<u32>; 4];

/// Each stage that a rule in the NIC names has a number of its own, from 1; one that no rule names any more is given again late.
#[derive(Debug, Default)]
pub(super) struct Stages {
    numbers: HashMap<Stage, u32>,
    /// The stage, and the rules that name it.
    named: HashMap<u32, (Stage, usize)>,
    /// Given for a rule that may never come.
    fresh: Vec<u32>,
    last: u32,
}

impl Stages {
    /// The bit of the metadata that says that something is still to be done on the side of sending. Not in [`Meta`](offload_rules::lower::Meta)'s.
    pub(super) const TO_SEND: u32 = 1 << 31;
    /// The TAG register that is used.
    pub(super) const REGISTER: u8 = 0;

    /// The number of a stage.
    ///
    /// # Errors
    /// [`Unresolved::Stage`]: [`Self::prepare`] has not seen it.
    pub(super) fn number(&self, stage: &Stage) -> Result<u32, Unresolved> {
        self.numbers.get(stage).copied().ok_or(Unresolved::Stage)
    }

    /// Gives a number to each stage that the rule names: kept if it is held before the next call.
    pub(super) fn prepare(&mut self, rule: &Rule) -> StageNumbers {
        for number in std::mem::take(&mut self.fresh) {
            self.forget_unnamed(number);
        }
        named_by(rule).map(|stage| stage.map(|stage| self.give(stage)))
    }

    fn give(&mut self, stage: &Stage) -> u32 {
        if let Some(number) = self.numbers.get(stage) {
            return *number;
        }
        loop {
            self.last = self.last % (Self::TO_SEND - 1) + 1;
            if !self.named.contains_key(&self.last) {
                break;
            }
        }
        self.numbers.insert(stage.clone(), self.last);
        self.named.insert(self.last, (stage.clone(), 0));
        self.fresh.push(self.last);
        self.last
    }

    /// A rule that names these is in the NIC.
    pub(super) fn hold(&mut self, held: StageNumbers) {
        for number in held.into_iter().flatten() {
            if let Some((_, rules)) = self.named.get_mut(&number) {
                *rules += 1;
            }
        }
    }

    /// A rule that named these is gone.
    pub(super) fn release(&mut self, held: StageNumbers) {
        for number in held.into_iter().flatten() {
            if let Some((_, rules)) = self.named.get_mut(&number) {
                *rules = rules.saturating_sub(1);
            }
            self.forget_unnamed(number);
        }
    }

    fn forget_unnamed(&mut self, number: u32) {
        if self.named.get(&number).is_some_and(|(_, rules)| *rules == 0)
            && let Some((stage, _)) = self.named.remove(&number)
        {
            self.numbers.remove(&stage);
        }
    }
}

fn named_by(rule: &Rule) -> [Option<&Stage>; 4] {
    let item = |which: fn(&Item) -> Option<&Stage>| rule.items.iter().find_map(which);
    let action = |which: fn(&Action) -> Option<&Stage>| rule.actions.iter().find_map(which);
    [
        item(|item| if let Item::Tag(stage) = item { Some(stage) } else { None }),
        item(|item| if let Item::ToSend(stage) = item { Some(stage) } else { None }),
        action(|action| if let Action::SetTag(stage) = action { Some(stage) } else { None }),
        action(|action| if let Action::SetToSend(stage) = action { Some(stage) } else { None }),
    ]
}

#[cfg(test)]
mod tests {
    use offload_rules::{
        VifId,
        lower::{Action, Item, Rule, Stage, Table},
    };

    use super::*;

    fn stage(vif: u32) -> Stage {
        Stage::Matched([Item::Port(VifId::new(vif).unwrap())].into())
    }

    fn rule(matched: Option<Stage>, written: Option<Stage>) -> Rule {
        Rule {
            table: Table::Tenant,
            priority: 0,
            items: matched.into_iter().map(Item::Tag).collect(),
            actions: written.into_iter().map(Action::SetTag).collect(),
        }
    }

    #[test]
    fn a_stage_keeps_its_number_as_long_as_a_rule_names_it() {
        let mut stages = Stages::default();
        let writes = stages.prepare(&rule(None, Some(stage(1))));
        stages.hold(writes);
        let matches = stages.prepare(&rule(Some(stage(1)), Some(stage(2))));
        stages.hold(matches);
        assert_eq!((writes[2], matches[0]), (Some(1), Some(1)));
        assert_eq!(matches[2], Some(2));
        stages.release(writes);
        assert_eq!(stages.number(&stage(1)), Ok(1), "somebody matches it still");
        stages.release(matches);
        assert_eq!(stages.number(&stage(1)), Err(Unresolved::Stage));
        assert_eq!(stages.prepare(&rule(None, Some(stage(1)))), [None, None, Some(3), None], "late");
    }

    #[test]
    fn a_rule_that_never_came_leaves_no_number_behind() {
        let mut stages = Stages::default();
        let held = stages.prepare(&rule(None, Some(stage(1))));
        stages.hold(held);
        stages.prepare(&rule(Some(stage(1)), Some(stage(2))));
        stages.prepare(&rule(Some(stage(1)), None));
        assert_eq!(stages.number(&stage(2)), Err(Unresolved::Stage));
        stages.release(held);
        assert!(stages.named.is_empty() && stages.numbers.is_empty());
    }
}
