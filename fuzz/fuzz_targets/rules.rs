//! Any rule and any frames at the NIC twin: no panic, what is refused is refused by validation as well, and what is inserted goes away.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use nic_twin::model::{Action, Attr, Faults, Frame, Item, ItemKind, Nic, Profile};

const KINDS: [ItemKind; 16] = [
    ItemKind::Void,
    ItemKind::Any,
    ItemKind::Eth,
    ItemKind::Vlan,
    ItemKind::Ipv4,
    ItemKind::Ipv6,
    ItemKind::Ipv6FragExt,
    ItemKind::Udp,
    ItemKind::Tcp,
    ItemKind::Sctp,
    ItemKind::Icmp,
    ItemKind::Mpls,
    ItemKind::Integrity,
    ItemKind::Mark,
    ItemKind::RepresentedPort,
    ItemKind::Other,
];

/// Takes octets off the input, and nothing when it is used up.
fn take<'a>(data: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = data.split_at(len.min(data.len()));
    *data = rest;
    taken
}

fn octet(data: &mut &[u8]) -> u8 {
    take(data, 1).first().copied().unwrap_or(0)
}

/// A buffer of up to 63 octets, or none.
fn buffer<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = octet(data);
    (len & 0x80 != 0).then(|| take(data, usize::from(len & 0x3f)))
}

fn action<'a>(data: &mut &'a [u8]) -> Action<'a> {
    match octet(data) % 16 {
        0 => Action::PassThru,
        1 => Action::Jump(octet(data).into()),
        2 => Action::Mark(octet(data).into()),
        3 => Action::Queue(octet(data).into()),
        4 => Action::Drop,
        5 => Action::Count(octet(data).into()),
        6 => Action::Age { timeout: octet(data).into(), context: None },
        7 => Action::RawDecap(buffer(data).unwrap_or_default()),
        8 => Action::RawEncap(buffer(data).unwrap_or_default()),
        9 => Action::PopVlan,
        10 => Action::PushVlan(0x8100),
        11 => Action::SetVlanVid(octet(data).into()),
        12 => Action::SetTtl(octet(data)),
        13 => Action::DecTtl,
        14 => Action::SetTpDst(octet(data).into()),
        _ => Action::SetMacDst([2, 0, 0, 0, 0, octet(data)]),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let Some(profile) = Profile::named("twin") else { return };
    let mut nic = Nic::new(profile, Faults::default());
    (0..2).for_each(|port| nic.add_port(port, 2));
    let now = Duration::ZERO;
    let mut rules = Vec::new();
    for _ in 0..octet(&mut data) % 8 {
        let place = octet(&mut data);
        let attr = Attr {
            group: u32::from(place & 3),
            priority: u32::from(place >> 2 & 3),
            ingress: place & 0x10 != 0,
            egress: place & 0x20 != 0,
            transfer: place & 0x40 != 0,
        };
        let items: Vec<Item> = (0..octet(&mut data) % 8)
            .map(|_| Item {
                kind: KINDS[usize::from(octet(&mut data)) % KINDS.len()],
                spec: buffer(&mut data),
                last: buffer(&mut data),
                mask: buffer(&mut data),
            })
            .collect();
        let actions: Vec<Action> = (0..octet(&mut data) % 6).map(|_| action(&mut data)).collect();
        let valid = nic.validate(0, &attr, &items, &actions);
        match nic.insert(0, &attr, &items, &actions, now) {
            Ok(inserted) => {
                assert!(valid.is_ok(), "inserted, though not valid: {valid:?}");
                rules.push(inserted.id);
            }
            Err(error) => assert!(valid.is_err(), "valid, and refused: {error:?}"),
        }
    }
    while !data.is_empty() {
        let port = u16::from(octet(&mut data) & 1);
        let len = usize::from(octet(&mut data));
        nic.process(port, &mut Frame::new(take(&mut data, len)), now);
    }
    for rule in rules {
        assert!(nic.destroy(rule).is_ok());
    }
    assert_eq!(nic.rule_count(), 0);
});
