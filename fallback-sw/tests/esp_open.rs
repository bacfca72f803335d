//! The body of the fuzz target `esp_open`, on its seeds and on what else comes to mind. A crash that fuzzing finds becomes a seed.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic)]

#[path = "../../fuzz/bodies/esp_open.rs"]
mod body;

use proptest::prelude::*;

#[test]
fn the_seeds_of_the_fuzz_target_pass() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/esp_open");
    let seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        eprintln!("{}", seed.display());
        body::run(&std::fs::read(&seed).unwrap());
    }
}

proptest! {
    #[test]
    fn any_sequence_of_packets_is_opened_or_refused(
        flags in any::<u8>(),
        packets in prop::collection::vec(
            (0_u8..4, prop_oneof![-40_i16..40, any::<i16>()], prop::collection::vec(any::<u8>(), 0..60), 0_u8..5, 0_u8..70),
            0..40,
        ),
    ) {
        let mut data = vec![flags];
        for (kind, far, mut text, pad, next) in packets {
            // Mostly right: a trailer behind any text.
            text.extend(1..=pad);
            text.extend([pad, if next > 60 { 4 } else { next }]);
            let [high, low] = far.to_be_bytes();
            data.extend([kind, high, low, text.len() as u8]);
            data.extend(text);
        }
        body::run(&data);
    }
}
