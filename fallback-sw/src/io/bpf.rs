//! The XDP program of AF_XDP ports, loaded by the bpf(2) system call. Six instructions need no compiler and no loader:
//! `return bpf_redirect_map(&xskmap, ctx->rx_queue_index, XDP_PASS)`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

// linux/bpf.h
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_LINK_DETACH: i32 = 34;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_FUNC_REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;
/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;

/// How the kernel runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver (XDP_FLAGS_DRV_MODE).
    Native,
    /// In the network stack, on any device (XDP_FLAGS_SKB_MODE).
    Generic,
}

/// The map of AF_XDP sockets by receive queue.
#[derive(Debug)]
pub(super) struct SocketMap(OwnedFd);

/// The program on a device. The kernel takes it off when this is dropped, and when the process dies in whatever way.
#[derive(Debug)]
pub(super) struct Attached {
    link: OwnedFd,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Closing would be enough, but a child process that is between fork and exec holds the descriptor for a moment more.
        let attribute = number(&self.link);
        // SAFETY: the attribute of BPF_LINK_DETACH is the descriptor alone. An error means that the device is gone already.
        let _ = unsafe { bpf(BPF_LINK_DETACH, &attribute) };
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MapUpdate {
    map_fd: u32,
    _padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// One instruction: `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low, source in the high four bits.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// # Safety
/// `T` must be what the command takes, starting at the front of `union bpf_attr`, and its pointers valid for the call.
unsafe fn bpf<T>(command: i32, attribute: &T) -> io::Result<i64> {
    // SAFETY: the caller vouches for the attribute; the kernel reads `size_of::<T>()` octets of it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>() as libc::c_uint) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes the descriptor that a command has made.
fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it. bpf(2) sets close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

impl SocketMap {
    /// An empty map for this many queues.
    pub(super) fn new(queues: u32) -> io::Result<Self> {
        let attribute = MapCreate { map_type: BPF_MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: queues };
        // SAFETY: the attribute of BPF_MAP_CREATE, without pointers.
        unsafe { bpf(BPF_MAP_CREATE, &attribute) }.and_then(owned).map(Self)
    }

    /// Directs the queue's frames to the socket.
    pub(super) fn insert(&self, queue: u32, socket: &impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd().as_raw_fd();
        let attribute = MapUpdate {
            map_fd: number(&self.0),
            _padding: 0,
            key: std::ptr::from_ref(&queue) as u64,
            value: std::ptr::from_ref(&socket) as u64,
            flags: 0,
        };
        // SAFETY: the attribute of BPF_MAP_UPDATE_ELEM; key and value are live and of four octets, as the map was made.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attribute) }.map(|_| ())
    }

    /// Loads the program and puts it on the device.
    pub(super) fn attach(&self, device: i32, mode: Mode) -> io::Result<Attached> {
        let i = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
        let program = [
            // r2 = *(u32 *)(r1 + rx_queue_index): BPF_LDX | BPF_W | BPF_MEM
            i(0x61, 0x12, RX_QUEUE_INDEX, 0),
            // r1 = map: BPF_LD | BPF_DW | BPF_IMM with source BPF_PSEUDO_MAP_FD, two slots
            i(0x18, 0x11, 0, self.0.as_raw_fd()),
            i(0, 0, 0, 0),
            // r3 = XDP_PASS, for a queue without socket: BPF_ALU64 | BPF_MOV | BPF_K
            i(0xb7, 0x03, 0, XDP_PASS),
            // call bpf_redirect_map; exit with its result
            i(0x85, 0, 0, BPF_FUNC_REDIRECT_MAP),
            i(0x95, 0, 0, 0),
        ];
        let license = c"Apache-2.0";
        let attribute = ProgramLoad {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: 6,
            insns: program.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name: *b"sluicegate_rx\0\0\0",
            prog_ifindex: 0,
            expected_attach_type: BPF_XDP,
        };
        // SAFETY: the attribute of BPF_PROG_LOAD; program and licence outlive the call.
        let program = unsafe { bpf(BPF_PROG_LOAD, &attribute) }.and_then(owned)?;
        let flags = match mode {
            Mode::Generic => 1 << 1,
            Mode::Native => 1 << 2,
        };
        let attribute = LinkCreate {
            prog_fd: number(&program),
            target_ifindex: device.cast_unsigned(),
            attach_type: BPF_XDP,
            flags,
        };
        // SAFETY: the attribute of BPF_LINK_CREATE, without pointers.
        let link = unsafe { bpf(BPF_LINK_CREATE, &attribute) }.and_then(owned)?;
        Ok(Attached { link })
    }
}
