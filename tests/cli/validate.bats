#!/usr/bin/env bats
# shellcheck disable=SC2154 # stderr and stderr_lines are set by run --separate-stderr
# validate: what is healthy passes in every format, each planted fault is named by its rule.

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export D="$BATS_FILE_TMPDIR" MODEL=tests/data/apr-demo-8M-Instruct
    apr import "$MODEL" -q -o "$D/a.apr"
    apr export "$D/a.apr" --format gguf -q -o "$D/a.gguf"
    apr import "$MODEL" --quantize q4k -q -o "$D/q.apr"
    for kind in nan inf zero-embed sparse-embed missing swapped-embed swapped-head swapped-down vocab; do
        tests/tools/break-model "$kind" "$MODEL" "$D/$kind"
    done
    for kind in nan sparse-embed swapped-head missing; do
        apr import --skip-contract "$D/$kind" -q -o "$D/$kind.apr"
    done
}

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
}

refused() { # MODEL RULE TEXT: status 5, rule and text on one line of stderr, INVALID in the report
    run --separate-stderr apr validate "$1"
    [ "$status" -eq 5 ]
    [ "${#stderr_lines[@]}" -eq 1 ]
    [[ "$stderr" == *"$2"* && "$stderr" == *"$3"* ]] || {
        echo "$stderr"
        false
    }
    [[ "${lines[-1]}" == INVALID ]]
}

@test "healthy models in every format and type are valid" {
    for m in "$MODEL" "$D/a.apr" "$D/a.gguf" "$D/q.apr" "$MODEL/model.safetensors.index.json"; do
        run --separate-stderr apr validate "$m"
        [ "$status" -eq 0 ]
        [ -z "$stderr" ]
        [ "${lines[-1]}" = VALID ]
    done
}

@test "standard input, and a single shard without a config" {
    run apr validate - < "$D/a.apr"
    [ "$status" -eq 0 ]
    cat < "$D/a.gguf" | apr validate -q
    cp "$MODEL/model-00001-of-00004.safetensors" "$BATS_TEST_TMPDIR/shard"
    run apr validate "$BATS_TEST_TMPDIR/shard"
    [ "$status" -eq 0 ]
    [[ "$output" == *"no contract for this family"* ]]
    run apr validate --strict "$BATS_TEST_TMPDIR/shard"
    [ "$status" -eq 5 ]
}

@test "F-CONTRACT-005: NaN and infinity" {
    refused "$D/nan" "F-DATA-QUALITY-002 model.layers.0.mlp.down_proj.weight" "1 NaN of 196608 values; expected none"
    refused "$D/nan.apr" "F-DATA-QUALITY-002" "1 NaN"
    refused "$D/inf" "F-DATA-QUALITY-002 model.layers.0.mlp.down_proj.weight" "1 infinite of 196608 values"
}

@test "F-CONTRACT-004: an embedding of 94.5 % zeros, one of zeros" {
    refused "$D/sparse-embed" "F-DATA-QUALITY-001 model.embed_tokens.weight" "94.5 % zeros; expected at most 50 %"
    refused "$D/sparse-embed.apr" "F-DATA-QUALITY-001" "94.5 % zeros"
    refused "$D/zero-embed" "F-DATA-QUALITY-001 model.embed_tokens.weight" "all 1048576 values are zero"
}

@test "F-LAYOUT-004, F-LAYOUT-005, F-LAYOUT-006, F-CONTRACT-007: swapped shapes" {
    refused "$D/swapped-embed" "F-LAYOUT-CONTRACT-001 model.embed_tokens.weight" "embedding layout violation: found [256, 4096], expected [4096, 256]: transposed"
    refused "$D/swapped-down" "F-LAYOUT-CONTRACT-001 model.layers.0.mlp.down_proj.weight" "weight layout violation"
    refused "$D/swapped-head" "F-LAYOUT-CONTRACT-002 lm_head.weight" "(critical)"
    refused "$D/swapped-head.apr" "F-LAYOUT-CONTRACT-002 lm_head.weight" "(critical)"
}

@test "a missing tensor, a vocabulary that does not fit" {
    refused "$D/missing" "F-TENSOR-001 model.layers.0.mlp.down_proj.weight" "missing; family qwen2 requires it"
    refused "$D/missing.apr" "F-TENSOR-001" "missing"
    refused "$D/vocab" "F-LAYOUT-CONTRACT" "expected [5000, 256]"
}

@test "--json: one document with the published keys, also for what cannot be read" {
    apr validate "$D/a.apr" --json > "$BATS_TEST_TMPDIR/ok.json"
    jq -es 'length == 1 and .[0].is_valid and .[0].tensor_count == 99 and .[0].failed_tensor_count == 0
        and (.[0].tensors | length) == 99 and (.[0].all_zero_tensors | length) == 0 and .[0].integrity == "ok"
        and (.[0].checks | length) == 100 and .[0].score.passed <= .[0].score.applicable
        and .[0].score.applicable + .[0].score.skipped == 100
        and (.[0].tensors[0] | has("name") and has("is_valid") and has("nan_count") and has("inf_count") and has("zero_count")
             and has("element_count") and has("min") and has("max") and has("mean") and has("std") and has("failures"))' \
        "$BATS_TEST_TMPDIR/ok.json"
    run --separate-stderr apr validate "$D/nan" --json
    [ "$status" -eq 5 ]
    jq -e '(.is_valid | not) and .total_nan_count == 1 and .failed_tensor_count == 1
        and .violations[0].rule == "F-DATA-QUALITY-002" and ([.tensors[] | select(.is_valid | not)] | length) == 1
        and ([.checks[] | select(.id == 26)][0].status == "fail")' <<< "$output"
    run --separate-stderr apr validate /dev/null --json
    [ "$status" -eq 4 ]
    jq -e '(.is_valid | not) and (.error | length) > 0' <<< "$output"
}

@test "statistics of validate equal those of a plain computation" {
    apr validate "$MODEL" --json | jq -e '.tensors[] | select(.name == "model.norm.weight")
        | .element_count == 256 and .mean > 0 and .std > 0 and .min <= .mean and .mean <= .max'
    for j in 1 2 3; do apr validate "$D/q.apr" --json -j $j | jq -c .tensors > "$BATS_TEST_TMPDIR/$j"; done
    cmp "$BATS_TEST_TMPDIR/1" "$BATS_TEST_TMPDIR/2"
    cmp "$BATS_TEST_TMPDIR/1" "$BATS_TEST_TMPDIR/3"
}

# Header, metadata, index, data, trailing section, footer: one bit each.
@test "every flipped bit of an .apr is found" {
    n=$(stat -c %s "$D/q.apr")
    for at in 5 9 40 63 64 300 $((n / 4)) $((n / 2)) $((n - n / 5)) $((n - 3000)) $((n - 40)) $((n - 1)); do
        cp "$D/q.apr" "$BATS_TEST_TMPDIR/x.apr"
        byte=$(od -An -tu1 -j "$at" -N1 "$D/q.apr")
        printf "%b" "\\x$(printf '%02x' $((byte ^ 4)))" | dd of="$BATS_TEST_TMPDIR/x.apr" bs=1 seek="$at" conv=notrunc status=none
        run apr validate "$BATS_TEST_TMPDIR/x.apr"
        [ "$status" -eq 4 ] || [ "$status" -eq 5 ] || {
            echo "byte $at: status $status: $output"
            false
        }
    done
}

@test "--quality lists 100 points, skipped ones with a reason; --min-score and --strict judge" {
    run apr validate "$D/a.apr" --quality
    [ "$status" -eq 0 ]
    [ "$(grep -cE '^ +[0-9]+  .* (pass|warn|skip) ' <<< "$output")" -eq 100 ]
    [ "$(apr validate "$D/a.apr" --json | jq '[.checks[] | select(.detail == "")] | length')" -eq 0 ]
    apr validate "$D/a.apr" --min-score 90 -q
    run apr validate "$D/a.apr" --min-score 100 -q
    [ "$status" -eq 5 ]
    [[ "$output" == *"expected at least 100 %"* ]]
    run apr validate "$D/a.apr" --min-score 101
    [ "$status" -eq 2 ]
    run apr validate "$D/a.apr" --strict -q
    [ "$status" -eq 5 ]
    [[ "$output" == *"check 28"* ]]
}

@test "-q prints nothing; the score of a broken model falls" {
    run apr validate "$MODEL" -q
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    healthy=$(apr validate "$MODEL" --json | jq .score.percent)
    broken=$({ apr validate "$D/nan" --json 2> "$BATS_TEST_TMPDIR/err" || true; } | jq .score.percent)
    [ "$(jq -n "$healthy > $broken")" = true ]
}

@test "misuse and absent files" {
    run apr validate a b
    [ "$status" -eq 2 ]
    run apr validate --no-such-option "$MODEL"
    [ "$status" -eq 2 ]
    run apr validate /no/such/file
    [ "$status" -eq 3 ]
    run bash -c 'apr validate "$MODEL" > /dev/full'
    [ "$status" -eq 7 ]
}
