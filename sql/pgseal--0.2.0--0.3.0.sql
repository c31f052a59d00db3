-- From 0.2.0 to 0.3.0.

-- Nothing that a schema in the path holds has a say in what this script does.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Functions whose result or parameters are other ones now go, and are made anew below. What was granted and revoked since 0.2.0 comes back at the end.
DO $$
DECLARE
    changed regprocedure;
    changes text := '';
BEGIN
    FOREACH changed IN ARRAY ARRAY['pgseal.searchable_values(@extschema@.encrypted_jsonb)', 'pgseal.column_keys(regclass, text)',
        'pgseal.rewrite_pages(regclass, int2, int8, int8, boolean)', 'pgseal.rewrite_pages_of(regclass, name, int8, int8, boolean)',
        'pgseal.create_keyring(text, text[], text, text)', 'pgseal.kms_problem(text)', 'pgseal.check_pages(regclass, int8, int8, text)',
        'pgseal.check_value(@extschema@.encrypted_jsonb, text, boolean)', 'pgseal.check_value(@extschema@.encrypted_text, text, boolean)',
        'pgseal.reencrypt(regclass, name, int4, float8, boolean, text)']::regprocedure[]
    LOOP
        changes := changes || (
            WITH present AS (
                SELECT a.grantee, a.is_grantable FROM pg_proc p CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE p.oid = changed
            ), at_first AS (
                SELECT a.grantee, a.is_grantable
                  FROM pg_proc p LEFT JOIN pg_init_privs i ON i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid
                  LEFT JOIN pg_default_acl d ON d.defaclrole = p.proowner AND d.defaclobjtype = 'f' AND d.defaclnamespace = 0
                 CROSS JOIN LATERAL aclexplode(coalesce(i.initprivs, d.defaclacl, acldefault('f', p.proowner))) a WHERE p.oid = changed
                UNION
                SELECT a.grantee, a.is_grantable
                  FROM pg_proc p JOIN pg_default_acl d ON d.defaclrole = p.proowner AND d.defaclobjtype = 'f' AND d.defaclnamespace IN (0, p.pronamespace)
                 CROSS JOIN LATERAL aclexplode(d.defaclacl) a WHERE p.oid = changed
            )
            SELECT concat(string_agg(format('REVOKE EXECUTE ON ROUTINE %s FROM %s;', changed, r.grantee), '') FILTER (WHERE NOT r.is_granted),
                          string_agg(format('GRANT EXECUTE ON ROUTINE %s TO %s;', changed, r.grantee), '') FILTER (WHERE r.is_granted))
              FROM (SELECT d.is_granted, CASE d.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(d.grantee)) END
                             || CASE WHEN d.is_granted AND d.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
                      FROM (SELECT true, p.* FROM present p EXCEPT SELECT true, f.* FROM at_first f
                            UNION ALL
                            (SELECT false, f.grantee, false FROM at_first f EXCEPT SELECT false, p.grantee, false FROM present p)) d (is_granted, grantee, is_grantable)
                   ) r (is_granted, grantee));
        EXECUTE format('DROP ROUTINE %s', changed);
    END LOOP;
    -- These have a parameter more.
    changes := replace(changes, 'pgseal.create_keyring(text,text[],text,text)', 'pgseal.create_keyring(text,text[],text,text,text)');
    changes := replace(changes, 'double precision,boolean,text)', 'double precision,boolean,text,text)');
    PERFORM set_config('pgseal_update.changes', changes, true);
END $$;

DROP FUNCTION pgseal.check_rows(regclass, int8, text);
DROP FUNCTION pgseal.read_verdict(text[]);
ALTER TABLE pgseal.keyring ADD COLUMN kms_search_key text;
COMMENT ON COLUMN pgseal.keyring.kms_search_key IS 'name of the wrapping key of the index keys; NULL where it is the same';
ALTER TABLE pgseal.data_key DROP CONSTRAINT data_key_keyring_fkey;
ALTER TABLE pgseal.index_key DROP CONSTRAINT index_key_keyring_fkey;
-- A role by its number, written as its name; a restore keeps the name of a role that is missing.
CREATE TYPE pgseal.grantee;
CREATE FUNCTION pgseal.grantee_in(cstring) RETURNS pgseal.grantee
    AS 'MODULE_PATHNAME', 'pgseal_grantee_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.grantee_in(cstring) IS 'I/O';
CREATE FUNCTION pgseal.grantee_out(pgseal.grantee) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_grantee_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.grantee_out(pgseal.grantee) IS 'I/O';
CREATE TYPE pgseal.grantee (INPUT = pgseal.grantee_in, OUTPUT = pgseal.grantee_out, LIKE = bytea);
COMMENT ON TYPE pgseal.grantee IS 'internal: a role, which need not be here yet; - is PUBLIC';
-- For the primary key.
CREATE CAST (pgseal.grantee AS bytea) WITHOUT FUNCTION AS IMPLICIT;
COMMENT ON CAST (pgseal.grantee AS bytea) IS 'internal: as it is stored';
CREATE FUNCTION pgseal.grantee_of(oid) RETURNS pgseal.grantee
    AS 'MODULE_PATHNAME', 'pgseal_grantee_of' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.grantee_of(oid) IS 'internal: cast from the number of a role';
CREATE CAST (oid AS pgseal.grantee) WITH FUNCTION pgseal.grantee_of(oid) AS ASSIGNMENT;
COMMENT ON CAST (oid AS pgseal.grantee) IS 'internal: from the number of a role';
CREATE CAST (regrole AS pgseal.grantee) WITH FUNCTION pgseal.grantee_of(oid) AS ASSIGNMENT;
COMMENT ON CAST (regrole AS pgseal.grantee) IS 'internal: from a role';
CREATE FUNCTION pgseal.grantee_number(pgseal.grantee) RETURNS oid
    AS 'MODULE_PATHNAME', 'pgseal_grantee_number' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.grantee_number(pgseal.grantee) IS 'internal: cast to the number of a role';
CREATE CAST (pgseal.grantee AS oid) WITH FUNCTION pgseal.grantee_number(pgseal.grantee) AS IMPLICIT;
COMMENT ON CAST (pgseal.grantee AS oid) IS 'internal: the number of the role, 4294967295 where it is missing';
CREATE FUNCTION pgseal.grantee_equal(pgseal.grantee, pgseal.grantee) RETURNS boolean
    AS 'byteaeq' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.grantee_equal(pgseal.grantee, pgseal.grantee) IS 'internal: implementation of = operator';
-- With casts to bytea and to oid PostgreSQL could not choose.
CREATE OPERATOR pg_catalog.= (LEFTARG = pgseal.grantee, RIGHTARG = pgseal.grantee, FUNCTION = pgseal.grantee_equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR pg_catalog.= (pgseal.grantee, pgseal.grantee) IS 'internal: the same role';
CREATE FUNCTION pgseal.is_missing(pgseal.grantee) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_missing' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.is_missing(pgseal.grantee) IS 'internal: was the role missing when its privileges were restored?';
ALTER TABLE pgseal.privilege DROP CONSTRAINT privilege_keyring_fkey;
-- Its body depends on the column; it is made anew below.
CREATE OR REPLACE FUNCTION pgseal.migration_roles(target_table regclass, target_column name, new_type text) RETURNS SETOF text
    LANGUAGE sql STABLE RETURN NULL::text;
-- What dropped roles had stays under their numbers.
ALTER TABLE pgseal.privilege ALTER COLUMN role TYPE pgseal.grantee USING pgseal.grantee_of(role);
COMMENT ON TABLE pgseal.privilege IS 'what roles may do with a keyring; role - is PUBLIC; what waits for a role that a restore did not find is for the role that gets the name';
-- A dropped role would be dumped as a number, which may be another role elsewhere.
SELECT pg_catalog.pg_extension_config_dump('pgseal.privilege', 'WHERE pgseal.is_missing(role) OR role = 0 OR role IN (SELECT oid FROM pg_catalog.pg_roles)');
-- STABLE, so that no cast through text is folded: it is refused where it runs.
CREATE OR REPLACE FUNCTION pgseal.encrypted_jsonb_out(@extschema@.encrypted_jsonb) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE OR REPLACE FUNCTION pgseal.encrypted_text_out(@extschema@.encrypted_text) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION pgseal.sealed_text(value @extschema@.encrypted_jsonb) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_sealed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_text(@extschema@.encrypted_jsonb) IS 'the ciphertext as text, as clients and dumps get it; needs no key';
CREATE FUNCTION pgseal.sealed_text(value @extschema@.encrypted_text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_sealed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_text(@extschema@.encrypted_text) IS 'the ciphertext as text, as clients and dumps get it; needs no key';

-- What the planner puts around a column without keyring, for pgseal.keyring as it is when the statement runs.
CREATE FUNCTION pgseal.chosen_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_chosen_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.chosen_support(internal) IS 'planner support: a part of a document is chosen with the document';
CREATE FUNCTION pgseal.chosen(@extschema@.encrypted_jsonb) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_chosen' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED SUPPORT pgseal.chosen_support;
COMMENT ON FUNCTION pgseal.chosen(@extschema@.encrypted_jsonb) IS 'internal: the value, or NULL where pgseal.keyring names another keyring';
CREATE FUNCTION pgseal.chosen(@extschema@.encrypted_text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_chosen' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED SUPPORT pgseal.chosen_support;
COMMENT ON FUNCTION pgseal.chosen(@extschema@.encrypted_text) IS 'internal: the value, or NULL where pgseal.keyring names another keyring';
CREATE FUNCTION pgseal.each(@extschema@.encrypted_jsonb) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_each' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.each(@extschema@.encrypted_jsonb) IS 'internal: the value, where columns with and without keyring come together';
CREATE FUNCTION pgseal.each(@extschema@.encrypted_text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_each' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.each(@extschema@.encrypted_text) IS 'internal: the value, where columns with and without keyring come together';
CREATE FUNCTION pgseal.answers(@extschema@.encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_answers' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.answers(@extschema@.encrypted_jsonb) IS 'internal: false where pgseal.keyring names another keyring than the value''s';
CREATE FUNCTION pgseal.answers(@extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_answers' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.answers(@extschema@.encrypted_text) IS 'internal: false where pgseal.keyring names another keyring than the value''s';
CREATE OR REPLACE FUNCTION pgseal.matches(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_matches' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.matches_support;

-- Below a policy a LEAKPROOF condition runs before the policy does: through the index, and in the counts of EXPLAIN ANALYZE.
CREATE FUNCTION pgseal.use_leakproof(wanted boolean) RETURNS int4
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one regprocedure;
    changed int4 := 0;
BEGIN
    FOR one IN
        SELECT p.oid FROM pg_proc p
         WHERE p.pronamespace = 'pgseal'::regnamespace AND p.proname = 'token_match' AND p.proleakproof <> wanted ORDER BY 1
    LOOP
        EXECUTE format('ALTER FUNCTION %s %s', one, CASE WHEN wanted THEN 'LEAKPROOF' ELSE 'NOT LEAKPROOF' END);
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END $$;
COMMENT ON FUNCTION pgseal.use_leakproof(boolean)
    IS 'let row-level security use the token index (true), or keep the counts of EXPLAIN ANALYZE from telling of hidden rows (false); for superusers; '
        'returns how many functions changed';

CREATE FUNCTION pgseal.operator_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_operator_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.operator_support(internal) IS 'planner support: the session''s choice of keyring';
CREATE FUNCTION pgseal.key_selectivity(internal, oid, internal, int4) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_key_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.key_selectivity(internal, oid, internal, int4) IS 'internal: the share of documents with a key, a guess';
CREATE FUNCTION pgseal.pattern_selectivity(internal, oid, internal, int4) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_pattern_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.pattern_selectivity(internal, oid, internal, int4) IS 'internal: the share of texts that are like a pattern, a guess';
CREATE FUNCTION pgseal.no_pattern_selectivity(internal, oid, internal, int4) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_no_pattern_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.no_pattern_selectivity(internal, oid, internal, int4) IS 'internal: the share of texts that are not like a pattern, a guess';
CREATE FUNCTION pgseal.differ_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_differ_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.differ_support(internal) IS 'planner support: NOT the exact match';
CREATE OR REPLACE FUNCTION pgseal.key_exists(@extschema@.encrypted_jsonb, text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exists' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
CREATE OR REPLACE FUNCTION pgseal.any_key_exists(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exists_any' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
CREATE OR REPLACE FUNCTION pgseal.all_keys_exist(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exists_all' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
CREATE OR REPLACE FUNCTION pgseal.differ(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_sealed' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.differ_support;
CREATE OR REPLACE FUNCTION pgseal.differ(@extschema@.encrypted_text, text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.differ_support;
CREATE OR REPLACE FUNCTION pgseal.differ(text, @extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_text_differ' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.differ_support;
ALTER OPERATOR @extschema@.? (@extschema@.encrypted_jsonb, text) SET (RESTRICT = pgseal.key_selectivity);
ALTER OPERATOR @extschema@.?| (@extschema@.encrypted_jsonb, text[]) SET (RESTRICT = pgseal.key_selectivity);
ALTER OPERATOR @extschema@.?& (@extschema@.encrypted_jsonb, text[]) SET (RESTRICT = pgseal.key_selectivity);
ALTER OPERATOR @extschema@.~~ (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.pattern_selectivity);
ALTER OPERATOR @extschema@.~~* (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.pattern_selectivity);
ALTER OPERATOR @extschema@.~ (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.pattern_selectivity);
ALTER OPERATOR @extschema@.~* (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.pattern_selectivity);
ALTER OPERATOR @extschema@.!~~ (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.no_pattern_selectivity);
ALTER OPERATOR @extschema@.!~~* (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.no_pattern_selectivity);
ALTER OPERATOR @extschema@.!~ (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.no_pattern_selectivity);
ALTER OPERATOR @extschema@.!~* (@extschema@.encrypted_text, text) SET (RESTRICT = pgseal.no_pattern_selectivity);
-- No MERGES: an order needs decrypt, and a role that only searches would lose its joins. HASHES where both sides are ours.
-- In pg_catalog, so that every search_path finds the ones that IS DISTINCT FROM, CASE and the like imply.
CREATE OPERATOR pg_catalog.= (LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
CREATE OPERATOR pg_catalog.<> (LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR pg_catalog.= (LEFTARG = @extschema@.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR pg_catalog.= (LEFTARG = text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR pg_catalog.<> (LEFTARG = @extschema@.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
CREATE OPERATOR pg_catalog.<> (LEFTARG = text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR @extschema@.= (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'equal; for dumps of 0.2.0';
COMMENT ON OPERATOR @extschema@.<> (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'not equal; for dumps of 0.2.0';
COMMENT ON OPERATOR @extschema@.= (@extschema@.encrypted_text, text) IS 'equal; for dumps of 0.2.0';
COMMENT ON OPERATOR @extschema@.= (text, @extschema@.encrypted_text) IS 'equal; for dumps of 0.2.0';
COMMENT ON OPERATOR @extschema@.<> (@extschema@.encrypted_text, text) IS 'not equal; for dumps of 0.2.0';
COMMENT ON OPERATOR @extschema@.<> (text, @extschema@.encrypted_text) IS 'not equal; for dumps of 0.2.0';
CREATE FUNCTION pgseal.equal(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_documents' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.equal(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'implementation of = operator';
CREATE FUNCTION pgseal.differ(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_documents' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.differ(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'implementation of <> operator';
CREATE FUNCTION pgseal.equal(@extschema@.encrypted_jsonb, jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_document' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.equal(@extschema@.encrypted_jsonb, jsonb) IS 'implementation of = operator';
CREATE FUNCTION pgseal.differ(@extschema@.encrypted_jsonb, jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_documents' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.differ(@extschema@.encrypted_jsonb, jsonb) IS 'implementation of <> operator';
CREATE FUNCTION pgseal.equal(jsonb, @extschema@.encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_document' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.equal(jsonb, @extschema@.encrypted_jsonb) IS 'implementation of = operator';
CREATE FUNCTION pgseal.differ(jsonb, @extschema@.encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_documents' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.differ(jsonb, @extschema@.encrypted_jsonb) IS 'implementation of <> operator';
CREATE OPERATOR pg_catalog.= (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
COMMENT ON OPERATOR pg_catalog.= (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'equal';
CREATE OPERATOR pg_catalog.<> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'not equal';
CREATE OPERATOR pg_catalog.= (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR pg_catalog.= (@extschema@.encrypted_jsonb, jsonb) IS 'equal';
CREATE OPERATOR pg_catalog.<> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> (@extschema@.encrypted_jsonb, jsonb) IS 'not equal';
CREATE OPERATOR pg_catalog.= (LEFTARG = jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR pg_catalog.= (jsonb, @extschema@.encrypted_jsonb) IS 'equal';
CREATE OPERATOR pg_catalog.<> (LEFTARG = jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> (jsonb, @extschema@.encrypted_jsonb) IS 'not equal';
-- Every expression of a client may be one of plaintext: operators that refused go, and so PostgreSQL finds jsonb's by the casts.
DROP OPERATOR @extschema@.= (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb);
DROP OPERATOR @extschema@.= (@extschema@.encrypted_jsonb, jsonb);
DROP OPERATOR @extschema@.= (jsonb, @extschema@.encrypted_jsonb);
-- Dumps of 0.2.0 name these.
CREATE OPERATOR @extschema@.= (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (@extschema@.encrypted_jsonb, jsonb) IS 'equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.= (LEFTARG = jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (jsonb, @extschema@.encrypted_jsonb) IS 'equal; for dumps of 0.2.0';
DROP OPERATOR @extschema@.<@ (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb);
DROP OPERATOR @extschema@.@? (@extschema@.encrypted_jsonb, jsonpath);
DROP FUNCTION pgseal.refuse(@extschema@.encrypted_jsonb, jsonpath);
DROP FUNCTION pgseal.unsupported(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb);
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_jsonb, int4, boolean) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_plain_cast' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_jsonb, int4, boolean)
    IS 'internal: the cast to jsonb; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_jsonb) RETURNS jsonb
    AS 'MODULE_PATHNAME', 'pgseal_plain' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_jsonb)
    IS 'internal: what the planner puts in place of a cast that is not written out, where the value goes to the client';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_text, int4, boolean) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_plain_cast' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_text, int4, boolean)
    IS 'internal: the cast to text; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_plain' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_text)
    IS 'internal: what the planner puts in place of a cast that is not written out, where the value goes to the client';
DROP CAST (@extschema@.encrypted_jsonb AS jsonb);
CREATE CAST (@extschema@.encrypted_jsonb AS jsonb) WITH FUNCTION pgseal.plain(@extschema@.encrypted_jsonb, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_jsonb AS jsonb) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
DROP CAST (@extschema@.encrypted_text AS text);
CREATE CAST (@extschema@.encrypted_text AS text) WITH FUNCTION pgseal.plain(@extschema@.encrypted_text, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_text AS text) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
CREATE FUNCTION pgseal.plain_varchar(@extschema@.encrypted_text, int4, boolean) RETURNS varchar
    AS 'MODULE_PATHNAME', 'pgseal_plain_varchar' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain_varchar(@extschema@.encrypted_text, int4, boolean)
    IS 'internal: the cast to varchar; decrypts where it is written out, refuses where it is not';
DROP CAST (@extschema@.encrypted_text AS varchar);
CREATE CAST (@extschema@.encrypted_text AS varchar) WITH FUNCTION pgseal.plain_varchar(@extschema@.encrypted_text, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_text AS varchar) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
CREATE CAST (@extschema@.encrypted_jsonb AS json) WITH INOUT;
COMMENT ON CAST (@extschema@.encrypted_jsonb AS json) IS 'decrypts with pgseal.reveal on, explicit only';
-- A string type, so that PostgreSQL takes text for the common type of both. ALTER TYPE cannot say so.
UPDATE pg_type SET typcategory = 'S' WHERE oid = '@extschema@.encrypted_text'::regtype;
CREATE FUNCTION pgseal.assigned(jsonb, @extschema@.encrypted_jsonb, int4) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_assigned' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.assigned(jsonb, @extschema@.encrypted_jsonb, int4)
    IS 'internal: what the planner makes of document[''key''] = value; seals the changed document under the keyring of its column, or of what it was';
CREATE OR REPLACE FUNCTION pgseal.subscript(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_subscript' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.subscript(internal) IS 'implementation of subscripts, as jsonb''s, through the cast to jsonb';
-- (document -> 'age')::int, as jsonb's own.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['int2', 'int4', 'int8', 'float4', 'float8', 'numeric', 'bool'] LOOP
        EXECUTE format('CREATE FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_jsonb) RETURNS %1$s
            AS ''MODULE_PATHNAME'', ''pgseal_jsonb_as'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', name, '@extschema@');
        EXECUTE format('COMMENT ON FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_jsonb) IS ''explicit cast to %1$s''', name, '@extschema@');
        EXECUTE format('CREATE CAST (%2$s.encrypted_jsonb AS %1$s) WITH FUNCTION pgseal.decrypt_as_%1$s(%2$s.encrypted_jsonb)', name, '@extschema@');
        EXECUTE format('COMMENT ON CAST (%2$s.encrypted_jsonb AS %1$s) IS ''decrypts, explicit only''', name, '@extschema@');
    END LOOP;
END $$;

CREATE OPERATOR pg_catalog.|| (LEFTARG = text, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR pg_catalog.|| (text, @extschema@.encrypted_jsonb) IS 'refused: ciphertext cannot answer it';
COMMENT ON OPERATOR @extschema@.|| (text, @extschema@.encrypted_jsonb) IS 'refused: ciphertext cannot answer it; for dumps of 0.2.0';
DROP OPERATOR @extschema@.|| (text, @extschema@.encrypted_text);
DROP FUNCTION pgseal.unsupported(text, @extschema@.encrypted_text);
DROP OPERATOR @extschema@.|| (@extschema@.encrypted_text, text);
DROP FUNCTION pgseal.unsupported(@extschema@.encrypted_text, text);
CREATE OPERATOR pg_catalog.|| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.concat);
COMMENT ON OPERATOR pg_catalog.|| (@extschema@.encrypted_jsonb, jsonb) IS 'concatenate documents; here as well, or a literal would become text with an empty search_path';
CREATE OPERATOR pg_catalog.|| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.concat);
COMMENT ON OPERATOR pg_catalog.|| (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'concatenate documents; here as well, or a literal would become text with an empty search_path';

-- What the planner hook writes in place of an operator with ANY or ALL, and what that is rewritten into.
CREATE FUNCTION pgseal.equal_any_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_equal_any_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.equal_any_support(internal) IS 'planner support: token match AND exact match';
CREATE FUNCTION pgseal.equal_any(@extschema@.encrypted_text, text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_any' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.equal_any_support;
COMMENT ON FUNCTION pgseal.equal_any(@extschema@.encrypted_text, text[]) IS 'internal: what the planner makes of = ANY';
CREATE FUNCTION pgseal.equal_any(@extschema@.encrypted_text, @extschema@.encrypted_text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_any_sealed' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.equal_any_support;
COMMENT ON FUNCTION pgseal.equal_any(@extschema@.encrypted_text, @extschema@.encrypted_text[]) IS 'internal: what the planner makes of = ANY';
CREATE FUNCTION pgseal.contains_any_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_contains_any_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.contains_any_support(internal) IS 'planner support: token match AND exact match';
CREATE FUNCTION pgseal.contains_any(@extschema@.encrypted_jsonb, jsonb[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_contains_any' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.contains_any_support;
COMMENT ON FUNCTION pgseal.contains_any(@extschema@.encrypted_jsonb, jsonb[]) IS 'internal: what the planner makes of @> ANY';

CREATE FUNCTION pgseal.filter_text_any(int4, text[], text[], int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_text_any' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_text_any(int4, text[], text[], int4) IS 'internal: the filter of a rewritten = ANY with a parameter';
CREATE FUNCTION pgseal.filter_text_any(int4, text[], @extschema@.encrypted_text[], int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_sealed_text_any' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_text_any(int4, text[], @extschema@.encrypted_text[], int4) IS 'internal: the filter of a rewritten = ANY with a parameter';
CREATE FUNCTION pgseal.filter_any_for(jsonb[], int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_any_for' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_any_for(jsonb[], int4) IS 'internal: the filter of a rewritten @> ANY with a parameter';
CREATE FUNCTION pgseal.filter_parts(@extschema@.encrypted_filter) RETURNS @extschema@.encrypted_filter[]
    AS 'MODULE_PATHNAME', 'pgseal_filter_parts' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.filter_parts(@extschema@.encrypted_filter) IS 'internal: filters of few keys each, of which one lets through what it does';

-- Not strict: nothing is in an empty list, not even NULL.
CREATE FUNCTION pgseal.exact_match_any(@extschema@.encrypted_text, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_match_any' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_match_any(@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: decrypts and compares with a list';
CREATE FUNCTION pgseal.exact_match_any(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_match_any' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_match_any(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: decrypts and compares with a list';
CREATE OPERATOR pgseal.@>| (
    LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_match_any,
    RESTRICT = pgseal.exact_selectivity, JOIN = pgseal.exact_join_selectivity
);
COMMENT ON OPERATOR pgseal.@>| (@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: matches exactly, of a list';
CREATE OPERATOR pgseal.@>| (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_match_any,
    RESTRICT = pgseal.exact_selectivity, JOIN = pgseal.exact_join_selectivity
);
COMMENT ON OPERATOR pgseal.@>| (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: matches exactly, of a list';

-- The opposites, with estimates of their own.
CREATE FUNCTION pgseal.differ_selectivity(internal, oid, internal, int4) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_differ_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.differ_selectivity(internal, oid, internal, int4) IS 'internal: the share of rows with another text';
CREATE FUNCTION pgseal.exact_differ(@extschema@.encrypted_text, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_differ' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_differ(@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: decrypts and compares';
CREATE OPERATOR pgseal.!@># (
    LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_differ,
    NEGATOR = OPERATOR(pgseal.@>#), RESTRICT = pgseal.differ_selectivity, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pgseal.!@># (@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: does not match exactly';
CREATE FUNCTION pgseal.exact_differ(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_differ' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_differ(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: decrypts and compares';
CREATE OPERATOR pgseal.!@># (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_differ,
    NEGATOR = OPERATOR(pgseal.@>#), RESTRICT = pgseal.differ_selectivity, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pgseal.!@># (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: does not match exactly';
CREATE FUNCTION pgseal.exact_differ_any(@extschema@.encrypted_text, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_differ_any' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_differ_any(@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: decrypts and compares with a list';
CREATE OPERATOR pgseal.!@>| (
    LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_differ_any,
    NEGATOR = OPERATOR(pgseal.@>|), RESTRICT = pgseal.differ_selectivity, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pgseal.!@>| (@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: does not match exactly';
CREATE FUNCTION pgseal.exact_differ_any(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_differ_any' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_differ_any(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: decrypts and compares with a list';
CREATE OPERATOR pgseal.!@>| (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_differ_any,
    NEGATOR = OPERATOR(pgseal.@>|), RESTRICT = pgseal.differ_selectivity, JOIN = neqjoinsel
);
COMMENT ON OPERATOR pgseal.!@>| (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: does not match exactly';

-- PostgreSQL's own are written with $1::text, the explicit cast: dynamic SQL of audit triggers would store plaintext.
CREATE FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.quote_literal(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_jsonb) IS 'the ciphertext as a literal';
CREATE FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.quote_literal(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_text) IS 'the ciphertext as a literal';
CREATE FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN pg_catalog.quote_nullable(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_jsonb) IS 'the ciphertext as a literal, or NULL';
CREATE FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN pg_catalog.quote_nullable(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_text) IS 'the ciphertext as a literal, or NULL';

-- Patterns and order on the decrypted text, for each row, in the collation that the other side brings; they tell more than equality,
-- so they need decrypt.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['text_lt', 'text_le', 'text_gt', 'text_ge',
                                'text_like', 'text_not_like', 'text_ilike', 'text_not_ilike',
                                'text_regex', 'text_not_regex', 'text_iregex', 'text_not_iregex']
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION pgseal.%1$I(%2$s.encrypted_text, text) RETURNS boolean
            AS ''MODULE_PATHNAME'', ''pgseal_%1$s'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
            SUPPORT pgseal.operator_support', name, '@extschema@');
    END LOOP;
END $$;
COMMENT ON OPERATOR pg_catalog.= (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'equal';
COMMENT ON OPERATOR pg_catalog.<> (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'not equal';
COMMENT ON OPERATOR pg_catalog.= (@extschema@.encrypted_text, text) IS 'equal';
COMMENT ON OPERATOR pg_catalog.= (text, @extschema@.encrypted_text) IS 'equal';
COMMENT ON OPERATOR pg_catalog.<> (@extschema@.encrypted_text, text) IS 'not equal';
COMMENT ON OPERATOR pg_catalog.<> (text, @extschema@.encrypted_text) IS 'not equal';

CREATE FUNCTION pgseal.between(value @extschema@.encrypted_jsonb, path text, low text, high text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_between_texts' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.between_support;
COMMENT ON FUNCTION pgseal.between(@extschema@.encrypted_jsonb, text, text, text)
    IS 'the same for bounds without a type: numbers where they read as such, else times';
CREATE FUNCTION pgseal.filter_between(path text, low text, high text, keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_texts' LANGUAGE C STABLE PARALLEL RESTRICTED
    SUPPORT pgseal.filter_between_support;
COMMENT ON FUNCTION pgseal.filter_between(text, text, text, text) IS 'the same for bounds without a type';
CREATE FUNCTION pgseal.filter_between_for(text, text, text, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_texts_for' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_between_for(text, text, text, int4) IS 'internal: the filter of a rewritten between with parameters';

-- jsonb's own functions of these names, which some frameworks call: with pgseal in the search_path. In the schema of the types they
-- would make calls with nothing but literals ambiguous. Whole documents are looked at: they need decrypt.
CREATE OR REPLACE FUNCTION pgseal.jsonb_exists(@extschema@.encrypted_jsonb, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists(pgseal.decrypt($1), $2);
CREATE OR REPLACE FUNCTION pgseal.jsonb_exists_any(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_any(pgseal.decrypt($1), $2);
CREATE OR REPLACE FUNCTION pgseal.jsonb_exists_all(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_all(pgseal.decrypt($1), $2);
CREATE OR REPLACE FUNCTION pgseal.jsonb_path_exists(@extschema@.encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_exists(pgseal.decrypt($1), $2, $3, $4);
CREATE OR REPLACE FUNCTION pgseal.jsonb_path_match(@extschema@.encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_match(pgseal.decrypt($1), $2, $3, $4);
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
CREATE FUNCTION pgseal.set_search_key(keyring text, kms_search_key text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_set_search_key' LANGUAGE C VOLATILE PARALLEL UNSAFE
    SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION pgseal.set_search_key(text, text)
    IS 'wrap the index keys by another key at the KMS than the data keys, NULL for the same; no row is touched; returns how many keys';
CREATE FUNCTION pgseal.keyring_named(name text) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_named' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.keyring_named(text) IS 'internal: the id of a keyring; an error where there is none of the name';

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

CREATE OR REPLACE FUNCTION pgseal.grant_keyring(keyring text, role text, privileges text[]) RETURNS void
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

CREATE OR REPLACE FUNCTION pgseal.revoke_keyring(keyring text, role text, privileges text[] DEFAULT ARRAY['encrypt', 'search', 'decrypt']) RETURNS void
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

CREATE OR REPLACE VIEW pgseal.keyrings AS
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
COMMENT ON COLUMN pgseal.keyrings.tokens IS 'what the tokens of new values are for: decide, or narrow alone; see the setting pgseal.tokens';

CREATE OR REPLACE VIEW pgseal.keys AS
    SELECT k.name AS keyring, 'data' AS purpose, d.version, d.state, d.created, d.retired
      FROM pgseal.data_key d JOIN pgseal.keyring k ON k.id = d.keyring
    UNION ALL
    SELECT k.name, 'index', i.version, i.state, i.created, i.retired
      FROM pgseal.index_key i JOIN pgseal.keyring k ON k.id = i.keyring;

CREATE FUNCTION pgseal.searchable_values(@extschema@.encrypted_jsonb) RETURNS TABLE (path text, number int8)
    AS 'MODULE_PATHNAME', 'pgseal_searchable_value_records' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.searchable_values(@extschema@.encrypted_jsonb) IS 'internal: the searchable values of a document, as numbers that equal ones share';

CREATE OR REPLACE FUNCTION pgseal.check_searchable(target_table regclass, target_column name, sample_size int4 DEFAULT 10000)
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

CREATE OR REPLACE VIEW pgseal.rotation_worker AS
    SELECT DISTINCT w.relation, w.attnum, w.pid
      FROM (SELECT relation, attnum, pid, call_started FROM pgseal.rotation
            UNION ALL
            SELECT relation, attnum, pid, call_started FROM pgseal.rotation_range) w
      JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
     -- NULL where the reader may not see what the other session runs.
     WHERE (a.query_start = w.call_started AND a.state = 'active') IS NOT FALSE;

-- Whoever naps holds a lock that nobody wants and that stands for the reason: others see it in pg_locks, without a write.
CREATE FUNCTION pgseal.nap(reason text, seconds float8) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_nap' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.nap(text, float8) IS 'internal: sleeps, and says why in rotation_progress';
CREATE FUNCTION pgseal.reason_of_nap(lock_class int4, lock_number int4) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reason_of_nap' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.reason_of_nap(int4, int4) IS 'internal: why whoever holds this lock of pg_locks naps; NULL for another lock';

CREATE FUNCTION pgseal.rotation_waits(pids int4[]) RETURNS text
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT string_agg(DISTINCT w.reason, '; ')
      FROM pg_locks l
     CROSS JOIN LATERAL (SELECT CASE WHEN NOT l.granted THEN concat_ws(' of ', 'lock', nullif(array_to_string(pg_blocking_pids(l.pid), ', '), ''))
                                     WHEN l.locktype = 'advisory' AND l.classid = 0 THEN pgseal.reason_of_nap(l.objsubid, l.objid::int8::int4) END) w (reason)
     WHERE l.pid = ANY (pids);
END;
COMMENT ON FUNCTION pgseal.rotation_waits(int4[]) IS 'internal: what these sessions wait for';

CREATE OR REPLACE VIEW pgseal.rotation_progress WITH (security_barrier) AS
    SELECT r.relation::regclass AS table_name, a.attname AS column_name,
           CASE WHEN r.stuck THEN 'stuck' WHEN r.finished IS NOT NULL THEN 'finished'
                WHEN w.pids IS NULL THEN 'interrupted' ELSE 'running' END AS state,
           r.pass, p.pages_done, p.pages, r.rows_before + p.rows_done AS rows_done,
           pg_catalog.round((r.rows_before + p.rows_done - r.rows_then) / s.seconds, 1) AS rows_per_second,
           CASE WHEN r.finished IS NULL THEN
               pg_catalog.make_interval(secs => ((p.pages - p.pages_done) * s.seconds / nullif(p.pages_done - r.pages_then, 0))::float8)
           END AS remaining,
           r.started, p.updated, r.finished, CASE WHEN r.finished IS NULL THEN w.pids END AS pids,
           CASE WHEN r.finished IS NULL THEN pgseal.rotation_waits(w.pids) END AS waits_for
      FROM pgseal.rotation r
      JOIN pg_catalog.pg_attribute a ON a.attrelid = r.relation AND a.attnum = r.attnum AND NOT a.attisdropped
     CROSS JOIN LATERAL (
           SELECT coalesce(pg_catalog.sum(g.end_page - g.first_page), 0)::int8 AS pages,
                  coalesce(pg_catalog.sum(g.next_page - g.first_page), 0)::int8 AS pages_done,
                  coalesce(pg_catalog.sum(g.rows_done), 0)::int8 AS rows_done,
                  coalesce(pg_catalog.max(g.updated), r.measured_since) AS updated
             FROM pgseal.rotation_range g WHERE g.relation = r.relation AND g.attnum = r.attnum) p
     CROSS JOIN LATERAL (SELECT nullif(greatest(extract(epoch FROM p.updated - r.measured_since), 0), 0) AS seconds) s
     CROSS JOIN LATERAL (SELECT pg_catalog.array_agg(w.pid) AS pids FROM pgseal.rotation_worker w
                          WHERE w.relation = r.relation AND w.attnum = r.attnum) w
     WHERE pg_catalog.has_any_column_privilege(r.relation, 'SELECT, UPDATE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON COLUMN pgseal.rotation_progress.waits_for
    IS 'what they wait for now: pace (others work), max_rate, replica lag, checkpoint, older transactions or snapshots, a page in use, a lock of sessions';

-- These run as the owner of the tables above; the role that counts is the one that called reencrypt.
CREATE FUNCTION pgseal.runs_for_an_owner() RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_runs_for_an_owner' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.runs_for_an_owner()
    IS 'internal: true below VACUUM, ANALYZE and the like, where a table''s owner has code run and whoever began it is somebody else';

CREATE OR REPLACE FUNCTION pgseal.rotation_column(target_table regclass, target_column name) RETURNS int2
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    caller name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    -- Its owner, as for VACUUM: with UPDATE alone nobody says that a table is done.
    IF pgseal.runs_for_an_owner() OR NOT has_column_privilege(caller, target_table, target_column, 'UPDATE')
       OR NOT pg_has_role(caller, (SELECT c.relowner FROM pg_class c WHERE c.oid = target_table), 'USAGE') THEN
        RAISE EXCEPTION 'permission denied for column "%" of %', target_column, target_table USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN (SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
END $$;
COMMENT ON FUNCTION pgseal.rotation_column(regclass, name) IS 'internal: a column of a table that the caller of reencrypt owns';

-- Joins the run of this column that is not finished, or starts one; returns what it aims at.
CREATE OR REPLACE FUNCTION pgseal.rotation_join(target_table regclass, target_column name, with_index boolean, step int8) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := pgseal.rotation_column(target_table, target_column);
    only_keyring int4 := (SELECT pgseal.keyring_of_typmod(pgseal.encrypted_column(target_table, target_column), coalesce(nullif(a.atttypmod, -1), t.typtypmod))
                            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                           WHERE a.attrelid = target_table AND a.attnum = number);
    new_goal text := (SELECT hashtextextended(string_agg(concat_ws(':', k.id, d.version, CASE WHEN rotation_join.with_index THEN i.version END),
                                                         ',' ORDER BY k.id), 0)
                        FROM pgseal.keyring k
                        JOIN pgseal.data_key d ON d.keyring = k.id AND d.state = 'active'
                        JOIN pgseal.index_key i ON i.keyring = k.id AND i.state = 'active'
                       WHERE only_keyring IS NULL OR k.id = only_keyring);
    run pgseal.rotation;
BEGIN
    new_goal := concat(new_goal, CASE WHEN rotation_join.with_index THEN ' with index' END);
    -- Tables that are gone. Whoever holds such a row is not waited for.
    DELETE FROM pgseal.rotation r USING (
        SELECT g.relation, g.attnum FROM pgseal.rotation g
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.relation) FOR UPDATE SKIP LOCKED) gone
     WHERE r.relation = gone.relation AND r.attnum = gone.attnum;
    DELETE FROM pgseal.rotation_range r USING (
        SELECT g.relation, g.attnum, g.first_page FROM pgseal.rotation_range g
         WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.relation) FOR UPDATE SKIP LOCKED) gone
     WHERE r.relation = gone.relation AND r.attnum = gone.attnum AND r.first_page = gone.first_page;
    INSERT INTO pgseal.rotation (relation, attnum, with_index, goal, finished)
    VALUES (target_table, number, rotation_join.with_index, '', clock_timestamp()) ON CONFLICT DO NOTHING;
    SELECT * INTO run FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number FOR UPDATE;
    IF run.finished IS NULL AND run.with_index <> rotation_join.with_index
       AND EXISTS (SELECT FROM pgseal.rotation_worker w
                    WHERE w.relation = target_table AND w.attnum = number AND w.pid <> pg_backend_pid()) THEN
        RAISE EXCEPTION 'reencrypt of % with index => % is running', target_table, run.with_index USING ERRCODE = 'object_in_use';
    END IF;
    IF run.finished IS NOT NULL OR run.goal <> new_goal THEN
        DELETE FROM pgseal.rotation r WHERE r.relation = target_table AND r.attnum = number;
        INSERT INTO pgseal.rotation (relation, attnum, with_index, goal)
        VALUES (target_table, number, rotation_join.with_index, new_goal);
        PERFORM pgseal.rotation_start_pass(target_table, number, step);
        RETURN new_goal;
    END IF;
    -- Rows may have come back to pages that were done before an interruption: one more pass looks at them.
    UPDATE pgseal.rotation r
       SET pass_again = true, measured_since = clock_timestamp(), pid = pg_backend_pid(), call_started = statement_timestamp(),
           rows_then = r.rows_before + g.rows_done, pages_then = g.pages_done
      FROM (SELECT coalesce(sum(rows_done), 0) AS rows_done, coalesce(sum(next_page - first_page), 0) AS pages_done
              FROM pgseal.rotation_range WHERE relation = target_table AND attnum = number) g
     WHERE r.relation = target_table AND r.attnum = number;
    RETURN new_goal;
END $$;

-- Sessions whose transactions are among these and have not ended; NULL when none is left.
CREATE FUNCTION pgseal.rotation_sessions(transactions text[]) RETURNS int4[]
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT array_agg(l.pid) FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.virtualtransaction = ANY (transactions);
END;
COMMENT ON FUNCTION pgseal.rotation_sessions(text[]) IS 'internal: sessions whose transactions are among these and have not ended';

CREATE FUNCTION pgseal.report_rotation(leaf regclass, target_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    progress pgseal.rotation_progress;
BEGIN
    SELECT * INTO progress FROM pgseal.rotation_progress p WHERE p.table_name = leaf AND p.column_name = target_column;
    RAISE NOTICE '%: pass %, page % of %, % rows re-encrypted, % rows/s, % remaining', leaf, progress.pass,
        progress.pages_done, progress.pages, progress.rows_done, progress.rows_per_second,
        coalesce(date_trunc('second', progress.remaining)::text, 'unknown time');
END $$;
COMMENT ON FUNCTION pgseal.report_rotation(regclass, name) IS 'internal: a NOTICE that says how far reencrypt is';

CREATE FUNCTION pgseal.processors() RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_processors' LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.processors() IS 'internal: how many processors the server may use';

CREATE FUNCTION pgseal.share_of_others() RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_share_of_others' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.share_of_others() IS 'internal: the share of all processors that other processes of the machine use';

-- 1 where as many other sessions work as there are processors, or where other processes use all of them: sessions with short
-- queries are mostly idle when one looks, or wait for a processor before they are active. What the caller writes is no less to
-- others than its time: where a standby is behind, or where it would bring a checkpoint before its time, that counts as much.
CREATE FUNCTION pgseal.rotation_load(OUT load float8, OUT reason text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    some_lag CONSTANT int8 := 16777216;
    written float8;
    elapsed float8;
BEGIN
    load := (SELECT count(*) FROM pg_stat_get_activity(NULL) a
              WHERE a.state = 'active' AND a.pid <> pg_backend_pid() AND coalesce(a.wait_event_type, 'LWLock') IN ('LWLock', 'IO'))::float8
        / pgseal.processors();
    load := greatest(load, pgseal.share_of_others());
    reason := 'pace';
    IF pgseal.rotation_lag() > some_lag THEN
        load := greatest(load, 1);
        reason := 'replica lag';
    ELSIF load BETWEEN 0.1 AND 1 THEN
        SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), c.redo_lsn) / pg_size_bytes(current_setting('max_wal_size'))
                   * (1 + current_setting('checkpoint_completion_target')::float8),
               extract(epoch FROM clock_timestamp() - c.checkpoint_time) / extract(epoch FROM current_setting('checkpoint_timeout')::interval)
          INTO written, elapsed FROM pg_control_checkpoint() c;
        IF written > greatest(0.5, elapsed) THEN
            load := 1;
            reason := 'checkpoint';
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.rotation_load() IS 'internal: how much others do, and what makes a rotation wait for them';

-- Why values of a column must not be rewritten where they are: something else is made from their bytes.
CREATE OR REPLACE FUNCTION pgseal.in_place_problem(target_table regclass, target_column name) RETURNS text
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

-- Embeddings beside pgvector's. From here on pgvector's types are found in the schema that it is in; all else is named with its own.
DO $$
DECLARE
    schema name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector');
    missing text;
BEGIN
    -- A type of the same name that somebody else has made would be handed what is decrypted.
    SELECT w.name INTO missing FROM unnest(ARRAY['vector', 'halfvec']) w (name)
     WHERE NOT EXISTS (SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
                         JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
                         JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'vector'
                        WHERE n.nspname = schema AND t.typname = w.name);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the extension vector has no type % in its schema %', missing, schema
            USING ERRCODE = 'undefined_object', HINT = 'pgvector 0.7 or newer is needed: ALTER EXTENSION vector UPDATE.';
    END IF;
    PERFORM set_config('search_path', format('pg_catalog, %I, pg_temp', schema), true);
END $$;

CREATE TYPE @extschema@.encrypted_vector;

CREATE FUNCTION pgseal.encrypted_vector_in(cstring, oid, int4) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_vector_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_vector_in(cstring, oid, int4) IS 'I/O';
-- STABLE, so that no cast through text is folded: it is refused where it runs.
CREATE FUNCTION pgseal.encrypted_vector_out(@extschema@.encrypted_vector) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_vector_out(@extschema@.encrypted_vector) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.encrypted_vector_recv(internal, oid, int4) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_vector_recv' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.encrypted_vector_recv(internal, oid, int4) IS 'I/O; takes the binary form of vector and halfvec as well';
CREATE FUNCTION pgseal.encrypted_vector_send(@extschema@.encrypted_vector) RETURNS bytea
    AS 'MODULE_PATHNAME', 'pgseal_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.encrypted_vector_send(@extschema@.encrypted_vector) IS 'I/O, always ciphertext';
CREATE FUNCTION pgseal.vector_typmod_in(cstring[]) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_vector_typmod_in' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_typmod_in(cstring[]) IS 'I/O of type modifiers: a keyring''s name or number, and a number of dimensions';
CREATE FUNCTION pgseal.vector_typmod_out(int4) RETURNS cstring
    AS 'MODULE_PATHNAME', 'pgseal_vector_typmod_out' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_typmod_out(int4) IS 'I/O of type modifiers';

-- In place of PostgreSQL's own refusal, which could not say what to write.
CREATE FUNCTION pgseal.vector_subscript(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_unsupported_vector' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.vector_subscript(internal) IS 'refuses a subscript';

-- STORAGE external, as the other types. ANALYZE would else decrypt, and keep the order of the plaintexts.
CREATE TYPE @extschema@.encrypted_vector (
    INPUT = pgseal.encrypted_vector_in, OUTPUT = pgseal.encrypted_vector_out,
    RECEIVE = pgseal.encrypted_vector_recv, SEND = pgseal.encrypted_vector_send,
    TYPMOD_IN = pgseal.vector_typmod_in, TYPMOD_OUT = pgseal.vector_typmod_out, ANALYZE = pgseal.typanalyze,
    SUBSCRIPT = pgseal.vector_subscript, STORAGE = external
);
COMMENT ON TYPE @extschema@.encrypted_vector
    IS 'an embedding, encrypted; encrypted_vector(keyring, dimensions) binds a column to a keyring and a number of dimensions';

CREATE FUNCTION pgseal.coerce(@extschema@.encrypted_vector, int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_coerce' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.coerce(@extschema@.encrypted_vector, int4, boolean)
    IS 'seal a literal under its column''s keyring; refuse a value of another keyring';
CREATE FUNCTION pgseal.seal(vector, int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_vector' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(vector, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(halfvec, int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_halfvec' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(halfvec, int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(real[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(real[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(double precision[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(double precision[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(int4[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(int4[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';
CREATE FUNCTION pgseal.seal(numeric[], int4, boolean) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_seal_array' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.seal(numeric[], int4, boolean) IS 'assignment cast: encrypt under the column''s keyring';

CREATE FUNCTION pgseal.encrypt(value vector, keyring text DEFAULT NULL, context text DEFAULT NULL) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_encrypt_vector' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.encrypt(vector, text, text)
    IS 'encrypt an embedding under a keyring, by default the session''s or the database''s; with a context only decrypt with the same context reads it';
-- COST 100, so that a LIMIT below decrypts only the rows it returns.
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_vector) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_vector) IS 'the embedding; needs the decrypt privilege on its keyring';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_vector, int4, boolean) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_plain_cast' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_vector, int4, boolean)
    IS 'internal: the cast to vector; decrypts where it is written out, refuses where it is not';
CREATE FUNCTION pgseal.plain(@extschema@.encrypted_vector) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_plain' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.plain(@extschema@.encrypted_vector)
    IS 'internal: what the planner puts in place of a cast that is not written out, where the value goes to the client';
CREATE FUNCTION pgseal.decrypt(value @extschema@.encrypted_vector, context text) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_decrypt' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.decrypt(@extschema@.encrypted_vector, text) IS 'the embedding of a value that is bound to this context';
-- Called by name: a dump restores functions before the casts that they would use.
CREATE FUNCTION pgseal.decrypt_as_array(@extschema@.encrypted_vector) RETURNS real[]
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN vector_to_float4(pgseal.decrypt($1), -1, true);
COMMENT ON FUNCTION pgseal.decrypt_as_array(@extschema@.encrypted_vector) IS 'explicit cast to real[]';
CREATE FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector) RETURNS text
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pgseal.decrypt($1)::text;
COMMENT ON FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector) IS 'explicit cast to text types';
CREATE FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_vector) RETURNS name
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pgseal.decrypt($1)::text::name;
COMMENT ON FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_vector) IS 'explicit cast to name';
CREATE FUNCTION pgseal.reveal(@extschema@.encrypted_vector) RETURNS vector
    AS 'MODULE_PATHNAME', 'pgseal_reveal' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.reveal(@extschema@.encrypted_vector) IS 'internal: what pgseal.reveal = on wraps returned columns in';
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

CREATE FUNCTION pgseal.sealed_text(value @extschema@.encrypted_vector) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_sealed_text' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.sealed_text(@extschema@.encrypted_vector) IS 'the ciphertext as text, as clients and dumps get it; needs no key';
CREATE FUNCTION pgseal.key_version(value @extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.key_version(@extschema@.encrypted_vector) IS 'data key version of a value; needs no key';
CREATE FUNCTION pgseal.index_key_version(value @extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_index_key_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.index_key_version(@extschema@.encrypted_vector) IS '0: an embedding has no tokens; needs no key';
CREATE FUNCTION pgseal.keyring_id(value @extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_id' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.keyring_id(@extschema@.encrypted_vector) IS 'keyring of a value, as in pgseal.keyring.id; needs no key';

-- The length coercion is VOLATILE: it runs with the statement and gives every row a nonce of its own.
CREATE CAST (@extschema@.encrypted_vector AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.coerce(@extschema@.encrypted_vector, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_vector AS @extschema@.encrypted_vector) IS 'to a column''s keyring';
CREATE CAST (vector AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(vector, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (vector AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (halfvec AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(halfvec, int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (halfvec AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (real[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(real[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (real[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (double precision[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(double precision[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (double precision[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (int4[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(int4[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (int4[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (numeric[] AS @extschema@.encrypted_vector) WITH FUNCTION pgseal.seal(numeric[], int4, boolean) AS ASSIGNMENT;
COMMENT ON CAST (numeric[] AS @extschema@.encrypted_vector) IS 'encrypts, on assignment';
CREATE CAST (@extschema@.encrypted_vector AS vector) WITH FUNCTION pgseal.plain(@extschema@.encrypted_vector, int4, boolean) AS IMPLICIT;
COMMENT ON CAST (@extschema@.encrypted_vector AS vector) IS 'decrypts; where it is not written out, only for the client and with pgseal.reveal on';
-- Explicit only: an entry of its own stops PostgreSQL's automatic assignment cast to string types.
CREATE CAST (@extschema@.encrypted_vector AS real[]) WITH FUNCTION pgseal.decrypt_as_array(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS real[]) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS text) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS text) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS varchar) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS varchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS bpchar) WITH FUNCTION pgseal.decrypt_as_text(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS bpchar) IS 'decrypts, explicit only';
CREATE CAST (@extschema@.encrypted_vector AS name) WITH FUNCTION pgseal.decrypt_as_name(@extschema@.encrypted_vector);
COMMENT ON CAST (@extschema@.encrypted_vector AS name) IS 'decrypts, explicit only';

-- What the planner puts around a column without keyring, for pgseal.keyring as it is when the statement runs.
CREATE FUNCTION pgseal.chosen(@extschema@.encrypted_vector) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_chosen' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED SUPPORT pgseal.chosen_support;
COMMENT ON FUNCTION pgseal.chosen(@extschema@.encrypted_vector) IS 'internal: the value, or NULL where pgseal.keyring names another keyring';
CREATE FUNCTION pgseal.each(@extschema@.encrypted_vector) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_each' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.each(@extschema@.encrypted_vector) IS 'internal: the value, where columns with and without keyring come together';
CREATE FUNCTION pgseal.answers(@extschema@.encrypted_vector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_answers' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.answers(@extschema@.encrypted_vector) IS 'internal: false where pgseal.keyring names another keyring than the value''s';

-- Distances open the value and compute in one pass. One more of them than there are dimensions gives an embedding away: they need
-- decrypt. Between two encrypted vectors there is none: PostgreSQL would take every literal and parameter for one, and ask for a keyring.
CREATE FUNCTION pgseal.l2_distance(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_l2_distance' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.l2_distance(@extschema@.encrypted_vector, vector) IS 'implementation of <-> operator';
CREATE FUNCTION pgseal.negative_inner_product(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_negative_inner_product' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.negative_inner_product(@extschema@.encrypted_vector, vector) IS 'implementation of <#> operator';
CREATE FUNCTION pgseal.cosine_distance(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_cosine_distance' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.cosine_distance(@extschema@.encrypted_vector, vector) IS 'implementation of <=> operator';
CREATE FUNCTION pgseal.l1_distance(@extschema@.encrypted_vector, vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_l1_distance' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100 SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.l1_distance(@extschema@.encrypted_vector, vector) IS 'implementation of <+> operator';
CREATE OPERATOR @extschema@.<-> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.l2_distance);
COMMENT ON OPERATOR @extschema@.<-> (@extschema@.encrypted_vector, vector) IS 'Euclidean distance; decrypts';
CREATE OPERATOR @extschema@.<#> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.negative_inner_product);
COMMENT ON OPERATOR @extschema@.<#> (@extschema@.encrypted_vector, vector) IS 'negative inner product; decrypts';
CREATE OPERATOR @extschema@.<=> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.cosine_distance);
COMMENT ON OPERATOR @extschema@.<=> (@extschema@.encrypted_vector, vector) IS 'cosine distance; decrypts';
CREATE OPERATOR @extschema@.<+> (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = vector, FUNCTION = pgseal.l1_distance);
COMMENT ON OPERATOR @extschema@.<+> (@extschema@.encrypted_vector, vector) IS 'taxicab distance; decrypts';

-- pgvector's functions of these names, with pgseal in the search_path: in the schema of the types, calls with literals would be ambiguous.
CREATE FUNCTION pgseal.vector_dims(@extschema@.encrypted_vector) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_vector_dims' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_dims(@extschema@.encrypted_vector) IS 'number of dimensions; its length tells, no key is needed';
CREATE FUNCTION pgseal.vector_norm(@extschema@.encrypted_vector) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_vector_norm' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.vector_norm(@extschema@.encrypted_vector) IS 'Euclidean length; decrypts';
CREATE FUNCTION pgseal.l2_normalize(@extschema@.encrypted_vector) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_l2_normalize' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.l2_normalize(@extschema@.encrypted_vector) IS 'the embedding scaled to length 1, encrypted under the same keyring';

-- Operators that would compare or show something else than meant: refused, with what to write instead.
CREATE FUNCTION pgseal.unsupported(text, @extschema@.encrypted_vector) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_unsupported_vector' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(text, @extschema@.encrypted_vector) IS 'refuses an operator that ciphertext cannot answer';
CREATE FUNCTION pgseal.unsupported(@extschema@.encrypted_vector, text) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_unsupported_vector' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(@extschema@.encrypted_vector, text) IS 'refuses an operator that ciphertext cannot answer';
CREATE OPERATOR pg_catalog.|| (LEFTARG = text, RIGHTARG = @extschema@.encrypted_vector, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR pg_catalog.|| (text, @extschema@.encrypted_vector) IS 'refused: ciphertext cannot answer it';
CREATE OPERATOR pg_catalog.|| (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = text, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR pg_catalog.|| (@extschema@.encrypted_vector, text) IS 'refused: ciphertext cannot answer it';
-- PostgreSQL's own are written with $1::text, the explicit cast: dynamic SQL of audit triggers would store plaintext.
CREATE FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_vector) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN pg_catalog.quote_literal(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_literal(@extschema@.encrypted_vector) IS 'the ciphertext as a literal';
CREATE FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_vector) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN pg_catalog.quote_nullable(pgseal.sealed_text($1));
COMMENT ON FUNCTION pg_catalog.quote_nullable(@extschema@.encrypted_vector) IS 'the ciphertext as a literal, or NULL';

CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_vector, index boolean DEFAULT true) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_vector, boolean) IS 'internal: the same embedding under the active data key of its keyring';
CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_vector, index boolean, permit bytea) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_vector, boolean, bytea)
    IS 'internal: the same with the privileges on keyrings of whoever has lent the permit';
CREATE FUNCTION pgseal.reseal_problem(@extschema@.encrypted_vector, index boolean, permit bytea) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reseal_problem' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal_problem(@extschema@.encrypted_vector, boolean, bytea) IS 'internal: why a value cannot be encrypted anew, or NULL';
CREATE FUNCTION pgseal.is_current(@extschema@.encrypted_vector, index boolean DEFAULT true) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_is_current' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.is_current(@extschema@.encrypted_vector, boolean) IS 'is the value sealed under the active data key? Needs no key';
CREATE FUNCTION pgseal.vector_values(leaf regclass, target_column text, page int8, item int4) RETURNS @extschema@.encrypted_vector[]
    AS 'MODULE_PATHNAME', 'pgseal_page_values' LANGUAGE C STABLE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.vector_values(regclass, text, int8, int4) IS 'internal: the values of a page of a table';
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_vector, context text, context_known boolean,
        OUT result text, OUT keyring_id int4, OUT key_version int4, OUT finding text)
    AS 'MODULE_PATHNAME', 'pgseal_check_vector' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_vector, text, boolean)
    IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';

SET LOCAL search_path = pg_catalog, pg_temp;
-- DISTINCT, GROUP BY, ORDER BY, UNION, windows, hash joins, min and max on encrypted values, by their plaintexts. The classes are for
-- the executor alone: no comparison function that partitions, arrays and rows could find, and options that refuse each index.
-- The operators of the order have names of their own: beside them a literal would be taken for an encrypted value.
CREATE FUNCTION pgseal.no_index(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_no_index' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.no_index(internal) IS 'internal: refuses an index that would keep an order or hashes of plaintexts';
CREATE FUNCTION pgseal.text_order(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_text_order' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.text_order(internal) IS 'internal: sort support; decrypts';
CREATE FUNCTION pgseal.jsonb_order(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_jsonb_order' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.jsonb_order(internal) IS 'internal: sort support; decrypts';
CREATE FUNCTION pgseal.vector_order(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_vector_order' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_order(internal) IS 'internal: sort support; decrypts';

DO $$
DECLARE
    kind text;
    name text;
    operator text;
    commutator text;
    negator text;
    estimate text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['text', 'jsonb', 'vector'] LOOP
        EXECUTE format('CREATE FUNCTION pgseal.hash(%1$s.encrypted_%2$s) RETURNS int4
            AS ''MODULE_PATHNAME'', ''pgseal_hash'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', '@extschema@', kind);
        EXECUTE format('COMMENT ON FUNCTION pgseal.hash(%s.encrypted_%s) IS ''hash of the plaintext, another one in each session''', '@extschema@', kind);
        FOR name, operator, commutator, negator, estimate IN VALUES
            ('less', '*<', '*>', '*>=', 'scalarlt'), ('less_or_equal', '*<=', '*>=', '*>', 'scalarle'),
            ('greater_or_equal', '*>=', '*<=', '*<', 'scalarge'), ('greater', '*>', '*<', '*<=', 'scalargt')
        LOOP
            EXECUTE format('CREATE FUNCTION pgseal.%1$s(%2$s.encrypted_%3$s, %2$s.encrypted_%3$s) RETURNS boolean
                AS ''MODULE_PATHNAME'', ''pgseal_%1$s'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', name, '@extschema@', kind);
            EXECUTE format('COMMENT ON FUNCTION pgseal.%1$s(%2$s.encrypted_%3$s, %2$s.encrypted_%3$s) IS ''implementation of %4$s operator''',
                           name, '@extschema@', kind, operator);
            EXECUTE format('CREATE OPERATOR pgseal.%1$s (LEFTARG = %2$s.encrypted_%3$s, RIGHTARG = %2$s.encrypted_%3$s, FUNCTION = pgseal.%4$s,
                COMMUTATOR = OPERATOR(pgseal.%5$s), NEGATOR = OPERATOR(pgseal.%6$s), RESTRICT = %7$ssel, JOIN = %7$sjoinsel)',
                operator, '@extschema@', kind, name, commutator, negator, estimate);
            EXECUTE format('COMMENT ON OPERATOR pgseal.%1$s (%2$s.encrypted_%3$s, %2$s.encrypted_%3$s) IS ''order of the plaintexts; decrypts''',
                           operator, '@extschema@', kind);
        END LOOP;
    END LOOP;
END $$;

CREATE OPERATOR CLASS @extschema@.encrypted_text_ops DEFAULT FOR TYPE @extschema@.encrypted_text USING btree AS
    OPERATOR 1 pgseal.*<, OPERATOR 2 pgseal.*<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pgseal.*>=, OPERATOR 5 pgseal.*>,
    FUNCTION 2 pgseal.text_order(internal), FUNCTION 5 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_text_ops USING btree IS 'order of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_text_ops DEFAULT FOR TYPE @extschema@.encrypted_text USING hash AS
    OPERATOR 1 pg_catalog.=, FUNCTION 1 pgseal.hash(@extschema@.encrypted_text), FUNCTION 3 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_text_ops USING hash IS 'equality of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_jsonb_ops DEFAULT FOR TYPE @extschema@.encrypted_jsonb USING btree AS
    OPERATOR 1 pgseal.*<, OPERATOR 2 pgseal.*<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pgseal.*>=, OPERATOR 5 pgseal.*>,
    FUNCTION 2 pgseal.jsonb_order(internal), FUNCTION 5 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_jsonb_ops USING btree IS 'order of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_jsonb_ops DEFAULT FOR TYPE @extschema@.encrypted_jsonb USING hash AS
    OPERATOR 1 pg_catalog.=, FUNCTION 1 pgseal.hash(@extschema@.encrypted_jsonb), FUNCTION 3 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_jsonb_ops USING hash IS 'equality of the plaintexts, for queries; no index can be made with it';

-- Embeddings have no =: pgvector's answers, on what the cast gives.
CREATE FUNCTION pgseal.same(@extschema@.encrypted_vector, @extschema@.encrypted_vector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_same' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.same(@extschema@.encrypted_vector, @extschema@.encrypted_vector) IS 'implementation of *= operator';
CREATE OPERATOR pgseal.*= (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = @extschema@.encrypted_vector, FUNCTION = pgseal.same,
    COMMUTATOR = OPERATOR(pgseal.*=), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
COMMENT ON OPERATOR pgseal.*= (@extschema@.encrypted_vector, @extschema@.encrypted_vector) IS 'equality of the plaintexts, for groups; decrypts';
CREATE OPERATOR CLASS @extschema@.encrypted_vector_ops DEFAULT FOR TYPE @extschema@.encrypted_vector USING btree AS
    OPERATOR 1 pgseal.*<, OPERATOR 2 pgseal.*<=, OPERATOR 3 pgseal.*=, OPERATOR 4 pgseal.*>=, OPERATOR 5 pgseal.*>,
    FUNCTION 2 pgseal.vector_order(internal), FUNCTION 5 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_ops USING btree IS 'order of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_vector_ops DEFAULT FOR TYPE @extschema@.encrypted_vector USING hash AS
    OPERATOR 1 pgseal.*=, FUNCTION 1 pgseal.hash(@extschema@.encrypted_vector), FUNCTION 3 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_ops USING hash IS 'equality of the plaintexts, for queries; no index can be made with it';

CREATE FUNCTION pgseal.larger(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_larger' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.larger(@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'internal: for max; decrypts';
CREATE FUNCTION pgseal.smaller(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_smaller' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smaller(@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'internal: for min; decrypts';
CREATE FUNCTION pgseal.largest(@extschema@.encrypted_text[]) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_largest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.largest(@extschema@.encrypted_text[]) IS 'internal: what the planner makes of GREATEST; decrypts';
CREATE FUNCTION pgseal.largest(@extschema@.encrypted_jsonb[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_largest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.largest(@extschema@.encrypted_jsonb[]) IS 'internal: what the planner makes of GREATEST; decrypts';
CREATE FUNCTION pgseal.largest(@extschema@.encrypted_vector[]) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_largest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.largest(@extschema@.encrypted_vector[]) IS 'internal: what the planner makes of GREATEST; decrypts';
CREATE FUNCTION pgseal.smallest(@extschema@.encrypted_text[]) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_smallest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smallest(@extschema@.encrypted_text[]) IS 'internal: what the planner makes of LEAST; decrypts';
CREATE FUNCTION pgseal.smallest(@extschema@.encrypted_jsonb[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_smallest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smallest(@extschema@.encrypted_jsonb[]) IS 'internal: what the planner makes of LEAST; decrypts';
CREATE FUNCTION pgseal.smallest(@extschema@.encrypted_vector[]) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_smallest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smallest(@extschema@.encrypted_vector[]) IS 'internal: what the planner makes of LEAST; decrypts';
CREATE AGGREGATE pg_catalog.max(@extschema@.encrypted_text) (SFUNC = pgseal.larger, STYPE = @extschema@.encrypted_text);
COMMENT ON AGGREGATE pg_catalog.max(@extschema@.encrypted_text) IS 'the largest text; decrypts';
CREATE AGGREGATE pg_catalog.min(@extschema@.encrypted_text) (SFUNC = pgseal.smaller, STYPE = @extschema@.encrypted_text);
COMMENT ON AGGREGATE pg_catalog.min(@extschema@.encrypted_text) IS 'the smallest text; decrypts';

-- Whatever reads a type modifier as a keyring asks this: a vector column's has the low bits of the keyring's id, and its dimensions.
CREATE FUNCTION pgseal.keyring_of_vectors(typmod int4) RETURNS int4
    AS 'MODULE_PATHNAME', 'pgseal_keyring_of_typmod' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.keyring_of_vectors(int4) IS 'internal: the keyring that the type modifier of a vector column names, NULL where it is not known';
CREATE FUNCTION pgseal.keyring_of_typmod(type oid, typmod int4) RETURNS int4
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN typmod <= 0 THEN NULL WHEN type = '@extschema@.encrypted_vector'::regtype THEN pgseal.keyring_of_vectors(typmod) ELSE typmod END;
COMMENT ON FUNCTION pgseal.keyring_of_typmod(oid, int4)
    IS 'internal: the keyring that a column of an encrypted type is bound to, NULL where it is to none or one that is not known';

CREATE FUNCTION pgseal.kind_of_type(type oid) RETURNS name
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE type WHEN '@extschema@.encrypted_text'::regtype THEN 'text' WHEN '@extschema@.encrypted_vector'::regtype THEN 'vector' ELSE 'jsonb' END;
COMMENT ON FUNCTION pgseal.kind_of_type(oid) IS 'internal: what an encrypted type is made from, as functions for each of them are called';
CREATE FUNCTION pgseal.vector_type(base name) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT t.oid FROM pg_type t
              JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
              JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
             WHERE e.extname = 'vector' AND t.typname = base);
COMMENT ON FUNCTION pgseal.vector_type(name) IS 'internal: a type of the extension vector';
CREATE OR REPLACE PROCEDURE pgseal.encrypt_column(target_table regclass, target_column name, keyring text DEFAULT NULL, batch_size int4 DEFAULT 1000,
        dry_run boolean DEFAULT false, ignore text[] DEFAULT '{}')
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.encrypt_column') WHERE NOT dry_run;
    CALL pgseal.migrate_column(target_table, target_column, pgseal.migration_type(target_table, target_column, keyring, true), true,
                               batch_size, dry_run, ignore);
    PERFORM pgseal.report_plaintext(target_table) WHERE NOT dry_run AND NOT pgseal.migration_started(target_table, target_column);
END $$;
CREATE OR REPLACE PROCEDURE pgseal.decrypt_column(target_table regclass, target_column name, batch_size int4 DEFAULT 1000,
        dry_run boolean DEFAULT false, ignore text[] DEFAULT '{}')
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.decrypt_column') WHERE NOT dry_run;
    CALL pgseal.migrate_column(target_table, target_column, pgseal.migration_type(target_table, target_column, NULL, false), false,
                               batch_size, dry_run, ignore);
    PERFORM pgseal.release_vectors(target_table) WHERE NOT dry_run;
END $$;
COMMENT ON PROCEDURE pgseal.encrypt_column(regclass, name, text, int4, boolean, text[])
    IS 'make a jsonb, json, text, varchar, vector or halfvec column encrypted while it is in use; can be stopped and called again';
COMMENT ON PROCEDURE pgseal.decrypt_column(regclass, name, int4, boolean, text[])
    IS 'make an encrypted column jsonb, text or vector again while it is in use; can be stopped and called again';

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
CREATE OR REPLACE FUNCTION pgseal.value_columns() RETURNS TABLE (relation regclass, attname name, scalar text, typmod int4, blind text)
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

CREATE OR REPLACE FUNCTION pgseal.encrypted_column(target_table regclass, target_column name) RETURNS oid
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

CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_jsonb, index boolean, permit bytea) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_jsonb, boolean, bytea)
    IS 'internal: the same with the privileges of whoever calls pgseal.confined(), whose third parameter the permit is';
CREATE FUNCTION pgseal.reseal_problem(@extschema@.encrypted_jsonb, index boolean, permit bytea) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reseal_problem' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal_problem(@extschema@.encrypted_jsonb, boolean, bytea) IS 'internal: why a value cannot be encrypted anew, or NULL';
CREATE FUNCTION pgseal.reseal(@extschema@.encrypted_text, index boolean, permit bytea) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_reseal' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal(@extschema@.encrypted_text, boolean, bytea)
    IS 'internal: the same with the privileges of whoever calls pgseal.confined(), whose third parameter the permit is';
CREATE FUNCTION pgseal.reseal_problem(@extschema@.encrypted_text, index boolean, permit bytea) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_reseal_problem' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.reseal_problem(@extschema@.encrypted_text, boolean, bytea) IS 'internal: why a value cannot be encrypted anew, or NULL';
CREATE FUNCTION pgseal.retire_alone() RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_retire_alone' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.retire_alone() IS 'internal: false while another session retires a key';

-- How many pages hold about so many rows.
CREATE OR REPLACE FUNCTION pgseal.pages_of_rows(target_table regclass, number_of_rows float8) RETURNS int8
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows_of_page float8 := (SELECT c.reltuples / nullif(c.relpages, 0) FROM pg_class c WHERE c.oid = target_table AND c.reltuples >= 0);
BEGIN
    IF rows_of_page IS NULL THEN
        rows_of_page := pgseal.confined(format('SELECT count(*) / 8.0 FROM ONLY %s WHERE ctid < $1', target_table), '(8,0)'::tid, of_table => target_table);
    END IF;
    RETURN greatest(1, number_of_rows / greatest(1, rows_of_page))::int8;
END $$;

-- What procedures that commit work with: they keep their caller's search_path, and look no name or operator up in it.
CREATE FUNCTION pgseal.next_notice() RETURNS timestamptz
    LANGUAGE sql VOLATILE RETURN clock_timestamp() + interval '5 seconds';
COMMENT ON FUNCTION pgseal.next_notice() IS 'internal: when what goes on is to be told again';

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

CREATE FUNCTION pgseal.is_past(moment timestamptz) RETURNS boolean
    LANGUAGE sql VOLATILE RETURN moment <= clock_timestamp();
COMMENT ON FUNCTION pgseal.is_past(timestamptz) IS 'internal: has the moment come?';
CREATE FUNCTION pgseal.seconds_since(moment timestamptz) RETURNS numeric
    LANGUAGE sql VOLATILE RETURN round(extract(epoch FROM clock_timestamp() - moment), 1);
COMMENT ON FUNCTION pgseal.seconds_since(timestamptz) IS 'internal: how long ago a moment was';
CREATE FUNCTION pgseal.start_of_page(page int8) RETURNS tid
    LANGUAGE sql IMMUTABLE RETURN format('(%s,0)', page)::tid;
COMMENT ON FUNCTION pgseal.start_of_page(int8) IS 'internal: below all rows of a page, above those of the page before';
CREATE FUNCTION pgseal.tables_of(target_table regclass) RETURNS regclass[]
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT l.leaf FROM pgseal.leaves(target_table) l WHERE l.relkind = 'r')
$$;
COMMENT ON FUNCTION pgseal.tables_of(regclass) IS 'internal: the ordinary tables that store the rows of a table';
CREATE FUNCTION pgseal.other_sessions_on(target_table regclass) RETURNS int4[]
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT array_agg(DISTINCT l.pid) FROM pg_locks l WHERE l.relation = target_table AND l.pid <> pg_backend_pid();
END;
COMMENT ON FUNCTION pgseal.other_sessions_on(regclass) IS 'internal: sessions with a lock on a table';

-- Refuses what cannot be re-encrypted; is it to be done in place?
CREATE FUNCTION pgseal.check_reencrypt(target_table regclass, target_column name, batch_size int4, max_rate float8, index boolean, rotation text,
        pace text) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leaf regclass;
    problem text;
    is_ours boolean;
BEGIN
    PERFORM pgseal.encrypted_column(target_table, target_column), pgseal.require_rows_here(target_table),
        pgseal.require_owner(target_table, or_run_as_owner => true), pgseal.is_gentle(pace);
    IF (SELECT c.relkind NOT IN ('r', 'p') FROM pg_class c WHERE c.oid = target_table) THEN
        RAISE EXCEPTION '% is not a table', target_table
            USING ERRCODE = 'wrong_object_type', HINT = 'REFRESH a materialized view; re-encrypt the tables below a view.';
    END IF;
    IF rotation IS NULL OR rotation NOT IN ('in_place', 'update') THEN
        RAISE EXCEPTION 'rotation must be in_place or update' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF max_rate <= 0 OR max_rate = 'NaN' THEN
        RAISE EXCEPTION 'max_rate must be more than 0 rows a second' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF index IS NULL THEN
        RAISE EXCEPTION 'index must be true or false' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pgseal.refuse_row_comparisons(target_table) WHERE rotation = 'update';
    -- Before a run begins, which would be left as interrupted.
    IF rotation = 'in_place' THEN
        FOR leaf, problem, is_ours IN
            SELECT t.leaf, pgseal.in_place_problem(t.leaf, target_column), pg_has_role(c.relowner, 'USAGE')
              FROM unnest(pgseal.tables_of(target_table)) t (leaf) JOIN pg_class c ON c.oid = t.leaf
        LOOP
            IF NOT is_ours THEN
                RAISE EXCEPTION 'only its owner may rotate % in place', leaf
                    USING ERRCODE = 'insufficient_privilege', HINT = 'rotation => ''update'' writes new row versions.';
            ELSIF problem IS NOT NULL THEN
                RAISE EXCEPTION 'cannot rotate in place: %', problem
                    USING ERRCODE = 'feature_not_supported', HINT = 'rotation => ''update'' writes new row versions.';
            END IF;
        END LOOP;
    END IF;
    RETURN rotation = 'in_place';
END $$;
COMMENT ON FUNCTION pgseal.check_reencrypt(regclass, name, int4, float8, boolean, text, text)
    IS 'internal: refuses what cannot be re-encrypted; is it to be done in place?';

CREATE FUNCTION pgseal.rows_to_reencrypt(leaf regclass, target_column name, index boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    some_left boolean;
BEGIN
    some_left := pgseal.confined(format('SELECT EXISTS (SELECT FROM ONLY %1$s WHERE NOT pgseal.is_current(%2$I, %3$L)
        AND pgseal.reseal_problem(%2$I, %3$L, $3) IS NULL)', leaf, target_column, index), of_table => leaf);
    RETURN some_left;
END $$;
COMMENT ON FUNCTION pgseal.rows_to_reencrypt(regclass, name, boolean) IS 'internal: has the column a value that is not current and can be renewed?';

CREATE FUNCTION pgseal.report_unreadable(leaf regclass, target_column name, index boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    listed text[] := pgseal.confined(format('SELECT array_agg(format(%1$L, u.ctid, u.problem)) FROM (
        SELECT t.ctid, pgseal.reseal_problem(t.%3$I, %4$L, $3) AS problem FROM ONLY %2$s t WHERE NOT pgseal.is_current(t.%3$I, %4$L)) u
        WHERE u.problem IS NOT NULL', '%s: %s', leaf, target_column, index), of_table => leaf);
BEGIN
    IF cardinality(listed) > 0 THEN
        RAISE WARNING '% rows of % stay as they were, because column % cannot be encrypted anew: %', cardinality(listed), leaf,
            quote_ident(target_column), array_to_string(listed[:10], ', ') || CASE WHEN cardinality(listed) > 10 THEN ' ...' ELSE '' END
            USING HINT = 'All others are done. Restore, change or delete these rows, by their ctid; retire_key refuses as long as they are there.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.report_unreadable(regclass, name, boolean) IS 'internal: a warning of rows that reencrypt left out';

-- The procedures run with their caller's search_path, because they commit, and because the table's triggers expect it. So all
-- that they name, types and operators too, is qualified.
CREATE PROCEDURE pgseal.reencrypt(target_table regclass, target_column name, batch_size int4 DEFAULT NULL,
        max_rate float8 DEFAULT NULL, index boolean DEFAULT true, rotation text DEFAULT 'update', pace text DEFAULT 'gentle')
    LANGUAGE plpgsql AS $$
DECLARE
    leaf pg_catalog.regclass;
    leaves pg_catalog.regclass[];
    in_place boolean;
    total pg_catalog.int8 := 0;
    total_in_place pg_catalog.int8 := 0;
    started pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    due pg_catalog.timestamptz := started;
    report_due pg_catalog.timestamptz := pgseal.next_notice();
BEGIN
    PERFORM pgseal.require_autocommit('pgseal.reencrypt');
    in_place := pgseal.check_reencrypt(target_table, target_column, batch_size, max_rate, index, rotation, pace);
    -- A row costs so much less in place that the commit would cost more.
    batch_size := coalesce(batch_size, CASE WHEN in_place THEN 20000 ELSE 1000 END);
    leaves := pgseal.tables_of(target_table);
    -- Where this is not the default, every update of another session would end the run with an error.
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    FOREACH leaf IN ARRAY leaves LOOP
        CALL pgseal.reencrypt_leaf(leaf, target_column, batch_size, max_rate, index, in_place, pgseal.is_gentle(pace), total, total_in_place,
                                   due, report_due);
    END LOOP;
    -- Rows that are gone have left their codes in an index.
    FOREACH leaf IN ARRAY pgseal.sealed_indexes_of(leaves, target_column) LOOP
        CALL pgseal.reencrypt_index(leaf, pace);
    END LOOP;
    -- In place no token changes.
    PERFORM pgseal.report_searchable(target_table, target_column) WHERE NOT in_place OR total_in_place OPERATOR(pg_catalog.<) total;
    RAISE NOTICE '% rows of %.% re-encrypted in % s', total, target_table, pg_catalog.quote_ident(target_column), pgseal.seconds_since(started);
    IF in_place THEN
        RAISE NOTICE '% of them in place, % by UPDATE (out of line, other tokens, or in use)',
            total_in_place, total OPERATOR(pg_catalog.-) total_in_place;
    END IF;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt(regclass, name, int4, float8, boolean, text, text)
    IS 'encrypt the rows of a column anew under the active keys, in batches that are committed; at most max_rate rows a second; with index false '
        'tokens stay as they are; rotation in_place writes no new row versions where only the data key changes; pace gentle gives way to other '
        'sessions, full does not';

-- Passes over one table, until one finds no old value. Whoever has read old bytes may write them back: a pass that finds none
-- counts only if it began after their end.
CREATE PROCEDURE pgseal.reencrypt_leaf(leaf regclass, target_column name, batch_size int4, max_rate float8, index boolean, in_place boolean,
        gentle boolean, INOUT total int8, INOUT total_in_place int8, INOUT due timestamptz, INOUT report_due timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    step pg_catalog.int8 := pgseal.pages_of_rows(leaf, least(batch_size, pg_catalog.ceil(max_rate)));
    -- UPDATE locks the rows of its batch, and writes them to every index.
    most_by_update pg_catalog.int8 := CASE WHEN in_place THEN pgseal.pages_of_rows(leaf, least(batch_size, 1000, pg_catalog.ceil(max_rate))) ELSE step END;
    pages pg_catalog.int8 := 1;
    goal pg_catalog.text := pgseal.rotation_join(leaf, target_column, index, step);
    claim pg_catalog.record;
    has_waited boolean := false;
    by_update boolean := true;
    careful boolean := false;
    met_unreadable boolean := false;
    changed pg_catalog.int8;
    changed_in_place pg_catalog.int8;
    began pg_catalog.timestamptz;
    notice_due pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    COMMIT AND CHAIN;
    IF in_place THEN
        CALL pgseal.wait_for_old_transactions();
    END IF;
    LOOP
        claim := pgseal.rotation_claim(leaf, target_column, goal);
        EXIT WHEN claim.state OPERATOR(pg_catalog.=) 'finished';
        IF claim.state OPERATOR(pg_catalog.=) 'superseded' THEN
            has_waited := false;
            goal := pgseal.rotation_join(leaf, target_column, index, step);
            COMMIT AND CHAIN;
        ELSIF claim.state OPERATOR(pg_catalog.=) 'pass done' AND in_place AND NOT claim.nothing_done AND NOT has_waited THEN
            has_waited := true;
            COMMIT AND CHAIN;
            CALL pgseal.wait_for_old_transactions();
        ELSIF claim.state OPERATOR(pg_catalog.=) 'pass done' THEN
            has_waited := false;
            CALL pgseal.reencrypt_end_pass(leaf, target_column, index, claim.pass, claim.nothing_done, step);
        ELSE
            has_waited := false;
            began := pg_catalog.clock_timestamp();
            pages := least(CASE WHEN gentle THEN pages END, CASE WHEN by_update THEN most_by_update ELSE step END,
                           claim.end_page OPERATOR(pg_catalog.-) claim.next_page);
            CALL pgseal.reencrypt_batch(leaf, target_column, index, in_place, claim.first_page, claim.next_page,
                                        pages, by_update, careful, changed, changed_in_place, notice_due);
            met_unreadable := met_unreadable OR careful;
            total := total OPERATOR(pg_catalog.+) changed;
            total_in_place := total_in_place OPERATOR(pg_catalog.+) changed_in_place;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                PERFORM pgseal.report_rotation(leaf, target_column);
            END IF;
            due := greatest(due, began) OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => changed OPERATOR(pg_catalog./) max_rate);
            CALL pgseal.keep_pace(in_place, gentle, began, due, pages);
        END IF;
    END LOOP;
    IF met_unreadable THEN
        PERFORM pgseal.report_unreadable(leaf, target_column, index);
        COMMIT AND CHAIN;
    END IF;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_leaf(regclass, name, int4, float8, boolean, boolean, boolean, int8, int8, timestamptz, timestamptz)
    IS 'internal: re-encrypts what one table stores';

CREATE PROCEDURE pgseal.reencrypt_end_pass(leaf regclass, target_column name, index boolean, pass int4, nothing_done boolean, step int8)
    LANGUAGE plpgsql AS $$
DECLARE
    -- Rows that an UPDATE or a CLUSTER moves from before a pass to behind it escape it, but not one snapshot.
    rows_left boolean := nothing_done AND pgseal.rows_to_reencrypt(leaf, target_column, index);
    stays boolean := pgseal.rotation_end_pass(leaf, target_column, pass, step, rows_left);
BEGIN
    COMMIT AND CHAIN;
    IF NOT stays THEN
        RAISE EXCEPTION 'rows of % do not stay re-encrypted', leaf
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Does a trigger put the old value back?';
    END IF;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_end_pass(regclass, name, boolean, int4, boolean, int8)
    IS 'internal: finishes a run of reencrypt or begins another pass, and commits';

CREATE PROCEDURE pgseal.wait_for_old_transactions()
    LANGUAGE plpgsql AS $$
DECLARE
    transactions pg_catalog.text[] := pgseal.rotation_transactions();
    sessions pg_catalog.int4[];
    notice_due pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    LOOP
        sessions := pgseal.rotation_sessions(transactions);
        EXIT WHEN sessions IS NULL;
        IF pgseal.is_past(notice_due) THEN
            notice_due := pgseal.next_notice();
            RAISE NOTICE 'waiting for the end of transactions that may hold old values: sessions %', sessions;
        END IF;
        PERFORM pgseal.nap('older transactions', 0.02);
        COMMIT AND CHAIN;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.wait_for_old_transactions() IS 'internal: waits for all transactions of other sessions that run now';

-- Some pages of a range: in place where that is asked for, and what is left by UPDATE. They are claimed again where they could
-- not be done; careful then leaves out what cannot be read.
CREATE PROCEDURE pgseal.reencrypt_batch(leaf regclass, target_column name, index boolean, in_place boolean, first_page int8, next_page int8,
        INOUT pages int8, INOUT by_update boolean, INOUT careful boolean, INOUT changed int8, INOUT changed_in_place int8, INOUT notice_due timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    end_page CONSTANT pg_catalog.int8 := next_page OPERATOR(pg_catalog.+) pages;
    few_pages CONSTANT pg_catalog.bool := by_update;
    done pg_catalog.record;
    refused pg_catalog.text;
BEGIN
    changed := 0;
    changed_in_place := 0;
    IF in_place THEN
        BEGIN
            done := pgseal.rewrite_pages_of(leaf, target_column, next_page, end_page, index);
        EXCEPTION WHEN object_in_use THEN
            refused := SQLERRM;
        END;
        IF refused IS NOT NULL THEN
            CALL pgseal.wait_for_snapshots(refused, notice_due);
            RETURN;
        END IF;
        changed_in_place := done.rewritten;
        by_update := done.left_for_update OPERATOR(pg_catalog.>) 0 OR done.out_of_line OPERATOR(pg_catalog.>) 0 OR done.busy_page IS NOT NULL;
        IF done.busy_page IS NOT NULL AND pgseal.is_past(notice_due) THEN
            notice_due := pgseal.next_notice();
            RAISE NOTICE '%: page % is in use all the time, its rows go by UPDATE', leaf, done.busy_page
                USING HINT = pg_catalog.format('Sessions with a lock on the table: %s.', pgseal.other_sessions_on(leaf));
        END IF;
        IF by_update AND NOT few_pages THEN
            -- So many would be a long time by UPDATE.
            changed := changed_in_place;
            pages := 1;
            PERFORM pgseal.rotation_advance(leaf, target_column, first_page, next_page, changed);
            COMMIT AND CHAIN;
            RETURN;
        END IF;
    END IF;
    BEGIN
        changed := changed_in_place;
        IF by_update THEN
            changed := changed OPERATOR(pg_catalog.+) pgseal.confined(pgseal.reencrypting_update(leaf, target_column, index, careful),
                pgseal.start_of_page(next_page), pgseal.start_of_page(end_page), leaf)::pg_catalog.int8;
        END IF;
        PERFORM pgseal.rotation_advance(leaf, target_column, first_page, end_page, changed);
        careful := false;
    EXCEPTION WHEN deadlock_detected THEN
        -- The other transaction goes on; this batch is done again after it.
        changed := changed_in_place;
    WHEN data_exception OR program_limit_exceeded OR undefined_object OR object_not_in_prerequisite_state OR data_corrupted THEN
        IF careful THEN
            RAISE;
        END IF;
        -- Perhaps of one value.
        careful := true;
        changed := changed_in_place;
    END;
    COMMIT AND CHAIN;
END $$;
COMMENT ON PROCEDURE pgseal.reencrypt_batch(regclass, name, boolean, boolean, int8, int8, int8, boolean, boolean, int8, int8, timestamptz)
    IS 'internal: re-encrypts some pages';

CREATE FUNCTION pgseal.reencrypting_update(leaf regclass, target_column name, index boolean, careful boolean) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN format('UPDATE ONLY %1$s SET %2$I = pgseal.reseal(%2$I, %3$L, $3)
              WHERE ctid OPERATOR(pg_catalog.>=) $1 AND ctid OPERATOR(pg_catalog.<) $2 AND NOT pgseal.is_current(%2$I, %3$L)',
            leaf, target_column, index)
        || CASE WHEN careful THEN format(' AND pgseal.reseal_problem(%I, %L, $3) IS NULL', target_column, index) ELSE '' END;
COMMENT ON FUNCTION pgseal.reencrypting_update(regclass, name, boolean, boolean)
    IS 'internal: the UPDATE of some pages; careful leaves out what cannot be read';

-- A key that is newer than what the run waited for: whoever has a snapshot from before it must not meet its bytes.
CREATE PROCEDURE pgseal.wait_for_snapshots(refused text, INOUT notice_due timestamptz)
    LANGUAGE plpgsql AS $$
BEGIN
    IF pgseal.is_past(notice_due) THEN
        notice_due := pgseal.next_notice();
        RAISE NOTICE 'waiting: %', refused;
    END IF;
    COMMIT AND CHAIN;
    PERFORM pgseal.nap('older snapshots', 0.02);
    COMMIT AND CHAIN;
END $$;
COMMENT ON PROCEDURE pgseal.wait_for_snapshots(text, timestamptz) IS 'internal: gives sessions with older snapshots a moment';

CREATE FUNCTION pgseal.is_gentle(pace text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pace IS NULL OR pace NOT IN ('gentle', 'full') THEN
        RAISE EXCEPTION 'pace must be gentle or full' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'gentle, the default, rests while other sessions work; full takes as much as it gets.';
    END IF;
    RETURN pace = 'gentle';
END $$;
COMMENT ON FUNCTION pgseal.is_gentle(text) IS 'internal: refuses what is no pace; is it gentle?';

CREATE FUNCTION pgseal.waited_for_processor() RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_waited_for_processor' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.waited_for_processor() IS 'internal: for how many seconds since its last nap the caller was ready and others ran';

-- Each slice of work is followed by a rest, which grows with the square of what others do to twenty times the slice: an idle
-- processor is used, and a run on a busy server ends in the end. HNSW inserts make a slice longer, hence the rest too; what
-- else does, a lock that was waited for, is no reason to rest for more than a second.
CREATE FUNCTION pgseal.rest_after(worked interval, INOUT pages int8, OUT seconds float8, OUT reason text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT float8 := 20;
    load float8;
    took float8 := greatest(extract(epoch FROM worked) - pgseal.waited_for_processor(), 0.0001);
BEGIN
    SELECT l.load, l.reason INTO load, reason FROM pgseal.rotation_load() l;
    seconds := least(took * most * least(1, 2 * load ^ 2), 1);
    -- A reader waits for a slice at worst; a longer one costs fewer commits.
    pages := greatest(1, pages * least(4, CASE WHEN load < 0.2 THEN 0.05 ELSE 0.005 END / took));
END $$;
COMMENT ON FUNCTION pgseal.rest_after(interval, int8) IS 'internal: how long to rest after some work on so many pages and why, and how many pages come next';

-- Not faster than standbys replay what is written in place, than others leave room for, and than is wanted. A snapshot that
-- sleeps would keep VACUUM from removing what it still sees.
CREATE PROCEDURE pgseal.keep_pace(in_place boolean, gentle boolean, began timestamptz, due timestamptz, INOUT pages int8)
    LANGUAGE plpgsql AS $$
DECLARE
    most_lag CONSTANT pg_catalog.int8 := 67108864;
    worked pg_catalog.interval := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) began;
    rest pg_catalog.record;
BEGIN
    WHILE in_place AND pgseal.rotation_lag() OPERATOR(pg_catalog.>) most_lag LOOP
        PERFORM pgseal.nap('replica lag', 0.05);
        COMMIT AND CHAIN;
    END LOOP;
    IF gentle THEN
        rest := pgseal.rest_after(worked, pages);
        pages := rest.pages;
        PERFORM pgseal.nap(rest.reason, rest.seconds);
        COMMIT AND CHAIN;
    END IF;
    WHILE NOT pgseal.is_past(due) LOOP
        PERFORM pgseal.nap('max_rate', least(1, extract(epoch FROM due OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp())));
        COMMIT AND CHAIN;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.keep_pace(boolean, boolean, timestamptz, timestamptz, int8)
    IS 'internal: waits for standbys, for others, and for the time that a batch is due';

-- What is already done does not fail for it: the role may not decrypt, or a value that was current cannot be read.
CREATE FUNCTION pgseal.report_searchable(target_table regclass, target_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgseal.encrypted_column(target_table, target_column) = pgseal.own_type('encrypted_jsonb') THEN
        PERFORM pgseal.check_searchable(target_table, target_column);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'how many values the searchable paths of % have was not looked at: %', target_table, SQLERRM;
END $$;
COMMENT ON FUNCTION pgseal.report_searchable(regclass, name) IS 'internal: check_searchable, where it can be done';

CREATE OR REPLACE FUNCTION pgseal.key_usage(target_table regclass, target_column name)
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

CREATE FUNCTION pgseal.rewrite_pages(target_table regclass, target_column int2, first_page int8, end_page int8, index boolean,
        OUT rewritten int8, OUT left_for_update int8, OUT out_of_line int8, OUT busy_page int8)
    AS 'MODULE_PATHNAME', 'pgseal_rewrite_pages_record' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.rewrite_pages(regclass, int2, int8, int8, boolean) IS 'internal: renews values in pages without new row versions';

-- What the sessions of this database run now: a statement may commit and go on. The start tells one statement from the next.
CREATE FUNCTION pgseal.running_statements() RETURNS TABLE (pid int4, statement text, hidden boolean)
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.pid, concat_ws(' ', a.pid, a.backend_start, a.query_start), a.state IS NOT DISTINCT FROM 'disabled'
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.state NOT LIKE 'idle%'
       AND a.backend_type NOT IN ('autovacuum worker', 'parallel worker') AND a.backend_type NOT LIKE 'logical replication%'
       AND (a.backend_type <> 'walsender' OR a.query NOT LIKE 'START_REPLICATION%')
$$;
COMMENT ON FUNCTION pgseal.running_statements() IS 'internal: what other sessions of this database run now';

-- A procedure keeps its variables and loops when it commits. Refuses where the statement waits for this one, or does not show
-- when it ends.
CREATE FUNCTION pgseal.wait_for_statements() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before text[] := ARRAY(SELECT r.statement FROM pgseal.running_statements() r);
    sessions int4[];
    hidden boolean;
    stuck int4;
    notice_due timestamptz := clock_timestamp();
BEGIN
    LOOP
        PERFORM pg_stat_clear_snapshot();
        SELECT array_agg(r.pid), bool_or(r.hidden) INTO sessions, hidden
          FROM pgseal.running_statements() r WHERE r.statement = ANY (before);
        EXIT WHEN sessions IS NULL;
        IF hidden THEN
            RAISE EXCEPTION 'cannot see whether the statements of sessions % have ended', sessions
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Set track_activities = on, or end these sessions.';
        END IF;
        stuck := (SELECT s.pid FROM unnest(sessions) s (pid)
                   WHERE pg_backend_pid() = ANY (pg_blocking_pids(s.pid)) OR s.pid IN (SELECT w.pid FROM pgseal.rotation_worker w) LIMIT 1);
        IF stuck IS NOT NULL THEN
            RAISE EXCEPTION 'session % waits, or may wait, for this transaction, which has to wait for its statement', stuck
                USING ERRCODE = 'object_in_use', HINT = 'Let it end first, pgseal.reencrypt for one.';
        END IF;
        IF notice_due <= clock_timestamp() THEN
            notice_due := pgseal.next_notice();
            RAISE NOTICE 'waiting for statements that may hold old values: sessions %', sessions;
        END IF;
        PERFORM pg_sleep(0.05);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.wait_for_statements() IS 'internal: waits for every statement that runs now';

-- The first place that holds a value sealed under a data key version, or that cannot be looked at. Nobody's lock is waited for
-- for long.
CREATE FUNCTION pgseal.find_key(keyring_id int4, key_version int4, except_foreign boolean DEFAULT false) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '5s' AS $$
DECLARE
    place record;
    locked regclass;
BEGIN
    FOR place IN SELECT * FROM pgseal.value_columns() LOOP
        CONTINUE WHEN except_foreign AND place.blind = 'foreign table';
        IF place.blind IS NOT NULL THEN
            RETURN format('cannot look into %s %s', place.blind, place.relation);
        END IF;
        locked := place.relation;
        IF EXISTS (SELECT FROM pgseal.column_keys(place.relation, place.attname) c
                    WHERE c.keyring_id = find_key.keyring_id AND c.key_version = find_key.key_version) THEN
            RETURN format('column %I of %s', place.attname, place.relation);
        END IF;
    END LOOP;
    FOR place IN SELECT * FROM pgseal.sealed_indexes() s WHERE s.tag = keyring_id & 131071 LOOP
        IF place.blind IS NOT NULL THEN
            RETURN format('cannot look into the index of a %s %s', place.blind, place.index);
        END IF;
        locked := place.index;
        IF EXISTS (SELECT FROM pgseal.index_key_usage(place.index) u WHERE u.data_key = key_version) THEN
            RETURN format('index %s', place.index);
        END IF;
    END LOOP;
    locked := NULL;

    -- Literals that the parser sealed long ago.
    RETURN (SELECT d.object FROM pgseal.definitions() d WHERE pgseal.text_holds_key(d.definition, keyring_id, key_version) LIMIT 1);
EXCEPTION WHEN lock_not_available THEN
    RETURN format('cannot look into %s, which sessions %s have locked', coalesce(locked::text, 'views of tables'),
        ARRAY(SELECT DISTINCT l.pid FROM pg_locks l
               WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND l.relation = coalesce(locked, l.relation) AND l.pid <> pg_backend_pid()
                 AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())));
END $$;
COMMENT ON FUNCTION pgseal.find_key(int4, int4, boolean) IS 'internal: a place that holds a value of a data key version, or NULL';

-- Whatever may hold old values in memory and write them later has ended. Twice, because what started during the first wait may
-- have read values that were replaced since.
CREATE FUNCTION pgseal.settled_place(keyring_id int4, key_version int4, except_foreign boolean) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    place text;
BEGIN
    FOR round IN 1..2 LOOP
        PERFORM pgseal.refuse_prepared();
        PERFORM pgseal.wait_for_transactions();
        PERFORM pgseal.wait_for_statements();
        place := pgseal.find_key(keyring_id, key_version, except_foreign);
        IF place IS NOT NULL THEN
            RETURN place;
        END IF;
    END LOOP;
    PERFORM pgseal.exclude_writers(keyring_id, key_version);
    PERFORM pgseal.refuse_prepared();
    RETURN pgseal.find_key(keyring_id, key_version, except_foreign);
END $$;
COMMENT ON FUNCTION pgseal.settled_place(int4, int4, boolean) IS 'internal: the same, once nothing can bring such a value back';

CREATE FUNCTION pgseal.retire(keyring text, version int4, except_foreign boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    id int4 := pgseal.keyring_named(keyring);
    state text := (SELECT d.state FROM pgseal.data_key d WHERE d.keyring = id AND d.version = retire.version);
    place text;
BEGIN
    IF state IS NULL THEN
        RAISE EXCEPTION 'keyring "%" has no data key version %', keyring, version USING ERRCODE = 'undefined_object';
    END IF;
    IF state <> 'decrypt-only' THEN
        RAISE EXCEPTION 'data key version % of keyring "%" is %', version, keyring, state
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = CASE state WHEN 'active' THEN 'SELECT pgseal.rotate_key(...) makes a newer one active.' ELSE 'It is retired already.' END;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'retire_key must see what other transactions commit while it waits'
            USING ERRCODE = 'active_sql_transaction', HINT = 'Run it in a transaction with isolation level READ COMMITTED.';
    END IF;
    IF NOT pgseal.retire_alone() THEN
        RAISE EXCEPTION 'another retire_key is running' USING ERRCODE = 'object_in_use';
    END IF;

    PERFORM pgseal.refuse_registered(id, version);
    place := pgseal.settled_place(id, version, coalesce(except_foreign, false));
    IF place IS NOT NULL THEN
        RAISE EXCEPTION 'data key version % of keyring "%" is still in use: %', version, keyring, place
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'CALL pgseal.reencrypt(table, column) replaces it in a column; REFRESH a materialized view; '
                      'set a DEFAULT again; VACUUM FULL stores what rows from before a column was added lack. Rows of foreign tables are '
                      'elsewhere: look there, then SELECT pgseal.retire_key_except_foreign(...). A table that Citus distributes keeps its keys.';
    END IF;
    UPDATE pgseal.data_key d SET state = 'retired', retired = now() WHERE d.keyring = id AND d.version = retire.version;
END $$;
COMMENT ON FUNCTION pgseal.retire(text, int4, boolean) IS 'internal: retire_key and retire_key_except_foreign';

CREATE OR REPLACE FUNCTION pgseal.retire_key(keyring text, version int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgseal.retire(keyring, version, false);
END $$;

CREATE FUNCTION pgseal.retire_key_except_foreign(keyring text, version int4) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pgseal.retire(keyring, version, true);
END $$;
COMMENT ON FUNCTION pgseal.retire_key_except_foreign(text, int4) IS 'the same without asking about foreign tables, whose rows are elsewhere';

CREATE OR REPLACE VIEW pgseal.stat AS
    SELECT pgseal.counter('values_sealed') AS values_sealed,
           pgseal.counter('values_decrypted') AS values_decrypted,
           pgseal.counter('values_fetched') AS values_fetched,
           pgseal.counter('filters_made') AS filters_made,
           pgseal.counter('kms_calls') AS kms_calls,
           pgseal.counter('kms_failures') AS kms_failures,
           pgseal.counter('kms_microseconds') / 1000.0 AS kms_milliseconds,
           pgseal.counter('shared_key_hits') AS shared_key_hits,
           pgseal.shared_keys_held() AS shared_keys,
           pgseal.counter('index_lists') AS index_lists,
           pgseal.counter('index_rows_scored') AS index_rows_scored,
           pgseal.counter('index_rows_visited') AS index_rows_visited,
           pgseal.counter('values_decided') AS values_decided;
COMMENT ON COLUMN pgseal.stat.index_lists IS 'lists of sealed indexes that scans have read';
COMMENT ON COLUMN pgseal.stat.index_rows_scored IS 'rows of sealed indexes that were scored by their codes';
COMMENT ON COLUMN pgseal.stat.index_rows_visited IS 'rows that scans of sealed indexes have looked at in the table';
COMMENT ON COLUMN pgseal.stat.values_decided IS 'values that a filter found by their tokens, without decrypting them';

-- As the library has it: current_setting would believe what a role said before the library was loaded.
CREATE FUNCTION pgseal.kms_endpoint() RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_kms_endpoint' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.kms_endpoint() IS 'internal: the setting pgseal.kms_endpoint';
CREATE FUNCTION pgseal.set_kms_token(token text, is_local boolean) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_set_kms_token_local' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.set_kms_token(text, boolean)
    IS 'the same, where is_local is true for this transaction alone: behind a pooler that gives each transaction another connection';
CREATE FUNCTION pgseal.kms_problem(keyring text, OUT problem text, OUT hint text)
    AS 'MODULE_PATHNAME', 'pgseal_kms_problem_record' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.kms_problem(text) IS 'internal: what is wrong with a keyring''s KMS and what to do; NULL where it works';

CREATE OR REPLACE FUNCTION pgseal.check_kms(keyring text, OUT kms_endpoint text, OUT kms_key text, OUT works boolean,
        OUT milliseconds numeric, OUT problem text, OUT hint text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    started timestamptz := clock_timestamp();
BEGIN
    SELECT p.problem, p.hint INTO problem, hint FROM pgseal.kms_problem(keyring) p;
    milliseconds := round(1000 * extract(epoch FROM clock_timestamp() - started), 1);
    SELECT coalesce(k.kms_endpoint, pgseal.kms_endpoint()), k.kms_key INTO kms_endpoint, kms_key
      FROM pgseal.keyring k WHERE k.name = keyring;
    works := problem IS NULL;
END $$;

CREATE TABLE pgseal.protection (
    pattern text CONSTRAINT protection_pkey PRIMARY KEY,
    keyring int4,
    action text NOT NULL CHECK (action IN ('encrypt', 'refuse', 'allow')),
    types text[] NOT NULL,
    plain name[] NOT NULL
);
COMMENT ON TABLE pgseal.protection IS 'the rules of pgseal.protect: what becomes of plain columns of new tables';
SELECT pg_catalog.pg_extension_config_dump('pgseal.protection', '');
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

-- The functions that only read: those that seal what they return stay with the leader, which holds the writers' locks.
CREATE OR REPLACE FUNCTION pgseal.use_parallel_workers(wanted boolean DEFAULT true) RETURNS int4
    LANGUAGE plpgsql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one regprocedure;
    changed int4 := 0;
BEGIN
    IF wanted THEN
        PERFORM pgseal.require_shared_keys();
    END IF;
    FOR one IN
        SELECT p.oid FROM pg_proc p
          JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pgseal'
         WHERE p.provolatile = 's' AND p.proparallel = CASE WHEN wanted THEN 'r' ELSE 's' END
           AND p.proname NOT IN ('field', 'element', 'path', 'field_text', 'element_text', 'path_text', 'concat', 'delete', 'delete_path')
           -- Which of them the client gets, a worker cannot tell.
           AND p.proname NOT IN ('plain', 'plain_varchar')
           -- These are safe always.
           AND p.proname NOT IN ('typanalyze', 'unsupported', 'subscript', 'encrypted_jsonb_out', 'encrypted_text_out', 'encrypted_vector_out')
           AND p.proname NOT LIKE '%selectivity' AND p.proname NOT LIKE 'grantee\_%'
           AND (SELECT t.typname FROM pg_type t WHERE t.oid = p.prorettype) NOT IN ('internal', 'encrypted_jsonb', 'encrypted_text', 'encrypted_vector')
         ORDER BY 1
    LOOP
        EXECUTE format('ALTER FUNCTION %s PARALLEL %s', one, CASE WHEN wanted THEN 'SAFE' ELSE 'RESTRICTED' END);
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END $$;

CREATE OR REPLACE FUNCTION pgseal.drop_keyring(keyring text, force boolean DEFAULT false) RETURNS void
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

-- A column moves to another type beside its old self: a second column, a trigger that fills it for every writer, batches for
-- the rows that are there, a comparison of every row, and a swap of the names under a short lock. What is half done is found
-- again by the names of the second column, the trigger and its function, which follow from the old column's number.
CREATE OR REPLACE FUNCTION pgseal.migration_column(target_table regclass, target_column name) RETURNS name
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    number int2 := (SELECT a.attnum FROM pg_attribute a
                     WHERE a.attrelid = target_table AND a.attname = target_column AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    IF number IS NULL THEN
        RAISE EXCEPTION 'column "%" of % does not exist', target_column, target_table USING ERRCODE = 'undefined_column';
    END IF;
    -- By its comment where a dump and restore have given the columns other numbers.
    RETURN coalesce((SELECT a.attname FROM pg_attribute a
                      WHERE a.attrelid = target_table AND NOT a.attisdropped AND a.attname ~ '^pgseal_new_\d+$'
                        AND col_description(a.attrelid, a.attnum) = format('column %I in its new type, while pgseal fills it', target_column)),
                    format('pgseal_new_%s', number));
END $$;

CREATE OR REPLACE FUNCTION pgseal.migration_started(target_table regclass, target_column name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target_table AND NOT a.attisdropped
                      AND a.attname = pgseal.migration_column(target_table, target_column));

-- The table and its partitions.
CREATE OR REPLACE FUNCTION pgseal.migration_tables(target_table regclass) RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT target_table UNION SELECT relid FROM pg_partition_tree(target_table);
END;

CREATE OR REPLACE FUNCTION pgseal.own_type(base name) RETURNS oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT t.oid FROM pg_type t
              JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
              JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
             WHERE e.extname = 'pgseal' AND t.typname = base);

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

-- Of a column of vectors, sealed or not; 0 is any number.
CREATE FUNCTION pgseal.declared_dimensions(target_table regclass, target_column name) RETURNS int4
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT greatest(a.atttypmod, 0) >> CASE a.atttypid WHEN pgseal.own_type('encrypted_vector') THEN 17 ELSE 0 END
              FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped);
COMMENT ON FUNCTION pgseal.declared_dimensions(regclass, name) IS 'internal: how many dimensions a column of vectors declares';

CREATE FUNCTION pgseal.is_json(target_table regclass, target_column name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND a.atttypid = 'json'::regtype);
COMMENT ON FUNCTION pgseal.is_json(regclass, name) IS 'internal: is a column of type json, whose text need not be that of jsonb?';

CREATE FUNCTION pgseal.bound_type(base name, keyring_id int4, dimensions int4) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN format_type(pgseal.own_type(base),
                       CASE base WHEN 'encrypted_vector' THEN (dimensions << 17) | (keyring_id & 131071) ELSE keyring_id END);
COMMENT ON FUNCTION pgseal.bound_type(name, int4, int4) IS 'internal: a type with the modifier that binds it to a keyring';

-- The type that the column is to get. Fails where the role lacks a privilege, or the KMS does not answer, before anything is changed.
CREATE OR REPLACE FUNCTION pgseal.migration_type(target_table regclass, target_column name, keyring text, to_encrypted boolean) RETURNS text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old_type oid := (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column AND NOT a.attisdropped);
    base text;
BEGIN
    PERFORM pgseal.migration_column(target_table, target_column);
    PERFORM pgseal.require_owner(target_table), pgseal.refuse_distributed(target_table);
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = target_table), 'USAGE') THEN
        RAISE EXCEPTION 'must be owner of table %', target_table USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT to_encrypted THEN
        base := CASE old_type WHEN pgseal.own_type('encrypted_jsonb') THEN 'jsonb' WHEN pgseal.own_type('encrypted_text') THEN 'text'
                              WHEN pgseal.own_type('encrypted_vector')
                              THEN format_type(pgseal.vector_type('vector'), nullif(pgseal.declared_dimensions(target_table, target_column), 0)) END;
        IF base IS NULL THEN
            RAISE EXCEPTION 'column "%" of % is not encrypted but of type %', target_column, target_table, old_type::regtype
                USING ERRCODE = 'wrong_object_type', HINT = 'Its type must be encrypted_jsonb, encrypted_text or encrypted_vector.';
        END IF;
        -- One value shows whether the KMS answers; a table may be empty, and then only the grants can tell.
        PERFORM pgseal.confined(format('SELECT count(pgseal.decrypt(v)) FROM (SELECT %1$I FROM %2$s WHERE %1$I IS NOT NULL LIMIT 1) one (v)', target_column, target_table));
        IF current_setting('is_superuser') <> 'on' AND NOT EXISTS (
            SELECT FROM pgseal.privilege g JOIN pg_attribute a ON a.attrelid = target_table AND a.attname = target_column
             WHERE g.decrypt AND g.keyring = coalesce(pgseal.keyring_of_typmod(old_type, a.atttypmod), g.keyring) AND (g.role = 0 OR pg_has_role(g.role, 'USAGE'))) THEN
            RAISE EXCEPTION 'no decrypt privilege on the keyring of column "%" of %', target_column, target_table
                USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT pgseal.grant_keyring(keyring, role, ARRAY[''decrypt'']).';
        END IF;
        RETURN base;
    END IF;
    base := CASE WHEN old_type IN ('jsonb'::regtype, 'json'::regtype) THEN 'encrypted_jsonb'
                 WHEN old_type IN ('text'::regtype, 'varchar'::regtype) THEN 'encrypted_text'
                 WHEN old_type IN (pgseal.vector_type('vector'), pgseal.vector_type('halfvec')) THEN 'encrypted_vector' END;
    IF base IS NULL THEN
        RAISE EXCEPTION 'column "%" of % is of type %', target_column, target_table, old_type::regtype
            USING ERRCODE = 'wrong_object_type', HINT = 'encrypt_column takes jsonb, json, text, varchar, vector and halfvec.';
    END IF;
    -- Both privileges are needed: every row is read back.
    RETURN (SELECT pgseal.bound_type(base, pgseal.keyring_id(probe.value), pgseal.declared_dimensions(target_table, target_column))
              FROM (SELECT pgseal.encrypt('{}'::jsonb, keyring) AS value OFFSET 0) probe
             WHERE pgseal.decrypt(probe.value) = '{}');
END $$;

CREATE OR REPLACE FUNCTION pgseal.text_names(text, name) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN $1 ~* ('\m' || regexp_replace($2, '(\W)', '\\\1', 'g') || '\M');

-- An object as a person names it.
CREATE FUNCTION pgseal.describe(class oid, id oid, part int4) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN CASE WHEN class = 'pg_rewrite'::regclass
           THEN (SELECT format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE format('rule %I of', w.rulename) END, c.oid::regclass)
                   FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = id)
           ELSE pg_describe_object(class, id, part) END;
COMMENT ON FUNCTION pgseal.describe(oid, oid, int4) IS 'internal: the name of an object';

-- The types whose values hold rows of a table or its partitions: arrays, domains, composites, ranges, nested to any depth.
CREATE FUNCTION pgseal.row_types(target_table regclass) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE made (oid) AS (
        SELECT c.reltype FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t
        UNION
        SELECT t.oid FROM made m JOIN pg_type t
            ON t.typbasetype = m.oid OR t.typelem = m.oid
            OR (t.typtype = 'c' AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.atttypid = m.oid AND NOT a.attisdropped))
            OR EXISTS (SELECT FROM pg_range r WHERE r.rngsubtype = m.oid AND t.oid IN (r.rngtypid, r.rngmultitypid))
    ) SELECT oid FROM made
$$;
COMMENT ON FUNCTION pgseal.row_types(regclass) IS 'internal: types whose values hold rows of a table';

-- What uses the rows of a table whole: stored rows would lose the column, expressions and functions find another type in it.
CREATE FUNCTION pgseal.row_dependents(target_table regclass) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH made AS MATERIALIZED (SELECT t AS oid FROM pgseal.row_types(target_table) t)
    SELECT pgseal.describe(d.classid, d.objid, d.objsubid) FROM pg_depend d JOIN made m ON d.refobjid = m.oid
     WHERE d.refclassid = 'pg_type'::regclass AND d.deptype IN ('n', 'a')
       AND NOT (d.classid = 'pg_type'::regclass AND d.objid IN (SELECT oid FROM made))
       -- A composite type counts where it is used, a range's constructors with the range.
       AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind = 'c'))
       AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = d.classid AND i.objid = d.objid AND i.deptype = 'i' AND i.refobjid IN (SELECT oid FROM made))
    UNION
    SELECT pgseal.describe(e.class, e.id, 0) FROM pgseal.expression_trees() e
     WHERE e.class <> 'pg_trigger'::regclass
       AND e.tree ~ (SELECT format(':varattno 0 :vartype (%s) ', string_agg(c.reltype::text, '|'))
                       FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t)
$$;
COMMENT ON FUNCTION pgseal.row_dependents(regclass) IS 'internal: what uses the rows of a table whole';

-- What is left of a trigger's code without comments, literals, single columns, and comparisons that take every type.
CREATE FUNCTION pgseal.whole_rows(code text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    pattern text;
BEGIN
    code := regexp_replace(code, '--[^\n]*|/\*.*?\*/', ' ', 'g');
    code := regexp_replace(code, '''[^'']*''', '''''', 'g');
    FOREACH pattern IN ARRAY ARRAY[
        '\(?\m(old|new)(\.\*)?\)?\s*\*(<>|=)\s*\(?(old|new)(\.\*)?\M\)?',
        'to_jsonb\s*\(\s*(old|new)(\.\*)?\s*\)(\s*-\s*''''(::text)?)*\)?\s*(is\s+(not\s+)?distinct\s+from|<>|!=|=)\s*\(?to_jsonb\s*\(\s*(old|new)(\.\*)?\s*\)',
        '\mreturn\s+\(?(coalesce\s*\(\s*)?(old|new)\M(\s*,\s*(old|new)\s*\))?(?!\s*\.)',
        '\m(old|new)\s*\.\s*("[^"]+"|\w+)'
    ] LOOP
        code := regexp_replace(code, pattern, ' ', 'gi');
    END LOOP;
    RETURN code;
END $$;
COMMENT ON FUNCTION pgseal.whole_rows(text) IS 'internal: code of a trigger without what does no harm to encrypted columns';

-- Triggers of a table and their functions that use OLD or NEW whole. Comparisons fail, because ciphertext has no equality of its own.
CREATE FUNCTION pgseal.row_triggers(target_table regclass)
    RETURNS TABLE (object text, compares boolean, of_trigger boolean, function oid)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT DISTINCT u.object, u.code ~* '\m(old|new)\M(\.\*)?\s*\)*\s*(is\s+(not\s+)?distinct\s+from|<>|!=|=)|(distinct\s+from|<>|!=|(?<!:)=)\s*(row\s*)?\(*\s*(old|new)\M|\mexcept\M',
           u.of_trigger, u.function
      FROM (
        SELECT format('trigger %I of %s', t.tgname, t.tgrelid::regclass), pgseal.whole_rows(substring(pg_get_triggerdef(t.oid), ' WHEN (\(.*\)) EXECUTE ')), true, NULL::oid
          FROM pg_trigger t WHERE t.tgrelid IN (SELECT pgseal.migration_tables(target_table)) AND t.tgqual IS NOT NULL
        UNION ALL
        SELECT format('function %s', p.oid::regprocedure),
               concat(pgseal.whole_rows(p.prosrc), CASE WHEN concat(t.tgoldtable, t.tgnewtable) <> '' AND regexp_replace(p.prosrc, 'count\(\*\)', '', 'gi') ~ '\*' THEN ' new' END),
               false, p.oid
          FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_language l ON l.oid = p.prolang
         WHERE t.tgrelid IN (SELECT pgseal.migration_tables(target_table)) AND NOT t.tgisinternal
           AND l.lanname = 'plpgsql' AND t.tgname NOT LIKE '~pgseal\_new\_%'
      ) u (object, code, of_trigger, function)
     WHERE u.code ~* '\m(old|new)\M'
$$;
COMMENT ON FUNCTION pgseal.row_triggers(regclass) IS 'internal: triggers of a table that use whole rows, and whether they compare them';

CREATE FUNCTION pgseal.comparison_hint() RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    RETURN 'compares whole rows, which decrypts an encrypted column, or fails for a role that may not: compare named columns, OLD.* *<> NEW.* (bytes) or to_jsonb(OLD) IS DISTINCT FROM to_jsonb(NEW)';
COMMENT ON FUNCTION pgseal.comparison_hint() IS 'internal: what to write in place of a comparison of rows';

CREATE FUNCTION pgseal.refuse_row_comparisons(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text := (SELECT string_agg(r.object, ', ') FROM pgseal.row_triggers(target_table) r WHERE r.of_trigger AND r.compares);
BEGIN
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'rows of % cannot be updated: %', target_table, found
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'It ' || pgseal.comparison_hint() || '.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_row_comparisons(regclass) IS 'internal: an error where a trigger would make every UPDATE fail';

-- Functions that name the column or the table: PostgreSQL does not record what a function's text names.
CREATE FUNCTION pgseal.naming_functions(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT format('function %s%s', f.id::regprocedure, CASE WHEN r.compares THEN ': ' || pgseal.comparison_hint() WHEN r.function IS NOT NULL THEN ': uses whole rows'
                  WHEN NOT f.names_column THEN ': names the table, whose columns change their order' END)
      FROM (SELECT p.oid, pgseal.text_names(p.prosrc, target_column),
                   EXISTS (SELECT FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t WHERE pgseal.text_names(p.prosrc, c.relname)),
                   EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgrelid IN (SELECT pgseal.migration_tables(target_table)))
              FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
               AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid AND t.tgname LIKE '~pgseal\_new\_%')
               AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
           ) f (id, names_column, names_table, is_trigger)
      LEFT JOIN pgseal.row_triggers(target_table) r ON r.function = f.id
     WHERE f.names_table OR (f.is_trigger AND f.names_column) OR r.function IS NOT NULL
$$;
COMMENT ON FUNCTION pgseal.naming_functions(regclass, name) IS 'internal: functions whose text names a column or its table';

-- What the index of a column is made with once the column is encrypted or decrypted: NULL where nothing takes its place.
CREATE FUNCTION pgseal.migrated_index(target_index regclass, new_column name) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN i.indnatts > 1 OR i.indpred IS NOT NULL OR i.indexprs IS NOT NULL THEN NULL
                WHEN m.amname = 'gin' AND a.atttypid IN ('jsonb'::regtype, pgseal.own_type('encrypted_jsonb')) THEN format('gin (%I)', new_column)
                WHEN m.amname = 'gin' AND a.atttypid = pgseal.own_type('encrypted_text') THEN format('hash (%I)', new_column)
                WHEN m.amname IN ('hnsw', 'ivfflat') AND a.atttypmod BETWEEN 1 AND 4000
                THEN (SELECT format('sealed_ivf (%I %s.%I)', new_column, o.opcnamespace::regnamespace, o.opcname)
                        FROM pg_opclass o JOIN pg_am s ON s.oid = o.opcmethod JOIN pg_opclass old ON old.oid = i.indclass[0]
                       WHERE s.amname = 'sealed_ivf' AND o.opcintype = pgseal.own_type('encrypted_vector')
                         AND o.opcname = regexp_replace(old.opcname, '^(vector|halfvec)_', 'encrypted_vector_')) END
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
      LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
     WHERE i.indexrelid = target_index
$$;
COMMENT ON FUNCTION pgseal.migrated_index(regclass, name) IS 'internal: what takes the place of an index of a column that changes its type';

CREATE FUNCTION pgseal.index_obstacles(target_table regclass, target_column name, relation regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    here pg_attribute;
BEGIN
    SELECT * INTO here FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = target_column;
    RETURN QUERY
        SELECT format('index %s, %s: %s', i.indexrelid::regclass,
                      CASE WHEN m.amname = 'sealed_ivf' THEN 'which holds codes of encrypted vectors: drop it, and afterwards make one of hnsw or ivfflat'
                           WHEN here.atttypid = ANY (pgseal.value_types()) THEN 'which is on ciphertext'
                           WHEN m.amname IN ('hnsw', 'ivfflat')
                           THEN 'in whose place sealed_ivf can stand only where the column has dimensions, for <->, <=> and <#>, and without a condition'
                           ELSE 'which cannot be built on ciphertext' END, pg_get_indexdef(i.indexrelid))
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am m ON m.oid = c.relam
         WHERE i.indrelid = relation
           AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                          AND d.refobjid = relation AND d.refobjsubid = here.attnum)
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
           AND (pgseal.migrated_index(i.indexrelid, target_column) IS NULL OR (relation <> target_table AND NOT c.relispartition));
    RETURN QUERY
        SELECT format('index %s: one index of the column is built anew, this is another: %s', i.indexrelid::regclass, pg_get_indexdef(i.indexrelid))
          FROM pg_index i WHERE i.indrelid = relation AND i.indkey[0] = here.attnum
           AND EXISTS (SELECT FROM pg_index o WHERE o.indrelid = relation AND o.indkey[0] = here.attnum AND o.indexrelid < i.indexrelid);
END $$;
COMMENT ON FUNCTION pgseal.index_obstacles(regclass, name, regclass) IS 'internal: indexes that keep a column from being encrypted or decrypted';

CREATE FUNCTION pgseal.trigger_obstacles(target_table regclass, target_column name, relation regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    own_trigger name := '~' || pgseal.migration_column(target_table, target_column);
BEGIN
    RETURN QUERY
        SELECT format('trigger %I of %s runs after the trigger that encrypts: rename it', t.tgname, relation)
          FROM pg_trigger t WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgtype & 3 = 3 AND t.tgname !~ '^~pgseal_new_\d+$'
           AND t.tgname::text COLLATE "C" > own_trigger::text COLLATE "C";
    RETURN QUERY
        SELECT format('trigger %I of %s has the column among its arguments', t.tgname, relation)
          FROM pg_trigger t WHERE t.tgrelid = relation AND NOT t.tgisinternal AND t.tgname <> own_trigger
           AND target_column::text = ANY (string_to_array(encode(t.tgargs, 'escape'), '\000'));
END $$;
COMMENT ON FUNCTION pgseal.trigger_obstacles(regclass, name, regclass) IS 'internal: triggers that keep a column from being encrypted or decrypted';

-- What would be lost, or cannot be done, at one of a table's partitions or the table itself.
CREATE FUNCTION pgseal.table_obstacles(target_table regclass, target_column name, relation regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    main pg_attribute;
    here pg_attribute;
BEGIN
    SELECT * INTO main FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column;
    SELECT * INTO here FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = target_column;
    IF (SELECT c.relkind = 'f' FROM pg_class c WHERE c.oid = relation) THEN
        RETURN NEXT format('foreign table %s', relation);
    END IF;
    IF row_security_active(relation) THEN
        RETURN NEXT format('row-level security of %s hides rows from this role', relation);
    END IF;
    IF here.attgenerated <> '' THEN
        RETURN NEXT format('column %I of %s is generated', target_column, relation);
    END IF;
    IF here.attcollation NOT IN (0, 'pg_catalog."default"'::regcollation) THEN
        RETURN NEXT format('column %I of %s has the collation %s, which encrypted_text cannot honour: ALTER COLUMN ... TYPE text COLLATE "default" where that will do',
                           target_column, relation, here.attcollation::regcollation);
    END IF;
    IF here.attnotnull AND NOT main.attnotnull THEN
        RETURN NEXT format('column %I is NOT NULL in the partition %s only', target_column, relation);
    END IF;
    IF relation <> target_table AND (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = here.attrelid AND d.adnum = here.attnum)
        IS DISTINCT FROM (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = main.attrelid AND d.adnum = main.attnum) THEN
        RETURN NEXT format('column %I has a DEFAULT of its own in the partition %s', target_column, relation);
    END IF;
    IF EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = relation
                  AND (here.attnum = ANY (p.partattrs) OR (p.partexprs IS NOT NULL AND strpos(pg_get_partkeydef(relation), target_column) > 0))) THEN
        RETURN NEXT format('partition key of %s', relation);
    END IF;
    -- Views, policies, constraints, triggers, generated columns, statistics, publications' column lists, SQL functions.
    RETURN QUERY
        SELECT DISTINCT pgseal.describe(d.classid, d.objid, d.objsubid)
          FROM pg_depend d
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = relation AND d.refobjsubid = here.attnum
           AND NOT (d.classid = 'pg_attrdef'::regclass AND EXISTS (SELECT FROM pg_attrdef f WHERE f.oid = d.objid AND f.adrelid = relation AND f.adnum = here.attnum))
           AND NOT (d.classid = 'pg_class'::regclass AND d.objsubid = 0
                    AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind IN ('i', 'I', 't')))
           AND NOT (d.classid = 'pg_constraint'::regclass AND EXISTS (SELECT FROM pg_constraint c WHERE c.oid = d.objid AND c.contype = 'n'));
    RETURN QUERY
        SELECT format('rule %I of %s changes what an UPDATE does', w.rulename, relation) FROM pg_rewrite w WHERE w.ev_class = relation AND w.ev_type = '2';
    RETURN QUERY SELECT o FROM pgseal.index_obstacles(target_table, target_column, relation) o;
    RETURN QUERY SELECT o FROM pgseal.trigger_obstacles(target_table, target_column, relation) o;
END $$;
COMMENT ON FUNCTION pgseal.table_obstacles(regclass, name, regclass)
    IS 'internal: what of one table or partition keeps a column from being encrypted or decrypted';

-- What stands in the way, one line each.
CREATE OR REPLACE FUNCTION pgseal.migration_obstacles(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    relation pg_class;
BEGIN
    SELECT * INTO relation FROM pg_class c WHERE c.oid = target_table;
    IF relation.relkind NOT IN ('r', 'p') OR relation.reloftype <> 0 THEN
        RETURN NEXT format('%s is not an ordinary or partitioned table', target_table);
        RETURN;
    END IF;
    IF relation.relispartition THEN
        RETURN NEXT format('%s is a partition: name the partitioned table', target_table);
    END IF;
    IF EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = target_table OR i.inhparent = target_table) AND relation.relkind = 'r'
        AND NOT relation.relispartition
    THEN
        RETURN NEXT format('%s has part in inheritance', target_table);
    END IF;
    IF NOT has_schema_privilege(relation.relnamespace, 'CREATE') THEN
        RETURN NEXT format('the role may not create a trigger function in schema %s', relation.relnamespace::regnamespace);
    END IF;
    RETURN QUERY SELECT o FROM pgseal.migration_tables(target_table) t, pgseal.table_obstacles(target_table, target_column, t) o;
    RETURN QUERY SELECT o FROM pgseal.row_dependents(target_table) o WHERE o NOT LIKE 'function %';
    RETURN QUERY SELECT concat_ws(' ', r.object, CASE WHEN r.compares THEN pgseal.comparison_hint() ELSE 'uses whole rows' END)
                   FROM pgseal.row_triggers(target_table) r WHERE r.of_trigger;
    RETURN QUERY SELECT format('publication %I: its subscribers need column %I too', p.pubname, new_column)
        FROM pg_publication p WHERE p.puballtables OR EXISTS (SELECT FROM pg_publication_tables t
            JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relname = t.tablename AND c.relnamespace = n.oid
           WHERE t.pubname = p.pubname AND c.oid IN (SELECT pgseal.migration_tables(target_table)));
    RETURN QUERY
        SELECT f.function FROM (SELECT pgseal.naming_functions(target_table, target_column)
                                UNION ALL SELECT o || ': takes, returns or uses whole rows' FROM pgseal.row_dependents(target_table) o WHERE o LIKE 'function %') f (function);
END $$;

CREATE FUNCTION pgseal.obstacles_left(target_table regclass, target_column name, ignore text[]) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT o FROM pgseal.migration_obstacles(target_table, target_column) o
     WHERE NOT (o ~ '^(function|publication) ' AND EXISTS (SELECT FROM unnest(ignore) i WHERE o = i OR starts_with(o, i || ':')))
$$;
COMMENT ON FUNCTION pgseal.obstacles_left(regclass, name, text[]) IS 'internal: obstacles to a migration without those that do no harm';

CREATE OR REPLACE FUNCTION pgseal.check_migration(target_table regclass, target_column name, ignore text[]) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text[] := ARRAY(SELECT o FROM pgseal.obstacles_left(target_table, target_column, ignore) o ORDER BY 1);
BEGIN
    IF found <> '{}' THEN
        RAISE EXCEPTION 'column "%" of % cannot change its type while other objects need it', target_column, target_table
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = array_to_string(found, E'\n'),
                  HINT = 'Nothing was changed. Drop or change them and make them again afterwards. A function or publication that does '
                      'no harm goes into ignore => ARRAY[...] as it is written here (a publication without the reason).';
    END IF;
END $$;

-- The old index to be replaced, and what is to be typed for it; no row where nothing is left to do.
CREATE OR REPLACE FUNCTION pgseal.migration_commands(target_table regclass, target_column name) RETURNS SETOF text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    new_index name := format('%s_of_%s', new_column, target_table::oid);
    old_index regclass;
    made_with text;
    relation pg_class;
    part record;
    options text;
    valid boolean;
BEGIN
    SELECT c.* INTO relation FROM pg_class c WHERE c.oid = target_table;
    old_index := (SELECT i.indexrelid FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = target_table AND a.attname = target_column ORDER BY i.indexrelid LIMIT 1);
    IF old_index IS NULL THEN
        RETURN;
    END IF;
    valid := (SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = target_table AND c.relname = new_index);
    IF valid THEN
        RETURN;
    END IF;
    made_with := pgseal.migrated_index(old_index, new_column);
    SELECT concat(CASE WHEN made_with LIKE 'gin %' THEN ' WITH (' || array_to_string(c.reloptions, ', ') || ')' END,
                  (SELECT format(' TABLESPACE %I', s.spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace)) INTO options
      FROM pg_class c WHERE c.oid = old_index;
    IF relation.relkind = 'r' THEN
        IF NOT valid THEN
            RETURN NEXT format('DROP INDEX CONCURRENTLY %s.%I', relation.relnamespace::regnamespace, new_index);
        END IF;
        RETURN NEXT format('CREATE INDEX CONCURRENTLY %I ON %s USING %s%s', new_index, target_table, made_with, options);
        RETURN;
    END IF;
    -- PostgreSQL builds no index of a partitioned table concurrently: its partitions', one by one.
    IF valid IS NULL THEN
        RETURN NEXT format('CREATE INDEX %I ON ONLY %s USING %s%s', new_index, target_table, made_with, options);
    END IF;
    FOR part IN
        SELECT t.relid, t.isleaf, c.relnamespace::regnamespace AS schema, p.relnamespace::regnamespace AS parent_schema, format('%s_%s', new_index, t.relid::oid) AS index,
               CASE t.parentrelid WHEN target_table THEN new_index ELSE format('%s_%s', new_index, t.parentrelid::oid) END AS parent_index
          FROM pg_partition_tree(target_table) t JOIN pg_class c ON c.oid = t.relid JOIN pg_class p ON p.oid = t.parentrelid
         WHERE t.relid <> target_table ORDER BY t.level, t.relid
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid WHERE c.relname = part.index);
        RETURN NEXT format('CREATE INDEX %s %I ON %s%s USING %s%s', CASE WHEN part.isleaf THEN 'CONCURRENTLY' END, part.index,
                           CASE WHEN NOT part.isleaf THEN 'ONLY ' END, part.relid, made_with, options);
        RETURN NEXT format('ALTER INDEX %s.%I ATTACH PARTITION %s.%I', part.parent_schema, part.parent_index, part.schema, part.index);
    END LOOP;
END $$;

CREATE FUNCTION pgseal.refuse_other_owner(relation oid) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = relation), current_user, 'USAGE') THEN
        RAISE EXCEPTION '% has another owner since the migration of its column began', relation::regclass
            USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT pgseal.abandon_migration(table, column), and begin again.';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.refuse_other_owner(oid) IS 'internal: keeps the trigger of a migration from working for another owner than its own';

CREATE OR REPLACE FUNCTION pgseal.start_migration(target_table regclass, target_column name, new_type text, to_encrypted boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    function text := (SELECT format('%s.%I', c.relnamespace::regnamespace, format('%s_of_%s', new_column, target_table::oid)) FROM pg_class c WHERE c.oid = target_table);
BEGIN
    EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', target_table, new_column, new_type);
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', target_table, new_column, format('column %I in its new type, while pgseal fills it', target_column));
    -- SECURITY DEFINER, so that no writer fails who lacks encrypt before the swap; nobody else can make a trigger of it. A later owner
    -- of the table could have it run code, by the column's types.
    EXECUTE format('CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L', function,
        format('BEGIN PERFORM pgseal.refuse_other_owner(TG_RELID); NEW.%1$I := %2$s; RETURN NEW; END', new_column,
               format(CASE WHEN to_encrypted THEN 'NEW.%I' ELSE 'pgseal.decrypt(NEW.%I)' END, target_column)));
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s() FROM PUBLIC', function);
    EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()', '~' || new_column, target_table, function);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', target_table, '~' || new_column);
    IF (SELECT a.attnotnull FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column) THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%2$I IS NOT NULL) NOT VALID', target_table, new_column);
    END IF;
END $$;

-- Changes with whatever is done to the triggers, so that none was switched off for a while.
CREATE OR REPLACE FUNCTION pgseal.migration_trigger(target_table regclass, target_column name) RETURNS text
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT string_agg(format('%s %s', t.oid, t.xmin), ' ' ORDER BY t.oid) FROM pg_trigger t
             WHERE t.tgrelid IN (SELECT pgseal.migration_tables(target_table)) AND t.tgenabled = 'A'
               AND t.tgname = '~' || pgseal.migration_column(target_table, target_column)
            HAVING count(*) = (SELECT count(*) FROM pgseal.migration_tables(target_table)));

-- Privileges, comment, security labels and settings of the old column go to the new one, in one table or partition.
CREATE FUNCTION pgseal.carry_over(relation regclass, old_column name, new_column name) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old pg_attribute;
    alter_column text := format('ALTER TABLE ONLY %s ALTER COLUMN %I ', relation, new_column);
    options text;
    acl record;
    label record;
BEGIN
    SELECT * INTO old FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = old_column;
    FOR acl IN SELECT x.privilege_type, x.is_grantable, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee FROM aclexplode(old.attacl) x LOOP
        EXECUTE format('GRANT %s (%I) ON %s TO %s %s', acl.privilege_type, new_column, relation, acl.grantee, CASE WHEN acl.is_grantable THEN 'WITH GRANT OPTION' END);
    END LOOP;
    EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, new_column, col_description(relation, old.attnum));
    FOR label IN SELECT l.provider, l.label FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = relation AND l.objsubid = old.attnum LOOP
        EXECUTE format('SECURITY LABEL FOR %I ON COLUMN %s.%I IS %L', label.provider, relation, new_column, label.label);
    END LOOP;
    IF old.attstattarget >= 0 THEN
        EXECUTE alter_column || format('SET STATISTICS %s', old.attstattarget);
    END IF;
    IF old.attstorage <> (SELECT t.typstorage FROM pg_type t WHERE t.oid = old.atttypid) THEN
        EXECUTE alter_column || format('SET STORAGE %s', CASE old.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END);
    END IF;
    IF old.attcompression <> '' THEN
        EXECUTE alter_column || format('SET COMPRESSION %s', CASE old.attcompression WHEN 'l' THEN 'lz4' ELSE 'pglz' END);
    END IF;
    options := (SELECT string_agg(o, ', ') FROM unnest(old.attoptions) o WHERE o LIKE 'n\_distinct%');
    IF options IS NOT NULL THEN
        EXECUTE alter_column || format('SET (%s)', options);
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.carry_over(regclass, name, name) IS 'internal: what belongs to the old column goes to the new one';

CREATE OR REPLACE FUNCTION pgseal.finish_migration(target_table regclass, target_column name, to_encrypted boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    -- Not by its name: the table may have moved to another schema or come from a dump.
    function text := (SELECT t.tgfoid::regprocedure FROM pg_trigger t WHERE t.tgrelid = target_table AND t.tgname = '~' || new_column);
    old pg_attribute;
    default_value text;
    new_type oid;
    old_index name;
    index_comment text;
    new_index name := format('%s_of_%s', new_column, target_table::oid);
BEGIN
    SELECT * INTO old FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column;
    default_value := (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d WHERE d.adrelid = target_table AND d.adnum = old.attnum);
    SELECT c.relname, obj_description(c.oid, 'pg_class') INTO old_index, index_comment FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = target_table AND i.indkey[0] = old.attnum ORDER BY c.oid LIMIT 1;
    PERFORM pgseal.carry_over(t, target_column, new_column) FROM pgseal.migration_tables(target_table) t;
    EXECUTE format('DROP TRIGGER %I ON %s', '~' || new_column, target_table);
    EXECUTE format('DROP FUNCTION %s', function);
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', target_table, target_column);
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', target_table, new_column, target_column);
    new_type := (SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
    IF old.attnotnull THEN
        PERFORM pgseal.confined(format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', target_table, target_column));
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', target_table, new_column);
    END IF;
    IF default_value IS NOT NULL THEN
        -- A literal that was sealed when it was typed; nothing else is evaluated, for it may call a function.
        IF default_value ~ format('^''pgseal:[^'']*''::(%s)(\(\d+(,\d+)?\))?$', replace(array_to_string(pgseal.value_types()::regtype[], '|'), '.', '\.')) THEN
            EXECUTE format('SELECT quote_literal(pgseal.decrypt(%s)::text)', default_value) INTO default_value;
        ELSE
            default_value := format('(%s)::%s', default_value, CASE WHEN old.atttypid = 'json'::regtype OR 'jsonb'::regtype IN (old.atttypid, new_type) THEN 'jsonb'
                WHEN pgseal.own_type('encrypted_vector') IN (old.atttypid, new_type) THEN pgseal.vector_type('vector')::regtype::text ELSE 'text' END);
        END IF;
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', target_table, target_column, default_value);
    END IF;
    IF old_index IS NOT NULL THEN
        EXECUTE format('ALTER INDEX %s.%I RENAME TO %I',
                       (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target_table), new_index, old_index);
        EXECUTE format('COMMENT ON INDEX %s.%I IS %L', (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target_table), old_index, index_comment);
    END IF;
END $$;

-- Who will be refused once the column is encrypted.
CREATE OR REPLACE FUNCTION pgseal.migration_roles(target_table regclass, target_column name, new_type text) RETURNS SETOF text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format('%s (%s)', r.rolname, concat_ws(', ',
               CASE WHEN writes AND NOT coalesce(encrypts, false) THEN 'encrypt' END, CASE WHEN reads AND NOT coalesce(decrypts, false) THEN 'decrypt' END))
      FROM pg_roles r
      CROSS JOIN LATERAL (SELECT has_column_privilege(r.oid, target_table, target_column, 'INSERT, UPDATE'),
                                 has_column_privilege(r.oid, target_table, target_column, 'SELECT')) p (writes, reads)
      CROSS JOIN LATERAL (SELECT bool_or(g.encrypt), bool_or(g.decrypt) FROM pgseal.privilege g
                           WHERE g.keyring = substring(new_type FROM '\((\d+)(,\d+)?\)$')::int4
                             AND (g.role = 0 OR pg_has_role(r.oid, g.role, 'USAGE'))) k (encrypts, decrypts)
     WHERE NOT r.rolsuper AND r.rolname !~ '^pg_'
       AND ((writes AND NOT coalesce(encrypts, false)) OR (reads AND NOT coalesce(decrypts, false)))
     ORDER BY 1;
END;

-- What a migration would do, or, where one is half done, whether it can go on: before anything is changed.
CREATE FUNCTION pgseal.prepare_migration(target_table regclass, target_column name, new_type text, to_encrypted boolean,
        batch_size int4, dry_run boolean, ignore text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_column name := pgseal.migration_column(target_table, target_column);
    is_started boolean := pgseal.migration_started(target_table, target_column);
    found_type text;
    one text;
BEGIN
    IF batch_size IS NULL OR batch_size < 1 THEN
        RAISE EXCEPTION 'batch_size must be at least 1' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT is_started THEN
        PERFORM pgseal.check_migration(target_table, target_column, ignore);
    END IF;
    IF to_encrypted THEN
        FOR one IN SELECT pgseal.migration_roles(target_table, target_column, new_type) LOOP
            RAISE NOTICE 'role % uses the column and has no such privilege on the keyring', one
                USING HINT = 'SELECT pgseal.grant_keyring(keyring, role, ARRAY[...]) before the names are swapped.';
        END LOOP;
    END IF;
    IF to_encrypted AND pgseal.is_json(target_table, target_column) THEN
        RAISE NOTICE 'documents of %.% are kept as jsonb keeps them: without spacing, the order of keys, and keys that come twice', target_table, quote_ident(target_column);
    END IF;
    IF is_started THEN
        found_type := (SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = new_column);
        IF found_type <> new_type AND NOT new_type LIKE '%.' || found_type THEN
            RAISE EXCEPTION 'column "%" of % is on its way to type %', target_column, target_table, found_type
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'Go on with that keyring, or SELECT pgseal.abandon_migration(table, column).';
        END IF;
        IF pgseal.migration_trigger(target_table, target_column) IS NULL THEN
            RAISE EXCEPTION 'the trigger "%" of % is missing or switched off', '~' || new_column, target_table
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'SELECT pgseal.abandon_migration(table, column), and begin again.';
        END IF;
    END IF;
    IF NOT dry_run THEN
        RETURN;
    END IF;
    IF is_started THEN
        RAISE NOTICE 'going on with what an earlier call began';
    ELSE
        RAISE NOTICE 'add column % of type %, and a trigger that fills it for every writer', quote_ident(new_column), new_type;
    END IF;
    -- -1 where nobody has counted.
    RAISE NOTICE 'fill % in committed batches of about %',
        (SELECT CASE WHEN min(c.reltuples) < 0 THEN 'all rows (ANALYZE has not counted them yet)' ELSE format('about %s rows', sum(c.reltuples)) END
           FROM pgseal.migration_tables(target_table) t JOIN pg_class c ON c.oid = t WHERE c.relkind = 'r'), batch_size;
    FOR one IN SELECT pgseal.migration_commands(target_table, target_column) LOOP
        RAISE NOTICE 'wait for you to run: %', one;
    END LOOP;
    RAISE NOTICE 'compare every row, then drop %, and give the new column its name, NOT NULL and DEFAULT; it will be the last column',
        format('%s.%I', target_table, target_column);
END $$;
COMMENT ON FUNCTION pgseal.prepare_migration(regclass, name, text, boolean, int4, boolean, text[]) IS 'internal: what a migration would do, and whether it can';

-- Under the lock: the second column and its trigger, where no other session has made them.
CREATE FUNCTION pgseal.begin_migration(target_table regclass, target_column name, new_column name, new_type text, to_encrypted boolean, ignore text[])
    RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pgseal.migration_started(target_table, target_column) OR pgseal.migration_column(target_table, target_column) <> new_column THEN
        RAISE EXCEPTION 'another session migrates column "%" of %, or has done it', target_column, target_table
            USING ERRCODE = 'object_in_use', HINT = 'Where it has ended before the swap, call again: it goes on where it was.';
    END IF;
    PERFORM pgseal.check_migration(target_table, target_column, ignore);
    PERFORM pgseal.start_migration(target_table, target_column, new_type, to_encrypted);
END $$;
COMMENT ON FUNCTION pgseal.begin_migration(regclass, name, name, text, boolean, text[]) IS 'internal: start_migration, unless another session has done it';

-- Have some pages the same values in both columns?
CREATE FUNCTION pgseal.compare_columns(leaf regclass, target_column name, new_column name, to_encrypted boolean, start tid, stop tid) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    differing text;
BEGIN
    differing := pgseal.confined(format(
        'SELECT CASE WHEN count(*) > 0 THEN format(''%%s rows of %%s do not have the same value in both columns, the first at %%s'', count(*), %4$L, min(ctid)) END FROM ONLY %1$s WHERE ctid >= $1 AND ctid < $2
            AND (%2$s)::text COLLATE "C" IS DISTINCT FROM (%3$s)::text COLLATE "C"', leaf,
        format(CASE WHEN NOT to_encrypted THEN 'pgseal.decrypt(%I)' WHEN pgseal.is_json(leaf, target_column) THEN '%I::pg_catalog.jsonb' ELSE '%I' END, target_column),
        format(CASE WHEN to_encrypted THEN 'pgseal.decrypt(%I)' ELSE '%I' END, new_column), leaf), start, stop);
    IF differing IS NOT NULL THEN
        RAISE EXCEPTION '%', differing
            USING ERRCODE = 'data_corrupted', HINT = 'Nothing was swapped. Call again, if a partition was attached meanwhile. Does a trigger keep rows from being updated?';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.compare_columns(regclass, name, name, boolean, tid, tid)
    IS 'internal: an error where the two columns of a migration differ in some pages';

-- Rather too few pages where nobody has counted the rows yet.
CREATE FUNCTION pgseal.pages_of_batch(leaf regclass, batch_size int4) RETURNS int8
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN (SELECT greatest(1, batch_size / greatest(1, CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 50 END::int8))
              FROM pg_class c WHERE c.oid = leaf);
COMMENT ON FUNCTION pgseal.pages_of_batch(regclass, int4) IS 'internal: how many pages of a table hold about so many rows, rather too few';
CREATE FUNCTION pgseal.pages_of(leaf regclass) RETURNS int8
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    RETURN pg_relation_size(leaf) / current_setting('block_size')::int8;
COMMENT ON FUNCTION pgseal.pages_of(regclass) IS 'internal: how many pages a table has';
CREATE FUNCTION pgseal.is_constrained(target_table regclass, new_column name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = target_table AND c.conname = new_column);
COMMENT ON FUNCTION pgseal.is_constrained(regclass, name) IS 'internal: is there a constraint that stands for NOT NULL of the old column?';

-- The swap, where the trigger has been at work all the time.
CREATE FUNCTION pgseal.end_migration(target_table regclass, target_column name, to_encrypted boolean, trigger_before text, ignore text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF trigger_before IS DISTINCT FROM pgseal.migration_trigger(target_table, target_column) OR trigger_before IS NULL THEN
        RAISE EXCEPTION 'the trigger "%" of % was changed meanwhile', '~' || pgseal.migration_column(target_table, target_column), target_table
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Nothing was swapped. SELECT pgseal.abandon_migration(table, column), and begin again.';
    END IF;
    PERFORM pgseal.check_migration(target_table, target_column, ignore);
    PERFORM pgseal.finish_migration(target_table, target_column, to_encrypted);
END $$;
COMMENT ON FUNCTION pgseal.end_migration(regclass, name, boolean, text, text[]) IS 'internal: finish_migration, unless something was changed meanwhile';

-- Once for all columns that were encrypted.
CREATE FUNCTION pgseal.report_plaintext(target_table regclass) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE NOTICE 'rows of % hold the old plaintext on disk, invisibly, until they are written anew', target_table
        USING HINT = 'VACUUM FULL ' || target_table || ' rewrites them under a lock, pg_repack without one; then VACUUM pg_catalog.pg_statistic for dead statistics.';
    RAISE NOTICE 'WAL, its archive, replicas that lag, older backups and dumps hold the old plaintext too'
        USING HINT = 'Take a new base backup after VACUUM FULL, and let the older ones expire or destroy them.';
END $$;
COMMENT ON FUNCTION pgseal.report_plaintext(regclass) IS 'internal: NOTICEs about what is left of a table''s plaintext';

-- The setting of encrypt_table goes with the last encrypted vectors.
CREATE FUNCTION pgseal.release_vectors(target_table regclass) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leaf regclass;
BEGIN
    FOR leaf IN
        SELECT c.oid FROM unnest(pgseal.tables_of(target_table)) t JOIN pg_class c ON c.oid = t
         WHERE EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'toast_tuple_target' AND o.option_value = '8160')
           AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped AND pgseal.base_type(a.atttypid) = pgseal.own_type('encrypted_vector'))
    LOOP
        EXECUTE format('ALTER TABLE %s RESET (toast_tuple_target)', leaf);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.release_vectors(regclass) IS 'internal: a table without encrypted vectors stores its rows as others do';

CREATE FUNCTION pgseal.report_migration(target_table regclass, target_column name, new_type text, to_encrypted boolean, total int8, started timestamptz)
    RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := format('%s.%I', target_table, target_column);
BEGIN
    RAISE NOTICE '% is of type % now, after % rows in % s; it is the last column of its table', name, new_type, total, pgseal.seconds_since(started)
        USING HINT = 'INSERT and COPY without a list of columns follow the new order. ANALYZE ' || target_table || ' makes statistics anew; the old column''s are gone.';
    IF new_type ~ '(^|\.)vector(\(|$)' THEN
        RAISE NOTICE '% is of type vector even if it was of halfvec before it was encrypted', name
            USING HINT = 'ALTER TABLE ... ALTER COLUMN ... TYPE halfvec(dimensions), where it was.';
    END IF;
    IF NOT to_encrypted THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
                WHERE d.adrelid = target_table AND a.attname = target_column) THEN
        RAISE NOTICE 'the DEFAULT of % is plaintext in the catalog, and is sealed for each row', name;
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.report_migration(regclass, name, text, boolean, int8, timestamptz) IS 'internal: NOTICEs at the end of a migration';

-- The procedures run with their caller's search_path, because they commit, and because the table's triggers expect it. So all
-- that they name, types and operators too, is qualified.
CREATE OR REPLACE PROCEDURE pgseal.migrate_column(target_table regclass, target_column name, new_type text, to_encrypted boolean,
        batch_size int4, dry_run boolean, ignore text[])
    LANGUAGE plpgsql AS $$
DECLARE
    new_column pg_catalog.name := pgseal.migration_column(target_table, target_column);
    total pg_catalog.int8 := 0;
    trigger_before pg_catalog.text;
    commands pg_catalog.text[];
    started pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    PERFORM pgseal.prepare_migration(target_table, target_column, new_type, to_encrypted, batch_size, dry_run, ignore);
    IF dry_run THEN
        RETURN;
    END IF;

    -- Where this is not the default, an update of another session would end the run, and what is read under the last lock be old.
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
    IF NOT pgseal.migration_started(target_table, target_column) THEN
        CALL pgseal.migration_lock(target_table, 'Nothing was changed. pg_locks shows who holds it; call again.');
        PERFORM pgseal.begin_migration(target_table, target_column, new_column, new_type, to_encrypted, ignore);
        COMMIT AND CHAIN;
    END IF;
    CALL pgseal.migration_fill(target_table, target_column, new_column, batch_size, total);
    commands := ARRAY(SELECT pgseal.migration_commands(target_table, target_column));
    IF commands[1] IS NOT NULL THEN
        RAISE NOTICE '% rows of %.% filled; its index is still to be built, which PostgreSQL does not do concurrently inside a procedure',
            total, target_table, pg_catalog.quote_ident(target_column)
            USING HINT = pg_catalog.format(E'Run this, then call again:\n%s;', pg_catalog.array_to_string(commands, E';\n'));
        RETURN;
    END IF;

    trigger_before := pgseal.migration_trigger(target_table, target_column);
    CALL pgseal.migration_verify(target_table, target_column, new_column, to_encrypted, batch_size);
    IF pgseal.is_constrained(target_table, new_column) THEN
        EXECUTE pg_catalog.format('ALTER TABLE %s VALIDATE CONSTRAINT %I', target_table, new_column);
        COMMIT AND CHAIN;
    END IF;
    CALL pgseal.migration_lock(target_table, 'All rows are filled. pg_locks shows who holds the table; call again for the swap.');
    PERFORM pgseal.end_migration(target_table, target_column, to_encrypted, trigger_before, ignore);
    COMMIT AND CHAIN;
    PERFORM pgseal.report_migration(target_table, target_column, new_type, to_encrypted, total, started);
END $$;

-- A lock on a table that others use, in many short tries.
CREATE PROCEDURE pgseal.migration_lock(target_table regclass, hint text)
    LANGUAGE plpgsql AS $$
DECLARE
    tries CONSTANT pg_catalog.int4 := 30;
BEGIN
    FOR attempt IN 1..tries LOOP
        IF pgseal.lock_for_migration(target_table) THEN
            RETURN;
        END IF;
        COMMIT AND CHAIN;
        PERFORM pg_catalog.pg_sleep(attempt OPERATOR(pg_catalog./) 10.0);
    END LOOP;
    RAISE EXCEPTION '% is in use all the time', target_table USING ERRCODE = 'lock_not_available', HINT = hint;
END $$;
COMMENT ON PROCEDURE pgseal.migration_lock(regclass, text) IS 'internal: locks a table, or an error with this hint';

-- The trigger fills what an UPDATE touches.
CREATE PROCEDURE pgseal.migration_fill(target_table regclass, target_column name, new_column name, batch_size int4, INOUT total int8)
    LANGUAGE plpgsql AS $$
DECLARE
    leaf pg_catalog.regclass;
    fill pg_catalog.text;
    page pg_catalog.int8;
    pages pg_catalog.int8;
    step pg_catalog.int8;
    changed pg_catalog.int8;
    report_due pg_catalog.timestamptz := pgseal.next_notice();
BEGIN
    FOREACH leaf IN ARRAY pgseal.tables_of(target_table) LOOP
        fill := pg_catalog.format(
            'UPDATE ONLY %1$s SET %2$I = NULL
              WHERE ctid OPERATOR(pg_catalog.>=) $1 AND ctid OPERATOR(pg_catalog.<) $2 AND %3$I IS NOT NULL AND %2$I IS NULL',
            leaf, new_column, target_column);
        step := pgseal.pages_of_batch(leaf, batch_size);
        pages := pgseal.pages_of(leaf);
        page := 0;
        WHILE page OPERATOR(pg_catalog.<) pages LOOP
            changed := pgseal.confined(fill, pgseal.start_of_page(page), pgseal.start_of_page(page OPERATOR(pg_catalog.+) step));
            total := total OPERATOR(pg_catalog.+) changed;
            COMMIT AND CHAIN;
            page := page OPERATOR(pg_catalog.+) step;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                RAISE NOTICE '%: fill, page % of %', leaf, least(page, pages), pages;
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.migration_fill(regclass, name, name, int4, int8) IS 'internal: fills the second column, batch by batch';

CREATE PROCEDURE pgseal.migration_verify(target_table regclass, target_column name, new_column name, to_encrypted boolean, batch_size int4)
    LANGUAGE plpgsql AS $$
DECLARE
    leaf pg_catalog.regclass;
    page pg_catalog.int8;
    step pg_catalog.int8;
    report_due pg_catalog.timestamptz := pgseal.next_notice();
BEGIN
    -- Looked up again: one may have been attached, with rows that its trigger has not seen.
    FOREACH leaf IN ARRAY pgseal.tables_of(target_table) LOOP
        step := pgseal.pages_of_batch(leaf, batch_size);
        page := 0;
        -- Rows that are updated meanwhile go behind: the trigger fills them, but they are to be compared.
        WHILE page OPERATOR(pg_catalog.<) pgseal.pages_of(leaf) LOOP
            PERFORM pgseal.compare_columns(leaf, target_column, new_column, to_encrypted,
                pgseal.start_of_page(page), pgseal.start_of_page(page OPERATOR(pg_catalog.+) step));
            COMMIT AND CHAIN;
            page := page OPERATOR(pg_catalog.+) step;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                RAISE NOTICE '%: verify, page % of %', leaf, least(page, pgseal.pages_of(leaf)), pgseal.pages_of(leaf);
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON PROCEDURE pgseal.migration_verify(regclass, name, name, boolean, int4) IS 'internal: compares both columns in every row';

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

-- A keyring as JSON: wrapped keys only, which the KMS alone can open.
CREATE OR REPLACE FUNCTION pgseal.export_keyring(keyring text) RETURNS json
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

CREATE OR REPLACE FUNCTION pgseal.exported_keys(exported json, purpose text)
    RETURNS TABLE (version int4, state text, wrapped bytea, commitment bytea, created timestamptz, retired timestamptz, policy json)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT r.version, r.state, decode(r.wrapped, 'hex'), decode(r.commitment, 'hex'), r.created, r.retired, r.policy
      FROM json_to_recordset(exported -> (purpose || '_keys'))
        AS r (version int4, state text, wrapped text, commitment text, created timestamptz, retired timestamptz, policy json);
END;

-- What is wrong with it by itself, before this database is looked at; NULL if nothing.
CREATE OR REPLACE FUNCTION pgseal.exported_problem(exported json) RETURNS text
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

CREATE OR REPLACE FUNCTION pgseal.import_keyring(exported json) RETURNS int4
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

-- What a backup needs that is taken now. The endpoint is the server's where a keyring has none of its own.
CREATE OR REPLACE FUNCTION pgseal.backup_manifest()
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

-- Are stored values authentic?
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_jsonb, context text, context_known boolean,
        OUT result text, OUT keyring_id int4, OUT key_version int4, OUT finding text)
    AS 'MODULE_PATHNAME', 'pgseal_check_jsonb_record' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_jsonb, text, boolean)
    IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';
CREATE FUNCTION pgseal.check_value(@extschema@.encrypted_text, context text, context_known boolean,
        OUT result text, OUT keyring_id int4, OUT key_version int4, OUT finding text)
    AS 'MODULE_PATHNAME', 'pgseal_check_text_record' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.check_value(@extschema@.encrypted_text, text, boolean)
    IS 'internal: result, keyring, key version and finding of one value, without raising an error; needs decrypt';

-- Verdicts on the values of some pages. Where PostgreSQL itself cannot read them, the pages are halved until the
-- row is found.
CREATE FUNCTION pgseal.check_pages(leaf regclass, first_page int8, end_page int8, checked text)
    RETURNS TABLE (result text, keyring_id int4, key_version int4, finding text, number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    middle int8 := (first_page + end_page) / 2;
BEGIN
    RETURN QUERY EXECUTE pgseal.counted_verdicts(format('SELECT ctid, %s FROM ONLY %s WHERE ctid >= $1 AND ctid < $2', checked, leaf))
        USING pgseal.start_of_page(first_page), pgseal.start_of_page(end_page);
EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error OR data_exception OR cardinality_violation OR plpgsql_error THEN
    IF end_page - first_page > 1 THEN
        RETURN QUERY SELECT * FROM pgseal.check_pages(leaf, first_page, middle, checked);
        RETURN QUERY SELECT * FROM pgseal.check_pages(leaf, middle, end_page, checked);
    ELSE
        RETURN QUERY SELECT * FROM pgseal.check_rows(first_page,
            format('SELECT FROM ONLY %s WHERE ctid >= pgseal.start_of_page($1) AND ctid < pgseal.start_of_page($1 + 1)', leaf),
            format('SELECT %s FROM ONLY %s WHERE ctid = format(''(%%s,%%s)'', $1, $2)::tid', checked, leaf));
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.check_pages(regclass, int8, int8, text) IS 'internal: verdicts on the values of some pages';

-- The same without an expression, of one page: for other roles than the owner too.
CREATE FUNCTION pgseal.check_stored(leaf regclass, target_column name, base oid, page int8)
    RETURNS TABLE (result text, keyring_id int4, key_version int4, finding text, number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    stored text := format('pgseal.%s_values(%L, %L, $1, $2)', pgseal.kind_of_type(base), leaf, target_column);
BEGIN
    RETURN QUERY EXECUTE pgseal.counted_verdicts(format(
        'SELECT format(''(%%s,%%s)'', $1, u.i)::tid, pgseal.check_value(u.v, NULL, false) FROM unnest(%s) WITH ORDINALITY u (v, i)', stored))
        USING page, NULL::int4;
EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error OR program_limit_exceeded THEN
    RETURN QUERY SELECT * FROM pgseal.check_rows(page, format('SELECT %s', stored), format('SELECT pgseal.check_value((%s)[$2], NULL, false)', stored));
END $$;
COMMENT ON FUNCTION pgseal.check_stored(regclass, name, oid, int8) IS 'internal: verdicts on the values of a page, without an expression for the context';

CREATE FUNCTION pgseal.counted_verdicts(verdicts text) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    -- OFFSET 0, so that a value is checked once.
    RETURN format('SELECT (s.v).result, (s.v).keyring_id, (s.v).key_version, (s.v).finding,
               count(*), array_agg(s.c ORDER BY s.c) FILTER (WHERE (s.v).result <> ''authentic'')
          FROM (%s OFFSET 0) s (c, v) WHERE (s.v).result IS NOT NULL GROUP BY 1, 2, 3, 4', verdicts);
COMMENT ON FUNCTION pgseal.counted_verdicts(text) IS 'internal: a query that counts equal verdicts of another, and lists the places of bad ones';

-- Row by row what could not be read at once: one statement reads page $1, the other checks row $2 of it, where 0 is no row.
CREATE FUNCTION pgseal.check_rows(page int8, reading text, checking text)
    RETURNS TABLE (result text, keyring_id int4, key_version int4, finding text, number_of_values int8, places tid[])
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- Bytes of an empty row: no page has more rows.
    least_row constant int4 := 28;
BEGIN
    BEGIN
        EXECUTE reading USING page, 0;
    EXCEPTION WHEN data_corrupted OR internal_error THEN
        RETURN QUERY SELECT 'corrupt', NULL::int4, NULL::int4, 'the whole page: ' || SQLERRM, NULL::int8, ARRAY[pgseal.start_of_page(page)];
        RETURN;
    END;
    FOR item IN 1 .. current_setting('block_size')::int4 / least_row LOOP
        BEGIN
            EXECUTE format('SELECT (s.v).* FROM (%s OFFSET 0) s (v)', checking) INTO result, keyring_id, key_version, finding USING page, item;
        EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error THEN
            SELECT 'corrupt', NULL, NULL, SQLERRM INTO result, keyring_id, key_version, finding;
        WHEN data_exception OR cardinality_violation OR plpgsql_error THEN
            -- Without its message, which may quote a value.
            SELECT 'unreadable', NULL, NULL, format('the expression for the context fails with SQLSTATE %s', SQLSTATE)
              INTO result, keyring_id, key_version, finding;
        END;
        IF result IS NOT NULL THEN
            number_of_values := 1;
            places := CASE WHEN result <> 'authentic' THEN ARRAY[format('(%s,%s)', page, item)::tid] END;
            RETURN NEXT;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.check_rows(int8, text, text) IS 'internal: verdicts on the values of a page that PostgreSQL cannot read as a whole';

CREATE FUNCTION pgseal.require_decrypt(target_table regclass, target_column name) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound int4 := (SELECT pgseal.keyring_of_typmod(pgseal.base_type(a.atttypid), a.atttypmod) FROM pg_attribute a WHERE a.attrelid = target_table AND a.attname = target_column);
    denied text := (SELECT k.name FROM pgseal.keyring k WHERE k.id = bound AND NOT pgseal.may_decrypt(k.id, quote_ident(current_user)::regrole));
BEGIN
    IF denied IS NOT NULL THEN
        RAISE EXCEPTION 'permission denied for keyring "%": decrypt privilege needed', denied USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
COMMENT ON FUNCTION pgseal.require_decrypt(regclass, name) IS 'internal: an error where the role may not decrypt a column';

-- One snapshot for all of it. row_security: an error rather than a count of some rows only.
CREATE OR REPLACE FUNCTION pgseal.verify(target_table regclass, target_column name, context text DEFAULT NULL, max_listed int4 DEFAULT 1000)
    RETURNS TABLE (result text, number_of_values int8, keyring text, key_version int4, finding text, relation regclass, row_ctid tid)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
#variable_conflict use_column
DECLARE
    base regtype := pgseal.encrypted_column(target_table, target_column)::regtype;
    checked text := format('pgseal.check_value(%I::%s, (%s)::text, %L)', target_column, base, coalesce(context, 'NULL'), context IS NOT NULL);
    verdict text;
    tally jsonb := '{}';
    pages_at_once constant int8 := 256;
    listed int4 := 0;
    here record;
    found record;
    place tid;
    pages int8;
    total int8 := 0;
    report_due timestamptz := pgseal.next_notice();
BEGIN
    PERFORM pgseal.require_decrypt(target_table, target_column), pgseal.require_rows_here(target_table);
    -- An expression is run by the executor, and with it what the owner has made of the table.
    PERFORM pgseal.require_owner(target_table) WHERE context IS NOT NULL;
    FOR here IN SELECT * FROM pgseal.leaves(target_table) LOOP
        IF here.relkind NOT IN ('r', 'm') THEN
            RETURN QUERY SELECT 'not checked', NULL::int8, NULL::text, NULL::int4, 'its rows are on another server', here.leaf, NULL::tid;
            CONTINUE;
        END IF;
        pages := pg_relation_size(here.leaf) / current_setting('block_size')::int8;
        FOR page IN 0 .. pages - 1 BY pages_at_once LOOP
            FOR found IN
                SELECT c.* FROM pgseal.check_pages(here.leaf, page, least(page + pages_at_once, pages), checked) c WHERE context IS NOT NULL
                UNION ALL
                SELECT c.* FROM generate_series(page, least(page + pages_at_once, pages) - 1) p CROSS JOIN LATERAL pgseal.check_stored(here.leaf, target_column, base, p) c
                 WHERE context IS NULL
            LOOP
                total := total + coalesce(found.number_of_values, 0);
                FOREACH place IN ARRAY coalesce(found.places, '{}') LOOP
                    EXIT WHEN listed >= max_listed;
                    listed := listed + 1;
                    RETURN QUERY SELECT found.result, CASE WHEN found.number_of_values > 0 THEN 1::int8 END,
                        pgseal.keyring_label(found.keyring_id), found.key_version, found.finding, here.leaf, place;
                    found.number_of_values := found.number_of_values - 1;
                END LOOP;
                IF found.number_of_values > 0 THEN
                    verdict := to_jsonb(found) - '{number_of_values,places}'::text[];
                    tally := tally || jsonb_build_object(verdict, found.number_of_values + coalesce((tally ->> verdict)::int8, 0));
                END IF;
            END LOOP;
            IF pgseal.is_past(report_due) THEN
                report_due := pgseal.next_notice();
                RAISE NOTICE '%: page % of %, % values checked, % of them listed as not authentic',
                    here.leaf, least(page + pages_at_once, pages), pages, total, listed;
            END IF;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT v.result, t.value::int8, pgseal.keyring_label(v.keyring_id), v.key_version, v.finding, NULL::regclass, NULL::tid
                   FROM jsonb_each_text(tally) t
                  CROSS JOIN LATERAL jsonb_to_record(t.key::jsonb) v (result text, keyring_id int4, key_version int4, finding text)
                  ORDER BY 1, 3, 4, 5;
    RETURN QUERY SELECT c.* FROM unnest(pgseal.sealed_indexes_of(ARRAY(SELECT l.leaf FROM pgseal.leaves(target_table) l), target_column)) i, pgseal.check_index(i, max_listed) c;
END $$;
COMMENT ON FUNCTION pgseal.verify(regclass, name, text, int4)
    IS 'are all values of a column authentic, and the pages of its sealed indexes? Counts by keyring and key version, and the place of each that is not; '
        'with an SQL expression for the context also of moved ones; needs decrypt';

CREATE FUNCTION pgseal.keyring_label(keyring_id int4) RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    RETURN coalesce((SELECT k.name::text FROM pgseal.keyring k WHERE k.id = keyring_id), keyring_id::text);
COMMENT ON FUNCTION pgseal.keyring_label(int4) IS 'internal: the name of a keyring, or its number where it is unknown';

CREATE FUNCTION pgseal.audit_indexes() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    place record;
    found record;
BEGIN
    FOR place IN SELECT * FROM pgseal.sealed_indexes() LOOP
        object := format('index %s', place.index);
        IF place.blind IS NOT NULL THEN
            RETURN QUERY SELECT 'unknown', object, format('pages of an index of a %s were not looked at', place.blind), 'audit it where they are';
            CONTINUE;
        END IF;
        BEGIN
            FOR found IN SELECT u.*, k.id, sum(u.number_of_rows) OVER () AS all_rows
                           FROM pgseal.index_key_usage(place.index) u LEFT JOIN pgseal.keyring k ON k.name = u.keyring LOOP
                IF found.data_key IS NOT NULL THEN
                    RETURN QUERY SELECT f.severity, object, f.finding, f.what_to_do
                        FROM pgseal.audit_key(found.id, found.data_key, NULL, format('%s pages', found.number_of_pages),
                            format('CALL pgseal.reencrypt_index(%L)', place.index)) f;
                ELSIF found.number_of_rows > 0.01 * found.all_rows THEN
                    RETURN QUERY SELECT 'warning', object, format('%s rows were put aside while no key was to be had: every scan visits all of them', found.number_of_rows),
                        format('CALL pgseal.reencrypt_index(%L)', place.index);
                END IF;
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            RETURN QUERY SELECT 'unknown', object, format('pages were not looked at: sessions %s have locked the index', pgseal.other_sessions_on(place.index)),
                'audit it when they have ended';
        END;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgseal.audit_indexes() IS 'internal: findings on pages of sealed indexes; see audit';

CREATE OR REPLACE FUNCTION pgseal.audit_values() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
    place record;
    found record;
BEGIN
    FOR place IN SELECT * FROM pgseal.value_columns() LOOP
        object := format('column %I of %s', place.attname, place.relation);
        IF place.blind IS NOT NULL THEN
            RETURN QUERY SELECT 'unknown', object, format('values in a %s were not looked at', place.blind), 'audit it where they are';
            CONTINUE;
        END IF;
        BEGIN
            FOR found IN SELECT * FROM pgseal.column_keys(place.relation, place.attname) LOOP
                RETURN QUERY SELECT f.severity, object, f.finding, f.what_to_do
                    FROM pgseal.audit_key(found.keyring_id, found.key_version, found.index_key_version, format('%s values', found.number_of_values),
                        CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = place.relation AND c.relkind = 'm')
                        THEN format('REFRESH MATERIALIZED VIEW %s', place.relation)
                        WHEN place.scalar IS NOT NULL THEN format('CALL pgseal.reencrypt(%L, %L)', place.relation, place.attname)
                        ELSE 'UPDATE these rows with values sealed anew' END) f;
                IF found.in_transit THEN
                    RETURN QUERY SELECT 'warning', object, format('%s values came as literals and were stored as they were: equal literals may have equal bytes', found.number_of_values),
                        'declare the keyring on the column, as in encrypted_jsonb(keyring), or send typed parameters; then CALL pgseal.reencrypt';
                END IF;
            END LOOP;
        EXCEPTION WHEN lock_not_available THEN
            RETURN QUERY SELECT 'unknown', object, format('values were not looked at: sessions %s have locked the table', pgseal.other_sessions_on(place.relation)),
                'audit it when they have ended';
        END;
    END LOOP;
    RETURN QUERY SELECT * FROM pgseal.audit_indexes();
    BEGIN
        RETURN QUERY SELECT f.severity, d.object, f.finding, f.what_to_do
            FROM pgseal.definitions() d CROSS JOIN LATERAL (SELECT DISTINCT * FROM pgseal.quoted_values(d.definition)) q
            CROSS JOIN LATERAL pgseal.audit_key(q.keyring_id, q.key_version, NULL, 'a sealed literal', 'define it anew') f;
    EXCEPTION WHEN lock_not_available THEN
        RETURN QUERY SELECT 'unknown', 'definitions', 'literals in definitions were not looked at: somebody has locked a table below a view', 'audit again';
    END;
END $$;

-- A restore that left rows out: nothing but this keeps the tables of keys together.
CREATE FUNCTION pgseal.audit_orphans() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT 'critical', format('table pgseal.%s', o.name), format('it has rows of a keyring %s, which does not exist', o.keyring),
           'restore the rows of pgseal.keyring from the dump that the others came from'
      FROM (SELECT 'data_key' AS name, d.keyring FROM pgseal.data_key d UNION SELECT 'index_key', i.keyring FROM pgseal.index_key i
            UNION SELECT 'privilege', p.keyring FROM pgseal.privilege p) o
     WHERE NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.id = o.keyring)
    UNION ALL
    SELECT 'critical', format('keyring %I', k.name), format('it has no active %s key', o.purpose),
           format('restore the rows of pgseal.%s_key from the dump that the keyring came from', o.purpose)
      FROM pgseal.keyring k CROSS JOIN (VALUES ('data'), ('index')) o (purpose)
     WHERE NOT EXISTS (SELECT FROM pgseal.data_key d WHERE d.keyring = k.id AND d.state = 'active' AND o.purpose = 'data')
       AND NOT EXISTS (SELECT FROM pgseal.index_key i WHERE i.keyring = k.id AND i.state = 'active' AND o.purpose = 'index')
    UNION ALL
    SELECT 'warning', format('keyring %I', k.name),
           CASE WHEN p.role IN (SELECT r.oid FROM pg_roles r) THEN format('its restored privileges are those of role %s, made since', p.role)
                ELSE format('its restored privileges wait for a role %s, whoever makes it', p.role) END,
           format('SELECT pgseal.revoke_keyring(%L, %L), or let pgseal.grant_keyring confirm them', k.name, p.role)
      FROM pgseal.privilege p JOIN pgseal.keyring k ON k.id = p.keyring
     WHERE pgseal.is_missing(p.role);
END;
COMMENT ON FUNCTION pgseal.audit_orphans() IS 'internal: findings on rows that a restore left out; see audit';

CREATE OR REPLACE FUNCTION pgseal.compares_plaintext(definition text, whole boolean) RETURNS boolean
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN whole THEN bare ~ '''[^'']'
           ELSE bare ~ '(@>|@@|<->|<=>|<#>|<\+>)[^'';]{0,200}''[^'']'
             OR bare ~ 'pgseal\.(filter|filter_any|filter_casefold|between|filter_between|encrypt)\([^;]*''[^'']'
             OR bare ~ '#KEY#[^'']{0,60}(=|<>|<|>|~~|~|\mIN\M|\mLIKE\M|\mANY\M)[^'']{0,40}''[^'']' END
      FROM (SELECT regexp_replace(regexp_replace(definition, '''(pgseal:[^'']*|\{\}|\[\])''(::[a-z_."]+)?', '#SEALED#', 'g'),
                                  '((?<!<)(->>?|#>>?)|\?[|&]?)\s*''[^'']*''(::[a-z]+(\[\])?)?', '#KEY#', 'g') AS bare) b
$$;

CREATE OR REPLACE FUNCTION pgseal.audit_catalogs(max_key_age interval) RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT * FROM pgseal.audit_orphans()
    UNION ALL
    SELECT 'critical', format('keyring %I', k.name), 'its wrapping key is a file on this server: whoever can read it can read the data',
           'create a keyring with a kms_endpoint of its own, at a KMS, and move the columns to it'
      FROM pgseal.keyring k WHERE coalesce(k.kms_endpoint, pgseal.kms_endpoint()) LIKE 'file:%'
    UNION ALL
    SELECT 'warning', format('keyring %I', k.keyring), format('its %s key version %s is %s days old', k.purpose, k.version, extract(day FROM now() - k.created)),
           format('SELECT pgseal.%s(%L), then CALL pgseal.reencrypt for its columns', CASE k.purpose WHEN 'data' THEN 'rotate_key' ELSE 'rotate_index_key' END, k.keyring)
      FROM pgseal.keys k WHERE k.state = 'active' AND k.created < now() - max_key_age
    UNION ALL
    SELECT CASE WHEN p.role = 0 THEN 'critical' ELSE 'info' END, format('keyring %I', k.name),
           CASE WHEN p.role = 0 THEN 'every role can decrypt' ELSE format('role %s can decrypt%s', p.role,
               (SELECT ', and so can ' || string_agg(r.rolname, ', ' ORDER BY r.rolname) FROM pg_roles r
                 WHERE r.oid <> p.role AND NOT r.rolsuper AND pg_has_role(r.oid, p.role, 'USAGE'))) END,
           format('SELECT pgseal.revoke_keyring(%L, %L) where it should not', k.name, CASE WHEN p.role = 0 THEN 'public' ELSE pg_get_userbyid(p.role) END)
      FROM pgseal.privilege p JOIN pgseal.keyring k ON k.id = p.keyring
     WHERE p.decrypt AND (p.role = 0 OR p.role IN (SELECT r.oid FROM pg_roles r))
    UNION ALL
    SELECT 'info', 'superusers', format('%s can decrypt everything', string_agg(r.rolname, ', ' ORDER BY r.rolname)), 'let no application log in as one'
      FROM pg_roles r WHERE r.rolsuper AND r.rolcanlogin AND EXISTS (SELECT FROM pgseal.keyring) HAVING count(*) > 0
    UNION ALL
    SELECT 'warning', format('column %I of %s', a.attname, a.attrelid::regclass), format('it is stored in plaintext (%s) beside an embedding', format_type(a.atttypid, a.atttypmod)),
           'store it as encrypted_jsonb or encrypted_text, if it is confidential'
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
     WHERE c.relkind IN ('r', 'p', 'm', 'f') AND a.attnum > 0 AND NOT a.attisdropped
       AND EXISTS (SELECT FROM pg_type b WHERE b.oid = coalesce(nullif(t.typelem, 0), nullif(t.typbasetype, 0), t.oid)
                     AND (b.typcategory = 'S' AND b.oid <> pgseal.own_type('encrypted_text') OR b.oid IN ('json'::regtype, 'jsonb'::regtype, 'xml'::regtype)))
       AND EXISTS (SELECT FROM pg_attribute v JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = v.atttypid AND d.deptype = 'e'
                     JOIN pg_extension e ON e.oid = d.refobjid
                    WHERE v.attrelid = a.attrelid AND NOT v.attisdropped
                      AND (e.extname = 'vector' OR v.atttypid = pgseal.own_type('encrypted_vector')))
    UNION ALL
    SELECT 'warning', format('column %I of %s', a.attname, a.attrelid::regclass),
           format('embeddings are stored in plaintext (%s) beside encrypted columns: much of a text can be told from its embedding', format_type(a.atttypid, a.atttypmod)),
           format('CALL pgseal.encrypt_column(%L, %L), if the texts are confidential', a.attrelid::regclass, a.attname)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.relkind IN ('r', 'p', 'm', 'f') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
       AND pgseal.base_type(a.atttypid) IN (pgseal.vector_type('vector'), pgseal.vector_type('halfvec'))
       AND EXISTS (SELECT FROM pg_attribute e WHERE e.attrelid = a.attrelid AND e.attnum > 0 AND NOT e.attisdropped
                      AND pgseal.base_type(e.atttypid) = ANY (pgseal.value_types()))
    UNION ALL
    SELECT 'warning', format('column %I of %I.%I', s.attname, s.schemaname, s.tablename),
           format('one searchable value is in %s %% of the rows: its token tells which rows', round(100 * f.share)),
           'declare its path with "spread" (pgseal.set_searchable), or not at all; pgseal.check_searchable names the path'
      FROM pgseal.value_columns() v
      JOIN pg_class c ON c.oid = v.relation JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = v.attname
      CROSS JOIN LATERAL (SELECT max(u.share)::numeric AS share
          FROM unnest(s.most_common_elems::text::int8[], (s.most_common_elem_freqs)[:cardinality(s.most_common_elems::text::int8[])]) u (token, share)
         WHERE u.token < 0) f
     WHERE v.scalar IS NOT NULL AND f.share > 0.5 AND c.reltuples >= 100
    UNION ALL
    SELECT 'warning', d.object, 'it has a constant for an encrypted value, which the catalog keeps in plaintext',
           'take the value from a table or a setting, or make the constant a parameter'
      FROM pgseal.definitions() d
     WHERE pgseal.compares_plaintext(d.definition, d.whole)
       AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.class AND e.objid = d.id AND e.deptype = 'e')
       AND (EXISTS (SELECT FROM pg_depend r JOIN pgseal.value_columns() v ON r.refclassid = 'pg_class'::regclass AND r.refobjid = v.relation
                      JOIN pg_attribute a ON a.attrelid = v.relation AND a.attname = v.attname
                     WHERE r.classid = d.class AND r.objid = d.id AND r.refobjsubid = a.attnum)
            OR (d.class = 'pg_proc'::regclass AND EXISTS (SELECT FROM pgseal.value_columns() v JOIN pg_class c ON c.oid = v.relation
                    WHERE d.definition ~ ('\m' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '\M')
                      AND d.definition ~ ('\m' || regexp_replace(v.attname, '(\W)', '\\\1', 'g') || '\M'))))
    UNION ALL
    SELECT 'warning', format('role %I', r.rolname), 'it may write to an encrypted column, and pgseal.accept_sealed is on: it can store a sealed value that it got elsewhere',
           format('ALTER ROLE %I SET pgseal.accept_sealed = off; its application must not set it back', r.rolname)
      FROM pg_roles r
     WHERE r.rolcanlogin AND NOT r.rolsuper
       AND EXISTS (SELECT FROM pgseal.value_columns() v WHERE has_any_column_privilege(r.oid, v.relation, 'INSERT, UPDATE'))
       AND coalesce((SELECT split_part(c, '=', 2) FROM pg_db_role_setting s, unnest(s.setconfig) c
                      WHERE c LIKE 'pgseal.accept\_sealed=%' AND s.setrole IN (0, r.oid)
                        AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
                      ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
                    (SELECT s.reset_val FROM pg_settings s WHERE s.name = 'pgseal.accept_sealed'), 'on') <> 'off'
$$;

-- What evaluates encrypted values, directly or through views, operators and functions, as pg_depend and the text of functions tell;
-- plaintext where it decrypts. Bytes alone, as key_version reads them, count for nothing.
CREATE FUNCTION pgseal.evaluations() RETURNS TABLE (class oid, id oid, plaintext boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH RECURSIVE sealed (types) AS (SELECT pgseal.value_types()),
    evaluates (class, id, plaintext) AS (
        SELECT 'pg_proc'::regclass::oid, p.oid, e.objid IS NULL OR p.proname IN ('decrypt', 'decrypt_as_text', 'decrypt_as_name', 'decrypt_as_array', 'reveal', 'plain', 'plain_varchar')
          FROM sealed s, pg_proc p JOIN pg_language l ON l.oid = p.prolang
          LEFT JOIN (pg_depend e JOIN pg_extension x ON x.oid = e.refobjid AND x.extname = 'pgseal')
            ON e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e' AND e.refclassid = 'pg_extension'::regclass
         WHERE CASE WHEN e.objid IS NOT NULL
               THEN p.proargtypes::oid[] && s.types AND p.provolatile <> 'i' AND p.proname NOT IN ('coerce', 'reseal', 'is_current')
               ELSE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
                    AND (p.proargtypes::oid[] && s.types OR p.prosrc ~* '\mdecrypt\M') END
        UNION
        SELECT n.class, n.id, e.plaintext FROM evaluates e CROSS JOIN LATERAL (
            SELECT d.classid, d.objid FROM pg_depend d
             WHERE d.refclassid = e.class AND d.refobjid = e.id AND d.deptype IN ('n', 'a', 'i')
               AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass, 'pg_class'::regclass, 'pg_constraint'::regclass,
                                 'pg_attrdef'::regclass, 'pg_statistic_ext'::regclass)
               -- Not whatever stands beside it in a table.
               AND (e.class <> 'pg_class'::regclass OR (d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
                        AND EXISTS (SELECT FROM pg_class c WHERE c.oid = e.id AND c.relkind IN ('v', 'm'))))
            UNION ALL
            SELECT 'pg_class'::regclass, w.ev_class FROM pg_rewrite w WHERE e.class = 'pg_rewrite'::regclass AND w.oid = e.id AND w.ev_type = '1'
        ) n (class, id)
    ) SELECT v.class, v.id, bool_or(v.plaintext) FROM evaluates v
       WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = v.class AND d.objid = v.id AND d.deptype = 'e') GROUP BY 1, 2
$$;
COMMENT ON FUNCTION pgseal.evaluations() IS 'internal: objects that evaluate encrypted values; see audit';

-- Copies of decrypted values, and what a restore evaluates while the keys may not be there.
CREATE FUNCTION pgseal.audit_evaluations() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT k.severity, CASE WHEN e.class = 'pg_attrdef'::regclass THEN format('generated column %I of %s', a.attname, a.attrelid::regclass)
                            WHEN c.relkind = 'p' THEN format('partition key of %s', c.oid::regclass)
                            WHEN o.contypid <> 0 THEN format('constraint %I of domain %s', o.conname, o.contypid::regtype) ELSE pgseal.describe(e.class, e.id, 0) END,
           k.finding, k.what_to_do
      FROM pgseal.evaluations() e
      LEFT JOIN pg_class c ON e.class = 'pg_class'::regclass AND c.oid = e.id
      LEFT JOIN (pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum) ON e.class = 'pg_attrdef'::regclass AND f.oid = e.id
      LEFT JOIN pg_constraint o ON e.class = 'pg_constraint'::regclass AND o.oid = e.id
      LEFT JOIN pg_proc p ON e.class = 'pg_proc'::regclass AND p.oid = e.id
      LEFT JOIN pg_rewrite w ON e.class = 'pg_rewrite'::regclass AND w.oid = e.id
      CROSS JOIN LATERAL (VALUES
        ('critical', c.relkind = 'm' AND e.plaintext, 'it stores decrypted values, and a restore needs the KMS to fill it',
            'leave the column encrypted in its query, and decrypt where it is read'),
        ('critical', c.relkind IN ('i', 'I'), 'it stores what it makes from decrypted values',
            'drop it; a GIN index on the column itself holds tokens of searchable paths'),
        ('critical', c.relkind = 'p', 'partitions are chosen by what it makes from decrypted values; a restore does so while rows load',
            'partition by another column'),
        ('critical', a.attgenerated <> '', 'it stores what it makes from decrypted values; a restore evaluates it while rows load', 'drop it, or make it a view''s column'),
        ('critical', e.class = 'pg_statistic_ext'::regclass, 'ANALYZE stores what it makes from decrypted values', 'DROP STATISTICS'),
        ('warning', w.ev_type <> '1' AND e.plaintext, 'it may write decrypted values to another table', 'write the column as it is'),
        ('warning', p.provolatile = 'i', 'it is marked IMMUTABLE but evaluates encrypted values: plans and indexes keep its results', 'mark it STABLE'),
        ('warning', o.contype = 'c' AND (o.convalidated OR o.contypid <> 0), 'a restore evaluates it while rows load, when the keys may not be there yet',
            CASE WHEN o.contypid <> 0 THEN 'make it a constraint of the tables, NOT VALID'
            WHEN o.conrelid <> 0 THEN format('ALTER TABLE %s DROP CONSTRAINT %I, and ADD it NOT VALID: it holds for new rows, and a dump has it behind the rows', o.conrelid::regclass, o.conname) END)
      ) k (severity, applies, finding, what_to_do)
     WHERE k.applies
    UNION ALL
    SELECT DISTINCT 'warning', r.object, pgseal.comparison_hint(), 'every UPDATE of the table fails until then'
      FROM (SELECT DISTINCT v.relation FROM pgseal.value_columns() v) v CROSS JOIN LATERAL pgseal.row_triggers(v.relation) r WHERE r.compares
$$;
COMMENT ON FUNCTION pgseal.audit_evaluations() IS 'internal: findings on what evaluates encrypted values; see audit';

-- What needs a key runs with the caller's privileges; the rest reads catalogs and headers of values only.
-- Whom a standing pgseal.reveal gives plaintext that was meant for an application: those who copy databases, and those whose sessions
-- do more than a client's.
CREATE FUNCTION pgseal.audit_reveal() RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH standing (role, database) AS (
        SELECT s.setrole, s.setdatabase FROM pg_db_role_setting s, unnest(s.setconfig) c
         WHERE c ~ '^pgseal\.reveal=' AND split_part(c, '=', 2) NOT IN ('off', 'false', 'no', '0')
           AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
    )
    SELECT 'warning', format('role %I', r.rolname), 'pgseal.reveal stands for it, and it '
             || concat_ws(' and ', CASE WHEN r.rolsuper THEN 'is a superuser' END, CASE WHEN r.rolreplication THEN 'may replicate' END,
                                   CASE WHEN o.owns THEN 'owns encrypted columns' END),
           CASE WHEN bool_or(s.role <> 0) THEN format('ALTER ROLE %I RESET pgseal.reveal; let it stand for roles of applications only', r.rolname)
                ELSE 'RESET pgseal.reveal for the database; let it stand for roles of applications only' END
      FROM standing s JOIN pg_roles r ON r.rolcanlogin AND s.role IN (0, r.oid)
     CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pgseal.value_columns() v JOIN pg_class c ON c.oid = v.relation WHERE c.relowner = r.oid)) o (owns)
     WHERE r.rolsuper OR r.rolreplication OR o.owns
     GROUP BY r.rolname, r.rolsuper, r.rolreplication, o.owns
$$;
COMMENT ON FUNCTION pgseal.audit_reveal() IS 'internal: findings on roles for which pgseal.reveal stands; see audit';

CREATE OR REPLACE FUNCTION pgseal.audit(max_key_age interval DEFAULT '1 year', sample_size int4 DEFAULT 10000)
    RETURNS TABLE (severity text, object text, finding text, what_to_do text)
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET client_min_messages = warning SET jit = off AS $$
#variable_conflict use_column
DECLARE
    place record;
BEGIN
    RETURN QUERY
        SELECT f.* FROM (SELECT * FROM pgseal.audit_catalogs(max_key_age) UNION ALL SELECT * FROM pgseal.audit_values() UNION ALL SELECT * FROM pgseal.audit_evaluations()
                         UNION ALL SELECT * FROM pgseal.audit_settings() UNION ALL SELECT * FROM pgseal.audit_reveal()
                         UNION ALL SELECT 'warning', format('column %I of %s', u.column_name, u.relation), format('it is plain, and rule %s of pgseal.protect is about its table', u.pattern),
                                          format('CALL pgseal.encrypt_table(%L) as its owner', u.relation) FROM pgseal.unprotected() u) f
         ORDER BY array_position(ARRAY['critical', 'warning', 'unknown', 'info'], f.severity), f.object, f.finding;
    FOR place IN
        SELECT v.*, pg_has_role(c.relowner, current_user, 'USAGE') AS is_ours FROM pgseal.value_columns() v JOIN pg_class c ON c.oid = v.relation
         WHERE v.scalar LIKE '%encrypted_jsonb' AND v.blind IS NULL
    LOOP
        -- A query may run functions of the owner, of expression indexes for one, and must not give them more than the owner has.
        IF NOT place.is_ours THEN
            RETURN QUERY SELECT 'unknown', format('column %I of %s', place.attname, place.relation),
                                'values of its searchable paths were not counted: querying it may run functions of its owner as whoever audits',
                                format('as its owner: SELECT * FROM pgseal.check_searchable(%L, %L)', place.relation, place.attname);
            CONTINUE;
        END IF;
        BEGIN
            RETURN QUERY
                SELECT 'warning', format('column %I of %s', place.attname, place.relation),
                       format('searchable path %s has %s different values in %s, the commonest %s %% of all: who sees the tokens can tell which is which',
                              c.path, c.distinct_values, c.number_of_values, round(100 * c.commonest_share::numeric)),
                       'declare it with "spread" (pgseal.set_searchable), or not at all'
                  FROM pgseal.check_searchable(place.relation, place.attname, sample_size) c
                 WHERE c.number_of_values >= 100 AND (c.distinct_values < 16 OR c.commonest_share > 0.5);
        EXCEPTION WHEN OTHERS THEN
            RETURN QUERY SELECT 'unknown', format('column %I of %s', place.attname, place.relation),
                                'how many values its searchable paths have could not be counted: ' || SQLERRM, 'call audit as a role with SELECT and decrypt';
        END;
    END LOOP;
END $$;

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

-- One column for the record: the sentence that an auditor reads first, and what it rests on.
CREATE OR REPLACE FUNCTION pgseal.verified(target_table regclass, target_column name, context text) RETURNS jsonb
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

CREATE OR REPLACE FUNCTION pgseal.evidence(target_table regclass, contexts jsonb DEFAULT '{}', canaries text[] DEFAULT '{}', checkpoint boolean DEFAULT false)
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

-- PostgreSQL gives pg_write_all_data, and whoever default privileges name, rights on every table: these are written by pgseal's
-- functions, which run as the owner, by a restore and by superusers.
CREATE FUNCTION pgseal.refuse_writes() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = TG_RELID), 'USAGE') THEN
        RAISE EXCEPTION 'permission denied for table %', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege', HINT = 'The functions of pgseal write it, such as pgseal.grant_keyring(keyring, role, privileges).';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION pgseal.refuse_writes() IS 'internal: refuses writes that no function of pgseal does';

DO $$
DECLARE
    guarded regclass;
BEGIN
    FOR guarded IN
        SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_class c ON c.oid = d.objid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal' AND c.relkind = 'r'
    LOOP
        EXECUTE format('CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s
            FOR EACH STATEMENT EXECUTE FUNCTION pgseal.refuse_writes()', guarded);
        -- What a subscription applies fires triggers of rows only.
        EXECUTE format('CREATE TRIGGER guard_row BEFORE INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION pgseal.refuse_writes()', guarded);
        -- Whatever session_replication_role is.
        EXECUTE format('ALTER TABLE %1$s ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_row', guarded);
    END LOOP;
END $$;

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

DROP FUNCTION pgseal.find_key(int4, int4);

-- As after CREATE EXTENSION, whatever ALTER DEFAULT PRIVILEGES gives. What was granted or revoked since then stays, but for rights to
-- write the tables. An object that nobody granted anything on gets its grants again, so that dumps know them as the extension's.
DO $$
DECLARE
    change text;
BEGIN
    FOR change IN
        WITH own AS (
            SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal'
        ), object (kind, letter, classid, objid, name, schema, owner, acl) AS (
            SELECT 'SCHEMA', 'n'::"char", 'pg_namespace'::regclass, n.oid, n.oid::regnamespace::text, n.oid, n.nspowner, n.nspacl
              FROM pg_namespace n WHERE n.nspname = 'pgseal'
            UNION ALL
            SELECT 'TABLE', 'r', own.classid, c.oid, c.oid::regclass::text, c.relnamespace, c.relowner, c.relacl
              FROM pg_class c JOIN own ON own.classid = 'pg_class'::regclass AND own.objid = c.oid WHERE c.relkind IN ('r', 'v')
            UNION ALL
            SELECT 'ROUTINE', 'f', own.classid, p.oid, p.oid::regprocedure::text, p.pronamespace, p.proowner, p.proacl
              FROM pg_proc p JOIN own ON own.classid = 'pg_proc'::regclass AND own.objid = p.oid
            UNION ALL
            SELECT 'TYPE', 'T', own.classid, t.oid, t.oid::regtype::text, t.typnamespace, t.typowner, t.typacl
              FROM pg_type t JOIN own ON own.classid = 'pg_type'::regclass AND own.objid = t.oid WHERE t.typtype = 'b' AND t.typelem = 0
        ), present (classid, objid, grantee, privilege) AS (
            SELECT o.classid, o.objid, a.grantee, a.privilege_type
              FROM object o CROSS JOIN LATERAL aclexplode(coalesce(o.acl, acldefault(o.letter, o.owner))) a WHERE a.grantee <> o.owner
        ), defaults (classid, objid, grantee, privilege) AS (
            SELECT o.classid, o.objid, a.grantee, a.privilege_type
              FROM object o JOIN pg_default_acl d ON d.defaclrole = o.owner AND d.defaclobjtype = o.letter AND d.defaclnamespace IN (0, o.schema)
             CROSS JOIN LATERAL aclexplode(d.defaclacl) a
        ), usual (classid, objid, grantee, privilege) AS (
            SELECT d.* FROM defaults d
            UNION ALL
            SELECT o.classid, o.objid, a.grantee, a.privilege_type FROM object o CROSS JOIN LATERAL aclexplode(acldefault(o.letter, o.owner)) a
             WHERE NOT EXISTS (SELECT FROM pg_default_acl d WHERE d.defaclrole = o.owner AND d.defaclobjtype = o.letter AND d.defaclnamespace = 0)
        ), at_first (classid, objid, grantee, privilege) AS (
            SELECT o.classid, o.objid, a.grantee, a.privilege_type
              FROM object o JOIN pg_init_privs i ON i.classoid = o.classid AND i.objoid = o.objid AND i.objsubid = 0
             CROSS JOIN LATERAL aclexplode(i.initprivs) a
            UNION ALL
            SELECT u.* FROM usual u
             WHERE NOT EXISTS (SELECT FROM pg_init_privs i WHERE i.classoid = u.classid AND i.objoid = u.objid AND i.objsubid = 0)
        ), listed (name, reason) AS (VALUES
            ('encrypt', 'asks for the privilege itself'),
            ('decrypt', 'asks for the privilege itself'),
            ('filter', 'asks for the privilege itself'),
            ('filter_any', 'asks for the privilege itself'),
            ('filter_casefold', 'asks for the privilege itself'),
            ('filter_between', 'asks for the privilege itself'),
            ('between', 'asks for the privilege itself'),
            ('check_searchable', 'reads with the caller''s rights'),
            ('max', 'decrypts as the caller'),
            ('min', 'decrypts as the caller'),
            ('jsonb_exists', 'decrypts as the caller'),
            ('jsonb_exists_any', 'decrypts as the caller'),
            ('jsonb_exists_all', 'decrypts as the caller'),
            ('jsonb_path_exists', 'decrypts as the caller'),
            ('jsonb_path_match', 'decrypts as the caller'),
            ('key_version', 'reads a header'),
            ('index_key_version', 'reads a header'),
            ('keyring_id', 'reads a header'),
            ('sealed_text', 'gives what every client gets'),
            ('vector_dims', 'reads a header'),
            ('vector_norm', 'decrypts as the caller'),
            ('l2_normalize', 'asks for the privilege itself'),
            ('quote_literal', 'gives what every client gets'),
            ('quote_nullable', 'gives what every client gets'),
            ('key_usage', 'reads headers with the caller''s rights'),
            ('set_kms_token', 'for the session alone'),
            ('export_keyring', 'reads tables that everybody may read'),
            ('backup_manifest', 'reads tables that everybody may read'),
            ('reencrypt', 'acts with the caller''s rights'),
            ('in_place_problem', 'reads the catalogs'),
            ('encrypt_column', 'for owners of tables, with their rights'),
            ('encrypt_table', 'for owners of tables, with their rights'),
            ('decrypt_column', 'for owners of tables, with their rights'),
            ('abandon_migration', 'for owners of tables, with their rights'),
            ('migration_obstacles', 'reads the catalogs'),
            ('verify', 'asks for the privilege, reads with the caller''s rights'),
            ('evidence', 'asks for the privilege, reads with the caller''s rights'),

            ('reveal', 'a rewritten query calls it as its role'),
            ('plain', 'a rewritten query calls it as its role'),
            ('assigned', 'a rewritten query calls it as its role'),
            ('largest', 'a rewritten query calls it as its role'),
            ('smallest', 'a rewritten query calls it as its role'),
            ('filter_for', 'a rewritten query calls it as its role'),
            ('filter_in', 'a rewritten query calls it as its role'),
            ('filter_text', 'a rewritten query calls it as its role'),
            ('filter_text_any', 'a rewritten query calls it as its role'),
            ('filter_any_for', 'a rewritten query calls it as its role'),
            ('filter_parts', 'a rewritten query calls it as its role'),
            ('equal_any', 'a rewritten query calls it as its role'),
            ('contains_any', 'a rewritten query calls it as its role'),
            ('filter_between_for', 'a rewritten query calls it as its role'),
            ('refresh', 'a rewritten query calls it as its role'),
            ('chosen', 'a rewritten query calls it as its role'),
            ('each', 'a rewritten query calls it as its role'),
            ('answers', 'a rewritten query calls it as its role'),
            ('searchable_values', 'check_searchable calls it; asks for the privilege'),
            ('check_value', 'verify calls it; asks for the privilege'),
            ('check_pages', 'verify calls it'),
            ('check_stored', 'verify calls it'),
            ('jsonb_values', 'verify calls it; for those who may select all rows'),
            ('text_values', 'verify calls it; for those who may select all rows'),
            ('vector_values', 'verify calls it; for those who may select all rows'),
            ('check_rows', 'verify calls it'),
            ('leaves', 'verify and reencrypt call it; reads the catalogs'),
            ('distributed_tables', 'audit calls it; Citus shows as much to everybody'),
            ('require_rows_here', 'verify and reencrypt call it; reads the catalogs'),
            ('refuse_distributed', 'encrypt_column calls it; reads the catalogs'),
            ('counted_verdicts', 'verify calls it'),
            ('require_decrypt', 'verify calls it; reads tables that everybody may read'),
            ('keyring_label', 'verify calls it; reads tables that everybody may read'),
            ('may_decrypt', 'verify calls it; reads tables that everybody may read'),
            ('verified', 'evidence calls it'),
            ('keys_in_use', 'evidence calls it; reads tables that everybody may read'),
            ('not_looked_at', 'evidence calls it'),
            ('scan_for', 'evidence calls it; reading files takes more rights'),
            ('scan_files', 'evidence calls it; reading files takes more rights'),
            ('encrypted_column', 'many call it; reads the catalogs'),
            ('own_type', 'many call it; reads the catalogs'),
            ('vector_type', 'encrypt_column calls it; reads the catalogs'),
            ('declared_dimensions', 'encrypt_column calls it; reads the catalogs'),
            ('bound_type', 'encrypt_column calls it; reads the catalogs'),
            ('is_json', 'encrypt_column calls it; reads the catalogs'),
            ('kind_of_type', 'many call it; reads the catalogs'),
            ('keyring_of_typmod', 'many call it; reads tables that everybody may read'),
            ('keyring_of_vectors', 'keyring_of_typmod calls it'),
            ('base_type', 'many call it; reads the catalogs'),
            ('value_types', 'many call it; reads the catalogs'),
            ('keyring_named', 'export_keyring calls it; reads tables that everybody may read'),
            ('grantee_of', 'a cast'),
            ('grantee_number', 'a cast'),
            ('is_missing', 'pg_dump calls it'),
            ('kms_endpoint', 'backup_manifest and evidence call it; SHOW tells as much'),
            ('require_autocommit', 'procedures call it'),
            ('require_owner', 'many call it'),
            ('confined', 'many call it; a statement gets no more rights than its caller''s'),
            ('value_columns', 'audit calls it; reads the catalogs'),
            ('next_notice', 'procedures call it'),
            ('is_past', 'procedures call it'),
            ('seconds_since', 'procedures call it'),
            ('start_of_page', 'procedures call it'),
            ('tables_of', 'procedures call it'),
            ('other_sessions_on', 'reencrypt calls it; pg_locks shows as much'),
            ('check_reencrypt', 'reencrypt calls it'),
            ('reencrypt_leaf', 'reencrypt calls it'),
            ('reencrypt_batch', 'reencrypt calls it'),
            ('reencrypt_end_pass', 'reencrypt calls it'),
            ('reencrypting_update', 'reencrypt calls it'),
            ('wait_for_old_transactions', 'reencrypt calls it'),
            ('wait_for_snapshots', 'reencrypt calls it'),
            ('keep_pace', 'reencrypt calls it'),
            ('is_gentle', 'reencrypt calls it'),
            ('rest_after', 'reencrypt calls it'),
            ('waited_for_processor', 'reencrypt calls it'),
            ('nap', 'reencrypt calls it; pg_sleep does as much'),
            ('report_searchable', 'reencrypt calls it'),
            ('rows_to_reencrypt', 'reencrypt calls it'),
            ('pages_of_rows', 'reencrypt calls it'),
            ('reseal', 'reencrypt calls it; asks for nothing, since the plaintext stays inside'),
            ('reseal_problem', 'reencrypt calls it; says no more than reseal'),
            ('report_unreadable', 'reencrypt calls it'),
            ('is_current', 'reencrypt calls it; reads a header'),
            ('rewrite_pages_of', 'reencrypt calls it'),
            ('rewrite_pages', 'reencrypt calls it; refuses all but owners of the table'),
            ('reencrypt_index', 'acts with the caller''s rights'),
            ('renew_index_pages', 'reencrypt_index calls it; refuses all but owners of the table'),
            ('sealed_indexes', 'reencrypt calls it; reads the catalogs'),
            ('sealed_indexes_of', 'reencrypt calls it; reads the catalogs'),
            ('index_key_usage', 'counts rows, as pg_class does'),
            ('verify_index', 'asks for the privilege itself'),
            ('verified_indexes', 'evidence calls it; verify_index asks for the privilege'),
            ('check_index', 'verify calls it; verify_index asks for the privilege'),
            ('index_pages', 'index_key_usage calls it'),
            ('rotation_column', 'reencrypt calls it'),
            ('runs_for_an_owner', 'reencrypt calls it'),
            ('rotation_start_pass', 'reencrypt calls it'),
            ('rotation_join', 'reencrypt calls it; runs as its owner, for owners of the table'),
            ('rotation_claim', 'reencrypt calls it; runs as its owner, for owners of the table'),
            ('rotation_advance', 'reencrypt calls it; runs as its owner, for owners of the table'),
            ('rotation_end_pass', 'reencrypt calls it; runs as its owner, for owners of the table'),
            ('rotation_transactions', 'reencrypt calls it; pg_locks shows as much'),
            ('rotation_sessions', 'reencrypt calls it; pg_locks shows as much'),
            ('rotation_lag', 'reencrypt calls it'),
            ('rotation_load', 'reencrypt calls it'),
            ('rotation_waits', 'rotation_progress calls it; pg_locks shows as much'),
            ('reason_of_nap', 'rotation_progress calls it'),
            ('report_rotation', 'reencrypt calls it'),
            ('protection_of', 'the event triggers of protect call it; reads the catalogs'),
            ('pattern_part', 'protection_of calls it'),
            ('plain_columns', 'the event trigger of protect calls it; reads the catalogs'),
            ('changed_columns', 'the event trigger of protect calls it'),
            ('protecting_commands', 'the event trigger of protect calls it; reads the catalogs'),
            ('refuse_plain', 'the event trigger of protect calls it'),
            ('protect_table', 'the event trigger of protect calls it, as who makes the table'),
            ('unprotected', 'audit calls it; reads the catalogs'),
            ('prepare_table', 'encrypt_table calls it'),
            ('describe_table', 'encrypt_table calls it'),
            ('columns_to_encrypt', 'encrypt_table calls it'),
            ('table_columns', 'encrypt_table calls it; reads the catalogs'),
            ('plaintext_use', 'encrypt_table calls it; reads the catalogs'),
            ('check_table', 'encrypt_table calls it'),
            ('keep_vectors_inline', 'encrypt_table calls it'),
            ('report_table', 'encrypt_table calls it; reads the catalogs'),
            ('index_command', 'encrypt_table calls it; reads the catalogs'),
            ('obstacles_left', 'encrypt_column calls it; reads the catalogs'),
            ('prepare_migration', 'encrypt_column calls it'),
            ('begin_migration', 'encrypt_column calls it'),
            ('start_migration', 'encrypt_column calls it'),
            ('compare_columns', 'encrypt_column calls it'),
            ('pages_of', 'encrypt_column calls it'),
            ('pages_of_batch', 'encrypt_column calls it'),
            ('is_constrained', 'encrypt_column calls it'),
            ('end_migration', 'encrypt_column calls it'),
            ('finish_migration', 'encrypt_column calls it'),
            ('report_migration', 'encrypt_column calls it'),
            ('migrate_column', 'encrypt_column calls it'),
            ('migration_lock', 'encrypt_column calls it'),
            ('migration_fill', 'encrypt_column calls it'),
            ('migration_verify', 'encrypt_column calls it'),
            ('migration_column', 'encrypt_column calls it'),
            ('migration_started', 'encrypt_column and the scripts call it'),
            ('migration_commands', 'encrypt_column and the scripts call it'),
            ('migration_tables', 'encrypt_column calls it'),
            ('migration_type', 'encrypt_column calls it'),
            ('migration_roles', 'encrypt_column calls it'),
            ('migration_trigger', 'encrypt_column calls it'),
            ('check_migration', 'encrypt_column calls it'),
            ('lock_for_migration', 'encrypt_column calls it'),
            ('refuse_other_owner', 'encrypt_column makes a trigger of it'),
            ('carry_over', 'encrypt_column calls it'),
            ('comparison_hint', 'encrypt_column calls it'),
            ('describe', 'encrypt_column calls it; reads the catalogs'),
            ('expression_trees', 'encrypt_column calls it; reads the catalogs'),
            ('naming_functions', 'encrypt_column calls it; reads the catalogs'),
            ('refuse_row_comparisons', 'encrypt_column calls it; reads the catalogs'),
            ('row_dependents', 'encrypt_column calls it; reads the catalogs'),
            ('row_triggers', 'encrypt_column calls it; reads the catalogs'),
            ('row_types', 'encrypt_column calls it; reads the catalogs'),
            ('table_obstacles', 'encrypt_column calls it; reads the catalogs'),
            ('index_obstacles', 'encrypt_column calls it; reads the catalogs'),
            ('migrated_index', 'encrypt_column calls it; reads the catalogs'),
            ('report_plaintext', 'encrypt_column calls it'),
            ('release_vectors', 'decrypt_column calls it'),
            ('trigger_obstacles', 'encrypt_column calls it; reads the catalogs'),
            ('text_names', 'encrypt_column calls it'),
            ('whole_rows', 'encrypt_column calls it')
        ), wanted (classid, objid, grantee, privilege) AS (
            SELECT o.classid, o.objid, 0::oid, 'USAGE' FROM object o WHERE o.kind IN ('SCHEMA', 'TYPE')
            UNION ALL
            SELECT o.classid, o.objid, CASE c.relname WHEN 'stat' THEN 'pg_monitor'::regrole::oid ELSE 0 END, 'SELECT'
              FROM object o JOIN pg_class c ON c.oid = o.objid
             WHERE o.kind = 'TABLE' AND c.relname IN ('keyring', 'data_key', 'index_key', 'privilege', 'manifest', 'protection', 'keyrings', 'keys', 'rotation_progress', 'protections', 'stat')
            UNION ALL
            SELECT o.classid, o.objid, 'pg_monitor'::regrole, 'EXECUTE' FROM object o JOIN pg_proc p ON p.oid = o.objid
             WHERE o.kind = 'ROUTINE' AND p.proname IN ('counter', 'shared_keys_held', 'check_kms', 'kms_problem', 'audit_values', 'audit_evaluations',
                                                        'audit_settings', 'audit_reveal', 'audit_catalogs', 'audit')
            UNION ALL
            SELECT o.classid, o.objid, 0, 'EXECUTE' FROM object o JOIN pg_proc p ON p.oid = o.objid
             WHERE o.kind = 'ROUTINE'
               AND (p.proname IN (SELECT l.name FROM listed l)
                    -- What types, casts, operators and indexes are made of.
                    OR p.oid IN (SELECT o.oprcode FROM pg_operator o UNION SELECT o.oprrest FROM pg_operator o UNION SELECT o.oprjoin FROM pg_operator o
                                 UNION SELECT c.castfunc FROM pg_cast c UNION SELECT a.amproc FROM pg_amproc a UNION SELECT p.prosupport FROM pg_proc p
                                 UNION SELECT unnest(ARRAY[t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze, t.typsubscript]) FROM pg_type t))
        )
        SELECT format('REVOKE %s ON %s %s FROM %s CASCADE', p.privilege, o.kind, o.name,
                      CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(p.grantee)) END)
          FROM present p JOIN object o USING (classid, objid)
         WHERE NOT EXISTS (SELECT FROM wanted w WHERE w = p)
           AND (EXISTS (SELECT FROM at_first f WHERE f = p)
                OR EXISTS (SELECT FROM defaults d WHERE d = p) AND NOT (o.kind = 'ROUTINE' AND p.grantee = 0)
                OR o.kind = 'ROUTINE' AND p.grantee = 0
               AND NOT EXISTS (SELECT FROM pg_init_privs i WHERE i.classoid = p.classid AND i.objoid = p.objid AND i.objsubid = 0)
                OR o.kind = 'TABLE' AND p.privilege <> 'SELECT' OR o.kind = 'SCHEMA' AND p.privilege = 'CREATE')
        UNION ALL
        SELECT format('GRANT %s ON %s %s TO %s', w.privilege, o.kind, o.name,
                      CASE w.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(w.grantee)) END)
          FROM wanted w JOIN object o USING (classid, objid)
         WHERE NOT EXISTS (SELECT FROM at_first f WHERE f = w)
            OR EXISTS (SELECT FROM present p WHERE p = w)
           AND NOT EXISTS (SELECT FROM pg_init_privs i WHERE i.classoid = w.classid AND i.objoid = w.objid AND i.objsubid = 0)
           AND NOT EXISTS (SELECT FROM present p
                            WHERE p.classid = w.classid AND p.objid = w.objid AND NOT EXISTS (SELECT FROM usual u WHERE u = p))
    LOOP
        EXECUTE change;
    END LOOP;
END $$;

-- What a script grants would pass for the extension's own, and be in no dump: what administrators granted is not.
DO $$
DECLARE
    functions oid[];
    own text[];
BEGIN
    SELECT array_agg(i.objoid), array_agg(i.initprivs::text) INTO functions, own FROM pg_init_privs i WHERE i.classoid = 'pg_proc'::regclass;
    EXECUTE current_setting('pgseal_update.changes');
    UPDATE pg_init_privs i SET initprivs = o.privileges::aclitem[] FROM unnest(functions, own) o (id, privileges)
     WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = o.id AND i.initprivs::text <> o.privileges;
    -- From PostgreSQL 17 on a role that has part in them is not dropped.
    DELETE FROM pg_shdepend d
     WHERE d.dbid = (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()) AND d.deptype = 'i'
       AND d.classid = 'pg_proc'::regclass AND d.objid = ANY (functions)
       AND NOT EXISTS (SELECT FROM pg_init_privs i CROSS JOIN LATERAL aclexplode(i.initprivs) a
                        WHERE i.classoid = d.classid AND i.objoid = d.objid AND i.objsubid = d.objsubid AND a.grantee = d.refobjid);
END $$;
