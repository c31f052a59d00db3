CREATE FUNCTION pgseal.shared_keys_held() RETURNS int8
    AS 'MODULE_PATHNAME', 'pgseal_shared_keys_held' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.shared_keys_held() IS 'how many unwrapped keys all sessions share now; see the view stat';
CREATE FUNCTION pgseal.counter(name text) RETURNS int8
    AS 'MODULE_PATHNAME', 'pgseal_counter' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.counter(text) IS 'what this session has done; see the view stat';

CREATE VIEW pgseal.stat AS
    SELECT pgseal.counter('values_sealed') AS values_sealed,
           pgseal.counter('values_decrypted') AS values_decrypted,
           pgseal.counter('values_fetched') AS values_fetched,
           pgseal.counter('filters_made') AS filters_made,
           pgseal.counter('kms_calls') AS kms_calls,
           pgseal.counter('kms_failures') AS kms_failures,
           pgseal.counter('kms_microseconds') / 1000.0 AS kms_milliseconds,
           pgseal.counter('shared_key_hits') AS shared_key_hits,
           pgseal.shared_keys_held() AS shared_keys,
           pgseal.counter('index_lists') AS index_lists,
           pgseal.counter('index_rows_scored') AS index_rows_scored,
           pgseal.counter('index_rows_visited') AS index_rows_visited,
           pgseal.counter('values_decided') AS values_decided;
COMMENT ON VIEW pgseal.stat IS 'what this session has done since it began; for pg_monitor';
COMMENT ON COLUMN pgseal.stat.values_sealed IS 'values and parts of values encrypted';
COMMENT ON COLUMN pgseal.stat.values_decrypted IS 'values decrypted, for a recheck or to be shown';
COMMENT ON COLUMN pgseal.stat.values_fetched IS 'values that were stored out of line and read whole';
COMMENT ON COLUMN pgseal.stat.filters_made IS 'filters made from a query';
COMMENT ON COLUMN pgseal.stat.kms_calls IS 'calls of a KMS';
COMMENT ON COLUMN pgseal.stat.kms_failures IS 'calls of a KMS that failed';
COMMENT ON COLUMN pgseal.stat.kms_milliseconds IS 'time that calls of a KMS took';
COMMENT ON COLUMN pgseal.stat.shared_key_hits IS 'unwrapped keys taken from what all sessions share, instead of a call of a KMS';
COMMENT ON COLUMN pgseal.stat.shared_keys IS 'unwrapped keys that all sessions share now; NULL where pgseal is not in shared_preload_libraries';
COMMENT ON COLUMN pgseal.stat.index_lists IS 'lists of sealed indexes that scans have read';
COMMENT ON COLUMN pgseal.stat.index_rows_scored IS 'rows of sealed indexes that were scored by their codes';
COMMENT ON COLUMN pgseal.stat.index_rows_visited IS 'rows that scans of sealed indexes have looked at in the table';
COMMENT ON COLUMN pgseal.stat.values_decided IS 'values that a filter found by their tokens, without decrypting them';

-- As the library has it: current_setting would believe what a role said before the library was loaded.
CREATE FUNCTION pgseal.kms_endpoint() RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_kms_endpoint' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.kms_endpoint() IS 'internal: the setting pgseal.kms_endpoint';

CREATE FUNCTION pgseal.set_kms_token(token text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_set_kms_token' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.set_kms_token(text)
    IS 'a KMS token for this session alone, used instead of the server''s credentials; NULL, RESET ALL or DISCARD ALL takes it away';
CREATE FUNCTION pgseal.set_kms_token(token text, is_local boolean) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_set_kms_token_local' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.set_kms_token(text, boolean)
    IS 'the same, where is_local is true for this transaction alone: behind a pooler that gives each transaction another connection';
CREATE FUNCTION pgseal.kms_problem(keyring text, OUT problem text, OUT hint text)
    AS 'MODULE_PATHNAME', 'pgseal_kms_problem_record' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.kms_problem(text) IS 'internal: what is wrong with a keyring''s KMS and what to do; NULL where it works';

CREATE FUNCTION pgseal.check_kms(keyring text, OUT kms_endpoint text, OUT kms_key text, OUT works boolean,
        OUT milliseconds numeric, OUT problem text, OUT hint text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    SELECT p.problem, p.hint INTO problem, hint FROM pgseal.kms_problem(keyring) p;
    milliseconds := round(1000 * extract(epoch FROM clock_timestamp() - started), 1);
    SELECT coalesce(k.kms_endpoint, pgseal.kms_endpoint()), k.kms_key INTO kms_endpoint, kms_key
      FROM pgseal.keyring k WHERE k.name = keyring;
    works := problem IS NULL;
END $$;
COMMENT ON FUNCTION pgseal.check_kms(text) IS 'one row: does the KMS of a keyring unwrap its key, how fast, and what is wrong';

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
           -- Which of them the client gets, a worker cannot tell.
           AND p.proname NOT IN ('plain', 'plain_varchar')
           -- These are safe always.
           AND p.proname NOT IN ('typanalyze', 'unsupported', 'subscript', 'encrypted_jsonb_out', 'encrypted_text_out', 'encrypted_vector_out')
           AND p.proname NOT LIKE '%selectivity' AND p.proname NOT LIKE 'grantee\_%'
           AND (SELECT t.typname FROM pg_type t WHERE t.oid = p.prorettype) NOT IN ('internal', 'encrypted_jsonb', 'encrypted_text', 'encrypted_vector')
         ORDER BY 1
    LOOP
        EXECUTE format('ALTER FUNCTION %s PARALLEL %s', one, CASE WHEN wanted THEN 'SAFE' ELSE 'RESTRICTED' END);
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END $$;
COMMENT ON FUNCTION pgseal.use_parallel_workers(boolean)
    IS 'let parallel workers decrypt (true) or only the leader (false); needs pgseal in shared_preload_libraries; returns how many functions changed';
