# Shared by run, logits, eval and check: the demonstration model, its golden outputs, and comparisons.
# shellcheck shell=bash disable=SC2034 # read by the files that load this one

infer_setup() {
    bats_require_minimum_version 1.5.0
    PATH=${BINDIR:-$PWD/bin}:$PATH
    T=$BATS_TEST_TMPDIR
    export APR_HOME=$T/home
    MODEL=tests/data/apr-demo-8M-Instruct
    GOLDEN=tests/data/apr-demo-golden
    GGUF=${APR_SHARED:-../shared}/fixtures/gguf
}

need_fixtures() { [ -d "$GGUF" ] || skip "the fixtures are not here: $GGUF"; }

# The model as one file: TYPE FORMAT -> $T/m.FORMAT
make_model() {
    apr import "$MODEL" --quantize "$1" -q -o "$T/m.apr" --force
    [ "$2" = apr ] || apr export "$T/m.apr" --format "$2" -q -o "$T/m.$2" --force
}

# Largest absolute difference of two files of little-endian floats; "sizes differ" when they do.
max_diff() {
    [ "$(wc -c <"$1")" -eq "$(wc -c <"$2")" ] || { echo "sizes differ"; return 0; }
    paste <(od -An -v -w4 -tf4 "$1") <(od -An -v -w4 -tf4 "$2") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= m)) m = d; n++ } END { if (!n) m = "nothing"; print m }'
}

at_most() { awk -v x="$1" -v max="$2" 'BEGIN { exit !(x ~ /^[0-9.e+-]+$/ && x + 0 <= max) }'; }

# Greedy ids of every golden case whose margin is above LIMIT: MODEL LIMIT [OPTION...]
greedy_cases() {
    local model=$1 limit=$2 i n_bad=0 n_done=0 want got prompt
    shift 2
    for i in $(jq -r --argjson m "$limit" '.cases | to_entries[] | select(.value.min_margin > $m) | .key' "$GOLDEN/generation.json"); do
        jq -j ".cases[$i].prompt" "$GOLDEN/generation.json" >"$T/prompt"
        want=$(jq -c ".cases[$i].greedy_ids" "$GOLDEN/generation.json")
        got=$(apr run "$model" -i "$T/prompt" --raw --json -q -n "$(jq length <<<"$want")" "$@" | jq -c .tokens)
        n_done=$((n_done + 1))
        [ "$got" = "$want" ] || { echo "case $i: $got instead of $want"; n_bad=$((n_bad + 1)); }
    done
    echo "$n_done cases, $n_bad differ"
    [ "$n_done" -ge 15 ] && [ "$n_bad" -eq 0 ]
}
