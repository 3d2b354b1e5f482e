//! Every kernel at the shapes of the full-size model for 10 s of speech, beside what the machine can do at most in the same run.
//!
//! `cargo bench -p chatterbox-turbo-benches` (or `make bench-kernels`) takes Criterion's options, such as a filter;
//! `CHATTERBOX_CPU` chooses the level, `BENCH_THREADS=1,2` the numbers of threads (default: 1 and all).

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program whose output is a table

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use chatterbox_turbo::draws;
use chatterbox_turbo::kernels::attention::{Attention, attention};
use chatterbox_turbo::kernels::bf16::{self, Bf16Matrix};
use chatterbox_turbo::kernels::block_float::BlockFloatMatrix;
use chatterbox_turbo::kernels::cache::Cache;
use chatterbox_turbo::kernels::conv_transpose1d::Phases;
use chatterbox_turbo::kernels::conv1d::{Geometry, conv1d_add};
use chatterbox_turbo::kernels::elementwise::{Function, apply, snake};
use chatterbox_turbo::kernels::half_cache::HalfHead;
use chatterbox_turbo::kernels::int4::{self, Int4Matrix};
use chatterbox_turbo::kernels::int8::{Int8Matrix, multiply_add};
use chatterbox_turbo::kernels::lstm::lstm;
use chatterbox_turbo::kernels::matmul::{Rows, Weight, matmul};
use chatterbox_turbo::kernels::norm::{layer_norm, softmax};
use chatterbox_turbo::kernels::{Panels, level_in_use};
use chatterbox_turbo::precision::Products;
use chatterbox_turbo_benches::{Bound, Peaks, Work, measure};
use criterion::Criterion;

/// Layers of T3.
const LAYERS: usize = 24;

type NoChange = fn(&mut [f32]) -> Result<(), ()>;

struct Bench {
    criterion: Criterion,
    threads: usize,
    work: BTreeMap<String, Work>,
}

impl Bench {
    fn add(&mut self, name: &str, work: Work, mut call: impl FnMut() + Send) {
        let id = format!("{}-threads/{name}", self.threads);
        let pool = match rayon::ThreadPoolBuilder::new().num_threads(self.threads).build() {
            Ok(pool) => pool,
            Err(error) => return eprintln!("{id}: {error}"),
        };
        self.criterion.bench_function(&id, |b| pool.install(|| b.iter(&mut call)));
        self.work.insert(id, work);
    }
}

fn noise(n: usize, stream: u64) -> Vec<f32> {
    draws::normals(stream, "bench", 0, 1, n).map(|m| m.data).unwrap_or_default()
}

fn products(bench: &mut Bench) {
    for (m, n, k) in [(1006, 1024, 256), (1006, 256, 1024), (506, 2048, 512), (250, 5120, 1280), (417, 4096, 1024)] {
        let (a, w, mut out) = (noise(m * k, 1), noise(n * k, 2), vec![0.0; m * n]);
        let panels = Panels::of_weight(&w, n, k);
        let weight = panels.as_ref().map_or(Weight::Plain(&w), Weight::Dealt);
        let rows = Rows { data: &a, offset: 0, stride: k };
        bench.add(&format!("linear f32 {m}x{k} to {n}"), Work::product(Bound::F32, m, n, k), || {
            matmul(m, n, k, rows, weight, None, &mut out, 0, n);
        });
        let weight = Bf16Matrix::of_weight(&w, n, k);
        bench.add(&format!("linear bf16 {m}x{k} to {n}"), Work::product(Bound::Bf16, m, n, k), || {
            matmul(m, n, k, rows, Weight::Bf16(&weight), None, &mut out, 0, n);
        });
    }
    let (n, k) = (4096, 1024);
    let (matrix, w) = (Int8Matrix::new(&noise(n * k, 3), n, k, k, 1), noise(n * k, 3));
    let (a, mut out) = (noise(417 * k, 4), vec![0.0; 417 * n]);
    bench.add("linear int8 417x1024 to 4096", Work::product(Bound::Int8, 417, n, k), || multiply_add(&matrix, 417, &a, &mut out));
    // a step of decoding: more weights than a cache holds, each read once
    let matrices: Vec<Int8Matrix> = (0..LAYERS).map(|_| Int8Matrix::new(&w, n, k, k, 1)).collect();
    for m in [1, 4, 8, 16] {
        let (a, out) = (&a[..m * k], &mut out[..m * n]);
        bench.add(&format!("{LAYERS} linear int8 {m}x{k} to {n}"), Work::bytes(LAYERS * n * k), || {
            matrices.iter().for_each(|matrix| multiply_add(matrix, m, a, out));
        });
    }
    let matrix = Int4Matrix::new(&w, n, k, k, 1);
    bench.add("linear int4 417x1024 to 4096", Work::product(Bound::Int8, 417, n, k), || {
        int4::multiply_add(&matrix, 417, &a, &mut out);
    });
    let matrices: Vec<Int4Matrix> = (0..2 * LAYERS).map(|_| Int4Matrix::new(&w, n, k, k, 1)).collect();
    for m in [1, 4, 8, 16] {
        let (a, out) = (&a[..m * k], &mut out[..m * n]);
        bench.add(
            &format!("{} linear int4 {m}x{k} to {n}", matrices.len()),
            Work::bytes(matrices.len() * n * k * 9 / 16),
            || {
                matrices.iter().for_each(|matrix| int4::multiply_add(matrix, m, a, out));
            },
        );
    }
    let matrices: Vec<BlockFloatMatrix> = (0..LAYERS / 2).map(|_| BlockFloatMatrix::new(&w, n, k, k, 1)).collect();
    for m in [1, 4, 16, 417] {
        let (row, out) = (Rows { data: &a, offset: 0, stride: k }, &mut out[..m * n]);
        let work = if m > 16 {
            Work::product(Bound::F32, m * matrices.len(), n, k)
        } else {
            Work::bytes(matrices.len() * n * k * 41 / 16)
        };
        bench.add(&format!("{} linear block float {m}x{k} to {n}", matrices.len()), work, || {
            matrices.iter().for_each(|w| matmul(m, n, k, row, Weight::BlockFloat(w), None, out, 0, n));
        });
    }
    let weights: Vec<Vec<f32>> = (0..LAYERS / 4).map(|_| w.clone()).collect();
    bench.add(&format!("{} linear f32 1x{k} to {n}", weights.len()), Work::bytes(4 * weights.len() * n * k), || {
        let row = Rows { data: &a, offset: 0, stride: k };
        weights.iter().for_each(|w| matmul(1, n, k, row, Weight::Plain(w), None, &mut out[..n], 0, n));
    });
}

fn convolutions(bench: &mut Bench) {
    for (channels, t, kernel, dilation) in [(256, 4048, 11, 5), (128, 20240, 7, 3), (64, 60720, 11, 5), (256, 1006, 3, 1)] {
        let pad = dilation * (kernel - 1) / 2;
        let g = Geometry { input: channels, output: channels, kernel, stride: 1, dilation, left: pad, right: pad };
        let (n, k) = (channels, channels * kernel);
        let (x, w, mut out) = (noise(t * channels, 5), noise(n * k, 6), vec![0.0; t * n]);
        let panels = Panels::of_weight(&w, n, k);
        let float = panels.as_ref().map_or(Weight::Plain(&w), Weight::Dealt);
        let rounded = Bf16Matrix::of_weight(&w, n, k);
        for (name, bound, weight) in [("f32", Bound::F32, float), ("bf16", Bound::Bf16, Weight::Bf16(&rounded))] {
            bench.add(&format!("conv1d {name} C{channels} T{t} k{kernel} d{dilation}"), Work::product(bound, t, n, k), || {
                let _ = black_box(conv1d_add(&x, t, weight, g, None::<NoChange>, &mut out));
            });
        }
    }
    let (input, output, kernel, stride, t) = (512, 256, 16, 8, 506);
    let (x, w) = (noise(t * input, 8), noise(input * output * kernel, 7));
    for (name, bound, products) in [("f32", Bound::F32, Products::F32), ("bf16", Bound::Bf16, Products::Bf16)] {
        let phases = Phases::new(&w, input, output, kernel, stride, (kernel - stride) / 2, products);
        let mut out = vec![0.0; phases.rows(t) * output];
        let work = Work::product(bound, phases.rows(t), output, input * kernel / stride);
        bench.add(&format!("conv_transpose1d {name} 512 to 256 k16 s8"), work, || {
            let _ = black_box(phases.apply_add(&x, t, |_: &mut [f32]| Ok::<(), ()>(()), &mut out));
        });
    }
}

fn attentions(bench: &mut Bench) {
    let (t, heads, size) = (1006, 8, 64);
    let (q, k, v) = (noise(t * heads * size, 9), noise(t * heads * size, 10), noise(t * heads * size, 11));
    let all = Attention { q: &q, k: &k, v: &v, heads, size, scale: 0.125, bias: None, causal: false };
    bench.add("attention f32 T1006 8x64", Work::product(Bound::F32, t, 2 * t, heads * size), || {
        black_box(attention(all));
    });
    let (q2, k2, v2) = (q.as_slice(), k.as_slice(), v.as_slice());
    let all = bf16::attention::Attention { q: q2, k: k2, v: v2, heads, size, scale: 0.125, positions: None };
    bench.add("attention bf16 T1006 8x64", Work::product(Bound::Bf16, t, 2 * t, heads * size), || {
        black_box(bf16::attention::attention(all));
    });
    let (s, heads) = (500, 16);
    let rows = |stream| noise(s * heads * size, stream);
    let mut cache = Cache::<HalfHead>::new(s, heads, size);
    cache.append(&rows(12), &rows(13));
    let q = noise(heads * size, 14);
    bench.add("attention f16 cache 1 of 500 16x64", Work::bytes(2 * 2 * s * heads * size), || {
        black_box(cache.attend(&q, 0.125));
    });
    let (batch, steps, hidden) = (6, 160, 256);
    let (gates, recurrent) = (noise(batch * steps * 4 * hidden, 15), noise(4 * hidden * hidden, 16));
    bench.add("lstm f32 6x160 H256", Work::product(Bound::F32, batch * steps, 4 * hidden, hidden), || {
        black_box(lstm(&mut gates.clone(), steps, hidden, &recurrent));
    });
}

fn rows(bench: &mut Bench) {
    let (t, n) = (1006, 1024);
    let x = noise(t * n, 17);
    let bytes = Work::bytes(2 * 4 * t * n);
    let mut y = x.clone();
    for (name, function) in [("gelu erf", Function::GeluErf), ("silu", Function::Silu), ("mish", Function::Mish)] {
        bench.add(&format!("{name} {t}x{n}"), bytes, || {
            y.copy_from_slice(&x);
            apply(function, &mut y);
        });
    }
    let alpha = vec![0.7; n];
    bench.add(&format!("snake {t}x{n}"), bytes, || {
        y.copy_from_slice(&x);
        snake(&mut y, &alpha);
    });
    let (weight, bias) = (vec![1.1; n], vec![0.1; n]);
    bench.add(&format!("layer_norm {t}x{n}"), bytes, || {
        y.copy_from_slice(&x);
        layer_norm(&mut y, &weight, &bias, 1e-5);
    });
    bench.add(&format!("softmax {t}x{n}"), bytes, || {
        y.copy_from_slice(&x);
        softmax(&mut y, n);
    });
}

/// Criterion's estimate of the mean, in seconds.
fn seconds(directory: &Path, id: &str) -> Option<f64> {
    let text = std::fs::read_to_string(directory.join(id.replace('/', "_")).join("new/estimates.json")).ok()?;
    let found: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(found["median"]["point_estimate"].as_f64()? / 1e9)
}

fn table(directory: &Path, peaks: &[Peaks], work: &BTreeMap<String, Work>) {
    println!("\n{:52}{:>12}{:>16}{:>10}", "kernel", "time", "per second", "of peak");
    for (id, work) in work {
        let Some(seconds) = seconds(directory, id) else { continue };
        let Some(peak) = peaks.iter().find(|p| id.starts_with(&format!("{}-", p.threads))) else { continue };
        let rate = work.amount / seconds;
        let unit = if work.bound == Bound::Memory { "GB/s" } else { "Gop/s" };
        let share = 100.0 * rate / peak.of(work.bound);
        println!("{id:52}{:>9.3} ms{:>10.1} {unit:5}{share:>8.0} %", seconds * 1e3, rate / 1e9);
    }
}

fn main() {
    let level = match level_in_use() {
        Ok(level) => level,
        Err(error) => return eprintln!("{error}"),
    };
    let directory = std::env::temp_dir().join(format!("chatterbox-turbo-benches-{}", std::process::id()));
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = std::env::var("BENCH_THREADS").unwrap_or_else(|_| format!("1,{all}"));
    let mut counts: Vec<usize> = asked.split(',').filter_map(|n| n.trim().parse().ok()).filter(|n| *n > 0).collect();
    counts.dedup();
    let criterion = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let criterion = criterion.sample_size(10).without_plots().output_directory(&directory).configure_from_args();
    let mut bench = Bench { criterion, threads: 1, work: BTreeMap::new() };
    let peaks: Vec<Peaks> = counts.iter().map(|threads| measure(*threads)).collect();
    for threads in counts {
        bench.threads = threads;
        products(&mut bench);
        convolutions(&mut bench);
        attentions(&mut bench);
        rows(&mut bench);
    }
    println!("\nCPU level {level}");
    for p in &peaks {
        let int8 = p.int8.map_or("no instruction".into(), |v| format!("{:.0} Gop/s", v / 1e9));
        println!(
            "{} threads at most: float32 {:.0} Gop/s, int8 {int8}, memory {:.1} GB/s",
            p.threads,
            p.f32 / 1e9,
            p.memory / 1e9
        );
    }
    table(&directory, &peaks, &bench.work);
    let _ = std::fs::remove_dir_all(&directory);
}
