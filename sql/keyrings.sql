CREATE FUNCTION pgseal.create_keyring(name text, searchable text[] DEFAULT '{}', kms_key text DEFAULT NULL, kms_endpoint text DEFAULT NULL,
        kms_search_key text DEFAULT NULL) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_create_keyring' LANGUAGE C VOLATILE PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.create_keyring(text, text[], text, text, text)
    IS 'make a keyring: searchable paths, name of the wrapping key at the KMS, its endpoint, name of another wrapping key for index keys; returns its id';
CREATE FUNCTION pgseal.create_numbered_keyring(name text, searchable text[], kms_key text, kms_endpoint text, id int4) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_create_numbered_keyring' LANGUAGE C VOLATILE PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.create_numbered_keyring(text, text[], text, text, int4)
    IS 'make a keyring with the id that the types of a schema name which was restored without rows';
CREATE FUNCTION pgseal.keyring_named(name text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_named' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.keyring_named(text) IS 'internal: the id of a keyring; an error where there is none of the name';
CREATE FUNCTION pgseal.set_default_keyring(name text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_set_default_keyring' LANGUAGE C VOLATILE PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.set_default_keyring(text) IS 'the keyring for values whose column and session name none; NULL for none';
CREATE FUNCTION pgseal.rotate_key(keyring text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_rotate_key' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.rotate_key(text) IS 'new data key for new values; returns its version';
CREATE FUNCTION pgseal.rotate_index_key(keyring text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_rotate_index_key' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.rotate_index_key(text) IS 'new index key for new tokens; returns its version';
CREATE FUNCTION pgseal.set_searchable(keyring text, searchable text[]) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_set_searchable' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.set_searchable(text, text[]) IS 'other searchable paths, under a new index key; returns its version';
CREATE FUNCTION pgseal.rewrap_keys(keyring text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_rewrap_keys' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.rewrap_keys(text) IS 'wrap the keyring''s keys under the newest version of the KMS key; no row is touched; returns how many keys';
CREATE FUNCTION pgseal.set_search_key(keyring text, kms_search_key text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_set_search_key' LANGUAGE C VOLATILE PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.set_search_key(text, text)
    IS 'wrap the index keys by another key at the KMS than the data keys, NULL for the same; no row is touched; returns how many keys';
CREATE FUNCTION pgseal.flush_keys() RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_flush_keys' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.flush_keys() IS 'have every session drop its unwrapped keys at its next statement';
CREATE FUNCTION pgseal.key_tables_changed() RETURNS trigger
    AS 'MODULE_PATHNAME', 'pgseal_key_tables_changed' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.key_tables_changed() IS 'internal: tells every session that keys have changed';

-- Restores and imports change the tables without calling a function.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgseal.keyring
    FOR EACH STATEMENT EXECUTE FUNCTION pgseal.key_tables_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgseal.data_key
    FOR EACH STATEMENT EXECUTE FUNCTION pgseal.key_tables_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgseal.index_key
    FOR EACH STATEMENT EXECUTE FUNCTION pgseal.key_tables_changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON pgseal.privilege
    FOR EACH STATEMENT EXECUTE FUNCTION pgseal.key_tables_changed();

CREATE FUNCTION pgseal.may_become(text, text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_may_become' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.may_become(text, text) IS 'internal: may a key version go from one state to the other?';

CREATE FUNCTION pgseal.check_key_state() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pgseal.may_become(OLD.state, NEW.state) THEN
        RAISE EXCEPTION 'a key that is % does not become %', OLD.state, NEW.state
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Key states only move forward.';
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION pgseal.check_key_state() IS 'internal: key states only move forward';

CREATE TRIGGER state BEFORE UPDATE OF state ON pgseal.data_key
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION pgseal.check_key_state();
CREATE TRIGGER state BEFORE UPDATE OF state ON pgseal.index_key
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION pgseal.check_key_state();

-- Privileges that were restored before their role was there become the role's that has the name now; those of dropped roles go.
CREATE FUNCTION pgseal.settle_privileges() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgseal.privilege AS p (keyring, role, encrypt, search, decrypt)
    SELECT w.keyring, w.role::oid, w.encrypt, w.search, w.decrypt FROM pgseal.privilege w
     WHERE pgseal.is_missing(w.role) AND w.role IN (SELECT r.oid FROM pg_roles r)
    ON CONFLICT ON CONSTRAINT privilege_pkey DO UPDATE
        SET encrypt = p.encrypt OR excluded.encrypt, search = p.search OR excluded.search, decrypt = p.decrypt OR excluded.decrypt;
    DELETE FROM pgseal.privilege p
     WHERE p.role <> 0 AND pgseal.is_missing(p.role) = EXISTS (SELECT FROM pg_roles r WHERE r.oid = p.role);
END $$;
COMMENT ON FUNCTION pgseal.settle_privileges() IS 'internal: privileges go to roles that were missing when they were restored; those of dropped roles go';

-- What is misspelt would stay granted.
CREATE FUNCTION pgseal.refuse_unknown_privileges(privileges text[]) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unknown text := (SELECT p FROM unnest(privileges) p WHERE p NOT IN ('encrypt', 'search', 'decrypt') LIMIT 1);
BEGIN
    IF unknown IS NOT NULL OR privileges IS NULL OR array_position(privileges, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'unknown privilege "%"', unknown
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The privileges are encrypt, search and decrypt.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_unknown_privileges(text[]) IS 'internal: an error where one of the privileges is none';

CREATE FUNCTION pgseal.grant_keyring(keyring text, role text, privileges text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grantee oid := CASE lower(role) WHEN 'public' THEN 0 ELSE quote_ident(role)::regrole::oid END;
    id int4 := pgseal.keyring_named(keyring);
BEGIN
    PERFORM pgseal.refuse_unknown_privileges(privileges), pgseal.settle_privileges();
    INSERT INTO pgseal.privilege AS p (keyring, role, encrypt, search, decrypt)
    VALUES (id, grantee, 'encrypt' = ANY (privileges), 'search' = ANY (privileges), 'decrypt' = ANY (privileges))
    ON CONFLICT ON CONSTRAINT privilege_pkey DO UPDATE
        SET encrypt = p.encrypt OR excluded.encrypt, search = p.search OR excluded.search, decrypt = p.decrypt OR excluded.decrypt;
END $$;
COMMENT ON FUNCTION pgseal.grant_keyring(text, text, text[]) IS 'give a role (or public) encrypt, search or decrypt on a keyring';

CREATE FUNCTION pgseal.revoke_keyring(keyring text, role text, privileges text[] DEFAULT ARRAY['encrypt', 'search', 'decrypt']) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grantee pgseal.grantee := CASE lower(role) WHEN 'public' THEN '-' ELSE quote_ident(role) END;
    id int4 := pgseal.keyring_named(keyring);
BEGIN
    PERFORM pgseal.refuse_unknown_privileges(privileges), pgseal.settle_privileges();
    UPDATE pgseal.privilege p
       SET encrypt = p.encrypt AND NOT 'encrypt' = ANY (privileges),
           search = p.search AND NOT 'search' = ANY (privileges),
           decrypt = p.decrypt AND NOT 'decrypt' = ANY (privileges)
     WHERE p.keyring = id AND p.role = grantee;
    IF NOT FOUND AND pgseal.is_missing(grantee) THEN
        RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object';
    END IF;
    DELETE FROM pgseal.privilege p WHERE pgseal.is_missing(p.role) AND NOT (p.encrypt OR p.search OR p.decrypt);
END $$;
COMMENT ON FUNCTION pgseal.revoke_keyring(text, text, text[]) IS 'take privileges on a keyring back';

CREATE VIEW pgseal.keyrings AS
    SELECT k.name, k.id, k.is_default, k.kms_endpoint, k.kms_key,
           d.version AS data_key_version, i.version AS index_key_version,
           ARRAY(SELECT CASE WHEN (SELECT count(*) FROM pg_catalog.json_object_keys(p)) = 1 THEN p ->> 'path' ELSE p::text END
                   FROM pg_catalog.json_array_elements(i.policy -> 'paths') p) AS searchable,
           k.created,
           CASE i.policy ->> 'scheme' WHEN '1' THEN 'narrow' ELSE 'decide' END AS tokens,
           k.kms_search_key
      FROM pgseal.keyring k
      LEFT JOIN pgseal.data_key d ON d.keyring = k.id AND d.state = 'active'
      LEFT JOIN pgseal.index_key i ON i.keyring = k.id AND i.state = 'active';
COMMENT ON VIEW pgseal.keyrings IS 'keyrings with their active key versions and searchable paths';
COMMENT ON COLUMN pgseal.keyrings.tokens IS 'what the tokens of new values are for: decide, or narrow alone; see the setting pgseal.tokens';

CREATE VIEW pgseal.keys AS
    SELECT k.name AS keyring, 'data' AS purpose, d.version, d.state, d.created, d.retired
      FROM pgseal.data_key d JOIN pgseal.keyring k ON k.id = d.keyring
    UNION ALL
    SELECT k.name, 'index', i.version, i.state, i.created, i.retired
      FROM pgseal.index_key i JOIN pgseal.keyring k ON k.id = i.keyring;
COMMENT ON VIEW pgseal.keys IS 'every key version and its state';

CREATE FUNCTION pgseal.searchable_values(@extschema@.encrypted_jsonb) RETURNS TABLE (path text, number int8)
    AS 'MODULE_PATHNAME', 'pgseal_searchable_value_records' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.searchable_values(@extschema@.encrypted_jsonb) IS 'internal: the searchable values of a document, as numbers that equal ones share';

CREATE FUNCTION pgseal.check_searchable(target_table regclass, target_column name, sample_size int4 DEFAULT 10000)
    RETURNS TABLE (path text, number_of_values int8, distinct_values int8, commonest_share float8)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgseal.require_owner(target_table);
    FOR path, number_of_values, distinct_values, commonest_share IN SELECT r.* FROM jsonb_to_recordset(pgseal.confined(format(
        'SELECT coalesce(jsonb_agg(q ORDER BY q.p), ''[]'')
           FROM (SELECT path AS p, sum(n)::int8 AS n, count(*) AS d, max(n)::float8 / sum(n)::float8 AS s
                   FROM (SELECT v.path, count(*) AS n
                           FROM (SELECT %1$I AS c FROM %2$s WHERE %1$I IS NOT NULL LIMIT %3$s) s, pgseal.searchable_values(s.c) v
                          GROUP BY v.path, v.number) counted
                  GROUP BY path) q', target_column, target_table, greatest(sample_size, 0)))::jsonb) r (p text, n int8, d int8, s float8)
    LOOP
        IF number_of_values >= 100 AND (distinct_values < 16 OR commonest_share > 0.5) THEN
            RAISE NOTICE 'searchable path % has % different values, the commonest % %% of all: who sees the tokens can tell which is which',
                path, distinct_values, round(100 * commonest_share::numeric)
                USING HINT = format('Declare it with several tokens for each value, %s, or not at all.',
                                    json_build_object('path', path, 'spread', 8));
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.check_searchable(regclass, name, int4)
    IS 'how many different values searchable paths have in a sample of rows, with a notice where so few are easy to guess; needs decrypt';

CREATE FUNCTION pgseal.bound_column(keyring_id int4) RETURNS text
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('column %I of %s is of type %s', a.attname, a.attrelid::regclass, format_type(a.atttypid, a.atttypmod))
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE NOT a.attisdropped AND c.relkind IN ('r', 'p', 'm', 'f')
       AND a.atttypid = ANY ((SELECT pgseal.value_types())::oid[]) AND pgseal.keyring_of_typmod(a.atttypid, a.atttypmod) = keyring_id
    UNION ALL
    SELECT format('rule %s of pgseal.protect', p.pattern) FROM pgseal.protection p WHERE p.keyring = keyring_id
     LIMIT 1
$$;
COMMENT ON FUNCTION pgseal.bound_column(int4) IS 'internal: a column or a rule of protect that is bound to a keyring, or NULL';

CREATE FUNCTION pgseal.drop_keyring(keyring text, force boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped record;
    bound text;
    place text;
    key_version int4;
BEGIN
    SELECT k.id, concat_ws('" and "', k.kms_key, k.kms_search_key) AS kms_key, coalesce(k.kms_endpoint, pgseal.kms_endpoint()) AS endpoint INTO dropped
      FROM pgseal.keyring k WHERE k.id = pgseal.keyring_named(keyring) FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'keyring "%" was dropped meanwhile', keyring USING ERRCODE = 'undefined_object';
    END IF;
    IF NOT force THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'drop_keyring must see what other transactions commit while it waits'
                USING ERRCODE = 'active_sql_transaction', HINT = 'Run it in a transaction with isolation level READ COMMITTED.';
        END IF;
        bound := pgseal.bound_column(dropped.id);
        FOR key_version IN SELECT d.version FROM pgseal.data_key d WHERE d.keyring = dropped.id ORDER BY 1 LOOP
            PERFORM pgseal.refuse_registered(dropped.id, key_version);
            place := coalesce(place, CASE WHEN bound IS NULL THEN pgseal.settled_place(dropped.id, key_version, false)
                                          ELSE pgseal.find_key(dropped.id, key_version) END);
        END LOOP;
        -- Once more, because a table may have been committed while transactions were waited for.
        place := coalesce(place, bound, pgseal.bound_column(dropped.id));
        IF place IS NOT NULL THEN
            RAISE EXCEPTION 'keyring "%" is still in use: %', keyring, place
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Drop or re-encrypt what uses it first. drop_keyring(keyring, force => true) gives its values up: nothing reads them again.';
        END IF;
    END IF;
    DELETE FROM pgseal.privilege p WHERE p.keyring = dropped.id;
    DELETE FROM pgseal.data_key d WHERE d.keyring = dropped.id;
    DELETE FROM pgseal.index_key i WHERE i.keyring = dropped.id;
    DELETE FROM pgseal.keyring k WHERE k.id = dropped.id;
    RAISE NOTICE 'keyring "%" is gone from this database, but backups, WAL and replicas still hold its wrapped keys', keyring
        USING HINT = format('Only the KMS can make every copy unreadable: destroy the key "%s" at %s, if no other keyring uses it.',
                            dropped.kms_key, coalesce(dropped.endpoint, 'its KMS'));
END $$;
COMMENT ON FUNCTION pgseal.drop_keyring(text, boolean) IS 'drop a keyring that nothing uses; with force its values are given up';
