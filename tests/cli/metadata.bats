#!/usr/bin/env bats
# --set, --model-name, --pre, --chat-template, --tokenizer and --metadata; the model card in GGUF keys.
# shellcheck disable=SC2086 # lists of options, and a path without spaces

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    T=$BATS_TEST_TMPDIR
}

key() { tests/tools/gguf-manifest "$1" | jq -r --arg k "$2" '.kv[] | select(.key == $k) | .value // .length'; }

@test "import --set: in the .apr's metadata, in the GGUF's keys, and through a conversion" {
    apr import $MODEL -q --set license=mit --set "tags=a, b" --set description='A "test"' --set author=Me --set version=2.1 \
        --set base_model=org/Base-1B --set custom.run=7 --model-name "My Demo" -o "$T/a.apr"
    apr convert "$T/a.apr" --quantize q8_0 -q -o "$T/b.apr"
    for m in a b; do
        apr inspect "$T/$m.apr" --json |
            jq -e '.metadata | .name == "My Demo" and .license == "mit" and .description == "A \"test\"" and .author == "Me" and .version == "2.1"'
        [ "$(apr inspect "$T/$m.apr" --json | jq -r .metadata.custom.run)" = 7 ]
        apr export "$T/$m.apr" --format gguf -q -o "$T/$m.gguf"
        [ "$(key "$T/$m.gguf" general.name)" = "My Demo" ]
        [ "$(key "$T/$m.gguf" general.license)" = mit ]
        [ "$(key "$T/$m.gguf" general.description)" = 'A "test"' ]
        [ "$(key "$T/$m.gguf" general.version)" = 2.1 ]
        [ "$(key "$T/$m.gguf" general.tags)" = 3 ] # with the pipeline tag of the card
        [ "$(key "$T/$m.gguf" general.base_model.0.repo_url)" = https://huggingface.co/org/Base-1B ]
    done
}

@test "a model whose keys come from a GGUF: set and written back, all other keys kept" {
    apr export $MODEL --format gguf -q --no-provenance -o "$T/a.gguf"
    apr import "$T/a.gguf" -q --set license=mit --set tags=x,y,z --model-name Other --pre llama-bpe -o "$T/b.apr"
    apr export "$T/b.apr" --format gguf -q --no-provenance -o "$T/b.gguf"
    [ "$(key "$T/b.gguf" general.name)" = Other ]
    [ "$(key "$T/b.gguf" general.license)" = mit ]
    [ "$(key "$T/b.gguf" general.tags)" = 3 ]
    [ "$(key "$T/b.gguf" tokenizer.ggml.pre)" = llama-bpe ]
    tests/tools/gguf-manifest "$T/a.gguf" >"$T/a.json"
    run tests/tools/gguf-manifest "$T/b.gguf" --against "$T/a.json" --skip general.name,general.license,general.tags,tokenizer.ggml.pre
    echo "$output"
    [ "$status" -eq 0 ]
    run apr import "$T/a.gguf" --set base_model=org/x -o "$T/x.apr"
    [ "$status" -eq 2 ]
}

@test "--chat-template is what the model then speaks" {
    printf '{%% for m in messages %%}<%s>{{ m.content }}{%% endfor %%}' turn >"$T/t.jinja"
    apr import $MODEL -q --chat-template "$T/t.jinja" -o "$T/a.apr"
    [ "$(apr template "$T/a.apr" <<<'{"messages":[{"role":"user","content":"hi"}]}')" = '<turn>hi' ]
    apr export $MODEL --format gguf -q --chat-template "$T/t.jinja" -o "$T/a.gguf"
    [ "$(key "$T/a.gguf" tokenizer.chat_template)" = "$(cat "$T/t.jinja")" ]
    printf '\377' >"$T/bad"
    run apr import $MODEL --chat-template "$T/bad" -o "$T/x.apr"
    [ "$status" -eq 4 ]
    run apr import $MODEL --chat-template "$T/none" -o "$T/x.apr"
    [ "$status" -eq 3 ]
    [ ! -e "$T/x.apr" ]
}

@test "--tokenizer: from a folder, a tokenizer.json and a model; one that does not fit is refused" {
    mkdir "$T/bare" "$T/tok"
    cp $MODEL/config.json $MODEL/*.safetensors "$T/bare"
    cp $MODEL/model.safetensors.index.json "$T/bare"
    cp $MODEL/tokenizer.json $MODEL/tokenizer_config.json "$T/tok"
    apr import $MODEL -q -o "$T/want.apr"
    for from in "$T/tok" "$T/tok/tokenizer.json" "$T/want.apr"; do
        apr import "$T/bare" -q --tokenizer "$from" --force -o "$T/a.apr"
        diff <(apr tokenize "$T/want.apr" 'Hello, world <|im_end|>') <(apr tokenize "$T/a.apr" 'Hello, world <|im_end|>')
        apr export "$T/a.apr" --format gguf -q --force -o "$T/a.gguf"
        [ "$(key "$T/a.gguf" tokenizer.ggml.tokens)" = 4096 ]
    done
    tests/tools/break-model vocab $MODEL "$T/vocab"
    run apr import $MODEL --tokenizer "$T/vocab" -o "$T/x.apr"
    echo "$output"
    [ "$status" -eq 5 ]
    run apr import $MODEL --tokenizer "$T/none" -o "$T/x.apr"
    [ "$status" -eq 3 ]
    [ ! -e "$T/x.apr" ]
}

@test "export --metadata: types of known keys stay, new ones follow the value" {
    cat >"$T/k.json" <<<'{"general.name":"J","general.sampling.temp":1,"general.sampling.top_k":3,"x.list":["a","b"],"x.on":true,"x.f":0.5,"x.big":5000000000}'
    apr export $MODEL --format gguf --metadata "$T/k.json" -q -o "$T/a.gguf"
    tests/tools/gguf-manifest "$T/a.gguf" | jq -c '[.kv[] | select(.key | test("^x\\.|general.name|temp$|top_k")) | [.key, .type, .value // .length]] | sort' >"$T/got"
    cat "$T/got"
    jq -e '. == [["general.name","string","J"],["general.sampling.temp","float32",1],["general.sampling.top_k","int32",3],
        ["x.big","int64",5000000000],["x.f","float32",0.5],["x.list","array",2],["x.on","bool",true]]' "$T/got"
    [ "$(tests/tools/gguf-manifest "$T/a.gguf" | jq -r '.kv[-1].key')" = apr.provenance ]
    while read -r want json; do
        echo "$json" >"$T/bad.json"
        run apr export $MODEL --format gguf --metadata "$T/bad.json" -o "$T/x.gguf"
        echo "$json: $output"
        [ "$status" -eq "$want" ] && [ "$(wc -l <<<"$output")" -eq 1 ] && [ ! -e "$T/x.gguf" ]
    done <<'EOF'
2 {"general.architecture":"llama"}
2 {"tokenizer.ggml.tokens":["a"]}
4 {"general.sampling.top_k":0.5}
4 {"qwen2.context_length":-1}
4 {"general.name":5}
4 {"x":{}}
4 {"x":[]}
4 {"x":[1,"a"]}
4 []
4 {"a":1
EOF
    run apr export $MODEL --format safetensors --metadata "$T/k.json" -o "$T/x.safetensors"
    [ "$status" -eq 2 ]
}

@test "usage errors are 2 with one line" {
    while read -r args; do
        run apr import $MODEL $args -o "$T/x.apr"
        echo "$args: $output"
        [ "$status" -eq 2 ] && [ "$(wc -l <<<"$output")" -eq 1 ] && [ ! -e "$T/x.apr" ]
    done <<'EOF'
--set foo=1
--set general.name=x
--set name=
--set tags=a,,b
--set nokey
--set =x
--set custom.a.b=1
--pre bad/name
EOF
    run apr tokenize $MODEL hello --pre qwen2
    [ "$status" -eq 2 ]
    apr export $MODEL --format gguf -q -o "$T/a.gguf"
    run apr tokenize "$T/a.gguf" hello --pre nonsense
    [ "$status" -eq 2 ]
    [ "$(apr tokenize "$T/a.gguf" 'a 12' --pre qwen2)" = "$(apr tokenize $MODEL 'a 12')" ]
}

# README.md in $T/card with this front matter; the other files are links.
card() {
    rm -rf "$T/card"
    mkdir "$T/card"
    local f
    for f in "$MODEL"/*; do ln -s "$PWD/$f" "$T/card/"; done
    rm "$T/card/README.md"
    printf -- '---\n%s\n---\n# A model\n' "$1" >"$T/card/README.md"
}

@test "a model card with every field: keys, values and order" {
    card '{"name": "Full Card", "author": "A. Uthor", "version": "1.2", "organization": "An Org", "finetune": "Chat",
        "basename": "full", "description": "Every field\u00e9", "size_label": "8M", "license": ["mit", "apache-2.0"],
        "license_name": "both", "license_link": "https://example.org/l", "url": "https://example.org/u", "doi": "10.1/x",
        "uuid": "0-1", "repo_url": "https://example.org/r",
        "base_model": ["Qwen/Qwen2.5-7B", "mistralai/Mistral-7B-Instruct-v0.1", "https://huggingface.co/org/some-base-2B",
            "https://example.org/elsewhere", {"name": "By hand", "author": "Me", "repo_url": "https://example.org/h"}],
        "datasets": ["org/data-set", "plain"], "tags": ["a", "b c"], "pipeline_tag": "text-generation",
        "language": ["en", "no"]}'
    for how in direct apr; do
        if [ $how = direct ]; then
            apr export "$T/card" --format gguf -q -o "$T/direct.gguf"
        else
            apr import "$T/card" -q | apr-export gguf -q >"$T/apr.gguf"
        fi
        run tests/tools/card-keys "$T/$how.gguf" "$T/card/README.md"
        echo "$how: $output"
        [ "$status" -eq 0 ]
    done
}

@test "a model card with the other spellings, and with single values" {
    card '{"model_name": "Other", "model_creator": "C. Reator", "model_version": "3", "model_organization": "O",
        "model_finetune": "Code", "model_type": "othertype", "model_description": "D", "model_size_label": "9M",
        "license": "other", "license_name": "own", "model_url": "https://example.org/u", "model_doi": "10.1/y",
        "model_uuid": "2-3", "model_repo_url": "https://example.org/r", "base_models": "org/Base-v2",
        "dataset": "https://huggingface.co/org/data", "tags": "one", "languages": "en"}'
    apr export "$T/card" --format gguf -q -o "$T/a.gguf"
    run tests/tools/card-keys "$T/a.gguf" "$T/card/README.md"
    echo "$output"
    [ "$status" -eq 0 ]
    sed -i 's/C. Reator/Somebody/' "$T/card/README.md" # the comparison can fail
    run tests/tools/card-keys "$T/a.gguf" "$T/card/README.md"
    [ "$status" -eq 1 ]
    [[ "$output" == *general.author* ]]
}
