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

# config.json files as they are published, the keys that oracle reads; rope_theta in either style.
@test "F-MODEL-001: published configs of the families added later are named, and match their contract" {
    mkdir -p "$T/p"
    while IFS='|' read -r name config; do
        echo "$config" > "$T/p/config.json"
        run --separate-stderr apr oracle "$T/p" --validate --json
        [ "$status" -eq 0 ] && [ "$(jq -r '.family.name + "/" + .size_variant.name' <<< "$output")" = "$name" ] &&
            jq -e '(.cross_validation.mismatches | length) == 0 and (.cross_validation.contract_only | length) == 0' <<< "$output" || {
            echo "$name: $status $stderr $(jq -c '[.family.name, .size_variant.name, .cross_validation.mismatches, .cross_validation.contract_only]' <<< "$output")"
            false
        }
    done << 'X'
qwen3/0.6b|{"architectures":["Qwen3ForCausalLM"],"attention_bias":false,"head_dim":128,"hidden_act":"silu","hidden_size":1024,"intermediate_size":3072,"max_position_embeddings":40960,"max_window_layers":28,"model_type":"qwen3","num_attention_heads":16,"num_hidden_layers":28,"num_key_value_heads":8,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000,"sliding_window":null,"tie_word_embeddings":true,"use_sliding_window":false,"vocab_size":151936}
qwen3_moe/30b-a3b|{"architectures":["Qwen3MoeForCausalLM"],"attention_bias":false,"decoder_sparse_step":1,"head_dim":128,"hidden_act":"silu","hidden_size":2048,"intermediate_size":6144,"max_position_embeddings":40960,"max_window_layers":48,"mlp_only_layers":[],"model_type":"qwen3_moe","moe_intermediate_size":768,"norm_topk_prob":true,"num_attention_heads":32,"num_experts":128,"num_experts_per_tok":8,"num_hidden_layers":48,"num_key_value_heads":4,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":1000000.0,"sliding_window":null,"tie_word_embeddings":false,"use_sliding_window":false,"vocab_size":151936}
qwen2_moe/a2.7b|{"architectures":["Qwen2MoeForCausalLM"],"decoder_sparse_step":1,"hidden_act":"silu","hidden_size":2048,"intermediate_size":5632,"max_position_embeddings":8192,"max_window_layers":21,"model_type":"qwen2_moe","moe_intermediate_size":1408,"norm_topk_prob":false,"num_attention_heads":16,"num_experts":60,"num_experts_per_tok":4,"num_hidden_layers":24,"num_key_value_heads":16,"rms_norm_eps":1e-06,"rope_theta":1000000.0,"shared_expert_intermediate_size":5632,"sliding_window":32768,"tie_word_embeddings":false,"use_sliding_window":false,"vocab_size":151936}
mixtral/8x7b|{"architectures":["MixtralForCausalLM"],"hidden_act":"silu","hidden_size":4096,"intermediate_size":14336,"max_position_embeddings":32768,"model_type":"mixtral","num_attention_heads":32,"num_experts_per_tok":2,"num_hidden_layers":32,"num_key_value_heads":8,"num_local_experts":8,"rms_norm_eps":1e-05,"rope_theta":1000000.0,"sliding_window":null,"tie_word_embeddings":false,"vocab_size":32000}
mistral_nemo/nemo-12b|{"architectures":["MistralForCausalLM"],"head_dim":128,"hidden_act":"silu","hidden_size":5120,"intermediate_size":14336,"max_position_embeddings":131072,"model_type":"mistral","num_attention_heads":32,"num_hidden_layers":40,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_theta":1000000.0,"sliding_window":null,"tie_word_embeddings":false,"vocab_size":131072}
gemma2/2b|{"architectures":["Gemma2ForCausalLM"],"attention_bias":false,"attn_logit_softcapping":50.0,"final_logit_softcapping":30.0,"head_dim":256,"hidden_act":"gelu_pytorch_tanh","hidden_activation":"gelu_pytorch_tanh","hidden_size":2304,"intermediate_size":9216,"max_position_embeddings":8192,"model_type":"gemma2","num_attention_heads":8,"num_hidden_layers":26,"num_key_value_heads":4,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_theta":10000.0,"sliding_window":4096,"vocab_size":256000}
gemma3/1b|{"architectures":["Gemma3ForCausalLM"],"attention_bias":false,"head_dim":256,"hidden_activation":"gelu_pytorch_tanh","hidden_size":1152,"intermediate_size":6912,"max_position_embeddings":32768,"model_type":"gemma3_text","num_attention_heads":4,"num_hidden_layers":26,"num_key_value_heads":1,"query_pre_attn_scalar":256,"rms_norm_eps":1e-06,"rope_local_base_freq":10000,"rope_scaling":null,"rope_theta":1000000,"sliding_window":512,"sliding_window_pattern":6,"vocab_size":262144}
phi3/phi-4|{"architectures":["Phi3ForCausalLM"],"hidden_act":"silu","hidden_size":5120,"intermediate_size":17920,"max_position_embeddings":16384,"model_type":"phi3","num_attention_heads":40,"num_hidden_layers":40,"num_key_value_heads":10,"original_max_position_embeddings":16384,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":250000,"sliding_window":null,"tie_word_embeddings":false,"vocab_size":100352}
phi/3.8b|{"architectures":["Phi3ForCausalLM"],"hidden_act":"silu","hidden_size":3072,"intermediate_size":8192,"max_position_embeddings":4096,"model_type":"phi3","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,"original_max_position_embeddings":4096,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":10000.0,"sliding_window":2047,"tie_word_embeddings":false,"vocab_size":32064}
deepseek2/v2-lite|{"architectures":["DeepseekV2ForCausalLM"],"attention_bias":false,"first_k_dense_replace":1,"hidden_act":"silu","hidden_size":2048,"intermediate_size":10944,"kv_lora_rank":512,"max_position_embeddings":163840,"model_type":"deepseek_v2","moe_intermediate_size":1408,"moe_layer_freq":1,"n_group":1,"n_routed_experts":64,"n_shared_experts":2,"norm_topk_prob":false,"num_attention_heads":16,"num_experts_per_tok":6,"num_hidden_layers":27,"num_key_value_heads":16,"q_lora_rank":null,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"rms_norm_eps":1e-06,"rope_scaling":{"beta_fast":32,"beta_slow":1,"factor":40,"mscale":0.707,"mscale_all_dim":0.707,"original_max_position_embeddings":4096,"type":"yarn"},"rope_theta":10000,"routed_scaling_factor":1.0,"scoring_func":"softmax","tie_word_embeddings":false,"topk_group":1,"topk_method":"greedy","v_head_dim":128,"vocab_size":102400}
deepseek/7b|{"architectures":["LlamaForCausalLM"],"hidden_act":"silu","hidden_size":4096,"intermediate_size":11008,"max_position_embeddings":4096,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":30,"num_key_value_heads":32,"rms_norm_eps":1e-06,"rope_scaling":null,"rope_theta":10000.0,"tie_word_embeddings":false,"vocab_size":102400}
gpt2/124m|{"activation_function":"gelu_new","architectures":["GPT2LMHeadModel"],"layer_norm_epsilon":1e-05,"model_type":"gpt2","n_ctx":1024,"n_embd":768,"n_head":12,"n_layer":12,"n_positions":1024,"vocab_size":50257}
granite/8b|{"architectures":["GraniteForCausalLM"],"attention_bias":false,"attention_multiplier":0.0078125,"embedding_multiplier":12.0,"hidden_act":"silu","hidden_size":4096,"intermediate_size":12800,"logits_scaling":16.0,"max_position_embeddings":4096,"mlp_bias":false,"model_type":"granite","num_attention_heads":32,"num_hidden_layers":40,"num_key_value_heads":8,"residual_multiplier":0.22,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":10000.0,"tie_word_embeddings":true,"vocab_size":49155}
starcoder2/7b|{"architectures":["Starcoder2ForCausalLM"],"hidden_act":"gelu_pytorch_tanh","hidden_size":4608,"intermediate_size":18432,"max_position_embeddings":16384,"mlp_type":"default","model_type":"starcoder2","norm_epsilon":1e-05,"norm_type":"layer_norm","num_attention_heads":36,"num_hidden_layers":32,"num_key_value_heads":4,"rope_theta":1000000,"sliding_window":4096,"use_bias":true,"vocab_size":49152}
smollm2/135m|{"architectures":["LlamaForCausalLM"],"attention_bias":false,"hidden_act":"silu","hidden_size":576,"intermediate_size":1536,"max_position_embeddings":8192,"mlp_bias":false,"model_type":"llama","num_attention_heads":9,"num_hidden_layers":30,"num_key_value_heads":3,"rms_norm_eps":1e-05,"rope_scaling":null,"rope_theta":100000,"tie_word_embeddings":true,"vocab_size":49152}
llama2/7b|{"architectures":["LlamaForCausalLM"],"hidden_act":"silu","hidden_size":4096,"intermediate_size":11008,"max_position_embeddings":4096,"model_type":"llama","num_attention_heads":32,"num_hidden_layers":32,"num_key_value_heads":32,"rms_norm_eps":1e-05,"rope_scaling":null,"tie_word_embeddings":false,"vocab_size":32000}
llama31/405b|{"architectures":["LlamaForCausalLM"],"attention_bias":false,"hidden_act":"silu","hidden_size":16384,"intermediate_size":53248,"max_position_embeddings":131072,"mlp_bias":false,"model_type":"llama","num_attention_heads":128,"num_hidden_layers":126,"num_key_value_heads":8,"rms_norm_eps":1e-05,"rope_scaling":{"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},"rope_theta":500000.0,"tie_word_embeddings":false,"vocab_size":128256}
X
}
