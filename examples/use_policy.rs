//! Asks a trained policy for an action, without training code:
//! `cargo run --release -p pgrad --no-default-features --example use_policy POLICY 0.1 0 0 0`.

#[expect(clippy::print_stdout, reason = "an example talks to its reader")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name a policy file, then the numbers of an observation")?;
    let obs = arguments.map(|x| x.parse()).collect::<Result<Vec<f32>, _>>()?;

    let mut policy = pgrad::Policy::from_bytes(&std::fs::read(path)?)?;
    println!("{:?}", policy.act(&obs)?);
    Ok(())
}
