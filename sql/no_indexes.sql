-- Options of a class refuse an index on encrypted values themselves. An index on arrays, rows and ranges of them, a partition key and
-- extended statistics use other classes, which find ours: they would keep hashes or an order of plaintexts.
CREATE FUNCTION pgseal.refuse_orders() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    refused text;
BEGIN
    WITH RECURSIVE changed (classid, objid) AS (
        SELECT c.classid, c.objid FROM pg_event_trigger_ddl_commands() c
    ), keeper (name, type) AS (
        SELECT pg_describe_object('pg_class'::regclass, i.indexrelid, 0), a.atttypid
          FROM changed c JOIN pg_index i ON c.objid IN (i.indexrelid, i.indrelid) JOIN pg_class x ON x.oid = i.indexrelid
          JOIN pg_am m ON m.oid = x.relam JOIN pg_attribute a ON a.attrelid = i.indexrelid AND a.attnum <= i.indnkeyatts
         WHERE c.classid = 'pg_class'::regclass AND m.amname NOT IN ('hash', 'sealed_ivf')
        UNION ALL
        -- A hash index has hashes in its columns: what they are made of.
        SELECT pg_describe_object('pg_class'::regclass, i.indexrelid, 0), a.atttypid
          FROM changed c JOIN pg_index i ON c.objid IN (i.indexrelid, i.indrelid) JOIN pg_opclass o ON o.oid = i.indclass[0]
          JOIN pg_am m ON m.oid = o.opcmethod JOIN pg_type t ON t.oid = o.opcintype JOIN pg_attribute a ON a.attrelid = i.indrelid
         WHERE c.classid = 'pg_class'::regclass AND m.amname = 'hash' AND (i.indkey[0] = a.attnum OR i.indkey[0] = 0 AND t.typtype = 'p' AND EXISTS (
               SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid IN (0, a.attnum)))
        UNION ALL
        SELECT format('the partition key of %s', pg_describe_object('pg_class'::regclass, p.partrelid, 0)), a.atttypid
          FROM changed c JOIN pg_partitioned_table p ON p.partrelid = c.objid
          JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
         WHERE c.classid = 'pg_class'::regclass
        UNION ALL
        SELECT pg_describe_object('pg_statistic_ext'::regclass, s.oid, 0), a.atttypid
          FROM changed c JOIN pg_statistic_ext s ON s.oid = c.objid
          JOIN pg_attribute a ON a.attrelid = s.stxrelid AND (a.attnum = ANY (s.stxkeys::int2[]) OR s.stxexprs IS NOT NULL AND EXISTS (
               SELECT FROM pg_depend d WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid = s.oid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum))
         WHERE c.classid = 'pg_statistic_ext'::regclass
        UNION ALL
        SELECT pg_describe_object('pg_type'::regclass, r.rngtypid, 0), r.rngsubtype
          FROM changed c JOIN pg_range r ON r.rngtypid = c.objid WHERE c.classid = 'pg_type'::regclass
    ), held (name, type) AS (
        SELECT k.name, k.type FROM keeper k
        UNION
        SELECT h.name, p.type FROM held h JOIN pg_type t ON t.oid = h.type CROSS JOIN LATERAL (
            SELECT t.typelem UNION ALL SELECT t.typbasetype
            UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
            UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) p (type)
         WHERE p.type <> 0
    )
    SELECT min(h.name) INTO refused
      FROM held h JOIN pg_type t ON t.oid = h.type AND t.typname IN ('encrypted_text', 'encrypted_jsonb')
      JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
      JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'pgseal';
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '% would tell what encrypted values are', refused USING ERRCODE = 'feature_not_supported',
            HINT = 'CREATE INDEX ON table USING gin (column) makes @>, ->> = and = fast, and has statistics of its own. What is to be unique, a key or a partition''s bound must be another column.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_orders() IS 'internal: refuses what would keep an order or hashes of plaintexts';
CREATE EVENT TRIGGER pgseal_refuse_orders ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE MATERIALIZED VIEW', 'CREATE INDEX', 'ALTER TABLE', 'CREATE SCHEMA',
                 'CREATE STATISTICS', 'CREATE TYPE', 'ALTER TYPE')
    EXECUTE FUNCTION pgseal.refuse_orders();
COMMENT ON EVENT TRIGGER pgseal_refuse_orders IS 'no index, partition key, statistics or range keeps an order or hashes of plaintexts';
