-- A declared path: through the index.
SELECT id FROM docs WHERE sealed @> '{"name": "John Smith"}' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @> '{"name": "John Smith"}';
-- Several are looked up together, and what is not declared is left to the recheck.
SELECT id FROM docs WHERE sealed @> '{"name": "John Smith", "tags": ["urgent"]}' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @> '{"name": "John Smith", "note": null}';
SELECT id FROM docs WHERE sealed @> '{"name": "John Smith", "note": null}' ORDER BY id;
-- An object without leaves and an undeclared path have nothing to look up, and are as exact.
SELECT id FROM docs WHERE sealed @> '{}' ORDER BY id;
SELECT id FROM docs WHERE sealed @> '{"address": {"street": "x"}}' ORDER BY id;
-- Numbers are equal whatever their scale; a scalar is contained in an array.
SELECT id FROM docs WHERE sealed @> '{"age": 52}' ORDER BY id;
SELECT id FROM docs WHERE sealed @> '"urgent"' ORDER BY id;
SELECT id FROM docs WHERE sealed @> '[{"name": "John Smith"}]' ORDER BY id;
-- OR of two filters, and NOT.
SELECT id FROM docs WHERE sealed @> '{"name": "Mary Jones"}' OR sealed @> '{"address": {"city": "Bonn"}}' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @> '{"name": "Mary Jones"}' OR sealed @> '{"address": {"city": "Bonn"}}';
SELECT id FROM docs WHERE NOT sealed @> '{"name": "John Smith"}' ORDER BY id;
SELECT id FROM docs WHERE (sealed @> '{"name": "John Smith"}') IS NULL;
-- A parameter and a NULL.
SET plan_cache_mode = force_generic_plan;
PREPARE ask(jsonb) AS SELECT id FROM docs WHERE sealed @> $1 ORDER BY id;
EXECUTE ask('{"address": {"city": "Bern"}}');
EXECUTE ask(NULL);
SELECT plan('EXECUTE ask(''{"address": {"city": "Bern"}}'')');
DEALLOCATE ask;
RESET plan_cache_mode;
-- A join, which looks each document up.
SELECT a.id, b.id FROM docs a JOIN docs b ON a.sealed @> b.plain WHERE b.id IN (7, 8) ORDER BY 1, 2;
-- Exactly as jsonb, for each pair of documents.
SELECT count(*) AS pairs, count(*) FILTER (WHERE (a.sealed @> b.plain) IS DISTINCT FROM (a.plain @> b.plain)) AS different
FROM docs a CROSS JOIN docs b;
