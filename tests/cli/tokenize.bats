#!/usr/bin/env bats
# apr tokenize: the fixed spellings, every byte kept, and the way back.

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    apr=${BINDIR:-bin}/apr
    demo=tests/data/apr-demo-8M-Instruct
    golden=tests/data/apr-demo-golden/tokenizer.json
    shared=${APR_SHARED:-../shared}
    tmp=$BATS_TEST_TMPDIR
}

@test "tokenize: a text as one line of ids, or as JSON" {
    run "$apr" tokenize "$demo" 'Hello, world!'
    [ "$status" -eq 0 ]
    [ "$output" = '1758 11 1782 0' ]
    run "$apr" tokenize "$demo" 'Hello, world!' --json
    [ "$status" -eq 0 ]
    [ "$output" = '{"schema":"apr.tokenize/1","ids":[1758,11,1782,0]}' ]
    run "$apr" tokenize "$demo" '' --json
    [ "$output" = '{"schema":"apr.tokenize/1","ids":[]}' ]
}

@test "tokenize: every reference text from a file and from a pipe, and back" {
    n=$(jq length "$golden")
    [ "$n" -eq 25 ]
    for ((i = 0; i < n; i++)); do
        jq -j ".[$i].text" "$golden" > "$tmp/text"
        jq -c ".[$i].ids" "$golden" > "$tmp/want"
        jq -j ".[$i].decoded" "$golden" > "$tmp/decoded"
        "$apr" tokenize "$demo" -f "$tmp/text" --json | jq -c .ids | cmp - "$tmp/want"
        "$apr" tokenize "$demo" -f - < "$tmp/text" | "$apr" tokenize "$demo" --decode - | cmp - "$tmp/decoded"
    done
}

@test "tokenize: the last line end of a file is kept" {
    printf 'a\n' > "$tmp/text"
    [ "$("$apr" tokenize "$demo" -f "$tmp/text")" = '64 198' ]
    printf 'a' > "$tmp/text"
    [ "$("$apr" tokenize "$demo" -f "$tmp/text")" = '64' ]
    "$apr" tokenize "$demo" --decode 64,198 > "$tmp/back"
    printf 'a\n' | cmp - "$tmp/back"
}

@test "tokenize: special tokens are parsed unless --no-special" {
    [ "$("$apr" tokenize "$demo" '<|im_start|>')" = 4001 ]
    ids=$("$apr" tokenize "$demo" --no-special '<|im_start|>')
    [ "$ids" != 4001 ]
    [ "$("$apr" tokenize "$demo" --decode "${ids// /,}")" = '<|im_start|>' ]
    [ "$("$apr" tokenize "$demo" --decode 4001,64)" = '<|im_start|>a' ]
    [ "$("$apr" tokenize "$demo" --decode 4001,64 --no-special)" = a ]
}

@test "tokenize: a text that begins with a dash follows --" {
    [ "$("$apr" tokenize "$demo" -- '-x')" = "$(printf %s -x | "$apr" tokenize "$demo" -f -)" ]
}

@test "tokenize: a folder with tokenizer files only" {
    cp "$demo"/tokenizer.json "$demo"/tokenizer_config.json "$tmp"
    [ "$("$apr" tokenize "$tmp" 'Hello, world!')" = '1758 11 1782 0' ]
    rm "$tmp/tokenizer.json"
    cp "$demo"/vocab.json "$demo"/merges.txt "$tmp"
    [ "$("$apr" tokenize "$tmp" 'Hello, world!<|im_end|>')" = '1758 11 1782 0 4002' ]
}

@test "tokenize: --decode --json" {
    run "$apr" tokenize "$demo" --decode 64,198 --json
    [ "$output" = '{"schema":"apr.tokenize/1","text":"a\n"}' ]
}

@test "tokenize: faults have one line and the right status" {
    expect() { # status, pattern, arguments
        local want=$1 pattern=$2
        shift 2
        run "$apr" tokenize "$@"
        [ "$status" -eq "$want" ] && [ "${#lines[@]}" -eq 1 ] && [[ $output =~ $pattern ]] ||
            { echo "tokenize $*: $status: $output"; return 1; }
    }
    expect 4 'token id 9999 is outside' "$demo" --decode 9999
    expect 2 'no token id' "$demo" --decode 1,x
    expect 2 'no token id' "$demo" --decode=-1
    expect 2 'no token id' "$demo" --decode 99999999999
    expect 2 'expected one of' "$demo"
    expect 2 'expected one of' "$demo" text -f file
    expect 2 'tokenizer.json says' "$demo" text --pre gpt-2
    expect 2 'add-special' "$demo" --decode 1 --add-special
    expect 2 'no-such-option' "$demo" text --no-such-option
    expect 3 'no/such/folder' no/such/folder text
    expect 3 'no/such/file' "$demo" -f no/such/file
    printf '{"model":{' > "$tmp/tokenizer.json"
    expect 4 'tokenizer.json: byte 10' "$tmp" text
    head -c 100000 /dev/zero > "$tmp/zeros"
    expect 4 'zeros' "$tmp/zeros" text
}

@test "tokenize: a full disk is seen" {
    run sh -c "'$apr' tokenize '$demo' text > /dev/full"
    [ "$status" -eq 7 ]
}

@test "tokenize: GGUF as a model, as a vocabulary, from a pipe" {
    [ -d "$shared/fixtures" ] || skip "$shared/fixtures is missing"
    for f in demo-bf16 demo-Q4_K_M; do
        [ "$("$apr" tokenize "$shared/fixtures/gguf/$f.gguf" 'Hello, world!<|im_end|>')" = '1758 11 1782 0 4002' ]
    done
    [ "$("$apr" tokenize - 'Hello, world!' < "$shared/fixtures/gguf/demo-Q8_0.gguf")" = '1758 11 1782 0' ]
    [ "$("$apr" tokenize "$shared/fixtures/vocab/ggml-vocab-qwen2.gguf" 'Hello world')" = '9707 1879' ]
    [ "$("$apr" tokenize "$shared/fixtures/vocab/ggml-vocab-llama-bpe.gguf" --add-special 'Hello world')" = '128000 9906 1917' ]
    [ "$("$apr" tokenize "$shared/fixtures/vocab/ggml-vocab-qwen2.gguf" --pre gpt-2 ' 33')" = '220 18 18' ]
    run "$apr" tokenize "$shared/fixtures/vocab/ggml-vocab-qwen2.gguf" --pre no-such x
    [ "$status" -eq 2 ]
    [[ $output == *'--pre no-such: no pre-tokenizer of this name'* ]]
}
