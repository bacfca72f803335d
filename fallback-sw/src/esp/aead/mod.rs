//! AES-GCM behind one small trait, and its implementations.
//!
//! Without further ado it is `graviola`, which cargo alone builds. [`ipsec_mb`] is faster on processors with AVX-512 and has to be
//! installed and asked for. Which one a packet's SA uses is decided when its key is expanded; for each packet that is one branch.

mod ipsec_mb;
#[cfg(test)]
pub(super) mod tests;

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

pub use ipsec_mb::LoadError;

use super::ICV_LEN;

/// Octets of the nonce: salt and initialisation vector (RFC 4106 §4).
pub const NONCE_LEN: usize = 12;

/// AES-GCM under one key, in place. The expanded key is overwritten when dropped.
pub trait Aead {
    /// Enciphers `text` and writes its check value. `nonce` must be unique under the key.
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]);

    /// Deciphers `text`; false: it is not what was sealed, and is wiped.
    #[must_use]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool;
}

impl Aead for graviola::aead::AesGcm {
    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        self.encrypt(nonce, aad, text, icv);
    }

    #[inline]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        self.decrypt(nonce, aad, text, icv).is_ok()
    }
}

/// An implementation of AES-GCM.
#[derive(Clone, Copy)]
pub struct Provider(Source);

#[derive(Clone, Copy)]
enum Source {
    Graviola,
    IpsecMb(&'static ipsec_mb::Functions),
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// New SAs use intel-ipsec-mb.
static IPSEC_MB: AtomicBool = AtomicBool::new(false);

impl Provider {
    /// The crate `graviola`: always there.
    pub const GRAVIOLA: Self = Self(Source::Graviola);

    /// Intel's Multi-Buffer Crypto for IPsec Library, if it is installed and works on this processor.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn ipsec_mb() -> Result<Self, LoadError> {
        ipsec_mb::load().map(|functions| Self(Source::IpsecMb(functions)))
    }

    /// The one that new SAs of this process use.
    #[must_use]
    pub fn of_the_process() -> Self {
        if IPSEC_MB.load(Ordering::Relaxed) { Self::ipsec_mb().unwrap_or(Self::GRAVIOLA) } else { Self::GRAVIOLA }
    }

    /// New SAs of this process use it from now on.
    pub fn use_for_the_process(self) {
        IPSEC_MB.store(matches!(self.0, Source::IpsecMb(_)), Ordering::Relaxed);
    }

    /// Name for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.0 {
            Source::Graviola => "graviola",
            Source::IpsecMb(_) => "ipsec-mb",
        }
    }

    /// Its version, and the instructions that it uses, where it tells.
    #[must_use]
    pub fn detail(&self) -> String {
        match self.0 {
            Source::Graviola => String::new(),
            Source::IpsecMb(functions) => functions.detail(),
        }
    }

    /// The cipher alone, under a key without its salt: for benchmarks and tests.
    #[must_use]
    pub fn aead(self, key: &super::Key) -> impl Aead + use<> {
        self.expand(&key.parts().0)
    }

    /// Expands a key of 16 or 32 octets.
    pub(super) fn expand(self, key: &AesKey<'_>) -> AesGcm {
        match self.0 {
            Source::Graviola => AesGcm::Graviola(Box::new(graviola::aead::AesGcm::new(key.octets()))),
            Source::IpsecMb(functions) => AesGcm::IpsecMb(functions.expand(key)),
        }
    }
}

/// A key of AES-128 or AES-256.
pub(super) enum AesKey<'a> {
    Of128(&'a [u8; 16]),
    Of256(&'a [u8; 32]),
}

impl AesKey<'_> {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Of128(key) => &key[..],
            Self::Of256(key) => &key[..],
        }
    }
}

/// An expanded key. What is secret of it stays where it is when this is moved.
pub(super) enum AesGcm {
    Graviola(Box<graviola::aead::AesGcm>),
    IpsecMb(ipsec_mb::Expanded),
}

impl Aead for AesGcm {
    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        match self {
            Self::Graviola(key) => key.seal(nonce, aad, text, icv),
            Self::IpsecMb(key) => key.seal(nonce, aad, text, icv),
        }
    }

    #[inline]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        match self {
            Self::Graviola(key) => key.open(nonce, aad, text, icv),
            Self::IpsecMb(key) => key.open(nonce, aad, text, icv),
        }
    }
}
