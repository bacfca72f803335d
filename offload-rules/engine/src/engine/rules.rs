//! The engine's rules: every token from its queueing to its end. Each is in exactly one stage.

use std::{
    collections::{HashMap, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
};

use offload_rules::{VifId, lower::Rule};

use super::egress_check::egress_of;
use crate::{
    Hits, Token,
    hash::{Quick, QuickHasher},
    protocol::{OfferId, OffloadId},
};

/// Index of a shape in the engine's list.
pub(super) type ShapeIndex = usize;

/// The owner of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A direction of a flow.
    Flow(OffloadId, u8),
    /// Of the rules that need it: there as long as one of them is.
    Shared,
    /// Steering, which belongs to no flow.
    Proactive,
    /// Forwards without flows.
    Transit,
    /// Opens or seals by the session of an offer.
    Session(OfferId),
    /// The start-up probe.
    Canary(ShapeIndex),
}

impl Owner {
    /// A rule of a flow or for transit, or a prerequisite of one: its packets come by proactive rules.
    pub(super) const fn is_of_flows(self) -> bool {
        matches!(self, Self::Flow(..) | Self::Shared | Self::Transit)
    }
}

/// Life of a rule:
///
/// ```text
/// Waiting ──► Queued ──► Creating ──────► Live ──► Draining ──► Destroying ──► (end)
///    │          │         │  │  unwanted             ▲  ▲           │
///    ▼          ▼         │  └────► Abandoned ───────┘  └─ refused ─┘
///  (end)      (end)       ▼ failed      │ created
///                       (end)           ▼ failed: (end)
/// ```
///
/// A rule waits until all its prerequisites are live, and those drain when no rule that needs them is left
/// ([`prerequisites`](super::prerequisites)). A rule that is unwanted while its creation is in flight is abandoned: it drains as soon
/// as that completes, however late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// For its prerequisites.
    Waiting,
    /// For its turn.
    Queued,
    /// Its creation is in flight.
    Creating,
    /// Its creation is in flight, and it is not wanted any more.
    Abandoned,
    /// In the NIC.
    Live,
    /// In the NIC, to be destroyed.
    Draining,
    /// Its destruction is in flight.
    Destroying,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) owner: Owner,
    /// Shared with inspection, and with the desired rule where that is kept.
    pub(super) rule: Arc<Rule>,
    /// Of table, priority and items.
    hash: u64,
    pub(super) shape: Option<ShapeIndex>,
    pub(super) stage: Stage,
    /// Its packets never reach software: they are counted here.
    pub(super) counted: bool,
    /// Octets of each packet that the counter does not see.
    pub(super) uncounted: u8,
    /// The port that counted packets leave by: known without a look at the rule each time that its counter is read.
    pub(super) egress: Option<VifId>,
    /// When the operation in flight began, or the counter was read last.
    pub(super) since: u64,
    pub(super) read_at: u64,
    /// The operation in flight is over its time.
    pub(super) late: bool,
    /// Counter values reported to the owner so far.
    pub(super) told: Hits,
    /// Attempts to destroy it, or to read its last counter, that failed.
    pub(super) refusals: u32,
    /// The other rule of its pair did not fit: the room that it leaves is not enough for a pair.
    pub(super) half: bool,
    /// Flows that wait for its end.
    pub(super) waiters: Vec<OffloadId>,
    /// What has to be live before it is created, and outlives it. All of them are older.
    pub(super) prerequisites: Vec<Token>,
    /// Rules that need it.
    pub(super) dependents: u32,
    /// Of those, the ones that wait for it to be live.
    pub(super) awaited_by: Vec<Token>,
}

impl Entry {
    pub(super) const fn in_flight(&self) -> bool {
        matches!(self.stage, Stage::Creating | Stage::Abandoned | Stage::Destroying)
    }

    /// Its owner wants it: it is in the NIC, or is to be.
    pub(super) const fn wanted(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Queued | Stage::Creating | Stage::Live)
    }

    pub(super) const fn live(&self) -> bool {
        matches!(self.stage, Stage::Live | Stage::Draining | Stage::Destroying)
    }
}

/// A rule to be queued.
#[derive(Debug)]
pub(super) struct NewRule {
    pub(super) owner: Owner,
    pub(super) shape: Option<ShapeIndex>,
    /// Its packets never reach software.
    pub(super) counted: bool,
    /// Octets of each packet that the counter does not see.
    pub(super) uncounted: u8,
    pub(super) prerequisites: Vec<Token>,
}

impl NewRule {
    /// One that is not counted and needs no other.
    pub(super) const fn of(owner: Owner) -> Self {
        Self { owner, shape: None, counted: false, uncounted: 0, prerequisites: Vec::new() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) entries: HashMap<Token, Entry, Quick>,
    /// Hash of table, priority and items. A hint: looked up, never iterated, and compared in full.
    by_match: HashMap<u64, Token, Quick>,
    pub(super) creates: VecDeque<Token>,
    pub(super) destroys: VecDeque<Token>,
    /// Rules of flows and for transit, and what these need.
    pub(super) of_flows: usize,
    pub(super) in_flight: usize,
    /// Of those, late.
    pub(super) late: usize,
    next: Token,
}

fn match_hash(rule: &Rule) -> u64 {
    let mut hasher = QuickHasher::default();
    (rule.table, rule.priority, &rule.items).hash(&mut hasher);
    hasher.finish()
}

impl Rules {
    /// A new rule, queued for creation as soon as what it needs is there.
    pub(super) fn insert(&mut self, rule: Arc<Rule>, new: NewRule) -> Token {
        let NewRule { owner, shape, counted, uncounted, prerequisites } = new;
        self.next += 1;
        let token = self.next;
        let hash = match_hash(&rule);
        let egress = if counted { egress_of(&rule) } else { None };
        self.by_match.insert(hash, token);
        let ready = self.depend_on(token, &prerequisites);
        self.of_flows += usize::from(owner.is_of_flows());
        let entry = Entry {
            owner,
            rule,
            hash,
            shape,
            stage: if ready { Stage::Queued } else { Stage::Waiting },
            counted,
            uncounted,
            egress,
            since: 0,
            read_at: 0,
            late: false,
            told: Hits::default(),
            refusals: 0,
            half: false,
            waiters: Vec::new(),
            prerequisites,
            dependents: 0,
            awaited_by: Vec::new(),
        };
        self.entries.insert(token, entry);
        if ready {
            self.creates.push_back(token);
        }
        token
    }

    pub(super) fn get(&self, token: Token) -> Option<&Entry> {
        self.entries.get(&token)
    }

    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut Entry> {
        self.entries.get_mut(&token)
    }

    /// In order of tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &Entry)> {
        let mut entries: Vec<_> = self.entries.iter().map(|(token, entry)| (*token, entry)).collect();
        entries.sort_unstable_by_key(|(token, _)| *token);
        entries.into_iter()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn queued(&self) -> usize {
        self.creates.len() + self.destroys.len()
    }

    /// The rule that holds this match at this priority, if any.
    pub(super) fn holder(&self, rule: &Rule) -> Option<Token> {
        let token = *self.by_match.get(&match_hash(rule))?;
        let held = &self.entries.get(&token)?.rule;
        (held.table == rule.table && held.priority == rule.priority && held.items == rule.items).then_some(token)
    }

    /// Sends a rule on its way out. True: it never was in the NIC, so its end is now.
    pub(super) fn unwant(&mut self, token: Token) -> bool {
        let Some(entry) = self.entries.get_mut(&token) else { return false };
        match entry.stage {
            Stage::Waiting | Stage::Queued => true,
            Stage::Live => {
                entry.stage = Stage::Draining;
                self.destroys.push_back(token);
                false
            }
            Stage::Creating => {
                entry.stage = Stage::Abandoned;
                false
            }
            Stage::Abandoned | Stage::Draining | Stage::Destroying => false,
        }
    }

    /// The operation begins.
    pub(super) fn begin(&mut self, token: Token, stage: Stage, now: u64) {
        if let Some(entry) = self.entries.get_mut(&token) {
            (entry.stage, entry.since, entry.late) = (stage, now, false);
            self.in_flight += 1;
        }
    }

    /// The operation in flight has completed. False: there was none.
    pub(super) fn complete(&mut self, token: Token) -> bool {
        let Some(entry) = self.entries.get_mut(&token) else { return false };
        if !entry.in_flight() {
            return false;
        }
        self.in_flight -= 1;
        if std::mem::take(&mut entry.late) {
            self.late -= 1;
        }
        true
    }

    /// Forgets a rule that is not in the NIC.
    pub(super) fn remove(&mut self, token: Token) -> Option<Entry> {
        let entry = self.entries.remove(&token)?;
        self.of_flows -= usize::from(entry.owner.is_of_flows());
        if self.by_match.get(&entry.hash) == Some(&token) {
            self.by_match.remove(&entry.hash);
        }
        Some(entry)
    }

    /// All rules are lost. Tokens are not used again.
    pub(super) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }
}
