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
-- (document -> 'age')::int, as jsonb's own.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'bool'] LOOP
        EXECUTE format('CREATE FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_jsonb) RETURNS %1$s
            AS ''MODULE_PATHNAME'', ''pgseal_jsonb_as'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', name, '@extschema@');
        EXECUTE format('COMMENT ON FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_jsonb) IS ''explicit cast to %1$s''', name, '@extschema@');
        EXECUTE format('CREATE CAST (%2$s.encrypted_jsonb AS %1$s) WITH FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_jsonb)', name, '@extschema@');
        EXECUTE format('COMMENT ON CAST (%2$s.encrypted_jsonb AS %1$s) IS ''decrypts, explicit only''', name, '@extschema@');
    END LOOP;
END $$;
