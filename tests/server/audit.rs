//! What `pgseal.audit` finds.
