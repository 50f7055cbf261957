//! What every provider implements: a source of captures and a place where recovered VMs run.
