LOAD 'pgseal';
SET pgseal.reveal = on;
SELECT id, sealed, body, sealed ->> 'name' AS name FROM docs ORDER BY id;
-- Outside of a list of results nothing changes.
SELECT count(*) FROM docs WHERE sealed @> '{"name": "John Smith"}';
EXPLAIN (COSTS OFF, VERBOSE) SELECT sealed FROM docs WHERE sealed @> '{"name": "John Smith"}';
SELECT count(*) AS rows, count(*) FILTER (WHERE starts_with(whole::text, '(pgseal:')) AS sealed
FROM (SELECT ROW (sealed) AS whole FROM docs WHERE sealed IS NOT NULL) sub;
-- A statement prepared under it does not answer without it.
PREPARE revealed AS SELECT sealed FROM docs WHERE id = 2;
EXECUTE revealed;
RESET pgseal.reveal;
EXECUTE revealed;
DEALLOCATE revealed;
-- Without the setting results are ciphertext.
\copy (SELECT sealed FROM docs WHERE id = 1) TO PROGRAM 'cut -c 1-7'
SELECT pg_typeof(sealed), pg_typeof(body) FROM docs WHERE id = 1;
