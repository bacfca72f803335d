//! Walk A: a packet of one tenant from edge to edge and back.

use crate::common::{
    packets::{Ip, Tunnelled, echo_reply, echo_request, udp},
    walk_a::{CLIENT, CLIENT6, LABEL1, LABEL2, SERVER, SERVER6, TUNNEL1, TUNNEL2, WalkA},
};

/// What is in a tunnel apart from the packet in it.
fn ends(tunnelled: &Tunnelled) -> (String, String, u32) {
    (tunnelled.outer.src.to_string(), tunnelled.outer.dst.to_string(), tunnelled.label)
}

/// The packet with what a hop changes put back.
fn aged(packet: &Ip, ttl: u8, original: &[u8]) -> bool {
    let expected = Ip::read(original);
    packet.ttl == ttl && Ip { ttl: expected.ttl, octets: vec![], ..packet.clone() } == Ip { octets: vec![], ..expected }
}

#[test]
fn a_packet_crosses_both_edges_and_its_answer_comes_back() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut walk = WalkA::default();

        let request = udp(client, server, 40000, 53, b"question").ip();
        let (_, up) = walk.up(&request);
        assert_eq!(ends(&up), (TUNNEL1.to_owned(), TUNNEL2.to_owned(), LABEL2));
        assert!(aged(&up.inner, 63, &request));
        assert!(aged(&walk.to_server(&request), 62, &request));

        let answer = udp(server, client, 53, 40000, b"answer").ip();
        let (_, down) = walk.down(&answer);
        assert_eq!(ends(&down), (TUNNEL2.to_owned(), TUNNEL1.to_owned(), LABEL1));
        assert!(aged(&walk.to_client(&answer), 62, &answer));

        walk.nothing_dropped();
        // One pair at either edge.
        assert_eq!((walk.ce1.flow_records(), walk.ce2.flow_records()), (2, 2));
    }
}

#[test]
fn echo_request_and_reply_are_one_pair_at_either_edge() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut walk = WalkA::default();
        for seq in 1..4 {
            walk.to_server(&echo_request(client, server, 7, seq).ip());
            walk.to_client(&echo_reply(server, client, 7, seq).ip());
        }
        walk.nothing_dropped();
        assert_eq!((walk.ce1.flow_records(), walk.ce2.flow_records()), (2, 2));
    }
}
