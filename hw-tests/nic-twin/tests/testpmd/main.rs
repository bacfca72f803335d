//! What dpdk-testpmd finds when it uses the twin like a NIC, in the spirit of DPDK's own test suite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod autotest;
mod judge;

use judge::{FIRST, Judge, SECOND};

/// An Ethernet frame with UDP over IPv4: 10.0.0.`last` to 10.0.1.1, ports 1000 to `port`, TTL 64, no UDP checksum.
fn udp(last: u8, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let mut ip = vec![0x45, 0, 0, 46, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, last, 10, 0, 1, 1];
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(ip);
    frame.extend(1000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 26, 0, 0]);
    frame.extend((0..18).collect::<Vec<u8>>());
    frame
}

/// RFC 1071.
fn sum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn statistic(name: &str, count: usize) -> (String, String) {
    (format!("show port xstats {FIRST}"), format!("{name}: {count}"))
}

fn until_counted(judge: &mut Judge, name: &str, count: usize) {
    let (line, answer) = statistic(name, count);
    judge.until(&line, &answer);
}

fn ok(scenario: &str) {
    println!("testpmd: {scenario} ok");
}

#[test]
fn a_rule_chooses_the_queue() {
    let mut judge = Judge::start("", &[udp(1, 53), udp(2, 53)]);
    judge.rule("ingress pattern eth / ipv4 / udp dst is 53 / end actions queue index 1 / end");
    judge.ask("start", &format!("port {FIRST}/queue 1: received 2 packets"));
    judge.end();
    ok("queue");
}

#[test]
fn a_rule_drops_and_what_it_does_not_match_arrives() {
    let mut judge = Judge::start("", &[udp(1, 53), udp(2, 80), udp(3, 53)]);
    judge.rule("ingress pattern eth / ipv4 / udp dst is 53 / end actions drop / end");
    judge.tell("start");
    until_counted(&mut judge, "hw_dropped_packets", 2);
    until_counted(&mut judge, "rx_good_packets", 1);
    judge.end();
    ok("drop");
}

#[test]
fn a_rule_rewrites_and_forwards_without_the_host() {
    let mut judge = Judge::start("", &[udp(1, 53)]);
    judge.rule(&format!(
        "transfer pattern eth / ipv4 / udp / end actions count / set_mac_dst mac_addr 02:11:22:33:44:55 / \
         set_ipv4_src ipv4_addr 192.0.2.7 / set_tp_dst port 5353 / set_ttl ttl_value 9 / \
         represented_port ethdev_port_id {SECOND} / end"
    ));
    judge.tell("start");
    until_counted(&mut judge, "hw_forwarded_packets", 1);
    let [_, sent] = judge.end();
    let [frame] = sent.as_slice() else { panic!("{sent:?}") };
    let mut wanted = udp(1, 5353);
    wanted[..6].copy_from_slice(&[2, 0x11, 0x22, 0x33, 0x44, 0x55]);
    wanted[22] = 9;
    wanted[24..26].fill(0);
    wanted[26..30].copy_from_slice(&[192, 0, 2, 7]);
    let checksum = !sum(&wanted[14..34]);
    wanted[24..26].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(*frame, wanted);
    ok("modify");
}

#[test]
fn headers_are_put_on_and_taken_off() {
    let tunnel = "eth src is 02:00:00:00:00:0a dst is 02:00:00:00:00:0b / ipv4 src is 198.51.100.1 dst is 198.51.100.2 \
                  ttl is 64 / udp src is 50000 dst is 6635 / mpls label is 299776";
    let mut judge = Judge::start("", &[udp(1, 53)]);
    judge.tell(&format!("set raw_encap 0 {tunnel} / end_set"));
    judge.tell("set raw_decap 0 eth / end_set");
    judge.rule(&format!(
        "transfer pattern eth / ipv4 / udp / end actions raw_decap index 0 / raw_encap index 0 / \
         represented_port ethdev_port_id {SECOND} / end"
    ));
    judge.tell("start");
    until_counted(&mut judge, "hw_forwarded_packets", 1);
    let [_, sent] = judge.end();
    let [frame] = sent.as_slice() else { panic!("{sent:?}") };
    let inner = udp(1, 53);
    assert_eq!(frame.len(), 14 + 20 + 8 + 4 + inner.len() - 14);
    assert_eq!(frame[..14], [2, 0, 0, 0, 0, 0xb, 2, 0, 0, 0, 0, 0xa, 8, 0]);
    assert_eq!(sum(&frame[14..34]), 0xffff, "the IPv4 header checksum is right");
    assert_eq!(usize::from(u16::from_be_bytes([frame[16], frame[17]])), frame.len() - 14);
    assert_eq!(usize::from(u16::from_be_bytes([frame[38], frame[39]])), frame.len() - 34);
    assert_eq!(frame[46..], inner[14..], "the packet inside is as it was");

    // The way back: what was sent arrives, and loses its tunnel.
    let mut arriving = frame.clone();
    arriving[44] |= 1;
    let mut judge = Judge::start("", &[arriving]);
    judge.tell("set raw_decap 0 eth / ipv4 / udp / mpls / end_set");
    judge.tell("set raw_encap 0 eth src is 02:00:00:00:00:01 dst is 02:00:00:00:00:02 type is 0x0800 / end_set");
    judge.rule(&format!(
        "transfer pattern eth / ipv4 / udp dst is 6635 / mpls label is 299776 / end actions raw_decap index 0 / \
         raw_encap index 0 / represented_port ethdev_port_id {SECOND} / end"
    ));
    judge.tell("start");
    until_counted(&mut judge, "hw_forwarded_packets", 1);
    let [_, sent] = judge.end();
    assert_eq!(sent, [inner]);
    ok("encap and decap");
}

#[test]
fn groups_follow_jumps_and_priorities_decide() {
    let mut judge = Judge::start("", &[udp(1, 53), udp(2, 53)]);
    judge.rule("ingress group 0 pattern eth / end actions jump group 1 / end");
    judge.rule("ingress group 1 priority 2 pattern eth / ipv4 / udp / end actions queue index 0 / end");
    judge.rule("ingress group 1 priority 1 pattern eth / ipv4 src is 10.0.0.2 / udp / end actions drop / end");
    judge.ask("start", &format!("port {FIRST}/queue 0: received 1 packets"));
    until_counted(&mut judge, "hw_dropped_packets", 1);
    judge.end();
    ok("jump");
    ok("priority");
}

#[test]
fn counters_count_and_shared_ones_count_for_all() {
    let mut judge = Judge::start("", &[udp(1, 53), udp(2, 53), udp(3, 80)]);
    judge.tell(&format!("flow indirect_action {FIRST} create action_id 7 ingress action count / end"));
    judge.wait("Indirect action #7 created");
    judge.rule("ingress pattern eth / ipv4 / udp dst is 53 / end actions count / indirect 7 / queue index 0 / end");
    judge.rule("ingress pattern eth / ipv4 / udp dst is 80 / end actions indirect 7 / queue index 0 / end");
    judge.tell("start");
    until_counted(&mut judge, "rx_good_packets", 3);
    judge.until(&format!("flow query {FIRST} 0 count"), "hits: 2");
    judge.until(&format!("flow indirect_action {FIRST} query 7"), "hits: 3");
    judge.end();
    ok("count");
    ok("indirect count");
}

#[test]
fn a_rule_without_packets_ages() {
    let mut judge = Judge::start("", &[]);
    judge.rule("ingress pattern eth / ipv4 / end actions age timeout 1 / queue index 0 / end");
    judge.until(&format!("flow aged {FIRST}"), "Flow");
    judge.end();
    ok("age");
}

#[test]
fn a_mark_reaches_the_host() {
    let mut judge = Judge::start("", &[udp(1, 53)]);
    judge.rule("ingress pattern eth / ipv4 / udp / end actions mark id 4660 / queue index 1 / end");
    judge.tell("start");
    judge.wait("FDIR matched ID=0x1234");
    judge.end();
    ok("mark");
}

#[test]
fn a_rule_can_be_made_again_and_a_destroyed_one_is_gone() {
    let mut judge = Judge::start("", &[udp(1, 53)]);
    judge.rule("ingress pattern eth / ipv4 / udp / end actions drop / end");
    judge.ask(&format!("flow destroy {FIRST} rule 0"), "Flow rule #0 destroyed");
    judge.rule("ingress pattern eth / ipv4 / udp / end actions queue index 1 / end");
    judge.ask("start", &format!("port {FIRST}/queue 1: received 1 packets"));
    judge.end();
    ok("re-create after destroy");
}

#[test]
fn a_full_table_refuses_until_a_rule_goes() {
    let mut judge = Judge::start(",full_at=2", &[]);
    for last in 1..=2 {
        judge.rule(&format!("ingress pattern eth / ipv4 src is 10.0.0.{last} / end actions drop / end"));
    }
    let third = format!("flow create {FIRST} ingress pattern eth / ipv4 src is 10.0.0.3 / end actions drop / end");
    judge.ask(&third, "the table is full");
    judge.ask(&format!("flow destroy {FIRST} rule 0"), "destroyed");
    judge.ask(&third, "created");
    judge.end();
    ok("table full");
}

#[test]
fn a_reset_by_the_control_file_loses_the_rules() {
    let control = tempfile::NamedTempFile::new().unwrap();
    let mut judge = Judge::start(&format!(",control={}", control.path().display()), &[]);
    judge.rule("ingress pattern eth / ipv4 / end actions count / drop / end");
    judge.ask(&format!("flow query {FIRST} 0 count"), "hits: 0");
    std::fs::write(control.path(), "reset\n").unwrap();
    judge.until(&format!("flow query {FIRST} 0 count"), "no such rule");
    judge.ask(&format!("flow destroy {FIRST} rule 0"), "no such rule");
    judge.rule("ingress pattern eth / ipv4 / end actions count / drop / end");
    judge.end();
    ok("reset");
}

#[test]
fn a_profile_refuses_what_its_nic_cannot() {
    let mut judge = Judge::start(",profile=ixgbe", &[]);
    let refused = judge.ask(
        &format!("flow validate {FIRST} ingress pattern eth / ipv4 / udp / end actions set_ttl ttl_value 3 / end"),
        "Caught PMD error type",
    );
    assert!(refused.contains("specific action"), "{refused}");
    judge.end();
    ok("refused by profile");
}

#[test]
fn rules_of_a_template_table_wait_for_the_push() {
    let mut judge = Judge::start("", &[udp(1, 53), udp(2, 53)]);
    judge.ask("port stop all", "Done");
    judge.ask(
        &format!("flow configure {FIRST} queues_number 1 queues_size 4 counters_number 0 aging_counters_number 0 meters_number 0"),
        "Configure flows on port",
    );
    judge.ask("port start all", "Done");
    judge.ask(
        &format!(
            "flow pattern_template {FIRST} create pattern_template_id 1 relaxed yes ingress template eth / \
             ipv4 src mask 255.255.255.255 / udp / end"
        ),
        "Pattern template #1 created",
    );
    judge.ask(
        &format!(
            "flow actions_template {FIRST} create ingress actions_template_id 1 template count / queue / end \
             mask count / queue / end"
        ),
        "Actions template #1 created",
    );
    judge.ask(
        &format!(
            "flow template_table {FIRST} create table_id 1 group 0 priority 0 ingress rules_number 2 \
             pattern_template 1 actions_template 1"
        ),
        "Template table #1 created",
    );
    let create = |last: u8| {
        format!(
            "flow queue {FIRST} create 0 template_table 1 pattern_template 0 actions_template 0 postpone yes \
             pattern eth / ipv4 src is 10.0.0.{last} / udp / end actions count / queue index 1 / end"
        )
    };
    judge.ask(&create(1), "Flow rule #0 creation enqueued");
    judge.ask(&create(2), "Flow rule #1 creation enqueued");
    judge.ask(&create(3), "the template table is full");
    judge.ask(&format!("flow pull {FIRST} queue 0"), "pulled 0 operations");
    judge.ask(&format!("flow push {FIRST} queue 0"), "operations pushed");
    judge.ask(&format!("flow pull {FIRST} queue 0"), "pulled 2 operations (0 failed, 2 succeeded)");
    judge.ask("start", &format!("port {FIRST}/queue 1: received 2 packets"));
    judge.until(&format!("flow query {FIRST} 1 count"), "hits: 1");
    judge.ask(&format!("flow queue {FIRST} destroy 0 postpone no rule 0"), "Flow rule #0 destruction enqueued");
    judge.ask(&format!("flow pull {FIRST} queue 0"), "(0 failed, 1 succeeded)");
    judge.end();
    ok("template tables");
}
