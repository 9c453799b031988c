//! Layers with a memory: LSTM and GRU over sequences.

mod steps;

use crate::activation::Below;
use crate::init::orthogonal;
use crate::layer::{Init, Layer, LayerSpec, Memory};
use pgrad_num::gemm::{Mat, Write, add_row_sums, matmul};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use std::ops::Range;

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
    /// Both.
    pub const ALL: [Self; 2] = [Self::Lstm, Self::Gru];

    /// Its name, in files too.
    #[must_use]
    pub fn name(self) -> &'static str {
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
///
/// A batch is `cols` sequences of `steps` steps, and sample `t·cols + c` is step `t` of sequence `c`: `X` is
/// `[in x steps·cols]`, the output `h'` of every step `[size x steps·cols]`. Derivatives do not go through the first state.
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
    work: steps::Work<R>,
}

/// Where the matrices of a step lie on a tape.
struct At {
    gates: Range<usize>,
    memory: Range<usize>,
    /// Columns of the step among the samples.
    samples: Range<usize>,
}

impl<R: Real> RecurrentTape<R> {
    /// Samples of the batch.
    fn samples(&self) -> usize {
        self.steps * self.cols
    }
    fn step(&self, t: usize) -> At {
        let span = self.size * self.cols;
        let memory = if self.memory.is_empty() { 0..0 } else { 2 * span * t..2 * span * (t + 1) };
        At { gates: 4 * span * t..4 * span * (t + 1), memory, samples: self.cols * t..self.cols * (t + 1) }
    }
    /// Puts the state before step `t` into the work space; `h` after the step before it is there already.
    fn find_state(&mut self, t: usize) {
        self.find_memory(t);
        let (n, at) = (self.samples(), self.step(t));
        let Self { first, fresh, before, work, size, .. } = self;
        let h = work.h_mut();
        if t == 0 {
            h.copy_from_slice(&first[..h.len()]);
        }
        steps::forget(h, &fresh[at.samples.clone()]);
        steps::scatter(h, &mut before[..*size * n], at.samples, n);
    }
    /// Puts the memory cells before step `t` into the work space.
    fn find_memory(&mut self, t: usize) {
        if self.memory.is_empty() {
            return;
        }
        let span = self.size * self.cols;
        let from =
            if t == 0 { &self.first[span..2 * span] } else { &self.memory[2 * span * (t - 1)..][..span] };
        self.work.set_c(from, &self.fresh[self.cols * t..self.cols * (t + 1)]);
    }
}

impl<R: Real> Memory<R> for RecurrentTape<R> {
    fn state_rows(&self) -> usize {
        self.state_rows
    }
    fn begin(&mut self, steps: usize, state: Cols<'_, R>, fresh: &[bool]) {
        let cols = state.cols();
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
    fn state_at(&self, h: &[R], row: usize, t: usize, c: usize) -> R {
        let (cols, size) = (self.cols, self.size);
        match row.checked_sub(size) {
            None => h[row * self.samples() + t * cols + c],
            Some(cell) => self.memory[(2 * size * t + cell) * cols + c],
        }
    }
    fn last_state(&self, h: &[R], state: &mut [R]) {
        let (n, cols, size) = (self.samples(), self.cols, self.size);
        let (last, c) = state.split_at_mut(size * cols);
        steps::gather(h, last, n - cols..n, n);
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
    /// The kind and size of a layer.
    #[must_use]
    pub fn spec(cell: Cell, size: usize) -> LayerSpec {
        LayerSpec { kind: cell.name().into(), sizes: vec![size] }
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

    /// Blocks of gates among the rows of `W`, and the block of the gates' cotangents that each begins at: a GRU has
    /// the block `U_n h + b'`, without an input, between its gates and its candidate.
    fn input_gates(&self) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
        let (first, second) = match self.cell {
            Cell::Lstm => ((0..4, 0), None),
            Cell::Gru => ((0..2, 0), Some((2..3, 3))),
        };
        std::iter::once(first).chain(second)
    }
}

impl Layer for Recurrent {
    type Tape<R: Real> = Box<RecurrentTape<R>>;

    fn from_spec(spec: &LayerSpec, inputs: usize) -> Option<Self> {
        let cell = Cell::ALL.into_iter().find(|cell| cell.name() == spec.kind)?;
        let [size] = spec.sizes[..] else { return None };
        Some(Self { cell, inputs, size })
    }
    fn n_inputs(&self) -> usize {
        self.inputs
    }
    fn n_outputs(&self) -> usize {
        self.size
    }
    fn n_params(&self) -> usize {
        self.gate_rows() * (self.inputs + self.size + 1) + self.candidate_rows()
    }
    fn pieces(&self) -> Vec<(String, Vec<usize>)> {
        let rows = self.gate_rows();
        let candidate = (self.cell == Cell::Gru).then(|| ("candidate.bias".into(), vec![self.size]));
        let weights = [("input.weight", self.inputs), ("recurrent.weight", self.size)];
        let weights = weights.into_iter().map(|(name, cols)| (name.into(), vec![rows, cols]));
        weights.chain([("bias".into(), vec![rows])]).chain(candidate).collect()
    }
    fn prefix(&self, number: usize) -> String {
        if number == 0 { format!("{}.", self.cell.name()) } else { format!("{}.{number}.", self.cell.name()) }
    }
    /// Each gate's weights orthogonal with gain 1, biases 0, an LSTM's forget gate 1 (so that it remembers at first; Gers et
    /// al. 2000, Jozefowicz et al. 2015). With `orthogonal` off everything is uniform on `±1/√size`, as in PyTorch.
    ///
    /// With a `span` units remember for different times at first, up to so many steps: the bias of the gate that keeps (an
    /// LSTM's `f`, a GRU's `z`) is `ln u` with `u` uniform on `[1, span − 1)`, and an LSTM's `b_i = −b_f` (Tallec and Ollivier
    /// 2018, section 2.2).
    ///
    /// # Panics
    /// When `span` is below 2.
    fn init(&self, how: Init, rng: &mut Stream) -> Vec<f64> {
        let mut theta = Vec::with_capacity(self.n_params());
        if how.orthogonal {
            for cols in [self.inputs, self.size] {
                for _ in 0..self.cell.gates() {
                    theta.extend(orthogonal(self.size, cols, 1.0, rng));
                }
            }
            theta.resize(self.n_params(), 0.0);
        } else {
            let bound = 1.0 / (self.size as f64).sqrt();
            theta.extend((0..self.n_params()).map(|_| rng.uniform_in(-bound, bound)));
        }
        let bias = self.gate_rows() * (self.inputs + self.size);
        // In both layers the second gate is the one that keeps.
        let (first, keep) = theta[bias..bias + 2 * self.size].split_at_mut(self.size);
        if let Some(span) = how.span {
            assert!(span >= 2, "a memory spans two steps at least");
            for (first, keep) in first.iter_mut().zip(keep) {
                *keep = rng.uniform_in(1.0, (span as f64 - 1.0).max(1.0)).ln();
                if self.cell == Cell::Lstm {
                    *first = -*keep;
                }
            }
        } else if how.orthogonal && self.cell == Cell::Lstm {
            keep.fill(1.0);
        }
        theta
    }
    fn forward_flops(&self) -> usize {
        2 * self.gate_rows() * (self.inputs + self.size)
    }
    fn vjp_flops(&self) -> [usize; 2] {
        [2 * self.gate_rows() * (self.inputs + 2 * self.size), 2 * self.gate_rows() * self.inputs]
    }
    /// `h`, and for an LSTM `c` behind it.
    fn state_rows(&self) -> usize {
        match self.cell {
            Cell::Lstm => 2 * self.size,
            Cell::Gru => self.size,
        }
    }
    fn tape_len(&self) -> usize {
        11 * self.size
    }

    fn tape<R: Real>(&self, max_steps: usize, max_cols: usize) -> Self::Tape<R> {
        let (size, n) = (self.size, max_steps * max_cols);
        let zeros = |len: usize| vec![R::ZERO; len];
        Box::new(RecurrentTape {
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
            work: steps::Work::new(size, max_cols),
        })
    }
    fn memory<R: Real>(tape: &Self::Tape<R>) -> Option<&dyn Memory<R>> {
        Some(&**tape)
    }
    fn memory_mut<R: Real>(tape: &mut Self::Tape<R>) -> Option<&mut dyn Memory<R>> {
        Some(&mut **tape)
    }

    fn forward<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        mut out: ColsMut<'_, R>,
        tape: &mut Self::Tape<R>,
    ) {
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
            let RecurrentTape { gates, memory, pre, work, cols, .. } = &mut **tape;
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
            steps::scatter(tape.work.h(), out.data_mut(), at.samples, n);
        }
    }

    fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut Self::Tape<R>,
        d_out: Cols<'_, R>,
        d_theta: Option<&mut [R]>,
        d_x: Option<Below<'_, R>>,
    ) {
        self.check(x, tape);
        let p = self.params(theta);
        let (rows, n, size, inputs) = (self.gate_rows(), tape.samples(), self.size, self.inputs);
        let u = Mat::new(p.u, rows, size).t();
        tape.work.begin_derivative();
        for t in (0..tape.steps).rev() {
            let at = tape.step(t);
            tape.find_memory(t);
            let RecurrentTape { gates, memory, before, pre, work, cols, fresh, .. } = &mut **tape;
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
        if let Some(d_theta) = d_theta {
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
                matmul(d_w, Write::Add, Mat::new(d, len, n), Mat::from(x).t());
                add_row_sums(&mut d_b[own], Cols::new(d, len, n));
            }
            let candidate = 2 * size..2 * size + d_b_candidate.len();
            let d = &d_pre[candidate.start * n..candidate.end * n];
            add_row_sums(d_b_candidate, Cols::new(d, candidate.len(), n));
        }
        if let Some(d_x) = d_x {
            d_x.then(|d_x| {
                let mut write = Write::Replace;
                for (gates, from) in self.input_gates() {
                    let len = gates.len() * size;
                    let w = &p.w[gates.start * size * inputs..gates.end * size * inputs];
                    let d = Mat::new(&d_pre[from * size * n..(from * size + len) * n], len, n);
                    matmul(d_x, write, Mat::new(w, len, inputs).t(), d);
                    write = Write::Add;
                }
            });
        }
    }

    fn jvp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        v_x: Option<Cols<'_, R>>,
        tape: &mut Self::Tape<R>,
        v_theta: &[R],
        mut out: ColsMut<'_, R>,
    ) {
        self.check(x, tape);
        let (p, v) = (self.params(theta), self.params(v_theta));
        let (rows, n, size, inputs) = (self.gate_rows(), tape.samples(), self.size, self.inputs);
        // ż = Ẇ x + W ẋ + U̇ h + U ḣ + ḃ: all but `U ḣ` at once.
        let h = Mat::new(&tape.before[..size * n], size, n);
        let pre = &mut tape.pre[..4 * size * n];
        matmul(&mut pre[..rows * n], Write::Replace, Mat::new(v.u, rows, size), h);
        for (gates, from) in self.input_gates() {
            let len = gates.len() * size;
            let own = gates.start * size * inputs..gates.end * size * inputs;
            // The candidate of a GRU has rows of its own, which the product with `U̇` left alone.
            let write = if gates.start == 0 { Write::Add } else { Write::Replace };
            let to = &mut pre[from * size * n..(from * size + len) * n];
            matmul(to, write, Mat::new(&v.w[own.clone()], len, inputs), x.into());
            if let Some(v_x) = v_x {
                matmul(to, Write::Add, Mat::new(&p.w[own], len, inputs), v_x.into());
            }
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
            let RecurrentTape { gates, memory, before, pre, work, cols, fresh, .. } = &mut **tape;
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
}
