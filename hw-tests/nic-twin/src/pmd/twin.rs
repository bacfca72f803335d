//! One twin port: its queues, and the way of packets between the wire, the NIC and the host.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::{ffi, hairpin::Hairpins, lower::Lower, mbuf::Packet};

/// Receive and transmit queues of a twin, at most.
pub(super) const QUEUES: u16 = 64;

/// Packets that wait for another queue than the one that polled them.
const WAITING: usize = 4096;

/// Every twin of the process: they are the ports of one NIC.
static PORTS: RwLock<Option<HashMap<u16, Arc<Twin>>>> = RwLock::new(None);

/// What a port counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Given to the host.
    pub(super) host_packets: AtomicU64,
    pub(super) host_bytes: AtomicU64,
    /// Sent by the host.
    pub(super) sent_packets: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    /// Given to the wire, whoever sent it.
    pub(super) wire_packets: AtomicU64,
    /// Received and sent on by the NIC alone.
    pub(super) forwarded: AtomicU64,
    /// Dropped by a rule.
    pub(super) dropped: AtomicU64,
    /// Forwarded to this port, whose lower port didn't take them.
    pub(super) refused: AtomicU64,
    /// No room for them at the host.
    pub(super) missed: AtomicU64,
    /// Received, and larger than the port takes.
    pub(super) oversize: AtomicU64,
}

impl Counters {
    /// All back to zero.
    pub(super) fn reset(&self) {
        for counter in [
            &self.host_packets,
            &self.host_bytes,
            &self.sent_packets,
            &self.sent_bytes,
            &self.wire_packets,
            &self.forwarded,
            &self.dropped,
            &self.refused,
            &self.missed,
            &self.oversize,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Packets of one receive queue that another one polled.
#[derive(Debug, Default)]
struct Inbox {
    packets: Mutex<VecDeque<Packet>>,
    waiting: AtomicUsize,
}

/// One port of the NIC.
#[derive(Debug)]
pub(super) struct Twin {
    /// DPDK's number of it.
    pub(super) port: u16,
    /// The port below.
    pub(super) lower: Lower,
    /// What it counted.
    pub(super) counters: Counters,
    /// Its queues that lead to another port, or back to it.
    pub(super) hairpins: Hairpins,
    /// Its MTU: octets behind Ethernet and its tags.
    pub(super) takes: AtomicU32,
    receive_queues: AtomicU16,
    /// Queues of the lower port in use.
    lower_receive: AtomicU16,
    lower_transmit: AtomicU16,
    inboxes: Box<[Inbox]>,
    receiving: Box<[Mutex<()>]>,
    sending: Box<[Mutex<()>]>,
}

impl Twin {
    /// A port without queues yet.
    pub(super) fn new(port: u16, lower: Lower) -> Twin {
        let locks = || (0..QUEUES).map(|_| Mutex::new(())).collect();
        Twin {
            port,
            lower,
            counters: Counters::default(),
            hairpins: Hairpins::default(),
            takes: AtomicU32::new(u32::MAX),
            receive_queues: AtomicU16::new(0),
            lower_receive: AtomicU16::new(0),
            lower_transmit: AtomicU16::new(0),
            inboxes: (0..QUEUES).map(|_| Inbox::default()).collect(),
            receiving: locks(),
            sending: locks(),
        }
    }

    /// The numbers of queues: the host's, and those of the lower port.
    pub(super) fn set_queues(&self, receive: u16, lower_receive: u16, lower_transmit: u16) {
        self.receive_queues.store(receive, Ordering::Release);
        self.lower_receive.store(lower_receive, Ordering::Release);
        self.lower_transmit.store(lower_transmit, Ordering::Release);
    }

    /// Runs this while nobody polls the lower port or sends by it.
    pub(super) fn while_still<T>(&self, run: impl FnOnce() -> T) -> T {
        let _turns: Vec<_> = self.receiving.iter().chain(&self.sending).map(locked).collect();
        run()
    }

    /// Is this frame larger than the port takes? A NIC that matches lengths leaves room for two tags on any frame, as many drivers set
    /// the frame size from the MTU; the others count tags apart, as 82599 does (its datasheet, MAXFRS).
    pub(super) fn is_oversize(&self, frame: &[u8], tag_room: u32) -> bool {
        const ETHERNET: usize = 14;
        const TAG: usize = 4;
        let octets = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let most = self.takes.load(Ordering::Relaxed).saturating_add(tag_room);
        if octets(frame.len()) <= most.saturating_add(octets(ETHERNET)) {
            return false;
        }
        let tagged = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
        let tags = usize::from(tagged(12)) + usize::from(tagged(12) && tagged(16));
        octets(frame.len().saturating_sub(ETHERNET + tags * TAG)) > most
    }

    /// Receive queues of the host.
    pub(super) fn receive_queues(&self) -> u16 {
        self.receive_queues.load(Ordering::Acquire)
    }

    /// Receive queues of the lower port in use.
    pub(super) fn lower_receive(&self) -> u16 {
        self.lower_receive.load(Ordering::Acquire)
    }

    /// Transmit queues of the lower port in use.
    pub(super) fn lower_transmit(&self) -> u16 {
        self.lower_transmit.load(Ordering::Acquire)
    }

    /// Polls the lower port on behalf of a queue of the host. Empty too while another queue polls the same queue of the
    /// lower port: its packets come by the inbox. As long as the turn is held nobody else polls: what arrived is to be on its way
    /// before, or later packets would overtake it.
    pub(super) fn poll(&self, queue: u16, into: &mut Vec<Packet>, room: usize) -> Option<MutexGuard<'_, ()>> {
        let below = self.lower_receive();
        if below == 0 {
            return None;
        }
        let queue = queue % below;
        let turn = self.receiving.get(usize::from(queue))?.try_lock().ok()?;
        let mut raw = [std::ptr::null_mut(); 64];
        let count = u16::try_from(room.min(raw.len())).unwrap_or(0);
        // SAFETY: the lower port has this queue, one thread polls it, and there is room for `count` pointers.
        let got = unsafe { ffi::twin_rx_burst(self.lower.port(), queue, raw.as_mut_ptr(), count) };
        for raw in raw.into_iter().take(usize::from(got)) {
            // SAFETY: the lower port gives its packets away.
            into.extend(unsafe { Packet::from_raw(raw) });
        }
        Some(turn)
    }

    /// Sends to the wire, and counts what the lower port doesn't take.
    pub(super) fn send(&self, queue: u16, packets: Vec<Packet>) {
        let mut raw: Vec<*mut ffi::rte_mbuf> = packets.into_iter().map(Packet::into_raw).collect();
        let mut refused = 0;
        for chunk in raw.chunks_mut(64) {
            let sent = self.send_raw(queue, chunk);
            for raw in chunk.iter().skip(usize::from(sent)) {
                // SAFETY: what the lower port didn't take is still ours.
                drop(unsafe { Packet::from_raw(*raw) });
                refused += 1;
            }
        }
        self.counters.refused.fetch_add(refused, Ordering::Relaxed);
    }

    /// Sends to the wire; the number that the lower port took, from the first on. The others stay with the caller.
    pub(super) fn send_raw(&self, queue: u16, packets: &mut [*mut ffi::rte_mbuf]) -> u16 {
        let below = self.lower_transmit();
        let count = u16::try_from(packets.len()).unwrap_or(u16::MAX);
        if below == 0 || count == 0 {
            return 0;
        }
        let queue = queue % below;
        let Some(lock) = self.sending.get(usize::from(queue)) else { return 0 };
        let _one_at_a_time = locked(lock);
        // SAFETY: the lower port has this queue, one thread sends by it, and these are `count` packets.
        let sent = unsafe { ffi::twin_tx_burst(self.lower.port(), queue, packets.as_mut_ptr(), count) };
        self.counters.wire_packets.fetch_add(u64::from(sent), Ordering::Relaxed);
        sent
    }

    /// Packets that wait for a queue, up to `room`.
    pub(super) fn take(&self, queue: u16, into: &mut Vec<Packet>, room: usize) {
        let Some(inbox) = self.inboxes.get(usize::from(queue)) else { return };
        if inbox.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut packets = locked(&inbox.packets);
        let count = room.min(packets.len());
        into.extend(packets.drain(..count));
        inbox.waiting.store(packets.len(), Ordering::Release);
    }

    /// Leaves a packet for a queue; counted and freed where there is no such queue or no room.
    pub(super) fn leave(&self, queue: u16, packet: Packet) {
        let inbox = self.inboxes.get(usize::from(queue)).filter(|_| queue < self.receive_queues());
        if let Some(inbox) = inbox {
            let mut packets = locked(&inbox.packets);
            if packets.len() < WAITING {
                packets.push_back(packet);
                inbox.waiting.store(packets.len(), Ordering::Release);
                return;
            }
        }
        self.counters.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Frees what waits.
    pub(super) fn forget_waiting(&self) {
        for inbox in &self.inboxes {
            locked(&inbox.packets).clear();
            inbox.waiting.store(0, Ordering::Release);
        }
    }
}

/// A port enters the NIC.
pub(super) fn enter(twin: &Arc<Twin>) {
    let mut ports = PORTS.write().unwrap_or_else(PoisonError::into_inner);
    ports.get_or_insert_with(HashMap::new).insert(twin.port, Arc::clone(twin));
}

/// A port leaves the NIC.
pub(super) fn leave(port: u16) {
    let mut ports = PORTS.write().unwrap_or_else(PoisonError::into_inner);
    if let Some(ports) = ports.as_mut() {
        ports.remove(&port);
    }
}

/// The twin of a DPDK port.
pub(super) fn find(port: u16) -> Option<Arc<Twin>> {
    let ports = PORTS.read().unwrap_or_else(PoisonError::into_inner);
    ports.as_ref()?.get(&port).cloned()
}

/// The lock, whatever happened to a former holder: what these locks protect is whole after each statement.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
