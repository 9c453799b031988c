//! An iteration of A2C, NPG, TRPO and ACKTR allocates nothing once everything is warm. What the snapshots of
//! a vine need grows with the states that are kept and with nothing else.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_algos::Setup;
use pgrad_engine::Cpu;
use pgrad_env::{
    BatchResult, Each,
    probe::{ActionKind, EndlessReward, MaskedAction, ObservedActionReward},
    spec_of,
};
use pgrad_settings::apply_pair;
use pgrad_testkit::{CountingAllocator, allocations_of_all_threads};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations of an iteration.
fn of_iteration(name: &str, make: &dyn Fn(usize) -> BatchResult, pairs: &[&str], threads: usize) -> u64 {
    let mut c = (pgrad_algos::find(name).unwrap().config)();
    // Shards, lanes and chunks in numbers that do not fit: 504 samples.
    for pair in ["n_envs=24", "n_steps=21", "envs_per_shard=8", "hidden=16,16"].iter().chain(pairs) {
        apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
    }
    let setup = Setup {
        spec: &spec_of(make).unwrap(),
        make_env: make,
        seed: 1,
        total_steps: 1_000_000,
        cpu: Cpu::new(threads).unwrap(),
    };
    let mut algo = c.build(&setup).unwrap();
    algo.start().unwrap();
    let mut iteration = || {
        let before = allocations_of_all_threads();
        algo.iterate().unwrap();
        allocations_of_all_threads() - before
    };
    iteration();
    // A thread that gets its first work late warms up late: the least of several iterations is the rule.
    (0..8).map(|_| iteration()).min().unwrap()
}

/// A single test: the counter sees all threads of this binary.
#[test]
fn an_iteration_allocates_nothing() {
    let before = allocations_of_all_threads();
    drop(std::hint::black_box(vec![std::hint::black_box(1u8)]));
    assert!(allocations_of_all_threads() > before, "the counting allocator is installed");
    let discrete = Each::maker(|| ObservedActionReward::new(ActionKind::Discrete));
    // Cut every third step.
    let continuous = Each::maker(|| EndlessReward::new(ActionKind::Continuous, 3));
    let masked = Each::maker(MaskedAction::default);
    let normalized = &["normalize_obs=true", "normalize_reward=true"][..];
    for threads in [1, 2] {
        for name in ["a2c", "npg", "trpo", "acktr"] {
            for (what, make, pairs) in [
                ("discrete", &discrete as &dyn Fn(usize) -> BatchResult, &[][..]),
                ("continuous", &continuous, normalized),
                ("masked", &masked, &[]),
            ] {
                let found = of_iteration(name, make, pairs, threads);
                assert_eq!(found, 0, "{name}, {what}, {threads} threads");
            }
        }
        for (name, pairs) in [
            ("a2c", &["advantage=vtrace", "trunk=shared"][..]),
            ("npg", &["fisher=empirical", "fisher_every=3", "step=fixed"]),
            ("trpo", &["constraint=max-kl"]),
            ("acktr", &["trunk=shared"]),
        ] {
            let found = of_iteration(name, &discrete, pairs, threads);
            assert_eq!(found, 0, "{name}, {pairs:?}, {threads} threads");
        }
        // A vine: for each state that is kept, however many rollouts of whatever length begin there.
        let vine = |states: &str, more: &[&str]| {
            let states = format!("vine_states={states}");
            of_iteration("trpo", &continuous, &[&["sampling=vine", &states], more].concat(), threads)
        };
        let [few, many] = ["40", "80"].map(|n| vine(n, &["vine_rollouts=2", "vine_length=2"]));
        assert!(many > few && many <= 2 * few, "{few} {many}");
        assert_eq!(vine("40", &["vine_rollouts=9", "vine_length=2"]), few);
        assert_eq!(vine("40", &["vine_rollouts=2", "vine_length=30"]), few);
    }
}
