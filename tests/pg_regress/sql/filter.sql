-- A filter made beforehand answers as @> does.
SELECT id FROM docs WHERE sealed @@ pgseal.filter('{"name": "John Smith"}') ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @@ pgseal.filter('{"name": "John Smith"}');
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @@ pgseal.filter('{"name": "John Smith"}', 'patients');
-- One of several; NULL matches nothing, and so does an empty list.
SELECT id FROM docs WHERE sealed @@ pgseal.filter_any(ARRAY['{"name": "Mary Jones"}', '{"tags": "urgent"}', NULL]::jsonb[]) ORDER BY id;
EXPLAIN (COSTS OFF)
SELECT id FROM docs WHERE sealed @@ pgseal.filter_any(ARRAY['{"name": "Mary Jones"}', '{"tags": "urgent"}']::jsonb[]);
SELECT id FROM docs WHERE sealed @@ pgseal.filter_any('{}');
SELECT id FROM docs WHERE sealed @@ pgseal.filter(NULL);
-- Whatever the case.
SELECT id FROM docs WHERE sealed @@ pgseal.filter_casefold('{"ward": "north"}') ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @@ pgseal.filter_casefold('{"ward": "north"}');
-- In the select list, beside NOT, and NULL where the document is NULL.
SELECT id, sealed @@ pgseal.filter('{"tags": ["new"]}') AS new FROM docs ORDER BY id;
SELECT id FROM docs WHERE NOT sealed @@ pgseal.filter_any(ARRAY['{"name": "Mary Jones"}', '{}']::jsonb[]) ORDER BY id;
SELECT count(*) AS pairs, count(*) FILTER (WHERE (a.sealed @@ pgseal.filter(b.plain)) IS DISTINCT FROM (a.plain @> b.plain)) AS different
FROM docs a CROSS JOIN docs b;
-- Another keyring's filter finds nothing in this column: it is NULL, and its NOT too.
SELECT pgseal.create_keyring('other') > 0 AS created;
SELECT count(*) FROM docs WHERE sealed @@ pgseal.filter('{}', 'other') OR NOT sealed @@ pgseal.filter('{}', 'other');
-- A filter that names no keyring takes its column's, whatever the session's is.
SET pgseal.keyring = 'other';
SELECT id FROM docs WHERE sealed @@ pgseal.filter('{"name": "John Smith"}') ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @@ pgseal.filter('{"name": "John Smith"}');
RESET pgseal.keyring;
-- A filter is no text; what stands there is a jsonpath.
SELECT id FROM docs WHERE sealed @@ '{"name": "John Smith"}';
SELECT pgseal.filter('{"name": "John Smith"}', 'nobody');
