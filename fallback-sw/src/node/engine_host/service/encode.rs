//! The engine's terms as messages.

use std::collections::BTreeMap;

use offload_engine::{
    EngineStatus, Failures, InstalledRule, Mismatch, MismatchKind, ProbeResult, ShapeStatus, TransitStatus,
};
use offload_rules::lower::{Action, NotOffloaded};
use proto::v1 as pb;

use super::{AboutNic, AboutPort, rule_text};

/// The engine's state.
pub(super) fn status(status: &EngineStatus, nic: &AboutNic) -> pb::OffloadStatus {
    let totals = &status.totals;
    // A bucket's upper end, in milliseconds; says nothing before the first rule.
    let latency = |milliseconds: u64| (totals.created > 0).then(|| milliseconds.saturating_mul(1000));
    let not_honoured = status.shapes.iter().filter(|shape| shape.refused == Some(NotOffloaded::NotHonoured));
    pb::OffloadStatus {
        profile: status.profile.clone(),
        driver: nic.driver.clone(),
        enabled: status.enabled,
        blocked_reason: words(status.blocked),
        shapes: status.shapes.iter().map(shape).collect(),
        tables: vec![pb::OffloadTable {
            name: "all".to_owned(),
            entries: status.rules as u64,
            capacity: status.capacity.map_or(0, |capacity| capacity as u64),
        }],
        full: status.full,
        flows: Some(pb::FlowsByTier {
            hardware: status.hardware as u64,
            partial: status.partial as u64,
            pending: status.pending as u64,
            software: status.software as u64,
        }),
        in_flight: status.in_flight as u64,
        queued: status.queued as u64,
        totals: Some(pb::OffloadTotals {
            installed: totals.created,
            removed: totals.destroyed,
            remove_failed: totals.destroy_failed,
            activated: totals.activated,
            evicted: totals.evicted,
            late: totals.late,
            lost: totals.lost,
            uncounted: totals.uncounted,
            resets: totals.resets,
            sweeps: totals.sweeps,
        }),
        failures: failures(&totals.failed),
        not_honoured: not_honoured.map(|shape| shape.shape.clone()).collect(),
        insert_rate_per_s: status.insert_rate as f64,
        latency_p50_us: latency(status.latency_p50),
        latency_p99_us: latency(status.latency_p99),
        last_reset_ms: None,
        ipsec_sessions: status.sessions as u64,
        dpdk_version: nic.dpdk.clone(),
        layout: nic.layout.clone(),
        engine: nic.engine.clone(),
        ports: nic.ports.iter().map(port).collect(),
        findings: nic.findings.clone(),
        abilities: nic.abilities.clone(),
        transit: Some(transit(&status.transit)),
    }
}

fn transit(status: &TransitStatus) -> pb::OffloadTransit {
    let TransitStatus { rules, wanted, most, ingresses, prefixes, reasons } = status;
    let reason =
        |(reason, prefixes): &(String, usize)| pb::TransitReason { reason: reason.clone(), prefixes: *prefixes as u64 };
    pb::OffloadTransit {
        rules: *rules as u64,
        wanted: *wanted as u64,
        limit: *most as u64,
        ingresses: *ingresses as u64,
        prefixes: *prefixes as u64,
        reasons: reasons.iter().map(reason).collect(),
    }
}

fn port(AboutPort { device, ethdev, facts }: &AboutPort) -> pb::OffloadPort {
    pb::OffloadPort {
        device: device.clone(),
        ethdev: ethdev.clone(),
        role: facts.role.to_string(),
        switch_domain: facts.domain.map(u32::from),
    }
}

fn shape(shape: &ShapeStatus) -> pb::Shape {
    let (outcome, detail) = match &shape.probe {
        None | Some(ProbeResult::Waiting) => (pb::ProbeOutcome::ProbeNotTried, ""),
        Some(ProbeResult::Works) => (pb::ProbeOutcome::ProbePassed, ""),
        Some(ProbeResult::Refused(words)) => (pb::ProbeOutcome::ProbeRefused, words.as_str()),
        Some(ProbeResult::Unsure(words)) => (pb::ProbeOutcome::ProbeUnsure, words.as_str()),
    };
    pb::Shape {
        shape: shape.shape.clone(),
        outcome: outcome.into(),
        detail: detail.to_owned(),
        refused_reason: words(shape.refused),
        created: shape.created,
        proven: shape.proven,
    }
}

fn failures(failures: &Failures) -> Vec<pb::FailureCount> {
    let Failures { shape, capacity, busy, duplicate, timeout, device } = *failures;
    [
        ("shape", shape),
        ("capacity", capacity),
        ("busy", busy),
        ("duplicate", duplicate),
        ("timeout", timeout),
        ("device", device),
    ]
    .map(|(class, count)| pb::FailureCount { class: class.to_owned(), count })
    .into()
}

/// Reasons, most flows first.
pub(super) fn reasons(counts: BTreeMap<NotOffloaded, u64>) -> pb::ListReasonsResponse {
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, flows)| *flows > 0).collect();
    counts.sort_by_key(|(_, flows)| std::cmp::Reverse(*flows));
    let count = |(reason, flows): (NotOffloaded, u64)| pb::ReasonCount { reason: reason.to_string(), flows };
    pb::ListReasonsResponse { reasons: counts.into_iter().map(count).collect() }
}

/// A rule with its counts.
pub(super) fn rule(installed: &InstalledRule) -> pb::InstalledRule {
    let rule = &installed.rule;
    let is_partial = rule.actions.iter().any(|action| matches!(action, Action::Mark(_)));
    pb::InstalledRule {
        text: rule_text::rule(rule),
        vif: rule_text::port(rule).map_or(0, |vif| vif.get().into()),
        table: rule_text::table(rule.table).to_owned(),
        priority: rule.priority,
        items: rule.items.iter().map(rule_text::item).collect(),
        actions: rule.actions.iter().map(rule_text::action).collect(),
        tier: if is_partial { pb::FlowTier::Partial } else { pb::FlowTier::Hardware }.into(),
        packets: installed.hits.packets,
        bytes: installed.hits.bytes,
        installed_ms: None,
        live: installed.live,
        needed_by: installed.needed_by,
    }
}

/// A difference; `flow` is the index of its flow, if it is of one that is still there.
pub(super) fn difference(mismatch: &Mismatch, flow: Option<u64>) -> pb::RuleDifference {
    let (kind, detail) = match mismatch.kind {
        MismatchKind::Missing => (pb::DifferenceKind::Missing, "should be in the NIC, and is not"),
        MismatchKind::Extra => (pb::DifferenceKind::Extra, "is in the NIC, and should not be"),
        MismatchKind::Different => (pb::DifferenceKind::Different, "is in the NIC with other items or actions"),
    };
    let gone = mismatch.flow.is_some() && flow.is_none();
    pb::RuleDifference {
        kind: kind.into(),
        flow,
        rule: rule_text::rule(&mismatch.rule),
        detail: if gone { format!("{detail}; its flow is gone") } else { detail.to_owned() },
    }
}

fn words(reason: Option<NotOffloaded>) -> String {
    reason.map(|reason| reason.to_string()).unwrap_or_default()
}
