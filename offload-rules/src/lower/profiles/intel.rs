//! Intel E810 (ice, and iavf for its virtual functions) and 82599, X540, X550 (ixgbe), and WangXun's 10 GbE (txgbe), which descends from
//! ixgbe: Flow Director steers, marks and drops, and rewrites nothing.

use crate::lower::{
    Dialect, DpdkVersion, OpenRule, ProtoMatch,
    fact::{Fact, fact},
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite,
        TunnelMatch,
    },
};

const NO: &str = "Flow Director and switch filters rewrite nothing";
const NONE: Fact<bool> = fact(false, NO);

const fn steers_only(mark: Fact<u32>, count: Fact<bool>, list: &'static str) -> Does {
    Does {
        jump: NONE,
        port_to_port: NONE,
        wire_to_wire: NONE,
        set_macs: NONE,
        ttl: fact(TtlRewrite::None, NO),
        vlan_tags: fact(0, NO),
        set_vlan: NONE,
        raw_encap: NONE,
        raw_decap: NONE,
        decap_on_function: fact(false, "no tunnels"),
        push_on_receive: fact(false, "no stages"),
        tunnel_to_tunnel: fact(false, "no tunnels"),
        order: fact(Order::TagsFirst, "any order"),
        drop: fact(true, list),
        mark,
        queue: fact(true, list),
        count,
        rewrite: fact(FieldRewrite::Set, NO),
        security: fact(false, "SECURITY is an action of ingress rules, to software"),
    }
}

/// Matches of Flow Director: addresses and ports.
const fn flow_director(fdir: &'static str, list: &'static str) -> Matches {
    Matches {
        eth_dst: fact(false, fdir),
        untagged: fact(false, fdir),
        vlan_tags: fact(0, fdir),
        vlan_priority: fact(false, fdir),
        no_more_tags: fact(false, "no field of a second tag in the filters"),
        tag_types: fact(&[0x8100], "one TPID for the whole port"),
        ipv6: fact(Ipv6Match::FiveTuple, fdir),
        tos: fact(false, fdir),
        ttl: fact(false, fdir),
        no_options: fact(false, fdir),
        whole: fact(false, fdir),
        length: fact(false, fdir),
        whole6: fact(false, "the next header of the fixed header is matched"),
        tcp_flags: fact(0, fdir),
        sctp: fact(true, fdir),
        header_check: fact(HeaderCheck::Unknown, "not published"),
        mpls: fact(false, list),
        mpls_bottom: fact(false, "no MPLS"),
        mpls_ports: fact(&[6635], "RFC 7510"),
        tunnel: fact(TunnelMatch::OneRule, "nothing of tunnels is matched"),
        mpls_ttl: fact(false, "no MPLS"),
        udp_no_checksum: fact(false, fdir),
        meta: fact(false, list),
    }
}

pub(in crate::lower) fn ice() -> NicProfile {
    const FDIR: &str = "22.11 ice_fdir_filter.c:22, 109: input sets by pattern";
    const LIST: &str = "features/ice.ini";
    let profile = NicProfile::new(
        "ice",
        Matches {
            eth_dst: fact(true, "22.11 ice_fdir_filter.c:22: ICE_INSET_DMAC"),
            untagged: fact(false, "22.11 ice_fdir_filter.c:109: no pattern tells tagged packets from others"),
            vlan_tags: fact(0, "22.11 ice_fdir_filter.c:109: no pattern of a tag and a 5-tuple"),
            tos: fact(false, "22.11 ice_fdir_filter.c:931: DSCP only"),
            ttl: fact(true, FDIR),
            no_options: fact(false, "22.11 ice_fdir_filter.c:2026 refuses version_ihl"),
            whole: fact(false, "22.11 ice_fdir_filter.c:2079: only all fragments or all packets"),
            ..flow_director(FDIR, LIST)
        },
        steers_only(fact(0x00ff_ffff, "22.11 ice_fdir_filter.c: a filter id of 32 bits"), fact(true, LIST), LIST),
        Limits {
            rules: fact(Some(16_384), "offload: 16,384 Flow Director rules"),
            counters: fact(Some(8_192), "22.11 ice_ethdev.h:372: counter pools of 256, 32 of them"),
            counter_refresh_ms: fact(0, "22.11 ice_fdir_filter.c:1570: each query reads the counter"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "ice sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[], "no rte_security in the driver: that of its virtual functions (iavf) has it"),
    );
    profile.with_dialect(Dialect {
        priorities: fact(
            1,
            "22.11 ice_fdir_filter.c:2476: Flow Director has priority 0 alone; 24.11 ice_generic_flow.c:1915: 0 and 1",
        ),
        ..Dialect::GUIDE
    })
}

pub(in crate::lower) fn iavf() -> NicProfile {
    const FDIR: &str = "22.11 iavf_fdir.c:39, 196: input sets by pattern, no MAC and no protocol's number beside ports";
    const LIST: &str = "features/iavf.ini";
    let profile = NicProfile::new(
        "iavf",
        Matches {
            ttl: fact(true, FDIR),
            no_options: fact(false, "22.11 iavf_fdir.c:911 refuses version_ihl"),
            whole: fact(false, "22.11 iavf_fdir.c:987: only all fragments or all packets"),
            ..flow_director(FDIR, LIST)
        },
        steers_only(
            fact(0x00ff_ffff, "22.11 iavf_fdir.c, VIRTCHNL_ACTION_MARK: 32 bits"),
            fact(false, "22.11 iavf_fdir.c, iavf_fdir_parse_action: no COUNT, whatever features/iavf.ini lists"),
            LIST,
        ),
        Limits {
            rules: fact(None, "what the physical function grants"),
            counters: fact(Some(0), "22.11 iavf_fdir.c, iavf_fdir_parse_action: no COUNT"),
            counter_refresh_ms: fact(0, "no COUNT"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "22.11 iavf_ethdev.c:1113 clears RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(
            &[Ipsec::InlineCrypto],
            "22.11 iavf_ipsec_crypto.c:1606: where the physical function offers it; how many SAs its firmware says",
        ),
    );
    profile.with_dialect(Dialect {
        priorities: fact(1, "22.11 iavf_fdir.c:1597, iavf_ipsec_crypto.c:1931: priority 0 alone"),
        proto: fact(ProtoMatch::WithoutPorts, "22.11 iavf_fdir.c:39: IAVF_INSET_IPV4_PROTO goes without ports"),
        open: fact(
            OpenRule::Table,
            "22.11 iavf_ipsec_crypto.c:1656: ETH, IP, (UDP,) ESP and no other item, :1721, 24.11 :1755: only {SECURITY; END} supported",
        ),
        ..Dialect::GUIDE
    })
}

pub(in crate::lower) fn ixgbe(version: DpdkVersion) -> NicProfile {
    const FDIR: &str = "22.11 ixgbe_flow.c:1591, ixgbe_parse_fdir_filter_normal";
    const LIST: &str = "features/ixgbe.ini";
    let profile = NicProfile::new(
        "ixgbe",
        Matches {
            eth_dst: fact(false, "22.11 ixgbe_flow.c:1723: a MAC only in the mode of MAC and VLAN, without addresses"),
            vlan_tags: fact(0, "22.11 ixgbe_flow.c:1801: nothing behind a VLAN item"),
            ipv6: fact(
                Ipv6Match::None,
                "22.11 ixgbe_flow.c:1894: IPv6 only in signature mode, which other packets may hit",
            ),
            no_options: fact(false, "22.11 ixgbe_flow.c:1828 refuses version_ihl"),
            whole: fact(false, "22.11 ixgbe_flow.c:1828 refuses fragment_offset"),
            sctp: fact(false, "22.11 ixgbe_flow.c:2115: only the X550 family has ports of SCTP"),
            ..flow_director(FDIR, LIST)
        },
        steers_only(fact(0x7fff, "82599 datasheet §7.1.2.7: a software index of 15 bits"), fact(false, LIST), LIST),
        Limits {
            rules: fact(Some(8_190), "82599 datasheet §7.1.2.7: 8 k - 2 perfect filters in the largest table"),
            counters: fact(Some(0), LIST),
            counter_refresh_ms: fact(0, LIST),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "ixgbe sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(
            &[Ipsec::InlineCrypto],
            "22.11 ixgbe_ipsec.c:481, ixgbe_ipsec.h:29: AES-GCM of 128 bits, 1,024 SAs each way, 128 addresses, no ESN, no UDP",
        ),
    );
    profile.with_dialect(Dialect {
        priorities: fact(1, "22.11 ixgbe_flow.c:1425: Flow Director has no priorities"),
        proto: fact(ProtoMatch::Never, "22.11 ixgbe_flow.c:1828 refuses next_proto_id"),
        mark_last: fact(true, "22.11 ixgbe_flow.c:1429, 1455: QUEUE or DROP, then MARK"),
        open: fact(
            OpenRule::Table,
            "22.11 ixgbe_flow.c:223, 24.11 :222: SECURITY and END; of the pattern only the addresses of the first IP item are read",
        ),
        open_ends_with_session: fact(
            true,
            if version.since(DpdkVersion::V24_11) {
                "24.11 ixgbe_flow.c:3373 destroys it from 24.11.5 on; before, EINVAL"
            } else {
                "22.11 ixgbe_flow.c:3432: rte_flow_destroy says EINVAL"
            },
        ),
        ..Dialect::GUIDE
    })
}

pub(in crate::lower) fn txgbe() -> NicProfile {
    const FDIR: &str = "22.11 txgbe_flow.c:1555, txgbe_parse_fdir_filter_normal";
    const LIST: &str = "features/txgbe.ini";
    let profile = NicProfile::new(
        "txgbe",
        Matches {
            eth_dst: fact(false, "22.11 txgbe_flow.c: the mode of MAC and VLAN goes without addresses"),
            vlan_tags: fact(0, "22.11 txgbe_flow.c:1555: a VLAN item is stepped over"),
            ipv6: fact(Ipv6Match::None, "22.11 txgbe_flow.c:1555: a destination is refused"),
            ..flow_director(FDIR, LIST)
        },
        steers_only(fact(0, "22.11, 24.11 txgbe_flow.c:1404: nothing behind QUEUE or DROP"), fact(false, LIST), LIST),
        Limits {
            rules: fact(Some(8_190), "as 82599, which it descends from: not published"),
            counters: fact(Some(0), LIST),
            counter_refresh_ms: fact(0, LIST),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "txgbe sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(
            &[Ipsec::InlineCrypto],
            "22.11 txgbe_ipsec.c:462, txgbe_ipsec.h:18: AES-GCM of 128 bits, 1,024 SAs each way, 128 addresses, no ESN, no UDP",
        ),
    );
    profile.with_dialect(Dialect {
        priorities: fact(1, "22.11 txgbe_flow.c: Flow Director has no priorities"),
        proto: fact(ProtoMatch::Never, "22.11 txgbe_flow.c refuses next_proto_id"),
        open: fact(
            OpenRule::Table,
            "22.11, 24.11 txgbe_flow.c:189: SECURITY and END; of the pattern only the addresses of the first IP item are read",
        ),
        open_ends_with_session: fact(true, "22.11, 24.11 txgbe_flow.c:3603: rte_flow_destroy says EINVAL"),
        ..Dialect::GUIDE
    })
}
