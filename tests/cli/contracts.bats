#!/usr/bin/env bats
# The contracts break the build when a number breaks a rule. (F-PROVE-001..005, F-PROVE-007)
# One generator is built in setup_file; each test changes one YAML in its own copy of the tree and runs make.

bats_require_minimum_version 1.5.0

setup_file() {
    export TREE="$BATS_FILE_TMPDIR/tree"
    mkdir -p "$TREE/bin" "$TREE/scripts"
    cp Makefile "$TREE"
    cp bin/verbs "$TREE/bin"
    cp scripts/gen-verbs "$TREE/scripts"
    cp -r lib "$TREE"
    timeout 120 make -s -C "$TREE" O=b OPT=-O0 b/lib/contract_tables.o
}

setup() {
    cp -rp "$TREE" "$BATS_TEST_TMPDIR/t"
    cd "$BATS_TEST_TMPDIR/t" || return 1
}

build() {
    timeout 60 make -s O=b OPT=-O0 b/lib/contract_tables.o
}

# edit FAMILY SIZE KEY VALUE: one number of one size
edit() {
    awk -v size="  $2:" -v key="    $3:" -v value="$4" '
        /^  [^ ]/ || /^[^ ]/ { inside = ($0 == size) }
        inside && index($0, key) == 1 { $0 = key " " value; n++ }
        { print }
        END { exit n != 1 }' "lib/contracts/$1.yaml" > edited
    mv edited "lib/contracts/$1.yaml"
}

breaks() { # PATTERN: the build fails and says so
    run build
    [ "$status" -ne 0 ]
    grep -qF -- "$1" <<< "$output" || {
        echo "$output"
        false
    }
}

# Proofs of the eight families that the specification counts.
first_proofs() { grep -E '^_Static_assert.*"ALG-[0-9]+[a-z]? (bert|deepseek|gemma|llama|mistral|phi|qwen2|whisper)/' b/gen/contracts.h; }

@test "F-PROVE-001, F-PROVE-007: the contracts as they are build; 297 proofs of the first 8 families, each listed size has 11 or more" {
    run build
    [ "$status" -eq 0 ]
    [ "$(first_proofs | wc -l)" -eq 297 ]
    grep -qx '#define APR_CONTRACT_N_PROOFS_FIRST 297' b/gen/contracts.h
    n=$(grep -c '^_Static_assert' b/gen/contracts.h)
    grep -qx "#define APR_CONTRACT_N_PROOFS $n" b/gen/contracts.h
    grep '^_Static_assert' b/gen/contracts.h | sed -E 's|.*"ALG-[0-9a-z]+ ([^:]*):.*|\1|' | sort | uniq -c > sizes
    [ "$(wc -l < sizes)" -eq "$(sed -n 's/#define APR_CONTRACT_N_SIZES //p' b/gen/contracts.h)" ]
    awk '$1 < 11 { print; bad = 1 } END { exit bad }' sizes
}

@test "F-PROVE-007: proofs per rule are 120 24 24 23 24 24 24 17 17" {
    run awk -F '"' '{ split($2, w, " "); n[w[1]]++ } END { print n["ALG-005"], n["ALG-008"], n["ALG-001"], n["ALG-002"],
        n["ALG-003a"], n["ALG-003b"], n["ALG-004"], n["ALG-007a"], n["ALG-007b"] }' <(first_proofs)
    [ "$output" = "120 24 24 23 24 24 24 17 17" ]
}

@test "F-PROVE-002, ALG-005: a zero in any of the five breaks the build" {
    for key in hidden_dim num_layers num_heads vocab_size num_kv_heads; do
        cp "$TREE/lib/contracts/qwen2.yaml" lib/contracts/qwen2.yaml
        edit qwen2 7b "$key" 0
        breaks "ALG-005 qwen2/7b: non-degeneracy (definition): $key must be positive"
    done
}

@test "F-PROVE-003, ALG-002: num_kv_heads 5 does not divide 28" {
    edit qwen2 7b num_kv_heads 5
    breaks "Ainslie (2023) GQA: num_heads must be divisible by num_kv_heads"
}

@test "F-PROVE-004, ALG-007a: head_dim 127 is odd" {
    edit qwen2 7b head_dim 127
    breaks "Su (2024) RoPE: head_dim must be even"
}

@test "F-PROVE-005, ALG-004: intermediate_dim 100 is below hidden_dim" {
    edit qwen2 7b intermediate_dim 100
    breaks "Shazeer (2020) FFN expansion: intermediate_dim must exceed hidden_dim"
}

@test "ALG-001: hidden_dim 3585 is not divisible by 28 heads" {
    edit qwen2 7b hidden_dim 3585
    breaks "Vaswani (2017): hidden_dim must be divisible by num_heads"
}

@test "ALG-003a: head_dim below hidden_dim / num_heads" {
    edit llama 8b head_dim 126
    breaks "ALG-003a llama/8b: Vaswani (2017): head_dim must be >= hidden_dim / num_heads"
}

@test "ALG-003b: head_dim above twice hidden_dim / num_heads" {
    edit llama 8b head_dim 258
    breaks "ALG-003b llama/8b: Gemma Team (2024)"
}

@test "ALG-008: more KV heads than heads, also where no head divides" {
    edit gemma 2b num_kv_heads 16
    breaks "ALG-008 gemma/2b: Ainslie (2023) GQA: num_kv_heads must be <= num_heads"
}

@test "ALG-007b: no positions in a family with rotary positions" {
    edit mistral 7b max_position_embeddings 0
    breaks "ALG-007b mistral/7b: Su (2024) RoPE: max_position_embeddings must be positive"
}

@test "ALG-007: rope_theta zero, infinite, negative" {
    edit phi 3.8b rope_theta 0.0
    breaks "phi/3.8b: ALG-007 Su (2024) RoPE: rope_theta must be positive and finite"
    edit phi 3.8b rope_theta inf
    breaks "ALG-007 Su (2024) RoPE: rope_theta must be positive and finite"
    edit phi 3.8b rope_theta -1.0
    breaks "ALG-007 Su (2024) RoPE: rope_theta must be positive and finite"
}

@test "ALG-009: norm epsilon zero, one, 1e30" {
    edit qwen2 7b rms_norm_eps 0.0
    breaks "qwen2/7b: ALG-009: the norm epsilon must be above 0 and below 1"
    edit qwen2 7b rms_norm_eps 1.0
    breaks "qwen2/7b: ALG-009: the norm epsilon must be above 0 and below 1"
    edit qwen2 7b rms_norm_eps 1e30
    breaks "ALG-009: the norm epsilon must be finite and below 1"
}

@test "ALG-006: SwiGLU with GELU, an unknown feed-forward" {
    sed -i 's/activation: silu/activation: gelu/' lib/contracts/llama.yaml
    breaks "ALG-006 Shazeer (2020): mlp_type swiglu requires activation silu; found gelu"
    sed -i 's/activation: gelu/activation: silu/; s/mlp_type: swiglu/mlp_type: unheard_of/' lib/contracts/llama.yaml
    breaks 'unknown value "unheard_of"'
}

# One line each: FAMILY SIZE KEY VALUE, then what the failing build says.
@test "ALG-001..014: a broken number of a family added later breaks the build with its citation" {
    while IFS='|' read -r what message; do
        read -r family size key value <<< "$what"
        edit "$family" "$size" "$key" "$value"
        breaks "$message"
        cp "$TREE/lib/contracts/$family.yaml" "lib/contracts/$family.yaml"
    done << 'X'
qwen3 8b num_kv_heads 5|ALG-002 qwen3/8b: Ainslie (2023) GQA
qwen3 0.6b head_dim 130|ALG-003b qwen3/0.6b: Gemma Team (2024)
qwen3 32b head_dim 78|ALG-003a qwen3/32b: Vaswani (2017)
gemma2 27b head_dim 70|ALG-003c gemma2/27b: Gemma Team (2025), the narrowest known
gemma2 9b head_dim 222|ALG-003a gemma2/9b: Vaswani (2017)
gemma3 1b sliding_window 65536|ALG-014 gemma3/1b: Beltagy (2020) Longformer
gpt2 124m intermediate_dim 768|ALG-004 gpt2/124m: Shazeer (2020) FFN expansion
gpt2 1.5b num_heads 24|ALG-001 gpt2/1.5b: Vaswani (2017)
granite 8b num_layers 0|ALG-005 granite/8b: non-degeneracy (definition): num_layers
phi3 phi-4 head_dim 129|ALG-007a phi3/phi-4: Su (2024) RoPE
starcoder2 3b num_kv_heads 48|ALG-008 starcoder2/3b: Ainslie (2023) GQA
smollm2 135m max_position_embeddings 0|ALG-007b smollm2/135m: Su (2024) RoPE
llama31 405b vocab_size 0|ALG-005 llama31/405b: non-degeneracy (definition): vocab_size
mixtral 8x7b n_experts_used 9|ALG-011 mixtral/8x7b: Shazeer (2017) mixture of experts: n_experts_used must be <= n_experts
mixtral 8x22b n_experts_used 0|ALG-011 mixtral/8x22b: Shazeer (2017) mixture of experts: a token must take an expert
qwen3_moe 30b-a3b expert_dim 0|ALG-010 qwen3_moe/30b-a3b: Shazeer (2017) mixture of experts: expert_dim must be positive
qwen3_moe 30b-a3b n_experts 1|ALG-010 qwen3_moe/30b-a3b: Shazeer (2017) mixture of experts: n_experts must exceed 1
qwen2_moe a2.7b shared_expert_dim 5000|ALG-012 qwen2_moe/a2.7b: Dai (2024) DeepSeekMoE
deepseek2 v2-lite n_dense_layers 27|ALG-012 deepseek2/v2-lite: DeepSeek-AI (2024) DeepSeekMoE
deepseek2 v2 qk_nope_dim 130|ALG-013 deepseek2/v2: DeepSeek-AI (2024) MLA: head_dim must be qk_nope_dim + qk_rope_dim
deepseek2 v2-lite qk_rope_dim 0|ALG-013 deepseek2/v2-lite: DeepSeek-AI (2024) MLA: qk_rope_dim must be positive
deepseek2 v2 v_head_dim 0|ALG-013 deepseek2/v2: DeepSeek-AI (2024) MLA: v_head_dim must be positive
deepseek2 v2 q_lora_rank 30000|ALG-013 deepseek2/v2: DeepSeek-AI (2024) MLA: q_lora_rank must be below
deepseek2 v2 kv_lora_rank 0|v2: kv_lora_rank is missing
X
}

@test "exceptions are data: with a citation, of rules that may have one, and only where they are needed" {
    y=lib/contracts/gemma2.yaml
    grep -qF '/* ALG-003a gemma2/27b: excused: Gemma Team (2024) Gemma 2, table 1' b/gen/contracts.h
    sed -i 's/sizes: \[2b, 27b\]/sizes: [2b, 9b, 27b]/' $y
    breaks "gemma2/9b: exceptions: ALG-003a holds; the exception is not needed"
    cp "$TREE/$y" $y
    sed -i 's/sizes: \[2b, 27b\]/sizes: [2b]/' $y
    breaks "ALG-003a gemma2/27b: Vaswani (2017)"
    cp "$TREE/$y" $y
    sed -i 's/rule: ALG-003a/rule: ALG-005/' $y
    breaks 'rule: unknown value "ALG-005"'
    cp "$TREE/$y" $y
    sed -i 's/, cite: ".*"}/}/' $y
    breaks 'exceptions: key "cite" is missing'
    cp "$TREE/$y" $y
    sed -i 's/sizes: \[2b, 27b\]/sizes: [2b, 28b]/' $y
    breaks 'sizes: unknown size "28b"'
    cp "$TREE/$y" $y
    sed -i 's/^    sliding_window: 4096/    n_experts_used: 2/' $y
    breaks "2b: n_experts is missing"
}

@test "the generator is strict and names file and line" {
    y=lib/contracts/mistral.yaml
    line=$(grep -n 'num_layers:' $y | cut -d: -f1)
    sed -i 's/    num_layers: 32/    num_layers: 32\n    num_layers: 32/' $y
    breaks "$y:$((line + 1)): 7b: key \"num_layers\" stands twice"
    cp "$TREE/$y" $y
    sed -i '/num_layers:/d' $y
    breaks 'key "num_layers" is missing'
    cp "$TREE/$y" $y
    sed -i 's/num_layers: 32/num_layers: 32\n    n_layer: 32/' $y
    breaks "$y:$((line + 1)): 7b: unknown key \"n_layer\""
    for bad in '"32"' '32.0' '-32' '0x20' '032' 'many' '[32]' '99999999999999999999' '!!int 32'; do
        cp "$TREE/$y" $y
        sed -i "s/num_layers: 32/num_layers: $bad/" $y
        breaks "$y:$line: "
    done
    cp "$TREE/$y" $y
    sed -i 's/num_layers: 32/num_layers: \&n 32/; s/num_heads: 32/num_heads: *n/' $y
    breaks "aliases are not allowed"
    cp "$TREE/$y" $y
    sed -i 's/shape: \[q_dim, hidden_dim\]/shape: [q_dims, hidden_dim]/' $y
    breaks 'shape: unknown dimension "q_dims"'
}
