# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-REALIZE: the engine.

logits() { # FILE MODEL OPTIONS...: writes FILE
    expect 0 apr logits "$2" "${@:3}" -q -f -o "$1"
}

# near A B LIMIT: as many numbers (at least one row of the vocabulary), none of them further apart.
near() {
    paste <(od -An -v -w4 -tf4 "$1") <(od -An -v -w4 -tf4 "$2") |
        awk -v limit="$3" '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= m)) m = d; if (NF != 2) m = "nan" }
            END { print NR " logits, largest difference " m; exit !(NR >= 4096 && m < limit) }'
}

# The prompt in one chunk, in chunks of 7, and token by token: the same bits at every position, by the fast kernels and
# in reference mode. Planted fault: token by token the first one is forgotten.
F_REALIZE_001() {
    local ids exact first=1
    ids=$(jq -r '.cases[1].prompt_ids | map(tostring) | join(",")' "$GOLDEN/generation.json") || return 1
    [ "$(tr -cd , <<<"$ids" | wc -c)" -ge 16 ] || return 1
    for exact in '' --exact; do
        # shellcheck disable=SC2086 # an option or nothing
        {
            logits "$GATE_WORK/r1.whole" "$(q4k_apr)" --ids "$ids" $exact || return 1
            logits "$GATE_WORK/r1.sevens" "$(q4k_apr)" --ids "$ids" $exact -b 7 || return 1
            [ "$1" = bad ] && ids=${ids#*,}
            logits "$GATE_WORK/r1.steps" "$(q4k_apr)" --ids "$ids" $exact -b 1 || return 1
        }
        cmp "$GATE_WORK/r1.whole" "$GATE_WORK/r1.sevens" && cmp "$GATE_WORK/r1.whole" "$GATE_WORK/r1.steps" || return 1
    done
}

# 28 query heads on 4 heads of keys and values, and the same weights with each of the 4 written seven times. Planted
# fault: the repeated heads in another order.
F_REALIZE_002() {
    local dir=$GATE_WORK/gqa kind=repeat-heads
    [ "$1" = bad ] && kind=tile-heads
    once "$dir" tests/tools/small-model "$dir" 5 28 4
    once "$dir-$kind" tests/tools/rewire "$kind" "$dir" "$dir-$kind"
    logits "$GATE_WORK/r2.gqa" "$dir" -p "$QUESTION" --exact || return 1
    logits "$GATE_WORK/r2.mha" "$dir-$kind" -p "$QUESTION" --exact || return 1
    near "$GATE_WORK/r2.gqa" "$GATE_WORK/r2.mha" 1e-6
}

inside() { # FILE PROMPT: what layer 0 holds of its last token
    expect 0 apr trace "$MODEL" "$2" --inside 0 --values 0 --exact --json && printf '%s\n' "$out" >"$1"
}

# The key in the cache at position 5 is that at position 0, turned. Planted fault: keys as they were before the rotation.
F_REALIZE_003() {
    local kind=rotated
    [ "$1" = bad ] && kind=plain
    inside "$GATE_WORK/r3.one" 'a' && inside "$GATE_WORK/r3.six" 'aaaaaa' || return 1
    same "$(apr tokenize "$MODEL" 'aaaaaa' --json | jq '.ids | unique | length')" 1 || return 1
    tests/tools/inside-check "$kind" "$MODEL" "$GATE_WORK/r3.one" "$GATE_WORK/r3.six"
}

# As the decoder computes it, token by token on threads, against the values that the blocks stand for. Planted fault:
# the values before they were quantized.
F_REALIZE_007() {
    local f32=$GATE_WORK/dequantized.apr
    once "$f32" apr convert "$(q4k_apr)" --quantize f32 -q -o "$f32"
    [ "$1" = bad ] && f32=$MODEL
    logits "$GATE_WORK/r7.fused" "$(q4k_apr)" -p "$QUESTION" --exact -b 1 -t 4 || return 1
    logits "$GATE_WORK/r7.floats" "$f32" -p "$QUESTION" --exact -b 1 -t 1 || return 1
    near "$GATE_WORK/r7.fused" "$GATE_WORK/r7.floats" 1e-3
}

# Planted fault: GELU is expected.
F_REALIZE_008() {
    local act=silu
    [ "$1" = bad ] && act=gelu
    inside "$GATE_WORK/r8" "$QUESTION" && tests/tools/inside-check "$act" "$MODEL" "$GATE_WORK/r8"
}

# Ten runs, on 1 to 5 threads and with chunks of 1 to 512 tokens. Planted fault: sampling with ten seeds.
F_REALIZE_009() {
    local i first='' how
    local -a chunks=(1 2 3 5 8 16 32 64 128 512)
    for i in 0 1 2 3 4 5 6 7 8 9; do
        how='--temperature 0'
        [ "$1" = bad ] && how='--temperature 2'
        # shellcheck disable=SC2086 # words
        expect 0 apr run "$(q4k_apr)" 'Tell me a fact.' $how --seed "$i" -n 32 -t $((i % 5 + 1)) -b "${chunks[i]}" --json || return 1
        out=$(jq -c '[.text, .tokens]' <<<"$out")
        [ -n "$first" ] || first=$out
        same "$out" "$first" || return 1
    done
}

# 1024 tokens, then all of them read at once: every logit is finite, and each token is the most probable one after those
# before it, as far as the last 16. Planted fault: a token in the middle of the sequence is another.
F_REALIZE_010() {
    local stop=4002 ids last file=$GATE_WORK/r10.f32
    expect 0 apr run "$MODEL" --raw -p 'Once upon a time' -n 1024 --logit-bias 4000-inf --logit-bias "$stop-inf" --json || return 1
    jq -e '(.tokens | length) == 1024 and .finish_reason == "length"' <<<"$out" >/dev/null || {
        echo "found $(jq -c '[.n_generated, .finish_reason]' <<<"$out"), expected 1024 tokens and length"
        return 1
    }
    last=$(jq -c '.tokens[-16:]' <<<"$out")
    ids=$(apr tokenize "$MODEL" 'Once upon a time' --json | jq -r '.ids | map(tostring) | join(",")')
    ids=$ids,$(jq -r --arg mode "$1" '(if $mode == "bad" then .tokens[1000:1010] = [range(100; 110)] else . end) | .tokens | map(tostring) | join(",")' <<<"$out")
    logits "$file" "$MODEL" --ids "$ids" || return 1
    od -An -v -w16384 -tf4 "$file" | awk -v stop="$stop" '/nan|inf/ { bad = 1 }
        { best = 0; for (i = 1; i <= NF; i++) if (i != 4001 && i != stop + 1 && (!best || $i > $best)) best = i; print best - 1 }
        END { exit bad || NR < 1028 }' >"$GATE_WORK/r10.best" || return 1
    same "$(tail -n 17 "$GATE_WORK/r10.best" | head -n 16 | paste -sd, | sed 's/.*/[&]/')" "$last"
}
