//! An Ethernet device: set up, running, stopped.

use std::{
    ffi::{CStr, c_int},
    io::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
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
    conf::{configuration, enable_removal_events, most, offer_security, queues, wish},
    driver::driver_name,
    eal::{Eal, exclusively},
    gate::Gate,
    hairpin::{self, Hairpins, OrdinaryQueues},
    pool::Pool,
    prepare::Prepare,
};

/// Ethernet with two VLAN tags.
const L2: u32 = 22;
/// Largest MTU that a port is laid out for: that of the longest frame.
const MOST: u16 = (MAX_FRAME as u32 - L2) as u16;
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
    /// Largest IP packet of the vif.
    wanted: u16,
    /// The largest MTU that the driver can be asked for.
    most: u32,
    /// Octets of the longest frame that is sent.
    largest: AtomicU32,
    /// The MTU that the driver was asked for last, because the kernel's device has it.
    tried: AtomicU32,
    rx_queues: u16,
    tx_queues: u16,
    pool: Pool,
    /// The kernel's device that the driver is on, where there is one and it is in this network namespace.
    below: Option<String>,
    /// What the device had lost before.
    lost_before: u64,
    hairpins: Option<Hairpins>,
    gate: Option<Gate>,
    /// The device that manages its switch: it is stopped after all others.
    manager: Option<Arc<Self>>,
    /// Set while the device is in use.
    used: Arc<AtomicBool>,
    _eal: Arc<Eal>,
}

impl Ethdev {
    /// Configures a device and starts it. `used` tells whether another owner still has it.
    ///
    /// # Errors
    /// [`PortError`]: the device is still in use, or what it refused.
    pub(super) fn start(
        eal: &Arc<Eal>,
        wanted: &Wanted<'_>,
        used: &Arc<AtomicBool>,
        prepare: Option<&dyn Prepare>,
    ) -> Result<Self, PortError> {
        let Wanted { name, mtu, below, .. } = *wanted;
        let port = eal.port_id(name).ok_or_else(|| PortError::NoDevice { device: name.to_owned() })?;
        if used.swap(true, Ordering::AcqRel) {
            let source = Error::from_raw_os_error(libc::EBUSY);
            return Err(PortError::Os { device: name.to_owned(), action: "waiting for its last user", source });
        }
        let gate = prepare.and_then(Prepare::gate);
        let start = || Setup { name, port }.run(wanted, prepare);
        let started = exclusively(|| match &gate {
            Some(gate) => gate.start(start),
            None => start(),
        });
        match started {
            Ok(up) => Ok(Self {
                port,
                name: name.to_owned(),
                driver: up.driver,
                mac: up.mac,
                wanted: mtu,
                most: u32::from(up.most),
                largest: AtomicU32::new(u32::from(up.mtu) + L2),
                tried: AtomicU32::new(0),
                rx_queues: up.rx_queues,
                tx_queues: up.tx_queues,
                pool: up.pool,
                below: below.map(str::to_owned).or_else(|| kernel_index(port).and_then(name_of)),
                lost_before: lost(port),
                hairpins: up.hairpins,
                gate,
                manager: wanted.manager.clone(),
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

    /// The device that manages its switch, if that is another.
    pub(super) fn manager(&self) -> Option<&Self> {
        self.manager.as_deref()
    }

    /// The kernel's device that the driver is on, where there is one and it is in this network namespace.
    #[must_use]
    pub fn below(&self) -> Option<&str> {
        self.below.as_deref()
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
        // A driver over a device of the kernel's, as mlx5 and net_af_packet are, does not hear when somebody else sets its MTU.
        let below = self.below.as_deref().map(Device::read).transpose()?;
        if let (Some(below), Some(index)) = (&below, kernel_index(self.port))
            && below.index != index
        {
            // Deleted and made again under the same name: the driver is still on the one that is gone.
            return Err(PortError::NoDevice { device: below.name.clone() });
        }
        let mut mtu = u32::from(current_mtu(self.port).unwrap_or(self.wanted));
        if let Some(below) = &below {
            let most = below.mtu.min(u32::from(self.wanted)).min(self.pool.frame().saturating_sub(L2));
            // Once for each size: a driver that refuses says so in its log.
            if mtu < most && self.tried.swap(most, Ordering::Relaxed) != most && self.set_mtu(most) {
                mtu = most;
            }
            mtu = mtu.min(below.mtu);
        }
        self.largest.store(mtu.saturating_add(L2), Ordering::Relaxed);
        let attainable = below.as_ref().map_or(self.most, |below| below.mtu).min(u32::from(MOST)).max(mtu);
        Ok(Device {
            name: self.name.clone(),
            index: below.map_or(i32::from(self.port), |below| below.index),
            attainable,
            mac: Some(self.mac),
            mtu,
            link: Link::Ethernet,
            up: true,
            operational: up,
            carrier: up,
            kernel_driver: self.driver.to_owned(),
            queues: u32::from(self.rx_queues),
        })
    }

    fn set_mtu(&self, mtu: u32) -> bool {
        let Ok(mtu) = u16::try_from(mtu) else { return false };
        // SAFETY: a port that this owns; the driver refuses what it cannot do while it runs.
        exclusively(|| unsafe { sys::rte_eth_dev_set_mtu(self.port, mtu) }) == 0
    }

    /// Is a frame of so many octets no longer than the device sends? Drivers drop what is longer and count nothing.
    #[inline]
    #[must_use]
    pub fn takes(&self, octets: usize) -> bool {
        octets <= self.largest.load(Ordering::Relaxed) as usize
    }

    /// Frames that the device has lost since it was started: no room, no memory, damaged.
    #[must_use]
    pub fn lost(&self) -> u64 {
        lost(self.port).saturating_sub(self.lost_before)
    }
}

impl Drop for Ethdev {
    fn drop(&mut self) {
        let stop = || {
            if let Some(hairpins) = &self.hairpins {
                hairpins.stopping(self.port);
            }
            // SAFETY: the ports that use its queues hold on to the device, so there are none any more; nor is anybody at its rules.
            unsafe { sys::rte_eth_dev_stop(self.port) };
        };
        exclusively(|| {
            match &self.gate {
                Some(gate) => gate.stop(self.port, stop),
                None => stop(),
            }
            self.used.store(false, Ordering::Release);
        });
    }
}

/// What a device is started for.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    /// DPDK's name of it.
    pub(super) name: &'a str,
    /// Largest IP packet of its vif.
    pub(super) mtu: u16,
    /// Workers that use it.
    pub(super) workers: usize,
    /// The kernel's device below, when it is known from before.
    pub(super) below: Option<&'a str>,
    /// The device that manages its switch, if that is another: started.
    pub(super) manager: Option<Arc<Ethdev>>,
}

/// What came out of setting a device up.
struct Up {
    driver: &'static str,
    mac: MacAddr,
    mtu: u16,
    most: u16,
    rx_queues: u16,
    tx_queues: u16,
    pool: Pool,
    /// Those that it has queues for.
    hairpins: Option<Hairpins>,
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

    fn run(&self, wanted: &Wanted<'_>, prepare: Option<&dyn Prepare>) -> Result<Up, PortError> {
        let (port, workers) = (self.port, wanted.workers);
        let info = self.info()?;
        let driver = driver_name(&info);
        let (rx_queues, tx_queues) = queues(&info, workers);
        // Never less than a device of the kernel's has: the kernel's own ports take as much, and its stack uses it, too.
        let mtu = wanted.mtu.max(self.shared_mtu(wanted.below));
        let hairpins = prepare.and_then(Prepare::hairpins).filter(|hairpins| self.has_hairpins(hairpins));
        let behind = hairpins.as_ref().map_or(0, |hairpins| hairpins.queues_of(port));
        let mut config = configuration(&info, rx_queues, mtu);
        // SAFETY: where the driver sets it, it points to the flags of the device, which live as long as the port.
        enable_removal_events(unsafe { info.dev_flags.as_ref() }.copied().unwrap_or(0), &mut config);
        if prepare.is_some() {
            offer_security(&info, &mut config);
        }
        let (all_rx, all_tx) = (rx_queues.saturating_add(behind), tx_queues.saturating_add(behind));
        // SAFETY: a complete configuration, which DPDK copies.
        let configured = unsafe { sys::rte_eth_dev_configure(port, all_rx, all_tx, &raw const config) };
        self.check("configuring it", configured)?;
        let mtu = self.fit_mtu(mtu);
        // Once more: a driver over a device of the kernel's has gone over to that device as it is now.
        let info = self.info()?;

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
        let frame = (u32::from(mtu) + L2).max(info.min_rx_bufsize).min(MAX_FRAME as u32);
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
        if let Some(hairpins) = &hairpins {
            let done = hairpins.set_up(port, |member| ordinary(member, workers));
            self.check("setting up its hairpin queues", done.err().unwrap_or(0))?;
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
        let mac = self.mac()?;
        if let Some(hairpins) = &hairpins {
            hairpins.started(port, rx_queues);
        }
        Ok(Up { driver, mac, mtu, most: most(&info), rx_queues, tx_queues, pool, hairpins })
    }

    /// Is it of the group, and able to?
    fn has_hairpins(&self, hairpins: &Hairpins) -> bool {
        let wanted = hairpins.queues_of(self.port) > 0;
        let able = wanted && hairpin::capable(self.port);
        if wanted && !able {
            tracing::warn!(device = self.name, "it has no hairpin queues: nothing is forwarded by rules of it");
        }
        able
    }

    fn info(&self) -> Result<sys::rte_eth_dev_info, PortError> {
        let mut info = sys::rte_eth_dev_info::default();
        // SAFETY: a place for the answer.
        self.check("asking what it can do", unsafe { sys::rte_eth_dev_info_get(self.port, &raw mut info) })?;
        Ok(info)
    }

    /// The MTU of the kernel's device that the driver is on; 0: it is on none. The driver itself may know an earlier one.
    fn shared_mtu(&self, below: Option<&str>) -> u16 {
        let index = kernel_index(self.port);
        let name = below.map(str::to_owned).or_else(|| index.and_then(name_of));
        match name.and_then(|name| Device::read(&name).ok()) {
            Some(device) => u16::try_from(device.mtu).unwrap_or(u16::MAX).min(MOST),
            None => index.and_then(|_| current_mtu(self.port)).unwrap_or(0),
        }
    }

    /// Raises the device's MTU to what the vif needs; returns what it is then.
    fn fit_mtu(&self, wanted: u16) -> u16 {
        let Some(mtu) = current_mtu(self.port) else { return wanted };
        if mtu >= wanted {
            return mtu;
        }
        // SAFETY: a configured device.
        if unsafe { sys::rte_eth_dev_set_mtu(self.port, wanted) } == 0 {
            return wanted;
        }
        // The node says what it is limited to.
        tracing::debug!(device = self.name, mtu, wanted, "the device does not take this MTU");
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

/// Queues that a port has for software when it is used by so many workers.
fn ordinary(port: u16, workers: usize) -> OrdinaryQueues {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: a place for the answer; without one, there is one queue each way.
    unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    let (rx, tx) = queues(&info, workers);
    OrdinaryQueues { rx, tx }
}

/// The MTU that a device has.
fn current_mtu(port: u16) -> Option<u16> {
    let mut mtu = 0;
    // SAFETY: a place for the answer.
    let answer = unsafe { sys::rte_eth_dev_get_mtu(port, &raw mut mtu) };
    (answer == 0).then_some(mtu)
}

/// Index of the kernel's device that a driver is on; `None`: on none.
fn kernel_index(port: u16) -> Option<i32> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: a place for the answer.
    let answer = unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    i32::try_from(info.if_index).ok().filter(|index| answer == 0 && *index > 0)
}

/// Name of the kernel's device with this index.
fn name_of(index: i32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: room for the longest name and its end.
    let found = unsafe { libc::if_indextoname(index.cast_unsigned(), name.as_mut_ptr().cast()) };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (!found.is_null()).then(|| name.to_string_lossy().into_owned())
}

pub(super) fn link_is_up(port: u16) -> bool {
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
