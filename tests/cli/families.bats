#!/usr/bin/env bats
# Conversion of every family: the reference converter's keys and tensors, there and back bit for bit by every route,
# refusals. Fixtures: tiny models with random weights; families without one are made by tests/tools/decoder-reference.

bats_require_minimum_version 1.5.0

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    FAMILIES=${APR_SHARED:-../shared}/fixtures/families
    GGUF=${APR_SHARED:-../shared}/fixtures/gguf
    DEMO=tests/data/apr-demo-8M-Instruct
    DECODERS="llama3 llama2 qwen2-tied qwen3 mistral mixtral gemma gemma2 gemma3 phi2 phi3 gpt2 deepseek2"
    T=$BATS_TEST_TMPDIR
    set -o pipefail
}

need_fixtures() { [ -d "$FAMILIES" ] || skip "the fixtures are not here: $FAMILIES"; }
need_numpy() { /usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"; }
quiet() { "$@" 2>"$T/stderr" || { local status=$?; echo "$*"; cat "$T/stderr"; return $status; }; }

# Where a file of ours differs from the reference converter's on purpose: model, key (- what is left out, + what is
# added, = another value), reason. Everything else must be equal.
DEVIATIONS='mistral + llama.attention.sliding_window the reference drops the window, and computes another model from position 16 on
phi2 = phi2.feed_forward_length the reference writes 4 * n_embd whatever config.json says, and cannot load its own file
gpt2 - tokenizer.ggml.bos_token_id 50256 lies outside the vocabulary of 512 tokens
gpt2 - tokenizer.ggml.eos_token_id 50256 lies outside the vocabulary of 512 tokens'

skips_of() { awk -v m="$1" '$1 == m { printf "%s%s", n++ ? "," : "", $3 }' <<<"$DEVIATIONS"; }

@test "keys, names, types, shapes and data of the reference converter, BF16 and F32; deviations are listed" {
    need_fixtures
    local f t skips
    for f in $DECODERS; do
        skips=$(skips_of "$f")
        for t in bf16 f32; do
            quiet apr export "$FAMILIES/$f" --format gguf --quantize $t -o "$T/m.gguf" --force
            run tests/tools/gguf-manifest "$T/m.gguf" --against "$GGUF/$f-$t.json" ${skips:+--skip "$skips"}
            [ "$status" -eq 0 ] || { echo "$f $t: $output"; return 1; }
        done
    done
}

@test "each listed deviation is one" {
    need_fixtures
    local f how key reason
    while read -r f how key reason; do
        quiet apr export "$FAMILIES/$f" --format gguf -o "$T/m.gguf" --force
        ours=$(tests/tools/gguf-manifest "$T/m.gguf" | jq -c --arg k "$key" '[.kv[] | select(.key == $k) | .value][0]')
        theirs=$(jq -c --arg k "$key" '[.kv[] | select(.key == $k) | .value][0]' "$GGUF/$f-bf16.json")
        echo "$f $how $key: $ours, reference $theirs ($reason)"
        case $how in
            +) [ "$ours" != null ] && [ "$theirs" = null ] ;;
            -) [ "$ours" = null ] && [ "$theirs" != null ] ;;
            =) [ "$ours" != "$theirs" ] && [ "$ours" != null ] ;;
            *) false ;;
        esac
    done <<<"$DEVIATIONS"
}

@test "SafeTensors -> .apr -> SafeTensors, bit for bit" {
    need_fixtures
    for f in $DECODERS; do
        quiet apr import "$FAMILIES/$f" -o "$T/m.apr" --force
        quiet apr export "$T/m.apr" --format safetensors -o "$T/m.safetensors" --force
        cmp "$FAMILIES/$f/model.safetensors" "$T/m.safetensors" || { echo "$f"; return 1; }
    done
}

@test "GGUF -> .apr -> GGUF, bit for bit; blocks too" {
    need_fixtures
    for f in $DECODERS; do
        for t in bf16 q8_0 q4_k_m; do
            quiet apr export "$FAMILIES/$f" --format gguf --quantize $t --no-provenance -o "$T/a.gguf" --force
            quiet apr import "$T/a.gguf" -o "$T/m.apr" --force
            quiet apr export "$T/m.apr" --format gguf --no-provenance -o "$T/b.gguf" --force
            cmp "$T/a.gguf" "$T/b.gguf" || { echo "$f $t"; return 1; }
            [ "$(apr inspect "$T/m.apr" --json | jq -r .family)" = "$(apr inspect "$FAMILIES/$f" --json | jq -r .family)" ]
        done
    done
}

@test "folder, .apr file and pipe give the same GGUF; one and two threads too" {
    need_fixtures
    for f in $DECODERS; do
        quiet apr import "$FAMILIES/$f" --quantize q4k -o "$T/m.apr" --force
        quiet apr export "$T/m.apr" --format gguf -o "$T/a.gguf" --force
        apr-import st "$FAMILIES/$f" --quantize q4k -q -j1 2>/dev/null | apr-export gguf -q -j1 >"$T/b.gguf" 2>/dev/null
        cmp "$T/a.gguf" "$T/b.gguf" || { echo "$f"; return 1; }
        quiet apr import "$FAMILIES/$f" -o "$T/m.apr" --force
        quiet apr export "$T/m.apr" --format gguf --no-provenance -o "$T/a.gguf" --force
        quiet apr export "$FAMILIES/$f" --format gguf --no-provenance -o "$T/b.gguf" --force
        cmp "$T/a.gguf" "$T/b.gguf" || { echo "$f"; return 1; }
    done
}

@test "a checkpoint comes out of a pipe as well: experts apart, matrices turned, halves joined" {
    need_fixtures
    for f in mixtral gpt2 deepseek2 llama3; do
        apr-import st "$FAMILIES/$f" -q 2>/dev/null | apr-export st -q >"$T/m.safetensors" 2>/dev/null
        python3 - "$FAMILIES/$f/model.safetensors" "$T/m.safetensors" <<'EOF'
import json, struct, sys
def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    head.pop("__metadata__", None)
    return {k: (t["dtype"], t["shape"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]) for k, t in head.items()}
assert read(sys.argv[1]) == read(sys.argv[2])
EOF
    done
}

@test "GGUF -> SafeTensors: values of the checkpoint, config.json that means the same" {
    need_fixtures
    for f in qwen2-tied qwen3 mistral mixtral gemma gemma2 gemma3 phi2 gpt2 deepseek2 llama2 llama3; do
        quiet apr export "$FAMILIES/$f" --format gguf --quantize f32 -o "$T/m.gguf" --force
        rm -rf "$T/back"
        quiet apr export "$T/m.gguf" --format safetensors --quantize bf16 -o "$T/back"
        run apr diff-tensors "$FAMILIES/$f" "$T/back" --tolerance 1e-6 # 1 + w - 1 rounds
        [ "$status" -eq 0 ] || { echo "$f"; echo "$output" | tail -5; return 1; }
        cmp <(apr inspect "$FAMILIES/$f" --json | jq -S .config) <(apr inspect "$T/back" --json | jq -S .config)
    done
}

@test "quantized import of every family: valid, expert stacks 3-D, routers and norms F32" {
    need_fixtures
    for f in $DECODERS; do
        for t in q4_k_m q8_0; do
            quiet apr import "$FAMILIES/$f" --quantize $t -o "$T/m.apr" --force
            quiet apr validate "$T/m.apr"
        done
    done
    quiet apr import "$FAMILIES/mixtral" --quantize q8_0 -o "$T/m.apr" --force
    apr tensors "$T/m.apr" --json >"$T/tensors.json"
    jq -e '[.tensors[] | select(.name | test("experts"))] | length == 9 and all(.shape | length == 3)' "$T/tensors.json"
    jq -e '[.tensors[] | select(.name | test("moe.gate|norm"))] | all(.dtype == "F32")' "$T/tensors.json"
}

@test "mixtures of other families, scalings, windows and multipliers survive GGUF: the same logits" {
    need_numpy
    local kind ids
    ids=$(seq -s, 3 3 60)
    jq -c '.model.vocab |= with_entries(select(.value < 127)) | .model.vocab["!!"] = 127 | .model.merges = ["! !"] | .added_tokens = []' \
        "$DEMO/tokenizer.json" >"$T/tokenizer.json"
    for kind in llama-linear llama-yarn llama-bias qwen2-window qwen2_moe qwen2_moe-mixed qwen3_moe granite stablelm deepseek deepseek2-yarn; do
        tests/tools/decoder-reference make $kind "$T/$kind"
        cp "$T/tokenizer.json" "$T/$kind/"
        quiet apr export "$T/$kind" --format gguf --quantize f32 -o "$T/m.gguf" --force
        rm -rf "$T/back"
        quiet apr export "$T/m.gguf" --format safetensors -o "$T/back"
        for m in "$T/$kind" "$T/m.gguf" "$T/back"; do
            quiet apr logits "$m" --ids "$ids" --exact -q -o "$T/$(basename "$m").f32" --force
        done
        for m in m.gguf back; do
            d=$(tests/tools/decoder-reference compare "$T/$m.f32" "$T/$kind.f32")
            echo "$kind $m: $d"
            awk -v d="$d" 'BEGIN { exit !(d < 1e-5) }'
        done
    done
}

@test "what GGUF has no place for is refused by name" {
    need_numpy
    jq -c '.model.vocab |= with_entries(select(.value < 127)) | .model.vocab["!!"] = 127 | .model.merges = ["! !"] | .added_tokens = []' \
        "$DEMO/tokenizer.json" >"$T/tokenizer.json"
    tests/tools/decoder-reference make gpt2-gelu "$T/m"
    cp "$T/tokenizer.json" "$T/m/"
    run -5 apr export "$T/m" --format gguf -o "$T/m.gguf"
    [[ "$output" == *activation* ]]
    [ ! -e "$T/m.gguf" ]
    tests/tools/decoder-reference make llama-dynamic "$T/n"
    cp "$T/tokenizer.json" "$T/n/"
    run -0 apr export "$T/n" --format gguf -o "$T/n.gguf"
    [[ "$output" == *"no place for dynamic rope scaling"* ]]
}

# A copy of the model whose config.json went through a jq program.
with_config() { # MODEL PROGRAM TARGET
    mkdir "$3"
    ln -s "$(realpath "$1")"/* "$3/"
    rm "$3/config.json"
    jq "$2" "$1/config.json" >"$3/config.json"
}

@test "another family, a missing, extra or wrong tensor, a wrong vocabulary: refused with the rule" {
    need_fixtures
    with_config "$FAMILIES/llama3" '.architectures = ["Qwen3ForCausalLM"] | .model_type = "qwen3"' "$T/family"
    run -5 apr import "$T/family" -o "$T/x.apr"
    [[ "$output" == *F-TENSOR-001*q_norm* ]]
    with_config "$FAMILIES/llama3" '.architectures = ["NobodysModel"]' "$T/unknown"
    run -5 apr import "$T/unknown" -o "$T/x.apr"
    [[ "$output" == *F-FAMILY-001* ]]
    with_config "$FAMILIES/mixtral" '.num_local_experts = 5' "$T/missing"
    run -5 apr import "$T/missing" -o "$T/x.apr"
    [[ "$output" == *"F-TENSOR-001 model.layers.0.block_sparse_moe.experts.4.w1.weight"* ]]
    with_config "$FAMILIES/mixtral" '.num_local_experts = 3' "$T/extra"
    run -5 apr import "$T/extra" -o "$T/x.apr"
    [[ "$output" == *F-* ]]
    with_config "$FAMILIES/deepseek2" '.first_k_dense_replace = 2' "$T/dense"
    run -5 apr import "$T/dense" -o "$T/x.apr"
    [[ "$output" == *F-TENSOR-001*mlp.gate_proj* ]]
    with_config "$FAMILIES/gemma2" '.head_dim = 32' "$T/shape"
    run -5 apr import "$T/shape" -o "$T/x.apr"
    [[ "$output" == *F-LAYOUT-CONTRACT-001* ]]
    with_config "$FAMILIES/gpt2" '.n_inner = 256' "$T/turned"
    run -5 apr import "$T/turned" -o "$T/x.apr"
    [[ "$output" == *F-LAYOUT-CONTRACT* ]]
    with_config "$FAMILIES/phi3" '.vocab_size = 500' "$T/vocab"
    run -5 apr import "$T/vocab" -o "$T/x.apr"
    [[ "$output" == *F-LAYOUT-CONTRACT-00* ]]
    [ ! -e "$T/x.apr" ]
}

@test "configs that cannot be computed are refused with status 6, broken ones with 4" {
    need_fixtures
    local m want says program
    while read -r m want says program; do
        rm -rf "$T/m"
        with_config "$FAMILIES/$m" "$program" "$T/m"
        run "-$want" apr import "$T/m" -o "$T/x.apr" </dev/null
        [[ "$output" == *"$says"* ]] || { echo "$program: $output"; return 1; }
    done <<'EOF'
deepseek2 6 topk_method .topk_method = "noaux_tc"
deepseek2 6 scoring_func .scoring_func = "sigmoid"
deepseek2 4 kv_lora_rank del(.kv_lora_rank)
deepseek2 4 num_experts_per_tok .num_experts_per_tok = 9
deepseek2 4 n_group .topk_method = "group_limited_greedy" | .n_group = 3
mixtral 4 intermediate_size .intermediate_size = 0
phi2 6 qk_layernorm .qk_layernorm = true
gemma3 6 use_bidirectional_attention .use_bidirectional_attention = true
gemma2 4 layer_types .layer_types = ["full_attention"]
gemma2 6 chunked .layer_types[0] = "chunked_attention"
gemma2 4 query_pre_attn_scalar .query_pre_attn_scalar = 0
llama3 4 high_freq_factor .rope_parameters.high_freq_factor = 0.5
llama3 6 wavy .rope_parameters.rope_type = "wavy"
llama3 6 hidden_act .hidden_act = "mish"
gpt2 6 inverse_layer .scale_attn_by_inverse_layer_idx = true
phi3 4 partial_rotary_factor .rope_parameters.partial_rotary_factor = 1.5
mistral 4 sliding_window .sliding_window = -1
EOF
}

@test "gpt2 without the prefix and with its masks: the same model" {
    need_fixtures
    mkdir "$T/m"
    cp "$FAMILIES/gpt2"/*.json "$T/m/"
    python3 - "$FAMILIES/gpt2/model.safetensors" "$T/m/model.safetensors" <<'EOF'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
head, blob = json.loads(data[8:8 + n]), data[8 + n:]
out, body = {}, b""
for k, t in head.items():
    if k == "__metadata__":
        continue
    raw = blob[t["data_offsets"][0]:t["data_offsets"][1]]
    out[k.removeprefix("transformer.")] = {**t, "data_offsets": [len(body), len(body) + len(raw)]}
    body += raw
for i in range(3):
    out[f"h.{i}.attn.bias"] = {"dtype": "F32", "shape": [1, 1, 4, 4], "data_offsets": [len(body), len(body) + 64]}
    body += b"\0\0\x80\x3f" * 16
text = json.dumps(out).encode()
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + body)
EOF
    quiet apr export "$T/m" --format gguf --no-provenance -o "$T/a.gguf"
    grep -q '3 buffers hold no weights' "$T/stderr"
    quiet apr export "$FAMILIES/gpt2" --format gguf --no-provenance -o "$T/b.gguf"
    tests/tools/gguf-manifest "$T/a.gguf" | jq .tensors >"$T/a.json"
    tests/tools/gguf-manifest "$T/b.gguf" | jq .tensors >"$T/b.json"
    cmp "$T/a.json" "$T/b.json"
}

@test "a checkpoint in shards: experts of one layer in two files" {
    need_fixtures
    quiet apr export "$FAMILIES/mixtral" --format safetensors --max-shard-size 300K -o "$T/m"
    [ "$(find "$T/m" -name '*.safetensors' | wc -l)" -gt 5 ]
    quiet apr import "$T/m" -o "$T/a.apr"
    quiet apr import "$FAMILIES/mixtral" -o "$T/b.apr"
    run -0 apr diff-tensors "$T/a.apr" "$T/b.apr"
    # every byte of the shards was hashed, although experts are read to and fro
    apr validate "$T/a.apr"
    [ "$(apr inspect "$T/a.apr" --provenance | grep -cE 'model-[0-9-]+of-[0-9]+.safetensors +[0-9]+ +[0-9a-f]{64}')" -gt 5 ]
}

@test "merge, edit, fingerprint and validate work on stacks; two forms do not mix" {
    need_fixtures
    quiet apr import "$FAMILIES/mixtral" -o "$T/a.apr"
    quiet apr merge "$T/a.apr" "$FAMILIES/mixtral" --strategy average -o "$T/m.apr"
    run -0 apr diff-tensors "$T/a.apr" "$T/m.apr"
    quiet apr validate "$T/m.apr"
    [ "$(apr fingerprint "$FAMILIES/mixtral" --json | jq -c '[.tensors[] | [.name, .mean, .std]]')" = "$(apr fingerprint "$T/a.apr" --json | jq -c '[.tensors[] | [.name, .mean, .std]]')" ]
    quiet apr export "$FAMILIES/mixtral" --format gguf -o "$T/m.gguf"
    quiet apr import "$T/m.gguf" -o "$T/g.apr"
    run -5 apr merge "$T/a.apr" "$T/g.apr" --strategy average -o "$T/x.apr"
    [[ "$output" == *"form"* ]]
}

@test "llama.cpp loads what we write for every family" {
    need_fixtures
    local peer=${APR_PEER_BIN:-}
    [ -x "$peer/llama-completion" ] || skip 'APR_PEER_BIN names no folder with llama-completion'
    for f in $DECODERS; do
        [ "$f" = phi3 ] && continue # the fixture's vocabulary lacks a token name that the peer wants
        for t in bf16 q8_0 q4_k_m; do
            quiet apr export "$FAMILIES/$f" --format gguf --quantize $t -o "$T/m.gguf" --force
            LD_LIBRARY_PATH=$peer timeout 60 "$peer/llama-completion" -m "$T/m.gguf" -p hello -n 2 -t 1 --temp 0 -no-cnv --no-warmup \
                </dev/null >"$T/peer.log" 2>&1 || { echo "$f $t"; tail -3 "$T/peer.log"; return 1; }
        done
    done
}

@test "llama.cpp chooses the same tokens from the GGUF of every family" {
    need_fixtures
    local peer=${APR_PEER_BIN:-}
    [ -x "$peer/llama-completion" ] || skip 'APR_PEER_BIN names no folder with llama-completion'
    printf 'The quick brown fox' >"$T/prompt"
    for f in $DECODERS; do
        case $f in phi3 | mistral) continue ;; esac # a token name that the peer wants; a window that it ignores
        quiet apr export "$FAMILIES/$f" --format gguf --quantize f32 -o "$T/m.gguf" --force
        LD_LIBRARY_PATH=$peer timeout 60 "$peer/llama-completion" -m "$T/m.gguf" -f "$T/prompt" -n 12 -t 1 --temp 0 -no-cnv \
            --no-display-prompt --no-warmup </dev/null >"$T/peer" 2>/dev/null
        apr run "$T/m.gguf" --raw "$(cat "$T/prompt")" -n 12 -q >"$T/ours"
        # the peer prints the bytes of cut characters and no padding tokens
        python3 - "$T/peer" "$T/ours" "$f" <<'P'
import re, sys
text = lambda p: re.sub(r"\[PAD\d+\]|\ufffd| \[end of text\]", "", open(p, "rb").read().decode("utf8", "ignore")).strip()
a, b = text(sys.argv[1]), text(sys.argv[2])
n = min(len(a), len(b))
assert n > 3 and a[:n] == b[:n], (sys.argv[3], a, b)
P
    done
}
