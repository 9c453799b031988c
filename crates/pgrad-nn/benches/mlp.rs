//! Forward and backward through two hidden layers of 64 units: `cargo bench -p pgrad-nn`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgrad_nn::{Activation, Head, Init, Network};
use pgrad_num::{Cols, ColsMut, Stream};
use std::hint::black_box;

fn mlp(c: &mut Criterion) {
    let head = Head::Linear { name: "logits", rows: 2, gain: 0.01 };
    #[expect(clippy::unwrap_used, reason = "the shape is right")]
    let net = Network::mlp(4, &[64, 64], Activation::Tanh, vec![head]).unwrap();
    let mut rng = Stream::new(1, 0, 0);
    let theta: Vec<f32> = net.init(Init { orthogonal: true, span: None }, &mut rng);
    let mut gradient = vec![0.0; theta.len()];
    let mut group = c.benchmark_group("mlp 4-64-64-2, tanh");
    for cols in [8, 32, 64] {
        let x: Vec<f32> = (0..4 * cols).map(|_| rng.normal() as f32).collect();
        let d_out: Vec<f32> = (0..2 * cols).map(|_| rng.normal() as f32).collect();
        let (x, d_out) = (Cols::new(&x, 4, cols), Cols::new(&d_out, 2, cols));
        let mut tape = net.tape(cols);
        group.throughput(Throughput::Elements(cols as u64));
        group.bench_function(format!("forward, {cols} samples"), |b| {
            b.iter(|| net.forward(black_box(&theta), x, &mut tape).at(0, 0));
        });
        group.bench_function(format!("forward and vjp, {cols} samples"), |b| {
            b.iter(|| {
                net.forward(black_box(&theta), x, &mut tape);
                net.vjp(&theta, x, &mut tape, d_out, black_box(&mut gradient), None);
            });
        });
        // What a product with the Fisher matrix is made of.
        let mut tangent = vec![0.0; 2 * cols];
        let mut jacobian = net.jacobian(cols);
        net.forward(&theta, x, &mut tape);
        net.linearize(&theta, &tape, &mut jacobian);
        group.bench_function(format!("jvp and vjp, {cols} samples"), |b| {
            b.iter(|| {
                net.jvp(black_box(&theta), x, &mut tape, &theta, ColsMut::new(&mut tangent, 2, cols));
                net.vjp(&theta, x, &mut tape, d_out, black_box(&mut gradient), None);
            });
        });
        group.bench_function(format!("jvp and vjp by slopes, {cols} samples"), |b| {
            b.iter(|| {
                net.jvp_by(&jacobian, x, &mut tape, black_box(&theta), ColsMut::new(&mut tangent, 2, cols));
                net.vjp_by(&jacobian, x, &mut tape, d_out, black_box(&mut gradient));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, mlp);
criterion_main!(benches);
