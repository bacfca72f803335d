//! The template API: operations are enqueued and pulled, millions in a second.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ffi::c_void,
    ptr::NonNull,
    time::{Duration, Instant},
};

use dpdk_sys::{
    rte_flow_error, rte_flow_op_attr, rte_flow_op_result, rte_flow_op_status, rte_flow_queue_attr,
    rte_flow_template_table,
};
use offload_engine::{Completion, Failure, Hits, RuleBackend, Token, hash::Quick};
use offload_rules::{VifId, lower::Rule};

use super::{
    error::{check, failure},
    nic::{Handle, Installed, Nic},
    style::Style,
    tables::{TableId, Tables},
    translation::Translation,
};
use crate::{
    port::{PortRegistry, configure_bare},
    security::Sessions,
};

/// The queue of every port that this uses: one thread, one queue.
const QUEUE: u32 = 0;
/// Results taken in one call.
const BATCH: usize = 64;
/// Pulls without any result after which [`Asynchronous::flush`] no longer waits for what is in flight.
const IDLE_PULLS: usize = 1000;
/// How long a backend that ends may take to take its rules away.
const PARTING: Duration = Duration::from_secs(2);

/// Resources that are reserved in the NIC before its port starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Operations in flight.
    pub queue: u32,
    /// Rules of the largest template table: each shape of rules begins with a small one.
    pub table: u32,
    /// Counters.
    pub counters: u32,
}

/// Sets resources of a port aside: once, after the port is configured and before it starts (rte_flow guide, "Flow engine
/// configuration"). Sizes are lowered to what the port says that it has; what is set aside is returned. Transfer rules are in the
/// hands of their proxy, which needs this too.
///
/// # Errors
///
/// The driver has no template API (ENOTSUP), or refuses.
pub fn configure(ethdev: u16, sizes: Sizes) -> Result<Sizes, Failure> {
    let mut port = dpdk_sys::rte_flow_port_info::default();
    let mut queue = dpdk_sys::rte_flow_queue_info::default();
    let mut error = rte_flow_error::default();
    // SAFETY: all pointers are to live variables of the right types.
    let code = unsafe { dpdk_sys::rte_flow_info_get(ethdev, &raw mut port, &raw mut queue, &raw mut error) };
    check(code, &error)?;
    // Zero: the driver doesn't say.
    let at_most = |wanted: u32, max: u32| if max == 0 { wanted } else { wanted.min(max) };
    let sizes = Sizes {
        queue: at_most(sizes.queue, queue.max_size).max(1),
        table: sizes.table,
        counters: at_most(sizes.counters, port.max_nb_counters),
    };
    let attr = dpdk_sys::rte_flow_port_attr { nb_counters: sizes.counters, ..Default::default() };
    let queue = rte_flow_queue_attr { size: sizes.queue };
    let mut queues = [&raw const queue];
    // SAFETY: one queue is told, and the array has one.
    let code = unsafe { dpdk_sys::rte_flow_configure(ethdev, &raw const attr, 1, queues.as_mut_ptr(), &raw mut error) };
    check(code, &error)?;
    Ok(sizes)
}

/// Does the driver of a port take rules by templates, as it was started? The port is configured to be asked, and is not to be started before
/// it is configured anew.
#[must_use]
pub fn takes_templates(ethdev: u16) -> bool {
    if !configure_bare(ethdev) {
        return false;
    }
    let mut port = dpdk_sys::rte_flow_port_info::default();
    let mut queue = dpdk_sys::rte_flow_queue_info::default();
    let mut error = rte_flow_error::default();
    // SAFETY: all pointers are to live variables of the right types.
    unsafe { dpdk_sys::rte_flow_info_get(ethdev, &raw mut port, &raw mut queue, &raw mut error) == 0 }
}

/// Life of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Creating,
    Installed,
    Destroying,
}

#[derive(Debug)]
struct Entry {
    rule: Installed,
    table: TableId,
    stage: Stage,
}

/// What a result is of; a pointer's worth that goes to the driver and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create(Token),
    Destroy(Token),
    /// Releases the handle of a rule whose creation failed.
    Cleanup,
}

impl Operation {
    const KINDS: usize = 4;

    fn user_data(self) -> *mut c_void {
        let number = |token: Token, kind: usize| usize::try_from(token).unwrap_or(usize::MAX) * Self::KINDS + kind;
        std::ptr::without_provenance_mut(match self {
            Self::Cleanup => 1,
            Self::Create(token) => number(token, 2),
            Self::Destroy(token) => number(token, 3),
        })
    }

    fn of(user_data: *mut c_void) -> Option<Self> {
        let number = user_data.addr();
        let token = (number / Self::KINDS) as Token;
        match number % Self::KINDS {
            1 => Some(Self::Cleanup),
            2 => Some(Self::Create(token)),
            3 => Some(Self::Destroy(token)),
            _ => None,
        }
    }
}

/// A rule on its way to the driver.
struct Enqueued {
    /// The port that takes it.
    port: u16,
    rule: Translation,
    id: TableId,
    table: *mut rte_flow_template_table,
}

/// A port whose queue is used.
#[derive(Debug)]
struct Lane {
    tables: Tables,
    in_flight: usize,
    /// Enqueued since the last push.
    postponed: bool,
}

/// Rules by `rte_flow_async_create` and `rte_flow_async_destroy`. Nothing waits for the NIC.
///
/// A rule's template table is made when the first of its shape comes: then, and in `validate`, the driver looks at the shape. A failed
/// completion carries no reason (`rte_flow_op_result`), so its errno is EIO. Rules with a range are refused: templates have none. Ports were set up by [`configure`].
#[derive(Debug)]
pub struct Asynchronous {
    nic: Nic,
    sizes: Sizes,
    lanes: BTreeMap<u16, Lane>,
    rules: HashMap<Token, Entry, Quick>,
    completed: Vec<Completion>,
    /// Handles of rules whose creation failed, to be released.
    failed: VecDeque<(Installed, TableId)>,
    /// The rule whose query tells whether the NIC still has its rules.
    sentinel: Option<Token>,
}

impl Asynchronous {
    /// A backend of these ports, which are started and were configured with these sizes.
    #[must_use]
    pub fn new(ports: PortRegistry, style: Style, sizes: Sizes) -> Self {
        Self {
            nic: Nic::new(ports, style),
            sizes,
            lanes: BTreeMap::new(),
            rules: HashMap::default(),
            completed: Vec::new(),
            failed: VecDeque::new(),
            sentinel: None,
        }
    }

    /// The port that takes a rule, its translation and its table.
    fn place(&mut self, rule: &Rule) -> Result<Enqueued, Failure> {
        let (port, rule) = self.nic.translate(rule)?;
        if rule.pattern.has_range() {
            // A template has masks only, and drivers leave out the rule's `last`: a range would match its lower end alone.
            return Err(Failure::from_errno(libc::ENOTSUP, "template tables match no ranges"));
        }
        let (id, table) = self.lane(port).tables.table(&rule)?;
        Ok(Enqueued { port, rule, id, table })
    }

    /// With a session table that is shared with the workers that send with sessions.
    #[must_use]
    pub fn with_sessions(mut self, sessions: Sessions) -> Self {
        self.nic.sessions = sessions;
        self
    }

    fn queue_size(&self) -> usize {
        usize::try_from(self.sizes.queue).unwrap_or(usize::MAX)
    }

    fn lane(&mut self, port: u16) -> &mut Lane {
        let largest = self.sizes.table;
        self.lanes.entry(port).or_insert_with(|| Lane {
            tables: Tables::new(port, largest),
            in_flight: 0,
            postponed: false,
        })
    }

    /// Makes sure that one more operation fits.
    fn room(&mut self, port: u16) -> Result<(), Failure> {
        let size = self.queue_size();
        if self.lane(port).in_flight < size {
            return Ok(());
        }
        self.push()?;
        self.take(port)?;
        if self.lane(port).in_flight < size {
            Ok(())
        } else {
            Err(Failure::from_errno(libc::EAGAIN, "the flow queue is full"))
        }
    }

    /// Enqueues; once more after the queue was pushed and pulled when the driver says EAGAIN.
    fn enqueue<T>(
        &mut self,
        port: u16,
        mut operation: impl FnMut(&rte_flow_op_attr) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.room(port)?;
        let mut attr = rte_flow_op_attr::default();
        attr.set_postpone(1);
        let mut result = operation(&attr);
        if result.as_ref().is_err_and(|failure| failure.errno == libc::EAGAIN) {
            self.push()?;
            self.take(port)?;
            result = operation(&attr);
        }
        if result.is_ok() {
            let lane = self.lane(port);
            lane.in_flight += 1;
            lane.postponed = true;
        }
        result
    }

    fn enqueue_destroy(&mut self, port: u16, handle: Handle, operation: Operation) -> Result<(), Failure> {
        self.enqueue(port, |attr| {
            let mut error = rte_flow_error::default();
            // SAFETY: the handle is of this port, its creation has completed, and it is destroyed once only.
            let code = unsafe {
                dpdk_sys::rte_flow_async_destroy(
                    port,
                    QUEUE,
                    std::ptr::from_ref(attr),
                    handle.0.as_ptr(),
                    operation.user_data(),
                    &raw mut error,
                )
            };
            check(code, &error)
        })
    }

    /// Takes all results of a port's queue; returns how many there were.
    fn take(&mut self, port: u16) -> Result<usize, Failure> {
        let mut total = 0;
        loop {
            let mut results = [rte_flow_op_result::default(); BATCH];
            let mut error = rte_flow_error::default();
            // SAFETY: the array has room for as many results as are asked for.
            let code = unsafe {
                dpdk_sys::rte_flow_pull(
                    port,
                    QUEUE,
                    results.as_mut_ptr(),
                    u16::try_from(BATCH).unwrap_or(0),
                    &raw mut error,
                )
            };
            let count = usize::try_from(code).map_err(|_| failure(code, &error))?;
            for result in results.iter().take(count) {
                self.finish(port, result);
            }
            total += count;
            if count < BATCH {
                return Ok(total);
            }
        }
    }

    fn finish(&mut self, port: u16, result: &rte_flow_op_result) {
        let lane = self.lane(port);
        lane.in_flight = lane.in_flight.saturating_sub(1);
        let done = result.status == rte_flow_op_status::RTE_FLOW_OP_SUCCESS;
        match Operation::of(result.user_data) {
            Some(Operation::Create(token)) if done => {
                let Some(entry) = self.rules.get_mut(&token) else { return };
                entry.stage = Stage::Installed;
                if entry.rule.counts {
                    self.sentinel = Some(token);
                }
                self.completed.push(Completion::Created(token));
            }
            Some(Operation::Create(token)) => {
                let Some(entry) = self.rules.remove(&token) else { return };
                self.nic.gone(entry.rule);
                self.failed.push_back((entry.rule, entry.table));
                self.completed.push(Completion::CreateFailed(token, no_reason()));
            }
            Some(Operation::Destroy(token)) if done => self.destroyed(token),
            Some(Operation::Destroy(token)) => {
                if let Some(entry) = self.rules.get_mut(&token) {
                    entry.stage = Stage::Installed;
                }
                self.completed.push(Completion::DestroyFailed(token, no_reason()));
            }
            Some(Operation::Cleanup) | None => {}
        }
    }

    fn destroyed(&mut self, token: Token) {
        if let Some(entry) = self.rules.remove(&token) {
            self.nic.gone(entry.rule);
            self.lane(entry.rule.port).tables.leave(entry.table);
        }
        self.completed.push(Completion::Destroyed(token));
    }

    /// Lets go of handles of rules that never were, as far as the queues have room.
    fn clean_up(&mut self) {
        for _ in 0..self.failed.len() {
            let Some((rule, table)) = self.failed.pop_front() else { return };
            let held = self.nic.holds(&rule);
            match held.then(|| self.enqueue_destroy(rule.port, rule.handle, Operation::Cleanup)) {
                // Later.
                Some(Err(failure)) if failure.errno == libc::EAGAIN => self.failed.push_back((rule, table)),
                // It goes; or the driver has none: nothing to release.
                _ => self.lane(rule.port).tables.leave(table),
            }
        }
    }

    fn installed(&self, token: Token) -> Result<Installed, Failure> {
        match self.rules.get(&token) {
            None => Err(Failure::from_errno(libc::ENOENT, "there is no such rule")),
            Some(entry) if entry.stage != Stage::Installed => {
                Err(Failure::from_errno(libc::EBUSY, "an operation on the rule has not completed"))
            }
            Some(entry) => Ok(entry.rule),
        }
    }

    /// A counted rule that nothing is happening to.
    fn sentinel(&mut self) -> Option<Installed> {
        let fit = |entry: &Entry| entry.stage == Stage::Installed && entry.rule.counts;
        let known = self.sentinel.filter(|token| self.rules.get(token).is_some_and(fit));
        self.sentinel = known.or_else(|| self.rules.iter().find(|(_, entry)| fit(entry)).map(|(token, _)| *token));
        self.sentinel.and_then(|token| self.rules.get(&token)).map(|entry| entry.rule)
    }

    /// Waits for what is in flight.
    fn drain(&mut self, until: Instant) {
        let mut completed = Vec::new();
        while self.lanes.values().any(|lane| lane.in_flight > 0) && Instant::now() < until {
            if self.push().and_then(|()| self.pull(&mut completed)).is_err() {
                return;
            }
        }
    }

    fn forget(&mut self) {
        self.rules.clear();
        self.completed.clear();
        self.failed.clear();
        self.sentinel = None;
        for lane in self.lanes.values_mut() {
            lane.in_flight = 0;
            lane.postponed = false;
            lane.tables.emptied();
        }
    }
}

impl Drop for Asynchronous {
    /// Takes its rules away, the newest first: none stays without those that it relies on, which are older. The driver does what is in a
    /// queue in its order. What is left, and what was lost with its port, is for the next one's flush.
    fn drop(&mut self) {
        let gate = self.nic.gate();
        let _inside = gate.pass();
        let sentinel = self.sentinel();
        if self.nic.lost(sentinel) {
            return;
        }
        let until = Instant::now() + PARTING;
        self.drain(until);
        let mut tokens: Vec<Token> = self.rules.keys().copied().collect();
        tokens.sort_unstable_by(|a, b| b.cmp(a));
        for token in tokens {
            while let Err(failure) = self.destroy(token) {
                if failure.errno != libc::EAGAIN || Instant::now() >= until {
                    tracing::debug!(token, %failure, "a rule stays until the next flush");
                    break;
                }
            }
        }
        self.drain(until);
    }
}

/// A failed completion has a status and nothing else.
fn no_reason() -> Failure {
    Failure::from_errno(libc::EIO, "the NIC failed the operation; completions carry no reason")
}

impl RuleBackend for Asynchronous {
    fn depth(&self) -> usize {
        self.queue_size()
    }

    /// Makes the template table of the rule's shape: drivers look at shapes, and at values only when a rule is created.
    fn ready(&self) -> bool {
        // Operations are only enqueued.
        true
    }

    fn validate(&mut self, rule: &Rule) -> Result<(), Failure> {
        self.place(rule).map(|_| ())
    }

    fn create(&mut self, token: Token, rule: &Rule) -> Result<(), Failure> {
        let Enqueued { port, rule, id, table } = self.place(rule)?;
        let (items, actions) = (rule.pattern.raw(), rule.actions.raw());
        let handle = self.enqueue(port, |attr| {
            let mut error = rte_flow_error::default();
            // SAFETY: the table is of this port and has the templates of these arrays at index 0; the arrays end in END, and they and
            // what they point to live until after the call: drivers have read them when the operation is enqueued.
            let flow = unsafe {
                dpdk_sys::rte_flow_async_create(
                    port,
                    QUEUE,
                    std::ptr::from_ref(attr),
                    table,
                    items.as_ptr(),
                    0,
                    actions.as_ptr(),
                    0,
                    Operation::Create(token).user_data(),
                    &raw mut error,
                )
            };
            NonNull::new(flow).map(Handle).ok_or_else(|| failure(0, &error))
        })?;
        self.lane(port).tables.enter(id);
        let rule = self.nic.done(port, handle, rule);
        self.rules.insert(token, Entry { rule, table: id, stage: Stage::Creating });
        Ok(())
    }

    fn destroy(&mut self, token: Token) -> Result<(), Failure> {
        let rule = self.installed(token)?;
        if !self.nic.holds(&rule) {
            // It went with its port.
            self.destroyed(token);
            return Ok(());
        }
        self.enqueue_destroy(rule.port, rule.handle, Operation::Destroy(token))?;
        if let Some(entry) = self.rules.get_mut(&token) {
            entry.stage = Stage::Destroying;
        }
        Ok(())
    }

    fn push(&mut self) -> Result<(), Failure> {
        for (port, lane) in self.lanes.iter_mut().filter(|(_, lane)| lane.postponed) {
            let mut error = rte_flow_error::default();
            // SAFETY: the port was configured with this queue; one thread uses it.
            let code = unsafe { dpdk_sys::rte_flow_push(*port, QUEUE, &raw mut error) };
            check(code, &error)?;
            lane.postponed = false;
        }
        Ok(())
    }

    fn pull(&mut self, into: &mut Vec<Completion>) -> Result<(), Failure> {
        let busy: Vec<u16> = self.lanes.iter().filter(|(_, lane)| lane.in_flight > 0).map(|(port, _)| *port).collect();
        let mut result = Ok(());
        for port in busy {
            result = result.and(self.take(port).map(|_| ()));
        }
        if !self.failed.is_empty() {
            self.clean_up();
            result = result.and(self.push());
        }
        into.append(&mut self.completed);
        result
    }

    fn query(&mut self, tokens: &[Token], into: &mut Vec<Result<Hits, Failure>>) {
        into.extend(tokens.iter().map(|token| self.installed(*token).and_then(|rule| self.nic.query(rule))));
    }

    fn transmitted(&mut self, port: VifId) -> Option<u64> {
        self.nic.transmitted(port)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        // What is in flight ends first: a flush in between would take rules from under their operations.
        let mut idle = 0;
        while idle < IDLE_PULLS && self.lanes.values().any(|lane| lane.in_flight > 0) {
            self.push()?;
            let busy: Vec<u16> = self.lanes.keys().copied().collect();
            let mut taken = 0;
            for port in busy {
                taken += self.take(port)?;
            }
            self.clean_up();
            idle = if taken == 0 { idle + 1 } else { 0 };
        }
        self.forget();
        self.nic.flush()
    }

    fn alive(&mut self) -> bool {
        let sentinel = self.sentinel();
        if !self.nic.lost(sentinel) {
            return true;
        }
        // The driver's handles of rules that are no more; what it says about them does not matter. Handles of rules that never were went
        // with them.
        self.failed.clear();
        let _ = self.flush();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_that_goes_to_the_driver_comes_back_as_the_operation() {
        for operation in [
            Operation::Cleanup,
            Operation::Create(0),
            Operation::Destroy(0),
            Operation::Create(7),
            Operation::Destroy(1 << 40),
        ] {
            assert!(!operation.user_data().is_null());
            assert_eq!(Operation::of(operation.user_data()), Some(operation));
        }
        assert_eq!(Operation::of(std::ptr::null_mut()), None);
    }
}
