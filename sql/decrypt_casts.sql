-- (document ->> 'age')::int and the like: as the cast from text, explicit only, and without the text in an error.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'bool', 'date', 'time', 'timestamp',
                                'timestamptz', 'interval', 'uuid', 'jsonb'] LOOP
        EXECUTE format('CREATE FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_text) RETURNS %1$s
            AS ''MODULE_PATHNAME'', ''pgseal_decrypt_as'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', name, '@extschema@');
        EXECUTE format('COMMENT ON FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_text) IS ''explicit cast to %1$s''', name, '@extschema@');
        EXECUTE format('CREATE CAST (%2$s.encrypted_text AS %1$s) WITH FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_text)', name, '@extschema@');
        EXECUTE format('COMMENT ON CAST (%2$s.encrypted_text AS %1$s) IS ''decrypts, explicit only''', name, '@extschema@');
    END LOOP;
END $$;

-- jsonb's own functions of these names, which some frameworks call: with pgseal in the search_path. In the schema of the types they
-- would make calls with nothing but literals ambiguous. Whole documents are looked at: they need decrypt.
CREATE FUNCTION pgseal.jsonb_exists(@extschema@.encrypted_jsonb, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists(pgseal.decrypt($1), $2);
CREATE FUNCTION pgseal.jsonb_exists_any(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_any(pgseal.decrypt($1), $2);
CREATE FUNCTION pgseal.jsonb_exists_all(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_all(pgseal.decrypt($1), $2);
CREATE FUNCTION pgseal.jsonb_path_exists(@extschema@.encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_exists(pgseal.decrypt($1), $2, $3, $4);
CREATE FUNCTION pgseal.jsonb_path_match(@extschema@.encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_match(pgseal.decrypt($1), $2, $3, $4);

COMMENT ON FUNCTION pgseal.jsonb_exists(@extschema@.encrypted_jsonb, text) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_exists_any(@extschema@.encrypted_jsonb, text[]) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_exists_all(@extschema@.encrypted_jsonb, text[]) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_path_exists(@extschema@.encrypted_jsonb, jsonpath, jsonb, boolean) IS 'as for jsonb; decrypts';
COMMENT ON FUNCTION pgseal.jsonb_path_match(@extschema@.encrypted_jsonb, jsonpath, jsonb, boolean) IS 'as for jsonb; decrypts';
