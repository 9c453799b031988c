//! Kronecker factors of the Fisher matrix of policy and critic, over all samples of a batch.

use crate::{
    Cpu,
    batch::{SampleSet, Store},
    gradient::{ChunkWork, gathered_actions},
    lanes::{LANES, chunks_of},
};
use pgrad_math::dist::ActionDist;
use pgrad_model::{ActorCritic, CHUNK, Critic, Part, Trunk};
use pgrad_nn::{Affine, LayerSums};
use pgrad_num::{Cols, ColsMut};
use std::ops::Range;

/// Which network a partial sum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Policy,
    Value,
    Both,
}

/// Every `LANES`-th chunk of the samples through one network.
#[derive(Debug)]
struct Lane {
    role: Role,
    number: usize,
    sums: Vec<LayerSums<f32>>,
}

/// `A = E[x̄ x̄ᵀ]` and `G = E[g gᵀ]` of a layer.
#[derive(Clone, Debug)]
struct Moments {
    inputs: Vec<f64>,
    cotangents: Vec<f64>,
}

/// The Kronecker factors of the Fisher matrix of `p(a, v|s) = π_θ(a|s) N(v; V_θ(s), 1)` (Wu et al. 2017,
/// section 3.1), layer by layer, at the parameters that drew the samples.
///
/// `g` is the cotangent of a layer's outputs when `log p` is differentiated. The policy's part takes the
/// actions that were taken: they were drawn from `π_θ`, as the Fisher matrix asks. The critic's part is
/// exact: the derivative of `log N(v; V, 1)` has mean square 1 whatever `V`, so a cotangent of 1 stands for
/// the draw. The two are independent, so with a shared trunk their `G` add up.
#[derive(Debug)]
pub struct Curvature {
    lanes: Vec<Lane>,
    work: Vec<ChunkWork>,
    layers: Vec<Affine>,
    moments: Vec<Moments>,
}

impl Curvature {
    /// For the networks of `model`.
    ///
    /// # Panics
    /// When the critic is one of actions.
    pub(crate) fn new(model: &ActorCritic, cpu: &Cpu) -> Self {
        let roles: &[Role] = match (model.shape().critic, model.shape().trunk) {
            (Critic::None, _) => &[Role::Policy],
            (Critic::State, Trunk::Separate) => &[Role::Policy, Role::Value],
            (Critic::State, Trunk::Shared) => &[Role::Both],
            (Critic::Action, _) => panic!("the critic tells the value of states"),
        };
        let (mut lanes, mut layers) = (Vec::new(), Vec::new());
        for role in roles {
            let part = part_of(*role, model);
            let shift = |r: &Range<usize>| r.start + part.params.start..r.end + part.params.start;
            let own = part.net.affine();
            lanes.extend((0..LANES).map(|number| Lane {
                role: *role,
                number,
                sums: own.iter().map(LayerSums::new).collect(),
            }));
            layers.extend(own.iter().map(|l| Affine {
                weight: shift(&l.weight),
                bias: shift(&l.bias),
                ..*l
            }));
        }
        let moments = layers
            .iter()
            .map(|l| Moments {
                inputs: vec![0.0; (l.cols + 1) * (l.cols + 1)],
                cotangents: vec![0.0; l.rows * l.rows],
            })
            .collect();
        Self { lanes, work: cpu.scratch(|| ChunkWork::new(model, model.chunk(CHUNK))), layers, moments }
    }

    /// All layers, the policy's first; places are those in `θ`.
    #[must_use]
    pub fn layers(&self) -> &[Affine] {
        &self.layers
    }

    /// `A = E[x̄ x̄ᵀ]`, `[(cols+1)²]` with the constant last, and `G = E[g gᵀ]`, `[rows²]`, of layer `i` over
    /// the batch last measured.
    #[must_use]
    pub fn moments(&self, i: usize) -> [&[f64]; 2] {
        [&self.moments[i].inputs, &self.moments[i].cotangents]
    }

    /// Measures the factors over all samples of `data`, which `model` drew.
    pub(crate) fn measure(&mut self, model: &ActorCritic, data: &Store, cpu: &Cpu) {
        let (set, n) = (data.samples(model), data.len());
        cpu.each_with(&mut self.lanes, &mut self.work, |_, lane, work| {
            lane.sums.iter_mut().for_each(LayerSums::clear);
            let mut ids = [0; CHUNK];
            for c in chunks_of(lane.number, n.div_ceil(CHUNK)) {
                let from = c * CHUNK;
                let len = CHUNK.min(n - from);
                // Sample numbers fit in 32 bits: the configuration is checked for it.
                ids[..len].iter_mut().zip(from..).for_each(|(id, i)| *id = i as u32);
                work.curvature(model, set, &ids[..len], lane);
            }
        });
        let mut at = 0;
        for lanes in self.lanes.chunks_exact(LANES) {
            let layers = lanes[0].sums.len();
            for (l, moments) in self.moments[at..at + layers].iter_mut().enumerate() {
                moments.set(lanes.iter().map(|lane| &lane.sums[l]));
            }
            at += layers;
        }
    }
}

fn part_of(role: Role, model: &ActorCritic) -> &Part {
    if role == Role::Value { model.critic() } else { model.actor() }
}

impl Moments {
    fn set<'s>(&mut self, sums: impl Iterator<Item = &'s LayerSums<f32>>) {
        let wide = self.inputs.len().isqrt();
        let cols = wide - 1;
        self.inputs.fill(0.0);
        self.cotangents.fill(0.0);
        let mut n = 0.0;
        for sum in sums {
            for (r, row) in sum.inputs.chunks_exact(cols.max(1)).enumerate() {
                for (c, x) in row.iter().enumerate() {
                    self.inputs[r * wide + c] += f64::from(*x);
                }
            }
            for (c, x) in sum.input_sum.iter().enumerate() {
                self.inputs[cols * wide + c] += f64::from(*x);
            }
            for (m, x) in self.cotangents.iter_mut().zip(&sum.cotangents) {
                *m += f64::from(*x);
            }
            n += sum.samples as f64;
        }
        for c in 0..cols {
            self.inputs[c * wide + cols] = self.inputs[cols * wide + c];
        }
        self.inputs[cols * wide + cols] = n;
        self.inputs.iter_mut().chain(&mut self.cotangents).for_each(|m| *m /= n);
    }
}

impl ChunkWork {
    /// Adds the moments of some samples to a lane.
    fn curvature(&mut self, model: &ActorCritic, set: SampleSet<'_>, ids: &[u32], lane: &mut Lane) {
        let n = ids.len();
        self.gather_obs(set, ids);
        let part = part_of(lane.role, model);
        let theta = &model.theta[part.params.clone()];
        let (inputs, outputs) = (part.net.n_inputs(), part.net.n_outputs());
        let masked = lane.role != Role::Value && self.gather_policy(set, ids).masked;
        let tape = if lane.role == Role::Value { &mut self.critic } else { &mut self.actor };
        let x = Cols::new(&self.x[..inputs * n], inputs, n);
        part.net.forward(theta, x, tape);
        part.net.add_input_moments(x, tape, &mut lane.sums);
        if lane.role != Role::Value {
            // The policy's rows are the last ones.
            let dist: &ActionDist = model.dist();
            let rows = dist.n_outputs();
            let first = outputs - rows;
            self.prepare(model, masked, n, first);
            let params = Cols::new(&self.actor.outputs()[first * n..outputs * n], rows, n);
            let actions = gathered_actions(dist, &self.index_actions, &self.real_actions, n);
            let d_out = &mut self.d_out[..outputs * n];
            d_out.fill(0.0);
            dist.logp_vjp(
                params,
                actions,
                &[1.0; CHUNK][..n],
                ColsMut::new(&mut d_out[first * n..], rows, n),
            );
            let (x, d_out) = (Cols::new(&self.x[..inputs * n], inputs, n), Cols::new(d_out, outputs, n));
            part.net.add_cotangent_moments(theta, x, &mut self.actor, d_out, &mut lane.sums);
        }
        if lane.role != Role::Policy {
            // The value is the first row.
            let d_out = &mut self.d_out[..outputs * n];
            d_out.fill(0.0);
            d_out[..n].fill(1.0);
            let tape = if lane.role == Role::Value { &mut self.critic } else { &mut self.actor };
            let (x, d_out) = (Cols::new(&self.x[..inputs * n], inputs, n), Cols::new(d_out, outputs, n));
            part.net.add_cotangent_moments(theta, x, tape, d_out, &mut lane.sums);
        }
    }
}
