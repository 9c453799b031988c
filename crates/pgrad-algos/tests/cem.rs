//! The cross-entropy method against its definition on a task whose return is known: the candidates, the
//! elite, the next Gaussian; every setting; equal bits over threads and after a resume.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::cem::CemSettings;
use pgrad_algos::{AlgoConfig, Algorithm, CemConfig, Groups, Report, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    BatchResult, Each,
    probe::{ActionKind, ActionReward, ObservedActionReward},
    spec_of,
};
use pgrad_num::Stream;
use pgrad_settings::apply_pair;

fn config(pairs: &[&str]) -> CemConfig {
    let mut config = CemConfig::default();
    for pair in ["population=20", "elite_fraction=0.25", "hidden="].iter().chain(pairs) {
        apply_pair(pair, "test", &mut config.parts_mut()).unwrap();
    }
    config
}

fn build(pairs: &[&str], kind: ActionKind, observed: bool, threads: usize) -> Box<dyn Algorithm> {
    let make = |n| -> BatchResult {
        Ok(if observed {
            Box::new(Each::new(n, || ObservedActionReward::new(kind)))
        } else {
            Box::new(Each::new(n, || ActionReward::new(kind)))
        })
    };
    let setup = Setup {
        spec: &spec_of(&make).unwrap(),
        make_env: &make,
        seed: 4,
        total_steps: 1_000_000,
        cpu: Cpu::new(threads).unwrap(),
    };
    let mut cem = config(pairs).build(&setup).unwrap();
    cem.start().unwrap();
    cem
}

/// The method from its definition. One step an episode, observation 0: the action is the bias of the mean,
/// and the return `−(a − 2)²` with the action kept within ±4.
struct Slow {
    c: CemSettings,
    mean: Vec<f64>,
    std: Vec<f64>,
    rng: Stream,
    iteration: usize,
}

impl Slow {
    /// Parameters: the weight, the bias, the log-std. Returns the scores.
    fn iterate(&mut self) -> Vec<f64> {
        let candidates: Vec<Vec<f64>> = (0..self.c.population)
            .map(|_| {
                let each = self.mean.iter().zip(&self.std);
                each.map(|(m, s)| f64::from((m + s * self.rng.normal()) as f32)).collect()
            })
            .collect();
        let scores: Vec<f64> = candidates.iter().map(|t| -(t[1].clamp(-4.0, 4.0) - 2.0).powi(2)).collect();
        let mut ranked: Vec<usize> = (0..candidates.len()).collect();
        ranked.sort_by(|a, b| scores[*b].partial_cmp(&scores[*a]).unwrap());
        let elite = &ranked[..((self.c.population as f64 * self.c.elite_fraction).round() as usize).max(2)];
        let left = (1.0 - self.iteration as f64 / self.c.extra_iterations as f64).max(0.0);
        for i in 0..self.mean.len() {
            let values: Vec<f64> = elite.iter().map(|e| candidates[*e][i]).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            self.mean[i] = f64::from(mean as f32);
            self.std[i] = (variance + self.c.extra_std.powi(2) * left).sqrt();
        }
        self.iteration += 1;
        scores
    }
}

/// Runs both side by side for four iterations.
fn agrees(pairs: &[&str]) {
    let mut cem = build(pairs, ActionKind::Continuous, false, 1);
    let c = config(pairs).cem;
    let mean: Vec<f64> = cem.model().theta.iter().map(|x| f64::from(*x)).collect();
    assert_eq!(mean.len(), 3);
    let mut slow =
        Slow { std: vec![c.std_init; 3], mean, rng: Stream::new(4, 0x4345, 0), iteration: 0, c: c.clone() };
    for iteration in 1..=4u64 {
        let report = cem.iterate().unwrap();
        let scores = slow.iterate();
        assert_eq!(cem.steps(), iteration * (c.population * c.episodes_per_candidate) as u64);
        assert_eq!(cem.episodes().count(), c.population * c.episodes_per_candidate);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{pairs:?}: {a} {b}");
        close(report.get("learn/return_mean").unwrap(), scores.iter().sum::<f64>() / scores.len() as f64);
        let best = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
        assert!(report.get("learn/return_elite").unwrap() <= best + 1e-6);
        for i in 0..3 {
            close(f64::from(cem.model().theta[i]), slow.mean[i]);
            close(cem.save().f64s("std", 3).unwrap()[i], slow.std[i]);
        }
        // The next iteration of both starts from the same numbers.
        slow.mean = cem.model().theta.iter().map(|x| f64::from(*x)).collect();
        slow.std = cem.save().f64s("std", 3).unwrap().to_vec();
    }
}

/// A test for each setting, called like it, and the list of them.
macro_rules! settings_that_are_tested {
    ($($key:ident => $body:block)*) => {
        $(#[test] fn $key() $body)*
        const TESTED: &[&str] = &[$(stringify!($key)),*];
    };
}

settings_that_are_tested! {
    population => {
        agrees(&["population=7"]);
        agrees(&["population=50"]);
    }
    elite_fraction => {
        agrees(&["elite_fraction=0"]); // two
        agrees(&["elite_fraction=0.5"]);
        agrees(&["elite_fraction=1"]);
    }
    episodes_per_candidate => {
        agrees(&["episodes_per_candidate=3"]);
    }
    std_init => {
        agrees(&["std_init=0.1"]);
        agrees(&["std_init=3"]);
    }
    extra_std => {
        agrees(&["extra_std=0"]);
        agrees(&["extra_std=2"]);
    }
    extra_iterations => {
        agrees(&["extra_std=1", "extra_iterations=2"]); // none is left at the third
        agrees(&["extra_std=1", "extra_iterations=100"]);
    }
}

#[test]
fn no_setting_is_without_a_test() {
    let mut declared: Vec<&str> = config(&[]).parts()[0].declarations().iter().map(|s| s.key).collect();
    declared.sort_unstable();
    let mut tested = TESTED.to_vec();
    tested.sort_unstable();
    assert_eq!(tested, declared);
}

#[test]
fn threads_and_a_resume_do_not_change_a_bit() {
    for kind in [ActionKind::Discrete, ActionKind::Continuous] {
        let pairs = ["episodes_per_candidate=3", "hidden=4"];
        let run = |threads: usize, resume: bool| {
            let mut cem = build(&pairs, kind, true, threads);
            let mut reports: Vec<Report> = (0..3).map(|_| cem.iterate().unwrap()).collect();
            if resume {
                let saved = cem.save();
                cem = build(&pairs, kind, true, threads);
                assert!(cem.load(&saved).unwrap());
            }
            reports.extend((0..3).map(|_| cem.iterate().unwrap()));
            (
                cem.model().theta.iter().map(|x| x.to_bits()).collect::<Vec<u32>>(),
                format!("{reports:?}"),
                cem.steps(),
            )
        };
        let one = run(1, false);
        for (threads, resume) in [(2, false), (4, false), (1, true), (3, true)] {
            assert!(run(threads, resume) == one, "{threads} threads, resume {resume}");
        }
    }
}
