//! NVIDIA ConnectX-6 Dx and later, BlueField: hardware steering (`dv_flow_en=2`) and software steering (`dv_flow_en=1`).
//!
//! "judged" in a source: the driver's own code of DPDK 22.11.11 and 24.11.8 was asked, and what it wrote was read.

use crate::lower::{
    DpdkVersion,
    fact::fact,
    profile::{
        Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, Order, TtlRewrite,
        TunnelMatch,
    },
};

const ITEMS: &str = "mlx5_flow.c and mlx5_flow_dv.c, masks that the items accept";
const ACTIONS: &str = "features/mlx5.ini";
const NO_SECURITY: &str = "no rte_security in the driver: the kernel or DOCA ciphers";

const MATCHES: Matches = Matches {
    eth_dst: fact(true, ITEMS),
    untagged: fact(true, "guides/nics/mlx5.rst: an ETH item without has_vlan matches tagged packets, too"),
    vlan_tags: fact(1, "mlx5_flow_validate_item_vlan: multiple VLAN layers not supported"),
    no_more_tags: fact(false, "judged: has_more_vlan 0 is dropped without a word, in either engine"),
    tag_types: fact(
        &[0x8100, 0x88a8],
        "judged: cvlan_tag and svlan_tag; both bits are compared when one is asked for (rdma-core, dr_ste_v1.c)",
    ),
    vlan_priority: fact(true, "mlx5_flow_validate_item_vlan: TCI 0xffff, not in a virtual machine"),
    ipv6: fact(Ipv6Match::FiveTuple, ITEMS),
    tos: fact(true, ITEMS),
    ttl: fact(true, ITEMS),
    no_options: fact(true, "guides/nics/mlx5.rst: matching on IPv4 Internet Header Length, a capability of the device"),
    whole: fact(true, ITEMS),
    whole6: fact(true, "judged: has_frag_ext; without it atomic and first fragments hit"),
    length: fact(false, "mlx5_flow_dv.c: neither total_length nor payload_len is in the masks that are accepted"),
    tcp_flags: fact(0xff, ITEMS),
    sctp: fact(false, "features/mlx5.ini lists no SCTP item"),
    header_check: fact(
        HeaderCheck::Steering,
        "rdma-core, dr_ste_v1.c: l3_ok and ipv4_checksum_ok are in definers 0 and 2, which have no addresses",
    ),
    mpls: fact(true, "guides/nics/mlx5.rst: MPLSoUDP; needs firmware FLEX_PARSER_PROFILE_ENABLE=1"),
    mpls_ports: fact(&[6635], "judged: no parser looks for a label behind another port (MLX5_UDP_PORT_MPLS)"),
    tunnel: fact(TunnelMatch::OneRule, "judged: both headers are in one fte_match_param"),
    mpls_bottom: fact(false, "mlx5_flow_validate_item_mpls: the label and nothing else"),
    mpls_ttl: fact(false, "mlx5_flow_validate_item_mpls: the label and nothing else"),
    udp_no_checksum: fact(false, "mlx5_flow_validate_item_udp: ports and nothing else"),
    meta: fact(true, "guides/nics/mlx5.rst: META item and SET_META, by dv_xmeta_en"),
};

const DOES: Does = Does {
    jump: fact(true, ACTIONS),
    port_to_port: fact(true, ACTIONS),
    wire_to_wire: fact(
        false,
        "rdma-core dr_action.c, DR_ACTION_TYP_VPORT: dropped silently; guides/nics/mlx5.rst (24.11): use hairpin queues",
    ),
    set_macs: fact(true, ACTIONS),
    ttl: fact(TtlRewrite::SetOrDecrement, ACTIONS),
    vlan_tags: fact(1, "one VLAN layer in a pattern, so one in the actions"),
    set_vlan: fact(false, "judged: set VLAN PCP action must follow the push VLAN action"),
    raw_encap: fact(true, "guides/nics/mlx5.rst: the input buffer, used as outer header, is not validated"),
    raw_decap: fact(true, "guides/nics/mlx5.rst: the buffer size must match the headers to be removed"),
    decap_on_function: fact(
        false,
        "judged: packets of a function are on the transmit half of the switch, where rdma-core takes no tunnel off (dr_action.c)",
    ),
    push_on_receive: fact(
        false,
        "judged: push VLAN action not supported for ingress (flow_dv_validate_action_push_vlan)",
    ),
    tunnel_to_tunnel: fact(false, "judged: refused in every order, in either engine"),
    order: fact(Order::TagsLast, "rdma-core, dr_action.c: no header is modified behind PUSH_VLAN"),
    drop: fact(true, ACTIONS),
    mark: fact(0x00ff_ffef, "mlx5_prm.h: below MLX5_FLOW_MARK_MAX"),
    queue: fact(true, ACTIONS),
    count: fact(true, ACTIONS),
    rewrite: fact(FieldRewrite::Set, ACTIONS),
    security: fact(false, NO_SECURITY),
};

const LIMITS: Limits = Limits {
    rules: fact(None, "published: about 4 M live rules on ConnectX-6"),
    counters: fact(None, "as many as are configured"),
    counter_refresh_ms: fact(1000, "mlx5_flow.c: MLX5_POOL_QUERY_FREQ_US is one second"),
    api: fact(Api::Sync, "guides/nics/mlx5.rst"),
    keeps_rules: fact(false, "mlx5_ethdev.c: dev_capa has FLOW_SHARED_OBJECT_KEEP and not FLOW_RULE_KEEP"),
};

const IPSEC: &[Ipsec] = &[Ipsec::KernelPacket];

pub(in crate::lower) const fn mlx5_sws() -> NicProfile {
    NicProfile::new("mlx5-sws", MATCHES, DOES, LIMITS, fact(IPSEC, "offload: kernel 6.6 and later"))
}

pub(in crate::lower) fn mlx5_hws(version: DpdkVersion) -> NicProfile {
    let since_23_03 = version.since(DpdkVersion::new(23, 3));
    let matches = Matches {
        tag_types: fact(&[0x8100], "judged: a tag is always a CVLAN, whatever its type"),
        ipv6: fact(
            Ipv6Match::TwoRules,
            "judged: both addresses are more than a definer of ConnectX-6 Dx holds; ConnectX-8 and BlueField-3 hold them",
        ),
        mpls: fact(since_23_03, "judged: 22.11 says \"Unsupported item type\", 24.11 takes it; from 23.03"),
        header_check: fact(HeaderCheck::OneItem, "judged: one item in a pattern template"),
        tunnel: fact(
            TunnelMatch::TwoRules,
            "judged: both headers with the MAC address and integrity are more than a definer holds (E2BIG)",
        ),
        ..MATCHES
    };
    let does = Does {
        decap_on_function: fact(true, "judged: taken on either half"),
        push_on_receive: fact(true, "judged: taken in ingress templates"),
        order: fact(Order::TagsFirst, "judged: Invalid action_type sequence for PUSH_VLAN behind MODIFY_FIELD"),
        ttl: fact(
            TtlRewrite::Set,
            "offload: MODIFY_FIELD replaces SET_* and DEC_TTL; no operation of it but SET has been judged",
        ),
        rewrite: fact(FieldRewrite::ModifyField, "offload: MODIFY_FIELD replaces SET_* and DEC_TTL"),
        ..DOES
    };
    let limits = Limits {
        counter_refresh_ms: fact(500, "guides/nics/mlx5.rst: svc_cycle_time is 500 by default"),
        api: fact(Api::Template, "guides/nics/mlx5.rst: async queue-based rte_flow_async APIs supported only"),
        ..LIMITS
    };
    NicProfile::new("mlx5-hws", matches, does, limits, fact(IPSEC, "offload: kernel 6.6 and later"))
}
