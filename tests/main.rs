//! The gateway against real HTTP: clients on one side, backends in this process on the other. One file for each group of
//! behaviours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

mod admin;
mod backend_errors;
mod backend_series;
mod backend_sessions;
mod bridge;
mod broken_answers;
mod bytes;
mod calls;
mod caps;
mod catalog;
mod catalog_kinds;
mod cli;
mod drift;
mod drain;
mod draining;
mod edge;
mod elicitation;
mod eras;
mod health;
mod http;
mod input;
mod legacy_sse;
mod limits;
mod listening;
mod log_levels;
mod logs;
mod messages;
mod methods;
mod misbehaviour;
mod plan;
mod questions;
mod readme;
mod reload;
mod replicas;
mod resume;
mod sessions;
mod status;
mod stdio;
mod stdio_reports;
mod streams;
mod synthetic;
mod taken_back;
mod tls;
mod traces;
mod updates;
mod upgrade;
mod webhook;
