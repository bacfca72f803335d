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
    pairs: bool,
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
            pairs: request.pairs,
        })
    }

    /// Does a record match; with `pairs`, or its other direction?
    #[must_use]
    pub fn passes(&self, record: &Record, other: Option<&Record>) -> bool {
        self.matches(record) || (self.pairs && other.is_some_and(|other| self.matches(other)))
    }

    fn matches(&self, record: &Record) -> bool {
        let key = &record.key;
        let is = |wanted: Option<u32>, value: u32| wanted.is_none_or(|wanted| wanted == value);
        let within = |wanted: Option<IpNet>, address: IpAddr| wanted.is_none_or(|net| net.contains(&address));
        let action = match self.action {
            pb::FlowAction::Unspecified => true,
            pb::FlowAction::Forward => record.drop_reason == 0,
            pb::FlowAction::Drop => record.drop_reason != 0,
            pb::FlowAction::Nat => false,
        };
        action
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
