//! Actions against octets made by hand.

use nic_twin::model::{
    Action, Attr, Cause, DropReason, EINVAL, FieldId, Frame, Item, ItemKind as K, Modify, ModifyOp, Outcome,
};

use crate::kit::*;

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const OUT: Action = Action::RepresentedPort(1);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The frame after a transfer rule that sends it out of port 1.
fn rewritten(items: &[Item], actions: &[Action], frame: &[u8]) -> Vec<u8> {
    let mut nic = nic();
    insert(&mut nic, TRANSFER, items, actions).unwrap();
    let (outcome, out) = receive(&mut nic, frame);
    assert_eq!(outcome, Outcome::Forward { port: 1 });
    out
}

fn modify(op: ModifyOp, field: FieldId, width: u32, value: &[u8]) -> Action<'static> {
    let mut octets = [0; 16];
    octets[..value.len()].copy_from_slice(value);
    Action::ModifyField(Modify { op, field, level: 0, offset: 0, width, value: Some(octets) })
}

#[test]
fn the_golden_mpls_over_udp_packet_is_made_octet_by_octet() {
    let (one, two) = ([1, 1, 1, 1], [2, 2, 2, 2]);
    let datagram = udp(&[one, two].concat(), [7936, 7936], &[0; 80]);
    let frame = eth(0x0800, &ipv4(one, two, 17, 64, &datagram));
    assert_eq!(frame.len(), 14 + 108);
    // Lengths and the header checksum are left to the NIC.
    let header = hex("020000000002 020000000001 0800
        45000000 00010000 4011 0000 01010202 02020101  eb06c822 0000 0000  0003013f");
    let out = rewritten(
        &[plain(K::Eth), plain(K::Ipv4)],
        &[Action::RawDecap(&frame[..14]), Action::DecTtl, Action::RawEncap(&header), OUT],
        &frame,
    );
    let expected = hex("0800 4500008c 00010000 4011745b 01010202 02020101 eb06c822 00780000 0003013f
        4500006c 00010000 3f11757b 01010101 02020202");
    assert_eq!(out[12..12 + expected.len()], expected);
    assert_eq!(out[66..], frame[34..], "the payload is as it was");
}

#[test]
fn decapsulation_leaves_the_inner_packet_with_a_new_ethernet_header() {
    let inner = ipv4(A, B, 17, 9, &udp(&[A, B].concat(), [1, 2], b"inside"));
    let tunnel = mpls_udp(280 << 12 | 0x100 | 63, &inner);
    let header = hex("0a0000000001 0a0000000002 8100 012c 0800");
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp), plain(K::Mpls), plain(K::Ipv4)];
    let actions = [Action::RawDecap(&tunnel[..46]), Action::SetTtl(8), Action::RawEncap(&header), OUT];
    let mut expected = inner.clone();
    expected[8] = 8;
    expected[10..12].fill(0);
    let sum = checksum(&expected[..20]).to_be_bytes();
    expected[10..12].copy_from_slice(&sum);
    assert_eq!(rewritten(&items, &actions, &tunnel), [&header[..], &expected].concat());

    let mut padded = tunnel.clone();
    padded.extend([0xaa; 9]);
    assert_eq!(rewritten(&items, &actions, &padded), [&header[..], &expected].concat(), "padding is not carried on");
}

#[test]
fn a_packet_that_ends_without_ethernet_header_is_dropped_as_malformed() {
    let frame = udp4(A, B, [1, 2]);
    let cut_l2: &[Action] = &[Action::RawDecap(&frame[..14]), OUT];
    let tag_assumed: &[Action] = &[Action::RawDecap(&vlan(0x8100, 1, &frame)[..18]), OUT];
    for actions in [cut_l2, tag_assumed] {
        let mut nic = nic();
        insert(&mut nic, TRANSFER, &[plain(K::Eth)], actions).unwrap();
        assert_eq!(receive(&mut nic, &frame).0, Outcome::Drop(DropReason::Malformed));
        assert_eq!(nic.stats().malformed, 1);
    }
}

#[test]
fn addresses_and_ports_change_with_all_checksums() {
    for (frame, l4) in [(udp4(A, B, [1, 2]), K::Udp), (tcp4(A, B, [1, 2]), K::Tcp)] {
        let out = rewritten(
            &[plain(K::Eth), plain(K::Ipv4), plain(l4)],
            &[
                Action::SetIpv4Src([192, 0, 2, 1]),
                Action::SetIpv4Dst([198, 51, 100, 7]),
                Action::SetTpSrc(40000),
                Action::SetTpDst(443),
                Action::DecTtl,
                Action::SetIpv4Dscp(46),
                OUT,
            ],
            &frame,
        );
        assert_eq!(out[26..34], [192, 0, 2, 1, 198, 51, 100, 7]);
        assert_eq!(out[34..38], [0x9c, 0x40, 0x01, 0xbb]);
        assert_eq!((out[15], out[22]), (46 << 2, 63));
        assert_right_checksums(&out, 14);
    }
}

#[test]
fn a_udp_checksum_of_none_stays_and_one_of_zero_is_sent_as_ones() {
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Udp)];
    let mut bare = udp4(A, B, [1, 2]);
    bare[40..42].fill(0);
    let out = rewritten(&items, &[Action::SetTpDst(99), OUT], &bare);
    assert_eq!(out[40..42], [0, 0]);
    // The port that makes the sum all ones: the checksum would be 0.
    let frame = udp4(A, B, [1, 2]);
    let mut blank = frame.clone();
    blank[36..38].fill(0);
    blank[40..42].fill(0);
    let rest = checksum(&[&blank[26..34], &[0, 17, 0, 15], &blank[34..]].concat());
    let out = rewritten(&items, &[Action::SetTpDst(rest), OUT], &frame);
    assert_eq!(out[40..42], [0xff, 0xff]);
    assert_right_checksums(&out, 14);
}

#[test]
fn ipv6_rewrites_fix_the_transport_checksum() {
    let (src, dst, new) = ([1; 16], [2; 16], [3; 16]);
    let frame = eth(0x86dd, &ipv6(src, dst, 17, 64, &udp(&[src, dst].concat(), [1, 2], b"x")));
    let out = rewritten(
        &[plain(K::Eth), plain(K::Ipv6), plain(K::Udp)],
        &[Action::SetIpv6Dst(new), Action::DecTtl, Action::SetIpv6Dscp(10), OUT],
        &frame,
    );
    let mut expected = eth(0x86dd, &ipv6(src, new, 17, 63, &udp(&[src, new].concat(), [1, 2], b"x")));
    expected[14..16].copy_from_slice(&[0x62, 0x80]);
    assert_eq!(out, expected);
}

#[test]
fn tags_are_pushed_changed_and_popped() {
    let bare = udp4(A, B, [1, 2]);
    let push = [Action::PushVlan(0x8100), Action::SetVlanVid(300), Action::SetVlanPcp(5), OUT];
    let tagged = vlan(0x8100, 5 << 13 | 300, &bare);
    assert_eq!(rewritten(&[plain(K::Eth)], &push, &bare), tagged);
    assert_eq!(rewritten(&[plain(K::Eth), plain(K::Vlan)], &[Action::PopVlan, OUT], &tagged), bare);
    let second = rewritten(&[plain(K::Eth)], &[Action::PushVlan(0x88a8), OUT], &tagged);
    assert_eq!(second, vlan(0x88a8, 5 << 13 | 300, &tagged), "a pushed tag begins as a copy of the outer one");
    let vid = modify(ModifyOp::Set, FieldId::VlanId, 12, &[0x0f, 0xff]);
    assert_eq!(rewritten(&[plain(K::Eth)], &[vid, OUT], &tagged), vlan(0x8100, 5 << 13 | 0xfff, &bare));
}

#[test]
fn modify_field_does_what_the_single_actions_do() {
    let frame = tcp4(A, B, [1, 2]);
    let items = [plain(K::Eth), plain(K::Ipv4), plain(K::Tcp)];
    let single = rewritten(
        &items,
        &[Action::SetMacDst([9; 6]), Action::SetIpv4Dst([7; 4]), Action::SetTpSrc(77), Action::DecTtl, OUT],
        &frame,
    );
    let fields = rewritten(
        &items,
        &[
            modify(ModifyOp::Set, FieldId::MacDst, 48, &[9; 6]),
            modify(ModifyOp::Set, FieldId::Ipv4Dst, 32, &[7; 4]),
            modify(ModifyOp::Set, FieldId::TcpSrc, 16, &[0, 77]),
            modify(ModifyOp::Add, FieldId::Ipv4Ttl, 8, &[0xff]),
            OUT,
        ],
        &frame,
    );
    assert_eq!(fields, single);
    // The guide's example: the third octet of a MAC address.
    let octet = Action::ModifyField(Modify {
        op: ModifyOp::Set,
        field: FieldId::MacDst,
        level: 0,
        offset: 16,
        width: 8,
        value: Some([1, 2, 0x85, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    });
    assert_eq!(rewritten(&items, &[octet, OUT], &frame)[..6], [2, 0, 0x85, 0, 0, 1]);
}

#[test]
fn marks_metadata_and_tags_go_with_the_packet() {
    let mut nic = nic();
    let one = Attr { group: 1, ..INGRESS };
    insert(
        &mut nic,
        INGRESS,
        &[plain(K::Eth)],
        &[
            Action::Mark(7),
            Action::SetMeta { data: 0xabcd, mask: 0xff },
            Action::SetTag { data: 5, mask: 0xff, index: 2 },
            Action::Jump(1),
        ],
    )
    .unwrap();
    let (mark, meta) = (7u32.to_le_bytes(), 0xcdu32.to_le_bytes());
    let tag = [5, 0, 0, 0, 2, 0, 0, 0];
    let exact = |kind, spec| Item { kind, spec: Some(spec), last: None, mask: None };
    let items = [exact(K::Mark, &mark), exact(K::Meta, &meta), exact(K::Tag, &tag)];
    insert(&mut nic, one, &items, &[Action::Flag, Action::Queue(3)]).unwrap();
    let delivery = delivered(receive(&mut nic, &udp4(A, B, [1, 2])).0);
    assert_eq!((delivery.mark, delivery.meta, delivery.queue, delivery.flag), (Some(7), Some(0xcd), 3, true));
}

#[test]
fn spreading_uses_the_given_queues_and_keeps_a_flow_on_one() {
    let mut nic = nic();
    insert(&mut nic, INGRESS, &[plain(K::Eth)], &[Action::Rss(&[1, 3])]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for port in 0..64 {
        let frame = udp4(A, B, [port, 2]);
        let queue = delivered(receive(&mut nic, &frame).0).queue;
        assert_eq!(delivered(receive(&mut nic, &frame).0).queue, queue);
        seen.insert(queue);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn lists_that_the_guide_forbids_are_refused_with_the_action_at_fault() {
    let refusal = |items: &[Item], actions: &[Action]| {
        let error = insert(&mut nic(), INGRESS, items, actions).unwrap_err();
        assert_eq!(error.errno, EINVAL, "{error}");
        error.cause
    };
    let eth = [plain(K::Eth)];
    assert_eq!(refusal(&eth, &[Action::Mark(1)]), Cause::None);
    assert_eq!(refusal(&eth, &[Action::Drop, Action::Queue(1)]), Cause::Action(1));
    assert_eq!(refusal(&eth, &[Action::Queue(4)]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::Rss(&[])]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::Jump(0)]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::PopVlan, Action::Drop]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::SetIpv4Src(A), Action::Drop]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::DecTtl, Action::Drop]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::Count(1), Action::Count(1), Action::Drop]), Cause::Action(1));
    assert_eq!(refusal(&eth, &[Action::RawEncap(&[0; 15]), Action::Drop]), Cause::Action(0));
    assert_eq!(refusal(&eth, &[Action::RepresentedPort(1)]), Cause::Action(0));
    let wide = modify(ModifyOp::Set, FieldId::Ipv4Ttl, 9, &[1]);
    assert_eq!(refusal(&eth, &[wide, Action::Drop]), Cause::Action(0));
    assert_eq!(insert(&mut nic(), TRANSFER, &eth, &[Action::RepresentedPort(9)]).unwrap_err().errno, EINVAL);
}

#[test]
fn headers_can_be_put_on_a_frame_again_and_again() {
    let mut frame = Frame::new(b"tail");
    let mut expected = b"tail".to_vec();
    for round in 0..100u8 {
        frame.prepend(&[round; 46]);
        expected.splice(0..0, [round; 46]);
    }
    frame.insert(3, b"xyz");
    expected.splice(3..3, *b"xyz");
    frame.remove(1, 4);
    expected.drain(1..5);
    assert_eq!(frame.bytes(), expected);
}
