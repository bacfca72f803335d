//! Walk A: one tenant between two sites.

use std::time::Duration;

use hw_tests::lab::{
    Capture, Host, IperfServer, L3vpn, LabError, Options, Ping, Site, Tenant, WebServer, check_capture, scenario, until,
};
use proto::v1;

/// Tenant MTU 1500 over an underlay of 1500: 20 octets of IPv4, 8 of UDP, 4 of MPLS less (RFC 7510).
const PATH_MTU: u32 = 1468;

#[test]
fn l3vpn_between_two_sites() -> Result<(), String> {
    scenario("l3vpn_between_two_sites", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let captures = l3vpn
            .transits()?
            .iter()
            .map(|transit| Capture::start(l3vpn.lab(), transit, "to-ce2", 5000))
            .collect::<Result<Vec<_>, _>>()?;
        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));

        // Reachability: each other, the near and the far gateway.
        for (host, destinations) in [
            (host1, ["192.168.1.100", "192.168.100.1", "192.168.1.1"]),
            (host2, ["192.168.100.100", "192.168.1.1", "192.168.100.1"]),
        ] {
            for destination in destinations {
                host.ping(&Ping::to(destination))?.all_answered()?;
            }
        }
        sizes(host1, host2)?;

        // Two decrements: one at each gateway.
        assert_eq!(host1.traceroute("192.168.1.100")?, ["192.168.100.1", "192.168.1.1", "192.168.1.100"]);
        assert_eq!(host2.traceroute("192.168.100.100")?, ["192.168.1.1", "192.168.100.1", "192.168.100.100"]);

        // TCP: a page of one segment, one of many, and bulk both ways. The MSS is clamped to the path, so nothing is lost to
        // its MTU although the host has forgotten it.
        host1.forget()?;
        host2.forget()?;
        let page = Tenant::Blue.page(Site::Ce2);
        let _web = WebServer::start(l3vpn.lab(), host2, &page)?;
        assert_eq!(host1.curl("http://192.168.1.100/")?, page);
        let large = host1.curl("http://192.168.1.100/large.txt")?;
        assert!(large.len() >= 400_000 && large.lines().all(|line| line == page), "{} octets", large.len());
        let server = IperfServer::start(host2, 5201)?;
        for reverse in [false, true] {
            let report = server.test(host1, "192.168.1.100", 2, 4, reverse)?;
            assert!(report.octets > 1_000_000, "{report}");
        }
        assert_eq!(host1.learnt_mtu("192.168.1.100")?, None, "TCP ran into the path MTU: its MSS was not clamped");

        flows_are_those_of_walk_a(&l3vpn)?;
        for capture in captures {
            let verdict = check_capture(&capture.stop()?)?;
            assert!(verdict.complaints.is_empty(), "{:#?}", verdict.complaints);
            assert!(verdict.protocols.keys().any(|chain| chain.contains("udp:mpls")), "{:#?}", verdict.protocols);
        }
        l3vpn.assert_healthy()
    })
}

/// Packets up to the path MTU, larger ones with and without DF.
fn sizes(host1: &Host, host2: &Host) -> Result<(), LabError> {
    // 28 octets of IPv4 and ICMP around the data.
    host1.ping(&Ping::to("192.168.1.100").size(1440).do_not_fragment())?.all_answered()?;
    // Fragmented by the node before encapsulation, by the host, and by both.
    host1.ping(&Ping::to("192.168.1.100").size(1472))?.all_answered()?;
    host2.ping(&Ping::to("192.168.100.100").size(1472))?.all_answered()?;
    host1.ping(&Ping::to("192.168.1.100").size(4000))?.all_answered()?;
    host2.ping(&Ping::to("192.168.100.100").size(8000))?.all_answered()?;
    // DF: the gateway says how much fits (RFC 1191 §4), and the host heeds it.
    host1.ping(&Ping::to("192.168.1.100").size(1472).do_not_fragment())?.none_answered()?;
    assert_eq!(host1.learnt_mtu("192.168.1.100")?, Some(PATH_MTU));
    host2.ping(&Ping::to("192.168.100.100").size(1472).do_not_fragment())?.none_answered()?;
    assert_eq!(host2.learnt_mtu("192.168.100.100")?, Some(PATH_MTU));
    Ok(())
}

/// What `flow --list` shows at CE1 is the pair of walk A.
fn flows_are_those_of_walk_a(l3vpn: &L3vpn) -> Result<(), LabError> {
    let request = v1::ListFlowsRequest {
        vrf: Some(18),
        proto: Some(6),
        source: "192.168.100.100".to_owned(),
        destination: "192.168.1.100".to_owned(),
        destination_port: Some(80),
        ..Default::default()
    };
    let client = l3vpn.node(Site::Ce1)?.client();
    let flows = client.flows(request)?;
    assert!(!flows.is_empty(), "no flow to port 80 at CE1");
    for flow in flows {
        assert_eq!(flow.action(), v1::FlowAction::Forward);
        assert_eq!(flow.label, Some(280));
        assert_eq!(flow.nexthop, 489);
        assert_eq!(flow.source_nexthop, 501);
        assert!(matches!(flow.ecmp_index.first(), Some(0 | 1)), "{:?}", flow.ecmp_index);
        assert!((49_152..=65_535).contains(&flow.tunnel_source_port), "{}", flow.tunnel_source_port);
        assert_eq!(flow.tier(), v1::FlowTier::Software);
        assert!(!flow.not_offloaded_reason.is_empty());
        let pair = client.flow(flow.index)?;
        let reverse = pair.reverse.unwrap_or_default();
        assert_eq!((reverse.source.as_str(), reverse.source_port), ("192.168.1.100", 80));
        assert_eq!(reverse.source_nexthop, 489);
    }
    Ok(())
}

#[test]
fn udp6_and_tcp6_tenants() -> Result<(), String> {
    scenario("udp6_and_tcp6_tenants", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
        for (host, destinations) in [
            (host1, ["fd00:1::100", "fd00:100::1", "fd00:1::1"]),
            (host2, ["fd00:100::100", "fd00:1::1", "fd00:100::1"]),
        ] {
            for destination in destinations {
                host.ping(&Ping::to(destination))?.all_answered()?;
            }
        }
        assert_eq!(host1.traceroute("fd00:1::100")?, ["fd00:100::1", "fd00:1::1", "fd00:1::100"]);

        // Too big for the path: routers do not fragment (RFC 8200 §5), the host learns and fragments by itself.
        let large = Ping::to("fd00:1::100").size(1452);
        host1.ping(&large)?;
        assert_eq!(host1.learnt_mtu("fd00:1::100")?, Some(PATH_MTU));
        host1.ping(&large)?.all_answered()?;

        let page = Tenant::Blue.page(Site::Ce2);
        let _web = WebServer::start(l3vpn.lab(), host2, &page)?;
        assert_eq!(host1.curl("http://[fd00:1::100]/")?, page);
        assert!(host1.curl("http://[fd00:1::100]/large.txt")?.len() >= 400_000);
        let server = IperfServer::start(host2, 5201)?;
        let report = server.test(host1, "fd00:1::100", 2, 2, true)?;
        assert!(report.octets > 1_000_000, "{report}");
        udp6_echo(host1, host2)?;
        l3vpn.assert_healthy()
    })
}

/// A datagram each way between two real sockets.
fn udp6_echo(client: &Host, server: &Host) -> Result<(), LabError> {
    use std::net::UdpSocket;
    let socket = |host: &Host, address: &str| {
        host.namespace().inside(|| UdpSocket::bind(address).map_err(LabError::io(format!("bind {address}"))))
    };
    let (near, far) = (socket(client, "[fd00:100::100]:7000")?, socket(server, "[fd00:1::100]:7001")?);
    let io = |what: &'static str| LabError::io(what);
    for end in [&near, &far] {
        end.set_read_timeout(Some(Duration::from_secs(5))).map_err(io("set a timeout"))?;
    }
    let mut buffer = [0; 64];
    near.send_to(b"ping", "[fd00:1::100]:7001").map_err(io("send a datagram"))?;
    let (length, from) = far.recv_from(&mut buffer).map_err(io("receive a datagram at the far end"))?;
    assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"ping"[..], "[fd00:100::100]:7000"));
    far.send_to(b"pong", from).map_err(io("answer a datagram"))?;
    let (length, from) = near.recv_from(&mut buffer).map_err(io("receive the answer"))?;
    assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"pong"[..], "[fd00:1::100]:7001"));
    Ok(())
}

#[test]
fn two_workers_share_the_flows() -> Result<(), String> {
    scenario("two_workers_share_the_flows", || {
        let mut l3vpn = L3vpn::new(&Options { workers: 2, ..Options::default() })?;
        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
        let server = IperfServer::start(host2, 5201)?;
        for reverse in [false, true] {
            let running = server.spawn(host1, "192.168.1.100", 3, 16, reverse)?;
            both_workers_have_flows(&l3vpn)?;
            let report = IperfServer::finish(running, 3)?;
            assert!(report.octets > 1_000_000, "{report}");
        }
        // Fragments too: head and tail may come in at different workers.
        host1.ping(&Ping::to("192.168.1.100").size(4000).count(10))?.all_answered()?;
        l3vpn.assert_healthy()
    })
}

/// While 16 connections run, each worker of both nodes has some of them.
fn both_workers_have_flows(l3vpn: &L3vpn) -> Result<(), LabError> {
    for site in [Site::Ce1, Site::Ce2] {
        let client = l3vpn.node(site)?.client();
        assert_eq!(client.status()?.workers, 2);
        until(&format!("flows at both workers of {}", site.node()), Duration::from_secs(3), || {
            let flows = client.flows(v1::ListFlowsRequest { proto: Some(6), ..Default::default() })?;
            let of = |worker| flows.iter().filter(|flow| flow.worker == worker).count();
            Ok((flows.len() >= 32 && of(0) >= 4 && of(1) >= 4).then_some(()))
        })?;
    }
    Ok(())
}
