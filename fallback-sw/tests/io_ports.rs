//! Ports on real devices: veth pairs and TAPs in network namespaces of their own, which end with the test.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails is a test that fails")]

use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use fallback_sw::{
    io::{
        Port, PortError, af_packet, af_xdp,
        device::{Device, Link},
        open, tap,
    },
    packet::Packet,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, setns, unshare},
    unistd::geteuid,
};
use offload_rules::{
    VifId, VrfId,
    forwarding::{IoDriver, PortConfig, Vif, VifFlags, VifKind},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A network namespace without a name: it ends with the last thread and descriptor that uses it.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self(made.join().unwrap());
        namespace.run(|| ip("link set lo up"));
        namespace
    }

    /// Runs on a thread of the namespace.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Something that `ip link set netns` takes.
    fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn ip(arguments: &str) {
    command("ip", arguments);
}

fn command(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The node's namespace with `left` and `right`, each the other end of an `eth0` in a host's namespace.
struct Lab {
    node: Namespace,
    left: Namespace,
    right: Namespace,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { node: Namespace::new(), left: Namespace::new(), right: Namespace::new() };
        for (name, host, address) in [("left", &lab.left, "192.0.2.1/24"), ("right", &lab.right, "192.0.2.2/24")] {
            lab.node.run(|| {
                ip(&format!("link add {name} type veth peer name eth0 netns {}", host.path()));
                quiet(name);
                ip(&format!("link set {name} up"));
            });
            host.run(|| {
                quiet("eth0");
                ip(&format!("addr add {address} dev eth0"));
                ip("link set eth0 up");
            });
        }
        lab
    }
}

/// No frames of the stack's own: no IPv6 address, no neighbour discovery.
fn quiet(device: &str) {
    let path = format!("/proc/thread-self/net/../../../sys/net/ipv6/conf/{device}/disable_ipv6");
    let global = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    let _ = std::fs::write(path, "1").or_else(|_| std::fs::write(global, "1"));
    ip(&format!("link set {device} addrgenmode none"));
}

/// Tests need root; without it they say so.
fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        // A handle instead of `eprintln!`: the harness captures only the macros.
        let _ = writeln!(std::io::stderr(), "SKIPPED: needs root");
    }
    root
}

/// Receives until `wanted` says it has what it waits for; the deadline is a failure.
fn receive_until(port: &mut dyn Port, mut wanted: impl FnMut(&[Packet]) -> bool) -> Vec<Packet> {
    let (mut frames, mut spare) = (Vec::new(), Vec::new());
    let start = Instant::now();
    while !wanted(&frames) {
        assert!(
            start.elapsed() < DEADLINE,
            "{}: got {} frames, none of them the right one",
            port.driver(),
            frames.len()
        );
        if port.receive(&mut frames, &mut spare, 32).unwrap() == 0 {
            let fd = port.readiness().unwrap();
            poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(100u16)).unwrap();
        }
    }
    frames
}

fn send(port: &mut dyn Port, frames: &[Vec<u8>]) {
    let mut packets: Vec<_> = frames.iter().map(|frame| Packet::from_frame(frame)).collect();
    let mut spare = Vec::new();
    assert_eq!(port.transmit(&mut packets, &mut spare).unwrap(), frames.len());
    assert!(packets.is_empty());
    assert_eq!(spare.len(), frames.len());
}

/// A frame of an experimental EtherType (RFC 9542 §2.1) with a number in it.
fn frame(number: usize, tags: &[u8], len: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0x22, 0x02, 0, 0, 0, 0, 0x11];
    frame.extend_from_slice(tags);
    frame.extend_from_slice(&[0x88, 0xb5]);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(len.max(60), 0xa5);
    frame
}

fn numbered(packet: &Packet) -> bool {
    packet.data().windows(2).take(24).skip(12).any(|pair| pair == [0x88, 0xb5])
}

fn numbered_frames(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().filter(|packet| numbered(packet)).map(|packet| packet.data().to_vec()).collect()
}

/// One port of the driver on each end of a veth; every frame that goes in comes out, unchanged and in order, both ways.
fn both_ways(open: impl Fn(&str) -> Box<dyn Port> + Sync, sizes: &[usize]) {
    let lab = Lab::new();
    let tags: [&[u8]; 4] =
        [&[], &[0x81, 0, 0x60, 5], &[0x88, 0xa8, 0, 7, 0x81, 0, 0x20, 9], &[0x81, 0, 0, 7, 0x81, 0, 0x2f, 0xff]];
    let sent: Vec<_> = (0..400).map(|n| frame(n, tags[n % tags.len()], sizes[n % sizes.len()])).collect();
    let (mut near, mut far) = (lab.node.run(|| open("left")), lab.left.run(|| open("eth0")));
    for _ in 0..2 {
        for batch in sent.chunks(50) {
            send(near.as_mut(), batch);
            let got = receive_until(far.as_mut(), |got| numbered_frames(got).len() >= batch.len());
            assert!(numbered_frames(&got) == batch, "{}: frames differ", far.driver());
        }
        std::mem::swap(&mut near, &mut far);
    }
    assert_eq!((near.lost(), far.lost()), (0, 0));
    // Nobody sees what it has sent itself.
    let (mut echo, mut spare) = (Vec::new(), Vec::new());
    while near.receive(&mut echo, &mut spare, 32).unwrap() > 0 {}
    assert_eq!(numbered_frames(&echo).len(), 0);
}

fn one(mut ports: Vec<Box<dyn Port>>) -> Box<dyn Port> {
    assert_eq!(ports.len(), 1);
    ports.remove(0)
}

#[test]
fn af_packet_carries_frames_and_their_tags_both_ways() {
    if is_root() {
        both_ways(|device| one(af_packet::open(device, 1).unwrap()), &[60, 61, 590, 1500]);
    }
}

#[test]
fn af_xdp_carries_frames_and_their_tags_both_ways() {
    if is_root() {
        let open = |device: &str| {
            let (ports, mode) = af_xdp::open(device, 1).unwrap();
            assert_eq!(mode, af_xdp::Mode::Native, "veth has native XDP");
            one(ports)
        };
        both_ways(open, &[60, 61, 590, 1500]);
    }
}

#[test]
fn af_packet_carries_jumbo_frames() {
    if is_root() {
        let lab = Lab::new();
        lab.node.run(|| ip("link set left mtu 9216"));
        lab.left.run(|| ip("link set eth0 mtu 9216"));
        let open = |device: &str| one(af_packet::open(device, 1).unwrap());
        let (mut near, mut far) = (lab.node.run(|| open("left")), lab.left.run(|| open("eth0")));
        let sent = [frame(1, &[], 9230), frame(2, &[0x81, 0, 0, 9], 9234)];
        send(near.as_mut(), &sent);
        let got = receive_until(far.as_mut(), |got| numbered_frames(got).len() >= 2);
        assert!(numbered_frames(&got) == sent);
    }
}

#[test]
fn workers_of_a_fanout_share_the_frames_of_a_device() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let mut near = lab.node.run(|| one(af_packet::open("left", 1).unwrap()));
    let mut far = lab.left.run(|| af_packet::open("eth0", 2).unwrap());
    assert_eq!(far.len(), 2);
    let sent: Vec<_> = (0u16..200).map(|flow| udp_frame(1024 + flow)).collect();
    let mut got = vec![Vec::new(), Vec::new()];
    for batch in sent.chunks(50) {
        send(near.as_mut(), batch);
    }
    let (start, mut spare) = (Instant::now(), Vec::new());
    while got.iter().map(Vec::len).sum::<usize>() < sent.len() {
        assert!(start.elapsed() < DEADLINE, "some frames came to no worker");
        for (port, got) in far.iter_mut().zip(&mut got) {
            port.receive(got, &mut spare, 32).unwrap();
        }
    }
    let mut all: Vec<_> = got.iter().flatten().map(|packet| packet.data().to_vec()).collect();
    all.sort();
    let mut expected = sent;
    expected.sort();
    assert!(all == expected, "each frame comes to exactly one worker");
    assert!(got.iter().all(|frames| frames.len() > 20), "both workers get work");
}

fn udp_frame(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    builder.ipv4([198, 51, 100, 1], [198, 51, 100, 2], 64).udp(port, 9).write(&mut frame, &[7; 40]).unwrap();
    frame
}

/// Forwards between two ports until `done`; returns all TCP and UDP frames that passed.
fn forward(ports: [Box<dyn Port>; 2], done: &std::sync::atomic::AtomicBool) -> Vec<Vec<u8>> {
    let [mut a, mut b] = ports;
    let (mut frames, mut spare, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    while !done.load(std::sync::atomic::Ordering::Relaxed) {
        for _ in 0..2 {
            a.receive(&mut frames, &mut spare, 64).unwrap();
            seen.extend(frames.iter().filter(|p| p.data().get(12..14) == Some(&[8, 0])).map(|p| p.data().to_vec()));
            b.transmit(&mut frames, &mut spare).unwrap();
            std::mem::swap(&mut a, &mut b);
        }
    }
    assert_eq!((a.lost(), b.lost()), (0, 0));
    seen
}

/// A TCP connection through the node, with every offload of the hosts' stacks on: what passes is whole.
#[test]
fn super_frames_and_partial_checksums_come_out_as_valid_segments() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    for host in [&lab.left, &lab.right] {
        host.run(|| command("ethtool", "-K eth0 tx on tso on gso on"));
    }
    let ports = lab.node.run(|| ["left", "right"].map(|device| one(af_packet::open(device, 1).unwrap())));
    let done = std::sync::atomic::AtomicBool::new(false);
    let payload: Vec<u8> = (0..2_000_000u32).map(|n| (n >> 3) as u8).collect();
    let listener = lab.right.run(|| TcpListener::bind("192.0.2.2:80").unwrap());
    let seen = thread::scope(|scope| {
        let forwarder = scope.spawn(|| forward(ports, &done));
        let server = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            got
        });
        lab.left.run(|| {
            let mut client = TcpStream::connect_timeout(&"192.0.2.2:80".parse().unwrap(), DEADLINE).unwrap();
            client.write_all(&payload).unwrap();
        });
        assert!(server.join().unwrap() == payload, "what arrives is what was sent");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        forwarder.join().unwrap()
    });
    let mut full = 0;
    for frame in &seen {
        assert!(frame.len() <= 1514, "a frame of {} octets is larger than the MTU", frame.len());
        let parsed = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Tcp(tcp))) = (&parsed.net, &parsed.transport) else {
            continue;
        };
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(ip, parsed.payload.slice()).unwrap());
        full += usize::from(frame.len() == 1514);
    }
    assert!(full > 1000, "the stream passes as full segments, {full} of them");
}

#[test]
fn a_tap_is_the_hosts_device_until_it_is_dropped() {
    if !is_root() {
        return;
    }
    let host = Namespace::new();
    let mut ports = host.run(|| tap::open("tap0", Link::Ethernet, 1400, 1).unwrap());
    let device = host.run(|| Device::read("tap0").unwrap());
    assert!(device.up && device.mtu == 1400 && device.mac.is_some());
    host.run(|| {
        quiet("tap0");
        ip("addr add 192.0.2.1/24 dev tap0");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev tap0");
        let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
        socket.send_to(b"to the node", "192.0.2.2:9").unwrap();
    });
    let port = ports[0].as_mut();
    let udp = |packets: &[Packet]| packets.iter().position(|p| p.data().ends_with(b"to the node"));
    let got = receive_until(port, |got| udp(got).is_some());
    let request = got[udp(&got).unwrap()].data().to_vec();

    // The answer: addresses and ports swapped. Both checksums stay the same.
    let socket = host.run(|| std::net::UdpSocket::bind("192.0.2.1:9").unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reply = request.clone();
    reply[..6].copy_from_slice(&device.mac.unwrap().0);
    reply[6..12].copy_from_slice(&request[..6]);
    for (a, b, len) in [(26, 30, 4), (34, 36, 2)] {
        reply[a..a + len].copy_from_slice(&request[b..b + len]);
        reply[b..b + len].copy_from_slice(&request[a..a + len]);
    }
    // The request's destination port is where the host listens.
    reply[34..36].copy_from_slice(&request[34..36]);
    reply[36..38].copy_from_slice(&request[36..38]);
    send(port, &[reply]);
    let mut buffer = [0; 64];
    let (len, _) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"to the node");

    drop(ports);
    // Another test's child process may hold the descriptor until it calls exec.
    let error = error_of(|| host.run(|| Device::read("tap0")).map(|_| 0));
    assert!(matches!(error, PortError::NoDevice { .. }));
}

#[test]
fn a_tap_has_a_queue_for_each_worker_and_says_when_its_name_is_taken() {
    if !is_root() {
        return;
    }
    let host = Namespace::new();
    host.run(|| {
        let ports = tap::open("tap0", Link::Ethernet, 1500, 3).unwrap();
        assert_eq!(ports.len(), 3);
        assert!(matches!(tap::open("tap0", Link::Ethernet, 1500, 1), Err(PortError::NameTaken { .. })));
        ip("link add v0 type veth peer name v1");
        assert!(matches!(tap::open("v0", Link::Ethernet, 1500, 1), Err(PortError::NameTaken { .. })));
        let tun = tap::open("tun0", Link::RawIp, 1500, 1).unwrap();
        assert_eq!(Device::read("tun0").unwrap().link, Link::RawIp);
        drop(tun);
    });
}

#[test]
fn a_name_that_is_no_name_is_refused() {
    for name in ["", "0123456789abcdef", "a/b", "a b", "..", "eth0:1"] {
        assert!(matches!(af_packet::open(name, 1), Err(PortError::BadName { .. })), "{name:?}");
    }
    assert!(matches!(af_packet::open("no-such-dev", 1), Err(PortError::NoDevice { .. })));
    assert!(matches!(af_xdp::open("no-such-dev", 1), Err(PortError::NoDevice { .. })));
}

/// Calls the port, waiting as a worker does, until it fails.
fn error_of(mut call: impl FnMut() -> Result<usize, PortError>) -> PortError {
    let start = Instant::now();
    loop {
        match call() {
            Ok(_) => assert!(start.elapsed() < DEADLINE, "no error although the device is lost"),
            Err(error) => return error,
        }
    }
}

/// What a port says when its device is set down, and when it is deleted.
fn loss_of_device(open: impl Fn(&str) -> Box<dyn Port> + Sync) {
    let lab = Lab::new();
    let mut port = lab.node.run(|| open("left"));
    let (mut frames, mut spare) = (Vec::new(), Vec::new());
    lab.node.run(|| ip("link set left down"));
    let error = error_of(|| port.transmit(&mut vec![Packet::from_frame(&frame(1, &[], 60))], &mut spare));
    assert!(matches!(error, PortError::Down { .. }) && !error.is_fatal(), "{error}");

    // It comes back, and the port goes on.
    lab.node.run(|| ip("link set left up"));
    let mut far = lab.left.run(|| one(af_packet::open("eth0", 1).unwrap()));
    let start = Instant::now();
    while numbered_frames(&frames).is_empty() {
        assert!(start.elapsed() < DEADLINE, "the port does not recover");
        let _ = far.transmit(&mut vec![Packet::from_frame(&frame(2, &[], 60))], &mut spare);
        match port.receive(&mut frames, &mut spare, 8) {
            Ok(_) | Err(PortError::Down { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    lab.node.run(|| ip("link del left"));
    let error = error_of(|| port.receive(&mut frames, &mut spare, 8));
    assert!(matches!(error, PortError::NoDevice { .. }) && error.is_fatal(), "receiving: {error}");
    let error = error_of(|| port.transmit(&mut vec![Packet::from_frame(&frame(1, &[], 60))], &mut spare));
    assert!(matches!(error, PortError::NoDevice { .. }), "sending: {error}");
}

#[test]
fn af_packet_says_when_its_device_is_down_or_gone() {
    if is_root() {
        loss_of_device(|device| one(af_packet::open(device, 1).unwrap()));
    }
}

#[test]
fn af_xdp_says_when_its_device_is_down_or_gone() {
    if is_root() {
        loss_of_device(|device| one(af_xdp::open(device, 1).unwrap().0));
    }
}

#[test]
fn a_tap_says_when_it_is_down_or_gone() {
    if !is_root() {
        return;
    }
    let host = Namespace::new();
    let mut port = host.run(|| one(tap::open("tap0", Link::Ethernet, 1500, 1).unwrap()));
    let (mut frames, mut spare) = (Vec::new(), Vec::new());
    host.run(|| ip("link set tap0 down"));
    let error = error_of(|| port.transmit(&mut vec![Packet::from_frame(&frame(1, &[], 60))], &mut spare));
    assert!(matches!(error, PortError::Down { .. }), "{error}");
    host.run(|| ip("link del tap0"));
    let error = error_of(|| port.receive(&mut frames, &mut spare, 8));
    assert!(matches!(error, PortError::NoDevice { .. }), "{error}");
}

#[test]
fn af_xdp_is_refused_with_a_way_out() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.node.run(|| {
        let why = |result: Result<(Vec<Box<dyn Port>>, af_xdp::Mode), PortError>| match result {
            Err(PortError::Unsupported { why, .. }) => why,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened"),
        };
        assert!(why(af_xdp::open("left", 64)).contains("ethtool -L left combined 64"));
        let (first, _) = af_xdp::open("left", 1).unwrap();
        assert!(why(af_xdp::open("left", 1)).contains("ip link set left xdp off"));
        // The program leaves the device with the last port.
        drop(first);
        drop(af_xdp::open("left", 1).unwrap());
        ip("link set left mtu 9000");
        assert!(why(af_xdp::open("left", 1)).contains("MTU"));
    });
}

fn vif(kind: VifKind) -> Vif {
    Vif {
        id: VifId::new(1).unwrap(),
        name: "vif0/1".to_owned(),
        kind,
        mac: None,
        vrf: VrfId::new(1).unwrap(),
        addresses: Vec::new(),
        mtu: 1500,
        enc_mss: 0,
        flags: VifFlags::default(),
        nexthop: None,
        ingress_acls: Vec::new(),
        egress_acls: Vec::new(),
        service_acls: Vec::new(),
        nat_pool: Vec::new(),
        vn: 0,
    }
}

#[test]
fn the_driver_is_chosen_by_device_and_kind_and_the_reason_is_told() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.node.run(|| {
        let port = |device: &str, driver| PortConfig { device: device.to_owned(), driver };
        let chosen = |kind| open(&vif(kind), 1).map(|opened| (opened.chosen.driver, opened.chosen.reason));
        let (driver, reason) = chosen(VifKind::Physical { port: port("left", IoDriver::Auto) }).unwrap();
        assert_eq!(driver, "net_af_packet");
        assert!(reason.contains("'veth' is beside a network stack"), "{reason}");
        let (driver, reason) = chosen(VifKind::Physical { port: port("left", IoDriver::AfXdp) }).unwrap();
        assert_eq!((driver, reason.as_str()), ("net_af_xdp", "asked for; native mode"));
        let (driver, _) = chosen(VifKind::Host { port: port("host0", IoDriver::Auto) }).unwrap();
        assert_eq!(driver, "net_tap");
        let (driver, _) = chosen(VifKind::Host { port: port("left", IoDriver::Auto) }).unwrap();
        assert_eq!(driver, "net_af_packet");
        let missing = chosen(VifKind::Physical { port: port("none0", IoDriver::Auto) });
        assert!(matches!(missing, Err(PortError::NoDevice { .. })));
    });
}

/// Why `Auto` does not choose AF_XDP on a veth: XDP hands over what the other stack has left to an offload.
#[test]
fn on_a_veth_af_packet_completes_the_checksums_that_af_xdp_cannot_see() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.left.run(|| {
        command("ethtool", "-K eth0 tx on");
        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0");
    });
    let checksum_is_right = |port: &mut dyn Port| {
        lab.left.run(|| {
            let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
            socket.send_to(b"some datagram", "192.0.2.9:9").unwrap();
        });
        let datagram = |packets: &[Packet]| packets.iter().position(|p| p.data().ends_with(b"some datagram"));
        let got = receive_until(port, |got| datagram(got).is_some());
        let parsed = PacketHeaders::from_ethernet_slice(got[datagram(&got).unwrap()].data()).unwrap();
        let (Some(NetHeaders::Ipv4(ip, _)), Some(TransportHeader::Udp(udp))) = (&parsed.net, &parsed.transport) else {
            panic!("not UDP over IPv4")
        };
        udp.checksum == udp.calc_checksum_ipv4(ip, parsed.payload.slice()).unwrap()
    };
    let mut port = lab.node.run(|| one(af_packet::open("left", 1).unwrap()));
    assert!(checksum_is_right(port.as_mut()), "AF_PACKET");
    drop(port);
    let mut port = lab.node.run(|| one(af_xdp::open("left", 1).unwrap().0));
    assert!(!checksum_is_right(port.as_mut()), "AF_XDP on a veth gets whole frames: `Auto` may choose it now");
    lab.left.run(|| command("ethtool", "-K eth0 tx off"));
    assert!(checksum_is_right(port.as_mut()), "AF_XDP with the other end's offload switched off");
}
