//! A customer edge without I/O: a tenant behind a VLAN, a peer behind MPLS over UDP, and frames between them.
//!
//! Frames are made in the packet buffers, from a template and the number of a flow; what that costs is measured alone and
//! taken off, as a NIC would have written them.

use std::{net::Ipv4Addr, sync::Arc};

use fallback_sw::{
    packet::{Packet, checksum},
    worker::{Outbox, Worker, WorkerConfig},
};
use offload_rules::{
    Label, MacAddr, NexthopId, VifId, VrfId,
    flow::FlowKey,
    forwarding::{
        DscpMap, IoDriver, L2Rewrite, ListenerTable, MplsLabel, Nexthop, NexthopKind, PortConfig, Receive, Route,
        RouteFlags, RouteOrigin, Settings, Snapshot, State, Tunnel, Vif, VifFlags, VifKind, VlanTag, Vrf,
    },
};

/// Number of the LAN's device.
const LAN: u32 = 1;
/// Number of the tenant's sub-interface.
const TENANT: u32 = 2;
/// Number of the device toward the underlay.
const UNDERLAY: u32 = 3;
pub(crate) const TENANT_VRF: u32 = 2;
/// The underlay's MTU, and the octets of IPv4, UDP and one label.
const UNDERLAY_MTU: u16 = 9000;
const TUNNEL_HEADER: u16 = 32;
/// The label of the route to the other site, and the one that it has after a change.
const LABEL: u32 = 300;

/// The state: everything that a packet of a tenant meets on its way to another site and back. The LAN's router is
/// 02:00:00:00:00:10, behind VLAN 100; the underlay's is 02:00:00:00:00:30; the other site's tunnels end at 192.0.2.2.
fn state(pairs: u32, tunnel_label: u32) -> State {
    let nh = |id: u32| NexthopId::new(id).expect("a valid nexthop");
    let label = |number: u32| Label::new(number).expect("a valid label");
    let mac = |last: u8| Some(MacAddr([2, 0, 0, 0, 0, last]));
    let device = |name: &str| PortConfig { device: name.to_owned(), driver: IoDriver::Auto };
    // What fits into the tunnel: no rule of an offloaded flow has to look at lengths.
    let mtu = |id: u32| if id == UNDERLAY { UNDERLAY_MTU } else { UNDERLAY_MTU - TUNNEL_HEADER };
    let make_vif = |id: u32, kind: VifKind, mac, vrf_id: u32, address: Option<&str>, policy: bool| Vif {
        id: vif(id),
        name: format!("vif{id}"),
        kind,
        mac,
        vrf: vrf(vrf_id),
        addresses: address.map(|address| address.parse().expect("an address")).into_iter().collect(),
        mtu: mtu(id),
        enc_mss: 0,
        flags: VifFlags { policy, ..VifFlags::default() },
        nexthop: None,
        ingress_acls: Vec::new(),
        egress_acls: Vec::new(),
        service_acls: Vec::new(),
        nat_pool: Vec::new(),
        vn: 0,
    };
    let nexthop =
        |id: u32, policy: bool, kind: NexthopKind| Nexthop { id: nh(id), vrf: None, policy, valid: true, kind };
    let encap = |oif: u32, header: &[u8]| NexthopKind::Encap { oif: vif(oif), rewrite: L2Rewrite::new(header) };
    let route = |vrf_id: u32, prefix: &str, id: u32, number: Option<u32>| Route {
        vrf: vrf(vrf_id),
        prefix: prefix.parse().expect("a prefix"),
        nexthop: nh(id),
        label: number.map(label),
        flags: RouteFlags::default(),
        origin: RouteOrigin::default(),
    };
    State {
        generation: 1,
        settings: Settings { max_flows: 2 * pairs + pairs / 8 + 4096, ..Settings::default() },
        vrfs: [1, TENANT_VRF].map(|id| Vrf { id: vrf(id), name: format!("vrf{id}") }).to_vec(),
        vifs: vec![
            make_vif(LAN, VifKind::Physical { port: device("lan") }, mac(1), 1, None, false),
            make_vif(
                TENANT,
                VifKind::PhysicalVlan { parent: vif(LAN), outer: VlanTag { tpid: 0x8100, vid: 100 }, inner: None },
                mac(1),
                TENANT_VRF,
                Some("172.16.0.1/24"),
                true,
            ),
            make_vif(UNDERLAY, VifKind::Physical { port: device("underlay") }, mac(3), 1, Some("192.0.2.1/24"), false),
        ],
        nexthops: vec![
            nexthop(10, false, encap(TENANT, &[2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 100, 8, 0])),
            nexthop(11, false, encap(UNDERLAY, &[2, 0, 0, 0, 0, 0x30, 2, 0, 0, 0, 0, 3, 8, 0])),
            nexthop(
                12,
                false,
                NexthopKind::Tunnel(Tunnel {
                    sip: Ipv4Addr::new(192, 0, 2, 1),
                    dip: Ipv4Addr::new(192, 0, 2, 2),
                    direct: Some(nh(11)),
                    udp_port: 6635,
                    dscp: DscpMap::default(),
                }),
            ),
            nexthop(
                13,
                false,
                NexthopKind::Receive(Receive { listeners: ListenerTable::default(), terminate_mpls_o_udp: true }),
            ),
            nexthop(14, true, NexthopKind::VrfTranslate { vrf: vrf(TENANT_VRF) }),
        ],
        routes: vec![
            route(1, "192.0.2.1/32", 13, None),
            route(1, "192.0.2.0/24", 11, None),
            route(TENANT_VRF, "10.0.0.0/8", 10, None),
            route(TENANT_VRF, "192.168.0.0/16", 12, Some(tunnel_label)),
        ],
        labels: vec![MplsLabel { label: label(200), nexthop: nh(14) }],
        ..State::default()
    }
}

fn vrf(number: u32) -> VrfId {
    VrfId::new(number).expect("a valid VRF")
}

pub(crate) fn vif(number: u32) -> VifId {
    VifId::new(number).expect("a valid vif")
}

/// A snapshot with room for this many pairs.
pub(crate) fn snapshot(pairs: u32) -> Arc<Snapshot> {
    Arc::new(Snapshot::empty().with_state(state(pairs, LABEL)).unwrap_or_else(|errors| panic!("{errors}")))
}

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the tenant into the tunnel.
    Out,
    /// Out of the tunnel to the tenant.
    In,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// TCP flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// What the frames of a run have in common.
pub(crate) struct Template {
    way: Way,
    transport: Transport,
    header: Vec<u8>,
    /// Where the (inner) IP header begins.
    ip: usize,
}

impl Template {
    pub(crate) fn new(way: Way, transport: Transport, flags: u8) -> Self {
        let mut header = Vec::new();
        if way == Way::Out {
            header.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x10, 0x81, 0, 0, 100, 8, 0]);
        } else {
            header.extend([2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0x30, 8, 0]);
            header.extend([0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]);
            header.extend([0xc1, 0x23, 0x19, 0xeb, 0, 0, 0, 0]);
            header.extend((200_u32 << 12 | 0x100 | 64).to_be_bytes());
        }
        let ip = header.len();
        let proto = if transport == Transport::Udp { 17 } else { 6 };
        header.extend([0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, proto, 0, 0]);
        header.extend([0; 8]);
        match transport {
            Transport::Udp => header.extend([0; 8]),
            Transport::Tcp => {
                let ack = if flags & ACK == 0 { 0 } else { 1001_u32 };
                let seq = if flags & SYN == 0 { 1001_u32 } else { 1000 };
                header.extend([0; 4]);
                header.extend(seq.to_be_bytes());
                header.extend(ack.to_be_bytes());
                header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
        }
        Self { way, transport, header, ip }
    }

    /// The vif of the device that the frames arrive on.
    pub(crate) fn port(&self) -> VifId {
        vif(if self.way == Way::Out { LAN } else { UNDERLAY })
    }

    /// The vif of the device that they leave on.
    pub(crate) fn egress(&self) -> VifId {
        vif(if self.way == Way::Out { UNDERLAY } else { LAN })
    }

    /// The same frames, each with the lengths of a tenant's frame of `size` octets: Ethernet and VLAN tag included.
    pub(crate) fn sized(&self, size: usize) -> Sized<'_> {
        let inner = size - 18;
        let total = self.ip + inner;
        let mut header = self.header.clone();
        let ip = self.ip;
        put16(&mut header, ip + 2, inner);
        if self.transport == Transport::Udp {
            put16(&mut header, ip + 24, inner - 20);
        }
        if self.way == Way::In {
            put16(&mut header, 16, total - 14);
            put16(&mut header, 14 + 24, total - 34);
            let sum = checksum::checksum(&header[14..34]);
            put16(&mut header, 24, usize::from(sum));
        }
        let inner_sum = checksum::sum(&header[ip..ip + 20]);
        Sized { template: self, header, total, inner_sum }
    }
}

/// A [`Template`] for frames of one size.
pub(crate) struct Sized<'a> {
    template: &'a Template,
    header: Vec<u8>,
    total: usize,
    inner_sum: u16,
}

impl Sized<'_> {
    /// Makes a packet the frame of a flow. Only the headers are written: the rest is whatever the buffer holds.
    #[inline]
    pub(crate) fn write(&self, packet: &mut Packet, flow: u32) {
        let ip = self.template.ip;
        packet.refill(&self.header);
        let _ = packet.extend(self.total - self.header.len());
        let (client, server, cport, sport) = ends(flow);
        let (from, to, fport, tport) = match self.template.way {
            Way::Out => (client, server, cport, sport),
            Way::In => (server, client, sport, cport),
        };
        let data = packet.data_mut();
        let Some(header) = data.get_mut(ip..).and_then(<[u8]>::first_chunk_mut::<28>) else { return };
        let sum = u64::from(self.inner_sum) + u64::from(from) + u64::from(to);
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        [header[10], header[11]] = (!(sum as u16)).to_be_bytes();
        [header[12], header[13], header[14], header[15]] = from.to_be_bytes();
        [header[16], header[17], header[18], header[19]] = to.to_be_bytes();
        [header[20], header[21]] = fport.to_be_bytes();
        [header[22], header[23]] = tport.to_be_bytes();
    }
}

/// Flow number n: client and server address, client's and server's port.
fn ends(n: u32) -> (u32, u32, u16, u16) {
    let mixed = n.wrapping_mul(0x9e37_79b1);
    (
        0x0a00_0000 | (1 + (n >> 2)),
        0xc0a8_0100 | (mixed >> 24),
        1024 + ((mixed >> 8) as u16 & 0x7fff),
        443 + (n & 3) as u16,
    )
}

/// The key of flow number n as the tenant sends it.
pub(crate) fn key(n: u32, transport: Transport) -> FlowKey {
    let (client, server, cport, sport) = ends(n);
    let proto = if transport == Transport::Udp { 17 } else { 6 };
    let address = |bits: u32| std::net::IpAddr::V4(bits.into());
    FlowKey::new(vrf(TENANT_VRF), vif(TENANT), address(client), address(server), proto, cport, sport)
}

fn put16(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Frames of a receive, as many as a port gives at once.
pub(crate) const BURST: usize = 64;
/// Buffers in turn, as in the ring of a NIC.
const RING: usize = 512;

/// A worker, and the buffers that frames come in.
pub(crate) struct Site {
    pub(crate) worker: Worker,
    pub(crate) out: Outbox,
    snapshot: Arc<Snapshot>,
    bursts: Vec<Vec<Packet>>,
    pub(crate) now: u64,
}

impl Site {
    /// With room for this many flows. `id` of `workers`.
    pub(crate) fn new(pairs: u32, id: usize, workers: usize) -> Self {
        Self::build(pairs, id, workers, false)
    }

    /// One worker that asks an offload engine, where `offload`.
    pub(crate) fn with_engine(pairs: u32, offload: bool) -> Self {
        Self::build(pairs, 0, 1, offload)
    }

    fn build(pairs: u32, id: usize, workers: usize, offload: bool) -> Self {
        let pairs = pairs.saturating_mul(workers as u32);
        let config = WorkerConfig { id, workers, ip_id: 1, entropy: None, cookie_secret: [1, 2], offload };
        let snapshot = snapshot(pairs.max(1000));
        let worker = Worker::new(config, Arc::clone(&snapshot)).expect("memory for the flow table");
        let burst = || (0..BURST).map(|_| Packet::with_capacity(1600)).collect();
        let bursts = (0..RING / BURST).map(|_| burst()).collect();
        Self { worker, out: Outbox::default(), snapshot, bursts, now: 1000 }
    }

    /// The state in force.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The state with another label on the route to the other site: every tunnelled flow is affected.
    pub(crate) fn rerouted(&self, label: u32) -> Arc<Snapshot> {
        let pairs = (self.worker.flows().len() / 2).max(1000);
        let state = State { generation: self.snapshot.generation() + 1, ..state(pairs, label) };
        Arc::new(self.snapshot.with_state(state).unwrap_or_else(|errors| panic!("{errors}")))
    }

    /// Puts a state in force.
    pub(crate) fn adopt(&mut self, snapshot: &Arc<Snapshot>) {
        self.snapshot = Arc::clone(snapshot);
        self.worker.adopt(Arc::clone(snapshot), self.now, &mut self.out);
    }

    /// Opens UDP flows and lets each direction be seen once by its flow: rules are asked for, where there is an engine.
    pub(crate) fn converse(&mut self, flows: &[u32]) {
        let (out, back) = (Template::new(Way::Out, Transport::Udp, 0), Template::new(Way::In, Transport::Udp, 0));
        let (out, back) = (out.sized(64), back.sized(64));
        for flows in flows.chunks_exact(BURST) {
            for frames in [&out, &out, &back] {
                self.forward(frames, flows, 0);
            }
        }
    }

    /// Writes the frames of these flows, and does nothing with them: what a NIC does.
    #[inline(never)]
    pub(crate) fn write_only(&mut self, frames: &Sized<'_>, flows: &[u32], burst: usize) {
        let Some(packets) = self.bursts.get_mut(burst % (RING / BURST)) else { return };
        for (packet, flow) in packets.iter_mut().zip(flows) {
            frames.write(packet, *flow);
        }
        std::hint::black_box(packets);
    }

    /// Writes the frames of these flows and has the worker forward them.
    #[inline(never)]
    pub(crate) fn forward(&mut self, frames: &Sized<'_>, flows: &[u32], burst: usize) {
        let Some(packets) = self.bursts.get_mut(burst % (RING / BURST)) else { return };
        for (packet, flow) in packets.iter_mut().zip(flows) {
            frames.write(packet, *flow);
        }
        let (port, egress) = (frames.template.port(), frames.template.egress());
        self.worker.receive(port, packets, self.now, &mut self.out);
        // Sent: the buffers are free again.
        let queue = self.out.queue(egress);
        queue.metas.clear();
        std::mem::swap(packets, &mut queue.packets);
        self.out.dirty.clear();
        debug_assert_eq!(packets.len(), BURST);
        while packets.len() < BURST {
            packets.push(self.out.spare.pop().unwrap_or_else(|| panic!("{:?}", self.worker.counters().account)));
        }
    }

    /// Opens flows, by the packets that a client and a server would exchange.
    pub(crate) fn open(&mut self, transport: Transport, flows: &[u32]) {
        let steps: &[(Way, u8)] = match transport {
            Transport::Udp => &[(Way::Out, 0)],
            Transport::Tcp => &[(Way::Out, SYN), (Way::In, SYN | ACK), (Way::Out, ACK), (Way::In, ACK)],
        };
        let templates: Vec<Template> =
            steps.iter().map(|(way, flags)| Template::new(*way, transport, *flags)).collect();
        let frames: Vec<Sized<'_>> = templates.iter().map(|template| template.sized(58)).collect();
        for flows in flows.chunks(BURST) {
            // A burst is always full: the last one begins with flows that are open by then.
            let mut full = [flows[0]; BURST];
            full[..flows.len()].copy_from_slice(flows);
            for frames in &frames {
                self.forward(frames, &full, 0);
            }
        }
    }
}
