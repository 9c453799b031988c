//! Steps per second of every task under random actions: action draw, step, time limit, reset, episode
//! statistics and observation, all included.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pgrad_env::{EnvError, RandomActions, VecEnv};
use pgrad_envs::{EnvEntry, REGISTRY};
use pgrad_num::Team;

/// Steps of every environment in one iteration.
const STEPS: usize = 64;
/// Environments of one shard: its state fits the first-level cache.
const SHARD: usize = 256;

struct Shard {
    envs: VecEnv,
    random: RandomActions,
}

impl Shard {
    fn new(entry: &EnvEntry, n: usize, first: usize) -> Self {
        let mut envs = VecEnv::new(entry.make(n).expect("what it needs is there"), 1, first);
        envs.reserve_episodes(n * STEPS);
        envs.start().expect("native environments start");
        let random = RandomActions::new(&envs.spec().action, n, 1, first as u32);
        Self { envs, random }
    }
    fn run(&mut self) -> Result<(), EnvError> {
        self.envs.clear_finished();
        for _ in 0..STEPS {
            self.envs.step(self.random.draw())?;
        }
        Ok(())
    }
}

fn shards(entry: &EnvEntry, n: usize) -> Vec<Shard> {
    (0..n).step_by(SHARD).map(|first| Shard::new(entry, SHARD.min(n - first), first)).collect()
}

fn random_actions(c: &mut Criterion) {
    let two = Team::new(2).expect("a thread");
    for e in REGISTRY.iter().filter(|e| !e.is_elsewhere()) {
        let mut group = c.benchmark_group(e.id);
        for n in [64, 1024] {
            group.throughput(Throughput::Elements((n * STEPS) as u64));
            let mut shards = shards(e, n);
            group.bench_function(BenchmarkId::new("1 thread", n), |bench| {
                bench.iter(|| shards.iter_mut().try_for_each(Shard::run).expect("finite"));
            });
            if shards.len() > 1 {
                group.bench_function(BenchmarkId::new("2 threads", n), |bench| {
                    bench.iter(|| two.each(&mut shards, |_, s| s.run().expect("finite")));
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = random_actions
}
criterion_main!(benches);
