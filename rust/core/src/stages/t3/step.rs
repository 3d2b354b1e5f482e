//! One step of decoding for any number of sessions on the CPU: one token each, at positions of their own, over buffers that are
//! kept for the next step and without tensors.
//!
//! The weights are read once for all sessions. Every number is computed by the same operations in the same order as by
//! [`Block::forward`](super::decoder) for one row: the bits are the same, alone or together, on any number of threads.

use std::sync::{Mutex, PoisonError};

use super::decoder::{ACTIVATION, Block, Model, T3Session};
use crate::kernels::elementwise::piece as activate;
use crate::kernels::norm::layer_norm_row;
use crate::kernels::pointer::Cells;
use crate::kernels::team;
use crate::nn::{LayerNorm, Projection, StepCache, StepInput};
use crate::threads::PerProcess;
use crate::{Error, Result};

/// Phases of a block; see [`Step::work`].
const PHASES: usize = 9;
/// Sets of buffers that are kept: for as many threads that step at the same time.
const KEPT: usize = 4;

/// The small weights of a block, side by side.
#[derive(Debug)]
pub(super) struct Small {
    norms: [Norm; 2],
    /// Of `c_attn`, `c_proj`, `c_fc` and the second `c_proj`.
    biases: [Vec<f32>; 4],
}

/// Weight, bias and ε.
type Norm = (Vec<f32>, Vec<f32>, f32);

/// What steps need beside the layers.
#[derive(Debug)]
pub(super) struct Steps {
    blocks: Vec<Small>,
    norm: Norm,
    head: Vec<f32>,
    kept: PerProcess<Mutex<Vec<Buffers>>>,
}

impl Steps {
    pub(super) fn new(blocks: &[Block], norm: &LayerNorm, head: &Projection) -> Result<Self> {
        let small = |block: &Block| -> Result<Small> {
            Ok(Small {
                norms: [block.ln_1.values()?, block.ln_2.values()?],
                biases: [
                    block.attn_c_attn.bias_values()?,
                    block.attn_c_proj.bias_values()?,
                    block.mlp_c_fc.bias_values()?,
                    block.mlp_c_proj.bias_values()?,
                ],
            })
        };
        let blocks = blocks.iter().map(small).collect::<Result<_>>()?;
        Ok(Self { blocks, norm: norm.values()?, head: head.bias_values()?, kept: PerProcess::new() })
    }
}

/// Numbers of all sessions between the phases, a row each.
#[derive(Debug)]
struct Buffers {
    rows: usize,
    /// The residual stream before a block and in the middle of it, `[C]`.
    x: Cells<f32>,
    y: Cells<f32>,
    /// A block's normed input, `[C]`.
    normed: StepInput,
    /// `q | k | v`, `[3 C]`.
    packed: Cells<f32>,
    /// What attention gives, `[C]`.
    mixed: StepInput,
    /// The feed-forward layer's inner row.
    hidden: StepInput,
    logits: Cells<f32>,
    /// Of every session, the caches of all blocks.
    caches: Vec<StepCache>,
}

impl Buffers {
    fn new(model: &Model, rows: usize) -> Self {
        let (size, ffn) = (model.config.hidden_size, model.config.ffn_size);
        let (cells, input) =
            (|n: usize| Cells::new(vec![0.0; rows * n]), |n: usize| StepInput::new(rows, n, model.head.is_quantised()));
        Self {
            rows,
            x: cells(size),
            y: cells(size),
            normed: input(size),
            packed: cells(3 * size),
            mixed: input(size),
            hidden: input(ffn),
            logits: cells(model.head.output()),
            caches: Vec::with_capacity(rows * model.blocks.len()),
        }
    }
}

/// Appends `tokens[i]` to `sessions[i]` and returns the logits after it. Tokens and room were checked.
pub(super) fn step(model: &Model, steps: &Steps, sessions: &mut [&mut T3Session], tokens: &[i64]) -> Result<Vec<Vec<f32>>> {
    let lock = || steps.kept.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let fits = |buffers: &Buffers| buffers.rows >= sessions.len();
    let kept = {
        let mut kept = lock();
        kept.iter().position(fits).map(|at| kept.swap_remove(at))
    };
    let mut buffers = kept.unwrap_or_else(|| Buffers::new(model, sessions.len()));
    let outcome = in_buffers(model, steps, sessions, tokens, &mut buffers);
    let mut kept = lock();
    if kept.len() == KEPT {
        kept.remove(0);
    }
    kept.push(buffers);
    outcome
}

fn in_buffers(
    model: &Model,
    steps: &Steps,
    sessions: &mut [&mut T3Session],
    tokens: &[i64],
    buffers: &mut Buffers,
) -> Result<Vec<Vec<f32>>> {
    let (m, size, vocab) = (sessions.len(), model.config.hidden_size, model.head.output());
    buffers.caches.clear();
    for (row, (session, token)) in sessions.iter_mut().zip(tokens).enumerate() {
        let caches = session.caches_mut()?;
        let at = caches.first().map_or(0, |cache| cache.len());
        // SAFETY: no step is under way.
        let x = unsafe { buffers.x.write(row * size, size) };
        model.speech.with_row(*token as usize, |speech| x.copy_from_slice(speech))?;
        model.positions.with_row(at, |position| x.iter_mut().zip(position).for_each(|(x, p)| *x += p))?;
        for cache in caches {
            buffers.caches.push(cache.step()?);
        }
    }
    let step = Step { model, steps, buffers, m, failed: Mutex::default() };
    team::run(PHASES * model.blocks.len() + 2, &|phase| step.pieces(phase), &|phase, piece| step.work(phase, piece));
    if let Some(error) = step.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    for session in sessions {
        session.caches_mut()?.iter_mut().for_each(|cache| cache.stepped());
    }
    // SAFETY: the step is over.
    Ok((0..m).map(|row| unsafe { buffers.logits.read(row * vocab, vocab) }.to_vec()).collect())
}

struct Step<'a> {
    model: &'a Model,
    steps: &'a Steps,
    buffers: &'a Buffers,
    m: usize,
    failed: Mutex<Option<Error>>,
}

impl Step<'_> {
    fn pieces(&self, phase: usize) -> usize {
        let (m, model) = (self.m, self.model);
        let Some(block) = model.blocks.get(phase / PHASES) else {
            return if phase.is_multiple_of(PHASES) { m } else { model.head.pieces() };
        };
        match phase % PHASES {
            0 | 5 => m,
            1 => block.attn_c_attn.pieces(),
            2 => m * block.heads,
            3 | 7 if model.head.is_quantised() => m,
            4 => block.attn_c_proj.pieces(),
            6 => block.mlp_c_fc.pieces(),
            8 => block.mlp_c_proj.pieces(),
            _ => 0,
        }
    }

    fn work(&self, phase: usize, piece: usize) {
        let Self { model, m, .. } = *self;
        let Buffers { x, y, normed, packed, mixed, hidden, logits, caches, .. } = self.buffers;
        let (layer, size) = (phase / PHASES, model.config.hidden_size);
        let into = |cells: &Cells<f32>, width: usize, row: usize, first: usize, products: &[f32]| {
            // SAFETY: this piece alone writes these columns during its phase, in which nobody reads them.
            unsafe { cells.write(row * width + first, products.len()) }.copy_from_slice(products);
        };
        // the sum of a layer's output and a row before it
        let onto = |from: &Cells<f32>, to: &Cells<f32>, row: usize, first: usize, products: &mut [f32]| {
            // SAFETY: nobody writes `from` during a phase that writes `to`.
            let from = unsafe { from.read(row * size + first, products.len()) };
            products.iter_mut().zip(from).for_each(|(product, from)| *product += from);
            into(to, size, row, first, products);
        };
        // SAFETY: a phase begins after the one before it has ended. Its pieces read what earlier ones wrote, and each writes a part
        // of its own: a row, a head's columns of a row and that head of the row's cache, or a panel's columns of all rows.
        self.check(unsafe {
            match (model.blocks.get(layer), self.steps.blocks.get(layer), phase % PHASES) {
                (Some(_), Some(small), 0) => self.norm(piece, x, &small.norms[0], normed),
                (Some(block), Some(small), 1) => block.attn_c_attn.piece(piece, normed, m, |row, first, products| {
                    with_bias(products, &small.biases[0][first..]);
                    into(packed, 3 * size, row, first, products);
                }),
                (Some(block), _, 2) => {
                    // sessions of one voice read the same positions of a head, one after the other
                    let (row, h, width) = (piece % m, piece / m, size / block.heads);
                    let part = |i: usize| packed.read((3 * row + i) * size + h * width, width);
                    let out = mixed.values.write(row * size + h * width, width);
                    let cache = &caches[row * model.blocks.len() + layer];
                    cache.head(h, part(0), part(1), part(2), block.scale(size) as f32, out);
                    Ok(())
                }
                (Some(_), _, 3) => mixed.quantise(piece),
                (Some(block), Some(small), 4) => block.attn_c_proj.piece(piece, mixed, m, |row, first, products| {
                    with_bias(products, &small.biases[1][first..]);
                    onto(x, y, row, first, products);
                }),
                (Some(_), Some(small), 5) => self.norm(piece, y, &small.norms[1], normed),
                (Some(block), Some(small), 6) => block.mlp_c_fc.piece(piece, normed, m, |row, first, products| {
                    with_bias(products, &small.biases[2][first..]);
                    activate(ACTIVATION, products);
                    into(&hidden.values, block.mlp_c_fc.output(), row, first, products);
                }),
                (Some(_), _, 7) => hidden.quantise(piece),
                (Some(block), Some(small), _) => block.mlp_c_proj.piece(piece, hidden, m, |row, first, products| {
                    with_bias(products, &small.biases[3][first..]);
                    onto(y, x, row, first, products);
                }),
                (None, _, 0) => self.norm(piece, x, &self.steps.norm, normed),
                _ => model.head.piece(piece, normed, m, |row, first, products| {
                    with_bias(products, &self.steps.head[first..]);
                    into(logits, model.head.output(), row, first, products);
                }),
            }
        });
    }

    /// Row `row` of `from`, normed, and in 8 bits where the products want it.
    ///
    /// # Safety
    /// Nobody else may use this row of `to`, or write that of `from`, meanwhile.
    unsafe fn norm(&self, row: usize, from: &Cells<f32>, (weight, bias, eps): &Norm, to: &StepInput) -> Result<()> {
        let size = weight.len();
        // SAFETY: promised by the caller.
        unsafe {
            let values = to.values.write(row * size, size);
            values.copy_from_slice(from.read(row * size, size));
            layer_norm_row(values, weight, bias, *eps);
            if self.model.head.is_quantised() { to.quantise(row) } else { Ok(()) }
        }
    }

    fn check(&self, outcome: Result<()>) {
        if let Err(error) = outcome {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }
}

/// `products = bias + products`.
fn with_bias(products: &mut [f32], bias: &[f32]) {
    products.iter_mut().zip(bias).for_each(|(p, b)| *p += b);
}
