//! Names of drivers.

use std::{
    collections::BTreeSet,
    ffi::CStr,
    sync::{Mutex, PoisonError},
};

use dpdk_sys as sys;

/// Name of the driver of a port.
pub(super) fn driver_of(port: u16) -> &'static str {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: a place for the answer. When there is none, it names no driver.
    unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    driver_name(&info)
}

/// The driver's name, kept for ever: there are few.
pub(super) fn driver_name(info: &sys::rte_eth_dev_info) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    if info.driver_name.is_null() {
        return "net_dpdk";
    }
    // SAFETY: not null, and a C string of the driver.
    let name = unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy();
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(&*name) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_owned().into_boxed_str());
    names.insert(name);
    name
}
