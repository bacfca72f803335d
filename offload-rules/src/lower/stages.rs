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

    /// Ends a stage that admits packets by more than what it stands for: behind it, all that it admits are alike, whatever their source and
    /// that of their tunnel.
    pub(super) fn admit(&mut self, table: Table, by: Option<Item>) {
        let stands_for = Stage::Matched(self.items.iter().map(of_any_source).collect());
        self.items.extend(by);
        self.end_as(stands_for, table, Vec::new());
    }

    /// What leaves a packet to software as it came in.
    pub(super) fn to_software(&self) -> Vec<Action> {
        let tag = self.popped.map(|(tpid, tci)| Action::PushVlan { tpid, tci });
        let to_software = match self.layout {
            Layout::Switch => Action::Jump(Table::Software),
            Layout::Hairpin | Layout::Receive => Action::Rss,
        };
        tag.into_iter().chain([to_software]).collect()
    }

    fn end(&mut self, table: Table, actions: Vec<Action>) {
        let stage = Stage::Matched(self.items.as_slice().into());
        self.end_as(stage, table, actions);
    }

    fn end_as(&mut self, stage: Stage, table: Table, mut actions: Vec<Action>) {
        let items = std::mem::take(&mut self.items);
        self.items = vec![Item::Port(self.port), Item::Tag(stage.clone())];
        if self.popped.is_some() {
            // There before the first packet without its tag comes.
            let items = self.items.clone();
            let actions = self.to_software();
            self.needs.push(Rule { table, priority: priority::DEFAULT, items, actions });
        }
        actions.push(Action::SetTag(stage));
        actions.push(Action::Jump(table));
        self.needs.push(Rule { table: self.table, priority: priority::STAGE, items, actions });
        self.table = table;
    }
}

/// The same of packets from elsewhere.
fn of_any_source(item: &Item) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Ipv4 { src, .. } => *src = None,
        Item::Tag(Stage::Matched(items)) => *items = items.iter().map(of_any_source).collect(),
        _ => {}
    }
    item
}
