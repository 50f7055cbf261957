//! A tolerant QMP and guest-agent client.
