//! ESP of own tunnels that an ICMP error quotes: believed only when it was really sent, and lately.
//!
//! Anybody can send an ICMP error. Who is not on the way of the packets knows neither SPI nor sequence number (RFC 4301 §8.2.1,
//! RFC 5927 §4); who was once knows old ones.

use std::{net::Ipv4Addr, ops::Range};

use offload_rules::{
    VrfId,
    forwarding::{DfPolicy, IpsecTunnel},
};

use super::{
    esp_quote::{EspQuote, Reason},
    history::{MAX_FORMER, MAX_FORMER_OF_TUNNEL, QuotableSa, RetiredSa, SPAN_MS},
    outbound::Outbound,
    table::{Ipsec, Tunnel, sealer},
};
use crate::{
    esp,
    packet::parse::{Embedded, PROTO_UDP},
    worker::{context::Context, env::Env},
};

/// What an ICMP error quotes, as far as IPsec is concerned.
#[derive(Debug)]
pub(in crate::worker) enum Quoted {
    /// No ESP of an own tunnel.
    Foreign,
    /// ESP of an own tunnel, with a number that none of its SAs has sent lately.
    NotSent,
    /// Of an SA of this worker, which has sent it lately.
    Sent(EspQuote),
    /// Of an SA of another worker, which may have sent it.
    SentByOther {
        /// The worker.
        owner: usize,
        /// To be verified there.
        quote: EspQuote,
    },
}

/// Is there a number with these lower 32 bits in the range?
fn holds(range: &Range<u64>, low: u32) -> bool {
    u64::from(low.wrapping_sub(range.start as u32)) < range.end.saturating_sub(range.start)
}

impl Ipsec {
    /// Looks for the SA whose packet an error quotes. `quoted` was parsed from `l3`; the context is that of the error.
    pub(in crate::worker) fn quoted(
        &self,
        context: &Context,
        quoted: &Embedded,
        l3: &[u8],
        reason: Reason,
        env: &Env,
    ) -> Quoted {
        let (now, vif, vrf) = (env.clock, context.vif, context.key.vrf);
        let l4 = quoted.l4(l3);
        let (udp, esp) = match quoted.proto {
            esp::PROTOCOL => (None, l4),
            // The ports are reversed. A later fragment has none, and cannot be told from one of IKE.
            PROTO_UDP if !quoted.is_later_fragment() => {
                (Some((quoted.dport, quoted.sport)), l4.get(8..).unwrap_or(&[]))
            }
            _ => return Quoted::Foreign,
        };
        let ([a, b, c, d, ..], [e, f, g, h, ..]) = (quoted.dst, quoted.src);
        let outside = (vrf, Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
        let mut tunnels = self.tunnels_with(outside, udp).peekable();
        // RFC 3948 §2.2: an SPI of zero is the marker of IKE.
        if tunnels.peek().is_none() || udp.is_some() && esp.starts_with(&[0; 4]) {
            return Quoted::Foreign;
        }
        let Some([s0, s1, s2, s3, n0, n1, n2, n3]) = esp.first_chunk::<8>().filter(|_| !quoted.is_later_fragment())
        else {
            return Quoted::NotSent;
        };
        let (spi, sequence) = (u32::from_be_bytes([*s0, *s1, *s2, *s3]), u32::from_be_bytes([*n0, *n1, *n2, *n3]));
        for tunnel in tunnels {
            if let Some(used) = tunnel.used.iter().find(|used| used.spi == spi && used.until > now) {
                let reason = match reason {
                    // Sent with DF clear: the quote has it set.
                    Reason::PathMtu(..) if tunnel.ipsec.df == DfPolicy::Clear => Reason::Absurd,
                    reason => reason,
                };
                let quote = EspQuote { vif, tunnel: tunnel.vif, spi, sequence, reason };
                return match used.owner == env.config.id {
                    true if self.has_sent_lately(&quote, now) => Quoted::Sent(quote),
                    true => Quoted::NotSent,
                    false => Quoted::SentByOther { owner: used.owner, quote },
                };
            }
        }
        Quoted::NotSent
    }

    /// Tunnels with this outside: VRF, source and destination; in UDP, with its ports.
    fn tunnels_with(
        &self,
        outside: (VrfId, Ipv4Addr, Ipv4Addr),
        udp: Option<(u16, u16)>,
    ) -> impl Iterator<Item = &Tunnel> {
        let first = self.outsides.partition_point(|(known, _)| *known < outside);
        let same = self.outsides.iter().skip(first).take_while(move |(known, _)| *known == outside);
        same.filter_map(|(_, place)| self.tunnels.get(*place))
            .filter(move |tunnel| tunnel.ipsec.nat_t.map(|nat_t| (nat_t.source_port, nat_t.destination_port)) == udp)
    }

    /// Has an SA of this worker sent what is quoted, and lately?
    pub(in crate::worker) fn has_sent_lately(&self, quote: &EspQuote, now: u64) -> bool {
        let outbound = self.outbound.iter().filter(|sa| (sa.vif, sa.sa.spi()) == (quote.tunnel, quote.spi));
        let retired = self.retired.iter().filter(|sa| (sa.tunnel, sa.spi) == (quote.tunnel, quote.spi));
        outbound.flat_map(Outbound::sent_lately).any(|sent| holds(&sent, quote.sequence))
            || retired.filter(|sa| sa.until > now).flat_map(|sa| &sa.sent).any(|sent| holds(sent, quote.sequence))
    }

    /// The SAs that a tunnel may be quoted with from now on: those that it names, and those that it named until now.
    pub(super) fn quotable(env: &Env, ipsec: &IpsecTunnel, before: &[QuotableSa]) -> Vec<QuotableSa> {
        let (snapshot, now) = (&env.snapshot, env.clock);
        let named = ipsec.outbound.iter().filter_map(|id| snapshot.sa(*id));
        let mut used: Vec<QuotableSa> =
            named.map(|sa| QuotableSa { spi: sa.spi, owner: sealer(sa, env), until: u64::MAX }).collect();
        let named = used.len();
        for old in before.iter().filter(|old| old.until > now) {
            if used.len() < named + MAX_FORMER_OF_TUNNEL
                && !used.iter().any(|used| (used.spi, used.owner) == (old.spi, old.owner))
            {
                used.push(QuotableSa { until: old.until.min(now + 2 * SPAN_MS), ..*old });
            }
        }
        used
    }

    /// Keeps what a removed SA has sent lately: it may still be quoted.
    pub(super) fn remember(&mut self, sa: &Outbound, now: u64) {
        self.retired.retain(|retired| retired.until > now);
        if self.retired.len() >= MAX_FORMER {
            self.retired.remove(0);
        }
        let (tunnel, spi, sent) = (sa.vif, sa.sa.spi(), sa.sent_lately());
        self.retired.push(RetiredSa { tunnel, spi, sent, until: now + 2 * SPAN_MS });
    }

    /// Begins new spans of sent numbers when they are due.
    pub(super) fn begin_spans(&mut self, now: u64) {
        for _ in 0..self.spans.begun(now) {
            for sa in &mut self.outbound {
                sa.sa.begin_span();
                sa.nic.begin_span();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn a_number_is_known_by_its_lower_half_also_where_that_wraps() {
        let sent = 0xffff_fff0..0x1_0000_0010;
        for (low, known) in [(0xffff_ffef, false), (0xffff_fff0, true), (0, true), (0xf, true), (0x10, false)] {
            assert_eq!(holds(&sent, low), known, "{low:#x}");
        }
        assert!(!holds(&(1..1), 1), "nothing sent");
        assert!(!holds(&(1..1), 0));
    }
}
