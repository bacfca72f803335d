//! Template tables of one port: one for each shape of rules, made when a rule of the shape first comes.

use std::ptr::NonNull;

use dpdk_sys::{
    rte_flow_actions_template, rte_flow_error, rte_flow_pattern_template, rte_flow_template_table,
    rte_flow_template_table_attr,
};

use super::{
    error::{check, failure},
    translation::{Shape, Translation},
};
use crate::offload::Failure;

/// Tables that a port has at most: shapes come from the program, not from packets, so this many is a lot.
const TABLES: usize = 256;

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
    /// Rules that are in it, or on the way in or out.
    rules: usize,
}

/// Tables of one port.
#[derive(Debug)]
pub(super) struct Tables {
    port: u16,
    capacity: u32,
    /// In the order of their making: the first are used most.
    tables: Vec<Table>,
    made: TableId,
}

// SAFETY: the driver's tables and templates are used by the one thread that calls the backend.
unsafe impl Send for Tables {}

impl Tables {
    /// `capacity` is the number of rules that each table holds.
    pub(super) fn new(port: u16, capacity: u32) -> Self {
        Self { port, capacity, tables: Vec::new(), made: 0 }
    }

    /// The table for a rule.
    pub(super) fn table(&mut self, rule: &Translation) -> Result<(TableId, *mut rte_flow_template_table), Failure> {
        let hash = rule.shape_hash();
        if let Some(table) = self.tables.iter().find(|table| table.hash == hash && rule.is_of(&table.shape)) {
            return Ok((table.id, table.table.as_ptr()));
        }
        if self.tables.len() >= TABLES {
            self.drop_empty();
        }
        if self.tables.len() >= TABLES {
            return Err(Failure::from_errno(libc::ENOSPC, "there are too many shapes of rules for template tables"));
        }
        let table = self.make(rule)?;
        self.made += 1;
        let found = (table.id, table.table.as_ptr());
        self.tables.push(table);
        Ok(found)
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

    fn make(&self, rule: &Translation) -> Result<Table, Failure> {
        let pattern = self.pattern(rule)?;
        let actions = self.actions(rule).inspect_err(|_| self.drop_pattern(pattern))?;
        #[allow(clippy::needless_update, reason = "23.11 added fields")]
        let attr = rte_flow_template_table_attr {
            flow_attr: rule.place.attr(),
            nb_flows: self.capacity,
            ..Default::default()
        };
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
                Ok(Table { id, hash, shape, table, pattern, actions, rules: 0 })
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
        if rule.place.transfer {
            attr.set_transfer(1);
        } else {
            attr.set_ingress(1);
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
        if rule.place.transfer {
            attr.set_transfer(1);
        } else {
            attr.set_ingress(1);
        }
        // Values that masks leave out are the first rule's: drivers read the lengths of headers from them.
        let (actions, masks) = (rule.actions.raw(0), rule.actions.raw_masks());
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
