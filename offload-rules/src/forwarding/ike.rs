//! SAs that IKE has negotiated: a layer over the forwarding state, as learnt neighbours are. No state lists them, and none loses
//! them for as long as their tunnel stays.

use std::{net::Ipv4Addr, ops::RangeInclusive, sync::Arc};

use super::{
    IpsecTunnel, KEY_LENGTHS, MAX_WINDOW, MIN_SPI, NatT, Sa, SaDirection, Snapshot, VifKind, idmap::IdMap,
    tables::Versioned,
};
use crate::{SaId, VifId, flow::Dependency};

/// Numbers of SAs that IKE has negotiated; those of the forwarding state are outside, as those of controllers that count from
/// 0xffff0000 are.
pub const IKE_SAS: RangeInclusive<u32> = 0x8000_0000..=0xbfff_ffff;
/// Indices that the node hands out for IKE; an inbound SA of the forwarding state has none of them when a tunnel has IKE.
pub const IKE_SPIS: RangeInclusive<u32> = 0xc000_0000..=0xcfff_ffff;

/// An SA that IKE has negotiated, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeSa {
    /// The SA; its number is one of [`IKE_SAS`], a newer one has a larger number.
    pub sa: Arc<Sa>,
    /// Its tunnel.
    pub vif: VifId,
    /// This end.
    pub local: Ipv4Addr,
    /// The other end.
    pub peer: Ipv4Addr,
    /// In UDP (RFC 3948): port of this end and of the other one.
    pub udp: Option<(u16, u16)>,
}

/// Why an SA is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IkeSaError {
    /// No such tunnel.
    #[error("vif {0} is no tunnel with \"ike\" from {1}")]
    NoTunnel(VifId, Ipv4Addr),
    /// The number or the index is another one's.
    #[error("spi {0:#010x} is that of an SA already")]
    SpiTaken(u32),
    /// Reserved by RFC 4303 §2.1.
    #[error("spi {0} is reserved, use {MIN_SPI} and above")]
    SpiReserved(u32),
    /// Two SAs under one key would use each nonce twice (RFC 4106 §2).
    #[error("the key is that of another SA")]
    KeyTaken,
    /// Not AES-GCM with its salt.
    #[error("a key of {0} octets; AES-GCM takes 16 or 32 and a salt of 4, 20 or 36 together")]
    KeyLength(usize),
    /// Replay window.
    #[error("a replay window of {0}; use a multiple of 32 from 32 to {MAX_WINDOW}")]
    Window(u32),
}

impl Snapshot {
    /// The SAs that IKE has negotiated, by number.
    pub fn ike_sas(&self) -> impl Iterator<Item = &Arc<IkeSa>> {
        self.ike.values().map(|entry| &entry.object)
    }

    /// One of them.
    #[must_use]
    pub fn ike_sa(&self, id: SaId) -> Option<&Arc<IkeSa>> {
        self.ike.get(id.get()).map(|entry| &entry.object)
    }

    /// With a further SA that IKE has negotiated.
    ///
    /// # Errors
    /// [`IkeSaError`].
    pub fn with_ike_sa(&self, new: IkeSa) -> Result<Self, IkeSaError> {
        let sa = &new.sa;
        if !self.is_ike_tunnel(new.vif, new.local) {
            return Err(IkeSaError::NoTunnel(new.vif, new.local));
        }
        if sa.spi < MIN_SPI {
            return Err(IkeSaError::SpiReserved(sa.spi));
        }
        let octets = sa.key.material().len();
        if !KEY_LENGTHS.contains(&octets) {
            return Err(IkeSaError::KeyLength(octets));
        }
        let inbound = sa.direction == SaDirection::Inbound;
        if inbound && (sa.window == 0 || sa.window > MAX_WINDOW || !sa.window.is_multiple_of(32)) {
            return Err(IkeSaError::Window(sa.window));
        }
        let same_spi = |known: &Arc<Sa>| inbound && known.direction == sa.direction && known.spi == sa.spi;
        let same_way =
            |known: &Arc<IkeSa>| known.sa.direction == sa.direction && (known.sa.spi, known.peer) == (sa.spi, new.peer);
        if !IKE_SAS.contains(&sa.id.get())
            || self.sa(sa.id).is_some()
            || self.sas().any(same_spi)
            || self.ike_sas().any(same_way)
        {
            return Err(IkeSaError::SpiTaken(sa.spi));
        }
        if self.sas().any(|known| known.key == sa.key) {
            return Err(IkeSaError::KeyTaken);
        }
        let mut next = self.derived();
        next.log.changes().note(Dependency::Sa(sa.id));
        next.ike.insert(sa.id.get(), Versioned { version: next.version, object: Arc::new(new) });
        next.refresh_ike();
        Ok(next)
    }

    /// Without these.
    #[must_use]
    pub fn without_ike_sas(&self, gone: &[SaId]) -> Self {
        let mut next = self.derived();
        for id in gone {
            next.drop_ike_sa(*id);
        }
        next.refresh_ike();
        next
    }

    /// With other outer addresses or ports of an SA (RFC 4555, or a NAT that has changed its mind); number and window go on.
    #[must_use]
    pub fn with_ike_peer(&self, id: SaId, peer: Ipv4Addr, udp: Option<(u16, u16)>) -> Self {
        let Some(known) = self.ike_sa(id) else { return self.clone() };
        let mut next = self.derived();
        let moved = IkeSa { peer, udp, ..(**known).clone() };
        next.log.changes().note(Dependency::Sa(id));
        next.ike.insert(id.get(), Versioned { version: next.version, object: Arc::new(moved) });
        next.refresh_ike();
        next
    }

    /// The tunnel of a vif as the state has it, without what IKE has added.
    #[must_use]
    pub fn configured_tunnel(&self, vif: VifId) -> Option<&IpsecTunnel> {
        self.tables.vifs.get(u32::from(vif.get()))?.configured.kind.tunnel()
    }

    fn drop_ike_sa(&mut self, id: SaId) {
        self.log.changes().note(Dependency::Sa(id));
        self.ike.remove(id.get());
        self.ended.remove(id.get());
    }

    fn is_ike_tunnel(&self, vif: VifId, local: Ipv4Addr) -> bool {
        self.configured_tunnel(vif).is_some_and(|tunnel| tunnel.ike && tunnel.source == local)
    }

    /// Brings the layer in line with the tunnels, and the tunnels with the layer: the SAs, the newest first, and the other end
    /// that the newest outbound one has.
    pub(super) fn refresh_ike(&mut self) {
        let stays = |sa: &IkeSa| self.is_ike_tunnel(sa.vif, sa.local);
        let gone: Vec<SaId> = self.ike_sas().filter(|sa| !stays(sa)).map(|sa| sa.sa.id).collect();
        for id in gone {
            self.drop_ike_sa(id);
        }
        let mut changed = Vec::new();
        for (id, entry) in self.tables.vifs.iter() {
            let Some(configured) = entry.configured.kind.tunnel().filter(|tunnel| tunnel.ike) else { continue };
            let tunnel = effective(configured, entry.configured.id, &self.ike);
            if entry.vif.kind.tunnel() != Some(&tunnel) {
                changed.push((id, tunnel));
            }
        }
        for (id, tunnel) in changed {
            if let Some(mut entry) = self.tables.vifs.get(id).cloned() {
                Arc::make_mut(&mut entry.vif).kind = VifKind::Tunnel(Box::new(tunnel));
                self.log.changes().note(Dependency::Vif(entry.configured.id));
                self.tables.vifs.insert(id, entry);
            }
        }
    }
}

fn effective(configured: &IpsecTunnel, vif: VifId, ike: &IdMap<Versioned<IkeSa>>) -> IpsecTunnel {
    let mut tunnel = configured.clone();
    let mut end = None;
    for sa in ike.values().map(|entry| &entry.object).filter(|sa| sa.vif == vif) {
        match sa.sa.direction {
            SaDirection::Outbound => {
                end = Some((sa.peer, sa.udp));
                tunnel.outbound.insert(0, sa.sa.id);
            }
            SaDirection::Inbound => tunnel.inbound.insert(0, sa.sa.id),
        }
    }
    if let Some((peer, udp)) = end {
        tunnel.destination = peer;
        // charon keeps the binding of a NAT alive itself.
        tunnel.nat_t =
            udp.map(|(source_port, destination_port)| NatT { source_port, destination_port, keepalive_secs: 0 });
    }
    tunnel
}

#[cfg(test)]
mod tests;
