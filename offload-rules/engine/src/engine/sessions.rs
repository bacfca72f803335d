//! SAs that workers have offered: sessions in the NIC, and the rules that open and seal by them.
//!
//! A session is there before its rule, and goes after it. Workers learn that the NIC holds an SA only after it does.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use offload_rules::{
    VifId,
    flow::Dependency,
    forwarding::{Lifetime, Sa, SaDirection, VersionChanges},
    lower::{Meta, Rule, Session, priority},
};

use super::{
    Engine,
    rules::{NewRule, Owner, Rules, Stage as RuleStage},
};
use crate::{
    Failure, Lowering, RuleBackend, SessionBackend, SessionCounts, SessionKind, SessionPlace, SessionSpec, Token,
    protocol::{NotHeld, OfferId, Report, SaMode},
};

/// Milliseconds that a tunnel may still be sealed by a session that was returned, until the next one's rule is there.
const HANDOVER: u64 = 500;
/// Milliseconds before a rule that failed is tried again.
const RETRY: u64 = 1000;

/// An SA as it was offered.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) sa: Arc<Sa>,
    pub(super) vif: VifId,
    pub(super) numbers: Range<u64>,
    pub(super) left: Lifetime,
}

/// Life of an SA in the NIC:
///
/// ```text
///    ┌── inbound: session ──────────────────────► Opened ────── rule created ──┐
///    │                                                                         ▼
/// Offered ── outbound, inline crypto: session ──────────────────────────► InForce
///    │                                                                         ▲
///    └── outbound, inline protocol: session ────► Reported ─────── confirmed ──┘
///
/// Offered ── refused ──► (gone)      Opened ── rule failed ──► (gone)
/// any ── the worker returns it ──► Returned ── rule gone, then session gone ──► (gone)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No session yet.
    Offered,
    /// Inbound: there is a session, its rule is being created.
    Opened,
    /// Outbound, inline protocol: there is a session and the worker knows it, but does not send with it yet.
    Reported,
    /// The worker counts on the session; an outbound one gets its rule now.
    InForce,
    /// The worker does not use the session any more: rule and session end at once, or when the tunnel's next one is in force.
    Returned { at_once: bool, since: u64 },
}

/// An SA that was offered, as far as it has come.
#[derive(Debug)]
struct OfferedSa {
    offered: Offer,
    stage: Stage,
    /// The worker was asked to return it.
    recalled: bool,
    session: Option<(Session, SessionPlace)>,
    rule: Option<Token>,
    rule_retry_at: u64,
    reported: SessionCounts,
}

impl OfferedSa {
    fn outbound(&self) -> bool {
        self.offered.sa.direction == SaDirection::Outbound
    }

    fn rule_is(&self, rules: &Rules, stage: RuleStage) -> bool {
        self.rule.and_then(|token| rules.get(token)).is_some_and(|entry| entry.stage == stage)
    }
}

/// All SAs that were offered.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    held: BTreeMap<OfferId, OfferedSa>,
    free: Vec<u32>,
    next: u32,
    counted_at: u64,
    /// Tunnels that were reported to workers as sealed by the NIC.
    sealed: BTreeMap<VifId, bool>,
    /// Version of the NIC's ports that these are on.
    ports: u64,
}

impl Sessions {
    /// Numbers begin above this one.
    pub(super) fn above(number: u32) -> Self {
        Self { next: number, ..Self::default() }
    }

    /// Something is to be done that does not wait for time.
    pub(super) fn busy(&self) -> bool {
        self.held.values().any(|held| held.stage == Stage::Offered)
    }

    pub(super) fn in_force(&self) -> usize {
        self.held.values().filter(|held| held.stage == Stage::InForce).count()
    }

    pub(super) fn live_rules(&self, rules: &Rules) -> Vec<Token> {
        let live = self.held.values().filter(|held| held.rule_is(rules, RuleStage::Live));
        live.filter_map(|held| held.rule).collect()
    }

    fn number(&mut self) -> Session {
        Session(self.free.pop().unwrap_or_else(|| {
            self.next = self.next.wrapping_add(1);
            self.next
        }))
    }
}

const fn mode(kind: SessionKind) -> SaMode {
    match kind {
        SessionKind::InlineCrypto => SaMode::Crypto,
        SessionKind::InlineProtocol => SaMode::Protocol,
    }
}

/// What a port offers for an SA. With inline crypto the half of an extended number that is not sent would have to go with each packet,
/// which no two drivers take the same way.
fn kinds(backend: &mut dyn SessionBackend, port: VifId, sa: &Sa) -> Vec<SessionKind> {
    let mut kinds = backend.session_kinds(port, sa);
    kinds.retain(|kind| *kind == SessionKind::InlineProtocol || !sa.esn);
    kinds
}

/// Never more packets than there are numbers.
fn most(offered: &Offer) -> Lifetime {
    let Offer { sa, numbers, left, .. } = offered;
    if sa.direction == SaDirection::Inbound {
        return *left;
    }
    let numbers = numbers.end.saturating_sub(numbers.start);
    let packets = if left.packets == 0 { numbers } else { left.packets.min(numbers) };
    Lifetime { packets, ..*left }
}

impl<B: RuleBackend, L: Lowering> Engine<B, L> {
    /// A worker offers an SA.
    pub(super) fn offered(&mut self, offer: OfferId, offered: Offer) {
        let held = OfferedSa {
            offered,
            stage: Stage::Offered,
            recalled: false,
            session: None,
            rule: None,
            rule_retry_at: 0,
            reported: SessionCounts::default(),
        };
        self.sessions.held.insert(offer, held);
    }

    /// The worker sends by the session, too: rules may.
    pub(super) fn confirmed(&mut self, offer: OfferId) {
        if let Some(held) = self.sessions.held.get_mut(&offer).filter(|held| held.stage == Stage::Reported) {
            held.stage = Stage::InForce;
        }
    }

    /// The worker has released it.
    pub(super) fn returned(&mut self, offer: OfferId, at_once: bool, now: u64) {
        let Some(held) = self.sessions.held.get_mut(&offer) else {
            // Whatever was known of it is lost.
            return self.outbox.push(Report::SaGone { offer, reason: NotHeld::Lost });
        };
        held.stage = Stage::Returned { at_once, since: now };
    }

    /// Takes each one step further.
    pub(super) fn advance_sessions(&mut self, now: u64) {
        if self.sessions.held.is_empty() {
            return self.report_sealed();
        }
        let offers: Vec<OfferId> = self.sessions.held.keys().copied().collect();
        for offer in offers {
            match self.sessions.held.get(&offer).map(|held| held.stage) {
                Some(Stage::Offered) if !self.enabled => self.gone(offer, NotHeld::Off),
                Some(Stage::Offered) if !self.probe.under_way() => self.open(offer),
                Some(Stage::InForce) => self.seal(offer, now),
                Some(Stage::Returned { at_once, since }) => {
                    self.release_session(offer, at_once || since + HANDOVER <= now)
                }
                _ => {}
            }
        }
        if now >= self.sessions.counted_at + self.config.session_interval {
            self.sessions.counted_at = now;
            let offers: Vec<OfferId> = self.sessions.held.keys().copied().collect();
            offers.into_iter().for_each(|offer| self.count_session(offer));
        }
        self.report_sealed();
    }

    /// The session, and for what is received its rule.
    fn open(&mut self, offer: OfferId) {
        let Some(held) = self.sessions.held.get(&offer) else { return };
        let offered = held.offered.clone();
        let Offer { sa, vif, numbers, .. } = &offered;
        let Some(backend) = &mut self.session_backend else { return self.gone(offer, NotHeld::Unsupported) };
        let whole = numbers.start <= 1 || self.lowering.begins_with_any_number();
        let place = self.lowering.session(&self.snapshot, *vif, &mut |port| {
            let mut kinds = kinds(&mut **backend, port, sa);
            kinds.retain(|kind| whole || *kind != SessionKind::InlineProtocol);
            kinds
        });
        let place = match place {
            Ok(place) => place,
            Err(reason) => return self.gone(offer, reason),
        };
        let Some(tunnel) = self.snapshot.vif(*vif).and_then(|vif| vif.kind.tunnel()).cloned() else {
            return self.gone(offer, NotHeld::Underlay);
        };
        let session = self.sessions.number();
        let spec = SessionSpec {
            port: place.port,
            kind: place.kind,
            sa: Arc::clone(sa),
            tunnel,
            first: numbers.start,
            most: most(&offered),
            told: Meta::Opened(*vif).bits(),
        };
        if let Err(failure) = backend.open_session(session, &spec) {
            tracing::warn!(sa = %sa.id, %failure, "the NIC does not take a session");
            self.sessions.free.push(session.0);
            return self.gone(offer, NotHeld::Failed(failure.class));
        }
        let outbound = sa.direction == SaDirection::Outbound;
        let rule = (!outbound).then(|| self.lowering.open_rule(&self.snapshot, *vif, place, sa, session));
        let Some(held) = self.sessions.held.get_mut(&offer) else { return };
        held.session = Some((session, place));
        match rule {
            None => {
                held.stage = if place.kind == SessionKind::InlineCrypto { Stage::InForce } else { Stage::Reported };
                self.report_held(offer);
            }
            Some(Ok(rule)) if self.rules.holder(&rule).is_none() => {
                held.stage = Stage::Opened;
                self.add_rule(offer, rule);
            }
            // Two SAs with one index come one after the other.
            Some(Ok(_)) => self.close(offer, NotHeld::Pending),
            Some(Err(_)) => self.close(offer, NotHeld::Unsupported),
        }
    }

    fn add_rule(&mut self, offer: OfferId, rule: Rule) {
        let token = self.rules.insert(Arc::new(rule), NewRule::of(Owner::Session(offer)));
        if let Some(held) = self.sessions.held.get_mut(&offer) {
            held.rule = Some(token);
        }
    }

    fn report_held(&mut self, offer: OfferId) {
        if let Some((session, place)) = self.sessions.held.get(&offer).and_then(|held| held.session) {
            let (mode, port) = (mode(place.kind), place.port);
            self.outbox.push(Report::SaHeld { offer, mode, session: session.0, port });
        }
    }

    /// The rule of an outbound one, at the priority that the tunnel's other one leaves.
    fn seal(&mut self, offer: OfferId, now: u64) {
        let Some(held) = self.sessions.held.get(&offer) else { return };
        if !held.outbound() || held.rule.is_some() || held.recalled || held.rule_retry_at > now {
            return;
        }
        let Some((session, place)) = held.session.filter(|(_, place)| place.kind == SessionKind::InlineProtocol) else {
            return;
        };
        let vif = held.offered.vif;
        for alternate in [false, true] {
            let Ok(rule) = self.lowering.seal_rule(vif, place, session, alternate) else { return };
            debug_assert!([priority::FLOW, priority::FLOW_ALTERNATE].contains(&rule.priority));
            if self.rules.holder(&rule).is_none() {
                return self.add_rule(offer, rule);
            }
        }
    }

    /// The end of one that was returned: the rule, when nothing speaks for keeping it, then the session.
    fn release_session(&mut self, offer: OfferId, now: bool) {
        let Some(held) = self.sessions.held.get(&offer) else { return };
        let Some(token) = held.rule else { return self.close(offer, self.why_returned()) };
        let vif = held.offered.vif;
        let next_is_there = self.sessions.held.iter().any(|(other, held)| {
            *other != offer
                && held.offered.vif == vif
                && held.outbound()
                && held.stage == Stage::InForce
                && held.rule_is(&self.rules, RuleStage::Live)
        });
        if (now || !held.outbound() || next_is_there)
            && self.rules.get(token).is_some_and(|entry| entry.wanted())
            && self.rules.unwant(token)
        {
            self.ended(token);
        }
    }

    const fn why_returned(&self) -> NotHeld {
        if self.enabled { NotHeld::Pending } else { NotHeld::Off }
    }

    /// Tells the last counts, and ends the session.
    fn close(&mut self, offer: OfferId, reason: NotHeld) {
        self.count_session(offer);
        let session = self.sessions.held.get(&offer).and_then(|held| held.session);
        if let (Some((session, _)), Some(backend)) = (session, &mut self.session_backend) {
            if let Err(failure) = backend.close_session(session) {
                // Its number is not given to another one.
                tracing::error!(session = session.0, %failure, "a session of the NIC cannot be destroyed");
            } else {
                self.sessions.free.push(session.0);
            }
        }
        self.gone(offer, reason);
    }

    fn gone(&mut self, offer: OfferId, reason: NotHeld) {
        self.sessions.held.remove(&offer);
        self.outbox.push(Report::SaGone { offer, reason });
    }

    fn count_session(&mut self, offer: OfferId) {
        let Some(held) = self.sessions.held.get_mut(&offer) else { return };
        let Some((session, place)) = held.session else { return };
        if place.kind == SessionKind::InlineCrypto {
            return;
        }
        let Some(Ok(counts)) = self.session_backend.as_mut().map(|backend| backend.session_counts(session)) else {
            return;
        };
        let reported = std::mem::replace(&mut held.reported, counts);
        let (packets, bytes) =
            (counts.packets.saturating_sub(reported.packets), counts.bytes.saturating_sub(reported.bytes));
        let refused = counts.refused.saturating_sub(reported.refused);
        if packets + bytes + refused > 0 {
            self.outbox.push(Report::SaCounted { offer, packets, bytes, refused });
        }
    }

    pub(super) fn session_rule_created(&mut self, offer: OfferId) {
        let Some(held) = self.sessions.held.get_mut(&offer) else { return };
        if held.stage == Stage::Opened {
            held.stage = Stage::InForce;
            self.report_held(offer);
        }
    }

    pub(super) fn session_rule_failed(&mut self, offer: OfferId, failure: &Failure, now: u64) {
        let Some(held) = self.sessions.held.get_mut(&offer) else { return };
        tracing::warn!(sa = %held.offered.sa.id, %failure, "the NIC does not take a rule of IPsec");
        held.rule_retry_at = now + RETRY;
    }

    pub(super) fn session_rule_ended(&mut self, offer: OfferId, token: Token) {
        let Some(held) = self.sessions.held.get_mut(&offer).filter(|held| held.rule == Some(token)) else { return };
        held.rule = None;
        match held.stage {
            Stage::Opened => self.close(offer, NotHeld::Failed(offload_rules::lower::FailureClass::Device)),
            // An inbound session whose rule was lost has no user.
            Stage::InForce if !held.outbound() => self.recall(offer),
            _ => {}
        }
    }

    fn recall(&mut self, offer: OfferId) {
        let Some(held) = self.sessions.held.get_mut(&offer) else { return };
        if held.stage != Stage::Offered && !std::mem::replace(&mut held.recalled, true) {
            self.outbox.push(Report::SaLeave { offer });
        }
    }

    /// Switched off: workers are asked to return all sessions.
    pub(super) fn recall_sessions(&mut self) {
        let offers: Vec<OfferId> = self.sessions.held.keys().copied().collect();
        offers.into_iter().for_each(|offer| self.recall(offer));
    }

    /// After a change of the snapshot: sessions that would be on another port now, or whose rule would match otherwise, are recalled.
    /// Nothing where no change concerns what that depends on.
    pub(super) fn recheck_sessions(&mut self, changes: &[VersionChanges]) {
        let ports = self.lowering.ports_version();
        if std::mem::replace(&mut self.sessions.ports, ports) == ports && !self.concerns_sessions(changes) {
            return;
        }
        let mut stale = Vec::new();
        for (offer, held) in &self.sessions.held {
            let Some((session, place)) = held.session else { continue };
            let Offer { sa, vif, .. } = &held.offered;
            let same = self.lowering.session(&self.snapshot, *vif, &mut |_| vec![place.kind]) == Ok(place);
            let opens = || self.lowering.open_rule(&self.snapshot, *vif, place, sa, session).ok();
            let rule = held.rule.and_then(|token| self.rules.get(token)).map(|entry| &*entry.rule);
            if !same || !held.outbound() && rule.is_some() && rule != opens().as_ref() {
                stale.push(*offer);
            }
        }
        stale.into_iter().for_each(|offer| self.recall(offer));
    }

    /// Do the changes touch vifs, nexthops, SAs, or the route to the far end of a tunnel?
    fn concerns_sessions(&self, changes: &[VersionChanges]) -> bool {
        let read = |object: &Dependency| {
            !matches!(object, Dependency::Acl(_) | Dependency::Neighbour(..) | Dependency::PathMtu(_))
        };
        let covered = |changes: &VersionChanges| {
            let tunnels =
                self.sessions.held.values().filter_map(|held| self.snapshot.vif(held.offered.vif)?.kind.tunnel());
            tunnels.into_iter().any(|tunnel| changes.covers(tunnel.vrf, tunnel.destination.into()))
        };
        changes.iter().any(|changes| changes.touches_arrivals() || changes.touches(read) || covered(changes))
    }

    /// The NIC has lost all.
    pub(super) fn sessions_lost(&mut self) {
        for offer in std::mem::take(&mut self.sessions.held).into_keys() {
            self.outbox.push(Report::SaGone { offer, reason: NotHeld::Lost });
        }
        // Workers may send with the old numbers until they have read this: none of them comes to mean another session.
        self.sessions.free.clear();
    }

    /// Tells workers which tunnels' flows may be forwarded by rules.
    fn report_sealed(&mut self) {
        let mut now: BTreeMap<VifId, bool> = self.sessions.sealed.keys().map(|vif| (*vif, false)).collect();
        for held in self.sessions.held.values().filter(|held| held.outbound()) {
            if held.rule_is(&self.rules, RuleStage::Live) {
                now.insert(held.offered.vif, true);
            }
        }
        for (vif, sealed) in &now {
            if self.sessions.sealed.get(vif) != Some(sealed) && (*sealed || self.sessions.sealed.contains_key(vif)) {
                let all = 0..self.config.workers;
                self.outbox.extend(all.map(|worker| Report::Tunnel { worker, vif: *vif, sealed: *sealed }));
            }
        }
        self.sessions.sealed = now;
    }
}
