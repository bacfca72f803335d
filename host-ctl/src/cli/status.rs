//! `status`.

use std::fmt;

use proto::v1::NodeStatus;

/// Name, account of packets, and how full the tables are.
///
/// # Errors
/// Those of `out`.
pub fn render(status: &NodeStatus, out: &mut impl fmt::Write) -> fmt::Result {
    line(out, "Node", &status.node)?;
    line(out, "Version", &status.version)?;
    line(out, "Generation", status.generation)?;
    line(out, "Workers", status.workers)?;
    line(out, "Uptime", uptime(status.uptime_secs))?;
    writeln!(out, "Packets:")?;
    let p = status.packets.unwrap_or_default();
    for (name, count) in [
        ("  Received", p.received),
        ("  Forwarded", p.forwarded),
        ("  Punted", p.punted),
        ("  Consumed", p.consumed),
        ("  Dropped", p.dropped),
        ("  Held", p.held),
    ] {
        line(out, name, count)?;
    }
    let warning = if p.unaccounted == 0 { "" } else { "  (must be 0: please report this)" };
    line(out, "  Unaccounted", format!("{}{warning}", p.unaccounted))?;
    line(out, "  Originated", p.originated)?;
    writeln!(out, "Path:")?;
    let tiers = status.tiers.unwrap_or_default();
    line(out, "  Flow hits", tiers.flow_hits)?;
    line(out, "  Routed", tiers.routed)?;
    line(out, "  Slow path", tiers.slow_path)?;
    writeln!(out, "Tables (used/limit):")?;
    for (name, table) in [
        ("  Flows", &status.flows),
        ("  Neighbours", &status.neighbours),
        ("  Fragmented datagrams", &status.fragmented_datagrams),
        ("  Held packets", &status.held_packets),
    ] {
        let table = table.unwrap_or_default();
        line(out, name, format!("{}/{}", table.used, table.limit))?;
    }
    Ok(())
}

fn line(out: &mut impl fmt::Write, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(out, "{}", format!("{:<26}{value}", format!("{name}:")).trim_end())
}

fn uptime(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (hours, minutes, seconds) = (rest / 3600, rest % 3600 / 60, rest % 60);
    if days > 0 { format!("{days}d {hours}h {minutes}m {seconds}s") } else { format!("{hours}h {minutes}m {seconds}s") }
}

#[cfg(test)]
mod tests {
    use proto::v1::{PacketAccount, TableUse, TierCounters};

    use super::*;

    #[test]
    fn a_node_is_shown_at_a_glance() {
        let status = NodeStatus {
            node: "ce-1".into(),
            version: "0.1.0".into(),
            generation: 7,
            workers: 2,
            uptime_secs: 93784,
            packets: Some(PacketAccount {
                received: 100,
                forwarded: 90,
                punted: 1,
                consumed: 2,
                dropped: 3,
                held: 4,
                unaccounted: 0,
                originated: 5,
            }),
            flows: Some(TableUse { used: 12, limit: 1_048_576 }),
            tiers: Some(TierCounters { flow_hits: 80, routed: 15, slow_path: 5 }),
            ..NodeStatus::default()
        };
        let mut text = String::new();
        render(&status, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Node:                     ce-1
        Version:                  0.1.0
        Generation:               7
        Workers:                  2
        Uptime:                   1d 2h 3m 4s
        Packets:
          Received:               100
          Forwarded:              90
          Punted:                 1
          Consumed:               2
          Dropped:                3
          Held:                   4
          Unaccounted:            0
          Originated:             5
        Path:
          Flow hits:              80
          Routed:                 15
          Slow path:              5
        Tables (used/limit):
          Flows:                  12/1048576
          Neighbours:             0/0
          Fragmented datagrams:   0/0
          Held packets:           0/0
        ");
    }

    #[test]
    fn packets_that_are_not_accounted_for_are_pointed_out() {
        let packets = Some(PacketAccount { unaccounted: -2, ..PacketAccount::default() });
        let mut text = String::new();
        render(&NodeStatus { packets, ..NodeStatus::default() }, &mut text).unwrap();
        assert!(text.contains("Unaccounted:            -2  (must be 0"), "{text}");
    }
}
