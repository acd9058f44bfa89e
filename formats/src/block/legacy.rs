//! 32 weights under one scale.
use super::Block;

/// Q4_0.
pub struct Q4_0;
impl Block<32, 18> for Q4_0 {
    fn decode(_: &[u8; 18], _: &mut [f32; 32]) {}
    fn encode(_: &[f32; 32], _: Option<&[f32; 32]>, _: &mut [u8; 18]) {}
}

/// Q4_1.
pub struct Q4_1;
impl Block<32, 20> for Q4_1 {
    fn decode(_: &[u8; 20], _: &mut [f32; 32]) {}
    fn encode(_: &[f32; 32], _: Option<&[f32; 32]>, _: &mut [u8; 20]) {}
}

/// Q5_0.
pub struct Q5_0;
impl Block<32, 22> for Q5_0 {
    fn decode(_: &[u8; 22], _: &mut [f32; 32]) {}
    fn encode(_: &[f32; 32], _: Option<&[f32; 32]>, _: &mut [u8; 22]) {}
}

/// Q5_1.
pub struct Q5_1;
impl Block<32, 24> for Q5_1 {
    fn decode(_: &[u8; 24], _: &mut [f32; 32]) {}
    fn encode(_: &[f32; 32], _: Option<&[f32; 32]>, _: &mut [u8; 24]) {}
}

/// Q8_0.
pub struct Q8_0;
impl Block<32, 34> for Q8_0 {
    fn decode(_: &[u8; 34], _: &mut [f32; 32]) {}
    fn encode(_: &[f32; 32], _: Option<&[f32; 32]>, _: &mut [u8; 34]) {}
}
