#!/usr/bin/env bats
# shellcheck disable=SC2154 # stderr is set by run --separate-stderr
# oracle: family, size, statistics, and the contract against a source.

bats_require_minimum_version 1.5.0

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    MODEL=tests/data/apr-demo-8M-Instruct
    FAMILIES=${APR_SHARED:-../shared}/fixtures/families
    T=$BATS_TEST_TMPDIR
}

# A folder with a config.json alone. JQ changes the numbers of qwen2/7b.
config() {
    mkdir -p "$T/$1"
    jq '.hidden_size = 3584 | .num_hidden_layers = 28 | .num_attention_heads = 28 | .num_key_value_heads = 4 |
        .intermediate_size = 18944 | .vocab_size = 152064 | .max_position_embeddings = 131072 |'"$2" "$MODEL/config.json" > "$T/$1/config.json"
}

@test "all families, and one of them" {
    apr oracle --json | jq -e '.proofs_first_8_families == 297 and .proofs == 950 and (.families | length) == 23 and ([.families[].sizes[]] | length) == 70'
    apr oracle | grep -E '^proofs_first_8_families: +297$'
    apr oracle --family llama --json | jq -e '.family.name == "llama" and .sizes == ["1b", "3b", "8b", "70b"]'
    run apr oracle --family qwen2 --size 7b
    [ "$status" -eq 0 ]
    [[ "$output" == *"Size: 7B"* ]]
}

@test "every listed size has statistics; parameters agree with its name" {
    while read -r family size label; do
        apr oracle --family "$family" --size "$size" --full --json > "$T/o.json"
        jq -e --arg l "$label" '(($l | .[:-1] | tonumber) * (if ($l | endswith("M")) then 1e6 else 1e9 end)) as $want
            | .stats.model_params | . > 0.95 * $want and . < 1.1 * $want or ([$l] | inside(["110M", "2B", "7B", "1B", "1.3B", "0.5B", "14B"]))
              and . > 0.89 * $want and . < 1.3 * $want' "$T/o.json" || {
            echo "$family $size: $(jq .stats.model_params "$T/o.json")"
            false
        }
    done < <(for f in $(apr oracle --json | jq -r '.families[].name'); do
        for s in $(apr oracle --family "$f" --json | jq -r '.sizes[]'); do
            echo "$f $s $(apr oracle --family "$f" --size "$s" --json | jq -r .size_variant.parameters)"
        done
    done)
}

@test "F-MODEL-005, F-MODEL-006: statistics of qwen2/7b, to the parameter" {
    apr oracle --family qwen2 --size 7b --stats --json | jq -e '.stats | .gqa_ratio == 7 and .head_dim == 128
        and .model_params == 7615616512 and .kv_cache_per_token_bytes == 57344 and .kv_cache_4k_mib == 224
        and .attention_flops_per_layer == 58720256 and .ffn_flops_per_layer == 407371776'
    apr oracle --family qwen2 --size 7b --json | jq -e '.size_variant.expected_tensor_count == 339'
    apr oracle --family qwen2 --size 0.5b --stats --json | jq -e '.stats.model_params == 494032768 and .size_variant.expected_tensor_count == 290'
    apr oracle --family qwen2 --size 1.5b --stats --json | jq -e '.stats.model_params == 1543714304'
    apr oracle --family llama --size 8b --stats --json | jq -e '.stats.model_params == 8030261248'
    apr oracle --family phi --size 3.8b --stats --json | jq -e '.stats.model_params == 3821079552'
    apr oracle --family gemma --size 2b --stats --json | jq -e '.stats.model_params == 2506172416'
}

# As published with the weights (safetensors metadata of the hub).
@test "parameters of the families added later, to the parameter; experts that a token does not meet are left out" {
    while read -r family size n active; do
        apr oracle --family "$family" --size "$size" --stats --json | jq -e --argjson n "$n" --argjson a "${active:-null}" \
            '.stats.model_params == $n and .stats.active_params == $a'
    done << 'X'
qwen3 0.6b 596049920
qwen3 8b 8190735360
gemma2 2b 2614341888
gemma2 9b 9241705984
gemma3 1b 999885952
gpt2 124m 124439808
gpt2 1.5b 1557611200
granite 8b 8170848256
granite 8b-3.3 8170864640
starcoder2 15b 15957889024
smollm2 135m 134515008
llama2 7b 6738415616
mixtral 8x7b 46702792704 12879925248
qwen3_moe 30b-a3b 30532122624 3353032704
deepseek2 v2-lite 15706484224 2661150208
X
    # latent attention keeps 512 + 64 values a layer, whatever the number of heads
    apr oracle --family deepseek2 --size v2 --stats --json | jq -e '.stats.kv_cache_per_token_bytes == 60 * 576 * 2'
    apr oracle --family mixtral --size 8x7b --json | jq -e '.size_variant | .n_experts == 8 and .n_experts_used == 2 and .expert_dim == 14336'
}

@test "F-MODEL-001: a model of a size that no contract lists is described by its numbers, in every format" {
    apr import "$MODEL" -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf -q -o "$T/a.gguf"
    for m in "$MODEL" "$T/a.apr" "$T/a.gguf"; do
        apr oracle "$m" --full --json | jq -e '.family.name == "qwen2" and .size_variant.name == null and .size_variant.listed == false
            and .size_variant.expected_tensor_count == 99 and .stats.model_params == 8397056 and .stats.gqa_ratio == 2
            and .format.tensor_count == 99 and .format.total_params == 8397056 and .compliance.is_compliant'
    done
    apr oracle - --json < "$T/a.gguf" | jq -e '.format.format_type == "GGUF"'
}

@test "F-MODEL-001, F-MODEL-002: a config of 7b is recognised and matches; a shorter context is a match" {
    config seven '.'
    apr oracle "$T/seven" --json | jq -e '.family.name == "qwen2" and .size_variant.name == "7b"'
    apr oracle "$T/seven/config.json" --json | jq -e '.size_variant.name == "7b"'
    run --separate-stderr apr oracle "$T/seven" --validate
    [ "$status" -eq 0 ]
    [[ "$output" == *MATCH* && "$output" != *MISMATCH* ]]
    config short '.max_position_embeddings = 32768'
    apr oracle "$T/short" --validate --json | jq -e '.cross_validation | (.mismatches | length) == 0 and (.matches | length) == 12'
}

@test "F-PROVE-006: each wrong number is a MISMATCH of that field, status 5" {
    while read -r field edit; do
        config wrong "$edit"
        run --separate-stderr apr oracle "$T/wrong" --family qwen2 --size 7b --validate
        [ "$status" -eq 5 ]
        [[ "$stderr" == *MISMATCH* ]]
        grep -E "^ *$field .*MISMATCH" <<< "$output" || {
            echo "$field: $output"
            false
        }
        [ "$(apr oracle "$T/wrong" --family qwen2 --size 7b --full --json | jq '.cross_validation.mismatches | length')" -ge 1 ]
    done << 'X'
hidden_dim .hidden_size=3640
num_layers .num_hidden_layers=27
num_heads .num_attention_heads=14
num_kv_heads .num_key_value_heads=7
intermediate_dim .intermediate_size=18945
vocab_size .vocab_size=151936
head_dim .head_dim=64
max_position_embeddings .max_position_embeddings=262144
rope_theta .rope_theta=10000
norm_eps .rms_norm_eps=1e-5
tied_embeddings .tie_word_embeddings=true
X
}

@test "F-MODEL-003: the contract of another family does not accept the model" {
    config seven '.'
    run --separate-stderr apr oracle "$T/seven" --family llama --size 8b --validate
    [ "$status" -eq 5 ]
    grep -E '^ *family .*llama .*qwen2 .*MISMATCH' <<< "$output"
    run --separate-stderr apr oracle "$MODEL" --family qwen2 --size 7b --validate
    [ "$status" -eq 5 ]
}

@test "weights that break the contract: --compliance lists, --validate refuses" {
    tests/tools/break-model missing "$MODEL" "$T/missing"
    apr oracle "$T/missing" --compliance --json | jq -e '.compliance | (.is_compliant | not) and (.tensor_count_match | not)
        and .missing_tensors == ["model.layers.0.mlp.down_proj.weight"] and .unexpected_tensors == []'
    run --separate-stderr apr oracle "$T/missing" --validate
    [ "$status" -eq 5 ]
    [[ "$stderr" == *F-TENSOR-001* ]]
}

@test "a family without code here: numbers from its config.json" {
    mkdir -p "$T/llama"
    echo '{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,
        "num_key_value_heads":8,"intermediate_size":14336,"vocab_size":128256,"max_position_embeddings":131072,"rope_theta":500000.0,
        "rms_norm_eps":1e-05,"tie_word_embeddings":false}' > "$T/llama/config.json"
    apr oracle "$T/llama" --validate --json | jq -e '.family.name == "llama" and .size_variant.name == "8b" and (.cross_validation.mismatches | length) == 0'
    sed -i 's/128256/102400/; s/14336/11008/; s/"num_hidden_layers":32/"num_hidden_layers":30/; s/"num_key_value_heads":8/"num_key_value_heads":32/; s/1e-05/1e-06/' "$T/llama/config.json"
    apr oracle "$T/llama" --json | jq -e '.family.name == "deepseek" and .size_variant.name == "7b"'
    echo '{"architectures":["NoSuchModel"]}' > "$T/llama/config.json"
    run apr oracle "$T/llama"
    [ "$status" -eq 5 ]
    [[ "$output" == *'F-FAMILY-001: no contract for architecture "NoSuchModel"'* ]]
}

# The contract's tensor template against real checkpoints' names.
@test "templates name exactly the tensors of transformers' models" {
    [ -d "$FAMILIES" ] || skip "the fixtures are not here: $FAMILIES"
    while read -r fixture family size; do
        apr tensors "$FAMILIES/$fixture" --json | jq -r '.tensors[].name' | sed -E 's/\.[0-9]+\./.{n}./; s/[.]experts[.]([0-9]+[.])?/.experts.{e}./' | sort -u > "$T/found"
        apr oracle --family "$family" --size "$size" --tensors --json | jq -r '.tensors[].name' | sort -u > "$T/want"
        diff "$T/want" "$T/found"
    done << 'X'
llama3 llama 8b
mistral mistral 7b
gemma gemma 2b
phi2 phi 2.7b
phi3 phi 3.8b
whisper whisper tiny
qwen3 qwen3 0.6b
gemma2 gemma2 2b
gemma3 gemma3 1b
gpt2 gpt2 124m
deepseek2 deepseek2 v2
llama2 llama2 7b
qwen2-tied qwen2 0.5b
X
}

@test "misuse" {
    for args in "--family nosuch" "--family qwen2 --size 8b" "--size 7b" "--family qwen2 --stats" "--family qwen2 --size 7b --validate" \
        "--family qwen2 --size 7b --compliance" "a b"; do
        # shellcheck disable=SC2086 # words
        run apr oracle $args
        [ "$status" -eq 2 ] || {
            echo "$args: $status $output"
            false
        }
    done
    run apr oracle --family nosuch
    [[ "$output" == *"there are: bert, deepseek, deepseek2, gemma, gemma2, gemma3, gpt2, "*", starcoder2, whisper"* ]]
    run apr oracle /no/such
    [ "$status" -eq 3 ]
}
