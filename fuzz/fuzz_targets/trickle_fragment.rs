#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_fuzz::trickle_fragment::check(data));
