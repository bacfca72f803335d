//! Marvell OCTEON, cnxk. What can be matched is in the key that the firmware's profile sets (`npc_get_hw_supp_mask`, roc_npc_parse.c): what
//! is not known of it is taken for no. Items that the driver does not know it takes for VOID (22.11 cnxk_flow.c:6 and 303: `term` has 0
//! for them), so that no rule here may have one.

use crate::lower::{
    Dialect, OpenRule,
    fact::fact,
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite,
        TunnelMatch,
    },
};

const KEY: &str = "22.11 roc_npc_parse.c, npc_get_hw_supp_mask: set by the firmware's profile, not known";
const LIST: &str = "features/cnxk.ini";
const VLAN: &str = "22.11 roc_npc.c:555, 589: tags are stripped on receive and inserted on transmit, never both";

pub(in crate::lower) fn cnxk() -> NicProfile {
    let profile = NicProfile::new(
        "cnxk",
        Matches {
            eth_dst: fact(true, KEY),
            untagged: fact(false, KEY),
            vlan_tags: fact(2, LIST),
            vlan_priority: fact(false, KEY),
            no_more_tags: fact(false, KEY),
            tag_types: fact(&[0x8100], KEY),
            ipv6: fact(Ipv6Match::FiveTuple, LIST),
            tos: fact(true, KEY),
            ttl: fact(false, KEY),
            no_options: fact(false, KEY),
            whole: fact(false, KEY),
            length: fact(false, KEY),
            whole6: fact(false, "the next header of the fixed header is matched"),
            tcp_flags: fact(0, KEY),
            sctp: fact(true, LIST),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(true, "22.11 roc_npc_parse.c, npc_parse_lc: matched, not taken off"),
            mpls_bottom: fact(false, KEY),
            mpls_ports: fact(&[6635], "RFC 7510"),
            tunnel: fact(TunnelMatch::OneRule, "nothing of tunnels is matched"),
            mpls_ttl: fact(false, KEY),
            udp_no_checksum: fact(false, KEY),
            meta: fact(false, "22.11 cnxk_flow.c:6: not in term, so VOID"),
        },
        Does {
            jump: fact(false, LIST),
            port_to_port: fact(
                false,
                "22.11 roc_npc.c:318: to VFs of the same PF alone, :455 reads a PORT_ID behind a REPRESENTED_PORT; 24.11 cnxk_flow.c:543: \
                 a port that is no representor is skipped without a word",
            ),
            wire_to_wire: fact(false, "22.11 roc_npc.c:318: the port of an action has to be a VF of the same PF"),
            set_macs: fact(false, LIST),
            ttl: fact(TtlRewrite::None, LIST),
            vlan_tags: fact(0, VLAN),
            set_vlan: fact(false, VLAN),
            raw_encap: fact(false, LIST),
            raw_decap: fact(false, LIST),
            decap_on_function: fact(false, "no tunnels"),
            push_on_receive: fact(false, "no stages"),
            tunnel_to_tunnel: fact(false, "no tunnels"),
            order: fact(Order::TagsFirst, "any order"),
            drop: fact(true, "22.11 roc_npc.c:615: DROP, with COUNT alone"),
            mark: fact(0xfffd, "22.11 roc_npc.c:418: at most NPC_FLOW_FLAG_VAL less two"),
            queue: fact(true, LIST),
            count: fact(true, LIST),
            rewrite: fact(FieldRewrite::Set, LIST),
            security: fact(false, "guides/nics/cnxk.rst: SECURITY is an action of ingress rules"),
        },
        Limits {
            rules: fact(None, "entries of the MCAM, shared by all functions"),
            counters: fact(None, "counters of the MCAM, shared by all functions"),
            counter_refresh_ms: fact(0, "22.11 cnxk_flow.c, cnxk_flow_query: each query reads the counter"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(true, "22.11 cnxk_ethdev_ops.c:70 sets RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(
            &[Ipsec::InlineProtocol],
            "guides/nics/cnxk.rst: 4,096 outbound SAs, inbound SPI 0 to 255 unless ipsec_in_max_spi says more",
        ),
    );
    profile.with_dialect(Dialect {
        priorities: fact(3, "22.11 cnxk_ethdev_devargs.c:262, roc_npc.c:754: flow_max_priority is 3"),
        open: fact(
            OpenRule::Terminating,
            "22.11 roc_npc.c:606, 24.11 roc_npc.c:827: exactly one terminating action, and SECURITY is one (roc_npc_priv.h:315)",
        ),
        ..Dialect::GUIDE
    })
}
