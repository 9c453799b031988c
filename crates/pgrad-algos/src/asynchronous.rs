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
