//! What `pgseal.evidence` records.
