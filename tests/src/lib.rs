//! Scenarios on real binaries and VMs, the structure checks and the benchmarks' harness.
