//! Operations of the port: what every DPDK driver has.
//!
//! A twin has as many queues as the host asks for, whatever is below: where the lower port has fewer receive queues, the twin
//! polls them on behalf of all its own, and the NIC spreads over the host's by a hash over addresses and ports.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    sync::{Arc, atomic::Ordering},
};

use super::{
    burst, ffi, flow, hairpin,
    lower::{Status, check},
    twin::{self, QUEUES, Twin},
};

const EINVAL: Status = 22;
const ENOTSUP: Status = 95;

/// The port's operations.
// SAFETY: a table of optional functions, for which zeros are "none".
pub(super) static OPERATIONS: ffi::eth_dev_ops = ffi::eth_dev_ops {
    dev_configure: Some(configure),
    dev_start: Some(start),
    dev_stop: Some(stop),
    dev_close: Some(close),
    link_update: Some(link_update),
    promiscuous_enable: Some(promiscuous_enable),
    promiscuous_disable: Some(promiscuous_disable),
    allmulticast_enable: Some(allmulticast_enable),
    allmulticast_disable: Some(allmulticast_disable),
    mac_addr_set: Some(mac_addr_set),
    mtu_set: Some(mtu_set),
    stats_get: Some(stats_get),
    stats_reset: Some(stats_reset),
    xstats_get: Some(xstats_get),
    xstats_reset: Some(stats_reset),
    xstats_get_names: Some(xstats_get_names),
    dev_infos_get: Some(infos_get),
    rx_queue_setup: Some(rx_queue_setup),
    rx_queue_release: Some(rx_queue_release),
    tx_queue_setup: Some(tx_queue_setup),
    tx_queue_release: Some(tx_queue_release),
    flow_ops_get: Some(flow_ops_get),
    hairpin_cap_get: Some(hairpin::capability),
    rx_hairpin_queue_setup: Some(hairpin::receive_setup),
    tx_hairpin_queue_setup: Some(hairpin::transmit_setup),
    hairpin_bind: Some(hairpin::bind),
    hairpin_unbind: Some(hairpin::unbind),
    ..unsafe { std::mem::zeroed() }
};

/// A queue, as DPDK hands it to the burst functions.
pub(super) struct Queue {
    pub(super) twin: Arc<Twin>,
    pub(super) number: u16,
}

/// The port's shared data.
///
/// # Safety
/// `dev` is a port that DPDK passes to a driver's operation.
pub(super) unsafe fn data<'a>(dev: *mut ffi::rte_eth_dev) -> &'a mut ffi::rte_eth_dev_data {
    // SAFETY: see above; DPDK calls the operations of one port one at a time.
    unsafe { &mut *(*dev).data }
}

/// The twin behind a port; `None` after it was closed.
///
/// # Safety
/// As for [`data`].
pub(super) unsafe fn twin_of<'a>(dev: *mut ffi::rte_eth_dev) -> Option<&'a Arc<Twin>> {
    // SAFETY: `dev_private` is what `device::create` put there, or null.
    unsafe { (*(*dev).data).dev_private.cast::<Arc<Twin>>().as_ref() }
}

/// Runs an operation that answers with a status.
pub(super) unsafe fn with(dev: *mut ffi::rte_eth_dev, run: impl FnOnce(&Arc<Twin>) -> Result<(), Status>) -> c_int {
    // SAFETY: passed on.
    match unsafe { twin_of(dev) }.ok_or(-EINVAL).and_then(run) {
        Ok(()) => 0,
        Err(status) => status,
    }
}

unsafe extern "C" fn configure(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: a port of DPDK's.
    let data = unsafe { data(dev) };
    let (receive, transmit) = (data.nb_rx_queues, data.nb_tx_queues);
    let run = |twin: &Arc<Twin>| {
        if twin.lower.is_outdated() {
            twin.set_queues(0, 0, 0);
            twin.while_still(|| twin.lower.renew())?;
            let mac = twin.lower.mac()?;
            // SAFETY: room for one address, which `device::create` made.
            if let Some(address) = unsafe { data.mac_addrs.as_mut() } {
                address.addr_bytes = mac;
            }
        }
        twin.takes.store(u32::from(data.mtu), Ordering::Relaxed);
        let info = twin.lower.info()?;
        let below_receive = receive.min(info.max_rx_queues);
        let below_transmit = transmit.min(info.max_tx_queues);
        let mut conf = data.dev_conf;
        // The lower port has its own limits: its MTU is set by `mtu_set` alone.
        conf.rxmode.mtu = 0;
        conf.rxmode.offloads &= info.rx_offload_capa & !ffi::TWIN_RX_HIDDEN;
        conf.txmode.offloads &= info.tx_offload_capa;
        conf.rx_adv_conf.rss_conf.rss_hf &= info.flow_type_rss_offloads;
        if below_receive < 2 || conf.rx_adv_conf.rss_conf.rss_hf == 0 {
            conf.rxmode.mq_mode = ffi::RTE_ETH_MQ_RX_NONE;
            conf.rxmode.offloads &= !ffi::TWIN_RX_RSS_HASH;
        }
        conf.intr_conf = {
            // SAFETY: plain data; zeros: no interrupts.
            unsafe { std::mem::zeroed() }
        };
        // SAFETY: the lower port is ours; the configuration lives through the call.
        check(unsafe { ffi::rte_eth_dev_configure(twin.lower.port(), below_receive, below_transmit, &conf) })?;
        twin.set_queues(receive, below_receive, below_transmit);
        twin.hairpins.clear(twin.port);
        flow::port_configured(twin.port, receive);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

unsafe extern "C" fn start(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: a port of DPDK's.
    let data = unsafe { data(dev) };
    let run = |twin: &Arc<Twin>| {
        // SAFETY: the lower port is ours.
        check(unsafe { ffi::rte_eth_dev_start(twin.lower.port()) })?;
        let started = u8::try_from(ffi::RTE_ETH_QUEUE_STATE_STARTED).unwrap_or(1);
        // SAFETY: a port of DPDK's.
        unsafe { hairpin::set_states(dev, started) };
        // The host's link state is the wire's.
        link(twin, data);
        hairpin::started(twin)
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

/// Stops the port. Its rules are gone then: the twin doesn't announce `RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP`.
unsafe extern "C" fn stop(dev: *mut ffi::rte_eth_dev) -> c_int {
    let run = |twin: &Arc<Twin>| {
        let stopped = u8::try_from(ffi::RTE_ETH_QUEUE_STATE_STOPPED).unwrap_or(0);
        // SAFETY: a port of DPDK's.
        unsafe { hairpin::set_states(dev, stopped) };
        hairpin::stopped(twin);
        flow::port_stopped(twin.port);
        twin.forget_waiting();
        // SAFETY: the lower port is ours.
        check(unsafe { ffi::rte_eth_dev_stop(twin.lower.port()) })
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

pub(super) unsafe extern "C" fn close(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: a port of DPDK's.
    let data = unsafe { data(dev) };
    let private = std::mem::replace(&mut data.dev_private, std::ptr::null_mut()).cast::<Arc<Twin>>();
    if !private.is_null() {
        // SAFETY: it came from `Box::into_raw` in `device::create`, and nobody finds it any more.
        let twin = unsafe { Box::from_raw(private) };
        twin::leave(twin.port);
        flow::port_closed(twin.port);
        twin.forget_waiting();
        // SAFETY: DPDK's structure of the port; its context came from `twin_security_open`, or is null.
        unsafe {
            let context = std::mem::replace(&mut (*dev).security_ctx, std::ptr::null_mut());
            ffi::twin_security_close(context.cast());
        }
        // The lower port is left with the last holder: a burst that is forwarding to this port right now.
    }
    0
}

fn link(twin: &Twin, data: &mut ffi::rte_eth_dev_data) {
    // SAFETY: plain data, for which zeros are a value.
    let mut link: ffi::rte_eth_link = unsafe { std::mem::zeroed() };
    // SAFETY: a place for the answer.
    if unsafe { ffi::rte_eth_link_get_nowait(twin.lower.port(), &mut link) } == 0 {
        data.dev_link = link;
    }
    if twin.lower.carrier() == Some(false) {
        // Speed, then bits: duplex, autonegotiation, status. By place, because the structure became a union with 24.03.
        const STATUS: usize = 4;
        // SAFETY: the structure is eight initialised octets in all versions.
        unsafe { *std::ptr::from_mut(&mut data.dev_link).cast::<u8>().add(STATUS) &= !0b100 };
    }
}

unsafe extern "C" fn link_update(dev: *mut ffi::rte_eth_dev, _wait: c_int) -> c_int {
    // SAFETY: a port of DPDK's.
    let data = unsafe { data(dev) };
    let run = |twin: &Arc<Twin>| {
        link(twin, data);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

/// What the lower port may lack: memory to memory, every frame arrives anyway.
fn or_unsupported(status: Status) -> Result<(), Status> {
    if status == -ENOTSUP { Ok(()) } else { check(status) }
}

unsafe extern "C" fn promiscuous_enable(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: passed on; the lower port is ours.
    unsafe { with(dev, |twin| or_unsupported(ffi::rte_eth_promiscuous_enable(twin.lower.port()))) }
}

unsafe extern "C" fn promiscuous_disable(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: passed on; the lower port is ours.
    unsafe { with(dev, |twin| or_unsupported(ffi::rte_eth_promiscuous_disable(twin.lower.port()))) }
}

unsafe extern "C" fn allmulticast_enable(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: passed on; the lower port is ours.
    unsafe { with(dev, |twin| or_unsupported(ffi::rte_eth_allmulticast_enable(twin.lower.port()))) }
}

unsafe extern "C" fn allmulticast_disable(dev: *mut ffi::rte_eth_dev) -> c_int {
    // SAFETY: passed on; the lower port is ours.
    unsafe { with(dev, |twin| or_unsupported(ffi::rte_eth_allmulticast_disable(twin.lower.port()))) }
}

unsafe extern "C" fn mac_addr_set(dev: *mut ffi::rte_eth_dev, address: *mut ffi::rte_ether_addr) -> c_int {
    let run = |twin: &Arc<Twin>| {
        // SAFETY: the lower port is ours; the address is the caller's.
        or_unsupported(unsafe { ffi::rte_eth_dev_default_mac_addr_set(twin.lower.port(), address) })
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

unsafe extern "C" fn mtu_set(dev: *mut ffi::rte_eth_dev, mtu: u16) -> c_int {
    let run = |twin: &Arc<Twin>| {
        or_unsupported(twin.lower.set_mtu(mtu))?;
        twin.takes.store(u32::from(mtu), Ordering::Relaxed);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

unsafe extern "C" fn infos_get(dev: *mut ffi::rte_eth_dev, into: *mut ffi::rte_eth_dev_info) -> c_int {
    let run = |twin: &Arc<Twin>| {
        let lower = twin.lower.info()?;
        // SAFETY: DPDK's place for the answer, prepared by it.
        let info = unsafe { &mut *into };
        info.min_mtu = lower.min_mtu;
        info.max_mtu = lower.max_mtu;
        info.min_rx_bufsize = lower.min_rx_bufsize;
        info.max_rx_pktlen = lower.max_rx_pktlen;
        info.max_mac_addrs = 1;
        info.max_rx_queues = QUEUES;
        info.max_tx_queues = QUEUES;
        // Tags have to reach the rules.
        info.rx_offload_capa = (lower.rx_offload_capa & !ffi::TWIN_RX_HIDDEN) | ffi::TWIN_RX_RSS_HASH;
        let seals = flow::with_nic(|nic| !nic.profile().sessions.is_empty()).unwrap_or(false);
        if seals {
            info.rx_offload_capa |= ffi::TWIN_RX_SECURITY | ffi::TWIN_RX_CHECKSUM;
        }
        info.rx_queue_offload_capa = 0;
        info.tx_offload_capa = lower.tx_offload_capa | ffi::TWIN_TX_FAST_FREE;
        if seals {
            info.tx_offload_capa |= ffi::TWIN_TX_SECURITY;
        }
        info.tx_queue_offload_capa = 0;
        info.flow_type_rss_offloads = ffi::TWIN_RSS_TYPES;
        info.hash_key_size = 40;
        info.rx_desc_lim = lower.rx_desc_lim;
        info.tx_desc_lim = lower.tx_desc_lim;
        info.default_rxportconf = lower.default_rxportconf;
        info.default_txportconf = lower.default_txportconf;
        info.if_index = lower.if_index;
        let place = flow::with_nic(|nic| nic.place(twin.port)).flatten().unwrap_or_default();
        if let Some(domain) = place.domain {
            info.switch_info.name = c"net_twin".as_ptr();
            info.switch_info.domain_id = domain;
            info.switch_info.port_id = twin.port;
        }
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

unsafe extern "C" fn rx_queue_setup(
    dev: *mut ffi::rte_eth_dev,
    number: u16,
    descriptors: u16,
    socket: c_uint,
    _conf: *const ffi::rte_eth_rxconf,
    pool: *mut ffi::rte_mempool,
) -> c_int {
    // SAFETY: a port of DPDK's.
    let data = unsafe { data(dev) };
    let run = |twin: &Arc<Twin>| {
        let lower = twin.lower.port();
        if number < twin.lower_receive() {
            let mut descriptors = descriptors;
            // SAFETY: the lower port is ours and has this queue; the pool is the host's.
            check(unsafe { ffi::rte_eth_dev_adjust_nb_rx_tx_desc(lower, &mut descriptors, std::ptr::null_mut()) })?;
            check(unsafe {
                // SAFETY: as above.
                ffi::rte_eth_rx_queue_setup(lower, number, descriptors, socket, std::ptr::null(), pool)
            })?;
        }
        let queue = Box::new(Queue { twin: Arc::clone(twin), number });
        // SAFETY: DPDK made the array as long as there are queues, and released the queue that was here.
        unsafe { *data.rx_queues.add(usize::from(number)) = Box::into_raw(queue).cast() };
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

unsafe extern "C" fn tx_queue_setup(
    dev: *mut ffi::rte_eth_dev,
    number: u16,
    descriptors: u16,
    socket: c_uint,
    _conf: *const ffi::rte_eth_txconf,
) -> c_int {
    // SAFETY: a port of DPDK's.
    let data = unsafe { data(dev) };
    let run = |twin: &Arc<Twin>| {
        let lower = twin.lower.port();
        if number < twin.lower_transmit() {
            let mut descriptors = descriptors;
            // SAFETY: the lower port is ours and has this queue.
            check(unsafe { ffi::rte_eth_dev_adjust_nb_rx_tx_desc(lower, std::ptr::null_mut(), &mut descriptors) })?;
            check(unsafe {
                // SAFETY: as above.
                ffi::rte_eth_tx_queue_setup(lower, number, descriptors, socket, std::ptr::null())
            })?;
        }
        let queue = Box::new(Queue { twin: Arc::clone(twin), number });
        // SAFETY: DPDK made the array as long as there are queues, and released the queue that was here.
        unsafe { *data.tx_queues.add(usize::from(number)) = Box::into_raw(queue).cast() };
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

/// Takes a queue out of one of the port's arrays and frees it.
///
/// # Safety
/// `queues` has more than `number` places, each with null or with what the setup functions put there.
unsafe fn release(queues: *mut *mut c_void, number: u16) {
    if queues.is_null() {
        return;
    }
    // SAFETY: see above.
    let queue = unsafe { std::mem::replace(&mut *queues.add(usize::from(number)), std::ptr::null_mut()) };
    if !queue.is_null() {
        // SAFETY: it came from `Box::into_raw`.
        drop(unsafe { Box::from_raw(queue.cast::<Queue>()) });
    }
}

unsafe extern "C" fn rx_queue_release(dev: *mut ffi::rte_eth_dev, number: u16) {
    // SAFETY: DPDK names a queue of the port.
    unsafe { release(data(dev).rx_queues, number) }
}

unsafe extern "C" fn tx_queue_release(dev: *mut ffi::rte_eth_dev, number: u16) {
    // SAFETY: DPDK names a queue of the port.
    unsafe { release(data(dev).tx_queues, number) }
}

unsafe extern "C" fn stats_get(dev: *mut ffi::rte_eth_dev, into: *mut ffi::rte_eth_stats) -> c_int {
    let run = |twin: &Arc<Twin>| {
        // SAFETY: DPDK's place for the answer.
        let stats = unsafe { &mut *into };
        let counters = &twin.counters;
        stats.ipackets = counters.host_packets.load(Ordering::Relaxed);
        stats.ibytes = counters.host_bytes.load(Ordering::Relaxed);
        stats.opackets = counters.sent_packets.load(Ordering::Relaxed);
        stats.obytes = counters.sent_bytes.load(Ordering::Relaxed);
        stats.ierrors = counters.oversize.load(Ordering::Relaxed);
        stats.imissed = counters.missed.load(Ordering::Relaxed);
        stats.oerrors = counters.refused.load(Ordering::Relaxed);
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

unsafe extern "C" fn stats_reset(dev: *mut ffi::rte_eth_dev) -> c_int {
    let run = |twin: &Arc<Twin>| {
        twin.counters.reset();
        Ok(())
    };
    // SAFETY: passed on.
    unsafe { with(dev, run) }
}

/// The extended statistics: what the NIC did without the host.
fn extended(twin: &Twin) -> [(&'static str, u64); 5] {
    let counters = &twin.counters;
    [
        ("hw_forwarded_packets", counters.forwarded.load(Ordering::Relaxed)),
        ("hw_dropped_packets", counters.dropped.load(Ordering::Relaxed)),
        ("hw_tx_refused_packets", counters.refused.load(Ordering::Relaxed)),
        ("hw_rules", flow::rules(twin.port)),
        // As mlx5 calls it: with what the NIC forwards.
        ("tx_phy_packets", counters.wire_packets.load(Ordering::Relaxed)),
    ]
}

unsafe extern "C" fn xstats_get(dev: *mut ffi::rte_eth_dev, into: *mut ffi::rte_eth_xstat, room: c_uint) -> c_int {
    // SAFETY: a port of DPDK's.
    let Some(twin) = (unsafe { twin_of(dev) }) else { return -EINVAL };
    let values = extended(twin);
    if room as usize >= values.len() && !into.is_null() {
        for (id, (_, value)) in values.iter().enumerate() {
            // SAFETY: DPDK has room for `room` values.
            unsafe { *into.add(id) = ffi::rte_eth_xstat { id: id as u64, value: *value } };
        }
    }
    values.len() as c_int
}

unsafe extern "C" fn xstats_get_names(
    dev: *mut ffi::rte_eth_dev,
    into: *mut ffi::rte_eth_xstat_name,
    room: c_uint,
) -> c_int {
    // SAFETY: a port of DPDK's.
    let Some(twin) = (unsafe { twin_of(dev) }) else { return -EINVAL };
    let values = extended(twin);
    if room as usize >= values.len() && !into.is_null() {
        for (id, (name, _)) in values.iter().enumerate() {
            // SAFETY: DPDK has room for `room` names.
            let place = unsafe { &mut (*into.add(id)).name };
            place.fill(0);
            for (place, octet) in place.iter_mut().rev().skip(1).rev().zip(name.bytes()) {
                *place = octet as c_char;
            }
        }
    }
    values.len() as c_int
}

unsafe extern "C" fn flow_ops_get(_dev: *mut ffi::rte_eth_dev, into: *mut *const ffi::rte_flow_ops) -> c_int {
    // SAFETY: DPDK's place for the answer.
    unsafe { *into = &raw const flow::OPERATIONS };
    0
}

/// The burst functions of a port.
pub(super) fn set_bursts(dev: &mut ffi::rte_eth_dev) {
    dev.rx_pkt_burst = Some(burst::receive);
    dev.tx_pkt_burst = Some(burst::transmit);
}
