//! The cross-entropy method. Rubinstein 1999; with noise, Szita and Lőrincz 2006, "Learning Tetris Using the
//! Noisy Cross-Entropy Method".
//!
//! Parameters are drawn from a Gaussian, `θ_i ~ N(μ, diag σ²)`, and each plays whole episodes. The best part
//! of them, the elite, gives the next Gaussian: `μ` their mean, `σ²` their variance plus a noise that fades.
//! No gradient is taken: the rival of TRPO in its Figure 4.

use crate::prelude::*;

/// Purpose number of the stream that candidates are drawn from.
const STREAM_CANDIDATES: u32 = 0x4345;

/// The cross-entropy method at work; the agent's policy has the mean parameters, `μ`.
struct Cem {
    config: CemSettings,
    iterations: u64,
    /// `σ` of each parameter.
    std: Vec<f64>,
    stream: Stream,
    thetas: Vec<Vec<f32>>,
    scores: Vec<f64>,
    order: Vec<usize>,
}

impl Method for Cem {
    type Source = Candidates;

    fn iterate(&mut self, agent: &mut Agent<Candidates>) -> Result<Report, AgentError> {
        let Self { config: c, iterations, std, stream, thetas, scores, order } = self;
        agent.phase(Phase::Collect);
        let Agent { model, source: candidates, .. } = agent;
        for theta in thetas.iter_mut() {
            for ((x, mean), std) in theta.iter_mut().zip(&model.theta).zip(std.iter()) {
                *x = (f64::from(*mean) + std * stream.normal()) as f32; // θ_i ~ N(μ, σ²)
            }
        }
        candidates.play(model, thetas, scores)?;
        let steps = candidates.steps();
        agent.count(steps);
        agent.phase(Phase::Learn);
        order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let elite = &order[..elite_size(c)];
        let fading = 1.0 - *iterations as f64 / c.extra_iterations as f64;
        let noise = c.extra_std * c.extra_std * fading.max(0.0);
        let n = elite.len() as f64;
        for (i, std) in std.iter_mut().enumerate() {
            let each = || elite.iter().map(|e| f64::from(thetas[*e][i]));
            let mean = each().sum::<f64>() / n;
            *std = (each().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n + noise).sqrt(); // σ
            agent.model.theta[i] = mean as f32; // μ
        }
        *iterations += 1;
        let mean_of = |all: &[usize]| all.iter().map(|i| scores[*i]).sum::<f64>() / all.len() as f64;
        Ok(Report::default()
            .with("learn/return_mean", mean_of(order))
            .with("learn/return_elite", mean_of(elite))
            .with("learn/return_worst_elite", scores[elite[elite.len() - 1]])
            .with("learn/std", std.iter().sum::<f64>() / std.len() as f64)
            .with("learn/extra_std", noise.sqrt()))
    }
    fn shrink(&mut self, factor: f64) {
        self.std.iter_mut().for_each(|s| *s *= factor);
    }

    state! { iterations, std, stream }
}

/// Number of candidates that make the next Gaussian.
fn elite_size(c: &CemSettings) -> usize {
    ((c.population as f64 * c.elite_fraction).round() as usize).clamp(2, c.population)
}

settings! {
    /// The cross-entropy method.
    pub struct CemSettings {
        /// Number of candidates per iteration.
        population: usize = 100, range: 2..=1_000_000, unit: "candidates", source: "Szita and Lőrincz 2006, section 4";
        /// Fraction of the candidates that the next Gaussian is fitted to; at least two of them.
        elite_fraction: f64 = 0.1, range: 0.0..=1.0, source: "Szita and Lőrincz 2006, section 4";
        /// Complete episodes played by each candidate.
        episodes_per_candidate: usize = 1, range: 1..=65_536, unit: "episodes", source: "Szita and Lőrincz 2006, section 4";
        /// Standard deviation of the initial Gaussian, which is centred on the network's initial parameters.
        std_init: f64 = 1.0, range: above(0.0);
        /// Initial standard deviation of the noise added to the elite's variance.
        extra_std: f64 = 0.2, range: 0.0..=1e6, source: "Szita and Lőrincz 2006, section 3.2";
        /// Number of iterations over which the variance of that noise falls linearly to zero.
        extra_iterations: usize = 25, range: 1..=1_000_000_000, unit: "iterations", source: "Szita and Lőrincz 2006, section 3.2";
    }
}

config! {
    name: "cem", title: "Cross-entropy method over a policy's parameters",
    source: "Szita and Lőrincz 2006, Neural Computation 18";
    /// All settings of the cross-entropy method.
    pub struct CemConfig {
        cem: CemSettings,
        model: ModelSettings,
    }
}

impl AlgoConfig for CemConfig {
    fn needs(&self, env: &EnvSpec, threads: usize) -> Result<Needs, BuildError> {
        let (c, model) = (&self.cem, self.model.build(env, Critic::None, Trunk::Separate, None)?);
        let sizes = Sizes::new(&model, env, c.population * c.episodes_per_candidate, threads);
        // Mean, and a deviation in double precision.
        Ok(sizes.vectors(3, 3).candidates(c.population).all())
    }
    fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        let c = &self.cem;
        let model = self.model.build(setup.spec, Critic::None, Trunk::Separate, setup.seed)?;
        let (n, make) = (model.theta.len(), setup.make_env);
        let candidates =
            Candidates::new(c.population, c.episodes_per_candidate, make, &model, setup.seed, &setup.cpu)?;
        let cem = Cem {
            config: c.clone(),
            iterations: 0,
            std: vec![c.std_init; n],
            stream: Stream::new(setup.seed, STREAM_CANDIDATES, 0),
            thetas: vec![vec![0.0; n]; c.population],
            scores: vec![0.0; c.population],
            order: (0..c.population).collect(),
        };
        Ok(Agent::new(setup, model, candidates).runs(cem))
    }
}
