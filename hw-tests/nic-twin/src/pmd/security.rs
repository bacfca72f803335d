//! rte_security: sessions by their address, which is what rules and packets name them by.

use std::ffi::{c_int, c_uint, c_void};

use super::{
    ffi,
    flow::{self, with_nic},
    lower::Status,
};
use crate::model::{EINVAL, ENOTSUP, Expiry, Limits, OuterHeader, SessionConfig, SessionKind, SessionWay};

/// The operations, as the shim puts them into the context of each port.
// SAFETY: a table of optional functions, for which zeros are "none".
#[unsafe(export_name = "twin_security_operations")]
pub(super) static OPERATIONS: ffi::rte_security_ops = ffi::rte_security_ops {
    session_create: Some(session_create),
    session_update: Some(session_update),
    session_get_size: Some(session_get_size),
    session_stats_get: Some(session_stats_get),
    session_destroy: Some(session_destroy),
    set_pkt_metadata: Some(set_pkt_metadata),
    capabilities_get: Some(capabilities_get),
    ..unsafe { std::mem::zeroed() }
};

/// Sessions are the NIC's; their memory holds nothing of it.
const PRIVATE: c_uint = 8;

/// Where DPDK's tests put an IV that the driver is not to make, as drivers of other NICs know it: `0x1, 0x2, …`.
const IV: &str = "ETH_SEC_IV_OVR";

fn iv_of(text: &str) -> Option<[u8; 8]> {
    let octets = text.split(',').map(str::trim).filter(|octet| !octet.is_empty());
    let octets = octets.map(|octet| u8::from_str_radix(octet.strip_prefix("0x")?, 16).ok());
    octets.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

fn status(result: Result<(), i32>) -> Status {
    result.map_or_else(|errno| -errno, |()| 0)
}

/// # Safety
/// `key` of the flat session points to `key_length` octets.
unsafe fn config(flat: &ffi::twin_session) -> Option<SessionConfig> {
    if flat.key.is_null() || flat.key_length > 32 {
        return None;
    }
    // SAFETY: by the contract of this function.
    let key = unsafe { std::slice::from_raw_parts(flat.key, flat.key_length as usize) }.to_vec();
    Some(SessionConfig {
        kind: if flat.protocol != 0 { SessionKind::InlineProtocol } else { SessionKind::InlineCrypto },
        way: if flat.egress != 0 { SessionWay::Egress } else { SessionWay::Ingress },
        spi: flat.spi,
        key,
        salt: flat.salt,
        iv: if flat.iv_given != 0 { Some(iv_of(&std::env::var(IV).ok()?)?) } else { None },
        esn: flat.esn != 0,
        ecn: flat.ecn != 0,
        first: flat.first,
        window: flat.window,
        outer: OuterHeader {
            source: flat.source,
            destination: flat.destination,
            v6: (flat.v6 != 0).then_some((flat.source6, flat.destination6, flat.label)),
            dscp: flat.dscp,
            df: flat.df != 0,
            ttl: flat.ttl,
            copy_dscp: flat.copy_dscp != 0,
            copy_df: flat.copy_df != 0,
            udp: (flat.udp != 0).then_some((flat.udp_source, flat.udp_destination)),
        },
        soft: Limits { packets: flat.packets_soft, bytes: flat.bytes_soft },
        hard: Limits { packets: flat.packets_hard, bytes: flat.bytes_hard },
        userdata: flat.userdata,
    })
}

unsafe extern "C" fn session_create(
    _device: *mut c_void,
    conf: *mut ffi::rte_security_session_conf,
    session: *mut ffi::rte_security_session,
) -> c_int {
    if conf.is_null() {
        return -EINVAL;
    }
    // SAFETY: plain data, for which zeros are a value.
    let mut flat: ffi::twin_session = unsafe { std::mem::zeroed() };
    // SAFETY: the application's configuration, and a place for what is read of it.
    let read = unsafe { ffi::twin_session_read(conf, &mut flat) };
    if read != 0 {
        return read;
    }
    // SAFETY: the key is the application's, for as long as this call lasts.
    let Some(config) = (unsafe { config(&flat) }) else { return -EINVAL };
    status(with_nic(|nic| nic.open_session(session.addr() as u64, config)).unwrap_or(Err(ENOTSUP)))
}

/// The sequence number of what is sent is all that changes in a session's life.
unsafe extern "C" fn session_update(
    _device: *mut c_void,
    session: *mut ffi::rte_security_session,
    conf: *mut ffi::rte_security_session_conf,
) -> c_int {
    if conf.is_null() {
        return -EINVAL;
    }
    // SAFETY: plain data, for which zeros are a value.
    let mut flat: ffi::twin_session = unsafe { std::mem::zeroed() };
    // SAFETY: the application's configuration, and a place for what is read of it.
    let read = unsafe { ffi::twin_session_read(conf, &mut flat) };
    if read != 0 {
        return read;
    }
    status(with_nic(|nic| nic.renumber_session(session.addr() as u64, flat.first)).unwrap_or(Err(ENOTSUP)))
}

unsafe extern "C" fn session_destroy(_device: *mut c_void, session: *mut ffi::rte_security_session) -> c_int {
    status(with_nic(|nic| nic.close_session(session.addr() as u64)).unwrap_or(Err(ENOTSUP)))
}

/// Tells the application, through a port, which limits sessions have met. The NIC is free meanwhile: the application may ask it.
pub(super) fn tell_expiries(port: u16) {
    for (userdata, expiry) in with_nic(crate::model::Nic::take_expiries).unwrap_or_default() {
        let which = match expiry {
            Expiry::Packets => 0,
            Expiry::Bytes => 1,
            Expiry::PacketsHard => 2,
            Expiry::BytesHard => 3,
            Expiry::Numbers => 4,
        };
        // SAFETY: a port of this driver.
        unsafe { ffi::twin_expired(port, userdata, which) };
    }
}

unsafe extern "C" fn session_get_size(_device: *mut c_void) -> c_uint {
    PRIVATE
}

unsafe extern "C" fn session_stats_get(
    _device: *mut c_void,
    session: *mut ffi::rte_security_session,
    into: *mut ffi::rte_security_stats,
) -> c_int {
    let number = session.addr() as u64;
    let known = with_nic(|nic| Some((nic.session_stats(number)?, nic.session_way(number)?))).flatten();
    let Some((stats, way)) = known.filter(|_| !into.is_null()) else { return -EINVAL };
    let egress = c_int::from(way == SessionWay::Egress);
    let errors = stats.errors + stats.beyond;
    // SAFETY: the application's place for the answer.
    unsafe { ffi::twin_stats_write(into, egress, stats.packets, stats.bytes, errors, stats.replays) };
    0
}

unsafe extern "C" fn set_pkt_metadata(
    _device: *mut c_void,
    session: *mut ffi::rte_security_session,
    packet: *mut ffi::rte_mbuf,
    _parameters: *mut c_void,
) -> c_int {
    // SAFETY: an mbuf of the application's; the place was registered with the first port.
    unsafe { ffi::twin_mbuf_set_session(packet, session.addr() as u64) };
    0
}

unsafe extern "C" fn capabilities_get(_device: *mut c_void) -> *const ffi::rte_security_capability {
    let make = |nic: &mut crate::model::Nic| {
        let profile = nic.profile();
        let kinds = profile.sessions.iter().fold(0, |kinds, kind| {
            kinds
                | match kind {
                    SessionKind::InlineCrypto => 1,
                    SessionKind::InlineProtocol => 2,
                }
        });
        // SAFETY: no pointers go in; the list lives as long as the process, and the NIC's lock is held.
        unsafe {
            let key = u32::try_from(profile.max_key).unwrap_or(0);
            ffi::twin_capabilities(kinds, c_int::from(profile.esn), profile.max_window, key)
        }
    };
    flow::with_nic(make).unwrap_or(std::ptr::null())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said to a session with these options and without a cipher: EINVAL, for that, where the options are all done.
    fn read(kind: u32, set: impl FnOnce(&mut ffi::rte_security_ipsec_sa_options)) -> c_int {
        // SAFETY: plain data, for which zeros are a value.
        let mut conf: ffi::rte_security_session_conf = unsafe { std::mem::zeroed() };
        conf.action_type = kind;
        conf.protocol = ffi::RTE_SECURITY_PROTOCOL_IPSEC;
        // SAFETY: all of the union is zeros.
        let ipsec = unsafe { &mut conf.__bindgen_anon_1.ipsec };
        ipsec.proto = ffi::RTE_SECURITY_IPSEC_SA_PROTO_ESP;
        ipsec.mode = ffi::RTE_SECURITY_IPSEC_SA_MODE_TUNNEL;
        set(&mut ipsec.options);
        // SAFETY: plain data, for which zeros are a value.
        let mut flat: ffi::twin_session = unsafe { std::mem::zeroed() };
        // SAFETY: both live through the call.
        unsafe { ffi::twin_session_read(&conf, &mut flat) }
    }

    #[test]
    fn an_iv_from_outside_has_eight_octets() {
        assert_eq!(iv_of("0x0, 0x1, 0x2, 0xa, 0xb, 0xff, 0x10, 0x7, "), Some([0, 1, 2, 10, 11, 255, 16, 7]));
        for no in ["", "0x0", "0,1,2,3,4,5,6,7", "0x0, 0x1, 0x2, 0xa, 0xb, 0x100, 0x10, 0x7"] {
            assert_eq!(iv_of(no), None, "{no}");
        }
    }

    #[test]
    fn an_option_that_is_not_done_is_refused() {
        type Set = fn(&mut ffi::rte_security_ipsec_sa_options);
        let (crypto, protocol) =
            (ffi::RTE_SECURITY_ACTION_TYPE_INLINE_CRYPTO, ffi::RTE_SECURITY_ACTION_TYPE_INLINE_PROTOCOL);
        let never: [Set; 7] = [
            |options| options.set_dec_ttl(1),
            |options| options.set_copy_flabel(1),
            |options| options.set_tunnel_hdr_verify(1),
            |options| options.set_udp_ports_verify(1),
            |options| options.set_ip_csum_enable(1),
            |options| options.set_l4_csum_enable(1),
            |options| options.set_ip_reassembly_en(1),
        ];
        let by_protocol: [Set; 5] = [
            |options| options.set_iv_gen_disable(1),
            |options| options.set_esn(1),
            |options| options.set_ecn(1),
            |options| options.set_copy_dscp(1),
            |options| options.set_copy_df(1),
        ];
        for kind in [crypto, protocol] {
            assert_eq!(read(kind, |_| {}), -EINVAL);
            assert_eq!(read(kind, |options| options.set_udp_encap(1)), -EINVAL);
            for (number, set) in never.iter().enumerate() {
                assert_eq!(read(kind, set), -ENOTSUP, "kind {kind}, option {number}");
            }
        }
        for (number, set) in by_protocol.iter().enumerate() {
            assert_eq!(read(crypto, set), -ENOTSUP, "option {number}");
            assert_eq!(read(protocol, set), -EINVAL, "option {number}");
        }
    }
}
