//! The command from outside: exit codes, messages, help, files.

#![expect(clippy::unwrap_used, reason = "a test whose command cannot be started fails")]

use pgrad_testkit::{python, python_with};
use std::path::Path;
use tempfile::TempDir;

/// What a command did.
#[derive(Debug)]
struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn of(output: &std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
    /// The command failed with this code and said, on the standard error alone, each of `parts`; the first
    /// line is the error.
    #[track_caller]
    fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        for part in parts {
            assert_eq!(self.stderr.matches(part).count(), 1, "`{part}` once in {}", self.stderr);
        }
        assert!(!self.stderr.contains('\u{1b}'), "no colours into a pipe: {self:?}");
    }
    #[track_caller]
    fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }
}

/// Runs `pgrad` in `dir`.
fn pgrad_in(dir: &Path, args: &[&str]) -> Outcome {
    Outcome::of(&assert_cmd::cargo::cargo_bin_cmd!("pgrad").current_dir(dir).args(args).output().unwrap())
}

/// Runs `pgrad` in a folder of its own.
fn pgrad(args: &[&str]) -> Outcome {
    let dir = TempDir::new().unwrap();
    let outcome = pgrad_in(dir.path(), args);
    if outcome.code == 64 {
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "bad usage leaves nothing behind");
    }
    outcome
}

#[test]
fn bad_usage_is_64() {
    pgrad(&["trian"]).refused(64, &["trian", "'train'"]);
    pgrad(&["train", "--sed", "1"]).refused(64, &["--sed", "'--seed'"]);
    pgrad(&["plot"]).refused(64, &["required arguments were not provided"]);
    pgrad(&["list", "foo"]).refused(64, &["foo", "studies"]);
    pgrad(&["completions", "bsh"]).refused(64, &["'bsh'", "'bash'"]);
    assert_eq!(pgrad(&[]).code, 64);
}

#[test]
fn unknown_names_are_64_with_what_was_meant() {
    pgrad(&["train", "pppo"]).refused(64, &["there is no algorithm `pppo`", "hint: did you mean `ppo`?"]);
    pgrad(&["show", "dreamer"]).refused(64, &["there is no algorithm `dreamer`", "hint: `pgrad list algos`"]);
    pgrad(&["train", "ppo", "CartPole"])
        .refused(64, &["there is no environment `CartPole`", "did you mean `CartPole-v1`?"]);
    pgrad(&["train", "CartPole-v1"])
        .refused(64, &["hint: give the algorithm first: `pgrad train ppo CartPole-v1`"]);
    pgrad(&["check-env", "Warehouse-v1"]).refused(
        64,
        &["there is no environment `Warehouse-v1`\n", "hint: `pgrad list envs`", "`gym:MODULE:ID`"],
    );
}

/// Nothing is started for these: the Python does not exist.
#[test]
fn environments_of_gymnasium_are_named_as_they_are_here() {
    for (bare, hint) in [
        ("LunarLander-v3", "the Python package `gymnasium` has it: `gym:LunarLander-v3`"),
        ("Blackjack-v1", "the Python package `gymnasium` has it: `gym:Blackjack-v1`"),
        ("ALE/Pong-v5", "the Python package `ale-py` has it: `gym:ale_py:ALE/Pong-v5`"),
        (
            "MiniGrid-Empty-5x5-v0",
            "the Python package `minigrid` has it: `gym:minigrid:MiniGrid-Empty-5x5-v0`",
        ),
        ("highway-fast-v0", "the Python package `highway-env` has it: `gym:highway_env:highway-fast-v0`"),
        ("LunarLander-v2", "did you mean `gym:LunarLander-v3`?"),
        ("lunar_lander", "did you mean `gym:LunarLander-v3`?"),
        ("FrozenLake", "did you mean `gym:FrozenLake-v1`?"),
    ] {
        for command in [&["train", "ppo", bare][..], &["check-env", bare], &["show", "ppo", bare]] {
            let message = format!("error: there is no native environment `{bare}`\n  hint: {hint}\n");
            assert_eq!(pgrad(command).stderr, message, "{command:?}");
        }
    }
    pgrad(&["train", "LunarLander-v3"])
        .refused(64, &["hint: give the algorithm first: `pgrad train ppo gym:LunarLander-v3`"]);
    pgrad(&["train", "ppo", "MountianCar"]).refused(64, &["did you mean `MountainCar-v0`?"]);
}

/// What Gymnasium does not know, and what Python does not find, comes with the name under which it would be.
#[cfg(target_os = "linux")]
#[test]
fn what_gymnasium_does_not_know_comes_with_the_package_that_may() {
    let python = python();
    let said = |env: &str, parts: &[&str]| {
        pgrad(&["train", "ppo", env, "--python", &python]).refused(64, parts);
    };
    said(
        "gym:ALE/Pong-v5",
        &[
            "error: `gym:ALE/Pong-v5`: Namespace ALE not found",
            "hint: `gym:ale_py:ALE/Pong-v5` imports",
            "install ale-py`",
        ],
    );
    said(
        "gym:Meta-World/MT1",
        &[
            "error: `gym:Meta-World/MT1`: ",
            "hint: `gym:metaworld:Meta-World/MT1` imports",
            "install metaworld`",
        ],
    );
    said(
        "gym:highway-fast-v0",
        &[
            "error: `gym:highway-fast-v0`: ",
            "hint: `gym:highway_env:highway-fast-v0` imports",
            "install highway-env`",
        ],
    );
    said(
        "gym:Nowhere/Maze-v0",
        &["Namespace Nowhere not found", "hint: `gym:MODULE:Nowhere/Maze-v0` imports"],
    );
    said("gym:Warehouse-v1", &["hint: `gym:MODULE:Warehouse-v1` imports the module that registers it"]);
    said("gym:json:Warehouse-v1", &["hint: `json` was imported and registers no such ID"]);
    // A module of the user's own is not something that pip has.
    said(
        "gym:my_tasks:Maze-v0",
        &["has no module `my_tasks`", "hint: run this in the folder that has `my_tasks`", "PYTHONPATH"],
    );
}

#[test]
fn environments_are_checked() {
    // Those of MuJoCo are checked beside their library; one of them is enough here.
    for env in pgrad_envs::REGISTRY.iter().filter(|e| !e.is_elsewhere() || e.id == "Reacher-v5") {
        let out = pgrad(&["check-env", env.id]).done();
        let (verdict, notes) = out.split_once('\n').unwrap();
        assert_eq!(verdict, format!("{}: nothing wrong found", env.id));
        // All of R: the one task whose actions have no bounds.
        let unbounded = env.id == "KakadeLqg-v0";
        assert_eq!(notes.contains("  notice: actions without bounds"), unbounded, "{out}");
        assert_eq!(notes.is_empty(), !unbounded, "{out}");
    }
    pgrad(&["check-env", "CartPole-v1", "--seed", "-3"])
        .refused(64, &["--seed: `seed` takes a whole number"]);
}

#[test]
fn completions_for_every_shell() {
    for (shell, part) in [
        ("bash", "complete -F _pgrad"),
        ("zsh", "#compdef pgrad"),
        ("fish", "complete -c pgrad"),
        ("elvish", "pgrad"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = pgrad(&["completions", shell]).done();
        assert!(script.contains(part) && script.contains("check-env"), "{shell}: {script}");
    }
    let script = pgrad(&["completions", "bash"]).done();
    assert!(script.contains("ppo") && script.contains("CartPole-v1"), "names are offered");
}

#[test]
fn what_there_is_is_listed() {
    let algos = pgrad(&["list", "algos"]).done();
    assert!(
        pgrad_algos::REGISTRY.iter().all(|a| algos.contains(a.name) && algos.contains(a.title)),
        "{algos}"
    );
    let envs = pgrad(&["list", "envs"]).done();
    assert!(pgrad_envs::REGISTRY.iter().all(|e| envs.contains(e.id) && envs.contains(e.title)), "{envs}");
    assert!(envs.contains("also as tiles:MountainCar-v0") && !envs.contains("tiles:CartPole-v1"), "{envs}");
    pgrad(&["check-env", "tiles:MountainCar-v0"]).done();
    pgrad(&["check-env", "tiles:CartPole-v1"])
        .refused(64, &["tile coding needs finite bounds", "pgrad list envs"]);
    pgrad(&["show", "ppo", "tiles:MountainCar"]).refused(64, &["did you mean `tiles:MountainCar-v0`?"]);
}

#[test]
fn a_full_disk_is_74_and_a_reader_that_left_is_silent() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pgrad"));
    let output = command.args(["list", "envs"]).stdout(full).output().unwrap();
    Outcome::of(&output).refused(74, &["cannot write to standard output"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pgrad"));
    let output = command.args(["list", "envs"]).stdout(writer).output().unwrap();
    assert_eq!(Outcome::of(&output).stderr, "");
}

#[test]
fn every_setting_is_in_the_long_help_and_none_in_the_short() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for algo in pgrad_algos::REGISTRY {
        let help = pgrad(&["train", algo.name, "--help"]).done();
        let short = pgrad(&["train", algo.name, "-h"]).done();
        let config = (algo.config)();
        for setting in config.parts().iter().flat_map(|p| p.declarations()) {
            let entry = help.split_once(&format!("\n  {}\n", setting.key));
            let entry = words(entry.unwrap_or_else(|| panic!("{} of {}", setting.key, algo.name)).1);
            assert!(entry.starts_with(&setting.help), "{}: {entry}", setting.key);
            assert!(entry.contains(&words(&format!("[{}]", setting.facts()))), "{}: {entry}", setting.key);
            assert!(!short.contains(&setting.facts()), "{}", setting.key);
        }
        assert!(help.lines().all(|l| l.chars().count() <= 100), "lines fit");
    }
}

/// A tiny run in `dir`; returns what it printed with `--json`.
fn small_run(dir: &Path, more: &[&str]) -> serde_json::Value {
    let tiny = ["train", "--threads", "1", "--run-dir", "run", "--json"];
    let printed = pgrad_in(dir, &[&tiny[..], more].concat()).done();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn settings_are_refused_before_anything_is_made() {
    pgrad(&["train", "--set", "n_step=3"])
        .refused(64, &["error: --set: there is no setting `n_step`", "hint: did you mean `n_steps`?"]);
    pgrad(&["train", "--seed", "-1"])
        .refused(64, &["error: --seed: `seed` takes a whole number", "got the whole number -1"]);
    pgrad(&["train", "--steps", "many"]).refused(64, &["error: --steps: `steps` takes", "the text `many`"]);
    pgrad(&["train", "--threads", "0"])
        .refused(64, &["error: --threads: `threads` takes a whole number, 1 to 1024"]);
    pgrad(&["train", "--set", "gamma"]).refused(64, &["expected `key=value`, but got `gamma`", "hint: "]);
    pgrad(&["train", "--set", "clip=nan"]).refused(64, &["`clip` takes", "NaN"]);
    pgrad(&["train", "--set", "minibatch_size=1000000"])
        .refused(64, &["`minibatch_size` = 1000000 does not fit", "hint: "]);
    pgrad(&["eval", "x", "--episodes", "0"]).refused(64, &["--episodes: `episodes` takes a whole number"]);
    pgrad(&["train", "--set", "colour=1"]).refused(
        64,
        &["there is no setting `colour`", "hint: `pgrad show ppo CartPole-v1` prints all settings"],
    );
    let both = pgrad(&["train", "--set", "gama=1", "--n-envs", "0"]);
    both.refused(64, &["error: --set: there is no setting `gama`", "error: --n-envs: `n_envs` takes"]);
}

#[test]
fn configuration_files_are_refused_with_their_line() {
    let dir = TempDir::new().unwrap();
    let refused = |text: &str, args: &[&str], parts: &[&str]| {
        std::fs::write(dir.path().join("my.toml"), text).unwrap();
        pgrad_in(dir.path(), &[&["train", "--config", "my.toml"], args].concat()).refused(64, parts);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
    };
    refused(
        "gamma = 0.9\ngama = 1\n",
        &[],
        &["error: my.toml:2: there is no setting `gama`", "did you mean `gamma`?"],
    );
    refused("gamma = \n", &[], &["error: my.toml:1: "]);
    refused("gamma = \"x\"\nclip = -1\n", &[], &["error: my.toml:1: `gamma`", "error: my.toml:2: `clip`"]);
    refused(
        "algo = \"pppo\"\n",
        &[],
        &["error: my.toml: there is no algorithm `pppo`", "did you mean `ppo`?"],
    );
    refused(
        "env = \"CartPole\"\n",
        &[],
        &["error: my.toml: there is no environment `CartPole`", "`CartPole-v1`?"],
    );
    refused(
        "env = \"CartPole-v1\"\n",
        &["ppo", "Pendulum-v1"],
        &["my.toml is for env `CartPole-v1`", "hint: "],
    );
    std::fs::remove_file(dir.path().join("my.toml")).unwrap();
    pgrad_in(dir.path(), &["train", "--config", "my.toml"]).refused(64, &["cannot read `my.toml`", "hint: "]);
    std::fs::write(dir.path().join("my.toml"), [0xff, 0xfe, 0x00]).unwrap();
    pgrad_in(dir.path(), &["train", "--config", "my.toml"])
        .refused(65, &["cannot read `my.toml`", "hint: the file must be UTF-8 text"]);
}

#[test]
fn a_setting_that_does_not_apply_is_refused() {
    let wrong =
        ["--set: `clip_obs` applies only when `normalize_obs` is `true`, but it is `false`", "hint: leave"];
    for command in ["train", "show", "bench"] {
        pgrad(&[command, "--set", "clip_obs=5"]).refused(64, &wrong);
    }
    pgrad(&["show", "--set", "clip_obs=5", "--set", "normalize_obs=true"]).done();
}

#[test]
fn a_preset_is_chosen_by_its_name() {
    let shown = |args: &[&str]| pgrad(&[&["show", "ppo", "CartPole-v1"], args].concat()).done();
    assert_eq!(shown(&["--preset", "tuned"]), shown(&[]));
    assert_ne!(shown(&["--preset", "none"]), shown(&[]));
    pgrad(&["train", "ppo", "CartPole-v1", "--preset", "papr"])
        .refused(64, &["there is no preset `papr` of ppo for CartPole-v1; there are tuned, none"]);
}

#[cfg(not(feature = "mujoco"))]
#[test]
fn a_task_of_a_feature_says_how_to_get_it() {
    pgrad(&["train", "ppo", "HalfCheetah-v5"]).refused(
        64,
        &[
            "`HalfCheetah-v5` needs a pgrad that was built with `mujoco`",
            "hint: `cargo xtask mujoco` gets MuJoCo; then `cargo run --release --features mujoco",
        ],
    );
}

#[cfg(feature = "mujoco")]
#[test]
fn a_model_that_is_missing_is_said_before_anything_starts() {
    let dir = TempDir::new().unwrap();
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("pgrad");
    command.current_dir(dir.path()).env("PGRAD_MUJOCO_MODELS", dir.path());
    let output = command.args(["train", "ppo", "HalfCheetah-v5"]).output().unwrap();
    Outcome::of(&output).refused(
        74,
        &[
            "`HalfCheetah-v5` needs the model",
            "half_cheetah.xml",
            "hint: `cargo xtask mujoco` installs the library and the models of Gymnasium's tasks",
        ],
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no run was begun");
    let shown = pgrad(&["show", "ppo", "Hopper-v4", "--preset", "paper"]).done();
    assert!(shown.contains("n_steps = 2048") && shown.contains("normalize_reward = false"), "{shown}");
}

#[test]
fn what_show_prints_is_a_configuration() {
    let dir = TempDir::new().unwrap();
    for preset in pgrad_run::presets::all() {
        let more = ["--preset", preset.name, "--seed", "9", "--set", "gamma=0.875"];
        let args = [&["show", preset.algo, preset.env][..], &more].concat();
        let shown = pgrad_in(dir.path(), &args).done();
        std::fs::write(dir.path().join("my.toml"), &shown).unwrap();
        // The file alone says everything, algorithm and environment included.
        assert_eq!(pgrad_in(dir.path(), &["show", "--config", "my.toml"]).done(), shown);
        for line in ["seed = 9", "gamma = 0.875", &format!("env = \"{}\"", preset.env)] {
            assert!(shown.lines().any(|l| l == line), "{line} in {shown}");
        }
        let config = (pgrad_algos::find(preset.algo).unwrap().config)();
        for setting in config.parts().iter().flat_map(|p| p.declarations()) {
            // What does not apply is shown, too, as a comment.
            let line = |start: &str| shown.contains(&format!("\n{start}{} = ", setting.key));
            assert!(line("") != line("# ") && (line("") || setting.when.is_some()), "{}", setting.key);
        }
    }
    let shown = pgrad_in(dir.path(), &["show", "ppo", "CartPole-v1", "--steps", "1e3", "--seed", "5"]).done();
    std::fs::write(dir.path().join("my.toml"), shown).unwrap();
    let json = small_run(dir.path(), &["--config", "my.toml", "--seed", "6"]);
    assert_eq!(json["steps"], 1024, "whole iterations of 256: {json}");
    assert_eq!(json["seed"], 6, "an option wins over the file: {json}");
}

#[test]
fn a_run_from_training_to_evaluation() {
    let dir = TempDir::new().unwrap();
    let json = small_run(dir.path(), &["--steps", "1024", "--seed", "5"]);
    assert_eq!(
        (&json["run_dir"], &json["algo"], &json["env"]),
        (&"run".into(), &"ppo".into(), &"CartPole-v1".into())
    );
    assert_eq!((&json["seed"], &json["steps"], &json["stopped"]), (&5.into(), &1024.into(), &false.into()));
    assert!(json["steps_per_second"].as_f64().unwrap() > 0.0 && json["seconds"].as_f64().unwrap() > 0.0);
    assert!(json["train_return_mean_100"].as_f64().unwrap() >= 1.0);

    let eval = |more: &[&str]| -> serde_json::Value {
        let printed = pgrad_in(dir.path(), &[&["eval", "run", "--json"], more].concat()).done();
        serde_json::from_str(&printed).unwrap()
    };
    let greedy = eval(&["--episodes", "10"]);
    assert_eq!(greedy["episodes"], 10);
    let [mean, min, max, length] =
        ["return_mean", "return_min", "return_max", "length_mean"].map(|k| greedy[k].as_f64().unwrap());
    assert!(min <= mean && mean <= max && min >= 1.0 && greedy["return_std"].as_f64().unwrap() >= 0.0);
    assert_eq!(mean, length, "CartPole pays one a step");
    assert_eq!(eval(&["--episodes", "10"]), greedy, "the same seed gives the same episodes");
    assert_ne!(eval(&["--episodes", "10", "--seed", "3"]), greedy);
    assert_ne!(eval(&["--episodes", "10", "--stochastic"]), greedy);
    assert_eq!(eval(&["--episodes", "10", "--n-envs", "1"]), greedy, "however many exist at once");
    assert_eq!(greedy["episodes_unfinished"], 0);
    pgrad_in(dir.path(), &["eval", "run", "--max-steps", "3"])
        .refused(65, &["had not ended after 3 steps", "`--max-steps N` waits longer"]);

    // The film shows the evaluation's first episode.
    let first = eval(&["--episodes", "1", "--video", "film.gif"]);
    assert_eq!(first["video"], "film.gif");
    assert_eq!(first["video_frames"].as_f64(), first["length_mean"].as_f64(), "{first}");
    assert!(std::fs::read(dir.path().join("film.gif")).unwrap().starts_with(b"GIF89a"));
    pgrad_in(dir.path(), &["eval", "run", "--video", "film.avi"])
        .refused(64, &["`film.avi` does not end in `.gif` or `.mp4`"]);
    let words = pgrad_in(dir.path(), &["eval", "run", "--episodes", "1"]).done();
    assert!(words.contains("in one greedy episode") && !words.contains("NaN"), "{words}");

    let words = pgrad_in(dir.path(), &["eval", "run", "--episodes", "3"]).done();
    assert!(
        words.starts_with("return ") && words.contains("over 3 greedy episodes of CartPole-v1"),
        "{words}"
    );
    assert_eq!(pgrad_in(dir.path(), &["eval", "run", "--quiet"]).done(), "");
    let words = pgrad_in(dir.path(), &["resume", "run"]).done();
    assert!(words.contains("nothing was left to do") && words.contains("pgrad eval run"), "{words}");

    // The same folder again, and folders that are no runs.
    let again = pgrad_in(dir.path(), &["train", "--run-dir", "run"]);
    again.refused(64, &["`run` exists and is not empty", "hint: to continue that run: `pgrad resume run`"]);
    for command in ["resume", "eval"] {
        pgrad_in(dir.path(), &[command, "nothing"]).refused(65, &["`nothing` is not the folder of a run"]);
    }
    let policy = dir.path().join("run/policy.safetensors");
    let mut bytes = std::fs::read(&policy).unwrap();
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&policy, bytes).unwrap();
    pgrad_in(dir.path(), &["eval", "run"])
        .refused(65, &["error: run/policy.safetensors: ", "hint: the file is damaged"]);
    std::fs::remove_file(&policy).unwrap();
    pgrad_in(dir.path(), &["eval", "run"]).refused(65, &["`run` has no trained policy yet", "hint: "]);
}

#[test]
fn runs_are_drawn() {
    let dir = TempDir::new().unwrap();
    for (name, clip) in [("a", "0.1"), ("b", "0.1"), ("c", "0.3")] {
        let clip = format!("clip={clip}");
        let args = ["train", "--steps", "4096", "--threads", "1", "--quiet", "--run-dir", name, "--seed"];
        let seed = if name == "a" { "1" } else { "2" };
        pgrad_in(dir.path(), &[&args[..], &[seed, "--set", &clip]].concat()).done();
    }
    assert_eq!(pgrad_in(dir.path(), &["plot", "a", "b", "c"]).done(), "learning-curve.svg\n");
    let svg = std::fs::read_to_string(dir.path().join("learning-curve.svg")).unwrap();
    for text in ["CartPole-v1", "ppo clip=0.1", "ppo clip=0.3"] {
        assert!(svg.contains(text), "{text}");
    }
    pgrad_in(dir.path(), &["plot", "a", "--out", "a.png", "--metric", "learn/kl", "--width", "400"]).done();
    assert!(std::fs::read(dir.path().join("a.png")).unwrap().starts_with(b"\x89PNG"));

    let refused = |args: &[&str], code, parts: &[&str]| {
        pgrad_in(dir.path(), &[&["plot"], args].concat()).refused(code, parts);
    };
    refused(
        &["a", "--metric", "learn/k1"],
        64,
        &["has no metric `learn/k1`", "hint: did you mean `learn/kl`?"],
    );
    refused(&["a", "--out", "a.jpeg"], 64, &["`a.jpeg` does not end in `.svg` or `.png`"]);
    refused(&["a", "--out", "none/a.svg"], 74, &["none"]);
    refused(&["a", "--height", "7"], 64, &["--height: `height` takes a whole number, 200 to 4000"]);
    refused(&["a", "nothing"], 65, &["`nothing` is not the folder of a run"]);
    std::fs::write(dir.path().join("b/metrics.jsonl"), "{\n{}\n").unwrap();
    refused(&["a", "b"], 65, &["b/metrics.jsonl"]);
}

#[test]
fn speed_is_measured() {
    let small = ["--seconds", "0.2", "--threads", "1", "--set", "epochs=1", "--json"];
    let bench = |args: &[&str]| -> serde_json::Value {
        let printed = pgrad(&[&["bench"], args, &small].concat()).done();
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).unwrap()
    };
    let train = bench(&["ppo", "CartPole-v1"]);
    for key in [
        "steps_per_second",
        "rollout_seconds",
        "update_seconds",
        "update_gflops",
        "gemm_peak_gflops",
        "peak_rss_mib",
    ] {
        assert!(train[key].as_f64().unwrap() > 0.0, "{key}: {train}");
    }
    let env = bench(&["--env-only", "--n-envs", "16"]);
    assert!(env["env_steps_per_second"].as_f64().unwrap() > 0.0 && env["n_envs"] == 16, "{env}");
    let words = pgrad(&["bench", "--seconds", "0.1", "--threads", "1"]).done();
    assert!(words.contains("steps/s ppo on CartPole-v1, 1 threads") && words.contains("GFLOP/s"), "{words}");
    pgrad(&["bench", "--seconds", "0"]).refused(64, &["--seconds: `seconds` takes a number in (0, 3600]"]);
    pgrad(&["bench", "--steps", "5"]).refused(64, &["unexpected argument '--steps'"]);
}

#[test]
fn a_study_from_its_file_to_its_table() {
    let dir = TempDir::new().unwrap();
    let text = "title = \"Two seeds\"\nepisodes = 3\n[[entry]]\nenv = \"CartPole-v1\"\nsteps = 512\n\
                seeds = { first = 1, count = 2 }\n";
    let write = |text: &str| std::fs::write(dir.path().join("mine.toml"), text).unwrap();
    let study =
        |args: &[&str]| pgrad_in(dir.path(), &[&["study", "mine.toml", "--threads", "1"], args].concat());
    write(text);
    let words = study(&["--seeds", "1"]).done();
    assert!(
        words.starts_with("# Two seeds\n") && words.contains("| ppo CartPole-v1 512 | 512 | 1 | E |"),
        "{words}"
    );
    assert!(words.contains("studies-out/mine/summary.md"), "{words}");
    let outcome = study(&["--json"]);
    assert_eq!(outcome.stderr, "");
    let json: serde_json::Value = serde_json::from_str(&outcome.done()).unwrap();
    assert_eq!(json["command"], "pgrad study mine.toml");
    let results = std::fs::read_to_string(dir.path().join("studies-out/mine/results.csv")).unwrap();
    assert_eq!(results.lines().count(), 3, "a heading and two runs, the first not run again: {results}");

    let words = study(&["--seeds", "50001..50003"]).done();
    for row in
        ["| ppo CartPole-v1 512 | 512 | 2 | E |", "| ppo CartPole-v1 512 (seeds 50001-50003) | 512 | 3 | E |"]
    {
        assert!(words.contains(row), "{words}");
    }
    for wrong in ["..5", "7..5", "5..x"] {
        study(&["--seeds", wrong]).refused(64, &["--seeds", "is no range of seeds", "50001..50010"]);
    }
    study(&["--seeds", "0"]).refused(64, &["--seeds: `seeds` takes a whole number, 1 to 1000000"]);
    write(&text.replace("512", "0"));
    study(&[]).refused(64, &["mine.toml:5: `steps` takes a whole number", "hint: "]);
    write(&text.replace("CartPole-v1", "CartPole"));
    study(&[]).refused(64, &["there is no environment `CartPole`", "did you mean `CartPole-v1`?"]);
    pgrad_in(dir.path(), &["study", "ppo-classik"])
        .refused(64, &["there is no study `ppo-classik`", "`ppo-classic`?"]);
    let list = pgrad(&["list", "studies"]).done();
    assert!(pgrad_study::STUDIES.iter().all(|s| list.contains(s.name)), "{list}");
    let list = pgrad(&["list", "presets"]).done();
    assert!(pgrad_run::presets::all().all(|p| list.contains(p.env) && list.contains(p.algo)), "{list}");
}

#[test]
fn the_summary_names_the_next_commands() {
    let dir = TempDir::new().unwrap();
    let words = pgrad_in(dir.path(), &["train", "--steps", "512", "--threads", "1"]).done();
    assert!(words.starts_with("Trained ppo on CartPole-v1, seed 1: 512 steps in "), "{words}");
    assert!(words.contains("below the task's threshold of 475"), "{words}");
    let run = words.lines().find_map(|l| l.trim().strip_prefix("run folder ")).unwrap();
    assert!(run.starts_with("runs/CartPole-v1-ppo-s1-"), "{run}");
    assert!(dir.path().join(run).join("policy.safetensors").is_file());
    assert!(
        words.contains(&format!("pgrad eval {run} ")) && words.contains(&format!("pgrad plot {run} ")),
        "{words}"
    );
    let quiet = pgrad_in(dir.path(), &["train", "--steps", "512", "--threads", "1", "--quiet"]);
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.done(), "");
}

#[test]
fn a_folder_that_cannot_be_made_is_74() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let args = ["train", "--steps", "512", "--run-dir", "file/run"];
    pgrad_in(dir.path(), &args).refused(74, &["file/run"]);
    pgrad_in(dir.path(), &["train", "--run-dir", "file"]).refused(64, &["`file` is not a folder", "hint: "]);
}

/// Sends `signal` to the process.
fn send(child: &std::process::Child, signal: &str) {
    let id = child.id().to_string();
    let sent = std::process::Command::new("kill").args([signal, &id]).status().unwrap();
    assert!(sent.success());
}

/// A run that would take very long, begun in `dir/run`; `ready` says when it is far enough.
fn long_run(dir: &Path, more: &[&str], ready: impl Fn(&Path) -> bool) -> std::process::Child {
    let args = ["train", "--steps", "1e11", "--threads", "1", "--run-dir", "run", "--json"];
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pgrad"));
    let piped = std::process::Stdio::piped;
    let command = command.current_dir(dir).args(args).args(more).stdout(piped()).stderr(piped());
    let mut child = command.spawn().unwrap();
    for _ in 0..1200 {
        if ready(&dir.join("run")) {
            return child;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("the run did not begin within 60 s: {:?}", child.wait_with_output());
}

/// Whether an iteration is done.
fn has_a_row(run: &Path) -> bool {
    std::fs::read(run.join("metrics.jsonl")).is_ok_and(|bytes| bytes.contains(&b'\n'))
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let dir = TempDir::new().unwrap();
        // One iteration takes minutes, so that the first signal has to wait for its end.
        let long = ["--set", "n_steps=100000", "--set", "epochs=1000"];
        let mut child = long_run(dir.path(), &long, |run| run.join("metrics.jsonl").is_file());
        std::thread::sleep(std::time::Duration::from_millis(300));
        send(&child, signal);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the end of the iteration");
        send(&child, signal);
        assert_eq!(child.wait_with_output().unwrap().status.code(), Some(code));
    }
}

#[test]
fn a_signal_stops_the_run_so_that_it_can_be_resumed() {
    for signal in ["-INT", "-TERM"] {
        let dir = TempDir::new().unwrap();
        let child = long_run(dir.path(), &[], has_a_row);
        send(&child, signal);
        let outcome = Outcome::of(&child.wait_with_output().unwrap());
        assert_eq!(outcome.code, 75, "{outcome:?}");
        let json: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(json["stopped"], true);
        let checkpoint = format!("run/checkpoints/step-{}", json["steps"]);
        assert!(dir.path().join(checkpoint).join("manifest.json").is_file(), "{outcome:?}");
        // It goes on from there, and can be stopped again.
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pgrad"));
        let piped = std::process::Stdio::piped;
        let again = command.current_dir(dir.path()).args(["resume", "run", "--json", "--threads", "1"]);
        let child = again.stdout(piped()).stderr(piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        send(&child, signal);
        let outcome = Outcome::of(&child.wait_with_output().unwrap());
        assert_eq!(outcome.code, 75, "{outcome:?}");
        let later: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert!(later["steps"].as_u64() > json["steps"].as_u64(), "{json} then {later}");
    }
}

#[test]
fn two_processes_cannot_write_to_one_run() {
    let dir = TempDir::new().unwrap();
    let child = long_run(dir.path(), &[], has_a_row);
    pgrad_in(dir.path(), &["resume", "run"])
        .refused(75, &["`run` is in use by another process", "hint: wait"]);
    send(&child, "-TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(75));
}

/// Films an episode of the run in `dir`.
#[cfg(target_os = "linux")]
fn filmed(dir: &Path, env: &str) {
    let out = pgrad_in(dir, &["eval", "run", "--episodes", "1", "--video", "film.gif", "--json"]).done();
    let film: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(film["video_frames"].as_f64() >= Some(1.0), "{env}: {film}");
    assert_eq!(film["video_frames"].as_f64(), film["length_mean"].as_f64(), "{env}: {film}");
    assert!(std::fs::read(dir.join("film.gif")).unwrap().starts_with(b"GIF89a"), "{env}");
}

/// An environment of Gymnasium that draws itself is filmed.
#[cfg(target_os = "linux")]
#[test]
fn an_environment_in_python_is_filmed() {
    let dir = TempDir::new().unwrap();
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgrad-gym");
    let python = python_with(dir.path(), "PYTHONPATH", &modules.display().to_string()).unwrap();
    let env = "gym:tests.misbehaving:Planned-v0";
    let small = ["--steps", "64", "--set", "n_envs=2", "--set", "n_steps=16", "--set", "minibatch_size=16"];
    let train = ["train", "ppo", env, "--python", &python, "--run-dir", "run", "--quiet"];
    pgrad_in(dir.path(), &[&train[..], &small].concat()).done();
    filmed(dir.path(), env);
}

/// Changes lines of the run's settings, each from one text to another.
fn edit_settings(dir: &Path, changes: &[(&str, &str)]) {
    let path = dir.join("run/config.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        let line = |x: &str| format!("\n{x}\n");
        assert_eq!(text.matches(&line(from)).count(), 1, "{from}");
        text = text.replace(&line(from), &line(to));
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn what_results_do_not_depend_on_may_be_changed_when_a_run_is_resumed() {
    let dir = TempDir::new().unwrap();
    small_run(dir.path(), &["--steps", "512"]);
    let policy = || std::fs::read(dir.path().join("run/policy.safetensors")).unwrap();
    let before = policy();
    // A file manager was there, too.
    std::fs::write(dir.path().join("run/checkpoints/step-512/.DS_Store"), "x").unwrap();
    edit_settings(
        dir.path(),
        &[
            ("log_every = 1", "log_every = 5"),
            ("checkpoint_secs = 30.0", "checkpoint_secs = 1.5"),
            ("checkpoint_steps = 0", "checkpoint_steps = 256"),
            ("keep_checkpoints = 2", "keep_checkpoints = 4"),
        ],
    );
    for _ in 0..2 {
        let resumed = pgrad_in(dir.path(), &["resume", "run", "--threads", "1"]);
        let notes: Vec<&str> = resumed.stderr.lines().collect();
        let expected = [
            "note: `checkpoint_secs` is 1.5 (was 30.0)",
            "note: `checkpoint_steps` is 256 (was 0)",
            "note: `keep_checkpoints` is 4 (was 2)",
            "note: `log_every` is 5 (was 1)",
        ];
        assert_eq!((resumed.code, notes), (0, expected.to_vec()));
        assert_eq!(policy(), before);
    }
    let record = std::fs::read_to_string(dir.path().join("run/changes.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = record.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4, "once: {record}");
    assert_eq!(lines[3], serde_json::json!({ "step": 512, "setting": "log_every", "from": "1", "to": "5" }));
}

#[test]
fn a_run_that_is_given_more_steps_is_the_one_that_had_them() {
    let dir = TempDir::new().unwrap();
    let constant = ["--set", "learning_rate_schedule=constant", "--set", "clip_schedule=constant"];
    let policy = || std::fs::read(dir.path().join("run/policy.safetensors")).unwrap();
    small_run(dir.path(), &[&["--steps", "1024"], &constant[..]].concat());
    let long = policy();
    std::fs::rename(dir.path().join("run"), dir.path().join("long")).unwrap();
    small_run(dir.path(), &[&["--steps", "512"], &constant[..]].concat());
    assert_ne!(policy(), long);
    let more = pgrad_in(dir.path(), &["resume", "run", "--steps", "1e3", "--threads", "1", "--quiet"]);
    assert_eq!((more.code, more.stderr.as_str()), (0, "note: `steps` is 1000 (was 512)\n"));
    assert_eq!(policy(), long, "bit for bit");
    let config = std::fs::read_to_string(dir.path().join("run/config.toml")).unwrap();
    assert!(config.contains("\nsteps = 1000\n"), "the run's folder says so: {config}");
    // A schedule that falls over the run is another one then.
    std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    small_run(dir.path(), &["--steps", "512", "--set", "learning_rate_schedule=constant"]);
    let more = pgrad_in(dir.path(), &["resume", "run", "--steps", "1024", "--threads", "1", "--quiet"]);
    let note = "note: `steps` is 1024 (was 512); `clip_schedule` now ends there, so the rest is not learnt as in a run \
                that was begun with this number of steps\n";
    assert_eq!((more.code, more.stderr.as_str()), (0, note));
    pgrad_in(dir.path(), &["resume", "run", "--steps", "0"]).refused(64, &["--steps: `steps` takes"]);
    pgrad_in(dir.path(), &["resume", "run", "--python", "python3"])
        .refused(64, &["--python: there is no setting `python`"]);
}

#[test]
fn what_results_depend_on_is_refused_by_name_when_it_was_changed() {
    let dir = TempDir::new().unwrap();
    small_run(dir.path(), &["--steps", "512"]);
    let files = || {
        let mut all: Vec<_> = std::fs::read_dir(dir.path().join("run/checkpoints")).unwrap().collect();
        all.sort_by_key(|e| e.as_ref().unwrap().file_name());
        all.len()
    };
    let before = files();
    let changes =
        [("gamma = 0.98", "gamma = 0.9"), ("seed = 1", "seed = 2"), ("log_every = 1", "log_every = 2")];
    edit_settings(dir.path(), &changes);
    pgrad_in(dir.path(), &["resume", "run"]).refused(
        64,
        &[
            "error: `gamma` was 0.98 when the checkpoint of step 512 was saved, and is 0.9 now",
            "error: `seed` was 1 when the checkpoint of step 512 was saved, and is 2 now",
            "hint: set it back in `run/config.toml` to go on; `pgrad train --config run/config.toml`",
        ],
    );
    let again = pgrad_in(dir.path(), &["resume", "run"]).stderr;
    assert!(!again.contains("log_every") && !again.contains("digest"), "{again}");
    assert_eq!(files(), before, "nothing was touched");
    edit_settings(dir.path(), &changes.map(|(from, to)| (to, from)));
    pgrad_in(dir.path(), &["resume", "run", "--quiet"]).done();
}

/// A virtual environment that is named from where one is, and one that is moved.
#[cfg(target_os = "linux")]
#[test]
fn a_python_is_found_from_other_folders_and_may_be_moved() {
    let dir = TempDir::new().unwrap();
    let program = python_with(dir.path(), "SOME_VARIABLE", "x").unwrap();
    let name = Path::new(&program).file_name().unwrap().to_str().unwrap();
    let small = ["--steps", "64", "--set", "n_envs=1", "--set", "n_steps=32", "--set", "minibatch_size=32"];
    let train = ["train", "ppo", "gym:CartPole-v1", "--run-dir", "run", "--quiet", "--python"];
    let relative = format!("./{name}");
    pgrad_in(dir.path(), &[&train[..], &[&relative], &small].concat()).done();
    let elsewhere = TempDir::new().unwrap();
    let run = dir.path().join("run").display().to_string();
    let eval = ["eval", &run, "--episodes", "1", "--quiet"];
    pgrad_in(elsewhere.path(), &eval).done();
    // Moved:
    std::fs::rename(&program, dir.path().join("moved")).unwrap();
    pgrad_in(elsewhere.path(), &["resume", &run]).refused(64, &["cannot start", "hint: --python PATH"]);
    let resume = ["resume", &run, "--quiet", "--python", "./moved"];
    let resumed = pgrad_in(dir.path(), &resume);
    assert_eq!(resumed.code, 0, "{resumed:?}");
    let note = format!("note: `python` is \"{}/moved\" (was \"{program}\")\n", dir.path().display());
    assert!(resumed.stderr.starts_with(&note), "{} {note}", resumed.stderr);
    pgrad_in(elsewhere.path(), &eval).done();
}

/// Environments in Python, through every command that takes some.
#[cfg(target_os = "linux")]
#[test]
fn python_environments_are_trained_evaluated_filmed_checked_and_studied() {
    let python = python();
    for (env, made_by) in [("gym:CartPole-v1", "gymnasium "), ("envpool:CartPole-v1", "envpool ")] {
        let dir = TempDir::new().unwrap();
        let last = |args: &[&str]| -> serde_json::Value {
            let out = pgrad_in(dir.path(), args).done();
            serde_json::from_str(out.lines().last().unwrap()).unwrap()
        };
        let small =
            ["--steps", "512", "--set", "n_envs=2", "--set", "n_steps=128", "--set", "minibatch_size=64"];
        let train = ["train", "ppo", env, "--python", &python, "--run-dir", "run", "--json"];
        assert_eq!(last(&[&train[..], &small].concat())["steps"], 512);
        let eval = |seed: &str| last(&["eval", "run", "--episodes", "3", "--seed", seed, "--json"]);
        let first = eval("5");
        assert_eq!(first, eval("5"), "{env}: the same episodes");
        assert_ne!(first, eval("6"), "{env}: other ones");
        // How Gymnasium's own environments draw depends on what is installed beside it.
        if env.starts_with("envpool") {
            filmed(dir.path(), env);
        }
        let checked = pgrad_in(dir.path(), &["check-env", env, "--python", &python]).done();
        assert!(checked.contains("nothing wrong found"), "{checked}");
        assert!(checked.contains(&format!("made by      {made_by}")), "{checked}");
        assert_eq!(checked.contains("not checked"), env.starts_with("envpool"), "{checked}");
        let study = format!(
            "title = \"Python\"\nepisodes = 2\n[[entry]]\nenv = \"{env}\"\nsteps = 512\nseeds = {{ first = 1, count = 2 }}\n\
             settings = {{ python = \"{python}\", n_envs = 2, n_steps = 128, minibatch_size = 64 }}\n"
        );
        std::fs::write(dir.path().join("mine.toml"), study).unwrap();
        pgrad_in(dir.path(), &["study", "mine.toml", "--threads", "1", "--out", "results"]).done();
        let table = std::fs::read_to_string(dir.path().join("results/results.csv")).unwrap();
        assert_eq!(table.lines().filter(|l| l.contains(env)).count(), 2, "{table}");
    }
}
