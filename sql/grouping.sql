-- DISTINCT, GROUP BY, ORDER BY, UNION, windows, hash joins, min and max on encrypted values, by their plaintexts. The classes are for
-- the executor alone: no comparison function that partitions, arrays and rows could find, and options that refuse each index.
-- The operators of the order have names of their own: beside them a literal would be taken for an encrypted value.
CREATE FUNCTION pgseal.no_index(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_no_index' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.no_index(internal) IS 'internal: refuses an index that would keep an order or hashes of plaintexts';
CREATE FUNCTION pgseal.text_order(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_text_order' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.text_order(internal) IS 'internal: sort support; decrypts';
CREATE FUNCTION pgseal.jsonb_order(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_jsonb_order' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.jsonb_order(internal) IS 'internal: sort support; decrypts';
CREATE FUNCTION pgseal.vector_order(internal) RETURNS void
    AS 'MODULE_PATHNAME', 'pgseal_vector_order' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION pgseal.vector_order(internal) IS 'internal: sort support; decrypts';

DO $$
DECLARE
    kind text;
    name text;
    operator text;
    commutator text;
    negator text;
    estimate text;
BEGIN
    FOREACH kind IN ARRAY ARRAY['text', 'jsonb', 'vector'] LOOP
        EXECUTE format('CREATE FUNCTION pgseal.hash(%1$s.encrypted_%2$s) RETURNS int4
            AS ''MODULE_PATHNAME'', ''pgseal_hash'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', '@extschema@', kind);
        EXECUTE format('COMMENT ON FUNCTION pgseal.hash(%s.encrypted_%s) IS ''hash of the plaintext, another one in each session''', '@extschema@', kind);
        FOR name, operator, commutator, negator, estimate IN VALUES
            ('less', '*<', '*>', '*>=', 'scalarlt'), ('less_or_equal', '*<=', '*>=', '*>', 'scalarle'),
            ('greater_or_equal', '*>=', '*<=', '*<', 'scalarge'), ('greater', '*>', '*<', '*<=', 'scalargt')
        LOOP
            EXECUTE format('CREATE FUNCTION pgseal.%1$s(%2$s.encrypted_%3$s, %2$s.encrypted_%3$s) RETURNS boolean
                AS ''MODULE_PATHNAME'', ''pgseal_%1$s'' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100', name, '@extschema@', kind);
            EXECUTE format('COMMENT ON FUNCTION pgseal.%1$s(%2$s.encrypted_%3$s, %2$s.encrypted_%3$s) IS ''implementation of %4$s operator''',
                           name, '@extschema@', kind, operator);
            EXECUTE format('CREATE OPERATOR pgseal.%1$s (LEFTARG = %2$s.encrypted_%3$s, RIGHTARG = %2$s.encrypted_%3$s, FUNCTION = pgseal.%4$s,
                COMMUTATOR = OPERATOR(pgseal.%5$s), NEGATOR = OPERATOR(pgseal.%6$s), RESTRICT = %7$ssel, JOIN = %7$sjoinsel)',
                operator, '@extschema@', kind, name, commutator, negator, estimate);
            EXECUTE format('COMMENT ON OPERATOR pgseal.%1$s (%2$s.encrypted_%3$s, %2$s.encrypted_%3$s) IS ''order of the plaintexts; decrypts''',
                           operator, '@extschema@', kind);
        END LOOP;
    END LOOP;
END $$;

CREATE OPERATOR CLASS @extschema@.encrypted_text_ops DEFAULT FOR TYPE @extschema@.encrypted_text USING btree AS
    OPERATOR 1 pgseal.*<, OPERATOR 2 pgseal.*<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pgseal.*>=, OPERATOR 5 pgseal.*>,
    FUNCTION 2 pgseal.text_order(internal), FUNCTION 5 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_text_ops USING btree IS 'order of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_text_ops DEFAULT FOR TYPE @extschema@.encrypted_text USING hash AS
    OPERATOR 1 pg_catalog.=, FUNCTION 1 pgseal.hash(@extschema@.encrypted_text), FUNCTION 3 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_text_ops USING hash IS 'equality of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_jsonb_ops DEFAULT FOR TYPE @extschema@.encrypted_jsonb USING btree AS
    OPERATOR 1 pgseal.*<, OPERATOR 2 pgseal.*<=, OPERATOR 3 pg_catalog.=, OPERATOR 4 pgseal.*>=, OPERATOR 5 pgseal.*>,
    FUNCTION 2 pgseal.jsonb_order(internal), FUNCTION 5 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_jsonb_ops USING btree IS 'order of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_jsonb_ops DEFAULT FOR TYPE @extschema@.encrypted_jsonb USING hash AS
    OPERATOR 1 pg_catalog.=, FUNCTION 1 pgseal.hash(@extschema@.encrypted_jsonb), FUNCTION 3 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_jsonb_ops USING hash IS 'equality of the plaintexts, for queries; no index can be made with it';

-- Embeddings have no =: pgvector's answers, on what the cast gives.
CREATE FUNCTION pgseal.same(@extschema@.encrypted_vector, @extschema@.encrypted_vector) RETURNS boolean
    AS 'MODULE_PATHNAME', 'pgseal_same' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.same(@extschema@.encrypted_vector, @extschema@.encrypted_vector) IS 'implementation of *= operator';
CREATE OPERATOR pgseal.*= (LEFTARG = @extschema@.encrypted_vector, RIGHTARG = @extschema@.encrypted_vector, FUNCTION = pgseal.same,
    COMMUTATOR = OPERATOR(pgseal.*=), RESTRICT = eqsel, JOIN = eqjoinsel, HASHES);
COMMENT ON OPERATOR pgseal.*= (@extschema@.encrypted_vector, @extschema@.encrypted_vector) IS 'equality of the plaintexts, for groups; decrypts';
CREATE OPERATOR CLASS @extschema@.encrypted_vector_ops DEFAULT FOR TYPE @extschema@.encrypted_vector USING btree AS
    OPERATOR 1 pgseal.*<, OPERATOR 2 pgseal.*<=, OPERATOR 3 pgseal.*=, OPERATOR 4 pgseal.*>=, OPERATOR 5 pgseal.*>,
    FUNCTION 2 pgseal.vector_order(internal), FUNCTION 5 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_ops USING btree IS 'order of the plaintexts, for queries; no index can be made with it';
CREATE OPERATOR CLASS @extschema@.encrypted_vector_ops DEFAULT FOR TYPE @extschema@.encrypted_vector USING hash AS
    OPERATOR 1 pgseal.*=, FUNCTION 1 pgseal.hash(@extschema@.encrypted_vector), FUNCTION 3 pgseal.no_index(internal);
COMMENT ON OPERATOR CLASS @extschema@.encrypted_vector_ops USING hash IS 'equality of the plaintexts, for queries; no index can be made with it';

CREATE FUNCTION pgseal.larger(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_larger' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.larger(@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'internal: for max; decrypts';
CREATE FUNCTION pgseal.smaller(@extschema@.encrypted_text, @extschema@.encrypted_text) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_smaller' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smaller(@extschema@.encrypted_text, @extschema@.encrypted_text) IS 'internal: for min; decrypts';
CREATE FUNCTION pgseal.largest(@extschema@.encrypted_text[]) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_largest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.largest(@extschema@.encrypted_text[]) IS 'internal: what the planner makes of GREATEST; decrypts';
CREATE FUNCTION pgseal.largest(@extschema@.encrypted_jsonb[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_largest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.largest(@extschema@.encrypted_jsonb[]) IS 'internal: what the planner makes of GREATEST; decrypts';
CREATE FUNCTION pgseal.largest(@extschema@.encrypted_vector[]) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_largest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.largest(@extschema@.encrypted_vector[]) IS 'internal: what the planner makes of GREATEST; decrypts';
CREATE FUNCTION pgseal.smallest(@extschema@.encrypted_text[]) RETURNS @extschema@.encrypted_text
    AS 'MODULE_PATHNAME', 'pgseal_smallest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smallest(@extschema@.encrypted_text[]) IS 'internal: what the planner makes of LEAST; decrypts';
CREATE FUNCTION pgseal.smallest(@extschema@.encrypted_jsonb[]) RETURNS @extschema@.encrypted_jsonb
    AS 'MODULE_PATHNAME', 'pgseal_smallest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smallest(@extschema@.encrypted_jsonb[]) IS 'internal: what the planner makes of LEAST; decrypts';
CREATE FUNCTION pgseal.smallest(@extschema@.encrypted_vector[]) RETURNS @extschema@.encrypted_vector
    AS 'MODULE_PATHNAME', 'pgseal_smallest' LANGUAGE C STABLE STRICT PARALLEL RESTRICTED COST 100;
COMMENT ON FUNCTION pgseal.smallest(@extschema@.encrypted_vector[]) IS 'internal: what the planner makes of LEAST; decrypts';
CREATE AGGREGATE pg_catalog.max(@extschema@.encrypted_text) (SFUNC = pgseal.larger, STYPE = @extschema@.encrypted_text);
COMMENT ON AGGREGATE pg_catalog.max(@extschema@.encrypted_text) IS 'the largest text; decrypts';
CREATE AGGREGATE pg_catalog.min(@extschema@.encrypted_text) (SFUNC = pgseal.smaller, STYPE = @extschema@.encrypted_text);
COMMENT ON AGGREGATE pg_catalog.min(@extschema@.encrypted_text) IS 'the smallest text; decrypts';
