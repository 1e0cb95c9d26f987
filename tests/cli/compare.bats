#!/usr/bin/env bats
# fingerprint, diff-tensors, validate-stats, compare-inference, and the subverbs of rosetta: what they find and what not.

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    F=$BATS_FILE_TMPDIR
    MODEL=tests/data/apr-demo-8M-Instruct
    UP=model.layers.3.mlp.up_proj.weight
    apr import $MODEL -q -o "$F/a.apr"
    apr import $MODEL -q --quantize q4k -o "$F/q.apr"
    apr export "$F/a.apr" --format gguf -q -o "$F/a.gguf"
    apr export "$F/q.apr" --format gguf -q -o "$F/q.gguf"
    tests/tools/break-model swapped-down $MODEL "$F/swapped"
    tests/tools/break-model nan $MODEL "$F/nan"
    tests/tools/break-model missing $MODEL "$F/missing"
    # A bit of an exponent, at value 0 of one tensor: 2^64 times as large, or as small.
    cp "$F/a.apr" "$F/huge.apr"
    chmod u+w "$F/huge.apr"
    local at byte
    at=$(apr inspect "$F/a.apr" --weights --json | jq --arg n $UP '.weights[] | select(.name == $n) | .offset + 1')
    byte=$(od -An -tu1 -j "$at" -N 1 "$F/a.apr")
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\x$(printf %x $((byte ^ 64)))" | dd of="$F/huge.apr" bs=1 seek="$at" conv=notrunc 2>/dev/null
    export F MODEL UP
}

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    T=$BATS_TEST_TMPDIR
}

# The values of a BF16 tensor, from the bytes, by another program.
plain() { # FILE.safetensors... TENSOR
    python3 - "$@" <<'PY'
import json, math, struct, sys
name = sys.argv[-1]
for path in sys.argv[1:-1]:
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head = json.loads(f.read(n))
        if name not in head:
            continue
        a, b = head[name]["data_offsets"]
        f.seek(8 + n + a)
        bits = [h << 16 for h in struct.unpack("<%dH" % ((b - a) // 2), f.read(b - a))]
v = sorted(struct.unpack("<%df" % len(bits), struct.pack("<%dI" % len(bits), *bits)))
mean = math.fsum(v) / len(v)
std = math.sqrt(math.fsum((x - mean) ** 2 for x in v) / len(v))
pct = {"p%d" % p: v[(len(v) - 1) * p // 100] for p in (5, 25, 50, 75, 95)}
print(json.dumps({"mean": mean, "std": std, "min": v[0], "max": v[-1], "checksum": sum(bits) % 2**32,
                  "zero_fraction": sum(abs(x) < 1e-10 for x in v) / len(v)} | pct))
PY
}

@test "fingerprint: the numbers of a plain computation" {
    command -v python3 >/dev/null || skip 'python3 is not here'
    plain "$MODEL"/*.safetensors "$UP" >"$T/want"
    run -0 --separate-stderr apr fingerprint "$MODEL" --filter "$UP" --json
    jq -e --slurpfile want "$T/want" '.fingerprints | length == 1 and (.[0] as $f | $want[0] | to_entries |
        all(. as $e | ($f[$e.key] - $e.value | fabs) <= 1e-15))' <<<"$output"
}

@test "fingerprint: the same from every format, thread count and kernel table, and through a pipe" {
    values() { jq -c '.fingerprints[] | del(.dtype, .data_xxh3)'; }
    apr fingerprint "$MODEL" --json | values >"$T/want"
    [ "$(wc -l <"$T/want")" -eq 99 ]
    apr fingerprint "$F/a.apr" -j3 --json | values | cmp - "$T/want"
    apr fingerprint "$F/a.gguf" -j1 --json | values | cmp - "$T/want"
    APR_KERN=scalar apr fingerprint "$MODEL" --json | values | cmp - "$T/want"
    apr fingerprint --json <"$F/a.apr" | values | cmp - "$T/want"
    apr fingerprint - --json < <(cat "$F/a.gguf") | values | cmp - "$T/want"
}

@test "fingerprint -o writes the document, atomically, and replaces with --force only" {
    run -0 apr fingerprint "$F/a.apr" -o "$T/f.json"
    [ -z "$output" ]
    jq -e '.schema == "apr.fingerprint/1" and (.fingerprints | length == 99)' "$T/f.json"
    run -2 apr fingerprint "$F/a.apr" -o "$T/f.json"
    run -0 apr fingerprint "$F/a.apr" -f -o "$T/f.json"
    [ "$(find "$T" -type f | wc -l)" -eq 1 ]
    run -7 apr fingerprint "$F/a.apr" -o /dev/full -f
    run -7 bash -c "apr fingerprint '$F/a.apr' --json >/dev/full"
}

@test "fingerprint: text is brief, --verbose is not" {
    run -0 apr fingerprint "$F/a.apr" --filter norm
    [[ "$output" == *checksum* && "$output" != *p95* ]]
    run -0 apr fingerprint "$F/a.apr" --filter norm --verbose
    [[ "$output" == *p95* && "$output" == *zero_fraction* ]]
    run -1 apr fingerprint "$F/a.apr" --filter no-such-tensor
}

@test "fingerprint of two models: anomalies make status 1" {
    run -0 --separate-stderr apr fingerprint "$MODEL" "$F/a.gguf" --json
    jq -e '.anomalies == [] and .same_checksum_count == 99' <<<"$output"
    [ -z "$stderr" ]
    run -1 --separate-stderr apr fingerprint "$F/a.apr" "$F/nan" --json
    jq -e '.anomaly_count == 1 and .anomalies[0].field == "nan_count" and .anomalies[0].b == 1' <<<"$output"
    run -1 --separate-stderr apr fingerprint "$F/a.apr" "$F/huge.apr" --json
    jq -e --arg n "$UP" '.anomaly_count == 1 and .anomalies[0].tensor == $n and .anomalies[0].deviation_sigma > 3' <<<"$output"
    run -1 --separate-stderr apr fingerprint "$F/a.apr" "$F/missing" --json
    jq -e '[.anomalies[].field] == ["missing in B"]' <<<"$output"
    run -1 --separate-stderr apr fingerprint "$F/a.apr" "$F/swapped" --json
    jq -e '[.anomalies[].field] == ["shape"]' <<<"$output"
}

@test "diff-tensors: formats of the same values are identical" {
    for other in "$F/a.apr" "$F/a.gguf"; do
        run -0 --separate-stderr apr diff-tensors "$MODEL" "$other" --json
        jq -e '.tensors_compared == 99 and .identical_count == 99 and .max_diff == 0' <<<"$output"
        [ -z "$stderr" ]
    done
    run -0 apr diff-tensors "$MODEL" "$F/a.gguf" --mismatches-only --json
    jq -e '.results == []' <<<"$output"
}

@test "diff-tensors: one changed value is found, shown, and tolerated" {
    run -1 --separate-stderr apr diff-tensors "$F/a.apr" "$F/huge.apr" --mismatches-only --show-values 5 --json
    jq -e --arg n "$UP" '.mismatch_count == 1 and .results[0].name == $n and .results[0].different_count == 1 and
        (.results[0].values | length == 1 and .[0].index == 0) and .max_diff == (.results[0].values[0] | .a - .b | fabs)' <<<"$output"
    diff=$(jq .max_diff <<<"$output")
    run -0 apr diff-tensors "$F/a.apr" "$F/huge.apr" --tolerance "$diff"
    run -1 apr diff-tensors "$F/a.apr" "$F/huge.apr" --tolerance "$(jq -n "$diff * 0.999")"
    run -0 apr diff-tensors "$F/a.apr" "$F/huge.apr" --filter layers.0.
    run -1 --separate-stderr apr diff-tensors "$F/a.apr" "$F/huge.apr" --mismatches-only --show-values 5
    [[ "$output" == *"[0] "* ]]
    [ "$(wc -l <<<"$stderr")" -eq 1 ]
}

@test "diff-tensors: NaN, missing tensors, swapped dimensions" {
    run -1 --separate-stderr apr diff-tensors "$F/nan" "$F/a.apr" --mismatches-only --json
    jq -e '.different_count == 1 and .max_diff == null' <<<"$output"
    run -0 apr diff-tensors "$F/nan" "$F/nan"
    run -1 --separate-stderr apr diff-tensors "$F/missing" "$F/a.apr" --json
    jq -e '.missing_in_a_count == 1 and .missing_in_b_count == 0' <<<"$output"
    run -1 --separate-stderr apr diff-tensors "$F/a.apr" "$F/missing" --json
    jq -e '.missing_in_b_count == 1 and .missing_in_a_count == 0' <<<"$output"
    run -1 --separate-stderr apr diff-tensors "$F/a.gguf" "$F/swapped"
    [[ "$output" == *"transposed dimensions detected in 1 tensors"* && "$stderr" == *"transposed dimensions detected"* ]]
    run -1 apr diff-tensors "$F/a.apr" "$F/a.gguf" --filter no-such-tensor
}

@test "diff-tensors: the same numbers for any number of threads" {
    apr diff-tensors "$MODEL" "$F/q.gguf" -q -j1 --json >"$T/one" || true
    apr diff-tensors "$MODEL" "$F/q.gguf" -q -j3 --json >"$T/three" || true
    jq -e '.different_count > 50' "$T/one"
    cmp "$T/one" "$T/three"
}

@test "mixed quantization levels are warned about, one level is not" {
    local verb
    for verb in diff-tensors fingerprint "compare-inference -n 1"; do
        # shellcheck disable=SC2086 # a verb and its option
        run --separate-stderr apr ${verb% -n*} "$MODEL" "$F/q.apr" ${verb#"${verb% -n*}"}
        [[ "$stderr" == *"warning: mixed quant levels"*R3* ]]
        # shellcheck disable=SC2086
        run --separate-stderr apr ${verb% -n*} "$F/q.gguf" "$F/q.apr" ${verb#"${verb% -n*}"}
        [ "$status" -eq 0 ]
        [ -z "$stderr" ]
    done
}

@test "validate-stats: a healthy model passes, by model and by document" {
    run -0 --separate-stderr apr validate-stats "$F/a.gguf" --reference "$MODEL" --json
    jq -e '.passed and .total_tensors == 99 and .compared_tensors == 99 and .anomalies == [] and .threshold == 3' <<<"$output"
    run -0 apr validate-stats "$F/q.apr" --reference "$MODEL" --strict
    apr fingerprint "$MODEL" -o "$T/f.json"
    run -0 apr validate-stats "$F/q.gguf" --fingerprints "$T/f.json"
    run -0 apr validate-stats "$F/q.gguf" --reference "$T/f.json"
    run -0 apr validate-stats "$F/q.gguf" --reference "$MODEL/model.safetensors.index.json"
}

@test "validate-stats: what departs is named, with status 5" {
    run -5 --separate-stderr apr validate-stats "$F/huge.apr" --reference "$MODEL" --json
    jq -e --arg n "$UP" '(.passed | not) and ([.anomalies[].tensor] | unique == [$n]) and ([.anomalies[].field] | index("std") != null)' <<<"$output"
    [[ "$stderr" == *"E020: "* ]]
    run -5 --separate-stderr apr validate-stats "$F/nan" --reference "$MODEL" --json
    jq -e '[.anomalies[].field] == ["nan_count"]' <<<"$output"
    run -0 apr validate-stats "$MODEL" --reference "$F/nan"
    run -5 --separate-stderr apr validate-stats "$F/missing" --reference "$MODEL" --json
    jq -e '[.anomalies[].field] == ["missing"]' <<<"$output"
    run -0 --separate-stderr apr validate-stats "$MODEL" --reference "$F/missing" --json
    jq -e '.unreferenced_tensors == 1' <<<"$output"
    [[ "$stderr" == *"does not tell about 1 tensors"* ]]
}

@test "validate-stats: the threshold, and the roles of --strict" {
    apr fingerprint "$MODEL" -o "$T/f.json"
    shift_mean() { # TENSOR SIGMAS
        jq --arg n "$1" --argjson k "$2" '(.fingerprints[] | select(.name == $n)) |= (.mean += $k * .std)' "$T/f.json" >"$T/g.json"
    }
    shift_mean model.norm.weight 2.5
    run -0 apr validate-stats "$MODEL" --fingerprints "$T/g.json"
    run -5 apr validate-stats "$MODEL" --fingerprints "$T/g.json" --threshold 2
    run -5 --separate-stderr apr validate-stats "$MODEL" --fingerprints "$T/g.json" --strict
    [[ "$stderr" != *E020* ]]
    shift_mean model.embed_tokens.weight 4
    run -5 apr validate-stats "$MODEL" --fingerprints "$T/g.json"
    run -0 apr validate-stats "$MODEL" --fingerprints "$T/g.json" --strict
}

@test "validate-stats: no reference, two, and documents that are none" {
    run -2 apr validate-stats "$MODEL"
    run -2 apr validate-stats "$MODEL" --reference "$F/a.apr" --fingerprints x
    run -3 apr validate-stats "$MODEL" --fingerprints "$T/absent.json"
    echo '{"fingerprints": []}' >"$T/none.json"
    run -4 apr validate-stats "$MODEL" --fingerprints "$T/none.json"
    echo '{' >"$T/cut.json"
    run -4 apr validate-stats "$MODEL" --fingerprints "$T/cut.json"
}

@test "compare-inference: three formats answer alike" {
    local other
    for other in "$F/a.apr" "$F/a.gguf"; do
        run -0 --separate-stderr apr compare-inference "$MODEL" "$other" --chat -n 12 --tolerance 0 --json \
            --prompt 'Write a function that adds two numbers.'
        jq -e '.passed and .mismatches == 0 and .match_rate == 1 and .total_tokens == 12 and .text_a == .text_b and
            (.tokens | length == 12) and (.prompt_ids_a | length > 4)' <<<"$output"
    done
    run -0 apr compare-inference "$MODEL" "$F/a.apr"
    [[ "$output" == *"prompt: 2+2="* && "$output" == *"passed: yes"* ]]
}

@test "compare-inference: another answer and another tokenizer do not pass" {
    tests/tools/break-model scrambled-head "$MODEL" "$T/scrambled"
    run -1 --separate-stderr apr compare-inference "$MODEL" "$T/scrambled" --chat --prompt 'What is 2+2?' --json
    jq -e '(.passed | not) and .prompt_ids_match and .mismatches > 0 and .match_rate < 0.9' <<<"$output"
    cp -r "$MODEL" "$T/merges"
    chmod -R u+w "$T/merges"
    jq -c '.model.merges |= reverse' "$MODEL/tokenizer.json" >"$T/merges/tokenizer.json"
    rm -f "$T/merges/merges.txt"
    run -1 --separate-stderr apr compare-inference "$MODEL" "$T/merges" --prompt 'What is 2+2?' --json
    jq -e '(.passed | not) and (.prompt_ids_match | not)' <<<"$output"
    [[ "$stderr" == *F-GT-005* ]]
}

@test "compare-inference: the contract gate is apr-infer's; bad arguments" {
    run -5 apr compare-inference "$F/nan" "$F/a.apr" -n 1
    run --separate-stderr apr compare-inference "$F/nan" "$F/nan" -n 1 --skip-contract
    [[ "$stderr" != *F-DATA-QUALITY-002* ]]
    run -2 apr compare-inference "$F/a.apr"
    run -2 apr compare-inference "$F/a.apr" "$F/a.gguf" --tolerance 1
    run -2 apr compare-inference "$F/a.apr" "$F/a.gguf" -n 0
    run -2 apr compare-inference - "$F/a.gguf"
    run -3 apr compare-inference "$F/a.apr" "$T/absent"
}

@test "rosetta: each subverb is its verb" {
    apr rosetta diff-tensors "$F/a.apr" "$F/a.gguf" --json | cmp - <(apr diff-tensors "$F/a.apr" "$F/a.gguf" --json)
    apr rosetta fingerprint "$F/a.apr" >"$T/f.json" # the document, because this is no terminal
    jq -e '.fingerprints | length == 99' "$T/f.json"
    apr rosetta validate-stats "$F/q.apr" --reference "$T/f.json" --json | jq -e .passed
    apr rosetta compare-inference "$MODEL" "$F/a.gguf" --json | jq -e .passed
    apr rosetta inspect "$F/a.apr" --json | jq -e '.tensor_count == 99'
    run -2 apr rosetta no-such
    [[ "$output" == *"unrecognized subcommand"* ]]
}

@test "rosetta convert: by suffix and by --format, the bytes of the tools" {
    run -0 apr rosetta convert "$MODEL" "$T/a.gguf" --quantize q4k -q
    cmp "$T/a.gguf" <(apr export "$MODEL" --format gguf --quantize q4k -q -o -)
    run -0 apr diff-tensors "$T/a.gguf" "$F/q.gguf"
    run -0 --separate-stderr apr rosetta convert "$MODEL" "$T/a.apr" --verify --json
    jq -e '.verified and .source.format == "SafeTensors" and .source.tensors == 99 and .target.format == "APR v2"' <<<"$output"
    run -0 apr rosetta convert "$F/a.apr" "$T/plain" --format gguf -q
    cmp "$T/plain" "$F/a.gguf"
    run -1 apr rosetta convert "$MODEL" "$T/b.apr" --quantize q4k --verify -q
    run -2 apr rosetta convert "$MODEL" "$T/plain2"
    run -2 apr rosetta convert "$MODEL"
    run -3 apr rosetta convert "$T/absent" "$T/x.apr"
    run -5 apr rosetta convert "$F/nan" "$T/x.apr"
    [ ! -e "$T/x.apr" ]
}

@test "rosetta verify: there and back is equivalent on every route" {
    local args
    mkdir "$T/tmp"
    export TMPDIR=$T/tmp
    for args in "$MODEL" "$MODEL --intermediate gguf" "$F/a.apr" "$F/a.gguf --intermediate safetensors" \
        "$F/a.gguf --intermediate apr" "$F/q.apr" "$F/q.gguf"; do
        # shellcheck disable=SC2086 # words
        run -0 --separate-stderr apr rosetta verify $args --tolerance 0 --json
        jq -e '.is_equivalent and .tensors_compared == 99 and .max_diff == 0 and .failed_tensors == []' <<<"$output"
    done
    run -2 apr rosetta verify "$F/a.apr" --intermediate apr
    run -5 apr rosetta verify "$F/nan"
    run -3 apr rosetta verify "$T/absent"
    [ "$(find "$T/tmp" -mindepth 1 -name "tmp.*" | wc -l)" -eq 0 ] # nothing is left behind
}
