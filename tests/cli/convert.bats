#!/usr/bin/env bats
# import, convert, quantize, export, rosetta: the same bytes by every route, and the bytes that llama.cpp's converter writes.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    GGUF=${APR_SHARED:-../shared}/fixtures/gguf
    T=$BATS_TEST_TMPDIR
}

need_fixtures() { [ -d "$GGUF" ] || skip "the fixtures are not here: $GGUF"; }

@test "pipe, two files, one and two threads, rosetta: the same GGUF byte for byte" {
    set -o pipefail
    apr-import st "$MODEL" --quantize q4k -q -j1 | apr-export gguf -q -j1 >"$T/pipe1.gguf"
    apr-import st "$MODEL" --quantize q4k -q -j2 | apr-export gguf -q -j2 >"$T/pipe2.gguf"
    apr import "$MODEL" --quantize q4k -q -j2 -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/file.gguf"
    apr rosetta chain "st -> apr -> gguf" --input "$MODEL" --quantize q4k -q --work-dir "$T/work" -o "$T/chain.gguf"
    cmp "$T/pipe1.gguf" "$T/pipe2.gguf"
    cmp "$T/pipe1.gguf" "$T/file.gguf"
    cmp "$T/pipe1.gguf" "$T/chain.gguf"
}

@test "the .apr through a pipe equals the file; every kernel table writes the same" {
    apr import "$MODEL" --quantize q4k -q -o "$T/a.apr"
    apr import "$MODEL" --quantize q4k -q >"$T/b.apr"
    APR_KERN=scalar apr import "$MODEL" --quantize q4k -q -j1 >"$T/c.apr"
    cmp "$T/a.apr" "$T/b.apr"
    cmp "$T/a.apr" "$T/c.apr"
}

@test "BF16 GGUF: keys, order and data of llama.cpp's converter" {
    need_fixtures
    apr import "$MODEL" -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/a.gguf"
    run tests/tools/gguf-manifest "$T/a.gguf" --against "$GGUF/demo-bf16.json"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "a tied model with the new style of config: keys and data of the converter" {
    need_fixtures
    apr import "$GGUF/../families/qwen2-tied" -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/a.gguf"
    run tests/tools/gguf-manifest "$T/a.gguf" --against "$GGUF/qwen2-tied-bf16.json"
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "the comparison with a manifest can fail" {
    need_fixtures
    run tests/tools/gguf-manifest "$GGUF/demo-Q8_0.gguf" --against "$GGUF/demo-bf16.json"
    [ "$status" -eq 1 ]
}

@test "F16, F32: data of the converter" {
    need_fixtures
    for t in f16 f32; do
        apr import "$MODEL" --quantize $t -q -o "$T/$t.apr"
        apr export "$T/$t.apr" --format gguf -q -o "$T/$t.gguf"
        run tests/tools/gguf-manifest "$T/$t.gguf" --against "$GGUF/demo-$t.json"
        echo "$t: $output"
        [ "$status" -eq 0 ]
    done
}

@test "Q8_0: data byte-identical to llama.cpp's" {
    need_fixtures
    apr import "$MODEL" --quantize q8_0 -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/a.gguf"
    run tests/tools/gguf-manifest "$T/a.gguf" --against "$GGUF/demo-Q8_0.json" --skip general.file_type,general.quantization_version
    echo "$output"
    [ "$status" -eq 0 ]
}

@test "Q4_K_M: the type of every tensor is llama-quantize's" {
    need_fixtures
    apr import "$MODEL" --quantize q4_k_m -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/a.gguf"
    run tests/tools/gguf-manifest "$T/a.gguf" --against "$GGUF/demo-Q4_K_M.json" --types --skip general.file_type,general.quantization_version
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$(tests/tools/gguf-manifest "$T/a.gguf" | jq '.kv[] | select(.key == "general.file_type") | .value')" -eq 15 ]
}

@test "provenance keys come last and --no-provenance leaves them out" {
    apr import "$MODEL" -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/with.gguf"
    apr export "$T/a.apr" --format gguf -q --no-provenance -o "$T/without.gguf"
    [ "$(tests/tools/gguf-manifest "$T/with.gguf" | jq -r '.kv[-1].key')" = apr.provenance ]
    [ "$(tests/tools/gguf-manifest "$T/without.gguf" | jq '[.kv[].key | select(startswith("apr."))] | length')" -eq 0 ]
    tests/tools/gguf-manifest "$T/with.gguf" | jq -e '.kv[-1].value | fromjson | .sources | length == 4'
}

@test "export from the folder equals import, then export" {
    apr export "$MODEL" --format gguf -q --no-provenance -o "$T/direct.gguf"
    apr import "$MODEL" -q | apr-export gguf -q --no-provenance >"$T/two.gguf"
    cmp "$T/direct.gguf" "$T/two.gguf"
}

@test "GGUF to .apr to GGUF keeps keys and data" {
    need_fixtures
    for q in Q4_K_M Q8_0 bf16 Q2_K Q3_K_M Q4_0 Q5_K_M Q6_K; do
        apr import "$GGUF/demo-$q.gguf" -q -o "$T/$q.apr"
        apr export "$T/$q.apr" --format gguf -q -o "$T/$q.gguf"
        run tests/tools/gguf-manifest "$T/$q.gguf" --against "$GGUF/demo-$q.json"
        echo "$q: $output"
        [ "$status" -eq 0 ]
        rm -f "$T/$q.apr" "$T/$q.gguf"
    done
}

@test "SafeTensors out and in again: the same tensors" {
    apr import "$MODEL" -q -o "$T/a.apr"
    apr-export st "$T/a.apr" -q -o "$T/a.safetensors"
    [ "$(apr tensors "$T/a.safetensors" --json | jq .tensor_count)" -eq 99 ]
    apr import "$T/a.safetensors" --skip-contract -q -o "$T/b.apr"
    diff <(apr inspect "$T/a.apr" --provenance --json | jq -S '[.. | .tensors? // empty]') \
        <(apr inspect "$T/b.apr" --provenance --json | jq -S '[.. | .tensors? // empty]')
}

@test "a quantized source needs --requantize to become another quantized type" {
    apr import "$MODEL" --quantize q8_0 -q -o "$T/a.apr"
    run apr convert "$T/a.apr" --quantize q4k -o "$T/b.apr"
    [ "$status" -eq 5 ]
    [[ "$output" == *--requantize* ]]
    [ ! -e "$T/b.apr" ]
    apr convert "$T/a.apr" --quantize q4k --requantize -q -o "$T/b.apr"
    apr quantize "$T/a.apr" f16 -q -o "$T/c.apr"
    [ "$(apr tensors "$T/c.apr" --json | jq -r '.tensors[] | select(.name == "lm_head.weight") | .dtype')" = F16 ]
}

@test "a tied head is not written, and is with --materialize-head" {
    need_fixtures
    local tied=$GGUF/../families/qwen2-tied
    apr import "$tied" -q -o "$T/a.apr"
    apr import "$tied" -q --materialize-head -o "$T/b.apr"
    [ "$(apr tensors "$T/a.apr" --json | jq '[.tensors[] | select(.name == "lm_head.weight")] | length')" -eq 0 ]
    [ "$(apr tensors "$T/b.apr" --json | jq '[.tensors[] | select(.name == "lm_head.weight")] | length')" -eq 1 ]
}

@test "an existing output needs --force; a refused import leaves nothing" {
    apr import "$MODEL" -q -o "$T/a.apr"
    run apr import "$MODEL" -q -o "$T/a.apr"
    [ "$status" -ne 0 ]
    apr import "$MODEL" -q --force -o "$T/a.apr"
    tests/tools/break-model nan "$MODEL" "$T/nan"
    mkdir "$T/out"
    run apr import "$T/nan" -o "$T/out/x.apr"
    [ "$status" -eq 5 ]
    [[ "$output" == *F-DATA-QUALITY-002*down_proj* ]]
    [ -z "$(ls -A "$T/out")" ]
}

@test "in a pipe a fault in the data ends with 5 here and 4 there" {
    tests/tools/break-model nan "$MODEL" "$T/nan"
    run bash -c "apr-import st '$T/nan' 2>/dev/null | apr-export gguf >'$T/x.gguf'; echo \"\${PIPESTATUS[*]}\""
    echo "$output"
    [[ "$output" == *"5 4" ]]
}

@test "a value too large for F16 is refused" {
    tests/tools/break-model inf "$MODEL" "$T/inf"
    run apr import "$T/inf" --quantize f16 -o "$T/x.apr"
    [ "$status" -eq 5 ]
    [ ! -e "$T/x.apr" ]
}

@test "usage errors are 2 with one line, and write nothing" {
    for args in "--quantize nonsense" "--pure" "--quantize q4k --no-such"; do
        run apr import "$MODEL" "$args" -o "$T/x.apr"
        [ "$status" -eq 2 ]
        [ "$(wc -l <<<"$output")" -eq 1 ]
        [ ! -e "$T/x.apr" ]
    done
    run apr-import gguf "$MODEL" -o "$T/x.apr"
    [ "$status" -eq 4 ]
    run apr export "$MODEL" --format onnx -o "$T/x"
    [ "$status" -eq 2 ]
}

@test "a full disk is 7, and a missing source 3" {
    run bash -c "apr import $MODEL -q >/dev/full"
    [ "$status" -eq 7 ]
    run apr import "$T/none" -o "$T/x.apr"
    [ "$status" -eq 3 ]
}

@test "--dry-run shows the plan without writing; its size is the file's" {
    run apr import "$MODEL" --quantize q4k --dry-run --json -o "$T/x.apr"
    [ "$status" -eq 0 ]
    [ ! -e "$T/x.apr" ]
    local planned
    planned=$(jq .output_bytes <<<"$output")
    apr import "$MODEL" --quantize q4k -q -o "$T/x.apr"
    local found
    found=$(stat -c %s "$T/x.apr")
    [ "$planned" -le "$found" ] && [ "$((found - planned))" -lt 65536 ]
    apr export "$T/x.apr" --format gguf --dry-run --json >"$T/plan"
    apr export "$T/x.apr" --format gguf -q -o "$T/x.gguf"
    [ "$(jq .output_bytes "$T/plan")" -eq "$(stat -c %s "$T/x.gguf")" ]
}

@test "--hash-sources records the SHA-256 of every shard" {
    apr import "$MODEL" -q --hash-sources -o "$T/a.apr"
    local want
    want=$(sha256sum "$MODEL"/model-00002-of-00004.safetensors | cut -d' ' -f1)
    apr inspect "$T/a.apr" --provenance --json | grep -q "$want"
}

@test "APR-native int8 and int4: close to the source, int8 only from files" {
    apr import "$MODEL" --quantize f32 -q -o "$T/f32.apr"
    for t in int8 int4; do
        apr import "$MODEL" --quantize $t -q -j1 -o "$T/$t.apr"
        apr import "$MODEL" --quantize $t -q -j2 -o "$T/$t-2.apr"
        cmp "$T/$t.apr" "$T/$t-2.apr"
        apr convert "$T/$t.apr" --quantize f32 -q -o "$T/$t-f32.apr"
        run apr eval "$T/$t-f32.apr" --text "The capital of France is Paris. Two and two make four." --json --threshold 1e9
        [ "$status" -eq 0 ]
        echo "$t $output"
    done
    run bash -c "apr import $MODEL -q | apr-import convert --quantize int8 -o '$T/x.apr'"
    [ "$status" -eq 2 ]
    [[ "$output" == *"file instead of a pipe"* ]]
    [ ! -e "$T/x.apr" ]
}

@test "memory stays small: a model of 600 MB through files and a pipe" {
    tests/tools/big-model "$T/big" 600
    scripts/measure "$T/rss" apr-import import "$T/big" --quantize q4k -q -o "$T/big.apr"
    scripts/measure "$T/rss" apr-export export gguf "$T/big.apr" -q -o "$T/file.gguf"
    scripts/measure "$T/rss" apr-import st "$T/big" --quantize q4k -q |
        scripts/measure "$T/rss" apr-export gguf -q >"$T/pipe.gguf"
    cmp "$T/file.gguf" "$T/pipe.gguf"
    cat "$T/rss"
    [ "$(jq -s 'length == 4 and all(.max_rss_bytes < 128 * 1048576)' "$T/rss")" = true ]
}
