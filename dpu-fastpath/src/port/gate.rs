//! Excludes calls of rte_flow while a port starts or stops: a driver that stops a port releases its rules, and a handle of
//! such a rule must not reach it again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    open: Arc<RwLock<()>>,
    /// How often each port has stopped.
    stops: Arc<Mutex<BTreeMap<u16, u64>>>,
}

impl Gate {
    /// As long as this is held no port starts or stops. Not reentrant.
    pub fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a port, or configures it, exclusively.
    pub(super) fn start<T>(&self, start: impl FnOnce() -> T) -> T {
        let _closed = self.open.write().unwrap_or_else(PoisonError::into_inner);
        start()
    }

    /// Stops a port exclusively; later callers find that its rules are gone.
    pub fn stop(&self, port: u16, stop: impl FnOnce()) {
        let _closed = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *self.stops.lock().unwrap_or_else(PoisonError::into_inner).entry(port).or_default() += 1;
        stop();
    }

    /// How often a port has stopped: its rules of before are no more.
    #[must_use]
    pub fn stops(&self, port: u16) -> u64 {
        self.stops.lock().unwrap_or_else(PoisonError::into_inner).get(&port).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn a_port_stops_when_nobody_is_at_its_rules_and_is_known_to_have() {
        let gate = Gate::default();
        let inside = gate.pass();
        let (tell, hear) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| gate.stop(7, || tell.send(()).unwrap()));
            assert!(hear.recv_timeout(Duration::from_millis(20)).is_err(), "somebody is inside");
            drop(inside);
            hear.recv_timeout(Duration::from_secs(10)).unwrap();
        });
        assert_eq!((gate.stops(7), gate.stops(8)), (1, 0));
    }
}
