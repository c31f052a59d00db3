-- Parts of a document and changed documents; each decrypts and seals its result under the same keyring.
CREATE FUNCTION pgseal.field(@extschema@.encrypted_jsonb, text) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_field' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.field(@extschema@.encrypted_jsonb, text) IS 'implementation of -> operator';
CREATE FUNCTION pgseal.element(@extschema@.encrypted_jsonb, int4) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_element' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.element(@extschema@.encrypted_jsonb, int4) IS 'implementation of -> operator';
CREATE FUNCTION pgseal.path(@extschema@.encrypted_jsonb, text[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_path' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.path(@extschema@.encrypted_jsonb, text[]) IS 'implementation of #> operator';
CREATE FUNCTION pgseal.field_text(@extschema@.encrypted_jsonb, text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_field_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.field_text(@extschema@.encrypted_jsonb, text) IS 'implementation of ->> operator';
CREATE FUNCTION pgseal.element_text(@extschema@.encrypted_jsonb, int4) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_element_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.element_text(@extschema@.encrypted_jsonb, int4) IS 'implementation of ->> operator';
CREATE FUNCTION pgseal.path_text(@extschema@.encrypted_jsonb, text[]) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_path_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.path_text(@extschema@.encrypted_jsonb, text[]) IS 'implementation of #>> operator';
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
CREATE FUNCTION pgseal.key_exists(@extschema@.encrypted_jsonb, text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exists' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.key_exists(@extschema@.encrypted_jsonb, text) IS 'implementation of ? operator';
CREATE FUNCTION pgseal.any_key_exists(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exists_any' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.any_key_exists(@extschema@.encrypted_jsonb, text[]) IS 'implementation of ?| operator';
CREATE FUNCTION pgseal.all_keys_exist(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exists_all' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.operator_support;
COMMENT ON FUNCTION pgseal.all_keys_exist(@extschema@.encrypted_jsonb, text[]) IS 'implementation of ?& operator';
CREATE FUNCTION pgseal.concat(@extschema@.encrypted_jsonb, jsonb) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_concat' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.concat(@extschema@.encrypted_jsonb, jsonb) IS 'implementation of || operator';
CREATE FUNCTION pgseal.concat(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_concat_sealed' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.concat(@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'implementation of || operator';
CREATE FUNCTION pgseal.delete(@extschema@.encrypted_jsonb, text) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_delete' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.delete(@extschema@.encrypted_jsonb, text) IS 'implementation of - operator';
CREATE FUNCTION pgseal.delete(@extschema@.encrypted_jsonb, text[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_delete_all' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.delete(@extschema@.encrypted_jsonb, text[]) IS 'implementation of - operator';
CREATE FUNCTION pgseal.delete(@extschema@.encrypted_jsonb, int4) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_delete_element' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.delete(@extschema@.encrypted_jsonb, int4) IS 'implementation of - operator';
CREATE FUNCTION pgseal.delete_path(@extschema@.encrypted_jsonb, text[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_delete_path' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.delete_path(@extschema@.encrypted_jsonb, text[]) IS 'implementation of #- operator';

CREATE FUNCTION pgseal.equal_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_equal_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.equal_support(internal) IS 'planner support: token match AND exact match';
CREATE FUNCTION pgseal.differ_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_differ_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.differ_support(internal) IS 'planner support: NOT the exact match';
CREATE FUNCTION pgseal.filter_text(int4, text[], text, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_text(int4, text[], text, int4) IS 'internal: the filter of a rewritten = with a parameter';
CREATE FUNCTION pgseal.filter_text(int4, text[], @extschema@.encrypted_text, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_sealed_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_text(int4, text[], @extschema@.encrypted_text, int4) IS 'internal: the filter of a rewritten = with a parameter';
CREATE FUNCTION pgseal.equal(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_sealed' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.equal_support;
COMMENT ON FUNCTION pgseal.equal(@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'implementation of = operator';
CREATE FUNCTION pgseal.differ(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_sealed' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.differ_support;
COMMENT ON FUNCTION pgseal.differ(@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'implementation of <> operator';
CREATE FUNCTION pgseal.equal(@extschema@.encrypted_text, text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_equal_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.equal_support;
COMMENT ON FUNCTION pgseal.equal(@extschema@.encrypted_text, text) IS 'implementation of = operator';
CREATE FUNCTION pgseal.differ(@extschema@.encrypted_text, text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_differ_text' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.differ_support;
COMMENT ON FUNCTION pgseal.differ(@extschema@.encrypted_text, text) IS 'implementation of <> operator';
CREATE FUNCTION pgseal.equal(text, @extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_text_equal' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.equal_support;
COMMENT ON FUNCTION pgseal.equal(text, @extschema@.encrypted_text) IS 'implementation of = operator';
CREATE FUNCTION pgseal.differ(text, @extschema@.encrypted_text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_text_differ' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.differ_support;
COMMENT ON FUNCTION pgseal.differ(text, @extschema@.encrypted_text) IS 'implementation of <> operator';

CREATE OPERATOR @extschema@.-> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text, FUNCTION = pgseal.field);
COMMENT ON OPERATOR @extschema@.-> (@extschema@.encrypted_jsonb, text) IS 'part of a document, by key or position';
CREATE OPERATOR @extschema@.-> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = int4, FUNCTION = pgseal.element);
COMMENT ON OPERATOR @extschema@.-> (@extschema@.encrypted_jsonb, int4) IS 'part of a document, by key or position';
CREATE OPERATOR @extschema@.#> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text[], FUNCTION = pgseal.path);
COMMENT ON OPERATOR @extschema@.#> (@extschema@.encrypted_jsonb, text[]) IS 'part of a document, by path';
CREATE OPERATOR @extschema@.->> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text, FUNCTION = pgseal.field_text);
COMMENT ON OPERATOR @extschema@.->> (@extschema@.encrypted_jsonb, text) IS 'part of a document as text';
CREATE OPERATOR @extschema@.->> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = int4, FUNCTION = pgseal.element_text);
COMMENT ON OPERATOR @extschema@.->> (@extschema@.encrypted_jsonb, int4) IS 'part of a document as text';
CREATE OPERATOR @extschema@.#>> (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text[], FUNCTION = pgseal.path_text);
COMMENT ON OPERATOR @extschema@.#>> (@extschema@.encrypted_jsonb, text[]) IS 'part of a document as text, by path';
CREATE OPERATOR @extschema@.? (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text, FUNCTION = pgseal.key_exists, RESTRICT = pgseal.key_selectivity, JOIN = contjoinsel);
COMMENT ON OPERATOR @extschema@.? (@extschema@.encrypted_jsonb, text) IS 'does the key exist';
CREATE OPERATOR @extschema@.?| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text[], FUNCTION = pgseal.any_key_exists, RESTRICT = pgseal.key_selectivity, JOIN = contjoinsel);
COMMENT ON OPERATOR @extschema@.?| (@extschema@.encrypted_jsonb, text[]) IS 'does one of the keys exist';
CREATE OPERATOR @extschema@.?& (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text[], FUNCTION = pgseal.all_keys_exist, RESTRICT = pgseal.key_selectivity, JOIN = contjoinsel);
COMMENT ON OPERATOR @extschema@.?& (@extschema@.encrypted_jsonb, text[]) IS 'do all the keys exist';
CREATE OPERATOR @extschema@.|| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.concat);
COMMENT ON OPERATOR @extschema@.|| (@extschema@.encrypted_jsonb, jsonb) IS 'concatenate documents';
CREATE OPERATOR @extschema@.|| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.concat);
COMMENT ON OPERATOR @extschema@.|| (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb) IS 'concatenate documents';
CREATE OPERATOR @extschema@.- (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text, FUNCTION = pgseal.delete);
COMMENT ON OPERATOR @extschema@.- (@extschema@.encrypted_jsonb, text) IS 'without keys or an element';
CREATE OPERATOR @extschema@.- (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text[], FUNCTION = pgseal.delete);
COMMENT ON OPERATOR @extschema@.- (@extschema@.encrypted_jsonb, text[]) IS 'without keys or an element';
CREATE OPERATOR @extschema@.- (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = int4, FUNCTION = pgseal.delete);
COMMENT ON OPERATOR @extschema@.- (@extschema@.encrypted_jsonb, int4) IS 'without keys or an element';
CREATE OPERATOR @extschema@.#- (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = text[], FUNCTION = pgseal.delete_path);
COMMENT ON OPERATOR @extschema@.#- (@extschema@.encrypted_jsonb, text[]) IS 'without what is at the path';

-- No MERGES: an order needs decrypt, and a role that only searches would lose its joins. HASHES where both sides are ours.
-- In pg_catalog, so that every search_path finds the ones that IS DISTINCT FROM, CASE and the like imply.
CREATE OPERATOR pg_catalog.= (LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
COMMENT ON OPERATOR pg_catalog.= (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'equal';
CREATE OPERATOR pg_catalog.<> (LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'not equal';
CREATE OPERATOR pg_catalog.= (LEFTARG = @extschema@.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR pg_catalog.= (@extschema@.encrypted_text, text) IS 'equal';
CREATE OPERATOR pg_catalog.= (LEFTARG = text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(pg_catalog.=), NEGATOR = OPERATOR(pg_catalog.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR pg_catalog.= (text, @extschema@.encrypted_text) IS 'equal';
CREATE OPERATOR pg_catalog.<> (LEFTARG = @extschema@.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> (@extschema@.encrypted_text, text) IS 'not equal';
CREATE OPERATOR pg_catalog.<> (LEFTARG = text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(pg_catalog.<>), NEGATOR = OPERATOR(pg_catalog.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR pg_catalog.<> (text, @extschema@.encrypted_text) IS 'not equal';
-- Dumps of 0.2.0 name these.
CREATE OPERATOR @extschema@.= (LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), NEGATOR = OPERATOR(@extschema@.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.<> (LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(@extschema@.<>), NEGATOR = OPERATOR(@extschema@.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR @extschema@.<> (@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'not equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.= (LEFTARG = @extschema@.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), NEGATOR = OPERATOR(@extschema@.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (@extschema@.encrypted_text, text) IS 'equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.= (LEFTARG = text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), NEGATOR = OPERATOR(@extschema@.<>), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (text, @extschema@.encrypted_text) IS 'equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.<> (LEFTARG = @extschema@.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(@extschema@.<>), NEGATOR = OPERATOR(@extschema@.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR @extschema@.<> (@extschema@.encrypted_text, text) IS 'not equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.<> (LEFTARG = text, RIGHTARG = @extschema@.encrypted_text, FUNCTION = pgseal.differ,
    COMMUTATOR = OPERATOR(@extschema@.<>), NEGATOR = OPERATOR(@extschema@.=), RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR @extschema@.<> (text, @extschema@.encrypted_text) IS 'not equal; for dumps of 0.2.0';

-- Operators that PostgreSQL would not find by the casts to jsonb and text alone. They refuse, with what to write instead, unless the
-- planner finds that the value goes to the client and takes PostgreSQL's own. Without the one with text, text || anynonarray would decrypt through the explicit cast.
CREATE FUNCTION pgseal.unsupported(jsonb, @extschema@.encrypted_jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_unsupported' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(jsonb, @extschema@.encrypted_jsonb) IS 'refuses an operator that ciphertext cannot answer';
CREATE FUNCTION pgseal.unsupported(@extschema@.encrypted_jsonb, jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_unsupported' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(@extschema@.encrypted_jsonb, jsonb) IS 'refuses an operator that ciphertext cannot answer';
CREATE FUNCTION pgseal.unsupported(text, @extschema@.encrypted_jsonb) RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_unsupported' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.unsupported(text, @extschema@.encrypted_jsonb) IS 'refuses an operator that ciphertext cannot answer';
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
-- Dumps of 0.2.0 name these.
CREATE OPERATOR @extschema@.= (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (@extschema@.encrypted_jsonb, jsonb) IS 'equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.= (LEFTARG = jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.equal,
    COMMUTATOR = OPERATOR(@extschema@.=), RESTRICT = eqsel, JOIN = eqjoinsel);
COMMENT ON OPERATOR @extschema@.= (jsonb, @extschema@.encrypted_jsonb) IS 'equal; for dumps of 0.2.0';
CREATE OPERATOR @extschema@.<@ (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR @extschema@.<@ (@extschema@.encrypted_jsonb, jsonb) IS 'refused: ciphertext cannot answer it';
CREATE OPERATOR @extschema@.<@ (LEFTARG = jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR @extschema@.<@ (jsonb, @extschema@.encrypted_jsonb) IS 'refused: ciphertext cannot answer it';
-- In pg_catalog, so that no search_path goes without them.
CREATE OPERATOR pg_catalog.|| (LEFTARG = text, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR pg_catalog.|| (text, @extschema@.encrypted_jsonb) IS 'refused: ciphertext cannot answer it';
CREATE OPERATOR pg_catalog.|| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.concat);
COMMENT ON OPERATOR pg_catalog.|| (@extschema@.encrypted_jsonb, jsonb)
    IS 'concatenate documents; here as well, or a literal would become text with an empty search_path';
CREATE OPERATOR pg_catalog.|| (LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.concat);
COMMENT ON OPERATOR pg_catalog.|| (@extschema@.encrypted_jsonb, @extschema@.encrypted_jsonb)
    IS 'concatenate documents; here as well, or a literal would become text with an empty search_path';
-- Dumps of 0.2.0 may name this one, too.
CREATE OPERATOR @extschema@.|| (LEFTARG = text, RIGHTARG = @extschema@.encrypted_jsonb, FUNCTION = pgseal.unsupported);
COMMENT ON OPERATOR @extschema@.|| (text, @extschema@.encrypted_jsonb) IS 'refused: ciphertext cannot answer it; for dumps of 0.2.0';

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
    operator text;
    restriction text;
    estimate text;
BEGIN
    FOR name, operator, restriction, estimate IN VALUES
        ('text_lt', '<', 'scalarltsel', 'scalarlt'), ('text_le', '<=', 'scalarlesel', 'scalarle'),
        ('text_gt', '>', 'scalargtsel', 'scalargt'), ('text_ge', '>=', 'scalargesel', 'scalarge'),
        ('text_like', '~~', 'pgseal.pattern_selectivity', 'matching'),
        ('text_not_like', '!~~', 'pgseal.no_pattern_selectivity', 'matching'),
        ('text_ilike', '~~*', 'pgseal.pattern_selectivity', 'matching'),
        ('text_not_ilike', '!~~*', 'pgseal.no_pattern_selectivity', 'matching'),
        ('text_regex', '~', 'pgseal.pattern_selectivity', 'matching'),
        ('text_not_regex', '!~', 'pgseal.no_pattern_selectivity', 'matching'),
        ('text_iregex', '~*', 'pgseal.pattern_selectivity', 'matching'),
        ('text_not_iregex', '!~*', 'pgseal.no_pattern_selectivity', 'matching')
    LOOP
        EXECUTE format('CREATE FUNCTION pgseal.%1$I(%2$s.encrypted_text, text) RETURNS boolean
            AS ''MODULE_PATHNAME'', ''pgseal_%1$s'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
            SUPPORT pgseal.operator_support', name, '@extschema@');
        EXECUTE format('CREATE OPERATOR %1$s.%2$s (LEFTARG = %1$s.encrypted_text, RIGHTARG = text, FUNCTION = pgseal.%3$I,
            RESTRICT = %4$s, JOIN = %5$sjoinsel)', '@extschema@', operator, name, restriction, estimate);
        EXECUTE format('COMMENT ON FUNCTION pgseal.%I(%s.encrypted_text, text) IS ''implementation of %s operator''', name, '@extschema@', operator);
        EXECUTE format('COMMENT ON OPERATOR %1$s.%2$s (%1$s.encrypted_text, text) IS ''as for text; decrypts''', '@extschema@', operator);
    END LOOP;
END $$;

-- jsonb's own functions of these names, which some frameworks call: with pgseal in the search_path. In the schema of the types they
-- would make calls with nothing but literals ambiguous. Whole documents are looked at: they need decrypt.
CREATE FUNCTION pgseal.jsonb_exists(@extschema@.encrypted_jsonb, text) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists(pgseal.decrypt($1), $2);
COMMENT ON FUNCTION pgseal.jsonb_exists(@extschema@.encrypted_jsonb, text) IS 'as for jsonb; decrypts';
CREATE FUNCTION pgseal.jsonb_exists_any(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_any(pgseal.decrypt($1), $2);
COMMENT ON FUNCTION pgseal.jsonb_exists_any(@extschema@.encrypted_jsonb, text[]) IS 'as for jsonb; decrypts';
CREATE FUNCTION pgseal.jsonb_exists_all(@extschema@.encrypted_jsonb, text[]) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_exists_all(pgseal.decrypt($1), $2);
COMMENT ON FUNCTION pgseal.jsonb_exists_all(@extschema@.encrypted_jsonb, text[]) IS 'as for jsonb; decrypts';
CREATE FUNCTION pgseal.jsonb_path_exists(@extschema@.encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_exists(pgseal.decrypt($1), $2, $3, $4);
COMMENT ON FUNCTION pgseal.jsonb_path_exists(@extschema@.encrypted_jsonb, jsonpath, jsonb, boolean) IS 'as for jsonb; decrypts';
CREATE FUNCTION pgseal.jsonb_path_match(@extschema@.encrypted_jsonb, jsonpath, jsonb DEFAULT '{}', boolean DEFAULT false) RETURNS boolean
    LANGUAGE sql STABLE STRICT PARALLEL RESTRICTED COST 100 RETURN pg_catalog.jsonb_path_match(pgseal.decrypt($1), $2, $3, $4);
COMMENT ON FUNCTION pgseal.jsonb_path_match(@extschema@.encrypted_jsonb, jsonpath, jsonb, boolean) IS 'as for jsonb; decrypts';
