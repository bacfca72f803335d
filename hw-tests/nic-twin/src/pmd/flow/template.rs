//! The operations of the template API; see `queue` for what they do.

use std::ffi::{c_int, c_void};

use super::{
    actions,
    error::Refusal,
    items,
    queue::{ActionsTemplate, DEFAULT_SIZE, Engine, OPERATIONS, Operation, QUEUES, Table, Work},
    state::{Flow, Handle, State, World},
    sync::{attr, made, port_of, status, with},
};
use crate::{
    model::{EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC, ENOTSUP},
    pmd::ffi,
};

/// Rules of one table for which memory is set aside at most.
const MOST_RESERVED: u32 = 1 << 17;

fn offered(world: &World) -> Result<(), Refusal> {
    if world.nic.profile().templates {
        return Ok(());
    }
    Err(Refusal::new(ENOTSUP, c"this NIC has no template tables"))
}

pub(super) unsafe extern "C" fn info_get(
    _dev: *mut ffi::rte_eth_dev,
    port_info: *mut ffi::rte_flow_port_info,
    queue_info: *mut ffi::rte_flow_queue_info,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and the application's places.
    unsafe {
        let result = with(|world| {
            offered(world)?;
            let counters = u32::try_from(world.nic.profile().max_counters).unwrap_or(u32::MAX);
            if let Some(info) = port_info.as_mut() {
                info.max_nb_queues = QUEUES;
                info.max_nb_counters = counters;
                info.max_nb_aging_objects = counters;
            }
            if let Some(info) = queue_info.as_mut() {
                info.max_size = OPERATIONS;
            }
            Ok(())
        });
        status(result, error)
    }
}

/// Once, and before there are rules.
pub(super) unsafe extern "C" fn configure(
    dev: *mut ffi::rte_eth_dev,
    _attr: *const ffi::rte_flow_port_attr,
    count: u16,
    queues: *mut *const ffi::rte_flow_queue_attr,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and `count` pointers to complete attributes.
    unsafe {
        let port = port_of(dev);
        let mut sizes = Vec::new();
        for queue in 0..usize::from(count) {
            let size = (*queues.add(queue)).as_ref().map_or(0, |queue| queue.size);
            sizes.push(if size == 0 { DEFAULT_SIZE } else { size });
        }
        let result = with(|world| {
            offered(world)?;
            world.without_rules(port)?;
            if u32::from(count) > QUEUES || sizes.iter().any(|size| *size > OPERATIONS) {
                return Err(Refusal::new(EINVAL, c"more or larger flow queues than there are"));
            }
            let place = world.ports.get_mut(&port).ok_or(Refusal::new(EINVAL, c"the port is closed"))?;
            if place.engine.is_some() {
                return Err(Refusal::new(EEXIST, c"the flow engine is configured once"));
            }
            place.engine = Some(Engine::new(sizes.into_iter()));
            Ok(())
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn pattern_template_create(
    dev: *mut ffi::rte_eth_dev,
    _attr: *const ffi::rte_flow_pattern_template_attr,
    pattern: *const ffi::rte_flow_item,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_pattern_template {
    // SAFETY: DPDK passes a port of this driver and the application's list.
    unsafe {
        let port = port_of(dev);
        let result = items::read(pattern).and_then(|pattern| {
            with(|world| {
                let handle = world.handle();
                let profile = world.nic.profile();
                if pattern.iter().any(|item| !profile.has_item(item.item().kind)) {
                    return Err(Refusal::new(ENOTSUP, c"this NIC doesn't match an item of the template"));
                }
                if let Some(engine) = profile.engine {
                    let plain: Vec<_> = pattern.iter().map(|item| item.item()).collect();
                    engine
                        .check_template((ffi::TWIN_DPDK_YEAR, ffi::TWIN_DPDK_MONTH), &plain)
                        .map_err(|error| Refusal::new(error.errno, error.message))?;
                }
                world.engine(port)?.patterns.insert(handle, pattern);
                Ok(handle)
            })
        });
        made(result, error)
    }
}

pub(super) unsafe extern "C" fn pattern_template_destroy(
    dev: *mut ffi::rte_eth_dev,
    template: *mut ffi::rte_flow_pattern_template,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let (port, handle) = (port_of(dev), template.addr() as Handle);
        let result = with(|world| {
            let engine = world.engine(port)?;
            if engine.tables.values().any(|table| table.patterns.contains(&handle)) {
                return Err(Refusal::new(EBUSY, c"a table uses the pattern template"));
            }
            engine.patterns.remove(&handle).map(|_| ()).ok_or(Refusal::new(ENOENT, c"no such pattern template"))
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn actions_template_create(
    dev: *mut ffi::rte_eth_dev,
    _attr: *const ffi::rte_flow_actions_template_attr,
    list: *const ffi::rte_flow_action,
    masks: *const ffi::rte_flow_action,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_actions_template {
    // SAFETY: DPDK passes a port of this driver and the application's lists.
    unsafe {
        let port = port_of(dev);
        let lists = actions::read(list).and_then(|list| Ok((list, actions::read_masks(masks)?)));
        let result = lists.and_then(|(actions, masks)| {
            with(|world| {
                if !actions::same_types(&actions, &masks) {
                    return Err(Refusal::new(EINVAL, c"actions and masks are not of the same types"));
                }
                if world.nic.profile().engine.is_some() {
                    actions::check_masks(&actions, &masks)?;
                }
                let handle = world.handle();
                world.engine(port)?.actions.insert(handle, ActionsTemplate { actions, masks });
                Ok(handle)
            })
        });
        made(result, error)
    }
}

pub(super) unsafe extern "C" fn actions_template_destroy(
    dev: *mut ffi::rte_eth_dev,
    template: *mut ffi::rte_flow_actions_template,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let (port, handle) = (port_of(dev), template.addr() as Handle);
        let result = with(|world| {
            let engine = world.engine(port)?;
            if engine.tables.values().any(|table| table.actions.contains(&handle)) {
                return Err(Refusal::new(EBUSY, c"a table uses the actions template"));
            }
            engine.actions.remove(&handle).map(|_| ()).ok_or(Refusal::new(ENOENT, c"no such actions template"))
        });
        status(result, error)
    }
}

/// Handles of an array.
///
/// # Safety
/// `array` is null or has `count` pointers.
unsafe fn handles<T>(array: *mut *mut T, count: u8) -> Vec<Handle> {
    if array.is_null() {
        return Vec::new();
    }
    // SAFETY: see above.
    (0..usize::from(count)).map(|index| unsafe { (*array.add(index)).addr() } as Handle).collect()
}

pub(super) unsafe extern "C" fn table_create(
    dev: *mut ffi::rte_eth_dev,
    table: *const ffi::rte_flow_template_table_attr,
    pattern_templates: *mut *mut ffi::rte_flow_pattern_template,
    pattern_count: u8,
    actions_templates: *mut *mut ffi::rte_flow_actions_template,
    actions_count: u8,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow_template_table {
    // SAFETY: DPDK passes a port of this driver, complete attributes and arrays of these lengths.
    unsafe {
        let port = port_of(dev);
        let patterns = handles(pattern_templates, pattern_count);
        let actions = handles(actions_templates, actions_count);
        let result = attr(&raw const (*table).flow_attr).and_then(|attr| {
            with(|world| {
                let handle = world.handle();
                let order = world.nic.profile().engine;
                let engine = world.engine(port)?;
                if patterns.is_empty() || !patterns.iter().all(|template| engine.patterns.contains_key(template)) {
                    return Err(Refusal::new(EINVAL, c"no such pattern template"));
                }
                if actions.is_empty() || !actions.iter().all(|template| engine.actions.contains_key(template)) {
                    return Err(Refusal::new(EINVAL, c"no such actions template"));
                }
                if let Some(order) = order {
                    for template in patterns.iter().filter_map(|handle| engine.patterns.get(handle)) {
                        let plain: Vec<_> = template.iter().map(|item| item.item()).collect();
                        let checked = order.check_pattern(attr.group, &plain);
                        checked.map_err(|error| Refusal::new(error.errno, error.message))?;
                    }
                    for template in actions.iter().filter_map(|handle| engine.actions.get(handle)) {
                        let plain = actions::list(&template.actions, None, &|_| None)?;
                        order.check_actions(&plain).map_err(|error| Refusal::new(error.errno, error.message))?;
                    }
                }
                let room = (*table).nb_flows;
                engine.tables.insert(handle, Table { attr, room, rules: 0, patterns, actions });
                // What a NIC sets aside for a table; a table may promise more rules than ever come.
                let room = room.min(MOST_RESERVED) as usize;
                world.flows.reserve(room);
                world.nic.reserve(room);
                Ok(handle)
            })
        });
        made(result, error)
    }
}

pub(super) unsafe extern "C" fn table_destroy(
    dev: *mut ffi::rte_eth_dev,
    table: *mut ffi::rte_flow_template_table,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let (port, handle) = (port_of(dev), table.addr() as Handle);
        let result = with(|world| {
            let engine = world.engine(port)?;
            let table = engine.tables.get(&handle).ok_or(Refusal::new(ENOENT, c"no such template table"))?;
            if table.rules > 0 {
                return Err(Refusal::new(EBUSY, c"the template table has rules"));
            }
            engine.tables.remove(&handle);
            Ok(())
        });
        status(result, error)
    }
}

/// Is the operation to wait for a push?
///
/// # Safety
/// `attr` is null or complete.
unsafe fn postponed(attr: *const ffi::rte_flow_op_attr) -> bool {
    // SAFETY: see above.
    unsafe { attr.as_ref() }.is_some_and(|attr| attr.postpone() != 0)
}

pub(super) unsafe extern "C" fn async_create(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    attributes: *const ffi::rte_flow_op_attr,
    table: *mut ffi::rte_flow_template_table,
    pattern: *const ffi::rte_flow_item,
    pattern_index: u8,
    list: *const ffi::rte_flow_action,
    actions_index: u8,
    user: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> *mut ffi::rte_flow {
    // SAFETY: DPDK passes a port of this driver and the application's lists; the table's handle is only looked up.
    unsafe {
        let (port, number) = (port_of(dev), table.addr() as Handle);
        let lists = items::read(pattern).and_then(|items| Ok((items, actions::read(list)?)));
        let result = lists.and_then(|(mut values, list)| {
            with(|world| {
                world.room(port, queue)?;
                let handle = world.handle();
                let engine = world.engine(port)?;
                let table = engine.tables.get_mut(&number).ok_or(Refusal::new(ENOENT, c"no such template table"))?;
                let template = |of: &[Handle], index: u8| of.get(usize::from(index)).copied();
                let pattern = template(&table.patterns, pattern_index).and_then(|of| engine.patterns.get(&of));
                let pattern = pattern.ok_or(Refusal::new(EINVAL, c"the table has no such pattern template"))?;
                let chosen = template(&table.actions, actions_index).and_then(|of| engine.actions.get(&of));
                let chosen = chosen.ok_or(Refusal::new(EINVAL, c"the table has no such actions template"))?;
                if table.rules >= table.room {
                    return Err(Refusal::new(ENOSPC, c"the template table is full"));
                }
                items::merge(pattern, &mut values);
                let actions = actions::merge(&chosen.actions, &chosen.masks, list);
                let attr = table.attr;
                table.rules += 1;
                let flow = Flow { port, state: State::Waiting, queued: true, table: Some(number) };
                world.flows.insert(handle, flow);
                let work = Work::Create { handle, attr, pattern: values, actions };
                let operation = Operation { work, user: user.expose_provenance() };
                world.enqueue(port, queue, operation, postponed(attributes))?;
                Ok(handle)
            })
        });
        made(result, error)
    }
}

pub(super) unsafe extern "C" fn async_destroy(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    attributes: *const ffi::rte_flow_op_attr,
    flow: *mut ffi::rte_flow,
    user: *mut c_void,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver; the handle is only looked up.
    unsafe {
        let (port, handle) = (port_of(dev), flow.addr() as Handle);
        let result = with(|world| {
            world.room(port, queue)?;
            let flow = world.flow(port, handle)?;
            if !flow.queued {
                return Err(Refusal::handle(EINVAL, c"the rule was not made by a queue"));
            }
            flow.state = match flow.state {
                State::Live(rule) => State::Leaving(Some(rule)),
                State::Failed => State::Leaving(None),
                State::Waiting => return Err(Refusal::handle(EBUSY, c"the rule's creation is not complete")),
                State::Leaving(_) => return Err(Refusal::handle(ENOENT, c"the rule is being destroyed already")),
            };
            let operation = Operation { work: Work::Destroy { handle }, user: user.expose_provenance() };
            world.enqueue(port, queue, operation, postponed(attributes))
        });
        status(result, error)
    }
}

pub(super) unsafe extern "C" fn push(dev: *mut ffi::rte_eth_dev, queue: u32, error: *mut ffi::rte_flow_error) -> c_int {
    // SAFETY: DPDK passes a port of this driver.
    unsafe {
        let port = port_of(dev);
        status(with(|world| world.push(port, queue)), error)
    }
}

pub(super) unsafe extern "C" fn pull(
    dev: *mut ffi::rte_eth_dev,
    queue: u32,
    into: *mut ffi::rte_flow_op_result,
    room: u16,
    error: *mut ffi::rte_flow_error,
) -> c_int {
    // SAFETY: DPDK passes a port of this driver and room for so many results.
    unsafe {
        let port = port_of(dev);
        match with(|world| world.pull(port, queue, usize::from(room))) {
            Ok(results) => {
                for (place, (success, user)) in results.iter().enumerate() {
                    (*into.add(place)).status =
                        if *success { ffi::RTE_FLOW_OP_SUCCESS } else { ffi::RTE_FLOW_OP_ERROR };
                    (*into.add(place)).user_data = std::ptr::with_exposed_provenance_mut(*user);
                }
                results.len() as c_int
            }
            Err(refusal) => refusal.tell(error),
        }
    }
}
