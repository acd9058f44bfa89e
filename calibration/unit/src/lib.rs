//! Nothing but a home for a test: that of `unit` is the crate `calibration` with the tests beside its code.
