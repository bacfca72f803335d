//! Routes and incoming labels.

use super::Check;
use crate::{
    Label, NexthopId,
    forwarding::{NexthopKind, Route},
};

impl Check<'_> {
    pub(super) fn route(&mut self, route: &Route) {
        let object = format_args!("route vrf {} {}", route.vrf, route.prefix);
        self.vrf_reference(object, "vrf", route.vrf);
        if route.prefix.addr() != route.prefix.network() {
            let problem = format_args!("has host bits set; write {}", route.prefix.trunc());
            self.found.push(object, "prefix", problem);
        }
        if route.label.is_some_and(|label| Label::new(label.get()).is_err()) {
            self.found.push(object, "label", "is out of range; use 16..=1048575");
        }
        if route.nexthop == NexthopId::NONE {
            return;
        }
        if self.tables.nexthop(route.nexthop).is_none() {
            let problem = format_args!("nexthop {} does not exist; define it or name another", route.nexthop);
            self.found.push(object, "nexthop", problem);
        } else if route.label.is_none()
            && let Some(tunnel) = self.chains.of(route.nexthop).needs_label
        {
            let problem = format_args!(
                "is missing, and nexthop {} leads to the tunnel nexthop {tunnel}; give the route or each member a label",
                route.nexthop
            );
            self.found.push(object, "label", problem);
        } else if route.prefix.addr().is_ipv6()
            && let Some(gateway) = self.chains.of(route.nexthop).gateway4
        {
            let problem = format_args!(
                "nexthop {gateway} has a gateway of IPv4, which takes no IPv6 packets; name one with a gateway of IPv6"
            );
            self.found.push(object, "nexthop", problem);
        }
    }

    pub(super) fn label(&mut self, label: u32, nexthop: NexthopId) {
        let object = format_args!("label {label}");
        if Label::new(label).is_err() {
            self.found.push(object, "label", "is out of range; use 16..=1048575");
        }
        match self.tables.nexthop(nexthop) {
            None => {
                let problem = format_args!("nexthop {nexthop} does not exist; define it or name another");
                self.found.push(object, "nexthop", problem);
            }
            Some(target) => {
                if let Some(problem) = self.label_problem(nexthop, &target.kind) {
                    self.found.push(object, "nexthop", problem);
                }
            }
        }
    }

    /// Why no label may lead to this nexthop.
    pub(super) fn label_problem(&mut self, id: NexthopId, kind: &NexthopKind) -> Option<String> {
        if let NexthopKind::Resolve { gateway: None, .. } = kind {
            return Some(format!(
                "nexthop {id} is a Resolve without gateway; name a Vrf_Translate, Receive, Encap, Composite or Drop, and let a route find the \
                 neighbour"
            ));
        }
        let tunnel = self.chains.of(id).tunnel?;
        Some(format!(
            "nexthop {id} leads to the tunnel nexthop {tunnel}, and swapping labels is not implemented; name a \
             Vrf_Translate, Receive, Encap or Drop, or a Composite of them"
        ))
    }
}
