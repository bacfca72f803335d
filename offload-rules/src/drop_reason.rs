//! Why a packet was dropped: one closed set for code, counters, reports and the command line.

/// One reason for each dropped packet. There is no "other".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum DropReason {
    /// 0 is kept free so that a zeroed record holds no reason.
    InvalidIf = 1,
    /// Destination MAC of another station.
    InvalidMac,
    /// Frame shorter than the headers it announces, at any layer.
    Truncated,
    /// Header fields that contradict each other or the RFC.
    InvalidPacket,
    /// Ethertype that the node does not carry.
    InvalidProtocol,
    /// IPv4 options malformed, or source routing.
    IpOptions,
    /// IPv6 extension chain too long, out of order or malformed.
    ExtensionHeaders,
    /// Bad IPv4 header, ICMP or transport checksum where the node must look.
    ChecksumErr,
    /// Martian or multicast or broadcast source, or RPF failed.
    InvalidSource,
    /// The source claims to be the node's own tunnel endpoint.
    OwnSource,
    /// No MPLS label like that, or not bottom of stack, or reserved.
    InvalidLabel,
    /// MPLS TTL 0, IPv4 TTL or IPv6 hop limit used up.
    TtlExceeded,
    /// No route, and the default is not there.
    NoRoute,
    /// Nexthop missing or not valid.
    InvalidNh,
    /// A drop nexthop, by intent.
    Discard,
    /// More VRF translations than a packet may make.
    PacketLoop,
    /// Nobody listens on that port.
    NoListener,
    /// The policy denies it.
    PolicyDeny,
    /// Later packet of a flow that the policy denied.
    FlowActionDrop,
    /// The vif takes no new flows.
    NewFlowsRefused,
    /// New flows arrive faster than the vif may make them.
    NewFlowRate,
    /// Half-open TCP flows have reached the vif's share.
    HalfOpenLimit,
    /// Flow table at its limit.
    FlowTableFull,
    /// Neighbour table at its limit.
    NeighbourTableFull,
    /// Neighbour did not answer.
    NeighbourUnresolved,
    /// Queue for unresolved neighbours at its limit.
    HeldQueueFull,
    /// Fragment table at its limit.
    FragmentTableFull,
    /// Overlapping or impossible fragment.
    FragmentErr,
    /// The fragment with the ports did not come in time.
    FragmentTimeout,
    /// Larger than the path takes and may not be fragmented.
    PacketTooBig,
    /// Malformed ARP.
    ArpInvalid,
    /// ARP or ND request that is nobody's business here.
    ArpNotForUs,
    /// Malformed ND.
    NdInvalid,
    /// RST outside RFC 5961, SYN in an established connection.
    TcpResetIgnored,
    /// TCP flags that no sender may combine.
    TcpInvalidFlags,
    /// ICMP error about an ICMP error, or about a flow that is not there.
    IcmpErrorUnmatched,
    /// ECN: congestion experienced outside, not-ECT inside (RFC 6040 §4.2).
    EcnInvalid,
    /// Multicast and broadcast are not forwarded.
    McastUnsupported,
    /// The egress interface is down or gone.
    IfDown,
    /// The egress interface took no more.
    IfTxDiscard,
    /// The cookie in an ACK is not ours.
    SynCookieInvalid,
    /// Data of a client before the server has answered the SYN that follows a SYN cookie; it comes again.
    SynCookiePending,
    /// Ring to another worker full.
    HandoffFull,
    /// No headroom for the encapsulation.
    NoHeadroom,
    /// ESP for an own tunnel address with an index that no inbound SA has.
    EspUnknownSpi,
    /// Sequence number left of the replay window, or one that is never sent.
    EspReplayOld,
    /// Sequence number received before.
    EspReplayDuplicate,
    /// The check value does not hold: forged, damaged, or another key.
    EspAuthentication,
    /// Too short for ESP's headers, trailer and check value, or for any datagram on port 4500.
    EspTruncated,
    /// Padding that is longer than the packet, or not 1, 2, 3, ... (RFC 4303 §2.4).
    EspPadding,
    /// Authentic, but no IP packet of the family that the trailer names.
    EspNotIp,
    /// The hard lifetime of the SA is over.
    SaExpired,
    /// The sequence numbers of the SA are used up.
    SaExhausted,
    /// The next sequence numbers have not been reserved on disk yet.
    SaPending,
    /// The tunnel has no outbound SA that is of use.
    NoSa,
    /// The NIC has refused an ESP packet: check value, replay or padding; it does not say which.
    EspRefusedByNic,
    /// ESP for an SA whose replay window the NIC keeps, in a form that the NIC does not take: fragmented, with IP options.
    EspBesideNic,
    /// ICMP error about a packet of an own tunnel that was not sent, or that no router has reason to refuse: foreign SPI, sequence number
    /// not sent lately, DF clear, no longer than the MTU that is told (RFC 4301 §8.2.1).
    IcmpQuoteNotSent,
    /// Which sequence numbers the SA's key has used is not known: a number could be used twice (RFC 4106 §2).
    SaRefused,
    /// Link-local source or destination, and not for this node on the link that it came in on.
    LinkLocal,
    /// In the clear, but its source is reached through an IPsec tunnel: it should have come protected (RFC 4301 §5.2).
    Unprotected,
}

impl DropReason {
    /// How many there are, with the unused 0.
    pub const COUNT: usize = Self::Unprotected as usize + 1;

    /// All reasons in the order that the command line prints.
    #[must_use]
    pub fn all() -> &'static [Self] {
        ALL
    }

    /// Position in a counter array.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name that the command line prints; that of the vRouter's `dropstats` where one exists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidIf => "Invalid IF",
            Self::InvalidMac => "Invalid MAC",
            Self::Truncated => "Truncated",
            Self::InvalidPacket => "Invalid Packet",
            Self::InvalidProtocol => "Invalid Protocol",
            Self::IpOptions => "IP Options",
            Self::ExtensionHeaders => "Extension Headers",
            Self::ChecksumErr => "Checksum errors",
            Self::InvalidSource => "Invalid Source",
            Self::OwnSource => "Own Source",
            Self::InvalidLabel => "Invalid Label",
            Self::TtlExceeded => "TTL Exceeded",
            Self::NoRoute => "No Route",
            Self::InvalidNh => "Invalid NH",
            Self::Discard => "Discards",
            Self::PacketLoop => "Packet Loop",
            Self::NoListener => "No Listener",
            Self::PolicyDeny => "Policy Deny",
            Self::FlowActionDrop => "Flow Action Drop",
            Self::NewFlowsRefused => "New Flows Refused",
            Self::NewFlowRate => "New Flow Rate",
            Self::HalfOpenLimit => "Half Open Limit",
            Self::FlowTableFull => "Flow Table Full",
            Self::NeighbourTableFull => "Neighbour Table Full",
            Self::NeighbourUnresolved => "Neighbour Unresolved",
            Self::HeldQueueFull => "Held Queue Full",
            Self::FragmentTableFull => "Fragment Table Full",
            Self::FragmentErr => "Fragment errors",
            Self::FragmentTimeout => "Fragment Timeout",
            Self::PacketTooBig => "Packet Too Big",
            Self::ArpInvalid => "Invalid ARP",
            Self::ArpNotForUs => "ARP Not For Us",
            Self::NdInvalid => "Invalid ND",
            Self::TcpResetIgnored => "TCP reset ignored",
            Self::TcpInvalidFlags => "TCP Invalid Flags",
            Self::IcmpErrorUnmatched => "ICMP Error Unmatched",
            Self::EcnInvalid => "Invalid ECN",
            Self::McastUnsupported => "Multicast Unsupported",
            Self::IfDown => "Interface Down",
            Self::IfTxDiscard => "Interface TX Discards",
            Self::SynCookieInvalid => "Invalid SYN Cookie",
            Self::SynCookiePending => "SYN Cookie Pending",
            Self::HandoffFull => "Handoff Full",
            Self::NoHeadroom => "No Headroom",
            Self::EspUnknownSpi => "Unknown SPI",
            Self::EspReplayOld => "ESP Replay Too Old",
            Self::EspReplayDuplicate => "ESP Replay Duplicate",
            Self::EspAuthentication => "ESP Authentication Failed",
            Self::EspTruncated => "ESP Truncated",
            Self::EspPadding => "ESP Invalid Padding",
            Self::EspNotIp => "ESP Not IP",
            Self::SaExpired => "SA Expired",
            Self::SaExhausted => "SA Sequence Exhausted",
            Self::SaPending => "SA Sequence Pending",
            Self::NoSa => "No SA",
            Self::EspRefusedByNic => "ESP Refused by NIC",
            Self::EspBesideNic => "ESP Beside NIC",
            Self::IcmpQuoteNotSent => "ICMP Quote Not Sent",
            Self::SaRefused => "SA Refused",
            Self::LinkLocal => "Link Local",
            Self::Unprotected => "Not Protected",
        }
    }
}

static ALL: &[DropReason] = &[
    DropReason::InvalidIf,
    DropReason::InvalidMac,
    DropReason::Truncated,
    DropReason::InvalidPacket,
    DropReason::InvalidProtocol,
    DropReason::IpOptions,
    DropReason::ExtensionHeaders,
    DropReason::ChecksumErr,
    DropReason::InvalidSource,
    DropReason::OwnSource,
    DropReason::InvalidLabel,
    DropReason::TtlExceeded,
    DropReason::NoRoute,
    DropReason::InvalidNh,
    DropReason::Discard,
    DropReason::PacketLoop,
    DropReason::NoListener,
    DropReason::PolicyDeny,
    DropReason::FlowActionDrop,
    DropReason::NewFlowsRefused,
    DropReason::NewFlowRate,
    DropReason::HalfOpenLimit,
    DropReason::FlowTableFull,
    DropReason::NeighbourTableFull,
    DropReason::NeighbourUnresolved,
    DropReason::HeldQueueFull,
    DropReason::FragmentTableFull,
    DropReason::FragmentErr,
    DropReason::FragmentTimeout,
    DropReason::PacketTooBig,
    DropReason::ArpInvalid,
    DropReason::ArpNotForUs,
    DropReason::NdInvalid,
    DropReason::TcpResetIgnored,
    DropReason::TcpInvalidFlags,
    DropReason::IcmpErrorUnmatched,
    DropReason::EcnInvalid,
    DropReason::McastUnsupported,
    DropReason::IfDown,
    DropReason::IfTxDiscard,
    DropReason::SynCookieInvalid,
    DropReason::SynCookiePending,
    DropReason::HandoffFull,
    DropReason::NoHeadroom,
    DropReason::EspUnknownSpi,
    DropReason::EspReplayOld,
    DropReason::EspReplayDuplicate,
    DropReason::EspAuthentication,
    DropReason::EspTruncated,
    DropReason::EspPadding,
    DropReason::EspNotIp,
    DropReason::SaExpired,
    DropReason::SaExhausted,
    DropReason::SaPending,
    DropReason::NoSa,
    DropReason::EspRefusedByNic,
    DropReason::EspBesideNic,
    DropReason::IcmpQuoteNotSent,
    DropReason::SaRefused,
    DropReason::LinkLocal,
    DropReason::Unprotected,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_from_one_up_is_a_reason_with_its_own_name() {
        let mut names = std::collections::BTreeSet::new();
        for (place, reason) in DropReason::all().iter().enumerate() {
            assert_eq!(reason.index(), place + 1);
            assert!(names.insert(reason.name()), "{} twice", reason.name());
        }
        assert_eq!(names.len() + 1, DropReason::COUNT);
    }
}
