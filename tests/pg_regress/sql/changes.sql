-- Changed documents are sealed anew.
SELECT id, pgseal.decrypt(sealed || '{"age": 1}') AS added, pgseal.decrypt(sealed - 'name') AS without,
       pgseal.decrypt(sealed #- '{address,city}') AS without_city FROM docs WHERE id IN (2, 8, 9) ORDER BY id;
SELECT count(*) FILTER (WHERE pgseal.decrypt(sealed || '{"age": [1]}'::jsonb) IS DISTINCT FROM plain || '{"age": [1]}') AS jsonb,
       count(*) FILTER (WHERE pgseal.decrypt(sealed || sealed) IS DISTINCT FROM plain || plain) AS sealed,
       count(*) FILTER (WHERE pgseal.decrypt(sealed #- '{name,first}') IS DISTINCT FROM plain #- '{name,first}') AS path
FROM docs WHERE jsonb_typeof(plain) = 'object';
SELECT count(*) FILTER (WHERE pgseal.decrypt(sealed - 'name') IS DISTINCT FROM plain - 'name') AS key,
       count(*) FILTER (WHERE pgseal.decrypt(sealed - '{name,age}'::text[]) IS DISTINCT FROM plain - '{name,age}'::text[]) AS keys
FROM docs WHERE id <> 7;
SELECT pgseal.decrypt(sealed - 1), plain - 1 FROM docs WHERE id = 6;
-- What jsonb refuses is refused.
\set VERBOSITY terse
SELECT plain #- '{name}' FROM docs WHERE id = 6;
SELECT sealed #- '{name}' FROM docs WHERE id = 6;
SELECT plain - 'name' FROM docs WHERE id = 7;
SELECT sealed - 'name' FROM docs WHERE id = 7;
SELECT plain - 1 FROM docs WHERE id = 8;
SELECT sealed - 1 FROM docs WHERE id = 8;
\set VERBOSITY default
-- The index finds what was changed by its new content.
BEGIN;
UPDATE docs SET sealed = sealed || '{"name": "Ann"}' WHERE sealed @> '{"address": {"city": "Bern"}}';
SELECT id FROM docs WHERE sealed @> '{"name": "Mary Jones"}';
SELECT id FROM docs WHERE sealed @> '{"name": "Ann"}';
EXPLAIN (COSTS OFF) UPDATE docs SET sealed = sealed - 'name' WHERE sealed @> '{"name": "Ann"}';
ROLLBACK;
