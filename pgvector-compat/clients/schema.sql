-- What a superuser runs once, instead of letting the framework make its tables.
CREATE EXTENSION pgseal CASCADE;
SELECT pgseal.create_keyring('clients', searchable => ARRAY['$.**', '$']);

CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar NOT NULL UNIQUE, cmetadata json);
CREATE TABLE langchain_pg_embedding (
    id varchar PRIMARY KEY, collection_id uuid REFERENCES langchain_pg_collection ON DELETE CASCADE,
    embedding vector(3), document encrypted_text(clients), cmetadata encrypted_jsonb(clients)
);
CREATE INDEX ON langchain_pg_embedding USING gin (cmetadata);

CREATE TABLE data_notes (
    id bigserial PRIMARY KEY, text encrypted_text(clients) NOT NULL, metadata_ encrypted_jsonb(clients), node_id varchar, embedding vector(3)
);
CREATE INDEX ON data_notes USING gin (metadata_);

CREATE TABLE docs (id int PRIMARY KEY, embedding vector(3), body encrypted_text(clients), metadata encrypted_jsonb(clients));
CREATE INDEX ON docs USING gin (metadata);
