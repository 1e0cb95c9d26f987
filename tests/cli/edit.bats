#!/usr/bin/env bats
# edit: metadata of .apr and GGUF files changes, tensors keep their bytes, the file is whole at every moment.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    GGUF=${APR_SHARED:-../shared}/fixtures/gguf
    T=$BATS_TEST_TMPDIR
}

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export F=$BATS_FILE_TMPDIR
    apr import tests/data/apr-demo-8M-Instruct -q -o "$F/a.apr"
    apr export "$F/a.apr" --format gguf -q -o "$F/a.gguf"
}

manifest() { tests/tools/gguf-manifest "$1"; }
key() { manifest "$1" | jq -rc --arg k "$2" '.kv[] | select(.key == $k) | [.type, .value // .length] | join(" ")'; }
result() { jq -r .result <<<"$output"; }
# The last FILE against a manifest of the original; further words are the keys that may differ.
same_but() { tests/tools/gguf-manifest "$1" --against "$T/was.json" --skip "$2"; }

@test "GGUF: a value of the same length changes in place, by one write inside a block" {
    cp "$F/a.gguf" "$T/m.gguf"
    manifest "$T/m.gguf" >"$T/was.json"
    local inode
    inode=$(stat -c %i "$T/m.gguf")
    run apr edit "$T/m.gguf" --set qwen2.context_length=2048 --json
    [ "$(result)" = "in place" ]
    [ "$(key "$T/m.gguf" qwen2.context_length)" = "uint32 2048" ]
    [ "$(stat -c %i "$T/m.gguf")" = "$inode" ]
    same_but "$T/m.gguf" qwen2.context_length
    [ "$(cmp -l "$T/m.gguf" "$F/a.gguf" | wc -l)" -le 4 ]
    run apr edit "$T/m.gguf" --set qwen2.context_length=2048 --json
    [ "$(result)" = unchanged ]
}

@test "GGUF: growth is written anew once with --reserve, later changes go in place" {
    cp "$F/a.gguf" "$T/m.gguf"
    manifest "$T/m.gguf" >"$T/was.json"
    run apr edit "$T/m.gguf" --set general.name="A name that is a good deal longer than it was" --reserve 256 --json
    [ "$(result)" = rewritten ]
    same_but "$T/m.gguf" "general.name,apr.padding"
    run apr edit "$T/m.gguf" --set general.name=Short --set general.author=Me --json
    [ "$(result)" = "in place" ]
    run apr edit "$T/m.gguf" --set general.name="Longer again" --unset general.author --json
    [ "$(result)" = "in place" ]
    same_but "$T/m.gguf" "general.name,apr.padding"
    [ "$(key "$T/m.gguf" general.name)" = "string Longer again" ]
    run apr edit "$T/m.gguf" --set general.description="$(head -c 300 /dev/zero | tr '\0' x)" --json
    [ "$(result)" = rewritten ]
    apr run "$T/m.gguf" --raw "Paris" -n 4 -q
}

@test "GGUF: what a removed key leaves is filled in place" {
    cp "$F/a.gguf" "$T/m.gguf"
    manifest "$T/m.gguf" >"$T/was.json"
    run apr edit "$T/m.gguf" --unset general.license --unset general.finetune --json
    echo "$output"
    [ "$(result)" = "in place" ]
    [ -z "$(key "$T/m.gguf" general.license)" ]
    cmp <(tail -c 16000000 "$T/m.gguf") <(tail -c 16000000 "$F/a.gguf")
}

@test "GGUF: types are kept, or named" {
    cp "$F/a.gguf" "$T/m.gguf"
    apr edit "$T/m.gguf" --set x.a=5 --set x.b:u8=255 --set x.c:i16=-32768 --set x.d:u64=18446744073709551615 --set x.e:f32=0.5 \
        --set x.f:bool=true --set x.g:[str]=p,q --set a:b=c --set general.tags=one --set general.sampling.temp=1
    [ "$(key "$T/m.gguf" x.a)" = "string 5" ]
    [ "$(key "$T/m.gguf" x.b)" = "uint8 255" ]
    [ "$(key "$T/m.gguf" x.c)" = "int16 -32768" ]
    manifest "$T/m.gguf" | grep -q '"uint64", "value": 18446744073709551615'
    [ "$(key "$T/m.gguf" x.e)" = "float32 0.5" ]
    [ "$(key "$T/m.gguf" x.f)" = "bool true" ]
    [ "$(key "$T/m.gguf" x.g)" = "array 2" ]
    [ "$(key "$T/m.gguf" a:b)" = "string c" ]
    [ "$(key "$T/m.gguf" general.tags)" = "array 1" ]
    [ "$(key "$T/m.gguf" general.sampling.temp)" = "float32 1" ]
    apr edit "$T/m.gguf" --set x.a:i64=-9
    [ "$(key "$T/m.gguf" x.a)" = "int64 -9" ]
}

@test "refused with one line, the file untouched" {
    cp "$F/a.gguf" "$T/m.gguf"
    cp "$F/a.apr" "$T/m.apr"
    while read -r want file args; do
        # shellcheck disable=SC2086 # a list of options
        run apr edit "$T/$file" $args
        echo "$file $args: $output"
        [ "$status" -eq "$want" ] && [ "$(wc -l <<<"$output")" -eq 1 ]
    done <<'EOF'
2 m.gguf
2 m.gguf --set general.alignment=64
2 m.gguf --set tokenizer.ggml.tokens=a
2 m.gguf --set split.count:u16=2
2 m.gguf --set nokey
2 m.gguf --set =x
2 m.gguf --set qwen2.context_length=-1
2 m.gguf --set qwen2.context_length=4294967296
2 m.gguf --set qwen2.context_length=1x
2 m.gguf --set x:u8=256
2 m.gguf --set x:i8=-129
2 m.gguf --set x:bool=1
2 m.gguf --set x:f32=inf
2 m.gguf --reserve 2M
3 m.gguf --unset no.such.key
3 m.apr --unset description
2 m.apr --set no_such_key=1
2 m.apr --reserve 100
3 none.gguf --set a=b
EOF
    cmp "$T/m.gguf" "$F/a.gguf"
    cmp "$T/m.apr" "$F/a.apr"
    run apr edit - --set a=b
    [ "$status" -eq 2 ]
    run apr edit "$MODEL" --set name=x
    [ "$status" -eq 2 ]
    head -c 5000 "$F/a.gguf" >"$T/cut.gguf"
    run apr edit "$T/cut.gguf" --set general.name=x
    [ "$status" -eq 4 ]
    run apr edit "$T/m.gguf" --set tokenizer.ggml.bos_token_id:str=x # the file could not be read any more
    echo "$output"
    [ "$status" -ne 0 ]
    cmp "$T/m.gguf" "$F/a.gguf"
}

@test ".apr: keys change, checksums are right, an import with the same values gives the same file" {
    cp "$F/a.apr" "$T/m.apr"
    run apr edit "$T/m.apr" --set description='A "test"' --set author=Me --set custom.run=7 --model-name Other --json
    echo "$output"
    [ "$(result)" = rewritten ]
    apr import "$MODEL" -q --set description='A "test"' --set author=Me --set custom.run=7 --model-name Other -o "$T/b.apr"
    cmp "$T/m.apr" "$T/b.apr"
    apr validate "$T/m.apr" >"$T/report"
    cat <"$T/m.apr" | apr convert -q >"$T/piped.apr" # a stream's reader checks the footer
    [ "$(apr inspect "$T/m.apr" --json | jq -r .metadata.author)" = Me ]
    apr edit "$T/m.apr" --unset description --unset author --unset custom.run --set name=apr-demo-8M-Instruct
    run apr edit "$T/m.apr" --set name=apr-demo-8M-Instruct --json
    [ "$(result)" = unchanged ]
    printf 'x{{ 1 }}' >"$T/t"
    apr edit "$T/m.apr" --chat-template "$T/t" -q
    [ "$(apr template "$T/m.apr" <<<'{"messages":[]}')" = x1 ]
    [ "$(apr run "$T/m.apr" --raw "Paris is" -n 4 -q)" = "$(apr run "$F/a.apr" --raw "Paris is" -n 4 -q)" ]
}

@test "mode and links stay; a file that cannot be written whole leaves the old one" {
    cp "$F/a.gguf" "$T/m.gguf"
    chmod 640 "$T/m.gguf"
    ln -s m.gguf "$T/link.gguf"
    apr edit "$T/link.gguf" --set general.name="Something much longer than before"
    [ -L "$T/link.gguf" ]
    [ "$(stat -c %a "$T/m.gguf")" = 640 ]
    [ "$(key "$T/m.gguf" general.name)" = "string Something much longer than before" ]
    cp "$T/m.gguf" "$T/was.gguf"
    run bash -c "ulimit -f 1000; trap '' XFSZ; apr edit '$T/m.gguf' --set general.name='Another quite long name, longer still'"
    echo "$output"
    [ "$status" -eq 7 ]
    cmp "$T/m.gguf" "$T/was.gguf"
    [ "$(find "$T" -name '*.tmp' | wc -l)" -eq 0 ]
}

@test "SIGKILL at any moment: the old file or the new one, nothing else" {
    cp "$F/a.gguf" "$T/m.gguf"
    local i
    for i in $(seq 25); do
        apr-import edit "$T/m.gguf" --set general.name="name $i $(head -c $((i % 7 * 9)) /dev/zero | tr '\0' y)" >/dev/null &
        sleep "0.0$((i % 10))"
        kill -9 $! 2>/dev/null || true
        wait $! 2>/dev/null || true
        manifest "$T/m.gguf" >"$T/now.json"
        [ "$(jq '[.tensors[].sha256]' "$T/now.json" | sha256sum)" = "$(manifest "$F/a.gguf" | jq '[.tensors[].sha256]' | sha256sum)" ]
    done
    apr edit "$T/m.gguf" --set general.name=last
    [ "$(key "$T/m.gguf" general.name)" = "string last" ]
}

@test "files of llama.cpp: one key changes, every other key and tensor stays" {
    [ -d "$GGUF" ] || skip "the fixtures are not here: $GGUF"
    for q in Q4_K_M Q6_K; do
        cp "$GGUF/demo-$q.gguf" "$T/m.gguf"
        chmod u+w "$T/m.gguf"
        cp "$GGUF/demo-$q.json" "$T/was.json"
        apr edit "$T/m.gguf" --set general.name="Changed by edit, and longer"
        same_but "$T/m.gguf" general.name
        [ "$(key "$T/m.gguf" general.name)" = "string Changed by edit, and longer" ]
    done
}
