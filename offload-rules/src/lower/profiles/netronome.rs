//! Netronome Agilio with the flower firmware. "merge" in a source: what the driver compiles into the firmware's key; `mask_support` takes
//! more, and what is not compiled is dropped without a word.

use crate::lower::{
    Dialect, DpdkVersion, PortName, SwitchAttribute,
    fact::fact,
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite,
        TunnelMatch,
    },
};

const ETH: &str = "22.11 nfp_flow.c:1070, 24.11 nfp_flower_flow.c:1883, nfp_flow_merge_eth: MAC addresses; has_vlan is taken and dropped";
const VLAN: &str =
    "22.11 nfp_flow.c:1108, nfp_flow_merge_vlan: the TCI of one tag; its TPID and has_more_vlan are taken and dropped";
const V4: &str = "22.11 nfp_flow.c:1139, nfp_flow_merge_ipv4: TOS, TTL, protocol, addresses";
const ACTIONS: &str = "22.11 nfp_flow.c:866, nfp_flow_key_layers_calculate_actions";
const LIST: &str = "features/nfp.ini";

pub(in crate::lower) fn nfp(version: DpdkVersion) -> NicProfile {
    let since_23_11 = version.since(DpdkVersion::V23_11);
    let since_24_03 = version.since(DpdkVersion::new(24, 3));
    let mark = "24.11 nfp_flower_flow.c:1766: MARK and QUEUE, from 24.03 and where the firmware has partial offload; none in 22.11";
    let profile = NicProfile::new(
        "nfp",
        Matches {
            eth_dst: fact(true, ETH),
            untagged: fact(false, ETH),
            vlan_tags: fact(1, VLAN),
            vlan_priority: fact(true, "22.11 nfp_flow.c:1697: TCI 0xefff"),
            no_more_tags: fact(false, VLAN),
            tag_types: fact(&[0x8100], VLAN),
            ipv6: fact(Ipv6Match::FiveTuple, "22.11 nfp_flow.c:1216, nfp_flow_merge_ipv6"),
            tos: fact(true, V4),
            ttl: fact(true, V4),
            no_options: fact(false, "22.11 nfp_flow.c:1711: version_ihl is not in mask_support"),
            whole: fact(
                false,
                "22.11 nfp_flow.c:1139, 1216, nfp_flow_merge_ipv4 and _ipv6: fragment_offset and has_frag_ext are taken and dropped",
            ),
            length: fact(false, "22.11 nfp_flow.c:1711: total_length is not in mask_support"),
            whole6: fact(false, "the next header of the fixed header is matched"),
            tcp_flags: fact(0x2f, "22.11 nfp_flow.c:1300, nfp_flow_merge_tcp: FIN, SYN, RST, PSH, URG and not ACK"),
            sctp: fact(true, "22.11 nfp_flow.c:1772"),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, "no MPLS"),
            mpls_ports: fact(&[6635], "RFC 7510"),
            tunnel: fact(TunnelMatch::OneRule, "nothing of tunnels is matched"),
            mpls_ttl: fact(false, "no MPLS"),
            udp_no_checksum: fact(false, "22.11 nfp_flow.c:1761: ports"),
            meta: fact(false, LIST),
        },
        Does {
            jump: fact(false, "22.11 nfp_flow.c:3638: \"pretend we support group attribute\""),
            port_to_port: fact(true, ACTIONS),
            wire_to_wire: fact(true, "not published: what a peer port sends tells"),
            set_macs: fact(true, ACTIONS),
            ttl: fact(TtlRewrite::Set, "22.11 nfp_flow.c:968: SET_TTL, no DEC_TTL"),
            vlan_tags: fact(1, ACTIONS),
            set_vlan: fact(false, "22.11 nfp_flow.c: OF_SET_VLAN_* only behind OF_PUSH_VLAN"),
            raw_encap: fact(false, "22.11 nfp_flow.c: RAW_ENCAP of VXLAN, GENEVE and NVGRE only"),
            raw_decap: fact(false, "22.11 nfp_flow.c: RAW_DECAP of VXLAN, GENEVE and NVGRE only"),
            decap_on_function: fact(false, "no tunnels"),
            push_on_receive: fact(false, "no stages"),
            tunnel_to_tunnel: fact(false, "no tunnels"),
            order: fact(Order::TagsFirst, "any order"),
            drop: fact(true, ACTIONS),
            mark: fact(if since_24_03 { 0x00ff_ffff } else { 0 }, mark),
            queue: fact(since_24_03, mark),
            count: fact(true, ACTIONS),
            rewrite: fact(FieldRewrite::Set, ACTIONS),
            security: fact(false, "24.11 nfp_ipsec.c: by the metadata of mbufs, not by flow rules"),
        },
        Limits {
            rules: fact(None, "22.11 nfp_flow.c:4113: the firmware's symbol CONFIG_FC_HOST_CTX_COUNT"),
            counters: fact(None, "one for each rule"),
            counter_refresh_ms: fact(1000, "the firmware sends statistics; one second is assumed"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "nfp sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[Ipsec::InlineCrypto, Ipsec::InlineProtocol], "24.11 nfp_ipsec.c, from 23.11: 16,384 SAs; none in 22.11"),
    );
    profile.with_dialect(Dialect {
        port_item: fact(
            PortName::PortId,
            "22.11 nfp_flow.c:723, 24.11 nfp_flower_flow.c:1246: no other item names a port",
        ),
        port_action: fact(
            if since_23_11 { PortName::Represented } else { PortName::PortId },
            "22.11 nfp_flow.c:898: PORT_ID; REPRESENTED_PORT from 23.11, 24.11 nfp_flower_flow.c:1524",
        ),
        switch: fact(
            SwitchAttribute::Ingress,
            "22.11 nfp_flow.c:3654: only ingress is supported, and transfer is pretended; later nothing is asked for",
        ),
        priorities: fact(
            1,
            "22.11 nfp_flow.c:3641: \"pretend we support priority attribute\"; 3607 refuses the same match twice",
        ),
        ..Dialect::GUIDE
    })
}
