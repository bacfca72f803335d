//! Any sequence of segments in both directions: no panic, and a pair that is dead or closed comes back only by a SYN.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offload_rules::flow::tcp::{Segment, TcpDirection, TcpPhase, TcpVerdict, flag, track};

// Eleven octets a segment: direction, flags, sequence number, acknowledgement, payload length.
fuzz_target!(|data: &[u8]| {
    let mut ends = [TcpDirection::default(), TcpDirection::default()];
    for act in data.chunks_exact(11) {
        let word = |at: usize| u32::from_be_bytes([act[at], act[at + 1], act[at + 2], act[at + 3]]);
        let segment = Segment { flags: act[1], seq: word(2), ack: word(6), payload_len: act[10].into() };
        let [first, second] = &mut ends;
        let (this, other) = if act[0] & 1 == 0 { (first, second) } else { (second, first) };
        let before = TcpPhase::of(this.state, other.state);
        let verdict = track(this, other, &segment);
        let after = TcpPhase::of(this.state, other.state);
        if matches!(before, TcpPhase::Dead | TcpPhase::Closed) && after < TcpPhase::Closed {
            assert!(segment.flags & flag::SYN != 0, "{before:?} -> {after:?} by {segment:?}");
        }
        if matches!(verdict, TcpVerdict::InvalidFlags | TcpVerdict::ResetIgnored) {
            assert_eq!(before, after);
        }
    }
});
