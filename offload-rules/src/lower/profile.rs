//! What a NIC can take: facts, each with its source.
//!
//! A profile is an upper bound. What the NIC refuses when it is asked at start ([`NicProfile::narrow`]) it is not asked again.

use std::collections::BTreeSet;

use super::{Shape, Unsupported, profiles};

/// Something known of a NIC, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub source: &'static str,
}

impl<T> Fact<T> {
    /// A fact.
    #[must_use]
    pub const fn new(value: T, source: &'static str) -> Self {
        Self { value, source }
    }
}

/// Which of the two rte_flow APIs a driver wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `rte_flow_create`: one call a rule.
    Sync,
    /// Templates and queues: `rte_flow_async_create`.
    Template,
}

/// How a driver wants header fields written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldRewrite {
    /// `SET_MAC_DST`, `SET_TTL` and their like.
    Set,
    /// `MODIFY_FIELD`.
    ModifyField,
}

/// How a NIC writes TTL and hop limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlRewrite {
    /// Not at all.
    None,
    /// To any value.
    Set,
    /// Only one less (`DEC_TTL`): a rule that matches TTL n and sets n - 1.
    Decrement,
}

/// How a NIC keeps packets with a broken IP header (IPv4 checksum, length) from a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderCheck {
    /// Nothing is known: no rule may forward.
    Unknown,
    /// Its parser reports them, and no rule with an IP item matches them.
    Parser,
    /// One integrity item a rule.
    OneItem,
    /// An integrity item for each level.
    EachLevel,
}

/// How IPv6 can be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ipv6Match {
    /// Not at all.
    None,
    /// Addresses and next header, but not together with ports.
    Addresses,
    /// All five fields.
    FiveTuple,
}

/// IPsec that a NIC does itself (RFC 4303).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipsec {
    /// The NIC ciphers; software builds ESP.
    InlineCrypto,
    /// The NIC does ESP, sequence numbers and replay window.
    InlineProtocol,
    /// The kernel's XFRM packet offload.
    KernelPacket,
}

/// What can be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matches {
    /// Destination MAC beside the 5-tuple.
    pub eth_dst: Fact<bool>,
    /// That no tag follows. Otherwise a rule without tags matches tagged packets, too.
    pub untagged: Fact<bool>,
    /// Tags, 0..=2.
    pub vlan_tags: Fact<u8>,
    /// Priority of a tag.
    pub vlan_priority: Fact<bool>,
    /// IPv6.
    pub ipv6: Fact<Ipv6Match>,
    /// Type of service and traffic class, all eight bits.
    pub tos: Fact<bool>,
    /// TTL and hop limit.
    pub ttl: Fact<bool>,
    /// IPv4 header length.
    pub no_options: Fact<bool>,
    /// That an IPv4 packet is no fragment.
    pub whole: Fact<bool>,
    /// A range of the IP length.
    pub length: Fact<bool>,
    /// Bits of TCP's flags octet that can be matched (RFC 9293 §3.1).
    pub tcp_flags: Fact<u8>,
    /// SCTP ports.
    pub sctp: Fact<bool>,
    /// Broken IP headers.
    pub header_check: Fact<HeaderCheck>,
    /// The label of MPLS over UDP, and the inner packet.
    pub mpls: Fact<bool>,
    /// The label's S bit.
    pub mpls_bottom: Fact<bool>,
    /// The label's TTL.
    pub mpls_ttl: Fact<bool>,
    /// That a UDP checksum is 0.
    pub udp_no_checksum: Fact<bool>,
    /// Metadata that an earlier rule has written (META, SET_META).
    pub meta: Fact<bool>,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Does {
    /// Go on in another group.
    pub jump: Fact<bool>,
    /// Send on another port (transfer rules).
    pub port_to_port: Fact<bool>,
    /// Set MAC addresses.
    pub set_macs: Fact<bool>,
    /// Write TTL and hop limit.
    pub ttl: Fact<TtlRewrite>,
    /// Tags that can be popped and pushed, 0..=2.
    pub vlan_tags: Fact<u8>,
    /// Change a tag in place.
    pub set_vlan: Fact<bool>,
    /// RAW_ENCAP of MPLS over UDP.
    pub raw_encap: Fact<bool>,
    /// RAW_DECAP of MPLS over UDP.
    pub raw_decap: Fact<bool>,
    /// Drop.
    pub drop: Fact<bool>,
    /// Largest mark; 0: none.
    pub mark: Fact<u32>,
    /// Choose the receive queue.
    pub queue: Fact<bool>,
    /// Count.
    pub count: Fact<bool>,
    /// Report idle rules.
    pub age: Fact<bool>,
    /// How fields are written.
    pub rewrite: Fact<FieldRewrite>,
    /// SECURITY in rules that leave packets to the NIC: opened packets go on to the next table, and what a rule forwards is sealed.
    pub security: Fact<bool>,
}

/// How much, how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rules; `None`: found out by running into it.
    pub rules: Fact<Option<u32>>,
    /// Counters; `None`: as many as rules.
    pub counters: Fact<Option<u32>>,
    /// Milliseconds between two readings of a counter by the NIC or its driver; 0: each query reads it.
    pub counter_refresh_ms: Fact<u32>,
    /// API.
    pub api: Fact<Api>,
    /// Rules outlive a port's stop (`RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP`).
    pub keeps_rules: Fact<bool>,
}

/// A kind of NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicProfile {
    /// Its name in configuration.
    pub name: &'static str,
    /// What can be matched.
    pub matches: Matches,
    /// What can be done.
    pub does: Does,
    /// How much.
    pub limits: Limits,
    /// IPsec of its own.
    pub ipsec: Fact<&'static [Ipsec]>,
    refused: BTreeSet<Shape>,
}

impl NicProfile {
    /// Names that [`Self::by_name`] knows.
    pub const NAMES: [&'static str; 9] = ["mlx5-hws", "mlx5-sws", "bnxt", "sfc", "nfp", "cnxk", "ice", "ixgbe", "twin"];

    pub(super) const fn new(
        name: &'static str,
        matches: Matches,
        does: Does,
        limits: Limits,
        ipsec: Fact<&'static [Ipsec]>,
    ) -> Self {
        Self { name, matches, does, limits, ipsec, refused: BTreeSet::new() }
    }

    /// The profile with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "mlx5-hws" => profiles::mlx5_hws(),
            "mlx5-sws" => profiles::mlx5_sws(),
            "bnxt" => profiles::bnxt(),
            "sfc" => profiles::sfc(),
            "nfp" => profiles::nfp(),
            "cnxk" => profiles::cnxk(),
            "ice" => profiles::ice(),
            "ixgbe" => profiles::ixgbe(),
            "twin" => profiles::twin(),
            _ => return None,
        })
    }

    /// Does a session of the whole protocol begin with the number that it is given? cnxk's driver (cnxk_ethdev_sec.c) does not read
    /// `esn.value`: numbers begin with 1, so that what has been used before must not go there.
    #[must_use]
    pub fn begins_with_any_number(&self) -> bool {
        self.name != "cnxk"
    }

    /// Can packets be opened and sealed on the way from port to port, without software?
    #[must_use]
    pub fn seals_between_ports(&self) -> bool {
        let does = &self.does;
        does.security.value && does.jump.value && does.port_to_port.value && self.matches.meta.value
    }

    /// Remembers that the NIC refused the canary of a shape: flows of this shape stay in software.
    pub fn narrow(&mut self, shape: Shape, refused: bool) {
        if refused {
            self.refused.insert(shape);
        } else {
            self.refused.remove(&shape);
        }
    }

    /// Shapes that the NIC has refused.
    pub fn refused(&self) -> impl Iterator<Item = &Shape> {
        self.refused.iter()
    }

    /// Refuses what the NIC has refused.
    pub(super) fn allows(&self, shape: &Shape) -> Result<(), Unsupported> {
        if self.refused.contains(shape) { Err(Unsupported::Probe) } else { Ok(()) }
    }

    /// Each fact by name, as text, with its source: for operators and documents.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String, &'static str)> {
        fn line<T: std::fmt::Debug>(name: &'static str, fact: &Fact<T>) -> (&'static str, String, &'static str) {
            (name, format!("{:?}", fact.value), fact.source)
        }
        let Matches {
            eth_dst,
            untagged,
            vlan_tags,
            vlan_priority,
            ipv6,
            tos,
            ttl,
            no_options,
            whole,
            length,
            tcp_flags,
            sctp,
            header_check,
            mpls,
            mpls_bottom,
            mpls_ttl,
            udp_no_checksum,
            meta,
        } = &self.matches;
        let does = &self.does;
        let limits = &self.limits;
        vec![
            line("match eth dst", eth_dst),
            line("match untagged", untagged),
            line("match VLAN tags", vlan_tags),
            line("match VLAN priority", vlan_priority),
            line("match IPv6", ipv6),
            line("match TOS", tos),
            line("match TTL", ttl),
            line("match no IPv4 options", no_options),
            line("match no fragment", whole),
            line("match length", length),
            line("match TCP flags", tcp_flags),
            line("match SCTP", sctp),
            line("broken IP headers", header_check),
            line("match MPLS over UDP", mpls),
            line("match S bit", mpls_bottom),
            line("match label TTL", mpls_ttl),
            line("match UDP checksum 0", udp_no_checksum),
            line("match metadata", meta),
            line("jump", &does.jump),
            line("port to port", &does.port_to_port),
            line("set MACs", &does.set_macs),
            line("write TTL", &does.ttl),
            line("push and pop VLAN tags", &does.vlan_tags),
            line("set VLAN", &does.set_vlan),
            line("raw encap", &does.raw_encap),
            line("raw decap", &does.raw_decap),
            line("drop", &does.drop),
            line("mark", &does.mark),
            line("queue", &does.queue),
            line("count", &does.count),
            line("age", &does.age),
            line("field rewrite", &does.rewrite),
            line("IPsec between ports", &does.security),
            line("rules", &limits.rules),
            line("counters", &limits.counters),
            line("counter refresh, ms", &limits.counter_refresh_ms),
            line("API", &limits.api),
            line("keeps rules over port stop", &limits.keeps_rules),
            line("IPsec", &self.ipsec),
        ]
    }
}
