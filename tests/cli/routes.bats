#!/usr/bin/env bats
# shellcheck disable=SC2002,SC2059 # pipes are what is tested; bytes are made with printf
# export to folders and to split GGUF, and back: the same tensors by every route.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    GGUF=${APR_SHARED:-../shared}/fixtures/gguf
    T=$BATS_TEST_TMPDIR
}

need_fixtures() { [ -d "$GGUF" ] || skip "the fixtures are not here: $GGUF"; }
# The hash of every tensor, by name.
hashes() { apr inspect "$1" --provenance --json | jq -cS .integrity.tensors; }
same_json() { cmp <(jq -S "${3:-.}" "$1") <(jq -S "${3:-.}" "$2"); }

@test "folder: documents and tensors come back from an .apr" {
    apr import "$MODEL" -q -o "$T/a.apr"
    apr export "$T/a.apr" --format safetensors -q -o "$T/dir"
    for f in config generation_config tokenizer tokenizer_config; do
        same_json "$MODEL"/$f.json "$T/dir/$f.json"
    done
    [ ! -e "$T/dir/model.safetensors.index.json" ]
    apr import "$T/dir" -q -o "$T/b.apr"
    [ "$(hashes "$T/a.apr")" = "$(hashes "$T/b.apr")" ]
    head -1 "$T/dir/README.md" | grep -qx -- ---
}

@test "folder: shards, index, and the same bytes through a pipe and on one thread" {
    apr export "$MODEL" --format safetensors --max-shard-size 5MB -q -j1 -o "$T/a"
    apr import "$MODEL" -q | apr export - --format safetensors --max-shard-size 5MB -q -j2 -o "$T/b/"
    diff -r "$T/a" "$T/b"
    [ -e "$T/a/model-00004-of-00004.safetensors" ]
    want=$(jq .metadata.total_size "$MODEL"/model.safetensors.index.json)
    run jq -r '.metadata.total_size, (.weight_map | length)' "$T/a/model.safetensors.index.json"
    [ "$output" = "$(printf '%s\n99' "$want")" ]
    apr validate "$T/a" -q
}

@test "folder: an existing one needs --force, and only files of a model are replaced" {
    apr export "$MODEL" --format safetensors -q -o "$T/a"
    run apr export "$MODEL" --format safetensors -q -o "$T/a"
    [ "$status" -eq 2 ]
    apr export "$MODEL" --format safetensors --max-shard-size 5M -q --force -o "$T/a"
    [ ! -e "$T/a/model.safetensors" ]
    touch "$T/a/thesis.tex"
    run apr export "$MODEL" --format safetensors -q --force -o "$T/a"
    [ "$status" -eq 2 ]
    [[ $output == *thesis.tex* ]]
    [ "$(find "$T" -maxdepth 1 -name '.*' -type d ! -path "$T" | wc -l)" -eq 0 ]
}

@test "folder: a killed export leaves nothing that the next one does not remove" {
    for i in 1 2 3; do
        apr-export st "$MODEL" -q --max-shard-size 1M -o "$T/k" &
        sleep "0.0$((i * 2))"
        kill -9 $! 2>/dev/null || true
        wait $! || true
        rm -rf "$T/k"
    done
    apr-export st "$MODEL" -q -o "$T/k"
    [ "$(find "$T" -maxdepth 1 -name '.k.*' | wc -l)" -eq 0 ]
    [ -e "$T/k/model.safetensors" ]
}

@test "folder from GGUF: rebuilt, quantized blocks only with --quantize" {
    need_fixtures
    run apr export "$GGUF/demo-Q4_K_M.gguf" --format safetensors -q -o "$T/q"
    [ "$status" -eq 5 ]
    [ ! -e "$T/q" ]
    run apr export "$GGUF/demo-bf16.gguf" --format safetensors -o "$T/g"
    [ "$status" -eq 0 ]
    [[ $output == *"config.json: rebuilt"* ]]
    same_json "$MODEL"/tokenizer.json "$T/g/tokenizer.json" 'del(.added_tokens)'
    apr import "$GGUF/demo-bf16.gguf" -q -o "$T/a.apr"
    apr import "$T/g" -q -o "$T/b.apr"
    [ "$(hashes "$T/a.apr")" = "$(hashes "$T/b.apr")" ]
    apr export "$GGUF/demo-Q4_K_M.gguf" --format safetensors --quantize f16 -q -o "$T/f16/"
    [ "$(jq -r .torch_dtype "$T/f16/config.json")" = float16 ]
    text='def f(x): return x + 1  # <|im_end|> ünï'
    [ "$(apr tokenize "$T/g" "$text")" = "$(apr tokenize "$MODEL" "$text")" ]
}

@test "split GGUF: any part opens the set; it equals the single file" {
    apr export "$MODEL" --format gguf -q -o "$T/one.gguf"
    apr export "$MODEL" --format gguf --split-max-size 5M -q -o "$T/s.gguf"
    [ "$(find "$T" -name 's-*-of-00004.gguf' | wc -l)" -eq 4 ]
    apr import "$T/one.gguf" -q -o "$T/one.apr"
    for i in 1 2 4; do
        apr import "$T/s-0000$i-of-00004.gguf" -q -o "$T/s$i.apr"
        [ "$(hashes "$T/one.apr")" = "$(hashes "$T/s$i.apr")" ]
        apr export "$T/s$i.apr" --format gguf --no-provenance -q -o "$T/back$i.gguf"
    done
    apr export "$T/one.gguf" --format gguf --no-provenance -q -o "$T/want.gguf"
    cmp "$T/back1.gguf" "$T/want.gguf"
    cmp "$T/back4.gguf" "$T/want.gguf"
    [ "$(apr run "$T/s-00003-of-00004.gguf" 'What is 2+2?' -q)" = "$(apr run "$T/one.gguf" 'What is 2+2?' -q)" ]
}

@test "split GGUF: a missing, doubled or foreign part is named" {
    apr export "$MODEL" --format gguf --split-max-tensors 40 -q -o "$T/s.gguf"
    mv "$T/s-00002-of-00003.gguf" "$T/two"
    run apr inspect "$T/s-00001-of-00003.gguf"
    [ "$status" -eq 3 ]
    [[ $output == *s-00002-of-00003.gguf* ]]
    cp "$T/s-00003-of-00003.gguf" "$T/s-00002-of-00003.gguf"
    run apr inspect "$T/s-00001-of-00003.gguf"
    [ "$status" -eq 4 ]
    [[ $output == *"part 3 of 3, expected part 2 of 3"* ]]
    run apr inspect "$T/two"
    [ "$status" -eq 4 ]
    [[ $output == *"-00002-of-00003.gguf"* ]]
    run bash -c "cat '$T/two' | apr inspect -"
    [ "$status" -eq 4 ]
    apr export "$MODEL" --format gguf --split-max-tensors 50 -q -o "$T/o.gguf"
    [ -e "$T/o-00002-of-00002.gguf" ]
}

@test "split GGUF: one part alone is a plain file; an existing part needs --force" {
    apr export "$MODEL" --format gguf --split-max-size 5G -q -o "$T/a.gguf"
    apr export "$MODEL" --format gguf -q -o "$T/b.gguf"
    cmp "$T/a.gguf" "$T/b.gguf"
    apr export "$MODEL" --format gguf --split-max-tensors 60 -q -o "$T/s.gguf"
    rm "$T/s-00001-of-00002.gguf"
    run apr export "$MODEL" --format gguf --split-max-tensors 60 -q -o "$T/s.gguf"
    [ "$status" -eq 2 ]
    [ ! -e "$T/s-00001-of-00002.gguf" ]
    run apr export "$MODEL" --format gguf --split-max-size 5M -q
    [ "$status" -eq 2 ]
}

@test "split GGUF: the peer merges ours, and we read the peer's" {
    PEER=${APR_PEER_BIN:-}
    [ -x "$PEER/llama-gguf-split" ] || skip "APR_PEER_BIN does not name a folder with llama-gguf-split"
    apr export "$MODEL" --format gguf --no-provenance -q -o "$T/one.gguf"
    apr export "$MODEL" --format gguf --no-provenance --split-max-size 5M -q -o "$T/s.gguf"
    "$PEER/llama-gguf-split" --merge "$T/s-00001-of-00004.gguf" "$T/merged.gguf"
    apr export "$T/merged.gguf" --format gguf --no-provenance -q -o "$T/back.gguf"
    cmp "$T/back.gguf" "$T/one.gguf"
    "$PEER/llama-gguf-split" --split --no-tensor-first-split --split-max-tensors 30 "$T/one.gguf" "$T/p"
    apr export "$T/p-00003-of-00005.gguf" --format gguf --no-provenance -q -o "$T/back2.gguf"
    cmp "$T/back2.gguf" "$T/one.gguf"
}

@test "packings of older files: kept in .apr, refused by GGUF unless repacked, the same values" {
    tests/tools/big-model "$T/small" 0 96 160
    apr import "$T/small" --quantize f32 -q -o "$T/f32.apr"
    for how in rows flat; do
        tests/tools/old-packing "$T/f32.apr" $how "$T/old.apr" "$T/ref.apr"
        apr convert "$T/old.apr" -q -o "$T/kept.apr"
        apr convert "$T/kept.apr" --quantize f32 -q -o "$T/wide.apr"
        [ "$(apr tensors "$T/kept.apr" --json | jq -c '[.tensors[] | .dtype]')" = \
            "$(apr tensors "$T/old.apr" --json | jq -c '[.tensors[] | .dtype]')" ]
        apr convert "$T/ref.apr" -q -o "$T/ref2.apr"
        [ "$(hashes "$T/wide.apr")" = "$(hashes "$T/ref2.apr")" ]
        run apr export "$T/old.apr" --format gguf -q -o "$T/no.gguf"
        [ "$status" -eq 5 ]
        [[ $output == *--requantize* ]]
        [ ! -e "$T/no.gguf" ]
        apr export "$T/old.apr" --format gguf --requantize -q -o "$T/a.gguf" --force
        apr convert "$T/old.apr" --requantize -q -o "$T/rows.apr" --force
        apr export "$T/rows.apr" --format gguf -q -o "$T/b.gguf" --force
        cmp <(tests/tools/gguf-manifest "$T/a.gguf" | jq .tensors) <(tests/tools/gguf-manifest "$T/b.gguf" | jq .tensors)
        rm "$T/kept.apr" "$T/wide.apr" "$T/ref2.apr"
    done
}

@test "provenance: sources are hashed while they are read, and validate --sources proves them" {
    cp -r "$MODEL" "$T/src"
    apr import "$T/src" --quantize q4k -q -o "$T/a.apr"
    for f in "$T"/src/*.safetensors; do
        want=$(sha256sum "$f" | cut -d' ' -f1)
        [ "$(apr inspect "$T/a.apr" --provenance --json | jq -r ".integrity.sources[\"$(basename "$f")\"]")" = "$want" ]
    done
    apr convert "$T/a.apr" --compress zstd -q -o "$T/b.apr"
    cat "$T/a.apr" | apr convert - --compress zstd -q >"$T/c.apr"
    cmp "$T/b.apr" "$T/c.apr"
    for m in a b; do
        run apr validate "$T/$m.apr" --sources "$T/src" --json
        [ "$status" -eq 0 ]
        [ "$(jq -r '[.sources[].status] | unique | join(" ")' <<<"$output")" = proven ]
    done
    printf X | dd of="$T/src/model-00002-of-00004.safetensors" bs=1 seek=100000 conv=notrunc status=none
    run apr validate "$T/a.apr" --sources "$T/src" -q
    [ "$status" -eq 5 ]
    [[ $output == *model-00002-of-00004.safetensors* ]]
    rm "$T/src/model-00001-of-00004.safetensors"
    run apr validate "$T/a.apr" --sources "$T/src" -q
    [ "$status" -eq 3 ]
    run apr validate "$MODEL" --sources "$T/src" -q
    [ "$status" -eq 5 ]
}

@test "provenance: the models of a merge may have files of the same name" {
    tests/tools/small-model "$T/a" 1
    tests/tools/small-model "$T/b" 2
    apr merge "$T/a" "$T/b" --hash-sources -q -o "$T/m.apr"
    run apr validate "$T/m.apr" --sources "$T/a" --sources "$T/b" --json
    [ "$status" -eq 0 ]
    [ "$(jq -c '[.sources[] | .status] | group_by(.) | map([.[0], length])' <<<"$output")" = '[["proven",4]]' ]
    apr validate "$T/m.apr" --sources "$T/b" --sources "$T/a" -q
    run apr validate "$T/m.apr" --sources "$T/a" -q
    [ "$status" -eq 5 ]
    rm "$T"/a/*-00001-*.safetensors "$T"/b/*-00001-*.safetensors
    run apr validate "$T/m.apr" --sources "$T/a" --sources "$T/b" -q
    [ "$status" -eq 3 ]
    [[ $output == *"nor in the other folders"* ]]
}

@test "provenance: a chain is shown, and goes on through a GGUF" {
    apr import "$MODEL" --hash-sources -q -o "$T/a.apr"
    apr export "$T/a.apr" --format gguf --quantize q8_0 -q -o "$T/a.gguf"
    apr import "$T/a.gguf" -q -o "$T/b.apr"
    run apr inspect "$T/b.apr" --provenance
    [ "$status" -eq 0 ]
    [[ $output == *"chain:"*"model-00003-of-00004.safetensors"*"q8_0"* ]]
    apr validate "$T/b.apr" --sources "$MODEL" -q
    apr validate "$T/a.gguf" --sources "$MODEL" -q
}

@test "provenance: a pipe is hashed, too" {
    apr export "$MODEL" --format safetensors -q -o "$T/m.safetensors"
    run bash -c "cat '$T/m.safetensors' | apr import - -q --skip-contract >'$T/p.apr'"
    [ "$status" -eq 0 ]
    want=$(sha256sum "$T/m.safetensors" | cut -d' ' -f1)
    [ "$(apr inspect "$T/p.apr" --provenance --json | jq -r '.integrity.sources["-"]')" = "$want" ]
}

@test "sets of .apr shards of older writers: read from any of them, counted from 0 or 1" {
    apr import "$MODEL" -q -o "$T/one.apr"
    for first in 0 1; do
        tests/tools/shard-apr "$T/one.apr" "$T/m$first" 3 $first
        for i in 0 1 2; do
            apr convert "$T/m$first-0000$((first + i))-of-00003.apr" -q --force -o "$T/back.apr"
            [ "$(hashes "$T/back.apr")" = "$(hashes "$T/one.apr")" ]
        done
        apr validate "$T/m$first-00001-of-00003.apr" -q
    done
    rm "$T/m1-00003-of-00003.apr"
    run apr inspect "$T/m1-00001-of-00003.apr"
    [ "$status" -eq 3 ]
    [[ $output == *m1-00003-of-00003.apr* ]]
    cp "$T/m0-00001-of-00003.apr" "$T/m0-00002-of-00003.apr"
    run apr inspect "$T/m0-00001-of-00003.apr"
    [ "$status" -eq 4 ]
    cp "$T/m0-00001-of-00003.apr" "$T/alone.apr"
    run apr inspect "$T/alone.apr"
    [ "$status" -eq 4 ]
    run bash -c "cat '$T/alone.apr' | apr inspect -"
    [ "$status" -eq 4 ]
}
