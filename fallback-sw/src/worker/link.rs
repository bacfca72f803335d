//! Answers that stay on a link: to stations with link-local addresses, which no route leads to.

use std::{net::IpAddr, net::Ipv6Addr, sync::Arc};

use offload_rules::{
    MacAddr,
    forwarding::{NexthopKind, Vif, is_link_local},
};

use super::{Outbox, TxKind, Worker, ingress::Context};
use crate::packet::{
    Packet, fragment,
    icmp::IcmpError,
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, ethernet},
};

/// The station that a packet came from.
pub(super) struct Station {
    vif: Arc<Vif>,
    /// `None` on a vif without Ethernet: whoever is at its other end.
    mac: Option<MacAddr>,
}

impl Worker {
    /// The station that sent a packet from or to a link-local address. An answer goes back to it as it came: no route leads to such
    /// an address, and an answer from one stays on its link. `None`: an answer is routed.
    pub(super) fn station(&self, packet: &Packet, context: &Context) -> Option<Station> {
        let on_link = is_link_local(context.ip.source()) || is_link_local(context.ip.destination());
        if context.outer.is_some() || context.sealed_on.is_some() || !on_link {
            return None;
        }
        let vif = self.snapshot.vif(context.vif).filter(|vif| vif.kind.tunnel().is_none())?;
        let mac = if vif.has_ethernet() { Some(ethernet(packet.data()).ok()?.src) } else { None };
        (!mac.is_some_and(MacAddr::is_multicast)).then(|| Station { vif: Arc::clone(vif), mac })
    }

    /// Sends an answer that the node has made to who is answered.
    pub(super) fn answer(
        &mut self,
        (station, context): (Option<Station>, &Context),
        answer: Packet,
        now: u64,
        out: &mut Outbox,
    ) {
        match station {
            Some(station) if answer.len() > usize::from(station.vif.mtu) => {
                self.answer_in_fragments(&station, (&answer, context), out);
                out.recycle(answer);
            }
            Some(station) => self.send_to_station(&station, context, answer, out),
            None => self.originate(context.key.vrf, answer, now, out),
        }
    }

    /// The same of an answer that does not fit into the vif: the reply to an echo request that came in fragments.
    #[cold]
    fn answer_in_fragments(&mut self, station: &Station, (answer, context): (&Packet, &Context), out: &mut Outbox) {
        let mtu = station.vif.mtu;
        let id = self.fragment_id(&context.key);
        let mut pieces = Vec::new();
        let split = parse::ip(answer.data(), context.ip.version).and_then(|ip| match ip.version {
            6 => fragment::split_at_source(answer.data(), &ip, mtu, id, &mut out.spare, &mut pieces),
            _ => fragment::split(answer.data(), &ip, mtu, &mut out.spare, &mut pieces),
        });
        if split.is_err() {
            self.counters.account.originated += 1;
            self.counters.account.originated_dropped += 1;
        }
        for piece in pieces {
            self.send_to_station(station, context, piece, out);
        }
    }

    fn send_to_station(&mut self, station: &Station, context: &Context, answer: Packet, out: &mut Outbox) {
        let vif = &station.vif;
        if let Some(mac) = station.mac {
            let ethertype = if context.ip.version == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
            return self.send_frame(vif, mac, ethertype, answer, out);
        }
        self.counters.account.originated += 1;
        if !self.snapshot.is_up(vif.id) {
            self.counters.account.originated_dropped += 1;
            return out.recycle(answer);
        }
        let port = self.snapshot.port_of(vif.id);
        self.transmit(vif.id, port, TxKind::Originated, answer, out);
    }

    /// The source of an answer to an IPv6 group or anycast address: a unicast address of the vif that it came in on (RFC 4443
    /// §4.2), of the sender's scope where there is one. `None`: what was asked answers itself.
    pub(super) fn answering_source(&self, context: &Context) -> Option<Ipv6Addr> {
        let IpAddr::V6(asked) = context.ip.destination() else { return None };
        let is_anycast = || {
            let nexthop = self.snapshot.route(context.key.vrf, asked.into()).map(|route| route.nexthop);
            let oif = match self.snapshot.nexthop(nexthop?)?.kind {
                NexthopKind::Resolve { oif, .. } => oif,
                _ => return None,
            };
            let vif = self.snapshot.vif(oif)?;
            Some(vif.is_anycast(asked.into()) && !vif.owns(asked.into()))
        };
        if !asked.is_multicast() && is_anycast() != Some(true) {
            return None;
        }
        match self.gateway(context)? {
            IpAddr::V6(own) => Some(own),
            IpAddr::V4(_) => None,
        }
    }

    /// Answers what would have to leave the zone of its link-local source (RFC 4007 §9, RFC 4443 §3.1).
    pub(super) fn beyond_scope(&mut self, packet: &Packet, context: &Context, now: u64, out: &mut Outbox) {
        let Ip { version, .. } = context.ip;
        let asks_too_far =
            version == 6 && is_link_local(context.ip.source()) && !is_link_local(context.ip.destination());
        if asks_too_far && context.outer.is_none() {
            self.complain(packet, context, now, out, IcmpError::BeyondScope);
        }
    }
}
