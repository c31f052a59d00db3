-- A guard against tables that are made with plain columns where a rule says that they must not be.

-- One part of a pattern, schema.table, as LIKE has it: * and ? as in psql, "quoted" as it stands. NULL where it is no pattern.
CREATE FUNCTION pgseal.pattern_part(pattern text, part int4) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT CASE WHEN m[part] LIKE '"%' THEN regexp_replace(replace(substr(m[part], 2, length(m[part]) - 2), '""', '"'), '([\\%_])', '\\\1', 'g')
                        ELSE translate(regexp_replace(lower(m[part]), '([\\%_])', '\\\1', 'g'), '*?', '%_') END
              FROM regexp_match(pattern, '^("(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^".]+)$') m);
COMMENT ON FUNCTION pgseal.pattern_part(text, int4) IS 'internal: the schema (1) or the table (2) of a pattern, for LIKE';

-- The rule that says most about the name. Temporary tables are for rules that name pg_temp.
CREATE FUNCTION pgseal.protection_of(target_table regclass) RETURNS pgseal.protection
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT p FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              JOIN pgseal.protection p ON (c.relpersistence = 't') = (p.pattern LIKE 'pg\_temp.%')
               AND CASE c.relpersistence WHEN 't' THEN 'pg_temp' ELSE n.nspname END LIKE pgseal.pattern_part(p.pattern, 1)
               AND c.relname LIKE pgseal.pattern_part(p.pattern, 2)
             WHERE c.oid = target_table AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgseal')
             ORDER BY length(translate(p.pattern, '*?', '')) DESC, p.pattern COLLATE "C" LIMIT 1);
COMMENT ON FUNCTION pgseal.protection_of(regclass) IS 'internal: the rule of protect for a table, or NULL';

-- Plain columns that a rule is about. Text is confidential beside an embedding, unless it is a key. A problem says why a column
-- cannot change its type.
CREATE FUNCTION pgseal.plain_columns(target_table regclass, rule pgseal.protection)
    RETURNS TABLE (column_name name, number int4, kind text, is_key boolean, problem text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT a.attname, a.attnum::int4, k.kind, k.kind = 'text' AND u.is_key,
           CASE WHEN c.relkind = 'm' THEN 'its query computes it' WHEN a.attinhcount > 0 THEN 'it is inherited'
                WHEN c.reloftype <> 0 THEN 'the table is of a type' WHEN a.atttypid <> k.type THEN 'it is of a domain'
                ELSE coalesce(pgseal.plaintext_use(target_table, a.attname), 'it is part of index ' || u.index) END
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN (VALUES ('json'::regtype::oid, 'jsonb'), ('jsonb'::regtype, 'jsonb'), ('text'::regtype, 'text'), ('varchar'::regtype, 'text'),
                   ('bpchar'::regtype, 'text'), (pgseal.vector_type('vector'), 'vector'), (pgseal.vector_type('halfvec'), 'vector')) k (type, kind)
        ON k.type = pgseal.base_type(a.atttypid)
     CROSS JOIN LATERAL (
           SELECT EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = c.oid AND a.attnum = ANY (o.conkey) AND o.contype IN ('p', 'u', 'f', 'x'))
               OR EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND a.attnum = ANY (p.partattrs)),
                  (SELECT d.objid::regclass::text FROM pg_depend d JOIN pg_index i ON i.indexrelid = d.objid
                    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = a.attnum
                    ORDER BY d.objid LIMIT 1)) u (is_key, index)
     WHERE c.oid = target_table AND c.relkind IN ('r', 'p', 'm') AND k.kind = ANY (rule.types) AND a.attname <> ALL (rule.plain)
       AND (k.kind <> 'text' OR EXISTS (
            SELECT FROM pg_attribute e WHERE e.attrelid = c.oid AND NOT e.attisdropped
               AND pgseal.base_type(e.atttypid) IN (pgseal.vector_type('vector'), pgseal.vector_type('halfvec'), pgseal.vector_type('sparsevec'),
                                                    pgseal.own_type('encrypted_vector'))))
$$;
COMMENT ON FUNCTION pgseal.plain_columns(regclass, pgseal.protection) IS 'internal: the plain columns of a table that a rule of protect is about';

CREATE FUNCTION pgseal.changed_columns(pg_ddl_command) RETURNS TABLE (number int4, is_new boolean)
    AS 'MODULE_PATHNAME', 'pgseal_changed_columns' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.changed_columns(pg_ddl_command) IS 'internal: columns that an ALTER TABLE has added, or given another type';

-- The commands that make columns encrypted. Where the table has rows, the columns are new and hold nothing but NULL.
CREATE FUNCTION pgseal.protecting_commands(target_table regclass, columns name[], rule pgseal.protection, has_rows boolean) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted AS (
        SELECT c.number, quote_ident(c.column_name) AS name, a.atttypid = 'json'::regtype AS is_json,
               pgseal.bound_type(('encrypted_' || c.kind)::name, rule.keyring, pgseal.declared_dimensions(target_table, c.column_name)) AS type,
               format('(%s)::%s', pg_get_expr(d.adbin, d.adrelid), CASE c.kind WHEN 'vector' THEN pgseal.vector_type('vector')::regtype::text ELSE c.kind END) AS preset,
               d.adbin IS NOT NULL AS has_preset
          FROM pgseal.plain_columns(target_table, rule) c JOIN pg_attribute a ON a.attrelid = target_table AND a.attnum = c.number
          LEFT JOIN pg_attrdef d ON d.adrelid = target_table AND d.adnum = c.number
         WHERE c.column_name = ANY (columns)
    )
    SELECT format('ALTER TABLE %s %s', target_table, string_agg('DROP COLUMN ' || w.name, ', ')) FROM wanted w HAVING has_rows
    UNION ALL
    SELECT format('ALTER TABLE %s %s', target_table, string_agg(CASE WHEN has_rows THEN format('ADD COLUMN %s %s', w.name, w.type) ELSE
               concat_ws(', ', CASE WHEN w.has_preset THEN format('ALTER COLUMN %s DROP DEFAULT', w.name) END,
                         format('ALTER COLUMN %s TYPE %s%s', w.name, w.type, CASE WHEN w.is_json THEN format(' USING %s::jsonb', w.name) END),
                         CASE WHEN w.has_preset THEN format('ALTER COLUMN %s SET DEFAULT %s', w.name, w.preset) END) END, ', ' ORDER BY w.number))
      FROM wanted w
$$;
COMMENT ON FUNCTION pgseal.protecting_commands(regclass, name[], pgseal.protection, boolean) IS 'internal: commands that make new columns encrypted';

-- Why a rule is not applied to these columns: an error.
CREATE FUNCTION pgseal.refuse_plain(target_table regclass, columns name[], rule pgseal.protection, has_rows boolean) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problems text[] := ARRAY(SELECT format('%I: %s', c.column_name, c.problem) FROM pgseal.plain_columns(target_table, rule) c
                              WHERE c.column_name = ANY (columns) AND c.problem IS NOT NULL ORDER BY c.number);
    names text := (SELECT string_agg(quote_ident(c), ', ') FROM unnest(columns) c);
    rule_name text := format('Rule %s of pgseal.protect.', rule.pattern);
BEGIN
    IF rule.action = 'refuse' OR EXISTS (SELECT FROM unnest(columns) c WHERE c ~ '^pgseal_new_\d+$') THEN
        RAISE EXCEPTION 'columns of % would hold plaintext: %', target_table, names USING ERRCODE = 'invalid_table_definition', DETAIL = rule_name,
            HINT = 'Give them the types encrypted_jsonb, encrypted_text or encrypted_vector, with a keyring: metadata encrypted_jsonb(patients). A superuser changes the rule: pgseal.protect, pgseal.unprotect.';
    ELSIF problems <> '{}' THEN
        RAISE EXCEPTION 'columns of % cannot be made encrypted', target_table USING ERRCODE = 'invalid_table_definition',
            DETAIL = rule_name || E'\n' || array_to_string(problems, E'\n'),
            HINT = format('Give them encrypted types yourself, or leave them plain: a superuser runs SELECT pgseal.protect(%L, plain => ARRAY[...]) with their names.', rule.pattern);
    ELSIF NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.id = rule.keyring) THEN
        RAISE EXCEPTION 'the keyring of rule % does not exist', rule.pattern USING ERRCODE = 'undefined_object',
            HINT = format('SELECT pgseal.protect(%L, keyring), or pgseal.unprotect(%1$L).', rule.pattern);
    ELSIF has_rows THEN
        RAISE EXCEPTION '% has rows, and columns that would hold plaintext: %', target_table, names USING ERRCODE = 'invalid_table_definition', DETAIL = rule_name,
            HINT = 'Make the table first, then INSERT into it. To a table that has rows, add the column with its encrypted type, as ALTER TABLE ... ADD COLUMN metadata encrypted_jsonb(patients).';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_plain(regclass, name[], pgseal.protection, boolean) IS 'internal: an error where columns cannot be made encrypted as a rule of protect says';

-- Applies a rule to a table that was made, or to those of its columns that were changed.
CREATE FUNCTION pgseal.protect_table(target_table regclass, rule pgseal.protection, changed int4[], empty int4[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    columns name[] := ARRAY(SELECT c.column_name FROM pgseal.plain_columns(target_table, rule) c
                             WHERE NOT c.is_key AND (changed IS NULL OR c.number = ANY (changed)) ORDER BY c.number);
    -- Of a column that is new and has no default all rows have NULL.
    unset name[] := ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = target_table AND a.attnum = ANY (empty) AND NOT a.atthasmissing AND NOT a.atthasdef);
    has_rows boolean := EXISTS (SELECT FROM unnest(pgseal.tables_of(target_table)) t WHERE pg_relation_size(t) > 0);
    keys text := (SELECT string_agg(quote_ident(c.column_name), ', ' ORDER BY c.number) FROM pgseal.plain_columns(target_table, rule) c WHERE c.is_key);
    command text;
BEGIN
    IF columns = '{}' THEN
        RETURN;
    END IF;
    PERFORM pgseal.refuse_plain(target_table, columns, rule, has_rows AND NOT columns <@ unset);
    PERFORM pgseal.keep_vectors_inline(target_table, c) FROM unnest(columns) c;
    FOREACH command IN ARRAY ARRAY(SELECT pgseal.protecting_commands(target_table, columns, rule, has_rows)) LOOP
        EXECUTE command;
    END LOOP;
    RAISE NOTICE 'columns of % are encrypted under keyring %: %', target_table, (SELECT quote_ident(k.name) FROM pgseal.keyring k WHERE k.id = rule.keyring),
                 (SELECT string_agg(quote_ident(c), ', ') FROM unnest(columns) c)
        USING DETAIL = concat_ws(' ', format('Rule %s of pgseal.protect.', rule.pattern), 'Texts that stay plain, for they are keys: ' || keys || '.'),
              HINT = CASE WHEN current_setting('is_superuser') = 'on' OR EXISTS (
                  SELECT FROM pgseal.privilege p WHERE p.keyring = rule.keyring AND p.encrypt AND (p.role = 0 OR pg_has_role(p.role, 'USAGE')))
                  THEN 'SET pgseal.reveal = on shows them decrypted to roles with decrypt on the keyring.'
                  ELSE format('%s cannot write them yet: SELECT pgseal.grant_keyring(keyring, %L, ARRAY[''encrypt'', ''search'', ''decrypt'']).', quote_ident(current_user), current_user) END;
END $$;
COMMENT ON FUNCTION pgseal.protect_table(regclass, pgseal.protection, int4[], int4[]) IS 'internal: makes plain columns of a new table encrypted, or refuses them, as a rule of protect says';

CREATE FUNCTION pgseal.protect_new_tables() RETURNS event_trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made record;
    rule pgseal.protection;
BEGIN
    IF NOT EXISTS (SELECT FROM pgseal.protection) THEN
        RETURN;
    END IF;
    FOR made IN
        SELECT c.objid::regclass AS relation, bool_and(c.command_tag = 'ALTER TABLE') AS is_changed,
               array_agg(n.number) AS changed, array_agg(n.number) FILTER (WHERE n.is_new) AS empty
          FROM pg_event_trigger_ddl_commands() c LEFT JOIN LATERAL pgseal.changed_columns(c.command) n ON true
         WHERE c.classid = 'pg_class'::regclass AND c.objsubid = 0 AND NOT c.in_extension
           AND c.command_tag IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE MATERIALIZED VIEW', 'ALTER TABLE')
         GROUP BY c.objid
    LOOP
        rule := pgseal.protection_of(made.relation);
        IF rule.action <> 'allow' THEN
            PERFORM pgseal.protect_table(made.relation, rule, CASE WHEN made.is_changed THEN made.changed END, made.empty);
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.protect_new_tables() IS 'internal: applies the rules of protect to tables that are made or changed';

CREATE EVENT TRIGGER pgseal_protect ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE MATERIALIZED VIEW', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION pgseal.protect_new_tables();
COMMENT ON EVENT TRIGGER pgseal_protect IS 'plain columns of new tables become encrypted, or are refused, where a rule of pgseal.protect says so';

CREATE FUNCTION pgseal.create_index() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'pgseal_create_index' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.create_index() IS 'internal: makes indexes of plaintexts on protected tables such as encrypted columns can have';
CREATE EVENT TRIGGER pgseal_create_index ON ddl_command_start
    WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION pgseal.create_index();
COMMENT ON EVENT TRIGGER pgseal_create_index IS 'an index as it is made on plain columns becomes one that encrypted columns can have, where a rule of pgseal.protect encrypts';

CREATE FUNCTION pgseal.protect(pattern text, keyring text DEFAULT NULL, action text DEFAULT 'encrypt', types text[] DEFAULT '{jsonb,text,vector}', plain name[] DEFAULT '{}')
    RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id int4 := CASE WHEN keyring IS NOT NULL THEN pgseal.keyring_named(keyring) ELSE (SELECT k.id FROM pgseal.keyring k WHERE k.is_default) END;
    present text;
BEGIN
    IF pgseal.pattern_part(pattern, 1) IS NULL THEN
        RAISE EXCEPTION 'not a pattern of tables: %', coalesce(pattern, 'NULL') USING ERRCODE = 'invalid_parameter_value',
            HINT = 'schema.table, with * for any letters and ? for one: public.* for a schema, public.langchain_* for some of its tables, *.* for all.';
    END IF;
    IF action IS NULL OR action NOT IN ('encrypt', 'refuse', 'allow') THEN
        RAISE EXCEPTION 'unknown action "%"', action USING ERRCODE = 'invalid_parameter_value',
            HINT = 'encrypt makes plain columns of new tables encrypted, refuse is an error, allow leaves tables alone that a wider pattern is about.';
    END IF;
    IF types IS NULL OR types = '{}' OR NOT types <@ '{jsonb,text,vector}' THEN
        RAISE EXCEPTION 'unknown types: %', types USING ERRCODE = 'invalid_parameter_value',
            HINT = 'jsonb is for json too, text for varchar and char beside an embedding, vector for halfvec too.';
    END IF;
    IF id IS NULL AND action = 'encrypt' THEN
        RAISE EXCEPTION 'no keyring is chosen for the tables' USING ERRCODE = 'undefined_object',
            HINT = format('SELECT pgseal.protect(%L, ''patients''), after SELECT pgseal.create_keyring(''patients'').', pattern);
    END IF;
    INSERT INTO pgseal.protection AS p VALUES (pattern, id, action, types, coalesce(plain, '{}'))
    ON CONFLICT ON CONSTRAINT protection_pkey DO UPDATE
        SET keyring = excluded.keyring, action = excluded.action, types = excluded.types, plain = excluded.plain;
    present := (SELECT string_agg(u.object, ', ') FROM (SELECT DISTINCT u.relation::text AS object FROM pgseal.unprotected() u WHERE u.pattern = protect.pattern) u);
    IF present IS NOT NULL THEN
        RAISE NOTICE 'tables that were made before stay as they are: %', present
            USING HINT = 'CALL pgseal.encrypt_table(table, keyring) as their owner encrypts them.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.protect(text, text, text, text[], name[])
    IS 'have json, jsonb, vector columns, and text beside vectors, of tables made from now on encrypted, or refused; a pattern is schema.table with * and ?';

CREATE FUNCTION pgseal.unprotect(pattern text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pgseal.protection p WHERE p.pattern = unprotect.pattern;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no rule "%"', pattern USING ERRCODE = 'undefined_object', HINT = 'SELECT * FROM pgseal.protections lists them.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.unprotect(text) IS 'take a rule of protect back; tables stay as they are';

CREATE VIEW pgseal.protections AS
    SELECT p.pattern, p.action, k.name AS keyring, p.types, p.plain FROM pgseal.protection p LEFT JOIN pgseal.keyring k ON k.id = p.keyring;
COMMENT ON VIEW pgseal.protections IS 'the rules of protect: which new tables get encrypted columns, or are refused';

-- Tables made before a rule, or moved or renamed to where one is.
CREATE FUNCTION pgseal.unprotected() RETURNS TABLE (pattern text, relation regclass, column_name name)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (r.rule).pattern, c.oid::regclass, u.column_name
      FROM pg_class c CROSS JOIN LATERAL (SELECT pgseal.protection_of(c.oid) AS rule OFFSET 0) r CROSS JOIN LATERAL pgseal.plain_columns(c.oid, r.rule) u
     WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relpersistence <> 't' AND (r.rule).action <> 'allow' AND NOT u.is_key
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
$$;
COMMENT ON FUNCTION pgseal.unprotected() IS 'internal: plain columns of tables that a rule of protect is about';
