//! Values and gradients at one state, for methods that learn at every step.

use crate::Transition;
use pgrad_model::{ActorCritic, Critic};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut};

/// Values and gradients at one state of one environment.
#[derive(Debug)]
pub struct PointGradients {
    actor: NetworkTape<f32>,
    critic: Option<NetworkTape<f32>>,
    d_out: Vec<f32>,
    flops: u64,
}

impl PointGradients {
    /// For `model`, actor and critic of which are two networks (or which has no critic).
    ///
    /// # Panics
    /// With a shared trunk: the parameters of actor and critic have traces and step sizes of their own.
    #[must_use]
    pub fn new(model: &ActorCritic) -> Self {
        assert!(model.is_separate() || !model.has_critic(), "actor and critic are two networks");
        let outputs = model.actor().net.n_outputs().max(model.shape().critic_rows());
        Self {
            actor: model.actor().net.tape(1),
            critic: model.has_critic().then(|| model.critic().net.tape(1)),
            d_out: vec![0.0; outputs],
            flops: 0,
        }
    }
    /// Floating-point operations in matrix products since this was last asked.
    pub fn take_flops(&mut self) -> u64 {
        std::mem::take(&mut self.flops)
    }
    /// Writes `∇_θ log π_θ(a|s)` for the action of a transition, `[actor parameters]`; returns
    /// `log π_θ(a|s)` under the present parameters.
    ///
    /// # Panics
    /// When `score` has another length than the actor's parameters.
    pub fn score(&mut self, model: &ActorCritic, t: &Transition<'_>, score: &mut [f32]) -> f32 {
        let (part, dist) = (model.actor(), model.dist());
        self.flops += (part.net.forward_flops() + part.net.vjp_flops()) as u64;
        let d_out = &mut self.d_out[..dist.n_outputs()];
        let mut out = model.policy_outputs(t.obs, &mut self.actor);
        dist.prepare(out.reborrow(), t.mask);
        let mut logp = [0.0];
        dist.logp(out.as_cols(), t.action, &mut logp);
        d_out.fill(0.0);
        dist.logp_vjp(out.as_cols(), t.action, &[1.0], ColsMut::new(d_out, dist.n_outputs(), 1));
        score.fill(0.0);
        let theta = &model.theta[part.params.clone()];
        part.net.vjp(theta, t.obs, &mut self.actor, Cols::new(d_out, d_out.len(), 1), score, None);
        logp[0]
    }
    /// `Σ_a π_θ(a|s) Q_w(s, a)` over the alternatives that `mask` allows: the value of a state of which no
    /// action was drawn. Not finite when nothing is allowed.
    ///
    /// # Panics
    /// When the critic is not one of actions.
    pub fn expected_value(
        &mut self,
        model: &ActorCritic,
        obs: Cols<'_, f32>,
        mask: Option<Cols<'_, bool>>,
    ) -> f32 {
        assert_eq!(model.shape().critic, Critic::Action, "the critic tells of every action");
        self.flops += (model.actor().net.forward_flops() + model.value_flops()) as u64;
        let mut out = model.policy_outputs(obs, &mut self.actor);
        model.dist().prepare(out.reborrow(), mask);
        let tape = self.critic.as_mut();
        let q = model.values(obs, tape.unwrap_or_else(|| panic!("this model is a policy alone")));
        let logp = self.actor.outputs();
        let mean: f64 = logp.iter().zip(q).map(|(l, q)| f64::from(l.exp()) * f64::from(*q)).sum();
        mean as f32
    }
    /// The policy's raw outputs in `obs`, `[n_outputs]`.
    pub fn outputs<'t>(&'t mut self, model: &ActorCritic, obs: Cols<'_, f32>) -> &'t [f32] {
        self.flops += model.actor().net.forward_flops() as u64;
        model.policy_outputs(obs, &mut self.actor).into_data()
    }
    /// Writes `Σ_i c_i ∇_θ y_i(s)`, the gradient of the policy's raw outputs `y` in `obs` with cotangent `c`
    /// (`[n_outputs]`), `[actor parameters]`: `∇_θ Q_θ(s, a)` for a network of action values and `c` = 1 at
    /// `a`.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn output_gradient(
        &mut self,
        model: &ActorCritic,
        obs: Cols<'_, f32>,
        cotangent: &[f32],
        gradient: &mut [f32],
    ) {
        let part = model.actor();
        self.flops += (part.net.forward_flops() + part.net.vjp_flops()) as u64;
        model.policy_outputs(obs, &mut self.actor);
        gradient.fill(0.0);
        let (theta, d_out) = (&model.theta[part.params.clone()], Cols::new(cotangent, cotangent.len(), 1));
        part.net.vjp(theta, obs, &mut self.actor, d_out, gradient, None);
    }
    /// `V_w(s)`, or `Q_w(s, a)` of every action.
    ///
    /// # Panics
    /// When there is no critic.
    pub fn values<'t>(&'t mut self, model: &ActorCritic, obs: Cols<'_, f32>) -> &'t [f32] {
        self.flops += model.value_flops() as u64;
        let tape = self.critic.as_mut();
        model.values(obs, tape.unwrap_or_else(|| panic!("this model is a policy alone")))
    }
    /// Writes the gradient of output `i` of the critic in `obs` with respect to its parameters; returns the
    /// output: `∇_w V_w(s)` and `V_w(s)` for `i = 0`, or `∇_w Q_w(s, i)` and `Q_w(s, i)`.
    ///
    /// # Panics
    /// When there is no critic, no such output, or `gradient` has another length than the critic's
    /// parameters.
    pub fn value_gradient(
        &mut self,
        model: &ActorCritic,
        obs: Cols<'_, f32>,
        i: usize,
        gradient: &mut [f32],
    ) -> f32 {
        let value = self.values(model, obs)[i];
        let part = model.critic();
        self.flops += part.net.vjp_flops() as u64;
        let rows = model.shape().critic_rows();
        self.d_out[..rows].fill(0.0);
        self.d_out[i] = 1.0;
        gradient.fill(0.0);
        let (theta, d_out) = (&model.theta[part.params.clone()], Cols::new(&self.d_out[..rows], rows, 1));
        if let Some(tape) = &mut self.critic {
            part.net.vjp(theta, obs, tape, d_out, gradient, None);
        }
        value
    }
}
