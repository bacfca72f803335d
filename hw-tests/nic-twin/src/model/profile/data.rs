//! The profiles' data. "Features" is the table of the NIC's guide in DPDK 22.11 (doc/guides/nics/features); where a later release is
//! meant, it is named. Where no figure is published the table is small, so that running full is met early.

use std::time::Duration;

use super::super::action::ActionKind as A;
use super::super::error::{ENOMEM, ENOSPC};
use super::super::item::ItemKind as I;
use super::super::security::SessionKind;
use super::Profile;
use super::masks as m;
use super::mlx5::Engine;
use super::secure::Secures;

const ALL_ITEMS: &[(I, &[u8])] = &[
    (I::Any, m::ALL),
    (I::Eth, m::ALL),
    (I::Vlan, m::ALL),
    (I::Ipv4, m::ALL),
    (I::Ipv6, m::ALL),
    (I::Ipv6FragExt, m::ALL),
    (I::Udp, m::ALL),
    (I::Tcp, m::ALL),
    (I::Sctp, m::ALL),
    (I::Icmp, m::ALL),
    (I::Icmp6, m::ALL),
    (I::Mpls, m::ALL),
    (I::Esp, m::ALL),
    (I::Mark, m::ALL),
    (I::Meta, m::ALL),
    (I::Tag, m::ALL),
    (I::Integrity, m::ALL),
    (I::PortId, m::ALL),
    (I::RepresentedPort, m::ALL),
    (I::PortRepresentor, m::ALL),
];

const ALL_ACTIONS: &[A] = &[
    A::PassThru,
    A::Jump,
    A::Mark,
    A::Flag,
    A::Queue,
    A::Rss,
    A::Drop,
    A::Count,
    A::Age,
    A::RawDecap,
    A::RawEncap,
    A::PopVlan,
    A::PushVlan,
    A::SetVlanVid,
    A::SetVlanPcp,
    A::SetMacSrc,
    A::SetMacDst,
    A::SetIpv4Src,
    A::SetIpv4Dst,
    A::SetIpv6Src,
    A::SetIpv6Dst,
    A::SetIpv4Dscp,
    A::SetIpv6Dscp,
    A::SetTpSrc,
    A::SetTpDst,
    A::SetTtl,
    A::DecTtl,
    A::SetMeta,
    A::SetTag,
    A::ModifyField,
    A::PortId,
    A::RepresentedPort,
    A::PortRepresentor,
    A::Security,
    A::Indirect,
];

/// All that the model knows, the limits of memory alone.
const TWIN: Profile = Profile {
    name: "twin",
    sync: true,
    templates: true,
    max_group: 0xffff,
    max_priority: 0xffff,
    transfer: true,
    egress: true,
    max_rules: 8 << 20,
    max_counters: 8 << 20,
    refresh: Duration::ZERO,
    full_errno: ENOSPC,
    ranges: true,
    refuses_duplicates: false,
    stray_bits_miss: false,
    mark_bits: 32,
    sessions: &[SessionKind::InlineCrypto, SessionKind::InlineProtocol],
    max_sessions: 1 << 20,
    esn: true,
    max_window: 4096,
    max_key: 32,
    secures: Secures::Anything,
    rules_go_with_sessions: false,
    mark_last: false,
    items: ALL_ITEMS,
    actions: ALL_ACTIONS,
    not_transfer: &[],
    not_ingress: &[],
    not_root: &[],
    engine: None,
    drop_alone: false,
    modify_sub: true,
    modify_inner: true,
    pop_needs_item: true,
};

/// Items of mlx5's older steering: `nic_mask` constants of mlx5_flow.c and mlx5_flow_dv.c (22.11). MPLS is matched by label alone, UDP by
/// ports alone, one VLAN layer.
const MLX5_SWS_ITEMS: &[(I, &[u8])] = &[
    (I::Eth, m::ETH_TAGGED),
    (I::Vlan, m::VLAN_MORE),
    (I::Ipv4, m::IPV4_MLX5),
    (I::Ipv6, m::IPV6_MLX5),
    (I::Ipv6FragExt, m::ALL),
    (I::Udp, m::PORTS),
    (I::Tcp, m::TCP_FLAGS),
    (I::Icmp, m::ICMP_ECHO),
    (I::Icmp6, m::ICMP),
    (I::Mpls, m::LABEL),
    (I::Esp, m::SPI),
    (I::Mark, m::ALL),
    (I::Meta, m::ALL),
    (I::Tag, m::ALL),
    (I::Integrity, m::INTEGRITY_MLX5),
    (I::PortId, m::ALL),
    (I::RepresentedPort, m::ALL),
    (I::PortRepresentor, m::ALL),
];

/// Items of mlx5's hardware steering: hws/mlx5dr_definer.c (22.11; MPLS since 23.03): of IPv4 no length, id and checksum, of UDP neither
/// length nor checksum; the whole label stack entry.
const MLX5_HWS_ITEMS: &[(I, &[u8])] = &[
    (I::Eth, m::ETH_TAGGED),
    (I::Vlan, m::VLAN_MORE),
    (I::Ipv4, m::IPV4_MLX5),
    (I::Ipv6, m::IPV6_MLX5),
    (I::Udp, m::PORTS),
    (I::Tcp, m::TCP_FLAGS),
    (I::Icmp, m::ICMP_ECHO),
    (I::Icmp6, m::ICMP),
    (I::Mpls, m::ALL),
    (I::Meta, m::ALL),
    (I::Tag, m::ALL),
    (I::Integrity, m::INTEGRITY_MLX5),
    (I::RepresentedPort, m::ALL),
];

/// Features; the eSwitch refuses MARK, FLAG, QUEUE and RSS (flow_dv_validate), and sub (flow_dv_validate_action_modify_field).
const MLX5_SWS: Profile = Profile {
    name: "mlx5-sws",
    templates: false,
    max_group: 0xffff,
    // MLX5_NON_ROOT_FLOW_MAX_PRIO (mlx5_flow.h): 0 to 21843 outside group 0.
    max_priority: 21843,
    // Published: about 4 M live rules on ConnectX-6.
    max_rules: 4 << 20,
    max_counters: 4 << 20,
    refresh: Duration::from_millis(500),
    full_errno: ENOMEM,
    ranges: false,
    mark_bits: 24,
    items: MLX5_SWS_ITEMS,
    actions: &[
        A::Jump,
        A::Mark,
        A::Flag,
        A::Queue,
        A::Rss,
        A::Drop,
        A::Count,
        A::Age,
        A::RawDecap,
        A::RawEncap,
        A::PopVlan,
        A::PushVlan,
        A::SetVlanVid,
        A::SetVlanPcp,
        A::SetMacSrc,
        A::SetMacDst,
        A::SetIpv4Src,
        A::SetIpv4Dst,
        A::SetIpv6Src,
        A::SetIpv6Dst,
        A::SetIpv4Dscp,
        A::SetIpv6Dscp,
        A::SetTpSrc,
        A::SetTpDst,
        A::SetTtl,
        A::DecTtl,
        A::SetMeta,
        A::SetTag,
        A::ModifyField,
        A::PortId,
        A::RepresentedPort,
        A::Indirect,
    ],
    not_transfer: &[A::Mark, A::Flag, A::Queue, A::Rss],
    not_ingress: &[A::PushVlan],
    not_root: &[A::ModifyField],
    drop_alone: true,
    modify_sub: false,
    modify_inner: false,
    sessions: &[],
    engine: Some(Engine::Software),
    ..TWIN
};

/// Hardware steering: templates only (synchronous calls are from 24.07 on), MODIFY_FIELD in place of SET_* and DEC_TTL, COUNT and AGE
/// not in group 0, no PORT_ID (mlx5_flow_hw.c), and spec bits outside the mask break hits.
const MLX5_HWS: Profile = Profile {
    name: "mlx5-hws",
    sync: false,
    templates: true,
    stray_bits_miss: true,
    items: MLX5_HWS_ITEMS,
    actions: &[
        A::Jump,
        A::Mark,
        A::Flag,
        A::Queue,
        A::Rss,
        A::Drop,
        A::Count,
        A::Age,
        A::RawDecap,
        A::RawEncap,
        A::PopVlan,
        A::PushVlan,
        A::SetVlanVid,
        A::SetVlanPcp,
        A::ModifyField,
        A::RepresentedPort,
        A::Indirect,
    ],
    not_ingress: &[],
    not_root: &[A::ModifyField, A::Count, A::Age, A::Indirect],
    engine: Some(Engine::Hardware),
    sessions: &[],
    ..MLX5_SWS
};

/// Features of 22.11, with NAT of IPv6 from 24.11 on. No MPLS, no raw headers.
const BNXT: Profile = Profile {
    name: "bnxt",
    templates: false,
    max_group: 1,
    max_priority: 0xffff,
    // No figure published.
    max_rules: 32768,
    max_counters: 8192,
    // ULP_FC_TIMER (tf_ulp/ulp_fc_mgr.h).
    refresh: Duration::from_secs(1),
    ranges: false,
    refuses_duplicates: true,
    mark_bits: 32,
    items: &[
        (I::Any, m::ALL),
        (I::Eth, m::ETH),
        (I::Vlan, m::VLAN),
        (I::Ipv4, m::IPV4_PLAIN),
        (I::Ipv6, m::IPV6_PLAIN),
        (I::Icmp, m::ICMP),
        (I::Icmp6, m::ICMP),
        (I::Tcp, m::TCP_FLAGS),
        (I::Udp, m::PORTS),
        (I::PortId, m::ALL),
        (I::PortRepresentor, m::ALL),
        (I::RepresentedPort, m::ALL),
    ],
    actions: &[
        A::Count,
        A::DecTtl,
        A::Drop,
        A::Jump,
        A::Mark,
        A::PopVlan,
        A::PushVlan,
        A::SetVlanVid,
        A::SetVlanPcp,
        A::PortId,
        A::PortRepresentor,
        A::RepresentedPort,
        A::Rss,
        A::Queue,
        A::SetIpv4Src,
        A::SetIpv4Dst,
        A::SetIpv6Src,
        A::SetIpv6Dst,
        A::SetTpSrc,
        A::SetTpDst,
        A::SetMacSrc,
        A::SetMacDst,
    ],
    sessions: &[],
    ..TWIN
};

/// Features of 22.11; NAT of IPv4 from 24.11 on.
const SFC: Profile = Profile {
    name: "sfc",
    templates: false,
    // JUMP is for tunnel offload only ("P" in features).
    max_group: 0,
    max_priority: 1,
    // No figure published.
    max_rules: 16384,
    max_counters: 8192,
    // Assumed.
    refresh: Duration::from_secs(1),
    ranges: false,
    refuses_duplicates: true,
    items: &[
        (I::Eth, m::ETH_TAGGED),
        (I::Vlan, m::VLAN_MORE),
        (I::Ipv4, m::IPV4_PLAIN),
        (I::Ipv6, m::IPV6_PLAIN),
        (I::Mark, m::ALL),
        (I::Tcp, m::TCP_FLAGS),
        (I::Udp, m::PORTS),
        (I::PortId, m::ALL),
        (I::PortRepresentor, m::ALL),
        (I::RepresentedPort, m::ALL),
    ],
    actions: &[
        A::Count,
        A::DecTtl,
        A::Drop,
        A::Flag,
        A::Mark,
        A::PopVlan,
        A::PushVlan,
        A::SetVlanVid,
        A::SetVlanPcp,
        A::PortId,
        A::PortRepresentor,
        A::RepresentedPort,
        A::Queue,
        A::Rss,
        A::SetMacSrc,
        A::SetMacDst,
        A::SetIpv4Src,
        A::SetIpv4Dst,
        A::SetTpSrc,
        A::SetTpDst,
        A::Indirect,
    ],
    not_transfer: &[A::Queue, A::Rss],
    sessions: &[],
    ..TWIN
};

/// Features of 22.11: SET_TTL and no DEC_TTL. Its raw headers are VXLAN, GENEVE and NVGRE only: none of this model's.
const NFP: Profile = Profile {
    name: "nfp",
    templates: false,
    max_group: 0,
    max_priority: 0,
    // No figure published.
    max_rules: 65536,
    max_counters: 65536,
    // Assumed.
    refresh: Duration::from_secs(1),
    ranges: false,
    refuses_duplicates: true,
    mark_bits: 32,
    items: &[
        (I::Eth, m::ETH_TAGGED),
        (I::Vlan, m::VLAN_MORE),
        (I::Ipv4, m::IPV4_PLAIN),
        (I::Ipv6, m::IPV6_PLAIN),
        (I::Tcp, m::TCP_FLAGS),
        (I::Udp, m::PORTS),
        (I::Sctp, m::PORTS),
        (I::PortId, m::ALL),
    ],
    actions: &[
        A::Count,
        A::Drop,
        A::PopVlan,
        A::PushVlan,
        A::SetVlanVid,
        A::SetVlanPcp,
        A::PortId,
        A::SetIpv4Src,
        A::SetIpv4Dst,
        A::SetIpv6Src,
        A::SetIpv6Dst,
        A::SetIpv4Dscp,
        A::SetIpv6Dscp,
        A::SetMacSrc,
        A::SetMacDst,
        A::SetTpSrc,
        A::SetTpDst,
        A::SetTtl,
        A::Mark,
        A::Queue,
    ],
    // Its driver ciphers by the metadata of mbufs, without rules (nfp_ipsec.c), and matches no ESP: no session that a rule could use.
    sessions: &[],
    ..TWIN
};

/// Features of 22.11: matches MPLS, changes VLAN tags only.
const CNXK: Profile = Profile {
    name: "cnxk",
    templates: false,
    max_group: 0,
    max_priority: 7,
    transfer: false,
    // The MCAM's size is the chip's: no figure published.
    max_rules: 4096,
    max_counters: 4096,
    ranges: false,
    mark_bits: 16,
    items: &[
        (I::Any, m::ALL),
        (I::Eth, m::ETH),
        (I::Vlan, m::VLAN),
        (I::Ipv4, m::IPV4_PLAIN),
        (I::Ipv6, m::IPV6_PLAIN),
        (I::Ipv6FragExt, m::ALL),
        (I::Icmp, m::ICMP),
        (I::Esp, m::SPI),
        (I::Mark, m::ALL),
        (I::Mpls, m::ALL),
        (I::Sctp, m::PORTS),
        (I::Tcp, m::TCP_FLAGS),
        (I::Udp, m::PORTS),
    ],
    actions: &[
        A::Count,
        A::Age,
        A::Drop,
        A::Flag,
        A::Mark,
        A::PopVlan,
        A::PushVlan,
        A::SetVlanVid,
        A::SetVlanPcp,
        A::PortId,
        A::Queue,
        A::Rss,
        A::Security,
    ],
    sessions: &[SessionKind::InlineProtocol],
    secures: Secures::OneFate,
    // Outbound; inbound by the range of indices that the port is set to.
    max_sessions: 4096,
    ..TWIN
};

/// E810, features of 22.11: steer, drop, mark. 16,384 flow director rules.
const ICE: Profile = Profile {
    name: "ice",
    templates: false,
    max_group: 0,
    max_priority: 0,
    transfer: false,
    egress: false,
    max_rules: 16384,
    max_counters: 4096,
    full_errno: ENOMEM,
    ranges: false,
    refuses_duplicates: true,
    mark_bits: 32,
    items: &[
        (I::Eth, m::ETH),
        (I::Vlan, m::VLAN),
        (I::Ipv4, m::IPV4_PLAIN),
        (I::Ipv6, m::IPV6_PLAIN),
        (I::Ipv6FragExt, m::ALL),
        (I::Tcp, m::PORTS),
        (I::Udp, m::PORTS),
        (I::Sctp, m::PORTS),
        (I::Esp, m::SPI),
    ],
    actions: &[A::Count, A::Drop, A::Mark, A::PassThru, A::Queue, A::Rss],
    sessions: &[],
    ..TWIN
};

/// Virtual functions of E810: Flow Director without MAC, and no COUNT (iavf_fdir.c); inline crypto.
const IAVF: Profile = Profile {
    name: "iavf",
    max_counters: 0,
    actions: &[A::Drop, A::Mark, A::PassThru, A::Queue, A::Rss, A::Security],
    sessions: &[SessionKind::InlineCrypto],
    secures: Secures::AloneInPattern,
    // No figure published: the firmware tells the driver. Small, so that running full is met early.
    max_sessions: 1024,
    esn: false,
    ..ICE
};

/// 82599, features of 22.11: no counters, no ageing.
const IXGBE: Profile = Profile {
    name: "ixgbe",
    templates: false,
    max_group: 0,
    max_priority: 0,
    transfer: false,
    egress: true,
    // Flow director, perfect match: up to 8 K less two; what the port is set to may be less.
    max_rules: 8190,
    max_counters: 0,
    ranges: false,
    refuses_duplicates: true,
    mark_bits: 16,
    items: &[
        (I::Eth, m::ETH),
        (I::Vlan, m::VLAN),
        (I::Ipv4, m::IPV4_TUPLE),
        (I::Ipv6, m::IPV6_TUPLE),
        (I::Tcp, m::PORTS),
        (I::Udp, m::PORTS),
        (I::Sctp, m::PORTS),
        (I::Esp, m::SPI),
    ],
    actions: &[A::Drop, A::Mark, A::Queue, A::Rss, A::Security],
    sessions: &[SessionKind::InlineCrypto],
    secures: Secures::Alone,
    // ixgbe_flow.c:3432 of 22.11.
    rules_go_with_sessions: true,
    // ixgbe_flow.c:1429 and 1455.
    mark_last: true,
    max_sessions: 1024,
    esn: false,
    max_key: 16,
    ..TWIN
};

/// WangXun's 10 GbE descends from it; no MARK (txgbe_flow.c:1404).
const TXGBE: Profile =
    Profile { name: "txgbe", actions: &[A::Drop, A::Queue, A::Rss, A::Security], mark_last: false, ..IXGBE };

pub(super) const ALL_PROFILES: &[Profile] = &[TWIN, MLX5_HWS, MLX5_SWS, BNXT, SFC, NFP, CNXK, ICE, IAVF, IXGBE, TXGBE];
