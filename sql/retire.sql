-- What the sessions of this database run now: a statement may commit and go on. The start tells one statement from the next.
CREATE FUNCTION pgseal.running_statements() RETURNS TABLE (pid int4, statement text, hidden boolean)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.pid, concat_ws(' ', a.pid, a.backend_start, a.query_start), a.state IS NOT DISTINCT FROM 'disabled'
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.state NOT LIKE 'idle%'
       AND a.backend_type NOT IN ('autovacuum worker', 'parallel worker') AND a.backend_type NOT LIKE 'logical replication%'
       AND (a.backend_type <> 'walsender' OR a.query NOT LIKE 'START_REPLICATION%')
$$;
COMMENT ON FUNCTION pgseal.running_statements() IS 'internal: what other sessions of this database run now';

-- A procedure keeps its variables and loops when it commits. Refuses where the statement waits for this one, or does not show
-- when it ends.
CREATE FUNCTION pgseal.wait_for_statements() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before text[] := ARRAY(SELECT r.statement FROM pgseal.running_statements() r);
    sessions int4[];
    hidden boolean;
    stuck int4;
    notice_due timestamptz := clock_timestamp();
BEGIN
    LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT array_agg(r.pid), bool_or(r.hidden) INTO sessions, hidden
          FROM pgseal.running_statements() r WHERE r.statement = ANY (before);
        EXIT WHEN sessions IS NULL;
        IF hidden THEN
            RAISE EXCEPTION 'cannot see whether the statements of sessions % have ended', sessions
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set track_activities = on, or end these sessions.';
        END IF;
        stuck := (SELECT s.pid FROM unnest(sessions) s (pid)
                   WHERE pg_backend_pid() = ANY (pg_blocking_pids(s.pid)) OR s.pid IN (SELECT w.pid FROM pgseal.rotation_worker w) LIMIT 1);
        IF stuck IS NOT NULL THEN
            RAISE EXCEPTION 'session % waits, or may wait, for this transaction, which has to wait for its statement', stuck
                USING ERRCODE = 'object_in_use', HINT = 'Let it end first, pgseal.reencrypt for one.';
        END IF;
        IF notice_due <= clock_timestamp() THEN
            notice_due := pgseal.next_notice();
            RAISE NOTICE 'waiting for statements that may hold old values: sessions %', sessions;
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.wait_for_statements() IS 'internal: waits for every statement that runs now';

CREATE FUNCTION pgseal.wait_for_transactions() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_wait_for_transactions' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.wait_for_transactions() IS 'internal: waits for every transaction that runs now';
CREATE FUNCTION pgseal.exclude_writers(int4, int4) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_exclude_writers' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.exclude_writers(int4, int4) IS 'internal: waits for writers with a data key version and keeps others out';
CREATE FUNCTION pgseal.retire_alone() RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_retire_alone' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.retire_alone() IS 'internal: false while another session retires a key';

CREATE FUNCTION pgseal.refuse_prepared() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    prepared text := (SELECT gid FROM pg_prepared_xacts WHERE database = current_database() LIMIT 1);
BEGIN
    IF prepared IS NOT NULL THEN
        RAISE EXCEPTION 'the prepared transaction "%" may hold values of the key', prepared
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'COMMIT PREPARED or ROLLBACK PREPARED it first.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_prepared() IS 'internal: refuses while a transaction is prepared';

-- The first place that holds a value sealed under a data key version, or that cannot be looked at. Nobody's lock is waited for
-- for long.
CREATE FUNCTION pgseal.find_key(keyring_id int4, key_version int4, except_foreign boolean DEFAULT false) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '5s' AS $$
DECLARE
    place record;
    locked regclass;
BEGIN
    FOR place IN SELECT * FROM pgseal.value_columns() LOOP
        CONTINUE WHEN except_foreign AND place.blind = 'foreign table';
        IF place.blind IS NOT NULL THEN
            RETURN format('cannot look into %s %s', place.blind, place.relation);
        END IF;
        locked := place.relation;
        IF EXISTS (SELECT FROM pgseal.column_keys(place.relation, place.attname) c
                    WHERE c.keyring_id = find_key.keyring_id AND c.key_version = find_key.key_version) THEN
            RETURN format('column %I of %s', place.attname, place.relation);
        END IF;
    END LOOP;
    FOR place IN SELECT * FROM pgseal.sealed_indexes() s WHERE s.tag = keyring_id & 131071 LOOP
        IF place.blind IS NOT NULL THEN
            RETURN format('cannot look into the index of a %s %s', place.blind, place.index);
        END IF;
        locked := place.index;
        IF EXISTS (SELECT FROM pgseal.index_key_usage(place.index) u WHERE u.data_key = key_version) THEN
            RETURN format('index %s', place.index);
        END IF;
    END LOOP;
    locked := NULL;

    -- Literals that the parser sealed long ago.
    RETURN (SELECT d.object FROM pgseal.definitions() d WHERE pgseal.text_holds_key(d.definition, keyring_id, key_version) LIMIT 1);
EXCEPTION WHEN lock_not_available THEN
    RETURN format('cannot look into %s, which sessions %s have locked', coalesce(locked::text, 'views of tables'),
        ARRAY(SELECT DISTINCT l.pid FROM pg_locks l
               WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND l.relation = coalesce(locked, l.relation) AND l.pid <> pg_backend_pid()
                 AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())));
END $$;
COMMENT ON FUNCTION pgseal.find_key(int4, int4, boolean) IS 'internal: a place that holds a value of a data key version, or NULL';

-- Whatever may hold old values in memory and write them later has ended. Twice, because what started during the first wait may
-- have read values that were replaced since.
CREATE FUNCTION pgseal.settled_place(keyring_id int4, key_version int4, except_foreign boolean) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place text;
BEGIN
    FOR round IN 1..2 LOOP
        PERFORM pgseal.refuse_prepared();
        PERFORM pgseal.wait_for_transactions();
        PERFORM pgseal.wait_for_statements();
        place := pgseal.find_key(keyring_id, key_version, except_foreign);
        IF place IS NOT NULL THEN
            RETURN place;
        END IF;
    END LOOP;
    PERFORM pgseal.exclude_writers(keyring_id, key_version);
    PERFORM pgseal.refuse_prepared();
    RETURN pgseal.find_key(keyring_id, key_version, except_foreign);
END $$;
COMMENT ON FUNCTION pgseal.settled_place(int4, int4, boolean) IS 'internal: the same, once nothing can bring such a value back';

CREATE FUNCTION pgseal.retire(keyring text, version int4, except_foreign boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id int4 := pgseal.keyring_named(keyring);
    state text := (SELECT d.state FROM pgseal.data_key d WHERE d.keyring = id AND d.version = retire.version);
    place text;
BEGIN
    IF state IS NULL THEN
        RAISE EXCEPTION 'keyring "%" has no data key version %', keyring, version USING ERRCODE = 'undefined_object';
    END IF;
    IF state <> 'decrypt-only' THEN
        RAISE EXCEPTION 'data key version % of keyring "%" is %', version, keyring, state
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = CASE state WHEN 'active' THEN 'SELECT pgseal.rotate_key(...) makes a newer one active.' ELSE 'It is retired already.' END;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'retire_key must see what other transactions commit while it waits'
            USING ERRCODE = 'active_sql_transaction', HINT = 'Run it in a transaction with isolation level READ COMMITTED.';
    END IF;
    IF NOT pgseal.retire_alone() THEN
        RAISE EXCEPTION 'another retire_key is running' USING ERRCODE = 'object_in_use';
    END IF;

    PERFORM pgseal.refuse_registered(id, version);
    place := pgseal.settled_place(id, version, coalesce(except_foreign, false));
    IF place IS NOT NULL THEN
        RAISE EXCEPTION 'data key version % of keyring "%" is still in use: %', version, keyring, place
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'CALL pgseal.reencrypt(table, column) replaces it in a column; REFRESH a materialized view; '
                      'set a DEFAULT again; VACUUM FULL stores what rows from before a column was added lack. Rows of foreign tables are '
                      'elsewhere: look there, then SELECT pgseal.retire_key_except_foreign(...). A table that Citus distributes keeps its keys.';
    END IF;
    UPDATE pgseal.data_key d SET state = 'retired', retired = now() WHERE d.keyring = id AND d.version = retire.version;
END $$;
COMMENT ON FUNCTION pgseal.retire(text, int4, boolean) IS 'internal: retire_key and retire_key_except_foreign';

CREATE FUNCTION pgseal.retire_key(keyring text, version int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgseal.retire(keyring, version, false);
END $$;
COMMENT ON FUNCTION pgseal.retire_key(text, int4) IS 'refuse a data key version from now on, after making sure that no value needs it';

CREATE FUNCTION pgseal.retire_key_except_foreign(keyring text, version int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgseal.retire(keyring, version, true);
END $$;
COMMENT ON FUNCTION pgseal.retire_key_except_foreign(text, int4) IS 'the same without asking about foreign tables, whose rows are elsewhere';
