//! Counters and ageing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::action::PortId;

/// Packets and octets. An octet count is of the frame as the rule met it, before its actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hits {
    /// Packets.
    pub packets: u64,
    /// Octets, from the Ethernet header on.
    pub bytes: u64,
}

/// A counter that is read in intervals: queries answer what it was at the last tick.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counter {
    live: Hits,
    shown: Hits,
    base: Hits,
    tick: u64,
}

fn tick(now: Duration, refresh: Duration) -> u64 {
    if refresh.is_zero() { 0 } else { (now.as_nanos() / refresh.as_nanos()) as u64 }
}

impl Counter {
    fn catch_up(&mut self, now: Duration, refresh: Duration) {
        let tick = tick(now, refresh);
        if refresh.is_zero() || tick > self.tick {
            self.shown = self.live;
            self.tick = tick;
        }
    }

    pub(crate) fn count(&mut self, bytes: usize, now: Duration, refresh: Duration) {
        self.catch_up(now, refresh);
        self.live.packets += 1;
        self.live.bytes += bytes as u64;
    }

    pub(crate) fn query(&mut self, reset: bool, now: Duration, refresh: Duration) -> Hits {
        self.catch_up(now, refresh);
        let hits = Hits { packets: self.shown.packets - self.base.packets, bytes: self.shown.bytes - self.base.bytes };
        if reset {
            self.base = self.shown;
        }
        hits
    }
}

/// What a query of an AGE action answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgeState {
    /// The timeout passed without a packet.
    pub aged: bool,
    /// Whole seconds since the last packet, or since the rule was made.
    pub seconds_since_hit: u32,
}

/// Changes an indirect AGE action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgeUpdate {
    /// New timeout in seconds; 0 stops.
    pub timeout: Option<u32>,
    /// As if a packet had passed.
    pub touch: bool,
}

/// Owner of an AGE action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeOwner {
    /// A rule, by its number.
    Rule(u64),
    /// An indirect action, by its number.
    Indirect(u64),
}

/// A flow that aged out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aged {
    /// The context given with the action, if any.
    pub context: Option<u64>,
    /// Owner of the AGE action.
    pub owner: AgeOwner,
}

#[derive(Debug, Clone, Copy)]
struct Age {
    generation: u32,
    live: bool,
    timeout: Duration,
    last: Duration,
    aged: bool,
    waiting: bool,
    port: PortId,
    what: Aged,
}

/// All AGE actions. A deadline that a packet has moved is looked at again when it comes, so a hit costs a store.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    all: Vec<Age>,
    free: Vec<u32>,
    deadlines: BinaryHeap<Reverse<(Duration, u32, u32)>>,
    expired: Vec<(u32, u32)>,
}

impl Ages {
    pub(crate) fn create(&mut self, port: PortId, timeout: u32, what: Aged, now: Duration) -> u32 {
        let index = self.free.pop().unwrap_or(self.all.len() as u32);
        let generation = self.all.get(index as usize).map_or(0, |age| age.generation + 1);
        let timeout = Duration::from_secs(timeout.into());
        let age = Age { generation, live: true, timeout, last: now, aged: false, waiting: false, port, what };
        match self.all.get_mut(index as usize) {
            Some(slot) => *slot = age,
            None => self.all.push(age),
        }
        self.arm(index);
        index
    }

    pub(crate) fn destroy(&mut self, index: u32) {
        if let Some(age) = self.all.get_mut(index as usize).filter(|age| age.live) {
            age.live = false;
            self.free.push(index);
        }
    }

    fn arm(&mut self, index: u32) {
        if let Some(age) = self.all.get_mut(index as usize)
            && !age.waiting
            && !age.timeout.is_zero()
        {
            age.waiting = true;
            self.deadlines.push(Reverse((age.last + age.timeout, index, age.generation)));
        }
    }

    pub(crate) fn hit(&mut self, index: u32, now: Duration) {
        let Some(age) = self.all.get_mut(index as usize) else { return };
        age.last = age.last.max(now);
        if age.aged {
            age.aged = false;
            self.arm(index);
        }
    }

    pub(crate) fn update(&mut self, index: u32, update: AgeUpdate, now: Duration) {
        if let Some(age) = self.all.get_mut(index as usize)
            && let Some(timeout) = update.timeout
        {
            age.timeout = Duration::from_secs(timeout.into());
            // A deadline in the heap may be later than the new one: a new life begins.
            age.generation += 1;
            age.waiting = false;
            age.aged = false;
            self.arm(index);
        }
        if update.touch {
            self.hit(index, now);
        }
    }

    /// Moves what is due to the list of expired ones.
    fn advance(&mut self, now: Duration) {
        while let Some(&Reverse((deadline, index, generation))) = self.deadlines.peek()
            && deadline <= now
        {
            self.deadlines.pop();
            let Some(age) = self.all.get_mut(index as usize) else { continue };
            if !age.live || age.generation != generation {
                continue;
            }
            age.waiting = false;
            if age.last + age.timeout > now {
                self.arm(index);
            } else if !age.timeout.is_zero() {
                age.aged = true;
                self.expired.push((index, generation));
            }
        }
    }

    fn still_aged(all: &[Age], &(index, generation): &(u32, u32)) -> Option<Age> {
        all.get(index as usize).copied().filter(|age| age.live && age.aged && age.generation == generation)
    }

    pub(crate) fn count(&mut self, port: PortId, now: Duration) -> usize {
        self.advance(now);
        let all = &self.all;
        self.expired.retain(|item| Ages::still_aged(all, item).is_some());
        self.expired.iter().filter_map(|item| Ages::still_aged(all, item)).filter(|age| age.port == port).count()
    }

    pub(crate) fn take(&mut self, port: PortId, now: Duration, max: usize, into: &mut Vec<Aged>) {
        self.advance(now);
        let (all, mut room) = (&self.all, max);
        self.expired.retain(|item| match Ages::still_aged(all, item) {
            None => false,
            Some(age) if age.port == port && room > 0 => {
                room -= 1;
                into.push(age.what);
                false
            }
            Some(_) => true,
        });
    }

    pub(crate) fn query(&self, index: u32, now: Duration) -> Option<AgeState> {
        let age = self.all.get(index as usize)?;
        let since = now.saturating_sub(age.last);
        let aged = !age.timeout.is_zero() && since >= age.timeout;
        Some(AgeState { aged, seconds_since_hit: since.as_secs().min(0x00ff_ffff) as u32 })
    }
}
