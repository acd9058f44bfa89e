//! Tables, pages and pictures of what was measured: this module draws, and measures nothing.

pub mod compare;
pub mod html;
pub mod imatrix;
pub mod plans;
mod plots;
pub mod sensitivity;
mod svg;
