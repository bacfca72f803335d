//! Explicit congestion notification across a tunnel (RFC 6040).
#![forbid(unsafe_code)]

use offload_rules::DropReason;

/// The ECN field: the lower two bits of the type of service or traffic class octet (RFC 3168 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not take part.
    NotEct = 0,
    /// ECN-capable, codepoint 1.
    Ect1 = 1,
    /// ECN-capable, codepoint 0.
    Ect0 = 2,
    /// Congestion experienced.
    Ce = 3,
}

impl Ecn {
    /// Of a type of service or traffic class octet.
    #[inline]
    #[must_use]
    pub const fn of(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// This field in an octet with the DSCP of `tos`.
    #[inline]
    #[must_use]
    pub const fn with_dscp_of(self, tos: u8) -> u8 {
        tos & !3 | self as u8
    }
}

/// The outer field at the ingress of a tunnel: a copy, congestion included (RFC 6040 §4.1, normal mode).
#[inline]
#[must_use]
pub const fn encapsulate(inner: Ecn) -> Ecn {
    inner
}

/// The field that leaves the tunnel (RFC 6040 §4.2, figure 4).
///
/// # Errors
/// [`DropReason::EcnInvalid`]: congestion was marked on a packet whose transport would not see the mark.
#[inline]
pub const fn decapsulate(outer: Ecn, inner: Ecn) -> Result<Ecn, DropReason> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => Err(DropReason::EcnInvalid),
        (Ecn::Ect0, Ecn::Ect1 | Ecn::Ce) | (Ecn::Ect1, Ecn::Ce) => Ok(outer),
        _ => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ecn::*, *};

    #[test]
    fn all_sixteen_ecn_combinations_decapsulate_as_rfc_6040_figure_4_says() {
        // Rows: inner. Columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                let got = decapsulate(outer, inner);
                assert_eq!(got, expected.ok_or(DropReason::EcnInvalid), "inner {inner:?}, outer {outer:?}");
            }
        }
    }

    #[test]
    fn the_tunnel_copies_the_field_outward_and_a_round_trip_changes_nothing() {
        for ecn in [NotEct, Ect0, Ect1, Ce] {
            assert_eq!(encapsulate(ecn), ecn);
            assert_eq!(decapsulate(encapsulate(ecn), ecn), Ok(ecn));
        }
    }

    #[test]
    fn the_field_is_the_lower_two_bits_beside_the_dscp() {
        for tos in 0..=255u8 {
            assert_eq!(Ecn::of(tos) as u8, tos & 3);
            assert_eq!(Ce.with_dscp_of(tos), tos | 3);
            assert_eq!(NotEct.with_dscp_of(tos), tos & 0xfc);
        }
    }
}
