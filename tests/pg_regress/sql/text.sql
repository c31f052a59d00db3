-- The whole of a text, where the keyring declares $.
SELECT id FROM docs WHERE body = 'two' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE body = 'two'::text;
SELECT id FROM docs WHERE 'one'::text = body OR body = '' ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE 'one'::text = body OR body = ''::text;
-- Not indexed: <>, IN, patterns, order.
SELECT id FROM docs WHERE body <> 'two' ORDER BY id;
SELECT id FROM docs WHERE body IN ('one', 'two') ORDER BY id;
SELECT id FROM docs WHERE body ILIKE 'O%' AND body < 'b' ORDER BY id;
SET enable_seqscan = on;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE body <> 'two'::text;
SET enable_seqscan = off;
-- NULL and NOT.
SELECT id FROM docs WHERE (body = 'two') IS NULL;
SELECT id FROM docs WHERE NOT body = 'two' ORDER BY id;
SELECT count(*) AS pairs, count(*) FILTER (WHERE (a.body = b.words) IS DISTINCT FROM (a.words = b.words)) AS equal,
       count(*) FILTER (WHERE (a.body = b.body) IS DISTINCT FROM (a.words = b.words)) AS both_sealed,
       count(*) FILTER (WHERE (a.words <> b.body) IS DISTINCT FROM (a.words <> b.words)) AS unlike
FROM docs a CROSS JOIN docs b;
