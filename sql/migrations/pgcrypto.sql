-- Moves a bytea column that pgcrypto's pgp_sym_encrypt made to encrypted_jsonb or encrypted_text, while it is in use. It can be
-- stopped and run again. The passphrase comes from the file, and is part of no statement that a log could keep:
--
--   psql -v table=docs -v column=metadata -v type=encrypted_jsonb -v keyring=patients -v searchable='{$.name}' -f pgcrypto.sql < passphrase
--
-- Applications that still write with pgcrypto fail from the swap at the end on. Drop columns with HMACs of single fields, which
-- searched the old values, when nothing uses them any more. Plaintext is in no file; values sealed with the old passphrase stay in
-- dead rows until VACUUM FULL, and in WAL and backups.
\set ON_ERROR_STOP on
\if :{?searchable}
\else
  \set searchable '{}'
\endif

CREATE EXTENSION IF NOT EXISTS pgseal CASCADE;
SELECT NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.name = :'keyring') AS new_keyring \gset
\if :new_keyring
  SELECT pgseal.create_keyring(:'keyring', :'searchable');
\endif

CREATE TEMPORARY TABLE pgcrypto_passphrase (passphrase text);
\copy pgcrypto_passphrase FROM pstdin
SET migrate.target = :'table';
SET migrate.attribute = :'column';
SET migrate.base = :'type';

-- The second column, and a trigger that empties it where the old value changes: other sessions do not have the passphrase.
SELECT NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = :'table'::regclass AND attname = 'pgseal_from_pgcrypto') AS new_column \gset
\if :new_column
BEGIN;
SET LOCAL lock_timeout = '5s';
ALTER TABLE :table ADD COLUMN pgseal_from_pgcrypto :type(:keyring);
CREATE FUNCTION pgseal_from_pgcrypto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.pgseal_from_pgcrypto := NULL; RETURN NEW; END';
CREATE TRIGGER "~pgseal_from_pgcrypto" BEFORE UPDATE OF :"column" ON :table FOR EACH ROW EXECUTE FUNCTION pgseal_from_pgcrypto();
COMMIT;
\endif

DO $$
DECLARE
    target regclass := current_setting('migrate.target')::regclass;
    plaintext text := format(CASE current_setting('migrate.base') WHEN 'encrypted_text' THEN 'pgp_sym_decrypt(%I, $1)' ELSE 'pgp_sym_decrypt(%I, $1)::jsonb' END,
                             current_setting('migrate.attribute'));
    passphrase text := (SELECT p.passphrase FROM pgcrypto_passphrase p);
    page int8 := 0;
    wrong int8;
BEGIN
    WHILE page < pg_relation_size(target) / current_setting('block_size')::int8 LOOP
        EXECUTE format('UPDATE %s SET pgseal_from_pgcrypto = %s WHERE ctid >= $2 AND ctid < $3 AND pgseal_from_pgcrypto IS NULL AND %I IS NOT NULL',
                       target, plaintext, current_setting('migrate.attribute'))
            USING passphrase, format('(%s,0)', page)::tid, format('(%s,0)', page + 20)::tid;
        COMMIT;
        page := page + 20;
    END LOOP;

    EXECUTE format('SELECT count(*) FROM %s WHERE pgseal_from_pgcrypto IS NOT NULL AND pgseal.decrypt(pgseal_from_pgcrypto)::text <> (%s)::text', target, plaintext)
       INTO wrong USING passphrase;
    IF wrong > 0 THEN
        RAISE EXCEPTION '% rows do not have the same value in both columns', wrong;
    END IF;
    COMMIT;

    PERFORM set_config('lock_timeout', '5s', true);
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);
    -- What was written meanwhile.
    EXECUTE format('UPDATE %s SET pgseal_from_pgcrypto = %s WHERE pgseal_from_pgcrypto IS NULL AND %I IS NOT NULL',
                   target, plaintext, current_setting('migrate.attribute')) USING passphrase;
    EXECUTE format('SELECT count(*) FROM %s WHERE pgseal_from_pgcrypto IS NULL <> (%I IS NULL)', target, current_setting('migrate.attribute')) INTO wrong;
    IF wrong > 0 THEN
        RAISE EXCEPTION '% rows have a value in one column only', wrong;
    END IF;
    EXECUTE format('DROP TRIGGER "~pgseal_from_pgcrypto" ON %s', target);
    DROP FUNCTION pgseal_from_pgcrypto();
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', target, current_setting('migrate.attribute'));
    EXECUTE format('ALTER TABLE %s RENAME COLUMN pgseal_from_pgcrypto TO %I', target, current_setting('migrate.attribute'));
END $$;

DROP TABLE pgcrypto_passphrase;
SELECT format('CREATE INDEX CONCURRENTLY ON %s USING gin (%I)', :'table'::regclass, :'column') \gexec
ANALYZE :table;
