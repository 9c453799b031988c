//! The product in tiles of registers; what, why and in which order is on the page of [`super`].

use super::lanes::{BLOCK, Kernel, Lanes};
use super::{Mat, Then, Write};
use crate::Real;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Rows of a tile.
const ROWS: usize = 6;
/// Rows of a strip.
const STRIP: usize = 4 * ROWS;
/// Rows of a panel of `B`.
const DEPTH: usize = 64;
/// Columns of a panel of `B`: a multiple of every machine's vector.
const WIDTH: usize = 64;

/// Room on the stack for `N` numbers, of which only those in use are ever touched. It begins with a line of
/// the cache, as [`Aligned`](crate::Aligned) does.
#[repr(align(64))]
struct Room<R, const N: usize>([MaybeUninit<R>; N]);

impl<R: Real, const N: usize> Room<R, N> {
    #[inline(always)]
    fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; N])
    }
    /// The first `len` numbers, set to 0.
    #[expect(unsafe_code, reason = "the numbers are written right before")]
    fn zeros(&mut self, len: usize) -> &mut [R] {
        let room = &mut self.0[..len];
        room.fill(MaybeUninit::new(R::ZERO));
        // SAFETY: all of `room` was written in the line above, and `MaybeUninit<R>` lies in memory as `R`.
        unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), len) }
    }
}

/// `C = A B` as `write` says, and `then`. The shapes fit.
pub(super) fn by_tiles<R: Real>(
    c: &mut [R],
    write: Write<'_, R>,
    a: Mat<'_, R>,
    b: Mat<'_, R>,
    then: Then<'_, R>,
) {
    let (m, k, n) = (a.rows, a.cols, b.cols);
    let lanes = R::machine_lanes();
    let mut room = Room::new();
    for left in (0..n).step_by(WIDTH) {
        let cols = WIDTH.min(n - left);
        // Without an inner dimension there is nothing to add, but C still gets what it starts with.
        let mut from = 0;
        loop {
            let depth = DEPTH.min(k - from);
            let in_place = !b.flipped && n <= WIDTH && cols % lanes == 0;
            let panel = if in_place {
                Panel { data: &b.data[from * n..(from + depth) * n], width: n, depth }
            } else {
                pack(&mut room, b, from, left, depth, cols, cols.next_multiple_of(lanes))
            };
            for top in (0..m).step_by(STRIP) {
                let rows = STRIP.min(m - top);
                let write = match write {
                    _ if from > 0 => Write::Add,
                    Write::Bias(bias) => Write::Bias(&bias[top..top + rows]),
                    other => other,
                };
                let at = top * n + left;
                let strip = &mut c[at..];
                let sums = Sums { rows, write, a, top, from, panel };
                if cols % lanes == 0 {
                    sums.into_memory(strip, n);
                } else {
                    sums.through(strip, n, cols);
                }
                if from + depth < k {
                    continue;
                }
                if cols == n {
                    then.apply_from(at, &mut strip[..rows * n]);
                } else {
                    for i in 0..rows {
                        then.apply_from(at + i * n, &mut strip[i * n..i * n + cols]);
                    }
                }
            }
            from += depth;
            if from == k {
                break;
            }
        }
    }
}

/// A panel of `B`, `[depth x width]`, row after row; `width` is a whole number of vectors.
#[derive(Clone, Copy, Debug)]
struct Panel<'a, R> {
    data: &'a [R],
    width: usize,
    depth: usize,
}

/// Copies `depth` rows and `cols` columns of `b` from `(from, left)` on, and fills rows up to `width` with
/// zeros.
#[expect(unsafe_code, reason = "a flipped panel is written block by block")]
fn pack<'s, R: Real>(
    room: &'s mut Room<R, { DEPTH * WIDTH }>,
    b: Mat<'_, R>,
    from: usize,
    left: usize,
    depth: usize,
    cols: usize,
    width: usize,
) -> Panel<'s, R> {
    let len = depth * width;
    let b_after = b.after(from, left);
    if b.flipped && cols == width && depth > 0 {
        let to = &mut room.0[..len];
        R::run(Kernel::Flip(Flip { to, from: b_after, stride: b.stride, depth, cols }));
        // SAFETY: `Flip` has written all of `to`, `[depth x cols]`, and `MaybeUninit<R>` lies in memory as
        // `R`.
        let data = unsafe { std::slice::from_raw_parts(to.as_ptr().cast(), len) };
        return Panel { data, width, depth };
    }
    let to = room.zeros(len);
    for (k, row) in to.chunks_exact_mut(width).enumerate() {
        if b.flipped {
            for (j, to) in row[..cols].iter_mut().enumerate() {
                *to = b_after[j * b.stride + k];
            }
        } else {
            for (to, from) in row.iter_mut().zip(&b_after[k * b.stride..][..cols]) {
                *to = *from;
            }
        }
    }
    Panel { data: to, width, depth }
}

/// `to[k, j] = from[j, k]` for `k < depth`, `j < cols`: writes all of `to`.
#[derive(Debug)]
pub struct Flip<'a, R> {
    to: &'a mut [MaybeUninit<R>],
    from: &'a [R],
    stride: usize,
    depth: usize,
    cols: usize,
}

impl<R: Real> WithSimd for Flip<'_, R> {
    type Output = ();
    #[expect(unsafe_code, reason = "the bounds of all blocks are checked at once")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { to, from, stride, depth, cols } = self;
        assert_eq!(to.len(), depth * cols);
        assert!(depth > 0 && cols > 0 && from.len() >= (cols - 1) * stride + depth);
        let (to, from) = (to.as_mut_ptr().cast::<R>(), from.as_ptr());
        let (whole_depth, whole_cols) = (depth / BLOCK * BLOCK, cols / BLOCK * BLOCK);
        for j in (0..whole_cols).step_by(BLOCK) {
            for k in (0..whole_depth).step_by(BLOCK) {
                // SAFETY: columns `k..k + 8` of rows `j..j + 8` are inside `from`, and the mirrored ones
                // inside `to`, by the assertions above; `to` is borrowed mutably, so they do not overlap.
                unsafe { R::flip(simd, from.add(j * stride + k), stride, to.add(k * cols + j), cols) };
            }
        }
        for j in 0..cols {
            let done = if j < whole_cols { whole_depth } else { 0 };
            for k in done..depth {
                // SAFETY: `j < cols` and `k < depth`; see the assertions above.
                unsafe { *to.add(k * cols + j) = *from.add(j * stride + k) };
            }
        }
    }
}

/// The sums of a strip over a panel.
#[derive(Clone, Copy, Debug)]
struct Sums<'a, R> {
    rows: usize,
    /// What the strip's rows start with.
    write: Write<'a, R>,
    a: Mat<'a, R>,
    /// First row and first column in `a`.
    top: usize,
    from: usize,
    panel: Panel<'a, R>,
}

impl<R: Real> Sums<'_, R> {
    /// Rows of the strip lie `stride` apart and hold a whole number of vectors.
    fn into_memory(self, strip: &mut [R], stride: usize) {
        R::run(Kernel::Tiles(Tiles { sums: self, c: strip, stride }));
    }
    /// The same for a strip whose rows end inside a vector.
    fn through(self, strip: &mut [R], stride: usize, cols: usize) {
        let width = self.panel.width;
        let mut room = Room::<R, { STRIP * WIDTH }>::new();
        let whole = room.zeros(self.rows * width);
        if let Write::Add = self.write {
            for (to, from) in whole.chunks_exact_mut(width).zip(strip.chunks(stride)) {
                to[..cols].copy_from_slice(&from[..cols]);
            }
        }
        self.into_memory(whole, width);
        for (from, to) in whole.chunks_exact(width).zip(strip.chunks_mut(stride)) {
            to[..cols].copy_from_slice(&from[..cols]);
        }
    }
}

/// The tiles of a strip: `c` from its first element on.
#[derive(Debug)]
pub struct Tiles<'a, R> {
    sums: Sums<'a, R>,
    c: &'a mut [R],
    stride: usize,
}

impl<R: Real> WithSimd for Tiles<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (Sums { rows, write, a, top, from, panel }, c, stride) = (self.sums, &*self.c, self.stride);
        // What the pointers below rely on.
        assert!(panel.width % R::lanes::<S>() == 0 && panel.data.len() == panel.depth * panel.width);
        assert!(rows > 0 && stride >= panel.width && c.len() >= (rows - 1) * stride + panel.width);
        assert!(top + rows <= a.rows && from + panel.depth <= a.cols && a.data.len() == a.rows * a.cols);
        if let Write::Bias(bias) = write {
            assert!(bias.len() >= rows);
        }
        if a.flipped {
            self.all::<S, true>(simd);
        } else {
            self.all::<S, false>(simd);
        }
    }
}

impl<R: Real> Tiles<'_, R> {
    #[inline(always)]
    fn all<S: Simd, const FLIPPED: bool>(mut self, simd: S) {
        let rows = self.sums.rows;
        let mut i = 0;
        while i < rows {
            // Tiles of nearly one size: a tile of few rows has too few chains to hide the latency of one.
            let left = rows - i;
            let next = left.div_ceil(left.div_ceil(ROWS));
            match next {
                6 => self.across::<S, FLIPPED, 6, 2>(simd, i),
                5 => self.across::<S, FLIPPED, 5, 2>(simd, i),
                4 => self.across::<S, FLIPPED, 4, 2>(simd, i),
                // Fewer rows leave registers for more vectors.
                3 => self.across::<S, FLIPPED, 3, 4>(simd, i),
                2 => self.across::<S, FLIPPED, 2, 4>(simd, i),
                _ => self.across::<S, FLIPPED, 1, 8>(simd, i),
            }
            i += next;
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
            done += match vectors - done {
                8.. if V >= 8 => self.tile::<S, FLIPPED, M, 8>(simd, i, j),
                4.. if V >= 4 => self.tile::<S, FLIPPED, M, 4>(simd, i, j),
                2.. => self.tile::<S, FLIPPED, M, 2>(simd, i, j),
                _ => self.tile::<S, FLIPPED, M, 1>(simd, i, j),
            };
        }
    }

    /// `M` rows from `i` on, `V` vectors from column `j` on. Returns `V`.
    #[expect(unsafe_code, reason = "the bounds of all tiles are checked at once, by with_simd")]
    #[inline(always)]
    fn tile<S: Simd, const FLIPPED: bool, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        i: usize,
        j: usize,
    ) -> usize {
        type Vector<S, R> = <R as Lanes>::Vector<S>;
        let lanes = R::lanes::<S>();
        let Sums { rows, write, a, top, from, panel } = self.sums;
        debug_assert!(i + M <= rows && j + V * lanes <= panel.width);
        // SAFETY, of all pointers here: `with_simd` has asserted that rows `0..rows` of C, columns
        // `0..panel.width`, lie inside `c`; that rows `top..top + rows` of A, columns `from..from + depth`,
        // lie inside `a`; and that the panel is `[depth x width]`. `all` and `across` only ask for tiles
        // inside `rows` and `panel.width`. `c` is borrowed mutably, so it overlaps neither factor. Vectors
        // are read and written without alignment; any bits are one. SAFETY: see above.
        let c = |c: &mut [R], r: usize, v: usize| unsafe {
            c.as_mut_ptr().add((i + r) * self.stride + j + v * lanes).cast::<Vector<S, R>>()
        };
        let mut sum = [[R::splat(simd, R::ZERO); V]; M];
        match write {
            Write::Replace => {}
            Write::Bias(bias) => {
                for r in 0..M {
                    sum[r] = [R::splat(simd, bias[i + r]); V];
                }
            }
            Write::Add => {
                for r in 0..M {
                    for v in 0..V {
                        // SAFETY: see above.
                        sum[r][v] = unsafe { c(self.c, r, v).read_unaligned() };
                    }
                }
            }
        }
        let (a_row, a_step) = if FLIPPED { (1, a.stride) } else { (a.stride, 1) };
        // `n` steps of `k`. Written once, inlined into the two loops.
        let mut steps = {
            #[inline(always)]
            |a: *const R, b: *const R, n: usize| {
                for k in 0..n {
                    // SAFETY: see above; `k` counts from the rows that `a` and `b` point to.
                    unsafe {
                        let (a, b) = (a.add(k * a_step), b.add(k * panel.width));
                        let a = {
                            #[inline(always)]
                            |r: usize| R::splat(simd, *a.add(r * a_row))
                        };
                        let b = {
                            #[inline(always)]
                            |v: usize| b.add(v * lanes).cast::<Vector<S, R>>().read_unaligned()
                        };
                        // The shorter side waits in registers.
                        if M < V {
                            let a: [Vector<S, R>; M] = std::array::from_fn(a);
                            for v in 0..V {
                                let b = b(v);
                                for r in 0..M {
                                    sum[r][v] = R::fma(simd, a[r], b, sum[r][v]);
                                }
                            }
                        } else {
                            let b: [Vector<S, R>; V] = std::array::from_fn(b);
                            for r in 0..M {
                                let a = a(r);
                                for v in 0..V {
                                    sum[r][v] = R::fma(simd, a, b[v], sum[r][v]);
                                }
                            }
                        }
                    }
                }
            }
        };
        let (mut a, mut b) = (
            a.data.as_ptr().wrapping_add((top + i) * a_row + from * a_step),
            panel.data.as_ptr().wrapping_add(j),
        );
        let whole = panel.depth / R::UNROLL;
        for _ in 0..whole {
            steps(a, b, R::UNROLL);
            // Past the end after the last step, where nothing is read any more.
            (a, b) = (a.wrapping_add(R::UNROLL * a_step), b.wrapping_add(R::UNROLL * panel.width));
        }
        for _ in whole * R::UNROLL..panel.depth {
            steps(a, b, 1);
            (a, b) = (a.wrapping_add(a_step), b.wrapping_add(panel.width));
        }
        for r in 0..M {
            for v in 0..V {
                // SAFETY: see above.
                unsafe { c(self.c, r, v).write_unaligned(sum[r][v]) };
            }
        }
        V
    }
}
