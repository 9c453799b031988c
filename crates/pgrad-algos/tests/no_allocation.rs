//! Collecting and learning allocate nothing once everything is warm.

use pgrad_algos::{Algorithm, Ppo, PpoConfig, Setup};
use pgrad_env::probe::{ActionKind, EndlessReward, MaskedAction, ObservedActionReward, RightChoices};
use pgrad_env::{BatchEnv, Each};
use pgrad_num::Team;
use pgrad_settings::apply_pair;
use pgrad_testkit::{CountingAllocator, allocations_of_all_threads};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn allocations(make: &dyn Fn(usize) -> Box<dyn BatchEnv>, pairs: &[&str], threads: usize) -> u64 {
    let mut c = PpoConfig::default();
    let common = ["n_envs=24", "n_steps=20", "envs_per_shard=8", "minibatch_size=200", "hidden=16,16"];
    for pair in common.iter().chain(pairs) {
        let PpoConfig { rollout, ppo, model, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, normalize]).unwrap();
    }
    let setup = Setup { make_env: make, seed: 1, total_steps: 1_000_000, threads };
    let team = Team::new(threads).unwrap();
    let mut ppo = Ppo::new(&c, &setup).unwrap();
    ppo.start().unwrap();
    for _ in 0..2 {
        ppo.iterate(&team).unwrap();
    }
    let before = allocations_of_all_threads();
    for _ in 0..5 {
        ppo.iterate(&team).unwrap();
    }
    allocations_of_all_threads() - before
}

/// A single test: the counter sees all threads of this binary.
#[test]
fn an_iteration_allocates_nothing() {
    let before = allocations_of_all_threads();
    drop(std::hint::black_box(vec![std::hint::black_box(1u8)]));
    assert!(allocations_of_all_threads() > before, "the counting allocator is installed");
    let discrete = |n| -> Box<dyn BatchEnv> {
        Box::new(Each::new(n, || ObservedActionReward::new(ActionKind::Discrete)))
    };
    // Cut every third step, so that final observations are at work.
    let continuous =
        |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, || EndlessReward::new(ActionKind::Continuous, 3))) };
    let masked = |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, MaskedAction::default)) };
    let choices = |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, || RightChoices)) };
    let normalized = &["normalize_obs=true", "normalize_reward=true", "recompute_advantage=true"];
    for threads in [1, 2] {
        assert_eq!(allocations(&discrete, &[], threads), 0, "discrete, {threads} threads");
        assert_eq!(allocations(&discrete, &["trunk=shared", "target_kl=0.001"], threads), 0);
        assert_eq!(allocations(&continuous, normalized, threads), 0, "continuous, {threads} threads");
        assert_eq!(allocations(&masked, &["value_clip=0.1"], threads), 0, "masked, {threads} threads");
        assert_eq!(allocations(&choices, &["activation=relu"], threads), 0, "choices, {threads} threads");
    }
}
