//! Running plans: compare, track, write headers, count.

use offload_rules::{VifId, VrfId};

use super::{
    Lane, LaneExit, LanePlan, Ran, Waiting,
    headers::{Ordinary, V4, Way, addresses},
    plan::{PREFIX, WINDOW},
};
use crate::{
    exec::Operands,
    flow_table::{self, Record},
    packet::{Packet, parse, rewrite},
    worker::{
        ProgramId, TO_BE_DERIVED, Worker,
        counters::{Counters, Traffic},
        env::IpIds,
        flag,
        programs::Entry,
        routed::{Departure, LastPacket, Question},
    },
};
use offload_rules::flow::{
    FlowKey,
    tcp::{Segment, TcpDirection},
};

/// What packets run by, held over a batch.
struct Runner<'a> {
    records: &'a mut [Record],
    plans: &'a [LanePlan],
    /// Those that were found for packets without flows are still the right ones.
    decisions_hold: bool,
    ip_ids: &'a mut IpIds,
    /// Fixed source port of tunnels.
    entropy: Option<u16>,
    now: u32,
}

/// Packets that came one after the other and have something in common.
#[derive(Debug, Clone, Copy)]
struct Run<T> {
    of: T,
    received: Traffic,
    /// Octets as they are sent.
    sent: u64,
}

impl<T> Run<T> {
    const fn of(of: T) -> Self {
        Self { of, received: Traffic { packets: 0, bytes: 0 }, sent: 0 }
    }
}

/// Packets that have run one program in one way.
type RunOfProgram = Run<(ProgramId, Way)>;

impl Worker {
    /// Runs packets of the lane's batch, from the one at `at` on, up to the first that was not read; says how many. Those that cannot run
    /// wait.
    #[inline(never)]
    pub(super) fn run(&mut self, frames: &mut [Packet], lane: &mut Lane, at: usize, waiting: &mut Waiting) -> usize {
        let Lane { packets, hashes, slots, ran, epoch, .. } = lane;
        let (Some(packets), Some(hashes), Some(slots)) = (packets.get(at..), hashes.get(at..), slots.get(at..)) else {
            return 0;
        };
        let Self { env, state, routed, counters, .. } = self;
        let (plans, entries) = state.programs.lane();
        let mut runner = Runner {
            records: state.flows.records_mut(),
            plans,
            // Packets that went the general way meanwhile may have changed them.
            decisions_hold: routed.epoch() == *epoch,
            ip_ids: &mut state.ip_ids,
            entropy: env.config.entropy,
            now: env.clock as u32,
        };
        let (mut by_program, mut by_vif) = (RunOfProgram::of((TO_BE_DERIVED, Way::General)), Run::of(VifId::TUNNEL));
        let before = ran.len();
        for (((frame, packet), hash), slot) in frames.iter_mut().zip(packets).zip(hashes).zip(slots) {
            let received = Traffic { packets: 1, bytes: frame.len() as u64 };
            let program = match packet.way {
                Way::General => break,
                Way::Flow | Way::Routed if waiting.may_have(*hash) => None,
                Way::Flow => runner.flow(frame, packet, *slot),
                Way::Routed => runner.routed(frame, packet, *slot),
            };
            let Some(program) = program else {
                waiting.add(*hash);
                ran.push(Ran::WAITS);
                continue;
            };
            ran.push(Ran { program, vif: packet.vif });
            if by_program.of != (program, packet.way) {
                count_program(&by_program, plans, entries, counters);
                by_program = RunOfProgram::of((program, packet.way));
            }
            if by_vif.of != packet.vif {
                counters.count_in_all(by_vif.of, by_vif.received);
                by_vif = Run::of(packet.vif);
            }
            by_program.received.add(received);
            by_program.sent += frame.len() as u64;
            by_vif.received.add(received);
        }
        count_program(&by_program, plans, entries, counters);
        counters.count_in_all(by_vif.of, by_vif.received);
        ran.len() - before
    }
}

/// Counts packets that have run a program: there, where they were found, and where they are sent.
#[inline(never)]
fn count_program(run: &RunOfProgram, plans: &[LanePlan], entries: &mut [Option<Entry>], counters: &mut Counters) {
    let ((program, way), traffic) = (run.of, run.received);
    let index = (program as usize).wrapping_sub(1);
    let (Some(plan), Some(Some(entry))) = (plans.get(program as usize), entries.get_mut(index)) else { return };
    entry.packets += traffic.packets;
    if way == Way::Routed {
        entry.routed.add(traffic);
        counters.account.route(traffic.packets);
    } else {
        entry.bytes += traffic.bytes;
        counters.account.hit(traffic.packets);
    }
    if let LaneExit::Send { port, meta } = plan.exit() {
        counters.count_sent(port, meta, Traffic { packets: traffic.packets, bytes: run.sent });
    }
}

impl Runner<'_> {
    /// Runs the program of the flow in this slot, if it is the packet's and nothing has to be looked at more closely.
    #[inline(always)]
    fn flow(&mut self, frame: &mut Packet, packet: &Ordinary, slot: u32) -> Option<ProgramId> {
        let octets = frame.len() as u64;
        // `NONE` is beyond all records.
        let record = self.records.get_mut(slot as usize)?;
        let program = record.program;
        let plan = self.plans.get(program as usize)?;
        let window = frame.window::<PREFIX, WINDOW>(packet.l3.into())?;
        let ip = window.last_chunk::<{ WINDOW - PREFIX }>()?;
        if !(is_of(record, packet, addresses(ip, packet.kind >> 8)?) & plan.admits(packet)) {
            return None;
        }
        let tracked = if packet.is_tcp() { Some(track(record, packet, ip)?) } else { None };
        let operands = Operands { tunnel_sport: record.tunnel_sport, outer_id: record.ip_id, ..Operands::default() };
        plan.write(window, packet, operands);
        // Invariant: the window, which is larger, lies inside the memory.
        frame.reframe(packet.l3.into(), plan.header_len(), packet.len.into()).ok()?;
        if let Some(direction) = tracked {
            record.set_tcp_direction(direction);
        }
        record.packets += 1;
        record.bytes += octets;
        record.last_seen = self.now;
        Some(program)
    }

    /// Runs the program of the decision that was found for a packet without a flow.
    #[inline(always)]
    fn routed(&mut self, frame: &mut Packet, packet: &Ordinary, program: ProgramId) -> Option<ProgramId> {
        let window = frame.window::<PREFIX, WINDOW>(packet.l3.into())?;
        let plan = self.plans.get(program as usize).filter(|plan| plan.admits(packet) & self.decisions_hold)?;
        let mut operands = Operands::default();
        if plan.is_tunnel() {
            // Of no flow: each outer header has an identification of its own.
            operands.tunnel_sport = match self.entropy {
                Some(port) => port,
                None => {
                    let ip = window.last_chunk::<{ WINDOW - PREFIX }>()?;
                    rewrite::entropy_port(key(packet, ip)?.spread() as u32)
                }
            };
            operands.outer_id = self.ip_ids.next();
        }
        plan.write(window, packet, operands);
        frame.reframe(packet.l3.into(), plan.header_len(), packet.len.into()).ok()?;
        Some(program)
    }
}

impl Worker {
    /// Finds the decisions of packets without flows, in the place of slots of flows.
    #[inline(never)]
    pub(super) fn find_decisions(&mut self, frames: &[Packet], lane: &mut Lane) {
        let Self { env, state, routed, .. } = self;
        let (programs, mut last) = (&state.programs, LastPacket::default());
        let packets = lane.packets.iter().zip(&lane.hashes).zip(&mut lane.slots).zip(frames);
        for (((packet, hash), slot), frame) in packets.filter(|(((packet, _), _), _)| packet.way == Way::Routed) {
            *slot = TO_BE_DERIVED;
            let Some(ip) = frame.peek::<{ WINDOW - PREFIX }>(packet.l3.into()) else { continue };
            let Some([source, destination]) = addresses(ip, packet.kind >> 8) else { continue };
            let question = Question { place: [packet.place, packet.from], source, destination };
            let whole = || {
                // Looked up by routes, addresses are those that the general parser lets through.
                let ip = parse::ip(frame.data().get(packet.l3.into()..)?, (packet.kind >> 8) as u8).ok()?;
                let way = departure(packet)?;
                (!ip.multicast).then(|| (way, parse::flow_key(&ip, way.vrf, key_vif(packet))))
            };
            *slot = routed.decision_in_lane(env, programs, (*hash, question), whole, &mut last).program();
        }
        lane.epoch = routed.epoch();
    }
}

/// What decisions depend on, of a packet without a flow.
fn departure(packet: &Ordinary) -> Option<Departure> {
    Some(Departure {
        vif: packet.vif,
        vrf: vrf(packet)?,
        is_tcp: packet.is_tcp(),
        is_v6: packet.kind >> 8 != V4,
        outer: (packet.underlay != 0).then_some(packet.from as u32),
        start: Departure::start_of(packet.from),
    })
}

/// The vif in its key.
const fn key_vif(packet: &Ordinary) -> VifId {
    if packet.underlay == 0 { packet.vif } else { VifId::TUNNEL }
}

/// The VRF of a packet without a flow.
fn vrf(packet: &Ordinary) -> Option<VrfId> {
    VrfId::new(u32::from(packet.place as u16)).ok()
}

/// Is it a packet of this record's flow, which no change has concerned, by the way that the last one came? And does nobody want to see it?
#[inline(always)]
const fn is_of(record: &Record, packet: &Ordinary, [[a, b], [c, d]]: [[u64; 2]; 2]) -> bool {
    let ([e, f], [g, h]) = (flow_table::halves(&record.key.src), flow_table::halves(&record.key.dst));
    let (place, kind) = flow_table::rest(&record.key);
    let outer = u32::from_le_bytes(record.rpf_source) as u64;
    let differs = (a ^ e)
        | (b ^ f)
        | (c ^ g)
        | (d ^ h)
        | (place ^ packet.place)
        | (outer ^ packet.from)
        | (kind ^ packet.kind) as u64
        | (record.underlay_vif ^ packet.underlay) as u64
        | (record.flags & (flag::STALE | flag::SAMPLE)) as u64;
    differs == 0
}

/// TCP's numbers after a segment that goes on; `None`: its state machine has to see it.
#[inline(always)]
fn track(record: &Record, packet: &Ordinary, ip: &[u8; WINDOW - PREFIX]) -> Option<TcpDirection> {
    let l4 = ip_header_len(packet);
    let header = ip.get(l4..)?.first_chunk::<20>()?;
    let header_len = u32::from(header[12] >> 4) * 4;
    let segment = Segment {
        flags: header[13],
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        payload_len: (u32::from(packet.len) - l4 as u32).saturating_sub(header_len),
    };
    let mut direction = record.tcp_direction();
    direction.on_data(&segment).then_some(direction)
}

const fn ip_header_len(packet: &Ordinary) -> usize {
    if packet.kind >> 8 == V4 { 20 } else { 40 }
}

/// The key of a packet without a flow, as the general parser makes it.
#[inline(never)]
fn key(packet: &Ordinary, ip: &[u8; WINDOW - PREFIX]) -> Option<FlowKey> {
    let [proto, version] = packet.kind.to_le_bytes();
    let [source, destination] = addresses(ip, packet.kind >> 8)?;
    let octets = |[low, high]: [u64; 2]| (u128::from(low) | u128::from(high) << 64).to_le_bytes();
    let &[s0, s1, d0, d1] = ip.get(ip_header_len(packet)..)?.first_chunk::<4>()?;
    Some(FlowKey {
        src: octets(source),
        dst: octets(destination),
        sport: u16::from_be_bytes([s0, s1]),
        dport: u16::from_be_bytes([d0, d1]),
        vrf: vrf(packet)?,
        vif: key_vif(packet),
        proto,
        version,
    })
}
