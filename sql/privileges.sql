-- What manages keys is for superusers and those they grant it to.
REVOKE EXECUTE ON FUNCTION
    pgseal.create_keyring(text, text[], text, text),
    pgseal.set_default_keyring(text),
    pgseal.rotate_key(text),
    pgseal.rotate_index_key(text),
    pgseal.set_searchable(text, text[]),
    pgseal.rewrap_keys(text),
    pgseal.flush_keys(),
    pgseal.grant_keyring(text, text, text[]),
    pgseal.revoke_keyring(text, text, text[]),
    pgseal.find_key(int4, int4),
    pgseal.column_keys(regclass, text),
    pgseal.retire_key(text, int4),
    pgseal.exclude_writers(int4, int4),
    pgseal.wait_for_transactions(),
    pgseal.key_tables_changed(),
    pgseal.drop_keyring(text, boolean),
    pgseal.kms_problem(text),
    pgseal.check_kms(text),
    pgseal.use_parallel_workers(boolean),
    pgseal.use_leakproof(boolean),
    pgseal.import_keyring(json),
    pgseal.register_manifest(text),
    pgseal.release_manifest(text),
    pgseal.refuse_registered(int4, int4)
FROM PUBLIC;
-- A call of the KMS that gives no key away, and drops cached ones where the KMS refuses.
GRANT EXECUTE ON FUNCTION pgseal.check_kms(text), pgseal.kms_problem(text) TO pg_monitor;
