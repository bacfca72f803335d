//! Changed access lists: which flows the entries that came, went, changed or moved may judge otherwise.
//!
//! A list judges the packet that began a flow, of both directions, and where an entry is stateless the packets of each direction by
//! themselves. So a selector is compared with each direction's key: one that it matches is marked, and where that is the key of the packet
//! that began the flow, the other direction, too. The table finds them by the longer one of the selector's prefixes.
//!
//! When the selectors cover more than a worker looks at while packets wait, all flows are stale whose walk has asked the list.

use ipnet::IpNet;
use offload_rules::{
    AclId, VrfId,
    flow::{Dependency, Family},
    forwarding::{Selector, VersionChanges},
};

use super::{change::MOST, env::Env, flag, flow_state::FlowState};
use crate::flow_table::TooMany;

/// What one look-up of a prefix costs, in records looked at.
const LOOK_UP: usize = 8;

impl FlowState {
    /// Marks the flows that changed lists may judge otherwise. All changes at a time look at [`MOST`] records.
    pub(super) fn follow_lists(&mut self, env: &Env, changes: &[VersionChanges]) {
        let mut most = MOST;
        for (list, selectors) in changes.iter().flat_map(|version| version.lists()) {
            if self.follow_list(env, *list, selectors, &mut most).is_err() {
                most = 0;
                self.programs.follow_object(Dependency::Acl(*list));
            }
        }
    }

    fn follow_list(&mut self, env: &Env, list: AclId, selectors: &[Selector], most: &mut usize) -> Result<(), TooMany> {
        let vrfs = self.programs.judged_by(list);
        let mut slots = Vec::new();
        for selector in selectors {
            for vrf in &vrfs {
                *most = most.checked_sub(LOOK_UP).ok_or(TooMany)?;
                self.directions_between(selector, *vrf, most, &mut slots)?;
                slots.drain(..).for_each(|slot| self.mark_judged(env, slot, list, selector));
            }
        }
        Ok(())
    }

    /// Appends to `out` the slots of directions that the prefixes of a selector may cover, one of whose addresses is in the longer of
    /// the two. It may be the other direction of a flow whose key is in the VRF.
    fn directions_between(
        &self,
        selector: &Selector,
        vrf: VrfId,
        most: &mut usize,
        out: &mut Vec<u32>,
    ) -> Result<(), TooMany> {
        for family in [Family::Inet, Family::Inet6] {
            let (Some(source), Some(destination)) =
                (within(selector.source, family), within(selector.destination, family))
            else {
                continue;
            };
            if destination.prefix_len() >= source.prefix_len() {
                self.flows.covered(vrf, destination, |_| false, most, out)?;
                continue;
            }
            self.flows.lone_from(vrf, source, most, out)?;
            let lone = out.len();
            self.flows.covered(vrf, source, |_| false, most, out)?;
            for slot in out.iter_mut().skip(lone) {
                *slot = self.flows.record(*slot).map_or(*slot, |record| record.reverse);
            }
        }
        Ok(())
    }

    /// Marks a direction that a selector matches, and what goes the way that it has opened.
    fn mark_judged(&mut self, env: &Env, slot: u32, list: AclId, selector: &Selector) {
        let Some(record) = self.flows.record(slot).filter(|record| selector.may_match(&record.key)) else { return };
        let (back, begins) = (record.reverse, record.flags & flag::INITIATOR != 0);
        self.mark(env, slot, Dependency::Acl(list), env.version);
        if begins {
            self.mark(env, back, Dependency::Acl(list), env.version);
        }
    }
}

/// What a prefix leaves of the addresses of a family; `None`: nothing.
fn within(prefix: Option<IpNet>, family: Family) -> Option<IpNet> {
    let all = match family {
        Family::Inet => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::Inet6 => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    prefix.map_or(Some(all), |prefix| (Family::of(&prefix.addr()) == family).then_some(prefix))
}
