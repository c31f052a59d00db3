-- Encrypts the metadata and the chunks of LangChain's PGVector (langchain-postgres), while applications use them.
--
--   psql -v keyring=patients -v searchable='{$.**}' -f langchain.sql
--
-- The tables are LangChain's own, in a schema of the search_path. Afterwards applications connect with pgseal.reveal = on, as in
-- pgvector-compat/clients/langchain.py. The metadata of whole collections (langchain_pg_collection, type json) stays as it is.
\set ON_ERROR_STOP on
\set table langchain_pg_embedding

\set column cmetadata
\ir by_hand.sql
\set column document
\ir by_hand.sql
