//! ARP and neighbour discovery: who asks, who is answered, what is learnt.
//!
//! RFC 826, RFC 5227 (probes are left alone), RFC 4861, RFC 4862 §5.4 (so is duplicate address detection).

use std::net::{IpAddr, Ipv4Addr};

use offload_rules::{
    DropReason, MacAddr, VifId,
    flow::VrfCounter,
    forwarding::{Vif, VifKind, link_local},
};

use super::{
    Worker,
    context::Context,
    event::{Event, NeighbourClaim},
    held::GiveUp,
    outbox::Outbox,
    outcome::{Outcome, OwnPath, Station},
    respond::Responder,
    tenant::NeighbourKey,
    tx::TxKind,
};
use crate::{
    node::neighbours::nud::Question,
    packet::{
        Packet,
        arp::Arp,
        icmp::IcmpError,
        nd::{self, Advertisement, Nd, Solicitation},
        parse::{ETHERTYPE_ARP, ETHERTYPE_IPV6, ethernet},
    },
};

/// Who answers a request.
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
    /// The node does not answer for this address.
    Nobody,
}

impl Responder<'_> {
    /// Takes in an ARP packet.
    pub(super) fn arp(&mut self, vif: VifId, at: usize, packet: &Packet) -> Outcome {
        let Some(vif) = self.env.snapshot.vif(vif).cloned() else {
            return Outcome::drop(vif, DropReason::InvalidIf);
        };
        let payload = packet.data().get(at..).unwrap_or(&[]);
        let arp = match Arp::parse(payload) {
            Ok(arp) => arp,
            Err(reason) => return Outcome::drop(vif.id, reason),
        };
        if vif.flags.no_arp {
            return Outcome::drop(vif.id, DropReason::ArpNotForUs);
        }
        let sender = IpAddr::V4(arp.sender);
        if vif.owns(sender) || vif.mac == Some(arp.sender_mac) || vif.is_subnet_broadcast(sender) {
            // Someone else claims an address or the MAC of this vif, or an address that nobody has: not believed (RFC 5227 §2.4).
            return Outcome::drop(vif.id, DropReason::ArpInvalid);
        }
        if !arp.is_probe() && vif.is_on_link(sender) {
            let (mac, ours) = (arp.sender_mac, vif.owns(IpAddr::V4(arp.target)));
            let claim = if ours && !arp.is_reply() {
                NeighbourClaim::Request { mac }
            } else {
                // RFC 826: whatever else it is, it updates what is known of the sender.
                NeighbourClaim::Advertisement { mac: Some(mac), solicited: ours, replace: true }
            };
            self.heard(&vif, sender, claim);
        }
        if arp.is_reply() || arp.is_gratuitous() {
            return Outcome::Consume;
        }
        match self.answer_for(&vif, sender, IpAddr::V4(arp.target), arp.is_probe()) {
            answer @ (Answer::Own | Answer::Proxy) => {
                self.count_proxy(&vif, answer);
                let mac = vif.mac.unwrap_or_default();
                self.send_frame(vif.id, arp.sender_mac, ETHERTYPE_ARP, arp.reply(mac).packet());
                Outcome::Consume
            }
            Answer::Trap(agent) => {
                let port = self.env.snapshot.port_of(agent);
                Outcome::Send { vif: agent, port, kind: TxKind::Punted }
            }
            Answer::Flood => {
                self.counters.pass(vif.vrf, VrfCounter::ArpFlood, 1);
                Outcome::drop(vif.id, DropReason::ArpNotForUs)
            }
            Answer::Nobody => Outcome::drop(vif.id, DropReason::ArpNotForUs),
        }
    }

    /// Takes in a neighbour solicitation or advertisement.
    pub(super) fn neighbour_discovery(&mut self, context: &Context, packet: &Packet) -> Outcome {
        let Some(vif) = self.env.snapshot.vif(context.vif).cloned() else {
            return Outcome::drop(context.vif, DropReason::InvalidIf);
        };
        let l3 = packet.data().get(usize::from(context.l3)..).unwrap_or(&[]);
        let message = match nd::parse(&context.ip, l3) {
            Ok(message) => message,
            Err(reason) => return Outcome::drop(vif.id, reason),
        };
        if vif.flags.no_arp || vif.flags.raw_ip {
            return Outcome::drop(vif.id, DropReason::ArpNotForUs);
        }
        match message {
            Nd::Advertisement(told) => {
                if vif.owns_on_link(told.target.into()) || told.target_mac.is_some_and(|mac| vif.mac == Some(mac)) {
                    return Outcome::drop(vif.id, DropReason::NdInvalid);
                }
                let target = IpAddr::V6(told.target);
                // Other routers have the anycast address, too.
                if vif.is_on_link(target) && !vif.is_anycast(target) {
                    let Advertisement { target_mac: mac, solicited, replace, .. } = told;
                    self.heard(&vif, target, NeighbourClaim::Advertisement { mac, solicited, replace });
                }
                Outcome::Consume
            }
            Nd::Solicitation(asked) => self.solicited(&vif, &asked, packet),
        }
    }

    fn solicited(&mut self, vif: &Vif, asked: &Solicitation, packet: &Packet) -> Outcome {
        let (source, target) = (IpAddr::V6(asked.source), IpAddr::V6(asked.target));
        if vif.owns_on_link(source) || asked.source_mac.is_some_and(|mac| vif.mac == Some(mac)) {
            return Outcome::drop(vif.id, DropReason::NdInvalid);
        }
        let (own, anycast) = (vif.owns_on_link(target), vif.is_anycast(target));
        let answer = if own || anycast { Answer::Own } else { self.answer_for(vif, source, target, asked.is_dad()) };
        match answer {
            Answer::Own | Answer::Proxy => {
                // RFC 4861 §7.2.3: nothing is learnt from a question that is for somebody else.
                if let Some(mac) = asked.source_mac
                    && vif.is_on_link(source)
                {
                    self.heard(vif, source, NeighbourClaim::Solicitation { mac });
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
                self.send_frame(vif.id, to, ETHERTYPE_IPV6, told.packet());
                Outcome::Consume
            }
            Answer::Trap(_) | Answer::Flood | Answer::Nobody => Outcome::drop(vif.id, DropReason::ArpNotForUs),
        }
    }

    fn known_mac(&self, vif: VifId, address: IpAddr) -> Option<MacAddr> {
        self.env.snapshot.neighbour(vif, address).map(|neighbour| neighbour.mac)
    }

    /// Passes on what a neighbour claims.
    fn heard(&mut self, vif: &Vif, address: IpAddr, claim: NeighbourClaim) {
        let event = Event::Neighbour { neighbour: (vif.id, address), claim };
        self.limits.tell(vif.id, event, self.env.clock, self.emit.events);
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
        let Some(route) = self.env.snapshot.route(vif.vrf, target) else { return Answer::Nobody };
        let on_host = matches!(vif.kind, VifKind::Host { .. } | VifKind::Agent { .. });
        if route.flags.proxy_arp || (route.flags.proxy_arp_for_host && on_host) {
            return Answer::Proxy;
        }
        if route.flags.trap_arp {
            let agent = |vif: &&std::sync::Arc<Vif>| matches!(vif.kind, VifKind::Agent { .. });
            let host = |vif: &&std::sync::Arc<Vif>| matches!(vif.kind, VifKind::Host { .. });
            let found = self.env.snapshot.vifs().find(agent).or_else(|| self.env.snapshot.vifs().find(host));
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
    fn ask(&mut self, (vif, address): NeighbourKey, question: Question) {
        let mac = match question {
            Question::All => None,
            Question::Station(mac) => Some(mac),
        };
        let Some(vif) = self.env.snapshot.vif(vif).cloned() else { return };
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
                self.send_frame(vif.id, mac.unwrap_or(MacAddr::BROADCAST), ETHERTYPE_ARP, request);
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
                self.send_frame(vif.id, to, ETHERTYPE_IPV6, asked.packet());
            }
        }
    }

    /// Sends a packet that the node has made to a station on a vif.
    fn send_frame(&mut self, vif: VifId, to: MacAddr, ethertype: u16, packet: Packet) {
        self.emit.originate(packet, OwnPath::OnLink(Station { vif, mac: Some(to), ethertype }));
    }
}

impl Worker {
    /// Asks for a neighbour: everybody, or the station at a MAC whether it is still there.
    pub fn ask(&mut self, neighbour: NeighbourKey, question: Question, out: &mut Outbox) {
        self.responder(out).ask(neighbour, question);
        self.finish(out);
    }

    /// Gives up what waits for a neighbour. Its absence is told to the senders with "host unreachable" or "address unreachable"
    /// (RFC 1812 §5.2.7.1, RFC 4861 §7.2.2).
    pub fn give_up(&mut self, neighbour: NeighbourKey, why: GiveUp, now: u64, out: &mut Outbox) {
        self.env.advance_clock(now);
        for delivery in self.waiting.held.release_one(neighbour) {
            if why == GiveUp::Unresolved
                && let Some(context) = self.context_of(&delivery)
            {
                self.responder(out).icmp_error(&delivery.packet, &context, IcmpError::HostUnreachable);
            }
            self.drop_delivery(delivery, why.reason(), out);
        }
        self.finish(out);
    }
}
