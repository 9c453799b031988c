//! Tasks on models of one's own, described by data: what is seen, what is rewarded, when it ends.

use super::{
    About, MEMORY, Model, ModelFile, Mujoco, Outcome, Sim, Task, difference, length, normal_noise,
    sum_of_squares, uniform_noise,
};
use pgrad_env::{EnvMaker, MakeError, MakeErrorKind};
use pgrad_num::Stream;
use std::path::PathBuf;
use std::sync::Arc;

/// One number of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A number of the positions, from 0.
    Qpos(usize),
    /// A number of the velocities, from 0.
    Qvel(usize),
    /// A number of the sensors' data, from 0.
    Sensor(usize),
    /// A coordinate of a body's place: 0, 1, 2 are x, y, z.
    Body(String, usize),
    /// Distance of two bodies.
    Distance(String, String),
}

/// A part of the observation.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Positions without the first so many.
    Qpos {
        /// Left out.
        skip: usize,
    },
    /// Velocities.
    Qvel,
    /// Data of all sensors.
    Sensors,
    /// External forces on every body but the world, six numbers each.
    ContactForces,
    /// The three coordinates of a body.
    Body(String),
    /// One number.
    One(Quantity),
    /// Sine and cosine of a number, for angles that turn round.
    Angle(Quantity),
}

/// A term of the reward.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// 1 for every step that does not end the episode.
    Alive,
    /// `Σ aᵢ²`.
    Control,
    /// `Σ fᵢ²` over the contact forces.
    Contact,
    /// A number after the step.
    Value(Quantity),
    /// `(x − target)²` after the step.
    Square(Quantity, f64),
    /// Its change in the step over the step's seconds.
    Speed(Quantity),
}

/// Where a number ends the episode: outside `[least, greatest]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The number.
    pub of: Quantity,
    /// Least allowed.
    pub least: f64,
    /// Greatest allowed.
    pub greatest: f64,
}

/// How the first state differs from the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Normal instead of uniform.
    pub normal: bool,
    /// Spread of the positions.
    pub qpos: f64,
    /// Spread of the velocities.
    pub qvel: f64,
}

/// A task on a model, described by data.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Name of the environment.
    pub id: String,
    /// The MJCF file.
    pub model: PathBuf,
    /// Steps of the physics in one of the task.
    pub frame_skip: u32,
    /// An episode is cut after so many steps.
    pub max_episode_steps: Option<u32>,
    /// Return at which the task counts as solved.
    pub reward_threshold: Option<f64>,
    /// What is seen, each part cut to the size beside it.
    pub observation: Vec<(Seen, f64)>,
    /// What is rewarded, with its weight.
    pub rewards: Vec<(Term, f64)>,
    /// What ends an episode.
    pub limits: Vec<Limit>,
    /// How an episode starts.
    pub noise: Noise,
}

impl Described {
    /// Reads the model; what is returned makes batches of the task.
    ///
    /// # Errors
    /// When the model cannot be read, the task names what the model does not have, or it asks for nothing or
    /// too much.
    pub fn load(self) -> Result<EnvMaker, MakeError> {
        let model = Model::load(&self.about())?;
        self.check(&model)?;
        Ok(Arc::new(move |n| Ok(Box::new(Mujoco::new(self.clone(), &model, n)?))))
    }
    /// Whether the model has all that is asked for.
    fn check(&self, model: &Model) -> Result<(), MakeError> {
        let data =
            |message: String| Err(MakeError::new(MakeErrorKind::Data, format!("`{}`: {message}", self.id)));
        let raw = model.raw();
        let sizes = raw.ffi();
        let (nq, nv, sensors) = (sizes.nq as usize, sizes.nv as usize, sizes.nsensordata as usize);
        for quantity in self.quantities() {
            let (what, index, there) = match quantity {
                Quantity::Qpos(i) => ("positions", *i, nq),
                Quantity::Qvel(i) => ("velocities", *i, nv),
                Quantity::Sensor(i) => ("numbers of sensors", *i, sensors),
                Quantity::Body(..) | Quantity::Distance(..) => continue,
            };
            if index >= there {
                return data(format!(
                    "index {index} is out of range: the model has {there} {what}, counted \
                    from 0"
                ));
            }
        }
        let skipped = self.observation.iter().filter_map(|(seen, _)| match seen {
            Seen::Qpos { skip } => Some(*skip),
            _ => None,
        });
        if let Some(skip) = skipped.max().filter(|skip| *skip >= nq) {
            return data(format!("`skip = {skip}` leaves none of the model's {nq} positions"));
        }
        if model.action_space().dim() == 0 {
            return data("the model has no actuators, so there are no actions".into());
        }
        if self.observation.is_empty() || self.rewards.is_empty() {
            return data("the file needs at least one `observation` part and one `reward` term".into());
        }
        let speeds = self.rewards.iter().filter(|(term, _)| matches!(term, Term::Speed(_))).count();
        if speeds > MEMORY {
            return data(format!("there are {speeds} `speed` terms, but at most {MEMORY} are possible"));
        }
        Ok(())
    }
    /// Every number that is looked at.
    fn quantities(&self) -> impl Iterator<Item = &Quantity> {
        let seen = self.observation.iter().filter_map(|(seen, _)| match seen {
            Seen::One(q) | Seen::Angle(q) => Some(q),
            _ => None,
        });
        let rewarded = self.rewards.iter().filter_map(|(term, _)| match term {
            Term::Value(q) | Term::Square(q, _) | Term::Speed(q) => Some(q),
            Term::Alive | Term::Control | Term::Contact => None,
        });
        seen.chain(rewarded).chain(self.limits.iter().map(|l| &l.of))
    }
    /// Names of the bodies that are looked at, in the order of [`About::bodies`].
    fn bodies(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let seen = self.observation.iter().filter_map(|(seen, _)| match seen {
            Seen::Body(name) => Some(name),
            _ => None,
        });
        let of_quantities = self.quantities().flat_map(|q| match q {
            Quantity::Body(name, _) => [Some(name), None],
            Quantity::Distance(a, b) => [Some(a), Some(b)],
            _ => [None, None],
        });
        for name in seen.chain(of_quantities.flatten()) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
    fn value(&self, sim: &Sim, quantity: &Quantity) -> f64 {
        match quantity {
            Quantity::Qpos(i) => sim.qpos()[*i],
            Quantity::Qvel(i) => sim.qvel()[*i],
            Quantity::Sensor(i) => sim.sensors()[*i],
            Quantity::Body(name, axis) => sim.body_named(name)[*axis],
            Quantity::Distance(a, b) => length(&difference(sim.body_named(a), sim.body_named(b))),
        }
    }
}

impl Task for Described {
    fn about(&self) -> About {
        let forces = self.observation.iter().any(|(seen, _)| *seen == Seen::ContactForces)
            || self.rewards.iter().any(|(term, _)| *term == Term::Contact);
        About {
            id: self.id.clone(),
            model: ModelFile::Path(self.model.clone()),
            bodies: self.bodies(),
            frame_skip: self.frame_skip,
            max_episode_steps: self.max_episode_steps,
            reward_threshold: self.reward_threshold,
            contact_forces: forces,
        }
    }
    fn reset(&self, sim: &mut Sim, rng: &mut Stream) {
        let noise = if self.noise.normal { normal_noise } else { uniform_noise };
        noise(sim.qpos_mut(), self.noise.qpos, rng);
        noise(sim.qvel_mut(), self.noise.qvel, rng);
    }
    fn memory(&self, sim: &Sim) -> [f64; MEMORY] {
        let mut memory = [0.0; MEMORY];
        let speeds = self.rewards.iter().filter_map(|(term, _)| match term {
            Term::Speed(q) => Some(q),
            _ => None,
        });
        for (to, quantity) in memory.iter_mut().zip(speeds) {
            *to = self.value(sim, quantity);
        }
        memory
    }
    fn outcome(&self, before: &[f64; MEMORY], sim: &Sim, action: &[f32]) -> Outcome {
        // Not `<` and `>`: a number that is not one is outside as well.
        let terminated = self.limits.iter().any(|l| {
            let x = self.value(sim, &l.of);
            !(l.least <= x && x <= l.greatest)
        });
        let mut before = before.iter();
        let mut reward = 0.0;
        for (term, weight) in &self.rewards {
            let x = match term {
                Term::Alive => f64::from(u8::from(!terminated)),
                Term::Control => f64::from(sum_of_squares(action)),
                Term::Contact => sum_of_squares(sim.contact_forces().as_flattened()),
                Term::Value(q) => self.value(sim, q),
                Term::Square(q, target) => (self.value(sim, q) - target).powi(2),
                Term::Speed(q) => {
                    let old = before.next().copied().unwrap_or_default();
                    (self.value(sim, q) - old) / sim.dt()
                }
            };
            reward += weight * x;
        }
        Outcome { reward, terminated }
    }
    fn observe(&self, sim: &Sim, obs: &mut Vec<f64>) {
        for (seen, cut) in &self.observation {
            let from = obs.len();
            match seen {
                Seen::Qpos { skip } => obs.extend_from_slice(&sim.qpos()[*skip..]),
                Seen::Qvel => obs.extend_from_slice(sim.qvel()),
                Seen::Sensors => obs.extend_from_slice(sim.sensors()),
                Seen::ContactForces => obs.extend_from_slice(sim.contact_forces()[1..].as_flattened()),
                Seen::Body(name) => obs.extend_from_slice(&sim.body_named(name)),
                Seen::One(q) => obs.push(self.value(sim, q)),
                Seen::Angle(q) => {
                    let (sin, cos) = self.value(sim, q).sin_cos();
                    obs.extend([sin, cos]);
                }
            }
            obs[from..].iter_mut().for_each(|x| *x = x.clamp(-cut, *cut));
        }
    }
}
