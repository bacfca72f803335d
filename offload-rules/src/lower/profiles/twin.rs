//! The NIC twin: everything that the rte_flow guide describes and lowering can use.

use crate::lower::{
    fact::fact,
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite,
        TunnelMatch,
    },
};

const GUIDE: &str = "DPDK rte_flow guide, as the twin implements it";
const ITEMS: &str = "DPDK rte_flow guide, pattern items: every field with spec, last and mask";

pub(in crate::lower) const fn twin() -> NicProfile {
    NicProfile::new(
        "twin",
        Matches {
            eth_dst: fact(true, ITEMS),
            untagged: fact(true, ITEMS),
            vlan_tags: fact(2, ITEMS),
            no_more_tags: fact(true, ITEMS),
            tag_types: fact(&[0x8100, 0x88a8], ITEMS),
            vlan_priority: fact(true, ITEMS),
            ipv6: fact(Ipv6Match::FiveTuple, ITEMS),
            tos: fact(true, ITEMS),
            ttl: fact(true, ITEMS),
            no_options: fact(true, ITEMS),
            whole: fact(true, ITEMS),
            whole6: fact(false, "the next header of the fixed header is matched"),
            length: fact(true, ITEMS),
            tcp_flags: fact(0xff, ITEMS),
            sctp: fact(true, ITEMS),
            header_check: fact(HeaderCheck::EachLevel, ITEMS),
            mpls: fact(true, ITEMS),
            mpls_ports: fact(&[6635, 51234], ITEMS),
            tunnel: fact(TunnelMatch::OneRule, ITEMS),
            mpls_bottom: fact(true, ITEMS),
            mpls_ttl: fact(true, ITEMS),
            udp_no_checksum: fact(true, ITEMS),
            meta: fact(true, ITEMS),
        },
        Does {
            jump: fact(true, GUIDE),
            port_to_port: fact(true, GUIDE),
            wire_to_wire: fact(true, GUIDE),
            set_macs: fact(true, GUIDE),
            ttl: fact(TtlRewrite::SetOrDecrement, GUIDE),
            vlan_tags: fact(2, GUIDE),
            set_vlan: fact(true, GUIDE),
            raw_encap: fact(true, GUIDE),
            raw_decap: fact(true, GUIDE),
            decap_on_function: fact(true, GUIDE),
            push_on_receive: fact(true, GUIDE),
            tunnel_to_tunnel: fact(true, GUIDE),
            order: fact(Order::TagsFirst, GUIDE),
            drop: fact(true, GUIDE),
            mark: fact(0x00ff_ffff, GUIDE),
            queue: fact(true, GUIDE),
            count: fact(true, GUIDE),
            rewrite: fact(FieldRewrite::Set, GUIDE),
            security: fact(
                true,
                "the twin: SECURITY in transfer rules, as in a switch that ciphers on the side of the wire",
            ),
        },
        Limits {
            rules: fact(None, "set by the twin's arguments"),
            counters: fact(None, "set by the twin's argument counters="),
            counter_refresh_ms: fact(0, "set by the twin's argument refresh="),
            api: fact(Api::Sync, "the twin implements both"),
            keeps_rules: fact(false, "the twin loses rules at port stop, as most NICs do"),
        },
        fact(&[Ipsec::InlineCrypto, Ipsec::InlineProtocol], GUIDE),
    )
}
