//! Variance and bias of the gradient estimate under every choice of Ψ, on the same trajectories of a fixed
//! policy.
//!
//! All estimates are of one thing, the gradient of the discounted return from the start,
//! `∇J = E[Σ_t γ^t Ψ_t ∇log π(a_t|s_t)]`, so that forms 1 to 3 of Schulman et al. 2016 have the same mean. An
//! estimate is that of one episode. With `d` the difference of an estimate to that of form 3 with the
//! converged critic, on the same episode, `|bias|²` is estimated without bias by `|mean d|² − tr Cov(d) / n`.

use crate::{Bench, Csv, Findings, Measurement, Quantity, Source, StudyError, number};
use pgrad_collect::{Collector, EpisodesShape};
use pgrad_draw::plot::{Line, PlotOptions, Scale, render_lines_svg};
use pgrad_engine::{Cpu, Engine, Minibatch, Minibatches, Objective, PolicyTerm, ValueTerm};
use pgrad_math::{returns, surrogate};
use pgrad_model::{ActorCritic, Role};
use pgrad_optim::{Adam, AdamParams};
use pgrad_run::{config::RunConfig, trainer::Trainer};
use serde::Deserialize;

/// Seeds of what is played for the critic and for the measurement: far from those of training.
const CRITIC_SEED: u64 = 1_000_003;
const MEASURE_SEED: u64 = 2_000_003;
/// Samples of a minibatch of the critic's regression, and passes over a batch of episodes.
const MINIBATCH: usize = 256;
const EPOCHS: usize = 4;

/// What is measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Variance {
    gamma: f64,
    /// Episodes of the measurement.
    episodes: usize,
    /// Batches of 16 episodes that the critic is fitted to.
    critic_batches: usize,
    /// After so many of them the imperfect critic is taken.
    imperfect_after: usize,
    /// λ of the generalised advantage estimates; below 1.
    lambdas: Vec<f64>,
    /// Lengths of the n-step advantages.
    n_steps: Vec<usize>,
    tasks: Vec<Task>,
}

/// A task, and how its policy comes about.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    env: String,
    algo: String,
    steps: u64,
    settings: toml::Table,
}

/// What weighs `∇ log π`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Psi {
    /// Forms 1, 2, 3, 4 (by one step) and 6.
    Form(u8),
    /// Form 5.
    NStep(usize),
    /// Form 5.
    Gae(f64),
}

impl Psi {
    fn name(self) -> String {
        match self {
            Self::Form(n) => format!("form {n}"),
            Self::NStep(n) => format!("n = {n}"),
            Self::Gae(lambda) => format!("lambda = {lambda}"),
        }
    }
    /// Whether it looks at a critic before the end of the path.
    fn has_critic(self) -> bool {
        !matches!(self, Self::Form(1 | 2))
    }
    /// How far it looks: steps until a reward counts for a third, or not at all.
    fn horizon(self) -> f64 {
        match self {
            Self::Form(_) => f64::NAN,
            Self::NStep(n) => n as f64,
            Self::Gae(lambda) => 1.0 / (1.0 - lambda),
        }
    }
    fn write(self, p: pgrad_engine::Paths<'_>, gamma: f32) {
        let (r, v, v_next, carry, mut psi, mut ret) = (p.reward, p.v, p.v_next, p.carry, p.adv, p.ret);
        match self {
            // Where a time limit cut an episode, what the critic says was cut off: for all forms the same.
            Self::Form(1) => returns::total_return(r, Some(v_next), carry, gamma, psi.reborrow()),
            Self::Form(2) => returns::reward_to_go(r, Some(v_next), carry, gamma, psi.reborrow()),
            Self::Form(4) => returns::n_step(r, v_next, carry, gamma, 1, psi.reborrow()),
            Self::Form(6) => returns::td_residual(r, v, v_next, gamma, psi.reborrow()),
            Self::Form(_) => {
                returns::reward_to_go(r, Some(v_next), carry, gamma, ret.reborrow());
                returns::subtract(ret.as_tb(), v, psi.reborrow());
            }
            Self::NStep(n) => {
                returns::n_step(r, v_next, carry, gamma, n, ret.reborrow());
                returns::subtract(ret.as_tb(), v, psi.reborrow());
            }
            Self::Gae(lambda) => returns::gae(r, v, v_next, carry, gamma, lambda as f32, psi.reborrow()),
        }
        // Form 1 counts from the start of the path already.
        if self != Self::Form(1) {
            returns::discount(carry, gamma, psi);
        }
    }
}

/// Running sums of an estimate and of its difference to the reference.
struct Sums {
    psi: Psi,
    imperfect: bool,
    g: Vec<f64>,
    g2: f64,
    d: Vec<f64>,
    d2: f64,
}

/// What came of an estimate.
struct Found {
    psi: Psi,
    imperfect: bool,
    variance: f64,
    bias2: f64,
    /// `|mean d|² / (tr Cov(d) / n)`: 1 on average when there is no bias.
    noise_ratio: f64,
}

impl Sums {
    fn add(&mut self, g: &[f32], reference: &[f32]) {
        for (i, (g, r)) in g.iter().zip(reference).enumerate() {
            let (g, d) = (f64::from(*g), f64::from(*g) - f64::from(*r));
            self.g[i] += g;
            self.g2 += g * g;
            self.d[i] += d;
            self.d2 += d * d;
        }
    }
    fn found(&self, n: f64) -> Found {
        let square = |sum: &[f64]| sum.iter().map(|x| (x / n).powi(2)).sum::<f64>();
        let covariance = |sum2: f64, mean2: f64| (sum2 - n * mean2) / (n - 1.0);
        let (mean, off) = (square(&self.g), square(&self.d));
        let noise = covariance(self.d2, off) / n;
        Found {
            psi: self.psi,
            imperfect: self.imperfect,
            variance: covariance(self.g2, mean),
            bias2: off - noise,
            noise_ratio: if noise > 0.0 { off / noise } else { f64::NAN },
        }
    }
}

fn failed(reason: impl std::fmt::Display) -> StudyError {
    StudyError::Measure { reason: reason.to_string() }
}

impl Task {
    fn config(&self) -> Result<RunConfig, StudyError> {
        let mut config = RunConfig::new(&self.algo, &self.env).map_err(failed)?;
        let text = toml::to_string(&self.settings).map_err(failed)?;
        config.apply_toml(&text, &self.env).map_err(failed)?;
        config.run.steps = self.steps;
        config.check().map_err(failed)?;
        Ok(config)
    }
    /// The policy, with the critic that it was trained with.
    fn train(&self, threads: usize) -> Result<ActorCritic, StudyError> {
        let mut trainer = Trainer::new(self.config()?, threads).map_err(failed)?;
        while !trainer.is_done() {
            trainer.iterate().map_err(failed)?;
        }
        let algo = trainer.algorithm();
        let model = algo.model();
        if algo.obs_norm().is_some() || !model.is_separate() || model.critic().net.n_outputs() != 1 {
            return Err(failed("the policy has a critic of states of its own and does not normalise"));
        }
        Ok(model.clone())
    }
    fn collector(
        &self,
        model: &ActorCritic,
        k: usize,
        seed: u64,
        cpu: &Cpu,
    ) -> Result<Collector, StudyError> {
        let config = self.config()?;
        let shape = EpisodesShape { n_envs: k, n_episodes: k, envs_per_shard: 4, bootstrap_truncated: true };
        let make = |n| config.make_env(n);
        let mut collector =
            Collector::episodes(shape, make, model, (None, None), seed, cpu).map_err(failed)?;
        collector.start().map_err(failed)?;
        Ok(collector)
    }
}

impl Variance {
    fn psis(&self) -> Vec<Psi> {
        let forms = [1, 2, 3, 4, 6].map(Psi::Form);
        let n_steps = self.n_steps.iter().map(|n| Psi::NStep(*n));
        forms.into_iter().chain(n_steps).chain(self.lambdas.iter().map(|l| Psi::Gae(*l))).collect()
    }

    /// The policy with a critic that was fitted to its returns for a while, and for long; the share of the
    /// returns' variance that each explains.
    fn critics(
        &self,
        task: &Task,
        bench: &Bench<'_>,
        cpu: &Cpu,
    ) -> Result<[(ActorCritic, f64); 2], StudyError> {
        let mut model = task.train(cpu.threads())?;
        let mut collector = task.collector(&model, 16, CRITIC_SEED, cpu)?;
        let mut engine = Engine::new(cpu)
            .with_values(&model, collector.spec(), 4)
            .with_critic_gradients(&model, MINIBATCH);
        let mut minibatches = Minibatches::new(0, MINIBATCH, CRITIC_SEED);
        let mut adam = Adam::new(model.critic().params.len(), AdamParams::default());
        let objective = Objective { value: Some(ValueTerm::Squared { c1: 0.5 }), ..Objective::default() };
        let mut imperfect = (model.clone(), f64::NAN);
        let mut explained = f64::NAN;
        for batch in 0..=self.critic_batches {
            if bench.stopped() {
                return Err(StudyError::Stopped);
            }
            let data = engine.values(&model, collector.collect(&model).map_err(failed)?).map_err(failed)?;
            let gamma = self.gamma as f32;
            let targets = |p: pgrad_engine::Paths<'_>| {
                returns::reward_to_go(p.reward, Some(p.v_next), p.carry, gamma, p.ret);
            };
            let data = engine.estimate(data, targets).map_err(failed)?;
            // Of episodes that it has not seen.
            explained = data.explained_variance();
            if batch == self.imperfect_after {
                imperfect = (model.clone(), explained);
            }
            if batch == self.critic_batches {
                break;
            }
            let alpha = 3e-3 * (1.0 - batch as f64 / self.critic_batches as f64);
            minibatches.resize(data.len());
            for epoch in 0..EPOCHS {
                for minibatch in minibatches.shuffled(epoch) {
                    engine.gradient(&model, &data, minibatch, &objective).map_err(failed)?;
                    engine.step_network(&mut model, Role::Critic, &mut adam, alpha, None);
                }
            }
        }
        Ok([(model, explained), imperfect])
    }

    fn estimates(
        &self,
        task: &Task,
        critics: &[(ActorCritic, f64); 2],
        bench: &mut Bench<'_>,
        cpu: &Cpu,
        at: (usize, usize),
    ) -> Result<(Vec<Found>, f64, f64), StudyError> {
        let model = &critics[0].0;
        let part = model.actor().params.clone();
        let mut collector = task.collector(model, 1, MEASURE_SEED, cpu)?;
        let mut engine =
            Engine::new(cpu).with_values(model, collector.spec(), 4).with_gradients(model, usize::MAX);
        // Uphill: `Σ Ψ ∇log π`.
        let score = |p: pgrad_engine::PolicyChunk<'_>| {
            let [value, d_logp, ..] = p.work;
            surrogate::score(p.logp, p.adv, value, d_logp);
            p.dist.logp_vjp(p.params, p.actions, d_logp, p.d_out);
        };
        let objective = Objective { policy: Some(PolicyTerm::Custom(&score)), ..Objective::default() };
        let sums = |imperfect: bool| {
            self.psis().into_iter().filter(move |p| !imperfect || p.has_critic()).map({
                let n = part.len();
                move |psi| Sums { psi, imperfect, g: vec![0.0; n], g2: 0.0, d: vec![0.0; n], d2: 0.0 }
            })
        };
        let mut all: Vec<Sums> = sums(false).chain(sums(true)).collect();
        let (mut samples, mut steps, mut reference) = (Vec::new(), 0, vec![0.0; part.len()]);
        let gamma = self.gamma as f32;
        for episode in 0..self.episodes {
            if bench.stopped() {
                return Err(StudyError::Stopped);
            }
            if episode % 50 == 0 {
                bench.progress(at.0 * self.episodes + episode, at.1 * self.episodes, 0, 0);
            }
            collector.collect(model).map_err(failed)?.write_order(&mut samples);
            steps += samples.len();
            let mut estimate = |psi: Psi, critic: &ActorCritic, collector: &mut Collector| {
                let data = engine.values(critic, collector.batch()).map_err(failed)?;
                let data = engine.estimate(data, |p| psi.write(p, gamma)).map_err(failed)?;
                let all = Minibatch::whole(&samples, 0);
                engine.gradient(critic, &data, all, &objective).map_err(failed)?;
                Ok::<_, StudyError>(engine.descent()[part.clone()].to_vec())
            };
            reference.copy_from_slice(&estimate(Psi::Form(3), &critics[0].0, &mut collector)?);
            for s in &mut all {
                let critic = &critics[usize::from(s.imperfect)].0;
                let g = estimate(s.psi, critic, &mut collector)?;
                s.add(&g, &reference);
            }
        }
        let n = self.episodes as f64;
        let found: Vec<Found> = all.iter().map(|s| s.found(n)).collect();
        let third = all.iter().find(|s| s.psi == Psi::Form(3) && !s.imperfect);
        let variance = found.iter().find(|f| f.psi == Psi::Form(3)).map_or(f64::NAN, |f| f.variance);
        let norm2 =
            third.map_or(f64::NAN, |s| s.g.iter().map(|x| (x / n).powi(2)).sum::<f64>()) - variance / n;
        Ok((found, norm2, steps as f64 / n))
    }
}

/// Names of the ratios that are measured on every task.
const RATIOS: [&str; 6] = [
    "variance of form 2 over form 1",
    "variance of form 3 over form 2",
    "variance of form 6 over form 3",
    "mean of form 1 off form 3, in noise",
    "mean of form 2 off form 3, in noise",
    "bias of form 6, imperfect over converged critic",
];

impl Measurement for Variance {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        let wrong = |message: &str| Err(source.error(0, message));
        if self.episodes < 2 || self.tasks.is_empty() || self.n_steps.contains(&0) {
            return wrong("a variance needs two episodes, a task, and n-step returns of one step at least");
        }
        if self.imperfect_after >= self.critic_batches {
            return wrong("`imperfect_after` is below `critic_batches`");
        }
        if !(0.0..=1.0).contains(&self.gamma) || !self.lambdas.iter().all(|l| (0.0..1.0).contains(l)) {
            return wrong("`gamma` is in [0, 1] and every one of `lambdas` in [0, 1)");
        }
        self.lambdas.sort_by(f64::total_cmp);
        self.n_steps.sort_unstable();
        for task in &self.tasks {
            task.config()?;
        }
        Ok(())
    }
    fn quantities(&self) -> Vec<String> {
        self.tasks.iter().flat_map(|t| RATIOS.map(|r| format!("{}: {r}", t.env))).collect()
    }
    fn extent(&self) -> String {
        format!("{} tasks, {} estimates, {} episodes", self.tasks.len(), self.psis().len(), self.episodes)
    }
    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        let cpu = Cpu::new(bench.threads).map_err(StudyError::Threads)?;
        let mut findings = Findings::default();
        let mut rows = Vec::new();
        for (i, task) in self.tasks.iter().enumerate() {
            let critics = self.critics(task, bench, &cpu)?;
            let at = (i, self.tasks.len());
            let (found, norm2, length) = self.estimates(task, &critics, bench, &cpu, at)?;
            let get = |psi: Psi, imperfect: bool| {
                found.iter().find(|f| f.psi == psi && f.imperfect == imperfect).ok_or(())
            };
            let of =
                |n: u8, imperfect: bool| get(Psi::Form(n), imperfect).map_err(|()| failed("no such form"));
            let ratios = [
                of(2, false)?.variance / of(1, false)?.variance,
                of(3, false)?.variance / of(2, false)?.variance,
                of(6, false)?.variance / of(3, false)?.variance,
                of(1, false)?.noise_ratio,
                of(2, false)?.noise_ratio,
                of(6, true)?.bias2 / of(6, false)?.bias2,
            ];
            for (name, value) in RATIOS.iter().zip(ratios) {
                findings.quantities.push(Quantity::estimated(format!("{}: {name}", task.env), value));
            }
            findings.text += &format!(
                "### {}\n\nEpisodes of {length:.0} steps. Of the variance of the returns the converged critic explains \
                 {:.3}, the imperfect one {:.3}. Variance of the estimate of one episode and its squared bias, both \
                 over the squared length of the gradient ({}):\n\n\
                 | Ψ | variance | bias², converged critic | variance, imperfect critic | bias², imperfect critic |\n\
                 |---|---|---|---|---|\n",
                task.env,
                critics[0].1,
                critics[1].1,
                number(norm2)
            );
            for psi in self.psis() {
                let cell = |imperfect| match get(psi, imperfect) {
                    Ok(f) => (number(f.variance / norm2), number(f.bias2 / norm2)),
                    Err(()) => ("".into(), "".into()),
                };
                let ((v, b), (vi, bi)) = (cell(false), cell(true));
                findings.text += &format!("| {} | {v} | {b} | {vi} | {bi} |\n", psi.name());
            }
            findings.text += "\n";
            rows.extend(found.iter().map(|f| {
                vec![
                    task.env.clone(),
                    f.psi.name(),
                    if f.imperfect { "imperfect" } else { "converged" }.to_owned(),
                    f.variance.to_string(),
                    f.bias2.to_string(),
                    f.noise_ratio.to_string(),
                    norm2.to_string(),
                ]
            }));
            findings.pictures.extend(self.pictures(task, &found, norm2)?);
        }
        let header = vec!["env", "psi", "critic", "variance", "bias2", "noise_ratio", "gradient2"];
        findings.results = Some(Csv { header, rows });
        Ok(findings)
    }
}

impl Variance {
    /// Variance and bias over the horizon, a picture each.
    fn pictures(
        &self,
        task: &Task,
        found: &[Found],
        norm2: f64,
    ) -> Result<Vec<(String, String)>, StudyError> {
        let horizons = || found.iter().map(|f| f.psi.horizon()).filter(|h| h.is_finite());
        let (low, high) = (horizons().fold(f64::INFINITY, f64::min), horizons().fold(1.0, f64::max));
        let mut pictures = Vec::new();
        for (what, file, of) in [
            ("variance", "variance", (|f| f.variance) as fn(&Found) -> f64),
            ("squared bias", "bias", |f| f.bias2),
        ] {
            let mut lines = Vec::new();
            if file == "variance" {
                for form in 1..=3 {
                    let value = found.iter().find(|f| f.psi == Psi::Form(form)).map_or(f64::NAN, of) / norm2;
                    let label = ["1: total return", "2: reward-to-go", "3: minus V(s), converged"];
                    let label = label[usize::from(form) - 1].to_owned();
                    lines.push(Line { label, points: vec![(low, value), (high, value)], band: Vec::new() });
                }
            }
            for imperfect in [false, true] {
                for gae in [true, false] {
                    let family = |f: &&Found| {
                        f.imperfect == imperfect
                            && matches!((f.psi, gae), (Psi::Gae(_), true) | (Psi::NStep(_), false))
                    };
                    let critic = if imperfect { "imperfect V" } else { "converged V" };
                    let label = format!("{}, {critic}", if gae { "GAE" } else { "n-step" });
                    let points: Vec<(f64, f64)> = found
                        .iter()
                        .filter(family)
                        .map(|f| (f.psi.horizon(), of(f) / norm2))
                        .filter(|(_, y)| *y > 0.0)
                        .collect();
                    if !points.is_empty() {
                        lines.push(Line { label, points, band: Vec::new() });
                    }
                }
            }
            let options = PlotOptions {
                title: format!("{}: {what} of the gradient of one episode", task.env),
                x_label: "steps that the advantage looks ahead: n, or 1/(1 - lambda)".into(),
                y_label: format!("{what} / squared length of the gradient"),
                x_scale: Scale::Log10,
                y_scale: Scale::Log10,
                ..PlotOptions::default()
            };
            let name = task.env.replace('/', "-");
            pictures.push((format!("{file}-{name}.svg"), render_lines_svg(&lines, &options)?));
        }
        Ok(pictures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three estimates of two numbers, by hand. The estimates are (5, 1), (7, 2), (9, 6): mean (7, 3),
    /// squared distances from it 4 + 4, 0 + 1, 4 + 9, so the trace of the covariance is 22 / 2 = 11. Their
    /// differences to the reference are (1, 0), (2, 0), (3, 3): mean (2, 1), of squared length 5; the trace
    /// of their covariance is (2 + 6) / 2 = 4, and that of their mean 4 / 3.
    #[test]
    fn variance_and_bias_are_about_the_mean() {
        let mut sums =
            Sums { psi: Psi::Form(2), imperfect: false, g: vec![0.0; 2], g2: 0.0, d: vec![0.0; 2], d2: 0.0 };
        for (g, reference) in [([5.0, 1.0], [4.0, 1.0]), ([7.0, 2.0], [5.0, 2.0]), ([9.0, 6.0], [6.0, 3.0])] {
            sums.add(&g, &reference);
        }
        let found = sums.found(3.0);
        assert!((found.variance - 11.0).abs() < 1e-12, "{}", found.variance);
        assert!((found.bias2 - (5.0 - 4.0 / 3.0)).abs() < 1e-12, "{}", found.bias2);
        assert!((found.noise_ratio - 3.75).abs() < 1e-12, "{}", found.noise_ratio);
    }
}
