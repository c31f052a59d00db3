-- (document ->> 'age')::int and the like: as the cast from text, explicit only, and without the text in an error.
DO $$
DECLARE
    target regtype;
BEGIN
    FOREACH target IN ARRAY ARRAY['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'bool', 'date', 'time', 'timestamp',
                                  'timestamptz', 'interval', 'uuid', 'jsonb']::regtype[] LOOP
        EXECUTE format('CREATE FUNCTION pgseal.%I(encrypted_text) RETURNS %s
            AS ''MODULE_PATHNAME'', ''pgseal_decrypt_as'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100',
            'decrypt_as_' || (SELECT typname FROM pg_catalog.pg_type WHERE oid = target), target);
        EXECUTE format('COMMENT ON FUNCTION pgseal.%I(encrypted_text) IS ''explicit cast to %s''',
            'decrypt_as_' || (SELECT typname FROM pg_catalog.pg_type WHERE oid = target), target);
        EXECUTE format('CREATE CAST (encrypted_text AS %s) WITH FUNCTION pgseal.%I(encrypted_text)', target,
            'decrypt_as_' || (SELECT typname FROM pg_catalog.pg_type WHERE oid = target));
        EXECUTE format('COMMENT ON CAST (encrypted_text AS %s) IS ''decrypts, explicit only''', target);
    END LOOP;
END $$;

-- jsonb's own functions of these names, which some frameworks call: with pgseal in the search_path. In the schema of the types they
-- would make calls with nothing but literals ambiguous. Whole documents are looked at: they need decrypt.
CREATE FUNCTION pgseal.jsonb_exists(encrypted_jsonb, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists(pgseal.decrypt($1), $2);
CREATE FUNCTION pgseal.jsonb_exists_any(encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_any(pgseal.decrypt($1), $2);
CREATE FUNCTION pgseal.jsonb_exists_all(encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_all(pgseal.decrypt($1), $2);
CREATE FUNCTION pgseal.jsonb_path_exists(encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_exists(pgseal.decrypt($1), $2, $3, $4);
CREATE FUNCTION pgseal.jsonb_path_match(encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_match(pgseal.decrypt($1), $2, $3, $4);

COMMENT ON FUNCTION pgseal.jsonb_exists(encrypted_jsonb, text) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_exists_any(encrypted_jsonb, text[]) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_exists_all(encrypted_jsonb, text[]) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_path_exists(encrypted_jsonb, jsonpath, jsonb, boolean) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_path_match(encrypted_jsonb, jsonpath, jsonb, boolean) IS 'as for jsonb; decrypts';
