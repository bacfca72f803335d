//! Gateways by address: one neighbour for all destinations, and what becomes of flows whose gateway is dead.

use super::*;

fn toward(destination: &str) -> FlowKey {
    let (src, dst): (IpAddr, IpAddr) = ("192.168.100.9".parse().unwrap(), destination.parse().unwrap());
    FlowKey::new(vrf_id(18), vif_id(3), src, dst, 6, 40_000, 80)
}

const FROM_LAN: fn() -> Ingress = || Ingress { vif: vif_id(3), tunnel: None };

#[test]
fn one_neighbour_and_one_program_serve_all_destinations_behind_a_gateway() {
    let mut state = world();
    // The gateway itself is reached by its nexthop, too.
    state.routes.push(route(19, &format!("{GATEWAY}/32"), 579, None));
    let snapshot = Snapshot::empty().with_state(state).unwrap();
    let neighbour: IpAddr = GATEWAY.parse().unwrap();
    for destination in ["203.0.113.7", "203.0.113.8"] {
        let Verdict::Resolve { vif, target, .. } = ask(&snapshot, &toward(destination), FROM_LAN()) else { panic!() };
        assert_eq!((vif, target), (vif_id(5), neighbour));
    }
    let snapshot = learnt(&snapshot, (5, GATEWAY), 7);
    let programs = ["203.0.113.7", "203.0.113.8", GATEWAY].map(|destination| {
        let Verdict::Forward(decision) = ask(&snapshot, &toward(destination), FROM_LAN()) else { panic!() };
        decision.program
    });
    assert_eq!(programs[0], programs[1]);
    assert_eq!(programs[0], programs[2]);
    let header = snapshot.vif(vif_id(5)).unwrap().header_to(MacAddr([2, 0, 0, 0, 1, 7])).unwrap();
    assert!(programs[0].ops.list().contains(&Op::RewriteL2(header)));
    // The route's nexthop is shown, not one for each destination.
    assert_eq!(programs[0].nexthop, nh(579));
    assert_eq!(snapshot.neighbours().len(), 1);
}

#[test]
fn a_gateway_of_ipv4_takes_no_ipv6_packet_and_one_of_ipv6_takes_both() {
    let mut state = world();
    // Not found by looking at routes: a label leads there.
    state.labels.push(mpls(290, 579));
    state
        .vifs
        .iter_mut()
        .filter(|v| v.id == vif_id(5))
        .for_each(|v| v.addresses.push("fd00:101::1/64".parse().unwrap()));
    state.nexthops.push(nexthop(580, gateway(5, "fe80::fe")));
    let mut snapshot = Snapshot::empty().with_state(state).unwrap();
    snapshot = learnt(&learnt(&snapshot, (5, GATEWAY), 7), (5, "fe80::fe"), 8);
    let ingress = Ingress { vif: vif_id(1), tunnel: Some("10.101.9.245".parse().unwrap()) };
    let end = |nexthop: u32, destination: &str| {
        let (src, dst): (IpAddr, IpAddr) = match destination.contains(':') {
            false => ("192.168.1.100".parse().unwrap(), destination.parse().unwrap()),
            true => ("fd00:1::9".parse().unwrap(), destination.parse().unwrap()),
        };
        let key = FlowKey::new(vrf_id(18), VifId::TUNNEL, src, dst, 6, 40_000, 80);
        let inquiry = Inquiry {
            key: &key,
            service_port: 80,
            ingress,
            start: Start::Nexthop(nh(nexthop)),
            role: Role::Own,
            prior: Choices::default(),
            other_ingress: None,
            hash: 0,
        };
        match classify(&snapshot, &inquiry) {
            Verdict::Forward(decision) => Ok(decision.program.egress()),
            Verdict::Drop { reason, .. } => Err(reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end(579, "203.0.113.7"), Ok(Some(vif_id(5))));
    assert_eq!(end(579, "2001:db8::7"), Err(DropReason::InvalidNh));
    assert_eq!(end(580, "203.0.113.7"), Ok(Some(vif_id(5))));
    assert_eq!(end(580, "2001:db8::7"), Ok(Some(vif_id(5))));
}

#[test]
fn a_dead_gateways_flows_move_to_other_members_until_it_answers() {
    let snapshot = resolved(Snapshot::empty().with_state(world()).unwrap());
    let way = |snapshot: &Snapshot, port: u16, prior: Choices| {
        let key = FlowKey { sport: port, ..toward("192.168.1.100") };
        let inquiry = Inquiry { prior, ..inquiry(&key, FROM_LAN()) };
        let Verdict::Forward(decision) = classify(snapshot, &inquiry) else { panic!() };
        (decision.program.egress().unwrap(), decision.choices)
    };
    let before: Vec<_> = (0..60).map(|port| way(&snapshot, port, Choices::default())).collect();
    let through = |ways: &[(VifId, Choices)]| ways.iter().filter(|(vif, _)| *vif == vif_id(6)).count();
    assert!((5..40).contains(&through(&before)), "{}", through(&before));

    let dead = with_gateway(&snapshot, (6, UNDERLAY_GATEWAY), GatewayState::Dead);
    let during: Vec<_> = (0..60).map(|port| way(&dead, port, before[usize::from(port)].1)).collect();
    assert_eq!(through(&during), 0);
    for (before, during) in before.iter().zip(&during) {
        assert_eq!(before.1, during.1, "the home is kept");
        assert!(before.0 == vif_id(6) || before.0 == during.0, "only the flows of the lost member move");
    }
    let alive = with_gateway(&dead, (6, UNDERLAY_GATEWAY), GatewayState::Alive);
    let after: Vec<_> = (0..60).map(|port| way(&alive, port, during[usize::from(port)].1)).collect();
    assert_eq!(before, after);
}

#[test]
fn when_no_gateway_answers_packets_wait_for_the_one_of_their_flow() {
    let mut state = world();
    state.nexthops.iter_mut().filter(|n| n.id == nh(532)).for_each(|n| n.kind = composite(&[88]));
    let snapshot = Snapshot::empty().with_state(state).unwrap();
    let snapshot = with_gateway(&snapshot, (6, UNDERLAY_GATEWAY), GatewayState::Dead);
    let Verdict::Resolve { vif, target, .. } = ask(&snapshot, &toward("192.168.1.100"), FROM_LAN()) else { panic!() };
    assert_eq!((vif, target), (vif_id(6), UNDERLAY_GATEWAY.parse::<IpAddr>().unwrap()));
}

#[test]
fn a_tunnel_that_is_routed_over_a_dead_gateway_is_passed_over() {
    let mut state = world();
    let kind = NexthopKind::Tunnel(crate::forwarding::Tunnel {
        sip: "10.101.10.39".parse().unwrap(),
        dip: "10.99.0.1".parse().unwrap(),
        direct: None,
        udp_port: 6635,
        dscp: crate::forwarding::DscpMap::default(),
    });
    let mut routed = nexthop(700, kind);
    routed.vrf = Some(vrf_id(8));
    state.nexthops.extend([routed, nexthop(701, composite(&[700, 489]))]);
    state.routes.push(route(8, "10.99.0.0/24", 88, None));
    state.routes.push(route(18, "198.51.100.0/24", 701, Some(300)));
    let snapshot = resolved(Snapshot::empty().with_state(state).unwrap());
    let far_end = |snapshot: &Snapshot, port: u16| {
        let key = FlowKey { sport: port, ..toward("198.51.100.1") };
        let Verdict::Forward(decision) = ask(snapshot, &key, FROM_LAN()) else { panic!() };
        decision.program.forward().and_then(|forward| forward.encap.as_ref()).map(|header| header.dip.to_string())
    };
    assert!((0..40).any(|port| far_end(&snapshot, port).as_deref() == Some("10.99.0.1")));
    let dead = with_gateway(&snapshot, (6, UNDERLAY_GATEWAY), GatewayState::Dead);
    assert!((0..40).all(|port| far_end(&dead, port).as_deref() == Some("10.101.9.245")));
}
