-- Filters beside containment: ranges of numbers and times, and strings whatever their case.
CREATE FUNCTION pgseal.between_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_between_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.between_support(internal) IS 'planner support: token match AND exact match';
CREATE FUNCTION pgseal.between(value @extschema@.encrypted_jsonb, path text, low numeric, high numeric) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_between_numbers' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.between_support;
COMMENT ON FUNCTION pgseal.between(@extschema@.encrypted_jsonb, text, numeric, numeric)
    IS 'is a number at the path between the bounds, both included; NULL is open';
CREATE FUNCTION pgseal.between(value @extschema@.encrypted_jsonb, path text, low timestamptz, high timestamptz) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_between_times' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.between_support;
COMMENT ON FUNCTION pgseal.between(@extschema@.encrypted_jsonb, text, timestamptz, timestamptz)
    IS 'is a date or time at the path between the bounds, both included; NULL is open';
CREATE FUNCTION pgseal.between(value @extschema@.encrypted_jsonb, path text, low text, high text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_between_texts' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100
    SUPPORT pgseal.between_support;
COMMENT ON FUNCTION pgseal.between(@extschema@.encrypted_jsonb, text, text, text)
    IS 'the same for bounds without a type: numbers where they read as such, else times';
CREATE FUNCTION pgseal.filter_between_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_support' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_between_support(internal) IS 'planner support: keeps the plaintext of a constant out of plans';
CREATE FUNCTION pgseal.filter_between(path text, low numeric, high numeric, keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_numbers' LANGUAGE C STABLE PARALLEL RESTRICTED
    SUPPORT pgseal.filter_between_support;
COMMENT ON FUNCTION pgseal.filter_between(text, numeric, numeric, text) IS 'the condition "has a number at the path between the bounds", for @@';
CREATE FUNCTION pgseal.filter_between(path text, low timestamptz, high timestamptz, keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_times' LANGUAGE C STABLE PARALLEL RESTRICTED
    SUPPORT pgseal.filter_between_support;
COMMENT ON FUNCTION pgseal.filter_between(text, timestamptz, timestamptz, text) IS 'the condition "has a date or time at the path between the bounds", for @@';
CREATE FUNCTION pgseal.filter_between(path text, low text, high text, keyring text DEFAULT NULL) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_texts' LANGUAGE C STABLE PARALLEL RESTRICTED
    SUPPORT pgseal.filter_between_support;
COMMENT ON FUNCTION pgseal.filter_between(text, text, text, text) IS 'the same for bounds without a type';
CREATE FUNCTION pgseal.filter_between_for(text, numeric, numeric, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_numbers_for' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_between_for(text, numeric, numeric, int4) IS 'internal: the filter of a rewritten between with parameters';
CREATE FUNCTION pgseal.filter_between_for(text, timestamptz, timestamptz, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_times_for' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_between_for(text, timestamptz, timestamptz, int4) IS 'internal: the filter of a rewritten between with parameters';
CREATE FUNCTION pgseal.filter_between_for(text, text, text, int4) RETURNS @extschema@.encrypted_filter
    AS 'MODULE_PATHNAME', 'pgseal_filter_between_texts_for' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.filter_between_for(text, text, text, int4) IS 'internal: the filter of a rewritten between with parameters';
