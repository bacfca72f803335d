//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  error: wrong usage, no node, refused, I/O; standard error says what, where and what to do
  2  not found: the object, route or table that was asked for is not there";

/// Shows and changes what a Sluicegate node forwards.
#[derive(Debug, Parser)]
#[command(name = "host-ctl", version, about, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// The node's unix socket
    #[arg(
        long,
        global = true,
        env = "SLUICEGATE_SOCKET",
        value_name = "PATH",
        default_value = "/run/sluicegate/node.sock"
    )]
    pub socket: PathBuf,
    /// Write the answer as JSON (protobuf JSON mapping of the response)
    #[arg(long, global = true)]
    pub json: bool,
    /// Seconds to wait for the node's answer
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub timeout: u64,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Interfaces and their counters
    Vif(ListOrGet),
    /// VRFs (segments) and how many routes they have
    Vrf(ListOrGet),
    /// Packets of each VRF by what became of them
    Vrfstats(DumpOrGet),
    /// Routes of a VRF
    Rt(Rt),
    /// Nexthops; --get also shows what they lead to
    Nh(ListOrGet),
    /// Incoming MPLS labels
    Mpls(DumpOrGet),
    /// Flows, one line pair for each direction
    Flow(Flow),
    /// Dropped packets by reason
    Drops(Drops),
    /// Neighbours (ARP, ND)
    Neigh,
    /// Access lists
    Acl(ListOrGet),
    /// IPsec security associations: index, counters, replay drops, what is left of their lifetime; keys are never shown
    Sa(ListOrGetSa),
    /// Hardware offload: what the NIC forwards, why it does not forward the rest, and the switch
    Offload(Offload),
    /// Which way packets went
    Stats(Stats),
    /// The node at a glance: packets, tables, generation
    Status,
    /// The whole forwarding state
    State(State),
    /// Completion script for a shell, on standard output
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Manual page, on standard output; with --dir one page for each command
    Man {
        /// Write the pages into this directory
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

/// All objects or one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ListOrGet {
    /// All
    #[arg(long)]
    pub list: bool,
    /// The one with this number
    #[arg(long, value_name = "N")]
    pub get: Option<u32>,
}

/// All security associations or one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ListOrGetSa {
    /// All, a line each
    #[arg(long)]
    pub list: bool,
    /// The one with this number, decimal or hexadecimal (0xffff0060)
    #[arg(long, value_name = "N", value_parser = number)]
    pub get: Option<u32>,
}

/// A number as `vif --get` prints those of security associations, or a decimal one.
fn number(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16))
}

/// All objects or one, as the vRouter's tools spell it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct DumpOrGet {
    /// All
    #[arg(long)]
    pub dump: bool,
    /// The one with this number
    #[arg(long, value_name = "N")]
    pub get: Option<u32>,
}

/// `rt`.
#[derive(Debug, Args)]
pub struct Rt {
    /// A table or one route
    #[command(flatten)]
    pub what: RtWhat,
    /// Family of the table
    #[arg(long, value_enum, default_value_t = Family::Inet, conflicts_with = "get")]
    pub family: Family,
    /// VRF to look the prefix up in
    #[arg(long, value_name = "N", requires = "get", conflicts_with = "dump")]
    pub vrf: Option<u32>,
}

/// A table or one route.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RtWhat {
    /// All routes of this VRF
    #[arg(long, value_name = "VRF")]
    pub dump: Option<u32>,
    /// Longest match for a prefix or an address
    #[arg(long, value_name = "PREFIX", requires = "vrf")]
    pub get: Option<String>,
}

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4
    Inet,
    /// IPv6
    Inet6,
}

/// `flow`.
#[derive(Debug, Args)]
pub struct Flow {
    /// All flows or one
    #[command(flatten)]
    pub what: FlowWhat,
    /// Which of them
    #[command(flatten)]
    pub filter: FlowFilter,
}

/// All flows or one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct FlowWhat {
    /// All that match
    #[arg(long)]
    pub list: bool,
    /// The pair of the flow with this index
    #[arg(long, value_name = "INDEX", conflicts_with_all = ["vrf", "vif", "proto", "src", "dst", "sport", "dport", "action", "offload", "limit", "match_pairs"])]
    pub get: Option<u64>,
}

/// Which flows; all that are given must match.
#[derive(Debug, Args)]
pub struct FlowFilter {
    /// VRF
    #[arg(long, value_name = "N")]
    pub vrf: Option<u32>,
    /// Key vif; 0: from a tunnel
    #[arg(long, value_name = "N")]
    pub vif: Option<u32>,
    /// IP protocol: a number, or tcp, udp, icmp, icmp6, sctp, gre, esp
    #[arg(long, value_parser = protocol)]
    pub proto: Option<u32>,
    /// Source address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub src: Option<String>,
    /// Destination address or prefix
    #[arg(long, value_name = "PREFIX")]
    pub dst: Option<String>,
    /// Source port
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Destination port
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// What happens to its packets
    #[arg(long, value_enum)]
    pub action: Option<Action>,
    /// Where its packets run
    #[arg(long, value_enum, value_name = "TIER")]
    pub offload: Option<Tier>,
    /// At most this many; 0: all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub limit: u64,
    /// Show both directions of a pair when one matches
    #[arg(long)]
    pub match_pairs: bool,
}

/// What happens to the packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Action {
    /// F
    #[value(alias = "F")]
    Forward,
    /// D
    #[value(alias = "D")]
    Drop,
    /// N
    #[value(alias = "N")]
    Nat,
}

/// Where the packets of a flow run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// The NIC forwards them
    Hw,
    /// Software forwards them; the listing says why
    Sw,
    /// The NIC finds the flow, software does the rest
    Partial,
    /// In software; the NIC has been asked and has not answered yet
    Pending,
}

/// `offload`.
#[derive(Debug, Args)]
pub struct Offload {
    /// What to show or do
    #[command(subcommand)]
    pub what: OffloadWhat,
}

const DIFF_HELP: &str = "\
Exit status:
  0  no difference: the NIC holds what it should
  1  there are differences (they are on standard output), or an error (standard error says which)

While flows come and go, or just after a change, rules can be on their way: ask again before drawing conclusions.";

/// What to show or do about hardware offload.
#[derive(Debug, Subcommand)]
pub enum OffloadWhat {
    /// The NIC's profile and what probing found, fill of its tables, speed, failures, resets
    Status,
    /// Why flows are not in hardware, and how many for each reason
    Reasons,
    /// The rules of a flow as they were installed: what they match, what they do, their counters
    Rules {
        /// Index of the flow, as `flow --list` shows it
        #[arg(long, value_name = "INDEX")]
        flow: u64,
    },
    /// What the NIC should hold against what it holds; exits with 1 when they differ
    #[command(after_help = DIFF_HELP)]
    Diff,
    /// Let the NIC forward flows
    On,
    /// Take all flows back to software, without loss; new ones stay there until `offload on`
    Off,
}

/// `stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// What to show
    #[command(subcommand)]
    pub what: StatsWhat,
}

/// What to show of the ways of packets.
#[derive(Debug, Subcommand)]
pub enum StatsWhat {
    /// Packets and bytes by tier (hardware, partial, software flow, routed, slow path, punt), for each VRF and in all
    HitRate,
}

/// `drops`.
#[derive(Debug, Args)]
pub struct Drops {
    /// Leave out reasons that have not occurred
    #[arg(long)]
    pub nonzero: bool,
}

/// `state`.
#[derive(Debug, Args)]
pub struct State {
    /// What to do
    #[command(subcommand)]
    pub what: StateWhat,
}

/// What to do with the state.
#[derive(Debug, Subcommand)]
pub enum StateWhat {
    /// Write the state in force as JSON that `apply` reads; with --json also the fields that have their default value
    Get,
    /// Replace the state by that of a JSON file
    Apply {
        /// The file; - is standard input
        file: PathBuf,
    },
    /// Carry out the change in a JSON file
    Delta {
        /// The file; - is standard input
        file: PathBuf,
    },
}

/// A protocol by number or name.
fn protocol(text: &str) -> Result<u32, String> {
    let names =
        [("tcp", 6), ("udp", 17), ("icmp", 1), ("icmp6", 58), ("icmpv6", 58), ("sctp", 132), ("gre", 47), ("esp", 50)];
    if let Some((_, number)) = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*number);
    }
    text.parse::<u8>().map(u32::from).map_err(|_| "use 0..=255, tcp, udp, icmp, icmp6, sctp, gre or esp".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "vif",
            "vif --list --get 1",
            "rt --get 10.0.0.0/8",
            "rt --dump 1 --vrf 2",
            "rt --dump 1 --get 10.0.0.0/8 --vrf 1",
            "flow --get 1 --vrf 2",
            "flow --list --proto 256",
            "flow --list --proto tpc",
            "flow --list --sport 65536",
            "flow --list --offload hard",
            "flow --get 1 --offload hw",
            "offload",
            "offload rules",
            "offload rules --flow x",
            "offload on off",
            "stats",
            "--timeout 0 status",
        ] {
            let words = std::iter::once("host-ctl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn protocols_have_names() {
        let cli = Cli::try_parse_from(["host-ctl", "flow", "--list", "--proto", "TCP"]).unwrap();
        let Command::Flow(flow) = cli.command else { panic!() };
        assert_eq!(flow.filter.proto, Some(6));
    }
}
