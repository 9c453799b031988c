//! The counting allocator, installed.

use pgrad_testkit::{
    CountingAllocator, allocations_during, allocations_of_all_threads, assert_allocates_nothing,
};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn counts_what_this_thread_allocates() {
    assert_eq!(allocations_during(|| black_box(vec![black_box(1u8); 10])), 1);
    assert_eq!(allocations_during(|| black_box(vec![black_box(0u64); 1000])), 1);
    // What the matrix product takes is left out.
    assert_eq!(allocations_during(|| black_box(vec![false; 1000])), 0);
    let mut v: Vec<u64> = Vec::with_capacity(1);
    assert_eq!(allocations_during(|| v.extend(black_box([1, 2, 3]))), 1);
    assert_allocates_nothing(|| black_box(3.0f64).sqrt());
}

#[test]
fn other_threads_count_in_the_total_only() {
    let before = allocations_of_all_threads();
    let here = pgrad_testkit::allocations();
    std::thread::scope(|s| {
        s.spawn(|| {
            for _ in 0..1000 {
                drop(black_box(Box::new(black_box(1u64))));
            }
        });
    });
    assert!(allocations_of_all_threads() >= before + 1000);
    assert!(pgrad_testkit::allocations() < here + 100);
}

#[test]
#[should_panic(expected = "allocations where none")]
fn an_allocation_is_noticed() {
    assert_allocates_nothing(|| black_box(vec![black_box(1u8)]));
}
