//! Patterns.

use nic_twin::model::{Action, Attr, Cause, EINVAL, ENOTSUP, ErrorKind, Item, ItemKind as K, Outcome};

use crate::kit::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];

fn matches(items: &[Item], frame: &[u8]) -> bool {
    let mut nic = nic();
    insert(&mut nic, INGRESS, items, &mark(1)).unwrap();
    mark_of(&mut nic, frame).is_some()
}

#[test]
fn items_without_spec_match_presence() {
    let udp = udp4(A, B, [1, 2]);
    assert!(matches(&[plain(K::Eth), plain(K::Ipv4), plain(K::Udp)], &udp));
    assert!(!matches(&[plain(K::Eth), plain(K::Ipv4), plain(K::Tcp)], &udp));
    assert!(!matches(&[plain(K::Eth), plain(K::Ipv6)], &udp));
    assert!(!matches(&[plain(K::Eth), plain(K::Vlan)], &udp));
    assert!(matches(&[plain(K::Udp)], &udp), "layers may be left out at the bottom");
    assert!(matches(&[plain(K::Void), plain(K::Eth), plain(K::Void), plain(K::Ipv4)], &udp));
    assert!(matches(&[], &udp));
}

#[test]
fn a_bare_ethernet_item_matches_tagged_and_untagged_frames() {
    let bare = udp4(A, B, [1, 2]);
    let tagged = vlan(0x8100, 300, &bare);
    assert!(matches(&[plain(K::Eth), plain(K::Ipv4)], &tagged));
    let (spec, mut mask) = ([0; 20], [0; 20]);
    mask[14] = 1;
    let untagged_only = [Item::masked(K::Eth, &spec, &mask), plain(K::Ipv4)];
    assert!(matches(&untagged_only, &bare));
    assert!(!matches(&untagged_only, &tagged));
    let by_type = fields(20, &[(12, &[8, 0])]);
    assert!(!matches(&[item(K::Eth, &by_type), plain(K::Ipv4)], &tagged), "type is the TPID of a tagged frame");
}

#[test]
fn tags_are_matched_from_the_outside_in() {
    let twice = vlan(0x88a8, 7, &vlan(0x8100, 300, &udp4(A, B, [1, 2])));
    let (outer, inner) = (fields(8, &[(0, &[0, 7])]), fields(8, &[(0, &[1, 0x2c])]));
    assert!(matches(&[plain(K::Eth), item(K::Vlan, &outer), item(K::Vlan, &inner), plain(K::Ipv4)], &twice));
    assert!(!matches(&[plain(K::Eth), item(K::Vlan, &inner)], &twice));
    let (mut spec, mut mask) = ([0; 8], [0; 8]);
    mask[4] = 1;
    assert!(!matches(&[plain(K::Eth), Item::masked(K::Vlan, &spec, &mask)], &twice));
    spec[4] = 1;
    assert!(matches(&[plain(K::Eth), Item::masked(K::Vlan, &spec, &mask)], &twice));
}

#[test]
fn the_default_mask_is_used_when_a_spec_has_none() {
    let mut spec = [0; 20];
    spec[8] = 1; // a TTL that the packet has not; the default mask is of addresses
    spec[12..16].copy_from_slice(&A);
    spec[16..20].copy_from_slice(&B);
    let by_default = Item { kind: K::Ipv4, spec: Some(&spec), last: None, mask: None };
    assert!(matches(&[plain(K::Eth), by_default], &udp4(A, B, [1, 2])));
    assert!(!matches(&[plain(K::Eth), by_default], &udp4(B, A, [1, 2])));
    let vid = Item { kind: K::Vlan, spec: Some(&[0xe1, 0x2c, 0, 0]), last: None, mask: None };
    assert!(matches(&[plain(K::Eth), vid], &vlan(0x8100, 300, &udp4(A, B, [1, 2]))), "priority bits are not matched");
}

#[test]
fn bits_outside_the_mask_do_not_matter_but_on_mlx5_they_break_the_hit() {
    let (spec, mask) = ([0xff, 0xff, 0, 80], [0, 0, 0xff, 0xff]);
    let items = [plain(K::Eth), plain(K::Ipv4), Item::masked(K::Udp, &spec, &mask)];
    let packet = udp4(A, B, [5, 80]);
    assert!(matches(&items, &packet));
    let attr = Attr { group: 0, ..INGRESS };
    for (profile, hits) in [("mlx5-sws", true), ("mlx5-hws", false)] {
        let mut nic = nic_of(profile);
        insert(&mut nic, attr, &items, &mark(1)).unwrap();
        assert_eq!(mark_of(&mut nic, &packet).is_some(), hits, "{profile}");
    }
}

#[test]
fn a_last_spans_an_inclusive_range_after_masking() {
    // The guide's example: 10.1.2.3 to 10.3.4.5 under 255.255.0.0 is 10.1.0.0 to 10.3.255.255.
    let mut spec = [0; 20];
    let (mut last, mut mask) = (spec, spec);
    spec[12..16].copy_from_slice(&[10, 1, 2, 3]);
    last[12..16].copy_from_slice(&[10, 3, 4, 5]);
    mask[12..14].fill(0xff);
    let items = [plain(K::Eth), Item { kind: K::Ipv4, spec: Some(&spec), last: Some(&last), mask: Some(&mask) }];
    for (address, inside) in [
        ([10, 0, 255, 255], false),
        ([10, 1, 0, 0], true),
        ([10, 2, 9, 9], true),
        ([10, 3, 255, 255], true),
        ([10, 4, 0, 0], false),
    ] {
        assert_eq!(matches(&items, &udp4(address, B, [1, 2])), inside, "{address:?}");
    }
}

#[test]
fn l4_items_never_match_fragments() {
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    for flags in [0x2000u16, 0x2001, 0x0001] {
        let mut frame = udp4(A, B, [1, 2]);
        frame[20..22].copy_from_slice(&flags.to_be_bytes());
        assert!(!matches(&items, &frame), "{flags:#x}");
        assert!(matches(&items[..2], &frame));
    }
    let mut do_not_fragment = udp4(A, B, [1, 2]);
    do_not_fragment[20] = 0x40;
    assert!(matches(&items, &do_not_fragment));
}

#[test]
fn items_behind_mpls_are_about_the_inner_packet() {
    let inner = ipv4(A, B, 6, 9, &tcp(&[A, B].concat(), [1, 443], 0x10, b""));
    let tunnel = mpls_udp(280 << 12 | 0x100 | 63, &inner);
    let outer_dst = fields(20, &[(16, &[10, 9, 0, 2])]);
    let port = fields(8, &[(2, &6635u16.to_be_bytes())]);
    let label = (vec![0, 0x11, 0x81, 63], vec![0xff, 0xff, 0xf1, 0xff]);
    let inner_src = fields(20, &[(12, &A)]);
    let https = fields(20, &[(2, &443u16.to_be_bytes())]);
    let items = [
        plain(K::Eth),
        item(K::Ipv4, &outer_dst),
        item(K::Udp, &port),
        item(K::Mpls, &label),
        item(K::Ipv4, &inner_src),
        item(K::Tcp, &https),
    ];
    assert!(matches(&items, &tunnel));
    assert!(!matches(&items, &mpls_udp(281 << 12 | 0x100 | 63, &inner)));
    assert!(!matches(&items, &mpls_udp(280 << 12 | 63, &inner)), "not the bottom of the stack");
    assert!(!matches(&[plain(K::Eth), plain(K::Ipv4), plain(K::Tcp)], &tunnel), "the outer packet is UDP");
}

#[test]
fn ipv6_extension_headers_are_told_and_skipped() {
    let (src, dst) = ([1; 16], [2; 16]);
    let segment = tcp(&[src, dst].concat(), [1, 2], 0x10, b"");
    let direct = eth(0x86dd, &ipv6(src, dst, 6, 64, &segment));
    let hop = eth(0x86dd, &ipv6(src, dst, 0, 64, &[&[6, 0, 0, 0, 0, 0, 0, 0], &segment[..]].concat()));
    let fragment = eth(0x86dd, &ipv6(src, dst, 44, 64, &[&[6, 0, 0, 1, 0, 0, 0, 9], &segment[..]].concat()));
    let tcp6 = [plain(K::Eth), plain(K::Ipv6), plain(K::Tcp)];
    assert!(matches(&tcp6, &direct) && matches(&tcp6, &hop) && !matches(&tcp6, &fragment));
    let next_is_tcp = fields(44, &[(6, &[6])]);
    let exact = [plain(K::Eth), item(K::Ipv6, &next_is_tcp), plain(K::Tcp)];
    assert!(matches(&exact, &direct) && !matches(&exact, &hop), "the header's own next header");
    let (mut spec, mut mask) = ([0; 44], [0; 44]);
    (spec[40], mask[40]) = (4, 4);
    assert!(matches(&[plain(K::Eth), Item::masked(K::Ipv6, &spec, &mask)], &fragment));
    assert!(!matches(&[plain(K::Eth), Item::masked(K::Ipv6, &spec, &mask)], &direct));
    assert!(matches(&[plain(K::Eth), plain(K::Ipv6), plain(K::Ipv6FragExt)], &fragment));
}

/// Spec and mask of an integrity item.
fn integrity(level: u8, bits: u8) -> (Vec<u8>, Vec<u8>) {
    let mut spec = vec![0; 16];
    (spec[0], spec[8]) = (level, bits);
    (spec.clone(), spec)
}

#[test]
fn integrity_bits_tell_right_from_wrong_at_both_levels() {
    let good = udp4(A, B, [1, 2]);
    let mut bad_ip = good.clone();
    bad_ip[24] ^= 1;
    let mut bad_l4 = good.clone();
    bad_l4[40] ^= 1;
    let mut too_long = good.clone();
    too_long.pop();
    // packet_ok, l3_ok, l4_ok, ipv4_csum_ok, l4_csum_ok, l3_len_ok
    for (frame, right) in [(&good, 0xed), (&bad_ip, 0x80), (&bad_l4, 0xa4), (&too_long, 0x20)] {
        for bit in [0, 2, 3, 5, 6, 7] {
            let bits = integrity(0, 1 << bit);
            let hit = matches(&[plain(K::Eth), plain(K::Ipv4), item(K::Integrity, &bits)], frame);
            let l4_with_bad_addresses = frame == &bad_ip && bit > 2 && bit != 5 && bit != 7;
            if !l4_with_bad_addresses {
                assert_eq!(hit, right >> bit & 1 == 1, "bit {bit} of {frame:02x?}");
            }
        }
    }
    let mut inner = ipv4(A, B, 17, 9, &udp(&[A, B].concat(), [1, 2], b""));
    let level2 = integrity(2, 0x24);
    let items = [plain(K::Eth), item(K::Integrity, &level2)];
    assert!(matches(&items, &mpls_udp(0x110 | 63, &inner)));
    inner[8] ^= 1;
    assert!(!matches(&items, &mpls_udp(0x110 | 63, &inner)));
}

#[test]
fn what_a_tunnel_carries_ends_with_the_outer_datagram() {
    let inner = ipv4(A, B, 17, 9, &udp(&[A, B].concat(), [1, 2], b"inside"));
    let level2 = integrity(2, 0x24);
    let items = [plain(K::Eth), item(K::Integrity, &level2)];
    let whole = mpls_udp(0x110 | 63, &inner);
    let len = 12 + inner.len();
    for (len, hit) in [
        (len, true),
        (len + 1, false),
        (0xffff, false),
        (len - 1, false),
        (20, false),
        (12, false),
        (8, false),
        (0, false),
    ] {
        let mut frame = whole.clone();
        frame[38..40].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        assert_eq!(matches(&items, &frame), hit, "UDP length {len}");
    }
}

#[test]
fn nonsense_is_refused_with_the_item_at_fault() {
    let refusal = |items: &[Item]| insert(&mut nic(), INGRESS, items, &mark(1)).unwrap_err();
    let missing_l3 = refusal(&[plain(K::Eth), plain(K::Udp)]);
    assert_eq!((missing_l3.errno, missing_l3.cause), (EINVAL, Cause::Item(1)));
    assert_eq!(refusal(&[plain(K::Ipv4), plain(K::Eth)]).cause, Cause::Item(1));
    assert_eq!(refusal(&[plain(K::Eth), plain(K::Ipv4), plain(K::Ipv4)]).cause, Cause::Item(2));
    assert_eq!(refusal(&[plain(K::Eth), plain(K::Ipv4), plain(K::Tcp), plain(K::Mpls)]).cause, Cause::Item(3));
    assert_eq!(refusal(&[plain(K::Eth), plain(K::Ipv6), plain(K::Icmp)]).errno, EINVAL);
    assert_eq!(refusal(&[plain(K::Other)]).errno, ENOTSUP);
    let third = [plain(K::Eth), plain(K::Vlan), plain(K::Vlan), plain(K::Vlan)];
    assert_eq!(refusal(&third).errno, ENOTSUP);
    let octets = [1; 20];
    let no_spec = Item { kind: K::Ipv4, spec: None, last: None, mask: Some(&octets) };
    assert_eq!(refusal(&[no_spec]).kind, ErrorKind::ItemMask);
    let no_spec = Item { kind: K::Ipv4, spec: None, last: Some(&octets), mask: None };
    assert_eq!(refusal(&[no_spec]).kind, ErrorKind::ItemLast);
    let below = Item { kind: K::Udp, spec: Some(&[0, 9]), last: Some(&[0, 8]), mask: Some(&[0xff, 0xff]) };
    assert_eq!(refusal(&[below]).kind, ErrorKind::ItemLast);
    let port = [1, 0];
    let represented = Item { kind: K::RepresentedPort, spec: Some(&port), last: None, mask: None };
    assert_eq!(refusal(&[represented]).errno, EINVAL, "requires transfer");
}

#[test]
fn ports_are_told_apart_by_number_and_by_side() {
    let frame = udp4(A, B, [1, 2]);
    let port = 0u16.to_le_bytes();
    for (kind, from_wire, from_application) in [(K::RepresentedPort, true, false), (K::PortRepresentor, false, true)] {
        let mut nic = nic();
        let item = Item { kind, spec: Some(&port), last: None, mask: None };
        insert(&mut nic, TRANSFER, &[item, plain(K::Eth)], &[Action::Drop]).unwrap();
        let mut at = |application: bool, port| {
            let mut frame = nic_twin::model::Frame::new(&frame);
            let outcome =
                if application { nic.transmit(port, &mut frame, None, T0) } else { nic.process(port, &mut frame, T0) };
            matches!(outcome, Outcome::Drop(_))
        };
        assert_eq!((at(false, 0), at(true, 0), at(false, 1)), (from_wire, from_application, false), "{kind:?}");
    }
}
