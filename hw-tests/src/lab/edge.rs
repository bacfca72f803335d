//! The network between two customer edges and their regional edge: a NAT in front of CE1, a router in front of CE2.

use std::{
    fs,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use proto::v1;

use super::{
    End, Lab, LabError, Namespace, Nic, Node, NodeConfig, Options, Veth,
    edge_state::{
        CE1_ADDRESS, CE1_UPLINK, CE2_UPLINK, EDGE_ADDRESSES, EDGE_EAST, EDGE_WEST, NAT_ADDRESS, NAT_PORTS, edge_state,
        set_tunnel_policy, set_wan_mtu,
    },
    forwarding::Uplink,
    sa::{Associations, Tunnel, TunnelEnd},
};

/// The topology as text.
pub const EDGE_ART: &str = r"
   site 1                                                                                          site 2
 host1  VRF 18 'blue'                                                                   VRF 18 'blue'  host2
 192.168.100.100 -ens224-+                                                         +--- VLAN 300 --- 192.168.1.100
 fd00:100::100           |                  103.135.56.40                          |                 fd00:1::100
                    +----+----+   +-----+   +-----------+   +--------+        +----+----+
                    |   CE1   |---| NAT |---|    RE     |---| router |--------|   CE2   |  ens224 = trunk to a switch
                    +----+----+   +-----+   +-----------+   +--------+        +----+----+
 host3  VRF 28 'green'   |  172.28.13.36    103.135.56.41      198.51.100.7        |    VRF 28 'green'  host4
 192.168.100.100 -ens225-+                                                         +--- VLAN 302 --- 192.168.1.100
 fd00:100::100                                                                                       fd00:1::100
           vifs 4111 and 4109 to .40 and .41              vifs 4111 and 4109 to .40 and .41
                     <== ESP in UDP 4500 ==>     <========== ESP ==========>
   10.101.10.39  ===== MPLS over UDP, labels 280 and 282 -->  <-- 279 and 281 =====  10.101.9.245
";

/// What may differ from one regional edge to the next.
#[derive(Debug, Clone, Default)]
pub struct EdgeOptions {
    /// The NIC that the regional edge drives; `None`: a node in software.
    pub nic: Option<Nic>,
    /// Its tunnels have Policy: what goes from one to another makes flows, which a NIC can do. Otherwise each packet walks.
    pub flows: bool,
}

/// Everything between the customer edges.
#[derive(Debug)]
pub struct Edge {
    // Dropped in this order: the node before its namespace.
    node: Option<Node>,
    namespace: Namespace,
    nat: Namespace,
    internet: Namespace,
    config: NodeConfig,
    flows: bool,
    associations: Mutex<Associations>,
}

impl Edge {
    /// Plugs links, NAT and router; the node is started by [`Edge::start`].
    pub(crate) fn plug(
        lab: &Lab,
        [ce1, ce2]: &[Namespace; 2],
        options: &Options,
        edge: &EdgeOptions,
    ) -> Result<Self, LabError> {
        let (namespace, nat, internet) = (lab.namespace("re")?, lab.namespace("nat")?, lab.namespace("internet")?);
        for namespace in [&namespace, &nat, &internet] {
            namespace.silence_ipv6()?;
        }
        let mtu = options.underlay_mtu;
        link(ce1, CE1_UPLINK, &nat, "lan", mtu)?;
        link(&namespace, EDGE_WEST, &nat, "wan", mtu)?;
        link(&namespace, EDGE_EAST, &internet, "to-re", mtu)?;
        link(ce2, CE2_UPLINK, &internet, "to-ce2", mtu)?;
        translate(lab, &nat)?;
        nat.sysctl("ipv4/ip_forward", "1")?;
        internet.sysctl("ipv4/ip_forward", "1")?;
        let next = EDGE_EAST.address.split('/').next().unwrap_or_default();
        internet.ip(&format!("route add {} via {next}", EDGE_WEST.subnet))?;
        let associations = Associations::new(options.workers)?;
        let mut state = edge_state(options.driver, &associations);
        set_wan_mtu(&mut state, mtu);
        if edge.flows {
            set_tunnel_policy(&mut state.vifs);
        }
        let last_state = Some(lab.directory().join("re.last.json"));
        let config = NodeConfig { state, workers: options.workers, last_state, nic: edge.nic.clone() };
        let (flows, associations) = (edge.flows, Mutex::new(associations));
        Ok(Self { node: None, namespace, nat, internet, config, flows, associations })
    }

    pub(crate) fn start(&mut self, lab: &Lab) -> Result<(), LabError> {
        self.node = Some(Node::start(lab, &self.namespace, &self.config)?);
        Ok(())
    }

    /// Kills the node as a crash would, and starts it again with the state that it had kept.
    pub(crate) fn restart_after_kill(&mut self, lab: &Lab) -> Result<(), LabError> {
        if let Some(node) = &mut self.node {
            node.kill()?;
        }
        self.start(lab)
    }

    /// The node.
    ///
    /// # Errors
    /// [`LabError::Violated`] when the topology was built without nodes.
    pub fn node(&self) -> Result<&Node, LabError> {
        self.node.as_ref().ok_or_else(|| LabError::Violated("the topology was built without nodes".to_owned()))
    }

    /// The SAs in force.
    ///
    /// # Errors
    /// [`LabError::Violated`] when a thread panicked while it changed them.
    pub fn associations(&self) -> Result<MutexGuard<'_, Associations>, LabError> {
        self.associations.lock().map_err(|_| LabError::Violated("the lab's SAs are in disorder".to_owned()))
    }

    /// The vif at an end of a tunnel with these SAs, as it was made in the beginning.
    pub(crate) fn vif_with(&self, tunnel: Tunnel, end: TunnelEnd, outbound: Vec<u32>, inbound: Vec<u32>) -> v1::Vif {
        let mut vif = tunnel.vif_with(end, outbound, inbound);
        if self.flows && end == TunnelEnd::Regional {
            set_tunnel_policy(std::slice::from_mut(&mut vif));
        }
        vif
    }

    pub(crate) fn node_mut(&mut self) -> Option<&mut Node> {
        self.node.as_mut()
    }

    /// Where the node is; its devices are `ens161` toward the NAT and `ens256` toward the router.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The NAT in front of CE1: devices `lan` and `wan`.
    #[must_use]
    pub fn nat(&self) -> &Namespace {
        &self.nat
    }

    /// The router in front of CE2: devices `to-re` and `to-ce2`.
    #[must_use]
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// Every untrusted link: a namespace and the device there.
    #[must_use]
    pub fn untrusted(&self) -> [(&Namespace, &'static str); 4] {
        [(&self.nat, "lan"), (&self.nat, "wan"), (&self.internet, "to-re"), (&self.internet, "to-ce2")]
    }
}

/// A link between a node and the kernel of the namespace before it, which has the gateway's address.
fn link(node: &Namespace, uplink: Uplink, kernel: &Namespace, device: &str, mtu: u16) -> Result<(), LabError> {
    let far = End { namespace: kernel, device, mac: uplink.transit_mac };
    Veth::plug(far, End { namespace: node, device: uplink.device, mac: uplink.mac }, mtu)?;
    let length = uplink.subnet.split('/').nth(1).unwrap_or_default();
    kernel.ip(&format!("addr add {}/{length} dev {device}", uplink.transit_address)).map(drop)
}

/// The kernel's NAT: CE1's address and port become another address and another port for each tunnel, and only what belongs to what
/// CE1 began comes in. The ports are fixed, since without IKE the regional edge does not learn which ones the NAT has chosen.
fn translate(lab: &Lab, nat: &Namespace) -> Result<(), LabError> {
    let ports = EDGE_ADDRESSES.iter().zip(NAT_PORTS).map(|(edge, port)| {
        format!("    ip saddr {CE1_ADDRESS} ip daddr {edge} udp sport 4500 snat to {NAT_ADDRESS}:{port}\n")
    });
    let ports: String = ports.collect();
    // What comes from outside unasked must leave no trace: a connection of the NAT itself would take the port that CE1's needs.
    let asked = "policy drop;\n    ct state established,related accept\n    iifname \"lan\" accept";
    let rules = format!(
        "table ip nat {{\n  chain post {{\n    type nat hook postrouting priority srcnat; policy accept;\n{ports}    \
         oifname \"wan\" masquerade\n  }}\n}}\ntable ip filter {{\n  chain forward {{\n    type filter hook forward priority \
         filter; {asked}\n  }}\n  chain input {{\n    type filter hook input priority filter; {asked}\n  }}\n}}\n"
    );
    let file = lab.directory().join("nat.nft");
    fs::write(&file, rules).map_err(LabError::io(format!("write {}", file.display())))?;
    let path = file.display().to_string();
    nat.run("nft", &["-f", &path], Duration::from_secs(10))?.success().map(drop)
}
