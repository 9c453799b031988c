//! What can be typed.

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Args, Parser, Subcommand, ValueEnum, ValueHint};
use pgrad_settings::{ConfigErrors, apply_text, settings};
use std::ffi::OsStr;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;

const EXAMPLES: &str = "\
Examples:
  pgrad train                           PPO on CartPole-v1 with its preset
  pgrad train ppo Pendulum-v1 --seed 3  another task and seed
  pgrad train --set clip=0.1 --n-envs 16
  pgrad eval runs/ppo-CartPole-v1       evaluates the trained policy
  pgrad show ppo > my.toml              writes all settings to a file; then
  pgrad train --config my.toml

Exit codes:
  0 done, 64 bad usage or configuration, 65 bad input file or environment data, 70 a bug of pgrad,
  74 input or output failed, 75 stopped on request (`pgrad resume` continues), 130/143 stopped at once";

/// Policy gradients: fast, exact, resumable.
#[derive(Debug, Parser)]
#[command(name = "pgrad", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train an agent.
    Train(TrainArgs),
    /// Continue a stopped run to its configured number of steps, bit for bit.
    Resume(ResumeArgs),
    /// Evaluate a trained policy over complete episodes.
    Eval(EvalArgs),
    /// Run an experiment: algorithms x environments x seeds, with a table of scores and intervals.
    Study(StudyArgs),
    /// Measure the speed of training.
    Bench(BenchArgs),
    /// Plot the learning curves of runs.
    Plot(PlotArgs),
    /// List algorithms, environments, presets or studies.
    List(ListArgs),
    /// Print the effective settings as TOML, each with an explanation.
    Show(ShowArgs),
    /// Check an environment for mistakes.
    CheckEnv(CheckEnvArgs),
    /// Print a completion script for a shell.
    ///
    /// For bash: `pgrad completions bash > ~/.local/share/bash-completion/completions/pgrad`.
    Completions(CompletionsArgs),
}

/// Which algorithm on which environment.
#[derive(Debug, Args)]
pub(crate) struct Task {
    /// Algorithm.
    #[arg(value_name = "ALGO", value_parser = Names::algos(), hide_possible_values = true)]
    pub(crate) algo: Option<String>,
    /// Environment.
    #[arg(value_name = "ENV", value_parser = Names::envs(), hide_possible_values = true)]
    pub(crate) env: Option<String>,
}

/// Where settings come from, from the weakest to the strongest: defaults, preset, file, these options.
#[derive(Debug, Args)]
pub(crate) struct SettingArgs {
    /// Random seed.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub(crate) seed: Option<String>,
    /// Number of environments stepped together.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) n_envs: Option<String>,
    /// Preset: `tuned` (the default, if there is one), another from `pgrad list presets`, or `none`.
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Python interpreter for environments in Python (`gym:ID`, `envpool:ID`).
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub(crate) python: Option<String>,
    /// TOML file of settings, which override the preset.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Any setting; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl SettingArgs {
    /// The options that are a setting of their own, with the setting's name.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&'static str, &'static str, &str)> {
        let options = [
            ("seed", "--seed", &self.seed),
            ("n_envs", "--n-envs", &self.n_envs),
            ("python", "--python", &self.python),
        ];
        options.into_iter().filter_map(|(key, option, text)| Some((key, option, text.as_deref()?)))
    }
}

/// How many threads work. No setting: it changes nothing but the time.
#[derive(Debug, Args)]
pub(crate) struct Threads {
    /// Worker threads. The result is the same for every number. Default: one for each core. Asynchronous
    /// methods have one for each actor-learner instead (`workers`).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<String>,
}

settings! {
    /// Options of the machine
    struct Machine {
        /// Number of worker threads.
        threads: usize = 1, range: 1..=1024, unit: "threads";
    }
}

impl Threads {
    /// The number of threads; one for each core when none was named.
    ///
    /// # Errors
    /// When it is no number, or one that makes no sense.
    pub(crate) fn count(&self) -> Result<usize, ConfigErrors> {
        let mut machine = Machine { threads: available_parallelism().map_or(1, NonZero::get) };
        if let Some(text) = &self.threads {
            apply_text("threads", text, "--threads", &mut [&mut machine])?;
        }
        Ok(machine.threads)
    }
}

/// How much is said.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Verbosity {
    /// Print a single JSON object to standard output, and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Verbosity {
    /// Whether people are talked to.
    pub(crate) fn loud(self) -> bool {
        !self.json && !self.quiet
    }
}

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) task: Task,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    /// Total number of environment steps.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: Option<String>,
    #[command(flatten)]
    pub(crate) threads: Threads,
    /// Folder of the run; must not exist. Default: a new one below `runs/`.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) run_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
}

#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Folder of the run.
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub(crate) run: PathBuf,
    /// Environment steps of the whole run, in place of those that it was configured for.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: Option<String>,
    /// Another Python for environments of Gymnasium (`gym:ID`).
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub(crate) python: Option<String>,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// Folder of the run.
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub(crate) run: PathBuf,
    /// Number of episodes. Default: 100.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) episodes: Option<String>,
    /// Seed of the episodes. Default: 1000000, far from those of training.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub(crate) seed: Option<String>,
    /// Draw actions from the policy instead of taking the most likely one.
    #[arg(long)]
    pub(crate) stochastic: bool,
    /// Steps after which an episode is given up. It does not count, and is reported. Default: 1000000.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) max_steps: Option<String>,
    /// Environments that exist at the same time; 1 for one that cannot exist twice. Default: 256.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) n_envs: Option<String>,
    /// Film the first episodes to a `.gif` file, or to `.mp4` if `ffmpeg` is installed.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) video: Option<PathBuf>,
    /// Episodes in the film. Default: 1.
    #[arg(long, value_name = "N", requires = "video", allow_negative_numbers = true)]
    pub(crate) video_episodes: Option<String>,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
}

#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    /// File of the study, or the name of one that comes with pgrad (`pgrad list studies`).
    #[arg(value_name = "FILE|NAME", value_hint = ValueHint::FilePath)]
    pub(crate) study: String,
    /// Folder of the results; an existing one is continued. Default: one below `studies-out/`.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
    /// Run only the first N seeds; or others, FIRST.. or FIRST..LAST, whose scores are shown beside those in
    /// the folder.
    #[arg(long, value_name = "N|FIRST..[LAST]", allow_negative_numbers = true)]
    pub(crate) seeds: Option<String>,
    /// Accept results of another build of pgrad with the same settings instead of repeating them; SOURCES is
    /// the last cell of their lines in results.csv. May be repeated. The tables name these entries.
    #[arg(long, value_name = "SOURCES")]
    pub(crate) accept: Vec<String>,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) task: Task,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    #[command(flatten)]
    pub(crate) threads: Threads,
    /// Seconds to measure. Default: 5.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub(crate) seconds: Option<String>,
    /// Measure the environments alone, with random actions.
    #[arg(long)]
    pub(crate) env_only: bool,
    /// Print a single JSON object, and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlotArgs {
    /// Folders of the runs.
    #[arg(value_name = "RUN", required = true, value_hint = ValueHint::DirPath)]
    pub(crate) runs: Vec<PathBuf>,
    /// File to write, `.svg` or `.png`.
    #[arg(long, short, value_name = "FILE", default_value = "learning-curve.svg", value_hint = ValueHint::FilePath)]
    pub(crate) out: PathBuf,
    /// Metric to plot, by its name in `metrics.jsonl`. Default: `train/return_mean_100`.
    #[arg(long, value_name = "NAME")]
    pub(crate) metric: Option<String>,
    /// Width of the picture in points. Default: 900.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) width: Option<String>,
    /// Height of the picture in points. Default: 560.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) height: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// What to list.
    #[arg(value_name = "WHAT")]
    pub(crate) what: ListWhat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ListWhat {
    /// Algorithms.
    Algos,
    /// Environments.
    Envs,
    /// Presets.
    Presets,
    /// Studies.
    Studies,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) task: Task,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
    /// Total number of environment steps.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) steps: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckEnvArgs {
    /// Environment.
    #[arg(value_name = "ENV", value_parser = Names::envs(), hide_possible_values = true)]
    pub(crate) env: String,
    /// Seed of the check.
    #[arg(long, value_name = "S", allow_negative_numbers = true, default_value = "1")]
    pub(crate) seed: String,
    /// Time after which the check is stopped; what was not reached is then not checked.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value = "120")]
    pub(crate) seconds: String,
    /// Python interpreter for environments in Python (`gym:ID`, `envpool:ID`).
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub(crate) python: Option<String>,
    /// A setting of the environment; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell.
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Names that completion scripts offer. What is typed is looked up by the commands, whose errors say more
/// than clap's.
#[derive(Clone)]
struct Names(Vec<&'static str>);

impl Names {
    fn algos() -> Self {
        Self(pgrad_algos::REGISTRY.iter().map(|a| a.name).collect())
    }
    fn envs() -> Self {
        Self(pgrad_envs::REGISTRY.iter().map(|e| e.id).collect())
    }
}

impl TypedValueParser for Names {
    type Value = String;
    fn parse_ref(&self, _: &clap::Command, _: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        Ok(value.to_string_lossy().into_owned())
    }
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}
