//! Packets that the node makes itself.

use offload_rules::{
    VifId, VrfId,
    classify::{self, Ingress, Inquiry, Role, Start, Verdict},
    flow::Choices,
};

use super::{Delivery, Origin, Outbox, TxKind, Worker};
use crate::{
    exec::{self, Plan, Target, Varying},
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
            Verdict::Resolve { vif, target } => {
                let delivery = Delivery { packet, origin: Origin::Own(vrf) };
                return self.hold_delivery((vif, target), delivery, now, out);
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
        let varying = Varying { l3: 0, outer_tos: None, pcp: None, ip_id: 0, sport, shift: 0 };
        if ip.total_len <= plan.limit {
            let varying = Varying { ip_id: if plan.is_tunnel() { self.next_ip_id() } else { 0 }, ..varying };
            return match exec::run(&plan, &mut packet, &ip, &varying) {
                Ok(()) => self.send_off(&plan, own, packet, out),
                Err(_) => self.lose_own(packet, out),
            };
        }
        let mut pieces = Vec::new();
        let split = if ip.version == 6 {
            // The source may fragment (RFC 8200 §4.5); the identification is unique for a destination as far as 32 bits go.
            let id = (key.spread() as u32) << 16 | u32::from(self.next_ip_id());
            fragment::split_at_source(packet.data(), &ip, plan.limit, id, &mut out.spare, &mut pieces)
        } else {
            fragment::split(packet.data(), &ip, plan.limit, &mut out.spare, &mut pieces)
        };
        if split.is_err() {
            return self.lose_own(packet, out);
        }
        out.recycle(packet);
        // The datagram was counted as originated: the other pieces are, too.
        self.counters.account.originated += (pieces.len() as u64).saturating_sub(1);
        for mut piece in pieces {
            let varying = Varying { ip_id: if plan.is_tunnel() { self.next_ip_id() } else { 0 }, ..varying };
            if exec::wrap(&plan, &mut piece, &ip, ip.ttl, &varying).is_ok() {
                self.send_off(&plan, own, piece, out);
            }
        }
    }

    fn lose_own(&mut self, packet: Packet, out: &mut Outbox) {
        self.counters.account.originated_dropped += 1;
        out.recycle(packet);
    }
}
