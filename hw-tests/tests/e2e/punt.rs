//! What is for the node's own host: its kernel answers behind a TAP.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use hw_tests::lab::{L3vpn, LabError, Options, Ping, PingReport, Site, Tenant, scenario};
use proto::v1::{self, nexthop::Kind};

const HOST_VIF: u32 = 50;
/// Resolve toward the host's stack.
const TO_HOST: u32 = 560;
/// Blue's Receive at CE1.
const RECEIVE: u32 = 504;
/// BGP: the daemon that most nodes have beside them.
const PORT: u16 = 179;

/// A Host vif in VRF 18 at CE1; ICMP echo and BGP to the gateway's address go there.
fn host_vif() -> v1::ForwardingDelta {
    let nexthop = |id, kind| v1::Nexthop { id, vrf: 18, kind: Some(kind), ..Default::default() };
    let listener =
        |proto, port: u16| v1::Listener { proto, first_port: port.into(), nexthop: TO_HOST, ..Default::default() };
    let receive = v1::ReceiveNexthop { listeners: vec![listener(1, 8), listener(6, PORT)], ..Default::default() };
    v1::ForwardingDelta {
        vifs: vec![v1::Vif {
            id: HOST_VIF,
            name: "host".to_owned(),
            device: "sg-host".to_owned(),
            r#type: v1::VifType::Host.into(),
            vrf: 18,
            addresses: vec!["169.254.1.1/30".to_owned()],
            flags: Some(v1::VifFlags { policy: true, ..Default::default() }),
            ..Default::default()
        }],
        nexthops: vec![
            nexthop(TO_HOST, Kind::Resolve(v1::ResolveNexthop { oif: HOST_VIF })),
            nexthop(RECEIVE, Kind::Receive(receive)),
        ],
        ..Default::default()
    }
}

#[test]
fn the_nodes_own_host_is_reached_over_its_vif() -> Result<(), String> {
    scenario("the_nodes_own_host_is_reached_over_its_vif", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let node = l3vpn.node(Site::Ce1)?;
        node.client().change(host_vif())?;
        assert_eq!(node.client().vif(HOST_VIF)?.driver, "net_tap");

        // The host has the gateway's address, and its way to everybody is the node.
        let kernel = l3vpn.ce_namespace(Site::Ce1);
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
    })
}
