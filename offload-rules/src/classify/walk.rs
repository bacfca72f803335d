//! From the first route lookup through the chain of nexthops to an egress vif.

mod reads;
mod size;

use std::net::IpAddr;

pub(super) use reads::Reads;

use super::{FlowTrace, Inquiry, Role, Start, Trace, ecmp, protect, usable::has_outbound};
use crate::{
    DropReason, Label, NexthopId, SaId, VifId, VrfId,
    flow::{
        Choices, Decap, Decided, Dependency, Egress, FlowKey, Forward, IPV6_MIN_MTU, Operations, Oversize, Program,
        SealHeader, SizeLimit, TunnelHeader, VrfCounter,
    },
    forwarding::{IpsecTunnel, L2Rewrite, Nexthop, NexthopKind, Receive, Snapshot, Tunnel, Vif, VifKind},
};

/// Nexthops that one packet may pass: longer chains are loops.
const MAX_STEPS: usize = 16;
/// VRF translations that one packet may make.
const MAX_TRANSLATIONS: u8 = 4;

const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TCP: u8 = 6;

/// Where a walk ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Output(VifId),
    Punt(VifId),
    Echo,
    Resolve {
        vif: VifId,
        target: IpAddr,
    },
    /// For this node, and which listener takes it depends on the head of its datagram.
    ForNode,
    Drop(DropReason),
}

/// What is known of the packet's transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// All that the inquiry holds.
    Known,
    /// Nothing: a fragment whose head is not known.
    Unknown,
}

/// A walk in progress.
pub(super) struct Walk<'a> {
    snapshot: &'a Snapshot,
    inquiry: &'a Inquiry<'a>,
    transport: Transport,
    /// Everything read.
    pub(super) read: Reads<'a>,
    /// The packet is for this node: a listener took it.
    pub(super) local: bool,
    /// VRF of the tenant packet at this point.
    vrf: VrfId,
    /// Route lookups for the tenant packet.
    lookups: u8,
    translations: u8,
    /// Tunnel and label, once entered: from here on the outer packet is walked.
    tunnel: Option<(&'a Tunnel, Label)>,
    /// The IPsec tunnel, once entered: from here on the ESP packet is walked.
    seal: Option<(&'a Vif, &'a IpsecTunnel)>,
    route_label: Option<Label>,
    /// Nexthop of the last route of the tenant packet: D(nh).
    route_nexthop: NexthopId,
    choices: Choices,
    level: usize,
    rewrite: Option<L2Rewrite>,
    passes: Vec<(VrfId, VrfCounter)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, inquiry: &'a Inquiry<'a>) -> Self {
        Self::with(snapshot, inquiry, Transport::Known)
    }

    pub(super) fn with(snapshot: &'a Snapshot, inquiry: &'a Inquiry<'a>, transport: Transport) -> Self {
        Self {
            snapshot,
            inquiry,
            transport,
            read: Reads::of_flow(snapshot, inquiry.key),
            local: false,
            vrf: inquiry.key.vrf,
            lookups: 0,
            translations: 0,
            tunnel: None,
            seal: None,
            route_label: None,
            route_nexthop: NexthopId::NONE,
            choices: Choices::default(),
            level: 0,
            rewrite: None,
            passes: Vec::with_capacity(4),
        }
    }

    /// Where the packet that is walked now is going: the tenant packet's destination or the tunnel's.
    fn destination(&self) -> IpAddr {
        match (self.seal, self.tunnel) {
            (Some((_, ipsec)), _) => IpAddr::V4(ipsec.destination),
            (None, Some((tunnel, _))) => IpAddr::V4(tunnel.dip),
            (None, None) => self.inquiry.key.destination(),
        }
    }

    /// An outer packet is walked.
    const fn is_outer(&self) -> bool {
        self.tunnel.is_some() || self.seal.is_some()
    }

    pub(super) fn run(&mut self) -> End {
        let mut next = match self.inquiry.start {
            Start::Route => self.look_up(self.vrf),
            Start::Nexthop(id) => {
                self.route_nexthop = id;
                Ok(id)
            }
        };
        for _ in 0..MAX_STEPS {
            let id = match next {
                Ok(id) => id,
                Err(end) => return self.ended(end),
            };
            next = self.step(id);
        }
        self.ended(End::Drop(DropReason::PacketLoop))
    }

    /// The packet is for this node whatever routes say, and no listener is named for it.
    pub(super) fn arrive(&mut self) -> End {
        self.local = true;
        self.passes.push((self.vrf, VrfCounter::Receive));
        let end = self.unclaimed();
        self.ended(end)
    }

    fn ended(&mut self, end: End) -> End {
        match end {
            End::Drop(_) => self.passes.push((self.vrf, VrfCounter::Discard)),
            End::Resolve { .. } => self.passes.push((self.vrf, VrfCounter::Resolve)),
            _ => {}
        }
        end
    }

    fn look_up(&mut self, vrf: VrfId) -> Result<NexthopId, End> {
        let destination = self.destination();
        let route = self.read.route(vrf, destination);
        let Some(route) = route.filter(|route| route.nexthop != NexthopId::NONE) else {
            return Err(End::Drop(DropReason::NoRoute));
        };
        if !self.is_outer() {
            self.lookups = self.lookups.saturating_add(1);
            self.route_label = route.label;
            self.route_nexthop = route.nexthop;
        }
        Ok(route.nexthop)
    }

    /// One nexthop: the next one, or the end.
    fn step(&mut self, id: NexthopId) -> Result<NexthopId, End> {
        let Some(nexthop) = self.read.nexthop(id).filter(|nexthop| nexthop.valid) else {
            return Err(End::Drop(DropReason::InvalidNh));
        };
        match &nexthop.kind {
            NexthopKind::Drop => Err(End::Drop(DropReason::Discard)),
            NexthopKind::Encap { oif, rewrite } => self.encap(*oif, *rewrite),
            NexthopKind::Resolve { oif, gateway } => self.resolve(*oif, *gateway),
            NexthopKind::Tunnel(tunnel) => self.enter_tunnel(nexthop, tunnel),
            NexthopKind::Composite { members } => {
                self.passes.push((self.vrf, VrfCounter::EcmpComposite));
                let prior = self.inquiry.prior.ecmp.get(self.level).copied().flatten();
                let choice = ecmp::choose(
                    &mut self.read,
                    self.snapshot,
                    members,
                    prior,
                    self.inquiry.other_ingress,
                    self.inquiry.hash,
                );
                let Some(choice) = choice else { return Err(End::Drop(DropReason::InvalidNh)) };
                if let Some(level) = self.choices.ecmp.get_mut(self.level) {
                    *level = Some(choice.home);
                }
                self.level += 1;
                self.route_label = choice.member.label.or(self.route_label);
                Ok(choice.member.nexthop)
            }
            NexthopKind::VrfTranslate { vrf } => {
                self.translations += 1;
                if self.translations > MAX_TRANSLATIONS {
                    return Err(End::Drop(DropReason::PacketLoop));
                }
                self.passes.push((self.vrf, VrfCounter::VrfTranslate));
                if !self.is_outer() {
                    self.vrf = *vrf;
                    if self.is_exposed_in(*vrf) {
                        return Err(End::Drop(DropReason::Unprotected));
                    }
                }
                self.look_up(*vrf)
            }
            NexthopKind::Receive(receive) => self.receive(receive),
        }
    }

    /// Does this VRF lead the source into IPsec, though the packet came in the clear (RFC 4301 §5.2)?
    fn is_exposed_in(&mut self, vrf: VrfId) -> bool {
        let Inquiry { key, ingress, role, .. } = *self.inquiry;
        if matches!(role, Role::Own) || ingress.tunnel.is_some() {
            return false;
        }
        let Some(vif) = self.read.vif(ingress.vif) else { return false };
        protect::is_exposed_behind(&mut self.read, vif, (vrf, key.source()))
    }

    fn enter_tunnel(&mut self, nexthop: &'a Nexthop, tunnel: &'a Tunnel) -> Result<NexthopId, End> {
        if self.is_outer() {
            return Err(End::Drop(DropReason::PacketLoop));
        }
        let Some(label) = self.route_label else { return Err(End::Drop(DropReason::InvalidLabel)) };
        self.passes.push((self.vrf, VrfCounter::UdpMplsTunnel));
        self.tunnel = Some((tunnel, label));
        self.read.enter(tunnel.dip.into());
        match (tunnel.direct, nexthop.vrf) {
            (Some(direct), _) => Ok(direct),
            (None, Some(underlay)) => self.look_up(underlay),
            (None, None) => Err(End::Drop(DropReason::InvalidNh)),
        }
    }

    fn receive(&mut self, receive: &Receive) -> Result<NexthopId, End> {
        if self.is_outer() {
            // A tunnel that ends where it begins.
            return Err(End::Drop(DropReason::PacketLoop));
        }
        if !self.local {
            self.passes.push((self.vrf, VrfCounter::Receive));
        }
        if self.local {
            // A listener that leads to a Receive: validation refuses the cycle, a second one is of no use.
            return Err(End::Drop(DropReason::PacketLoop));
        }
        self.local = true;
        if self.transport == Transport::Unknown {
            return Err(End::ForNode);
        }
        let key = self.inquiry.key;
        let listener = || receive.listeners.lookup(key.proto, self.inquiry.service_port);
        self.back_to_host().or_else(listener).ok_or_else(|| self.unclaimed())
    }

    /// Where the answer to what the host itself began goes, listener or not: the nexthop of the host's vif.
    fn back_to_host(&mut self) -> Option<NexthopId> {
        let Role::Responder(_) = self.inquiry.role else { return None };
        let asked = self.inquiry.other_ingress.filter(|ingress| ingress.tunnel.is_none())?;
        let vif = self.read.vif(asked.vif)?;
        vif.nexthop.filter(|_| vif.kind.is_punt())
    }

    /// For this node, but no listener: echo requests are answered in place.
    fn unclaimed(&self) -> End {
        if self.transport == Transport::Unknown {
            return End::ForNode;
        }
        let key = self.inquiry.key;
        match (key.version, key.proto, self.inquiry.service_port) {
            (4, ICMP, 8) | (6, ICMP6, 128) => End::Echo,
            _ => End::Drop(DropReason::NoListener),
        }
    }

    fn encap(&mut self, oif: VifId, rewrite: Option<L2Rewrite>) -> Result<NexthopId, End> {
        let Some(vif) = self.read.vif(oif) else { return Err(End::Drop(DropReason::InvalidIf)) };
        if let Some(ipsec) = vif.kind.tunnel() {
            return self.enter_ipsec(vif, ipsec);
        }
        self.rewrite = match (rewrite, &vif.kind) {
            (Some(rewrite), VifKind::PhysicalVlan { .. }) if rewrite.tags() == 0 => vif.with_tags(rewrite.bytes()),
            (rewrite, _) => rewrite,
        };
        Err(self.leave(vif))
    }

    /// From here on the ESP packet is routed. Without an SA nothing goes on: there is no way out of a tunnel in the clear.
    fn enter_ipsec(&mut self, vif: &'a Vif, ipsec: &'a IpsecTunnel) -> Result<NexthopId, End> {
        if self.seal.is_some() {
            return Err(End::Drop(DropReason::PacketLoop));
        }
        if !self.read.is_up(vif.id) {
            return Err(End::Drop(DropReason::IfDown));
        }
        if !has_outbound(&mut self.read, self.snapshot, ipsec) {
            let refused = |sa: &SaId| self.snapshot.why_sa_ended(*sa) == Some(DropReason::SaRefused);
            let is_refused = ipsec.outbound.iter().any(refused);
            return Err(End::Drop(if is_refused { DropReason::SaRefused } else { DropReason::NoSa }));
        }
        self.passes.push((self.vrf, VrfCounter::Encap));
        self.seal = Some((vif, ipsec));
        self.read.enter(ipsec.destination.into());
        self.look_up(ipsec.vrf)
    }

    fn resolve(&mut self, oif: VifId, gateway: Option<IpAddr>) -> Result<NexthopId, End> {
        let destination = self.destination();
        let Some(vif) = self.read.vif(oif) else { return Err(End::Drop(DropReason::InvalidIf)) };
        if (vif.owns(destination) || vif.is_anycast(destination)) && !self.is_outer() {
            self.local = true;
            self.passes.push((self.vrf, VrfCounter::Receive));
            return self.back_to_host().ok_or_else(|| self.unclaimed());
        }
        if vif.is_subnet_broadcast(destination) {
            return Err(End::Drop(DropReason::McastUnsupported));
        }
        match gateway {
            // A gateway with an IPv4 address only may not speak IPv6; the reverse is RFC 8950.
            Some(IpAddr::V4(_)) if destination.is_ipv6() => Err(End::Drop(DropReason::InvalidNh)),
            Some(gateway) => Err(self.neighbour(vif, gateway, NextStation::Gateway)),
            None => Err(self.neighbour(vif, destination, NextStation::Destination)),
        }
    }

    fn neighbour(&mut self, vif: &Vif, target: IpAddr, is: NextStation) -> End {
        if !vif.has_ethernet() || !self.read.is_up(vif.id) {
            // No neighbour answers on an interface that is down.
            return self.leave(vif);
        }
        self.read.note(Dependency::Neighbour(vif.id, target));
        let Some(neighbour) = self.snapshot.neighbour(vif.id, target) else {
            return End::Resolve { vif: vif.id, target };
        };
        self.rewrite = vif.header_to(neighbour.mac);
        if !self.is_outer() && is == NextStation::Destination {
            // On a connected subnet: the host route that was learnt. A gateway's nexthop is that of the route, also of a packet to the
            // gateway itself.
            self.route_nexthop = NexthopId::learned(neighbour.slot);
        }
        self.leave(vif)
    }

    fn leave(&mut self, vif: &Vif) -> End {
        if !self.read.is_up(vif.id) {
            return End::Drop(DropReason::IfDown);
        }
        if self.seal.is_none() {
            self.passes.push((self.vrf, VrfCounter::Encap));
        } else if vif.kind.is_punt() {
            // ESP to the own host: a tunnel that ends where it begins.
            return End::Drop(DropReason::PacketLoop);
        }
        if vif.kind.is_punt() { End::Punt(vif.id) } else { End::Output(vif.id) }
    }

    /// What ends a program whose packets leave on this vif.
    pub(super) fn output(&self, out: VifId) -> Egress {
        let is_punt = self.snapshot.vif(out).is_some_and(|vif| vif.kind.is_punt());
        if is_punt { Egress::Punt(out) } else { Egress::Output(out) }
    }

    /// The vif that packets leave on as their flow sees it: the IPsec tunnel, if there is one, and else the one that carries them.
    pub(super) fn flow_egress(&self, out: VifId) -> VifId {
        self.seal.map_or(out, |(vif, _)| vif.id)
    }

    /// The vif whose lists judge the packet on its way out: none when it leaves inside an MPLS tunnel.
    pub(super) const fn policy_egress(&self, egress: VifId) -> VifId {
        if self.tunnel.is_some() { VifId::TUNNEL } else { egress }
    }

    /// The key of the other direction: from the tunnel, or on the vif that this direction leaves on.
    pub(super) fn reverse_key(&self, egress: VifId) -> FlowKey {
        let key = self.inquiry.key;
        if self.tunnel.is_some() {
            return key.reversed(self.vrf, VifId::TUNNEL);
        }
        let vrf = self.snapshot.vif(egress).map_or(self.vrf, |vif| vif.vrf);
        key.reversed(vrf, egress)
    }

    /// The program of packets that leave on `out`, by their flow on `egress`.
    pub(super) fn program(mut self, output: Egress, out: VifId, egress: VifId) -> Outcome {
        let key = self.inquiry.key;
        let from = self.read.vif(self.inquiry.ingress.vif);
        let keep_ttl = self.inquiry.ingress.tunnel.is_none() && from.is_some_and(|vif| vif.flags.ttl_unmodified);
        let own = inquiry_is_own(self.inquiry);
        // What is delivered to this node, or comes from its own host stack, is not forwarded (RFC 1812 §5.3.1): BGP with TTL 1
        // has to get through, and RFC 5082 §3 needs 255 to arrive as 255.
        let arrived = self.local && matches!(output, Egress::Punt(_));
        let delivered = arrived || from.is_some_and(|vif| vif.kind.is_punt());
        // A label that leads straight to an Encap is a forwarding step, too.
        let ttl = if !keep_ttl && !own && !delivered { self.lookups.max(1) } else { 0 };
        let limit = self.egress_limit(out);
        let mss = (key.proto == TCP && !own).then(|| {
            let back = from.map_or(limit, |from| self.ingress_limit(from));
            let reserve = |vif: Option<&Vif>| vif.map_or(u16::MAX, |vif| vif.mtu.saturating_sub(vif.enc_mss));
            let mtu = limit.min(back).min(reserve(self.snapshot.vif(egress).map(AsRef::as_ref)));
            let mtu = if self.inquiry.ingress.tunnel.is_none() { mtu.min(reserve(from)) } else { mtu };
            let headers = if key.version == 4 { 40 } else { 60 };
            mtu.saturating_sub(headers).max(MIN_MSS)
        });
        let fragment = self.snapshot.vif(egress).is_none_or(|vif| !vif.flags.no_fragment);
        let narrow = key.version == 6 && limit < IPV6_MIN_MTU && fragment;
        let larger = match if narrow { self.outer_limit(out) } else { None } {
            Some(mtu) => Oversize::FragmentOuter { mtu },
            None if fragment => Oversize::Fragment,
            None => Oversize::Refuse,
        };
        if self.inquiry.ingress.tunnel.is_some() && self.inquiry.start == Start::Route {
            // The label's nexthop that led into this VRF.
            self.passes.push((key.vrf, VrfCounter::VrfTranslate));
        }
        let forward = Forward {
            decap: self.inquiry.ingress.tunnel.map(|_| Decap::MplsOUdp),
            ttl,
            mss,
            shift: None,
            size: Some(SizeLimit { mtu: limit, larger }),
            encap: self.tunnel.map(|(tunnel, label)| TunnelHeader {
                sip: tunnel.sip,
                dip: tunnel.dip,
                udp_port: tunnel.udp_port,
                label,
                dscp: tunnel.dscp.clone(),
            }),
            l2: self.rewrite,
            egress: match (self.seal, output) {
                (Some((vif, ipsec)), Egress::Output(out)) => {
                    Egress::Seal { header: Box::new(SealHeader::new(vif.id, ipsec)), vif: out }
                }
                // The walk ends where an ESP packet would go to the own host.
                (_, output) => output,
            },
        };
        let label = self.tunnel.map(|(_, label)| label);
        if self.local {
            // Who takes it depends on protocol and port.
            self.read.blur();
        }
        let (trace, flow_trace) = self.read.take_traces();
        let program = Program {
            ops: Operations::Forward(forward),
            dependencies: self.read.finish(),
            nexthop: self.route_nexthop,
            label,
            vrf: self.vrf,
            passes: self.passes,
            decided: Decided::BY_NONE,
        };
        Outcome { program, choices: self.choices, trace, flow_trace }
    }
}

/// What a walk comes to.
pub(super) struct Outcome {
    pub(super) program: Program,
    pub(super) choices: Choices,
    pub(super) trace: Option<Trace>,
    pub(super) flow_trace: Option<FlowTrace>,
}

/// Whose MAC address a packet is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextStation {
    /// Its destination's, on a connected subnet.
    Destination,
    /// The gateway's that its nexthop names.
    Gateway,
}

/// Smallest MSS that is ever written (RFC 9293 §3.7.1: the default of 536 less options and a small path).
const MIN_MSS: u16 = 88;

fn inquiry_is_own(inquiry: &Inquiry<'_>) -> bool {
    matches!(inquiry.role, Role::Own)
}
