//! Capture files: pcap and pcapng in, pcap with nanoseconds out, and a port on them.
//!
//! pcap: draft-ietf-opsawg-pcap; pcapng: draft-ietf-opsawg-pcapng. Read in either byte order, with every resolution of time.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Port, PortError, device::Link};
use crate::packet::Packet;

/// Name of the driver in `vif --get`.
pub const DRIVER: &str = "net_pcap";

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OPTION_TSRESOL: u16 = 9;
const OPTION_TSOFFSET: u16 = 14;
const LINKTYPE_ETHERNET: u32 = 1;
/// LINKTYPE_RAW and the values that some systems write for it (DLT_RAW).
const LINKTYPES_RAW: [u32; 5] = [101, 12, 14, 228, 229];
/// Largest record or block taken for real; libpcap's own limit.
const LARGEST: usize = 256 << 10;
/// Blocks other than packets may be larger (decryption secrets, name resolution).
const LARGEST_BLOCK: usize = 16 << 20;

/// What is wrong with a capture file.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The operating system refused something.
    #[error("{}: {action}: {source}", file.display())]
    Os {
        /// The file.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it did not work.
        source: io::Error,
    },
    /// The file does not start like a capture.
    #[error("{}: not a capture: it starts with neither pcap's nor pcapng's magic number", file.display())]
    NotACapture {
        /// The file.
        file: PathBuf,
    },
    /// The file ends within a record.
    #[error("{}: truncated: the file ends within record {record} at octet {offset}", file.display())]
    Truncated {
        /// The file.
        file: PathBuf,
        /// Number of the record or block, from 1; 0 is the file header.
        record: u64,
        /// Where the record starts.
        offset: u64,
    },
    /// The frames are neither Ethernet nor raw IP.
    #[error("{}: link type {link_type} is not supported: capture Ethernet (1) or raw IP (101)", file.display())]
    LinkType {
        /// The file.
        file: PathBuf,
        /// LINKTYPE_ value.
        link_type: u32,
    },
    /// The file contradicts itself.
    #[error("{}: record {record} at octet {offset} is damaged: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Number of the record or block, from 1; 0 is the file header.
        record: u64,
        /// Where the record starts.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
}

/// A frame of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was captured, since the Unix epoch.
    pub time: Duration,
    /// What the frame starts with.
    pub link: Link,
    /// Length on the wire in octets; more than `frame` holds when the capture cut it.
    pub wire_len: usize,
    /// The octets that were captured.
    pub frame: &'a [u8],
}

/// An interface of a pcapng section; pcap has a single one.
#[derive(Debug, Clone, Copy)]
struct Interface {
    link_type: u32,
    /// Ticks in a second.
    ticks: u64,
    /// Seconds to add to every time.
    offset: i64,
    snap_len: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Pcap,
    PcapNg,
}

/// Reads a capture, frame by frame.
#[derive(Debug)]
pub struct CaptureReader {
    input: BufReader<File>,
    file: PathBuf,
    format: Format,
    big_endian: bool,
    interfaces: Vec<Interface>,
    buffer: Vec<u8>,
    record: u64,
    start: u64,
    offset: u64,
}

/// Header of a record that has been read: where its frame is in the buffer.
struct Found {
    time: Duration,
    link: Link,
    wire_len: usize,
    from: usize,
    to: usize,
}

impl CaptureReader {
    /// Opens a capture and reads its header.
    ///
    /// # Errors
    /// [`CaptureError`]: the file cannot be read, or is not a capture of a known kind.
    pub fn open(file: &Path) -> Result<Self, CaptureError> {
        let input = File::open(file).map_err(|source| CaptureError::Os {
            file: file.to_owned(),
            action: "opening the capture",
            source,
        })?;
        let mut reader = Self {
            input: BufReader::with_capacity(256 << 10, input),
            file: file.to_owned(),
            format: Format::Pcap,
            big_endian: false,
            interfaces: Vec::new(),
            buffer: Vec::new(),
            record: 0,
            start: 0,
            offset: 0,
        };
        if !reader.fill(4)? {
            return Err(CaptureError::NotACapture { file: reader.file });
        }
        let magic = reader.u32_at(0)?;
        if magic == SECTION_HEADER {
            reader.format = Format::PcapNg;
            reader.section()?;
            return Ok(reader);
        }
        reader.big_endian = matches!(magic.swap_bytes(), MAGIC_MICROSECONDS | MAGIC_NANOSECONDS);
        let ticks = match reader.u32_at(0)? {
            MAGIC_MICROSECONDS => 1_000_000,
            MAGIC_NANOSECONDS => 1_000_000_000,
            _ => return Err(CaptureError::NotACapture { file: reader.file }),
        };
        reader.need(20)?;
        // The upper bits hold the length of a frame check sequence.
        let link_type = reader.u32_at(16)? & 0x0fff_ffff;
        reader.interfaces.push(Interface { link_type, ticks, offset: 0, snap_len: 0 });
        reader.link(0)?;
        Ok(reader)
    }

    /// The next frame; `None` at the end of the file.
    ///
    /// # Errors
    /// [`CaptureError`], with the record that is wrong. Reading cannot go on after it.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        let found = match self.format {
            Format::Pcap => self.next_pcap()?,
            Format::PcapNg => self.next_pcapng()?,
        };
        Ok(found.map(|Found { time, link, wire_len, from, to }| Record {
            time,
            link,
            wire_len,
            frame: self.buffer.get(from..to).unwrap_or(&[]),
        }))
    }

    fn next_pcap(&mut self) -> Result<Option<Found>, CaptureError> {
        self.begin();
        if !self.fill(16)? {
            return Ok(None);
        }
        let (seconds, fraction) = (self.u32_at(0)?, self.u32_at(4)?);
        let (len, wire_len) = (self.u32_at(8)? as usize, self.u32_at(12)? as usize);
        if len > LARGEST {
            return Err(self.damaged("the frame is longer than any capture holds"));
        }
        let ticks = self.interfaces.first().map_or(1, |interface| interface.ticks);
        let nanoseconds = u64::from(fraction) * (1_000_000_000 / ticks.max(1));
        self.need(len)?;
        Ok(Some(Found {
            time: Duration::from_secs(u64::from(seconds)) + Duration::from_nanos(nanoseconds),
            link: self.link(0)?,
            wire_len,
            from: 0,
            to: len,
        }))
    }

    fn next_pcapng(&mut self) -> Result<Option<Found>, CaptureError> {
        loop {
            self.begin();
            if !self.fill(4)? {
                return Ok(None);
            }
            match self.u32_at(0)? {
                SECTION_HEADER => self.section()?,
                INTERFACE_DESCRIPTION => {
                    let len = self.block_body()?;
                    let interface = self.interface(len)?;
                    self.interfaces.push(interface);
                }
                ENHANCED_PACKET => {
                    let body = self.block_body()?;
                    let interface = self.u32_at(0)?;
                    return self.stamped(interface, 4, 20, body).map(Some);
                }
                OLD_PACKET => {
                    let body = self.block_body()?;
                    let interface = u32::from(self.u16_at(0)?);
                    return self.stamped(interface, 4, 20, body).map(Some);
                }
                SIMPLE_PACKET => {
                    let body = self.block_body()?;
                    let wire_len = self.u32_at(0)? as usize;
                    let snap_len = match self.interfaces.first().map(|i| i.snap_len as usize) {
                        None | Some(0) => usize::MAX,
                        Some(len) => len,
                    };
                    let len = wire_len.min(snap_len);
                    if len > body.saturating_sub(4) {
                        return Err(self.damaged("the frame is longer than its block"));
                    }
                    // A simple packet block has no time.
                    return Ok(Some(Found {
                        time: Duration::ZERO,
                        link: self.link(0)?,
                        wire_len,
                        from: 4,
                        to: 4 + len,
                    }));
                }
                _ => {
                    self.block_body()?;
                }
            }
        }
    }

    /// A packet block with time: high and low word at `time`, then both lengths; the frame at `data`.
    fn stamped(&self, interface: u32, time: usize, data: usize, body: usize) -> Result<Found, CaptureError> {
        let ticks = u64::from(self.u32_at(time)?) << 32 | u64::from(self.u32_at(time + 4)?);
        let (len, wire_len) = (self.u32_at(time + 8)? as usize, self.u32_at(time + 12)? as usize);
        if len > body.saturating_sub(data) {
            return Err(self.damaged("the frame is longer than its block"));
        }
        let described = self
            .interfaces
            .get(interface as usize)
            .ok_or_else(|| self.damaged("it names an interface that the file does not describe"))?;
        Ok(Found {
            time: described.time(ticks),
            link: self.link(interface as usize)?,
            wire_len,
            from: data,
            to: data + len,
        })
    }

    /// The rest of a section header, whose type is in the buffer: sets the byte order and forgets the interfaces.
    fn section(&mut self) -> Result<(), CaptureError> {
        self.need(8)?;
        self.big_endian = false;
        let order = self.u32_at(4)?;
        self.big_endian = order == BYTE_ORDER.swap_bytes();
        if order != BYTE_ORDER && !self.big_endian {
            return Err(self.damaged("its byte-order magic is wrong"));
        }
        let len = self.u32_at(0)? as usize;
        if !(28..=LARGEST_BLOCK).contains(&len) {
            return Err(self.damaged("the length of the section header is impossible"));
        }
        self.need(len - 12)?;
        self.interfaces.clear();
        Ok(())
    }

    /// Reads the body of a block whose type has been read; it is in the buffer then, its length is returned.
    fn block_body(&mut self) -> Result<usize, CaptureError> {
        self.need(4)?;
        let len = self.u32_at(0)? as usize;
        if !(12..=LARGEST_BLOCK).contains(&len) || !len.is_multiple_of(4) {
            return Err(self.damaged("the length of the block is impossible"));
        }
        self.need(len - 8)?;
        Ok(len - 12)
    }

    fn interface(&self, len: usize) -> Result<Interface, CaptureError> {
        let mut interface =
            Interface { link_type: u32::from(self.u16_at(0)?), ticks: 1_000_000, offset: 0, snap_len: self.u32_at(4)? };
        let mut at = 8;
        while at + 4 <= len {
            let (code, size) = (self.u16_at(at)?, usize::from(self.u16_at(at + 2)?));
            let value = self.buffer.get(at + 4..at + 4 + size).unwrap_or(&[]);
            match (code, value) {
                (0, _) => break,
                (OPTION_TSRESOL, [exponent, ..]) => {
                    let power = u32::from(exponent & 0x7f);
                    let base: u64 = if exponent & 0x80 == 0 { 10 } else { 2 };
                    interface.ticks =
                        base.checked_pow(power).ok_or_else(|| self.damaged("its resolution of time is impossible"))?;
                }
                (OPTION_TSOFFSET, value) => {
                    if let Some(octets) = value.first_chunk() {
                        interface.offset =
                            if self.big_endian { i64::from_be_bytes(*octets) } else { i64::from_le_bytes(*octets) };
                    }
                }
                _ => {}
            }
            at += 4 + size.next_multiple_of(4);
        }
        Ok(interface)
    }

    fn link(&self, interface: usize) -> Result<Link, CaptureError> {
        let link_type = self.interfaces.get(interface).map_or(0, |interface| interface.link_type);
        link_of(link_type).ok_or_else(|| CaptureError::LinkType { file: self.file.clone(), link_type })
    }

    fn begin(&mut self) {
        self.record += 1;
        self.start = self.offset;
    }

    /// Reads `len` octets into the buffer; false when the file ends right before them.
    fn fill(&mut self, len: usize) -> Result<bool, CaptureError> {
        self.buffer.clear();
        let wanted = u64::try_from(len).unwrap_or(u64::MAX);
        let read = self
            .input
            .by_ref()
            .take(wanted)
            .read_to_end(&mut self.buffer)
            .map_err(|source| CaptureError::Os { file: self.file.clone(), action: "reading the capture", source })?;
        self.offset += read as u64;
        match read {
            0 if len > 0 => Ok(false),
            _ if read == len => Ok(true),
            _ => Err(self.truncated()),
        }
    }

    fn need(&mut self, len: usize) -> Result<(), CaptureError> {
        if len > 0 && !self.fill(len)? {
            return Err(self.truncated());
        }
        if len == 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    fn u32_at(&self, at: usize) -> Result<u32, CaptureError> {
        let octets = self.buffer.get(at..).and_then(|rest| rest.first_chunk());
        let octets = octets.ok_or_else(|| self.damaged("it is shorter than its header"))?;
        Ok(if self.big_endian { u32::from_be_bytes(*octets) } else { u32::from_le_bytes(*octets) })
    }

    fn u16_at(&self, at: usize) -> Result<u16, CaptureError> {
        let octets = self.buffer.get(at..).and_then(|rest| rest.first_chunk());
        let octets = octets.ok_or_else(|| self.damaged("it is shorter than its header"))?;
        Ok(if self.big_endian { u16::from_be_bytes(*octets) } else { u16::from_le_bytes(*octets) })
    }

    fn truncated(&self) -> CaptureError {
        CaptureError::Truncated { file: self.file.clone(), record: self.record, offset: self.start }
    }

    fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Damaged { file: self.file.clone(), record: self.record, offset: self.start, what }
    }
}

impl Interface {
    fn time(&self, ticks: u64) -> Duration {
        let per_second = self.ticks.max(1);
        let seconds = (ticks / per_second).saturating_add_signed(self.offset);
        let nanoseconds = u128::from(ticks % per_second) * 1_000_000_000 / u128::from(per_second);
        // Less than a second's worth of nanoseconds.
        Duration::new(seconds, u32::try_from(nanoseconds).unwrap_or(0))
    }
}

fn link_of(link_type: u32) -> Option<Link> {
    match link_type {
        LINKTYPE_ETHERNET => Some(Link::Ethernet),
        raw if LINKTYPES_RAW.contains(&raw) => Some(Link::RawIp),
        _ => None,
    }
}

/// Writes a pcap with nanoseconds.
#[derive(Debug)]
pub struct CaptureWriter {
    output: BufWriter<File>,
    file: PathBuf,
}

impl CaptureWriter {
    /// Makes the file, or empties it, and writes the header.
    ///
    /// # Errors
    /// [`CaptureError::Os`].
    pub fn create(file: &Path, link: Link) -> Result<Self, CaptureError> {
        let output = File::create(file).map_err(|source| CaptureError::Os {
            file: file.to_owned(),
            action: "creating the capture",
            source,
        })?;
        let mut writer = Self { output: BufWriter::with_capacity(256 << 10, output), file: file.to_owned() };
        let mut header = [0u8; 24];
        let link_type: u32 = if link == Link::Ethernet { LINKTYPE_ETHERNET } else { 101 };
        let words = [MAGIC_NANOSECONDS, 4 << 16 | 2, 0, 0, 262_144, link_type];
        for (place, word) in header.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        writer.put(&header)?;
        Ok(writer)
    }

    /// Appends a frame that was seen at `time` since the Unix epoch.
    ///
    /// # Errors
    /// [`CaptureError::Os`].
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> Result<(), CaptureError> {
        // The format has 32 bits for seconds.
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let mut header = [0u8; 16];
        for (place, word) in header.chunks_exact_mut(4).zip([seconds, time.subsec_nanos(), len, len]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.put(&header)?;
        self.put(frame)
    }

    /// Writes to disk what is still in memory. Dropping does so, too, but cannot say when it fails.
    ///
    /// # Errors
    /// [`CaptureError::Os`].
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        self.output.flush().map_err(|source| self.failed(source))
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), CaptureError> {
        self.output.write_all(octets).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> CaptureError {
        CaptureError::Os { file: self.file.clone(), action: "writing the capture", source }
    }
}

/// A port that receives from one capture and sends to another.
#[derive(Debug)]
pub struct PcapPort {
    name: String,
    input: Option<CaptureReader>,
    output: Option<CaptureWriter>,
    link: Link,
    now: Option<Duration>,
}

impl PcapPort {
    /// A port whose frames come from `input` and go to `output`. Without `input` nothing arrives; without `output` what is
    /// sent is forgotten. `link` is what the vif's frames start with.
    #[must_use]
    pub fn new(name: &str, link: Link, input: Option<CaptureReader>, output: Option<CaptureWriter>) -> Self {
        Self { name: name.to_owned(), input, output, link, now: None }
    }

    /// Time of the last frame received, since the Unix epoch. Frames that are sent carry it, and the system's clock before any was received.
    #[must_use]
    pub const fn time(&self) -> Option<Duration> {
        self.now
    }

    /// Writes to disk what was sent.
    ///
    /// # Errors
    /// [`CaptureError::Os`].
    pub fn flush(&mut self) -> Result<(), CaptureError> {
        self.output.as_mut().map_or(Ok(()), CaptureWriter::flush)
    }
}

impl Port for PcapPort {
    fn receive(&mut self, into: &mut Vec<Packet>, spare: &mut Vec<Packet>, max: usize) -> Result<usize, PortError> {
        let Some(input) = &mut self.input else { return Ok(0) };
        let mut count = 0;
        while count < max {
            let Some(record) = input.next_record()? else {
                self.input = None;
                break;
            };
            if record.link != self.link {
                return Err(PortError::Unsupported {
                    device: self.name.clone(),
                    driver: DRIVER,
                    why: format!(
                        "the capture holds {:?} frames, the vif takes {:?}: use another capture",
                        record.link, self.link
                    ),
                });
            }
            self.now = Some(record.time);
            let mut packet = spare.pop().unwrap_or_else(|| Packet::with_capacity(record.frame.len()));
            packet.refill(record.frame);
            into.push(packet);
            count += 1;
        }
        Ok(count)
    }

    fn transmit(&mut self, frames: &mut Vec<Packet>, spare: &mut Vec<Packet>) -> Result<usize, PortError> {
        let count = frames.len();
        let mut result = Ok(count);
        if let Some(output) = &mut self.output {
            let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = self.now.unwrap_or_else(clock);
            for packet in frames.iter() {
                if let Err(error) = output.write(time, packet.data()) {
                    result = Err(error.into());
                    break;
                }
            }
        }
        spare.append(frames);
        result
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn driver(&self) -> &'static str {
        DRIVER
    }
}

#[cfg(test)]
#[path = "pcap_tests.rs"]
mod tests;
