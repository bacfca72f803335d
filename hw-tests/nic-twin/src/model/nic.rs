//! The NIC: ports of one switch with shared rule tables, and how rules come and go.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Action, ActionKind, Attr, PortId};
use super::counter::{AgeOwner, AgeState, Aged, Ages, Counter, Hits};
use super::error::{EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, ErrorKind, FlowError};
use super::fault::{Command, Fault, Faults};
use super::hairpin::Hairpins;
use super::item::Item;
use super::pipeline::Stats;
use super::profile::{Place, Profile};
use super::program::{self, Context, Needs, Op};
use super::security::{BY_SPI, SessionKind, Sessions};
use super::shape::{Compiled, Range, has_stray_bits};
use super::table::{Domain, Location, Tables};

/// A rule's handle: an index and a generation, never zero and never another rule's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u64);

/// What an insert answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The rule.
    pub id: RuleId,
    /// When it takes effect: a synchronous call returns then, an asynchronous one completes then.
    pub at: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Port {
    pub(crate) queues: u16,
    pub(crate) isolated: bool,
    pub(crate) place: Place,
}

/// A rule in force, or a place for one.
pub(crate) struct Rule {
    generation: u32,
    live: bool,
    pub(crate) age: u64,
    /// In force from then on.
    pub(crate) at: Duration,
    pub(crate) ranges: Box<[Range]>,
    pub(crate) ops: Box<[Op]>,
    pub(crate) edits: bool,
    deep: bool,
    location: Location,
    port: PortId,
}

/// What an indirect action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    Count(u32),
    Age(u32),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Indirect {
    pub(crate) generation: u32,
    pub(crate) live: bool,
    pub(crate) port: PortId,
    pub(crate) shared: Shared,
    pub(crate) users: u32,
}

/// A NIC: all ports that are added to it share its tables.
pub struct Nic {
    pub(crate) profile: Profile,
    pub(crate) faults: Faults,
    pub(crate) ports: BTreeMap<PortId, Port>,
    pub(crate) rules: Vec<Rule>,
    free_rules: Vec<u32>,
    live_rules: u64,
    pub(crate) tables: Tables,
    pub(crate) counters: Vec<Counter>,
    free_counters: Vec<u32>,
    pub(crate) ages: Ages,
    pub(crate) indirects: Vec<Indirect>,
    pub(crate) free_indirects: Vec<u32>,
    pub(crate) sessions: Sessions,
    pub(crate) hairpins: Hairpins,
    pub(crate) stats: Stats,
    /// Rules whose pattern needs the payload read.
    pub(crate) deep_rules: u64,
    scratch: Option<Box<Compiled>>,
    op_buffer: Vec<Op>,
    next_age: u64,
    /// Inserts since a failure was last set.
    inserts: u64,
    /// Packets since a reset was last set.
    pub(crate) packets: u64,
    /// When the queue of inserts is empty.
    idle_at: Duration,
    resets: u64,
}

impl Nic {
    /// A NIC without ports.
    pub fn new(profile: Profile, faults: Faults) -> Nic {
        Nic {
            profile,
            faults,
            ports: BTreeMap::new(),
            rules: Vec::new(),
            free_rules: Vec::new(),
            live_rules: 0,
            tables: Tables::default(),
            counters: Vec::new(),
            free_counters: Vec::new(),
            ages: Ages::default(),
            indirects: Vec::new(),
            free_indirects: Vec::new(),
            sessions: Sessions::default(),
            hairpins: Hairpins::default(),
            stats: Stats::default(),
            deep_rules: 0,
            scratch: None,
            op_buffer: Vec::new(),
            next_age: 0,
            inserts: 0,
            packets: 0,
            idle_at: Duration::ZERO,
            resets: 0,
        }
    }

    /// Sets memory aside for this many more rules and their counters.
    pub fn reserve(&mut self, rules: usize) {
        self.rules.reserve(rules.saturating_sub(self.free_rules.len()));
        self.counters.reserve(rules.saturating_sub(self.free_counters.len()));
    }

    /// What this NIC can do.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The faults in force.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Adds a port with this many receive queues, or changes their number.
    pub fn add_port(&mut self, port: PortId, queues: u16) {
        self.ports.entry(port).or_insert(Port { queues, isolated: false, place: Place::default() }).queues =
            queues.max(1);
    }

    /// Which side of which switch a port is.
    pub fn set_place(&mut self, port: PortId, place: Place) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.place = place;
        }
    }

    /// Which side of which switch a port is.
    pub fn place(&self, port: PortId) -> Option<Place> {
        self.ports.get(&port).map(|port| port.place)
    }

    /// Takes a port away, and the rules and indirect actions made on it.
    pub fn remove_port(&mut self, port: PortId) {
        self.flush(port);
        for index in 0..self.indirects.len() {
            if let Some(indirect) =
                self.indirects.get_mut(index).filter(|indirect| indirect.live && indirect.port == port)
            {
                indirect.live = false;
                let shared = indirect.shared;
                self.free_indirects.push(index as u32);
                self.release(shared);
            }
        }
        self.ports.remove(&port);
        self.forget_hairpins(port);
    }

    /// Isolated mode: only what rules direct to the application reaches it.
    pub fn set_isolated(&mut self, port: PortId, isolated: bool) {
        if let Some(port) = self.ports.get_mut(&port) {
            port.isolated = isolated;
        }
    }

    /// Rules there are, those included whose insert has not taken effect.
    pub fn rule_count(&self) -> u64 {
        self.live_rules
    }

    /// Resets so far. When the number grows, all rules and indirect actions are lost and their handles unknown.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Carries out a command of the control file.
    pub fn control(&mut self, command: Command) {
        match command {
            Command::Reset => self.reset(),
            Command::Clear => self.faults = Faults::default(),
            Command::Set(fault) => {
                self.faults.apply(fault);
                match fault {
                    Fault::Fail(_) | Fault::FailEvery(_) => self.inserts = 0,
                    Fault::ResetAt(_) => self.packets = 0,
                    _ => {}
                }
            }
        }
    }

    /// Loses all rules, indirect actions and sessions, as a NIC that was reset.
    pub fn reset(&mut self) {
        for index in 0..self.rules.len() {
            self.forget(index as u32);
        }
        self.tables = Tables::default();
        self.counters.clear();
        self.free_counters.clear();
        self.ages = Ages::default();
        for (place, indirect) in (0..).zip(&mut self.indirects) {
            if std::mem::take(&mut indirect.live) {
                self.free_indirects.push(place);
            }
        }
        self.sessions.clear();
        self.resets += 1;
    }

    /// Frees a rule's place. Its parts of tables and counters are the caller's to release.
    fn forget(&mut self, index: u32) -> Option<(Location, Box<[Op]>)> {
        let rule = self.rules.get_mut(index as usize).filter(|rule| rule.live)?;
        rule.live = false;
        rule.generation = rule.generation.wrapping_add(1).max(1);
        rule.ranges = Box::default();
        self.free_rules.push(index);
        self.live_rules -= 1;
        self.deep_rules -= u64::from(rule.deep);
        Some((rule.location, std::mem::take(&mut rule.ops)))
    }

    /// Would the rule be taken, resources aside? Changes nothing.
    ///
    /// # Errors
    /// As [`Nic::insert`], without ENOSPC and faults.
    pub fn validate(&self, port: PortId, attr: &Attr, items: &[Item], actions: &[Action]) -> Result<(), FlowError> {
        self.check(port, attr, items, actions, &mut Compiled::default()).map(|_| ())
    }

    fn check(
        &self,
        port: PortId,
        attr: &Attr,
        items: &[Item],
        actions: &[Action],
        compiled: &mut Compiled,
    ) -> Result<Needs, FlowError> {
        let Some(&Port { queues, .. }) = self.ports.get(&port) else {
            return Err(FlowError::new(ENODEV, ErrorKind::Unspecified, c"no such port"));
        };
        self.profile.check_attr(attr)?;
        self.profile.check_secured(items, actions)?;
        for (index, item) in items.iter().enumerate() {
            self.profile.check_item(index, item)?;
        }
        compiled.engine = self.profile.engine;
        compiled.compile(items, attr.transfer)?;
        compiled.stray_bits = self.profile.stray_bits_miss && items.iter().any(has_stray_bits);
        if let Some(engine) = self.profile.engine {
            engine.check(attr, items, actions, &|port| self.place(port))?;
        }
        program::check(
            actions,
            &Context {
                profile: &self.profile,
                attr,
                required: compiled.required,
                queues,
                has_port: &|port| self.ports.contains_key(&port),
                indirect: &|id| {
                    self.indirect(id).map(|indirect| match indirect.shared {
                        Shared::Count(_) => ActionKind::Count,
                        Shared::Age(_) => ActionKind::Age,
                    })
                },
                has_session: &|session| {
                    let by_spi = session == BY_SPI
                        && attr.ingress
                        && self.profile.sessions.contains(&SessionKind::InlineProtocol);
                    by_spi || self.sessions.contains(session)
                },
            },
        )
    }

    /// Inserts a rule.
    ///
    /// # Errors
    /// EINVAL: the guide forbids it. ENOTSUP: this NIC cannot. ENOSPC or ENOMEM: rules or counters are used up. EEXIST: the NIC
    /// refuses duplicates. ENODEV: no such port. Whatever fault is in force.
    pub fn insert(
        &mut self,
        port: PortId,
        attr: &Attr,
        items: &[Item],
        actions: &[Action],
        now: Duration,
    ) -> Result<Inserted, FlowError> {
        let mut compiled = self.scratch.take().unwrap_or_default();
        let inserted = self.insert_compiled(port, attr, items, actions, now, &mut compiled);
        self.scratch = Some(compiled);
        inserted
    }

    fn insert_compiled(
        &mut self,
        port: PortId,
        attr: &Attr,
        items: &[Item],
        actions: &[Action],
        now: Duration,
        compiled: &mut Compiled,
    ) -> Result<Inserted, FlowError> {
        let needs = self.check(port, attr, items, actions, compiled)?;
        self.inserts += 1;
        if self.faults.fails(self.inserts) {
            return Err(FlowError::new(self.faults.fail_errno, ErrorKind::Unspecified, c"a fault was asked for"));
        }
        if self.live_rules >= self.faults.full_at.unwrap_or(self.profile.max_rules) {
            return Err(FlowError::new(self.profile.full_errno, ErrorKind::Unspecified, c"the table is full"));
        }
        if needs.counters > 0 && self.used_counters() + needs.counters > self.counter_limit() {
            return Err(FlowError::new(ENOMEM, ErrorKind::Action, c"no counter is left"));
        }
        let domain = match (attr.transfer, attr.egress) {
            (true, _) => Domain::Transfer,
            (false, true) => Domain::Egress(port),
            (false, false) => Domain::Ingress(port),
        };
        let rules = &self.rules;
        let same = |rule: u32| {
            let ranges = rules.get(rule as usize).map_or(&[][..], |rule| &rule.ranges);
            *ranges == *compiled.ranges
        };
        if self.profile.refuses_duplicates && self.tables.same(domain, attr.group, attr.priority, compiled, same) {
            return Err(FlowError::new(EEXIST, ErrorKind::Unspecified, c"a rule of this pattern exists"));
        }
        let at = self.effect_at(now);
        let index = self.free_rules.pop().unwrap_or(self.rules.len() as u32);
        let generation = self.rules.get(index as usize).map_or(1, |rule| rule.generation);
        let id = RuleId(u64::from(generation) << 32 | u64::from(index));
        // By way of a buffer that is used again: one allocation of the right size.
        let mut buffer = std::mem::take(&mut self.op_buffer);
        buffer.extend(actions.iter().filter_map(|action| self.op(action, port, id, at)));
        let ops: Box<[Op]> = buffer.drain(..).collect();
        self.op_buffer = buffer;
        let edits = ops.iter().any(Op::edits);
        let location = self.tables.insert(domain, attr.group, attr.priority, compiled, index);
        self.next_age += 1;
        let rule = Rule {
            generation,
            live: true,
            age: self.next_age,
            at: if self.faults.dead || compiled.stray_bits { Duration::MAX } else { at },
            ranges: compiled.ranges.as_slice().into(),
            ops,
            edits,
            deep: compiled.deep,
            location,
            port,
        };
        match self.rules.get_mut(index as usize) {
            Some(slot) => *slot = rule,
            None => self.rules.push(rule),
        }
        self.live_rules += 1;
        self.deep_rules += u64::from(compiled.deep);
        Ok(Inserted { id, at })
    }

    /// When an insert that comes now takes effect.
    fn effect_at(&mut self, now: Duration) -> Duration {
        let mut at = now;
        if let Some(rate) = self.faults.rate {
            at = self.idle_at.max(now) + Duration::from_nanos(1_000_000_000 / rate.max(1));
            self.idle_at = at;
        }
        at + self.faults.slow
    }

    fn op(&mut self, action: &Action, port: PortId, id: RuleId, now: Duration) -> Option<Op> {
        match *action {
            Action::Count(id) => Some(Op::Count { id, counter: self.new_counter(), shared: None }),
            Action::Age { timeout, context } => {
                let what = Aged { context, owner: AgeOwner::Rule(id.0) };
                Some(Op::Age { age: self.ages.create(port, timeout, what, now), shared: None })
            }
            Action::Indirect(indirect) => {
                let place = indirect.0 as u32;
                let object = self.indirects.get_mut(place as usize)?;
                object.users += 1;
                let shared = Some(place);
                Some(match object.shared {
                    Shared::Count(counter) => Op::Count { id: u32::MAX, counter, shared },
                    Shared::Age(age) => Op::Age { age, shared },
                })
            }
            ref other => program::compile(other),
        }
    }

    pub(crate) fn used_counters(&self) -> u64 {
        (self.counters.len() - self.free_counters.len()) as u64
    }

    pub(crate) fn counter_limit(&self) -> u64 {
        self.faults.counters.unwrap_or(self.profile.max_counters)
    }

    pub(crate) fn new_counter(&mut self) -> u32 {
        match self.free_counters.pop() {
            Some(counter) => {
                if let Some(slot) = self.counters.get_mut(counter as usize) {
                    *slot = Counter::default();
                }
                counter
            }
            None => {
                self.counters.push(Counter::default());
                (self.counters.len() - 1) as u32
            }
        }
    }

    pub(crate) fn release(&mut self, shared: Shared) {
        match shared {
            Shared::Count(counter) => self.free_counters.push(counter),
            Shared::Age(age) => self.ages.destroy(age),
        }
    }

    pub(crate) fn refresh(&self) -> Duration {
        self.faults.refresh.unwrap_or(self.profile.refresh)
    }

    fn rule(&self, id: RuleId) -> Result<(u32, &Rule), FlowError> {
        let index = id.0 as u32;
        match self.rules.get(index as usize) {
            Some(rule) if rule.live && u64::from(rule.generation) == id.0 >> 32 => Ok((index, rule)),
            _ => Err(FlowError::new(ENOENT, ErrorKind::Handle, c"no such rule")),
        }
    }

    /// Destroys a rule, at once.
    ///
    /// # Errors
    /// ENOENT: no such rule, or no longer (a flush or a reset).
    pub fn destroy(&mut self, id: RuleId) -> Result<(), FlowError> {
        let (index, _) = self.rule(id)?;
        let secured = |rule: &Rule| rule.ops.iter().any(|op| matches!(op, Op::Security(_)));
        if self.profile.rules_go_with_sessions && self.rules.get(index as usize).is_some_and(secured) {
            return Err(FlowError::new(EINVAL, ErrorKind::Handle, c"Failed to destroy flow"));
        }
        self.remove(index);
        Ok(())
    }

    /// Removes the rules that name a session, of a NIC that has them for no rules.
    pub(super) fn remove_secured(&mut self, uses: impl Fn(&Op) -> bool) {
        for index in 0..self.rules.len() {
            if self.rules.get(index).is_some_and(|rule| rule.live && rule.ops.iter().any(&uses)) {
                self.remove(index as u32);
            }
        }
    }

    fn remove(&mut self, index: u32) {
        let Some((location, ops)) = self.forget(index) else { return };
        self.tables.remove(location);
        for op in &ops {
            match *op {
                Op::Count { counter, shared: None, .. } => self.release(Shared::Count(counter)),
                Op::Age { age, shared: None } => self.release(Shared::Age(age)),
                Op::Count { shared: Some(place), .. } | Op::Age { shared: Some(place), .. } => {
                    if let Some(indirect) = self.indirects.get_mut(place as usize) {
                        indirect.users = indirect.users.saturating_sub(1);
                    }
                }
                _ => {}
            }
        }
    }

    /// Destroys the rules made on a port.
    pub fn flush(&mut self, port: PortId) {
        for index in 0..self.rules.len() {
            if self.rules.get(index).is_some_and(|rule| rule.live && rule.port == port) {
                self.remove(index as u32);
            }
        }
    }

    /// Rules of a port, in no order.
    pub fn rules_of(&self, port: PortId) -> impl Iterator<Item = RuleId> {
        self.rules
            .iter()
            .enumerate()
            .filter(move |(_, rule)| rule.live && rule.port == port)
            .map(|(index, rule)| RuleId(u64::from(rule.generation) << 32 | index as u64))
    }

    /// Reads a rule's counter: that of this id, or its first.
    ///
    /// # Errors
    /// ENOENT: no such rule. EINVAL: it has no such counter.
    pub fn query_count(
        &mut self,
        id: RuleId,
        counter: Option<u32>,
        reset: bool,
        now: Duration,
    ) -> Result<Hits, FlowError> {
        let wanted = self.rule(id)?.1.ops.iter().find_map(|op| match *op {
            Op::Count { id, counter: place, .. } if counter.is_none_or(|counter| counter == id) => Some(place),
            _ => None,
        });
        let refresh = self.refresh();
        match wanted.and_then(|place| self.counters.get_mut(place as usize)) {
            Some(counter) => Ok(counter.query(reset, now, refresh)),
            None => Err(FlowError::new(EINVAL, ErrorKind::Action, c"the rule has no such counter")),
        }
    }

    /// Reads a rule's AGE action.
    ///
    /// # Errors
    /// ENOENT: no such rule. EINVAL: it has none.
    pub fn query_age(&self, id: RuleId, now: Duration) -> Result<AgeState, FlowError> {
        let age = self.rule(id)?.1.ops.iter().find_map(|op| match *op {
            Op::Age { age, .. } => self.ages.query(age, now),
            _ => None,
        });
        age.ok_or(FlowError::new(EINVAL, ErrorKind::Action, c"the rule has no AGE action"))
    }

    /// Flows of a port that aged out and were not told yet: how many.
    pub fn aged_count(&mut self, port: PortId, now: Duration) -> usize {
        self.ages.count(port, now)
    }

    /// Tells flows of a port that aged out, at most `max`, each once until a packet hits it again.
    pub fn aged(&mut self, port: PortId, now: Duration, max: usize, into: &mut Vec<Aged>) {
        self.ages.take(port, now, max, into);
    }
}
