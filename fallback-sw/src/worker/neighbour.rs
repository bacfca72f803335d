//! ARP and neighbour discovery: who asks, who is answered, what is learnt.
//!
//! RFC 826, RFC 5227 (probes are left alone), RFC 4861, RFC 4862 §5.4 (so is duplicate address detection).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use offload_rules::{
    DropReason, MacAddr, VifId,
    flow::VrfCounter,
    forwarding::{Vif, VifKind},
};

use super::{Event, NeighbourKey, Outbox, TxKind, Worker, ingress::Context};
use crate::packet::{
    Packet,
    arp::Arp,
    nd::{self, Advertisement, Nd, Solicitation},
    parse::{ETHERTYPE_ARP, ETHERTYPE_IPV6},
    rewrite,
};

/// How a request is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The address is the vif's own.
    Own,
    /// For someone else.
    Proxy,
    /// Hand it to the agent.
    Trap(VifId),
    /// Flooding is for a bridge.
    Flood,
    /// None of this node's business.
    Nobody,
}

impl Worker {
    /// Takes in an ARP packet.
    pub(super) fn arp(&mut self, vif: VifId, at: usize, packet: Packet, out: &mut Outbox) {
        let Some(vif) = self.snapshot.vif(vif).cloned() else {
            return self.drop_packet(vif, packet, DropReason::InvalidIf, out);
        };
        let payload = packet.data().get(at..).unwrap_or(&[]);
        let arp = match Arp::parse(payload) {
            Ok(arp) => arp,
            Err(reason) => return self.drop_packet(vif.id, packet, reason, out),
        };
        if vif.flags.no_arp {
            return self.drop_packet(vif.id, packet, DropReason::ArpNotForUs, out);
        }
        let sender = IpAddr::V4(arp.sender);
        if vif.owns(sender) {
            // Someone else claims an address of this vif: not believed (RFC 5227 §2.4).
            return self.drop_packet(vif.id, packet, DropReason::ArpInvalid, out);
        }
        let ours = vif.owns(IpAddr::V4(arp.target));
        if !arp.is_probe() && is_on_link(&vif, sender) {
            let solicited = ours && !arp.is_gratuitous();
            self.heard(&vif, sender, arp.sender_mac, solicited, out);
        }
        if arp.is_reply() || arp.is_gratuitous() {
            return self.consume(packet, out);
        }
        match self.answer_for(&vif, sender, IpAddr::V4(arp.target), arp.is_probe()) {
            answer @ (Answer::Own | Answer::Proxy) => {
                self.count_proxy(&vif, answer);
                let mac = vif.mac.unwrap_or_default();
                self.send_frame(&vif, arp.sender_mac, ETHERTYPE_ARP, arp.reply(mac).packet(), out);
                self.consume(packet, out);
            }
            Answer::Trap(agent) => {
                let port = self.snapshot.port_of(agent);
                self.transmit(agent, port, TxKind::Punted, packet, out);
            }
            Answer::Flood => {
                self.counters.pass(vif.vrf, VrfCounter::ArpFlood, 1);
                self.drop_packet(vif.id, packet, DropReason::ArpNotForUs, out);
            }
            Answer::Nobody => self.drop_packet(vif.id, packet, DropReason::ArpNotForUs, out),
        }
    }

    /// Takes in a neighbour solicitation or advertisement.
    pub(super) fn neighbour_discovery(&mut self, context: &Context, packet: Packet, out: &mut Outbox) {
        let Some(vif) = self.snapshot.vif(context.vif).cloned() else {
            return self.drop_packet(context.vif, packet, DropReason::InvalidIf, out);
        };
        let l3 = packet.data().get(usize::from(context.l3)..).unwrap_or(&[]);
        let message = match nd::parse(&context.ip, l3) {
            Ok(message) => message,
            Err(reason) => return self.drop_packet(vif.id, packet, reason, out),
        };
        if vif.flags.no_arp || vif.flags.raw_ip {
            return self.drop_packet(vif.id, packet, DropReason::ArpNotForUs, out);
        }
        match message {
            Nd::Advertisement(told) => {
                if owns6(&vif, told.target) {
                    return self.drop_packet(vif.id, packet, DropReason::NdInvalid, out);
                }
                if let Some(mac) = told.target_mac
                    && is_on_link(&vif, IpAddr::V6(told.target))
                {
                    self.heard(&vif, IpAddr::V6(told.target), mac, told.solicited, out);
                }
                self.consume(packet, out);
            }
            Nd::Solicitation(asked) => self.solicited(&vif, &asked, packet, out),
        }
    }

    fn solicited(&mut self, vif: &Vif, asked: &Solicitation, packet: Packet, out: &mut Outbox) {
        let (source, target) = (IpAddr::V6(asked.source), IpAddr::V6(asked.target));
        if owns6(vif, asked.source) {
            return self.drop_packet(vif.id, packet, DropReason::NdInvalid, out);
        }
        if let Some(mac) = asked.source_mac
            && is_on_link(vif, source)
        {
            self.heard(vif, source, mac, owns6(vif, asked.target), out);
        }
        let answer =
            if owns6(vif, asked.target) { Answer::Own } else { self.answer_for(vif, source, target, asked.is_dad()) };
        match answer {
            Answer::Own | Answer::Proxy => {
                self.count_proxy(vif, answer);
                let mut told: Advertisement = asked.answer(vif.mac.unwrap_or_default(), true);
                // RFC 4861 §7.2.8: a proxy does not override what the host itself says.
                told.replace = answer == Answer::Own;
                let to = if asked.is_dad() {
                    nd::multicast_mac(told.destination)
                } else {
                    asked
                        .source_mac
                        .or_else(|| self.known_mac(vif.id, source))
                        .unwrap_or(nd::multicast_mac(told.destination))
                };
                self.send_frame(vif, to, ETHERTYPE_IPV6, told.packet(), out);
                self.consume(packet, out);
            }
            Answer::Trap(_) | Answer::Flood | Answer::Nobody => {
                self.drop_packet(vif.id, packet, DropReason::ArpNotForUs, out);
            }
        }
    }

    fn known_mac(&self, vif: VifId, address: IpAddr) -> Option<MacAddr> {
        self.snapshot.neighbour(vif, address).map(|neighbour| neighbour.mac)
    }

    /// Passes on what a neighbour told.
    fn heard(&mut self, vif: &Vif, address: IpAddr, mac: MacAddr, solicited: bool, out: &mut Outbox) {
        if mac.is_multicast() || mac == MacAddr::default() {
            return;
        }
        self.tell(vif.id, Event::Neighbour { vif: vif.id, address, mac, solicited }, out);
    }

    /// Who answers for `target`? Probes (`dad`) are answered for own addresses only, or nobody could take one.
    fn answer_for(&self, vif: &Vif, sender: IpAddr, target: IpAddr, dad: bool) -> Answer {
        if vif.owns(target) {
            return Answer::Own;
        }
        if dad || sender == target {
            return Answer::Nobody;
        }
        if vif.flags.proxy {
            return Answer::Proxy;
        }
        let Some(route) = self.snapshot.route(vif.vrf, target) else { return Answer::Nobody };
        let on_host = matches!(vif.kind, VifKind::Host { .. } | VifKind::Agent { .. });
        if route.flags.proxy_arp || (route.flags.proxy_arp_for_host && on_host) {
            return Answer::Proxy;
        }
        if route.flags.trap_arp {
            let agent = |vif: &&std::sync::Arc<Vif>| matches!(vif.kind, VifKind::Agent { .. });
            let host = |vif: &&std::sync::Arc<Vif>| matches!(vif.kind, VifKind::Host { .. });
            let found = self.snapshot.vifs().find(agent).or_else(|| self.snapshot.vifs().find(host));
            return found.map_or(Answer::Nobody, |vif| Answer::Trap(vif.id));
        }
        if route.flags.flood_arp { Answer::Flood } else { Answer::Nobody }
    }

    fn count_proxy(&mut self, vif: &Vif, answer: Answer) {
        if answer == Answer::Proxy {
            let what = match vif.kind {
                VifKind::Physical { .. } | VifKind::PhysicalVlan { .. } => VrfCounter::ArpPhysicalProxy,
                _ => VrfCounter::ArpVirtualProxy,
            };
            self.counters.pass(vif.vrf, what, 1);
        }
    }

    /// Asks for a neighbour: everybody, or the station at `mac` whether it is still there.
    pub fn ask(&mut self, (vif, address): NeighbourKey, mac: Option<MacAddr>, out: &mut Outbox) {
        let Some(vif) = self.snapshot.vif(vif).cloned() else { return };
        if vif.flags.no_arp || vif.flags.raw_ip {
            return;
        }
        let own_mac = vif.mac.unwrap_or_default();
        match address {
            IpAddr::V4(target) => {
                let own = match vif.own_address(address) {
                    Some(IpAddr::V4(own)) => own,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let request = Arp::request(own_mac, own, target).packet();
                self.send_frame(&vif, mac.unwrap_or(MacAddr::BROADCAST), ETHERTYPE_ARP, request, out);
            }
            IpAddr::V6(target) => {
                let own = match vif.own_address(address) {
                    Some(IpAddr::V6(own)) => own,
                    _ => link_local(own_mac),
                };
                let mut asked = Solicitation::new(own, own_mac, target);
                if mac.is_some() {
                    asked.destination = target;
                }
                let to = mac.unwrap_or_else(|| nd::multicast_mac(asked.destination));
                self.send_frame(&vif, to, ETHERTYPE_IPV6, asked.packet(), out);
            }
        }
    }

    /// Sends a packet that the node has made to a station on a vif.
    fn send_frame(&mut self, vif: &Vif, to: MacAddr, ethertype: u16, mut packet: Packet, out: &mut Outbox) {
        self.counters.account.originated += 1;
        let header = vif.header_to(to);
        let written = header.as_ref().and_then(|header| {
            let header = header.bytes();
            let room = packet.prepend(header.len()).ok()?;
            rewrite::write_l2(room, header, ethertype, None).ok()
        });
        if written.is_none() || !self.snapshot.is_up(vif.id) {
            self.counters.account.originated_dropped += 1;
            return out.recycle(packet);
        }
        let port = self.snapshot.port_of(vif.id);
        self.transmit(vif.id, port, TxKind::Originated, packet, out);
    }

    /// Gives up what waits for a neighbour that the table has no room for.
    pub fn refuse(&mut self, neighbour: NeighbourKey, out: &mut Outbox) {
        for delivery in self.held.release(|key| key == neighbour) {
            self.drop_delivery(delivery, DropReason::NeighbourTableFull, out);
        }
    }
}

/// An address of the vif's subnets, or link-local.
fn is_on_link(vif: &Vif, address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    link_local || vif.addresses.iter().any(|net| net.contains(&address))
}

/// One of the vif's IPv6 addresses; its link-local one included.
fn owns6(vif: &Vif, address: Ipv6Addr) -> bool {
    vif.owns(IpAddr::V6(address)) || vif.mac.is_some_and(|mac| link_local(mac) == address)
}

/// The link-local address that goes with a MAC (RFC 4291 appendix A).
fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}
