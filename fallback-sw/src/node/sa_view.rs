//! Security associations and tunnels as the messages of the introspection API. Keys are redacted.

use std::collections::HashMap;

use offload_engine::protocol::SaMode;
use offload_rules::{
    DropReason, SaId, VifId,
    classify::is_tunnel_up,
    forwarding::{IpsecTunnel, Sa, SaDirection, Snapshot, Vif},
};
use proto::v1 as pb;

use super::{
    control::Control,
    encode::{self, Keys},
};
use crate::worker::SaStatus;

/// All SAs of a node by id; `statuses` are those of each worker.
#[must_use]
pub fn sas(control: &Control, statuses: &[Vec<SaStatus>]) -> Vec<pb::SaInfo> {
    let snapshot = control.snapshot();
    let known: HashMap<SaId, (usize, &SaStatus)> = (0..)
        .zip(statuses)
        .flat_map(|(worker, list)| list.iter().map(move |status| (status.id, (worker, status))))
        .collect();
    let users: HashMap<SaId, (VifId, &IpsecTunnel)> = snapshot
        .vifs()
        .filter_map(|vif| Some((vif.id, vif.kind.tunnel()?)))
        .flat_map(|(vif, tunnel)| tunnel.outbound.iter().chain(&tunnel.inbound).map(move |sa| (*sa, (vif, tunnel))))
        .collect();
    let rekeys = |user: Option<&(VifId, &IpsecTunnel)>| user.map_or(0, |(vif, _)| control.rekeys(*vif));
    let show = |sa: &std::sync::Arc<Sa>| {
        let user = users.get(&sa.id);
        let mut info = info(sa, user.copied(), known.get(&sa.id).copied(), snapshot);
        if let Some(why) = control.why_refused(sa.id) {
            info.state = pb::SaState::SaRefused.into();
            info.refused_reason = why.to_string();
        }
        pb::SaInfo { rekeys: rekeys(user), ..info }
    };
    snapshot.sas().map(show).collect()
}

fn info(
    sa: &Sa,
    user: Option<(VifId, &IpsecTunnel)>,
    status: Option<(usize, &SaStatus)>,
    snapshot: &Snapshot,
) -> pb::SaInfo {
    let mut info = pb::SaInfo {
        sa: Some(encode::sa(sa, Keys::Redacted)),
        state: state(sa, user.is_some(), status.map(|(_, status)| status), snapshot).into(),
        key_bits: sa.key.bits() as u32,
        ..pb::SaInfo::default()
    };
    if let Some((vif, tunnel)) = user {
        let (from, to) = match sa.direction {
            SaDirection::Outbound => (tunnel.source, tunnel.destination),
            SaDirection::Inbound => (tunnel.destination, tunnel.source),
        };
        info.vif = vif.get().into();
        (info.source, info.destination) = (from.to_string(), to.to_string());
        info.nat_t = tunnel.nat_t.is_some();
    }
    let Some((worker, status)) = status else { return info };
    let left = |limit: u64, used: u64| (limit > 0).then(|| limit.saturating_sub(used));
    let age = status.age_ms / 1000;
    pb::SaInfo {
        worker: worker as u32,
        packets: status.packets,
        bytes: status.bytes,
        sequence: status.sequence,
        reserved_until: status.reserved_until,
        replay_old: status.refused.replay_old,
        replay_duplicate: status.refused.replay_duplicate,
        authentication_failed: status.refused.authentication,
        malformed: status.refused.malformed,
        packets_left: left(sa.hard.packets, status.packets),
        bytes_left: left(sa.hard.bytes, status.bytes),
        seconds_left: left(sa.hard.seconds, age),
        age_secs: age,
        tier: match status.nic {
            Ok(SaMode::Crypto) => pb::SaTier::SaInlineCrypto,
            Ok(SaMode::Protocol) => pb::SaTier::SaInlineProtocol,
            Err(_) => pb::SaTier::SaInSoftware,
        }
        .into(),
        not_in_nic_reason: status.nic.err().map(|reason| reason.to_string()).unwrap_or_default(),
        refused_by_nic: status.refused.by_nic,
        ..info
    }
}

fn state(sa: &Sa, used: bool, status: Option<&SaStatus>, snapshot: &Snapshot) -> pb::SaState {
    match status {
        Some(status) if status.ended == Some(DropReason::SaExhausted) => pb::SaState::SaExhausted,
        Some(status) if status.ended.is_some() => pb::SaState::SaExpired,
        None if !snapshot.is_sa_usable(sa.id) => pb::SaState::SaExpired,
        _ if !used => pb::SaState::SaUnused,
        Some(status) if status.expiring => pb::SaState::SaExpiring,
        Some(status) if !status.active => pb::SaState::SaStandby,
        _ => pb::SaState::SaActive,
    }
}

/// What is to be said of a tunnel besides what every vif has; `all` are the SAs of the node.
pub fn complete(info: &mut pb::VifInfo, vif: &Vif, snapshot: &Snapshot, all: &[pb::SaInfo]) {
    let Some(tunnel) = vif.kind.tunnel() else { return };
    let of = |id: &SaId| all.iter().find(|info| info.sa.as_ref().is_some_and(|sa| sa.id == id.get())).cloned();
    info.sas = tunnel.outbound.iter().chain(&tunnel.inbound).filter_map(of).collect();
    info.driver.clear();
    let up = is_tunnel_up(snapshot, vif.id);
    info.oper_state = if up { pb::OperState::Up } else { pb::OperState::Down }.into();
    info.oper_error = if up {
        String::new()
    } else if !tunnel.outbound.iter().any(|sa| snapshot.is_sa_usable(*sa)) {
        "no outbound security association of use".to_owned()
    } else {
        format!("no way to {} in vrf {}", tunnel.destination, tunnel.vrf)
    };
}
