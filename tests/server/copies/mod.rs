//! Backups, replicas, updates and the runbooks.

mod backup;
mod incremental;
mod replication;
mod restore;
mod runbooks;
mod upgrade;
mod upgrade_pg;
