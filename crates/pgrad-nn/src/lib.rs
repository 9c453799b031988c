//! Networks over one flat parameter vector: forward, vjp, jvp.
