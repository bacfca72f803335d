//! SAs that come to their end.

use fallback_sw::{
    node::control::Control,
    worker::{Event, SaNews},
};
use offload_rules::DropReason;

use crate::{
    common::{packets::udp, snapshot, walk_a::altered},
    net::{CE1_UP, CLIENT, Net, SERVER, TUNNELS, ce1, ce2, re},
};

/// CE1 with one tunnel, whose outbound SA has further fields.
fn limited(more: &str) -> Net {
    Net::altered(&[
        ("\"outboundSas\": [18]", "\"outboundSas\": []"),
        (&CE1_UP[0].outbound(), &CE1_UP[0].outbound_with(more)),
    ])
}

fn send(net: &mut Net, port: u16) -> usize {
    net.from_client(&udp(CLIENT, SERVER, port, 53, b"0123456789").ip()).len()
}

#[test]
fn the_hard_lifetime_in_packets_ends_the_sa_and_takes_the_tunnel_down() {
    let mut net = limited(r#", "hard": {"packets": "3"}"#);
    let sent: Vec<_> = (0..5).map(|_| send(&mut net, 5000)).collect();
    assert_eq!(sent, [1, 1, 1, 0, 0]);
    // The composite has no member left; whoever goes to the tunnel itself is told what is missing.
    assert_eq!(net.ce1.all_drops(), [("Invalid NH", 2)]);
    let control = net.ce1.machine.control();
    assert!(!offload_rules::classify::is_tunnel_up(control.snapshot(), crate::common::vif(TUNNELS[0])));
    let status = net.ce1.machine.workers()[0].sas();
    let sa = status.iter().find(|sa| sa.id.get() == CE1_UP[0].0).unwrap();
    assert_eq!((sa.packets, sa.ended), (3, Some(DropReason::SaExpired)));
}

#[test]
fn the_hard_lifetime_in_octets_counts_the_packets_inside() {
    // 20 + 8 + 10 octets of the packet, 32 of MPLS over UDP.
    let mut net = limited(r#", "hard": {"bytes": "140"}"#);
    assert_eq!([send(&mut net, 1), send(&mut net, 2), send(&mut net, 3)], [1, 1, 0]);
}

#[test]
fn the_hard_lifetime_in_seconds_ends_the_sa_without_any_packet() {
    let mut net = limited(r#", "hard": {"seconds": "30"}"#);
    assert_eq!(send(&mut net, 5000), 1);
    net.ce1.wait(28_000);
    assert_eq!(send(&mut net, 5000), 1);
    net.ce1.wait(3_000);
    assert_eq!(send(&mut net, 5000), 0);
}

#[test]
fn the_soft_lifetime_is_told_and_stops_nothing() {
    let mut net = limited(r#", "soft": {"packets": "2"}, "hard": {"packets": "100"}"#);
    assert_eq!([send(&mut net, 5000), send(&mut net, 5000), send(&mut net, 5000)], [1, 1, 1]);
    let status = net.ce1.machine.workers()[0].sas();
    let sa = status.iter().find(|sa| sa.id.get() == CE1_UP[0].0).unwrap();
    assert!(sa.expiring && sa.ended.is_none());
}

#[test]
fn flows_of_a_tunnel_whose_sa_has_ended_go_by_the_other() {
    let mut net = Net::altered(&[(&CE1_UP[0].outbound(), &CE1_UP[0].outbound_with(r#", "hard": {"packets": "10"}"#))]);
    for port in 0..200 {
        assert_eq!(send(&mut net, 2000 + port), 1);
    }
    assert_eq!(net.ce1.vif_packets(TUNNELS[0]).1, 10);
    assert_eq!(net.ce1.vif_packets(TUNNELS[1]).1, 190);
    assert_eq!(net.ce1.all_drops(), []);
}

#[test]
fn the_end_of_the_sequence_numbers_ends_the_sa() {
    let mut net = Net::altered(&[
        ("\"outboundSas\": [18]", "\"outboundSas\": []"),
        (
            &CE1_UP[0].outbound(),
            &CE1_UP[0].outbound_with(r#", "firstSequence": "4294967294""#).replace("\"esn\": true", "\"esn\": false"),
        ),
    ]);
    assert_eq!([send(&mut net, 5000), send(&mut net, 5000), send(&mut net, 5000)], [1, 1, 0]);
    let status = net.ce1.machine.workers()[0].sas();
    let sa = status.iter().find(|sa| sa.id.get() == CE1_UP[0].0).unwrap();
    assert_eq!(sa.ended, Some(DropReason::SaExhausted));
}

#[test]
fn more_numbers_are_reserved_when_half_of_a_block_is_used() {
    let mut control = Control::new(snapshot(&ce1()));
    let first = control.take_grants().remove(0);
    assert_eq!((first.from, first.until), (1, (1 << 22) + 1));
    control.handle([Event::Sa { sa: first.sa.id, news: SaNews::Low }], 1);
    let more = control.take_grants().remove(0);
    assert_eq!((more.sa, more.until), (first.sa, (2 << 22) + 1));
    assert!(control.take_grants().is_empty());
}

#[test]
fn an_inbound_sa_past_its_hard_lifetime_opens_nothing() {
    let limited = |pair: crate::net::Pair| pair.inbound_with(r#", "hard": {"packets": "2"}"#);
    let re =
        altered(&re(), &[(&CE1_UP[0].inbound(), &limited(CE1_UP[0])), (&CE1_UP[1].inbound(), &limited(CE1_UP[1]))]);
    let mut net = Net::with(&ce1(), &re, &ce2(), fallback_sw::node::machine::MachineConfig::default());
    let arrived: usize = (0..10)
        .map(|_| {
            let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
            net.carry(sent).len()
        })
        .sum();
    assert_eq!(arrived, 2);
    assert_eq!(net.re.all_drops(), [("SA Expired", 8)]);
}
