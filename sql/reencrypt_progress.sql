-- How far reencrypt is. A worker locks the row of a range of pages for each batch, and moves it on in the transaction of
-- the batch: workers share the ranges, and one that is killed leaves nothing behind.
CREATE TABLE pgseal.rotation (
    relation oid,
    attnum int2,
    with_index boolean NOT NULL,
    goal text NOT NULL,
    pass int4 NOT NULL DEFAULT 1,
    pass_again boolean NOT NULL DEFAULT false,
    rows_before int8 NOT NULL DEFAULT 0,
    rows_in_last_pass int8 NOT NULL DEFAULT 0,
    measured_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    pages_then int8 NOT NULL DEFAULT 0,
    rows_then int8 NOT NULL DEFAULT 0,
    pid int4 NOT NULL DEFAULT pg_backend_pid(),
    call_started timestamptz NOT NULL DEFAULT statement_timestamp(),
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished timestamptz,
    stuck boolean NOT NULL DEFAULT false,
    CONSTRAINT rotation_pkey PRIMARY KEY (relation, attnum)
);
COMMENT ON TABLE pgseal.rotation IS 'internal: runs of reencrypt; see the view rotation_progress';
COMMENT ON COLUMN pgseal.rotation.goal IS 'which key versions the run aims at, as a hash';

CREATE TABLE pgseal.rotation_range (
    relation oid,
    attnum int2,
    first_page int8,
    next_page int8 NOT NULL,
    end_page int8 NOT NULL,
    rows_done int8 NOT NULL DEFAULT 0,
    pid int4,
    call_started timestamptz,
    updated timestamptz,
    CONSTRAINT rotation_range_pkey PRIMARY KEY (relation, attnum, first_page)
) WITH (fillfactor = 50);
COMMENT ON TABLE pgseal.rotation_range IS 'internal: ranges of pages that workers of reencrypt share';

CREATE VIEW pgseal.rotation_worker AS
    SELECT DISTINCT w.relation, w.attnum, w.pid
      FROM (SELECT relation, attnum, pid, call_started FROM pgseal.rotation
            UNION ALL
            SELECT relation, attnum, pid, call_started FROM pgseal.rotation_range) w
      JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
     -- NULL where the reader may not see what the other session runs.
     WHERE (a.query_start = w.call_started AND a.state = 'active') IS NOT FALSE;
COMMENT ON VIEW pgseal.rotation_worker IS 'internal: sessions that run reencrypt now';

-- Whoever naps holds a lock that nobody wants and that stands for the reason: others see it in pg_locks, without a write.
CREATE FUNCTION pgseal.nap(reason text, seconds float8) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_nap' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.nap(text, float8) IS 'internal: sleeps, and says why in rotation_progress';
CREATE FUNCTION pgseal.reason_of_nap(lock_class int4, lock_number int4) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reason_of_nap' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.reason_of_nap(int4, int4) IS 'internal: why whoever holds this lock of pg_locks naps; NULL for another lock';

CREATE FUNCTION pgseal.rotation_waits(pids int4[]) RETURNS text
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT string_agg(DISTINCT w.reason, '; ')
      FROM pg_locks l
     CROSS JOIN LATERAL (SELECT CASE WHEN NOT l.granted THEN concat_ws(' of ', 'lock', nullif(array_to_string(pg_blocking_pids(l.pid), ', '), ''))
                                     WHEN l.locktype = 'advisory' AND l.classid = 0 THEN pgseal.reason_of_nap(l.objsubid, l.objid::int8::int4) END) w (reason)
     WHERE l.pid = ANY (pids);
END;
COMMENT ON FUNCTION pgseal.rotation_waits(int4[]) IS 'internal: what these sessions wait for';

CREATE VIEW pgseal.rotation_progress WITH (security_barrier) AS
    SELECT r.relation::regclass AS table_name, a.attname AS column_name,
           CASE WHEN r.stuck THEN 'stuck' WHEN r.finished IS NOT NULL THEN 'finished'
                WHEN w.pids IS NULL THEN 'interrupted' ELSE 'running' END AS state,
           r.pass, p.pages_done, p.pages, r.rows_before + p.rows_done AS rows_done,
           pg_catalog.round((r.rows_before + p.rows_done - r.rows_then) / s.seconds, 1) AS rows_per_second,
           CASE WHEN r.finished IS NULL THEN
               pg_catalog.make_interval(secs => ((p.pages - p.pages_done) * s.seconds / nullif(p.pages_done - r.pages_then, 0))::float8)
           END AS remaining,
           r.started, p.updated, r.finished, CASE WHEN r.finished IS NULL THEN w.pids END AS pids,
           CASE WHEN r.finished IS NULL THEN pgseal.rotation_waits(w.pids) END AS waits_for
      FROM pgseal.rotation r
      JOIN pg_catalog.pg_attribute a ON a.attrelid = r.relation AND a.attnum = r.attnum AND NOT a.attisdropped
     CROSS JOIN LATERAL (
           SELECT coalesce(pg_catalog.sum(g.end_page - g.first_page), 0)::int8 AS pages,
                  coalesce(pg_catalog.sum(g.next_page - g.first_page), 0)::int8 AS pages_done,
                  coalesce(pg_catalog.sum(g.rows_done), 0)::int8 AS rows_done,
                  coalesce(pg_catalog.max(g.updated), r.measured_since) AS updated
             FROM pgseal.rotation_range g WHERE g.relation = r.relation AND g.attnum = r.attnum) p
     CROSS JOIN LATERAL (SELECT nullif(greatest(extract(epoch FROM p.updated - r.measured_since), 0), 0) AS seconds) s
     CROSS JOIN LATERAL (SELECT pg_catalog.array_agg(w.pid) AS pids FROM pgseal.rotation_worker w
                          WHERE w.relation = r.relation AND w.attnum = r.attnum) w
     WHERE pg_catalog.has_any_column_privilege(r.relation, 'SELECT, UPDATE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW pgseal.rotation_progress IS 'how far reencrypt is with each table that the reader may select from';
COMMENT ON COLUMN pgseal.rotation_progress.state IS 'running, interrupted (call reencrypt again), finished, or stuck: rows do not stay re-encrypted';
COMMENT ON COLUMN pgseal.rotation_progress.pass IS 'passes over the table go on until one finds nothing to do';
COMMENT ON COLUMN pgseal.rotation_progress.pages_done IS 'pages done in this pass';
COMMENT ON COLUMN pgseal.rotation_progress.rows_done IS 'rows re-encrypted in all passes; rows that were current already are not among them';
COMMENT ON COLUMN pgseal.rotation_progress.rows_per_second IS 'since the pass began, or since a worker joined';
COMMENT ON COLUMN pgseal.rotation_progress.remaining IS 'of this pass, at the rate of its pages so far';
COMMENT ON COLUMN pgseal.rotation_progress.pids IS 'sessions that work on it';
COMMENT ON COLUMN pgseal.rotation_progress.waits_for
    IS 'what they wait for now: pace (others work), max_rate, replica lag, checkpoint, older transactions or snapshots, a page in use, a lock of sessions';

-- These run as the owner of the tables above; the role that counts is the one that called reencrypt.
CREATE FUNCTION pgseal.runs_for_an_owner() RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_runs_for_an_owner' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.runs_for_an_owner()
    IS 'internal: true below VACUUM, ANALYZE and the like, where a table''s owner has code run and whoever began it is somebody else';

CREATE FUNCTION pgseal.rotation_column(target_table regclass, target_column name) RETURNS int2
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    -- Its owner, as for VACUUM: with UPDATE alone nobody says that a table is done.
    IF pgseal.runs_for_an_owner() OR NOT has_column_privilege(caller, target_table, target_column, 'UPDATE')
       OR NOT pg_has_role(caller, (SELECT c.relowner FROM pg_class c WHERE c.oid = target_table), 'USAGE') THEN
        RAISE EXCEPTION 'permission denied for column "%" of %', target_column, target_table USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
END $$;
COMMENT ON FUNCTION pgseal.rotation_column(regclass, name) IS 'internal: a column of a table that the caller of reencrypt owns';

CREATE FUNCTION pgseal.rotation_start_pass(target oid, number int2, step int8) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pages int8 := pg_relation_size(target::regclass) / current_setting('block_size')::int8;
    size int8 := greatest(step, pages / 64 + 1);
BEGIN
    DELETE FROM pgseal.rotation_range r WHERE r.relation = target AND r.attnum = number;
    INSERT INTO pgseal.rotation_range (relation, attnum, first_page, next_page, end_page)
    SELECT target, number, page, page, least(page + size, pages) FROM generate_series(0, pages - 1, size) page;
END $$;
COMMENT ON FUNCTION pgseal.rotation_start_pass(oid, int2, int8) IS 'internal: divides a table into ranges of pages';

-- Joins the run of this column that is not finished, or starts one; returns what it aims at.
CREATE FUNCTION pgseal.rotation_join(target_table regclass, target_column name, with_index boolean, step int8) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := pgseal.rotation_column(target_table, target_column);
    only_keyring int4 := (SELECT pgseal.keyring_of_typmod(pgseal.encrypted_column(target_table, target_column), coalesce(nullif(a.atttypmod, -1), t.typtypmod))
                            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                           WHERE a.attrelid = target_table AND a.attnum = number);
    new_goal text := (SELECT hashtextextended(string_agg(concat_ws(':', k.id, d.version, CASE WHEN rotation_join.with_index THEN i.version END),
                                                         ',' ORDER BY k.id), 0)
                        FROM pgseal.keyring k
                        JOIN pgseal.data_key d ON d.keyring = k.id AND d.state = 'active'
                        JOIN pgseal.index_key i ON i.keyring = k.id AND i.state = 'active'
                       WHERE only_keyring IS NULL OR k.id = only_keyring);
    run pgseal.rotation;
BEGIN
    new_goal := concat(new_goal, CASE WHEN rotation_join.with_index THEN ' with index' END);
    -- Tables that are gone. Whoever holds such a row is not waited for.
    DELETE FROM pgseal.rotation r USING (
        SELECT g.relation, g.attnum FROM pgseal.rotation g
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.relation) FOR UPDATE SKIP LOCKED) gone
     WHERE r.relation = gone.relation AND r.attnum = gone.attnum;
    DELETE FROM pgseal.rotation_range r USING (
        SELECT g.relation, g.attnum, g.first_page FROM pgseal.rotation_range g
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.relation) FOR UPDATE SKIP LOCKED) gone
     WHERE r.relation = gone.relation AND r.attnum = gone.attnum AND r.first_page = gone.first_page;
    INSERT INTO pgseal.rotation (relation, attnum, with_index, goal, finished)
    VALUES (target_table, number, rotation_join.with_index, '', clock_timestamp()) ON CONFLICT DO NOTHING;
    SELECT * INTO run FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number FOR UPDATE;
    IF run.finished IS NULL AND run.with_index <> rotation_join.with_index
       AND EXISTS (SELECT FROM pgseal.rotation_worker w
                    WHERE w.relation = target_table AND w.attnum = number AND w.pid <> pg_backend_pid()) THEN
        RAISE EXCEPTION 'reencrypt of % with index => % is running', target_table, run.with_index USING ERRCODE = 'object_in_use';
    END IF;
    IF run.finished IS NOT NULL OR run.goal <> new_goal THEN
        DELETE FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number;
        INSERT INTO pgseal.rotation (relation, attnum, with_index, goal)
        VALUES (target_table, number, rotation_join.with_index, new_goal);
        PERFORM pgseal.rotation_start_pass(target_table, number, step);
        RETURN new_goal;
    END IF;
    -- Rows may have come back to pages that were done before an interruption: one more pass looks at them.
    UPDATE pgseal.rotation r
       SET pass_again = true, measured_since = clock_timestamp(), pid = pg_backend_pid(), call_started = statement_timestamp(),
           rows_then = r.rows_before + g.rows_done, pages_then = g.pages_done
      FROM (SELECT coalesce(sum(rows_done), 0) AS rows_done, coalesce(sum(next_page - first_page), 0) AS pages_done
              FROM pgseal.rotation_range WHERE relation = target_table AND attnum = number) g
     WHERE r.relation = target_table AND r.attnum = number;
    RETURN new_goal;
END $$;
COMMENT ON FUNCTION pgseal.rotation_join(regclass, name, boolean, int8) IS 'internal: starts or joins a run of reencrypt';

-- Locks a range that nobody works on until the end of the transaction; waits where all that are left are taken.
CREATE FUNCTION pgseal.rotation_claim(target_table regclass, target_column name, goal text,
        OUT state text, OUT pass int4, OUT first_page int8, OUT next_page int8, OUT end_page int8, OUT nothing_done boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := pgseal.rotation_column(target_table, target_column);
BEGIN
    SELECT CASE WHEN r.goal <> rotation_claim.goal THEN 'superseded' WHEN r.finished IS NOT NULL THEN 'finished' ELSE 'work' END, r.pass
      INTO state, pass FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number;
    WHILE state = 'work' LOOP
        SELECT r.first_page, r.next_page, r.end_page INTO first_page, next_page, end_page FROM pgseal.rotation_range r
         WHERE r.relation = target_table AND r.attnum = number AND r.next_page < r.end_page
         ORDER BY r.first_page LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
        PERFORM FROM pgseal.rotation_range r
          WHERE r.relation = target_table AND r.attnum = number AND r.next_page < r.end_page LIMIT 1 FOR UPDATE;
        IF NOT EXISTS (SELECT FROM pgseal.rotation_range r
                        WHERE r.relation = target_table AND r.attnum = number AND r.next_page < r.end_page) THEN
            state := 'pass done';
            nothing_done := (SELECT NOT r.pass_again FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number)
                AND NOT EXISTS (SELECT FROM pgseal.rotation_range r
                                 WHERE r.relation = target_table AND r.attnum = number AND r.rows_done > 0);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.rotation_claim(regclass, name, text) IS 'internal: a range of pages to work on';

CREATE FUNCTION pgseal.rotation_advance(target_table regclass, target_column name, first_page int8, next_page int8, rows_done int8) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := pgseal.rotation_column(target_table, target_column);
BEGIN
    UPDATE pgseal.rotation_range r
       SET next_page = rotation_advance.next_page, rows_done = r.rows_done + rotation_advance.rows_done,
           pid = pg_backend_pid(), call_started = statement_timestamp(), updated = clock_timestamp()
     WHERE r.relation = target_table AND r.attnum = number AND r.first_page = rotation_advance.first_page;
END $$;
COMMENT ON FUNCTION pgseal.rotation_advance(regclass, name, int8, int8, int8) IS 'internal: notes what a batch has done';

-- After a pass that changed nothing, with no row left, the run is finished, else another pass begins. False where rows do not
-- stay changed.
CREATE FUNCTION pgseal.rotation_end_pass(target_table regclass, target_column name, ended_pass int4, step int8, rows_left boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := pgseal.rotation_column(target_table, target_column);
    changed int8;
    run pgseal.rotation;
BEGIN
    SELECT * INTO run FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number FOR UPDATE;
    IF run.finished IS NOT NULL OR run.pass <> ended_pass
       OR EXISTS (SELECT FROM pgseal.rotation_range r
                   WHERE r.relation = target_table AND r.attnum = number AND r.next_page < r.end_page) THEN
        RETURN true;
    END IF;
    changed := (SELECT coalesce(sum(r.rows_done), 0) FROM pgseal.rotation_range r WHERE r.relation = target_table AND r.attnum = number);
    run.stuck := (changed > 0 OR rows_left) AND run.pass >= 5 AND changed >= run.rows_in_last_pass;
    IF run.stuck OR changed = 0 AND NOT run.pass_again AND NOT rows_left THEN
        UPDATE pgseal.rotation r SET finished = clock_timestamp(), stuck = run.stuck
         WHERE r.relation = target_table AND r.attnum = number;
        RETURN NOT run.stuck;
    END IF;
    UPDATE pgseal.rotation r
       SET pass = r.pass + 1, pass_again = false, rows_before = r.rows_before + changed, rows_in_last_pass = changed,
           measured_since = clock_timestamp(), pages_then = 0, rows_then = r.rows_before + changed
     WHERE r.relation = target_table AND r.attnum = number;
    PERFORM pgseal.rotation_start_pass(target_table, number, step);
    RETURN true;
END $$;
COMMENT ON FUNCTION pgseal.rotation_end_pass(regclass, name, int4, int8, boolean) IS 'internal: finishes a run of reencrypt or begins another pass';

-- Transactions of this database that run now, as pg_locks names them.
CREATE FUNCTION pgseal.rotation_transactions() RETURNS text[]
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(l.virtualtransaction), '{}') FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'virtualxid' AND a.datname = current_database() AND a.pid <> pg_backend_pid()
       AND a.backend_type NOT IN ('autovacuum worker', 'walsender')
$$;
COMMENT ON FUNCTION pgseal.rotation_transactions() IS 'internal: transactions of this database that run now';

-- Sessions whose transactions are among these and have not ended; NULL when none is left.
CREATE FUNCTION pgseal.rotation_sessions(transactions text[]) RETURNS int4[]
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT array_agg(l.pid) FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.virtualtransaction = ANY (transactions);
END;
COMMENT ON FUNCTION pgseal.rotation_sessions(text[]) IS 'internal: sessions whose transactions are among these and have not ended';

CREATE FUNCTION pgseal.report_rotation(leaf regclass, target_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    progress pgseal.rotation_progress;
BEGIN
    SELECT * INTO progress FROM pgseal.rotation_progress p WHERE p.table_name = leaf AND p.column_name = target_column;
    RAISE NOTICE '%: pass %, page % of %, % rows re-encrypted, % rows/s, % remaining', leaf, progress.pass,
        progress.pages_done, progress.pages, progress.rows_done, progress.rows_per_second,
        coalesce(date_trunc('second', progress.remaining)::text, 'unknown time');
END $$;
COMMENT ON FUNCTION pgseal.report_rotation(regclass, name) IS 'internal: a NOTICE that says how far reencrypt is';

-- WAL that a standby has not replayed yet, at most. In plpgsql, which keeps the plan, because every batch asks.
CREATE FUNCTION pgseal.rotation_lag() RETURNS int8
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    lag int8 := (SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn)), 0) FROM pg_stat_replication r
                  WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'));
BEGIN
    -- A standby tells how far it is when it receives something.
    IF lag > 0 THEN
        PERFORM pg_logical_emit_message(false, 'pgseal', '');
    END IF;
    RETURN lag;
END $$;
COMMENT ON FUNCTION pgseal.rotation_lag() IS 'internal: bytes of WAL that a standby has not replayed yet';

CREATE FUNCTION pgseal.processors() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_processors' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.processors() IS 'internal: how many processors the server may use';

CREATE FUNCTION pgseal.share_of_others() RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_share_of_others' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.share_of_others() IS 'internal: the share of all processors that other processes of the machine use';

-- 1 where as many other sessions work as there are processors, or where other processes use all of them: sessions with short
-- queries are mostly idle when one looks, or wait for a processor before they are active. What the caller writes is no less to
-- others than its time: where a standby is behind, or where it would bring a checkpoint before its time, that counts as much.
CREATE FUNCTION pgseal.rotation_load(OUT load float8, OUT reason text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    some_lag CONSTANT int8 := 16777216;
    written float8;
    elapsed float8;
BEGIN
    load := (SELECT count(*) FROM pg_stat_get_activity(NULL) a
              WHERE a.state = 'active' AND a.pid <> pg_backend_pid() AND coalesce(a.wait_event_type, 'LWLock') IN ('LWLock', 'IO'))::float8
        / pgseal.processors();
    load := greatest(load, pgseal.share_of_others());
    reason := 'pace';
    IF pgseal.rotation_lag() > some_lag THEN
        load := greatest(load, 1);
        reason := 'replica lag';
    ELSIF load BETWEEN 0.1 AND 1 THEN
        SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), c.redo_lsn) / pg_size_bytes(current_setting('max_wal_size'))
                   * (1 + current_setting('checkpoint_completion_target')::float8),
               extract(epoch FROM clock_timestamp() - c.checkpoint_time) / extract(epoch FROM current_setting('checkpoint_timeout')::interval)
          INTO written, elapsed FROM pg_control_checkpoint() c;
        IF written > greatest(0.5, elapsed) THEN
            load := 1;
            reason := 'checkpoint';
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.rotation_load() IS 'internal: how much others do, and what makes a rotation wait for them';
