//! Element-wise functions, reductions and the matrix product: `cargo bench -p pgrad-num`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgrad_num::gemm::{Mat, Write, add_outer, matmul};
use pgrad_num::{Cols, kernels};
use std::hint::black_box;

fn slices(c: &mut Criterion) {
    let mut group = c.benchmark_group("slice of 4096 f32");
    group.throughput(Throughput::Elements(4096));
    let x: Vec<f32> = (0..4096).map(|i| 0.001 + (i % 37) as f32 * 0.1).collect();
    let mut y = x.clone();
    for (name, f) in
        [("tanh", kernels::tanh_f32 as fn(&mut [f32])), ("exp", kernels::exp_f32), ("ln", kernels::ln_f32)]
    {
        group.bench_function(name, |b| {
            b.iter(|| {
                y.copy_from_slice(&x);
                f(black_box(&mut y));
            });
        });
    }
    group.bench_function("sum", |b| b.iter(|| kernels::sum(black_box(&x))));
    group.bench_function("dot", |b| b.iter(|| kernels::dot(black_box(&x), black_box(&x))));
    group.bench_function("all_finite", |b| b.iter(|| kernels::all_finite(black_box(&x))));
    group.bench_function("axpy", |b| b.iter(|| kernels::axpy(0.5, black_box(&x), black_box(&mut y))));
    group.finish();
}

fn products(c: &mut Criterion) {
    // The products of a network's forward pass (A B), of its backward pass (Aᵀ B) and of its gradient (A Bᵀ).
    let mut group = c.benchmark_group("matmul f32");
    for (m, k, n) in [(64, 64, 64), (64, 4, 64), (2, 64, 64), (64, 64, 8), (256, 256, 64), (256, 400, 64)] {
        group.throughput(Throughput::Elements((2 * m * k * n) as u64));
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
        let (mut out, mut gradient) = (vec![0.0f32; m * n], vec![0.0f32; m * k]);
        let (forward, backward) = (Mat::new(&a, m, k), Mat::new(&a, k, m).t());
        for (name, a) in [("", forward), ("ᵀ", backward)] {
            group.bench_function(format!("[{m}x{k}]{name} [{k}x{n}]"), |bench| {
                let b = Mat::new(&b, k, n);
                bench.iter(|| matmul(black_box(&mut out), Write::Replace, a, b));
            });
        }
        group.bench_function(format!("[{m}x{n}] [{k}x{n}]ᵀ"), |bench| {
            let (d, x) = (Cols::new(&out, m, n), Cols::new(&b, k, n));
            bench.iter(|| add_outer(black_box(&mut gradient), d, x));
        });
    }
    group.finish();
}

criterion_group!(benches, slices, products);
criterion_main!(benches);
