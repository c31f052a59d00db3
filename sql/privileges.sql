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

-- Who may do what, whatever ALTER DEFAULT PRIVILEGES gave when these objects were made: nobody but the owner may do anything,
-- then what follows is given.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        WITH own AS (
            SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal'
        ), object (kind, name, owner, acl) AS (
            SELECT 'SCHEMA', n.oid::regnamespace::text, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
              FROM pg_namespace n WHERE n.nspname = 'pgseal'
            UNION ALL
            SELECT 'TABLE', c.oid::regclass::text, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner))
              FROM pg_class c JOIN own ON own.classid = 'pg_class'::regclass AND own.objid = c.oid WHERE c.relkind IN ('r', 'v')
            UNION ALL
            SELECT 'ROUTINE', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
              FROM pg_proc p JOIN own ON own.classid = 'pg_proc'::regclass AND own.objid = p.oid
            UNION ALL
            SELECT 'TYPE', t.oid::regtype::text, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
              FROM pg_type t JOIN own ON own.classid = 'pg_type'::regclass AND own.objid = t.oid WHERE t.typtype = 'b' AND t.typelem = 0
        )
        SELECT DISTINCT o.kind, o.name, a.grantee FROM object o CROSS JOIN LATERAL aclexplode(o.acl) a WHERE a.grantee <> o.owner
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.name,
                       CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END);
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA pgseal TO PUBLIC;
-- An owner's pg_dump must be able to read the tables; they hold wrapped keys only.
GRANT SELECT ON pgseal.keyring, pgseal.data_key, pgseal.index_key, pgseal.privilege, pgseal.manifest, pgseal.protection TO PUBLIC;
GRANT SELECT ON pgseal.keyrings, pgseal.keys, pgseal.rotation_progress, pgseal.protections TO PUBLIC;
-- The number of decrypted values tells how many rows have a token, those that row-level security hides too.
GRANT SELECT ON pgseal.stat TO pg_monitor;
GRANT EXECUTE ON FUNCTION pgseal.counter(text), pgseal.shared_keys_held() TO pg_monitor;
-- A call of the KMS that gives no key away, and drops cached ones where the KMS refuses.
GRANT EXECUTE ON FUNCTION pgseal.check_kms(text), pgseal.kms_problem(text) TO pg_monitor;
GRANT EXECUTE ON FUNCTION pgseal.audit_values(), pgseal.audit_evaluations(), pgseal.audit_settings(), pgseal.audit_reveal(), pgseal.audit_catalogs(interval), pgseal.audit(interval, int4) TO pg_monitor;

-- What every role may call. What is not here manages keys, or is for functions that run as their owner: it is for superusers and
-- those they grant it to. A function that only other functions call is here where these run as whoever called them.
DO $$
DECLARE
    allowed record;
BEGIN
    FOR allowed IN
        WITH own AS (
            SELECT p.oid, p.proname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_proc p ON p.oid = d.objid
             WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal'
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
        )
        SELECT own.oid::regprocedure AS routine FROM own JOIN listed ON listed.name = own.proname
        UNION
        -- What types, casts, operators and indexes are made of.
        SELECT own.oid::regprocedure FROM own
         WHERE own.oid IN (SELECT o.oprcode FROM pg_operator o UNION SELECT o.oprrest FROM pg_operator o UNION SELECT o.oprjoin FROM pg_operator o
                           UNION SELECT c.castfunc FROM pg_cast c UNION SELECT a.amproc FROM pg_amproc a UNION SELECT p.prosupport FROM pg_proc p
                           UNION SELECT unnest(ARRAY[t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout, t.typanalyze, t.typsubscript]) FROM pg_type t)
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO PUBLIC', allowed.routine);
    END LOOP;
    FOR allowed IN
        SELECT t.oid::regtype AS type FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_type t ON t.oid = d.objid
         WHERE d.classid = 'pg_type'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'pgseal'
           AND t.typtype = 'b' AND t.typelem = 0
    LOOP
        EXECUTE format('GRANT USAGE ON TYPE %s TO PUBLIC', allowed.type);
    END LOOP;
END $$;
