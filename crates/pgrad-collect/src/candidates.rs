//! Many policies, each judged by whole episodes of its own.

use pgrad_engine::Cpu;
use pgrad_env::{BatchResult, End, EnvSpec, Episode, MakeError, VecEnv};
use pgrad_model::{Actor, ActorCritic, AgentError, Clipping};
use pgrad_num::{Record, RecordError};

/// Steps after which an episode counts as endless.
const LONGEST: u32 = 1 << 20;

/// Environments in which candidates for a policy's parameters play whole episodes, with the most probable
/// actions. Candidate `i` always plays in the same environments, so that results do not depend on who plays
/// it.
pub struct Candidates {
    cpu: Cpu,
    spec: EnvSpec,
    players: Vec<Player>,
}

impl std::fmt::Debug for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidates").field("env", &self.spec.id).field("n", &self.players.len()).finish()
    }
}

/// The environments of one candidate.
struct Player {
    env: VecEnv,
    actor: Actor,
    /// Which environments have played their episode.
    done: Vec<bool>,
    finished: Vec<Episode>,
    steps: u64,
    score: f64,
    error: Option<AgentError>,
}

impl Candidates {
    /// Room for `n` candidates of the policy of `model`, each with `episodes` environments.
    ///
    /// # Errors
    /// When `make` fails.
    ///
    /// # Panics
    /// When `n` or `episodes` is 0.
    pub fn new(
        n: usize,
        episodes: usize,
        make: impl Fn(usize) -> BatchResult,
        model: &ActorCritic,
        seed: u64,
        cpu: &Cpu,
    ) -> Result<Self, MakeError> {
        assert!(n > 0 && episodes > 0, "a candidate plays an episode at least");
        let players: Vec<Player> = (0..n)
            .map(|i| {
                let env = VecEnv::new(make(episodes)?, seed, i * episodes);
                Ok(Player {
                    actor: Actor::new(model, env.spec(), episodes),
                    done: vec![false; episodes],
                    finished: Vec::with_capacity(episodes),
                    steps: 0,
                    score: 0.0,
                    error: None,
                    env,
                })
            })
            .collect::<Result<_, MakeError>>()?;
        Ok(Self { cpu: cpu.clone(), spec: players[0].env.spec().clone(), players })
    }
    /// What the environments are.
    #[must_use]
    pub fn spec(&self) -> &EnvSpec {
        &self.spec
    }
    /// Starts a first episode everywhere.
    ///
    /// # Errors
    /// When an environment breaks its contract.
    pub fn start(&mut self) -> Result<(), AgentError> {
        for player in &mut self.players {
            player.env.start()?;
        }
        Ok(())
    }
    /// Lets candidate `i` play with the policy's parameters `thetas[i]`, and writes the mean return of its
    /// episodes to `scores[i]`.
    ///
    /// # Errors
    /// When an environment breaks its contract, an episode does not end, or a policy gives an output that is
    /// not finite.
    ///
    /// # Panics
    /// When there are not as many parameters and scores as candidates.
    pub fn play(
        &mut self,
        model: &ActorCritic,
        thetas: &[Vec<f32>],
        scores: &mut [f64],
    ) -> Result<(), AgentError> {
        assert_eq!((thetas.len(), scores.len()), (self.players.len(), self.players.len()));
        self.cpu.each(&mut self.players, |i, player| {
            player.error = player.play(model, &thetas[i]).err();
        });
        for (player, score) in self.players.iter_mut().zip(scores) {
            if let Some(e) = player.error.take() {
                return Err(e);
            }
            *score = player.score;
        }
        Ok(())
    }
    /// Steps of all episodes of the last [`Candidates::play`].
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.players.iter().map(|p| p.steps).sum()
    }
    /// How many numbers of actions lay outside their bounds since this was last asked.
    pub fn take_clipping(&mut self) -> Clipping {
        Clipping::sum(self.players.iter_mut().map(|p| p.actor.take_clipping()))
    }
    /// The episodes of the last [`Candidates::play`], candidate by candidate.
    pub fn episodes(&self) -> impl Iterator<Item = &Episode> {
        self.players.iter().flat_map(|p| &p.finished)
    }
    /// Saves the environments.
    #[must_use]
    pub fn save(&self) -> Record {
        let mut r = Record::new();
        for (i, player) in self.players.iter().enumerate() {
            r.put_record(&format!("env{i}"), player.env.save());
        }
        r
    }
    /// Restores what [`Candidates::save`] saved. Returns whether the environments continue exactly.
    ///
    /// # Errors
    /// When the record does not fit.
    pub fn load(&mut self, from: &Record) -> Result<bool, RecordError> {
        let mut exact = true;
        for (i, player) in self.players.iter_mut().enumerate() {
            exact &= player.env.load(&from.record(&format!("env{i}")))?;
        }
        Ok(exact)
    }
}

impl Player {
    /// One whole episode in every environment. What an environment does after its own is given up.
    fn play(&mut self, model: &ActorCritic, theta: &[f32]) -> Result<(), AgentError> {
        self.env.restart()?;
        self.env.clear_finished();
        self.finished.clear();
        self.done.fill(false);
        while self.done.contains(&false) {
            self.act(model, theta)?;
            for (b, end) in self.env.ends().iter().enumerate() {
                let (episode, steps) = self.env.position(b);
                if steps >= LONGEST {
                    return Err(AgentError::Endless { env: b, episode, steps });
                }
                if *end == End::Lost && self.env.is_dropped(b) {
                    return Err(self.env.lost_for_good(b).into());
                }
                // A lost episode does not count: the next one is the environment's own.
                self.done[b] |= matches!(end, End::Terminated | End::Truncated);
            }
        }
        // The first episode of each environment counts, in their order.
        let (first, n) = (self.env.finished().iter().map(|e| e.env).min().unwrap_or(0), self.done.len());
        let own = (first..first + n).filter_map(|env| self.env.finished().iter().find(|e| e.env == env));
        self.finished.extend(own.copied());
        self.steps = self.finished.iter().map(|e| u64::from(e.length)).sum();
        self.score = self.finished.iter().map(|e| e.episode_return).sum::<f64>() / n as f64;
        Ok(())
    }

    /// One step with the most probable actions.
    fn act(&mut self, model: &ActorCritic, theta: &[f32]) -> Result<(), AgentError> {
        let Self { env, actor, .. } = self;
        actor.look(env.obs(), None);
        actor.forward(model, theta);
        actor.choose_in(env, model.dist(), |params, _, actions| model.dist().mode(params, actions))?;
        actor.take(env)
    }
}
