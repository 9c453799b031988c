//! What happens when the system gives no more memory.

use crate::failure::Code;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

/// The system's allocator. Where it has nothing left the process ends with a message and a code of its own,
/// where the standard library would abort it: the last checkpoint is valid.
pub(crate) struct OrExit;

#[cold]
fn exit(size: usize) -> ! {
    // Standard error has no buffer, and numbers are written without one: nothing is allocated here.
    let _ = writeln!(
        std::io::stderr(),
        "error: the system gives no more memory ({size} bytes were asked for)\n  hint: the last checkpoint of a \
         run is valid; smaller sizes (n_envs, n_steps, hidden) or a larger memory limit may help"
    );
    std::process::exit(i32::from(Code::Io as u8))
}

fn given(ptr: *mut u8, size: usize) -> *mut u8 {
    if ptr.is_null() { exit(size) } else { ptr }
}

// SAFETY: every call goes to `System` with unchanged arguments, so its promises carry over; where it returns
// null this does not return at all, which an allocator may do.
#[expect(unsafe_code, reason = "the allocator interface is unsafe by nature; all calls are passed on")]
unsafe impl GlobalAlloc for OrExit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        given(unsafe { System.alloc(layout) }, layout.size())
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above; `ptr` came from `System`, the only allocator behind this one.
        given(unsafe { System.realloc(ptr, layout, new_size) }, new_size)
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}
