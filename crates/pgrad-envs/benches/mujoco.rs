//! What the MuJoCo tasks cost beside the physics: a bare loop over `mj_step`, the task, and the task with
//! time limits, resets, statistics and observations; the same 16 copies under the same random actions, on one
//! thread.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mujoco_rs::prelude::MjData;
use pgrad_env::{Actions, BatchEnv, End, VecEnv};
use pgrad_envs::mujoco::{Ant, HalfCheetah, Model, Mujoco, Task};
use pgrad_num::{Cols, Stream};
use std::sync::Arc;

/// Copies.
const N: usize = 16;
/// Steps of every copy in one iteration.
const STEPS: usize = 64;

fn beside_the_physics(c: &mut Criterion) {
    one(c, HalfCheetah::V5);
    one(c, Ant::V4);
}

fn one<T: Task>(c: &mut Criterion, task: T) {
    let about = task.about();
    let model = Model::load(&about).expect("`cargo xtask mujoco` was run");
    let space = model.action_space();
    let (nu, mut rng) = (space.dim(), Stream::new(1, 1, 0));
    // Enough of them that no pattern forms.
    let actions: Vec<Vec<f32>> =
        (0..997).map(|_| (0..nu * N).map(|_| rng.uniform_in(-1.0, 1.0) as f32).collect()).collect();
    let mut rngs: Vec<Stream> = (0..N).map(|b| Stream::new(1, 2, b as u32)).collect();
    let mut group = c.benchmark_group(about.id.as_str());
    group.throughput(Throughput::Elements((N * STEPS) as u64));

    let own = Arc::new(model.raw().clone());
    let mut data: Vec<_> = (0..N).map(|_| MjData::new(Arc::clone(&own))).collect();
    let mut turn = 0;
    group.bench_function("bare mj_step", |bench| {
        bench.iter(|| {
            for _ in 0..STEPS {
                turn += 1;
                let actions = &actions[turn % 997];
                for (b, data) in data.iter_mut().enumerate() {
                    if turn.is_multiple_of(1000) {
                        data.reset();
                        data.forward();
                    }
                    for (i, to) in data.ctrl_mut().iter_mut().enumerate() {
                        *to = f64::from(actions[i * N + b]);
                    }
                    for _ in 0..about.frame_skip {
                        data.step();
                    }
                }
            }
        });
    });

    let mut envs = Mujoco::new(task.clone(), &model, N).expect("memory");
    let (mut rewards, mut ends) = ([0.0; N], [End::Running; N]);
    let mut turn = 0;
    group.bench_function("task", |bench| {
        bench.iter(|| {
            for _ in 0..STEPS {
                turn += 1;
                if turn % 1000 == 0 {
                    (0..N).for_each(|b| envs.reset(b, &mut rngs[b]));
                }
                let actions = Actions::real(Cols::new(&actions[turn % 997], nu, N));
                envs.step(actions, &mut rngs, &mut rewards, &mut ends);
            }
        });
    });

    let made = Mujoco::new(task, &model, N).expect("memory");
    let mut envs = VecEnv::new(Box::new(made), 1, 0);
    envs.start().expect("finite");
    let mut turn = 0;
    group.bench_function("task, episodes and all", |bench| {
        bench.iter(|| {
            envs.clear_finished();
            for _ in 0..STEPS {
                turn += 1;
                envs.step(Actions::real(Cols::new(&actions[turn % 997], nu, N))).expect("finite");
            }
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(3));
    targets = beside_the_physics
}
criterion_main!(benches);
