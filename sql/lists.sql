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
