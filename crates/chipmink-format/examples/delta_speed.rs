//! How fast chunk deltas are made and taken apart, on one core:
//!
//! ```text
//! cargo run --release -p chipmink-format --example delta_speed
//! ```
//!
//! Chunks of 16-bit weights as bfloat16 has them, of which one in a hundred changed: in its lowest bit, or to a fresh value.
//! Prints for each the bytes stored per byte, and decoded gigabytes (10^9 bytes) per second of this thread.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is a program that prints, and may fail")]

use bytes::Bytes;
use chipmink_format::{Compressor, decode_delta};
use std::time::{Duration, Instant};

const CHUNK: usize = 64 << 10;
const CHUNKS: usize = 512;
const ROUNDS: usize = 9;

/// Numbers that look random (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// The upper half of a 32-bit float, about normally distributed: a sum of twelve numbers between 0 and 1, less six.
    fn weight(&mut self) -> [u8; 2] {
        let sum: f32 = (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum();
        ((sum - 6.0).to_bits() >> 16).to_le_bytes()[..2].try_into().unwrap()
    }
}

/// The fastest of some rounds: what disturbs a machine only ever makes it slower.
fn fastest(mut round: impl FnMut()) -> Duration {
    let timed = |_| {
        let began = Instant::now();
        round();
        began.elapsed()
    };
    (0..ROUNDS).map(timed).min().unwrap()
}

fn main() {
    let mut numbers = Numbers(1);
    let base: Vec<Bytes> = (0..CHUNKS)
        .map(|_| (0..CHUNK / 2).flat_map(|_| numbers.weight()).collect::<Vec<u8>>().into())
        .collect();
    for which in ["low bits", "fresh values"] {
        let changed: Vec<Vec<u8>> = base
            .iter()
            .map(|chunk| {
                let mut bytes = chunk.to_vec();
                for _ in 0..CHUNK / 200 {
                    let at = (numbers.next() % (CHUNK as u64 / 2)) as usize * 2;
                    match which {
                        "low bits" => bytes[at] ^= 1,
                        _ => bytes[at..at + 2].copy_from_slice(&numbers.weight()),
                    }
                }
                bytes
            })
            .collect();
        let mut compressor = Compressor::new();
        let mut stored = Vec::new();
        let encoding = fastest(|| {
            stored.clear();
            for (bytes, base) in changed.iter().zip(&base) {
                let (codec, delta) = compressor.compress_delta(bytes, base, CHUNK / 2).unwrap();
                stored.push((codec, delta.to_vec()));
            }
        });
        let decoding = fastest(|| {
            for (((codec, delta), base), bytes) in stored.iter().zip(&base).zip(&changed) {
                let decoded = decode_delta(delta, *codec, CHUNK as u64, base.clone(), CHUNK as u64).unwrap();
                assert!(decoded == bytes);
            }
        });
        let share =
            stored.iter().map(|(_, delta)| delta.len()).sum::<usize>() as f64 / (CHUNK * CHUNKS) as f64;
        let rate = |spent: Duration| (CHUNK * CHUNKS) as f64 / 1e9 / spent.as_secs_f64();
        println!("{which}\t{share:.5}\t{:.3}\t{:.3}", rate(encoding), rate(decoding));
    }
}
