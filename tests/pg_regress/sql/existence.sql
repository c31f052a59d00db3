SELECT id FROM docs WHERE sealed ? 'tags' ORDER BY id;
SELECT id FROM docs WHERE sealed ? 'urgent' ORDER BY id;
SELECT id FROM docs WHERE sealed ?| '{note,address}' ORDER BY id;
SELECT id FROM docs WHERE sealed ?& '{name,tags}' ORDER BY id;
SELECT id FROM docs WHERE sealed ?| '{}' ORDER BY id;
SELECT id FROM docs WHERE sealed ?& '{}' ORDER BY id;
SELECT id FROM docs WHERE NOT sealed ? 'tags' ORDER BY id;
-- Exact, and not indexed: keys have no tokens.
SET enable_seqscan = on;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed ? 'tags';
SET enable_seqscan = off;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed ?| '{note,address}' AND sealed @> '{"name": "John Smith"}';
SELECT key, count(*) FILTER (WHERE (sealed ? key) IS DISTINCT FROM (plain ? key)) AS one,
       count(*) FILTER (WHERE (sealed ?| ARRAY[key, 'age']) IS DISTINCT FROM (plain ?| ARRAY[key, 'age'])) AS any,
       count(*) FILTER (WHERE (sealed ?& ARRAY[key, 'age']) IS DISTINCT FROM (plain ?& ARRAY[key, 'age'])) AS all
FROM docs CROSS JOIN unnest('{name,tags,urgent,note,"",NULL}'::text[]) key GROUP BY key ORDER BY key;
