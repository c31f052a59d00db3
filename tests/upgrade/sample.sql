-- What a release leaves behind: values of every kind under two data keys and two index keys, beside what they hold.
-- Made once for each release, by that release, and dumped; see README.md.
CREATE EXTENSION vector;
CREATE EXTENSION pgseal;
SELECT pgseal.create_keyring('released', ARRAY['$.name', '$.n']);

CREATE TABLE docs (
    id int PRIMARY KEY,
    m encrypted_jsonb(released),
    b encrypted_jsonb(released),
    t encrypted_text(released),
    embedding vector(3) NOT NULL,
    plain jsonb,
    plain_text text
);
CREATE INDEX docs_m ON docs USING gin (m);
CREATE INDEX docs_embedding ON docs USING hnsw (embedding vector_l2_ops);

CREATE PROCEDURE fill(first int, last int) LANGUAGE sql BEGIN ATOMIC
    INSERT INTO docs
    SELECT i, d, pgseal.encrypt(d, 'released', context => 'docs|b|' || i), d ->> 'text', ARRAY[i, i % 7, 1]::vector, d, d ->> 'text'
    FROM generate_series(first, last) i,
        LATERAL (SELECT CASE i % 10
            WHEN 0 THEN NULL
            WHEN 1 THEN to_jsonb(i)
            WHEN 2 THEN '[]'
            WHEN 3 THEN jsonb_build_object('name', 'n' || i, 'text', repeat('tall story ', 200 + i))
            ELSE jsonb_build_object('name', 'n' || i % 6, 'n', i, 'text', E'Grüße\n"' || i || '"', 'deep', jsonb_build_array(i, null, true, 1e-30))
        END) made (d);
END;

CALL fill(1, 20);
SELECT pgseal.rotate_key('released');
CALL fill(21, 40);
SELECT pgseal.rotate_index_key('released');
CALL fill(41, 60);
DROP PROCEDURE fill;
