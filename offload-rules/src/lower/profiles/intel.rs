//! Intel E810 (ice) and 82599 (ixgbe): Flow Director steers, marks and drops, and rewrites nothing.

use super::fact;
use crate::lower::profile::{
    Api, Does, Fact, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, TtlRewrite,
};

const NO: &str = "Flow Director and switch filters rewrite nothing";
const NONE: Fact<bool> = fact(false, NO);

const fn steers_only(mark: Fact<u32>, count: Fact<bool>, list: &'static str) -> Does {
    Does {
        jump: NONE,
        port_to_port: NONE,
        set_macs: NONE,
        ttl: fact(TtlRewrite::None, NO),
        vlan_tags: fact(0, NO),
        set_vlan: NONE,
        raw_encap: NONE,
        raw_decap: NONE,
        drop: fact(true, list),
        mark,
        queue: fact(true, list),
        count,
        age: fact(false, list),
        rewrite: fact(FieldRewrite::Set, NO),
        security: fact(false, "SECURITY is an action of ingress rules, to a queue"),
    }
}

pub(in crate::lower) const fn ice() -> NicProfile {
    const FDIR: &str = "ice_fdir_filter.c, input sets";
    const LIST: &str = "features/ice.ini";
    NicProfile::new(
        "ice",
        Matches {
            eth_dst: fact(true, FDIR),
            untagged: fact(false, "ice_fdir_filter.c: packet types do not tell tagged packets from others"),
            vlan_tags: fact(0, "ice_fdir_filter.c and ice_switch_filter.c: no pattern of one tag and a 5-tuple"),
            vlan_priority: fact(false, FDIR),
            ipv6: fact(Ipv6Match::FiveTuple, FDIR),
            tos: fact(false, "ice_fdir_filter.c: DSCP only"),
            ttl: fact(true, FDIR),
            no_options: fact(false, "ice_fdir_filter.c refuses version_ihl"),
            whole: fact(false, "ice_fdir_filter.c: only all fragments or all packets"),
            length: fact(false, FDIR),
            tcp_flags: fact(0, FDIR),
            sctp: fact(true, FDIR),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, LIST),
            mpls_ttl: fact(false, LIST),
            udp_no_checksum: fact(false, FDIR),
            meta: fact(false, "features/ice.ini and ixgbe.ini list no META item"),
        },
        steers_only(fact(0x00ff_ffff, "ice_fdir_filter.c: a filter id of 32 bits"), fact(true, LIST), LIST),
        Limits {
            rules: fact(Some(16_384), "offload: 16,384 Flow Director rules"),
            counters: fact(Some(8_192), "ice_ethdev.h: counter pools of 256, 32 of them"),
            counter_refresh_ms: fact(0, "each query reads the counter"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "ice sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[Ipsec::InlineCrypto], "offload: iavf only"),
    )
}

pub(in crate::lower) const fn ixgbe() -> NicProfile {
    const FDIR: &str = "ixgbe_flow.c, perfect match";
    const LIST: &str = "features/ixgbe.ini";
    NicProfile::new(
        "ixgbe",
        Matches {
            eth_dst: fact(false, "ixgbe_flow.c: a MAC only in MAC-VLAN mode"),
            untagged: fact(false, FDIR),
            vlan_tags: fact(1, FDIR),
            vlan_priority: fact(true, FDIR),
            ipv6: fact(Ipv6Match::None, "ixgbe_flow.c: IPv6 only in signature mode, which other packets may hit"),
            tos: fact(false, FDIR),
            ttl: fact(false, FDIR),
            no_options: fact(false, "ixgbe_flow.c refuses version_ihl"),
            whole: fact(false, "ixgbe_flow.c refuses fragment_offset"),
            length: fact(false, FDIR),
            tcp_flags: fact(0, FDIR),
            sctp: fact(true, FDIR),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, LIST),
            mpls_ttl: fact(false, LIST),
            udp_no_checksum: fact(false, FDIR),
            meta: fact(false, "features/ice.ini and ixgbe.ini list no META item"),
        },
        steers_only(fact(0x7fff, "82599 datasheet §7.1.2.7: a software index of 15 bits"), fact(false, LIST), LIST),
        Limits {
            rules: fact(Some(8_190), "82599 datasheet §7.1.2.7: 8 k - 2 perfect filters in the largest table"),
            counters: fact(Some(0), LIST),
            counter_refresh_ms: fact(0, LIST),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "ixgbe sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[Ipsec::InlineCrypto], "offload: AES-128-GCM, 1,024 SAs each way, no ESN"),
    )
}
