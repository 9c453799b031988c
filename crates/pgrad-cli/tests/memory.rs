//! A machine that gives no more memory.

#![cfg(target_os = "linux")]

#[test]
fn an_allocation_that_fails_is_74_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let train = "ulimit -v 600000; exec \"$0\" train ppo CartPole-v1 --steps 1 -q --set hidden=4096,4096 \
                 --set orthogonal_init=false --run-dir run";
    let output = std::process::Command::new("sh")
        .args(["-c", train, env!("CARGO_BIN_EXE_pgrad")])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.starts_with("error: the system gives no more memory ("), "{stderr}");
}
