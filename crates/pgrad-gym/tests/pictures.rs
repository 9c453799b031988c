//! What environments in Python look like.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test panics when something is wrong")]

#[expect(dead_code, reason = "what other tests use")]
mod common;

use common::{pool_seeds, python, settings};
use pgrad_env::{Content, Picture, PictureError, RandomActions, VecEnv};
use pgrad_gym::{Gym, GymSettings};
use serde_json::json;

const PLANNED: &str = "gym:tests.misbehaving:Planned-v0";

fn pictures(gym: &Gym, steps: usize) -> Vec<Result<Picture, PictureError>> {
    let mut env = VecEnv::new(gym.make(3), 1, 0);
    let mut random = RandomActions::new(&env.spec().action, 3, 1, 0);
    env.start().unwrap();
    let mut seen = vec![env.picture(2)];
    for _ in 0..steps {
        env.step(random.draw()).unwrap();
        assert_eq!(env.position(2).1 as f32, env.obs().at(1, 2));
        seen.push(env.picture(2));
    }
    seen
}

#[test]
fn an_environment_is_drawn_when_it_was_asked_for() {
    let gym = Gym::open_drawn(PLANNED, &settings(&json!({}))).unwrap();
    for (t, picture) in pictures(&gym, 3).into_iter().enumerate() {
        let picture = picture.unwrap();
        let rgb = [t as u8, 7, 9].repeat(24);
        assert_eq!(picture.content, Content::Pixels { width: 6, height: 4, rgb }, "step {t}");
        assert_eq!(picture.frames_per_second, 25.0);
    }
    // A speed that is none.
    for fps in [json!("fast"), json!("inf"), json!(-1), json!(null)] {
        let gym = Gym::open_drawn(PLANNED, &settings(&json!({"fps": fps}))).unwrap();
        assert_eq!(pictures(&gym, 0).remove(0).unwrap().frames_per_second, 30.0, "{fps}");
    }
    for (open, kwargs, said) in [
        (Gym::open as fn(&str, &GymSettings) -> _, json!({}), "its picture is NoneType"),
        (
            Gym::open_drawn,
            json!({"render": "gray"}),
            "its picture is ndarray of shape (4, 6) and dtype uint8",
        ),
        (Gym::open_drawn, json!({"render": "raise"}), "RuntimeError: as planned"),
        (Gym::open_drawn, json!({"render": "exit 3"}), "exited with code 3"),
        (Gym::open_drawn, json!({"render": "sleep"}), "to draw"),
    ] {
        // Of what does not raise or end its process, a start has to be waited for.
        let own = GymSettings { env_start_secs: 4.0, ..settings(&kwargs) };
        let error = pictures(&open(PLANNED, &own).unwrap(), 0).remove(0).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`{PLANNED}` cannot be drawn: ")) && error.contains(said),
            "{error}"
        );
    }
}

#[test]
fn a_pool_draws_the_environment_that_is_under_way() {
    let own = settings(&json!({"max_episode_steps": 3}));
    let gym = Gym::open_drawn("envpool:CartPole-v1", &own).unwrap();
    let mut env = VecEnv::new(gym.make(2), 1, 0);
    let mut random = RandomActions::new(&env.spec().action, 2, 1, 0);
    env.start().unwrap();
    let mut seen = vec![env.picture(1).unwrap()];
    for _ in 0..3 {
        env.step(random.draw()).unwrap();
        seen.push(env.picture(1).unwrap());
    }
    // After three steps the other one of the two in the pool stands at its beginning.
    for (picture, pool_seed) in [&seen[0], &seen[3]].into_iter().zip(pool_seeds(1, 1)) {
        let script = format!(
            "import sys, envpool\n\
             e = envpool.make('CartPole-v1', env_type='gymnasium', num_envs=1, seed={pool_seed}, render_mode='rgb_array')\n\
             e.reset()\n\
             sys.stdout.buffer.write(e.render(env_ids=0)[0].tobytes())"
        );
        let alone =
            std::process::Command::new(python()).args(["-W", "ignore", "-c", &script]).output().unwrap();
        let Content::Pixels { rgb, .. } = &picture.content else { panic!("no pixels") };
        assert!(rgb.len() > 10_000 && *rgb == alone.stdout, "{}", String::from_utf8_lossy(&alone.stderr));
    }
    assert_ne!(seen[0], seen[3]);
}
