-- A column moves to another type beside its old self: a second column, a trigger that fills it for every writer, batches for
-- the rows that are there, a comparison of every row, and a swap of the names under a short lock. What is half done is found
-- again by the names of the second column, the trigger and its function, which follow from the old column's number.
CREATE FUNCTION pgseal.migration_column(target_table regclass, target_column name) RETURNS name
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := (SELECT a.attnum FROM pg_attribute a
                     WHERE a.attrelid = target_table AND a.attname = target_column AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    IF number IS NULL THEN
        RAISE EXCEPTION 'column "%" of % does not exist', target_column, target_table USING ERRCODE = 'undefined_column';
    END IF;
    -- By its comment where a dump and restore have given the columns other numbers.
    RETURN coalesce((SELECT a.attname FROM pg_attribute a
                      WHERE a.attrelid = target_table AND NOT a.attisdropped AND a.attname ~ '^pgseal_new_\d+$'
                        AND col_description(a.attrelid, a.attnum) = format('column %I in its new type, while pgseal fills it', target_column)),
                    format('pgseal_new_%s', number));
END $$;
COMMENT ON FUNCTION pgseal.migration_column(regclass, name) IS 'internal: name of the second column while a column changes its type';

CREATE FUNCTION pgseal.migration_started(target_table regclass, target_column name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target_table AND NOT a.attisdropped
                      AND a.attname = pgseal.migration_column(target_table, target_column));
COMMENT ON FUNCTION pgseal.migration_started(regclass, name) IS 'internal: is there such a second column?';

-- The table and its partitions.
CREATE FUNCTION pgseal.migration_tables(target_table regclass) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT target_table UNION SELECT relid FROM pg_partition_tree(target_table);
END;
COMMENT ON FUNCTION pgseal.migration_tables(regclass) IS 'internal: a table and its partitions';

-- Of a column of vectors, sealed or not; 0 is any number.
CREATE FUNCTION pgseal.declared_dimensions(target_table regclass, target_column name) RETURNS int4
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT greatest(a.atttypmod, 0) >> CASE a.atttypid WHEN pgseal.own_type('encrypted_vector') THEN 17 ELSE 0 END
              FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped);
COMMENT ON FUNCTION pgseal.declared_dimensions(regclass, name) IS 'internal: how many dimensions a column of vectors declares';

CREATE FUNCTION pgseal.is_json(target_table regclass, target_column name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND a.atttypid = 'json'::regtype);
COMMENT ON FUNCTION pgseal.is_json(regclass, name) IS 'internal: is a column of type json, whose text need not be that of jsonb?';

CREATE FUNCTION pgseal.bound_type(base name, keyring_id int4, dimensions int4) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN format_type(pgseal.own_type(base),
                       CASE base WHEN 'encrypted_vector' THEN (dimensions << 17) | (keyring_id & 131071) ELSE keyring_id END);
COMMENT ON FUNCTION pgseal.bound_type(name, int4, int4) IS 'internal: a type with the modifier that binds it to a keyring';

-- The type that the column is to get. Fails where the role lacks a privilege, or the KMS does not answer, before anything is changed.
CREATE FUNCTION pgseal.migration_type(target_table regclass, target_column name, keyring text, to_encrypted boolean) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old_type oid := (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped);
    base text;
BEGIN
    PERFORM pgseal.migration_column(target_table, target_column);
    PERFORM pgseal.require_owner(target_table), pgseal.refuse_distributed(target_table);
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = target_table), 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', target_table USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT to_encrypted THEN
        base := CASE old_type WHEN pgseal.own_type('encrypted_jsonb') THEN 'jsonb' WHEN pgseal.own_type('encrypted_text') THEN 'text'
                              WHEN pgseal.own_type('encrypted_vector')
                              THEN format_type(pgseal.vector_type('vector'), nullif(pgseal.declared_dimensions(target_table, target_column), 0)) END;
        IF base IS NULL THEN
            RAISE EXCEPTION 'column "%" of % is not encrypted but of type %', target_column, target_table, old_type::regtype
                USING ERRCODE = 'wrong_object_type', HINT = 'Its type must be encrypted_jsonb, encrypted_text or encrypted_vector.';
        END IF;
        -- One value shows whether the KMS answers; a table may be empty, and then only the grants can tell.
        PERFORM pgseal.confined(format('SELECT count(pgseal.decrypt(v)) FROM (SELECT %1$I FROM %2$s WHERE %1$I IS NOT NULL LIMIT 1) one (v)', target_column, target_table));
        IF current_setting('is_superuser') <> 'on' AND NOT EXISTS (
            SELECT FROM pgseal.privilege g JOIN pg_attribute a ON a.attrelid = target_table AND a.attname = target_column
             WHERE g.decrypt AND g.keyring = coalesce(pgseal.keyring_of_typmod(old_type, a.atttypmod), g.keyring) AND (g.role = 0 OR pg_has_role(g.role, 'USAGE'))) THEN
            RAISE EXCEPTION 'no decrypt privilege on the keyring of column "%" of %', target_column, target_table
                USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT pgseal.grant_keyring(keyring, role, ARRAY[''decrypt'']).';
        END IF;
        RETURN base;
    END IF;
    base := CASE WHEN old_type IN ('jsonb'::regtype, 'json'::regtype) THEN 'encrypted_jsonb'
                 WHEN old_type IN ('text'::regtype, 'varchar'::regtype) THEN 'encrypted_text'
                 WHEN old_type IN (pgseal.vector_type('vector'), pgseal.vector_type('halfvec')) THEN 'encrypted_vector' END;
    IF base IS NULL THEN
        RAISE EXCEPTION 'column "%" of % is of type %', target_column, target_table, old_type::regtype
            USING ERRCODE = 'wrong_object_type', HINT = 'encrypt_column takes jsonb, json, text, varchar, vector and halfvec.';
    END IF;
    -- Both privileges are needed: every row is read back.
    RETURN (SELECT pgseal.bound_type(base, pgseal.keyring_id(probe.value), pgseal.declared_dimensions(target_table, target_column))
              FROM (SELECT pgseal.encrypt('{}'::jsonb, keyring) AS value OFFSET 0) probe
             WHERE pgseal.decrypt(probe.value) = '{}');
END $$;
COMMENT ON FUNCTION pgseal.migration_type(regclass, name, text, boolean) IS 'internal: the type that a column is to get';

CREATE FUNCTION pgseal.text_names(text, name) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN $1 ~* ('\m' || regexp_replace($2, '(\W)', '\\\1', 'g') || '\M');
COMMENT ON FUNCTION pgseal.text_names(text, name) IS 'internal: is the name a word of the text?';

-- An object as a person names it.
CREATE FUNCTION pgseal.describe(class oid, id oid, part int4) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN class = 'pg_rewrite'::regclass
           THEN (SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE format('rule %I of', w.rulename) END, c.oid::regclass)
                   FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = id)
           ELSE pg_describe_object(class, id, part) END;
COMMENT ON FUNCTION pgseal.describe(oid, oid, int4) IS 'internal: the name of an object';

-- The types whose values hold rows of a table or its partitions: arrays, domains, composites, ranges, nested to any depth.
CREATE FUNCTION pgseal.row_types(target_table regclass) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE made (oid) AS (
        SELECT c.reltype FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t
        UNION
        SELECT t.oid FROM made m JOIN pg_type t
            ON t.typbasetype = m.oid OR t.typelem = m.oid
            OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = m.oid AND NOT a.attisdropped))
            OR EXISTS (SELECT FROM pg_range r WHERE r.rngsubtype = m.oid AND t.oid IN (r.rngtypid, r.rngmultitypid))
    ) SELECT oid FROM made
$$;
COMMENT ON FUNCTION pgseal.row_types(regclass) IS 'internal: types whose values hold rows of a table';

-- What uses the rows of a table whole: stored rows would lose the column, expressions and functions find another type in it.
CREATE FUNCTION pgseal.row_dependents(target_table regclass) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH made AS MATERIALIZED (SELECT t AS oid FROM pgseal.row_types(target_table) t)
    SELECT pgseal.describe(d.classid, d.objid, d.objsubid) FROM pg_depend d JOIN made m ON d.refobjid = m.oid
     WHERE d.refclassid = 'pg_type'::regclass AND d.deptype IN ('n', 'a')
       AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (SELECT oid FROM made))
       -- A composite type counts where it is used, a range's constructors with the range.
       AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind = 'c'))
       AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i' AND i.refobjid IN (SELECT oid FROM made))
    UNION
    SELECT pgseal.describe(e.class, e.id, 0) FROM pgseal.expression_trees() e
     WHERE e.class <> 'pg_trigger'::regclass
       AND e.tree ~ (SELECT format(':varattno 0 :vartype (%s) ', string_agg(c.reltype::text, '|'))
                       FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t)
$$;
COMMENT ON FUNCTION pgseal.row_dependents(regclass) IS 'internal: what uses the rows of a table whole';

-- What is left of a trigger's code without comments, literals, single columns, and comparisons that take every type.
CREATE FUNCTION pgseal.whole_rows(code text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pattern text;
BEGIN
    code := regexp_replace(code, '--[^\n]*|/\*.*?\*/', ' ', 'g');
    code := regexp_replace(code, '''[^'']*''', '''''', 'g');
    FOREACH pattern IN ARRAY ARRAY[
        '\(?\m(old|new)(\.\*)?\)?\s*\*(<>|=)\s*\(?(old|new)(\.\*)?\M\)?',
        'to_jsonb\s*\(\s*(old|new)(\.\*)?\s*\)(\s*-\s*''''(::text)?)*\)?\s*(is\s+(not\s+)?distinct\s+from|<>|!=|=)\s*\(?to_jsonb\s*\(\s*(old|new)(\.\*)?\s*\)',
        '\mreturn\s+\(?(coalesce\s*\(\s*)?(old|new)\M(\s*,\s*(old|new)\s*\))?(?!\s*\.)',
        '\m(old|new)\s*\.\s*("[^"]+"|\w+)'
    ] LOOP
        code := regexp_replace(code, pattern, ' ', 'gi');
    END LOOP;
    RETURN code;
END $$;
COMMENT ON FUNCTION pgseal.whole_rows(text) IS 'internal: code of a trigger without what does no harm to encrypted columns';

-- Triggers of a table and their functions that use OLD or NEW whole. Comparisons fail, because ciphertext has no equality of its own.
CREATE FUNCTION pgseal.row_triggers(target_table regclass)
    RETURNS TABLE (object text, compares boolean, of_trigger boolean, function oid)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT DISTINCT u.object, u.code ~* '\m(old|new)\M(\.\*)?\s*\)*\s*(is\s+(not\s+)?distinct\s+from|<>|!=|=)|(distinct\s+from|<>|!=|(?<!:)=)\s*(row\s*)?\(*\s*(old|new)\M|\mexcept\M',
           u.of_trigger, u.function
      FROM (
        SELECT format('trigger %I of %s', t.tgname, t.tgrelid::regclass), pgseal.whole_rows(substring(pg_get_triggerdef(t.oid), ' WHEN (\(.*\)) EXECUTE ')), true, NULL::oid
          FROM pg_trigger t WHERE t.tgrelid IN (SELECT pgseal.migration_tables(target_table)) AND t.tgqual IS NOT NULL
        UNION ALL
        SELECT format('function %s', p.oid::regprocedure),
               concat(pgseal.whole_rows(p.prosrc), CASE WHEN concat(t.tgoldtable, t.tgnewtable) <> '' AND regexp_replace(p.prosrc, 'count\(\*\)', '', 'gi') ~ '\*' THEN ' new' END),
               false, p.oid
          FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
         WHERE t.tgrelid IN (SELECT pgseal.migration_tables(target_table)) AND NOT t.tgisinternal
           AND l.lanname = 'plpgsql' AND t.tgname NOT LIKE '~pgseal\_new\_%'
      ) u (object, code, of_trigger, function)
     WHERE u.code ~* '\m(old|new)\M'
$$;
COMMENT ON FUNCTION pgseal.row_triggers(regclass) IS 'internal: triggers of a table that use whole rows, and whether they compare them';

CREATE FUNCTION pgseal.comparison_hint() RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN 'compares whole rows, which decrypts an encrypted column, or fails for a role that may not: compare named columns, OLD.* *<> NEW.* (bytes) or to_jsonb(OLD) IS DISTINCT FROM to_jsonb(NEW)';
COMMENT ON FUNCTION pgseal.comparison_hint() IS 'internal: what to write in place of a comparison of rows';

CREATE FUNCTION pgseal.refuse_row_comparisons(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text := (SELECT string_agg(r.object, ', ') FROM pgseal.row_triggers(target_table) r WHERE r.of_trigger AND r.compares);
BEGIN
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'rows of % cannot be updated: %', target_table, found
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'It ' || pgseal.comparison_hint() || '.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_row_comparisons(regclass) IS 'internal: an error where a trigger would make every UPDATE fail';

-- Functions that name the column or the table: PostgreSQL does not record what a function's text names.
CREATE FUNCTION pgseal.naming_functions(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT format('function %s%s', f.id::regprocedure, CASE WHEN r.compares THEN ': ' || pgseal.comparison_hint() WHEN r.function IS NOT NULL THEN ': uses whole rows'
                  WHEN NOT f.names_column THEN ': names the table, whose columns change their order' END)
      FROM (SELECT p.oid, pgseal.text_names(p.prosrc, target_column),
                   EXISTS (SELECT FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t WHERE pgseal.text_names(p.prosrc, c.relname)),
                   EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgrelid IN (SELECT pgseal.migration_tables(target_table)))
              FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
               AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgname LIKE '~pgseal\_new\_%')
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
           ) f (id, names_column, names_table, is_trigger)
      LEFT JOIN pgseal.row_triggers(target_table) r ON r.function = f.id
     WHERE f.names_table OR (f.is_trigger AND f.names_column) OR r.function IS NOT NULL
$$;
COMMENT ON FUNCTION pgseal.naming_functions(regclass, name) IS 'internal: functions whose text names a column or its table';

-- What the index of a column is made with once the column is encrypted or decrypted: NULL where nothing takes its place.
CREATE FUNCTION pgseal.migrated_index(target_index regclass, new_column name) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN i.indnatts > 1 OR i.indpred IS NOT NULL OR i.indexprs IS NOT NULL THEN NULL
                WHEN m.amname = 'gin' AND a.atttypid IN ('jsonb'::regtype, pgseal.own_type('encrypted_jsonb')) THEN format('gin (%I)', new_column)
                WHEN m.amname = 'gin' AND a.atttypid = pgseal.own_type('encrypted_text') THEN format('hash (%I)', new_column)
                WHEN m.amname IN ('hnsw', 'ivfflat') AND a.atttypmod BETWEEN 1 AND 4000
                THEN (SELECT format('sealed_ivf (%I %s.%I)', new_column, o.opcnamespace::regnamespace, o.opcname)
                        FROM pg_opclass o JOIN pg_am s ON s.oid = o.opcmethod JOIN pg_opclass old ON old.oid = i.indclass[0]
                       WHERE s.amname = 'sealed_ivf' AND o.opcintype = pgseal.own_type('encrypted_vector')
                         AND o.opcname = regexp_replace(old.opcname, '^(vector|halfvec)_', 'encrypted_vector_')) END
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
      LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
     WHERE i.indexrelid = target_index
$$;
COMMENT ON FUNCTION pgseal.migrated_index(regclass, name) IS 'internal: what takes the place of an index of a column that changes its type';

CREATE FUNCTION pgseal.index_obstacles(target_table regclass, target_column name, relation regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here pg_attribute;
BEGIN
    SELECT * INTO here FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = target_column;
    RETURN QUERY
        SELECT format('index %s, %s: %s', i.indexrelid::regclass,
                      CASE WHEN m.amname = 'sealed_ivf' THEN 'which holds codes of encrypted vectors: drop it, and afterwards make one of hnsw or ivfflat'
                           WHEN here.atttypid = ANY (pgseal.value_types()) THEN 'which is on ciphertext'
                           WHEN m.amname IN ('hnsw', 'ivfflat')
                           THEN 'in whose place sealed_ivf can stand only where the column has dimensions, for <->, <=> and <#>, and without a condition'
                           ELSE 'which cannot be built on ciphertext' END, pg_get_indexdef(i.indexrelid))
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
         WHERE i.indrelid = relation
           AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                          AND d.refobjid = relation AND d.refobjsubid = here.attnum)
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
           AND (pgseal.migrated_index(i.indexrelid, target_column) IS NULL OR (relation <> target_table AND NOT c.relispartition));
    RETURN QUERY
        SELECT format('index %s: one index of the column is built anew, this is another: %s', i.indexrelid::regclass, pg_get_indexdef(i.indexrelid))
          FROM pg_index i WHERE i.indrelid = relation AND i.indkey[0] = here.attnum
           AND EXISTS (SELECT FROM pg_index o WHERE o.indrelid = relation AND o.indkey[0] = here.attnum AND o.indexrelid < i.indexrelid);
END $$;
COMMENT ON FUNCTION pgseal.index_obstacles(regclass, name, regclass) IS 'internal: indexes that keep a column from being encrypted or decrypted';

CREATE FUNCTION pgseal.trigger_obstacles(target_table regclass, target_column name, relation regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own_trigger name := '~' || pgseal.migration_column(target_table, target_column);
BEGIN
    RETURN QUERY
        SELECT format('trigger %I of %s runs after the trigger that encrypts: rename it', t.tgname, relation)
          FROM pg_trigger t WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgname !~ '^~pgseal_new_\d+$'
           AND t.tgname::text COLLATE "C" > own_trigger::text COLLATE "C";
    RETURN QUERY
        SELECT format('trigger %I of %s has the column among its arguments', t.tgname, relation)
          FROM pg_trigger t WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgname <> own_trigger
           AND target_column::text = ANY (string_to_array(encode(t.tgargs, 'escape'), '\000'));
END $$;
COMMENT ON FUNCTION pgseal.trigger_obstacles(regclass, name, regclass) IS 'internal: triggers that keep a column from being encrypted or decrypted';

-- What would be lost, or cannot be done, at one of a table's partitions or the table itself.
CREATE FUNCTION pgseal.table_obstacles(target_table regclass, target_column name, relation regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    main pg_attribute;
    here pg_attribute;
BEGIN
    SELECT * INTO main FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column;
    SELECT * INTO here FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = target_column;
    IF (SELECT c.relkind = 'f' FROM pg_class c WHERE c.oid = relation) THEN
        RETURN NEXT format('foreign table %s', relation);
    END IF;
    IF row_security_active(relation) THEN
        RETURN NEXT format('row-level security of %s hides rows from this role', relation);
    END IF;
    IF here.attgenerated <> '' THEN
        RETURN NEXT format('column %I of %s is generated', target_column, relation);
    END IF;
    IF here.attcollation NOT IN (0, 'pg_catalog."default"'::regcollation) THEN
        RETURN NEXT format('column %I of %s has the collation %s, which encrypted_text cannot honour: ALTER COLUMN ... TYPE text COLLATE "default" where that will do',
                           target_column, relation, here.attcollation::regcollation);
    END IF;
    IF here.attnotnull AND NOT main.attnotnull THEN
        RETURN NEXT format('column %I is NOT NULL in the partition %s only', target_column, relation);
    END IF;
    IF relation <> target_table AND (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = here.attrelid AND d.adnum = here.attnum)
        IS DISTINCT FROM (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = main.attrelid AND d.adnum = main.attnum) THEN
        RETURN NEXT format('column %I has a DEFAULT of its own in the partition %s', target_column, relation);
    END IF;
    IF EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = relation
                  AND (here.attnum = ANY (p.partattrs) OR (p.partexprs IS NOT NULL AND strpos(pg_get_partkeydef(relation), target_column) > 0))) THEN
        RETURN NEXT format('partition key of %s', relation);
    END IF;
    -- Views, policies, constraints, triggers, generated columns, statistics, publications' column lists, SQL functions.
    RETURN QUERY
        SELECT DISTINCT pgseal.describe(d.classid, d.objid, d.objsubid)
          FROM pg_depend d
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = relation AND d.refobjsubid = here.attnum
           AND NOT (d.classid = 'pg_attrdef'::regclass AND EXISTS (SELECT FROM pg_attrdef f WHERE f.oid = d.objid AND f.adrelid = relation AND f.adnum = here.attnum))
           AND NOT (d.classid = 'pg_class'::regclass AND d.objsubid = 0
                    AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i', 'I', 't')))
           AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT FROM pg_constraint c WHERE c.oid = d.objid AND c.contype = 'n'));
    RETURN QUERY
        SELECT format('rule %I of %s changes what an UPDATE does', w.rulename, relation) FROM pg_rewrite w WHERE w.ev_class = relation AND w.ev_type = '2';
    RETURN QUERY SELECT o FROM pgseal.index_obstacles(target_table, target_column, relation) o;
    RETURN QUERY SELECT o FROM pgseal.trigger_obstacles(target_table, target_column, relation) o;
END $$;
COMMENT ON FUNCTION pgseal.table_obstacles(regclass, name, regclass)
    IS 'internal: what of one table or partition keeps a column from being encrypted or decrypted';

-- What stands in the way, one line each.
CREATE FUNCTION pgseal.migration_obstacles(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    relation pg_class;
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
    RETURN QUERY SELECT o FROM pgseal.migration_tables(target_table) t, pgseal.table_obstacles(target_table, target_column, t) o;
    RETURN QUERY SELECT o FROM pgseal.row_dependents(target_table) o WHERE o NOT LIKE 'function %';
    RETURN QUERY SELECT concat_ws(' ', r.object, CASE WHEN r.compares THEN pgseal.comparison_hint() ELSE 'uses whole rows' END)
                   FROM pgseal.row_triggers(target_table) r WHERE r.of_trigger;
    RETURN QUERY SELECT format('publication %I: its subscribers need column %I too', p.pubname, new_column)
        FROM pg_publication p WHERE p.puballtables OR EXISTS (SELECT FROM pg_publication_tables t
            JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = n.oid
           WHERE t.pubname = p.pubname AND c.oid IN (SELECT pgseal.migration_tables(target_table)));
    RETURN QUERY
        SELECT f.function FROM (SELECT pgseal.naming_functions(target_table, target_column)
                                UNION ALL SELECT o || ': takes, returns or uses whole rows' FROM pgseal.row_dependents(target_table) o WHERE o LIKE 'function %') f (function);
END $$;
COMMENT ON FUNCTION pgseal.migration_obstacles(regclass, name) IS 'what keeps a column from being encrypted or decrypted by encrypt_column and decrypt_column';

CREATE FUNCTION pgseal.obstacles_left(target_table regclass, target_column name, ignore text[]) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT o FROM pgseal.migration_obstacles(target_table, target_column) o
     WHERE NOT (o ~ '^(function|publication) ' AND EXISTS (SELECT FROM unnest(ignore) i WHERE o = i OR starts_with(o, i || ':')))
$$;
COMMENT ON FUNCTION pgseal.obstacles_left(regclass, name, text[]) IS 'internal: obstacles to a migration without those that do no harm';

CREATE FUNCTION pgseal.check_migration(target_table regclass, target_column name, ignore text[]) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text[] := ARRAY(SELECT o FROM pgseal.obstacles_left(target_table, target_column, ignore) o ORDER BY 1);
BEGIN
    IF found <> '{}' THEN
        RAISE EXCEPTION 'column "%" of % cannot change its type while other objects need it', target_column, target_table
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = array_to_string(found, E'\n'),
                  HINT = 'Nothing was changed. Drop or change them and make them again afterwards. A function or publication that does '
                      'no harm goes into ignore => ARRAY[...] as it is written here (a publication without the reason).';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.check_migration(regclass, name, text[]) IS 'internal: an error that names what stands in the way';

-- The old index to be replaced, and what is to be typed for it; no row where nothing is left to do.
CREATE FUNCTION pgseal.migration_commands(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    new_index name := format('%s_of_%s', new_column, target_table::oid);
    old_index regclass;
    made_with text;
    relation pg_class;
    part record;
    options text;
    valid boolean;
BEGIN
    SELECT c.* INTO relation FROM pg_class c WHERE c.oid = target_table;
    old_index := (SELECT i.indexrelid FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = target_table AND a.attname = target_column ORDER BY i.indexrelid LIMIT 1);
    IF old_index IS NULL THEN
        RETURN;
    END IF;
    valid := (SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = target_table AND c.relname = new_index);
    IF valid THEN
        RETURN;
    END IF;
    made_with := pgseal.migrated_index(old_index, new_column);
    SELECT concat(CASE WHEN made_with LIKE 'gin %' THEN ' WITH (' || array_to_string(c.reloptions, ', ') || ')' END,
                  (SELECT format(' TABLESPACE %I', s.spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace)) INTO options
      FROM pg_class c WHERE c.oid = old_index;
    IF relation.relkind = 'r' THEN
        IF NOT valid THEN
            RETURN NEXT format('DROP INDEX CONCURRENTLY %s.%I', relation.relnamespace::regnamespace, new_index);
        END IF;
        RETURN NEXT format('CREATE INDEX CONCURRENTLY %I ON %s USING %s%s', new_index, target_table, made_with, options);
        RETURN;
    END IF;
    -- PostgreSQL builds no index of a partitioned table concurrently: its partitions', one by one.
    IF valid IS NULL THEN
        RETURN NEXT format('CREATE INDEX %I ON ONLY %s USING %s%s', new_index, target_table, made_with, options);
    END IF;
    FOR part IN
        SELECT t.relid, t.isleaf, c.relnamespace::regnamespace AS schema, p.relnamespace::regnamespace AS parent_schema, format('%s_%s', new_index, t.relid::oid) AS index,
               CASE t.parentrelid WHEN target_table THEN new_index ELSE format('%s_%s', new_index, t.parentrelid::oid) END AS parent_index
          FROM pg_partition_tree(target_table) t JOIN pg_class c ON c.oid = t.relid JOIN pg_class p ON p.oid = t.parentrelid
         WHERE t.relid <> target_table ORDER BY t.level, t.relid
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid WHERE c.relname = part.index);
        RETURN NEXT format('CREATE INDEX %s %I ON %s%s USING %s%s', CASE WHEN part.isleaf THEN 'CONCURRENTLY' END, part.index,
                           CASE WHEN NOT part.isleaf THEN 'ONLY ' END, part.relid, made_with, options);
        RETURN NEXT format('ALTER INDEX %s.%I ATTACH PARTITION %s.%I', part.parent_schema, part.parent_index, part.schema, part.index);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.migration_commands(regclass, name) IS 'internal: commands that replace the index of a column';

-- Not longer than a second at a time, because all others queue behind a lock that waits.
CREATE FUNCTION pgseal.lock_for_migration(target_table regclass) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
BEGIN
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target_table);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;
COMMENT ON FUNCTION pgseal.lock_for_migration(regclass) IS 'internal: tries to lock a table for a second';

CREATE FUNCTION pgseal.refuse_other_owner(relation oid) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = relation), current_user, 'USAGE') THEN
        RAISE EXCEPTION '% has another owner since the migration of its column began', relation::regclass
            USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT pgseal.abandon_migration(table, column), and begin again.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_other_owner(oid) IS 'internal: keeps the trigger of a migration from working for another owner than its own';

CREATE FUNCTION pgseal.start_migration(target_table regclass, target_column name, new_type text, to_encrypted boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    function text := (SELECT format('%s.%I', c.relnamespace::regnamespace, format('%s_of_%s', new_column, target_table::oid)) FROM pg_class c WHERE c.oid = target_table);
BEGIN
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', target_table, new_column, new_type);
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', target_table, new_column, format('column %I in its new type, while pgseal fills it', target_column));
    -- SECURITY DEFINER, so that no writer fails who lacks encrypt before the swap; nobody else can make a trigger of it. A later owner
    -- of the table could have it run code, by the column's types.
    EXECUTE format('CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L', function,
        format('BEGIN PERFORM pgseal.refuse_other_owner(TG_RELID); NEW.%1$I := %2$s; RETURN NEW; END', new_column,
               format(CASE WHEN to_encrypted THEN 'NEW.%I' ELSE 'pgseal.decrypt(NEW.%I)' END, target_column)));
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s() FROM PUBLIC', function);
    EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()', '~' || new_column, target_table, function);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', target_table, '~' || new_column);
    IF (SELECT a.attnotnull FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column) THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%2$I IS NOT NULL) NOT VALID', target_table, new_column);
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.start_migration(regclass, name, text, boolean) IS 'internal: second column and trigger';

-- Changes with whatever is done to the triggers, so that none was switched off for a while.
CREATE FUNCTION pgseal.migration_trigger(target_table regclass, target_column name) RETURNS text
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT string_agg(format('%s %s', t.oid, t.xmin), ' ' ORDER BY t.oid) FROM pg_trigger t
             WHERE t.tgrelid IN (SELECT pgseal.migration_tables(target_table)) AND t.tgenabled = 'A'
               AND t.tgname = '~' || pgseal.migration_column(target_table, target_column)
            HAVING count(*) = (SELECT count(*) FROM pgseal.migration_tables(target_table)));
COMMENT ON FUNCTION pgseal.migration_trigger(regclass, name) IS 'internal: which triggers fill the second column, as of when; NULL where one is off';

-- Privileges, comment, security labels and settings of the old column go to the new one, in one table or partition.
CREATE FUNCTION pgseal.carry_over(relation regclass, old_column name, new_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old pg_attribute;
    alter_column text := format('ALTER TABLE ONLY %s ALTER COLUMN %I ', relation, new_column);
    options text;
    acl record;
    label record;
BEGIN
    SELECT * INTO old FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = old_column;
    FOR acl IN SELECT x.privilege_type, x.is_grantable, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee FROM aclexplode(old.attacl) x LOOP
        EXECUTE format('GRANT %s (%I) ON %s TO %s %s', acl.privilege_type, new_column, relation, acl.grantee, CASE WHEN acl.is_grantable THEN 'WITH GRANT OPTION' END);
    END LOOP;
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, new_column, col_description(relation, old.attnum));
    FOR label IN SELECT l.provider, l.label FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = relation AND l.objsubid = old.attnum LOOP
        EXECUTE format('SECURITY LABEL FOR %I ON COLUMN %s.%I IS %L', label.provider, relation, new_column, label.label);
    END LOOP;
    IF old.attstattarget >= 0 THEN
        EXECUTE alter_column || format('SET STATISTICS %s', old.attstattarget);
    END IF;
    IF old.attstorage <> (SELECT t.typstorage FROM pg_type t WHERE t.oid = old.atttypid) THEN
        EXECUTE alter_column || format('SET STORAGE %s', CASE old.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END);
    END IF;
    IF old.attcompression <> '' THEN
        EXECUTE alter_column || format('SET COMPRESSION %s', CASE old.attcompression WHEN 'l' THEN 'lz4' ELSE 'pglz' END);
    END IF;
    options := (SELECT string_agg(o, ', ') FROM unnest(old.attoptions) o WHERE o LIKE 'n\_distinct%');
    IF options IS NOT NULL THEN
        EXECUTE alter_column || format('SET (%s)', options);
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.carry_over(regclass, name, name) IS 'internal: what belongs to the old column goes to the new one';

CREATE FUNCTION pgseal.finish_migration(target_table regclass, target_column name, to_encrypted boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    -- Not by its name: the table may have moved to another schema or come from a dump.
    function text := (SELECT t.tgfoid::regprocedure FROM pg_trigger t WHERE t.tgrelid = target_table AND t.tgname = '~' || new_column);
    old pg_attribute;
    default_value text;
    new_type oid;
    old_index name;
    index_comment text;
    new_index name := format('%s_of_%s', new_column, target_table::oid);
BEGIN
    SELECT * INTO old FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column;
    default_value := (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = target_table AND d.adnum = old.attnum);
    SELECT c.relname, obj_description(c.oid, 'pg_class') INTO old_index, index_comment FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = target_table AND i.indkey[0] = old.attnum ORDER BY c.oid LIMIT 1;
    PERFORM pgseal.carry_over(t, target_column, new_column) FROM pgseal.migration_tables(target_table) t;
    EXECUTE format('DROP TRIGGER %I ON %s', '~' || new_column, target_table);
    EXECUTE format('DROP FUNCTION %s', function);
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', target_table, target_column);
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', target_table, new_column, target_column);
    new_type := (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
    IF old.attnotnull THEN
        PERFORM pgseal.confined(format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', target_table, target_column));
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', target_table, new_column);
    END IF;
    IF default_value IS NOT NULL THEN
        -- A literal that was sealed when it was typed; nothing else is evaluated, for it may call a function.
        IF default_value ~ format('^''pgseal:[^'']*''::(%s)(\(\d+(,\d+)?\))?$', replace(array_to_string(pgseal.value_types()::regtype[], '|'), '.', '\.')) THEN
            EXECUTE format('SELECT quote_literal(pgseal.decrypt(%s)::text)', default_value) INTO default_value;
        ELSE
            default_value := format('(%s)::%s', default_value, CASE WHEN old.atttypid = 'json'::regtype OR 'jsonb'::regtype IN (old.atttypid, new_type) THEN 'jsonb'
                WHEN pgseal.own_type('encrypted_vector') IN (old.atttypid, new_type) THEN pgseal.vector_type('vector')::regtype::text ELSE 'text' END);
        END IF;
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', target_table, target_column, default_value);
    END IF;
    IF old_index IS NOT NULL THEN
        EXECUTE format('ALTER INDEX %s.%I RENAME TO %I',
                       (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target_table), new_index, old_index);
        EXECUTE format('COMMENT ON INDEX %s.%I IS %L', (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target_table), old_index, index_comment);
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.finish_migration(regclass, name, boolean) IS 'internal: the second column takes the place of the first';

CREATE FUNCTION pgseal.abandon_migration(target_table regclass, target_column name) RETURNS void
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
COMMENT ON FUNCTION pgseal.abandon_migration(regclass, name) IS 'take back what an unfinished encrypt_column or decrypt_column made';

-- Who will be refused once the column is encrypted.
CREATE FUNCTION pgseal.migration_roles(target_table regclass, target_column name, new_type text) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format('%s (%s)', r.rolname, concat_ws(', ',
               CASE WHEN writes AND NOT coalesce(encrypts, false) THEN 'encrypt' END, CASE WHEN reads AND NOT coalesce(decrypts, false) THEN 'decrypt' END))
      FROM pg_roles r
      CROSS JOIN LATERAL (SELECT has_column_privilege(r.oid, target_table, target_column, 'INSERT, UPDATE'),
                                 has_column_privilege(r.oid, target_table, target_column, 'SELECT')) p (writes, reads)
      CROSS JOIN LATERAL (SELECT bool_or(g.encrypt), bool_or(g.decrypt) FROM pgseal.privilege g
                           WHERE g.keyring = substring(new_type FROM '\((\d+)(,\d+)?\)$')::int4
                             AND (g.role = 0 OR pg_has_role(r.oid, g.role, 'USAGE'))) k (encrypts, decrypts)
     WHERE NOT r.rolsuper AND r.rolname !~ '^pg_'
       AND ((writes AND NOT coalesce(encrypts, false)) OR (reads AND NOT coalesce(decrypts, false)))
     ORDER BY 1;
END;
COMMENT ON FUNCTION pgseal.migration_roles(regclass, name, text) IS 'internal: roles that use a column and lack a privilege on the keyring';

-- What a migration would do, or, where one is half done, whether it can go on: before anything is changed.
CREATE FUNCTION pgseal.prepare_migration(target_table regclass, target_column name, new_type text, to_encrypted boolean,
        batch_size int4, dry_run boolean, ignore text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    is_started boolean := pgseal.migration_started(target_table, target_column);
    found_type text;
    one text;
BEGIN
    IF batch_size IS NULL OR batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT is_started THEN
        PERFORM pgseal.check_migration(target_table, target_column, ignore);
    END IF;
    IF to_encrypted THEN
        FOR one IN SELECT pgseal.migration_roles(target_table, target_column, new_type) LOOP
            RAISE NOTICE 'role % uses the column and has no such privilege on the keyring', one
                USING HINT = 'SELECT pgseal.grant_keyring(keyring, role, ARRAY[...]) before the names are swapped.';
        END LOOP;
    END IF;
    IF to_encrypted AND pgseal.is_json(target_table, target_column) THEN
        RAISE NOTICE 'documents of %.% are kept as jsonb keeps them: without spacing, the order of keys, and keys that come twice', target_table, quote_ident(target_column);
    END IF;
    IF is_started THEN
        found_type := (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = new_column);
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
    IF NOT dry_run THEN
        RETURN;
    END IF;
    IF is_started THEN
        RAISE NOTICE 'going on with what an earlier call began';
    ELSE
        RAISE NOTICE 'add column % of type %, and a trigger that fills it for every writer', quote_ident(new_column), new_type;
    END IF;
    -- -1 where nobody has counted.
    RAISE NOTICE 'fill % in committed batches of about %',
        (SELECT CASE WHEN min(c.reltuples) < 0 THEN 'all rows (ANALYZE has not counted them yet)' ELSE format('about %s rows', sum(c.reltuples)) END
           FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t WHERE c.relkind = 'r'), batch_size;
    FOR one IN SELECT pgseal.migration_commands(target_table, target_column) LOOP
        RAISE NOTICE 'wait for you to run: %', one;
    END LOOP;
    RAISE NOTICE 'compare every row, then drop %, and give the new column its name, NOT NULL and DEFAULT; it will be the last column',
        format('%s.%I', target_table, target_column);
END $$;
COMMENT ON FUNCTION pgseal.prepare_migration(regclass, name, text, boolean, int4, boolean, text[]) IS 'internal: what a migration would do, and whether it can';

-- Under the lock: the second column and its trigger, where no other session has made them.
CREATE FUNCTION pgseal.begin_migration(target_table regclass, target_column name, new_column name, new_type text, to_encrypted boolean, ignore text[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgseal.migration_started(target_table, target_column) OR pgseal.migration_column(target_table, target_column) <> new_column THEN
        RAISE EXCEPTION 'another session migrates column "%" of %, or has done it', target_column, target_table
            USING ERRCODE = 'object_in_use', HINT = 'Where it has ended before the swap, call again: it goes on where it was.';
    END IF;
    PERFORM pgseal.check_migration(target_table, target_column, ignore);
    PERFORM pgseal.start_migration(target_table, target_column, new_type, to_encrypted);
END $$;
COMMENT ON FUNCTION pgseal.begin_migration(regclass, name, name, text, boolean, text[]) IS 'internal: start_migration, unless another session has done it';

-- Have some pages the same values in both columns?
CREATE FUNCTION pgseal.compare_columns(leaf regclass, target_column name, new_column name, to_encrypted boolean, start tid, stop tid) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    differing text;
BEGIN
    differing := pgseal.confined(format(
        'SELECT CASE WHEN count(*) > 0 THEN format(''%%s rows of %%s do not have the same value in both columns, the first at %%s'', count(*), %4$L, min(ctid)) END FROM ONLY %1$s WHERE ctid >= $1 AND ctid < $2
            AND (%2$s)::text COLLATE "C" IS DISTINCT FROM (%3$s)::text COLLATE "C"', leaf,
        format(CASE WHEN NOT to_encrypted THEN 'pgseal.decrypt(%I)' WHEN pgseal.is_json(leaf, target_column) THEN '%I::pg_catalog.jsonb' ELSE '%I' END, target_column),
        format(CASE WHEN to_encrypted THEN 'pgseal.decrypt(%I)' ELSE '%I' END, new_column), leaf), start, stop);
    IF differing IS NOT NULL THEN
        RAISE EXCEPTION '%', differing
            USING ERRCODE = 'data_corrupted', HINT = 'Nothing was swapped. Call again, if a partition was attached meanwhile. Does a trigger keep rows from being updated?';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.compare_columns(regclass, name, name, boolean, tid, tid)
    IS 'internal: an error where the two columns of a migration differ in some pages';

-- Rather too few pages where nobody has counted the rows yet.
CREATE FUNCTION pgseal.pages_of_batch(leaf regclass, batch_size int4) RETURNS int8
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT greatest(1, batch_size / greatest(1, CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 50 END::int8))
              FROM pg_class c WHERE c.oid = leaf);
COMMENT ON FUNCTION pgseal.pages_of_batch(regclass, int4) IS 'internal: how many pages of a table hold about so many rows, rather too few';

CREATE FUNCTION pgseal.pages_of(leaf regclass) RETURNS int8
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    RETURN pg_relation_size(leaf) / current_setting('block_size')::int8;
COMMENT ON FUNCTION pgseal.pages_of(regclass) IS 'internal: how many pages a table has';

CREATE FUNCTION pgseal.is_constrained(target_table regclass, new_column name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = target_table AND c.conname = new_column);
COMMENT ON FUNCTION pgseal.is_constrained(regclass, name) IS 'internal: is there a constraint that stands for NOT NULL of the old column?';

-- The swap, where the trigger has been at work all the time.
CREATE FUNCTION pgseal.end_migration(target_table regclass, target_column name, to_encrypted boolean, trigger_before text, ignore text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF trigger_before IS DISTINCT FROM pgseal.migration_trigger(target_table, target_column) OR trigger_before IS NULL THEN
        RAISE EXCEPTION 'the trigger "%" of % was changed meanwhile', '~' || pgseal.migration_column(target_table, target_column), target_table
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing was swapped. SELECT pgseal.abandon_migration(table, column), and begin again.';
    END IF;
    PERFORM pgseal.check_migration(target_table, target_column, ignore);
    PERFORM pgseal.finish_migration(target_table, target_column, to_encrypted);
END $$;
COMMENT ON FUNCTION pgseal.end_migration(regclass, name, boolean, text, text[]) IS 'internal: finish_migration, unless something was changed meanwhile';

CREATE FUNCTION pgseal.report_migration(target_table regclass, target_column name, new_type text, to_encrypted boolean, total int8, started timestamptz)
    RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := format('%s.%I', target_table, target_column);
BEGIN
    RAISE NOTICE '% is of type % now, after % rows in % s; it is the last column of its table', name, new_type, total, pgseal.seconds_since(started)
        USING HINT = 'INSERT and COPY without a list of columns follow the new order. ANALYZE ' || target_table || ' makes statistics anew; the old column''s are gone.';
    IF new_type ~ '(^|\.)vector(\(|$)' THEN
        RAISE NOTICE '% is of type vector even if it was of halfvec before it was encrypted', name
            USING HINT = 'ALTER TABLE ... ALTER COLUMN ... TYPE halfvec(dimensions), where it was.';
    END IF;
    IF NOT to_encrypted THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                WHERE d.adrelid = target_table AND a.attname = target_column) THEN
        RAISE NOTICE 'the DEFAULT of % is plaintext in the catalog, and is sealed for each row', name;
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.report_migration(regclass, name, text, boolean, int8, timestamptz) IS 'internal: NOTICEs at the end of a migration';

-- Once for all columns that were encrypted.
CREATE FUNCTION pgseal.report_plaintext(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE NOTICE 'rows of % hold the old plaintext on disk, invisibly, until they are written anew', target_table
        USING HINT = 'VACUUM FULL ' || target_table || ' rewrites them under a lock, pg_repack without one; then VACUUM pg_catalog.pg_statistic for dead statistics.';
    RAISE NOTICE 'WAL, its archive, replicas that lag, older backups and dumps hold the old plaintext too'
        USING HINT = 'Take a new base backup after VACUUM FULL, and let the older ones expire or destroy them.';
END $$;
COMMENT ON FUNCTION pgseal.report_plaintext(regclass) IS 'internal: NOTICEs about what is left of a table''s plaintext';

-- The setting of encrypt_table goes with the last encrypted vectors.
CREATE FUNCTION pgseal.release_vectors(target_table regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leaf regclass;
BEGIN
    FOR leaf IN
        SELECT c.oid FROM unnest(pgseal.tables_of(target_table)) t JOIN pg_class c ON c.oid = t
         WHERE EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'toast_tuple_target' AND o.option_value = '8160')
           AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND pgseal.base_type(a.atttypid) = pgseal.own_type('encrypted_vector'))
    LOOP
        EXECUTE format('ALTER TABLE %s RESET (toast_tuple_target)', leaf);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.release_vectors(regclass) IS 'internal: a table without encrypted vectors stores its rows as others do';

-- The procedures run with their caller's search_path, because they commit, and because the table's triggers expect it. So all
-- that they name, types and operators too, is qualified.
CREATE PROCEDURE pgseal.migrate_column(target_table regclass, target_column name, new_type text, to_encrypted boolean,
        batch_size int4, dry_run boolean, ignore text[])
    LANGUAGE plpgsql AS $$
DECLARE
    new_column pg_catalog.name := pgseal.migration_column(target_table, target_column);
    total pg_catalog.int8 := 0;
    trigger_before pg_catalog.text;
    commands pg_catalog.text[];
    started pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    PERFORM pgseal.prepare_migration(target_table, target_column, new_type, to_encrypted, batch_size, dry_run, ignore);
    IF dry_run THEN
        RETURN;
    END IF;

    -- Where this is not the default, an update of another session would end the run, and what is read under the last lock be old.
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF NOT pgseal.migration_started(target_table, target_column) THEN
        CALL pgseal.migration_lock(target_table, 'Nothing was changed. pg_locks shows who holds it; call again.');
        PERFORM pgseal.begin_migration(target_table, target_column, new_column, new_type, to_encrypted, ignore);
        COMMIT AND CHAIN;
    END IF;
    CALL pgseal.migration_fill(target_table, target_column, new_column, batch_size, total);
    commands := ARRAY(SELECT pgseal.migration_commands(target_table, target_column));
    IF commands[1] IS NOT NULL THEN
        RAISE NOTICE '% rows of %.% filled; its index is still to be built, which PostgreSQL does not do concurrently inside a procedure',
            total, target_table, pg_catalog.quote_ident(target_column)
            USING HINT = pg_catalog.format(E'Run this, then call again:\n%s;', pg_catalog.array_to_string(commands, E';\n'));
        RETURN;
    END IF;

    trigger_before := pgseal.migration_trigger(target_table, target_column);
    CALL pgseal.migration_verify(target_table, target_column, new_column, to_encrypted, batch_size);
    IF pgseal.is_constrained(target_table, new_column) THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', target_table, new_column);
        COMMIT AND CHAIN;
    END IF;
    CALL pgseal.migration_lock(target_table, 'All rows are filled. pg_locks shows who holds the table; call again for the swap.');
    PERFORM pgseal.end_migration(target_table, target_column, to_encrypted, trigger_before, ignore);
    COMMIT AND CHAIN;
    PERFORM pgseal.report_migration(target_table, target_column, new_type, to_encrypted, total, started);
END $$;
COMMENT ON PROCEDURE pgseal.migrate_column(regclass, name, text, boolean, int4, boolean, text[]) IS 'internal: what encrypt_column and decrypt_column share';

-- A lock on a table that others use, in many short tries.
CREATE PROCEDURE pgseal.migration_lock(target_table regclass, hint text)
    LANGUAGE plpgsql AS $$
DECLARE
    tries CONSTANT pg_catalog.int4 := 30;
BEGIN
    FOR attempt IN 1..tries LOOP
        IF pgseal.lock_for_migration(target_table) THEN
            RETURN;
        END IF;
        COMMIT AND CHAIN;
        PERFORM pg_catalog.pg_sleep(attempt OPERATOR(pg_catalog./) 10.0);
    END LOOP;
    RAISE EXCEPTION '% is in use all the time', target_table USING ERRCODE = 'lock_not_available', HINT = hint;
END $$;
COMMENT ON PROCEDURE pgseal.migration_lock(regclass, text) IS 'internal: locks a table, or an error with this hint';

-- The trigger fills what an UPDATE touches.
CREATE PROCEDURE pgseal.migration_fill(target_table regclass, target_column name, new_column name, batch_size int4, INOUT total int8)
    LANGUAGE plpgsql AS $$
DECLARE
    leaf pg_catalog.regclass;
    fill pg_catalog.text;
    page pg_catalog.int8;
    pages pg_catalog.int8;
    step pg_catalog.int8;
    changed pg_catalog.int8;
    report_due pg_catalog.timestamptz := pgseal.next_notice();
BEGIN
    FOREACH leaf IN ARRAY pgseal.tables_of(target_table) LOOP
        fill := pg_catalog.format(
            'UPDATE ONLY %1$s SET %2$I = NULL
              WHERE ctid OPERATOR(pg_catalog.>=) $1 AND ctid OPERATOR(pg_catalog.<) $2 AND %3$I IS NOT NULL AND %2$I IS NULL',
            leaf, new_column, target_column);
        step := pgseal.pages_of_batch(leaf, batch_size);
        pages := pgseal.pages_of(leaf);
        page := 0;
        WHILE page OPERATOR(pg_catalog.<) pages LOOP
            changed := pgseal.confined(fill, pgseal.start_of_page(page), pgseal.start_of_page(page OPERATOR(pg_catalog.+) step));
            total := total OPERATOR(pg_catalog.+) changed;
            COMMIT AND CHAIN;
            page := page OPERATOR(pg_catalog.+) step;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                RAISE NOTICE '%: fill, page % of %', leaf, least(page, pages), pages;
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.migration_fill(regclass, name, name, int4, int8) IS 'internal: fills the second column, batch by batch';

CREATE PROCEDURE pgseal.migration_verify(target_table regclass, target_column name, new_column name, to_encrypted boolean, batch_size int4)
    LANGUAGE plpgsql AS $$
DECLARE
    leaf pg_catalog.regclass;
    page pg_catalog.int8;
    step pg_catalog.int8;
    report_due pg_catalog.timestamptz := pgseal.next_notice();
BEGIN
    -- Looked up again: one may have been attached, with rows that its trigger has not seen.
    FOREACH leaf IN ARRAY pgseal.tables_of(target_table) LOOP
        step := pgseal.pages_of_batch(leaf, batch_size);
        page := 0;
        -- Rows that are updated meanwhile go behind: the trigger fills them, but they are to be compared.
        WHILE page OPERATOR(pg_catalog.<) pgseal.pages_of(leaf) LOOP
            PERFORM pgseal.compare_columns(leaf, target_column, new_column, to_encrypted,
                pgseal.start_of_page(page), pgseal.start_of_page(page OPERATOR(pg_catalog.+) step));
            COMMIT AND CHAIN;
            page := page OPERATOR(pg_catalog.+) step;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                RAISE NOTICE '%: verify, page % of %', leaf, least(page, pgseal.pages_of(leaf)), pgseal.pages_of(leaf);
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.migration_verify(regclass, name, name, boolean, int4) IS 'internal: compares both columns in every row';

CREATE PROCEDURE pgseal.encrypt_column(target_table regclass, target_column name, keyring text DEFAULT NULL, batch_size int4 DEFAULT 1000,
        dry_run boolean DEFAULT false, ignore text[] DEFAULT '{}')
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.encrypt_column') WHERE NOT dry_run;
    CALL pgseal.migrate_column(target_table, target_column, pgseal.migration_type(target_table, target_column, keyring, true), true,
                               batch_size, dry_run, ignore);
    PERFORM pgseal.report_plaintext(target_table) WHERE NOT dry_run AND NOT pgseal.migration_started(target_table, target_column);
END $$;
COMMENT ON PROCEDURE pgseal.encrypt_column(regclass, name, text, int4, boolean, text[])
    IS 'make a jsonb, json, text, varchar, vector or halfvec column encrypted while it is in use; can be stopped and called again';

CREATE PROCEDURE pgseal.decrypt_column(target_table regclass, target_column name, batch_size int4 DEFAULT 1000,
        dry_run boolean DEFAULT false, ignore text[] DEFAULT '{}')
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.decrypt_column') WHERE NOT dry_run;
    CALL pgseal.migrate_column(target_table, target_column, pgseal.migration_type(target_table, target_column, NULL, false), false,
                               batch_size, dry_run, ignore);
    PERFORM pgseal.release_vectors(target_table) WHERE NOT dry_run;
END $$;
COMMENT ON PROCEDURE pgseal.decrypt_column(regclass, name, int4, boolean, text[])
    IS 'make an encrypted column jsonb, text or vector again while it is in use; can be stopped and called again';
