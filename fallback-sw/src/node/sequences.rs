//! Which sequence numbers outbound SAs may use: reserved ahead, so that a node that is started again passes over all that it may
//! have used. A number used twice under one key is a nonce used twice, which gives AES-GCM away (RFC 4106 §2).
//!
//! Numbers belong to a key, not to an SA of some number: whatever the state calls it, a key goes on where it was. Here is what is
//! reserved; putting it on disk, before it is used, is for the runtime to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

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
/// Keys that are remembered; beyond that the oldest that no SA has are forgotten, some at a time.
const MAX_KEYS: usize = 65_536;
const FORGET: usize = MAX_KEYS / 16;

/// Tells keys apart and nothing else about them.
type Fingerprint = [u8; 16];

/// What a line of the file is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is no fingerprint of 32 hexadecimal digits with a number behind it")]
pub struct LineError(usize);

/// Why it is not known which numbers a key has used. It is refused from then on: only a new key is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumbersUnknown {
    /// The file of reserved numbers was lost.
    #[error("the kept state was found without its file of reserved sequence numbers")]
    Missing,
    /// It was put back from a backup, or is another node's.
    #[error("the file of reserved sequence numbers was a copy: numbers may have been used since it was made")]
    Copied,
    /// The kept state has the key, and the file of reserved numbers has not.
    #[error("the kept state has a key that the file of reserved sequence numbers does not know")]
    Unlisted,
}

impl NumbersUnknown {
    const ALL: [Self; 3] = [Self::Missing, Self::Copied, Self::Unlisted];

    const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Copied => "copied",
            Self::Unlisted => "unlisted",
        }
    }
}

/// Sequence numbers of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyNumbers {
    /// The first one that is not reserved.
    Until(u64),
    /// Nothing: none may be used.
    Refused(NumbersUnknown),
}

/// Reserved numbers by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    /// With when the key was met, as a serial number.
    keys: BTreeMap<Fingerprint, (KeyNumbers, u64)>,
    serial: u64,
}

impl Sequences {
    /// What [`Self::to_text`] wrote.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn from_text(text: &str) -> Result<Self, LineError> {
        Self::from_lines(text, 1)
    }

    /// Likewise, of lines of which the first has this number.
    pub(super) fn from_lines(text: &str, first: usize) -> Result<Self, LineError> {
        let mut read = Self::default();
        for (i, line) in text.lines().enumerate() {
            let (fingerprint, standing) = parse(line).ok_or(LineError(i + first))?;
            read.serial += 1;
            read.keys.insert(fingerprint, (standing, read.serial));
        }
        Ok(read)
    }

    /// A line for each key, the oldest first.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_unstable_by_key(|(_, (_, serial))| *serial);
        let mut text = String::with_capacity(keys.len() * 48);
        for (fingerprint, (standing, _)) in keys {
            // Writing to a string does not fail.
            let _ = match standing {
                KeyNumbers::Until(until) => writeln!(text, "{:032x} {until}", u128::from_be_bytes(*fingerprint)),
                KeyNumbers::Refused(why) => {
                    writeln!(text, "{:032x} {}", u128::from_be_bytes(*fingerprint), why.word())
                }
            };
        }
        text
    }

    /// Is anything known of an SA's key?
    #[must_use]
    pub fn knows(&self, sa: &Sa) -> bool {
        self.keys.contains_key(&fingerprint(sa))
    }

    /// An SA's key may have used numbers that are not recorded.
    pub fn refuse(&mut self, sa: &Sa, why: NumbersUnknown) {
        self.note(fingerprint(sa), KeyNumbers::Refused(why));
    }

    /// So may all keys.
    pub fn refuse_all(&mut self, why: NumbersUnknown) {
        for (standing, _) in self.keys.values_mut() {
            if matches!(standing, KeyNumbers::Until(_)) {
                *standing = KeyNumbers::Refused(why);
            }
        }
    }

    /// Reserves the next numbers of an SA's key; many, when a NIC may get some of them.
    ///
    /// # Errors
    /// [`NumbersUnknown`]: which numbers the key has used is not known.
    pub fn reserve(&mut self, sa: &Arc<Sa>, nic: bool) -> Result<Grant, NumbersUnknown> {
        let block = match (nic, sa.esn) {
            (false, _) => BLOCK,
            (true, true) => NIC_BLOCK,
            (true, false) => NIC_BLOCK_SHORT,
        };
        let fingerprint = fingerprint(sa);
        let known = match self.keys.get(&fingerprint) {
            Some((KeyNumbers::Refused(why), _)) => return Err(*why),
            Some((KeyNumbers::Until(until), _)) => *until,
            None => 0,
        };
        let from = known.max(sa.first);
        let end = if sa.esn { u64::MAX } else { 1 << 32 };
        let until = from.saturating_add(block).min(end).max(from);
        self.note(fingerprint, KeyNumbers::Until(until));
        Ok(Grant { sa: Arc::clone(sa), from, until })
    }

    fn note(&mut self, fingerprint: Fingerprint, standing: KeyNumbers) {
        self.serial += 1;
        let serial = self.serial;
        self.keys.entry(fingerprint).or_insert((standing, serial)).0 = standing;
    }

    /// Forgets the oldest keys when there are too many, but for those of these SAs.
    pub fn forget_oldest<'a>(&mut self, in_use: impl Iterator<Item = &'a Sa>) {
        if self.keys.len() <= MAX_KEYS {
            return;
        }
        let in_use: BTreeSet<Fingerprint> = in_use.map(fingerprint).collect();
        let mut old: Vec<_> = self.keys.iter().filter(|(key, _)| !in_use.contains(*key)).collect();
        old.sort_unstable_by_key(|(_, (_, serial))| *serial);
        let forgotten: Vec<Fingerprint> = old.iter().take(FORGET).map(|(key, _)| **key).collect();
        for key in forgotten {
            self.keys.remove(&key);
        }
    }
}

fn parse(line: &str) -> Option<(Fingerprint, KeyNumbers)> {
    let (fingerprint, standing) = line.split_once(' ')?;
    let number = u128::from_str_radix(fingerprint, 16).ok().filter(|_| fingerprint.len() == 32)?;
    let refused = NumbersUnknown::ALL.into_iter().find(|why| why.word() == standing);
    let standing = match refused {
        Some(why) => KeyNumbers::Refused(why),
        None => KeyNumbers::Until(standing.parse().ok()?),
    };
    Some((number.to_be_bytes(), standing))
}

fn fingerprint(sa: &Sa) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(b"sluicegate sequence numbers of ");
    hash.update(sa.key.material());
    let digest = hash.finish();
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}
