//! Delivery of events to subscribers: retry, dead letters, the dispatcher.
