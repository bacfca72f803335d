//! A twin with two ports of the node, a backend, and the other end of the tunnel in software.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use dpu_fastpath::{
    nic::{NicPorts, connect, profile},
    port::{DpdkPorts, Eal, EalArgs, Memory, PortMap, Wire},
};
use fallback_sw::{
    esp::{InboundConfig, InboundSa, Key, Opened, OutboundConfig, OutboundSa, Tunnel},
    io::{KernelPorts, OpenPorts as _, Port},
    packet::{NicNote, Packet},
};
use offload_engine::{Completion, RuleBackend, SessionBackend, SessionCounts, SessionKind, SessionSpec, Token};
use offload_rules::{
    SaId, VrfId,
    forwarding::{DfPolicy, IpsecTunnel, Lifetime, NatT, Sa, SaDirection, SaKey},
    lower::{Action, Field, Item, Meta, Rule, Session, Table},
};

use test_kit::snapshot;
pub(crate) use test_kit::vif;

use crate::twin;

const DEADLINE: Duration = Duration::from_secs(20);
/// AES-256 and a salt.
pub(crate) const KEY: [u8; 36] = [0x5a; 36];
pub(crate) const OTHER_KEY: [u8; 36] = [0xa5; 36];
pub(crate) const TUNNEL: u32 = 11;
const SPI: u32 = 0xc0ff_ee01;
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// To the node's device, of an IPv4 packet.
pub(crate) const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 0x99, 8, 0];

const STATE: &str = r#"{
  "generation": 1, "node": "test",
  "vrfs": [{"id": 1, "name": "one"}],
  "vifs": [
    {"id": 3, "name": "lan", "type": "PHYSICAL", "mac": "02:00:00:00:00:01", "vrf": 1, "addresses": ["10.0.1.1/24"]},
    {"id": 4, "name": "wan", "type": "PHYSICAL", "mac": "02:00:00:00:00:02", "vrf": 1, "addresses": ["10.0.2.1/24"]}
  ]
}"#;

/// One NIC: vif 3 is on the first port, vif 4 on the second. There are two in the process, one for each API; tests take turns.
pub(crate) struct Nic {
    pub(crate) backend: Box<dyn RuleBackend>,
    pub(crate) sessions: Box<dyn SessionBackend>,
    ports: Vec<Box<dyn Port>>,
    nic_ports: NicPorts,
    wires: [Wire; 2],
    // Behind what uses them.
    _opener: DpdkPorts,
    _eal: Arc<Eal>,
}

// SAFETY: the rings of wires are for all threads; everything else is sent as it is.
unsafe impl Send for Nic {}

/// Where a frame came out.
#[derive(Debug)]
pub(crate) enum Exit {
    Software(NicNote, Vec<u8>),
    Wire(Vec<u8>),
}

impl Exit {
    pub(crate) fn software(self) -> (NicNote, Vec<u8>) {
        match self {
            Self::Software(note, frame) => (note, frame),
            Self::Wire(frame) => panic!("forwarded: {frame:02x?}"),
        }
    }

    pub(crate) fn wire(self) -> Vec<u8> {
        match self {
            Self::Wire(frame) => frame,
            Self::Software(note, frame) => panic!("to software, {note:?}: {frame:02x?}"),
        }
    }
}

/// Rules and sessions of the ports.
fn connected(ports: &NicPorts) -> (Box<dyn RuleBackend>, Box<dyn SessionBackend>) {
    let nic = connect(&profile("twin").unwrap(), ports).unwrap();
    (nic.rules, nic.sessions.unwrap())
}

impl Nic {
    fn new(eal: &Arc<Eal>, templates: bool) -> Self {
        let number = u8::from(templates);
        let wires = ["lan", "wan"].map(|device| Wire::new(eal, &format!("{device}{number}")).unwrap());
        let map = ["lan", "wan"].iter().zip(&wires).map(|(device, wire)| {
            let ethdev = format!("net_twin_{device}{number}");
            eal.add_vdev(&ethdev, &format!("port={},profile=twin", wire.ethdev())).unwrap();
            PortMap { device: (*device).to_owned(), ethdev }
        });
        let map: Vec<PortMap> = map.collect();
        let nic_ports = NicPorts::new(templates);
        let mut opener = DpdkPorts::new(Arc::clone(eal), &map, Box::new(KernelPorts))
            .unwrap()
            .prepared_by(Box::new(nic_ports.clone()));
        let snapshot = snapshot(STATE);
        let ports = [3, 4].map(|number| opener.open(snapshot.vif(vif(number)).unwrap(), 1).unwrap().ports.remove(0));
        let (backend, sessions) = connected(&nic_ports);
        Self { backend, sessions, ports: ports.into(), nic_ports, wires, _opener: opener, _eal: Arc::clone(eal) }
    }

    /// As new: whatever the test before has left is gone.
    fn clear(&mut self) {
        self.reconnect();
        self.flush();
        for (port, wire) in self.ports.iter_mut().zip(&self.wires) {
            while port.receive(&mut Vec::new(), &mut Vec::new(), 64).unwrap() > 0 {}
            while wire.sent().is_some() {}
        }
    }

    /// Takes all rules and sessions away, as the engine does.
    pub(crate) fn flush(&mut self) {
        self.backend.flush().unwrap();
        self.sessions.flush_sessions().unwrap();
    }

    /// Another backend for the same ports.
    pub(crate) fn reconnect(&mut self) {
        (self.backend, self.sessions) = connected(&self.nic_ports);
    }

    /// A frame arrives at a port: software gets it, or it leaves on the other one.
    pub(crate) fn arrive(&mut self, side: usize, frame: &[u8]) -> Exit {
        assert!(self.wires[side].arrive(frame));
        wait("a frame comes out somewhere", || {
            let mut packets = Vec::new();
            // Each port's queue drives what arrives there.
            self.ports[side].receive(&mut packets, &mut Vec::new(), 1).unwrap();
            if let Some(packet) = packets.pop() {
                return Some(Exit::Software(packet.note(), packet.data().to_vec()));
            }
            self.sent(1 - side).map(Exit::Wire)
        })
    }

    /// Software sends a frame; how many the port took.
    pub(crate) fn send(&mut self, side: usize, frame: &[u8], note: NicNote) -> usize {
        let mut packet = Packet::from_frame(frame);
        packet.set_note(note);
        self.ports[side].transmit(&mut vec![packet], &mut Vec::new()).unwrap()
    }

    /// The next frame on a port's wire.
    pub(crate) fn sent(&self, side: usize) -> Option<Vec<u8>> {
        self.wires[side].sent().map(|packet| packet.data().to_vec())
    }
}

/// Does this with the NIC of each API.
pub(crate) fn each(test: impl Fn(&mut Nic)) {
    static NICS: OnceLock<Mutex<[Nic; 2]>> = OnceLock::new();
    let nics = NICS.get_or_init(|| {
        let args = EalArgs { memory: Memory::Ordinary { mib: 512 }, ..EalArgs::default() };
        let eal = Arc::new(Eal::start(&args, &[twin::library()]).unwrap());
        Mutex::new([false, true].map(|templates| Nic::new(&eal, templates)))
    });
    let mut nics = nics.lock().unwrap_or_else(PoisonError::into_inner);
    for turn in 0..nics.len() {
        // All ports of the process are ports of one NIC, and its tables are one NIC's.
        nics.iter_mut().for_each(Nic::clear);
        test(&mut nics[turn]);
    }
}

fn wait<T>(what: &str, mut value: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::yield_now();
    }
}

fn settle(nic: &mut Nic, expected: &Completion) {
    let mut done = Vec::new();
    wait("the operation completes", || {
        nic.backend.push().unwrap();
        nic.backend.pull(&mut done).unwrap();
        (!done.is_empty()).then_some(())
    });
    assert_eq!(&done[..], std::slice::from_ref(expected));
}

pub(crate) fn create(nic: &mut Nic, token: Token, rule: &Rule) {
    nic.backend.validate(rule).unwrap();
    nic.backend.create(token, rule).unwrap();
    settle(nic, &Completion::Created(token));
}

pub(crate) fn destroy(nic: &mut Nic, token: Token) {
    nic.backend.destroy(token).unwrap();
    settle(nic, &Completion::Destroyed(token));
}

/// What a session has done.
pub(crate) fn seen(nic: &mut Nic, session: Session) -> SessionCounts {
    nic.sessions.session_counts(session).unwrap()
}

/// A session on the port of vif 4.
pub(crate) fn spec(kind: SessionKind, direction: SaDirection, key: &[u8], esn: bool) -> SessionSpec {
    let outbound = direction == SaDirection::Outbound;
    SessionSpec {
        port: vif(4),
        kind,
        sa: Arc::new(Sa {
            id: SaId::new(1).unwrap(),
            spi: SPI,
            direction,
            key: SaKey::new(key.into()),
            esn,
            window: if outbound { 0 } else { 64 },
            soft: Lifetime::default(),
            hard: Lifetime::default(),
            first: 1,
            worker: 0,
        }),
        tunnel: IpsecTunnel {
            source: HERE,
            destination: THERE,
            nat_t: Some(NatT { source_port: 4500, destination_port: 4500, keepalive_secs: 0 }),
            outbound: vec![],
            inbound: vec![],
            vrf: VrfId::new(1).unwrap(),
            df: DfPolicy::Copy,
            dscp: None,
            ike: false,
        },
        first: if outbound { 700 } else { 1 },
        most: Lifetime::default(),
        told: Meta::Opened(vif(TUNNEL)).bits(),
    }
}

fn ipv4(dst: Option<Ipv4Addr>, proto: u8) -> Item {
    Item::Ipv4 {
        src: None,
        dst,
        proto: Some(proto),
        tos: Field { spec: 0, mask: 0 },
        ttl: None,
        no_options: true,
        whole: true,
        max_len: None,
    }
}

/// Opens what comes to vif 4 for the tunnel.
pub(crate) fn open_rule(sa: &Sa, session: Session) -> Rule {
    Rule {
        table: Table::Steering,
        priority: 1,
        items: vec![
            Item::Port(vif(4)),
            Item::Eth { dst: None, has_vlan: Some(false) },
            ipv4(Some(HERE), 17),
            Item::Udp { sport: None, dport: Some(4500), no_checksum: false },
            Item::Esp { spi: sa.spi },
        ],
        actions: vec![
            Action::SetMeta(Meta::Opened(vif(TUNNEL))),
            Action::Security(session),
            Action::Jump(Table::Opened),
        ],
    }
}

/// The flow of packet 1, in a table.
pub(crate) fn flow(table: Table, port: u32, actions: Vec<Action>) -> Rule {
    Rule {
        table,
        priority: 2,
        items: vec![
            Item::Port(vif(port)),
            Item::Eth { dst: None, has_vlan: Some(false) },
            ipv4(Some([10, 0, 1, 1].into()), 17),
            Item::Udp { sport: Some(1), dport: Some(53), no_checksum: false },
        ],
        actions,
    }
}

/// The flow of packet 1 that comes in on vif 3, on its way into the tunnel.
pub(crate) fn to_seal() -> Rule {
    let actions = vec![Action::Count, Action::SetMeta(Meta::ToSeal(vif(TUNNEL))), Action::Jump(Table::Seal)];
    flow(Table::Steering, 3, actions)
}

/// Seals what is for the tunnel, and sends it on vif 4.
pub(crate) fn seal_rule(session: Session) -> Rule {
    Rule {
        table: Table::Seal,
        priority: 0,
        items: vec![Item::Meta(Meta::ToSeal(vif(TUNNEL)))],
        actions: vec![Action::Security(session), Action::Port(vif(4))],
    }
}

fn checksum(header: &[u8]) -> [u8; 2] {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A packet of UDP from this port, with the don't-fragment bit.
pub(crate) fn inner(port: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 64, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 1, 1];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    ip.extend(port.to_be_bytes());
    ip.extend([0, 53, 0, 44, 0, 0]);
    ip.resize(64, 0x77);
    ip
}

/// The other end, to seal.
pub(crate) fn sealer(key: &[u8], esn: bool) -> OutboundSa {
    let key = Key::new(key).unwrap();
    OutboundSa::new(&OutboundConfig { spi: SPI, key, esn, first: 1, tunnel: Tunnel::nat_t(THERE, HERE) })
}

/// This end, where the NIC ciphers and does nothing more.
pub(crate) fn framer(key: &[u8]) -> OutboundSa {
    let key = Key::new(key).unwrap();
    OutboundSa::new(&OutboundConfig { spi: SPI, key, esn: false, first: 1, tunnel: Tunnel::nat_t(HERE, THERE) })
}

/// The other end, to open.
pub(crate) fn opener(key: &[u8], esn: bool) -> InboundSa {
    let key = Key::new(key).unwrap();
    InboundSa::new(&InboundConfig { spi: SPI, key, esn, window: 64 }).unwrap()
}

/// A frame with what `seal` makes of a packet.
pub(crate) fn around(packet: &[u8], seal: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let mut packet = Packet::from_frame(packet);
    seal(&mut packet);
    [&ETHERNET[..], packet.data()].concat()
}

/// What comes from the other end.
pub(crate) fn outside(peer: &mut OutboundSa, packet: &[u8]) -> Vec<u8> {
    around(packet, |packet| peer.seal(packet, 0, 1, true).unwrap())
}

/// Opens what went to the other end, as this sequence number.
pub(crate) fn open(frame: &[u8], key: &[u8], esn: bool, number: u64) -> Vec<u8> {
    let ip = &frame[14..];
    assert_eq!(checksum(&ip[..20]), [0, 0], "the header's checksum: {ip:02x?}");
    assert_eq!(usize::from(u16::from_be_bytes([ip[2], ip[3]])), ip.len());
    assert_eq!((&ip[12..16], &ip[16..20]), (&HERE.octets()[..], &THERE.octets()[..]));
    assert_eq!((ip[9], &ip[20..24]), (17, &[0x11, 0x94, 0x11, 0x94][..]));
    assert_eq!(ip[32..36], (number as u32).to_be_bytes(), "sequence number");
    let mut esp = ip[28..].to_vec();
    let Ok(Opened::Packet { at, len }) = opener(key, esn).open(&mut esp) else { panic!("it does not open: {ip:02x?}") };
    esp[at..at + len].to_vec()
}
