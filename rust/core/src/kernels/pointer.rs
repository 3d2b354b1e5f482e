//! Memory whose parts several tasks write at the same time, each its own.

use std::cell::UnsafeCell;
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

/// A part of a mutable slice that tasks write and read by smaller parts.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a, T> {
    start: *mut T,
    len: usize,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: only the unsafe methods reach the numbers; whoever calls them promises that nobody writes what another one uses.
unsafe impl<T: Send + Sync> Send for Part<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Part<'_, T> {}

impl<'a, T> Part<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: PhantomData }
    }

    /// Pointer to number `at`; `span` numbers from there must lie inside.
    pub(super) fn at(self, at: usize, span: usize) -> *mut T {
        assert!(at <= self.len && span <= self.len - at, "kernel task outside its memory");
        // SAFETY: inside the slice by the assertion above.
        unsafe { self.start.add(at) }
    }

    /// Numbers `at .. at + len` as a part of their own.
    pub(super) fn part(self, at: usize, len: usize) -> Self {
        Self { start: self.at(at, len), len, life: PhantomData }
    }

    /// Numbers `at .. at + len`.
    ///
    /// # Safety
    /// Nobody may write them meanwhile.
    pub(super) unsafe fn read(self, at: usize, len: usize) -> &'a [T] {
        // SAFETY: inside the slice by the check in `at`; promised by the caller.
        unsafe { std::slice::from_raw_parts(self.at(at, len), len) }
    }

    /// Numbers `at .. at + len`, to be written.
    ///
    /// # Safety
    /// Nobody else may use them meanwhile.
    pub(super) unsafe fn write(self, at: usize, len: usize) -> &'a mut [T] {
        // SAFETY: inside the slice by the check in `at`; promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(at, len), len) }
    }
}

/// Numbers that tasks write and read by parts.
pub(crate) struct Cells<T>(Box<[UnsafeCell<T>]>);

// SAFETY: only the unsafe methods reach the numbers; whoever calls them promises that nobody writes what another one uses.
unsafe impl<T: Send + Sync> Sync for Cells<T> {}

impl<T> Cells<T> {
    pub(crate) fn new(values: Vec<T>) -> Self {
        Self(values.into_iter().map(UnsafeCell::new).collect())
    }

    fn at(&self, at: usize, len: usize) -> *mut T {
        UnsafeCell::raw_get(self.0[at..at + len].as_ptr())
    }

    /// Numbers `at .. at + len`.
    ///
    /// # Safety
    /// Nobody may write them meanwhile.
    pub(crate) unsafe fn read(&self, at: usize, len: usize) -> &[T] {
        // SAFETY: inside the allocation by the check in `at`; promised by the caller.
        unsafe { std::slice::from_raw_parts(self.at(at, len), len) }
    }

    /// Numbers `at .. at + len`, to be written.
    ///
    /// # Safety
    /// Nobody else may use them meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn write(&self, at: usize, len: usize) -> &mut [T] {
        // SAFETY: inside the allocation by the check in `at`; promised by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.at(at, len), len) }
    }
}

impl<T> std::fmt::Debug for Cells<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cells({})", self.0.len())
    }
}
