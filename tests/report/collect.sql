-- One JSON document: the findings of audit, and the evidence of every table with an encrypted column.
SELECT json_build_object(
    'database', current_database(),
    'at', now(),
    'audit', (SELECT coalesce(json_agg(a), '[]') FROM pgseal.audit() a),
    'evidence', (SELECT coalesce(json_agg(pgseal.evidence(t.tree, canaries => c.list, checkpoint => cardinality(c.list) > 0) ORDER BY t.tree), '[]')
                   FROM (SELECT DISTINCT CASE WHEN r.relispartition THEN pg_partition_root(r.oid) ELSE r.oid::regclass END AS tree
                           FROM pgseal.value_columns() v JOIN pg_class r ON r.oid = v.relation WHERE v.scalar IS NOT NULL) t,
                        (SELECT string_to_array(:'canaries', ',') AS list) c));
