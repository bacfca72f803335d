//! A worker's queues of a device.

use std::{
    ffi::c_void,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use dpdk_sys as sys;
use fallback_sw::{
    io::{Port, PortError},
    packet::{NicNote, Packet},
};

use super::{
    device::Ethdev,
    mbuf::{DPDK, Headers, Mbuf, Seal},
};
use crate::security::Sessions;

/// mbufs that go to or come from the driver at once.
const BURST: usize = 64;
/// Batches between two looks at how many mbufs are left.
const LOOK: u32 = 32;
/// Packets in `spare` before all of it is looked through for mbufs.
const LITTER: usize = 256;

/// A port of one worker on a device of DPDK.
pub struct DpdkPort {
    device: Arc<Ethdev>,
    /// `None`: the device has fewer queues than there are workers.
    rx: Option<u16>,
    tx: u16,
    /// Workers that share the transmit queue take turns.
    turns: Option<Arc<Mutex<()>>>,
    /// It asks the device for what was lost; one port of the device does.
    counts: bool,
    /// Frames that could not be made whole.
    lost: u64,
    outgoing: Vec<NonNull<sys::rte_mbuf>>,
    /// The sessions that packets are sent with, and the device's context for them; `None`: it has no IPsec, or nobody opens any.
    sealing: Option<(Sessions, NonNull<c_void>)>,
    looked: u32,
    scarce: bool,
    litter: usize,
}

// SAFETY: the mbufs in `outgoing` are nobody else's, and DPDK frees and sends them from any thread. The context of `sealing` is the
// device's, for all its queues, and lives as long as it.
unsafe impl Send for DpdkPort {}

/// A port for each worker.
pub(super) fn ports(device: &Arc<Ethdev>, workers: usize, sessions: Option<&Sessions>) -> Vec<Box<dyn Port>> {
    let context = Sessions::context(device.port_id());
    let turns: Vec<_> = (0..device.tx_queues()).map(|_| Arc::new(Mutex::new(()))).collect();
    let shared = workers > turns.len();
    (0..workers)
        .map(|worker| {
            let rx = u16::try_from(worker).ok().filter(|queue| *queue < device.rx_queues());
            // There is at least one queue.
            let tx = worker % turns.len().max(1);
            let port = DpdkPort {
                device: Arc::clone(device),
                rx,
                tx: u16::try_from(tx).unwrap_or(0),
                turns: turns.get(tx).filter(|_| shared).cloned(),
                counts: worker == 0,
                lost: 0,
                outgoing: Vec::with_capacity(BURST),
                sealing: sessions.cloned().zip(context),
                looked: 0,
                scarce: false,
                litter: LITTER,
            };
            Box::new(port) as Box<dyn Port>
        })
        .collect()
}

impl DpdkPort {
    /// Gives mbufs among the packets for reuse back to their pool. Those at the end each time, all of them when there are twice
    /// as many packets as after the last time.
    fn tidy(&mut self, spare: &mut Vec<Packet>) {
        while spare.pop_if(|packet| packet.is_from(&DPDK)).is_some() {}
        if spare.len() > self.litter {
            spare.retain(|packet| !packet.is_from(&DPDK));
            self.litter = LITTER.max(2 * spare.len());
        }
    }

    /// Whether packets are to be copied: those that wait in the node must not take the NIC's last memory.
    fn is_scarce(&mut self) -> bool {
        if self.looked == 0 {
            self.looked = LOOK;
            let pool = self.device.pool();
            self.scarce = pool.available() < pool.size() / 2;
        }
        self.looked -= 1;
        self.scarce
    }

    /// The session that a packet is to be sent with. `None`: there is none of this device, or nothing to seal; the packet must not be
    /// sent, because it would go in clear.
    fn seal(&self, number: u32, frame: &[u8]) -> Option<Seal> {
        let (sessions, context) = self.sealing.as_ref()?;
        let session = sessions.of_port(number, self.device.port_id())?;
        Some(Seal { context: *context, session, headers: Headers::of(frame)? })
    }

    /// Hands what is in `outgoing` to the driver; returns how many it took, and frees the rest.
    fn send(&mut self) -> usize {
        let count = u16::try_from(self.outgoing.len()).unwrap_or(u16::MAX);
        // Nothing is behind the lock that could be left half done.
        let _turn = self.turns.as_ref().map(|turns| turns.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: the device is started as long as this port holds on to it, the queue is one of its own and nobody else is in
        // it now; `count` mbufs that nobody else has. A `NonNull` is a pointer as C knows it.
        let sent =
            unsafe { sys::rte_eth_tx_burst(self.device.port_id(), self.tx, self.outgoing.as_mut_ptr().cast(), count) };
        for mbuf in self.outgoing.drain(..).skip(usize::from(sent)) {
            // SAFETY: the driver has left this one to us.
            drop(unsafe { Mbuf::new(mbuf) });
        }
        usize::from(sent)
    }
}

impl Port for DpdkPort {
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        self.tidy(spare);
        let Some(queue) = self.rx else { return Ok(0) };
        let mut mbufs = [std::ptr::null_mut::<sys::rte_mbuf>(); BURST];
        let count = u16::try_from(max.min(BURST)).unwrap_or(0);
        // SAFETY: the device is started as long as this port holds on to it, the queue is this port's alone, and there is room
        // for `count` mbufs.
        let count = unsafe { sys::rte_eth_rx_burst(self.device.port_id(), queue, mbufs.as_mut_ptr(), count) };
        if count == 0 {
            return Ok(0);
        }
        let copy = self.is_scarce();
        let before = into.len();
        for mbuf in mbufs.into_iter().take(usize::from(count)).filter_map(NonNull::new) {
            // SAFETY: the driver gives this mbuf away.
            match unsafe { Mbuf::new(mbuf) }.into_packet(copy) {
                Some(packet) => into.push(packet),
                None => self.lost += 1,
            }
        }
        Ok(into.len() - before)
    }

    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        let mut sent = 0;
        for packet in frames.drain(..) {
            if !self.device.takes(packet.len()) {
                spare.push(packet);
                continue;
            }
            let seal = match packet.note() {
                NicNote::Session(number) => match self.seal(number, packet.data()) {
                    None => {
                        spare.push(packet);
                        continue;
                    }
                    seal => seal,
                },
                _ => None,
            };
            let mbuf = match Mbuf::from_packet(packet) {
                Ok(mbuf) => Some(mbuf),
                Err(packet) => {
                    let copy = Mbuf::copy_of(packet.data(), self.device.pool());
                    spare.push(packet);
                    copy
                }
            };
            // A frame that the driver cannot seal is dropped here.
            let mbuf = mbuf.and_then(|mut mbuf| seal.is_none_or(|seal| mbuf.seal(&seal)).then_some(mbuf));
            self.outgoing.extend(mbuf.and_then(|mbuf| NonNull::new(mbuf.into_raw())));
            if self.outgoing.len() == BURST {
                sent += self.send();
            }
        }
        if !self.outgoing.is_empty() {
            sent += self.send();
        }
        Ok(sent)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn polls(&self) -> bool {
        self.rx.is_some()
    }

    fn seals(&self) -> bool {
        true
    }

    fn driver(&self) -> &'static str {
        self.device.driver()
    }

    fn lost(&mut self) -> u64 {
        let device = if self.counts { self.device.lost() } else { 0 };
        self.lost.saturating_add(device)
    }
}
