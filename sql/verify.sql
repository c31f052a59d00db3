-- Are stored values authentic?
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_jsonb, context text, context_known boolean,
        OUT result text, OUT keyring_id int4, OUT key_version int4, OUT finding text)
    AS 'MODULE_PATHNAME', 'pgseal_check_jsonb_record' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_jsonb, text, boolean)
    IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_text, context text, context_known boolean,
        OUT result text, OUT keyring_id int4, OUT key_version int4, OUT finding text)
    AS 'MODULE_PATHNAME', 'pgseal_check_text_record' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_text, text, boolean)
    IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';

-- Verdicts on the values of some pages. Where PostgreSQL itself cannot read them, the pages are halved until the
-- row is found.
CREATE FUNCTION pgseal.check_pages(leaf regclass, first_page int8, end_page int8, checked text)
    RETURNS TABLE (result text, keyring_id int4, key_version int4, finding text, number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    middle int8 := (first_page + end_page) / 2;
BEGIN
    RETURN QUERY EXECUTE pgseal.counted_verdicts(format('SELECT ctid, %s FROM ONLY %s WHERE ctid >= $1 AND ctid < $2', checked, leaf))
        USING pgseal.start_of_page(first_page), pgseal.start_of_page(end_page);
EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error OR data_exception OR cardinality_violation OR plpgsql_error THEN
    IF end_page - first_page > 1 THEN
        RETURN QUERY SELECT * FROM pgseal.check_pages(leaf, first_page, middle, checked);
        RETURN QUERY SELECT * FROM pgseal.check_pages(leaf, middle, end_page, checked);
    ELSE
        RETURN QUERY SELECT * FROM pgseal.check_rows(first_page,
            format('SELECT FROM ONLY %s WHERE ctid >= pgseal.start_of_page($1) AND ctid < pgseal.start_of_page($1 + 1)', leaf),
            format('SELECT %s FROM ONLY %s WHERE ctid = format(''(%%s,%%s)'', $1, $2)::tid', checked, leaf));
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.check_pages(regclass, int8, int8, text) IS 'internal: verdicts on the values of some pages';

-- The same without an expression, of one page: for other roles than the owner too.
CREATE FUNCTION pgseal.check_stored(leaf regclass, target_column name, base oid, page int8)
    RETURNS TABLE (result text, keyring_id int4, key_version int4, finding text, number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored text := format('pgseal.%s_values(%L, %L, $1, $2)', pgseal.kind_of_type(base), leaf, target_column);
BEGIN
    RETURN QUERY EXECUTE pgseal.counted_verdicts(format(
        'SELECT format(''(%%s,%%s)'', $1, u.i)::tid, pgseal.check_value(u.v, NULL, false) FROM unnest(%s) WITH ORDINALITY u (v, i)', stored))
        USING page, NULL::int4;
EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error OR program_limit_exceeded THEN
    RETURN QUERY SELECT * FROM pgseal.check_rows(page, format('SELECT %s', stored), format('SELECT pgseal.check_value((%s)[$2], NULL, false)', stored));
END $$;
COMMENT ON FUNCTION pgseal.check_stored(regclass, name, oid, int8) IS 'internal: verdicts on the values of a page, without an expression for the context';

CREATE FUNCTION pgseal.counted_verdicts(verdicts text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    -- OFFSET 0, so that a value is checked once.
    RETURN format('SELECT (s.v).result, (s.v).keyring_id, (s.v).key_version, (s.v).finding,
               count(*), array_agg(s.c ORDER BY s.c) FILTER (WHERE (s.v).result <> ''authentic'')
          FROM (%s OFFSET 0) s (c, v) WHERE (s.v).result IS NOT NULL GROUP BY 1, 2, 3, 4', verdicts);
COMMENT ON FUNCTION pgseal.counted_verdicts(text) IS 'internal: a query that counts equal verdicts of another, and lists the places of bad ones';

-- Row by row what could not be read at once: one statement reads page $1, the other checks row $2 of it, where 0 is no row.
CREATE FUNCTION pgseal.check_rows(page int8, reading text, checking text)
    RETURNS TABLE (result text, keyring_id int4, key_version int4, finding text, number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Bytes of an empty row: no page has more rows.
    least_row constant int4 := 28;
BEGIN
    BEGIN
        EXECUTE reading USING page, 0;
    EXCEPTION WHEN data_corrupted OR internal_error THEN
        RETURN QUERY SELECT 'corrupt', NULL::int4, NULL::int4, 'the whole page: ' || SQLERRM, NULL::int8, ARRAY[pgseal.start_of_page(page)];
        RETURN;
    END;
    FOR item IN 1 .. current_setting('block_size')::int4 / least_row LOOP
        BEGIN
            EXECUTE format('SELECT (s.v).* FROM (%s OFFSET 0) s (v)', checking) INTO result, keyring_id, key_version, finding USING page, item;
        EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error THEN
            SELECT 'corrupt', NULL, NULL, SQLERRM INTO result, keyring_id, key_version, finding;
        WHEN data_exception OR cardinality_violation OR plpgsql_error THEN
            -- Without its message, which may quote a value.
            SELECT 'unreadable', NULL, NULL, format('the expression for the context fails with SQLSTATE %s', SQLSTATE)
              INTO result, keyring_id, key_version, finding;
        END;
        IF result IS NOT NULL THEN
            number_of_values := 1;
            places := CASE WHEN result <> 'authentic' THEN ARRAY[format('(%s,%s)', page, item)::tid] END;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.check_rows(int8, text, text) IS 'internal: verdicts on the values of a page that PostgreSQL cannot read as a whole';

CREATE FUNCTION pgseal.require_decrypt(target_table regclass, target_column name) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound int4 := (SELECT pgseal.keyring_of_typmod(pgseal.base_type(a.atttypid), a.atttypmod) FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
    denied text := (SELECT k.name FROM pgseal.keyring k WHERE k.id = bound AND NOT pgseal.may_decrypt(k.id, quote_ident(current_user)::regrole));
BEGIN
    IF denied IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied for keyring "%": decrypt privilege needed', denied USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.require_decrypt(regclass, name) IS 'internal: an error where the role may not decrypt a column';

-- One snapshot for all of it. row_security: an error rather than a count of some rows only.
CREATE FUNCTION pgseal.verify(target_table regclass, target_column name, context text DEFAULT NULL, max_listed int4 DEFAULT 1000)
    RETURNS TABLE (result text, number_of_values int8, keyring text, key_version int4, finding text, relation regclass, row_ctid tid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
#variable_conflict use_column
DECLARE
    base regtype := pgseal.encrypted_column(target_table, target_column)::regtype;
    checked text := format('pgseal.check_value(%I::%s, (%s)::text, %L)', target_column, base, coalesce(context, 'NULL'), context IS NOT NULL);
    verdict text;
    tally jsonb := '{}';
    pages_at_once constant int8 := 256;
    listed int4 := 0;
    here record;
    found record;
    place tid;
    pages int8;
    total int8 := 0;
    report_due timestamptz := pgseal.next_notice();
BEGIN
    PERFORM pgseal.require_decrypt(target_table, target_column), pgseal.require_rows_here(target_table);
    -- An expression is run by the executor, and with it what the owner has made of the table.
    PERFORM pgseal.require_owner(target_table) WHERE context IS NOT NULL;
    FOR here IN SELECT * FROM pgseal.leaves(target_table) LOOP
        IF here.relkind NOT IN ('r', 'm') THEN
            RETURN QUERY SELECT 'not checked', NULL::int8, NULL::text, NULL::int4, 'its rows are on another server', here.leaf, NULL::tid;
            CONTINUE;
        END IF;
        pages := pg_relation_size(here.leaf) / current_setting('block_size')::int8;
        FOR page IN 0 .. pages - 1 BY pages_at_once LOOP
            FOR found IN
                SELECT c.* FROM pgseal.check_pages(here.leaf, page, least(page + pages_at_once, pages), checked) c WHERE context IS NOT NULL
                UNION ALL
                SELECT c.* FROM generate_series(page, least(page + pages_at_once, pages) - 1) p CROSS JOIN LATERAL pgseal.check_stored(here.leaf, target_column, base, p) c
                 WHERE context IS NULL
            LOOP
                total := total + coalesce(found.number_of_values, 0);
                FOREACH place IN ARRAY coalesce(found.places, '{}') LOOP
                    EXIT WHEN listed >= max_listed;
                    listed := listed + 1;
                    RETURN QUERY SELECT found.result, CASE WHEN found.number_of_values > 0 THEN 1::int8 END,
                        pgseal.keyring_label(found.keyring_id), found.key_version, found.finding, here.leaf, place;
                    found.number_of_values := found.number_of_values - 1;
                END LOOP;
                IF found.number_of_values > 0 THEN
                    verdict := to_jsonb(found) - '{number_of_values,places}'::text[];
                    tally := tally || jsonb_build_object(verdict, found.number_of_values + coalesce((tally ->> verdict)::int8, 0));
                END IF;
            END LOOP;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                RAISE NOTICE '%: page % of %, % values checked, % of them listed as not authentic',
                    here.leaf, least(page + pages_at_once, pages), pages, total, listed;
            END IF;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT v.result, t.value::int8, pgseal.keyring_label(v.keyring_id), v.key_version, v.finding, NULL::regclass, NULL::tid
                   FROM jsonb_each_text(tally) t
                  CROSS JOIN LATERAL jsonb_to_record(t.key::jsonb) v (result text, keyring_id int4, key_version int4, finding text)
                  ORDER BY 1, 3, 4, 5;
    RETURN QUERY SELECT c.* FROM unnest(pgseal.sealed_indexes_of(ARRAY(SELECT l.leaf FROM pgseal.leaves(target_table) l), target_column)) i, pgseal.check_index(i, max_listed) c;
END $$;
COMMENT ON FUNCTION pgseal.verify(regclass, name, text, int4)
    IS 'are all values of a column authentic, and the pages of its sealed indexes? Counts by keyring and key version, and the place of each that is not; '
        'with an SQL expression for the context also of moved ones; needs decrypt';

CREATE FUNCTION pgseal.keyring_label(keyring_id int4) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN coalesce((SELECT k.name::text FROM pgseal.keyring k WHERE k.id = keyring_id), keyring_id::text);
COMMENT ON FUNCTION pgseal.keyring_label(int4) IS 'internal: the name of a keyring, or its number where it is unknown';

-- As the server decides it: superusers always, PUBLIC's grant for all, a role's for whoever uses its privileges.
CREATE FUNCTION pgseal.may_decrypt(keyring_id int4, asker regrole) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = asker)
        OR EXISTS (SELECT FROM pgseal.privilege p
                    WHERE p.keyring = keyring_id AND p.decrypt
                      AND (p.role = 0 OR (p.role IN (SELECT r.oid FROM pg_roles r) AND pg_has_role(asker, p.role, 'USAGE'))))
$$;
COMMENT ON FUNCTION pgseal.may_decrypt(int4, regrole) IS 'internal: may a role decrypt values of a keyring?';
