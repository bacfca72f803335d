//! The security associations of a lab: what a controller without IKE hands out (RFC 9061 §1.2), with keys that no other lab has.

use std::{fmt, fs::File, io::Read as _};

use proto::v1;

use super::{LabError, Site};

/// Identifiers as in the dumps: of what a customer edge sends with, and of what it receives with.
const FIRST_UP: u32 = 0xffff_0060;
const FIRST_DOWN: u32 = 0xffff_5f70;
const FIRST_SPI: u32 = 0xc0de_0000;
/// AES-256 and four octets of salt (RFC 4106 §8.1).
const KEY_OCTETS: usize = 36;

/// One of the four tunnels of the regional edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Its customer edge.
    pub site: Site,
    /// 0: to the edge's first address, 1: to its second one.
    pub path: usize,
}

impl Tunnel {
    /// All four.
    pub const ALL: [Self; 4] = [
        Self { site: Site::Ce1, path: 0 },
        Self { site: Site::Ce1, path: 1 },
        Self { site: Site::Ce2, path: 0 },
        Self { site: Site::Ce2, path: 1 },
    ];

    /// Its place among all.
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|tunnel| *tunnel == self).unwrap_or_default()
    }
}

/// An end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// At the customer edge.
    Customer,
    /// At the regional edge.
    Regional,
}

impl TunnelEnd {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Customer, Self::Regional];
}

/// A key in hexadecimal, which `Debug` does not tell.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

/// A security association, as both of its ends are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sa {
    /// At both ends.
    pub id: u32,
    /// On the wire.
    pub spi: u32,
    /// Which worker of the sender seals with it.
    pub worker: u32,
    /// Of both.
    pub key: Key,
}

impl Sa {
    /// At the end that sends.
    #[must_use]
    pub fn outbound(&self) -> v1::SecurityAssociation {
        let direction = v1::SaDirection::Outbound.into();
        v1::SecurityAssociation { direction, worker: self.worker, ..self.common() }
    }

    /// At the end that receives.
    #[must_use]
    pub fn inbound(&self) -> v1::SecurityAssociation {
        let direction = v1::SaDirection::Inbound.into();
        v1::SecurityAssociation { direction, replay_window: 1024, ..self.common() }
    }

    fn common(&self) -> v1::SecurityAssociation {
        v1::SecurityAssociation {
            id: self.id,
            spi: self.spi,
            key: self.key.digits().to_owned(),
            esn: true,
            ..v1::SecurityAssociation::default()
        }
    }
}

/// Both directions of a tunnel: one SA for each worker of the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// From the customer edge to the regional edge.
    pub up: Vec<Sa>,
    /// Back.
    pub down: Vec<Sa>,
}

impl Pair {
    /// What an end sends with, and what it receives.
    #[must_use]
    pub fn at(&self, end: TunnelEnd) -> (&[Sa], &[Sa]) {
        match end {
            TunnelEnd::Customer => (&self.up, &self.down),
            TunnelEnd::Regional => (&self.down, &self.up),
        }
    }

    /// Every SA.
    pub fn all(&self) -> impl Iterator<Item = &Sa> {
        self.up.iter().chain(&self.down)
    }
}

/// Their identifiers.
#[must_use]
pub(crate) fn ids(sas: &[Sa]) -> Vec<u32> {
    sas.iter().map(|sa| sa.id).collect()
}

/// What makes SAs and knows which are in force.
#[derive(Debug)]
pub struct Associations {
    made: u32,
    workers: u32,
    current: [Pair; 4],
    /// Every key ever handed out, so that a test can look for them where they must not be.
    keys: Vec<Key>,
}

impl Associations {
    /// For nodes with this number of workers.
    ///
    /// # Errors
    /// [`LabError::Io`] when the kernel gives no random numbers.
    pub fn new(workers: u32) -> Result<Self, LabError> {
        let empty = || Pair { up: Vec::new(), down: Vec::new() };
        let current = [empty(), empty(), empty(), empty()];
        let mut new = Self { made: 0, workers, current, keys: Vec::new() };
        for tunnel in Tunnel::ALL {
            let pair = new.make()?;
            new.replace(tunnel, pair);
        }
        Ok(new)
    }

    /// New ones, in force nowhere yet.
    ///
    /// # Errors
    /// As for [`Associations::new`].
    pub fn make(&mut self) -> Result<Pair, LabError> {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for worker in 0..self.workers {
            up.push(self.sa(FIRST_UP, worker)?);
            down.push(self.sa(FIRST_DOWN, worker)?);
        }
        Ok(Pair { up, down })
    }

    fn sa(&mut self, first: u32, worker: u32) -> Result<Sa, LabError> {
        let mut octets = [0; KEY_OCTETS];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut octets))
            .map_err(LabError::io("read /dev/urandom"))?;
        let key = Key(octets.iter().map(|octet| format!("{octet:02x}")).collect());
        self.keys.push(key.clone());
        let number = self.made;
        self.made += 1;
        Ok(Sa { id: first + number / 2, spi: FIRST_SPI + number, worker, key })
    }

    /// Those of a tunnel.
    #[must_use]
    pub fn of(&self, tunnel: Tunnel) -> &Pair {
        // Invariant: `index` is a place of `Tunnel::ALL`, which has as many.
        let [a, b, c, d] = &self.current;
        [a, b, c, d][tunnel.index() % 4]
    }

    /// From now on these are in force.
    pub fn replace(&mut self, tunnel: Tunnel, pair: Pair) {
        if let Some(place) = self.current.get_mut(tunnel.index()) {
            *place = pair;
        }
    }

    /// Every key that was handed out.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_associations_share_an_identifier_an_index_or_a_key() {
        let associations = Associations::new(2).unwrap();
        let all: Vec<&Sa> = Tunnel::ALL.iter().flat_map(|tunnel| associations.of(*tunnel).all()).collect();
        assert_eq!(all.len(), 16);
        assert_eq!(all.iter().map(|sa| sa.id).collect::<BTreeSet<_>>().len(), 16);
        assert_eq!(all.iter().map(|sa| sa.spi).collect::<BTreeSet<_>>().len(), 16);
        assert_eq!(all.iter().map(|sa| &sa.key).collect::<BTreeSet<_>>().len(), 16);
        assert_eq!(associations.keys().len(), 16);
        assert!(!format!("{associations:?}").contains(all[0].key.digits()));
    }

    #[test]
    fn the_first_tunnel_has_the_identifiers_of_the_dump() {
        let associations = Associations::new(1).unwrap();
        let first = associations.of(Tunnel { site: Site::Ce1, path: 0 });
        assert_eq!((first.up[0].id, first.down[0].id), (0xffff_0060, 0xffff_5f70));
    }
}
