//! Advantage actor-critic with `N` environments in step. Mnih, Badia, Mirza, Graves, Lillicrap, Harley,
//! Silver, Kavukcuoglu 2016, arXiv:1602.01783, Algorithm S3; without the asynchrony as in OpenAI baselines,
//! a2c.
//!
//! For each iteration, run `π_θ` in `N` environments for `t_max` steps, `R ← r_i + γ R` backwards from
//! `R = V(s_t)` (0 after a terminal state), and take one step of RMSProp on all of it along
//!
//! `E[ ∇ log π_θ(a_i|s_i) (R_i − V(s_i)) + c₂ ∇S[π_θ](s_i) − c₁ ∇(R_i − V_θ(s_i))² ]`.

use crate::prelude::*;

/// A2C at work.
struct A2c {
    config: A2cConfig,
    minibatches: Minibatches,
    rmsprop: RmsProp<f32>,
}

impl Method for A2c {
    type Source = Collector;

    fn iterate(&mut self, agent: &mut Agent<Collector>) -> Result<Report, AgentError> {
        let Self { config, minibatches, rmsprop } = self;
        let c = &config.a2c;
        let alpha = agent.step_size(c.learning_rate, c.learning_rate_schedule);
        let objective = objective(c);

        let (batch, model, engine) = agent.collect()?; // run π_θ in N environments for t_max steps
        minibatches.follow(&batch);
        let mut data = estimate(config, engine, model, batch, 0)?; // R_i − V(s_i), and R_i
        let mut totals = Totals::default();
        let epochs = if c.advantage == Advantage::Vtrace { c.epochs } else { 1 };
        for epoch in 0..epochs {
            if epoch > 0 {
                data = estimate(config, engine, model, data.into_batch(), epoch)?;
            }
            let losses = engine.gradient(model, &data, minibatches.whole(epoch), &objective)?; // dθ
            totals.add(&losses);
            engine.step(model, rmsprop, alpha, &losses, c.max_grad_norm); // θ
            totals.step(&losses);
        }
        Ok(totals.report(&objective, &data, alpha))
    }

    state! { rmsprop }
}

/// `log π_θ(a_i|s_i) (R_i − V(s_i)) + c₂ S[π_θ](s_i) − c₁ (R_i − V_θ(s_i))²`.
fn objective(c: &A2cSettings) -> Objective<'static> {
    Objective {
        policy: Some(PolicyTerm::Score), // log π_θ(a_i|s_i) (R_i − V(s_i))
        value: Some(ValueTerm::Squared { c1: c.value_coef }), // c₁ (R_i − V_θ(s_i))²
        entropy: c.entropy_coef,         // c₂ S[π_θ](s_i)
        ..Objective::default()
    }
}

/// `R_i − V(s_i)`, and the critic's targets `R_i`, with the present parameters.
fn estimate<'a>(
    A2cConfig { rollout, a2c: c, .. }: &A2cConfig,
    engine: &mut Engine,
    model: &ActorCritic,
    batch: Batch<'a>,
    epoch: usize,
) -> Result<Estimated<'a>, AgentError> {
    let mut data = engine.values(model, batch)?; // V(s_i), and V of what follows
    if c.advantage == Advantage::Vtrace && epoch > 0 {
        engine.ratios(model, &mut data)?; // π_θ/μ
    }
    let (gamma, lambda) = (rollout.gamma as f32, c.lambda as f32);
    let (rho_bar, c_bar) = (c.rho_bar as f32, c.c_bar as f32);
    engine.estimate(data, |p| match c.advantage {
        Advantage::NStep => {
            let Paths { reward, v, v_next, carry, adv, mut ret, .. } = p;
            returns::reward_to_go(reward, Some(v_next), carry, gamma, ret.reborrow()); // R ← r_i + γ R
            returns::subtract(ret.as_tb(), v, adv);
        }
        Advantage::Gae => Psi::Gae.estimate(p, gamma, lambda),
        Advantage::LambdaReturn => Psi::LambdaReturn.estimate(p, gamma, lambda),
        Advantage::Vtrace => {
            let Paths { reward, v, v_next, carry, ratio, adv, ret } = p;
            // ρ_i (r_i + γ vs_{i+1} − V(s_i)), and vs_i: Espeholt et al. 2018, section 4.2.
            returns::vtrace(reward, v, v_next, carry, ratio, gamma, lambda, rho_bar, c_bar, ret, adv);
        }
    })
}

choice! {
    /// How advantages and the critic's targets are estimated.
    pub enum Advantage {
        /// The rewards up to the end of the rollout plus the value after it, minus V(s).
        NStep = "n-step",
        /// Generalised advantage estimation: the lambda-return minus V(s).
        Gae = "gae",
        /// The lambda-return itself, an estimate of Q(s, a), without subtracting V(s).
        LambdaReturn = "lambda-return",
        /// V-trace: several updates on the same rollout, each step back weighted by the ratio of the current
        /// policy to the one that acted.
        Vtrace = "vtrace",
    }
}

choice! {
    /// Which program's RMSProp divides the gradient.
    pub enum RmsPropForm {
        /// g / sqrt(v + epsilon), the mean square v from 1: TensorFlow, with which OpenAI baselines' a2c was
        /// run; the divisor of Mnih et al. 2016, Equation S3.
        TensorFlow = "tensorflow",
        /// g / (sqrt(v) + epsilon), v from 0: PyTorch, with which Stable-Baselines3's A2C is run. The first
        /// steps are longer, whatever the gradient, and small gradients count for more.
        PyTorch = "pytorch",
    }
}

impl From<RmsPropForm> for pgrad_optim::RmsPropForm {
    fn from(form: RmsPropForm) -> Self {
        match form {
            RmsPropForm::TensorFlow => Self::TensorFlow,
            RmsPropForm::PyTorch => Self::PyTorch,
        }
    }
}

settings! {
    /// Advantage actor-critic.
    pub struct A2cSettings {
        /// How advantages and the critic's targets are estimated.
        advantage: Advantage = Advantage::NStep, source: "Mnih et al. 2016, Algorithm S3";
        /// Trade-off between bias and variance of the advantages: 0 uses the one-step residual, 1 the full
        /// return.
        lambda: f64 = 0.95, range: 0.0..=1.0, source: "Schulman et al. 2016, section 6.3",
            when: advantage is "gae" | "lambda-return" | "vtrace";
        /// Update steps per rollout. From the second one on, the data are stale.
        epochs: usize = 2, range: 2..=1000, unit: "epochs", when: advantage is "vtrace";
        /// Truncation of the weight of a temporal difference, and of a step's gradient, in V-trace. A smaller
        /// value moves the learnt values from those of the current policy towards those of the policy that
        /// acted.
        rho_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
        /// Truncation of the weight that a step passes back to earlier steps in V-trace. A smaller value
        /// reduces variance and slows learning.
        c_bar: f64 = 1.0, range: above(0.0), source: "Espeholt et al. 2018, section 4.1",
            when: advantage is "vtrace";
        /// Step size of RMSProp.
        learning_rate: f64 = 7e-4, range: above(0.0), source: "OpenAI baselines, a2c";
        /// How `learning_rate` changes over the run.
        learning_rate_schedule: Schedule = Schedule::Linear, source: "OpenAI baselines, a2c";
        /// Decay of the mean of squared gradients in RMSProp.
        rmsprop_decay: f64 = 0.99, range: 0.0..=0.999_999, source: "OpenAI baselines, a2c";
        /// Which program's RMSProp: where epsilon stands, and where the mean square starts.
        rmsprop_form: RmsPropForm = RmsPropForm::TensorFlow, source: "OpenAI baselines, a2c";
        /// Bounds the divisor of RMSProp from below; `rmsprop_form` says where it is added.
        rmsprop_epsilon: f64 = 1e-5, range: above(0.0), source: "OpenAI baselines, a2c";
        /// Weight of the critic's squared error (c1).
        value_coef: f64 = 0.5, range: 0.0..=1e6, source: "OpenAI baselines, a2c";
        /// Weight of the entropy bonus (c2). A larger value keeps the policy more random.
        entropy_coef: f64 = 0.01, range: 0.0..=1e6, unit: "per nat", source: "OpenAI baselines, a2c";
        /// Maximum norm of the gradient over all parameters; longer gradients are scaled down to it.
        max_grad_norm: Option<f64> = Some(0.5), range: above(0.0), source: "OpenAI baselines, a2c";
    }
}

settings_like! {
    /// The rollout of A2C: data of one iteration.
    pub struct A2cRollout(RolloutSettings) {
        n_envs = 16, source: "OpenAI baselines, a2c";
        n_steps = 5, source: "Mnih et al. 2016, supplement";
        gamma, source: "Mnih et al. 2016, supplement";
    }
}

config! {
    name: "a2c", title: "Advantage actor-critic, environments in step",
    source: "Mnih et al. 2016, arXiv:1602.01783";
    /// All settings of A2C.
    pub struct A2cConfig {
        rollout: A2cRollout,
        a2c: A2cSettings,
        model: ModelSettings,
        recurrent: RecurrentSettings,
        trunk: TrunkSettings,
        normalize: NormalizeSettings,
    }
}

impl AlgoConfig for A2cConfig {
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        self.rollout.check(self.rollout.samples(), Some(&self.recurrent))
    }
    fn resolve(&mut self) {
        self.recurrent.resolve(self.rollout.n_steps, self.rollout.samples());
        self.rollout.resolve();
    }
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let (at, networks) = ((env, threads), (&self.model, Some(&self.recurrent), &self.trunk));
        // Parameters, gradient, mean squares.
        actor_critic_needs(at, &self.rollout, networks, self.rollout.samples(), (3, 2), false)
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let (c, networks) = (&self.a2c, (&self.model, Some(&self.recurrent), &self.trunk));
        let (agent, minibatches) =
            actor_critic(setup, &self.rollout, networks, &self.normalize, self.rollout.samples())?;
        let n = agent.model.theta.len();
        let rmsprop = RmsPropParams { decay: c.rmsprop_decay, epsilon: c.rmsprop_epsilon };
        let rmsprop = RmsProp::new(n, rmsprop, c.rmsprop_form.into());
        Ok(agent.runs(A2c { config: self.clone(), minibatches, rmsprop }))
    }
}
