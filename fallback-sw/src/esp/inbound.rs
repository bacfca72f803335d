//! Opening: ESP becomes an IP packet again.

use super::{
    Cipher, HEADER_LEN, ICV_LEN, IV_LEN, Key, NEXT_IPV4, NEXT_IPV6, NEXT_NONE, Provider,
    cipher::aad,
    replay::{ReplayError, Window, WindowError},
};

/// What a datagram to UDP port 4500 is (RFC 3948 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// ESP: its SPI.
    Esp(u32),
    /// IKE behind the non-ESP marker.
    Ike,
    /// One octet 0xff: keeps a NAT's binding alive, and is ignored.
    Keepalive,
    /// Too short for any of them.
    Invalid,
}

/// Tells what the payload of a datagram on port 4500 is.
#[must_use]
#[inline]
pub fn envelope(payload: &[u8]) -> Envelope {
    match payload.first_chunk::<4>() {
        Some([0, 0, 0, 0]) => Envelope::Ike,
        Some(spi) => Envelope::Esp(u32::from_be_bytes(*spi)),
        None if payload == [0xff] => Envelope::Keepalive,
        None => Envelope::Invalid,
    }
}

/// How an inbound SA is set up.
#[derive(Clone)]
pub struct InboundConfig {
    /// Security parameters index; 256 and above.
    pub spi: u32,
    /// Key and salt.
    pub key: Key,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Packets of the replay window, a multiple of 32 up to 4096; 0: no replay protection (RFC 4303 §3.4.3 allows it for
    /// manual keys only).
    pub window: u32,
}

/// A packet cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short for the headers, the trailer and the check value.
    #[error("truncated ESP packet")]
    Truncated,
    /// The replay window refuses it.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The check value does not hold: forged, damaged, or another key.
    #[error("ESP authentication failed")]
    Authentication,
    /// The padding is longer than the text, or not 1, 2, 3, ... (RFC 4303 §2.4).
    #[error("wrong ESP padding")]
    Padding,
    /// The text is no IP packet of the family that the trailer names.
    #[error("no IP packet inside ESP")]
    NotIp,
}

/// What an ESP packet held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet: these octets, counted from the ESP header.
    Packet {
        /// Where it begins.
        at: usize,
        /// Its length, padding behind it (RFC 4303 §2.7) included.
        len: usize,
    },
    /// A dummy packet, to be discarded without a word.
    Dummy,
}

/// An SA for receiving.
pub struct InboundSa {
    spi: u32,
    esn: bool,
    cipher: Cipher,
    window: Option<Window>,
}

impl InboundSa {
    /// Ready to receive.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn new(config: &InboundConfig) -> Result<Self, WindowError> {
        Self::by(Provider::of_the_process(), config)
    }

    /// Ready to receive, with AES-GCM by this provider.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn by(provider: Provider, config: &InboundConfig) -> Result<Self, WindowError> {
        let InboundConfig { spi, key, esn, window } = config;
        // With extended numbers the window tells the half that is not sent.
        let window = if *window == 0 && !esn { None } else { Some(Window::new(*window, *esn)?) };
        Ok(Self { spi: *spi, esn: *esn, cipher: Cipher::by(provider, key), window })
    }

    /// Its index.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// Its window.
    #[must_use]
    pub const fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    #[cfg(test)]
    pub(super) fn received_up_to(&mut self, number: u64) {
        if let Some(window) = self.window.as_mut().filter(|window| number > window.top()) {
            window.update(number);
        }
    }

    /// Numbers up to this one are not received any more: somebody else may have received them.
    pub fn refuse_through(&mut self, number: u64) {
        if let Some(window) = &mut self.window {
            window.refuse_through(number);
        }
    }

    /// Opens in place what begins with an ESP header of this SA's index and ends with the check value.
    ///
    /// # Errors
    /// [`OpenError`]; the window moves only for what is authentic.
    #[inline]
    pub fn open(&mut self, esp: &mut [u8]) -> Result<Opened, OpenError> {
        let number = self.check(esp)?;
        let genuine = self.decipher(esp, number);
        self.accept(esp, number, genuine)
    }

    /// The same for a packet whose text a NIC has deciphered in place, and whose check value it has found right.
    ///
    /// # Errors
    /// [`OpenError`].
    #[inline]
    pub fn open_deciphered(&mut self, esp: &mut [u8]) -> Result<Opened, OpenError> {
        let number = self.check(esp)?;
        self.accept(esp, number, true)
    }

    /// First of the three steps of opening, for callers that take each with many packets: the whole number of a packet that is long enough,
    /// and that the window lets through as far as it has come.
    ///
    /// # Errors
    /// [`OpenError::Truncated`], [`OpenError::Replay`].
    #[inline]
    pub fn check(&self, esp: &[u8]) -> Result<u64, OpenError> {
        let Some(&[_, _, _, _, s0, s1, s2, s3]) = esp.first_chunk() else { return Err(OpenError::Truncated) };
        if esp.len() < BEFORE + 2 + ICV_LEN {
            return Err(OpenError::Truncated);
        }
        let low = u32::from_be_bytes([s0, s1, s2, s3]);
        match &self.window {
            Some(window) => Ok(window.check(low)?),
            None => Ok(low.into()),
        }
    }

    /// Second step: deciphers the text in place; false: it is not authentic.
    #[inline]
    #[must_use]
    pub fn decipher(&self, esp: &mut [u8], number: u64) -> bool {
        let Some((head, body)) = esp.split_first_chunk_mut::<BEFORE>() else { return false };
        let Some((text, icv)) = body.split_last_chunk_mut::<ICV_LEN>() else { return false };
        let [_, _, _, _, _, _, _, _, iv @ ..] = *head;
        let mut authenticated = [0; 12];
        self.cipher.open(iv, aad(self.spi, number, self.esn, &mut authenticated), text, icv)
    }

    /// Third step, in the order in which the packets came: moves the window and takes off the trailer. Asks the window again: packets before
    /// this one may have moved it. One that had another number then was deciphered under that one, and counts as not authentic.
    ///
    /// # Errors
    /// [`OpenError`].
    #[inline]
    pub fn accept(&mut self, esp: &[u8], number: u64, genuine: bool) -> Result<Opened, OpenError> {
        if self.check(esp)? != number || !genuine {
            return Err(OpenError::Authentication);
        }
        if let Some(window) = &mut self.window {
            window.update(number);
        }
        let text = esp.get(BEFORE..esp.len().saturating_sub(ICV_LEN)).unwrap_or(&[]);
        let Some((data, [pad_len, next])) = text.split_last_chunk::<2>() else { return Err(OpenError::Truncated) };
        let len = data.len().checked_sub(usize::from(*pad_len)).ok_or(OpenError::Padding)?;
        let padding = data.get(len..).unwrap_or(&[]);
        if !padding.iter().zip(1..=u8::MAX).all(|(octet, expected)| *octet == expected) {
            return Err(OpenError::Padding);
        }
        let version = data.first().map(|octet| octet >> 4);
        match (*next, version) {
            (NEXT_NONE, _) => Ok(Opened::Dummy),
            (NEXT_IPV4, Some(4)) | (NEXT_IPV6, Some(6)) if len > 0 => Ok(Opened::Packet { at: BEFORE, len }),
            _ => Err(OpenError::NotIp),
        }
    }
}

/// Octets before the text.
const BEFORE: usize = HEADER_LEN + IV_LEN;
