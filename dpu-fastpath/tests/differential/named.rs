//! Cases with a name: what tells one flow from another, what a rule must not take, what changes in the middle. Each has to be in
//! hardware for its better part, or it proves nothing.

use super::{
    bench::on_twin,
    judge::{self, Case, Event},
    packets::{ACK, FIN, Packet, RST, SYN, TCP, UDP, icmp_error},
    traffic::{End, Talk, Wrap, announce, announce_far_end, header_checksum, with_options, wrap},
    world::{LABELS, World},
};

const CLIENT: End = End::Local { segment: 1, host: 10 };

fn server(tenant: usize) -> End {
    End::Remote { tunnel: 0, tenant, prefix: 9, host: 20 }
}

fn talk(client: End) -> Talk {
    let tenant = client.tenant();
    Talk::new([client, server(tenant)], false, UDP, [4000, 53])
}

/// Packets to and fro.
fn train(world: &World, talk: &mut Talk, rounds: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for at in 0..rounds * 2 {
        let packet = talk.ordinary(at % 2, 64);
        events.push(talk.event(world, at % 2, &packet, "ordinary"));
    }
    events
}

fn frame((port, frame): (u32, Vec<u8>), what: &str) -> Event {
    Event::Frame { port, frame, settle: true, what: what.to_owned() }
}

/// Both do the same, and the NIC handles this many frames at least.
#[track_caller]
fn same(world: &World, events: Vec<Event>, hardware: u64) {
    let case = Case { state: world.state(), events, padded: false, flowless: false, stripped: false, healthy: true };
    let outcome = on_twin(move |front| judge::judge(front, &case));
    let outcome = outcome.unwrap_or_else(|why| panic!("{why}"));
    assert!(outcome.hardware >= hardware, "not enough in hardware to tell: {outcome:?}");
}

/// Conversations side by side, a packet of each in turn.
#[track_caller]
fn side_by_side(world: &World, mut talks: Vec<Talk>) {
    let mut events = Vec::new();
    for _ in 0..6 {
        for talk in &mut talks {
            events.extend(train(world, talk, 1));
        }
    }
    same(world, events, talks.len() as u64 * 8);
}

/// A flow in hardware; then odd packets of it, each between ordinary ones.
#[track_caller]
fn among_ordinary(mut talk: Talk, odd: impl Fn(&World, &mut Talk) -> Vec<Event>) {
    let world = World::plain();
    let mut events = opened(&world, &mut talk);
    events.extend(train(&world, &mut talk, 3));
    events.extend(odd(&world, &mut talk));
    events.extend(train(&world, &mut talk, 2));
    same(&world, events, 4);
}

fn opened(world: &World, talk: &mut Talk) -> Vec<Event> {
    if talk.proto != TCP {
        return Vec::new();
    }
    [(0, SYN), (1, SYN | ACK), (0, ACK)]
        .map(|(from, flags)| {
            let packet = talk.control(from, flags);
            talk.event(world, from, &packet, "opening")
        })
        .to_vec()
}

fn connection() -> Talk {
    Talk::new([CLIENT, server(0)], false, TCP, [4000, 80])
}

fn wrapped(world: &World, talk: &Talk, from: usize, ip: &[u8], how: &Wrap, what: &str) -> Event {
    frame(wrap(world, &talk.ends[from], ip, how), what)
}

/// Something else in the outside of what comes out of the tunnel.
#[track_caller]
fn outside(how: Wrap) {
    among_ordinary(talk(CLIENT), |world, talk| {
        let ip = talk.ordinary(1, 64).ip();
        vec![wrapped(world, talk, 1, &ip, &how, "outside")]
    });
}

#[test]
fn two_clients_with_the_same_source_port_are_two_flows() {
    let other = End::Local { segment: 1, host: 11 };
    side_by_side(&World::plain(), vec![talk(CLIENT), talk(other)]);
}

#[test]
fn two_vlans_with_the_same_addresses_are_two_networks() {
    let [untagged, tagged] = [0, 2].map(|segment| talk(End::Local { segment, host: 10 }));
    side_by_side(&World::plain(), vec![untagged, tagged]);
}

#[test]
fn two_vrfs_with_the_same_addresses_are_told_apart_by_label() {
    let [blue, red] = [1, 3].map(|segment| talk(End::Local { segment, host: 10 }));
    side_by_side(&World::plain(), vec![blue, red]);
}

#[test]
fn the_same_connection_in_two_vrfs_is_two() {
    let world = World::plain();
    let mut talks = [1, 3].map(|segment| {
        let client = End::Local { segment, host: 10 };
        let tenant = client.tenant();
        Talk::new([client, server(tenant)], false, TCP, [4000, 80])
    });
    let mut events: Vec<Event> = talks.iter_mut().flat_map(|talk| opened(&world, talk)).collect();
    for _ in 0..5 {
        events.extend(talks.iter_mut().flat_map(|talk| train(&world, talk, 1)));
    }
    // One ends, the other goes on.
    let reset = talks[0].control(0, RST);
    events.push(talks[0].event(&world, 0, &reset, "reset"));
    events.extend(train(&world, &mut talks[1], 3));
    same(&world, events, 18);
}

#[test]
fn another_tunnel_source_is_judged_by_software() {
    outside(Wrap { outer_source: Some("10.101.9.246".to_owned()), ..Wrap::default() });
    outside(Wrap { outer_source: Some("10.66.6.6".to_owned()), ..Wrap::default() });
}

#[test]
fn another_label_is_another_vrf_or_none() {
    for label in [LABELS[1], 777, 3] {
        outside(Wrap { label: Some(label), ..Wrap::default() });
    }
}

#[test]
fn label_ttl_and_stack_bit_are_softwares() {
    for label_ttl in [0, 1, 61] {
        outside(Wrap { label_ttl, ..Wrap::default() });
    }
    outside(Wrap { bottom: false, ..Wrap::default() });
}

#[test]
fn congestion_marked_outside_reaches_the_inside() {
    for outer_tos in [1, 2, 3, 0xb9] {
        for tos in [0, 1, 2, 3] {
            among_ordinary(talk(CLIENT), |world, talk| {
                let ip = talk.ordinary(1, 64).tos(tos).ip();
                vec![wrapped(world, talk, 1, &ip, &Wrap { outer_tos, ..Wrap::default() }, "ECN")]
            });
        }
    }
}

#[test]
fn a_checksum_outside_is_verified() {
    outside(Wrap { udp_checksum: 1, ..Wrap::default() });
    outside(Wrap { udp_checksum: 2, ..Wrap::default() });
}

#[test]
fn case_06_an_outer_datagram_ending_inside_its_packet_is_softwares() {
    for cut in [1, 8, 30, 9999] {
        outside(Wrap { cut, ..Wrap::default() });
    }
}

#[test]
fn fragments_and_options_outside_are_softwares() {
    outside(Wrap { outer_options: true, ..Wrap::default() });
    outside(Wrap { outer_fragment: true, ..Wrap::default() });
}

#[test]
fn every_ttl_is_written_or_answered_as_by_software() {
    for from in [0, 1] {
        for ttl in [0, 1, 2, 59, 60, 61, 63, 64, 65, 255] {
            among_ordinary(talk(CLIENT), |world, talk| {
                let packet = talk.ordinary(from, 64).ttl(ttl);
                vec![talk.event(world, from, &packet, "TTL")]
            });
        }
    }
}

#[test]
fn every_type_of_service_is_copied_outward() {
    for tos in [1, 2, 3, 0x28, 0xb8, 0xff] {
        among_ordinary(talk(CLIENT), |world, talk| {
            let packet = talk.ordinary(0, 64).tos(tos);
            vec![talk.event(world, 0, &packet, "TOS")]
        });
    }
}

#[test]
fn priorities_are_kept_from_tag_to_tag() {
    let other = End::Local { segment: 4, host: 10 };
    let talk = Talk::new([CLIENT, other], false, UDP, [4000, 53]);
    for pcp in [0, 3, 7] {
        for dei in [false, true] {
            among_ordinary(talk.clone(), |world, talk| {
                let ip = talk.ordinary(0, 64).ip();
                vec![wrapped(world, talk, 0, &ip, &Wrap { pcp, dei, ..Wrap::default() }, "priority")]
            });
        }
    }
}

#[test]
fn options_and_fragments_of_a_flow_in_hardware_are_softwares() {
    for from in [0, 1] {
        among_ordinary(talk(CLIENT), |world, talk| {
            let options = with_options(&talk.ordinary(from, 64).ip());
            let mut packet = talk.ordinary(from, 64);
            let length = packet.body().len();
            let mut events = vec![wrapped(world, talk, from, &options, &Wrap::default(), "options")];
            for part in [packet.part(0, 32), packet.part(32, length), packet.part(32, length), packet.part(0, 32)] {
                events.push(talk.event(world, from, &part, "fragment"));
            }
            events
        });
    }
}

#[test]
fn wrong_checksums_and_truncated_frames_are_softwares() {
    for from in [0, 1] {
        among_ordinary(talk(CLIENT), |world, talk| {
            let mut ip = talk.ordinary(from, 64).ip();
            ip[10] ^= 1;
            let (port, whole) = talk.frame(world, from, &talk.clone().ordinary(from, 64).ip());
            let mut events = vec![wrapped(world, talk, from, &ip, &Wrap::default(), "wrong checksum")];
            events.extend((1..whole.len()).step_by(3).map(|len| frame((port, whole[..len].to_vec()), "truncated")));
            events
        });
    }
}

#[test]
fn another_mac_or_one_more_tag_is_softwares() {
    for mac in [[2, 9, 9, 9, 9, 9], [0xff; 6]] {
        outside(Wrap { mac: Some(mac), ..Wrap::default() });
    }
    outside(Wrap { extra_tag: true, ..Wrap::default() });
}

#[test]
fn icmp_errors_about_a_flow_in_hardware_are_softwares() {
    for from in [0, 1] {
        among_ordinary(talk(CLIENT), |world, talk| {
            let about = talk.ordinary(1 - from, 64).ip();
            let [src, dst] = [from, 1 - from].map(|at| talk.ends[at].address(false));
            let error = icmp_error(&src, &dst, 3, 4, &about);
            vec![talk.event(world, from, &error, "ICMP error")]
        });
    }
}

#[test]
fn a_connection_in_hardware_ends_in_software() {
    for last in [RST, FIN | ACK, SYN] {
        for from in [0, 1] {
            among_ordinary(connection(), |world, talk| {
                let packet = talk.control(from, last);
                vec![talk.event(world, from, &packet, "the end")]
            });
        }
    }
}

#[test]
fn a_connection_is_opened_again_after_its_end() {
    let world = World::plain();
    let mut talk = connection();
    let mut events = Vec::new();
    for _ in 0..2 {
        events.extend(opened(&world, &mut talk));
        events.extend(train(&world, &mut talk, 4));
        for (from, flags) in [(0, FIN | ACK), (1, ACK), (1, FIN | ACK), (0, ACK)] {
            let packet = talk.control(from, flags);
            events.push(talk.event(&world, from, &packet, "closing"));
        }
    }
    same(&world, events, 6);
}

/// A flow that the second list denies, from a vif with that list.
fn denied(proto: u8, odd: impl Fn(&mut Packet)) {
    let mut world = World::plain();
    world.deny();
    let mut talk = Talk::new([CLIENT, server(0)], false, proto, [4000, if proto == TCP { 80 } else { 2000 }]);
    let mut events = Vec::new();
    for at in 0..8 {
        let packet = talk.ordinary(0, 64);
        let event = if at == 5 {
            let mut packet = packet;
            odd(&mut packet);
            talk.event(&world, 0, &packet, "odd")
        } else {
            talk.event(&world, 0, &packet, "denied")
        };
        events.push(event);
    }
    same(&world, events, 3);
}

#[test]
fn denied_packets_are_counted_alike() {
    denied(UDP, |_| {});
    denied(UDP, |packet| *packet = packet.clone().ttl(1));
    denied(UDP, |packet| *packet = packet.clone().ttl(0));
    denied(UDP, |packet| *packet = packet.clone().tos(0xff));
    denied(UDP, |packet| *packet = packet.part(0, 32));
}

#[test]
fn a_denied_packet_with_a_wrong_checksum_is_dropped_for_its_checksum() {
    let mut world = World::plain();
    world.deny();
    let mut talk = Talk::new([CLIENT, server(0)], false, UDP, [4000, 2000]);
    let mut events: Vec<Event> = (0..6)
        .map(|_| {
            let packet = talk.ordinary(0, 64);
            talk.event(&world, 0, &packet, "denied")
        })
        .collect();
    let mut ip = talk.ordinary(0, 64).ip();
    ip[10] ^= 1;
    events.push(wrapped(&world, &talk, 0, &ip, &Wrap::default(), "wrong checksum"));
    let options = with_options(&talk.ordinary(0, 64).ip());
    events.push(wrapped(&world, &talk, 0, &options, &Wrap::default(), "options"));
    // A source route, which nobody follows.
    let mut route = options;
    route[20..24].copy_from_slice(&[131, 3, 4, 0]);
    header_checksum(&mut route);
    events.push(wrapped(&world, &talk, 0, &route, &Wrap::default(), "source route"));
    same(&world, events, 3);
}

#[test]
fn what_changes_in_the_middle_changes_for_both() {
    let tunnel = r#"{"id": 489, "vrf": 8, "tunnel": {"type": "MPLS_O_UDP", "sip": "10.101.10.39", "dip": "10.101.9.245", "udpPort": 51234, "directNexthop": 532}}"#;
    for change in [
        r#"{"routes": [{"vrf": 18, "prefix": "10.9.0.0/16", "nexthop": 489, "label": 999}]}"#.to_owned(),
        r#"{"routes": [{"vrf": 18, "prefix": "10.9.0.0/16", "nexthop": 490, "label": 290}]}"#.to_owned(),
        // The same bytes, by another way: what is counted follows.
        r#"{"routes": [{"vrf": 18, "prefix": "10.9.0.0/16", "nexthop": 491, "label": 280}]}"#.to_owned(),
        r#"{"nexthops": [{"id": 532, "vrf": 8, "composite": {"members": [{"nexthop": 86}, {"nexthop": 85}]}}]}"#.to_owned(),
        r#"{"removeRoutes": [{"vrf": 18, "prefix": "10.9.0.0/16"}]}"#.to_owned(),
        r#"{"removeLabels": [279]}"#.to_owned(),
        r#"{"labels": [{"label": 279, "nexthop": 514}]}"#.to_owned(),
        r#"{"acls": [{"id": 65, "name": "none", "entries": [{"id": 1, "action": "DENY"}]}]}"#.to_owned(),
        r#"{"nexthops": [{"id": 85, "vrf": 8, "encap": {"oif": 3, "encapData": "0200000000aa 020000004103 0800"}}, {"id": 86, "vrf": 8, "encap": {"oif": 4, "encapData": "0200000000aa 020000004104 0800"}}]}"#.to_owned(),
        r#"{"nexthops": [{"id": 532, "vrf": 8, "composite": {"members": [{"nexthop": 0}, {"nexthop": 86}]}}]}"#.to_owned(),
        format!(r#"{{"nexthops": [{tunnel}]}}"#),
    ] {
        let mut world = World::plain();
        world.permit();
        let mut talk = talk(CLIENT);
        let mut events = train(&world, &mut talk, 5);
        events.push(Event::Change(change));
        events.extend(train(&world, &mut talk, 5));
        events.push(Event::Wait(1500));
        events.extend(train(&world, &mut talk, 3));
        same(&world, events, 5);
    }
}

#[test]
fn offload_off_and_on_changes_nothing_that_is_seen() {
    let world = World::plain();
    let mut talk = talk(CLIENT);
    let mut events = train(&world, &mut talk, 4);
    for on in [false, true] {
        events.push(Event::Offload(on));
        events.extend(train(&world, &mut talk, 4));
    }
    same(&world, events, 8);
}

#[test]
fn a_neighbour_that_moves_is_followed() {
    let mut world = World::plain();
    world.resolve();
    let mut talk = talk(CLIENT);
    let mut events = announce(1, 10, 0);
    events.extend(train(&world, &mut talk, 4));
    events.extend(announce(1, 10, 1));
    events.extend(train(&world, &mut talk, 4));
    same(&world, events, 8);
}

#[test]
fn a_gateway_that_moves_is_followed() {
    let mut world = World::plain();
    world.through_gateway();
    let mut talk = talk(CLIENT);
    let mut events = vec![announce_far_end(0)];
    events.extend(train(&world, &mut talk, 4));
    events.push(announce_far_end(1));
    events.extend(train(&world, &mut talk, 4));
    same(&world, events, 8);
}

#[test]
fn a_flow_that_is_never_answered_is_offloaded_alike() {
    let world = World::plain();
    let mut talk = talk(CLIENT);
    let mut events = Vec::new();
    for at in 0..60 {
        let packet = talk.ordinary(0, 64);
        events.push(talk.event(&world, 0, &packet, "one way"));
        if at % 20 == 0 {
            events.push(Event::Wait(600));
        }
    }
    same(&world, events, 5);
}

#[test]
fn what_is_too_large_for_the_way_out_is_softwares() {
    let mut world = World::plain();
    world.widen();
    world.narrow_underlay();
    let mut talk = talk(CLIENT);
    let mut events = train(&world, &mut talk, 4);
    for size in [1000, 1412, 1440, 1441, 1468, 2000] {
        let packet = talk.ordinary(0, size);
        events.push(talk.event(&world, 0, &packet, "large"));
        let packet = talk.ordinary(0, size).df();
        events.push(talk.event(&world, 0, &packet, "large, not to be fragmented"));
    }
    events.extend(train(&world, &mut talk, 4));
    same(&world, events, 10);
}
