//! A consistent state with its lookup tables.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::{
    Acl, Fib, IkeSa, Neighbour, NeighbourTable, Nexthop, PathMtuTable, Route, Sa, Settings, State, Vif, VifKind,
    VlanTag, Vrf,
    addrmap::AddrMap,
    changes::ChangeLog,
    gateway::DeadGateways,
    idmap::IdMap,
    oper::EndedSa,
    tables::{Tables, Versioned},
};
use crate::{AclId, Label, MacAddr, NexthopId, SaId, VifId, VrfId, flow::Family};

/// A validated state. Cheap to clone and to share; never changes.
///
/// Two counters of change: the state's own `generation` (from the controller), and `version`, which grows with every
/// snapshot that a node derives, whether a new state or a learnt neighbour made it. What each version has changed is in a log:
/// see [`Snapshot::changes_since`].
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) version: u64,
    pub(super) generation: u64,
    pub(super) node: Arc<str>,
    pub(super) settings: Arc<Settings>,
    pub(super) log: ChangeLog,
    pub(super) tables: Tables,
    pub(super) neighbours: NeighbourTable,
    pub(super) dead_gateways: DeadGateways,
    pub(super) path_mtus: PathMtuTable,
    /// MACs of devices: by vif, with the name of the device that the vif had then.
    pub(super) device_macs: IdMap<(Arc<str>, MacAddr)>,
    /// MTUs of devices, likewise.
    pub(super) device_mtus: IdMap<(Arc<str>, u32)>,
    /// Own addresses by VRF, with the vif that has each.
    pub(super) owners: IdMap<AddrMap<VifId>>,
    /// Vifs that have come or gone: whether up.
    pub(super) oper: IdMap<bool>,
    /// SAs that are at their end.
    pub(super) ended: IdMap<EndedSa>,
    /// SAs that IKE has negotiated.
    pub(super) ike: IdMap<Versioned<IkeSa>>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::empty()
    }
}

impl Snapshot {
    /// A node without any configuration.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            version: 1,
            generation: 0,
            node: "".into(),
            settings: Arc::new(Settings::default()),
            log: ChangeLog::default(),
            tables: Tables::default(),
            neighbours: NeighbourTable::default(),
            dead_gateways: DeadGateways::default(),
            path_mtus: PathMtuTable::default(),
            device_macs: IdMap::default(),
            device_mtus: IdMap::default(),
            owners: IdMap::default(),
            oper: IdMap::default(),
            ended: IdMap::default(),
            ike: IdMap::default(),
        }
    }

    /// Version of this snapshot, grows by one with each derived snapshot; 1 or more.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Generation of the state.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Name of the node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Limits and timers.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The state as applied (for persistence and for the API), each list in order of its ids; clones everything.
    #[must_use]
    pub fn to_state(&self) -> State {
        let tables = &self.tables;
        let routes = tables.routes.values().flat_map(|table| table.fib.iter());
        State {
            generation: self.generation,
            node: self.node.to_string(),
            settings: (*self.settings).clone(),
            vifs: tables.vifs.values().map(|entry| (*entry.configured).clone()).collect(),
            vrfs: tables.vrfs.values().map(|object| (**object).clone()).collect(),
            nexthops: tables.nexthops.values().map(|object| (**object).clone()).collect(),
            routes: routes.map(|route| (**route).clone()).collect(),
            labels: tables.labels.values().copied().collect(),
            acls: tables.acls.values().map(|object| (**object).clone()).collect(),
            sas: tables.sas.values().map(|entry| (*entry.object).clone()).collect(),
        }
    }

    /// A vif, with the MAC and the MTU that it has in fact.
    #[inline]
    #[must_use]
    pub fn vif(&self, id: VifId) -> Option<&Arc<Vif>> {
        self.tables.vif(id)
    }

    /// All vifs by id.
    pub fn vifs(&self) -> impl Iterator<Item = &Arc<Vif>> {
        self.tables.vifs.values().map(|entry| &entry.vif)
    }

    /// The sub-interface of `parent` for frames with these tags.
    #[inline]
    #[must_use]
    pub fn vlan_vif(&self, parent: VifId, outer: VlanTag, inner: Option<VlanTag>) -> Option<VifId> {
        self.tables.vlan_vif(parent, outer, inner)
    }

    /// The vif whose device carries this vif's frames: itself or its parent.
    #[inline]
    #[must_use]
    pub fn port_of(&self, vif: VifId) -> VifId {
        match self.vif(vif).map(|vif| &vif.kind) {
            Some(VifKind::PhysicalVlan { parent, .. }) => *parent,
            _ => vif,
        }
    }

    /// All VRFs by id.
    pub fn vrfs(&self) -> impl Iterator<Item = &Arc<Vrf>> {
        self.tables.vrfs.values()
    }

    /// A VRF.
    #[must_use]
    pub fn vrf(&self, id: VrfId) -> Option<&Arc<Vrf>> {
        self.tables.vrfs.get(u32::from(id.get()))
    }

    /// Longest match.
    #[inline]
    #[must_use]
    pub fn route(&self, vrf: VrfId, destination: IpAddr) -> Option<&Arc<Route>> {
        self.fib(vrf)?.lookup(destination)
    }

    /// All routes of a VRF; `None`: it has none.
    #[inline]
    #[must_use]
    pub fn fib(&self, vrf: VrfId) -> Option<&Fib> {
        self.tables.routes.get(u32::from(vrf.get())).map(|table| &table.fib)
    }

    /// The route with exactly this prefix.
    #[must_use]
    pub fn route_of(&self, vrf: VrfId, prefix: ipnet::IpNet) -> Option<&Arc<Route>> {
        self.tables.routes.get(u32::from(vrf.get()))?.fib.get(prefix)
    }

    /// Routes of a VRF and family in order of prefix.
    #[must_use]
    pub fn routes(&self, vrf: VrfId, family: Family) -> Vec<Arc<Route>> {
        self.tables.routes.get(u32::from(vrf.get())).map_or_else(Vec::new, |table| table.fib.routes(family))
    }

    /// A nexthop.
    #[inline]
    #[must_use]
    pub fn nexthop(&self, id: NexthopId) -> Option<&Arc<Nexthop>> {
        self.tables.nexthop(id)
    }

    /// All nexthops by id.
    pub fn nexthops(&self) -> impl Iterator<Item = &Arc<Nexthop>> {
        self.tables.nexthops.values()
    }

    /// Nexthop of an incoming label.
    #[inline]
    #[must_use]
    pub fn label(&self, label: Label) -> Option<NexthopId> {
        self.tables.labels.get(label.get()).map(|label| label.nexthop)
    }

    /// All labels by number.
    pub fn labels(&self) -> impl Iterator<Item = (Label, NexthopId)> {
        self.tables.labels.values().map(|label| (label.label, label.nexthop))
    }

    /// An access list.
    #[must_use]
    pub fn acl(&self, id: AclId) -> Option<&Arc<Acl>> {
        self.tables.acls.get(id.get())
    }

    /// All access lists by id.
    pub fn acls(&self) -> impl Iterator<Item = &Arc<Acl>> {
        self.tables.acls.values()
    }

    /// A security association: configured or negotiated.
    #[must_use]
    pub fn sa(&self, id: SaId) -> Option<&Arc<Sa>> {
        let configured = self.tables.sas.get(id.get()).map(|entry| &entry.object);
        configured.or_else(|| self.ike.get(id.get()).map(|entry| &entry.object.sa))
    }

    /// All security associations by id.
    pub fn sas(&self) -> impl Iterator<Item = &Arc<Sa>> {
        let negotiated = self.ike.values().map(|entry| &entry.object.sa);
        self.tables.sas.values().map(|entry| &entry.object).chain(negotiated)
    }

    /// A neighbour.
    #[inline]
    #[must_use]
    pub fn neighbour(&self, vif: VifId, address: IpAddr) -> Option<&Neighbour> {
        self.neighbours.get(vif, address)
    }

    /// All neighbours.
    #[must_use]
    pub const fn neighbours(&self) -> &NeighbourTable {
        &self.neighbours
    }

    /// Path MTU toward an outer destination.
    #[must_use]
    pub fn path_mtu(&self, destination: IpAddr) -> Option<u16> {
        self.path_mtus.get(destination).map(|(mtu, _)| mtu)
    }

    /// All path MTUs.
    #[must_use]
    pub const fn path_mtus(&self) -> &PathMtuTable {
        &self.path_mtus
    }

    /// Is this UDP packet's destination an address where MPLS over UDP is opened: a host route to a Receive nexthop
    /// that terminates it? Precomputed: called for each packet on port 6635 or 51234.
    #[inline]
    #[must_use]
    pub fn terminates_mpls_o_udp(&self, vrf: VrfId, destination: IpAddr) -> bool {
        let table = self.tables.routes.get(u32::from(vrf.get()));
        table.is_some_and(|table| table.terminations.get(destination).is_some())
    }

    /// The IPv4 addresses in a VRF where MPLS over UDP is opened, in order.
    pub fn mpls_o_udp_terminations(&self, vrf: VrfId) -> impl Iterator<Item = Ipv4Addr> {
        let table = self.tables.routes.get(u32::from(vrf.get()));
        table.into_iter().flat_map(|table| table.terminations.iter()).filter_map(|(address, ())| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
    }

    /// Is the address one of the node's own tunnel sources or terminations? (A packet that claims it from outside is forged.)
    #[inline]
    #[must_use]
    pub fn is_own_tunnel_source(&self, address: IpAddr) -> bool {
        self.tables.own.get(address).is_some()
    }

    /// All addresses that a walk compares with those of packets, whatever routes say: the vifs' own, the broadcast, network and anycast
    /// addresses of their subnets, the node's tunnel sources and terminations. Some come more than once.
    pub fn node_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let nets = self.vifs().flat_map(|vif| &vif.addresses);
        let of_vifs = nets.flat_map(|net| [net.addr(), net.network(), net.broadcast()]);
        of_vifs.chain(self.tables.own.iter().map(|(address, _)| address))
    }

    /// The tunnel nexthops whose far end is this address, in order.
    #[must_use]
    pub fn tunnels_to(&self, address: IpAddr) -> &[NexthopId] {
        self.tables.ends.get(address).map_or(&[], |tunnels| tunnels)
    }

    /// Do outer packets of one of the node's tunnels leave in this VRF for this address? A tunnel that names no VRF is taken to
    /// be in every VRF that tunnels end in.
    #[must_use]
    pub fn has_tunnel_to(&self, vrf: VrfId, address: IpAddr) -> bool {
        let reaches = |vrf: u32| self.tables.far.get(vrf).is_some_and(|ends| ends.get(address).is_some());
        let ends_here = || {
            let table = self.tables.routes.get(u32::from(vrf.get()));
            table.is_some_and(|table| table.terminations.len() > 0)
        };
        reaches(u32::from(vrf.get())) || reaches(0) && ends_here()
    }
}

#[cfg(test)]
mod tests;
