//! Two sites, two tenants with the same addresses, two transit paths: the topology of the demo and of the end-to-end tests.

use std::time::Duration;

use proto::v1;

use super::{
    AccessSwitch, Edge, EdgeOptions, End, Host, HostConfig, Lab, LabError, Namespace, Nic, Node, NodeConfig, Ping,
    Site, Veth,
    edge_state::{customer_state, set_wan_mtu},
    forwarding::{UNDERLAY_VIFS, forwarding_state},
    sa::{Tunnel, TunnelEnd},
    wait,
};

/// The topology as text.
pub const TOPOLOGY_ART: &str = r"
   site 1                                                                                   site 2
                                              transit A
 host1  VRF 18 'blue'                   .13.1 +---------+ .23.1                  VRF 18 'blue'  host2
 192.168.100.100 --ens224-+           +-------| routes  |-------+           +--- VLAN 300 --- 192.168.1.100
 fd00:100::100            |           |       | plain IP|       |           |                 fd00:1::100
                     +----+----+ .36  |       +---------+       | .36  +----+----+
                     |   CE1   |------+ 172.28.13/24 172.28.23/24 +----|   CE2   |  ens224 = trunk to a switch
                     |fallback-|                                       |fallback-|
                     |   sw    |------+ 172.28.14/24 172.28.24/24 +----|   sw    |
                     +----+----+ .36  |       +---------+       | .36  +----+----+
 host3  VRF 28 'green'    |           |       | routes  |       |           |  VRF 28 'green'  host4
 192.168.100.100 --ens225-+           +-------| plain IP|-------+           +--- VLAN 302 --- 192.168.1.100
 fd00:100::100                          .14.1 +---------+ .24.1                               fd00:1::100
                                              transit B
   tunnel 10.101.10.39  ===== MPLS over UDP, labels 280 and 282 -->  <-- 279 and 281 =====  10.101.9.245
";

/// A tenant. Both have the same prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    /// VRF 18: host1 and host2.
    Blue,
    /// VRF 28: host3 and host4.
    Green,
}

impl Tenant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Blue, Self::Green];

    /// Name of its segment.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }

    /// Its VRF at both sites.
    #[must_use]
    pub const fn vrf(self) -> u32 {
        match self {
            Self::Blue => 18,
            Self::Green => 28,
        }
    }

    /// Its vif at both sites.
    #[must_use]
    pub const fn vif(self) -> u32 {
        match self {
            Self::Blue => 4121,
            Self::Green => 4122,
        }
    }

    /// Its VLAN at site 2.
    #[must_use]
    pub const fn vlan(self) -> u16 {
        match self {
            Self::Blue => 300,
            Self::Green => 302,
        }
    }

    /// The label that leads into its VRF at a site.
    #[must_use]
    pub const fn label_toward(self, site: Site) -> u32 {
        match (self, site) {
            (Self::Blue, Site::Ce1) => 279,
            (Self::Blue, Site::Ce2) => 280,
            (Self::Green, Site::Ce1) => 281,
            (Self::Green, Site::Ce2) => 282,
        }
    }

    /// The page that its web server at a site serves.
    #[must_use]
    pub fn page(self, site: Site) -> String {
        format!("the {} web server at the site of {}", self.name(), site.node())
    }

    pub(crate) const fn vn(self) -> u32 {
        match self {
            Self::Blue => 65543,
            Self::Green => 65553,
        }
    }

    pub(crate) const fn translate(self) -> u32 {
        match self {
            Self::Blue => 513,
            Self::Green => 514,
        }
    }

    /// Resolve and Receive of its network at a site.
    pub(crate) const fn local_nexthops(self, site: Site) -> (u32, u32) {
        match (self, site) {
            (Self::Blue, Site::Ce1) => (501, 504),
            (Self::Blue, Site::Ce2) => (572, 575),
            (Self::Green, Site::Ce1) => (601, 604),
            (Self::Green, Site::Ce2) => (672, 675),
        }
    }

    pub(crate) const fn ce1_device(self) -> &'static str {
        match self {
            Self::Blue => "ens224",
            Self::Green => "ens225",
        }
    }

    const fn ce1_mac(self) -> &'static str {
        match self {
            Self::Blue => "00:0c:29:01:02:24",
            Self::Green => "00:0c:29:01:02:25",
        }
    }

    /// MAC of its host at a site.
    const fn host_mac(self, site: Site) -> &'static str {
        match (self, site) {
            (Self::Blue, Site::Ce1) => "00:0c:29:64:00:01",
            (Self::Blue, Site::Ce2) => "00:0c:29:9b:69:69",
            (Self::Green, Site::Ce1) => "00:0c:29:64:00:03",
            (Self::Green, Site::Ce2) => "00:0c:29:9b:69:6a",
        }
    }
}

const SITE1_HOST: HostConfig<'static> = HostConfig {
    device: "eth0",
    addresses: &["192.168.100.100/24", "fd00:100::100/64"],
    gateways: &["192.168.100.1", "fd00:100::1"],
};
const SITE2_HOST: HostConfig<'static> = HostConfig {
    device: "eth0",
    addresses: &["192.168.1.100/24", "fd00:1::100/64"],
    gateways: &["192.168.1.1", "fd00:1::1"],
};
const TRUNK_DEVICE: &str = "ens224";
const TRUNK_MAC: &str = "00:0c:29:0f:f4:a1";

/// What may differ from one L3VPN to the next.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads of each node.
    pub workers: u32,
    /// How the nodes read and write their devices.
    pub driver: v1::IoDriver,
    /// MTU of the transit links, and of the nodes' vifs there.
    pub underlay_mtu: u16,
    /// Start the nodes.
    pub nodes: bool,
    /// The NIC that CE1 drives; `None`: CE1 is a node in software, as CE2 always is.
    pub nic: Option<Nic>,
    /// A regional edge between the sites, with IPsec tunnels to it, instead of two transit paths in the clear.
    pub edge: Option<EdgeOptions>,
}

impl Options {
    /// Through a regional edge in software.
    #[must_use]
    pub fn through_edge() -> Self {
        Self { edge: Some(EdgeOptions::default()), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { workers: 1, driver: v1::IoDriver::Auto, underlay_mtu: 1500, nodes: true, nic: None, edge: None }
    }
}

/// The running topology. Dropping it removes all of it.
#[derive(Debug)]
pub struct L3vpn {
    // Dropped in this order: nodes before their namespaces, the lab's directory last.
    nodes: Option<[Node; 2]>,
    _switch: AccessSwitch,
    hosts: [[Host; 2]; 2],
    switch_namespace: Namespace,
    edge: Option<Edge>,
    transits: Option<[Namespace; 2]>,
    ces: [Namespace; 2],
    configs: [NodeConfig; 2],
    lab: Lab,
}

impl L3vpn {
    /// Builds it, starts the nodes, and waits until each tenant's hosts reach each other.
    ///
    /// # Errors
    /// What any part of it fails with.
    pub fn new(options: &Options) -> Result<Self, LabError> {
        let lab = Lab::new()?;
        let ces = [lab.namespace("ce1")?, lab.namespace("ce2")?];
        let switch_namespace = lab.namespace("switch2")?;
        for namespace in ces.iter().chain([&switch_namespace]) {
            namespace.silence_ipv6()?;
        }
        let [ce1, ce2] = &ces;
        let (mut transits, mut edge) = (None, None);
        let mut configs = [Site::Ce1, Site::Ce2].map(|site| Self::config(site, options));
        match &options.edge {
            None => {
                let both = [lab.namespace("transit-a")?, lab.namespace("transit-b")?];
                for (index, transit) in both.iter().enumerate() {
                    plug_transit(transit, index, &ces, options.underlay_mtu)?;
                }
                transits = Some(both);
            }
            Some(wanted) => {
                let plugged = Edge::plug(&lab, &ces, options, wanted)?;
                for (site, config) in [Site::Ce1, Site::Ce2].into_iter().zip(&mut configs) {
                    config.state = customer_state(site, options.driver, &*plugged.associations()?);
                    set_wan_mtu(&mut config.state, options.underlay_mtu);
                    // Sequence numbers are reserved beside it: without it no node seals.
                    config.last_state = Some(lab.directory().join(format!("{}.last.json", site.node())));
                }
                edge = Some(plugged);
            }
        }
        let hosts = [
            [site1_host(&lab, ce1, Tenant::Blue)?, site2_host(&lab, &switch_namespace, Tenant::Blue)?],
            [site1_host(&lab, ce1, Tenant::Green)?, site2_host(&lab, &switch_namespace, Tenant::Green)?],
        ];
        let trunk = End { namespace: &switch_namespace, device: "trunk", mac: "00:0c:29:0c:00:02" };
        Veth::plug(End { namespace: ce2, device: TRUNK_DEVICE, mac: TRUNK_MAC }, trunk, 1500)?;
        let ports = Tenant::ALL.map(|tenant| (access_port(tenant), tenant.vlan()));
        let switch = AccessSwitch::start(
            &switch_namespace,
            "trunk",
            &ports.each_ref().map(|(name, vid)| (name.as_str(), *vid)),
        )?;

        // First: what comes for a regional edge that is not there would wait for the second ARP request of NAT and router.
        if let (Some(edge), true) = (&mut edge, options.nodes) {
            edge.start(&lab)?;
        }
        let [config1, config2] = &configs;
        let nodes = match options.nodes {
            false => None,
            true => Some([Node::start(&lab, ce1, config1)?, Node::start(&lab, ce2, config2)?]),
        };
        let l3vpn = Self { nodes, _switch: switch, hosts, switch_namespace, edge, transits, ces, configs, lab };
        if options.nodes {
            l3vpn.wait_until_connected()?;
        }
        Ok(l3vpn)
    }

    /// How a site's node is started when there is no regional edge.
    #[must_use]
    pub fn config(site: Site, options: &Options) -> NodeConfig {
        let nic = options.nic.clone().filter(|_| site == Site::Ce1);
        let mut state = forwarding_state(site, options.driver);
        for vif in state.vifs.iter_mut().filter(|vif| UNDERLAY_VIFS.contains(&vif.id)) {
            vif.mtu = options.underlay_mtu.into();
        }
        NodeConfig { state, workers: options.workers, last_state: None, nic }
    }

    /// Its lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A tenant's host at a site.
    #[must_use]
    pub fn host(&self, tenant: Tenant, site: Site) -> &Host {
        let [[host1, host2], [host3, host4]] = &self.hosts;
        match (tenant, site) {
            (Tenant::Blue, Site::Ce1) => host1,
            (Tenant::Blue, Site::Ce2) => host2,
            (Tenant::Green, Site::Ce1) => host3,
            (Tenant::Green, Site::Ce2) => host4,
        }
    }

    /// The namespace of a site's node.
    #[must_use]
    pub fn ce_namespace(&self, site: Site) -> &Namespace {
        let [ce1, ce2] = &self.ces;
        match site {
            Site::Ce1 => ce1,
            Site::Ce2 => ce2,
        }
    }

    /// Transit A and transit B.
    ///
    /// # Errors
    /// [`LabError::Violated`] when there is a regional edge in their place.
    pub fn transits(&self) -> Result<&[Namespace; 2], LabError> {
        let none = || LabError::Violated("a regional edge is in the place of the transit paths".to_owned());
        self.transits.as_ref().ok_or_else(none)
    }

    /// Where the switch of site 2 lives; its trunk is the device `trunk`.
    #[must_use]
    pub fn switch_namespace(&self) -> &Namespace {
        &self.switch_namespace
    }

    /// A site's node.
    ///
    /// # Errors
    /// [`LabError::Violated`] when the topology was built without nodes.
    pub fn node(&self, site: Site) -> Result<&Node, LabError> {
        let [ce1, ce2] = self.nodes()?;
        Ok(match site {
            Site::Ce1 => ce1,
            Site::Ce2 => ce2,
        })
    }

    /// Both nodes.
    ///
    /// # Errors
    /// As for [`L3vpn::node`].
    pub fn nodes(&self) -> Result<&[Node; 2], LabError> {
        self.nodes.as_ref().ok_or_else(|| LabError::Violated("the topology was built without nodes".to_owned()))
    }

    /// The regional edge.
    ///
    /// # Errors
    /// [`LabError::Violated`] when the topology was built without one.
    pub fn edge(&self) -> Result<&Edge, LabError> {
        self.edge.as_ref().ok_or_else(|| LabError::Violated("there is no regional edge".to_owned()))
    }

    /// Every node: those of both sites, and the regional edge.
    ///
    /// # Errors
    /// As for [`L3vpn::node`].
    pub fn all_nodes(&self) -> Result<Vec<&Node>, LabError> {
        let edge = self.edge.as_ref().map(Edge::node).transpose()?;
        Ok(self.nodes()?.iter().chain(edge).collect())
    }

    /// Kills the node of the regional edge as a crash would, and starts it again with the state that it had kept.
    ///
    /// # Errors
    /// As for [`Node::start`].
    pub fn restart_edge_after_kill(&mut self) -> Result<(), LabError> {
        let edge = self.edge.as_mut().ok_or_else(|| LabError::Violated("there is no regional edge".to_owned()))?;
        edge.restart_after_kill(&self.lab)
    }

    /// Kills a site's node as a crash would, and starts it again with the state that it had.
    ///
    /// # Errors
    /// As for [`Node::start`].
    pub fn restart_after_kill(&mut self, site: Site) -> Result<(), LabError> {
        let nodes = self.nodes.as_mut().ok_or_else(|| LabError::Violated("there are no nodes".to_owned()))?;
        let ([ce1, ce2], [config1, config2], [node1, node2]) = (&self.ces, &self.configs, nodes);
        let (node, namespace, config) = if site == Site::Ce1 { (node1, ce1, config1) } else { (node2, ce2, config2) };
        node.kill()?;
        *node = Node::start(&self.lab, namespace, config)?;
        Ok(())
    }

    /// Fails when a node has ended, or its packet account does not close.
    ///
    /// # Errors
    /// [`LabError::Command`] with the node's log, [`LabError::Violated`] with the account.
    pub fn assert_healthy(&mut self) -> Result<(), LabError> {
        let edge = self.edge.as_mut().and_then(Edge::node_mut);
        for node in self.nodes.iter_mut().flatten().chain(edge) {
            node.alive()?;
        }
        super::assert_conserved(&self.all_nodes()?)
    }

    /// Packets that somebody between the hosts, or a host's device, has counted as lost so far.
    ///
    /// # Errors
    /// As for [`super::counted_losses`].
    pub fn counted_losses(&self) -> Result<u64, LabError> {
        let mut kernels: Vec<&Namespace> = vec![self.switch_namespace()];
        for tenant in Tenant::ALL {
            kernels.extend([Site::Ce1, Site::Ce2].map(|site| self.host(tenant, site).namespace()));
        }
        match &self.edge {
            Some(edge) => kernels.extend([edge.nat(), edge.internet()]),
            None => kernels.extend(self.transits()?),
        }
        super::counted_losses(&self.all_nodes()?, &kernels)
    }

    /// Cuts the link of CE1 to a tenant's host: the devices at both ends disappear.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn unplug_site1(&self, tenant: Tenant) -> Result<(), LabError> {
        Veth::unplug(self.ce_namespace(Site::Ce1), tenant.ce1_device())
    }

    /// Makes that link again, and configures the host again.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn plug_site1(&self, tenant: Tenant) -> Result<(), LabError> {
        plug_site1(self.ce_namespace(Site::Ce1), self.host(tenant, Site::Ce1), tenant)
    }

    /// Waits until each tenant's hosts reach each other.
    fn wait_until_connected(&self) -> Result<(), LabError> {
        for tenant in Tenant::ALL {
            self.wait_until_reachable(tenant, Duration::from_secs(15))?;
        }
        if self.edge.is_some() { self.wait_until_bound() } else { Ok(()) }
    }

    /// Waits until CE1 has sent by each of its tunnels: the NAT in front of it lets nothing else in.
    fn wait_until_bound(&self) -> Result<(), LabError> {
        let host = self.host(Tenant::Blue, Site::Ce1);
        wait::until("both tunnels of CE1 to have come through the NAT", Duration::from_secs(15), || {
            // Each ping is another flow, and chooses its tunnel anew.
            host.ping(&Ping::to("192.168.1.100").count(1))?;
            let arrived = self.edge()?.node()?.client().sas()?;
            let arrived = |tunnel: &Tunnel| {
                let vif = tunnel.vif(TunnelEnd::Regional);
                let is_inbound = |sa: &v1::SaInfo| {
                    sa.vif == vif && sa.sa.as_ref().is_some_and(|sa| sa.direction() == v1::SaDirection::Inbound)
                };
                arrived.iter().any(|sa| is_inbound(sa) && sa.packets > 0)
            };
            let mut tunnels = Tunnel::ALL.iter().filter(|tunnel| tunnel.site == Site::Ce1);
            Ok(tunnels.all(arrived).then_some(()))
        })
    }

    /// Waits until a tenant's host of site 1 reaches that of site 2.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the nodes' logs and drops.
    pub fn wait_until_reachable(&self, tenant: Tenant, limit: Duration) -> Result<(), LabError> {
        let host = self.host(tenant, Site::Ce1);
        let what = format!("{} to reach 192.168.1.100", host.role());
        let reached = wait::until(&what, limit, || {
            let report = host.ping(&Ping::to("192.168.1.100").count(1))?;
            Ok((report.received > 0).then_some(()))
        });
        reached.map_err(|error| match error {
            LabError::Timeout { what, waited, .. } => LabError::Timeout { what, waited, detail: self.diagnosis() },
            other => other,
        })
    }

    /// Log, drops and account of each node, for error messages.
    #[must_use]
    pub fn diagnosis(&self) -> String {
        let mut text = String::new();
        for node in self.all_nodes().unwrap_or_default() {
            let drops = node.client().drops();
            let account = node.client().status().map(|status| status.packets);
            let neighbours = node.client().neighbours();
            text += &format!(
                "\n{}: drops {drops:?}\n  account {account:?}\n  neighbours {neighbours:?}\n  log:\n{}",
                node.name(),
                node.log()
            );
            for info in node.client().sas().unwrap_or_default() {
                text += &format!("  {info:?}\n");
            }
        }
        text
    }
}

fn access_port(tenant: Tenant) -> String {
    format!("access{}", tenant.vlan())
}

/// A router of plain IP between both nodes.
fn plug_transit(transit: &Namespace, index: usize, ces: &[Namespace; 2], mtu: u16) -> Result<(), LabError> {
    transit.silence_ipv6()?;
    transit.sysctl("ipv4/ip_forward", "1")?;
    for (site, ce) in [Site::Ce1, Site::Ce2].into_iter().zip(ces) {
        let uplinks = site.uplinks();
        let Some(uplink) = uplinks.get(index) else { continue };
        let device = format!("to-{}", site.node());
        let far = End { namespace: transit, device: &device, mac: uplink.transit_mac };
        Veth::plug(far, End { namespace: ce, device: uplink.device, mac: uplink.mac }, mtu)?;
        transit.ip(&format!("addr add {}/24 dev {device}", uplink.transit_address))?;
        let own = uplink.address.split('/').next().unwrap_or_default();
        transit.ip(&format!("route add {}/32 via {own}", site.tunnel_source()))?;
    }
    Ok(())
}

fn site1_host(lab: &Lab, ce1: &Namespace, tenant: Tenant) -> Result<Host, LabError> {
    let role = if tenant == Tenant::Blue { "host1" } else { "host3" };
    let host = Host::new(lab.namespace(role)?, SITE1_HOST)?;
    plug_site1(ce1, &host, tenant)?;
    Ok(host)
}

fn plug_site1(ce1: &Namespace, host: &Host, tenant: Tenant) -> Result<(), LabError> {
    let near = End { namespace: ce1, device: tenant.ce1_device(), mac: tenant.ce1_mac() };
    let far = End { namespace: host.namespace(), device: host.device(), mac: tenant.host_mac(Site::Ce1) };
    Veth::plug(near, far, 1500)?;
    host.configure()
}

fn site2_host(lab: &Lab, switch: &Namespace, tenant: Tenant) -> Result<Host, LabError> {
    let (role, port_mac) = match tenant {
        Tenant::Blue => ("host2", "00:0c:29:0c:03:00"),
        Tenant::Green => ("host4", "00:0c:29:0c:03:02"),
    };
    let host = Host::new(lab.namespace(role)?, SITE2_HOST)?;
    let port = access_port(tenant);
    let near = End { namespace: switch, device: &port, mac: port_mac };
    let far = End { namespace: host.namespace(), device: host.device(), mac: tenant.host_mac(Site::Ce2) };
    Veth::plug(near, far, 1500)?;
    host.configure()?;
    Ok(host)
}
