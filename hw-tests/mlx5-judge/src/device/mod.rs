//! The device beside its driver: the record of this process as it grows, frames through it, and counts back to the driver.
//!
//! The C library below the driver calls [`Device`] with every event, in the driver's own call. So a listener runs between any two
//! calls of the driver, and may send frames through the device as it is there and then.

pub(crate) mod abi;

use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use crate::{
    Below, Fault,
    machine::{self, Passage, Port},
    record::{Change, Record},
};

/// The library that stands below the driver is not in this process: it was not preloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the library below the driver is not loaded: start the program with LD_PRELOAD")]
pub struct NotBelow;

/// Hears of every event, with the record behind it.
pub type Listener = Box<dyn FnMut(&Change, &Record) + Send>;

#[derive(Default)]
struct State {
    record: Record,
    listener: Option<Listener>,
    /// What could not be read: the record is not what the driver made.
    error: Option<String>,
}

/// The device of this process.
pub struct Device {
    state: Mutex<State>,
    below: Below,
}

impl Device {
    /// Listens from now on; to be called before the driver is loaded. Further calls find the same device.
    ///
    /// # Errors
    /// [`NotBelow`].
    pub fn attach() -> Result<&'static Self, NotBelow> {
        static DEVICE: OnceLock<Device> = OnceLock::new();
        static LISTENS: Once = Once::new();
        if let Some(device) = DEVICE.get() {
            return Ok(device);
        }
        let below = Below::find().ok_or(NotBelow)?;
        let device = DEVICE.get_or_init(|| Self { state: Mutex::default(), below });
        LISTENS.call_once(|| below.on_record(Box::new(|line| device.hear(line))));
        Ok(device)
    }

    /// Has something hear every event from now on, in the driver's own call.
    pub fn listen(&self, listener: Listener) {
        self.state().listener = Some(listener);
    }

    /// Begins a fault.
    pub fn fault(&self, fault: Fault) {
        self.below.fault(fault);
    }

    /// A frame comes by a port. Counters that it meets are the driver's to read.
    ///
    /// # Errors
    /// Why the record is not what the driver made.
    pub fn receive(&self, port: Port, frame: &[u8]) -> Result<Passage, String> {
        self.pass(|record| machine::receive(record, port, frame))
    }

    /// Software sends a frame by a port.
    ///
    /// # Errors
    /// As for [`Device::receive`].
    pub fn transmit(&self, port: Port, frame: &[u8]) -> Result<Passage, String> {
        self.pass(|record| machine::transmit(record, port, frame))
    }

    fn pass(&self, through: impl FnOnce(&Record) -> Passage) -> Result<Passage, String> {
        let state = self.state();
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let passage = through(&state.record);
        for counted in &passage.counted {
            self.below.count(counted.counter.base, counted.counter.offset, 1, counted.octets);
        }
        Ok(passage)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: &str) {
        let mut state = self.state();
        let State { record, listener, error } = &mut *state;
        match record.line(line) {
            Ok(change) => {
                if let Some(listener) = listener {
                    listener(&change, record);
                }
            }
            Err(why) => _ = error.get_or_insert(format!("{why}: {line}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_below_there_is_no_device() {
        assert_eq!(Device::attach().err(), Some(NotBelow));
    }
}
