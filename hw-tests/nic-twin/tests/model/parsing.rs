//! The parser and the actions on octets of any kind.

use nic_twin::model::{Action, Frame, ItemKind as K, Nic};
use proptest::prelude::*;

use crate::kit::*;

/// A NIC whose rules touch everything: all items, edits of all kinds at both levels.
fn busy_nic() -> Nic {
    let mut nic = nic();
    let checks = ([0; 16], {
        let mut mask = [0; 16];
        mask[8] = 0xff;
        mask
    });
    let header = eth(0x0800, &ipv4([1; 4], [2; 4], 17, 64, &[0xc0, 0, 0x19, 0xeb, 0, 0, 0, 0, 0, 1, 0x11, 63]));
    let integrity = nic_twin::model::Item::masked(K::Integrity, &checks.0, &checks.1);
    insert(&mut nic, TRANSFER, &[integrity], &[Action::Drop]).unwrap();
    let patterns: [&[K]; 5] = [
        &[K::Eth, K::Ipv4, K::Udp, K::Mpls, K::Ipv4, K::Tcp],
        &[K::Eth, K::Ipv4, K::Udp, K::Mpls, K::Ipv6, K::Udp],
        &[K::Eth, K::Vlan, K::Vlan, K::Ipv4, K::Tcp],
        &[K::Eth, K::Ipv6, K::Udp],
        &[K::Eth, K::Ipv4, K::Udp],
    ];
    for kinds in patterns {
        let items: Vec<_> = kinds.iter().map(|&kind| plain(kind)).collect();
        let mut actions = vec![Action::Count(0), Action::DecTtl, Action::SetTpDst(9)];
        match kinds.len() {
            6 => actions.push(Action::RawDecap(&header[..46])),
            5 => actions.push(Action::PopVlan),
            _ => actions.push(Action::RawDecap(&header[..14])),
        }
        actions.extend([Action::DecTtl, Action::SetTpSrc(7), Action::RawEncap(&header), Action::RepresentedPort(1)]);
        insert(&mut nic, TRANSFER, &items, &actions).unwrap();
    }
    nic
}

fn samples() -> Vec<Vec<u8>> {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let inner = ipv4(a, b, 6, 9, &tcp(&[a, b].concat(), [1, 443], 0x10, b"abc"));
    let inner6 = ipv6([1; 16], [2; 16], 17, 9, &udp(&[[1; 16], [2; 16]].concat(), [1, 2], b"abc"));
    let chain =
        [&[60, 0, 0, 0, 0, 0, 0, 0], &[43, 1, 0, 0, 0, 0, 0, 0][..], &[0; 8], &[17, 0, 0, 0, 0, 0, 0, 0]].concat();
    vec![
        mpls_udp(0x110 | 63, &inner),
        mpls_udp(0x110 | 63, &inner6),
        vlan(0x88a8, 1, &vlan(0x8100, 2, &tcp4(a, b, [1, 2]))),
        eth(0x86dd, &inner6),
        eth(0x86dd, &ipv6([1; 16], [2; 16], 0, 9, &chain)),
        udp4(a, b, [4500, 4500]),
    ]
}

#[test]
fn a_packet_cut_at_any_length_is_handled() {
    let mut nic = busy_nic();
    for sample in samples() {
        for len in 0..=sample.len() {
            nic.process(0, &mut Frame::new(&sample[..len]), T0);
            nic.transmit(0, &mut Frame::new(&sample[..len]), Some(1), T0);
        }
    }
    assert!(nic.stats().forwarded > 0, "the whole packets hit rules");
}

proptest! {
    #[test]
    fn octets_changed_at_random_are_handled(
        which in 0usize..6,
        changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..6),
        len in 0usize..160,
    ) {
        let mut octets = samples()[which].clone();
        for (at, octet) in changes {
            if let Some(place) = octets.get_mut(at) {
                *place = octet;
            }
        }
        octets.resize(len.max(octets.len() / 2), 0);
        busy_nic().process(0, &mut Frame::new(&octets), T0);
    }

    #[test]
    fn random_octets_are_handled(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        busy_nic().process(0, &mut Frame::new(&octets), T0);
    }
}
