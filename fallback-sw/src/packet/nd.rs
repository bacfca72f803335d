//! Neighbour discovery: solicitations and advertisements (RFC 4861 §4.3, §4.4, §7; RFC 4862 §5.4).
#![forbid(unsafe_code)]

use std::net::Ipv6Addr;

use offload_rules::{DropReason, MacAddr};

use super::{
    Packet, checksum,
    fragment::per_fragment_headers,
    icmp::checksum_holds,
    parse::{FragmentInfo, Ip, PROTO_ICMPV6},
};

/// ICMPv6 type of a neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Hop limit that proves that no router forwarded the message (RFC 4861 §7.1).
const HOP_LIMIT: u8 = 255;
/// ICMPv6 header, reserved word, target.
const FIXED_LEN: usize = 24;
/// Octets of a link-layer address option for Ethernet.
const OPTION_LEN: usize = 8;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// All nodes on the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A neighbour solicitation or advertisement that passed RFC 4861 §7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nd {
    /// "Who has `target`?"
    Solicitation(Solicitation),
    /// "`target` is here."
    Advertisement(Advertisement),
}

/// A neighbour solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Solicitation {
    /// Who asks; `::` while it checks whether the target is taken.
    pub source: Ipv6Addr,
    /// Whom it was sent to: the target, or its solicited-node group.
    pub destination: Ipv6Addr,
    /// Address that is asked for; never multicast.
    pub target: Ipv6Addr,
    /// Where the source can be reached.
    pub source_mac: Option<MacAddr>,
}

/// A neighbour advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Advertisement {
    /// Sender of the advertisement; a proxy's is not the target.
    pub source: Ipv6Addr,
    /// Who asked, or the group of all nodes.
    pub destination: Ipv6Addr,
    /// Address that is advertised; never multicast.
    pub target: Ipv6Addr,
    /// Where the target can be reached.
    pub target_mac: Option<MacAddr>,
    /// R: the target is a router.
    pub router: bool,
    /// S: this answers a solicitation. Never set toward a group.
    pub solicited: bool,
    /// O: replaces what is known about the target.
    pub replace: bool,
}

/// Parses a neighbour solicitation or advertisement. `ip` was parsed from `l3`.
///
/// # Errors
/// [`DropReason::NdInvalid`]: not one of the two, or it fails a check of RFC 4861 §7.1.1 or §7.1.2.
pub fn parse(ip: &Ip, l3: &[u8]) -> Result<Nd, DropReason> {
    // RFC 6980 §5: neighbour discovery is never fragmented, and has no fragment header that says that it is not.
    let in_fragments = || ip.fragment != FragmentInfo::None || ip.header_len > 40 && has_fragment_header(l3);
    if ip.version != 6 || ip.proto != PROTO_ICMPV6 || in_fragments() {
        return Err(DropReason::NdInvalid);
    }
    let message = ip.payload(l3);
    let Some((fixed, options)) = message.split_first_chunk::<FIXED_LEN>() else { return Err(DropReason::NdInvalid) };
    let Some(target) = fixed.last_chunk::<16>().map(|target| Ipv6Addr::from(*target)) else {
        return Err(DropReason::NdInvalid);
    };
    if ip.ttl != HOP_LIMIT || ip.icmp_code != 0 || target.is_multicast() || !checksum_holds(ip, message) {
        return Err(DropReason::NdInvalid);
    }
    let (source, destination) = (Ipv6Addr::from(ip.src), Ipv6Addr::from(ip.dst));
    match ip.icmp_type {
        NEIGHBOUR_SOLICITATION => {
            let source_mac = link_layer_address(options, SOURCE_LINK_LAYER)?;
            // §7.1.1: from `::` only to the solicited-node group, and without an address to be learned.
            if source.is_unspecified() && (!is_solicited_node(destination) || source_mac.is_some()) {
                return Err(DropReason::NdInvalid);
            }
            Ok(Nd::Solicitation(Solicitation { source, destination, target, source_mac }))
        }
        NEIGHBOUR_ADVERTISEMENT => {
            let target_mac = link_layer_address(options, TARGET_LINK_LAYER)?;
            let [router, solicited, replace] = [0x80, 0x40, 0x20].map(|bit| fixed[4] & bit != 0);
            if solicited && destination.is_multicast() {
                return Err(DropReason::NdInvalid);
            }
            Ok(Nd::Advertisement(Advertisement { source, destination, target, target_mac, router, solicited, replace }))
        }
        _ => Err(DropReason::NdInvalid),
    }
}

/// Is there a fragment header in the chain, behind what comes before one (RFC 8200 §4.5)?
fn has_fragment_header(l3: &[u8]) -> bool {
    const FRAGMENT: u8 = 44;
    per_fragment_headers(l3).is_none_or(|chain| chain.next == FRAGMENT)
}

/// Walks the options: none may have length 0 or run out of the message; unknown ones are skipped (RFC 4861 §4.6, §7.1).
fn link_layer_address(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    while let [kind, words, ..] = *options {
        let len = usize::from(words) * 8;
        let Some((option, rest)) = options.split_at_checked(len).filter(|_| len != 0) else {
            return Err(DropReason::NdInvalid);
        };
        if kind == wanted {
            let &[_, _, a, b, c, d, e, f] = option else { return Err(DropReason::NdInvalid) };
            let mac = MacAddr([a, b, c, d, e, f]);
            if mac.is_multicast() || mac == MacAddr::default() {
                return Err(DropReason::NdInvalid);
            }
            found = found.or(Some(mac));
        }
        options = rest;
    }
    if options.is_empty() { Ok(found) } else { Err(DropReason::NdInvalid) }
}

/// The group that the owner of this address listens to: ff02::1:ff and its last 24 bits (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

const fn is_solicited_node(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [0xff02, 0, 0, 0, 0, 1, 0xff00..=0xffff, _])
}

/// The MAC address of an IPv6 multicast group: 33:33 and its last 32 bits (RFC 2464 §7).
#[must_use]
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

impl Solicitation {
    /// The question of `source` at `mac` who has `target`, to its solicited-node group.
    #[must_use]
    pub const fn new(source: Ipv6Addr, mac: MacAddr, target: Ipv6Addr) -> Self {
        Self { source, destination: solicited_node(target), target, source_mac: Some(mac) }
    }

    /// The sender checks whether the target is taken before it uses it (RFC 4862 §5.4). To be answered only by the one who has
    /// the address; nothing is to be learned from it.
    #[must_use]
    pub const fn is_dad(&self) -> bool {
        self.source.is_unspecified()
    }

    /// The answer: the target is at `mac`. To all nodes when the question came from nobody (RFC 4861 §7.2.4).
    #[must_use]
    pub const fn answer(&self, mac: MacAddr, router: bool) -> Advertisement {
        let dad = self.is_dad();
        Advertisement {
            source: self.target,
            destination: if dad { ALL_NODES } else { self.source },
            target: self.target,
            target_mac: Some(mac),
            router,
            solicited: !dad,
            replace: true,
        }
    }

    /// The packet, from its IP header on.
    #[must_use]
    pub fn packet(&self) -> Packet {
        let option = self.source_mac.map(|mac| (SOURCE_LINK_LAYER, mac));
        build(self.source, self.destination, NEIGHBOUR_SOLICITATION, 0, self.target, option)
    }
}

impl Advertisement {
    /// The packet, from its IP header on.
    #[must_use]
    pub fn packet(&self) -> Packet {
        let flags = u8::from(self.router) << 7 | u8::from(self.solicited) << 6 | u8::from(self.replace) << 5;
        let option = self.target_mac.map(|mac| (TARGET_LINK_LAYER, mac));
        build(self.source, self.destination, NEIGHBOUR_ADVERTISEMENT, flags, self.target, option)
    }
}

fn build(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    icmp_type: u8,
    flags: u8,
    target: Ipv6Addr,
    option: Option<(u8, MacAddr)>,
) -> Packet {
    let option = option.map(|(kind, MacAddr([a, b, c, d, e, f]))| [kind, 1, a, b, c, d, e, f]);
    let option: &[u8] = option.as_ref().map_or(&[], |option| option);
    let len = (FIXED_LEN + option.len()) as u8; // 24 or 24 + OPTION_LEN
    debug_assert!(option.is_empty() || option.len() == OPTION_LEN);
    let (src, dst) = (source.octets(), destination.octets());
    let mut header = [icmp_type, 0, 0, 0, flags, 0, 0, 0];
    let sums = [checksum::sum(&header), checksum::sum(&target.octets()), checksum::sum(option)];
    let pseudo = checksum::pseudo_v6(&src, &dst, PROTO_ICMPV6, u32::from(len));
    [header[2], header[3]] = (!sums.into_iter().fold(pseudo, checksum::add)).to_be_bytes();

    let mut packet = Packet::with_capacity(40 + usize::from(len));
    for part in [&[0x60, 0, 0, 0, 0, len, PROTO_ICMPV6, HOP_LIMIT][..], &src, &dst, &header, &target.octets(), option] {
        // Invariant: the capacity is the sum of the parts.
        if let Ok(room) = packet.extend(part.len()) {
            room.copy_from_slice(part);
        }
    }
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::{parse as headers, samples};

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
    const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xabcd, 0xef01);

    fn read(l3: &[u8]) -> Result<Nd, DropReason> {
        parse(&headers::ip(l3, 6)?, l3)
    }

    /// With the ICMPv6 checksum computed anew over whatever the packet holds behind its fixed header.
    fn fixed(mut l3: Vec<u8>) -> Vec<u8> {
        let len = (l3.len() - 40) as u16;
        l3[4..6].copy_from_slice(&len.to_be_bytes());
        l3[42..44].fill(0);
        let (src, dst) = (l3[8..24].try_into().unwrap(), l3[24..40].try_into().unwrap());
        let pseudo = checksum::pseudo_v6(src, dst, 58, u32::from(len));
        let sum = !checksum::add(checksum::sum(&l3[40..]), pseudo);
        l3[42..44].copy_from_slice(&sum.to_be_bytes());
        l3
    }

    /// HOST announces itself to all nodes (RFC 4861 §7.2.6).
    fn announcement(router: bool) -> Advertisement {
        Advertisement {
            source: HOST,
            destination: ALL_NODES,
            target: HOST,
            target_mac: Some(MAC),
            router,
            solicited: false,
            replace: true,
        }
    }

    #[test]
    fn a_solicitation_is_answered_to_the_one_who_asked() {
        let question = Solicitation::new(HOST, MAC, GATEWAY);
        assert_eq!(read(question.packet().data()), Ok(Nd::Solicitation(question)));
        assert!(!question.is_dad());
        let answer = question.answer(MacAddr::VIRTUAL, true);
        assert_eq!(read(answer.packet().data()), Ok(Nd::Advertisement(answer)));
        assert_eq!((answer.destination, answer.solicited, answer.replace), (HOST, true, true));
    }

    #[test]
    fn the_checksum_is_the_one_that_etherparse_computes() {
        let packet = Solicitation::new(HOST, MAC, GATEWAY).packet();
        let sliced = etherparse::SlicedPacket::from_ip(packet.data()).unwrap();
        let Some(etherparse::TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no ICMPv6") };
        assert!(icmp.is_checksum_valid(HOST.octets(), solicited_node(GATEWAY).octets()));
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all_nodes() {
        let question = Solicitation {
            source: Ipv6Addr::UNSPECIFIED,
            destination: solicited_node(GATEWAY),
            target: GATEWAY,
            source_mac: None,
        };
        assert!(question.is_dad());
        assert_eq!(read(question.packet().data()), Ok(Nd::Solicitation(question)));
        let answer = question.answer(MAC, false);
        assert_eq!((answer.destination, answer.solicited), (ALL_NODES, false));
        assert_eq!(read(answer.packet().data()), Ok(Nd::Advertisement(answer)));
        let with_mac = Solicitation { source_mac: Some(MAC), ..question };
        assert_eq!(read(with_mac.packet().data()), Err(DropReason::NdInvalid));
        let unicast = Solicitation { destination: GATEWAY, ..question };
        assert_eq!(read(unicast.packet().data()), Err(DropReason::NdInvalid));
    }

    #[test]
    fn groups_and_their_mac_addresses_are_those_of_the_rfcs() {
        let group = solicited_node(GATEWAY);
        assert_eq!(group.to_string(), "ff02::1:ffcd:ef01");
        assert_eq!(multicast_mac(group).to_string(), "33:33:ff:cd:ef:01");
        assert!(is_solicited_node(group) && !is_solicited_node(ALL_NODES));
    }

    #[test]
    fn messages_that_fail_a_check_of_the_rfc_are_invalid() {
        let good = Solicitation::new(HOST, MAC, GATEWAY).packet().data().to_vec();
        let changed = |at: usize, value: u8| {
            let mut l3 = good.clone();
            l3[at] = value;
            fixed(l3)
        };
        assert!(read(&changed(7, 255)).is_ok());
        assert_eq!(read(&changed(7, 254)), Err(DropReason::NdInvalid), "hop limit");
        assert_eq!(read(&changed(41, 1)), Err(DropReason::NdInvalid), "code");
        assert_eq!(read(&changed(48, 0xff)), Err(DropReason::NdInvalid), "target is multicast");
        assert_eq!(read(&changed(65, 0)), Err(DropReason::NdInvalid), "option of length 0");
        assert_eq!(read(&changed(65, 2)), Err(DropReason::NdInvalid), "option runs out of the message");
        assert_eq!(read(&changed(66, 1)), Err(DropReason::NdInvalid), "a group for MAC address");
        assert_eq!(read(&changed(40, 133)), Err(DropReason::NdInvalid), "another message");
        let mut wrong = good.clone();
        wrong[42] ^= 1;
        assert_eq!(read(&wrong), Err(DropReason::NdInvalid), "checksum");
        assert_eq!(read(&fixed(good[..63].to_vec())), Err(DropReason::NdInvalid), "23 octets");
        assert_eq!(read(&fixed(good[..65].to_vec())), Err(DropReason::NdInvalid), "one octet of option");
        assert_eq!(read(&samples::ping6(1, &[0; 16])), Err(DropReason::NdInvalid));
        let to_group = Advertisement { solicited: true, ..announcement(false) };
        assert_eq!(read(to_group.packet().data()), Err(DropReason::NdInvalid), "solicited by a group");
    }

    #[test]
    fn unknown_options_are_skipped() {
        let mut l3 =
            Solicitation { source_mac: None, ..Solicitation::new(HOST, MAC, GATEWAY) }.packet().data().to_vec();
        l3.extend_from_slice(&[14, 1, 1, 2, 3, 4, 5, 6, 1, 1, 2, 0, 0, 0, 0, 1]); // nonce (RFC 3971), source address
        assert_eq!(read(&fixed(l3)), Ok(Nd::Solicitation(Solicitation::new(HOST, MAC, GATEWAY))));
    }

    proptest! {
        #[test]
        fn any_message_is_either_valid_or_refused(
            solicitation in any::<bool>(), flips in proptest::collection::vec((0usize..72, any::<u8>()), 0..4), cut in 40usize..=72,
        ) {
            let packet = if solicitation {
                Solicitation::new(HOST, MAC, GATEWAY).packet()
            } else {
                announcement(true).packet()
            };
            let mut l3 = packet.data().to_vec();
            for (at, value) in flips {
                l3[at] = value;
            }
            l3.truncate(cut.max(44));
            if let Ok(Nd::Solicitation(Solicitation { target, .. }) | Nd::Advertisement(Advertisement { target, .. })) = read(&fixed(l3)) {
                prop_assert!(!target.is_multicast());
            }
        }
    }
}
