//! What the node knows besides its forwarding state, and how a new snapshot comes about.
//!
//! One owner for all workers: neighbours, path MTUs and the state of interfaces come together here, and leave as the next
//! snapshot. No I/O, and time is a parameter, so that a replay does exactly what the daemon does.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use offload_rules::{
    DropReason, MacAddr, SaId, VifId,
    forwarding::{Delta, IKE_SAS, Sa, SaDirection, Snapshot, State, StateErrors, Vif, VifKind},
};

use super::{
    gateways::{GatewayChange, Gateways},
    ike::{self, Book},
    neighbours::{Effects, Limits, Neighbours, nud::Question},
    sequences::{NumbersUnknown, Sequences},
};
use crate::worker::{Event, GiveUp, Grant, NeighbourKey, SaNews};

/// Milliseconds that a path MTU is believed (RFC 1191 §6.3).
const PATH_MTU_MS: u64 = 600_000;

/// What has to be done after an event or after time has passed.
#[derive(Debug, Default)]
pub struct Actions {
    /// A new snapshot for all workers.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Neighbours to ask for, everybody or at the MAC that is known.
    pub ask: Vec<(NeighbourKey, Question)>,
    /// Neighbours that are not waited for any longer.
    pub give_up: Vec<(NeighbourKey, GiveUp)>,
    /// What became of security associations.
    pub sas: Vec<(SaId, SaNews)>,
}

/// The node's knowledge.
#[derive(Debug)]
pub struct Control {
    snapshot: Arc<Snapshot>,
    neighbours: Neighbours,
    gateways: Gateways,
    /// The gateways to watch may be others than those that are watched.
    gateways_moved: bool,
    path_mtus: BTreeMap<IpAddr, u64>,
    sequences: Sequences,
    /// Those of SAs that IKE has negotiated. No other run of the node has their keys, so they are kept nowhere, and push no key out
    /// of what is kept, however often IKE makes new ones.
    ike_sequences: Sequences,
    ike: Book,
    /// A NIC may hold SAs.
    nic: bool,
    /// Outbound SAs that have been given numbers.
    granted: BTreeMap<SaId, Arc<Sa>>,
    /// Outbound SAs that seal nothing: which numbers their keys have used is not known.
    refused: BTreeMap<SaId, (Arc<Sa>, NumbersUnknown)>,
    /// Numbers that have not been sent to the workers yet.
    grants: Vec<Grant>,
    /// How often the outbound SAs of a tunnel were replaced.
    rekeys: BTreeMap<VifId, u64>,
}

impl Control {
    /// With this snapshot.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self::with_sequences(snapshot, Sequences::default(), false)
    }

    /// With this snapshot, and the sequence numbers that were reserved in earlier runs. `nic`: SAs are offered to one.
    #[must_use]
    pub fn with_sequences(snapshot: Arc<Snapshot>, sequences: Sequences, nic: bool) -> Self {
        let mut control = Self {
            snapshot,
            neighbours: Neighbours::default(),
            gateways: Gateways::default(),
            gateways_moved: true,
            path_mtus: BTreeMap::new(),
            sequences,
            ike_sequences: Sequences::default(),
            ike: Book::default(),
            nic,
            granted: BTreeMap::new(),
            refused: BTreeMap::new(),
            grants: Vec::new(),
            rekeys: BTreeMap::new(),
        };
        control.reserve();
        control
    }

    /// The sequence numbers that are reserved, but for those of IKE.
    #[must_use]
    pub const fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Sequence numbers for the workers. [`Self::sequences`] must be saved before they are used, where they are to outlive the node.
    pub fn take_grants(&mut self) -> Vec<Grant> {
        std::mem::take(&mut self.grants)
    }

    /// How often the outbound SAs of a tunnel were replaced.
    #[must_use]
    pub fn rekeys(&self, vif: VifId) -> u64 {
        self.rekeys.get(&vif).copied().unwrap_or(0)
    }

    /// Outbound SAs that seal nothing, and why.
    pub fn refused(&self) -> impl Iterator<Item = (SaId, NumbersUnknown)> {
        self.refused.iter().map(|(id, (_, why))| (*id, *why))
    }

    /// Why an SA seals nothing, if it is so.
    #[must_use]
    pub fn why_refused(&self, sa: SaId) -> Option<NumbersUnknown> {
        self.refused.get(&sa).map(|(_, why)| *why)
    }

    /// Gives numbers to the outbound SAs that have none. Those whose numbers are not known are at their end.
    fn reserve(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        let is_same = |id: &SaId, sa: &Arc<Sa>| snapshot.sa(*id).is_some_and(|now| now == sa);
        self.granted.retain(|id, sa| is_same(id, sa));
        self.refused.retain(|id, (sa, _)| is_same(id, sa));
        for sa in snapshot.sas().filter(|sa| sa.direction == SaDirection::Outbound) {
            if self.refused.contains_key(&sa.id) || self.granted.contains_key(&sa.id) {
                continue;
            }
            match self.reserve_for(sa) {
                Ok(grant) => {
                    self.granted.insert(sa.id, Arc::clone(sa));
                    self.grants.push(grant);
                }
                Err(why) => _ = self.refused.insert(sa.id, (Arc::clone(sa), why)),
            }
        }
        for sequences in [&mut self.sequences, &mut self.ike_sequences] {
            let refused = self.refused.values().map(|(sa, _)| sa);
            sequences.forget_oldest(self.granted.values().chain(refused).map(|sa| &**sa));
        }
        let refused: Vec<SaId> = self.refused.keys().copied().filter(|sa| snapshot.is_sa_usable(*sa)).collect();
        for sa in refused {
            let next = self.snapshot.with_sa_ended(sa, DropReason::SaRefused);
            self.publish(next);
        }
    }

    /// The next numbers of an SA.
    fn reserve_for(&mut self, sa: &Arc<Sa>) -> Result<Grant, NumbersUnknown> {
        let of_ike = IKE_SAS.contains(&sa.id.get());
        let sequences = if of_ike { &mut self.ike_sequences } else { &mut self.sequences };
        sequences.reserve(sa, self.nic)
    }

    /// A state or a change is in force.
    fn applied(&mut self, next: Snapshot) -> Arc<Snapshot> {
        for vif in next.vifs() {
            let before = self.snapshot.vif(vif.id).and_then(|vif| vif.kind.tunnel());
            if let (Some(before), Some(now)) = (before, vif.kind.tunnel())
                && let (Some(old), Some(new)) = (before.outbound.first(), now.outbound.first())
                && self.snapshot.sa(*old) != next.sa(*new)
            {
                *self.rekeys.entry(vif.id).or_default() += 1;
            }
        }
        self.rekeys.retain(|vif, _| next.vif(*vif).is_some());
        let next = self.without_moved(next);
        self.gateways_moved = true;
        self.ike.compare(&self.snapshot, &next);
        self.publish(next);
        self.reserve();
        Arc::clone(&self.snapshot)
    }

    /// The next snapshot without the neighbours that were learnt on a vif which is another link by now.
    fn without_moved(&mut self, next: Snapshot) -> Snapshot {
        let before = Arc::clone(&self.snapshot);
        let same = |id: VifId| match (before.vif(id), next.vif(id)) {
            (Some(before), Some(next)) => Arc::ptr_eq(before, next),
            _ => false,
        };
        if before.vifs().all(|vif| same(vif.id)) {
            return next;
        }
        let stays = |(vif, address): NeighbourKey| {
            let may_be_there = |vif: &Arc<Vif>| vif.resolves() && vif.is_on_link(address) && !vif.owns(address);
            same_link(&before, &next, vif) && next.vif(vif).is_some_and(may_be_there)
        };
        let effects = self.neighbours.forget(|neighbour| !stays(neighbour));
        if effects.macs.is_empty() { next } else { next.with_neighbours(&effects.macs) }
    }

    /// The snapshot in force.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The neighbour cache.
    #[must_use]
    pub const fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// Puts a state in force.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old one stays in force.
    pub fn apply_state(&mut self, state: State) -> Result<Arc<Snapshot>, StateErrors> {
        let next = self.snapshot.with_state(state)?;
        Ok(self.applied(next))
    }

    /// Puts a change in force.
    ///
    /// # Errors
    /// Everything that is wrong with it; the old state stays in force.
    pub fn apply_delta(&mut self, delta: Delta) -> Result<Arc<Snapshot>, StateErrors> {
        let next = self.snapshot.with_delta(delta)?;
        Ok(self.applied(next))
    }

    /// Does what charon's plugin asks. With the answer's words; a new snapshot is in force when there is one.
    pub fn ike(&mut self, request: ike::Request, now: u64) -> (Result<String, ike::Refused>, Option<Arc<Snapshot>>) {
        use ike::Request;
        let snapshot = Arc::clone(&self.snapshot);
        let next = match request {
            Request::Hello { charon, .. } => {
                self.ike.hello(charon, &snapshot, now);
                return (Ok(format!("version={}", ike::VERSION)), None);
            }
            Request::GetSpi { between } => {
                return (Ok(format!("spi={:08x}", self.ike.get_spi(&snapshot, between, now))), None);
            }
            Request::QuerySa { spi, destination } => {
                return (Book::find(&snapshot, spi, destination).map(|sa| sa.sa.id.to_string()), None);
            }
            Request::AddSa(new) => self.ike.add(&snapshot, *new, now),
            Request::UpdateSa { spi, destination, new_source, new_destination, udp } => {
                let outer = ike::OuterPath { source: new_source, destination: new_destination, udp };
                Book::update(&snapshot, spi, destination, outer)
            }
            Request::DelSa { spi, destination } => {
                Book::find(&snapshot, spi, destination).map(|sa| snapshot.without_ike_sas(&[sa.sa.id]))
            }
            Request::Flush => {
                let all: Vec<_> = snapshot.ike_sas().map(|sa| sa.sa.id).collect();
                Ok(snapshot.without_ike_sas(&all))
            }
        };
        match next {
            Ok(next) => {
                let published = self.applied(next);
                // charon knows what it has asked for.
                self.ike.take_events();
                (Ok(String::new()), Some(published))
            }
            Err(refused) => (Err(refused), None),
        }
    }

    /// Events for charon's plugin.
    pub fn take_ike_events(&mut self) -> Vec<ike::Event> {
        self.ike.take_events()
    }

    fn publish(&mut self, next: Snapshot) -> Arc<Snapshot> {
        self.snapshot = Arc::new(next);
        Arc::clone(&self.snapshot)
    }

    /// The device of a vif has come or gone. What was learnt on its link, and on its sub-interfaces, ends with it: the station at the
    /// other end may be another one when the link is back (RFC 1122 §2.3.2.1).
    pub fn set_up(&mut self, vif: VifId, up: bool, now: u64) -> Actions {
        let mut actions = Actions::default();
        if self.snapshot.vif(vif).is_none() || self.snapshot.is_up(vif) == up {
            return actions;
        }
        let next = self.snapshot.with_vif_up(vif, up);
        let snapshot = self.publish(next);
        let on_link = |id: VifId| id == vif || snapshot.port_of(id) == vif;
        let effects =
            if up { self.neighbours.ask_again(on_link, now) } else { self.neighbours.forget(|(id, _)| on_link(id)) };
        actions.snapshot = Some(snapshot);
        self.follow(effects, &mut actions);
        self.gateways_moved = true;
        actions
    }

    /// The device of a vif has this MAC.
    pub fn set_device_mac(&mut self, vif: VifId, mac: MacAddr) -> Option<Arc<Snapshot>> {
        let known = self.snapshot.vif(vif)?;
        if known.mac == Some(mac) {
            return None;
        }
        let next = self.snapshot.with_device_mac(vif, mac);
        Some(self.publish(next))
    }

    /// The device of a vif has this MTU.
    pub fn set_device_mtu(&mut self, vif: VifId, mtu: u32) -> Option<Arc<Snapshot>> {
        if self.snapshot.vif(vif).is_none() || self.snapshot.device_mtu(vif) == Some(mtu) {
            return None;
        }
        let next = self.snapshot.with_device_mtu(vif, mtu);
        Some(self.publish(next))
    }

    /// Takes in what the workers tell.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>, now: u64) -> Actions {
        let mut actions = Actions::default();
        for event in events {
            match event {
                Event::Sa { sa, news } => {
                    match news {
                        SaNews::Expiring => self.ike.expired(&self.snapshot, sa, false),
                        SaNews::Ended(reason) => {
                            self.ike.expired(&self.snapshot, sa, true);
                            let next = self.snapshot.with_sa_ended(sa, reason);
                            actions.snapshot = Some(self.publish(next));
                        }
                        SaNews::Low => {
                            if let Some(granted) = self.granted.get(&sa).cloned()
                                && let Ok(grant) = self.reserve_for(&granted)
                            {
                                self.grants.push(grant);
                            }
                        }
                    }
                    actions.sas.push((sa, news));
                }
                Event::Neighbour { neighbour, claim } => {
                    // The vif may have gone while the packet was under way.
                    if self.snapshot.is_up(neighbour.0) {
                        let effects = self.neighbours.told(neighbour, claim, self.limits(), now);
                        self.follow(effects, &mut actions);
                        let news = self.gateways.told(neighbour, &self.neighbours, now);
                        self.learn_of_gateways(news.as_slice(), &mut actions);
                    }
                }
                Event::Needed { neighbour, tenant } => {
                    if self.snapshot.is_up(neighbour.0) {
                        let effects = self.neighbours.need(neighbour, tenant, self.limits(), now);
                        self.follow(effects, &mut actions);
                    }
                }
                Event::PathMtu { destination, mtu } => {
                    let destination = IpAddr::V4(destination);
                    let known = self.snapshot.path_mtu(destination);
                    // A larger one is about a packet that was sent before (RFC 1191 §6.3: never raised by a message).
                    if known.is_none_or(|known| mtu <= known) {
                        self.path_mtus.insert(destination, now + PATH_MTU_MS);
                    }
                    if known.is_none_or(|known| mtu < known) {
                        let next = self.snapshot.with_path_mtu(destination, Some(mtu));
                        actions.snapshot = Some(self.publish(next));
                    }
                }
            }
        }
        actions
    }

    /// Bounds of the neighbour cache.
    fn limits(&self) -> Limits {
        let settings = self.snapshot.settings();
        Limits { known: settings.max_neighbours as usize, asked: settings.max_held as usize }
    }

    /// Does what follows from a change of the neighbour cache.
    fn follow(&mut self, effects: Effects, actions: &mut Actions) {
        if !effects.macs.is_empty() {
            let next = self.snapshot.with_neighbours(&effects.macs);
            actions.snapshot = Some(self.publish(next));
        }
        let lost: Vec<GatewayChange> = effects.give_up.iter().filter_map(|(key, _)| self.gateways.lost(*key)).collect();
        self.learn_of_gateways(&lost, actions);
        actions.ask.extend(effects.ask);
        actions.give_up.extend(effects.give_up);
    }

    fn learn_of_gateways(&mut self, news: &[GatewayChange], actions: &mut Actions) {
        if let Some(next) = self.snapshot.with_gateways(news) {
            actions.snapshot = Some(self.publish(next));
        }
    }

    /// Watches the gateways of nexthops, those whose links are up.
    fn watch_gateways(&mut self, now: u64, actions: &mut Actions) {
        if std::mem::take(&mut self.gateways_moved) {
            let snapshot = Arc::clone(&self.snapshot);
            let can_be_asked = |vif: VifId| snapshot.is_up(vif) && snapshot.vif(vif).is_some_and(|vif| vif.resolves());
            let wanted = snapshot.gateways().filter(|(vif, _)| can_be_asked(*vif)).collect();
            let news = self.gateways.watch(&wanted, now);
            self.learn_of_gateways(&news, actions);
            let effects = self.neighbours.keep(&wanted, self.limits(), now);
            self.follow(effects, actions);
        }
        let news = self.gateways.tick(&mut self.neighbours, now, &mut actions.ask);
        self.learn_of_gateways(&news, actions);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: u64) -> Actions {
        let mut actions = Actions::default();
        let effects = self.neighbours.tick(self.limits(), now);
        self.follow(effects, &mut actions);
        self.watch_gateways(now, &mut actions);
        let due = self.ike.due(now);
        if !due.is_empty() {
            let next = self.snapshot.without_ike_sas(&due);
            actions.snapshot = Some(self.applied(next));
            self.ike.take_events();
        }
        let over: Vec<_> = self.path_mtus.iter().filter(|(_, until)| **until <= now).map(|(to, _)| *to).collect();
        for destination in over {
            self.path_mtus.remove(&destination);
            let next = self.snapshot.with_path_mtu(destination, None);
            actions.snapshot = Some(self.publish(next));
        }
        actions
    }
}

/// Is the vif the same link in both: the same device, or the same tags on the same parent, in the same VRF?
fn same_link(before: &Snapshot, next: &Snapshot, vif: VifId) -> bool {
    let (Some(old), Some(new)) = (before.vif(vif), next.vif(vif)) else { return false };
    let same = match (&old.kind, &new.kind) {
        (
            VifKind::PhysicalVlan { parent, outer, inner },
            VifKind::PhysicalVlan { parent: to, outer: outer_to, inner: inner_to },
        ) => (parent, outer, inner) == (to, outer_to, inner_to) && same_link(before, next, *parent),
        (old, new) => match (old.port(), new.port()) {
            (Some(old), Some(new)) => old.device == new.device,
            _ => false,
        },
    };
    same && old.vrf == new.vrf
}
