//! Broadcom Thor with TruFlow.
//!
//! A rule is taken when its fields are exactly those of a class template (`ulp_matcher.c`, `ulp_matcher_pattern_match`); of some fields the
//! parser drops the mask without a word.

use crate::lower::{
    DpdkVersion,
    fact::fact,
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite, TunnelMatch,
    },
};

const PARSER: &str = "22.11 tf_ulp/ulp_rte_parser.c";
const CLASSES: &str = "22.11 ulp_template_db_class.c:1318, 24.11 ulp_template_db_class.c:16: in no class template";
const ACTIONS: &str = "22.11, 24.11 tf_ulp/ulp_rte_handler_tbl.c:26";
const VTAGS: &str = "22.11 ulp_template_db_thor_class.c:3458, 3472: the number of tags is in each profile key";

pub(in crate::lower) fn bnxt(version: DpdkVersion) -> NicProfile {
    let since_23_07 = version.since(DpdkVersion::new(23, 7));
    let since_24_11 = version.since(DpdkVersion::V24_11);
    NicProfile::new(
        "bnxt",
        Matches {
            eth_dst: fact(
                true,
                "22.11 ulp_template_db_class.c:1318, 24.11 ulp_template_db_class.c:16: in each class template",
            ),
            untagged: fact(true, VTAGS),
            vlan_tags: fact(1, "22.11 ulp_template_db_class.c:1318: OO_VLAN_VID, and nothing of a second tag"),
            vlan_priority: fact(false, "22.11 ulp_rte_parser.c:743: the priority is wild"),
            no_more_tags: fact(true, VTAGS),
            tag_types: fact(&[0x8100, 0x88a8], "22.11 tf_ulp/ulp_rte_parser.c: the TPID is the type before the tag"),
            ipv6: fact(Ipv6Match::FiveTuple, "22.11 ulp_template_db_class.c:1318"),
            tos: fact(
                false,
                "22.11 ulp_rte_parser.c:939, 24.11 ulp_rte_parser.c:1077: the mask is dropped, but for applications that Broadcom has numbered",
            ),
            ttl: fact(since_24_11, if since_24_11 { "24.11 ulp_template_db_class.c:16: optional" } else { CLASSES }),
            no_options: fact(false, CLASSES),
            whole: fact(false, "22.11 ulp_rte_parser.c:959, 24.11 ulp_rte_parser.c:1092: the mask is dropped"),
            length: fact(false, CLASSES),
            whole6: fact(false, "the next header of the fixed header is matched"),
            tcp_flags: fact(0, CLASSES),
            sctp: fact(false, "22.11, 24.11 tf_ulp/ulp_rte_handler_tbl.c: not supported"),
            header_check: fact(
                HeaderCheck::Parser,
                "22.11 ulp_template_db_thor_class.c:3424, 24.11 ulp_template_db_thor_class.c:30024: l3_hdr_error is 0 in each profile key",
            ),
            mpls: fact(false, "22.11, 24.11 tf_ulp/ulp_rte_handler_tbl.c: not supported"),
            mpls_bottom: fact(false, "no MPLS"),
            mpls_ports: fact(&[6635], "RFC 7510"),
            tunnel: fact(TunnelMatch::OneRule, "nothing of tunnels is matched"),
            mpls_ttl: fact(false, "no MPLS"),
            udp_no_checksum: fact(false, CLASSES),
            meta: fact(false, "22.11, 24.11 tf_ulp/ulp_rte_handler_tbl.c: not supported"),
        },
        Does {
            jump: fact(false, "22.11 ulp_rte_parser.c:2440, ulp_rte_jump_act_handler: its group is not read"),
            port_to_port: fact(true, ACTIONS),
            wire_to_wire: fact(true, "not published: what a peer port sends tells"),
            set_macs: fact(since_23_07, "22.11 ulp_rte_handler_tbl.c:164: not supported; from 23.07"),
            ttl: fact(TtlRewrite::Decrement, "22.11 ulp_rte_handler_tbl.c:156: DEC_TTL; SET_TTL from 24.11"),
            vlan_tags: fact(1, ACTIONS),
            set_vlan: fact(true, ACTIONS),
            raw_encap: fact(false, "22.11, 24.11 ulp_rte_handler_tbl.c:120: not supported"),
            raw_decap: fact(false, "22.11, 24.11 ulp_rte_handler_tbl.c:124: not supported"),
            decap_on_function: fact(false, "no tunnels"),
            push_on_receive: fact(false, "no stages"),
            tunnel_to_tunnel: fact(false, "no tunnels"),
            order: fact(Order::TagsFirst, "any order"),
            drop: fact(true, ACTIONS),
            mark: fact(0x00ff_ffff, ACTIONS),
            queue: fact(since_23_07, "22.11 ulp_rte_handler_tbl.c:40: not supported; from 23.07"),
            count: fact(true, ACTIONS),
            rewrite: fact(FieldRewrite::Set, ACTIONS),
            security: fact(false, "no rte_security in the driver"),
        },
        Limits {
            rules: fact(None, "not published"),
            counters: fact(None, "not published"),
            counter_refresh_ms: fact(1000, "22.11 tf_ulp/ulp_fc_mgr.h:13: ULP_FC_TIMER is one second"),
            api: fact(Api::Sync, PARSER),
            keeps_rules: fact(false, "22.11 bnxt_ethdev.c:999 clears RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[], "no rte_security in the driver"),
    )
}
