#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2154 # each test is a subshell; stderr is set by run
# What writes files, under SIGKILL, full disks, broken pipes, failing system calls and odd surroundings: the output is
# whole or it is not there, nothing else remains, and the status and the one line say why.

setup_file() {
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    local o=${O:-build}
    [ -e "$o/shim.so" ] || make -s "$o/shim.so" >&2
    SHIM=$(realpath "$o/shim.so")
    M=$BATS_FILE_TMPDIR
    APR_HOME=$M/home
    export SHIM M APR_HOME
    PATH=${BINDIR:-$PWD/bin}:$PATH
    tests/tools/small-model "$M/a" 1
    tests/tools/small-model "$M/b" 2
    apr import "$M/a" -q -o "$M/a.apr"
    tests/tools/break-model nan tests/data/apr-demo-8M-Instruct "$M/nan"
}

setup() {
    bats_require_minimum_version 1.5.0
    cd "$BATS_TEST_DIRNAME/../.." || return 1
    PATH=${BINDIR:-$PWD/bin}:$PATH
    MODEL=tests/data/apr-demo-8M-Instruct
    T=$BATS_TEST_TMPDIR
    OUT=$T/out
    mkdir "$OUT"
    import=(apr-import import "$M/a" -q -j1)
    convert=(apr-import convert "$M/a.apr" --quantize q4k -q -j2)
    export=(apr-export export --format gguf "$M/a.apr" -q -j1)
    merge=(apr-import merge "$M/a" "$M/b" -q -j1)
}

teardown() {
    if [ -e "$T/mounted" ]; then umount "$T/disk"; fi
    chmod -R u+w "$T" 2>/dev/null || true
}

is_empty() { [ -z "$(ls -A "$1")" ]; }
one_line() { [ -n "$1" ] && [ "$(wc -l <<<"$1")" -eq 1 ]; }

# A library cannot be preloaded into a program whose sanitizer must come first.
need_shim() {
    if apr-import --version | grep -q fsanitize; then skip "built with a sanitizer: nothing can be preloaded"; fi
}

# Without the right to write anywhere: the superuser needs another identity for that.
unprivileged() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    else
        setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
    fi
}

# A small disk of $1 KiB at $T/disk.
need_disk() {
    [ "$(id -u)" -eq 0 ] || skip "only the superuser may mount a small disk"
    mkdir "$T/disk"
    mount -t tmpfs -o "size=${1}k" tmpfs "$T/disk" 2>/dev/null || skip "mount is not permitted here"
    : >"$T/mounted"
}

scan() { # CALL ERROR LIMIT STATUSES COMMAND...
    run tests/tools/fault-scan "$SHIM" "$OUT/x" "$@" -o "$OUT/x"
    echo "$output"
    [ "$status" -eq 0 ]
    rm -rf "${OUT:?}/x"
}

kills() { # SEED N COMMAND...
    local seed=$1 n=$2
    shift 2
    run tests/tools/kill-loop "$seed" "$n" "$OUT/x" "$@" -o "$OUT/x"
    echo "$output"
    [ "$status" -eq 0 ]
    rm -f "$OUT/x"
}

# ---- SIGKILL ----

@test "import: 50 SIGKILLs" { kills 11 50 "${import[@]}"; }
@test "convert: 50 SIGKILLs" { kills 12 50 "${convert[@]}"; }
@test "export: 50 SIGKILLs" { kills 13 50 "${export[@]}"; }
@test "merge: 50 SIGKILLs" { kills 14 50 "${merge[@]}"; }

@test "without nameless files: 20 SIGKILLs, the next run removes what they left" {
    need_shim
    export SHIM_NO_TMPFILE=1 LD_PRELOAD=$SHIM
    kills 15 20 "${import[@]}" --quantize q4k
}

@test "SIGKILL before and after every write, sync, link, rename and open" {
    need_shim
    for when in KILL KILL-AFTER; do
        for call in write fsync linkat rename open; do scan $call $when 3 7 "${import[@]}"; done
        export SHIM_NO_TMPFILE=1
        for call in write fsync rename open; do scan $call $when 3 7 "${import[@]}"; done
        unset SHIM_NO_TMPFILE
    done
}

@test "SIGKILL around every step of a folder's appearance" {
    need_shim
    for when in KILL KILL-AFTER; do
        for call in write fsync linkat rename renameat2; do
            scan $call $when 3 7 apr-export export --format safetensors "$M/a.apr" -q
        done
    done
}

@test "a temporary is removed only when its maker is gone, and only if it is one" {
    need_shim
    mkfifo "$T/fifo"
    { cat "$M/a.apr"; sleep 1; } >"$T/fifo" 3>&- &
    local feeder=$!
    LD_PRELOAD=$SHIM SHIM_NO_TMPFILE=1 apr-import convert - -q -o "$OUT/x" <"$T/fifo" 3>&- &
    local alive=$!
    sleep 0.4
    local own
    own=$(ls -A "$OUT")
    echo "first: $own"
    touch "$OUT/.x.abcdef.tmp" "$OUT/.x.abcdefg.tmp" "$OUT/.y.abcdef.tmp" "$OUT/x.abcdef.tmp"
    ln -s /etc/passwd "$OUT/.x.linkli.tmp"
    mkdir "$OUT/.x.folder.tmp"
    "${convert[@]}" --force -o "$OUT/x"
    wait "$feeder" || true
    run wait "$alive"
    ls -A "$OUT"
    [[ "$own" == .x.*.tmp ]]
    [ ! -e "$OUT/.x.abcdef.tmp" ]
    for kept in .x.abcdefg.tmp .y.abcdef.tmp x.abcdef.tmp .x.linkli.tmp .x.folder.tmp; do
        [ -L "$OUT/$kept" ] || [ -e "$OUT/$kept" ]
    done
}

# ---- full disks ----

@test "a disk too small: 7 before the first byte, path, need and rest named, nothing left" {
    need_disk 1024
    local -a commands=("${import[*]}" "${convert[*]}" "${export[*]}" "${merge[*]}"
        "apr-export export --format safetensors $M/a.apr -q")
    for command in "${commands[@]}"; do
        # shellcheck disable=SC2086 # the words of a command
        run --separate-stderr $command -o "$T/disk/x"
        echo "$command: $status: $stderr"
        [ "$status" -eq 7 ]
        one_line "$stderr"
        [[ "$stderr" == *"$T/disk/"*"needs "[0-9]*" bytes"*[0-9]*" free"* ]]
        is_empty "$T/disk"
        case $command in *safetensors*) continue ;; esac
        # shellcheck disable=SC2086
        run --separate-stderr bash -c "$command >'$T/disk/x'"
        echo "$command: $status: $stderr"
        [ "$status" -eq 7 ]
        one_line "$stderr"
        [[ "$stderr" == *"$T/disk/x"*"needs "[0-9]*" bytes"*[0-9]*" free"* ]]
        [ ! -s "$T/disk/x" ]
        rm "$T/disk/x"
    done
}

@test "a disk that fills up meanwhile: 7, the old file stays, nothing else" {
    need_disk 8192
    echo precious >"$T/disk/x"
    mkfifo "$T/fifo"
    { head -c 2000000 "$M/a.apr"; sleep 0.5; dd if=/dev/zero of="$T/disk/ballast" bs=64k status=none || true
        tail -c +2000001 "$M/a.apr"; } >"$T/fifo" 2>/dev/null 3>&- &
    writer=$!
    run --separate-stderr bash -c "apr-import convert - -q --force -o '$T/disk/x' <'$T/fifo'"
    kill "$writer" 2>/dev/null || true
    wait "$writer" || true
    echo "$status: $stderr"
    [ "$status" -eq 7 ]
    one_line "$stderr"
    [[ "$stderr" == *"$T/disk/x"*"No space left"*"needs "[0-9]*" bytes"* ]]
    [ "$(cat "$T/disk/x")" = precious ]
    rm "$T/disk/ballast"
    [ "$(ls -A "$T/disk")" = x ]
}

@test "a compressed output, whose size nobody knows, on a full disk: 7, nothing left" {
    need_disk 96
    for how in lz4 zstd; do
        run --separate-stderr "${import[@]}" --compress $how -o "$T/disk/x"
        [ "$status" -eq 7 ]
        one_line "$stderr"
        [[ "$stderr" == *"needs at most "[0-9]*" bytes"* ]]
        is_empty "$T/disk"
    done
}

@test "/dev/full: 7 and one line, from every writer" {
    for command in "${import[*]}" "${convert[*]}" "${export[*]}" "${merge[*]}"; do
        run --separate-stderr bash -c "$command >/dev/full"
        [ "$status" -eq 7 ]
        one_line "$stderr"
        # shellcheck disable=SC2086
        run --separate-stderr $command --force -o /dev/full
        [ "$status" -eq 7 ]
        one_line "$stderr"
        [ -c /dev/full ]
    done
}

# ---- pipes ----

@test "a consumer that goes away: 141 and silence, from every writer" {
    for command in "${import[*]}" "${convert[*]}" "${export[*]}" "${merge[*]}"; do
        run --separate-stderr bash -c "$command | head -c 100 >/dev/null; exit \${PIPESTATUS[0]}"
        echo "$command: $status: $stderr"
        [ "$status" -eq 141 ]
        [ -z "$stderr" ]
    done
}

@test "a producer killed in the middle: the consumer ends with 4 and leaves nothing" {
    for cut in 30 64 100 5000 400000 2000000 $(($(stat -c %s "$M/a.apr") - 1)); do
        for command in "apr-export gguf" "apr-import convert -" "apr-import convert - --quantize q4k"; do
            # shellcheck disable=SC2016 # expanded by the inner shell
            run --separate-stderr bash -c "(head -c $cut '$M/a.apr'; kill -9 \$BASHPID) 2>/dev/null | $command -q -o '$OUT/x'"
            echo "$cut $command: $status: $stderr"
            [ "$status" -eq 4 ]
            grep -q '^apr-' <<<"$stderr"
            is_empty "$OUT"
        done
    done
    run --separate-stderr bash -c "apr-export gguf -q -o '$OUT/x' </dev/null"
    [ "$status" -eq 4 ]
    is_empty "$OUT"
}

@test "a producer that refuses in the middle: 5 there, 4 here, nothing left" {
    run bash -c "apr-import st '$M/nan' 2>/dev/null | apr-export gguf -q -o '$OUT/x' 2>/dev/null; echo \"\${PIPESTATUS[*]}\""
    [ "$output" = "5 4" ]
    is_empty "$OUT"
}

@test "closed standard streams, in every combination" {
    for closed in '<&-' '>&-' '2>&-' '<&- >&-' '<&- 2>&-' '>&- 2>&-' '<&- >&- 2>&-'; do
        rm -f "$OUT/x"
        run bash -c "${convert[*]} -o '$OUT/x' $closed"
        echo "$closed: $status"
        [ "$status" -eq 0 ]
        apr validate "$OUT/x" -q
    done
    rm "$OUT/x"
    run bash -c "${convert[*]} >&-"
    [ "$status" -eq 7 ]
    run bash -c "apr-import convert - -o '$OUT/x' <&-"
    [ "$status" -eq 7 ]
    is_empty "$OUT"
}

# ---- places and names ----

@test "a folder that is missing or may not be written: 7, path named; a folder as output: 2" {
    run --separate-stderr "${convert[@]}" -o "$OUT/none/x"
    [ "$status" -eq 7 ]
    one_line "$stderr"
    [[ "$stderr" == *"$OUT/none/x"* ]]
    [ ! -e "$OUT/none" ]
    run --separate-stderr "${convert[@]}" -o "$OUT"
    [ "$status" -eq 2 ]
    [[ "$stderr" == *"is a directory"* ]]
    is_empty "$OUT"
    mkdir "$T/locked"
    chmod 555 "$T/locked"
    chmod -R a+rX "$M" "$BATS_RUN_TMPDIR"
    if unprivileged test -x "$(command -v apr-import)" && unprivileged test -r "$M/a.apr"; then
        run --separate-stderr unprivileged "${convert[@]}" -o "$T/locked/x"
        echo "$status $stderr"
        [ "$status" -eq 7 ]
        one_line "$stderr"
        [[ "$stderr" == *"Permission denied"* ]]
    fi
}

@test "output = input: refused, or with --force replaced by the whole result" {
    cp "$M/a.apr" "$OUT/x"
    "${convert[@]}" -o "$T/want"
    for name in "$OUT/x" "$OUT/./x" "$OUT/../out/x"; do
        run --separate-stderr apr-import convert "$OUT/x" --quantize q4k -q -o "$name"
        [ "$status" -eq 2 ]
        cmp "$M/a.apr" "$OUT/x"
    done
    ln "$OUT/x" "$T/hard"
    apr-import convert "$OUT/x" --quantize q4k -q --force -o "$OUT/x"
    cmp "$OUT/x" "$T/want"
    cmp "$T/hard" "$M/a.apr"
    [ "$(ls -A "$OUT")" = x ]
}

@test "output into one's own input by a redirection is refused and harms nothing" {
    cp "$M/a.apr" "$OUT/x"
    run --separate-stderr bash -c "apr-import convert '$OUT/x' --quantize q8_0 -q >>'$OUT/x'"
    echo "append: $status $stderr"
    [ "$status" -eq 2 ]
    one_line "$stderr"
    cmp "$M/a.apr" "$OUT/x"
    run --separate-stderr bash -c "apr-import convert - --quantize q8_0 -q <'$OUT/x' 1<>'$OUT/x'"
    echo "in place: $status $stderr"
    [ "$status" -eq 2 ]
    cmp "$M/a.apr" "$OUT/x"
}

@test "output through a symbolic link, a hanging one, a loop, a FIFO" {
    "${convert[@]}" -o "$T/want"
    mkdir "$T/far"
    echo old >"$T/far/file"
    ln -s "$T/far/file" "$OUT/link"
    "${convert[@]}" --force -o "$OUT/link"
    [ -L "$OUT/link" ]
    cmp "$T/far/file" "$T/want"
    ln -s loop "$OUT/loop"
    run --separate-stderr "${convert[@]}" -o "$OUT/loop"
    [ "$status" -eq 7 ]
    [[ "$stderr" == *"Too many levels"* ]]
    [ "$(readlink "$OUT/loop")" = loop ]
    ln -s "$T/far/new" "$OUT/hanging"
    run --separate-stderr "${convert[@]}" --force -o "$OUT/hanging"
    echo "hanging: $status $stderr"
    [ "$status" -eq 0 ]
    [ -L "$OUT/hanging" ]
    rm "$T/far/new" "$OUT/hanging"
    (cd "$OUT" && ln -s ../far/new hanging && "${convert[@]}" -o hanging)
    [ -L "$OUT/hanging" ]
    cmp "$T/far/new" "$T/want"
    mkfifo "$OUT/fifo"
    cat "$OUT/fifo" >"$T/through" 3>&- &
    local reader=$!
    "${convert[@]}" -o "$OUT/fifo"
    wait "$reader"
    cmp "$T/through" "$T/want"
    [ -p "$OUT/fifo" ]
}

@test "names with newline, blanks, a dash, quotes, bytes that are no UTF-8, 255 bytes" {
    "${convert[@]}" -o "$T/want"
    local long
    long=$(printf 'x%.0s' {1..255})
    for name in $'new\nline' ' two  blanks ' 'quo"te'"'"'s' $'\xff\xfe' 'täst' '*' "$long" ; do
        "${convert[@]}" -o "$OUT/$name"
        cmp "$OUT/$name" "$T/want"
        run --separate-stderr "${convert[@]}" -o "$OUT/$name"
        [ "$status" -eq 2 ]
        one_line "$stderr"
        apr-export export --format gguf "$OUT/$name" -q -o "$T/gguf"
        rm "$T/gguf"
    done
    (cd "$OUT" && "${convert[@]}" -o -x && [ -e ./-x ] && apr-hex inspect -- -x >/dev/null)
    run --separate-stderr "${convert[@]}" -o "$OUT/${long}x"
    [ "$status" -eq 7 ]
    one_line "$stderr"
    [ "$(find "$OUT" -type f -printf x | wc -c)" -eq 8 ]
}

@test "umask and the old file's mode decide the new one's" {
    (umask 077 && "${convert[@]}" -o "$OUT/a")
    [ "$(stat -c %a "$OUT/a")" = 600 ]
    (umask 000 && "${convert[@]}" -o "$OUT/b")
    [ "$(stat -c %a "$OUT/b")" = 666 ]
    chmod 640 "$OUT/a"
    "${convert[@]}" --force -o "$OUT/a"
    [ "$(stat -c %a "$OUT/a")" = 640 ]
}

@test "little memory, few descriptors, a small stack, no home: the same bytes" {
    for command in "${import[*]}" "${convert[*]}" "${export[*]}" "${merge[*]}"; do
        # shellcheck disable=SC2086 # the words of a command
        $command -o "$T/want"
        if ! apr-import --version | grep -q fsanitize; then
            (ulimit -v 2097152; $command -o "$OUT/memory")
            (ulimit -s 256; $command -o "$OUT/stack")
        fi
        (ulimit -n 16; $command -o "$OUT/files")
        # shellcheck disable=SC2086
        env -u HOME -u APR_HOME $command -o "$OUT/homeless"
        APR_HOME=/proc/none $command -o "$OUT/nowhere"
        (cd "$OUT" && TMPDIR=/nonexistent $command -o "$OUT/tmp")
        for f in "$OUT"/*; do cmp "$f" "$T/want"; done
        rm "$OUT"/* "$T/want"
    done
}

@test "a locale with a decimal comma changes no byte and no message" {
    local locale
    locale=$(locale -a | grep -iE '^(de|fr|tr)_' | head -n 1) || true
    [ -n "$locale" ] || skip "no locale with a decimal comma is installed"
    "${export[@]}" -o "$OUT/x"
    LC_ALL=$locale "${export[@]}" -o "$OUT/y"
    cmp "$OUT/x" "$OUT/y"
}

# ---- system calls that fail ----

@test "short reads and interrupted calls change nothing" {
    need_shim
    for command in "${import[*]}" "${convert[*]}" "${export[*]}" "${merge[*]}"; do
        # shellcheck disable=SC2086 # the words of a command
        $command -o "$OUT/x"
        # shellcheck disable=SC2086
        LD_PRELOAD=$SHIM SHIM_SHORT=4000 SHIM_EINTR=1 $command -o "$OUT/y"
        cmp "$OUT/x" "$OUT/y"
        rm "$OUT"/*
    done
    "${export[@]}" -o "$OUT/x"
    LD_PRELOAD=$SHIM SHIM_SHORT=4000 SHIM_EINTR=1 apr-export gguf -q < <(cat "$M/a.apr") >"$OUT/y"
    cmp "$OUT/x" "$OUT/y"
}

@test "every read, write, sync, link, rename and open of an import fails once: 7" {
    need_shim
    for call in read pread; do scan $call EIO 20 7 "${import[@]}"; done
    for call in write fsync linkat rename open; do scan $call ENOSPC 20 7 "${import[@]}"; done
    scan open EMFILE 20 7 "${import[@]}"
    export SHIM_NO_TMPFILE=1
    for call in write fsync rename open; do scan $call EIO 20 7 "${import[@]}"; done
}

@test "reads and writes of the other writers fail: 7" {
    need_shim
    for command in "${convert[*]}" "${export[*]}" "${merge[*]}" "apr-export export --format safetensors $M/a.apr -q"; do
        # shellcheck disable=SC2086 # the words of a command
        scan pread EIO 8 7 $command
        # shellcheck disable=SC2086
        scan write ENOSPC 8 7 $command
    done
}

@test "memory runs out at any allocation: 6 or 7, no crash, no wrong bytes" {
    need_shim
    for command in "${import[*]}" "${convert[*]}" "${export[*]}" "${merge[*]}" "${convert[*]} --compress zstd" \
        "${convert[*]} --compress lz4"; do
        # shellcheck disable=SC2086 # the words of a command
        scan alloc ENOMEM 24 6,7 $command
    done
}

# ---- determinism ----

apr_with() { # "VARIABLE=VALUE OPTION" FOLDER RECIPE
    local -a how
    read -ra how <<<"$1"
    if [ "${how[0]}" = APR_KERN= ]; then how[0]=-uAPR_KERN; fi
    env "${how[0]}" apr import "$2" --quantize "$3" -q "${how[1]}" | sha256sum
}

same_bytes() { # FOLDER RECIPE SETTING...
    local folder=$1 recipe=$2 one
    shift 2
    one=$(apr import "$folder" --quantize "$recipe" -q -j1 | sha256sum)
    for setting; do
        [ "$(apr_with "$setting" "$folder" "$recipe")" = "$one" ] || { echo "$recipe: $setting"; false; }
    done
}

@test "every recipe: the same bytes with 1, 2 and 5 threads and from the scalar kernels" {
    local recipes recipe
    recipes=$(apr import "$M/a" --quantize no-such-recipe -o "$OUT/x" 2>&1 | sed -n 's/.*expected one of: *//p')
    [ "$(wc -w <<<"$recipes")" -ge 15 ]
    for recipe in $recipes; do
        same_bytes "$M/a" "$recipe" "APR_KERN= -j2" "APR_KERN= -j5" "APR_KERN=scalar -j2"
    done
    for recipe in q4_k_m q6_k; do same_bytes "$MODEL" "$recipe" "APR_KERN= -j2" "APR_KERN= -j5"; done
}
