//! Rekey from outside, as a controller without IKE drives it (RFC 9061): the inbound SA at both ends, then the outbound one, then the
//! old ones go when nothing of theirs is under way any more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proto::v1;

use super::{
    L3vpn, LabError, Node, Site,
    sa::{Pair, Sa, Tunnel, TunnelEnd, ids},
    wait,
};

/// How long it may take until nothing goes with the old SAs any more.
const DELAY: Duration = Duration::from_secs(5);
/// What does not arrive in this time was lost before.
const STILL: Duration = Duration::from_millis(200);

/// What a rekey of some tunnels was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rekeyed {
    /// Tunnels.
    pub tunnels: usize,
    /// From the first delta to the last.
    pub took: Duration,
    /// Packets that went with the old SAs in their whole life.
    pub packets: u64,
    /// How many of these did not arrive: lost on the way, the peer was not there.
    pub missing: u64,
}

/// A change of one tunnel at one end.
struct Change<'a> {
    tunnel: Tunnel,
    old: &'a Pair,
    new: &'a Pair,
}

impl L3vpn {
    /// Replaces all SAs of some tunnels, in the order that loses nothing.
    ///
    /// # Errors
    /// [`LabError::Api`] when a node refuses a change.
    pub fn rekey(&self, tunnels: &[Tunnel]) -> Result<Rekeyed, LabError> {
        let begun = Instant::now();
        let edge = self.edge()?;
        let mut associations = edge.associations()?;
        let made: Vec<(Tunnel, Pair, Pair)> = tunnels
            .iter()
            .map(|tunnel| Ok((*tunnel, associations.of(*tunnel).clone(), associations.make()?)))
            .collect::<Result<_, LabError>>()?;
        let changes: Vec<Change<'_>> =
            made.iter().map(|(tunnel, old, new)| Change { tunnel: *tunnel, old, new }).collect();
        self.everywhere(&changes, |change, end, delta| {
            let ((old_out, old_in), (_, new_in)) = (change.old.at(end), change.new.at(end));
            delta.sas.extend(new_in.iter().map(Sa::inbound));
            delta.vifs.push(edge.vif_with(change.tunnel, end, ids(old_out), both(new_in, old_in)));
        })?;
        // The old outbound SAs stay behind the new ones, so that what was sent with them can be counted.
        self.everywhere(&changes, |change, end, delta| {
            let ((old_out, old_in), (new_out, new_in)) = (change.old.at(end), change.new.at(end));
            delta.sas.extend(new_out.iter().map(Sa::outbound));
            delta.vifs.push(edge.vif_with(change.tunnel, end, both(new_out, old_out), both(new_in, old_in)));
        })?;
        let (packets, missing) = self.arrived(&changes)?;
        self.everywhere(&changes, |change, end, delta| {
            let (new_out, new_in) = change.new.at(end);
            delta.remove_sas.extend(change.old.all().map(|sa| sa.id));
            delta.vifs.push(edge.vif_with(change.tunnel, end, ids(new_out), ids(new_in)));
        })?;
        for (tunnel, _, new) in made.iter().cloned() {
            associations.replace(tunnel, new);
        }
        Ok(Rekeyed { tunnels: tunnels.len(), took: begun.elapsed(), packets, missing })
    }

    /// Gives a tunnel these SAs at one end, among those that the node has.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn set_sas(
        &self,
        tunnel: Tunnel,
        end: TunnelEnd,
        outbound: Vec<u32>,
        inbound: Vec<u32>,
    ) -> Result<(), LabError> {
        let vifs = vec![self.edge()?.vif_with(tunnel, end, outbound, inbound)];
        let delta = v1::ForwardingDelta { vifs, ..v1::ForwardingDelta::default() };
        self.end(tunnel.site, end)?.client().change(delta).map(drop)
    }

    /// The node at an end of a site's tunnels.
    ///
    /// # Errors
    /// [`LabError::Violated`] when there are no nodes.
    pub fn end(&self, site: Site, end: TunnelEnd) -> Result<&Node, LabError> {
        match end {
            TunnelEnd::Customer => self.node(site),
            TunnelEnd::Regional => self.edge()?.node(),
        }
    }

    /// One delta for each node that has an end of these tunnels.
    fn everywhere(
        &self,
        changes: &[Change<'_>],
        add: impl Fn(&Change<'_>, TunnelEnd, &mut v1::ForwardingDelta),
    ) -> Result<(), LabError> {
        for (end, site) in [
            (TunnelEnd::Regional, None),
            (TunnelEnd::Customer, Some(Site::Ce1)),
            (TunnelEnd::Customer, Some(Site::Ce2)),
        ] {
            let mut delta = v1::ForwardingDelta::default();
            let here = changes.iter().filter(|change| site.is_none_or(|site| change.tunnel.site == site));
            here.for_each(|change| add(change, end, &mut delta));
            if !delta.vifs.is_empty() {
                self.end(site.unwrap_or(Site::Ce1), end)?.client().change(delta)?;
            }
        }
        Ok(())
    }

    /// Waits until as many packets were opened with each old SA as were sealed with it, or nothing of theirs arrives any more; how many
    /// were sealed, and how many of them were never opened. What a NIC seals is counted later than it is opened, so there only the second
    /// tells.
    fn arrived(&self, changes: &[Change<'_>]) -> Result<(u64, u64), LabError> {
        let (mut last, mut since) = ((0, 0), Instant::now());
        wait::until("what was sealed with old SAs to arrive", DELAY, || {
            let (mut sealed, mut opened) = (BTreeMap::new(), BTreeMap::new());
            let mut in_nic = false;
            for node in self.all_nodes()? {
                for info in node.client().sas()? {
                    in_nic |= info.tier() != v1::SaTier::SaInSoftware;
                    let Some(sa) = info.sa else { continue };
                    let counts = if sa.direction() == v1::SaDirection::Outbound { &mut sealed } else { &mut opened };
                    counts.insert(sa.id, info.packets);
                }
            }
            let old = || changes.iter().flat_map(|change| change.old.all()).map(|sa| sa.id);
            let sum = |counts: &BTreeMap<u32, u64>| old().filter_map(|id| counts.get(&id)).sum::<u64>();
            let now = (sum(&sealed), sum(&opened));
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let (sealed, opened) = now;
            let missing = sealed.saturating_sub(opened);
            Ok(((missing == 0 && !in_nic) || since.elapsed() >= STILL).then_some((sealed, missing)))
        })
    }
}

fn both(first: &[Sa], second: &[Sa]) -> Vec<u32> {
    first.iter().chain(second).map(|sa| sa.id).collect()
}
