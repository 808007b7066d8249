//! A schema, arguments and the headers that repeat them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toolgate::fuzzing::params(bytes));
