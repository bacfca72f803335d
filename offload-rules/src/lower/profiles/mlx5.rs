//! NVIDIA ConnectX-6 Dx and later, BlueField: hardware steering (`dv_flow_en=2`) and software steering (`dv_flow_en=1`).

use super::fact;
use crate::lower::profile::{
    Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, TtlRewrite,
};

const ITEMS: &str = "mlx5_flow.c and mlx5_flow_dv.c, masks that the items accept";
const ACTIONS: &str = "features/mlx5.ini";

const MATCHES: Matches = Matches {
    eth_dst: fact(true, ITEMS),
    untagged: fact(true, "guides/nics/mlx5.rst: an ETH item without has_vlan matches tagged packets, too"),
    vlan_tags: fact(1, "mlx5_flow_validate_item_vlan: multiple VLAN layers not supported"),
    vlan_priority: fact(true, "mlx5_flow_validate_item_vlan: TCI 0xffff, not in a virtual machine"),
    ipv6: fact(Ipv6Match::FiveTuple, ITEMS),
    tos: fact(true, ITEMS),
    ttl: fact(true, ITEMS),
    no_options: fact(true, "guides/nics/mlx5.rst: matching on IPv4 Internet Header Length, a capability of the device"),
    whole: fact(true, ITEMS),
    length: fact(false, "mlx5_flow_dv.c: neither total_length nor payload_len is in the masks that are accepted"),
    tcp_flags: fact(0xff, ITEMS),
    sctp: fact(false, "features/mlx5.ini lists no SCTP item"),
    header_check: fact(
        HeaderCheck::OneItem,
        "guides/nics/mlx5.rst: from ConnectX-6 Dx; multiple integrity items not supported in a single flow rule",
    ),
    mpls: fact(true, "guides/nics/mlx5.rst: MPLSoUDP; needs firmware FLEX_PARSER_PROFILE_ENABLE=1"),
    mpls_bottom: fact(false, "mlx5_flow_validate_item_mpls: the label and nothing else"),
    mpls_ttl: fact(false, "mlx5_flow_validate_item_mpls: the label and nothing else"),
    udp_no_checksum: fact(false, "mlx5_flow_validate_item_udp: ports and nothing else"),
    meta: fact(true, "guides/nics/mlx5.rst: META item and SET_META, by dv_xmeta_en"),
};

const DOES: Does = Does {
    jump: fact(true, ACTIONS),
    port_to_port: fact(true, ACTIONS),
    set_macs: fact(true, ACTIONS),
    ttl: fact(TtlRewrite::Set, ACTIONS),
    vlan_tags: fact(1, "one VLAN layer in a pattern, so one in the actions"),
    set_vlan: fact(true, ACTIONS),
    raw_encap: fact(true, "guides/nics/mlx5.rst: the input buffer, used as outer header, is not validated"),
    raw_decap: fact(true, "guides/nics/mlx5.rst: the buffer size must match the headers to be removed"),
    drop: fact(true, ACTIONS),
    mark: fact(0x00ff_ffef, "mlx5_prm.h: below MLX5_FLOW_MARK_MAX"),
    queue: fact(true, ACTIONS),
    count: fact(true, ACTIONS),
    age: fact(true, ACTIONS),
    rewrite: fact(FieldRewrite::Set, ACTIONS),
    security: fact(false, "no rte_security in the driver: the kernel or DOCA ciphers"),
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

pub(in crate::lower) const fn mlx5_hws() -> NicProfile {
    let matches = Matches {
        ipv6: fact(
            Ipv6Match::Addresses,
            "guides/nics/mlx5.rst: IPv6 5-tuple matching is not supported; ConnectX-8 and BlueField-3 do it later",
        ),
        mpls: fact(
            true,
            "offload: MPLSoUDP in hardware steering from 23.03; 22.11 refuses it when it is asked at start",
        ),
        ..MATCHES
    };
    let does = Does {
        set_vlan: fact(false, "guides/nics/mlx5.rst: modification of the 802.1Q tag is not supported"),
        rewrite: fact(FieldRewrite::ModifyField, "offload: MODIFY_FIELD replaces SET_* and DEC_TTL"),
        security: fact(false, "no rte_security in the driver: the kernel or DOCA ciphers"),
        ..DOES
    };
    let limits = Limits {
        counter_refresh_ms: fact(500, "guides/nics/mlx5.rst: svc_cycle_time is 500 by default"),
        api: fact(Api::Template, "guides/nics/mlx5.rst: async queue-based rte_flow_async APIs supported only"),
        ..LIMITS
    };
    NicProfile::new("mlx5-hws", matches, does, limits, fact(IPSEC, "offload: kernel 6.6 and later"))
}
