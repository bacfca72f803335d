//! `offload status`, `reasons`, `rules`, `diff`, `on` and `off`.

use std::fmt;

use proto::v1::{
    DifferenceKind, DirectionRules, FlowRules, InstalledRule, ListReasonsResponse, OffloadDiff, OffloadStatus,
    ProbeOutcome, RuleDifference, SetEnabledResult,
};

use super::text::{self, row};

/// `offload status`: profile, flows, tables, speed, failures, and each shape with what its probe found.
///
/// # Errors
/// Those of `out`.
pub fn render_status(status: &OffloadStatus, out: &mut impl fmt::Write) -> fmt::Result {
    line(out, "Offload", if status.enabled { "on" } else { "off" })?;
    if !status.blocked_reason.is_empty() {
        line(out, "Nothing is installed", &status.blocked_reason)?;
    }
    line(out, "Profile", &status.profile)?;
    line(out, "Driver", &status.driver)?;
    for (name, value) in [
        ("DPDK", &status.dpdk_version),
        ("Layout", &status.layout),
        ("Engine", &status.engine),
        ("The NIC", &status.abilities),
    ] {
        if !value.is_empty() {
            line(out, name, value)?;
        }
    }
    render_ports(status, out)?;
    let flows = status.flows.unwrap_or_default();
    writeln!(out, "Flow pairs:")?;
    line(out, "  Hardware", flows.hardware)?;
    line(out, "  Partial", flows.partial)?;
    line(out, "  Pending", flows.pending)?;
    line(out, "  Software", flows.software)?;
    line(out, "SAs in the NIC", status.ipsec_sessions)?;
    render_transit(status, out)?;
    render_tables(status, out)?;
    render_totals(status, out)?;
    render_failures(status, out)?;
    writeln!(out, "Shapes:")?;
    const WIDTHS: [usize; 4] = [36, 11, 9, 12];
    row(out, &WIDTHS, &[&"  Shape", &"Probe", &"Proven", &"Installed", &"Remarks"])?;
    for shape in &status.shapes {
        let outcome = match shape.outcome() {
            ProbeOutcome::Unspecified => "unknown",
            ProbeOutcome::ProbePassed => "passed",
            ProbeOutcome::ProbeRefused => "refused",
            ProbeOutcome::ProbeNotTried => "not tried",
            ProbeOutcome::ProbeUnsure => "unsure",
        };
        let remarks =
            text::separated([&shape.refused_reason, &shape.detail].iter().filter(|words| !words.is_empty()), "; ");
        let proven = if shape.proven { "yes" } else { "no" };
        row(out, &WIDTHS, &[&format!("  {}", shape.shape), &outcome, &proven, &shape.created, &remarks])?;
    }
    Ok(())
}

fn render_ports(status: &OffloadStatus, out: &mut impl fmt::Write) -> fmt::Result {
    if !status.ports.is_empty() {
        writeln!(out, "Ports:")?;
    }
    for port in &status.ports {
        let switch = port.switch_domain.map(|domain| format!(", switch domain {domain}")).unwrap_or_default();
        line(out, &format!("  {}", port.device), format!("{}, {}{switch}", port.ethdev, port.role))?;
    }
    if !status.findings.is_empty() {
        writeln!(out, "Missing:")?;
    }
    status.findings.iter().try_for_each(|finding| writeln!(out, "  {finding}"))
}

/// What is forwarded without flows, where there is any way in for it.
fn render_transit(status: &OffloadStatus, out: &mut impl fmt::Write) -> fmt::Result {
    let Some(transit) = status.transit.as_ref().filter(|transit| transit.ingresses > 0) else { return Ok(()) };
    writeln!(out, "Transit without flows:")?;
    line(out, "  Rules", format!("{} of {} wanted, at most {}", transit.rules, transit.wanted, transit.limit))?;
    line(out, "  Ways in", transit.ingresses)?;
    line(out, "  Prefixes", transit.prefixes)?;
    if !transit.reasons.is_empty() {
        writeln!(out, "  In software:")?;
    }
    transit.reasons.iter().try_for_each(|why| writeln!(out, "    {}: {}", why.prefixes, why.reason))
}

fn render_tables(status: &OffloadStatus, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "Tables (used/limit):")?;
    for table in &status.tables {
        let use_of = match table.capacity {
            0 => format!("{}/unknown", table.entries),
            capacity => {
                let percent = table.entries as f64 * 100.0 / capacity as f64;
                format!("{}/{capacity} ({percent:.1} %)", table.entries)
            }
        };
        line(out, &format!("  {}", table.name), use_of)?;
    }
    if status.full {
        writeln!(out, "  the NIC says that it is full")?;
    }
    Ok(())
}

fn render_totals(status: &OffloadStatus, out: &mut impl fmt::Write) -> fmt::Result {
    let totals = status.totals.unwrap_or_default();
    writeln!(out, "Rules:")?;
    line(out, "  Installed", totals.installed)?;
    line(out, "  Removed", totals.removed)?;
    line(out, "  In flight", status.in_flight)?;
    line(out, "  Queued", status.queued)?;
    line(out, "  Insert rate", format!("{:.0}/s", status.insert_rate_per_s))?;
    line(out, "  Latency p50/p99", format!("{}/{}", latency(status.latency_p50_us), latency(status.latency_p99_us)))?;
    line(out, "  Counter rounds", totals.sweeps)?;
    writeln!(out, "Pairs:")?;
    line(out, "  Activated", totals.activated)?;
    line(out, "  Evicted", totals.evicted)
}

fn render_failures(status: &OffloadStatus, out: &mut impl fmt::Write) -> fmt::Result {
    let totals = status.totals.unwrap_or_default();
    match status.last_reset_ms {
        Some(at) => line(out, "Resets of the NIC", format!("{}, the last at {at} ms", totals.resets))?,
        None => line(out, "Resets of the NIC", totals.resets)?,
    }
    writeln!(out, "Failures:")?;
    let classes = status.failures.iter().map(|failure| (failure.class.as_str(), failure.count));
    let others = [
        ("remove", totals.remove_failed),
        ("late", totals.late),
        ("lost", totals.lost),
        ("uncounted", totals.uncounted),
    ];
    let mut none = true;
    for (name, count) in classes.chain(others).filter(|(_, count)| *count > 0) {
        none = false;
        line(out, &format!("  {name}"), count)?;
    }
    if none {
        writeln!(out, "  none")?;
    }
    if !status.not_honoured.is_empty() {
        writeln!(out, "Accepted and not honoured (their flows stay in software):")?;
        for shape in &status.not_honoured {
            writeln!(out, "  {shape}")?;
        }
    }
    Ok(())
}

/// `offload reasons`: each reason with its flow pairs, then the sum.
///
/// # Errors
/// Those of `out`.
pub fn render_reasons(response: &ListReasonsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    const WIDTHS: [usize; 1] = [12];
    row(out, &WIDTHS, &[&"Flow pairs", &"Why not in hardware"])?;
    for reason in &response.reasons {
        row(out, &WIDTHS, &[&reason.flows, &reason.reason])?;
    }
    let total: u64 = response.reasons.iter().map(|reason| reason.flows).sum();
    writeln!(out)?;
    row(out, &WIDTHS, &[&total, &"Total"])
}

/// `offload rules`: the direction that was asked for, then the other one.
///
/// # Errors
/// Those of `out`.
pub fn render_rules(rules: &FlowRules, out: &mut impl fmt::Write) -> fmt::Result {
    for (i, direction) in rules.forward.iter().chain(&rules.reverse).enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        render_direction(direction, out)?;
    }
    Ok(())
}

fn render_direction(direction: &DirectionRules, out: &mut impl fmt::Write) -> fmt::Result {
    line(out, "Flow Index", direction.flow)?;
    line(out, "Tier", text::tier(direction.tier(), &direction.not_offloaded_reason))?;
    if direction.rules.is_empty() {
        return line(out, "Rule", "none");
    }
    direction.rules.iter().try_for_each(|rule| render_rule(rule, out))
}

fn render_rule(rule: &InstalledRule, out: &mut impl fmt::Write) -> fmt::Result {
    line(out, "Rule", &rule.text)?;
    // Later stages go by what an earlier one has written.
    let port = if rule.vif == 0 { "any".to_owned() } else { format!("vif0/{}", rule.vif) };
    line(out, "  Port", port)?;
    line(out, "  Table/Priority", format!("{}/{}", rule.table, rule.priority))?;
    line(out, "  Tier", text::tier(rule.tier(), ""))?;
    for (name, parts) in [("  Items", &rule.items), ("  Actions", &rule.actions)] {
        for (i, part) in parts.iter().enumerate() {
            if i == 0 {
                line(out, name, part)?;
            } else {
                writeln!(out, "{:<26}{part}", "")?;
            }
        }
    }
    line(out, "  Statistics", format!("{} packets, {} bytes", rule.packets, rule.bytes))?;
    line(out, "  State", if rule.live { "live" } else { "on its way" })?;
    if rule.needed_by > 0 {
        line(out, "  Needed By", format!("{} rules", rule.needed_by))?;
    }
    match rule.installed_ms {
        Some(at) => line(out, "  Installed", format!("{at} ms")),
        None => Ok(()),
    }
}

/// `offload diff`: a line for each difference, or that there is none.
///
/// # Errors
/// Those of `out`.
pub fn render_diff(diff: &OffloadDiff, out: &mut impl fmt::Write) -> fmt::Result {
    if diff.differences.is_empty() {
        return writeln!(out, "No difference: the NIC holds what it should");
    }
    for difference in &diff.differences {
        render_difference(difference, out)?;
    }
    let kind = |kind| diff.differences.iter().filter(|difference| difference.kind() == kind).count();
    writeln!(
        out,
        "\n{} missing, {} extra, {} different",
        kind(DifferenceKind::Missing),
        kind(DifferenceKind::Extra),
        kind(DifferenceKind::Different)
    )
}

fn render_difference(difference: &RuleDifference, out: &mut impl fmt::Write) -> fmt::Result {
    let kind = match difference.kind() {
        DifferenceKind::Unspecified => "unknown",
        DifferenceKind::Missing => "missing",
        DifferenceKind::Extra => "extra",
        DifferenceKind::Different => "different",
    };
    let flow = difference.flow.map_or_else(|| "no flow".to_owned(), |flow| format!("flow {flow}"));
    row(out, &[11, 16], &[&kind, &flow, &difference.rule])?;
    if !difference.detail.is_empty() {
        writeln!(out, "{:<27}{}", "", difference.detail)?;
    }
    Ok(())
}

/// `offload on` and `offload off`: what the switch did.
///
/// # Errors
/// Those of `out`.
pub fn render_switch(result: &SetEnabledResult, out: &mut impl fmt::Write) -> fmt::Result {
    let position = if result.enabled { "on" } else { "off" };
    if !result.changed {
        return writeln!(out, "Offload is {position}; it was so before");
    }
    write!(out, "Offload is {position}")?;
    if result.enabled {
        return writeln!(out, "; flows move to hardware as their packets come");
    }
    write!(out, "; {} flow pairs went back to software", result.flows_drained)?;
    if result.flows_draining > 0 {
        write!(out, ", {} are on their way", result.flows_draining)?;
    }
    writeln!(out)
}

fn latency(microseconds: Option<u64>) -> String {
    match microseconds {
        None => "-".to_owned(),
        Some(0) => "<1 ms".to_owned(),
        Some(short @ 1..1000) => format!("{short} us"),
        Some(long) => format!("{}.{} ms", long / 1000, long % 1000 / 100),
    }
}

fn line(out: &mut impl fmt::Write, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(out, "{}", format!("{:<26}{value}", format!("{name}:")).trim_end())
}

#[cfg(test)]
#[path = "offload_tests.rs"]
mod tests;
