#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# run: the chain of samplers, logit bias, guidance, grammars and JSON schemas with the real model.

load infer

setup() {
    infer_setup
    Q="What is 2+2? Answer with just the number."
    s() { apr run "$MODEL" --raw 'The quick' -n 16 "$@"; }
}

@test "every sampler runs, says so in json, and depends on the seed alone" {
    for o in "--typical-p 0.5" "--tail-free 0.5" "--top-n-sigma 1" "--eta-cutoff 0.1" "--epsilon-cutoff 0.05" \
        "--xtc-probability 1" "--dynatemp-range 0.5" "--dry-multiplier 2" "--presence-penalty 1" \
        "--frequency-penalty 1" "--mirostat 2" "--min-p 0.3 --top-k 9 --top-p 0.7 --repeat-penalty 1.3"; do
        read -ra args <<<"$o"
        a=$(s --temperature 0.9 --seed 3 "${args[@]}" --json)
        b=$(s --temperature 0.9 --seed 3 "${args[@]}" -t 1)
        [ "$(jq -r .text <<<"$a")" = "$b" ] || { echo "$o: $b"; false; }
        key=${args[0]#--}
        key=${key//-/_}
        [ "$(jq --arg k "$key" --arg v "${args[1]}" '[.sampling.chain[] | .[$k]] | map(select(. != null)) == [($v | tonumber)]' <<<"$a")" = true ]
    done
    [ "$(s --temperature 1 --seed 1)" != "$(s --temperature 1 --seed 2)" ]
}

@test "the chain: llama.cpp's order by default, another one by --samplers" {
    run -0 s --temperature 0.7 --top-k 5 --min-p 0.1 --repeat-penalty 1.2 --json
    [ "$(jq -c '[.sampling.chain[].step]' <<<"$output")" = '["penalties","top_k","min_p","temperature"]' ]
    run -0 s --temperature 0.7 --top-k 5 --min-p 0.1 --samplers 'temp;min-p;top_k' --json
    [ "$(jq -c '[.sampling.chain[].step]' <<<"$output")" = '["temperature","min_p","top_k"]' ]
    run -0 s --json
    [ "$(jq -c '[.sampling.greedy, .sampling.chain]' <<<"$output")" = '[true,[]]' ]
}

@test "what would do nothing is refused" {
    while read -r line; do
        read -ra args <<<"$line"
        run --separate-stderr s --temperature 1 "${args[@]}"
        echo "$line: $status $stderr"
        [ "$status" -eq 2 ]
        [ "${#stderr_lines[@]}" -eq 1 ]
        [ -z "$output" ]
    done <<'EOF'
--samplers top_q
--samplers top_k;top_k
--samplers mirostat;top_k
--samplers top_p --top-k 3
--mirostat 1
--mirostat 2 --top-k 3
--mirostat-tau 3
--dry-base 2
--dry-sequence-breaker x
--xtc-threshold 0.2
--dynatemp-exponent 2
--logit-bias nonsense
--logit-bias 999999+1
--logit-bias several-words-here+1
--logit-bias 5+inf
--negative-prompt x
--cfg-scale -1
--grammar /dev/null --json-schema /dev/null
EOF
}

@test "logit bias: by id and by text, greedy too" {
    [ "$(apr run "$MODEL" "$Q")" = 4 ]
    [ "$(apr run "$MODEL" "$Q" --logit-bias '"4"-inf' -n 1)" != 4 ]
    [ "$(apr run "$MODEL" "$Q" --logit-bias 19-100 -n 1)" != 4 ] # 19 is "4"
    [ "$(apr run "$MODEL" "$Q" --logit-bias '"7"+100' -n 2)" = 77 ]
}

@test "guidance: scale 1 is none, another scale changes the text, a template or raw" {
    a=$(s --cfg-scale 1 --negative-prompt 'slow')
    [ "$a" = "$(s)" ]
    [ "$(s --cfg-scale 3 --negative-prompt 'slow and lazy')" != "$a" ]
    run -0 s --cfg-scale 2
    run -0 apr run "$MODEL" "$Q" --cfg-scale 1.3
    # Away from itself is nowhere: other + s * (logits - other) with equal logits.
    [ "$(s --cfg-scale 5 --negative-prompt 'The quick')" = "$a" ]
}

@test "a grammar: the text matches, ends by itself, and is the free one where that matches" {
    printf 'root ::= ("yes" | "no") "!"' >"$T/g"
    run --separate-stderr apr run "$MODEL" "$Q" --grammar "$T/g" --json
    [ "$status" -eq 0 ]
    [[ $(jq -r .text <<<"$output") =~ ^(yes|no)!$ ]]
    [ "$(jq -r .finish_reason <<<"$output")" = stop ]
    printf 'root ::= [0-9]+' >"$T/g"
    [ "$(apr run "$MODEL" "$Q" --grammar "$T/g")" = 4 ]
    printf 'root ::= [\\u3040-\\u30ff]{4}' >"$T/g" # characters of several tokens
    run -0 apr run "$MODEL" "$Q" --grammar "$T/g" --temperature 1
    [ "$(wc -m <<<"$output")" -eq 5 ]
}

@test "a schema: valid JSON within any number of tokens that a byte a token allows" {
    cat >"$T/s" <<'EOF'
{"type": "object", "required": ["name", "age", "tags"], "additionalProperties": false,
 "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
                "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1}, "note": {"$ref": "#/properties/name"}}}
EOF
    for seed in 1 2 3 4; do
        run -0 --separate-stderr apr run "$MODEL" 'Describe Alice as JSON.' --json-schema "$T/s" --temperature 1.3 --seed $seed -n $((40 + 20 * seed))
        echo "$output"
        jq -e '(.name | length > 0) and .age >= 0 and .age <= 150 and (.tags | length > 0 and all(. == "a" or . == "b"))' <<<"$output"
    done
    run -0 apr run "$MODEL" 'Describe Alice as JSON.' --json-schema "$T/s"
    jq -e .name <<<"$output"
    run --separate-stderr apr run "$MODEL" x --json-schema "$T/s" -n 3
    [ "$status" -eq 8 ]
    [[ $stderr == *"before the grammar was satisfied"* ]]
}

# 500 of them with random logits: tests/unit/test_grammar_schema.c. Here the model speaks.
@test "random schemas: every text parses and validates, judged by another implementation" {
    command -v python3 >/dev/null || skip 'python3 is not here'
    python3 tests/tools/schemas.py make 12 "${APR_SCHEMA_SEED:-77}" >"$T/schemas"
    i=0
    while read -r schema; do
        i=$((i + 1))
        printf '%s' "$schema" >"$T/s"
        apr run "$MODEL" 'Give me some JSON.' --json-schema "$T/s" --temperature 1.2 --seed "$i" -n 400 -q </dev/null >"$T/text"
        jq -Rs . "$T/text" >>"$T/texts"
    done <"$T/schemas"
    [ "$(wc -l <"$T/texts")" -eq 12 ]
    run -0 python3 tests/tools/schemas.py check "$T/schemas" "$T/texts"
    sed -i '3s/.*/"{]"/' "$T/texts"
    run python3 tests/tools/schemas.py check "$T/schemas" "$T/texts"
    [ "$status" -ne 0 ]
}

@test "broken grammars and schemas: status 4, unsupported keywords: 2, with place or path" {
    t() { # status, pattern, option, text
        printf '%s' "$4" >"$T/x"
        run --separate-stderr apr run "$MODEL" x "$3" "$T/x"
        echo "$status $stderr"
        [ "$status" -eq "$1" ] && [[ $stderr == *"$2"* ]] && [ "${#stderr_lines[@]}" -eq 1 ] && [ -z "$output" ]
    }
    t 4 'line 2: expected "::="' --grammar 'root ::= "a"
b = "c"'
    t 4 left-recursive --grammar 'root ::= root "a" | "b"'
    t 4 'line 1' --json-schema '{"type": '
    t 4 '$.properties.a: type "text"' --json-schema '{"properties": {"a": {"type": "text"}}}'
    t 2 '$.items: keyword "not"' --json-schema '{"items": {"not": {}}}'
    run --separate-stderr apr run "$MODEL" x --grammar "$T/none"
    [ "$status" -eq 3 ]
}
