//! Nothing in this crate allocates.

use pgrad_math::{
    dist::{ActionDist, Actions, ActionsMut},
    returns, surrogate,
};
use pgrad_num::{Cols, ColsMut, Stream, Tb, TbMut};
use pgrad_testkit::{CountingAllocator, assert_allocates_nothing, random_vector};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn f32s(seed: u64, n: usize) -> Vec<f32> {
    random_vector(seed, n).iter().map(|x| *x as f32).collect()
}

#[test]
fn distributions_do_not_allocate() {
    let cols = 100;
    for dist in [
        ActionDist::Categorical { n: 3 },
        ActionDist::MultiCategorical { nvec: vec![2, 3] },
        ActionDist::Bernoulli { n: 3 },
        ActionDist::DiagGaussian { dim: 2 },
        ActionDist::Product {
            parts: vec![
                ActionDist::MultiCategorical { nvec: vec![2, 3] },
                ActionDist::Bernoulli { n: 3 },
                ActionDist::DiagGaussian { dim: 2 },
            ],
        },
    ] {
        let (n, masks) = (dist.n_outputs(), dist.mask_rows());
        let (index_rows, real_rows) = (dist.index_rows(), dist.real_rows());
        let (mut out, v, mut d) = (f32s(1, n * cols), f32s(2, n * cols), f32s(3, n * cols));
        let (w, mut x) = (f32s(4, cols), f32s(5, cols));
        let (mut index, mut real) = (vec![0u32; index_rows * cols], vec![0.0; real_rows * cols]);
        let mask = vec![true; masks * cols];
        let mut rngs: Vec<Stream> = (0..cols).map(|c| Stream::new(1, 0, c as u32)).collect();
        assert_allocates_nothing(|| {
            let mask = (masks > 0).then(|| Cols::new(&mask, masks, cols));
            dist.prepare(ColsMut::new(&mut out, n, cols), mask);
            let params = Cols::new(&out, n, cols);
            for sampling in [true, false] {
                let actions = ActionsMut {
                    index: ColsMut::new(&mut index, index_rows, cols),
                    real: ColsMut::new(&mut real, real_rows, cols),
                };
                if sampling {
                    dist.sample(params, &mut rngs, actions);
                } else {
                    dist.mode(params, actions);
                }
            }
            let actions = Actions {
                index: Cols::new(&index, index_rows, cols),
                real: Cols::new(&real, real_rows, cols),
            };
            dist.logp(params, actions, &mut x);
            dist.entropy(params, &mut x);
            dist.kl(params, params, &mut x);
            dist.logp_vjp(params, actions, &w, ColsMut::new(&mut d, n, cols));
            dist.entropy_vjp(params, &w, ColsMut::new(&mut d, n, cols));
            dist.logp_entropy_vjp(params, actions, &w, &w, ColsMut::new(&mut d, n, cols));
            dist.kl_vjp(params, params, &w, ColsMut::new(&mut d, n, cols));
            dist.fisher_mul(params, Cols::new(&v, n, cols), ColsMut::new(&mut d, n, cols));
        });
    }
}

#[test]
fn surrogates_and_returns_do_not_allocate() {
    let (t, b) = (10, 17);
    let (x, y, z) = (f32s(1, t * b), f32s(2, t * b), f32s(3, t * b));
    let carry = vec![1.0f32; t * b];
    let (mut o1, mut o2, mut o3) = (x.clone(), x.clone(), x.clone());
    assert_allocates_nothing(|| {
        surrogate::score(&x, &y, &mut o1, &mut o2);
        surrogate::ratio(&x, &y, &z, &mut o1, &mut o2, &mut o3);
        surrogate::clip(&x, &y, &z, 0.2, &mut o1, &mut o2, &mut o3);
        surrogate::kl_k1(&x, &y, &mut o1);
        surrogate::kl_k3(&x, &y, &mut o1);
        surrogate::squared(&x, &y, &mut o1, &mut o2);
        surrogate::squared_clipped(&x, &y, &z, 0.2, &mut o1, &mut o2);
        let (r, v, n, c) = (Tb::new(&x, t, b), Tb::new(&y, t, b), Tb::new(&z, t, b), Tb::new(&carry, t, b));
        returns::gae(r, v, n, c, 0.9, 0.9, TbMut::new(&mut o1, t, b));
        returns::lambda_return(r, n, c, 0.9, 0.9, TbMut::new(&mut o1, t, b));
        returns::n_step(r, n, c, 0.9, 3, TbMut::new(&mut o1, t, b));
        returns::total_return(r, Some(n), c, 0.9, TbMut::new(&mut o1, t, b));
        returns::vtrace(
            r,
            v,
            n,
            c,
            c,
            0.9,
            1.0,
            1.0,
            1.0,
            TbMut::new(&mut o1, t, b),
            TbMut::new(&mut o2, t, b),
        );
        returns::subtract(r, v, TbMut::new(&mut o1, t, b));
        returns::discount(c, 0.9, TbMut::new(&mut o1, t, b));
        returns::one_step_advantage(r, v, n, c, v, 0.9, TbMut::new(&mut o1, t, b));
        returns::standardize(&mut o1);
    });
}
