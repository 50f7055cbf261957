//! The NBD protocol: a codec without I/O, a client with block status, and a server.
