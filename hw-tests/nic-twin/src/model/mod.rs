//! A software NIC: rule tables and their interpreter, from the rte_flow guide of DPDK 22.11.

mod action;
mod error;
mod frame;
mod item;

pub use action::{Action, ActionKind, Attr, FieldId, IndirectId, Modify, ModifyOp, PortId};
pub use error::{
    Cause, EAGAIN, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOSYS, ENOTSUP, Errno, ErrorKind, FlowError,
};
pub use frame::Frame;
pub use item::{ETH_HAS_VLAN, INTEGRITY_BITS, IPV6_HAS_EXT, Item, ItemKind, MAX_SPEC, VLAN_HAS_MORE};
