//! Two ports of one process that are each other's wire: for tests and benchmarks, without a kernel between.

use std::{os::fd::BorrowedFd, sync::Arc};

use crossbeam_queue::ArrayQueue;

use super::{Port, PortError};
use crate::packet::Packet;

/// One end of a wire in memory. Frames are moved, never copied.
#[derive(Debug)]
pub struct MemoryPort {
    name: String,
    incoming: Arc<ArrayQueue<Packet>>,
    outgoing: Arc<ArrayQueue<Packet>>,
}

/// The two ends of a wire that holds up to `frames` frames (at least one) in each direction.
#[must_use]
pub fn pair(name: &str, frames: usize) -> (MemoryPort, MemoryPort) {
    let one = Arc::new(ArrayQueue::new(frames.max(1)));
    let other = Arc::new(ArrayQueue::new(frames.max(1)));
    (
        MemoryPort { name: name.to_owned(), incoming: Arc::clone(&one), outgoing: Arc::clone(&other) },
        MemoryPort { name: name.to_owned(), incoming: other, outgoing: one },
    )
}

impl MemoryPort {
    fn other_end_is_gone(&self) -> bool {
        Arc::strong_count(&self.incoming) == 1
    }

    fn gone(&self) -> PortError {
        PortError::NoDevice { device: self.name.clone() }
    }
}

impl Port for MemoryPort {
    /// # Errors
    /// [`PortError::NoDevice`] once the other end is dropped and all its frames are read.
    fn receive(&mut self, into: &mut Vec<Packet>, _spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        let before = into.len();
        into.extend(std::iter::from_fn(|| self.incoming.pop()).take(max));
        let count = into.len() - before;
        if count == 0 && max > 0 && self.other_end_is_gone() {
            return Err(self.gone());
        }
        Ok(count)
    }

    /// # Errors
    /// [`PortError::NoDevice`] once the other end is dropped.
    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        if self.other_end_is_gone() {
            spare.append(frames);
            return Err(self.gone());
        }
        let mut sent = 0;
        for packet in frames.drain(..) {
            match self.outgoing.push(packet) {
                Ok(()) => sent += 1,
                Err(packet) => spare.push(packet),
            }
        }
        Ok(sent)
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn driver(&self) -> &'static str {
        "net_memory"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_cross_the_wire_in_order_and_a_full_wire_drops() {
        let (mut left, mut right) = pair("wire", 2);
        let mut spare = Vec::new();
        let mut frames: Vec<_> = [b"one", b"two", b"six"].iter().map(|f| Packet::from_frame(*f)).collect();
        assert_eq!(left.transmit(&mut frames, &mut spare).unwrap(), 2);
        assert!(frames.is_empty());
        assert_eq!(spare.len(), 1);
        assert_eq!(right.receive(&mut frames, &mut spare, 1).unwrap(), 1);
        assert_eq!(right.receive(&mut frames, &mut spare, 64).unwrap(), 1);
        assert_eq!(right.receive(&mut frames, &mut spare, 64).unwrap(), 0);
        let got: Vec<_> = frames.iter().map(Packet::data).collect();
        assert_eq!(got, [b"one", b"two"]);
    }

    #[test]
    fn a_dropped_end_is_a_device_that_is_gone_after_its_last_frame() {
        let (mut left, mut right) = pair("wire", 2);
        let (mut frames, mut spare) = (vec![Packet::from_frame(b"last")], Vec::new());
        left.transmit(&mut frames, &mut spare).unwrap();
        drop(left);
        assert_eq!(right.receive(&mut frames, &mut spare, 8).unwrap(), 1);
        assert!(matches!(right.receive(&mut frames, &mut spare, 8), Err(PortError::NoDevice { .. })));
        assert!(matches!(right.transmit(&mut frames, &mut spare), Err(PortError::NoDevice { .. })));
    }
}
