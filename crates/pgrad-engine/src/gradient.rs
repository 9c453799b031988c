//! The gradient of an objective over a minibatch.

use crate::{
    Cpu,
    batch::SampleSet,
    gather::Places,
    lanes::{LANES, add_up},
    memory::{SequenceWork, bits_agree},
    objective::{Loss, LossSums, PolicyChunk, ValueChunk},
};
use pgrad_math::dist::{ActionDist, Actions};
use pgrad_model::{ActorCritic, ChunkShape, Critic, Part, Role, Trunk};
use pgrad_nn::NetworkTape;
use pgrad_num::{Aligned, Cols, ColsMut, kernels};

/// Networks that a gradient goes through, at most: the actor's and the critic's.
const NETWORKS: usize = 2;

/// Which losses go through a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Policy,
    Value,
    Both,
}

/// What was gathered of a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gathered {
    /// Samples.
    n: usize,
    /// Whether the actions are masked.
    pub(crate) masked: bool,
    /// Rows of the old parameters, 0 when they are not kept.
    old_rows: usize,
    /// Whether log-probabilities must be those of the rollout.
    same_bits: bool,
}

/// The gradient of one network, to be put together from its lanes.
#[derive(Default)]
struct Target<'a> {
    gradient: &'a mut [f32],
    squared_norm: f64,
}

impl<'a> Target<'a> {
    /// The parts of `gradient` that belong to the networks of `lanes`; what belongs to none is 0.
    fn of(lanes: &[Lane], model: &ActorCritic, gradient: &'a mut [f32]) -> [Self; NETWORKS] {
        let mut targets: [Self; NETWORKS] = Default::default();
        let (mut rest, mut start) = (gradient, 0);
        for (target, lane) in targets.iter_mut().zip(lanes) {
            let params = lane.part(model).params.clone();
            let (unasked, from) = rest.split_at_mut(params.start - start);
            unasked.fill(0.0);
            (target.gradient, rest) = from.split_at_mut(params.len());
            start = params.end;
        }
        rest.fill(0.0);
        targets
    }
    fn add_up<'l>(&mut self, lanes: impl Iterator<Item = &'l Lane>) {
        add_up(lanes.map(|lane| &lane.gradient[..]), self.gradient);
        self.squared_norm = kernels::sum_of_squares(self.gradient, 0.0);
    }
}

/// A partial gradient: every `LANES`-th chunk of a minibatch through one network.
#[derive(Debug)]
struct Lane {
    role: Pass,
    number: usize,
    gradient: Aligned<f32>,
    sums: LossSums,
}

/// One thread's buffers for a chunk.
#[derive(Debug)]
pub(crate) struct ChunkWork {
    pub(crate) actor: NetworkTape<f32>,
    pub(crate) critic: NetworkTape<f32>,
    pub(crate) x: Aligned<f32>,
    pub(crate) index_actions: Vec<u32>,
    pub(crate) real_actions: Vec<f32>,
    masks: Vec<bool>,
    params_old: Aligned<f32>,
    logp: Aligned<f32>,
    logp_old: Aligned<f32>,
    adv: Aligned<f32>,
    v: Aligned<f32>,
    v_old: Aligned<f32>,
    ret: Aligned<f32>,
    work: [Aligned<f32>; 4],
    pub(crate) d_out: Aligned<f32>,
    /// Samples that there is room for.
    room: usize,
    places: Places,
    sequences: SequenceWork,
}

/// Gradients of objectives over minibatches.
///
/// With separate networks actor and critic are two independent problems that run side by side; with a
/// shared trunk their two cotangents go through one backward pass.
#[derive(Debug)]
pub(crate) struct Gradients {
    lanes: Vec<Lane>,
    lanes_per_network: usize,
    /// Samples that go through a network together.
    chunk: usize,
    work: Vec<ChunkWork>,
}

impl Gradients {
    /// For `model` and minibatches of up to `max_samples`. Without a critic in the model there is no value
    /// term.
    ///
    /// # Panics
    /// When the critic is one of actions.
    pub(crate) fn new(model: &ActorCritic, max_samples: usize, cpu: &Cpu) -> Self {
        let roles: &[Pass] = match (model.shape().critic, model.shape().trunk) {
            (Critic::None, _) => &[Pass::Policy],
            (Critic::State, Trunk::Separate) => &[Pass::Policy, Pass::Value],
            (Critic::State, Trunk::Shared) => &[Pass::Both],
            (Critic::Action, _) => panic!("the critic of an objective tells the value of states"),
        };
        Self::of_roles(model, roles, max_samples, cpu)
    }

    /// For the critic of `model` alone: the policy's part of every gradient is 0, and its term is never
    /// asked.
    ///
    /// # Panics
    /// When the model has no critic of states with a network of its own.
    pub(crate) fn of_critic(model: &ActorCritic, max_samples: usize, cpu: &Cpu) -> Self {
        let own = model.is_separate() && model.shape().critic == Critic::State;
        assert!(own, "a critic of states with a network of its own is needed");
        Self::of_roles(model, &[Pass::Value], max_samples, cpu)
    }

    fn of_roles(model: &ActorCritic, roles: &[Pass], max_samples: usize, cpu: &Cpu) -> Self {
        let shape = model.chunk(max_samples);
        let chunk = shape.samples();
        let lanes_per_network = LANES.min(max_samples.div_ceil(chunk)).max(1);
        let lanes = (0..lanes_per_network)
            .flat_map(|number| {
                roles.iter().map(move |role| {
                    let part = if *role == Pass::Value { model.critic() } else { model.actor() };
                    Lane {
                        role: *role,
                        number,
                        gradient: Aligned::new(part.params.len()),
                        sums: LossSums::default(),
                    }
                })
            })
            .collect();
        let work = cpu.scratch(|| ChunkWork::new(model, shape));
        Self { lanes, lanes_per_network, chunk, work }
    }

    /// Floating-point operations of a sample's way forward and back through the networks.
    pub(crate) fn flops(&self, model: &ActorCritic) -> usize {
        let networks = &self.lanes[..self.lanes.len() / self.lanes_per_network];
        let nets = networks.iter().map(|lane| &lane.part(model).net);
        nets.map(|net| net.forward_flops() + net.vjp_flops()).sum()
    }

    /// Writes the gradient of what is to be descended, `−L`, over the samples `ids`, with respect to `θ`;
    /// returns the sums and the norm. A recurrent model takes whole sequences, one after the other.
    ///
    /// The norm is finite only when the gradient is, so that no other pass has to look. With as many threads
    /// as networks or fewer, a network's gradient is put together by the thread that computed it, in whose
    /// core's cache it lies.
    ///
    /// # Panics
    /// When `gradient` has another length than `θ`, or sequences are cut into pieces.
    pub(crate) fn gradient(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        ids: &[u32],
        cpu: &Cpu,
        gradient: &mut [f32],
        loss: &Loss<'_>,
    ) -> (LossSums, f64) {
        assert_eq!(gradient.len(), model.theta.len());
        let (stride, chunk) = (self.lanes_per_network, self.chunk);
        let pass = |lane: &mut Lane, work: &mut ChunkWork| {
            lane.gradient.fill(0.0);
            lane.sums = LossSums::default();
            for ids in ids.chunks(chunk).skip(lane.number).step_by(stride) {
                work.with_columns(model, set, lane.role == Pass::Value, ids, |work, ids| {
                    work.gather_obs(set, ids);
                    match lane.role {
                        Pass::Policy => work.policy_pass(model, set, ids, lane, loss),
                        Pass::Value => work.value_pass(model, set, ids, lane, loss),
                        Pass::Both => work.shared_pass(model, set, ids, lane, loss),
                    }
                });
            }
        };
        let networks = self.lanes.len() / stride;
        let mut targets = Target::of(&self.lanes[..networks], model, gradient);
        let targets = &mut targets[..networks];
        if stride == 1 {
            let mut both: [Option<(&mut Lane, &mut Target<'_>)>; NETWORKS] = Default::default();
            for (both, pair) in both.iter_mut().zip(self.lanes.iter_mut().zip(targets.iter_mut())) {
                *both = Some(pair);
            }
            cpu.each_with(&mut both[..networks], &mut self.work, |_, both, work| {
                let Some((lane, target)) = both else { return };
                pass(lane, work);
                target.add_up(std::iter::once(&**lane));
            });
        } else {
            cpu.each_with(&mut self.lanes, &mut self.work, |_, lane, work| pass(lane, work));
            let lanes = &self.lanes;
            cpu.each_near(targets, |i, target| target.add_up(lanes[i..].iter().step_by(networks)));
        }
        let mut sums = LossSums::default();
        self.lanes.iter().for_each(|lane| sums.add(&lane.sums));
        let norm = targets.iter().map(|target| target.squared_norm).sum::<f64>().sqrt();
        (sums, norm)
    }

    /// Lets `see` look at the policy's present outputs over the samples `ids`, without a gradient; returns
    /// the sums that it kept.
    pub(crate) fn look(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        ids: &[u32],
        cpu: &Cpu,
        see: impl Fn(PolicyChunk<'_>) + Sync,
    ) -> LossSums {
        let (stride, chunk) = (self.lanes_per_network, self.chunk);
        cpu.each_with(&mut self.lanes, &mut self.work, |_, lane, work| {
            lane.sums = LossSums::default();
            if lane.role != Pass::Value {
                for ids in ids.chunks(chunk).skip(lane.number).step_by(stride) {
                    work.with_columns(model, set, false, ids, |work, ids| {
                        work.gather_obs(set, ids);
                        work.policy_look(model, set, ids, lane, &see);
                    });
                }
            }
        });
        let mut sums = LossSums::default();
        self.lanes.iter().for_each(|lane| sums.add(&lane.sums));
        sums
    }
}

impl Lane {
    /// The network that it goes through.
    fn part<'a>(&self, model: &'a ActorCritic) -> &'a Part {
        if self.role == Pass::Value { model.critic() } else { model.actor() }
    }
}

impl ChunkWork {
    pub(crate) fn new(model: &ActorCritic, chunk: ChunkShape) -> Self {
        let room = chunk.samples();
        let numbers = || Aligned::new(room);
        let dist = model.dist();
        let shape = model.shape();
        let (index_rows, real_rows) = (dist.index_rows(), dist.real_rows());
        let critic = if model.has_critic() { model.critic() } else { model.actor() };
        let outputs = model.actor().net.n_outputs().max(critic.net.n_outputs());
        Self {
            actor: model.actor().net.tape_of(chunk.steps, chunk.cols),
            critic: critic.net.tape_of(chunk.steps, chunk.cols),
            x: Aligned::new(shape.obs_dim * room),
            index_actions: vec![0; index_rows * room],
            real_actions: vec![0.0; real_rows * room],
            masks: vec![true; shape.action.mask_dim() * room],
            params_old: Aligned::new(dist.n_outputs() * room),
            logp: numbers(),
            logp_old: numbers(),
            adv: numbers(),
            v: numbers(),
            v_old: numbers(),
            ret: numbers(),
            work: std::array::from_fn(|_| numbers()),
            d_out: Aligned::new(outputs * room),
            room,
            places: Places::new(room),
            sequences: SequenceWork::new(model, chunk),
        }
    }

    /// Calls `then` with the samples `ids` in the order of the columns that go through a network together.
    /// Those of a recurrent model are whole sequences: their first states go to the tape of the critic or the
    /// actor.
    fn with_columns(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        critic: bool,
        ids: &[u32],
        then: impl FnOnce(&mut Self, &[u32]),
    ) {
        if model.recurrence().is_none() {
            return then(self, ids);
        }
        let tape = if critic { &mut self.critic } else { &mut self.actor };
        let owner = if critic { Role::Critic } else { Role::Actor };
        let length = model.recurrence().map_or(1, |r| r.sequence_length);
        assert_eq!(ids.len() % length, 0, "a minibatch holds whole sequences of {length} steps");
        self.sequences.find(set, owner, ids.chunks_exact(length).map(|ids| ids.iter().copied()));
        self.sequences.tell(tape);
        let order = std::mem::take(&mut self.sequences.order);
        then(self, &order);
        self.sequences.order = order;
    }

    /// Finds the samples and gathers their observations.
    pub(crate) fn gather_obs(&mut self, set: SampleSet<'_>, ids: &[u32]) {
        self.places.find(set, ids);
        let dim = self.x.len() / self.room;
        self.places.gather(set, &mut self.x, dim, |data| &data.obs);
    }

    /// Gathers what the policy's loss needs of the samples that [`ChunkWork::gather_obs`] found.
    pub(crate) fn gather_policy(&mut self, set: SampleSet<'_>, ids: &[u32]) -> Gathered {
        let (places, room) = (&self.places, self.room);
        let masked = set.masked;
        let old_rows = if set.keeps_params() { self.params_old.len() / room } else { 0 };
        places.gather(set, &mut self.logp_old, 1, |data| &data.logp);
        places.gather(set, &mut self.adv, 1, |data| &data.adv);
        let rows = |len: usize| len / room;
        let (index_rows, real_rows) = (rows(self.index_actions.len()), rows(self.real_actions.len()));
        if index_rows > 0 {
            places.gather(set, &mut self.index_actions, index_rows, |data| &data.index_actions);
        }
        if real_rows > 0 {
            places.gather(set, &mut self.real_actions, real_rows, |data| &data.real_actions);
        }
        if masked {
            let mask_rows = rows(self.masks.len());
            places.gather(set, &mut self.masks, mask_rows, |data| &data.masks);
        }
        if old_rows > 0 {
            places.gather(set, &mut self.params_old, old_rows, |data| &data.params);
        }
        Gathered { n: ids.len(), masked, old_rows, same_bits: set.same_bits }
    }

    fn gather_value(&mut self, set: SampleSet<'_>) {
        self.places.gather(set, &mut self.v_old, 1, |data| &data.v);
        self.places.gather(set, &mut self.ret, 1, |data| &data.ret);
    }

    fn policy_pass(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        ids: &[u32],
        lane: &mut Lane,
        loss: &Loss<'_>,
    ) {
        let n = ids.len();
        let gathered = self.gather_policy(set, ids);
        self.forward(model.actor(), model, n);
        self.policy_loss(model, gathered, 0, lane, |p| loss.policy(p));
        self.backward(model.actor(), model, n, lane);
    }

    /// As a policy's pass without its way back.
    fn policy_look(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        ids: &[u32],
        lane: &mut Lane,
        see: impl Fn(PolicyChunk<'_>),
    ) {
        let gathered = self.gather_policy(set, ids);
        self.forward(model.actor(), model, ids.len());
        self.policy_loss(model, gathered, usize::from(lane.role == Pass::Both), lane, see);
    }

    fn value_pass(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        ids: &[u32],
        lane: &mut Lane,
        loss: &Loss<'_>,
    ) {
        let n = ids.len();
        self.gather_value(set);
        let part = model.critic();
        let rows = part.net.n_inputs();
        let x = Cols::new(&self.x[..rows * n], rows, n);
        let theta = &model.theta[part.params.clone()];
        self.v[..n].copy_from_slice(&part.net.forward(theta, x, &mut self.critic).into_data()[..n]);
        self.value_loss(n, lane, loss);
        let x = Cols::new(&self.x[..rows * n], rows, n);
        let d_out = Cols::new(&self.d_out[..n], 1, n);
        part.net.vjp(theta, x, &mut self.critic, d_out, &mut lane.gradient, None);
    }

    fn shared_pass(
        &mut self,
        model: &ActorCritic,
        set: SampleSet<'_>,
        ids: &[u32],
        lane: &mut Lane,
        loss: &Loss<'_>,
    ) {
        let n = ids.len();
        let gathered = self.gather_policy(set, ids);
        self.gather_value(set);
        self.forward(model.actor(), model, n);
        self.v[..n].copy_from_slice(&self.actor.outputs()[..n]);
        // The value is row 0 of the outputs, the policy's rows follow.
        self.policy_loss(model, gathered, 1, lane, |p| loss.policy(p));
        self.value_loss(n, lane, loss);
        self.backward(model.actor(), model, n, lane);
    }

    fn forward(&mut self, part: &Part, model: &ActorCritic, n: usize) {
        let x = Cols::new(&self.x[..part.net.n_inputs() * n], part.net.n_inputs(), n);
        part.net.forward(&model.theta[part.params.clone()], x, &mut self.actor);
    }

    fn backward(&mut self, part: &Part, model: &ActorCritic, n: usize, lane: &mut Lane) {
        let x = Cols::new(&self.x[..part.net.n_inputs() * n], part.net.n_inputs(), n);
        let rows = part.net.n_outputs();
        let d_out = Cols::new(&self.d_out[..rows * n], rows, n);
        part.net.vjp(&model.theta[part.params.clone()], x, &mut self.actor, d_out, &mut lane.gradient, None);
    }

    /// Turns the policy's rows of the actor's outputs into the distribution's parameters.
    pub(crate) fn prepare(&mut self, model: &ActorCritic, masked: bool, n: usize, first_row: usize) {
        let dist = model.dist();
        let rows = dist.n_outputs();
        let out = &mut self.actor.outputs_mut()[first_row * n..(first_row + rows) * n];
        let mask_rows = self.masks.len() / self.room;
        let masks = masked.then(|| Cols::new(&self.masks[..mask_rows * n], mask_rows, n));
        dist.prepare(ColsMut::new(out, rows, n), masks);
    }

    fn policy_loss(
        &mut self,
        model: &ActorCritic,
        Gathered { n, masked, old_rows, same_bits }: Gathered,
        first_row: usize,
        lane: &mut Lane,
        loss: impl Fn(PolicyChunk<'_>),
    ) {
        let dist = model.dist();
        let rows = dist.n_outputs();
        let span = first_row * n..(first_row + rows) * n;
        self.prepare(model, masked, n, first_row);
        let params = Cols::new(&self.actor.outputs()[span.clone()], rows, n);
        let actions = gathered_actions(dist, &self.index_actions, &self.real_actions, n);
        dist.logp(params, actions, &mut self.logp[..n]);
        debug_assert!(!same_bits || bits_agree(&self.logp[..n], &self.logp_old[..n]));
        let d_out = &mut self.d_out[span];
        d_out.fill(0.0);
        let [a, b, c, d] = &mut self.work;
        loss(PolicyChunk {
            dist,
            params,
            params_old: Cols::new(&self.params_old[..old_rows * n], old_rows, n),
            actions,
            logp: &self.logp[..n],
            logp_old: &self.logp_old[..n],
            adv: &mut self.adv[..n],
            d_out: ColsMut::new(d_out, rows, n),
            work: [&mut a[..n], &mut b[..n], &mut c[..n], &mut d[..n]],
            sums: &mut lane.sums,
        });
    }

    fn value_loss(&mut self, n: usize, lane: &mut Lane, loss: &Loss<'_>) {
        loss.value(ValueChunk {
            v: &self.v[..n],
            v_old: &self.v_old[..n],
            ret: &self.ret[..n],
            d_v: &mut self.d_out[..n],
            work: &mut self.work[0][..n],
            sums: &mut lane.sums,
        });
    }
}

/// The actions of `n` gathered samples.
pub(crate) fn gathered_actions<'a>(
    dist: &ActionDist,
    indices: &'a [u32],
    reals: &'a [f32],
    n: usize,
) -> Actions<'a, f32> {
    let (index, real) = (dist.index_rows(), dist.real_rows());
    Actions {
        index: Cols::new(&indices[..index * n], index, n),
        real: Cols::new(&reals[..real * n], real, n),
    }
}
