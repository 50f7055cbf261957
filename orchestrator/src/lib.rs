//! The control plane: API, durable jobs, reconciler, fleet of replicators, state store and metrics.
