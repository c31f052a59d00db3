CREATE FUNCTION pgseal.rewrite_pages(target_table regclass, target_column int2, first_page int8, end_page int8, index boolean,
        OUT rewritten int8, OUT left_for_update int8, OUT out_of_line int8, OUT busy_page int8)
    AS 'MODULE_PATHNAME', 'pgseal_rewrite_pages_record' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.rewrite_pages(regclass, int2, int8, int8, boolean) IS 'internal: renews values in pages without new row versions';

-- How many values of these pages were renewed in place, are left for UPDATE, and are stored out of line; and a page that is in
-- use all the time. As the caller, who must own the table: the C function looks at everything itself.
CREATE FUNCTION pgseal.rewrite_pages_of(target_table regclass, target_column name, first_page int8, end_page int8, index boolean,
        OUT rewritten int8, OUT left_for_update int8, OUT out_of_line int8, OUT busy_page int8)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT r.* INTO rewritten, left_for_update, out_of_line, busy_page
      FROM pg_attribute a CROSS JOIN LATERAL pgseal.rewrite_pages(target_table, a.attnum, first_page, end_page, index) r
     WHERE a.attrelid = target_table AND a.attname = target_column;
END $$;
COMMENT ON FUNCTION pgseal.rewrite_pages_of(regclass, name, int8, int8, boolean) IS 'internal: the same for a column by name';

-- Why values of a column must not be rewritten where they are: something else is made from their bytes.
CREATE FUNCTION pgseal.in_place_problem(target_table regclass, target_column name) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgseal.encrypted_column(target_table, target_column);
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
COMMENT ON FUNCTION pgseal.in_place_problem(regclass, name) IS 'why a column cannot be rotated in place, or NULL';
