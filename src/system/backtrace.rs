//! No backtraces in release builds. They carry neither unwind tables nor symbols, so a
//! backtrace would come out empty, yet the code that prints one is a twelfth of the binary:
//! a reader of DWARF, an inflater, a demangler. Must not touch builds that unwind.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`: there is no further frame.
const END_OF_STACK: c_int = 5;

/// Stands in for the unwinder's function of this name (Itanium C++ ABI), through which
/// alone the standard library walks a stack: one that has no frames. As nothing is done
/// with a frame any more, the optimiser leaves out all that could be done with it.
// SAFETY: the name is the point; the signature and the answer are the ABI's.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_frame: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}
