//! Devices that are smaller or larger than their vif, and devices that are made again: a router between two hosts.

use std::{net::UdpSocket, time::Duration};

use hw_tests::lab::{
    End, Host, HostConfig, IperfServer, Lab, LabError, Namespace, Nic, Node, NodeClient, NodeConfig, Ping, Veth,
    scenario, until,
};
use proto::v1::{self, FlowTier, nexthop::Kind};

const LIMIT: Duration = Duration::from_secs(10);
const A: &str = "192.0.2.10";
const B: &str = "198.51.100.10";
/// Octets of IPv4 and ICMP before the data of an echo.
const ECHO: u16 = 28;

/// Host a, the router r and host b, on a link each: a - (e1) r (e2) - b.
struct Router {
    node: Node,
    r: Namespace,
    a: Host,
    b: Host,
    _lab: Lab,
}

/// How the router is run: in software, or on twins.
fn drivers() -> [(&'static str, Option<Nic>); 2] {
    [("in software", None), ("on twins", Some(Nic::default()))]
}

impl Router {
    /// With links of these MTUs, which the vifs (of 1500) do not know.
    fn start(nic: Option<Nic>, mtus: [u16; 2]) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let r = lab.namespace("r")?;
        r.silence_ipv6()?;
        let host = |role: &str, address: &str, gateway: &str| {
            let config = HostConfig { device: "eth0", addresses: &[address], gateways: &[gateway] };
            Host::new(lab.namespace(role)?, config)
        };
        let (a, b) = (host("a", "192.0.2.10/24", "192.0.2.1")?, host("b", "198.51.100.10/24", "198.51.100.1")?);
        for (host, number, mtu) in [(&a, 1, mtus[0]), (&b, 2, mtus[1])] {
            plug(&r, host, number, mtu)?;
        }
        let state = state();
        let config = NodeConfig { state, workers: 1, last_state: None, nic };
        let node = Node::start(&lab, &r, &config)?;
        let router = Self { node, r, a, b, _lab: lab };
        for vif in [1, 2] {
            router.until_oper(vif, v1::OperState::Up)?;
        }
        Ok(router)
    }

    fn until_oper(&self, vif: u32, wanted: v1::OperState) -> Result<(), LabError> {
        let mut error = String::new();
        let reached = until(&format!("vif {vif} to be {wanted:?}"), LIMIT, || {
            let info = self.node.client().vif(vif)?;
            error.clone_from(&info.oper_error);
            Ok((info.oper_state() == wanted).then_some(()))
        });
        reached.map_err(|failure| LabError::Violated(format!("{failure}: '{error}'")))
    }

    /// Waits until this MTU is in force at the second vif.
    fn until_mtu(&self, mtu: u32) -> Result<(), LabError> {
        until(&format!("vif 2 to have an MTU of {mtu}"), LIMIT, || {
            Ok((self.node.client().vif(2)?.mtu == mtu).then_some(()))
        })
    }

    /// Waits until b answers a.
    fn until_reachable(&self) -> Result<(), LabError> {
        until("b to answer a", LIMIT, || Ok((self.a.ping(&Ping::to(B).count(1))?.received == 1).then_some(())))
    }
}

/// A link of this MTU between the router's device e1 or e2 and a host.
fn plug(r: &Namespace, host: &Host, number: u8, mtu: u16) -> Result<(), LabError> {
    let (near, far) = (format!("02:00:00:00:00:0{number}"), format!("02:00:00:00:01:0{number}"));
    let device = format!("e{number}");
    Veth::plug(
        End { namespace: r, device: &device, mac: &near },
        End { namespace: host.namespace(), device: host.device(), mac: &far },
        mtu,
    )?;
    host.configure()
}

fn state() -> v1::ForwardingState {
    let vif = |id: u32, address: &str| v1::Vif {
        id,
        name: format!("e{id}"),
        r#type: v1::VifType::Physical.into(),
        vrf: 1,
        addresses: vec![format!("{address}/24")],
        flags: Some(v1::VifFlags { policy: true, ..Default::default() }),
        ..Default::default()
    };
    let nexthop = |id, kind| v1::Nexthop { id, vrf: 1, kind: Some(kind), ..Default::default() };
    let resolve = |oif| Kind::Resolve(v1::ResolveNexthop { oif, ..Default::default() });
    let route = |prefix: &str, nexthop| v1::Route { vrf: 1, prefix: prefix.to_owned(), nexthop, ..Default::default() };
    v1::ForwardingState {
        generation: 1,
        node: "router".to_owned(),
        vrfs: vec![v1::Vrf { id: 1, name: "lan".to_owned() }],
        vifs: vec![vif(1, "192.0.2.1"), vif(2, "198.51.100.1")],
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
        ],
        ..Default::default()
    }
}

/// RFC 1191 §4, RFC 1812 §5.2.6: the MTU of the next hop's link is told with DF, and fragmented to without.
#[test]
fn case_07_the_smaller_of_vif_and_device_is_the_limit() -> Result<(), String> {
    scenario("case_07_the_smaller_of_vif_and_device_is_the_limit", || {
        for (how, nic) in drivers() {
            let router = Router::start(nic, [1500, 1500])?;
            router.until_reachable()?;
            // As at a cloud's. Then the link gets wider, and narrow again, while the node runs.
            for mtu in [1450_u16, 1500, 1400] {
                router.r.ip(&format!("link set e2 mtu {mtu}"))?;
                router.b.namespace().ip(&format!("link set {} mtu {mtu}", router.b.device()))?;
                router.until_mtu(mtu.into())?;
                let large = Ping::to(B).size(1500 - ECHO);
                let refused = router.a.ping(&large.do_not_fragment())?;
                if mtu < 1500 {
                    refused.none_answered()?;
                    assert_eq!(router.a.learnt_mtu(B)?, Some(mtu.into()), "{how}");
                    router.a.ping(&Ping::to(B).size(mtu - ECHO).do_not_fragment())?.all_answered()?;
                    router.a.forget()?;
                } else {
                    refused.all_answered()?;
                }
                router.a.ping(&large)?.all_answered()?;
                router.a.forget()?;
            }
            let shown = router.node.host_ctl(&["vif", "--get", "2"])?;
            assert!(shown.contains("MTU: 1400 (configured 1500)"), "{how}: {shown}");
            let report = IperfServer::start(&router.b, 5201)?.test(&router.a, B, 1, 1, false)?;
            assert!(report.octets > 100_000, "{how}: {report}");
            let log = router.node.log();
            let told: Vec<_> = log.lines().filter(|line| line.contains("WARN") && line.contains("1450")).collect();
            assert!(told.len() == 1 && told[0].contains("1500"), "{how}: {log}");
        }
        Ok(())
    })
}

/// A socket of each host, for datagrams that the sender's own stack does not fragment as long as its device takes them.
struct Datagrams {
    a: UdpSocket,
    b: UdpSocket,
}

impl Datagrams {
    fn open(router: &Router) -> Result<Self, LabError> {
        // Without DF.
        router.a.namespace().sysctl("ipv4/ip_no_pmtu_disc", "1")?;
        let socket = |host: &Host, own: &str| {
            host.namespace().inside(|| {
                let socket = UdpSocket::bind((own, 7000)).map_err(LabError::io("bind"))?;
                socket.set_read_timeout(Some(Duration::from_millis(500))).map_err(LabError::io("set a timeout"))?;
                Ok(socket)
            })
        };
        Ok(Self { a: socket(&router.a, A)?, b: socket(&router.b, B)? })
    }

    /// Sends so many, each of an IP packet with so many octets; returns how many arrived and were answered.
    fn exchange(&self, count: usize, octets: u16) -> Result<usize, LabError> {
        let payload = vec![0x55; usize::from(octets - ECHO)];
        let mut room = vec![0; 10_000];
        let mut answered = 0;
        for _ in 0..count {
            self.a.send_to(&payload, (B, 7000)).map_err(LabError::io("send"))?;
            let Ok((got, from)) = self.b.recv_from(&mut room) else { continue };
            self.b.send_to(b"got it", from).map_err(LabError::io("answer"))?;
            answered += usize::from(got == payload.len() && self.a.recv_from(&mut room).is_ok());
        }
        Ok(answered)
    }
}

/// Flows of the datagrams, all in hardware.
fn until_hardware(client: &NodeClient, datagrams: &Datagrams) -> Result<(), LabError> {
    until("the datagrams' flow to be in hardware", LIMIT, || {
        datagrams.exchange(1, 100)?;
        let flows = client.flows(v1::ListFlowsRequest { destination_port: Some(7000), ..Default::default() })?;
        let all = flows.iter().all(|flow| flow.tier() == FlowTier::Hardware);
        Ok((flows.len() == 2 && all).then_some(()))
    })
}

/// A peer that sends more than the MTU of the link, as far as the devices let it.
#[test]
fn case_12_packets_above_the_vifs_mtu_are_fragmented_in_every_tier() -> Result<(), String> {
    scenario("case_12_packets_above_the_vifs_mtu_are_fragmented_in_every_tier", || {
        // In the room for a tag, and on a jumbo device.
        for (device, octets) in [(1500, 1504), (9000, 4000)] {
            for (how, nic) in drivers() {
                let router = Router::start(nic.clone(), [device, 1500])?;
                router.a.namespace().ip(&format!("link set {} mtu {octets}", router.a.device()))?;
                router.until_reachable()?;
                let datagrams = Datagrams::open(&router)?;
                if nic.is_some() {
                    until_hardware(router.node.client(), &datagrams)?;
                }
                assert_eq!(datagrams.exchange(50, octets)?, 50, "{how}, device of {device}: {}", router.node.log());
                assert_eq!(datagrams.exchange(20, 1500)?, 20, "{how}, device of {device}");
            }
        }
        Ok(())
    })
}

/// A device that gets a larger MTU while the node runs, and one that is made again with a larger one.
#[test]
fn case_12_a_port_grows_with_its_device() -> Result<(), String> {
    scenario("case_12_a_port_grows_with_its_device", || {
        for (how, nic) in drivers() {
            for is_made_again in [false, true] {
                let router = Router::start(nic.clone(), [1500, 1500])?;
                router.until_reachable()?;
                if is_made_again {
                    Veth::unplug(&router.r, "e1")?;
                    router.until_oper(1, v1::OperState::Down)?;
                    plug(&router.r, &router.a, 1, 9000)?;
                } else {
                    router.r.ip("link set e1 mtu 9000")?;
                }
                router.a.namespace().ip(&format!("link set {} mtu 4000", router.a.device()))?;
                let datagrams = Datagrams::open(&router)?;
                let grown = format!("{how}, made again {is_made_again}: a datagram of 4000 octets to arrive");
                until(&grown, LIMIT, || Ok((datagrams.exchange(1, 4000)? == 1).then_some(())))?;
                // Without those that came late.
                drop(datagrams);
                let datagrams = Datagrams::open(&router)?;
                if nic.is_some() {
                    until_hardware(router.node.client(), &datagrams)?;
                }
                assert_eq!(datagrams.exchange(20, 4000)?, 20, "{how}: {}", router.node.log());
                assert_eq!(datagrams.exchange(20, 1500)?, 20, "{how}");
                // The vif may be a jumbo one, too, from now on.
                let mut state = state();
                state.generation = 2;
                state.vifs.iter_mut().for_each(|vif| vif.mtu = 9000);
                router.node.client().apply_state(state)?;
                until("vif 1 to have the MTU of its device", LIMIT, || {
                    Ok((router.node.client().vif(1)?.mtu == 9000).then_some(()))
                })?;
            }
        }
        Ok(())
    })
}

#[test]
fn case_13_a_device_that_is_made_again_is_taken_up_again() -> Result<(), String> {
    scenario("case_13_a_device_that_is_made_again_is_taken_up_again", || {
        for (how, nic) in drivers() {
            let mut router = Router::start(nic.clone(), [1500, 1500])?;
            router.until_reachable()?;
            let mut datagrams = Datagrams::open(&router)?;
            let client = router.node.client();
            // Away for a while, and replaced before anybody looks.
            for noticed in [true, false] {
                if nic.is_some() {
                    until_hardware(client, &datagrams)?;
                }
                drop(datagrams);
                Veth::unplug(&router.r, "e2")?;
                if noticed {
                    router.until_oper(2, v1::OperState::Down)?;
                    assert!(client.vif(2)?.oper_error.contains("e2"), "{how}: no word on why vif 2 is down");
                    let flows = client.flows(v1::ListFlowsRequest::default())?;
                    assert!(flows.iter().all(|flow| flow.tier() != FlowTier::Hardware), "{how}: {flows:#?}");
                }
                plug(&router.r, &router.b, 2, 1500)?;
                router.until_reachable()?;
                router.until_oper(2, v1::OperState::Up)?;
                datagrams = Datagrams::open(&router)?;
                assert_eq!(datagrams.exchange(20, 1500)?, 20, "{how}: {}", router.node.log());
            }
            if nic.is_some() {
                until_hardware(client, &datagrams)?;
                assert_eq!(datagrams.exchange(20, 1500)?, 20, "{how}, in hardware");
            }
            router.node.alive()?;
        }
        Ok(())
    })
}
