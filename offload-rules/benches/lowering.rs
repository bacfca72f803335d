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
    forwarding::{DscpMap, L2Rewrite, VlanTag},
    lower::{Arrival, Direction, DpdkVersion, NicProfile, TunnelArrival, lower, partial},
    place::{Hysteresis, Placement},
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
