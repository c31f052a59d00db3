-- Embeddings beside pgvector's. From here on pgvector's types are found in the schema that it is in; all else is named with its own.
DO $$
DECLARE
    schema name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector');
    missing text;
BEGIN
    -- A type of the same name that somebody else has made would be handed what is decrypted.
    SELECT w.name INTO missing FROM unnest(ARRAY['vector', 'halfvec']) w (name)
     WHERE NOT EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
                         JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
                         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'vector'
                        WHERE n.nspname = schema AND t.typname = w.name);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the extension vector has no type % in its schema %', missing, schema
            USING ERRCODE = 'undefined_object', HINT = 'pgvector 0.7 or newer is needed: ALTER EXTENSION vector UPDATE.';
    END IF;
    PERFORM set_config('search_path', format('pg_catalog, %I, pg_temp', schema), true);
END $$;

CREATE TYPE @extschema@.encrypted_vector;

CREATE FUNCTION pgseal.encrypted_vector_in(cstring, oid, int4) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_vector_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_vector_in(cstring, oid, int4) IS 'I/O';
-- STABLE, so that no cast through text is folded: it is refused where it runs.
CREATE FUNCTION pgseal.encrypted_vector_out(@extschema@.encrypted_vector) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_vector_out(@extschema@.encrypted_vector) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.encrypted_vector_recv(internal, oid, int4) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_vector_recv' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_vector_recv(internal, oid, int4) IS 'I/O; takes the binary form of vector and halfvec as well';
CREATE FUNCTION pgseal.encrypted_vector_send(@extschema@.encrypted_vector) RETURNS bytea
    AS 'MODULE_PATHNAME', 'pgseal_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_vector_send(@extschema@.encrypted_vector) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.vector_typmod_in(cstring[]) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_vector_typmod_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_typmod_in(cstring[]) IS 'I/O of type modifiers: a keyring''s name or number, and a number of dimensions';
CREATE FUNCTION pgseal.vector_typmod_out(int4) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_vector_typmod_out' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_typmod_out(int4) IS 'I/O of type modifiers';

-- In place of PostgreSQL's own refusal, which could not say what to write.
CREATE FUNCTION pgseal.vector_subscript(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_unsupported_vector' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.vector_subscript(internal) IS 'refuses a subscript';

-- STORAGE external, as the other types. ANALYZE would else decrypt, and keep the order of the plaintexts.
CREATE TYPE @extschema@.encrypted_vector (
    INPUT = pgseal.encrypted_vector_in, OUTPUT = pgseal.encrypted_vector_out,
    RECEIVE = pgseal.encrypted_vector_recv, SEND = pgseal.encrypted_vector_send,
    TYPMOD_IN = pgseal.vector_typmod_in, TYPMOD_OUT = pgseal.vector_typmod_out, ANALYZE = pgseal.typanalyze,
    SUBSCRIPT = pgseal.vector_subscript, STORAGE = external
);
COMMENT ON TYPE @extschema@.encrypted_vector
    IS 'an embedding, encrypted; encrypted_vector(keyring, dimensions) binds a column to a keyring and a number of dimensions';

CREATE FUNCTION pgseal.coerce(@extschema@.encrypted_vector, int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_coerce' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.coerce(@extschema@.encrypted_vector, int4, boolean)
    IS 'seal a literal under its column''s keyring; refuse a value of another keyring';
CREATE FUNCTION pgseal.seal(vector, int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_vector' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(vector, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(halfvec, int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_halfvec' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(halfvec, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(real[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(real[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(double precision[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(double precision[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(int4[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(int4[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(numeric[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(numeric[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';

CREATE FUNCTION pgseal.encrypt(value vector, keyring text DEFAULT NULL, context text DEFAULT NULL) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_encrypt_vector' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.encrypt(vector, text, text)
    IS 'encrypt an embedding under a keyring, by default the session''s or the database''s; with a context only decrypt with the same context reads it';
-- COST 100, so that a LIMIT below decrypts only the rows it returns.
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_vector) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_vector) IS 'the embedding; needs the decrypt privilege on its keyring';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_vector, int4, boolean) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_plain_cast' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_vector, int4, boolean)
    IS 'internal: the cast to vector; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_vector) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_plain' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_vector)
    IS 'internal: what the planner puts in place of a cast that is not written out, where the value goes to the client';
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_vector, context text) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_vector, text) IS 'the embedding of a value that is bound to this context';
-- Called by name: a dump restores functions before the casts that they would use.
CREATE FUNCTION pgseal.decrypt_as_array(@extschema@.encrypted_vector) RETURNS real[]
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN vector_to_float4(pgseal.decrypt($1), -1, true);
COMMENT ON FUNCTION pgseal.decrypt_as_array(@extschema@.encrypted_vector) IS 'explicit cast to real[]';
CREATE FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pgseal.decrypt($1)::text;
COMMENT ON FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector) IS 'explicit cast to text types';
CREATE FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_vector) RETURNS name
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pgseal.decrypt($1)::text::name;
COMMENT ON FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_vector) IS 'explicit cast to name';
CREATE FUNCTION pgseal.reveal(@extschema@.encrypted_vector) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_reveal' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.reveal(@extschema@.encrypted_vector) IS 'internal: what pgseal.reveal = on wraps returned columns in';

CREATE FUNCTION pgseal.sealed_text(value @extschema@.encrypted_vector) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_sealed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_text(@extschema@.encrypted_vector) IS 'the ciphertext as text, as clients and dumps get it; needs no key';
CREATE FUNCTION pgseal.key_version(value @extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.key_version(@extschema@.encrypted_vector) IS 'data key version of a value; needs no key';
CREATE FUNCTION pgseal.index_key_version(value @extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_index_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.index_key_version(@extschema@.encrypted_vector) IS '0: an embedding has no tokens; needs no key';
CREATE FUNCTION pgseal.keyring_id(value @extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_id' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.keyring_id(@extschema@.encrypted_vector) IS 'keyring of a value, as in pgseal.keyring.id; needs no key';

-- The length coercion is VOLATILE: it runs with the statement and gives every row a nonce of its own.
CREATE CAST (@extschema@.encrypted_vector AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.coerce(@extschema@.encrypted_vector, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_vector AS @extschema@.encrypted_vector) IS 'to a column''s keyring';
CREATE CAST (vector AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(vector, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (vector AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (halfvec AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(halfvec, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (halfvec AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (real[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(real[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (real[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (double precision[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(double precision[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (double precision[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (int4[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(int4[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (int4[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (numeric[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(numeric[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (numeric[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (@extschema@.encrypted_vector AS vector) WITH FUNCTION pgseal.plain(@extschema@.encrypted_vector, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_vector AS vector) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
-- Explicit only: an entry of its own stops PostgreSQL's automatic assignment cast to string types.
CREATE CAST (@extschema@.encrypted_vector AS real[]) WITH FUNCTION pgseal.decrypt_as_array(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS real[]) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS text) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS text) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS varchar) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS varchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS bpchar) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS bpchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS name) WITH FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS name) IS 'decrypts, explicit only';

-- What the planner puts around a column without keyring, for pgseal.keyring as it is when the statement runs.
CREATE FUNCTION pgseal.chosen(@extschema@.encrypted_vector) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_chosen' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED SUPPORT pgseal.chosen_support;
COMMENT ON FUNCTION pgseal.chosen(@extschema@.encrypted_vector) IS 'internal: the value, or NULL where pgseal.keyring names another keyring';
CREATE FUNCTION pgseal.each(@extschema@.encrypted_vector) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_each' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.each(@extschema@.encrypted_vector) IS 'internal: the value, where columns with and without keyring come together';
CREATE FUNCTION pgseal.answers(@extschema@.encrypted_vector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_answers' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.answers(@extschema@.encrypted_vector) IS 'internal: false where pgseal.keyring names another keyring than the value''s';

-- Distances open the value and compute in one pass. One more of them than there are dimensions gives an embedding away: they need
-- decrypt. Between two encrypted vectors there is none: PostgreSQL would take every literal and parameter for one, and ask for a keyring.
CREATE FUNCTION pgseal.l2_distance(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_l2_distance' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.l2_distance(@extschema@.encrypted_vector, vector) IS 'implementation of <-> operator';
CREATE FUNCTION pgseal.negative_inner_product(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_negative_inner_product' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.negative_inner_product(@extschema@.encrypted_vector, vector) IS 'implementation of <#> operator';
CREATE FUNCTION pgseal.cosine_distance(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_cosine_distance' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.cosine_distance(@extschema@.encrypted_vector, vector) IS 'implementation of <=> operator';
CREATE FUNCTION pgseal.l1_distance(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_l1_distance' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.l1_distance(@extschema@.encrypted_vector, vector) IS 'implementation of <+> operator';
CREATE OPERATOR @extschema@.<-> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.l2_distance);
COMMENT ON OPERATOR @extschema@.<-> (@extschema@.encrypted_vector, vector) IS 'Euclidean distance; decrypts';
CREATE OPERATOR @extschema@.<#> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.negative_inner_product);
COMMENT ON OPERATOR @extschema@.<#> (@extschema@.encrypted_vector, vector) IS 'negative inner product; decrypts';
CREATE OPERATOR @extschema@.<=> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.cosine_distance);
COMMENT ON OPERATOR @extschema@.<=> (@extschema@.encrypted_vector, vector) IS 'cosine distance; decrypts';
CREATE OPERATOR @extschema@.<+> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.l1_distance);
COMMENT ON OPERATOR @extschema@.<+> (@extschema@.encrypted_vector, vector) IS 'taxicab distance; decrypts';

-- pgvector's functions of these names, with pgseal in the search_path: in the schema of the types, calls with literals would be ambiguous.
CREATE FUNCTION pgseal.vector_dims(@extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_vector_dims' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_dims(@extschema@.encrypted_vector) IS 'number of dimensions; its length tells, no key is needed';
CREATE FUNCTION pgseal.vector_norm(@extschema@.encrypted_vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_vector_norm' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.vector_norm(@extschema@.encrypted_vector) IS 'Euclidean length; decrypts';
CREATE FUNCTION pgseal.l2_normalize(@extschema@.encrypted_vector) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_l2_normalize' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.l2_normalize(@extschema@.encrypted_vector) IS 'the embedding scaled to length 1, encrypted under the same keyring';

-- Without these, anynonarray || text would decrypt through the explicit cast. They refuse, unless the planner finds that the value goes
-- to the client.
CREATE FUNCTION pgseal.unsupported(text, @extschema@.encrypted_vector) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_unsupported_vector' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(text, @extschema@.encrypted_vector) IS 'refuses an operator that ciphertext cannot answer';
CREATE FUNCTION pgseal.unsupported(@extschema@.encrypted_vector, text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_unsupported_vector' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(@extschema@.encrypted_vector, text) IS 'refuses an operator that ciphertext cannot answer';
CREATE OPERATOR pg_catalog.|| (LEFTARG = text, RIGHTARG = @extschema@.encrypted_vector, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR pg_catalog.|| (text, @extschema@.encrypted_vector) IS 'refused: ciphertext cannot answer it';
CREATE OPERATOR pg_catalog.|| (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = text, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR pg_catalog.|| (@extschema@.encrypted_vector, text) IS 'refused: ciphertext cannot answer it';
-- PostgreSQL's own are written with $1::text, the explicit cast: dynamic SQL of audit triggers would store plaintext.
CREATE FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_vector) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.quote_literal(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_vector) IS 'the ciphertext as a literal';
CREATE FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_vector) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN pg_catalog.quote_nullable(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_vector) IS 'the ciphertext as a literal, or NULL';

CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_vector, index boolean DEFAULT true) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_vector, boolean) IS 'internal: the same embedding under the active data key of its keyring';
CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_vector, index boolean, permit bytea) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_vector, boolean, bytea)
    IS 'internal: the same with the privileges on keyrings of whoever has lent the permit';
CREATE FUNCTION pgseal.reseal_problem(@extschema@.encrypted_vector, index boolean, permit bytea) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reseal_problem' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal_problem(@extschema@.encrypted_vector, boolean, bytea) IS 'internal: why a value cannot be encrypted anew, or NULL';
CREATE FUNCTION pgseal.is_current(@extschema@.encrypted_vector, index boolean DEFAULT true) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_current' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.is_current(@extschema@.encrypted_vector, boolean) IS 'is the value sealed under the active data key? Needs no key';
CREATE FUNCTION pgseal.vector_values(leaf regclass, target_column text, page int8, item int4) RETURNS @extschema@.encrypted_vector[]
    AS 'MODULE_PATHNAME', 'pgseal_page_values' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.vector_values(regclass, text, int8, int4) IS 'internal: the values of a page of a table';
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_vector, context text, context_known boolean,
        OUT result text, OUT keyring_id int4, OUT key_version int4, OUT finding text)
    AS 'MODULE_PATHNAME', 'pgseal_check_vector' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_vector, text, boolean)
    IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';

SET LOCAL search_path = pg_catalog, pg_temp;

-- Whatever reads a type modifier as a keyring asks this: a vector column's has the low bits of the keyring's id, and its dimensions.
CREATE FUNCTION pgseal.keyring_of_vectors(typmod int4) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_of_typmod' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.keyring_of_vectors(int4) IS 'internal: the keyring that the type modifier of a vector column names, NULL where it is not known';
CREATE FUNCTION pgseal.keyring_of_typmod(type oid, typmod int4) RETURNS int4
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN typmod <= 0 THEN NULL WHEN type = '@extschema@.encrypted_vector'::regtype THEN pgseal.keyring_of_vectors(typmod) ELSE typmod END;
COMMENT ON FUNCTION pgseal.keyring_of_typmod(oid, int4)
    IS 'internal: the keyring that a column of an encrypted type is bound to, NULL where it is to none or one that is not known';

CREATE FUNCTION pgseal.kind_of_type(type oid) RETURNS name
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE type WHEN '@extschema@.encrypted_text'::regtype THEN 'text' WHEN '@extschema@.encrypted_vector'::regtype THEN 'vector' ELSE 'jsonb' END;
COMMENT ON FUNCTION pgseal.kind_of_type(oid) IS 'internal: what an encrypted type is made from, as functions for each of them are called';
CREATE FUNCTION pgseal.vector_type(base name) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT t.oid FROM pg_type t
              JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
              JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
             WHERE e.extname = 'vector' AND t.typname = base);
COMMENT ON FUNCTION pgseal.vector_type(name) IS 'internal: a type of the extension vector';
