//! Counter-based random draws: every number is a function of (seed, stream name, absolute position) alone, so that it
//! does not depend on chunking, batching, threads or the device. `draws.py` gives the same numbers, bit for bit.
//!
//! Generator: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key
//! is the seed; the counter is the number of the block (low 64 bits) and the FNV-1a hash of the stream's name (high 64).
//! A block of four words makes two uniforms (53 bits) or four normals (Box–Muller, 32 bits each, so |z| < 6.8).
//!
//! Logarithm, sine and cosine are polynomials here and in Python: they use only operations that IEEE 754 rounds in one
//! way, while the libraries' own functions differ in the last bit between systems.

use std::f64::consts::{FRAC_PI_2, LN_2, PI, SQRT_2};

use crate::{Error, Matrix, Result};

/// One uniform for each step of the token loop.
pub const T3: &str = "t3";
/// Normals `[frames, 80]` that the flow starts from.
pub const FLOW: &str = "flow";
/// One uniform phase for each harmonic of the vocoder's source.
pub const PHASE: &str = "vocoder.phase";
/// Normals `[samples, 9]` of the vocoder's source.
pub const NOISE: &str = "vocoder.noise";
/// The seed of each piece of a request that is computed in pieces.
pub const SEGMENT: &str = "segment";

/// One block of Philox4x32-10.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = 0xD251_1F53 * u64::from(counter[0]);
        let b = 0xCD9E_8D57 * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// One stream of one seed.
#[derive(Clone, Copy, Debug)]
struct Stream {
    key: [u32; 2],
    name: [u32; 2],
}

impl Stream {
    fn new(seed: u64, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self { key: [seed as u32, (seed >> 32) as u32], name: [hash as u32, (hash >> 32) as u32] }
    }

    fn block(&self, index: u64) -> [u32; 4] {
        philox([index as u32, (index >> 32) as u32, self.name[0], self.name[1]], self.key)
    }

    /// 64 bits at `position`; a block holds two.
    fn bits(&self, position: u64) -> u64 {
        let block = self.block(position / 2);
        let at = (position % 2) as usize * 2;
        u64::from(block[at]) | u64::from(block[at + 1]) << 32
    }
}

/// Uniforms in [0, 1) with 53 bits, `[count]`, positions `start..start + count` of `stream`.
///
/// # Errors
/// [`Error::Argument`] when a position passes 2⁶⁴ or the values do not fit the memory.
pub fn uniforms(seed: u64, stream: &str, start: u64, count: usize) -> Result<Vec<f64>> {
    let stream = Stream::new(seed, stream);
    let end = last(start, count as u64)?;
    let mut values = reserve(count)?;
    values.extend((start..end).map(|at| (stream.bits(at) >> 11) as f64 * 2f64.powi(-53)));
    Ok(values)
}

/// Standard normals `[rows, cols]`, float32: the rows from `start_row` of an endless matrix with `cols` columns.
///
/// # Errors
/// [`Error::Argument`] when a position passes 2⁶⁴ or the values do not fit the memory.
pub fn normals(seed: u64, stream: &str, start_row: u64, rows: usize, cols: usize) -> Result<Matrix> {
    let stream = Stream::new(seed, stream);
    let (Some(count), Some(start)) = (rows.checked_mul(cols), start_row.checked_mul(cols as u64)) else {
        return Err(beyond());
    };
    let end = last(start, count as u64)?;
    let mut data = reserve(count)?;
    let mut at = start;
    while at < end {
        let first = (at % 4) as usize;
        let take = ((end - at) as usize).min(4 - first);
        data.extend_from_slice(&four_normals(stream.block(at / 4))[first..first + take]);
        at += take as u64;
    }
    Ok(Matrix { rows, cols, data })
}

/// The vocoder's initial phases in radians, `[count]` (9): 0 for the fundamental, then uniform in (−π, π), float32.
///
/// # Errors
/// [`Error::Argument`] when the values do not fit the memory.
pub fn phases(seed: u64, count: usize) -> Result<Vec<f32>> {
    let stream = Stream::new(seed, PHASE);
    let phase = |at: u64| (2.0 * (((stream.bits(at) >> 12) as f64 + 0.5) * 2f64.powi(-52)) - 1.0) * PI;
    let mut values = reserve(count)?;
    values.extend((0..count as u64).map(|at| if at == 0 { 0.0 } else { phase(at) as f32 }));
    Ok(values)
}

/// The seed that piece `index` of a request draws with: `seed` itself for the first one, so that a request of one piece has its
/// own draws, else the 64 bits at position `index` of stream [`SEGMENT`].
///
/// # Errors
/// [`Error::Argument`] when the position passes 2⁶⁴.
pub fn derived(seed: u64, index: u64) -> Result<u64> {
    last(index, 1)?;
    Ok(if index == 0 { seed } else { Stream::new(seed, SEGMENT).bits(index) })
}

fn reserve<T>(count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => Ok(values),
        Err(_) => Err(Error::argument(format!("count: expected values that fit the memory, got {count}"))),
    }
}

fn last(start: u64, count: u64) -> Result<u64> {
    start.checked_add(count).ok_or_else(beyond)
}

fn beyond() -> Error {
    Error::argument("start and count: expected positions below 2^64, got one beyond")
}

/// Box–Muller on two pairs of words.
fn four_normals(words: [u32; 4]) -> [f32; 4] {
    let [a, b] = pair(words[0], words[1]);
    let [c, d] = pair(words[2], words[3]);
    [a, b, c, d]
}

fn pair(radius: u32, angle: u32) -> [f32; 2] {
    let radius = (-2.0 * log((f64::from(radius) + 0.5) * 2f64.powi(-32))).sqrt();
    // The angle's nearest quarter turn, and the rest in [-1/8, 1/8) of a turn.
    let shifted = angle.wrapping_add(1 << 29);
    let rest = f64::from((shifted & 0x3fff_ffff) as i32 - (1 << 29)) + 0.5;
    let (sin, cos) = sin_cos(rest * (FRAC_PI_2 * 2f64.powi(-30)));
    let (x, y) = match shifted >> 30 {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    };
    [(radius * x) as f32, (radius * y) as f32]
}

/// Natural logarithm of a normal number above 0: exponent and mantissa, then 2·artanh((m − 1)/(m + 1)).
fn log(value: f64) -> f64 {
    let bits = value.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1022.0;
    let mut mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3fe0_0000_0000_0000);
    if mantissa < SQRT_2 / 2.0 {
        (mantissa, exponent) = (mantissa * 2.0, exponent - 1.0);
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let z = s * s;
    let series = (0..11).rev().fold(0.0, |sum, k| sum * z + 1.0 / (2 * k + 1) as f64);
    exponent * LN_2 + 2.0 * s * series
}

/// Sine and cosine on [−π/4, π/4] by their Taylor series (error below 1e-16).
fn sin_cos(x: f64) -> (f64, f64) {
    const SIN: [f64; 9] = reciprocals(1);
    const COS: [f64; 9] = reciprocals(0);
    let z = x * x;
    let series = |terms: &[f64; 9]| terms.iter().rev().fold(0.0, |sum, term| sum * z + term);
    (x * series(&SIN), series(&COS))
}

/// 1/k!, −1/(k + 2)!, 1/(k + 4)!, …
const fn reciprocals(k: u64) -> [f64; 9] {
    let (mut terms, mut at, mut factorial) = ([0.0; 9], 0, 1u64);
    while at < 9 {
        let n = k + 2 * at as u64;
        if n > 1 {
            factorial *= n * (n - 1);
        }
        terms[at] = if at % 2 == 0 { 1.0 } else { -1.0 } / factorial as f64;
        at += 1;
    }
    terms
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Known answers of the Random123 library (`kat_vectors`, philox 4x32, 10 rounds).
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn polynomials_are_accurate() {
        for u in uniforms(1, "test", 0, 100_000).unwrap() {
            let value = u + 2f64.powi(-33);
            assert!((log(value) - value.ln()).abs() <= 4e-16 * value.ln().abs().max(1e-3) * 4.0, "{value}");
            let x = (u - 0.5) * FRAC_PI_2;
            let (sin, cos) = sin_cos(x);
            assert!((sin - x.sin()).abs() < 3e-16 && (cos - x.cos()).abs() < 3e-16, "{x}");
        }
    }

    #[test]
    fn draws_do_not_depend_on_chunks() {
        let whole = normals(7, NOISE, 0, 101, 9).unwrap();
        let mut parts = Vec::new();
        for start in (0..101).step_by(13) {
            parts.extend(normals(7, NOISE, start as u64, 13.min(101 - start), 9).unwrap().data);
        }
        assert_eq!(whole.data, parts);
        let whole = uniforms(7, T3, 0, 30).unwrap();
        assert!((0..30).all(|at| uniforms(7, T3, at as u64, 1).unwrap()[0] == whole[at]));
    }

    #[test]
    fn pieces_have_seeds_of_their_own() {
        let seeds: Vec<u64> = (0..4).map(|index| derived(7, index).unwrap()).collect();
        assert_eq!(seeds, [7, 17_473_509_858_914_523_726, 2_944_590_490_012_645_703, 8_107_224_742_537_672_876]);
        assert_eq!(derived(7, 1).unwrap() >> 11, (uniforms(7, SEGMENT, 1, 1).unwrap()[0] * 2f64.powi(53)) as u64);
        assert!(derived(8, 0).unwrap() == 8 && derived(8, 1).unwrap() != seeds[1]);
        assert!(derived(7, u64::MAX).is_err() && derived(7, u64::MAX - 1).is_ok());
    }

    #[test]
    fn positions_past_the_counter_are_refused() {
        assert!(uniforms(0, T3, u64::MAX, 2).is_err());
        assert!(normals(0, FLOW, u64::MAX / 2, 1, 80).is_err());
        assert!(normals(0, FLOW, 0, usize::MAX, 80).is_err());
    }
}
