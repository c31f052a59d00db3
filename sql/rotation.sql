CREATE FUNCTION pgseal.reseal(encrypted_jsonb) RETURNS encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
CREATE FUNCTION pgseal.reseal(encrypted_text) RETURNS encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
CREATE FUNCTION pgseal.is_current(encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_current' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
CREATE FUNCTION pgseal.is_current(encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_current' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
CREATE FUNCTION pgseal.require_autocommit() RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_require_autocommit' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION pgseal.exclude_writers(int4, int4) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_exclude_writers' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
CREATE FUNCTION pgseal.wait_for_transactions() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_wait_for_transactions' LANGUAGE C VOLATILE PARALLEL UNSAFE;
CREATE FUNCTION pgseal.text_holds_key(text, int4, int4) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_text_holds_key' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION pgseal.encrypted_column(target_table regclass, target_column name) RETURNS oid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found oid := (SELECT getbase.oid FROM pg_attribute a
                    CROSS JOIN LATERAL (
                        WITH RECURSIVE base (oid, typbasetype) AS (
                            SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
                            UNION ALL
                            SELECT t.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typbasetype
                        ) SELECT base.oid FROM base WHERE base.typbasetype = 0
                    ) getbase
                   WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped);
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'column "%" of % does not exist', target_column, target_table USING ERRCODE = 'undefined_column';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE d.classid = 'pg_type'::regclass AND d.objid = found AND d.deptype = 'e' AND e.extname = 'pgseal') THEN
        RAISE EXCEPTION 'column "%" of % is not encrypted', target_column, target_table
            USING ERRCODE = 'wrong_object_type', HINT = 'Its type must be encrypted_jsonb or encrypted_text.';
    END IF;
    RETURN found;
END $$;

CREATE PROCEDURE pgseal.reencrypt(target_table regclass, target_column name, batch_size int4 DEFAULT 1000)
    LANGUAGE plpgsql AS $$
DECLARE
    leaf regclass;
    pages int8;
    page int8;
    step int8;
    changed int8;
    pass_changed int8;
    pass_before int8;
    passes int4;
    total int8 := 0;
    started timestamptz := pg_catalog.clock_timestamp();
    reported timestamptz := started;
    statement text;
BEGIN
    PERFORM pgseal.require_autocommit();
    PERFORM pgseal.encrypted_column(target_table, target_column);
    IF (SELECT c.relkind NOT IN ('r', 'p') FROM pg_catalog.pg_class c WHERE c.oid = target_table) THEN
        RAISE EXCEPTION '% is not a table', target_table
            USING ERRCODE = 'wrong_object_type', HINT = 'REFRESH a materialized view; re-encrypt the tables below a view.';
    END IF;
    IF batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR leaf IN
        SELECT c.oid::regclass FROM pg_catalog.pg_class c
         WHERE c.relkind = 'r' AND (c.oid = target_table
            OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(target_table) t WHERE t.isleaf))
    LOOP
        statement := pg_catalog.format(
            'UPDATE ONLY %1$s SET %2$I = pgseal.reseal(%2$I) WHERE ctid >= $1 AND ctid < $2 AND NOT pgseal.is_current(%2$I)',
            leaf, target_column);
        -- Concurrent updates put rows on other pages: passes go on until one finds nothing to do.
        passes := 0;
        pass_changed := 0;
        LOOP
            pass_before := pass_changed;
            passes := passes + 1;
            pages := pg_catalog.pg_relation_size(leaf) / pg_catalog.current_setting('block_size')::int8;
            SELECT greatest(1, batch_size / greatest(1, (c.reltuples / greatest(1, c.relpages))::int8)) INTO step
              FROM pg_catalog.pg_class c WHERE c.oid = leaf;
            page := 0;
            pass_changed := 0;
            WHILE page < pages LOOP
                EXECUTE statement USING pg_catalog.format('(%s,0)', page)::tid, pg_catalog.format('(%s,0)', page + step)::tid;
                GET DIAGNOSTICS changed = ROW_COUNT;
                COMMIT;
                pass_changed := pass_changed + changed;
                total := total + changed;
                page := page + step;
                IF pg_catalog.clock_timestamp() - reported > interval '5 seconds' THEN
                    reported := pg_catalog.clock_timestamp();
                    RAISE NOTICE '%: page % of %, % rows re-encrypted', leaf, least(page, pages), pages, total;
                END IF;
            END LOOP;
            EXIT WHEN pass_changed = 0;
            IF passes >= 5 AND pass_changed >= pass_before THEN
                RAISE EXCEPTION '% rows of % do not stay re-encrypted', pass_changed, leaf
                    USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Does a trigger put the old value back?';
            END IF;
        END LOOP;
    END LOOP;
    -- What is already done does not fail for it: the role may not decrypt, or a value that was current cannot be read.
    IF pgseal.encrypted_column(target_table, target_column)::regtype::text LIKE '%encrypted_jsonb' THEN
        BEGIN
            PERFORM pgseal.check_searchable(target_table, target_column);
        EXCEPTION WHEN OTHERS THEN
            RAISE NOTICE 'how many values the searchable paths of % have was not looked at: %', target_table, SQLERRM;
        END;
    END IF;
    RAISE NOTICE '% rows of %.% re-encrypted in % s', total, target_table, pg_catalog.quote_ident(target_column),
        pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - started)::numeric, 1);
END $$;

CREATE FUNCTION pgseal.key_usage(target_table regclass, target_column name)
    RETURNS TABLE (keyring text, key_version int4, index_key_version int4, number_of_values int8)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base regtype := pgseal.encrypted_column(target_table, target_column)::regtype;
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT coalesce(k.name::text, u.id::text), u.data, u.index, u.n
           FROM (SELECT pgseal.keyring_id(%1$I::%2$s) AS id, pgseal.key_version(%1$I::%2$s) AS data,
                        pgseal.index_key_version(%1$I::%2$s) AS index, count(*) AS n
                   FROM %3$s WHERE %1$I IS NOT NULL GROUP BY 1, 2, 3) u
           LEFT JOIN pgseal.keyring k ON k.id = u.id ORDER BY 1, 2, 3',
        target_column, base, target_table);
END $$;

-- The first place that holds a value sealed under a data key version, or that cannot be looked at.
CREATE FUNCTION pgseal.find_key(keyring_id int4, key_version int4) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    place record;
    present boolean;
BEGIN
    FOR place IN
        WITH RECURSIVE base (oid) AS (
            SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.classid = 'pg_type'::regclass AND d.refclassid = 'pg_extension'::regclass
               AND d.deptype = 'e' AND e.extname = 'pgseal'
               AND EXISTS (SELECT FROM pg_type t WHERE t.oid = d.objid AND t.typname IN ('encrypted_jsonb', 'encrypted_text'))
        ), carrier (oid, scalar) AS (
            SELECT base.oid, base.oid::regtype::text FROM base
            UNION
            SELECT t.oid, CASE WHEN t.typbasetype = c.oid THEN c.scalar END
              FROM carrier c JOIN pg_type t
                ON t.typbasetype = c.oid
                OR t.typelem = c.oid
                OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a
                        WHERE a.attrelid = t.typrelid AND a.atttypid = c.oid AND NOT a.attisdropped))
                OR EXISTS (SELECT FROM pg_range r WHERE r.rngtypid = t.oid AND r.rngsubtype = c.oid)
        )
        SELECT r.oid::regclass AS relation, a.attname, k.scalar,
               CASE WHEN r.relkind = 'f' THEN 'foreign table'
                    WHEN r.relpersistence = 't' AND r.relnamespace <> pg_my_temp_schema() THEN 'temporary table of another session'
               END AS blind
          FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN carrier k ON k.oid = a.atttypid
         WHERE r.relkind IN ('r', 'm', 'f') AND r.relispopulated AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
        IF place.blind IS NOT NULL THEN
            RETURN format('cannot look into %s %s', place.blind, place.relation);
        END IF;
        EXECUTE format(
            CASE WHEN place.scalar IS NOT NULL THEN
                'SELECT EXISTS (SELECT FROM ONLY %1$s WHERE pgseal.keyring_id(%2$I::%3$s) = $1 AND pgseal.key_version(%2$I::%3$s) = $2)'
            ELSE
                -- format and not a cast, which could be another role's function.
                'SELECT EXISTS (SELECT FROM ONLY %1$s WHERE pgseal.text_holds_key(pg_catalog.format(''%%s'', %2$I), $1, $2))'
            END, place.relation, place.attname, place.scalar)
        INTO present USING keyring_id, key_version;
        IF present THEN
            RETURN format('column %I of %s', place.attname, place.relation);
        END IF;
    END LOOP;

    -- Literals that the parser sealed long ago and the catalogs keep. Objects below 16384 are PostgreSQL's own.
    RETURN (
        SELECT d.place FROM (
            SELECT format('DEFAULT of column %I of %s', a.attname, a.attrelid::regclass), pg_get_expr(d.adbin, d.adrelid)
              FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
            UNION ALL
            SELECT format('rows of %s from before column %I was added', attrelid::regclass, attname), attmissingval::text
              FROM pg_attribute WHERE atthasmissing
            UNION ALL
            SELECT format('rule or view %s', ev_class::regclass), pg_get_ruledef(oid) FROM pg_rewrite
             WHERE ev_class >= 16384
            UNION ALL
            SELECT format('constraint %I', conname), pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' AND oid >= 16384
            UNION ALL
            SELECT format('policy %I of %s', polname, polrelid::regclass),
                   concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
            UNION ALL
            SELECT format('trigger %I of %s', tgname, tgrelid::regclass), pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL
            SELECT format('index %s', indexrelid::regclass), pg_get_indexdef(indexrelid) FROM pg_index
             WHERE indpred IS NOT NULL OR indexprs IS NOT NULL
            UNION ALL
            SELECT format('function %s', oid::regprocedure), concat(prosrc, pg_get_function_sqlbody(oid), pg_get_function_arguments(oid))
              FROM pg_proc WHERE oid >= 16384
            UNION ALL
            SELECT format('statistics %I', stxname), pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxexprs IS NOT NULL
            UNION ALL
            SELECT format('partition key of %s', partrelid::regclass), pg_get_partkeydef(partrelid) FROM pg_partitioned_table
            UNION ALL
            SELECT format('domain %s', oid::regtype), typdefault FROM pg_type WHERE typdefault IS NOT NULL
        ) d (place, definition)
        WHERE pgseal.text_holds_key(d.definition, keyring_id, key_version)
        LIMIT 1);
END $$;

CREATE FUNCTION pgseal.retire_key(keyring text, version int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id int4 := (SELECT k.id FROM pgseal.keyring k WHERE k.name = keyring);
    state text := (SELECT d.state FROM pgseal.data_key d WHERE d.keyring = id AND d.version = retire_key.version);
    place text;
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION 'keyring "%" does not exist', keyring USING ERRCODE = 'undefined_object';
    END IF;
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
    IF NOT pg_try_advisory_xact_lock(hashtextextended('pgseal.retire_key', 0)) THEN
        RAISE EXCEPTION 'another retire_key is running' USING ERRCODE = 'object_in_use';
    END IF;

    PERFORM pgseal.refuse_registered(id, version);
    -- A transaction may hold old bytes in memory and write them later. Twice, because one that started
    -- during the first wait may have read bytes that were replaced since.
    FOR round IN 1..2 LOOP
        PERFORM pgseal.refuse_prepared();
        PERFORM pgseal.wait_for_transactions();
        place := pgseal.find_key(id, version);
        EXIT WHEN place IS NOT NULL;
    END LOOP;
    IF place IS NULL THEN
        PERFORM pgseal.exclude_writers(id, version);
        PERFORM pgseal.refuse_prepared();
        place := pgseal.find_key(id, version);
    END IF;
    IF place IS NOT NULL THEN
        RAISE EXCEPTION 'data key version % of keyring "%" is still in use: %', version, keyring, place
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'CALL pgseal.reencrypt(table, column) replaces it in a column; REFRESH a materialized view; '
                      'set a DEFAULT again; VACUUM FULL stores what rows from before a column was added lack.';
    END IF;
    UPDATE pgseal.data_key d SET state = 'retired', retired = now() WHERE d.keyring = id AND d.version = retire_key.version;
END $$;

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

COMMENT ON FUNCTION pgseal.reseal(encrypted_jsonb) IS 'internal: the same document under the active keys of its keyring';
COMMENT ON FUNCTION pgseal.reseal(encrypted_text) IS 'internal: the same text under the active keys of its keyring';
COMMENT ON FUNCTION pgseal.is_current(encrypted_jsonb) IS 'is the value sealed under the active keys? Needs no key';
COMMENT ON FUNCTION pgseal.is_current(encrypted_text) IS 'is the value sealed under the active keys? Needs no key';
COMMENT ON FUNCTION pgseal.require_autocommit() IS 'internal: refuses to run inside a transaction block';
COMMENT ON FUNCTION pgseal.exclude_writers(int4, int4) IS 'internal: waits for writers with a data key version and keeps others out';
COMMENT ON FUNCTION pgseal.wait_for_transactions() IS 'internal: waits for every transaction that runs now';
COMMENT ON FUNCTION pgseal.text_holds_key(text, int4, int4) IS 'internal: does a text quote a value of a data key version?';
COMMENT ON FUNCTION pgseal.encrypted_column(regclass, name) IS 'internal: the type of an encrypted column';
COMMENT ON PROCEDURE pgseal.reencrypt(regclass, name, int4) IS 'encrypt the rows of a column anew under the active keys, in batches that are committed';
COMMENT ON FUNCTION pgseal.key_usage(regclass, name) IS 'how many values of a column each key version has';
COMMENT ON FUNCTION pgseal.find_key(int4, int4) IS 'internal: a place that holds a value of a data key version, or NULL';
COMMENT ON FUNCTION pgseal.retire_key(text, int4) IS 'refuse a data key version from now on, after making sure that no value needs it';
COMMENT ON FUNCTION pgseal.refuse_prepared() IS 'internal: refuses while a transaction is prepared';
