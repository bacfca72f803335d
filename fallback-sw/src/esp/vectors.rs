//! The test cases of draft-mcgrew-gcm-test-01, "Test Cases for the use of Galois/Counter Mode (GCM) and Galois Message Authentication
//! Code (GMAC) in IPsec ESP", §4: those for AES-128 and AES-256, as whole ESP packets.
//!
//! Their next header is 1 (the cases are of transport mode, or not IP at all), so that what opens is no packet of a tunnel.

use super::{aead::tests::providers, tests::octets, *};

/// A test case: key and salt, SPI, sequence number (extended: 16 digits), initialisation vector, text, and what becomes of it.
struct Case {
    key: &'static str,
    spi: u32,
    sequence: &'static str,
    iv: &'static str,
    text: &'static str,
    sealed: &'static str,
    icv: &'static str,
}

const CASES: [Case; 13] = [
    Case {
        key: "4c80cdefbb5d10da906ac73c3613a6342e443b68",
        spi: 0x4321,
        sequence: "8765432100000000",
        iv: "4956ed7e3b244cfe",
        text: "45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b000021000101020201",
        sealed: "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
        icv: "459018148f6cbe722fd04796562dfdb4",
    },
    Case {
        key: "feffe9928665731c6d6a8f9467308308cafebabe",
        spi: 0xa5f8,
        sequence: "0000000a",
        iv: "facedbaddecaf888",
        text: "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000037369700963796265726369747902646b00000100010001",
        sealed: "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
        icv: "83b70d3aa8bc6ee4c309e9d85a41ad4a",
    },
    Case {
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab11223344",
        spi: 0x4a2c_bfe3,
        sequence: "00000002",
        iv: "0102030405060708",
        text: "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
        sealed: "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e",
        icv: "b335f4eecfdbf831824b4c4915956c96",
    },
    Case {
        key: "0000000000000000000000000000000000000000",
        spi: 0,
        sequence: "00000001",
        iv: "0000000000000000",
        text: "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        sealed: "4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3",
        icv: "f821d496eeb096e98ad2b69e4799c71d",
    },
    Case {
        key: "3de09874b388e6491988d0c3607eae1f57690e43",
        spi: 0x42f6_7e3f,
        sequence: "1010101010101010",
        iv: "4e280000a2fca1a3",
        text: "4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        sealed: "fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a",
        icv: "e0d731cc978ecafaeae88f00e80d6e48",
    },
    Case {
        key: "3de09874b388e6491988d0c3607eae1f57690e43",
        spi: 0x42f6_7e3f,
        sequence: "1010101010101010",
        iv: "4e280000a2fca1a3",
        text: "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
        sealed: "fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed",
        icv: "369f071f35e034be95f112e4e7d05d35",
    },
    Case {
        key: "abbccddef00112233445566778899aabdecaf888",
        spi: 0x100,
        sequence: "0000000000000001",
        iv: "cafedebaceface74",
        text: "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d500004e20001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec959b6266c04722b14923010101",
        sealed: "18a6fd42f72cbf4ab2a2ea901f73d814e3e7f243d95412e1c349c1d2fbec168f9190feebaf2cb01984e65863965d7472b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68",
        icv: "651f57e65f354f75ff17015769623436",
    },
    Case {
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab73616c74",
        spi: 0x1740_5e67,
        sequence: "156f3126dd0db99b",
        iv: "616e640169766563",
        text: "45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
        sealed: "f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e",
        icv: "451626c2415771e3b7eebca614c89b35",
    },
    Case {
        key: "3de09874b388e6491988d0c3607eae1f57690e43",
        spi: 0x42f6_7e3f,
        sequence: "1010101010101010",
        iv: "4e280000a2fca1a3",
        text: "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b000001e0001e8c18d65759d52284a0352c71475c8880391c764d6e5ee0496b325ae270c03899493915010101",
        sealed: "fba2cad12fc1f9f00d3cebf305410db83d7784b607323d220f24b0a97d54182800cadb0f68d99ef0e0c0c89ae9bea8884e52d65bc1afd0740f742444747b5b39ab533163aad4550ee5160975",
        icv: "cdb608c5769189609763b8e18caa81e2",
    },
    Case {
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab73616c74",
        spi: 0x1740_5e67,
        sequence: "156f3126dd0db99b",
        iv: "616e640169766563",
        text: "636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f67696573017468617477696c6c01646566696e65746f6d6f72726f7701020201",
        sealed: "d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10e5487df074113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8",
        icv: "c0cac587f249e56b11e24f30e44ccc76",
    },
    Case {
        key: "7d773d00c144c525ac619d18c84a3f47d9664267",
        spi: 0x3354_67ae,
        sequence: "ffffffff",
        iv: "43457e9182443bc6",
        text: "01020201",
        sealed: "437f866b",
        icv: "cb3f699fe9b0822bac961c4504bef270",
    },
    Case {
        key: "abbccddef00112233445566778899aabdecaf888",
        spi: 0x100,
        sequence: "0000000000000001",
        iv: "cafedebaceface74",
        text: "746f016265016f72016e6f7401746f0162650001",
        sealed: "29c9fc69a197d038ccdd14e2ddfcaa0543332164",
        icv: "412503524303ed3c6c5f283843af8c3e",
    },
    Case {
        key: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f726569617475726e",
        spi: 0x796b_6963,
        sequence: "ffffffffffffffff",
        iv: "333021696765746d",
        text: "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f707172737401020201",
        sealed: "f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9",
        icv: "d0937ba2945f669368661a329fb4c053",
    },
];

impl Case {
    fn number(&self) -> u64 {
        u64::from_str_radix(self.sequence, 16).unwrap()
    }

    fn esn(&self) -> bool {
        self.sequence.len() == 16
    }

    /// The packet from the ESP header to the check value.
    fn packet(&self) -> Vec<u8> {
        let low = (self.number() as u32).to_be_bytes();
        [&self.spi.to_be_bytes()[..], &low, &octets(self.iv), &octets(self.sealed), &octets(self.icv)].concat()
    }

    /// An SA that has received everything up to `top`.
    fn receiver(&self, provider: Provider, top: u64) -> InboundSa {
        let key = Key::new(&octets(self.key)).unwrap();
        let config = InboundConfig { spi: self.spi, key, esn: self.esn(), window: 64 };
        let mut sa = InboundSa::by(provider, &config).unwrap();
        sa.received_up_to(top);
        sa
    }
}

#[test]
fn the_cases_of_rfc_4106_are_sealed_as_published() {
    for provider in providers() {
        for case in &CASES {
            let cipher = Cipher::by(provider, &Key::new(&octets(case.key)).unwrap());
            let (mut text, mut icv, mut buffer) = (octets(case.text), [0; ICV_LEN], [0; 12]);
            let authenticated = cipher::aad(case.spi, case.number(), case.esn(), &mut buffer);
            cipher.seal(octets(case.iv).try_into().unwrap(), authenticated, &mut text, &mut icv);
            assert_eq!((text, icv.to_vec()), (octets(case.sealed), octets(case.icv)), "{provider:?}: {}", case.sealed);
        }
    }
}

#[test]
fn packets_of_rfc_4106_open_as_published_and_only_where_they_belong() {
    for provider in providers() {
        for case in &CASES {
            let told = format!("{provider:?}: {}", case.sealed);
            let (number, packet, text) = (case.number(), case.packet(), octets(case.text));
            let mut sa = case.receiver(provider, number - 1);
            for at in 4..packet.len() {
                let mut forged = packet.clone();
                forged[at] ^= 0x80;
                // With another sequence number it may be left of the window as well.
                let refused = sa.open(&mut forged);
                assert!(matches!(refused, Err(OpenError::Authentication | OpenError::Replay(_))), "{told}, octet {at}");
                assert_eq!(sa.window().unwrap().top(), number - 1, "{told}, octet {at}");
            }
            // Authentic, and no packet of a tunnel: its next header is 1.
            let mut opened = packet.clone();
            assert_eq!(sa.open(&mut opened), Err(OpenError::NotIp), "{told}");
            assert_eq!(&opened[HEADER_LEN + IV_LEN..][..text.len()], text, "{told}");
            assert_eq!(sa.window().unwrap().top(), number, "{told}");
            assert_eq!(sa.open(&mut packet.clone()), Err(OpenError::Replay(ReplayError::Seen)), "{told}");
            if case.esn() && number >> 32 > 0 {
                // The half that is not sent is authenticated.
                let mut elsewhere = case.receiver(provider, number - (3 << 32) - 1);
                assert_eq!(elsewhere.open(&mut packet.clone()), Err(OpenError::Authentication), "{told}");
            }
        }
    }
}

/// The octets above are those of the draft, or another implementation would compute others.
#[test]
fn the_cases_of_rfc_4106_are_what_another_implementation_computes() {
    use aes_gcm::{
        Aes128Gcm, Aes256Gcm, KeyInit, Nonce,
        aead::{Aead as _, Payload},
    };
    for case in &CASES {
        let key = octets(case.key);
        let (key, salt) = key.split_at(key.len() - 4);
        let (nonce, text) = ([salt, &octets(case.iv)].concat(), octets(case.text));
        let aad = [&case.spi.to_be_bytes()[..], &octets(case.sequence)].concat();
        let payload = Payload { msg: &text, aad: &aad };
        let nonce = Nonce::from_slice(&nonce);
        let sealed = match key.len() {
            16 => Aes128Gcm::new_from_slice(key).unwrap().encrypt(nonce, payload),
            _ => Aes256Gcm::new_from_slice(key).unwrap().encrypt(nonce, payload),
        };
        assert_eq!(sealed.unwrap(), [octets(case.sealed), octets(case.icv)].concat(), "{}", case.sealed);
    }
}
