-- From 0.1.0 to 0.2.0.

DROP FUNCTION pgseal.value_columns();
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

CREATE OR REPLACE FUNCTION pgseal.find_key(keyring_id int4, key_version int4) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
    place record;
    present boolean;
BEGIN
    FOR place IN SELECT * FROM pgseal.value_columns() LOOP
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

    -- Literals that the parser sealed long ago.
    RETURN (SELECT d.object FROM pgseal.definitions() d WHERE pgseal.text_holds_key(d.definition, keyring_id, key_version) LIMIT 1);
END $$;

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
        FOR found IN EXECUTE format(
            CASE WHEN place.scalar IS NOT NULL THEN
                'SELECT h[1]::int4 AS keyring, h[2]::int4 AS data, h[3]::int4 AS index, h[4]::int4 AS transit, count(*) AS n
                   FROM (SELECT pgseal.head_of(%1$I::%3$s) AS h FROM ONLY %2$s WHERE %1$I IS NOT NULL) s GROUP BY 1, 2, 3, 4'
            ELSE
                'SELECT q.keyring_id AS keyring, q.key_version AS data, NULL::int4 AS index, 0 AS transit, count(*) AS n
                   FROM ONLY %2$s, pgseal.quoted_values(format(''%%s'', %1$I)) q GROUP BY 1, 2'
            END, place.attname, place.relation, place.scalar)
        LOOP
            RETURN QUERY SELECT f.severity, object, f.finding, f.what_to_do
                FROM pgseal.audit_key(found.keyring, found.data, found.index, format('%s values', found.n),
                    CASE WHEN place.scalar IS NOT NULL THEN format('CALL pgseal.reencrypt(%L, %L)', place.relation, place.attname)
                    ELSE 'UPDATE these rows with values sealed anew' END) f;
            IF found.transit = 1 THEN
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
           format('SELECT pgseal.revoke_keyring(%L, %L) where it should not', k.name, CASE WHEN p.role = 0 THEN 'public' ELSE p.role::text END)
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
    SELECT 'warning', d.object, 'it compares an encrypted value with a constant, which the catalog keeps in plaintext',
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
    FOR place IN SELECT v.* FROM pgseal.value_columns() v WHERE v.scalar LIKE '%encrypted_jsonb' AND v.blind IS NULL LOOP
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

COMMENT ON FUNCTION pgseal.value_columns() IS 'internal: columns that can hold encrypted values, in arrays and composites too';
