//! A VLAN switch in user space: access ports of single VLANs, one trunk with all of them tagged. It stands where the kernel has
//! no 802.1Q module.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{LabError, Namespace, io::RawSocket};

const MACS: usize = 12;
const TAG: usize = 4;
const TPID: [u8; 2] = [0x81, 0x00];
/// Frames that one port may pass before the others get their turn.
const BATCH: usize = 64;

/// A running switch: a thread that moves frames between devices of one namespace until it is dropped.
#[derive(Debug)]
pub struct AccessSwitch {
    forwarded: Arc<AtomicU64>,
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl AccessSwitch {
    /// Starts it on a trunk device and access devices with their VLAN (1..=4094).
    ///
    /// A frame from an access port leaves on the trunk with the port's tag; a frame from the trunk leaves without tag on the
    /// port of its VLAN, and is dropped when there is none or when it has no tag.
    ///
    /// # Errors
    /// [`LabError::Io`] when a socket cannot be opened.
    pub fn start(namespace: &Namespace, trunk: &str, access: &[(&str, u16)]) -> Result<Self, LabError> {
        let mut ports = Ports {
            trunk: RawSocket::open(namespace, trunk)?,
            access: access
                .iter()
                .map(|(device, vid)| Ok((*vid, RawSocket::open(namespace, device)?)))
                .collect::<Result<_, LabError>>()?,
            forwarded: Arc::default(),
        };
        // Closed in programs that the lab starts: one that lived longer would keep the write end open.
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(LabError::os("pipe"))?;
        let forwarded = Arc::clone(&ports.forwarded);
        let thread = std::thread::Builder::new()
            .name("access-switch".to_owned())
            .spawn(move || ports.run(&stopped))
            .map_err(LabError::io("start the switch's thread"))?;
        Ok(Self { forwarded, stop: Some(stop), thread: Some(thread) })
    }

    /// Frames that it has moved.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }
}

impl Drop for AccessSwitch {
    fn drop(&mut self) {
        // Closing the write end wakes the thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Ports {
    trunk: RawSocket,
    access: Vec<(u16, RawSocket)>,
    forwarded: Arc<AtomicU64>,
}

impl Ports {
    fn run(&mut self, stopped: &OwnedFd) {
        let mut buffer = vec![0; RawSocket::MAX_FRAME];
        loop {
            {
                let wanted = std::iter::once(stopped.as_fd())
                    .chain(std::iter::once(self.trunk.as_fd()))
                    .chain(self.access.iter().map(|(_, socket)| socket.as_fd()));
                let mut fds: Vec<_> = wanted.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
                if poll(&mut fds, PollTimeout::NONE).is_err() {
                    continue;
                }
                if fds.first().and_then(PollFd::revents).is_some_and(|events| !events.is_empty()) {
                    return;
                }
            }
            self.downward(&mut buffer);
            self.upward(&mut buffer);
        }
    }

    /// Trunk to access ports. A port that is gone or full loses its frame, as a switch does.
    fn downward(&mut self, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok(Some(frame)) = self.trunk.receive(buffer) else { return };
            let Some((vid, untagged)) = pop_tag(frame.bytes) else { continue };
            for (_, port) in self.access.iter().filter(|(of, _)| *of == vid) {
                self.forwarded.fetch_add(u64::from(matches!(port.send(untagged), Ok(true))), Ordering::Relaxed);
            }
        }
    }

    /// Access ports to trunk.
    fn upward(&mut self, buffer: &mut [u8]) {
        let mut tagged = Vec::with_capacity(RawSocket::MAX_FRAME);
        for (vid, port) in &mut self.access {
            for _ in 0..BATCH {
                let Ok(Some(frame)) = port.receive(buffer) else { break };
                if push_tag(frame.bytes, *vid, &mut tagged) {
                    self.forwarded
                        .fetch_add(u64::from(matches!(self.trunk.send(&tagged), Ok(true))), Ordering::Relaxed);
                }
            }
        }
    }
}

/// VLAN of a tagged frame, and the frame without the tag.
fn pop_tag(frame: &mut [u8]) -> Option<(u16, &[u8])> {
    let tag: [u8; TAG] = frame.get(MACS..MACS + TAG)?.try_into().ok()?;
    let [t0, t1, c0, c1] = tag;
    if [t0, t1] != TPID {
        return None;
    }
    frame.copy_within(..MACS, TAG);
    Some((u16::from_be_bytes([c0, c1]) & 0x0fff, frame.get(TAG..)?))
}

/// Writes the frame with a tag of this VLAN to `out`; false when it is too short to be one.
fn push_tag(frame: &[u8], vid: u16, out: &mut Vec<u8>) -> bool {
    let Some((macs, rest)) = frame.split_at_checked(MACS) else { return false };
    out.clear();
    out.extend_from_slice(macs);
    out.extend_from_slice(&TPID);
    out.extend_from_slice(&vid.to_be_bytes());
    out.extend_from_slice(rest);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_tag_is_popped_again() {
        let frame: Vec<u8> = (0..60).collect();
        let mut tagged = Vec::new();
        assert!(push_tag(&frame, 300, &mut tagged));
        assert_eq!(tagged.get(12..16), Some(&[0x81, 0x00, 0x01, 0x2c][..]));
        assert_eq!(pop_tag(&mut tagged), Some((300, frame.as_slice())));
    }

    #[test]
    fn an_untagged_frame_has_no_vlan() {
        let mut frame: Vec<u8> = (0..60).collect();
        assert_eq!(pop_tag(&mut frame), None);
        assert_eq!(pop_tag(&mut [0; 13]), None);
    }
}
