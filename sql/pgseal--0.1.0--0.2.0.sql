-- From 0.1.0 to 0.2.0.

DROP FUNCTION pgseal.value_columns();
DROP FUNCTION pgseal.rotation_end_pass(regclass, name, int4, int8);
DROP FUNCTION pgseal.head_of(encrypted_jsonb);
DROP FUNCTION pgseal.head_of(encrypted_text);
CREATE OR REPLACE FUNCTION pgseal.revoke_keyring(keyring text, role text, privileges text[] DEFAULT ARRAY['encrypt', 'search', 'decrypt']) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grantee oid := CASE lower(role) WHEN 'public' THEN 0 ELSE quote_ident(role)::regrole::oid END;
    id int4 := (SELECT k.id FROM pgseal.keyring k WHERE k.name = keyring);
    unknown text := (SELECT p FROM unnest(privileges) p WHERE p IS NULL OR p NOT IN ('encrypt', 'search', 'decrypt') LIMIT 1);
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION 'keyring "%" does not exist', keyring USING ERRCODE = 'undefined_object';
    END IF;
    -- What is misspelt would stay granted.
    IF unknown IS NOT NULL OR privileges IS NULL OR array_position(privileges, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'unknown privilege "%"', unknown
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The privileges are encrypt, search and decrypt.';
    END IF;
    DELETE FROM pgseal.privilege p WHERE p.role <> 0 AND p.role NOT IN (SELECT r.oid FROM pg_roles r);
    UPDATE pgseal.privilege p
       SET encrypt = p.encrypt AND NOT 'encrypt' = ANY (privileges),
           search = p.search AND NOT 'search' = ANY (privileges),
           decrypt = p.decrypt AND NOT 'decrypt' = ANY (privileges)
     WHERE p.keyring = id AND p.role = grantee;
END $$;

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

CREATE OR REPLACE FUNCTION pgseal.rotation_lag() RETURNS int8
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

CREATE OR REPLACE FUNCTION pgseal.in_place_problem(target_table regclass, target_column name) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT p.problem FROM (
        SELECT format('%s is not an ordinary table', c.oid::regclass) FROM pg_class c LEFT JOIN pg_am m ON m.oid = c.relam
         WHERE c.oid = target_table AND (c.relkind <> 'r' OR c.relpersistence = 't' OR m.amname <> 'heap')
        UNION ALL
        SELECT format('index %s stores the column or something made from it', i.indexrelid::regclass)
          FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = target_column
         WHERE i.indrelid = target_table
           AND (a.attnum = ANY (i.indkey::int2[]) AND m.amname <> 'gin'
                OR (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
                   -- A whole row leaves no dependency on its columns.
                   AND (pg_get_indexdef(i.indexrelid) LIKE '%.*%'
                        OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                                      AND d.refclassid = 'pg_class'::regclass AND d.refobjid = target_table AND d.refobjsubid = a.attnum)))
        UNION ALL
        SELECT format('column %I of %s is generated', g.attname, target_table) FROM pg_attribute g
         WHERE g.attrelid = target_table AND g.attgenerated <> '' AND NOT g.attisdropped
        UNION ALL
        SELECT format('constraint %I of %s looks at the column', o.conname, target_table)
          FROM pg_constraint o JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attname = target_column
         WHERE o.conrelid = target_table AND o.contype IN ('c', 'x') AND (o.conkey && ARRAY[0, a.attnum]::int2[] OR o.conkey IS NULL)
        UNION ALL
        SELECT format('%s is partitioned by an expression', k.partrelid::regclass)
          FROM pg_partition_ancestors(target_table) f JOIN pg_partitioned_table k ON k.partrelid = f.relid
         WHERE k.partexprs IS NOT NULL
    ) p (problem) LIMIT 1);
END $$;

CREATE FUNCTION pgseal.value_columns() RETURNS TABLE (relation regclass, attname name, scalar text, typmod int4, blind text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE base (oid) AS (
        SELECT t.oid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_type t ON t.oid = d.objid
         WHERE d.classid = 'pg_type'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
           AND e.extname = 'pgseal' AND t.typname IN ('encrypted_jsonb', 'encrypted_text')
    ), carrier (oid, scalar) AS (
        SELECT base.oid, base.oid::regtype::text FROM base
        UNION
        SELECT t.oid, CASE WHEN t.typbasetype = c.oid THEN c.scalar END
          FROM carrier c JOIN pg_type t
            ON t.typbasetype = c.oid OR t.typelem = c.oid
            OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = c.oid AND NOT a.attisdropped))
            OR EXISTS (SELECT FROM pg_range r WHERE r.rngtypid = t.oid AND r.rngsubtype = c.oid)
    ) SELECT r.oid::regclass, a.attname, k.scalar, a.atttypmod,
             CASE WHEN r.relkind = 'f' THEN 'foreign table'
                  WHEN r.relpersistence = 't' AND r.relnamespace <> pg_my_temp_schema() THEN 'temporary table of another session' END
        FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN carrier k ON k.oid = a.atttypid
       WHERE r.relkind IN ('r', 'm', 'f') AND r.relispopulated AND a.attnum > 0 AND NOT a.attisdropped
       ORDER BY 1, 2
$$;

CREATE OR REPLACE FUNCTION pgseal.definitions() RETURNS TABLE (object text, definition text, class oid, id oid, whole boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT d.* FROM (
        SELECT format('DEFAULT of column %I of %s', a.attname, a.attrelid::regclass), pg_get_expr(d.adbin, d.adrelid),
               'pg_attrdef'::regclass::oid, d.oid, true
          FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        UNION ALL
        SELECT format('rows of %s from before column %I was added', attrelid::regclass, attname), attmissingval::text,
               'pg_class'::regclass, attrelid, false FROM pg_attribute WHERE atthasmissing
        UNION ALL
        SELECT format('%s %s', CASE WHEN rulename = '_RETURN' THEN 'view' ELSE format('rule %I of', rulename) END, ev_class::regclass),
               pg_get_ruledef(oid), 'pg_rewrite'::regclass, oid, false FROM pg_rewrite
        UNION ALL
        SELECT format('constraint %I of %s', conname, CASE WHEN conrelid <> 0 THEN conrelid::regclass::text ELSE contypid::regtype::text END),
               pg_get_constraintdef(oid), 'pg_constraint'::regclass, oid, true FROM pg_constraint WHERE contype = 'c'
        UNION ALL
        SELECT format('policy %I of %s', polname, polrelid::regclass),
               concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), 'pg_policy'::regclass, oid, false
          FROM pg_policy
        UNION ALL
        SELECT format('trigger %I of %s', tgname, tgrelid::regclass), pg_get_triggerdef(oid), 'pg_trigger'::regclass, oid, false
          FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT format('index %s', indexrelid::regclass), concat_ws(' ', pg_get_expr(indpred, indrelid), pg_get_expr(indexprs, indrelid)),
               'pg_class'::regclass, indexrelid, true FROM pg_index WHERE indpred IS NOT NULL OR indexprs IS NOT NULL
        UNION ALL
        SELECT format('statistics %I', stxname), pg_get_statisticsobjdef(oid), 'pg_statistic_ext'::regclass, oid, false
          FROM pg_statistic_ext WHERE stxexprs IS NOT NULL
        UNION ALL
        SELECT format('partition key of %s', partrelid::regclass), pg_get_partkeydef(partrelid), 'pg_class'::regclass, partrelid, false
          FROM pg_partitioned_table
        UNION ALL
        SELECT format('domain %s', oid::regtype), typdefault, 'pg_type'::regclass, oid, true FROM pg_type WHERE typdefault IS NOT NULL
        UNION ALL
        SELECT format('function %s', oid::regprocedure), concat_ws(' ', prosrc, pg_get_function_sqlbody(oid), pg_get_function_arguments(oid)),
               'pg_proc'::regclass, oid, false FROM pg_proc
    ) d (object, definition, class, id, whole)
    WHERE id >= 16384
$$;

CREATE FUNCTION pgseal.column_keys(target_table regclass, target_column text) RETURNS text[]
    AS 'MODULE_PATHNAME', 'pgseal_column_keys' LANGUAGE C STABLE STRICT PARALLEL UNSAFE;

CREATE OR REPLACE PROCEDURE pgseal.reencrypt(target_table regclass, target_column name, batch_size int4 DEFAULT NULL,
        max_rate float8 DEFAULT NULL, index boolean DEFAULT true, rotation text DEFAULT 'update')
    LANGUAGE plpgsql AS $$
DECLARE
    leaf regclass;
    leaves regclass[];
    goal text;
    claim record;
    progress record;
    step int8;
    step_by_update int8;
    by_update boolean;
    rows_left boolean;
    changed int8;
    total int8 := 0;
    started timestamptz := pg_catalog.clock_timestamp();
    reported timestamptz := started;
    due timestamptz := started;
    statement text;
    done int8[];
    in_place int8 := 0;
    noticed timestamptz := '-infinity';
    page_noticed timestamptz := '-infinity';
    waited_for text[];
    waited_after int4;
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.reencrypt');
    PERFORM pgseal.encrypted_column(target_table, target_column);
    IF (SELECT c.relkind NOT IN ('r', 'p') FROM pg_catalog.pg_class c WHERE c.oid = target_table) THEN
        RAISE EXCEPTION '% is not a table', target_table
            USING ERRCODE = 'wrong_object_type', HINT = 'REFRESH a materialized view; re-encrypt the tables below a view.';
    END IF;
    IF rotation IS NULL OR rotation NOT IN ('in_place', 'update') THEN
        RAISE EXCEPTION 'rotation must be in_place or update' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A row costs so much less in place that the commit would cost more.
    batch_size := coalesce(batch_size, CASE rotation WHEN 'in_place' THEN 20000 ELSE 1000 END);
    IF batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF max_rate <= 0 OR max_rate = 'NaN' THEN
        RAISE EXCEPTION 'max_rate must be more than 0 rows a second' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF index IS NULL THEN
        RAISE EXCEPTION 'index must be true or false' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    leaves := ARRAY(SELECT l.leaf FROM pgseal.leaves(target_table) l WHERE l.relkind = 'r');
    -- Where this is not the default, every update of another session would end the run with an error.
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH leaf IN ARRAY leaves LOOP
        statement := pg_catalog.format(
            'UPDATE ONLY %1$s SET %2$I = pgseal.reseal(%2$I, %3$L) WHERE ctid >= $1 AND ctid < $2 AND NOT pgseal.is_current(%2$I, %3$L)',
            leaf, target_column, index);
        step := pgseal.pages_of_rows(leaf, least(batch_size, pg_catalog.ceil(max_rate)));
        -- UPDATE locks the rows of its batch, and writes them to every index.
        step_by_update := CASE rotation WHEN 'update' THEN step ELSE pgseal.pages_of_rows(leaf, least(batch_size, 1000, pg_catalog.ceil(max_rate))) END;
        by_update := true;
        goal := pgseal.rotation_join(leaf, target_column, index, step);
        COMMIT AND CHAIN;
        waited_for := CASE rotation WHEN 'in_place' THEN pgseal.rotation_transactions() END;
        LOOP
            -- Whoever has read old bytes may write them back: a pass that finds none counts only if it began after their end.
            WHILE EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'virtualxid' AND l.virtualtransaction = ANY (waited_for)) LOOP
                IF pg_catalog.clock_timestamp() > noticed + interval '5 seconds' THEN
                    noticed := pg_catalog.clock_timestamp();
                    RAISE NOTICE 'waiting for the end of transactions that may hold old values: sessions %',
                        (SELECT pg_catalog.array_agg(l.pid) FROM pg_catalog.pg_locks l
                          WHERE l.locktype = 'virtualxid' AND l.virtualtransaction = ANY (waited_for));
                END IF;
                PERFORM pg_catalog.pg_sleep(0.02);
                COMMIT AND CHAIN;
            END LOOP;
            waited_for := NULL;
            claim := pgseal.rotation_claim(leaf, target_column, goal);
            EXIT WHEN claim.state = 'finished';
            IF claim.state = 'superseded' THEN
                waited_after := NULL;
                goal := pgseal.rotation_join(leaf, target_column, index, step);
                COMMIT AND CHAIN;
                CONTINUE;
            END IF;
            IF claim.state = 'pass done' AND rotation = 'in_place' AND NOT claim.nothing_done AND waited_after IS NULL THEN
                waited_after := claim.pass;
                waited_for := pgseal.rotation_transactions();
                COMMIT AND CHAIN;
                CONTINUE;
            END IF;
            IF claim.state = 'pass done' THEN
                rows_left := false;
                IF claim.nothing_done THEN
                    -- Rows that an UPDATE or a CLUSTER moves from before a pass to behind it escape it, but not one snapshot.
                    EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM ONLY %1$s WHERE NOT pgseal.is_current(%2$I, %3$L))', leaf, target_column, index)
                    INTO rows_left;
                END IF;
                IF NOT pgseal.rotation_end_pass(leaf, target_column, claim.pass, step, rows_left) THEN
                    COMMIT AND CHAIN;
                    RAISE EXCEPTION 'rows of % do not stay re-encrypted', leaf
                        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Does a trigger put the old value back?';
                END IF;
                COMMIT AND CHAIN;
                waited_after := NULL;
                CONTINUE;
            END IF;
            claim.end_page := least(claim.next_page + CASE WHEN by_update THEN step_by_update ELSE step END, claim.end_page);
            due := greatest(due, pg_catalog.clock_timestamp());
            waited_after := NULL;
            done := ARRAY[0, 1, 0];
            IF rotation = 'in_place' THEN
                done := pgseal.rewrite_pages_of(leaf, target_column, claim.next_page, claim.end_page, index);
                in_place := in_place + done[1];
                IF done[4] IS NOT NULL AND pg_catalog.clock_timestamp() > page_noticed + interval '5 seconds' THEN
                    page_noticed := pg_catalog.clock_timestamp();
                    RAISE NOTICE '%: page % is in use all the time, its rows go by UPDATE', leaf, done[4]
                        USING HINT = pg_catalog.format('Sessions with a lock on the table: %s.',
                            (SELECT pg_catalog.array_agg(DISTINCT l.pid) FROM pg_catalog.pg_locks l
                              WHERE l.relation = leaf AND l.pid <> pg_catalog.pg_backend_pid()));
                END IF;
            END IF;
            by_update := done[2] + done[3] > 0 OR done[4] IS NOT NULL;
            BEGIN
                changed := 0;
                IF by_update THEN
                    EXECUTE statement USING pg_catalog.format('(%s,0)', claim.next_page)::tid, pg_catalog.format('(%s,0)', claim.end_page)::tid;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                END IF;
                changed := changed + done[1];
                PERFORM pgseal.rotation_advance(leaf, target_column, claim.first_page, claim.end_page, changed);
            EXCEPTION WHEN deadlock_detected THEN
                -- The other transaction goes on; this batch is done again after it.
                changed := 0;
            END;
            COMMIT AND CHAIN;
            total := total + changed;
            IF pg_catalog.clock_timestamp() - reported > interval '5 seconds' THEN
                reported := pg_catalog.clock_timestamp();
                SELECT * INTO progress FROM pgseal.rotation_progress p WHERE p.table_name = leaf AND p.column_name = target_column;
                RAISE NOTICE '%: pass %, page % of %, % rows re-encrypted, % rows/s, % remaining', leaf, progress.pass,
                    progress.pages_done, progress.pages, progress.rows_done, progress.rows_per_second,
                    coalesce(pg_catalog.date_trunc('second', progress.remaining)::text, 'unknown time');
            END IF;
            WHILE rotation = 'in_place' AND pgseal.rotation_lag() > 64 << 20 LOOP
                PERFORM pg_catalog.pg_sleep(0.05);
                COMMIT AND CHAIN;
            END LOOP;
            due := due + changed / max_rate * interval '1 second';
            WHILE due > pg_catalog.clock_timestamp() LOOP
                PERFORM pg_catalog.pg_sleep(least(1, extract(epoch FROM due - pg_catalog.clock_timestamp())));
                -- A snapshot that sleeps would keep VACUUM from removing what it still sees.
                COMMIT AND CHAIN;
            END LOOP;
        END LOOP;
    END LOOP;
    -- What is already done does not fail for it: the role may not decrypt, or a value that was current cannot be read.
    -- In place no token changes.
    IF (rotation = 'update' OR in_place < total)
        AND pgseal.encrypted_column(target_table, target_column)::regtype::text LIKE '%encrypted_jsonb' THEN
        BEGIN
            PERFORM pgseal.check_searchable(target_table, target_column);
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'how many values the searchable paths of % have was not looked at: %', target_table, SQLERRM;
        END;
    END IF;
    RAISE NOTICE '% rows of %.% re-encrypted in % s', total, target_table, pg_catalog.quote_ident(target_column),
        pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - started)::numeric, 1);
    IF rotation = 'in_place' THEN
        RAISE NOTICE '% of them in place, % by UPDATE (out of line, other tokens, or in use)', in_place, total - in_place;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgseal.find_key(keyring_id int4, key_version int4) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    place record;
BEGIN
    FOR place IN SELECT * FROM pgseal.value_columns() LOOP
        IF place.blind IS NOT NULL THEN
            RETURN format('cannot look into %s %s', place.blind, place.relation);
        END IF;
        IF EXISTS (SELECT FROM unnest(pgseal.column_keys(place.relation, place.attname)) found (line)
                    WHERE starts_with(line, format('%s %s ', keyring_id, key_version))) THEN
            RETURN format('column %I of %s', place.attname, place.relation);
        END IF;
    END LOOP;

    -- Literals that the parser sealed long ago.
    RETURN (SELECT d.object FROM pgseal.definitions() d WHERE pgseal.text_holds_key(d.definition, keyring_id, key_version) LIMIT 1);
END $$;

CREATE OR REPLACE FUNCTION pgseal.drop_keyring(keyring text, force boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped record;
    bound text;
    place text;
    key_version int4;
BEGIN
    SELECT k.id, k.kms_key, coalesce(k.kms_endpoint, current_setting('pgseal.kms_endpoint', true)) AS endpoint INTO dropped
      FROM pgseal.keyring k WHERE k.name = keyring FOR UPDATE;
    IF dropped IS NULL THEN
        RAISE EXCEPTION 'keyring "%" does not exist', keyring USING ERRCODE = 'undefined_object';
    END IF;
    IF NOT force THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'drop_keyring must see what other transactions commit while it waits'
                USING ERRCODE = 'active_sql_transaction', HINT = 'Run it in a transaction with isolation level READ COMMITTED.';
        END IF;
        SELECT format('column %I of %s is of type %s', a.attname, a.attrelid::regclass, format_type(a.atttypid, a.atttypmod)) INTO bound
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE a.atttypmod = dropped.id AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'f')
           AND a.atttypid IN (SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                               WHERE d.classid = 'pg_type'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal')
         LIMIT 1;
        PERFORM pgseal.refuse_prepared();
        FOR key_version IN SELECT d.version FROM pgseal.data_key d WHERE d.keyring = dropped.id ORDER BY 1 LOOP
            PERFORM pgseal.refuse_registered(dropped.id, key_version);
            PERFORM pgseal.exclude_writers(dropped.id, key_version);
            place := coalesce(place, pgseal.find_key(dropped.id, key_version));
        END LOOP;
        place := coalesce(place, bound);
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

CREATE OR REPLACE FUNCTION pgseal.migration_obstacles(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    own_trigger name := '~' || new_column;
    relation pg_class;
    number int2;
BEGIN
    SELECT * INTO relation FROM pg_class c WHERE c.oid = target_table;
    IF relation.relkind NOT IN ('r', 'p') OR relation.reloftype <> 0 THEN
        RETURN NEXT format('%s is not an ordinary or partitioned table', target_table);
        RETURN;
    END IF;
    IF relation.relispartition THEN
        RETURN NEXT format('%s is a partition: name the partitioned table', target_table);
    END IF;
    IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = target_table OR i.inhparent = target_table) AND relation.relkind = 'r'
        AND NOT relation.relispartition
    THEN
        RETURN NEXT format('%s has part in inheritance', target_table);
    END IF;
    IF NOT has_schema_privilege(relation.relnamespace, 'CREATE') THEN
        RETURN NEXT format('the role may not create a trigger function in schema %s', relation.relnamespace::regnamespace);
    END IF;
    FOR relation IN SELECT c.* FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t LOOP
        number := (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = relation.oid AND a.attname = target_column);
        IF relation.relkind = 'f' THEN
            RETURN NEXT format('foreign table %s', relation.oid::regclass);
        END IF;
        IF row_security_active(relation.oid) THEN
            RETURN NEXT format('row-level security of %s hides rows from this role', relation.oid::regclass);
        END IF;
        IF (SELECT a.attgenerated <> '' FROM pg_attribute a WHERE a.attrelid = relation.oid AND a.attnum = number) THEN
            RETURN NEXT format('column %I of %s is generated', target_column, relation.oid::regclass);
        END IF;
        IF EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = relation.oid
                      AND (number = ANY (p.partattrs) OR (p.partexprs IS NOT NULL AND strpos(pg_get_partkeydef(relation.oid), target_column) > 0))) THEN
            RETURN NEXT format('partition key of %s', relation.oid::regclass);
        END IF;
        -- Views, policies, constraints, triggers, generated columns, statistics, publications' column lists, SQL functions.
        RETURN QUERY
            SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass
                            THEN (SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE 'rule of' END, c.oid::regclass)
                                    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = d.objid)
                            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END
              FROM pg_depend d
             WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = relation.oid AND d.refobjsubid = number
               AND NOT (d.classid = 'pg_attrdef'::regclass AND EXISTS (SELECT FROM pg_attrdef f WHERE f.oid = d.objid AND f.adnum = number))
               AND NOT (d.classid = 'pg_class'::regclass AND d.objsubid = 0
                        AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i', 'I', 't')))
               AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT FROM pg_constraint c WHERE c.oid = d.objid AND c.contype = 'n'));
        RETURN QUERY
            SELECT format('index %s, which cannot be built on ciphertext: %s', i.indexrelid::regclass, pg_get_indexdef(i.indexrelid))
              FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
             WHERE i.indrelid = relation.oid
               AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                              AND d.refobjid = relation.oid AND d.refobjsubid = number)
               AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
               AND (m.amname <> 'gin' OR i.indnatts > 1 OR i.indpred IS NOT NULL OR i.indexprs IS NOT NULL
                    OR (relation.oid <> target_table AND NOT c.relispartition)
                    OR (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = relation.oid AND a.attnum = number)
                           NOT IN ('jsonb'::regtype, pgseal.own_type('encrypted_jsonb'), pgseal.own_type('encrypted_text')));
        RETURN QUERY
            SELECT format('trigger %I of %s runs after the trigger that encrypts: rename it', t.tgname, relation.oid::regclass)
              FROM pg_trigger t WHERE t.tgrelid = relation.oid AND NOT t.tgisinternal AND t.tgtype & 3 = 3
               AND t.tgname::text COLLATE "C" > own_trigger::text COLLATE "C";
    END LOOP;
    RETURN QUERY SELECT format('publication %I: its subscribers need column %I too', p.pubname, new_column)
        FROM pg_publication p WHERE p.puballtables OR EXISTS (SELECT FROM pg_publication_tables t
            JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = n.oid
           WHERE t.pubname = p.pubname AND c.oid IN (SELECT pgseal.migration_tables(target_table)));
    -- PostgreSQL does not record what the text of a function names.
    RETURN QUERY
        SELECT format('function %s', p.oid::regprocedure) FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
         WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgrelid = target_table AND t.tgname = own_trigger)
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
           AND pgseal.text_names(p.prosrc, target_column)
           AND (EXISTS (SELECT FROM pgseal.migration_tables(target_table) r JOIN pg_class c ON c.oid = r
                         WHERE pgseal.text_names(p.prosrc, c.relname))
                OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgrelid IN (SELECT pgseal.migration_tables(target_table))));
END $$;

CREATE OR REPLACE FUNCTION pgseal.finish_migration(target_table regclass, target_column name, to_encrypted boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    -- Not by its name: the table may have moved to another schema or come from a dump.
    function text := (SELECT t.tgfoid::regprocedure FROM pg_trigger t WHERE t.tgrelid = target_table AND t.tgname = '~' || new_column);
    old pg_attribute;
    default_value text;
    default_type text;
    comment text;
    old_index name;
    new_index name := format('%s_of_%s', new_column, target_table::oid);
    acl record;
BEGIN
    SELECT * INTO old FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column;
    comment := col_description(target_table, old.attnum);
    default_value := (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = target_table AND d.adnum = old.attnum);
    old_index := (SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                   WHERE i.indrelid = target_table AND i.indkey[0] = old.attnum ORDER BY c.oid LIMIT 1);
    FOR acl IN
        SELECT t.relid, x.privilege_type, x.is_grantable, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee
          FROM pgseal.migration_tables(target_table) t (relid) JOIN pg_attribute a ON a.attrelid = t.relid AND a.attname = target_column,
               aclexplode(a.attacl) x
    LOOP
        EXECUTE format('GRANT %s (%I) ON %s TO %s %s', acl.privilege_type, new_column, acl.relid, acl.grantee,
                       CASE WHEN acl.is_grantable THEN 'WITH GRANT OPTION' END);
    END LOOP;
    EXECUTE format('DROP TRIGGER %I ON %s', '~' || new_column, target_table);
    EXECUTE format('DROP FUNCTION %s', function);
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', target_table, target_column);
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', target_table, new_column, target_column);
    IF old.attnotnull THEN
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', target_table, target_column);
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', target_table, new_column);
    END IF;
    IF default_value IS NOT NULL THEN
        EXECUTE format('SELECT pg_typeof(%s)::oid', default_value) INTO default_type;
        -- A literal that was sealed when it was typed.
        IF NOT to_encrypted AND default_type::oid = old.atttypid THEN
            EXECUTE format('SELECT pgseal.decrypt(%s)::text', default_value) INTO default_value;
            default_value := quote_nullable(default_value);
        END IF;
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', target_table, target_column, default_value);
    END IF;
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', target_table, target_column, comment);
    IF old_index IS NOT NULL THEN
        EXECUTE format('ALTER INDEX %s.%I RENAME TO %I',
                       (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target_table), new_index, old_index);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgseal.abandon_migration(target_table regclass, target_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    function text := (SELECT t.tgfoid::regprocedure FROM pg_trigger t WHERE t.tgrelid = target_table AND t.tgname = '~' || new_column);
BEGIN
    IF NOT pgseal.migration_started(target_table, target_column) THEN
        RAISE EXCEPTION 'no migration of column "%" of % has been started', target_column, target_table USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', '~' || new_column, target_table);
    IF function IS NOT NULL THEN
        EXECUTE format('DROP FUNCTION %s', function);
    END IF;
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', target_table, new_column);
END $$;

CREATE OR REPLACE PROCEDURE pgseal.migrate_column(target_table regclass, target_column name, new_type text, to_encrypted boolean,
        batch_size int4, dry_run boolean, ignore text[])
    LANGUAGE plpgsql AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    name text := pg_catalog.format('%s.%I', target_table, target_column);
    leaf regclass;
    leaves regclass[];
    job text;
    statement text;
    page int8;
    pages int8;
    step int8;
    changed int8;
    wrong text;
    total int8 := 0;
    found_type text;
    trigger_before text;
    command text;
    commands text[];
    started timestamptz := pg_catalog.clock_timestamp();
    reported timestamptz := started;
BEGIN
    IF batch_size IS NULL OR batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pgseal.check_migration(target_table, target_column, ignore)
      WHERE NOT pgseal.migration_started(target_table, target_column);
    IF to_encrypted THEN
        FOR command IN SELECT pgseal.migration_roles(target_table, target_column, new_type) LOOP
            RAISE NOTICE 'role % uses the column and has no such privilege on the keyring', command
                USING HINT = 'SELECT pgseal.grant_keyring(keyring, role, ARRAY[...]) before the names are swapped.';
        END LOOP;
    END IF;
    IF pgseal.migration_started(target_table, target_column) THEN
        found_type := (SELECT pg_catalog.format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a
                        WHERE a.attrelid = target_table AND a.attname = new_column);
        IF found_type <> new_type AND NOT new_type LIKE '%.' || found_type THEN
            RAISE EXCEPTION 'column "%" of % is on its way to type %', target_column, target_table, found_type
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Go on with that keyring, or SELECT pgseal.abandon_migration(table, column).';
        END IF;
        IF pgseal.migration_trigger(target_table, target_column) IS NULL THEN
            RAISE EXCEPTION 'the trigger "%" of % is missing or switched off', '~' || new_column, target_table
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT pgseal.abandon_migration(table, column), and begin again.';
        END IF;
    END IF;

    IF dry_run THEN
        IF pgseal.migration_started(target_table, target_column) THEN
            RAISE NOTICE 'going on with what an earlier call began';
        ELSE
            RAISE NOTICE 'add column % of type %, and a trigger that fills it for every writer', pg_catalog.quote_ident(new_column), new_type;
        END IF;
        RAISE NOTICE 'fill about % rows in committed batches of about %',
            (SELECT pg_catalog.sum(greatest(c.reltuples, 0)) FROM pgseal.migration_tables(target_table) t JOIN pg_catalog.pg_class c ON c.oid = t
              WHERE c.relkind = 'r'), batch_size;
        FOR command IN SELECT pgseal.migration_commands(target_table, target_column) LOOP
            RAISE NOTICE 'wait for you to run: %', command;
        END LOOP;
        RAISE NOTICE 'compare every row, then drop %, and give the new column its name, NOT NULL and DEFAULT; it will be the last column', name;
        RETURN;
    END IF;

    -- Where this is not the default, an update of another session would end the run, and what is read under the last lock be old.
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF NOT pgseal.migration_started(target_table, target_column) THEN
        FOR attempt IN 1..30 LOOP
            EXIT WHEN pgseal.lock_for_migration(target_table);
            IF attempt = 30 THEN
                RAISE EXCEPTION '% is in use all the time', target_table
                    USING ERRCODE = 'lock_not_available', HINT = 'Nothing was changed. pg_locks shows who holds it; call again.';
            END IF;
            COMMIT AND CHAIN;
            PERFORM pg_catalog.pg_sleep(attempt / 10.0);
        END LOOP;
        IF pgseal.migration_started(target_table, target_column) OR pgseal.migration_column(target_table, target_column) <> new_column THEN
            RAISE EXCEPTION 'another session migrates column "%" of %, or has done it', target_column, target_table
                USING ERRCODE = 'object_in_use', HINT = 'Where it has ended before the swap, call again: it goes on where it was.';
        END IF;
        PERFORM pgseal.check_migration(target_table, target_column, ignore);
        PERFORM pgseal.start_migration(target_table, target_column, new_type, to_encrypted);
        COMMIT AND CHAIN;
    END IF;

    FOREACH job IN ARRAY ARRAY['fill', 'verify'] LOOP
        IF job = 'verify' THEN
            commands := ARRAY(SELECT pgseal.migration_commands(target_table, target_column));
            IF commands <> '{}' THEN
                RAISE NOTICE '% rows of % filled; its index is still to be built, which PostgreSQL does not do concurrently inside a procedure', total, name
                    USING HINT = E'Run this, then call again:\n' || pg_catalog.array_to_string(commands, E';\n') || ';';
                RETURN;
            END IF;
            trigger_before := pgseal.migration_trigger(target_table, target_column);
        END IF;
        -- Again for each job: one may have been attached, with rows that its trigger has not seen.
        leaves := ARRAY(SELECT c.oid::regclass FROM pgseal.migration_tables(target_table) t JOIN pg_catalog.pg_class c ON c.oid = t WHERE c.relkind = 'r');
        FOREACH leaf IN ARRAY leaves LOOP
            -- The trigger fills it.
            statement := CASE job WHEN 'fill' THEN pg_catalog.format(
                'UPDATE ONLY %1$s SET %2$I = NULL WHERE ctid >= $1 AND ctid < $2 AND %3$I IS NOT NULL AND %2$I IS NULL', leaf, new_column, target_column)
            ELSE pg_catalog.format(
                'SELECT pg_catalog.count(*), pg_catalog.min(ctid::text) FROM ONLY %1$s WHERE ctid >= $1 AND ctid < $2
                    AND (%2$s)::text COLLATE "C" IS DISTINCT FROM (%3$s)::text COLLATE "C"', leaf,
                pg_catalog.format(CASE WHEN to_encrypted THEN '%I' ELSE 'pgseal.decrypt(%I)' END, target_column),
                pg_catalog.format(CASE WHEN to_encrypted THEN 'pgseal.decrypt(%I)' ELSE '%I' END, new_column)) END;
            -- Rather too few pages where nobody has counted the rows yet.
            SELECT greatest(1, batch_size / greatest(1, CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 50 END::int8)) INTO step
              FROM pg_catalog.pg_class c WHERE c.oid = leaf;
            page := 0;
            pages := pg_catalog.pg_relation_size(leaf) / pg_catalog.current_setting('block_size')::int8;
            WHILE page < pages LOOP
                IF job = 'fill' THEN
                    EXECUTE statement USING pg_catalog.format('(%s,0)', page)::tid, pg_catalog.format('(%s,0)', page + step)::tid;
                    GET DIAGNOSTICS changed = ROW_COUNT;
                    total := total + changed;
                ELSE
                    EXECUTE statement INTO changed, wrong USING pg_catalog.format('(%s,0)', page)::tid, pg_catalog.format('(%s,0)', page + step)::tid;
                    IF changed > 0 THEN
                        RAISE EXCEPTION '% rows of % do not have the same value in both columns, the first at %', changed, leaf, wrong
                            USING ERRCODE = 'data_corrupted', HINT = 'Nothing was swapped. Call again, if a partition was attached meanwhile. Does a trigger keep rows from being updated?';
                    END IF;
                END IF;
                COMMIT AND CHAIN;
                page := page + step;
                -- Rows that were updated meanwhile are behind: the trigger filled them, but they are to be compared.
                IF job = 'verify' THEN
                    pages := pg_catalog.pg_relation_size(leaf) / pg_catalog.current_setting('block_size')::int8;
                END IF;
                IF pg_catalog.clock_timestamp() - reported > interval '5 seconds' THEN
                    reported := pg_catalog.clock_timestamp();
                    RAISE NOTICE '%: %, page % of %', leaf, job, least(page, pages), pages;
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;

    IF EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conrelid = target_table AND c.conname = new_column) THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', target_table, new_column);
        COMMIT AND CHAIN;
    END IF;
    FOR attempt IN 1..30 LOOP
        EXIT WHEN pgseal.lock_for_migration(target_table);
        IF attempt = 30 THEN
            RAISE EXCEPTION '% is in use all the time', target_table
                USING ERRCODE = 'lock_not_available', HINT = 'All rows are filled. pg_locks shows who holds the table; call again for the swap.';
        END IF;
        COMMIT AND CHAIN;
        PERFORM pg_catalog.pg_sleep(attempt / 10.0);
    END LOOP;
    IF trigger_before IS DISTINCT FROM pgseal.migration_trigger(target_table, target_column) OR trigger_before IS NULL THEN
        RAISE EXCEPTION 'the trigger "%" of % was changed meanwhile', '~' || new_column, target_table
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing was swapped. SELECT pgseal.abandon_migration(table, column), and begin again.';
    END IF;
    PERFORM pgseal.check_migration(target_table, target_column, ignore);
    PERFORM pgseal.finish_migration(target_table, target_column, to_encrypted);
    COMMIT AND CHAIN;

    RAISE NOTICE '% is of type % now, after % rows in % s; it is the last column of its table', name, new_type, total,
        pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - started)::numeric, 1)
        USING HINT = 'INSERT and COPY without a list of columns follow the new order. ANALYZE ' || target_table || ' makes statistics anew; the old column''s are gone.';
    IF to_encrypted THEN
        RAISE NOTICE 'rows of % hold the old plaintext on disk, invisibly, until they are written anew', target_table
            USING HINT = 'VACUUM FULL ' || target_table || ' rewrites them under a lock, pg_repack without one; then VACUUM pg_catalog.pg_statistic for dead statistics.';
        RAISE NOTICE 'WAL, its archive, replicas that lag, older backups and dumps hold the old plaintext too'
            USING HINT = 'Take a new base backup after VACUUM FULL, and let the older ones expire or destroy them.';
        IF EXISTS (SELECT FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                    WHERE d.adrelid = target_table AND a.attname = target_column) THEN
            RAISE NOTICE 'the DEFAULT of % is plaintext in the catalog, and is sealed for each row', name;
        END IF;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgseal.verify(target_table regclass, target_column name, context text DEFAULT NULL, max_listed int4 DEFAULT 1000)
    RETURNS TABLE (result text, number_of_values int8, keyring text, key_version int4, finding text, relation regclass, row_ctid tid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
#variable_conflict use_column
DECLARE
    base regtype := pgseal.encrypted_column(target_table, target_column)::regtype;
    checked text := format('pgseal.check_value(%I::%s, (%s)::text, %L)', target_column, base, coalesce(context, 'NULL'), context IS NOT NULL);
    bound int4 := (SELECT a.atttypmod FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
    denied text := (SELECT k.name FROM pgseal.keyring k WHERE k.id = bound AND NOT pgseal.may_decrypt(k.id, quote_ident(current_user)::regrole));
    tally jsonb := '{}';
    listed int4 := 0;
    here record;
    found record;
    place tid;
    pages int8;
    total int8 := 0;
    reported timestamptz := clock_timestamp();
BEGIN
    IF denied IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied for keyring "%": decrypt privilege needed', denied USING ERRCODE = 'insufficient_privilege';
    END IF;
    FOR here IN SELECT * FROM pgseal.leaves(target_table) LOOP
        IF here.relkind NOT IN ('r', 'm') THEN
            RETURN QUERY SELECT 'not checked', NULL::int8, NULL::text, NULL::int4, 'its rows are on another server', here.leaf, NULL::tid;
            CONTINUE;
        END IF;
        pages := pg_relation_size(here.leaf) / current_setting('block_size')::int8;
        FOR page IN 0 .. pages - 1 BY 256 LOOP
            FOR found IN SELECT * FROM pgseal.check_pages(here.leaf, page, least(page + 256, pages), checked) LOOP
                total := total + coalesce(found.number_of_values, 0);
                FOREACH place IN ARRAY coalesce(found.places, '{}') LOOP
                    EXIT WHEN listed >= max_listed;
                    listed := listed + 1;
                    RETURN QUERY SELECT d.result, CASE WHEN found.number_of_values > 0 THEN 1::int8 END, d.keyring, d.key_version, d.finding, here.leaf, place
                                   FROM pgseal.read_verdict(found.verdict) d;
                    found.number_of_values := found.number_of_values - 1;
                END LOOP;
                IF found.number_of_values > 0 THEN
                    tally := tally || jsonb_build_object(found.verdict::text,
                        found.number_of_values + coalesce((tally ->> found.verdict::text)::int8, 0));
                END IF;
            END LOOP;
            IF clock_timestamp() - reported > interval '5 seconds' THEN
                reported := clock_timestamp();
                RAISE NOTICE '%: page % of %, % values checked, % of them listed as not authentic',
                    here.leaf, least(page + 256, pages), pages, total, listed;
            END IF;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT d.result, t.value::int8, d.keyring, d.key_version, d.finding, NULL::regclass, NULL::tid
                   FROM jsonb_each_text(tally) t CROSS JOIN LATERAL pgseal.read_verdict(t.key::text[]) d
                  ORDER BY d.result, d.keyring, d.key_version, d.finding;
END $$;

CREATE OR REPLACE FUNCTION pgseal.compares_plaintext(definition text, whole boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN whole THEN bare ~ '''[^'']'
           ELSE bare ~ '(@>|@@)[^'';]{0,200}''[^'']'
             OR bare ~ 'pgseal\.(filter|filter_any|filter_casefold|between|filter_between|encrypt)\([^;]*''[^'']'
             OR bare ~ '#KEY#[^'']{0,60}(=|<>|<|>|~~|~|\mIN\M|\mLIKE\M|\mANY\M)[^'']{0,40}''[^'']' END
      FROM (SELECT regexp_replace(regexp_replace(definition, '''(pgseal:[^'']*|\{\}|\[\])''(::[a-z_."]+)?', '#SEALED#', 'g'),
                                  '(->>?|#>>?|\?[|&]?)\s*''[^'']*''(::[a-z]+(\[\])?)?', '#KEY#', 'g') AS bare) b
$$;

CREATE OR REPLACE FUNCTION pgseal.audit_values() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    place record;
    found record;
BEGIN
    FOR place IN SELECT * FROM pgseal.value_columns() LOOP
        object := format('column %I of %s', place.attname, place.relation);
        IF place.blind IS NOT NULL THEN
            RETURN QUERY SELECT 'unknown', object, format('values in a %s were not looked at', place.blind), 'audit it where they are';
            CONTINUE;
        END IF;
        FOR found IN
            SELECT nullif(f[1], '')::int4 AS keyring, nullif(f[2], '')::int4 AS data, nullif(f[3], '')::int4 AS index, f[4] = '1' AS transit, f[5] AS n
              FROM unnest(pgseal.column_keys(place.relation, place.attname)) l (line), string_to_array(line, ' ') f
        LOOP
            RETURN QUERY SELECT f.severity, object, f.finding, f.what_to_do
                FROM pgseal.audit_key(found.keyring, found.data, found.index, format('%s values', found.n),
                    CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = place.relation AND c.relkind = 'm')
                    THEN format('REFRESH MATERIALIZED VIEW %s', place.relation)
                    WHEN place.scalar IS NOT NULL THEN format('CALL pgseal.reencrypt(%L, %L)', place.relation, place.attname)
                    ELSE 'UPDATE these rows with values sealed anew' END) f;
            IF found.transit THEN
                RETURN QUERY SELECT 'warning', object, format('%s values came as literals and were stored as they were: equal literals may have equal bytes', found.n),
                    'declare the keyring on the column, as in encrypted_jsonb(keyring), or send typed parameters; then CALL pgseal.reencrypt';
            END IF;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT f.severity, d.object, f.finding, f.what_to_do
        FROM pgseal.definitions() d CROSS JOIN LATERAL (SELECT DISTINCT * FROM pgseal.quoted_values(d.definition)) q
        CROSS JOIN LATERAL pgseal.audit_key(q.keyring_id, q.key_version, NULL, 'a sealed literal', 'define it anew') f;
END $$;

CREATE OR REPLACE FUNCTION pgseal.audit_catalogs(max_key_age interval) RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT 'critical', format('keyring %I', k.name), 'its wrapping key is a file on this server: whoever can read it can read the data',
           'create a keyring at a KMS (pgseal.kms_endpoint) and re-encrypt into it'
      FROM pgseal.keyring k WHERE coalesce(k.kms_endpoint, current_setting('pgseal.kms_endpoint', true)) LIKE 'file:%'
    UNION ALL
    SELECT 'warning', format('keyring %I', k.keyring), format('its %s key version %s is %s days old', k.purpose, k.version, extract(day FROM now() - k.created)),
           format('SELECT pgseal.%s(%L), then CALL pgseal.reencrypt for its columns', CASE k.purpose WHEN 'data' THEN 'rotate_key' ELSE 'rotate_index_key' END, k.keyring)
      FROM pgseal.keys k WHERE k.state = 'active' AND k.created < now() - max_key_age
    UNION ALL
    SELECT CASE WHEN p.role = 0 THEN 'critical' ELSE 'info' END, format('keyring %I', k.name),
           CASE WHEN p.role = 0 THEN 'every role can decrypt' ELSE format('role %s can decrypt%s', p.role,
               (SELECT ', and so can ' || string_agg(r.rolname, ', ' ORDER BY r.rolname) FROM pg_roles r
                 WHERE r.oid <> p.role AND NOT r.rolsuper AND pg_has_role(r.oid, p.role, 'USAGE'))) END,
           format('SELECT pgseal.revoke_keyring(%L, %L) where it should not', k.name, CASE WHEN p.role = 0 THEN 'public' ELSE pg_get_userbyid(p.role) END)
      FROM pgseal.privilege p JOIN pgseal.keyring k ON k.id = p.keyring
     WHERE p.decrypt AND (p.role = 0 OR p.role IN (SELECT r.oid FROM pg_roles r))
    UNION ALL
    SELECT 'info', 'superusers', format('%s can decrypt everything', string_agg(r.rolname, ', ' ORDER BY r.rolname)), 'let no application log in as one'
      FROM pg_roles r WHERE r.rolsuper AND r.rolcanlogin AND EXISTS (SELECT FROM pgseal.keyring) HAVING count(*) > 0
    UNION ALL
    SELECT 'warning', format('column %I of %s', a.attname, a.attrelid::regclass), format('it is stored in plaintext (%s) beside an embedding', format_type(a.atttypid, a.atttypmod)),
           'store it as encrypted_jsonb or encrypted_text, if it is confidential'
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
     WHERE c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
       AND EXISTS (SELECT FROM pg_type b WHERE b.oid = coalesce(nullif(t.typelem, 0), nullif(t.typbasetype, 0), t.oid)
                     AND (b.typcategory = 'S' OR b.oid IN ('json'::regtype, 'jsonb'::regtype, 'xml'::regtype)))
       AND EXISTS (SELECT FROM pg_attribute v JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = v.atttypid AND d.deptype = 'e'
                     JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'vector'
                    WHERE v.attrelid = a.attrelid AND NOT v.attisdropped)
    UNION ALL
    SELECT 'warning', format('column %I of %I.%I', s.attname, s.schemaname, s.tablename),
           format('one searchable value is in %s %% of the rows: its token tells which rows', round(100 * f.share)),
           'declare its path with "spread" (pgseal.set_searchable), or not at all; pgseal.check_searchable names the path'
      FROM pgseal.value_columns() v
      JOIN pg_class c ON c.oid = v.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = v.attname
      CROSS JOIN LATERAL (SELECT max(u.share)::numeric AS share
          FROM unnest(s.most_common_elems::text::int8[], (s.most_common_elem_freqs)[:cardinality(s.most_common_elems::text::int8[])]) u (token, share)
         WHERE u.token < 0) f
     WHERE v.scalar IS NOT NULL AND f.share > 0.5 AND c.reltuples >= 100
    UNION ALL
    SELECT 'warning', d.object, 'it has a constant for an encrypted value, which the catalog keeps in plaintext',
           'take the value from a table or a setting, or make the constant a parameter'
      FROM pgseal.definitions() d
     WHERE pgseal.compares_plaintext(d.definition, d.whole)
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.class AND e.objid = d.id AND e.deptype = 'e')
       AND (EXISTS (SELECT FROM pg_depend r JOIN pgseal.value_columns() v ON r.refclassid = 'pg_class'::regclass AND r.refobjid = v.relation
                      JOIN pg_attribute a ON a.attrelid = v.relation AND a.attname = v.attname
                     WHERE r.classid = d.class AND r.objid = d.id AND r.refobjsubid = a.attnum)
            OR (d.class = 'pg_proc'::regclass AND EXISTS (SELECT FROM pgseal.value_columns() v JOIN pg_class c ON c.oid = v.relation
                    WHERE d.definition ~ ('\m' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '\M')
                      AND d.definition ~ ('\m' || regexp_replace(v.attname, '(\W)', '\\\1', 'g') || '\M'))))
    UNION ALL
    SELECT 'warning', format('role %I', r.rolname), 'it may write to an encrypted column, and pgseal.accept_sealed is on: it can store a sealed value that it got elsewhere',
           format('ALTER ROLE %I SET pgseal.accept_sealed = off; its application must not set it back', r.rolname)
      FROM pg_roles r
     WHERE r.rolcanlogin AND NOT r.rolsuper
       AND EXISTS (SELECT FROM pgseal.value_columns() v WHERE has_any_column_privilege(r.oid, v.relation, 'INSERT, UPDATE'))
       AND coalesce((SELECT split_part(c, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) c
                      WHERE c LIKE 'pgseal.accept\_sealed=%' AND s.setrole IN (0, r.oid)
                        AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
                      ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
                    (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'pgseal.accept_sealed'), 'on') <> 'off'
$$;

CREATE OR REPLACE FUNCTION pgseal.audit(max_key_age interval DEFAULT '1 year', sample_size int4 DEFAULT 10000)
    RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET jit = off AS $$
#variable_conflict use_column
DECLARE
    place record;
BEGIN
    RETURN QUERY
        SELECT f.* FROM (SELECT * FROM pgseal.audit_catalogs(max_key_age) UNION ALL SELECT * FROM pgseal.audit_values()
                         UNION ALL SELECT * FROM pgseal.audit_settings()) f
         ORDER BY array_position(ARRAY['critical', 'warning', 'unknown', 'info'], f.severity), f.object, f.finding;
    FOR place IN
        SELECT v.*, pg_has_role(c.relowner, current_user, 'USAGE') AS is_ours FROM pgseal.value_columns() v JOIN pg_class c ON c.oid = v.relation
         WHERE v.scalar LIKE '%encrypted_jsonb' AND v.blind IS NULL
    LOOP
        -- A query may run functions of the owner, of expression indexes for one, and must not give them more than the owner has.
        IF NOT place.is_ours THEN
            RETURN QUERY SELECT 'unknown', format('column %I of %s', place.attname, place.relation),
                                'values of its searchable paths were not counted: querying it may run functions of its owner as whoever audits',
                                format('as its owner: SELECT * FROM pgseal.check_searchable(%L, %L)', place.relation, place.attname);
            CONTINUE;
        END IF;
        BEGIN
            RETURN QUERY
                SELECT 'warning', format('column %I of %s', place.attname, place.relation),
                       format('searchable path %s has %s different values in %s, the commonest %s %% of all: who sees the tokens can tell which is which',
                              c.path, c.distinct_values, c.number_of_values, round(100 * c.commonest_share::numeric)),
                       'declare it with "spread" (pgseal.set_searchable), or not at all'
                  FROM pgseal.check_searchable(place.relation, place.attname, sample_size) c
                 WHERE c.number_of_values >= 100 AND (c.distinct_values < 16 OR c.commonest_share > 0.5);
        EXCEPTION WHEN OTHERS THEN
            RETURN QUERY SELECT 'unknown', format('column %I of %s', place.attname, place.relation),
                                'how many values its searchable paths have could not be counted: ' || SQLERRM, 'call audit as a role with SELECT and decrypt';
        END;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION pgseal.evidence(target_table regclass, contexts jsonb DEFAULT '{}', canaries text[] DEFAULT '{}', checkpoint boolean DEFAULT false)
    RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    place record;
    verified jsonb := '[]';
    usage jsonb := '{}';
    scanned jsonb := '{"done": false, "why": "no canaries were given"}';
    started timestamptz := clock_timestamp();
    lsn pg_lsn := CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END;
BEGIN
    IF EXISTS (SELECT FROM unnest(canaries) c WHERE coalesce(octet_length(c), 0) < 4) THEN
        RAISE EXCEPTION 'a canary needs at least 4 bytes: shorter ones are found by chance' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(canaries) > 0 AND NOT checkpoint THEN
        RAISE EXCEPTION 'what is in memory only is not on disk yet' USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Pass checkpoint => true: it runs CHECKPOINT, which writes all that is pending to disk.';
    END IF;
    -- A misspelt one would pass for checked.
    PERFORM pgseal.encrypted_column(target_table, c::name) FROM jsonb_object_keys(contexts) c;
    FOR place IN
        SELECT a.attname, d.refobjid IS NOT NULL AS known
          FROM pg_attribute a CROSS JOIN LATERAL (
                WITH RECURSIVE base (oid, typbasetype) AS (
                    SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
                    UNION ALL SELECT t.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typbasetype
                ) SELECT base.oid FROM base WHERE base.typbasetype = 0) b
          JOIN pg_type t ON t.oid = b.oid AND t.typname IN ('encrypted_jsonb', 'encrypted_text')
          JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = b.oid AND d.deptype = 'e'
          JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
         WHERE a.attrelid = target_table AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    LOOP
        verified := verified || pgseal.verified(target_table, place.attname, contexts ->> place.attname::text);
        usage := usage || jsonb_build_object(place.attname, (SELECT coalesce(jsonb_agg(to_jsonb(u)), '[]') FROM pgseal.key_usage(target_table, place.attname) u));
    END LOOP;
    IF verified = '[]' THEN
        RAISE EXCEPTION '% has no encrypted column', target_table USING ERRCODE = 'wrong_object_type';
    END IF;
    IF cardinality(canaries) > 0 THEN
        scanned := pgseal.scan_for(target_table, canaries) || '{"done": true}';
    END IF;
    -- jsonb puts shorter names first: verify leads.
    RETURN jsonb_build_object(
        'verify', verified,
        'subject', jsonb_build_object('table', target_table::text, 'database', current_database(), 'role', current_user,
            'started', started, 'ended', clock_timestamp(),
            'system_identifier', (SELECT c.system_identifier::text FROM pg_control_system() c),
            'lsn', lsn,
            'in_recovery', pg_is_in_recovery(), 'server_version', current_setting('server_version'),
            'pgseal_version', (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'pgseal')),
        'file_scan', scanned,
        'algorithms', jsonb_build_object('format', 1, 'encryption', 'XAES-256-GCM (C2SP), 192-bit nonce',
            'authenticated', 'header, keyring uuid, tokens and content', 'search_tokens', 'HMAC-SHA-256, truncated to 64 bits',
            'key_derivation', 'HKDF-SHA-256'),
        'wrapped_keys', (SELECT coalesce(jsonb_agg(jsonb_build_object('keyring', k.keyring, 'purpose', k.purpose, 'version', k.version, 'state', k.state,
                'created', k.created, 'retired', k.retired, 'kms_key', r.kms_key,
                'kms_endpoint', coalesce(r.kms_endpoint, current_setting('pgseal.kms_endpoint', true))) ORDER BY k.keyring, k.purpose, k.version), '[]')
              FROM pgseal.keys k JOIN pgseal.keyring r ON r.name = k.keyring
             WHERE k.keyring::text IN (SELECT u ->> 'keyring' FROM jsonb_each(usage) c, jsonb_array_elements(c.value) u)),
        'values_by_key', usage,
        'how_to_repeat', jsonb_build_array(
            format('SELECT pgseal.evidence(%L%s, canaries => ..., checkpoint => true)', target_table, CASE WHEN contexts <> '{}' THEN format(', %L', contexts) END),
            format('SELECT * FROM pgseal.verify(%L, ...)', target_table),
            'as a superuser, or for all but file_scan as a role with SELECT and decrypt'),
        'not_looked_at', jsonb_build_array(
            'columns of this table that are not encrypted, embeddings among them', 'other tables',
            'WAL, archived WAL, backups, dumps and replicas', 'server logs, temporary files, swap and core dumps',
            'the free space that the file system keeps of deleted files', 'what the KMS does with its key',
            'values as they were before: authentic means unchanged since sealed, not newest')
          || CASE WHEN cardinality(canaries) > 0 THEN jsonb_build_array('copies of a canary that are compressed, encoded otherwise, or cut by a page or TOAST chunk',
                'parts of canaries, and every string that is no canary') ELSE jsonb_build_array('the files on disk') END);
END $$;

COMMENT ON FUNCTION pgseal.column_keys(regclass, text) IS 'internal: keyring, data key version, index key version, in transit (1) or not (0) and number of the values of a column';
COMMENT ON FUNCTION pgseal.rotation_end_pass(regclass, name, int4, int8, boolean) IS 'internal: finishes a run of reencrypt or begins another pass';
-- COMMENT ON FUNCTION pgseal.head_of(encrypted_jsonb) IS 'internal: keyring, data key version, index key version and in transit (1) or not (0), NULL where the bytes are no value; needs no key';
-- COMMENT ON FUNCTION pgseal.head_of(encrypted_text) IS 'internal: keyring, data key version, index key version and in transit (1) or not (0), NULL where the bytes are no value; needs no key';
-- COMMENT ON FUNCTION pgseal.rotation_end_pass(regclass, name, int4, int8) IS 'internal: finishes a run of reencrypt or begins another pass';
COMMENT ON FUNCTION pgseal.value_columns() IS 'internal: columns that can hold encrypted values, in arrays and composites too';
REVOKE EXECUTE ON FUNCTION pgseal.column_keys(regclass, text) FROM PUBLIC;
