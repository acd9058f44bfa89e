//! Nothing but a home for a test: that of `unit` is the crate `kernels` with the tests beside its code.
