//! Which flows a listing shows.

use std::net::IpAddr;

use ipnet::IpNet;
use proto::v1 as pb;

use crate::flow_table::Record;

/// The fields of a `ListFlowsRequest`, checked.
#[derive(Debug, Clone)]
pub struct FlowFilter {
    vrf: Option<u32>,
    vif: Option<u32>,
    proto: Option<u32>,
    source: Option<IpNet>,
    destination: Option<IpNet>,
    source_port: Option<u32>,
    destination_port: Option<u32>,
    action: pb::FlowAction,
    tier: pb::FlowTier,
    pairs: bool,
}

/// One direction of a flow, as far as a filter looks at it.
#[derive(Clone, Copy)]
pub struct Listed<'a> {
    /// Its record.
    pub record: &'a Record,
    /// Where its packets run.
    pub tier: pb::FlowTier,
    /// Its program drops them.
    pub drops: bool,
}

impl FlowFilter {
    /// Reads a request.
    ///
    /// # Errors
    /// A source or destination that is neither a prefix nor an address, in words.
    pub fn new(request: &pb::ListFlowsRequest) -> Result<Self, String> {
        Ok(Self {
            vrf: request.vrf,
            vif: request.vif,
            proto: request.proto,
            source: prefix("source", &request.source)?,
            destination: prefix("destination", &request.destination)?,
            source_port: request.source_port,
            destination_port: request.destination_port,
            action: request.action(),
            tier: request.tier(),
            pairs: request.pairs,
        })
    }

    /// Does a direction match; with `pairs`, or the other one?
    #[must_use]
    pub fn passes(&self, direction: Listed<'_>, other: Option<Listed<'_>>) -> bool {
        self.matches(direction) || (self.pairs && other.is_some_and(|other| self.matches(other)))
    }

    fn matches(&self, Listed { record, tier, drops }: Listed<'_>) -> bool {
        let key = &record.key;
        let is = |wanted: Option<u32>, value: u32| wanted.is_none_or(|wanted| wanted == value);
        let within = |wanted: Option<IpNet>, address: IpAddr| wanted.is_none_or(|net| net.contains(&address));
        let action = match self.action {
            pb::FlowAction::Unspecified => true,
            pb::FlowAction::Forward => !drops,
            pb::FlowAction::Drop => drops,
            pb::FlowAction::Nat => false,
        };
        action
            && (self.tier == pb::FlowTier::Unspecified || self.tier == tier)
            && is(self.vrf, key.vrf.get().into())
            && is(self.vif, key.vif.get().into())
            && is(self.proto, key.proto.into())
            && is(self.source_port, key.sport.into())
            && is(self.destination_port, key.dport.into())
            && within(self.source, key.source())
            && within(self.destination, key.destination())
    }
}

fn prefix(field: &str, text: &str) -> Result<Option<IpNet>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    parsed.map(Some).map_err(|_| format!("{field}: '{text}' is neither a prefix nor an address"))
}

#[cfg(test)]
mod tests {
    use pb::FlowTier::{Hardware, Partial, Pending, Software, Unspecified};

    use super::*;
    use crate::flow_table::Record;

    fn record() -> Record {
        zerocopy::FromZeros::new_zeroed()
    }

    fn at(record: &Record, tier: pb::FlowTier) -> Listed<'_> {
        Listed { record, tier, drops: false }
    }

    fn filter(tier: pb::FlowTier, proto: Option<u32>, pairs: bool) -> FlowFilter {
        FlowFilter::new(&pb::ListFlowsRequest { tier: tier.into(), proto, pairs, ..Default::default() }).unwrap()
    }

    #[test]
    fn a_tier_lets_its_own_flows_pass_and_none_that_was_not_asked_for_all() {
        let record = record();
        for tier in [Software, Hardware, Partial, Pending] {
            assert!(filter(Unspecified, None, false).passes(at(&record, tier), None));
            for asked in [Software, Hardware, Partial, Pending] {
                assert_eq!(filter(asked, None, false).passes(at(&record, tier), None), asked == tier);
            }
        }
    }

    #[test]
    fn a_tier_and_another_filter_must_match_the_same_direction() {
        let mut tcp = record();
        tcp.key.proto = 6;
        let udp = record();
        assert!(filter(Hardware, Some(6), false).passes(at(&tcp, Hardware), None));
        assert!(!filter(Hardware, Some(17), false).passes(at(&tcp, Hardware), None));
        assert!(!filter(Hardware, Some(6), false).passes(at(&udp, Software), Some(at(&tcp, Hardware))));
        assert!(filter(Hardware, Some(6), true).passes(at(&udp, Software), Some(at(&tcp, Hardware))));
        assert!(!filter(Hardware, Some(6), true).passes(at(&udp, Hardware), Some(at(&tcp, Software))));
    }
}
