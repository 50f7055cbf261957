//! The wire and nothing else: generated messages and services of farshore.v1.
