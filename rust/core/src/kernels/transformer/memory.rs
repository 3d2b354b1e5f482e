//! The memory of transformer blocks: what lies between the regions, and what a task has for itself.

use std::cell::RefCell;

use super::Block;
use super::format::Format;
use crate::kernels::pointer::Part;
use crate::kernels::scratch;

/// float32 numbers of a cache line: panels begin with one.
const LINE: usize = 16;

/// The sizes of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) channels: usize,
    pub(super) heads: usize,
    pub(super) size: usize,
    pub(super) inner: usize,
    pub(super) relative: bool,
}

impl Shape {
    /// Of `block` on `values` numbers.
    pub(super) fn new<T: Format>(block: &Block<T>, values: usize) -> Self {
        let [q, k, v] = block.inputs.each_ref().map(|layer| T::dims(&layer.weight));
        let [up, down] = block.feed_forward.each_ref().map(|layer| T::dims(&layer.weight));
        let ((width, channels), heads) = (q, block.heads);
        let relative = block.relative.as_ref();
        let fits = [q, k, v].iter().all(|dims| *dims == q)
            && T::dims(&block.out.weight) == (channels, width)
            && up == (down.1, down.0)
            && up.1 == channels
            && width.is_multiple_of(heads)
            && values.is_multiple_of(channels)
            && block.norms.iter().all(|(weight, bias, _)| weight.len() == channels && bias.len() == channels)
            && relative.is_none_or(|x| T::dims(&x.layer.weight) == q && x.content.len() == width && x.position.len() == width);
        let layers = block.inputs.iter().chain([&block.out]).chain(&block.feed_forward).chain(relative.map(|x| &x.layer));
        assert!(fits && layers.into_iter().all(|x| x.bias.len() == T::dims(&x.weight).0), "transformer: sizes");
        Self { rows: values / channels, channels, heads, size: width / heads, inner: up.0, relative: relative.is_some() }
    }

    /// Channels of all heads.
    pub(super) fn width(self) -> usize {
        self.heads * self.size
    }
}

/// What lies between the regions.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a, T> {
    pub(super) shape: Shape,
    /// The residual stream `[rows, channels]`.
    pub(super) x: Part<'a, f32>,
    /// `[rows, width]`; with relative positions, behind them as many for the positions.
    pub(super) queries: Part<'a, T>,
    /// What attention gives, `[rows, width]`.
    pub(super) mixed: Part<'a, T>,
    keys: Part<'a, T>,
    values: Part<'a, T>,
    positions: Part<'a, T>,
}

impl<'a, T: Format> Memory<'a, T> {
    /// The keys of one head.
    pub(super) fn keys(&self, head: usize) -> Part<'a, T> {
        let len = T::keys_len(self.shape.rows, self.shape.size);
        self.keys.part(head * len, len)
    }

    /// The values of one head.
    pub(super) fn values(&self, head: usize) -> Part<'a, T> {
        let len = T::values_len(self.shape.rows, self.shape.size);
        self.values.part(head * len, len)
    }

    /// The positions' keys of one head.
    pub(super) fn positions(&self, head: usize) -> Part<'a, T> {
        let len = T::keys_len(2 * self.shape.rows - 1, self.shape.size);
        self.positions.part(head * len, len)
    }
}

/// float32 numbers that hold `len` of `T`, whole lines.
fn floats<T>(len: usize) -> usize {
    (len * size_of::<T>()).div_ceil(size_of::<f32>()).next_multiple_of(LINE)
}

/// Takes room for `len` numbers from the start of `rest`.
fn take<'a, T: Format>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [T] {
    let (part, behind) = std::mem::take(rest).split_at_mut(floats::<T>(len));
    *rest = behind;
    // SAFETY: enough bytes for `len` numbers, which need no more alignment than float32 and take any value.
    unsafe { std::slice::from_raw_parts_mut(part.as_mut_ptr().cast::<T>(), len) }
}

/// The part of `memory` that begins with a cache line.
fn aligned(memory: &mut [f32]) -> &mut [f32] {
    let offset = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    &mut memory[offset..]
}

/// Calls `work` with the memory for `x`.
pub(super) fn with_memory<T: Format, R>(shape: Shape, x: &mut [f32], work: impl FnOnce(Memory<'_, T>) -> R) -> R {
    let Shape { rows, heads, size, relative, .. } = shape;
    let (inputs, width) = (1 + usize::from(relative), shape.width());
    let lens = [
        inputs * rows * width + T::SLACK,
        rows * width + T::SLACK,
        heads * T::keys_len(rows, size),
        heads * T::values_len(rows, size),
        if relative { heads * T::keys_len(2 * rows - 1, size) } else { 0 },
    ];
    scratch::with(LINE + lens.iter().map(|len| floats::<T>(*len)).sum::<usize>(), |memory| {
        let mut rest = aligned(memory);
        let [queries, mixed, keys, values, positions] = lens.map(|len| take::<T>(&mut rest, len));
        for inputs in [&mut *queries, &mut *mixed] {
            let end = inputs.len() - T::SLACK;
            inputs[end..].fill(T::ZERO);
        }
        work(Memory {
            shape,
            x: Part::new(x),
            queries: Part::new(queries),
            mixed: Part::new(mixed),
            keys: Part::new(keys),
            values: Part::new(values),
            positions: Part::new(positions),
        })
    })
}

thread_local! {
    static ROOM: RefCell<Room> = const { RefCell::new(Room(Vec::new())) };
}

/// A task's own memory, kept by its thread.
pub(super) struct Room(Vec<f32>);

impl Room {
    pub(super) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        ROOM.with_borrow_mut(work)
    }

    /// For `rows` rows: the factors of a product of the channels and of one of the inner ones, each with zeros behind it, then
    /// products `[rows, width]` or of one panel, and a line of any width.
    pub(super) fn parts<T: Format>(&mut self, shape: Shape, rows: usize) -> ([&mut [T]; 2], &mut [f32], &mut [f32]) {
        let Shape { channels, inner, .. } = shape;
        let (products, line) = (rows * shape.width().max(T::COLUMNS), shape.width().max(channels));
        let factors: usize = [channels, inner].iter().map(|n| floats::<T>(rows * n + T::SLACK)).sum();
        let len = LINE + factors + floats::<f32>(products) + line;
        if self.0.len() < len {
            self.0 = vec![0.0; len];
        }
        let mut rest = aligned(&mut self.0);
        let factors = [channels, inner].map(|n| {
            let part = take::<T>(&mut rest, rows * n + T::SLACK);
            part[rows * n..].fill(T::ZERO);
            part
        });
        let (products_part, rest) = rest.split_at_mut(floats::<f32>(products));
        (factors, &mut products_part[..products], &mut rest[..line])
    }
}
