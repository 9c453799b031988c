//! Models and simulations: what the tasks see of the MuJoCo library.

use super::About;
use mujoco_rs::mujoco_c::{mjVERSION_HEADER, mjtState};
use mujoco_rs::prelude::{MjData, MjLogMessage, MjModel, MjModelError, MjtObjBase, set_log_handler};
use pgrad_env::{BoxSpace, MakeError, MakeErrorKind};
use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

/// All that the next step of the physics depends on, the solver's warm start included.
const STATE: u32 = mjtState::mjSTATE_INTEGRATION as u32;

/// What to do when something of MuJoCo is missing.
const GET: &str = "`cargo xtask mujoco` installs the library and the models of Gymnasium's tasks";

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFile {
    /// A file of [`models_folder`].
    Gymnasium(&'static str),
    /// A file of one's own.
    Path(PathBuf),
}

/// The folder of Gymnasium's models: the variable `PGRAD_MUJOCO_MODELS`, or where `cargo xtask mujoco` put
/// them.
#[must_use]
pub fn models_folder() -> PathBuf {
    match std::env::var_os("PGRAD_MUJOCO_MODELS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cargo-xtask-mujoco/models"),
    }
}

/// A model, and what a task needs of it.
#[derive(Clone, Debug)]
pub struct Model {
    model: Arc<MjModel>,
    /// Names and numbers of the bodies that the task looks at.
    bodies: Arc<[(String, usize)]>,
    frame_skip: u32,
    contact_forces: bool,
}

impl Model {
    /// Reads a task's model.
    ///
    /// # Errors
    /// When there is no such file, MuJoCo cannot read it, it lacks a body that the task looks at, or the
    /// library is of another version than the one that this program was built for.
    pub fn load(about: &About) -> Result<Self, MakeError> {
        let id = &about.id;
        let path = match &about.model {
            ModelFile::Gymnasium(name) => models_folder().join(name),
            ModelFile::Path(path) => path.clone(),
        };
        check_version(id)?;
        if !path.is_file() {
            let message = format!("`{id}` needs the model `{}`, but there is no such file", path.display());
            let (kind, hint) = match about.model {
                ModelFile::Gymnasium(_) => (MakeErrorKind::Io, GET),
                ModelFile::Path(_) => (MakeErrorKind::Usage, "give the path of an MJCF file"),
            };
            return Err(MakeError::new(kind, message).with_hint(hint));
        }
        let data = |message: String| MakeError::new(MakeErrorKind::Data, message);
        let model =
            read(&path).map_err(|e| data(format!("`{id}`: MuJoCo cannot read `{}`: {e}", path.display())))?;
        let body = |name: &String| {
            model.name_to_id(MjtObjBase::mjOBJ_BODY, name).map(|id| (name.clone(), id)).ok_or_else(|| {
                data(format!("`{id}` observes the body `{name}`, but `{}` has none", path.display()))
            })
        };
        let bodies = about.bodies.iter().map(body).collect::<Result<Vec<_>, MakeError>>()?;
        Ok(Self {
            model: Arc::new(model),
            bodies: bodies.into(),
            frame_skip: about.frame_skip,
            contact_forces: about.contact_forces,
        })
    }
    /// What the actuators take: their control ranges, everything where they have none.
    #[must_use]
    pub fn action_space(&self) -> BoxSpace {
        let ranges = self.model.actuator_ctrlrange();
        let bounds = |i: usize, free: f32| {
            ranges
                .iter()
                .zip(self.model.actuator_ctrllimited())
                .map(move |(range, limited)| if *limited { range[i] as f32 } else { free })
        };
        BoxSpace::new(bounds(0, f32::NEG_INFINITY).collect(), bounds(1, f32::INFINITY).collect())
    }
    /// MuJoCo's own model.
    #[must_use]
    pub fn raw(&self) -> &MjModel {
        &self.model
    }
}

/// `mujoco-rs` panics when the library is another one than it binds; here it is an error.
fn check_version(id: &str) -> Result<(), MakeError> {
    let found = mujoco_rs::mujoco_version();
    let (major, minor, patch) =
        (mjVERSION_HEADER / 1_000_000, mjVERSION_HEADER / 1000 % 1000, mjVERSION_HEADER % 1000);
    let built_for = format!("{major}.{minor}.{patch}");
    if found == built_for {
        return Ok(());
    }
    let message = format!("`{id}` needs MuJoCo {built_for}, but the library found is {found}");
    Err(MakeError::new(MakeErrorKind::Io, message).with_hint(GET))
}

thread_local! {
    /// Whether this thread is reading a model: what the library remarks on that comes back as an error, or is
    /// advice to whoever wrote the model.
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// What MuJoCo has to say of a simulation goes to the terminal. By itself it would write a file into the
/// working folder as well, and a line for each deprecated word in Gymnasium's models.
fn say(message: &MjLogMessage) {
    if !READING.get() {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "MuJoCo: {}", message.subject());
    }
}

/// Reads a model quietly.
fn read(path: &Path) -> Result<MjModel, MjModelError> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "where messages go is a global of the library")]
        // SAFETY: nobody may use MuJoCo meanwhile. This runs once, before the first model is read, and
        // everything that this crate does with MuJoCo starts with reading a model, which waits for it.
        unsafe {
            set_log_handler(say);
        }
    });
    READING.set(true);
    let model = MjModel::from_xml(path);
    READING.set(false);
    model
}

/// One copy's simulation.
#[derive(Debug)]
pub struct Sim {
    model: Arc<MjModel>,
    data: MjData<Arc<MjModel>>,
    bodies: Arc<[(String, usize)]>,
    frame_skip: u32,
    contact_forces: bool,
    /// Seconds of a step of the task.
    dt: f64,
}

impl Sim {
    /// A simulation at the model's first state.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(model: &Model) -> Result<Self, MakeError> {
        let data = MjData::try_new(Arc::clone(&model.model))
            .map_err(|e| MakeError::new(MakeErrorKind::Io, format!("cannot create a simulation: {e}")))?;
        let mut sim = Self {
            dt: model.model.opt().timestep * f64::from(model.frame_skip),
            data,
            model: Arc::clone(&model.model),
            bodies: Arc::clone(&model.bodies),
            frame_skip: model.frame_skip,
            contact_forces: model.contact_forces,
        };
        sim.forward();
        Ok(sim)
    }
    /// Back to the model's first state.
    pub(super) fn reset(&mut self) {
        self.data.reset();
    }
    /// Computes everything that follows from positions and velocities.
    pub(super) fn forward(&mut self) {
        self.data.forward();
    }
    /// A step of the task under these controls.
    pub(super) fn step(&mut self, action: &[f32]) {
        for (to, a) in self.data.ctrl_mut().iter_mut().zip(action) {
            *to = f64::from(*a);
        }
        for _ in 0..self.frame_skip {
            self.data.step();
        }
        if self.contact_forces {
            self.data.rne_post_constraint();
        }
    }
    /// Numbers of [`Sim::save`].
    pub(super) fn state_len(&self) -> usize {
        self.data.model().state_size(STATE)
    }
    /// The whole state of integration.
    pub(super) fn save(&self) -> Vec<f64> {
        self.data.state(STATE).into()
    }
    /// Restores what [`Sim::save`] returned; `false` when it cannot be a state.
    pub(super) fn load(&mut self, state: &[f64]) -> bool {
        let old = self.save();
        self.data.reset();
        let fits = self.data.set_state(state, STATE).is_ok() && self.save() == state;
        if !fits {
            self.data.reset();
            // It was this simulation's own state.
            let _ = self.data.set_state(&old, STATE);
        }
        fits
    }
    /// Positions of the joints.
    #[must_use]
    pub fn qpos(&self) -> &[f64] {
        self.data.qpos()
    }
    /// The same, to write.
    pub fn qpos_mut(&mut self) -> &mut [f64] {
        self.data.qpos_mut()
    }
    /// Velocities of the joints.
    #[must_use]
    pub fn qvel(&self) -> &[f64] {
        self.data.qvel()
    }
    /// The same, to write.
    pub fn qvel_mut(&mut self) -> &mut [f64] {
        self.data.qvel_mut()
    }
    /// Controls of the last step.
    #[must_use]
    pub fn ctrl(&self) -> &[f64] {
        self.data.ctrl()
    }
    /// Seconds of a step of the task.
    #[must_use]
    pub fn dt(&self) -> f64 {
        self.dt
    }
    /// Seconds of a step of the physics.
    #[must_use]
    pub fn timestep(&self) -> f64 {
        self.data.model().opt().timestep
    }
    /// Place of a body: number `i` of the task's [`About::bodies`].
    #[must_use]
    pub fn body(&self, i: usize) -> [f64; 3] {
        self.data.xpos()[self.bodies[i].1]
    }
    /// Place of one of the task's [`About::bodies`], by its name.
    ///
    /// # Panics
    /// When it is none of them.
    #[must_use]
    pub fn body_named(&self, name: &str) -> [f64; 3] {
        let found = self.bodies.iter().find(|(own, _)| own == name);
        let Some((_, id)) = found else {
            panic!("the task did not declare that it observes the body `{name}`")
        };
        self.data.xpos()[*id]
    }
    /// Data of all sensors.
    #[must_use]
    pub fn sensors(&self) -> &[f64] {
        self.data.sensordata()
    }
    /// Place of site `i` of the model.
    #[must_use]
    pub fn site(&self, i: usize) -> [f64; 3] {
        self.data.site_xpos()[i]
    }
    /// Centre of mass of all bodies: `Σ mᵢ xᵢ / Σ mᵢ`, the first coordinate.
    #[must_use]
    pub fn mass_centre_x(&self) -> f64 {
        let mass = self.data.model().body_mass();
        let moment: f64 = mass.iter().zip(self.data.xipos()).map(|(m, x)| m * x[0]).sum();
        moment / mass.iter().sum::<f64>()
    }
    /// External forces on each body, torque first; up to date after a step if [`About::contact_forces`] wants
    /// them.
    #[must_use]
    pub fn contact_forces(&self) -> &[[f64; 6]] {
        self.data.cfrc_ext()
    }
    /// Inertia and mass of each body about the centre of mass.
    #[must_use]
    pub fn inertias(&self) -> &[[f64; 10]] {
        self.data.cinert()
    }
    /// Velocities of each body about the centre of mass, angular first.
    #[must_use]
    pub fn body_velocities(&self) -> &[[f64; 6]] {
        self.data.cvel()
    }
    /// Forces of the actuators on each degree of freedom.
    #[must_use]
    pub fn actuator_forces(&self) -> &[f64] {
        self.data.qfrc_actuator()
    }
    /// Forces of the constraints on each degree of freedom.
    #[must_use]
    pub fn constraint_forces(&self) -> &[f64] {
        self.data.qfrc_constraint()
    }
    /// The model.
    pub(super) fn model(&self) -> &Arc<MjModel> {
        &self.model
    }
    /// MuJoCo's own data, to draw.
    pub(super) fn raw_mut(&mut self) -> &mut MjData<Arc<MjModel>> {
        &mut self.data
    }
    /// MuJoCo's own data.
    #[must_use]
    pub fn raw(&self) -> &MjData<Arc<MjModel>> {
        &self.data
    }
}
