//! State kept about charon: the running instance, reserved SPIs, and SAs that are about to be removed.

use std::{collections::BTreeMap, hash::BuildHasher, net::Ipv4Addr, sync::Arc};

use offload_rules::{
    SaId, VifId,
    forwarding::{DEFAULT_WINDOW, IKE_SAS, IKE_SPIS, IkeSa, MAX_WINDOW, Sa, SaDirection, Snapshot},
};

use super::line::{Event, NewSa, Refused};
use crate::esp;

/// Milliseconds that a reserved index waits for its SA.
const RESERVED_MS: u64 = 180_000;
/// Milliseconds that SAs of an earlier charon stay when a new one has said hello: time to negotiate anew.
const ORPHANS_MS: u64 = 180_000;
/// Milliseconds that they stay when their tunnel has a new outbound SA: the other end may still send with the old one.
const REPLACED_MS: u64 = 10_000;

/// Outer addresses and UDP ports of an SA's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterPath {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// ESP in UDP: source and destination port.
    pub udp: Option<(u16, u16)>,
}

/// State kept about charon.
#[derive(Debug)]
pub struct Book {
    random: std::hash::RandomState,
    drawn: u64,
    charon: Option<u64>,
    /// Until when.
    reserved: BTreeMap<u32, u64>,
    /// SAs of an earlier charon: until when.
    orphans: BTreeMap<SaId, u64>,
    next_id: u32,
    events: Vec<Event>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            random: std::hash::RandomState::new(),
            drawn: 0,
            charon: None,
            reserved: BTreeMap::new(),
            orphans: BTreeMap::new(),
            next_id: *IKE_SAS.start(),
            events: Vec::new(),
        }
    }
}

/// Where an SA's packets go, as charon names it.
fn destination(sa: &IkeSa) -> Ipv4Addr {
    match sa.sa.direction {
        SaDirection::Inbound => sa.local,
        SaDirection::Outbound => sa.peer,
    }
}

impl Book {
    /// A charon connects. Of another instance than before: the earlier one's SAs go when they are replaced, or after a time.
    pub fn hello(&mut self, charon: u64, snapshot: &Snapshot, now: u64) {
        if self.charon.replace(charon) == Some(charon) {
            return;
        }
        for sa in snapshot.ike_sas() {
            self.orphans.entry(sa.sa.id).or_insert(now + ORPHANS_MS);
        }
        self.reserved.clear();
    }

    /// Reserves an SPI that no SA has. When there is an SA for packets `between` the same two addresses, whose place the new one will
    /// take, the same worker opens for both: what comes with the old one is not overtaken by what comes with the new one.
    pub fn get_spi(&mut self, snapshot: &Snapshot, between: Option<(Ipv4Addr, Ipv4Addr)>, now: u64) -> u32 {
        self.reserved.retain(|_, until| *until > now);
        let is_between =
            |sa: &&Arc<IkeSa>| sa.sa.direction == SaDirection::Inbound && between == Some((sa.peer, sa.local));
        let octet = snapshot.ike_sas().find(is_between).map(|sa| esp::opener_octet(sa.sa.spi));
        loop {
            self.drawn += 1;
            let room = IKE_SPIS.end() - IKE_SPIS.start();
            let random = IKE_SPIS.start() + (self.random.hash_one(self.drawn) as u32 & room);
            let spi = octet.map_or(random, |octet| esp::with_opener_octet(random, octet));
            let taken = snapshot.sas().any(|sa| sa.direction == SaDirection::Inbound && sa.spi == spi);
            if !taken && !self.reserved.contains_key(&spi) {
                self.reserved.insert(spi, now + RESERVED_MS);
                return spi;
            }
        }
    }

    /// An SA by index and outer destination.
    ///
    /// # Errors
    /// [`Refused::Unknown`].
    pub fn find(snapshot: &Snapshot, spi: u32, to: Ipv4Addr) -> Result<Arc<IkeSa>, Refused> {
        let found = snapshot.ike_sas().find(|sa| sa.sa.spi == spi && destination(sa) == to);
        found.cloned().ok_or(Refused::Unknown(spi, to))
    }

    /// Takes an SA in.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn add(&mut self, snapshot: &Snapshot, new: NewSa, now: u64) -> Result<Snapshot, Refused> {
        let inbound = new.direction == SaDirection::Inbound;
        let (local, peer) = if inbound { (new.destination, new.source) } else { (new.source, new.destination) };
        let vif = tunnel(snapshot, new.if_id, local, peer)?;
        let id = Some(self.next_id)
            .filter(|id| IKE_SAS.contains(id))
            .and_then(|id| SaId::new(id).ok())
            .ok_or(Refused::Ended)?;
        let sa = Sa {
            id,
            spi: new.spi,
            direction: new.direction,
            key: new.key,
            esn: new.esn,
            // charon gives any number of packets, and of 0 for no window at all, which there is not here.
            window: match (inbound, new.window) {
                (false, _) => 0,
                (true, 0) => DEFAULT_WINDOW,
                (true, window) => window.min(MAX_WINDOW).next_multiple_of(32),
            },
            soft: new.soft,
            hard: new.hard,
            first: 1,
            worker: vif.get().into(),
        };
        let udp = if inbound { new.udp.map(|(from, to)| (to, from)) } else { new.udp };
        let next = snapshot.with_ike_sa(IkeSa { sa: Arc::new(sa), vif, local, peer, udp })?;
        self.next_id += 1;
        self.reserved.remove(&new.spi);
        if !inbound {
            for sa in snapshot.ike_sas().filter(|sa| sa.vif == vif) {
                if let Some(until) = self.orphans.get_mut(&sa.sa.id) {
                    *until = (*until).min(now + REPLACED_MS);
                }
            }
        }
        Ok(next)
    }

    /// Other outer addresses or ports.
    ///
    /// # Errors
    /// [`Refused::Unknown`]; [`Refused::NoTunnel`] when this end would be another one.
    pub fn update(
        snapshot: &Snapshot,
        spi: u32,
        old_destination: Ipv4Addr,
        outer: OuterPath,
    ) -> Result<Snapshot, Refused> {
        let OuterPath { source, destination, udp } = outer;
        let sa = Self::find(snapshot, spi, old_destination)?;
        let inbound = sa.sa.direction == SaDirection::Inbound;
        let (local, peer) = if inbound { (destination, source) } else { (source, destination) };
        if local != sa.local {
            return Err(Refused::no_tunnel(sa.vif.get().into(), local, peer));
        }
        let udp = if inbound { udp.map(|(from, to)| (to, from)) } else { udp };
        Ok(snapshot.with_ike_peer(sa.sa.id, peer, udp))
    }

    /// SAs of an earlier charon whose time has come.
    pub fn due(&mut self, now: u64) -> Vec<SaId> {
        let due: Vec<_> = self.orphans.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for id in &due {
            self.orphans.remove(id);
        }
        due
    }

    /// A lifetime of an SA is over.
    pub fn expired(&mut self, snapshot: &Snapshot, id: SaId, hard: bool) {
        if let Some(sa) = snapshot.ike_sa(id) {
            self.events.push(Event::Expire { spi: sa.sa.spi, destination: destination(sa), hard });
        }
    }

    /// The state has changed: SAs whose tunnel is gone are at their end.
    pub fn compare(&mut self, before: &Snapshot, after: &Snapshot) {
        for sa in before.ike_sas().filter(|sa| after.ike_sa(sa.sa.id).is_none()) {
            self.events.push(Event::Expire { spi: sa.sa.spi, destination: destination(sa), hard: true });
            self.orphans.remove(&sa.sa.id);
        }
    }

    /// Events for charon.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// The tunnel that an SA belongs to.
fn tunnel(snapshot: &Snapshot, if_id: u32, local: Ipv4Addr, peer: Ipv4Addr) -> Result<VifId, Refused> {
    let tunnels = || {
        let with_ike = snapshot.vifs().filter_map(|vif| Some((vif.id, snapshot.configured_tunnel(vif.id)?)));
        with_ike.filter(|(_, tunnel)| tunnel.ike && tunnel.source == local)
    };
    let only = |to: Ipv4Addr| {
        let mut found = tunnels().filter(|(_, tunnel)| tunnel.destination == to).map(|(vif, _)| vif);
        found.next().filter(|_| found.next().is_none())
    };
    let found = if if_id == 0 {
        only(peer).or_else(|| only(Ipv4Addr::UNSPECIFIED))
    } else {
        let allowed = |to: Ipv4Addr| to == peer || to.is_unspecified();
        tunnels().find(|(vif, tunnel)| u32::from(vif.get()) == if_id && allowed(tunnel.destination)).map(|(vif, _)| vif)
    };
    found.ok_or_else(|| Refused::no_tunnel(if_id, local, peer))
}
