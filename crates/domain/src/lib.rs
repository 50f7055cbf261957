//! The control plane's decisions, pure: declarations, protection, failover, jobs and health.
