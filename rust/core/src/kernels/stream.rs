//! Residual blocks as streams over time: all convolutions of a block tile by tile, while its rows are in the cache.
//!
//! A block is pairs of a dilated and a plain convolution, each after a snake, and `x` added after each pair. Time is cut into
//! stretches, tasks of their own. Inside a stretch every convolution keeps the last rows of its input as its product reads them,
//! so that nothing is computed twice; only where a stretch begins and ends, rows of the neighbours are. An output is the same sum
//! in the same order as by [`conv1d_add`](super::conv1d::conv1d_add), so that neither tiles nor stretches change a bit.

use std::cell::Cell;

use rayon::prelude::*;

use super::elementwise::{inverse_of, snake_rows, start_rows};
use super::matmul::Weight;
use super::operand::Operand;
use crate::threads::each;

/// Numbers of a tile in float32: it shares the second-level cache with a panel of weights.
const TILE: usize = 1 << 16;
/// Tiles are a multiple of this many rows, so that the piles of dilations 1, 3 and 5 are whole tiles of the products.
const MULTIPLE: usize = 90;
/// Numbers that are changed and rounded at once.
const PIECE: usize = 1 << 12;
/// Rows of a stretch at least: the rows around it are then a few of a hundred.
const LEAST: usize = 1536;
/// Stretches a thread, so that one that was held up leaves work to the others.
const SHARE: usize = 4;

/// A convolution of a block, of as many outputs as inputs, padded to keep the number of rows, and the snake before it.
#[derive(Debug)]
pub struct Layer<'a> {
    weight: Weight<'a>,
    bias: Vec<f32>,
    alpha: Vec<f32>,
    inverse: Vec<f32>,
    kernel: usize,
    dilation: usize,
}

impl<'a> Layer<'a> {
    /// `weight` is `[C, kernel * C]`, dealt or bfloat16, `bias` and the snake's `alpha` `[C]`; `kernel` is odd.
    pub fn new(weight: Weight<'a>, bias: Vec<f32>, alpha: Vec<f32>, kernel: usize, dilation: usize) -> Self {
        let c = alpha.len();
        let fits = match weight {
            Weight::Plain(_) | Weight::BlockFloat(_) => false,
            Weight::Dealt(panels) => panels.dims() == (c, kernel * c),
            Weight::Bf16(matrix) => matrix.dims() == (c, kernel * c),
        };
        assert!(fits && bias.len() == c && kernel % 2 == 1 && dilation > 0, "stream: sizes");
        Self { weight, bias, inverse: inverse_of(&alpha), alpha, kernel, dilation }
    }

    /// Zero rows on each side of the input.
    fn padding(&self) -> usize {
        (self.kernel - 1) / 2 * self.dilation
    }
}

/// How time is cut: rows of a tile and number of stretches.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    tile: usize,
    stretches: usize,
}

impl Cut {
    /// For `rows` of `channels`; `None` where there are too few for all threads.
    pub fn new(rows: usize, channels: usize) -> Option<Self> {
        let threads = super::threads();
        let stretches = (rows / LEAST).min(SHARE * threads) / threads * threads;
        (stretches > 0).then(|| Self { tile: (TILE / channels).next_multiple_of(MULTIPLE), stretches })
    }

    #[cfg(test)]
    pub(crate) fn of(tile: usize, stretches: usize) -> Self {
        Self { tile, stretches }
    }
}

/// `out = Σ block(x)` over `x` `[T, C]`, and with `add` what `out` holds is added too; `step` hears `(done, of)` tiles now and then and may
/// stop the work.
pub fn blocks<E>(
    blocks: &[Vec<Layer<'_>>],
    x: &[f32],
    out: &mut [f32],
    add: bool,
    cut: Cut,
    step: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    let all = || blocks.iter().flatten();
    let Some(c) = all().next().map(|layer| layer.alpha.len()) else { return Ok(()) };
    assert!(all().all(|layer| layer.alpha.len() == c) && blocks.iter().all(|block| block.len() % 2 == 0), "stream: layers");
    assert!(x.len() == out.len() && x.len().is_multiple_of(c), "stream: input or output size");
    if all().all(|layer| matches!(layer.weight, Weight::Bf16(_))) {
        run::<u16, E>(blocks, x, out, add, c, cut, step)
    } else {
        assert!(all().all(|layer| matches!(layer.weight, Weight::Dealt(_))), "stream: weights of two kinds");
        run::<f32, E>(blocks, x, out, add, c, cut, step)
    }
}

fn run<T: Operand, E>(
    blocks: &[Vec<Layer<'_>>],
    x: &[f32],
    out: &mut [f32],
    add: bool,
    c: usize,
    cut: Cut,
    mut step: impl FnMut(usize, usize) -> Result<(), E>,
) -> Result<(), E> {
    let size = (out.len() / c).div_ceil(cut.stretches).max(1);
    let mut stretches: Vec<Stretch<'_, '_, T>> = out
        .chunks_mut(size * c)
        .enumerate()
        .map(|(i, out)| Stretch {
            first: i * size,
            done: 0,
            out,
            streams: blocks.iter().map(|b| Stream::new(b, i * size)).collect(),
        })
        .collect();
    let tiles = size.div_ceil(cut.tile);
    for tile in 0..tiles {
        each(stretches.par_iter_mut().with_max_len(1), |stretch| stretch.advance(x, c, cut.tile, add));
        step(tile + 1, tiles)?;
    }
    Ok(())
}

/// Some rows of the output and what its blocks keep between two tiles.
struct Stretch<'a, 'b, T> {
    first: usize,
    done: usize,
    out: &'a mut [f32],
    streams: Vec<Stream<'b, T>>,
}

impl<T: Operand> Stretch<'_, '_, T> {
    fn advance(&mut self, x: &[f32], c: usize, rows: usize, add: bool) {
        let from = self.done;
        self.done = (from + rows).min(self.out.len() / c);
        let out = &mut self.out[from * c..self.done * c];
        if !out.is_empty() {
            for (i, stream) in self.streams.iter_mut().enumerate() {
                stream.advance(x, c, self.first + self.done, add || i > 0, out);
            }
        }
    }
}

thread_local! {
    /// The laid-out input and the output of a pair's first convolution: of one tile.
    static LOCAL: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// A block on its way through a stretch.
struct Stream<'b, T> {
    layers: &'b [Layer<'b>],
    /// Rows behind the stretch's own that each convolution computes for the ones after it.
    after: Vec<usize>,
    /// End of the rows that each convolution has computed.
    done: Vec<usize>,
    /// The last input rows of each convolution, as its product reads them, up to the newest.
    carry: Vec<Vec<T>>,
    /// Inputs of every pair but the first, which the pair's output is added to, and the first row of each.
    kept: Vec<(usize, Vec<f32>)>,
    /// End of the rows of `x` that the first convolution was given.
    given: usize,
}

impl<'b, T: Operand> Stream<'b, T> {
    fn new(layers: &'b [Layer<'b>], first: usize) -> Self {
        let mut after = vec![0; layers.len()];
        for i in (1..layers.len()).rev() {
            after[i - 1] = after[i] + layers[i].padding();
        }
        let done: Vec<usize> = after.iter().map(|after| first.saturating_sub(*after)).collect();
        let zeros =
            |(layer, done): (&Layer<'_>, &usize)| vec![T::ZERO; layer.padding().saturating_sub(*done) * layer.alpha.len()];
        Self {
            layers,
            carry: layers.iter().zip(&done).map(zeros).collect(),
            kept: (0..layers.len() / 2).map(|p| (if p == 0 { 0 } else { done[2 * p - 1] }, Vec::new())).collect(),
            given: done[0].saturating_sub(layers[0].padding()),
            after,
            done,
        }
    }

    /// Computes the rows up to `to`, which are `out`.
    fn advance(&mut self, x: &[f32], c: usize, to: usize, add: bool, out: &mut [f32]) {
        let rows = x.len() / c;
        let [mut work, mut middle] = LOCAL.take();
        let end = (to + self.after[0] + self.layers[0].padding()).min(rows);
        let mut fresh = self.given..end; // rows of the input that the pair has not seen
        self.given = end;
        for p in 0..self.layers.len() / 2 {
            let ((one, two), (carry, more)) =
                ((&self.layers[2 * p], &self.layers[2 * p + 1]), self.carry.split_at_mut(2 * p + 1));
            let ends = [2 * p, 2 * p + 1].map(|i| (to + self.after[i]).min(rows));
            let (kept, next) = self.kept.split_at_mut(p + 1);
            let (first, input) = if p == 0 { (0, x) } else { (kept[p].0, &kept[p].1[..]) };
            let count = ends[0] - self.done[2 * p];
            middle.resize(middle.len().max(count * c), 0.0);
            let middle = &mut middle[..count * c];
            start_rows(middle, &one.bias, None, false);
            one.convolve(&mut carry[2 * p], &input[(fresh.start - first) * c..(fresh.end - first) * c], &mut work, middle);
            let (from, count) = (self.done[2 * p + 1], ends[1] - self.done[2 * p + 1]);
            let start = Some(&input[(from - first) * c..][..count * c]);
            match next.first_mut() {
                Some((_, next)) => {
                    let len = next.len();
                    next.resize(len + count * c, 0.0);
                    start_rows(&mut next[len..], &two.bias, start, false);
                    two.convolve(&mut more[0], middle, &mut work, &mut next[len..]);
                }
                None => {
                    start_rows(out, &two.bias, start, add);
                    two.convolve(&mut more[0], middle, &mut work, out);
                }
            }
            fresh = from..ends[1];
            (self.done[2 * p], self.done[2 * p + 1]) = (ends[0], ends[1]);
            if p > 0 {
                let (first, input) = &mut kept[p];
                input.drain(..(ends[1] - *first) * c);
                *first = ends[1];
            }
        }
        LOCAL.set([work, middle]);
    }
}

impl Layer<'_> {
    /// Adds the next rows to `out`: `carry` and `fresh` are the rows of the input, and zeros where they end.
    fn convolve<T: Operand>(&self, carry: &mut Vec<T>, fresh: &[f32], work: &mut Vec<f32>, out: &mut [f32]) {
        let c = self.alpha.len();
        let (m, old, new) = (out.len() / c, carry.len() / c, fresh.len() / c);
        let (d, total) = (self.dilation, m + 2 * self.padding());
        assert!(old + new <= total && (m > 0 || new == 0), "stream: rows");
        if m == 0 {
            return;
        }
        let pile = total.div_ceil(d) * c + T::SLACK;
        let work = T::of_floats(work, d * pile);
        let snake = |x: &mut [f32]| -> Result<(), std::convert::Infallible> {
            snake_rows(x, &self.alpha, &self.inverse);
            Ok(())
        };
        for (phase, to) in work.chunks_exact_mut(pile).enumerate() {
            let below = |row: usize| row.saturating_sub(phase).div_ceil(d);
            let (seen, end) = (below(old), below(old + new));
            for (to, row) in to.chunks_exact_mut(c).zip((phase..old).step_by(d)) {
                to.copy_from_slice(&carry[row * c..][..c]);
            }
            let piece = (PIECE / c).max(1);
            for (i, to) in to[seen * c..end * c].chunks_mut(piece * c).enumerate() {
                let row = |j: usize| phase + (seen + i * piece + j) * d - old;
                let rows = (0..to.len() / c).map(|j| &fresh[row(j) * c..][..c]);
                let Ok(()) = T::write(rows, to, Some(&snake));
            }
            to[end * c..].fill(T::ZERO);
        }
        for p in 0..T::panels(self.weight) {
            // all piles while the panel is in the cache
            for (phase, data) in work.chunks_exact(pile).enumerate().take(m) {
                T::multiply_panel(self.weight, p, (m - phase).div_ceil(d), data, c, &mut out[phase * c..], d * c);
            }
        }
        carry.clear();
        (m..total).for_each(|row| carry.extend_from_slice(&work[row % d * pile + row / d * c..][..c]));
    }
}
