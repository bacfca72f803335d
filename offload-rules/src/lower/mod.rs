//! From the program of a flow to the rule of a NIC.
//!
//! A rule is typed: items with spec and mask, actions in one canonical order. What a NIC can take is in its profile; what it can't
//! take is [`Unsupported`], with a reason for the operator. A rule never matches more than what software decided on: its match
//! holds every field that the walk read, and every field whose value is baked into its actions.
//!
//! Pure: knows no driver and no port numbers; a port is named by the vif of its device.
//!
//! # What software reads of an ordinary packet, and how a rule guards it
//!
//! | field | what software does with it | the rule |
//! |---|---|---|
//! | port | finds the vif | exact |
//! | destination MAC | another station's and groups are dropped | exact |
//! | source MAC | nothing | - |
//! | tags: number, TPID, VLAN id | finds the vif; a third tag is dropped | exact, and that no more follow: by an item, or by a stage that takes the tag off |
//! | priority of the first tag | written on the tag that leaves | exact where a tag leaves and the packet is not out of a tunnel |
//! | drop eligibility | not kept; with a priority tag it decides whether the priority is | exact where the tag is changed in place, or is a priority tag |
//! | ethertype, version | chooses the parser | by the item that follows |
//! | IHL, options | source routes and malformed options are dropped, others stay | no options: IHL 5 |
//! | IPv4 header checksum | wrong: dropped | integrity item in the rule, its stage or in steering, or a parser that keeps such packets from rules; mlx5-sws out of tunnels: accepted, unless strict; where nothing is known the NIC forwards nothing |
//! | total or payload length | longer than the frame: dropped | the same (`l3_ok`) |
//! | total length against the way's limit | fragmented or answered | a range, where larger packets can arrive; without one, what is beyond the MTU of the link and within the room for tags: accepted |
//! | fragment | its head is found first | whole packets only; IPv6 by the next header, or by has_frag_ext 0 |
//! | extension headers | walked | none: the next header is the transport protocol; mlx5 steps over options: accepted, they leave as they came |
//! | addresses, protocol, ports | the key | exact, so that forbidden sources and destinations need no item |
//! | TTL | at the last one: time exceeded | exact: the value that is written is a constant, and the last one never matches |
//! | DSCP and ECN | written into outer DSCP, ECN, traffic class | exact where there is an outer header |
//! | identification, DF, flow label | nothing of a packet that fits | - |
//! | TCP flags | SYN, FIN, RST and segments without ACK change state | those clear, ACK set |
//! | TCP sequence and acknowledgement | remembered, to judge a later RST | not guarded: no packet is dropped for them; whoever takes a flow back forgets the numbers |
//! | TCP data offset, UDP length | shorter than a header or longer than the packet: dropped | not guarded: accepted, the receiver drops it; nothing is read behind them |
//! | transport checksum | nothing | - |
//! | trailer behind the IP packet | cut off | not guarded: it goes along, as far ends ignore it (they cut it off) |
//! | outer source | must be the tunnel's other end (RPF) | exact |
//! | outer destination | an own address | exact |
//! | outer IHL, fragment | options stepped over, fragments reassembled | no options, whole |
//! | outer ECN | combined (RFC 6040) | Not-ECT or ECT(0): those leave the inner field alone |
//! | outer DSCP, TTL, identification, UDP source port | nothing | - |
//! | outer header checksum | wrong: dropped | integrity item where the NIC takes two; else accepted: every outer field that decides anything is exact, and none goes on |
//! | outer UDP checksum | verified unless 0 | 0 where the NIC matches it; else accepted: samples are taken of senders that write 0 (RFC 7510 §3.1) |
//! | label | the VRF | exact |
//! | S bit | clear: dropped | set where the NIC matches it; else accepted: the other end gains nothing, the inner header is exact |
//! | TTL of the label | 0: dropped | exact where the NIC matches it; else accepted: the inner TTL is exact and falls, which ends loops |
//! | traffic class of the label | nothing | - |
//!
//! A rule that drops matches the key and what leads to it, no more: whatever else such packets say, software drops them, too.

mod abilities;
mod canary;
mod chain;
mod dialect;
mod direction;
mod display;
mod edits;
mod fact;
mod flow_rule;
mod headers;
mod ingress;
mod ipsec;
mod meta;
mod pattern;
pub mod priority;
mod proactive;
mod profile;
mod profiles;
mod reason;
mod role;
mod rule;
mod shape;
mod stages;
#[cfg(test)]
mod tests;
mod transit;
mod version;

pub use abilities::{Abilities, Ability};
pub use canary::canary;
pub use chain::Chain;
pub use dialect::{Dialect, OpenRule, PortName, ProtoMatch, SwitchAttribute};
pub use direction::{Arrival, Direction, TunnelArrival};
pub use fact::{Fact, FactText};
pub use flow_rule::{lower, partial};
pub use ingress::{ingress_mtu, still_leads};
pub use ipsec::{Opener, TunnelEnd, open_rule, seal_rule, underlay};
pub use meta::Meta;
pub use proactive::{checked_steering, proactive};
pub use profile::{
    Api, Does, FieldRewrite, HeaderCheck, Ipsec, Ipv6Match, Layout, Limits, Matches, NicProfile, Order, TtlRewrite,
    TunnelMatch,
};
pub use reason::{FailureClass, NotOffloaded, Unsupported};
pub use role::{PortFacts, Role};
pub use rule::{Action, Field, Item, Rule, Session, Stage, Table};
pub use shape::{L4, Origin, Outcome, Shape};
pub use transit::transit;
pub use version::DpdkVersion;
