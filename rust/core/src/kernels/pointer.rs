//! A pointer that tasks writing to disjoint parts of one slice may share.

use std::marker::PhantomData;

/// The start of a mutable slice, for tasks that each write their own part of it.
#[derive(Clone, Copy)]
pub(super) struct SharedMut<'a> {
    start: *mut f32,
    len: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: it only hands out pointers; whoever dereferences them promises disjoint access.
unsafe impl Send for SharedMut<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Pointer to element `offset`; `span` elements from there must lie inside the slice.
    pub(super) fn at(self, offset: usize, span: usize) -> *mut f32 {
        assert!(offset + span <= self.len, "kernel task outside its output");
        // SAFETY: offset is inside the slice by the assertion above.
        unsafe { self.start.add(offset) }
    }
}
