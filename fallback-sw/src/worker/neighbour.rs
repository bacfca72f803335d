//! ARP and neighbour discovery: who asks, who is answered, what is learnt.
//!
//! RFC 826, RFC 5227 (probes are left alone), RFC 4861, RFC 4862 §5.4 (so is duplicate address detection).

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    DropReason, MacAddr, VifId,
    flow::VrfCounter,
    forwarding::{Vif, VifKind, link_local},
};

use super::{Event, GiveUp, NeighbourKey, Outbox, Told, TxKind, Worker, ingress::Context};
use crate::{
    node::neighbours::nud::Question,
    packet::{
        Packet,
        arp::Arp,
        nd::{self, Advertisement, Nd, Solicitation},
        parse::{ETHERTYPE_ARP, ETHERTYPE_IPV6, ethernet},
        rewrite,
    },
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
        if vif.owns(sender) || vif.mac == Some(arp.sender_mac) || vif.is_subnet_broadcast(sender) {
            // Someone else claims an address or the MAC of this vif, or an address that nobody has: not believed (RFC 5227 §2.4).
            return self.drop_packet(vif.id, packet, DropReason::ArpInvalid, out);
        }
        if !arp.is_probe() && vif.is_on_link(sender) {
            let (mac, ours) = (arp.sender_mac, vif.owns(IpAddr::V4(arp.target)));
            let told = if ours && !arp.is_reply() {
                Told::Request { mac }
            } else {
                // RFC 826: whatever else it is, it updates what is known of the sender.
                Told::Advertisement { mac: Some(mac), solicited: ours, replace: true }
            };
            self.heard(&vif, sender, told, out);
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
                if vif.owns_on_link(told.target.into()) || told.target_mac.is_some_and(|mac| vif.mac == Some(mac)) {
                    return self.drop_packet(vif.id, packet, DropReason::NdInvalid, out);
                }
                let target = IpAddr::V6(told.target);
                // Other routers have the anycast address, too.
                if vif.is_on_link(target) && !vif.is_anycast(target) {
                    let Advertisement { target_mac: mac, solicited, replace, .. } = told;
                    self.heard(&vif, target, Told::Advertisement { mac, solicited, replace }, out);
                }
                self.consume(packet, out);
            }
            Nd::Solicitation(asked) => self.solicited(&vif, &asked, packet, out),
        }
    }

    fn solicited(&mut self, vif: &Vif, asked: &Solicitation, packet: Packet, out: &mut Outbox) {
        let (source, target) = (IpAddr::V6(asked.source), IpAddr::V6(asked.target));
        if vif.owns_on_link(source) || asked.source_mac.is_some_and(|mac| vif.mac == Some(mac)) {
            return self.drop_packet(vif.id, packet, DropReason::NdInvalid, out);
        }
        let (own, anycast) = (vif.owns_on_link(target), vif.is_anycast(target));
        let answer = if own || anycast { Answer::Own } else { self.answer_for(vif, source, target, asked.is_dad()) };
        match answer {
            Answer::Own | Answer::Proxy => {
                // RFC 4861 §7.2.3: nothing is learnt from a question that is for somebody else.
                if let Some(mac) = asked.source_mac
                    && vif.is_on_link(source)
                {
                    self.heard(vif, source, Told::Solicitation { mac }, out);
                }
                self.count_proxy(vif, answer);
                let mut told: Advertisement = asked.answer(vif.mac.unwrap_or_default(), true);
                // RFC 4861 §7.2.8: a proxy does not override what the host itself says. Nor does one of several routers with an
                // anycast address what another one says (§7.2.7).
                told.replace = own || answer == Answer::Own && !anycast;
                if anycast && !own {
                    told.source = vif.link_local().unwrap_or(told.source);
                }
                let to = if asked.is_dad() {
                    nd::multicast_mac(told.destination)
                } else {
                    // A question to this station alone need not say where its sender is (RFC 4861 §4.3): a cache that does not
                    // know it either goes by the frame.
                    let sender = || ethernet(packet.data()).map_or(MacAddr::default(), |frame| frame.src);
                    asked.source_mac.or_else(|| self.known_mac(vif.id, source)).unwrap_or_else(sender)
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
    fn heard(&mut self, vif: &Vif, address: IpAddr, told: Told, out: &mut Outbox) {
        self.tell(vif.id, Event::Neighbour { neighbour: (vif.id, address), told }, out);
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
    pub fn ask(&mut self, (vif, address): NeighbourKey, question: Question, out: &mut Outbox) {
        let mac = match question {
            Question::All => None,
            Question::Station(mac) => Some(mac),
        };
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
                    // Who has only a link-local address may not know a way back to another one (RFC 6724 §5, rule 2).
                    Some(IpAddr::V6(own)) if own.is_unicast_link_local() || !target.is_unicast_link_local() => own,
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
    pub(super) fn send_frame(&mut self, vif: &Vif, to: MacAddr, ethertype: u16, mut packet: Packet, out: &mut Outbox) {
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

    /// Gives up what waits for a neighbour. Its absence is told to the senders (RFC 1812 §5.2.7.1, RFC 4861 §7.2.2).
    pub fn give_up(&mut self, neighbour: NeighbourKey, why: GiveUp, now: u64, out: &mut Outbox) {
        for delivery in self.held.release_one(neighbour) {
            if why == GiveUp::Unresolved {
                self.unreachable(&delivery, now, out);
            }
            self.drop_delivery(delivery, why.reason(), out);
        }
    }
}
