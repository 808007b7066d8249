//! A backend's event stream, whose ids are tagged.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| toolgate::fuzzing::tagger(bytes));
