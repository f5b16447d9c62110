//! Brokers: named durable queues, each one a journal.
