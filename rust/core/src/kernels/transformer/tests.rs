use super::*;
use crate::kernels::bf16::{Bf16Matrix, attention as bf16};
use crate::kernels::elementwise::{apply, sum_rows};
use crate::kernels::level::testing::at_every_level;
use crate::kernels::matmul::{Rows, Weight, matmul_add};
use crate::kernels::norm::layer_norm;
use crate::kernels::{Panels, attention as float};

fn noise(n: usize, stream: u64) -> Vec<f32> {
    crate::draws::normals(stream, "test", 0, 1, n).map(|m| m.data).unwrap_or_default()
}

/// What the tests need beside a format.
trait Twin: Format {
    fn matrix(weight: &[f32], n: usize, k: usize) -> Option<Self::Matrix>;
    fn weight(matrix: &Self::Matrix) -> Weight<'_>;
    fn attention(q: [&[f32]; 2], k: &[f32], v: &[f32], p: Option<&[f32]>, heads: usize, size: usize, scale: f32) -> Vec<f32>;
}

impl Twin for u16 {
    fn matrix(weight: &[f32], n: usize, k: usize) -> Option<Bf16Matrix> {
        Some(Bf16Matrix::of_weight(weight, n, k))
    }

    fn weight(matrix: &Bf16Matrix) -> Weight<'_> {
        Weight::Bf16(matrix)
    }

    fn attention(
        [q, r]: [&[f32]; 2],
        k: &[f32],
        v: &[f32],
        p: Option<&[f32]>,
        heads: usize,
        size: usize,
        scale: f32,
    ) -> Vec<f32> {
        let positions = p.map(|p| bf16::Positions { r, p });
        bf16::attention(bf16::Attention { q, k, v, heads, size, scale, positions })
    }
}

impl Twin for f32 {
    fn matrix(weight: &[f32], n: usize, k: usize) -> Option<Panels> {
        Panels::of_weight(weight, n, k)
    }

    fn weight(matrix: &Panels) -> Weight<'_> {
        Weight::Dealt(matrix)
    }

    fn attention(
        [q, _]: [&[f32]; 2],
        k: &[f32],
        v: &[f32],
        _: Option<&[f32]>,
        heads: usize,
        size: usize,
        scale: f32,
    ) -> Vec<f32> {
        float::attention(float::Attention { q, k, v, heads, size, scale, bias: None, causal: false })
    }
}

struct Sizes {
    rows: usize,
    channels: usize,
    heads: usize,
    size: usize,
    inner: usize,
    relative: bool,
}

fn block<T: Twin>(s: &Sizes, seed: u64) -> Option<Block<T>> {
    let mut stream = 100 * seed;
    let mut next = |n: usize, scale: f32| -> Vec<f32> {
        stream += 1;
        noise(n, stream).iter().map(|v| v * scale).collect()
    };
    let width = s.heads * s.size;
    let mut layer = |n: usize, k: usize, bias: bool| -> Option<Layer<T>> {
        let weight = Arc::new(T::matrix(&next(n * k, 1.0 / (k as f32).sqrt()), n, k)?);
        Some(Layer { weight, bias: if bias { next(n, 0.3) } else { vec![0.0; n] } })
    };
    Some(Block {
        inputs: [layer(width, s.channels, s.relative)?, layer(width, s.channels, false)?, layer(width, s.channels, true)?],
        out: layer(s.channels, width, true)?,
        feed_forward: [layer(s.inner, s.channels, true)?, layer(s.channels, s.inner, true)?],
        relative: if s.relative {
            let layer = layer(width, s.channels, false)?;
            Some(Relative { layer, content: noise(width, 8), position: noise(width, 9) })
        } else {
            None
        },
        norms: [5, 6].map(|i| (noise(s.channels, i), noise(s.channels, i + 20), 1e-5)),
        activation: Function::GeluErf,
        heads: s.heads,
        scale: 0.7 / (s.size as f32).sqrt(),
    })
}

/// Operation after operation, each over all rows.
fn plain<T: Twin>(block: &Block<T>, x: &mut Vec<f32>, table: Option<&[f32]>, channels: usize) {
    let rows = x.len() / channels;
    let linear = |layer: &Layer<T>, a: &[f32], adds: &[&[f32]]| {
        let (n, k) = T::dims(&layer.weight);
        let mut out = sum_rows(a.len() / k, n, Some(&layer.bias), adds);
        matmul_add(a.len() / k, n, k, Rows { data: a, offset: 0, stride: k }, T::weight(&layer.weight), &mut out, 0, n);
        out
    };
    let norm = |x: &[f32], (weight, bias, eps): &Norm| {
        let mut y = x.to_vec();
        layer_norm(&mut y, weight, bias, *eps);
        y
    };
    let y = norm(x, &block.norms[0]);
    let [q, k, v] = block.inputs.each_ref().map(|layer| linear(layer, &y, &[]));
    let size = k.len() / rows / block.heads;
    let attend = |q: [&[f32]; 2], p: Option<&[f32]>| T::attention(q, &k, &v, p, block.heads, size, block.scale);
    let y = match (&block.relative, table) {
        (Some(relative), Some(table)) => {
            let shifted = [&relative.content, &relative.position].map(|by| sum_rows(rows, by.len(), Some(by), &[&q]));
            attend([&shifted[0], &shifted[1]], Some(&linear(&relative.layer, table, &[])))
        }
        _ => attend([&q, &q], None),
    };
    *x = linear(&block.out, &y, &[x]);
    let mut y = linear(&block.feed_forward[0], &norm(x, &block.norms[1]), &[]);
    apply(block.activation, &mut y);
    *x = linear(&block.feed_forward[1], &y, &[x]);
}

fn same<T: Twin>(sizes: &Sizes) {
    let (Some(one), Some(two)) = (block::<T>(sizes, 1), block::<T>(sizes, 2)) else {
        return; // products without panels go layer by layer
    };
    let table = sizes.relative.then(|| noise((2 * sizes.rows - 1) * sizes.channels, 30));
    let x = noise(sizes.rows * sizes.channels, 31);
    let (mut found, mut expected, mut told) = (x.clone(), x, vec![]);
    let outcome = run(&[&one, &two, &one], &mut found, table.as_deref(), &mut |done| {
        told.push(done);
        Ok::<(), ()>(())
    });
    assert_eq!((outcome, told), (Ok(()), vec![1, 2, 3]));
    for block in [&one, &two, &one] {
        plain(block, &mut expected, table.as_deref(), sizes.channels);
    }
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(expected.iter().all(|v| v.is_finite()));
    assert_eq!(bits(&found), bits(&expected), "{} rows", sizes.rows);
}

const SIZES: [Sizes; 6] = [
    Sizes { rows: 1, channels: 16, heads: 1, size: 16, inner: 32, relative: true },
    Sizes { rows: 37, channels: 24, heads: 3, size: 8, inner: 70, relative: false },
    Sizes { rows: 130, channels: 48, heads: 2, size: 64, inner: 130, relative: false },
    Sizes { rows: 193, channels: 80, heads: 3, size: 20, inner: 300, relative: false },
    Sizes { rows: 203, channels: 40, heads: 2, size: 20, inner: 64, relative: true },
    Sizes { rows: 129, channels: 64, heads: 1, size: 128, inner: 64, relative: true },
];

#[test]
fn the_bits_are_those_of_layer_by_layer() {
    at_every_level(|| {
        SIZES.iter().for_each(same::<u16>);
        SIZES.iter().filter(|sizes| sizes.rows >= float::BLOCK && !sizes.relative).for_each(same::<f32>);
    });
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for threads in [1, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        assert!(pool.is_ok_and(|pool| {
            pool.install(|| SIZES.iter().for_each(same::<u16>));
            true
        }));
    }
}

#[test]
fn work_can_be_stopped_after_any_block() {
    let sizes = &SIZES[1];
    let (Some(block), mut x) = (block::<u16>(sizes, 1), noise(sizes.rows * sizes.channels, 31)) else {
        unreachable!("bfloat16 runs everywhere");
    };
    let outcome = run(&[&block, &block, &block], &mut x, None, &mut |done| if done == 2 { Err(done) } else { Ok(()) });
    assert_eq!(outcome, Err(2));
}

#[test]
fn a_fault_in_a_row_is_seen() {
    let sizes = &SIZES[1];
    let (Some(block), mut x) = (block::<u16>(sizes, 1), noise(sizes.rows * sizes.channels, 31)) else {
        unreachable!("bfloat16 runs everywhere");
    };
    x[5] = f32::NAN;
    assert_eq!(run(&[&block], &mut x, None, &mut |_| Ok::<(), ()>(())), Ok(()));
    assert!(x[..sizes.channels].iter().all(|v| v.is_nan()));
}
