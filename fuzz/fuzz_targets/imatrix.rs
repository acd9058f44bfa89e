//! Whatever an importance matrix says, its numbers are finite and not negative, and all that is done with it ends: what
//! is shown of it, what is written, and what it makes with another.
#![no_main]

use calibration::imatrix::{legacy, read, write};
use calibration::summary::FEW_TOKENS;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(mut statistics) = read("fuzz", bytes) else { return };
    for entry in statistics.entries.values() {
        assert!(entry.means().iter().all(|x| x.is_finite() && x.is_sign_positive()));
        assert!(!entry.counts().is_empty());
    }
    let _ = (statistics.summaries(), statistics.warnings(FEW_TOKENS));
    if let Ok(written) = write(&statistics) {
        let again = read("fuzz", &written).expect("what is written can be read");
        assert_eq!(again.entries.len(), statistics.entries.len());
    }
    if let Ok(written) = legacy::write(&statistics) {
        assert!(read("fuzz", &written).is_ok());
    }
    let other = statistics.clone();
    let _ = statistics.merge(&other);
});
