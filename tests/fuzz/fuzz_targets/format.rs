//! All decoders of `chipmink-format` under libFuzzer: the first byte picks one, the others are what it decodes.
#![no_main]

#[path = "../entries/format.rs"]
mod entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((pick, bytes)) = bytes.split_first() {
        let (_, entry) = entries::ALL[usize::from(*pick) % entries::ALL.len()];
        entry(bytes);
    }
});
