//! Bindings to the public API of the DPDK that is installed: EAL, ethdev, mbuf, mempool, rte_flow, rte_security, ring, log.
//!
//! They are made from its headers when this crate is built (22.11 up to, but without, 25): no header of DPDK and no binding made
//! from one is part of the source. What the bindings hold is documented at <https://doc.dpdk.org/api/>; the names are DPDK's.
//!
//! Built and tested with 22.11 (Debian 12) and 24.11 (Debian 13, `hw-tests/debian-13.sh`); not with the releases in between.
//!
//! - An enumeration is a module of constants: `rte_flow_item_type::RTE_FLOW_ITEM_TYPE_ETH`, with `rte_flow_item_type::Type`.
//! - Static inline functions (`rte_eth_rx_burst`, `rte_pktmbuf_alloc` and so on) come from a shim in C under their own names, as do
//!   macros that bindgen cannot evaluate (`RTE_ETH_RX_OFFLOAD_*`, `RTE_MBUF_F_*`). `rte_errno` is [`rte_errno_get`], and
//!   `rte_pktmbuf_mtod` returns the address of the first octet.
//! - Drivers are plug-ins that EAL loads from the folder it was built for; only `net_ring` and the vdev bus are linked, and only by
//!   who calls their functions.
//!
//! What differs between versions, where Rust code sees it (the build script sets `dpdk_23_11` and so on for this crate, and
//! `DEP_DPDK_VERSION` for the build scripts of crates that use it):
//!
//! - 23.11: the context of rte_security is `void`; [`rte_security_set_pkt_metadata`] takes `*mut c_void` in every version.
//!   `rte_flow_async_create` and its kin call the driver by `flow_fp_ops` (24.03), same signature.
//! - 24.07: `rte_mbuf` has further unnamed unions and structures around its fields: read and write them by the shim
//!   ([`rte_mbuf_view_get`], [`rte_mbuf_mark_set`], [`rte_mbuf_vlan_tci_set`], [`rte_pktmbuf_chain`]).
//! - 24.11: IPv6 addresses are `rte_ipv6_addr` instead of an array of 16 octets, of the same layout.
//! - Fields of `rte_flow_item_vlan` beside `hdr` are deprecated: use `hdr`, or the octets at offset 0. `rte_flow_item_eth` is opaque in
//!   every version, as bindgen lays its bit-field out wrongly: it is the header, and `has_vlan` is bit 0 of octet 14.

/// The generated part.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    dead_code,
    unreachable_pub,
    unnecessary_transmutes,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::undocumented_unsafe_blocks,
    rustdoc::all
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
