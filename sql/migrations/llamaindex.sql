-- Encrypts the metadata and the chunks of LlamaIndex's PGVectorStore, while applications use them.
--
--   psql -v table=data_notes -v keyring=patients -v searchable='{$.**}' -f llamaindex.sql
--
-- table is data_ and the table_name of the store. Afterwards applications connect with pgseal.reveal = on, as in
-- pgvector-compat/clients/llamaindex.py. A store with hybrid_search=True has a generated column of words, which is plaintext:
-- encrypt_column names it and stops. Declare $.ref_doc_id, by which LlamaIndex deletes a document's chunks, or $.**.
\set ON_ERROR_STOP on

-- Made with use_jsonb=False: this one rewrites the table under a lock.
SELECT format('ALTER TABLE %s ALTER COLUMN metadata_ TYPE jsonb', :'table'::regclass) FROM pg_attribute
 WHERE attrelid = :'table'::regclass AND attname = 'metadata_' AND atttypid = 'json'::regtype \gexec
-- Indexes of single fields; one of the whole document does their work afterwards.
SELECT format('DROP INDEX CONCURRENTLY %s', i.indexrelid::regclass) FROM pg_index i
 WHERE i.indrelid = :'table'::regclass AND pg_get_expr(i.indexprs, i.indrelid) LIKE '%metadata_%' \gexec

\set column metadata_
\ir by_hand.sql
\set column text
\ir by_hand.sql
SELECT format('CREATE INDEX CONCURRENTLY ON %s USING gin (metadata_)', :'table'::regclass)
 WHERE NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = :'table'::regclass AND a.attname = 'metadata_') \gexec
ANALYZE :table;
