//! The state that a method alone has: parts, each saved and restored under the name of its field.

use crate::common::{Rule, load_finite};
use pgrad_engine::{Minibatches, Traces};
use pgrad_num::{Record, RecordError, Stream};
use pgrad_optim::{Adam, Kfac, RmsProp};

/// A part of a method's state.
pub(crate) trait Saved {
    /// Adds it to a record, as `name`.
    fn save(&self, name: &str, to: &mut Record);
    /// Restores what [`Saved::save`] saved.
    ///
    /// # Errors
    /// When the record does not fit.
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError>;
    /// New episodes begin everywhere: forgets what belonged to the old ones.
    fn restart(&mut self) {}
}

/// Writes `save`, `load` and `restart` of a [`Method`](crate::Method) whose state is in these fields.
/// `field: x` sets all numbers of a field to `x` where new episodes begin.
macro_rules! state {
    ($($field:ident $(: $start:expr)?),+) => {
        fn save(&self, to: &mut pgrad_num::Record) {
            $($crate::state::Saved::save(&self.$field, stringify!($field), to);)+
        }
        fn load(&mut self, from: &pgrad_num::Record) -> Result<(), pgrad_num::RecordError> {
            $($crate::state::Saved::load(&mut self.$field, stringify!($field), from)?;)+
            Ok(())
        }
        fn restart(&mut self) {
            $($crate::state::Saved::restart(&mut self.$field); $(self.$field.fill($start);)?)+
        }
    };
}
pub(crate) use state;

/// Parts that save a record of their own.
macro_rules! records {
    ($($part:ty),+) => {$(
        impl Saved for $part {
            fn save(&self, name: &str, to: &mut Record) {
                to.put_record(name, self.save());
            }
            fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
                self.load(&from.record(name))
            }
        }
    )+};
}
records!(Adam<f32>, RmsProp<f32>, Rule, Kfac, Minibatches);

impl<P: Saved> Saved for Option<P> {
    fn save(&self, name: &str, to: &mut Record) {
        self.iter().for_each(|part| part.save(name, to));
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        self.iter_mut().try_for_each(|part| part.load(name, from))
    }
}

impl Saved for Traces {
    fn save(&self, name: &str, to: &mut Record) {
        self.save(name, to);
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        self.load(name, from)
    }
    fn restart(&mut self) {
        self.clear();
    }
}

impl Saved for Stream {
    fn save(&self, name: &str, to: &mut Record) {
        Self::save_all(std::slice::from_ref(self), name, to);
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        Self::load_all(std::slice::from_mut(self), name, from)
    }
}

/// A counter.
impl Saved for u64 {
    fn save(&self, name: &str, to: &mut Record) {
        to.put(name, vec![*self]);
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        *self = from.u64(name)?;
        Ok(())
    }
}

/// What was learnt.
impl Saved for Vec<f32> {
    fn save(&self, name: &str, to: &mut Record) {
        to.put(name, self.clone());
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        load_finite(from, name, self)
    }
}

/// Scales: weights and standard deviations.
impl Saved for Vec<f64> {
    fn save(&self, name: &str, to: &mut Record) {
        to.put(name, self.clone());
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        let scales = from.f64s(name, self.len())?;
        if !scales.iter().all(|x| x.is_finite() && *x >= 0.0) {
            let reason = "a scale is finite and not negative".into();
            return Err(RecordError::Value { name: name.into(), reason });
        }
        self.copy_from_slice(scales);
        Ok(())
    }
}

/// A scale.
impl Saved for f64 {
    fn save(&self, name: &str, to: &mut Record) {
        to.put(name, vec![*self]);
    }
    fn load(&mut self, name: &str, from: &Record) -> Result<(), RecordError> {
        let mut scale = vec![*self];
        Saved::load(&mut scale, name, from)?;
        *self = scale[0];
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Method;

    #[derive(Clone, Debug, PartialEq)]
    struct Parts {
        beta: f64,
        w: Vec<f32>,
        e: Traces,
        discount: Vec<f32>,
        none: Option<Vec<f32>>,
    }

    impl Method for Parts {
        type Source = pgrad_collect::Collector;
        fn iterate(
            &mut self,
            _: &mut crate::Agent<Self::Source>,
        ) -> Result<crate::Report, pgrad_model::AgentError> {
            Ok(crate::Report::default())
        }

        state! { beta, w, e, discount: 1.0, none }
    }

    fn parts() -> Parts {
        let mut e = Traces::new(1, 2);
        e.accumulate(0, 0.0, 1.0, &[3.0, 4.0]);
        Parts { beta: 0.5, w: vec![1.0, -2.0], e, discount: vec![0.25], none: None }
    }

    #[test]
    fn every_part_comes_back_by_its_name_and_new_episodes_begin_anew() {
        let (saved, mut record) = (parts(), Record::new());
        Method::save(&saved, &mut record);
        let names: Vec<&str> = record.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["beta", "discount", "e", "w"]);
        let mut other =
            Parts { beta: 1.0, w: vec![0.0; 2], e: Traces::new(1, 2), discount: vec![1.0], none: None };
        Method::load(&mut other, &record).unwrap();
        assert_eq!(other, saved);
        Method::restart(&mut other);
        assert_eq!(other, Parts { e: Traces::new(1, 2), discount: vec![1.0], ..saved });
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for wrong in [
            Parts { beta: -0.5, ..parts() },
            Parts { beta: f64::NAN, ..parts() },
            Parts { w: vec![1.0, f32::INFINITY], ..parts() },
            Parts { w: vec![1.0], ..parts() },
        ] {
            let mut record = Record::new();
            Method::save(&wrong, &mut record);
            assert!(Method::load(&mut parts(), &record).is_err(), "{wrong:?}");
        }
    }
}
