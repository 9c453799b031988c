//! The policy's surrogate, its metric and its divergence around `θ_old`, over all samples of a batch.

use crate::{
    Cpu,
    batch::{Estimated, SampleSet},
    lanes::{LANES, add_up, chunks_of, strided},
    memory::{SequenceWork, bits_agree},
};
use pgrad_math::{
    dist::{ActionDist, Actions},
    surrogate,
};
use pgrad_model::{ActorCritic, ChunkShape, Role};
use pgrad_nn::{Jacobian, Network, NetworkTape};
use pgrad_num::{Cols, ColsMut, kernels};
use pgrad_optim::{Local, LocalMetric, LocalTrial, Trial};

/// Bytes of activations that are kept from one product to the next; beyond it they are computed anew.
pub const KEPT_BYTES: usize = 256 << 20;

/// Which estimate of the Fisher matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fisher {
    /// `(1/n) Σ_t Jᵀ F_out J`, the Hessian of the mean `KL(π_old ‖ π_θ)`: the expectation over actions in
    /// closed form (Schulman et al. 2015, Appendix C).
    KlHessian,
    /// `(1/n) Σ_t ∇ log π(a_t|s_t) ∇ log π(a_t|s_t)ᵀ`: the covariance of the scores of the actions that were
    /// taken (Kakade 2002, section 5).
    Empirical,
}

/// The samples of a batch under the policy that drew them, in pieces of 64 columns, or of whole sequences:
/// what [`LocalPolicy`] computes on. The memory is reused from batch to batch; a product allocates nothing.
#[derive(Debug)]
pub(crate) struct PolicyProblem {
    lanes: Vec<Lane>,
    work: Vec<Work>,
    shape: ChunkShape,
    /// All samples of a recurrent policy, sequence after sequence.
    order: Vec<u32>,
    /// Whether sequences were left out of it.
    order_has_gaps: bool,
    /// Samples.
    n: usize,
    /// The first chunks and samples make the metric.
    metric_chunks: usize,
    metric_samples: usize,
    /// Chunks whose activations are kept, at most.
    kept: usize,
}

/// Every `LANES`-th chunk, and their partial sums.
#[derive(Debug, Default)]
struct Lane {
    chunks: Vec<Chunk>,
    /// Chunks that hold samples.
    used: usize,
    sum: Vec<f32>,
    entropy: f64,
    surrogate: f64,
    kl: f64,
    largest: f64,
}

/// Samples that go through the network together.
#[derive(Debug)]
struct Chunk {
    data: Data,
    /// The passes at `θ_old`, if they are kept.
    passes: Option<Passes>,
}

/// What the network did for a chunk at `θ_old`.
#[derive(Debug)]
struct Passes {
    tape: NetworkTape<f32>,
    /// Where it makes products with the Jacobian cheaper.
    jacobian: Option<Jacobian<f32>>,
}

impl Passes {
    fn new(net: &Network, shape: ChunkShape) -> Self {
        Self {
            tape: net.tape_of(shape.steps, shape.cols),
            jacobian: net.jacobian_pays().then(|| net.jacobian(shape.samples())),
        }
    }
    /// After a forward pass.
    fn linearize(&mut self, model: &ActorCritic) {
        if let Some(jacobian) = &mut self.jacobian {
            model.actor().net.linearize(theta_of(model), &self.tape, jacobian);
        }
    }
    /// `J v`.
    fn jvp(&mut self, model: &ActorCritic, x: Cols<'_, f32>, v: &[f32], out: ColsMut<'_, f32>) {
        let (net, tape) = (&model.actor().net, &mut self.tape);
        match &self.jacobian {
            Some(jacobian) => net.jvp_by(jacobian, x, tape, v, out),
            None => net.jvp(theta_of(model), x, tape, v, out),
        }
    }
    /// Adds `Jᵀ d_out`.
    fn vjp(&mut self, model: &ActorCritic, x: Cols<'_, f32>, d_out: Cols<'_, f32>, sum: &mut [f32]) {
        let (net, tape) = (&model.actor().net, &mut self.tape);
        match &self.jacobian {
            Some(jacobian) => net.vjp_by(jacobian, x, tape, d_out, sum),
            None => net.vjp(theta_of(model), x, tape, d_out, sum, None),
        }
    }
}

/// What is known of the samples of a chunk; matrices are `[rows x n]`.
#[derive(Debug)]
struct Data {
    n: usize,
    /// Samples that there is room for.
    room: usize,
    /// How a recurrent policy's samples make sequences.
    sequences: SequenceWork,
    /// A row of ones, and one of work space.
    ones: Vec<f32>,
    logp: Vec<f32>,
    x: Vec<f32>,
    masks: Vec<bool>,
    masked: bool,
    /// The distribution's parameters under `π_old`, prepared.
    params_old: Vec<f32>,
    /// What was done: one action for each sample, or the branches of a vine.
    taken: Vec<Taken>,
    /// Whether the actions of a sample have weights: its surrogate is then the self-normalised one.
    weighted: bool,
}

/// One action of each sample.
#[derive(Debug)]
struct Taken {
    index_actions: Vec<u32>,
    real_actions: Vec<f32>,
    adv: Vec<f32>,
    /// 1 where a sample has one action.
    weight: Vec<f32>,
    logp_old: Vec<f32>,
    /// `∂ log π_old(a|s) / ∂ outputs`.
    score: Vec<f32>,
}

/// One thread's buffers for a chunk.
#[derive(Debug)]
struct Work {
    passes: Passes,
    tangent: Vec<f32>,
    cotangent: Vec<f32>,
    rows: [Vec<f32>; 4],
}

impl Taken {
    fn new(dist: &ActionDist, room: usize) -> Self {
        let (index_rows, real_rows) = (dist.index_rows(), dist.real_rows());
        Self {
            index_actions: vec![0; index_rows * room],
            real_actions: vec![0.0; real_rows * room],
            adv: vec![0.0; room],
            weight: vec![1.0; room],
            logp_old: vec![0.0; room],
            score: vec![0.0; dist.n_outputs() * room],
        }
    }
    fn actions(&self, n: usize) -> Actions<'_, f32> {
        let room = self.adv.len();
        Actions { index: columns(&self.index_actions, room, n), real: columns(&self.real_actions, room, n) }
    }
}

impl PolicyProblem {
    /// Room for `samples` samples of the policy of `model`; it grows when there are more.
    ///
    /// # Panics
    /// When actor and critic share a network: the policy's parameters would not be its own.
    pub(crate) fn new(model: &ActorCritic, samples: usize, cpu: &Cpu) -> Self {
        let net = &model.actor().net;
        let floats = net.tape_len() + if net.jacobian_pays() { net.jacobian_len() } else { 0 };
        let room = model.chunk(samples.div_ceil(2)).samples();
        Self::keeping(model, samples, cpu, KEPT_BYTES / (4 * room * floats))
    }
    /// As [`PolicyProblem::new`]; the activations of the first `kept` chunks only are kept in memory. The
    /// results do not depend on it.
    ///
    /// # Panics
    /// As [`PolicyProblem::new`].
    pub(crate) fn keeping(model: &ActorCritic, samples: usize, cpu: &Cpu, kept: usize) -> Self {
        assert!(model.is_separate() || !model.has_critic(), "the policy needs a network of its own");
        let net = &model.actor().net;
        // Two pieces at least, for two threads, where there are as many sequences.
        let shape = model.chunk(samples.div_ceil(2));
        let (room, outputs) = (shape.samples(), net.n_outputs() * shape.samples());
        let lane = || Lane { sum: vec![0.0; net.n_params()], ..Lane::default() };
        let work = || Work {
            passes: Passes::new(net, shape),
            tangent: vec![0.0; outputs],
            cotangent: vec![0.0; outputs],
            rows: std::array::from_fn(|_| vec![0.0; room]),
        };
        let mut problem = Self {
            lanes: (0..LANES).map(|_| lane()).collect(),
            work: cpu.scratch(work),
            shape,
            order: Vec::new(),
            order_has_gaps: false,
            n: 0,
            metric_chunks: 0,
            metric_samples: 0,
            kept,
        };
        problem.reserve(model, samples);
        problem
    }

    fn reserve(&mut self, model: &ActorCritic, samples: usize) {
        for c in 0..samples.div_ceil(self.shape.samples()) {
            let chunks = &mut self.lanes[c % LANES].chunks;
            if chunks.len() == c / LANES {
                chunks.push(Chunk::new(model, self.shape, c < self.kept));
            }
        }
    }

    /// Takes in all samples of `data`, with their advantages, and computes what stays the same around the
    /// parameters of `model`, which drew them.
    ///
    /// With `normalize` the advantages are shifted and scaled to mean 0 and standard deviation 1. The metric
    /// is made of every `subsample`-th sample, or sequence of a recurrent policy, rounded up to whole chunks;
    /// 1 takes all.
    ///
    /// # Panics
    /// When `subsample` is 0.
    pub(crate) fn gather(
        &mut self,
        model: &ActorCritic,
        data: &Estimated<'_>,
        normalize: bool,
        subsample: usize,
        cpu: &Cpu,
    ) {
        let (set, n) = (data.samples(model), data.len());
        self.reserve(model, n);
        self.n = n;
        let ChunkShape { steps, cols } = self.shape;
        let sequences = n / steps;
        self.metric_chunks = sequences.div_ceil(subsample).div_ceil(cols);
        self.metric_samples = n.min(self.metric_chunks * self.shape.samples());
        let stale = self.order.len() != n || self.order_has_gaps || data.has_lost();
        if model.recurrence().is_some() && stale {
            data.write_order(&mut self.order);
            self.order_has_gaps = data.has_lost();
        }
        let order = &self.order;
        cpu.each_with(&mut self.lanes, &mut self.work, |number, lane, work| {
            (lane.used, lane.entropy) = (0, 0.0);
            for c in chunks_of(number, sequences.div_ceil(cols)) {
                let chosen =
                    (c * cols..sequences.min((c + 1) * cols)).map(|i| strided(i, sequences, subsample));
                let Chunk { data, passes } = &mut lane.chunks[c / LANES];
                let passes = passes.as_mut().unwrap_or(&mut work.passes);
                if order.is_empty() {
                    data.gather(set, model.dist(), chosen.map(|i| i as u32));
                } else {
                    // Sequences, in the order of the columns.
                    let of = |i: usize| order[i * steps..(i + 1) * steps].iter().copied();
                    data.sequences.find(set, Role::Actor, chosen.map(of));
                    let ids = std::mem::take(&mut data.sequences.order);
                    data.gather(set, model.dist(), ids.iter().copied());
                    data.sequences.order = ids;
                    data.sequences.tell(&mut passes.tape);
                }
                data.remember(model, set, passes);
                let entropy = &mut work.rows[0][..data.n];
                model.dist().entropy(columns(&data.params_old, data.room, data.n), entropy);
                lane.entropy += kernels::sum(entropy);
                lane.used += 1;
            }
        });
        if normalize {
            self.normalize_advantages();
        }
    }

    fn normalize_advantages(&mut self) {
        let n = self.n as f64;
        let sum = |f: &dyn Fn(f64) -> f64| -> f64 {
            let each = |t: &Taken, i: usize| f64::from(t.weight[i]) * f(f64::from(t.adv[i]));
            let all = self.data().flat_map(|d| d.taken.iter().map(move |t| (t, d.n)));
            all.flat_map(|(t, n)| (0..n).map(move |i| each(t, i))).sum()
        };
        let mean = sum(&|a| a) / n;
        let std = (sum(&|a| (a - mean) * (a - mean)) / n).sqrt();
        let (mean, scale) = (mean as f32, (1.0 / (std + 1e-8)) as f32);
        let chunks = self.lanes.iter_mut().flat_map(|l| &mut l.chunks[..l.used]);
        for taken in chunks.flat_map(|c| &mut c.data.taken) {
            taken.adv.iter_mut().for_each(|a| *a = (*a - mean) * scale);
        }
    }

    fn data(&self) -> impl Iterator<Item = &Data> {
        self.lanes.iter().flat_map(|l| &l.chunks[..l.used]).map(|c| &c.data)
    }

    /// The problem around the parameters of `model`: those that [`PolicyProblem::gather`] saw.
    pub(crate) fn around<'a>(
        &'a mut self,
        model: &'a ActorCritic,
        fisher: Fisher,
        cpu: &'a Cpu,
        flops: &'a mut f64,
    ) -> LocalPolicy<'a> {
        *flops += (model.actor().net.forward_flops() * self.n) as f64;
        LocalPolicy { problem: self, model, fisher, cpu, flops }
    }
}

impl Chunk {
    fn new(model: &ActorCritic, shape: ChunkShape, keep: bool) -> Self {
        let (net, dist, room) = (&model.actor().net, model.dist(), shape.samples());
        let data = Data {
            n: 0,
            room,
            sequences: SequenceWork::new(model, shape),
            ones: vec![1.0; room],
            logp: vec![0.0; room],
            x: vec![0.0; net.n_inputs() * room],
            masks: vec![true; dist.mask_rows() * room],
            masked: false,
            params_old: vec![0.0; dist.n_outputs() * room],
            taken: vec![Taken::new(dist, room)],
            weighted: false,
        };
        Self { data, passes: keep.then(|| Passes::new(net, shape)) }
    }

    /// The samples and their pass through the network at `θ_old`: kept, or made anew on a spare tape.
    fn at_old<'a>(&'a mut self, model: &ActorCritic, spare: &'a mut Passes) -> (&'a Data, &'a mut Passes) {
        let Self { data, passes } = self;
        let passes = match passes {
            Some(kept) => kept,
            None => {
                data.begin(&mut spare.tape);
                model.actor().net.forward(theta_of(model), data.x(), &mut spare.tape);
                spare.linearize(model);
                spare
            }
        };
        (data, passes)
    }
}

/// The policy's parameters.
fn theta_of(model: &ActorCritic) -> &[f32] {
    &model.theta[model.actor().params.clone()]
}

impl Data {
    fn gather(&mut self, set: SampleSet<'_>, dist: &ActionDist, ids: impl ExactSizeIterator<Item = u32>) {
        let n = ids.len();
        (self.n, self.masked, self.weighted) = (n, set.masked, set.weighted);
        let room = self.room;
        self.taken.resize_with(set.branching, || Taken::new(dist, room));
        let dim = self.x.len() / room;
        let mask_rows = if set.masked { self.masks.len() / room } else { 0 };
        for (j, id) in ids.enumerate() {
            let (data, at) = set.get(id);
            for (d, x) in data.obs[at * dim..(at + 1) * dim].iter().enumerate() {
                self.x[d * n + j] = *x;
            }
            for r in 0..mask_rows {
                self.masks[r * n + j] = data.masks[at * mask_rows + r];
            }
            for (k, taken) in self.taken.iter_mut().enumerate() {
                let at = at * set.branching + k;
                taken.adv[j] = data.adv[at];
                taken.weight[j] = if set.weighted { data.weight[at] } else { 1.0 };
                let (index, real) = (taken.index_actions.len() / room, taken.real_actions.len() / room);
                taken.logp_old[j] = if set.weighted { 0.0 } else { data.logp[at] };
                for r in 0..index {
                    taken.index_actions[r * n + j] = data.index_actions[at * index + r];
                }
                for r in 0..real {
                    taken.real_actions[r * n + j] = data.real_actions[at * real + r];
                }
            }
        }
    }

    /// Tells the tape of a recurrent policy what the sequences start from.
    fn begin(&self, tape: &mut NetworkTape<f32>) {
        if self.sequences.is_used() {
            self.sequences.tell(tape);
        }
    }
    fn x(&self) -> Cols<'_, f32> {
        columns(&self.x, self.room, self.n)
    }
    fn mask(&self) -> Option<Cols<'_, bool>> {
        self.masked.then(|| columns(&self.masks, self.room, self.n))
    }

    /// What is computed once at `θ_old`: distributions, log-probabilities, scores.
    fn remember(&mut self, model: &ActorCritic, set: SampleSet<'_>, passes: &mut Passes) {
        let (dist, n, room) = (model.dist(), self.n, self.room);
        let mut out = model.policy_outputs(self.x(), &mut passes.tape);
        dist.prepare(out.reborrow(), self.mask());
        let span = out.as_cols().data().len();
        self.params_old[..span].copy_from_slice(out.as_cols().data());
        passes.linearize(model);
        let params = columns(&self.params_old, room, n);
        for taken in &mut self.taken {
            let mut score = std::mem::take(&mut taken.score);
            let actions = taken.actions(n);
            score.fill(0.0);
            dist.logp_vjp(params, actions, &self.ones[..n], columns_mut(&mut score, room, n));
            let mut logp = std::mem::take(&mut self.logp);
            dist.logp(params, actions, &mut logp[..n]);
            debug_assert!(!set.same_bits || bits_agree(&logp[..n], &taken.logp_old[..n]));
            taken.logp_old[..n].copy_from_slice(&logp[..n]);
            self.logp = logp;
            taken.score = score;
        }
    }

    /// Writes the surrogate of each sample under the prepared `params` to the first of `rows`.
    fn surrogate(&self, dist: &ActionDist, params: Cols<'_, f32>, rows: &mut [Vec<f32>; 4]) {
        let n = self.n;
        let [value, logp, ratio, other] = rows.each_mut().map(|row| &mut row[..n]);
        if !self.weighted {
            let [Taken { adv, logp_old, .. }] = &self.taken[..] else { return };
            dist.logp(params, self.taken[0].actions(n), logp);
            return surrogate::ratio(logp, &logp_old[..n], &adv[..n], ratio, value, other);
        }
        value.fill(0.0);
        other.fill(0.0);
        for taken in &self.taken {
            let Taken { adv, weight, logp_old, .. } = taken;
            dist.logp(params, taken.actions(n), logp);
            let (logp_old, weight, adv) = (&logp_old[..n], &weight[..n], &adv[..n]);
            surrogate::add_self_normalized(logp, logp_old, weight, adv, ratio, value, other);
        }
        value.iter_mut().zip(other).for_each(|(l, sum)| *l /= *sum);
    }
}

/// The `n` columns of a buffer for `room` columns.
fn columns<T>(buffer: &[T], room: usize, n: usize) -> Cols<'_, T> {
    let rows = buffer.len() / room;
    Cols::new(&buffer[..rows * n], rows, n)
}

fn columns_mut<T>(buffer: &mut [T], room: usize, n: usize) -> ColsMut<'_, T> {
    let rows = buffer.len() / room;
    ColsMut::new(&mut buffer[..rows * n], rows, n)
}

/// The surrogate `L(θ) = (1/n) Σ_t π_θ(a_t|s_t)/π_old(a_t|s_t) Â_t` (Schulman et al. 2015, Eq. 14) around
/// `θ_old`, or that of a vine, `(1/n) Σ_n Σ_k w_k r_k Q̂_k / Σ_k w_k r_k` (section 5.2), with the Fisher
/// matrix for a metric and the divergence `KL(π_old ‖ π_θ)` in closed form.
///
/// Parameters are those of the policy alone.
#[derive(Debug)]
pub struct LocalPolicy<'a> {
    problem: &'a mut PolicyProblem,
    model: &'a ActorCritic,
    fisher: Fisher,
    cpu: &'a Cpu,
    flops: &'a mut f64,
}

impl LocalPolicy<'_> {
    /// Mean entropy of `π_old`, in nats.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        self.problem.lanes.iter().map(|l| l.entropy).sum::<f64>() / self.problem.n as f64
    }

    /// Calls `each` for the first `chunks` chunks and writes `scale` times the sum of the partial sums.
    fn accumulate(
        &mut self,
        chunks: usize,
        scale: f64,
        out: &mut [f32],
        each: impl Fn(&mut Chunk, &mut Work, &mut [f32]) + Sync,
    ) {
        let PolicyProblem { lanes, work, .. } = &mut *self.problem;
        self.cpu.each_with(lanes, work, |number, lane, work| {
            lane.sum.fill(0.0);
            for c in chunks_of(number, chunks) {
                each(&mut lane.chunks[c / LANES], work, &mut lane.sum);
            }
        });
        add_up(lanes.iter().take(chunks).map(|lane| &lane.sum[..]), out);
        kernels::scale(scale as f32, out);
    }

    /// The largest `vᵀ F(s) v` of a sample, with the Fisher matrix `F(s)` of that sample alone: to second
    /// order twice the largest divergence of the step `v`.
    pub fn largest_quadratic_form(&mut self, v: &[f32]) -> f64 {
        let (model, fisher) = (self.model, self.fisher);
        let PolicyProblem { lanes, work, .. } = &mut *self.problem;
        self.cpu.each_with(lanes, work, |_, lane, work| {
            lane.largest = 0.0;
            for chunk in &mut lane.chunks[..lane.used] {
                let Work { passes, tangent, cotangent, rows } = &mut *work;
                let (data, _) =
                    through_metric(chunk, model, fisher, v, passes, tangent, cotangent, &mut rows[1]);
                let form = &mut rows[0][..data.n];
                form.fill(0.0);
                for (t, c) in tangent
                    .chunks_exact(data.n)
                    .zip(cotangent.chunks_exact(data.n))
                    .take(model.dist().n_outputs())
                {
                    form.iter_mut().zip(t).zip(c).for_each(|((f, t), c)| *f += t * c);
                }
                lane.largest = form.iter().fold(lane.largest, |m, f| m.max(f64::from(*f)));
            }
        });
        lanes.iter().fold(0.0, |m, l| m.max(l.largest))
    }
}

/// `tangent = J v` and `cotangent = F_out J v` of a chunk.
fn through_metric<'a>(
    chunk: &'a mut Chunk,
    model: &ActorCritic,
    fisher: Fisher,
    v: &[f32],
    spare: &'a mut Passes,
    tangent: &mut [f32],
    cotangent: &mut [f32],
    dots: &mut [f32],
) -> (&'a Data, &'a mut Passes) {
    let (data, passes) = chunk.at_old(model, spare);
    let (n, room) = (data.n, data.room);
    passes.jvp(model, data.x(), v, columns_mut(tangent, room, n));
    match fisher {
        Fisher::KlHessian => {
            let params = columns(&data.params_old, room, n);
            model.dist().fisher_mul(params, columns(tangent, room, n), columns_mut(cotangent, room, n));
        }
        Fisher::Empirical => {
            cotangent.fill(0.0);
            for Taken { score, weight, .. } in &data.taken {
                let (score, v) = (columns(score, room, n), columns(tangent, room, n));
                add_outer_product_mul(
                    score,
                    &weight[..n],
                    v,
                    columns_mut(cotangent, room, n),
                    &mut dots[..n],
                );
            }
        }
    }
    (data, passes)
}

/// Adds `w g gᵀ v` of each sample.
fn add_outer_product_mul(
    g: Cols<'_, f32>,
    w: &[f32],
    v: Cols<'_, f32>,
    mut out: ColsMut<'_, f32>,
    dots: &mut [f32],
) {
    dots.fill(0.0);
    for r in 0..g.rows() {
        dots.iter_mut().zip(g.row(r)).zip(v.row(r)).for_each(|((d, g), v)| *d += g * v);
    }
    dots.iter_mut().zip(w).for_each(|(d, w)| *d *= w);
    for r in 0..g.rows() {
        out.row_mut(r).iter_mut().zip(g.row(r)).zip(&*dots).for_each(|((o, g), d)| *o += g * d);
    }
}

impl Local<f32> for LocalPolicy<'_> {
    fn dim(&self) -> usize {
        self.model.actor().net.n_params()
    }
    /// At `θ_old` all ratios are 1: `L = mean Â` and `∇L = (1/n) Σ_t ∇ log π(a_t|s_t) Â_t`; of several
    /// actions in a state the weighted mean counts, and `Â` minus that mean.
    fn gradient(&mut self, gradient: &mut [f32]) -> f64 {
        let (model, n) = (self.model, self.problem.n as f64);
        *self.flops += model.actor().net.vjp_flops() as f64 * n;
        self.accumulate(
            self.problem.n.div_ceil(self.problem.shape.samples()),
            1.0 / n,
            gradient,
            |chunk, work, sum| {
                let (data, passes) = chunk.at_old(model, &mut work.passes);
                let (n, room) = (data.n, data.room);
                work.cotangent.fill(0.0);
                for Taken { score, adv, weight, .. } in &data.taken {
                    let (score, mut d_out) =
                        (columns(score, room, n), columns_mut(&mut work.cotangent, room, n));
                    for r in 0..score.rows() {
                        let row = d_out.row_mut(r).iter_mut().zip(score.row(r)).zip(adv).zip(weight);
                        row.for_each(|(((d, score), adv), weight)| *d += score * (adv * weight));
                    }
                }
                let d_out = columns(&work.cotangent, room, n);
                passes.vjp(model, data.x(), d_out, sum);
            },
        );
        let dist = self.model.dist();
        let work = &mut self.problem.work[0].rows;
        let mut sum = 0.0;
        for chunk in self.problem.lanes.iter().flat_map(|l| &l.chunks[..l.used]) {
            let data = &chunk.data;
            sum += match &data.taken[..] {
                [taken] if !data.weighted => kernels::sum(&taken.adv[..data.n]),
                _ => {
                    data.surrogate(dist, columns(&data.params_old, data.room, data.n), work);
                    kernels::sum(&work[0][..data.n])
                }
            };
        }
        sum / n
    }
}

impl LocalMetric<f32> for LocalPolicy<'_> {
    fn fisher_mul(&mut self, v: &[f32], out: &mut [f32]) {
        let (model, fisher) = (self.model, self.fisher);
        let (chunks, n) = (self.problem.metric_chunks, self.problem.metric_samples as f64);
        // A tangent goes through two products where a value goes through one, except at the input.
        *self.flops += 2.0 * model.actor().net.vjp_flops() as f64 * n;
        self.accumulate(chunks, 1.0 / n, out, |chunk, work, sum| {
            let Work { passes, tangent, cotangent, rows } = work;
            let dots = &mut rows[0];
            let (data, passes) = through_metric(chunk, model, fisher, v, passes, tangent, cotangent, dots);
            passes.vjp(model, data.x(), columns(cotangent, data.room, data.n), sum);
        });
    }
}

impl LocalTrial<f32> for LocalPolicy<'_> {
    fn trial(&mut self, theta: &[f32]) -> Trial {
        let (net, dist) = (&self.model.actor().net, self.model.dist());
        let PolicyProblem { lanes, work, n, .. } = &mut *self.problem;
        *self.flops += (net.forward_flops() * *n) as f64;
        self.cpu.each_with(lanes, work, |_, lane, work| {
            (lane.surrogate, lane.kl, lane.largest) = (0.0, 0.0, 0.0);
            for Chunk { data, .. } in &lane.chunks[..lane.used] {
                data.begin(&mut work.passes.tape);
                let mut out = net.forward(theta, data.x(), &mut work.passes.tape);
                dist.prepare(out.reborrow(), data.mask());
                data.surrogate(dist, out.as_cols(), &mut work.rows);
                let [value, kl, ..] = work.rows.each_mut().map(|row| &mut row[..data.n]);
                lane.surrogate += kernels::sum(value);
                dist.kl(columns(&data.params_old, data.room, data.n), out.as_cols(), kl);
                lane.kl += kernels::sum(kl);
                lane.largest = kl.iter().fold(lane.largest, |m, kl| m.max(f64::from(*kl)));
            }
        });
        let mut trial = Trial { surrogate: 0.0, kl: 0.0, largest_kl: 0.0 };
        for lane in lanes.iter() {
            trial.surrogate += lane.surrogate / *n as f64;
            trial.kl += lane.kl / *n as f64;
            trial.largest_kl = lane.largest.max(trial.largest_kl);
        }
        if !trial.kl.is_finite() {
            // A maximum passes over NaN.
            trial.largest_kl = trial.kl;
        }
        trial
    }
}
