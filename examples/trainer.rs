//! Training in a loop of one's own, without a run folder: `cargo run --release -p pgrad --example trainer`.

use pgrad::run::{eval::evaluate_run, tensors};
use pgrad::{EvalOptions, RunConfig, Trainer};

#[expect(clippy::print_stdout, reason = "an example talks to its reader")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = || -> Result<_, pgrad::run::config::RunConfigError> {
        let mut config = RunConfig::new("ppo", "CartPole-v1")?; // with its preset
        config.apply_pair("seed=7", "trainer")?;
        Ok(config)
    };
    let mut trainer = Trainer::new(config()?, 2)?;
    // Until the task counts as solved, at most for the steps of the preset.
    while !trainer.is_done() && trainer.return_mean_100().is_none_or(|mean| mean < 475.0) {
        trainer.iterate()?;
    }
    println!("{} steps: mean return {:?}", trainer.steps(), trainer.return_mean_100());

    let found = evaluate_run(trainer.policy(1), trainer.config(), &EvalOptions::default())?;
    println!("100 episodes, most probable actions: {:.1} ± {:.1}", found.return_mean(), found.return_std());

    // What is saved goes on elsewhere with the same bits, whatever the number of threads.
    let bytes = tensors::encode(&trainer.save(), None)?;
    let mut other = Trainer::new(config()?, 1)?;
    other.load(&tensors::decode(&bytes)?.0)?;
    assert_eq!(trainer.iterate()?, other.iterate()?);
    Ok(())
}
