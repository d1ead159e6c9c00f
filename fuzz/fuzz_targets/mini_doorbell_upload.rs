#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_fuzz::mini_doorbell_upload::check(data));
