-- = beside ->> and #>> goes through the index, from both sides.
SELECT id FROM docs WHERE sealed ->> 'name' = 'John Smith' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed ->> 'name' = 'John Smith';
SELECT id FROM docs WHERE 'Bern'::text = sealed #>> '{address,city}' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE 'Bern'::text = sealed #>> '{address,city}';
-- A number, an array, an object and an element of an array, by the text that jsonb gives them.
SELECT id FROM docs WHERE sealed ->> 'age' = '52' ORDER BY id;
SELECT id FROM docs WHERE sealed ->> 'age' = '52.0' ORDER BY id;
SELECT id FROM docs WHERE sealed ->> 'tags' = '["urgent", "new"]' ORDER BY id;
SELECT id FROM docs WHERE sealed ->> 'name' = '{"first": "John"}' ORDER BY id;
SELECT id FROM docs WHERE sealed ->> 1 = 'urgent' ORDER BY id;
SELECT id FROM docs WHERE sealed #>> '{}' = 'urgent' ORDER BY id;
-- OR is indexed, IN and <> are exact.
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed ->> 'name' = 'Mary Jones' OR sealed ->> 'name' = 'John Smith';
SELECT id FROM docs WHERE sealed ->> 'name' IN ('Mary Jones', 'John Smith') ORDER BY id;
SELECT id FROM docs WHERE sealed ->> 'name' <> 'John Smith' ORDER BY id;
-- NULL where the key is missing or JSON's null.
SELECT id FROM docs WHERE (sealed ->> 'name' = 'John Smith') IS NULL ORDER BY id;
SELECT id FROM docs WHERE NOT sealed ->> 'name' = 'John Smith' ORDER BY id;
-- Parameters.
SET plan_cache_mode = force_generic_plan;
PREPARE ask(text) AS SELECT id FROM docs WHERE sealed ->> 'name' = $1 ORDER BY id;
EXECUTE ask('Mary Jones');
EXECUTE ask(NULL);
SELECT plan('EXECUTE ask(''Mary Jones'')');
DEALLOCATE ask;
RESET plan_cache_mode;
-- Patterns, order and casts decrypt.
SELECT id FROM docs WHERE sealed ->> 'name' LIKE 'John%' AND (sealed ->> 'age')::numeric > 50 ORDER BY id;
SET enable_seqscan = on;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed ->> 'name' LIKE 'John%';
SET enable_seqscan = off;
-- Exactly as jsonb, for each text against each row.
SELECT key, count(*) AS pairs,
       count(*) FILTER (WHERE (a.sealed ->> key = b.plain ->> key) IS DISTINCT FROM (a.plain ->> key = b.plain ->> key)) AS different,
       count(*) FILTER (WHERE (a.sealed ->> key <> b.plain ->> key) IS DISTINCT FROM (a.plain ->> key <> b.plain ->> key)) AS unlike
FROM docs a CROSS JOIN docs b CROSS JOIN unnest('{name,age,tags,note,address}'::text[]) key GROUP BY key ORDER BY key;
