//! IPsec capabilities of a port, as its driver states them.

use dpdk_sys::{
    rte_crypto_aead_algorithm as aead, rte_crypto_op_type as op, rte_crypto_param_range,
    rte_crypto_sym_xform_type as xform, rte_cryptodev_capabilities, rte_security_capability,
    rte_security_ipsec_sa_mode as mode, rte_security_ipsec_sa_options, rte_security_ipsec_sa_protocol as esp,
    rte_security_session_action_type as action, rte_security_session_protocol as protocol,
};
use offload_engine::{SessionKind, SessionSpec};
use offload_rules::forwarding::{DfPolicy, Sa, SaDirection};

use super::constants::{AAD_LEN, DIGEST_LEN, ESN_AAD_LEN, action_of, direction_of};

/// The options that a port has for one kind of session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capability(pub(super) rte_security_ipsec_sa_options);

impl Capability {
    /// The capability of this kind for an SA, if the driver has one.
    ///
    /// # Safety
    /// `list` is null, or an array that ends with an element without action (rte_security_capabilities_get); what its elements point to
    /// is valid as well.
    pub(super) unsafe fn find(mut list: *const rte_security_capability, kind: SessionKind, sa: &Sa) -> Option<Self> {
        while !list.is_null() {
            // SAFETY: by the contract of this function; the last element ends the loop.
            let capability = unsafe { &*list };
            if capability.action == action::RTE_SECURITY_ACTION_TYPE_NONE {
                return None;
            }
            // SAFETY: as above.
            if let Some(found) = unsafe { Self::of(capability, kind, sa) } {
                return Some(found);
            }
            // SAFETY: this element was not the last.
            list = unsafe { list.add(1) };
        }
        None
    }

    /// # Safety
    /// The list of algorithms that the capability points to is null, or ends with an element without operation.
    unsafe fn of(capability: &rte_security_capability, kind: SessionKind, sa: &Sa) -> Option<Self> {
        if capability.action != action_of(kind) || capability.protocol != protocol::RTE_SECURITY_PROTOCOL_IPSEC {
            return None;
        }
        // SAFETY: the protocol says which member of the union it is; all are plain numbers.
        let ipsec = unsafe { capability.__bindgen_anon_1.ipsec };
        let fits = ipsec.proto == esp::RTE_SECURITY_IPSEC_SA_PROTO_ESP
            && ipsec.mode == mode::RTE_SECURITY_IPSEC_SA_MODE_TUNNEL
            && ipsec.direction == direction_of(sa.direction)
            && (!sa.esn || ipsec.options.esn() == 1);
        // The NIC keeps the window with inline protocol only.
        let window = kind == SessionKind::InlineCrypto || sa.window <= ipsec.replay_win_sz_max;
        // SAFETY: by the contract of this function.
        let ciphers = fits && window && unsafe { has_aes_gcm(capability.crypto_capabilities, sa) };
        (ciphers && moves_packets(capability.ol_flags, kind, sa.direction)).then_some(Self(ipsec.options))
    }

    /// What the session's tunnel needs and this capability lacks, in words.
    pub(super) fn lacks(&self, spec: &SessionSpec) -> Option<&'static str> {
        let Self(options) = self;
        let outer = spec.kind == SessionKind::InlineProtocol && spec.sa.direction == SaDirection::Outbound;
        if spec.tunnel.nat_t.is_some() && options.udp_encap() == 0 {
            return Some("the NIC has no ESP in UDP");
        }
        if outer && spec.tunnel.dscp.is_none() && options.copy_dscp() == 0 {
            return Some("the NIC does not copy the DSCP to the outer header");
        }
        if outer && spec.tunnel.df == DfPolicy::Copy && options.copy_df() == 0 {
            return Some("the NIC does not copy the don't-fragment bit to the outer header");
        }
        None
    }
}

/// Whether packets get to the NIC, and from it, as this crate's ports hand them: a session to send with goes with each packet, and an
/// ESP packet of inline crypto has its trailer before it is sent and after it is received.
const fn moves_packets(flags: u32, kind: SessionKind, direction: SaDirection) -> bool {
    let trailer = match direction {
        SaDirection::Outbound => dpdk_sys::RTE_SECURITY_TX_HW_TRAILER_OFFLOAD,
        SaDirection::Inbound => dpdk_sys::RTE_SECURITY_RX_HW_TRAILER_OFFLOAD,
    };
    let with_packets =
        matches!(direction, SaDirection::Inbound) || flags & dpdk_sys::RTE_SECURITY_TX_OLOAD_NEED_MDATA != 0;
    with_packets && (matches!(kind, SessionKind::InlineProtocol) || flags & trailer == 0)
}

/// Whether AES-GCM as ESP wants it (RFC 4106) is among a driver's algorithms.
///
/// # Safety
/// `list` is null, or an array that ends with an element without operation.
unsafe fn has_aes_gcm(mut list: *const rte_cryptodev_capabilities, sa: &Sa) -> bool {
    let aad = if sa.esn { ESN_AAD_LEN } else { AAD_LEN };
    while !list.is_null() {
        // SAFETY: by the contract of this function; the last element ends the loop.
        let algorithm = unsafe { &*list };
        if algorithm.op == op::RTE_CRYPTO_OP_TYPE_UNDEFINED {
            return false;
        }
        if algorithm.op == op::RTE_CRYPTO_OP_TYPE_SYMMETRIC {
            // SAFETY: the operation says which member of the union it is; all are plain numbers.
            let symmetric = unsafe { algorithm.__bindgen_anon_1.sym };
            if symmetric.xform_type == xform::RTE_CRYPTO_SYM_XFORM_AEAD {
                // SAFETY: as above, by the type of transform.
                let known = unsafe { symmetric.__bindgen_anon_1.aead };
                if known.algo == aead::RTE_CRYPTO_AEAD_AES_GCM
                    && has(known.key_size, sa.key.bits() / 8)
                    && has(known.digest_size, usize::from(DIGEST_LEN))
                    && has(known.aad_size, usize::from(aad))
                {
                    return true;
                }
            }
        }
        // SAFETY: this element was not the last.
        list = unsafe { list.add(1) };
    }
    false
}

/// In a range of cryptodev: increment 0 means that there is one value.
fn has(range: rte_crypto_param_range, value: usize) -> bool {
    let [min, max, increment] = [range.min, range.max, range.increment].map(usize::from);
    (min..=max).contains(&value) && (value == min || (increment > 0 && (value - min).is_multiple_of(increment)))
}
