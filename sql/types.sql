CREATE TYPE @extschema@.encrypted_jsonb;
CREATE TYPE @extschema@.encrypted_text;
CREATE TYPE @extschema@.encrypted_filter;

CREATE FUNCTION pgseal.encrypted_jsonb_in(cstring, oid, int4) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_jsonb_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_jsonb_in(cstring, oid, int4) IS 'I/O';
-- STABLE, so that no cast through text is folded: it is refused where it runs.
CREATE FUNCTION pgseal.encrypted_jsonb_out(@extschema@.encrypted_jsonb) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_jsonb_out(@extschema@.encrypted_jsonb) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.encrypted_jsonb_recv(internal, oid, int4) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_jsonb_recv' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_jsonb_recv(internal, oid, int4) IS 'I/O';
CREATE FUNCTION pgseal.encrypted_jsonb_send(@extschema@.encrypted_jsonb) RETURNS bytea
    AS 'MODULE_PATHNAME', 'pgseal_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_jsonb_send(@extschema@.encrypted_jsonb) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.encrypted_text_in(cstring, oid, int4) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_text_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_text_in(cstring, oid, int4) IS 'I/O';
CREATE FUNCTION pgseal.encrypted_text_out(@extschema@.encrypted_text) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_text_out(@extschema@.encrypted_text) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.encrypted_text_recv(internal, oid, int4) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_text_recv' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_text_recv(internal, oid, int4) IS 'I/O';
CREATE FUNCTION pgseal.encrypted_text_send(@extschema@.encrypted_text) RETURNS bytea
    AS 'MODULE_PATHNAME', 'pgseal_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_text_send(@extschema@.encrypted_text) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.typmod_in(cstring[]) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_typmod_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.typmod_in(cstring[]) IS 'I/O of type modifiers: a keyring''s name or number';
CREATE FUNCTION pgseal.typmod_out(int4) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_typmod_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.typmod_out(int4) IS 'I/O of type modifiers';
CREATE FUNCTION pgseal.encrypted_filter_in(cstring) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_filter_in(cstring) IS 'I/O, refused';
CREATE FUNCTION pgseal.encrypted_filter_out(@extschema@.encrypted_filter) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_filter_out' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_filter_out(@extschema@.encrypted_filter) IS 'I/O, shows neither plaintext nor token';

CREATE FUNCTION pgseal.typanalyze(internal) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_typanalyze' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.typanalyze(internal) IS 'ANALYZE: how common each token and marker is, from bytes alone';

CREATE FUNCTION pgseal.subscript(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_subscript' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.subscript(internal) IS 'implementation of subscripts, as jsonb''s, through the cast to jsonb';

-- STORAGE external: ciphertext does not compress, and a header can be read without the rest.
CREATE TYPE @extschema@.encrypted_jsonb (
    INPUT = pgseal.encrypted_jsonb_in, OUTPUT = pgseal.encrypted_jsonb_out,
    RECEIVE = pgseal.encrypted_jsonb_recv, SEND = pgseal.encrypted_jsonb_send,
    TYPMOD_IN = pgseal.typmod_in, TYPMOD_OUT = pgseal.typmod_out, ANALYZE = pgseal.typanalyze,
    SUBSCRIPT = pgseal.subscript, STORAGE = external
);
COMMENT ON TYPE @extschema@.encrypted_jsonb IS 'a JSON document, encrypted; encrypted_jsonb(keyring) binds a column to a keyring';

-- A string type, so that PostgreSQL takes text for the common type of both.
CREATE TYPE @extschema@.encrypted_text (
    INPUT = pgseal.encrypted_text_in, OUTPUT = pgseal.encrypted_text_out,
    RECEIVE = pgseal.encrypted_text_recv, SEND = pgseal.encrypted_text_send,
    TYPMOD_IN = pgseal.typmod_in, TYPMOD_OUT = pgseal.typmod_out, ANALYZE = pgseal.typanalyze, STORAGE = external, CATEGORY = 'S'
);
COMMENT ON TYPE @extschema@.encrypted_text IS 'a text, encrypted; encrypted_text(keyring) binds a column to a keyring';
CREATE TYPE @extschema@.encrypted_filter (
    INPUT = pgseal.encrypted_filter_in, OUTPUT = pgseal.encrypted_filter_out, STORAGE = extended
);
COMMENT ON TYPE @extschema@.encrypted_filter IS 'a condition on encrypted values, made by pgseal.filter; not for storage';
