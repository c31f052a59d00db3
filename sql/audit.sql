-- Is the database set up in a way that gives plaintext away?

-- Sealed literals that a text quotes.
CREATE FUNCTION pgseal.quoted_values(quoting text) RETURNS TABLE (keyring_id int4, key_version int4)
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ((get_byte(h, 4) & 127) << 24) | (get_byte(h, 5) << 16) | (get_byte(h, 6) << 8) | get_byte(h, 7), (get_byte(h, 8) << 8) | get_byte(h, 9)
      FROM (SELECT decode(m[1], 'base64') FROM regexp_matches(quoting, 'pgseal:([A-Za-z0-9+/]{24})', 'g') m) q (h)
$$;
COMMENT ON FUNCTION pgseal.quoted_values(text) IS 'internal: keyrings and key versions of the sealed values that a text quotes';

-- Does an expression compare an encrypted value with a constant in plain sight? Keys behind ->, sealed literals and empty documents are none.
CREATE FUNCTION pgseal.compares_plaintext(definition text, whole boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN whole THEN bare ~ '''[^'']'
           ELSE bare ~ '(@>|@@|<->|<=>|<#>|<\+>)[^'';]{0,200}''[^'']'
             OR bare ~ 'pgseal\.(filter|filter_any|filter_casefold|between|filter_between|encrypt)\([^;]*''[^'']'
             OR bare ~ '#KEY#[^'']{0,60}(=|<>|<|>|~~|~|\mIN\M|\mLIKE\M|\mANY\M)[^'']{0,40}''[^'']' END
      FROM (SELECT regexp_replace(regexp_replace(definition, '''(pgseal:[^'']*|\{\}|\[\])''(::[a-z_."]+)?', '#SEALED#', 'g'),
                                  '((?<!<)(->>?|#>>?)|\?[|&]?)\s*''[^'']*''(::[a-z]+(\[\])?)?', '#KEY#', 'g') AS bare) b
$$;
COMMENT ON FUNCTION pgseal.compares_plaintext(text, boolean) IS 'internal: does a definition compare with a plaintext constant?';

CREATE FUNCTION pgseal.audit_indexes() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    place record;
    found record;
BEGIN
    FOR place IN SELECT * FROM pgseal.sealed_indexes() LOOP
        object := format('index %s', place.index);
        IF place.blind IS NOT NULL THEN
            RETURN QUERY SELECT 'unknown', object, format('pages of an index of a %s were not looked at', place.blind), 'audit it where they are';
            CONTINUE;
        END IF;
        BEGIN
            FOR found IN SELECT u.*, k.id, sum(u.number_of_rows) OVER () AS all_rows
                           FROM pgseal.index_key_usage(place.index) u LEFT JOIN pgseal.keyring k ON k.name = u.keyring LOOP
                IF found.data_key IS NOT NULL THEN
                    RETURN QUERY SELECT f.severity, object, f.finding, f.what_to_do
                        FROM pgseal.audit_key(found.id, found.data_key, NULL, format('%s pages', found.number_of_pages),
                            format('CALL pgseal.reencrypt_index(%L)', place.index)) f;
                ELSIF found.number_of_rows > 0.01 * found.all_rows THEN
                    RETURN QUERY SELECT 'warning', object, format('%s rows were put aside while no key was to be had: every scan visits all of them', found.number_of_rows),
                        format('CALL pgseal.reencrypt_index(%L)', place.index);
                END IF;
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            RETURN QUERY SELECT 'unknown', object, format('pages were not looked at: sessions %s have locked the index', pgseal.other_sessions_on(place.index)),
                'audit it when they have ended';
        END;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.audit_indexes() IS 'internal: findings on pages of sealed indexes; see audit';

CREATE FUNCTION pgseal.audit_values() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
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
        BEGIN
            FOR found IN SELECT * FROM pgseal.column_keys(place.relation, place.attname) LOOP
                RETURN QUERY SELECT f.severity, object, f.finding, f.what_to_do
                    FROM pgseal.audit_key(found.keyring_id, found.key_version, found.index_key_version, format('%s values', found.number_of_values),
                        CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = place.relation AND c.relkind = 'm')
                        THEN format('REFRESH MATERIALIZED VIEW %s', place.relation)
                        WHEN place.scalar IS NOT NULL THEN format('CALL pgseal.reencrypt(%L, %L)', place.relation, place.attname)
                        ELSE 'UPDATE these rows with values sealed anew' END) f;
                IF found.in_transit THEN
                    RETURN QUERY SELECT 'warning', object, format('%s values came as literals and were stored as they were: equal literals may have equal bytes', found.number_of_values),
                        'declare the keyring on the column, as in encrypted_jsonb(keyring), or send typed parameters; then CALL pgseal.reencrypt';
                END IF;
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            RETURN QUERY SELECT 'unknown', object, format('values were not looked at: sessions %s have locked the table', pgseal.other_sessions_on(place.relation)),
                'audit it when they have ended';
        END;
    END LOOP;
    RETURN QUERY SELECT * FROM pgseal.audit_indexes();
    BEGIN
        RETURN QUERY SELECT f.severity, d.object, f.finding, f.what_to_do
            FROM pgseal.definitions() d CROSS JOIN LATERAL (SELECT DISTINCT * FROM pgseal.quoted_values(d.definition)) q
            CROSS JOIN LATERAL pgseal.audit_key(q.keyring_id, q.key_version, NULL, 'a sealed literal', 'define it anew') f;
    EXCEPTION WHEN lock_not_available THEN
        RETURN QUERY SELECT 'unknown', 'definitions', 'literals in definitions were not looked at: somebody has locked a table below a view', 'audit again';
    END;
END $$;
COMMENT ON FUNCTION pgseal.audit_values() IS 'internal: findings on stored values; see audit';

-- What is to be said of values under a key.
CREATE FUNCTION pgseal.audit_key(keyring_id int4, data int4, index int4, what text, remedy text)
    RETURNS TABLE (severity text, finding text, what_to_do text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s.state = 'decrypt-only' THEN 'warning' ELSE 'critical' END,
           CASE WHEN keyring_id IS NULL THEN what || ' are malformed'
                ELSE format('%s under data key version %s of keyring %s, which is %s', what, data, coalesce(s.name, keyring_id::text), coalesce(s.state, 'unknown')) END,
           CASE WHEN s.state = 'decrypt-only' THEN remedy ELSE 'they cannot be read: restore the keyring''s rows or the values; pgseal.verify(table, column) lists them' END
      FROM (SELECT (SELECT k.name::text FROM pgseal.keyring k WHERE k.id = keyring_id) AS name,
                   (SELECT d.state FROM pgseal.data_key d WHERE d.keyring = keyring_id AND d.version = data) AS state) s
     WHERE s.state IS DISTINCT FROM 'active'
    UNION ALL
    SELECT 'warning', format('%s with tokens of index key version %s of keyring %s, which is %s', what, index, k.name, coalesce(i.state, 'unknown')), remedy
      FROM pgseal.keyring k LEFT JOIN pgseal.index_key i ON i.keyring = k.id AND i.version = index
     WHERE k.id = keyring_id AND index > 0 AND i.state IS DISTINCT FROM 'active'
$$;
COMMENT ON FUNCTION pgseal.audit_key(int4, int4, int4, text, text) IS 'internal: findings on a key version in use; see audit';

-- Disks below a directory: do they lead to dm-crypt?
CREATE FUNCTION pgseal.audit_disk(directory text) RETURNS TABLE (severity text, finding text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    device text;
    devices text[];
    depth int4 := 0;
BEGIN
    SELECT m.fields[3] INTO device
      FROM (SELECT string_to_array(line, ' ') AS fields
              FROM regexp_split_to_table(pg_read_file('/proc/self/mountinfo', true), E'\n') WITH ORDINALITY l (line, number) ORDER BY number) m
     WHERE starts_with(directory || '/', rtrim(replace(m.fields[5], '\040', ' '), '/') || '/')
     ORDER BY length(m.fields[5]) DESC LIMIT 1;
    -- Major number 0 is no device: a container's overlay, network and memory file systems.
    IF device IS NULL OR device LIKE '0:%' THEN
        RETURN QUERY SELECT 'unknown', 'whether the disk below is encrypted cannot be seen from here';
        RETURN;
    END IF;
    IF pg_read_file(format('/sys/dev/block/%s/dm/uuid', device), true) LIKE 'CRYPT-%' THEN
        RETURN;
    END IF;
    devices := ARRAY(SELECT d FROM pg_ls_dir(format('/sys/dev/block/%s/slaves', device), true, false) d);
    WHILE cardinality(devices) > 0 AND depth < 8 LOOP
        IF EXISTS (SELECT FROM unnest(devices) d WHERE pg_read_file(format('/sys/block/%s/dm/uuid', d), true) LIKE 'CRYPT-%') THEN
            RETURN;
        END IF;
        devices := ARRAY(SELECT s FROM unnest(devices) d, pg_ls_dir(format('/sys/block/%s/slaves', d), true, false) s);
        depth := depth + 1;
    END LOOP;
    RETURN QUERY SELECT 'warning', 'on a block device without dm-crypt; encryption by the disk itself or a cloud provider cannot be seen from here';
EXCEPTION WHEN OTHERS THEN
    RETURN QUERY SELECT 'unknown', 'whether the disk below is encrypted cannot be seen from here';
END $$;
COMMENT ON FUNCTION pgseal.audit_disk(text) IS 'internal: finding on the disk below a directory; see audit';

CREATE FUNCTION pgseal.audit_settings() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH given (name, value, scope) AS (
        SELECT s.name, s.reset_val, '' FROM pg_settings s
        UNION ALL
        SELECT split_part(c, '=', 1), substr(c, strpos(c, '=') + 1),
               concat(CASE WHEN setrole <> 0 THEN ' of role ' || setrole::regrole END,
                      CASE WHEN setdatabase <> 0 THEN ' of database ' || quote_ident((SELECT datname FROM pg_database d WHERE d.oid = setdatabase)) END)
          FROM pg_db_role_setting, unnest(setconfig) c
         WHERE setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
    )
    SELECT 'warning', format('setting %s%s', g.name, g.scope), k.finding, k.what_to_do
      FROM given g JOIN (VALUES
        ('log_statement', '^(mod|all)$', 'literals of statements are written to the server''s log', 'set it to none or ddl'),
        ('log_min_duration_statement', '^\d', 'literals of slow statements are written to the server''s log', 'set it to -1, or send values as bind parameters only and set log_parameter_max_length = 0'),
        ('log_min_duration_sample', '^\d', 'literals of slow statements are written to the server''s log', 'set it to -1, or send values as bind parameters only and set log_parameter_max_length = 0'),
        ('log_transaction_sample_rate', '^(0\.0*[1-9]|[1-9])', 'literals of sampled transactions are written to the server''s log', 'set it to 0'),
        ('log_min_error_statement', '^(debug|info|notice|warning|error|log)', 'the statement of an error is written to the server''s log with its literals', 'set it to panic, or send values as bind parameters only'),
        ('log_parameter_max_length_on_error', '^(-1|[1-9])', 'bind parameters of statements that fail are written to the server''s log', 'set it to 0'),
        ('auto_explain.log_min_duration', '^\d', 'auto_explain writes statements and plans with their literals to the server''s log', 'set it to -1'),
        ('debug_print_parse', '^on$', 'parse trees with their literals are written to the server''s log', 'set it to off'),
        ('debug_print_rewritten', '^on$', 'parse trees with their literals are written to the server''s log', 'set it to off'),
        ('debug_print_plan', '^on$', 'plans with their literals are written to the server''s log', 'set it to off')
      ) k (name, pattern, finding, what_to_do) ON k.name = g.name AND g.value ~ k.pattern
    UNION ALL
    SELECT 'warning', 'setting log_parameter_max_length', 'bind parameters are written to the server''s log with the statements that are logged', 'set it to 0'
     WHERE current_setting('log_parameter_max_length') <> '0'
       AND EXISTS (SELECT FROM given g WHERE (g.name = 'log_statement' AND g.value IN ('mod', 'all'))
                      OR (g.name IN ('log_min_duration_statement', 'log_min_duration_sample') AND g.value ~ '^\d') OR (g.name = 'log_duration' AND g.value = 'on'))
    UNION ALL
    SELECT 'warning', 'extension pg_stat_statements', 'it stores the text of statements in a file: literals of utility statements, such as CREATE VIEW, as they are',
           'set pg_stat_statements.track_utility = off'
     WHERE current_setting('shared_preload_libraries') ~ '\mpg_stat_statements\M'
       AND coalesce(current_setting('pg_stat_statements.track_utility', true), 'on') = 'on'
    UNION ALL
    SELECT d.severity, p.object, d.finding,
           'encrypt the disk below it, WAL and temporary files included: sorts and hashes of decrypted values spill there'
      FROM (SELECT 'the data directory', current_setting('data_directory')
            UNION ALL
            SELECT format('tablespace %I', spcname), pg_tablespace_location(oid) FROM pg_tablespace WHERE oid >= 16384) p (object, directory)
      CROSS JOIN LATERAL pgseal.audit_disk(p.directory) d
$$;
COMMENT ON FUNCTION pgseal.audit_settings() IS 'internal: findings on settings and disks; see audit';

-- A restore that left rows out: nothing but this keeps the tables of keys together.
CREATE FUNCTION pgseal.audit_orphans() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT 'critical', format('table pgseal.%s', o.name), format('it has rows of a keyring %s, which does not exist', o.keyring),
           'restore the rows of pgseal.keyring from the dump that the others came from'
      FROM (SELECT 'data_key' AS name, d.keyring FROM pgseal.data_key d UNION SELECT 'index_key', i.keyring FROM pgseal.index_key i
            UNION SELECT 'privilege', p.keyring FROM pgseal.privilege p) o
     WHERE NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.id = o.keyring)
    UNION ALL
    SELECT 'critical', format('keyring %I', k.name), format('it has no active %s key', o.purpose),
           format('restore the rows of pgseal.%s_key from the dump that the keyring came from', o.purpose)
      FROM pgseal.keyring k CROSS JOIN (VALUES ('data'), ('index')) o (purpose)
     WHERE NOT EXISTS (SELECT FROM pgseal.data_key d WHERE d.keyring = k.id AND d.state = 'active' AND o.purpose = 'data')
       AND NOT EXISTS (SELECT FROM pgseal.index_key i WHERE i.keyring = k.id AND i.state = 'active' AND o.purpose = 'index')
    UNION ALL
    SELECT 'warning', format('keyring %I', k.name),
           CASE WHEN p.role IN (SELECT r.oid FROM pg_roles r) THEN format('its restored privileges are those of role %s, made since', p.role)
                ELSE format('its restored privileges wait for a role %s, whoever makes it', p.role) END,
           format('SELECT pgseal.revoke_keyring(%L, %L), or let pgseal.grant_keyring confirm them', k.name, p.role)
      FROM pgseal.privilege p JOIN pgseal.keyring k ON k.id = p.keyring
     WHERE pgseal.is_missing(p.role);
END;
COMMENT ON FUNCTION pgseal.audit_orphans() IS 'internal: findings on rows that a restore left out; see audit';

CREATE FUNCTION pgseal.audit_catalogs(max_key_age interval) RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT * FROM pgseal.audit_orphans()
    UNION ALL
    SELECT 'critical', format('keyring %I', k.name), 'its wrapping key is a file on this server: whoever can read it can read the data',
           'create a keyring with a kms_endpoint of its own, at a KMS, and move the columns to it'
      FROM pgseal.keyring k WHERE coalesce(k.kms_endpoint, pgseal.kms_endpoint()) LIKE 'file:%'
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
                     AND (b.typcategory = 'S' AND b.oid <> pgseal.own_type('encrypted_text') OR b.oid IN ('json'::regtype, 'jsonb'::regtype, 'xml'::regtype)))
       AND EXISTS (SELECT FROM pg_attribute v JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = v.atttypid AND d.deptype = 'e'
                     JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE v.attrelid = a.attrelid AND NOT v.attisdropped
                      AND (e.extname = 'vector' OR v.atttypid = pgseal.own_type('encrypted_vector')))
    UNION ALL
    SELECT 'warning', format('column %I of %s', a.attname, a.attrelid::regclass),
           format('embeddings are stored in plaintext (%s) beside encrypted columns: much of a text can be told from its embedding', format_type(a.atttypid, a.atttypmod)),
           format('CALL pgseal.encrypt_column(%L, %L), if the texts are confidential', a.attrelid::regclass, a.attname)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relkind IN ('r', 'p', 'm', 'f') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
       AND pgseal.base_type(a.atttypid) IN (pgseal.vector_type('vector'), pgseal.vector_type('halfvec'))
       AND EXISTS (SELECT FROM pg_attribute e WHERE e.attrelid = a.attrelid AND e.attnum > 0 AND NOT e.attisdropped
                      AND pgseal.base_type(e.atttypid) = ANY (pgseal.value_types()))
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
COMMENT ON FUNCTION pgseal.audit_catalogs(interval) IS 'internal: findings on keyrings, roles and definitions; see audit';

-- What evaluates encrypted values, directly or through views, operators and functions, as pg_depend and the text of functions tell;
-- plaintext where it decrypts. Bytes alone, as key_version reads them, count for nothing.
CREATE FUNCTION pgseal.evaluations() RETURNS TABLE (class oid, id oid, plaintext boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE sealed (types) AS (SELECT pgseal.value_types()),
    evaluates (class, id, plaintext) AS (
        SELECT 'pg_proc'::regclass::oid, p.oid, e.objid IS NULL OR p.proname IN ('decrypt', 'decrypt_as_text', 'decrypt_as_name', 'decrypt_as_array', 'reveal', 'plain', 'plain_varchar')
          FROM sealed s, pg_proc p JOIN pg_language l ON l.oid = p.prolang
          LEFT JOIN (pg_depend e JOIN pg_extension x ON x.oid = e.refobjid AND x.extname = 'pgseal')
            ON e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e' AND e.refclassid = 'pg_extension'::regclass
         WHERE CASE WHEN e.objid IS NOT NULL
               THEN p.proargtypes::oid[] && s.types AND p.provolatile <> 'i' AND p.proname NOT IN ('coerce', 'reseal', 'is_current')
               ELSE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
                    AND (p.proargtypes::oid[] && s.types OR p.prosrc ~* '\mdecrypt\M') END
        UNION
        SELECT n.class, n.id, e.plaintext FROM evaluates e CROSS JOIN LATERAL (
            SELECT d.classid, d.objid FROM pg_depend d
             WHERE d.refclassid = e.class AND d.refobjid = e.id AND d.deptype IN ('n', 'a', 'i')
               AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_class'::regclass, 'pg_constraint'::regclass,
                                 'pg_attrdef'::regclass, 'pg_statistic_ext'::regclass)
               -- Not whatever stands beside it in a table.
               AND (e.class <> 'pg_class'::regclass OR (d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
                        AND EXISTS (SELECT FROM pg_class c WHERE c.oid = e.id AND c.relkind IN ('v', 'm'))))
            UNION ALL
            SELECT 'pg_class'::regclass, w.ev_class FROM pg_rewrite w WHERE e.class = 'pg_rewrite'::regclass AND w.oid = e.id AND w.ev_type = '1'
        ) n (class, id)
    ) SELECT v.class, v.id, bool_or(v.plaintext) FROM evaluates v
       WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = v.class AND d.objid = v.id AND d.deptype = 'e') GROUP BY 1, 2
$$;
COMMENT ON FUNCTION pgseal.evaluations() IS 'internal: objects that evaluate encrypted values; see audit';

-- Copies of decrypted values, and what a restore evaluates while the keys may not be there.
CREATE FUNCTION pgseal.audit_evaluations() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT k.severity, CASE WHEN e.class = 'pg_attrdef'::regclass THEN format('generated column %I of %s', a.attname, a.attrelid::regclass)
                            WHEN c.relkind = 'p' THEN format('partition key of %s', c.oid::regclass)
                            WHEN o.contypid <> 0 THEN format('constraint %I of domain %s', o.conname, o.contypid::regtype) ELSE pgseal.describe(e.class, e.id, 0) END,
           k.finding, k.what_to_do
      FROM pgseal.evaluations() e
      LEFT JOIN pg_class c ON e.class = 'pg_class'::regclass AND c.oid = e.id
      LEFT JOIN (pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum) ON e.class = 'pg_attrdef'::regclass AND f.oid = e.id
      LEFT JOIN pg_constraint o ON e.class = 'pg_constraint'::regclass AND o.oid = e.id
      LEFT JOIN pg_proc p ON e.class = 'pg_proc'::regclass AND p.oid = e.id
      LEFT JOIN pg_rewrite w ON e.class = 'pg_rewrite'::regclass AND w.oid = e.id
      CROSS JOIN LATERAL (VALUES
        ('critical', c.relkind = 'm' AND e.plaintext, 'it stores decrypted values, and a restore needs the KMS to fill it',
            'leave the column encrypted in its query, and decrypt where it is read'),
        ('critical', c.relkind IN ('i', 'I'), 'it stores what it makes from decrypted values',
            'drop it; a GIN index on the column itself holds tokens of searchable paths'),
        ('critical', c.relkind = 'p', 'partitions are chosen by what it makes from decrypted values; a restore does so while rows load',
            'partition by another column'),
        ('critical', a.attgenerated <> '', 'it stores what it makes from decrypted values; a restore evaluates it while rows load', 'drop it, or make it a view''s column'),
        ('critical', e.class = 'pg_statistic_ext'::regclass, 'ANALYZE stores what it makes from decrypted values', 'DROP STATISTICS'),
        ('warning', w.ev_type <> '1' AND e.plaintext, 'it may write decrypted values to another table', 'write the column as it is'),
        ('warning', p.provolatile = 'i', 'it is marked IMMUTABLE but evaluates encrypted values: plans and indexes keep its results', 'mark it STABLE'),
        ('warning', o.contype = 'c' AND (o.convalidated OR o.contypid <> 0), 'a restore evaluates it while rows load, when the keys may not be there yet',
            CASE WHEN o.contypid <> 0 THEN 'make it a constraint of the tables, NOT VALID'
            WHEN o.conrelid <> 0 THEN format('ALTER TABLE %s DROP CONSTRAINT %I, and ADD it NOT VALID: it holds for new rows, and a dump has it behind the rows', o.conrelid::regclass, o.conname) END)
      ) k (severity, applies, finding, what_to_do)
     WHERE k.applies
    UNION ALL
    SELECT DISTINCT 'warning', r.object, pgseal.comparison_hint(), 'every UPDATE of the table fails until then'
      FROM (SELECT DISTINCT v.relation FROM pgseal.value_columns() v) v CROSS JOIN LATERAL pgseal.row_triggers(v.relation) r WHERE r.compares
$$;
COMMENT ON FUNCTION pgseal.audit_evaluations() IS 'internal: findings on what evaluates encrypted values; see audit';

-- Whom a standing pgseal.reveal gives plaintext that was meant for an application: those who copy databases, and those whose sessions
-- do more than a client's.
CREATE FUNCTION pgseal.audit_reveal() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH standing (role, database) AS (
        SELECT s.setrole, s.setdatabase FROM pg_db_role_setting s, unnest(s.setconfig) c
         WHERE c ~ '^pgseal\.reveal=' AND split_part(c, '=', 2) NOT IN ('off', 'false', 'no', '0')
           AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
    )
    SELECT 'warning', format('role %I', r.rolname), 'pgseal.reveal stands for it, and it '
             || concat_ws(' and ', CASE WHEN r.rolsuper THEN 'is a superuser' END, CASE WHEN r.rolreplication THEN 'may replicate' END,
                                   CASE WHEN o.owns THEN 'owns encrypted columns' END),
           CASE WHEN bool_or(s.role <> 0) THEN format('ALTER ROLE %I RESET pgseal.reveal; let it stand for roles of applications only', r.rolname)
                ELSE 'RESET pgseal.reveal for the database; let it stand for roles of applications only' END
      FROM standing s JOIN pg_roles r ON r.rolcanlogin AND s.role IN (0, r.oid)
     CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pgseal.value_columns() v JOIN pg_class c ON c.oid = v.relation WHERE c.relowner = r.oid)) o (owns)
     WHERE r.rolsuper OR r.rolreplication OR o.owns
     GROUP BY r.rolname, r.rolsuper, r.rolreplication, o.owns
$$;
COMMENT ON FUNCTION pgseal.audit_reveal() IS 'internal: findings on roles for which pgseal.reveal stands; see audit';

-- What needs a key runs with the caller's privileges; the rest reads catalogs and headers of values only.
CREATE FUNCTION pgseal.audit(max_key_age interval DEFAULT '1 year', sample_size int4 DEFAULT 10000)
    RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET jit = off AS $$
#variable_conflict use_column
DECLARE
    place record;
BEGIN
    RETURN QUERY
        SELECT f.* FROM (SELECT * FROM pgseal.audit_catalogs(max_key_age) UNION ALL SELECT * FROM pgseal.audit_values() UNION ALL SELECT * FROM pgseal.audit_evaluations()
                         UNION ALL SELECT * FROM pgseal.audit_settings() UNION ALL SELECT * FROM pgseal.audit_reveal()
                         UNION ALL SELECT 'warning', format('column %I of %s', u.column_name, u.relation), format('it is plain, and rule %s of pgseal.protect is about its table', u.pattern),
                                          format('CALL pgseal.encrypt_table(%L) as its owner', u.relation) FROM pgseal.unprotected() u) f
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
COMMENT ON FUNCTION pgseal.audit(interval, int4)
    IS 'what is set up in a way that gives plaintext away, with severity and what to do; reads the headers of all values';
