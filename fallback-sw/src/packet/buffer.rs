//! A frame in memory with room before and behind it.

use std::{fmt, mem::ManuallyDrop, ptr::NonNull};

use offload_rules::VifId;

/// Room before a received frame, for the largest encapsulation: Ethernet with two tags (22) + IPv4 (20) + UDP (8) + label (4),
/// and as much again for what is to come (ESP), rounded to a cache line.
pub const HEADROOM: usize = 128;
/// Largest frame: IP MTU 9216 + Ethernet with two tags.
pub const MAX_FRAME: usize = 9216 + 22;
/// Memory of a standard buffer: headroom and a frame of 1500 + 22 octets, with room to spare.
const STANDARD: usize = 2048;
/// Inline IPsec of a packet: what the NIC has done on receive, or is to do on transmit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NicNote {
    /// Nothing.
    #[default]
    None,
    /// Received: ESP was taken off. What is behind the Ethernet header came out of this tunnel.
    Opened(VifId),
    /// Received: it came to a tunnel of the NIC's, which has refused it (check value, replay, padding).
    Refused,
    /// Received: all but ESP is done. What is behind the Ethernet header goes into this tunnel.
    ToSeal(VifId),
    /// Received: the text of the ESP packet is deciphered in place, and its check value was right.
    Deciphered,
    /// To be sent: the NIC puts ESP on (inline protocol), or enciphers the ESP packet (inline crypto), by this session.
    Session(u32),
}

/// What `mark` holds when there is none: the NIC's marks have 24 bits.
const NO_MARK: u32 = u32::MAX;
/// What `mark` holds when there is none, and the node has put the packet together from fragments.
const REASSEMBLED: u32 = u32::MAX - 1;

/// There is no room to grow into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room in the packet buffer for {wanted} more octets")]
pub struct NoRoom {
    /// Octets asked for.
    pub wanted: usize,
}

/// The owner of memory that packets borrow, such as the buffers of a NIC. A `static` of it is its identity.
#[derive(Debug)]
pub struct Owner {
    /// Takes a buffer back. Must be callable from any thread, once for each buffer.
    pub release: unsafe fn(NonNull<()>),
}

/// A buffer taken back out of a packet: see [`Packet::into_foreign`].
#[derive(Debug)]
pub struct Foreign {
    /// What the owner calls the buffer.
    pub handle: NonNull<()>,
    /// Octets before the frame, from the beginning of the memory.
    pub head: u32,
    /// Octets of the frame.
    pub len: u32,
}

/// A frame in memory. Cheap to move; the memory goes back to where it came from when it is dropped.
///
/// Invariant: `head + len <= capacity`, without overflow; `memory` is valid for reads and writes of `capacity` octets, all
/// initialised, and nobody else uses them. Without an owner it is a `Box<[u8]>` of that length.
pub struct Packet {
    memory: NonNull<u8>,
    foreign: Option<(NonNull<()>, &'static Owner)>,
    capacity: u32,
    head: u32,
    len: u32,
    mark: u32,
    note: NicNote,
}

// SAFETY: the packet alone uses its memory, and an `Owner` takes memory back from any thread.
unsafe impl Send for Packet {}
// SAFETY: a shared packet can only be read.
unsafe impl Sync for Packet {}

impl Packet {
    /// An empty packet with room for `capacity` octets behind the headroom (4 GiB at most).
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let size = HEADROOM.saturating_add(capacity).max(STANDARD);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let memory = Box::into_raw(vec![0_u8; size as usize].into_boxed_slice());
        // SAFETY: a box is never null. Its slice has `size` octets, which is at least HEADROOM.
        let memory = unsafe { NonNull::new_unchecked(memory.cast::<u8>()) };
        Self {
            memory,
            foreign: None,
            capacity: size,
            head: HEADROOM as u32,
            len: 0,
            mark: NO_MARK,
            note: NicNote::None,
        }
    }

    /// A copy of a frame.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut packet = Self::with_capacity(frame.len());
        packet.refill(frame);
        packet
    }

    /// A frame in memory of someone else, who gets `handle` back through [`Owner::release`] when the packet is dropped. The
    /// frame begins `head` octets behind `memory` and has `len` octets; both are cut to what is inside `capacity`.
    ///
    /// # Safety
    /// `memory` must be valid for reads and writes of `capacity` octets, all of them initialised, from any thread, until the
    /// release; nobody else may touch them until then. Calling `owner.release` with `handle` must be sound, once.
    #[inline]
    #[must_use]
    pub unsafe fn from_foreign(
        memory: NonNull<u8>,
        capacity: u32,
        head: u32,
        len: u32,
        handle: NonNull<()>,
        owner: &'static Owner,
    ) -> Self {
        let head = head.min(capacity);
        Self {
            memory,
            foreign: Some((handle, owner)),
            capacity,
            head,
            len: len.min(capacity - head),
            mark: NO_MARK,
            note: NicNote::None,
        }
    }

    /// Gives the buffer back to its owner instead of releasing it: the caller has the handle from now on.
    ///
    /// # Errors
    /// The packet as it was: its memory is not that owner's.
    #[inline]
    pub fn into_foreign(self, owner: &'static Owner) -> Result<Foreign, Self> {
        match self.foreign {
            Some((handle, other)) if std::ptr::eq(owner, other) => {
                let packet = ManuallyDrop::new(self);
                Ok(Foreign { handle, head: packet.head, len: packet.len })
            }
            _ => Err(self),
        }
    }

    /// The memory is this owner's.
    #[inline]
    #[must_use]
    pub fn is_from(&self, owner: &'static Owner) -> bool {
        self.foreign.is_some_and(|(_, other)| std::ptr::eq(owner, other))
    }

    /// What the NIC has marked the packet with, if it has.
    #[inline]
    #[must_use]
    pub const fn mark(&self) -> Option<u32> {
        if self.mark >= REASSEMBLED { None } else { Some(self.mark) }
    }

    /// Sets or clears the NIC's mark; the two largest numbers are no marks.
    #[inline]
    pub fn set_mark(&mut self, mark: Option<u32>) {
        self.mark = mark.unwrap_or(NO_MARK);
    }

    /// Has the node put it together from fragments?
    #[inline]
    #[must_use]
    pub const fn is_reassembled(&self) -> bool {
        self.mark == REASSEMBLED
    }

    /// Says that the node has put it together from fragments. No NIC has marked it then.
    pub(super) fn set_reassembled(&mut self) {
        self.mark = REASSEMBLED;
    }

    /// Inline IPsec that the NIC has done or is to do.
    #[inline]
    #[must_use]
    pub const fn note(&self) -> NicNote {
        self.note
    }

    /// Is a session of the NIC to seal it?
    #[inline]
    #[must_use]
    pub const fn is_for_session(&self) -> bool {
        matches!(self.note, NicNote::Session(_))
    }

    /// Sets what a NIC has done or is to do about IPsec.
    #[inline]
    pub fn set_note(&mut self, note: NicNote) {
        self.note = note;
    }

    /// Replaces the content by a copy of `frame`, reusing the memory when it is large enough, and clears the mark.
    #[inline]
    pub fn refill(&mut self, frame: &[u8]) {
        if self.capacity() < HEADROOM + frame.len() {
            *self = Self::with_capacity(frame.len());
        }
        // Nothing is cut off: no frame has 4 GiB.
        let len = frame.len().min(self.capacity() - HEADROOM);
        self.head = HEADROOM as u32;
        self.len = len as u32;
        (self.mark, self.note) = (NO_MARK, NicNote::None);
        if let Some(frame) = frame.get(..len) {
            self.data_mut().copy_from_slice(frame);
        }
    }

    /// The frame.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        debug_assert!(self.head <= self.capacity && self.len <= self.capacity - self.head);
        // SAFETY: head + len <= capacity, and the memory is valid for that. It holds for a new packet, and every method that
        // changes one of them keeps it: `refill` makes the memory large enough first, `prepend` moves `head` down by what it
        // adds to `len`, `extend` checks the tailroom, `advance` moves `head` up by what it takes off `len`, `truncate` only
        // lowers `len`, `reframe` checks both ends.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(self.head as usize), self.len as usize) }
    }

    /// The frame, to be changed in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        debug_assert!(self.head <= self.capacity && self.len <= self.capacity - self.head);
        // SAFETY: as in `data`; the packet is borrowed for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(self.head as usize), self.len as usize) }
    }

    /// Length of the frame in octets.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// No octets.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets that [`Packet::prepend`] can still take.
    #[inline]
    #[must_use]
    pub const fn headroom(&self) -> usize {
        self.head as usize
    }

    /// Octets that [`Packet::extend`] can still take.
    #[inline]
    #[must_use]
    pub const fn tailroom(&self) -> usize {
        (self.capacity - self.head - self.len) as usize
    }

    /// Octets of its memory, room included.
    #[inline]
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Nothing of a NIC's is on it, neither mark nor note, and the node has not put it together from fragments.
    #[inline(always)]
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.mark == NO_MARK && matches!(self.note, NicNote::None)
    }

    /// The memory from octet `at` of the frame on. The frame may end before these `N` octets do: those behind it mean nothing. `None`: the
    /// memory ends before that.
    #[inline(always)]
    #[must_use]
    pub fn peek<const N: usize>(&self, at: usize) -> Option<&[u8; N]> {
        // SAFETY: as in `window`.
        let memory = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.capacity as usize) };
        memory.get(self.head as usize + at..)?.first_chunk::<N>()
    }

    /// The memory around octet `at` of the frame: `BEFORE` octets before it, the others from it on. What is outside the frame means
    /// nothing. `None`: the memory ends before that.
    #[inline(always)]
    pub fn window<const BEFORE: usize, const N: usize>(&mut self, at: usize) -> Option<&mut [u8; N]> {
        let start = (self.head as usize + at).checked_sub(BEFORE)?;
        // SAFETY: the memory is valid for `capacity` octets, and borrowed with the packet.
        let memory = unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.capacity as usize) };
        memory.get_mut(start..)?.first_chunk_mut::<N>()
    }

    /// The frame becomes the `before` octets before its octet `at`, and the `len` octets from there on.
    ///
    /// # Errors
    /// [`NoRoom`]: the packet stays as it was.
    #[inline(always)]
    pub fn reframe(&mut self, at: usize, before: usize, len: usize) -> Result<(), NoRoom> {
        let middle = self.head as usize + at;
        let enough = (before <= middle) & (middle + len <= self.capacity as usize);
        if !enough {
            return Err(NoRoom { wanted: before + len });
        }
        self.head = (middle - before) as u32;
        self.len = (before + len) as u32;
        Ok(())
    }

    /// Grows the frame at its front and returns the new octets (their content is unspecified).
    ///
    /// # Errors
    /// [`NoRoom`]: the packet stays as it was.
    #[inline]
    pub fn prepend(&mut self, octets: usize) -> Result<&mut [u8], NoRoom> {
        if octets > self.headroom() {
            return Err(NoRoom { wanted: octets });
        }
        self.head -= octets as u32;
        self.len += octets as u32;
        Ok(self.data_mut().get_mut(..octets).unwrap_or(&mut []))
    }

    /// Grows the frame at its end and returns the new octets (their content is unspecified).
    ///
    /// # Errors
    /// [`NoRoom`]: the packet stays as it was.
    #[inline]
    pub fn extend(&mut self, octets: usize) -> Result<&mut [u8], NoRoom> {
        if octets > self.tailroom() {
            return Err(NoRoom { wanted: octets });
        }
        let old = self.len();
        self.len += octets as u32;
        Ok(self.data_mut().get_mut(old..).unwrap_or(&mut []))
    }

    /// Removes up to this many octets at the front.
    #[inline]
    pub fn advance(&mut self, octets: usize) {
        let octets = octets.min(self.len()) as u32;
        self.head += octets;
        self.len -= octets;
    }

    /// Cuts the frame to at most this length.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len().min(len) as u32;
    }
}

impl Drop for Packet {
    #[inline]
    fn drop(&mut self) {
        match self.foreign {
            // SAFETY: whoever made the packet has promised that this call is sound, and a packet is dropped once.
            Some((handle, owner)) => unsafe { (owner.release)(handle) },
            None => {
                let memory = std::ptr::slice_from_raw_parts_mut(self.memory.as_ptr(), self.capacity as usize);
                // SAFETY: without an owner the memory is the box that `with_capacity` took apart, with its length.
                drop(unsafe { Box::from_raw(memory) });
            }
        }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("data", &self.data())
            .field("headroom", &self.headroom())
            .field("tailroom", &self.tailroom())
            .field("mark", &self.mark())
            .field("foreign", &self.foreign.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    unsafe fn release(handle: NonNull<()>) {
        // SAFETY: the tests' handles are pointers to boxed buffers, released once.
        let buffer = unsafe { Box::from_raw(handle.cast::<Buffer>().as_ptr()) };
        buffer.released.fetch_add(1, Ordering::SeqCst);
    }

    static OWNER: Owner = Owner { release };
    static STRANGER: Owner = Owner { release };

    struct Buffer {
        memory: [u8; 512],
        released: &'static AtomicUsize,
    }

    fn foreign(frame: &[u8], head: u32, released: &'static AtomicUsize) -> Packet {
        let mut buffer = Box::new(Buffer { memory: [0; 512], released });
        buffer.memory[head as usize..head as usize + frame.len()].copy_from_slice(frame);
        let buffer = NonNull::from(Box::leak(buffer));
        // SAFETY: the buffer lives until `release`.
        unsafe {
            let memory = NonNull::new_unchecked((&raw mut (*buffer.as_ptr()).memory).cast::<u8>());
            Packet::from_foreign(memory, 512, head, frame.len() as u32, buffer.cast(), &OWNER)
        }
    }

    #[test]
    fn a_foreign_buffer_is_changed_in_place_and_released_once() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        let mut packet = foreign(b"frame", 128, &RELEASED);
        packet.prepend(2).unwrap().copy_from_slice(b"a ");
        packet.extend(1).unwrap().fill(b'!');
        assert_eq!(packet.data(), b"a frame!");
        assert_eq!((packet.headroom(), packet.tailroom()), (126, 512 - 126 - 8));
        assert_eq!(packet.prepend(127).unwrap_err(), NoRoom { wanted: 127 });
        packet.refill(b"other");
        assert!(packet.is_from(&OWNER));
        assert_eq!((packet.data(), packet.headroom()), (&b"other"[..], HEADROOM));
        drop(packet);
        assert_eq!(RELEASED.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_frame_too_large_for_a_foreign_buffer_moves_to_memory_of_its_own() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        let mut packet = foreign(b"frame", 128, &RELEASED);
        packet.refill(&[7; 385]);
        assert_eq!(RELEASED.load(Ordering::SeqCst), 1);
        assert!(!packet.is_from(&OWNER));
        assert_eq!(packet.data(), [7; 385]);
    }

    #[test]
    fn a_window_reaches_from_the_first_octet_of_the_memory_to_the_last() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        let mut packet = foreign(b"0123456789", 64, &RELEASED);
        assert_eq!(packet.window::<65, 70>(0), None);
        let window = packet.window::<64, 70>(0).unwrap();
        assert_eq!((window[63], &window[64..]), (0, &b"012345"[..]));
        assert_eq!(packet.window::<64, 512>(0).unwrap()[73], b'9');
        assert_eq!(packet.window::<64, 513>(0), None);
        assert_eq!(packet.window::<8, 448>(8).unwrap()[..3], *b"012");
        assert_eq!(packet.window::<8, 449>(8), None);
        assert_eq!(packet.window::<0, 0>(449), None);
        assert_eq!((packet.peek::<440>(8).unwrap()[1], packet.peek::<441>(8)), (b'9', None));
    }

    #[test]
    fn a_frame_is_put_anew_anywhere_inside_its_memory_and_nowhere_else() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        let mut packet = foreign(b"0123456789", 64, &RELEASED);
        packet.reframe(4, 2, 3).unwrap();
        assert_eq!((packet.data(), packet.headroom()), (&b"23456"[..], 66));
        packet.reframe(0, 66, 446).unwrap();
        assert_eq!((packet.len(), packet.headroom(), packet.tailroom()), (512, 0, 0));
        assert_eq!(packet.reframe(1, 2, 3).unwrap_err(), NoRoom { wanted: 5 });
        assert_eq!(packet.reframe(66, 0, 447).unwrap_err(), NoRoom { wanted: 447 });
        assert_eq!((packet.len(), packet.headroom()), (512, 0));
    }

    #[test]
    fn a_packet_is_plain_without_mark_note_and_reassembly() {
        let mut packet = Packet::from_frame(b"frame");
        assert!(packet.is_plain());
        packet.set_mark(Some(7));
        assert!(!packet.is_plain());
        packet.set_mark(None);
        packet.set_note(NicNote::Deciphered);
        assert!(!packet.is_plain());
        packet.set_note(NicNote::None);
        assert!(packet.is_plain());
        packet.set_reassembled();
        assert!(!packet.is_plain());
    }

    #[test]
    fn a_buffer_is_taken_back_by_its_owner_alone() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        let mut packet = foreign(b"frame", 100, &RELEASED);
        packet.advance(1);
        let packet = packet.into_foreign(&STRANGER).unwrap_err();
        let back = packet.into_foreign(&OWNER).unwrap();
        assert_eq!((back.head, back.len), (101, 4));
        assert_eq!(RELEASED.load(Ordering::SeqCst), 0);
        // SAFETY: the handle was taken out of the packet, nobody else releases it.
        unsafe { release(back.handle) };
        assert!(Packet::from_frame(b"own").into_foreign(&OWNER).is_err());
    }

    #[test]
    fn a_frame_that_lies_outside_its_buffer_is_cut() {
        static RELEASED: AtomicUsize = AtomicUsize::new(0);
        let packet = foreign(b"", 512, &RELEASED);
        assert!(packet.is_empty() && packet.tailroom() == 0);
        let mut memory = [1_u8; 16];
        unsafe fn nothing(_: NonNull<()>) {}
        static NOBODY: Owner = Owner { release: nothing };
        // SAFETY: the memory outlives the packet, and releasing does nothing.
        let packet = unsafe {
            Packet::from_foreign(NonNull::from(&mut memory).cast(), 16, 10, 100, NonNull::dangling(), &NOBODY)
        };
        assert_eq!(packet.data(), [1; 6]);
    }

    #[test]
    fn a_mark_stays_until_the_packet_is_refilled() {
        let mut packet = Packet::from_frame(b"frame");
        assert_eq!(packet.mark(), None);
        packet.set_mark(Some(0x00ff_ffff));
        packet.truncate(2);
        assert_eq!(packet.mark(), Some(0x00ff_ffff));
        packet.refill(b"other");
        assert_eq!(packet.mark(), None);
    }

    #[test]
    fn a_packet_is_no_larger_than_a_cache_line() {
        assert!(size_of::<Packet>() <= 48, "{}", size_of::<Packet>());
    }
}
