//! A persistent map from addresses to values.

use std::net::IpAddr;

use super::trie::Trie;

/// Values by address of either family. A clone is cheap, and a changed clone shares what did not change.
#[derive(Debug, Clone)]
pub(super) struct AddrMap<V> {
    inet: Trie<u32, V>,
    inet6: Trie<u128, V>,
}

impl<V> Default for AddrMap<V> {
    fn default() -> Self {
        Self { inet: Trie::default(), inet6: Trie::default() }
    }
}

impl<V: Clone> AddrMap<V> {
    #[inline]
    pub(super) fn get(&self, address: IpAddr) -> Option<&V> {
        match address {
            IpAddr::V4(v4) => self.inet.get(v4.to_bits(), 32),
            IpAddr::V6(v6) => self.inet6.get(v6.to_bits(), 128),
        }
    }

    /// Adds or replaces; returns what was there.
    pub(super) fn insert(&mut self, address: IpAddr, value: V) -> Option<V> {
        match address {
            IpAddr::V4(v4) => self.inet.insert(v4.to_bits(), 32, value),
            IpAddr::V6(v6) => self.inet6.insert(v6.to_bits(), 128, value),
        }
    }

    /// Removes; returns what was there.
    pub(super) fn remove(&mut self, address: IpAddr) -> Option<V> {
        match address {
            IpAddr::V4(v4) => self.inet.remove(v4.to_bits(), 32),
            IpAddr::V6(v6) => self.inet6.remove(v6.to_bits(), 128),
        }
    }

    /// In order of address, IPv4 first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &V)> {
        let inet = self.inet.iter().map(|(bits, _, value)| (IpAddr::V4(bits.into()), value));
        let inet6 = self.inet6.iter().map(|(bits, _, value)| (IpAddr::V6(bits.into()), value));
        inet.chain(inet6)
    }

    /// Do both share all entries? Equal maps that were made apart do not.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.inet.is_same(&other.inet) && self.inet6.is_same(&other.inet6)
    }

    pub(super) const fn len(&self) -> usize {
        self.inet.len() + self.inet6.len()
    }
}

impl AddrMap<u32> {
    /// Counts one more user of an address.
    pub(super) fn add_user(&mut self, address: IpAddr) {
        let users = self.get(address).copied().unwrap_or(0);
        self.insert(address, users + 1);
    }

    /// Counts one user less; without users the address is not there.
    pub(super) fn drop_user(&mut self, address: IpAddr) {
        match self.get(address).copied() {
            Some(users) if users > 1 => _ = self.insert(address, users - 1),
            _ => _ = self.remove(address),
        }
    }
}
