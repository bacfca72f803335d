//! Each rule of the conversion, and that it is exact in both directions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use offload_rules::{
    MacAddr,
    forwarding::{
        Ace, Acl, Action, DfPolicy, DscpMap, IoDriver, IpsecTunnel, L2Rewrite, Lifetime, Listener, ListenerTable,
        Member, MplsLabel, NatT, Nexthop, NexthopKind, PortConfig, Receive, Route, RouteFlags, RouteOrigin, Sa,
        SaDirection, SaKey, Scope, Settings, Timeouts, Tunnel, Vif, VifFlags, VifKind, VlanTag,
    },
};
use proptest::{collection::vec, option, prelude::*};
use proto::json;

mod generate;

use super::*;
use crate::node::encode;
use generate::{acl_ids, any_label, any_state, nexthop_id, prefix, sa_id, vif_id, vrf_id};

fn read(text: &str) -> Result<State, StateErrors> {
    state(&json::parse(text, "state.json").unwrap())
}

/// The one error of a state, as `object|field|problem`.
fn error(text: &str) -> String {
    let errors = read(text).expect_err("must be refused").0;
    assert_eq!(errors.len(), 1, "{errors:?}");
    format!("{}|{}|{}", errors[0].object, errors[0].field, errors[0].problem)
}

#[test]
fn absent_fields_get_the_documented_defaults() {
    let state = read(
        r#"{"settings": {"maxFlows": 1000, "timeouts": {"udpSecs": 20}},
            "vifs": [{"id": 6, "name": "argo-envoy-0", "type": "VIRTUAL", "vrf": 3}],
            "nexthops": [
              {"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.245"}},
              {"id": 532, "composite": {"members": [{"nexthop": 85}, {}]}},
              {"id": 584, "vrf": 17, "receive": {"listeners": [{"proto": 6, "firstPort": 80, "nexthop": 585}]}}],
            "routes": [{"vrf": 18, "prefix": "0.0.0.0/0"}]}"#,
    )
    .unwrap();
    assert_eq!(state.settings.max_flows, 1000);
    assert_eq!(state.settings.max_neighbours, 16384);
    assert_eq!(state.settings.timeouts, Timeouts { udp: 20, ..Timeouts::default() });
    let vif = &state.vifs[0];
    assert_eq!((vif.mtu, vif.mac), (1500, Some(MacAddr::VIRTUAL)));
    assert_eq!(vif.kind.port().unwrap().device, "argo-envoy-0");
    let NexthopKind::Tunnel(tunnel) = &state.nexthops[0].kind else { panic!() };
    assert_eq!((tunnel.udp_port, tunnel.direct, &tunnel.dscp), (6635, None, &DscpMap::default()));
    let NexthopKind::Composite { members } = &state.nexthops[1].kind else { panic!() };
    assert_eq!(members.iter().map(|m| m.map(|m| m.weight)).collect::<Vec<_>>(), [Some(100), None]);
    let NexthopKind::Receive(receive) = &state.nexthops[2].kind else { panic!() };
    assert_eq!((receive.listeners.listeners[0].first, receive.listeners.listeners[0].last), (80, 80));
    assert_eq!(state.routes[0].nexthop, NexthopId::NONE);
}

#[test]
fn encap_data_is_read_with_any_separator() {
    for data in [
        "00 0c 29 b7 22 94 00 0c 29 0f f4 a1 81 00 01 2e 08 00",
        "00:0c:29:b7:22:94 00:0c:29:0f:f4:a1 8100 012e 0800",
        "000C29B72294-000C290FF4A1-8100012E-0800",
    ] {
        let state =
            read(&format!(r#"{{"nexthops": [{{"id": 524, "encap": {{"oif": 4113, "encapData": "{data}"}}}}]}}"#));
        let NexthopKind::Encap { rewrite: Some(rewrite), .. } = &state.unwrap().nexthops[0].kind else { panic!() };
        assert_eq!(rewrite.bytes()[12..], [0x81, 0x00, 0x01, 0x2e, 0x08, 0x00], "{data}");
    }
}

#[test]
fn every_wrong_field_of_every_object_is_named_at_once() {
    let errors = read(
        r#"{"vifs": [{"id": 70000, "name": "a", "type": "PHYSICAL", "vrf": 1, "mtu": 100, "mac": "zz"}],
            "nexthops": [{"id": 1}],
            "routes": [{"vrf": 1, "prefix": "10.0.0.1/24", "nexthop": 1, "label": 3}]}"#,
    )
    .unwrap_err();
    let named: Vec<_> = errors.0.iter().map(|e| format!("{} {}", e.object, e.field)).collect();
    assert_eq!(
        named,
        [
            "vif 70000 id",
            "vif 70000 mac",
            "vif 70000 mtu",
            "nexthop 1 kind",
            "route vrf 1 10.0.0.1/24 prefix",
            "route vrf 1 10.0.0.1/24 label"
        ]
    );
}

#[test]
fn an_object_without_a_number_is_named_by_its_place() {
    assert_eq!(error(r#"{"vrfs": [{"id": 1}, {"name": "blue"}]}"#), "vrf at vrfs[1]|id|is missing");
}

#[test]
fn what_later_steps_bring_is_refused_as_not_implemented() {
    for text in [
        r#"{"vifs": [{"id": 1, "name": "t", "type": "IP6_FLOW", "vrf": 1}]}"#,
        r#"{"vifs": [{"id": 1, "name": "g", "type": "PHYSICAL", "vrf": 1, "flags": {"gro": true}}]}"#,
        r#"{"nexthops": [{"id": 605, "nat": {"source": true}}]}"#,
    ] {
        assert!(error(text).contains("is not implemented yet by this node"), "{text}");
    }
}

#[test]
fn an_sa_shows_its_direction_and_key_and_nothing_of_the_other() {
    const KEY: &str = "00112233 445566778899aabbccddeeff cafebabe";
    let sa = |rest: &str| format!(r#"{{"sas": [{{"id": 7, "spi": 4096, {rest}}}]}}"#);
    let good = |direction: &str| sa(&format!(r#""direction": "{direction}", "key": "{KEY}""#));
    let typed = read(&good("INBOUND")).unwrap().sas.remove(0);
    assert_eq!((typed.window, typed.first, typed.key.bits()), (1024, 1, 128));
    assert_eq!(read(&good("OUTBOUND")).unwrap().sas[0].window, 0);
    assert_eq!(error(&sa(&format!(r#""key": "{KEY}""#))), "sa 7|direction|is missing, use OUTBOUND or INBOUND");
    assert!(error(&sa(r#""direction": "INBOUND""#)).starts_with("sa 7|key|is missing"));
    assert!(error(&sa(r#""direction": "INBOUND", "key": "redacted""#)).starts_with("sa 7|key|is missing"));
    for (rest, field) in [
        (r#""direction": "INBOUND", "firstSequence": "2""#, "first_sequence"),
        (r#""direction": "INBOUND", "worker": 1"#, "worker"),
        (r#""direction": "OUTBOUND", "replayWindow": 64"#, "replay_window"),
    ] {
        assert!(error(&sa(&format!(r#"{rest}, "key": "{KEY}""#))).starts_with(&format!("sa 7|{field}|is only for")));
    }
}

#[test]
fn no_error_tells_a_digit_of_a_key() {
    for key in ["00112233445566778899aabbccddeeffcafebabx", "5ecre7", "5ecre", "5ecre7 123"] {
        let text = format!(r#"{{"sas": [{{"id": 7, "spi": 4096, "direction": "INBOUND", "key": "{key}"}}]}}"#);
        assert_eq!(error(&text), "sa 7|key|is not 20 or 36 octets of two hexadecimal digits");
    }
}

#[test]
fn a_tunnel_has_an_outside_and_no_device() {
    let vif = |rest: &str| format!(r#"{{"vifs": [{{"id": 2, "name": "t", "type": "TUNNEL", "vrf": 8, {rest}}}]}}"#);
    let outside = r#""source": "172.28.13.36", "destination": "103.135.56.40", "vrf": 2"#;
    let tunnel = |more: &str| vif(&format!(r#""tunnel": {{{outside}{more}}}"#));
    let typed = read(&tunnel(r#", "natT": {"destinationPort": 61000}"#)).unwrap().vifs.remove(0);
    let nat_t = typed.kind.tunnel().unwrap().nat_t.unwrap();
    assert_eq!((nat_t.source_port, nat_t.destination_port, nat_t.keepalive_secs), (4500, 61000, 20));
    assert!(read(&tunnel("")).unwrap().vifs[0].kind.tunnel().unwrap().nat_t.is_none());
    assert!(error(&vif(r#""mtu": 1500"#)).starts_with("vif 2|tunnel|is missing"));
    assert!(error(&vif(&format!(r#""device": "eth0", "tunnel": {{{outside}}}"#))).contains("|device|"));
    assert!(error(&tunnel(r#", "natT": {"sourcePort": 65536}"#)).contains("|tunnel.nat_t.source_port|"));
    assert!(error(&tunnel(r#", "dscp": 64"#)).contains("|tunnel.dscp|"));
    assert!(error(&tunnel("").replace("103.135.56.40", "2001:db8::1")).contains("|tunnel.destination|"));
    assert!(error(&tunnel("").replace("TUNNEL", "VIRTUAL")).contains("|tunnel|is only for type TUNNEL"));
}

#[test]
fn a_sub_interface_has_tags_and_a_parent_and_no_device() {
    let vif = |rest: &str| format!(r#"{{"vifs": [{{"id": 2, "name": "e.1", "vrf": 1, {rest}}}]}}"#);
    let good = r#""type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 302}"#;
    assert!(read(&vif(good)).is_ok());
    assert!(error(&vif(&format!(r#"{good}, "device": "eth0""#))).contains("|device|"));
    assert!(error(&vif(&format!(r#"{good}, "io": "IO_DRIVER_TAP""#))).contains("|io|"));
    assert!(error(&vif(r#""type": "PHYSICAL_VLAN", "parent": 1"#)).contains("|outer_vlan|is missing"));
    assert!(error(&vif(r#""type": "PHYSICAL_VLAN", "outerVlan": {"vid": 1}"#)).contains("|parent|is missing"));
    assert!(error(&vif(r#""type": "PHYSICAL", "outerVlan": {"vid": 1}"#)).contains("|outer_vlan|is only for"));
    for (tag, field) in [
        (r#"{"vid": 0}"#, "outer_vlan.vid"),
        (r#"{"vid": 4095}"#, "outer_vlan.vid"),
        (r#"{"vid": 1, "tpid": 37120}"#, "outer_vlan.tpid"),
    ] {
        let text = vif(&format!(r#""type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {tag}"#));
        assert!(error(&text).contains(&format!("|{field}|")), "{tag}");
    }
}

#[test]
fn wrong_values_of_vifs_are_refused_with_what_to_do() {
    let vif = |rest: &str| format!(r#"{{"vifs": [{{"id": 1, "name": "e", "type": "PHYSICAL", "vrf": 1, {rest}}}]}}"#);
    for (rest, want) in [
        (r#""mtu": 575"#, "mtu|575 is out of range, use 576..=9216"),
        (r#""mtu": 9217"#, "mtu|9217 is out of range, use 576..=9216"),
        (r#""mac": "01:00:5e:00:00:01""#, "mac|01:00:5e:00:00:01 is a group address"),
        (r#""addresses": ["192.168.1.1"]"#, "addresses[0]|'192.168.1.1' is not an address with its subnet, give"),
        (r#""addresses": ["10.0.0.1/8", "224.0.0.1/24"]"#, "addresses[1]|224.0.0.1 is not a unicast address"),
        (r#""natPool": ["x"]"#, "nat_pool[0]|'x' is not an address"),
        (r#""ingressAcls": [65, 0]"#, "ingress_acls[1]|is missing"),
        (r#""io": 9"#, "io|9 is not a driver"),
    ] {
        assert!(error(&vif(rest)).starts_with(&format!("vif 1|{want}")), "{}", error(&vif(rest)));
    }
    assert!(error(r#"{"vifs": [{"id": 1, "vrf": 1, "type": "PHYSICAL"}]}"#).contains("|device|is missing"));
    assert!(error(r#"{"vifs": [{"id": 1, "vrf": 1}]}"#).contains("|type|is missing"));
}

#[test]
fn wrong_values_of_nexthops_are_refused_with_what_to_do() {
    let nexthop = |kind: &str| format!(r#"{{"nexthops": [{{"id": 1, {kind}}}]}}"#);
    let tunnel = r#""type": "MPLS_O_UDP", "sip": "10.0.0.1", "dip": "10.0.0.2""#;
    for (kind, want) in [
        (r#""encap": {"oif": 1, "encapData": "00 0c 2"}"#.to_owned(), "encap_data|'2' is not octets"),
        (r#""encap": {"oif": 1, "encapData": "00 0c"}"#.to_owned(), "encap_data|2 octets are not an Ethernet header"),
        (r#""encap": {}"#.to_owned(), "oif|is missing"),
        (r#""resolve": {"gateway": "10.0.0.1"}"#.to_owned(), "oif|is missing"),
        (r#""resolve": {"oif": 1, "gateway": "10.0.0.1/24"}"#.to_owned(), "gateway|'10.0.0.1/24' is not an address"),
        (r#""resolve": {"oif": 1, "gateway": "ff02::2"}"#.to_owned(), "gateway|ff02::2 is not a unicast address"),
        (r#""tunnel": {"sip": "10.0.0.1", "dip": "10.0.0.2"}"#.to_owned(), "type|is missing"),
        (
            r#""tunnel": {"type": "MPLS_O_UDP", "sip": "::1", "dip": "10.0.0.2"}"#.to_owned(),
            "sip|'::1' is not an IPv4 address",
        ),
        (
            r#""tunnel": {"type": "MPLS_O_UDP", "sip": "10.0.0.1", "dip": "255.255.255.255"}"#.to_owned(),
            "dip|255.255.255.255 is not a unicast address",
        ),
        (format!(r#""tunnel": {{{tunnel}, "udpPort": 4789}}"#), "udp_port|4789 is not a port of MPLS over UDP"),
        (
            format!(r#""tunnel": {{{tunnel}, "dscpMap": [{{"inner": 64, "outer": 0}}]}}"#),
            "dscp_map[0].inner|64 is out of range",
        ),
        (
            format!(r#""tunnel": {{{tunnel}, "dscpMap": [{{"inner": 1, "outer": 2}}, {{"inner": 1, "outer": 2}}]}}"#),
            "dscp_map[1].inner|1 is mapped twice",
        ),
        (
            r#""composite": {"members": [{"nexthop": 2, "weight": 65536}]}"#.to_owned(),
            "members[0].weight|65536 is out of range",
        ),
        (
            r#""composite": {"members": [{"nexthop": 2, "weight": 0}]}"#.to_owned(),
            "members[0].weight|0 is out of range",
        ),
        (
            r#""composite": {"members": [{"nexthop": 2, "label": 15}]}"#.to_owned(),
            "members[0].label|15 is out of range",
        ),
        (
            r#""receive": {"listeners": [{"proto": 6, "firstPort": 90, "lastPort": 80, "nexthop": 2}]}"#.to_owned(),
            "listeners[0].last_port|80 is before first_port 90",
        ),
        (
            r#""receive": {"listeners": [{"proto": 1, "firstPort": 8, "lastPort": 256, "nexthop": 2}]}"#.to_owned(),
            "listeners[0].last_port|256 is out of range, use 0..=255",
        ),
        (
            r#""receive": {"defaults": [{"proto": 256, "nexthop": 2}]}"#.to_owned(),
            "defaults[0].proto|256 is out of range",
        ),
        (r#""vrfTranslate": {}"#.to_owned(), "vrf_translate.vrf|is missing"),
    ] {
        assert!(error(&nexthop(&kind)).starts_with(&format!("nexthop 1|{want}")), "{}", error(&nexthop(&kind)));
    }
}

#[test]
fn wrong_routes_labels_lists_and_settings_are_refused_with_advice() {
    for (text, want) in [
        (
            r#"{"routes": [{"vrf": 1, "prefix": "10.0.0.1/24", "nexthop": 1}]}"#,
            "route vrf 1 10.0.0.1/24|prefix|'10.0.0.1/24' has host bits set, write 10.0.0.0/24",
        ),
        (
            r#"{"routes": [{"vrf": 1, "prefix": "10.0.0.1", "nexthop": 1}]}"#,
            "route vrf 1 10.0.0.1|prefix|'10.0.0.1' is not a prefix, write 10.0.0.1/32 for this address alone",
        ),
        (
            r#"{"routes": [{"vrf": 1, "prefix": "10.0.0.0/24", "policyLabels": ["1:45", "x"]}]}"#,
            "route vrf 1 10.0.0.0/24|policy_labels[1]|'x' is not a policy label",
        ),
        (r#"{"labels": [{"label": 1048576, "nexthop": 1}]}"#, "label 1048576|label|1048576 is out of range"),
        (
            r#"{"routes": [{"vrf": 1, "prefix": "010.0.0.0/8", "nexthop": 1}]}"#,
            "route vrf 1 010.0.0.0/8|prefix|'010.0.0.0/8' is not a prefix",
        ),
        (r#"{"generation": 18446744073709551616}"#, "state|generation|is out of range"),
        (r#"{"labels": [{"label": 280}]}"#, "label 280|nexthop|is missing"),
        (r#"{"acls": [{"id": 65, "entries": [{"id": 1}]}]}"#, "acl 65|entries[0].action|is missing"),
        (
            r#"{"acls": [{"id": 65, "entries": [{"action": "DENY", "source": "10.0.0.0/8", "destination": "::/0"}]}]}"#,
            "acl 65|entries[0].destination|::/0 is not of the family",
        ),
        (
            r#"{"acls": [{"id": 65, "entries": [{"action": "DENY", "sourcePorts": {"first": 9, "last": 1}}]}]}"#,
            "acl 65|entries[0].source_ports.last|1 is before first 9",
        ),
        (r#"{"settings": {"halfOpenPercentPerVif": 101}}"#, "settings|half_open_percent_per_vif|101 is out of range"),
    ] {
        assert!(error(text).starts_with(want), "{}", error(text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_state_survives_protobuf_and_json(typed in any_state()) {
        let shown = encode::state(&typed);
        prop_assert!(shown.sas.iter().all(|sa| sa.key == "redacted"));
        prop_assert_eq!(state(&shown).is_ok(), typed.sas.is_empty());
        let encoded = encode::state_with(&typed, encode::Keys::Written);
        prop_assert_eq!(state(&encoded).expect("what was encoded is legal"), typed.clone());
        for defaults in [json::Defaults::Written, json::Defaults::Skipped] {
            let text = json::to_string(&encoded, defaults).unwrap();
            let read: pb::ForwardingState = json::parse(&text, "state.json").unwrap();
            prop_assert_eq!(state(&read).expect("what was written is legal"), typed.clone());
        }
    }

    #[test]
    fn a_delta_survives_protobuf(
        from in any_state(),
        keep_settings in any::<bool>(),
        removed in (vec(vif_id(), 0..3), vec(vrf_id(), 0..3), vec(nexthop_id(), 0..3), acl_ids(), vec(any_label(), 0..3), vec(sa_id(), 0..3)),
        routes in vec((vrf_id(), prefix()), 0..3),
    ) {
        let typed = Delta {
            base_generation: from.generation / 2,
            generation: from.generation,
            remove_vifs: removed.0,
            remove_vrfs: removed.1,
            remove_nexthops: removed.2,
            remove_routes: routes,
            remove_labels: removed.4,
            remove_acls: removed.3,
            settings: keep_settings.then_some(from.settings),
            vifs: from.vifs,
            vrfs: from.vrfs,
            nexthops: from.nexthops,
            routes: from.routes,
            labels: from.labels,
            acls: from.acls,
            sas: from.sas,
            remove_sas: removed.5,
        };
        prop_assert_eq!(delta(&encode::delta_with(&typed, encode::Keys::Written)).expect("what was encoded is legal"), typed);
    }

    #[test]
    fn no_protobuf_makes_the_conversion_panic(
        numbers in any::<[u32; 6]>(),
        texts in vec(".{0,12}", 6),
        kind in any::<i32>(),
    ) {
        let [a, b, c, d, e, f] = numbers;
        let tag = Some(pb::VlanTag { vid: a, tpid: b });
        let text = |i: usize| texts[i].clone();
        let _ = state(&pb::ForwardingState {
            vifs: vec![pb::Vif {
                id: a, name: text(0), r#type: kind, device: text(1), parent: b, outer_vlan: tag, inner_vlan: tag,
                mac: text(2), vrf: c, addresses: texts.clone(), mtu: d, enc_mss: e, nexthop: f, io: kind,
                nat_pool: texts.clone(), ..pb::Vif::default()
            }],
            nexthops: vec![
                pb::Nexthop {
                    id: a,
                    kind: Some(pb::nexthop::Kind::Encap(pb::EncapNexthop { oif: b, encap_data: text(3) })),
                    ..pb::Nexthop::default()
                },
                pb::Nexthop {
                    id: a,
                    kind: Some(pb::nexthop::Kind::Tunnel(pb::TunnelNexthop {
                        r#type: kind, sip: text(4), dip: text(5), direct_nexthop: c, udp_port: d,
                        dscp_map: vec![pb::DscpMapping { inner: e, outer: f }],
                    })),
                    ..pb::Nexthop::default()
                },
            ],
            routes: vec![pb::Route { vrf: a, prefix: text(0), label: Some(b), policy_labels: texts, ..pb::Route::default() }],
            ..pb::ForwardingState::default()
        });
    }
}
