//! AF_XDP: frames straight from the driver's receive queue into memory shared with the kernel.
//!
//! One socket for each receive queue of the device; each worker's port has the queues `i`, `i + workers`, … A six-instruction
//! XDP program hands every frame of a queue to its socket. It is put on the device by a BPF link: when the process ends,
//! however it ends, the kernel takes it off. Native mode (in the driver) where the driver has it, else generic mode (in the
//! stack); zero-copy where the driver has that, else copy. Both fallbacks are the kernel's, the code here is the same.
//!
//! **What XDP does not say.** A program in XDP, and so this port, gets the octets of a frame and nothing else. On a NIC they are
//! complete, once the device leaves the VLAN tag in the frame (`rxvlan off`, which opening asks for). On a device whose other
//! side is a stack on this machine (veth, tun) they are not: a container sends partial checksums, and a VLAN tag outside the
//! frame; generic mode also passes merged TCP segments. [`super::open()`] therefore does not choose AF_XDP there; who asks for
//! it must switch off `tx`, `tso` and `txvlan` at the other end (`ethtool -K DEVICE tx off txvlan off`).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use xdp::{
    CompletionRing, FillRing, RingConfigBuilder, RxRing, TxRing, Umem,
    nic::NicIndex,
    slab::{HeapSlab, Slab},
    socket::{SocketError, XdpSocket, XdpSocketBuilder},
    umem::{FrameSize, UmemCfgBuilder},
};

pub use super::bpf::Mode;
use super::{
    Port, PortError,
    bpf::{Attached, SocketMap},
    device::{self, Device, Link, Watch},
    sys,
};
use crate::packet::Packet;

/// Name of the driver in `vif --get`.
pub const DRIVER: &str = "net_af_xdp";

/// Entries of each of the four rings.
const RING: u32 = 2048;
/// A frame for each entry of the fill ring, and one for each that may be on its way out.
const FRAMES: u32 = 2 * RING;
/// Octets of a frame's memory that the kernel keeps before it (XDP_PACKET_HEADROOM).
const KERNEL_ROOM: u32 = 256;
/// Ethernet with two tags.
const ETHERNET: u32 = 22;
/// Frames that one call to send works off in copy mode (TX_BATCH_SIZE of net/xdp/xsk.c).
const KERNEL_BATCH: usize = 32;
const HEALTH_INTERVAL: u32 = 32;
const RELEASE_TRIES: u32 = 20;
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// Largest MTU in octets: a frame lies in one page.
pub const MAX_MTU: u32 = 4096 - KERNEL_ROOM - ETHERNET;

/// What the device's driver says it can do (netdev netlink family).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ability {
    /// XDP and redirection in the driver.
    pub native: bool,
    /// Frames go to user space without a copy.
    pub zero_copy: bool,
}

/// Asks the device's driver what it can do. A kernel that does not answer (before 6.3) can do nothing.
#[must_use]
pub fn ability(device: &Device) -> Ability {
    let answer = NicIndex::new(device.index.cast_unsigned()).query_capabilities();
    answer.map_or(Ability { native: false, zero_copy: false }, |all| Ability {
        native: all.xdp_features.basic() && all.xdp_features.redirect(),
        zero_copy: all.zero_copy.is_available(),
    })
}

/// One worker's queues of a device.
pub struct AfXdpPort {
    watch: Watch,
    queues: Vec<Queue>,
    /// Queue that is asked first next time.
    turn: usize,
    /// Wakes for any of several queues.
    waiter: Option<OwnedFd>,
    empty: u32,
    // The program leaves the device with the last port. Behind the sockets, so that they go first.
    _program: Arc<(SocketMap, Attached)>,
}

/// A socket with its memory. The memory is declared last: it outlives the socket and all packets in `slab`.
struct Queue {
    socket: XdpSocket,
    fill: FillRing,
    rx: RxRing,
    completion: CompletionRing,
    tx: TxRing,
    slab: HeapSlab,
    /// Frames given to the device and not returned yet.
    in_flight: usize,
    /// Frames that the fill ring lacks.
    owed: usize,
    umem: Umem,
}

// SAFETY: the raw pointers inside point into the queue's own memory map and rings, which move with it; nothing is bound to a
// thread, and all methods take `&mut self`.
unsafe impl Send for Queue {}

/// Opens a device for `workers` workers (at least one), each with a port of its own; says how the program runs.
///
/// # Errors
/// [`PortError::Unsupported`]: fewer queues than workers, an MTU above [`MAX_MTU`], no Ethernet, another XDP program there, or a
/// kernel without AF_XDP; each says what to do. [`PortError::NoDevice`]; [`PortError::Os`] mostly for want of CAP_NET_RAW and
/// CAP_BPF.
pub fn open(device: &str, workers: usize) -> Result<(Vec<Box<dyn Port>>, Mode), PortError> {
    let device = Device::read(device)?;
    let workers = workers.max(1);
    let fit = check(&device, workers).map_err(|why| unsupported(&device, why))?;
    if !device::keep_frames_whole(&device.name)? {
        return Err(unsupported(
            &device,
            "it takes VLAN tags out of frames and cannot be told not to: use driver AF_PACKET".to_owned(),
        ));
    }
    let failed = |action| move |error| (action, error);
    let (program, mode) = load(&device)?;
    let program = Arc::new(program);
    let mut ports = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (watch, program) = (Watch::new(&device)?, Arc::clone(&program));
        ports.push(AfXdpPort { watch, queues: Vec::new(), turn: 0, waiter: None, empty: 0, _program: program });
    }
    for (number, worker) in (0..device.queues).zip((0..workers).cycle()) {
        let queue = Queue::open_when_free(&device, number, fit, mode)?;
        program
            .0
            .insert(number, &queue.fd())
            .map_err(failed("entering its socket in the XDP map"))
            .map_err(|(action, error)| sys::device_error(&device.name, action, error))?;
        if let Some(port) = ports.get_mut(worker) {
            port.queues.push(queue);
        }
    }
    for port in &mut ports {
        port.waiter = wait_for_all(&port.queues)
            .map_err(|source| sys::device_error(&device.name, "making an epoll set of its queues", source))?;
    }
    Ok((ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect(), mode))
}

/// Can the device be served? The size of a frame's memory, or what is in the way.
fn check(device: &Device, workers: usize) -> Result<FrameSize, String> {
    if device.link != Link::Ethernet {
        return Err("it does not carry Ethernet: use driver AF_PACKET".to_owned());
    }
    let queues = usize::try_from(device.queues).unwrap_or(usize::MAX);
    if queues < workers {
        return Err(format!(
            "it has {queues} receive queue(s) for {workers} workers: give it more (ethtool -L {} combined {workers}), run fewer \
             workers, or use driver AF_PACKET",
            device.name
        ));
    }
    match device.mtu {
        small if small + ETHERNET + KERNEL_ROOM <= 2048 => Ok(FrameSize::TwoK),
        page if page <= MAX_MTU => Ok(FrameSize::FourK),
        mtu => Err(format!("its MTU is {mtu}: lower it to {MAX_MTU} or use driver AF_PACKET")),
    }
}

fn unsupported(device: &Device, why: String) -> PortError {
    PortError::Unsupported { device: device.name.clone(), driver: DRIVER, why }
}

/// Puts the program on the device: in the driver, else in the stack.
fn load(device: &Device) -> Result<((SocketMap, Attached), Mode), PortError> {
    let map = SocketMap::new(device.queues).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS) => {
            unsupported(device, "the kernel is built without CONFIG_XDP_SOCKETS: use driver AF_PACKET".to_owned())
        }
        _ => sys::device_error(&device.name, "making an XDP map (bpf)", source),
    })?;
    for mode in [Mode::Native, Mode::Generic] {
        match map.attach(device.index, mode) {
            Ok(attached) => return Ok(((map, attached), mode)),
            Err(error) => match (error.raw_os_error(), mode) {
                (Some(libc::EBUSY | libc::EEXIST), _) => {
                    let way =
                        format!("another XDP program is on it: take it off (ip link set {} xdp off)", device.name);
                    return Err(unsupported(device, way));
                }
                (Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE), Mode::Native) => {}
                _ => return Err(sys::device_error(&device.name, "putting the XDP program on it", error)),
            },
        }
    }
    Err(unsupported(device, "it takes no XDP program in native or generic mode: use driver AF_PACKET".to_owned()))
}

/// An epoll descriptor that is readable when any of several queues is.
fn wait_for_all(queues: &[Queue]) -> io::Result<Option<OwnedFd>> {
    if queues.len() < 2 {
        return Ok(None);
    }
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just made this descriptor, nobody else owns it.
    let set = unsafe { OwnedFd::from_raw_fd(fd) };
    for queue in queues {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: `event` is live; the kernel only reads it.
        let done =
            unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, queue.socket.raw_fd(), &raw mut event) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(Some(set))
}

impl Queue {
    /// Opens the queue; waits a moment for a former socket on it, whose memory the kernel frees after it was closed.
    fn open_when_free(device: &Device, number: u32, frame_size: FrameSize, mode: Mode) -> Result<Self, PortError> {
        for _ in 0..RELEASE_TRIES {
            match Self::open(device, number, frame_size, mode) {
                Err(PortError::Unsupported { .. }) => thread::sleep(RELEASE_PAUSE),
                done => return done,
            }
        }
        Self::open(device, number, frame_size, mode)
    }

    fn open(device: &Device, number: u32, frame_size: FrameSize, mode: Mode) -> Result<Self, PortError> {
        let os = |action, error| sys::device_error(&device.name, action, error);
        let invalid = |_| io::Error::from_raw_os_error(libc::EINVAL);
        let config = UmemCfgBuilder { frame_size, head_room: 0, frame_count: FRAMES, ..UmemCfgBuilder::default() };
        let config = config.build().map_err(invalid).map_err(|e| os("describing packet memory", e))?;
        let mut umem = Umem::map(config).map_err(|e| os("mapping packet memory", e))?;
        let rings =
            RingConfigBuilder { rx_count: RING, tx_count: RING, fill_count: RING, completion_count: RING }.build();
        let rings = rings.map_err(invalid).map_err(|e| os("describing rings", e))?;

        let socket_failed = |error: SocketError| {
            let (action, error) = explain(error);
            match error.raw_os_error() {
                Some(libc::EBUSY) => unsupported(
                    device,
                    format!("queue {number} has an AF_XDP socket already: end the other program that uses it"),
                ),
                Some(libc::EAFNOSUPPORT) => unsupported(
                    device,
                    "the kernel is built without CONFIG_XDP_SOCKETS: use driver AF_PACKET".to_owned(),
                ),
                _ => os(action, error),
            }
        };
        let mut builder = XdpSocketBuilder::new().map_err(socket_failed)?;
        // Without XDP_USE_NEED_WAKEUP: the driver looks after the fill ring itself, and sending always calls the kernel.
        let (rings, mut flags) = builder.build_rings(&umem, rings).map_err(socket_failed)?;
        if mode == Mode::Generic {
            flags.force_copy();
        }
        let (mut fill, completion) = (rings.fill_ring, rings.completion_ring);
        let (Some(rx), Some(tx)) = (rings.rx_ring, rings.tx_ring) else {
            return Err(os("mapping rings", io::Error::from_raw_os_error(libc::EINVAL)));
        };
        // SAFETY: the memory is stored behind the socket in `Queue` and so outlives it.
        let filled = unsafe { fill.enqueue(&mut umem, RING as usize) };
        let index = NicIndex::new(device.index.cast_unsigned());
        let socket = builder.bind(index, number, flags).map_err(socket_failed)?;
        Ok(Self {
            socket,
            fill,
            rx,
            completion,
            tx,
            slab: HeapSlab::with_capacity(RING as usize),
            in_flight: 0,
            owed: RING as usize - filled,
            umem,
        })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket owns the descriptor and lives as long as the borrow of `self`.
        unsafe { BorrowedFd::borrow_raw(self.socket.raw_fd()) }
    }

    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> usize {
        // The slab bounds how many the ring hands over.
        let mut count = 0;
        while count < max {
            let mut window = Window { slab: &mut self.slab, limit: max - count };
            // SAFETY: the packets in the slab are freed below, before the memory can go.
            let got = unsafe { self.rx.recv(&self.umem, &mut window) };
            if got == 0 {
                break;
            }
            while let Some(frame) = self.slab.pop_back() {
                let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(frame.len()));
                packet.refill(&frame);
                into.push(packet);
                self.umem.free_packet(frame);
            }
            count += got;
        }
        self.owed += count;
        if self.owed > 0 {
            // SAFETY: as in `open`.
            self.owed -= unsafe { self.fill.enqueue(&mut self.umem, self.owed) };
        }
        count
    }

    /// Takes back the frames that the device has sent.
    fn reclaim(&mut self) {
        self.in_flight -= self.completion.dequeue(&mut self.umem, self.in_flight);
    }

    /// Gives the frames to the device; returns how many it took.
    fn transmit(&mut self, frames: &[Packet]) -> io::Result<usize> {
        self.reclaim();
        let mut taken = 0;
        for frame in frames {
            if self.in_flight + self.slab.len() >= RING as usize {
                break;
            }
            // SAFETY: the packet goes to the ring or back to the memory before `self.umem` can go.
            let Some(mut packet) = (unsafe { self.umem.alloc() }) else { break };
            if packet.append(frame.data()).is_err() {
                // Larger than the frame's memory: the device's MTU was raised after it was opened.
                self.umem.free_packet(packet);
                continue;
            }
            if let Some(packet) = self.slab.push_front(packet) {
                self.umem.free_packet(packet);
                break;
            }
            taken += 1;
        }
        // SAFETY: as in `open`.
        let queued = unsafe { self.tx.send(&mut self.slab) };
        while let Some(packet) = self.slab.pop_back() {
            self.umem.free_packet(packet);
            taken -= 1;
        }
        self.in_flight += queued;
        self.kick(queued)?;
        self.reclaim();
        Ok(taken)
    }

    /// Has the kernel work off the TX ring.
    fn kick(&self, queued: usize) -> io::Result<()> {
        // One call more than full batches: what an earlier call has left behind.
        for _ in 0..=queued.div_ceil(KERNEL_BATCH) {
            // SAFETY: no memory is passed.
            let done = unsafe {
                libc::sendto(self.socket.raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
            };
            if done >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // More is left in the ring.
                Some(libc::EAGAIN | libc::EINTR | libc::EBUSY) => {}
                // No memory for now: the frames stay in the ring and go with the next call.
                Some(libc::ENOBUFS) => return Ok(()),
                _ => return Err(error),
            }
        }
        Ok(())
    }
}

/// A slab that takes only so many packets.
struct Window<'a> {
    slab: &'a mut HeapSlab,
    limit: usize,
}

impl Slab for Window<'_> {
    fn available(&self) -> usize {
        self.slab.available().min(self.limit.saturating_sub(self.slab.len()))
    }

    fn len(&self) -> usize {
        self.slab.len()
    }

    fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    fn push_front(&mut self, packet: xdp::Packet) -> Option<xdp::Packet> {
        self.slab.push_front(packet)
    }

    fn pop_back(&mut self) -> Option<xdp::Packet> {
        self.slab.pop_back()
    }
}

/// What the library was doing, and why it failed.
fn explain(error: SocketError) -> (&'static str, io::Error) {
    match error {
        SocketError::SocketCreation(error) => ("opening an AF_XDP socket", error),
        SocketError::SetSockOpt { inner, .. } => ("setting up an AF_XDP socket", inner),
        SocketError::GetSockOpt { inner, .. } => ("asking for the layout of AF_XDP rings", inner),
        SocketError::RingMap { inner, .. } => ("mapping AF_XDP rings", inner),
        SocketError::Bind(error) => ("binding an AF_XDP socket", error),
    }
}

impl AfXdpPort {
    /// The error that the device's loss has left on a socket.
    fn health(&self) -> Result<(), PortError> {
        for queue in &self.queues {
            let pending = sys::get_option(&queue.fd(), libc::SOL_SOCKET, libc::SO_ERROR, 0i32).unwrap_or(0);
            if pending != 0 {
                return Err(self.watch.failure("receiving", io::Error::from_raw_os_error(pending)));
            }
        }
        Ok(())
    }
}

impl Port for AfXdpPort {
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        let mut count = 0;
        for step in 0..self.queues.len() {
            let number = (self.turn + step) % self.queues.len();
            if let Some(queue) = self.queues.get_mut(number) {
                count += queue.receive(into, spare, max - count);
            }
            if count >= max {
                break;
            }
        }
        // The queue after the first one that was asked goes first next time, so that no queue starves.
        self.turn = (self.turn + 1) % self.queues.len().max(1);
        if count > 0 {
            self.empty = 0;
        } else {
            self.empty += 1;
            if self.empty >= HEALTH_INTERVAL {
                self.empty = 0;
                self.health()?;
            }
        }
        Ok(count)
    }

    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        let sent = self.queues.first_mut().map_or(Ok(0), |queue| queue.transmit(frames));
        spare.append(frames);
        sent.map_err(|error| self.watch.failure("sending", error))
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        self.waiter.as_ref().map(OwnedFd::as_fd).or_else(|| self.queues.first().map(Queue::fd))
    }

    fn driver(&self) -> &'static str {
        DRIVER
    }

    fn lost(&mut self) -> u64 {
        let statistics = self.queues.iter().filter_map(|queue| queue.socket.statistics().ok());
        statistics.map(|s| s.rx_dropped + s.rx_ring_full).sum()
    }
}
