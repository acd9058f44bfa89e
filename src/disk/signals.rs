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
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering, fence};

    /// A place in the table. It is free while its `end` is 0, and being filled while that is 1.
    struct Slot {
        start: AtomicUsize,
        end: AtomicUsize,
        name: AtomicPtr<u8>,
        len: AtomicUsize,
    }

    const FREE: usize = 0;
    const TAKEN: usize = 1;

    /// More maps than a model has shards. Those beyond have no name in the message.
    static SLOTS: [Slot; 1024] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(FREE),
            name: AtomicPtr::new(std::ptr::null_mut()),
            len: AtomicUsize::new(0),
        }
    }; 1024];

    impl Slot {
        /// The name of the map that this place is of, if the map holds an address. Other threads may give the place to another
        /// map meanwhile, and `start` and `end` of two maps could hold an address that neither does: they count only if
        /// `end` is the same before and after the others were read. `end` changes before the others do and gets its value
        /// after them, so then all are of one map. (If the place was given away and taken again by a map with the very same
        /// `end` in between, they are of the later one, or the fence shows that it is being filled.)
        fn read(&self, address: usize) -> Option<(*const u8, usize)> {
            self.read_with(address, || ())
        }

        /// As [`Slot::read`]; `meanwhile` stands for what other threads may do once `end` was read.
        fn read_with(&self, address: usize, meanwhile: impl FnOnce()) -> Option<(*const u8, usize)> {
            let end = self.end.load(Ordering::Acquire);
            meanwhile();
            let start = self.start.load(Ordering::Relaxed);
            let name = (self.name.load(Ordering::Relaxed).cast_const(), self.len.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let holds = end > TAKEN && (start..end).contains(&address);
            (holds && self.end.load(Ordering::Relaxed) == end).then_some(name)
        }
    }

    /// The first byte and the length of the name of the map that holds an address. It may be read for as long as that map
    /// is not dropped.
    pub fn find(address: usize) -> Option<(*const u8, usize)> {
        SLOTS.iter().find_map(|slot| slot.read(address))
    }

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
                // Whoever sees one of the following values also sees that `end` is no longer what it was: `Slot::read`.
                fence(Ordering::Release);
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
            let top = usize::MAX - 16;
            for _ in 0..3 * SLOTS.len() {
                let named = Named::new(top..top + 8, "x".into());
                assert!(find(top).is_some_and(|(_, len)| len == 1) && find(top + 8).is_none());
                drop(named);
                assert!(find(top).is_none());
            }
        }

        #[test]
        fn a_place_that_is_given_away_meanwhile_is_not_of_two_maps() {
            // Between two maps that have the same place in turn. The begin of one and the end of the other would hold it.
            let between = usize::MAX - 5000;
            let named = |addresses| Named::new(addresses, "x".into());
            let first = named(between + 1000..between + 2000);
            let slot = first.slot.unwrap();
            let mut second = None; // lives on
            let found = slot.read_with(between, || {
                drop(first);
                // Another test may take the place in between, which is as good.
                second = Some(named(between - 2000..between - 1000));
            });
            assert!(found.is_none());
            drop(second);
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
    match table::find(address) {
        // The thread that is interrupted here reads the one map that holds this address, so it has not been dropped, nor the
        // name that is dropped with it.
        Some((name, len)) => write(name, len),
        None => write(SOME.as_ptr(), SOME.len()),
    }
    write(WHY.as_ptr(), WHY.len());
    // SAFETY: the process ends here, so nothing that was interrupted goes on with half of its work; files that were being
    // written have no names yet.
    unsafe { libc::_exit(1) };
}
