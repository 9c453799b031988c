//! The Fisher matrix of a policy, applied and never formed.

use pgrad_math::dist::ActionDist;
use pgrad_nn::{Network, NetworkTape};
use pgrad_num::{Cols, ColsMut, Real, linop::LinOp};

/// `F = (1/n) Σ_s Jᵀ(s) F_out(s) J(s) + damping·I` of a policy at fixed parameters, for a batch of states.
///
/// `J` is the Jacobian of the network's outputs and `F_out` the Fisher matrix of the distribution with
/// respect to those outputs; at `θ = θ_old` the Hessian of the mean `KL(π_old ‖ π_θ)` is exactly `F`, so no
/// second derivative is needed (Kakade 2002; Martens 2020, section 9). One product costs a `jvp` and a `vjp`.
#[derive(Debug)]
pub struct PolicyMetric<'a, R: Real> {
    net: &'a Network,
    dist: &'a ActionDist,
    theta: &'a [R],
    x: Cols<'a, R>,
    /// The distribution's parameters at `θ`, prepared.
    params: Vec<R>,
    damping: R,
    tape: NetworkTape<R>,
    tangent: Vec<R>,
    cotangent: Vec<R>,
}

impl<'a, R: Real> PolicyMetric<'a, R> {
    /// The metric of the policy `dist(net(θ, x))` over the states `x`.
    #[must_use]
    pub fn new(net: &'a Network, dist: &'a ActionDist, theta: &'a [R], x: Cols<'a, R>, damping: R) -> Self {
        let mut tape = net.tape(x.cols());
        let mut out = net.forward(theta, x, &mut tape);
        dist.prepare(out.reborrow(), None);
        let params = out.into_data().to_vec();
        let n = params.len();
        Self {
            net,
            dist,
            theta,
            x,
            params,
            damping,
            tape,
            tangent: vec![R::ZERO; n],
            cotangent: vec![R::ZERO; n],
        }
    }
}

impl<R: Real> LinOp<R> for PolicyMetric<'_, R> {
    fn dim(&self) -> usize {
        self.net.n_params()
    }
    fn apply(&mut self, v: &[R], out: &mut [R]) {
        let (rows, n) = (self.dist.n_outputs(), self.x.cols());
        self.net.jvp(self.theta, self.x, &mut self.tape, v, ColsMut::new(&mut self.tangent, rows, n));
        let params = Cols::new(&self.params, rows, n);
        let tangent = Cols::new(&self.tangent, rows, n);
        self.dist.fisher_mul(params, tangent, ColsMut::new(&mut self.cotangent, rows, n));
        out.fill(R::ZERO);
        let cotangent = Cols::new(&self.cotangent, rows, n);
        self.net.vjp(self.theta, self.x, &mut self.tape, cotangent, out, None);
        let scale = R::of(1.0 / n as f64);
        for (o, v) in out.iter_mut().zip(v) {
            *o = *o * scale + self.damping * *v;
        }
    }
}
