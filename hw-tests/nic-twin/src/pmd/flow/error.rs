//! Refusals, as `struct rte_flow_error` has them.

use std::{
    ffi::{CStr, c_int, c_void},
    ptr,
};

use crate::{
    model::{Cause, ErrorKind, FlowError},
    pmd::ffi,
};

/// A refusal on its way to the application.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    errno: c_int,
    kind: ffi::rte_flow_error_type,
    cause: *const c_void,
    message: &'static CStr,
}

impl Refusal {
    /// A refusal that no item or action is to blame for.
    pub(super) const fn new(errno: c_int, message: &'static CStr) -> Refusal {
        Refusal { errno, kind: ffi::RTE_FLOW_ERROR_TYPE_UNSPECIFIED, cause: ptr::null(), message }
    }

    /// A handle that is none, or none any more.
    pub(super) const fn handle(errno: c_int, message: &'static CStr) -> Refusal {
        Refusal { errno, kind: ffi::RTE_FLOW_ERROR_TYPE_HANDLE, cause: ptr::null(), message }
    }

    /// The action of this index is to blame.
    pub(super) const fn action(errno: c_int, message: &'static CStr) -> Refusal {
        Refusal { errno, kind: ffi::RTE_FLOW_ERROR_TYPE_ACTION_CONF, cause: ptr::null(), message }
    }

    /// The NIC's refusal of a rule.
    ///
    /// # Safety
    /// `pattern` and `actions` are null, or the lists that the error's index counts in.
    pub(super) unsafe fn of(
        error: FlowError,
        pattern: *const ffi::rte_flow_item,
        actions: *const ffi::rte_flow_action,
    ) -> Refusal {
        let cause = match error.cause {
            Cause::None => ptr::null(),
            Cause::Item(_) if pattern.is_null() => ptr::null(),
            Cause::Action(_) if actions.is_null() => ptr::null(),
            // SAFETY: see above.
            Cause::Item(index) => unsafe { pattern.add(index) }.cast(),
            // SAFETY: see above.
            Cause::Action(index) => unsafe { actions.add(index) }.cast(),
        };
        Refusal { errno: error.errno, kind: kind(error.kind), cause, message: error.message }
    }

    /// Tells the application; the negative errno.
    ///
    /// # Safety
    /// `into` is null or the application's place for an error.
    pub(super) unsafe fn tell(self, into: *mut ffi::rte_flow_error) -> c_int {
        // SAFETY: the message lives as long as the program; DPDK accepts null.
        unsafe { ffi::rte_flow_error_set(into, self.errno, self.kind, self.cause, self.message.as_ptr()) }
    }
}

impl From<FlowError> for Refusal {
    fn from(error: FlowError) -> Refusal {
        // SAFETY: without lists nothing is counted.
        unsafe { Refusal::of(error, ptr::null(), ptr::null()) }
    }
}

fn kind(kind: ErrorKind) -> ffi::rte_flow_error_type {
    match kind {
        ErrorKind::Unspecified => ffi::RTE_FLOW_ERROR_TYPE_UNSPECIFIED,
        ErrorKind::Handle => ffi::RTE_FLOW_ERROR_TYPE_HANDLE,
        ErrorKind::AttrGroup => ffi::RTE_FLOW_ERROR_TYPE_ATTR_GROUP,
        ErrorKind::AttrPriority => ffi::RTE_FLOW_ERROR_TYPE_ATTR_PRIORITY,
        ErrorKind::AttrIngress => ffi::RTE_FLOW_ERROR_TYPE_ATTR_INGRESS,
        ErrorKind::AttrEgress => ffi::RTE_FLOW_ERROR_TYPE_ATTR_EGRESS,
        ErrorKind::AttrTransfer => ffi::RTE_FLOW_ERROR_TYPE_ATTR_TRANSFER,
        ErrorKind::Attr => ffi::RTE_FLOW_ERROR_TYPE_ATTR,
        ErrorKind::ItemNum => ffi::RTE_FLOW_ERROR_TYPE_ITEM_NUM,
        ErrorKind::ItemSpec => ffi::RTE_FLOW_ERROR_TYPE_ITEM_SPEC,
        ErrorKind::ItemLast => ffi::RTE_FLOW_ERROR_TYPE_ITEM_LAST,
        ErrorKind::ItemMask => ffi::RTE_FLOW_ERROR_TYPE_ITEM_MASK,
        ErrorKind::Item => ffi::RTE_FLOW_ERROR_TYPE_ITEM,
        ErrorKind::ActionNum => ffi::RTE_FLOW_ERROR_TYPE_ACTION_NUM,
        ErrorKind::ActionConf => ffi::RTE_FLOW_ERROR_TYPE_ACTION_CONF,
        ErrorKind::Action => ffi::RTE_FLOW_ERROR_TYPE_ACTION,
    }
}
