-- As the library has it: current_setting would believe what a role said before the library was loaded.
CREATE FUNCTION pgseal.kms_endpoint() RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_kms_endpoint' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.kms_endpoint() IS 'internal: the setting pgseal.kms_endpoint';

CREATE FUNCTION pgseal.set_kms_token(token text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_set_kms_token' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION pgseal.kms_problem(keyring text) RETURNS text[]
    AS 'MODULE_PATHNAME', 'pgseal_kms_problem' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
CREATE FUNCTION pgseal.require_shared_keys() RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_require_shared_keys' LANGUAGE C VOLATILE PARALLEL RESTRICTED;

CREATE FUNCTION pgseal.check_kms(keyring text, OUT kms_endpoint text, OUT kms_key text, OUT works boolean,
        OUT milliseconds numeric, OUT problem text, OUT hint text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    started timestamptz := clock_timestamp();
    found text[] := pgseal.kms_problem(keyring);
BEGIN
    milliseconds := round(1000 * extract(epoch FROM clock_timestamp() - started), 1);
    SELECT coalesce(k.kms_endpoint, pgseal.kms_endpoint()), k.kms_key INTO kms_endpoint, kms_key
      FROM pgseal.keyring k WHERE k.name = keyring;
    works := cardinality(found) = 0;
    problem := found[1];
    hint := nullif(found[2], '');
END $$;

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

CREATE FUNCTION pgseal.bound_column(keyring_id int4) RETURNS text
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('column %I of %s is of type %s', a.attname, a.attrelid::regclass, format_type(a.atttypid, a.atttypmod))
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE a.atttypmod = keyring_id AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'f')
       AND a.atttypid IN (SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                           WHERE d.classid = 'pg_type'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal')
     LIMIT 1
$$;
COMMENT ON FUNCTION pgseal.bound_column(int4) IS 'internal: a column that is bound to a keyring, or NULL';

CREATE FUNCTION pgseal.drop_keyring(keyring text, force boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped record;
    bound text;
    place text;
    key_version int4;
BEGIN
    SELECT k.id, k.kms_key, coalesce(k.kms_endpoint, pgseal.kms_endpoint()) AS endpoint INTO dropped
      FROM pgseal.keyring k WHERE k.name = keyring FOR UPDATE;
    IF dropped IS NULL THEN
        RAISE EXCEPTION 'keyring "%" does not exist', keyring USING ERRCODE = 'undefined_object';
    END IF;
    IF NOT force THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'drop_keyring must see what other transactions commit while it waits'
                USING ERRCODE = 'active_sql_transaction', HINT = 'Run it in a transaction with isolation level READ COMMITTED.';
        END IF;
        bound := pgseal.bound_column(dropped.id);
        FOR key_version IN SELECT d.version FROM pgseal.data_key d WHERE d.keyring = dropped.id ORDER BY 1 LOOP
            PERFORM pgseal.refuse_registered(dropped.id, key_version);
            place := coalesce(place, CASE WHEN bound IS NULL THEN pgseal.settled_place(dropped.id, key_version, false)
                                          ELSE pgseal.find_key(dropped.id, key_version) END);
        END LOOP;
        -- Once more, because a table may have been committed while transactions were waited for.
        place := coalesce(place, bound, pgseal.bound_column(dropped.id));
        IF place IS NOT NULL THEN
            RAISE EXCEPTION 'keyring "%" is still in use: %', keyring, place
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Drop or re-encrypt what uses it first. drop_keyring(keyring, force => true) gives its values up: nothing reads them again.';
        END IF;
    END IF;
    DELETE FROM pgseal.privilege p WHERE p.keyring = dropped.id;
    DELETE FROM pgseal.data_key d WHERE d.keyring = dropped.id;
    DELETE FROM pgseal.index_key i WHERE i.keyring = dropped.id;
    DELETE FROM pgseal.keyring k WHERE k.id = dropped.id;
    RAISE NOTICE 'keyring "%" is gone from this database, but backups, WAL and replicas still hold its wrapped keys', keyring
        USING HINT = format('Only the KMS can make every copy unreadable: destroy the key "%s" at %s, if no other keyring uses it.',
                            dropped.kms_key, coalesce(dropped.endpoint, 'its KMS'));
END $$;

COMMENT ON FUNCTION pgseal.set_kms_token(text) IS 'a KMS token for this session alone, used instead of the server''s credentials; NULL, RESET ALL or DISCARD ALL takes it away';
COMMENT ON FUNCTION pgseal.kms_problem(text) IS 'internal: what is wrong with a keyring''s KMS and what to do; empty where it works';
COMMENT ON FUNCTION pgseal.check_kms(text) IS 'one row: does the KMS of a keyring unwrap its key, how fast, and what is wrong';
COMMENT ON FUNCTION pgseal.require_shared_keys() IS 'internal: an error unless pgseal is preloaded';
COMMENT ON FUNCTION pgseal.use_parallel_workers(boolean) IS 'let parallel workers decrypt (true) or only the leader (false); needs pgseal in shared_preload_libraries; returns how many functions changed';
COMMENT ON FUNCTION pgseal.drop_keyring(text, boolean) IS 'drop a keyring that nothing uses; with force its values are given up';
