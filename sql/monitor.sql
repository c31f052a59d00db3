CREATE FUNCTION pgseal.counter(name text) RETURNS int8
    AS 'MODULE_PATHNAME', 'pgseal_counter' LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.counter(text) IS 'what this session has done; see the view stat';

CREATE VIEW pgseal.stat AS
    SELECT pgseal.counter('values_sealed') AS values_sealed,
           pgseal.counter('values_decrypted') AS values_decrypted,
           pgseal.counter('values_fetched') AS values_fetched,
           pgseal.counter('filters_made') AS filters_made,
           pgseal.counter('kms_calls') AS kms_calls,
           pgseal.counter('kms_failures') AS kms_failures,
           pgseal.counter('kms_microseconds') / 1000.0 AS kms_milliseconds,
           pgseal.counter('shared_key_hits') AS shared_key_hits,
           pgseal.shared_keys_held() AS shared_keys;
COMMENT ON VIEW pgseal.stat IS 'what this session has done since it began; for pg_monitor';
COMMENT ON COLUMN pgseal.stat.values_sealed IS 'values and parts of values encrypted';
COMMENT ON COLUMN pgseal.stat.values_decrypted IS 'values decrypted, for a recheck or to be shown';
COMMENT ON COLUMN pgseal.stat.values_fetched IS 'values that were stored out of line and read whole';
COMMENT ON COLUMN pgseal.stat.filters_made IS 'filters made from a query';
COMMENT ON COLUMN pgseal.stat.kms_calls IS 'calls of a KMS';
COMMENT ON COLUMN pgseal.stat.kms_failures IS 'calls of a KMS that failed';
COMMENT ON COLUMN pgseal.stat.kms_milliseconds IS 'time that calls of a KMS took';
COMMENT ON COLUMN pgseal.stat.shared_key_hits IS 'unwrapped keys taken from what all sessions share, instead of a call of a KMS';
COMMENT ON COLUMN pgseal.stat.shared_keys IS 'unwrapped keys that all sessions share now; NULL where pgseal is not in shared_preload_libraries';
