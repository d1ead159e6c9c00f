#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fanlight_fuzz::http_multipart::check(data));
