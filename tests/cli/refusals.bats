#!/usr/bin/env bats
# shellcheck disable=SC2154,SC2030,SC2031 # stderr is set by run --separate-stderr; every test is a subshell
# What is no complete model of its family is refused by the contract with the rule's id; nothing is guessed.
# Every family fixture is broken in every way.

bats_require_minimum_version 1.5.0

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    FAMILIES=${APR_SHARED:-../shared}/fixtures/families
    T=$BATS_TEST_TMPDIR
    [ -d "$FAMILIES" ] || skip "the fixtures are not here: $FAMILIES"
}

# break_all KIND: for each family, a folder with that fault in $T/b; then the function named check is called.
break_all() {
    local f n=0
    for f in "$FAMILIES"/*/; do
        family=$(basename "$f")
        rm -rf "$T/b"
        tests/tools/break-model "$1" "$f" "$T/b" > "$T/names"
        check || {
            echo "$family, $1: $status ${output:0:400}"
            return 1
        }
        n=$((n + 1))
    done
    [ "$n" -ge 15 ]
}

# refused RULE [TEXT]: import, with status 5, one line, nothing written.
refused() {
    run --separate-stderr timeout 20 apr import "$T/b" -q -o "$T/out.apr"
    output=$stderr
    [ "$status" -eq 5 ] && [ ! -e "$T/out.apr" ] && [[ "$stderr" == *"$1"* && "$stderr" == *"${2-}"* ]] &&
        [ "$(grep -vc warning <<< "$stderr")" -eq 1 ]
}

# The names of break-model as the model has them: bert's have their prefix.
model_names() { if [ "$family" = bert ]; then sed -E 's/^(bert[.])?/bert./' "$T/names"; else cat "$T/names"; fi | sort; }

@test "every family as it is: valid" {
    for f in "$FAMILIES"/*/; do
        run apr validate "$f"
        [ "$status" -eq 0 ] || {
            echo "$f: $output"
            false
        }
    done
}

@test "F-TENSOR-001: each tensor that is missing is named, and only those" {
    check() {
        # a bert without its pooler is whole
        refused F-TENSOR-001 &&
            diff <(model_names | grep -v pooler) <(apr oracle "$T/b" --compliance --json 2> /dev/null | jq -r '.compliance.missing_tensors[]' | sort)
    }
    break_all missing-each
}

@test "F-TENSOR-001: one tensor alone; run and export refuse as import does" {
    check() {
        refused "1 violation in 1 tensor: F-TENSOR-001 $model_name: missing" || return 1
        [[ "$family" == bert || "$family" == whisper ]] && return 0
        for verb in "run $T/b -p a -n 1" "export $T/b --format gguf -q -o $T/out.gguf" "validate $T/b"; do
            # shellcheck disable=SC2086 # words
            run timeout 20 apr $verb
            [ "$status" -eq 5 ] && [[ "$output" == *"F-TENSOR-001"* ]] || return 1
        done
        [ ! -e "$T/out.gguf" ]
    }
    for f in "$FAMILIES"/*/; do
        family=$(basename "$f")
        # a norm, which no part of the engine could do without silently
        model_name=$(apr tensors "$f" --json 2> /dev/null | jq -r '[.tensors[].name | select(test("norm|ln_|LayerNorm"))][0]')
        name=$model_name
        [ "$family" = bert ] && name=${name#bert.}
        rm -rf "$T/b"
        tests/tools/break-model "missing=$name" "$f" "$T/b"
        check || {
            echo "$family, $name: $status $output"
            false
        }
    done
}

@test "F-TENSOR-002: a tensor that the family does not have, and a layer that the model does not have" {
    check() { refused "1 violation in 1 tensor: F-TENSOR-002 model.layers.0.self_attn.rotary_emb.scale: unexpected"; }
    break_all extra=model.layers.0.self_attn.rotary_emb.scale
    check() { refused "F-TENSOR-002 model.layers.77." "unexpected"; }
    break_all extra=model.layers.77.mlp.down_proj.weight
}

@test "F-LAYOUT-CONTRACT: each tensor of a wrong shape is named, with what was found and expected" {
    local stacked='s/[.]experts[.][0-9]+[.]/.experts./'
    check() {
        refused F- && apr oracle "$T/b" --compliance --json > "$T/o.json" 2> /dev/null &&
            jq -e '.compliance.violations | all(.rule | test("^F-(LAYOUT-CONTRACT-00[123]|TENSOR-00[12])$"))' "$T/o.json" > /dev/null &&
            # an expert that differs from the others makes no stack: the stack is missing, its experts are left over
            diff <(model_names | sed -E "$stacked" | sort -u) <(jq -r '.compliance.violations[].tensor' "$T/o.json" | sed -E "$stacked" | sort -u)
    }
    break_all shorter-each
}

@test "F-LAYOUT-CONTRACT-001, 002: matrices with one row more, and flat ones" {
    local family name rule kind
    while read -r family name rule; do
        for kind in longer flat; do
            rm -rf "$T/b"
            tests/tools/break-model "$kind=$name" "$FAMILIES/$family" "$T/b"
            refused "1 violation in 1 tensor: $rule $name: " ": found [" || {
                echo "$family $kind $name: $status $output"
                false
            }
        done
    done << 'X'
llama3 lm_head.weight F-LAYOUT-CONTRACT-002
llama2 model.layers.1.mlp.down_proj.weight F-LAYOUT-CONTRACT-001
mistral model.layers.0.self_attn.k_proj.weight F-LAYOUT-CONTRACT-001
gemma model.embed_tokens.weight F-LAYOUT-CONTRACT-001
gemma2 model.layers.0.self_attn.o_proj.weight F-LAYOUT-CONTRACT-001
gemma3 model.layers.5.self_attn.q_proj.weight F-LAYOUT-CONTRACT-001
phi2 model.layers.0.mlp.fc1.weight F-LAYOUT-CONTRACT-001
phi3 model.layers.0.self_attn.qkv_proj.weight F-LAYOUT-CONTRACT-001
qwen3 model.layers.1.mlp.gate_proj.weight F-LAYOUT-CONTRACT-001
deepseek2 model.layers.0.self_attn.kv_b_proj.weight F-LAYOUT-CONTRACT-001
deepseek2 model.layers.1.mlp.gate.weight F-LAYOUT-CONTRACT-001
mixtral model.layers.2.block_sparse_moe.gate.weight F-LAYOUT-CONTRACT-001
X
}

@test "wrong vocabulary size: config.json against the embedding, the tokenizer against both" {
    check() { refused F-LAYOUT-CONTRACT-00 "expected [600, "; }
    break_all config.vocab_size=600
    # an embedding (and head) of 200 rows under a tokenizer of more tokens
    for family in llama2 llama3 qwen3 gemma2 mixtral deepseek2; do
        rm -rf "$T"/[0-9]*
        cp -rL "$FAMILIES/$family" "$T/0"
        i=0
        for name in $(apr tensors "$T/0" --json | jq -r '.tensors[] | select(.shape[0] == 512 and (.name | test("embed_tokens|lm_head"))) | .name'); do
            tests/tools/break-model "rows=$name:200" "$T/$i" "$T/$((i + 1))"
            i=$((i + 1))
        done
        rm -rf "$T/b"
        tests/tools/break-model config.vocab_size=200 "$T/$i" "$T/b"
        refused F-VOCAB-001 || {
            echo "$family: $status $stderr"
            false
        }
    done
}

@test "F-FAMILY-001: an architecture that is not known" {
    check() { refused 'F-FAMILY-001: found family "NoSuchForCausalLM", expected one of: '; }
    break_all 'config.architectures=["NoSuchForCausalLM"]'
}

@test "F-FAMILY-002: another family's name; also where the tensors are the same" {
    check() {
        case $family in llama2 | llama3) return 0 ;; esac
        refused "F-FAMILY-002: " "architectures names family llama, model_type family "
    }
    break_all 'config.architectures=["LlamaForCausalLM"]'
    check() {
        case $family in qwen2-tied) return 0 ;; esac
        refused "F-FAMILY-002: " "model_type family qwen2"
    }
    break_all 'config.model_type="qwen2"'
    # both wrong: the tensors tell, or the numbers of the config are missing
    for family in gemma2 gemma3 qwen3 phi2 phi3 mixtral deepseek2 qwen2-tied; do
        rm -rf "$T/a" "$T/b"
        tests/tools/break-model 'config.architectures=["LlamaForCausalLM"]' "$FAMILIES/$family" "$T/a"
        tests/tools/break-model 'config.model_type="llama"' "$T/a" "$T/b"
        refused F-TENSOR-00 || {
            echo "$family: $status $output"
            false
        }
    done
}

@test "ALG: numbers that break a rule, in families with experts and latent attention" {
    while IFS='|' read -r family edit rule; do
        rm -rf "$T/b"
        tests/tools/break-model "$edit" "$FAMILIES/$family" "$T/b"
        run --separate-stderr timeout 20 apr import "$T/b" -q -o "$T/out.apr"
        [ "$status" -eq 5 ] || [ "$status" -eq 4 ] && [ ! -e "$T/out.apr" ] && [[ "$stderr" == *"$rule"* ]] || {
            echo "$family $edit: $status $stderr"
            false
        }
    done << 'X'
llama3|config.num_key_value_heads=3|ALG-002
llama3|config.num_attention_heads=2|ALG-00
qwen3|config.head_dim=15|rope dimensions: found 15
qwen3|config.head_dim=14|ALG-003
mixtral|config.num_experts_per_tok=9|num_experts_per_tok
mixtral|config.num_local_experts=3|F-TENSOR-00
deepseek2|config.qk_rope_head_dim=15|rope dimensions: found 15
deepseek2|config.qk_nope_head_dim=33|F-LAYOUT-CONTRACT-001
deepseek2|config.num_experts_per_tok=9|num_experts_per_tok
deepseek2|config.n_routed_experts=9|F-TENSOR-001
deepseek2|config.first_k_dense_replace=0|F-TENSOR-001
gemma3|config.num_hidden_layers=5|expected a list of 5 layers
phi3|config.num_hidden_layers=2|F-TENSOR-002
gpt2|config.n_layer=4|F-TENSOR-001
X
}

@test "a GGUF that names more layers than it has" {
    apr export tests/data/apr-demo-8M-Instruct --format gguf -q -o "$T/m.gguf"
    apr edit "$T/m.gguf" --set qwen2.block_count=9 -q
    run --separate-stderr apr convert "$T/m.gguf" -q -o "$T/out.apr"
    [ "$status" -eq 5 ]
    [[ "$stderr" == *F-TENSOR-001* && "$stderr" == *blk.8.* || "$stderr" == *layers.8.* ]]
    [ ! -e "$T/out.apr" ]
}
