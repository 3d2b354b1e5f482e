//! Arrays of a packed weight: in memory of their own, or where a cache file was read to.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use safetensors::Dtype;

use super::memory::Memory;

/// A kind of number that any bytes are a value of, stored little-endian.
///
/// # Safety
/// Every bit pattern of the type's size must be a value of it, and it must hold no padding.
pub(crate) unsafe trait Number: Copy + Send + Sync + 'static {
    /// Its name in a file.
    const DTYPE: Dtype;
    /// Gives the array its kind back.
    fn array(values: Stored<Self>) -> Array;
}

macro_rules! number {
    ($($type:ident $name:ident,)*) => {
        /// A [`Stored`] of any kind.
        #[derive(Clone, Debug)]
        pub(crate) enum Array { $(#[allow(missing_docs)] $name(Stored<$type>),)* }

        impl Array {
            /// The kind of its numbers.
            pub(crate) fn dtype(&self) -> Dtype {
                match self { $(Self::$name(_) => Dtype::$name,)* }
            }

            /// Its bytes as they are in memory.
            pub(crate) fn bytes(&self) -> &[u8] {
                match self { $(Self::$name(values) => values.bytes(),)* }
            }
        }

        $(
            // SAFETY: plain integers and floating-point numbers take any bits and have no padding.
            unsafe impl Number for $type {
                const DTYPE: Dtype = Dtype::$name;
                fn array(values: Stored<Self>) -> Array { Array::$name(values) }
            }

            impl From<&Stored<$type>> for Array {
                fn from(values: &Stored<$type>) -> Self { <$type as Number>::array(values.clone()) }
            }
        )*
    };
}
number!(u8 U8, u16 U16, f32 F32,);

/// An immutable array; clones share it.
#[derive(Clone)]
pub(crate) struct Stored<T>(Place<T>);

#[derive(Clone)]
enum Place<T> {
    Owned(Arc<Vec<T>>),
    /// `len` numbers from byte `start` of anonymous memory on, which lie inside it and are aligned.
    Mapped {
        map: Arc<Memory>,
        start: usize,
        len: usize,
    },
}

impl<T: Number> Stored<T> {
    /// `len` numbers from byte `start` of `map` on; `None` where they are not inside it or not aligned.
    pub(super) fn mapped(map: &Arc<Memory>, start: usize, len: usize) -> Option<Self> {
        let end = len.checked_mul(size_of::<T>())?.checked_add(start)?;
        let aligned = map.as_ptr().wrapping_add(start).cast::<T>().is_aligned();
        (aligned && end <= map.len()).then(|| Self(Place::Mapped { map: map.clone(), start, len }))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: numbers have no padding, so that all their bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val::<[T]>(self)) }
    }
}

impl<T> From<Vec<T>> for Stored<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Place::Owned(Arc::new(values)))
    }
}

impl<T> Deref for Stored<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Place::Owned(values) => values,
            // SAFETY: `mapped`, which alone makes this, has checked place and alignment, and its numbers take any bits. The map is
            // anonymous memory, of no file.
            Place::Mapped { map, start, len } => unsafe { std::slice::from_raw_parts(map.as_ptr().add(*start).cast(), *len) },
        }
    }
}

impl<T: PartialEq> PartialEq for Stored<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T> fmt::Debug for Stored<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if matches!(self.0, Place::Owned(_)) { "in memory" } else { "mapped" };
        write!(f, "{} numbers, {place}", self.len())
    }
}
