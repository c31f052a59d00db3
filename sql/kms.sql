-- As the library has it: current_setting would believe what a role said before the library was loaded.
CREATE FUNCTION pgseal.kms_endpoint() RETURNS text
    AS 'MODULE_PATHNAME', 'pgseal_kms_endpoint' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.kms_endpoint() IS 'internal: the setting pgseal.kms_endpoint';

CREATE FUNCTION pgseal.set_kms_token(token text) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_set_kms_token' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.set_kms_token(text) IS 'a KMS token for this session alone, used instead of the server''s credentials; NULL, RESET ALL or DISCARD ALL takes it away';
CREATE FUNCTION pgseal.kms_problem(keyring text, OUT problem text, OUT hint text)
    AS 'MODULE_PATHNAME', 'pgseal_kms_problem_record' LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION pgseal.kms_problem(text) IS 'internal: what is wrong with a keyring''s KMS and what to do; NULL where it works';

CREATE FUNCTION pgseal.check_kms(keyring text, OUT kms_endpoint text, OUT kms_key text, OUT works boolean,
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
COMMENT ON FUNCTION pgseal.check_kms(text) IS 'one row: does the KMS of a keyring unwrap its key, how fast, and what is wrong';
