//! The cross-entropy method. Rubinstein 1999; with noise, Szita and Lőrincz 2006, "Learning Tetris Using the Noisy
//! Cross-Entropy Method".
//!
//! Parameters are drawn from a Gaussian, `θ_i ~ N(μ, diag σ²)`, and each plays whole episodes. The best part of them,
//! the elite, gives the next Gaussian: `μ` their mean, `σ²` their variance plus a noise that fades. No gradient is
//! taken: the rival of TRPO in its Figure 4.

use crate::algorithm::{AlgoConfig, Algorithm, BuildError, Phase, PhaseObserver, Report, Setup};
use crate::common::ModelSettings;
use pgrad_agent::{ActorCritic, AgentError, Candidates, Critic, ObsNormalizer, Trunk};
use pgrad_env::{EnvSpec, Episode};
use pgrad_num::{Record, RecordError, Stream, Team};
use pgrad_settings::{Settings, above, settings};

/// Purpose number of the stream that candidates are drawn from.
const STREAM_CANDIDATES: u32 = 0x4345;

/// The registry's line.
pub const ENTRY: crate::AlgoEntry = crate::AlgoEntry {
    name: "cem",
    title: "Cross-entropy method over a policy's parameters",
    source: "Szita and Lőrincz 2006, Neural Computation 18",
    config: || Box::new(CemConfig::default()),
};

settings! {
    /// The cross-entropy method.
    pub struct CemSettings {
        /// Candidates of an iteration.
        population: usize = 100, range: 2..=1_000_000, unit: "candidates", source: "Szita and Lőrincz 2006, section 4";
        /// Part of them that makes the next Gaussian; at least two.
        elite_fraction: f64 = 0.1, range: 0.0..=1.0, source: "Szita and Lőrincz 2006, section 4";
        /// Whole episodes that each of them plays.
        episodes_per_candidate: usize = 1, range: 1..=65_536, unit: "episodes", source: "Szita and Lőrincz 2006, section 4";
        /// Standard deviation of the first Gaussian, around the network's first parameters.
        std_init: f64 = 1.0, range: above(0.0);
        /// Standard deviation of the noise that is added to the elite's variance at first.
        extra_std: f64 = 0.2, range: 0.0..=1e6, source: "Szita and Lőrincz 2006, section 3.2";
        /// Iterations in which that variance falls to zero, in a straight line.
        extra_iterations: usize = 25, range: 1..=1_000_000_000, unit: "iterations", source: "Szita and Lőrincz 2006, section 3.2";
    }
}

/// All settings of the cross-entropy method.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CemConfig {
    /// The algorithm.
    pub cem: CemSettings,
    /// The network.
    pub model: ModelSettings,
}

/// The cross-entropy method at work.
pub struct Cem {
    config: CemSettings,
    steps: u64,
    last_steps: u64,
    iterations: u64,
    /// A policy with the mean parameters, `μ`.
    model: ActorCritic,
    /// `σ` of each parameter.
    std: Vec<f64>,
    rng: Stream,
    candidates: Candidates,
    thetas: Vec<Vec<f32>>,
    scores: Vec<f64>,
    order: Vec<usize>,
    observer: PhaseObserver,
}

impl std::fmt::Debug for Cem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cem")
            .field("config", &self.config)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Algorithm for Cem {
    fn iterate(&mut self, team: &Team) -> Result<Report, AgentError> {
        let Self { config: c, model, std, rng, candidates, thetas, scores, order, observer, .. } = self;
        observer(Phase::Collect);
        for theta in thetas.iter_mut() {
            for ((x, mean), std) in theta.iter_mut().zip(&model.theta).zip(std.iter()) {
                *x = (f64::from(*mean) + std * rng.normal()) as f32; // θ_i ~ N(μ, σ²)
            }
        }
        self.last_steps = candidates.play(model, thetas, scores, team)?;
        observer(Phase::Learn);
        order.sort_unstable_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        let elite = &order[..c.elite()];
        let fading = 1.0 - self.iterations as f64 / c.extra_iterations as f64;
        let noise = c.extra_std * c.extra_std * fading.max(0.0);
        let n = elite.len() as f64;
        for (i, std) in std.iter_mut().enumerate() {
            let each = || elite.iter().map(|e| f64::from(thetas[*e][i]));
            let mean = each().sum::<f64>() / n;
            *std = (each().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n + noise).sqrt(); // σ
            model.theta[i] = mean as f32; // μ
        }
        self.steps += self.last_steps;
        self.iterations += 1;
        observer(Phase::Done);
        let mean_of = |all: &[usize]| all.iter().map(|i| scores[*i]).sum::<f64>() / all.len() as f64;
        Ok(Report::default()
            .with("learn/return_mean", mean_of(order))
            .with("learn/return_elite", mean_of(elite))
            .with("learn/return_worst_elite", scores[elite[elite.len() - 1]])
            .with("learn/std", std.iter().sum::<f64>() / std.len() as f64)
            .with("learn/extra_std", noise.sqrt()))
    }

    fn start(&mut self) -> Result<(), AgentError> {
        self.candidates.start()
    }
    fn observe_phases(&mut self, observer: PhaseObserver) {
        self.observer = observer;
    }
    fn learn_flops(&self) -> f64 {
        0.0
    }
    fn steps(&self) -> u64 {
        self.steps
    }
    fn steps_per_iteration(&self) -> u64 {
        self.last_steps.max(1)
    }
    fn spec(&self) -> &EnvSpec {
        self.candidates.spec()
    }
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
        Box::new(self.candidates.episodes())
    }
    fn obs_norm(&self) -> Option<&ObsNormalizer> {
        None
    }
    fn model(&self) -> &ActorCritic {
        &self.model
    }
    fn scale_step_size(&mut self, factor: f64) {
        self.std.iter_mut().for_each(|s| *s *= factor);
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.steps]);
        r.put("iterations", vec![self.iterations]);
        r.put("theta", self.model.theta.clone());
        r.put("std", self.std.clone());
        Stream::save_all(std::slice::from_ref(&self.rng), "stream", &mut r);
        r.put_record("candidates", self.candidates.save());
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let n = self.std.len();
        let (theta, std) = (from.f32s("theta", n)?, from.f64s("std", n)?);
        let bad = |name: &str, reason: &str| RecordError::Value { name: name.into(), reason: reason.into() };
        if !theta.iter().all(|x| x.is_finite()) {
            return Err(bad("theta", "a parameter is finite"));
        }
        if !std.iter().all(|x| x.is_finite() && *x >= 0.0) {
            return Err(bad("std", "a standard deviation is finite and not negative"));
        }
        self.model.theta.copy_from_slice(theta);
        self.std.copy_from_slice(std);
        self.steps = from.u64("steps")?;
        self.iterations = from.u64("iterations")?;
        Stream::load_all(std::slice::from_mut(&mut self.rng), "stream", from)?;
        self.candidates.load(&from.record("candidates"))
    }
}

impl CemSettings {
    /// Number of candidates that make the next Gaussian.
    fn elite(&self) -> usize {
        ((self.population as f64 * self.elite_fraction).round() as usize).clamp(2, self.population)
    }
}

impl AlgoConfig for CemConfig {
    fn parts(&self) -> Vec<&dyn Settings> {
        vec![&self.cem, &self.model]
    }
    fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
        vec![&mut self.cem, &mut self.model]
    }
    fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
        Box::new(self.clone())
    }
    fn check(&self, _env: &EnvSpec) -> Result<(), BuildError> {
        Ok(())
    }
    fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
        Ok(Box::new(Cem::new(self, setup)?))
    }
}

impl Cem {
    /// The cross-entropy method with its environments, not yet started.
    ///
    /// # Errors
    /// When settings do not fit together.
    pub fn new(config: &CemConfig, setup: &Setup<'_>) -> Result<Self, BuildError> {
        config.check(setup.spec)?;
        let c = &config.cem;
        let model = config.model.build(setup.spec, Critic::None, Trunk::Separate, setup.seed)?;
        let n = model.theta.len();
        Ok(Self {
            candidates: Candidates::new(
                c.population,
                c.episodes_per_candidate,
                setup.make_env,
                &model,
                setup.seed,
            )?,
            std: vec![c.std_init; n],
            rng: Stream::new(setup.seed, STREAM_CANDIDATES, 0),
            thetas: vec![vec![0.0; n]; c.population],
            scores: vec![0.0; c.population],
            order: (0..c.population).collect(),
            steps: 0,
            last_steps: 0,
            iterations: 0,
            config: c.clone(),
            observer: Box::new(drop),
            model,
        })
    }
}
