//! Finite differences, the adjoint law, dense oracles, golden files. For tests only.
