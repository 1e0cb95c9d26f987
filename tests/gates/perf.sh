# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-PERF and F-PROFILE: what is measured.

# Ten times the tokens take less than 15 times as long. Planted fault: no cache, each token is a prompt of all before it.
F_PERF_001() {
    local i few_s few='-n 10 -p 0' many='-n 100 -p 0'
    [ "$1" = bad ] && few='-n 0 -p 1-10' many='-n 0 -p 1-100'
    for ((i = 0; i < 3; i++)); do
        # shellcheck disable=SC2086 # words
        expect 0 apr bench "$MODEL" $few -r 1 --json || return 1
        few_s=$(jq '[.tests[] | (.n_prompt + .n_gen) / .toks_per_s.mean] | add' <<<"$out")
        # shellcheck disable=SC2086 # words
        expect 0 apr bench "$MODEL" $many -r 1 --json || return 1
        jq -e --argjson few "$few_s" '[.tests[] | (.n_prompt + .n_gen) / .toks_per_s.mean] | add / $few < 15' <<<"$out" && return 0
    done
    return 1
}

# Blocks multiplied as they are, and the values they stand for multiplied as floats. Planted fault: the values before
# they were quantized.
F_PERF_002() {
    local f32=$GATE_WORK/dequantized.apr m
    once "$f32" apr convert "$(q4k_apr)" --quantize f32 -q -o "$f32"
    [ "$1" = bad ] && f32=$MODEL
    for m in "$(q4k_apr)" "$f32"; do
        expect 0 apr logits "$m" -p "$QUESTION" --exact -q -f -o "$GATE_WORK/logits.$([ "$m" = "$f32" ] && echo b || echo a)" || return 1
    done
    paste <(od -An -v -w4 -tf4 "$GATE_WORK/logits.a") <(od -An -v -w4 -tf4 "$GATE_WORK/logits.b") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= m)) m = d } END { exit !(NR >= 4096 && m < 1e-3) }'
}

# Planted fault: a limit that is met.
F_PERF_004() {
    local limit=999999999
    [ "$1" = bad ] && limit=0.001
    expect 1 apr profile "$MODEL" --measure 1 -n 4 --ci --assert-throughput "$limit" --json || return 1
    says 'throughput: .* are asserted' && jq -e '.passed == false' <<<"$out"
}

# Ten repetitions; a busy machine gets eight chances. Planted fault: one repetition takes twice as long.
F_PERF_005() {
    local i spoil='.'
    [ "$1" = bad ] && spoil='.tests[0].samples_toks_per_s[0] /= 3'
    for ((i = 0; i < 8; i++)); do
        expect 0 apr bench "$MODEL" -p 256 -n 0 -r 10 --warmup 3 --json || return 1
        jq -e "$spoil"' | .tests[0].samples_toks_per_s | length == 10 and
            (add / 10) as $m | ((map((. - $m) * (. - $m)) | add) / 9 | sqrt) / $m < 0.2' <<<"$out" && return 0
    done
    return 1
}

# Planted fault: the text's words in reverse.
F_PERF_006() {
    local text=$GATE_WORK/eval-$1.txt
    cp "$GOLDEN/eval.txt" "$text"
    [ "$1" = bad ] && tr ' ' '\n' <"$GOLDEN/eval.txt" | tac | tr '\n' ' ' >"$text"
    expect 0 apr eval "$MODEL" --file "$text" --max-ppl 20 --json && jq -e '.ppl_all > 1 and .ppl_all < 20' <<<"$out"
}

# Planted fault: one layer's time for all.
F_PROFILE_001() {
    local spoil='.'
    [ "$1" = bad ] && spoil='.decode.layers |= (.[0].qkv_us as $t | map(.qkv_us = $t))'
    expect 0 apr profile "$(q4k_apr)" --measure 1 -n 8 --granular --json || return 1
    jq -e "$spoil"' | [.decode.layers[].qkv_us] | .[0] != .[-1] and
        (add / length) as $m | ((map((. - $m) * (. - $m)) | add) / length | sqrt) / $m > 0.01' <<<"$out"
}

# Planted fault: the prompt is looked at, not the token.
F_PROFILE_002() {
    local phase=decode
    [ "$1" = bad ] && phase=prefill
    expect 0 apr profile "$(q4k_apr)" --measure 2 -n 16 --json || return 1
    jq -e --arg p "$phase" '(.roofline.compute[] | select(.type == "Q4_K") | .ridge_flops_per_byte) as $ridge |
        .[$p].operations[] | select(.operation == "ffn_gate_up") | .bound == "memory" and .flops_per_byte < $ridge' <<<"$out"
}

# Planted fault: the phase of prompts is missing.
F_PROFILE_003() {
    local spoil='.'
    [ "$1" = bad ] && spoil='del(.prefill)'
    expect 0 apr profile "$(q4k_gguf)" --measure 1 -n 8 --json || return 1
    jq -e "$spoil"' | [.prefill, .decode] | map(.toks_per_s > 0 and .latency_ms.mean > 0 and .n_toks > 0) | all' <<<"$out"
}

# Planted fault: the best kernels.
F_PROFILE_004() {
    local kern=scalar
    [ "$1" = bad ] && kern=''
    expect 0 env APR_KERN="$kern" apr profile "$MODEL" --measure 1 -n 8 -p 16 --detect-naive --threshold 0.5 --json || return 1
    jq -e '.naive | map(.operation) | index("ffn_gate_up") != null and index("qkv") != null' <<<"$out"
}

# Scalar kernels earn D or F, and every grade is that of its efficiency. Planted fault: the best kernels.
F_PROFILE_005() {
    local kern=scalar
    [ "$1" = bad ] && kern=''
    expect 0 env APR_KERN="$kern" apr profile "$(q4k_gguf)" --measure 1 -n 8 -p 16 --perf-grade --json || return 1
    jq -e '.efficiency_pct < 10 and (.grade == "D" or .grade == "F")' <<<"$out"
}

# SafeTensors are profiled. Planted fault: a model that the contract refuses.
F_PROFILE_006() {
    local m=$MODEL
    [ "$1" = bad ] && m=$(broken missing)
    expect 0 apr profile "$m" --measure 1 -n 4 --json && jq -e '.format == "safetensors" and .decode.toks_per_s > 0' <<<"$out"
}

# Every matrix has its rate beside the machine's. Planted fault: the report without the tables.
F_PROFILE_008() {
    local form=--granular
    [ "$1" = bad ] && form=--perf-grade
    expect 0 apr profile "$(q4k_gguf)" --measure 1 -n 8 "$form" --json || return 1
    jq -e '.roofline.memory_gb_per_s > 0 and ([.decode.operations[] | select(.operation | test("^(qkv|attn_out|ffn_gate_up|ffn_down|head)$")) |
        .gb_per_s > 0 and .efficiency_pct > 0] | length == 5 and all)' <<<"$out" || return 1
    nvidia-smi -L >/dev/null 2>&1 || return 0
    expect 0 apr profile "$(q4k_gguf)" --measure 1 -n 8 "$form" --device cuda --json || return 1
    jq -e '.roofline.memory_gb_per_s > 0 and ([.decode.operations[] | select(.operation | test("^(qkv|o|gate and up|down|head)$")) |
        .gb_per_s > 0 and .bandwidth_pct > 0] | length == 5 and all) and (.decode.launches | length > 20)' <<<"$out"
}

# The letter follows the ratio to another engine's rate on the same file; llama.cpp stands for Ollama, whose engine it
# was. Planted fault: a ratio a tenth as large.
F_PROFILE_010() {
    local bench=${APR_PEER_BIN:-}/llama-bench spoil='.' found=no peer
    [ -n "${APR_PEER_BIN:-}" ] && [ -x "$bench" ] && found=yes
    [ "$found" = yes ] || {
        echo 'no other engine: set APR_PEER_BIN to the folder of llama-bench'
        return 77
    }
    peer=$(LD_LIBRARY_PATH=$APR_PEER_BIN "$bench" -m "$(q4k_gguf)" -p 0 -n 32 -t "$(nproc)" -ngl 0 -r 3 -o json | jq '.[0].avg_ts') || return 1
    expect 0 apr profile "$(q4k_gguf)" --measure 3 -n 32 --peer-rate "$peer" --json || return 1
    [ "$1" = bad ] && spoil='.peer.ratio /= 10'
    jq -e --argjson peer "$peer" "$spoil"' | .decode.toks_per_s as $ours | .peer.ratio as $r |
        .peer.toks_per_s == $peer and ($ours / $peer / $r | . > 0.999 and . < 1.001) and .peer.grade ==
        (if $r >= 2 then "A+" elif $r >= 1.5 then "A" elif $r >= 1 then "B" elif $r >= 0.75 then "C" elif $r >= 0.5 then "D" else "F" end)' <<<"$out"
}

# Planted fault: the same format twice.
F_PROFILE_011() {
    local b
    b=$(q4k_gguf)
    [ "$1" = bad ] && b=$(q4k_apr)
    expect 0 apr profile "$(q4k_apr)" --compare "$b" --measure 1 -n 8 --json || return 1
    jq -e '[.comparison[] | .format] == ["apr", "gguf"] and ([.comparison[].decode_toks_per_s > 0] | all) and .decode_ratio > 0' <<<"$out"
}
