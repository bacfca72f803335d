//! Packets that the node makes itself.

use offload_rules::{
    VifId, VrfId,
    classify::{self, Ingress, Inquiry, Role, Start, Verdict},
    flow::{Choices, FlowKey, IPV6_MIN_MTU, Oversize},
};

use super::{Delivery, Origin, Outbox, Tenant, TxKind, Worker, carry::Stripped};
use crate::{
    exec::{self, Operands, Plan, Target},
    packet::{Packet, fragment, parse, rewrite::entropy_port},
};

impl Worker {
    /// Sends an IP packet that the node has made, by the routes of a VRF.
    pub(super) fn originate(&mut self, vrf: VrfId, packet: Packet, now: u64, out: &mut Outbox) {
        self.counters.account.originated += 1;
        self.send_own(vrf, packet, now, out);
    }

    /// Sends an IP packet that the node has made and counted.
    pub(super) fn send_own(&mut self, vrf: VrfId, mut packet: Packet, now: u64, out: &mut Outbox) {
        let version = packet.data().first().map_or(0, |first| first >> 4);
        let Ok(ip) = parse::ip(packet.data(), version) else { return self.lose_own(packet, out) };
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
        let decision = match classify::classify(&self.snapshot, &inquiry) {
            Verdict::Forward(decision) => decision,
            Verdict::Resolve { checks, .. } if ip.version == 4 && ip.df && ip.total_len > checks.size.mtu => {
                return self.lose_own(packet, out);
            }
            Verdict::Resolve { vif, target, .. } => {
                let delivery = Delivery { packet, origin: Origin::Own(vrf) };
                return self.hold_delivery((vif, target), Tenant::Vrf(vrf), delivery, now, out);
            }
            Verdict::AnswerEcho | Verdict::Drop { .. } => return self.lose_own(packet, out),
        };
        for (vrf, what) in &decision.program.passes {
            self.counters.pass(*vrf, *what, 1);
        }
        let plan = Plan::new(&decision.program, &self.snapshot);
        if matches!(plan.target, Target::Drop(_)) {
            return self.lose_own(packet, out);
        }
        let own = (TxKind::Originated, VifId::TUNNEL);
        let sport = self.config.entropy.unwrap_or_else(|| entropy_port(key.spread() as u32));
        let operands = Operands { tunnel_sport: sport, ..Operands::default() };
        if ip.total_len <= plan.checks.size.mtu {
            let operands = self.with_outer_id(&plan, operands);
            return match exec::run(&plan, &mut packet, &ip, None, &operands) {
                Ok(()) => self.send_off(&plan, own, packet, out),
                Err(_) => self.lose_own(packet, out),
            };
        }
        let outer = match plan.checks.size.larger {
            Oversize::FragmentOuter { mtu } if ip.version == 6 => Some(mtu),
            Oversize::Refuse | Oversize::Fragment | Oversize::FragmentOuter { .. } => None,
        };
        if let Some(mtu) = outer.filter(|_| ip.total_len <= IPV6_MIN_MTU) {
            let stripped = Stripped { plan: &plan, ip: &ip, pcp: None, operands };
            return self.send_in_outer_fragments(&stripped, mtu, packet, own, out);
        }
        let mut pieces = Vec::new();
        let split = if ip.version == 6 {
            // The source may fragment (RFC 8200 §4.5), where others cannot (RFC 2473 §7.1).
            let id = self.fragment_id(&key);
            let limit = if outer.is_some() { IPV6_MIN_MTU } else { plan.checks.size.mtu };
            fragment::split_at_source(packet.data(), &ip, limit, id, &mut out.spare, &mut pieces)
        } else {
            fragment::split(packet.data(), &ip, plan.checks.size.mtu, &mut out.spare, &mut pieces)
        };
        if split.is_err() {
            return self.lose_own(packet, out);
        }
        out.recycle(packet);
        // The datagram was counted as originated: the other pieces are, too.
        self.counters.account.originated += (pieces.len() as u64).saturating_sub(1);
        for mut piece in pieces {
            if let Some(mtu) = outer
                && piece.len() > usize::from(plan.checks.size.mtu)
                && let Ok(ip) = parse::ip(piece.data(), 6)
            {
                let stripped = Stripped { plan: &plan, ip: &ip, pcp: None, operands };
                self.send_in_outer_fragments(&stripped, mtu, piece, own, out);
                continue;
            }
            let operands = self.with_outer_id(&plan, operands);
            if exec::wrap(&plan, &mut piece, &ip, ip.ttl, None, &operands).is_ok() {
                self.send_off(&plan, own, piece, out);
            }
        }
    }

    /// Identification of the fragments of an IPv6 packet: unique for a destination as far as 32 bits go.
    pub(super) fn fragment_id(&mut self, key: &FlowKey) -> u32 {
        (key.spread() as u32) << 16 | u32::from(self.next_ip_id())
    }

    fn lose_own(&mut self, packet: Packet, out: &mut Outbox) {
        self.counters.account.originated_dropped += 1;
        out.recycle(packet);
    }
}
