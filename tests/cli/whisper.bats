#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# Speech: encoder and logits against transformers, log-mel against numpy, sound files, transcripts, conversion.

load infer

setup() {
    infer_setup
    WHISPER=${APR_SHARED:-../shared}/fixtures/families/whisper
    REF=tests/tools/encoder-reference
    [ -d "$WHISPER" ] || skip "the fixtures are not here: $WHISPER"
    IDS=1,5,9,20
}

need_numpy() { /usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"; }

# A sound without numpy: RATE SECONDS FILE [CHANNELS]
tone() {
    local rate=$1 seconds=$2 file=$3 channels=${4:-1}
    /usr/bin/python3 - "$rate" "$seconds" "$file" "$channels" <<'END'
import math, struct, sys
rate, n, ch = int(sys.argv[1]), int(float(sys.argv[2]) * int(sys.argv[1])), int(sys.argv[4])
d = b"".join(struct.pack("<h", int(9000 * math.sin(2 * math.pi * 440 * i / rate))) * ch for i in range(n))
open(sys.argv[3], "wb").write(b"RIFF" + struct.pack("<I", 36 + len(d)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, ch, rate,
                              rate * 2 * ch, 2 * ch, 16) + b"data" + struct.pack("<I", len(d)) + d)
END
}

# Largest difference over the rms of the second file
relative() {
    [ "$(wc -c <"$1")" -eq "$(wc -c <"$2")" ] || { echo "sizes differ"; return 0; }
    paste <(od -An -v -w4 -tf4 "$1") <(od -An -v -w4 -tf4 "$2") |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= m)) m = d; s += $2 * $2; n++ } END { print n ? (m + 0) / sqrt(s / n) : "nothing" }'
}

stage() { # MODEL STAGE FILE [OPTION...]
    apr logits "$1" --features "$WHISPER/features.f32" --ids "$IDS" --stage "$2" -q --force -o "$3" "${@:4}"
}

@test "encoder and logits: 1e-3 of the rms in reference mode, 1e-2 by default; SafeTensors and .apr" {
    apr import "$WHISPER" -q -o "$T/m.apr"
    for m in "$WHISPER" "$T/m.apr"; do
        for s in encoder logits; do
            stage "$m" $s "$T/got.f32" --exact
            d=$(relative "$T/got.f32" "$WHISPER/$s.f32")
            echo "$m $s --exact: $d"
            at_most "$d" 1e-3
            stage "$m" $s "$T/got.f32"
            at_most "$(relative "$T/got.f32" "$WHISPER/$s.f32")" 1e-2
        done
    done
    run apr logits "$WHISPER" --features "$WHISPER/features.f32" --ids "$IDS" -o "$T/l.f32" -q --json
    [ "$(jq -c '[.what, .shape, .ids]' <<<"$output")" = '["logits",[4,512],[1,5,9,20]]' ]
}

@test "the comparison can fail: other sound, other logits" {
    head -c 64000 /dev/zero >"$T/zero.f32"
    apr logits "$WHISPER" --features "$T/zero.f32" --ids "$IDS" -q -o "$T/got.f32"
    run at_most "$(relative "$T/got.f32" "$WHISPER/logits.f32")" 1e-2
    [ "$status" -eq 1 ]
}

@test "the same bits for any thread count and kernel table, token by token or at once" {
    for exact in "" --exact; do
        # shellcheck disable=SC2086 # words
        stage "$WHISPER" logits "$T/one.f32" -t 1 $exact
        # shellcheck disable=SC2086 # words
        stage "$WHISPER" logits "$T/three.f32" -t 3 $exact
        cmp "$T/one.f32" "$T/three.f32"
        # shellcheck disable=SC2086 # words
        APR_KERN=scalar stage "$WHISPER" logits "$T/scalar.f32" $exact
        cmp "$T/one.f32" "$T/scalar.f32"
        # shellcheck disable=SC2086 # words
        apr logits "$WHISPER" --features "$WHISPER/features.f32" --ids 1,5 -q --force -o "$T/two.f32" $exact
        cmp -n 4096 "$T/one.f32" "$T/two.f32"
    done
}

@test "log-mel frames equal numpy's" {
    need_numpy
    for kind in tone noise chirp silence; do
        $REF sound $kind 16000 1.73 "$T/$kind.wav"
        $REF mel "$T/$kind.wav" 80 "$T/want.f32"
        apr logits "$WHISPER" --sound "$T/$kind.wav" --stage features -q --force -o "$T/got.f32"
        [ "$(wc -c <"$T/got.f32")" -eq $((173 * 80 * 4)) ]
        d=$(relative "$T/got.f32" "$T/want.f32")
        echo "$kind: $d"
        at_most "$d" 1e-6
    done
    # the frames of the file are those of the features
    /usr/bin/python3 - "$T/got.f32" "$T/turned.f32" <<'END'
import sys, numpy as np
np.fromfile(sys.argv[1], "<f4").reshape(-1, 80).T.tofile(sys.argv[2])
END
    apr logits "$WHISPER" --sound "$T/silence.wav" --stage encoder -q -o "$T/a.f32"
    apr logits "$WHISPER" --features "$T/turned.f32" --stage encoder -q -o "$T/b.f32"
    cmp "$T/a.f32" "$T/b.f32"
}

@test "rates and channels: the same sound gives nearly the same frames" {
    tone 16000 1 "$T/16.wav"
    apr logits "$WHISPER" --sound "$T/16.wav" --stage features -q -o "$T/want.f32"
    for how in "44100 1" "48000 2" "8000 1" "22050 6"; do
        # shellcheck disable=SC2086 # words
        set -- $how
        tone "$1" 1 "$T/other.wav" "$2"
        apr logits "$WHISPER" --sound "$T/other.wav" --stage features -q --force -o "$T/got.f32"
        # bands of the tone, away from the ends, where the ends of the filters show
        paste <(od -An -v -w4 -tf4 "$T/want.f32") <(od -An -v -w4 -tf4 "$T/got.f32") |
            awk '{ f = int((NR - 1) / 80) } f >= 10 && f < 90 && $1 > 0.5 { d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d; n++ } END { print m; exit !(n > 150 && m < 0.01) }'
    done
}

@test "transcripts: a file and standard input, text, srt, vtt and json" {
    tone 16000 3 "$T/a.wav"
    apr import "$WHISPER" -q -o "$T/m.apr"
    run --separate-stderr apr run "$T/m.apr" "$T/a.wav" --format json
    [ "$status" -eq 0 ]
    json=$output
    jq -e '[.schema, .task, .duration_s, (.segments | length), .n_windows] == ["apr.transcribe/1", "transcribe", 3, 2, 2]' <<<"$json"
    jq -e '[.segments[] | [.id, .start_s, .end_s]] == [[0, 0, 2], [1, 2, 3]]' <<<"$json"
    [ "$(jq -r '[.segments[].text] | join(" ")' <<<"$json")" = "$(jq -r .text <<<"$json")" ]
    [ "$(apr run "$T/m.apr" - --json -q <"$T/a.wav")" = "$json" ]
    [ "$(apr run "$WHISPER" "$T/a.wav" --json -q -t 1 | jq .text)" = "$(jq .text <<<"$json")" ]
    [ "$(head -c 1000000 "$T/a.wav" | apr run "$T/m.apr" -i - -q)" = "$(jq -r '.segments[].text' <<<"$json")" ]
    run apr run "$T/m.apr" "$T/a.wav" --format srt -q
    [ "${lines[0]}" = 1 ]
    [ "${lines[1]}" = '00:00:00,000 --> 00:00:02,000' ]
    [ "${lines[2]}" = "$(jq -r '.segments[0].text' <<<"$json")" ]
    run apr run "$T/m.apr" "$T/a.wav" --format vtt -q
    [ "${lines[0]}" = WEBVTT ]
    [ "${lines[1]}" = '00:00.000 --> 00:02.000' ]
    # the same seed gives the same text, another one another
    [ "$(apr run "$T/m.apr" "$T/a.wav" --json -q --seed 1 | jq .text)" = "$(apr run "$T/m.apr" "$T/a.wav" --json -q --seed 1 -t 1 | jq .text)" ]
    [ "$(apr run "$T/m.apr" "$T/a.wav" --json -q --no-fallback | jq '.n_attempts + .segments[0].temperature')" = 2 ]
    [ "$(apr run "$T/m.apr" "$T/a.wav" --json -q --no-fallback -n 5 | jq '.segments[0].tokens | length')" -eq 5 ]
}

@test "greedy decoding says the likeliest tokens" {
    tone 16000 1.5 "$T/a.wav"
    apr run "$WHISPER" "$T/a.wav" --json -q --exact --no-fallback -n 6 >"$T/json"
    ids=1
    for k in 0 1 2 3 4 5; do
        apr logits "$WHISPER" --sound "$T/a.wav" --ids "$ids" --exact -q --force -o "$T/l.f32"
        # the start token is never said
        next=$(tail -c 2048 "$T/l.f32" | od -An -v -w4 -tf4 | awk 'NR != 2 && (NR == 1 || $1 > m) { m = $1; i = NR - 1 } END { print i }')
        [ "$next" -eq "$(jq ".segments[0].tokens[$k]" "$T/json")" ]
        ids=$ids,$next
    done
}

@test "no sound, and what is no sound" {
    tone 16000 0 "$T/empty.wav"
    run --separate-stderr apr run "$WHISPER" "$T/empty.wav"
    [ "$status" -eq 0 ]
    [ -z "$output" ]
    run apr run "$WHISPER" "$T/none.wav"
    [ "$status" -eq 3 ]
    run apr run "$WHISPER" README.md
    [ "$status" -eq 4 ]
    [[ $output == *'not a WAVE file'* ]]
    tone 16000 1 "$T/a.wav"
    head -c 20000 "$T/a.wav" >"$T/cut.wav"
    run apr run "$WHISPER" "$T/cut.wav"
    [ "$status" -eq 4 ]
    [[ $output == *'ends at byte 20000'* ]]
    : >"$T/nothing"
    run apr run "$WHISPER" "$T/nothing"
    [ "$status" -eq 4 ]
    run apr run "$WHISPER" - <README.md
    [ "$status" -eq 4 ]
    run apr run "$WHISPER"
    [ "$status" -eq 2 ]
}

@test "options of the other kind are refused, each by its name" {
    tone 16000 1 "$T/a.wav"
    for bad in "--system x" "--raw" "--chat" "--stop x" "--top-k 3" "--repeat-penalty 1.1" "--template-name rag" "--task sing" "--language de" \
        "--timestamps" "--task translate" "--format xml" "--best-of 1000" "--temperature 2" "--json --format srt" "-c 32"; do
        # shellcheck disable=SC2086 # words
        run apr run "$WHISPER" "$T/a.wav" $bad
        echo "$bad: $status $output"
        [ "$status" -eq 2 ]
        name=${bad%% *}
        [[ $output == *"${name#--}"* || $output == *ctx-size* ]]
    done
    for bad in "--language de" "--task translate" "--timestamps" "--no-timestamps" "--best-of 2" "--format srt"; do
        # shellcheck disable=SC2086 # words
        run apr run "$MODEL" hi $bad
        [ "$status" -eq 2 ]
    done
    run apr logits "$WHISPER" --ids 1 -o "$T/l.f32"
    [ "$status" -eq 2 ]
    [[ $output == *--features* ]]
    run apr logits "$MODEL" --features x --ids 1 -o "$T/l.f32"
    [ "$status" -eq 2 ]
    run apr logits "$WHISPER" --features "$WHISPER/features.f32" --ids 1 --stage middle -o "$T/l.f32"
    [ "$status" -eq 2 ]
    head -c 1000 "$WHISPER/features.f32" >"$T/short"
    run apr logits "$WHISPER" --features "$T/short" --ids 1 -o "$T/l.f32"
    [ "$status" -eq 4 ]
    run apr eval "$WHISPER" --text hello
    [ "$status" -eq 6 ]
    [[ $output == *'apr run MODEL SOUND.wav'* ]]
}

@test "conversion: bit-exact back, every type computes, convolutions keep theirs, GGUF is refused" {
    apr import "$WHISPER" -q -o "$T/m.apr"
    apr export "$T/m.apr" --format safetensors -q -o "$T/out"
    cmp "$T/out/model.safetensors" "$WHISPER/model.safetensors"
    for f in config generation_config; do [ "$(jq -cS 'del(.torch_dtype, .dtype)' "$T/out/$f.json")" = "$(jq -cS 'del(.torch_dtype, .dtype)' "$WHISPER/$f.json")" ]; done
    for t in "f16 1e-2" "q8_0 0.2" "q4_k_m 0.7" "int8 0.3" "f32 1e-3"; do
        # shellcheck disable=SC2086 # words
        set -- $t
        apr convert "$WHISPER" --quantize "$1" -q --force -o "$T/q.apr"
        stage "$T/q.apr" logits "$T/got.f32"
        d=$(relative "$T/got.f32" "$WHISPER/logits.f32")
        echo "$1: $d"
        at_most "$d" "$2"
        apr tensors "$T/q.apr" --json | jq -e '[.tensors[] | select(.name | test("conv[12].weight")) | .dtype | ascii_downcase] | length == 2 and all(. == "bf16" or . == "f16" or . == "f32")'
    done
    [ "$(apr tensors "$T/q.apr" --json | jq '[.tensors[]] | length')" -eq "$(apr tensors "$T/m.apr" --json | jq '[.tensors[]] | length')" ]
    run apr export "$T/m.apr" --format gguf -o "$T/m.gguf"
    [ "$status" -eq 6 ]
    [[ $output == *'cannot be written as GGUF'* ]]
    [ ! -e "$T/m.gguf" ]
}

@test "a broken speech model is refused by rule" {
    mkdir "$T/bad"
    cp "$WHISPER"/{model.safetensors,tokenizer.json} "$T/bad"
    for change in '.encoder_layers = 3|F-TENSOR-001' '.encoder_layers = 1|F-TENSOR-002' '.decoder_layers = 1|F-TENSOR-002' '.num_mel_bins = 128|F-LAYOUT-CONTRACT-001' \
        '.max_source_positions = 50|F-LAYOUT-CONTRACT-001' '.decoder_ffn_dim = 129|F-LAYOUT-CONTRACT-001' '.architectures = ["WhisperForAudioClassification"]|F-FAMILY-001'; do
        jq "${change%|*}" "$WHISPER/config.json" >"$T/bad/config.json"
        run apr run "$T/bad" README.md
        echo "$change: $status $output"
        [ "$status" -eq 5 ]
        [[ $output == *"${change#*|}"* ]]
    done
    for change in '.d_model = 0' '.activation_function = "mish"' '.scale_embedding = true' 'del(.encoder_layers)' '.decoder_attention_heads = 5'; do
        jq "$change" "$WHISPER/config.json" >"$T/bad/config.json"
        run apr run "$T/bad" README.md
        [ "$status" -ge 4 ] && [ "$status" -le 6 ]
        [[ $output == *config.json* ]]
    done
}
