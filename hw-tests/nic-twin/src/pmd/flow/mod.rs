//! rte_flow: the operations of DPDK's API over the NIC of [`crate::model`], and the packets' way through it.
//!
//! Handles are numbers that look like pointers. They are looked up, never followed: one that was destroyed, or is another
//! port's, is an error and not a crash.

mod actions;
mod control;
mod error;
mod items;
mod number;
mod queue;
mod shared;
mod state;
mod sync;
mod template;

use std::time::Duration;

use self::{
    control::Control,
    state::{Port, World, world},
};
use super::{args::Args, ffi, mbuf::Packet};
use crate::model::{DropReason, Faults, Frame, Nic, Outcome, Place, Profile};

/// The operations of a port.
// SAFETY: a table of optional functions, for which zeros are "none".
pub(super) static OPERATIONS: ffi::rte_flow_ops = ffi::rte_flow_ops {
    validate: Some(sync::validate),
    create: Some(sync::create),
    destroy: Some(sync::destroy),
    flush: Some(sync::flush),
    query: Some(sync::query),
    isolate: Some(sync::isolate),
    dev_dump: Some(sync::dev_dump),
    get_aged_flows: Some(sync::get_aged_flows),
    get_q_aged_flows: Some(sync::get_q_aged_flows),
    action_handle_create: Some(shared::create),
    action_handle_destroy: Some(shared::destroy),
    action_handle_update: Some(shared::update),
    action_handle_query: Some(shared::query),
    info_get: Some(template::info_get),
    configure: Some(template::configure),
    pattern_template_create: Some(template::pattern_template_create),
    pattern_template_destroy: Some(template::pattern_template_destroy),
    actions_template_create: Some(template::actions_template_create),
    actions_template_destroy: Some(template::actions_template_destroy),
    template_table_create: Some(template::table_create),
    template_table_destroy: Some(template::table_destroy),
    #[cfg(not(flow_fp_ops))]
    async_create: Some(template::async_create),
    #[cfg(not(flow_fp_ops))]
    async_destroy: Some(template::async_destroy),
    #[cfg(not(flow_fp_ops))]
    push: Some(template::push),
    #[cfg(not(flow_fp_ops))]
    pull: Some(template::pull),
    #[cfg(not(flow_fp_ops))]
    async_action_handle_create: Some(shared::async_create),
    #[cfg(not(flow_fp_ops))]
    async_action_handle_destroy: Some(shared::async_destroy),
    #[cfg(not(flow_fp_ops))]
    async_action_handle_update: Some(shared::async_update),
    #[cfg(not(flow_fp_ops))]
    async_action_handle_query: Some(shared::async_query),
    ..unsafe { std::mem::zeroed() }
};

/// The operations on queues, which have a table of their own from DPDK 24.03 on.
// SAFETY: a table of optional functions, for which zeros are "none".
#[cfg(flow_fp_ops)]
pub(super) static FAST_OPERATIONS: ffi::rte_flow_fp_ops = ffi::rte_flow_fp_ops {
    async_create: Some(template::async_create),
    async_destroy: Some(template::async_destroy),
    push: Some(template::push),
    pull: Some(template::pull),
    async_action_handle_create: Some(shared::async_create),
    async_action_handle_destroy: Some(shared::async_destroy),
    async_action_handle_update: Some(shared::async_update),
    async_action_handle_query: Some(shared::async_query),
    ..unsafe { std::mem::zeroed() }
};

/// A port enters the NIC. The first one says which NIC it is; the others may say the same, and more faults.
pub(super) fn port_opened(port: u16, args: &Args) -> Result<(), String> {
    let profile = args.nic.iter().find(|(key, _)| key == "profile").map(|(_, value)| value.as_str());
    let mut faults = Vec::new();
    for (key, value) in args.nic.iter().filter(|(key, _)| key != "profile") {
        let fault = crate::model::Fault::parse(key, value).map_err(|error| error.to_string())?;
        faults.push(crate::model::Command::Set(fault));
    }
    let mut world = world();
    if let Some(known) = world.as_ref()
        && let Some(profile) = profile.filter(|profile| *profile != known.profile)
    {
        return Err(format!("all twins are one NIC, and it is a {:?} already, not a {profile:?}", known.profile));
    }
    if world.is_none() {
        let name = profile.unwrap_or("twin");
        let profile = Profile::named(name).ok_or_else(|| {
            let known: Vec<&str> = Profile::names().collect();
            format!("unknown profile {name:?}; known: {}", known.join(", "))
        })?;
        *world = Some(World::new(Nic::new(profile, Faults::default()), name.to_owned()));
    }
    let Some(world) = world.as_mut() else { return Err("no NIC".to_owned()) };
    for fault in faults {
        world.nic.control(fault);
    }
    if let Some(path) = args.control.as_ref().map(std::path::PathBuf::from)
        && !world.controls.iter().any(|control| control.path == path)
    {
        world.controls.push(Control::new(path));
    }
    world.nic.add_port(port, 1);
    world.nic.set_place(port, Place { function: args.function, domain: args.domain });
    world.ports.insert(port, Port::default());
    Ok(())
}

/// A port has this many receive queues now.
pub(super) fn port_configured(port: u16, queues: u16) {
    if let Some(world) = world().as_mut() {
        world.nic.add_port(port, queues);
    }
}

/// A port was stopped: its rules are gone, and with them what waits in its queues.
pub(super) fn port_stopped(port: u16) {
    if let Some(world) = world().as_mut() {
        world.forget_rules(port);
        world.nic.set_isolated(port, false);
    }
}

/// A port leaves the NIC. With the last one the NIC is gone: the next one may be another.
pub(super) fn port_closed(port: u16) {
    let mut place = world();
    let Some(world) = place.as_mut() else { return };
    world.forget_rules(port);
    world.shared.retain(|_, shared| shared.port != port);
    world.nic.remove_port(port);
    world.ports.remove(&port);
    if world.ports.is_empty() {
        *place = None;
    }
}

/// Rules of a port.
pub(super) fn rules(port: u16) -> u64 {
    world().as_ref().map_or(0, |world| world.nic.rules_of(port).count() as u64)
}

/// Something that is asked of the NIC; `None`: there is none.
pub(super) fn with_nic<T>(ask: impl FnOnce(&mut Nic) -> T) -> Option<T> {
    world().as_mut().map(|world| ask(&mut world.nic))
}

/// Runs a burst from the wire through the NIC. All of it sees one state of the tables.
pub(super) fn judge(port: u16, packets: Vec<Packet>) -> Vec<(Packet, Outcome)> {
    run(port, packets, |nic, port, frame, _, now| nic.process(port, frame, now), |_| None)
}

/// Runs a burst of the host's through the NIC.
pub(super) fn judge_sent(port: u16, packets: Vec<Packet>) -> Vec<(Packet, Outcome)> {
    run(port, packets, |nic, port, frame, meta, now| nic.transmit(port, frame, meta, now), Packet::session)
}

/// Is there no rule that what the host sends on this port could meet?
pub(super) fn host_sends_untouched(port: u16) -> bool {
    world().as_ref().is_none_or(|world| world.nic.transmits_untouched(port))
}

fn run(
    port: u16,
    packets: Vec<Packet>,
    step: impl Fn(&mut Nic, u16, &mut Frame, Option<u32>, Duration) -> Outcome,
    session: impl Fn(&Packet) -> Option<(u64, usize)>,
) -> Vec<(Packet, Outcome)> {
    let mut done = Vec::with_capacity(packets.len());
    let mut place = world();
    let Some(world) = place.as_mut() else { return done };
    world.follow_controls();
    let now = world.now();
    let mut frame = Frame::default();
    for mut packet in packets {
        let (meta, session) = (packet.meta(), session(&packet));
        packet.received_on(port);
        let Some(bytes) = packet.bytes() else {
            done.push((packet, Outcome::Drop(DropReason::Malformed)));
            continue;
        };
        frame.load(bytes);
        let outcome = match session {
            None => step(&mut world.nic, port, &mut frame, meta, now),
            Some((session, link)) if world.nic.transmit_sealed(session, &mut frame, link) => Outcome::Forward { port },
            Some(_) => Outcome::Drop(DropReason::Security),
        };
        if frame.bytes() != bytes && !matches!(outcome, Outcome::Drop(_)) {
            // No buffer is left for it, or none is large enough: lost, as in a NIC without memory.
            let Some(changed) = packet.with(frame.bytes()) else { continue };
            packet = changed;
        }
        if let Outcome::ToSoftware(delivery) = &outcome {
            packet.received_on(delivery.port);
            packet.set_hash(delivery.hash);
            if let Some(mark) = delivery.mark {
                packet.set_mark(mark);
            } else if delivery.flag {
                packet.set_flag();
            }
            if let Some(meta) = delivery.meta {
                packet.set_meta(meta);
            }
            if let Some((session, done)) = delivery.security {
                packet.set_secured(world.nic.session_userdata(session), done);
            }
        }
        done.push((packet, outcome));
    }
    done
}
