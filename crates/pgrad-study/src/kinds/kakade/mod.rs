//! Natural against vanilla gradient flows, exact, and the same gradients from samples.
//!
//! Two tasks, both solved in closed form, so that `θ' = ∇J(θ)` (vanilla) and `θ' = (F(θ) + ε I)⁻¹ ∇J(θ)`
//! (natural) are ordinary differential equations:
//!
//! - [`KakadeMdp`] with `π(stay | s) = σ(θ_s)`, one number a state; `J = η`, the average reward; `F` the mean
//!   of `∇log π ∇log πᵀ` under the stationary distribution, diagonal;
//! - [`KakadeLqg`] with `π(u | x) ∝ exp(θ₁ s₁ u² + θ₂ s₂ x u)`, `s` the scales of the parameters; `J` minus
//!   the mean cost of a step; `F` the mean over the steps of a trajectory.
//!
//! The third part draws trajectories with pgrad's own pieces (network, distribution, score, reward-to-go,
//! [`PolicyMetric`](pgrad_engine::PolicyMetric), conjugate gradient) and compares gradient, Fisher matrix and
//! natural gradient with the exact ones, component by component.
//!
//! Source: S. Kakade, "A natural policy gradient", NIPS 14 (2002), sections 3 to 5.

mod exact;
mod sampled;

use super::flow::{self, Point};
use crate::{Bench, Csv, Findings, Measurement, Quantity, SEED_LIMIT, Source, StudyError, number};
use exact::{LqgExponents, Mdp};
use pgrad_draw::plot::{Line, PlotOptions, Scale, render_lines_svg};
use pgrad_envs::{KakadeLqg, KakadeMdp};
use sampled::{Compared, compare, lqg_case, mdp_case};
use serde::Deserialize;
use toml::Spanned;

/// Longest time of a flow.
const MAX_TIME: f64 = 1e12;

/// What is measured, from the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kakade {
    two_state: Spanned<TwoState>,
    lqg: Spanned<LqgFlow>,
    sampled: Spanned<Sampled>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TwoState {
    /// First probabilities of staying in `i` and in `j`.
    stay: [f64; 2],
    /// Average reward to reach.
    target_reward: f64,
    /// `ε` of the natural gradient.
    damping: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LqgFlow {
    /// First `θ₁ s₁` and `θ₂ s₂`.
    start: [f64; 2],
    /// Each `s₁, s₂`.
    scales: Vec<[f64; 2]>,
    /// Cost of 20 steps to reach.
    target_cost: f64,
    /// `ε` of the natural gradient.
    damping: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampled {
    /// Seed of the first batch.
    first_seed: u64,
    /// Batches.
    batches: u64,
    /// Trajectories of a batch.
    trajectories: usize,
    /// `ε` of the natural gradient.
    damping: f64,
}

/// A flow with its name.
struct Flow {
    label: String,
    points: Vec<Point>,
}

impl Flow {
    fn time(&self) -> f64 {
        self.points.last().map_or(f64::NAN, |p| p.0)
    }
    fn line(&self, value: impl Fn([f64; 2]) -> f64) -> Line {
        let points = self.points.iter().map(|(t, x)| (*t, value(*x))).collect();
        Line { label: self.label.clone(), points, band: vec![] }
    }
}

impl Kakade {
    /// The flows of the two-state task: natural, vanilla.
    fn two_state_flows(&self) -> Result<[Flow; 2], StudyError> {
        let TwoState { stay, target_reward, damping } = *self.two_state.get_ref();
        let start = stay.map(|p| (p / (1.0 - p)).ln());
        let run = |label: &str, f: &dyn Fn(&Mdp) -> [f64; 2]| {
            let margin = |theta| Mdp::at(theta).eta - target_reward;
            let points = flow::until(|theta| f(&Mdp::at(theta)), start, margin, MAX_TIME)
                .map_err(|why| StudyError::Measure { reason: format!("two states, {label}: {why}") })?;
            Ok::<Flow, StudyError>(Flow { label: label.to_owned(), points })
        };
        Ok([run("natural", &|m| m.natural(damping))?, run("vanilla", &|m| m.gradient)?])
    }
    /// The flows of the linear-quadratic task: for each pair of scales natural, vanilla.
    fn lqg_flows(&self) -> Result<Vec<[Flow; 2]>, StudyError> {
        let LqgFlow { start, scales, target_cost, damping } = self.lqg.get_ref();
        let run = |name: &str, s: [f64; 2], damping: Option<f64>| {
            let label = format!("{name}, scales {} and {}", s[0], s[1]);
            let at = |theta: [f64; 2]| LqgExponents::at([theta[0] * s[0], theta[1] * s[1]]);
            let from = [start[0] / s[0], start[1] / s[1]];
            let margin = |theta| target_cost - at(theta).cost;
            let points = flow::until(|theta| at(theta).flow(s, damping), from, margin, MAX_TIME)
                .map_err(|why| StudyError::Measure { reason: format!("LQG, {label}: {why}") })?;
            let exponents = |(t, x): &Point| (*t, [x[0] * s[0], x[1] * s[1]]);
            Ok::<Flow, StudyError>(Flow { label, points: points.iter().map(exponents).collect() })
        };
        scales.iter().map(|s| Ok([run("natural", *s, Some(*damping))?, run("vanilla", *s, None)?])).collect()
    }
}

impl Measurement for Kakade {
    fn check(&mut self, source: &Source<'_>) -> Result<(), StudyError> {
        let wrong = |at: usize, what: &str| Err(source.error(at, what));
        let at = self.two_state.span().start;
        let TwoState { stay, target_reward, damping } = *self.two_state.get_ref();
        if !stay.iter().all(|p| *p > 0.0 && *p < 1.0) {
            return wrong(at, "`stay` are two probabilities between 0 and 1");
        }
        let eta = Mdp::at(stay.map(|p| (p / (1.0 - p)).ln())).eta;
        let best = KakadeMdp::STAY[1];
        if !(target_reward > eta && target_reward < best) {
            let range =
                format!("`target_reward` is between the first average reward, {eta}, and the best, {best}");
            return wrong(at, &range);
        }
        let at_lqg = self.lqg.span().start;
        let lqg = self.lqg.get_ref();
        let at_sampled = self.sampled.span().start;
        let sampled = *self.sampled.get_ref();
        for (at, damping) in [(at, damping), (at_lqg, lqg.damping), (at_sampled, sampled.damping)] {
            if !(damping >= 0.0 && damping.is_finite()) {
                return wrong(at, "`damping` is finite and at least 0");
            }
        }
        if !(lqg.start[0] < 0.0 && lqg.start.iter().all(|x| x.is_finite())) {
            return wrong(
                at_lqg,
                "`start` are two finite numbers, the first negative: minus the inverse of 2 σ²",
            );
        }
        if lqg.scales.is_empty() || !lqg.scales.iter().flatten().all(|s| *s > 0.0 && s.is_finite()) {
            return wrong(at_lqg, "`scales` are pairs of numbers above 0");
        }
        let (cost, best) = (LqgExponents::at(lqg.start).cost, KakadeLqg::HORIZON as f64);
        if !(lqg.target_cost > best && lqg.target_cost < cost) {
            let range = format!("`target_cost` is between the best cost, {best}, and the first, {cost}");
            return wrong(at_lqg, &range);
        }
        let last = sampled.first_seed.checked_add(sampled.batches);
        if sampled.batches < 2 || last.is_none_or(|last| last > SEED_LIMIT) {
            return wrong(at_sampled, "`batches` is at least 2, and seeds stay below a million million");
        }
        if sampled.trajectories == 0 || sampled.damping == 0.0 {
            // Logits have a direction in which nothing changes.
            return wrong(at_sampled, "`trajectories` is at least 1, and `damping` here is above 0");
        }
        Ok(())
    }

    fn quantities(&self) -> Vec<String> {
        let mut names: Vec<String> = [
            "two states: natural time",
            "two states: vanilla time",
            "two states: vanilla over natural time",
            "two states: natural least probability of j",
            "two states: natural least probability of a state",
            "two states: vanilla least probability of j",
            "LQG: first cost",
            "LQG: natural time, least",
            "LQG: natural time, greatest",
            "LQG: natural time, spread",
        ]
        .map(str::to_owned)
        .to_vec();
        for s in &self.lqg.get_ref().scales {
            names.push(format!("LQG: vanilla over natural time, scales {} and {}", s[0], s[1]));
        }
        for case in ["two states", "LQG"] {
            for part in ["gradient", "Fisher", "natural gradient"] {
                names.push(format!("{case}: sampled {part}, largest distance"));
            }
        }
        names
    }

    fn extent(&self) -> String {
        let sampled = self.sampled.get_ref();
        format!("{} flows, {} batches", 2 + 2 * self.lqg.get_ref().scales.len(), 2 * sampled.batches)
    }

    fn has_seeds(&self) -> bool {
        true
    }

    fn measure(&self, bench: &mut Bench<'_>) -> Result<Findings, StudyError> {
        let mut rows = Vec::new();
        let mut row = |task: &str, curve: &str, what: &str, at: f64, value: f64| {
            let cells = [task.to_owned(), curve.replace(',', ";"), what.to_owned(), at.to_string()];
            rows.push(cells.into_iter().chain([value.to_string()]).collect());
        };

        let two = self.two_state_flows()?;
        for flow in &two {
            for (t, theta) in &flow.points {
                let m = Mdp::at(*theta);
                row("two states", &flow.label, "average reward", *t, m.eta);
                row("two states", &flow.label, "probability of j", *t, m.rho[1]);
            }
        }
        let least = |flow: &Flow, of: &dyn Fn(Mdp) -> f64| {
            flow.points.iter().map(|p| of(Mdp::at(p.1))).fold(f64::INFINITY, f64::min)
        };
        let lqg = self.lqg_flows()?;
        for flow in lqg.iter().flatten() {
            for (t, exponents) in &flow.points {
                row("LQG", &flow.label, "cost", *t, LqgExponents::at(*exponents).cost);
            }
        }
        let times: Vec<f64> = lqg.iter().map(|pair| pair[0].time()).collect();
        let (low, high) =
            times.iter().fold((f64::INFINITY, 0.0), |(l, h), t| (f64::min(l, *t), f64::max(h, *t)));
        let [natural, vanilla] = &two;
        let mut values = vec![
            natural.time(),
            vanilla.time(),
            vanilla.time() / natural.time(),
            least(natural, &|m| m.rho[1]),
            least(natural, &|m| m.rho[0].min(m.rho[1])),
            least(vanilla, &|m| m.rho[1]),
            LqgExponents::at(self.lqg.get_ref().start).cost,
            low,
            high,
            (high - low) / (high + low),
        ];
        values.extend(lqg.iter().map(|pair| pair[1].time() / pair[0].time()));
        let computed = values.len();

        let Sampled { first_seed, batches, trajectories, damping } = *self.sampled.get_ref();
        let batches = bench.seeds.map_or(batches, |n| n.min(batches));
        if batches < 2 {
            return Err(StudyError::Measure { reason: "a standard error needs two batches at least".into() });
        }
        let cases =
            [mdp_case(self.two_state.get_ref().stay, damping)?, lqg_case(self.lqg.get_ref().start, damping)?];
        let mut text = format!(
            "Sampled: {batches} batches of {trajectories} trajectories, gradient of the return of a trajectory \
             (100 steps, 20 steps), {damping} I added to F; distances in standard errors over the batches.\n\n\
             | task | what | component | exact | sampled | standard error | distance |\n|---|---|--:|--:|--:|--:|--:|\n"
        );
        for case in &cases {
            let found =
                bench.map(batches as usize, |i| case.sample(trajectories, first_seed + i as u64, damping))?;
            let compared = compare(&case.exact, &found);
            for (part, _) in case.exact.parts() {
                let worst = compared.iter().filter(|c| c.part == part).map(Compared::z).fold(0.0, f64::max);
                values.push(worst);
            }
            for c in &compared {
                row(case.name, c.part, "sampled mean", c.index as f64, c.mean);
                // The whole of a Fisher matrix is in the file.
                if c.part != "Fisher" {
                    text += &format!(
                        "| {} | {} | {} | {} | {} | {} | {:.2} |\n",
                        case.name,
                        c.part,
                        c.index,
                        number(c.exact),
                        number(c.mean),
                        number(c.error),
                        c.z()
                    );
                }
            }
        }
        let quantity = |(i, (name, value))| {
            if i < computed { Quantity::exact(name, value) } else { Quantity::estimated(name, value) }
        };
        Ok(Findings {
            quantities: self.quantities().into_iter().zip(values).enumerate().map(quantity).collect(),
            results: Some(Csv { header: vec!["task", "curve", "what", "at", "value"], rows }),
            text,
            pictures: self.pictures(&two, &lqg)?,
        })
    }
}

impl Kakade {
    fn pictures(&self, two: &[Flow; 2], lqg: &[[Flow; 2]]) -> Result<Vec<(String, String)>, StudyError> {
        let options = |title: &str, y_label: &str| PlotOptions {
            title: title.to_owned(),
            x_label: "time of the flow".to_owned(),
            y_label: y_label.to_owned(),
            x_scale: Scale::Log10,
            ..PlotOptions::default()
        };
        let lines = |value: &dyn Fn([f64; 2]) -> f64| two.iter().map(|f| f.line(value)).collect::<Vec<_>>();
        let reward = PlotOptions {
            threshold: Some((self.two_state.get_ref().target_reward, "target".to_owned())),
            ..options("Two states: average reward", "average reward")
        };
        let rho = PlotOptions {
            y_scale: Scale::Log10,
            ..options("Two states: part of the time in j", "stationary probability of j")
        };
        let cost = PlotOptions {
            threshold: Some((self.lqg.get_ref().target_cost, "target".to_owned())),
            ..options("LQG: cost of 20 steps", "cost")
        };
        let costs: Vec<Line> = lqg.iter().flatten().map(|f| f.line(|x| LqgExponents::at(x).cost)).collect();
        Ok(vec![
            ("two-states-reward.svg".into(), render_lines_svg(&lines(&|x| Mdp::at(x).eta), &reward)?),
            ("two-states-probability.svg".into(), render_lines_svg(&lines(&|x| Mdp::at(x).rho[1]), &rho)?),
            ("lqg-cost.svg".into(), render_lines_svg(&costs, &cost)?),
        ])
    }
}

#[cfg(test)]
mod tests {
    use crate::{AnyStudy, KINDS};

    const TEXT: &str = include_str!("../../../../../studies/kakade.toml");

    #[test]
    fn wrong_parameters_are_refused_with_their_line() {
        let read = |text: &str| AnyStudy::parse_with(text, "k.toml", "k", KINDS);
        assert!(read(TEXT).is_ok());
        for (right, wrong, expected) in [
            ("stay = [0.8, 0.1]", "stay = [0.8, 1.1]", "`stay` are two probabilities"),
            ("stay = [0.8, 0.1]", "stay = [0.8]", "expected an array of length 2"),
            ("target_reward = 1.9", "target_reward = 2.1", "`target_reward` is between"),
            ("damping = 1e-3", "damping = -1.0", "`damping` is finite and at least 0"),
            ("damping = 1e-3", "dampng = 1e-3", "did you mean `damping`?"),
            ("start = [-0.8, -0.8]", "start = [0.8, -0.8]", "the first negative"),
            ("[1.0, 10.0]", "[0.0, 10.0]", "`scales` are pairs"),
            ("target_cost = 22.0", "target_cost = 19.0", "`target_cost` is between the best cost, 20,"),
            ("batches = 20", "batches = 1", "`batches` is at least 2"),
            ("trajectories = 2000", "trajectories = 0", "`trajectories` is at least 1"),
        ] {
            assert!(TEXT.contains(right), "{right}");
            let e = read(&TEXT.replacen(right, wrong, 1)).unwrap_err().to_string();
            assert!(e.contains(expected) && e.starts_with("k.toml:"), "{wrong}: {e}");
        }
    }
}
