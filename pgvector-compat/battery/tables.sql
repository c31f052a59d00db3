-- The tables of statements.txt. JSON, WORDS and EMBEDDING stand for the plain or the encrypted types.
CREATE TABLE t (id int PRIMARY KEY, grp int, body WORDS, m JSON, e EMBEDDING);
INSERT INTO t VALUES
    (1, 1, 'Chest pain.', '{"p": "John Smith", "age": 52, "urgent": true, "n": {"c": "Oslo", "z": [1, 2]}, "tags": ["a", "b"]}', '[1,2,3]'),
    (2, 1, 'Asthma', '{"p": "Mary Jones", "age": 34, "urgent": false, "n": {"c": "Bergen"}, "tags": ["b"]}', '[3,1,2]'),
    (3, 2, 'chest pain.', '{"p": "John Smith", "age": 52.0, "ward": "B1", "tags": []}', '[2,2,1]'),
    (4, 2, 'O''Connor, 100%', '{"p": "O''Connor", "age": 7, "at": "2024-05-01T10:00:00Z", "n": null}', '[1,1,1]'),
    (5, 2, 'Blåbær 🍓', '{"p": "ÆØÅ", "age": -1e3, "ward": "a_2", "\"": 1}', '[0,1,0]'),
    (6, 3, 'Asthma', '{}', '[1,0,0]'),
    (7, 3, '', '[1, "x", null]', '[9,9,9]'),
    (8, NULL, NULL, NULL, NULL);
CREATE TABLE u (id int PRIMARY KEY, t int REFERENCES t, body WORDS, m JSON, words text, doc jsonb);
INSERT INTO u VALUES
    (1, 1, 'Asthma', '{"p": "John Smith"}', 'Chest pain.', '{"age": 52}'),
    (2, 1, 'other', '{"p": "nobody"}', 'other', '{"p": "nobody"}'),
    (3, 2, NULL, '{}', 'Asthma', '{}');
CREATE INDEX ON t USING gin (m);
CREATE VIEW shown AS SELECT id, m, m ->> 'p' AS p, body FROM t;
