//! The template API: templates, tables, and queues of operations.
//!
//! As the guide has it: a postponed operation waits in its queue until a push, or until one follows that isn't postponed. Each
//! operation has one result, in the order in which the NIC finishes. A queue holds so many operations as it was configured for,
//! from the enqueue until the result is pulled; more are refused with EAGAIN.

use std::{collections::VecDeque, time::Duration};

use super::{
    actions::{self, OwnedAction},
    error::Refusal,
    items::{self, OwnedItem},
    number::ByNumber,
    state::{Handle, State, World},
};
use crate::model::{Attr, EAGAIN, EINVAL, Item, RuleId};

/// Queues a port may have, and operations in one of them.
pub(super) const QUEUES: u32 = 64;
/// See [`QUEUES`].
pub(super) const OPERATIONS: u32 = 4096;
/// Operations in a queue that was configured without a size.
pub(super) const DEFAULT_SIZE: u32 = 64;

/// A template table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) attr: Attr,
    pub(super) room: u32,
    pub(super) rules: u32,
    pub(super) patterns: Vec<Handle>,
    pub(super) actions: Vec<Handle>,
}

/// An actions template.
#[derive(Debug, Clone)]
pub(super) struct ActionsTemplate {
    pub(super) actions: Vec<OwnedAction>,
    pub(super) masks: Vec<OwnedAction>,
}

/// What an operation will do.
#[derive(Debug)]
pub(super) enum Work {
    /// Give the rule of this handle to the NIC.
    Create { handle: Handle, attr: Attr, pattern: Vec<OwnedItem>, actions: Vec<OwnedAction> },
    /// Take it away.
    Destroy { handle: Handle },
    /// Done at the enqueue already; only the result is outstanding (shared actions).
    Done { success: bool },
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) work: Work,
    /// The application's value, which comes back with the result.
    pub(super) user: usize,
}

/// A result that has or has not come yet.
#[derive(Debug, Clone, Copy)]
struct Outcome {
    ready: Duration,
    success: bool,
    user: usize,
}

/// A queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    size: usize,
    postponed: VecDeque<Operation>,
    outcomes: VecDeque<Outcome>,
}

/// What `rte_flow_configure` sets up.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub(super) queues: Vec<Queue>,
    pub(super) patterns: ByNumber<Handle, Vec<OwnedItem>>,
    pub(super) actions: ByNumber<Handle, ActionsTemplate>,
    pub(super) tables: ByNumber<Handle, Table>,
}

impl Engine {
    /// With queues of these sizes.
    pub(super) fn new(sizes: impl Iterator<Item = u32>) -> Engine {
        let queue = |size: u32| Queue { size: size as usize, ..Queue::default() };
        Engine { queues: sizes.map(queue).collect(), ..Engine::default() }
    }

    /// Forgets operations whose rules are gone.
    pub(super) fn stop(&mut self) {
        for queue in &mut self.queues {
            queue.postponed.clear();
            queue.outcomes.clear();
        }
        self.tables.values_mut().for_each(|table| table.rules = 0);
    }
}

impl World {
    /// What `rte_flow_configure` set up on a port.
    pub(super) fn engine(&mut self, port: u16) -> Result<&mut Engine, Refusal> {
        let engine = self.ports.get_mut(&port).and_then(|port| port.engine.as_mut());
        engine.ok_or(Refusal::new(EINVAL, c"the flow engine is not configured"))
    }

    fn queue(&mut self, port: u16, queue: u32) -> Result<&mut Queue, Refusal> {
        let queue = self.engine(port)?.queues.get_mut(queue as usize);
        queue.ok_or(Refusal::new(EINVAL, c"no such flow queue"))
    }

    /// Has the queue room for one more?
    pub(super) fn room(&mut self, port: u16, queue: u32) -> Result<(), Refusal> {
        let queue = self.queue(port, queue)?;
        if queue.postponed.len() + queue.outcomes.len() >= queue.size {
            return Err(Refusal::new(EAGAIN, c"the flow queue is full: push and pull"));
        }
        Ok(())
    }

    /// Enqueues; see the module.
    pub(super) fn enqueue(
        &mut self,
        port: u16,
        queue: u32,
        operation: Operation,
        postpone: bool,
    ) -> Result<(), Refusal> {
        self.queue(port, queue)?.postponed.push_back(operation);
        if postpone { Ok(()) } else { self.push(port, queue) }
    }

    /// Gives everything postponed to the NIC.
    pub(super) fn push(&mut self, port: u16, queue: u32) -> Result<(), Refusal> {
        while let Some(operation) = self.queue(port, queue)?.postponed.pop_front() {
            let (ready, success) = self.execute(port, operation.work);
            self.queue(port, queue)?.outcomes.push_back(Outcome { ready, success, user: operation.user });
        }
        Ok(())
    }

    /// Results that have come, in order: success and the application's value.
    pub(super) fn pull(&mut self, port: u16, queue: u32, most: usize) -> Result<Vec<(bool, usize)>, Refusal> {
        let now = self.now();
        let queue = self.queue(port, queue)?;
        let ready = queue.outcomes.iter().take(most).take_while(|outcome| outcome.ready <= now).count();
        Ok(queue.outcomes.drain(..ready).map(|outcome| (outcome.success, outcome.user)).collect())
    }

    /// Does the work; when its result comes, and which.
    fn execute(&mut self, port: u16, work: Work) -> (Duration, bool) {
        let now = self.now();
        match work {
            Work::Done { success } => (now, success),
            Work::Destroy { handle } => {
                let Some(flow) = self.flows.remove(&handle) else { return (now, false) };
                if let (Some(table), Ok(engine)) = (flow.table, self.engine(port))
                    && let Some(table) = engine.tables.get_mut(&table)
                {
                    table.rules = table.rules.saturating_sub(1);
                }
                let State::Leaving(Some(rule)) = flow.state else { return (now, true) };
                (now, self.nic.destroy(rule).is_ok())
            }
            Work::Create { handle, attr, pattern, actions } => {
                let result = self.insert(port, handle, attr, &pattern, &actions);
                items::give_back(pattern);
                let ready = result.map_or(now, |(_, at)| at);
                let Some(flow) = self.flows.get_mut(&handle) else { return (now, false) };
                flow.state = result.map_or(State::Failed, |(rule, _)| State::Live(rule));
                (ready, result.is_ok())
            }
        }
    }

    /// Gives a rule to the NIC; its number there, and when it is in force.
    pub(super) fn insert(
        &mut self,
        port: u16,
        handle: Handle,
        attr: Attr,
        pattern: &[OwnedItem],
        actions: &[OwnedAction],
    ) -> Result<(RuleId, Duration), InsertError> {
        let now = self.now();
        let pattern: Vec<Item<'_>> = pattern.iter().map(OwnedItem::item).collect();
        let shared = &self.shared;
        let indirect = |handle: u64| shared.get(&handle).filter(|shared| shared.port == port)?.id;
        let actions = actions::list(actions, Some(handle), &indirect).map_err(InsertError::Glue)?;
        let inserted = self.nic.insert(port, &attr, &pattern, &actions, now).map_err(InsertError::Nic)?;
        Ok((inserted.id, inserted.at))
    }
}

/// Which side refused a rule.
#[derive(Debug, Clone, Copy)]
pub(super) enum InsertError {
    /// What could not be read.
    Glue(Refusal),
    /// The NIC.
    Nic(crate::model::FlowError),
}
