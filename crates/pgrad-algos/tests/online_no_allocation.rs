//! Methods that learn at every step allocate nothing once they are warm.

use pgrad_algos::Setup;
use pgrad_engine::Cpu;
use pgrad_env::{
    BatchResult, Each,
    probe::{ActionKind, EndlessReward, MaskedAction},
    spec_of,
};
use pgrad_settings::apply_pair;
use pgrad_testkit::{CountingAllocator, allocations_during};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn an_iteration_allocates_nothing() {
    assert!(
        allocations_during(|| std::hint::black_box(vec![1u8])) > 0,
        "the counting allocator is installed"
    );
    let masked = Each::maker(MaskedAction::default);
    let endless = Each::maker(|| EndlessReward::new(ActionKind::Discrete, 3));
    for name in ["a3c", "async-q", "async-sarsa", "async-nstep-q"] {
        for workers in ["workers=1", "workers=2"] {
            let mut c = (pgrad_algos::find(name).unwrap().config)();
            for pair in [workers, "steps_per_iteration=1000", "hidden=64,64"] {
                apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
            }
            let threads = c.threads(1);
            let setup = Setup {
                spec: &spec_of(&endless).unwrap(),
                make_env: &endless,
                seed: 1,
                total_steps: 1_000_000,
                cpu: Cpu::new(threads).unwrap(),
            };
            let mut algo = c.build(&setup).unwrap();
            algo.start().unwrap();
            // Each thread warms its own buffers of the matrix product.
            (0..5).for_each(|_| _ = algo.iterate().unwrap());
            let allocated = allocations_during(|| algo.iterate().unwrap());
            assert!(algo.episodes().count() > 300, "episodes were stored");
            assert_eq!(allocated, 0, "{name}, {workers}");
        }
    }
    for name in ["qac", "td-ac", "nac", "off-pac", "greedy-gq", "softmax-gq"] {
        for make in [&masked as &dyn Fn(usize) -> BatchResult, &endless] {
            let mut c = (pgrad_algos::find(name).unwrap().config)();
            for pair in ["n_envs=3", "n_steps=50", "hidden=64,64", "alpha_w=0.001"] {
                apply_pair(pair, "test", &mut c.parts_mut()).unwrap();
            }
            if c.check(&spec_of(make).unwrap()).is_err() {
                assert!(name.ends_with("gq"), "{name} is for masks, too");
                continue;
            }
            let setup = Setup {
                spec: &spec_of(make).unwrap(),
                make_env: make,
                seed: 1,
                total_steps: 1_000_000,
                cpu: Cpu::new(1).unwrap(),
            };
            let mut algo = c.build(&setup).unwrap();
            algo.start().unwrap();
            algo.iterate().unwrap();
            let allocated = allocations_during(|| algo.iterate().unwrap());
            assert!(algo.episodes().count() > 40, "episodes were stored");
            assert_eq!(allocated, 0, "{name}");
        }
    }
}
