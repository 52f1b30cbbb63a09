#![no_main]

#[path = "../../tests/it/corpus/users.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::run(input));
