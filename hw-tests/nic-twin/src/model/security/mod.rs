//! IPsec sessions (rte_security guide, "Inline Crypto" and "Inline protocol offload"): ESP in tunnel mode with AES-GCM.
//!
//! Where the guide leaves something open, this NIC does the following. The initial sequence number of a session for sending
//! (`esn.value`) is that of its first packet; of a session for receiving it is the lowest that the window takes; 0 counts as 1. A packet that is
//! refused on receipt goes to the application at once, as it was, and meets no further rule. Sent beyond a hard limit or
//! the last number, or to be sealed without a session, a packet is dropped. Sessions are of the NIC: any port may use them.

mod esp;
mod window;

use std::collections::BTreeMap;

use super::error::{EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC, ENOTSUP, Errno};
use super::frame::Frame;
use super::layers::{Layers, be16, slot};
use super::nic::Nic;
use super::program::Op;
use esp::Cipher;
use window::Window;

/// What a rule names instead of a session to say "the one of the packet's SPI" (SECURITY without a configuration, as
/// drivers of NICs with inline protocol take it). No session has this number.
pub const BY_SPI: u64 = u64::MAX;

/// What a packet names that is to be sealed and names no session. No session has this number.
pub const NO_SESSION: u64 = 0;

/// How much of ESP a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionKind {
    /// Cipher and check value.
    InlineCrypto,
    /// All of it.
    InlineProtocol,
}

/// Which way its packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionWay {
    /// Received: deciphered.
    Ingress,
    /// Sent: enciphered.
    Egress,
}

/// Outer IPv4 or IPv6 header of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OuterHeader {
    /// Source.
    pub source: [u8; 4],
    /// Destination.
    pub destination: [u8; 4],
    /// With these the header is IPv6: source, destination, flow label.
    pub v6: Option<([u8; 16], [u8; 16], u32)>,
    /// DSCP, where it is not copied.
    pub dscp: u8,
    /// Don't fragment, where it is not copied.
    pub df: bool,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Copy the DSCP of the packet inside.
    pub copy_dscp: bool,
    /// Copy its don't-fragment bit; of IPv6 `df` is taken.
    pub copy_df: bool,
    /// In UDP (RFC 3948): source and destination port.
    pub udp: Option<(u16, u16)>,
}

/// When a session stops; 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Packets.
    pub packets: u64,
    /// Octets of the packets inside.
    pub bytes: u64,
}

/// A session as the application asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// How much of ESP.
    pub kind: SessionKind,
    /// Which way.
    pub way: SessionWay,
    /// Security parameters index.
    pub spi: u32,
    /// 16 or 32 octets.
    pub key: Vec<u8>,
    /// Of the nonce (RFC 4106 §4).
    pub salt: [u8; 4],
    /// The explicit part of every nonce, where the application gives it. That is for tests with known vectors alone: under one key a
    /// second packet gives the key away.
    pub iv: Option<[u8; 8]>,
    /// Extended sequence numbers.
    pub esn: bool,
    /// ECN as of RFC 6040, both ways.
    pub ecn: bool,
    /// First number that is sent, or lowest that is received.
    pub first: u64,
    /// Packets of the replay window; 0: none.
    pub window: u32,
    /// What is put before ESP.
    pub outer: OuterHeader,
    /// When its end is announced.
    pub soft: Limits,
    /// Its end.
    pub hard: Limits,
    /// What comes back with each packet that inline protocol has opened.
    pub userdata: u64,
}

/// What a session has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionStats {
    /// Packets opened or sealed.
    pub packets: u64,
    /// Octets of the packets inside.
    pub bytes: u64,
    /// Not authentic, or with wrong padding, or no IP inside.
    pub errors: u64,
    /// Received before, or left of the window.
    pub replays: u64,
    /// Beyond the limits.
    pub beyond: u64,
}

/// A limit of a session that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Soft, in packets.
    Packets,
    /// Soft, in octets.
    Bytes,
    /// Hard, in packets.
    PacketsHard,
    /// Hard, in octets.
    BytesHard,
    /// There is no next sequence number.
    Numbers,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Refused,
    Drop,
}

struct Session {
    config: SessionConfig,
    cipher: Cipher,
    window: Window,
    /// Number of the next packet that is sent; `None` after the last there is.
    next: Option<u64>,
    /// Limits that were met, each once.
    met: Vec<Expiry>,
    /// How many of them were told.
    told: usize,
    stats: SessionStats,
}

/// All sessions of a NIC, by the application's number.
#[derive(Default)]
pub(crate) struct Sessions(BTreeMap<u64, Session>);

impl Session {
    fn new(config: SessionConfig) -> Option<Session> {
        Some(Session {
            cipher: Cipher::new(&config.key, config.salt)?,
            window: Window::new(config.window, config.esn, config.first.max(1)),
            next: Some(config.first.max(1)),
            met: Vec::new(),
            told: 0,
            stats: SessionStats::default(),
            config,
        })
    }

    /// The last number that may be sent.
    fn last(&self) -> u64 {
        if self.config.esn { u64::MAX } else { u32::MAX.into() }
    }

    /// The number of the packet that is sent now. `None`: there is none, which is remembered, to be told.
    fn number(&mut self) -> Option<u64> {
        let number = self.next.filter(|number| *number <= self.last());
        if number.is_none() {
            self.expire(Expiry::Numbers);
        }
        number
    }

    /// Is this packet beyond what the session may do? If so, that is remembered, to be told.
    fn is_beyond(&mut self) -> bool {
        let Limits { packets, bytes } = self.config.hard;
        let met = [
            (packets > 0 && self.stats.packets >= packets, Expiry::PacketsHard),
            (bytes > 0 && self.stats.bytes >= bytes, Expiry::BytesHard),
        ];
        let Some((_, expiry)) = met.into_iter().find(|(met, _)| *met) else { return false };
        self.expire(expiry);
        true
    }

    fn expire(&mut self, expiry: Expiry) {
        if !self.met.contains(&expiry) {
            self.met.push(expiry);
        }
    }

    fn count(&mut self, octets: usize) {
        self.stats.packets += 1;
        self.stats.bytes += octets as u64;
        let Limits { packets, bytes } = self.config.soft;
        if packets > 0 && self.stats.packets >= packets {
            self.expire(Expiry::Packets);
        }
        if bytes > 0 && self.stats.bytes >= bytes {
            self.expire(Expiry::Bytes);
        }
    }
}

impl Sessions {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// The session that a rule means for a packet: [`BY_SPI`] finds the receiving one of inline protocol with the packet's SPI.
    pub(crate) fn meant(&self, number: u64, frame: &Frame, layers: &Layers) -> Option<u64> {
        if number != BY_SPI {
            return Some(number);
        }
        let spi = frame.bytes().get(usize::from(layers.at[slot::ESP])..)?.first_chunk::<4>()?;
        let spi = u32::from_be_bytes(*spi);
        let receives = |config: &SessionConfig| {
            config.way == SessionWay::Ingress && config.kind == SessionKind::InlineProtocol && config.spi == spi
        };
        self.0.iter().find(|(_, session)| receives(&session.config)).map(|(number, _)| *number)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// A rule applies a session to a packet whose headers are known.
    pub(crate) fn apply(&mut self, number: u64, frame: &mut Frame, layers: &Layers) -> Verdict {
        let Some(ip) = layers.ip[0] else { return Verdict::Drop };
        let Some(session) = self.0.get_mut(&number) else { return Verdict::Drop };
        frame.truncate(ip.end);
        match session.config.way {
            SessionWay::Ingress => {
                let esp = usize::from(layers.at[slot::ESP]);
                if ip.protocol == 17
                    && let Some(len) = esp.checked_sub(4).and_then(|at| be16(frame.bytes(), at))
                {
                    // In UDP it ends with the datagram (RFC 768).
                    frame.truncate((esp - 8 + usize::from(len)).min(ip.end));
                }
                if esp <= ip.at { Verdict::Refused } else { esp::open(session, frame, ip.at, esp) }
            }
            SessionWay::Egress => esp::seal(session, frame, ip.at),
        }
    }

    /// The application gives a packet to be sealed, behind this many octets of Ethernet.
    fn send(&mut self, number: u64, frame: &mut Frame, link: usize) -> Verdict {
        let Some(session) = self.0.get_mut(&number) else { return Verdict::Drop };
        if session.config.way == SessionWay::Ingress {
            return Verdict::Drop;
        }
        // The packet itself tells its family: the type before it may be that of the header to come.
        let packet = frame.bytes().get(link..).unwrap_or_default();
        let Some(end) = Layers::of_packet(packet, false).end() else { return Verdict::Drop };
        frame.truncate(link + end);
        esp::seal(session, frame, link)
    }
}

impl Nic {
    /// Makes a session.
    ///
    /// # Errors
    /// ENOTSUP: this NIC has no such sessions. EINVAL: the key is none, or the number. ENOSPC: there are as many as fit. EEXIST: the number is used.
    pub fn open_session(&mut self, number: u64, config: SessionConfig) -> Result<(), Errno> {
        let profile = &self.profile;
        if !profile.sessions.contains(&config.kind) {
            return Err(ENOTSUP);
        }
        // The half of a number that is not sent is known to inline protocol only.
        let esn = profile.esn && config.kind == SessionKind::InlineProtocol;
        if config.window > profile.max_window || (config.esn && !esn) || (config.key.len() > profile.max_key) {
            return Err(ENOTSUP);
        }
        if number == BY_SPI || number == NO_SESSION {
            return Err(EINVAL);
        }
        if self.sessions.contains(number) {
            return Err(EEXIST);
        }
        let same = self.sessions.0.values().filter(|session| session.config.way == config.way).count() as u64;
        if same >= profile.max_sessions || self.faults.sa_full_at.is_some_and(|most| same >= most) {
            return Err(ENOSPC);
        }
        let mut session = Session::new(config).ok_or(EINVAL)?;
        if self.faults.no_floor {
            session.window = session.window.without_floor();
        }
        self.sessions.0.insert(number, session);
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// ENOENT: there is none. EBUSY: rules use it.
    pub fn close_session(&mut self, number: u64) -> Result<(), Errno> {
        if !self.sessions.contains(number) {
            return Err(ENOENT);
        }
        let uses = |op: &Op| matches!(op, Op::Security(session) if *session == number);
        if self.profile.rules_go_with_sessions {
            self.remove_secured(uses);
        }
        if self.rules.iter().any(|rule| rule.ops.iter().any(uses)) {
            return Err(EBUSY);
        }
        self.sessions.0.remove(&number);
        Ok(())
    }

    /// The number of the next packet that a session sends; 0 counts as 1. It goes forwards alone: a number that is used again under one
    /// key gives the key away (RFC 4106 §3.1). With an IV from outside the nonce does not come from it, and it goes anywhere.
    ///
    /// # Errors
    /// ENOENT: there is no such session. EINVAL: it receives, or has sent this number or a later one, or there is no such number.
    pub fn renumber_session(&mut self, number: u64, next: u64) -> Result<(), Errno> {
        let session = self.sessions.0.get_mut(&number).ok_or(ENOENT)?;
        if session.config.way == SessionWay::Ingress {
            return Err(EINVAL);
        }
        let next = next.max(1);
        let is_back = session.next.is_none_or(|reached| next < reached);
        if next > session.last() || (is_back && session.config.iv.is_none()) {
            return Err(EINVAL);
        }
        session.next = Some(next);
        Ok(())
    }

    /// What a session has done.
    pub fn session_stats(&self, number: u64) -> Option<SessionStats> {
        self.sessions.0.get(&number).map(|session| session.stats)
    }

    /// Which way a session's packets go.
    pub fn session_way(&self, number: u64) -> Option<SessionWay> {
        self.sessions.0.get(&number).map(|session| session.config.way)
    }

    /// What the application wants back with what a session has opened; nothing of inline crypto.
    pub fn session_userdata(&self, number: u64) -> Option<u64> {
        let session = self.sessions.0.get(&number)?;
        (session.config.kind == SessionKind::InlineProtocol).then_some(session.config.userdata)
    }

    /// Limits that sessions met since they were last asked for, each with its session's userdata.
    pub fn take_expiries(&mut self) -> Vec<(u64, Expiry)> {
        let mut all = Vec::new();
        for session in self.sessions.0.values_mut().filter(|session| session.told < session.met.len()) {
            let news = session.met.iter().skip(session.told);
            all.extend(news.map(|expiry| (session.config.userdata, *expiry)));
            session.told = session.met.len();
        }
        all
    }

    /// Sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.0.len()
    }

    /// A packet that the application sends with a session, behind this many octets of Ethernet; false: it is dropped. It goes to the wire
    /// past all rules.
    pub fn transmit_sealed(&mut self, number: u64, frame: &mut Frame, link: usize) -> bool {
        self.stats.sent += 1;
        let sealed = self.sessions.send(number, frame, link) == Verdict::Done;
        self.stats.dropped += u64::from(!sealed);
        sealed
    }
}
