#![no_main]

#[path = "../../tests/it/corpus/requests.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
