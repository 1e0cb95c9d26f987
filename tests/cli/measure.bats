#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# bench, eval against another model and on datasets, trace: numbers that have a reference, forms of output, refusals.

load infer

setup() { infer_setup; }

near() { awk -v x="$1" -v want="$2" -v rel="$3" 'BEGIN { d = x / want - 1; exit !(d <= rel && d >= -rel) }'; }

# ---- bench ----

@test "bench: tests by lists and ranges, at depths, named as llama-bench names them" {
    run -0 --separate-stderr apr bench "$MODEL" -p 8,16-32+16 -n 2 --pg 8,2 -d 0,20 -r 2 --warmup 0 -t 1 --json
    want='["pp8","pp16","pp32","tg2","pp8+tg2","pp8 @ d20","pp16 @ d20","pp32 @ d20","tg2 @ d20","pp8+tg2 @ d20"]'
    [ "$(jq -c '[.tests[].test]' <<<"$output")" = "$want" ]
    jq -e '.schema == "apr.bench/1" and .n_iterations == 2 and .n_prompt_toks == 8 and .n_generated == 2' <<<"$output"
    jq -e '[.tests[] | (.samples_toks_per_s | length) == 2 and .toks_per_s.min <= .toks_per_s.mean and .toks_per_s.mean <= .toks_per_s.max
            and .latency_ms.median <= .latency_ms.p95 and .latency_ms.p95 <= .latency_ms.p99 and .latency_ms.p99 <= .latency_ms.max
            and .toks_per_s.mean > 0 and .n_threads == 1] | all' <<<"$output"
    jq -e '[.tests[] | .size_bytes == 16794112 and .n_params == 8397056 and .type == "BF16"] | all' <<<"$output"
}

@test "bench: mean, deviation and CV are those of the samples" {
    run -0 --separate-stderr apr bench "$MODEL" -p 8 -n 0 -r 5 --warmup 0 -o json
    jq -e '.tests[0] | .samples_toks_per_s as $s | ($s | add / length) as $m |
        (($s | map((. - $m) * (. - $m)) | add) / 4 | sqrt) as $sd |
        ((.toks_per_s.mean / $m - 1) | fabs) < 1e-9 and ((.toks_per_s.sd - $sd) | fabs) < 1e-6 * $m and
        ((.toks_per_s.cv_pct - 100 * $sd / $m) | fabs) < 1e-6 and .toks_per_s.median == ($s | sort | .[2])' <<<"$output"
}

@test "bench: md, jsonl and csv say the same tests; models, threads and chunks multiply" {
    run -0 --separate-stderr apr bench "$MODEL" "$MODEL" -p 8 -n 2 -r 1 --warmup 0 -t 1-2 -b 4,512
    [ "${#lines[@]}" -eq 18 ]
    [[ "${lines[0]}" == "| model |"*"| test | t/s | p50 ms | p95 ms | p99 ms | CV % |" ]]
    [ "$(grep -c '| pp8 |' <<<"$output")" -eq 8 ]
    run -0 --separate-stderr apr bench "$MODEL" -p 8 -n 2 -r 1 --warmup 0 -t 1,2 -o jsonl
    [ "$(jq -c '[.test, .n_threads]' <<<"$output" | tr -d '\n')" = '["pp8",1]["tg2",1]["pp8",2]["tg2",2]' ]
    run -0 --separate-stderr apr bench "$MODEL" -p 8 -n 2 -r 1 --warmup 0 -t 1 -o csv
    [ "${#lines[@]}" -eq 3 ]
    [ "$(awk -F, '{ print NF }' <<<"$output" | sort -u)" = 23 ]
    [ "$(cut -d, -f8 <<<"$output" | tr '\n' ' ')" = "test pp8 tg2 " ]
}

@test "bench: a text instead of drawn tokens; sizes not given shrink to the context" {
    run -0 --separate-stderr apr bench "$MODEL" --prompt "The quick brown fox" -n 1 -r 1 --warmup 0 --json
    n=$(apr tokenize "$MODEL" "The quick brown fox" --json | jq '.ids | length')
    [ "$(jq '.n_prompt_toks' <<<"$output")" -eq "$n" ]
    run -0 --separate-stderr apr bench "$MODEL" -c 40 -d 10 -r 1 --warmup 0 --json
    [ "$(jq -c '[.tests[].test]' <<<"$output")" = '["pp30 @ d10","tg30 @ d10"]' ]
}

@test "bench --parallel: sequences together, in every form; what does not fit is refused" {
    run -0 --separate-stderr apr bench "$MODEL" --parallel 1,2-6*3 -p 20 -n 3 -d 4 -r 1 --warmup 0 -t 2 --json
    [ "$(jq -c '[.tests[] | [.test, .n_sequences, .n_depth, .n_gen]]' <<<"$output")" = \
        '[["tg3 x 1 @ d24",1,24,3],["tg3 x 2 @ d24",2,24,3],["tg3 x 6 @ d24",6,24,3]]' ]
    # the rate is of all sequences: 3 tokens of each in 3 steps
    jq -e '[.tests[] | (.latency_ms.mean * .toks_per_s.mean / 1000 / .n_sequences - 1) | fabs < 0.5] | all' <<<"$output"
    jq -e '.tests[2].cache_bytes == 6 * .tests[0].cache_bytes' <<<"$output"
    run -0 --separate-stderr apr bench "$MODEL" --parallel 2 -p 0 -n 2 -r 1 --warmup 0
    [[ "${lines[2]}" == *"| tg2 x 2 |"* ]]
    run -0 --separate-stderr apr bench "$MODEL" --parallel 3 -p 16 -n 2 -r 1 --warmup 0 -o csv
    [[ "${lines[0]}" == *,n_sequences,n_latency_toks ]]
    [[ "${lines[1]}" == *",tg2 x 3 @ d16,0,2,16,1,"*,3,1 ]]
    run -0 --separate-stderr apr bench "$MODEL" --parallel 2 -c 40 -r 1 --warmup 0 -o jsonl
    [ "$(jq -r .test <<<"$output")" = "tg40 x 2" ]
    for args in "--parallel 0" "--parallel 257" "--parallel 2 --pg 8,2" "--parallel 8 -b 4 -n 1" "--parallel 2 -p 5000 -n 2" "--parallel 2 -n 0"; do
        # shellcheck disable=SC2086 # words
        run --separate-stderr apr bench "$MODEL" -r 1 --warmup 0 $args
        echo "$args -> $status $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
    done
}

@test "bench: misuse is one line and no output, also after tests that ran" {
    for args in "-p x" "-p 8-4" "-p 4-8+0" "-p 0-8*2" "-pg 8,2" "--pg 8" "--pg 8-9" "-p 0 -n 0" "-r 0" "-o sql" "-o csv --json" \
        "-t 0" "-b 0" "-p 8, -n 0" "-p 1-1000000" "-p 4 -n 5000"; do
        # shellcheck disable=SC2086 # words
        run --separate-stderr apr bench "$MODEL" -r 1 --warmup 0 $args
        echo "$args -> $status $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
    done
    for form in md json jsonl csv; do
        run --separate-stderr apr bench "$MODEL" "$T/absent.gguf" -p 4 -n 1 -r 1 --warmup 0 -o $form
        [ "$status" -eq 3 ]
        [ -z "$output" ]
        run apr bench "$MODEL" -p 4 -n 0 -r 1 --warmup 0 -o $form -q >/dev/null
        run bash -c "apr bench '$MODEL' -p 4 -n 0 -r 1 --warmup 0 -o $form -q >/dev/full"
        [ "$status" -eq 7 ]
    done
}

# ---- eval ----

@test "eval --against itself: no divergence; against a quantized one: all numbers fit together" {
    head -c 4000 "$GOLDEN/eval-plain.txt" >"$T/text"
    run -0 --separate-stderr apr eval "$MODEL" --against "$MODEL" --file "$T/text" --window 128 --json -q
    jq -e '.against | .kl_nats.max < 1e-12 and .top1_agreement == 1 and .dp_rms == 0 and .ppl_ratio == 1 and .n_toks_compared > 500' <<<"$output"
    make_model q4k apr
    run -0 --separate-stderr apr eval "$T/m.apr" --against "$MODEL" --file "$T/text" --window 128 --json -q
    cat <<<"$output"
    jq -e '.n_toks_predicted as $n | .ppl_all as $m | .against |
        .n_toks_compared == $n and (($m / .ppl_all / .ppl_ratio - 1) | fabs) < 1e-9 and
        .kl_nats.mean > 0.05 and .kl_nats.mean < 1 and .kl_nats.median < .kl_nats.mean and .kl_nats.median <= .kl_nats.p95 and
        .kl_nats.p95 <= .kl_nats.p99 and .kl_nats.p99 <= .kl_nats.max and .top1_agreement > 0.5 and .top1_agreement < 1' <<<"$output"
    a=$(jq -c '[.ppl_all, .against]' <<<"$output")
    [ "$(apr eval "$T/m.apr" --against "$MODEL" --file "$T/text" --window 128 --json -q -t 1 -b 48 | jq -c '[.ppl_all, .against]')" = "$a" ]
    alone=$(apr eval "$MODEL" --file "$T/text" --window 128 --json -q | jq -c .ppl_all)
    [ "$(jq '.[1].ppl_all' <<<"$a")" = "$alone" ]
}

@test "eval --against: the divergence is the definition's, from logits of both models" {
    make_model q8_0 apr
    printf 'The quick brown fox jumps over the lazy dog and runs away.' >"$T/text"
    run -0 --separate-stderr apr eval "$T/m.apr" --against "$MODEL" --file "$T/text" --json -q
    apr logits "$T/m.apr" --prompt-file "$T/text" -o "$T/a" -q --force
    apr logits "$MODEL" --prompt-file "$T/text" -o "$T/b" -q --force
    want=$(paste <(od -An -v -w4 -tf4 "$T/a") <(od -An -v -w4 -tf4 "$T/b") | awk '
        { m[NR - 1] = $1; r[NR - 1] = $2 }
        END { v = 4096; rows = NR / v - 1
            for (t = 0; t < rows; t++) { zm = zr = 0
                for (i = 0; i < v; i++) { zm += exp(m[t * v + i]); zr += exp(r[t * v + i]) }
                for (i = 0; i < v; i++) kl += exp(r[t * v + i]) / zr * (r[t * v + i] - log(zr) - m[t * v + i] + log(zm)) }
            printf "%.9f\n", kl / rows }')
    echo "$want $(jq .against.kl_nats.mean <<<"$output")"
    near "$(jq .against.kl_nats.mean <<<"$output")" "$want" 0.001
}

@test "eval: limits on the divergence and the perplexity answer with the status" {
    make_model q4k apr
    head -c 1500 "$GOLDEN/eval-plain.txt" >"$T/text"
    run -0 --separate-stderr apr eval "$T/m.apr" --against "$MODEL" --file "$T/text" --max-kl 2 --max-ppl 100000 --json -q
    [ "$(jq .passed <<<"$output")" = true ]
    run -1 --separate-stderr apr eval "$T/m.apr" --against "$MODEL" --file "$T/text" --max-kl 0.0001 --json -q
    [ "$(jq .passed <<<"$output")" = false ]
    [[ $stderr == *"divergence"*"above the threshold 0.0001"* ]]
    run -1 --separate-stderr apr eval "$MODEL" --file "$T/text" --max-ppl 1.1 -q
    [[ $stderr == *"perplexity"*"above the threshold 1.1"* ]]
}

@test "eval --stride: every token once, with more before it" {
    head -c 4000 "$GOLDEN/eval-plain.txt" >"$T/text"
    plain=$(apr eval "$MODEL" --file "$T/text" --window 64 --json -q)
    strided=$(apr eval "$MODEL" --file "$T/text" --window 64 --stride 16 --json -q)
    n=$(jq .n_toks <<<"$plain")
    windows=$(((n - 64) / 16 + 1))
    [ "$(jq -c '[.n_windows, .n_toks_predicted, .stride]' <<<"$strided")" = "[$windows,$((63 + (windows - 1) * 16)),16]" ]
    [ "$(jq '.ppl_second_half' <<<"$strided")" = null ]
    jq -e --argjson p "$(jq .ppl_all <<<"$plain")" '.ppl_all < $p' <<<"$strided"
}

@test "eval --dataset wikitext: llama-perplexity's number" {
    [ -n "${APR_PEER_BIN:-}" ] || skip "APR_PEER_BIN does not name a folder with llama-perplexity"
    make_model q8_0 gguf
    head -c 12000 "$GOLDEN/eval-plain.txt" >"$T/text"
    want=$(LD_LIBRARY_PATH=$APR_PEER_BIN timeout 120 "$APR_PEER_BIN/llama-perplexity" -m "$T/m.gguf" -f "$T/text" -c 256 -t 2 2>&1 |
        sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p')
    got=$(apr eval "$T/m.gguf" --dataset wikitext --file "$T/text" --window 256 --json -q | jq .ppl_second_half)
    echo "$got $want"
    near "$got" "$want" 0.005
}

@test "eval --dataset lambada: last words, against the logits" {
    cat >"$T/l.jsonl" <<'LINES'
{"text": "The quick brown fox jumps over the lazy dog"}

{"text": "one two three four five six seven eight nine ten", "extra": 1}
LINES
    run -0 --separate-stderr apr eval "$MODEL" --dataset lambada --file "$T/l.jsonl" --exact --json -q
    cat <<<"$output"
    jq -e '.n_passages == 2 and .n_right <= 2 and .accuracy == .n_right / 2 and .ppl > 1' <<<"$output"
    sum=0 right=0 # the definition, from logits of all positions
    while read -r line; do
        [ -n "$line" ] || continue
        text=$(jq -r .text <<<"$line")
        n=$(apr tokenize "$MODEL" "${text% *}" --json | jq '.ids | length')
        ids=$(apr tokenize "$MODEL" "$text" --json | jq -r '.ids[]' | tr '\n' ' ')
        printf '%s' "$text" >"$T/p"
        apr logits "$MODEL" --prompt-file "$T/p" --exact -o "$T/l" -q --force
        read -r nll ok < <(od -An -v -w4 -tf4 "$T/l" | awk -v n="$n" -v ids="$ids" '
            BEGIN { k = split(ids, id, " "); v = 4096; ok = 1 }
            { x[NR - 1] = $1 }
            END { for (t = n; t < k; t++) { z = 0; best = 0
                    for (i = 0; i < v; i++) { l = x[(t - 1) * v + i]; z += exp(l); if (l > x[(t - 1) * v + best]) best = i }
                    nll += log(z) - x[(t - 1) * v + id[t + 1]]; if (best != id[t + 1]) ok = 0 }
                print nll, ok }')
        sum=$(awk "BEGIN { print $sum + $nll }") right=$((right + ok))
    done <"$T/l.jsonl"
    [ "$(jq .n_right <<<"$output")" -eq "$right" ]
    near "$(jq .ppl <<<"$output")" "$(awk "BEGIN { print exp($sum / 2) }")" 0.001
    run -1 --separate-stderr apr eval "$MODEL" --dataset lambada --file "$T/l.jsonl" --max-ppl 1.0001 -q
    for bad in '{"text": 3}' 'no json' '{"text": "word"}' '[]'; do
        printf '{"text": "a b"}\n%s\n' "$bad" >"$T/bad.jsonl"
        run --separate-stderr apr eval "$MODEL" --dataset lambada --file "$T/bad.jsonl" -q
        [ "$status" -eq 4 ]
        [ -z "$output" ]
        [[ $stderr == *"line 2"* ]]
    done
}

@test "eval: misuse" {
    for args in "--dataset wikitext" "--dataset lambada --text abc" "--dataset pile --text abc" "--text abc --max-kl 1" \
        "--text abc --stride 600" "--text abc --count second-half" "--text abc --count some" "--text abc --min-accuracy 0.5" \
        "--text abc --against $MODEL --max-kl -1"; do
        # shellcheck disable=SC2086 # words
        run --separate-stderr apr eval "$MODEL" $args
        echo "$args -> $status $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
        [ "$(wc -l <<<"$stderr")" -eq 1 ]
    done
    run -3 apr eval "$MODEL" --against "$T/absent" --text "some words here"
}

@test "eval --against a model of another vocabulary is refused" {
    families=${APR_SHARED:-../shared}/fixtures/families
    [ -d "$families/llama3" ] || skip "the fixtures are not here: $families"
    run --separate-stderr apr eval "$MODEL" --against "$families/llama3" --text "some words here" -q
    echo "$stderr"
    [ "$status" -eq 6 ]
    [ -z "$output" ]
}

# ---- trace ----

@test "trace: the golden statistics of every layer, in any chunk" {
    n_cases=0
    for i in $(jq '.cases | to_entries[] | select(.value.hidden) | .key' "$GOLDEN/generation.json"); do
        jq -j ".cases[$i].prompt" "$GOLDEN/generation.json" >"$T/prompt"
        for options in --exact "--exact -b 7 -t 1"; do
            # shellcheck disable=SC2086 # words
            apr trace "$MODEL" -i "$T/prompt" --json -q $options >"$T/got"
            jq -e --slurpfile got "$T/got" --argjson i "$i" '$got[0] as $g | .cases[$i] | ($g.n_toks == (.prompt_ids | length)) and
                ([.hidden[] | . as $h | $g.layers[if $h.layer == $g.n_layers then $g.n_layers + 1 else $h.layer end] |
                ((.mean - $h.mean) | fabs) < 1e-3 * $h.std and ((.sd / $h.std - 1) | fabs) < 1e-4 and ((.l2_last / $h.l2_last - 1) | fabs) < 1e-4]
                | length == 9 and all)' "$GOLDEN/generation.json"
        done
        n_cases=$((n_cases + 1))
    done
    [ "$n_cases" -eq 2 ]
}

@test "trace: one layer, payload, next tokens" {
    jq -j '.cases[0].prompt' "$GOLDEN/generation.json" >"$T/prompt"
    run -0 --separate-stderr apr trace "$MODEL" -i "$T/prompt" --exact --payload --layer 3 --json
    [ "$(jq -c '[.layers[].index]' <<<"$output")" = '[3]' ]
    jq -e '.layers[0] | .name == "layer 2" and (.last_values | length) == 8 and .min <= .mean and .mean <= .max' <<<"$output"
    [ "$(jq -c '[.tokens[].id]' <<<"$output")" = "$(jq -c '.cases[0].prompt_ids' "$GOLDEN/generation.json")" ]
    [ "$(jq '.next_tokens[0].id' <<<"$output")" -eq "$(jq '.cases[0].greedy_ids[0]' "$GOLDEN/generation.json")" ]
    jq -e '(.next_tokens | length) == 5 and ([.next_tokens[].p] | add <= 1 and . == (sort | reverse))' <<<"$output"
    run -0 --separate-stderr apr trace "$MODEL" "a b c" --payload --values 0 --json
    [ "$(jq -c '[.layers[] | .last_values | length] | unique' <<<"$output")" = '[256]' ]
    jq -e '[.layers[] | (([.last_values[] | . * .] | add | sqrt) / .l2_last - 1 | fabs) < 1e-6] | length == 10 and all' <<<"$output"
    run -0 apr trace "$MODEL" "a b c"
    [[ $output == *"final_norm"*"anomaly_count: 0"* ]]
}

@test "trace --reference: the same model is at distance 0, a quantized one is not" {
    run -0 --separate-stderr apr trace "$MODEL" --reference "$MODEL" --json
    jq -e '[.layers[] | .rel_diff_last == 0 and .cosine_last > 0.999999] | length == 10 and all' <<<"$output"
    make_model q4k apr
    run -0 --separate-stderr apr trace "$T/m.apr" --reference "$MODEL" --json
    jq -e '[.layers[1:][] | .rel_diff_last > 1e-3 and .rel_diff_last < 1 and .cosine_last > 0.5] | all' <<<"$output"
}

@test "trace: NaN is counted, named, and answered with status 1; a broken model is refused before" {
    tests/tools/break-model nan "$MODEL" "$T/nan"
    run -5 --separate-stderr apr trace "$T/nan" "a b c"
    [ -z "$output" ]
    run --separate-stderr apr trace "$T/nan" "a b c" --skip-contract --payload --json
    echo "$status $output $stderr"
    [ "$status" -eq 1 ]
    jq -e '.anomaly_count > 0 and ([.layers[].n_nan] | add) > 0' <<<"$output"
    [[ $stderr == *"NaN or Inf, first in"* ]]
}

@test "trace --inside: every step of a layer, in any chunk; the stream is what the blocks add" {
    run -0 --separate-stderr apr trace "$MODEL" "What is it?" --inside 3 --values 0 --exact --payload --json
    [ "$(jq -c '[.inside.steps[] | [.name, .n_values]]' <<<"$output")" = '[["attn_norm",256],["q",256],["k",128],["v",128],["q_rotated",256],["attention",256],["attn_out",256],["ffn_norm",256],["ffn_gated",768],["ffn_out",256],["k_cached",128],["v_cached",128]]' ]
    jq -e '(.inside.steps | map({(.name): .values}) | add) as $s | .layers[3].last_values as $before | .layers[4].last_values as $after |
        [range(256) | $before[.] + $s.attn_out[.] + $s.ffn_out[.] - $after[.] | fabs < 1e-4] | all' <<<"$output"
    jq -e '.inside | .layer == 3 and ([.steps[] | (([.values[] | . * .] | add | sqrt) / .l2 - 1 | fabs) < 1e-6] | all)' <<<"$output"
    whole=$(jq -c .inside <<<"$output")
    run -0 --separate-stderr apr trace "$MODEL" "What is it?" --inside 3 --values 0 --exact --payload --json -b 2 -t 1
    [ "$(jq -c .inside <<<"$output")" = "$whole" ]
    run -0 apr trace "$MODEL" "a b c" --inside 0
    [[ $output == *"k_cached"*"anomaly_count: 0"* ]]
}

@test "trace --inside: families leave out what they do not have" {
    families=${APR_SHARED:-../shared}/fixtures/families
    [ -d "$families/deepseek2" ] || skip "the fixtures are not here: $families"
    run -0 --separate-stderr apr trace "$families/deepseek2" "a b c" --inside 1 --values 0 --json
    [ "$(jq -c '[.inside.steps[].name]' <<<"$output")" = '["attn_norm","attn_out","ffn_norm","experts_out","k_cached"]' ]
    for f in mixtral gemma2 gpt2 phi2 phi3 qwen3; do
        run -0 --separate-stderr apr trace "$families/$f" "a b c" --inside 0 --values 0 --json
        echo "$f: $(jq -c '[.inside.steps[].name]' <<<"$output")"
        jq -e '(.inside.steps | length) >= 11 and ([.inside.steps[] | .l2 > 0 and .n_values == (.values | length)] | all)' <<<"$output"
    done
}

@test "trace: misuse" {
    for args in "--inside 8" "--inside -2" "--layer 10" "--layer -2" "a --prompt b" "a b" "-c 2 --prompt abcdefghijklmnop"; do
        # shellcheck disable=SC2086 # words
        run --separate-stderr apr trace "$MODEL" $args
        echo "$args -> $status $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
    done
    run -3 apr trace "$T/absent"
}

# ---- profile ----

@test "profile: steps add up, bytes are the model's, bounds and efficiency follow from the roofline" {
    make_model q4k apr
    run -0 --separate-stderr apr profile "$T/m.apr" --measure 2 -n 8 --granular --json
    cat <<<"$output"
    jq -e '.schema == "apr.profile/1" and .roofline.memory_gb_per_s > 0.1 and .roofline.read_gb_per_s >= .roofline.memory_gb_per_s' <<<"$output"
    jq -e '.prefill.n_passes == 2 and .prefill.n_toks == 64 and .decode.n_passes == 16 and .decode.n_toks == 1' <<<"$output"
    jq -e '[.prefill, .decode] | map(([.operations[].share_pct] | add - 100 | fabs) < 1e-6 and (.layers | length) == 8) | all' <<<"$output"
    jq -e '.decode | ([.operations[].pass_us] | add) as $us | $us > 0.5 * .latency_ms.mean * 1000 and $us <= 1.001 * .latency_ms.mean * 1000' <<<"$output"
    jq -e '.bytes_per_token as $b | [.decode.operations[] | select(.operation | test("^(qkv|attn_out|ffn_gate_up|ffn_down|head)$")) | .pass_bytes] | add == $b' <<<"$output"
    jq -e '.prefill.flops_per_byte > .decode.flops_per_byte' <<<"$output"
    # of one type each; which of the two bounds it is depends on this machine
    jq -e '(.roofline.compute | map({key: .type, value: .ridge_flops_per_byte}) | from_entries) as $ridge
        | [.prefill, .decode] | map(.operations[] | select(.operation == "ffn_gate_up" or .operation == "head"))
        | length == 4 and (map(.bound == (if .flops_per_byte > $ridge[if .operation == "head" then "Q6_K" else "Q4_K" end]
            then "compute" else "memory" end)) | all)' <<<"$output"
    jq -e '([.decode.layers[].pass_us] | (unique | length) > 1) and ([.decode.layers[] | .attention_us + .ffn_us == .pass_us] | all)' <<<"$output"
    jq -e '.grade == (.efficiency_pct | if . >= 80 then "A+" elif . >= 50 then "A" elif . >= 30 then "B" elif . >= 15 then "C" elif . >= 5 then "D" else "F" end)' <<<"$output"
    # the head of a prompt is computed for one row: two operations a weight
    jq -e '.prefill.operations[] | select(.operation == "head") | .pass_flops == 2 * 4096 * 256' <<<"$output"
}

@test "profile: the same logits with a probe as without" {
    a=$(apr run "$MODEL" --raw "The quick" -n 8 -q)
    apr profile "$MODEL" --measure 1 -n 2 -q >/dev/null
    [ "$(apr run "$MODEL" --raw "The quick" -n 8 -q)" = "$a" ]
}

@test "profile --ci: assertions answer with the status" {
    run -0 --separate-stderr apr profile "$MODEL" --measure 1 -n 4 --ci --assert-throughput 0.001 --assert-p50 1e6 --assert-p99 1e6 --json
    jq -e '.passed and (.assertions | length) == 3 and (.metrics | .throughput_tok_s > 0 and .latency_p50_ms <= .latency_p99_ms)' <<<"$output"
    for assert in "--assert-throughput 999999999" "--assert-p50 1e-6" "--assert-p99 1e-6"; do
        # shellcheck disable=SC2086 # words
        run -1 --separate-stderr apr profile "$MODEL" --measure 1 -n 4 --ci $assert --json
        jq -e '.passed == false and .assertions[0].passed == false' <<<"$output"
        [[ $stderr == *"asserted"* ]]
    done
}

@test "profile --detect-naive: scalar kernels are named" {
    [ "$(apr --version | sed -n 's/.*kernels: *//p')" != scalar ] || skip "this CPU has the scalar kernels alone"
    APR_KERN=scalar run -1 --separate-stderr apr profile "$MODEL" --measure 1 -n 2 -p 8 --fail-on-naive --json
    jq -e '.kernels == "scalar" and .roofline.kernels != "scalar" and (.naive | length) > 5' <<<"$output"
    APR_KERN=scalar run -0 --separate-stderr apr profile "$MODEL" --measure 1 -n 2 -p 8 --detect-naive --json
    run -0 --separate-stderr apr profile "$MODEL" --measure 1 -n 8 --fail-on-naive --threshold 0.01 --json
    [ "$(jq -c .naive <<<"$output")" = '[]' ]
}

@test "profile --compare: two formats side by side" {
    make_model q8_0 gguf
    run -0 --separate-stderr apr profile "$T/m.apr" --compare "$T/m.gguf" --measure 1 -n 4 --perf-grade --json
    jq -e '[.comparison[].format] == ["apr", "gguf"] and ([.comparison[].decode_toks_per_s > 0] | all) and .decode_ratio > 0 and
        (.decode | has("operations") | not)' <<<"$output"
}

@test "profile --peer-rate: the ratio to another engine's rate, and its letter" {
    for peer in 1e-3 1e9; do
        run -0 --separate-stderr apr profile "$MODEL" --measure 1 -n 4 --perf-grade --peer-rate "$peer" --json
        jq -e --argjson peer "$peer" '.peer.toks_per_s == $peer and (.peer.ratio * $peer / .decode.toks_per_s - 1 | fabs) < 1e-6' <<<"$output"
        [ "$(jq -r .peer.grade <<<"$output")" = "$([ "$peer" = 1e9 ] && echo F || echo A+)" ]
    done
}

@test "profile -o: a flame graph that is well-formed and shows every phase" {
    run -0 apr profile "$MODEL" --measure 1 -n 2 -o "$T/flame.svg"
    python3 - "$T/flame.svg" <<'PY'
import sys, xml.etree.ElementTree as tree
ns = "{http://www.w3.org/2000/svg}"
titles = [t.text for t in tree.parse(sys.argv[1]).getroot().iter(ns + "title")]
assert len(titles) > 60, len(titles)
for name in ("all", "prefill", "decode", "layer 7", "ffn_gate_up", "head"):
    assert any(t.startswith(name + " (") for t in titles), name
PY
    run -2 apr profile "$MODEL" --measure 1 -n 2 -o "$T/flame.svg" # it exists
    run -0 apr profile "$MODEL" --measure 1 -n 2 -o "$T/flame.svg" --force
}

@test "profile: misuse; other families" {
    for args in "--peer-rate 0" "--peer-rate -1" "--peer-rate inf" "--ci" "--measure 0" "-n 0" "--threshold 0" "--perf-grade --granular" "--force" "-n 5000"; do
        # shellcheck disable=SC2086 # words
        run --separate-stderr apr profile "$MODEL" $args
        echo "$args -> $status $stderr"
        [ "$status" -eq 2 ]
        [ -z "$output" ]
    done
    run -3 apr profile "$T/absent"
    families=${APR_SHARED:-../shared}/fixtures/families
    [ -d "$families/deepseek2" ] || skip "the fixtures are not here: $families"
    for f in deepseek2 mixtral gemma2 gpt2; do
        run -0 --separate-stderr apr profile "$families/$f" --measure 1 -n 4 -p 20 --json
        jq -e '.decode.toks_per_s > 0 and ([.decode.operations[] | select(.operation == "experts" or .operation == "ffn_down") | .pass_flops > 0] | any)' <<<"$output"
        run -0 --separate-stderr apr trace "$families/$f" "a b c" --json
        [ "$(jq .anomaly_count <<<"$output")" -eq 0 ]
    done
}
