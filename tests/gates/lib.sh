# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# What the gates share. Each check is called with "good" or "bad"; bad plants the fault that the gate must notice.
# Models are made once, on first use, under $GATE_WORK.

MODEL=tests/data/apr-demo-8M-Instruct
GOLDEN=tests/data/apr-demo-golden
QUESTION='What is 2+2? Answer with just the number.'

# expect CODE COMMAND...: the exit status is CODE; output in $out, messages in $err.
expect() {
    local want=$1 got
    shift
    out=$("$@" 2>"$GATE_WORK/stderr" </dev/null)
    got=$?
    err=$(cat "$GATE_WORK/stderr")
    [ "$got" -eq "$want" ] || {
        echo "$*: exit $got, expected $want: $err"
        return 1
    }
}

says() { # PATTERN: some message on standard error matches
    grep -Eq -- "$1" <<<"$err" || {
        echo "expected a message like '$1', found: $err"
        return 1
    }
}

same() { # A B
    [ "$1" = "$2" ] || {
        echo "expected '$2', found '$1'"
        return 1
    }
}

differs() {
    [ "$1" != "$2" ] || {
        echo "expected a difference, both are '$1'"
        return 1
    }
}

once() { # FILE COMMAND...: runs the command unless FILE exists; the command writes FILE
    [ -e "$1" ] || "${@:2}" >&2
}

# The demonstration model in other formats.
bf16_apr() { once "$GATE_WORK/bf16.apr" apr import "$MODEL" -q -o "$GATE_WORK/bf16.apr"; echo "$GATE_WORK/bf16.apr"; }
q4k_apr() { once "$GATE_WORK/q4k.apr" apr import "$MODEL" -q --quantize q4k -o "$GATE_WORK/q4k.apr"; echo "$GATE_WORK/q4k.apr"; }
bf16_gguf() { once "$GATE_WORK/bf16.gguf" apr export "$(bf16_apr)" -q --format gguf -o "$GATE_WORK/bf16.gguf"; echo "$GATE_WORK/bf16.gguf"; }
q4k_gguf() { once "$GATE_WORK/q4k.gguf" apr export "$(q4k_apr)" -q --format gguf -o "$GATE_WORK/q4k.gguf"; echo "$GATE_WORK/q4k.gguf"; }

# broken KIND: a folder like the model with one fault (kinds: tests/tools/break-model).
broken() {
    once "$GATE_WORK/broken-$1" tests/tools/break-model "$1" "$MODEL" "$GATE_WORK/broken-$1"
    echo "$GATE_WORK/broken-$1"
}
# The same fault inside an .apr, past the importer's own gate.
broken_apr() {
    once "$GATE_WORK/broken-$1.apr" apr import --skip-contract "$(broken "$1")" -q -o "$GATE_WORK/broken-$1.apr"
    echo "$GATE_WORK/broken-$1.apr"
}
