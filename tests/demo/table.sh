# shellcheck shell=sh disable=SC2154 # variables of the script that sources this
# The demo's last step, a table in the clear that one call seals: sourced, not run.

notes_query="SELECT id, round((embedding <=> :'q')::numeric, 3) AS distance FROM notes
 WHERE metadata @> '{\"department\": \"Neurology\"}' ORDER BY embedding <=> :'q', id LIMIT 10"
encrypt_table="CALL pgseal.encrypt_table('notes', keyring => 'patients'"

# Without the patients' names, which no file of the server may hold.
make_notes() {
    demo_sql -c "DROP TABLE IF EXISTS notes" -c "CREATE TABLE notes AS
        SELECT id, embedding, document - 'patient_name' AS metadata, 'Dr Canary noted: ' || (document ->> 'diagnosis') AS note
          FROM (SELECT id, embedding, pgseal.decrypt(metadata) AS document FROM docs OFFSET 0) d" \
        -c "ALTER TABLE notes ADD PRIMARY KEY (id)"
}

index_notes() {
    demo_sql -c "VACUUM FULL notes" -c "CREATE INDEX ON notes USING gin (metadata)" \
        -c "CREATE INDEX ON notes USING sealed_ivf (embedding encrypted_vector_cosine_ops)" -c "ANALYZE notes"
}

# Exact, so that the answers can be compared.
nearest_notes() { echo "SET enable_indexscan = off; $notes_query;" | demo_sql -At -v q="$q" -f -; }

# files_with KIND PATTERN: how many files of the table, of its TOAST table and of their indexes contain it.
files_with() {
    demo_sql -At -c "SELECT pg_relation_filepath(f) FROM pg_class c, LATERAL (SELECT c.oid UNION SELECT c.reltoastrelid
        UNION SELECT indexrelid FROM pg_index WHERE indrelid IN (c.oid, c.reltoastrelid)) files (f)
        WHERE c.oid = 'notes'::regclass AND f <> 0" |
        (cd "$cluster/data" && LC_ALL=C xargs grep -la "$1" -e "$2" || true) | wc -l
}

look_at_files() {
    demo_sql -c "CHECKPOINT"
    notes=$(files_with -F 'Dr Canary')
    metadata=$(files_with -F 'Neurology')
    embeddings=$(files_with -P "$numbers")
    say "   files of the table and its indexes with a note: $notes, with its metadata: $metadata, with 16 bytes of an embedding: $embeddings"
}

seal_a_table() {
    progress "CREATE TABLE notes (id, embedding vector(384), metadata jsonb, note text), the documents in the clear" make_notes
    # Four numbers as they are on disk, little-endian.
    numbers=$(demo_sql -At -c "SELECT encode(substr(vector_send(embedding), 5, 16), 'hex') FROM notes WHERE id = 50" |
        sed 's/\(..\)\(..\)\(..\)\(..\)/\\x\4\\x\3\\x\2\\x\1/g')
    look_at_files
    [ "$notes" != 0 ] && [ "$metadata" != 0 ] && [ "$embeddings" != 0 ] || die "each of these should be found in the clear"
    nearest_notes > "$state/plain"
    say
    say "$encrypt_table, dry_run => true);"
    demo_sql -v VERBOSITY=terse -c "SET client_min_messages = notice" -c "$encrypt_table, dry_run => true)" 2>&1 |
        sed -n 's/^.*NOTICE:  \(.* is to become .*\|.* stay.*plain.*\|afterwards: .*\)$/   \1/p'
    say
    progress "$encrypt_table)" demo_sql -c "$encrypt_table)"
    progress "VACUUM FULL notes, and those indexes" index_notes
    look_at_files
    [ "$notes$metadata$embeddings" = 000 ] || die "each of these should be 0"
    say
    say "$notes_query;"
    nearest_notes > "$state/sealed"
    cmp "$state/plain" "$state/sealed" || die "the answers differ: see $state/plain and $state/sealed"
    say
    say "   before and after: $(awk -F '|' '{ printf "%s%s (%s)", (NR > 1 ? ", " : ""), $1, $2 }' "$state/sealed")"
}
