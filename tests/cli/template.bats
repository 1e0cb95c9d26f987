#!/usr/bin/env bats
# shellcheck disable=SC2154 # stderr is set by run --separate-stderr
# apr template: chat templates rendered for a conversation in JSON.
bats_require_minimum_version 1.5.0

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    bin=${APR_BIN:-${BINDIR:-bin}} apr=$bin/apr
    demo=tests/data/apr-demo-8M-Instruct
    tmp=$BATS_TEST_TMPDIR
}

# Writes a template; its text follows on standard input.
template() { cat > "$tmp/t.jinja"; }

@test "template: the model's own template, messages as an array" {
    printf '%s\n' '<|im_start|>system' \
        'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>' \
        '<|im_start|>user' 'Hi<|im_end|>' '<|im_start|>assistant' > "$tmp/want"
    echo '[{"role":"user","content":"Hi"}]' | "$apr" template "$demo" > "$tmp/got"
    cmp "$tmp/got" "$tmp/want"
    echo '{"messages":[{"role":"user","content":"Hi"}],"add_generation_prompt":true}' > "$tmp/c.json"
    "$apr" template "$demo" --context "$tmp/c.json" | cmp - "$tmp/want"
}

@test "template: tools are rendered" {
    echo '{"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"f","x":[1,2.0,null]}}]}' |
        "$apr" template "$demo" > "$tmp/got"
    grep -F '{"type": "function", "function": {"name": "f", "x": [1, 2.0, null]}}' "$tmp/got"
}

@test "template: --json tells which bytes came from the conversation" {
    echo '[{"role":"user","content":"<|im_end|>"}]' | "$apr" template "$demo" --json > "$tmp/got"
    [ "$(jq -r .schema "$tmp/got")" = apr.template/1 ]
    [ "$(jq -c '[.pieces[] | select(.from_data) | .text]' "$tmp/got")" = '["user","<|im_end|>"]' ]
    [ "$(jq '([.pieces[].text] | join("")) == .text' "$tmp/got")" = true ]
}

@test "template: special tokens are the model's unless the context has its own" {
    template <<< '{{ eos_token }}{{ bos_token }}'
    run "$apr" template --template-file "$tmp/t.jinja" <<< '{"eos_token":"E","bos_token":"B"}'
    [ "$status" -eq 0 ]
    [ "$output" = EB ]
    run "$apr" template --template-file "$tmp/t.jinja" --json <<< '{"eos_token":"E","bos_token":"B"}'
    [ "$(jq -c '[.pieces[].from_data]' <<< "$output")" = '[false]' ]
    cp "$demo/tokenizer.json" "$tmp"
    jq '.chat_template = "{{ eos_token }}|{{ x }}"' "$demo/tokenizer_config.json" > "$tmp/tokenizer_config.json"
    run "$apr" template "$tmp" <<< '{"x":1}'
    [ "$output" = "$(jq -r .eos_token "$demo/tokenizer_config.json")|1" ]
    run "$apr" template "$tmp" <<< '{"x":1,"eos_token":"mine"}'
    [ "$output" = 'mine|1' ]
}

@test "template: a template that refuses ends with its message and status 5" {
    template <<< "{{ raise_exception('Roles must alternate, found ' ~ x) }}"
    run "$apr" template --template-file "$tmp/t.jinja" <<< '{"x":"two"}'
    [ "$status" -eq 5 ]
    [ "$output" = 'apr-infer: Roles must alternate, found two' ]
    run --separate-stderr "$apr" template --template-file "$tmp/t.jinja" --json <<< '{"x":"two"}'
    [ "$status" -eq 5 ]
    [ -z "$output" ]
}

@test "template: what goes wrong is one line with the template's line" {
    template <<< $'a\n{{ x.y.z }}'
    run "$apr" template --template-file "$tmp/t.jinja" <<< '{"x":{}}'
    [ "$status" -eq 5 ]
    [ "$output" = "apr-infer: template: line 2: 'dict object' has no attribute 'y'" ]
    template <<< '{% if x %}'
    run "$apr" template --template-file "$tmp/t.jinja" <<< '{}'
    [ "$status" -eq 5 ]
    [ "${#lines[@]}" -eq 1 ]
    template <<< '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'
    run timeout 20 "$apr" template --template-file "$tmp/t.jinja" <<< '{}'
    [ "$status" -eq 5 ]
    [[ "$output" == *'too many steps'* ]]
}

@test "template: --now sets the clock" {
    template <<< "{{ strftime_now('%d %b %Y, %H:%M') }}"
    run "$apr" template --template-file "$tmp/t.jinja" --now 2026-02-10T12:00:00 <<< '{}'
    [ "$output" = '10 Feb 2026, 12:00' ]
    run "$apr" template --template-file "$tmp/t.jinja" --now yesterday <<< '{}'
    [ "$status" -eq 2 ]
    [[ "$output" == *'--now: "yesterday" is no time'* ]]
}

@test "template: bad contexts, bad usage, nothing to render" {
    template <<< 'x'
    run "$apr" template --template-file "$tmp/t.jinja" <<< '{"a":1'
    [ "$status" -eq 4 ]
    [[ "$output" == *'standard input: line'* ]]
    run "$apr" template --template-file "$tmp/t.jinja" <<< '5'
    [ "$status" -eq 4 ]
    run "$apr" template <<< '{}'
    [ "$status" -eq 2 ]
    run "$apr" template "$demo" --template-file "$tmp/t.jinja" <<< '{}'
    [ "$status" -eq 2 ]
    run "$apr" template --template-file - <<< 'x'
    [ "$status" -eq 2 ]
    run "$apr" template --template-file "$tmp/absent" <<< '{}'
    [ "$status" -eq 3 ]
    run "$apr" template "$tmp/absent" <<< '{}'
    [ "$status" -eq 3 ]
    mkdir "$tmp/m"
    cp "$demo/tokenizer.json" "$tmp/m"
    run "$apr" template "$tmp/m" <<< '{}'
    [ "$status" -eq 3 ]
    [[ "$output" == *'no chat template'* ]]
}

@test "template: --source prints the template, which renders the same from a file" {
    "$apr" template "$demo" --source > "$tmp/own.jinja"
    [ "$(jq -j .chat_template "$demo/tokenizer_config.json" | sha256sum)" = "$(sha256sum < "$tmp/own.jinja")" ]
    echo '[{"role":"user","content":"Hi"}]' > "$tmp/c.json"
    cmp <("$apr" template "$demo" -c "$tmp/c.json") <("$apr" template --template-file "$tmp/own.jinja" -c "$tmp/c.json")
}

@test "template: a full disk is an error" {
    [ -w /dev/full ] || skip "no /dev/full"
    echo '[{"role":"user","content":"Hi"}]' > "$tmp/c.json"
    run bash -c '"$0" template "$1" -c "$2" > /dev/full' "$apr" "$demo" "$tmp/c.json"
    [ "$status" -eq 7 ]
}

# Nothing in tests/bad/templates may take long, take much memory, or print anything: 2 CPU seconds and 400 MB of
# address space are given (not under a sanitizer, which needs more of both). A template that loops is ended by steps.
@test "template: bombs and malformed templates end with status 5 and one line, soon, in bounded memory" {
    local limits='ulimit -t 2; ulimit -v 400000' n=0 f
    ! grep -q __asan_init "$bin/apr-infer" || limits=:
    for f in tests/bad/templates/*.jinja; do
        run --separate-stderr bash -c "$limits"'; echo "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}" | timeout 60 "$0" template --template-file "$1"' "$apr" "$f"
        [ "$status" -eq 5 ] && [ -z "$output" ] && [ "${#stderr_lines[@]}" -eq 1 ] && [[ "$stderr" == 'apr-infer: '* ]] || {
            echo "$f: $status ${output:0:80} ${stderr:0:200}"
            false
        }
        n=$((n + 1))
    done
    [ "$n" -ge 100 ]
}

@test "template: what ends a bomb is named" {
    while read -r name message; do
        run "$apr" template --template-file "tests/bad/templates/$name.jinja" <<< '{"messages":[]}'
        [ "$status" -eq 5 ]
        [[ "$output" == *"$message"* ]] || {
            echo "$name: $output"
            false
        }
    done << 'X'
loops_nested the template takes too many steps
string_times text longer than 67108864 bytes
range_huge range too big, the maximum is 100000
macro_recursion macros nested too deeply (64 calls)
loop_recursive loops nested too deeply (64 calls)
nested_ifs blocks nested too deeply (64 levels)
nested_parens brackets nested too deeply
chain_plus an expression is nested too deeply (256 levels)
power integer outside 64 bits
list_times a list is too long
bad_dunder is unsafe
bad_include a chat template cannot read other templates
compare_long the template takes too many steps
truncate_many the template takes too many steps
strip_chars the template takes too many steps
rfind_quadratic substring not found
X
}

@test "template: what is cut and found from the right is Python's" {
    template <<< "{{ 'abcabcab'.rfind('cab') }} {{ ('ab' * 50).rfind('ab' * 20 ~ 'a') }} {{ ('xy' * 50 ~ 'z').rfind('y' ~ 'xy' * 30) }} {{ ('ab' * 9).rfind('ab' * 10) }}
{{ ('-' * 20 ~ 'a' ~ '-' * 20 ~ 'b').rsplit('-' * 20, 1) }} {{ 'aXXbXXc'.rpartition('XX') }} {{ '  a b  '.strip() }}|{{ 'xxaxbxx'.strip('x') }}|{{ 'é é'.rfind('é') }}"
    run "$apr" template --template-file "$tmp/t.jinja" <<< '{}'
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = "5 58 39 -1" ]
    [ "${lines[1]}" = "['--------------------a', 'b'] ('aXXb', 'XX', 'c') a b|axb|2" ]
}

# A folder like the demonstration model's, its template replaced by what jq makes of it; $1 is the folder.
templates() {
    mkdir -p "$1"
    for f in "$demo"/*; do ln -sf "$PWD/$f" "$1/"; done
    rm "$1/tokenizer_config.json"
    jq "$2" "$demo/tokenizer_config.json" > "$1/tokenizer_config.json"
}

@test "template: named templates are read, carried by .apr and GGUF, and chosen by name" {
    templates "$tmp/m" '.chat_template = [{name: "default", template: "D:{{ messages[0].content }}"}, {name: "tool_use", template: "T:{{ messages[0].content }}"}]'
    mkdir "$tmp/m/additional_chat_templates"
    printf 'R:{{ messages[0].content }}' > "$tmp/m/additional_chat_templates/rag.jinja"
    printf 'the list in tokenizer_config.json wins' > "$tmp/m/additional_chat_templates/tool_use.jinja"
    printf 'no template' > "$tmp/m/additional_chat_templates/notes.txt"
    "$apr" import "$tmp/m" -q -o "$tmp/a.apr"
    "$apr" export "$tmp/a.apr" --format gguf -q -o "$tmp/a.gguf"
    "$apr" convert "$tmp/a.gguf" -q -o "$tmp/b.apr"
    "$apr" export "$tmp/b.apr" --format safetensors -q -o "$tmp/st"
    for m in m a.apr a.gguf b.apr st; do
        for pair in default=D tool_use=T rag=R; do
            run "$apr" template "$tmp/$m" --template-name "${pair%=*}" <<< '[{"role":"user","content":"Hi"}]'
            [ "$status" -eq 0 ]
            [ "$output" = "${pair#*=}:Hi" ]
            [ "$("$apr" template "$tmp/$m" --template-name "${pair%=*}" --source)" = "${pair#*=}:{{ messages[0].content }}" ]
        done
        [ "$("$apr" template "$tmp/$m" <<< '[{"role":"user","content":"Hi"}]')" = D:Hi ]
        # as in transformers: tools take the template for tools
        [ "$("$apr" template "$tmp/$m" <<< '{"messages":[{"role":"user","content":"Hi"}],"tools":[{}]}')" = T:Hi ]
        [ "$("$apr" template "$tmp/$m" <<< '{"messages":[{"role":"user","content":"Hi"}],"tools":[]}')" = D:Hi ]
        [ "$("$apr" inspect "$tmp/$m" --vocab --json | jq -c .vocab.named_chat_templates)" = '["tool_use","rag"]' ]
    done
    run "$apr" template "$tmp/a.gguf" --template-name rags <<< '[]'
    [ "$status" -eq 2 ]
    [[ "$output" == *'no chat template named "rags"; --template-name takes one of: default, tool_use, rag' ]]
    cmp <("$apr" import "$tmp/m" -q -o - | "$bin/apr-export" gguf -q) "$tmp/a.gguf"
}

@test "template: names in GGUF are those of llama.cpp's converter" {
    templates "$tmp/m" '.chat_template = {default: "D", "my tool-use": "T"}'
    "$apr" export "$tmp/m" --format gguf -q -o "$tmp/a.gguf"
    run grep -aoE 'tokenizer\.chat_template[a-z_.]*' "$tmp/a.gguf"
    [ "$output" = $'tokenizer.chat_template.my_tool_use\ntokenizer.chat_templates\ntokenizer.chat_template' ]
    [ "$("$apr" template "$tmp/a.gguf" --template-name my_tool_use <<< '[]')" = T ]
}

@test "template: chat_template.jinja, chat_template.json, templates without a default one, templates that are none" {
    templates "$tmp/a" 'del(.chat_template)'
    printf 'J' > "$tmp/a/chat_template.jinja"
    [ "$("$apr" template "$tmp/a" <<< '[]')" = J ]
    templates "$tmp/b" 'del(.chat_template)'
    echo '{"chat_template": "B"}' > "$tmp/b/chat_template.json"
    [ "$("$apr" template "$tmp/b" <<< '[]')" = B ]
    templates "$tmp/c" '.chat_template = [{name: "rag", template: "R"}]'
    run "$apr" template "$tmp/c" <<< '[]'
    [ "$status" -eq 5 ]
    [[ "$output" == *'no default chat template; --template-name takes one of: rag' ]]
    run "$apr" run "$tmp/c" -p Hi
    [ "$status" -eq 5 ]
    [ "$("$apr" template "$tmp/c" --template-name rag <<< '[]')" = R ]
    for bad in '[{name: "a"}]' '[{template: "x"}]' '[5]' '{a: 5}' '[{name: "", template: "x"}]' '[{name: "a-b", template: "x"}, {name: "a_b", template: "x"}]' \
        '[range(40) | {name: "t\(.)", template: "x"}]' '[{name: "\u00e9", template: "x"}]'; do
        rm -rf "$tmp/d"
        templates "$tmp/d" ".chat_template = $bad"
        run "$apr" template "$tmp/d" <<< '[]'
        [ "$status" -eq 4 ] || {
            echo "$bad: $status $output"
            false
        }
    done
}

@test "run: --template-name; a model without a template gets a format that standard error names" {
    templates "$tmp/m" '.chat_template = [{name: "default", template: "{{ 1 // 0 }}"}, {name: "rag", template: "{{ messages[0].content }}"}]'
    run "$apr" run "$tmp/m" -p Hi -n 2 --template-name rag
    [ "$status" -eq 0 ]
    run "$apr" run "$tmp/m" -p Hi -n 2
    [ "$status" -eq 5 ]
    run "$apr" run "$tmp/m" -p Hi -n 2 --template-name tool_use
    [ "$status" -eq 2 ]
    run "$apr" run "$tmp/m" -p Hi -n 2 --template-name rag --raw
    [ "$status" -eq 2 ]
    templates "$tmp/n" 'del(.chat_template)'
    run --separate-stderr "$apr" run "$tmp/n" -p Hi -n 2
    [ "$status" -eq 0 ]
    [[ "$stderr" == *'has no chat template: using the format ChatML'* ]]
}
