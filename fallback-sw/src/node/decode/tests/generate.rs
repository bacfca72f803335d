//! Legal states, for round trips.

use super::*;

fn id<T: std::fmt::Debug>(max: u32, new: impl Fn(u32) -> Result<T, IdError>) -> impl Strategy<Value = T> {
    (1..=max).prop_map(move |number| new(number).unwrap())
}

pub(super) fn vif_id() -> impl Strategy<Value = VifId> {
    id(65535, VifId::new)
}

pub(super) fn vrf_id() -> impl Strategy<Value = VrfId> {
    id(65535, VrfId::new)
}

pub(super) fn nexthop_id() -> impl Strategy<Value = NexthopId> {
    id(0x00ff_ffff, NexthopId::new)
}

pub(super) fn acl_ids() -> impl Strategy<Value = Vec<AclId>> {
    vec(id(u32::MAX, AclId::new), 0..3)
}

pub(super) fn any_label() -> impl Strategy<Value = Label> {
    (16..=0x000f_ffff_u32).prop_map(|number| Label::new(number).unwrap())
}

fn unicast_v4() -> impl Strategy<Value = Ipv4Addr> {
    (0x0100_0000..0xe000_0000_u32).prop_map(Ipv4Addr::from)
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        unicast_v4().prop_map(IpAddr::V4),
        (1..0xff00_u128 << 112).prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
    ]
}

fn interface_address() -> impl Strategy<Value = IpNet> {
    (address(), 0..=128_u8).prop_map(|(address, length)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(max)).unwrap()
    })
}

pub(super) fn prefix() -> impl Strategy<Value = IpNet> {
    interface_address().prop_map(|net| net.trunc())
}

fn any_mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|mut octets| {
        octets[0] &= 0xfe;
        MacAddr(octets)
    })
}

fn any_tag() -> impl Strategy<Value = VlanTag> {
    (prop_oneof![Just(0x8100), Just(0x88a8)], 1..=4094_u16).prop_map(|(tpid, vid)| VlanTag { tpid, vid })
}

fn any_port() -> impl Strategy<Value = PortConfig> {
    let driver =
        prop_oneof![Just(IoDriver::Auto), Just(IoDriver::AfXdp), Just(IoDriver::AfPacket), Just(IoDriver::Tap)];
    ("[a-z0-9.]{1,15}", driver).prop_map(|(device, driver)| PortConfig { device, driver })
}

fn any_vif() -> impl Strategy<Value = Vif> {
    let kind = prop_oneof![
        any_port().prop_map(|port| VifKind::Physical { port }),
        any_port().prop_map(|port| VifKind::Virtual { port }),
        any_port().prop_map(|port| VifKind::Host { port }),
        any_port().prop_map(|port| VifKind::Agent { port }),
        any_tunnel(),
        (vif_id(), any_tag(), option::of(any_tag())).prop_map(|(parent, outer, inner)| VifKind::PhysicalVlan {
            parent,
            outer,
            inner
        }),
    ];
    let flags = any::<[bool; 10]>().prop_map(|[a, b, c, d, e, f, g, h, i, j]| VifFlags {
        policy: a,
        proxy: b,
        ttl_unmodified: c,
        no_rpf: d,
        no_arp: e,
        no_fragment: f,
        drop_new_flows: g,
        multi_queue: h,
        raw_ip: i,
        syn_cookies: j,
        gro: false,
    });
    let names = (vif_id(), "[a-z0-9 -]{0,12}", kind, option::of(any_mac()), vrf_id());
    let numbers = (vec(interface_address(), 0..3), 576..=9216_u16, 0..=9216_u16, flags, option::of(nexthop_id()));
    let lists = (acl_ids(), acl_ids(), acl_ids(), vec(address(), 0..3), any::<u32>());
    (names, numbers, lists).prop_map(
        |(
            (id, name, kind, mac, vrf),
            (addresses, mtu, enc_mss, flags, nexthop),
            (ingress_acls, egress_acls, service_acls, nat_pool, vn),
        )| {
            // A virtual vif always has an address.
            let mac = if matches!(kind, VifKind::Virtual { .. }) { mac.or(Some(MacAddr::VIRTUAL)) } else { mac };
            Vif {
                id,
                name,
                kind,
                mac,
                vrf,
                addresses,
                mtu,
                enc_mss,
                flags,
                nexthop,
                ingress_acls,
                egress_acls,
                service_acls,
                nat_pool,
                vn,
            }
        },
    )
}

fn any_rewrite() -> impl Strategy<Value = L2Rewrite> {
    (any::<[u8; 22]>(), 0..=2_usize).prop_map(|(mut octets, tags)| {
        for tag in 0..tags {
            octets[12 + tag * 4] = 0x81;
            octets[13 + tag * 4] = 0x00;
        }
        L2Rewrite::new(&octets[..14 + tags * 4]).unwrap()
    })
}

fn any_listener() -> impl Strategy<Value = Listener> {
    (any::<u8>(), any::<u16>(), any::<u16>(), nexthop_id()).prop_map(|(proto, a, b, nexthop)| {
        let max = policy::max_port(proto.into());
        let (a, b) = (a.min(max), b.min(max));
        Listener { proto, first: a.min(b), last: a.max(b), nexthop }
    })
}

fn any_nexthop() -> impl Strategy<Value = Nexthop> {
    let dscp = vec(0..64_u8, 64).prop_map(|outer| DscpMap(outer.try_into().unwrap()));
    let udp_port = prop_oneof![Just(6635), Just(51234)];
    let tunnel = (unicast_v4(), unicast_v4(), option::of(nexthop_id()), udp_port, dscp)
        .prop_map(|(sip, dip, direct, udp_port, dscp)| Tunnel { sip, dip, direct, udp_port, dscp });
    let member = (nexthop_id(), 1..=u16::MAX, option::of(any_label())).prop_map(|(nexthop, weight, label)| Member {
        nexthop,
        weight,
        label,
    });
    let receive = (vec(any_listener(), 0..4), vec((any::<u8>(), nexthop_id()), 0..3), any::<bool>()).prop_map(
        |(listeners, defaults, terminate_mpls_o_udp)| Receive {
            listeners: ListenerTable { listeners, defaults },
            terminate_mpls_o_udp,
        },
    );
    let kind = prop_oneof![
        Just(NexthopKind::Drop),
        (vif_id(), option::of(any_rewrite())).prop_map(|(oif, rewrite)| NexthopKind::Encap { oif, rewrite }),
        tunnel.prop_map(NexthopKind::Tunnel),
        vec(option::of(member), 0..5).prop_map(|members| NexthopKind::Composite { members }),
        vrf_id().prop_map(|vrf| NexthopKind::VrfTranslate { vrf }),
        receive.prop_map(NexthopKind::Receive),
        (vif_id(), option::of(address())).prop_map(|(oif, gateway)| NexthopKind::Resolve { oif, gateway }),
    ];
    (nexthop_id(), option::of(vrf_id()), any::<bool>(), any::<bool>(), kind)
        .prop_map(|(id, vrf, policy, valid, kind)| Nexthop { id, vrf, policy, valid, kind })
}

fn any_route() -> impl Strategy<Value = Route> {
    let nexthop = prop_oneof![Just(NexthopId::NONE), nexthop_id()];
    let origin = (any::<[u32; 4]>(), vec("[0-9]{1,5}:[0-9]{1,5}", 0..4)).prop_map(
        |([site, network, vn, stats_uid], policy_labels)| RouteOrigin { site, network, vn, stats_uid, policy_labels },
    );
    let flags = any::<[bool; 5]>().prop_map(|[proxy_arp, trap_arp, flood_arp, proxy_arp_for_host, preferred_vrf]| {
        RouteFlags { proxy_arp, trap_arp, flood_arp, proxy_arp_for_host, preferred_vrf }
    });
    (vrf_id(), prefix(), nexthop, option::of(any_label()), flags, origin)
        .prop_map(|(vrf, prefix, nexthop, label, flags, origin)| Route { vrf, prefix, nexthop, label, flags, origin })
}

fn any_acl() -> impl Strategy<Value = Acl> {
    let action = || prop_oneof![Just(Action::Permit), Just(Action::Deny)];
    let scope = prop_oneof![Just(Scope::Stateful), Just(Scope::Stateless)];
    let range = || option::of((any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))));
    let ace = (
        (any::<u32>(), action(), scope, option::of(any::<u8>())),
        (option::of(prefix()), option::of(prefix()), range(), range()),
    )
        .prop_map(|((id, action, scope, proto), (source, destination, source_ports, destination_ports))| {
            let same = |net: &IpNet| source.is_none_or(|source| source.addr().is_ipv4() == net.addr().is_ipv4());
            let max = proto.map_or(u16::MAX, |proto| policy::max_port(proto.into()));
            Ace {
                id,
                action,
                scope,
                proto,
                source,
                destination: destination.filter(same),
                source_ports,
                destination_ports: destination_ports.map(|(first, last)| (first.min(max), last.min(max))),
            }
        });
    (id(u32::MAX, AclId::new), "[a-z ]{0,8}", vec(ace, 0..4), option::of(action()))
        .prop_map(|(id, name, entries, default)| Acl { id, name, entries, default })
}

pub(super) fn sa_id() -> impl Strategy<Value = SaId> {
    id(u32::MAX, SaId::new)
}

fn any_sa() -> impl Strategy<Value = Sa> {
    let lifetime = || any::<[u64; 3]>().prop_map(|[packets, bytes, seconds]| Lifetime { packets, bytes, seconds });
    (
        sa_id(),
        any::<u32>(),
        vec(any::<u8>(), 1..65),
        any::<bool>(),
        (1..4096_u32, lifetime(), lifetime()),
        option::of((1_u64.., any::<u32>())),
    )
        .prop_map(|(id, spi, key, esn, (window, soft, hard), outbound)| Sa {
            id,
            spi,
            direction: if outbound.is_some() { SaDirection::Outbound } else { SaDirection::Inbound },
            key: SaKey::new(key.into()),
            esn,
            window: if outbound.is_some() { 0 } else { window },
            soft,
            hard,
            first: outbound.map_or(1, |(first, _)| first),
            worker: outbound.map_or(0, |(_, worker)| worker),
        })
}

fn any_tunnel() -> impl Strategy<Value = VifKind> {
    let nat_t = (1_u16.., 1_u16.., 0..3600_u32).prop_map(|(source_port, destination_port, keepalive_secs)| NatT {
        source_port,
        destination_port,
        keepalive_secs,
    });
    let df = prop_oneof![Just(DfPolicy::Copy), Just(DfPolicy::Set), Just(DfPolicy::Clear)];
    let lists = (vec(sa_id(), 0..3), vec(sa_id(), 0..3));
    (any::<[u8; 2]>(), option::of(nat_t), lists, vrf_id(), df, option::of(0..64_u8)).prop_map(
        |([a, b], nat_t, (outbound, inbound), vrf, df, dscp)| {
            VifKind::Tunnel(Box::new(IpsecTunnel {
                source: [172, 28, a, 1].into(),
                destination: [103, 135, b, 2].into(),
                nat_t,
                outbound,
                inbound,
                vrf,
                df,
                dscp,
                ike: false,
            }))
        },
    )
}

fn any_settings() -> impl Strategy<Value = Settings> {
    (1..1000_u32, 1..=100_u32, any::<u32>(), 1..=120_u32, 1..u32::MAX).prop_map(|(a, percent, rate, secs, timeout)| {
        Settings {
            max_flows: a * 1000,
            new_flow_rate_per_vif: rate,
            half_open_percent_per_vif: percent,
            max_neighbours: a + 1,
            max_fragmented_datagrams: a + 2,
            fragment_timeout_secs: secs,
            max_held_per_neighbour: a + 3,
            max_held: a + 4,
            icmp_error_rate: timeout,
            timeouts: Timeouts {
                tcp_opening: timeout,
                tcp_established: a,
                tcp_closing: a + 5,
                tcp_closed: a + 6,
                udp: a + 7,
                icmp: a + 8,
                other: a + 9,
            },
        }
    })
}

pub(super) fn any_state() -> impl Strategy<Value = State> {
    let label = (any_label(), nexthop_id()).prop_map(|(label, nexthop)| MplsLabel { label, nexthop });
    let vrf = (vrf_id(), "[a-z]{0,8}").prop_map(|(id, name)| Vrf { id, name });
    (
        (any::<u64>(), "[a-z0-9-]{0,8}", any_settings(), vec(any_vif(), 0..3), vec(vrf, 0..3)),
        (vec(any_nexthop(), 0..4), vec(any_route(), 0..4), vec(label, 0..3), vec(any_acl(), 0..3), vec(any_sa(), 0..3)),
    )
        .prop_map(|((generation, node, settings, vifs, vrfs), (nexthops, routes, labels, acls, sas))| State {
            generation,
            node,
            settings,
            vifs,
            vrfs,
            nexthops,
            routes,
            labels,
            acls,
            sas,
        })
}
