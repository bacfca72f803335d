//! Netronome Agilio with the flower firmware.

use super::fact;
use crate::lower::profile::{
    Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Limits, Matches, NicProfile, TtlRewrite,
};

const ITEMS: &str = "nfp_flow.c, mask_support";
const LIST: &str = "features/nfp.ini";

pub(in crate::lower) const fn nfp() -> NicProfile {
    NicProfile::new(
        "nfp",
        Matches {
            eth_dst: fact(true, ITEMS),
            untagged: fact(true, ITEMS),
            vlan_tags: fact(1, ITEMS),
            vlan_priority: fact(true, ITEMS),
            ipv6: fact(Ipv6Match::FiveTuple, ITEMS),
            tos: fact(true, ITEMS),
            ttl: fact(true, ITEMS),
            no_options: fact(false, "nfp_flow.c: version_ihl is not in mask_support"),
            whole: fact(true, ITEMS),
            length: fact(false, ITEMS),
            tcp_flags: fact(0x2f, "nfp_flow.c, nfp_flow_merge_tcp: FIN, SYN, RST, PSH, URG and not ACK"),
            sctp: fact(true, ITEMS),
            header_check: fact(HeaderCheck::Unknown, "not published"),
            mpls: fact(false, LIST),
            mpls_bottom: fact(false, LIST),
            mpls_ttl: fact(false, LIST),
            udp_no_checksum: fact(false, ITEMS),
            meta: fact(false, "features/nfp.ini lists no META item"),
        },
        Does {
            jump: fact(false, "features/nfp.ini lists it; the driver knows one group"),
            port_to_port: fact(true, LIST),
            set_macs: fact(true, LIST),
            ttl: fact(TtlRewrite::Set, "features/nfp.ini: set_ttl, no dec_ttl"),
            vlan_tags: fact(1, LIST),
            set_vlan: fact(false, "nfp_flow.c: OF_SET_VLAN_* only behind OF_PUSH_VLAN"),
            raw_encap: fact(false, "nfp_flow.c: RAW_ENCAP of VXLAN, GENEVE and NVGRE only"),
            raw_decap: fact(false, "nfp_flow.c: RAW_DECAP of VXLAN, GENEVE and NVGRE only"),
            drop: fact(true, LIST),
            mark: fact(
                0x00ff_ffff,
                "offload: in later releases; 22.11 lists none and refuses it when it is asked at start",
            ),
            queue: fact(true, "offload: in later releases; 22.11 lists none and refuses it when it is asked at start"),
            count: fact(true, LIST),
            age: fact(false, "offload: counters only"),
            rewrite: fact(FieldRewrite::Set, LIST),
            security: fact(false, "nfp_ipsec.c: by the metadata of mbufs, not by flow rules"),
        },
        Limits {
            rules: fact(None, "the firmware's symbol CONFIG_FC_HOST_CTX_COUNT"),
            counters: fact(None, "one for each rule"),
            counter_refresh_ms: fact(1000, "the firmware sends statistics; one second is assumed"),
            api: fact(Api::Sync, LIST),
            keeps_rules: fact(false, "nfp sets no RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP"),
        },
        fact(&[Ipsec::InlineCrypto, Ipsec::InlineProtocol], "offload: 16,384 SAs"),
    )
}
