//! The headers and the body of a request.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toolgate::fuzzing::ladder(bytes));
