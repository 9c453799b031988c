//! Values and ratios of all samples of a batch.

use crate::{
    Cpu,
    batch::{Samples, Store},
    memory::Walk,
};
use pgrad_env::EnvSpec;
use pgrad_math::dist::Actions;
use pgrad_model::{ActorCritic, AgentError, CHUNK, Role, action_rows, mask_rows};
use pgrad_nn::NetworkTape;
use pgrad_num::{Cols, ColsMut, Real, kernels, row_columns, rows_to_columns};

/// A run of consecutive samples that go through a network together.
#[derive(Debug)]
struct Piece {
    shard: usize,
    from: usize,
    len: usize,
    /// What came of them: a value or a ratio each.
    out: [f32; CHUNK],
}

/// The passes, with their memory.
#[derive(Debug)]
pub(crate) struct Values {
    pieces: Vec<Piece>,
    work: Vec<Work>,
}

/// One thread's buffers.
#[derive(Debug)]
struct Work {
    x: Vec<f32>,
    critic: NetworkTape<f32>,
    policy_x: Vec<f32>,
    policy: NetworkTape<f32>,
    taken: Taken,
    /// Of a recurrent actor, and of its critic.
    walks: Option<[Walk; 2]>,
}

/// One thread's buffers for what actions were taken.
#[derive(Debug)]
struct Taken {
    index_actions: Vec<u32>,
    real_actions: Vec<f32>,
    masks: Vec<bool>,
    /// Samples that there is room for.
    room: usize,
}

impl Values {
    /// For batches whose shards have up to `envs_per_shard` environments.
    pub(crate) fn new(model: &ActorCritic, spec: &EnvSpec, envs_per_shard: usize, cpu: &Cpu) -> Self {
        // A policy alone is never asked for values.
        let critic = if model.has_critic() { model.critic() } else { model.actor() };
        let actor = model.actor();
        let room = model.recurrence().map_or(CHUNK, |r| r.sequence_length * envs_per_shard);
        let (index_rows, real_rows) = action_rows(spec);
        let work = || Work {
            x: vec![0.0; critic.net.n_inputs() * CHUNK],
            critic: critic.net.tape(CHUNK),
            policy_x: vec![0.0; actor.net.n_inputs() * CHUNK],
            policy: actor.net.tape(CHUNK),
            taken: Taken {
                index_actions: vec![0; index_rows * room],
                real_actions: vec![0.0; real_rows * room],
                masks: vec![true; mask_rows(spec) * room],
                room,
            },
            walks: model
                .recurrence()
                .map(|r| [actor, critic].map(|part| Walk::new(part, r.sequence_length, envs_per_shard))),
        };
        Self { pieces: Vec::new(), work: cpu.scratch(work) }
    }

    /// Cuts the samples of `store` into pieces.
    fn cut(&mut self, store: &Store) {
        let shards = store.shards.iter().enumerate();
        let all = shards.flat_map(|(shard, data)| {
            let n = data.reward.len();
            (0..n).step_by(CHUNK).map(move |from| (shard, from, CHUNK.min(n - from)))
        });
        let mut count = 0;
        for (shard, from, len) in all {
            match self.pieces.get_mut(count) {
                Some(piece) => (piece.shard, piece.from, piece.len) = (shard, from, len),
                None => self.pieces.push(Piece { shard, from, len, out: [0.0; CHUNK] }),
            }
            count += 1;
        }
        self.pieces.truncate(count);
    }
    /// Calls `each` for every piece, and copies what came of it to where `to` says.
    fn each_piece(
        &mut self,
        store: &mut Store,
        cpu: &Cpu,
        what: &'static str,
        each: impl Fn(&mut Work, &Samples, usize, &mut [f32]) + Sync,
        to: impl Fn(&mut Samples) -> &mut [f32],
    ) -> Result<(), AgentError> {
        self.cut(store);
        let rows = &store.shards;
        cpu.each_with(&mut self.pieces, &mut self.work, |_, piece, work| {
            each(work, &rows[piece.shard], piece.from, &mut piece.out[..piece.len]);
        });
        for Piece { shard, from, len, out } in &self.pieces {
            let (data, out) = (&mut store.shards[*shard], &out[..*len]);
            if let Some(i) = kernels::first_non_finite(out) {
                return Err(data.not_finite(what, from + i, out[i]));
            }
            to(data)[*from..from + len].copy_from_slice(out);
        }
        Ok(())
    }

    /// `V(s_t)` of all samples and of what follows them, with the endings resolved. Without a critic all
    /// values are 0: there is nothing to bootstrap from.
    pub(crate) fn values(
        &mut self,
        model: &ActorCritic,
        store: &mut Store,
        cpu: &Cpu,
    ) -> Result<(), AgentError> {
        let bootstrap = store.bootstrap_truncated();
        if !model.has_critic() {
            store.shards.iter_mut().for_each(|data| data.resolve_without_values(bootstrap));
            return Ok(());
        }
        if model.recurrence().is_some() {
            cpu.each_with(&mut store.shards, &mut self.work, |_, data, work| {
                if let Some([_, walk]) = &mut work.walks {
                    data.error = data.evaluate_with_memory(model, walk, bootstrap).err();
                }
            });
            return store.first_error();
        }
        let piece = |work: &mut Work, data: &Samples, from: usize, v: &mut [f32]| {
            work.values(model, &data.obs, from, v.len(), v);
        };
        self.each_piece(store, cpu, "value", piece, |data| &mut data.v)?;
        cpu.each_with(&mut store.shards, &mut self.work, |_, data, work| {
            data.v_cut.clear();
            data.v_cut.resize(data.cut.len(), 0.0);
            work.all_values(model, &data.last_obs, &mut data.v_last);
            work.all_values(model, &data.cut_obs, &mut data.v_cut);
            data.error = data.resolve_finite(bootstrap).err();
        });
        store.first_error()
    }

    /// `π_θ(a_t|s_t)/π_old(a_t|s_t)` of all samples.
    pub(crate) fn ratios(
        &mut self,
        model: &ActorCritic,
        store: &mut Store,
        cpu: &Cpu,
    ) -> Result<(), AgentError> {
        let masked = store.masked();
        if model.recurrence().is_some() {
            cpu.each_with(&mut store.shards, &mut self.work, |_, data, work| {
                work.ratios_with_memory(model, data, masked);
            });
            return store.first_error();
        }
        let piece = |work: &mut Work, data: &Samples, from: usize, ratio: &mut [f32]| {
            let Work { policy_x, policy, taken, .. } = work;
            let x = row_columns(&data.obs, policy_x, CHUNK, from, ratio.len());
            taken.ratios(model, model.policy_outputs(x, policy), data, from, masked, ratio);
        };
        self.each_piece(store, cpu, "ratio", piece, |data| &mut data.ratio)
    }

    /// The states that the sequences of a recurrent model start from, with the present parameters, from those
    /// at the start of the batch on.
    pub(crate) fn recompute_states(&mut self, model: &ActorCritic, store: &mut Store, cpu: &Cpu) {
        cpu.each_with(&mut store.shards, &mut self.work, |_, data, work| {
            if let Some([actor, critic]) = &mut work.walks {
                data.recompute_states(model, Role::Actor, actor);
                if model.is_separate() {
                    data.recompute_states(model, Role::Critic, critic);
                }
            }
        });
    }
}

impl Work {
    /// Values of `len` consecutive samples.
    fn values(&mut self, model: &ActorCritic, obs: &[f32], from: usize, len: usize, v: &mut [f32]) {
        let dim = self.x.len() / CHUNK;
        let x = &mut self.x[..dim * len];
        rows_to_columns(&obs[from * dim..(from + len) * dim], x, len);
        v[..len].copy_from_slice(model.values(Cols::new(x, dim, len), &mut self.critic));
    }
    fn all_values(&mut self, model: &ActorCritic, obs: &[f32], v: &mut [f32]) {
        for from in (0..v.len()).step_by(CHUNK) {
            let len = CHUNK.min(v.len() - from);
            self.values(model, obs, from, len, &mut v[from..from + len]);
        }
    }
    /// Ratios of all samples under a recurrent policy, from the states that their sequences start from.
    fn ratios_with_memory(&mut self, model: &ActorCritic, data: &mut Samples, masked: bool) {
        let Self { walks, taken, .. } = self;
        let mut ratio = std::mem::take(&mut data.ratio);
        if let Some([actor, _]) = walks {
            data.walk_policy(model, actor, |from, outputs| {
                let n = outputs.cols();
                taken.ratios(model, outputs, data, from, masked, &mut ratio[from..from + n]);
            });
        }
        data.error = kernels::first_non_finite(&ratio).map(|i| data.not_finite("ratio", i, ratio[i]));
        data.ratio = ratio;
    }
}

impl Taken {
    /// Ratios of consecutive samples of a shard, for which the policy gives `outputs`.
    fn ratios(
        &mut self,
        model: &ActorCritic,
        mut outputs: ColsMut<'_, f32>,
        data: &Samples,
        from: usize,
        masked: bool,
        ratio: &mut [f32],
    ) {
        let (n, room, dist) = (ratio.len(), self.room, model.dist());
        let mask = masked.then(|| row_columns(&data.masks, &mut self.masks, room, from, n));
        dist.prepare(outputs.reborrow(), mask);
        let actions = Actions {
            index: row_columns(&data.index_actions, &mut self.index_actions, room, from, n),
            real: row_columns(&data.real_actions, &mut self.real_actions, room, from, n),
        };
        dist.logp(outputs.as_cols(), actions, ratio);
        for (ratio, logp_old) in ratio.iter_mut().zip(&data.logp[from..]) {
            *ratio -= *logp_old;
        }
        f32::exp_slice(ratio);
    }
}
