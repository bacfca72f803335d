//! AES-GCM of everyone who could be chosen, behind the trait that ESP uses.

use aes_gcm::{AeadInPlace as _, Aes128Gcm, Aes256Gcm, KeyInit as _, Nonce, Tag};
use fallback_sw::esp::{Aead, ICV_LEN, NONCE_LEN};

use crate::measure::{Effort, Sample};

/// Packets between two looks at the clock.
const ROUND: u64 = 1024;
/// SPI and extended sequence number.
const AAD_LEN: usize = 12;

struct RustCrypto128(Aes128Gcm);
struct RustCrypto256(Aes256Gcm);
struct Ring(ring::aead::LessSafeKey);
struct AwsLc(aws_lc_rs::aead::LessSafeKey);

macro_rules! rust_crypto {
    ($name:ty) => {
        impl Aead for $name {
            #[inline]
            fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
                let tag = self.0.encrypt_in_place_detached(Nonce::from_slice(nonce), aad, text).expect("a short text");
                icv.copy_from_slice(&tag);
            }

            #[inline]
            fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
                self.0.decrypt_in_place_detached(Nonce::from_slice(nonce), aad, text, Tag::from_slice(icv)).is_ok()
            }
        }
    };
}

rust_crypto!(RustCrypto128);
rust_crypto!(RustCrypto256);

impl Aead for Ring {
    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        use ring::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text).expect("a short text");
        icv.copy_from_slice(tag.as_ref());
    }

    /// ring wants the check value behind the text: `text` has room for it here.
    #[inline]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], _: &[u8; ICV_LEN]) -> bool {
        use ring::aead::{Aad, Nonce};
        self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text).is_ok()
    }
}

impl Aead for AwsLc {
    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        use aws_lc_rs::aead::{Aad, Nonce};
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text).expect("a short text");
        icv.copy_from_slice(tag.as_ref());
    }

    /// As ring.
    #[inline]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], _: &[u8; ICV_LEN]) -> bool {
        use aws_lc_rs::aead::{Aad, Nonce};
        self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), text).is_ok()
    }
}

/// Sealing and opening of one length.
pub(super) struct Raw {
    pub(super) name: &'static str,
    pub(super) seal: Sample,
    pub(super) open: Sample,
}

/// Everyone but those that ESP can be told to use, which are measured by [`measure`] with a cipher of theirs.
pub(super) fn others(effort: &Effort, bits: u16, len: usize) -> Vec<Raw> {
    let key = &super::MATERIAL[..usize::from(bits / 8)];
    let ring_key = |of| ring::aead::LessSafeKey::new(ring::aead::UnboundKey::new(of, key).expect("a key"));
    let aws_key = |of| aws_lc_rs::aead::LessSafeKey::new(aws_lc_rs::aead::UnboundKey::new(of, key).expect("a key"));
    let (ring, aws_lc) = if bits == 128 {
        (ring_key(&ring::aead::AES_128_GCM), aws_key(&aws_lc_rs::aead::AES_128_GCM))
    } else {
        (ring_key(&ring::aead::AES_256_GCM), aws_key(&aws_lc_rs::aead::AES_256_GCM))
    };
    let rust_crypto = if bits == 128 {
        measure(effort, "RustCrypto", &RustCrypto128(Aes128Gcm::new_from_slice(key).expect("a key")), len, false)
    } else {
        measure(effort, "RustCrypto", &RustCrypto256(Aes256Gcm::new_from_slice(key).expect("a key")), len, false)
    };
    vec![
        measure(effort, "aws-lc-rs", &AwsLc(aws_lc), len, true),
        measure(effort, "ring", &Ring(ring), len, true),
        rust_crypto,
    ]
}

/// Seals and opens a text of `len` octets again and again. `behind`: the check value is to be opened behind the text.
pub(super) fn measure(effort: &Effort, name: &'static str, key: &impl Aead, len: usize, behind: bool) -> Raw {
    let mut memory = vec![0_u8; len + ICV_LEN];
    let mut icv = [0; ICV_LEN];
    let mut number = 0_u64;
    let mut nonce = [0; NONCE_LEN];
    let seal = effort.measure(|| {
        for _ in 0..ROUND {
            number += 1;
            nonce[4..].copy_from_slice(&number.to_be_bytes());
            key.seal(&nonce, &nonce[..AAD_LEN], &mut memory[..len], &mut icv);
        }
        ROUND
    });
    // Opening needs what was sealed: a copy each time, whose cost is taken off.
    memory[..len].fill(0);
    key.seal(&nonce, &nonce, &mut memory[..len], &mut icv);
    memory[len..].copy_from_slice(&icv);
    let sealed = memory.clone();
    let copy = effort.measure(|| {
        for _ in 0..ROUND {
            memory.copy_from_slice(&sealed);
            std::hint::black_box(&mut memory);
        }
        ROUND
    });
    let open = effort.measure(|| {
        for _ in 0..ROUND {
            memory.copy_from_slice(&sealed);
            std::hint::black_box(&mut memory);
            let text = if behind { &mut memory[..] } else { &mut memory[..len] };
            assert!(key.open(&nonce, &nonce, text, &icv), "what was sealed opens");
        }
        ROUND
    });
    Raw { name, seal, open: open.less(copy) }
}
