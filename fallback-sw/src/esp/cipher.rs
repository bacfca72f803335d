//! AES-GCM as ESP uses it, with keys that are never shown.

use super::{
    ICV_LEN, IV_LEN,
    aead::{Aead as _, AesGcm, AesKey, NONCE_LEN, Provider},
};

/// Octets of key and salt: AES-128 and AES-256, each with the four octets of RFC 4106 §8.1.
pub const KEY_MATERIAL: [usize; 2] = [20, 36];

/// Key material of the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "key material of {given} octets: AES-GCM takes a key of 16 or 32 octets and a salt of 4 (RFC 4106 §8.1), 20 or 36 together"
)]
pub struct KeyError {
    /// Octets given.
    pub given: usize,
}

/// Key and salt. Overwritten when dropped; has no Debug on purpose.
#[derive(Clone)]
pub struct Key {
    octets: [u8; 36],
    len: usize,
}

impl Key {
    /// Key and salt, as IKE derives and the kernel takes them: key first.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(material: &[u8]) -> Result<Self, KeyError> {
        if !KEY_MATERIAL.contains(&material.len()) {
            return Err(KeyError { given: material.len() });
        }
        let mut key = Self { octets: [0; 36], len: material.len() };
        if let Some(octets) = key.octets.get_mut(..material.len()) {
            octets.copy_from_slice(material);
        }
        Ok(key)
    }

    /// Bits of the AES key: 128 or 256.
    #[must_use]
    pub const fn bits(&self) -> u16 {
        if self.len == KEY_MATERIAL[0] { 128 } else { 256 }
    }

    /// The AES key and the salt.
    pub(super) fn parts(&self) -> (AesKey<'_>, [u8; 4]) {
        if self.len == KEY_MATERIAL[0] {
            let (key, rest) = self.octets.split_first_chunk().unwrap_or((&[0; 16], &[]));
            (AesKey::Of128(key), rest.first_chunk().copied().unwrap_or_default())
        } else {
            let (key, rest) = self.octets.split_first_chunk().unwrap_or((&[0; 32], &[]));
            (AesKey::Of256(key), rest.first_chunk().copied().unwrap_or_default())
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.octets.fill(0);
        // Keeps the writes: nobody reads the memory after them.
        std::hint::black_box(&self.octets);
    }
}

/// AES-GCM with the salt of one SA. The expanded key is overwritten when dropped.
pub struct Cipher {
    aes: AesGcm,
    salt: [u8; 4],
}

impl Cipher {
    /// With this key, by whom this process uses.
    #[must_use]
    pub fn new(key: &Key) -> Self {
        Self::by(Provider::of_the_process(), key)
    }

    /// With this key, by this provider.
    #[must_use]
    pub fn by(provider: Provider, key: &Key) -> Self {
        let (key, salt) = key.parts();
        Self { aes: provider.expand(&key), salt }
    }

    /// Enciphers in place. `iv` must be unique under this key.
    #[inline]
    pub(super) fn seal(&self, iv: [u8; IV_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        self.aes.seal(&self.nonce(iv), aad, text, icv);
    }

    /// Deciphers in place; false: the packet is not what was sealed, and its text is wiped.
    #[inline]
    pub(super) fn open(&self, iv: [u8; IV_LEN], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        self.aes.open(&self.nonce(iv), aad, text, icv)
    }

    /// RFC 4106 §4: salt and initialisation vector.
    #[inline]
    fn nonce(&self, iv: [u8; IV_LEN]) -> [u8; NONCE_LEN] {
        let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (self.salt, iv);
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        self.salt = [0; 4];
        std::hint::black_box(&self.salt);
    }
}

/// What ESP authenticates besides the text (RFC 4106 §5): SPI and sequence number, all 64 bits of it with ESN.
#[inline]
pub(super) fn aad(spi: u32, sequence: u64, esn: bool, into: &mut [u8; 12]) -> &[u8] {
    into[..4].copy_from_slice(&spi.to_be_bytes());
    if esn {
        into[4..].copy_from_slice(&sequence.to_be_bytes());
        &into[..]
    } else {
        into[4..8].copy_from_slice(&(sequence as u32).to_be_bytes());
        &into[..8]
    }
}
