-- Encrypts the metadata and the chunks of LlamaIndex's PGVectorStore, while applications use them.
--
--   psql -v table=data_notes -v keyring=patients -v searchable='{$.**}' -f llamaindex.sql
--
-- table is data_ and the table_name of the store. Afterwards applications connect with pgseal.reveal = on, as in
-- pgvector-compat/clients/llamaindex.py. A store with hybrid_search=True has a generated column of words, which is plaintext:
-- encrypt_column names it and stops. Declare $.ref_doc_id, by which LlamaIndex deletes a document's chunks, or $.**.
\set ON_ERROR_STOP on

-- Made with use_jsonb=False: this one rewrites the table under a lock.
SELECT pg_catalog.format('ALTER TABLE %s ALTER COLUMN metadata_ TYPE pg_catalog.jsonb', :'table'::pg_catalog.regclass) FROM pg_catalog.pg_attribute
 WHERE attrelid OPERATOR(pg_catalog.=) :'table'::pg_catalog.regclass AND attname OPERATOR(pg_catalog.=) 'metadata_'
   AND atttypid OPERATOR(pg_catalog.=) 'pg_catalog.json'::pg_catalog.regtype \gexec
-- Indexes of single fields; one of the whole document does their work afterwards.
SELECT pg_catalog.format('DROP INDEX CONCURRENTLY %s', i.indexrelid::pg_catalog.regclass) FROM pg_catalog.pg_index i
 WHERE i.indrelid OPERATOR(pg_catalog.=) :'table'::pg_catalog.regclass
   AND pg_catalog.pg_get_expr(i.indexprs, i.indrelid) OPERATOR(pg_catalog.~~) '%metadata_%' \gexec

\set column metadata_
\ir by_hand.sql
\set column text
\ir by_hand.sql
SELECT pg_catalog.format('CREATE INDEX CONCURRENTLY ON %s USING gin (metadata_)', :'table'::pg_catalog.regclass)
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
                       ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid AND a.attnum OPERATOR(pg_catalog.=) i.indkey[0]
                    WHERE i.indrelid OPERATOR(pg_catalog.=) :'table'::pg_catalog.regclass AND a.attname OPERATOR(pg_catalog.=) 'metadata_') \gexec
ANALYZE :table;
