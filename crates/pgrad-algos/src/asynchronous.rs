//! What asynchronous actor-learners have in common: Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver, Kavukcuoglu
//! 2016, arXiv:1602.01783, section 4.
//!
//! Every actor-learner is a thread with an environment of its own and a copy `θ′` of the parameters. It copies the
//! shared `θ`, acts for up to `t_max` steps, adds up the gradient `dθ` of these steps, and applies it to the shared `θ`
//! without waiting for anybody: meanwhile others have changed it, so that the gradient of one `θ` moves another. How
//! many updates came in between is the *staleness* of a gradient.
//!
//! All threads stop at the ends of their segments after a number of steps of all together: that is an iteration, and
//! what is seen between two of them is a consistent state.

mod driver;
mod learner;
mod recording;
mod settings;
mod shared;
mod values;

pub(crate) use driver::ActorLearners;
pub(crate) use learner::ActorLearner;
pub use settings::{AsyncOptimizer, AsyncSettings, AsyncValueSettings, EpsilonDraw, QNetworkSettings};

use pgrad_num::Cols;

/// `max_a Q(s_i, a)`.
pub(crate) fn largest(q: Cols<'_, f32>, i: usize) -> f32 {
    (1..q.rows()).fold(q.at(0, i), |best, a| if q.at(a, i) > best { q.at(a, i) } else { best })
}

/// The part of [`crate::Algorithm`] that is the same for all of them; `self.run` is the [`ActorLearners`].
macro_rules! async_algorithm {
    () => {
        fn start(&mut self) -> Result<(), AgentError> {
            self.run.start()
        }
        fn observe_phases(&mut self, observer: PhaseObserver) {
            self.run.observer = observer;
        }
        fn steps(&self) -> u64 {
            self.run.steps()
        }
        fn lost_steps(&self) -> u64 {
            self.run.lost_steps()
        }
        fn steps_per_iteration(&self) -> u64 {
            self.run.steps_per_iteration()
        }
        fn spec(&self) -> &EnvSpec {
            self.run.spec()
        }
        fn episodes(&self) -> Box<dyn Iterator<Item = &Episode> + '_> {
            Box::new(self.run.episodes())
        }
        fn obs_norm(&self) -> Option<&ObsNormalizer> {
            None
        }
        fn model(&self) -> &ActorCritic {
            &self.run.model
        }
        fn scale_step_size(&mut self, factor: f64) {
            self.run.scale_step_size(factor);
        }
        fn reproducible(&self) -> Reproducible {
            self.run.reproducible()
        }
        fn recording(&self) -> Option<Vec<u8>> {
            self.run.recording()
        }
        fn save(&self) -> Record {
            self.run.save()
        }
        fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
            self.run.load(from)
        }
    };
}
pub(crate) use async_algorithm;

/// The part of [`AlgoConfig`] that follows from the actor-learners.
macro_rules! async_config {
    () => {
        fn boxed_clone(&self) -> Box<dyn AlgoConfig> {
            Box::new(self.clone())
        }
        fn file(&self) -> Option<(&'static str, &str)> {
            self.learners.file()
        }
        fn take_file(&mut self, bytes: &[u8]) {
            self.recording = Some(bytes.to_vec());
        }
        fn threads(&self, _asked: usize) -> usize {
            self.learners.workers
        }
    };
}
pub(crate) use async_config;

/// The settings of a method that learns action values, what the runner asks of them, and the method with nothing but
/// its `iterate` left to say.
macro_rules! async_value_method {
    ($(#[$config_doc:meta])+ $config:ident, $(#[$doc:meta])+ $algo:ident) => {
        $(#[$config_doc])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $config {
            /// The actor-learners.
            pub learners: AsyncSettings,
            /// Exploration and target network.
            pub values: AsyncValueSettings,
            /// The network.
            pub network: QNetworkSettings,
            /// Bytes of the recording that is followed.
            pub recording: Option<Vec<u8>>,
        }

        impl AlgoConfig for $config {
            fn parts(&self) -> Vec<&dyn Settings> {
                vec![&self.learners, &self.values, &self.network]
            }
            fn parts_mut(&mut self) -> Vec<&mut dyn Settings> {
                vec![&mut self.learners, &mut self.values, &mut self.network]
            }
            fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
                self.values.check(env)?;
                self.learners.check(self.recording.as_deref())
            }
            fn build(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
                Ok(Box::new($algo::new(self, setup)?))
            }
            async_config!();
        }

        $(#[$doc])+
        pub struct $algo {
            gamma: f64,
            run: ActorLearners,
        }

        impl std::fmt::Debug for $algo {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($algo)).field("steps", &self.run.steps()).finish_non_exhaustive()
            }
        }

        impl $algo {
            /// The method with its environments, not yet started.
            ///
            /// # Errors
            /// When settings do not fit together, or not to the environment.
            pub fn new(config: &$config, setup: &Setup<'_>) -> Result<Self, BuildError> {
                config.check(setup.spec)?;
                let model = config.network.build(setup.spec, setup.seed)?;
                let (values, recording) = (Some(&config.values), config.recording.as_deref());
                let run = ActorLearners::new(&config.learners, values, &config.parts(), recording, model, setup)?;
                Ok(Self { gamma: config.learners.gamma, run })
            }
        }
    };
}
pub(crate) use async_value_method;
