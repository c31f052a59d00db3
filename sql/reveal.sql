-- With pgseal.reveal = on, encrypted columns that a statement returns are wrapped in these. COST 100, as decrypt.
CREATE FUNCTION pgseal.reveal(@extschema@.encrypted_jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_reveal' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.reveal(@extschema@.encrypted_jsonb) IS 'internal: what pgseal.reveal = on wraps returned columns in';
CREATE FUNCTION pgseal.reveal(@extschema@.encrypted_text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reveal' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.reveal(@extschema@.encrypted_text) IS 'internal: what pgseal.reveal = on wraps returned columns in';
