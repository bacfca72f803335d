//! Sizes of AES-GCM in ESP (RFC 4106), and rte_security's names of kinds and directions.

use dpdk_sys::{rte_security_ipsec_sa_direction as direction, rte_security_session_action_type as action};
use offload_engine::SessionKind;
use offload_rules::forwarding::SaDirection;

/// Octets of the check value (RFC 4106 §6).
pub(super) const DIGEST_LEN: u16 = 16;
/// Octets that are authenticated beside the text (RFC 4106 §5): index and sequence number.
pub(super) const AAD_LEN: u16 = 8;
/// The same with extended sequence numbers.
pub(super) const ESN_AAD_LEN: u16 = 12;

/// Both kinds, the one that leaves least to software first.
pub(super) const KINDS: [SessionKind; 2] = [SessionKind::InlineProtocol, SessionKind::InlineCrypto];

/// rte_security's name of a kind.
pub(super) const fn action_of(kind: SessionKind) -> action::Type {
    match kind {
        SessionKind::InlineCrypto => action::RTE_SECURITY_ACTION_TYPE_INLINE_CRYPTO,
        SessionKind::InlineProtocol => action::RTE_SECURITY_ACTION_TYPE_INLINE_PROTOCOL,
    }
}

/// rte_security's name of a direction.
pub(super) const fn direction_of(direction: SaDirection) -> direction::Type {
    match direction {
        SaDirection::Outbound => direction::RTE_SECURITY_IPSEC_SA_DIR_EGRESS,
        SaDirection::Inbound => direction::RTE_SECURITY_IPSEC_SA_DIR_INGRESS,
    }
}
