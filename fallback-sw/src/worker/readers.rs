//! Who has read what of the forwarding state, so that a change finds those that it concerns.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use offload_rules::{
    VrfId,
    flow::Dependency,
    forwarding::{Changes, Snapshot},
};

/// Changed prefixes that are looked up one by one.
const FEW: usize = 64;

/// Readers by what they have read. The routes to a flow's own ends are left to the flows.
#[derive(Debug, Default)]
pub(super) struct Readers {
    index: BTreeSet<(Dependency, u32)>,
}

impl Readers {
    pub(super) fn add(&mut self, reader: u32, read: &[Dependency]) {
        self.index.extend(read.iter().map(|what| (*what, reader)));
    }

    pub(super) fn remove(&mut self, reader: u32, read: &[Dependency]) {
        for what in read {
            self.index.remove(&(*what, reader));
        }
    }

    pub(super) fn clear(&mut self) {
        self.index.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Who has read this.
    pub(super) fn of(&self, what: Dependency) -> impl Iterator<Item = u32> {
        self.index.range((what, 0)..=(what, u32::MAX)).map(|(_, reader)| *reader)
    }

    /// Whom changes concern, perhaps more than once; `snapshot` is the one after them. Costs what the changes name or what is read,
    /// whichever is less.
    pub(super) fn concerned(&self, changes: &Changes, snapshot: &Snapshot) -> Vec<u32> {
        if changes.is_everything() {
            return self.index.iter().map(|(_, reader)| *reader).collect();
        }
        let mut found = Vec::new();
        let objects = changes.objects();
        if objects.len() < self.index.len() {
            objects.iter().for_each(|what| found.extend(self.of(*what)));
        } else {
            let named = self.index.iter().filter(|(what, _)| objects.contains(what));
            found.extend(named.map(|(_, reader)| *reader));
        }
        if changes.routes().len() > FEW {
            let routes = (Dependency::Route(VrfId::default(), Ipv4Addr::UNSPECIFIED.into()), 0);
            for (what, reader) in self.index.range(routes..) {
                match what {
                    Dependency::Route(vrf, address) if changes.covers(*vrf, *address) => found.push(*reader),
                    Dependency::Route(..) => {}
                    _ => break,
                }
            }
            return found;
        }
        for (vrf, prefix) in changes.routes() {
            let first = Dependency::Route(*vrf, prefix.network());
            let last = Dependency::Route(*vrf, prefix.broadcast());
            for (what, reader) in self.index.range((first, 0)..=(last, u32::MAX)) {
                if let Dependency::Route(_, address) = what
                    && !has_longer_match(snapshot, *vrf, *address, *prefix)
                {
                    found.push(*reader);
                }
            }
        }
        found
    }
}

/// Is the route to an address one of a longer prefix than this one, which has changed? If that has changed, too, it is named itself;
/// if not, it was the route before.
pub(super) fn has_longer_match(snapshot: &Snapshot, vrf: VrfId, address: IpAddr, changed: IpNet) -> bool {
    snapshot.route(vrf, address).is_some_and(|route| route.prefix.prefix_len() > changed.prefix_len())
}
