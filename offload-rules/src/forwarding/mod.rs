//! The node's forwarding state, typed and validated.
//!
//! A [`State`] is what someone asked for; [`Snapshot`] is a state that has been found consistent, with tables to look
//! things up in and a log of what each of its versions has changed ([`Changes`]). No packet sees half of one.

mod acl;
mod addrmap;
mod apply;
mod changes;
mod error;
mod fib;
mod gateway;
mod idmap;
mod ike;
mod learn;
mod link;
mod listener;
mod mpls;
mod neighbour;
mod nexthop;
mod oper;
mod route;
mod sa;
mod settings;
mod snapshot;
mod state;
mod tables;
#[cfg(test)]
pub(crate) mod testing;
mod trie;
mod tunnel;
mod validate;
mod vif;
mod vrf;

pub use acl::{Ace, Acl, Action, Scope, Selector};
pub use changes::{Changes, VersionChanges};
pub use error::{StateError, StateErrors};
pub use fib::{Fib, RouteAnswer};
pub use gateway::GatewayState;
pub use ike::{IKE_SAS, IKE_SPIS, IkeSa, IkeSaError};
pub use link::{is_link_local, link_local};
pub use listener::{Listener, ListenerTable};
pub use mpls::MplsLabel;
pub use neighbour::{Neighbour, NeighbourTable, PathMtuTable};
pub use nexthop::{DscpMap, L2Rewrite, Member, Nexthop, NexthopKind, Receive, Tunnel};
pub use route::{Route, RouteFlags, RouteOrigin};
pub use sa::{DEFAULT_WINDOW, KEY_LENGTHS, Lifetime, MAX_WINDOW, MIN_SPI, Sa, SaDirection, SaKey};
pub use settings::{Settings, Timeouts};
pub use snapshot::Snapshot;
pub use state::{Delta, State};
pub use tunnel::{DEFAULT_KEEPALIVE_SECS, DfPolicy, IpsecTunnel, NAT_T_PORT, NatT};
pub use vif::{IoDriver, PortConfig, Vif, VifFlags, VifKind, VlanTag};
pub use vrf::Vrf;
