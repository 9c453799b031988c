//! Drives an environment as [`VecEnv`](crate::VecEnv) would, and remembers what it did.

use super::finding::{Difference, Finding, Place};
use super::{COMPARED, COPIES, COPY_STEPS, CUT, Findings};
use crate::{Actions, BatchEnv, End, EnvSpec, MakeError, RandomActions};
use pgrad_num::{Cols, ColsMut, Stream, StreamPosition};
use pgrad_space::Outside;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Purpose number of the streams of a check.
const STREAM_CHECK: u32 = 0x4348;
/// A number that no environment writes.
const OBS_POISON: u32 = 0x7fc0_1dea;
/// What the second run finds in `ends`.
pub(super) const END_POISON: End = End::Truncated;

/// Why going on makes no sense.
#[derive(Debug)]
pub(super) enum Ended {
    /// The reason is among the findings.
    Found,
    /// An environment could not be made.
    Unmade(MakeError),
}

/// One step of an environment, or its reset.
#[derive(Clone, Debug)]
pub(super) struct Event {
    place: Place,
    obs: Vec<f32>,
    mask: Vec<bool>,
    reward: f64,
    /// As the environment said, before any time limit.
    end: End,
    /// Whether the episode is over, by itself or by a time limit.
    over: bool,
    /// Whether the step drew random numbers.
    drew: bool,
    /// Where the random numbers stood before.
    stream: StreamPosition,
    random: RandomActions,
}

/// One environment, being driven.
pub(super) struct Run<B> {
    env: B,
    spec: EnvSpec,
    stream: Stream,
    random: RandomActions,
    mask: Vec<bool>,
    place: Place,
    /// Before the first reset, and after an end.
    over: bool,
    ends_before: End,
}

fn catching<T>(
    place: Place,
    during: &'static str,
    out: &mut Findings<'_>,
    f: impl FnOnce() -> T,
) -> Result<T, Ended> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let message = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        out.add(Finding::Panic { place, during, message });
        Ended::Found
    })
}

fn make_one<B: BatchEnv>(
    make: &impl Fn(usize) -> Result<B, MakeError>,
    n: usize,
    out: &mut Findings<'_>,
) -> Result<(B, EnvSpec), Ended> {
    catching(Place::default(), "make", out, || {
        let env = make(n)?;
        let spec = env.spec().clone();
        Ok((env, spec))
    })?
    .map_err(Ended::Unmade)
}

impl<B: BatchEnv> Run<B> {
    pub(super) fn new(
        make: &impl Fn(usize) -> Result<B, MakeError>,
        seed: u64,
        out: &mut Findings<'_>,
    ) -> Result<Self, Ended> {
        let (env, spec) = make_one(make, 1, out)?;
        Ok(Self {
            stream: Stream::new(seed, STREAM_CHECK, 0),
            random: RandomActions::new(&spec.action, 1, seed, STREAM_CHECK),
            mask: vec![true; spec.action.mask_dim()],
            place: Place::default(),
            over: true,
            ends_before: End::Running,
            env,
            spec,
        })
    }
    pub(super) fn len(&self) -> usize {
        self.env.len()
    }
    pub(super) fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    /// Steps find `END_POISON` in `ends` instead of `Running`.
    pub(super) fn poison_ends(&mut self) {
        self.ends_before = END_POISON;
    }
    /// Puts the random numbers where they stood before event `at` of `trace`.
    pub(super) fn start_where(&mut self, trace: &Trace, at: usize) {
        let event = &trace.events[at];
        self.stream.set_position(event.stream);
        self.random = event.random.clone();
        self.place = event.place;
    }
    /// Restores a state saved just after event `at` of `trace`, which does not end an episode.
    fn restore(
        &mut self,
        trace: &Trace,
        at: usize,
        state: &[f64],
        out: &mut Findings<'_>,
    ) -> Result<bool, Ended> {
        let (event, next) = (&trace.events[at], &trace.events[at + 1]);
        self.stream.set_position(next.stream);
        self.random = next.random.clone();
        self.place = event.place;
        self.over = false;
        self.mask.clone_from(&event.mask);
        catching(self.place, "load", out, || self.env.load(0, state))
    }
    /// The present observation; NaN with a pattern of its own where nothing was written.
    fn observe(&self, place: Place, out: &mut Findings<'_>) -> Result<Vec<f32>, Ended> {
        let mut obs = vec![f32::from_bits(OBS_POISON); self.spec.observation.obs_dim()];
        let rows = obs.len();
        catching(place, "observe", out, || self.env.observe(ColsMut::new(&mut obs, rows, 1)))?;
        Ok(obs)
    }
    fn look_for_fault(&mut self, place: Place, out: &mut Findings<'_>) -> Result<(), Ended> {
        let Some((_, reason)) = self.env.fault() else { return Ok(()) };
        out.add(Finding::Failed { place, reason });
        Err(Ended::Found)
    }
    /// Makes one step, or the reset that must come first.
    fn advance(&mut self, out: &mut Findings<'_>) -> Result<Event, Ended> {
        out.step()?;
        let (stream, random) = (self.stream.position(), self.random.clone());
        let mut reward = [f64::NAN];
        let mut end = [End::Running];
        if self.over {
            let place = Place { episode: self.place.episode, step: 0 };
            catching(place, "reset", out, || self.env.reset(0, &mut self.stream))?;
            self.look_for_fault(place, out)?;
            self.place = place;
            reward[0] = 0.0;
        } else {
            self.place.step += 1;
            end[0] = self.ends_before;
            let masked = self.spec.masks_actions;
            let actions = if masked {
                self.random.draw_allowed(Cols::new(&self.mask, self.mask.len(), 1))
            } else {
                self.random.draw()
            };
            catching(self.place, "step", out, || {
                self.env.step(actions, std::slice::from_mut(&mut self.stream), &mut reward, &mut end);
            })?;
            self.look_for_fault(self.place, out)?;
            if end[0] == End::Lost {
                out.add(Finding::Failed { place: self.place, reason: "it failed".to_owned() });
                return Err(Ended::Found);
            }
        }
        let place = self.place;
        let obs = self.observe(place, out)?;
        self.mask.fill(true);
        if !self.mask.is_empty() {
            catching(place, "action_mask", out, || self.env.action_mask(0, &mut self.mask))?;
        }
        // Episodes are cut where the time limit says, and long ones sooner; without a limit, never.
        let cut = self.spec.max_episode_steps.map_or(u32::MAX, |limit| limit.min(CUT));
        self.over = end[0] != End::Running || place.step >= cut;
        if self.over {
            self.place = Place { episode: place.episode + 1, step: 0 };
        }
        Ok(Event {
            place,
            obs,
            mask: self.mask.clone(),
            reward: reward[0],
            end: end[0],
            over: self.over,
            drew: self.stream.position() != stream,
            stream,
            random,
        })
    }
    /// Runs for `steps` events, looks at each and remembers all.
    pub(super) fn record(&mut self, steps: u32, out: &mut Findings<'_>) -> Result<Trace, Ended> {
        let mut events = Vec::new();
        for _ in 0..steps {
            let event = self.advance(out)?;
            self.look_at(&event, out);
            events.push(event);
        }
        Ok(Trace { events })
    }
    /// Without a time limit, goes on until an episode ends.
    pub(super) fn look_for_an_end(&mut self, steps: u32, out: &mut Findings<'_>) -> Result<(), Ended> {
        if self.spec.max_episode_steps.is_some() || self.place.episode > 0 {
            return Ok(());
        }
        while self.place.step < steps {
            if self.advance(out)?.over {
                return Ok(());
            }
        }
        out.add(Finding::NeverEnds { steps });
        Ok(())
    }
    fn look_at(&self, event: &Event, out: &mut Findings<'_>) {
        let place = event.place;
        let expected = self.spec.observation.obs_dim();
        let got = self.env.wrong_shape(0);
        let unwritten = event.obs.iter().filter(|x| x.to_bits() == OBS_POISON).count();
        let written = got.unwrap_or(expected - unwritten);
        if written == 0 && event.end == End::Running {
            out.add(Finding::NotWritten { place });
        } else if written == 0 {
            out.add(Finding::MissingFinalObservation { place, end: event.end });
        } else if written != expected {
            out.add(Finding::Shape { place, expected, got: written });
        } else if let Some(index) = event.obs.iter().position(|x| !x.is_finite()) {
            let (component, value) = (self.spec.observation.component(index), event.obs[index]);
            out.add(Finding::ObservationNotFinite { place, index, component, value });
        } else if let Some(Outside { index, expected }) = self.spec.observation.outside(&event.obs) {
            let (component, value) = (self.spec.observation.component(index), event.obs[index]);
            out.add(Finding::OutOfSpace { place, index, component, value, expected });
        }
        if !(event.reward as f32).is_finite() {
            out.add(Finding::RewardNotFinite { place, value: event.reward });
        }
        if self.spec.masks_actions {
            let mut from = 0;
            for (choice, n) in self.spec.action.choices().into_iter().enumerate() {
                // After an end nobody asks.
                if !event.over && !event.mask[from..from + n].contains(&true) {
                    out.add(Finding::MaskAllowsNothing { place, choice });
                }
                from += n;
            }
        } else if let Some(index) = event.mask.iter().position(|allowed| !allowed) {
            out.add(Finding::MaskNotAnnounced { place, index });
        }
    }
}

impl Difference {
    /// The same with the two sides exchanged.
    pub(super) fn swapped(self) -> Self {
        match self {
            Self::Observation { index, first, second } => {
                Self::Observation { index, first: second, second: first }
            }
            Self::Reward { first, second } => Self::Reward { first: second, second: first },
            Self::End { first, second } => Self::End { first: second, second: first },
            Self::Mask => Self::Mask,
        }
    }
    fn of_observations(first: &[f32], second: &[f32]) -> Option<Self> {
        let index = first.iter().zip(second).position(|(a, b)| a.to_bits() != b.to_bits())?;
        Some(Self::Observation { index, first: first[index], second: second[index] })
    }
    fn of_events(first: &Event, second: &Event) -> Option<Self> {
        // A reward of NaN is a finding of its own.
        let same_reward = first.reward == second.reward || (first.reward.is_nan() && second.reward.is_nan());
        if !same_reward {
            return Some(Self::Reward { first: first.reward, second: second.reward });
        }
        if first.end != second.end {
            return Some(Self::End { first: first.end, second: second.end });
        }
        Self::of_observations(&first.obs, &second.obs)
            .or_else(|| (first.mask != second.mask).then_some(Self::Mask))
    }
}

/// What an environment did.
pub(super) struct Trace {
    events: Vec<Event>,
}

impl Trace {
    /// The first event from `at` on that does not end an episode and is not the last.
    pub(super) fn amid(&self, at: usize) -> Option<usize> {
        (at..self.events.len().saturating_sub(1)).find(|i| !self.events[*i].over)
    }
    /// Where episodes start.
    pub(super) fn episodes(&self) -> impl Iterator<Item = usize> {
        (0..self.events.len()).filter(|i| self.events[*i].place.step == 0)
    }
    /// Events of the episode that starts at `start`.
    pub(super) fn episode_len(&self, start: usize) -> usize {
        let episode = self.events[start].place.episode;
        self.events[start..].iter().take_while(|e| e.place.episode == episode).count()
    }
    /// Lets `other` make at most `n` steps, which must come out as the events from `from` on; where and how
    /// they do not.
    pub(super) fn compare<B: BatchEnv>(
        &self,
        from: usize,
        other: &mut Run<B>,
        n: usize,
        out: &mut Findings<'_>,
    ) -> Result<Option<(Place, Difference)>, Ended> {
        for expected in self.events[from..].iter().take(n) {
            let event = other.advance(out)?;
            if let Some(difference) = Difference::of_events(expected, &event) {
                return Ok(Some((expected.place, difference)));
            }
        }
        Ok(None)
    }
    pub(super) fn look_for_own_resets(&self, out: &mut Findings<'_>) {
        let steps = |end: fn(&Event) -> bool| {
            let steps = self.events.iter().filter(move |e| e.place.step > 0 && end(e));
            let (n, drew) = steps.fold((0, 0), |(n, drew), e| (n + 1, drew + i32::from(e.drew)));
            (n, drew)
        };
        let (last, last_drew) = steps(|e| e.end != End::Running);
        let (other, other_drew) = steps(|e| e.end == End::Running);
        if last >= 3 && last_drew == last && other >= 3 && other_drew == 0 {
            out.add(Finding::ResetsItself);
        }
    }
}

/// Saves a state after event `at` and restores it in a new and in a used environment.
pub(super) fn compare_restored<B: BatchEnv>(
    make: &impl Fn(usize) -> Result<B, MakeError>,
    seed: u64,
    trace: &Trace,
    at: usize,
    out: &mut Findings<'_>,
) -> Result<(), Ended> {
    let mut original = Run::new(make, seed, out)?;
    for _ in 0..=at {
        original.advance(out)?;
    }
    let saved = trace.events[at].place;
    let Some(state) = catching(saved, "save", out, || original.env.save(0))? else { return Ok(()) };
    let mut used = Run::new(make, seed, out)?;
    for _ in 0..at / 2 + 6 {
        used.advance(out)?;
    }
    for mut other in [Run::new(make, seed, out)?, used] {
        if !other.restore(trace, at, &state, out)? {
            out.add(Finding::StateRefused { place: saved });
            return Ok(());
        }
        let obs = other.observe(saved, out)?;
        let at_once = Difference::of_observations(&trace.events[at].obs, &obs).map(|d| (saved, d));
        let different = match at_once {
            Some(d) => Some(d),
            None => trace.compare(at + 1, &mut other, COMPARED, out)?,
        };
        if let Some((place, difference)) = different {
            out.add(Finding::RestoreNotExact { saved, place, difference });
        }
    }
    Ok(())
}

/// Whether a second environment can begin an episode beside a first one; if not, that is a finding.
pub(super) fn two_can_exist<B: BatchEnv>(
    make: &impl Fn(usize) -> Result<B, MakeError>,
    seed: u64,
    out: &mut Findings<'_>,
) -> bool {
    let mut go_on = |_| true;
    let mut own = Findings::new(&mut go_on);
    let start = |own: &mut Findings<'_>| {
        let mut run = Run::new(make, seed, own)?;
        run.advance(own)?;
        Ok(run)
    };
    // What is wrong with one alone was found before.
    let Ok(_first) = start(&mut own) else { return true };
    let reason = match start(&mut own) {
        Ok(_) => return true,
        Err(Ended::Unmade(e)) => e.to_string(),
        Err(Ended::Found) => own.found.last().map(Finding::to_string).unwrap_or_default(),
    };
    out.add(Finding::OneAtATime { reason });
    false
}

/// Compares the copies of a batch with single ones, and `observe` with `observe_one`.
pub(super) fn compare_copies<B: BatchEnv>(
    make: &impl Fn(usize) -> Result<B, MakeError>,
    seed: u64,
    out: &mut Findings<'_>,
) -> Result<(), Ended> {
    let n = COPIES;
    let (mut env, spec) = make_one(make, n, out)?;
    if env.len() != n {
        out.add(Finding::BatchLength { expected: n, got: env.len() });
        return Ok(());
    }
    let mut alone = Vec::new();
    for b in 0..n {
        let mut run = Run::new(make, seed.wrapping_add(b as u64), out)?;
        let first = run.advance(out)?;
        alone.push((run, first));
    }
    let (index_rows, real_rows) = (spec.action.index_dim(), spec.action.real_dim());
    let dim = spec.observation.obs_dim();
    let mut streams: Vec<Stream> =
        (0..n).map(|b| Stream::new(seed.wrapping_add(b as u64), STREAM_CHECK, 0)).collect();
    let (mut indices, mut numbers) = (vec![0; index_rows * n], vec![0.0; real_rows * n]);
    let (mut rewards, mut ends) = (vec![0.0; n], vec![End::Running; n]);
    let (mut obs, mut one) = (vec![0.0; dim * n], vec![0.0; dim]);
    for b in 0..n {
        catching(Place::default(), "reset", out, || env.reset(b, &mut streams[b]))?;
    }
    for step in 0..=COPY_STEPS {
        if step > 0 {
            for (b, (run, event)) in alone.iter_mut().enumerate() {
                // A copy that starts anew beside others that step.
                while event.over {
                    catching(event.place, "reset", out, || env.reset(b, &mut streams[b]))?;
                    *event = run.advance(out)?;
                }
                *event = run.advance(out)?;
                let Actions { index, real } = run.random.last();
                for (i, a) in index.data().iter().enumerate() {
                    indices[i * n + b] = *a;
                }
                for (i, a) in real.data().iter().enumerate() {
                    numbers[i * n + b] = *a;
                }
            }
            let actions = Actions {
                index: Cols::new(&indices, index_rows, n),
                real: Cols::new(&numbers, real_rows, n),
            };
            let place = alone[0].1.place;
            catching(place, "step", out, || env.step(actions, &mut streams, &mut rewards, &mut ends))?;
        }
        let place = alone[0].1.place;
        catching(place, "observe", out, || env.observe(ColsMut::new(&mut obs, dim, n)))?;
        for (b, (_, event)) in alone.iter().enumerate() {
            let place = event.place;
            catching(place, "observe_one", out, || env.observe_one(b, &mut one))?;
            let column: Vec<f32> = (0..dim).map(|i| obs[i * n + b]).collect();
            if let Some(difference) = Difference::of_observations(&column, &one) {
                out.add(Finding::ObserveOne { place, copy: b, difference });
            }
            let (reward, end) = if step == 0 { (0.0, End::Running) } else { (rewards[b], ends[b]) };
            let in_batch = Event { obs: column, reward, end, ..event.clone() };
            if let Some(difference) = Difference::of_events(event, &in_batch) {
                out.add(Finding::CopyDepends { place, copy: b, len: n, difference });
            }
        }
    }
    Ok(())
}
