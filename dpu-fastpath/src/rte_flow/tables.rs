//! Template tables of one port: for each shape of rules a small one, made when a rule of the shape first comes, and larger ones as it fills.
//!
//! A table takes memory of the NIC for all the rules that it may hold, and every packet is looked up in each table of its group. So there are few, and
//! each is eight times as large as the one before. Rules of a shape match exactly, and one that another replaces has another priority:
//! which of its tables a rule is in makes no difference.

use std::{ffi::c_int, ptr::NonNull};

use dpdk_sys::{
    rte_flow_actions_template, rte_flow_error, rte_flow_pattern_template, rte_flow_template_table,
    rte_flow_template_table_attr,
};
use offload_engine::Failure;
use offload_rules::lower::{FailureClass, Role};

use super::{
    error::{check, failure},
    translation::{Domain, Shape, Translation},
};

/// Tables that a port has at most: shapes come from the program, not from packets, so this many is a lot.
const TABLES: usize = 256;

/// Rules that the first table of a shape holds: canaries and rare shapes need no more, and what belongs to no flow never has many.
const FIRST: Step = Step { steering: 256, flows: 4096 };
/// By how much the next table of a shape is larger.
const GROWTH: u32 = 8;

struct Step {
    steering: u32,
    flows: u32,
}

/// Number of a table, never used again.
pub(super) type TableId = u64;

/// A table with the only templates that it has.
#[derive(Debug)]
struct Table {
    id: TableId,
    /// See [`Translation::shape_hash`].
    hash: u64,
    shape: Shape,
    table: NonNull<rte_flow_template_table>,
    pattern: NonNull<rte_flow_pattern_template>,
    actions: NonNull<rte_flow_actions_template>,
    /// Rules that it holds at most.
    size: u32,
    /// Rules that are in it, or on the way in or out.
    rules: u32,
}

impl Table {
    const fn has_room(&self) -> bool {
        self.rules < self.size
    }
}

/// Tables of one port.
#[derive(Debug)]
pub(super) struct Tables {
    port: u16,
    /// Rules that one table holds at most.
    largest: u32,
    /// In the order of their making: the first are used most.
    tables: Vec<Table>,
    made: TableId,
}

// SAFETY: the driver's tables and templates are used by the one thread that calls the backend.
unsafe impl Send for Tables {}

impl Tables {
    /// `largest` is the number of rules that a table holds at most.
    pub(super) fn new(port: u16, largest: u32) -> Self {
        Self { port, largest, tables: Vec::new(), made: 0 }
    }

    /// The table for a rule: one of its shape that has room.
    pub(super) fn table(&mut self, rule: &Translation) -> Result<(TableId, *mut rte_flow_template_table), Failure> {
        let hash = rule.shape_hash();
        let mut last = None;
        for table in self.tables.iter().filter(|table| table.hash == hash && rule.is_of(&table.shape)) {
            if table.has_room() {
                return Ok((table.id, table.table.as_ptr()));
            }
            last = last.max(Some(table.size));
        }
        if self.tables.len() >= TABLES {
            self.drop_empty();
        }
        if self.tables.len() >= TABLES {
            return Err(Failure::from_errno(libc::ENOSPC, "there are too many shapes of rules for template tables"));
        }
        let table = self.grow(rule, last)?;
        self.made += 1;
        let found = (table.id, table.table.as_ptr());
        self.tables.push(table);
        Ok(found)
    }

    /// The first table of a shape, or the next one, of which `last` is the largest so far. A NIC that has no room for that much gets a smaller
    /// one.
    fn grow(&self, rule: &Translation, last: Option<u32>) -> Result<Table, Failure> {
        let first = if rule.place.group == 0 { FIRST.steering } else { FIRST.flows }.min(self.largest);
        let mut size = last.map_or(first, |last| last.saturating_mul(GROWTH).min(self.largest));
        loop {
            match self.make(rule, size) {
                Err(failure) if failure.class == FailureClass::Capacity && size > first => {
                    size = (size / GROWTH).max(first)
                }
                made => return made,
            }
        }
    }

    fn get_mut(&mut self, id: TableId) -> Option<&mut Table> {
        self.tables.iter_mut().find(|table| table.id == id)
    }

    /// A rule has been put into this table.
    pub(super) fn enter(&mut self, id: TableId) {
        if let Some(table) = self.get_mut(id) {
            table.rules += 1;
        }
    }

    /// A rule is no more in this table.
    pub(super) fn leave(&mut self, id: TableId) {
        if let Some(table) = self.get_mut(id) {
            table.rules = table.rules.saturating_sub(1);
        }
    }

    /// After a flush no rule is in any table.
    pub(super) fn emptied(&mut self) {
        self.tables.iter_mut().for_each(|table| table.rules = 0);
    }

    fn make(&self, rule: &Translation, size: u32) -> Result<Table, Failure> {
        let pattern = self.pattern(rule)?;
        let actions = self.actions(rule).inspect_err(|_| self.drop_pattern(pattern))?;
        #[allow(clippy::needless_update, reason = "23.11 added fields")]
        let mut attr =
            rte_flow_template_table_attr { flow_attr: rule.place.attr(), nb_flows: size, ..Default::default() };
        if let Some(origin) = rule.place.origin {
            // SAFETY: a live structure.
            unsafe { dpdk_sys::rte_flow_table_specialize(&raw mut attr, c_int::from(origin == Role::Wire)) };
        }
        let (mut patterns, mut action_sets) = ([pattern.as_ptr()], [actions.as_ptr()]);
        let mut error = rte_flow_error::default();
        // SAFETY: one template each, of this port, and alive.
        let table = unsafe {
            dpdk_sys::rte_flow_template_table_create(
                self.port,
                &raw const attr,
                patterns.as_mut_ptr(),
                1,
                action_sets.as_mut_ptr(),
                1,
                &raw mut error,
            )
        };
        match NonNull::new(table) {
            Some(table) => {
                let (id, hash, shape) = (self.made, rule.shape_hash(), rule.shape());
                Ok(Table { id, hash, shape, table, pattern, actions, size, rules: 0 })
            }
            None => {
                let failure = failure(0, &error);
                self.drop_pattern(pattern);
                self.drop_actions(actions);
                Err(failure)
            }
        }
    }

    fn pattern(&self, rule: &Translation) -> Result<NonNull<rte_flow_pattern_template>, Failure> {
        let mut attr = dpdk_sys::rte_flow_pattern_template_attr::default();
        match rule.place.domain {
            Domain::Transfer => attr.set_transfer(1),
            Domain::Ingress => attr.set_ingress(1),
            Domain::Egress => attr.set_egress(1),
        }
        let items = rule.pattern.raw_template();
        let mut error = rte_flow_error::default();
        // SAFETY: the array ends in END; it and what it points to live until after the call.
        let template = unsafe {
            dpdk_sys::rte_flow_pattern_template_create(self.port, &raw const attr, items.as_ptr(), &raw mut error)
        };
        NonNull::new(template).ok_or_else(|| failure(0, &error))
    }

    fn actions(&self, rule: &Translation) -> Result<NonNull<rte_flow_actions_template>, Failure> {
        let mut attr = dpdk_sys::rte_flow_actions_template_attr::default();
        match rule.place.domain {
            Domain::Transfer => attr.set_transfer(1),
            Domain::Ingress => attr.set_ingress(1),
            Domain::Egress => attr.set_egress(1),
        }
        // Values that masks leave out are the first rule's: drivers read the lengths of headers from them.
        let (actions, masks) = (rule.actions.raw(), rule.actions.raw_masks());
        let mut error = rte_flow_error::default();
        // SAFETY: both arrays end in END and are of the same length; they and what they point to live until after the call.
        let template = unsafe {
            dpdk_sys::rte_flow_actions_template_create(
                self.port,
                &raw const attr,
                actions.as_ptr(),
                masks.as_ptr(),
                &raw mut error,
            )
        };
        NonNull::new(template).ok_or_else(|| failure(0, &error))
    }

    fn drop_pattern(&self, pattern: NonNull<rte_flow_pattern_template>) {
        let mut error = rte_flow_error::default();
        // SAFETY: of this port; no table uses it. What fails to go goes with the port.
        unsafe { dpdk_sys::rte_flow_pattern_template_destroy(self.port, pattern.as_ptr(), &raw mut error) };
    }

    fn drop_actions(&self, actions: NonNull<rte_flow_actions_template>) {
        let mut error = rte_flow_error::default();
        // SAFETY: of this port; no table uses it. What fails to go goes with the port.
        unsafe { dpdk_sys::rte_flow_actions_template_destroy(self.port, actions.as_ptr(), &raw mut error) };
    }

    /// Tables without rules go; one that the driver still wants stays.
    pub(super) fn drop_empty(&mut self) {
        let port = self.port;
        let mut orphans = Vec::new();
        self.tables.retain(|table| {
            if table.rules > 0 {
                return true;
            }
            let mut error = rte_flow_error::default();
            // SAFETY: of this port; it has no rules, and no operation on it is in flight.
            let code = unsafe { dpdk_sys::rte_flow_template_table_destroy(port, table.table.as_ptr(), &raw mut error) };
            if check(code, &error).is_err() {
                return true;
            }
            orphans.push((table.pattern, table.actions));
            false
        });
        for (pattern, actions) in orphans {
            self.drop_pattern(pattern);
            self.drop_actions(actions);
        }
    }
}
