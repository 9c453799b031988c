//! What asynchronous actor-learners have in common: Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver,
//! Kavukcuoglu 2016, arXiv:1602.01783, section 4.
//!
//! Every actor-learner is a thread with an environment of its own and a copy `θ′` of the parameters. It
//! copies the shared `θ`, acts for up to `t_max` steps, adds up the gradient `dθ` of these steps, and applies
//! it to the shared `θ` without waiting for anybody: meanwhile others have changed it, so that the gradient
//! of one `θ` moves another. How many updates came in between is the *staleness* of a gradient.
//!
//! All threads stop at the ends of their segments after a number of steps of all together: that is an
//! iteration, and what is seen between two of them is a consistent state.

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

/// Declares a method that learns action values asynchronously, as [`config!`](config) does; its state at rest
/// is made of the discount.
macro_rules! value_config {
    (
        name: $algo:literal, title: $title:literal, source: $source:literal;
        $(#[$doc:meta])* pub struct $name:ident, |$gamma:ident| $method:expr
    ) => {
        config! {
            name: $algo, title: $title, source: $source;
            $(#[$doc])*
            pub struct $name {
                learners: $crate::AsyncSettings,
                values: $crate::AsyncValueSettings,
                network: $crate::QNetworkSettings,
            }
            with recording of learners
        }

        impl AlgoConfig for $name {
            fn threads(&self, _asked: usize) -> usize {
                self.learners.workers
            }
            fn check(&self, env: &EnvSpec) -> Result<(), BuildError> {
                self.values.check(env)?;
                self.learners.check(self.recording.as_deref())
            }
            fn needs(&self, env: &EnvSpec, _threads: usize) -> Result<Needs, BuildError> {
                Ok(self.learners.needs(&self.network.build(env, None)?, env, true))
            }
            fn assemble(&self, setup: &Setup<'_>) -> Result<Box<dyn Algorithm>, BuildError> {
                let model = self.network.build(setup.spec, setup.seed)?;
                let (values, parts) = (Some(&self.values), $crate::Groups::parts(self));
                let recording = self.recording.as_deref();
                let learners = ActorLearners::new(&self.learners, values, &parts, recording, &model, setup)?;
                let $gamma = self.learners.gamma as f32;
                Ok(Agent::new(setup, model, learners).runs($method))
            }
        }
    };
}
pub(crate) use value_config;

/// `max_a Q(s_i, a)`.
pub(crate) fn largest(q: Cols<'_, f32>, i: usize) -> f32 {
    (1..q.rows()).fold(q.at(0, i), |best, a| if q.at(a, i) > best { q.at(a, i) } else { best })
}
