//! A network's pass beside the matrix product that most of it consists of, one thread, 64 samples:
//! `cargo run --release -p pgrad-nn --example pass`. The least of many times, which other processes do not
//! alter.

use pgrad_nn::{Activation, Head, Init, Network};
use pgrad_num::gemm::{Mat, Then, Write, matmul, matmul_then};
use pgrad_num::{Aligned, Cols, Stream};
use std::time::Instant;

const N: usize = 64;

/// Prints the least time of `f` and returns it, in seconds.
#[expect(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures and prints")]
fn least(name: &str, flops: usize, mut f: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..3000 {
        let start = Instant::now();
        (0..8).for_each(|_| f());
        best = best.min(start.elapsed().as_secs_f64() / 8.0);
    }
    println!("{name:32} {:7.3} us {:7.1} GFLOP/s", best * 1e6, flops as f64 / best / 1e9);
    best
}

#[expect(clippy::print_stdout, reason = "the result")]
fn main() -> Result<(), pgrad_nn::ShapeError> {
    let mut rng = Stream::new(1, 0, 0);
    let mut numbers = |n: usize| {
        let mut x = Aligned::<f32>::new(n);
        x.iter_mut().for_each(|x| *x = 0.1 * rng.normal() as f32);
        x
    };
    let (w, b, x, mut c) = (numbers(N * N), numbers(N), numbers(N * N), numbers(N * N));
    let (w, x) = (Mat::new(&w, N, N), Mat::new(&x, N, N));
    let flops = 2 * N * N * N;
    let product = least("product 64 x 64 x 64", flops, || matmul(&mut c, Write::Replace, w, x));
    least("layer 64-64, tanh, forward", flops, || matmul_then(&mut c, Write::Bias(&b), w, x, Then::Tanh));

    let heads = vec![Head::Linear { name: "logits", rows: 2, gain: 0.01 }];
    let net = Network::mlp(4, &[N, N], Activation::Tanh, heads)?;
    let theta: Vec<f32> = net.init(Init { orthogonal: true, span: None }, &mut Stream::new(2, 0, 0));
    let (obs, d_out) = (numbers(4 * N), numbers(2 * N));
    let (obs, d_out) = (Cols::new(&obs, 4, N), Cols::new(&d_out, 2, N));
    let (mut tape, mut gradient) = (net.tape(N), numbers(net.n_params()));
    let passes = N * (net.forward_flops() + net.vjp_flops());
    let pass = least("network 4-64-64-2, both ways", passes, || {
        net.forward(&theta, obs, &mut tape);
        net.vjp(&theta, obs, &mut tape, d_out, &mut gradient, None);
    });
    println!(
        "the pass runs at {:.0} % of the product",
        100.0 * passes as f64 / flops as f64 * product / pass
    );
    Ok(())
}
