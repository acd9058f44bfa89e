//! Signals that end a program without a word where an error would say what happened. A library leaves them as they are;
//! the binary calls [`speak`] once, at its start.

/// Lets the limit of file sizes (`ulimit -f`) be an error of the write that meets it, and lets a mapped file that was
/// truncated end the process with a line on standard error and the exit status 1.
///
/// Both are settings of the whole process.
pub fn speak() {
    // SAFETY: to ignore a signal needs no handler, and the call's arguments are constants of the system.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    // Elsewhere the same signal tells of a stack overflow, which the runtime reports.
    #[cfg(target_os = "linux")]
    {
        let handler: extern "C" fn(libc::c_int) = lost;
        // SAFETY: the handler has the signature that the system calls, and calls only functions that a handler of a
        // signal may call (`write` and `_exit`, async-signal-safe by POSIX).
        unsafe {
            libc::signal(libc::SIGBUS, handler as libc::sighandler_t);
        }
    }
}

/// Says that mapped bytes cannot be read, and ends the process.
#[cfg(target_os = "linux")]
extern "C" fn lost(_: libc::c_int) {
    const WHY: &str = "ggufkit: a file cannot be read any more: it became shorter, or its disk failed\n  \
                       hint: run again when nothing writes to it; --no-mmap names the file\n";
    // SAFETY: the pointer and the length are those of one constant. The process ends here, so nothing that was
    // interrupted goes on with half of its work; files that were being written have no names yet.
    unsafe {
        libc::write(libc::STDERR_FILENO, WHY.as_ptr().cast(), WHY.len());
        libc::_exit(1);
    }
}
