//! What a network's `forward` remembers, and how its columns make sequences.

use crate::layer::Memory;
use crate::layers::AnyTape;
use pgrad_num::{Aligned, Cols, ColsMut, Real};

/// Fewest columns that a network with a memory computes on. From here on the bits of a column do not depend
/// on the columns beside it ([`pgrad_num::gemm`]); fewer sequences get empty ones beside them, which nobody
/// sees.
pub(crate) const LEAST_COLUMNS: usize = 8;

/// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
#[derive(Clone, Debug)]
pub struct NetworkTape<R: Real> {
    pub(crate) layers: LayerTapes<R>,
    /// Of a network with a memory.
    pub(crate) sequences: Option<Sequences<R>>,
}

/// The layers' part of a tape.
#[derive(Clone, Debug)]
pub(crate) struct LayerTapes<R: Real> {
    pub(crate) own: Vec<AnyTape<R>>,
    /// Outputs of each layer.
    pub(crate) outputs: Vec<Aligned<R>>,
    /// Derivatives on their way from layer to layer.
    pub(crate) delta: [Aligned<R>; 2],
    /// Columns of the batch, and of the largest.
    pub(crate) cols: usize,
    pub(crate) max_cols: usize,
}

impl<R: Real> LayerTapes<R> {
    /// The layers with a memory, and their outputs.
    fn memories(&self) -> impl Iterator<Item = (&dyn Memory<R>, &[R])> {
        let tapes = self.own.iter().zip(&self.outputs);
        tapes.filter_map(|(tape, h)| Some((tape.memory()?, &**h)))
    }
    /// The outputs of the last layer.
    pub(crate) fn top(&self) -> &[R] {
        let top = &self.outputs[self.outputs.len() - 1];
        &top[..top.len() / self.max_cols * self.cols]
    }
    fn top_mut(&mut self) -> &mut [R] {
        let last = self.outputs.len() - 1;
        let top = &mut self.outputs[last];
        let span = top.len() / self.max_cols * self.cols;
        &mut top[..span]
    }
    /// The input of layer `l` of a network with the input `x`, of `rows`.
    pub(crate) fn input<'a>(&'a self, l: usize, rows: usize, x: Cols<'a, R>) -> Cols<'a, R> {
        if l == 0 { x } else { self.output(l - 1, rows) }
    }
    /// The outputs of layer `l`, which has `rows`.
    pub(crate) fn output(&self, l: usize, rows: usize) -> Cols<'_, R> {
        Cols::new(&self.outputs[l][..rows * self.cols], rows, self.cols)
    }
}

/// How columns make sequences. These are filled up to [`LEAST_COLUMNS`] columns here, and nowhere else.
#[derive(Clone, Debug)]
pub(crate) struct Sequences<R> {
    steps: usize,
    /// Sequences, without and with the empty ones.
    cols: usize,
    wide: usize,
    state: Vec<R>,
    fresh: Vec<bool>,
    /// Rows of the input and of the outputs.
    rows: [usize; 2],
    /// The input, its cotangent and the outputs' derivatives with the empty columns; the outputs without.
    x: Vec<R>,
    d_x: Vec<R>,
    d_out: Vec<R>,
    out: Vec<R>,
}

impl<R: Real> Sequences<R> {
    /// For networks with `[state_rows, n_inputs, n_outputs]`.
    pub(crate) fn new([state, input, output]: [usize; 3], max_steps: usize, max_cols: usize) -> Self {
        let narrow = max_steps * LEAST_COLUMNS;
        let zeros = |len: usize| vec![R::ZERO; len];
        Self {
            steps: 0,
            cols: 0,
            wide: 0,
            state: zeros(state * max_cols),
            fresh: vec![false; narrow],
            rows: [input, output],
            x: zeros(input * narrow),
            d_x: zeros(input * narrow),
            d_out: zeros(output * narrow),
            out: zeros(output * narrow),
        }
    }
    /// Whether there are empty columns.
    pub(crate) fn filled(&self) -> bool {
        self.wide != self.cols
    }
    /// Columns of a step with the empty ones, and without.
    pub(crate) fn groups(&self) -> [usize; 2] {
        [self.wide, self.cols]
    }
    /// The input of a batch with the empty columns.
    pub(crate) fn fill<'a>(&'a mut self, x: Cols<'a, R>) -> Cols<'a, R> {
        assert_eq!(x.cols(), self.steps * self.cols, "columns of the sequences that began");
        if !self.filled() {
            return x;
        }
        let n = self.steps * self.wide;
        regroup(x.data(), &mut self.x[..x.rows() * n], [self.cols, self.wide], R::ZERO);
        Cols::new(&self.x[..x.rows() * n], x.rows(), n)
    }
    /// Keeps the outputs of a batch without the empty columns.
    pub(crate) fn keep_outputs(&mut self, wide: &[R]) {
        if self.filled() {
            let out = &mut self.out[..self.rows[1] * self.steps * self.cols];
            regroup(wide, out, [self.wide, self.cols], R::ZERO);
        }
    }
    /// The input with the empty columns, as `forward` filled it up, and room for its cotangent and the
    /// outputs' derivatives.
    pub(crate) fn wide(&mut self) -> (Cols<'_, R>, ColsMut<'_, R>, ColsMut<'_, R>) {
        let (n, [input, output]) = (self.steps * self.wide, self.rows);
        let x = Cols::new(&self.x[..input * n], input, n);
        let d_x = ColsMut::new(&mut self.d_x[..input * n], input, n);
        (x, d_x, ColsMut::new(&mut self.d_out[..output * n], output, n))
    }
}

/// Rows of groups of `from` columns to rows of as many groups of `to` columns. What is added is `empty`.
pub(crate) fn regroup<T: Copy>(x: &[T], out: &mut [T], [from, to]: [usize; 2], empty: T) {
    let common = from.min(to);
    for (out, x) in out.chunks_exact_mut(to).zip(x.chunks_exact(from)) {
        out[..common].copy_from_slice(&x[..common]);
        out[common..].fill(empty);
    }
}

impl<R: Real> NetworkTape<R> {
    /// Says how the columns of the next batches make sequences: `steps` steps of `state.cols()` sequences
    /// that start from `state` (`[state_rows x cols]`); column `t·cols + c` is step `t` of sequence `c`,
    /// which forgets its state before that step where `fresh` says so.
    ///
    /// # Panics
    /// When the network has no memory, the tape was made for less, or the shapes differ.
    pub fn begin<'a>(&'a mut self, steps: usize, mut state: Cols<'a, R>, mut fresh: &'a [bool]) {
        let Some(s) = &mut self.sequences else { panic!("this network has no memory") };
        let (rows, cols, wide) = (state.rows(), state.cols(), state.cols().max(LEAST_COLUMNS));
        assert_eq!(fresh.len(), steps * cols, "a flag for every step of every sequence");
        (s.steps, s.cols, s.wide) = (steps, cols, wide);
        if s.filled() {
            regroup(state.data(), &mut s.state[..rows * wide], [cols, wide], R::ZERO);
            regroup(fresh, &mut s.fresh[..steps * wide], [cols, wide], false);
            (state, fresh) = (Cols::new(&s.state[..rows * wide], rows, wide), &s.fresh[..steps * wide]);
        }
        let mut at = 0;
        for memory in self.layers.own.iter_mut().filter_map(AnyTape::memory_mut) {
            let end = at + memory.state_rows();
            memory.begin(steps, state.row_range(at, end), fresh);
            at = end;
        }
        assert_eq!(at, rows, "rows of the state");
    }
    /// State of sequence `c` after step `t` of the last `forward`; nothing where there is no memory.
    pub fn state_after(&self, t: usize, c: usize) -> impl Iterator<Item = R> + '_ {
        self.layers.memories().flat_map(move |(memory, h)| {
            (0..memory.state_rows()).map(move |row| memory.state_at(h, row, t, c))
        })
    }
    /// State of all sequences after the last step of the last `forward`, `[state_rows x cols]`.
    ///
    /// # Panics
    /// When the network has no memory, or `state` has another shape.
    pub fn last_state(&mut self, mut state: ColsMut<'_, R>) {
        let Some(s) = &mut self.sequences else { panic!("this network has no memory") };
        assert_eq!(state.cols(), s.cols, "a column for each sequence");
        let (rows, groups, filled) = (state.rows(), s.groups(), s.filled());
        let all = if filled { &mut s.state[..rows * s.wide] } else { state.data_mut() };
        let mut at = 0;
        for (memory, h) in self.layers.memories() {
            let end = at + memory.state_rows() * groups[0];
            memory.last_state(h, &mut all[at..end]);
            at = end;
        }
        if filled {
            regroup(&s.state[..rows * groups[0]], state.data_mut(), groups, R::ZERO);
        }
    }
    /// The outputs of the last `forward`, row after row.
    #[must_use]
    pub fn outputs(&self) -> &[R] {
        match &self.sequences {
            Some(s) if s.filled() => &s.out[..s.rows[1] * s.steps * s.cols],
            _ => self.layers.top(),
        }
    }
    /// The outputs of the last `forward`, to overwrite: derivatives do not need them.
    pub fn outputs_mut(&mut self) -> &mut [R] {
        match &mut self.sequences {
            Some(s) if s.filled() => &mut s.out[..s.rows[1] * s.steps * s.cols],
            _ => self.layers.top_mut(),
        }
    }
}
