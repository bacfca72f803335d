//! The configuration of a session, as rte_security takes it.

use std::marker::PhantomData;

use dpdk_sys::{
    rte_crypto_aead_algorithm as aead, rte_crypto_aead_operation as operation, rte_crypto_sym_xform,
    rte_crypto_sym_xform_type as xform, rte_security_ipsec_sa_mode as mode, rte_security_ipsec_sa_protocol as esp,
    rte_security_ipsec_tunnel_type as tunnel_type, rte_security_ipsec_xform, rte_security_session_conf,
    rte_security_session_protocol as protocol,
};
use offload_engine::{SessionKind, SessionSpec};
use offload_rules::forwarding::{DfPolicy, IpsecTunnel, KEY_LENGTHS, SaDirection};

use super::{
    capability::Capability,
    constants::{AAD_LEN, DIGEST_LEN, ESN_AAD_LEN, action_of, direction_of},
};

/// Octets of a nonce, salt included (RFC 4106 §4): how cryptodev counts.
const NONCE_LEN: u16 = 12;
/// TTL of outer headers, as software's.
const TTL: u8 = 64;

/// A session as rte_security takes it. The key stays where the SA has it; the salt is overwritten when this is dropped.
pub(super) struct Conf<'a> {
    conf: rte_security_session_conf,
    transform: rte_crypto_sym_xform,
    key: PhantomData<&'a [u8]>,
}

/// The key is none of AES-GCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongKey;

impl<'a> Conf<'a> {
    /// For this session, with the options that the NIC has.
    pub(super) fn new(spec: &'a SessionSpec, capability: &Capability) -> Result<Self, WrongKey> {
        let material = spec.sa.key.material();
        let (key, salt) = material.split_last_chunk::<4>().ok_or(WrongKey)?;
        if !KEY_LENGTHS.contains(&material.len()) {
            return Err(WrongKey);
        }
        let outbound = spec.sa.direction == SaDirection::Outbound;
        let protocol_too = spec.kind == SessionKind::InlineProtocol;

        let mut ipsec = rte_security_ipsec_xform {
            spi: spec.sa.spi,
            // As it lies in memory.
            salt: u32::from_ne_bytes(*salt),
            direction: direction_of(spec.sa.direction),
            proto: esp::RTE_SECURITY_IPSEC_SA_PROTO_ESP,
            mode: mode::RTE_SECURITY_IPSEC_SA_MODE_TUNNEL,
            ..Default::default()
        };
        ipsec.options.set_esn(u32::from(spec.sa.esn));
        if let Some(nat_t) = spec.tunnel.nat_t {
            ipsec.options.set_udp_encap(1);
            ipsec.udp.sport = nat_t.source_port;
            ipsec.udp.dport = nat_t.destination_port;
        }
        set_outer(&mut ipsec, &spec.tunnel);
        if protocol_too {
            ipsec.options.set_stats(capability.0.stats());
            // Of RFC 6040: without it the outer header says that the path must not mark.
            ipsec.options.set_ecn(capability.0.ecn());
            if outbound {
                ipsec.options.set_copy_dscp(u32::from(spec.tunnel.dscp.is_none()));
                ipsec.options.set_copy_df(u32::from(spec.tunnel.df == DfPolicy::Copy));
            } else {
                ipsec.replay_win_sz = spec.sa.window;
            }
            ipsec.esn.value = spec.first;
            ipsec.life.packets_hard_limit = spec.most.packets;
            ipsec.life.bytes_hard_limit = spec.most.bytes;
        }

        let mut transform = rte_crypto_sym_xform { type_: xform::RTE_CRYPTO_SYM_XFORM_AEAD, ..Default::default() };
        let mut gcm = dpdk_sys::rte_crypto_aead_xform {
            op: if outbound { operation::RTE_CRYPTO_AEAD_OP_ENCRYPT } else { operation::RTE_CRYPTO_AEAD_OP_DECRYPT },
            algo: aead::RTE_CRYPTO_AEAD_AES_GCM,
            digest_length: DIGEST_LEN,
            aad_length: if spec.sa.esn { ESN_AAD_LEN } else { AAD_LEN },
            ..Default::default()
        };
        gcm.key.data = key.as_ptr();
        gcm.key.length = u16::try_from(key.len()).map_err(|_| WrongKey)?;
        gcm.iv.length = NONCE_LEN;
        transform.__bindgen_anon_1.aead = gcm;

        let mut conf = rte_security_session_conf {
            action_type: action_of(spec.kind),
            protocol: protocol::RTE_SECURITY_PROTOCOL_IPSEC,
            // What a session of inline crypto has deciphered is still ESP: nothing is told, see `port`.
            userdata: std::ptr::without_provenance_mut(if protocol_too { spec.told as usize } else { 0 }),
            ..Default::default()
        };
        conf.__bindgen_anon_1.ipsec = ipsec;
        Ok(Self { conf, transform, key: PhantomData })
    }

    /// Not both limits of a lifetime: cnxk counts one. That of the packets stays, which no other may take the place of: it keeps the
    /// sequence numbers inside what is reserved. False: there were not both.
    pub(super) fn without_bytes(&mut self) -> bool {
        let life = &mut self.ipsec_mut().life;
        let both = life.packets_hard_limit > 0 && life.bytes_hard_limit > 0;
        if both {
            life.bytes_hard_limit = 0;
        }
        both
    }

    /// For a call; what it points to lives as long as `self` stays where it is.
    pub(super) fn raw(&mut self) -> *mut rte_security_session_conf {
        self.conf.crypto_xform = &raw mut self.transform;
        &raw mut self.conf
    }

    fn ipsec_mut(&mut self) -> &mut rte_security_ipsec_xform {
        // SAFETY: the member that `new` has written; all are plain numbers.
        unsafe { &mut self.conf.__bindgen_anon_1.ipsec }
    }

    #[cfg(test)]
    pub(super) fn parts(
        &self,
    ) -> (&rte_security_session_conf, &rte_security_ipsec_xform, &dpdk_sys::rte_crypto_aead_xform) {
        // SAFETY: the members that `new` has written.
        unsafe { (&self.conf, &self.conf.__bindgen_anon_1.ipsec, &self.transform.__bindgen_anon_1.aead) }
    }
}

impl Drop for Conf<'_> {
    fn drop(&mut self) {
        self.ipsec_mut().salt = 0;
        // Keeps the write: nobody reads the memory after it.
        std::hint::black_box(&self.conf);
    }
}

fn set_outer(ipsec: &mut rte_security_ipsec_xform, tunnel: &IpsecTunnel) {
    let mut outer = dpdk_sys::rte_security_ipsec_tunnel_param__bindgen_ty_1__bindgen_ty_1 {
        dscp: tunnel.dscp.unwrap_or(0),
        // Of IPv6, whose packets have no such bit, the copy is set: that is for drivers which take this one then.
        df: u8::from(tunnel.df != DfPolicy::Clear),
        ttl: TTL,
        ..Default::default()
    };
    outer.src_ip.s_addr = u32::from_ne_bytes(tunnel.source.octets());
    outer.dst_ip.s_addr = u32::from_ne_bytes(tunnel.destination.octets());
    ipsec.tunnel.type_ = tunnel_type::RTE_SECURITY_IPSEC_TUNNEL_IPV4;
    ipsec.tunnel.__bindgen_anon_1.ipv4 = outer;
}
