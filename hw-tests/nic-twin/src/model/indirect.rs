//! Indirect actions: COUNT and AGE that rules share.

use std::time::Duration;

use super::ActionKind;
use super::action::{Action, IndirectId, PortId};
use super::counter::{AgeOwner, AgeState, AgeUpdate, Aged, Hits};
use super::error::{EBUSY, EINVAL, ENODEV, ENOENT, ENOMEM, ENOTSUP, ErrorKind, FlowError};
use super::nic::{Indirect, Nic, Shared};
use super::profile::Profile;

const UNKNOWN: FlowError = FlowError::new(ENOENT, ErrorKind::Action, c"no such indirect action");

fn shareable(profile: &Profile, kind: ActionKind) -> bool {
    profile.has_action(ActionKind::Indirect)
        && profile.has_action(kind)
        && matches!(kind, ActionKind::Count | ActionKind::Age)
}

impl Nic {
    pub(crate) fn indirect(&self, id: IndirectId) -> Option<&Indirect> {
        self.indirects
            .get(id.0 as u32 as usize)
            .filter(|indirect| indirect.live && u64::from(indirect.generation) == id.0 >> 32)
    }

    /// Creates an indirect action: COUNT or AGE.
    ///
    /// # Errors
    /// ENOTSUP: another action, or a NIC without them. ENOMEM: no counter is left. ENODEV: no such port.
    pub fn create_indirect(&mut self, port: PortId, action: &Action, now: Duration) -> Result<IndirectId, FlowError> {
        if !self.ports.contains_key(&port) {
            return Err(FlowError::new(ENODEV, ErrorKind::Unspecified, c"no such port"));
        }
        if !shareable(&self.profile, action.kind()) {
            return Err(FlowError::new(ENOTSUP, ErrorKind::Action, c"this NIC does not share this action"));
        }
        let place = self.free_indirects.last().map_or(self.indirects.len(), |&place| place as usize);
        let generation = self.indirects.get(place).map_or(1, |old| old.generation.wrapping_add(1).max(1));
        let id = u64::from(generation) << 32 | place as u64;
        let shared = match *action {
            Action::Age { timeout, .. } if timeout > 0x00ff_ffff => {
                return Err(FlowError::new(EINVAL, ErrorKind::ActionConf, c"a timeout has 24 bits"));
            }
            Action::Age { timeout, context } => {
                let what = Aged { context, owner: AgeOwner::Indirect(id) };
                Shared::Age(self.ages.create(port, timeout, what, now))
            }
            _ => {
                if self.used_counters() >= self.counter_limit() {
                    return Err(FlowError::new(ENOMEM, ErrorKind::Action, c"no counter is left"));
                }
                Shared::Count(self.new_counter())
            }
        };
        let indirect = Indirect { generation, live: true, port, shared, users: 0 };
        match self.indirects.get_mut(place) {
            Some(slot) => {
                *slot = indirect;
                self.free_indirects.pop();
            }
            None => self.indirects.push(indirect),
        }
        Ok(IndirectId(id))
    }

    /// Destroys an indirect action.
    ///
    /// # Errors
    /// EBUSY: rules use it. ENOENT: no such action.
    pub fn destroy_indirect(&mut self, id: IndirectId) -> Result<(), FlowError> {
        let indirect = *self.indirect(id).ok_or(UNKNOWN)?;
        if indirect.users > 0 {
            return Err(FlowError::new(EBUSY, ErrorKind::Action, c"rules use this action"));
        }
        if let Some(slot) = self.indirects.get_mut(id.0 as u32 as usize) {
            slot.live = false;
        }
        self.free_indirects.push(id.0 as u32);
        self.release(indirect.shared);
        Ok(())
    }

    /// Changes an indirect AGE action.
    ///
    /// # Errors
    /// ENOENT: no such action. EINVAL: it is no AGE action, or the timeout is over 24 bits.
    pub fn update_age(&mut self, id: IndirectId, update: AgeUpdate, now: Duration) -> Result<(), FlowError> {
        match self.indirect(id).ok_or(UNKNOWN)?.shared {
            Shared::Age(age) if update.timeout.is_none_or(|timeout| timeout <= 0x00ff_ffff) => {
                self.ages.update(age, update, now);
                Ok(())
            }
            _ => Err(FlowError::new(EINVAL, ErrorKind::ActionConf, c"not an update of this action")),
        }
    }

    /// Reads an indirect COUNT action.
    ///
    /// # Errors
    /// ENOENT: no such action. EINVAL: it does not count.
    pub fn query_indirect_count(&mut self, id: IndirectId, reset: bool, now: Duration) -> Result<Hits, FlowError> {
        let Shared::Count(counter) = self.indirect(id).ok_or(UNKNOWN)?.shared else {
            return Err(FlowError::new(EINVAL, ErrorKind::Action, c"the action does not count"));
        };
        let refresh = self.refresh();
        self.counters.get_mut(counter as usize).map(|counter| counter.query(reset, now, refresh)).ok_or(UNKNOWN)
    }

    /// Reads an indirect AGE action.
    ///
    /// # Errors
    /// ENOENT: no such action. EINVAL: it does not age.
    pub fn query_indirect_age(&self, id: IndirectId, now: Duration) -> Result<AgeState, FlowError> {
        match self.indirect(id).ok_or(UNKNOWN)?.shared {
            Shared::Age(age) => self.ages.query(age, now).ok_or(UNKNOWN),
            Shared::Count(_) => Err(FlowError::new(EINVAL, ErrorKind::Action, c"the action does not age")),
        }
    }
}
