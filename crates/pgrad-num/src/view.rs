//! Views with a shape: `Cols` for batches of samples, `Tb` for time-major data.

/// A batch of samples, `[rows x cols]`: a column is a sample, the batch is contiguous.
///
/// Element `(r, c)` is `data[r * cols + c]`.
#[derive(Clone, Copy, Debug)]
pub struct Cols<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
}

/// The mutable sibling of [`Cols`].
#[derive(Debug)]
pub struct ColsMut<'a, R> {
    data: &'a mut [R],
    rows: usize,
    cols: usize,
}

impl<'a, R> Cols<'a, R> {
    /// Views `data` as `[rows x cols]`.
    ///
    /// # Panics
    /// When `data.len() != rows * cols`: shapes are the caller's invariant, not user data.
    #[must_use]
    pub fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows} x {cols}] view needs {} elements", rows * cols);
        Self { data, rows, cols }
    }
    /// Number of rows (features).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Number of columns (samples).
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// One feature of all samples.
    #[must_use]
    pub fn row(&self, r: usize) -> &'a [R] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }
    /// Rows `from..to` as a view of their own.
    #[must_use]
    pub fn row_range(&self, from: usize, to: usize) -> Cols<'a, R> {
        Cols { data: &self.data[from * self.cols..to * self.cols], rows: to - from, cols: self.cols }
    }
    /// All elements, row after row.
    #[must_use]
    pub fn data(&self) -> &'a [R] {
        self.data
    }
}

impl<R: Copy> Cols<'_, R> {
    /// Element of feature `r`, sample `c`.
    #[must_use]
    pub fn at(&self, r: usize, c: usize) -> R {
        self.data[r * self.cols + c]
    }
}

impl<'a, R> ColsMut<'a, R> {
    /// Views `data` as `[rows x cols]`.
    ///
    /// # Panics
    /// When `data.len() != rows * cols`.
    #[must_use]
    pub fn new(data: &'a mut [R], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows} x {cols}] view needs {} elements", rows * cols);
        Self { data, rows, cols }
    }
    /// Number of rows (features).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Number of columns (samples).
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// One feature of all samples.
    #[must_use]
    pub fn row(&self, r: usize) -> &[R] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }
    /// One feature of all samples, to write.
    pub fn row_mut(&mut self, r: usize) -> &mut [R] {
        &mut self.data[r * self.cols..(r + 1) * self.cols]
    }
    /// Two different rows at once.
    ///
    /// # Panics
    /// When `a >= b`.
    pub fn two_rows_mut(&mut self, a: usize, b: usize) -> (&mut [R], &mut [R]) {
        assert!(a < b, "rows must be given in order");
        let (head, tail) = self.data.split_at_mut(b * self.cols);
        (&mut head[a * self.cols..(a + 1) * self.cols], &mut tail[..self.cols])
    }
    /// Rows `from..to` as a view of their own.
    pub fn row_range_mut(&mut self, from: usize, to: usize) -> ColsMut<'_, R> {
        ColsMut { data: &mut self.data[from * self.cols..to * self.cols], rows: to - from, cols: self.cols }
    }
    /// All elements, row after row.
    pub fn data_mut(&mut self) -> &mut [R] {
        self.data
    }
    /// A shared view of the same batch.
    #[must_use]
    pub fn as_cols(&self) -> Cols<'_, R> {
        Cols { data: self.data, rows: self.rows, cols: self.cols }
    }
    /// A shorter borrow of the same view.
    pub fn reborrow(&mut self) -> ColsMut<'_, R> {
        ColsMut { data: self.data, rows: self.rows, cols: self.cols }
    }
    /// The view as a plain mutable slice with the lifetime of the data.
    #[must_use]
    pub fn into_data(self) -> &'a mut [R] {
        self.data
    }
}

impl<R: Copy> ColsMut<'_, R> {
    /// Element of feature `r`, sample `c`.
    #[must_use]
    pub fn at(&self, r: usize, c: usize) -> R {
        self.data[r * self.cols + c]
    }
    /// Sets the element of feature `r`, sample `c`.
    pub fn set(&mut self, r: usize, c: usize, value: R) {
        self.data[r * self.cols + c] = value;
    }
}

/// Time-major data, `[T, B]`: row `t` holds the same step of all `B` environments, contiguous.
#[derive(Clone, Copy, Debug)]
pub struct Tb<'a, R> {
    data: &'a [R],
    t: usize,
    b: usize,
}

/// The mutable sibling of [`Tb`].
#[derive(Debug)]
pub struct TbMut<'a, R> {
    data: &'a mut [R],
    t: usize,
    b: usize,
}

impl<'a, R> Tb<'a, R> {
    /// Views `data` as `[t, b]`.
    ///
    /// # Panics
    /// When `data.len() != t * b`.
    #[must_use]
    pub fn new(data: &'a [R], t: usize, b: usize) -> Self {
        assert_eq!(data.len(), t * b, "a [{t}, {b}] view needs {} elements", t * b);
        Self { data, t, b }
    }
    /// Number of steps.
    #[must_use]
    pub fn t(&self) -> usize {
        self.t
    }
    /// Number of environments.
    #[must_use]
    pub fn b(&self) -> usize {
        self.b
    }
    /// Step `t` of all environments.
    #[must_use]
    pub fn row(&self, t: usize) -> &'a [R] {
        &self.data[t * self.b..(t + 1) * self.b]
    }
    /// All elements, step after step.
    #[must_use]
    pub fn data(&self) -> &'a [R] {
        self.data
    }
}

impl<R: Copy> Tb<'_, R> {
    /// Step `t` of environment `b`.
    #[must_use]
    pub fn at(&self, t: usize, b: usize) -> R {
        self.data[t * self.b + b]
    }
}

impl<'a, R> TbMut<'a, R> {
    /// Views `data` as `[t, b]`.
    ///
    /// # Panics
    /// When `data.len() != t * b`.
    #[must_use]
    pub fn new(data: &'a mut [R], t: usize, b: usize) -> Self {
        assert_eq!(data.len(), t * b, "a [{t}, {b}] view needs {} elements", t * b);
        Self { data, t, b }
    }
    /// Number of steps.
    #[must_use]
    pub fn t(&self) -> usize {
        self.t
    }
    /// Number of environments.
    #[must_use]
    pub fn b(&self) -> usize {
        self.b
    }
    /// Step `t` of all environments.
    #[must_use]
    pub fn row(&self, t: usize) -> &[R] {
        &self.data[t * self.b..(t + 1) * self.b]
    }
    /// Step `t` of all environments, to write.
    pub fn row_mut(&mut self, t: usize) -> &mut [R] {
        &mut self.data[t * self.b..(t + 1) * self.b]
    }
    /// Rows `t` (to write) and `t + 1` (to read).
    ///
    /// # Panics
    /// When there is no row `t + 1`.
    pub fn row_and_next(&mut self, t: usize) -> (&mut [R], &[R]) {
        let (head, tail) = self.data.split_at_mut((t + 1) * self.b);
        (&mut head[t * self.b..], &tail[..self.b])
    }
    /// A shorter borrow of the same view.
    pub fn reborrow(&mut self) -> TbMut<'_, R> {
        TbMut { data: self.data, t: self.t, b: self.b }
    }
    /// A shared view of the same data.
    #[must_use]
    pub fn as_tb(&self) -> Tb<'_, R> {
        Tb { data: self.data, t: self.t, b: self.b }
    }
    /// All elements, step after step.
    pub fn data_mut(&mut self) -> &mut [R] {
        self.data
    }
}
