//! Memory for large weights that are read from end to end again and again.

/// A huge page of Linux on x86-64 and of most AArch64 systems.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// An empty vector with room for `len` numbers, in huge pages where the system has them for whoever asks: a step of decoding reads
/// a gigabyte, and of pages of 4 KiB it waits for the address of every one.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let room = Vec::with_capacity(len);
    advise(room.as_ptr(), len);
    room
}

/// `len` zeros in memory of the same kind. Large ones are pages that the system hands out when they are first written.
pub(crate) fn zeros<T: Copy + Default>(len: usize) -> Vec<T> {
    let zeros = vec![T::default(); len];
    advise(zeros.as_ptr(), len);
    zeros
}

/// Asks for huge pages below `len` numbers from `start` on, which are the caller's own.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
fn advise<T>(start: *const T, len: usize) {
    #[cfg(target_os = "linux")]
    {
        let (start, end) = (start as usize, start as usize + len * size_of::<T>());
        let (start, end) = (start.next_multiple_of(HUGE), end / HUGE * HUGE);
        if start < end {
            // SAFETY: whole pages inside the caller's memory; the advice changes nothing that can be read there.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) }; // may be refused, and is then of no use
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_and_it_holds_what_is_written() {
        for len in [0, 1, 1000, 3 << 20] {
            let mut numbers: Vec<u64> = room(len);
            assert!(numbers.is_empty() && numbers.capacity() >= len);
            numbers.extend(0..len as u64);
            assert!(numbers.iter().enumerate().all(|(i, v)| *v == i as u64));
            assert!(zeros::<f32>(len) == vec![0.0; len]);
        }
    }
}
