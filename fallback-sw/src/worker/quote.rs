//! ICMP errors about packets of the node's own tunnels.
//!
//! They are for the node alone. "Fragmentation needed" tells the path's MTU, when it quotes what was really sent (RFC 4301 §8.2.1,
//! RFC 5927 §7); all others are of no use to a tunnel (RFC 2003 §4), least of all its end.

use std::net::IpAddr;

use offload_rules::{DropReason, VifId, VrfId, classify::Start, forwarding::Snapshot};

use super::{
    context::{Context, Path},
    decider::Decider,
    delivery::Origin,
    event::Event,
    ipsec::{EspQuote, Quoted, Reason},
    outcome::Outcome,
};
use crate::packet::{
    Packet,
    parse::{self, Embedded, FragmentInfo, PROTO_UDP},
};

const DEST_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
/// UDP ports of MPLS over UDP (RFC 7510).
const MPLS_O_UDP: [u16; 2] = [6635, 51234];
/// Smallest path MTU that is believed: what every host takes (RFC 791 §3.1). RFC 1191 §3 would have 68; an underlay with such a link
/// has no use for tunnels, and who forges one has.
const MIN_PATH_MTU: u16 = 576;
/// MTUs of links in use, from RFC 1191 §7.1.
const PLATEAUS: [u16; 11] = [65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];

impl Decider<'_> {
    /// Takes in an ICMP error about a packet of one of the node's own tunnels. `None`: it is about something else, another tunnel's end,
    /// or one that is not reached by the VRF that the error came in (a tenant could forge it).
    pub(super) fn outer_error(&mut self, packet: &Packet, context: &Context) -> Option<Outcome> {
        let snapshot = &self.env.snapshot;
        let from_tenant = context.outer.is_some() || matches!(context.path, Path::Walk(Start::Nexthop(_)));
        let source = context.ip.source();
        let is_own = snapshot.is_own_tunnel_source(source) || snapshot.owner(context.key.vrf, source).is_some();
        if context.ip.version != 4 || from_tenant || is_own {
            return None;
        }
        let l3 = packet.data().get(usize::from(context.l3)..)?;
        let quoted = parse::embedded(&context.ip, l3).ok()?;
        // What was quoted is reversed: its destination is the source of what was sent.
        if quoted.dst != context.ip.dst {
            return None;
        }
        let (reason, vrf) = (reason(context, &quoted, l3), context.key.vrf);
        if is_of_mpls(snapshot, &quoted, vrf) {
            self.counters.walks(vrf, packet.len());
            return Some(match reason {
                Reason::Other => Outcome::Consume,
                // The node sends it with DF clear (RFC 7510 §3): nobody has reason to refuse it for its length.
                Reason::PathMtu(..) | Reason::Absurd => not_sent(context.vif),
            });
        }
        let found = self.ipsec.quoted(context, &quoted, l3, reason, self.env);
        let outcome = match found {
            Quoted::Foreign => return None,
            Quoted::NotSent => not_sent(context.vif),
            Quoted::Sent(quote) => self.heed(&quote),
            Quoted::SentByOther { owner, quote } => Outcome::HandOver { worker: owner, origin: Origin::Quoting(quote) },
        };
        self.counters.walks(vrf, packet.len());
        Some(outcome)
    }

    /// The same of an error that another worker has received.
    pub(super) fn outer_error_of_other(&mut self, quote: &EspQuote) -> Outcome {
        if self.ipsec.has_sent_lately(quote, self.env.clock) { self.heed(quote) } else { not_sent(quote.vif) }
    }

    /// An error about what was sent.
    fn heed(&mut self, quote: &EspQuote) -> Outcome {
        match quote.reason {
            Reason::PathMtu(mtu, destination) => {
                let event = Event::PathMtu { destination, mtu };
                self.limits.tell(quote.vif, event, self.env.clock, self.emit.events);
                Outcome::Consume
            }
            Reason::Absurd => not_sent(quote.vif),
            Reason::Other => Outcome::Consume,
        }
    }
}

const fn not_sent(vif: VifId) -> Outcome {
    Outcome::drop(vif, DropReason::IcmpQuoteNotSent)
}

/// Quotes a packet of one of the node's MPLS-over-UDP tunnels? (Of a later fragment nothing tells the port.)
fn is_of_mpls(snapshot: &Snapshot, quoted: &Embedded, vrf: VrfId) -> bool {
    let key = quoted.flow_key(vrf, VifId::TUNNEL);
    quoted.proto == PROTO_UDP
        && (MPLS_O_UDP.contains(&key.sport) || quoted.is_later_fragment())
        && snapshot.is_own_tunnel_source(key.destination())
        && snapshot.has_tunnel_to(vrf, key.source())
}

/// What an error says about a packet of a tunnel.
fn reason(context: &Context, quoted: &Embedded, l3: &[u8]) -> Reason {
    let ip = &context.ip;
    if (ip.icmp_type, ip.icmp_code) != (DEST_UNREACHABLE, FRAGMENTATION_NEEDED) {
        return Reason::Other;
    }
    let told = ip.payload(l3).get(6..8).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]));
    let mtu = if told == 0 { plateau_below(quoted.total_len) } else { told };
    let key = quoted.flow_key(context.key.vrf, context.vif);
    // A router refuses what may not be fragmented and does not fit (RFC 1191 §3, RFC 5927 §7.2): nothing else.
    let has_reason = quoted.df && quoted.fragment == FragmentInfo::None && quoted.total_len > mtu;
    match key.source() {
        IpAddr::V4(destination) if has_reason && mtu >= MIN_PATH_MTU => Reason::PathMtu(mtu, destination),
        _ => Reason::Absurd,
    }
}

/// The path MTU to try after a router from before RFC 1191 has refused a packet of this length without telling why (RFC 1191 §5).
fn plateau_below(len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(0).max(MIN_PATH_MTU)
}

#[cfg(test)]
mod tests {
    use super::plateau_below;

    #[test]
    fn a_router_that_tells_no_mtu_has_the_next_plateau_of_rfc_1191() {
        for (len, mtu) in [(1500, 1492), (1493, 1492), (1492, 1006), (9000, 8166), (1006, 576), (600, 576), (20, 576)] {
            assert_eq!(plateau_below(len), mtu, "{len}");
        }
    }
}
