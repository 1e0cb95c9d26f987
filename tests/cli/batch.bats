#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# batch: the same answers as run whatever stands beside them, errors by line, order, resuming, streams, hostile input.

load infer

setup() {
    infer_setup
    ROOT=$PWD
}

# 40 requests of every kind of length: golden prompts as they are, questions through the template, and ids.
forty() {
    jq -c '.cases[:20][] | {prompt, raw: true, max_tokens: 24}' "$GOLDEN/generation.json"
    for i in $(seq 10); do jq -cn --arg p "What is $i+$((i * 3))?" '{prompt: $p, max_tokens: 16}'; done
    jq -c '.cases[:10][] | {ids: .prompt_ids, max_tokens: 12}' "$GOLDEN/generation.json"
}

# What apr run says to line $1 of $T/in: [text, tokens, finish].
run_line() {
    local line opts=()
    line=$(sed -n "$1p" "$T/in")
    [ "$(jq .raw <<<"$line")" != true ] || opts+=(--raw)
    jq -j .prompt <<<"$line" >"$T/prompt"
    apr run "$MODEL" -i "$T/prompt" --json -n "$(jq .max_tokens <<<"$line")" "${opts[@]}" |
        jq -c '[.text, .tokens, .finish_reason]'
}

@test "forty requests: the bytes do not depend on --parallel, threads or chunks, and are those of run" {
    forty >"$T/in"
    [ "$(wc -l <"$T/in")" -eq 40 ]
    apr batch "$MODEL" --tokens --parallel 1 -i "$T/in" >"$T/p1"
    [ "$(jq -s 'length' "$T/p1")" -eq 40 ]
    apr batch "$MODEL" --tokens --parallel 3 -i "$T/in" | cmp - "$T/p1"
    apr batch "$MODEL" --tokens --parallel 8 -t 1 -i "$T/in" | cmp - "$T/p1"
    apr batch "$MODEL" --tokens --parallel 40 -b 48 <"$T/in" | cmp - "$T/p1"
    for i in $(seq 30); do
        [ "$(run_line "$i")" = "$(sed -n "${i}p" "$T/p1" | jq -c '[.text, .tokens, .finish_reason]')" ] ||
            { echo "line $i: $(run_line "$i")"; sed -n "${i}p" "$T/p1"; false; }
    done
}

@test "requests by ids are those of their text" {
    jq -c '.cases[:10][] | {prompt, raw: true, max_tokens: 9}' "$GOLDEN/generation.json" >"$T/text"
    jq -c '.cases[:10][] | {ids: .prompt_ids, max_tokens: 9}' "$GOLDEN/generation.json" >"$T/ids"
    apr batch "$MODEL" -i "$T/text" >"$T/a"
    apr batch "$MODEL" -i "$T/ids" | cmp - "$T/a"
}

@test "sampled answers depend on their own seed alone" {
    one='{"prompt":"Tell me a story.","max_tokens":24,"temperature":3,"top_k":40,"seed":SEED}'
    for s in 1 2 3 4 5 6; do echo "${one/SEED/$s}"; done >"$T/in"
    apr batch "$MODEL" -i "$T/in" | jq -c .text >"$T/forward"
    tac "$T/in" | apr batch "$MODEL" -P 2 | jq -c .text | tac | cmp - "$T/forward"
    sed -n 4p "$T/in" | apr batch "$MODEL" | jq -c .text | cmp - <(sed -n 4p "$T/forward")
    [ "$(sort -u "$T/forward" | wc -l)" -ge 4 ]
    [ "$(apr run "$MODEL" "Tell me a story." -n 24 --temperature 3 --top-k 40 --seed 4 --json | jq -c .text)" = \
        "$(sed -n 4p "$T/forward")" ]
}

@test "prompts that begin alike are computed once, and say what they say alone" {
    system='You are a calculator that answers every question with a number, without a word, as briefly as it can be.'
    for i in $(seq 12); do echo "{\"prompt\":\"What is $i+$i?\",\"max_tokens\":6}"; done >"$T/in"
    run --separate-stderr apr batch "$MODEL" --system "$system" --tokens --json -i "$T/in" -o "$T/out"
    [ "$(jq '.n_shared_toks >= 11 * 32 and .n_shared_toks % 16 == 0' <<<"$output")" = true ] || { echo "$output"; false; }
    for i in 1 5 12; do
        [ "$(apr run "$MODEL" --system "$system" "What is $i+$i?" -n 6 --json | jq -c .tokens)" = "$(sed -n "${i}p" "$T/out" | jq -c .tokens)" ]
    done
    apr batch "$MODEL" --system "$system" --tokens -P 1 -b 7 -i "$T/in" | cmp - "$T/out"
}

@test "families: windows, latent attention, experts, positions; beside each other as alone" {
    local families=${APR_SHARED:-../shared}/fixtures/families n_done=0
    [ -d "$families" ] || skip "the fixtures are not here: $families"
    for dir in "$families"/*/; do
        name=$(basename "$dir")
        jq -e 'has("greedy_ids")' "$dir/golden.json" >/dev/null || continue
        case $name in bert | whisper) continue ;; esac
        jq -c '.input_ids as $p | .greedy_ids as $g | range(1; 8) | {ids: ($p + $g[: . - 1]), max_tokens: (($g | length) - . + 1), ignore_eos: true}' \
            "$dir/golden.json" >"$T/in"
        want=$(jq -c '.greedy_ids as $g | range(1; 8) | $g[. - 1:]' "$dir/golden.json")
        got=$(apr batch "$dir" --exact --tokens -P 4 -q -i "$T/in" | jq -c .tokens)
        [ "$got" = "$want" ] || { echo "$name: $got"; echo "$want"; false; }
        n_done=$((n_done + 1))
    done
    [ "$n_done" -ge 12 ]
}

@test "a line that is wrong is answered by its error and stops nothing; the status is 1" {
    cat >"$T/in" <<'END'
{"id":"a","prompt":"What is 2+2? Answer with just the number."}
not json

{"id":"b","prompt":"x","max_token":3}
{"id":"c","prompt":"x","top_p":7}
{"id":"d"}
{"id":7,"prompt":"What is 2+2? Answer with just the number."}
END
    run --separate-stderr apr batch "$MODEL" -i "$T/in"
    [ "$status" -eq 1 ]
    [ "$(jq -c '[.index, .id, .text, .error.code]' <<<"$output")" = '[0,"a","4",null]
[1,null,null,4]
[3,"b",null,2]
[4,"c",null,2]
[5,"d",null,2]
[6,7,"4",null]' ]
    [[ "$(jq -r .error.message <<<"${lines[2]}")" == "max_token: unknown field" ]]
    [[ "$(jq -r .error.message <<<"${lines[3]}")" == "top_p: found 7, expected more than 0 to 1" ]]
    [[ "$stderr" == *"4 of 6 lines failed; line 2: "* ]]
}

@test "--fail-fast ends after the first line that fails" {
    printf '%s\n' '{"prompt":"a","max_tokens":2}' '{"prompt":""}' '{"prompt":"b","max_tokens":2}' >"$T/in"
    run --separate-stderr apr batch "$MODEL" --fail-fast -i "$T/in"
    [ "$status" -eq 1 ]
    [ "${#lines[@]}" -eq 2 ]
    [ "$(jq .index <<<"${lines[1]}")" = 1 ]
}

@test "every field is done or refused by name" {
    while IFS='|' read -r fields want; do
        jq -cn --argjson f "$fields" '{prompt: "x", max_tokens: 2} + $f' >"$T/in"
        run --separate-stderr apr batch "$MODEL" -i "$T/in"
        [ "$status" -eq 1 ] || { echo "$fields: $status $output"; false; }
        [[ "$(jq -r .error.message <<<"$output")" == *"$want"* ]] || { echo "$fields: $output"; false; }
    done <<'END'
{"messages":[]}|messages: expected an array of messages
{"messages":[{"role":"user","content":"x"}]}|more than one of prompt, messages and ids
{"ids":[1]}|more than one of
{"prompt":3}|prompt: expected a string
{"prompt":null}|nothing to do
{"prompt":null,"ids":[99999999]}|ids[0]: found 99999999
{"prompt":null,"ids":[-1]}|ids[0]: expected a token id
{"max_tokens":0}|max_tokens: found 0, expected 1
{"max_tokens":1.5}|max_tokens: expected a whole number
{"max_tokens":"3"}|max_tokens: expected a whole number
{"max_tokens":1e300}|max_tokens: found 1e+300
{"temperature":"hot"}|temperature: expected a number
{"temperature":-1}|temperature: found -1
{"top_k":1.5}|top_k: expected a whole number
{"seed":-1}|seed: found -1
{"seed":9223372036854775808.0}|seed: found 9.22337e+18
{"stop":[1]}|stop: expected a string or an array of strings
{"raw":1}|raw: expected true or false
{"raw":true,"system":"s"}|system: needs a chat template
{"grammar":"root ::= ("}|grammar
{"json_schema":{"type":"number","multipleOf":3}}|multipleOf
{"json_schema":{"type":"number"},"grammar":"root ::= \"a\""}|one grammar or schema is enough
{"top_logprobs":3}|top_logprobs: does nothing without logprobs
{"logprobs":21}|logprobs: found 21
{"samplers":"nonsense"}|nonsense
{"id":[]}|id: expected a string or an integer
{"template_name":"nope"}|nope
{"response_format":{"type":"text"}}|response_format: unknown field
{"temperature":1,"dynatemp_exponent":2}|dynatemp
END
}

@test "options are what a request gets that does not say" {
    printf '%s\n' '{"prompt":"What is 2+2?"}' '{"prompt":"What is 2+2?","max_tokens":2}' '{"prompt":"Hi","raw":true}' >"$T/in"
    run apr batch "$MODEL" -n 3 --ignore-eos --system 'You are terse.' -i "$T/in"
    [ "$(jq -s -c 'map(.usage.completion_tokens)' <<<"$output")" = '[3,2,3]' ]
    run apr batch "$MODEL" -n 3 --system 'You are terse.' -i "$T/in"
    [ "$(jq .text <<<"${lines[0]}")" = "$(apr run "$MODEL" -n 3 --system 'You are terse.' 'What is 2+2?' --json | jq .text)" ]
    [ "$(jq .usage.prompt_tokens <<<"${lines[2]}")" -lt 4 ]
    printf 'root ::= "yes" | "no"' >"$T/g"
    run apr batch "$MODEL" --grammar "$T/g" -i "$T/in"
    [ "$(jq -s -c 'map(.text == "yes" or .text == "no") | all' <<<"$output")" = true ]
    run apr batch "$MODEL" --stop e -i <(echo '{"prompt":"Hi"}' )
    [ "$(jq -r '.text | contains("e")' <<<"$output")" = false ]
    run apr batch "$MODEL" --raw --system x -i "$T/in"
    [ "$status" -eq 2 ]
}

@test "schemas, stop strings, log-probabilities" {
    cat >"$T/in" <<'END'
{"prompt":"Describe Alice.","temperature":1,"seed":3,"json_schema":{"type":"object","properties":{"name":{"type":"string","maxLength":9},"age":{"type":"integer","minimum":0,"maximum":99}},"required":["name","age"]}}
{"prompt":"What is 2+2? Answer with just the number.","logprobs":3}
{"prompt":"Count from one to ten.","max_tokens":30,"stop":["three"]}
END
    run --separate-stderr apr batch "$MODEL" --tokens -i "$T/in"
    [ "$status" -eq 0 ]
    jq -e '.text | fromjson | (.name | length) <= 9 and .age >= 0' <<<"${lines[0]}"
    jq -e '.tokens as $t | .logprobs | length == 2 and all(.[]; .logprob <= 0 and (.top_logprobs | length) == 3)
        and .[0].id == $t[0] and .[0].top_logprobs[0].id == $t[0]
        and all(.[]; .top_logprobs as $p | $p[0].logprob >= $p[1].logprob and $p[1].logprob >= $p[2].logprob)' <<<"${lines[1]}"
    jq -e '.text | contains("three") | not' <<<"${lines[2]}"
    # log softmax of the logits that the reference gives after this prompt
    want=$(od -An -v -w4 -tf4 "$GOLDEN/logits-0.f32" | tail -n 4096 |
        awk '{ x[NR - 1] = $1; s += exp($1) } END { printf "%.9f", x[19] - log(s) }')
    jq -cn --argjson p "$(jq -c '.cases[0].prompt' "$GOLDEN/generation.json")" '{prompt: $p, raw: true, max_tokens: 1, logprobs: true}' >"$T/in"
    got=$(apr batch "$MODEL" --exact -i "$T/in" | jq '.logprobs[0].logprob')
    at_most "$(awk -v a="$want" -v b="$got" 'BEGIN { d = a - b; print (d < 0 ? -d : d) }')" 1e-4 || { echo "$want $got"; false; }
    jq -e '.logprobs | map(.top_logprobs | map(.logprob | exp) | add <= 1.0000001) | all' <<<"${lines[1]}"
}

@test "OpenAI's batch lines are answered in their form" {
    cat >"$T/in" <<'END'
{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"demo","messages":[{"role":"user","content":[{"type":"text","text":"What is 2+2? Answer with just "},{"type":"text","text":"the number."}]}],"temperature":0,"n":1,"stream":false,"logprobs":true,"top_logprobs":2}}
{"custom_id":"b","method":"POST","url":"/v1/completions","body":{"model":"demo","prompt":"One, two,","max_tokens":3,"logprobs":2}}
{"custom_id":"c","method":"POST","url":"/v1/embeddings","body":{"model":"demo","input":"x"}}
{"custom_id":"d","method":"POST","url":"/v1/chat/completions","body":{"model":"demo","messages":[{"role":"user","content":"x"}],"tools":[]}}
{"custom_id":"e","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"Give a person."}],"response_format":{"type":"json_schema","json_schema":{"name":"p","schema":{"type":"object","properties":{"n":{"type":"string","maxLength":4}},"required":["n"]}}}}}
{"custom_id":"f","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"x"}],"n":2}}
END
    run --separate-stderr apr batch "$MODEL" -i "$T/in"
    [ "$status" -eq 1 ]
    [ "$(jq -c '[.custom_id, .id, .response.status_code, .error]' <<<"$output")" = '["a","batch_req_0",200,null]
["b","batch_req_1",200,null]
["c","batch_req_2",400,null]
["d","batch_req_3",400,null]
["e","batch_req_4",200,null]
["f","batch_req_5",400,null]' ]
    jq -e '.response.body | .object == "chat.completion" and .model == "demo" and .created == 0
        and .choices[0].message == {"role": "assistant", "content": "4"} and .choices[0].finish_reason == "stop"
        and .usage == {"prompt_tokens": 41, "completion_tokens": 2, "total_tokens": 43}
        and (.choices[0].logprobs.content | length == 2 and .[0].bytes == [52] and (.[0].top_logprobs | length) == 2)' <<<"${lines[0]}"
    jq -e '.response.body | .object == "text_completion" and (.choices[0].logprobs | .tokens | length == 3)
        and (.choices[0].logprobs.top_logprobs | map(length == 2) | all)
        and (.choices[0].logprobs.tokens | add) == .choices[0].text' <<<"${lines[1]}"
    jq -e '.response.body.error | .type == "invalid_request_error" and (.message | contains("url"))' <<<"${lines[2]}"
    jq -e '.response.body.error.message == "body.tools: unknown field"' <<<"${lines[3]}"
    jq -e '.response.body.choices[0].message.content | fromjson | has("n")' <<<"${lines[4]}"
    jq -e '.response.body.error.message | startswith("body.n: found 2")' <<<"${lines[5]}"
}

@test "--unordered: the same lines, the short ones first" {
    { echo '{"prompt":"x","max_tokens":300,"ignore_eos":true}'; for i in 1 2 3 4 5; do echo "{\"prompt\":\"$i\",\"max_tokens\":1}"; done; } >"$T/in"
    apr batch "$MODEL" -P 2 -i "$T/in" >"$T/ordered"
    apr batch "$MODEL" -P 2 -u -i "$T/in" >"$T/unordered"
    [ "$(tail -n 1 "$T/unordered" | jq .index)" = 0 ]
    cmp <(jq -c -s 'sort_by(.index)[]' "$T/unordered") <(jq -c . "$T/ordered")
}

long_requests() { for i in $(seq 60); do echo "{\"id\":\"r$i\",\"prompt\":\"Say $i.\",\"max_tokens\":60,\"ignore_eos\":true}"; done; }

@test "killed in the middle and resumed: the bytes of an uninterrupted run" {
    long_requests >"$T/in"
    sed -i '7s/prompt/promt/' "$T/in"
    run apr batch "$MODEL" -i "$T/in" -o "$T/whole"
    [ "$status" -eq 1 ]
    [ "$(wc -l <"$T/whole")" -eq 60 ]
    for order in "" -u; do
        rm -f "$T/out"
        apr batch "$MODEL" $order -P 4 -i "$T/in" -o "$T/out" 2>/dev/null &
        pid=$!
        for _ in $(seq 600); do
            [ "$(wc -l <"$T/out" 2>/dev/null || echo 0)" -lt 12 ] || break
            sleep 0.02
        done
        kill -9 $pid
        wait $pid || true
        [ "$(wc -l <"$T/out")" -lt 60 ]
        printf '{"index":59,"id":"r60","te' >>"$T/out" # as a kill inside a write leaves it
        run apr batch "$MODEL" $order -i "$T/in" -o "$T/out"
        [ "$status" -eq 2 ] # only on request
        run apr batch "$MODEL" $order -i "$T/in" -o "$T/out" --resume
        [ "$status" -eq 1 ]
        if [ -z "$order" ]; then cmp "$T/out" "$T/whole"; else cmp <(jq -c -s 'sort_by(.index)[]' "$T/out") <(jq -c . "$T/whole"); fi
    done
    run apr batch "$MODEL" -i "$T/in" -o "$T/out" --resume # nothing is left to do, the verdict is the same
    [ "$status" -eq 1 ]
    [ "$(wc -l <"$T/out")" -eq 60 ]
}

@test "--resume refuses results of other requests, and what is no result" {
    printf '%s\n' '{"id":"a","prompt":"x","max_tokens":1}' '{"id":"b","prompt":"y","max_tokens":1}' >"$T/in"
    apr batch "$MODEL" -i "$T/in" -o "$T/out"
    sed 's/"a"/"z"/' "$T/in" >"$T/other"
    run --separate-stderr apr batch "$MODEL" -i "$T/other" -o "$T/out" --resume
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"line 1: the results answer a request with another id"* ]]
    head -n 1 "$T/in" >"$T/short"
    run --separate-stderr apr batch "$MODEL" -i "$T/short" -o "$T/out" --resume
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"answer 1 lines that"* ]]
    cat "$T/out" "$T/out" >"$T/twice"
    run --separate-stderr apr batch "$MODEL" -i "$T/in" -o "$T/twice" --resume
    [ "$status" -eq 4 ]
    for text in hello '{"index":-1,"text":"x"}' '{"index":0}' '[]' '{"id":"batch_req_x","response":{"status_code":200}}'; do
        printf '%s\n' "$text" >"$T/bad"
        run --separate-stderr apr batch "$MODEL" -i "$T/in" -o "$T/bad" --resume
        [ "$status" -eq 4 ] || { echo "$text: $status"; false; }
        [ "$(cat "$T/bad")" = "$text" ]
    done
    run apr batch "$MODEL" -i "$T/in" -o "$T/new" --resume # there is nothing yet
    [ "$status" -eq 0 ]
    cmp "$T/new" "$T/out"
}

@test "shards: every line once, merged by index" {
    forty | head -n 25 >"$T/in"
    apr batch "$MODEL" -i "$T/in" >"$T/whole"
    for k in 1 2 3; do apr batch "$MODEL" --shard $k/3 -i "$T/in" -o "$T/part-$k"; done
    [ "$(cat "$T"/part-* | wc -l)" -eq 25 ]
    cmp <(jq -c -s 'sort_by(.index)[]' "$T"/part-*) <(jq -c . "$T/whole")
    for bad in 0/3 4/3 1 1/ /2 a/b 1/2/3 -1/2; do
        run apr batch "$MODEL" --shard=$bad -i "$T/in"
        [ "$status" -eq 2 ] || { echo "$bad: $status"; false; }
    done
}

@test "an open pipe: results come while more may follow" {
    mkfifo "$T/pipe"
    exec 7<>"$T/pipe"
    timeout 60 apr batch "$MODEL" <"$T/pipe" >"$T/out" 7>&- &
    pid=$!
    for i in 1 2 3; do
        echo "{\"id\":$i,\"prompt\":\"What is 2+2? Answer with just the number.\"}" >&7
        for _ in $(seq 500); do
            [ "$(wc -l <"$T/out")" -lt "$i" ] || break
            sleep 0.02
        done
        [ "$(wc -l <"$T/out")" -eq "$i" ]
    done
    printf '{"id":4,"prompt":"What is' >&7 # the end may lack its newline, and come in two pieces
    sleep 0.1
    printf ' 2+2? Answer with just the number."}' >&7
    exec 7>&-
    wait $pid
    [ "$(jq -s -c 'map([.id, .text])' "$T/out")" = '[[1,"4"],[2,"4"],[3,"4"],[4,"4"]]' ]
}

@test "SIGINT leaves whole lines and 130; a reader that goes away 141; a full disk 7" {
    for i in $(seq 300); do echo "{\"prompt\":\"Say $i.\",\"max_tokens\":40,\"ignore_eos\":true}"; done >"$T/in"
    # a shell's background job ignores SIGINT
    env --default-signal=INT apr batch "$MODEL" -i "$T/in" -o "$T/out" &
    pid=$!
    for _ in $(seq 600); do
        [ ! -s "$T/out" ] || break
        sleep 0.02
    done
    kill -INT $pid
    status=0
    wait $pid || status=$?
    [ "$status" -eq 130 ]
    [ "$(tail -c 1 "$T/out" | od -An -c | tr -d ' ')" = '\n' ]
    jq -e . "$T/out" >/dev/null
    run bash -c "timeout --preserve-status -s INT 1 apr batch '$MODEL' -i '$T/in' >/dev/null"
    [ "$status" -eq 130 ]
    run bash -c "apr batch '$MODEL' -i '$T/in' | head -n 1 >/dev/null; exit \${PIPESTATUS[0]}"
    [ "$status" -eq 141 ]
    run --separate-stderr bash -c "apr batch '$MODEL' -i '$T/in' >/dev/full"
    [ "$status" -eq 7 ]
    [[ "$stderr" == *"cannot write"* ]]
}

@test "hostile lines" {
    {
        printf '{"prompt":"caf\xc3'                                       # cut UTF-8, no end of the string
        printf '\n{"prompt":"caf\xc3"}\n'                                  # invalid UTF-8
        printf '{"prompt":"a\\u0000b"}\n'
        printf '{"prompt":%s1%s}\n' "$(printf '[%.0s' $(seq 5000))" "$(printf ']%.0s' $(seq 5000))"
        printf '{"prompt":"x","prompt":"y"}\n'                             # a key twice
        printf '[]\n42\n"x"\nnull\n'
        printf '{"prompt":"x","max_tokens":1e9,"stop":"e"}\n'              # to the context's end at most
        printf '{"id":"d","prompt":"x","max_tokens":1}\n{"id":"d","prompt":"x","max_tokens":1}\n'
        printf '{"prompt":"%s","max_tokens":1}\n' "$(head -c 200000 /dev/zero | tr '\0' x)" # longer than the context
        printf '{"messages":[{"role":"nobody","content":"x"}],"max_tokens":1}\n'
        printf '{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}\n'
        printf '{"prompt":"x","logit_bias":{"5":1e999}}\n{"prompt":"x","logit_bias":{"99999999":1}}\n'
        printf '\xef\xbb\xbf{"prompt":"x"}\n' # a mark that is only right at the beginning
        printf '{"prompt":"last","max_tokens":1}\r\n'
    } >"$T/in"
    run --separate-stderr timeout 120 apr batch "$MODEL" -i "$T/in"
    [ "$status" -eq 1 ]
    [ "$(jq -s 'length' <<<"$output")" -eq "$(wc -l <"$T/in")" ]
    [ "$(jq -s -c 'map(select(.error | not) | .index)' <<<"$output")" = '[9,10,11,13,18]' ] ||
        { jq -c '[.index, .error]' <<<"$output"; false; }
    # a line of more than 64 MiB is answered, not kept
    { printf '{"prompt":"'; head -c $((65 << 20)) /dev/zero | tr '\0' x; printf '"}\n{"prompt":"x","max_tokens":1}\n'; } >"$T/big"
    run --separate-stderr timeout 120 apr batch "$MODEL" -i "$T/big"
    [ "$status" -eq 1 ]
    [[ "$(jq -r .error.message <<<"${lines[0]}")" == *"64 MiB"* ]]
    [ "$(jq .usage.completion_tokens <<<"${lines[1]}")" -eq 1 ]
}

@test "inputs and outputs: statuses, --json, empty input" {
    run --separate-stderr apr batch "$MODEL" -i "$T/absent"
    [ "$status" -eq 3 ]
    run --separate-stderr apr batch "$MODEL" -i "$T"
    [ "$status" -ne 0 ]
    [ "$(apr batch "$MODEL" </dev/null | wc -c)" -eq 0 ]
    echo '{"prompt":"x","max_tokens":2}' >"$T/in"
    run apr batch "$MODEL" -i "$T/in" -o "$T/in" --force
    [ "$status" -eq 2 ]
    [ -s "$T/in" ]
    run apr batch - <"$T/in"
    [ "$status" -eq 2 ]
    run apr batch "$MODEL" --json -i "$T/in"
    [ "$status" -eq 2 ]
    run --separate-stderr apr batch "$MODEL" --json -i "$T/in" -o "$T/out"
    [ "$(jq -c '[.n_answered, .n_failed, .n_generated]' <<<"$output")" = '[1,0,2]' ]
    run apr batch "$MODEL" -i "$T/in" -o "$T/out"
    [ "$status" -eq 2 ]
    run apr batch "$MODEL" -i "$T/in" -o "$T/out" --force
    [ "$status" -eq 0 ]
    run apr batch "$MODEL" -i "$T/in" --parallel 0
    [ "$status" -eq 2 ]
    run apr batch "$MODEL" -i "$T/in" --timings
    jq -e '.timings | .prompt_s >= 0 and .decode_s >= 0' <<<"$output"
}

# ---- the examples of the manual: their commands are taken from it ------------------------------------------

# The commands of the manual that hold WORD, in $T with the model's name in place.
example() {
    apr batch --help | grep -F -A "${2:-0}" -e "$1" | sed "s|model\.apr|$ROOT/$MODEL|; s/^  //"
}

job_files() {
    forty | head -n 12 >"$T/requests.jsonl"
    apr batch "$MODEL" -i "$T/requests.jsonl" | jq -c . >"$T/want"
}

# The shards' results together are those of one process.
merged() {
    local merge
    merge=$(apr batch --help | grep -m 1 'jq -c -s')
    (cd "$T" && bash -c "$merge" && cmp results.jsonl want)
}

@test "example: xargs" {
    job_files
    command=$(example 'xargs -P')
    [ -n "$command" ]
    (cd "$T" && bash -c "$command")
    merged
}

@test "example: make, also after an interruption" {
    job_files
    mkdir "$T/requests" "$T/results"
    (cd "$T/requests" && split -l 4 --additional-suffix=.jsonl ../requests.jsonl)
    example 'all: ' 1 >"$T/Makefile"
    [ "$(grep -c apr "$T/Makefile")" -eq 1 ]
    apr batch "$MODEL" -i <(head -n 2 "$T/requests/xab.jsonl") -o "$T/results/xab.jsonl.part"
    (cd "$T" && make -s -j 2)
    cmp <(cat "$T"/results/*.jsonl | jq -c 'del(.index)') <(jq -c 'del(.index)' "$T/want")
    [ "$(find "$T/results" -name '*.part' | wc -l)" -eq 0 ]
    echo '{"prompt":3}' >"$T/requests/bad.jsonl"
    run make -s -C "$T"
    [ "$status" -ne 0 ]
    [ ! -e "$T/results/bad.jsonl" ]
}

@test "example: GNU parallel" {
    parallel --version 2>/dev/null | grep -q GNU || skip "GNU parallel is not installed"
    job_files
    (cd "$T" && bash -c "$(example 'parallel -j')")
    merged
    (cd "$T" && bash -c "$(example 'parallel -k')")
    cmp <(jq -c 'del(.index)' "$T/results.jsonl") <(jq -c 'del(.index)' "$T/want")
}

# sbatch that runs the tasks of an array here, one after the other.
make_sbatch() {
    mkdir "$T/slurm"
    cat >"$T/slurm/sbatch" <<'END'
#!/bin/bash
while [ $# -gt 0 ]; do
    case $1 in
    --array=1-*) n=${1#--array=1-} ;;
    --wrap) shift; wrapped=$1 ;;
    esac
    shift
done
for ((i = 1; i <= n; i++)); do SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_TASK_COUNT=$n bash -c "$wrapped" || exit; done
END
    chmod +x "$T/slurm/sbatch"
}

@test "example: a Slurm array, its tasks one by one" {
    job_files
    make_sbatch
    (cd "$T" && PATH=$T/slurm:$PATH bash -c "$(example 'sbatch --array' 1)")
    [ "$(find "$T" -name 'part-*.jsonl' | wc -l)" -eq 8 ]
    merged
}

@test "example: a Slurm array in a cluster" {
    command -v sbatch >/dev/null || skip "Slurm is not installed"
    job_files
    (cd "$T" && bash -c "$(example 'sbatch --array' 1 | sed 's/sbatch/sbatch --wait/')")
    [ "$(cat "$T"/part-*.jsonl | wc -l)" -eq 12 ]
}
