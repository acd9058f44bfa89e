//! Signals that end a program without a word where an error would say what happened. A library leaves them as they are;
//! the binary calls [`speak`] once, at its start.

#[cfg(target_os = "linux")]
pub(super) use table::Named;

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
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = lost;
        // SAFETY: all bytes of a `sigaction` may be zero: no flags, and an empty set of signals. The handler has the
        // signature that the system calls with SA_SIGINFO, reads atomics, and calls only functions that a handler of a signal
        // may call (`write`, `pause` and `_exit`, async-signal-safe by POSIX).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    }
}

/// Which file is mapped where, in a form that the handler of a signal may read.
#[cfg(target_os = "linux")]
mod table {
    use std::ops::Range;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    /// A place in the table. It is free while its `end` is 0, and taken while that is 1.
    pub struct Slot {
        pub start: AtomicUsize,
        pub end: AtomicUsize,
        pub name: AtomicPtr<u8>,
        pub len: AtomicUsize,
    }

    const FREE: usize = 0;
    const TAKEN: usize = 1;

    /// More maps than a model has shards. Those beyond have no name in the message.
    pub static SLOTS: [Slot; 1024] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(FREE),
            name: AtomicPtr::new(std::ptr::null_mut()),
            len: AtomicUsize::new(0),
        }
    }; 1024];

    /// The name of a map, as long as this value lives.
    pub struct Named {
        slot: Option<&'static Slot>,
        /// What the slot points to.
        _name: Box<str>,
    }

    impl Named {
        /// Names the map at these addresses. The value has to be dropped before the map is.
        pub fn new(addresses: Range<usize>, name: String) -> Self {
            let name = name.into_boxed_str();
            let take = |slot: &&Slot| {
                slot.end.compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
            };
            let slot = SLOTS.iter().find(take);
            if let Some(slot) = slot {
                slot.start.store(addresses.start, Ordering::Relaxed);
                slot.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
                slot.len.store(name.len(), Ordering::Relaxed);
                slot.end.store(addresses.end, Ordering::Release);
            }
            Self { slot, _name: name }
        }
    }

    impl Drop for Named {
        fn drop(&mut self) {
            if let Some(slot) = self.slot {
                slot.end.store(FREE, Ordering::Release);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_place_is_free_again_when_the_map_is_gone() {
            // Addresses that no map of this process has.
            let find = |at: usize| SLOTS.iter().any(|s| s.end.load(Ordering::Acquire) == at + 8);
            let top = usize::MAX - 16;
            for _ in 0..3 * SLOTS.len() {
                let named = Named::new(top..top + 8, "x".into());
                assert!(find(top));
                drop(named);
                assert!(!find(top));
            }
        }
    }
}

/// Says that mapped bytes cannot be read, and ends the process.
#[cfg(target_os = "linux")]
extern "C" fn lost(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    use std::sync::atomic::{AtomicBool, Ordering};

    static SAID: AtomicBool = AtomicBool::new(false);
    const WHO: &str = "ggufkit: ";
    const SOME: &str = "a file";
    const WHY: &str = ": cannot be read any more: it became shorter, or its disk failed\n  \
                       hint: run again when nothing writes to it\n";
    let write = |text: *const u8, len: usize| {
        // SAFETY: callers give the bytes of a text that lives on.
        unsafe { libc::write(libc::STDERR_FILENO, text.cast(), len) };
    };
    // Another thread that meets the same waits for the end.
    while SAID.swap(true, Ordering::AcqRel) {
        // SAFETY: it has no arguments.
        unsafe { libc::pause() };
    }
    // SAFETY: the system calls a handler with SA_SIGINFO with a valid pointer; the address is set for this signal.
    let address = unsafe { (*info).si_addr() } as usize;
    write(WHO.as_ptr(), WHO.len());
    let holds = |slot: &&table::Slot| {
        let end = slot.end.load(Ordering::Acquire);
        address < end && slot.start.load(Ordering::Relaxed) <= address
    };
    match table::SLOTS.iter().find(holds) {
        // The thread that is interrupted here reads this map, so it has not been dropped, nor the name that is dropped with
        // it.
        Some(slot) => write(slot.name.load(Ordering::Relaxed), slot.len.load(Ordering::Relaxed)),
        None => write(SOME.as_ptr(), SOME.len()),
    }
    write(WHY.as_ptr(), WHY.len());
    // SAFETY: the process ends here, so nothing that was interrupted goes on with half of its work; files that were being
    // written have no names yet.
    unsafe { libc::_exit(1) };
}
