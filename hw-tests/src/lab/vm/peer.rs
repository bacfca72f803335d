//! A node and a stock kernel as the two ends of an IPsec tunnel, with a router between them.
//!
//! ```text
//! host 192.168.100.100 ── node 172.28.13.36 ── transit ── eth0 172.28.23.36 of the machine: 192.168.1.100
//! ```

use std::{collections::BTreeMap, time::Duration};

use proto::v1::{self, nexthop::Kind};

use super::{
    Vm,
    sa::{Direction, Outside, SaAtPeer, SharedSa},
};

use crate::lab::{
    End, Host, HostConfig, Lab, LabError, Namespace, Node, NodeConfig, Veth, assert_conserved,
    forwarding::{nexthop, route, vif},
    wait,
};

const WAN_VRF: u32 = 2;
const TUNNEL_VRF: u32 = 8;
const TENANT_VRF: u32 = 18;
const WAN: u32 = 1;
const LAN: u32 = 24;
const TUNNEL: u32 = 4111;

/// Labels toward the node and toward the machine.
const LABEL_TO_NODE: u32 = 280;
const LABEL_TO_PEER: u32 = 281;

const NODE_MAC: &str = "00:0c:29:01:01:61";
const TRANSIT_MAC: &str = "00:0c:29:0a:00:01";
const LAN_MAC: &str = "00:0c:29:01:02:24";
const HOST_MAC: &str = "00:0c:29:64:00:01";
const PEER_MAC: &str = "00:0c:29:02:01:61";

/// What goes through the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The packets of both sites, v4 and v6. The machine's address is on a device of its own.
    Plain,
    /// MPLS over UDP. The machine's address is that of a host behind its VRF, in a network namespace of the machine.
    L3vpn,
}

/// The running topology. Dropping it removes all of it.
#[derive(Debug)]
pub struct KernelPeer {
    // Dropped in this order: both ends before their namespaces, the lab's directory last.
    node: Node,
    vm: Vm,
    host: Host,
    transit: Namespace,
    ce: Namespace,
    service: Service,
    outside: Outside,
    lab: Lab,
}

impl KernelPeer {
    /// Address of the host behind the node.
    pub const HOST: &str = "192.168.100.100";
    /// The same for IPv6.
    pub const HOST6: &str = "fd00:100::100";
    /// The far address, in or behind the machine.
    pub const PEER: &str = "192.168.1.100";
    /// The same for IPv6; only [`Service::Plain`].
    pub const PEER6: &str = "fd00:1::100";
    /// Address of the machine's VRF; only [`Service::L3vpn`].
    pub const VRF: &str = "192.168.1.1";
    /// Ends of the tunnel: the node and the machine.
    pub const ENDS: [&str; 2] = ["172.28.13.36", "172.28.23.36"];
    /// The transit's device toward the node, and the one toward the machine.
    pub const TRANSIT_DEVICES: [&str; 2] = ["to-node", "to-peer"];
    /// MAC of each end there.
    pub const MACS: [[u8; 6]; 2] = [[0, 0x0c, 0x29, 1, 1, 0x61], [0, 0x0c, 0x29, 2, 1, 0x61]];

    /// Boots the machine, starts the node, and gives both these SAs, one for each direction.
    ///
    /// # Errors
    /// What any part of it fails with.
    pub fn new(service: Service, outside: Outside, sas: [SharedSa; 2]) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let (ce, transit) = (lab.namespace("ce")?, lab.namespace("transit")?);
        for namespace in [&ce, &transit] {
            namespace.silence_ipv6()?;
        }
        let [to_node, to_peer] = Self::TRANSIT_DEVICES;
        let near = End { namespace: &transit, device: to_node, mac: TRANSIT_MAC };
        Veth::plug(End { namespace: &ce, device: "ens161", mac: NODE_MAC }, near, 1500)?;
        transit.ip(&format!("addr add 172.28.13.1/24 dev {to_node}"))?;
        transit.sysctl("ipv4/ip_forward", "1")?;
        let config = HostConfig {
            device: "eth0",
            addresses: &["192.168.100.100/24", "fd00:100::100/64"],
            gateways: &["192.168.100.1", "fd00:100::1"],
        };
        let host = Host::new(lab.namespace("host")?, config)?;
        let near = End { namespace: host.namespace(), device: "eth0", mac: HOST_MAC };
        Veth::plug(End { namespace: &ce, device: "ens224", mac: LAN_MAC }, near, 1500)?;
        host.configure()?;

        let mut vm = Vm::boot(&lab, &transit, to_peer, PEER_MAC)?;
        transit.ip(&format!("addr add 172.28.23.1/24 dev {to_peer}"))?;
        // SAs first: a tunnel device looks for its way when it is made, and without an SA that is an error.
        for sa in sas {
            vm.sh(&sa.add(outside))?;
        }
        vm.sh(&configuration(service))?;
        let config = NodeConfig {
            state: state(service, outside, &sas),
            workers: 1,
            // Outbound SAs need it.
            last_state: Some(lab.directory().join("last-state.json")),
            nic: None,
        };
        let node = Node::start(&lab, &ce, &config)?;
        let mut peer = Self { node, vm, host, transit, ce, service, outside, lab };
        if outside == Outside::EspInUdp {
            let [_, end] = Self::ENDS;
            peer.vm.spawn(&format!("peer espinudp {end} 4500"))?;
        }
        Ok(peer)
    }

    /// Its lab.
    #[must_use]
    pub const fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// The host behind the node.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The router between both ends.
    #[must_use]
    pub const fn transit(&self) -> &Namespace {
        &self.transit
    }

    /// The machine.
    pub const fn vm(&mut self) -> &mut Vm {
        &mut self.vm
    }

    /// Gives an SA to the machine.
    ///
    /// # Errors
    /// What `ip xfrm` says.
    pub fn add_at_peer(&mut self, sa: SharedSa) -> Result<(), LabError> {
        self.vm.sh(&sa.add(self.outside)).map(drop)
    }

    /// Takes an SA from the machine.
    ///
    /// # Errors
    /// What `ip xfrm` says.
    pub fn remove_at_peer(&mut self, sa: SharedSa) -> Result<(), LabError> {
        self.vm.sh(&format!("ip xfrm state delete {}", sa.name())).map(drop)
    }

    /// Gives the node exactly these SAs, in one change.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn change_at_node(&self, sas: &[SharedSa]) -> Result<(), LabError> {
        let client = self.node.client();
        let there: Vec<u32> = client.state()?.sas.iter().map(|sa| sa.id).collect();
        let (old, new): (Vec<SharedSa>, Vec<SharedSa>) = sas.iter().partition(|sa| there.contains(&sa.id()));
        let kept: Vec<u32> = old.iter().map(|sa| sa.id()).collect();
        let delta = v1::ForwardingDelta {
            remove_sas: there.into_iter().filter(|id| !kept.contains(id)).collect(),
            sas: new.iter().map(|sa| sa.at_node()).collect(),
            vifs: vec![tunnel(self.service, self.outside, sas)],
            ..Default::default()
        };
        client.change(delta).map(drop)
    }

    /// How an SA stands at the node.
    ///
    /// # Errors
    /// [`LabError::Violated`] when it is not there.
    pub fn sa_at_node(&self, sa: SharedSa) -> Result<v1::SaInfo, LabError> {
        let sas = self.node.client().sas()?;
        let found = sas.into_iter().find(|info| info.sa.as_ref().is_some_and(|found| found.id == sa.id()));
        found.ok_or_else(|| LabError::Violated(format!("the node has no SA {}", sa.id())))
    }

    /// How an SA stands in the machine.
    ///
    /// # Errors
    /// What `ip xfrm` says, or that it says something unexpected.
    pub fn sa_at_peer(&mut self, sa: SharedSa) -> Result<SaAtPeer, LabError> {
        let command = format!("ip -s xfrm state get {}", sa.name());
        SaAtPeer::read(&command, &self.vm.sh(&command)?)
    }

    /// What went wrong with IPsec in the machine: the counters of `/proc/net/xfrm_stat` that are not zero.
    ///
    /// # Errors
    /// As for [`Vm::sh`].
    pub fn errors_at_peer(&mut self) -> Result<BTreeMap<String, u64>, LabError> {
        let text = self.vm.sh("cat /proc/net/xfrm_stat")?;
        let counters = text.lines().filter_map(|line| {
            let (name, count) = line.split_once(char::is_whitespace)?;
            Some((name.to_owned(), count.trim().parse::<u64>().ok()?))
        });
        Ok(counters.filter(|(_, count)| *count > 0).collect())
    }

    /// Waits until both ends have counted the same for an SA, and returns its packets.
    ///
    /// # Errors
    /// [`LabError::Violated`] when they do not agree within three seconds, or nothing was counted.
    pub fn agreed(&mut self, sa: SharedSa) -> Result<u64, LabError> {
        let mut last = String::new();
        let agreed = wait::until("both ends to count the same", Duration::from_secs(3), || {
            let (node, peer) = (self.sa_at_node(sa)?, self.sa_at_peer(sa)?);
            last = format!(
                "SA {}: the node counts {} packets of {} octets, the machine {} of {}",
                sa.id(),
                node.packets,
                node.bytes,
                peer.packets,
                peer.bytes
            );
            let equal = (node.packets, node.bytes) == (peer.packets, peer.bytes);
            Ok((equal && node.packets > 0).then_some(node.packets))
        });
        agreed.map_err(|error| match error {
            LabError::Timeout { .. } => LabError::Violated(last),
            other => other,
        })
    }

    /// Fails when the node has ended, its account does not close, or the machine's kernel has complained.
    ///
    /// # Errors
    /// [`LabError::Command`] with the node's log, [`LabError::Violated`].
    pub fn assert_healthy(&mut self) -> Result<(), LabError> {
        self.node.alive()?;
        assert_conserved(&[&self.node])?;
        let console = self.vm.console();
        let complaint = ["BUG:", "WARNING:", "Oops", "Call Trace"].iter().find(|word| console.contains(**word));
        complaint.map_or(Ok(()), |word| Err(LabError::Violated(format!("{word} on the machine's console:\n{console}"))))
    }

    /// Where the node runs.
    #[must_use]
    pub const fn node_namespace(&self) -> &Namespace {
        &self.ce
    }
}

/// The node's side.
fn state(service: Service, outside: Outside, sas: &[SharedSa]) -> v1::ForwardingState {
    let driver = v1::IoDriver::Auto;
    let [own, _] = KernelPeer::ENDS;
    let encap = |oif, data: &str| Kind::Encap(v1::EncapNexthop { oif, encap_data: data.to_owned() });
    let receive =
        |terminate| Kind::Receive(v1::ReceiveNexthop { terminate_mpls_o_udp: terminate, ..Default::default() });
    let vrf = |id, name: &str| v1::Vrf { id, name: name.to_owned() };
    let mut state = v1::ForwardingState {
        generation: 1,
        node: "ce".to_owned(),
        vrfs: vec![vrf(WAN_VRF, "wan"), vrf(TUNNEL_VRF, "tunnels"), vrf(TENANT_VRF, "blue")],
        vifs: vec![
            v1::Vif {
                vrf: WAN_VRF,
                addresses: vec![format!("{own}/24")],
                ..vif(WAN, "ens161", v1::VifType::Physical, driver)
            },
            v1::Vif {
                vrf: TENANT_VRF,
                addresses: vec!["192.168.100.1/24".to_owned(), "fd00:100::1/64".to_owned()],
                flags: Some(v1::VifFlags { policy: true, ..Default::default() }),
                ..vif(LAN, "ens224", v1::VifType::Physical, driver)
            },
            tunnel(service, outside, sas),
        ],
        nexthops: vec![
            nexthop(10, WAN_VRF, encap(WAN, &format!("{TRANSIT_MAC} {NODE_MAC} 0800"))),
            nexthop(11, WAN_VRF, receive(false)),
            nexthop(20, TENANT_VRF, Kind::Resolve(v1::ResolveNexthop { oif: LAN, ..Default::default() })),
            nexthop(21, TENANT_VRF, receive(false)),
        ],
        routes: vec![
            route(WAN_VRF, "0.0.0.0/0", 10),
            route(WAN_VRF, &format!("{own}/32"), 11),
            route(TENANT_VRF, "192.168.100.0/24", 20),
            route(TENANT_VRF, "fd00:100::/64", 20),
            route(TENANT_VRF, "192.168.100.1/32", 21),
            route(TENANT_VRF, "fd00:100::1/128", 21),
        ],
        sas: sas.iter().map(|sa| sa.at_node()).collect(),
        ..Default::default()
    };
    match service {
        Service::Plain => {
            state.nexthops.push(nexthop(85, TENANT_VRF, encap(TUNNEL, "")));
            state.routes.push(route(TENANT_VRF, "192.168.1.0/24", 85));
            state.routes.push(route(TENANT_VRF, "fd00:1::/64", 85));
        }
        Service::L3vpn => {
            let [sip, dip] = MPLS_ENDS.map(str::to_owned);
            let mpls = v1::TunnelNexthop {
                r#type: v1::TunnelType::MplsOUdp.into(),
                sip,
                dip,
                direct_nexthop: 85,
                ..Default::default()
            };
            let translate = Kind::VrfTranslate(v1::VrfTranslateNexthop { vrf: TENANT_VRF });
            let [own, far] = MPLS_ENDS.map(|end| format!("{end}/32"));
            state.nexthops.extend([
                nexthop(85, TUNNEL_VRF, encap(TUNNEL, "")),
                nexthop(489, TUNNEL_VRF, Kind::Tunnel(mpls)),
                nexthop(516, TUNNEL_VRF, receive(true)),
                v1::Nexthop { policy: true, ..nexthop(513, TENANT_VRF, translate) },
            ]);
            state.routes.extend([
                route(TUNNEL_VRF, &own, 516),
                route(TUNNEL_VRF, &far, 85),
                v1::Route { label: Some(LABEL_TO_PEER), ..route(TENANT_VRF, "192.168.1.0/24", 489) },
            ]);
            state.labels.push(v1::MplsLabel { label: LABEL_TO_NODE, nexthop: 513 });
        }
    }
    state
}

/// Ends of MPLS over UDP: the node's and the machine's.
const MPLS_ENDS: [&str; 2] = ["10.101.10.39", "10.101.9.245"];

/// The node's end of the tunnel.
fn tunnel(service: Service, outside: Outside, sas: &[SharedSa]) -> v1::Vif {
    let [source, destination] = KernelPeer::ENDS.map(str::to_owned);
    let ids = |direction| sas.iter().filter(|sa| sa.direction == direction).map(|sa| sa.id()).collect();
    v1::Vif {
        id: TUNNEL,
        name: "tunnel4111".to_owned(),
        r#type: v1::VifType::Tunnel.into(),
        vrf: if service == Service::Plain { TENANT_VRF } else { TUNNEL_VRF },
        tunnel: Some(v1::IpsecTunnel {
            source,
            destination,
            // Often enough to be seen.
            nat_t: (outside == Outside::EspInUdp).then(|| v1::NatTraversal { keepalive_secs: 1, ..Default::default() }),
            outbound_sas: ids(Direction::ToPeer),
            inbound_sas: ids(Direction::ToNode),
            vrf: WAN_VRF,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The machine's side, without SAs.
fn configuration(service: Service) -> String {
    let [node, own] = KernelPeer::ENDS;
    let policies = |near: &str, far: &str| {
        let template = |from, to| format!("tmpl src {from} dst {to} proto esp reqid 1 mode tunnel");
        format!(
            "ip xfrm policy add src {near} dst {far} dir out {}\nip xfrm policy add src {far} dst {near} dir in {}\n",
            template(own, node),
            template(node, own)
        )
    };
    // What the machine's policies do not seal goes to `dummy0`, so nowhere. `eth0` takes IPv6 out of the tunnel, but says nothing.
    let common = format!(
        "echo 0 >/proc/sys/net/ipv6/conf/eth0/router_solicitations
        ip link set eth0 addrgenmode none
        ip link set eth0 up
        ip addr add {own}/24 dev eth0
        ip route add {node}/32 via 172.28.23.1
        ip link set dummy0 up\n"
    );
    common
        + &match service {
            Service::Plain => format!(
                "ip addr add {}/32 dev dummy0
                ip route add 192.168.100.0/24 dev dummy0 src {0}
                ip addr add {}/128 dev dummy0 nodad
                ip route add fd00:100::/64 dev dummy0 src {1}
                {}{}",
                KernelPeer::PEER,
                KernelPeer::PEER6,
                policies("192.168.1.0/24", "192.168.100.0/24"),
                policies("fd00:1::/64", "fd00:100::/64"),
            ),
            // The policies have no `proto`: fou's packets are looked up as protocol 137, and a policy for UDP leaves them in the clear.
            Service::L3vpn => {
                let [far, near] = MPLS_ENDS;
                format!(
                    "ip addr add {near}/32 dev dummy0
                    ip route add {far}/32 dev dummy0 src {near}
                    {}
                    ip link add vrf1 type vrf table 101
                    ip link set vrf1 up
                    ip netns add tenant
                    ip link add lan type veth peer name eth0 netns tenant
                    echo 1 >/proc/sys/net/ipv6/conf/lan/disable_ipv6
                    ip link set lan master vrf1 up
                    ip addr add {}/24 dev lan
                    ip -n tenant link set lo up
                    ip -n tenant link set eth0 up
                    ip -n tenant addr add {}/24 dev eth0
                    ip -n tenant route add default via {1}
                    ip fou add port 6635 ipproto 137
                    ip link add mpls type ipip mode mplsip remote {far} local {near} ttl 64 \
                        encap fou encap-sport auto encap-dport 6635
                    ip link set mpls mtu 1380 up
                    echo 1000 >/proc/sys/net/mpls/platform_labels
                    echo 1 >/proc/sys/net/mpls/conf/mpls/input
                    echo 1 >/proc/sys/net/ipv4/ip_forward
                    for conf in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$conf; done
                    ip -f mpls route add {LABEL_TO_PEER} dev vrf1
                    ip route add vrf vrf1 192.168.100.0/24 encap mpls {LABEL_TO_NODE} dev mpls",
                    policies(&format!("{near}/32"), &format!("{far}/32")),
                    KernelPeer::VRF,
                    KernelPeer::PEER,
                )
            }
        }
}
