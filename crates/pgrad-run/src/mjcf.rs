//! Tasks on MuJoCo models of one's own: `mjcf:FILE.toml`.
//!
//! ```toml
//! model = "pole.xml"          # an MJCF file, beside this one
//! frame_skip = 2              # steps of the physics in one of the task
//! max_episode_steps = 500     # when left out: no limit
//! reward_threshold = 450.0    # when left out: none
//! observation = [
//!     { part = "qpos", skip = 1 },          # positions, without the first
//!     { part = "qvel", clip = 10.0 },       # velocities, cut to this size
//!     { part = "angle", of = "qpos 1" },    # sine and cosine
//!     { part = "body", name = "tip" },      # its three coordinates
//! ]
//! reward = [
//!     { term = "alive", weight = 1.0 },
//!     { term = "speed", of = "body torso x", weight = 1.0 },
//!     { term = "square", of = "qpos 1", target = 0.0, weight = -0.5 },
//!     { term = "control", weight = -0.1 },
//! ]
//! terminate = [{ of = "qpos 1", least = -0.2, greatest = 0.2 }]
//! reset = { noise = "uniform", qpos = 0.01, qvel = 0.01 }
//! ```
//!
//! | part | what is seen |
//! |---|---|
//! | `qpos`, `qvel` | positions (`skip`: without the first so many), velocities |
//! | `sensors` | data of all sensors |
//! | `contact-forces` | external forces on every body but the world |
//! | `body` | the place of the body `name` |
//! | `value`, `angle` | the number `of`; its sine and cosine |
//!
//! | term | what is rewarded, times `weight` |
//! |---|---|
//! | `alive` | 1 for a step that does not end the episode |
//! | `control`, `contact` | sum of the squared actions; of the squared contact forces |
//! | `value` | the number `of` after the step |
//! | `square` | (the number `of` − `target`)² after the step |
//! | `speed` | change of the number `of` over the step's seconds |
//!
//! A number is `qpos I`, `qvel I`, `sensor I` (from 0), `body NAME x|y|z` or `distance NAME NAME`.

use crate::env::{EnvSource, Made, OpenEnv};
use pgrad_env::{MakeError, MakeErrorKind};
use pgrad_envs::mujoco::{Described, Limit, Noise, Quantity, Seen, Term};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// What a name begins with.
pub(crate) const PREFIX: &str = "mjcf:";
/// Forms of a number.
const FORMS: &str = "`qpos I`, `qvel I`, `sensor I`, `body NAME x|y|z` or `distance NAME NAME`";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: PathBuf,
    frame_skip: u32,
    max_episode_steps: Option<u32>,
    reward_threshold: Option<f64>,
    observation: Vec<Spanned<PartFile>>,
    reward: Vec<Spanned<TermFile>>,
    #[serde(default)]
    terminate: Vec<Spanned<LimitFile>>,
    #[serde(default)]
    reset: ResetFile,
}

#[derive(Deserialize)]
#[serde(tag = "part", rename_all = "kebab-case", deny_unknown_fields)]
enum PartFile {
    Qpos {
        #[serde(default)]
        skip: usize,
        clip: Option<f64>,
    },
    Qvel {
        clip: Option<f64>,
    },
    Sensors {
        clip: Option<f64>,
    },
    ContactForces {
        clip: Option<f64>,
    },
    Body {
        name: String,
        clip: Option<f64>,
    },
    Value {
        of: String,
        clip: Option<f64>,
    },
    Angle {
        of: String,
        clip: Option<f64>,
    },
}

#[derive(Deserialize)]
#[serde(tag = "term", rename_all = "kebab-case", deny_unknown_fields)]
enum TermFile {
    Alive { weight: f64 },
    Control { weight: f64 },
    Contact { weight: f64 },
    Value { of: String, weight: f64 },
    Square { of: String, target: f64, weight: f64 },
    Speed { of: String, weight: f64 },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitFile {
    of: String,
    #[serde(default = "lowest")]
    least: f64,
    #[serde(default = "highest")]
    greatest: f64,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetFile {
    #[serde(default)]
    noise: NoiseFile,
    #[serde(default)]
    qpos: f64,
    #[serde(default)]
    qvel: f64,
}

#[derive(Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum NoiseFile {
    #[default]
    Uniform,
    Normal,
}

fn lowest() -> f64 {
    f64::NEG_INFINITY
}
fn highest() -> f64 {
    f64::INFINITY
}

/// The source of `mjcf:FILE.toml`.
///
/// # Errors
/// When no file is named.
pub(crate) fn source(id: &str) -> Result<Box<dyn EnvSource>, MakeError> {
    let path = id.strip_prefix(PREFIX).unwrap_or(id);
    if path.is_empty() {
        let message = format!("`{id}` names no file");
        return Err(MakeError::new(MakeErrorKind::Usage, message).with_hint("`mjcf:FILE.toml`"));
    }
    Ok(Box::new(Mjcf { id: id.to_owned(), path: path.into() }))
}

#[derive(Clone, Debug)]
struct Mjcf {
    id: String,
    path: PathBuf,
}

impl EnvSource for Mjcf {
    fn boxed_clone(&self) -> Box<dyn EnvSource> {
        Box::new(self.clone())
    }
    fn open(&self) -> Result<Box<dyn OpenEnv>, MakeError> {
        let text = std::fs::read_to_string(&self.path).map_err(|e| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => MakeErrorKind::Usage,
                _ => MakeErrorKind::Io,
            };
            MakeError::new(kind, format!("cannot read `{}`: {e}", self.path.display()))
        })?;
        Made::open(parse(&text, &self.id, &self.path)?.load()?)
    }
}

/// The task that a file describes.
///
/// # Errors
/// Where it is wrong, and why.
fn parse(text: &str, id: &str, path: &Path) -> Result<Described, MakeError> {
    let wrong = |at: Option<usize>, message: &str| {
        let line = at.map_or_else(String::new, |at| {
            format!(":{}", 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count())
        });
        MakeError::new(MakeErrorKind::Data, format!("{}{line}: {message}", path.display()))
            .with_hint("the book's page on MuJoCo describes such a file")
    };
    let file: File = toml::from_str(text).map_err(|e| wrong(e.span().map(|s| s.start), e.message()))?;
    let number = |at: usize, words: &str| quantity(words).map_err(|e| wrong(Some(at), &e));
    let positive = |at: usize, name: &str, x: f64| {
        if x > 0.0 { Ok(x) } else { Err(wrong(Some(at), &format!("`{name}` is {x}, and must be above 0"))) }
    };
    if file.frame_skip == 0 || file.max_episode_steps == Some(0) {
        return Err(wrong(None, "`frame_skip` and `max_episode_steps` must be at least 1"));
    }
    let mut observation = Vec::new();
    for part in file.observation {
        let at = part.span().start;
        let (seen, clip) = match part.into_inner() {
            PartFile::Qpos { skip, clip } => (Seen::Qpos { skip }, clip),
            PartFile::Qvel { clip } => (Seen::Qvel, clip),
            PartFile::Sensors { clip } => (Seen::Sensors, clip),
            PartFile::ContactForces { clip } => (Seen::ContactForces, clip),
            PartFile::Body { name, clip } => (Seen::Body(name), clip),
            PartFile::Value { of, clip } => (Seen::One(number(at, &of)?), clip),
            PartFile::Angle { of, clip } => (Seen::Angle(number(at, &of)?), clip),
        };
        observation.push((seen, positive(at, "clip", clip.unwrap_or(f64::INFINITY))?));
    }
    let mut rewards = Vec::new();
    for term in file.reward {
        let at = term.span().start;
        let (term, weight) = match term.into_inner() {
            TermFile::Alive { weight } => (Term::Alive, weight),
            TermFile::Control { weight } => (Term::Control, weight),
            TermFile::Contact { weight } => (Term::Contact, weight),
            TermFile::Value { of, weight } => (Term::Value(number(at, &of)?), weight),
            TermFile::Square { of, target, weight } => (Term::Square(number(at, &of)?, target), weight),
            TermFile::Speed { of, weight } => (Term::Speed(number(at, &of)?), weight),
        };
        if !weight.is_finite() {
            return Err(wrong(Some(at), "`weight` must be finite"));
        }
        rewards.push((term, weight));
    }
    let mut limits = Vec::new();
    for limit in file.terminate {
        let at = limit.span().start;
        let LimitFile { of, least, greatest } = limit.into_inner();
        let in_order = least.partial_cmp(&greatest) == Some(std::cmp::Ordering::Less);
        if !in_order || (least.is_infinite() && greatest.is_infinite()) {
            let message = "give `least`, `greatest` or both, `least` below `greatest`";
            return Err(wrong(Some(at), message));
        }
        limits.push(Limit { of: number(at, &of)?, least, greatest });
    }
    let noise =
        Noise { normal: file.reset.noise == NoiseFile::Normal, qpos: file.reset.qpos, qvel: file.reset.qvel };
    if ![noise.qpos, noise.qvel].iter().all(|x| x.is_finite() && *x >= 0.0) {
        return Err(wrong(None, "`reset`: `qpos` and `qvel` must be at least 0"));
    }
    Ok(Described {
        id: id.to_owned(),
        model: path.parent().unwrap_or(Path::new("")).join(file.model),
        frame_skip: file.frame_skip,
        max_episode_steps: file.max_episode_steps,
        reward_threshold: file.reward_threshold,
        observation,
        rewards,
        limits,
        noise,
    })
}

/// The number that these words name.
fn quantity(words: &str) -> Result<Quantity, String> {
    let wrong = || format!("`{words}` is no number of a simulation: expected {FORMS}");
    let index = |i: &str| i.parse().map_err(|_| wrong());
    match *words.split_whitespace().collect::<Vec<&str>>() {
        ["qpos", i] => Ok(Quantity::Qpos(index(i)?)),
        ["qvel", i] => Ok(Quantity::Qvel(index(i)?)),
        ["sensor", i] => Ok(Quantity::Sensor(index(i)?)),
        ["body", name, axis @ ("x" | "y" | "z")] => {
            Ok(Quantity::Body(name.to_owned(), ["x", "y", "z"].iter().position(|a| *a == axis).unwrap_or(0)))
        }
        ["distance", a, b] => Ok(Quantity::Distance(a.to_owned(), b.to_owned())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::NamedEnv;
    use pgrad_env::{Actions, End, Space, check_batch_env};
    use pgrad_num::{Cols, Stream};

    const MODEL: &str = r#"<mujoco>
  <option timestep="0.01" integrator="RK4"/>
  <worldbody>
    <body name="cart">
      <joint name="slider" type="slide" axis="1 0 0"/><geom size="0.1"/>
      <body name="tip" pos="0 0 0.6">
        <joint name="hinge" type="hinge" axis="0 1 0" pos="0 0 -0.6"/><geom size="0.05"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slider" gear="10" ctrllimited="true" ctrlrange="-2 2"/></actuator>
</mujoco>"#;

    const TASK: &str = r#"model = "pole.xml"
frame_skip = 2
max_episode_steps = 100
observation = [
    { part = "qpos", skip = 1 },
    { part = "qvel", clip = 0.5 },
    { part = "angle", of = "qpos 1" },
    { part = "body", name = "tip" },
]
reward = [
    { term = "alive", weight = 2.0 },
    { term = "speed", of = "body cart x", weight = 3.0 },
    { term = "square", of = "qpos 1", target = 0.5, weight = -1.5 },
    { term = "control", weight = -0.25 },
    { term = "value", of = "distance cart tip", weight = 0.125 },
]
terminate = [{ of = "qpos 1", least = -0.2, greatest = 0.2 }]
reset = { noise = "uniform", qpos = 0.01, qvel = 0.01 }
"#;

    fn opened(task: &str) -> Result<NamedEnv, MakeError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("pole.xml"), MODEL).unwrap();
        let file = dir.path().join("pole.toml");
        std::fs::write(&file, task).unwrap();
        let env = NamedEnv::find(&format!("mjcf:{}", file.display())).unwrap();
        env.open()?;
        Ok(env)
    }

    #[test]
    fn a_described_task_is_what_its_file_says() {
        let named = opened(TASK).unwrap();
        let open = named.open().unwrap();
        assert_eq!(check_batch_env(|n| open.make(n), 1), Ok(vec![]));
        assert_eq!(open.spec().max_episode_steps, Some(100));
        let Space::Box(bounds) = &open.spec().action else { panic!("a box") };
        assert_eq!((bounds.low[0], bounds.high[0]), (-2.0, 2.0));
        let mut env = open.make(1).unwrap();
        let mut rngs = [Stream::new(1, 1, 0)];
        env.reset(0, &mut rngs[0]);
        // The state of the file: time, two positions, two velocities, ...
        let state = |env: &dyn pgrad_env::BatchEnv| env.save(0).unwrap();
        let (mut rewards, mut ends) = ([0.0], [End::Running]);
        let mut obs = [0.0f32; 8];
        let mut steps = 0;
        let mut cart = None;
        while ends[0] == End::Running {
            let before = state(&*env);
            env.step(Actions::real(Cols::new(&[1.5], 1, 1)), &mut rngs, &mut rewards, &mut ends);
            let s = state(&*env);
            let (angle, speeds) = (s[2], [s[3], s[4]]);
            env.observe_one(0, &mut obs);
            let near = |x: f32, y: f64| assert!((f64::from(x) - y).abs() < 1e-6, "{x} {y}");
            near(obs[0], angle);
            near(obs[1], speeds[0].clamp(-0.5, 0.5));
            near(obs[2], speeds[1].clamp(-0.5, 0.5));
            near(obs[3], angle.sin());
            near(obs[4], angle.cos());
            // A body's place is that of the last substep's start.
            let (x, lean) = (s[1] - 0.01 * speeds[0], angle - 0.01 * speeds[1]);
            let tip = x + 0.6 * lean.sin();
            assert!((f64::from(obs[5]) - tip).abs() < 0.01, "{} {tip}", obs[5]);
            let alive = if angle.abs() <= 0.2 { 2.0 } else { 0.0 };
            assert_eq!(ends[0] == End::Terminated, alive == 0.0);
            let rest = alive - 1.5 * (angle - 0.5).powi(2) - 0.25 * 2.25 + 0.125 * 0.6;
            let speed = (rewards[0] - rest) / 3.0;
            let mean = (s[1] - before[1]) / 0.02;
            assert!((speed - mean).abs() < 0.2, "{speed} {mean}");
            cart = Some(s[1]);
            steps += 1;
        }
        assert!(steps > 2 && cart.is_some_and(|x| x > 0.0), "it was pushed to the right until the pole fell");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said() {
        for (from, to, expected) in [
            ("frame_skip = 2", "frame_skip = 0", "must be at least 1"),
            ("frame_skip = 2", "frame_skp = 2", ":2: unknown field `frame_skp`"),
            ("part = \"qvel\"", "part = \"qvell\"", "unknown variant `qvell`"),
            (
                "of = \"body cart x\"",
                "of = \"body cart w\"",
                ":12: `body cart w` is no number of a simulation",
            ),
            (
                "of = \"qpos 1\", target",
                "of = \"qpos 7\", target",
                "index 7 is out of range: the model has 2 positions",
            ),
            ("distance cart tip", "distance cart top", "observes the body `top`"),
            ("skip = 1", "skip = 2", "leaves none of the model's 2 positions"),
            ("least = -0.2", "least = 0.3", ":17: give `least`, `greatest` or both"),
            ("pole.xml", "pale.xml", "pale.xml"),
            ("clip = 0.5", "clip = -0.5", ":6: `clip` is -0.5, and must be above 0"),
            ("qvel = 0.01", "qvel = -0.01", "must be at least 0"),
        ] {
            assert!(TASK.contains(from), "{from}");
            let error = opened(&TASK.replacen(from, to, 1)).unwrap_err();
            assert!(error.message.contains(expected), "{to}: {}", error.message);
            assert!([64, 65].contains(&error.exit_code()), "{to}");
        }
        let none = NamedEnv::find("mjcf:nowhere/task.toml").unwrap();
        let error = none.open().map(|_| ()).unwrap_err();
        assert!(error.exit_code() == 64 && error.message.contains("nowhere/task.toml"), "{error}");
    }
}
