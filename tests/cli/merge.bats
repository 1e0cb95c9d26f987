#!/usr/bin/env bats
# merge: known answers, every method against numpy, the same bytes for any number of threads, inputs that do not fit.
# shellcheck disable=SC2086 # lists of options, and a path without spaces

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    T=$BATS_TEST_TMPDIR
}

setup_file() { # models that differ from the demonstration model by noise
    export V=$BATS_FILE_TMPDIR
    /usr/bin/python3 -c 'import numpy' 2>/dev/null || return 0
    for i in 1 2; do tests/tools/merge-reference vary tests/data/apr-demo-8M-Instruct "$V/m$i" $i; done
}

need_variants() { [ -d "$V/m2" ] || skip "python3-numpy is not installed"; }

# The hashes of all tensors, from the trailing section.
hashes() { apr inspect "$1" --provenance --json | jq -S '[.. | .tensors? // empty]'; }

# METHOD "OPTIONS" MODEL...: merges to F32 and compares every value with the reference.
compare() {
    local method=$1 options=$2
    shift 2
    rm -f "$T/o.apr" "$T/o.safetensors"
    apr merge "$@" --strategy "$method" $options --quantize f32 -q -o "$T/o.apr"
    apr-export st "$T/o.apr" -q -o "$T/o.safetensors"
    run tests/tools/merge-reference check "$method" "$T/o.safetensors" "$@" ${options/base-model/base}
    echo "$method $options: $output"
    [ "$status" -eq 0 ]
}

@test "a model merged with itself is itself, by average, slerp and without distance from the base" {
    apr import $MODEL -q -o "$T/a.apr"
    hashes "$T/a.apr" >"$T/want"
    [ "$(jq '.[0] | length' "$T/want")" -eq 99 ]
    apr merge $MODEL $MODEL -q -o "$T/average.apr"
    apr merge $MODEL $MODEL $MODEL -q -o "$T/three.apr"
    apr merge $MODEL $MODEL -s slerp -q -o "$T/slerp.apr"
    apr merge $MODEL -s ties -b $MODEL -q -o "$T/ties.apr"
    apr merge $MODEL $MODEL -s dare-ties -b $MODEL -q -o "$T/dare.apr"
    for m in average three slerp ties dare; do diff "$T/want" <(hashes "$T/$m.apr"); done
    [ "$(apr run "$T/average.apr" 'Question: What is the capital of France?' -n 4 -q)" = \
        "$(apr run "$T/a.apr" 'Question: What is the capital of France?' -n 4 -q)" ]
}

@test "slerp ends in the models it joins" {
    need_variants
    for i in 1 2; do
        apr import "$V/m$i" -q -o "$T/m$i.apr"
        apr merge "$V/m1" "$V/m2" -s slerp --t $((i - 1)) -q -o "$T/t$i.apr"
        diff <(hashes "$T/m$i.apr") <(hashes "$T/t$i.apr")
    done
}

@test "average, weighted, linear, slerp and task arithmetic against numpy" {
    need_variants
    compare average "" "$V/m1" "$V/m2" $MODEL
    compare weighted "--weights 1,3" "$V/m1" "$V/m2"
    compare linear "--weights 1,-0.5" "$V/m1" "$V/m2"
    compare slerp "--t 0.3" "$V/m1" "$V/m2"
    compare task-arithmetic "--base-model $MODEL --lambda 0.4" "$V/m1" "$V/m2"
}

@test "ties against numpy: the kept part is exact" {
    need_variants
    compare ties "--base-model $MODEL" "$V/m1" "$V/m2"
    compare ties "--base-model $MODEL --density 0.37 --lambda 1.2 --weights 1,2" "$V/m1" "$V/m2"
}

@test "dare against numpy: every value is possible and the share of dropped ones is right" {
    need_variants
    compare dare-linear "--base-model $MODEL" "$V/m1"
    compare dare-linear "--base-model $MODEL --drop-rate 0.4 --weights 1,2" "$V/m1" "$V/m2"
    compare dare-ties "--base-model $MODEL --drop-rate 0.3" "$V/m1" "$V/m2"
    compare dare-linear "--base-model $MODEL --drop-rate 0" "$V/m1" "$V/m2"
}

@test "the reference can fail" {
    need_variants
    apr merge "$V/m1" "$V/m2" --quantize f32 -q -o "$T/o.apr"
    apr-export st "$T/o.apr" -q -o "$T/o.safetensors"
    run tests/tools/merge-reference check weighted "$T/o.safetensors" "$V/m1" "$V/m2" --weights 1,3
    [ "$status" -eq 1 ]
}

@test "the same bytes for one and two threads, every kernel table, file and pipe; another seed, other bytes" {
    apr quantize $MODEL q8_0 -q -o "$T/q8.apr"
    for s in ties dare-ties; do
        apr merge "$T/q8.apr" -b $MODEL -s $s --quantize bf16 -q -j1 -o "$T/$s-1.apr"
        apr merge "$T/q8.apr" -b $MODEL -s $s --quantize bf16 -q -j2 >"$T/$s-2.apr"
        APR_KERN=scalar apr merge - -b $MODEL -s $s --quantize bf16 -q <"$T/q8.apr" >"$T/$s-3.apr"
        cmp "$T/$s-1.apr" "$T/$s-2.apr"
        diff <(hashes "$T/$s-1.apr") <(hashes "$T/$s-3.apr")
    done
    apr merge "$T/q8.apr" -b $MODEL -s dare-ties --seed 43 --quantize bf16 -q -o "$T/other.apr"
    [ "$(hashes "$T/dare-ties-1.apr")" != "$(hashes "$T/other.apr")" ]
}

@test "a seed fixes the bytes for good" {
    apr quantize $MODEL q8_0 -q -o "$T/q8.apr"
    apr merge "$T/q8.apr" -b $MODEL -s dare --seed 7 --quantize f32 -q -o "$T/a.apr"
    local got
    got=$(hashes "$T/a.apr" | jq -r '.[0]["model.layers.0.mlp.down_proj.weight"]')
    echo "$got"
    [ "$got" = c79f98a00046d59a ]
}

@test "inputs of three formats; metadata and types of the first" {
    apr import $MODEL -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/a.gguf"
    apr merge "$T/a.apr" "$T/a.gguf" $MODEL -q -o "$T/m.apr"
    diff <(hashes "$T/a.apr") <(hashes "$T/m.apr")
    diff <(apr inspect "$T/a.apr" --json | jq -S .metadata) <(apr inspect "$T/m.apr" --json | jq -S .metadata)
    apr export "$T/m.apr" --format gguf -q --no-provenance -o "$T/m.gguf"
    apr export "$T/a.apr" --format gguf -q --no-provenance -o "$T/b.gguf"
    cmp "$T/m.gguf" "$T/b.gguf"
}

@test "compressed inputs and output: the same tensors" {
    apr merge $MODEL $MODEL --quantize f16 -q -o "$T/want.apr"
    apr import $MODEL --compress zstd -q -o "$T/z.apr"
    apr import $MODEL --compress lz4 -q -o "$T/l.apr"
    apr merge "$T/z.apr" "$T/l.apr" --quantize f16 --compress zstd -q -j2 -o "$T/m.apr"
    diff <(hashes "$T/want.apr") <(hashes "$T/m.apr")
    apr merge <(cat "$T/z.apr") $MODEL -s ties -b "$T/l.apr" --quantize f16 -q -o "$T/n.apr"
    diff <(hashes "$T/want.apr") <(hashes "$T/n.apr")
}

@test "provenance names every source and the recipe with its parameters" {
    apr merge $MODEL $MODEL -b $MODEL -s ties --density 0.3 --weights 1,2 --hash-sources -q -o "$T/m.apr"
    apr inspect "$T/m.apr" --provenance --json >"$T/p"
    local p='[.. | .provenance? // empty] | .[0]'
    [ "$(jq "$p | .sources | length" "$T/p")" -eq 12 ]
    [ "$(jq "$p | [.sources[] | select(.sha256)] | length" "$T/p")" -eq 12 ]
    [ "$(jq -c "$p | [.models[].role]" "$T/p")" = '["merged","merged","base"]' ]
    jq -e "$p | .steps[0] | del(.tool)"' == {step: "merge", method: "ties", weights: [1, 2], lambda: 1, density: 0.3}' "$T/p"
}

@test "quantized inputs: types of the first need --requantize, f16 does not" {
    apr quantize $MODEL q8_0 -q -o "$T/q8.apr"
    run apr merge "$T/q8.apr" $MODEL -o "$T/x.apr"
    [ "$status" -eq 5 ]
    [[ "$output" == *--requantize* ]]
    run apr merge $MODEL "$T/q8.apr" --quantize q4k -o "$T/x.apr"
    [ "$status" -eq 5 ]
    [ ! -e "$T/x.apr" ]
    apr merge "$T/q8.apr" "$T/q8.apr" --requantize -q -o "$T/a.apr"
    diff <(hashes "$T/q8.apr") <(hashes "$T/a.apr")
    apr merge "$T/q8.apr" $MODEL --quantize f16 -q -o "$T/b.apr"
    apr merge $MODEL $MODEL --quantize q4k -q -o "$T/c.apr"
    apr import $MODEL --quantize q4k -q -o "$T/d.apr"
    diff <(hashes "$T/c.apr") <(hashes "$T/d.apr")
}

@test "models that do not fit are refused with the differences named, and nothing is written" {
    for kind in missing swapped-down; do
        tests/tools/break-model $kind $MODEL "$T/$kind"
        run apr merge $MODEL "$T/$kind" --skip-contract -o "$T/x.apr"
        echo "$kind: $output"
        [ "$status" -eq 5 ]
        [[ "$output" == *down_proj* ]]
    done
    cp -r $MODEL "$T/tok"
    sed -i 's/"Ġthe"/"Ġtha"/' "$T/tok/tokenizer.json"
    run apr merge $MODEL "$T/tok" -o "$T/x.apr"
    echo "$output"
    [ "$status" -eq 5 ]
    [[ "$output" == *"expected \"Ġthe\""* ]]
    tests/tools/break-model nan $MODEL "$T/nan"
    for s in "-s average" "-s slerp" "-s ties -b $MODEL" "-s dare-ties -b $MODEL"; do
        run apr merge $MODEL "$T/nan" $s -o "$T/x.apr"
        [ "$status" -eq 5 ]
        [[ "$output" == *"$T/nan: F-DATA-QUALITY-002"*"value 1000 is NaN"* ]]
    done
    head -c 3000000 <(apr import $MODEL -q) >"$T/cut.apr"
    run apr merge $MODEL "$T/cut.apr" -o "$T/x.apr"
    [ "$status" -eq 4 ]
    [ ! -e "$T/x.apr" ]
}

@test "usage errors are 2 with one line: unknown, idle and missing options, counts and ranges" {
    while read -r args; do
        run apr merge $args -o "$T/x.apr"
        echo "$args: $output"
        [ "$status" -eq 2 ]
        [ "$(wc -l <<<"$output")" -eq 1 ]
        [ ! -e "$T/x.apr" ]
    done <<EOF
$MODEL
$MODEL $MODEL -s nonsense
$MODEL $MODEL --t 0.5
$MODEL $MODEL -b $MODEL
$MODEL $MODEL -s average --weights 1,2
$MODEL $MODEL -s weighted
$MODEL $MODEL -s weighted --weights 1
$MODEL $MODEL -s weighted --weights 1,2,3
$MODEL $MODEL -s weighted --weights 1,x
$MODEL $MODEL -s weighted --weights 1,-1
$MODEL $MODEL -s weighted --weights 1,inf
$MODEL $MODEL $MODEL -s slerp
$MODEL $MODEL -s slerp --t 1.5
$MODEL $MODEL -s slerp --seed 4
$MODEL $MODEL -s ties
$MODEL $MODEL -s ties -b $MODEL --density 0
$MODEL $MODEL -s ties -b $MODEL --density 1.1
$MODEL $MODEL -s ties -b $MODEL --drop-rate 0.5
$MODEL $MODEL -s ties -b $MODEL --weights 1,-2
$MODEL $MODEL -s dare -b $MODEL --drop-rate 1
$MODEL $MODEL -s dare -b $MODEL --seed -3
- -
EOF
}

@test "--dry-run writes nothing; a full disk is 7; an existing output needs --force" {
    run apr merge $MODEL $MODEL --dry-run --json -o "$T/x.apr"
    [ "$status" -eq 0 ]
    [ "$(jq '.tensors | length' <<<"$output")" -eq 99 ]
    [ ! -e "$T/x.apr" ]
    run bash -c "apr merge $MODEL $MODEL -q >/dev/full"
    [ "$status" -eq 7 ]
    : >"$T/x.apr"
    run apr merge $MODEL $MODEL -q -o "$T/x.apr"
    [ "$status" -ne 0 ]
    [ ! -s "$T/x.apr" ]
    apr merge $MODEL $MODEL -q --force -o "$T/x.apr"
    run apr merge $MODEL $MODEL --json --force -o "$T/x.apr"
    jq -e '.n_tensors == 99' <<<"$(tail -n 1 <<<"$output")"
}

@test "memory stays small: two models of 300 MB" {
    tests/tools/big-model "$T/big" 300
    scripts/measure "$T/rss" apr-import merge "$T/big" "$T/big" -s ties -b "$T/big" --quantize q8_0 -q -o "$T/m.apr"
    cat "$T/rss"
    [ "$(jq '.max_rss_bytes < 128 * 1048576' "$T/rss")" = true ]
}

@test "SIGKILL at any moment: no output or the whole one, and nothing else" {
    mkdir "$T/out"
    apr merge $MODEL $MODEL -s ties -b $MODEL -q -o "$T/want.apr"
    local i
    for i in $(seq 30); do
        apr-import merge $MODEL $MODEL -s ties -b $MODEL -q --force -o "$T/out/m.apr" &
        sleep "0.$((i * 3 / 10))$((i * 3 % 10))"
        kill -9 $! 2>/dev/null || true
        wait $! 2>/dev/null || true
        [ ! -e "$T/out/m.apr" ] || cmp "$T/out/m.apr" "$T/want.apr"
    done
    rm -f "$T/out/m.apr"
    [ -z "$(ls -A "$T/out")" ]
}
