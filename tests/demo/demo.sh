#!/bin/sh
# demo.sh [file|openbao]: the main job of pgseal on 5,000 documents; a second run skips what is done.
. "$(dirname -- "$0")/../setup/common.sh"

started=$(date +%s)
state=$root/.demo
kms=${1:-file}
. "$root/tests/demo/cluster.sh"
. "$root/tests/demo/bao.sh"
. "$root/tests/demo/table.sh"
case $kms in
file) database=demo ;;
openbao) database=demo_openbao ;;
*) die "KMS=$kms: it can be file or openbao" ;;
esac
loaded=$state/$database.loaded

# progress TEXT COMMAND...: a dot each second while the command runs.
progress() {
    printf '   %s ' "$1"
    shift
    "$@" > "$state/step.log" 2>&1 &
    while kill -0 $! 2> /dev/null; do
        printf .
        sleep 1
    done
    wait $! || { echo; cat "$state/step.log" >&2; die "the step above failed"; }
    echo " done"
}

demo_sql() { sql -d "$database" "$@"; }

step() {
    say
    say "$*"
}

make_database() {
    rm -f "$loaded"
    sql -d postgres -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" -c "CREATE DATABASE $database"
    demo_sql -c "CREATE EXTENSION pgseal CASCADE" -c "CREATE EXTENSION pageinspect"
    if [ "$kms" = openbao ]; then
        where=",
    kms_key => 'pgseal-demo', kms_endpoint => 'vault+${BAO_ADDR}/transit'"
    else
        where=
    fi
    create_keyring="SELECT pgseal.create_keyring('patients', searchable => ARRAY[
    '\$.patient_name', '\$.diagnosis', '\$.icd10', '\$.department', '\$.tags', '\$.address.city']$where)"
    create_table="CREATE TABLE docs (id bigserial PRIMARY KEY, embedding vector(384), metadata encrypted_jsonb(patients))"
    say
    say "$create_keyring;"
    demo_sql -o /dev/null -c "$create_keyring"
    say "$create_table;"
    demo_sql -c "$create_table"
    say
    progress "loading 5,000 documents with COPY" load
    for index in "hnsw (embedding vector_cosine_ops)" "gin (metadata)"; do
        progress "CREATE INDEX ON docs USING $index" demo_sql -c "CREATE INDEX ON docs USING $index"
    done
    demo_sql -c "VACUUM ANALYZE docs"
    touch "$loaded"
}

load() {
    python3 "$root/tests/data/load_icd10.py" | demo_sql -c "\copy docs (embedding, metadata) FROM STDIN"
}

# The vector that stands for the user's question: that of a document on type 2 diabetes.
question() { demo_sql -At -c "SELECT embedding FROM docs WHERE id = 50"; }
question_text() { demo_sql -At -c "SELECT pgseal.decrypt(metadata) ->> 'diagnosis' FROM docs WHERE id = 50"; }

query() {
    cat << END
SELECT id, pgseal.decrypt(metadata) ->> 'diagnosis' AS diagnosis, round((embedding <=> :'q')::numeric, 3) AS distance
  FROM docs WHERE metadata @> '$1' ORDER BY embedding <=> :'q' LIMIT 5
END
}

# ask FILTER: a filtered search for what is nearest to the question, and its plan.
ask() {
    say
    say "$(query "$1");"
    query "$1" | demo_sql -v q="$q" -f -
    { echo "EXPLAIN (COSTS OFF)" && query "$1"; } | demo_sql -At -v q="$q" -f - | sed 's/\[-*[0-9][^]]*\]/[...]/g'
}

answers() {
    for filter in '{"patient_name": "John Smith"}' '{"patient_name": "Zoë Jensen"}' '{"diagnosis": "Type 2 diabetes mellitus"}' \
        '{"diagnosis": "Epilepsy and recurrent seizures"}' '{"patient_name": "Priya O'"''"'Connor", "tags": ["urgent"]}' \
        '{"icd10": "Q39.8"}' '{"address": {"city": "Lyon"}, "department": "Neurology"}' '{"patient_name": "Nobody"}'; do
        echo "$filter"
        # An exact search, not HNSW's approximate one, so that the answers can be compared.
        { echo "SET enable_indexscan = off;" && query "$filter"; } | demo_sql -At -v q="$q" -f -
    done
}

if [ -e "$state/cluster" ] && [ -d "$(cat "$state/cluster")" ]; then
    cluster=$(cat "$state/cluster")
    running "$cluster" || start_cluster "$cluster"
    step "1. PostgreSQL runs already, in $cluster"
else
    rm -rf "$state"
    step "1. Starting a throwaway PostgreSQL cluster on a free loopback port"
    new_cluster "$state" "maintenance_work_mem = '256MB'"
    say "   in $cluster, port $port"
fi

if [ "$kms" = openbao ]; then
    if bao_runs; then
        . "$state/bao.env"
        allow_key
        say "   OpenBao runs already, at $BAO_ADDR"
    else
        rm -f "$loaded" # an OpenBao that ended took its keys along
        start_bao
        say "   OpenBao at $BAO_ADDR, with a Transit key and a token that may only use that key"
    fi
else
    say "   keys: files in $cluster/keys (for development only: a KMS is what keeps keys apart from data)"
fi

if [ -e "$loaded" ]; then
    step "2. The documents are loaded already"
else
    step "2. A keyring, a table with an encrypted column, 5,000 documents, both indexes"
    make_database
fi

step "3. Filtered nearest-neighbour queries, as on plain jsonb, through the index, each with its plan"
q=$(question)
say "   :'q' is the embedding of document 50, '$(question_text)'. In the plans, @~ compares"
say "   search tokens and needs no key; @># decrypts the rows that the index found and compares exactly."
ask '{"patient_name": "John Smith"}'
ask '{"diagnosis": "Type 2 diabetes mellitus", "address": {"city": "Lyon"}}'
answers > "$state/before"

step "4. What the disk holds: the metadata of the first document in the table's file, and what decrypt returns"
say "   16 bytes of header, 8 for each search token, 16 of nonce; the rest is ciphertext (here the first 240 bytes)"
say
demo_sql -At << 'END' |
SELECT (ctid::text::point)[0]::int AS page, (ctid::text::point)[1]::int AS line FROM docs ORDER BY ctid LIMIT 1 \gset
SELECT encode(substr(t_attrs[3], 5, 240), 'hex')
  FROM heap_page_item_attrs(get_raw_page('docs', :page), 'docs') WHERE lp = :line;
END
    python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))' | od -A d -t x1z -w24
say
demo_sql -At -c "SELECT pgseal.decrypt(metadata) FROM docs ORDER BY ctid LIMIT 1" | fold -s -w 100
demo_sql -c "CREATE TABLE IF NOT EXISTS control (name text)" -c "INSERT INTO control VALUES ('Plain Control')" -c "CHECKPOINT"
count() { grep -rlaF -- "$1" "$cluster/data" "$cluster/log" | wc -l; }
secret=$(count 'John Smith')
control=$(count 'Plain Control')
say
say "   files of the server (tables, indexes, WAL, log) that contain 'John Smith', a patient: $secret"
say "   files that contain 'Plain Control', stored unencrypted to show that the search works: $control"
if [ "$secret" != 0 ] || [ "$control" = 0 ]; then
    die "the first of these should be 0, and the second should not"
fi

step "5. A new key, and every document encrypted again under it"
version=$(demo_sql -At -c "SELECT pgseal.rotate_key('patients')")
say "   SELECT pgseal.rotate_key('patients')  gives version $version"
progress "CALL pgseal.reencrypt('docs', 'metadata')" demo_sql -c "CALL pgseal.reencrypt('docs', 'metadata')"
say "   SELECT * FROM pgseal.key_usage('docs', 'metadata')"
demo_sql -c "SELECT * FROM pgseal.key_usage('docs', 'metadata')" | sed 's/^/   /'
answers > "$state/after"
cmp "$state/before" "$state/after" || die "the answers differ: see $state/before and $state/after"
say "   the same $(grep -c '^{' "$state/after") queries as before give the same $(grep -vc '^{' "$state/after") rows"

step "6. A table with its embeddings, metadata and text in the clear, sealed by one call"
seal_a_table

if [ "$kms" = openbao ]; then
    step "7. The KMS takes the key away: one session, which can read at first"
    export bao BAO_ADDR BAO_TOKEN
    demo_sql -v ON_ERROR_STOP=0 -At > "$state/denied" 2>&1 << 'END'
SELECT 'reads: ' || (pgseal.decrypt(metadata) ->> 'patient_name') FROM docs WHERE id = 1;
\echo '$ bao policy delete pgseal-demo'
\! "$bao" policy delete pgseal-demo
\echo 'SELECT pgseal.flush_keys(): sessions drop the keys they have (without it, after pgseal.key_cache_ttl)'
SELECT pgseal.flush_keys() \g /dev/null
\echo 'SELECT pgseal.decrypt(metadata) FROM docs WHERE id = 1'
SELECT pgseal.decrypt(metadata) FROM docs WHERE id = 1;
\echo SQLSTATE :LAST_ERROR_SQLSTATE
SELECT count(*) || ' documents, ' || count(embedding) || ' vectors: all there, and other data can be read' FROM docs;
END
    sed 's/^/   /' "$state/denied"
    grep -qx 'SQLSTATE 28000' "$state/denied" || die "reading did not stop with SQLSTATE 28000"
    allow_key
    answers | cmp - "$state/before" || die "the answers differ after the key came back"
    say "   The key is given back: the same queries give the same answers."
fi

step "Done in $(($(date +%s) - started)) s. The server runs on."
say "Look around:   cd $root && PGSERVICEFILE=.demo/service psql 'service=demo dbname=$database'"
say "               SELECT metadata, pgseal.decrypt(metadata) FROM docs LIMIT 1;"
say "Clean up:      make clean-demo"
