//! What the node answers in its own name: ICMP errors and echoes.

use offload_rules::forwarding::is_link_local;

use super::{
    context::Context,
    counters::Counters,
    env::Env,
    limits::Limits,
    local::{answering_source, gateway, way_back},
    outcome::{Emit, Outcome},
    tenant::Tenant,
};
use crate::{
    exec,
    packet::{
        Packet,
        icmp::{self, IcmpError},
    },
};

/// The stage that answers.
pub(super) struct Responder<'a> {
    pub(super) env: &'a Env,
    pub(super) limits: &'a mut Limits,
    pub(super) counters: &'a mut Counters,
    pub(super) emit: Emit<'a>,
}

impl Responder<'_> {
    /// Answers a packet that is dropped with an ICMP error, within the rate limit (RFC 1812 §4.3.2.8, RFC 4443 §2.4 (f)).
    pub(super) fn icmp_error(&mut self, packet: &Packet, context: &Context, error: IcmpError) {
        let (snapshot, now) = (&self.env.snapshot, self.env.clock);
        let rate = self.env.share_of(snapshot.settings().icmp_error_rate);
        // What comes out of one underlay is of many tenants.
        let tenant = context.outer.map_or(Tenant::Vif(context.vif), |_| Tenant::Vrf(context.key.vrf));
        // A flood costs no more than this: to find the address and to write the error is work.
        if !self.limits.icmp_errors.has(tenant, rate, now) {
            return;
        }
        let Some(gateway) = gateway(snapshot, context) else { return };
        let Some(l3) = packet.data().get(usize::from(context.l3)..) else { return };
        let Some(error) = icmp::error(error, &context.ip, l3, gateway) else { return };
        if self.limits.icmp_errors.allow(tenant, rate, now) {
            self.emit.originate(error, way_back(snapshot, packet, context));
        }
    }

    /// Answers an echo request to one of the node's addresses in place (RFC 792, RFC 4443 §4.2).
    pub(super) fn answer_echo(&self, packet: &mut Packet, context: &Context) -> Outcome {
        let (mut ip, snapshot) = (context.ip, &self.env.snapshot);
        let (path, source) = (way_back(snapshot, packet, context), answering_source(snapshot, context));
        let answered = exec::strip(packet, &mut ip, &context.framing())
            .and_then(|()| icmp::echo_reply(&ip, packet.data_mut(), source));
        match answered {
            Ok(()) => Outcome::Answer(path),
            Err(reason) => Outcome::drop(context.vif, reason),
        }
    }

    /// Answers what would have to leave the zone of its link-local source (RFC 4007 §9, RFC 4443 §3.1).
    pub(super) fn beyond_scope(&mut self, packet: &Packet, context: &Context) {
        let ip = &context.ip;
        let asks_too_far = ip.version == 6 && is_link_local(ip.source()) && !is_link_local(ip.destination());
        if asks_too_far && context.outer.is_none() {
            self.icmp_error(packet, context, IcmpError::BeyondScope);
        }
    }
}
