CREATE FUNCTION pgseal.filter_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_filter_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_support(internal) IS 'planner support: keeps the plaintext of a constant out of plans';
CREATE FUNCTION pgseal.filter_any_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_filter_any_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_any_support(internal) IS 'planner support: keeps the plaintext of a constant out of plans';
CREATE FUNCTION pgseal.contains_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_contains_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.contains_support(internal) IS 'planner support: token match AND exact match';
CREATE FUNCTION pgseal.matches_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_matches_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.matches_support(internal) IS 'planner support: token match AND exact match';

CREATE FUNCTION pgseal.filter(query jsonb, keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter' LANGUAGE C STABLE PARALLEL RESTRICTED SUPPORT pgseal.filter_support;
COMMENT ON FUNCTION pgseal.filter(jsonb, text) IS 'the condition "contains this document", for @@';
CREATE FUNCTION pgseal.filter_any(queries jsonb[], keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_any' LANGUAGE C STABLE PARALLEL RESTRICTED SUPPORT pgseal.filter_any_support;
COMMENT ON FUNCTION pgseal.filter_any(jsonb[], text) IS 'the condition "contains one of these documents", for @@';

CREATE FUNCTION pgseal.filter_casefold_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_filter_casefold_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_casefold_support(internal) IS 'planner support: keeps the plaintext of a constant out of plans';
CREATE FUNCTION pgseal.filter_casefold(query jsonb, keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_casefold' LANGUAGE C STABLE PARALLEL RESTRICTED SUPPORT pgseal.filter_casefold_support;
COMMENT ON FUNCTION pgseal.filter_casefold(jsonb, text) IS 'the condition "contains this document, whatever the case of its strings", for @@';
CREATE FUNCTION pgseal.filter_for(jsonb, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_for' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_for(jsonb, int4) IS 'internal: the filter of a rewritten @> with a parameter';
CREATE FUNCTION pgseal.filter_in(@extschema@.encrypted_filter, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_in_column' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_in(@extschema@.encrypted_filter, int4) IS 'internal: a filter that names no keyring takes its column''s';
CREATE FUNCTION pgseal.refresh(@extschema@.encrypted_filter) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_refresh' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.refresh(@extschema@.encrypted_filter) IS 'internal: the filter as the keys and settings of this execution need it';

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

CREATE FUNCTION pgseal.contains(@extschema@.encrypted_jsonb, jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_contains' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.contains_support;
COMMENT ON FUNCTION pgseal.contains(@extschema@.encrypted_jsonb, jsonb) IS 'implementation of @> operator';
CREATE FUNCTION pgseal.matches(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_matches' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.matches_support;
COMMENT ON FUNCTION pgseal.matches(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'implementation of @@ operator';

-- LEAKPROOF: bytes only, no key, and no outcome but true, false and NULL depends on the row.
CREATE FUNCTION pgseal.token_match(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_token_match' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE COST 1;
COMMENT ON FUNCTION pgseal.token_match(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: may the value match? Bytes only, needs no key';
CREATE FUNCTION pgseal.token_match(@extschema@.encrypted_text, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_token_match' LANGUAGE C IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE COST 1;
COMMENT ON FUNCTION pgseal.token_match(@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: may the value match? Bytes only, needs no key';

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

CREATE FUNCTION pgseal.exact_match(@extschema@.encrypted_text, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_match' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_match(@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: decrypts and compares';
CREATE FUNCTION pgseal.exact_match(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_exact_match' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_match(@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: decrypts and compares';
CREATE FUNCTION pgseal.exact_match(@extschema@.encrypted_jsonb, jsonb) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_contains' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.exact_match(@extschema@.encrypted_jsonb, jsonb) IS 'internal: decrypts and compares';
CREATE FUNCTION pgseal.exact_selectivity(internal, oid, internal, int4) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_exact_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.exact_selectivity(internal, oid, internal, int4) IS 'internal: 1 where the token match has been counted';
CREATE FUNCTION pgseal.exact_join_selectivity(internal, oid, internal, int2, internal) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_exact_join_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.exact_join_selectivity(internal, oid, internal, int2, internal) IS 'internal: 1, the token match has been counted';
CREATE FUNCTION pgseal.token_selectivity(internal, oid, internal, int4) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_token_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.token_selectivity(internal, oid, internal, int4)
    IS 'internal: the share of rows that a filter lets through, from the statistics on tokens';
CREATE FUNCTION pgseal.token_join_selectivity(internal, oid, internal, int2, internal) RETURNS float8
    AS 'MODULE_PATHNAME', 'pgseal_token_join_selectivity' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.token_join_selectivity(internal, oid, internal, int2, internal) IS 'internal: the share of rows for a filter not known yet';

CREATE OPERATOR @extschema@.@> (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.contains,
    RESTRICT = contsel, JOIN = contjoinsel
);
COMMENT ON OPERATOR @extschema@.@> (@extschema@.encrypted_jsonb, jsonb) IS 'contains, exactly as for jsonb';
CREATE OPERATOR @extschema@.@@ (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.matches,
    RESTRICT = contsel, JOIN = contjoinsel
);
COMMENT ON OPERATOR @extschema@.@@ (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'matches the filter';
CREATE OPERATOR pgseal.@~ (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.token_match,
    RESTRICT = pgseal.token_selectivity, JOIN = pgseal.token_join_selectivity
);
COMMENT ON OPERATOR pgseal.@~ (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: may match, by tokens';
CREATE OPERATOR pgseal.@~ (
    LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.token_match,
    RESTRICT = pgseal.token_selectivity, JOIN = pgseal.token_join_selectivity
);
COMMENT ON OPERATOR pgseal.@~ (@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: may match, by tokens';
CREATE OPERATOR pgseal.@># (
    LEFTARG = @extschema@.encrypted_text, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_match,
    RESTRICT = pgseal.exact_selectivity, JOIN = pgseal.exact_join_selectivity
);
COMMENT ON OPERATOR pgseal.@># (@extschema@.encrypted_text, @extschema@.encrypted_filter) IS 'internal: matches exactly';
CREATE OPERATOR pgseal.@># (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = @extschema@.encrypted_filter, FUNCTION = pgseal.exact_match,
    RESTRICT = pgseal.exact_selectivity, JOIN = pgseal.exact_join_selectivity
);
COMMENT ON OPERATOR pgseal.@># (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter) IS 'internal: matches exactly';
CREATE OPERATOR pgseal.@># (
    LEFTARG = @extschema@.encrypted_jsonb, RIGHTARG = jsonb, FUNCTION = pgseal.exact_match,
    RESTRICT = pgseal.exact_selectivity, JOIN = pgseal.exact_join_selectivity
);
COMMENT ON OPERATOR pgseal.@># (@extschema@.encrypted_jsonb, jsonb) IS 'internal: contains exactly';

CREATE FUNCTION pgseal.gin_extract_value(@extschema@.encrypted_jsonb, internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_gin_extract_value' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.gin_extract_value(@extschema@.encrypted_jsonb, internal, internal) IS 'GIN support';
CREATE FUNCTION pgseal.gin_extract_value(@extschema@.encrypted_text, internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_gin_extract_value' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.gin_extract_value(@extschema@.encrypted_text, internal, internal) IS 'GIN support';
CREATE FUNCTION pgseal.gin_extract_query(@extschema@.encrypted_filter, internal, int2, internal, internal, internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_gin_extract_query' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.gin_extract_query(@extschema@.encrypted_filter, internal, int2, internal, internal, internal, internal) IS 'GIN support';
CREATE FUNCTION pgseal.gin_consistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal, internal) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_gin_consistent' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.gin_consistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal, internal) IS 'GIN support';
CREATE FUNCTION pgseal.gin_triconsistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal) RETURNS "char"
    AS 'MODULE_PATHNAME', 'pgseal_gin_triconsistent' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION pgseal.gin_triconsistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal) IS 'GIN support';

CREATE OPERATOR CLASS @extschema@.encrypted_jsonb_ops DEFAULT FOR TYPE @extschema@.encrypted_jsonb USING gin AS
    OPERATOR 1 pgseal.@~ (@extschema@.encrypted_jsonb, @extschema@.encrypted_filter),
    FUNCTION 1 btint8cmp(int8, int8),
    FUNCTION 2 pgseal.gin_extract_value(@extschema@.encrypted_jsonb, internal, internal),
    FUNCTION 3 pgseal.gin_extract_query(@extschema@.encrypted_filter, internal, int2, internal, internal, internal, internal),
    FUNCTION 4 pgseal.gin_consistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal, internal),
    FUNCTION 6 pgseal.gin_triconsistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal),
    STORAGE int8;
COMMENT ON OPERATOR CLASS @extschema@.encrypted_jsonb_ops USING gin IS 'search tokens of encrypted documents';

CREATE OPERATOR CLASS @extschema@.encrypted_text_ops DEFAULT FOR TYPE @extschema@.encrypted_text USING gin AS
    OPERATOR 1 pgseal.@~ (@extschema@.encrypted_text, @extschema@.encrypted_filter),
    FUNCTION 1 btint8cmp(int8, int8),
    FUNCTION 2 pgseal.gin_extract_value(@extschema@.encrypted_text, internal, internal),
    FUNCTION 3 pgseal.gin_extract_query(@extschema@.encrypted_filter, internal, int2, internal, internal, internal, internal),
    FUNCTION 4 pgseal.gin_consistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal, internal),
    FUNCTION 6 pgseal.gin_triconsistent(internal, int2, @extschema@.encrypted_filter, int4, internal, internal, internal),
    STORAGE int8;
COMMENT ON OPERATOR CLASS @extschema@.encrypted_text_ops USING gin IS 'search tokens of encrypted texts, where $ is searchable';
