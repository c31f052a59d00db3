-- Parts of a document stay sealed, and decrypt to what jsonb gives.
SELECT pg_typeof(sealed -> 'name'), pg_typeof(sealed ->> 'name') FROM docs WHERE id = 1;
SELECT id, pgseal.decrypt(sealed -> 'name') AS name, pgseal.decrypt(sealed #> '{address,city}') AS city,
       pgseal.decrypt(sealed -> -1) AS last, pgseal.decrypt(sealed ->> 'tags') AS tags FROM docs ORDER BY id;
SELECT count(*) FILTER (WHERE pgseal.decrypt(sealed -> key) IS DISTINCT FROM plain -> key) AS fields,
       count(*) FILTER (WHERE pgseal.decrypt(sealed -> length(key)) IS DISTINCT FROM plain -> length(key)) AS elements,
       count(*) FILTER (WHERE pgseal.decrypt(sealed #> ARRAY[key, '0']) IS DISTINCT FROM plain #> ARRAY[key, '0']) AS paths,
       count(*) FILTER (WHERE pgseal.decrypt(sealed ->> key) IS DISTINCT FROM plain ->> key) AS texts,
       count(*) FILTER (WHERE pgseal.decrypt(sealed #>> ARRAY[key, 'city']) IS DISTINCT FROM plain #>> ARRAY[key, 'city']) AS path_texts
FROM docs CROSS JOIN unnest('{name,age,tags,note,address,"",NULL}'::text[]) key;
-- A part can be asked as well; it has no index.
SELECT id FROM docs WHERE (sealed -> 'address') @> '{"city": "Bonn"}';
SET enable_seqscan = on;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE (sealed -> 'address') ? 'city';
