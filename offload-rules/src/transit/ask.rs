//! Asks the walk about all packets of a prefix by one of them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{Reason, ingress::Entrance};
use crate::{
    VrfId,
    classify::{self, Inquiry, PacketRead, Role, Side, Start, Trace, Verdict},
    flow::{Choices, Decided, Dependency, Egress, FlowKey, Program},
    forwarding::Snapshot,
    lower::{Direction, L4, ingress_mtu},
};

/// The discard service (RFC 863): no listener's.
const PORT: u16 = 9;

/// An answer, and what it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer<T> {
    pub(super) value: T,
    pub(super) dependencies: Vec<Dependency>,
}

fn inquiry<'a>(key: &'a FlowKey, entrance: &Entrance, outer: Option<Ipv4Addr>) -> Inquiry<'a> {
    Inquiry {
        key,
        service_port: key.dport,
        ingress: entrance.ingress(outer),
        start: Start::Route,
        role: Role::Initiator,
        prior: Choices::default(),
        other_ingress: None,
        hash: key.spread(),
    }
}

fn key(entrance: &Entrance, source: IpAddr, destination: IpAddr, l4: L4) -> FlowKey {
    FlowKey::new(entrance.vrf, entrance.key_vif(), source, destination, l4.proto(), PORT, PORT)
}

/// Two addresses of a prefix: the walk notes a packet's address by its value, so that one may be taken for that of a tunnel's end.
fn addresses(net: &IpNet) -> [IpAddr; 2] {
    [net.network(), net.broadcast()]
}

/// May all packets from this prefix come in here?
pub(super) fn source(snapshot: &Snapshot, entrance: &Entrance, outer: Option<Ipv4Addr>, net: &IpNet) -> Answer<bool> {
    let [first, second] = addresses(net).map(|source| source_at(snapshot, entrance, outer, source));
    if first.value { first } else { second }
}

fn source_at(snapshot: &Snapshot, entrance: &Entrance, outer: Option<Ipv4Addr>, source: IpAddr) -> Answer<bool> {
    let forged = outer.is_some_and(|outer| snapshot.is_own_tunnel_source(IpAddr::V4(outer)));
    let key = key(entrance, source, source, L4::Udp);
    let traced = classify::trace_arrival(snapshot, &inquiry(&key, entrance, outer));
    let whole = |read: &PacketRead| {
        is_route(read, entrance.vrf, Side::Source) || is_route(read, entrance.vrf, Side::Destination)
    };
    let value = !forged && traced.verdict.is_ok() && traced.trace.is_some_and(|trace| trace.arrival.iter().all(whole));
    Answer { value, dependencies: traced.dependencies }
}

/// Is it the longest match of one of the packet's addresses in this VRF?
fn is_route(read: &PacketRead, vrf: VrfId, of: Side) -> bool {
    matches!(read, PacketRead::Route { vrf: read, side } if *read == vrf && *side == of)
}

/// How all packets to a prefix go on that may come in here, by the one from `source`.
pub(super) fn destination(
    snapshot: &Snapshot,
    entrance: &Entrance,
    (source, outer): (IpAddr, Option<Ipv4Addr>),
    (net, l4): (&IpNet, L4),
) -> Answer<Result<Arc<Direction>, Reason>> {
    let [first, second] = addresses(net).map(|to| destination_at(snapshot, entrance, (source, outer), (to, l4)));
    if first.value.is_ok() || second.value.is_err() { first } else { second }
}

fn destination_at(
    snapshot: &Snapshot,
    entrance: &Entrance,
    (source, outer): (IpAddr, Option<Ipv4Addr>),
    (destination, l4): (IpAddr, L4),
) -> Answer<Result<Arc<Direction>, Reason>> {
    let key = key(entrance, source, destination, l4);
    let inquiry = inquiry(&key, entrance, outer);
    let traced = classify::classify_traced(snapshot, &inquiry);
    let decision = match traced.verdict {
        Verdict::Forward(decision) => decision,
        Verdict::Drop { reason, .. } => {
            return refused(snapshot, &inquiry, Reason::Dropped(reason), None);
        }
        Verdict::Resolve { target, .. } if target == destination => {
            return refused(snapshot, &inquiry, Reason::Connected, None);
        }
        Verdict::Resolve { vif, target, .. } => {
            return refused(snapshot, &inquiry, Reason::Unresolved, Some(Dependency::Neighbour(vif, target)));
        }
        Verdict::AnswerEcho => return refused(snapshot, &inquiry, Reason::Packet, None),
    };
    let dependencies = decision.program.dependencies.clone();
    let value = check(traced.trace, entrance, &key, &decision.program).map(|()| {
        // Nothing of the packet that was asked about: any other one says the same.
        let nobody = match destination {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let key = FlowKey { sport: 0, dport: 0, ..self::key(entrance, nobody, nobody, l4) };
        let program = Program { dependencies: Vec::new(), decided: Decided::BY_NONE, ..decision.program };
        let arrival = entrance.arrival;
        let egress_port = program.egress().map(|vif| snapshot.port_of(vif));
        let ingress_mtu = ingress_mtu(snapshot, &arrival);
        let tunnel_sport = tunnel_port(&key, &program);
        Arc::new(Direction {
            key,
            arrival,
            program: Arc::new(program),
            egress_port,
            ingress_mtu,
            tunnel_sport,
            ip_id: 0,
        })
    });
    Answer { value, dependencies }
}

/// The source port of a way's tunnel, a dynamic one (RFC 7510 §3): ways to other ends have others.
fn tunnel_port(key: &FlowKey, program: &Program) -> u16 {
    let Some(header) = program.forward().and_then(|forward| forward.encap.as_ref()) else { return 0 };
    let ends = FlowKey::new(key.vrf, key.vif, header.sip.into(), header.dip.into(), key.proto, 0, header.udp_port);
    0xc000 | ends.spread() as u16 & 0x3fff
}

/// What a verdict depends on that does not forward is found by asking again.
fn refused(
    snapshot: &Snapshot,
    inquiry: &Inquiry<'_>,
    why: Reason,
    waits_for: Option<Dependency>,
) -> Answer<Result<Arc<Direction>, Reason>> {
    let mut dependencies = classify::drop_program(snapshot, inquiry, crate::DropReason::NoRoute).dependencies;
    dependencies.extend(waits_for);
    Answer { value: Err(why), dependencies }
}

/// Does the decision hold for the whole prefix?
fn check(trace: Option<Trace>, entrance: &Entrance, key: &FlowKey, program: &Program) -> Result<(), Reason> {
    match program.forward().map(|forward| &forward.egress) {
        Some(Egress::Output(_)) => {}
        Some(Egress::Seal { .. } | Egress::Punt(_)) | None => return Err(Reason::Egress),
    }
    let trace = trace.ok_or(Reason::Packet)?;
    for read in &trace.departure {
        match read {
            read if is_route(read, entrance.vrf, Side::Destination) => {}
            // A packet to its own source: what is read of the one is noted of the other, too.
            read if key.src == key.dst && is_route(read, entrance.vrf, Side::Source) => {}
            PacketRead::Route { .. } => return Err(Reason::OtherVrf),
            PacketRead::Destination => return Err(Reason::Connected),
            // There is one way at present.
            PacketRead::Member(usable) if usable.len() == 1 => {}
            PacketRead::Member(_) => return Err(Reason::Spread),
        }
    }
    Ok(())
}
