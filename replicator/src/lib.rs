//! The data plane's shell: sessions, cycles, the vault service, recovered VMs and metrics.
