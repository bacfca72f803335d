//! What the node knows besides its forwarding state, and how a new snapshot comes about.
//!
//! One owner for all workers: neighbours, path MTUs and the state of interfaces come together here, and leave as the next
//! snapshot. No I/O, and time is a parameter, so that a replay does exactly what the daemon does.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use offload_rules::{
    MacAddr, SaId, VifId,
    forwarding::{Delta, Sa, SaDirection, Snapshot, State, StateErrors},
};

use super::{
    ike::{self, Book},
    sequences::Sequences,
};
use crate::worker::{Event, Grant, NeighbourKey, SaNews};

/// Milliseconds after which a neighbour that has not been heard of is asked again (RFC 4861 §10 REACHABLE_TIME).
const REACHABLE_MS: u64 = 30_000;
/// Milliseconds between two such questions (RFC 4861 §10 RETRANS_TIMER).
const PROBE_MS: u64 = 1000;
/// Unanswered questions after which a neighbour is forgotten (RFC 4861 §10 MAX_UNICAST_SOLICIT).
const PROBES: u8 = 3;
/// Milliseconds that a path MTU is believed (RFC 1191 §6.3).
const PATH_MTU_MS: u64 = 600_000;

/// What is known of a neighbour besides its address.
#[derive(Debug, Clone, Copy)]
struct Heard {
    /// When it was last heard of.
    confirmed: u64,
    /// Questions since.
    probes: u8,
    next_probe: u64,
}

/// A neighbour's standing, for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Heard of lately.
    Reachable,
    /// Being asked again.
    Stale,
}

/// What has to be done after an event or after time has passed.
#[derive(Debug, Default)]
pub struct Actions {
    /// A new snapshot for all workers.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Neighbours to ask again, at the MAC that is known.
    pub probe: Vec<(NeighbourKey, MacAddr)>,
    /// Neighbours that the table has no room for.
    pub refuse: Vec<NeighbourKey>,
    /// What became of security associations.
    pub sas: Vec<(SaId, SaNews)>,
}

/// The node's knowledge.
#[derive(Debug)]
pub struct Control {
    snapshot: Arc<Snapshot>,
    heard: BTreeMap<NeighbourKey, Heard>,
    path_mtus: BTreeMap<IpAddr, u64>,
    sequences: Sequences,
    ike: Book,
    /// A NIC may hold SAs.
    nic: bool,
    /// Outbound SAs that have been given numbers.
    granted: BTreeMap<SaId, Arc<Sa>>,
    /// Numbers that the workers have not been told of yet.
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

    /// With this snapshot, and the sequence numbers that were reserved in earlier lives. `nic`: SAs are offered to one.
    #[must_use]
    pub fn with_sequences(snapshot: Arc<Snapshot>, sequences: Sequences, nic: bool) -> Self {
        let mut control = Self {
            snapshot,
            heard: BTreeMap::new(),
            path_mtus: BTreeMap::new(),
            sequences,
            ike: Book::default(),
            nic,
            granted: BTreeMap::new(),
            grants: Vec::new(),
            rekeys: BTreeMap::new(),
        };
        control.reserve();
        control
    }

    /// The sequence numbers that are reserved.
    #[must_use]
    pub const fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Sequence numbers for the workers. Whoever takes them keeps [`Self::sequences`] first, if they are to outlive the node.
    pub fn take_grants(&mut self) -> Vec<Grant> {
        std::mem::take(&mut self.grants)
    }

    /// How often the outbound SAs of a tunnel were replaced.
    #[must_use]
    pub fn rekeys(&self, vif: VifId) -> u64 {
        self.rekeys.get(&vif).copied().unwrap_or(0)
    }

    /// Gives numbers to the outbound SAs that have none.
    fn reserve(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        self.granted.retain(|id, sa| snapshot.sa(*id).is_some_and(|now| now == sa));
        for sa in snapshot.sas().filter(|sa| sa.direction == SaDirection::Outbound) {
            if let Entry::Vacant(fresh) = self.granted.entry(sa.id) {
                fresh.insert(Arc::clone(sa));
                self.grants.push(self.sequences.reserve(sa, self.nic));
            }
        }
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
        self.ike.compare(&self.snapshot, &next);
        let published = self.publish(next);
        self.reserve();
        published
    }

    /// The snapshot in force.
    #[must_use]
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How a neighbour stands at `now`.
    #[must_use]
    pub fn standing(&self, neighbour: NeighbourKey) -> Standing {
        match self.heard.get(&neighbour) {
            Some(heard) if heard.probes > 0 => Standing::Stale,
            _ => Standing::Reachable,
        }
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
            Request::GetSpi => return (Ok(format!("spi={:08x}", self.ike.get_spi(&snapshot, now))), None),
            Request::QuerySa { spi, destination } => {
                return (Book::find(&snapshot, spi, destination).map(|sa| sa.sa.id.to_string()), None);
            }
            Request::AddSa(new) => self.ike.add(&snapshot, *new, now),
            Request::UpdateSa { spi, destination, new_source, new_destination, udp } => {
                Book::update(&snapshot, (spi, destination), (new_source, new_destination), udp)
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

    /// What charon's plugin is to be told.
    pub fn take_ike_events(&mut self) -> Vec<ike::Event> {
        self.ike.take_events()
    }

    fn publish(&mut self, next: Snapshot) -> Arc<Snapshot> {
        self.heard.retain(|(vif, address), _| next.neighbour(*vif, *address).is_some());
        self.snapshot = Arc::new(next);
        Arc::clone(&self.snapshot)
    }

    /// The device of a vif has come or gone.
    pub fn set_up(&mut self, vif: VifId, up: bool) -> Option<Arc<Snapshot>> {
        if self.snapshot.vif(vif).is_none() || self.snapshot.is_up(vif) == up {
            return None;
        }
        let next = self.snapshot.with_vif_up(vif, up);
        Some(self.publish(next))
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

    /// Takes in what the workers tell.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>, now: u64) -> Actions {
        let mut actions = Actions::default();
        for event in events {
            match event {
                Event::Sa { sa, news } => {
                    match news {
                        SaNews::Expiring => self.ike.expired(&self.snapshot, sa, false),
                        SaNews::Ended(_) => {
                            self.ike.expired(&self.snapshot, sa, true);
                            let next = self.snapshot.with_sa_ended(sa);
                            actions.snapshot = Some(self.publish(next));
                        }
                        SaNews::Low => {
                            if let Some(sa) = self.granted.get(&sa) {
                                // What was reserved before and is not used yet stays of use.
                                self.grants.push(Grant { from: sa.first, ..self.sequences.reserve(sa, self.nic) });
                            }
                        }
                    }
                    actions.sas.push((sa, news));
                }
                Event::Neighbour { vif, address, mac, solicited } => {
                    self.hear((vif, address), mac, solicited, now, &mut actions);
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

    fn hear(&mut self, neighbour: NeighbourKey, mac: MacAddr, solicited: bool, now: u64, actions: &mut Actions) {
        let (vif, address) = neighbour;
        let known = self.snapshot.neighbour(vif, address).map(|known| known.mac);
        if known.is_none() && !solicited {
            // RFC 826 and RFC 4861 §7.2.5: what nobody asked for makes no new entry.
            return;
        }
        if known != Some(mac) {
            if self.snapshot.vif(vif).is_none() {
                // It went while the packet was under way.
                return;
            }
            let next = self.snapshot.with_neighbour(vif, address, mac).or_else(|| {
                self.forget_oldest_stale(actions);
                self.snapshot.with_neighbour(vif, address, mac)
            });
            match next {
                Some(next) => {
                    // No neighbour has gone: nothing to forget beside it.
                    self.snapshot = Arc::new(next);
                    actions.snapshot = Some(Arc::clone(&self.snapshot));
                }
                None => {
                    actions.refuse.push(neighbour);
                    return;
                }
            }
        }
        self.heard.insert(neighbour, Heard { confirmed: now, probes: 0, next_probe: now + REACHABLE_MS });
    }

    fn forget_oldest_stale(&mut self, actions: &mut Actions) {
        let stale = self.heard.iter().filter(|(_, heard)| heard.probes > 0).min_by_key(|(_, heard)| heard.confirmed);
        if let Some(((vif, address), _)) = stale {
            let next = self.snapshot.without_neighbour(*vif, *address);
            actions.snapshot = Some(self.publish(next));
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: u64) -> Actions {
        let mut actions = Actions::default();
        let mut lost = Vec::new();
        for (neighbour, heard) in &mut self.heard {
            if now < heard.next_probe {
                continue;
            }
            if heard.probes >= PROBES {
                lost.push(*neighbour);
                continue;
            }
            heard.probes += 1;
            heard.next_probe = now + PROBE_MS;
            if let Some(known) = self.snapshot.neighbour(neighbour.0, neighbour.1) {
                actions.probe.push((*neighbour, known.mac));
            }
        }
        for (vif, address) in lost {
            self.heard.remove(&(vif, address));
            self.snapshot = Arc::new(self.snapshot.without_neighbour(vif, address));
            actions.snapshot = Some(Arc::clone(&self.snapshot));
        }
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
