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
SELECT NOT EXISTS (SELECT FROM pgseal.keyring k WHERE k.name OPERATOR(pg_catalog.=) :'keyring') AS new_keyring \gset
\if :new_keyring
  SELECT pgseal.create_keyring(:'keyring', :'searchable');
\endif

CREATE TEMPORARY TABLE pgcrypto_passphrase (passphrase pg_catalog.text);
\copy pg_temp.pgcrypto_passphrase FROM pstdin
SET migrate.target = :'table';
SET migrate.attribute = :'column';
SET migrate.base = :'type';
-- Names and operators are qualified, because the path may hold some of others; the table is looked for in it.
SELECT n.nspname AS pgcrypto FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
 WHERE e.extname OPERATOR(pg_catalog.=) 'pgcrypto' \gset
SELECT n.nspname AS types FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
 WHERE e.extname OPERATOR(pg_catalog.=) 'pgseal' \gset
SET migrate.pgcrypto = :'pgcrypto';

-- The second column, and a trigger that empties it where the old value changes: other sessions do not have the passphrase.
SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid OPERATOR(pg_catalog.=) :'table'::pg_catalog.regclass
                      AND attname OPERATOR(pg_catalog.=) 'pgseal_from_pgcrypto') AS new_column \gset
\if :new_column
BEGIN;
SET LOCAL lock_timeout = '5s';
ALTER TABLE :table ADD COLUMN pgseal_from_pgcrypto :"types".:type(:keyring);
CREATE FUNCTION pgseal_from_pgcrypto() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS 'BEGIN NEW.pgseal_from_pgcrypto := NULL; RETURN NEW; END';
CREATE TRIGGER "~pgseal_from_pgcrypto" BEFORE UPDATE OF :"column" ON :table FOR EACH ROW EXECUTE FUNCTION pgseal_from_pgcrypto();
COMMIT;
\endif

DO $$
DECLARE
    target pg_catalog.regclass := pg_catalog.current_setting('migrate.target')::pg_catalog.regclass;
    attribute pg_catalog.text := pg_catalog.current_setting('migrate.attribute');
    plaintext pg_catalog.text := pg_catalog.format(
        CASE WHEN pg_catalog.current_setting('migrate.base') OPERATOR(pg_catalog.=) 'encrypted_text' THEN '%I.pgp_sym_decrypt(%I, $1)'
             ELSE '%I.pgp_sym_decrypt(%I, $1)::pg_catalog.jsonb' END, pg_catalog.current_setting('migrate.pgcrypto'), attribute);
    passphrase pg_catalog.text := (SELECT p.passphrase FROM pg_temp.pgcrypto_passphrase p);
    page pg_catalog.int8 := 0;
    pages_at_once CONSTANT pg_catalog.int8 := 20;
    wrong pg_catalog.int8;
BEGIN
    WHILE page OPERATOR(pg_catalog.<) pgseal.pages_of(target) LOOP
        EXECUTE pg_catalog.format('UPDATE %s SET pgseal_from_pgcrypto = %s WHERE ctid OPERATOR(pg_catalog.>=) $2 AND ctid OPERATOR(pg_catalog.<) $3
                                      AND pgseal_from_pgcrypto IS NULL AND %I IS NOT NULL', target, plaintext, attribute)
            USING passphrase, pgseal.start_of_page(page), pgseal.start_of_page(page OPERATOR(pg_catalog.+) pages_at_once);
        COMMIT;
        page := page OPERATOR(pg_catalog.+) pages_at_once;
    END LOOP;

    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s WHERE pgseal_from_pgcrypto IS NOT NULL
                                  AND pgseal.decrypt(pgseal_from_pgcrypto)::pg_catalog.text OPERATOR(pg_catalog.<>) (%s)::pg_catalog.text', target, plaintext)
       INTO wrong USING passphrase;
    IF wrong OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% rows do not have the same value in both columns', wrong;
    END IF;
    COMMIT;

    PERFORM pg_catalog.set_config('lock_timeout', '5s', true);
    EXECUTE pg_catalog.format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);
    -- What was written meanwhile.
    EXECUTE pg_catalog.format('UPDATE %s SET pgseal_from_pgcrypto = %s WHERE pgseal_from_pgcrypto IS NULL AND %I IS NOT NULL',
                              target, plaintext, attribute) USING passphrase;
    EXECUTE pg_catalog.format('SELECT pg_catalog.count(*) FROM %s WHERE (pgseal_from_pgcrypto IS NULL) OPERATOR(pg_catalog.<>) (%I IS NULL)',
                              target, attribute) INTO wrong;
    IF wrong OPERATOR(pg_catalog.>) 0 THEN
        RAISE EXCEPTION '% rows have a value in one column only', wrong;
    END IF;
    EXECUTE pg_catalog.format('DROP TRIGGER "~pgseal_from_pgcrypto" ON %s', target);
    DROP FUNCTION pgseal_from_pgcrypto();
    EXECUTE pg_catalog.format('ALTER TABLE %s DROP COLUMN %I', target, attribute);
    EXECUTE pg_catalog.format('ALTER TABLE %s RENAME COLUMN pgseal_from_pgcrypto TO %I', target, attribute);
END $$;

DROP TABLE pg_temp.pgcrypto_passphrase;
SELECT pg_catalog.format('CREATE INDEX CONCURRENTLY ON %s USING gin (%I)', :'table'::pg_catalog.regclass, :'column') \gexec
ANALYZE :table;
