//! Branch-free float32 functions that the compiler vectorises: exp, e^x - 1, tanh, erf, sin, cos and sin² by polynomials.
//!
//! The coefficients are weighted least-squares (near-minimax) fits in float64 on the interval named at each function.
//! Errors against float64 are asserted in the tests below: at most 3e-7 relative for exp, tanh, erf, 3e-7 absolute for sin²,
//! 1e-7 absolute for sin and cos, and for e^x - 1 below zero.

/// A fused or plain multiply-add, `f(a, b, c) = a * b + c`.
pub(crate) trait Fma: Fn(f32, f32, f32) -> f32 + Copy {}
impl<F: Fn(f32, f32, f32) -> f32 + Copy> Fma for F {}

/// 1.5 · 2^23: adding it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// Rounds to the nearest integer, ties to even, for |x| < 2^22.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    (x + MAGIC) - MAGIC
}

/// The value of a float16, exactly; NaN is quiet.
#[inline(always)]
pub(crate) fn from_half(bits: u16) -> f32 {
    let (sign, size) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff) << 13);
    // the exponents' biases differ by 112; the product makes subnormal numbers normal on the way, and of what is not finite 2^16 to 2^17
    let beyond = match size.cmp(&(0x7c00 << 13)) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => 0x7f80_0000,
        std::cmp::Ordering::Greater => 0x7fc0_0000,
    };
    f32::from_bits((f32::from_bits(size) * f32::from_bits((127 + 112) << 23)).to_bits() | beyond | sign)
}

/// e^x; 0 below -87.3, capped at e^88.3.
#[inline(always)]
pub(crate) fn exp(fma: impl Fma, x: f32) -> f32 {
    let clamped = x.clamp(-87.3, 88.3);
    // n = round(x / ln 2); its integer stands in the low bits of the sum, so that no conversion (which Rust saturates) is needed
    let shifted = clamped * std::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = fma(n, -0.693_359_4, clamped);
    let r = fma(n, 2.121_944_4e-4, r);
    // (e^r - 1 - r) / r² on |r| <= ln 2 / 2
    let p = fma(1.394_111_6e-3, r, 8.363_18e-3);
    let p = fma(p, r, 4.166_637_5e-2);
    let p = fma(p, r, 1.666_657_7e-1);
    let p = fma(p, r, 0.5);
    let e = fma(p * r, r, r) + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.3 { 0.0 } else { e * scale }
}

/// e^x - 1 for x <= 0.
#[inline(always)]
pub(crate) fn exp_m1_of_negative(fma: impl Fma, x: f32) -> f32 {
    // near zero the series of e^x without its 1, so that no digit cancels: (e^x - 1 - x) / x² by Taylor on -0.35 <= x <= 0
    let p = fma(1.0 / 5040.0, x, 1.0 / 720.0);
    let p = fma(p, x, 1.0 / 120.0);
    let p = fma(p, x, 1.0 / 24.0);
    let p = fma(p, x, 1.0 / 6.0);
    let p = fma(p, x, 0.5);
    let small = fma(p * x, x, x);
    let large = exp(fma, x) - 1.0;
    if x > -0.35 { small } else { large }
}

/// tanh x.
#[inline(always)]
pub(crate) fn tanh(fma: impl Fma, x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    // tanh(x) / x in x² on |x| <= 0.625
    let p = fma(-5.672_420_3e-3, s, 2.060_314_6e-2);
    let p = fma(p, s, -5.372_523e-2);
    let p = fma(p, s, 1.333_118_6e-1);
    let p = fma(p, s, -3.333_326_3e-1);
    let small = fma(p * s, x, x);
    let large = (1.0 - 2.0 / (exp(fma, 2.0 * t) + 1.0)).copysign(x);
    if t < 0.625 { small } else { large }
}

/// The error function.
#[inline(always)]
pub(crate) fn erf(fma: impl Fma, x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    // erf(x) / x in x² on |x| <= 1
    let p = fma(-9.680_136e-6, s, 1.127_054_4e-4);
    let p = fma(p, s, -8.484_711e-4);
    let p = fma(p, s, 5.221_075e-3);
    let p = fma(p, s, -2.686_544_6e-2);
    let p = fma(p, s, 1.128_378_3e-1);
    let p = fma(p, s, -3.761_263_8e-1);
    let p = fma(p, s, std::f32::consts::FRAC_2_SQRT_PI);
    // -ln erfc(t) on 1 <= t <= 4
    let t = t.min(4.0);
    let q = fma(2.168_687_6e-5, t, -4.413_367e-4);
    let q = fma(q, t, 4.204_564e-3);
    let q = fma(q, t, -2.520_826_2e-2);
    let q = fma(q, t, 1.084_185_9e-1);
    let q = fma(q, t, 6.332_199e-1);
    let q = fma(q, t, 1.129_578_4);
    let q = fma(q, t, -1.880_412e-4);
    let large = (1.0 - exp(fma, -q)).copysign(x);
    if x.abs() < 1.0 { p * x } else { large }
}

/// sin x and cos x, for |x| up to about 100; beyond 1e7 the turns are not counted any more, and both are bounded.
#[inline(always)]
pub(crate) fn sin_cos(fma: impl Fma, x: f32) -> (f32, f32) {
    let shifted = x * std::f32::consts::FRAC_2_PI + MAGIC;
    let n = shifted - MAGIC;
    // π/2 in three parts, of which the first two have so few bits that their products with n are exact without fma too
    let r = fma(n, -1.570_312_5, x);
    let r = fma(n, -4.837_513e-4, r);
    let r = fma(n, -7.549_79e-8, r).clamp(-1.0, 1.0);
    let s = r * r;
    // Taylor on |r| <= π / 4: the first term left out is below 2e-9 for both
    let p = fma(1.0 / 362_880.0, s, -1.0 / 5040.0);
    let p = fma(p, s, 1.0 / 120.0);
    let p = fma(p, s, -1.0 / 6.0);
    let sin = fma(p * s, r, r);
    let q = fma(-1.0 / 3_628_800.0, s, 1.0 / 40_320.0);
    let q = fma(q, s, -1.0 / 720.0);
    let q = fma(q, s, 1.0 / 24.0);
    let cos = fma(q * s, s, fma(-0.5, s, 1.0));
    // the quarter turns stand in the low bits of the sum
    let turns = shifted.to_bits();
    let (a, b) = if turns & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let flip = |v: f32, sign: u32| f32::from_bits(v.to_bits() ^ (sign & 2) << 30);
    (flip(a, turns), flip(b, turns.wrapping_add(1)))
}

/// sin x, as [`sin_cos`].
#[inline(always)]
pub(crate) fn sin(fma: impl Fma, x: f32) -> f32 {
    sin_cos(fma, x).0
}

/// sin² x, for |x| up to 1e6 with fma and 1e4 without; between 0 and 1 for all that is finite.
#[inline(always)]
pub(crate) fn sin_squared(fma: impl Fma, x: f32) -> f32 {
    let n = round(x * std::f32::consts::FRAC_1_PI);
    // π in three parts (sin² has period π)
    let r = fma(n, -3.140_625, x);
    let r = fma(n, -9.675_026e-4, r);
    let r = fma(n, -1.509_957_8e-7, r).clamp(-2.0, 2.0);
    let s = r * r;
    // sin(r) / r in r² on |r| <= π / 2
    let p = fma(-2.388_977_9e-8, s, 2.752_530_4e-6);
    let p = fma(p, s, -1.984_086_2e-4);
    let p = fma(p, s, 8.333_331e-3);
    let p = fma(p, s, -1.666_666_7e-1);
    let v = fma(p * s, r, r);
    v * v
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fused(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    fn plain(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    /// Abramowitz and Stegun 7.1.5 (series) and 7.1.14 (continued fraction), in float64.
    fn erf64(x: f64) -> f64 {
        if x.abs() < 2.5 {
            let (mut term, mut sum, mut n) = (x, x, 0.0);
            while term.abs() > 1e-18 {
                n += 1.0;
                term *= -x * x / n;
                sum += term / (2.0 * n + 1.0);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let t = x.abs();
            let fraction = (1..60).rev().fold(0.0, |f, k| (k as f64 / 2.0) / (t + f));
            (1.0 - (-t * t).exp() / (std::f64::consts::PI.sqrt() * (t + fraction))).copysign(x)
        }
    }

    fn worst(range: f32, f: impl Fn(f32) -> f32, truth: impl Fn(f64) -> f64, floor: f64) -> f64 {
        (-200_000..=200_000)
            .map(|i| range * i as f32 / 200_000.0)
            .map(|x| (f64::from(f(x)) - truth(f64::from(x))).abs() / truth(f64::from(x)).abs().max(floor))
            .fold(0.0, f64::max)
    }

    #[test]
    fn float16_is_read_exactly() {
        for bits in 0..=u16::MAX {
            let truth = half::f16::from_bits(bits).to_f32();
            assert_eq!(from_half(bits).to_bits(), truth.to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn functions_agree_with_float64() {
        let checks = [
            ("exp", worst(80.0, |x| exp(fused, x), f64::exp, 1e-30), 3e-7),
            ("exp without fma", worst(80.0, |x| exp(plain, x), f64::exp, 1e-30), 3e-7),
            ("tanh", worst(12.0, |x| tanh(fused, x), f64::tanh, 1e-30), 3e-7),
            ("erf", worst(6.0, |x| erf(fused, x), erf64, 1e-30), 3e-7),
            ("sin²", worst(50.0, |x| sin_squared(fused, x), |x| x.sin().powi(2), 1.0), 3e-7),
            ("sin", worst(100.0, |x| sin(fused, x), f64::sin, 1.0), 1e-7),
            ("sin without fma", worst(20.0, |x| sin(plain, x), f64::sin, 1.0), 1e-7),
            ("cos", worst(100.0, |x| sin_cos(fused, x).1, f64::cos, 1.0), 1e-7),
            ("cos without fma", worst(20.0, |x| sin_cos(plain, x).1, f64::cos, 1.0), 1e-7),
            ("e^x - 1", worst(50.0, |x| exp_m1_of_negative(fused, -x.abs()), |x| (-x.abs()).exp_m1(), 1.0), 1e-7),
            ("e^x - 1 near zero", worst(0.3, |x| exp_m1_of_negative(plain, -x.abs()), |x| (-x.abs()).exp_m1(), 1e-30), 3e-7),
            ("sin² far out", worst(1e6, |x| sin_squared(fused, x), |x| x.sin().powi(2), 1.0), 3e-7),
            ("sin² without fma", worst(50.0, |x| sin_squared(plain, x), |x| x.sin().powi(2), 1.0), 1e-6),
        ];
        for (name, error, limit) in checks {
            assert!(error < limit, "{name}: {error:.2e} >= {limit:.1e}");
        }
        assert_eq!(exp(fused, -200.0), 0.0);
        assert_eq!(exp(fused, f32::NEG_INFINITY), 0.0);
        for x in [1e4, 1e6, 1e7, 1.5e7, 3e7, 1e9, 1e20, f32::MAX].into_iter().flat_map(|x: f32| [x, -x]) {
            for (squared, (sin, cos)) in [(sin_squared(fused, x), sin_cos(fused, x)), (sin_squared(plain, x), sin_cos(plain, x))]
            {
                assert!((0.0..=1.000_001).contains(&squared) && sin.abs() <= 1.000_001 && cos.abs() <= 1.000_001, "{x}");
            }
        }
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(sin_squared(fused, x).is_nan() && sin_squared(plain, x).is_nan() && sin(fused, x).is_nan());
        }
        assert!(exp(fused, f32::NAN).is_nan() && tanh(fused, f32::NAN).is_nan());
    }
}
