#!/usr/bin/env bats
# Tokenizers of every kind through the command line: folders, model files alone, .apr and GGUF agree.

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    PATH=${BINDIR:-$PWD/bin}:$PATH
    shared=${APR_SHARED:-../shared}
    data=tests/data/tokenizers
    tmp=$BATS_TEST_TMPDIR
}

fixtures() { [ -d "$shared/fixtures" ] || skip "$shared/fixtures is missing"; }

# Every probe of a list of {text, ids, decoded}, from MODEL.
probes() { # MODEL LIST
    local i n
    n=$(jq length "$2")
    [ "$n" -gt 5 ] || return 1
    for ((i = 0; i < n; i++)); do
        jq -j ".[$i].text" "$2" >"$tmp/text"
        jq -c ".[$i].ids" "$2" >"$tmp/want"
        apr tokenize "$1" --add-special -f "$tmp/text" --json | jq -c .ids | cmp - "$tmp/want" || return 1
        jq -j ".[$i].decoded" "$2" >"$tmp/decoded"
        apr tokenize "$1" --decode "$(jq -r ".[$i].ids|join(\",\")" "$2")" | cmp - "$tmp/decoded" || return 1
    done
}

@test "tokenizers: a folder with tokenizer.model alone" {
    mkdir "$tmp/m"
    cp "$data"/spm.model "$tmp/m/tokenizer.model"
    echo '{"bos_token":"<s>","add_bos_token":true}' >"$tmp/m/tokenizer_config.json"
    probes "$tmp/m" "$data"/spm.json
}

@test "tokenizers: WordPiece from tokenizer.json and from vocab.txt" {
    mkdir "$tmp/j" "$tmp/v"
    cp "$data"/bert.json "$tmp/j/tokenizer.json"
    jq -r '.model.vocab | to_entries | sort_by(.value)[].key' "$data"/bert.json >"$tmp/v/vocab.txt"
    probes "$tmp/j" "$data"/bert-golden.json
    probes "$tmp/v" "$data"/bert-golden.json
}

@test "tokenizers: special tokens only where they are allowed" {
    mkdir "$tmp/m"
    cp "$data"/spm.model "$tmp/m/tokenizer.model"
    [ "$(apr tokenize "$tmp/m" '<s>')" = 1 ]
    ids=$(apr tokenize "$tmp/m" --no-special '<s>')
    for id in $ids; do [ "$id" -gt 2 ]; done
    [ "$(apr tokenize "$tmp/m" --decode "${ids// /,}")" = '<s>' ]
    [ "$(apr tokenize "$tmp/m" --decode 1,2 --no-special)" = '' ]
}

@test "tokenizers: a broken model file has one line and status 4" {
    mkdir "$tmp/m"
    head -c 3000 "$data"/spm.model >"$tmp/m/tokenizer.model"
    run apr tokenize "$tmp/m" x
    [ "$status" -eq 4 ]
    [ "${#lines[@]}" -eq 1 ]
    [[ $output == *'tokenizer.model'* ]]
    : >"$tmp/m/tokenizer.model"
    run apr tokenize "$tmp/m" x
    [ "$status" -eq 4 ]
    [[ $output == *'no pieces'* ]]
}

@test "tokenizers: what cannot be run is refused by name" {
    jq '.pre_tokenizer = {"type": "UnicodeScripts"}' "$data"/bert.json >"$tmp/tokenizer.json"
    run apr tokenize "$tmp" x
    [ "$status" -eq 6 ]
    [[ $output == *'$.pre_tokenizer: "UnicodeScripts" is not supported'* ]]
}

# The other families' probes are in tests/unit/test_tok_shared.c.
@test "tokenizers: a family's probes from the folder and from the .apr made of it" {
    fixtures
    jq -c .tokens "$shared/fixtures/families/whisper/golden.json" >"$tmp/list"
    probes "$shared/fixtures/families/whisper" "$tmp/list"
    for name in llama2 bert; do
        dir=$shared/fixtures/families/$name
        apr-import st "$dir" -q -o "$tmp/$name.apr"
        jq -c .tokens "$dir/golden.json" >"$tmp/list"
        probes "$tmp/$name.apr" "$tmp/list"
    done
}

@test "tokenizers: a folder rebuilt from a GGUF tokenizes as the GGUF does" {
    fixtures
    for name in llama2 gemma phi3; do
        gguf=$shared/fixtures/gguf/$name-bf16.gguf
        apr-export st "$gguf" -q -o "$tmp/$name"
        for text in 'Hello, world!' '  a  b' $'naïve\n— 日本 🙂' '<s>x</s>'; do
            printf %s "$text" >"$tmp/text"
            want=$(apr tokenize "$gguf" --add-special -f "$tmp/text")
            [ "$(apr tokenize "$tmp/$name" --add-special -f "$tmp/text")" = "$want" ]
        done
    done
}

@test "tokenizers: the same ids as llama-tokenize's" {
    [ -n "${APR_PEER_BIN:-}" ] || skip "APR_PEER_BIN is not set: no llama-tokenize to compare with"
    fixtures
    vocab=$shared/fixtures/vocab/ggml-vocab-qwen2.gguf
    run scripts/bench-tokenizer "$vocab" "$shared/fixtures/tokenizers/texts/markdown.txt" "$APR_PEER_BIN" 1
    [ "$status" -eq 0 ]
    [[ $output == *'ids: the same'* ]]
}

@test "tokenizers: a megabyte without an end of a word" {
    mkdir "$tmp/m" "$tmp/j"
    cp "$data"/spm.model "$tmp/m/tokenizer.model"
    cp "$data"/bert.json "$tmp/j/tokenizer.json"
    for c in a ' ' 7; do
        head -c 1000000 /dev/zero | tr '\0' "$c" >"$tmp/text"
        for model in "$tmp/m" "$tmp/j" tests/data/apr-demo-8M-Instruct; do
            timeout 60 apr tokenize "$model" -f "$tmp/text" >/dev/null
        done
    done
}
