-- A cast that nobody has written out refuses wherever a definition is evaluated: rows could never be written, or the table never be
-- analysed. So no such definition is made. A foreign key would decrypt as the table's owner; none is made of an encrypted column.
CREATE FUNCTION pgseal.refuse_stored_casts() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- As pg_node_tree has an implicit call of the function.
    implied text := (SELECT format(':funcid (%s) [^{}]*:funcformat 2 ', string_agg(p.oid::text, '|')) FROM pg_proc p
                      WHERE p.pronamespace = 'pgseal'::regnamespace AND p.proname IN ('plain', 'plain_varchar') AND p.pronargs = 3);
    found record;
BEGIN
    FOR found IN
        WITH made AS (SELECT DISTINCT c.objid, c.classid FROM pg_event_trigger_ddl_commands() c),
        kept (kind, name, expression) AS (
            SELECT 'constraint', c.conname, c.conbin::text FROM made m JOIN pg_constraint c ON m.objid IN (c.conrelid, c.contypid, c.oid)
            UNION ALL
            SELECT 'default of column', a.attname, d.adbin::text FROM made m JOIN pg_attrdef d ON d.adrelid = m.objid
              JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
            UNION ALL
            SELECT 'statistics object', s.stxname, s.stxexprs::text FROM made m JOIN pg_statistic_ext s ON m.objid IN (s.oid, s.stxrelid)
            UNION ALL
            SELECT 'policy', p.polname, concat(p.polqual, p.polwithcheck) FROM made m JOIN pg_policy p ON m.objid IN (p.oid, p.polrelid)
            UNION ALL
            SELECT 'trigger', t.tgname, t.tgqual::text FROM made m JOIN pg_trigger t ON m.objid IN (t.oid, t.tgrelid)
        )
        SELECT k.kind, k.name FROM kept k WHERE k.expression ~ implied
    LOOP
        RAISE EXCEPTION 'the % "%" would decrypt an encrypted value', found.kind, found.name
            USING ERRCODE = 'feature_not_supported', HINT = 'What the server evaluates by itself works on encrypted values only with their own operators, '
                'as value @> ''{"key": 1}'' and value ->> ''key'' = ''text''. Or write the cast out, value::text: then it decrypts for every writer.';
    END LOOP;
    FOR found IN
        SELECT c.conname AS name FROM pg_event_trigger_ddl_commands() m JOIN pg_constraint c ON m.objid = c.conrelid AND c.contype = 'f'
          JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
         WHERE pgseal.base_type(a.atttypid) = ANY (pgseal.value_types())
    LOOP
        RAISE EXCEPTION 'the foreign key "%" has an encrypted column', found.name
            USING ERRCODE = 'feature_not_supported', HINT = 'A foreign key compares plaintext as the owner of the table. Leave the column plain, or check it in a trigger.';
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.refuse_stored_casts() IS 'internal: refuses definitions that would decrypt by a cast that is not written out';

CREATE EVENT TRIGGER pgseal_stored_casts ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE FOREIGN TABLE', 'ALTER FOREIGN TABLE', 'CREATE SCHEMA', 'IMPORT FOREIGN SCHEMA',
                 'CREATE DOMAIN', 'ALTER DOMAIN', 'CREATE STATISTICS', 'CREATE POLICY', 'ALTER POLICY', 'CREATE TRIGGER')
    EXECUTE FUNCTION pgseal.refuse_stored_casts();
COMMENT ON EVENT TRIGGER pgseal_stored_casts IS 'refuses definitions that would decrypt by a cast that is not written out';
