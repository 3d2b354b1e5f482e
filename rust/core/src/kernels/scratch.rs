//! Memory for the copies inside a kernel, kept for the next one: of a fresh large allocation every page costs a fault.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::threads::PerProcess;

/// Blocks that are kept.
const BLOCKS: usize = 2;
/// Numbers of the largest block that is kept: the vocoder's for 20 s of speech.
const LARGEST: usize = 8 << 20;

static KEPT: PerProcess<Mutex<Vec<Vec<f32>>>> = PerProcess::new();

fn kept() -> MutexGuard<'static, Vec<Vec<f32>>> {
    KEPT.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `work` with `len` numbers of any value.
pub(crate) fn with<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut block = kept().pop().unwrap_or_default();
    if block.len() < len {
        block = vec![0.0; len];
    }
    let result = work(&mut block[..len]);
    if block.len() <= LARGEST {
        let mut kept = kept();
        if kept.len() < BLOCKS {
            kept.push(block);
        }
    }
    result
}

/// The same for numbers of 16 bits.
pub(super) fn with_halves<R>(len: usize, work: impl FnOnce(&mut [u16]) -> R) -> R {
    // SAFETY: the same bytes; u16 needs no more alignment than f32, and both take any value.
    with(len.div_ceil(2), |block| work(unsafe { std::slice::from_raw_parts_mut(block.as_mut_ptr().cast::<u16>(), len) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_may_be_nested_and_get_their_own_memory() {
        let sum = with(3, |a| {
            a.fill(1.0);
            with(5, |b| {
                b.fill(2.0);
                with(2, |c| c.fill(4.0));
                a.iter().chain(b.iter()).sum::<f32>()
            })
        });
        assert_eq!(sum, 13.0);
    }

    #[test]
    fn little_is_kept() {
        with(LARGEST + 1, |block| assert_eq!(block.len(), LARGEST + 1));
        let kept = kept();
        assert!(kept.len() <= BLOCKS && kept.iter().all(|block| block.len() <= LARGEST));
    }
}
