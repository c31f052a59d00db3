-- A keyring as JSON: wrapped keys only, which the KMS alone can open.
CREATE FUNCTION pgseal.export_keyring(keyring text) RETURNS json
    LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    keyring_id int4 := pgseal.keyring_named(keyring);
BEGIN
    RETURN (
        SELECT json_build_object('pgseal_keyring', 1, 'id', k.id, 'uuid', k.uuid, 'name', k.name, 'kms_endpoint', k.kms_endpoint, 'kms_key', k.kms_key,
            'kms_search_key', k.kms_search_key,
            'data_keys', (SELECT json_agg(json_build_object('version', d.version, 'state', d.state, 'wrapped', encode(d.wrapped, 'hex'),
                                 'commitment', encode(d.commitment, 'hex'), 'created', d.created, 'retired', d.retired) ORDER BY d.version)
                            FROM pgseal.data_key d WHERE d.keyring = k.id),
            'index_keys', (SELECT json_agg(json_build_object('version', i.version, 'state', i.state, 'wrapped', encode(i.wrapped, 'hex'),
                                 'commitment', encode(i.commitment, 'hex'), 'created', i.created, 'retired', i.retired, 'policy', i.policy) ORDER BY i.version)
                             FROM pgseal.index_key i WHERE i.keyring = k.id))
          FROM pgseal.keyring k WHERE k.id = keyring_id);
END $$;
COMMENT ON FUNCTION pgseal.export_keyring(text) IS 'a keyring as JSON, its keys wrapped; for import_keyring in another database';

CREATE FUNCTION pgseal.exported_keys(exported json, purpose text)
    RETURNS TABLE (version int4, state text, wrapped bytea, commitment bytea, created timestamptz, retired timestamptz, policy json)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT r.version, r.state, decode(r.wrapped, 'hex'), decode(r.commitment, 'hex'), r.created, r.retired, r.policy
      FROM json_to_recordset(exported -> (purpose || '_keys'))
        AS r (version int4, state text, wrapped text, commitment text, created timestamptz, retired timestamptz, policy json);
END;
COMMENT ON FUNCTION pgseal.exported_keys(json, text) IS 'internal: the keys in an exported keyring';

-- What is wrong with it by itself, before this database is looked at; NULL if nothing.
CREATE FUNCTION pgseal.exported_problem(exported json) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    purpose text;
    sound boolean;
BEGIN
    IF (exported ->> 'pgseal_keyring')::int4 IS DISTINCT FROM 1 THEN
        RETURN 'it is no keyring of format 1';
    END IF;
    -- The id stands in every value, and comes from the uuid's first four bytes.
    IF ('x' || left((exported ->> 'uuid')::uuid::text, 8))::bit(32)::int4 & 2147483647 IS DISTINCT FROM (exported ->> 'id')::int4 THEN
        RETURN 'its id does not belong to its uuid';
    END IF;
    IF (exported ->> 'uuid')::uuid IS NULL OR (exported ->> 'id')::int4 = 0 THEN
        RETURN 'its id or uuid is missing';
    END IF;
    IF json_typeof(exported -> 'name') IS DISTINCT FROM 'string' OR octet_length(exported ->> 'name') NOT BETWEEN 1 AND 63
        OR exported ->> 'name' ~ '^[-+]?[0-9]+$' THEN
        RETURN 'its name is missing or no name of a keyring';
    END IF;
    IF json_typeof(exported -> 'kms_key') IS DISTINCT FROM 'string' OR exported ->> 'kms_key' = ''
        OR coalesce(json_typeof(exported -> 'kms_endpoint'), 'null') NOT IN ('null', 'string')
        OR coalesce(json_typeof(exported -> 'kms_search_key'), 'null') NOT IN ('null', 'string') OR exported ->> 'kms_search_key' = '' THEN
        RETURN 'its KMS key or endpoint is missing or no text';
    END IF;
    FOREACH purpose IN ARRAY ARRAY['data', 'index'] LOOP
        SELECT count(*) FILTER (WHERE k.state = 'active') = 1
               AND max(k.version) = max(k.version) FILTER (WHERE k.state = 'active')
               AND count(DISTINCT k.version) = count(*) AND max(k.version) = count(*)
               AND bool_and(coalesce(k.version BETWEEN 1 AND 65535 AND k.state IN ('active', 'decrypt-only', 'retired', 'destroyed')
                                     AND octet_length(k.commitment) = 32 AND (k.wrapped IS NOT NULL OR k.state = 'destroyed')
                                     AND (k.policy IS NOT NULL) = (purpose = 'index'), false))
          INTO sound FROM pgseal.exported_keys(exported, purpose) k;
        IF sound IS NOT TRUE THEN
            RETURN format('its %s keys are incomplete', purpose);
        END IF;
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN data_exception THEN
    RETURN 'a field is not of the right kind';
END $$;
COMMENT ON FUNCTION pgseal.exported_problem(json) IS 'internal: what is wrong with an exported keyring';

CREATE FUNCTION pgseal.check_active_keys(keyring_id int4) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_check_active_keys' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.check_active_keys(int4) IS 'internal: an error unless the KMS unwraps a keyring''s active keys, and its policies can be read';

-- All refusals come before the first change.
CREATE FUNCTION pgseal.refuse_import(exported json) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_id int4 := exported ->> 'id';
    new_uuid uuid := exported ->> 'uuid';
    endpoint text := exported ->> 'kms_endpoint';
    found pgseal.keyring;
    purpose text;
    versions int4[];
BEGIN
    SELECT k.* INTO found FROM pgseal.keyring k WHERE k.id = new_id OR k.uuid = new_uuid;
    IF found.id IS NOT NULL AND found.uuid <> new_uuid THEN
        RAISE EXCEPTION 'id % belongs to keyring "%" here, which is another one', new_id, found.name
            USING ERRCODE = 'duplicate_object', HINT = 'Values of both cannot be in one database. Nothing was changed.';
    END IF;
    IF EXISTS (SELECT FROM pgseal.keyring k WHERE k.name = exported ->> 'name' AND k.uuid <> new_uuid) THEN
        RAISE EXCEPTION 'keyring "%" exists here, and is another one', exported ->> 'name'
            USING ERRCODE = 'duplicate_object', HINT = 'Change the name in the exported JSON: values do not depend on it. Nothing was changed.';
    END IF;
    IF found.id IS NULL AND endpoint IS NOT NULL AND current_setting('is_superuser') <> 'on'
        AND endpoint IS DISTINCT FROM pgseal.kms_endpoint()
        AND NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.kms_endpoint = endpoint) THEN
        RAISE EXCEPTION 'a KMS endpoint that is new here is for superusers to name'
            USING ERRCODE = 'insufficient_privilege', HINT = 'The server''s credentials go there.';
    END IF;
    FOREACH purpose IN ARRAY ARRAY['data', 'index'] LOOP
        versions := ARRAY(
            SELECT e.version FROM pgseal.exported_keys(exported, purpose) e
              JOIN (SELECT d.version, d.commitment, NULL::json AS policy FROM pgseal.data_key d WHERE d.keyring = new_id AND purpose = 'data'
                    UNION ALL
                    SELECT i.version, i.commitment, i.policy FROM pgseal.index_key i WHERE i.keyring = new_id AND purpose = 'index') h
                ON h.version = e.version
             WHERE h.commitment <> e.commitment OR h.policy::jsonb IS DISTINCT FROM e.policy::jsonb ORDER BY 1);
        IF versions <> '{}' THEN
            RAISE EXCEPTION '% key version % of keyring "%" is another key here', purpose, versions[1], found.name
                USING ERRCODE = 'duplicate_object', HINT = 'Both databases made new keys since they parted. Nothing was changed.';
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.refuse_import(json) IS 'internal: an error where this database has another keyring or key in the place of an exported one';

CREATE FUNCTION pgseal.import_keys(exported json, new_id int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest int4;
BEGIN
    -- A key that only decrypts there does so here too; retiring one is for retire_key, which looks at the rows that are here.
    newest := coalesce((SELECT max(d.version) FROM pgseal.data_key d WHERE d.keyring = new_id), 0);
    UPDATE pgseal.data_key d SET state = 'decrypt-only' FROM pgseal.exported_keys(exported, 'data') e
     WHERE d.keyring = new_id AND d.state = 'active' AND e.state = 'active' AND e.version > d.version;
    INSERT INTO pgseal.data_key (keyring, version, state, wrapped, commitment, created, retired)
    SELECT new_id, e.version, CASE WHEN e.state = 'active' AND e.version < newest THEN 'decrypt-only' ELSE e.state END,
           e.wrapped, e.commitment, coalesce(e.created, now()), e.retired
      FROM pgseal.exported_keys(exported, 'data') e
     WHERE NOT EXISTS (SELECT FROM pgseal.data_key d WHERE d.keyring = new_id AND d.version = e.version);
    newest := coalesce((SELECT max(i.version) FROM pgseal.index_key i WHERE i.keyring = new_id), 0);
    UPDATE pgseal.index_key i SET state = 'decrypt-only' FROM pgseal.exported_keys(exported, 'index') e
     WHERE i.keyring = new_id AND i.state = 'active' AND e.state = 'active' AND e.version > i.version;
    INSERT INTO pgseal.index_key (keyring, version, state, wrapped, commitment, policy, created, retired)
    SELECT new_id, e.version, CASE WHEN e.state = 'active' AND e.version < newest THEN 'decrypt-only' ELSE e.state END,
           e.wrapped, e.commitment, e.policy, coalesce(e.created, now()), e.retired
      FROM pgseal.exported_keys(exported, 'index') e
     WHERE NOT EXISTS (SELECT FROM pgseal.index_key i WHERE i.keyring = new_id AND i.version = e.version);
END $$;
COMMENT ON FUNCTION pgseal.import_keys(json, int4) IS 'internal: adds the exported keys that are not here yet';

CREATE FUNCTION pgseal.import_keyring(exported json) RETURNS int4
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    problem text := pgseal.exported_problem(exported);
    new_id int4;
    importer text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'the keyring cannot be imported: %', problem USING ERRCODE = 'invalid_parameter_value';
    END IF;
    new_id := exported ->> 'id';
    LOCK TABLE pgseal.keyring, pgseal.data_key, pgseal.index_key IN SHARE ROW EXCLUSIVE MODE;
    PERFORM pgseal.refuse_import(exported);
    IF NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.id = new_id) THEN
        INSERT INTO pgseal.keyring (id, uuid, name, kms_endpoint, kms_key, kms_search_key, is_default)
        VALUES (new_id, (exported ->> 'uuid')::uuid, exported ->> 'name', exported ->> 'kms_endpoint', exported ->> 'kms_key', exported ->> 'kms_search_key',
                NOT EXISTS (SELECT FROM pgseal.keyring));
        INSERT INTO pgseal.privilege (keyring, role, encrypt, search, decrypt) VALUES (new_id, quote_ident(importer)::regrole, true, true, true);
    END IF;
    PERFORM pgseal.import_keys(exported, new_id);
    -- Before anything is sealed under them; an error takes the import back.
    PERFORM pgseal.check_active_keys(new_id);
    RETURN new_id;
END $$;
COMMENT ON FUNCTION pgseal.import_keyring(json) IS 'add an exported keyring, or what this database does not know of it yet; returns its id';

-- What a backup needs that is taken now. The endpoint is the server's where a keyring has none of its own.
CREATE FUNCTION pgseal.backup_manifest()
    RETURNS TABLE (keyring name, uuid uuid, purpose text, version int4, kms_endpoint text, kms_key text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT k.name, k.uuid, v.purpose, v.version, coalesce(k.kms_endpoint, pgseal.kms_endpoint()),
           CASE v.purpose WHEN 'index' THEN coalesce(k.kms_search_key, k.kms_key) ELSE k.kms_key END
      FROM pgseal.keyring k
      JOIN (SELECT d.keyring, 'data' AS purpose, d.version, d.state FROM pgseal.data_key d
            UNION ALL SELECT i.keyring, 'index', i.version, i.state FROM pgseal.index_key i) v ON v.keyring = k.id
     WHERE v.state IN ('active', 'decrypt-only')
     ORDER BY 1, 3, 4;
END;
COMMENT ON FUNCTION pgseal.backup_manifest() IS 'which keys a backup needs that is taken now, and at which KMS they are';

CREATE TABLE pgseal.manifest (
    name text CONSTRAINT manifest_pkey PRIMARY KEY,
    registered timestamptz NOT NULL DEFAULT now(),
    keys jsonb NOT NULL
);
COMMENT ON TABLE pgseal.manifest IS 'backups that are kept, and which keys they need';
COMMENT ON COLUMN pgseal.manifest.keys IS 'what backup_manifest() returned when the backup was registered';
SELECT pg_catalog.pg_extension_config_dump('pgseal.manifest', '');

CREATE FUNCTION pgseal.register_manifest(name text) RETURNS int4
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needed jsonb := (SELECT coalesce(jsonb_agg(to_jsonb(m)), '[]') FROM pgseal.backup_manifest() m);
BEGIN
    INSERT INTO pgseal.manifest (name, keys) VALUES (register_manifest.name, needed) ON CONFLICT ON CONSTRAINT manifest_pkey DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'manifest "%" is registered already', name USING ERRCODE = 'duplicate_object';
    END IF;
    RETURN jsonb_array_length(needed);
END $$;
COMMENT ON FUNCTION pgseal.register_manifest(text) IS 'a backup has been taken now: its keys are not retired until release_manifest; returns how many';

CREATE FUNCTION pgseal.release_manifest(name text) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM pgseal.manifest m WHERE m.name = release_manifest.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'manifest "%" is not registered', name USING ERRCODE = 'undefined_object';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.release_manifest(text) IS 'a registered backup is gone';

-- For retire_key. The lock keeps a manifest from being registered until the key is retired.
CREATE FUNCTION pgseal.refuse_registered(keyring_id int4, key_version int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needing text;
BEGIN
    LOCK TABLE pgseal.manifest IN SHARE MODE;
    SELECT m.name INTO needing FROM pgseal.manifest m, jsonb_array_elements(m.keys) k
     WHERE (k ->> 'uuid')::uuid = (SELECT r.uuid FROM pgseal.keyring r WHERE r.id = keyring_id)
       AND k ->> 'purpose' = 'data' AND (k ->> 'version')::int4 = key_version
     ORDER BY m.registered LIMIT 1;
    IF needing IS NOT NULL THEN
        RAISE EXCEPTION 'the backup "%" needs data key version %', needing, key_version
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'SELECT pgseal.release_manifest(name) when the backup has been destroyed.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_registered(int4, int4) IS 'internal: refuses while a registered backup needs a data key';
