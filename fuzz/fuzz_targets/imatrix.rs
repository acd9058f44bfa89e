//! Whatever an importance matrix says, its numbers are finite and not negative.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(statistics) = calibration::imatrix::read("fuzz", bytes) else { return };
    for entry in statistics.entries.values() {
        assert!(entry.means.iter().all(|x| x.is_finite() && x.is_sign_positive()));
        assert!(!entry.counts.is_empty());
    }
});
