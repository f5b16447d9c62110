//! Whole deliveries against a subscriber that answers by script. The tests name the rule that they prove.

mod failures;
mod flows;
mod letters;
mod model;
mod modes;
mod parallel;
mod replies;
mod running;
mod sending;
mod sets;
mod sink;
mod traces;
mod webhooks;
mod world;

pub(crate) use world::settings;
