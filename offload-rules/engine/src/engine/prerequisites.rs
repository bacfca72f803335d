//! Prerequisites of rules: earlier and later stages of what one rule of the NIC cannot do alone.
//!
//! ```text
//! prerequisite ◄── prerequisite ◄── … ◄── rule      created from the left, destroyed from the right; one step each completion
//! ```
//!
//! A rule that several rules need is one rule in the NIC, with a count of its dependents. It goes with the last of them, at once
//! ([048](../../../../docs/decisions/048-rules-need-rules.md)). A rule only ever needs older ones, so there are no circles.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use offload_rules::lower::{Chain, FailureClass, Rule};

use super::{
    Engine,
    rules::{Entry, NewRule, Owner, Rules, Stage},
};
use crate::{Failure, Lowering, RuleBackend, Token};

/// Whether a prerequisite can be shared or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing has its match.
    New,
    /// It is there, or comes: it can be shared.
    Shared(Token),
    /// Something with its match is on its way out.
    Leaving(Token),
    /// Another rule has its match.
    Taken(Token),
}

/// What became of a rule that one dependent less needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// Others need it.
    Kept,
    /// It leaves the NIC.
    Leaves,
    /// It never was in the NIC: its end is now.
    Ends,
}

impl Rules {
    /// Can this rule be shared, or made?
    pub(super) fn claim(&self, need: &Rule) -> Claim {
        let Some(token) = self.holder(need) else { return Claim::New };
        match self.get(token) {
            Some(entry) if !entry.wanted() => Claim::Leaving(token),
            Some(entry) if entry.owner == Owner::Shared && entry.rule.actions == need.actions => Claim::Shared(token),
            _ => Claim::Taken(token),
        }
    }

    /// The prerequisites of a chain's rule: shared where they are there, queued where they are not. Nothing may be in their way.
    pub(super) fn acquire(&mut self, needs: Vec<Rule>) -> Vec<Token> {
        let mut held: Vec<Token> = Vec::new();
        for need in needs {
            let token = match self.claim(&need) {
                Claim::Shared(token) => {
                    // The chain that created it may not have had all of these before it: they are created here.
                    let older = self.all_prerequisites(token);
                    held.retain(|other| *other != token && !older.contains(other));
                    token
                }
                Claim::New | Claim::Leaving(_) | Claim::Taken(_) => {
                    let prerequisites = std::mem::take(&mut held);
                    self.insert(Arc::new(need), NewRule { prerequisites, ..NewRule::of(Owner::Shared) })
                }
            };
            held.push(token);
        }
        held
    }

    /// A new rule counts as dependent of its prerequisites. True: all of them are live.
    pub(super) fn depend_on(&mut self, dependent: Token, prerequisites: &[Token]) -> bool {
        let mut ready = true;
        for need in prerequisites {
            let Some(entry) = self.get_mut(*need) else { continue };
            entry.dependents += 1;
            if entry.stage != Stage::Live {
                entry.awaited_by.push(dependent);
                ready = false;
            }
        }
        ready
    }

    /// A rule is live: those that waited for nothing else are queued.
    fn wake_dependents(&mut self, token: Token) {
        let Some(waiting) = self.get_mut(token).map(|entry| std::mem::take(&mut entry.awaited_by)) else { return };
        for dependent in waiting {
            let live = |need: &Token| self.get(*need).is_some_and(|entry| entry.stage == Stage::Live);
            let ready = |entry: &Entry| entry.stage == Stage::Waiting && entry.prerequisites.iter().all(live);
            if self.get(dependent).is_some_and(ready)
                && let Some(entry) = self.get_mut(dependent)
            {
                entry.stage = Stage::Queued;
                self.creates.push_back(dependent);
            }
        }
    }

    /// One dependent less.
    fn release(&mut self, need: Token, half: bool) -> Release {
        let Some(entry) = self.get_mut(need) else { return Release::Kept };
        entry.dependents = entry.dependents.saturating_sub(1);
        if entry.dependents > 0 {
            return Release::Kept;
        }
        entry.half |= half;
        if self.unwant(need) { Release::Ends } else { Release::Leaves }
    }

    /// All prerequisites of a rule, and theirs, oldest first.
    pub(super) fn all_prerequisites(&self, token: Token) -> BTreeSet<Token> {
        let mut found = BTreeSet::new();
        let mut next: Vec<Token> = self.get(token).map_or_else(Vec::new, |entry| entry.prerequisites.clone());
        while let Some(need) = next.pop() {
            if found.insert(need) {
                next.extend(self.get(need).iter().flat_map(|entry| &entry.prerequisites));
            }
        }
        found
    }

    /// Number of rules that would go if these went: themselves, and what only they need.
    pub(super) fn going_with(&self, tokens: impl Iterator<Item = Token>) -> usize {
        let mut going = 0;
        let mut released: BTreeMap<Token, u32> = BTreeMap::new();
        let mut goes = |token: Token, released: &mut BTreeMap<Token, u32>| {
            going += 1;
            for need in self.get(token).iter().flat_map(|entry| &entry.prerequisites) {
                *released.entry(*need).or_default() += 1;
            }
        };
        tokens.for_each(|token| goes(token, &mut released));
        // Dependents are younger than the rule that they need.
        while let Some((need, by)) = released.pop_last() {
            if self.get(need).is_some_and(|entry| entry.dependents == by) {
                goes(need, &mut released);
            }
        }
        going
    }

    /// Is the rule of this token that of the chain? It may need more than the chain says, since shared rules have needs of their own.
    pub(super) fn is(&self, token: Token, chain: &Chain) -> bool {
        let same = |entry: &&Entry| {
            entry.wanted() && entry.rule.items == chain.rule.items && entry.rule.actions == chain.rule.actions
        };
        if self.get(token).filter(same).is_none() {
            return false;
        }
        if chain.needs.is_empty() {
            return true;
        }
        let there = self.all_prerequisites(token);
        chain.needs.iter().all(|need| matches!(self.claim(need), Claim::Shared(held) if there.contains(&held)))
    }
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// A rule that others need is live.
    pub(super) fn prerequisite_created(&mut self, token: Token) {
        self.rules.wake_dependents(token);
    }

    /// A rule that others need does not come: nor do they, for the same reason.
    pub(super) fn prerequisite_failed(&mut self, token: Token, failure: &Failure, now: u64) {
        let Some(entry) = self.rules.get_mut(token) else { return };
        entry.stage = Stage::Abandoned;
        entry.half |= failure.class == FailureClass::Capacity;
        for dependent in std::mem::take(&mut entry.awaited_by) {
            self.rule_failed(dependent, failure, now);
        }
    }

    /// A rule is gone: rules without other dependents follow. Flows that waited for its end wait for the ends of those, too. True: something
    /// does follow, and makes room when it ends.
    pub(super) fn release_prerequisites(&mut self, token: Token, left: &Entry) -> bool {
        let mut follows = false;
        for need in &left.prerequisites {
            match self.rules.release(*need, left.half) {
                Release::Kept => {}
                Release::Ends => self.ended(*need),
                Release::Leaves => {
                    follows = true;
                    for id in &left.waiters {
                        let waits = self.flows.get_mut(id).filter(|flow| flow.awaits.contains(&token));
                        let (Some(flow), Some(entry)) = (waits, self.rules.get_mut(*need)) else { continue };
                        flow.awaits.push(*need);
                        entry.waiters.push(*id);
                    }
                }
            }
        }
        follows
    }
}
