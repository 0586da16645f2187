//! A TCP proxy that can delay, freeze and cut what passes.
