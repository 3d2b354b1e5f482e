//! Transformer blocks over `[T, channels]` in two parallel regions each: attention, and everything between two attentions.
//!
//! Nothing but attention needs other rows, so that a strip of rows goes from one attention to the next while it is in a core's
//! cache: projection and residual, LayerNorm, feed-forward layers and residual, and the next block's LayerNorm, queries, keys and
//! values. Whoever computes numbers writes them as the next product reads them: rounded, and keys and values in panels. All of it
//! lies in memory that is kept. Every number is computed by the same operations in the same order as layer by layer: the bits are
//! the same, on any number of threads.

mod float;
mod format;
mod memory;

use std::ops::Range;
use std::sync::Arc;

pub(crate) use format::Format;
use format::{Head, Task};
use memory::{Memory, Room, Shape, with_memory};

use super::elementwise::{Function, piece as activate};
use super::norm::layer_norm_row;
use super::strips;

/// Rows from which attention in float32 deals keys and values layer by layer too, so that the bits are the same.
pub(crate) const FEWEST: usize = super::attention::BLOCK;

/// A linear layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer<T: Format> {
    /// `[out, in]`.
    pub(crate) weight: Arc<T::Matrix>,
    /// `[out]`, zeros without one.
    pub(crate) bias: Vec<f32>,
}

/// Weight, bias and ε of a LayerNorm.
pub(crate) type Norm = (Vec<f32>, Vec<f32>, f32);

/// Relative positions of a block (Transformer-XL, arXiv:1901.02860).
#[derive(Clone, Debug)]
pub(crate) struct Relative<T: Format> {
    /// Added to the queries that meet keys, `[heads * size]`.
    pub(crate) content: Vec<f32>,
    /// Added to the queries that meet positions, `[heads * size]`.
    pub(crate) position: Vec<f32>,
    /// From a row of the table of positions.
    pub(crate) layer: Layer<T>,
}

/// Self-attention and a feed-forward layer, each on normalised input and added to it.
#[derive(Clone, Debug)]
pub(crate) struct Block<T: Format> {
    /// Before attention and before the feed-forward layer.
    pub(crate) norms: [Norm; 2],
    /// Queries, keys and values.
    pub(crate) inputs: [Layer<T>; 3],
    /// From attention to the channels.
    pub(crate) out: Layer<T>,
    /// Relative positions, if any.
    pub(crate) relative: Option<Relative<T>>,
    /// From the channels and back.
    pub(crate) feed_forward: [Layer<T>; 2],
    /// Between the two.
    pub(crate) activation: Function,
    /// Number of heads.
    pub(crate) heads: usize,
    /// Factor on the scores, above 0.
    pub(crate) scale: f32,
}

/// Takes `x` `[T, channels]` through `blocks`, all of one shape; `table` `[2T - 1, channels]` has the positions for those that are
/// relative. `advance` hears how many blocks are done and may stop the work.
pub(crate) fn run<T: Format, E>(
    blocks: &[&Block<T>],
    x: &mut [f32],
    table: Option<&[f32]>,
    advance: &mut dyn FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    let Some(first) = blocks.first() else {
        return Ok(());
    };
    let shape = Shape::new(first, x.len());
    assert!(blocks.iter().all(|block| Shape::new(block, x.len()) == shape), "transformer: blocks of different shapes");
    let expected = if shape.relative { (2 * shape.rows - 1) * shape.channels } else { 0 };
    assert_eq!(table.map_or(0, <[f32]>::len), expected, "transformer: table of positions");
    if shape.rows == 0 {
        return Ok(());
    }
    with_memory(shape, x, |memory| {
        let height = strips::height(shape.rows);
        let (strips, of_table) = (shape.rows.div_ceil(height), table.map_or(0, |_| (2 * shape.rows - 1).div_ceil(height)));
        let region = |done: Option<&Block<T>>, next: Option<&Block<T>>| {
            // SAFETY: each task has a strip of rows, or of positions, of its own, and only attention reads those of others.
            strips::each(strips + if next.is_some() { of_table } else { 0 }, |task| unsafe {
                Room::with(|room| {
                    if let (Some(at), Some(next)) = (task.checked_sub(strips), next) {
                        return positions(next, &memory, strip(at, height, 2 * shape.rows - 1), table.unwrap_or_default(), room);
                    }
                    let rows = strip(task, height, shape.rows);
                    if let Some(done) = done {
                        finish(done, &memory, rows.clone(), room);
                    }
                    if let Some(next) = next {
                        project(next, &memory, rows, room);
                    }
                });
            });
        };
        region(None, Some(first));
        for (i, block) in blocks.iter().enumerate() {
            let of_head = shape.rows.div_ceil(T::QUERIES);
            // SAFETY: each task has columns of rows of its own, and what it reads was written in the region before.
            strips::each(shape.heads * of_head, |task| unsafe {
                Room::with(|room| mix(block, &memory, task / of_head, strip(task % of_head, T::QUERIES, shape.rows), room));
            });
            region(Some(block), blocks.get(i + 1).copied());
            advance(i + 1)?;
        }
        Ok(())
    })
}

/// Strip `i` of `rows`.
fn strip(i: usize, height: usize, rows: usize) -> Range<usize> {
    i * height..((i + 1) * height).min(rows)
}

/// `to[rows] = layer(a)` for the outputs of `panels`, whose columns `to` has side by side.
///
/// # Safety
/// As [`Format::multiply`].
unsafe fn product<T: Format>(layer: &Layer<T>, panels: Range<usize>, rows: usize, a: &[T], a_stride: usize, to: &mut [f32]) {
    let columns = panels.start * T::COLUMNS..(panels.end * T::COLUMNS).min(layer.bias.len());
    let width = columns.len();
    for row in to.chunks_exact_mut(width).take(rows) {
        row.copy_from_slice(&layer.bias[columns.clone()]);
    }
    // SAFETY: promised by the caller.
    unsafe { T::multiply(&layer.weight, panels, rows, a.as_ptr(), a_stride, to.as_mut_ptr(), width) };
}

/// The panels of a layer's outputs, cut so that each piece has whole heads.
fn pieces<T: Format>(shape: Shape) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let (heads, size) = (shape.heads, shape.size);
    let together = if size.is_multiple_of(T::COLUMNS) { 1 } else { heads };
    let panels = move |head: usize| (head * size).div_ceil(T::COLUMNS);
    (0..heads).step_by(together).map(move |head| (head..head + together, panels(head)..panels(head + together)))
}

/// A strip's LayerNorm, queries, keys and values.
///
/// # Safety
/// Nobody else may use these rows of the memory meanwhile.
unsafe fn project<T: Format>(block: &Block<T>, memory: &Memory<'_, T>, rows: Range<usize>, room: &mut Room) {
    let Memory { shape, .. } = *memory;
    let (first, count, width, size) = (rows.start, rows.len(), shape.width(), shape.size);
    let ([normed, _], products, line) = room.parts::<T>(shape, count);
    // SAFETY: promised by the caller; a strip is a multiple of 16 rows but for the last.
    unsafe {
        normalise(&block.norms[0], memory.x.read(first * shape.channels, count * shape.channels), line, normed);
        for (i, layer) in block.inputs.iter().enumerate() {
            for (heads, panels) in pieces::<T>(shape) {
                product(layer, panels, count, normed, shape.channels, products);
                let stride = heads.len() * size;
                if i == 0 {
                    let columns = heads.start * size..heads.end * size;
                    for (row, q) in rows.clone().zip(products.chunks_exact(stride)) {
                        let to = row * width + columns.start;
                        let Some(relative) = &block.relative else {
                            T::put(q, memory.queries.write(to, stride));
                            continue;
                        };
                        for (bias, at) in [(&relative.content, to), (&relative.position, shape.rows * width + to)] {
                            let sums = line[..stride].iter_mut().zip(q).zip(&bias[columns.clone()]);
                            sums.for_each(|((sum, q), b)| *sum = b + q);
                            T::put(&line[..stride], memory.queries.write(at, stride));
                        }
                    }
                    continue;
                }
                for (at, head) in heads.enumerate() {
                    let from = &products[at * size..];
                    if i == 1 {
                        T::deal_keys(memory.keys(head), first, count, size, from, stride);
                    } else {
                        T::deal_values(memory.values(head), shape.rows, first, count, size, from, stride);
                    }
                }
            }
        }
    }
}

/// The positions' keys of a strip of the table.
///
/// # Safety
/// Nobody else may use these positions of the memory meanwhile.
unsafe fn positions<T: Format>(block: &Block<T>, memory: &Memory<'_, T>, rows: Range<usize>, table: &[f32], room: &mut Room) {
    let (Memory { shape, .. }, Some(relative)) = (*memory, &block.relative) else {
        return;
    };
    let (count, channels, size) = (rows.len(), shape.channels, shape.size);
    let ([factors, _], products, _) = room.parts::<T>(shape, count);
    T::put(&table[rows.start * channels..rows.end * channels], &mut factors[..count * channels]);
    for (heads, panels) in pieces::<T>(shape) {
        let stride = heads.len() * size;
        // SAFETY: promised by the caller; a strip is a multiple of 16 rows but for the last.
        unsafe {
            product(&relative.layer, panels, count, factors, channels, products);
            for (at, head) in heads.enumerate() {
                T::deal_keys(memory.positions(head), rows.start, count, size, &products[at * size..], stride);
            }
        }
    }
}

/// Attention of one head for some queries.
///
/// # Safety
/// Nobody may write queries, keys, values and positions meanwhile, nor use these columns of these rows of the result.
unsafe fn mix<T: Format>(block: &Block<T>, memory: &Memory<'_, T>, head: usize, rows: Range<usize>, room: &mut Room) {
    let Memory { shape, .. } = *memory;
    let (first, count, stride, s, size) = (rows.start, rows.len(), shape.width(), shape.rows, shape.size);
    let from = first * stride + head * size;
    let (_, products, _) = room.parts::<T>(shape, count);
    let out = &mut products[..count * size];
    out.fill(0.0);
    // SAFETY: promised by the caller.
    unsafe {
        let queries = |at: usize| memory.queries.read(at, (count - 1) * stride + size + T::SLACK);
        let of_positions = || (queries(s * stride + from), memory.positions(head).read(0, T::keys_len(2 * s - 1, size)));
        let task = Task {
            first,
            rows: count,
            stride,
            scale: block.scale,
            q: queries(from),
            positions: shape.relative.then(of_positions),
        };
        let keys = memory.keys(head).read(0, T::keys_len(s, size));
        let values = memory.values(head).read(0, T::values_len(s, size));
        T::attend(Head { s, size, keys, values }, task, out);
        for (i, row) in out.chunks_exact(size).enumerate() {
            T::put(row, memory.mixed.write(from + i * stride, size));
        }
    }
}

/// A strip's way from attention to the end of the block.
///
/// # Safety
/// Nobody else may use these rows of the memory meanwhile.
unsafe fn finish<T: Format>(block: &Block<T>, memory: &Memory<'_, T>, rows: Range<usize>, room: &mut Room) {
    let Memory { shape, .. } = *memory;
    let (first, count, width, channels, inner) = (rows.start, rows.len(), shape.width(), shape.channels, shape.inner);
    let ([normed, hidden], products, line) = room.parts::<T>(shape, count);
    // SAFETY: promised by the caller.
    unsafe {
        let x = memory.x.write(first * channels, count * channels);
        let mixed = memory.mixed.read(first * width, count * width + T::SLACK);
        add(&block.out, count, mixed, width, x);
        normalise(&block.norms[1], x, line, normed);
        for p in 0..inner.div_ceil(T::COLUMNS) {
            product(&block.feed_forward[0], p..p + 1, count, normed, channels, products);
            let (at, columns) = (p * T::COLUMNS, T::COLUMNS.min(inner - p * T::COLUMNS));
            let products = &mut products[..count * columns];
            activate(block.activation, products);
            for (row, to) in products.chunks_exact(columns).zip(hidden.chunks_exact_mut(inner)) {
                T::put(row, &mut to[at..at + columns]);
            }
        }
        add(&block.feed_forward[1], count, hidden, inner, x);
    }
}

/// `x += layer(a)`, the bias first.
///
/// # Safety
/// As [`Format::multiply`].
unsafe fn add<T: Format>(layer: &Layer<T>, rows: usize, a: &[T], a_stride: usize, x: &mut [f32]) {
    let n = layer.bias.len();
    for row in x.chunks_exact_mut(n) {
        row.iter_mut().zip(&layer.bias).for_each(|(x, b)| *x += b);
    }
    // SAFETY: promised by the caller.
    unsafe { T::multiply(&layer.weight, 0..n.div_ceil(T::COLUMNS), rows, a.as_ptr(), a_stride, x.as_mut_ptr(), n) };
}

/// Normalises the rows of `x` on the way to `to`, a row at a time in `line`.
fn normalise<T: Format>((weight, bias, eps): &Norm, x: &[f32], line: &mut [f32], to: &mut [T]) {
    let n = weight.len();
    for (row, to) in x.chunks_exact(n).zip(to.chunks_exact_mut(n)) {
        line[..n].copy_from_slice(row);
        layer_norm_row(&mut line[..n], weight, bias, *eps);
        T::put(&line[..n], to);
    }
}

#[cfg(test)]
mod tests;
