//! Where chains of nexthops lead: cycles, and what holds of all that is behind a nexthop.

use std::{collections::HashMap, net::IpAddr};

use crate::{
    NexthopId,
    forwarding::{Nexthop, NexthopKind, tables::Tables},
};

/// What is behind a nexthop, itself included.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chain {
    /// Most composites on one way through it.
    pub(super) composites: u32,
    /// A tunnel among itself and its members.
    pub(super) tunnel: Option<NexthopId>,
    /// Like `tunnel`, and toward it no member has a label.
    pub(super) needs_label: Option<NexthopId>,
    /// Itself or a member that no tunnel may hand its outer packets to.
    pub(super) not_under_tunnel: Option<NexthopId>,
    /// Itself or a member whose gateway has an IPv4 address: no IPv6 packet goes there.
    pub(super) gateway4: Option<NexthopId>,
}

/// A reference that closes a cycle.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    /// The object that refers.
    pub(super) from: NexthopId,
    /// By which field.
    pub(super) field: String,
    /// To whom it leads back.
    pub(super) to: NexthopId,
}

enum Mark {
    /// On the way that is being followed.
    Open,
    Done(Chain),
}

/// Chains, each followed once.
pub(super) struct Chains<'a> {
    tables: &'a Tables,
    marks: HashMap<NexthopId, Mark>,
    /// All that were met.
    pub(super) cycles: Vec<Cycle>,
}

struct Step<'a> {
    nexthop: &'a Nexthop,
    references: std::vec::IntoIter<(String, NexthopId)>,
}

impl<'a> Chains<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, marks: HashMap::new(), cycles: Vec::new() }
    }

    /// What is behind a nexthop; nothing behind one that does not exist.
    pub(super) fn of(&mut self, id: NexthopId) -> Chain {
        match self.marks.get(&id) {
            Some(Mark::Done(chain)) => *chain,
            Some(Mark::Open) => Chain::default(),
            None => self.follow(id),
        }
    }

    /// Depth first with a stack of its own: a chain may be as long as there are nexthops.
    fn follow(&mut self, id: NexthopId) -> Chain {
        let mut stack = Vec::new();
        self.enter(id, &mut stack);
        while let Some(step) = stack.last_mut() {
            let from = step.nexthop.id;
            match step.references.next() {
                Some((field, to)) => match self.marks.get(&to) {
                    None => self.enter(to, &mut stack),
                    Some(Mark::Open) => self.cycles.push(Cycle { from, field, to }),
                    Some(Mark::Done(_)) => {}
                },
                None => {
                    let chain = self.sum_up(step.nexthop);
                    self.marks.insert(from, Mark::Done(chain));
                    stack.pop();
                }
            }
        }
        match self.marks.get(&id) {
            Some(Mark::Done(chain)) => *chain,
            _ => Chain::default(),
        }
    }

    fn enter(&mut self, id: NexthopId, stack: &mut Vec<Step<'a>>) {
        if let Some(nexthop) = self.tables.nexthop(id) {
            self.marks.insert(id, Mark::Open);
            stack.push(Step { nexthop, references: nexthop.references().into_iter() });
        }
    }

    /// Of a nexthop whose references have all been followed.
    fn sum_up(&self, nexthop: &Nexthop) -> Chain {
        let behind = |id: &NexthopId| match self.marks.get(id) {
            Some(Mark::Done(chain)) => *chain,
            _ => Chain::default(),
        };
        let deepest = nexthop.references().iter().map(|(_, to)| behind(to).composites).max().unwrap_or(0);
        let id = Some(nexthop.id);
        match &nexthop.kind {
            NexthopKind::Tunnel(_) => {
                Chain { composites: deepest, tunnel: id, needs_label: id, not_under_tunnel: id, ..Chain::default() }
            }
            NexthopKind::Composite { members } => {
                let mut chain = Chain { composites: deepest.saturating_add(1), ..Chain::default() };
                for member in members.iter().flatten() {
                    let behind = behind(&member.nexthop);
                    chain.tunnel = chain.tunnel.or(behind.tunnel);
                    if member.label.is_none() {
                        chain.needs_label = chain.needs_label.or(behind.needs_label);
                    }
                    chain.not_under_tunnel = chain.not_under_tunnel.or(behind.not_under_tunnel);
                    chain.gateway4 = chain.gateway4.or(behind.gateway4);
                }
                chain
            }
            NexthopKind::VrfTranslate { .. } | NexthopKind::Receive(_) => {
                Chain { composites: deepest, not_under_tunnel: id, ..Chain::default() }
            }
            NexthopKind::Resolve { gateway: Some(IpAddr::V4(_)), .. } => Chain { gateway4: id, ..Chain::default() },
            NexthopKind::Drop | NexthopKind::Encap { .. } | NexthopKind::Resolve { .. } => Chain::default(),
        }
    }
}
