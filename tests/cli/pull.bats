#!/usr/bin/env bats
# pull, list, rm against a hub on loopback that misbehaves on request (tests/hub/hub.py); nothing leaves this machine.
# shellcheck disable=SC2030,SC2031,SC2154 # every test has its own environment; bats sets stderr

setup() {
    bats_require_minimum_version 1.5.0
    PATH=${BINDIR:-$PWD/bin}:$PATH
    T=$BATS_TEST_TMPDIR
    REPO=$T/root/org/tiny
    HUB_PIDS=
    unset HF_HUB_CACHE HUGGINGFACE_HUB_CACHE HF_HUB_OFFLINE APR_OFFLINE HF_TOKEN_PATH HUGGING_FACE_HUB_TOKEN HF_ENDPOINT
    unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY HUB_EXTRA_NAME HUB_REDIRECT
    export HF_HOME=$T/hf APR_HOME=$T/home HF_TOKEN=hf_secret no_proxy=127.0.0.1 BATS_TEST_TIMEOUT=60
    command -v python3 >/dev/null || skip "python3 is not here"
}

teardown() {
    local pid
    for pid in $HUB_PIDS; do kill "$pid" 2>/dev/null || true; done
}

make_repo() { # a repository whose weights are checked by hash only
    mkdir -p "$REPO/onnx"
    head -c 300000 /dev/urandom >"$REPO/model.safetensors"
    echo '{"model_type":"qwen2"}' >"$REPO/config.json"
    echo '{}' >"$REPO/tokenizer.json"
    echo card >"$REPO/README.md"
    echo other >"$REPO/onnx/model.onnx"
    SHA=$(sha256sum "$REPO/model.safetensors" | cut -d' ' -f1)
    CACHE=$HF_HOME/hub/models--org--tiny
}

start_hub() { # OPTION... -> HF_ENDPOINT, LOG, CDN; a second call starts another hub
    local state n=0
    N_HUBS=$((${N_HUBS:-0} + 1))
    state=$T/state$N_HUBS
    python3 tests/hub/hub.py --root "$T/root" --state "$state" "$@" 3>&- >"$T/hub.out" 2>&1 &
    HUB_PIDS="$HUB_PIDS $!"
    until [ -s "$state/port" ]; do
        n=$((n + 1))
        [ $n -lt 100 ] || { cat "$T/hub.out"; return 1; }
        sleep 0.1
    done
    HF_ENDPOINT=http://127.0.0.1:$(cat "$state/port")
    export HF_ENDPOINT
    LOG=$state/log
}

stop_hubs() {
    teardown
    HUB_PIDS=
}

pulled() { # the snapshot holds exactly the weights of the repository
    cmp "$CACHE/snapshots/"*/model.safetensors "$REPO/model.safetensors"
    [ -z "$(find "$CACHE" -name '*.incomplete*' -o -name '*.tmp')" ]
}

nothing_wrong_in_cache() { # whatever is named by a SHA-256 has it; the revision has no name yet
    local blob
    for blob in "$CACHE"/blobs/*; do
        [[ $(basename "$blob") =~ ^[0-9a-f]{64}$ ]] || continue
        [ "$(sha256sum "$blob" | cut -d' ' -f1)" = "$(basename "$blob")" ] || return 1
    done
    [ ! -e "$CACHE/refs/main" ]
}

fails() { # STATUS PATTERN COMMAND...: one error line at the end
    local want=$1 pattern=$2
    shift 2
    run "$@"
    [ "$status" -eq "$want" ] || { echo "status $status, expected $want: $output"; return 1; }
    [[ ${lines[-1]} == *$pattern* ]] || { echo "expected \"$pattern\": $output"; return 1; }
}

@test "hub: Hugging Face's layout, token to the hub only, the path alone on stdout, second pull from the cache" {
    make_repo
    start_hub --cdn
    run --separate-stderr apr pull org/tiny
    [ "$status" -eq 0 ]
    [ "${#lines[@]}" -eq 1 ]
    local dir=$output commit
    commit=$(cat "$CACHE/refs/main")
    [ "$dir" = "$CACHE/snapshots/$commit" ]
    [ "$(readlink "$dir/model.safetensors")" = "../../blobs/$SHA" ]
    [ "$(readlink "$dir/config.json")" = "../../blobs/$(git hash-object "$REPO/config.json")" ]
    [ ! -e "$dir/onnx" ]
    pulled
    grep -q $'^hub\tGET.*Bearer hf_secret' "$LOG"
    grep -q $'^cdn\tGET' "$LOG"
    run ! grep $'^cdn.*secret' "$LOG"
    : >"$LOG"
    run --separate-stderr apr pull hf://org/tiny@main --json
    [ "$(jq -r '[.schema, .path, .revision, (.files | length), (.files | all(.cached))] | join(" ")' <<<"$output")" = \
        "apr.pull/1 $dir $commit 4 true" ]
    [ "$(jq -r '.files[] | select(.name == "model.safetensors") | "\(.size_bytes) \(.sha256)"' <<<"$output")" = "300000 $SHA" ]
    [ "$(jq -r '.files[] | select(.name == "config.json") | .sha256' <<<"$output")" = "$(sha256sum "$REPO/config.json" | cut -d' ' -f1)" ]
    run ! grep $'\tGET\t/org' "$LOG"
}

@test "hub: offline uses the cache alone, and says what is not there" {
    make_repo
    fails 3 "not in the cache" apr pull org/tiny --offline
    start_hub
    apr pull org/tiny -q
    : >"$LOG"
    run apr pull org/tiny --offline
    [ "$status" -eq 0 ]
    HF_HUB_OFFLINE=1 apr pull "org/tiny@$(cat "$CACHE/refs/main")" --json | jq -e '.files | length == 4'
    [ ! -s "$LOG" ]
    fails 3 "not in the cache" apr pull org/tiny@v1 --offline
    fails 3 'no file "other.gguf"' apr pull hf://org/tiny/other.gguf --offline
    rm "$CACHE/blobs/$SHA"
    fails 3 "incomplete" apr pull org/tiny --offline
}

@test "hub: which files: one, globs, shards, GGUF in the order of preference, nothing" {
    make_repo
    start_hub
    [ "$(apr pull hf://org/tiny/onnx/model.onnx -q)" = "$(echo "$CACHE"/snapshots/*)/onnx/model.onnx" ]
    [ "$(readlink "$CACHE"/snapshots/*/onnx/model.onnx)" = "../../../blobs/$(git hash-object "$REPO/onnx/model.onnx")" ]
    [ "$(apr pull org/tiny --include 'onnx/*' --include '*.md' --exclude README.md --dry-run -q | cut -f1)" = onnx/model.onnx ]
    [ "$(apr pull org/tiny --exclude 'model*' -n -q --json | jq -r '[.files[].name] | join(" ")')" = "README.md config.json tokenizer.json" ]
    fails 3 "selected" apr pull org/tiny --include nothing
    fails 3 "no such revision" apr pull org/tiny --revision v9
    fails 3 "no such repository" apr pull org/none
    fails 3 'no file "x.bin"' apr pull hf://org/tiny/x.bin
    apr pull org/tiny@refs/pr/1 -q
    [ -s "$CACHE/refs/refs/pr/1" ]

    local g=$T/root/org/ggufs
    mkdir -p "$g"
    for q in Q8_0 Q4_K_M Q2_K; do echo $q >"$g/m-$q.gguf"; done
    echo x >"$g/mmproj-Q4_K_M.gguf"
    run --separate-stderr apr pull org/ggufs
    [[ $output == */m-Q4_K_M.gguf ]]
    [ "$(apr pull org/ggufs -n -q | wc -l)" -eq 1 ]
    rm "$g/m-Q4_K_M.gguf" "$g/m-Q8_0.gguf"
    for i in 1 2; do echo $i >"$g/m-Q8_0-0000$i-of-00002.gguf"; done
    run --separate-stderr apr pull org/ggufs
    [[ $output == */m-Q8_0-00001-of-00002.gguf ]]
    [ -e "${output%1-of*}2-of-00002.gguf" ]

    mkdir -p "$T/root/org/pickled"
    echo x >"$T/root/org/pickled/pytorch_model.bin"
    fails 3 "pickled" apr pull org/pickled
    mkdir -p "$T/root/org/gone"
    echo '{"weight_map":{"a":"model-1.safetensors"}}' >"$T/root/org/gone/model.safetensors.index.json"
    fails 4 "names model-1.safetensors, which is missing" apr pull org/gone
    echo '{"weight_map":{"a":"../../x.safetensors"}}' >"$T/root/org/gone/model.safetensors.index.json"
    fails 4 "no name of a shard" apr pull org/gone
}

@test "hub: a model in shards is complete, and other verbs take hf:// names" {
    mkdir -p "$T/root/org"
    cp -r tests/data/apr-demo-8M-Instruct "$T/root/org/demo"
    start_hub --cdn
    apr import hf://org/demo -q -o "$T/a.apr"
    apr import "$(apr pull org/demo -q)" -q -o "$T/b.apr"
    cmp "$T/a.apr" "$T/b.apr"
    apr inspect "$T/a.apr" --provenance --json | grep -q "$(sha256sum tests/data/apr-demo-8M-Instruct/model-00003-of-00004.safetensors | cut -d' ' -f1)"
    stop_hubs
    apr inspect hf://org/demo --offline --json | jq -e '.tensor_count > 10'
    run apr inspect hf://org/none --offline
    [ "$status" -eq 3 ]
    rm "$HF_HOME"/hub/models--org--demo/snapshots/*/model-00002-of-00004.safetensors
    run apr inspect hf://org/demo --offline
    [ "$status" -eq 3 ]
}

@test "fault: a connection cut at half is continued with Range, also by a later run" {
    make_repo
    start_hub --cdn --fault cut=1
    apr pull org/tiny 2>"$T/err"
    pulled
    grep -q 'ended' "$T/err"
    grep -q $'^cdn.*bytes=150000-.*206' "$LOG"
    stop_hubs
    rm -rf "$HF_HOME"
    start_hub --fault cut
    fails 10 "ended" apr pull org/tiny --retries 0
    [ "$(stat -c %s "$CACHE/blobs/$SHA.incomplete")" -eq 150000 ]
    stop_hubs
    start_hub
    apr pull org/tiny -q
    pulled
    grep -q $'bytes=150000-.*206' "$LOG"
}

@test "fault: 200 in answer to Range starts over" {
    make_repo
    start_hub --fault cut=1 --fault no-range
    apr pull org/tiny -q
    pulled
    grep -q $'bytes=150000-.*\t200' "$LOG"
}

@test "fault: wrong bytes and wrong sizes never enter the cache" {
    make_repo
    start_hub --fault wrong-hash
    fails 4 "expected $SHA" apr pull org/tiny
    [[ ${lines[-1]} == *"SHA-256 is "* ]]
    [ ! -e "$CACHE/blobs/$SHA" ] && [ ! -e "$CACHE/blobs/$SHA.incomplete" ]
    nothing_wrong_in_cache
    stop_hubs
    start_hub --fault short
    fails 4 "sends 299999 bytes, expected 300000" apr pull org/tiny
    nothing_wrong_in_cache
    stop_hubs
    start_hub --fault html
    fails 4 "HTML" apr pull org/tiny
    nothing_wrong_in_cache
    stop_hubs
    start_hub --fault endless
    fails 4 "more than the expected 300000" apr pull org/tiny
    [ "$(du -sk "$CACHE" | cut -f1)" -lt 1000 ]
    nothing_wrong_in_cache
    stop_hubs
    start_hub --fault api-html
    fails 4 "org/tiny@main" apr pull org/tiny
    nothing_wrong_in_cache
}

@test "fault: a spoiled part of an earlier run costs one more download, not the file" {
    make_repo
    mkdir -p "$CACHE/blobs"
    head -c 1000 /dev/zero >"$CACHE/blobs/$SHA.incomplete"
    start_hub
    apr pull org/tiny 2>"$T/err"
    grep -q 'once more' "$T/err"
    pulled
    rm -rf "$HF_HOME"
    mkdir -p "$CACHE/blobs"
    head -c 300001 /dev/zero >"$CACHE/blobs/$SHA.incomplete"
    apr pull org/tiny -q
    pulled
}

@test "fault: a small file of the hub is checked by git's hash, and again in the cache" {
    make_repo
    start_hub --fault changed=1
    fails 4 "git's SHA-1" apr pull org/tiny
    run ! ls "$CACHE"/snapshots/*/README.md
    apr pull org/tiny -q
    local blob
    blob=$(readlink -f "$CACHE"/snapshots/*/config.json)
    printf '{"model_type":"qwenX"}\n' >"$blob"
    apr pull org/tiny -q
    cmp "$blob" "$REPO/config.json"
}

@test "fault: 429 with Retry-After and 503 are tried again, a bounded number of times" {
    make_repo
    start_hub --fault 429=1 --fault 503=1
    local start=$SECONDS
    apr pull org/tiny 2>"$T/err"
    grep -q 'HTTP 429' "$T/err"
    grep -q 'HTTP 503' "$T/err"
    [ $((SECONDS - start)) -ge 1 ]
    pulled
    stop_hubs
    rm -rf "$HF_HOME"
    start_hub --fault 503
    fails 10 "HTTP 503" apr pull org/tiny --retries 1
    [ "$(wc -l <"$LOG")" -eq 2 ]
    stop_hubs
    start_hub --fault late
    fails 10 "HTTP 429" apr pull org/tiny
    [ "$(wc -l <"$LOG")" -eq 1 ]
}

@test "fault: a hub that is down or limits us does not make a cached model unusable" {
    make_repo
    start_hub
    local dir
    dir=$(apr pull org/tiny -q)
    stop_hubs
    run --separate-stderr apr pull org/tiny
    [ "$status" -eq 0 ] && [ "$output" = "$dir" ]
    [[ $stderr == *"using the copy in the cache"* ]]
    start_hub --fault 429
    [ "$(apr pull org/tiny -q)" = "$dir" ]
    stop_hubs
    start_hub --fault private
    fails 10 "access refused" apr pull org/tiny
    fails 10 "" apr pull org/none --retries 0
}

@test "fault: gated and private repositories name HF_TOKEN; a token with a line break is refused" {
    make_repo
    start_hub --fault gated
    fails 10 "gated repository" apr pull org/tiny
    unset HF_TOKEN
    fails 10 "set HF_TOKEN" apr pull org/tiny
    mkdir -p "$HF_HOME"
    echo hf_from_file >"$HF_HOME/token"
    run apr pull org/tiny
    grep -q 'Bearer hf_from_file' "$LOG"
    HF_TOKEN=$'a\r\nX-Evil: 1' fails 2 "HF_TOKEN" apr pull org/tiny
    run ! grep -i evil "$LOG"
    [[ $output != *hf_secret* ]]
}

@test "fault: redirect loops, other schemes, another host" {
    make_repo
    start_hub --fault loop
    fails 10 "redirects" apr pull org/tiny
    [ "$(grep -c HEAD "$LOG")" -le 12 ]
    stop_hubs
    for where in file:///etc/passwd ftp://127.0.0.1/x 'gopher://x/'; do
        export HUB_REDIRECT=$where
        start_hub
        fails 10 "expected http or https" apr pull org/tiny
        stop_hubs
    done
    export HUB_REDIRECT=http://169.254.169.254/latest
    start_hub
    local start=$SECONDS
    fails 10 "" apr pull org/tiny --retries 0
    [ $((SECONDS - start)) -lt 5 ]
    nothing_wrong_in_cache
}

@test "fault: names that leave the cache are refused before anything is written" {
    make_repo
    local name
    for name in ../../../../x.json /etc/x 'a\b' $'a\nb' a//b a/../b . ..; do
        export HUB_EXTRA_NAME=$name
        start_hub
        fails 4 "expected a relative path" apr pull org/tiny
        [ ! -e "$CACHE" ]
        stop_hubs
    done
    fails 2 "no name" apr pull hf://../x
    fails 2 "no name" apr pull hf://org/tiny/../../x
    fails 2 "no revision" apr pull hf://org/tiny@..%2F..%2Fx
    fails 2 "no revision" apr pull org/tiny --revision ../../x
}

@test "fault: a connection that stands still is given up" {
    make_repo
    start_hub --fault stall=1
    apr pull org/tiny --timeout 2 2>"$T/err"
    pulled
    grep -qi 'too slow\|timed out\|timeout' "$T/err"
}

@test "killed in the middle: nothing half in place, the next pull continues" {
    make_repo
    start_hub --fault slow=1
    apr-pull pull org/tiny -q >/dev/null 2>&1 3>&- &
    local pid=$! part=$CACHE/blobs/$SHA.incomplete n=0
    until [ -s "$part" ]; do sleep 0.1; n=$((n + 1)); [ $n -lt 100 ]; done
    sleep 0.5
    kill -9 $pid
    wait $pid || true
    [ ! -e "$CACHE/blobs/$SHA" ] && [ ! -e "$CACHE/refs/main" ]
    local n_part
    n_part=$(stat -c %s "$part")
    [ "$n_part" -gt 0 ] && [ "$n_part" -lt 300000 ]
    fails 3 "not in the cache" apr pull org/tiny --offline
    apr pull org/tiny -q
    grep -q "bytes=$n_part-.*206" "$LOG"
    pulled
}

@test "interrupted: the signal's status, and the part stays" {
    make_repo
    start_hub --fault slow=1
    apr-pull pull org/tiny -q >/dev/null 2>&1 3>&- &
    local pid=$! part=$CACHE/blobs/$SHA.incomplete n=0 status=0
    until [ -s "$part" ]; do sleep 0.1; n=$((n + 1)); [ $n -lt 100 ]; done
    kill -TERM $pid
    wait $pid || status=$?
    [ "$status" -eq 143 ]
    [ -s "$part" ]
}

@test "four pulls at once: one download of each file, one correct cache" {
    make_repo
    start_hub --fault slow=1
    local pids='' pid
    for _ in 1 2 3 4; do
        apr pull org/tiny -q >>"$T/out" 2>&1 3>&- &
        pids="$pids $!"
    done
    for pid in $pids; do wait "$pid"; done
    [ "$(sort -u "$T/out" | wc -l)" -eq 1 ]
    [ "$(grep -c $'GET\t.*model.safetensors' "$LOG")" -eq 1 ]
    pulled
    apr pull org/tiny --offline -q
}

@test "a cache that cannot be written, and a file larger than the limit" {
    make_repo
    start_hub
    mkdir -p "$T/file"
    : >"$T/file/hub"
    HF_HOME=$T/file fails 7 "hub" apr pull org/tiny
    fails 4 "more than the limit" apr pull org/tiny --max-size 100k
    nothing_wrong_in_cache
}

@test "url: to APR_HOME, cached by ETag, continued, checked" {
    make_repo
    start_hub --fault cut=1
    local url=$HF_ENDPOINT/file/org/tiny/model.safetensors path
    path=$(apr pull "$url?x=1" -q)
    [[ $path == "$APR_HOME"/downloads/*/model.safetensors ]]
    cmp "$path" "$REPO/model.safetensors"
    grep -q $'bytes=150000-.*206' "$LOG"
    run ! grep -q secret "$LOG"
    apr pull "$url?x=1" --json | jq -e --arg sha "$SHA" '.files[0] | .cached and .sha256 == $sha and .size_bytes == 300000'
    grep -q $'\t304$' "$LOG"
    apr pull "$url?x=1" --offline
    fails 3 "offline" apr pull "$url" --offline
    fails 4 "expected 0000" apr pull "$url" -o "$T/x" --sha256 "$(printf '0%.0s' $(seq 64))"
    [ ! -e "$T/x" ] && [ ! -e "$T/x.incomplete" ]
    apr pull "$url" -q -o "$T/x" --sha256 "$SHA"
    cmp "$T/x" "$REPO/model.safetensors"
    [ "$(find "$T" -maxdepth 1 -name 'x*' | wc -l)" -eq 1 ]
    fails 2 "--force" apr pull "$url" -o "$T/x"
    fails 3 "HTTP 404" apr pull "$HF_ENDPOINT/file/none.gguf"
    fails 4 "more than the limit" apr pull "$url" -o "$T/y" --max-size 1000
    printf '\n<!DOCTYPE html><p>' >"$REPO/page.gguf"
    fails 4 "HTML page" apr pull "$HF_ENDPOINT/file/org/tiny/page.gguf"
    head -c 300000 /dev/urandom >"$REPO/model.safetensors"
    apr pull "$url?x=1" -q
    cmp "$path" "$REPO/model.safetensors"
}

@test "url: what changed on the server between two runs is not glued together; no end is no end" {
    make_repo
    start_hub --fault cut
    local url=$HF_ENDPOINT/file/org/tiny/model.safetensors port
    fails 10 "ended" apr pull "$url" -o "$T/x" --retries 0
    [ -s "$T/x.incomplete" ]
    stop_hubs
    start_hub
    port=${HF_ENDPOINT##*:}
    sed -i "s|127.0.0.1:[0-9]*|127.0.0.1:$port|" "$T/x.incomplete.json"
    url=$HF_ENDPOINT/file/org/tiny/model.safetensors
    head -c 300000 /dev/urandom >"$REPO/model.safetensors"
    apr pull "$url" -o "$T/x" -q
    cmp "$T/x" "$REPO/model.safetensors"
    grep -q $'bytes=150000-.*\t200' "$LOG"
    stop_hubs
    start_hub --fault endless
    fails 4 "more than the expected" apr pull "$HF_ENDPOINT/file/org/tiny/model.safetensors" -o "$T/e" --max-size 2M
    [ ! -e "$T/e.incomplete" ]
}

@test "https: certificates are checked, a failed check is final, https never becomes http" {
    command -v openssl >/dev/null || skip "openssl is not here"
    make_repo
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$T/key" -out "$T/cert" -days 2 -subj /CN=127.0.0.1 \
        -addext subjectAltName=IP:127.0.0.1 2>/dev/null
    start_hub --tls "$T/cert" "$T/key"
    HF_ENDPOINT=https://${HF_ENDPOINT#http://}
    local start=$SECONDS
    fails 10 "secure connection was refused" apr pull org/tiny
    [ $((SECONDS - start)) -lt 3 ]
    SSL_CERT_FILE=$T/cert apr pull org/tiny -q
    pulled
    fails 10 "secure connection was refused" apr pull org/tiny
    stop_hubs
    rm -rf "$HF_HOME"
    export HUB_REDIRECT=http://127.0.0.1:9/x
    start_hub --tls "$T/cert" "$T/key"
    HF_ENDPOINT=https://${HF_ENDPOINT#http://}
    SSL_CERT_FILE=$T/cert fails 10 "from https to http" apr pull org/tiny
}

@test "local: a folder or file is checked, its path printed as given" {
    local m=tests/data/apr-demo-8M-Instruct
    [ "$(apr pull $m)" = $m ]
    [ "$(apr pull "file://$PWD/$m" -q)" = "$PWD/$m" ]
    cp -r $m "$T/m"
    rm "$T/m/model-00002-of-00004.safetensors"
    run apr pull "$T/m"
    [ "$status" -eq 3 ] || [ "$status" -eq 4 ]
    head -c 1000 $m/model-00001-of-00004.safetensors >"$T/cut.safetensors"
    fails 4 "cut.safetensors" apr pull "$T/cut.safetensors"
    fails 3 "not found" apr pull ./none/such
    fails 3 "not found" apr pull none
    fails 2 "unknown scheme" apr pull s3://x/y
    fails 2 "revision" apr pull $m --revision x
    fails 2 "expected http" apr pull http://
    local f=$m/model-00001-of-00004.safetensors
    apr pull $f --sha256 "$(sha256sum $f | cut -d' ' -f1)"
    fails 4 "SHA-256" apr pull $f --sha256 "$(printf '1%.0s' $(seq 64))"
}

@test "list: both caches with sizes, a broken link hides nothing" {
    make_repo
    run -0 apr list --json
    [ "$(jq -c '.models' <<<"$output")" = '[]' ]
    start_hub
    apr pull org/tiny -q
    apr pull "$HF_ENDPOINT/file/org/tiny/model.safetensors" -q
    echo x >"$APR_HOME/own.apr"
    mkdir -p "$HF_HOME/hub/models--a--broken/snapshots/$(printf '0%.0s' $(seq 40))"
    ln -s ../../blobs/none "$HF_HOME/hub/models--a--broken/snapshots/$(printf '0%.0s' $(seq 40))/config.json"
    run --separate-stderr apr ls --json
    [ "$(jq -r '.models | map("\(.name | sub("[0-9a-f]{16}"; "K")) \(.kind) \(.format) \(.complete)") | join(",")' <<<"$output")" = \
        "a/broken hub - false,org/tiny hub safetensors true,downloads/K/model.safetensors download safetensors true,own.apr built apr true" ]
    [ "$(jq '.models[1].size_bytes' <<<"$output")" -ge 300000 ]
    [ "$(jq '[.models[].size_bytes] | add' <<<"$output")" -eq "$(jq .total_size_bytes <<<"$output")" ]
    apr list | grep -q 'org/tiny'
}

@test "rm: a repository, a revision, a file, a download; shared data stays; nothing outside" {
    make_repo
    start_hub
    apr pull org/tiny -q
    local first second
    first=$(cat "$CACHE/refs/main")
    echo '{"model_type":"llama"}' >"$REPO/config.json"
    apr pull org/tiny -q
    second=$(cat "$CACHE/refs/main")
    [ "$first" != "$second" ]
    apr rm "org/tiny@$first" --dry-run --json | jq -e '.dry_run and (.removed | length >= 2)'
    [ -d "$CACHE/snapshots/$first" ]
    apr rm "org/tiny@$first" --json | jq -e '.dry_run == false'
    [ ! -e "$CACHE/snapshots/$first" ]
    pulled
    [ "$(find "$CACHE/blobs" -type f | wc -l)" -eq 4 ]
    apr rm hf://org/tiny/README.md >/dev/null
    [ "$(find "$CACHE/blobs" -type f | wc -l)" -eq 3 ]
    local path
    path=$(apr pull "$HF_ENDPOINT/file/org/tiny/model.safetensors" -q)
    apr rm "$path" >/dev/null
    [ -z "$(find "$APR_HOME" -type f)" ]
    echo mine >"$T/mine"
    ln -s "$T/mine" "$APR_HOME/link.apr"
    fails 2 "outside the caches" apr rm "$T/mine"
    fails 2 "outside the caches" apr rm "$APR_HOME/../mine"
    fails 2 "outside the caches" apr rm "$APR_HOME"
    fails 2 "outside the caches" apr rm "$HF_HOME"
    fails 3 "not" apr rm org/none
    apr rm "$APR_HOME/link.apr" >/dev/null
    [ -s "$T/mine" ] && [ ! -L "$APR_HOME/link.apr" ]
    exec 8<"$HF_HOME/hub/.locks/models--org--tiny/$SHA.lock"
    flock 8
    fails 7 "download is running" apr remove org/tiny
    exec 8<&-
    apr remove org/tiny >/dev/null
    [ ! -e "$CACHE" ]
}

@test "cache places: HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME, HOME, in this order" {
    make_repo
    start_hub
    local env=(env -u HF_HOME -u APR_HOME HOME="$T/h")
    [[ $("${env[@]}" apr pull org/tiny -q) == "$T/h/.cache/huggingface/hub/models--org--tiny/"* ]]
    [[ $("${env[@]}" XDG_CACHE_HOME="$T/x" apr pull org/tiny -q) == "$T/x/huggingface/hub/"* ]]
    [[ $("${env[@]}" XDG_CACHE_HOME="$T/x" HF_HOME="$T/y" apr pull org/tiny -q) == "$T/y/hub/"* ]]
    [[ $("${env[@]}" HF_HOME="$T/y" HF_HUB_CACHE="$T/z" apr pull org/tiny -q) == "$T/z/models--org--tiny/"* ]]
    fails 2 "set HOME" env -u HF_HOME -u HOME -u XDG_CACHE_HOME apr pull org/tiny
}

@test "proxy: http_proxy carries the requests, no_proxy keeps them away" {
    make_repo
    start_hub
    unset no_proxy
    fails 10 "" env http_proxy=http://127.0.0.1:9 apr pull org/tiny --retries 0
    fails 10 "" env HTTP_PROXY=http://127.0.0.1:9 apr pull org/tiny --retries 0
    run -0 env http_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1 apr pull org/tiny
    pulled
}
