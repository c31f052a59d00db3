-- Both bounds are included, an element of an array counts, a string does not.
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', 18, 52) ORDER BY id;
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', 18, 52);
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', 52.5, 90) ORDER BY id;
-- Open to one side, and to none.
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', NULL, 7) ORDER BY id;
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', 53, NULL) ORDER BY id;
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', NULL::numeric, NULL) ORDER BY id;
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', 52, 18) ORDER BY id;
-- Outside of the declared range, and with NOT.
SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', -5, 1e9) ORDER BY id;
SELECT id FROM docs WHERE NOT pgseal.between(sealed, '$.age', 18, 52) ORDER BY id;
-- A filter made beforehand, and a parameter.
EXPLAIN (COSTS OFF) SELECT id FROM docs WHERE sealed @@ pgseal.filter_between('$.age', 18, 52);
SET plan_cache_mode = force_generic_plan;
PREPARE ask(numeric) AS SELECT id FROM docs WHERE pgseal.between(sealed, '$.age', $1, $1) ORDER BY id;
EXECUTE ask(90);
SELECT plan('EXECUTE ask(90)');
DEALLOCATE ask;
RESET plan_cache_mode;
-- A path without a range is exact and decrypts every row; a path that is none is refused.
SELECT id FROM docs WHERE pgseal.between(sealed, '$.address.number', 1, 2);
SELECT id FROM docs WHERE pgseal.between(sealed, 'age', 18, 52);
SELECT low, high, count(*) FILTER (WHERE pgseal.between(sealed, '$.age', low, high) IS DISTINCT FROM
    (plain @? format('lax $.age ? (@ >= %s && @ <= %s)', low, high)::jsonpath)) AS different
FROM docs CROSS JOIN (VALUES (0, 7), (18, 18), (52, 52), (53, 89), (-1, 151)) bounds (low, high)
WHERE jsonb_typeof(plain) = 'object' GROUP BY low, high ORDER BY low, high;
