//! Sensitivities guessed without looking at the weights.
