//! What stands between a listener and the network: TLS, credentials, Origin and Host.
