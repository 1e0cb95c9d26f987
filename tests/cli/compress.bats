#!/usr/bin/env bats
# shellcheck disable=SC2002,SC2059 # pipes are what is tested; bytes are made with printf
# convert --compress: the same content in fewer bytes, readable by the formats' own tools; damage and bombs refused.

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    export APR_HOME=$BATS_TEST_TMPDIR/home
    MODEL=tests/data/apr-demo-8M-Instruct
    T=$BATS_TEST_TMPDIR
}

hashes() { apr inspect "$1" --provenance --json | jq -cS .integrity.tensors; }
plain() { apr import "$MODEL" --quantize q8_0 -q -o "$T/plain.apr"; }
# FILE OFFSET: turns every bit of one byte.
flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf "\\x$(printf %02x $((byte ^ 255)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

@test "each kind: bytes on one and two threads, through a pipe, and back" {
    plain
    for kind in lz4 zstd; do
        apr import "$MODEL" --quantize q8_0 --compress $kind -q -j1 -o "$T/$kind.apr"
        apr import "$MODEL" --quantize q8_0 --compress $kind -q -j2 >"$T/$kind.pipe"
        cmp "$T/$kind.apr" "$T/$kind.pipe"
        [ "$(hashes "$T/$kind.apr")" = "$(hashes "$T/plain.apr")" ]
        apr export "$T/plain.apr" --format gguf -q -o "$T/a.gguf" --force
        apr export "$T/$kind.apr" --format gguf -q -o "$T/b.gguf" --force
        apr export - --format gguf -q <"$T/$kind.apr" >"$T/c.gguf"
        cat "$T/$kind.apr" | apr export - --format gguf -q >"$T/d.gguf"
        cmp "$T/a.gguf" "$T/b.gguf"
        cmp "$T/a.gguf" "$T/c.gguf"
        cmp "$T/a.gguf" "$T/d.gguf"
    done
}

@test "a compressed file runs directly, is valid, and says that it is compressed" {
    apr import "$MODEL" --compress zstd -q -o "$T/z.apr"
    apr import "$MODEL" -q -o "$T/plain.apr"
    [ "$(stat -c %s "$T/z.apr")" -lt "$(stat -c %s "$T/plain.apr")" ]
    [ "$(apr run "$T/z.apr" 'What is 2+2?' -q)" = "$(apr run "$T/plain.apr" 'What is 2+2?' -q)" ]
    [ "$(cat "$T/z.apr" | apr run - 'What is 2+2?' -q)" = "$(apr run "$T/plain.apr" 'What is 2+2?' -q)" ]
    apr validate "$T/z.apr" -q
    cat "$T/z.apr" | apr validate - -q
    [ "$(apr inspect "$T/z.apr" --json | jq .flags.zstd_compressed)" = true ]
}

@test "zstd-max is no larger; none is what no option gives; another word is refused" {
    apr import "$MODEL" --quantize q4k --compress zstd -q -o "$T/a.apr"
    timeout 60 apr import "$MODEL" --quantize q4k --compress zstd-max -q -o "$T/b.apr"
    [ "$(stat -c %s "$T/b.apr")" -le "$(stat -c %s "$T/a.apr")" ]
    apr import "$MODEL" --compress none -q -o "$T/c.apr"
    apr import "$MODEL" -q -o "$T/d.apr"
    cmp "$T/c.apr" "$T/d.apr"
    run apr import "$MODEL" --compress gzip -q -o "$T/e.apr"
    [ "$status" -eq 2 ]
}

@test "zstd and lz4 read our streams" {
    apr import "$MODEL" -q -o "$T/plain.apr"
    for kind in lz4 zstd; do
        command -v $kind >/dev/null || skip "no $kind here"
        apr import "$MODEL" --compress $kind -q -o "$T/$kind.apr"
        tail -c +65 "$T/$kind.apr" | $kind -dcq >"$T/content"
        # All but the checksum, which covers the header's flags.
        cmp <(tail -c +65 "$T/plain.apr" | head -c -4) <(head -c -4 "$T/content")
    done
}

@test "streams of other writers: one zstd frame, linked LZ4 blocks" {
    command -v zstd >/dev/null && command -v lz4 >/dev/null || skip "no zstd or lz4 here"
    for kind in lz4 zstd; do
        apr import "$MODEL" --quantize q4k --compress $kind -q -o "$T/own.apr"
        tail -c +65 "$T/own.apr" | $kind -dcq >"$T/content"
        options=(-1)
        [ $kind = zstd ] || options=(-1 -BD)
        { head -c 64 "$T/own.apr"; $kind -cq "${options[@]}" <"$T/content"; } >"$T/other.apr"
        [ "$(hashes "$T/other.apr")" = "$(hashes "$T/own.apr")" ]
        cat "$T/other.apr" | apr convert - -q -o "$T/b.apr" --force
        [ "$(hashes "$T/b.apr")" = "$(hashes "$T/own.apr")" ]
        [ "$(apr run "$T/other.apr" 'What is 2+2?' -q)" = "$(apr run "$T/own.apr" 'What is 2+2?' -q)" ]
        apr validate "$T/other.apr" -q
        rm "$T/own.apr"
    done
}

@test "damage: every part of the stream is checked before it is used" {
    for kind in lz4 zstd; do
        apr import "$MODEL" --quantize q4k --compress $kind -q -o "$T/$kind.apr"
        n=$(stat -c %s "$T/$kind.apr")
        for at in 70 5000 $((n / 2)) $((n - 100)) $((n - 20)); do
            cp "$T/$kind.apr" "$T/bad.apr"
            flip "$T/bad.apr" "$at"
            run apr validate "$T/bad.apr" -q
            [ "$status" -eq 4 ]
            run bash -c "cat '$T/bad.apr' | apr convert - -q --force -o '$T/never.apr'"
            [ "$status" -eq 4 ] || { [ $kind = zstd ] && [ "$at" -ge $((n - 100)) ]; } # the table is for files alone
        done
        for cut in 64 65 100 $((n / 2)) $((n - 1)); do
            head -c "$cut" "$T/$kind.apr" >"$T/cut.apr"
            run apr validate "$T/cut.apr" -q
            [ "$status" -eq 4 ]
        done
    done
}

@test "bombs: no more than the index justifies comes out" {
    command -v zstd >/dev/null && command -v lz4 >/dev/null || skip "no zstd or lz4 here"
    local most=2000000
    if apr-qa --version | grep -q fsanitize; then most=unlimited; fi # its shadow alone takes terabytes
    apr import "$MODEL" --quantize q4k --compress zstd -q -o "$T/a.apr"
    tail -c +65 "$T/a.apr" | zstd -dcq >"$T/content"
    { head -c 64 "$T/a.apr"; { cat "$T/content"; head -c 4G /dev/zero; } | zstd -cq -1; } >"$T/bomb.apr"
    [ "$(stat -c %s "$T/bomb.apr")" -lt 30000000 ]
    for verb in validate inspect; do
        run bash -c "ulimit -v $most; timeout 20 apr $verb '$T/bomb.apr'"
        [ "$status" -eq 4 ]
        [[ $output == *justifies* ]]
        run bash -c "ulimit -v $most; cat '$T/bomb.apr' | timeout 20 apr convert - -q --force -o '$T/never.apr'"
        [ "$status" -eq 4 ]
    done
}
