-- Encrypts one jsonb, text or varchar column of a table that is in use, and builds its index anew. It can be stopped and run again.
--
--   psql -v table=docs -v column=metadata -v keyring=patients -v searchable='{$.patient_name,$.diagnosis}' -f by_hand.sql
--
-- searchable counts only where the keyring is made here. Roles other than yours need encrypt, search and decrypt on the keyring:
-- a NOTICE names those that use the column and lack it. Other NOTICEs say where the old plaintext is left. Names and operators
-- are qualified, because the path may hold some of others; the table is looked for in it.
\set ON_ERROR_STOP on
\if :{?searchable}
\else
  \set searchable '{}'
\endif

CREATE EXTENSION IF NOT EXISTS pgseal CASCADE;
SELECT NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.name OPERATOR(pg_catalog.=) :'keyring') AS new_keyring \gset
\if :new_keyring
  SELECT pgseal.create_keyring(:'keyring', :'searchable');
\endif

CALL pgseal.encrypt_column(:'table', :'column', :'keyring');

-- It stops before the swap where an index is to be built, which PostgreSQL does concurrently in a statement of its own only.
SELECT pgseal.migration_started(:'table', :'column') AS unfinished \gset
\if :unfinished
  SELECT pgseal.migration_commands(:'table', :'column') \gexec
  CALL pgseal.encrypt_column(:'table', :'column', :'keyring');
\endif
ANALYZE :table;
