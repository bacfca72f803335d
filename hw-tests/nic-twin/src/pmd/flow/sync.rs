//! The synchronous operations: a call returns when the NIC has done it.

use std::{
    ffi::{CString, c_int, c_void},
    ptr,
};

use super::{
    actions::{self, OwnedAction},
    error::Refusal,
    items::{self, OwnedItem},
    queue::InsertError,
    state::{Flow, Handle, State, World, world},
};
use crate::{
    model::{AgeState, Attr, EBUSY, EINVAL, ENODEV, ENOTSUP, Hits, Item},
    pmd::ffi,
};

/// The port's number.
///
/// # Safety
/// `dev` is a port that DPDK passes to an operation.
pub(super) unsafe fn port_of(dev: *const ffi::rte_eth_dev) -> u16 {
    // SAFETY: see above.
    unsafe { (*(*dev).data).port_id }
}

/// A handle as DPDK carries it.
pub(super) fn pointer<T>(handle: Handle) -> *mut T {
    ptr::without_provenance_mut(handle as usize)
}

/// Runs an operation on the NIC.
pub(super) fn with<T>(run: impl FnOnce(&mut World) -> Result<T, Refusal>) -> Result<T, Refusal> {
    let mut world = world();
    let world = world.as_mut().ok_or(Refusal::new(ENODEV, c"the port is closed"))?;
    world.follow_controls();
    run(world)
}

/// The status of an operation; a refusal is told.
///
/// # Safety
/// `error` is null or the application's place for an error.
pub(super) unsafe fn status(result: Result<(), Refusal>, error: *mut ffi::rte_flow_error) -> c_int {
    match result {
        Ok(()) => 0,
        // SAFETY: see above.
        Err(refusal) => unsafe { refusal.tell(error) },
    }
}

/// The handle of an operation that makes something, or null.
///
/// # Safety
/// As for [`status`].
pub(super) unsafe fn made<T>(result: Result<Handle, Refusal>, error: *mut ffi::rte_flow_error) -> *mut T {
    match result {
        Ok(handle) => pointer(handle),
        Err(refusal) => {
            // SAFETY: see above.
            unsafe { refusal.tell(error) };
            ptr::null_mut()
        }
    }
}

/// Attributes of a rule.
///
/// # Safety
/// `attr` is null or complete.
pub(super) unsafe fn attr(attr: *const ffi::rte_flow_attr) -> Result<Attr, Refusal> {
    // SAFETY: see above.
    let attr = unsafe { attr.as_ref() }.ok_or(Refusal::new(EINVAL, c"no attributes"))?;
    Ok(Attr {
        group: attr.group,
        priority: attr.priority,
        ingress: attr.ingress() != 0,
        egress: attr.egress() != 0,
        transfer: attr.transfer() != 0,
    })
}

type Rule = (Attr, Vec<OwnedItem>, Vec<OwnedAction>);

/// A rule as the application gave it.
///
/// # Safety
/// As for [`attr`], [`items::read`] and [`actions::read`].
unsafe fn read(
    attributes: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
) -> Result<Rule, Refusal> {
    // SAFETY: passed on.
    unsafe { Ok((attr(attributes)?, items::read(pattern)?, actions::read(actions)?)) }
}

fn synchronous(world: &World) -> Result<(), Refusal> {
    if world.nic.profile().sync {
        return Ok(());
    }
    Err(Refusal::new(ENOTSUP, c"this NIC takes rules by template tables only"))
}

pub(super) unsafe extern "C" fn validate(
    dev: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and the application's lists.
    unsafe {
        let port = port_of(dev);
        let result = read(attr, pattern, actions).and_then(|(attr, items, list)| {
            with(|world| {
                synchronous(world)?;
                let items: Vec<Item<'_>> = items.iter().map(OwnedItem::item).collect();
                let indirect = |handle| world.indirect(port, handle).ok();
                let list = actions::list(&list, None, &indirect)?;
                world.nic.validate(port, &attr, &items, &list).map_err(|error| Refusal::of(error, pattern, actions))
            })
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn create(
    dev: *mut ffi::rte_eth_dev,
    attr: *const ffi::rte_flow_attr,
    pattern: *const ffi::rte_flow_item,
    actions: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow {
    // SAFETY: DPDK passes a port of this driver and the application's lists.
    unsafe {
        let port = port_of(dev);
        let mut delay = std::time::Duration::ZERO;
        let result = read(attr, pattern, actions).and_then(|(attr, items, list)| {
            with(|world| {
                synchronous(world)?;
                let handle = world.handle();
                let (rule, at) = world.insert(port, handle, attr, &items, &list).map_err(|error| match error {
                    InsertError::Glue(refusal) => refusal,
                    InsertError::Nic(error) => Refusal::of(error, pattern, actions),
                })?;
                delay = at.saturating_sub(world.now());
                world.flows.insert(handle, Flow { port, state: State::Live(rule), queued: false, table: None });
                Ok(handle)
            })
        });
        // A slow NIC keeps its caller waiting, and nobody else.
        if result.is_ok() && !delay.is_zero() {
            std::thread::sleep(delay);
        }
        made(result, error)
    }
}

pub(super) unsafe extern "C" fn destroy(
    dev: *mut ffi::rte_eth_dev,
    flow: *mut ffi::rte_flow,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let (port, handle) = (port_of(dev), flow.addr() as Handle);
        let result = with(|world| {
            let flow = *world.flow(port, handle)?;
            if flow.queued {
                return Err(Refusal::handle(EINVAL, c"a rule of a template table is destroyed by a queue"));
            }
            world.flows.remove(&handle);
            let State::Live(rule) = flow.state else { return Ok(()) };
            Ok(world.nic.destroy(rule)?)
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn flush(dev: *mut ffi::rte_eth_dev, error: *mut ffi::rte_flow_error) -> c_int {
    // SAFETY: DPDK passes a port of this driver.
    unsafe {
        let port = port_of(dev);
        let result = with(|world| {
            world.forget_rules(port);
            Ok(())
        });
        status(result, error)
    }
}

/// Writes the answer to a query of COUNT.
///
/// # Safety
/// `data` is the application's `rte_flow_query_count`.
pub(super) unsafe fn answer_count(data: *mut c_void, hits: Hits) {
    // SAFETY: see above.
    let answer = unsafe { &mut *data.cast::<ffi::rte_flow_query_count>() };
    answer.set_hits_set(1);
    answer.set_bytes_set(1);
    answer.hits = hits.packets;
    answer.bytes = hits.bytes;
}

/// Does the application want the counter at zero afterwards?
///
/// # Safety
/// As for [`answer_count`].
pub(super) unsafe fn wants_reset(data: *const c_void) -> bool {
    // SAFETY: see above.
    unsafe { (*data.cast::<ffi::rte_flow_query_count>()).reset() != 0 }
}

/// Writes the answer to a query of AGE.
///
/// # Safety
/// `data` is the application's `rte_flow_query_age`.
pub(super) unsafe fn answer_age(data: *mut c_void, state: AgeState) {
    // SAFETY: see above.
    let answer = unsafe { &mut *data.cast::<ffi::rte_flow_query_age>() };
    answer.set_aged(u32::from(state.aged));
    answer.set_sec_since_last_hit_valid(1);
    answer.set_sec_since_last_hit(state.seconds_since_hit.min(0x00ff_ffff));
}

pub(super) unsafe extern "C" fn query(
    dev: *mut ffi::rte_eth_dev,
    flow: *mut ffi::rte_flow,
    action: *const ffi::rte_flow_action,
    data: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver, an action, and the place for the answer of its type; the handle is only
    // looked up.
    unsafe {
        let (port, handle) = (port_of(dev), flow.addr() as Handle);
        let result = with(|world| {
            let action = action.as_ref().filter(|_| !data.is_null());
            let action = action.ok_or(Refusal::new(EINVAL, c"no action or no place for the answer"))?;
            let rule = world.rule(port, handle)?;
            let now = world.now();
            match action.type_ {
                ffi::RTE_FLOW_ACTION_TYPE_COUNT => {
                    let id = action.conf.cast::<ffi::rte_flow_action_count>().as_ref().map(|conf| conf.id);
                    answer_count(data, world.nic.query_count(rule, id, wants_reset(data), now)?);
                }
                ffi::RTE_FLOW_ACTION_TYPE_AGE => answer_age(data, world.nic.query_age(rule, now)?),
                ffi::RTE_FLOW_ACTION_TYPE_VOID => {}
                _ => return Err(Refusal::action(ENOTSUP, c"only COUNT and AGE can be queried")),
            }
            Ok(())
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn isolate(
    dev: *mut ffi::rte_eth_dev,
    set: c_int,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver.
    unsafe {
        let port = port_of(dev);
        let result = with(|world| {
            world.nic.set_isolated(port, set != 0);
            Ok(())
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn get_aged_flows(
    dev: *mut ffi::rte_eth_dev,
    contexts: *mut *mut c_void,
    room: u32,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and room for so many contexts.
    unsafe {
        let port = port_of(dev);
        let result = with(|world| {
            let now = world.now();
            if room == 0 || contexts.is_null() {
                return Ok(world.nic.aged_count(port, now));
            }
            let mut aged = Vec::new();
            world.nic.aged(port, now, room as usize, &mut aged);
            for (place, aged) in aged.iter().take(room as usize).enumerate() {
                // A context is always there: the handle, where the application gave none.
                *contexts.add(place) = pointer(aged.context.unwrap_or(0));
            }
            Ok(aged.len())
        });
        match result {
            Ok(count) => c_int::try_from(count).unwrap_or(c_int::MAX),
            Err(refusal) => refusal.tell(error),
        }
    }
}

/// Ages are a port's here, not a queue's: `RTE_FLOW_PORT_FLAG_STRICT_QUEUE` is not offered.
pub(super) unsafe extern "C" fn get_q_aged_flows(
    dev: *mut ffi::rte_eth_dev,
    _queue: u32,
    contexts: *mut *mut c_void,
    room: u32,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: passed on.
    unsafe { get_aged_flows(dev, contexts, room, error) }
}

pub(super) unsafe extern "C" fn dev_dump(
    dev: *mut ffi::rte_eth_dev,
    flow: *mut ffi::rte_flow,
    file: *mut ffi::FILE,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and an open stream; the handle is only looked up.
    unsafe {
        let (port, wanted) = (port_of(dev), flow.addr() as Handle);
        let result = with(|world| {
            if file.is_null() {
                return Err(Refusal::new(EINVAL, c"no file"));
            }
            let mut flows: Vec<(&Handle, &Flow)> = world.flows.iter().filter(|(_, flow)| flow.port == port).collect();
            flows.sort_unstable_by_key(|(handle, _)| **handle);
            for (handle, flow) in flows.into_iter().filter(|(handle, _)| wanted == 0 || **handle == wanted) {
                if let Ok(line) = CString::new(format!("flow {handle:#x} port {port} {:?}\n", flow.state)) {
                    ffi::twin_write(file, line.as_ptr());
                }
            }
            Ok(())
        });
        status(result, error)
    }
}

impl World {
    /// New commands of the control files.
    pub(super) fn follow_controls(&mut self) {
        for control in &mut self.controls {
            for command in control.commands() {
                self.nic.control(command);
            }
            control.carried_out();
        }
    }

    /// All rules of a port are gone, and their handles with them.
    pub(super) fn forget_rules(&mut self, port: u16) {
        self.nic.flush(port);
        self.flows.retain(|_, flow| flow.port != port);
        if let Some(engine) = self.ports.get_mut(&port).and_then(|port| port.engine.as_mut()) {
            engine.stop();
        }
    }

    /// Refuses while a port has rules.
    pub(super) fn without_rules(&self, port: u16) -> Result<(), Refusal> {
        if self.flows.values().any(|flow| flow.port == port) {
            return Err(Refusal::new(EBUSY, c"the port has rules already"));
        }
        Ok(())
    }
}
