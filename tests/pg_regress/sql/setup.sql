-- The table of all other files: the same documents and texts, plain and sealed.
SELECT pgseal.create_keyring('patients', searchable => ARRAY['$.name', '$.tags', '$.address.city', '$',
    '{"path": "$.age", "range": {"min": 0, "max": 150, "step": 1}}', '{"path": "$.ward", "casefold": true}']) > 0 AS created;
CREATE TABLE docs (id int, plain jsonb, sealed encrypted_jsonb(patients), words text, body encrypted_text(patients));
INSERT INTO docs SELECT id, document, document, word, word FROM (VALUES
    (1, '{"name": "John Smith", "age": 52, "tags": ["urgent", "new"], "ward": "North", "note": null}'::jsonb, 'one'),
    (2, '{"name": "Mary Jones", "age": 7, "address": {"city": "Bern", "street": "x"}, "ward": "NORTH"}', 'two'),
    (3, '{"name": "John Smith", "age": 52.0, "address": {"city": "Bonn"}, "tags": []}', 'two'),
    (4, '{"name": {"first": "John"}, "age": [18, 90], "tags": "urgent"}', ''),
    (5, '{"name": null, "age": "52"}', 'One'),
    (6, '[1, "urgent", {"name": "John Smith"}]', 'three'),
    (7, '"urgent"', 'four'),
    (8, '{}', 'five'),
    (9, NULL, NULL)) documents (id, document, word);
CREATE INDEX docs_sealed ON docs USING gin (sealed);
CREATE INDEX docs_body ON docs USING gin (body);
ANALYZE docs;
-- Plans are those of large tables.
ALTER DATABASE :DBNAME SET enable_seqscan = off;
-- A plan in which keyrings, whose numbers are random, are named.
CREATE FUNCTION plan(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text; number int; name text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
        FOR number, name IN SELECT k.id, k.name FROM pgseal.keyring k LOOP
            line := replace(line, number::text, '<' || name || '>');
        END LOOP;
        RETURN NEXT line;
    END LOOP;
END $$;
