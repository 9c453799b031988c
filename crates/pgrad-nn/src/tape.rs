//! What a network's `forward` remembers, and how its columns make sequences.

use crate::layer::Memory;
use crate::layers::AnyTape;
use pgrad_num::{Aligned, Cols, ColsMut, Real};

/// What `forward` remembers for `vjp` and `jvp`, and their work space. Made once, for a largest batch.
#[derive(Clone, Debug)]
pub struct NetworkTape<R: Real> {
    pub(crate) layers: LayerTapes<R>,
    /// How the columns of a network with a memory make sequences.
    pub(crate) sequences: Option<Sequences>,
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

/// How columns make sequences.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sequences {
    pub(crate) steps: usize,
    pub(crate) cols: usize,
}

impl<R: Real> NetworkTape<R> {
    /// Says how the columns of the next batches make sequences: `steps` steps of `state.cols()` sequences
    /// that start from `state` (`[state_rows x cols]`); column `t·cols + c` is step `t` of sequence `c`,
    /// which forgets its state before that step where `fresh` says so.
    ///
    /// # Panics
    /// When the network has no memory, the tape was made for less, or the shapes differ.
    pub fn begin(&mut self, steps: usize, state: Cols<'_, R>, fresh: &[bool]) {
        let Some(sequences) = &mut self.sequences else { panic!("this network has no memory") };
        assert_eq!(fresh.len(), steps * state.cols(), "a flag for every step of every sequence");
        *sequences = Sequences { steps, cols: state.cols() };
        let mut at = 0;
        for memory in self.layers.own.iter_mut().filter_map(AnyTape::memory_mut) {
            let end = at + memory.state_rows();
            memory.begin(steps, state.row_range(at, end), fresh);
            at = end;
        }
        assert_eq!(at, state.rows(), "rows of the state");
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
        let Some(sequences) = self.sequences else { panic!("this network has no memory") };
        assert_eq!(state.cols(), sequences.cols, "a column for each sequence");
        let (cols, all) = (sequences.cols, state.data_mut());
        let mut at = 0;
        for (memory, h) in self.layers.memories() {
            let end = at + memory.state_rows() * cols;
            memory.last_state(h, &mut all[at..end]);
            at = end;
        }
    }
    /// The outputs of the last `forward`, row after row.
    #[must_use]
    pub fn outputs(&self) -> &[R] {
        self.layers.top()
    }
    /// The outputs of the last `forward`, to overwrite: derivatives do not need them.
    pub fn outputs_mut(&mut self) -> &mut [R] {
        self.layers.top_mut()
    }
}
