//! Marvell OCTEON, cnxk.

use super::fact;
use crate::lower::profile::{
    Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, TtlRewrite,
};

const KEY: &str = "the key is set by the firmware's profile; what is not known of it is taken for no";
const LIST: &str = "features/cnxk.ini";

pub(in crate::lower) const fn cnxk() -> NicProfile {
    NicProfile::new(
        "cnxk",
        Matches {
            eth_dst: fact(true, KEY),
            untagged: fact(false, KEY),
            vlan_tags: fact(2, LIST),
            vlan_priority: fact(false, KEY),
            ipv6: fact(Ipv6Match::FiveTuple, LIST),
            tos: fact(true, KEY),
            ttl: fact(false, KEY),
            no_options: fact(false, KEY),
            whole: fact(false, KEY),
            length: fact(false, KEY),
            tcp_flags: fact(0, KEY),
            sctp: fact(true, LIST),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(true, "offload: matched, not taken off"),
            mpls_bottom: fact(false, KEY),
            mpls_ttl: fact(false, KEY),
            udp_no_checksum: fact(false, KEY),
            meta: fact(false, "features/cnxk.ini lists no META item"),
        },
        Does {
            jump: fact(false, LIST),
            port_to_port: fact(true, LIST),
            set_macs: fact(false, LIST),
            ttl: fact(TtlRewrite::None, LIST),
            vlan_tags: fact(1, LIST),
            set_vlan: fact(false, LIST),
            raw_encap: fact(false, LIST),
            raw_decap: fact(false, LIST),
            drop: fact(true, LIST),
            mark: fact(0xfffd, "roc_npc.c: at most NPC_FLOW_FLAG_VAL less two"),
            queue: fact(true, LIST),
            count: fact(true, LIST),
            age: fact(true, "offload"),
            rewrite: fact(FieldRewrite::Set, LIST),
            security: fact(false, "guides/nics/cnxk.rst: SECURITY is an action of ingress rules"),
        },
        Limits {
            rules: fact(None, "entries of the MCAM, shared by all functions"),
            counters: fact(None, "counters of the MCAM, shared by all functions"),
            counter_refresh_ms: fact(0, "each query reads the counter"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(true, "cnxk_ethdev_ops.c sets RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[Ipsec::InlineProtocol], "offload: 4,096 outbound SAs"),
    )
}
