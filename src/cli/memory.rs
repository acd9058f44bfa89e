//! What happens when the system has no more memory: a line that says so, and the exit status of an error. Without it,
//! the process is aborted, as after a fault of the program.

#![cfg(unix)]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;

use clap::Command;

use super::advice;

/// The system's allocator, which never returns without memory.
struct OrExit;

#[global_allocator]
static ALLOCATOR: OrExit = OrExit;

// SAFETY: every call is passed on to the system's allocator with the arguments as they came, so what holds of it holds
// here; where it has no memory, the call does not return.
unsafe impl GlobalAlloc for OrExit {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the one that is asked for.
        or_exit(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        or_exit(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises about the pointer, `layout` and `size` are the ones that are asked for; the
        // pointer is the system's, since all are.
        or_exit(unsafe { System.realloc(ptr, layout, size) }, size)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn or_exit(ptr: *mut u8, bytes: usize) -> *mut u8 {
    if ptr.is_null() {
        out_of_memory(bytes);
    }
    ptr
}

/// What can be done about it whatever runs, as the end of the message.
const ALWAYS: &str = " more bytes\n  hint: free some memory, or raise its limit (`ulimit -v`)\n";

/// The same with the options of the command that runs. Made before it runs: later there may be no memory for it.
static HINT: OnceLock<String> = OnceLock::new();

/// Makes the hint for the running command.
pub fn advise() {
    let less = advice::command().map(|(program, command)| less(program, command)).unwrap_or_default();
    if !less.is_empty() {
        let start = " more bytes\n  hint: free some memory, raise its limit (`ulimit -v`), or use less:";
        let _ = HINT.set(format!("{start} {}\n", less.join(", ")));
    }
}

/// The options with which a command takes less memory.
fn less(program: &Command, command: &str) -> Vec<&'static str> {
    // Where --memory takes no value, it asks how much memory a model takes, and --context is for that question.
    if advice::has_switch(program, command, "--memory") {
        return Vec::new();
    }
    [("--memory", "--memory"), ("--threads", "--threads 1"), ("--context", "a shorter --context")]
        .into_iter()
        .filter(|(option, _)| advice::has(program, command, option))
        .map(|(_, way)| way)
        .collect()
}

/// Says how many bytes were not to be had, without allocating any, and ends the process.
#[cold]
fn out_of_memory(bytes: usize) -> ! {
    let mut digits = [0u8; 20];
    let (mut at, mut rest) = (digits.len(), bytes);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let hint = HINT.get().map_or(ALWAYS, String::as_str);
    for part in [&b"ggufkit: out of memory: the system has no "[..], &digits[at..], hint.as_bytes()] {
        // SAFETY: the pointer and the length are those of one slice.
        unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process at once. Files that were being written have no names yet.
    unsafe { libc::_exit(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn only_what_takes_less_memory_is_advised() {
        let program = super::super::Cli::command();
        for (command, wanted) in [
            ("convert", &["--memory", "--threads 1"][..]),
            ("calibrate", &["--memory", "--threads 1", "a shorter --context"]),
            ("eval", &["--threads 1", "a shorter --context"]),
            ("inspect", &[]),
            ("verify", &[]),
        ] {
            assert_eq!(less(&program, command), wanted, "{command}");
        }
    }
}
