//! Which sequence numbers outbound SAs may use: reserved ahead, so that a node that is started again passes over all that it may
//! have used. A number used twice under one key is a nonce used twice, which gives AES-GCM away (RFC 4106 §2).
//!
//! Numbers belong to a key, not to an SA of some number: whatever the state calls it, a key goes on where it was. Here is what is
//! reserved; putting it on disk, before it is used, is for the runtime to do.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use graviola::hashing::{Hash as _, HashContext as _, Sha256};
use offload_rules::forwarding::Sa;

use crate::worker::Grant;

/// Numbers that are reserved at a time: what a start costs at most. At a million packets a second, four seconds; of SAs without
/// extended numbers, a thousandth.
const BLOCK: u64 = 1 << 22;
/// The same where a NIC may hold the SA: it uses numbers up faster than anybody can look. Less than half of what 32 bits count, so that
/// a peer still knows the half of an extended number that is not sent (RFC 4303 Appendix A2.2); without extended numbers, a sixteenth
/// of all that there are.
const NIC_BLOCK: u64 = 1 << 31;
const NIC_BLOCK_SHORT: u64 = 1 << 28;
/// Keys that are remembered; beyond that the oldest are forgotten.
const MAX_KEYS: usize = 65_536;

/// Tells keys apart and nothing else about them.
type Fingerprint = [u8; 16];

/// What a line of the file is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is no fingerprint of 32 hexadecimal digits with a number behind it")]
pub struct LineError(usize);

/// Reserved numbers by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    /// The first number that is not reserved, and when the key was met, as a serial number.
    keys: BTreeMap<Fingerprint, (u64, u64)>,
    serial: u64,
}

impl Sequences {
    /// What [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn from_text(text: &str) -> Result<Self, LineError> {
        let mut read = Self::default();
        for (i, line) in text.lines().enumerate() {
            let (fingerprint, until) = parse(line).ok_or(LineError(i + 1))?;
            read.serial += 1;
            read.keys.insert(fingerprint, (until, read.serial));
        }
        Ok(read)
    }

    /// A line for each key, the oldest first.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_unstable_by_key(|(_, (_, serial))| *serial);
        let mut text = String::with_capacity(keys.len() * 48);
        for (fingerprint, (until, _)) in keys {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:032x} {until}", u128::from_be_bytes(*fingerprint));
        }
        text
    }

    /// Reserves the next numbers of an SA's key; many, when a NIC may get some of them.
    pub fn reserve(&mut self, sa: &Arc<Sa>, nic: bool) -> Grant {
        let block = match (nic, sa.esn) {
            (false, _) => BLOCK,
            (true, true) => NIC_BLOCK,
            (true, false) => NIC_BLOCK_SHORT,
        };
        let fingerprint = fingerprint(sa);
        let known = self.keys.get(&fingerprint).copied();
        let from = known.map_or(0, |(until, _)| until).max(sa.first);
        let end = if sa.esn { u64::MAX } else { 1 << 32 };
        let until = from.saturating_add(block).min(end).max(from);
        let serial = known.map_or(self.serial + 1, |(_, serial)| serial);
        self.serial = self.serial.max(serial);
        self.keys.insert(fingerprint, (until, serial));
        while self.keys.len() > MAX_KEYS {
            let oldest = self.keys.iter().min_by_key(|(_, (_, serial))| *serial).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.keys.remove(&oldest);
            }
        }
        Grant { sa: Arc::clone(sa), from, until }
    }
}

fn parse(line: &str) -> Option<(Fingerprint, u64)> {
    let (fingerprint, until) = line.split_once(' ')?;
    let number = u128::from_str_radix(fingerprint, 16).ok().filter(|_| fingerprint.len() == 32)?;
    Some((number.to_be_bytes(), until.parse().ok()?))
}

fn fingerprint(sa: &Sa) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(b"sluicegate sequence numbers of ");
    hash.update(sa.key.material());
    let digest = hash.finish();
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}
