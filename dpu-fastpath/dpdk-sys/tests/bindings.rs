//! The bindings link, and agree with C where the shim can tell.

use std::ffi::CStr;

#[test]
fn the_library_that_is_loaded_is_one_that_the_headers_are_of() {
    // SAFETY: returns a static string; needs no EAL.
    let version = unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned();
    let headers = format!("DPDK {}.{:02}", dpdk_sys::RTE_VER_YEAR, dpdk_sys::RTE_VER_MONTH);
    assert!(version.starts_with(&headers), "{version} is loaded, headers are of {headers}");
}

#[test]
fn items_of_a_pattern_begin_with_the_header_as_on_the_wire() {
    use std::mem::{offset_of, size_of};
    assert_eq!(size_of::<dpdk_sys::rte_ether_hdr>(), 14);
    assert_eq!(size_of::<dpdk_sys::rte_ipv4_hdr>(), 20);
    assert_eq!(size_of::<dpdk_sys::rte_ipv6_hdr>(), 40);
    assert_eq!(size_of::<dpdk_sys::rte_tcp_hdr>(), 20);
    assert_eq!(size_of::<dpdk_sys::rte_udp_hdr>(), 8);
    assert_eq!(size_of::<dpdk_sys::rte_sctp_hdr>(), 12);
    assert_eq!(offset_of!(dpdk_sys::rte_flow_item_ipv4, hdr), 0);
    assert_eq!(offset_of!(dpdk_sys::rte_flow_item_ipv6, hdr), 0);
    assert_eq!(offset_of!(dpdk_sys::rte_flow_item_mpls, ttl), 3);
}

#[test]
fn macros_and_enumerations_have_their_values() {
    assert_eq!(dpdk_sys::rte_flow_item_type::RTE_FLOW_ITEM_TYPE_END, 0);
    assert_eq!(dpdk_sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP, 1);
    assert_eq!(dpdk_sys::RTE_MBUF_F_RX_FDIR, 1 << 2);
    assert_ne!(dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP, 0);
}
