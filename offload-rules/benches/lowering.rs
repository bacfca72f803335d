//! What it costs to make the rule of a flow, and to keep the places of a table.
//!
//! `cargo bench -p offload-rules --bench lowering`
//!
//! Wall-clock time of one thread, the median of eleven runs, with the fastest beside it.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Instant};

use offload_rules::{
    Label, MacAddr, NexthopId, VifId, VrfId,
    flow::{Decap, Decided, Egress, FlowKey, Forward, Operations, Oversize, Program, SizeLimit, TunnelHeader},
    forwarding::{
        Changes, Delta, DscpMap, IoDriver, L2Rewrite, Nexthop, NexthopKind, PortConfig, Route, RouteFlags, RouteOrigin,
        Snapshot, State, Vif, VifFlags, VifKind, VlanTag, Vrf,
    },
    lower::{Arrival, Direction, DpdkVersion, NicProfile, TunnelArrival, lower, partial, transit},
    place::{Hysteresis, Placement},
    transit::{Limits, Plan, TransitRule},
};

const RUNS: usize = 11;
const ROUNDS: u32 = 200_000;

fn measure(name: &str, target: &str, mut once: impl FnMut(u32)) {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            (0..ROUNDS).for_each(&mut once);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("| {name} | {:.0} ns | {:.0} ns | {target} |", times[RUNS / 2], times[0]);
}

fn direction(tunnel_in: bool, tunnel_out: bool) -> Direction {
    let vif = |id| VifId::new(id).expect("a vif");
    let vrf = VrfId::new(18).expect("a VRF");
    let label = Label::new(280).expect("a label");
    let ends = ["10.101.10.39", "10.101.9.245"].map(|text| text.parse().expect("an address"));
    let [src, dst]: [IpAddr; 2] = ["192.168.100.100", "192.168.1.100"].map(|text| text.parse().expect("an address"));
    let header = [0, 12, 41, 155, 105, 105, 0, 12, 41, 15, 244, 161, 0x81, 0, 1, 0x2c, 8, 0];
    let tunnel = || TunnelHeader { sip: ends[0], dip: ends[1], udp_port: 6635, label, dscp: DscpMap::default() };
    let ops = Operations::Forward(Forward {
        decap: tunnel_in.then_some(Decap::MplsOUdp),
        ttl: 1,
        size: Some(SizeLimit { mtu: 1500, larger: Oversize::Fragment }),
        encap: tunnel_out.then(tunnel),
        l2: Some(L2Rewrite::new(&header).expect("a header")),
        ..Forward::unchanged(Egress::Output(vif(3)))
    });
    Direction {
        key: FlowKey::new(vrf, if tunnel_in { VifId::TUNNEL } else { vif(3) }, src, dst, 6, 40_000, 443),
        arrival: Arrival {
            port: vif(2),
            vif: vif(3),
            sealed_on: None,
            eth_dst: MacAddr::VIRTUAL,
            tags: [(!tunnel_in).then_some(VlanTag { tpid: 0x8100, vid: 300 }), None],
            pcp_dei: 0,
            tunnel: tunnel_in.then_some(TunnelArrival {
                source: ends[1],
                destination: ends[0],
                udp_port: 6635,
                label,
                label_ttl: 63,
            }),
            tos: 0,
            ttl: 64,
        },
        program: Arc::new(Program {
            ops,
            dependencies: Vec::new(),
            nexthop: NexthopId::NONE,
            label: None,
            vrf,
            passes: Vec::new(),
            decided: Decided::BY_NONE,
        }),
        egress_port: Some(vif(7)),
        ingress_mtu: 1500,
        tunnel_sport: 0xc123,
        ip_id: 1,
    }
}

/// Two vifs without policy, and so many routes to stations at them.
fn many_routes(count: u32) -> Snapshot {
    let vrf = VrfId::new(1).expect("a VRF");
    let id = |id| VifId::new(id).expect("a vif");
    let station = |at: u32| NexthopId::new(10 + at).expect("a nexthop");
    let vif = |at: u32| Vif {
        id: id(at),
        name: format!("eth{at}"),
        kind: VifKind::Physical { port: PortConfig { device: format!("eth{at}"), driver: IoDriver::Auto } },
        mac: Some(MacAddr([2, 0, 0, 0, 0, at as u8])),
        vrf,
        addresses: Vec::new(),
        mtu: 1500,
        enc_mss: 0,
        flags: VifFlags::default(),
        nexthop: None,
        ingress_acls: Vec::new(),
        egress_acls: Vec::new(),
        service_acls: Vec::new(),
        nat_pool: Vec::new(),
        vn: 0,
    };
    let nexthop = |at: u32| {
        let header = [2, 0, 0, 0, 1, at as u8, 2, 0, 0, 0, 0, at as u8, 8, 0];
        let kind = NexthopKind::Encap { oif: id(at), rewrite: L2Rewrite::new(&header) };
        Nexthop { id: station(at), vrf: Some(vrf), policy: false, valid: true, kind }
    };
    let route = |at: u32| route(vrf, 0x0a00_0000 + (at << 8), 24, station(1 + at % 2));
    let state = State {
        generation: 1,
        vrfs: vec![Vrf { id: vrf, name: "one".to_owned() }],
        vifs: vec![vif(1), vif(2)],
        nexthops: vec![nexthop(1), nexthop(2)],
        routes: (0..count).map(route).collect(),
        ..State::default()
    };
    Snapshot::empty().with_state(state).expect("a state")
}

fn route(vrf: VrfId, address: u32, len: u8, nexthop: NexthopId) -> Route {
    let prefix = ipnet::Ipv4Net::new(address.into(), len).expect("a prefix").into();
    Route { vrf, prefix, nexthop, label: None, flags: RouteFlags::default(), origin: RouteOrigin::default() }
}

/// What it costs to plan transit, and to follow one route.
fn plans(profile: &NicProfile) {
    for (name, rules) in [("4,096 rules at most", 4096), ("a rule for each", usize::MAX)] {
        let snapshot = many_routes(100_000);
        let limits = Limits { rules, entropy: None };
        let mut plan = Plan::default();
        let timed = |what: &str, plan: &mut Plan, once: &mut dyn FnMut(&mut Plan) -> usize| {
            let start = Instant::now();
            let changed = once(plan);
            let spent = start.elapsed().as_secs_f64() * 1e3;
            println!("| transit, 100,000 routes, {name}: {what} | {spent:.3} ms | {changed} rules changed | - |");
        };
        timed("a plan", &mut plan, &mut |plan| plan.derive(&snapshot, &limits).len());
        let vrf = VrfId::new(1).expect("a VRF");
        let nexthop = NexthopId::new(11).expect("a nexthop");
        for (what, address, len) in [("a route more", 0x1400_0000, 16), ("a nexthop of a route", 0x0a00_0100, 24)] {
            let routes = vec![route(vrf, address, len, nexthop)];
            let delta = Delta { base_generation: 1, generation: 2, routes, ..Delta::default() };
            let after = snapshot.with_delta(delta).expect("a delta");
            let changes = after.changes_since(&snapshot);
            timed(what, &mut plan, &mut |plan| {
                plan.follow(&after, changes.iter().map(|changes| -> &Changes { changes }), &limits).len()
            });
        }
        let rule = plan.rules().find(|(_, rule)| matches!(rule, TransitRule::Destination(_))).expect("a rule").1;
        measure("twin, transit to a prefix", "1 us", |_| _ = black_box(transit(black_box(rule), profile)));
    }
}

fn main() {
    println!("{}\n", std::env::args().collect::<Vec<_>>().join(" "));
    println!("| what | median | fastest | target |\n|---|---|---|---|");
    let version = DpdkVersion::V24_11;
    for name in ["twin", "mlx5-sws", "mlx5-hws"] {
        let profile = NicProfile::of_version(name, version).expect("a profile");
        for (way, tunnel_in, tunnel_out) in [
            ("VLAN -> VLAN", false, false),
            ("VLAN -> MPLSoUDP", false, true),
            ("MPLSoUDP -> VLAN", true, false),
            ("MPLSoUDP -> MPLSoUDP", true, true),
        ] {
            let direction = direction(tunnel_in, tunnel_out);
            if let Err(reason) = lower(&direction, &profile, false) {
                println!("| {name}, {way} | - | - | not in this NIC: {reason} |");
                continue;
            }
            measure(&format!("{name}, {way}"), "1 us", |_| {
                _ = black_box(lower(black_box(&direction), &profile, false));
            });
        }
    }
    let ice = NicProfile::by_name("ice").expect("a profile");
    let flow = Direction {
        arrival: Arrival { tags: [None, None], ..direction(false, false).arrival },
        ..direction(false, false)
    };
    partial(&flow, 1, 0, &ice).expect("a rule");
    measure("ice, mark and queue", "1 us", |n| _ = black_box(partial(black_box(&flow), n, 0, &ice)));

    plans(&NicProfile::by_name("twin").expect("a profile"));

    const FLOWS: u32 = 200_000;
    let mut placement = Placement::new(Hysteresis::default());
    let rate = |n: u32| u64::from(n.wrapping_mul(2_654_435_761));
    (0..FLOWS / 2).for_each(|id| placement.place(id, rate(id), 0));
    (FLOWS / 2..FLOWS).for_each(|id| placement.wait(id, rate(id), 0));
    let mut now = 0;
    measure("placement, 200,000 flows for 100,000 places: update and ask for a victim", "-", |n| {
        now += 1;
        placement.update(n % FLOWS, rate(n ^ now as u32));
        black_box(placement.victim(rate(n), now));
    });
}
