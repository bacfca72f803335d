//! ICMP that the node answers, sends, or takes to heart.

use std::net::IpAddr;

use offload_rules::{classify::Start, flow::FlowKey, forwarding::Vif};

use super::{
    Delivery, Event, Origin, Outbox, Worker,
    batch::varying,
    ingress::{Context, Path, Sorted},
};
use crate::{
    esp, exec,
    packet::{
        Packet,
        icmp::{self, IcmpError},
        parse::{self, FragmentInfo},
    },
};

const DEST_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const UDP: u8 = 17;
/// Smallest path MTU that is believed (RFC 791: every link takes 68; below this no tenant packet of 536 fits).
const MIN_PATH_MTU: u16 = 576;

impl Worker {
    /// Answers with "time exceeded" (RFC 1812 §5.3.1, RFC 4443 §3.3), within the rate limit (RFC 1812 §4.3.2.8).
    pub(super) fn time_exceeded(&mut self, packet: &Packet, context: &Context, now: u64, out: &mut Outbox) {
        self.complain(packet, context, now, out, IcmpError::TimeExceeded);
    }

    /// Answers with "fragmentation needed" (RFC 1191 §4) or "packet too big" (RFC 4443 §3.2).
    pub(super) fn too_big(&mut self, packet: &Packet, context: &Context, mtu: u16, now: u64, out: &mut Outbox) {
        self.complain(packet, context, now, out, IcmpError::TooBig { mtu });
    }

    /// Answers a packet whose neighbour is not there with "host unreachable" (RFC 1812 §5.2.7.1) or "address unreachable".
    pub(super) fn unreachable(&mut self, delivery: &Delivery, now: u64, out: &mut Outbox) {
        let Origin::Port { port, head, .. } = delivery.origin else { return };
        if let Ok(Sorted::Ip(context)) = self.sort(&delivery.packet, port, head) {
            self.complain(&delivery.packet, &context, now, out, IcmpError::HostUnreachable);
        }
    }

    /// Quotes a packet of one of the node's MPLS-over-UDP tunnels?
    fn is_of_mpls(&self, key: &FlowKey) -> bool {
        key.proto == UDP
            && matches!(key.sport, 6635 | 51234)
            && self.snapshot.is_own_tunnel_source(key.destination())
            && self.snapshot.has_tunnel_to(key.vrf, key.source())
    }

    /// Quotes a packet of one of its IPsec tunnels? (What is IKE's of port 4500 is not told apart: it takes the same path.)
    fn is_of_ipsec(&self, key: &FlowKey) -> bool {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (key.destination(), key.source()) else { return false };
        matches!(key.proto, UDP | esp::PROTOCOL)
            && self.ipsec.has_tunnel(key.vrf, source, destination, key.proto == UDP)
    }

    fn complain(&mut self, packet: &Packet, context: &Context, now: u64, out: &mut Outbox, kind: IcmpError) {
        let Some(gateway) = self.gateway(context) else { return };
        let Some(l3) = packet.data().get(usize::from(context.l3)..) else { return };
        let rate = self.snapshot.settings().icmp_error_rate;
        let workers = u32::try_from(self.config.workers.max(1)).unwrap_or(1);
        let Some(error) = icmp::error(kind, &context.ip, l3, gateway) else { return };
        if self.icmp_rate.allow(context.vif, rate.div_ceil(workers), now) {
            self.originate(context.key.vrf, error, now, out);
        }
    }

    /// The node's address toward the sender: that of the ingress vif, or of any vif of the tenant's when it came by a tunnel.
    fn gateway(&self, context: &Context) -> Option<IpAddr> {
        let sender = context.ip.source();
        if context.outer.is_none()
            && let Some(own) = self.snapshot.vif(context.vif)?.own_address(sender)
        {
            return Some(own);
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
        let answered = exec::strip(&mut packet, &mut ip, &varying(context, 0, 0))
            .and_then(|()| icmp::echo_reply(&ip, packet.data_mut()));
        match answered {
            Ok(()) => {
                self.counters.account.consumed += 1;
                self.originate(context.key.vrf, packet, now, out);
            }
            Err(reason) => self.drop_packet(context.vif, packet, reason, out),
        }
    }

    /// An ICMP error about a packet of one of the node's own tunnels is for the node. "Fragmentation needed" tells the path's
    /// MTU; the rest is of no use to a tunnel (RFC 2003 §4). `false` when it is about something else: another tunnel's end, or one
    /// that is not reached by the VRF that the error came in (a tenant could forge it).
    pub(super) fn take_path_mtu(&mut self, packet: &Packet, context: &Context, out: &mut Outbox) -> bool {
        let from_tenant = context.outer.is_some() || matches!(context.path, Path::Walk(Start::Nexthop(_)));
        if context.ip.version != 4 || from_tenant {
            return false;
        }
        let Some(l3) = packet.data().get(usize::from(context.l3)..) else { return false };
        let Ok(quoted) = parse::embedded(&context.ip, l3) else { return false };
        let key = quoted.flow_key(context.key.vrf, context.key.vif);
        // The key is reversed: its destination is the source of what was quoted.
        if key.destination() != context.ip.destination() || !(self.is_of_mpls(&key) || self.is_of_ipsec(&key)) {
            return false;
        }
        let mtu = context.ip.payload(l3).get(6..8).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]));
        if context.ip.icmp_type == DEST_UNREACHABLE
            && context.ip.icmp_code == FRAGMENTATION_NEEDED
            && mtu >= MIN_PATH_MTU
            && let IpAddr::V4(destination) = key.source()
        {
            self.tell(context.vif, Event::PathMtu { destination, mtu }, out);
        }
        true
    }
}
