//! All actor-learners of a run.

use super::{
    learner::{ActorLearner, Exploration, Sums},
    recording::{comparable, read_recording},
    settings::{AsyncSettings, AsyncValueSettings},
    shared::Shared,
};
use crate::{
    algorithm::{BuildError, Phase, Report, Reproducible, Setup},
    common::load_finite,
    shell::{Agent, Source},
};
use pgrad_collect::{Stepper, Turns};
use pgrad_engine::{Cpu, Segment, SegmentPasses};
use pgrad_env::{EnvSpec, Episode, MakeError};
use pgrad_model::{ActorCritic, AgentError, Clipping, tensors};
use pgrad_num::{Array, Record, RecordError, SharedCounter, SharedVec, Stream};
use pgrad_optim::Hogwild;
use pgrad_settings::Settings;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// Purpose number of the streams that the values of ε are drawn from.
const STREAM_EPSILON: u32 = 6;
/// Episodes of one actor-learner in an iteration that there is room for without asking for memory.
const EPISODES: usize = 1 << 16;

/// The actor-learners of a run.
pub(crate) struct ActorLearners {
    settings: AsyncSettings,
    /// What a recording says of the run.
    note: String,
    shared: Arc<Shared>,
    learners: Vec<ActorLearner>,
    spec: EnvSpec,
    cpu: Cpu,
}

impl ActorLearners {
    /// Actor-learners at rest. `parts` are all settings of the method, `recording` the file of
    /// [`AsyncSettings::file`].
    pub(crate) fn new(
        settings: &AsyncSettings,
        values: Option<&AsyncValueSettings>,
        parts: &[&dyn Settings],
        recording: Option<&[u8]>,
        model: &ActorCritic,
        setup: &Setup<'_>,
    ) -> Result<Self, BuildError> {
        let (n, spec) = (settings.workers, setup.spec.clone());
        let threads = setup.cpu.threads();
        if threads < n {
            let reason = format!("each of them is a thread, and there are {threads}");
            return Err(BuildError::setting("workers", &n, reason));
        }
        let note = format!(
            "env = {:?}\nseed = {}\nsteps = {}\n{}",
            spec.id,
            setup.seed,
            setup.total_steps,
            comparable(parts)
        );
        let turns = match (settings.record, recording) {
            (true, _) => Turns::record(),
            (false, Some(bytes)) => {
                let wrong = |reason| settings.refuse_recording(reason);
                let (turns, theirs) = read_recording(bytes).map_err(wrong)?;
                if let Some((a, b)) = theirs.lines().zip(note.lines()).find(|(a, b)| a != b) {
                    return Err(wrong(format!("it was recorded with `{a}`, but this run uses `{b}`")));
                }
                Turns::replay(turns, n)
            }
            (false, None) => Turns::free(),
        };
        let shared = Arc::new(Shared {
            theta: SharedVec::new(&model.theta),
            rule: Hogwild::new(model.theta.len(), settings.rule()),
            target: values.map(|_| (SharedVec::new(&model.theta), SharedCounter::default())),
            target_steps: values.map_or(1, |v| v.target_steps),
            frames: SharedCounter::default(),
            updates: SharedCounter::default(),
            goal: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            turns,
            learning_rate: settings.learning_rate,
            schedule: settings.learning_rate_schedule.into(),
            total_steps: setup.total_steps,
            step_scale: AtomicU64::new(1.0f64.to_bits()),
        });
        let episodes = EPISODES.min(settings.steps_per_iteration as usize + settings.n_steps);
        let n_outputs = model.dist().n_outputs();
        let learner = |number: usize| -> Result<ActorLearner, MakeError> {
            let exploration = values.map(|settings| {
                let mut stream = Stream::new(setup.seed, STREAM_EPSILON, number as u32);
                let end = settings.draw(&mut stream);
                let (column, pi) = (vec![0.0; n_outputs], vec![0.0; n_outputs]);
                Exploration { settings: settings.clone(), stream, end, column, pi }
            });
            Ok(ActorLearner {
                number,
                bootstrap_time_limit: settings.bootstrap_time_limit,
                max_grad_norm: settings.max_grad_norm.unwrap_or(f64::INFINITY),
                target: if values.is_some() { model.theta.clone() } else { Vec::new() },
                target_version: None,
                stepper: Stepper::numbered(number, 1, setup.make_env, model, setup.seed, episodes)?,
                segment: Segment::new(&spec, settings.n_steps),
                passes: SegmentPasses::new(model, settings.n_steps),
                d_theta: vec![0.0; model.theta.len()],
                d_logp: vec![0.0; settings.n_steps],
                d_entropy: vec![0.0; settings.n_steps],
                d_v: vec![0.0; settings.n_steps],
                pi_next: vec![0.0; n_outputs],
                own: shared.rule.own(),
                exploration,
                copied_at: 0,
                frames: 0,
                sums: Sums::default(),
                lost: 0,
                outcome: Ok(()),
                model: model.clone(),
                shared: Arc::clone(&shared),
            })
        };
        Ok(Self {
            learners: (0..n).map(learner).collect::<Result<_, _>>()?,
            settings: settings.clone(),
            note,
            shared,
            spec,
            cpu: setup.cpu.clone(),
        })
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        self.learners.iter().for_each(|w| sums.merge(&w.sums));
        sums
    }
    /// Means over the steps of the last iteration.
    pub(crate) fn means(&self) -> Sums {
        let mut means = self.sums();
        let n = means.steps as f64;
        let Sums { epsilon, error, squared_error, value, objective, entropy, .. } = &mut means;
        [epsilon, error, squared_error, value, objective, entropy].into_iter().for_each(|x| *x /= n);
        means
    }
    /// Adds what all asynchronous methods report of the last iteration.
    pub(crate) fn report(&self, report: Report) -> Report {
        let s = self.sums();
        let updates = s.updates as f64;
        let stale = |bin: usize| s.stale_bins[bin] as f64 / updates;
        report
            .with("learn/grad_norm", s.grad_norm / updates)
            .with("learn/learning_rate", self.shared.alpha(self.shared.frames.get()))
            .with("learn/updates", updates)
            .with("learn/reproducible", f64::from(self.reproducible() != Reproducible::No))
            .with("learn/staleness_mean", s.stale as f64 / updates)
            .with("learn/staleness_max", s.stale_max as f64)
            .with("learn/staleness_0", stale(0))
            .with("learn/staleness_1", stale(1))
            .with("learn/staleness_2", stale(2))
            .with("learn/staleness_3", stale(3))
            .with("learn/staleness_4_to_7", stale(4))
            .with("learn/staleness_8_up", stale(5))
    }
}

impl Agent<ActorLearners> {
    /// One iteration: `thread` on a thread for each actor-learner, from the model's parameters on, which then
    /// are the shared ones.
    ///
    /// # Errors
    /// What stopped one of them; the others were stopped then.
    pub(crate) fn run(
        &mut self,
        thread: impl Fn(&mut ActorLearner) -> Result<(), AgentError> + Sync,
    ) -> Result<(), AgentError> {
        self.phase(Phase::Learn);
        let scale = self.step_scale();
        let Self { model, engine, source, .. } = self;
        let ActorLearners { shared, learners, settings, cpu, .. } = source;
        shared.theta.write(&model.theta);
        shared.step_scale.store(scale.to_bits(), Relaxed);
        shared.goal.store(shared.frames.get() + settings.steps_per_iteration, Relaxed);
        shared.failed.store(false, Relaxed);
        shared.turns.begin();
        for w in learners.iter_mut() {
            w.stepper.clear_episodes();
            w.sums = Sums::default();
        }
        cpu.each(learners, |_, w| {
            let outcome = catch_unwind(AssertUnwindSafe(|| thread(w)));
            w.outcome = outcome.unwrap_or_else(|payload| Err(w.panic(&*payload)));
            if w.outcome.is_err() {
                shared.failed.store(true, Relaxed);
            }
        });
        for w in learners {
            engine.count_flops(w.sums.flops + w.passes.take_flops());
            std::mem::replace(&mut w.outcome, Ok(()))
                .map_err(|cause| AgentError::Worker { worker: w.number, cause: Box::new(cause) })?;
        }
        shared.theta.read(&mut model.theta);
        let steps = shared.frames.get();
        self.count(steps - self.steps());
        Ok(())
    }
}

impl Source for ActorLearners {
    fn start(&mut self) -> Result<(), AgentError> {
        self.learners.iter_mut().try_for_each(|w| w.stepper.start())
    }
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
        Box::new(self.learners.iter().flat_map(|w| w.stepper.episodes()))
    }
    fn steps_per_iteration(&self) -> u64 {
        self.settings.steps_per_iteration
    }
    fn lost_steps(&self) -> u64 {
        self.learners.iter().map(|w| w.lost).sum()
    }
    fn take_clipping(&mut self) -> Clipping {
        Clipping::sum(self.learners.iter_mut().map(|w| w.stepper.take_clipping()))
    }
    fn reproducible(&self) -> Reproducible {
        match (self.settings.workers, self.settings.file(), self.settings.record) {
            (1, ..) | (_, Some(_), _) => Reproducible::Yes,
            (_, None, true) => Reproducible::ByRecording,
            (_, None, false) => Reproducible::No,
        }
    }
    fn recording(&self) -> Option<Vec<u8>> {
        let mut record = Record::new();
        record.put("turns", self.shared.turns.recorded()?);
        tensors::seal(&record, &self.note).ok()
    }
    fn save(&self) -> Record {
        let mut r = Record::new();
        r.put("steps", vec![self.shared.frames.get()]);
        r.put("updates", vec![self.shared.updates.get()]);
        r.put_record("rule", self.shared.rule.save());
        if let Some((target, version)) = &self.shared.target {
            let mut theta = vec![0.0; target.len()];
            target.read(&mut theta);
            r.put("target", theta);
            r.put("target_version", vec![version.get()]);
        }
        r.put("turns_taken", vec![self.shared.turns.taken()]);
        r.put("turns", self.shared.turns.recorded().unwrap_or_default());
        for w in &self.learners {
            let mut own = Record::new();
            own.put_record("stepper", w.stepper.save());
            own.put("moments", w.own.clone());
            w.passes.save(&mut own);
            if let Some(e) = &w.exploration {
                own.put("epsilon", vec![e.end]);
                Stream::save_all(std::slice::from_ref(&e.stream), "epsilons", &mut own);
            }
            r.put_record(&format!("worker{}", w.number), own);
        }
        r
    }
    fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let shared = &*self.shared;
        shared.rule.load(&from.record("rule"))?;
        shared.frames.set(from.u64("steps")?);
        shared.updates.set(from.u64("updates")?);
        if let Some((target, version)) = &shared.target {
            let mut theta = vec![0.0; target.len()];
            load_finite(from, "target", &mut theta)?;
            target.write(&theta);
            version.set(from.u64("target_version")?);
        }
        let turns = match from.get("turns")? {
            Array::U8(turns) => turns.as_slice(),
            other => from.u8s("turns", other.len())?,
        };
        shared.turns.set(turns, from.u64("turns_taken")?);
        let mut exact = true;
        for w in &mut self.learners {
            let own = from.record(&format!("worker{}", w.number));
            let continues = w.stepper.load(&own.record("stepper"))?;
            w.passes.load(&own, continues)?;
            exact &= continues;
            shared.rule.load_own(&mut w.own, "moments", &own)?;
            w.target_version = None;
            if let Some(e) = &mut w.exploration {
                e.end = own.f64("epsilon")?;
                Stream::load_all(std::slice::from_mut(&mut e.stream), "epsilons", &own)?;
            }
        }
        Ok(exact)
    }
}
