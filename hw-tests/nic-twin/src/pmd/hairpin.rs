//! Hairpin queues as ethdev sets them up: each names one queue of a peer, and leads somewhere once both ends agree and are bound.

use std::{
    collections::BTreeMap,
    ffi::c_int,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    ethdev::{data, with},
    ffi, flow,
    lower::Status,
    twin::{self, Twin, locked},
};

const EINVAL: Status = 22;
const EBUSY: Status = 16;
const ENOTSUP: Status = 95;
/// Descriptors of a queue at most, as mlx5 has them.
const DESCRIPTORS: u16 = 8192;

/// The other end of a hairpin queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    port: u16,
    queue: u16,
    /// The application binds it; else the port's start does.
    manual: bool,
}

/// The hairpin queues of a port.
#[derive(Debug, Default)]
pub(super) struct Hairpins {
    started: AtomicBool,
    receive: Mutex<BTreeMap<u16, Peer>>,
    transmit: Mutex<BTreeMap<u16, Peer>>,
}

impl Hairpins {
    /// The port is configured anew.
    pub(super) fn clear(&self, port: u16) {
        locked(&self.receive).clear();
        locked(&self.transmit).clear();
        flow::with_nic(|nic| nic.forget_hairpins(port));
    }
}

/// Only NICs with hairpin queues in their driver have them here: mlx5 (mlx5_ethdev.c, mlx5_hairpin_cap_get), and the twin of none.
fn has_hairpins() -> bool {
    flow::with_nic(|nic| matches!(nic.profile().name, "twin" | "mlx5-sws" | "mlx5-hws")).unwrap_or(false)
}

pub(super) unsafe extern "C" fn capability(dev: *mut ffi::rte_eth_dev, into: *mut ffi::rte_eth_hairpin_cap) -> c_int {
    let run = |_: &Arc<Twin>| {
        if !has_hairpins() {
            return Err(-ENOTSUP);
        }
        // SAFETY: ethdev's place for the answer, all zeros.
        let able = unsafe { &mut *into };
        able.max_nb_queues = twin::QUEUES;
        (able.max_rx_2_tx, able.max_tx_2_rx) = (1, 1);
        able.max_nb_desc = DESCRIPTORS;
        Ok(())
    };
    // SAFETY: a port of DPDK's.
    unsafe { with(dev, run) }
}

/// What a queue is asked to be.
fn asked(twin: &Twin, conf: &ffi::rte_eth_hairpin_conf) -> Result<Peer, Status> {
    let [peer, ..] = conf.peers;
    let manual = conf.manual_bind() == 1;
    // Implicit: the driver would split rules between both ends. The twin does not.
    if conf.peer_count() != 1 || conf.tx_explicit() == 0 {
        return Err(-ENOTSUP);
    }
    // mlx5_rxq.c, mlx5_rx_hairpin_queue_setup.
    if peer.port != twin.port && !manual {
        return Err(-EINVAL);
    }
    Ok(Peer { port: peer.port, queue: peer.queue, manual })
}

pub(super) unsafe extern "C" fn receive_setup(
    dev: *mut ffi::rte_eth_dev,
    number: u16,
    _descriptors: u16,
    conf: *const ffi::rte_eth_hairpin_conf,
) -> c_int {
    let run = |twin: &Arc<Twin>| {
        // SAFETY: ethdev passes a configuration.
        let peer = asked(twin, unsafe { &*conf })?;
        // The lower port has no such queues: its own are behind the first ones of the twin.
        if number < twin.lower_receive() {
            return Err(-ENOTSUP);
        }
        locked(&twin.hairpins.receive).insert(number, peer);
        flow::with_nic(|nic| nic.set_hairpin(twin.port, number, None));
        Ok(())
    };
    // SAFETY: a port of DPDK's.
    unsafe { with(dev, run) }
}

pub(super) unsafe extern "C" fn transmit_setup(
    dev: *mut ffi::rte_eth_dev,
    number: u16,
    _descriptors: u16,
    conf: *const ffi::rte_eth_hairpin_conf,
) -> c_int {
    let run = |twin: &Arc<Twin>| {
        // SAFETY: ethdev passes a configuration.
        let peer = asked(twin, unsafe { &*conf })?;
        if number < twin.lower_transmit() {
            return Err(-ENOTSUP);
        }
        locked(&twin.hairpins.transmit).insert(number, peer);
        Ok(())
    };
    // SAFETY: a port of DPDK's.
    unsafe { with(dev, run) }
}

/// Transmit queues of `from` whose other end is on `receiver`, with that end.
fn ends(from: &Twin, receiver: u16) -> Vec<(u16, Peer)> {
    let all = locked(&from.hairpins.transmit);
    all.iter().filter(|(_, peer)| peer.port == receiver).map(|(number, peer)| (*number, *peer)).collect()
}

/// Binds the transmit queues of a port with the receive queues of another, or of its own, that name them.
fn bind_with(sender: &Twin, receiver: u16) -> Result<(), Status> {
    let other = twin::find(receiver).ok_or(-EINVAL)?;
    for (number, peer) in ends(sender, receiver) {
        let there = locked(&other.hairpins.receive).get(&peer.queue).copied();
        let agreed = Peer { port: sender.port, queue: number, manual: peer.manual };
        if there != Some(agreed) {
            return Err(-EINVAL);
        }
        flow::with_nic(|nic| nic.set_hairpin(receiver, peer.queue, Some(sender.port)));
    }
    Ok(())
}

/// A port has started: queues that it need not be told of are bound.
pub(super) fn started(twin: &Twin) -> Result<(), Status> {
    twin.hairpins.started.store(true, Ordering::Relaxed);
    if ends(twin, twin.port).iter().any(|(_, peer)| peer.manual) { Ok(()) } else { bind_with(twin, twin.port) }
}

/// A port stops: nothing leads to it or from it.
pub(super) fn stopped(twin: &Twin) {
    twin.hairpins.started.store(false, Ordering::Relaxed);
    flow::with_nic(|nic| nic.unbind_hairpins(twin.port));
}

pub(super) unsafe extern "C" fn bind(dev: *mut ffi::rte_eth_dev, receiver: u16) -> c_int {
    let run = |twin: &Arc<Twin>| {
        if !twin::find(receiver).ok_or(-EINVAL)?.hairpins.started.load(Ordering::Relaxed) {
            return Err(-EBUSY);
        }
        bind_with(twin, receiver)
    };
    // SAFETY: a port of DPDK's.
    unsafe { with(dev, run) }
}

pub(super) unsafe extern "C" fn unbind(dev: *mut ffi::rte_eth_dev, receiver: u16) -> c_int {
    let run = |twin: &Arc<Twin>| {
        for (_, peer) in ends(twin, receiver) {
            flow::with_nic(|nic| nic.set_hairpin(receiver, peer.queue, None));
        }
        Ok(())
    };
    // SAFETY: a port of DPDK's.
    unsafe { with(dev, run) }
}

/// States of ordinary queues; a hairpin stays one.
///
/// # Safety
/// `dev` is a port that DPDK passes to a driver's operation.
pub(super) unsafe fn set_states(dev: *mut ffi::rte_eth_dev, state: u8) {
    let hairpin = u8::try_from(ffi::RTE_ETH_QUEUE_STATE_HAIRPIN).unwrap_or(2);
    // SAFETY: see above.
    let data = unsafe { data(dev) };
    let queues = (usize::from(data.nb_rx_queues), usize::from(data.nb_tx_queues));
    let receive = data.rx_queue_state.iter_mut().take(queues.0);
    let all = receive.chain(data.tx_queue_state.iter_mut().take(queues.1));
    all.filter(|known| **known != hairpin).for_each(|known| *known = state);
}
