//! Collecting and learning allocate nothing once everything is warm.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::{AlgoConfig, Algorithm, PpoConfig, Setup};
use pgrad_engine::Cpu;
use pgrad_env::{
    BatchResult, Each,
    probe::{ActionKind, EndlessReward, MaskedAction, ObservedActionReward, RightChoices},
    spec_of,
};
use pgrad_settings::apply_pair;
use pgrad_testkit::{CountingAllocator, allocations_of_all_threads};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const N_ENVS: usize = 24;
const N_STEPS: usize = 21;
const SHARD: usize = 8;
const MINIBATCH: usize = 200;
const EPOCHS: usize = 2;

/// Allocations of an iteration.
fn of_iteration(make: &dyn Fn(usize) -> BatchResult, pairs: &[&str], threads: usize) -> u64 {
    let mut c = PpoConfig::default();
    (c.rollout.n_envs, c.rollout.n_steps) = (N_ENVS, N_STEPS);
    (c.ppo.minibatch_size, c.ppo.epochs) = (MINIBATCH, EPOCHS);
    c.model.hidden = vec![16, 16];
    let shard = format!("envs_per_shard={SHARD}");
    for pair in [&shard[..]].iter().chain(pairs) {
        let PpoConfig { rollout, ppo, model, recurrent, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, recurrent, trunk, normalize]).unwrap();
    }
    let setup = Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed: 1,
        total_steps: 1_000_000,
        cpu: Cpu::new(threads).unwrap(),
    };
    let mut ppo = c.build(&setup).unwrap();
    ppo.start().unwrap();
    let iteration = |ppo: &mut dyn Algorithm| {
        let before = allocations_of_all_threads();
        ppo.iterate().unwrap();
        allocations_of_all_threads() - before
    };
    iteration(&mut *ppo);
    // A thread that gets its first work late warms up late: the least of several iterations is the rule.
    (0..8).map(|_| iteration(&mut *ppo)).min().unwrap()
}

/// A single test: the counter sees all threads of this binary.
#[test]
fn an_iteration_allocates_nothing() {
    let before = allocations_of_all_threads();
    drop(std::hint::black_box(vec![std::hint::black_box(1u8)]));
    assert!(allocations_of_all_threads() > before, "the counting allocator is installed");
    let discrete = Each::maker(|| ObservedActionReward::new(ActionKind::Discrete));
    // Cut every third step: 7 times in 21 steps.
    let continuous = Each::maker(|| EndlessReward::new(ActionKind::Continuous, 3));
    let masked = Each::maker(MaskedAction::default);
    let choices = Each::maker(|| RightChoices);
    let normalized = &["normalize_obs=true", "normalize_reward=true", "recompute_advantage=true"];
    for threads in [1, 2] {
        assert_eq!(of_iteration(&discrete, &[], threads), 0, "discrete, {threads} threads");
        assert_eq!(of_iteration(&discrete, &["trunk=shared", "target_kl=1000"], threads), 0, "{threads}");
        assert_eq!(of_iteration(&continuous, normalized, threads), 0, "continuous, {threads} threads");
        let penalty = &["value_clip=0.1", "objective=kl-adaptive"];
        assert_eq!(of_iteration(&masked, penalty, threads), 0, "masked, {threads} threads");
        let stale = &["recompute_advantage=true", "advantage=vtrace", "objective=none"];
        assert_eq!(of_iteration(&discrete, stale, threads), 0, "V-trace, {threads} threads");
        let memory = &["recurrent=lstm", "minibatch_size=168", "initial_state=recomputed"];
        assert_eq!(of_iteration(&discrete, memory, threads), 0, "LSTM, {threads} threads");
        let memory = &["recurrent=gru", "minibatch_size=84", "trunk=shared", "recompute_advantage=true"];
        assert_eq!(of_iteration(&continuous, memory, threads), 0, "GRU, {threads} threads");
        assert_eq!(of_iteration(&choices, &["activation=relu"], threads), 0, "choices, {threads} threads");
    }
}
