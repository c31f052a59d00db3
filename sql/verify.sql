-- Are stored values authentic?
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_jsonb, context text, context_known boolean) RETURNS text[]
    AS 'MODULE_PATHNAME', 'pgseal_check_jsonb' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_jsonb, text, boolean) IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_text, context text, context_known boolean) RETURNS text[]
    AS 'MODULE_PATHNAME', 'pgseal_check_text' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_text, text, boolean) IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';

-- Verdicts on the values of some pages. Where PostgreSQL itself cannot read them, the pages are halved until the
-- row is found.
CREATE FUNCTION pgseal.check_pages(leaf regclass, first_page int8, end_page int8, checked text)
    RETURNS TABLE (verdict text[], number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    middle int8 := (first_page + end_page) / 2;
    start tid := format('(%s,0)', first_page);
    stop tid := format('(%s,0)', end_page);
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT v, count(*), array_agg(c ORDER BY c) FILTER (WHERE v[1] <> ''authentic'')
           FROM (SELECT ctid AS c, %s AS v FROM ONLY %s WHERE ctid >= $1 AND ctid < $2) s WHERE v IS NOT NULL GROUP BY v',
        checked, leaf) USING start, stop;
EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error OR data_exception OR cardinality_violation OR plpgsql_error THEN
    IF end_page - first_page > 1 THEN
        RETURN QUERY SELECT * FROM pgseal.check_pages(leaf, first_page, middle, checked);
        RETURN QUERY SELECT * FROM pgseal.check_pages(leaf, middle, end_page, checked);
    ELSE
        RETURN QUERY SELECT * FROM pgseal.check_rows(leaf, first_page, checked);
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.check_pages(regclass, int8, int8, text) IS 'internal: verdicts on the values of some pages';

CREATE FUNCTION pgseal.check_rows(leaf regclass, page int8, checked text)
    RETURNS TABLE (verdict text[], number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place tid;
BEGIN
    BEGIN
        EXECUTE format('SELECT FROM ONLY %s WHERE ctid >= $1 AND ctid < $2', leaf)
            USING format('(%s,0)', page)::tid, format('(%s,0)', page + 1)::tid;
    EXCEPTION WHEN data_corrupted OR internal_error THEN
        RETURN QUERY SELECT ARRAY['corrupt', '', '', 'the whole page: ' || SQLERRM], NULL::int8,
                            ARRAY[format('(%s,0)', page)::tid];
        RETURN;
    END;
    -- No page has more rows than fit with empty ones.
    FOR item IN 1 .. current_setting('block_size')::int4 / 28 LOOP
        place := format('(%s,%s)', page, item);
        BEGIN
            EXECUTE format('SELECT %s FROM ONLY %s WHERE ctid = $1', checked, leaf) INTO verdict USING place;
        EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error THEN
            verdict := ARRAY['corrupt', '', '', SQLERRM];
        WHEN data_exception OR cardinality_violation OR plpgsql_error THEN
            -- Without its message, which may quote a value.
            verdict := ARRAY['unreadable', '', '', format('the expression for the context fails with SQLSTATE %s', SQLSTATE)];
        END;
        IF verdict IS NOT NULL THEN
            number_of_values := 1;
            places := CASE WHEN verdict[1] <> 'authentic' THEN ARRAY[place] END;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.check_rows(regclass, int8, text) IS 'internal: verdicts on the values of a page that PostgreSQL cannot read as a whole';

-- The same without an expression, of one page: for other roles than the owner too.
CREATE FUNCTION pgseal.check_stored(leaf regclass, target_column name, base oid, page int8)
    RETURNS TABLE (verdict text[], number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored text := format('pgseal.%s_values(%L, %L, $1, $2)', CASE base WHEN pgseal.own_type('encrypted_text') THEN 'text' ELSE 'jsonb' END, leaf, target_column);
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT s.v, count(*), array_agg(s.c ORDER BY s.c) FILTER (WHERE s.v[1] <> ''authentic'')
           FROM (SELECT format(''(%%s,%%s)'', $1, u.i)::tid, pgseal.check_value(u.v, NULL, false) FROM unnest(%s) WITH ORDINALITY u (v, i)) s (c, v)
          WHERE s.v IS NOT NULL GROUP BY s.v', stored) USING page, NULL::int4;
EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error OR program_limit_exceeded THEN
    BEGIN
        EXECUTE format('SELECT %s', stored) USING page, 0;
    EXCEPTION WHEN data_corrupted OR internal_error THEN
        RETURN QUERY SELECT ARRAY['corrupt', '', '', 'the whole page: ' || SQLERRM], NULL::int8, ARRAY[format('(%s,0)', page)::tid];
        RETURN;
    END;
    -- No page has more rows than fit with empty ones.
    FOR item IN 1 .. current_setting('block_size')::int4 / 28 LOOP
        BEGIN
            EXECUTE format('SELECT pgseal.check_value((%s)[$2], NULL, false)', stored) INTO verdict USING page, item;
        EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error THEN
            verdict := ARRAY['corrupt', '', '', SQLERRM];
        END;
        IF verdict IS NOT NULL THEN
            number_of_values := 1;
            places := CASE WHEN verdict[1] <> 'authentic' THEN ARRAY[format('(%s,%s)', page, item)::tid] END;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.check_stored(regclass, name, oid, int8) IS 'internal: verdicts on the values of a page, without an expression for the context';

-- One snapshot for all of it. row_security: an error rather than a count of some rows only.
CREATE FUNCTION pgseal.verify(target_table regclass, target_column name, context text DEFAULT NULL, max_listed int4 DEFAULT 1000)
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
    -- An expression is run by the executor, and with it what the owner has made of the table.
    PERFORM pgseal.require_owner(target_table) WHERE context IS NOT NULL;
    FOR here IN SELECT * FROM pgseal.leaves(target_table) LOOP
        IF here.relkind NOT IN ('r', 'm') THEN
            RETURN QUERY SELECT 'not checked', NULL::int8, NULL::text, NULL::int4, 'its rows are on another server', here.leaf, NULL::tid;
            CONTINUE;
        END IF;
        pages := pg_relation_size(here.leaf) / current_setting('block_size')::int8;
        FOR page IN 0 .. pages - 1 BY 256 LOOP
            FOR found IN
                SELECT c.* FROM pgseal.check_pages(here.leaf, page, least(page + 256, pages), checked) c WHERE context IS NOT NULL
                UNION ALL
                SELECT c.* FROM generate_series(page, least(page + 256, pages) - 1) p CROSS JOIN LATERAL pgseal.check_stored(here.leaf, target_column, base, p) c
                 WHERE context IS NULL
            LOOP
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
COMMENT ON FUNCTION pgseal.verify(regclass, name, text, int4) IS 'are all values of a column authentic? Counts by keyring and key version, and the place of each that is not; with an SQL expression for the context also of moved ones; needs decrypt';

CREATE FUNCTION pgseal.read_verdict(verdict text[], OUT result text, OUT keyring text, OUT key_version int4, OUT finding text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT verdict[1], coalesce((SELECT k.name::text FROM pgseal.keyring k WHERE k.id::text = verdict[2]), nullif(verdict[2], '')),
           nullif(verdict[3], '')::int4, nullif(verdict[4], '')
$$;
COMMENT ON FUNCTION pgseal.read_verdict(text[]) IS 'internal: the parts of a verdict';

-- As the server decides it: superusers always, PUBLIC's grant for all, a role's for whoever uses its privileges.
CREATE FUNCTION pgseal.may_decrypt(keyring_id int4, asker regrole) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = asker)
        OR EXISTS (SELECT FROM pgseal.privilege p
                    WHERE p.keyring = keyring_id AND p.decrypt
                      AND (p.role = 0 OR (p.role IN (SELECT r.oid FROM pg_roles r) AND pg_has_role(asker, p.role, 'USAGE'))))
$$;
COMMENT ON FUNCTION pgseal.may_decrypt(int4, regrole) IS 'internal: may a role decrypt values of a keyring?';
