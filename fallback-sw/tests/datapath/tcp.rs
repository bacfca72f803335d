//! TCP as a box in the middle sees it: letters, resets, TIME_WAIT, idle timeouts, pick-up in the middle.

use crate::common::{
    Node,
    packets::{ACK, FIN, PSH, Packet, RST, SYN, echo_request, plain, segment, udp},
    records::out_of_tunnel,
    vif,
    walk_a::{CE1, CLIENT, LAN1, SERVER, UNDERLAYS, from_client},
};

const PORT: u16 = 40_000;

/// A connection of the client with the server through CE1.
struct Connection {
    node: Node,
    port: u16,
}

impl Connection {
    fn new() -> Self {
        Self { node: Node::new(CE1), port: PORT }
    }

    fn packet(&self, from_client: bool, flags: u8, numbers: (u32, u32), payload: &[u8]) -> Packet {
        if from_client {
            segment(CLIENT, SERVER, (self.port, 80), flags, numbers, payload)
        } else {
            segment(SERVER, CLIENT, (80, self.port), flags, numbers, payload)
        }
    }

    /// A segment of the client: was it passed on?
    fn up(&mut self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> bool {
        let frame = from_client(&self.packet(true, flags, (seq, ack), payload).ip());
        self.node.receive(LAN1, &frame).len() == 1
    }

    /// A segment of the server: was it passed on?
    fn down(&mut self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> bool {
        let frame = out_of_tunnel(&self.packet(false, flags, (seq, ack), payload));
        self.node.receive(UNDERLAYS[0], &frame).len() == 1
    }

    /// The handshake: the client's next number is 101, the server's 501.
    fn open() -> Self {
        let mut it = Self::new();
        assert!(it.up(SYN, 100, 0, b"") && it.down(SYN | ACK, 500, 101, b"") && it.up(ACK, 101, 501, b""));
        it
    }

    /// Both have closed; the client was first.
    fn closed() -> Self {
        let mut it = Self::open();
        assert!(it.up(FIN | ACK, 101, 501, b"") && it.down(FIN | ACK, 501, 102, b"") && it.up(ACK, 102, 502, b""));
        it
    }

    fn letters(&self) -> String {
        self.node.letters(self.port)
    }

    fn ignored_resets(&self, port: u32) -> u64 {
        self.node.machine.counters().0.of_vif(vif(port)).tcp_resets_ignored
    }
}

#[test]
fn the_letters_tell_the_story_of_a_connection() {
    let mut it = Connection::new();
    it.up(SYN, 100, 0, b"");
    assert_eq!(it.letters(), "S");
    it.down(SYN | ACK, 500, 101, b"");
    assert_eq!(it.letters(), "SSrE");
    it.up(ACK, 101, 501, b"");
    assert_eq!(it.letters(), "SSrEEr");
    it.up(ACK | PSH, 101, 501, b"question");
    it.down(ACK | PSH, 501, 109, b"answer");
    assert_eq!(it.letters(), "SSrEEr");
    it.up(FIN | ACK, 109, 507, b"");
    assert_eq!(it.letters(), "SSrEErF");
    it.down(FIN | ACK, 507, 110, b"");
    assert_eq!(it.letters(), "SSrEErFFrC");
    it.up(ACK, 110, 508, b"");
    assert_eq!(it.letters(), "SSrEErFFrCD");
    assert_eq!((it.node.flow_records(), it.node.all_drops()), (2, vec![]));
}

#[test]
fn a_reset_is_believed_when_its_number_is_exact_and_ignored_otherwise() {
    // The server has acknowledged up to 101; the client's 8 octets are on the way.
    for (seq, believed) in [(101, true), (109, true), (100, false), (105, false), (110, false), (0x8000_0000, false)] {
        let mut it = Connection::open();
        assert!(it.up(ACK | PSH, 101, 501, b"8 octets"));
        assert_eq!(it.up(RST, seq, 0, b""), believed, "{seq}");
        let (letters, drops, ignored) =
            if believed { ("SSrEErRD", vec![], 0) } else { ("SSrEEr", vec![("TCP reset ignored", 1)], 1) };
        assert_eq!((it.letters().as_str(), it.node.all_drops()), (letters, drops), "{seq}");
        assert_eq!((it.ignored_resets(LAN1), it.ignored_resets(UNDERLAYS[0])), (ignored, 0));
    }
    // Out of the tunnel: counted on the underlay's vif. The connection lives on.
    let mut it = Connection::open();
    assert!(!it.down(RST | ACK, 777, 101, b""));
    assert_eq!((it.ignored_resets(LAN1), it.ignored_resets(UNDERLAYS[0])), (0, 1));
    assert_eq!(it.node.all_drops(), [("TCP reset ignored", 1)]);
    assert!(it.down(ACK | PSH, 501, 101, b"alive") && it.up(ACK, 101, 506, b""));
    assert!(it.down(RST, 506, 0, b""));
    assert_eq!(it.letters(), "SSrEErRD");
}

#[test]
fn a_refusal_of_the_syn_is_believed_when_it_acknowledges_it() {
    for (flags, ack, believed) in
        [(RST | ACK, 101, true), (RST | ACK, 100, false), (RST | ACK, 102, false), (RST, 101, false)]
    {
        let mut it = Connection::new();
        assert!(it.up(SYN, 100, 0, b""));
        // Whatever its sequence number.
        assert_eq!(it.down(flags, 0, ack, b""), believed, "{flags} {ack}");
        assert_eq!(it.letters(), if believed { "SRD" } else { "S" });
    }
}

#[test]
fn a_reset_of_nothing_is_passed_on_and_makes_no_flow() {
    let mut it = Connection::new();
    assert!(it.up(RST, 100, 0, b""));
    assert!(it.down(RST | ACK, 100, 5, b""));
    assert_eq!((it.node.flow_records(), it.node.all_drops()), (0, vec![]));
}

#[test]
fn a_new_syn_takes_over_a_connection_in_time_wait_and_a_dead_one() {
    let mut it = Connection::closed();
    // Not beyond the old connection's numbers: passed on, nothing changes.
    assert!(it.up(SYN, 50, 0, b""));
    assert_eq!(it.letters(), "SSrEErFFrCD");
    assert!(it.up(SYN, 1000, 0, b""));
    assert_eq!(it.letters(), "S");
    assert!(it.down(SYN | ACK, 9000, 1001, b"") && it.up(ACK, 1001, 9001, b""));
    assert_eq!((it.letters().as_str(), it.node.flow_records(), it.node.all_drops()), ("SSrEEr", 2, vec![]));
    // After a reset any number will do.
    assert!(it.up(RST, 1001, 0, b""));
    assert!(it.up(SYN, 7, 0, b""));
    assert_eq!((it.letters().as_str(), it.node.flow_records(), it.node.all_drops()), ("S", 2, vec![]));
    // The server may begin, too.
    let mut it = Connection::closed();
    assert!(it.down(SYN, 5000, 0, b""));
    assert_eq!((it.node.flow_records(), it.node.letters(80)), (2, "S".to_owned()));
}

#[test]
fn a_syn_into_an_open_connection_changes_nothing() {
    let mut it = Connection::open();
    assert!(it.up(SYN, 80_000, 0, b""), "the server answers with a challenge ACK");
    assert_eq!(it.letters(), "SSrEEr");
    assert!(it.down(ACK, 501, 101, b""));
    // Its reset in answer to that ends the old connection, if it was true.
    assert!(it.up(RST, 101, 0, b""));
    assert_eq!(it.letters(), "SSrEErRD");
}

#[test]
fn a_connection_found_in_the_middle_is_taken_as_open() {
    let mut it = Connection::new();
    assert!(it.up(ACK | PSH, 7000, 900, b"middle"));
    assert_eq!(it.letters(), "EEr");
    assert!(it.down(ACK, 900, 7006, b""));
    assert!(!it.down(RST, 12_345, 0, b""));
    assert!(it.down(RST, 900, 0, b""));
    assert_eq!((it.letters().as_str(), it.node.all_drops()), ("EErRD", vec![("TCP reset ignored", 1)]));
}

#[test]
fn flags_that_contradict_each_other_are_dropped_with_and_without_a_flow() {
    let bad = [0, SYN | FIN, SYN | RST, FIN | RST, FIN, SYN | FIN | ACK, PSH, 0x3f, FIN | PSH | 0x20];
    let mut it = Connection::new();
    for flags in bad {
        assert!(!it.up(flags, 1, 1, b""), "{flags:#x}");
    }
    assert_eq!((it.node.flow_records(), it.node.all_drops()), (0, vec![("TCP Invalid Flags", bad.len() as u64)]));
    let mut it = Connection::open();
    for flags in bad {
        assert!(!it.up(flags, 101, 501, b""), "{flags:#x}");
        assert!(!it.down(flags, 501, 101, b""), "{flags:#x}");
    }
    assert_eq!(it.letters(), "SSrEEr");
    assert_eq!(it.node.all_drops(), [("TCP Invalid Flags", 2 * bad.len() as u64)]);
}

/// Is the pair there just before this many seconds of silence, and gone soon after?
#[track_caller]
fn lasts(mut node: Node, seconds: u64) {
    assert_eq!(node.flow_records(), 2);
    node.wait(seconds * 1000 - 500);
    assert_eq!(node.flow_records(), 2, "gone before {seconds} s");
    node.wait(1500);
    assert_eq!(node.flow_records(), 0, "still there after {seconds} s");
}

#[test]
fn pairs_are_removed_after_the_idle_time_of_their_protocol_and_state() {
    let mut opening = Connection::new();
    opening.up(SYN, 100, 0, b"");
    lasts(opening.node, 30);
    let mut closing = Connection::open();
    closing.up(FIN | ACK, 101, 501, b"");
    lasts(closing.node, 240);
    lasts(Connection::closed().node, 60);
    lasts(Connection::open().node, 7440);
    for (packet, seconds) in [
        (udp(CLIENT, SERVER, 1, 2, b"x"), 300),
        (echo_request(CLIENT, SERVER, 1, 1), 60),
        (plain(CLIENT, SERVER, 47, &[0; 8]), 120),
    ] {
        let mut node = Node::new(CE1);
        assert_eq!(node.receive(LAN1, &from_client(&packet.ip())).len(), 1);
        lasts(node, seconds);
    }
    // A reset connection stays a little, so that what is still on its way does not begin it anew.
    let mut dead = Connection::open();
    dead.up(RST, 101, 0, b"");
    lasts(dead.node, 5);
}

#[test]
fn idle_times_are_those_of_the_settings() {
    let timeouts = r#"{"tcpOpeningSecs": 3, "tcpEstablishedSecs": 9, "tcpClosingSecs": 7, "tcpClosedSecs": 5, "udpSecs": 4, "icmpSecs": 2, "otherSecs": 6}"#;
    let state =
        CE1.replace(r#""generation": "1","#, &format!(r#""generation": "1", "settings": {{"timeouts": {timeouts}}},"#));
    let on = |mut it: Connection| {
        // The same story on a node with these settings.
        it.node = Node::new(&state);
        it
    };
    let mut it = on(Connection::new());
    it.up(SYN, 100, 0, b"");
    lasts(it.node, 3);
    let mut it = on(Connection::new());
    it.up(SYN, 100, 0, b"");
    it.down(SYN | ACK, 500, 101, b"");
    it.up(ACK, 101, 501, b"");
    lasts(it.node, 9);
    let mut node = Node::new(&state);
    node.receive(LAN1, &from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ip()));
    lasts(node, 4);
}

#[test]
fn either_direction_keeps_the_pair() {
    let mut node = Node::new(CE1);
    node.receive(LAN1, &from_client(&udp(CLIENT, SERVER, 1, 2, b"x").ip()));
    for _ in 0..5 {
        node.wait(250_000);
        assert_eq!(node.receive(UNDERLAYS[0], &out_of_tunnel(&udp(SERVER, CLIENT, 2, 1, b"y"))).len(), 1);
    }
    assert_eq!((node.flow_records(), node.flow(1).packets), (2, 1));
    lasts(node, 300);
}
