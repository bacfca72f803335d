//! Which way packets went: the workers' counts as a message.

use std::collections::BTreeMap;

use offload_rules::{VrfId, forwarding::Snapshot};
use proto::v1 as pb;

use crate::worker::{TierTraffic, Traffic};

/// The counts of all workers, for each VRF of the state in force. VRFs that were removed are part of the total: their packets
/// have passed.
#[must_use]
pub fn hit_rate(counts: &BTreeMap<VrfId, TierTraffic>, snapshot: &Snapshot) -> pb::HitRate {
    let vrfs = snapshot.vrfs().map(|vrf| pb::VrfHitRate {
        vrf: vrf.id.get().into(),
        name: vrf.name.clone(),
        traffic: Some(tiers(&counts.get(&vrf.id).copied().unwrap_or_default())),
    });
    let mut total = TierTraffic::default();
    counts.values().for_each(|vrf| total.add(vrf));
    pb::HitRate { vrfs: vrfs.collect(), total: Some(tiers(&total)) }
}

const fn tiers(counts: &TierTraffic) -> pb::TierTraffic {
    pb::TierTraffic {
        hardware: traffic(counts.hardware),
        partial: traffic(counts.partial),
        software: traffic(counts.software),
        routed: traffic(counts.routed),
        slow_path: traffic(counts.slow_path),
        punt: traffic(counts.punt),
    }
}

const fn traffic(traffic: Traffic) -> Option<pb::Traffic> {
    Some(pb::Traffic { packets: traffic.packets, bytes: traffic.bytes })
}

#[cfg(test)]
mod tests {
    use offload_rules::forwarding::{State, Vrf};

    use super::*;

    fn vrf(id: u32) -> VrfId {
        VrfId::new(id).unwrap()
    }

    #[test]
    fn each_tier_is_counted_per_vrf_and_the_total_keeps_removed_vrfs() {
        let vrfs = [(1, "blue"), (2, "green")].map(|(id, name)| Vrf { id: vrf(id), name: name.to_owned() });
        let state = State { generation: 1, vrfs: vrfs.into(), ..State::default() };
        let snapshot = Snapshot::default().with_state(state).unwrap();
        let count = |packets| Traffic { packets, bytes: packets * 100 };
        let blue = TierTraffic {
            hardware: count(1),
            partial: count(2),
            software: count(3),
            routed: count(4),
            slow_path: count(5),
            punt: count(6),
        };
        let removed = TierTraffic { hardware: count(10), ..TierTraffic::default() };
        let rate = hit_rate(&BTreeMap::from([(vrf(1), blue), (vrf(7), removed)]), &snapshot);
        let packets = |traffic: &pb::TierTraffic| {
            let pb::TierTraffic { hardware, partial, software, routed, slow_path, punt } = *traffic;
            let tiers = [hardware, partial, software, routed, slow_path, punt];
            tiers.map(|tier| {
                let pb::Traffic { packets, bytes } = tier.unwrap();
                assert_eq!(bytes, packets * 100);
                packets
            })
        };
        let shown: Vec<_> =
            rate.vrfs.iter().map(|vrf| (vrf.vrf, vrf.name.as_str(), packets(&vrf.traffic.unwrap()))).collect();
        assert_eq!(shown, [(1, "blue", [1, 2, 3, 4, 5, 6]), (2, "green", [0; 6])]);
        assert_eq!(packets(&rate.total.unwrap()), [11, 2, 3, 4, 5, 6]);
    }
}
