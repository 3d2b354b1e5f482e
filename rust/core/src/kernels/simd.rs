//! Runtime choice of vector instructions: one generic body, compiled once per CPU level.

/// Defines `fn $name(args…) -> ret` whose body is compiled for AVX-512, AVX2+FMA and the build's baseline, and chosen at run
/// time. Inside the body `fma(a, b, c)` is `a * b + c`, fused where the level has it.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? ; $fma:ident => $body:block) => {
        $(#[$doc])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn generic<const FUSED: bool>($($arg: $ty),*) $(-> $ret)? {
                #[allow(unused)]
                let $fma = |a: f32, b: f32, c: f32| $crate::kernels::simd::multiply_add::<FUSED>(a, b, c);
                $body
            }
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    generic::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    generic::<true>($($arg),*)
                }
                match $crate::kernels::level::level() {
                    // SAFETY: `level` found these features on this CPU.
                    level if level.has_avx512() => unsafe { avx512($($arg),*) },
                    // SAFETY: `level` found these features on this CPU.
                    $crate::kernels::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                    _ => generic::<false>($($arg),*),
                }
            }
            #[cfg(target_arch = "aarch64")]
            {
                generic::<true>($($arg),*)
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            {
                generic::<false>($($arg),*)
            }
        }
    };
}
pub(crate) use dispatch;

#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
