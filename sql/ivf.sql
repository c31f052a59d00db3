-- Sealed indexes on embeddings.

CREATE FUNCTION pgseal.sealed_ivf_handler(internal) RETURNS index_am_handler
    AS 'MODULE_PATHNAME', 'pgseal_sealed_ivf_handler' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_ivf_handler(internal) IS 'index access method';

CREATE ACCESS METHOD sealed_ivf TYPE INDEX HANDLER pgseal.sealed_ivf_handler;
COMMENT ON ACCESS METHOD sealed_ivf IS 'nearest neighbours of encrypted embeddings; its pages are ciphertext';

-- By which distance an index orders; the numbers are stored in its first page.
CREATE FUNCTION pgseal.ivf_l2() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_ivf_l2' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.ivf_l2() IS 'sealed_ivf support';
CREATE FUNCTION pgseal.ivf_ip() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_ivf_ip' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.ivf_ip() IS 'sealed_ivf support';
CREATE FUNCTION pgseal.ivf_cosine() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_ivf_cosine' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.ivf_cosine() IS 'sealed_ivf support';

-- As in vector.sql, which has looked at what is found there.
DO $$
BEGIN
    PERFORM set_config('search_path', format('pg_catalog, %I, pg_temp', n.nspname), true)
       FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
END $$;

CREATE OPERATOR CLASS @extschema@.encrypted_vector_l2_ops FOR TYPE @extschema@.encrypted_vector USING sealed_ivf AS
    OPERATOR 1 @extschema@.<-> (@extschema@.encrypted_vector, vector) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 pgseal.ivf_l2();
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_l2_ops USING sealed_ivf IS 'encrypted embeddings by Euclidean distance, for <->';

CREATE OPERATOR CLASS @extschema@.encrypted_vector_ip_ops FOR TYPE @extschema@.encrypted_vector USING sealed_ivf AS
    OPERATOR 1 @extschema@.<#> (@extschema@.encrypted_vector, vector) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 pgseal.ivf_ip();
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_ip_ops USING sealed_ivf IS 'encrypted embeddings by inner product, for <#>';

CREATE OPERATOR CLASS @extschema@.encrypted_vector_cosine_ops FOR TYPE @extschema@.encrypted_vector USING sealed_ivf AS
    OPERATOR 1 @extschema@.<=> (@extschema@.encrypted_vector, vector) FOR ORDER BY pg_catalog.float_ops,
    FUNCTION 1 pgseal.ivf_cosine();
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_cosine_ops USING sealed_ivf IS 'encrypted embeddings by the angle between them, for <=>';

SET LOCAL search_path = pg_catalog, pg_temp;

-- Read without a key; NULL is the key of what was put aside.
CREATE FUNCTION pgseal.index_pages(target_index regclass) RETURNS TABLE (data_key int4, number_of_pages int8, number_of_rows int8)
    AS 'MODULE_PATHNAME', 'pgseal_index_pages' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.index_pages(regclass) IS 'internal: pages and rows for each data key version that pages of a sealed index have';

CREATE FUNCTION pgseal.index_key_usage(target_index regclass) RETURNS TABLE (keyring text, data_key int4, number_of_pages int8, number_of_rows int8)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.name::text, p.data_key, p.number_of_pages, p.number_of_rows
      FROM pgseal.index_pages(target_index) p JOIN pg_attribute a ON a.attrelid = target_index AND a.attnum = 1
      LEFT JOIN pgseal.keyring k ON k.id = pgseal.keyring_of_typmod(a.atttypid, a.atttypmod)
     ORDER BY 2
$$;
COMMENT ON FUNCTION pgseal.index_key_usage(regclass) IS 'how many pages and rows of a sealed index each data key version has; without a version those that were put aside while no key was to be had';

CREATE FUNCTION pgseal.verify_index(target_index regclass) RETURNS TABLE (block int8, finding text)
    AS 'MODULE_PATHNAME', 'pgseal_verify_index' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.verify_index(regclass) IS 'the pages of a sealed index that do not authenticate, and why; needs decrypt';

-- In verify's columns.
CREATE FUNCTION pgseal.check_index(target_index regclass, max_listed int4)
    RETURNS TABLE (result text, number_of_values int8, keyring text, key_version int4, finding text, relation regclass, row_ctid tid)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
        WITH bad AS (SELECT v.*, row_number() OVER (ORDER BY v.block) AS number FROM pgseal.verify_index(target_index) v)
        SELECT 'corrupt', NULL::int8, NULL::text, NULL::int4, f.finding, target_index, NULL::tid
          FROM (SELECT b.block, format('block %s: %s', b.block, b.finding) FROM bad b WHERE b.number <= max_listed
                UNION ALL
                SELECT NULL, format('%s more blocks', count(*)) FROM bad b WHERE b.number > max_listed HAVING count(*) > 0) f (block, finding)
         ORDER BY f.block;
EXCEPTION WHEN data_corrupted OR index_corrupted THEN
    RETURN QUERY SELECT 'corrupt', NULL::int8, NULL::text, NULL::int4, SQLERRM, target_index, NULL::tid;
WHEN io_error OR invalid_authorization_specification OR invalid_parameter_value OR object_not_in_prerequisite_state OR undefined_object THEN
    RETURN QUERY SELECT 'unreadable', NULL::int8, NULL::text, NULL::int4, SQLERRM, target_index, NULL::tid;
END $$;
COMMENT ON FUNCTION pgseal.check_index(regclass, int4) IS 'internal: verdicts on the pages of a sealed index, without raising an error; needs decrypt';

-- Indexes that are not valid, or not ready, hold pages too. The tag is what a column names its keyring by.
CREATE FUNCTION pgseal.sealed_indexes() RETURNS TABLE (index regclass, relation regclass, name name, tag int4, blind text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid::regclass, i.indrelid::regclass, t.attname,
           -- A domain's modifier may be that of the domain it is made of.
           (WITH RECURSIVE base (type, typmod) AS (
                SELECT a.atttypid, a.atttypmod
                UNION ALL
                SELECT d.typbasetype, d.typtypmod FROM base b JOIN pg_type d ON d.oid = b.type WHERE d.typtype = 'd' AND b.typmod < 0
            ) SELECT max(b.typmod) FROM base b) & 131071,
           CASE WHEN c.relpersistence = 't' AND c.relnamespace <> pg_my_temp_schema() THEN 'temporary table of another session'
                WHEN i.indrelid = ANY ((SELECT pgseal.distributed_tables())::oid[]) THEN 'distributed table' END
      FROM pg_class c JOIN pg_am m ON m.oid = c.relam JOIN pg_index i ON i.indexrelid = c.oid
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
      JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = i.indkey[0]
     WHERE m.amname = 'sealed_ivf' AND c.relkind = 'i' ORDER BY 1
$$;
COMMENT ON FUNCTION pgseal.sealed_indexes() IS 'internal: indexes whose pages are sealed, with the tag of their keyring';

CREATE FUNCTION pgseal.verified_indexes(target_table regclass) RETURNS jsonb
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('index', s.index::text, 'all_authentic', f.found = '[]', 'findings', f.found, 'pages_by_key', u.counted)
               ORDER BY s.index::text), '[]')
      FROM pgseal.sealed_indexes() s JOIN pgseal.leaves(target_table) l ON l.leaf = s.relation
     CROSS JOIN LATERAL (SELECT coalesce(jsonb_agg(to_jsonb(v) ORDER BY v.block), '[]') FROM pgseal.verify_index(s.index) v) f (found)
     CROSS JOIN LATERAL (SELECT coalesce(jsonb_agg(to_jsonb(k) ORDER BY k.data_key), '[]') FROM pgseal.index_key_usage(s.index) k) u (counted)
     WHERE s.blind IS NULL
$$;
COMMENT ON FUNCTION pgseal.verified_indexes(regclass) IS 'internal: verify_index and index_key_usage of a table''s sealed indexes as evidence records them';

-- As the caller, who must own the table: the C function looks at everything itself.
CREATE FUNCTION pgseal.renew_index_pages(target_index regclass, first int8, count int4) RETURNS int8
    AS 'MODULE_PATHNAME', 'pgseal_renew_index_pages' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.renew_index_pages(regclass, int8, int4) IS 'internal: seals pages of an index anew and sorts in what was put aside; the first page after them';

CREATE FUNCTION pgseal.sealed_indexes_of(tables regclass[], target_column name) RETURNS regclass[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(s.index ORDER BY s.index), '{}') FROM pgseal.sealed_indexes() s WHERE s.relation = ANY (tables) AND s.name = target_column
$$;
COMMENT ON FUNCTION pgseal.sealed_indexes_of(regclass[], name) IS 'internal: sealed indexes on a column of these tables';

-- Commits, so that vacuum waits for no more than a batch: all that it names is qualified.
CREATE PROCEDURE pgseal.reencrypt_index(target_index regclass, pace text DEFAULT 'gentle')
    LANGUAGE plpgsql AS $$
DECLARE
    gentle pg_catalog.bool := pgseal.is_gentle(pace);
    pages pg_catalog.int8 := CASE WHEN gentle THEN 1 ELSE 64 END;
    next pg_catalog.int8 := 1;
    began pg_catalog.timestamptz;
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.reencrypt_index');
    PERFORM pgseal.require_rows_here(i.indrelid::pg_catalog.regclass) FROM pg_catalog.pg_index i WHERE i.indexrelid OPERATOR(pg_catalog.=) target_index;
    LOOP
        began := pg_catalog.clock_timestamp();
        next := pgseal.renew_index_pages(target_index, next, least(pages, 64)::pg_catalog.int4);
        COMMIT;
        EXIT WHEN next IS NULL;
        CALL pgseal.keep_pace(false, gentle, began, began, pages);
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_index(regclass, text) IS 'seals the pages of an index anew under the active data key, and sorts in the rows that were put aside while no key was to be had; commits after every batch';
