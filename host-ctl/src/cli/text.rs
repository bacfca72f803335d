//! Pieces of text that several dumps share.

use std::fmt::{self, Display};

use proto::v1::{AddressFamily, FlowTier};

/// Values between blanks: `65 67`.
pub(super) fn joined(values: impl IntoIterator<Item = impl Display>) -> String {
    separated(values, " ")
}

/// Values between separators.
pub(super) fn separated(values: impl IntoIterator<Item = impl Display>, separator: &str) -> String {
    let mut text = String::new();
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            text.push_str(separator);
        }
        text.push_str(&value.to_string());
    }
    text
}

/// A table's line: cells in columns of these widths; trailing blanks are left out.
pub(super) fn row(out: &mut impl fmt::Write, widths: &[usize], cells: &[&dyn Display]) -> fmt::Result {
    let mut line = String::new();
    for (i, cell) in cells.iter().enumerate() {
        let width = widths.get(i).copied().unwrap_or_default();
        // A cell that is too wide still has a blank after it.
        line.push_str(&format!("{:<width$}", format!("{cell} ")));
    }
    writeln!(out, "{}", line.trim_end())
}

/// Where a flow runs, and why not in hardware: `Software(offload is switched off)`.
pub(super) fn tier(tier: FlowTier, reason: &str) -> String {
    let name = match tier {
        FlowTier::Unspecified => "Unknown",
        FlowTier::Software => "Software",
        FlowTier::Hardware => "Hardware",
        FlowTier::Partial => "Partial",
        FlowTier::Pending => "Pending",
    };
    if reason.is_empty() { name.to_owned() } else { format!("{name}({reason})") }
}

/// `inet4` or `inet6`, as in the heading of a routing table.
pub(super) const fn table_family(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::Inet => "inet4",
        AddressFamily::Inet6 => "inet6",
    }
}

/// Name of an IP protocol, or its number.
pub(super) fn protocol(number: u32) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        47 => "GRE".to_owned(),
        50 => "ESP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}
