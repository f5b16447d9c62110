//! A stream of MQTT packets from a client, of both versions, whole and in pieces: every decoder of the listener.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| godwit_agent::mqtt::decode_stream(input));
