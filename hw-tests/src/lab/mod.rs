//! Network-namespace labs: one vocabulary for hosts, links, nodes, captures and the L3VPN of two sites.
//!
//! Everything that a lab makes (processes, namespaces, files) is removed when its value is dropped, also on a failed test, on
//! Ctrl-C and on SIGTERM; what a killed run left behind is removed by [`sweep`], which every lab does first.
//! Every wait has a deadline and ends early on an interrupt; nothing sleeps for a guessed time.

mod account;
mod capture;
mod edge;
mod edge_state;
mod error;
mod fan;
mod forwarding;
mod garbage;
mod host;
mod ike;
mod interrupt;
pub mod io;
mod iperf;
mod l3vpn;
mod leak;
mod namespace;
mod nic;
mod node;
mod node_client;
mod ping;
mod process;
mod programs;
mod rekey;
mod sa;
mod scenario;
mod sequence;
mod switch;
mod tools;
mod veth;
mod vm;
mod wait;
mod web;

pub use account::{assert_conserved, counted_losses, lost_in_rings};
pub use capture::{Capture, CaptureVerdict, check_capture};
pub use edge::{EDGE_ART, Edge, EdgeOptions};
pub use edge_state::{EDGE_ADDRESSES, NAT_ADDRESS, NAT_PORTS, customer_state, edge_state};
pub use error::LabError;
pub use fan::{Fan, Round};
pub use forwarding::{Site, forwarding_state, state_json};
pub use garbage::{Garbage, GarbageReport};
pub use host::{Host, HostConfig};
pub use ike::{Charon, IkeLab};
pub use interrupt::{INTERRUPTED_EXIT_CODE, interrupted};
pub use iperf::{DatagramLoad, IperfDatagrams, IperfReport, IperfServer};
pub use l3vpn::{L3vpn, Options, TOPOLOGY_ART, Tenant};
pub use leak::LeakWatch;
pub use namespace::{Lab, Namespace, sweep};
pub use nic::{Nic, TwinControl};
pub use node::{Node, NodeConfig};
pub use node_client::NodeClient;
pub use ping::{Ping, PingReport};
pub use process::{Output, Process, run};
pub use programs::{Programs, find_in_path};
pub use rekey::Rekeyed;
pub use sa::{Associations, Pair, Sa, Tunnel, TunnelEnd};
pub use scenario::scenario;
pub use sequence::{Received, Sequence, SequenceReport};
pub use switch::AccessSwitch;
pub use veth::{End, Veth};
pub use vm::{Direction, Job, KernelPeer, Outside, SaAtPeer, Service, SharedSa, Vm, VmImage};
pub use wait::until;
pub use web::WebServer;
