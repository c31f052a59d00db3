CREATE FUNCTION pgseal.own_type(base name) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT t.oid FROM pg_type t
              JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
              JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
             WHERE e.extname = 'pgseal' AND t.typname = base);
COMMENT ON FUNCTION pgseal.own_type(name) IS 'internal: a type of the extension';

-- Where values of a key may be: columns, and the texts that the catalogs keep. For retire_key, drop_keyring and audit.

CREATE FUNCTION pgseal.value_types() RETURNS oid[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN ARRAY[pgseal.own_type('encrypted_jsonb'), pgseal.own_type('encrypted_text'), pgseal.own_type('encrypted_vector')];
COMMENT ON FUNCTION pgseal.value_types() IS 'internal: the types whose values are sealed';

CREATE FUNCTION pgseal.base_type(type oid) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (oid, typbasetype) AS (
        SELECT t.oid, t.typbasetype FROM pg_type t WHERE t.oid = type
        UNION ALL
        SELECT t.oid, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.typbasetype
    ) SELECT base.oid FROM base WHERE base.typbasetype = 0
$$;
COMMENT ON FUNCTION pgseal.base_type(oid) IS 'internal: the type itself, or what a domain is made of in the end';

-- Citus keeps the rows of these tables in shards of other names, mostly on other servers: here they are empty, and would
-- pass for tables without old values.
CREATE FUNCTION pgseal.distributed_tables() RETURNS oid[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found oid[];
BEGIN
    IF to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL THEN
        EXECUTE 'SELECT array_agg(p.logicalrelid::oid) FROM pg_catalog.pg_dist_partition p' INTO found;
    END IF;
    RETURN coalesce(found, '{}');
END $$;
COMMENT ON FUNCTION pgseal.distributed_tables() IS 'internal: tables whose rows Citus keeps in shards';

-- Citus hides shards from queries of the catalogs, so that a table that is there seems to have no rows.
CREATE FUNCTION pgseal.require_rows_here(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    distributed text := (SELECT string_agg(t.relation::text, ', ' ORDER BY t.relation) FROM (SELECT target_table UNION SELECT l.leaf FROM pgseal.leaves(target_table) l) t (relation)
                          WHERE t.relation = ANY ((SELECT pgseal.distributed_tables())::oid[]));
    is_seen boolean;
BEGIN
    IF distributed IS NOT NULL THEN
        RAISE EXCEPTION 'Citus keeps the rows of % in shards, where this does not look', distributed
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'On each node, SET citus.override_table_visibility = off and name its shards: SELECT shard_name FROM citus_shards tells which.';
    END IF;
    -- Planned anew each time, for the setting may have changed since a plan was kept.
    EXECUTE 'SELECT c.relkind IN (''p'', ''v'') OR EXISTS (SELECT FROM pgseal.leaves($1) l WHERE l.leaf = $1) FROM pg_catalog.pg_class c WHERE c.oid = $1'
        INTO is_seen USING target_table;
    IF is_seen IS NOT TRUE THEN
        RAISE EXCEPTION '% is hidden from queries of pg_class, as a shard of Citus is, and its rows would not be looked at', target_table
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SET citus.override_table_visibility = off, and call again.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.require_rows_here(regclass) IS 'internal: an error where the rows of a table are in shards, or would not be seen';

-- Another type in one shard, or in the empty table above the shards, would part them for good.
CREATE FUNCTION pgseal.refuse_distributed(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_shard boolean := false;
BEGIN
    IF to_regprocedure('pg_catalog.relation_is_a_known_shard(regclass)') IS NOT NULL THEN
        EXECUTE 'SELECT pg_catalog.relation_is_a_known_shard($1)' INTO is_shard USING target_table;
    END IF;
    IF is_shard OR target_table = ANY ((SELECT pgseal.distributed_tables())::oid[]) THEN
        RAISE EXCEPTION 'columns of % cannot be encrypted or decrypted while Citus distributes it', target_table
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'SELECT undistribute_table(table) on the coordinator, call again, then SELECT create_distributed_table(table, column).';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_distributed(regclass) IS 'internal: an error for a table of Citus and for its shards';

-- Columns that can hold values, plainly (scalar names the type), or in arrays, composites and ranges; blind says why one cannot be read.
CREATE FUNCTION pgseal.value_columns() RETURNS TABLE (relation regclass, attname name, scalar text, typmod int4, blind text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE carrier (oid, scalar) AS (
        SELECT t, t::regtype::text FROM unnest(pgseal.value_types()) t
        UNION
        SELECT t.oid, CASE WHEN t.typbasetype = c.oid THEN c.scalar END
          FROM carrier c JOIN pg_type t
            ON t.typbasetype = c.oid OR t.typelem = c.oid
            OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = c.oid AND NOT a.attisdropped))
            OR EXISTS (SELECT FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid) AND r.rngsubtype = c.oid)
    ) SELECT r.oid::regclass, a.attname, k.scalar, a.atttypmod,
             CASE WHEN r.relkind = 'f' THEN 'foreign table'
                  WHEN r.oid = ANY ((SELECT pgseal.distributed_tables())::oid[]) THEN 'distributed table'
                  WHEN r.relpersistence = 't' AND r.relnamespace <> pg_my_temp_schema() THEN 'temporary table of another session' END
        FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid JOIN carrier k ON k.oid = a.atttypid
       WHERE r.relkind IN ('r', 'm', 'f') AND r.relispopulated AND a.attnum > 0 AND NOT a.attisdropped
       ORDER BY 1, 2
$$;
COMMENT ON FUNCTION pgseal.value_columns() IS 'internal: columns that can hold encrypted values, in arrays and composites too';

-- What the catalogs keep as it was typed; whole where it is an expression and nothing else. Objects below 16384 are PostgreSQL's own.
CREATE FUNCTION pgseal.definitions() RETURNS TABLE (object text, definition text, class oid, id oid, whole boolean)
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
COMMENT ON FUNCTION pgseal.definitions() IS 'internal: what the catalogs keep as it was typed';

-- What an owner's triggers, CHECKs and functions of indexes do, they do as whoever works on the table.
CREATE FUNCTION pgseal.require_owner(target_table regclass, or_run_as_owner boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    other record;
BEGIN
    SELECT c.oid::regclass AS relation, c.relowner::regrole AS owner INTO other
      FROM (SELECT target_table UNION SELECT l.leaf FROM pgseal.leaves(target_table) l UNION SELECT p.relid FROM pg_partition_tree(target_table) p) t (relation)
      JOIN pg_class c ON c.oid = t.relation WHERE NOT pg_has_role(c.relowner, current_user, 'USAGE')
       AND NOT (or_run_as_owner AND pg_has_role(c.relowner, 'USAGE')) ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% belongs to %, whose triggers and functions would run with the privileges of %', other.relation, other.owner, quote_ident(current_user)
            USING ERRCODE = 'insufficient_privilege', HINT = format('SET ROLE %s first: a role that needs its privileges on the keyring.', other.owner);
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.require_owner(regclass, boolean) IS 'internal: refuses to run an owner''s code with more privileges than the owner has';

-- For everybody: it runs as its caller, with fewer rights than without it.
CREATE FUNCTION pgseal.confined(statement text, start tid DEFAULT NULL, stop tid DEFAULT NULL, of_table regclass DEFAULT NULL) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_confined' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.confined(text, tid, tid, regclass)
    IS 'internal: runs a statement whose triggers and functions cannot go back from SET ROLE; as the owner of of_table where that one has fewer rights';

-- For whoever may select all rows. Read without the planner and the executor: no code of the table's owner runs.
CREATE FUNCTION pgseal.jsonb_values(leaf regclass, target_column text, page int8, item int4) RETURNS @extschema@.encrypted_jsonb[]
    AS 'MODULE_PATHNAME', 'pgseal_page_values' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.jsonb_values(regclass, text, int8, int4) IS 'internal: the values of a page of a table';
CREATE FUNCTION pgseal.text_values(leaf regclass, target_column text, page int8, item int4) RETURNS @extschema@.encrypted_text[]
    AS 'MODULE_PATHNAME', 'pgseal_page_values' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.text_values(regclass, text, int8, int4) IS 'internal: the values of a page of a table';

-- Expressions as the parser left them: pg_depend does not tell whether a row is used as a whole.
CREATE FUNCTION pgseal.expression_trees() RETURNS TABLE (class oid, id oid, tree text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT t.class, t.id, t.tree FROM (
        SELECT 'pg_rewrite'::regclass::oid, oid, concat(ev_qual, ev_action) FROM pg_rewrite
        UNION ALL SELECT 'pg_policy'::regclass, oid, concat(polqual, polwithcheck) FROM pg_policy
        UNION ALL SELECT 'pg_constraint'::regclass, oid, conbin::text FROM pg_constraint
        UNION ALL SELECT 'pg_trigger'::regclass, oid, tgqual::text FROM pg_trigger
        UNION ALL SELECT 'pg_attrdef'::regclass, oid, adbin::text FROM pg_attrdef
        UNION ALL SELECT 'pg_class'::regclass, indexrelid, concat(indexprs, indpred) FROM pg_index
        UNION ALL SELECT 'pg_proc'::regclass, oid, concat(prosqlbody, proargdefaults) FROM pg_proc
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxexprs::text FROM pg_statistic_ext
    ) t (class, id, tree) WHERE t.id >= 16384 AND t.tree <> ''
$$;
COMMENT ON FUNCTION pgseal.expression_trees() IS 'internal: expressions that the catalogs keep, as the parser left them';

-- A query would have the planner run functions of the tables' owners, with the privileges of whoever looks.
CREATE FUNCTION pgseal.column_keys(target_table regclass, target_column text)
    RETURNS TABLE (keyring_id int4, key_version int4, index_key_version int4, in_transit boolean, number_of_values int8)
    AS 'MODULE_PATHNAME', 'pgseal_column_key_records' LANGUAGE C STABLE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.column_keys(regclass, text) IS 'internal: how many values of a column have which keys; NULL are the keys of malformed ones';

CREATE FUNCTION pgseal.encrypted_column(target_table regclass, target_column name) RETURNS oid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found oid := (SELECT pgseal.base_type(a.atttypid) FROM pg_attribute a
                   WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped);
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'column "%" of % does not exist', target_column, target_table USING ERRCODE = 'undefined_column';
    END IF;
    IF found <> ALL (pgseal.value_types()) THEN
        RAISE EXCEPTION 'column "%" of % is not encrypted', target_column, target_table
            USING ERRCODE = 'wrong_object_type', HINT = 'Its type must be encrypted_jsonb, encrypted_text or encrypted_vector.';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION pgseal.encrypted_column(regclass, name) IS 'internal: the type of an encrypted column';

CREATE FUNCTION pgseal.text_holds_key(text, int4, int4) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_text_holds_key' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.text_holds_key(text, int4, int4) IS 'internal: does a text quote a value of a data key version?';

CREATE FUNCTION pgseal.key_usage(target_table regclass, target_column name)
    RETURNS TABLE (keyring text, key_version int4, index_key_version int4, number_of_values int8)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    type name := pgseal.kind_of_type(pgseal.encrypted_column(target_table, target_column));
    unseen text := (SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c WHERE c.relkind IN ('f', 'v')
                       AND (c.oid = target_table OR c.oid IN (SELECT l.leaf FROM pgseal.leaves(target_table) l)));
BEGIN
    IF unseen IS NOT NULL THEN
        RAISE EXCEPTION 'rows of % are stored elsewhere', unseen USING ERRCODE = 'wrong_object_type', HINT = 'Name the table that has them.';
    END IF;
    PERFORM pgseal.require_rows_here(target_table);
    -- A key that only pages of its sealed indexes have has no values.
    RETURN QUERY EXECUTE format(
        'WITH stored AS (
            SELECT coalesce(k.name::text, u.id::text) AS keyring, u.data, u.index, u.n
              FROM (SELECT pgseal.keyring_id(v) AS id, pgseal.key_version(v) AS data, pgseal.index_key_version(v) AS index, count(*) AS n
                      FROM pgseal.leaves($1) l CROSS JOIN LATERAL generate_series(0, pg_relation_size(l.leaf) / current_setting(''block_size'')::int8 - 1) page
                     CROSS JOIN LATERAL unnest(pgseal.%s_values(l.leaf, $2, page, NULL)) v WHERE v IS NOT NULL GROUP BY 1, 2, 3) u
              LEFT JOIN pgseal.keyring k ON k.id = u.id)
         SELECT s.* FROM stored s
         UNION ALL
         SELECT DISTINCT p.keyring, p.data_key, NULL::int4, 0::int8
           FROM unnest(pgseal.sealed_indexes_of(ARRAY(SELECT l.leaf FROM pgseal.leaves($1) l), $2)) i CROSS JOIN LATERAL pgseal.index_key_usage(i) p
          WHERE p.data_key IS NOT NULL AND NOT EXISTS (SELECT FROM stored s WHERE (s.keyring, s.data) = (p.keyring, p.data_key))
          ORDER BY 1, 2, 3', type) USING target_table, target_column::text;
END $$;
COMMENT ON FUNCTION pgseal.key_usage(regclass, name) IS 'how many values of a column each key version has; 0 where only pages of its sealed indexes have it';

-- Tables and materialized views below a table: partitions and children.
CREATE FUNCTION pgseal.leaves(target_table regclass) RETURNS TABLE (leaf regclass, relkind "char")
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree (oid) AS (
        SELECT target_table::oid
        UNION
        SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid
    ) SELECT c.oid::regclass, c.relkind FROM tree JOIN pg_class c ON c.oid = tree.oid WHERE c.relkind NOT IN ('p', 'v') ORDER BY 1
$$;
COMMENT ON FUNCTION pgseal.leaves(regclass) IS 'internal: what stores the rows of a table: itself, partitions, children';
