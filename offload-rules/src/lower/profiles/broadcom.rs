//! Broadcom Thor with TruFlow.

use super::fact;
use crate::lower::profile::{Api, Does, FieldRewrite, HeaderCheck, Ipv6Match, Limits, Matches, NicProfile, TtlRewrite};

const PARSER: &str = "tf_ulp/ulp_rte_parser.c";
const LIST: &str = "features/bnxt.ini";

pub(in crate::lower) const fn bnxt() -> NicProfile {
    NicProfile::new(
        "bnxt",
        Matches {
            eth_dst: fact(true, PARSER),
            untagged: fact(true, "tf_ulp templates: the number of tags is part of the profile key"),
            vlan_tags: fact(1, "features/bnxt.ini: vlan = P"),
            vlan_priority: fact(false, "tf_ulp/ulp_rte_parser.c: the priority is wild"),
            ipv6: fact(Ipv6Match::FiveTuple, LIST),
            tos: fact(false, "tf_ulp/ulp_rte_parser.c: the tos field is ignored"),
            ttl: fact(true, PARSER),
            no_options: fact(true, PARSER),
            whole: fact(true, PARSER),
            length: fact(false, PARSER),
            tcp_flags: fact(0xff, PARSER),
            sctp: fact(false, LIST),
            header_check: fact(
                HeaderCheck::Parser,
                "tf_ulp/generic_templates/ulp_template_db_thor_class.c: l3_hdr_error is 0 in each profile key",
            ),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, LIST),
            mpls_ttl: fact(false, LIST),
            udp_no_checksum: fact(false, PARSER),
            meta: fact(false, "features/bnxt.ini lists no META item"),
        },
        Does {
            jump: fact(false, "features/bnxt.ini lists it; not relied on, flows go to group 0"),
            port_to_port: fact(true, LIST),
            set_macs: fact(
                true,
                "offload: in later releases; 22.11 lists none and refuses it when it is asked at start",
            ),
            ttl: fact(TtlRewrite::Decrement, "features/bnxt.ini: dec_ttl, no set_ttl"),
            vlan_tags: fact(1, LIST),
            set_vlan: fact(true, LIST),
            raw_encap: fact(false, LIST),
            raw_decap: fact(false, LIST),
            drop: fact(true, LIST),
            mark: fact(0x00ff_ffff, LIST),
            queue: fact(true, "offload: partial offload; features/bnxt.ini lists RSS, which may name one queue"),
            count: fact(true, LIST),
            age: fact(false, "offload: counters only"),
            rewrite: fact(FieldRewrite::Set, LIST),
            security: fact(false, "no rte_security in the driver"),
        },
        Limits {
            rules: fact(None, "not published"),
            counters: fact(None, "not published"),
            counter_refresh_ms: fact(1000, "tf_ulp/ulp_fc_mgr.h: ULP_FC_TIMER is one second"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "bnxt_ethdev.c clears RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[], "offload"),
    )
}
