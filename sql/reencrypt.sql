CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_jsonb, index boolean DEFAULT true) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_jsonb, boolean)
    IS 'internal: the same document under the active keys of its keyring; with index false its tokens stay';
CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_text, index boolean DEFAULT true) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_text, boolean)
    IS 'internal: the same text under the active keys of its keyring; with index false its tokens stay';
CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_jsonb, index boolean, permit bytea) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_jsonb, boolean, bytea)
    IS 'internal: the same with the privileges of whoever calls pgseal.confined(), whose third parameter the permit is';
CREATE FUNCTION pgseal.reseal_problem(@extschema@.encrypted_jsonb, index boolean, permit bytea) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reseal_problem' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal_problem(@extschema@.encrypted_jsonb, boolean, bytea) IS 'internal: why a value cannot be encrypted anew, or NULL';
CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_text, index boolean, permit bytea) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_text, boolean, bytea)
    IS 'internal: the same with the privileges of whoever calls pgseal.confined(), whose third parameter the permit is';
CREATE FUNCTION pgseal.reseal_problem(@extschema@.encrypted_text, index boolean, permit bytea) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reseal_problem' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal_problem(@extschema@.encrypted_text, boolean, bytea) IS 'internal: why a value cannot be encrypted anew, or NULL';
CREATE FUNCTION pgseal.is_current(@extschema@.encrypted_jsonb, index boolean DEFAULT true) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_current' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.is_current(@extschema@.encrypted_jsonb, boolean)
    IS 'is the value sealed under the active data key and, unless index is false, index key? Needs no key';
CREATE FUNCTION pgseal.is_current(@extschema@.encrypted_text, index boolean DEFAULT true) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_current' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.is_current(@extschema@.encrypted_text, boolean)
    IS 'is the value sealed under the active data key and, unless index is false, index key? Needs no key';
CREATE FUNCTION pgseal.require_autocommit(command text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_require_autocommit' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.require_autocommit(text) IS 'internal: refuses to run inside a transaction block';

-- How many pages hold about so many rows.
CREATE FUNCTION pgseal.pages_of_rows(target_table regclass, number_of_rows float8) RETURNS int8
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows_of_page float8 := (SELECT c.reltuples / nullif(c.relpages, 0) FROM pg_class c WHERE c.oid = target_table AND c.reltuples >= 0);
BEGIN
    IF rows_of_page IS NULL THEN
        rows_of_page := pgseal.confined(format('SELECT count(*) / 8.0 FROM ONLY %s WHERE ctid < $1', target_table), '(8,0)'::tid, of_table => target_table);
    END IF;
    RETURN greatest(1, number_of_rows / greatest(1, rows_of_page))::int8;
END $$;
COMMENT ON FUNCTION pgseal.pages_of_rows(regclass, float8) IS 'internal: how many pages of a table hold about so many rows';

-- What procedures that commit work with: they keep their caller's search_path, and look no name or operator up in it.
CREATE FUNCTION pgseal.next_notice() RETURNS timestamptz
    LANGUAGE sql VOLATILE RETURN clock_timestamp() + interval '5 seconds';
COMMENT ON FUNCTION pgseal.next_notice() IS 'internal: when what goes on is to be told again';
CREATE FUNCTION pgseal.is_past(moment timestamptz) RETURNS boolean
    LANGUAGE sql VOLATILE RETURN moment <= clock_timestamp();
COMMENT ON FUNCTION pgseal.is_past(timestamptz) IS 'internal: has the moment come?';
CREATE FUNCTION pgseal.seconds_since(moment timestamptz) RETURNS numeric
    LANGUAGE sql VOLATILE RETURN round(extract(epoch FROM clock_timestamp() - moment), 1);
COMMENT ON FUNCTION pgseal.seconds_since(timestamptz) IS 'internal: how long ago a moment was';
CREATE FUNCTION pgseal.start_of_page(page int8) RETURNS tid
    LANGUAGE sql IMMUTABLE RETURN format('(%s,0)', page)::tid;
COMMENT ON FUNCTION pgseal.start_of_page(int8) IS 'internal: below all rows of a page, above those of the page before';
CREATE FUNCTION pgseal.tables_of(target_table regclass) RETURNS regclass[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT l.leaf FROM pgseal.leaves(target_table) l WHERE l.relkind = 'r')
$$;
COMMENT ON FUNCTION pgseal.tables_of(regclass) IS 'internal: the ordinary tables that store the rows of a table';
CREATE FUNCTION pgseal.other_sessions_on(target_table regclass) RETURNS int4[]
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT array_agg(DISTINCT l.pid) FROM pg_locks l WHERE l.relation = target_table AND l.pid <> pg_backend_pid();
END;
COMMENT ON FUNCTION pgseal.other_sessions_on(regclass) IS 'internal: sessions with a lock on a table';

-- Refuses what cannot be re-encrypted; is it to be done in place?
CREATE FUNCTION pgseal.check_reencrypt(target_table regclass, target_column name, batch_size int4, max_rate float8, index boolean, rotation text,
        pace text) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leaf regclass;
    problem text;
    is_ours boolean;
BEGIN
    PERFORM pgseal.encrypted_column(target_table, target_column), pgseal.require_rows_here(target_table),
        pgseal.require_owner(target_table, or_run_as_owner => true), pgseal.is_gentle(pace);
    IF (SELECT c.relkind NOT IN ('r', 'p') FROM pg_class c WHERE c.oid = target_table) THEN
        RAISE EXCEPTION '% is not a table', target_table
            USING ERRCODE = 'wrong_object_type', HINT = 'REFRESH a materialized view; re-encrypt the tables below a view.';
    END IF;
    IF rotation IS NULL OR rotation NOT IN ('in_place', 'update') THEN
        RAISE EXCEPTION 'rotation must be in_place or update' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF max_rate <= 0 OR max_rate = 'NaN' THEN
        RAISE EXCEPTION 'max_rate must be more than 0 rows a second' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF index IS NULL THEN
        RAISE EXCEPTION 'index must be true or false' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pgseal.refuse_row_comparisons(target_table) WHERE rotation = 'update';
    -- Before a run begins, which would be left as interrupted.
    IF rotation = 'in_place' THEN
        FOR leaf, problem, is_ours IN
            SELECT t.leaf, pgseal.in_place_problem(t.leaf, target_column), pg_has_role(c.relowner, 'USAGE')
              FROM unnest(pgseal.tables_of(target_table)) t (leaf) JOIN pg_class c ON c.oid = t.leaf
        LOOP
            IF NOT is_ours THEN
                RAISE EXCEPTION 'only its owner may rotate % in place', leaf
                    USING ERRCODE = 'insufficient_privilege', HINT = 'rotation => ''update'' writes new row versions.';
            ELSIF problem IS NOT NULL THEN
                RAISE EXCEPTION 'cannot rotate in place: %', problem
                    USING ERRCODE = 'feature_not_supported', HINT = 'rotation => ''update'' writes new row versions.';
            END IF;
        END LOOP;
    END IF;
    RETURN rotation = 'in_place';
END $$;
COMMENT ON FUNCTION pgseal.check_reencrypt(regclass, name, int4, float8, boolean, text, text)
    IS 'internal: refuses what cannot be re-encrypted; is it to be done in place?';

CREATE FUNCTION pgseal.rows_to_reencrypt(leaf regclass, target_column name, index boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    some_left boolean;
BEGIN
    some_left := pgseal.confined(format('SELECT EXISTS (SELECT FROM ONLY %1$s WHERE NOT pgseal.is_current(%2$I, %3$L)
        AND pgseal.reseal_problem(%2$I, %3$L, $3) IS NULL)', leaf, target_column, index), of_table => leaf);
    RETURN some_left;
END $$;
COMMENT ON FUNCTION pgseal.rows_to_reencrypt(regclass, name, boolean) IS 'internal: has the column a value that is not current and can be renewed?';

CREATE FUNCTION pgseal.report_unreadable(leaf regclass, target_column name, index boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    listed text[] := pgseal.confined(format('SELECT array_agg(format(%1$L, u.ctid, u.problem)) FROM (
        SELECT t.ctid, pgseal.reseal_problem(t.%3$I, %4$L, $3) AS problem FROM ONLY %2$s t WHERE NOT pgseal.is_current(t.%3$I, %4$L)) u
        WHERE u.problem IS NOT NULL', '%s: %s', leaf, target_column, index), of_table => leaf);
BEGIN
    IF cardinality(listed) > 0 THEN
        RAISE WARNING '% rows of % stay as they were, because column % cannot be encrypted anew: %', cardinality(listed), leaf,
            quote_ident(target_column), array_to_string(listed[:10], ', ') || CASE WHEN cardinality(listed) > 10 THEN ' ...' ELSE '' END
            USING HINT = 'All others are done. Restore, change or delete these rows, by their ctid; retire_key refuses as long as they are there.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.report_unreadable(regclass, name, boolean) IS 'internal: a warning of rows that reencrypt left out';

-- The procedures run with their caller's search_path, because they commit, and because the table's triggers expect it. So all
-- that they name, types and operators too, is qualified.
CREATE PROCEDURE pgseal.reencrypt(target_table regclass, target_column name, batch_size int4 DEFAULT NULL,
        max_rate float8 DEFAULT NULL, index boolean DEFAULT true, rotation text DEFAULT 'update', pace text DEFAULT 'gentle')
    LANGUAGE plpgsql AS $$
DECLARE
    leaf pg_catalog.regclass;
    leaves pg_catalog.regclass[];
    in_place boolean;
    total pg_catalog.int8 := 0;
    total_in_place pg_catalog.int8 := 0;
    started pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    due pg_catalog.timestamptz := started;
    report_due pg_catalog.timestamptz := pgseal.next_notice();
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.reencrypt');
    in_place := pgseal.check_reencrypt(target_table, target_column, batch_size, max_rate, index, rotation, pace);
    -- A row costs so much less in place that the commit would cost more.
    batch_size := coalesce(batch_size, CASE WHEN in_place THEN 20000 ELSE 1000 END);
    leaves := pgseal.tables_of(target_table);
    -- Where this is not the default, every update of another session would end the run with an error.
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH leaf IN ARRAY leaves LOOP
        CALL pgseal.reencrypt_leaf(leaf, target_column, batch_size, max_rate, index, in_place, pgseal.is_gentle(pace), total, total_in_place,
                                   due, report_due);
    END LOOP;
    -- Rows that are gone have left their codes in an index.
    FOREACH leaf IN ARRAY pgseal.sealed_indexes_of(leaves, target_column) LOOP
        CALL pgseal.reencrypt_index(leaf, pace);
    END LOOP;
    -- In place no token changes.
    PERFORM pgseal.report_searchable(target_table, target_column) WHERE NOT in_place OR total_in_place OPERATOR(pg_catalog.<) total;
    RAISE NOTICE '% rows of %.% re-encrypted in % s', total, target_table, pg_catalog.quote_ident(target_column), pgseal.seconds_since(started);
    IF in_place THEN
        RAISE NOTICE '% of them in place, % by UPDATE (out of line, other tokens, or in use)',
            total_in_place, total OPERATOR(pg_catalog.-) total_in_place;
    END IF;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt(regclass, name, int4, float8, boolean, text, text)
    IS 'encrypt the rows of a column anew under the active keys, in batches that are committed; at most max_rate rows a second; with index false '
        'tokens stay as they are; rotation in_place writes no new row versions where only the data key changes; pace gentle gives way to other '
        'sessions, full does not';

-- Passes over one table, until one finds no old value. Whoever has read old bytes may write them back: a pass that finds none
-- counts only if it began after their end.
CREATE PROCEDURE pgseal.reencrypt_leaf(leaf regclass, target_column name, batch_size int4, max_rate float8, index boolean, in_place boolean,
        gentle boolean, INOUT total int8, INOUT total_in_place int8, INOUT due timestamptz, INOUT report_due timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    step pg_catalog.int8 := pgseal.pages_of_rows(leaf, least(batch_size, pg_catalog.ceil(max_rate)));
    -- UPDATE locks the rows of its batch, and writes them to every index.
    most_by_update pg_catalog.int8 := CASE WHEN in_place THEN pgseal.pages_of_rows(leaf, least(batch_size, 1000, pg_catalog.ceil(max_rate))) ELSE step END;
    pages pg_catalog.int8 := 1;
    goal pg_catalog.text := pgseal.rotation_join(leaf, target_column, index, step);
    claim pg_catalog.record;
    has_waited boolean := false;
    by_update boolean := true;
    careful boolean := false;
    met_unreadable boolean := false;
    changed pg_catalog.int8;
    changed_in_place pg_catalog.int8;
    began pg_catalog.timestamptz;
    notice_due pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    COMMIT AND CHAIN;
    IF in_place THEN
        CALL pgseal.wait_for_old_transactions();
    END IF;
    LOOP
        claim := pgseal.rotation_claim(leaf, target_column, goal);
        EXIT WHEN claim.state OPERATOR(pg_catalog.=) 'finished';
        IF claim.state OPERATOR(pg_catalog.=) 'superseded' THEN
            has_waited := false;
            goal := pgseal.rotation_join(leaf, target_column, index, step);
            COMMIT AND CHAIN;
        ELSIF claim.state OPERATOR(pg_catalog.=) 'pass done' AND in_place AND NOT claim.nothing_done AND NOT has_waited THEN
            has_waited := true;
            COMMIT AND CHAIN;
            CALL pgseal.wait_for_old_transactions();
        ELSIF claim.state OPERATOR(pg_catalog.=) 'pass done' THEN
            has_waited := false;
            CALL pgseal.reencrypt_end_pass(leaf, target_column, index, claim.pass, claim.nothing_done, step);
        ELSE
            has_waited := false;
            began := pg_catalog.clock_timestamp();
            pages := least(CASE WHEN gentle THEN pages END, CASE WHEN by_update THEN most_by_update ELSE step END,
                           claim.end_page OPERATOR(pg_catalog.-) claim.next_page);
            CALL pgseal.reencrypt_batch(leaf, target_column, index, in_place, claim.first_page, claim.next_page,
                                        pages, by_update, careful, changed, changed_in_place, notice_due);
            met_unreadable := met_unreadable OR careful;
            total := total OPERATOR(pg_catalog.+) changed;
            total_in_place := total_in_place OPERATOR(pg_catalog.+) changed_in_place;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                PERFORM pgseal.report_rotation(leaf, target_column);
            END IF;
            due := greatest(due, began) OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => changed OPERATOR(pg_catalog./) max_rate);
            CALL pgseal.keep_pace(in_place, gentle, began, due, pages);
        END IF;
    END LOOP;
    IF met_unreadable THEN
        PERFORM pgseal.report_unreadable(leaf, target_column, index);
        COMMIT AND CHAIN;
    END IF;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_leaf(regclass, name, int4, float8, boolean, boolean, boolean, int8, int8, timestamptz, timestamptz)
    IS 'internal: re-encrypts what one table stores';

CREATE PROCEDURE pgseal.reencrypt_end_pass(leaf regclass, target_column name, index boolean, pass int4, nothing_done boolean, step int8)
    LANGUAGE plpgsql AS $$
DECLARE
    -- Rows that an UPDATE or a CLUSTER moves from before a pass to behind it escape it, but not one snapshot.
    rows_left boolean := nothing_done AND pgseal.rows_to_reencrypt(leaf, target_column, index);
    stays boolean := pgseal.rotation_end_pass(leaf, target_column, pass, step, rows_left);
BEGIN
    COMMIT AND CHAIN;
    IF NOT stays THEN
        RAISE EXCEPTION 'rows of % do not stay re-encrypted', leaf
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Does a trigger put the old value back?';
    END IF;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_end_pass(regclass, name, boolean, int4, boolean, int8)
    IS 'internal: finishes a run of reencrypt or begins another pass, and commits';

CREATE PROCEDURE pgseal.wait_for_old_transactions()
    LANGUAGE plpgsql AS $$
DECLARE
    transactions pg_catalog.text[] := pgseal.rotation_transactions();
    sessions pg_catalog.int4[];
    notice_due pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    LOOP
        sessions := pgseal.rotation_sessions(transactions);
        EXIT WHEN sessions IS NULL;
        IF pgseal.is_past(notice_due) THEN
            notice_due := pgseal.next_notice();
            RAISE NOTICE 'waiting for the end of transactions that may hold old values: sessions %', sessions;
        END IF;
        PERFORM pgseal.nap('older transactions', 0.02);
        COMMIT AND CHAIN;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.wait_for_old_transactions() IS 'internal: waits for all transactions of other sessions that run now';

-- Some pages of a range: in place where that is asked for, and what is left by UPDATE. They are claimed again where they could
-- not be done; careful then leaves out what cannot be read.
CREATE PROCEDURE pgseal.reencrypt_batch(leaf regclass, target_column name, index boolean, in_place boolean, first_page int8, next_page int8,
        INOUT pages int8, INOUT by_update boolean, INOUT careful boolean, INOUT changed int8, INOUT changed_in_place int8, INOUT notice_due timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    end_page CONSTANT pg_catalog.int8 := next_page OPERATOR(pg_catalog.+) pages;
    few_pages CONSTANT pg_catalog.bool := by_update;
    done pg_catalog.record;
    refused pg_catalog.text;
BEGIN
    changed := 0;
    changed_in_place := 0;
    IF in_place THEN
        BEGIN
            done := pgseal.rewrite_pages_of(leaf, target_column, next_page, end_page, index);
        EXCEPTION WHEN object_in_use THEN
            refused := SQLERRM;
        END;
        IF refused IS NOT NULL THEN
            CALL pgseal.wait_for_snapshots(refused, notice_due);
            RETURN;
        END IF;
        changed_in_place := done.rewritten;
        by_update := done.left_for_update OPERATOR(pg_catalog.>) 0 OR done.out_of_line OPERATOR(pg_catalog.>) 0 OR done.busy_page IS NOT NULL;
        IF done.busy_page IS NOT NULL AND pgseal.is_past(notice_due) THEN
            notice_due := pgseal.next_notice();
            RAISE NOTICE '%: page % is in use all the time, its rows go by UPDATE', leaf, done.busy_page
                USING HINT = pg_catalog.format('Sessions with a lock on the table: %s.', pgseal.other_sessions_on(leaf));
        END IF;
        IF by_update AND NOT few_pages THEN
            -- So many would be a long time by UPDATE.
            changed := changed_in_place;
            pages := 1;
            PERFORM pgseal.rotation_advance(leaf, target_column, first_page, next_page, changed);
            COMMIT AND CHAIN;
            RETURN;
        END IF;
    END IF;
    BEGIN
        changed := changed_in_place;
        IF by_update THEN
            changed := changed OPERATOR(pg_catalog.+) pgseal.confined(pgseal.reencrypting_update(leaf, target_column, index, careful),
                pgseal.start_of_page(next_page), pgseal.start_of_page(end_page), leaf)::pg_catalog.int8;
        END IF;
        PERFORM pgseal.rotation_advance(leaf, target_column, first_page, end_page, changed);
        careful := false;
    EXCEPTION WHEN deadlock_detected THEN
        -- The other transaction goes on; this batch is done again after it.
        changed := changed_in_place;
    WHEN data_exception OR program_limit_exceeded OR undefined_object OR object_not_in_prerequisite_state OR data_corrupted THEN
        IF careful THEN
            RAISE;
        END IF;
        -- Perhaps of one value.
        careful := true;
        changed := changed_in_place;
    END;
    COMMIT AND CHAIN;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_batch(regclass, name, boolean, boolean, int8, int8, int8, boolean, boolean, int8, int8, timestamptz)
    IS 'internal: re-encrypts some pages';

CREATE FUNCTION pgseal.reencrypting_update(leaf regclass, target_column name, index boolean, careful boolean) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN format('UPDATE ONLY %1$s SET %2$I = pgseal.reseal(%2$I, %3$L, $3)
              WHERE ctid OPERATOR(pg_catalog.>=) $1 AND ctid OPERATOR(pg_catalog.<) $2 AND NOT pgseal.is_current(%2$I, %3$L)',
            leaf, target_column, index)
        || CASE WHEN careful THEN format(' AND pgseal.reseal_problem(%I, %L, $3) IS NULL', target_column, index) ELSE '' END;
COMMENT ON FUNCTION pgseal.reencrypting_update(regclass, name, boolean, boolean)
    IS 'internal: the UPDATE of some pages; careful leaves out what cannot be read';

-- A key that is newer than what the run waited for: whoever has a snapshot from before it must not meet its bytes.
CREATE PROCEDURE pgseal.wait_for_snapshots(refused text, INOUT notice_due timestamptz)
    LANGUAGE plpgsql AS $$
BEGIN
    IF pgseal.is_past(notice_due) THEN
        notice_due := pgseal.next_notice();
        RAISE NOTICE 'waiting: %', refused;
    END IF;
    COMMIT AND CHAIN;
    PERFORM pgseal.nap('older snapshots', 0.02);
    COMMIT AND CHAIN;
END $$;
COMMENT ON PROCEDURE pgseal.wait_for_snapshots(text, timestamptz) IS 'internal: gives sessions with older snapshots a moment';

CREATE FUNCTION pgseal.is_gentle(pace text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pace IS NULL OR pace NOT IN ('gentle', 'full') THEN
        RAISE EXCEPTION 'pace must be gentle or full' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'gentle, the default, rests while other sessions work; full takes as much as it gets.';
    END IF;
    RETURN pace = 'gentle';
END $$;
COMMENT ON FUNCTION pgseal.is_gentle(text) IS 'internal: refuses what is no pace; is it gentle?';

CREATE FUNCTION pgseal.waited_for_processor() RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_waited_for_processor' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.waited_for_processor() IS 'internal: for how many seconds since its last nap the caller was ready and others ran';

-- Each slice of work is followed by a rest, which grows with the square of what others do to twenty times the slice: an idle
-- processor is used, and a run on a busy server ends in the end. HNSW inserts make a slice longer, hence the rest too; what
-- else does, a lock that was waited for, is no reason to rest for more than a second.
CREATE FUNCTION pgseal.rest_after(worked interval, INOUT pages int8, OUT seconds float8, OUT reason text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT float8 := 20;
    load float8;
    took float8 := greatest(extract(epoch FROM worked) - pgseal.waited_for_processor(), 0.0001);
BEGIN
    SELECT l.load, l.reason INTO load, reason FROM pgseal.rotation_load() l;
    seconds := least(took * most * least(1, 2 * load ^ 2), 1);
    -- A reader waits for a slice at worst; a longer one costs fewer commits.
    pages := greatest(1, pages * least(4, CASE WHEN load < 0.2 THEN 0.05 ELSE 0.005 END / took));
END $$;
COMMENT ON FUNCTION pgseal.rest_after(interval, int8) IS 'internal: how long to rest after some work on so many pages and why, and how many pages come next';

-- Not faster than standbys replay what is written in place, than others leave room for, and than is wanted. A snapshot that
-- sleeps would keep VACUUM from removing what it still sees.
CREATE PROCEDURE pgseal.keep_pace(in_place boolean, gentle boolean, began timestamptz, due timestamptz, INOUT pages int8)
    LANGUAGE plpgsql AS $$
DECLARE
    most_lag CONSTANT pg_catalog.int8 := 67108864;
    worked pg_catalog.interval := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) began;
    rest pg_catalog.record;
BEGIN
    WHILE in_place AND pgseal.rotation_lag() OPERATOR(pg_catalog.>) most_lag LOOP
        PERFORM pgseal.nap('replica lag', 0.05);
        COMMIT AND CHAIN;
    END LOOP;
    IF gentle THEN
        rest := pgseal.rest_after(worked, pages);
        pages := rest.pages;
        PERFORM pgseal.nap(rest.reason, rest.seconds);
        COMMIT AND CHAIN;
    END IF;
    WHILE NOT pgseal.is_past(due) LOOP
        PERFORM pgseal.nap('max_rate', least(1, extract(epoch FROM due OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp())));
        COMMIT AND CHAIN;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.keep_pace(boolean, boolean, timestamptz, timestamptz, int8)
    IS 'internal: waits for standbys, for others, and for the time that a batch is due';

-- What is already done does not fail for it: the role may not decrypt, or a value that was current cannot be read.
CREATE FUNCTION pgseal.report_searchable(target_table regclass, target_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgseal.encrypted_column(target_table, target_column) = pgseal.own_type('encrypted_jsonb') THEN
        PERFORM pgseal.check_searchable(target_table, target_column);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'how many values the searchable paths of % have was not looked at: %', target_table, SQLERRM;
END $$;
COMMENT ON FUNCTION pgseal.report_searchable(regclass, name) IS 'internal: check_searchable, where it can be done';
