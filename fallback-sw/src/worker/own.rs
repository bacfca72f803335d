//! Packets that the node makes itself: routed like others, or sent to a station on a link.

use offload_rules::{
    DropReason, VifId, VrfId,
    classify::{self, Ingress, Inquiry, Role, Start, Verdict},
    flow::{Choices, IPV6_MIN_MTU, Oversize},
    forwarding::Vif,
};

use super::{
    Worker,
    carry::{Stripped, send_in_outer_fragments},
    counters::Counters,
    delivery::Origin,
    env::{Env, IpIds},
    exit::{Exit, exit},
    outbox::Outbox,
    outcome::{Blame, Emit, Hold, Outcome, OwnNext, OwnPath, Station},
    tenant::Tenant,
    tx::TxKind,
};
use crate::{
    exec::{self, Operands, Plan, Target},
    packet::{
        Packet, fragment,
        parse::{self, ETHERTYPE_ARP},
        rewrite::{self, entropy_port},
    },
};

/// The node's own packet goes nowhere.
const LOST: Outcome = Outcome::Drop { blame: Blame::Own, reason: DropReason::InvalidNh };

/// The stage of the node's own packets.
struct Originate<'a> {
    env: &'a Env,
    ip_ids: &'a mut IpIds,
    counters: &'a mut Counters,
    emit: Emit<'a>,
}

impl Worker {
    /// Sends a packet that the node has made and counted.
    pub(super) fn send_own(&mut self, mut packet: Packet, next: OwnNext, out: &mut Outbox) {
        let mut stage = Originate {
            env: &self.env,
            ip_ids: &mut self.state.ip_ids,
            counters: &mut self.counters,
            emit: self.pending.emit(&mut out.events, &mut out.spare),
        };
        let outcome = match next {
            OwnNext::Path(OwnPath::Route(vrf)) => stage.route(&mut packet, vrf),
            OwnNext::Path(OwnPath::OnLink(station)) => stage.send_on_link(&mut packet, station),
            OwnNext::Done(outcome) => outcome,
        };
        self.settle(packet, outcome, out);
    }
}

impl Originate<'_> {
    /// Routes an IP packet in a VRF.
    fn route(&mut self, packet: &mut Packet, vrf: VrfId) -> Outcome {
        let version = packet.data().first().map_or(0, |first| first >> 4);
        let Ok(ip) = parse::ip(packet.data(), version) else { return LOST };
        let key = parse::flow_key(&ip, vrf, VifId::TUNNEL);
        let inquiry = Inquiry {
            key: &key,
            service_port: u16::from(ip.icmp_type),
            ingress: Ingress { vif: VifId::TUNNEL, tunnel: None },
            start: Start::Route,
            role: Role::Own,
            prior: Choices::default(),
            other_ingress: None,
            hash: key.spread(),
        };
        let decision = match classify::classify(&self.env.snapshot, &inquiry) {
            Verdict::Forward(decision) => decision,
            Verdict::Resolve { checks, .. } if ip.version == 4 && ip.df && ip.total_len > checks.size.mtu => {
                return LOST;
            }
            Verdict::Resolve { vif, target, .. } => {
                let (tenant, origin) = (Tenant::Vrf(vrf), Origin::Own(vrf));
                return Outcome::Hold(Box::new(Hold::Neighbour { neighbour: (vif, target), tenant, origin }));
            }
            Verdict::AnswerEcho | Verdict::Drop { .. } => return LOST,
        };
        for (vrf, what) in &decision.program.passes {
            self.counters.pass(*vrf, *what, 1);
        }
        let plan = Plan::new(&decision.program, &self.env.snapshot);
        if matches!(plan.target, Target::Drop(_)) {
            return LOST;
        }
        let own = Exit { kind: TxKind::Originated, blame: VifId::TUNNEL };
        let sport = self.env.config.entropy.unwrap_or_else(|| entropy_port(key.spread() as u32));
        let operands = Operands { tunnel_sport: sport, ..Operands::default() };
        if ip.total_len <= plan.checks.size.mtu {
            let operands = self.with_outer_id(&plan, operands);
            return match exec::run(&plan, packet, &ip, None, &operands) {
                Ok(()) => exit(&plan, own),
                Err(_) => LOST,
            };
        }
        let outer = match plan.checks.size.larger {
            Oversize::FragmentOuter { mtu } if ip.version == 6 => Some(mtu),
            Oversize::Refuse | Oversize::Fragment | Oversize::FragmentOuter { .. } => None,
        };
        if let Some(mtu) = outer.filter(|_| ip.total_len <= IPV6_MIN_MTU) {
            let stripped = Stripped { plan: &plan, ip: &ip, pcp: None, operands };
            return send_in_outer_fragments(&stripped, mtu, packet, own, self.ip_ids, &mut self.emit);
        }
        let mut pieces = Vec::new();
        let split = if ip.version == 6 {
            // The source may fragment (RFC 8200 §4.5), where others cannot (RFC 2473 §7.1).
            let id = self.ip_ids.of_fragments(&key);
            let limit = if outer.is_some() { IPV6_MIN_MTU } else { plan.checks.size.mtu };
            fragment::split_at_source(packet.data(), &ip, limit, id, self.emit.spare, &mut pieces)
        } else {
            fragment::split(packet.data(), &ip, plan.checks.size.mtu, self.emit.spare, &mut pieces)
        };
        if split.is_err() {
            return LOST;
        }
        let mut first = None;
        for mut piece in pieces {
            let outcome = self.piece(&plan, &ip, &mut piece, outer, operands);
            if first.is_none() {
                self.emit.recycle(std::mem::replace(packet, piece));
                first = Some(outcome);
            } else {
                self.emit.originate_done(piece, outcome);
            }
        }
        first.unwrap_or(LOST)
    }

    /// One fragment of a packet of the node's.
    fn piece(
        &mut self,
        plan: &Plan,
        ip: &parse::Ip,
        piece: &mut Packet,
        outer: Option<u16>,
        operands: Operands,
    ) -> Outcome {
        let own = Exit { kind: TxKind::Originated, blame: VifId::TUNNEL };
        if let Some(mtu) = outer
            && piece.len() > usize::from(plan.checks.size.mtu)
            && let Ok(ip) = parse::ip(piece.data(), 6)
        {
            let stripped = Stripped { plan, ip: &ip, pcp: None, operands };
            return send_in_outer_fragments(&stripped, mtu, piece, own, self.ip_ids, &mut self.emit);
        }
        let operands = self.with_outer_id(plan, operands);
        match exec::wrap(plan, piece, ip, ip.ttl, None, &operands) {
            Ok(()) => exit(plan, own),
            Err(_) => LOST,
        }
    }

    fn with_outer_id(&mut self, plan: &Plan, operands: Operands) -> Operands {
        if plan.is_tunnel() { Operands { outer_id: self.ip_ids.next(), ..operands } } else { operands }
    }

    /// Sends a packet to a station on a link; in fragments when it does not fit (the reply to an echo request that came in fragments).
    fn send_on_link(&mut self, packet: &mut Packet, station: Station) -> Outcome {
        let Some(vif) = self.env.snapshot.vif(station.vif) else { return LOST };
        if station.ethertype == ETHERTYPE_ARP || packet.len() <= usize::from(vif.mtu) {
            return self.frame(packet, vif, station);
        }
        let version = packet.data().first().map_or(0, |first| first >> 4);
        let mut pieces = Vec::new();
        let split = parse::ip(packet.data(), version).and_then(|ip| match ip.version {
            6 => {
                let id = self.ip_ids.of_fragments(&parse::flow_key(&ip, vif.vrf, vif.id));
                fragment::split_at_source(packet.data(), &ip, vif.mtu, id, self.emit.spare, &mut pieces)
            }
            _ => fragment::split(packet.data(), &ip, vif.mtu, self.emit.spare, &mut pieces),
        });
        if split.is_err() {
            return LOST;
        }
        let mut first = None;
        for mut piece in pieces {
            let outcome = self.frame(&mut piece, vif, station);
            if first.is_none() {
                self.emit.recycle(std::mem::replace(packet, piece));
                first = Some(outcome);
            } else {
                self.emit.originate_done(piece, outcome);
            }
        }
        first.unwrap_or(LOST)
    }

    /// Puts the link's header before a packet.
    fn frame(&self, packet: &mut Packet, vif: &Vif, station: Station) -> Outcome {
        let written = station.mac.is_none_or(|mac| {
            vif.header_to(mac).is_some_and(|header| {
                let header = header.bytes();
                let room = packet.prepend(header.len());
                room.is_ok_and(|room| rewrite::write_l2(room, header, station.ethertype, None).is_ok())
            })
        });
        if !written || !self.env.snapshot.is_up(vif.id) {
            return LOST;
        }
        Outcome::Send { vif: vif.id, port: self.env.snapshot.port_of(vif.id), kind: TxKind::Originated }
    }
}
