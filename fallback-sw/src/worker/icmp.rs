//! ICMP that the node answers or sends.

use std::net::IpAddr;

use offload_rules::forwarding::{Vif, is_link_local};

use super::{
    Delivery, Origin, Outbox, Tenant, Worker,
    batch::framing,
    ingress::{Context, Sorted},
};
use crate::{
    exec,
    packet::{
        Packet,
        icmp::{self, IcmpError},
        parse::FragmentInfo,
    },
};

impl Worker {
    /// Answers with "time exceeded" (RFC 1812 §5.3.1, RFC 4443 §3.3), within the rate limit (RFC 1812 §4.3.2.8).
    pub(super) fn time_exceeded(&mut self, packet: &Packet, context: &Context, now: u64, out: &mut Outbox) {
        self.complain(packet, context, now, out, IcmpError::TimeExceeded);
    }

    /// Answers with "fragmentation needed" (RFC 1191 §4) or "packet too big" (RFC 4443 §3.2).
    pub(super) fn too_big(&mut self, packet: &Packet, context: &Context, mtu: u16, now: u64, out: &mut Outbox) {
        self.complain(packet, context, now, out, IcmpError::TooBig { mtu });
    }

    /// Answers an IPv6 packet that every IPv6 link takes, and the one on its way does not: "address unreachable", which is also for
    /// faults of a link (RFC 4443 §3.1).
    pub(super) fn link_too_narrow(&mut self, packet: &Packet, context: &Context, now: u64, out: &mut Outbox) {
        self.complain(packet, context, now, out, IcmpError::HostUnreachable);
    }

    /// Answers a packet whose neighbour is not there with "host unreachable" (RFC 1812 §5.2.7.1) or "address unreachable".
    pub(super) fn unreachable(&mut self, delivery: &Delivery, now: u64, out: &mut Outbox) {
        let Origin::Port { port, head, .. } = delivery.origin else { return };
        if let Ok(Sorted::Ip(context)) = self.sort(&delivery.packet, port, head) {
            self.complain(&delivery.packet, &context, now, out, IcmpError::HostUnreachable);
        }
    }

    pub(super) fn complain(&mut self, packet: &Packet, context: &Context, now: u64, out: &mut Outbox, kind: IcmpError) {
        let rate = self.snapshot.settings().icmp_error_rate;
        let rate = rate.div_ceil(u32::try_from(self.config.workers.max(1)).unwrap_or(1));
        // What comes out of one underlay is of many tenants.
        let tenant = context.outer.map_or(Tenant::Vif(context.vif), |_| Tenant::Vrf(context.key.vrf));
        // A flood costs no more than this: to find the address and to write the error is work.
        if !self.icmp_rate.has(tenant, rate, now) {
            return;
        }
        let Some(gateway) = self.gateway(context) else { return };
        let Some(l3) = packet.data().get(usize::from(context.l3)..) else { return };
        let Some(error) = icmp::error(kind, &context.ip, l3, gateway) else { return };
        if self.icmp_rate.allow(tenant, rate, now) {
            let station = self.station(packet, context);
            self.answer((station, context), error, now, out);
        }
    }

    /// The node's address toward the sender: that of the ingress vif, or of any vif of the tenant's when it came by a tunnel.
    pub(super) fn gateway(&self, context: &Context) -> Option<IpAddr> {
        let sender = context.ip.source();
        if context.outer.is_none() {
            let vif = self.snapshot.vif(context.vif)?;
            let link_local = || vif.link_local().map(IpAddr::V6).filter(|_| sender.is_ipv6());
            let own = vif.own_address(sender);
            let own = if is_link_local(sender) { link_local().or(own) } else { own.or_else(link_local) };
            if own.is_some() {
                return own;
            }
        }
        let of_tenant = |vif: &&std::sync::Arc<Vif>| vif.vrf == context.key.vrf;
        self.snapshot.vifs().filter(of_tenant).find_map(|vif| vif.own_address(sender))
    }

    /// Answers an echo request to one of the node's addresses in place (RFC 792, RFC 4443 §4.2).
    /// A fragmented one is put together first.
    pub(super) fn answer_echo(&mut self, mut packet: Packet, context: &Context, now: u64, out: &mut Outbox) {
        if context.ip.fragment != FragmentInfo::None {
            return self.reassemble(packet, context, now, out);
        }
        let mut ip = context.ip;
        let (station, source) = (self.station(&packet, context), self.answering_source(context));
        let answered = exec::strip(&mut packet, &mut ip, &framing(context))
            .and_then(|()| icmp::echo_reply(&ip, packet.data_mut(), source));
        match answered {
            Ok(()) => {
                self.counters.account.consumed += 1;
                self.answer((station, context), packet, now, out);
            }
            Err(reason) => self.drop_packet(context.vif, packet, reason, out),
        }
    }
}
