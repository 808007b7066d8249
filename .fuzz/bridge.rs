//! A request, an answer or a notification that crosses from one era to the other.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toolgate::fuzzing::bridge(bytes));
