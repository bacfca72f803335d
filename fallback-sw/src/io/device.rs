//! Facts about a network device, and the few settings a port changes. By `ioctl`: `/sys` may show another network namespace.

use std::{io, os::fd::OwnedFd};

use offload_rules::MacAddr;

use super::{
    PortError,
    sys::{self, RawName},
};

// linux/ethtool.h
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GLINK: u32 = 0x0a;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN` of linux/ethtool.h: the device takes the tag out of the frame.
const FLAG_RXVLAN: u32 = 1 << 8;
/// `ETH_FLAG_LRO`: the device merges TCP segments so that they cannot be taken apart again.
const FLAG_LRO: u32 = 1 << 15;

/// What a frame on the device starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    RawIp,
}

/// A network device as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: String,
    /// Interface index; a device that is deleted and made again gets another one.
    pub index: i32,
    /// Address; `None` on a device without Ethernet.
    pub mac: Option<MacAddr>,
    /// Largest IP packet in octets.
    pub mtu: u32,
    /// `mtu` as it could be if a port were opened on the device now: more than `mtu` where a port was laid out for less.
    pub attainable: u32,
    /// What frames start with.
    pub link: Link,
    /// Set up by the administrator (IFF_UP).
    pub up: bool,
    /// Operational (IFF_RUNNING; RFC 2863 ifOperStatus up): set up, and with carrier.
    pub operational: bool,
    /// The link has carrier; devices without the notion have it while they are up.
    pub carrier: bool,
    /// Name of the kernel's driver, `veth`, `ixgbe`; empty where the device does not say.
    pub kernel_driver: String,
    /// Receive queues.
    pub queues: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    erom: [u8; 32],
    reserved: [u8; 12],
    private_flags: u32,
    stats: u32,
    test: u32,
    eeprom: u32,
    registers: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Value {
    cmd: u32,
    data: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Device {
    /// The device with this name.
    ///
    /// # Errors
    /// [`PortError::NoDevice`], [`PortError::BadName`], or [`PortError::Os`] where the kernel refuses to tell.
    pub fn read(name: &str) -> Result<Self, PortError> {
        let asker = Asker::new(name)?;
        let index = asker.index()?;
        let flags = asker.flags()?;
        let (link, mac) = asker.address()?;
        let up = flags & libc::IFF_UP != 0;
        let mtu = asker.mtu()?;
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
            mtu,
            attainable: mtu,
            link,
            up,
            operational: up && flags & libc::IFF_RUNNING != 0,
            carrier: asker.value(ETHTOOL_GLINK).map_or(up, |carrier| carrier != 0),
            kernel_driver: asker.kernel_driver(),
            queues: asker.queues(),
        })
    }
}

/// Tells a device that is gone from one that is down, for which the kernel has the same errno. Keeps a socket: the thread that
/// asks may be in another network namespace than the one that opened the port.
#[derive(Debug)]
pub(super) struct Watch {
    asker: Asker,
    index: i32,
}

impl Watch {
    pub(super) fn new(device: &Device) -> Result<Self, PortError> {
        Ok(Self { asker: Asker::new(&device.name)?, index: device.index })
    }

    /// What an error of the system means for the device that was opened, even if another one has its name by now.
    pub(super) fn failure(&self, action: &'static str, source: io::Error) -> PortError {
        match sys::device_error(&self.asker.name, action, source) {
            PortError::Down { device } if self.asker.index().ok() != Some(self.index) => PortError::NoDevice { device },
            other => other,
        }
    }
}

/// Sets the device up.
///
/// # Errors
/// As for [`Device::read`].
pub fn set_up(name: &str) -> Result<(), PortError> {
    let asker = Asker::new(name)?;
    let flags = asker.flags()? | libc::IFF_UP;
    let mut request = asker.request();
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags & 0x7fff).unwrap_or(0);
    asker.ask(libc::SIOCSIFFLAGS, &mut request, "setting it up")
}

/// Sets the largest IP packet of the device in octets.
///
/// # Errors
/// As for [`Device::read`]; EINVAL inside [`PortError::Os`] when the device does not take this size.
pub fn set_mtu(name: &str, mtu: u16) -> Result<(), PortError> {
    let asker = Asker::new(name)?;
    let mut request = asker.request();
    request.ifr_ifru.ifru_mtu = i32::from(mtu);
    asker.ask(libc::SIOCSIFMTU, &mut request, "setting its MTU")
}

/// Asks the device to leave received frames as they are: no VLAN tag taken out, no TCP segments merged (LRO). Returns whether
/// frames keep their VLAN tag: always true on a device that has no such offload.
///
/// # Errors
/// As for [`Device::read`].
pub fn keep_frames_whole(name: &str) -> Result<bool, PortError> {
    let asker = Asker::new(name)?;
    let Some(flags) = asker.value(ETHTOOL_GFLAGS) else { return Ok(true) };
    if flags & (FLAG_RXVLAN | FLAG_LRO) == 0 {
        return Ok(true);
    }
    let mut value = Value { cmd: ETHTOOL_SFLAGS, data: flags & !(FLAG_RXVLAN | FLAG_LRO) };
    // The answer is read back: a driver may accept and ignore it.
    let _ = asker.ethtool(&mut value);
    Ok(asker.value(ETHTOOL_GFLAGS).is_none_or(|flags| flags & FLAG_RXVLAN == 0))
}

/// A socket to ask about one device.
#[derive(Debug)]
struct Asker {
    socket: OwnedFd,
    name: String,
    raw: RawName,
}

impl Asker {
    fn new(name: &str) -> Result<Self, PortError> {
        let raw = sys::raw_name(name)?;
        let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
            .map_err(|source| sys::device_error(name, "opening a socket to ask about it", source))?;
        Ok(Self { socket, name: name.to_owned(), raw })
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: a structure of integers and a pointer, for all of which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.raw;
        request
    }

    fn ask(&self, what: libc::c_ulong, request: &mut libc::ifreq, action: &'static str) -> Result<(), PortError> {
        // SAFETY: all requests of this module that come here take an ifreq without a pointer in it.
        unsafe { sys::ioctl(&self.socket, what, request) }.map_err(|e| sys::device_error(&self.name, action, e))
    }

    fn index(&self) -> Result<i32, PortError> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFINDEX, &mut request, "asking for its index")?;
        // SAFETY: SIOCGIFINDEX has filled this member; any integer is valid.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    fn flags(&self) -> Result<i32, PortError> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFFLAGS, &mut request, "asking for its flags")?;
        // SAFETY: SIOCGIFFLAGS has filled this member; any integer is valid.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    fn mtu(&self) -> Result<u32, PortError> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFMTU, &mut request, "asking for its MTU")?;
        // SAFETY: SIOCGIFMTU has filled this member; any integer is valid.
        Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
    }

    fn address(&self) -> Result<(Link, Option<MacAddr>), PortError> {
        let mut request = self.request();
        self.ask(libc::SIOCGIFHWADDR, &mut request, "asking for its address")?;
        // SAFETY: SIOCGIFHWADDR has filled this member; any octets are valid.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if !matches!(address.sa_family, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
            return Ok((Link::RawIp, None));
        }
        let mut mac = MacAddr::default();
        for (to, from) in mac.0.iter_mut().zip(address.sa_data) {
            *to = from.cast_unsigned();
        }
        Ok((Link::Ethernet, Some(mac)))
    }

    /// An ethtool request; `None` where the driver does not have it.
    fn ethtool<T: Copy>(&self, command: &mut T) -> Option<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
        // SAFETY: callers pass the structure of linux/ethtool.h that belongs to the command in its first member; it outlives
        // the call.
        unsafe { sys::ioctl(&self.socket, libc::SIOCETHTOOL as libc::c_ulong, &mut request) }.ok()
    }

    fn value(&self, cmd: u32) -> Option<u32> {
        let mut value = Value { cmd, data: 0 };
        self.ethtool(&mut value).map(|()| value.data)
    }

    fn queues(&self) -> u32 {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        self.ethtool(&mut channels).map_or(1, |()| (channels.rx + channels.combined).max(1))
    }

    fn kernel_driver(&self) -> String {
        let mut info = DriverInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            erom: [0; 32],
            reserved: [0; 12],
            private_flags: 0,
            stats: 0,
            test: 0,
            eeprom: 0,
            registers: 0,
        };
        if self.ethtool(&mut info).is_none() {
            return String::new();
        }
        info.driver.iter().take_while(|octet| **octet != 0).map(|octet| char::from(*octet)).collect()
    }
}
