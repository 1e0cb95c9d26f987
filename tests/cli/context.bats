#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# Prompt caches on disk and context shift: the same text, less work, clear refusals.

load infer

setup() {
    infer_setup
    P=$T/prompt.cache
    Q="What is 2+2? Then tell me a long story about the sea."
}

# Tokens of the answer: OPTION...
tokens() { apr run "$MODEL" --json -q "$@" | jq -c .tokens; }

@test "the same text with a prompt cache: written, read, and read by another prompt" {
    for how in "" "--temperature 1 --seed 3" "--lookup" "--cache-type q8_0"; do
        rm -f "$P"
        # shellcheck disable=SC2086
        for n in 1 2 3; do
            want=$(tokens "$Q" --raw -n 40 $how)
            got=$(tokens "$Q" --raw -n 40 $how --prompt-cache "$P")
            echo "$how, run $n: $got instead of $want"
            [ "$got" = "$want" ]
        done
        # shellcheck disable=SC2086
        [ "$(tokens "What is 2+2? Now sing." --raw -n 20 $how)" = "$(tokens "What is 2+2? Now sing." --raw -n 20 $how --prompt-cache "$P")" ]
        rm "$P"
    done
}

@test "what is reused is said, and is what both prompts begin with" {
    run --separate-stderr apr run "$MODEL" "$Q" --raw -n 4 --prompt-cache "$P" --json
    n=$(jq .n_prompt_toks <<<"$output")
    jq -e '.n_prompt_reused == 0' <<<"$output"
    [[ $stderr == *"$P: 0 of $n prompt tokens reused"* ]]
    [ "$(stat -c %a "$P")" = 644 ] || [ "$(umask)" != 0022 ]
    run --separate-stderr apr run "$MODEL" "$Q" --raw -n 4 --prompt-cache "$P" --json
    jq -e --argjson n "$n" '.n_prompt_reused == $n - 1' <<<"$output"
    run --separate-stderr apr run "$MODEL" "$Q Or not." --raw -n 4 --prompt-cache "$P" --json
    jq -e --argjson n "$n" '.n_prompt_reused >= $n - 1' <<<"$output"
    run --separate-stderr apr run "$MODEL" "No." --raw -n 4 --prompt-cache "$P" --json
    jq -e '.n_prompt_reused == 0' <<<"$output"
}

@test "--prompt-cache-all saves the answer, --prompt-cache-ro saves nothing" {
    apr run "$MODEL" "$Q" --raw -n 30 -q --prompt-cache "$P" --prompt-cache-all >"$T/text"
    n=$(apr run "$MODEL" "$Q" --raw -n 1 --json -q | jq .n_prompt_toks)
    got=$(apr run "$MODEL" "$Q$(cat "$T/text") And then" --raw -n 1 --json -q --prompt-cache "$P" --prompt-cache-ro | jq .n_prompt_reused)
    echo "$got reused of a prompt of $n and its answer"
    [ "$got" -gt "$n" ]
    sum=$(sha256sum <"$P")
    apr run "$MODEL" "No." --raw -n 1 -q --prompt-cache "$P" --prompt-cache-ro
    [ "$(sha256sum <"$P")" = "$sum" ]
    run --separate-stderr apr run "$MODEL" "$Q" -n 1 --prompt-cache "$T/absent" --prompt-cache-ro
    [ "$status" -eq 3 ]
    [ ! -e "$T/absent" ]
}

@test "files of another model, another cache, cut and damaged ones" {
    apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$P"
    for option in "--exact" "--cache-type q8_0" "--cache-type-v f32"; do
        # shellcheck disable=SC2086
        run --separate-stderr apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$P" $option
        echo "$option: $status $stderr"
        [ "$status" -eq 5 ]
        [ -z "$output" ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
    done
    make_model q8_0 gguf
    run --separate-stderr apr run "$T/m.gguf" "$Q" --raw -n 1 -q --prompt-cache "$P"
    [ "$status" -eq 5 ]
    [[ $stderr == *"another model"* ]]
    size=$(stat -c %s "$P")
    for n in 0 5 63 64 $((size / 2)) $((size - 1)); do
        head -c "$n" "$P" >"$T/cut"
        run --separate-stderr apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$T/cut"
        echo "$n bytes: $status $stderr"
        [ "$status" -eq 4 ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
        [ "$(stat -c %s "$T/cut")" -eq "$n" ]
    done
    { head -c $((size - 100)) "$P"; head -c 92 /dev/zero; tail -c 8 "$P"; } >"$T/bad"
    run --separate-stderr apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$T/bad"
    [ "$status" -eq 4 ]
    [[ $stderr == *"damaged"* ]]
    run --separate-stderr apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$T"
    [ "$status" -eq 4 ]
    run --separate-stderr apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$T/no/folder"
    [ "$status" -eq 7 ]
}

@test "a copy of the model elsewhere reads the same prompt cache" {
    apr run "$MODEL" "$Q" --raw -n 1 -q --prompt-cache "$P"
    cp -r "$MODEL" "$T/copy"
    [ "$(apr run "$T/copy" "$Q" --raw -n 1 --json -q --prompt-cache "$P" | jq '.n_prompt_reused > 0')" = true ]
}

# The text after a shift is that of a fresh prompt of what stayed: PROMPT_TOKENS GENERATED CTX KEEP
check_shift() {
    local want got kept n
    n=$(jq length <<<"$1")
    # The context is full when prompt and answer fill it; behind that point:
    kept=$(jq -nc --argjson p "$1" --argjson g "$2" --argjson c "$3" --argjson k "$4" '($p + $g)[:$c] as $full |
        $full[:$k] + $full[$c - (($c - $k) / 2 | floor):] + ($p + $g)[$c:$c + 1] | join(",")' | tr -d '"')
    apr logits "$MODEL" --ids "$kept" -q -o "$T/logits" --force
    want=$(od -An -v -w4 -tf4 "$T/logits" | tail -n 4096 | awk 'NR == 1 || $1 > m { m = $1; i = NR - 1 } END { print i }')
    got=$(jq --argjson i $(($3 - n + 1)) '.[$i]' <<<"$2")
    echo "context $3, keep $4: token $got, after a fresh prompt $want"
    [ "$got" = "$want" ]
}

@test "a context shift goes on as a fresh prompt of what stayed" {
    p=$(apr tokenize "$MODEL" "$Q" --json | jq -c '.ids // .tokens')
    plain=$(tokens "$Q" --raw -n 200 -c 64)
    for keep in 0 3 -1; do
        g=$(tokens "$Q" --raw -n 200 -c 64 --context-shift --keep "$keep")
        [ "$(jq length <<<"$g")" -eq 200 ]
        [ "$(jq -c ".[:$(jq length <<<"$plain")]" <<<"$g")" = "$plain" ]
        [ "$keep" -ge 0 ] || keep=$(jq length <<<"$p")
        check_shift "$p" "$g" 64 "$keep"
    done
}

@test "shifts beside speculation, guidance, sampling, a grammar and other threads" {
    want=$(tokens "$Q" --raw -n 150 -c 64 --context-shift)
    [ "$(tokens "$Q" --raw -n 150 -c 64 --context-shift --lookup)" = "$want" ]
    [ "$(tokens "$Q" --raw -n 150 -c 64 --context-shift -t 1 -b 5)" = "$want" ]
    for how in "--temperature 0.8 --seed 5 --repeat-penalty 1.1" "--cfg-scale 1.5 --negative-prompt No"; do
        # shellcheck disable=SC2086
        want=$(tokens "$Q" --raw -n 100 -c 64 --context-shift $how)
        [ "$(jq length <<<"$want")" -eq 100 ]
        # shellcheck disable=SC2086
        [ "$(tokens "$Q" --raw -n 100 -c 64 --context-shift --lookup $how)" = "$want" ]
    done
    printf 'root ::= [a-z ]{120,120}\n' >"$T/g"
    text=$(apr run "$MODEL" "$Q" --raw -q -c 48 --context-shift --grammar "$T/g")
    echo "$text"
    [[ $text =~ ^[a-z\ ]{120}$ ]]
}

@test "without --context-shift the end of the context is the end; options that do nothing are refused" {
    run --separate-stderr apr run "$MODEL" "$Q" --raw -n 200 -c 64 --json
    [ "$status" -eq 0 ]
    jq -e '.finish_reason == "length" and .n_prompt_toks + .n_generated == 65' <<<"$output"
    [[ $stderr == *"the context of 64 positions is full"* ]]
    for options in "--keep 4" "--context-shift --keep -2" "--context-shift --keep 1 -c 2" "--prompt-cache-all" \
        "--prompt-cache-ro" "--prompt-cache p --prompt-cache-all --prompt-cache-ro" "--prompt-cache="; do
        # shellcheck disable=SC2086
        run --separate-stderr apr run "$MODEL" a --raw $options
        echo "$options: $status $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
    done
    run --separate-stderr apr run "$MODEL" "$Q $Q $Q $Q $Q" --raw -c 32 --context-shift
    [ "$status" -eq 2 ]
    [[ $stderr == *"do not fit the context of 32 positions"* ]]
}

@test "batch: the first prompt is saved, other runs share with it, results stay the same" {
    sys="You are a patient teacher who answers every question of a child in one short sentence and never in two."
    for q in "What is 2+2?" "Name a colour." "Hi"; do jq -nc --arg s "$sys" --arg q "$q" '{messages: [{role: "system", content: $s}, {role: "user", content: $q}], max_tokens: 8}'; done >"$T/in"
    apr batch "$MODEL" <"$T/in" >"$T/want" -q
    apr batch "$MODEL" -i "$T/in" -o "$T/a" --json -q --prompt-cache "$P" | jq -e '.n_failed == 0'
    [ -s "$P" ]
    cmp "$T/want" "$T/a"
    sum=$(sha256sum <"$P")
    tail -n 1 "$T/in" >"$T/last"
    shared=$(apr batch "$MODEL" -i "$T/last" -o "$T/b" --json -q --prompt-cache "$P" | jq .n_shared_toks)
    echo "$shared tokens shared"
    [ "$shared" -ge 16 ]
    jq -c .text "$T/b" >"$T/b.text"
    tail -n 1 "$T/want" | jq -c .text | cmp - "$T/b.text"
    [ "$(apr batch "$MODEL" -i "$T/last" -o "$T/c" --json -q | jq .n_shared_toks)" -eq 0 ]
    [ "$(sha256sum <"$P")" = "$sum" ]
    run --separate-stderr apr batch "$MODEL" -i "$T/in" --prompt-cache "$P" --exact
    [ "$status" -eq 5 ]
    [ -z "$output" ]
    run --separate-stderr apr batch "$MODEL" -i "$T/in" --prompt-cache "$T/absent" --prompt-cache-ro
    [ "$status" -eq 3 ]
    run --separate-stderr apr batch "$MODEL" -i "$T/in" --prompt-cache-ro
    [ "$status" -eq 2 ]
}
