//! Indirect actions: COUNT and AGE that rules share, at once or by a queue.

use std::ffi::{c_int, c_void};

use super::{
    actions,
    error::Refusal,
    queue::{Operation, Work},
    state::{Handle, Shared, World},
    sync::{answer_age, answer_count, made, port_of, status, wants_reset, with},
};
use crate::{
    model::{Action, AgeUpdate, EINVAL},
    pmd::ffi,
};

/// Makes one for a handle.
///
/// # Safety
/// `action` is null or a complete action.
unsafe fn make(world: &mut World, port: u16, action: *const ffi::rte_flow_action) -> Result<Handle, Refusal> {
    // SAFETY: passed on.
    let action = unsafe { actions::read_one(action)? };
    let handle = world.handle();
    let now = world.now();
    let action = [action];
    let list = actions::list(&action, Some(handle), &|_| None)?;
    let action = list.first().ok_or(Refusal::new(EINVAL, c"no action"))?;
    let id = world.nic.create_indirect(port, action, now)?;
    world.shared.insert(handle, Shared { port, id: Some(id) });
    Ok(handle)
}

fn unmake(world: &mut World, port: u16, handle: Handle) -> Result<(), Refusal> {
    let id = world.indirect(port, handle)?;
    world.nic.destroy_indirect(id)?;
    world.shared.remove(&handle);
    Ok(())
}

/// Changes one.
///
/// # Safety
/// `change` is null or a complete action: the guide has the new action in place of the old one.
unsafe fn change(world: &mut World, port: u16, handle: Handle, change: *const c_void) -> Result<(), Refusal> {
    let id = world.indirect(port, handle)?;
    let now = world.now();
    // SAFETY: passed on.
    let action = [unsafe { actions::read_one(change.cast())? }];
    let list = actions::list(&action, None, &|_| None)?;
    let Some(&Action::Age { timeout, .. }) = list.first() else {
        return Err(Refusal::action(EINVAL, c"only an AGE action can be changed"));
    };
    Ok(world.nic.update_age(id, AgeUpdate { timeout: Some(timeout), touch: false }, now)?)
}

/// Reads one.
///
/// # Safety
/// `data` is the place for the answer of the action's type.
unsafe fn read(world: &mut World, port: u16, handle: Handle, data: *mut c_void) -> Result<(), Refusal> {
    if data.is_null() {
        return Err(Refusal::new(EINVAL, c"no place for the answer"));
    }
    let id = world.indirect(port, handle)?;
    let now = world.now();
    // What it is decides what the application gave room for.
    match world.nic.query_indirect_age(id, now) {
        // SAFETY: an AGE action.
        Ok(state) => unsafe { answer_age(data, state) },
        Err(_) => {
            // SAFETY: a COUNT action.
            let hits = world.nic.query_indirect_count(id, unsafe { wants_reset(data) }, now)?;
            // SAFETY: a COUNT action.
            unsafe { answer_count(data, hits) };
        }
    }
    Ok(())
}

pub(super) unsafe extern "C" fn create(
    dev: *mut ffi::rte_eth_dev,
    _conf: *const ffi::rte_flow_indir_action_conf,
    action: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_action_handle {
    // SAFETY: DPDK passes a port of this driver and the application's action.
    unsafe {
        let port = port_of(dev);
        made(with(|world| make(world, port, action)), error)
    }
}

pub(super) unsafe extern "C" fn destroy(
    dev: *mut ffi::rte_eth_dev,
    handle: *mut ffi::rte_flow_action_handle,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let port = port_of(dev);
        status(with(|world| unmake(world, port, handle.addr() as Handle)), error)
    }
}

pub(super) unsafe extern "C" fn update(
    dev: *mut ffi::rte_eth_dev,
    handle: *mut ffi::rte_flow_action_handle,
    update: *const c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and the application's action; the handle is only looked up.
    unsafe {
        let port = port_of(dev);
        status(with(|world| change(world, port, handle.addr() as Handle, update)), error)
    }
}

pub(super) unsafe extern "C" fn query(
    dev: *mut ffi::rte_eth_dev,
    handle: *const ffi::rte_flow_action_handle,
    data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and the application's place; the handle is only looked up.
    unsafe {
        let port = port_of(dev);
        status(with(|world| read(world, port, handle.addr() as Handle, data)), error)
    }
}

/// Does the work at the enqueue, as a NIC that keeps such actions in memory may, and leaves the result to be pulled.
///
/// # Safety
/// `attr` is null or complete.
unsafe fn queued<T>(
    port: u16,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    user: *mut c_void,
    work: impl FnOnce(&mut World) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    // SAFETY: see above.
    let postpone = unsafe { attr.as_ref() }.is_some_and(|attr| attr.postpone() != 0);
    with(|world| {
        world.room(port, queue)?;
        let result = work(world)?;
        let operation = Operation { work: Work::Done { success: true }, user: user.expose_provenance() };
        world.enqueue(port, queue, operation, postpone)?;
        Ok(result)
    })
}

pub(super) unsafe extern "C" fn async_create(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    _conf: *const ffi::rte_flow_indir_action_conf,
    action: *const ffi::rte_flow_action,
    user: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_action_handle {
    // SAFETY: DPDK passes a port of this driver and the application's action.
    unsafe {
        let port = port_of(dev);
        made(queued(port, queue, attr, user, |world| make(world, port, action)), error)
    }
}

pub(super) unsafe extern "C" fn async_destroy(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    handle: *mut ffi::rte_flow_action_handle,
    user: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let port = port_of(dev);
        let result = queued(port, queue, attr, user, |world| unmake(world, port, handle.addr() as Handle));
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn async_update(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    handle: *mut ffi::rte_flow_action_handle,
    update: *const c_void,
    user: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and the application's action; the handle is only looked up.
    unsafe {
        let port = port_of(dev);
        let result = queued(port, queue, attr, user, |world| change(world, port, handle.addr() as Handle, update));
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn async_query(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    attr: *const ffi::rte_flow_op_attr,
    handle: *const ffi::rte_flow_action_handle,
    data: *mut c_void,
    user: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and the application's place; the handle is only looked up.
    unsafe {
        let port = port_of(dev);
        let result = queued(port, queue, attr, user, |world| read(world, port, handle.addr() as Handle, data));
        status(result, error)
    }
}
