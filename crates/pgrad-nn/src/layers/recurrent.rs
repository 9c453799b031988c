//! Layers with a memory: LSTM and GRU over sequences.

mod steps;

use crate::activation::Below;
use crate::init::orthogonal;
use crate::layer::{Init, Layer, LayerSpec, Memory};
use pgrad_num::gemm::{Mat, Write, add_outer, add_row_sums, matmul};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use std::ops::Range;

/// Which recurrent layer. `σ(z) = 1/(1 + e⁻ᶻ)`, products of vectors are element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; Gers et al. 2000). State:
    /// `h`, `c`.
    ///
    /// ```text
    /// i = σ(W_i x + U_i h + b_i)     c' = f c + i g
    /// f = σ(W_f x + U_f h + b_f)     h' = o tanh(c')
    /// g = tanh(W_g x + U_g h + b_g)
    /// o = σ(W_o x + U_o h + b_o)
    /// ```
    Lstm,
    /// Gated recurrent unit, the reset gate behind the product (Cho et al. 2014, as in cuDNN and PyTorch).
    /// State: `h`.
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

/// A recurrent layer of `size` units. The parameters lie in one vector: input weights `W`
/// (`[gates·size x in]`, row after row), recurrent weights `U` (`[gates·size x size]`), biases
/// (`[gates·size]`), and the GRU's `b'` (`[size]`).
///
/// A batch is `cols` sequences of `steps` steps, and sample `t·cols + c` is step `t` of sequence `c`: `X` is
/// `[in x steps·cols]`, the output `h'` of every step `[size x steps·cols]`. Derivatives do not go through
/// the first state.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    cell: Cell,
    inputs: usize,
    size: usize,
}

/// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
///
/// Everything lies step after step, a matrix `[rows x cols]` each: what a step needs is then together, and
/// what the products of a step write is still in the first cache when the next loop reads it.
#[derive(Clone, Debug)]
pub struct RecurrentTape<R> {
    inputs: usize,
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
    /// Inputs, `[inputs x cols]`.
    x: Vec<R>,
    /// `h` as each step found it, `[size x cols]`.
    before: Vec<R>,
    /// Gates of each step: `i, f, g, o`, or `r, z, U_n h + b', n`. `[4·size x cols]`.
    gates: Vec<R>,
    /// Memory cells `c'` and `tanh(c')` of each step, `[2·size x cols]`.
    memory: Vec<R>,
    work: steps::Work<R>,
}

/// Where the matrices of a step lie on a tape.
struct At {
    x: Range<usize>,
    before: Range<usize>,
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
        let rows = |rows: usize| rows * self.cols * t..rows * self.cols * (t + 1);
        At {
            x: rows(self.inputs),
            before: rows(self.size),
            gates: rows(4 * self.size),
            memory: rows(if self.memory.is_empty() { 0 } else { 2 * self.size }),
            samples: rows(1),
        }
    }
    /// Puts the state before step `t` into the work space; `h` after the step before it is there already.
    fn find_state(&mut self, t: usize) {
        self.find_memory(t);
        let at = self.step(t);
        let h = self.work.h_mut();
        if t == 0 {
            h.copy_from_slice(&self.first[..h.len()]);
        }
        steps::forget(h, &self.fresh[at.samples]);
        self.before[at.before].copy_from_slice(h);
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

/// Pieces of a parameter vector.
struct Params<'a, R> {
    w: &'a [R],
    u: &'a [R],
    b: &'a [R],
    /// The GRU's `b'`; empty for an LSTM.
    b_candidate: &'a [R],
}

/// The same of its gradient.
struct ParamsMut<'a, R> {
    w: &'a mut [R],
    u: &'a mut [R],
    b: &'a mut [R],
    b_candidate: &'a mut [R],
}

/// Rows `gate·len ..` of `x`.
fn block<T>(x: &[T], gate: usize, len: usize) -> &[T] {
    &x[gate * len..(gate + 1) * len]
}

fn block_mut<T>(x: &mut [T], gate: usize, len: usize) -> &mut [T] {
    &mut x[gate * len..(gate + 1) * len]
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
        let rows = self.gate_rows();
        let (w, rest) = theta.split_at(rows * self.inputs);
        let (u, rest) = rest.split_at(rows * self.size);
        let (b, b_candidate) = rest.split_at(rows);
        Params { w, u, b, b_candidate }
    }
    fn params_mut<'a, R>(&self, theta: &'a mut [R]) -> ParamsMut<'a, R> {
        let rows = self.gate_rows();
        let (w, rest) = theta.split_at_mut(rows * self.inputs);
        let (u, rest) = rest.split_at_mut(rows * self.size);
        let (b, b_candidate) = rest.split_at_mut(rows);
        ParamsMut { w, u, b, b_candidate }
    }
    fn check<R: Real>(&self, x: Cols<'_, R>, tape: &RecurrentTape<R>) {
        assert_eq!((x.rows(), x.cols()), (self.inputs, tape.samples()), "input of the batch that began");
    }

    /// Blocks of rows of `W`, `U` and `b`, which are as many blocks of a step's gates; and the block that
    /// `W x` goes to, which is another one where a GRU keeps `W_n x + b_n` and `U_n h + b'` apart.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let apart = self.cell == Cell::Gru;
        (0..self.cell.gates()).map(move |gate| (gate, if apart && gate == 2 { 3 } else { gate }))
    }
    /// Block `gate` of `W` and of `U`.
    fn weights<'a, R>(&self, p: &Params<'a, R>, gate: usize) -> (Mat<'a, R>, Mat<'a, R>) {
        let (inputs, size) = (self.inputs, self.size);
        let w = Mat::new(block(p.w, gate, size * inputs), size, inputs);
        (w, Mat::new(block(p.u, gate, size * size), size, size))
    }
    /// `z = W x + U h + b` of a step.
    fn affine<R: Real>(&self, p: &Params<'_, R>, x: Mat<'_, R>, h: Mat<'_, R>, z: &mut [R]) {
        let span = z.len() / 4;
        for (gate, of_x) in self.blocks() {
            let (w, u) = self.weights(p, gate);
            matmul(block_mut(z, of_x, span), Write::Bias(block(p.b, gate, self.size)), w, x);
            let write = if of_x == gate { Write::Add } else { Write::Bias(p.b_candidate) };
            matmul(block_mut(z, gate, span), write, u, h);
        }
    }
    /// `z += W x + U h` of a step.
    fn add_linear<R: Real>(&self, p: &Params<'_, R>, x: Option<Mat<'_, R>>, h: Mat<'_, R>, z: &mut [R]) {
        let span = z.len() / 4;
        for (gate, of_x) in self.blocks() {
            let (w, u) = self.weights(p, gate);
            if let Some(x) = x {
                matmul(block_mut(z, of_x, span), Write::Add, w, x);
            }
            matmul(block_mut(z, gate, span), Write::Add, u, h);
        }
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
    /// Each gate's weights orthogonal with gain 1, biases 0, an LSTM's forget gate 1 (so that it remembers at
    /// first; Gers et al. 2000, Jozefowicz et al. 2015). With `orthogonal` off everything is uniform on
    /// `±1/√size`, as in PyTorch.
    ///
    /// With a `span` units remember for different times at first, up to so many steps: the bias of the gate
    /// that keeps (an LSTM's `f`, a GRU's `z`) is `ln u` with `u` uniform on `[1, span − 1)`, and an LSTM's
    /// `b_i = −b_f` (Tallec and Ollivier 2018, section 2.2).
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
        self.inputs + 7 * self.size
    }

    fn tape<R: Real>(&self, max_steps: usize, max_cols: usize) -> Self::Tape<R> {
        let (size, n) = (self.size, max_steps * max_cols);
        let zeros = |len: usize| vec![R::ZERO; len];
        Box::new(RecurrentTape {
            inputs: self.inputs,
            size,
            state_rows: self.state_rows(),
            max_samples: n,
            max_cols,
            steps: 0,
            cols: 0,
            first: zeros(self.state_rows() * max_cols),
            fresh: vec![false; n],
            x: zeros(self.inputs * n),
            before: zeros(size * n),
            gates: zeros(4 * size * n),
            memory: zeros(if self.cell == Cell::Lstm { 2 * size * n } else { 0 }),
            work: steps::Work::new(self.inputs, size, max_cols),
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
        let (p, n) = (self.params(theta), tape.samples());
        for t in 0..tape.steps {
            tape.find_state(t);
            let at = tape.step(t);
            let RecurrentTape { inputs, size, cols, x: xs, before, gates, memory, work, .. } = &mut **tape;
            let (x_t, gates) = (&mut xs[at.x], &mut gates[at.gates]);
            steps::gather(x.data(), x_t, at.samples.clone(), n);
            self.affine(&p, Mat::new(x_t, *inputs, *cols), Mat::new(&before[at.before], *size, *cols), gates);
            match self.cell {
                Cell::Lstm => steps::lstm(gates, &mut memory[at.memory], work),
                Cell::Gru => steps::gru(gates, work),
            }
            steps::scatter(work.h(), out.data_mut(), at.samples, n);
        }
    }
    fn vjp<R: Real>(
        &self,
        theta: &[R],
        x: Cols<'_, R>,
        tape: &mut Self::Tape<R>,
        d_out: Cols<'_, R>,
        d_theta: Option<&mut [R]>,
        mut d_x: Option<Below<'_, R>>,
    ) {
        self.check(x, tape);
        let (p, n) = (self.params(theta), tape.samples());
        let mut d = d_theta.map(|d_theta| self.params_mut(d_theta));
        tape.work.begin_derivative();
        for t in (0..tape.steps).rev() {
            let at = tape.step(t);
            tape.find_memory(t);
            let RecurrentTape { inputs, size, cols, x, before, gates, memory, work, fresh, .. } = &mut **tape;
            let (inputs, size, cols) = (*inputs, *size, *cols);
            work.add_cotangent(d_out.data(), at.samples.clone(), n);
            let (x, h) = (Cols::new(&x[at.x], inputs, cols), Cols::new(&before[at.before], size, cols));
            match self.cell {
                Cell::Lstm => steps::lstm_vjp(&gates[at.gates], &memory[at.memory], work),
                Cell::Gru => steps::gru_vjp(&gates[at.gates], h.data(), work),
            }
            // What a GRU hands through its update gate is in `d_h` already.
            let mut write = if self.cell == Cell::Gru { Write::Add } else { Write::Replace };
            let mut write_x = Write::Replace;
            let steps::Derivatives { d_gates, d_h, d_x: d_x_t } = work.derivatives();
            let d_z = |k| Cols::new(block(d_gates, k, size * cols), size, cols);
            for (gate, of_x) in self.blocks() {
                let (w, u) = self.weights(&p, gate);
                matmul(d_h, write, u.t(), d_z(gate).into());
                write = Write::Add;
                if let Some(d) = &mut d {
                    add_outer(block_mut(d.u, gate, size * size), d_z(gate), h);
                    add_outer(block_mut(d.w, gate, size * inputs), d_z(of_x), x);
                    add_row_sums(block_mut(d.b, gate, size), d_z(of_x));
                }
                if d_x.is_some() {
                    matmul(d_x_t, write_x, w.t(), d_z(of_x).into());
                    write_x = Write::Add;
                }
            }
            if let Some(d) = d.as_mut().filter(|d| !d.b_candidate.is_empty()) {
                add_row_sums(d.b_candidate, d_z(2));
            }
            if let Some(d_x) = &mut d_x {
                steps::scatter(d_x_t, d_x.buffer(), at.samples.clone(), n);
            }
            work.forget_derivative(&fresh[at.samples]);
        }
        if let Some(d_x) = d_x {
            d_x.finish();
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
        let (p, v, n) = (self.params(theta), self.params(v_theta), tape.samples());
        tape.work.begin_derivative();
        for t in 0..tape.steps {
            let at = tape.step(t);
            tape.find_memory(t);
            let RecurrentTape { inputs, size, cols, x, before, gates, memory, work, fresh, .. } = &mut **tape;
            work.forget_derivative(&fresh[at.samples.clone()]);
            let before = &before[at.before];
            let steps::Derivatives { d_gates: z, d_h: v_h, d_x: v_x_t } = work.derivatives();
            // ż = Ẇ x + U̇ h + ḃ + W ẋ + U ḣ
            self.affine(&v, Mat::new(&x[at.x], *inputs, *cols), Mat::new(before, *size, *cols), z);
            if let Some(v_x) = v_x {
                steps::gather(v_x.data(), v_x_t, at.samples.clone(), n);
            }
            let v_x_t = v_x.map(|_| Mat::new(&*v_x_t, *inputs, *cols));
            self.add_linear(&p, v_x_t, Mat::new(v_h, *size, *cols), z);
            match self.cell {
                Cell::Lstm => steps::lstm_jvp(&gates[at.gates], &memory[at.memory], work),
                Cell::Gru => steps::gru_jvp(&gates[at.gates], before, work),
            }
            steps::scatter(work.derivatives().d_h, out.data_mut(), at.samples, n);
        }
    }
}
