//! ggufkit.
fn main() {}
