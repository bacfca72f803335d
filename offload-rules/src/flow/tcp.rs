//! TCP state of a pair, as a box in the middle can know it.
//!
//! Each direction keeps what *its sender* has shown: the highest sequence number sent, the highest acknowledgement sent, and
//! a few bits. The state of the connection ([`TcpPhase`]) is read from both directions together. Segments pass a middle box
//! in an order that no endpoint sees, so tracking never judges data by a window; what it decides is when a pair opens,
//! closes, dies, or begins again, and which resets to believe.
//!
//! ```text
//!            SYN            SYN acked, both ways        FIN                 both FINs acked
//!  (new) ─────────► Opening ───────────────────► Established ────► Closing ───────────────► Closed ─┐
//!    │ anything else                                  ▲ │            │                              │ new SYN:
//!    └────────────────────────────────────────────────┘ └────────────┴──► believed RST ──► Dead ────┴─► Opening
//! ```

use std::fmt;

#[cfg(test)]
mod tests;

/// Flag bits of the TCP header's 14th octet (RFC 9293 §3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push function.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
}

/// The largest distance between what a sender has sent and what its peer has acknowledged at which a reset at the sender's
/// highest sequence number is believed. It bounds what a blind attacker gains by first sending data at a guessed sequence
/// number; a true reset beyond it is answered with a challenge ACK and comes back with the exact number (RFC 5961 §3.2).
const IN_FLIGHT: u32 = 1 << 24;

/// What tracking reads of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The flags octet; bits as in [`flag`].
    pub flags: u8,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK; read only with [`flag::ACK`].
    pub ack: u32,
    /// Octets of payload, without SYN and FIN.
    pub payload_len: u32,
}

impl Segment {
    const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Sequence number after this segment: payload, and one each for SYN and FIN (RFC 9293 §3.4).
    const fn end(&self) -> u32 {
        let phantom = self.has(flag::SYN) as u32 + self.has(flag::FIN) as u32;
        self.seq.wrapping_add(self.payload_len).wrapping_add(phantom)
    }

    /// A combination of flags that a sender following RFC 9293 §3.10 can produce. ECE and CWR (RFC 3168) and PSH go with any.
    #[must_use]
    pub const fn flags_are_valid(&self) -> bool {
        const RELEVANT: u8 = flag::FIN | flag::SYN | flag::RST | flag::ACK | flag::URG;
        const SYN_URG: u8 = flag::SYN | flag::URG;
        const SYN_ACK: u8 = flag::SYN | flag::ACK;
        const RST_ACK: u8 = flag::RST | flag::ACK;
        const ACK_URG: u8 = flag::ACK | flag::URG;
        const FIN_ACK: u8 = flag::FIN | flag::ACK;
        const FIN_ACK_URG: u8 = FIN_ACK | flag::URG;
        matches!(
            self.flags & RELEVANT,
            flag::SYN | SYN_URG | SYN_ACK | flag::RST | RST_ACK | flag::ACK | ACK_URG | FIN_ACK | FIN_ACK_URG
        )
    }
}

/// Bits of one direction. The letters of the command line come from the bits of both: `S` is this direction's SYN, `Sr` the
/// other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpState(u8);

impl TcpState {
    /// The sender's SYN was seen.
    pub const SYN: Self = Self(0x01);
    /// The sender's SYN was acknowledged, or the connection was found in the middle.
    pub const ESTABLISHED: Self = Self(0x02);
    /// The sender's FIN was seen.
    pub const FIN: Self = Self(0x04);
    /// The sender's FIN was acknowledged.
    pub const CLOSED: Self = Self(0x08);
    /// A reset by the sender was believed.
    pub const RESET: Self = Self(0x10);
    /// `snd_nxt` is known.
    pub const SENT: Self = Self(0x20);
    /// `acked` is known.
    pub const ACKED: Self = Self(0x40);
    /// Plain segments of the sender concern nothing but its own numbers: [`TcpDirection::on_data`] takes them.
    pub const FAST: Self = Self(0x80);

    /// From the octet that a flow record holds.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// The octet that a flow record holds.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// All bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What the sender of one direction has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpDirection {
    /// Sequence number after the highest that was sent.
    pub snd_nxt: u32,
    /// Highest acknowledgement that was sent: the sender's RCV.NXT as far as it has told.
    pub acked: u32,
    /// Bits.
    pub state: TcpState,
}

/// What to do with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpVerdict {
    /// Goes on.
    Accept,
    /// A reset that is not exact (RFC 5961 §3.2): nothing changed, count "TCP reset ignored".
    ResetIgnored,
    /// Flags that contradict each other: nothing changed.
    InvalidFlags,
    /// A SYN that begins a new connection on a closed or dead pair. Both directions have been set back and hold this SYN;
    /// what was decided for the old connection is to be decided again.
    Reopen,
}

/// State of a connection, for timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcpPhase {
    /// Handshake not complete.
    Opening,
    /// Both SYNs acknowledged, or found in the middle.
    Established,
    /// A FIN was seen.
    Closing,
    /// Both FINs acknowledged: TIME-WAIT at one end.
    Closed,
    /// Reset.
    Dead,
}

impl TcpPhase {
    /// Of a pair; the order of the directions does not matter.
    #[must_use]
    pub const fn of(this: TcpState, other: TcpState) -> Self {
        if this.contains(TcpState::RESET) || other.contains(TcpState::RESET) {
            Self::Dead
        } else if this.contains(TcpState::CLOSED) && other.contains(TcpState::CLOSED) {
            Self::Closed
        } else if this.contains(TcpState::FIN) || other.contains(TcpState::FIN) {
            Self::Closing
        } else if this.contains(TcpState::ESTABLISHED) && other.contains(TcpState::ESTABLISHED) {
            Self::Established
        } else {
            Self::Opening
        }
    }
}

impl TcpDirection {
    /// Follows a segment that only carries data or an acknowledgement on an established connection, without looking at the
    /// other direction. `false`: nothing was done, [`track`] must see the segment.
    #[inline]
    #[must_use]
    pub const fn on_data(&mut self, segment: &Segment) -> bool {
        let control = segment.flags & (flag::SYN | flag::FIN | flag::RST | flag::ACK | flag::URG);
        if control != flag::ACK || !self.state.contains(TcpState::FAST) {
            return false;
        }
        // FAST implies that both numbers are known.
        self.snd_nxt = later(self.snd_nxt, segment.end());
        self.acked = later(self.acked, segment.ack);
        true
    }

    /// Forgets the sequence numbers, when segments have passed elsewhere (a NIC forwards the flow): the next segment of each
    /// direction sets them anew.
    pub const fn forget_sequence(&mut self) {
        self.state = self.state.without(TcpState(TcpState::SENT.0 | TcpState::ACKED.0 | TcpState::FAST.0));
    }

    const fn is(&self, bits: TcpState) -> bool {
        self.state.contains(bits)
    }

    const fn set(&mut self, bits: TcpState) {
        self.state = self.state.with(bits);
    }

    /// Takes over the numbers of a segment, forward only.
    const fn advance(&mut self, segment: &Segment) {
        let end = segment.end();
        self.snd_nxt = if self.is(TcpState::SENT) { later(self.snd_nxt, end) } else { end };
        self.set(TcpState::SENT);
        if segment.has(flag::ACK) {
            self.acked = if self.is(TcpState::ACKED) { later(self.acked, segment.ack) } else { segment.ack };
            self.set(TcpState::ACKED);
        }
    }

    /// The sender begins with this SYN.
    const fn begin(&mut self, segment: &Segment) {
        *self = Self { snd_nxt: segment.end(), acked: 0, state: TcpState(TcpState::SYN.0 | TcpState::SENT.0) };
        if segment.has(flag::ACK) {
            self.acked = segment.ack;
            self.set(TcpState::ACKED);
        }
    }

    /// The other side sent this acknowledgement.
    const fn acknowledged(&mut self, ack: u32) {
        if !self.is(TcpState::SENT) || precedes(ack, self.snd_nxt) {
            return;
        }
        if self.is(TcpState::SYN) {
            self.set(TcpState::ESTABLISHED);
        }
        if self.is(TcpState::FIN) {
            self.set(TcpState::CLOSED);
        }
    }
}

/// Follows one segment of the direction `this`; `other` is the opposite direction of the pair. Both begin as
/// [`TcpDirection::default`].
pub const fn track(this: &mut TcpDirection, other: &mut TcpDirection, segment: &Segment) -> TcpVerdict {
    if !segment.flags_are_valid() {
        return TcpVerdict::InvalidFlags;
    }
    let verdict = if segment.has(flag::RST) {
        reset(this, other, segment)
    } else if segment.has(flag::SYN) {
        synchronise(this, other, segment)
    } else {
        transfer(this, other, segment);
        TcpVerdict::Accept
    };
    let established = matches!(TcpPhase::of(this.state, other.state), TcpPhase::Established);
    mark_fast(this, established);
    mark_fast(other, established);
    verdict
}

const fn mark_fast(direction: &mut TcpDirection, established: bool) {
    let fast = established && direction.is(TcpState::SENT) && direction.is(TcpState::ACKED);
    direction.state = if fast { direction.state.with(TcpState::FAST) } else { direction.state.without(TcpState::FAST) };
}

/// A reset is believed when its number is exactly the one that the receiver expects (RFC 5961 §3.2).
const fn reset(this: &mut TcpDirection, other: &TcpDirection, segment: &Segment) -> TcpVerdict {
    let answers_syn = !this.is(TcpState::SENT)
        && other.is(TcpState::SYN)
        && !other.is(TcpState::ESTABLISHED)
        && !other.is(TcpState::ACKED);
    let believed = if answers_syn {
        // SYN-SENT (RFC 9293 §3.10.7.3): believed when it acknowledges the SYN, whatever its sequence number.
        segment.has(flag::ACK) && segment.ack == other.snd_nxt
    } else if other.is(TcpState::ACKED) && segment.seq == other.acked {
        true
    } else if this.is(TcpState::SENT) {
        // What the receiver has got but not acknowledged yet: its RCV.NXT is the sender's SND.NXT when nothing was lost.
        segment.seq == this.snd_nxt
            && (!other.is(TcpState::ACKED) || this.snd_nxt.wrapping_sub(other.acked) <= IN_FLIGHT)
    } else {
        // Nothing is known to compare with (the pair is new, or was forwarded elsewhere): the receiver judges by itself.
        !other.is(TcpState::ACKED)
    };
    if !believed {
        return TcpVerdict::ResetIgnored;
    }
    this.set(TcpState::RESET);
    TcpVerdict::Accept
}

const fn synchronise(this: &mut TcpDirection, other: &mut TcpDirection, segment: &Segment) -> TcpVerdict {
    let phase = TcpPhase::of(this.state, other.state);
    let answer = segment.has(flag::ACK);
    match phase {
        // A new incarnation. After a reset there is no TIME-WAIT to respect; after an orderly close the new number must be
        // beyond the old connection's (RFC 1122 §4.2.2.13, RFC 6191 §2). A lower one goes on without a change: the receiver
        // may take it by its timestamp (RFC 6191), which the SYN-ACK will show, or answer with an ACK.
        TcpPhase::Dead | TcpPhase::Closed if !answer => {
            let beyond = !this.is(TcpState::SENT) || precedes(this.snd_nxt, segment.seq);
            if matches!(phase, TcpPhase::Closed) && !beyond {
                return TcpVerdict::Accept;
            }
            *other = TcpDirection { snd_nxt: 0, acked: 0, state: TcpState(0) };
            this.begin(segment);
            TcpVerdict::Reopen
        }
        // The receiver took a SYN that was passed on without a change, see above.
        TcpPhase::Closed => {
            *other = TcpDirection {
                snd_nxt: segment.ack,
                acked: 0,
                state: TcpState(TcpState::SYN.0 | TcpState::SENT.0 | TcpState::ESTABLISHED.0),
            };
            this.begin(segment);
            TcpVerdict::Accept
        }
        TcpPhase::Opening => {
            // A repeated SYN may carry other data (RFC 7413 §4.2) or another number: the last one counts until it is
            // acknowledged.
            if !this.is(TcpState::ESTABLISHED) {
                this.begin(segment);
            }
            if answer {
                other.acknowledged(segment.ack);
            }
            TcpVerdict::Accept
        }
        // RFC 5961 §4: a SYN on a synchronised connection only provokes a challenge ACK, whatever its number. If the peer
        // did begin anew, its reset in answer to that ACK ends the old connection.
        TcpPhase::Established | TcpPhase::Closing | TcpPhase::Dead => TcpVerdict::Accept,
    }
}

const fn transfer(this: &mut TcpDirection, other: &mut TcpDirection, segment: &Segment) {
    // What still comes after the end (a repeated FIN, the last ACK) changes nothing.
    if matches!(TcpPhase::of(this.state, other.state), TcpPhase::Closed | TcpPhase::Dead) {
        return;
    }
    // Found in the middle: neither side's SYN was seen.
    if !this.is(TcpState::SYN) && !other.is(TcpState::SYN) {
        this.set(TcpState::ESTABLISHED);
        other.set(TcpState::ESTABLISHED);
    }
    let newest = !this.is(TcpState::SENT) || !precedes(segment.end(), this.snd_nxt);
    this.advance(segment);
    if segment.has(flag::FIN) && newest {
        this.set(TcpState::FIN);
    }
    other.acknowledged(segment.ack);
}

/// The letters of a direction's record in the command line's flow list, such as `SSrEEr`: S SYN, E established, F FIN, C a
/// side is closed, R reset, D dead (may be evicted); `r` marks the other direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpLetters {
    /// Bits of the record.
    pub this: TcpState,
    /// Bits of the record of the other direction.
    pub other: TcpState,
}

impl fmt::Display for TcpLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(TcpState::SYN, "S"), (TcpState::ESTABLISHED, "E"), (TcpState::FIN, "F")] {
            if self.this.contains(bit) {
                f.write_str(letter)?;
            }
            if self.other.contains(bit) {
                write!(f, "{letter}r")?;
            }
        }
        for (bit, letter) in [(TcpState::CLOSED, "C"), (TcpState::RESET, "R")] {
            if self.this.contains(bit) || self.other.contains(bit) {
                f.write_str(letter)?;
            }
        }
        match TcpPhase::of(self.this, self.other) {
            TcpPhase::Closed | TcpPhase::Dead => f.write_str("D"),
            TcpPhase::Opening | TcpPhase::Established | TcpPhase::Closing => Ok(()),
        }
    }
}

/// `a` comes before `b` in sequence space (RFC 9293 §3.4).
const fn precedes(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// The later of two sequence numbers.
const fn later(a: u32, b: u32) -> u32 {
    if precedes(a, b) { b } else { a }
}
