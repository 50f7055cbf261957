//! The replication protocol without I/O: windows, resume, seal and refusal.
