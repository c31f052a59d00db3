-- All columns of a table, one after another, as encrypt_column does it.

-- What a column is needed for as it is: such a column stays plaintext unless it is named. NULL is for nothing.
CREATE FUNCTION pgseal.plaintext_use(target_table regclass, target_column name) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT CASE WHEN a.attgenerated <> '' THEN 'it is generated'
                ELSE coalesce(
                    (SELECT format('it is part of constraint %I', c.conname) FROM pg_constraint c
                      WHERE c.conrelid = a.attrelid AND a.attnum = ANY (c.conkey) AND c.contype <> 'n' ORDER BY c.oid LIMIT 1),
                    (SELECT format('it is part of the partition key of %s', p.partrelid::regclass)
                       FROM pgseal.migration_tables(target_table) t JOIN pg_partitioned_table p ON p.partrelid = t
                       JOIN pg_attribute k ON k.attrelid = t AND k.attname = target_column AND k.attnum = ANY (p.partattrs) LIMIT 1),
                    (SELECT format('column %I is generated from it', g.attname)
                       FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid JOIN pg_attribute g ON g.attrelid = f.adrelid AND g.attnum = f.adnum
                      WHERE d.classid = 'pg_attrdef'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                        AND g.attgenerated <> '' LIMIT 1),
                    (SELECT format('it is part of index %s', i.indexrelid::regclass) FROM pg_index i
                      WHERE i.indrelid = a.attrelid AND a.attnum = ANY (i.indkey)
                        AND (i.indisunique OR a.atttypid IN ('text'::regtype, 'varchar'::regtype)) ORDER BY i.indexrelid LIMIT 1))
           END
      FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped
$$;
COMMENT ON FUNCTION pgseal.plaintext_use(regclass, name) IS 'internal: why encrypt_table does not choose a column by itself';

CREATE FUNCTION pgseal.table_columns(target_table regclass) RETURNS TABLE (column_name name, type oid, typmod int4, number int2)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname, a.atttypid, a.atttypmod, a.attnum FROM pg_attribute a
     WHERE a.attrelid = target_table AND a.attnum > 0 AND NOT a.attisdropped
       AND NOT (a.attname ~ '^pgseal_new_\d+$' AND a.atttypid = ANY (pgseal.value_types()))
$$;
COMMENT ON FUNCTION pgseal.table_columns(regclass) IS 'internal: columns of a table without those that a migration fills';

-- Says which columns it leaves, and why.
CREATE FUNCTION pgseal.columns_to_encrypt(target_table regclass, wanted name[]) RETURNS name[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    sources oid[] := ARRAY['jsonb'::regtype, 'json'::regtype, 'text'::regtype, 'varchar'::regtype, pgseal.vector_type('vector'), pgseal.vector_type('halfvec')];
    chosen name[] := '{}';
    others text[] := '{}';
    reason text;
    one record;
BEGIN
    PERFORM pgseal.migration_column(target_table, w) FROM unnest(wanted) w;
    FOR one IN SELECT * FROM pgseal.table_columns(target_table) c WHERE wanted IS NULL OR c.column_name = ANY (wanted) ORDER BY c.number LOOP
        reason := CASE WHEN one.type = ANY (pgseal.value_types()) THEN format('it is %s already', format_type(one.type, one.typmod))
                       WHEN wanted IS NOT NULL OR pgseal.migration_started(target_table, one.column_name) THEN NULL
                       WHEN one.type = ANY (sources) THEN pgseal.plaintext_use(target_table, one.column_name) END;
        IF reason IS NOT NULL THEN
            RAISE NOTICE '%.% stays as it is: %', target_table, quote_ident(one.column_name), reason;
        ELSIF wanted IS NULL AND NOT one.type = ANY (sources) THEN
            others := others || format('%I (%s)', one.column_name, format_type(one.type, one.typmod));
        ELSE
            chosen := chosen || one.column_name;
        END IF;
    END LOOP;
    IF others <> '{}' THEN
        RAISE NOTICE 'columns of % that stay plaintext, for they are of other types: %', target_table, array_to_string(others, ', ');
    END IF;
    RETURN chosen;
END $$;
COMMENT ON FUNCTION pgseal.columns_to_encrypt(regclass, name[]) IS 'internal: the columns that encrypt_table is to do';

-- What stands in the way of any column, before the first is changed.
CREATE FUNCTION pgseal.check_table(target_table regclass, columns name[], ignore text[]) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text[] := ARRAY(SELECT format('%I: %s', c, o) FROM unnest(columns) WITH ORDINALITY u (c, number), pgseal.obstacles_left(target_table, c, ignore) o
                           WHERE NOT pgseal.migration_started(target_table, c) ORDER BY number, o);
BEGIN
    IF found <> '{}' THEN
        RAISE EXCEPTION 'columns of % cannot change their types while other objects need them', target_table
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = array_to_string(found, E'\n'),
                  HINT = 'Nothing was changed. Drop or change them and make them again afterwards, or name the columns: columns => ARRAY[...]. '
                      'A function or publication that does no harm goes into ignore => ARRAY[...] as encrypt_column takes it.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.check_table(regclass, name[], text[]) IS 'internal: an error that names what stands in the way of any of the columns';

-- The command for an index that an encrypted column lacks; NULL where it has one, or none would help.
CREATE FUNCTION pgseal.index_command(target_table regclass, target_column name, new_type text) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CREATE INDEX %sON %s USING %s', CASE c.relkind WHEN 'r' THEN 'CONCURRENTLY ' END, target_table,
                  CASE WHEN new_type LIKE '%encrypted_vector%' THEN s.method ELSE format('gin (%I)', target_column) END)
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = target_column AND NOT a.attisdropped
      LEFT JOIN (SELECT format('sealed_ivf (%I %s.%I)', target_column, o.opcnamespace::regnamespace, o.opcname) FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod
                  WHERE m.amname = 'sealed_ivf' AND o.opcname = 'encrypted_vector_cosine_ops' AND o.opcintype = pgseal.own_type('encrypted_vector')) s (method) ON true
     WHERE c.oid = target_table
       AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum)
       AND (new_type NOT LIKE '%encrypted_vector%' OR s.method IS NOT NULL)
       AND (new_type NOT LIKE '%encrypted_text%' OR EXISTS (
            SELECT FROM pgseal.keyrings k, unnest(k.searchable) p WHERE k.id = substring(new_type FROM '\((\d+)\)$')::int4 AND (p = '$' OR p LIKE '%"$"%')))
$$;
COMMENT ON FUNCTION pgseal.index_command(regclass, name, text) IS 'internal: the command for the index of an encrypted column that has none';

-- Where the row's other columns leave room, a vector is read without a second look-up.
CREATE FUNCTION pgseal.keep_vectors_inline(target_table regclass, target_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leaf regclass;
BEGIN
    FOR leaf IN
        SELECT c.oid FROM unnest(pgseal.tables_of(target_table)) t JOIN pg_class c ON c.oid = t
         WHERE NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'toast_tuple_target')
           AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = target_column
                          AND a.atttypid IN (pgseal.vector_type('vector'), pgseal.vector_type('halfvec')))
    LOOP
        EXECUTE format('ALTER TABLE %s SET (toast_tuple_target = 8160)', leaf);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.keep_vectors_inline(regclass, name) IS 'internal: a table that gets encrypted vectors keeps them in its rows';

-- What would be done with each of the columns.
CREATE FUNCTION pgseal.describe_table(target_table regclass, columns name[], keyring text, batch_size int4, ignore text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    target_column name;
    new_type text;
    old_type text;
BEGIN
    FOREACH target_column IN ARRAY columns LOOP
        new_type := pgseal.migration_type(target_table, target_column, keyring, true);
        old_type := (SELECT format_type(c.type, c.typmod) FROM pgseal.table_columns(target_table) c WHERE c.column_name = target_column);
        RAISE NOTICE '%.%, which is %, is to become %', target_table, quote_ident(target_column), old_type, new_type;
        PERFORM pgseal.prepare_migration(target_table, target_column, new_type, true, batch_size, true, ignore);
        IF new_type LIKE '%encrypted_vector%' THEN
            RAISE NOTICE 'set toast_tuple_target = 8160 where it is not set, so that vectors stay in their rows';
        END IF;
        IF pgseal.index_command(target_table, target_column, new_type) IS NOT NULL THEN
            RAISE NOTICE 'afterwards: %', pgseal.index_command(target_table, target_column, new_type);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.describe_table(regclass, name[], text, int4, text[]) IS 'internal: NOTICEs that say what encrypt_table would do';

-- The columns to do, where all of them can be done.
CREATE FUNCTION pgseal.prepare_table(target_table regclass, keyring text, wanted name[], batch_size int4, dry_run boolean, ignore text[]) RETURNS name[]
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    columns name[];
BEGIN
    PERFORM pgseal.require_owner(target_table);
    columns := pgseal.columns_to_encrypt(target_table, wanted);
    PERFORM pgseal.migration_type(target_table, c, keyring, true) FROM unnest(columns) c;
    PERFORM pgseal.check_table(target_table, columns, ignore);
    IF dry_run THEN
        PERFORM pgseal.describe_table(target_table, columns, keyring, batch_size, ignore);
    END IF;
    RETURN columns;
END $$;
COMMENT ON FUNCTION pgseal.prepare_table(regclass, text, name[], int4, boolean, text[]) IS 'internal: what encrypt_table would do, and whether it can';

CREATE FUNCTION pgseal.report_table(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waiting text[] := ARRAY(SELECT m FROM pgseal.table_columns(target_table) c, pgseal.migration_commands(target_table, c.column_name) m
                             WHERE pgseal.migration_started(target_table, c.column_name));
    commands text[] := ARRAY(SELECT i FROM pgseal.table_columns(target_table) c, pgseal.index_command(target_table, c.column_name, format_type(c.type, c.typmod)) i
                              WHERE c.type = ANY (pgseal.value_types()) AND i IS NOT NULL ORDER BY c.number);
BEGIN
    IF waiting <> '{}' THEN
        RAISE NOTICE 'columns of % wait for their indexes', target_table
            USING HINT = format(E'Run this, then call again:\n%s;', array_to_string(waiting, E';\n'));
        RETURN;
    END IF;
    IF commands <> '{}' THEN
        RAISE NOTICE 'indexes that % can have now; exact search among filtered rows needs none on the embedding', target_table
            USING HINT = format(E'Run those you want:\n%s;', array_to_string(commands, E';\n'));
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.report_table(regclass) IS 'internal: NOTICEs with the commands for indexes';

CREATE PROCEDURE pgseal.encrypt_table(target_table regclass, keyring text DEFAULT NULL, columns name[] DEFAULT NULL, batch_size int4 DEFAULT 1000,
        dry_run boolean DEFAULT false, ignore text[] DEFAULT '{}')
    LANGUAGE plpgsql AS $$
DECLARE
    chosen pg_catalog.name[];
    target_column pg_catalog.name;
    number pg_catalog.int4 := 0;
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.encrypt_table') WHERE NOT dry_run;
    chosen := pgseal.prepare_table(target_table, keyring, columns, batch_size, dry_run, ignore);
    IF dry_run THEN
        RETURN;
    END IF;
    FOREACH target_column IN ARRAY chosen LOOP
        number := number OPERATOR(pg_catalog.+) 1;
        RAISE NOTICE '%.%: column % of %', target_table, pg_catalog.quote_ident(target_column), number, pg_catalog.cardinality(chosen);
        PERFORM pgseal.keep_vectors_inline(target_table, target_column);
        CALL pgseal.migrate_column(target_table, target_column, pgseal.migration_type(target_table, target_column, keyring, true), true,
                                   batch_size, false, ignore);
    END LOOP;
    PERFORM pgseal.report_plaintext(target_table) WHERE pg_catalog.cardinality(chosen) OPERATOR(pg_catalog.>) 0;
    PERFORM pgseal.report_table(target_table);
END $$;
COMMENT ON PROCEDURE pgseal.encrypt_table(regclass, text, name[], int4, boolean, text[])
    IS 'make all jsonb, text and vector columns of a table encrypted while it is in use, or those named; can be stopped and called again';
