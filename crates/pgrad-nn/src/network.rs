//! A network: a multilayer perceptron, on a recurrent layer or not.

use crate::mlp::{Jacobian, Layer, LayerSums, Mlp, Tape, View};
use crate::recurrent::{Recurrent, RecurrentTape};
use pgrad_num::{Cols, ColsMut, Real, Stream};

/// Fewest columns that a recurrent network computes on. From here on the bits of a column do not depend on the columns
/// beside it ([`pgrad_num::gemm`]); fewer sequences get empty ones beside them, which nobody sees.
const LEAST_COLUMNS: usize = 8;

/// A multilayer perceptron on the observations, or on the outputs of a recurrent layer on the observations.
///
/// The parameters of the recurrent layer come first. A recurrent network needs to know, before each `forward`, how the
/// columns of the batch make sequences: [`NetworkTape::begin`].
///
/// Its outputs for a column have the same bits whatever other columns are computed with it, and whether the steps of a
/// sequence come one by one or all at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    recurrent: Option<Recurrent>,
    mlp: Mlp,
}

/// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
#[derive(Clone, Debug)]
pub struct NetworkTape<R> {
    mlp: Tape<R>,
    recurrent: Option<Memory<R>>,
}

/// The recurrent part of a tape. Sequences are filled up to [`LEAST_COLUMNS`] columns here, and nowhere else.
#[derive(Clone, Debug)]
struct Memory<R> {
    tape: RecurrentTape<R>,
    steps: usize,
    /// Sequences, without and with the empty ones.
    cols: usize,
    wide: usize,
    state: Vec<R>,
    fresh: Vec<bool>,
    x: Vec<R>,
    d_out: Vec<R>,
    /// Outputs without the empty columns; unused when there are none.
    out: Vec<R>,
    /// Derivative of the recurrent layer's outputs.
    d_h: Vec<R>,
}

impl<R: Real> Memory<R> {
    fn filled(&self) -> bool {
        self.wide != self.cols
    }
    fn samples(&self) -> usize {
        self.steps * self.cols
    }
    fn wide_samples(&self) -> usize {
        self.steps * self.wide
    }
}

/// Rows of `steps` groups of `from` columns to rows of `steps` groups of `to` columns. What is added is 0.
fn regroup<T: Copy>(x: &[T], out: &mut [T], from: usize, to: usize, empty: T) {
    let common = from.min(to);
    for (out, x) in out.chunks_exact_mut(to).zip(x.chunks_exact(from)) {
        out[..common].copy_from_slice(&x[..common]);
        out[common..].fill(empty);
    }
}

impl<R: Real> NetworkTape<R> {
    /// Says how the columns of the next batches make sequences: `steps` steps of `state.cols()` sequences that start
    /// from `state` (`[state_rows x cols]`); column `t·cols + c` is step `t` of sequence `c`, which forgets its state
    /// before that step where `fresh` says so.
    ///
    /// # Panics
    /// When the network is not recurrent, the tape was made for less, or the shapes differ.
    pub fn begin(&mut self, steps: usize, state: Cols<'_, R>, fresh: &[bool]) {
        let m = self.memory_mut();
        let cols = state.cols();
        assert_eq!(fresh.len(), steps * cols, "a flag for every step of every sequence");
        (m.steps, m.cols, m.wide) = (steps, cols, cols.max(LEAST_COLUMNS));
        if m.filled() {
            let (rows, wide) = (state.rows(), m.wide);
            regroup(state.data(), &mut m.state[..rows * wide], cols, wide, R::ZERO);
            regroup(fresh, &mut m.fresh[..steps * wide], cols, wide, false);
            m.tape.begin(steps, Cols::new(&m.state[..rows * wide], rows, wide), &m.fresh[..steps * wide]);
        } else {
            m.tape.begin(steps, state, fresh);
        }
    }
    fn memory(&self) -> &Memory<R> {
        self.recurrent.as_ref().unwrap_or_else(|| panic!("this network has no memory"))
    }
    fn memory_mut(&mut self) -> &mut Memory<R> {
        self.recurrent.as_mut().unwrap_or_else(|| panic!("this network has no memory"))
    }
    /// State of sequence `c` after step `t` of the last `forward`.
    ///
    /// # Panics
    /// When the network is not recurrent.
    pub fn state_after(&self, t: usize, c: usize) -> impl Iterator<Item = R> + '_ {
        self.memory().tape.state_after(t, c)
    }
    /// State of all sequences after the last step of the last `forward`, `[state_rows x cols]`.
    ///
    /// # Panics
    /// When the network is not recurrent, or `state` has another shape.
    pub fn last_state(&mut self, mut state: ColsMut<'_, R>) {
        let m = self.memory_mut();
        if m.filled() {
            let (rows, cols, wide) = (state.rows(), state.cols(), m.wide);
            assert_eq!(cols, m.cols);
            let all = &mut m.state[..rows * wide];
            m.tape.last_state(ColsMut::new(all, rows, wide));
            regroup(all, state.data_mut(), wide, cols, R::ZERO);
        } else {
            m.tape.last_state(state);
        }
    }
    /// The outputs of the last `forward`, row after row.
    #[must_use]
    pub fn outputs(&self) -> &[R] {
        match &self.recurrent {
            Some(m) if m.filled() => &m.out[..self.mlp.outputs().len() / m.wide * m.cols],
            _ => self.mlp.outputs(),
        }
    }
    /// The outputs of the last `forward`, to overwrite: derivatives do not need them.
    pub fn outputs_mut(&mut self) -> &mut [R] {
        match &mut self.recurrent {
            Some(m) if m.filled() => &mut m.out[..self.mlp.outputs().len() / m.wide * m.cols],
            _ => self.mlp.outputs_mut(),
        }
    }
}

impl From<Mlp> for Network {
    fn from(mlp: Mlp) -> Self {
        Self { recurrent: None, mlp }
    }
}

impl Network {
    /// `mlp` on the outputs of `recurrent`.
    ///
    /// # Panics
    /// When `mlp` has another number of inputs than `recurrent` has units.
    #[must_use]
    pub fn on(recurrent: Recurrent, mlp: Mlp) -> Self {
        assert_eq!(mlp.n_inputs(), recurrent.size(), "the perceptron reads the recurrent layer's outputs");
        Self { recurrent: Some(recurrent), mlp }
    }
    /// The recurrent layer, if there is one.
    #[must_use]
    pub fn recurrent(&self) -> Option<&Recurrent> {
        self.recurrent.as_ref()
    }
    /// The multilayer perceptron.
    #[must_use]
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }
    /// Numbers of a sequence's state; 0 without a recurrent layer.
    #[must_use]
    pub fn state_rows(&self) -> usize {
        self.recurrent.as_ref().map_or(0, Recurrent::state_rows)
    }
    /// Number of input features.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.recurrent.as_ref().map_or(self.mlp.n_inputs(), Recurrent::n_inputs)
    }
    /// Number of output rows: the heads', in order.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.mlp.n_outputs()
    }
    /// Number of parameters of the recurrent layer.
    fn first_params(&self) -> usize {
        self.recurrent.as_ref().map_or(0, Recurrent::n_params)
    }
    /// Number of parameters.
    #[must_use]
    pub fn n_params(&self) -> usize {
        self.first_params() + self.mlp.n_params()
    }
    /// Number of floating-point operations of `forward` for one sample (products and sums of matrices).
    #[must_use]
    pub fn forward_flops(&self) -> usize {
        self.recurrent.as_ref().map_or(0, Recurrent::forward_flops) + self.mlp.forward_flops()
    }
    /// Number of floating-point operations of `vjp` for one sample, without the input's gradient.
    #[must_use]
    pub fn vjp_flops(&self) -> usize {
        match &self.recurrent {
            None => self.mlp.vjp_flops(),
            Some(r) => r.vjp_flops() + 2 * self.mlp.forward_flops(),
        }
    }
    /// The named pieces of the parameter vector, in order.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let at = self.first_params();
        let own = self.recurrent.iter().flat_map(Recurrent::views);
        let shift = |v: View| View { range: v.range.start + at..v.range.end + at, ..v };
        own.chain(self.mlp.views().into_iter().map(shift)).collect()
    }
    /// Initial parameters: those of [`Recurrent::init`], with its `span`, and [`Mlp::init`].
    ///
    /// # Panics
    /// As [`Recurrent::init`].
    pub fn init<R: Real>(&self, orthogonal_init: bool, span: Option<usize>, rng: &mut Stream) -> Vec<R> {
        let mut theta = self.recurrent.as_ref().map_or_else(Vec::new, |r| r.init(orthogonal_init, span, rng));
        theta.extend(self.mlp.init::<R>(orthogonal_init, rng));
        theta
    }
    /// A tape for batches of up to `max_cols` samples; of a recurrent network, one step of each.
    #[must_use]
    pub fn tape<R: Real>(&self, max_cols: usize) -> NetworkTape<R> {
        self.tape_of(1, max_cols)
    }
    /// A tape for batches of up to `max_steps` steps of `max_cols` sequences.
    #[must_use]
    pub fn tape_of<R: Real>(&self, max_steps: usize, max_cols: usize) -> NetworkTape<R> {
        let Some(r) = &self.recurrent else {
            return NetworkTape { mlp: self.mlp.tape(max_steps * max_cols), recurrent: None };
        };
        let wide = max_cols.max(LEAST_COLUMNS);
        let (n, narrow) = (max_steps * wide, max_steps * LEAST_COLUMNS);
        let zeros = |len: usize| vec![R::ZERO; len];
        let memory = Memory {
            tape: r.tape(max_steps, wide),
            steps: 0,
            cols: 0,
            wide: 0,
            state: zeros(r.state_rows() * wide),
            fresh: vec![false; narrow],
            x: zeros(r.n_inputs() * narrow),
            d_out: zeros(self.n_outputs() * narrow),
            out: zeros(self.n_outputs() * narrow),
            d_h: zeros(r.size() * n),
        };
        NetworkTape { mlp: self.mlp.tape(n), recurrent: Some(memory) }
    }

    /// `Y = f(θ, X)`, `[n_outputs x cols]`, on the tape.
    ///
    /// # Panics
    /// When `theta` or `x` has another size than this network or the sequences that began, or the batch is larger
    /// than the tape.
    pub fn forward<'t, R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &'t mut NetworkTape<R>,
    ) -> ColsMut<'t, R> {
        let NetworkTape { mlp, recurrent: memory } = tape;
        let (Some(recurrent), Some(m)) = (&self.recurrent, memory) else {
            return self.mlp.forward(theta, x, mlp);
        };
        let (own, rest) = theta.split_at(recurrent.n_params());
        assert_eq!(x.cols(), m.samples(), "columns of the sequences that began");
        let (cols, wide, n) = (m.cols, m.wide, m.wide_samples());
        if !m.filled() {
            let h = recurrent.forward(own, x, &mut m.tape);
            return self.mlp.forward(rest, h, mlp);
        }
        let filled = &mut m.x[..x.rows() * n];
        regroup(x.data(), filled, cols, wide, R::ZERO);
        let h = recurrent.forward(own, Cols::new(filled, x.rows(), n), &mut m.tape);
        let all = self.mlp.forward(rest, h, mlp);
        let out = &mut m.out[..self.n_outputs() * m.steps * cols];
        regroup(all.as_cols().data(), out, wide, cols, R::ZERO);
        ColsMut::new(out, self.n_outputs(), m.steps * cols)
    }

    /// `∂θ += J_θᵀ ∂Y` for the batch last seen by `forward`, and `∂X = J_Xᵀ ∂Y` on request.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch; when the input's cotangent is asked of fewer than 8
    /// sequences.
    pub fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
        d_x: Option<ColsMut<'_, R>>,
    ) {
        let NetworkTape { mlp, recurrent: memory } = tape;
        let (Some(recurrent), Some(m)) = (&self.recurrent, memory) else {
            return self.mlp.vjp(theta, x, mlp, d_out, d_theta, d_x);
        };
        let (own, rest) = theta.split_at(recurrent.n_params());
        let (d_own, d_rest) = d_theta.split_at_mut(recurrent.n_params());
        let (filled, cols, wide, n) = (m.filled(), m.cols, m.wide, m.wide_samples());
        assert!(d_x.is_none() || !filled, "the input's cotangent of fewer than {LEAST_COLUMNS} sequences");
        let Memory { tape, x: wide_x, d_out: wide_d_out, d_h, .. } = m;
        let (x, d_out) = if filled {
            let wide_d_out = &mut wide_d_out[..d_out.rows() * n];
            regroup(d_out.data(), wide_d_out, cols, wide, R::ZERO);
            // `forward` has filled up the input.
            (Cols::new(&wide_x[..x.rows() * n], x.rows(), n), Cols::new(wide_d_out, d_out.rows(), n))
        } else {
            (x, d_out)
        };
        let d_h = &mut d_h[..recurrent.size() * n];
        let h = tape.outputs();
        self.mlp.vjp(rest, h, mlp, d_out, d_rest, Some(ColsMut::new(d_h, recurrent.size(), n)));
        recurrent.vjp(own, x, tape, Cols::new(d_h, recurrent.size(), n), d_own, d_x);
    }

    /// `Ẏ = J_θ θ̇` for the batch last seen by `forward`.
    ///
    /// # Panics
    /// When the sizes do not fit the network and the batch.
    pub fn jvp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        let NetworkTape { mlp, recurrent: memory } = tape;
        let (Some(recurrent), Some(m)) = (&self.recurrent, memory) else {
            return self.mlp.jvp(theta, x, mlp, v_theta, out);
        };
        let (own, rest) = theta.split_at(recurrent.n_params());
        let (v_own, v_rest) = v_theta.split_at(recurrent.n_params());
        let (filled, cols, wide, n) = (m.filled(), m.cols, m.wide, m.wide_samples());
        let Memory { tape, x: wide_x, d_out: wide_out, d_h, .. } = m;
        let x = if filled { Cols::new(&wide_x[..x.rows() * n], x.rows(), n) } else { x };
        let v_h = &mut d_h[..recurrent.size() * n];
        recurrent.jvp(own, x, tape, v_own, ColsMut::new(v_h, recurrent.size(), n));
        let (h, v_h) = (tape.outputs(), Cols::new(v_h, recurrent.size(), n));
        if filled {
            let wide_out = &mut wide_out[..self.n_outputs() * n];
            let rows = self.n_outputs();
            self.mlp.jvp_from(rest, h, Some(v_h), mlp, v_rest, ColsMut::new(wide_out, rows, n));
            regroup(wide_out, out.data_mut(), wide, cols, R::ZERO);
        } else {
            self.mlp.jvp_from(rest, h, Some(v_h), mlp, v_rest, out);
        }
    }

    /// As [`Mlp::layers`].
    ///
    /// # Panics
    /// When the network is recurrent: a layer that is used at every step has no such factors.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        assert!(self.recurrent.is_none(), "the factors of a recurrent layer are not known");
        self.mlp.layers()
    }
    /// As [`Mlp::add_input_moments`].
    ///
    /// # Panics
    /// As there, and as [`Network::layers`].
    pub fn add_input_moments<R: Real>(
        &self,
        x: Cols<'_, R>,
        tape: &NetworkTape<R>,
        sums: &mut [LayerSums<R>],
    ) {
        assert!(self.recurrent.is_none(), "the factors of a recurrent layer are not known");
        self.mlp.add_input_moments(x, &tape.mlp, sums);
    }
    /// As [`Mlp::add_cotangent_moments`].
    ///
    /// # Panics
    /// As there, and as [`Network::layers`].
    pub fn add_cotangent_moments<R: Real>(
        &self,
        theta: &[R],
        tape: &mut NetworkTape<R>,
        d_out: Cols<'_, R>,
        sums: &mut [LayerSums<R>],
    ) {
        assert!(self.recurrent.is_none(), "the factors of a recurrent layer are not known");
        self.mlp.add_cotangent_moments(theta, &mut tape.mlp, d_out, sums);
    }
}

/// Products with the Jacobian by the slopes of the outputs: see [`Jacobian`]. They are for networks without a recurrent
/// layer, and panic with one.
impl Network {
    /// As [`Mlp::jacobian_pays`]; never with a recurrent layer.
    #[must_use]
    pub fn jacobian_pays(&self) -> bool {
        self.recurrent.is_none() && self.mlp.jacobian_pays()
    }
    /// As [`Mlp::linearize`].
    pub fn linearize<R: Real>(&self, theta: &[R], tape: &NetworkTape<R>, jacobian: &mut Jacobian<R>) {
        self.without_memory().linearize(theta, &tape.mlp, jacobian);
    }
    /// As [`Mlp::jvp_by`].
    pub fn jvp_by<R: Real>(
        &self,
        jacobian: &Jacobian<R>,
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        v_theta: &[R],
        out: ColsMut<'_, R>,
    ) {
        self.without_memory().jvp_by(jacobian, x, &mut tape.mlp, v_theta, out);
    }
    /// As [`Mlp::vjp_by`].
    pub fn vjp_by<R: Real>(
        &self,
        jacobian: &Jacobian<R>,
        x: Cols<'_, R>,
        tape: &mut NetworkTape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
    ) {
        self.without_memory().vjp_by(jacobian, x, &mut tape.mlp, d_out, d_theta);
    }
    fn without_memory(&self) -> &Mlp {
        assert!(self.recurrent.is_none(), "slopes of a recurrent network are not kept");
        &self.mlp
    }
}
