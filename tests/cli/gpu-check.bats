#!/usr/bin/env bats
# scripts/gpu-check and what it is made of, as far as that can be seen without a GPU.

# shellcheck disable=SC2154 # stderr is set by run

bats_require_minimum_version 1.5.0

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    W=$BATS_TEST_TMPDIR
}

@test "without a GPU it is status 9 and one line" {
    ! nvidia-smi -L >/dev/null 2>&1 || skip 'this machine has a GPU'
    run --separate-stderr scripts/gpu-check -o "$W/out"
    [ "$status" -eq 9 ]
    [ "$stderr" = 'gpu-check: no GPU here' ]
    [ ! -e "$W/out" ]
}

@test "gates of a GPU say that there is none, and are not counted as passed" {
    ! nvidia-smi -L >/dev/null 2>&1 || skip 'this machine has a GPU'
    gates=$(awk -F'\t' '$2 == "gpu" { print $1 }' tests/gates.tsv)
    [ "$(wc -l <<<"$gates")" -eq 17 ]
    # shellcheck disable=SC2086 # words
    run scripts/run-gates $gates
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$(grep -c '^not run .*: no GPU here$' <<<"$output")" -eq 17 ]
    [ "${lines[-1]}" = '0 passed, 0 failed, 17 not run' ]
}

@test "a model made for measuring is sound: both types of its shape" {
    for type in q4_k_m bf16; do
        tests/tools/random-gguf "$W/$type.gguf" tiny $type
        run apr-qa validate "$W/$type.gguf"
        echo "$output"
        [ "$status" -eq 0 ]
        run --separate-stderr apr-infer run "$W/$type.gguf" hello -n 4 --raw --device cpu
        echo "$status: $stderr"
        [ "$status" -eq 0 ]
    done
    [ "$(apr-infer tokenize "$W/bf16.gguf" 'ab' --json | jq '.ids | length')" -le 2 ]
}

# What bench_gpu prints of all that is timed.
timed() {
    cat <<'T'
NVIDIA X, sm_90, 132 SM
shape 7b, q4_k_m
vram_4k 5438 MiB at 4096 positions
decode_d0 600.0 tok/s (590.0 at worst), 80.0 % of the read bandwidth
decode_d4096 500.0 tok/s (490.0 at worst), 70.0 % of the read bandwidth
decode_d16384 400.0 tok/s (390.0 at worst), 60.0 % of the read bandwidth
batch8 2000.0 tok/s, 4.000 ms a step, 40.0 % of the read bandwidth
batch32 6000.0 tok/s, 5.000 ms a step, 40.0 % of the read bandwidth
pp512 20000 tok/s, 25.60 ms
pp2048 30000 tok/s, 68.30 ms
T
}

@test "the report takes the best of the peer's numbers, and less is better for a time; what is missing is told" {
    mkdir "$W/m"
    timed >"$W/m/q4"
    printf '%s\n' '{"n_prompt":512,"n_gen":0,"n_depth":0,"avg_ts":8000}' '{"n_prompt":512,"n_gen":0,"n_depth":0,"avg_ts":10000}' \
        '{"n_prompt":512,"n_gen":0,"n_depth":0,"avg_ts":9000}' '{"n_prompt":0,"n_gen":128,"n_depth":0,"avg_ts":300}' >"$W/m/peer"
    printf '%s\n' 'noise' '{"pl":8,"speed_tg":1000}' '{"pl":32,"speed_tg":3000}' >"$W/m/peer-batch"
    run --separate-stderr tests/tools/gpu-report "$W/m" "$W/latest.json" abc1234 'scripts/gpu-check'
    echo "$output"
    [ "$status" -eq 1 ]
    [ "$stderr" = 'not measured: decode_d4096 (peer), decode_d16384 (peer), pp2048 (peer)' ]
    jq -e '.commit == "abc1234" and .device == "NVIDIA X, sm_90, 132 SM" and (.rows | map({key: .name, value: .}) | from_entries |
        .decode_d0.ratio == 2 and .decode_d0.pct_bandwidth == 80 and .pp512.peer == 10000 and .pp512.ratio == 2 and
        .ttft512_ms.peer == 51.2 and .ttft512_ms.ratio == 2 and .batch8.ratio == 2 and .vram_mib.peer == null and .decode_d4096.peer == null)' "$W/latest.json"
    printf '%s\n' '{"n_prompt":2048,"n_gen":0,"n_depth":0,"avg_ts":9000}' '{"n_prompt":0,"n_gen":64,"n_depth":4096,"avg_ts":250}' \
        '{"n_prompt":0,"n_gen":64,"n_depth":16384,"avg_ts":200}' >>"$W/m/peer"
    printf '%s\n' '{"n_prompt":0,"n_depth":4096,"toks_per_s":{"mean":375}}' >"$W/m/file"
    run --separate-stderr tests/tools/gpu-report "$W/m" "$W/latest.json" abc1234 'scripts/gpu-check'
    [ "$stderr" = 'not measured: file_decode_d0 (ours), file_decode_d16384 (ours), file_pp512 (ours), file_pp2048 (ours)' ]
    jq -e '.rows | map({key: .name, value: .}) | from_entries | .decode_d4096.ratio == 2 and .decode_d16384.ratio == 2 and .file_decode_d4096.ratio == 1.5' "$W/latest.json"
    rm "$W/m/file"
    # parts of the same commit one by one: rows stay, and a row that is measured again keeps its peer
    rm "$W/m/peer" "$W/m/peer-batch"
    sed -i 's/600.0 tok/660.0 tok/' "$W/m/q4"
    tests/tools/gpu-report "$W/m" "$W/latest.json" abc1234 'scripts/gpu-check'
    jq -e '.rows | map({key: .name, value: .}) | from_entries | .decode_d0.ratio == 2.2 and .batch8.ratio == 2 and .ttft512_ms.ratio == 2' "$W/latest.json"
    rm "$W/m/q4"
    tests/tools/gpu-report "$W/m" "$W/latest.json" abc1234 'scripts/gpu-check'
    jq -e '.device == "NVIDIA X, sm_90, 132 SM" and (.rows | length == 10)' "$W/latest.json"
    tests/tools/gpu-report "$W/m" "$W/latest.json" def5678 'scripts/gpu-check'
    jq -e '.rows == []' "$W/latest.json"
}

# Programs that print what those of a GPU would: nvidia-smi, hazards, bench_gpu.
fake_gpu() {
    mkdir -p "$W/bin" "$W/fake"
    printf '%s\n' '#!/bin/sh' 'echo "GPU 0: NVIDIA X"' >"$W/fake/nvidia-smi"
    printf '%s\n' '#!/bin/sh' "echo hazards \$* >>$W/calls" '[ ! -e "$HAZARDS_FAIL" ] || { echo "hazard 9 FAILED"; exit 1; }' \
        'echo "hazards: ok $*"' >"$W/bin/hazards"
    cat >"$W/bin/bench_gpu" <<T
#!/bin/sh
echo bench_gpu \$* >>$W/calls
[ "\$1" != check ] || { echo 'check: ok'; exit 0; }
cat $W/timed
T
    timed >"$W/timed"
    chmod +x "$W/fake/nvidia-smi" "$W/bin/hazards" "$W/bin/bench_gpu"
    PATH=$W/fake:$PATH
}

@test "what is timed comes before the rest and alone, and is written before what follows" {
    fake_gpu
    run scripts/gpu-check -b "$W/bin" -o "$W/out" -c abc1234 -s hazards,speed,bf16
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$(head -n 3 "$W/calls" | tr '\n' ';')" = 'bench_gpu check;bench_gpu 7b q4_k_m resident;bench_gpu 7b bf16 one;' ]
    [ "$(tail -n 1 "$W/calls")" = 'hazards alone' ]
    [ "$(sed -n 4,7p "$W/calls" | sort | tr '\n' ';')" = 'hazards beside 0 4;hazards beside 1 4;hazards beside 2 4;hazards beside 3 4;' ]
    jq -e '.commit == "abc1234" and (.rows | map(.name) | index("decode_d0") != null and index("decode_bf16") != null)' "$W/out/latest.json"
    grep -q 'hazards: ok beside 1 4' "$W/out/latest.log"
    [[ "${lines[-1]}" == '== done in '*': ok' ]]
}

@test "a failure beside others is told and is the exit status; what was timed stays" {
    fake_gpu
    : >"$W/fail"
    HAZARDS_FAIL=$W/fail run scripts/gpu-check -b "$W/bin" -o "$W/out" -c abc1234 -s hazards,speed
    echo "$output"
    [ "$status" -eq 1 ]
    [ "$(grep -c '^MISSED: hazards$' <<<"$output")" -eq 5 ]
    [[ "${lines[-1]}" == *'something MISSED its bound' ]]
    jq -e '.rows[] | select(.name == "decode_d0").ours == 600' "$W/out/latest.json"
}

@test "a measurement that ends early is told, though it has printed; so is a part that does not come to its end" {
    fake_gpu
    printf '%s\n' '#!/bin/sh' "[ \"\$1\" = check ] || { head -n 4 $W/timed; exit 1; }" >"$W/bin/bench_gpu"
    run scripts/gpu-check -b "$W/bin" -o "$W/out" -c abc1234 -s speed
    echo "$output"
    [ "$status" -eq 1 ]
    grep -q '^MISSED: speed$' <<<"$output"
    grep -q '^not measured: decode_d4096 (ours), ' <<<"$output"
    jq -e '.rows[] | select(.name == "decode_d0").ours == 600' "$W/out/latest.json"
    sed 's/^hazards_1() {/& : "$no_such_name";/' scripts/gpu-check >"$W/gpu-check"
    [ "$(diff scripts/gpu-check "$W/gpu-check" | grep -c "^>")" -eq 1 ]
    sed -i "s|^cd \"\$(dirname.*|cd '$PWD' \|\| exit 7|" "$W/gpu-check"
    run bash "$W/gpu-check" -b "$W/bin" -o "$W/out" -c abc1234 -s hazards
    echo "$output"
    [ "$status" -eq 1 ]
    [ "$(grep -c '^MISSED' <<<"$output")" -eq 1 ]
    grep -q '^MISSED: hazards_1 ended early$' <<<"$output"
}

@test "a run that is cut off leaves what was timed" {
    fake_gpu
    printf '%s\n' '#!/bin/sh' 'echo "hazard 1 ok"' 'exec sleep 30' >"$W/bin/hazards"
    SECONDS=0
    run timeout 3 scripts/gpu-check -b "$W/bin" -o "$W/out" -c abc1234 -s hazards,speed
    [ "$status" -eq 124 ]
    [ "$SECONDS" -lt 15 ]
    jq -e '.rows[] | select(.name == "decode_d0").ours == 600' "$W/out/latest.json"
    grep -q '^decode_d0 600' "$W/out/latest.log"
    grep -q '^== cut off at' "$W/out/latest.log"
    grep -A 1 '^== hazards_2 (NOT done)' "$W/out/latest.log" | grep -q '^hazard 1 ok'
}

@test "the peer's numbers are beside ours; one that fails is told, and not among its numbers" {
    fake_gpu
    mkdir "$W/peer"
    cat >"$W/peer/llama-bench" <<'T'
#!/bin/sh
case "$*" in
*'-fa 1 -ngl 99'*'-n 128'*) echo '{"n_prompt":0,"n_gen":128,"n_depth":0,"avg_ts":290,"samples_ts":[280.0,300.0]}' ;;
*'-d 4096,16384'*) echo 'no device memory' >&2; exit 1 ;;
esac
T
    printf '%s\n' '#!/bin/sh' 'echo "{\"pl\":8,\"speed_tg\":1000}"' >"$W/peer/llama-batched-bench"
    printf '%s\n' '#!/bin/sh' 'echo "{\"n_prompt\":0,\"n_depth\":0,\"toks_per_s\":{\"mean\":500}}"' >"$W/bin/apr-infer"
    chmod +x "$W/peer/llama-bench" "$W/peer/llama-batched-bench" "$W/bin/apr-infer"
    run scripts/gpu-check -b "$W/bin" -p "$W/peer" -m "$W/none.gguf" -o "$W/out" -c abc1234 -s speed,peer
    echo "$output"
    [ "$status" -eq 1 ]
    [ "$(grep '^MISSED' <<<"$output" | tr '\n' ';')" = 'MISSED: llama-bench: no device memory;MISSED: report;' ]
    grep -q '^not measured: decode_d4096 (peer), .*, batch32 (peer), file_decode_d4096 (ours), ' "$W/out/latest.log"
    jq -e '.rows | map({key: .name, value: .}) | from_entries | .decode_d0.peer == 300 and .decode_d0.ratio == 2 and .file_decode_d0.ours == 500' "$W/out/latest.json"
}

@test "gpu-pack: every program runs with the libraries beside it; changes are refused" {
    [ -z "$(git status --porcelain 2>/dev/null)" ] && git rev-parse HEAD >/dev/null || skip 'no clean checkout here'
    command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || skip 'nvcc is not installed'
    run --separate-stderr scripts/gpu-pack "$W/pack.tar.xz"
    echo "$stderr" | tail -n 5
    [ "$status" -eq 0 ]
    mkdir "$W/pack" && tar -C "$W/pack" -xf "$W/pack.tar.xz"
    [ "$(cat "$W/pack/commit")" = "$(git rev-parse --short HEAD)" ]
    for program in apr-infer apr-import apr-export apr-qa apr-hex; do
        [ "$(env -i LD_LIBRARY_PATH="$W/pack/lib" PATH="$W/pack/bin:$PATH" LC_ALL=C ldd "$W/pack/bin/$program" |
            grep -c "$W/pack/lib/")" -ge 3 ]
        run env -i LD_LIBRARY_PATH="$W/pack/lib" "$W/pack/bin/$program" --version
        [ "$status" -eq 0 ]
    done
    [ -x "$W/pack/bin/hazards" ] && [ -x "$W/pack/bin/bench_gpu" ] && [ -e "$W/pack/bin/apr-cuda.so" ]
    git clone -q . "$W/clone"
    touch "$W/clone/new"
    run --separate-stderr "$W/clone/scripts/gpu-pack" "$W/other.tar.xz"
    [ "$status" -eq 1 ]
    [ "$stderr" = 'gpu-pack: the checkout has changes: the commit would not be what is packed' ]
    [ ! -e "$W/other.tar.xz" ]
}
