//! The same for programs that load this library: functions of C.

use std::ffi::c_int;

use super::Device;
use crate::machine::{Lost, Outcome, Passage, Port};

/// Octets of an explanation.
const WHY: usize = 160;

/// Kinds of outcome in [`mlx5_judge_passage`].
const SOFTWARE: u32 = 0;
const SENT: u32 = 1;
const DROPPED: u32 = 2;
const UNRECEIVED: u32 = 3;
const BROKEN: u32 = 4;

/// What became of a frame.
#[allow(non_camel_case_types, reason = "C's name")]
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct mlx5_judge_passage {
    /// 0: software gets it; 1: it leaves by a port; 2: dropped; 3: no queue of the program gets it; 4: a rule that can't be done.
    pub outcome: u32,
    /// The physical function that it leaves by.
    pub pf: i32,
    /// The port of its switch; 0xffff is the wire.
    pub vport: u16,
    /// Not 0: `mark` is there.
    pub marked: u16,
    /// The mark, as the driver gave it to the device.
    pub mark: u32,
    /// Octets of the frame, as it is then.
    pub length: u32,
    /// Why, for 2 and 4; a C string.
    pub why: [u8; WHY],
}

/// Begins to listen to the driver; to be called before it is loaded. 0, or `ENOSYS`: the library below the driver was not preloaded.
#[unsafe(no_mangle)]
pub extern "C" fn mlx5_judge_begin() -> c_int {
    if Device::attach().is_ok() { 0 } else { libc::ENOSYS }
}

/// A frame comes by a port (`sends` 0), or software sends it by one. It is `length` octets in a buffer of `room`, and what becomes of it
/// is written there. 0, or an errno: `ENOSYS` without a device, `ENOBUFS` without room, `EIO` if the record is not what the driver made.
///
/// # Safety
/// `frame` has `room` octets, `passage` is one; nobody else uses them meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlx5_judge_frame(
    pf: i32,
    vport: u16,
    sends: c_int,
    frame: *mut u8,
    length: usize,
    room: usize,
    passage: *mut mlx5_judge_passage,
) -> c_int {
    let Ok(device) = Device::attach() else { return libc::ENOSYS };
    if length > room {
        return libc::ENOBUFS;
    }
    // SAFETY: the caller gives `room` octets to itself alone.
    let buffer = unsafe { std::slice::from_raw_parts_mut(frame, room) };
    let Some(data) = buffer.get(..length) else { return libc::ENOBUFS };
    let port = Port { pf, vport };
    let passed = if sends == 0 { device.receive(port, data) } else { device.transmit(port, data) };
    let (told, code) = match passed {
        Ok(passed) => tell(&passed, buffer),
        Err(why) => (with_reason(BROKEN, &why), libc::EIO),
    };
    // SAFETY: the caller's, and nobody else's.
    unsafe { passage.write(told) };
    code
}

fn tell(passed: &Passage, buffer: &mut [u8]) -> (mlx5_judge_passage, c_int) {
    let (mut told, data) = match &passed.outcome {
        Outcome::Software(data) => (with_reason(SOFTWARE, ""), data.as_slice()),
        Outcome::Sent(port, data) => {
            (mlx5_judge_passage { pf: port.pf, vport: port.vport, ..with_reason(SENT, "") }, data.as_slice())
        }
        Outcome::Lost(Lost::Drop) => (with_reason(DROPPED, ""), &[][..]),
        Outcome::Lost(Lost::WireToWire) => (with_reason(DROPPED, "from the wire to the wire"), &[][..]),
        Outcome::Lost(Lost::Unbound) => (with_reason(DROPPED, "to a hairpin queue that is not bound"), &[][..]),
        Outcome::Lost(Lost::Unreceived) => (with_reason(UNRECEIVED, ""), &[][..]),
        Outcome::Broken(why) => (with_reason(BROKEN, &why.to_string()), &[][..]),
    };
    told.marked = passed.tag.is_some().into();
    told.mark = passed.tag.unwrap_or(0);
    told.length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let Some(place) = buffer.get_mut(..data.len()) else { return (told, libc::ENOBUFS) };
    place.copy_from_slice(data);
    (told, 0)
}

fn with_reason(outcome: u32, why: &str) -> mlx5_judge_passage {
    let mut text = [0; WHY];
    // The last octet ends the string.
    for (to, from) in text.iter_mut().take(WHY - 1).zip(why.bytes()) {
        *to = from;
    }
    mlx5_judge_passage { outcome, pf: 0, vport: 0, marked: 0, mark: 0, length: 0, why: text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Broken, Registers, UPLINK};

    fn told(outcome: Outcome, room: usize) -> (mlx5_judge_passage, c_int, Vec<u8>) {
        let mut buffer = vec![0; room];
        let registers = Registers::default();
        let passed = Passage { outcome, tag: Some(7), registers, counted: Vec::new(), steps: Vec::new() };
        let (told, code) = tell(&passed, &mut buffer);
        (told, code, buffer)
    }

    #[test]
    fn what_leaves_is_told_with_its_port_and_its_octets() {
        let (passage, code, buffer) = told(Outcome::Sent(Port { pf: 1, vport: UPLINK }, vec![1, 2, 3]), 4);
        assert_eq!((passage.outcome, passage.pf, passage.vport, passage.length, code), (SENT, 1, UPLINK, 3, 0));
        assert_eq!(buffer, [1, 2, 3, 0]);
        assert_eq!((passage.marked, passage.mark), (1, 7));
    }

    #[test]
    fn a_reason_is_a_c_string_and_a_frame_without_room_is_an_error() {
        let (passage, _, _) = told(Outcome::Broken(Broken::NoHeader("IP")), 0);
        assert!(passage.outcome == BROKEN && passage.why.starts_with(b"there is no IP header\0"));
        assert_eq!(told(Outcome::Software(vec![0; 5]), 4).1, libc::ENOBUFS);
        assert_eq!(with_reason(BROKEN, &"x".repeat(500)).why.last(), Some(&0));
    }
}
