//! The interpreter: the oracle.
