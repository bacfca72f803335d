//! What a NIC answers when it refuses: the three parts of `struct rte_flow_error`.

use std::ffi::CStr;

/// An errno value of Linux, positive.
pub type Errno = i32;

/// No such rule or indirect action.
pub const ENOENT: Errno = 2;
/// More than a rule of the NIC holds.
pub const E2BIG: Errno = 7;
/// Not ready: ask again.
pub const EAGAIN: Errno = 11;
/// Not enough memory, or a resource of the NIC is used up.
pub const ENOMEM: Errno = 12;
/// In use.
pub const EBUSY: Errno = 16;
/// Collides with a rule that exists.
pub const EEXIST: Errno = 17;
/// No such port.
pub const ENODEV: Errno = 19;
/// Unknown or invalid rule.
pub const EINVAL: Errno = 22;
/// The table is full.
pub const ENOSPC: Errno = 28;
/// The NIC has no such function at all.
pub const ENOSYS: Errno = 38;
/// Valid, and more than this NIC does.
pub const ENOTSUP: Errno = 95;

/// What was at fault: `enum rte_flow_error_type` without its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Cause unspecified.
    Unspecified,
    /// The rule's handle.
    Handle,
    /// Group.
    AttrGroup,
    /// Priority.
    AttrPriority,
    /// Ingress bit.
    AttrIngress,
    /// Egress bit.
    AttrEgress,
    /// Transfer bit.
    AttrTransfer,
    /// The attributes together.
    Attr,
    /// Length of the pattern.
    ItemNum,
    /// An item's spec.
    ItemSpec,
    /// An item's last.
    ItemLast,
    /// An item's mask.
    ItemMask,
    /// An item.
    Item,
    /// Number of actions.
    ActionNum,
    /// An action's configuration.
    ActionConf,
    /// An action.
    Action,
}

/// The object at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// None in particular.
    None,
    /// The item of this index in the pattern as given.
    Item(usize),
    /// The action of this index in the list as given.
    Action(usize),
}

/// A refusal. The message is a C string constant because `rte_flow_error::message` points to one that lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} ({kind:?}, {cause:?}, errno {errno})", message.to_string_lossy())]
pub struct FlowError {
    /// The errno, positive.
    pub errno: Errno,
    /// Which part of the request.
    pub kind: ErrorKind,
    /// Which object.
    pub cause: Cause,
    /// For people.
    pub message: &'static CStr,
}

impl FlowError {
    /// An error about no item or action in particular.
    pub const fn new(errno: Errno, kind: ErrorKind, message: &'static CStr) -> FlowError {
        FlowError { errno, kind, cause: Cause::None, message }
    }

    /// An error about the item of this index.
    pub const fn item(errno: Errno, kind: ErrorKind, index: usize, message: &'static CStr) -> FlowError {
        FlowError { errno, kind, cause: Cause::Item(index), message }
    }

    /// An error about the action of this index.
    pub const fn action(errno: Errno, kind: ErrorKind, index: usize, message: &'static CStr) -> FlowError {
        FlowError { errno, kind, cause: Cause::Action(index), message }
    }
}
