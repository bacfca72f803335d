//! AMD Solarflare EF100 with its match-action engine.

use super::fact;
use crate::lower::profile::{Api, Does, FieldRewrite, HeaderCheck, Ipv6Match, Limits, Matches, NicProfile, TtlRewrite};

const GUIDE: &str = "guides/nics/sfc_efx.rst, transfer rules";
const LIST: &str = "features/sfc.ini";

pub(in crate::lower) const fn sfc() -> NicProfile {
    NicProfile::new(
        "sfc",
        Matches {
            eth_dst: fact(true, GUIDE),
            untagged: fact(true, "sfc_mae.c: has_vlan and has_more_vlan"),
            vlan_tags: fact(2, "guides/nics/sfc_efx.rst: double-tagging is supported"),
            vlan_priority: fact(true, "sfc_mae.c: the whole TCI"),
            ipv6: fact(Ipv6Match::FiveTuple, GUIDE),
            tos: fact(true, GUIDE),
            ttl: fact(true, GUIDE),
            no_options: fact(false, "guides/nics/sfc_efx.rst: not in the list of IPv4 fields"),
            whole: fact(false, "guides/nics/sfc_efx.rst: not in the list of IPv4 fields"),
            length: fact(false, GUIDE),
            tcp_flags: fact(0xff, "guides/nics/sfc_efx.rst: TCP header length and flags"),
            sctp: fact(false, LIST),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, LIST),
            mpls_ttl: fact(false, LIST),
            udp_no_checksum: fact(false, GUIDE),
            meta: fact(false, "features/sfc.ini lists no META item"),
        },
        Does {
            jump: fact(false, "features/sfc.ini: jump = P, for tunnel offload only"),
            port_to_port: fact(true, LIST),
            set_macs: fact(true, LIST),
            ttl: fact(TtlRewrite::Decrement, LIST),
            vlan_tags: fact(2, LIST),
            set_vlan: fact(false, "guides/nics/sfc_efx.rst: OF_SET_VLAN_* only behind OF_PUSH_VLAN"),
            raw_encap: fact(false, LIST),
            raw_decap: fact(false, LIST),
            drop: fact(true, LIST),
            mark: fact(0x00ff_ffff, "features/sfc.ini; the firmware's limit may be lower"),
            queue: fact(true, LIST),
            count: fact(true, LIST),
            age: fact(false, LIST),
            rewrite: fact(FieldRewrite::Set, LIST),
            security: fact(false, "no rte_security in the driver"),
        },
        Limits {
            rules: fact(None, "not published"),
            counters: fact(None, "not published"),
            counter_refresh_ms: fact(1000, "the firmware streams counters; one second is assumed"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "sfc_ethdev.c clears RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[], "offload"),
    )
}
