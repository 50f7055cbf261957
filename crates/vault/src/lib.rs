//! Recovery points on disk: format, writer, reader, index and verification.
