//! A global allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static ALL_THREADS: AtomicU64 = AtomicU64::new(0);
/// Bytes that are allocated, and the most that ever were.
static BYTES: AtomicU64 = AtomicU64::new(0);
static MOST_BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Constant start and no destructor: touching it never allocates, so the allocator may use it.
    static THIS_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// Whether an allocation belongs to the matrix product.
///
/// The `gemm` crate takes two things for a product and offers no way to lend it either: a packing buffer
/// aligned to cache lines, and a zeroed array of `bool`. Nothing in our hot path asks for an alignment of 64
/// or for zeroed bytes, so what is left is ours.
fn is_of_matrix_product(layout: Layout, zeroed: bool) -> bool {
    layout.align() >= 64 || (zeroed && layout.align() == 1)
}

/// The system's allocator, counting every allocation and reallocation, but for those that the `gemm` crate
/// makes for each product (alignment of a cache line or more, or zeroed bytes).
///
/// A test binary installs it with
/// ```
/// #[global_allocator]
/// static ALLOCATOR: pgrad_testkit::CountingAllocator = pgrad_testkit::CountingAllocator;
/// # fn main() { pgrad_testkit::assert_allocates_nothing(|| 1 + 1); }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

fn grow(bytes: usize) {
    let now = BYTES.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
    MOST_BYTES.fetch_max(now, Ordering::Relaxed);
}

fn shrink(bytes: usize) {
    BYTES.fetch_sub(bytes as u64, Ordering::Relaxed);
}

fn count(layout: Layout, zeroed: bool) {
    if is_of_matrix_product(layout, zeroed) {
        return;
    }
    ALL_THREADS.fetch_add(1, Ordering::Relaxed);
    // A thread that is being torn down has no counter any more; the total above still sees it.
    let _ = THIS_THREAD.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call goes to `System` with unchanged arguments, so its promises carry over; counting
// neither allocates nor unwinds.
#[expect(unsafe_code, reason = "the allocator interface is unsafe by nature; all calls are passed on")]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, false);
        grow(layout.size());
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout, true);
        grow(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(layout, false);
        grow(new_size);
        shrink(layout.size());
        // SAFETY: as above; `ptr` came from `System`, the only allocator behind this one.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// Allocations made so far by the calling thread; stays 0 when [`CountingAllocator`] is not installed.
#[must_use]
pub fn allocations() -> u64 {
    THIS_THREAD.with(Cell::get)
}

/// Allocations made so far by all threads: for code that works on a team of threads. The test harness and
/// tests that run at the same time count too, so such a test needs a binary of its own.
#[must_use]
pub fn allocations_of_all_threads() -> u64 {
    ALL_THREADS.load(Ordering::Relaxed)
}

/// The most bytes that all threads together had allocated at any moment inside `f`, beyond those that they
/// had before. Such a test needs a binary of its own.
pub fn most_bytes_during<T>(f: impl FnOnce() -> T) -> (u64, T) {
    let before = BYTES.load(Ordering::Relaxed);
    MOST_BYTES.store(before, Ordering::Relaxed);
    let result = f();
    (MOST_BYTES.load(Ordering::Relaxed) - before, result)
}

/// Number of allocations that the calling thread makes inside `f`.
///
/// # Panics
/// When [`CountingAllocator`] is not installed: the answer would always be 0.
#[track_caller]
pub fn allocations_during<T>(f: impl FnOnce() -> T) -> u64 {
    let before = allocations();
    drop(std::hint::black_box(Box::new(std::hint::black_box(0u8))));
    assert!(allocations() > before, "CountingAllocator is not the global allocator of this binary");
    let before = allocations();
    let result = f();
    let made = allocations() - before;
    drop(result);
    made
}

/// Panics when the calling thread allocates inside `f`.
///
/// # Panics
/// When `f` allocates, or when [`CountingAllocator`] is not installed.
#[track_caller]
pub fn assert_allocates_nothing<T>(f: impl FnOnce() -> T) {
    let made = allocations_during(f);
    assert!(made == 0, "{made} allocations where none were expected");
}
