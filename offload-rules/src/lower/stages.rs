//! A match split over several rules, where the NIC can't match it in one.
//!
//! Each stage but the last writes its number into the packet's TAG register and goes on in another table, where the number stands for all
//! that the stage has matched. Flows with the same beginning share their stages.

use super::{Action, Item, Layout, NicProfile, Rule, Stage, Table, priority};
use crate::{VifId, forwarding::VlanTag};

/// A match under construction.
#[derive(Debug)]
pub(super) struct Stages {
    port: VifId,
    layout: Layout,
    /// Where the next rule is.
    pub(super) table: Table,
    /// What it matches so far.
    pub(super) items: Vec<Item>,
    /// The stages, and what puts back what they have taken off, in the order of creation.
    pub(super) needs: Vec<Rule>,
    /// The tag that is off: type and control information.
    popped: Option<(u16, u16)>,
}

impl Stages {
    pub(super) fn new(port: VifId, table: Table, profile: &NicProfile) -> Self {
        let mut items = Vec::with_capacity(10);
        items.push(Item::Port(port));
        Self { port, layout: profile.layout, table, items, needs: Vec::new(), popped: None }
    }

    /// The frame's one tag is off.
    pub(super) const fn is_untagged(&self) -> bool {
        self.popped.is_some()
    }

    /// Ends a stage that takes the tag off. What misses behind it gets the tag back before it comes to software.
    pub(super) fn pop(&mut self, tag: VlanTag, tci: u16) {
        self.popped = Some((tag.tpid, tci));
        self.end(Table::Untagged, vec![Action::PopVlan]);
    }

    /// Ends a stage.
    pub(super) fn next(&mut self, table: Table) {
        self.end(table, Vec::new());
    }

    fn end(&mut self, table: Table, mut actions: Vec<Action>) {
        let items = std::mem::take(&mut self.items);
        let stage = Stage::Matched(items.as_slice().into());
        self.items = vec![Item::Port(self.port), Item::Tag(stage.clone())];
        if let Some((tpid, tci)) = self.popped {
            // There before the first packet without its tag comes.
            let items = self.items.clone();
            let to_software = match self.layout {
                Layout::Switch => Action::Jump(Table::Software),
                Layout::Hairpin | Layout::Receive => Action::Rss,
            };
            let actions = vec![Action::PushVlan { tpid, tci }, to_software];
            self.needs.push(Rule { table, priority: priority::DEFAULT, items, actions });
        }
        actions.push(Action::SetTag(stage));
        actions.push(Action::Jump(table));
        self.needs.push(Rule { table: self.table, priority: priority::STAGE, items, actions });
        self.table = table;
    }
}
