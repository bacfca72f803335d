//! A packet's way through the tables.

use std::time::Duration;

use super::action::{FieldId, Modify, PortId};
use super::counter::{Ages, Counter};
use super::edit;
use super::frame::Frame;
use super::layers::{Layers, bit, slot};
use super::nic::Nic;
use super::program::Op;
use super::security::{Sessions, Verdict};
use super::shape::{View, meta};
use super::table::{Domain, Rank};

/// Jumps and PASSTHRUs of one packet: jumps lead upward and PASSTHRU to lower ranks, so this bounds a table of nothing but those.
const MAX_STEPS: usize = 256;

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// A rule says so.
    Rule,
    /// No rule directs it to the application, and the port is isolated.
    Isolated,
    /// The actions did not leave a whole packet: decapsulation where no header ends, or no Ethernet header at the end.
    Malformed,
    /// A session dropped it: beyond its limits, or nothing that it seals.
    Security,
    /// The port is none of this NIC's.
    NoPort,
    /// A fault: it was to be forwarded.
    Swallowed,
    /// From a wire of a switch to a wire: mlx5 drops it and tells nobody (rdma-core, dr_action.c).
    WireToWire,
    /// It is in a hairpin queue that leads nowhere.
    Unbound,
}

/// A packet for the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// By this ethdev.
    pub port: PortId,
    /// On this receive queue.
    pub queue: u16,
    /// A rule chose the queue; otherwise the port's spreading did.
    pub steered: bool,
    /// Hash over addresses and ports.
    pub hash: u32,
    /// MARK.
    pub mark: Option<u32>,
    /// FLAG, or MARK.
    pub flag: bool,
    /// SET_META.
    pub meta: Option<u32>,
    /// The session that was applied, and whether it succeeded.
    pub security: Option<(u64, bool)>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To the application.
    ToSoftware(Delivery),
    /// Out of a port's wire.
    Forward {
        /// The port.
        port: PortId,
    },
    /// Nowhere.
    Drop(DropReason),
}

/// Packets since the NIC began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// From wires.
    pub received: u64,
    /// From the application.
    pub sent: u64,
    /// Forwarded by a rule.
    pub forwarded: u64,
    /// To the application because a rule says so.
    pub steered: u64,
    /// No rule decided.
    pub missed: u64,
    /// Dropped by a rule.
    pub dropped: u64,
    /// Dropped because actions left no whole packet.
    pub malformed: u64,
}

/// Where a packet goes after the rules of a group.
pub(crate) enum Disposition {
    Drop(DropReason),
    Queue(u16),
    Wire(PortId),
    Application(PortId),
    Jump(u32),
    Next,
    /// As if no rule had matched: SECURITY alone.
    Default,
    /// A session has refused it: to the application, past all rules.
    Refused,
}

/// A packet on its way.
pub(crate) struct Walk {
    layers: Layers,
    meta: [u8; meta::LEN],
    /// It begins with an Ethernet header.
    has_l2: bool,
    deep: bool,
    mark: Option<u32>,
    flag: bool,
    metadata: Option<u32>,
    security: Option<(u64, bool)>,
}

impl Walk {
    fn new(port: PortId, from: u8, frame: &Frame, deep: bool) -> Walk {
        let mut walk = Walk {
            layers: Layers::default(),
            meta: [0; meta::LEN],
            has_l2: true,
            deep,
            mark: None,
            flag: false,
            metadata: None,
            security: None,
        };
        walk.meta[meta::FROM] = from;
        walk.put(meta::PORT, &port.to_be_bytes());
        walk.parse(frame);
        walk
    }

    /// A hairpin has brought it to the sending side of a port.
    pub(crate) fn sent_from(&mut self, port: PortId) {
        self.put(meta::PORT, &port.to_be_bytes());
        let tags = meta::TAGS..meta::LEN;
        self.meta.get_mut(tags).unwrap_or_default().fill(0);
    }

    fn put(&mut self, at: usize, octets: &[u8]) {
        if let Some(to) = self.meta.get_mut(at..at + octets.len()) {
            to.copy_from_slice(octets);
        }
    }

    fn number(&self, at: usize) -> u32 {
        match self.meta.get(at..at + 4) {
            Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    fn parse(&mut self, frame: &Frame) {
        self.layers = if self.has_l2 {
            Layers::of_frame(frame.bytes(), self.deep)
        } else {
            Layers::of_packet(frame.bytes(), self.deep)
        };
        let tags = [bit::VLAN, bit::VLAN << 1].map(|bits| self.layers.has(bits));
        let checks = self.layers.checks;
        self.put(meta::CHECKS, &checks);
        let third = tags[1] && {
            let at = usize::from(self.layers.at[slot::VLAN + 1]) + 2;
            super::layers::be16(frame.bytes(), at).is_some_and(super::layers::is_tag)
        };
        self.meta[meta::TAGGED] = u8::from(tags[0]) | u8::from(tags[1]) << 1 | u8::from(third) << 2;
        let [outer, inner] = self.layers.extensions;
        self.put(meta::EXTENSIONS, &outer.to_le_bytes());
        self.put(meta::EXTENSIONS + 2, &inner.to_le_bytes());
    }

    fn set_mark(&mut self, mark: u32) {
        self.mark = Some(mark);
        self.flag = true;
        self.put(meta::MARK, &mark.to_be_bytes());
    }

    fn set_metadata(&mut self, metadata: u32) {
        self.metadata = Some(metadata);
        self.put(meta::META, &metadata.to_be_bytes());
    }

    /// MODIFY_FIELD of mark, metadata or a tag: numbers in the machine's order, bits counted from the least significant.
    fn modify(&mut self, modify: &Modify) {
        let Some([a, b, c, d, ..]) = modify.value else { return };
        let value = u32::from_le_bytes([a, b, c, d]);
        let at = match modify.field {
            FieldId::Mark => meta::MARK,
            FieldId::Meta => meta::META,
            _ => meta::TAGS + 4 * modify.level as usize,
        };
        let old = self.number(at);
        let width = modify.width.min(32) as usize;
        let mask = ((1u64 << width) - 1) as u32;
        let part = edit::combine(
            modify.op,
            u128::from(old >> modify.offset & mask),
            u128::from(value >> modify.offset & mask),
            width,
        ) as u32;
        let new = old & !(mask << modify.offset) | part << modify.offset;
        match modify.field {
            FieldId::Mark => self.set_mark(new),
            FieldId::Meta => self.set_metadata(new),
            _ => self.put(at, &new.to_be_bytes()),
        }
    }

    /// Spreads over addresses and ports of the outermost headers.
    fn hash(&self, octets: &[u8]) -> u32 {
        let Some(ip) = self.layers.ip[0] else { return 0 };
        let addresses = if ip.version == 4 { ip.at + 12..ip.at + 20 } else { ip.at + 8..ip.at + 40 };
        let ported = self.layers.present & (bit::TCP | bit::UDP | bit::SCTP) != 0;
        let ports = ip.l4.filter(|_| ported).and_then(|at| octets.get(at..at + 4)).unwrap_or_default();
        // FNV-1a.
        let all = octets.get(addresses).unwrap_or_default().iter().chain([&ip.protocol]).chain(ports);
        let hash = all.fold(0x811c_9dc5, |hash: u32, &octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
        hash ^ hash >> 15
    }
}

/// The parts of a NIC that actions use.
struct Machine<'a> {
    counters: &'a mut [Counter],
    ages: &'a mut Ages,
    sessions: &'a mut Sessions,
    refresh: Duration,
    now: Duration,
}

/// Changes tags and goes on to another table: the frame is on its way in still, and may end in software, as it came.
fn is_tag_stage(ops: &[Op]) -> bool {
    let tags = |op: &Op| match op {
        Op::PopVlan | Op::PushVlan(_) | Op::SetPriority(_) | Op::SetTag { .. } | Op::SetMeta { .. } => true,
        Op::Modify(modify) => matches!(modify.field, FieldId::VlanId | FieldId::Tag | FieldId::Meta),
        Op::Jump(_) | Op::Count { .. } => true,
        _ => false,
    };
    ops.iter().any(|op| matches!(op, Op::Jump(_))) && ops.iter().all(tags)
}

impl Machine<'_> {
    /// Runs a rule's actions in their order.
    fn run(&mut self, ops: &[Op], edits: bool, walk: &mut Walk, frame: &mut Frame) -> Disposition {
        let met = frame.len();
        if edits
            && !is_tag_stage(ops)
            && let Some(end) = walk.layers.end()
        {
            // Padding of short frames is not part of the packet (IEEE 802.3 §3.2.8): the NIC does not carry it on.
            frame.truncate(end);
        }
        let mut disposition = Disposition::Default;
        for op in ops {
            match *op {
                Op::PassThru => disposition = Disposition::Next,
                Op::Jump(group) => disposition = Disposition::Jump(group),
                Op::Queue(queue) => disposition = Disposition::Queue(queue),
                Op::Rss(ref queues) => {
                    let pick = walk.hash(frame.bytes()) as usize % queues.len().max(1);
                    disposition = Disposition::Queue(queues.get(pick).copied().unwrap_or(0));
                }
                Op::Drop => disposition = Disposition::Drop(DropReason::Rule),
                Op::Wire(port) => disposition = Disposition::Wire(port),
                Op::Application(port) => disposition = Disposition::Application(port),
                Op::Mark(mark) => walk.set_mark(mark),
                Op::Flag => walk.flag = true,
                Op::Count { counter, .. } => {
                    if let Some(counter) = self.counters.get_mut(counter as usize) {
                        counter.count(met, self.now, self.refresh);
                    }
                }
                Op::Age { age, .. } => self.ages.hit(age, self.now),
                Op::SetMeta { data, mask } => {
                    walk.set_metadata(walk.number(meta::META) & !mask | data & mask);
                }
                Op::SetTag { data, mask, index } => {
                    let at = meta::TAGS + 4 * usize::from(index);
                    let tag = walk.number(at) & !mask | data & mask;
                    walk.put(at, &tag.to_be_bytes());
                }
                Op::Security(session) => {
                    // A packet that no session is for stays as it is, and goes on as the rule says.
                    let Some(session) = self.sessions.meant(session, frame, &walk.layers) else { continue };
                    match self.sessions.apply(session, frame, &walk.layers) {
                        Verdict::Done => {
                            walk.security = Some((session, true));
                            walk.parse(frame);
                        }
                        Verdict::Refused => {
                            walk.security = Some((session, false));
                            return Disposition::Refused;
                        }
                        Verdict::Drop => return Disposition::Drop(DropReason::Security),
                    }
                }
                ref edit => {
                    if change(edit, walk, frame).is_none() {
                        return Disposition::Drop(DropReason::Malformed);
                    }
                }
            }
        }
        disposition
    }
}

/// Runs an action that changes the packet; `None` when it cannot be done to this one.
fn change(op: &Op, walk: &mut Walk, frame: &mut Frame) -> Option<()> {
    match *op {
        Op::Decap(len) => {
            if !walk.has_l2 || !walk.layers.may_cut(len) {
                return None;
            }
            frame.remove(0, len);
            walk.has_l2 = false;
            walk.parse(frame);
        }
        Op::Encap(ref headers, template) => {
            frame.prepend(headers);
            template.fill(frame.bytes_mut());
            walk.has_l2 = true;
            walk.parse(frame);
        }
        Op::PopVlan if walk.layers.has(bit::VLAN) => {
            frame.remove(12, 4);
            walk.parse(frame);
        }
        Op::PushVlan(tpid) => {
            if !walk.layers.has(bit::ETH) {
                return None;
            }
            // OpenFlow 1.5 §5.8: the new tag's id and priority are those of the outer tag, or zero.
            let tci = if walk.layers.has(bit::VLAN) { super::layers::be16(frame.bytes(), 14)? } else { 0 };
            let ([a, b], [c, d]) = (tpid.to_be_bytes(), tci.to_be_bytes());
            frame.insert(12, &[a, b, c, d]);
            walk.parse(frame);
        }
        Op::SetPriority(priority) => edit::set_priority(frame.bytes_mut(), &walk.layers, priority),
        Op::SetTtl(ttl) => edit::set_ttl(frame.bytes_mut(), &walk.layers, ttl),
        Op::DecTtl => edit::dec_ttl(frame.bytes_mut(), &walk.layers),
        Op::SetPort { source, port } => edit::set_port(frame.bytes_mut(), &walk.layers, source, port),
        Op::Modify(ref modify) => match modify.field {
            FieldId::Mark | FieldId::Meta | FieldId::Tag => walk.modify(modify),
            _ => edit::modify(frame.bytes_mut(), &walk.layers, modify),
        },
        _ => {}
    }
    Some(())
}

impl Nic {
    /// Packets since the NIC began.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// A packet from a port's wire: transfer rules, then the port's ingress rules, then the application.
    ///
    /// After a miss behind a jump the packet goes on as the rules before left it.
    pub fn process(&mut self, port: PortId, frame: &mut Frame, now: Duration) -> Outcome {
        self.stats.received += 1;
        self.tick();
        if !self.ports.contains_key(&port) {
            return Outcome::Drop(DropReason::NoPort);
        }
        let mut walk = Walk::new(port, meta::WIRE, frame, self.deep_rules > 0);
        let mut disposition = self.run(Domain::Transfer, &mut walk, frame, now);
        if matches!(disposition, Disposition::Default) {
            disposition = self.run(Domain::Ingress(port), &mut walk, frame, now);
        }
        self.finish(port, &mut walk, frame, disposition, now)
    }

    /// Is there no rule that a packet of the application's on this port could meet?
    pub fn transmits_untouched(&self, port: PortId) -> bool {
        self.tables.is_empty(Domain::Egress(port), 0) && self.tables.is_empty(Domain::Transfer, 0)
    }

    /// A packet that the application sends on a port: its egress rules, then transfer rules, then the wire.
    pub fn transmit(&mut self, port: PortId, frame: &mut Frame, metadata: Option<u32>, now: Duration) -> Outcome {
        self.stats.sent += 1;
        if !self.ports.contains_key(&port) {
            return Outcome::Drop(DropReason::NoPort);
        }
        if self.transmits_untouched(port) {
            return Outcome::Forward { port };
        }
        let mut walk = Walk::new(port, meta::APPLICATION, frame, self.deep_rules > 0);
        if let Some(metadata) = metadata {
            walk.set_metadata(metadata);
        }
        let mut disposition = self.run(Domain::Egress(port), &mut walk, frame, now);
        if matches!(disposition, Disposition::Default) {
            disposition = self.run(Domain::Transfer, &mut walk, frame, now);
        }
        if matches!(disposition, Disposition::Default) {
            self.stats.missed += 1;
            return if walk.has_l2 { Outcome::Forward { port } } else { self.malformed() };
        }
        self.finish(port, &mut walk, frame, disposition, now)
    }

    /// Counts toward a reset that was asked for.
    fn tick(&mut self) {
        self.packets += 1;
        if self.faults.reset_at == Some(self.packets) {
            self.reset();
        }
    }

    fn malformed(&mut self) -> Outcome {
        self.stats.malformed += 1;
        Outcome::Drop(DropReason::Malformed)
    }

    pub(crate) fn run(&mut self, domain: Domain, walk: &mut Walk, frame: &mut Frame, now: Duration) -> Disposition {
        let refresh = self.refresh();
        let (mut group, mut after): (u32, Option<Rank>) = (0, None);
        for _ in 0..MAX_STEPS {
            let view = View { octets: frame.bytes(), layers: &walk.layers, meta: &walk.meta };
            let rules = &self.rules;
            let found = self.tables.lookup(domain, group, after, &view, |rule| {
                let rule = rules.get(rule as usize)?;
                (rule.at <= now && view.in_ranges(&rule.ranges)).then_some(rule.age)
            });
            let Some((rank, rule)) = found.and_then(|(rank, rule)| Some((rank, rules.get(rule as usize)?))) else {
                return Disposition::Default;
            };
            let mut machine = Machine {
                counters: &mut self.counters,
                ages: &mut self.ages,
                sessions: &mut self.sessions,
                refresh,
                now,
            };
            match machine.run(&rule.ops, rule.edits, walk, frame) {
                Disposition::Jump(to) => (group, after) = (to, None),
                Disposition::Next => after = Some(rank),
                disposition => return disposition,
            }
        }
        Disposition::Drop(DropReason::Malformed)
    }

    fn is_wire_to_wire(&self, from: PortId, to: PortId) -> bool {
        let wire = |port| self.place(port).is_some_and(|place| place.domain.is_some() && !place.function);
        self.profile.engine.is_some() && wire(from) && wire(to)
    }

    pub(crate) fn finish(
        &mut self,
        port: PortId,
        walk: &mut Walk,
        frame: &mut Frame,
        disposition: Disposition,
        now: Duration,
    ) -> Outcome {
        if !walk.has_l2 && !matches!(disposition, Disposition::Drop(_)) {
            return self.malformed();
        }
        let (to, queue) = match disposition {
            Disposition::Drop(DropReason::Malformed) => return self.malformed(),
            Disposition::Drop(reason) => {
                self.stats.dropped += 1;
                return Outcome::Drop(reason);
            }
            Disposition::Wire(_) if self.faults.swallow => return Outcome::Drop(DropReason::Swallowed),
            Disposition::Wire(to) if self.is_wire_to_wire(port, to) => return Outcome::Drop(DropReason::WireToWire),
            Disposition::Wire(port) => {
                self.stats.forwarded += 1;
                return Outcome::Forward { port };
            }
            Disposition::Queue(queue) => match self.hairpins.of(port, queue) {
                Some(to) => return self.hairpin(to, walk, frame, now),
                None => (port, Some(queue)),
            },
            Disposition::Application(port) => (port, None),
            Disposition::Jump(_) | Disposition::Next | Disposition::Default | Disposition::Refused => {
                self.stats.missed += 1;
                (port, None)
            }
        };
        let steered = matches!(disposition, Disposition::Queue(_) | Disposition::Application(_));
        let Some(&target) = self.ports.get(&to) else { return Outcome::Drop(DropReason::NoPort) };
        if target.isolated && !steered {
            return Outcome::Drop(DropReason::Isolated);
        }
        self.stats.steered += u64::from(steered);
        let hash = walk.hash(frame.bytes());
        Outcome::ToSoftware(Delivery {
            port: to,
            queue: queue.unwrap_or_else(|| self.hairpins.spread(to, target.queues, hash)),
            steered: queue.is_some(),
            hash,
            mark: walk.mark,
            flag: walk.flag,
            meta: walk.metadata,
            security: walk.security,
        })
    }
}
