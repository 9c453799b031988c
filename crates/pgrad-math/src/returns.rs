//! Ψ from rewards and values: what weighs `∇ log π(a_t|s_t)` (Schulman et al. 2016, section 2).
//!
//! # Inputs, the same everywhere: `[T, B]`, row `t` is step `t` of each of `B` environments
//! - `r[t]`: reward `r_t` received for `a_t`;
//! - `v[t]`: value `V(s_t)`;
//! - `v_next[t]`: value of what follows `a_t`: 0 where the path **terminated**, `V(final observation)` where
//!   it was **truncated**, `V(s_{t+1})` otherwise (on the last row too: the batch cuts the path there);
//! - `carry[t]`: 1 where row `t + 1` continues the path of row `t`, 0 where it starts another; the last row
//!   has no successor, so its `carry` is not read.
//!
//! With these two resolved there is one recursion for every kind of ending, and no `done` anywhere. A
//! *path* is what `carry` connects; its *tail* is the `v_next` of its last row.
//!
//! | function | Ψ of Schulman et al. 2016 | |
//! |---|---|---|
//! | [`total_return`] | 1 | the whole path's return, at every step |
//! | [`reward_to_go`] | 2; minus a baseline ([`subtract`]) 3 | [`discount`] weighs both from the start of the path |
//! | [`td_residual`] | 6 | |
//! | [`n_step`], [`lambda_return`] | estimates of `Q(s_t, a_t)`: 4; minus `v` 5 | |
//! | [`gae`] | 5 | λ = 0: [`td_residual`]; λ = 1: bootstrapped [`reward_to_go`] − `v` |
//! | [`vtrace`], [`one_step_advantage`] | off-policy | on-policy: [`lambda_return`] |
//!
//! # Panics
//! All arrays of one call have the same shape.

use pgrad_num::{Real, Tb, TbMut, kernels, simd};

fn same_shape<R: Real>(out: &TbMut<'_, R>, inputs: &[Tb<'_, R>]) {
    for i in inputs {
        assert_eq!((i.t(), i.b()), (out.t(), out.b()), "arrays of one call have the same [T, B]");
    }
}

/// Temporal-difference residual, `δ_t = r_t + γ v_next_t - V(s_t)`: estimates the advantage in one step
/// (Schulman et al. 2016, section 3).
///
/// # Panics
/// When shapes differ.
pub fn td_residual<R: Real>(
    r: Tb<'_, R>,
    v: Tb<'_, R>,
    v_next: Tb<'_, R>,
    gamma: R,
    mut delta: TbMut<'_, R>,
) {
    same_shape(&delta, &[r, v, v_next]);
    simd!(|| {
        let inputs = r.data().iter().zip(v.data()).zip(v_next.data());
        for (d, ((r, v), v_next)) in delta.data_mut().iter_mut().zip(inputs) {
            *d = gamma.mul_add(*v_next, *r) - *v;
        }
    });
}

/// Generalised advantage estimate, `A_t = Σ_{l≥0} (γλ)^l δ_{t+l}` over the rest of the path (Schulman et al.
/// 2016, Eq. 16).
///
/// Computed backwards as `A_t = δ_t + γ λ carry_t A_{t+1}`, `δ_t = r_t + γ v_next_t - v_t`. λ = 0 gives
/// [`td_residual`], λ = 1 the bootstrapped [`reward_to_go`] minus `v`; `A + v` is [`lambda_return`].
///
/// # Panics
/// When shapes differ.
pub fn gae<R: Real>(
    r: Tb<'_, R>,
    v: Tb<'_, R>,
    v_next: Tb<'_, R>,
    carry: Tb<'_, R>,
    gamma: R,
    lambda: R,
    mut adv: TbMut<'_, R>,
) {
    same_shape(&adv, &[r, v, v_next, carry]);
    td_residual(r, v, v_next, gamma, TbMut::new(adv.data_mut(), r.t(), r.b()));
    let decay = gamma * lambda;
    simd!(|| {
        for t in (0..r.t().saturating_sub(1)).rev() {
            let (now, next) = adv.row_and_next(t);
            for ((a, next), carry) in now.iter_mut().zip(next).zip(carry.row(t)) {
                *a = (decay * *carry).mul_add(*next, *a);
            }
        }
    });
}

/// λ-return, `G_t = r_t + γ [(1 - λ) v_next_t + λ G_{t+1}]` within a path, `r_t + γ v_next_t` on its last
/// row: the mixture `(1 - λ) Σ_{n≥1} λ^{n-1} G^{(n)}_t` of n-step returns, the longest one taking the
/// remaining weight (Sutton and Barto 2018, Eq. 12.2 and 12.3). Estimates `Q(s_t, a_t)`; the critic's target.
///
/// # Panics
/// When shapes differ.
pub fn lambda_return<R: Real>(
    r: Tb<'_, R>,
    v_next: Tb<'_, R>,
    carry: Tb<'_, R>,
    gamma: R,
    lambda: R,
    mut ret: TbMut<'_, R>,
) {
    same_shape(&ret, &[r, v_next, carry]);
    bootstrapped(r, v_next, gamma, &mut ret);
    simd!(|| {
        for t in (0..r.t().saturating_sub(1)).rev() {
            let (now, next) = ret.row_and_next(t);
            let inputs = v_next.row(t).iter().zip(carry.row(t));
            for ((g, next), (v_next, carry)) in now.iter_mut().zip(next).zip(inputs) {
                *g = (gamma * lambda * *carry).mul_add(*next - *v_next, *g);
            }
        }
    });
}

/// `ret = r + γ v_next`.
fn bootstrapped<R: Real>(r: Tb<'_, R>, v_next: Tb<'_, R>, gamma: R, ret: &mut TbMut<'_, R>) {
    simd!(|| {
        for ((g, r), v_next) in ret.data_mut().iter_mut().zip(r.data()).zip(v_next.data()) {
            *g = gamma.mul_add(*v_next, *r);
        }
    });
}

/// n-step return, `G_t = Σ_{k<m} γ^k r_{t+k} + γ^m v_next_{t+m-1}`, where `m` is the smaller of `n` and the
/// number of rows left in the path (Sutton and Barto 2018, Eq. 7.1). Estimates `Q(s_t, a_t)`.
///
/// `n = 1` gives `r + γ v_next`; `n ≥ T` gives [`lambda_return`] with λ = 1. Work: `O(n T B)`.
///
/// # Panics
/// When shapes differ or `n` is 0.
pub fn n_step<R: Real>(
    r: Tb<'_, R>,
    v_next: Tb<'_, R>,
    carry: Tb<'_, R>,
    gamma: R,
    n: usize,
    mut ret: TbMut<'_, R>,
) {
    same_shape(&ret, &[r, v_next, carry]);
    assert!(n > 0, "an n-step return needs at least one step");
    let b = r.b();
    simd!(|| {
        for t in 0..r.t() {
            let g = &mut ret.row_mut(t)[..b];
            let last = t.saturating_add(n).min(r.t()) - 1;
            for ((g, r), v_next) in g.iter_mut().zip(r.row(last)).zip(v_next.row(last)) {
                *g = gamma.mul_add(*v_next, *r);
            }
            for k in (t..last).rev() {
                let (r, v_next, carry) = (&r.row(k)[..b], &v_next.row(k)[..b], &carry.row(k)[..b]);
                for c in 0..b {
                    let ahead = if carry[c] == R::ZERO { v_next[c] } else { g[c] };
                    g[c] = gamma.mul_add(ahead, r[c]);
                }
            }
        }
    });
}

/// Discounted reward-to-go, `G_t = Σ_{k=0}^{m-1} γ^k r_{t+k} [+ γ^m tail]` over the `m` rows left in the path
/// (Ψ2 of Schulman et al. 2016 for γ = 1).
///
/// With `Some(v_next)` the tail is the `v_next` of the path's last row: 0 after a termination, and an
/// estimate of what was cut off after a truncation or at the end of the batch; no other row of `v_next` is
/// read. With `None` the sum simply stops, which is right for paths that terminated and too small for the
/// others: for methods without a critic.
///
/// # Panics
/// When shapes differ.
pub fn reward_to_go<R: Real>(
    r: Tb<'_, R>,
    v_next: Option<Tb<'_, R>>,
    carry: Tb<'_, R>,
    gamma: R,
    mut ret: TbMut<'_, R>,
) {
    same_shape(&ret, &[r, carry]);
    if let Some(v_next) = v_next {
        same_shape(&ret, &[v_next]);
    }
    let (rows, b) = (r.t(), r.b());
    simd!(|| {
        for t in (0..rows).rev() {
            let (head, next) = ret.data_mut().split_at_mut((t + 1) * b);
            let now = &mut head[t * b..];
            match v_next {
                Some(v_next) => now.copy_from_slice(v_next.row(t)),
                None => now.fill(R::ZERO),
            }
            if t + 1 < rows {
                for ((tail, next), carry) in now.iter_mut().zip(next).zip(carry.row(t)) {
                    *tail = if *carry == R::ZERO { *tail } else { *next };
                }
            }
            for (g, r) in now.iter_mut().zip(r.row(t)) {
                *g = gamma.mul_add(*g, *r);
            }
        }
    });
}

/// Total return, `G = Σ_k γ^k r_k [+ γ^m tail]` of the whole path, counted from its first row in the batch
/// and written to each of its rows (Ψ1 of Schulman et al. 2016 for γ = 1). The tail as in [`reward_to_go`].
///
/// # Panics
/// When shapes differ.
pub fn total_return<R: Real>(
    r: Tb<'_, R>,
    v_next: Option<Tb<'_, R>>,
    carry: Tb<'_, R>,
    gamma: R,
    mut ret: TbMut<'_, R>,
) {
    reward_to_go(r, v_next, carry, gamma, TbMut::new(ret.data_mut(), r.t(), r.b()));
    let b = r.b();
    simd!(|| {
        for t in 1..r.t() {
            let (before, now) = ret.data_mut().split_at_mut(t * b);
            let carried = before[(t - 1) * b..].iter().zip(carry.row(t - 1));
            for (g, (first, carry)) in now.iter_mut().zip(carried) {
                *g = if *carry == R::ZERO { *g } else { *first };
            }
        }
    });
}

/// V-trace targets and advantages (Espeholt et al. 2018, Eq. 1 and section 4.2), for data drawn by `μ` and a
/// policy `π`.
///
/// `vs_t = V(s_t) + Σ_{k≥0} γ^k (Π_{i<k} c_{t+i}) δ_{t+k}` over the rest of the path, with
/// `δ_t = ρ_t (r_t + γ v_next_t - V(s_t))`, `ρ_t = min(ρ̄, π/μ)`, `c_t = λ min(c̄, π/μ)`; backwards,
/// `vs_t - V(s_t) = δ_t + γ c_t carry_t (vs_{t+1} - V(s_{t+1}))`.
/// The advantage of the policy gradient is `ρ_t (r_t + γ vs_{t+1} - V(s_t))`, with `v_next_t` in place of
/// `vs_{t+1}` on the last row of a path. On-policy (`ratio = 1`, `ρ̄, c̄ ≥ 1`) `vs` is [`lambda_return`].
///
/// Inputs `[T, B]`; `ratio` is `π(a_t|s_t)/μ(a_t|s_t)`; `ρ̄ ≥ c̄` in the paper.
///
/// # Panics
/// When shapes differ.
pub fn vtrace<R: Real>(
    r: Tb<'_, R>,
    v: Tb<'_, R>,
    v_next: Tb<'_, R>,
    carry: Tb<'_, R>,
    ratio: Tb<'_, R>,
    gamma: R,
    lambda: R,
    rho_bar: R,
    c_bar: R,
    mut vs: TbMut<'_, R>,
    mut adv: TbMut<'_, R>,
) {
    same_shape(&vs, &[r, v, v_next, carry, ratio]);
    same_shape(&adv, &[r]);
    let (rows, b) = (r.t(), r.b());
    // Row t of `vs` first holds vs_t - V(s_t): what the recursion carries.
    simd!(|| {
        for t in (0..rows).rev() {
            let (head, next) = vs.data_mut().split_at_mut((t + 1) * b);
            let (now, adv) = (&mut head[t * b..][..b], &mut adv.row_mut(t)[..b]);
            let (r, v, v_next) = (&r.row(t)[..b], &v.row(t)[..b], &v_next.row(t)[..b]);
            let (ratio, carry) = (&ratio.row(t)[..b], &carry.row(t)[..b]);
            for c in 0..b {
                let delta = gamma.mul_add(v_next[c], r[c]) - v[c];
                now[c] = ratio[c].at_most(rho_bar) * delta;
                adv[c] = now[c];
            }
            if t + 1 < rows {
                let next = &next[..b];
                for c in 0..b {
                    // γ carry (vs_{t+1} - V(s_{t+1})); within a path V(s_{t+1}) is v_next_t.
                    let ahead = gamma * carry[c] * next[c];
                    now[c] = (lambda * ratio[c].at_most(c_bar)).mul_add(ahead, now[c]);
                    adv[c] = ratio[c].at_most(rho_bar).mul_add(ahead, adv[c]);
                }
            }
        }
        for (x, v) in vs.data_mut().iter_mut().zip(v.data()) {
            *x += *v;
        }
    });
}

/// The advantage that takes one step and then trusts the targets, `A_t = r_t + γ vs_{t+1} - V(s_t)`, with
/// `v_next_t` in place of `vs_{t+1}` on the last row of a path.
///
/// It is the advantage of [`vtrace`] without its weight `ρ_t` (`q_t - V(s_t)`, Espeholt et al. 2018, section
/// 4.2): for a surrogate that holds the ratio itself. On-policy, with the targets of λ = 1, it is [`gae`]
/// with λ = 1.
///
/// # Panics
/// When shapes differ.
pub fn one_step_advantage<R: Real>(
    r: Tb<'_, R>,
    v: Tb<'_, R>,
    v_next: Tb<'_, R>,
    carry: Tb<'_, R>,
    vs: Tb<'_, R>,
    gamma: R,
    mut adv: TbMut<'_, R>,
) {
    same_shape(&adv, &[r, v, v_next, carry, vs]);
    let (rows, b) = (r.t(), r.b());
    simd!(|| {
        for t in 0..rows {
            let last = t + 1 == rows;
            let adv = &mut adv.row_mut(t)[..b];
            let (r, v, v_next, carry) =
                (&r.row(t)[..b], &v.row(t)[..b], &v_next.row(t)[..b], &carry.row(t)[..b]);
            let follow = if last { v_next } else { &vs.row(t + 1)[..b] };
            for c in 0..b {
                let next = if carry[c] == R::ZERO { v_next[c] } else { follow[c] };
                adv[c] = gamma.mul_add(next, r[c]) - v[c];
            }
        }
    });
}

/// Shifts and scales to mean 0 and standard deviation 1, `(x - mean) / (std + 1e-8)`, and returns
/// `(mean, std)` of what it got. The standard deviation is that of the population (divided by `N`); sums
/// are in double precision. Equal numbers become 0; an empty slice stays as it is, with `(0, 0)`.
pub fn standardize<R: Real>(x: &mut [R]) -> (f64, f64) {
    if x.is_empty() {
        return (0.0, 0.0);
    }
    let n = x.len() as f64;
    let mean = kernels::sum(x) / n;
    let std = (kernels::sum_of_squares(x, mean) / n).sqrt();
    let (shift, scale) = (R::of(mean), R::of(1.0 / (std + 1e-8)));
    simd!(|| {
        for v in x.iter_mut() {
            *v = (*v - shift) * scale;
        }
    });
    (mean, std)
}

/// `out = a + b`: from advantages and values the value targets `V_t^targ = Â_t + V(s_t)`, which for `gae` are
/// the λ-returns.
///
/// # Panics
/// When the shapes differ.
pub fn add<R: Real>(a: Tb<'_, R>, b: Tb<'_, R>, mut out: TbMut<'_, R>) {
    same_shape(&out, &[a, b]);
    simd!(|| {
        for (o, (a, b)) in out.data_mut().iter_mut().zip(a.data().iter().zip(b.data())) {
            *o = *a + *b;
        }
    });
}

/// `out = a - b`: from returns and a baseline the weights `Ψ_t = G_t - b(s_t)` (Ψ3 of Schulman et al. 2016).
///
/// # Panics
/// When the shapes differ.
pub fn subtract<R: Real>(a: Tb<'_, R>, b: Tb<'_, R>, mut out: TbMut<'_, R>) {
    same_shape(&out, &[a, b]);
    simd!(|| {
        for (o, (a, b)) in out.data_mut().iter_mut().zip(a.data().iter().zip(b.data())) {
            *o = *a - *b;
        }
    });
}

/// Scales row `t` by `γ^k`, where `k` is the number of steps since the first row of its path in the batch:
/// with rewards-to-go the gradient of the discounted return from the start of the path (Sutton and Barto
/// 2018, section 13.3, box).
///
/// # Panics
/// When shapes differ.
pub fn discount<R: Real>(carry: Tb<'_, R>, gamma: R, mut psi: TbMut<'_, R>) {
    same_shape(&psi, &[carry]);
    for b in 0..carry.b() {
        let mut weight = R::ONE;
        for t in 0..carry.t() {
            psi.row_mut(t)[b] *= weight;
            weight = if carry.row(t)[b] == R::ZERO { R::ONE } else { weight * gamma };
        }
    }
}
