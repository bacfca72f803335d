//! The tables of a snapshot, and what is kept beside them so that a change costs no more than what it touches.
//!
//! Tables may hold an inconsistent state for as long as it is a candidate; [`super::validate`] judges it. Whoever refers
//! to an object is counted (or listed, where it must be looked at again when the object changes). Whatever changes a table takes the
//! [`Changes`] to note it in.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    Acl, Fib, MplsLabel, Nexthop, NexthopKind, Route, Sa, Vif, VifKind, VlanTag, Vrf,
    addrmap::AddrMap,
    changes::Changes,
    gateway::{GatewayUsers, gateway_of},
    idmap::IdMap,
    trie::Trie,
};
use crate::{AclId, Label, NexthopId, SaId, VifId, VrfId, flow::Dependency};

/// An object with the version in which it came.
#[derive(Debug, Clone)]
pub(super) struct Versioned<T> {
    pub(super) object: Arc<T>,
    pub(super) version: u64,
}

/// A vif as asked for, and with the MAC and the MTU that it has in fact.
#[derive(Debug, Clone)]
pub(super) struct VifEntry {
    pub(super) configured: Arc<Vif>,
    pub(super) vif: Arc<Vif>,
}

impl VifEntry {
    /// A vif that has just been configured; its MAC and MTU are settled later.
    pub(super) fn new(vif: Vif) -> Self {
        let vif = Arc::new(vif);
        Self { configured: Arc::clone(&vif), vif }
    }
}

/// The routes of a VRF.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteTable {
    pub(super) fib: Fib,
    /// Host routes to a receive nexthop that opens MPLS over UDP.
    pub(super) terminations: AddrMap<()>,
}

/// Users of a nexthop, besides other nexthops.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Users {
    pub(super) routes: u32,
    /// Those of the routes that have no label.
    pub(super) unlabelled: u32,
    /// Those of the routes that are of IPv6.
    pub(super) routes6: u32,
    pub(super) labels: u32,
    pub(super) vifs: u32,
}

/// Everything that a state configures.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) vifs: IdMap<VifEntry>,
    pub(super) vrfs: IdMap<Arc<Vrf>>,
    pub(super) nexthops: IdMap<Arc<Nexthop>>,
    pub(super) routes: IdMap<Arc<RouteTable>>,
    pub(super) labels: IdMap<MplsLabel>,
    pub(super) acls: IdMap<Arc<Acl>>,
    pub(super) sas: IdMap<Versioned<Sa>>,
    /// Sub-interfaces with one tag, see [`single_tag`].
    vlans: IdMap<VifId>,
    /// Sub-interfaces with two tags, see [`double_tag`].
    stacked_vlans: Trie<u64, VifId>,
    /// Tunnel sources, and addresses where MPLS over UDP is opened, with the number of their users.
    pub(super) own: AddrMap<u32>,
    /// Far ends of tunnels, by the VRF that carries them (0: only their direct nexthop is known), with the number of users.
    pub(super) far: IdMap<AddrMap<u32>>,
    /// Tunnel nexthops by their far end, in order.
    pub(super) ends: AddrMap<Arc<[NexthopId]>>,
    /// Users of nexthops.
    pub(super) users: IdMap<Users>,
    /// Nexthops that lead to a nexthop.
    pub(super) parents: IdMap<Trie<u32, u32>>,
    /// Nexthops that send on a vif.
    pub(super) senders: IdMap<Trie<u32, ()>>,
    /// Number of nexthops in or into a VRF.
    pub(super) vrf_nexthops: IdMap<u32>,
    /// Gateways of valid nexthops.
    pub(super) gateways: GatewayUsers,
}

/// 0 for 0x8100, 1 for 0x88a8; other types select no sub-interface.
const fn tag_bits(tag: VlanTag) -> Option<u32> {
    let kind = match tag.tpid {
        0x8100 => 0,
        0x88a8 => 1,
        _ => return None,
    };
    if tag.vid > 0xfff { None } else { Some(kind << 12 | tag.vid as u32) }
}

/// Parent (16 bits), type of tag (1), VLAN id (12).
fn single_tag(parent: VifId, tag: VlanTag) -> Option<u32> {
    tag_bits(tag).map(|tag| u32::from(parent.get()) << 13 | tag)
}

/// Like [`single_tag`], and the inner tag (13 bits).
fn double_tag(parent: VifId, outer: VlanTag, inner: VlanTag) -> Option<u64> {
    Some(u64::from(single_tag(parent, outer)?) << 13 | u64::from(tag_bits(inner)?))
}

/// Where a sub-interface is found by its tags.
enum VlanKey {
    Single(u32),
    Double(u64),
}

fn vlan_key(vif: &Vif) -> Option<VlanKey> {
    match vif.kind {
        VifKind::PhysicalVlan { parent, outer, inner: None } => single_tag(parent, outer).map(VlanKey::Single),
        VifKind::PhysicalVlan { parent, outer, inner: Some(inner) } => {
            double_tag(parent, outer, inner).map(VlanKey::Double)
        }
        _ => None,
    }
}

const fn id(vrf: VrfId) -> u32 {
    vrf.get() as u32
}

/// The vif that a nexthop sends on.
pub(super) const fn oif(nexthop: &Nexthop) -> Option<VifId> {
    match nexthop.kind {
        NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => Some(oif),
        _ => None,
    }
}

/// Does it open MPLS over UDP?
pub(super) fn terminates(nexthop: &Nexthop) -> bool {
    nexthop.valid && matches!(&nexthop.kind, NexthopKind::Receive(receive) if receive.terminate_mpls_o_udp)
}

/// The one address of a host route.
fn host(prefix: IpNet) -> Option<IpAddr> {
    (prefix.prefix_len() == prefix.max_prefix_len()).then(|| prefix.addr())
}

fn add_one(trie: &mut Trie<u32, u32>, key: u32) {
    let count = trie.get(key, 32).copied().unwrap_or(0);
    trie.insert(key, 32, count + 1);
}

fn drop_one(trie: &mut Trie<u32, u32>, key: u32) {
    match trie.get(key, 32).copied() {
        Some(count) if count > 1 => _ = trie.insert(key, 32, count - 1),
        _ => _ = trie.remove(key, 32),
    }
}

impl Tables {
    pub(super) fn vif(&self, id: VifId) -> Option<&Arc<Vif>> {
        self.vifs.get(u32::from(id.get())).map(|entry| &entry.vif)
    }

    pub(super) fn nexthop(&self, id: NexthopId) -> Option<&Arc<Nexthop>> {
        self.nexthops.get(id.get())
    }

    pub(super) fn has_vrf(&self, vrf: VrfId) -> bool {
        self.vrfs.contains(id(vrf))
    }

    pub(super) fn users_of(&self, nexthop: NexthopId) -> Users {
        self.users.get(nexthop.get()).copied().unwrap_or_default()
    }

    /// Number of routes in a VRF.
    pub(super) fn routes_in(&self, vrf: VrfId) -> usize {
        self.routes.get(id(vrf)).map_or(0, |table| table.fib.len())
    }

    pub(super) fn vlan_vif(&self, parent: VifId, outer: VlanTag, inner: Option<VlanTag>) -> Option<VifId> {
        match inner {
            None => self.vlans.get(single_tag(parent, outer)?).copied(),
            Some(inner) => self.stacked_vlans.get(double_tag(parent, outer, inner)?, 64).copied(),
        }
    }

    /// Adds or replaces.
    pub(super) fn put_vif(&mut self, entry: VifEntry, changes: &mut Changes) {
        let vif = Arc::clone(&entry.configured);
        self.take_vif(vif.id, changes);
        changes.note(Dependency::Vif(vif.id));
        match vlan_key(&vif) {
            Some(VlanKey::Single(key)) => _ = self.vlans.insert(key, vif.id),
            Some(VlanKey::Double(key)) => _ = self.stacked_vlans.insert(key, 64, vif.id),
            None => {}
        }
        if let Some(nexthop) = vif.nexthop {
            self.users.update(nexthop.get(), |users| users.vifs += 1);
        }
        self.vifs.insert(u32::from(vif.id.get()), entry);
    }

    /// Removes; returns what was there.
    pub(super) fn take_vif(&mut self, id: VifId, changes: &mut Changes) -> Option<Arc<Vif>> {
        let vif = self.vifs.remove(u32::from(id.get()))?.configured;
        changes.note(Dependency::Vif(id));
        // Within one change another vif may have taken the tags over.
        match vlan_key(&vif) {
            Some(VlanKey::Single(key)) if self.vlans.get(key) == Some(&id) => _ = self.vlans.remove(key),
            Some(VlanKey::Double(key)) if self.stacked_vlans.get(key, 64) == Some(&id) => {
                _ = self.stacked_vlans.remove(key, 64);
            }
            _ => {}
        }
        if let Some(nexthop) = vif.nexthop {
            self.users.update(nexthop.get(), |users| users.vifs -= 1);
        }
        Some(vif)
    }

    /// Adds or replaces a VRF; its routes are kept apart.
    pub(super) fn put_vrf(&mut self, vrf: Arc<Vrf>, changes: &mut Changes) {
        if !self.routes.contains(id(vrf.id)) {
            self.routes.insert(id(vrf.id), Arc::default());
        }
        changes.note_vrfs();
        self.vrfs.insert(id(vrf.id), vrf);
    }

    pub(super) fn take_vrf(&mut self, vrf: VrfId, changes: &mut Changes) -> Option<Arc<Vrf>> {
        changes.note_vrfs();
        self.vrfs.remove(id(vrf))
    }

    /// Adds or replaces; true when routes to it may open MPLS over UDP now and did not before, or the reverse: then
    /// [`Self::refresh_terminations`] is due.
    pub(super) fn put_nexthop(&mut self, nexthop: Arc<Nexthop>, changes: &mut Changes) -> bool {
        let before = self.nexthops.remove(nexthop.id.get());
        if let Some(old) = &before {
            self.unlink_nexthop(old, changes);
        }
        self.note_nexthop(nexthop.id, changes);
        for (_, to) in nexthop.references() {
            self.parents.update(to.get(), |parents| add_one(parents, nexthop.id.get()));
        }
        if let Some(oif) = oif(&nexthop) {
            self.senders.update(u32::from(oif.get()), |senders| _ = senders.insert(nexthop.id.get(), 32, ()));
        }
        for vrf in vrfs_of(&nexthop) {
            self.vrf_nexthops.update(id(vrf), |count| *count += 1);
        }
        if let Some((vif, gateway)) = gateway_of(&nexthop) {
            self.gateways.update(u32::from(vif.get()), |users| users.add_user(gateway));
        }
        if let NexthopKind::Tunnel(tunnel) = &nexthop.kind {
            self.own.add_user(tunnel.sip.into());
            self.far.update(underlay(&nexthop), |ends| ends.add_user(tunnel.dip.into()));
            changes.note(Dependency::TunnelsTo(tunnel.dip.into()));
            changes.note_ends();
            let mut tunnels = self.ends.get(tunnel.dip.into()).map_or_else(Vec::new, |tunnels| tunnels.to_vec());
            if let Err(place) = tunnels.binary_search(&nexthop.id) {
                tunnels.insert(place, nexthop.id);
                self.ends.insert(tunnel.dip.into(), tunnels.into());
            }
        }
        let flips = before.is_some_and(|old| terminates(&old)) != terminates(&nexthop);
        let routes = self.users_of(nexthop.id).routes;
        self.nexthops.insert(nexthop.id.get(), nexthop);
        flips && routes > 0
    }

    /// Removes; `Some(true)` when routes to it opened MPLS over UDP, see [`Self::put_nexthop`].
    pub(super) fn take_nexthop(&mut self, nexthop: NexthopId, changes: &mut Changes) -> Option<bool> {
        let old = self.nexthops.remove(nexthop.get())?;
        self.note_nexthop(nexthop, changes);
        self.unlink_nexthop(&old, changes);
        Some(terminates(&old) && self.users_of(nexthop).routes > 0)
    }

    fn note_nexthop(&self, nexthop: NexthopId, changes: &mut Changes) {
        changes.note(Dependency::Nexthop(nexthop));
        if self.users_of(nexthop).labels > 0 {
            // Where a label leads is looked at before a packet has a key.
            changes.note_ends();
        }
    }

    fn unlink_nexthop(&mut self, nexthop: &Nexthop, changes: &mut Changes) {
        for (_, to) in nexthop.references() {
            self.parents.update(to.get(), |parents| drop_one(parents, nexthop.id.get()));
        }
        if let Some(oif) = oif(nexthop) {
            self.senders.update(u32::from(oif.get()), |senders| _ = senders.remove(nexthop.id.get(), 32));
        }
        for vrf in vrfs_of(nexthop) {
            self.vrf_nexthops.update(id(vrf), |count| *count -= 1);
        }
        if let Some((vif, gateway)) = gateway_of(nexthop) {
            self.gateways.update(u32::from(vif.get()), |users| users.drop_user(gateway));
        }
        if let NexthopKind::Tunnel(tunnel) = &nexthop.kind {
            self.own.drop_user(tunnel.sip.into());
            self.far.update(underlay(nexthop), |ends| ends.drop_user(tunnel.dip.into()));
            changes.note(Dependency::TunnelsTo(tunnel.dip.into()));
            changes.note_ends();
            if let Some(tunnels) = self.ends.remove(tunnel.dip.into()) {
                let left: Vec<NexthopId> = tunnels.iter().copied().filter(|id| *id != nexthop.id).collect();
                if !left.is_empty() {
                    self.ends.insert(tunnel.dip.into(), left.into());
                }
            }
        }
    }

    /// Adds or replaces; returns what was there.
    pub(super) fn put_route(&mut self, route: Arc<Route>, changes: &mut Changes) -> Option<Arc<Route>> {
        changes.note_route(route.vrf, route.prefix);
        let opens = self.nexthop(route.nexthop).is_some_and(|nexthop| terminates(nexthop));
        self.users.update(route.nexthop.get(), |users| {
            users.routes += 1;
            users.unlabelled += u32::from(route.label.is_none());
            users.routes6 += u32::from(route.prefix.addr().is_ipv6());
        });
        let address = host(route.prefix);
        let vrf = route.vrf;
        let mut old = None;
        let mut was_open = false;
        self.routes.update(id(vrf), |table| {
            let table = Arc::make_mut(table);
            old = table.fib.insert(route);
            if let Some(address) = address {
                was_open = if opens {
                    table.terminations.insert(address, ()).is_some()
                } else {
                    table.terminations.remove(address).is_some()
                };
            }
        });
        if let Some(old) = &old {
            self.unlink_route(old);
        }
        self.count_termination(address, was_open, opens, changes);
        old
    }

    pub(super) fn take_route(&mut self, vrf: VrfId, prefix: IpNet, changes: &mut Changes) -> Option<Arc<Route>> {
        // Looked up first, so that nothing is copied for what is not there.
        self.routes.get(id(vrf))?.fib.get(prefix)?;
        changes.note_route(vrf, prefix);
        let mut old = None;
        let mut was_open = false;
        self.routes.update(id(vrf), |table| {
            let table = Arc::make_mut(table);
            old = table.fib.remove(prefix);
            was_open = host(prefix).is_some_and(|address| table.terminations.remove(address).is_some());
        });
        if let Some(old) = &old {
            self.unlink_route(old);
        }
        self.count_termination(host(prefix), was_open, false, changes);
        old
    }

    fn unlink_route(&mut self, route: &Route) {
        self.users.update(route.nexthop.get(), |users| {
            users.routes -= 1;
            users.unlabelled -= u32::from(route.label.is_none());
            users.routes6 -= u32::from(route.prefix.addr().is_ipv6());
        });
    }

    fn count_termination(&mut self, address: Option<IpAddr>, before: bool, after: bool, changes: &mut Changes) {
        if before != after {
            changes.note_ends();
        }
        match (address, before, after) {
            (Some(address), false, true) => self.own.add_user(address),
            (Some(address), true, false) => self.own.drop_user(address),
            _ => {}
        }
    }

    /// Finds all host routes to receive nexthops that open MPLS over UDP anew: the one walk over all routes, due only when
    /// a nexthop that has routes starts or stops opening it.
    pub(super) fn refresh_terminations(&mut self, changes: &mut Changes) {
        changes.note_ends();
        let tables: Vec<(u32, Arc<RouteTable>)> = self.routes.iter().map(|(vrf, t)| (vrf, Arc::clone(t))).collect();
        for (vrf, table) in tables {
            let mut terminations = AddrMap::default();
            for route in table.fib.iter() {
                if let Some(address) = host(route.prefix)
                    && self.nexthop(route.nexthop).is_some_and(|nexthop| terminates(nexthop))
                {
                    terminations.insert(address, ());
                }
            }
            table.terminations.iter().for_each(|(address, ())| self.own.drop_user(address));
            terminations.iter().for_each(|(address, ())| self.own.add_user(address));
            self.routes.update(vrf, |table| Arc::make_mut(table).terminations = terminations);
        }
    }

    /// Adds or replaces.
    pub(super) fn put_label(&mut self, label: MplsLabel, changes: &mut Changes) {
        self.take_label(label.label, changes);
        changes.note(Dependency::Label(label.label));
        self.users.update(label.nexthop.get(), |users| users.labels += 1);
        self.labels.insert(label.label.get(), label);
    }

    pub(super) fn take_label(&mut self, label: Label, changes: &mut Changes) -> Option<NexthopId> {
        let nexthop = self.labels.remove(label.get())?.nexthop;
        changes.note(Dependency::Label(label));
        self.users.update(nexthop.get(), |users| users.labels -= 1);
        Some(nexthop)
    }

    /// Adds or replaces.
    pub(super) fn put_acl(&mut self, acl: Arc<Acl>, changes: &mut Changes) {
        changes.note_list(acl.id, self.acls.get(acl.id.get()).map(AsRef::as_ref), Some(&acl));
        self.acls.insert(acl.id.get(), acl);
    }

    pub(super) fn take_acl(&mut self, acl: AclId, changes: &mut Changes) -> Option<Arc<Acl>> {
        let old = self.acls.remove(acl.get());
        changes.note_list(acl, old.as_deref(), None);
        old
    }

    /// Adds or replaces.
    pub(super) fn put_sa(&mut self, sa: Arc<Sa>, version: u64, changes: &mut Changes) {
        changes.note(Dependency::Sa(sa.id));
        self.sas.insert(sa.id.get(), Versioned { object: sa, version });
    }

    pub(super) fn take_sa(&mut self, sa: SaId, changes: &mut Changes) -> Option<Arc<Sa>> {
        changes.note(Dependency::Sa(sa));
        self.sas.remove(sa.get()).map(|entry| entry.object)
    }

    /// Drops the empty tables of VRFs that are gone.
    pub(super) fn drop_route_tables(&mut self, gone: &[VrfId]) {
        for vrf in gone {
            if !self.has_vrf(*vrf) && self.routes_in(*vrf) == 0 {
                self.routes.remove(id(*vrf));
            }
        }
    }
}

/// The VRF that carries a tunnel's outer packets; 0 when the nexthop names none.
fn underlay(nexthop: &Nexthop) -> u32 {
    nexthop.vrf.map_or(0, id)
}

/// The VRFs that a nexthop names.
fn vrfs_of(nexthop: &Nexthop) -> impl Iterator<Item = VrfId> {
    let into = match nexthop.kind {
        NexthopKind::VrfTranslate { vrf } => Some(vrf),
        _ => None,
    };
    nexthop.vrf.into_iter().chain(into)
}
