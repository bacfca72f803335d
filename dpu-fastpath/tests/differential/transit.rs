//! Transit of a regional edge: without flows, and nearly all of it by the NIC.

use super::{
    bench::on_twin,
    judge::{self, Case, Event},
    packets::{TCP, UDP},
    traffic::{End, Talk},
    world::World,
};

/// Rounds of packets to and fro.
const ROUNDS: usize = 100;

/// The part of all frames that the NIC handles, in percent; both do the same.
#[track_caller]
fn by_hardware(world: &World, mut talks: Vec<Talk>, ttl: [u8; 2]) -> u64 {
    let mut events = Vec::new();
    for round in 0..ROUNDS {
        for talk in &mut talks {
            for (from, ttl) in ttl.into_iter().enumerate() {
                let packet = talk.ordinary(from, 40 + round).ttl(ttl);
                events.push(talk.event(world, from, &packet, "transit"));
            }
        }
    }
    events.push(Event::Wait(1500));
    let case = Case { state: world.state(), events, padded: false, flowless: true, stripped: false, healthy: true };
    let outcome = on_twin(move |front| judge::judge(front, &case)).unwrap_or_else(|why| panic!("{why}"));
    outcome.hardware * 100 / outcome.frames
}

fn edge() -> World {
    let mut world = World::plain();
    world.without_flows();
    world.one_uplink();
    world
}

#[test]
fn what_goes_from_tunnel_to_tunnel_of_a_regional_edge_is_in_the_nic() {
    let site = |tunnel, prefix| End::Remote { tunnel, tenant: 0, prefix, host: 20 };
    for (proto, v6) in [(TCP, false), (TCP, true), (UDP, false), (UDP, true)] {
        // As they come from hosts behind one and two routers.
        let talk = Talk::new([site(0, 9), site(1, 8)], v6, proto, [4000, 80]);
        let hardware = by_hardware(&edge(), vec![talk], [63, 126]);
        assert!(hardware > 90, "protocol {proto}, IPv6 {v6}: {hardware} %");
    }
}

#[test]
fn what_goes_from_vlan_to_vlan_is_in_the_nic_whatever_its_ttl() {
    let host = |segment| End::Local { segment, host: 10 };
    for (proto, v6) in [(TCP, false), (TCP, true), (UDP, false), (UDP, true)] {
        let hardware = by_hardware(&edge(), vec![Talk::new([host(1), host(4)], v6, proto, [4000, 80])], [17, 3]);
        assert!(hardware > 90, "protocol {proto}, IPv6 {v6}: {hardware} %");
    }
}

#[test]
fn what_comes_out_of_a_tunnel_to_a_site_is_in_the_nic() {
    let ends = [End::Remote { tunnel: 0, tenant: 0, prefix: 9, host: 20 }, End::Local { segment: 1, host: 10 }];
    let hardware = by_hardware(&edge(), vec![Talk::new(ends, false, UDP, [4000, 53])], [200, 64]);
    assert!(hardware > 90, "{hardware} %");
}
