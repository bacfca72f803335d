//! Tests of steering and of what leads to a flow: on the state of walk A.

use std::net::IpAddr;

use super::*;
use crate::{
    Label, MacAddr, VifId,
    flow::FlowKey,
    forwarding::{
        Delta, NexthopKind, Snapshot, State, VlanTag,
        testing::{base, label, mpls, nexthop, nh, receive, tag, vif_id, vrf_id},
    },
};

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn snapshot(state: &State) -> Snapshot {
    let mut snapshot = Snapshot::empty().apply_full(state.clone()).unwrap();
    for id in [1, 2] {
        snapshot = snapshot.with_device_mac(vif_id(id), MAC);
    }
    snapshot
}
