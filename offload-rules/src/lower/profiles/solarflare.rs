//! AMD Solarflare EF100 with its match-action engine (MAE).

use crate::lower::{
    Dialect, DpdkVersion,
    fact::fact,
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite, TunnelMatch,
    },
};

const V4: &str = "22.11 sfc_mae.c:1931, flocs_ipv4";
const ACTIONS: &str = "22.11 sfc_mae.c:3610, sfc_mae_rule_parse_action";
const LIST: &str = "features/sfc.ini";
const FILTER: &str = "22.11 sfc_flow.c:282: filters of receive, where marks would be, match neither has_vlan nor a MAC beside five fields";

pub(in crate::lower) fn sfc(version: DpdkVersion) -> NicProfile {
    let since_23_07 = version.since(DpdkVersion::new(23, 7));
    let profile = NicProfile::new(
        "sfc",
        Matches {
            eth_dst: fact(true, "22.11 sfc_mae.c:1698, flocs_eth"),
            untagged: fact(true, "22.11 sfc_mae.c:1734, 1776: has_vlan"),
            vlan_tags: fact(2, "22.11 sfc_mae.h:251: SFC_MAE_MATCH_VLAN_MAX_NTAGS"),
            vlan_priority: fact(true, "22.11 sfc_mae.c:1794, flocs_vlan: the whole TCI"),
            no_more_tags: fact(true, "22.11 sfc_mae.c:1734, 1776: has_more_vlan"),
            tag_types: fact(&[0x8100, 0x88a8], "22.11 sfc_mae.c: the type before a tag is matched"),
            ipv6: fact(Ipv6Match::FiveTuple, "22.11 sfc_mae.c:2008, flocs_ipv6"),
            tos: fact(true, "22.11 sfc_mae.c:1950; IPv6: sfc_mae.c:2036"),
            ttl: fact(true, V4),
            no_options: fact(false, "22.11 sfc_mae.c:1931, 24.11 sfc_mae.c:2575: version_ihl is not in flocs_ipv4"),
            whole: fact(
                since_23_07,
                if since_23_07 {
                    "24.11 sfc_mae.c:2602, 2013: fragment_offset, from 23.07"
                } else {
                    "22.11 sfc_mae.c:1931: fragment_offset is not in flocs_ipv4; from 23.07"
                },
            ),
            length: fact(false, V4),
            whole6: fact(false, "the next header of the fixed header is matched"),
            tcp_flags: fact(0xff, "22.11 sfc_mae.c:2108, flocs_tcp: data offset and flags"),
            sctp: fact(false, LIST),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, "no MPLS"),
            mpls_ports: fact(&[6635], "RFC 7510"),
            tunnel: fact(TunnelMatch::OneRule, "nothing of tunnels is matched"),
            mpls_ttl: fact(false, "no MPLS"),
            udp_no_checksum: fact(false, "22.11 sfc_mae.c:2175, flocs_udp: ports"),
            meta: fact(false, LIST),
        },
        Does {
            jump: fact(false, "22.11 sfc_mae.c:3750: of tunnel offload only"),
            port_to_port: fact(true, ACTIONS),
            wire_to_wire: fact(true, "not published: what a peer port sends tells"),
            set_macs: fact(true, ACTIONS),
            ttl: fact(TtlRewrite::Decrement, "22.11 sfc_mae.c:3655"),
            vlan_tags: fact(2, ACTIONS),
            set_vlan: fact(false, "22.11 sfc_mae.c:3039: OF_SET_VLAN_* are bundled with OF_PUSH_VLAN"),
            raw_encap: fact(false, LIST),
            raw_decap: fact(false, LIST),
            decap_on_function: fact(false, "no tunnels"),
            push_on_receive: fact(false, "no stages"),
            tunnel_to_tunnel: fact(false, "no tunnels"),
            order: fact(Order::TagsFirst, "any order"),
            drop: fact(true, ACTIONS),
            mark: fact(0, FILTER),
            queue: fact(true, LIST),
            count: fact(true, ACTIONS),
            rewrite: fact(FieldRewrite::Set, ACTIONS),
            security: fact(false, "no rte_security in the driver"),
        },
        Limits {
            rules: fact(None, "not published"),
            counters: fact(None, "not published"),
            counter_refresh_ms: fact(1000, "the firmware streams counters; one second is assumed"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "22.11 sfc_ethdev.c:184 clears RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[], "no rte_security in the driver"),
    );
    profile.with_dialect(Dialect {
        priorities: fact(
            2,
            "22.11 sfc_mae.c:290, sfc_flow.c:1287: as many as the firmware says, which is not published; two are counted on",
        ),
        ..Dialect::GUIDE
    })
}
