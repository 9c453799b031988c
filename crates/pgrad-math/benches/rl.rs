//! Nanoseconds of the functions that a PPO update calls for every chunk of 64 samples, and of GAE.

use criterion::{Criterion, criterion_group, criterion_main};
use pgrad_math::{
    dist::{ActionDist, Actions, ActionsMut},
    returns, surrogate,
};
use pgrad_num::{Cols, ColsMut, Stream, Tb, TbMut};
use pgrad_testkit::random_vector;
use std::hint::black_box;

const COLS: usize = 64;

fn f32s(seed: u64, n: usize) -> Vec<f32> {
    random_vector(seed, n).iter().map(|x| *x as f32).collect()
}

fn dists(c: &mut Criterion) {
    for (name, dist) in [
        ("categorical-2", ActionDist::Categorical { n: 2 }),
        ("categorical-18", ActionDist::Categorical { n: 18 }),
        ("bernoulli-4", ActionDist::Bernoulli { n: 4 }),
        ("gaussian-6", ActionDist::DiagGaussian { dim: 6 }),
        (
            "categorical-2 and gaussian-6",
            ActionDist::Product {
                parts: vec![ActionDist::Categorical { n: 2 }, ActionDist::DiagGaussian { dim: 6 }],
            },
        ),
    ] {
        let (n, index_rows, real_rows) = (dist.n_outputs(), dist.index_rows(), dist.real_rows());
        let raw = f32s(1, n * COLS);
        let mut params = raw.clone();
        dist.prepare(ColsMut::new(&mut params, n, COLS), None);
        let other = {
            let mut p = f32s(2, n * COLS);
            dist.prepare(ColsMut::new(&mut p, n, COLS), None);
            p
        };
        let index: Vec<u32> = (0..index_rows * COLS).map(|i| (i % 2) as u32).collect();
        let real = f32s(3, real_rows * COLS);
        let actions =
            Actions { index: Cols::new(&index, index_rows, COLS), real: Cols::new(&real, real_rows, COLS) };
        let (w, mut x, mut d) = (f32s(4, COLS), f32s(5, COLS), vec![0.0; n * COLS]);
        let p = Cols::new(&params, n, COLS);
        let mut g = c.benchmark_group(name);
        let mut out = raw.clone();
        g.bench_function("copy and prepare", |b| {
            b.iter(|| {
                out.copy_from_slice(&raw);
                dist.prepare(ColsMut::new(black_box(&mut out), n, COLS), None);
            });
        });
        g.bench_function("logp", |b| b.iter(|| dist.logp(p, actions, black_box(&mut x))));
        g.bench_function("entropy", |b| b.iter(|| dist.entropy(p, black_box(&mut x))));
        g.bench_function("kl", |b| {
            b.iter(|| dist.kl(p, Cols::new(&other, n, COLS), black_box(&mut x)));
        });
        g.bench_function("logp_vjp", |b| {
            b.iter(|| dist.logp_vjp(p, actions, &w, ColsMut::new(black_box(&mut d), n, COLS)));
        });
        g.bench_function("entropy_vjp", |b| {
            b.iter(|| dist.entropy_vjp(p, &w, ColsMut::new(black_box(&mut d), n, COLS)));
        });
        g.bench_function("logp_entropy_vjp", |b| {
            b.iter(|| dist.logp_entropy_vjp(p, actions, &w, &w, ColsMut::new(black_box(&mut d), n, COLS)));
        });
        g.bench_function("fisher_mul", |b| {
            b.iter(|| dist.fisher_mul(p, p, ColsMut::new(black_box(&mut d), n, COLS)));
        });
        let mut rngs: Vec<Stream> = (0..COLS).map(|c| Stream::new(1, 0, c as u32)).collect();
        let (mut index, mut real) = (index.clone(), real.clone());
        g.bench_function("sample", |b| {
            b.iter(|| {
                let actions = ActionsMut {
                    index: ColsMut::new(black_box(&mut index), index_rows, COLS),
                    real: ColsMut::new(black_box(&mut real), real_rows, COLS),
                };
                dist.sample(p, &mut rngs, actions);
            });
        });
        g.finish();
    }
}

fn scalars(c: &mut Criterion) {
    let (x, y, z) = (f32s(1, COLS), f32s(2, COLS), f32s(3, COLS));
    let (mut o1, mut o2, mut o3) = (x.clone(), x.clone(), x.clone());
    c.bench_function("surrogate/clip 64", |b| {
        b.iter(|| surrogate::clip(&x, &y, &z, 0.2, black_box(&mut o1), &mut o2, &mut o3));
    });
    c.bench_function("surrogate/kl_k3 64", |b| b.iter(|| surrogate::kl_k3(&x, &y, black_box(&mut o1))));
    c.bench_function("surrogate/squared 64", |b| {
        b.iter(|| surrogate::squared(&x, &y, black_box(&mut o1), &mut o2));
    });
    c.bench_function("surrogate/squared_clipped 64", |b| {
        b.iter(|| surrogate::squared_clipped(&x, &y, &z, 0.2, black_box(&mut o1), &mut o2));
    });
    let (t, n) = (128, 64);
    let (r, v, v_next) = (f32s(1, t * n), f32s(2, t * n), f32s(3, t * n));
    let carry: Vec<f32> = f32s(4, t * n).iter().map(|x| if *x > -0.9 { 1.0 } else { 0.0 }).collect();
    let tb = |x| Tb::new(x, t, n);
    let mut adv = vec![0.0; t * n];
    let mut vs = adv.clone();
    c.bench_function("returns/gae 128x64", |b| {
        b.iter(|| {
            let out = TbMut::new(black_box(&mut adv), t, n);
            returns::gae(tb(&r), tb(&v), tb(&v_next), tb(&carry), 0.99, 0.95, out);
        });
    });
    c.bench_function("returns/n_step(5) 128x64", |b| {
        b.iter(|| {
            let out = TbMut::new(black_box(&mut adv), t, n);
            returns::n_step(tb(&r), tb(&v_next), tb(&carry), 0.99, 5, out);
        });
    });
    c.bench_function("returns/vtrace 128x64", |b| {
        b.iter(|| {
            let (vs, adv) = (TbMut::new(black_box(&mut vs), t, n), TbMut::new(&mut adv, t, n));
            let ratio = tb(&carry);
            returns::vtrace(tb(&r), tb(&v), tb(&v_next), tb(&carry), ratio, 0.99, 1.0, 1.0, 1.0, vs, adv);
        });
    });
    c.bench_function("returns/standardize 8192", |b| b.iter(|| returns::standardize(black_box(&mut adv))));
}

criterion_group!(benches, dists, scalars);
criterion_main!(benches);
