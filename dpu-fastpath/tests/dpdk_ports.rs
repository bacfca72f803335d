//! Ports of DPDK without a NIC: rings as wires, in ordinary memory.
#![allow(clippy::unwrap_used, clippy::panic, clippy::undocumented_unsafe_blocks, clippy::indexing_slicing)]

use std::{
    ffi::CString,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use dpdk_sys as sys;
use dpu_fastpath::{
    nic::NicPorts,
    port::{DpdkPorts, Eal, EalArgs, EalError, Memory, PortMap, UnknownEthdev, eal},
};
use fallback_sw::{
    io::{KernelPorts, OpenPorts as _, Port, PortError},
    node::runtime::{Config, Runtime},
    packet::{HEADROOM, NicNote, Packet},
};
use offload_rules::{
    VifId,
    forwarding::{Snapshot, Vif},
    lower::Meta,
};

const STATE: &str = r#"{
  "generation": 1, "node": "test",
  "vrfs": [{"id": 1, "name": "one"}],
  "vifs": [
    {"id": 1, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1, "addresses": ["10.0.1.1/24"]},
    {"id": 2, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1, "addresses": ["10.0.2.1/24"]}
  ],
  "nexthops": [
    {"id": 13, "vrf": 1, "resolve": {"oif": 1}},
    {"id": 14, "vrf": 1, "resolve": {"oif": 2}},
    {"id": 85, "vrf": 1, "encap": {"oif": 2, "encapData": "02:00:00:00:00:99 02:00:00:00:00:02 0800"}}
  ],
  "routes": [
    {"vrf": 1, "prefix": "10.0.1.0/24", "nexthop": 13},
    {"vrf": 1, "prefix": "10.0.2.0/24", "nexthop": 14},
    {"vrf": 1, "prefix": "10.9.0.0/16", "nexthop": 85}
  ]
}"#;

/// EAL, once for all tests of this program. They take turns: devices and threads are shared.
fn eal() -> (MutexGuard<'static, ()>, Arc<Eal>) {
    static EAL: OnceLock<Arc<Eal>> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let eal = EAL.get_or_init(|| {
        let vdevs = vec!["net_null0,size=100".to_owned()];
        let args = EalArgs { memory: Memory::Ordinary { mib: 1024 }, vdevs, ..EalArgs::default() };
        Arc::new(Eal::start(&args, &[]).unwrap())
    });
    (turn, Arc::clone(eal))
}

fn ring(name: &str) -> usize {
    let name = CString::new(name).unwrap();
    let ring = unsafe { sys::rte_ring_create(name.as_ptr(), 1024, -1, 0) };
    assert!(!ring.is_null());
    ring as usize
}

/// A device that receives from one ring and sends into another; its name at DPDK.
fn on_rings(name: &str, from: usize, to: usize) -> String {
    let (from, to) = (from as *mut sys::rte_ring, to as *mut sys::rte_ring);
    let id = CString::new(name).unwrap();
    let port = unsafe { sys::rte_eth_from_rings(id.as_ptr(), &raw const from, 1, &raw const to, 1, 0) };
    assert!(port >= 0, "{name}");
    format!("net_ring_{name}")
}

/// Two devices that are each other's wire.
fn wire(name: &str) -> (String, String) {
    let (there, back) = (ring(&format!("{name}-there")), ring(&format!("{name}-back")));
    (on_rings(&format!("{name}-a"), there, back), on_rings(&format!("{name}-b"), back, there))
}

/// A device whose frames come back to it, and its ring.
fn echo(name: &str) -> (String, *mut sys::rte_ring) {
    let ring = ring(name);
    (on_rings(name, ring, ring), ring as *mut sys::rte_ring)
}

fn map(device: &str, ethdev: &str) -> PortMap {
    PortMap { device: device.to_owned(), ethdev: ethdev.to_owned() }
}

fn vif(number: u32) -> Arc<Vif> {
    test_kit::snapshot(STATE).vif(test_kit::vif(number)).map(Arc::clone).unwrap()
}

/// The pool that an open device receives into, for frames of 1500 octets. The node never frees it.
#[derive(Clone, Copy)]
struct Mbufs(*mut sys::rte_mempool);

impl Mbufs {
    /// `None`: the device was never opened.
    fn of(ethdev: &str) -> Option<Self> {
        let name = CString::new(ethdev).unwrap();
        let mut port = 0;
        assert_eq!(unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) }, 0, "{ethdev}");
        let name = CString::new(format!("sg-{port}-{}", 2048 + HEADROOM)).unwrap();
        let pool = unsafe { sys::rte_mempool_lookup(name.as_ptr()) };
        (!pool.is_null()).then_some(Self(pool))
    }

    fn available(self) -> u32 {
        unsafe { sys::rte_mempool_avail_count(self.0) }
    }

    fn size(self) -> u32 {
        unsafe { (*self.0).size }
    }
}

/// One worker's port on a device.
struct Alone {
    port: Box<dyn Port>,
    mbufs: Mbufs,
    _ports: DpdkPorts,
}

fn open(eal: &Arc<Eal>, ethdev: &str) -> Alone {
    let mut ports = DpdkPorts::new(Arc::clone(eal), &[map("lan", ethdev)], Box::new(KernelPorts)).unwrap();
    let mut opened = ports.open(&vif(1), 1).unwrap();
    let mbufs = Mbufs::of(ethdev).unwrap();
    Alone { port: opened.ports.remove(0), mbufs, _ports: ports }
}

impl Alone {
    fn available(&self) -> u32 {
        self.mbufs.available()
    }

    fn send(&mut self, frame: &[u8]) -> usize {
        self.port.transmit(&mut vec![Packet::from_frame(frame)], &mut Vec::new()).unwrap()
    }

    fn receive(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        self.port.receive(&mut packets, &mut Vec::new(), 64).unwrap();
        packets
    }
}

fn sum(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A UDP packet without a checksum from the LAN, of this flow, with this payload.
fn frame(flow: u16, number: u32) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 1, 9, 10, 9, 0, 1];
    let header = !sum(&ip);
    ip[10..12].copy_from_slice(&header.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 8, 0];
    frame.extend(&ip);
    frame.extend(flow.to_be_bytes());
    frame.extend([0, 53, 0, 12, 0, 0]);
    frame.extend(number.to_be_bytes());
    frame
}

/// A node with two workers between two wires; `each` is done with the frames that come out.
fn forward(count: u32, workers: usize, mut each: impl FnMut(&[u8])) {
    let (_turn, eal) = eal();
    let (lan, lan_peer) = wire(&format!("lan{workers}"));
    let (wan, wan_peer) = wire(&format!("wan{workers}"));
    let (mut from, mut to) = (open(&eal, &lan_peer), open(&eal, &wan_peer));
    let ports = DpdkPorts::new(Arc::clone(&eal), &[map("lan", &lan), map("wan", &wan)], Box::new(KernelPorts)).unwrap();
    let started = NicPorts::new(false).expecting(2);
    let ports = ports.prepared_by(Box::new(started.clone()));
    let config = Config {
        workers,
        ports: Box::new(ports),
        on_worker_start: Some(Arc::new(|_| eal::register_thread())),
        ..Config::default()
    };
    let runtime = Runtime::start(config, Snapshot::clone(&test_kit::snapshot(STATE))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    started.wait(Duration::from_secs(30));
    assert!([1, 2].iter().all(|number| started.has(test_kit::vif(*number))), "ports are not open");
    let pools = [&lan, &wan].map(|ethdev| Mbufs::of(ethdev).unwrap());

    let (mut sent, mut received) = (0, 0);
    while received < count {
        assert!(Instant::now() < deadline, "{received} of {sent} frames came out");
        // A wire of 1024 frames, and as many in the node.
        while sent < count && sent - received < 512 {
            sent += u32::try_from(from.send(&frame((sent % 300) as u16 + 1000, sent))).unwrap();
        }
        for packet in to.receive() {
            received += 1;
            each(packet.data());
        }
        std::thread::yield_now();
    }
    runtime.stop();
    for pool in pools.into_iter().chain([from.mbufs, to.mbufs]) {
        assert_eq!(pool.available(), pool.size(), "mbufs are missing");
    }
}

#[test]
fn a_node_forwards_over_rings_and_every_mbuf_comes_back() {
    let mut numbers = Vec::new();
    forward(5000, 1, |frame| {
        assert_eq!(frame[..14], [2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 2, 8, 0]);
        assert_eq!(frame[22], 63, "TTL");
        assert_eq!(sum(&frame[14..34]), 0xffff, "header checksum");
        numbers.push(u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]));
    });
    // One worker keeps the order of all flows.
    assert_eq!(numbers, (0..5000).collect::<Vec<_>>());
}

#[test]
fn two_workers_share_a_device_with_one_queue() {
    let mut flows = vec![Vec::new(); 300];
    forward(5000, 2, |frame| {
        assert_eq!(frame[22], 63, "TTL");
        let flow = u16::from_be_bytes([frame[34], frame[35]]);
        flows[usize::from(flow) - 1000].push(u32::from_be_bytes([frame[42], frame[43], frame[44], frame[45]]));
    });
    assert_eq!(flows.iter().map(Vec::len).sum::<usize>(), 5000);
    assert!(flows.iter().all(|numbers| numbers.is_sorted()), "a flow was reordered");
}

#[test]
fn what_is_sent_is_the_very_mbuf_that_was_received() {
    let (_turn, eal) = eal();
    let mut alone = open(&eal, &echo("same").0);
    let all = alone.available();
    assert_eq!(alone.send(b"some frame of the node's own memory"), 1);
    for round in 0..10 {
        let mut packets = alone.receive();
        assert_eq!(packets.len(), 1, "{round}");
        assert_eq!(alone.available(), all - 1, "no mbuf was added");
        packets[0].advance(1);
        packets[0].prepend(1).unwrap().copy_from_slice(b"S");
        let mut spare = Vec::new();
        assert_eq!(alone.port.transmit(&mut packets, &mut spare).unwrap(), 1);
        assert!(packets.is_empty() && spare.is_empty());
    }
    assert_eq!(alone.receive()[0].data(), b"Some frame of the node's own memory");
    assert_eq!(alone.available(), all);
}

#[test]
fn mbufs_among_the_packets_for_reuse_go_back_to_their_pool() {
    let (_turn, eal) = eal();
    let mut alone = open(&eal, &echo("tidy").0);
    let all = alone.available();
    let mut spare: Vec<_> = (0..300).map(|_| Packet::from_frame(b"own")).collect();
    for _ in 0..300 {
        alone.send(b"frame");
        let mut packets = alone.receive();
        // Where the last packets are another's, mbufs lie below them.
        spare.push(packets.remove(0));
        spare.push(Packet::from_frame(b"own"));
    }
    assert_eq!(alone.available(), all - 300);
    alone.port.receive(&mut Vec::new(), &mut spare, 64).unwrap();
    assert_eq!((alone.available(), spare.len()), (all, 600));
}

#[test]
fn a_frame_too_large_or_without_room_is_not_sent_and_leaks_nothing() {
    let (_turn, eal) = eal();
    let mut alone = open(&eal, &echo("full").0);
    let all = alone.available();
    assert_eq!(alone.send(&[0; 9000]), 0);
    let mut frames: Vec<_> = (0..1100).map(|_| Packet::from_frame(b"frame")).collect();
    let mut spare = Vec::new();
    let sent = alone.port.transmit(&mut frames, &mut spare).unwrap();
    assert_eq!((sent, spare.len(), frames.len()), (1023, 1100, 0));
    assert_eq!(alone.available(), all - 1023);
    while !alone.receive().is_empty() {}
    assert_eq!(alone.available(), all);
}

/// An mbuf as a driver would fill it.
fn mbuf(content: &[u8]) -> *mut sys::rte_mbuf {
    let name = c"test-mbufs";
    unsafe {
        let mut pool = sys::rte_mempool_lookup(name.as_ptr());
        if pool.is_null() {
            pool = sys::rte_pktmbuf_pool_create(name.as_ptr(), 255, 0, 0, 2176, -1);
        }
        let mbuf = sys::rte_pktmbuf_alloc(pool);
        let room = sys::rte_pktmbuf_append(mbuf, content.len() as u16);
        std::ptr::copy_nonoverlapping(content.as_ptr(), room.cast(), content.len());
        mbuf
    }
}

fn put(ring: *mut sys::rte_ring, mbuf: *mut sys::rte_mbuf) {
    let object = mbuf.cast();
    assert_eq!(unsafe { sys::rte_ring_enqueue_burst(ring, &raw const object, 1, std::ptr::null_mut()) }, 1);
}

#[test]
fn the_nics_mark_comes_with_the_packet() {
    let (_turn, eal) = eal();
    let (name, ring) = echo("mark");
    let mut alone = open(&eal, &name);
    for (flags, expected) in [
        (u64::from(sys::RTE_MBUF_F_RX_FDIR) | u64::from(sys::RTE_MBUF_F_RX_FDIR_ID), Some(0x00ab_cdef)),
        (u64::from(sys::RTE_MBUF_F_RX_FDIR), None),
        (0, None),
    ] {
        let mbuf = mbuf(b"frame");
        unsafe {
            (*mbuf).ol_flags = flags;
            sys::rte_mbuf_mark_set(mbuf, 0x00ab_cdef);
        }
        put(ring, mbuf);
        let packets = alone.receive();
        assert_eq!(packets[0].mark(), expected);
        assert_eq!(packets[0].data(), b"frame");
    }
}

#[test]
fn what_the_nic_has_done_about_ipsec_comes_with_the_packet() {
    let (_turn, eal) = eal();
    let (name, ring) = echo("note");
    let mut alone = open(&eal, &name);
    let tunnel = VifId::new(4111).unwrap();
    let metadata = unsafe { sys::rte_flow_dynf_metadata_mask };
    assert_ne!(metadata, 0, "EAL has made room for it");
    let (opened, failed) =
        (u64::from(sys::RTE_MBUF_F_RX_SEC_OFFLOAD), u64::from(sys::RTE_MBUF_F_RX_SEC_OFFLOAD_FAILED));
    for (flags, meta, expected) in [
        (0, Meta::Opened(tunnel).bits(), NicNote::None),
        (metadata, Meta::ToSeal(tunnel).bits(), NicNote::ToSeal(tunnel)),
        (metadata | opened, Meta::Opened(tunnel).bits(), NicNote::Opened(tunnel)),
        (metadata, 4111, NicNote::None),
        (opened, Meta::Opened(tunnel).bits(), NicNote::Deciphered),
        (opened | failed | metadata, Meta::Opened(tunnel).bits(), NicNote::Refused),
    ] {
        let mbuf = mbuf(b"frame");
        unsafe {
            (*mbuf).ol_flags = flags;
            sys::rte_flow_dynf_metadata_set(mbuf, meta);
        }
        put(ring, mbuf);
        assert_eq!(alone.receive()[0].note(), expected, "{flags:#x} {meta:#x}");
    }
}

#[test]
fn a_frame_that_the_device_cannot_seal_is_never_sent_in_clear() {
    let (_turn, eal) = eal();
    let mut alone = open(&eal, &echo("clear").0);
    let all = alone.available();
    alone.send(b"from the device");
    let (mut own, mut mbuf) = (Packet::from_frame(&frame(1, 1)), alone.receive().remove(0));
    own.set_note(NicNote::Session(0));
    mbuf.set_note(NicNote::Session(77));
    let mut frames = vec![own, mbuf, Packet::from_frame(b"plain")];
    assert_eq!(alone.port.transmit(&mut frames, &mut Vec::new()).unwrap(), 1);
    let packets = alone.receive();
    assert_eq!(packets.iter().map(Packet::data).collect::<Vec<_>>(), [b"plain"]);
    drop(packets);
    assert_eq!(alone.available(), all);
}

#[test]
fn a_tag_that_the_driver_took_out_is_back_in_the_frame() {
    let (_turn, eal) = eal();
    let (name, ring) = echo("tag");
    let mut alone = open(&eal, &name);
    let mbuf = mbuf(b"destinsource\x08\x00rest");
    unsafe {
        (*mbuf).ol_flags = u64::from(sys::RTE_MBUF_F_RX_VLAN) | u64::from(sys::RTE_MBUF_F_RX_VLAN_STRIPPED);
        sys::rte_mbuf_vlan_tci_set(mbuf, 0x6064);
    }
    put(ring, mbuf);
    assert_eq!(alone.receive()[0].data(), b"destinsource\x81\x00\x60\x64\x08\x00rest");
}

#[test]
fn a_frame_in_pieces_is_made_whole_or_counted_as_lost() {
    let (_turn, eal) = eal();
    let (name, ring) = echo("pieces");
    let mut alone = open(&eal, &name);
    let chain = |first: &[u8], second: &[u8]| {
        let (one, two) = (mbuf(first), mbuf(second));
        unsafe {
            assert_eq!(sys::rte_pktmbuf_chain(one, two), 0);
        }
        one
    };
    let (fits, too_long) = (chain(b"one ", b"frame"), chain(&[1; 2000], &[2; 2000]));
    put(ring, fits);
    put(ring, too_long);
    let packets = alone.receive();
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].data(), b"one frame");
    assert_eq!(alone.port.lost(), 1);
    drop(packets);
    let pool = unsafe { sys::rte_mempool_lookup(c"test-mbufs".as_ptr()) };
    assert_eq!(unsafe { sys::rte_mempool_in_use_count(pool) }, 0);
}

#[test]
fn an_mbuf_that_somebody_else_has_as_well_is_copied() {
    let (_turn, eal) = eal();
    let (name, ring) = echo("shared");
    let mut alone = open(&eal, &name);
    let shared = mbuf(b"frame");
    unsafe { sys::rte_mbuf_refcnt_update(shared, 1) };
    put(ring, shared);
    let mut packets = alone.receive();
    packets[0].data_mut().fill(0);
    let other = unsafe { std::slice::from_raw_parts(sys::rte_pktmbuf_mtod(shared).cast::<u8>(), 5) };
    assert_eq!(other, b"frame");
    assert_eq!(unsafe { sys::rte_mbuf_refcnt_read(shared) }, 1);
    unsafe { sys::rte_pktmbuf_free(shared) };
}

#[test]
fn packets_that_wait_do_not_take_the_devices_last_memory() {
    let (_turn, eal) = eal();
    let mut alone = open(&eal, "net_null0");
    let all = alone.available();
    let mut waiting = Vec::new();
    while waiting.len() < 2 * all as usize {
        let before = waiting.len();
        alone.port.receive(&mut waiting, &mut Vec::new(), 64).unwrap();
        assert!(waiting.len() > before, "the device starves at {before} packets, {} mbufs left", alone.available());
    }
    assert!(alone.available() > all / 4);
    assert!(waiting.iter().all(|packet| packet.len() == 100));
    drop(waiting);
    assert_eq!(alone.available(), all);
}

#[test]
fn a_device_is_opened_again_once_its_last_port_is_dropped() {
    let (_turn, eal) = eal();
    let name = echo("again").0;
    let mut ports = DpdkPorts::new(Arc::clone(&eal), &[map("lan", &name)], Box::new(KernelPorts)).unwrap();
    let first = ports.open(&vif(1), 2).unwrap();
    assert_eq!((first.ports.len(), first.chosen.driver), (2, "net_ring"));
    assert!(first.device.operational);
    assert_eq!(ports.look("lan").unwrap().index, first.device.index);
    // One worker has the only queue: it polls, the other waits.
    let polls: Vec<_> = first.ports.iter().map(|port| port.polls()).collect();
    assert_eq!(polls, [true, false]);
    assert!(matches!(ports.open(&vif(1), 1), Err(PortError::Os { .. })));
    drop(first);
    assert!(matches!(ports.look("lan"), Err(PortError::NoDevice { .. })));
    let second = ports.open(&vif(1), 1).unwrap();
    assert_eq!(ports.look("lan").unwrap().index, second.device.index);
}

#[test]
fn devices_that_are_not_mapped_are_the_kernels() {
    let (_turn, eal) = eal();
    let mut ports = DpdkPorts::new(Arc::clone(&eal), &[map("lan", "net_null0")], Box::new(KernelPorts)).unwrap();
    assert!(matches!(ports.look("no-such-device"), Err(PortError::NoDevice { device }) if device == "no-such-device"));
}

#[test]
fn a_mapping_to_no_device_or_to_one_twice_is_refused() {
    let (_turn, eal) = eal();
    let refused = |map: &[PortMap]| DpdkPorts::new(Arc::clone(&eal), map, Box::new(KernelPorts)).err().unwrap();
    let text = refused(&[map("lan", "net_nul0")]).to_string();
    assert!(text.starts_with("DPDK has no Ethernet device 'net_nul0' for 'lan'; it has net_null0"), "{text}");
    let twice = refused(&[map("lan", "net_null0"), map("wan", "net_null0")]);
    assert_eq!(twice, UnknownEthdev::Twice { name: "net_null0".to_owned() });
}

#[test]
fn dpdk_is_started_once() {
    let (_turn, _eal) = eal();
    assert!(matches!(Eal::start(&EalArgs::default(), &[]), Err(EalError::Again)));
}
