//! Nothing but a home for a test: that of `unit` is the crate `formats` with the tests beside its code.
