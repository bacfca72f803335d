//! May a packet run a plan as it is? The same answer for the packets of a flow, the first one and those without a flow.

use offload_rules::{
    classify::Checks,
    flow::{IPV6_MIN_MTU, Oversize},
};

use super::{Plan, Target};
use crate::packet::parse::Ip;

/// Why a packet does not run a plan as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// The plan drops it.
    Denied,
    /// TTL or hop limit is used up: answered with ICMP time exceeded (RFC 1812 §5.3.1, RFC 4443 §3.3).
    TtlExpired,
    /// Larger than the path takes, and not to be fragmented: answered (RFC 1191 §4, RFC 8201 §4).
    TooBig,
    /// Fragmented before encapsulation, so that only the last hop has to reassemble (RFC 2003 §3.1).
    Fragment,
    /// Sent whole, its outer packet in fragments (RFC 2473 §7.1).
    FragmentOuter {
        /// Largest fragment of the outer packet in octets.
        mtu: u16,
    },
}

/// A packet that [`execute`](super::execute) may be called with.
///
/// # Errors
/// Why not: for the caller to see to.
#[inline(always)] // the plan's fields stay in registers
pub fn admit(plan: &Plan, ip: &Ip, reassembled: bool) -> Result<(), Exception> {
    if matches!(plan.target, Target::Drop(_)) {
        return Err(Exception::Denied);
    }
    check(&plan.checks, ip, reassembled)
}

/// TTL, then size: what comes between the lists and the link layer (RFC 1812 §5.2.1.2). `reassembled`: it came in fragments, and was
/// put together by this node.
///
/// # Errors
/// Any [`Exception`] but [`Exception::Denied`].
#[inline(always)]
pub fn check(checks: &Checks, ip: &Ip, reassembled: bool) -> Result<(), Exception> {
    if ip.ttl <= checks.ttl {
        return Err(Exception::TtlExpired);
    }
    if ip.total_len <= checks.size.mtu { Ok(()) } else { Err(oversize(checks.size.larger, ip, reassembled)) }
}

/// What becomes of a packet that is larger than the path takes.
#[cold]
fn oversize(larger: Oversize, ip: &Ip, reassembled: bool) -> Exception {
    // What came in fragments, and was whole for this node alone, goes on in fragments: no host can be told to make others.
    match (larger, ip.version) {
        (Oversize::FragmentOuter { mtu }, 6) if reassembled || ip.total_len <= IPV6_MIN_MTU => {
            Exception::FragmentOuter { mtu }
        }
        (Oversize::Fragment, 6) if reassembled => Exception::Fragment,
        (Oversize::Fragment | Oversize::FragmentOuter { .. }, 4) if !ip.df => Exception::Fragment,
        (Oversize::Refuse | Oversize::Fragment | Oversize::FragmentOuter { .. }, _) => Exception::TooBig,
    }
}

#[cfg(test)]
mod tests {
    use offload_rules::flow::SizeLimit;

    use super::*;

    fn ip(version: u8, total_len: u16, df: bool) -> Ip {
        Ip { version, total_len, df, ttl: 2, ..Ip::BLANK }
    }

    #[test]
    fn ttl_is_checked_before_size() {
        let checks = Checks { ttl: 2, size: SizeLimit { mtu: 100, larger: Oversize::Refuse } };
        assert_eq!(check(&checks, &ip(4, 101, false), false), Err(Exception::TtlExpired));
        let checks = Checks { ttl: 1, ..checks };
        assert_eq!(check(&checks, &ip(4, 101, false), false), Err(Exception::TooBig));
        assert_eq!(check(&checks, &ip(4, 100, true), false), Ok(()));
        assert_eq!(check(&Checks::NONE, &ip(6, u16::MAX, true), false), Ok(()));
    }

    #[test]
    fn oversize_is_fragmented_where_header_and_path_allow_it() {
        let outer = Oversize::FragmentOuter { mtu: 900 };
        let whole = Exception::FragmentOuter { mtu: 900 };
        let table = [
            (Oversize::Refuse, ip(4, 1280, false), false, Exception::TooBig),
            (Oversize::Refuse, ip(6, 1280, true), true, Exception::TooBig),
            (Oversize::Fragment, ip(4, 1280, false), false, Exception::Fragment),
            (Oversize::Fragment, ip(4, 1280, true), true, Exception::TooBig),
            (Oversize::Fragment, ip(6, 1280, true), false, Exception::TooBig),
            (Oversize::Fragment, ip(6, 1500, true), true, Exception::Fragment),
            (outer, ip(4, 1280, false), false, Exception::Fragment),
            (outer, ip(6, 1280, true), false, whole),
            (outer, ip(6, 1281, true), false, Exception::TooBig),
            (outer, ip(6, 1500, true), true, whole),
        ];
        for (larger, ip, reassembled, expected) in table {
            let checks = Checks { ttl: 1, size: SizeLimit { mtu: 1000, larger } };
            assert_eq!(check(&checks, &ip, reassembled), Err(expected), "{larger:?} {ip:?}");
        }
    }
}
