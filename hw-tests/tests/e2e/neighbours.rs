//! Neighbours whose link ends: a router between two hosts, as a software node on veth pairs.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use hw_tests::lab::{End, Lab, LabError, Namespace, Nic, Node, NodeConfig, Veth, scenario, until};
use proto::v1::{self, nexthop::Kind};

/// Traffic goes on when the link is back: what a kernel takes for IPv6 (duplicate address detection of the host included), and room for a
/// busy machine.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest gap that is no proof of a neighbour that was waited out: it would be asked after 30 s.
const GAP: Duration = Duration::from_secs(6);
const PORT: u16 = 7000;
const NEW_MAC: &str = "02:00:00:00:0b:77";

/// Hosts `a` and `b` on both sides of a router, `r`.
struct Bed {
    node: Node,
    b: Namespace,
    a: Namespace,
    r: Namespace,
    _lab: Lab,
}

fn vif(id: u32, name: &str, addresses: [&str; 2]) -> v1::Vif {
    v1::Vif {
        id,
        name: name.to_owned(),
        r#type: v1::VifType::Physical.into(),
        vrf: 1,
        addresses: addresses.map(str::to_owned).to_vec(),
        flags: Some(v1::VifFlags { policy: true, ..Default::default() }),
        ..Default::default()
    }
}

fn state() -> v1::ForwardingState {
    let nexthop = |id, kind| v1::Nexthop { id, vrf: 1, kind: Some(kind), ..Default::default() };
    let route = |prefix: &str, nexthop| v1::Route { vrf: 1, prefix: prefix.to_owned(), nexthop, ..Default::default() };
    let resolve = |oif| Kind::Resolve(v1::ResolveNexthop { oif, ..Default::default() });
    v1::ForwardingState {
        generation: 1,
        node: "router".to_owned(),
        vrfs: vec![v1::Vrf { id: 1, name: "lan".to_owned() }],
        vifs: vec![vif(1, "e1", ["192.0.2.1/24", "fd00:a::1/64"]), vif(2, "e2", ["198.51.100.1/24", "fd00:b::1/64"])],
        nexthops: vec![
            nexthop(10, Kind::Receive(v1::ReceiveNexthop::default())),
            nexthop(11, resolve(1)),
            nexthop(12, resolve(2)),
        ],
        routes: vec![
            route("192.0.2.0/24", 11),
            route("192.0.2.1/32", 10),
            route("198.51.100.0/24", 12),
            route("198.51.100.1/32", 10),
            route("fd00:a::/64", 11),
            route("fd00:a::1/128", 10),
            route("fd00:b::/64", 12),
            route("fd00:b::1/128", 10),
        ],
        ..Default::default()
    }
}

/// A link from the router to a host, whose addresses and way back are set.
fn plug(router: &Namespace, device: &str, host: &Namespace, mac: &str, net: (&str, &str)) -> Result<(), LabError> {
    let own = format!("02:00:00:00:0e:0{}", &device[1..]);
    let end = |namespace, device, mac| End { namespace, device, mac };
    Veth::plug(end(router, device, &own), end(host, "eth0", mac), 1500)?;
    address(host, net)
}

fn address(host: &Namespace, (v4, v6): (&str, &str)) -> Result<(), LabError> {
    host.sysctl("ipv6/conf/eth0/accept_dad", "0")?;
    host.ip("link set eth0 up")?;
    host.ip(&format!("addr replace {v4}.10/24 dev eth0"))?;
    host.ip(&format!("addr replace {v6}::10/64 dev eth0 nodad"))?;
    host.ip(&format!("route replace default via {v4}.1"))?;
    host.ip(&format!("-6 route replace default via {v6}::1")).map(drop)
}

const NET_A: (&str, &str) = ("192.0.2", "fd00:a");
const NET_B: (&str, &str) = ("198.51.100", "fd00:b");

impl Bed {
    fn new(nic: Option<Nic>) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let [a, r, b] = ["a", "r", "b"].map(|role| lab.namespace(role));
        let (a, r, b) = (a?, r?, b?);
        r.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        plug(&r, "e1", &a, "02:00:00:00:0a:10", NET_A)?;
        plug(&r, "e2", &b, "02:00:00:00:0b:10", NET_B)?;
        let config = NodeConfig { state: state(), workers: 2, last_state: None, nic };
        let node = Node::start(&lab, &r, &config)?;
        Ok(Self { node, b, a, r, _lab: lab })
    }

    /// A socket in a host.
    fn socket(host: &Namespace, at: &str) -> Result<UdpSocket, LabError> {
        host.inside(|| {
            let socket = UdpSocket::bind(at).map_err(LabError::io(format!("bind {at}")))?;
            socket.set_nonblocking(true).map_err(LabError::io("a socket that does not wait"))?;
            Ok(socket)
        })
    }

    /// The MAC that the node has for the far host.
    fn known(&self, address: &str) -> Result<Option<String>, LabError> {
        let neighbours = self.node.client().neighbours()?;
        let found = neighbours.into_iter().find(|neighbour| (neighbour.vif, &*neighbour.address) == (2, address));
        Ok(found.map(|neighbour| neighbour.mac).filter(|mac| !mac.is_empty()))
    }
}

/// One stream, one way.
struct Stream {
    from: UdpSocket,
    to: UdpSocket,
    target: String,
}

impl Stream {
    fn open(bed: &Bed, [from, to]: [&str; 2]) -> Result<Self, LabError> {
        let (from, target) = (Bed::socket(&bed.a, from)?, to.to_owned());
        Ok(Self { from, to: Bed::socket(&bed.b, to)?, target })
    }

    /// Sends one; has any arrived since the last look?
    fn arrives(&self) -> bool {
        // A host that does not know its way for a moment drops what is to be sent: the next one follows.
        let _ = self.from.send_to(b"on", &self.target);
        let mut room = [0; 16];
        let mut any = false;
        while self.to.recv(&mut room).is_ok() {
            any = true;
        }
        any
    }
}

/// Waits until all streams run; how long that took.
fn run(streams: &[Stream], what: &str) -> Result<Duration, LabError> {
    let begin = Instant::now();
    for stream in streams {
        until(&format!("datagrams to {} {what}", stream.target), LIMIT, || Ok(stream.arrives().then_some(())))?;
    }
    Ok(begin.elapsed())
}

/// One for each family, running.
fn streams(bed: &Bed) -> Result<[Stream; 2], LabError> {
    let v4 = Stream::open(bed, ["192.0.2.10:0", &format!("198.51.100.10:{PORT}")])?;
    let v6 = Stream::open(bed, ["[fd00:a::10]:0", &format!("[fd00:b::10]:{PORT}")])?;
    let streams = [v4, v6];
    run(&streams, "at first")?;
    Ok(streams)
}

/// Nothing is left of the datagrams that were under way before.
fn drain(streams: &[Stream]) -> Result<(), LabError> {
    for stream in streams {
        let mut room = [0; 16];
        while stream.to.recv(&mut room).is_ok() {}
    }
    Ok(())
}

fn until_forgotten(bed: &Bed) -> Result<(), LabError> {
    for address in ["198.51.100.10", "fd00:b::10"] {
        until(&format!("{address} to be forgotten"), LIMIT, || Ok(bed.known(address)?.is_none().then_some(())))?;
    }
    Ok(())
}

fn replaced(nic: Option<Nic>) -> Result<(), LabError> {
    let bed = Bed::new(nic)?;
    let streams = streams(&bed)?;
    bed.r.ip("link set e2 down")?;
    // The box at the other end of the cable is another one, which announces nothing.
    bed.b.ip(&format!("link set eth0 address {NEW_MAC}"))?;
    until_forgotten(&bed)?;
    drain(&streams)?;
    bed.r.ip("link set e2 up")?;
    let took = run(&streams, "after the link is back")?;
    assert!(took < GAP, "{took:?}");
    assert_eq!(bed.known("198.51.100.10")?.as_deref(), Some(NEW_MAC));
    Ok(())
}

#[test]
fn case_08_a_replaced_station_is_found_when_its_link_is_back() -> Result<(), String> {
    scenario("case_08_a_replaced_station_is_found_when_its_link_is_back", || replaced(None))
}

#[test]
fn case_08_a_replaced_station_is_found_behind_a_nic_too() -> Result<(), String> {
    scenario("case_08_a_replaced_station_is_found_behind_a_nic_too", || replaced(Some(Nic::default())))
}

#[test]
fn case_08_a_station_that_was_replaced_in_a_moment_without_link_is_found() -> Result<(), String> {
    scenario("case_08_a_station_that_was_replaced_in_a_moment_without_link_is_found", || {
        let bed = Bed::new(None)?;
        let streams = streams(&bed)?;
        // For less time than there is between two looks at the devices.
        bed.r.ip("link set e2 down")?;
        bed.b.ip(&format!("link set eth0 address {NEW_MAC}"))?;
        bed.r.ip("link set e2 up")?;
        drain(&streams)?;
        let took = run(&streams, "after a moment without link")?;
        assert!(took < GAP, "{took:?}");
        // The other end of the cable, and nothing but its carrier.
        bed.b.ip("link set eth0 down")?;
        bed.b.ip("link set eth0 address 02:00:00:00:0b:78")?;
        address(&bed.b, NET_B)?;
        drain(&streams)?;
        let took = run(&streams, "after a moment without carrier")?;
        assert!(took < GAP, "{took:?}");
        Ok(())
    })
}

#[test]
fn case_08_a_device_that_is_made_again_forgets_who_was_behind_it() -> Result<(), String> {
    scenario("case_08_a_device_that_is_made_again_forgets_who_was_behind_it", || {
        let bed = Bed::new(None)?;
        let streams = streams(&bed)?;
        bed.r.ip("link del e2")?;
        plug(&bed.r, "e2", &bed.b, NEW_MAC, NET_B)?;
        drain(&streams)?;
        let took = run(&streams, "over the device that was made again")?;
        assert!(took < GAP, "{took:?}");
        assert_eq!(bed.known("198.51.100.10")?.as_deref(), Some(NEW_MAC));
        Ok(())
    })
}
