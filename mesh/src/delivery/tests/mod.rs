//! Whole deliveries against a subscriber that answers by script. The tests name the rule that they prove.

mod failures;
mod letters;
mod modes;
mod replies;
mod running;
mod sending;
mod sets;
mod sink;
mod webhooks;
mod world;
