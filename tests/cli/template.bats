#!/usr/bin/env bats
# apr template: chat templates rendered for a conversation in JSON.
bats_require_minimum_version 1.5.0

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    apr=${APR_BIN:-bin}/apr
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
