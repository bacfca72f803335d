//! Packets, and a NIC with two ports to put them through.

use std::time::Duration;

use nic_twin::model::{
    Action, Attr, Delivery, Faults, FlowError, Frame, Inserted, Item, ItemKind, Nic, Outcome, Profile,
};

pub(crate) const T0: Duration = Duration::ZERO;
pub(crate) const INGRESS: Attr = Attr { group: 0, priority: 0, ingress: true, egress: false, transfer: false };
pub(crate) const TRANSFER: Attr = Attr { group: 0, priority: 0, ingress: false, egress: false, transfer: true };
pub(crate) const DST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const SRC_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The checksum of RFC 1071, written out.
pub(crate) fn checksum(octets: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn eth(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&DST_MAC[..], &SRC_MAC, &ethertype.to_be_bytes(), payload].concat()
}

pub(crate) fn vlan(tpid: u16, tci: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &tpid.to_be_bytes(), &tci.to_be_bytes(), &frame[12..]].concat()
}

pub(crate) fn ipv4(src: [u8; 4], dst: [u8; 4], protocol: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len() as u16).to_be_bytes();
    let mut header = vec![0x45, 0, len[0], len[1], 0, 1, 0, 0, ttl, protocol, 0, 0];
    header.extend([src, dst].concat());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [&header[..], payload].concat()
}

pub(crate) fn ipv6(src: [u8; 16], dst: [u8; 16], next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, hops][..], &src, &dst, payload].concat()
}

fn pseudo(addresses: &[u8], protocol: u8, segment: &[u8]) -> Vec<u8> {
    [addresses, &[0, protocol], &(segment.len() as u16).to_be_bytes(), segment].concat()
}

pub(crate) fn udp(addresses: &[u8], ports: [u16; 2], payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    let [source, destination] = ports.map(u16::to_be_bytes);
    let mut datagram = [&source[..], &destination, &len, &[0, 0], payload].concat();
    let sum = checksum(&pseudo(addresses, 17, &datagram));
    datagram[6..8].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    datagram
}

pub(crate) fn tcp(addresses: &[u8], ports: [u16; 2], flags: u8, payload: &[u8]) -> Vec<u8> {
    let [source, destination] = ports.map(u16::to_be_bytes);
    let head = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x10, 0, 0, 0, 0, 0];
    let mut segment = [&source[..], &destination, &head, payload].concat();
    let sum = checksum(&pseudo(addresses, 6, &segment));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// Ethernet, IPv4 and UDP.
pub(crate) fn udp4(src: [u8; 4], dst: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
    eth(0x0800, &ipv4(src, dst, 17, 64, &udp(&[src, dst].concat(), ports, b"payload")))
}

/// Ethernet, IPv4 and TCP with ACK.
pub(crate) fn tcp4(src: [u8; 4], dst: [u8; 4], ports: [u16; 2]) -> Vec<u8> {
    eth(0x0800, &ipv4(src, dst, 6, 64, &tcp(&[src, dst].concat(), ports, 0x10, b"payload")))
}

/// MPLS over UDP around an IP packet.
pub(crate) fn mpls_udp(label_entry: u32, inner: &[u8]) -> Vec<u8> {
    let len = (12 + inner.len() as u16).to_be_bytes();
    let datagram = [&[0xc0, 0, 0x19, 0xeb, len[0], len[1], 0, 0][..], &label_entry.to_be_bytes(), inner].concat();
    eth(0x0800, &ipv4([10, 9, 0, 1], [10, 9, 0, 2], 17, 64, &datagram))
}

/// Are the checksums of the IPv4 packet at `at`, and of TCP or UDP in it, right?
pub(crate) fn assert_right_checksums(frame: &[u8], at: usize) {
    assert_eq!(checksum(&frame[at..at + 20]), 0, "IPv4 header checksum");
    let end = at + usize::from(u16::from_be_bytes([frame[at + 2], frame[at + 3]]));
    let segment = &frame[at + 20..end];
    let protocol = frame[at + 9];
    let bare = protocol == 17 && segment[6..8] == [0, 0];
    if matches!(protocol, 6 | 17) && !bare {
        assert_eq!(checksum(&pseudo(&frame[at + 12..at + 20], protocol, segment)), 0, "L4 checksum");
    }
}

/// A NIC of a profile with ports 0 and 1 of 4 queues each.
pub(crate) fn nic_of(profile: &str) -> Nic {
    let mut nic = Nic::new(Profile::named(profile).unwrap(), Faults::default());
    nic.add_port(0, 4);
    nic.add_port(1, 4);
    nic
}

pub(crate) fn nic() -> Nic {
    nic_of("twin")
}

pub(crate) fn insert(nic: &mut Nic, attr: Attr, items: &[Item], actions: &[Action]) -> Result<Inserted, FlowError> {
    nic.insert(0, &attr, items, actions, T0)
}

/// Received on port 0: what became of it, and its octets.
pub(crate) fn receive(nic: &mut Nic, frame: &[u8]) -> (Outcome, Vec<u8>) {
    let mut frame = Frame::new(frame);
    let outcome = nic.process(0, &mut frame, T0);
    (outcome, frame.bytes().to_vec())
}

pub(crate) fn delivered(outcome: Outcome) -> Delivery {
    match outcome {
        Outcome::ToSoftware(delivery) => delivery,
        other => panic!("not delivered: {other:?}"),
    }
}

/// The mark that a frame received on port 0 gets.
pub(crate) fn mark_of(nic: &mut Nic, frame: &[u8]) -> Option<u32> {
    delivered(receive(nic, frame).0).mark
}

pub(crate) const fn plain(kind: ItemKind) -> Item<'static> {
    Item::any_of(kind)
}

/// Whole octets of an item's spec set at these places, the rest not matched.
pub(crate) fn fields(size: usize, set: &[(usize, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let (mut spec, mut mask) = (vec![0; size], vec![0; size]);
    for (at, octets) in set {
        spec[*at..*at + octets.len()].copy_from_slice(octets);
        mask[*at..*at + octets.len()].fill(0xff);
    }
    (spec, mask)
}

pub(crate) fn item<'a>(kind: ItemKind, fields: &'a (Vec<u8>, Vec<u8>)) -> Item<'a> {
    Item::masked(kind, &fields.0, &fields.1)
}

/// MARK and QUEUE 1.
pub(crate) fn mark(number: u32) -> [Action<'static>; 2] {
    [Action::Mark(number), Action::Queue(1)]
}
