//! What methods that learn action values report.

use super::ActorLearners;
use crate::algorithm::Report;

impl ActorLearners {
    /// What the last iteration did, for a method that learns action values.
    pub(crate) fn value_report(&self) -> Report {
        let mean = self.means();
        let report = Report::default()
            .with("learn/td_error", mean.error)
            .with("learn/td_error_rms", mean.squared_error.sqrt())
            .with("learn/value", mean.value)
            .with("learn/epsilon", mean.epsilon);
        self.report(report)
    }
}
