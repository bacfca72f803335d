//! The engine against a NIC that does what a script says, and panics where the engine breaks the rules of the trait.

mod backends;
mod chains;
mod device;
mod egress_check;
mod fake;
mod faults;
mod moves;
mod property;
mod sessions;
mod transit;

use std::{
    collections::BTreeMap,
    hash::{Hash as _, Hasher as _},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use offload_rules::{
    MacAddr, NexthopId, VifId, VrfId,
    flow::{Decided, Egress, FlowKey, Forward, Operations, Program},
    forwarding::{Sa, Snapshot},
    lower::{
        Action, Arrival, Chain, Direction, Item, Meta, NicProfile, NotOffloaded, Rule, Session, Table, Unsupported,
        priority,
    },
    transit::TransitRule,
};

use super::{Config, Engine, Lowering, NicBackend, SessionKind, SessionPlace};
use crate::protocol::{NotHeld, OffloadId, Report, Request, Tier};
use fake::{Fake, Nic};

/// What [`Toy`] reads out of a direction, so that tests need no forwarding state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    shape: u8,
    full: bool,
    partial: bool,
    /// Differs where the rule's actions shall differ.
    version: u8,
    /// What its rules need: bits of [`chain`].
    chain: u8,
}

const PLAIN: Kind = Kind { shape: 17, full: true, partial: true, version: 1, chain: 0 };

/// What a toy's rule needs, in this order.
mod chain {
    /// A rule that all flows share.
    pub(super) const GUARD: u8 = 1;
    /// Two rules that all flows of a port share: what the first stage could not finish, and the first stage, which needs that.
    pub(super) const STAGE: u8 = 2;
    /// A rule that no other flow needs.
    pub(super) const OWN: u8 = 4;
    /// The guard, behind all others.
    pub(super) const LATE_GUARD: u8 = 8;
}

fn id(entry: u32) -> OffloadId {
    OffloadId { worker: 0, entry, generation: 1 }
}

fn vif(number: u32) -> VifId {
    VifId::new(number).unwrap()
}

fn direction(flow: u32, reverse: bool, kind: Kind) -> Direction {
    let near = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + flow));
    let far = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    let (src, dst, at) = if reverse { (far, near, 2) } else { (near, far, 1) };
    let vrf = VrfId::new(1).unwrap();
    Direction {
        key: FlowKey::new(vrf, vif(at), src, dst, kind.shape, 1000, 2000),
        arrival: Arrival {
            port: vif(at),
            vif: vif(at),
            sealed_on: None,
            eth_dst: MacAddr::VIRTUAL,
            tags: [None, None],
            pcp_dei: 0,
            tunnel: None,
            tos: kind.chain,
            ttl: kind.version,
        },
        program: Arc::new(Program {
            ops: Operations::Forward(Forward::unchanged(Egress::Output(vif(3 - at)))),
            dependencies: Vec::new(),
            nexthop: NexthopId::NONE,
            label: None,
            vrf,
            passes: Vec::new(),
            decided: Decided::BY_NONE,
        }),
        egress_port: Some(vif(3 - at)),
        ingress_mtu: 1500,
        tunnel_sport: u16::from(kind.full),
        ip_id: u16::from(kind.partial),
    }
}

fn install_as(id: OffloadId, kind: Kind, rate: u64) -> Request {
    let pair = [false, true].map(|reverse| Some(direction(id.entry, reverse, kind)));
    Request::Install { id, directions: Arc::new(pair), rate }
}

fn install(id: OffloadId) -> Request {
    install_as(id, PLAIN, 1000)
}

fn rule_of(direction: &Direction, table: Table, priority: u32, actions: Vec<Action>) -> Rule {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (direction.key.source(), direction.key.destination()) else {
        panic!("tests use IPv4")
    };
    let items = vec![
        Item::Port(direction.arrival.port),
        Item::Ipv4 {
            src: Some(src),
            dst: Some(dst),
            proto: Some(direction.key.proto),
            tos: offload_rules::lower::Field { spec: 0, mask: 0 },
            ttl: None,
            no_options: true,
            whole: true,
            max_len: None,
        },
    ];
    Rule { table, priority, items, actions }
}

fn steering(number: u32) -> Rule {
    let items = vec![Item::Port(vif(number))];
    Rule { table: Table::Steering, priority: 1, items, actions: vec![Action::Jump(Table::Tenant)] }
}

fn guard() -> Rule {
    Rule { table: Table::Tunnel, priority: 0, items: Vec::new(), actions: vec![Action::Drop] }
}

fn unfinished(port: VifId) -> Rule {
    Rule { table: Table::Tunnel, priority: 1, items: vec![Item::Port(port)], actions: vec![Action::Rss] }
}

fn first_stage(port: VifId) -> Rule {
    let actions = vec![Action::Jump(Table::Tenant)];
    Rule { table: Table::Opened, priority: 1, items: vec![Item::Port(port)], actions }
}

/// What must be in the NIC as long as this rule is, in this order.
fn needs_of(rule: &Rule) -> Vec<Rule> {
    let Some(Item::Port(port)) = rule.items.first() else { return Vec::new() };
    if *rule == first_stage(*port) {
        return vec![unfinished(*port)];
    }
    let bits = rule.actions.iter().find_map(|action| match action {
        Action::SetMeta(Meta::Opened(bits)) if matches!(rule.table, Table::Tenant | Table::Flows) => Some(bits.get()),
        _ => None,
    });
    let has = |bit: u8| bits.is_some_and(|bits| bits & u16::from(bit) != 0);
    let mut needs = Vec::new();
    if has(chain::GUARD) {
        needs.push(guard());
    }
    if has(chain::STAGE) {
        needs.extend([unfinished(*port), first_stage(*port)]);
    }
    if has(chain::OWN) {
        let items = rule.items.iter().skip(1).cloned().collect();
        needs.push(Rule { table: Table::Seal, priority: 2, items, actions: vec![Action::Port(*port)] });
    }
    if has(chain::LATE_GUARD) && !has(chain::GUARD) {
        needs.push(guard());
    }
    needs
}

/// The chain of a rule that needs these.
fn chained(mut rule: Rule, bits: u8) -> Chain {
    if bits != 0 {
        rule.actions.insert(0, Action::SetMeta(Meta::Opened(vif(bits.into()))));
    }
    Chain { needs: needs_of(&rule), rule }
}

/// Lowering without forwarding state.
#[derive(Debug, Clone, Default)]
struct Toy {
    steering: Arc<Mutex<Vec<Rule>>>,
    /// Times that the proactive rules were asked for.
    plans: Arc<AtomicU64>,
    /// Rules for transit that were asked for.
    transits: Arc<AtomicU64>,
    /// The port of each tunnel.
    underlay: Arc<Mutex<BTreeMap<VifId, VifId>>>,
    canaries: Vec<u8>,
    /// What canaries need.
    canary_chain: u8,
    capacity: Option<usize>,
}

impl Lowering for Toy {
    type Shape = u8;

    fn name(&self) -> &str {
        "toy"
    }

    fn refresh_ms(&self) -> u64 {
        0
    }

    fn capacity(&self) -> Option<usize> {
        self.capacity
    }

    fn canaries(&self, _: &Snapshot) -> Vec<(u8, Chain)> {
        let canary = |shape: &u8| {
            let direction = direction(0x00ff_ffff, false, Kind { shape: *shape, ..PLAIN });
            (*shape, chained(rule_of(&direction, Table::Tenant, 2, vec![Action::Drop]), self.canary_chain))
        };
        self.canaries.iter().map(canary).collect()
    }

    fn proactive(&self, _: &Snapshot) -> Vec<Rule> {
        self.plans.fetch_add(1, Ordering::Relaxed);
        self.steering.lock().unwrap().clone()
    }

    fn ports_version(&self) -> u64 {
        // Tests change the steering at will.
        let mut hasher = crate::hash::QuickHasher::default();
        self.steering.lock().unwrap().hash(&mut hasher);
        self.underlay.lock().unwrap().hash(&mut hasher);
        hasher.finish()
    }

    fn begins_with_any_number(&self) -> bool {
        true
    }

    fn session(
        &self,
        _: &Snapshot,
        vif: VifId,
        offered: &mut dyn FnMut(VifId) -> Vec<SessionKind>,
    ) -> Result<SessionPlace, NotHeld> {
        let port = self.underlay.lock().unwrap().get(&vif).copied().ok_or(NotHeld::Underlay)?;
        let kind = offered(port).first().copied().ok_or(NotHeld::Unsupported)?;
        Ok(SessionPlace { kind, link: port, port })
    }

    fn open_rule(
        &self,
        _: &Snapshot,
        vif: VifId,
        place: SessionPlace,
        sa: &Sa,
        session: Session,
    ) -> Result<Rule, Unsupported> {
        let items = vec![Item::Port(place.port), Item::Esp { spi: sa.spi }];
        let actions = vec![Action::SetMeta(Meta::Opened(vif)), Action::Security(session), Action::Jump(Table::Opened)];
        Ok(Rule { table: Table::Steering, priority: 0, items, actions })
    }

    fn seal_rule(
        &self,
        vif: VifId,
        place: SessionPlace,
        session: Session,
        alternate: bool,
    ) -> Result<Rule, Unsupported> {
        let actions = vec![Action::Security(session), Action::Port(place.port)];
        let priority = if alternate { priority::FLOW_ALTERNATE } else { priority::FLOW };
        Ok(Rule { table: Table::Seal, priority, items: vec![Item::Meta(Meta::ToSeal(vif))], actions })
    }

    fn full(&self, _: &Snapshot, direction: &Direction, priority: u32) -> Result<(Chain, u8), Unsupported> {
        if direction.tunnel_sport == 0 {
            return Err(Unsupported::Encap);
        }
        let actions = vec![
            Action::Count,
            Action::SetTtl { version: 4, ttl: direction.arrival.ttl },
            Action::Port(direction.egress_port.unwrap()),
        ];
        let rule = rule_of(direction, Table::Tenant, priority, actions);
        Ok((chained(rule, direction.arrival.tos), direction.key.proto))
    }

    fn transit(&self, snapshot: &Snapshot, rule: &TransitRule) -> Result<(Chain, Option<u8>), Unsupported> {
        self.transits.fetch_add(1, Ordering::Relaxed);
        let (chain, shape) = Lowering::transit(&NicProfile::by_name("twin").unwrap(), snapshot, rule)?;
        Ok((chain, shape.map(|_| 201)))
    }

    fn partial(
        &self,
        _: &Snapshot,
        direction: &Direction,
        _: u32,
        mark: u32,
        queue: u16,
    ) -> Result<(Chain, u8), Unsupported> {
        if direction.ip_id == 0 {
            return Err(Unsupported::Mark);
        }
        let actions = vec![Action::Mark(mark), Action::Queue(queue)];
        // Where the whole rule cannot be, its mark needs the same.
        let bits = if direction.tunnel_sport == 0 { direction.arrival.tos } else { 0 };
        Ok((chained(rule_of(direction, Table::Flows, 0, actions), bits), 200))
    }
}

/// An engine, its NIC, and all that it has told.
struct Bed {
    engine: Engine<Fake, Toy>,
    nic: Nic,
    toy: Toy,
    now: u64,
    told: Vec<Report>,
}

impl Bed {
    fn new() -> Self {
        Self::with(Config::default(), Toy::default())
    }

    fn with(config: Config, toy: Toy) -> Self {
        let (fake, nic) = Fake::new();
        Self::over(config, toy, fake, nic, Snapshot::empty())
    }

    fn over(config: Config, toy: Toy, fake: Fake, nic: Nic, snapshot: Snapshot) -> Self {
        nic.lock().unwrap().needs_of = Some(needs_of);
        let engine =
            Engine::new(config, toy.clone(), NicBackend::with_sessions(fake.clone(), fake), Arc::new(snapshot));
        Self { engine, nic, toy, now: 1_000, told: Vec::new() }
    }

    fn ask(&mut self, request: Request) {
        self.engine.request(request, self.now);
    }

    /// One poll, so many milliseconds later.
    fn poll(&mut self, later: u64) {
        self.now += later;
        self.nic.lock().unwrap().now = self.now;
        self.engine.poll(self.now, &mut self.told);
    }

    /// Until nothing moves at this moment.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.poll(0);
            if self.engine.idle() {
                return;
            }
        }
        panic!("never idle: {:?}", self.engine.status(self.now));
    }

    /// This long, in steps of 100 ms.
    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(100) {
            self.poll(100);
            self.poll(0);
        }
    }

    fn state(&self, id: OffloadId) -> Option<(Tier, Option<NotOffloaded>)> {
        self.told.iter().rev().find_map(|report| match report {
            Report::State { id: other, tier, reason } if *other == id => Some((*tier, *reason)),
            _ => None,
        })
    }

    fn tier(&self, id: OffloadId) -> Option<Tier> {
        self.state(id).map(|(tier, _)| tier)
    }

    fn gone(&self, id: OffloadId) -> usize {
        self.told.iter().filter(|report| **report == Report::Gone { id }).count()
    }

    /// Packets told, of both directions.
    fn counted(&self, wanted: OffloadId) -> [u64; 2] {
        let mut sum = [0; 2];
        for report in &self.told {
            if let Report::Counted { id, direction, packets, .. } = report
                && *id == wanted
            {
                sum[usize::from(*direction)] += packets;
            }
        }
        sum
    }

    /// Packets of a direction, as many as the NIC's rule takes.
    fn hit(&mut self, flow: u32, reverse: bool, packets: u64) {
        let wanted = rule_of(&direction(flow, reverse, PLAIN), Table::Tenant, 0, Vec::new()).items;
        let same = |items: &[Item]| match (items, &wanted[..]) {
            // Whatever the protocol is.
            (
                [Item::Port(port), Item::Ipv4 { src, dst, .. }],
                [Item::Port(wanted), Item::Ipv4 { src: from, dst: to, .. }],
            ) => port == wanted && src == from && dst == to,
            _ => false,
        };
        self.nic.lock().unwrap().hit(same, packets);
    }

    /// Nothing leaked, nothing differs.
    fn assert_healthy(&mut self) {
        let diff = self.engine.diff();
        assert!(diff.is_empty(), "{diff:?}\n{:?}", self.engine.status(self.now));
        let installed = self.nic.lock().unwrap().rules.len();
        let known = self.engine.rules().filter(|rule| rule.live).count();
        assert_eq!(installed, known, "rules in the NIC and in the books");
    }
}
