//! Configuration: TOML, environment and flags into one checked value.
