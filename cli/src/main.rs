//! The one binary of Farshore.

fn main() {}
