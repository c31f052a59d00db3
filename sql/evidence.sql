-- How often some bytes stand in the files of a relation, as they are on disk now.
CREATE FUNCTION pgseal.scan_files(relation regclass, needle text) RETURNS TABLE (files int4, bytes int8, hits int8)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    path text := pg_relation_filepath(relation);
    wanted bytea := convert_to(needle, getdatabaseencoding());
    chunk constant int8 := 8 * 1024 * 1024;
    file text;
    piece bytea;
    at int4;
    size int8;
BEGIN
    files := 0;
    bytes := 0;
    hits := 0;
    LOOP
        file := path || CASE WHEN files > 0 THEN '.' || files ELSE '' END;
        size := (pg_stat_file(file, true)).size;
        EXIT WHEN size IS NULL;
        FOR start IN 0 .. greatest(size - 1, 0) BY chunk LOOP
            -- A little of the next piece: what crosses the border is found once.
            piece := pg_read_binary_file(file, start, chunk + octet_length(wanted) - 1);
            LOOP
                at := position(wanted IN piece);
                EXIT WHEN at = 0;
                hits := hits + 1;
                piece := substr(piece, at + 1);
            END LOOP;
        END LOOP;
        bytes := bytes + size;
        files := files + 1;
    END LOOP;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION pgseal.scan_files(regclass, text) IS 'internal: how often a string stands in the files of a relation on disk';

-- The table's own files searched for strings that must not be there, and for one in a table of its own that must.
CREATE FUNCTION pgseal.scan_for(target_table regclass, canaries text[]) RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    control text := 'control-' || gen_random_uuid();
    relations regclass[] := ARRAY(
        SELECT r FROM pgseal.leaves(target_table) l JOIN pg_class c ON c.oid = l.leaf
          LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
         CROSS JOIN LATERAL (SELECT l.leaf UNION ALL SELECT t.oid WHERE t.oid IS NOT NULL
                             UNION ALL SELECT i.indexrelid FROM pg_index i WHERE i.indrelid IN (l.leaf, t.oid)) all_of (r)
         WHERE l.relkind IN ('r', 'm'));
    control_hits int8;
    found jsonb;
BEGIN
    CREATE TABLE pgseal.scan_control (value text);
    EXECUTE format('INSERT INTO pgseal.scan_control VALUES (%L)', control);
    CHECKPOINT;
    SELECT s.hits INTO control_hits FROM pgseal.scan_files('pgseal.scan_control', control) s;
    DROP TABLE pgseal.scan_control;
    IF control_hits = 0 THEN
        RAISE EXCEPTION 'the control was not found on disk, so the scan would prove nothing' USING ERRCODE = 'io_error';
    END IF;
    SELECT jsonb_agg(jsonb_build_object('canary_sha256', encode(sha256(convert_to(c.value, 'UTF8')), 'hex'), 'hits', c.hits, 'in', c.places) ORDER BY c.number)
      INTO found
      FROM (SELECT n.number, n.value, sum(s.hits) AS hits, coalesce(jsonb_object_agg(r::text, s.hits) FILTER (WHERE s.hits > 0), '{}') AS places
              FROM unnest(canaries) WITH ORDINALITY n (value, number), unnest(relations) r, pgseal.scan_files(r, n.value) s GROUP BY 1, 2) c;
    RETURN jsonb_build_object('control', 'planted and found', 'canaries', found, 'relations', to_jsonb(relations::text[]),
        'bytes', (SELECT sum(pg_relation_size(r)) FROM unnest(relations) r));
END $$;
COMMENT ON FUNCTION pgseal.scan_for(regclass, text[]) IS 'internal: the files of a table searched for strings, with a control that must be found';

-- One column for the record: the sentence that an auditor reads first, and what it rests on.
CREATE FUNCTION pgseal.verified(target_table regclass, target_column name, context text) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH v AS MATERIALIZED (SELECT * FROM pgseal.verify(target_table, target_column, context, 100)),
    n AS (SELECT coalesce(sum(v.number_of_values) FILTER (WHERE v.result = 'authentic'), 0) AS good, coalesce(sum(v.number_of_values), 0) AS total,
                 count(*) FILTER (WHERE v.number_of_values IS NULL AND c.oid IS NULL) AS unseen, count(c.oid) AS of_indexes
            FROM v LEFT JOIN pg_class c ON c.oid = v.relation AND c.relkind = 'i')
    SELECT jsonb_build_object('column', target_column,
        'statement', format('%s of %s values authenticate%s%s%s', n.good, n.total,
            (SELECT ': ' || string_agg(format('%s under data key version %s of keyring %s', k.n, k.key_version, k.keyring), ', ' ORDER BY k.keyring, k.key_version)
               FROM (SELECT v.keyring, v.key_version, sum(v.number_of_values) AS n FROM v WHERE v.result = 'authentic' GROUP BY 1, 2) k),
            CASE WHEN n.unseen > 0 THEN format('; %s pages or partitions could not be read', n.unseen) END,
            CASE WHEN n.of_indexes > 0 THEN '; pages of sealed indexes do not authenticate, or could not be read' END),
        'all_authentic', n.good = n.total AND n.unseen = 0 AND n.of_indexes = 0, 'total', n.total, 'authentic', n.good,
        'context', context, 'findings', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(v)) ORDER BY v.result, v.relation, v.row_ctid), '[]') FROM v))
      FROM n
$$;
COMMENT ON FUNCTION pgseal.verified(regclass, name, text) IS 'internal: verify of one column as evidence records it';

-- What evidence says of the wrapped keys of the keyrings that it met.
CREATE FUNCTION pgseal.keys_in_use(usage jsonb) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('keyring', k.keyring, 'purpose', k.purpose, 'version', k.version, 'state', k.state,
               'created', k.created, 'retired', k.retired,
               'kms_key', CASE k.purpose WHEN 'index' THEN coalesce(r.kms_search_key, r.kms_key) ELSE r.kms_key END,
               'kms_endpoint', coalesce(r.kms_endpoint, pgseal.kms_endpoint())) ORDER BY k.keyring, k.purpose, k.version), '[]')
      FROM pgseal.keys k JOIN pgseal.keyring r ON r.name = k.keyring
     WHERE k.keyring::text IN (SELECT u ->> 'keyring' FROM jsonb_each(usage) c, jsonb_array_elements(c.value) u)
$$;
COMMENT ON FUNCTION pgseal.keys_in_use(jsonb) IS 'internal: the keys that evidence names';

CREATE FUNCTION pgseal.not_looked_at(has_scanned boolean) RETURNS jsonb
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN jsonb_build_array(
            'columns of this table that are not encrypted, embeddings among them', 'encrypted values inside arrays, composites and ranges', 'other tables',
            'WAL, archived WAL, backups, dumps and replicas', 'server logs, temporary files, swap and core dumps',
            'the free space that the file system keeps of deleted files', 'what the KMS does with its key',
            'values as they were before: authentic means unchanged since sealed, not newest')
        || CASE WHEN has_scanned THEN jsonb_build_array('copies of a canary that are compressed, encoded otherwise, or cut by a page or TOAST chunk',
            'parts of canaries, and every string that is no canary') ELSE jsonb_build_array('the files on disk') END;
COMMENT ON FUNCTION pgseal.not_looked_at(boolean) IS 'internal: what evidence says nothing about';

CREATE FUNCTION pgseal.evidence(target_table regclass, contexts jsonb DEFAULT '{}', canaries text[] DEFAULT '{}', checkpoint boolean DEFAULT false)
    RETURNS jsonb
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
    place record;
    verified jsonb := '[]';
    usage jsonb := '{}';
    scanned jsonb := '{"done": false, "why": "no canaries were given"}';
    started timestamptz := clock_timestamp();
    lsn pg_lsn := CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END;
BEGIN
    IF EXISTS (SELECT FROM unnest(canaries) c WHERE coalesce(octet_length(c), 0) < 4) THEN
        RAISE EXCEPTION 'a canary needs at least 4 bytes: shorter ones are found by chance' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(canaries) > 0 AND NOT checkpoint THEN
        RAISE EXCEPTION 'what is in memory only is not on disk yet' USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Pass checkpoint => true: it runs CHECKPOINT, which writes all that is pending to disk.';
    END IF;
    -- A misspelt one would pass for checked.
    PERFORM pgseal.encrypted_column(target_table, c::name) FROM jsonb_object_keys(contexts) c;
    FOR place IN
        SELECT a.attname FROM pg_attribute a
         WHERE a.attrelid = target_table AND a.attnum > 0 AND NOT a.attisdropped AND pgseal.base_type(a.atttypid) = ANY (pgseal.value_types())
         ORDER BY a.attnum
    LOOP
        verified := verified || pgseal.verified(target_table, place.attname, contexts ->> place.attname::text);
        usage := usage || jsonb_build_object(place.attname, (SELECT coalesce(jsonb_agg(to_jsonb(u)), '[]') FROM pgseal.key_usage(target_table, place.attname) u));
    END LOOP;
    IF verified = '[]' THEN
        RAISE EXCEPTION '% has no encrypted column', target_table USING ERRCODE = 'wrong_object_type';
    END IF;
    IF cardinality(canaries) > 0 THEN
        scanned := pgseal.scan_for(target_table, canaries) || '{"done": true}';
    END IF;
    -- jsonb puts shorter names first: verify leads.
    RETURN jsonb_build_object(
        'verify', verified,
        'subject', jsonb_build_object('table', target_table::text, 'database', current_database(), 'role', current_user,
            'started', started, 'ended', clock_timestamp(),
            'system_identifier', (SELECT c.system_identifier::text FROM pg_control_system() c),
            'lsn', lsn,
            'in_recovery', pg_is_in_recovery(), 'server_version', current_setting('server_version'),
            'pgseal_version', (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'pgseal')),
        'file_scan', scanned,
        'algorithms', jsonb_build_object('format', 1, 'encryption', 'XAES-256-GCM (C2SP), 192-bit nonce',
            'authenticated', 'header, keyring uuid, tokens and content', 'search_tokens', 'HMAC-SHA-256, truncated to 64 bits',
            'key_derivation', 'HKDF-SHA-256'),
        'wrapped_keys', pgseal.keys_in_use(usage),
        'values_by_key', usage,
        'sealed_indexes', pgseal.verified_indexes(target_table),
        'how_to_repeat', jsonb_build_array(
            format('SELECT pgseal.evidence(%L%s, canaries => ..., checkpoint => true)', target_table, CASE WHEN contexts <> '{}' THEN format(', %L', contexts) END),
            format('SELECT * FROM pgseal.verify(%L, ...)', target_table),
            'as a superuser, or for all but file_scan as a role with SELECT and decrypt'),
        'not_looked_at', pgseal.not_looked_at(cardinality(canaries) > 0));
END $$;
COMMENT ON FUNCTION pgseal.evidence(regclass, jsonb, text[], boolean)
    IS 'a record for an auditor: do all values authenticate, under which keys, where and when, what was not looked at; with canaries a search of the '
        'table''s files on disk; contexts maps columns to expressions for verify';
