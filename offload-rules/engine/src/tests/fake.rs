//! The scripted NIC.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use offload_rules::{
    VifId,
    forwarding::Sa,
    lower::{Action, Item, Rule, Session, Table},
};

use crate::{Completion, Failure, Hits, RuleBackend, SessionBackend, SessionCounts, SessionKind, SessionSpec, Token};

#[derive(Debug)]
pub(super) struct Held {
    pub(super) rule: Rule,
    pub(super) hits: Hits,
    queried: u64,
    pub(super) leaving: bool,
}

#[derive(Debug)]
enum Operation {
    Create(Token, Rule),
    Destroy(Token),
}

/// The inside of a NIC, where a test can reach it.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) now: u64,
    pub(super) depth: usize,
    /// Operations for which there is time between two pulls.
    pub(super) slice: Option<usize>,
    begun: usize,
    /// Time from enqueue to completion.
    pub(super) delay: u64,
    pub(super) capacity: Option<usize>,
    /// What becomes of the next creations: `None` goes well.
    pub(super) script: VecDeque<Option<i32>>,
    /// The next creations are refused at once.
    pub(super) refuse: VecDeque<i32>,
    /// The next destructions fail.
    pub(super) stuck: VecDeque<i32>,
    /// The next queries fail.
    pub(super) blind: VecDeque<i32>,
    pub(super) flush_fails: u32,
    /// Protocols whose rules are refused, and by what: at validation, at creation.
    pub(super) invalid: BTreeMap<u8, i32>,
    pub(super) refused: BTreeMap<u8, i32>,
    /// Tables that take no rule.
    pub(super) closed: BTreeMap<Table, i32>,
    /// No rule gets a counter.
    pub(super) no_counter: Option<i32>,
    /// The port is stopped: it takes no rule.
    pub(super) stopped: Option<i32>,
    /// Completions do not come.
    pub(super) mute: bool,
    reset: bool,
    pub(super) rules: BTreeMap<Token, Held>,
    queue: VecDeque<(u64, Operation)>,
    tokens: BTreeSet<Token>,
    pub(super) created: u64,
    pub(super) destroyed: u64,
    pub(super) lost: u64,
    pub(super) flushes: u64,
    /// Packets that the engine can know of.
    pub(super) countable: u64,
    pub(super) busiest: usize,
    /// Rules that must be there as long as a rule is.
    pub(super) needs_of: Option<fn(&Rule) -> Vec<Rule>>,
    /// What has left by ports that tell.
    pub(super) left: BTreeMap<VifId, u64>,
    /// What the ports offer.
    pub(super) kinds: Vec<SessionKind>,
    pub(super) sessions: BTreeMap<Session, (SessionSpec, SessionCounts)>,
    /// Calls that read counters.
    pub(super) batches: u64,
    /// Times that senders were kept from sessions because rules may be left.
    pub(super) suspended: u64,
    /// The next sessions are refused.
    pub(super) no_session: VecDeque<i32>,
}

pub(super) type Nic = Arc<Mutex<World>>;

fn protocol(rule: &Rule) -> Option<u8> {
    rule.items.iter().find_map(|item| match item {
        Item::Ipv4 { proto, .. } => *proto,
        _ => None,
    })
}

impl World {
    /// As many packets to the first rule that matches, unless it is leaving.
    pub(super) fn hit(&mut self, same: impl Fn(&[Item]) -> bool, packets: u64) {
        let best = self.rules.values_mut().filter(|held| same(&held.rule.items)).min_by_key(|held| held.rule.priority);
        if let Some(held) = best.filter(|held| !held.leaving) {
            held.hits.packets += packets;
            held.hits.bytes += packets * 100;
            if held.rule.actions.contains(&offload_rules::lower::Action::Count) {
                self.countable += packets;
            }
        }
    }

    fn read(&mut self, token: Token) -> Result<Hits, Failure> {
        if let Some(errno) = self.blind.pop_front() {
            return Err(Failure::from_errno(errno, "blind"));
        }
        let held = self.rules.get_mut(&token).ok_or_else(|| Failure::from_errno(libc::ENOENT, "no such rule"))?;
        held.queried = held.hits.packets;
        Ok(held.hits)
    }

    fn lose_all(&mut self) {
        for (_, held) in std::mem::take(&mut self.rules) {
            self.lost += 1;
            if held.rule.actions.contains(&offload_rules::lower::Action::Count) {
                self.countable -= held.hits.packets - held.queried;
            }
        }
        self.queue.clear();
    }

    /// Is every rule there with all that it needs, those that are on their way included?
    fn check_needs(&self, why: &str) {
        let Some(needs_of) = self.needs_of else { return };
        let coming = self.queue.iter().filter_map(|(_, operation)| match operation {
            Operation::Create(_, rule) => Some(rule),
            Operation::Destroy(_) => None,
        });
        for rule in self.rules.values().map(|held| &held.rule).chain(coming) {
            for need in needs_of(rule) {
                let there = self.rules.values().any(|held| held.rule == need && !held.leaving);
                assert!(there, "{why}: {rule} is there without {need}");
            }
        }
    }

    fn users(&self, session: Session) -> usize {
        let uses = |rule: &Rule| rule.actions.contains(&Action::Security(session));
        self.rules.values().filter(|held| uses(&held.rule)).count()
    }

    /// As a reset of the NIC would.
    pub(super) fn reset(&mut self) {
        self.lose_all();
        self.sessions.clear();
        self.reset = true;
    }

    /// As the stop of its port would, of which the backend tells.
    pub(super) fn stop(&mut self, errno: i32) {
        self.reset();
        self.stopped = Some(errno);
    }

    /// Rules that are not on their way out and have no packet that has not been read.
    pub(super) fn idle(&self) -> impl Iterator<Item = Token> {
        let idle = |held: &Held| {
            !held.leaving
                && held.hits.packets == held.queried
                && held.rule.actions.contains(&offload_rules::lower::Action::Count)
        };
        self.rules.iter().filter(move |(_, held)| idle(held)).map(|(token, _)| *token)
    }

    /// Someone else removes a rule.
    pub(super) fn steal(&mut self, token: Token) {
        self.rules.remove(&token).unwrap();
        self.lost += 1;
    }

    fn make(&mut self, token: Token, rule: Rule) -> Completion {
        let scripted = self.script.pop_front().flatten();
        let taken = self.rules.values().any(|held| {
            (held.rule.table, held.rule.priority, &held.rule.items) == (rule.table, rule.priority, &rule.items)
        });
        let errno = if self.stopped.is_some() {
            self.stopped
        } else if let Some(errno) = protocol(&rule).and_then(|proto| self.refused.get(&proto)) {
            Some(*errno)
        } else if let Some(errno) = self.closed.get(&rule.table) {
            Some(*errno)
        } else if self.no_counter.is_some() && rule.actions.contains(&Action::Count) {
            self.no_counter
        } else if scripted.is_some() {
            scripted
        } else if taken {
            Some(libc::EEXIST)
        } else if self.capacity.is_some_and(|most| self.rules.len() >= most) {
            Some(libc::ENOSPC)
        } else {
            None
        };
        if let Some(errno) = errno {
            return Completion::CreateFailed(token, Failure::from_errno(errno, "scripted"));
        }
        for action in &rule.actions {
            if let Action::Security(session) = action {
                assert!(self.sessions.contains_key(session), "a rule for a session that is not there");
            }
        }
        self.created += 1;
        self.rules.insert(token, Held { rule, hits: Hits::default(), queried: 0, leaving: false });
        Completion::Created(token)
    }
}

/// Rules and sessions of the scripted NIC.
#[derive(Clone)]
pub(super) struct Fake(Nic);

impl Fake {
    pub(super) fn new() -> (Self, Nic) {
        let nic = Arc::new(Mutex::new(World { depth: 64, ..World::default() }));
        (Self(Arc::clone(&nic)), nic)
    }
}

impl RuleBackend for Fake {
    fn depth(&self) -> usize {
        self.0.lock().unwrap().depth
    }

    fn ready(&self) -> bool {
        let world = self.0.lock().unwrap();
        world.slice.is_none_or(|most| world.begun < most)
    }

    fn validate(&mut self, rule: &Rule) -> Result<(), Failure> {
        match protocol(rule).and_then(|proto| self.0.lock().unwrap().invalid.get(&proto).copied()) {
            Some(errno) => Err(Failure::from_errno(errno, "invalid")),
            None => Ok(()),
        }
    }

    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure> {
        let mut world = self.0.lock().unwrap();
        world.begun += 1;
        assert!(world.tokens.insert(token), "token {token} used twice");
        if let Some(errno) = world.refuse.pop_front() {
            return Err(Failure::from_errno(errno, "refused"));
        }
        let due = world.now + world.delay;
        world.queue.push_back((due, Operation::Create(token, rule.clone())));
        world.check_needs("create");
        world.busiest = world.busiest.max(world.queue.len());
        assert!(world.queue.len() <= world.depth, "queue overflow");
        Ok(())
    }

    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        let mut world = self.0.lock().unwrap();
        if !world.rules.contains_key(&token) {
            return Err(Failure::from_errno(libc::ENOENT, "no such rule"));
        }
        let held = world.rules.get_mut(&token).unwrap();
        assert!(!held.leaving, "token {token} destroyed twice");
        held.leaving = true;
        let due = world.now + world.delay;
        world.queue.push_back((due, Operation::Destroy(token)));
        world.check_needs("destroy");
        assert!(world.queue.len() <= world.depth, "queue overflow");
        Ok(())
    }

    fn push(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        let mut world = self.0.lock().unwrap();
        world.begun = 0;
        while !world.mute && world.queue.front().is_some_and(|(due, _)| *due <= world.now) {
            let Some((_, operation)) = world.queue.pop_front() else { break };
            let completion = match operation {
                Operation::Create(token, rule) => world.make(token, rule),
                Operation::Destroy(token) => {
                    if let Some(errno) = world.stuck.pop_front() {
                        if let Some(held) = world.rules.get_mut(&token) {
                            held.leaving = false;
                        }
                        Completion::DestroyFailed(token, Failure::from_errno(errno, "stuck"))
                    } else {
                        world.rules.remove(&token).unwrap();
                        world.destroyed += 1;
                        Completion::Destroyed(token)
                    }
                }
            };
            world.check_needs("completion");
            into.push(completion);
        }
        Ok(())
    }

    fn transmitted(&mut self, port: VifId) -> Option<u64> {
        self.0.lock().unwrap().left.get(&port).copied()
    }

    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        let mut world = self.0.lock().unwrap();
        world.batches += 1;
        into.extend(tokens.iter().map(|token| world.read(*token)));
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let mut world = self.0.lock().unwrap();
        if world.flush_fails > 0 {
            world.flush_fails -= 1;
            return Err(Failure::from_errno(libc::EIO, "not now"));
        }
        world.flushes += 1;
        world.lose_all();
        Ok(())
    }

    fn alive(&mut self) -> bool {
        !std::mem::take(&mut self.0.lock().unwrap().reset)
    }
}

impl SessionBackend for Fake {
    fn session_kinds(&mut self, _: VifId, _: &Sa) -> Vec<SessionKind> {
        self.0.lock().unwrap().kinds.clone()
    }

    fn open_session(&mut self, session: Session, spec: &SessionSpec) -> Result<(), Failure> {
        let mut world = self.0.lock().unwrap();
        if let Some(errno) = world.no_session.pop_front() {
            return Err(Failure::from_errno(errno, "no session"));
        }
        let before = world.sessions.insert(session, (spec.clone(), SessionCounts::default()));
        assert!(before.is_none(), "{session:?} twice");
        Ok(())
    }

    fn close_session(&mut self, session: Session) -> Result<(), Failure> {
        let mut world = self.0.lock().unwrap();
        assert_eq!(world.users(session), 0, "rules still use {session:?}");
        world.sessions.remove(&session).map(drop).ok_or_else(|| Failure::from_errno(libc::ENOENT, "no such session"))
    }

    fn session_counts(&mut self, session: Session) -> Result<SessionCounts, Failure> {
        let world = self.0.lock().unwrap();
        let counts = world.sessions.get(&session).map(|(_, counts)| *counts);
        counts.ok_or_else(|| Failure::from_errno(libc::ENOENT, "no such session"))
    }

    fn flush_sessions(&mut self) -> Result<(), Failure> {
        self.0.lock().unwrap().sessions.clear();
        Ok(())
    }

    fn suspend_sessions(&mut self) {
        self.0.lock().unwrap().suspended += 1;
    }
}
