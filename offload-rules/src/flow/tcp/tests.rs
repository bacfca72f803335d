use proptest::prelude::*;

use super::{
    Segment, TcpDirection, TcpLetters, TcpPhase, TcpState, TcpVerdict,
    flag::{ACK, FIN, PSH, RST, SYN, URG},
    track,
};

/// A pair as seen by its client: direction 0 is client to server.
#[derive(Default, Clone)]
struct Pair([TcpDirection; 2]);

impl Pair {
    fn feed(&mut self, from: usize, flags: u8, seq: u32, ack: u32, payload_len: u32) -> TcpVerdict {
        let [client, server] = &mut self.0;
        let (this, other) = if from == 0 { (client, server) } else { (server, client) };
        let segment = Segment { flags, seq, ack, payload_len };
        if this.on_data(&segment) { TcpVerdict::Accept } else { track(this, other, &segment) }
    }

    fn phase(&self) -> TcpPhase {
        TcpPhase::of(self.0[0].state, self.0[1].state)
    }

    fn letters(&self, from: usize) -> String {
        TcpLetters { this: self.0[from].state, other: self.0[1 - from].state }.to_string()
    }

    /// Client's ISS 100, server's 500.
    fn established() -> Self {
        let mut pair = Self::default();
        pair.feed(0, SYN, 100, 0, 0);
        pair.feed(1, SYN | ACK, 500, 101, 0);
        pair.feed(0, ACK, 101, 501, 0);
        pair
    }

    fn closed() -> Self {
        let mut pair = Self::established();
        pair.feed(0, FIN | ACK, 101, 501, 0);
        pair.feed(1, FIN | ACK, 501, 102, 0);
        pair.feed(0, ACK, 102, 502, 0);
        pair
    }
}

#[test]
fn the_handshake_shows_its_letters_one_by_one() {
    let mut pair = Pair::default();
    assert_eq!(pair.letters(0), "");
    pair.feed(0, SYN, 100, 0, 0);
    assert_eq!((pair.letters(0).as_str(), pair.letters(1).as_str()), ("S", "Sr"));
    pair.feed(1, SYN | ACK, 500, 101, 0);
    assert_eq!((pair.letters(0).as_str(), pair.letters(1).as_str()), ("SSrE", "SSrEr"));
    assert_eq!(pair.phase(), TcpPhase::Opening);
    pair.feed(0, ACK, 101, 501, 0);
    assert_eq!(pair.letters(0), "SSrEEr");
    assert_eq!(pair.phase(), TcpPhase::Established);
}

#[test]
fn an_orderly_close_ends_in_time_wait() {
    let mut pair = Pair::established();
    pair.feed(0, FIN | ACK | PSH, 101, 501, 10);
    assert_eq!((pair.letters(0).as_str(), pair.phase()), ("SSrEErF", TcpPhase::Closing));
    pair.feed(1, ACK, 501, 112, 0);
    assert_eq!(pair.letters(0), "SSrEErFC");
    pair.feed(1, FIN | ACK, 501, 112, 0);
    assert_eq!((pair.letters(0).as_str(), pair.phase()), ("SSrEErFFrC", TcpPhase::Closing));
    pair.feed(0, ACK, 112, 502, 0);
    assert_eq!((pair.letters(0).as_str(), pair.phase()), ("SSrEErFFrCD", TcpPhase::Closed));
}

#[test]
fn both_sides_may_open_at_once() {
    let mut pair = Pair::default();
    pair.feed(0, SYN, 100, 0, 0);
    pair.feed(1, SYN, 500, 0, 0);
    pair.feed(0, SYN | ACK, 100, 501, 0);
    assert_eq!(pair.phase(), TcpPhase::Opening);
    pair.feed(1, SYN | ACK, 500, 101, 0);
    assert_eq!(pair.phase(), TcpPhase::Established);
}

#[test]
fn established_data_takes_the_fast_path_and_a_fin_ends_it() {
    let mut pair = Pair::established();
    let data = Segment { flags: ACK | PSH, seq: 101, ack: 501, payload_len: 1400 };
    assert!(pair.0[0].on_data(&data));
    assert_eq!(pair.0[0].snd_nxt, 1501);
    assert!(!pair.0[0].on_data(&Segment { flags: ACK | FIN, ..data }));
    pair.feed(0, FIN | ACK, 1501, 501, 0);
    // The acknowledgement of the FIN must be seen by the full tracker.
    assert!(!pair.0[1].on_data(&Segment { flags: ACK, seq: 501, ack: 1502, payload_len: 0 }));
}

#[test]
fn a_reset_is_believed_at_the_exact_number_only() {
    for (from, exact) in [(0, 101), (1, 501)] {
        for off in [1, u32::MAX, 1000, 0x8000_0000] {
            let mut pair = Pair::established();
            let before = pair.0;
            assert_eq!(pair.feed(from, RST, off.wrapping_add(exact), 0, 0), TcpVerdict::ResetIgnored);
            assert_eq!(pair.0, before);
        }
        let mut pair = Pair::established();
        assert_eq!(pair.feed(from, RST, exact, 0, 0), TcpVerdict::Accept);
        assert_eq!((pair.letters(0).as_str(), pair.phase()), ("SSrEErRD", TcpPhase::Dead));
    }
}

#[test]
fn a_reset_behind_unacknowledged_data_is_believed() {
    let mut pair = Pair::established();
    pair.feed(0, ACK, 101, 501, 5000);
    let mut late = pair.clone();
    assert_eq!(pair.feed(0, RST | ACK, 5101, 501, 0), TcpVerdict::Accept);
    assert_eq!(late.feed(0, RST | ACK, 101, 501, 0), TcpVerdict::Accept);
}

#[test]
fn data_at_a_guessed_number_does_not_open_the_door_for_a_reset() {
    let mut pair = Pair::established();
    pair.feed(0, ACK, 0x3000_0000, 501, 1);
    assert_eq!(pair.feed(0, RST, 0x3000_0001, 0, 0), TcpVerdict::ResetIgnored);
    assert_eq!(pair.feed(0, RST, 101, 0, 0), TcpVerdict::Accept);
}

#[test]
fn a_refused_syn_is_reset_only_by_its_own_acknowledgement() {
    let mut pair = Pair::default();
    pair.feed(0, SYN, 100, 0, 0);
    assert_eq!(pair.feed(1, RST | ACK, 0, 100, 0), TcpVerdict::ResetIgnored);
    assert_eq!(pair.feed(1, RST, 0, 101, 0), TcpVerdict::ResetIgnored);
    assert_eq!(pair.feed(1, RST | ACK, 77, 101, 0), TcpVerdict::Accept);
    assert_eq!(pair.phase(), TcpPhase::Dead);
    // With data on the SYN the reset acknowledges that too (RFC 7413 §4.2).
    let mut pair = Pair::default();
    pair.feed(0, SYN, 100, 0, 50);
    pair.feed(0, SYN, 100, 0, 0);
    assert_eq!(pair.feed(1, RST | ACK, 0, 101, 0), TcpVerdict::Accept);
}

#[test]
fn a_syn_on_an_established_connection_passes_without_effect() {
    let mut pair = Pair::established();
    let before = pair.0;
    assert_eq!(pair.feed(0, SYN, 0x7000_0000, 0, 0), TcpVerdict::Accept);
    assert_eq!(pair.feed(1, SYN | ACK, 0x7000_0000, 5, 0), TcpVerdict::Accept);
    assert_eq!(pair.0, before);
    // The client did begin anew: the challenge ACK makes it reset the old connection, and its next SYN opens.
    pair.feed(1, ACK, 501, 101, 0);
    assert_eq!(pair.feed(0, RST, 101, 0, 0), TcpVerdict::Accept);
    assert_eq!(pair.feed(0, SYN, 50, 0, 0), TcpVerdict::Reopen);
    assert_eq!((pair.letters(0).as_str(), pair.phase()), ("S", TcpPhase::Opening));
}

#[test]
fn time_wait_is_reused_by_a_higher_syn() {
    let mut pair = Pair::closed();
    assert_eq!(pair.feed(0, SYN, 102, 0, 0), TcpVerdict::Accept);
    assert_eq!(pair.phase(), TcpPhase::Closed);
    assert_eq!(pair.feed(0, SYN, 103, 0, 0), TcpVerdict::Reopen);
    assert_eq!(pair.feed(1, SYN | ACK, 9, 104, 0), TcpVerdict::Accept);
    assert_eq!(pair.feed(0, ACK, 104, 10, 0), TcpVerdict::Accept);
    assert_eq!(pair.phase(), TcpPhase::Established);
}

#[test]
fn time_wait_that_the_receiver_left_by_timestamp_opens_with_the_syn_ack() {
    let mut pair = Pair::closed();
    assert_eq!(pair.feed(0, SYN, 50, 0, 0), TcpVerdict::Accept);
    assert_eq!(pair.feed(1, SYN | ACK, 9000, 51, 0), TcpVerdict::Accept);
    assert_eq!(pair.phase(), TcpPhase::Opening);
    pair.feed(0, ACK, 51, 9001, 0);
    assert_eq!(pair.phase(), TcpPhase::Established);
}

#[test]
fn a_connection_found_in_the_middle_counts_as_established() {
    let mut pair = Pair::default();
    pair.feed(1, ACK, 7000, 3000, 100);
    assert_eq!((pair.letters(0).as_str(), pair.phase()), ("EEr", TcpPhase::Established));
    // The client was silent so far; the server's acknowledgement is the number that its reset must have.
    assert_eq!(pair.feed(0, RST, 2999, 0, 0), TcpVerdict::ResetIgnored);
    assert_eq!(pair.feed(0, RST, 3000, 0, 0), TcpVerdict::Accept);
}

#[test]
fn a_reset_of_forgotten_numbers_is_for_the_receiver_to_judge() {
    for from in [0, 1] {
        let mut pair = Pair::established();
        pair.0[0].forget_sequence();
        pair.0[1].forget_sequence();
        assert_eq!(pair.feed(from, RST, 0x9000_0000, 0, 0), TcpVerdict::Accept);
        assert_eq!(pair.phase(), TcpPhase::Dead);
    }
}

#[test]
fn forgotten_numbers_are_learnt_again() {
    let mut pair = Pair::established();
    pair.0[0].forget_sequence();
    pair.0[1].forget_sequence();
    pair.feed(0, ACK, 0x9000_0000, 0xa000_0000, 10);
    assert_eq!(pair.phase(), TcpPhase::Established);
    assert_eq!(pair.feed(1, RST, 0xa000_0001, 0, 0), TcpVerdict::ResetIgnored);
    assert_eq!(pair.feed(1, RST, 0xa000_0000, 0, 0), TcpVerdict::Accept);
}

#[test]
fn contradicting_flags_are_invalid_and_change_nothing() {
    // RFC 9293 §3.10: every segment but an initial SYN and a reset carries ACK; SYN, FIN and RST exclude each other.
    for flags in 0..=u8::MAX {
        let one = |bit: u8| flags & bit != 0;
        let exclusive = u8::from(one(SYN)) + u8::from(one(FIN)) + u8::from(one(RST)) <= 1;
        let acknowledged = one(ACK) || one(SYN) || one(RST);
        let urgent = !one(URG) || !(one(RST) || one(SYN) && one(ACK));
        let mut pair = Pair::default();
        let verdict = pair.feed(0, flags, 1, 1, 0);
        assert_eq!(verdict == TcpVerdict::InvalidFlags, !(exclusive && acknowledged && urgent), "{flags:#x}");
        assert_eq!(verdict == TcpVerdict::InvalidFlags, pair.0 == <[TcpDirection; 2]>::default(), "{flags:#x}");
    }
}

#[test]
fn bits_survive_the_octet_of_a_record() {
    let pair = Pair::closed();
    assert_eq!(TcpState::from_bits(pair.0[0].state.bits()), pair.0[0].state);
}

/// One endpoint that follows RFC 9293, with absolute numbers that never wrap.
#[derive(Debug, Clone, Copy)]
struct Endpoint {
    iss: u64,
    /// Next number to send, and the highest that the peer told us it has.
    next: u64,
    peer_has: u64,
    /// Next number expected from the peer, 0 before its SYN.
    expects: u64,
    fin_sent: bool,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Data { from: usize, len: u16, lost: bool },
    Ack { from: usize },
    Fin { from: usize, lost: bool },
    Repeat { from: usize },
    BlindReset { from: usize, guess: u32 },
    BlindSyn { from: usize, guess: u32 },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let from = 0..2usize;
    let act = prop_oneof![
        6 => (from.clone(), 1..9000u16, any::<bool>()).prop_map(|(from, len, lost)| Act::Data { from, len, lost }),
        6 => from.clone().prop_map(|from| Act::Ack { from }),
        1 => (from.clone(), any::<bool>()).prop_map(|(from, lost)| Act::Fin { from, lost }),
        2 => from.clone().prop_map(|from| Act::Repeat { from }),
        2 => (from.clone(), any::<u32>()).prop_map(|(from, guess)| Act::BlindReset { from, guess }),
        1 => (from, any::<u32>()).prop_map(|(from, guess)| Act::BlindSyn { from, guess }),
    ];
    prop::collection::vec(act, 0..80)
}

proptest! {
    /// Two endpoints that follow the RFC talk through the tracker; segments may be lost behind it. The phase is what the
    /// endpoints' absolute numbers say, a guessed reset or SYN changes nothing, an exact reset always ends the connection.
    #[test]
    fn the_phase_is_that_of_the_endpoints(iss in any::<[u32; 2]>(), acts in acts(), last in 0..2usize) {
        let mut pair = Pair::default();
        let mut ends = iss.map(|iss| {
            let iss = u64::from(iss) + (1 << 32);
            Endpoint { iss, next: iss + 1, peer_has: iss, expects: 0, fin_sent: false }
        });
        let wire = |number: u64| number as u32;
        pair.feed(0, SYN, wire(ends[0].iss), 0, 0);
        ends[1].expects = ends[0].next;
        pair.feed(1, SYN | ACK, wire(ends[1].iss), wire(ends[1].expects), 0);
        ends[0].expects = ends[1].next;
        ends[0].peer_has = ends[1].expects;
        pair.feed(0, ACK, wire(ends[0].next), wire(ends[0].expects), 0);
        ends[1].peer_has = ends[0].expects;

        for act in acts {
            let before = pair.0;
            match act {
                Act::Data { from, len, lost } if !ends[from].fin_sent => {
                    let (seq, ack) = (ends[from].next, ends[from].expects);
                    pair.feed(from, ACK, wire(seq), wire(ack), u32::from(len));
                    ends[from].next += u64::from(len);
                    ends[1 - from].peer_has = ack;
                    if !lost && ends[1 - from].expects == seq {
                        ends[1 - from].expects = ends[from].next;
                    }
                }
                Act::Fin { from, lost } if !ends[from].fin_sent => {
                    let (seq, ack) = (ends[from].next, ends[from].expects);
                    pair.feed(from, FIN | ACK, wire(seq), wire(ack), 0);
                    ends[from].next += 1;
                    ends[from].fin_sent = true;
                    ends[1 - from].peer_has = ack;
                    if !lost && ends[1 - from].expects == seq {
                        ends[1 - from].expects = ends[from].next;
                    }
                }
                Act::Data { from, .. } | Act::Fin { from, .. } | Act::Ack { from } => {
                    pair.feed(from, ACK, wire(ends[from].next), wire(ends[from].expects), 0);
                    ends[1 - from].peer_has = ends[from].expects;
                }
                // Everything since the peer's last acknowledgement once more; nothing is lost this time.
                Act::Repeat { from } => {
                    let (mut seq, next, ack) = (ends[from].peer_has, ends[from].next, ends[from].expects);
                    let data_end = next - u64::from(ends[from].fin_sent);
                    while seq < data_end {
                        let len = (data_end - seq).min(1000);
                        pair.feed(from, ACK, wire(seq), wire(ack), len as u32);
                        seq += len;
                    }
                    if ends[from].fin_sent && next > ends[from].peer_has {
                        pair.feed(from, FIN | ACK, wire(data_end), wire(ack), 0);
                    }
                    ends[1 - from].expects = next;
                    if next > ends[from].peer_has {
                        ends[1 - from].peer_has = ack;
                    }
                }
                Act::BlindReset { from, guess } => {
                    let exact = [wire(ends[from].next), wire(ends[from].peer_has)];
                    if !exact.contains(&guess) {
                        prop_assert_eq!(pair.feed(from, RST, guess, 0, 0), TcpVerdict::ResetIgnored);
                        prop_assert_eq!(&pair.0, &before);
                    }
                }
                Act::BlindSyn { from, guess } => {
                    if pair.phase() != TcpPhase::Closed {
                        prop_assert_eq!(pair.feed(from, SYN, guess, 0, 0), TcpVerdict::Accept);
                        prop_assert_eq!(&pair.0, &before);
                    }
                }
            }
            let finished = |end: &Endpoint| end.fin_sent && end.peer_has == end.next;
            let expected = match (ends.iter().filter(|e| e.fin_sent).count(), ends.iter().filter(|e| finished(e)).count()) {
                (0, _) => TcpPhase::Established,
                (_, 2) => TcpPhase::Closed,
                _ => TcpPhase::Closing,
            };
            prop_assert_eq!(pair.phase(), expected, "{:?}", ends);
        }
        if pair.phase() != TcpPhase::Closed {
            let exact = wire(ends[last].peer_has);
            prop_assert_eq!(pair.feed(last, RST, exact, 0, 0), TcpVerdict::Accept);
            prop_assert_eq!(pair.phase(), TcpPhase::Dead);
        }
    }
}
