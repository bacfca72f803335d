//! What drivers are asked and told, without one.

use std::{ptr::NonNull, sync::Arc};

use dpdk_sys as sys;
use offload_engine::{SessionKind, SessionSpec};
use offload_rules::{
    SaId, VifId, VrfId,
    forwarding::{DfPolicy, IpsecTunnel, Lifetime, NatT, Sa, SaDirection, SaKey},
    lower::{Meta, Session},
};

use super::{
    Sessions,
    capability::Capability,
    conf::{Conf, WrongKey},
};

fn sa(direction: SaDirection, key: usize, esn: bool, window: u32) -> Sa {
    Sa {
        id: SaId::new(1).unwrap(),
        spi: 0x0102_0304,
        direction,
        key: SaKey::new((1..=key as u8).collect()),
        esn,
        window,
        soft: Lifetime::default(),
        hard: Lifetime::default(),
        first: 1,
        worker: 0,
    }
}

fn spec(kind: SessionKind, sa: Sa) -> SessionSpec {
    SessionSpec {
        port: VifId::new(2).unwrap(),
        kind,
        sa: Arc::new(sa),
        tunnel: IpsecTunnel {
            source: [198, 51, 100, 1].into(),
            destination: [198, 51, 100, 2].into(),
            nat_t: Some(NatT { source_port: 4500, destination_port: 61234, keepalive_secs: 0 }),
            outbound: vec![],
            inbound: vec![],
            vrf: VrfId::new(1).unwrap(),
            df: DfPolicy::Copy,
            dscp: None,
            ike: false,
        },
        first: 700,
        most: Lifetime { packets: 1000, bytes: 2_000_000, seconds: 30 },
        told: Meta::Opened(VifId::new(4111).unwrap()).bits(),
    }
}

/// AES-GCM with keys of 16 and 32 octets.
fn algorithms() -> [sys::rte_cryptodev_capabilities; 2] {
    let range = |min, max, increment| sys::rte_crypto_param_range { min, max, increment };
    let mut gcm = sys::rte_cryptodev_capabilities {
        op: sys::rte_crypto_op_type::RTE_CRYPTO_OP_TYPE_SYMMETRIC,
        ..Default::default()
    };
    let mut symmetric = sys::rte_cryptodev_symmetric_capability {
        xform_type: sys::rte_crypto_sym_xform_type::RTE_CRYPTO_SYM_XFORM_AEAD,
        ..Default::default()
    };
    symmetric.__bindgen_anon_1.aead = sys::rte_cryptodev_symmetric_capability__bindgen_ty_1__bindgen_ty_3 {
        algo: sys::rte_crypto_aead_algorithm::RTE_CRYPTO_AEAD_AES_GCM,
        block_size: 16,
        key_size: range(16, 32, 16),
        digest_size: range(16, 16, 0),
        aad_size: range(8, 12, 4),
        iv_size: range(12, 12, 0),
    };
    gcm.__bindgen_anon_1.sym = symmetric;
    [gcm, sys::rte_cryptodev_capabilities::default()]
}

/// ESP in tunnel mode one way, with UDP, ESN and a window of 1024.
fn capability(
    kind: SessionKind,
    direction: SaDirection,
    algorithms: &[sys::rte_cryptodev_capabilities],
) -> sys::rte_security_capability {
    let mut capability = sys::rte_security_capability {
        action: super::constants::action_of(kind),
        protocol: sys::rte_security_session_protocol::RTE_SECURITY_PROTOCOL_IPSEC,
        crypto_capabilities: algorithms.as_ptr(),
        ol_flags: sys::RTE_SECURITY_TX_OLOAD_NEED_MDATA,
        ..Default::default()
    };
    let mut ipsec = sys::rte_security_capability__bindgen_ty_1__bindgen_ty_1 {
        proto: sys::rte_security_ipsec_sa_protocol::RTE_SECURITY_IPSEC_SA_PROTO_ESP,
        mode: sys::rte_security_ipsec_sa_mode::RTE_SECURITY_IPSEC_SA_MODE_TUNNEL,
        direction: super::constants::direction_of(direction),
        replay_win_sz_max: 1024,
        ..Default::default()
    };
    ipsec.options.set_esn(1);
    ipsec.options.set_udp_encap(1);
    ipsec.options.set_copy_df(1);
    ipsec.options.set_copy_dscp(1);
    ipsec.options.set_stats(1);
    capability.__bindgen_anon_1.ipsec = ipsec;
    capability
}

fn change(
    capability: &mut sys::rte_security_capability,
    change: impl FnOnce(&mut sys::rte_security_capability__bindgen_ty_1__bindgen_ty_1),
) {
    // SAFETY: the member that `capability` writes.
    change(unsafe { &mut capability.__bindgen_anon_1.ipsec });
}

fn find(capabilities: &[sys::rte_security_capability], kind: SessionKind, sa: &Sa) -> Option<Capability> {
    let list: Vec<_> = capabilities.iter().copied().chain([sys::rte_security_capability::default()]).collect();
    // SAFETY: the list ends without action, and lists of algorithms are those of the tests.
    unsafe { Capability::find(list.as_ptr(), kind, sa) }
}

#[test]
fn a_session_is_offered_for_what_the_drivers_capabilities_name() {
    let algorithms = algorithms();
    let (protocol, crypto) = (SessionKind::InlineProtocol, SessionKind::InlineCrypto);
    let (outbound, inbound) = (SaDirection::Outbound, SaDirection::Inbound);
    let there = [capability(protocol, inbound, &algorithms), capability(crypto, outbound, &algorithms)];
    let offered = |kind, sa: &Sa| find(&there, kind, sa).is_some();
    for key in [20, 36] {
        assert!(offered(protocol, &sa(inbound, key, true, 1024)), "{key}");
        assert!(offered(crypto, &sa(outbound, key, false, 0)), "{key}");
    }
    assert!(!offered(protocol, &sa(inbound, 28, false, 1024)), "192 bits are no multiple");
    assert!(!offered(protocol, &sa(inbound, 20, false, 2048)), "the window is too large");
    assert!(!offered(protocol, &sa(outbound, 20, false, 0)) && !offered(crypto, &sa(inbound, 20, false, 64)));
    assert!(find(&[], protocol, &sa(inbound, 20, false, 64)).is_none());
    // SAFETY: null is allowed.
    assert!(unsafe { Capability::find(std::ptr::null(), protocol, &sa(inbound, 20, false, 64)) }.is_none());
}

#[test]
fn what_a_driver_does_another_way_is_not_offered() {
    let algorithms = algorithms();
    let outbound = sa(SaDirection::Outbound, 20, true, 0);
    let inbound = sa(SaDirection::Inbound, 20, true, 64);
    let (protocol, crypto) = (SessionKind::InlineProtocol, SessionKind::InlineCrypto);
    let of = |kind, sa: &Sa, flags: Option<u32>, edit: fn(&mut sys::rte_security_capability)| {
        let mut capability = capability(kind, sa.direction, &algorithms);
        capability.ol_flags = flags.unwrap_or(capability.ol_flags);
        edit(&mut capability);
        find(&[capability], kind, sa).is_some()
    };
    assert!(of(crypto, &outbound, None, |_| {}) && of(crypto, &inbound, Some(0), |_| {}));
    assert!(!of(crypto, &outbound, Some(0), |_| {}), "packets do not bring their session");
    let trailer = sys::RTE_SECURITY_TX_OLOAD_NEED_MDATA | sys::RTE_SECURITY_TX_HW_TRAILER_OFFLOAD;
    assert!(!of(crypto, &outbound, Some(trailer), |_| {}), "the NIC writes the trailer again");
    assert!(of(protocol, &outbound, Some(trailer), |_| {}));
    assert!(!of(crypto, &inbound, Some(sys::RTE_SECURITY_RX_HW_TRAILER_OFFLOAD), |_| {}), "the trailer is gone");
    assert!(!of(protocol, &outbound, None, |capability| change(capability, |ipsec| ipsec.options.set_esn(0))));
    assert!(!of(protocol, &outbound, None, |capability| change(capability, |ipsec| {
        ipsec.mode = sys::rte_security_ipsec_sa_mode::RTE_SECURITY_IPSEC_SA_MODE_TRANSPORT;
    })));
    assert!(!of(protocol, &outbound, None, |capability| change(capability, |ipsec| {
        ipsec.proto = sys::rte_security_ipsec_sa_protocol::RTE_SECURITY_IPSEC_SA_PROTO_AH;
    })));
    assert!(!of(protocol, &outbound, None, |capability| {
        capability.protocol = sys::rte_security_session_protocol::RTE_SECURITY_PROTOCOL_MACSEC;
    }));
    assert!(!of(protocol, &outbound, None, |capability| capability.crypto_capabilities = std::ptr::null()));
}

#[test]
fn what_a_tunnel_wants_and_the_nic_has_not_is_told() {
    let algorithms = algorithms();
    let lacks = |direction, edit: fn(&mut sys::rte_security_ipsec_sa_options), tunnel: fn(&mut IpsecTunnel)| {
        let kind = SessionKind::InlineProtocol;
        let mut capability = capability(kind, direction, &algorithms);
        change(&mut capability, |ipsec| edit(&mut ipsec.options));
        let mut spec = spec(kind, sa(direction, 20, false, 64));
        tunnel(&mut spec.tunnel);
        find(&[capability], kind, &spec.sa).unwrap().lacks(&spec)
    };
    let (outbound, inbound) = (SaDirection::Outbound, SaDirection::Inbound);
    assert_eq!(lacks(outbound, |_| {}, |_| {}), None);
    assert!(lacks(inbound, |options| options.set_udp_encap(0), |_| {}).unwrap().contains("UDP"));
    assert_eq!(lacks(inbound, |options| options.set_udp_encap(0), |tunnel| tunnel.nat_t = None), None);
    assert!(lacks(outbound, |options| options.set_copy_dscp(0), |_| {}).unwrap().contains("DSCP"));
    assert_eq!(lacks(outbound, |options| options.set_copy_dscp(0), |tunnel| tunnel.dscp = Some(46)), None);
    assert_eq!(
        lacks(inbound, |options| options.set_copy_dscp(0), |_| {}),
        None,
        "of what is received nothing is copied"
    );
    assert!(lacks(outbound, |options| options.set_copy_df(0), |_| {}).unwrap().contains("fragment"));
    assert_eq!(lacks(outbound, |options| options.set_copy_df(0), |tunnel| tunnel.df = DfPolicy::Set), None);
}

fn supported(kind: SessionKind, sa: &Sa) -> Capability {
    find(&[capability(kind, sa.direction, &algorithms())], kind, sa).unwrap()
}

#[test]
fn an_egress_session_has_key_salt_numbers_and_outer_headers() {
    let spec = spec(SessionKind::InlineProtocol, sa(SaDirection::Outbound, 36, true, 0));
    let mut conf = Conf::new(&spec, &supported(spec.kind, &spec.sa)).unwrap();
    let raw = conf.raw();
    // SAFETY: `conf` is alive, and stays where it is.
    let transform = unsafe { &*(*raw).crypto_xform };
    assert!(transform.next.is_null());
    let (conf, ipsec, gcm) = conf.parts();
    assert_eq!(conf.action_type, sys::rte_security_session_action_type::RTE_SECURITY_ACTION_TYPE_INLINE_PROTOCOL);
    assert_eq!(conf.userdata.addr(), spec.told as usize);
    assert_eq!((ipsec.spi, ipsec.salt.to_ne_bytes()), (0x0102_0304, [33, 34, 35, 36]));
    assert_eq!(ipsec.direction, sys::rte_security_ipsec_sa_direction::RTE_SECURITY_IPSEC_SA_DIR_EGRESS);
    let options = ipsec.options;
    assert_eq!((options.esn(), options.udp_encap(), options.copy_dscp(), options.copy_df()), (1, 1, 1, 1));
    assert_eq!((options.stats(), options.ecn()), (1, 0), "as offered");
    assert_eq!((ipsec.udp.sport, ipsec.udp.dport), (4500, 61234));
    // SAFETY: the tunnel is of IPv4, and the number was written as one.
    let (outer, first) = unsafe { (ipsec.tunnel.__bindgen_anon_1.ipv4, ipsec.esn.value) };
    assert_eq!(outer.src_ip.s_addr.to_ne_bytes(), [198, 51, 100, 1]);
    assert_eq!(outer.dst_ip.s_addr.to_ne_bytes(), [198, 51, 100, 2]);
    assert_eq!((outer.ttl, outer.dscp, outer.df), (64, 0, 1));
    assert_eq!((first, ipsec.replay_win_sz), (700, 0));
    assert_eq!((ipsec.life.packets_hard_limit, ipsec.life.bytes_hard_limit), (1000, 2_000_000));
    assert_eq!(gcm.op, sys::rte_crypto_aead_operation::RTE_CRYPTO_AEAD_OP_ENCRYPT);
    assert_eq!((gcm.iv.length, gcm.digest_length, gcm.aad_length), (12, 16, 12));
    // SAFETY: the key is the SA's, which `spec` has.
    let key = unsafe { std::slice::from_raw_parts(gcm.key.data, usize::from(gcm.key.length)) };
    assert_eq!(key, (1..=32).collect::<Vec<u8>>());
    assert_eq!(key.as_ptr(), spec.sa.key.material().as_ptr(), "no copy of the key");
    // ixgbe_ipsec.c, ixgbe_crypto_create_session: the salt is read from behind the key.
    // SAFETY: the material has four octets more than the key.
    let salt = unsafe { std::slice::from_raw_parts(gcm.key.data.add(key.len()), 4) };
    assert_eq!(salt, [33, 34, 35, 36]);
}

#[test]
fn a_session_to_receive_with_has_the_window_and_tells_the_tunnel() {
    let mut spec = spec(SessionKind::InlineProtocol, sa(SaDirection::Inbound, 20, false, 512));
    spec.tunnel.nat_t = None;
    let conf = Conf::new(&spec, &supported(spec.kind, &spec.sa)).unwrap();
    let (conf, ipsec, gcm) = conf.parts();
    assert_eq!(conf.userdata.addr(), spec.told as usize);
    assert_eq!((ipsec.replay_win_sz, ipsec.options.udp_encap(), ipsec.options.esn()), (512, 0, 0));
    assert_eq!((ipsec.options.copy_dscp(), ipsec.options.copy_df()), (0, 0));
    assert_eq!(gcm.op, sys::rte_crypto_aead_operation::RTE_CRYPTO_AEAD_OP_DECRYPT);
    assert_eq!((gcm.key.length, gcm.aad_length), (16, 8));
}

#[test]
fn inline_crypto_leaves_numbers_window_headers_lifetime_to_software() {
    for direction in [SaDirection::Outbound, SaDirection::Inbound] {
        let spec = spec(SessionKind::InlineCrypto, sa(direction, 20, false, 64));
        let conf = Conf::new(&spec, &supported(spec.kind, &spec.sa)).unwrap();
        let (conf, ipsec, _) = conf.parts();
        assert_eq!(conf.action_type, sys::rte_security_session_action_type::RTE_SECURITY_ACTION_TYPE_INLINE_CRYPTO);
        assert!(conf.userdata.is_null(), "what it has deciphered is still ESP");
        // SAFETY: never written, or as a number.
        assert_eq!((ipsec.replay_win_sz, unsafe { ipsec.esn.value }), (0, 0));
        assert_eq!((ipsec.options.copy_dscp(), ipsec.options.copy_df(), ipsec.options.stats()), (0, 0, 0));
        assert_eq!((ipsec.life.packets_hard_limit, ipsec.life.bytes_hard_limit), (0, 0));
    }
}

#[test]
fn of_two_limits_the_octets_go_when_a_driver_takes_one() {
    let mut spec = spec(SessionKind::InlineProtocol, sa(SaDirection::Outbound, 20, false, 0));
    let mut conf = Conf::new(&spec, &supported(spec.kind, &spec.sa)).unwrap();
    assert!(conf.without_bytes());
    let life = conf.parts().1.life;
    assert_eq!((life.packets_hard_limit, life.bytes_hard_limit), (1000, 0));
    assert!(!conf.without_bytes(), "once");
    drop(conf);
    spec.most.packets = 0;
    let mut conf = Conf::new(&spec, &supported(spec.kind, &spec.sa)).unwrap();
    assert!(!conf.without_bytes());
    assert_eq!(conf.parts().1.life.bytes_hard_limit, 2_000_000);
}

#[test]
fn a_key_of_another_length_is_refused() {
    let there = supported(SessionKind::InlineCrypto, &sa(SaDirection::Outbound, 20, false, 0));
    for length in [0, 3, 4, 16, 19, 21, 32, 37] {
        let spec = spec(SessionKind::InlineCrypto, sa(SaDirection::Outbound, length, false, 0));
        assert_eq!(Conf::new(&spec, &there).err(), Some(WrongKey), "{length}");
    }
}

#[test]
fn a_number_finds_its_session_on_its_port_alone() {
    let sessions = Sessions::default();
    let mut memory = 0_u64;
    let session = NonNull::from(&mut memory).cast();
    let far = (1 << 16) + 9;
    sessions.pretend(Session(far), 3, session);
    assert_eq!(sessions.of_port(far, 3), Some(session));
    assert_eq!(sessions.of_port(far, 4), None, "another port");
    assert_eq!(sessions.of_port(9, 3), None, "the same slot, another number");
    assert_eq!(sessions.of_port(far + 1, 3), None);
    sessions.hide_all();
    assert_eq!(sessions.of_port(far, 3), None, "nobody sends with it any more");
    assert_eq!(sessions.pointer(Session(far)), Some(session), "rules may still name it");
}

#[test]
fn a_session_that_rules_name_is_not_closed() {
    let sessions = Sessions::default();
    let mut memory = 0_u64;
    sessions.pretend(Session(5), 60000, NonNull::from(&mut memory).cast());
    sessions.hold(Session(5));
    sessions.hold(Session(5));
    sessions.release(Session(5));
    assert_eq!(sessions.close(Session(5)).unwrap_err().errno, libc::EBUSY);
    assert!(sessions.of_port(5, 60000).is_some());
    sessions.release(Session(5));
    assert_eq!(sessions.close(Session(5)).unwrap_err().errno, libc::ENODEV, "there is no such port");
    assert!(sessions.of_port(5, 60000).is_none(), "whatever the driver says, nobody sends with it");
    assert_eq!(sessions.close(Session(6)).unwrap_err().errno, libc::ENOENT);
    assert_eq!(sessions.close_all(), Ok(()), "a port that is gone has taken its sessions along");
    assert_eq!(sessions.close(Session(5)).unwrap_err().errno, libc::ENOENT);
}

#[test]
fn a_slot_is_one_sessions_at_a_time() {
    let sessions = Sessions::default();
    let mut memory = 0_u64;
    sessions.pretend(Session(5), 60000, NonNull::from(&mut memory).cast());
    let spec = spec(SessionKind::InlineProtocol, sa(SaDirection::Outbound, 20, false, 0));
    for number in [5, (1 << 16) + 5] {
        assert_eq!(sessions.open(Session(number), 60000, &spec).unwrap_err().errno, libc::EEXIST, "{number}");
    }
    assert_eq!(sessions.open(Session(6), 60000, &spec).unwrap_err().errno, libc::ENOTSUP, "no IPsec there");
    assert!(Sessions::kinds(60000, &spec.sa).is_empty());
}

/// ixgbe_ipsec.c of DPDK 22.11 keeps a pointer to the key and reads it when the session's rule is made, long after the call that makes
/// the session.
#[test]
fn the_key_stays_in_its_memory_as_long_as_the_session_is_open() {
    let sessions = Sessions::default();
    let mut memory = 0_u64;
    let sa = sa(SaDirection::Inbound, 20, false, 64);
    let at = sa.key.material().as_ptr();
    sessions.pretend_with(Session(7), 60000, NonNull::from(&mut memory).cast(), sa.key.clone());
    let last = sa.key.clone();
    drop(sa);
    assert!(sessions.pointer(Session(7)).is_some());
    assert_eq!((last.holders(), last.material().as_ptr()), (2, at), "the session's, and this one");
    assert!(sessions.close_all().is_ok());
    assert_eq!(last.holders(), 1, "nobody needs it any more: the last one overwrites it");
}
