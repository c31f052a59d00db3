-- Nothing that a schema in the path holds has a say in what this script makes. The types and their operators name their schema.
SET LOCAL search_path = pg_catalog, pg_temp;

-- Sealed text is in the encoding of its database, and no dump converts ciphertext.
DO LANGUAGE plpgsql $$
BEGIN
    IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8'::name THEN
        RAISE EXCEPTION 'pgseal needs a database with encoding UTF8, this one is %', pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported', HINT = 'createdb -E UTF8 -T template0 name';
    END IF;
END $$;

CREATE SCHEMA pgseal;
COMMENT ON SCHEMA pgseal IS 'pgseal: keyrings, encryption, search and rotation';

CREATE TABLE pgseal.keyring (
    id int4 CONSTRAINT keyring_pkey PRIMARY KEY CHECK (id > 0),
    uuid uuid NOT NULL UNIQUE,
    name name NOT NULL CONSTRAINT keyring_name_key UNIQUE,
    kms_endpoint text,
    kms_key text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now(),
    kms_search_key text
);
COMMENT ON TABLE pgseal.keyring IS 'keyrings; each has its own data keys and index keys';
COMMENT ON COLUMN pgseal.keyring.id IS 'the number in every value and in type modifiers, derived from the uuid';
COMMENT ON COLUMN pgseal.keyring.kms_endpoint IS 'where its wrapping key is; NULL for pgseal.kms_endpoint';
COMMENT ON COLUMN pgseal.keyring.kms_key IS 'name of the wrapping key at the KMS';
COMMENT ON COLUMN pgseal.keyring.kms_search_key IS 'name of the wrapping key of the index keys; NULL where it is the same';
COMMENT ON COLUMN pgseal.keyring.is_default IS 'used for values whose column and session name no keyring';

CREATE UNIQUE INDEX keyring_default ON pgseal.keyring (is_default) WHERE is_default;

CREATE TABLE pgseal.data_key (
    keyring int4 NOT NULL,
    version int4 NOT NULL CHECK (version BETWEEN 1 AND 65535),
    state text NOT NULL CHECK (state IN ('active', 'decrypt-only', 'retired', 'destroyed')),
    wrapped bytea,
    commitment bytea NOT NULL CHECK (octet_length(commitment) = 32),
    created timestamptz NOT NULL DEFAULT now(),
    retired timestamptz,
    CONSTRAINT data_key_pkey PRIMARY KEY (keyring, version)
);
COMMENT ON TABLE pgseal.data_key IS 'data keys, wrapped by the KMS; they seal values';
COMMENT ON COLUMN pgseal.data_key.wrapped IS 'what the KMS made of the key; the key itself is nowhere stored';
COMMENT ON COLUMN pgseal.data_key.commitment IS 'shows after each unwrap that the key is the one that was wrapped';

CREATE UNIQUE INDEX data_key_active ON pgseal.data_key (keyring) WHERE state = 'active';

CREATE TABLE pgseal.index_key (
    keyring int4 NOT NULL,
    version int4 NOT NULL CHECK (version BETWEEN 1 AND 65535),
    state text NOT NULL CHECK (state IN ('active', 'decrypt-only', 'retired', 'destroyed')),
    wrapped bytea,
    commitment bytea NOT NULL CHECK (octet_length(commitment) = 32),
    policy json NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    retired timestamptz,
    CONSTRAINT index_key_pkey PRIMARY KEY (keyring, version)
);
COMMENT ON TABLE pgseal.index_key IS 'index keys, wrapped by the KMS; they make search tokens';
COMMENT ON COLUMN pgseal.index_key.policy IS 'the searchable paths of this version';

CREATE UNIQUE INDEX index_key_active ON pgseal.index_key (keyring) WHERE state = 'active';

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

CREATE TABLE pgseal.privilege (
    keyring int4 NOT NULL,
    role pgseal.grantee NOT NULL,
    encrypt boolean NOT NULL DEFAULT false,
    search boolean NOT NULL DEFAULT false,
    decrypt boolean NOT NULL DEFAULT false,
    CONSTRAINT privilege_pkey PRIMARY KEY (keyring, role)
);
COMMENT ON TABLE pgseal.privilege
    IS 'what roles may do with a keyring; role - is PUBLIC; what waits for a role that a restore did not find is for the role that gets the name';

CREATE TABLE pgseal.protection (
    pattern text CONSTRAINT protection_pkey PRIMARY KEY,
    keyring int4,
    action text NOT NULL CHECK (action IN ('encrypt', 'refuse', 'allow')),
    types text[] NOT NULL,
    plain name[] NOT NULL
);
COMMENT ON TABLE pgseal.protection IS 'the rules of pgseal.protect: what becomes of plain columns of new tables';

SELECT pg_catalog.pg_extension_config_dump('pgseal.keyring', '');
SELECT pg_catalog.pg_extension_config_dump('pgseal.data_key', '');
SELECT pg_catalog.pg_extension_config_dump('pgseal.index_key', '');
-- A dropped role would be dumped as a number, which may be another role elsewhere.
SELECT pg_catalog.pg_extension_config_dump('pgseal.privilege', 'WHERE pgseal.is_missing(role) OR role = 0 OR role IN (SELECT oid FROM pg_catalog.pg_roles)');
SELECT pg_catalog.pg_extension_config_dump('pgseal.protection', '');
