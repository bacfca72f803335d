//! Frames made by hand, or by etherparse, through objects as the record tells them.

use std::fmt::Write as _;

use etherparse::{Ethernet2Header, IpNumber, PacketBuilder, TcpHeader, VlanId};

use super::{
    params::{
        Field, INNER_LAYER, MPLS_OVER_UDP, OUTER_LAYER, Params, REGISTER_A, REGISTERS_C, SECOND_TAG, SOURCE_PORT,
    },
    *,
};
use crate::record::{Change, Record};

const WIRE: Port = Port { pf: 0, vport: UPLINK };
const ONE: Port = Port { pf: 0, vport: 1 };
const TWO: Port = Port { pf: 0, vport: 2 };
const STATION: [u8; 6] = [0, 0, 0x5e, 0, 0x53, 1];
const TENANT: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OUTER: [[u8; 4]; 2] = [[192, 0, 2, 1], [198, 51, 100, 1]];
const INNER: [[u8; 4]; 2] = [[10, 1, 0, 10], [10, 9, 0, 20]];

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// What a driver does, in the lines of a record.
struct Driver {
    record: Record,
    last: u32,
}

impl Driver {
    fn new() -> Self {
        Self { record: Record::new(), last: 0 }
    }

    fn make(&mut self, kind: &str, members: &str) -> u32 {
        self.last += 1;
        let line = format!(r#"{{"e": "{kind}", "id": {}, {members}}}"#, self.last);
        self.record.line(&line).unwrap();
        self.last
    }

    fn domain(&mut self, kind: &str) -> u32 {
        self.make("domain", &format!(r#""pf": 0, "type": "{kind}""#))
    }

    fn table(&mut self, domain: u32, level: u32) -> u32 {
        self.make("table", &format!(r#""domain": {domain}, "level": {level}"#))
    }

    /// An action; `""` behind its kind: it has no members.
    fn action(&mut self, kind: &str, members: &str) -> u32 {
        let comma = if members.is_empty() { "" } else { ", " };
        self.make("action", &format!(r#""kind": "{kind}"{comma}{members}"#))
    }

    fn modify(&mut self, commands: &[u32]) -> u32 {
        let octets: Vec<u8> = commands.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.action("modify", &format!(r#""commands": "{}""#, hex(&octets)))
    }

    fn reformat(&mut self, kind: &str, header: &[u8]) -> u32 {
        self.action("reformat", &format!(r#""type": "{kind}", "data": "{}""#, hex(header)))
    }

    fn vport(&mut self, vport: u16) -> u32 {
        self.action("vport", &format!(r#""vport": {vport}"#))
    }

    /// A rule that matches whole fields.
    fn rule(&mut self, table: u32, priority: u16, fields: &[(Field, u64)], actions: &[u32]) -> u32 {
        let (mut mask, mut value) = (Params::default(), Params::default());
        for (field, wanted) in fields {
            mask.set(*field, u64::MAX);
            value.set(*field, *wanted);
        }
        let mask = hex(mask.octets());
        let matcher = self
            .make("matcher", &format!(r#""table": {table}, "priority": {priority}, "criteria": 15, "mask": "{mask}""#));
        let value = hex(value.octets());
        self.make("rule", &format!(r#""matcher": {matcher}, "value": "{value}", "actions": {actions:?}"#))
    }

    fn gone(&mut self, id: u32) -> Change {
        self.record.line(&format!(r#"{{"e": "gone", "id": {id}}}"#)).unwrap()
    }

    /// A switch, whose root leads to a table; and a receive side that gives all to software. That table.
    fn switch(&mut self) -> u32 {
        let fdb = self.domain("fdb");
        let (root, table) = (self.table(fdb, 0), self.table(fdb, 1));
        let jump = self.action("table", &format!(r#""table": {table}"#));
        self.rule(root, 1, &[], &[jump]);
        let rx = self.domain("rx");
        let (root, queue) = (self.table(rx, 0), self.action("qp", r#""qp": 1"#));
        self.rule(root, 1, &[], &[queue]);
        table
    }
}

fn ethernet() -> etherparse::PacketBuilderStep<Ethernet2Header> {
    PacketBuilder::ethernet2(TENANT, STATION)
}

fn tcp(ttl: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = TcpHeader { acknowledgment_number: 7, ack: true, ..TcpHeader::new(4000, 80, 5, 1024) };
    ethernet().ipv4(INNER[0], INNER[1], ttl).tcp_header(header).write(&mut frame, b"payload").unwrap();
    frame
}

fn tagged(tags: &[(u16, u16)]) -> Vec<u8> {
    let plain = tcp(64);
    let tags: Vec<u8> = tags.iter().flat_map(|(tpid, tci)| [tpid.to_be_bytes(), tci.to_be_bytes()].concat()).collect();
    [&plain[..12], &tags, &plain[12..]].concat()
}

/// MPLS over UDP (RFC 7510), built by etherparse; UDP's checksum is 0.
fn tunnelled(ttl: u8, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let inside = [&0x1234_5109_u32.to_be_bytes()[..], &tcp(ttl)[14..]].concat();
    ethernet().ipv4(OUTER[0], OUTER[1], 64).udp(49152, port).write(&mut frame, &inside).unwrap();
    frame[40..42].fill(0);
    frame
}

/// The headers of a tunnel, with lengths and checksum left open.
fn tunnel_header() -> Vec<u8> {
    let mut header = tunnelled(64, 6635)[..46].to_vec();
    for open in [16..18, 24..26, 38..40] {
        header[open].fill(0);
    }
    header
}

fn sent(passage: &Passage) -> (Port, &[u8]) {
    match &passage.outcome {
        Outcome::Sent(port, data) => (*port, data),
        other => panic!("{other:?}"),
    }
}

fn is_software(passage: &Passage, frame: &[u8]) -> bool {
    passage.outcome == Outcome::Software(frame.to_vec())
}

/// Does a rule of these fields take the frame?
fn takes(fields: &[(Field, u64)], frame: &[u8]) -> bool {
    let mut driver = Driver::new();
    let table = driver.switch();
    let drop = driver.action("drop", "");
    driver.rule(table, 1, fields, &[drop]);
    match receive(&driver.record, ONE, frame).outcome {
        Outcome::Lost(Lost::Drop) => true,
        Outcome::Software(data) if data == frame => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_rule_matches_comes_to_software_as_it_came() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let out = driver.vport(2);
    let rule = driver.rule(table, 1, &[(OUTER_LAYER.ttl, 64)], &[out]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))), (TWO, &tcp(64)[..]));
    let passage = receive(&driver.record, ONE, &tcp(63));
    assert!(is_software(&passage, &tcp(63)), "{passage:?}");
    assert_eq!(passage.steps.iter().filter(|step| step.rule.is_some()).count(), 2, "the jump and the queue");
    assert_eq!(driver.gone(rule), Change::RuleGone(rule));
    assert!(is_software(&receive(&driver.record, ONE, &tcp(64)), &tcp(64)));
}

#[test]
fn a_function_without_rules_receives_nothing() {
    assert_eq!(receive(&Record::new(), WIRE, &tcp(64)).outcome, Outcome::Lost(Lost::Unreceived));
}

#[test]
fn the_lowest_priority_is_asked_first_whatever_is_older() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let (second, first) = (driver.vport(2), driver.vport(UPLINK));
    driver.rule(table, 7, &[(OUTER_LAYER.ttl, 64)], &[second]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))).0, TWO);
    driver.rule(table, 3, &[(OUTER_LAYER.version, 4)], &[first]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))).0, WIRE);
}

#[test]
fn a_block_that_is_no_criterion_is_not_looked_at() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let out = driver.vport(2);
    let mut mask = Params::default();
    mask.set(OUTER_LAYER.ttl, 0xff);
    mask.set(SOURCE_PORT, 0xffff);
    let mask = hex(mask.octets());
    let matcher =
        driver.make("matcher", &format!(r#""table": {table}, "priority": 1, "criteria": 2, "mask": "{mask}""#));
    let mut value = Params::default();
    value.set(SOURCE_PORT, 1);
    let value = hex(value.octets());
    driver.make("rule", &format!(r#""matcher": {matcher}, "value": "{value}", "actions": [{out}]"#));
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))).0, TWO);
    assert!(is_software(&receive(&driver.record, TWO, &tcp(64)), &tcp(64)));
}

/// rdma-core dr_ste_v1.c: `first_vlan_qualifier` is none, C or S.
#[test]
fn a_tag_is_none_or_c_or_s_and_each_is_told_from_the_others() {
    let vlan = OUTER_LAYER.vlan;
    let [none, c, s, other] = [&[][..], &[(0x8100, 0x0ffd)], &[(0x88a8, 0x0ffd)], &[(0x9100, 0x0ffd)]].map(tagged);
    let rules = [&[(vlan.cvlan, 0)][..], &[(vlan.cvlan, 1), (vlan.vid, 0xffd)], &[(vlan.svlan, 1), (vlan.vid, 0xffd)]];
    assert_eq!(rules.map(|rule| takes(rule, &none)), [true, false, false]);
    assert_eq!(rules.map(|rule| takes(rule, &c)), [false, true, false]);
    assert_eq!(rules.map(|rule| takes(rule, &s)), [false, false, true]);
    assert_eq!(rules.map(|rule| takes(rule, &other)), [true, false, false], "0x9100 is a type of payload");
    assert!(!takes(&[(vlan.cvlan, 0), (OUTER_LAYER.ethertype, 0x0800)], &other));
}

#[test]
fn a_second_tag_is_seen_only_by_who_asks_for_it() {
    let double = tagged(&[(0x8100, 5), (0x8100, 7)]);
    let first = [(OUTER_LAYER.vlan.cvlan, 1), (OUTER_LAYER.vlan.vid, 5), (OUTER_LAYER.ttl, 64)];
    assert!(takes(&first, &double), "the rule hops VLANs, as the driver wrote it");
    assert!(!takes(&[first[0], first[1], (SECOND_TAG.cvlan, 0)], &double));
    assert!(takes(&[(SECOND_TAG.cvlan, 1), (SECOND_TAG.vid, 7)], &double));
}

#[test]
fn parts_of_packets_and_options_are_seen() {
    let mut first = tcp(64);
    first[20] |= 0x20;
    let mut later = tcp(64);
    later[21] = 3;
    let ports = [(OUTER_LAYER.tcp_ports[1], 80)];
    assert_eq!([&tcp(64), &first, &later].map(|frame| takes(&ports, frame)), [true, true, false]);
    let whole = [(OUTER_LAYER.fragment, 0)];
    assert_eq!([&tcp(64), &first, &later].map(|frame| takes(&whole, frame)), [true, false, false]);
    let mut options = tcp(64);
    options[14] = 0x46;
    options.splice(34..34, [1, 1, 1, 0]);
    assert!(takes(&[(OUTER_LAYER.ihl, 6), ports[0]], &options) && !takes(&[(OUTER_LAYER.ihl, 5)], &options));
    assert!(
        !takes(&[(OUTER_LAYER.ipv4_checksum_ok, 1)], &options) && takes(&[(OUTER_LAYER.ipv4_checksum_ok, 1)], &tcp(1))
    );
}

#[test]
fn integrity_is_of_lengths_and_checksums() {
    let bits = |layer: &params::Layer| [layer.l3_ok, layer.ipv4_checksum_ok, layer.l4_ok, layer.l4_checksum_ok];
    let seen = |frame: &[u8]| {
        let fields = parse(frame).fields;
        [bits(&OUTER_LAYER), bits(&INNER_LAYER)].map(|bits| bits.map(|bit| fields.get(bit)))
    };
    assert_eq!(seen(&tcp(64)), [[1; 4], [0; 4]]);
    assert_eq!(seen(&tunnelled(64, 6635)), [[1; 4]; 2], "UDP's checksum is none, and that is no wrong one");
    let mut payload = tcp(64);
    *payload.last_mut().unwrap() ^= 1;
    assert_eq!(seen(&payload)[0], [1, 1, 1, 0]);
    let mut length = tcp(64);
    length[17] += 1;
    assert_eq!(seen(&length)[0], [0, 0, 1, 0], "the header checksum covers the length");
    let mut offset = tcp(64);
    offset[46] = 0x40;
    assert_eq!(seen(&offset)[0][2], 0, "a TCP header of four words");
    let mut v6 = Vec::new();
    ethernet().ipv6([1; 16], [2; 16], 9).udp(1, 2).write(&mut v6, b"payload").unwrap();
    assert_eq!(seen(&v6)[0], [1; 4]);
    v6[61] = 0;
    v6[60] = 0;
    assert_eq!(seen(&v6)[0][3], 0, "over IPv6 there is always one");
}

#[test]
fn ipv6_shows_the_protocol_after_extension_headers_and_its_fragments() {
    let mut plain = Vec::new();
    ethernet().ipv6([1; 16], [2; 16], 9).udp(1, 2).write(&mut plain, b"payload").unwrap();
    let key =
        [(OUTER_LAYER.version, 6), (OUTER_LAYER.protocol, 17), (OUTER_LAYER.udp_ports[1], 2), (OUTER_LAYER.ttl, 9)];
    assert!(takes(&key, &plain) && takes(&[(OUTER_LAYER.source[0], 0x0101_0101)], &plain));
    let with = |kind: u8, header: [u8; 8]| {
        let mut frame = plain.clone();
        frame[20] = kind;
        frame[19] += 8;
        frame.splice(54..54, header);
        frame
    };
    let options = with(60, [17, 0, 1, 4, 0, 0, 0, 0]);
    assert!(takes(&key, &options), "destination options hit");
    let [whole, later] = [[17, 0, 0, 0, 0, 0, 0, 9], [17, 0, 0, 8, 0, 0, 0, 9]].map(|header| with(44, header));
    assert!(takes(&key, &whole) && !takes(&key, &later));
    assert_eq!(
        [&plain, &options, &whole, &later].map(|frame| takes(&[(OUTER_LAYER.fragment, 0)], frame)),
        [true, true, false, false]
    );
}

#[test]
fn what_is_inside_a_tunnel_is_seen_behind_port_6635_only() {
    let inside =
        [(INNER_LAYER.version, 4), (INNER_LAYER.tcp_ports[1], 80), (INNER_LAYER.ttl, 33), (MPLS_OVER_UDP, 0x1234_5109)];
    assert!(takes(&inside, &tunnelled(33, 6635)) && !takes(&inside[..1], &tunnelled(33, 51234)));
    assert!(!takes(&inside, &tunnelled(34, 6635)));
}

#[test]
fn a_ttl_is_written_and_the_checksum_follows() {
    let mut driver = Driver::new();
    let table = driver.switch();
    // SET, field 0x0a (OUT_IPV4_TTL), eight bits.
    let (ttl, out) = (driver.modify(&[0x100a_0008, 63]), driver.vport(2));
    driver.rule(table, 1, &[(OUTER_LAYER.ttl, 64)], &[ttl, out]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))), (TWO, &tcp(63)[..]));
    // RFC 1624: a checksum that was wrong stays wrong by as much.
    let (mut wrong, mut expected) = (tcp(64), tcp(63));
    wrong[25] ^= 1;
    expected[25] ^= 1;
    assert_eq!(sent(&receive(&driver.record, ONE, &wrong)).1, &expected[..]);
}

#[test]
fn addresses_and_tags_are_written_by_parts() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let [vid, add, high, low] =
        [[0x1017_000c, 0xabc], [0x200a_0008, 0xff], [0x1004_0000, 0x0a0b_0c0d], [0x1005_0010, 0x0e0f]]
            .map(|command| driver.modify(&command));
    let out = driver.vport(2);
    driver.rule(table, 1, &[], &[vid, add, high, low, out]);
    let mut expected = tagged(&[(0x8100, 0x7abc)]);
    expected[..6].copy_from_slice(&[0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f]);
    expected[18..38].copy_from_slice(&tcp(63)[14..34]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tagged(&[(0x8100, 0x7ffd)]))).1, &expected[..]);
}

#[test]
fn a_tunnel_is_put_on_and_taken_off_as_rfc_7510_has_it() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let (on, off) =
        (driver.reformat("L2 to L3 tunnel", &tunnel_header()), driver.reformat("L3 tunnel to L2", &tcp(64)[..14]));
    let (wire, function) = (driver.vport(UPLINK), driver.vport(1));
    // Port 2 of the switch is function 1, in the upper half of C0.
    driver.rule(table, 1, &[(REGISTERS_C[0], 2 << 16)], &[on, wire]);
    driver.rule(table, 1, &[(REGISTERS_C[0], 1 << 16), (INNER_LAYER.version, 4)], &[off, function]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))), (WIRE, &tunnelled(64, 6635)[..]));
    assert_eq!(sent(&receive(&driver.record, WIRE, &tunnelled(64, 6635))), (ONE, &tcp(64)[..]));
}

#[test]
fn tags_come_off_and_go_on() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let (pop, push, out) = (driver.action("pop", ""), driver.action("push", r#""tag": 2292711429"#), driver.vport(2));
    driver.rule(table, 1, &[(OUTER_LAYER.vlan.cvlan, 1)], &[pop, out]);
    driver.rule(table, 1, &[(OUTER_LAYER.vlan.cvlan, 0)], &[push, out]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tagged(&[(0x8100, 7)]))).1, tcp(64));
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))).1, tagged(&[(0x88a8, 5)]));
}

#[test]
fn registers_carry_from_table_to_table_and_no_further() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let fdb = 1;
    let second = driver.table(fdb, 2);
    // SET, field 0x54 (C3), 32 bits; COPY of its low half to C4.
    let (set, copy) = (driver.modify(&[0x1054_0000, 0xdead_0007]), driver.modify(&[0x3054_0010, 0x0055_0000]));
    let (jump, out) = (driver.action("table", &format!(r#""table": {second}"#)), driver.vport(2));
    driver.rule(table, 1, &[(OUTER_LAYER.ttl, 64)], &[set, copy, jump]);
    driver.rule(second, 1, &[(REGISTERS_C[3], 0xdead_0007), (REGISTERS_C[4], 7)], &[out]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))).0, TWO);
    assert!(is_software(&receive(&driver.record, ONE, &tcp(63)), &tcp(63)));
}

#[test]
fn from_the_wire_to_the_wire_nothing_leaves() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let (count, out) = (driver.action("count", r#""counter": 16, "offset": 2"#), driver.vport(UPLINK));
    driver.rule(table, 1, &[], &[count, out]);
    let passage = receive(&driver.record, WIRE, &tcp(64));
    assert_eq!(passage.outcome, Outcome::Lost(Lost::WireToWire));
    assert_eq!(passage.counted.iter().map(|counted| counted.octets).collect::<Vec<_>>(), [tcp(64).len() as u64]);
    assert_eq!(sent(&receive(&driver.record, ONE, &tcp(64))).0, WIRE);
}

/// rdma-core and kernel, dr_ste_v1.c: "Counter action set after decap and before insert_hdr to exclude decaped / encaped header".
#[test]
fn a_counter_is_behind_what_comes_off_and_before_what_goes_on() {
    let mut driver = Driver::new();
    let table = driver.switch();
    let [first, last] = [1, 2].map(|base| driver.action("count", &format!(r#""counter": {base}, "offset": 0"#)));
    let (pop, off, on) = (
        driver.action("pop", ""),
        driver.reformat("L3 tunnel to L2", &tcp(64)[..14]),
        driver.reformat("L2 to L3 tunnel", &tunnel_header()),
    );
    let (function, wire) = (driver.vport(2), driver.vport(UPLINK));
    driver.rule(table, 1, &[(OUTER_LAYER.vlan.cvlan, 1)], &[first, pop, function, last]);
    driver.rule(table, 2, &[(INNER_LAYER.version, 4)], &[first, off, function, last]);
    driver.rule(table, 3, &[], &[on, wire, last]);
    let counted = |port, frame: &[u8]| -> Vec<u64> {
        receive(&driver.record, port, frame).counted.iter().map(|counted| counted.octets).collect()
    };
    let plain = tcp(64).len() as u64;
    assert_eq!(counted(ONE, &tagged(&[(0x8100, 7)])), [plain; 2]);
    assert_eq!(counted(WIRE, &tunnelled(64, 6635)), [plain; 2]);
    assert_eq!(counted(ONE, &tcp(64)), [plain]);
}

#[test]
fn what_cannot_be_done_is_broken_and_says_why() {
    let why = |commands: Option<&[u32]>, reformat: Option<&str>| {
        let mut driver = Driver::new();
        let table = driver.switch();
        let action = match (commands, reformat) {
            (Some(commands), _) => driver.modify(commands),
            (_, Some(kind)) => driver.reformat(kind, &[]),
            _ => driver.action("sampler", ""),
        };
        driver.rule(table, 1, &[], &[action]);
        match receive(&driver.record, ONE, &tcp(64)).outcome {
            Outcome::Broken(why) => why.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(why(Some(&[0x1047_0008, 63]), None), "there is no IPv6 header");
    assert_eq!(why(Some(&[0x1017_000c, 63]), None), "there is no VLAN header");
    assert_eq!(why(Some(&[0x100a_0409, 63]), None), "modify-header commands beyond their field");
    assert_eq!(why(Some(&[0x1008_0010, 63]), None), "modify-header field 0x8 is not modelled");
    assert_eq!(why(None, Some("L3 tunnel to L2")), "there is no IP in a tunnel header");
    assert_eq!(why(None, Some("L2 tunnel to L2")), "there is no Ethernet in a tunnel header");
    assert_eq!(why(None, None), "a meter, a sampler or a mirror is not modelled");
}

#[test]
fn a_truncated_frame_is_seen_as_far_as_it_goes() {
    let ipv6 = {
        let mut frame = Vec::new();
        ethernet().vlan(vlan()).ipv6([1; 16], [2; 16], 9).udp(1, 2).write(&mut frame, b"payload").unwrap();
        frame
    };
    for whole in [tunnelled(64, 6635), tagged(&[(0x88a8, 1), (0x8100, 2)]), ipv6] {
        let all = parse(&whole).fields;
        for length in 0..whole.len() {
            let seen = parse(&whole[..length]).fields;
            let ports = OUTER_LAYER.udp_ports.iter().chain(&OUTER_LAYER.tcp_ports);
            for field in ports.chain(&[OUTER_LAYER.ttl, OUTER_LAYER.vlan.vid, INNER_LAYER.ttl]) {
                assert!([0, all.get(*field)].contains(&seen.get(*field)), "{length} {field:?}");
            }
        }
    }
    assert_eq!(parse(&tcp(64)).fields.get(OUTER_LAYER.protocol), u64::from(IpNumber::TCP.0));
}

fn vlan() -> etherparse::VlanHeader {
    etherparse::VlanHeader::Single(etherparse::SingleVlanHeader {
        pcp: etherparse::VlanPcp::ZERO,
        drop_eligible_indicator: false,
        vlan_id: VlanId::try_new(7).unwrap(),
        ether_type: etherparse::EtherType::IPV6,
    })
}

/// A DevX command: its context has these fields, as first bit, bits and value.
fn command(driver: &mut Driver, (opcode, id, pf): (u16, u32, i32), fields: &[(usize, usize, u64)]) {
    let mut input = vec![0; 320];
    for (at, width, value) in fields {
        params::set_bits(&mut input, 256 + at, *width, *value).unwrap();
    }
    let line = format!(r#"{{"e": "devx", "opcode": {opcode}, "id": {id}, "pf": {pf}, "in": "{}"}}"#, hex(&input));
    driver.record.line(&line).unwrap();
}

/// MODIFY_RQ of receive queue 0x60: to this state, and this send queue.
fn modify_rq(driver: &mut Driver, state: u64, sqn: u64) {
    command(driver, (0x909, 0x60, -1), &[(8, 4, state), (0xa8, 24, sqn)]);
}

/// A function without a switch, with a hairpin to itself: TIR 0x50, receive queue 0x60, send queue 0x70.
fn hairpin(driver: &mut Driver) -> u32 {
    command(driver, (0x900, 0x50, 0), &[(0x20, 4, 0), (0xe8, 24, 0x60)]);
    command(driver, (0x908, 0x60, 0), &[(0xe, 1, 1)]);
    command(driver, (0x904, 0x70, 0), &[]);
    modify_rq(driver, 1, 0x70);
    driver.action("tir", r#""tir": 80"#)
}

#[test]
fn a_hairpin_leads_to_the_send_side_and_register_b_becomes_a() {
    let mut driver = Driver::new();
    driver.last = 1000;
    let queue = hairpin(&mut driver);
    let [rx, tx] = ["rx", "tx"].map(|kind| driver.domain(kind));
    let [rx, tx] = [rx, tx].map(|domain| driver.table(domain, 0));
    let meta = driver.modify(&[0x1050_0000, 0x77]);
    let on = driver.reformat("L2 to L3 tunnel", &tunnel_header());
    driver.rule(rx, 1, &[(OUTER_LAYER.ttl, 64)], &[meta, queue]);
    let egress = driver.rule(tx, 1, &[(REGISTER_A, 0x77)], &[on]);
    assert_eq!(sent(&receive(&driver.record, WIRE, &tcp(64))), (WIRE, &tunnelled(64, 6635)[..]));
    // What software sends has no such word.
    assert_eq!(sent(&transmit(&driver.record, WIRE, &tcp(64))), (WIRE, &tcp(64)[..]));
    driver.gone(egress);
    assert_eq!(sent(&receive(&driver.record, WIRE, &tcp(64))), (WIRE, &tcp(64)[..]), "it leaves bare");
    let drop = driver.action("drop", "");
    driver.rule(tx, 9, &[(REGISTER_A, 0x77)], &[drop]);
    assert_eq!(receive(&driver.record, WIRE, &tcp(64)).outcome, Outcome::Lost(Lost::Drop));
}

#[test]
fn a_hairpin_that_is_reset_leads_nowhere_until_it_is_bound_again() {
    let mut driver = Driver::new();
    driver.last = 1000;
    let queue = hairpin(&mut driver);
    let rx = driver.domain("rx");
    let rx = driver.table(rx, 0);
    driver.rule(rx, 1, &[], &[queue]);
    assert_eq!(sent(&receive(&driver.record, WIRE, &tcp(64))), (WIRE, &tcp(64)[..]));
    // RST, without the other queue's number.
    modify_rq(&mut driver, 0, 0);
    assert_eq!(receive(&driver.record, WIRE, &tcp(64)).outcome, Outcome::Lost(Lost::Unbound));
    modify_rq(&mut driver, 1, 0x70);
    assert_eq!(sent(&receive(&driver.record, WIRE, &tcp(64))).0, WIRE);
}
