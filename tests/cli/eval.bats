#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# eval: perplexity equal to transformers', thresholds, refusals.

load infer

setup() { infer_setup; }

near() { awk -v x="$1" -v want="$2" -v rel="$3" 'BEGIN { d = x / want - 1; exit !(d <= rel && d >= -rel) }'; }

@test "eval.txt in reference mode: 19.398 and 18.495 within 0.1 %" {
    run --separate-stderr apr eval "$MODEL" --file "$GOLDEN/eval.txt" --exact --json
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$(jq -c '[.n_toks, .n_windows, .window]' <<<"$output")" = "[24446,47,512]" ]
    near "$(jq .ppl_all <<<"$output")" "$(jq .ppl_all "$GOLDEN/perplexity.json")" 0.001
    near "$(jq .ppl_second_half <<<"$output")" "$(jq .ppl_second_half "$GOLDEN/perplexity.json")" 0.001
}

@test "default mode and other chunks give nearly and exactly the same" {
    head -c 6000 "$GOLDEN/eval.txt" >"$T/text"
    a=$(apr eval "$MODEL" --file "$T/text" --json -q --window 256 | jq -c '[.ppl_all, .ppl_second_half, .n_toks_predicted]')
    b=$(apr eval "$MODEL" --text "$(cat "$T/text")" --dataset custom --json -q --window 256 -b 33 -t 1 | jq -c '[.ppl_all, .ppl_second_half, .n_toks_predicted]')
    c=$(apr eval "$MODEL" --file - --json -q --window 256 --exact <"$T/text" | jq .ppl_all)
    echo "$a $b $c"
    [ "$(jq '.[2] > 500' <<<"$a")" = true ]
    near "$(jq '.[0]' <<<"$a")" "$c" 0.001
    [ "$(apr eval "$MODEL" --file "$T/text" --json -q --window 256 -b 33 -t 1 | jq -c '[.ppl_all, .ppl_second_half, .n_toks_predicted]')" = "$a" ]
    near "$(jq '.[0]' <<<"$b")" "$(jq '.[0]' <<<"$a")" 0.01
}

@test "a threshold answers with the status" {
    run apr eval "$MODEL" --file "$GOLDEN/eval.txt" --max-tokens 512 --threshold 1000
    [ "$status" -eq 0 ]
    run --separate-stderr apr eval "$MODEL" --file "$GOLDEN/eval.txt" --max-tokens 512 --threshold 1.5
    [ "$status" -eq 1 ]
    [[ $stderr == *"above the threshold 1.5"* ]]
    [[ $output == *"passed: no"* || $output == *"passed: false"* ]]
}

@test "misuse" {
    for args in "" "--file a --text b" "--dataset wikitext-2 --text abc" "--text a" "--text abc --window 1" "--text abc --threshold 0"; do
        # shellcheck disable=SC2086 # words
        run --separate-stderr apr eval "$MODEL" $args
        echo "$args -> $status $stderr"
        [ "$status" -eq 2 ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
    done
    run apr eval "$MODEL" --file "$T/absent"
    [ "$status" -eq 3 ]
}
