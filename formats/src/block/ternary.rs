//! Ternary.
use super::Block;

/// Tq1_0.
pub struct Tq1_0;
impl Block<256, 54> for Tq1_0 {
    fn decode(_: &[u8; 54], _: &mut [f32; 256]) {}
    fn encode(_: &[f32; 256], _: Option<&[f32; 256]>, _: &mut [u8; 54]) {}
}

/// Tq2_0.
pub struct Tq2_0;
impl Block<256, 66> for Tq2_0 {
    fn decode(_: &[u8; 66], _: &mut [f32; 256]) {}
    fn encode(_: &[f32; 256], _: Option<&[f32; 256]>, _: &mut [u8; 66]) {}
}
