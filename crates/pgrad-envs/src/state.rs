//! The state of a batch, batch-innermost.

/// `D` numbers for each of `n` copies, `[D][n]`.
#[derive(Clone, Debug)]
pub(crate) struct State<const D: usize> {
    data: Vec<f64>,
    n: usize,
}

impl<const D: usize> State<D> {
    /// All zero.
    ///
    /// # Panics
    /// When `n` is 0.
    pub(crate) fn new(n: usize) -> Self {
        assert!(n > 0, "a batch has at least one environment");
        Self { data: vec![0.0; D * n], n }
    }
    /// Number of copies.
    pub(crate) fn len(&self) -> usize {
        self.n
    }
    /// Number `i` of every copy.
    pub(crate) fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.n..(i + 1) * self.n]
    }
    /// Each number of every copy, to write.
    pub(crate) fn rows_mut(&mut self) -> [&mut [f64]; D] {
        let mut rows = self.data.chunks_exact_mut(self.n);
        std::array::from_fn(|_| rows.next().unwrap_or_default())
    }
    /// The state of copy `b`.
    pub(crate) fn get(&self, b: usize) -> [f64; D] {
        std::array::from_fn(|i| self.data[i * self.n + b])
    }
    /// Sets the state of copy `b`.
    pub(crate) fn set(&mut self, b: usize, state: [f64; D]) {
        for (i, x) in state.into_iter().enumerate() {
            self.data[i * self.n + b] = x;
        }
    }
}

/// `state` as the state of one copy: `D` finite numbers.
pub(crate) fn parse<const D: usize>(state: &[f64]) -> Option<[f64; D]> {
    let state: [f64; D] = state.try_into().ok()?;
    state.iter().all(|x| x.is_finite()).then_some(state)
}

/// Rounds every number to single precision.
pub(crate) fn round(from: &[f64], to: &mut [f32]) {
    pgrad_num::simd!(|| {
        for (to, x) in to.iter_mut().zip(from) {
            *to = *x as f32;
        }
    });
}
