//! HTTP for agent and gateway alike: server, ingress, operations.
