//! An Ethernet device: set up, running, stopped.

use std::{
    collections::BTreeSet,
    ffi::{CStr, c_int},
    io::Error,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use dpdk_sys as sys;
use fallback_sw::{
    io::{
        PortError,
        device::{Device, Link},
    },
    packet::MAX_FRAME,
};
use offload_rules::MacAddr;

use super::{
    eal::{Eal, exclusively},
    open::Prepare,
    pool::Pool,
};

/// Descriptors of a queue, if the device has no wish of its own.
const DESCRIPTORS: u16 = 512;
/// Ethernet with two VLAN tags.
const L2: u32 = 22;
/// Octets of an Ethernet header and its check sequence.
const ETHERNET: u32 = 18;
/// mbufs beside those of descriptors: packets that wait in a node, and those that threads keep.
const SPARE: u32 = 4096;
/// mbufs for each worker: what it may keep to reuse, and bursts under way.
const PER_WORKER: u32 = 2048;

/// A device in use: configured and started. Stopped when it is dropped.
#[derive(Debug)]
pub struct Ethdev {
    port: u16,
    name: String,
    driver: &'static str,
    mac: MacAddr,
    mtu: u16,
    rx_queues: u16,
    tx_queues: u16,
    pool: Pool,
    /// What the device had lost before.
    lost_before: u64,
    /// Set while the device is somebody's.
    used: Arc<AtomicBool>,
    _eal: Arc<Eal>,
}

impl Ethdev {
    /// Configures a device for so many workers and starts it. `used` tells whether another owner still has it.
    ///
    /// # Errors
    /// [`PortError`]: the device is still in use, or what it refused.
    pub(super) fn start(
        eal: &Arc<Eal>,
        name: &str,
        mtu: u16,
        workers: usize,
        used: &Arc<AtomicBool>,
        prepare: Option<&dyn Prepare>,
    ) -> Result<Self, PortError> {
        let port = eal.port_id(name).ok_or_else(|| PortError::NoDevice { device: name.to_owned() })?;
        if used.swap(true, Ordering::AcqRel) {
            let source = Error::from_raw_os_error(libc::EBUSY);
            return Err(PortError::Os { device: name.to_owned(), action: "waiting for its last user", source });
        }
        let started = exclusively(|| Setup { name, port }.run(mtu, workers, prepare));
        match started {
            Ok(up) => Ok(Self {
                port,
                name: name.to_owned(),
                driver: up.driver,
                mac: up.mac,
                mtu: up.mtu,
                rx_queues: up.rx_queues,
                tx_queues: up.tx_queues,
                pool: up.pool,
                lost_before: lost(port),
                used: Arc::clone(used),
                _eal: Arc::clone(eal),
            }),
            Err(error) => {
                used.store(false, Ordering::Release);
                Err(error)
            }
        }
    }

    /// DPDK's number of the device.
    #[must_use]
    pub const fn port_id(&self) -> u16 {
        self.port
    }

    /// DPDK's name of the device.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of its driver.
    #[must_use]
    pub const fn driver(&self) -> &'static str {
        self.driver
    }

    /// Where it receives into.
    #[must_use]
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Receive queues; workers with a higher number have none.
    #[must_use]
    pub const fn rx_queues(&self) -> u16 {
        self.rx_queues
    }

    /// Transmit queues; workers share them if there are fewer.
    #[must_use]
    pub const fn tx_queues(&self) -> u16 {
        self.tx_queues
    }

    /// What it is, as a node's device.
    ///
    /// # Errors
    /// [`PortError::NoDevice`] when it was taken away.
    pub fn look(&self) -> Result<Device, PortError> {
        // SAFETY: any port id may be asked for.
        if unsafe { sys::rte_eth_dev_is_removed(self.port) } != 0 {
            return Err(PortError::NoDevice { device: self.name.clone() });
        }
        let up = link_is_up(self.port);
        Ok(Device {
            name: self.name.clone(),
            index: i32::from(self.port),
            mac: Some(self.mac),
            mtu: u32::from(self.mtu),
            link: Link::Ethernet,
            up: true,
            operational: up,
            carrier: up,
            kernel_driver: self.driver.to_owned(),
            queues: u32::from(self.rx_queues),
        })
    }

    /// Frames that the device has lost since it was started: no room, no memory, damaged.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lost(self.port).saturating_sub(self.lost_before)
    }
}

impl Drop for Ethdev {
    fn drop(&mut self) {
        exclusively(|| {
            // SAFETY: the ports that use its queues hold on to the device, so there are none any more.
            unsafe { sys::rte_eth_dev_stop(self.port) };
            self.used.store(false, Ordering::Release);
        });
    }
}

/// What came out of setting a device up.
struct Up {
    driver: &'static str,
    mac: MacAddr,
    mtu: u16,
    rx_queues: u16,
    tx_queues: u16,
    pool: Pool,
}

/// A device that is being set up.
struct Setup<'a> {
    name: &'a str,
    port: u16,
}

impl Setup<'_> {
    /// DPDK's answers are zero or a negative errno.
    fn check(&self, action: &'static str, answer: c_int) -> Result<(), PortError> {
        if answer >= 0 {
            return Ok(());
        }
        let source = Error::from_raw_os_error(answer.saturating_neg());
        Err(PortError::Os { device: self.name.to_owned(), action, source })
    }

    fn run(&self, mtu: u16, workers: usize, prepare: Option<&dyn Prepare>) -> Result<Up, PortError> {
        let port = self.port;
        let mut info = sys::rte_eth_dev_info::default();
        // SAFETY: a place for the answer.
        self.check("asking what it can do", unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) })?;
        let driver = driver_name(&info);
        let (rx_queues, tx_queues) = queues(&info, workers);
        let mut config = configuration(&info, rx_queues, mtu);
        if prepare.is_some() {
            offer_security(&info, &mut config);
        }
        // SAFETY: a complete configuration, which DPDK copies.
        let configured = unsafe { sys::rte_eth_dev_configure(port, rx_queues, tx_queues, &raw const config) };
        self.check("configuring it", configured)?;
        let mtu = self.fit_mtu(mtu);

        let (mut rx_descriptors, mut tx_descriptors) =
            (wish(info.default_rxportconf.ring_size), wish(info.default_txportconf.ring_size));
        // SAFETY: two numbers that DPDK brings into the device's bounds.
        let adjusted =
            unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(port, &raw mut rx_descriptors, &raw mut tx_descriptors) };
        self.check("asking for the size of its queues", adjusted)?;
        let descriptors =
            u32::from(rx_queues) * u32::from(rx_descriptors) + u32::from(tx_queues) * u32::from(tx_descriptors);
        let count = SPARE + descriptors + PER_WORKER * u32::try_from(workers).unwrap_or(1);
        // SAFETY: asks for the memory node of a valid port.
        let socket = unsafe { sys::rte_eth_dev_socket_id(port) };
        let frame = (u32::from(mtu) + L2).min(MAX_FRAME as u32);
        let pool = Pool::of(port, frame, count, socket).map_err(|source| PortError::Os {
            device: self.name.to_owned(),
            action: "getting memory for its packets: give DPDK more",
            source,
        })?;

        let memory_node = u32::try_from(socket).unwrap_or(u32::MAX);
        for queue in 0..rx_queues {
            // SAFETY: the device is configured and stopped; the pool is never freed.
            let done = unsafe {
                sys::rte_eth_rx_queue_setup(
                    port,
                    queue,
                    rx_descriptors,
                    memory_node,
                    &raw const info.default_rxconf,
                    pool.as_ptr(),
                )
            };
            self.check("setting up a receive queue", done)?;
        }
        for queue in 0..tx_queues {
            // SAFETY: the device is configured and stopped.
            let done = unsafe {
                sys::rte_eth_tx_queue_setup(port, queue, tx_descriptors, memory_node, &raw const info.default_txconf)
            };
            self.check("setting up a transmit queue", done)?;
        }
        if let Some(prepare) = prepare {
            prepare.before_start(port).map_err(|why| PortError::Unsupported {
                device: self.name.to_owned(),
                driver,
                why: format!("preparing it for rules: {why}"),
            })?;
        }
        // SAFETY: the device is configured, with all its queues.
        self.check("starting it", unsafe { sys::rte_eth_dev_start(port) })?;
        // Frames for addresses of the node's own, and for its neighbours' proxies. Devices without a filter do not know this.
        // SAFETY: a started device.
        let promiscuous = unsafe { sys::rte_eth_promiscuous_enable(port) };
        if promiscuous != 0 && promiscuous != -libc::ENOTSUP {
            tracing::warn!(
                device = self.name,
                "not promiscuous: frames for other addresses than the device's are missed"
            );
        }
        Ok(Up { driver, mac: self.mac()?, mtu, rx_queues, tx_queues, pool })
    }

    /// Raises the device's MTU to what the vif needs; returns what it is then.
    fn fit_mtu(&self, wanted: u16) -> u16 {
        let mut mtu = 0;
        // SAFETY: a place for the answer.
        if unsafe { sys::rte_eth_dev_get_mtu(self.port, &raw mut mtu) } != 0 {
            return wanted;
        }
        if mtu >= wanted {
            return mtu;
        }
        // SAFETY: a configured device.
        if unsafe { sys::rte_eth_dev_set_mtu(self.port, wanted) } == 0 {
            return wanted;
        }
        tracing::warn!(device = self.name, mtu, wanted, "the device does not take the vif's MTU");
        mtu
    }

    fn mac(&self) -> Result<MacAddr, PortError> {
        let mut address = sys::rte_ether_addr::default();
        // SAFETY: a place for the answer.
        let answer = unsafe { sys::rte_eth_macaddr_get(self.port, &raw mut address) };
        self.check("asking for its address", answer)?;
        Ok(MacAddr(address.addr_bytes))
    }
}

fn wish(ring_size: u16) -> u16 {
    if ring_size == 0 { DESCRIPTORS } else { ring_size }
}

/// Receive and transmit queues: one of each for each worker, as far as the device has them.
fn queues(info: &sys::rte_eth_dev_info, workers: usize) -> (u16, u16) {
    let workers = u16::try_from(workers).unwrap_or(u16::MAX).max(1);
    (workers.min(info.max_rx_queues).max(1), workers.min(info.max_tx_queues).max(1))
}

/// The largest MTU that the device can be configured with: it has a bound of its own, and one by the length of frames.
fn most(info: &sys::rte_eth_dev_info) -> u16 {
    let by_mtu = if info.max_mtu == 0 { u16::MAX } else { info.max_mtu };
    // As ethdev reckons: what is in front of and behind a packet is the difference, where the driver tells both.
    let told = by_mtu != u16::MAX && info.max_rx_pktlen > u32::from(by_mtu);
    let around = if told { info.max_rx_pktlen - u32::from(by_mtu) } else { ETHERNET };
    match info.max_rx_pktlen.checked_sub(around) {
        Some(by_frame) if by_frame > 0 => by_mtu.min(u16::try_from(by_frame).unwrap_or(u16::MAX)),
        _ => by_mtu,
    }
}

fn configuration(info: &sys::rte_eth_dev_info, rx_queues: u16, mtu: u16) -> sys::rte_eth_conf {
    let mut config = sys::rte_eth_conf::default();
    config.rxmode.mtu = u32::from(mtu.min(most(info)).max(info.min_mtu));
    let spread = info.flow_type_rss_offloads & (sys::RTE_ETH_RSS_IP | sys::RTE_ETH_RSS_TCP | sys::RTE_ETH_RSS_UDP);
    // A device that cannot spread by flow gets to the right worker by the rings between them.
    if rx_queues > 1 && spread != 0 {
        config.rxmode.mq_mode = sys::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS;
        config.rx_adv_conf.rss_conf.rss_hf = spread;
    }
    config
}

/// Lets whoever gives the device rules have IPsec on it, as far as it has any.
fn offer_security(info: &sys::rte_eth_dev_info, config: &mut sys::rte_eth_conf) {
    config.rxmode.offloads |= info.rx_offload_capa & sys::RTE_ETH_RX_OFFLOAD_SECURITY;
    config.txmode.offloads |= info.tx_offload_capa & sys::RTE_ETH_TX_OFFLOAD_SECURITY;
}

fn link_is_up(port: u16) -> bool {
    let mut link = sys::rte_eth_link::default();
    // SAFETY: a place for the answer.
    if unsafe { sys::rte_eth_link_get_nowait(port, &raw mut link) } != 0 {
        // A device that cannot tell is up while it is there.
        return true;
    }
    // Speed, then bits: duplex, autonegotiation, status. By place, because the structure became a union with 24.03.
    // SAFETY: the structure is 8 initialised octets in all versions.
    let octets: [u8; 8] = unsafe { std::ptr::from_ref(&link).cast::<[u8; 8]>().read() };
    octets[4] & 0b100 != 0
}

fn lost(port: u16) -> u64 {
    let mut stats = sys::rte_eth_stats::default();
    // SAFETY: a place for the answer.
    if unsafe { sys::rte_eth_stats_get(port, &raw mut stats) } != 0 {
        return 0;
    }
    stats.imissed.saturating_add(stats.ierrors).saturating_add(stats.rx_nombuf)
}

/// Name of the driver of a port.
pub(super) fn driver_of(port: u16) -> &'static str {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: a place for the answer. When there is none, it names no driver.
    unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    driver_name(&info)
}

/// The driver's name, kept for ever: there are few.
fn driver_name(info: &sys::rte_eth_dev_info) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    if info.driver_name.is_null() {
        return "net_dpdk";
    }
    // SAFETY: not null, and a C string of the driver.
    let name = unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy();
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(&*name) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_owned().into_boxed_str());
    names.insert(name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(rx: u16, tx: u16) -> sys::rte_eth_dev_info {
        sys::rte_eth_dev_info { max_rx_queues: rx, max_tx_queues: tx, max_mtu: 9000, min_mtu: 68, ..Default::default() }
    }

    #[test]
    fn workers_get_a_queue_each_as_far_as_there_are_any() {
        assert_eq!(queues(&device(8, 8), 4), (4, 4));
        assert_eq!(queues(&device(1, 2), 4), (1, 2));
        assert_eq!(queues(&device(1, 1), 0), (1, 1));
    }

    #[test]
    fn flows_are_spread_only_where_the_device_can_and_there_is_something_to_spread_over() {
        let mut info = device(8, 8);
        assert_eq!(configuration(&info, 2, 1500).rxmode.mq_mode, 0);
        info.flow_type_rss_offloads = sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP;
        let config = configuration(&info, 2, 1500);
        assert_eq!(config.rxmode.mq_mode, sys::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS);
        assert_eq!(config.rx_adv_conf.rss_conf.rss_hf, sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP);
        assert_eq!(configuration(&info, 1, 1500).rxmode.mq_mode, 0);
    }

    #[test]
    fn an_mtu_outside_the_devices_bounds_is_brought_inside() {
        assert_eq!(configuration(&device(1, 1), 1, 9216).rxmode.mtu, 9000);
        assert_eq!(configuration(&device(1, 1), 1, 0).rxmode.mtu, 68);
        assert_eq!(configuration(&device(1, 1), 1, 1500).rxmode.mtu, 1500);
    }

    #[test]
    fn an_mtu_is_brought_inside_what_a_device_says_of_frames() {
        // As net_af_packet: any MTU, and frames of 1518 octets.
        let info = sys::rte_eth_dev_info { max_rx_pktlen: 1518, max_mtu: u16::MAX, ..device(1, 1) };
        assert_eq!(configuration(&info, 1, 1532).rxmode.mtu, 1500);
        let info = sys::rte_eth_dev_info { max_rx_pktlen: 9022, max_mtu: 9000, ..device(1, 1) };
        assert_eq!(configuration(&info, 1, 9216).rxmode.mtu, 9000);
    }
    #[test]
    fn ipsec_is_asked_for_where_the_device_has_it() {
        let mut info = device(1, 1);
        let mut config = configuration(&info, 1, 1500);
        offer_security(&info, &mut config);
        assert_eq!((config.rxmode.offloads, config.txmode.offloads), (0, 0));
        info.rx_offload_capa = sys::RTE_ETH_RX_OFFLOAD_SECURITY | sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
        offer_security(&info, &mut config);
        assert_eq!((config.rxmode.offloads, config.txmode.offloads), (sys::RTE_ETH_RX_OFFLOAD_SECURITY, 0));
        info.tx_offload_capa = sys::RTE_ETH_TX_OFFLOAD_SECURITY;
        offer_security(&info, &mut config);
        assert_eq!(config.txmode.offloads, sys::RTE_ETH_TX_OFFLOAD_SECURITY);
    }
}
