//! Access lists: who decides, for which packets, and what happens to flows when a list changes.

use offload_rules::DropReason;

use crate::common::{
    Node,
    account::{answered, by_flow, dropped_by_flow, refused, walked},
    packets::{ACK, Packet, SYN, echo_reply, echo_request, entry, icmp, mpls_udp, plain, sctp, segment, syn, udp},
    walk_a::{
        CE1, CLIENT, CLIENT6, GATEWAY1, GATEWAY1_6, LABEL1, LAN1, SERVER, SERVER6, TUNNEL1, TUNNEL2, UNDERLAYS,
        altered, from_client, from_underlay,
    },
};

const LAN: &str = "\"vrf\": 18, \"flags\": {\"policy\": true},";

/// CE1 with lists on its LAN, and the lists.
fn state(on_lan: &str, lists: &str) -> String {
    let labels = "\"labels\": [";
    altered(CE1, &[(LAN, &format!("{LAN} {on_lan},")), (labels, &format!("\"acls\": [{lists}], {labels}"))])
}

/// CE1 with one list, number 1, for what comes from its LAN.
fn ingress(entries: &str, default: &str) -> Node {
    let list = format!(r#"{{"id": 1, "entries": [{entries}], "defaultAction": "{default}"}}"#);
    Node::new(&state("\"ingressAcls\": [1]", &list))
}

fn up(packet: &Packet) -> Vec<u8> {
    from_client(&packet.ip())
}

fn down(packet: &Packet) -> Vec<u8> {
    let tunnelled = mpls_udp(TUNNEL2, TUNNEL1, (50000, 6635), &[entry(LABEL1, 0, true, 63)], &packet.ip());
    from_underlay(UNDERLAYS[0], &tunnelled.ip())
}

/// Which of the packets does an entry match: those that a list which permits it and denies the rest lets through.
#[track_caller]
fn matches(ace: &str, these: &[Packet], not_these: &[Packet]) {
    for packet in these {
        let mut node = ingress(&format!(r#"{{"id": 1, "action": "PERMIT", {ace}}}"#), "DENY");
        node.expect(LAN1, &up(packet), &walked());
    }
    for packet in not_these {
        let mut node = ingress(&format!(r#"{{"id": 1, "action": "PERMIT", {ace}}}"#), "DENY");
        node.expect(LAN1, &up(packet), &refused(DropReason::PolicyDeny));
    }
}

fn web() -> Packet {
    udp(CLIENT, SERVER, 40000, 443, b"x")
}

#[test]
fn an_entry_matches_by_protocol() {
    let packets = [
        udp(CLIENT, SERVER, 1, 2, b"x"),
        syn(CLIENT, SERVER, 1, 2),
        sctp(CLIENT, SERVER, 1, 2),
        echo_request(CLIENT, SERVER, 1, 1),
        plain(CLIENT, SERVER, 47, &[0; 8]),
    ];
    for (i, proto) in [17, 6, 132, 1, 47].into_iter().enumerate() {
        let mut others = packets.to_vec();
        let this = others.remove(i);
        matches(&format!("\"proto\": {proto}"), &[this], &others);
    }
}

#[test]
fn an_entry_matches_by_prefixes_of_its_own_family() {
    matches("\"source\": \"192.168.100.0/24\"", &[web()], &[udp(CLIENT6, SERVER6, 1, 2, b"x")]);
    matches("\"source\": \"192.168.100.101/32\"", &[], &[web()]);
    matches("\"destination\": \"192.168.1.100/32\"", &[web()], &[udp(CLIENT, "192.168.1.101", 1, 2, b"x")]);
    let six = udp(CLIENT6, SERVER6, 1, 2, b"x");
    matches(
        "\"source\": \"2001:db8:100::/48\", \"destination\": \"2001:db8:1::/64\"",
        std::slice::from_ref(&six),
        &[web(), udp(CLIENT6, CLIENT6, 1, 2, b"x")],
    );
    matches("\"source\": \"::/0\"", &[six], &[web()]);
}

#[test]
fn an_entry_matches_by_port_ranges_both_ends_included() {
    let to = |port| udp(CLIENT, SERVER, 40000, port, b"x");
    matches(
        "\"proto\": 17, \"destinationPorts\": {\"first\": 100, \"last\": 200}",
        &[to(100), to(150), to(200)],
        &[to(99), to(201)],
    );
    matches(
        "\"proto\": 17, \"sourcePorts\": {\"first\": 40000, \"last\": 40000}",
        &[to(1)],
        &[udp(CLIENT, SERVER, 39999, 1, b"x")],
    );
    matches(
        "\"proto\": 6, \"destinationPorts\": {\"first\": 80, \"last\": 80}",
        &[syn(CLIENT, SERVER, 1, 80)],
        &[to(80), syn(CLIENT, SERVER, 80, 1)],
    );
}

#[test]
fn the_destination_port_of_icmp_is_its_type() {
    let echo = echo_request(CLIENT, SERVER, 8, 1);
    let stamp = icmp(CLIENT, SERVER, 13, 0, [0; 4], &[0; 12]);
    matches(
        "\"proto\": 1, \"destinationPorts\": {\"first\": 8, \"last\": 8}",
        std::slice::from_ref(&echo),
        &[stamp.clone(), echo_reply(CLIENT, SERVER, 8, 1)],
    );
    matches("\"proto\": 1, \"destinationPorts\": {\"first\": 13, \"last\": 14}", &[stamp], &[echo]);
    let echo6 = echo_request(CLIENT6, SERVER6, 128, 1);
    matches(
        "\"proto\": 58, \"destinationPorts\": {\"first\": 128, \"last\": 128}",
        &[echo6],
        &[icmp(CLIENT6, SERVER6, 200, 0, [0; 4], &[])],
    );
}

#[test]
fn the_first_match_decides_then_the_default_then_the_next_list() {
    let deny = r#"{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 443, "last": 443}}"#;
    let permit = r#"{"id": 2, "action": "PERMIT", "proto": 17}"#;
    ingress(&format!("{deny}, {permit}"), "DENY").expect(LAN1, &up(&web()), &refused(DropReason::PolicyDeny));
    ingress(&format!("{permit}, {deny}"), "DENY").expect(LAN1, &up(&web()), &walked());
    let other = udp(CLIENT, SERVER, 1, 2, b"x");
    ingress(deny, "PERMIT").expect(LAN1, &up(&other), &walked());
    ingress(deny, "DENY").expect(LAN1, &up(&other), &refused(DropReason::PolicyDeny));
    // Without a default the next list is asked, and after the last one it is permitted.
    for (second, moved) in
        [("DENY", refused(DropReason::PolicyDeny)), ("PERMIT", walked()), ("ACL_ACTION_UNSPECIFIED", walked())]
    {
        let lists = format!(r#"{{"id": 1, "entries": [{deny}]}}, {{"id": 2, "defaultAction": "{second}"}}"#);
        Node::new(&state("\"ingressAcls\": [1, 2]", &lists)).expect(LAN1, &up(&other), &moved);
    }
}

#[test]
fn a_denied_flow_is_remembered_and_counted_apart() {
    for packet in [web(), syn(CLIENT, SERVER, 1, 2), echo_request(CLIENT6, SERVER6, 1, 1)] {
        let mut node = ingress("", "DENY");
        node.expect(LAN1, &up(&packet), &refused(DropReason::PolicyDeny));
        assert_eq!(node.flow_records(), 1);
        for _ in 0..3 {
            node.expect(LAN1, &up(&packet), &dropped_by_flow(DropReason::FlowActionDrop));
        }
        assert_eq!(node.all_drops(), [("Policy Deny", 1), ("Flow Action Drop", 3)]);
    }
}

#[test]
fn replies_to_what_was_permitted_are_permitted() {
    // The LAN sends to port 53 only; nothing may go out to it.
    let lists = r#"{"id": 1, "entries": [
                     {"id": 1, "action": "PERMIT", "proto": 17, "destinationPorts": {"first": 53, "last": 53}},
                     {"id": 2, "action": "PERMIT", "proto": 6, "destinationPorts": {"first": 53, "last": 53}}], "defaultAction": "DENY"},
                   {"id": 2, "defaultAction": "DENY"}"#;
    for (c, s) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut node = Node::new(&state("\"ingressAcls\": [1], \"egressAcls\": [2]", lists));
        node.expect(LAN1, &up(&udp(c, s, 1, 53, b"x")), &walked());
        node.expect(UNDERLAYS[0], &down(&udp(s, c, 53, 1, b"x")), &by_flow());
        // Not a reply: it asks for itself.
        node.expect(UNDERLAYS[0], &down(&udp(s, c, 53, 2, b"x")), &refused(DropReason::PolicyDeny));
        node.expect(LAN1, &up(&syn(c, s, 9, 53)), &walked());
        node.expect(UNDERLAYS[0], &down(&segment(s, c, (53, 9), SYN | ACK, (1, 1001), &[])), &by_flow());
    }
}

#[test]
fn an_egress_list_judges_what_leaves_by_its_vif_and_nothing_else() {
    let lists = r#"{"id": 2, "entries": [{"id": 1, "action": "DENY", "proto": 17}]}"#;
    let mut node = Node::new(&state("\"egressAcls\": [2]", lists));
    node.expect(UNDERLAYS[0], &down(&udp(SERVER, CLIENT, 1, 2, b"x")), &refused(DropReason::PolicyDeny));
    node.expect(UNDERLAYS[0], &down(&syn(SERVER, CLIENT, 1, 2)), &walked());
    node.expect(LAN1, &up(&udp(CLIENT, SERVER, 3, 4, b"x")), &walked());
    // The reply to what came in is not judged by the list of the way out.
    node.expect(UNDERLAYS[0], &down(&udp(SERVER, CLIENT, 4, 3, b"x")), &by_flow());
}

#[test]
fn stateless_entries_judge_each_direction_by_itself() {
    let lists = |replies: &str| {
        format!(
            r#"{{"id": 1, "entries": [{{"id": 1, "action": "PERMIT", "scope": "ACL_SCOPE_STATELESS"}}]}},
               {{"id": 2, "entries": [{{"id": 1, "action": "{replies}", "scope": "ACL_SCOPE_STATELESS",
                 "proto": 17, "sourcePorts": {{"first": 53, "last": 53}}}}], "defaultAction": "PERMIT"}}"#
        )
    };
    let on_lan = "\"ingressAcls\": [1], \"egressAcls\": [2]";
    let (request, reply) = (udp(CLIENT, SERVER, 1, 53, b"x"), udp(SERVER, CLIENT, 53, 1, b"x"));
    let mut node = Node::new(&state(on_lan, &lists("DENY")));
    node.expect(LAN1, &up(&request), &walked());
    node.expect(UNDERLAYS[0], &down(&reply), &dropped_by_flow(DropReason::FlowActionDrop));
    node.expect(LAN1, &up(&request), &by_flow());
    let mut node = Node::new(&state(on_lan, &lists("PERMIT")));
    node.expect(LAN1, &up(&request), &walked());
    node.expect(UNDERLAYS[0], &down(&reply), &by_flow());
}

#[test]
fn a_change_of_the_list_judges_flows_again_both_ways() {
    let list = |action: &str| format!(r#"{{"acls": [{{"id": 1, "entries": [{{"id": 7, "action": "{action}"}}]}}]}}"#);
    let (request, reply) = (web(), udp(SERVER, CLIENT, 443, 40000, b"x"));
    let mut node = ingress(r#"{"id": 7, "action": "PERMIT"}"#, "ACL_ACTION_UNSPECIFIED");
    node.expect(LAN1, &up(&request), &walked());
    node.expect(UNDERLAYS[0], &down(&reply), &by_flow());
    // From permitted to denied: either direction.
    node.change(&list("DENY"));
    node.expect(UNDERLAYS[0], &down(&reply), &dropped_by_flow(DropReason::FlowActionDrop));
    node.expect(LAN1, &up(&request), &dropped_by_flow(DropReason::FlowActionDrop));
    // And back: the flow lives again.
    node.change(&list("PERMIT"));
    node.expect(LAN1, &up(&request), &by_flow());
    node.expect(UNDERLAYS[0], &down(&reply), &by_flow());
    assert_eq!(node.flow_records(), 2);

    // A flow that was denied from the start begins anew.
    let mut node = ingress(r#"{"id": 7, "action": "DENY"}"#, "ACL_ACTION_UNSPECIFIED");
    node.expect(LAN1, &up(&request), &refused(DropReason::PolicyDeny));
    node.change(&list("PERMIT"));
    node.expect(LAN1, &up(&request), &walked());
    node.expect(LAN1, &up(&request), &by_flow());
    node.expect(UNDERLAYS[0], &down(&reply), &by_flow());
    assert_eq!(node.flow_records(), 2);
}

#[test]
fn a_list_that_is_put_on_or_taken_off_the_vif_judges_flows_again() {
    let vif = |lists: &str| {
        format!(
            r#"{{"vifs": [{{"id": 100, "name": "lan", "type": "VIRTUAL", "vrf": 18, "flags": {{"policy": true}}, "ingressAcls": [{lists}],
               "addresses": ["192.168.100.1/24", "2001:db8:100::1/64"]}}]}}"#
        )
    };
    let mut node = Node::new(&state("\"ingressAcls\": []", r#"{"id": 1, "defaultAction": "DENY"}"#));
    node.expect(LAN1, &up(&web()), &walked());
    node.change(&vif("1"));
    node.expect(LAN1, &up(&web()), &dropped_by_flow(DropReason::FlowActionDrop));
    node.change(&vif(""));
    node.expect(LAN1, &up(&web()), &by_flow());
}

#[test]
fn a_service_list_judges_what_is_for_the_node_and_no_transit() {
    let lists =
        r#"{"id": 3, "entries": [{"id": 1, "action": "DENY", "proto": 1}, {"id": 2, "action": "DENY", "proto": 58}]}"#;
    for (c, s, gateway) in [(CLIENT, SERVER, GATEWAY1), (CLIENT6, SERVER6, GATEWAY1_6)] {
        let mut node = Node::new(&state("\"serviceAcls\": [3]", lists));
        node.expect(LAN1, &up(&echo_request(c, gateway, 1, 1)), &refused(DropReason::PolicyDeny));
        node.expect(LAN1, &up(&echo_request(c, gateway, 1, 2)), &dropped_by_flow(DropReason::FlowActionDrop));
        node.expect(LAN1, &up(&echo_request(c, s, 1, 1)), &walked());
        Node::new(CE1).expect(LAN1, &up(&echo_request(c, gateway, 1, 1)), &answered());
    }
}

#[test]
fn without_policy_the_lists_judge_every_packet_by_itself() {
    let list = r#"{"id": 1, "entries": [{"id": 1, "action": "DENY", "proto": 17}]}"#;
    let json = altered(&state("\"ingressAcls\": [1]", list), &[(LAN, "\"vrf\": 18,")]);
    let mut node = Node::new(&json);
    for _ in 0..2 {
        node.expect(LAN1, &up(&web()), &refused(DropReason::PolicyDeny));
        node.expect(LAN1, &up(&syn(CLIENT, SERVER, 1, 2)), &walked());
    }
    assert_eq!(node.flow_records(), 0);
}

#[test]
fn a_denied_echo_to_the_node_is_answered_once_the_list_permits_it() {
    let list = |action: &str| format!(r#"{{"id": 3, "entries": [{{"id": 1, "action": "{action}"}}]}}"#);
    let mut node = Node::new(&state("\"serviceAcls\": [3]", &list("DENY")));
    let echo = up(&echo_request(CLIENT, GATEWAY1, 1, 1));
    node.expect(LAN1, &echo, &refused(DropReason::PolicyDeny));
    node.expect(LAN1, &echo, &dropped_by_flow(DropReason::FlowActionDrop));
    node.change(&format!(r#"{{"acls": [{}]}}"#, list("PERMIT")));
    node.expect(LAN1, &echo, &answered());
    assert_eq!(node.flow_records(), 0);
}

#[test]
fn an_echo_reply_that_nobody_asked_for_decides_nothing_for_requests() {
    let only = |kind: u8| {
        format!(
            r#"{{"id": 1, "action": "PERMIT", "proto": 1, "destinationPorts": {{"first": {kind}, "last": {kind}}}}}"#
        )
    };
    let (request, reply) = (up(&echo_request(CLIENT, SERVER, 1, 1)), up(&echo_reply(CLIENT, SERVER, 1, 1)));
    let mut node = ingress(&only(0), "DENY");
    node.expect(LAN1, &reply, &walked());
    node.expect(LAN1, &request, &refused(DropReason::PolicyDeny));
    let mut node = ingress(&only(8), "DENY");
    node.expect(LAN1, &reply, &refused(DropReason::PolicyDeny));
    node.expect(LAN1, &request, &walked());
}

#[test]
fn a_pinged_host_may_not_ping_back_by_the_same_identifier_when_denied() {
    let lists = r#"{"id": 2, "entries": [{"id": 1, "action": "DENY", "proto": 1, "destinationPorts": {"first": 8, "last": 8}}]}"#;
    let mut node = Node::new(&state("\"egressAcls\": [2]", lists));
    node.expect(LAN1, &up(&echo_request(CLIENT, SERVER, 7, 1)), &walked());
    node.expect(UNDERLAYS[0], &down(&echo_reply(SERVER, CLIENT, 7, 1)), &by_flow());
    node.expect(UNDERLAYS[0], &down(&echo_request(SERVER, CLIENT, 7, 1)), &refused(DropReason::PolicyDeny));
    node.expect(UNDERLAYS[0], &down(&echo_reply(SERVER, CLIENT, 7, 2)), &by_flow());
}
