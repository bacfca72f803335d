//! The profile of a NIC: what it can match and do, as facts with their sources.
//!
//! A profile is an upper bound: of the shapes that it allows the engine keeps those whose canary the NIC took at start.

use super::{Dialect, Direction, DpdkVersion, Fact, FactText, priority};

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
    /// Either: to any value, and one less whatever it is.
    SetOrDecrement,
}

/// Where rules are, and how they lead from port to port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// In the switch of the NIC: transfer rules, from port to port.
    Switch,
    /// In the ports, without a switch: rules of receiving lead to hairpin queues, rules of sending finish what those have begun.
    Hairpin,
    /// In the ports: rules of receiving, to software alone.
    Receive,
}

/// The order in which a driver takes actions. A header comes off a tunnel before its packets are counted and changed, and goes on behind
/// that, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Tags are pushed before fields are written.
    TagsFirst,
    /// Tags are pushed behind fields.
    TagsLast,
}

/// How the outer and the inner header of a tunnel's packets are matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelMatch {
    /// In one rule.
    OneRule,
    /// The outer header by a stage, the label and the inner header by a rule behind it.
    TwoRules,
}

/// How a NIC keeps packets with a broken IP header (IPv4 checksum, length) from a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderCheck {
    /// Unknown: no rule may forward.
    Unknown,
    /// By an integrity item in the rule that steers what tenants send; what comes out of tunnels is not checked.
    Steering,
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
    /// All five fields, in two rules: the source by a stage.
    TwoRules,
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

/// Matching capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matches {
    /// Destination MAC beside the 5-tuple.
    pub eth_dst: Fact<bool>,
    /// That no tag follows. Otherwise a rule without tags matches tagged packets, too.
    pub untagged: Fact<bool>,
    /// Tags, 0..=2.
    pub vlan_tags: Fact<u8>,
    /// That no more tags follow those that are matched.
    pub no_more_tags: Fact<bool>,
    /// Types of tags (TPID) that are told apart.
    pub tag_types: Fact<&'static [u16]>,
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
    /// That an IPv6 packet has no fragment header, by an item of its own. Where not, the next header tells.
    pub whole6: Fact<bool>,
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
    /// UDP ports behind which the parser looks for a label.
    pub mpls_ports: Fact<&'static [u16]>,
    /// Outer and inner headers together.
    pub tunnel: Fact<TunnelMatch>,
    /// The label's S bit.
    pub mpls_bottom: Fact<bool>,
    /// The label's TTL.
    pub mpls_ttl: Fact<bool>,
    /// That a UDP checksum is 0.
    pub udp_no_checksum: Fact<bool>,
    /// Metadata that an earlier rule has written (META, SET_META).
    pub meta: Fact<bool>,
}

/// Action capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Does {
    /// Go on in another group.
    pub jump: Fact<bool>,
    /// Send on another port (transfer rules).
    pub port_to_port: Fact<bool>,
    /// Also from one physical port to another, or back to the same, by rules of the switch.
    pub wire_to_wire: Fact<bool>,
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
    /// Tunnels come off what a function has sent, too, not only what comes from the wire.
    pub decap_on_function: Fact<bool>,
    /// Tags are put on by rules of receiving, outside a switch.
    pub push_on_receive: Fact<bool>,
    /// One tunnel off and another on, in one rule.
    pub tunnel_to_tunnel: Fact<bool>,
    /// The order of actions.
    pub order: Fact<Order>,
    /// Drop.
    pub drop: Fact<bool>,
    /// Largest mark; 0: none.
    pub mark: Fact<u32>,
    /// Choose the receive queue.
    pub queue: Fact<bool>,
    /// Count.
    pub count: Fact<bool>,
    /// How fields are written.
    pub rewrite: Fact<FieldRewrite>,
    /// SECURITY in rules that leave packets to the NIC: opened packets go on to the next table, and what a rule forwards is sealed.
    pub security: Fact<bool>,
}

/// Capacities and timing.
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
    /// The DPDK whose driver it describes.
    pub version: DpdkVersion,
    /// What can be matched.
    pub matches: Matches,
    /// What can be done.
    pub does: Does,
    /// How much.
    pub limits: Limits,
    /// IPsec of its own.
    pub ipsec: Fact<&'static [Ipsec]>,
    /// The dialect of its driver.
    pub dialect: Dialect,
    /// Where its rules are.
    pub layout: Layout,
    /// Flows whose wrong headers the NIC would forward stay in software (`--strict-offload`).
    pub strict: bool,
}

impl NicProfile {
    pub(super) const fn new(
        name: &'static str,
        matches: Matches,
        does: Does,
        limits: Limits,
        ipsec: Fact<&'static [Ipsec]>,
    ) -> Self {
        let version = DpdkVersion::V22_11;
        let layout = if does.port_to_port.value { Layout::Switch } else { Layout::Receive };
        let dialect = Dialect::GUIDE;
        Self { name, version, matches, does, limits, ipsec, dialect, layout, strict: false }
    }

    /// With its rules elsewhere.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// `true`: what the NIC can't check of a packet keeps its flow in software.
    #[must_use]
    pub fn strict(self, strict: bool) -> Self {
        Self { strict, ..self }
    }

    /// With the dialect of its driver.
    pub(super) fn with_dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Octets beyond its MTU that a device may hand up of a frame without tags: drivers set the size of frames from the MTU with room
    /// for two tags (I40E_ETH_OVERHEAD, BNXT_NUM_VLANS), or for one (mlx5: 22 octets around the MTU).
    pub const TAG_ROOM: u16 = 8;

    /// The largest IP packet that a rule for this direction has to reckon with. Where no length can be matched, no rule could be made
    /// if it were more than the MTU: that only senders beyond the MTU of their link send more is accepted there.
    pub(super) fn arrives(&self, direction: &Direction) -> u16 {
        let room = if self.matches.length.value { Self::TAG_ROOM } else { 0 };
        direction.ingress_mtu.saturating_add(room)
    }

    /// The priority of a flow's rule. A flow has two where the driver has as many, so that its rule is replaced by one beside it; where
    /// not, the old one goes first.
    pub(super) const fn flow_priority(&self, alternate: bool) -> u32 {
        match (self.dialect.priorities.value, alternate) {
            (0 | 1, _) | (2 | 3, false) => 0,
            (2 | 3, true) => 1,
            (_, false) => priority::FLOW,
            (_, true) => priority::FLOW_ALTERNATE,
        }
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

    /// Each fact by name, as text, with its source: for operators and documents.
    #[must_use]
    pub fn facts(&self) -> Vec<FactText> {
        fn listed(numbers: &[u16], radix: u32) -> String {
            let each =
                numbers.iter().map(|number| if radix == 16 { format!("{number:#06x}") } else { number.to_string() });
            each.collect::<Vec<_>>().join(", ")
        }
        fn line<T: std::fmt::Debug>(name: &'static str, fact: &Fact<T>) -> FactText {
            FactText { name, value: format!("{:?}", fact.value), source: fact.source }
        }
        let Matches {
            eth_dst,
            untagged,
            vlan_tags,
            no_more_tags,
            tag_types,
            vlan_priority,
            ipv6,
            tos,
            ttl,
            no_options,
            whole,
            whole6,
            length,
            tcp_flags,
            sctp,
            header_check,
            mpls,
            mpls_ports,
            tunnel,
            mpls_bottom,
            mpls_ttl,
            udp_no_checksum,
            meta,
        } = &self.matches;
        let does = &self.does;
        let limits = &self.limits;
        let dialect = &self.dialect;
        let priorities = match dialect.priorities.value {
            u32::MAX => "any".to_owned(),
            number => number.to_string(),
        };
        vec![
            line("match eth dst", eth_dst),
            line("match untagged", untagged),
            line("match VLAN tags", vlan_tags),
            line("match that no more tags follow", no_more_tags),
            FactText { name: "match TPID", value: listed(tag_types.value, 16), source: tag_types.source },
            line("match VLAN priority", vlan_priority),
            line("match IPv6", ipv6),
            line("match TOS", tos),
            line("match TTL", ttl),
            line("match no IPv4 options", no_options),
            line("match no fragment", whole),
            line("match no IPv6 fragment header", whole6),
            line("match length", length),
            line("match TCP flags", tcp_flags),
            line("match SCTP", sctp),
            line("broken IP headers", header_check),
            line("match MPLS over UDP", mpls),
            FactText { name: "ports of MPLS over UDP", value: listed(mpls_ports.value, 10), source: mpls_ports.source },
            line("match outer and inner headers", tunnel),
            line("match S bit", mpls_bottom),
            line("match label TTL", mpls_ttl),
            line("match UDP checksum 0", udp_no_checksum),
            line("match metadata", meta),
            line("jump", &does.jump),
            line("port to port", &does.port_to_port),
            line("wire to wire", &does.wire_to_wire),
            line("set MACs", &does.set_macs),
            line("write TTL", &does.ttl),
            line("push and pop VLAN tags", &does.vlan_tags),
            line("set VLAN", &does.set_vlan),
            line("raw encap", &does.raw_encap),
            line("raw decap", &does.raw_decap),
            line("raw decap of what functions send", &does.decap_on_function),
            line("push VLAN tags on receive", &does.push_on_receive),
            line("from tunnel to tunnel", &does.tunnel_to_tunnel),
            line("order of actions", &does.order),
            line("drop", &does.drop),
            line("mark", &does.mark),
            line("queue", &does.queue),
            line("count", &does.count),
            line("field rewrite", &does.rewrite),
            line("IPsec between ports", &does.security),
            line("rules", &limits.rules),
            line("counters", &limits.counters),
            line("counter refresh, ms", &limits.counter_refresh_ms),
            line("API", &limits.api),
            line("keeps rules over port stop", &limits.keeps_rules),
            line("IPsec", &self.ipsec),
            line("port item", &dialect.port_item),
            line("port action", &dialect.port_action),
            line("rules of the switch", &dialect.switch),
            FactText { name: "priorities of flows", value: priorities, source: dialect.priorities.source },
            line("match the protocol's number", &dialect.proto),
            line("mark behind the queue", &dialect.mark_last),
            line("rule of an inbound SA", &dialect.open),
            line("that rule goes with its session", &dialect.open_ends_with_session),
        ]
    }
}
