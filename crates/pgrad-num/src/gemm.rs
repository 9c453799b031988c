//! The matrix product for thin batches, single-threaded: parallelism belongs to the [`Team`](crate::Team).
//!
//! Everything that a network does is `C = A B` where a row of `B` and of `C` is one unit's value for all samples of
//! a chunk, or a sum over the samples of a chunk. So `B` is small (64 columns), one element of `A` meets a
//! whole row of `B`, and neither factor has to be copied before the work begins: that is what makes these loops
//! faster here than a general library, which packs both.
//!
//! - **Tile**: [`ROWS`] rows × [`VECTORS`] vectors of `C` stay in registers while `k` runs. A step of `k` loads
//!   [`VECTORS`] vectors of `B`, broadcasts [`ROWS`] numbers of `A` and does `ROWS · VECTORS` fused multiply-adds.
//!   12 of them hide the latency of the two units (4 cycles, two a cycle: at least 8), and 12 sums, 2 vectors of
//!   `B` and 1 of `A` fit the 16 registers of AVX2. The bound is the two multiply-adds of a cycle; the 8 loads
//!   need 4 of the 6 cycles. `Aᵀ` costs the same as `A`: only the place that a broadcast reads changes.
//! - **Strip**: [`STRIP`] rows of `C` across a panel. When their sums are complete they are still in the
//!   first cache, and there `finish` gets them (activation, its derivative, a bias gradient).
//! - **Panel**: [`DEPTH`] rows × [`WIDTH`] columns of `B`, 16 KiB of `f32`: half of the first cache. It is read
//!   in place where it lies together; else (`Bᵀ`, batches wider than a panel, columns that do not fill a
//!   vector) it is copied into [`Scratch`], filled up with zeros.
//!
//! All this is for chunks of at least [`LEAST_SAMPLES`] samples and layers of at most [`WIDEST`] units. Larger
//! factors do not stay in the first cache and are worth packing, and fewer samples leave a vector half empty:
//! those products go to the `gemm` crate, and a single sample has loops of its own. Which way a product goes
//! depends on its shape alone.
//!
//! # Determinism
//! With tiles an element of `C` is one chain of fused multiply-adds over `k`, in order, from what it starts with. Between
//! panels the chain waits in `C`, which loses nothing. So its bits depend on its row of `A` and its column of
//! `B` alone: not on its place, the size of the product, or the width of the vectors. [`add_outer`] has a
//! second order for narrow products, also fixed by the shape.

use crate::lanes::{BLOCK, Lanes};
use crate::{Cols, Real, simd};
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};

/// Rows of a tile.
const ROWS: usize = 6;
/// Vectors across a tile.
const VECTORS: usize = 2;
/// Rows of a strip.
const STRIP: usize = 4 * ROWS;
/// Rows of a panel of `B`.
const DEPTH: usize = 64;
/// Columns of a panel of `B`: a multiple of every machine's vector.
const WIDTH: usize = 64;

/// Fewer samples than this, and the `gemm` crate is the faster one.
pub const LEAST_SAMPLES: usize = 8;
/// Layers wider than this are the `gemm` crate's.
pub const WIDEST: usize = 128;

/// Whether a product between layers of `m` and `k` units over a chunk of `samples` is for our own tiles.
fn is_ours(m: usize, k: usize, samples: usize) -> bool {
    samples >= LEAST_SAMPLES && m.max(k) <= WIDEST
}

/// A matrix in memory: element `(i, j)` is `data[i * row_stride + j * col_stride]`, and one of the strides is 1.
#[derive(Clone, Copy, Debug)]
pub struct Mat<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
    /// Elements from one line of memory to the next.
    stride: usize,
    /// Whether a line of memory is a column.
    flipped: bool,
}

impl<'a, R> Mat<'a, R> {
    /// A `[rows x cols]` matrix stored row after row.
    ///
    /// # Panics
    /// When `data.len() != rows * cols`.
    #[must_use]
    pub fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a [{rows} x {cols}] matrix needs {} elements", rows * cols);
        Self { data, rows, cols, stride: cols, flipped: false }
    }
    /// The transpose, without moving data.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, flipped: !self.flipped, ..self }
    }
    /// From element `(i, j)` to the end of memory.
    #[inline(always)]
    fn after(&self, i: usize, j: usize) -> &'a [R] {
        let (line, at) = if self.flipped { (j, i) } else { (i, j) };
        &self.data[line * self.stride + at..]
    }
}

impl<'a, R> From<Cols<'a, R>> for Mat<'a, R> {
    fn from(x: Cols<'a, R>) -> Self {
        Self::new(x.data(), x.rows(), x.cols())
    }
}

/// What the sums of a product start with.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a, R> {
    /// `C = A B`.
    Zero,
    /// `C += A B`.
    Held,
    /// `C = A B + b 1ᵀ`: a number for each row.
    Bias(&'a [R]),
}

/// Room for a panel that cannot be read in place, and for a strip whose columns do not fill a vector.
#[derive(Clone, Debug)]
pub struct Scratch<R> {
    panel: Vec<R>,
    strip: Vec<R>,
}

impl<R: Real> Default for Scratch<R> {
    fn default() -> Self {
        Self { panel: vec![R::ZERO; DEPTH * WIDTH], strip: vec![R::ZERO; STRIP * WIDTH] }
    }
}

/// `C = A B`, `C += A B` or `C = A B + b 1ᵀ`, with `C` of `[a.rows x b.cols]` stored row after row.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul<R: Real>(
    c: &mut [R],
    start: Start<'_, R>,
    a: Mat<'_, R>,
    b: Mat<'_, R>,
    scratch: &mut Scratch<R>,
) {
    matmul_then(c, start, a, b, scratch, leave);
}

/// A `finish` that leaves the product as it is.
#[inline(always)]
fn leave<R>(_: usize, _: usize, _: &mut [R]) {}

/// [`matmul`], after which every piece of `C` goes through `finish(row, first column, elements)` while it is still
/// in the first cache. A piece is a row or, where rows are longer than 64 columns, a part of it. `finish` must be
/// marked `#[inline(always)]`: it is compiled for the widest vectors of the machine.
///
/// # Panics
/// When the shapes do not fit.
#[inline(always)]
pub fn matmul_then<R: Real>(
    c: &mut [R],
    start: Start<'_, R>,
    a: Mat<'_, R>,
    b: Mat<'_, R>,
    scratch: &mut Scratch<R>,
    mut finish: impl FnMut(usize, usize, &mut [R]),
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!(b.rows, k, "[{m} x {k}] times [{} x {n}]", b.rows);
    assert_eq!(c.len(), m * n, "the product is [{m} x {n}]");
    if let Start::Bias(bias) = start {
        assert_eq!(bias.len(), m, "a number for each row");
    }
    if is_ours(m, k, n) {
        by_tiles(c, start, a, b, scratch, finish);
        return;
    }
    if n == 1 {
        by_vector(c, start, a, b.data);
    } else {
        by_library(c, start, a, b);
    }
    simd!(|| for (i, row) in c.chunks_exact_mut(n.max(1)).enumerate() {
        finish(i, 0, row);
    });
}

/// The product with a vector `x`: nothing of `A` is used twice, so it is read once and in its order.
fn by_vector<R: Real>(c: &mut [R], start: Start<'_, R>, a: Mat<'_, R>, x: &[R]) {
    match start {
        Start::Zero => c.fill(R::ZERO),
        Start::Held => {}
        Start::Bias(bias) => c.copy_from_slice(bias),
    }
    if a.flipped {
        simd!(|| for (line, x) in a.data.chunks_exact(a.rows.max(1)).zip(x) {
            for (c, a) in c.iter_mut().zip(line) {
                *c = a.mul_add(*x, *c);
            }
        });
    } else {
        let (long, short) = (Cols::new(a.data, a.rows, a.cols), Cols::new(x, 1, a.cols));
        Arch::new().dispatch(Dots { c, long, short, long_stride: 1, short_stride: 1 });
    }
}

/// [`matmul_then`] with the `gemm` crate.
#[expect(unsafe_code, reason = "the gemm crate takes pointers; shapes are checked right here")]
fn by_library<R: Real>(c: &mut [R], start: Start<'_, R>, a: Mat<'_, R>, b: Mat<'_, R>) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    assert_eq!((b.rows, c.len()), (k, m * n));
    if let Start::Bias(bias) = start {
        for (row, b) in c.chunks_exact_mut(n.max(1)).zip(bias) {
            row.fill(*b);
        }
    }
    let strides = |x: &Mat<'_, R>| {
        let stride = x.stride as isize;
        if x.flipped { (1, stride) } else { (stride, 1) }
    };
    let ((a_row, a_col), (b_row, b_col)) = (strides(&a), strides(&b));
    // Computed as Cᵀ = Bᵀ Aᵀ: the batch is contiguous in both C and B, and gemm wants its output and its
    // left factor contiguous along the first axis.
    //
    // SAFETY: `Mat::new` ties each pointer to rows*cols initialised elements and `t` only swaps the
    // axes, so every (i, j) below (rows, cols) is in bounds; the assertion above fixes the output's size;
    // `c` is borrowed mutably, so it overlaps neither factor.
    unsafe {
        gemm::gemm(
            n,
            m,
            k,
            c.as_mut_ptr(),
            n as isize,
            1,
            !matches!(start, Start::Zero),
            b.data.as_ptr(),
            b_row,
            b_col,
            a.data.as_ptr(),
            a_row,
            a_col,
            R::ONE,
            R::ONE,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// [`matmul_then`] with the tiles that the first page describes.
#[inline(always)]
fn by_tiles<R: Real>(
    c: &mut [R],
    start: Start<'_, R>,
    a: Mat<'_, R>,
    b: Mat<'_, R>,
    scratch: &mut Scratch<R>,
    mut finish: impl FnMut(usize, usize, &mut [R]),
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let lanes = vector_lanes::<R>();
    for left in (0..n).step_by(WIDTH) {
        let cols = WIDTH.min(n - left);
        // Without an inner dimension there is nothing to add, but C still gets what it starts with.
        let mut from = 0;
        loop {
            let depth = DEPTH.min(k - from);
            let in_place = !b.flipped && n <= WIDTH && cols % lanes == 0;
            let panel = if in_place {
                Panel { data: &b.data[from * n..(from + depth) * n], width: n }
            } else {
                pack(&mut scratch.panel, b, from, left, depth, cols, cols.next_multiple_of(lanes))
            };
            for top in (0..m).step_by(STRIP) {
                let rows = STRIP.min(m - top);
                let start = match start {
                    _ if from > 0 => Start::Held,
                    Start::Bias(bias) => Start::Bias(&bias[top..top + rows]),
                    other => other,
                };
                let strip = &mut c[top * n + left..];
                let sums = Sums { rows, start, a, top, from, panel };
                if cols % lanes == 0 && n <= 4 * WIDTH {
                    sums.into_memory(strip, n);
                } else {
                    sums.through(&mut scratch.strip, strip, n, cols);
                }
                if from + depth == k {
                    simd!(|| for i in 0..rows {
                        finish(top + i, left, &mut strip[i * n..i * n + cols]);
                    });
                }
            }
            from += depth;
            if from == k {
                break;
            }
        }
    }
}

/// A panel of `B`, row after row; `width` is a whole number of vectors.
#[derive(Clone, Copy)]
struct Panel<'a, R> {
    data: &'a [R],
    width: usize,
}

/// Copies `depth` rows and `cols` columns of `b` from `(from, left)` on, and fills rows up to `width` with zeros.
fn pack<'s, R: Real>(
    to: &'s mut [R],
    b: Mat<'_, R>,
    from: usize,
    left: usize,
    depth: usize,
    cols: usize,
    width: usize,
) -> Panel<'s, R> {
    let to = &mut to[..depth * width];
    if cols < width {
        to.fill(R::ZERO);
    }
    let b_after = b.after(from, left);
    if b.flipped {
        Arch::new().dispatch(Flip { to, width, lines: b_after, stride: b.stride, depth, cols });
    } else {
        for (k, row) in to.chunks_exact_mut(width).enumerate() {
            let from = &b_after[k * b.stride..][..cols];
            if cols < BLOCK {
                row.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            } else {
                row[..cols].copy_from_slice(from);
            }
        }
    }
    Panel { data: to, width }
}

/// `to[k, j] = lines[j, k]` for `k < depth`, `j < cols`.
struct Flip<'a, R> {
    to: &'a mut [R],
    width: usize,
    lines: &'a [R],
    stride: usize,
    depth: usize,
    cols: usize,
}

impl<R: Real> WithSimd for Flip<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { to, width, lines, stride, depth, cols } = self;
        let (whole_depth, whole_cols) = (depth / BLOCK * BLOCK, cols / BLOCK * BLOCK);
        for j in (0..whole_cols).step_by(BLOCK) {
            for k in (0..whole_depth).step_by(BLOCK) {
                R::flip(simd, &lines[j * stride + k..], stride, &mut to[k * width + j..], width);
            }
        }
        for j in 0..cols {
            let done = if j < whole_cols { whole_depth } else { 0 };
            for k in done..depth {
                to[k * width + j] = lines[j * stride + k];
            }
        }
    }
}

/// The sums of a strip over a panel.
#[derive(Clone, Copy)]
struct Sums<'a, R> {
    rows: usize,
    /// Of the strip's rows.
    start: Start<'a, R>,
    a: Mat<'a, R>,
    /// First row and first column in `a`.
    top: usize,
    from: usize,
    panel: Panel<'a, R>,
}

impl<R: Real> Sums<'_, R> {
    /// Rows of the strip lie `stride` apart and hold a whole number of vectors.
    fn into_memory(self, strip: &mut [R], stride: usize) {
        Arch::new().dispatch(Tiles { sums: self, c: strip, stride });
    }
    /// The same for a strip whose rows end inside a vector.
    fn through(self, room: &mut [R], strip: &mut [R], stride: usize, cols: usize) {
        let width = self.panel.width;
        if let Start::Held = self.start {
            for i in 0..self.rows {
                room[i * width..][..cols].copy_from_slice(&strip[i * stride..][..cols]);
            }
        }
        self.into_memory(room, width);
        for i in 0..self.rows {
            strip[i * stride..][..cols].copy_from_slice(&room[i * width..][..cols]);
        }
    }
}

struct Tiles<'a, 'c, R> {
    sums: Sums<'a, R>,
    c: &'c mut [R],
    stride: usize,
}

impl<R: Real> WithSimd for Tiles<'_, '_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        if self.sums.a.flipped {
            self.all::<S, true>(simd);
        } else {
            self.all::<S, false>(simd);
        }
    }
}

impl<R: Real> Tiles<'_, '_, R> {
    #[inline(always)]
    fn all<S: Simd, const FLIPPED: bool>(&mut self, simd: S) {
        let rows = self.sums.rows;
        let mut i = 0;
        while i + ROWS <= rows {
            self.across::<S, FLIPPED, ROWS, VECTORS>(simd, i);
            i += ROWS;
        }
        // Fewer rows leave registers for more vectors.
        match rows - i {
            5 => self.across::<S, FLIPPED, 5, 2>(simd, i),
            4 => self.across::<S, FLIPPED, 4, 2>(simd, i),
            3 => self.across::<S, FLIPPED, 3, 3>(simd, i),
            2 => self.across::<S, FLIPPED, 2, 4>(simd, i),
            1 => self.across::<S, FLIPPED, 1, 4>(simd, i),
            _ => {}
        }
    }

    /// `M` rows from `i` on, all columns, in tiles of up to `V` vectors.
    #[inline(always)]
    fn across<S: Simd, const FLIPPED: bool, const M: usize, const V: usize>(&mut self, simd: S, i: usize) {
        let lanes = R::lanes::<S>();
        let vectors = self.sums.panel.width / lanes;
        let mut done = 0;
        while done < vectors {
            let j = done * lanes;
            done += match (vectors - done).min(V) {
                4 if V >= 4 => self.tile::<S, FLIPPED, M, 4>(simd, i, j),
                3 if V >= 3 => self.tile::<S, FLIPPED, M, 3>(simd, i, j),
                2 => self.tile::<S, FLIPPED, M, 2>(simd, i, j),
                _ => self.tile::<S, FLIPPED, M, 1>(simd, i, j),
            };
        }
    }

    /// `M` rows from `i` on, `V` vectors from column `j` on. Returns `V`.
    #[inline(always)]
    fn tile<S: Simd, const FLIPPED: bool, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        i: usize,
        j: usize,
    ) -> usize {
        let lanes = R::lanes::<S>();
        let Sums { start, a, top, from, panel, .. } = self.sums;
        let c = &mut self.c[i * self.stride + j..];
        let mut sum = [[R::splat(simd, R::ZERO); V]; M];
        match start {
            Start::Zero => {}
            Start::Bias(bias) => {
                for r in 0..M {
                    sum[r] = [R::splat(simd, bias[i + r]); V];
                }
            }
            Start::Held => {
                for r in 0..M {
                    for v in 0..V {
                        sum[r][v] = R::load(simd, &c[r * self.stride + v * lanes..]);
                    }
                }
            }
        }
        // One step of k. Written once, inlined into the two loops.
        let mut step = {
            #[inline(always)]
            |a: [R; M], b: &[R]| {
                let b: [R::Vector<S>; V] = std::array::from_fn(
                    #[inline(always)]
                    |v| R::load(simd, &b[j + v * lanes..]),
                );
                for r in 0..M {
                    let a = R::splat(simd, a[r]);
                    for v in 0..V {
                        sum[r][v] = R::fma(simd, a, b[v], sum[r][v]);
                    }
                }
            }
        };
        let b_rows = panel.data.chunks_exact(panel.width);
        if FLIPPED {
            for (a, b) in a.after(top + i, from).chunks(a.stride).zip(b_rows) {
                let a: &[R] = &a[..M];
                step(
                    std::array::from_fn(
                        #[inline(always)]
                        |r| a[r],
                    ),
                    b,
                );
            }
        } else {
            let depth = panel.data.len() / panel.width;
            let a: [&[R]; M] = std::array::from_fn(
                #[inline(always)]
                |r| &a.after(top + i + r, from)[..depth],
            );
            for (k, b) in b_rows.enumerate().take(depth) {
                step(
                    std::array::from_fn(
                        #[inline(always)]
                        |r| a[r][k],
                    ),
                    b,
                );
            }
        }
        for r in 0..M {
            for v in 0..V {
                R::store(simd, &mut c[r * self.stride + v * lanes..], sum[r][v]);
            }
        }
        V
    }
}

/// Numbers of a vector on this machine.
fn vector_lanes<R: Real>() -> usize {
    struct Ask<R>(std::marker::PhantomData<R>);
    impl<R: Lanes> WithSimd for Ask<R> {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            R::lanes::<S>()
        }
    }
    Arch::new().dispatch(Ask::<R>(std::marker::PhantomData))
}

/// Virtual lanes of a sum over samples.
const LANES: usize = 16;
/// Up to so many rows or columns `C` is narrow: too few for vectors along them.
const NARROW: usize = 4;

/// `C += A Bᵀ`, the sum over the samples of a batch of the outer products of their columns; `C` is
/// `[a.rows x b.rows]`, row after row.
///
/// Where `C` is narrow, an element is a scalar product along the batch: 16 virtual lanes, folded in halves, then
/// the samples that fill no lane. Elsewhere it is [`matmul`]'s chain, and `Bᵀ` is copied panel by panel.
///
/// # Panics
/// When the shapes do not fit.
pub fn add_outer<R: Real>(c: &mut [R], a: Cols<'_, R>, b: Cols<'_, R>, scratch: &mut Scratch<R>) {
    let (m, k) = (a.rows(), b.rows());
    assert_eq!(a.cols(), b.cols(), "batches of {} and {} samples", a.cols(), b.cols());
    assert_eq!(c.len(), m * k, "the sum is [{m} x {k}]");
    let samples_of_b = Mat::from(b).t();
    if a.cols() == 1 {
        simd!(|| for (row, a) in c.chunks_exact_mut(k.max(1)).zip(a.data()) {
            for (c, b) in row.iter_mut().zip(b.data()) {
                *c = a.mul_add(*b, *c);
            }
        });
        return;
    }
    if !is_ours(m, k, a.cols()) {
        by_library(c, Start::Held, a.into(), samples_of_b);
        return;
    }
    if m.min(k) > NARROW {
        by_tiles(c, Start::Held, a.into(), samples_of_b, scratch, leave);
        return;
    }
    let (long, short, long_stride, short_stride) = if m < k { (b, a, 1, k) } else { (a, b, k, 1) };
    Arch::new().dispatch(Dots { c, long, short, long_stride, short_stride });
}

/// `c[i * long_stride + j * short_stride] += Σ_s long[i, s] short[j, s]`.
struct Dots<'a, R> {
    c: &'a mut [R],
    long: Cols<'a, R>,
    short: Cols<'a, R>,
    long_stride: usize,
    short_stride: usize,
}

impl<R: Real> WithSimd for Dots<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, long, short, long_stride, short_stride } = self;
        let (whole, n) = (long.rows() / BLOCK * BLOCK, long.cols());
        for first in (0..whole).step_by(BLOCK) {
            for j in 0..short.rows() {
                let sums = block_of_dots(simd, long.row_range(first, first + BLOCK).data(), short.row(j), n);
                for (i, sum) in sums.into_iter().enumerate() {
                    c[(first + i) * long_stride + j * short_stride] += sum;
                }
            }
        }
        for i in whole..long.rows() {
            for j in 0..short.rows() {
                c[i * long_stride + j * short_stride] += dot(long.row(i), short.row(j));
            }
        }
    }
}

/// [`dot`] of each of 8 rows with `y`: a vector of `y` meets 8 rows, and the sums of a row's lanes are added where
/// 8 rows lie side by side.
#[inline(always)]
fn block_of_dots<R: Real, S: Simd>(simd: S, rows: &[R], y: &[R], n: usize) -> [R; BLOCK] {
    const HALF: usize = LANES / 2;
    const { assert!(HALF == BLOCK, "half of the lanes are turned over as a block") };
    let x: [&[R]; BLOCK] = std::array::from_fn(
        #[inline(always)]
        |i| &rows[i * n..(i + 1) * n],
    );
    let whole = n / LANES * LANES;
    let mut lanes = [[R::ZERO; LANES]; BLOCK];
    for at in (0..LANES).step_by(R::lanes::<S>()) {
        let mut sum = [R::splat(simd, R::ZERO); BLOCK];
        for s in (at..whole).step_by(LANES) {
            let y = R::load(simd, &y[s..]);
            for i in 0..BLOCK {
                sum[i] = R::fma(simd, R::load(simd, &x[i][s..]), y, sum[i]);
            }
        }
        for i in 0..BLOCK {
            R::store(simd, &mut lanes[i][at..], sum[i]);
        }
    }
    let mut halves = [[R::ZERO; HALF]; BLOCK];
    for (half, lanes) in halves.iter_mut().zip(&lanes) {
        for l in 0..HALF {
            half[l] = lanes[l] + lanes[l + HALF];
        }
    }
    let mut turned = [R::ZERO; BLOCK * HALF];
    R::flip(simd, halves.as_flattened(), HALF, &mut turned, BLOCK);
    let lane = |l: usize| &turned[l * BLOCK..][..BLOCK];
    std::array::from_fn(
        #[inline(always)]
        |i| {
            let quarter = |l: usize| lane(l)[i] + lane(l + 4)[i];
            let tail = x[i][whole..].iter().zip(&y[whole..]).fold(R::ZERO, |t, (x, y)| x.mul_add(*y, t));
            ((quarter(0) + quarter(2)) + (quarter(1) + quarter(3))) + tail
        },
    )
}

#[inline(always)]
fn dot<R: Real>(x: &[R], y: &[R]) -> R {
    let (mut acc, mut tail) = ([R::ZERO; LANES], R::ZERO);
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    for (x, y) in xs.remainder().iter().zip(ys.remainder()) {
        tail = x.mul_add(*y, tail);
    }
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            acc[i] = x[i].mul_add(y[i], acc[i]);
        }
    }
    fold(acc) + tail
}

/// `Σ x` with 16 virtual lanes, folded in halves, then the rest of the slice.
#[inline(always)]
pub fn row_sum<R: Real>(x: &[R]) -> R {
    let (mut acc, mut tail) = ([R::ZERO; LANES], R::ZERO);
    let chunks = x.chunks_exact(LANES);
    for v in chunks.remainder() {
        tail += *v;
    }
    for c in chunks {
        for i in 0..LANES {
            acc[i] += c[i];
        }
    }
    fold(acc) + tail
}

#[inline(always)]
fn fold<R: Real>(mut acc: [R; LANES]) -> R {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            acc[i] += acc[i + width];
        }
    }
    acc[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;

    const SHAPES: [(usize, usize, usize); 25] = [
        (1, 1, 1),
        (2, 64, 64),
        (1, 64, 3),
        (3, 4, 5),
        (5, 3, 9),
        (6, 7, 16),
        (4, 0, 8),
        (7, 1, 8),
        (11, 65, 24),
        (12, 17, 12),
        (64, 4, 64),
        (64, 64, 64),
        (64, 64, 32),
        (64, 64, 4),
        (25, 2, 40),
        (29, 63, 63),
        (65, 66, 67),
        (30, 129, 64),
        (13, 8, 72),
        (9, 20, 150),
        (48, 200, 8),
        (26, 11, 300),
        (64, 37, 1),
        (3, 64, 1),
        (140, 20, 1),
    ];

    fn random(n: usize, rng: &mut Stream) -> Vec<f64> {
        (0..n).map(|_| rng.normal()).collect()
    }
    fn single(x: &[f64]) -> Vec<f32> {
        x.iter().map(|x| *x as f32).collect()
    }
    /// The transpose of a `[rows x cols]` matrix.
    fn turned<R: Copy>(x: &[R], rows: usize, cols: usize) -> Vec<R> {
        (0..rows * cols).map(|i| x[i % rows * cols + i / rows]).collect()
    }

    /// Runs every layout of the factors.
    fn for_every_layout<R: Real>(
        a: &[R],
        b: &[R],
        (m, k, n): (usize, usize, usize),
        mut f: impl FnMut(Mat<'_, R>, Mat<'_, R>),
    ) {
        let (at, bt) = (turned(a, m, k), turned(b, k, n));
        for ma in [Mat::new(a, m, k), Mat::new(&at, k, m).t()] {
            for mb in [Mat::new(b, k, n), Mat::new(&bt, n, k).t()] {
                f(ma, mb);
            }
        }
    }

    fn agrees<R: Real>(round: impl Fn(&[f64]) -> Vec<R>, tolerance: f64) {
        let (mut rng, mut scratch) = (Stream::new(1, 0, 0), Scratch::default());
        for (m, k, n) in SHAPES {
            let (a, b) = (random(m * k, &mut rng), random(k * n, &mut rng));
            let (bias, held) = (random(m, &mut rng), random(m * n, &mut rng));
            let slow: Vec<f64> =
                (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[l * n + i % n]).sum()).collect();
            let near = |c: &[R], start: &dyn Fn(usize) -> f64| {
                (0..m * n).all(|i| (c[i].f64() - slow[i] - start(i)).abs() < tolerance)
            };
            for_every_layout(&round(&a), &round(&b), (m, k, n), |ma, mb| {
                let mut c = round(&held);
                matmul(&mut c, Start::Held, ma, mb, &mut scratch);
                assert!(near(&c, &|i| held[i]), "C += A B, {m} x {k} x {n}");
                matmul(&mut c, Start::Zero, ma, mb, &mut scratch);
                assert!(near(&c, &|_| 0.0), "C = A B, {m} x {k} x {n}");
                matmul(&mut c, Start::Bias(&round(&bias)), ma, mb, &mut scratch);
                assert!(near(&c, &|i| bias[i / n]), "C = A B + b, {m} x {k} x {n}");
            });
            // By tiles too where the shape would choose the library, and the other way round.
            for_every_layout(&round(&a), &round(&b), (m, k, n), |ma, mb| {
                let mut c = round(&held);
                by_tiles(&mut c, Start::Held, ma, mb, &mut scratch, leave);
                assert!(near(&c, &|i| held[i]), "by tiles, {m} x {k} x {n}");
                by_library(&mut c, Start::Bias(&round(&bias)), ma, mb);
                assert!(near(&c, &|i| bias[i / n]), "by library, {m} x {k} x {n}");
            });
            let (a, bt, mut c) = (round(&a), turned(&round(&b), k, n), round(&held));
            add_outer(&mut c, Cols::new(&a, m, k), Cols::new(&bt, n, k), &mut scratch);
            assert!(near(&c, &|i| held[i]), "sum of outer products, {m} x {k} x {n}");
        }
    }

    #[test]
    fn agrees_with_the_triple_loop_for_every_shape_and_layout() {
        agrees(<[f64]>::to_vec, 1e-12);
        agrees(single, 1e-4);
    }

    /// The chain that the first page promises, one element at a time.
    #[test]
    fn an_element_is_one_chain_wherever_it_stands() {
        let (mut rng, mut scratch) = (Stream::new(2, 0, 0), Scratch::default());
        for (m, k, n) in SHAPES {
            let (a, b) = (single(&random(m * k, &mut rng)), single(&random(k * n, &mut rng)));
            let bias = single(&random(m, &mut rng));
            let chain =
                |i: usize| (0..k).fold(bias[i / n], |c, l| a[i / n * k + l].mul_add(b[l * n + i % n], c));
            let chains: Vec<f32> = (0..m * n).map(chain).collect();
            for_every_layout(&a, &b, (m, k, n), |ma, mb| {
                let mut c = vec![0.0; m * n];
                by_tiles(&mut c, Start::Bias(&bias), ma, mb, &mut scratch, leave);
                assert_eq!(c, chains, "{m} x {k} x {n}");
            });
        }
    }

    #[test]
    fn a_row_of_a_narrow_sum_is_the_same_in_a_block_and_alone() {
        let (mut rng, mut scratch) = (Stream::new(3, 0, 0), Scratch::default());
        for n in [1, 15, 16, 50, 64, 100] {
            let (a, b) = (single(&random(21 * n, &mut rng)), single(&random(3 * n, &mut rng)));
            let mut all = vec![0.0f32; 21 * 3];
            add_outer(&mut all, Cols::new(&a, 21, n), Cols::new(&b, 3, n), &mut scratch);
            let mut other_way = vec![0.0f32; 3 * 21];
            add_outer(&mut other_way, Cols::new(&b, 3, n), Cols::new(&a, 21, n), &mut scratch);
            assert_eq!(all, turned(&other_way, 3, 21));
            for i in 0..21 {
                let mut alone = [0.0f32; 3];
                let row = Cols::new(&a[i * n..(i + 1) * n], 1, n);
                add_outer(&mut alone, row, Cols::new(&b, 3, n), &mut scratch);
                assert_eq!(alone, all[i * 3..(i + 1) * 3]);
            }
        }
    }

    #[test]
    fn every_finished_piece_is_passed_on_once() {
        let mut scratch = Scratch::default();
        for (m, k, n) in SHAPES {
            let (a, b) = (vec![1.0f32; m * k], vec![1.0f32; k * n]);
            let (mut c, mut seen) = (vec![0.0; m * n], vec![0; m * n]);
            matmul_then(
                &mut c,
                Start::Zero,
                Mat::new(&a, m, k),
                Mat::new(&b, k, n),
                &mut scratch,
                #[inline(always)]
                |row, col, piece| {
                    for (j, x) in piece.iter_mut().enumerate() {
                        assert_eq!(*x, k as f32);
                        *x = (row * n + col + j) as f32;
                        seen[row * n + col + j] += 1;
                    }
                },
            );
            assert!(seen.iter().all(|s| *s == 1));
            assert!(c.iter().enumerate().all(|(i, x)| *x == i as f32));
        }
    }

    #[test]
    fn a_row_sum_has_every_element_once() {
        for n in [0usize, 1, 15, 16, 17, 64, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(row_sum(&x), (n * n.saturating_sub(1) / 2) as f32);
        }
    }
}
