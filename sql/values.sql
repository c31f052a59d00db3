CREATE FUNCTION pgseal.coerce(@extschema@.encrypted_jsonb, int4, boolean) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_coerce' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.coerce(@extschema@.encrypted_jsonb, int4, boolean)
    IS 'seal a literal under its column''s keyring; refuse a value of another keyring';
CREATE FUNCTION pgseal.coerce(@extschema@.encrypted_text, int4, boolean) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_coerce' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.coerce(@extschema@.encrypted_text, int4, boolean) IS 'seal a literal under its column''s keyring; refuse a value of another keyring';
CREATE FUNCTION pgseal.seal(jsonb, int4, boolean) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_seal_jsonb' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(jsonb, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(json, int4, boolean) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_seal_json' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(json, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(text, int4, boolean) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_seal_text' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(text, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(bpchar, int4, boolean) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_seal_bpchar' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(bpchar, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';

CREATE FUNCTION pgseal.encrypt(value jsonb, keyring text DEFAULT NULL, context text DEFAULT NULL) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_encrypt_jsonb' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.encrypt(jsonb, text, text)
    IS 'encrypt a document under a keyring, by default the session''s or the database''s; with a context only decrypt with the same context reads it';
CREATE FUNCTION pgseal.encrypt(value text, keyring text DEFAULT NULL, context text DEFAULT NULL) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_encrypt_text' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.encrypt(text, text, text)
    IS 'encrypt a text under a keyring, by default the session''s or the database''s; with a context only decrypt with the same context reads it';

-- COST 100, so that a LIMIT below decrypts only the rows it returns.
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_jsonb) IS 'the document; needs the decrypt privilege on its keyring';
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_text) IS 'the text; needs the decrypt privilege on its keyring';
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_jsonb, context text) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_jsonb, text) IS 'the document of a value that is bound to this context';
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_text, context text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_text, text) IS 'the text of a value that is bound to this context';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_jsonb, int4, boolean) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_plain_cast' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_jsonb, int4, boolean)
    IS 'internal: the cast to jsonb; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_plain' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_jsonb)
    IS 'internal: what the planner puts in place of a cast that is not written out, where the value goes to the client';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_text, int4, boolean) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_plain_cast' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_text, int4, boolean)
    IS 'internal: the cast to text; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_plain' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_text)
    IS 'internal: what the planner puts in place of a cast that is not written out, where the value goes to the client';
CREATE FUNCTION pgseal.plain_varchar(@extschema@.encrypted_text, int4, boolean) RETURNS varchar
    AS 'MODULE_PATHNAME', 'pgseal_plain_varchar' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain_varchar(@extschema@.encrypted_text, int4, boolean)
    IS 'internal: the cast to varchar; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.assigned(jsonb, @extschema@.encrypted_jsonb, int4) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_assigned' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.assigned(jsonb, @extschema@.encrypted_jsonb, int4)
    IS 'internal: what the planner makes of document[''key''] = value; seals the changed document under the keyring of its column, or of what it was';
CREATE FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_jsonb) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_decrypt_jsonb_as_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_jsonb) IS 'explicit cast to text types';
CREATE FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_jsonb) RETURNS name
    AS 'MODULE_PATHNAME', 'pgseal_decrypt_jsonb_as_name' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_jsonb) IS 'explicit cast to name';
CREATE FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_text) RETURNS name
    AS 'MODULE_PATHNAME', 'pgseal_decrypt_text_as_name' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_text) IS 'explicit cast to name';

CREATE FUNCTION pgseal.sealed_text(value @extschema@.encrypted_jsonb) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_sealed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_text(@extschema@.encrypted_jsonb) IS 'the ciphertext as text, as clients and dumps get it; needs no key';
CREATE FUNCTION pgseal.sealed_text(value @extschema@.encrypted_text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_sealed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_text(@extschema@.encrypted_text) IS 'the ciphertext as text, as clients and dumps get it; needs no key';
CREATE FUNCTION pgseal.key_version(value @extschema@.encrypted_jsonb) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.key_version(@extschema@.encrypted_jsonb) IS 'data key version of a value; needs no key';
CREATE FUNCTION pgseal.key_version(value @extschema@.encrypted_text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.key_version(@extschema@.encrypted_text) IS 'data key version of a value; needs no key';
CREATE FUNCTION pgseal.index_key_version(value @extschema@.encrypted_jsonb) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_index_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.index_key_version(@extschema@.encrypted_jsonb) IS 'index key version of a value, 0 if it has no tokens; needs no key';
CREATE FUNCTION pgseal.index_key_version(value @extschema@.encrypted_text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_index_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.index_key_version(@extschema@.encrypted_text) IS 'index key version of a value, 0 if it has no tokens; needs no key';
CREATE FUNCTION pgseal.keyring_id(value @extschema@.encrypted_jsonb) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_id' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.keyring_id(@extschema@.encrypted_jsonb) IS 'keyring of a value, as in pgseal.keyring.id; needs no key';
CREATE FUNCTION pgseal.keyring_id(value @extschema@.encrypted_text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_id' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.keyring_id(@extschema@.encrypted_text) IS 'keyring of a value, as in pgseal.keyring.id; needs no key';

-- The length coercion is VOLATILE: it runs with the statement and gives every row a nonce of its own.
CREATE CAST (@extschema@.encrypted_jsonb AS @extschema@.encrypted_jsonb) WITH FUNCTION pgseal.coerce(@extschema@.encrypted_jsonb, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_jsonb AS @extschema@.encrypted_jsonb) IS 'to a column''s keyring';
CREATE CAST (@extschema@.encrypted_text AS @extschema@.encrypted_text) WITH FUNCTION pgseal.coerce(@extschema@.encrypted_text, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_text AS @extschema@.encrypted_text) IS 'to a column''s keyring';
CREATE CAST (jsonb AS @extschema@.encrypted_jsonb) WITH FUNCTION pgseal.seal(jsonb, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (jsonb AS @extschema@.encrypted_jsonb) IS 'encrypts, on assignment';
CREATE CAST (json AS @extschema@.encrypted_jsonb) WITH FUNCTION pgseal.seal(json, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (json AS @extschema@.encrypted_jsonb) IS 'encrypts, on assignment';
CREATE CAST (text AS @extschema@.encrypted_text) WITH FUNCTION pgseal.seal(text, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (text AS @extschema@.encrypted_text) IS 'encrypts, on assignment';
CREATE CAST (varchar AS @extschema@.encrypted_text) WITH FUNCTION pgseal.seal(text, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (varchar AS @extschema@.encrypted_text) IS 'encrypts, on assignment';
CREATE CAST (bpchar AS @extschema@.encrypted_text) WITH FUNCTION pgseal.seal(bpchar, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (bpchar AS @extschema@.encrypted_text) IS 'encrypts, on assignment';

-- The casts to jsonb and text serve every expression of a client that reads plaintext; nothing is stored by them (src/pg/raw/plain.rs).
-- The others are explicit only: an entry of its own stops PostgreSQL's automatic assignment cast to string types. The one
-- to json has no function, because to_jsonb and row_to_json would use it and decrypt in audit triggers.
CREATE CAST (@extschema@.encrypted_jsonb AS jsonb) WITH FUNCTION pgseal.plain(@extschema@.encrypted_jsonb, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_jsonb AS jsonb) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
CREATE CAST (@extschema@.encrypted_jsonb AS json) WITH INOUT;
COMMENT ON CAST (@extschema@.encrypted_jsonb AS json) IS 'decrypts with pgseal.reveal on, explicit only';
CREATE CAST (@extschema@.encrypted_jsonb AS text) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_jsonb);
COMMENT ON CAST (@extschema@.encrypted_jsonb AS text) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_jsonb AS varchar) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_jsonb);
COMMENT ON CAST (@extschema@.encrypted_jsonb AS varchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_jsonb AS bpchar) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_jsonb);
COMMENT ON CAST (@extschema@.encrypted_jsonb AS bpchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_jsonb AS name) WITH FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_jsonb);
COMMENT ON CAST (@extschema@.encrypted_jsonb AS name) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_text AS text) WITH FUNCTION pgseal.plain(@extschema@.encrypted_text, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_text AS text) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
CREATE CAST (@extschema@.encrypted_text AS varchar) WITH FUNCTION pgseal.plain_varchar(@extschema@.encrypted_text, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_text AS varchar) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
CREATE CAST (@extschema@.encrypted_text AS bpchar) WITH FUNCTION pgseal.decrypt(@extschema@.encrypted_text);
COMMENT ON CAST (@extschema@.encrypted_text AS bpchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_text AS name) WITH FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_text);
COMMENT ON CAST (@extschema@.encrypted_text AS name) IS 'decrypts, explicit only';
