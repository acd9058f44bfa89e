//! The tool: stages of a conversion.
