# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-PROVE: numbers that break a rule do not build. The generator and the compiler run on copies of the contracts.

compile() { # SED-EXPRESSION FILE: builds the generated header after the edit; the compiler's words go to $GATE_WORK/cc
    local dir=$GATE_WORK/prove
    rm -rf "$dir" && mkdir -p "$dir" && cp lib/contracts/*.yaml "$dir/" || return 7
    sed -i -e "$1" "$dir/$2" || return 7
    build/gen-contracts "$dir"/*.yaml >"$dir/contracts.h" 2>"$GATE_WORK/cc" || return 1
    printf '#include "contract.h"\n#include "contracts.h"\n' | cc -std=c11 -fsyntax-only -Ilib -I"$dir" -x c - 2>>"$GATE_WORK/cc"
}
in_7b() { printf '/^ *7b:/,/^ *14b:/s/\\(%s:\\).*/\\1 %s/\n' "$1" "$2"; }

# The edit must break the build with the citation. Planted fault: the number that was there.
refused() { # MODE KEY BAD GOOD MESSAGE
    local value=$3
    [ "$1" = bad ] && value=$4
    if compile "$(in_7b "$2" "$value")" qwen2.yaml; then
        echo "$2: $value builds"
        return 1
    fi
    grep -Eq "$5" "$GATE_WORK/cc" || {
        echo "expected '$5', found: $(head -n 3 "$GATE_WORK/cc")"
        return 1
    }
}

# Planted fault: a broken number.
F_PROVE_001() {
    local edit=''
    [ "$1" = bad ] && edit=$(in_7b num_kv_heads 5)
    compile "$edit" qwen2.yaml
}
F_PROVE_002() { refused "$1" hidden_dim 0 3584 'hidden_dim'; }
F_PROVE_003() { refused "$1" num_kv_heads 5 4 'num_heads must be divisible by num_kv_heads'; }
F_PROVE_004() { refused "$1" head_dim 129 128 'head_dim must be even'; }
F_PROVE_005() { refused "$1" intermediate_dim 100 18944 'intermediate_dim must exceed hidden_dim'; }

# Planted fault: the right number.
F_PROVE_006() {
    local dir=$GATE_WORK/prove6-$1 hidden=3640
    [ "$1" = bad ] && hidden=3584
    mkdir -p "$dir"
    jq --argjson h "$hidden" '.hidden_size = $h | .num_hidden_layers = 28 | .num_attention_heads = 28 | .num_key_value_heads = 4 |
        .intermediate_size = 18944 | .vocab_size = 152064 | .max_position_embeddings = 131072' "$MODEL/config.json" >"$dir/config.json"
    apr oracle "$dir" --family qwen2 --size 7b --validate >"$GATE_WORK/out" 2>&1
    [ $? -eq 5 ] && grep MISMATCH "$GATE_WORK/out" | grep -q hidden
}

# Planted fault: one assertion is taken out of the generated file.
F_PROVE_007() {
    compile '' qwen2.yaml || return 1
    local h=$GATE_WORK/prove/contracts.h n
    [ "$1" = bad ] && sed -i '0,/_Static_assert/{/_Static_assert/d}' "$h"
    n=$(grep -cE '^_Static_assert.*"ALG-[0-9]+[a-z]? (bert|deepseek|gemma|llama|mistral|phi|qwen2|whisper)/' "$h")
    same "$n" 297
}
