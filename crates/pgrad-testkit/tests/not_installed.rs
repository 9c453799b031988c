//! Without the counting allocator, the check refuses to pass.

#[test]
#[should_panic(expected = "not the global allocator")]
fn a_check_without_the_allocator_is_refused() {
    pgrad_testkit::assert_allocates_nothing(|| ());
}
