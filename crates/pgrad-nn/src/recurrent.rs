//! Layers with a memory: LSTM and GRU over sequences.

mod steps;

use crate::init::orthogonal;
use crate::mlp::View;
use pgrad_num::gemm::{Mat, Write, add_row_sums, matmul};
use pgrad_num::{Cols, ColsMut, Real, Stream};

/// Which recurrent layer. `σ(z) = 1/(1 + e⁻ᶻ)`, products of vectors are element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000). State: `h`, `c`.
    ///
    /// ```text
    /// i = σ(W_i x + U_i h + b_i)     c' = f c + i g
    /// f = σ(W_f x + U_f h + b_f)     h' = o tanh(c')
    /// g = tanh(W_g x + U_g h + b_g)
    /// o = σ(W_o x + U_o h + b_o)
    /// ```
    Lstm,
    /// Gated recurrent unit, the reset gate behind the product (Cho et al. 2014, as in cuDNN and PyTorch). State: `h`.
    ///
    /// ```text
    /// r = σ(W_r x + U_r h + b_r)     n = tanh(W_n x + b_n + r (U_n h + b'))
    /// z = σ(W_z x + U_z h + b_z)     h' = (1 − z) n + z h
    /// ```
    Gru,
}

impl Cell {
    fn name(self) -> &'static str {
        match self {
            Self::Lstm => "lstm",
            Self::Gru => "gru",
        }
    }
    /// Gates: blocks of rows of the weights, in the order `i, f, g, o` or `r, z, n`.
    fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// A recurrent layer of `size` units. The parameters lie in one vector: input weights `W` (`[gates·size x in]`, row
/// after row), recurrent weights `U` (`[gates·size x size]`), biases (`[gates·size]`), and the GRU's `b'` (`[size]`).
/// [`Recurrent::views`] names them.
///
/// A batch is `cols` sequences of `steps` steps, and sample `t·cols + c` is step `t` of sequence `c`: `X` is
/// `[in x steps·cols]`, the output `h'` of every step `[size x steps·cols]`. What sequences start from, and where an
/// episode ends inside one, is said before by [`RecurrentTape::begin`]. Derivatives do not go through the first state.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    cell: Cell,
    inputs: usize,
    size: usize,
}

/// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
///
/// Matrices of a step are `[rows x cols]`, one step after the other; those that a product of the whole batch needs
/// are `[rows x steps·cols]`.
#[derive(Clone, Debug)]
pub struct RecurrentTape<R> {
    size: usize,
    state_rows: usize,
    max_samples: usize,
    max_cols: usize,
    steps: usize,
    cols: usize,
    /// First state, `[state_rows x cols]`.
    first: Vec<R>,
    /// Whether the state is forgotten before step `t` of sequence `c`.
    fresh: Vec<bool>,
    /// Products with the input; then cotangents or tangents of the gates' inputs. `[4·size x samples]`.
    pre: Vec<R>,
    /// Gates of each step: `i, f, g, o`, or `r, z, U_n h + b', n`. `[4·size x cols]`.
    gates: Vec<R>,
    /// Memory cells `c'` and `tanh(c')` of each step, `[2·size x cols]`.
    memory: Vec<R>,
    /// `h` as each step found it, `[size x samples]`.
    before: Vec<R>,
    /// `h'`, `[size x samples]`.
    out: Vec<R>,
    work: steps::Work<R>,
}

impl<R: Real> RecurrentTape<R> {
    /// Says what the next `forward` sees: `steps` steps of `state.cols()` sequences that start from `state`
    /// (`[state_rows x cols]`); where `fresh[t·cols + c]`, sequence `c` forgets its state before step `t`.
    ///
    /// # Panics
    /// When the tape was made for fewer steps or sequences, or the shapes differ.
    pub fn begin(&mut self, steps: usize, state: Cols<'_, R>, fresh: &[bool]) {
        let cols = state.cols();
        assert_eq!(state.rows(), self.state_rows, "rows of the state");
        assert_eq!(fresh.len(), steps * cols, "a flag for every step of every sequence");
        assert!(
            cols <= self.max_cols && steps * cols <= self.max_samples,
            "the tape has room for {} samples of {} sequences, not for {steps} steps of {cols}",
            self.max_samples,
            self.max_cols
        );
        (self.steps, self.cols) = (steps, cols);
        self.work.begin(cols);
        self.first[..self.state_rows * cols].copy_from_slice(state.data());
        self.fresh[..fresh.len()].copy_from_slice(fresh);
    }
    /// Samples of the batch.
    fn samples(&self) -> usize {
        self.steps * self.cols
    }
    /// Number of sequences of the batch.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// The outputs of the last `forward`, `[size x samples]`.
    #[must_use]
    pub fn outputs(&self) -> Cols<'_, R> {
        Cols::new(&self.out[..self.size * self.samples()], self.size, self.samples())
    }
    /// State of sequence `c` after step `t` of the last `forward`, as numbers `[state_rows]`.
    pub fn state_after(&self, t: usize, c: usize) -> impl Iterator<Item = R> + '_ {
        let (n, cols, size) = (self.samples(), self.cols, self.size);
        let h = (0..size).map(move |r| self.out[r * n + t * cols + c]);
        let cells = self.state_rows - size;
        let c =
            (0..cols * cells).skip(c).step_by(cols.max(1)).map(move |i| self.memory[t * 2 * size * cols + i]);
        h.chain(c)
    }
    /// State of all sequences after the last step of the last `forward`, `[state_rows x cols]`.
    ///
    /// # Panics
    /// When `state` has another shape.
    pub fn last_state(&self, mut state: ColsMut<'_, R>) {
        let (n, cols, size) = (self.samples(), self.cols, self.size);
        assert_eq!((state.rows(), state.cols()), (self.state_rows, cols));
        let (h, c) = state.data_mut().split_at_mut(size * cols);
        for (r, row) in h.chunks_exact_mut(cols).enumerate() {
            row.copy_from_slice(&self.out[(r + 1) * n - cols..(r + 1) * n]);
        }
        if !c.is_empty() {
            let last = (self.steps - 1) * 2 * size * cols;
            c.copy_from_slice(&self.memory[last..last + size * cols]);
        }
    }
}

/// Pieces of a parameter vector, or of its gradient.
struct Params<'a, R> {
    w: &'a [R],
    u: &'a [R],
    b: &'a [R],
    /// The GRU's `b'`; empty for an LSTM.
    b_candidate: &'a [R],
}

impl Recurrent {
    /// A layer of `size` units for `inputs` features.
    ///
    /// # Panics
    /// When a size is 0.
    #[must_use]
    pub fn new(cell: Cell, inputs: usize, size: usize) -> Self {
        assert!(inputs > 0 && size > 0, "a layer has inputs and units");
        Self { cell, inputs, size }
    }
    /// Which layer.
    #[must_use]
    pub fn cell(&self) -> Cell {
        self.cell
    }
    /// Number of input features.
    #[must_use]
    pub fn n_inputs(&self) -> usize {
        self.inputs
    }
    /// Number of units, and of outputs.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }
    /// Numbers of a state: `h`, and for an LSTM `c` behind it.
    #[must_use]
    pub fn state_rows(&self) -> usize {
        match self.cell {
            Cell::Lstm => 2 * self.size,
            Cell::Gru => self.size,
        }
    }
    /// Rows of the weights.
    fn gate_rows(&self) -> usize {
        self.cell.gates() * self.size
    }
    /// Rows of the GRU's `b'`.
    fn candidate_rows(&self) -> usize {
        match self.cell {
            Cell::Lstm => 0,
            Cell::Gru => self.size,
        }
    }
    /// Number of parameters.
    #[must_use]
    pub fn n_params(&self) -> usize {
        self.gate_rows() * (self.inputs + self.size + 1) + self.candidate_rows()
    }
    /// Number of floating-point operations of `forward` for one sample (products of matrices).
    #[must_use]
    pub fn forward_flops(&self) -> usize {
        2 * self.gate_rows() * (self.inputs + self.size)
    }
    /// Number of floating-point operations of `vjp` for one sample, without the input's gradient.
    #[must_use]
    pub fn vjp_flops(&self) -> usize {
        2 * self.gate_rows() * (self.inputs + 2 * self.size)
    }

    /// The named pieces of the parameter vector, in order.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let (rows, cell) = (self.gate_rows(), self.cell.name());
        let mut pieces = vec![
            ("input.weight", vec![rows, self.inputs]),
            ("recurrent.weight", vec![rows, self.size]),
            ("bias", vec![rows]),
        ];
        if self.cell == Cell::Gru {
            pieces.push(("candidate.bias", vec![self.size]));
        }
        let mut at = 0;
        pieces
            .into_iter()
            .map(|(name, shape)| {
                let start = at;
                at += shape.iter().product::<usize>();
                View { name: format!("{cell}.{name}"), shape, range: start..at }
            })
            .collect()
    }

    /// Initial parameters: each gate's weights orthogonal with gain 1, biases 0, an LSTM's forget gate 1 (so that it
    /// remembers at first; Gers et al. 2000, Jozefowicz et al. 2015). With `orthogonal_init` off everything is uniform on
    /// `±1/√size`, as in PyTorch.
    ///
    /// With a `span` units remember for different times at first, up to so many steps: the bias of the gate that keeps (an
    /// LSTM's `f`, a GRU's `z`) is `ln u` with `u` uniform on `[1, span − 1)`, and an LSTM's `b_i = −b_f` (Tallec and Ollivier
    /// 2018, section 2.2).
    ///
    /// # Panics
    /// When `span` is below 2.
    pub fn init<R: Real>(&self, orthogonal_init: bool, span: Option<usize>, rng: &mut Stream) -> Vec<R> {
        let bound = 1.0 / (self.size as f64).sqrt();
        let mut theta = Vec::with_capacity(self.n_params());
        if orthogonal_init {
            for cols in [self.inputs, self.size] {
                for _ in 0..self.cell.gates() {
                    theta.extend(orthogonal(self.size, cols, 1.0, rng).into_iter().map(R::of));
                }
            }
            theta.resize(self.n_params(), R::ZERO);
        } else {
            theta.extend((0..self.n_params()).map(|_| R::of(rng.uniform_in(-bound, bound))));
        }
        let bias = self.gate_rows() * (self.inputs + self.size);
        // In both layers the second gate is the one that keeps.
        let (first, keep) = theta[bias..bias + 2 * self.size].split_at_mut(self.size);
        if let Some(span) = span {
            assert!(span >= 2, "a memory spans two steps at least");
            for (first, keep) in first.iter_mut().zip(keep) {
                let log = rng.uniform_in(1.0, (span as f64 - 1.0).max(1.0)).ln();
                *keep = R::of(log);
                if self.cell == Cell::Lstm {
                    *first = R::of(-log);
                }
            }
        } else if orthogonal_init && self.cell == Cell::Lstm {
            keep.fill(R::ONE);
        }
        theta
    }

    /// A tape for batches of up to `max_steps · max_cols` samples of up to `max_cols` sequences.
    #[must_use]
    pub fn tape<R: Real>(&self, max_steps: usize, max_cols: usize) -> RecurrentTape<R> {
        let (size, n) = (self.size, max_steps * max_cols);
        let zeros = |len: usize| vec![R::ZERO; len];
        RecurrentTape {
            size,
            state_rows: self.state_rows(),
            max_samples: n,
            max_cols,
            steps: 0,
            cols: 0,
            first: zeros(self.state_rows() * max_cols),
            fresh: vec![false; n],
            pre: zeros(4 * size * n),
            gates: zeros(4 * size * n),
            memory: zeros(if self.cell == Cell::Lstm { 2 * size * n } else { 0 }),
            before: zeros(size * n),
            out: zeros(size * n),
            work: steps::Work::new(size, max_cols),
        }
    }

    fn params<'a, R>(&self, theta: &'a [R]) -> Params<'a, R> {
        assert_eq!(theta.len(), self.n_params());
        let rows = self.gate_rows();
        let (w, rest) = theta.split_at(rows * self.inputs);
        let (u, rest) = rest.split_at(rows * self.size);
        let (b, b_candidate) = rest.split_at(rows);
        Params { w, u, b, b_candidate }
    }
    fn check<R: Real>(&self, x: Cols<'_, R>, tape: &RecurrentTape<R>) {
        assert_eq!((x.rows(), x.cols()), (self.inputs, tape.samples()), "input of the batch that began");
    }

    /// `h'` of every step, `[size x samples]`, on the tape.
    ///
    /// # Panics
    /// When `theta` has another size than this layer, or `x` another than the batch that [`RecurrentTape::begin`]
    /// announced.
    pub fn forward<'t, R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &'t mut RecurrentTape<R>,
    ) -> Cols<'t, R> {
        self.check(x, tape);
        let p = self.params(theta);
        let (rows, n, inputs) = (self.gate_rows(), tape.samples(), self.inputs);
        // The input's part of all steps is one product; the state's part is one for each step.
        matmul(
            &mut tape.pre[..rows * n],
            Write::Replace,
            Mat::new(p.w, rows, inputs),
            Mat::new(x.data(), inputs, n),
        );
        let u = Mat::new(p.u, rows, self.size);
        for t in 0..tape.steps {
            tape.find_state(t);
            let at = tape.step(t);
            let RecurrentTape { gates, memory, pre, work, cols, .. } = &mut *tape;
            let gates = &mut gates[at.gates];
            matmul(&mut gates[..rows * *cols], Write::Replace, u, Mat::new(work.h(), self.size, *cols));
            match self.cell {
                Cell::Lstm => {
                    steps::add_input(gates, &pre[..rows * n], p.b, at.samples.clone(), n);
                    steps::lstm(gates, &mut memory[at.memory], work);
                }
                Cell::Gru => {
                    let (shared, candidate) = pre[..rows * n].split_at(2 * self.size * n);
                    let (b, b_n) = p.b.split_at(2 * self.size);
                    let (rz, qn) = gates.split_at_mut(2 * self.size * *cols);
                    let (q, new) = qn.split_at_mut(self.size * *cols);
                    steps::add_input(rz, shared, b, at.samples.clone(), n);
                    steps::add_bias(q, p.b_candidate, *cols);
                    new.fill(R::ZERO);
                    steps::add_input(new, candidate, b_n, at.samples.clone(), n);
                    steps::gru(rz, q, new, work);
                }
            }
            steps::scatter(tape.work.h(), &mut tape.out[..self.size * n], at.samples, n);
        }
        tape.outputs()
    }

    /// `∂θ += J_θᵀ ∂h'` through all steps of the batch last seen by `forward`, and `∂X = J_Xᵀ ∂h'` on request.
    ///
    /// # Panics
    /// When the sizes do not fit the layer and the batch.
    pub fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut RecurrentTape<R>,
        d_out: Cols<'_, R>,
        d_theta: &mut [R],
        d_x: Option<ColsMut<'_, R>>,
    ) {
        self.check(x, tape);
        assert_eq!((d_out.rows(), d_out.cols()), (self.size, tape.samples()));
        assert_eq!(d_theta.len(), self.n_params());
        let p = self.params(theta);
        let (rows, n, size, inputs) = (self.gate_rows(), tape.samples(), self.size, self.inputs);
        let u = Mat::new(p.u, rows, size).t();
        tape.work.begin_derivative();
        for t in (0..tape.steps).rev() {
            let at = tape.step(t);
            tape.find_memory(t);
            let RecurrentTape { gates, memory, before, pre, work, cols, fresh, .. } = &mut *tape;
            work.add_cotangent(d_out.data(), at.samples.clone(), n);
            match self.cell {
                Cell::Lstm => steps::lstm_vjp(&gates[at.gates], &memory[at.memory], work),
                Cell::Gru => {
                    steps::gather(&before[..size * n], work.h_mut(), at.samples.clone(), n);
                    steps::gru_vjp(&gates[at.gates], work);
                }
            }
            // What a GRU hands through its update gate is in `d_h` already.
            let write = if self.cell == Cell::Gru { Write::Add } else { Write::Replace };
            let (d_gates, d_h) = work.derivatives();
            steps::scatter(d_gates, &mut pre[..4 * size * n], at.samples.clone(), n);
            matmul(d_h, write, u, Mat::new(&d_gates[..rows * *cols], rows, *cols));
            work.forget_derivative(&fresh[at.samples]);
        }
        let d_pre = &tape.pre[..4 * size * n];
        let (d_w, rest) = d_theta.split_at_mut(rows * inputs);
        let (d_u, rest) = rest.split_at_mut(rows * size);
        let (d_b, d_b_candidate) = rest.split_at_mut(rows);
        let h = Mat::new(&tape.before[..size * n], size, n).t();
        matmul(d_u, Write::Add, Mat::new(&d_pre[..rows * n], rows, n), h);
        for (gates, from) in self.input_gates() {
            let len = gates.len() * size;
            let d = &d_pre[from * size * n..(from * size + len) * n];
            let own = gates.start * size..gates.end * size;
            let d_w = &mut d_w[own.start * inputs..own.end * inputs];
            matmul(d_w, Write::Add, Mat::new(d, len, n), Mat::new(x.data(), inputs, n).t());
            add_row_sums(&mut d_b[own], Cols::new(d, len, n));
        }
        let candidate = 2 * size..2 * size + d_b_candidate.len();
        let d = &d_pre[candidate.start * n..candidate.end * n];
        add_row_sums(d_b_candidate, Cols::new(d, candidate.len(), n));
        if let Some(mut d_x) = d_x {
            let mut write = Write::Replace;
            for (gates, from) in self.input_gates() {
                let len = gates.len() * size;
                let w = &p.w[gates.start * size * inputs..gates.end * size * inputs];
                let d = Mat::new(&d_pre[from * size * n..(from * size + len) * n], len, n);
                matmul(d_x.data_mut(), write, Mat::new(w, len, inputs).t(), d);
                write = Write::Add;
            }
        }
    }

    /// `ḣ' = J_θ θ̇` through all steps of the batch last seen by `forward`.
    ///
    /// # Panics
    /// When the sizes do not fit the layer and the batch.
    pub fn jvp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut RecurrentTape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        self.check(x, tape);
        assert_eq!((out.rows(), out.cols()), (self.size, tape.samples()));
        let (p, v) = (self.params(theta), self.params(v_theta));
        let (rows, n, size, inputs) = (self.gate_rows(), tape.samples(), self.size, self.inputs);
        // ż = Ẇ x + U̇ h + U ḣ + ḃ: all but the third part at once.
        let h = Mat::new(&tape.before[..size * n], size, n);
        let pre = &mut tape.pre[..4 * size * n];
        matmul(&mut pre[..rows * n], Write::Replace, Mat::new(v.u, rows, size), h);
        for (gates, from) in self.input_gates() {
            let len = gates.len() * size;
            let w = &v.w[gates.start * size * inputs..gates.end * size * inputs];
            let (w, x) = (Mat::new(w, len, inputs), Mat::new(x.data(), inputs, n));
            // The candidate of a GRU has rows of its own, which the product with `U̇` left alone.
            let write = if gates.start == 0 { Write::Add } else { Write::Replace };
            let to = &mut pre[from * size * n..(from * size + len) * n];
            matmul(to, write, w, x);
            steps::add_bias(to, &v.b[gates.start * size..gates.end * size], n);
        }
        if self.cell == Cell::Gru {
            steps::add_bias(&mut pre[2 * size * n..3 * size * n], v.b_candidate, n);
        }
        let u = Mat::new(p.u, rows, size);
        tape.work.begin_derivative();
        for t in 0..tape.steps {
            let at = tape.step(t);
            tape.find_memory(t);
            let RecurrentTape { gates, memory, before, pre, work, cols, fresh, .. } = &mut *tape;
            work.forget_derivative(&fresh[at.samples.clone()]);
            let (z, h) = work.derivatives();
            steps::gather(&pre[..4 * size * n], z, at.samples.clone(), n);
            matmul(&mut z[..rows * *cols], Write::Add, u, Mat::new(h, size, *cols));
            match self.cell {
                Cell::Lstm => steps::lstm_jvp(&gates[at.gates], &memory[at.memory], work),
                Cell::Gru => {
                    steps::gather(&before[..size * n], work.h_mut(), at.samples.clone(), n);
                    steps::gru_jvp(&gates[at.gates], work);
                }
            }
            steps::scatter(work.derivatives().1, out.data_mut(), at.samples, n);
        }
    }

    /// Blocks of gates among the rows of `W`, and the block of the gates' cotangents that each begins at: a GRU has
    /// the block `U_n h + b'`, without an input, between its gates and its candidate.
    fn input_gates(&self) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> + use<> {
        let (first, second) = match self.cell {
            Cell::Lstm => ((0..4, 0), None),
            Cell::Gru => ((0..2, 0), Some((2..3, 3))),
        };
        std::iter::once(first).chain(second)
    }
}
