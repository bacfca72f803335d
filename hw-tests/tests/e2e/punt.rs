//! What is for the node's own host: its kernel answers behind a TAP or TUN device.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use hw_tests::lab::{L3vpn, LabError, Options, Ping, PingReport, Site, Tenant, scenario};
use proto::v1::{self, nexthop::Kind};

const HOST_VIF: u32 = 50;
/// Encap toward the host's stack.
const TO_HOST: u32 = 560;
/// Blue's Receive at CE1.
const RECEIVE: u32 = 504;
/// BGP: the daemon that most nodes have beside them.
const PORT: u16 = 179;

/// The host's address on a TAP device. The node does not learn it: nobody may claim the gateway's address by ARP.
const HOST_MAC: &str = "02:00:00:00:00:50";

/// A Host vif in VRF 18 at CE1, with Ethernet (TAP) or without (TUN); ICMP echo and BGP to the gateway's address go there.
fn host_vif(raw_ip: bool) -> v1::ForwardingDelta {
    let encap_data = if raw_ip { String::new() } else { format!("{HOST_MAC} 00:00:5e:00:01:00 0800") };
    let nexthop = |id, kind| v1::Nexthop { id, vrf: 18, kind: Some(kind), ..Default::default() };
    let listener = |proto, first: u16, last: u16| v1::Listener {
        proto,
        first_port: first.into(),
        last_port: last.into(),
        nexthop: TO_HOST,
    };
    // Echo both ways, the daemon, and the answers to what the host itself connects to.
    let listeners = vec![listener(1, 0, 0), listener(1, 8, 8), listener(6, PORT, PORT), listener(6, 32_768, 60_999)];
    let receive = v1::ReceiveNexthop { listeners, ..Default::default() };
    v1::ForwardingDelta {
        vifs: vec![v1::Vif {
            id: HOST_VIF,
            name: "host".to_owned(),
            device: "sg-host".to_owned(),
            r#type: v1::VifType::Host.into(),
            vrf: 18,
            addresses: vec!["169.254.1.1/30".to_owned()],
            flags: Some(v1::VifFlags { policy: true, raw_ip, ..Default::default() }),
            ..Default::default()
        }],
        nexthops: vec![
            nexthop(TO_HOST, Kind::Encap(v1::EncapNexthop { oif: HOST_VIF, encap_data })),
            nexthop(RECEIVE, Kind::Receive(receive)),
        ],
        ..Default::default()
    }
}

#[test]
fn the_nodes_own_host_is_reached_over_a_tap() -> Result<(), String> {
    scenario("the_nodes_own_host_is_reached_over_a_tap", || own_host(false))
}

#[test]
fn the_nodes_own_host_is_reached_over_a_tun() -> Result<(), String> {
    scenario("the_nodes_own_host_is_reached_over_a_tun", || own_host(true))
}

fn own_host(raw_ip: bool) -> Result<(), LabError> {
    let mut l3vpn = L3vpn::new(&Options::default())?;
    let node = l3vpn.node(Site::Ce1)?;
    node.client().change(host_vif(raw_ip))?;
    assert_eq!(node.client().vif(HOST_VIF)?.driver, "net_tap");

    let kernel = l3vpn.ce_namespace(Site::Ce1);
    // AF_PACKET leaves the kernel its copy of each frame. What is for the gateway's address must come over the Host vif only.
    for device in ["all", "ens224", "ens225", "ens161", "ens256"] {
        kernel.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "1")?;
    }
    // The host has the gateway's address, and its way to everybody is the node.
    if !raw_ip {
        kernel.ip(&format!("link set sg-host address {HOST_MAC}"))?;
    }
    kernel.ip("addr add 169.254.1.2/30 dev sg-host")?;
    kernel.ip("addr add 192.168.100.1/32 dev sg-host")?;
    kernel.ip("route add default via 169.254.1.1 src 192.168.100.1")?;

    // A daemon that echoes one line to each who connects.
    let listener = kernel.inside(|| {
        TcpListener::bind(("192.168.100.1", PORT)).map_err(LabError::io("listen in the namespace of CE1"))
    })?;
    let io = |what: &'static str| LabError::io(what);
    let clients = [
        (l3vpn.host(Tenant::Blue, Site::Ce1), "192.168.100.100"),
        (l3vpn.host(Tenant::Blue, Site::Ce2), "192.168.1.100"),
    ];
    for (host, address) in clients {
        host.ping(&Ping::to("192.168.100.1"))?.all_answered()?;
        let mut client = host.namespace().inside(|| {
            let gateway = std::net::SocketAddr::from(([192, 168, 100, 1], PORT));
            TcpStream::connect_timeout(&gateway, Duration::from_secs(5)).map_err(io("connect to the daemon"))
        })?;
        let (mut daemon, peer) = listener.accept().map_err(io("accept"))?;
        assert_eq!(peer.ip().to_string(), address);
        for end in [&client, &daemon] {
            end.set_read_timeout(Some(Duration::from_secs(5))).map_err(io("set a timeout"))?;
        }
        let mut buffer = [0; 5];
        client.write_all(b"hello").map_err(io("send to the daemon"))?;
        daemon.read_exact(&mut buffer).map_err(io("receive at the daemon"))?;
        daemon.write_all(&buffer).map_err(io("answer"))?;
        client.read_exact(&mut buffer).map_err(io("receive the answer"))?;
        assert_eq!(&buffer, b"hello");
    }
    // It was the kernel that answered, not the node.
    let punted = node.client().status()?.packets.unwrap_or_default().punted;
    assert!(punted >= 10, "only {punted} packets were punted");

    // The host begins by itself, too: to its own site and to the other one.
    for destination in ["192.168.100.100", "192.168.1.100"] {
        let ping = Ping::to(destination);
        PingReport::from_output(ping.spawn(kernel)?.wait(ping.limit())?)?.all_answered()?;
    }
    // A port that nobody listens on in the node's tables stays closed to the host.
    let closed = l3vpn.host(Tenant::Blue, Site::Ce1).curl_output("http://192.168.100.1:8080/")?;
    assert!(!closed.status.success(), "{closed:?}");
    // Green's gateway has the same address and no host behind it: the node answers itself.
    l3vpn.host(Tenant::Green, Site::Ce1).ping(&Ping::to("192.168.100.1"))?.all_answered()?;
    l3vpn.assert_healthy()
}
