#!/usr/bin/env bats
# shellcheck disable=SC2154 # run --separate-stderr sets stderr
# embed, and logits of encoders: hidden states and pooled vectors against transformers, in every format.

load infer

setup() {
    infer_setup
    BERT=${APR_SHARED:-../shared}/fixtures/families/bert
    REF=tests/tools/encoder-reference
    [ -d "$BERT" ] || skip "the fixtures are not here: $BERT"
    IDS=$(jq -r '.input_ids | join(",")' "$BERT/golden.json")
}

need_numpy() { /usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"; }

# The rms of these values is 1, so that absolute differences are relative ones.
formats() { # -> $T/m.apr $T/m.gguf
    apr import "$BERT" -q -o "$T/m.apr"
    apr export "$T/m.apr" --format gguf -q -o "$T/m.gguf"
}

# The folder with what sentence-transformers puts beside a model: POOLING_KEY NORMALIZE MAX
sentence_folder() {
    mkdir -p "$T/st/1_Pooling"
    cp "$BERT"/{config.json,model.safetensors,tokenizer.json} "$T/st"
    chmod -R u+w "$T/st"
    jq -n --argjson n "$2" '[{idx:0,name:"0",path:"",type:"sentence_transformers.models.Transformer"},
        {idx:1,name:"1",path:"1_Pooling",type:"sentence_transformers.models.Pooling"}] +
        if $n then [{idx:2,name:"2",path:"2_Normalize",type:"sentence_transformers.models.Normalize"}] else [] end' >"$T/st/modules.json"
    jq -n --arg k "$1" '{word_embedding_dimension:128} + {($k):true}' >"$T/st/1_Pooling/config.json"
    jq -n --argjson n "$3" '{max_seq_length:$n,do_lower_case:false}' >"$T/st/sentence_bert_config.json"
    jq -n '{prompts:{query:"find: ",passage:""},default_prompt_name:null}' >"$T/st/config_sentence_transformers.json"
}

floats() { od -An -v -w4 -tf4 "$1"; }

@test "hidden states: 1e-3 of the rms in reference mode, 1e-2 by default; SafeTensors, .apr and GGUF" {
    formats
    for m in "$BERT" "$T/m.apr" "$T/m.gguf"; do
        apr logits "$m" --ids "$IDS" --exact -q --force -o "$T/h.f32"
        at_most "$(max_diff "$T/h.f32" "$BERT/hidden.f32")" 1e-3
        apr logits "$m" --ids "$IDS" -q --force -o "$T/h.f32"
        at_most "$(max_diff "$T/h.f32" "$BERT/hidden.f32")" 1e-2
    done
    run apr logits "$BERT" --ids "$IDS" -q --force -o "$T/h.f32" --json
    [ "$(jq -c '[.what, .shape, .n_toks]' <<<"$output")" = '["hidden",[20,128],20]' ]
}

@test "pooled vectors: mean and cls of the golden states, in every format" {
    formats
    jq -r '.mean_pooled[]' "$BERT/golden.json" >"$T/mean"
    jq -r '.cls[]' "$BERT/golden.json" >"$T/cls"
    for m in "$BERT" "$T/m.apr" "$T/m.gguf"; do
        for how in mean cls; do
            for exact in --exact ""; do
                apr embed "$m" --ids "$IDS" --pooling $how $exact -q --force -o "$T/v.f32"
                d=$(paste <(floats "$T/v.f32") "$T/$how" | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d; n++ } END { print n == 128 ? m + 0 : "wrong size" }')
                at_most "$d" "$([ -n "$exact" ] && echo 1e-3 || echo 1e-2)"
            done
        done
    done
}

@test "the comparison can fail: another pooling is another vector" {
    apr embed "$BERT" --ids "$IDS" --pooling max -q -o "$T/max.f32"
    apr embed "$BERT" --ids "$IDS" --pooling mean -q -o "$T/mean.f32"
    run at_most "$(max_diff "$T/max.f32" "$T/mean.f32")" 1e-2
    [ "$status" -eq 1 ]
}

@test "poolings are what they say, of the hidden states" {
    apr logits "$BERT" --ids 2,136,420,3 --exact -q -o "$T/h.f32"
    floats "$T/h.f32" >"$T/h"
    for how in mean cls last max mean-sqrt weighted; do
        apr embed "$BERT" --ids 2,136,420,3 --exact --pooling $how -q --force -o "$T/v.f32"
        paste <(floats "$T/v.f32") <(awk -v how=$how '{ x[NR - 1] = $1 } END {
            for (c = 0; c < 128; c++) {
                s = 0; w = 0; m = x[c]
                for (r = 0; r < 4; r++) { v = x[r * 128 + c]; s += v; w += v * (r + 1); if (v > m) m = v }
                print how == "mean" ? s / 4 : how == "cls" ? x[c] : how == "last" ? x[3 * 128 + c] : how == "max" ? m : how == "mean-sqrt" ? s / 2 : w / 10
            } }' "$T/h") | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d } END { exit !(NR == 128 && m < 1e-5) }'
    done
    apr embed "$BERT" --ids 2,136,420,3 --normalize -q --force -o "$T/v.f32"
    floats "$T/v.f32" | awk '{ s += $1 * $1 } END { exit !(s > 0.99999 && s < 1.00001) }'
}

@test "a vector does not depend on the texts beside it, the threads or the batch" {
    printf 'one\na longer text than the first one, by some words\n\nHello, world!\r\nlast' >"$T/texts"
    apr embed "$BERT" -f "$T/texts" -q -o "$T/all.f32"
    [ "$(wc -c <"$T/all.f32")" -eq $((5 * 128 * 4)) ]
    for how in "-t 1" "-t 3 -b 1" "-b 40"; do
        # shellcheck disable=SC2086 # words
        apr embed "$BERT" $how -q -o - <"$T/texts" >"$T/other.f32"
        cmp "$T/all.f32" "$T/other.f32"
    done
    apr embed "$BERT" 'Hello, world!' -q -o "$T/one.f32"
    cmp <(tail -c +$((3 * 512 + 1)) "$T/all.f32" | head -c 512) "$T/one.f32"
}

@test "text, --json and --jsonl tell the same vectors" {
    apr embed "$BERT" 'a cat' 'a dog' -q >"$T/lines"
    [ "$(wc -l <"$T/lines")" -eq 2 ]
    [ "$(head -1 "$T/lines" | wc -w)" -eq 128 ]
    apr embed "$BERT" 'a cat' 'a dog' -q --json >"$T/doc"
    [ "$(jq -c '[.schema, .pooling, .normalized, .n_dims, .n_texts, .n_truncated, (.data | length)]' "$T/doc")" = '["apr.embed/1","mean",false,128,2,0,2]' ]
    apr embed "$BERT" 'a cat' 'a dog' -q --jsonl >"$T/jsonl"
    [ "$(jq -c '.embedding' "$T/jsonl")" = "$(jq -c '.data[].embedding' "$T/doc")" ]
    [ "$(jq -c '[.index, .n_tokens]' "$T/jsonl" | head -1)" = "[0,$(apr tokenize "$BERT" --add-special 'a cat' | wc -w)]" ]
    paste <(tr ' ' '\n' <"$T/lines") <(jq '.embedding[]' "$T/jsonl") | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d } END { exit !(NR == 256 && m < 1e-7) }'
}

@test "similarity: the cosine with the first text" {
    run apr embed "$BERT" --similarity 'a cat' 'a cat' 'something else' -q
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = 1.000000 ]
    apr embed "$BERT" 'a cat' 'something else' -q >"$T/v"
    want=$(awk '{ for (i = 1; i <= NF; i++) x[NR, i] = $i } END { for (i = 1; i <= 128; i++) { ab += x[1, i] * x[2, i]; aa += x[1, i]^2; bb += x[2, i]^2 } printf "%.6f", ab / sqrt(aa * bb) }' "$T/v")
    [ "${lines[1]}" = "$want" ]
    run apr embed "$BERT" --similarity 'a cat' 'something else' -q --json
    [ "$(jq -r '.similarities[0].index' <<<"$output")" -eq 1 ]
    [ "$(jq -r '.similarities[0].cosine * 1e6 | round' <<<"$output")" = "$(awk -v x="$want" 'BEGIN { printf "%.0f", x * 1e6 }')" ]
}

@test "sentence-transformers files: pooling, normalization, length and prompts; in a folder, .apr and GGUF" {
    sentence_folder pooling_mode_cls_token true 8
    apr import "$T/st" -q -o "$T/m.apr"
    apr export "$T/m.apr" --format gguf -q -o "$T/m.gguf"
    apr import "$T/m.gguf" -q -o "$T/back.apr"
    apr export "$T/back.apr" --format gguf -q -o "$T/back.gguf"
    long='one two three four five six seven eight nine ten'
    for m in "$T/st" "$T/m.apr" "$T/m.gguf" "$T/back.apr" "$T/back.gguf"; do
        run --separate-stderr apr embed "$m" "$long" 'a cat' --json
        [ "$status" -eq 0 ]
        [ "$(jq -c '[.pooling, .normalized, .n_tokens_max, .n_truncated, .data[0].n_tokens, .data[0].truncated]' <<<"$output")" = '["cls",true,8,1,8,true]' ]
        [[ $stderr == *"1 of 2 texts were longer than 8 tokens and were cut"* ]]
        jq -c '.data[].embedding | map(. * 1e4 | round)' <<<"$output" >"$T/got"
        [ -e "$T/want" ] || cp "$T/got" "$T/want"
        cmp "$T/got" "$T/want"
    done
    # what is cut keeps the tokenizer's end: the first 7 tokens, then [SEP]
    ids=$(apr tokenize "$T/st" --add-special "$long" | awk '{ for (i = 1; i <= 7; i++) printf "%s,", $i; print $NF }')
    apr embed "$T/st" --ids "$ids" -q -o "$T/cut.f32"
    apr embed "$T/st" "$long" -q -o "$T/long.f32"
    cmp "$T/cut.f32" "$T/long.f32"
    [ "$(tests/tools/gguf-manifest "$T/m.gguf" | jq -c '[.kv[] | select(.key == "bert.pooling_type" or (.key | startswith("apr.embedding."))) | .value]')" = '[2,true,8]' ]
    # options overrule the model
    run apr embed "$T/m.apr" 'a cat' --pooling mean --no-normalize --json -q
    [ "$(jq -c '[.pooling, .normalized]' <<<"$output")" = '["mean",false]' ]
    apr embed "$T/m.apr" 'cat' --prompt-name query -q -o "$T/a.f32"
    apr embed "$T/m.apr" 'find: cat' -q -o "$T/b.f32"
    apr embed "$T/m.apr" 'cat' -p 'find: ' -q -o "$T/c.f32"
    cmp "$T/a.f32" "$T/b.f32"
    cmp "$T/a.f32" "$T/c.f32"
    run apr embed "$T/m.apr" cat --prompt-name nothing
    [ "$status" -eq 2 ]
    [[ $output == *'no prompt "nothing"'* ]]
    # and back into a folder
    apr export "$T/m.apr" --format safetensors -q -o "$T/out"
    for f in modules.json 1_Pooling/config.json sentence_bert_config.json config_sentence_transformers.json; do
        [ "$(jq -cS . "$T/out/$f")" = "$(jq -cS . "$T/st/$f")" ]
    done
    apr export "$T/m.apr" --format safetensors -q --force -o "$T/out"
}

@test "modules that cannot be computed are refused, unless the pooling is given" {
    sentence_folder pooling_mode_mean_tokens false 64
    jq '. + [{idx:2,name:"2",path:"2_Dense",type:"sentence_transformers.models.Dense"}]' "$T/st/modules.json" >"$T/x" && mv "$T/x" "$T/st/modules.json"
    run apr embed "$T/st" 'a cat'
    [ "$status" -eq 6 ]
    [[ $output == *'"Dense"'*--pooling* ]]
    run apr embed "$T/st" 'a cat' --pooling mean -q
    [ "$status" -eq 0 ]
    jq '.[2].path = "../../etc"' "$T/st/modules.json" >"$T/x" && mv "$T/x" "$T/st/modules.json"
    run apr embed "$T/st" 'a cat'
    [ "$status" -eq 4 ]
    [[ $output == *'$[2].path'* ]]
}

@test "a generator of text: its last token, or the mean, whatever the chunk" {
    run --separate-stderr apr embed "$MODEL" 'What is 2+2?' --json
    [ "$status" -eq 0 ]
    [ "$(jq -c '[.pooling, .n_dims]' <<<"$output")" = "[\"last\",$(jq .hidden_size "$MODEL/config.json")]" ]
    [[ $stderr == *'says nothing about pooling'* ]]
    apr embed "$MODEL" 'What is 2+2?' --pooling mean -q -o "$T/a.f32"
    apr embed "$MODEL" 'What is 2+2?' --pooling mean -b 2 -t 1 -q -o "$T/b.f32"
    cmp "$T/a.f32" "$T/b.f32"
}

@test "RoBERTa: positions behind the padding token, old names of norms, prefixes; GGUF leaves the first rows out" {
    need_numpy
    $REF roberta "$BERT" "$T/rob"
    cp "$BERT/tokenizer.json" "$T/rob"
    $REF hidden "$T/rob" "$IDS" "$T/want.f32"
    apr import "$T/rob" -q -o "$T/m.apr"
    apr export "$T/m.apr" --format gguf -q -o "$T/m.gguf"
    for m in "$T/rob" "$T/m.apr" "$T/m.gguf"; do
        apr logits "$m" --ids "$IDS" --exact -q --force -o "$T/h.f32"
        at_most "$($REF compare "$T/h.f32" "$T/want.f32")" 1e-5
    done
    [ "$(tests/tools/gguf-manifest "$T/m.gguf" | jq -c '[(.kv[] | select(.key == "bert.context_length").value), (.tensors[] | select(.name == "position_embd.weight").shape[1])]')" = '[126,126]' ]
    $REF hidden "$BERT" "$IDS" "$T/plain.f32"
    run at_most "$($REF compare "$T/plain.f32" "$T/want.f32")" 1e-2
    [ "$status" -eq 1 ]
}

@test "GGUF equals the manifests of llama.cpp's converter" {
    need_fixtures
    for t in bf16 f32; do
        apr convert "$BERT" --quantize $t -q --force -o "$T/m.apr"
        apr export "$T/m.apr" --format gguf --no-provenance -q --force -o "$T/m.gguf"
        run tests/tools/gguf-manifest "$T/m.gguf" --against "$GGUF/bert-$t.json"
        echo "$output"
        [ "$status" -eq 0 ]
    done
    apr logits "$GGUF/bert-bf16.gguf" --ids "$IDS" --exact -q -o "$T/h.f32"
    at_most "$(max_diff "$T/h.f32" "$BERT/hidden.f32")" 1e-3
}

@test "llama.cpp loads and computes an exported encoder" {
    [ -x "${APR_PEER_BIN:-}/llama-bench" ] || skip "APR_PEER_BIN names no folder with llama-bench"
    apr export "$BERT" --format gguf -q -o "$T/m.gguf"
    run env LD_LIBRARY_PATH="$APR_PEER_BIN" timeout 60 "$APR_PEER_BIN/llama-bench" -m "$T/m.gguf" -p 16 -n 0 -r 1 -t 1
    [ "$status" -eq 0 ]
    [[ $output == *bert*pp16* ]]
}

@test "a folder, its .apr and the folder made from that hold the same weights by the same names" {
    apr import "$BERT" -q -o "$T/m.apr"
    apr export "$T/m.apr" --format safetensors -q -o "$T/out"
    cmp "$T/out/model.safetensors" "$BERT/model.safetensors"
}

@test "quantized encoders compute" {
    apr embed "$BERT" --ids "$IDS" -q -o "$T/want.f32"
    for t in q8_0 q4_k_m f16 int8; do
        apr convert "$BERT" --quantize $t -q --force -o "$T/m.apr"
        apr embed "$T/m.apr" --ids "$IDS" -q --force -o "$T/v.f32"
        at_most "$(max_diff "$T/v.f32" "$T/want.f32")" 0.5
    done
}

@test "what an encoder cannot do is said, with the verb that can" {
    for v in "run M hi" "eval M --file README.md" "check M" "bench M"; do
        # shellcheck disable=SC2086 # words
        run apr ${v/M/$BERT}
        [ "$status" -eq 6 ]
        [[ $output == *'apr embed'* ]]
    done
    for bad in "--pooling odd" "--normalize --no-normalize" "--jsonl --json" "--similarity -o x" "-c 64" "--ids 1,2 text" "--ids 99999"; do
        # shellcheck disable=SC2086 # words
        run apr embed "$BERT" $bad hi
        [ "$status" -eq 2 ]
    done
    run apr embed "$BERT" </dev/null
    [ "$status" -eq 2 ]
    [[ $output == *'no texts'* ]]
}

@test "a broken encoder is refused by rule" {
    mkdir "$T/bad"
    cp "$BERT"/{model.safetensors,tokenizer.json} "$T/bad"
    jq '.vocab_size = 500' "$BERT/config.json" >"$T/bad/config.json"
    run apr embed "$T/bad" hi
    [ "$status" -eq 5 ]
    [[ $output == *F-LAYOUT-CONTRACT-001* || $output == *F-VOCAB-001* ]]
    jq '.num_hidden_layers = 3' "$BERT/config.json" >"$T/bad/config.json"
    run apr embed "$T/bad" hi
    [ "$status" -eq 5 ]
    [[ $output == *F-TENSOR-001* ]]
    jq '.num_hidden_layers = 1' "$BERT/config.json" >"$T/bad/config.json"
    run apr embed "$T/bad" hi
    [ "$status" -eq 5 ]
    [[ $output == *F-TENSOR-002* ]]
    for change in '.num_attention_heads = 0' '.hidden_act = "mish"' '.is_decoder = true' '.position_embedding_type = "relative_key"' '.layer_norm_eps = 0'; do
        jq "$change" "$BERT/config.json" >"$T/bad/config.json"
        run apr embed "$T/bad" hi
        [ "$status" -ge 4 ] && [ "$status" -le 6 ]
        [[ $output == *config.json* ]]
    done
}
