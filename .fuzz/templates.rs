//! A URI template and a URI.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toolgate::fuzzing::templates(bytes));
