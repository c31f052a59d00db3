CREATE FUNCTION pgseal.shared_keys_held() RETURNS int8
    AS 'MODULE_PATHNAME', 'pgseal_shared_keys_held' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.shared_keys_held() IS 'how many unwrapped keys all sessions share now; see the view stat';
CREATE FUNCTION pgseal.require_shared_keys() RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_require_shared_keys' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.require_shared_keys() IS 'internal: an error unless pgseal is preloaded';

-- The functions that only read: those that seal what they return stay with the leader, which holds the writers' locks.
CREATE FUNCTION pgseal.use_parallel_workers(wanted boolean DEFAULT true) RETURNS int4
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one regprocedure;
    changed int4 := 0;
BEGIN
    IF wanted THEN
        PERFORM pgseal.require_shared_keys();
    END IF;
    FOR one IN
        SELECT p.oid FROM pg_proc p
          JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
         WHERE p.provolatile = 's' AND p.proparallel = CASE WHEN wanted THEN 'r' ELSE 's' END
           AND p.proname NOT IN ('field', 'element', 'path', 'field_text', 'element_text', 'path_text', 'concat', 'delete', 'delete_path')
           -- These are safe always.
           AND p.proname NOT IN ('typanalyze', 'unsupported', 'refuse', 'encrypted_jsonb_out', 'encrypted_text_out')
           AND p.proname NOT LIKE '%selectivity' AND p.proname NOT LIKE 'grantee\_%'
           AND (SELECT t.typname FROM pg_type t WHERE t.oid = p.prorettype) NOT IN ('internal', 'encrypted_jsonb', 'encrypted_text')
         ORDER BY 1
    LOOP
        EXECUTE format('ALTER FUNCTION %s PARALLEL %s', one, CASE WHEN wanted THEN 'SAFE' ELSE 'RESTRICTED' END);
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END $$;
COMMENT ON FUNCTION pgseal.use_parallel_workers(boolean) IS 'let parallel workers decrypt (true) or only the leader (false); needs pgseal in shared_preload_libraries; returns how many functions changed';
