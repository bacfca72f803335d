//! Gateways by address: a router whose MAC changes without a word, and one of two that dies, under traffic.

use std::time::Duration;

use hw_tests::lab::{End, Lab, LabError, Namespace, Node, NodeConfig, Ping, Process, Veth, scenario, until};
use proto::v1;

/// A poll every three seconds, three questions a second apart, and time for a busy machine.
const SECONDS: Duration = Duration::from_secs(20);
const FAR: &str = "203.0.113.9";
const FAR6: &str = "2001:db8:ffff::9";
/// The host's addresses: answers to the first come back through the first gateway, to the second through the second one, whichever
/// gateway the requests went through.
const HOSTS: [&str; 2] = ["10.0.0.7", "10.0.0.8"];

/// A node between a LAN and two gateways, which share what is far away by ECMP; IPv6 goes through the first gateway's link-local address.
const STATE: &str = r#"{
  "generation": "1", "node": "router",
  "vrfs": [{"id": 1, "name": "main"}],
  "vifs": [
    {"id": 1, "name": "lan", "type": "PHYSICAL", "vrf": 1, "flags": {"policy": true},
      "addresses": ["10.0.0.1/24", "2001:db8:1::1/64"]},
    {"id": 2, "name": "wan0", "type": "PHYSICAL", "vrf": 1, "flags": {"policy": true}, "addresses": ["198.51.100.1/24"]},
    {"id": 3, "name": "wan1", "type": "PHYSICAL", "vrf": 1, "flags": {"policy": true}, "addresses": ["192.0.2.1/24"]}
  ],
  "nexthops": [
    {"id": 10, "vrf": 1, "resolve": {"oif": 1}},
    {"id": 12, "vrf": 1, "resolve": {"oif": 2, "gateway": "198.51.100.254"}},
    {"id": 13, "vrf": 1, "resolve": {"oif": 3, "gateway": "192.0.2.254"}},
    {"id": 14, "vrf": 1, "composite": {"members": [{"nexthop": 12}, {"nexthop": 13}]}},
    {"id": 16, "vrf": 1, "resolve": {"oif": 2, "gateway": "fe80::fe"}}
  ],
  "routes": [
    {"vrf": 1, "prefix": "10.0.0.0/24", "nexthop": 10},
    {"vrf": 1, "prefix": "2001:db8:1::/64", "nexthop": 10},
    {"vrf": 1, "prefix": "0.0.0.0/0", "nexthop": 14},
    {"vrf": 1, "prefix": "::/0", "nexthop": 16}
  ]
}"#;

struct Routers {
    node: Node,
    host: Namespace,
    gateways: [Namespace; 2],
    far: Namespace,
    _middle: Namespace,
    _lab: Lab,
}

/// host — node — two gateways — far.
fn routers() -> Result<Routers, LabError> {
    let lab = Lab::new()?;
    let host = lab.namespace("host")?;
    let middle = lab.namespace("node")?;
    let gateways = [lab.namespace("gateway0")?, lab.namespace("gateway1")?];
    let far = lab.namespace("far")?;
    // The kernel of the node's namespace has no part in this.
    middle.silence_ipv6()?;
    for namespace in [&host, &gateways[0], &gateways[1], &far] {
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
            namespace.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        }
    }
    fn end<'a>(namespace: &'a Namespace, device: &'a str, mac: &'a str) -> End<'a> {
        End { namespace, device, mac }
    }
    let plug = |a: End<'_>, b: End<'_>| Veth::plug(a, b, 1500);
    plug(end(&middle, "lan", "02:00:00:00:00:01"), end(&host, "eth0", "02:00:00:00:00:07"))?;
    plug(end(&middle, "wan0", "02:00:00:00:00:02"), end(&gateways[0], "near", "02:00:00:00:00:f0"))?;
    plug(end(&middle, "wan1", "02:00:00:00:00:03"), end(&gateways[1], "near", "02:00:00:00:00:f1"))?;
    plug(end(&gateways[0], "far", "02:00:00:00:01:00"), end(&far, "eth0", "02:00:00:00:02:00"))?;
    plug(end(&gateways[1], "far", "02:00:00:00:01:01"), end(&far, "eth1", "02:00:00:00:02:01"))?;

    for address in HOSTS {
        host.ip(&format!("addr add {address}/24 dev eth0"))?;
    }
    host.ip("addr add 2001:db8:1::7/64 dev eth0 nodad")?;
    host.ip("route add default via 10.0.0.1")?;
    host.ip("-6 route add default via 2001:db8:1::1")?;
    for (i, (gateway, own)) in gateways.iter().zip(["198.51.100", "192.0.2"]).enumerate() {
        gateway.sysctl("ipv4/ip_forward", "1")?;
        gateway.sysctl("ipv6/conf/all/forwarding", "1")?;
        gateway.ip(&format!("addr add {own}.254/24 dev near"))?;
        gateway.ip(&format!("addr add 10.{i}.9.1/24 dev far"))?;
        gateway.ip(&format!("route add 10.0.0.0/24 via {own}.1"))?;
        gateway.ip(&format!("route add {FAR}/32 via 10.{i}.9.2"))?;
        far.ip(&format!("addr add 10.{i}.9.2/24 dev eth{i}"))?;
    }
    // IPv6 knows the first gateway only.
    gateways[0].ip("addr add fe80::fe/64 dev near nodad")?;
    gateways[0].ip("addr add 2001:db8:9::1/64 dev far nodad")?;
    gateways[0].ip("-6 route add 2001:db8:1::/64 via fe80::ff:fe00:2 dev near")?;
    gateways[0].ip(&format!("-6 route add {FAR6}/128 via 2001:db8:9::2"))?;
    far.ip("addr add 2001:db8:9::2/64 dev eth0 nodad")?;
    far.ip("link set lo up")?;
    far.ip(&format!("addr add {FAR}/32 dev lo"))?;
    far.ip(&format!("addr add {FAR6}/128 dev lo nodad"))?;
    far.ip("-6 route add 2001:db8:1::/64 via 2001:db8:9::1")?;
    for (i, address) in HOSTS.iter().enumerate() {
        far.ip(&format!("route add {address}/32 via 10.{i}.9.1"))?;
    }

    let state: v1::ForwardingState =
        proto::json::parse(STATE, "state").map_err(|error| LabError::Violated(error.to_string()))?;
    let config = NodeConfig { state, workers: 2, last_state: None, nic: None };
    let node = Node::start(&lab, &middle, &config)?;
    Ok(Routers { node, host, gateways, far, _middle: middle, _lab: lab })
}

impl Routers {
    /// Is one ping from an address of the host answered?
    fn answers(&self, from: &str) -> Result<bool, LabError> {
        let to = if from.contains(':') { FAR6 } else { FAR };
        let arguments = ["-n", "-c", "1", "-W", "1", "-I", from, to];
        Ok(self.host.run("ping", &arguments, Duration::from_secs(5))?.status.success())
    }

    fn until_answered(&self, what: &str, from: &str) -> Result<(), LabError> {
        until(&format!("{what}: an answer to {from}"), SECONDS, || Ok(self.answers(from)?.then_some(())))
    }

    /// The node's flows from an address of the host.
    fn flows(&self, from: &str) -> Result<Vec<v1::Flow>, LabError> {
        self.node.client().flows(v1::ListFlowsRequest { source: from.to_owned(), ..Default::default() })
    }

    /// 300 pings in 15 s that leave through this vif. ECMP decides by identifier: they are tried until it has decided for this one.
    fn ping_through(&self, from: &str, vif: u32) -> Result<Process, LabError> {
        for id in 1..=32 {
            let id_text = format!("{id}");
            let to = ["-n", "-q", "-e", &id_text, "-c", "300", "-i", "0.05", "-W", "1", "-I", from, FAR];
            let running = self.host.spawn("ping", &to)?;
            let flow = until(&format!("the flow of ping {id}"), SECONDS, || {
                Ok(self.flows(from)?.into_iter().find(|flow| flow.source_port == id && flow.packets > 0))
            })?;
            if leaves_on(&flow, vif) {
                return Ok(running);
            }
        }
        Err(LabError::Violated(format!("none of 32 flows leaves through vif {vif}")))
    }

    /// What `host-ctl nh` says of a nexthop's gateway.
    fn gateway(&self, nexthop: u32) -> Result<String, LabError> {
        let text = self.node.host_ctl(&["nh", "--get", &nexthop.to_string()])?;
        Ok(text.lines().find(|line| line.contains("Gateway:")).unwrap_or_default().trim().to_owned())
    }

    fn until_gateway(&self, nexthop: u32, wanted: &str) -> Result<(), LabError> {
        until(&format!("nexthop {nexthop} to have {wanted}"), SECONDS, || {
            Ok(self.gateway(nexthop)?.contains(wanted).then_some(()))
        })
    }
}

/// Do the flow's packets leave on this vif?
fn leaves_on(flow: &v1::Flow, vif: u32) -> bool {
    flow.ops.last().is_some_and(|op| *op == format!("output vif {vif}"))
}

#[test]
fn a_gateway_that_changes_its_mac_without_a_word_is_found_again() -> Result<(), String> {
    scenario("a_gateway_that_changes_its_mac_without_a_word_is_found_again", || {
        let routers = routers()?;
        let all = [HOSTS[0], HOSTS[1], "2001:db8:1::7"];
        for from in all {
            routers.until_answered("at the start", from)?;
        }
        assert_eq!(routers.gateway(12)?, "Gateway:198.51.100.254 Mac:02:00:00:00:00:f0 State:Reachable");
        let gateway = &routers.gateways[0];
        gateway.sysctl("ipv4/conf/near/arp_notify", "0")?;
        gateway.ip("link set near address 02:00:00:00:00:fa")?;
        for from in all {
            routers.until_answered("after the change", from)?;
        }
        routers.until_gateway(12, "198.51.100.254 Mac:02:00:00:00:00:fa State:Reachable")?;
        routers.until_gateway(16, "fe80::fe Mac:02:00:00:00:00:fa State:Reachable")?;
        let report = Ping::to(FAR).count(20).run(&routers.host)?;
        report.all_answered().map(drop)
    })
}

#[test]
fn a_dead_gateways_traffic_goes_through_the_other_and_comes_back() -> Result<(), String> {
    scenario("a_dead_gateways_traffic_goes_through_the_other_and_comes_back", || {
        let routers = routers()?;
        for from in HOSTS {
            routers.until_answered("at the start", from)?;
        }
        let [first, second] = HOSTS;
        let running = routers.ping_through(second, 3)?;

        // The link stays up; whoever is behind it does nothing any more. Answers take the other way at once.
        routers.gateways[0].ip("addr del 198.51.100.254/24 dev near")?;
        routers.gateways[0].sysctl("ipv4/ip_forward", "0")?;
        routers.far.ip(&format!("route replace {first}/32 via 10.1.9.1"))?;
        routers.until_gateway(12, "State:Failed")?;
        routers.until_answered("with one gateway dead", first)?;
        // That one has noticed nothing.
        let output = running.wait(Duration::from_secs(30))?;
        assert!(output.stdout.contains(" 0% packet loss"), "{}", output.stdout);
        // Every flow, new or old, has a way.
        let report = Ping::to(FAR).count(40).run(&routers.host)?;
        report.all_answered()?;

        routers.gateways[0].sysctl("ipv4/ip_forward", "1")?;
        routers.gateways[0].ip("addr add 198.51.100.254/24 dev near")?;
        routers.gateways[0].ip("route replace 10.0.0.0/24 via 198.51.100.1")?;
        routers.far.ip(&format!("route replace {first}/32 via 10.0.9.1"))?;
        routers.until_gateway(12, "Mac:02:00:00:00:00:f0 State:Reachable")?;
        routers.until_answered("with both gateways again", first)?;
        until("a flow to leave through the first gateway again", SECONDS, || {
            routers.answers(first)?;
            Ok(routers.flows(first)?.iter().any(|flow| leaves_on(flow, 2)).then_some(()))
        })
    })
}
