//! Messages on a pipe that others share.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toolgate::fuzzing::duplex(bytes));
