//! The control plane's decisions, pure: declarations, protection, failover, jobs and health.
//!
//! Nothing here waits, reads a clock or makes up an identity: values (and `now`) come in, values go out.

pub mod allowed_operations;
pub mod declaration;
pub mod failover;
pub mod health;
pub mod job;
pub mod point_choice;
pub mod protection;
pub mod test_failover;
#[cfg(test)]
mod transition_table;
