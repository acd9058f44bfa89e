//! Reports: text tables, HTML pages and SVG plots of results. Nothing is measured here.

pub mod compare;
pub mod html;
pub mod imatrix;
pub mod plans;
mod plots;
pub mod sensitivity;
mod svg;
