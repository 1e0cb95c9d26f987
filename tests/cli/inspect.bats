#!/usr/bin/env bats
# inspect and tensors: the same model told the same way from every format, by file and by pipe.

bats_require_minimum_version 1.5.0

setup_file() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    F=$BATS_FILE_TMPDIR
    MODEL=tests/data/apr-demo-8M-Instruct
    apr import $MODEL -q -o "$F/a.apr"
    apr export "$F/a.apr" --format gguf -q -o "$F/a.gguf"
    apr export "$F/a.apr" --format safetensors -q -o "$F/a.safetensors"
    export F MODEL
}

setup() {
    PATH=${BINDIR:-$PWD/bin}:$PATH
    T=$BATS_TEST_TMPDIR
}

@test "inspect tells format, counts and family of a folder, an .apr and a GGUF" {
    local f
    for f in "$MODEL" "$F/a.apr" "$F/a.gguf"; do
        run -0 apr inspect "$f" --json
        jq -e '.tensor_count == 99 and .total_params == 8397056 and .family == "qwen2" and .valid' <<<"$output"
        jq -e '.config == {num_layers: 8, hidden_size: 256, num_heads: 4, num_kv_heads: 2, head_dim: 64,
            intermediate_size: 768, vocab_size: 4096, max_position_embeddings: 4096, rope_theta: 1000000,
            rms_norm_eps: 1e-6, tied_embeddings: false}' <<<"$output"
    done
    [ "$(apr inspect "$MODEL" --json | jq -r .format)" = SafeTensors ]
    [ "$(apr inspect "$F/a.apr" --json | jq -r .format)" = "APR v2" ]
    [ "$(apr inspect "$F/a.gguf" --json | jq -r .format)" = "GGUF v3" ]
}

@test "inspect of an .apr has the original's keys" {
    run -0 apr inspect "$F/a.apr" --json
    jq -e '.checksum_valid and .version == "2.0" and .size_bytes > 0 and (.flags | has("lz4_compressed", "has_vocab"))
        and .metadata.model_type == "Qwen2" and .metadata.source_metadata.format == "pt"
        and .metadata.chat_format == "chatml" and .metadata.special_tokens.eos_token == "<|im_end|>"' <<<"$output"
}

@test "a pipe says what the file says" {
    local f
    for f in a.apr a.gguf a.safetensors; do
        apr inspect --json < <(cat "$F/$f") | jq 'del(.file, .name, .n_files)' >"$T/pipe"
        apr inspect - --json <"$F/$f" | jq 'del(.file, .name, .n_files)' >"$T/redirected"
        cmp "$T/pipe" "$T/redirected"
    done
    apr inspect --provenance --json < <(cat "$F/a.apr") | jq -e '.integrity.tensors | length == 99'
}

@test "text and JSON hold the same; long text is cut in text only" {
    run -0 apr inspect "$F/a.gguf"
    [[ "$output" == *"tokenizer.chat_template: 2507 bytes"* ]]
    [ "$(apr inspect "$F/a.gguf" --json | jq -r '.metadata["tokenizer.chat_template"] | utf8bytelength')" -eq 2507 ]
}

@test "inspect --vocab, --weights, --filters, --provenance" {
    run -0 apr inspect "$F/a.apr" --vocab --weights --filters --provenance --json
    jq -e '.vocab.n_tokens == 4096 and .vocab.n_merges == 3744 and .vocab.pre_tokenizer == "qwen2"' <<<"$output"
    jq -e '[.vocab.special_tokens[] | select(.role == "end") | .id] == [4002, 4000]' <<<"$output"
    jq -e '(.weights | length == 99) and .filters == [] and (.provenance.sources | length == 4)' <<<"$output"
}

@test "a SafeTensors file alone takes its config from its folder; without one it is still shown" {
    [ "$(apr inspect "$MODEL/model-00001-of-00004.safetensors" --json | jq -r .family)" = qwen2 ]
    run -0 apr inspect "$F/a.safetensors" --json
    jq -e '.family == null and .tensor_count == 99' <<<"$output"
}

@test "a model whose config is not supported is shown with the reason, and refused by others with status 6" {
    mkdir "$T/m"
    ln -s "$PWD/$MODEL"/* "$T/m/"
    rm "$T/m/config.json"
    jq '.rope_scaling = {type: "mrope", factor: 4}' "$MODEL/config.json" >"$T/m/config.json"
    run -0 apr inspect "$T/m" --json
    jq -e '.family == null and .tensor_count == 99 and (.unsupported | test("mrope"))' <<<"$output"
    run -6 apr import "$T/m" -q -o "$T/x.apr"
    [[ "$output" == *mrope* ]]
}

@test "the folder's index stands for the folder" {
    [ "$(apr inspect "$MODEL/model.safetensors.index.json" --json | jq .tensor_count)" -eq 99 ]
}

@test "shards through links, as in the Hugging Face cache" {
    local hub=$T/models--Org--Demo sha
    mkdir -p "$hub/blobs" "$hub/snapshots/0123abc"
    for f in "$MODEL"/*; do
        sha=$(sha256sum "$f" | cut -d ' ' -f 1)
        cp "$f" "$hub/blobs/$sha"
        ln -s "../../blobs/$sha" "$hub/snapshots/0123abc/$(basename "$f")"
    done
    run -0 apr inspect "$hub/snapshots/0123abc" --provenance --json
    [ "$(jq -r .name <<<"$output")" = Demo ]
    [ "$(jq -r '.files[0].sha256' <<<"$output")" = "$(sha256sum "$MODEL/model-00001-of-00004.safetensors" | cut -d ' ' -f 1)" ]
}

@test "tensors: the same names, shapes and sums from every format" {
    local f
    apr tensors "$MODEL" --stats --json | jq -S '[.tensors[] | {name, shape, mean, std, min, max}]' >"$T/want"
    for f in a.apr a.gguf a.safetensors; do
        apr tensors "$F/$f" --stats --json | jq -S '[.tensors[] | {name, shape, mean, std, min, max}]' >"$T/got"
        cmp "$T/want" "$T/got"
    done
    apr tensors --stats --json < <(cat "$F/a.apr") | jq -S '[.tensors[] | {name, shape, mean, std, min, max}]' >"$T/got"
    cmp "$T/want" "$T/got"
}

@test "tensors --stats: the numbers of one tensor" {
    apr tensors "$MODEL" --filter model.norm.weight --stats --json |
        jq -e '.tensors[0] | .nan_count == 0 and .inf_count == 0 and .min <= .mean and .mean <= .max and .std > 0'
    { printf '\100\0\0\0\0\0\0\0%-64s' '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
      printf '\0\0\200\77\0\0\100\100\0\0\300\177\0\0\200\177'; } >"$T/a.safetensors" # 1, 3, NaN, inf
    apr tensors "$T/a.safetensors" --stats --json |
        jq -e '.tensors[0] | .mean == 2 and .std == 1 and .min == 1 and .max == 3 and .nan_count == 1 and .inf_count == 1'
}

@test "tensors --filter and --limit" {
    [ "$(apr tensors "$F/a.apr" --filter layers.0. --json | jq .shown_count)" -eq 12 ]
    [ "$(apr tensors "$F/a.apr" --limit 3 --json | jq '.tensors | length')" -eq 3 ]
    [ "$(apr tensors "$F/a.apr" --limit 3 --json | jq .tensor_count)" -eq 99 ]
    run -0 apr tensors "$F/a.apr" --filter q_proj.weight --limit 1
    [[ "$output" == *"model.layers.0.self_attn.q_proj.weight  [256, 256]  BF16"* ]]
}

@test "fixtures of other families open without a family" {
    local d="${APR_SHARED:-../shared}/fixtures" f
    [ -d "$d" ] || skip "the fixtures are not here: $d"
    for f in "$d"/families/*/ "$d"/gguf/*.gguf "$d"/vocab/*.gguf; do
        run apr inspect "$f" --json
        [ "$status" -eq 0 ] || { echo "$f: $output"; return 1; }
    done
}
