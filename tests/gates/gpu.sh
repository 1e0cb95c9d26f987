# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# What only a GPU shows: the gates of F-PERF, F-PROFILE, F-REALIZE, F-TRUENO and F-OLLAMA that need one.

need_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q GPU || {
        echo 'no GPU here'
        return 77
    }
}
need_hazards() {
    need_gpu || return
    hazards=${APR_HAZARDS:-${O:-build}/bench/hazards}
    [ -x "$hazards" ] || {
        echo "no $hazards (make bench)"
        return 77
    }
}
# Qwen2.5-7B's shape with drawn weights: APR_GATE_GGUF, or made now.
big() {
    if [ -n "${APR_GATE_GGUF:-}" ]; then
        echo "$APR_GATE_GGUF"
        return
    fi
    once "$GATE_WORK/big.gguf" tests/tools/random-gguf "$GATE_WORK/big.gguf" 7b q4_k_m
    echo "$GATE_WORK/big.gguf"
}
# A smaller one, where nothing depends on the size.
middle() {
    once "$GATE_WORK/middle.gguf" tests/tools/random-gguf "$GATE_WORK/middle.gguf" 1.5b q4_k_m
    echo "$GATE_WORK/middle.gguf"
}
# measured NAME COMMAND...: what the command prints; a planted fault is judged by the same numbers, not by new ones.
measured() {
    local file=$GATE_WORK/measured-${1//[^a-zA-Z0-9.-]/_}
    [ -s "$file" ] || "${@:2}" >"$file" || { rm -f "$file" && return 1; }
    cat "$file"
}
rate() { measured "ours $*" bench_rate "$@"; }
bench_rate() { # MODEL OPTIONS...: tokens a second of the first test
    expect 0 apr bench "$1" "${@:2}" --json && jq '.tests[0].toks_per_s.mean' <<<"$out"
}

# Planted fault: a hundredth of the rate.
F_PERF_003() {
    local gpu cpu spoil=1
    need_gpu || return
    [ "$1" = bad ] && spoil=0.01
    gpu=$(rate "$(middle)" -p 0 -n 64 -r 3 --device cuda) || return 1
    cpu=$(rate "$(middle)" -p 0 -n 8 -r 1 --device cpu) || return 1
    echo "GPU $gpu, CPU $cpu tokens a second"
    jq -en --argjson gpu "$gpu" --argjson cpu "$cpu" --argjson s "$spoil" '$gpu * $s > $cpu'
}

device_profile() { expect 0 apr profile "$1" --device cuda --measure 3 -n 64 "${@:2}" --json; }

# Every part of a layer has its kernel and its time. Planted fault: the report without the tables.
F_PROFILE_007() {
    need_gpu || return
    local form=--granular
    [ "$1" = bad ] && form=--perf-grade
    device_profile "$(middle)" "$form" || return 1
    jq -e '.decode.operations as $o | (["qkv", "attention", "o", "gate and up", "down", "head"] - ($o | map(.operation))) == [] and
        ($o | map(.pass_us > 0 and (.kernel | length > 0)) | all) and ($o | map(.pass_us) | unique | length > 4)' <<<"$out"
}

# What as many empty launches take, in percent of a token. Planted fault: the share is a constant.
F_PROFILE_009() {
    need_gpu || return
    local spoil='.'
    [ "$1" = bad ] && spoil='.decode.launch_overhead_pct = 5'
    device_profile "$(middle)" || return 1
    jq -e "$spoil"' | .decode | .n_launches > 28 * 4 and .empty_launch_us > 0.1 and .launch_overhead_pct > 0 and .launch_overhead_pct < 100 and
        (.n_launches * .empty_launch_us / .latency_ms.median / 10 / .launch_overhead_pct | . > 0.99 and . < 1.01)' <<<"$out"
}

# Planted fault: a third of the bandwidth.
F_PROFILE_012() {
    need_gpu || return
    local spoil=1
    [ "$1" = bad ] && spoil=0.33
    device_profile "$(big)" || return 1
    jq -e --argjson s "$spoil" '.roofline.memory_gb_per_s > 100 and .efficiency_pct * $s > 40' <<<"$out"
}

# Six requests on a device without memory: each has its error, the circuit opens, the process ends in order; the next
# one finds the device as it was. Planted fault: there is memory.
F_REALIZE_006() {
    need_gpu || return
    local fault=memory@1- requests=$GATE_WORK/requests i
    [ "$1" = bad ] && fault=''
    for i in 1 2 3 4 5 6; do echo "{\"id\": $i, \"prompt\": \"$QUESTION\", \"max_tokens\": 8}"; done >"$requests"
    expect 1 env APR_GPU_FAULT="$fault" apr batch "$(q4k_apr)" -i "$requests" --device cuda -P 1 || return 1
    jq -se 'length == 6 and (map(.error != null) | all) and (.[0] | tostring | test("memory")) and
        (.[5] | tostring | test("times in a row and is not asked"))' <<<"$out" || return 1
    expect 0 apr batch "$(q4k_apr)" -i "$requests" --device cuda -P 1
}

# A prompt of 91 tokens at once, against 91 tokens one by one. Planted fault: one by one both times.
F_REALIZE_011() {
    need_gpu || return
    local at_once='-p 91 -n 0' batched serial
    [ "$1" = bad ] && at_once='-p 0 -n 91'
    # shellcheck disable=SC2086 # words
    batched=$(rate "$(middle)" $at_once -r 3 --device cuda) || return 1
    serial=$(rate "$(middle)" -p 0 -n 91 -r 3 --device cuda) || return 1
    echo "at once $batched, one by one $serial tokens a second"
    jq -en --argjson b "$batched" --argjson s "$serial" '$b / $s >= 5'
}

# Planted fault: the hidden states are traced, not the launches.
F_REALIZE_012() {
    need_gpu || return
    local how='--launches --device cuda'
    [ "$1" = bad ] && how='--device cpu'
    # shellcheck disable=SC2086 # words
    expect 0 apr trace "$(q4k_apr)" "$QUESTION" $how --json || return 1
    jq -e '[.prompt, .token] | map(.kernel_launches | length > 20 and (map((.kernel | length > 0) and (.grid | test("^[0-9]+x[0-9]+x[0-9]+$")) and
        (.block | test("^[1-9]")) and .shared_bytes >= 0 and .registers > 0 and (.dispatch | length > 0) and .us > 0) | all)) | all' <<<"$out"
}

# The same prompt before and behind others, in one sequence's place: the same answer, which is that of a fresh process.
# Planted fault: the answer to another prompt.
F_REALIZE_013() {
    need_gpu || return
    local requests=$GATE_WORK/again fresh other=2
    [ "$1" = bad ] && other=1
    printf '{"id": %d, "prompt": "%s", "max_tokens": 24}\n' 0 'Tell me a fact.' 1 'Write the numbers from 1 to 20.' 2 'Tell me a fact.' >"$requests"
    expect 0 apr batch "$(q4k_apr)" -i "$requests" --device cuda -P 1 --tokens || return 1
    out=$(jq -sc 'map(.text)' <<<"$out")
    fresh=$(jq -c '.[0]' <<<"$out")
    [ "${#fresh}" -gt 4 ] && same "$(jq -c ".[$other]" <<<"$out")" "$fresh"
}

# The GPU's blocks stand for the numbers that the tools' own library says, bit by bit. Planted fault: one bit of a block.
F_TRUENO_003() {
    need_hazards || return
    local how=unpack
    [ "$1" = bad ] && how='planted unpack'
    # shellcheck disable=SC2086 # words
    expect 0 "$hazards" $how
}

# Planted fault: a rate that no GPU reaches.
F_TRUENO_004() {
    need_gpu || return
    local limit=10
    [ "$1" = bad ] && limit=1e9
    rate "$(q4k_apr)" -p 0 -n 64 -r 3 --device cuda | jq -e --argjson l "$limit" '. > $l'
}

# The kernels that any GPU can run, in F32 without tensor cores, against the CPU. Planted fault: no rounding is allowed.
F_TRUENO_008() {
    need_gpu || return
    local limit=0.01
    [ "$1" = bad ] && limit=0
    expect 0 apr parity "$(bf16_apr)" -p "$QUESTION" --exact --max-abs "$limit" --assert --json
}

# A few tokens and many, each at once and one by one, against the CPU layer by layer. Planted fault: one layer is off.
F_TRUENO_009() {
    need_gpu || return
    local text spoil='.'
    [ "$1" = bad ] && spoil='.prompt.layers[2].min_cosine = 0.9'
    for text in 'What is 2+2?' "$(head -c 600 "$GOLDEN/eval-plain.txt")"; do
        expect 0 apr parity "$(q4k_apr)" -p "$text" --json || return 1
        jq -e "$spoil"' | [.prompt, .token_by_token] | map((.layers | length > 4 and (map(.min_cosine >= 0.999) | all)) and
            .logits.min_cosine >= 0.999 and .logits.max_kl <= 0.01) | all' <<<"$out" || return 1
    done
}

map_few() { expect 0 apr ptx-map "$(q4k_apr)" --prefill --tokens 7 --json; }

# A matrix is read once for all tokens, which are held in registers. Planted fault: the norm is looked at.
F_TRUENO_010() {
    need_gpu || return
    local step=qkv
    [ "$1" = bad ] && step=norm
    map_few && jq -e --arg s "$step" '[.steps[] | select(.step == $s) | .dispatch == "register_unroll"] | length > 0 and all' <<<"$out"
}

# Each token's norm is a block of the grid. Planted fault: a matrix is looked at.
F_TRUENO_011() {
    need_gpu || return
    local step=norm
    [ "$1" = bad ] && step=qkv
    map_few && jq -e --arg s "$step" '[.steps[] | select(.step == $s) | .dispatch | test("^grid_")] | length > 0 and all' <<<"$out"
}

# Every launch of a token is in the map, and its source is a line of a file. Planted fault: a file that is not there.
F_TRUENO_012() {
    need_gpu || return
    local source spoil='.' n=0
    [ "$1" = bad ] && spoil='.steps[0].source = "lib/gpu/none.cu:1"'
    expect 0 apr ptx-map "$(q4k_apr)" --json || return 1
    jq -e '.num_layers as $n | (.steps | map(.n_launches) | add) == .n_launches and .launches_per_layer >= 5 and
        .n_launches >= $n * .launches_per_layer and ([.steps[] | select(.n_launches >= $n)] | length >= 3)' <<<"$out" || return 1
    while IFS=: read -r file line; do
        [ -f "$file" ] && [ "$(wc -l <"$file")" -ge "$line" ] || return 1
        n=$((n + 1))
    done < <(jq -r "$spoil"' | .steps[].source' <<<"$out")
    [ "$n" -ge 5 ]
}

peer_rate() { measured "peer $*" llama_rate "$@"; }
llama_rate() { # OPTIONS...: llama.cpp stands for Ollama, whose engine it is
    LD_LIBRARY_PATH=$APR_PEER_BIN:${LD_LIBRARY_PATH:-} "$APR_PEER_BIN/llama-bench" -m "$(big)" -ngl 99 -fa 1 -r 3 -o json "$@" 2>/dev/null |
        jq -e '.[0].avg_ts'
}
need_peer() {
    need_gpu || return
    [ -x "${APR_PEER_BIN:-/nonexistent}/llama-bench" ] || {
        echo 'no other engine: set APR_PEER_BIN to the folder of a llama-bench for CUDA'
        return 77
    }
}

# Planted fault: a hundredth of the rate.
F_OLLAMA_002() {
    need_peer || return
    local ours theirs spoil=1
    [ "$1" = bad ] && spoil=0.01
    theirs=$(peer_rate -p 0 -n 64) || return 1
    ours=$(rate "$(big)" -p 0 -n 64 -r 3 --device cuda) || return 1
    echo "ours $ours, the other's $theirs tokens a second"
    jq -en --argjson a "$ours" --argjson b "$theirs" --argjson s "$spoil" '$a * $s / $b >= 0.2'
}

# Seconds of a prompt of 512 tokens. Planted fault: ten times ours.
F_OLLAMA_003() {
    need_peer || return
    local ours theirs spoil=1
    [ "$1" = bad ] && spoil=10
    theirs=$(peer_rate -p 512 -n 0) || return 1
    ours=$(rate "$(big)" -p 512 -n 0 -r 3 --device cuda) || return 1
    echo "ours $ours, the other's $theirs tokens of a prompt a second"
    jq -en --argjson a "$ours" --argjson b "$theirs" --argjson s "$spoil" '512 / $a * $s <= 2 * 512 / $b'
}
