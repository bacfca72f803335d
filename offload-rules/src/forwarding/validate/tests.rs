//! One test for each rule, by the object and the field that the error names.

use crate::{
    NexthopId, VifId,
    forwarding::{
        Action, Delta, IpsecTunnel, Member, NexthopKind, Sa, SaDirection, SaKey, Snapshot, State, StateErrors, VifKind,
        VlanTag,
        testing::{
            ace, acl, acl_id, base, composite, encap, ipsec, label, listener, member, mpls, nexthop, nh, physical,
            receive, route, sa, sa_id, sa_key, tag, tunnel, vif, vif_id, vlan, vrf, vrf_id,
        },
    },
};

fn errors(change: impl FnOnce(&mut State)) -> StateErrors {
    let mut state = base();
    change(&mut state);
    Snapshot::empty().with_state(state).unwrap_err()
}

/// `name: change => object, field;`: the change makes just this one error.
macro_rules! refused {
    ($($name:ident: $change:expr => $object:expr, $field:expr;)*) => {$(
        #[test]
        fn $name() {
            let errors = errors($change);
            let places: Vec<_> = errors.0.iter().map(|e| (e.object.as_str(), e.field.as_str())).collect();
            assert_eq!(places, [($object, $field)], "{errors}");
        }
    )*};
}

/// `name: change;`: nothing is wrong with it.
macro_rules! accepted {
    ($($name:ident: $change:expr;)*) => {$(
        #[test]
        fn $name() {
            let mut state = base();
            let change: fn(&mut State) = $change;
            change(&mut state);
            let outcome = Snapshot::empty().with_state(state);
            assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
        }
    )*};
}

fn nexthop_mut(state: &mut State, id: u32) -> &mut NexthopKind {
    &mut state.nexthops.iter_mut().find(|n| n.id.get() == id).unwrap().kind
}

const PLAIN: &str = "0200000000010200000000020800";
/// VLAN 300.
const TAGGED: &str = "0200000000010200000000028100012c0800";
/// VLAN 301.
const OTHER_TAG: &str = "0200000000010200000000028100012d0800";

/// With a tunnel vif 9 that sends with SA 1 and receives with SAs 2 and 3.
fn with_ipsec(state: &mut State) {
    state.vifs.push(vif(9, ipsec(&[1], &[2, 3], 8), 8, &[]));
    state.sas.push(sa(1, SaDirection::Outbound));
    state.sas.extend([2, 3].map(|id| sa(id, SaDirection::Inbound)));
}

fn ipsec_mut(state: &mut State) -> &mut IpsecTunnel {
    match &mut state.vifs.last_mut().unwrap().kind {
        VifKind::Tunnel(tunnel) => tunnel,
        other => panic!("{other:?}"),
    }
}

/// With a nexthop 1 that hands packets to a gateway.
fn with_gateway(state: &mut State, oif: u32, gateway: &str) {
    let kind = NexthopKind::Resolve { oif: vif_id(oif), gateway: Some(gateway.parse().unwrap()) };
    state.nexthops.push(nexthop(1, kind));
}

accepted! {
    a_gateway_in_a_subnet_of_the_vif: |s| {
        with_gateway(s, 3, "192.168.100.254");
        s.routes.push(route(18, "203.0.113.0/24", 1, None));
    };
    a_gateway_of_ipv6_takes_both_families: |s| {
        with_gateway(s, 3, "fd00:100::fe");
        s.routes.extend([route(18, "203.0.113.0/24", 1, None), route(18, "::/0", 1, None)]);
    };
    a_link_local_gateway_on_a_vif_without_addresses: |s| with_gateway(s, 2, "fe80::fe");
    both_ends_of_a_point_to_point_subnet_may_be_gateways: |s| {
        s.vifs[1].addresses = vec!["198.51.100.1/31".parse().unwrap()];
        with_gateway(s, 2, "198.51.100.0");
    };
    an_ipv4_link_local_gateway_in_a_subnet_of_the_vif: |s| {
        s.vifs[1].addresses = vec!["169.254.7.1/30".parse().unwrap()];
        with_gateway(s, 2, "169.254.7.2");
    };
    a_label_may_lead_to_a_gateway: |s| { with_gateway(s, 3, "192.168.100.254"); s.labels.push(mpls(290, 1)) };
    a_tunnel_may_hand_its_packets_to_a_gateway: |s| {
        with_gateway(s, 1, "10.101.10.1");
        *nexthop_mut(s, 532) = composite(&[1, 86]);
    };
    a_tunnel_with_an_old_and_a_new_inbound_sa: with_ipsec;
    a_tunnel_without_sas_is_down: |s| s.vifs.push(vif(9, ipsec(&[], &[], 8), 8, &[]));
    an_encap_on_a_tunnel_needs_no_header: |s| { with_ipsec(s); s.nexthops.push(nexthop(1, encap(9, ""))) };
    an_encap_on_a_tunnel_may_have_the_dummy_header_of_vrouter: |s| { with_ipsec(s); s.nexthops.push(nexthop(1, encap(9, PLAIN))) };
    an_sa_that_nobody_uses_yet: |s| s.sas.push(sa(1, SaDirection::Inbound));
    outbound_sas_of_two_tunnels_may_have_one_spi: |s| {
        with_ipsec(s);
        s.sas.push(Sa { spi: s.sas[0].spi, ..sa(4, SaDirection::Outbound) });
    };
    the_base_of_these_tests_is_consistent: |_| {};
    a_route_without_nexthop_drops: |s| s.routes.push(route(8, "203.0.113.0/24", 0, None));
    a_label_on_a_route_to_an_encap_is_ignored: |s| s.routes.push(route(8, "203.0.113.0/24", 85, Some(300)));
    a_composite_without_live_members_drops: |s| s.nexthops.push(nexthop(1, NexthopKind::Composite { members: vec![None] }));
    a_composite_has_as_many_slots_as_a_flow_can_keep: |s| {
        s.nexthops.push(nexthop(1, NexthopKind::Composite { members: vec![None; 255] }));
    };
    every_member_with_its_own_label_needs_none_on_the_route: |s| {
        let members = vec![Some(Member { nexthop: nh(489), weight: 1, label: Some(label(77)) }), None];
        s.nexthops.push(nexthop(1, NexthopKind::Composite { members }));
        s.routes.push(route(18, "203.0.113.0/24", 1, None));
    };
    tags_of_the_sub_interface_may_be_written_out: |s| s.nexthops.push(nexthop(1, encap(3, TAGGED)));
    tags_may_be_left_out_on_a_sub_interface: |s| s.nexthops.push(nexthop(1, encap(3, PLAIN)));
    tags_of_no_sub_interface_may_leave_on_the_port: |s| s.nexthops.push(nexthop(1, encap(2, OTHER_TAG)));
    a_raw_ip_vif_takes_packets_without_a_header: |s| {
        s.vifs[3].flags.raw_ip = true;
        *nexthop_mut(s, 10) = encap(4, "");
    };
    one_vif_may_have_several_addresses_in_one_subnet: |s| s.vifs[0].addresses.push("10.101.10.40/24".parse().unwrap());
    two_vrfs_may_use_the_same_subnet: |s| {
        s.vifs.push(vif(9, physical("eth9"), 18, &["10.101.10.39/24"]));
    };
    link_local_subnets_may_be_on_every_vif: |s| s.vifs.push(vif(9, physical("eth9"), 18, &["fe80::2/64"]));
    both_addresses_of_a_point_to_point_subnet_are_hosts: |s| {
        s.vifs.push(vif(9, physical("eth9"), 18, &["198.51.100.0/31", "2001:db8::/127"]));
    };
    an_exact_listener_may_lie_within_a_range: |s| {
        let listeners = vec![listener(6, 1, 1000, 10), listener(6, 179, 179, 10), listener(17, 1, 1000, 10)];
        *nexthop_mut(s, 100) = receive(true, listeners, &[(6, 10), (17, 10)]);
    };
    a_tunnel_without_direct_nexthop_is_routed_in_its_vrf: |s| {
        *nexthop_mut(s, 489) = tunnel("10.101.10.39", "10.101.9.245", None);
        s.nexthops.iter_mut().find(|n| n.id == nh(489)).unwrap().vrf = Some(vrf_id(8));
    };
    a_composite_of_tunnels_over_a_composite_is_two_levels: |s| {
        s.nexthops.push(nexthop(1, composite(&[489])));
        s.routes.push(route(18, "203.0.113.0/24", 1, Some(16)));
    };
    one_tag_and_the_same_with_an_inner_one_are_different: |s| {
        let kind = VifKind::PhysicalVlan { parent: vif_id(2), outer: tag(300), inner: Some(tag(5)) };
        s.vifs.push(vif(9, kind, 18, &[]));
    };
}

refused! {
    a_reserved_spi: |s| { with_ipsec(s); s.sas[0].spi = 255 } => "sa 1", "spi";
    two_inbound_sas_with_one_spi: |s| { with_ipsec(s); s.sas[2].spi = s.sas[1].spi } => "sa 3", "spi";
    two_sas_with_one_key: |s| { with_ipsec(s); s.sas[1].key = sa_key(1) } => "sa 2", "key";
    a_key_without_salt: |s| { with_ipsec(s); s.sas[0].key = SaKey::new([7; 16].into()) } => "sa 1", "key";
    a_window_that_is_no_multiple_of_32: |s| { with_ipsec(s); s.sas[1].window = 100 } => "sa 2", "replay_window";
    a_window_beyond_4096: |s| { with_ipsec(s); s.sas[1].window = 4128 } => "sa 2", "replay_window";
    a_first_number_beyond_32_bits_without_esn: |s| { with_ipsec(s); s.sas[0] = Sa { esn: false, first: 1 << 32, ..s.sas[0].clone() } }
        => "sa 1", "first_sequence";
    a_soft_lifetime_behind_the_hard_one: |s| {
        with_ipsec(s);
        s.sas[0].soft.bytes = 11;
        s.sas[0].hard.bytes = 10;
    } => "sa 1", "soft.bytes";
    a_tunnel_with_an_sa_that_does_not_exist: |s| { with_ipsec(s); ipsec_mut(s).outbound.push(sa_id(7)) }
        => "vif 9", "tunnel.outbound_sas[1]";
    a_tunnel_with_an_sa_of_the_wrong_direction: |s| { with_ipsec(s); *ipsec_mut(s) = IpsecTunnel { outbound: vec![sa_id(2)], inbound: vec![sa_id(3)], ..ipsec_mut(s).clone() } }
        => "vif 9", "tunnel.outbound_sas[0]";
    an_sa_that_is_used_twice: |s| { with_ipsec(s); ipsec_mut(s).inbound.push(sa_id(2)) } => "vif 9", "tunnel.inbound_sas[2]";
    a_tunnel_to_itself: |s| { with_ipsec(s); ipsec_mut(s).destination = ipsec_mut(s).source } => "vif 9", "tunnel.destination";
    a_tunnel_whose_underlay_does_not_exist: |s| { with_ipsec(s); ipsec_mut(s).vrf = vrf_id(99) } => "vif 9", "tunnel.vrf";
    a_tunnel_with_a_dscp_beyond_6_bits: |s| { with_ipsec(s); ipsec_mut(s).dscp = Some(64) } => "vif 9", "tunnel.dscp";
    a_resolve_on_a_tunnel: |s| {
        with_ipsec(s);
        s.vifs.last_mut().unwrap().addresses.push("10.9.9.1/24".parse().unwrap());
        s.nexthops.push(nexthop(1, NexthopKind::Resolve { oif: vif_id(9), gateway: None }));
    } => "nexthop 1", "oif";
    two_vifs_with_one_id_are_refused: |s| s.vifs.push(vif(1, physical("eth9"), 8, &[])) => "vif 1", "id";
    two_vrfs_with_one_id_are_refused: |s| s.vrfs.push(vrf(18)) => "vrf 18", "id";
    two_nexthops_with_one_id_are_refused: |s| s.nexthops.push(nexthop(85, NexthopKind::Drop)) => "nexthop 85", "id";
    two_labels_with_one_number_are_refused: |s| s.labels.push(mpls(279, 100)) => "label 279", "label";
    two_acls_with_one_id_are_refused: |s| s.acls.push(acl(5, vec![], None)) => "acl 5", "id";
    two_routes_with_one_prefix_are_refused:
        |s| s.routes.push(route(18, "192.168.1.0/24", 0, None)) => "route vrf 18 192.168.1.0/24", "prefix";
    vif_zero_is_refused: |s| { s.vifs.push(vif(9, physical("e"), 8, &[])); s.vifs[4].id = VifId::TUNNEL } => "vif 0", "id";
    nexthop_zero_is_refused:
        |s| { s.nexthops.push(nexthop(1, NexthopKind::Drop)); s.nexthops[8].id = NexthopId::NONE } => "nexthop 0", "id";
    a_reserved_label_is_refused: |s| s.labels[0].label = Default::default() => "label 0", "label";

    a_route_with_host_bits_is_refused:
        |s| s.routes.push(route(18, "10.1.1.1/8", 0, None)) => "route vrf 18 10.1.1.1/8", "prefix";
    a_route_in_no_vrf_is_refused: |s| s.routes.push(route(9, "10.0.0.0/8", 0, None)) => "route vrf 9 10.0.0.0/8", "vrf";
    a_route_to_no_nexthop_is_refused:
        |s| s.routes.push(route(8, "10.0.0.0/8", 7, None)) => "route vrf 8 10.0.0.0/8", "nexthop";
    a_route_with_a_reserved_label_is_refused:
        |s| s.routes[3].label = Some(Default::default()) => "route vrf 18 192.168.1.0/24", "label";
    a_route_to_a_tunnel_without_label_is_refused:
        |s| s.routes[3].label = None => "route vrf 18 192.168.1.0/24", "label";
    a_route_to_a_composite_with_a_tunnel_without_label_is_refused: |s| {
        s.nexthops.push(nexthop(1, composite(&[85, 489])));
        s.routes.push(route(18, "10.0.0.0/8", 1, None));
    } => "route vrf 18 10.0.0.0/8", "label";
    one_tunnel_member_without_its_own_label_makes_the_route_need_one: |s| {
        let members = vec![Some(Member { nexthop: nh(489), weight: 1, label: Some(label(77)) }), member(489)];
        s.nexthops.push(nexthop(1, NexthopKind::Composite { members }));
        s.routes.push(route(18, "10.0.0.0/8", 1, None));
    } => "route vrf 18 10.0.0.0/8", "label";
    a_label_to_no_nexthop_is_refused: |s| s.labels.push(mpls(16, 7)) => "label 16", "nexthop";
    a_label_to_a_tunnel_is_refused: |s| s.labels.push(mpls(16, 489)) => "label 16", "nexthop";
    a_label_to_a_composite_with_a_tunnel_is_refused: |s| {
        s.nexthops.push(nexthop(1, composite(&[489])));
        s.labels.push(mpls(16, 1));
    } => "label 16", "nexthop";
    a_label_to_a_resolve_is_refused: |s| s.labels.push(mpls(16, 577)) => "label 16", "nexthop";

    a_vif_in_no_vrf_is_refused: |s| s.vifs[1].vrf = vrf_id(9) => "vif 2", "vrf";
    a_vif_with_no_such_nexthop_is_refused: |s| s.vifs[1].nexthop = Some(nh(7)) => "vif 2", "nexthop";
    an_ingress_list_that_is_not_there_is_refused:
        |s| s.vifs[1].ingress_acls = vec![acl_id(5), acl_id(6)] => "vif 2", "ingress_acls[1]";
    an_egress_list_that_is_not_there_is_refused: |s| s.vifs[1].egress_acls = vec![acl_id(6)] => "vif 2", "egress_acls[0]";
    a_service_list_that_is_not_there_is_refused:
        |s| s.vifs[1].service_acls = vec![acl_id(6)] => "vif 2", "service_acls[0]";
    two_vifs_on_one_device_are_refused: |s| s.vifs[1].kind = physical("eth0") => "vif 2", "device";
    a_device_name_that_the_kernel_cannot_hold_is_refused:
        |s| s.vifs[1].kind = physical("a-name-of-sixteen") => "vif 2", "device";
    an_mtu_below_576_is_refused: |s| s.vifs[0].mtu = 575 => "vif 1", "mtu";
    an_mtu_above_9216_is_refused: |s| s.vifs[0].mtu = 9217 => "vif 1", "mtu";
    a_sub_interface_with_a_larger_mtu_than_its_parent_is_refused: |s| s.vifs[2].mtu = 1501 => "vif 3", "mtu";
    a_multicast_mac_is_refused: |s| s.vifs[0].mac = Some("01:00:5e:00:00:01".parse().unwrap()) => "vif 1", "mac";
    a_sub_interface_of_nothing_is_refused: |s| s.vifs.push(vif(9, vlan(7, 9), 18, &[])) => "vif 9", "parent";
    a_sub_interface_of_a_sub_interface_is_refused: |s| s.vifs.push(vif(9, vlan(3, 9), 18, &[])) => "vif 9", "parent";
    a_sub_interface_of_the_host_is_refused: |s| s.vifs.push(vif(9, vlan(4, 9), 18, &[])) => "vif 9", "parent";
    a_sub_interface_of_a_raw_ip_vif_is_refused: |s| {
        s.vifs[1].flags.raw_ip = true;
    } => "vif 3", "parent";
    two_sub_interfaces_with_the_same_tags_are_refused:
        |s| s.vifs.push(vif(9, vlan(2, 300), 18, &[])) => "vif 9", "outer_vlan";
    vlan_zero_is_refused: |s| s.vifs.push(vif(9, vlan(2, 0), 18, &[])) => "vif 9", "outer_vlan";
    vlan_4095_is_refused: |s| s.vifs.push(vif(9, vlan(2, 4095), 18, &[])) => "vif 9", "outer_vlan";
    an_inner_tag_of_an_unknown_type_is_refused: |s| {
        let inner = Some(VlanTag { tpid: 0x9100, vid: 5 });
        s.vifs.push(vif(9, VifKind::PhysicalVlan { parent: vif_id(2), outer: tag(5), inner }, 18, &[]));
    } => "vif 9", "inner_vlan";
    overlapping_subnets_in_one_vrf_are_refused:
        |s| s.vifs[1].addresses = vec!["10.101.10.129/25".parse().unwrap()] => "vif 2", "addresses[0]";
    a_wider_subnet_of_a_later_vif_overlaps_too:
        |s| s.vifs[3].addresses = vec!["10.101.10.1/16".parse().unwrap()] => "vif 1", "addresses[0]";
    the_same_address_on_two_vifs_is_refused:
        |s| s.vifs[1].addresses = vec!["10.101.10.39/24".parse().unwrap()] => "vif 2", "addresses[0]";
    the_same_address_twice_on_one_vif_is_refused:
        |s| s.vifs[0].addresses.push("10.101.10.39/24".parse().unwrap()) => "vif 1", "addresses[1]";
    the_subnets_own_address_is_refused:
        |s| s.vifs[1].addresses = vec!["10.1.0.0/24".parse().unwrap()] => "vif 2", "addresses[0]";
    the_broadcast_address_of_a_subnet_is_refused:
        |s| s.vifs[1].addresses = vec!["10.1.0.255/24".parse().unwrap()] => "vif 2", "addresses[0]";
    the_subnet_router_anycast_address_is_refused:
        |s| s.vifs[1].addresses = vec!["2001:db8::/64".parse().unwrap()] => "vif 2", "addresses[0]";
    a_multicast_address_is_refused:
        |s| s.vifs[1].addresses = vec!["224.0.0.5/24".parse().unwrap()] => "vif 2", "addresses[0]";
    the_unspecified_address_is_refused:
        |s| s.vifs[1].addresses = vec!["::/64".parse().unwrap()] => "vif 2", "addresses[0]";
    a_loopback_address_is_refused:
        |s| s.vifs[1].addresses = vec!["127.0.0.1/8".parse().unwrap()] => "vif 2", "addresses[0]";

    an_encap_on_no_vif_is_refused: |s| s.nexthops.push(nexthop(1, encap(7, PLAIN))) => "nexthop 1", "oif";
    an_encap_without_header_on_ethernet_is_refused:
        |s| s.nexthops.push(nexthop(1, encap(1, ""))) => "nexthop 1", "encap_data";
    an_encap_with_a_header_on_raw_ip_is_refused:
        |s| s.vifs[3].flags.raw_ip = true => "nexthop 10", "encap_data";
    tags_of_another_vlan_on_a_sub_interface_are_refused:
        |s| s.nexthops.push(nexthop(1, encap(3, OTHER_TAG))) => "nexthop 1", "encap_data";
    tags_of_a_sub_interface_on_its_port_are_refused:
        |s| s.nexthops.push(nexthop(1, encap(2, TAGGED))) => "nexthop 1", "encap_data";
    a_resolve_on_no_vif_is_refused:
        |s| s.nexthops.push(nexthop(1, NexthopKind::Resolve { oif: vif_id(7), gateway: None })) => "nexthop 1", "oif";
    a_resolve_on_a_vif_without_address_is_refused:
        |s| s.nexthops.push(nexthop(1, NexthopKind::Resolve { oif: vif_id(2), gateway: None })) => "nexthop 1", "oif";
    a_resolve_on_a_raw_ip_vif_is_refused: |s| {
        s.vifs.push(vif(9, physical("tun9"), 18, &["10.9.0.1/24"]));
        s.vifs[4].flags.raw_ip = true;
        s.nexthops.push(nexthop(1, NexthopKind::Resolve { oif: vif_id(9), gateway: None }));
    } => "nexthop 1", "oif";
    a_gateway_in_no_subnet_of_the_vif_is_refused: |s| with_gateway(s, 3, "198.51.100.254") => "nexthop 1", "gateway";
    a_gateway_of_a_family_without_subnet_is_refused: |s| with_gateway(s, 1, "fd00:100::fe") => "nexthop 1", "gateway";
    the_vifs_own_address_as_gateway_is_refused: |s| with_gateway(s, 3, "192.168.100.1") => "nexthop 1", "gateway";
    the_vifs_own_link_local_address_as_gateway_is_refused: |s| {
        s.vifs[0].mac = Some("02:00:00:00:00:01".parse().unwrap());
        with_gateway(s, 1, "fe80::ff:fe00:1");
    } => "nexthop 1", "gateway";
    the_broadcast_address_as_gateway_is_refused: |s| with_gateway(s, 3, "192.168.100.255") => "nexthop 1", "gateway";
    the_subnets_own_address_as_gateway_is_refused: |s| with_gateway(s, 3, "192.168.100.0") => "nexthop 1", "gateway";
    the_anycast_address_of_routers_as_gateway_is_refused: |s| with_gateway(s, 3, "fd00:100::") => "nexthop 1", "gateway";
    a_multicast_gateway_is_refused: |s| with_gateway(s, 3, "ff02::2") => "nexthop 1", "gateway";
    an_unspecified_gateway_is_refused: |s| with_gateway(s, 3, "0.0.0.0") => "nexthop 1", "gateway";
    a_loopback_gateway_is_refused: |s| with_gateway(s, 3, "127.0.0.1") => "nexthop 1", "gateway";
    a_gateway_of_ipv4_written_as_ipv6_is_refused:
        |s| with_gateway(s, 3, "::ffff:192.168.100.254") => "nexthop 1", "gateway";
    an_ipv4_link_local_gateway_outside_the_subnets_is_refused:
        |s| with_gateway(s, 3, "169.254.7.2") => "nexthop 1", "gateway";
    a_gateway_on_no_vif_is_refused: |s| with_gateway(s, 7, "192.168.100.254") => "nexthop 1", "oif";
    a_gateway_on_a_vif_that_asks_nobody_is_refused: |s| {
        s.vifs[2].flags.no_arp = true;
        with_gateway(s, 3, "192.168.100.254");
    } => "nexthop 1", "oif";
    an_ipv6_route_to_a_gateway_of_ipv4_is_refused: |s| {
        with_gateway(s, 3, "192.168.100.254");
        s.routes.push(route(18, "2001:db8::/32", 1, None));
    } => "route vrf 18 2001:db8::/32", "nexthop";
    a_composite_with_a_slot_that_no_flow_can_keep_is_refused: |s| {
        s.nexthops.push(nexthop(1, NexthopKind::Composite { members: vec![None; 256] }));
    } => "nexthop 1", "members";
    an_ipv6_route_to_a_composite_with_a_gateway_of_ipv4_is_refused: |s| {
        with_gateway(s, 3, "192.168.100.254");
        s.nexthops.push(nexthop(2, composite(&[1])));
        s.routes.push(route(18, "2001:db8::/32", 2, None));
    } => "route vrf 18 2001:db8::/32", "nexthop";
    a_nexthop_in_no_vrf_is_refused: |s| s.nexthops[1].vrf = Some(vrf_id(9)) => "nexthop 85", "vrf";
    a_translation_into_no_vrf_is_refused:
        |s| s.nexthops.push(nexthop(1, NexthopKind::VrfTranslate { vrf: vrf_id(9) })) => "nexthop 1", "vrf_translate.vrf";

    a_tunnel_from_the_unspecified_address_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("0.0.0.0", "10.0.0.1", Some(85)))) => "nexthop 1", "sip";
    a_tunnel_to_a_multicast_address_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "239.0.0.1", Some(85)))) => "nexthop 1", "dip";
    a_tunnel_to_itself_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "10.0.0.1", Some(85)))) => "nexthop 1", "dip";
    a_tunnel_with_neither_direct_nexthop_nor_vrf_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "10.0.0.2", None))) => "nexthop 1", "vrf";
    a_tunnel_over_no_nexthop_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "10.0.0.2", Some(7)))) => "nexthop 1", "direct_nexthop";
    a_tunnel_over_a_tunnel_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "10.0.0.2", Some(489)))) => "nexthop 1", "direct_nexthop";
    a_tunnel_over_a_composite_with_a_translation_is_refused: |s| {
        s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "10.0.0.2", Some(2))));
        s.nexthops.push(nexthop(2, composite(&[85, 513])));
    } => "nexthop 1", "direct_nexthop";
    a_tunnel_over_a_receive_is_refused:
        |s| s.nexthops.push(nexthop(1, tunnel("10.0.0.1", "10.0.0.2", Some(100)))) => "nexthop 1", "direct_nexthop";
    a_tunnel_port_that_nobody_opens_is_refused: |s| {
        let NexthopKind::Tunnel(tunnel) = nexthop_mut(s, 489) else { panic!() };
        tunnel.udp_port = 4789;
    } => "nexthop 489", "udp_port";
    a_dscp_above_63_is_refused: |s| {
        let NexthopKind::Tunnel(tunnel) = nexthop_mut(s, 489) else { panic!() };
        tunnel.dscp.0[46] = 64;
    } => "nexthop 489", "dscp_map";

    a_composite_without_slots_is_refused: |s| s.nexthops.push(nexthop(1, composite(&[]))) => "nexthop 1", "members";
    a_composite_with_257_slots_is_refused: |s| s.nexthops.push(nexthop(1, composite(&[85; 257]))) => "nexthop 1", "members";
    a_member_that_is_not_there_is_refused:
        |s| s.nexthops.push(nexthop(1, composite(&[85, 7]))) => "nexthop 1", "members[1].nexthop";
    a_member_without_weight_is_refused: |s| {
        let members = vec![Some(Member { nexthop: nh(85), weight: 0, label: None })];
        s.nexthops.push(nexthop(1, NexthopKind::Composite { members }));
    } => "nexthop 1", "members[0].weight";
    a_composite_in_itself_is_refused:
        |s| s.nexthops.push(nexthop(1, composite(&[85, 1]))) => "nexthop 1", "members[1].nexthop";
    a_third_level_of_composites_is_refused: |s| {
        s.nexthops.push(nexthop(1, composite(&[532])));
        s.nexthops.push(nexthop(2, composite(&[1])));
    } => "nexthop 2", "members";
    a_cycle_through_a_tunnel_and_a_composite_is_refused: |s| {
        *nexthop_mut(s, 532) = composite(&[85, 600]);
        s.nexthops.push(nexthop(600, receive(false, vec![], &[(17, 532)])));
        *nexthop_mut(s, 489) = tunnel("10.101.10.39", "10.101.9.245", Some(85));
    } => "nexthop 600", "defaults[0].nexthop";
    a_listener_that_leads_back_is_refused:
        |s| *nexthop_mut(s, 100) = receive(true, vec![listener(6, 1, 1, 100)], &[]) => "nexthop 100", "listeners[0].nexthop";
    a_listener_to_no_nexthop_is_refused:
        |s| *nexthop_mut(s, 100) = receive(true, vec![listener(6, 1, 1, 7)], &[]) => "nexthop 100", "listeners[0].nexthop";
    a_default_to_no_nexthop_is_refused:
        |s| *nexthop_mut(s, 100) = receive(true, vec![], &[(6, 7)]) => "nexthop 100", "defaults[0].nexthop";
    a_listener_to_a_tunnel_is_refused:
        |s| *nexthop_mut(s, 100) = receive(true, vec![], &[(6, 489)]) => "nexthop 100", "defaults[0].nexthop";
    a_listener_range_that_ends_before_it_starts_is_refused:
        |s| *nexthop_mut(s, 100) = receive(true, vec![listener(6, 2, 1, 10)], &[]) => "nexthop 100", "listeners[0].first_port";
    overlapping_listener_ranges_are_refused: |s| {
        let listeners = vec![listener(6, 1, 100, 10), listener(6, 5, 6, 10), listener(17, 5, 6, 10)];
        *nexthop_mut(s, 100) = receive(true, listeners, &[]);
    } => "nexthop 100", "listeners[1].first_port";
    a_range_behind_a_short_one_still_overlaps_the_long_one: |s| {
        let listeners = vec![listener(6, 1, 100, 10), listener(6, 90, 110, 10)];
        *nexthop_mut(s, 100) = receive(true, listeners, &[]);
    } => "nexthop 100", "listeners[1].first_port";
    two_listeners_on_one_port_are_refused: |s| {
        *nexthop_mut(s, 100) = receive(true, vec![listener(6, 5, 5, 10), listener(6, 5, 5, 10)], &[]);
    } => "nexthop 100", "listeners[1].first_port";
    two_defaults_of_one_protocol_are_refused:
        |s| *nexthop_mut(s, 100) = receive(true, vec![], &[(6, 10), (6, 10)]) => "nexthop 100", "defaults[1].proto";

    fewer_than_64_flows_are_refused: |s| s.settings.max_flows = 63 => "settings", "max_flows";
    a_share_above_all_is_refused:
        |s| s.settings.half_open_percent_per_vif = 101 => "settings", "half_open_percent_per_vif";
    no_share_is_refused: |s| s.settings.half_open_percent_per_vif = 0 => "settings", "half_open_percent_per_vif";
    a_timeout_of_nothing_is_refused: |s| s.settings.timeouts.udp = 0 => "settings", "timeouts.udp_secs";
    holding_more_for_one_than_for_all_is_refused:
        |s| s.settings.max_held = 7 => "settings", "max_held_per_neighbour";

    a_port_range_that_ends_before_it_starts_is_refused: |s| {
        s.acls[0].entries[0].proto = Some(6);
        s.acls[0].entries[0].destination_ports = Some((2, 1));
    } => "acl 5", "entries[0].destination_ports";
    ports_of_any_protocol_are_refused:
        |s| s.acls[0].entries[0].source_ports = Some((1, 2)) => "acl 5", "entries[0].source_ports";
    ports_of_a_protocol_without_ports_are_refused: |s| {
        s.acls[0].entries[0].proto = Some(47);
        s.acls[0].entries[0].destination_ports = Some((1, 2));
    } => "acl 5", "entries[0].destination_ports";
    source_ports_of_icmp_are_refused: |s| {
        s.acls[0].entries[0].proto = Some(1);
        s.acls[0].entries[0].source_ports = Some((8, 8));
        s.acls[0].entries[0].destination_ports = Some((8, 8));
    } => "acl 5", "entries[0].source_ports";
    an_icmp_type_above_255_is_refused: |s| {
        s.acls[0].entries[0].proto = Some(58);
        s.acls[0].entries[0].destination_ports = Some((128, 256));
    } => "acl 5", "entries[0].destination_ports";
    an_entry_of_two_families_is_refused: |s| {
        s.acls[0].entries[0].source = Some("10.0.0.0/8".parse().unwrap());
        s.acls[0].entries[0].destination = Some("2001:db8::/32".parse().unwrap());
    } => "acl 5", "entries[0].destination";
    an_entry_with_host_bits_is_refused:
        |s| s.acls[0].entries[0].source = Some("10.0.0.1/8".parse().unwrap()) => "acl 5", "entries[0].source";
    two_entries_with_one_number_are_refused:
        |s| s.acls[0].entries.push(ace(10, Action::Deny)) => "acl 5", "entries[1].id";
}

#[test]
fn every_error_is_reported_up_to_a_hundred_and_the_others_are_counted() {
    let two = errors(|s| {
        s.vifs[0].mtu = 1;
        s.routes[3].label = None;
        s.acls[0].entries.push(ace(10, Action::Deny));
    });
    assert_eq!(two.0.len(), 3, "{two}");
    let many = errors(|s| s.routes.extend((0..150).map(|i| route(18, &format!("10.0.{i}.0/24"), 7, None))));
    assert_eq!(many.0.len(), 101);
    assert!(many.0[100].problem.starts_with("50 more"), "{}", many.0[100]);
}

#[test]
fn a_bad_state_leaves_the_old_snapshot_in_force() {
    let good = Snapshot::empty().with_state(base()).unwrap();
    let before = good.to_state();
    let mut bad = State { generation: 2, ..base() };
    bad.routes.clear();
    bad.vifs[0].mtu = 1;
    assert!(good.with_state(bad).is_err());
    let delta = Delta { base_generation: 1, generation: 2, remove_nexthops: vec![nh(85)], ..Delta::default() };
    assert!(good.with_delta(delta).is_err());
    assert_eq!((good.to_state(), good.version()), (before, 2));
    assert_eq!(good.route(vrf_id(18), "192.168.1.100".parse().unwrap()).unwrap().label, Some(label(280)));
}

#[test]
fn a_chain_as_long_as_there_are_nexthops_is_followed_without_recursion() {
    let mut state = base();
    state.nexthops.extend((1000..60_000).map(|id| nexthop(id, receive(false, vec![], &[(6, id + 1)]))));
    state.nexthops.push(nexthop(60_000, encap(4, PLAIN)));
    Snapshot::empty().with_state(state).unwrap();
}
