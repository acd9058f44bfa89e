//! The numbers of config.json, with limits.

use serde_json::Value as Json;

/// The largest supported dimension of a tensor.
pub(super) const MOST: u64 = 1 << 31;

/// Reads the numbers of config.json.
pub(super) struct Reader<'a>(pub(super) &'a Json);

impl Reader<'_> {
    /// A positive integer that may be missing or null.
    pub(super) fn optional(&self, key: &str) -> Result<Option<u64>, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(v) => match integer(v) {
                Some(n @ 1..=MOST) => Ok(Some(n)),
                _ => Err(format!("{key} must be a positive integer of at most {MOST} (found {v})")),
            },
        }
    }

    /// The tokens of sliding-window attention; some writers say 0, -1 or false where there is none.
    pub(super) fn window(&self) -> Result<Option<u64>, String> {
        let key = "sliding_window";
        let none = self.0.get(key).is_some_and(|v| v == 0 || v == -1 || v == false);
        if none { Ok(None) } else { self.optional(key) }
    }

    /// A positive integer that must be there.
    pub(super) fn count(&self, key: &str) -> Result<u64, String> {
        self.optional(key)?.ok_or_else(|| format!("{key} is missing"))
    }

    /// A positive number that may be missing or null.
    pub(super) fn float(&self, key: &str) -> Result<Option<f64>, String> {
        match self.0.get(key) {
            None | Some(Json::Null) => Ok(None),
            Some(v) => match v.as_f64().filter(|&x| x > 0.0 && (x as f32).is_finite() && x as f32 > 0.0) {
                Some(x) => Ok(Some(x)),
                None => Err(format!("{key} must be a positive number in the range of f32 (found {v})")),
            },
        }
    }
}

/// A count, which Python's programs write as a float where it was computed: `4096.0`.
fn integer(v: &Json) -> Option<u64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    v.as_u64()
        .or_else(|| v.as_f64().filter(|x| x.fract() == 0.0 && (0.0..EXACT).contains(x)).map(|x| x as u64))
}
