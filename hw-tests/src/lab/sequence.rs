//! Numbered datagrams between two hosts at a bounded rate: what got lost, what came twice, what overtook what.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Host, LabError, Namespace};

/// Time that the last datagrams have to arrive.
const QUIET: Duration = Duration::from_millis(700);
/// Octets of a datagram: its number, and what makes it longer than the smallest frame.
const LENGTH: usize = 256;

/// What one end has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Datagrams, each once.
    pub datagrams: u64,
    /// Came after one with a higher number.
    pub reordered: u64,
    /// Came before.
    pub duplicated: u64,
}

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceReport {
    /// Sent by the near end.
    pub sent: u64,
    /// At the far end, which sends each of them back.
    pub there: Received,
    /// At the near end.
    pub back: Received,
}

impl SequenceReport {
    /// Numbers that never arrived, on the way there and back.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.back.datagrams)
    }

    /// Whether each datagram arrived at both ends, once, in whatever order.
    #[must_use]
    pub fn each_once(&self) -> bool {
        let once = |received: &Received| (received.datagrams, received.duplicated) == (self.sent, 0);
        self.sent > 0 && once(&self.there) && once(&self.back)
    }

    /// Fails unless each datagram arrived at both ends, once and in order.
    ///
    /// # Errors
    /// [`LabError::Violated`] with the counts.
    pub fn perfect(self) -> Result<Self, LabError> {
        let wanted = Received { datagrams: self.sent, reordered: 0, duplicated: 0 };
        if self.sent > 0 && self.there == wanted && self.back == wanted {
            return Ok(self);
        }
        Err(LabError::Violated(format!("numbered datagrams: {self}")))
    }
}

impl std::fmt::Display for SequenceReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, there, back } = self;
        write!(
            f,
            "{sent} sent, {} there, {} back: {} lost, {} reordered, {} duplicated",
            there.datagrams,
            back.datagrams,
            self.lost(),
            there.reordered + back.reordered,
            there.duplicated + back.duplicated
        )
    }
}

/// Numbered datagrams under way; ends with [`Sequence::stop`].
#[derive(Debug)]
pub struct Sequence {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    returned: Arc<AtomicU64>,
    sender: JoinHandle<std::io::Result<()>>,
    /// `None`: somebody else sends them back.
    far: Option<JoinHandle<Received>>,
    near: JoinHandle<Received>,
}

impl Sequence {
    /// Sends from `near` to `far` every `interval`, between these addresses.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn start(
        (near, near_address): (&Host, SocketAddr),
        (far, far_address): (&Host, SocketAddr),
        interval: Duration,
    ) -> Result<Self, LabError> {
        Self::between((near.namespace(), near_address), (far.namespace(), far_address), interval)
    }

    /// Like [`Sequence::start`], between namespaces that are no hosts of an L3VPN.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn between(
        (near, near_address): (&Namespace, SocketAddr),
        (far, far_address): (&Namespace, SocketAddr),
        interval: Duration,
    ) -> Result<Self, LabError> {
        Self::begin((near, near_address), (Some(far), far_address), interval)
    }

    /// Sends from `near` to an address where a program that is not the lab's sends them back. The report has nothing of that end.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn toward(near: (&Host, SocketAddr), far: SocketAddr, interval: Duration) -> Result<Self, LabError> {
        Self::begin((near.0.namespace(), near.1), (None, far), interval)
    }

    fn begin(
        (near, near_address): (&Namespace, SocketAddr),
        (far, far_address): (Option<&Namespace>, SocketAddr),
        interval: Duration,
    ) -> Result<Self, LabError> {
        let socket = |namespace: &Namespace, own: SocketAddr| {
            namespace.inside(|| {
                let bound = || {
                    let socket = UdpSocket::bind(own)?;
                    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
                    Ok(socket)
                };
                bound().map_err(LabError::io(format!("bind {own}")))
            })
        };
        let near = socket(near, near_address)?;
        let far = far.map(|host| socket(host, far_address)).transpose()?;
        let clone = near.try_clone().map_err(LabError::io("share a socket"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, returned) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let sender = std::thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || send(&clone, far_address, interval, &stop, &sent)
        });
        let far = far.map(|far| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || receive(&far, &stop, true, &AtomicU64::new(0)))
        });
        let near = std::thread::spawn({
            let (stop, returned) = (Arc::clone(&stop), Arc::clone(&returned));
            move || receive(&near, &stop, false, &returned)
        });
        Ok(Self { stop, sent, returned, sender, far, near })
    }

    /// Datagrams that have come back so far.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Sends no more, waits for the last ones, and tells.
    ///
    /// # Errors
    /// The sender could not send.
    pub fn stop(self) -> Result<SequenceReport, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = || LabError::Violated("a thread of the numbered datagrams has panicked".to_owned());
        self.sender.join().map_err(|_| ended())?.map_err(LabError::io("send a numbered datagram"))?;
        let there = self.far.map(JoinHandle::join).transpose().map_err(|_| ended())?.unwrap_or_default();
        let back = self.near.join().map_err(|_| ended())?;
        Ok(SequenceReport { sent: self.sent.load(Ordering::Relaxed), there, back })
    }
}

fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    interval: Duration,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let begun = Instant::now();
    let mut datagram = [0; LENGTH];
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        socket.send_to(&datagram, to)?;
        number += 1;
        sent.store(number, Ordering::Relaxed);
        // By the clock, not by the pause: a sender that was late does not send slower, but never in bursts either.
        let due = begun + interval * u32::try_from(number).unwrap_or(u32::MAX);
        std::thread::sleep(due.saturating_duration_since(Instant::now()).max(interval / 4));
    }
    Ok(())
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, echo: bool, count: &AtomicU64) -> Received {
    let mut received = Received::default();
    let mut seen: Vec<bool> = Vec::new();
    let mut highest = None;
    let mut quiet_since = Instant::now();
    let mut datagram = [0; 2 * LENGTH];
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((LENGTH, from)) => {
                let Some(number) = datagram.first_chunk().map(|number| u64::from_be_bytes(*number)) else { continue };
                quiet_since = Instant::now();
                if echo {
                    // What cannot be sent back is missing at the other end, and counted there.
                    let _ = socket.send_to(datagram.get(..LENGTH).unwrap_or(&[]), from);
                }
                let Ok(index) = usize::try_from(number) else { continue };
                if seen.len() <= index {
                    seen.resize(index + 1, false);
                }
                match seen.get_mut(index) {
                    Some(true) => received.duplicated += 1,
                    Some(first) => {
                        *first = true;
                        received.datagrams += 1;
                        received.reordered += u64::from(highest.is_some_and(|highest| number < highest));
                        highest = highest.max(Some(number));
                    }
                    None => {}
                }
                count.store(received.datagrams, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(_) if stop.load(Ordering::Relaxed) && quiet_since.elapsed() >= QUIET => return received,
            Err(_) => {}
        }
    }
}
