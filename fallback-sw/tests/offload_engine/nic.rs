//! A NIC in memory: it takes every rule and counts what a test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use offload_engine::{Completion, Failure, Hits, NicBackend, RuleBackend, Token, errno};
use offload_rules::{
    VifId,
    lower::{Action, Rule},
};

/// The inside of the NIC, where a test can reach it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rules: BTreeMap<Token, (Rule, Hits)>,
    pub(crate) flushes: u32,
    completed: Vec<Completion>,
}

impl Memory {
    /// Rules of flows that forward.
    pub(crate) fn forwarding(&self) -> usize {
        self.rules.values().filter(|(rule, _)| rule.actions.contains(&Action::Count)).count()
    }

    /// Every rule of a flow forwards so many packets of 100 octets.
    pub(crate) fn hit_all(&mut self, packets: u64) {
        for (_, hits) in self.rules.values_mut().filter(|(rule, _)| rule.actions.contains(&Action::Count)) {
            hits.packets += packets;
            hits.bytes += packets * 100;
        }
    }
}

/// Its backend.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryNic(pub(crate) Arc<Mutex<Memory>>);

impl MemoryNic {
    /// What an engine is given: rules alone.
    pub(crate) fn backend(&self) -> NicBackend<Self> {
        NicBackend::without_sessions(self.clone())
    }
}

impl RuleBackend for MemoryNic {
    fn depth(&self) -> usize {
        64
    }

    fn ready(&self) -> bool {
        true
    }

    fn validate(&mut self, _: &Rule) -> Result<(), Failure> {
        Ok(())
    }

    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure> {
        let mut memory = self.0.lock().unwrap();
        memory.rules.insert(token, (rule.clone(), Hits::default()));
        memory.completed.push(Completion::Created(token));
        Ok(())
    }

    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        let mut memory = self.0.lock().unwrap();
        memory.rules.remove(&token).ok_or_else(|| Failure::from_errno(errno::ENOENT, "no such rule"))?;
        memory.completed.push(Completion::Destroyed(token));
        Ok(())
    }

    fn push(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        into.append(&mut self.0.lock().unwrap().completed);
        Ok(())
    }

    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        let memory = self.0.lock().unwrap();
        let read = |token| memory.rules.get(token).map(|(_, hits)| *hits);
        into.extend(
            tokens.iter().map(|token| read(token).ok_or_else(|| Failure::from_errno(errno::ENOENT, "no such rule"))),
        );
    }

    fn transmitted(&mut self, _: VifId) -> Option<u64> {
        None
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let mut memory = self.0.lock().unwrap();
        memory.flushes += 1;
        memory.rules.clear();
        memory.completed.clear();
        Ok(())
    }

    fn alive(&mut self) -> bool {
        true
    }
}
