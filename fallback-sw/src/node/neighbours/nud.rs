//! The state machine of one neighbour: address resolution and neighbour unreachability detection (RFC 4861 §7.2, §7.3,
//! appendix C), for IPv6 and, as far as ARP can tell, for IPv4 (RFC 826; RFC 1122 §2.3.2.1).
//!
//! Pure: no I/O, and time is a parameter. A [`Cell`] is one entry of the neighbour cache; what happens to it is an [`Input`];
//! what has to be done comes back as a [`Step`].
//!
//! Where a router differs from the hosts that RFC 4861 has in mind:
//! - There is no advice from upper layers: reachability is confirmed by answers alone.
//! - An entry is taken to be in use, since a NIC forwards to it without any software seeing the packets. So STALE is left at once for
//!   DELAY, and an idle neighbour that is gone is found out about and forgotten.
//! - REACHABLE lasts 25 s (within the 15 to 45 s of §6.3.2) and DELAY 5 s: a silent neighbour is asked 30 s after its last answer.

use offload_rules::MacAddr;

use crate::worker::NeighbourClaim;

/// Milliseconds that an answer is believed (RFC 4861 §6.3.2, REACHABLE_TIME).
pub const REACHABLE_MS: u64 = 25_000;
/// Milliseconds before a doubtful neighbour is asked (RFC 4861 §10, DELAY_FIRST_PROBE_TIME).
pub const DELAY_MS: u64 = 5_000;
/// Milliseconds between two questions (RFC 4861 §10, RETRANS_TIMER; RFC 1122 §2.3.2.1: at most one a second).
pub const RETRANS_MS: u64 = 1_000;
/// Questions to all before a neighbour is unreachable (RFC 4861 §10, MAX_MULTICAST_SOLICIT).
pub const MULTICAST_SOLICITS: u8 = 3;
/// Questions to the station before it is unreachable (RFC 4861 §10, MAX_UNICAST_SOLICIT).
pub const UNICAST_SOLICITS: u8 = 3;
/// Longest time between two questions for an unreachable neighbour that is kept (RFC 7048 §3: exponential back-off).
pub const BACK_OFF_MS: u64 = 8_000;

/// State of a neighbour (RFC 4861 §7.3.2, RFC 7048 §3).
///
/// ```text
///                      solicited answer
///  ──used──► Incomplete ───────────────────────────► Reachable ◄─────────────┐
///             │      │                                │ 25 s, or            │
///             │      │ told, not asked for            ▼ another MAC is told │ solicited
///             │      └──────────────────────────────► Stale                 │ answer
///             │                                       │ used                │
///             │                                       ▼                     │
///             │                                       Delay ────────────────┤
///             │                                       │ 5 s                 │
///             │                                       ▼                     │
///             │ 3 questions to all                    Probe ────────────────┘
///             │ without answer                        │ 3 questions to the station without answer
///             ▼                                       ▼
///         Unreachable (one that is kept; asked on, more and more seldom) or forgotten
/// ```
///
/// A MAC that is told without having been asked for (a solicitation, an announcement) leads from any state with a MAC to Stale when it
/// differs from the one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being asked for, everybody; no MAC yet.
    Incomplete,
    /// It has answered lately.
    Reachable,
    /// Its MAC is used, and reachability is not confirmed.
    Stale,
    /// As Stale; it will be asked soon.
    Delay,
    /// Being asked, at its MAC.
    Probe,
    /// It did not answer; no MAC. Asked again now and then.
    Unreachable,
}

impl State {
    /// Packets can be sent to it.
    #[must_use]
    pub const fn has_mac(self) -> bool {
        matches!(self, Self::Reachable | Self::Stale | Self::Delay | Self::Probe)
    }

    /// Questions are under way.
    #[must_use]
    pub const fn is_asking(self) -> bool {
        matches!(self, Self::Incomplete | Self::Probe | Self::Unreachable)
    }
}

/// Something that happens to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A packet is to be sent to it.
    Used,
    /// It, or a proxy for it, advertised its MAC.
    Claim(NeighbourClaim),
    /// The time in [`Cell::due`] has come.
    Timeout,
}

/// A question that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// ARP request to broadcast, solicitation to the solicited-node group.
    All,
    /// To the station alone (RFC 4861 §7.3.3; RFC 1122 §2.3.2.1 "unicast poll").
    Station(MacAddr),
}

/// The destination of an extra question, see [`Cell::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// The station at the MAC that is known.
    Station,
    /// Everybody.
    Everybody,
}

/// What has to be done after an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Send this question.
    pub ask: Option<Question>,
    /// The MAC is another one than before: none, or a new one. Packets that wait go by it, programs are derived anew.
    pub mac_changed: bool,
    /// The last question got no answer: packets that wait are given up.
    pub failed: bool,
}

/// One entry of the neighbour cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    state: State,
    mac: Option<MacAddr>,
    /// Questions of the current round.
    asked: u8,
    /// When the last question was sent.
    asked_at: Option<u64>,
    /// When it last answered.
    confirmed: u64,
    due: u64,
}

impl Cell {
    /// A neighbour that a packet is for (appendix C: "Packet to send" without an entry): Incomplete, and the first question.
    #[must_use]
    pub const fn wanted(now: u64) -> (Self, Step) {
        let cell = Self {
            state: State::Incomplete,
            mac: None,
            asked: 1,
            asked_at: Some(now),
            confirmed: 0,
            due: now.saturating_add(RETRANS_MS),
        };
        (cell, Step { ask: Some(Question::All), mac_changed: false, failed: false })
    }

    /// A neighbour that advertises itself unsolicited; `None` when that makes no entry: what is advertised is for
    /// those who asked (RFC 4861 §7.2.5), a question to the node is not (§7.2.3, RFC 826).
    #[must_use]
    pub fn introduced(told: NeighbourClaim, now: u64) -> Option<(Self, Step)> {
        let (state, mac) = match told {
            NeighbourClaim::Advertisement { .. } => return None,
            NeighbourClaim::Solicitation { mac } => (State::Stale, mac),
            NeighbourClaim::Request { mac } => (State::Reachable, mac),
        };
        let due = if state == State::Reachable { now.saturating_add(REACHABLE_MS) } else { u64::MAX };
        let cell = Self { state, mac: Some(mac), asked: 0, asked_at: None, confirmed: now, due };
        Some((cell, Step { ask: None, mac_changed: true, failed: false }))
    }

    /// Its state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Where it can be reached.
    #[must_use]
    pub const fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// When it wants [`Input::Timeout`]; `u64::MAX`: never.
    #[must_use]
    pub const fn due(&self) -> u64 {
        self.due
    }

    /// Carries out an input. After [`Step::failed`] the caller forgets the entry, or keeps it by [`Self::keep`].
    pub fn step(&mut self, input: Input, now: u64) -> Step {
        match input {
            Input::Used => self.used(now),
            Input::Claim(told) => self.told(told, now),
            Input::Timeout if now < self.due => Step::default(),
            Input::Timeout => self.timeout(now),
        }
    }

    /// Asks out of turn, the station that is known, or everybody; what the state machine does by itself goes on as it would.
    pub const fn poll(&mut self, whom: Poll, now: u64) -> Option<Question> {
        let Some(mac) = self.mac else { return None };
        self.asked_at = Some(now);
        Some(match whom {
            Poll::Station => Question::Station(mac),
            Poll::Everybody => Question::All,
        })
    }

    /// Has it answered at that time or later?
    #[must_use]
    pub fn answered_since(&self, time: u64) -> bool {
        self.state == State::Reachable && self.confirmed >= time
    }

    /// Goes on asking for a neighbour that did not answer (RFC 7048 §3), to everybody: it may have another MAC by now.
    pub fn keep(&mut self, now: u64) {
        self.state = State::Unreachable;
        self.mac = None;
        self.asked = 0;
        self.due = now.saturating_add(RETRANS_MS);
    }

    /// Asks no more until [`Self::keep`] or a new [`Self::wanted`]: its link is down.
    pub const fn suspend(&mut self) {
        self.state = State::Unreachable;
        self.mac = None;
        self.due = u64::MAX;
    }

    /// Does it wait for its link, see [`Self::suspend`]?
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.state == State::Unreachable && self.due == u64::MAX
    }

    fn used(&mut self, now: u64) -> Step {
        match self.state {
            State::Stale => {
                self.state = State::Delay;
                self.due = now.saturating_add(DELAY_MS);
                Step::default()
            }
            // Asked at most once a second, however many tenants have packets for it.
            State::Unreachable if self.asked_at.is_none_or(|at| now >= at.saturating_add(RETRANS_MS)) => {
                self.ask(Question::All, now)
            }
            _ => Step::default(),
        }
    }

    fn timeout(&mut self, now: u64) -> Step {
        match (self.state, self.mac) {
            (State::Incomplete, _) if self.asked < MULTICAST_SOLICITS => self.ask(Question::All, now),
            (State::Probe, Some(mac)) if self.asked < UNICAST_SOLICITS => self.ask(Question::Station(mac), now),
            (State::Incomplete | State::Probe, _) => {
                let mac_changed = self.mac.take().is_some();
                Step { ask: None, mac_changed, failed: true }
            }
            (State::Reachable, _) if now < self.confirmed.saturating_add(REACHABLE_MS) => {
                self.due = self.confirmed.saturating_add(REACHABLE_MS);
                Step::default()
            }
            (State::Reachable | State::Stale, _) => {
                self.doubt();
                Step::default()
            }
            (State::Delay, Some(mac)) => {
                (self.state, self.asked) = (State::Probe, 0);
                self.ask(Question::Station(mac), now)
            }
            (State::Unreachable, _) => {
                let step = self.ask(Question::All, now);
                let wait = RETRANS_MS << self.asked.min(8);
                self.due = now.saturating_add(wait.min(BACK_OFF_MS));
                step
            }
            // Invariant: has_mac.
            (State::Delay, None) => Step { ask: None, mac_changed: false, failed: true },
        }
    }

    fn ask(&mut self, question: Question, now: u64) -> Step {
        self.asked = self.asked.saturating_add(1);
        self.asked_at = Some(now);
        self.due = now.saturating_add(RETRANS_MS);
        Step { ask: Some(question), mac_changed: false, failed: false }
    }

    /// Does a question wait for its answer, or could one to the last question still be on its way?
    fn is_answer(&self, now: u64) -> bool {
        self.state.is_asking() || self.asked_at.is_some_and(|at| now < at.saturating_add(RETRANS_MS))
    }

    fn told(&mut self, told: NeighbourClaim, now: u64) -> Step {
        match told {
            NeighbourClaim::Advertisement { mac, solicited, replace } => {
                self.advertised(mac, solicited && self.is_answer(now), replace, now)
            }
            // RFC 4861 §7.2.3: another MAC is recorded, and is Stale; the same changes nothing.
            NeighbourClaim::Solicitation { mac } if self.mac == Some(mac) => Step::default(),
            NeighbourClaim::Solicitation { mac } => self.record(mac, false, now),
            // RFC 826 has no other confirmation than to hear of the station; a changed MAC is asked about all the same.
            NeighbourClaim::Request { mac } => self.record(mac, self.mac.is_none_or(|known| known == mac), now),
        }
    }

    /// RFC 4861 §7.2.5. `solicited` is believed only as the answer to a question of the node's own.
    fn advertised(&mut self, mac: Option<MacAddr>, solicited: bool, replace: bool, now: u64) -> Step {
        match (self.mac, mac) {
            // Nothing to be recorded: an advertisement without address is no answer here.
            (None, None) => Step::default(),
            (None, Some(mac)) => self.record(mac, solicited, now),
            (Some(known), told) if told.is_none_or(|told| told == known) => {
                if solicited {
                    self.confirm(now);
                }
                Step::default()
            }
            (Some(_), Some(mac)) if replace => self.record(mac, solicited, now),
            // Another MAC, which does not override: doubt is all that it sows.
            (Some(_), _) => {
                if self.state == State::Reachable {
                    self.doubt();
                }
                Step::default()
            }
        }
    }

    fn record(&mut self, mac: MacAddr, confirmed: bool, now: u64) -> Step {
        let mac_changed = self.mac.replace(mac) != Some(mac);
        if confirmed {
            self.confirm(now);
        } else {
            self.doubt();
        }
        Step { ask: None, mac_changed, failed: false }
    }

    /// Reachable from now on. A timer that runs is left alone and looks again when it is due.
    fn confirm(&mut self, now: u64) {
        if self.state != State::Reachable {
            self.due = now.saturating_add(REACHABLE_MS);
        }
        self.state = State::Reachable;
        (self.asked, self.confirmed) = (0, now);
    }

    /// Stale until it is used.
    const fn doubt(&mut self) {
        self.state = State::Stale;
        self.asked = 0;
        self.due = u64::MAX;
    }
}

#[cfg(test)]
mod tests;
