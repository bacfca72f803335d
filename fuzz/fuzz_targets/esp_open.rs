//! Any octets as ESP packets of an inbound SA: see the body, which the tests of `fallback-sw` run on the seeds.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/esp_open.rs"]
mod body;

fuzz_target!(|data: &[u8]| body::run(data));
