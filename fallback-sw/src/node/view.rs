//! What the node shows of itself: workers and snapshot as the messages of the introspection API.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use offload_engine::protocol::Tier;
use offload_rules::{
    DropReason, Label, MacAddr, NexthopId, VifId, VrfId,
    flow::{
        Decided, Family, Op, VrfCounter,
        tcp::{TcpLetters, TcpState},
    },
    forwarding::{L2Rewrite, Nexthop, NexthopKind, Route, Snapshot, Vif, VifKind},
};
use proto::v1 as pb;

use super::{control::Control, encode, filter::Listed, neighbours::nud::State};
use crate::worker::{Account, Counters, VifCounters, Worker, flag};

/// Index of a record among all workers.
#[must_use]
pub fn flow_index(slot: u32, worker: usize, workers: usize) -> u64 {
    u64::from(slot) * workers as u64 + worker as u64
}

/// Worker and slot of a flow index.
#[must_use]
pub fn flow_slot(index: u64, workers: usize) -> Option<(usize, u32)> {
    let workers = workers.max(1) as u64;
    let slot = u32::try_from(index / workers).ok()?;
    Some(((index % workers) as usize, slot))
}

/// One direction of a flow; `None` when the slot is empty.
#[must_use]
pub fn flow(worker: &Worker, id: usize, workers: usize, slot: u32) -> Option<pb::Flow> {
    let record = worker.flows().record(slot)?;
    let reverse = worker.flows().record(record.reverse);
    let key = &record.key;
    let entry = worker.programs().get(record.program);
    let drop = entry.and_then(|entry| entry.program.drops());
    let (times, decided) = (worker.flows().times(slot), entry.map_or(Decided::BY_NONE, |entry| entry.program.decided));
    // A direction without a program of its own leads where the other one came from.
    let leads_to = entry.map(|entry| entry.program.vrf).or_else(|| reverse.map(|reverse| reverse.key.vrf));
    let is_tcp = key.proto == 6;
    let letters = TcpLetters {
        this: TcpState::from_bits(record.tcp),
        other: reverse.map_or_else(TcpState::default, |reverse| TcpState::from_bits(reverse.tcp)),
    };
    let milliseconds = |stamp: u32| worker.clock().wrapping_sub(u64::from((worker.clock() as u32).wrapping_sub(stamp)));
    let offload = worker.offload_status(slot);
    let tunnel = entry.is_some_and(|entry| entry.plan.is_tunnel());
    Some(pb::Flow {
        index: flow_index(slot, id, workers),
        generation: worker.flows().generation(slot).into(),
        reverse_index: reverse.map(|_| flow_index(record.reverse, id, workers)),
        vrf: key.vrf.get().into(),
        destination_vrf: leads_to.unwrap_or(key.vrf).get().into(),
        vif: key.vif.get().into(),
        family: family(key.family()).into(),
        proto: key.proto.into(),
        source: key.source().to_string(),
        destination: key.destination().to_string(),
        source_port: key.sport.into(),
        destination_port: key.dport.into(),
        action: if drop.is_some() { pb::FlowAction::Drop } else { pb::FlowAction::Forward }.into(),
        drop_reason: drop.map(|reason| reason.name().to_owned()).unwrap_or_default(),
        tcp_state: if is_tcp { letters.to_string() } else { String::new() },
        packets: record.packets,
        bytes: record.bytes,
        ecmp_index: record.ecmp.iter().map(|slot| if *slot == 0xff { -1 } else { i32::from(*slot) }).collect(),
        source_nexthop: decided.source_nexthop.get(),
        nexthop: entry.map_or(0, |entry| entry.program.nexthop.get()),
        label: entry.and_then(|entry| entry.program.label).map(Label::get),
        tunnel_source_port: if tunnel { record.tunnel_sport.into() } else { 0 },
        worker: id as u32,
        created_ms: milliseconds(times.created),
        last_seen_ms: milliseconds(record.last_seen),
        changed_ms: milliseconds(times.changed),
        acl: decided.acl.map_or(0, |entry| entry.acl.get()),
        ace: decided.acl.and_then(|entry| entry.ace).unwrap_or(0),
        tier: offload.map_or(pb::FlowTier::Software, |offload| flow_tier(offload.tier)).into(),
        not_offloaded_reason: offload.and_then(|o| o.reason).map(|reason| reason.to_string()).unwrap_or_default(),
        ops: entry
            .map(|entry| {
                entry.program.ops.list().iter().map(|o| op(o, worker.flows().binding(slot).sequence_shift)).collect()
            })
            .unwrap_or_default(),
        initiator: record.flags & flag::INITIATOR != 0,
        hardware_packets: offload.map_or(0, |offload| offload.hardware.packets),
        hardware_bytes: offload.map_or(0, |offload| offload.hardware.bytes),
    })
}

/// Did the flow in this slot make the pair? Of each pair one direction did.
#[must_use]
pub fn is_initiator(worker: &Worker, slot: u32) -> bool {
    worker.flows().record(slot).is_some_and(|record| record.flags & flag::INITIATOR != 0)
}

/// Where the packets of the flow in this slot run.
#[must_use]
pub fn tier(worker: &Worker, slot: u32) -> pb::FlowTier {
    worker.offload_status(slot).map_or(pb::FlowTier::Software, |offload| flow_tier(offload.tier))
}

/// The flow in this slot as filters look at it.
#[must_use]
pub fn listed(worker: &Worker, slot: u32) -> Option<Listed<'_>> {
    let record = worker.flows().record(slot)?;
    let drops = worker.programs().get(record.program).is_some_and(|entry| entry.program.drops().is_some());
    Some(Listed { record, tier: tier(worker, slot), drops })
}

const fn flow_tier(tier: Tier) -> pb::FlowTier {
    match tier {
        Tier::Software => pb::FlowTier::Software,
        Tier::Pending => pb::FlowTier::Pending,
        Tier::Partial => pb::FlowTier::Partial,
        Tier::Hardware => pb::FlowTier::Hardware,
    }
}

/// An operation, for people. `distance` is the flow's.
fn op(op: &Op, distance: u32) -> String {
    match op {
        Op::DecapMplsOUdp => "decap MPLSoUDP".to_owned(),
        Op::Drop(reason) => format!("drop ({})", reason.name()),
        Op::DecrementTtl(by) => format!("decrement TTL by {by}"),
        Op::ClampMss(mss) => format!("clamp MSS to {mss}"),
        Op::ShiftAck => format!("subtract {distance} from TCP acknowledgement"),
        Op::ShiftSeq => format!("add {distance} to TCP sequence number"),
        Op::LimitSize { mtu, fragment: true } => format!("limit size to {mtu}"),
        Op::LimitSize { mtu, fragment: false } => format!("limit size to {mtu}, do not fragment"),
        Op::FragmentOuter { mtu } => {
            format!("send larger ones up to 1280 in outer packets fragmented to {mtu}")
        }
        Op::EncapMplsOUdp(h) => format!("encap MPLSoUDP {} -> {}:{} label {}", h.sip, h.dip, h.udp_port, h.label),
        Op::Seal(h) => {
            let udp = h.udp.map(|(from, to)| format!(" in UDP {from} -> {to}")).unwrap_or_default();
            format!("seal ESP by vif {}, {} -> {}{udp}", h.vif, h.source, h.destination)
        }
        Op::RewriteL2(rewrite) => ethernet(rewrite),
        Op::Output(vif) => format!("output vif {vif}"),
        Op::Punt(vif) => format!("punt to vif {vif}"),
    }
}

/// The header up to the ethertype, which is the packet's.
fn ethernet(rewrite: &L2Rewrite) -> String {
    let fixed = rewrite.bytes().len().saturating_sub(2);
    let mut text = "Ethernet".to_owned();
    for octet in rewrite.bytes().iter().take(fixed) {
        // Writing to a string does not fail.
        let _ = write!(text, " {octet:02x}");
    }
    text.push_str(" + ethertype");
    text
}

/// Address family.
#[must_use]
pub const fn family(family: Family) -> pb::AddressFamily {
    match family {
        Family::Inet => pb::AddressFamily::Inet,
        Family::Inet6 => pb::AddressFamily::Inet6,
    }
}

/// The account of all packets, with those held now.
#[must_use]
pub fn account(account: &Account, held: u64) -> pb::PacketAccount {
    pb::PacketAccount {
        received: account.received,
        forwarded: account.forwarded,
        punted: account.punted,
        consumed: account.consumed,
        dropped: account.dropped_total(),
        held,
        unaccounted: account.unaccounted(held),
        originated: account.originated,
    }
}

/// Which way packets went.
#[must_use]
pub const fn tiers(account: &Account) -> pb::TierCounters {
    pb::TierCounters { flow_hits: account.flow_hits, routed: account.routed, slow_path: account.slow_path }
}

/// Every drop reason with its count.
#[must_use]
pub fn drops(account: &Account) -> Vec<pb::DropCount> {
    let count = |reason: &DropReason| pb::DropCount {
        reason: reason.name().to_owned(),
        packets: account.dropped.get(reason.index()).copied().unwrap_or(0),
    };
    DropReason::all().iter().map(count).collect()
}

fn counters(counters: &VifCounters) -> pb::Counters {
    pb::Counters {
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        rx_errors: counters.rx_errors,
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        tx_errors: counters.tx_errors,
        drops: counters.drops,
        tcp_resets_ignored: counters.tcp_resets_ignored,
    }
}

/// State of the device under a vif.
#[derive(Debug, Clone, Default)]
pub struct PortStatus {
    /// Driver in use.
    pub driver: String,
    /// Why it is not up.
    pub error: String,
}

/// A vif with its counters; `per_worker` are those of each worker.
#[must_use]
pub fn vif(
    vif: &Vif,
    snapshot: &Snapshot,
    total: &Counters,
    per_worker: &[Counters],
    port: &PortStatus,
) -> pb::VifInfo {
    let is_port = vif.kind.port().is_some();
    let configured = snapshot.configured_mtu(vif.id).unwrap_or(vif.mtu);
    // A sub-interface has no queues of its own: what each worker found in its parent's.
    let received = |worker: &Counters| if is_port { worker.of_port(vif.id) } else { worker.of_vif(vif.id) };
    let driver = if is_port { port.driver.clone() } else { "vr_vlan".to_owned() };
    pb::VifInfo {
        vif: Some(pb::Vif { mtu: configured.into(), ..encode::vif(vif) }),
        flags: vif.flag_letters(),
        driver,
        mac: vif.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        oper_state: if snapshot.is_up(vif.id) { pb::OperState::Up } else { pb::OperState::Down }.into(),
        oper_error: port.error.clone(),
        references: references(vif.id, snapshot),
        port: is_port.then(|| counters(&total.of_port(vif.id))),
        counters: Some(counters(&total.of_vif(vif.id))),
        rx_queue_packets: per_worker.iter().map(|worker| received(worker).rx_packets).collect(),
        rx_queue_errors: per_worker.iter().map(|worker| received(worker).rx_errors).collect(),
        sas: Vec::new(),
        mtu: vif.mtu.into(),
    }
}

fn references(id: VifId, snapshot: &Snapshot) -> u32 {
    let nexthops = snapshot.nexthops().filter(|nexthop| match nexthop.kind {
        NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => oif == id,
        _ => false,
    });
    let children =
        snapshot.vifs().filter(|vif| matches!(vif.kind, VifKind::PhysicalVlan { parent, .. } if parent == id));
    1 + nexthops.count() as u32 + children.count() as u32
}

/// A VRF with its counters.
#[must_use]
pub fn vrf(id: VrfId, snapshot: &Snapshot, total: &Counters) -> Option<pb::VrfInfo> {
    let vrf = snapshot.vrf(id)?;
    let counts = total.vrfs.get(&id);
    let count = |what: VrfCounter| counts.and_then(|counts| counts.get(what.index())).copied().unwrap_or(0);
    Some(pb::VrfInfo {
        id: id.get().into(),
        name: vrf.name.clone(),
        discards: count(VrfCounter::Discard),
        resolves: count(VrfCounter::Resolve),
        receives: count(VrfCounter::Receive),
        vrf_translates: count(VrfCounter::VrfTranslate),
        ecmp_composites: count(VrfCounter::EcmpComposite),
        udp_mpls_tunnels: count(VrfCounter::UdpMplsTunnel),
        encaps: count(VrfCounter::Encap),
        nat: 0,
        arp_virtual_proxys: count(VrfCounter::ArpVirtualProxy),
        arp_physical_proxys: count(VrfCounter::ArpPhysicalProxy),
        arp_floods: count(VrfCounter::ArpFlood),
        routes_v4: snapshot.routes(id, Family::Inet).len() as u32,
        routes_v6: snapshot.routes(id, Family::Inet6).len() as u32,
    })
}

/// A route of the forwarding state.
#[must_use]
pub fn route(route: &Route, snapshot: &Snapshot) -> pb::RouteInfo {
    let f = &route.flags;
    let letters = [
        (route.label.is_some(), 'L'),
        (f.proxy_arp, 'P'),
        (f.trap_arp, 'T'),
        (f.flood_arp, 'F'),
        (f.proxy_arp_for_host, 'H'),
        (f.preferred_vrf, 'V'),
    ];
    let flags: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
    let flags = if flags.is_empty() { "-".to_owned() } else { flags };
    let gateway = snapshot.nexthop(route.nexthop).and_then(|nexthop| gateway_of(nexthop));
    let gateway = gateway.map(|(_, gateway)| gateway.to_string()).unwrap_or_default();
    pb::RouteInfo { route: Some(encode::route(route)), learned: false, flags, gateway }
}

/// The host route that a resolved neighbour has.
fn learned_route(vrf: VrfId, address: IpAddr, slot: u32) -> pb::RouteInfo {
    let route = pb::Route {
        vrf: vrf.get().into(),
        prefix: ipnet::IpNet::from(address).to_string(),
        nexthop: NexthopId::learned(slot).get(),
        ..pb::Route::default()
    };
    pb::RouteInfo { route: Some(route), learned: true, flags: "-".to_owned(), gateway: String::new() }
}

/// Routes of a VRF and family, with those of neighbours; `None` when there are none (ENOENT).
#[must_use]
pub fn routes(vrf: VrfId, family: Family, snapshot: &Snapshot) -> Option<Vec<pb::RouteInfo>> {
    let mut found: Vec<(ipnet::IpNet, pb::RouteInfo)> =
        snapshot.routes(vrf, family).iter().map(|known| (known.prefix, route(known, snapshot))).collect();
    if found.is_empty() {
        return None;
    }
    for ((vif, address), neighbour) in snapshot.neighbours().iter() {
        let here = snapshot.vif(vif).is_some_and(|vif| vif.vrf == vrf) && Family::of(&address) == family;
        let host = ipnet::IpNet::from(address);
        if here && !found.iter().any(|(prefix, _)| *prefix == host) {
            found.push((host, learned_route(vrf, address, neighbour.slot)));
        }
    }
    found.sort_by_key(|(prefix, _)| (prefix.addr(), prefix.prefix_len()));
    Some(found.into_iter().map(|(_, info)| info).collect())
}

/// The route that packets to an address follow: a neighbour's when the table leads to its subnet.
#[must_use]
pub fn route_to(vrf: VrfId, address: IpAddr, snapshot: &Snapshot) -> Option<pb::RouteInfo> {
    let found = snapshot.route(vrf, address)?;
    if let Some(nexthop) = snapshot.nexthop(found.nexthop)
        && let NexthopKind::Resolve { oif, gateway: None } = nexthop.kind
        && let Some(neighbour) = snapshot.neighbour(oif, address)
    {
        return Some(learned_route(vrf, address, neighbour.slot));
    }
    Some(route(found, snapshot))
}

/// Vif and address of the gateway that a nexthop names.
const fn gateway_of(nexthop: &Nexthop) -> Option<(VifId, IpAddr)> {
    match nexthop.kind {
        NexthopKind::Resolve { oif, gateway: Some(gateway) } => Some((oif, gateway)),
        _ => None,
    }
}

/// A nexthop, with what is known of its gateway.
#[must_use]
pub fn nexthop(nexthop: &Nexthop, snapshot: &Snapshot) -> pb::NexthopInfo {
    let mut flags = Vec::new();
    if nexthop.valid {
        flags.push("Valid".to_owned());
    }
    if nexthop.policy {
        flags.push("Policy".to_owned());
    }
    match &nexthop.kind {
        NexthopKind::Tunnel(tunnel) => {
            flags.push("MPLSoUDP".to_owned());
            if tunnel.direct.is_some() {
                flags.push("Indirect".to_owned());
            }
        }
        NexthopKind::Composite { .. } => flags.push("Ecmp".to_owned()),
        _ => {}
    }
    let gateway = gateway_of(nexthop);
    let neighbour = gateway.and_then(|(vif, gateway)| snapshot.neighbour(vif, gateway));
    let state = gateway.map(|(vif, gateway)| match neighbour {
        // No question is sent on a link that is down.
        _ if !snapshot.is_up(vif) => pb::NeighbourState::Unknown,
        _ if snapshot.is_gateway_dead(vif, gateway) => pb::NeighbourState::Failed,
        Some(_) => pb::NeighbourState::Reachable,
        None => pb::NeighbourState::Resolving,
    });
    pb::NexthopInfo {
        nexthop: Some(encode::nexthop(nexthop)),
        family: gateway.map_or(pb::AddressFamily::Inet, |(_, gateway)| family(Family::of(&gateway))).into(),
        learned: false,
        flags,
        gateway_state: state.unwrap_or(pb::NeighbourState::Unknown).into(),
        gateway_mac: neighbour.map(|neighbour| neighbour.mac.to_string()).unwrap_or_default(),
    }
}

/// The nexthop of a resolved neighbour: Encap.
#[must_use]
pub fn learned_nexthop(id: u32, snapshot: &Snapshot) -> Option<pb::NexthopInfo> {
    let slot = id.checked_sub(NexthopId::FIRST_LEARNED)?;
    let ((vif, address), neighbour) = snapshot.neighbours().iter().find(|(_, neighbour)| neighbour.slot == slot)?;
    toward(vif, address, neighbour.slot, neighbour.mac, snapshot)
}

/// The nexthops of all resolved neighbours, by number.
#[must_use]
pub fn learned_nexthops(snapshot: &Snapshot) -> Vec<pb::NexthopInfo> {
    let mut found: Vec<_> =
        snapshot.neighbours().iter().map(|((vif, address), n)| (n.slot, vif, address, n.mac)).collect();
    found.sort_unstable_by_key(|(slot, ..)| *slot);
    found.into_iter().filter_map(|(slot, vif, address, mac)| toward(vif, address, slot, mac, snapshot)).collect()
}

fn toward(vif: VifId, address: IpAddr, slot: u32, mac: MacAddr, snapshot: &Snapshot) -> Option<pb::NexthopInfo> {
    let vif = snapshot.vif(vif)?;
    let mut header = vif.header_to(mac)?.bytes().to_vec();
    let ethertype = if address.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    if let Some(last) = header.len().checked_sub(2).and_then(|at| header.get_mut(at..)) {
        last.copy_from_slice(&ethertype);
    }
    let encap = pb::EncapNexthop {
        oif: vif.id.get().into(),
        encap_data: header.iter().map(|octet| format!("{octet:02x}")).collect(),
    };
    Some(pb::NexthopInfo {
        nexthop: Some(pb::Nexthop {
            id: NexthopId::learned(slot).get(),
            vrf: vif.vrf.get().into(),
            policy: false,
            invalid: false,
            kind: Some(pb::nexthop::Kind::Encap(encap)),
        }),
        family: family(Family::of(&address)).into(),
        learned: true,
        flags: vec!["Valid".to_owned()],
        ..pb::NexthopInfo::default()
    })
}

/// Neighbours, those that are being asked for included.
#[must_use]
pub fn neighbours(control: &Control, asked: &[((VifId, IpAddr), usize)]) -> Vec<pb::NeighbourInfo> {
    let snapshot = control.snapshot();
    let mut held: BTreeMap<(VifId, IpAddr), usize> = BTreeMap::new();
    for (neighbour, packets) in asked {
        *held.entry(*neighbour).or_default() += packets;
    }
    let mut info = |(vif, address): (VifId, IpAddr), state: pb::NeighbourState| {
        let known = snapshot.neighbour(vif, address);
        pb::NeighbourInfo {
            vif: vif.get().into(),
            address: address.to_string(),
            mac: known.map_or_else(String::new, |known| known.mac.to_string()),
            state: state.into(),
            nexthop: known.map_or(0, |known| NexthopId::learned(known.slot).get()),
            held_packets: held.remove(&(vif, address)).map_or(0, |held| u32::try_from(held).unwrap_or(u32::MAX)),
        }
    };
    let mut found: Vec<_> = control.neighbours().iter().map(|(key, state)| info(key, neighbour_state(state))).collect();
    // What control has not heard of yet; several workers may wait for the same one.
    let rest: BTreeSet<_> =
        asked.iter().map(|(key, _)| *key).filter(|key| control.neighbours().state(*key).is_none()).collect();
    found.extend(rest.into_iter().map(|key| info(key, pb::NeighbourState::Resolving)));
    found
}

/// Delay is Stale with a timer.
const fn neighbour_state(state: State) -> pb::NeighbourState {
    match state {
        State::Incomplete => pb::NeighbourState::Resolving,
        State::Reachable => pb::NeighbourState::Reachable,
        State::Stale | State::Delay => pb::NeighbourState::Stale,
        State::Probe => pb::NeighbourState::Probe,
        State::Unreachable => pb::NeighbourState::Failed,
    }
}
