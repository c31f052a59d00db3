//! Tests on real servers: `make test` runs them, after it has installed what they need.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on stops

#[path = "../pgvector-compat/battery.rs"]
mod pgvector_battery;
#[path = "../pgvector-compat/clients.rs"]
mod pgvector_clients;
#[path = "../pgvector-compat/leakage.rs"]
mod pgvector_leakage;
#[path = "../pgvector-compat/plans.rs"]
mod pgvector_plans;
#[path = "../pgvector-compat/tokio_postgres.rs"]
mod pgvector_tokio_postgres;
mod server;
mod support;
