//! Collecting and learning allocate nothing once everything is warm, the matrix products apart: the library
//! that does them may keep its packed copies where it likes, and is counted alone first.
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

use pgrad_agent::{ActorCritic, CHUNK};
use pgrad_algos::ppo::{Advantage, Objective};
use pgrad_algos::{Algorithm, Ppo, PpoConfig, PpoSettings, Setup};
use pgrad_env::probe::{ActionKind, EndlessReward, MaskedAction, ObservedActionReward, RightChoices};
use pgrad_env::{BatchEnv, Each};
use pgrad_nn::Network;
use pgrad_num::{Cols, Team};
use pgrad_settings::apply_pair;
use pgrad_testkit::{CountingAllocator, allocations_of_all_threads};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const N_ENVS: usize = 24;
const N_STEPS: usize = 21;
const SHARD: usize = 8;
const MINIBATCH: usize = 200;
const EPOCHS: usize = 2;

/// What a network's own passes over `cols` samples allocate: forward, and backward when `learn`.
fn of_pass(net: &Network, cols: usize, learn: bool) -> u64 {
    let theta = vec![0.1f32; net.n_params()];
    let (x, d_out) = (vec![0.1f32; net.n_inputs() * cols], vec![0.1f32; net.n_outputs() * cols]);
    let (mut d_theta, mut tape) = (vec![0.0f32; net.n_params()], net.tape(cols));
    let mut pass = || {
        let before = allocations_of_all_threads();
        let x = Cols::new(&x, net.n_inputs(), cols);
        net.forward(&theta, x, &mut tape);
        if learn {
            net.vjp(&theta, x, &mut tape, Cols::new(&d_out, net.n_outputs(), cols), &mut d_theta, None);
        }
        allocations_of_all_threads() - before
    };
    (0..3).map(|_| pass()).min().unwrap()
}

/// The lengths of the pieces that `n` samples are cut into.
fn pieces(n: usize, size: usize) -> impl Iterator<Item = usize> {
    (0..n).step_by(size).map(move |from| size.min(n - from))
}

/// What the networks' passes of one iteration allocate by themselves. `cut` steps of a shard are cut by a
/// time limit.
fn of_products(model: &ActorCritic, c: &PpoSettings, cut: usize) -> u64 {
    let evaluations = if c.recompute_advantage { EPOCHS } else { 1 } as u64;
    let (actor, critic) = (&model.actor().net, &model.critic().net);
    let shards = N_ENVS / SHARD;
    let act = (shards * N_STEPS) as u64 * of_pass(actor, SHARD, false);
    let values = |n: usize| pieces(n, CHUNK).map(|n| of_pass(critic, n, false)).sum::<u64>();
    let evaluate = shards as u64 * (values(SHARD * N_STEPS) + values(SHARD) + values(cut));
    let nets = if model.is_separate() { vec![actor, critic] } else { vec![actor] };
    let learn: u64 = pieces(N_ENVS * N_STEPS, MINIBATCH)
        .flat_map(|n| pieces(n, CHUNK))
        .flat_map(|n| nets.iter().map(move |net| of_pass(net, n, true)))
        .sum();
    let forward = |n: usize| pieces(n, CHUNK).map(|n| of_pass(actor, n, false)).sum::<u64>();
    let mut looks = 0;
    if c.advantage == Advantage::Vtrace {
        looks += (evaluations - 1) * shards as u64 * forward(SHARD * N_STEPS);
    }
    if c.objective == Objective::KlAdaptive {
        looks += forward(N_ENVS * N_STEPS);
    }
    act + evaluations * evaluate + EPOCHS as u64 * learn + looks
}

/// Allocations of an iteration that are not the products' own.
fn surplus(make: &dyn Fn(usize) -> Box<dyn BatchEnv>, pairs: &[&str], cut: usize, threads: usize) -> i64 {
    let mut c = PpoConfig::default();
    (c.rollout.n_envs, c.rollout.n_steps) = (N_ENVS, N_STEPS);
    (c.ppo.minibatch_size, c.ppo.epochs) = (MINIBATCH, EPOCHS);
    c.model.hidden = vec![16, 16];
    let shard = format!("envs_per_shard={SHARD}");
    for pair in [&shard[..]].iter().chain(pairs) {
        let PpoConfig { rollout, ppo, model, recurrent, trunk, normalize } = &mut c;
        apply_pair(pair, "test", &mut [rollout, ppo, model, recurrent, trunk, normalize]).unwrap();
    }
    let setup = Setup { make_env: make, seed: 1, total_steps: 1_000_000, threads };
    let team = Team::new(threads).unwrap();
    let mut ppo = Ppo::new(&c, &setup).unwrap();
    ppo.start().unwrap();
    let iteration = |ppo: &mut Ppo| {
        let before = allocations_of_all_threads();
        ppo.iterate(&team).unwrap();
        allocations_of_all_threads() - before
    };
    iteration(&mut ppo);
    // A thread that gets its first work late warms up late: the least of several iterations is the rule.
    let least = (0..8).map(|_| iteration(&mut ppo)).min().unwrap();
    if ppo.model().recurrence().is_some() {
        return least as i64; // what the products' library allocates is not counted, see the test kit
    }
    least as i64 - of_products(ppo.model(), &c.ppo, cut) as i64
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
    // Cut every third step: 7 times in 21 steps.
    let continuous =
        |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, || EndlessReward::new(ActionKind::Continuous, 3))) };
    let masked = |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, MaskedAction::default)) };
    let choices = |n| -> Box<dyn BatchEnv> { Box::new(Each::new(n, || RightChoices)) };
    let normalized = &["normalize_obs=true", "normalize_reward=true", "recompute_advantage=true"];
    for threads in [1, 2] {
        assert_eq!(surplus(&discrete, &[], 0, threads), 0, "discrete, {threads} threads");
        assert_eq!(surplus(&discrete, &["trunk=shared", "target_kl=1000"], 0, threads), 0, "{threads}");
        assert_eq!(surplus(&continuous, normalized, 7 * SHARD, threads), 0, "continuous, {threads} threads");
        let penalty = &["value_clip=0.1", "objective=kl-adaptive"];
        assert_eq!(surplus(&masked, penalty, 0, threads), 0, "masked, {threads} threads");
        let stale = &["recompute_advantage=true", "advantage=vtrace", "objective=none"];
        assert_eq!(surplus(&discrete, stale, 0, threads), 0, "V-trace, {threads} threads");
        let memory = &["recurrent=lstm", "minibatch_size=168", "initial_state=recomputed"];
        assert_eq!(surplus(&discrete, memory, 0, threads), 0, "LSTM, {threads} threads");
        let memory = &["recurrent=gru", "minibatch_size=84", "trunk=shared", "recompute_advantage=true"];
        assert_eq!(surplus(&continuous, memory, 7 * SHARD, threads), 0, "GRU, {threads} threads");
        assert_eq!(surplus(&choices, &["activation=relu"], 0, threads), 0, "choices, {threads} threads");
    }
}
