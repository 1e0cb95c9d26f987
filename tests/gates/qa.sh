# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # out and err are set by expect; the constants are for the gates
# F-QA: the matrix of modality, format and device.

# not_run REASON, judge TEXT: the result of a cell.
not_run() { echo "not run: $1"; }

# The output rules of the specification, in its order: not empty, no garbage, no NUL, the answer, which this model gives alone.
judge() {
    local p
    [ -n "${1//[[:space:]]/}" ] || { echo 'FAILED: empty output'; return; }
    for p in $'\xef\xbf\xbd' '[UNK]' akunji olumbia; do
        [[ "$1" != *"$p"* ]] || { echo "FAILED: garbage: $p"; return; }
    done
    [ "$1" = 4 ] || { echo "FAILED: found '${1:0:60}', expected 4"; return; }
    echo passed
}

cell() { # MODALITY MODEL DEVICE
    local text
    if [ "$3" = gpu ] && ! nvidia-smi -L >/dev/null 2>&1; then
        not_run 'no GPU here'
        return
    fi
    if ! cut -f 1 bin/verbs | grep -qx "$1"; then
        not_run "apr $1 is not built yet"
        return
    fi
    case $1 in
        run)
            text=$(apr run "$2" "$QUESTION" -n 32 --device "${3/gpu/cuda}" --skip-contract 2>"$GATE_WORK/stderr" | tr '\0' '\376')
            [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "FAILED: $(cat "$GATE_WORK/stderr")"; return; }
            [[ "$text" != *$'\376'* ]] || { echo 'FAILED: NUL bytes'; return; }
            judge "$text"
            ;;
        *) not_run "this gate has no client of apr $1" ;;
    esac
}

# Every cell is tried and named; none may fail, and the three of the CPU must have run. Planted fault: the rows of the
# head are in reverse, as in a file of another layout.
F_QA_001() {
    local i=0 modality format device file result n_passed=0 n_failed=0
    for modality in run chat serve; do
        for format in SafeTensors .apr GGUF; do
            file=$MODEL
            [ "$format" = .apr ] && file=$(q4k_apr)
            [ "$format" = GGUF ] && file=$(q4k_gguf)
            [ "$1" = bad ] && file=$(broken scrambled-head)
            for device in cpu gpu; do
                i=$((i + 1))
                result=$(cell "$modality" "$file" "$device")
                echo "cell $i: apr $modality, $format, $device: $result" >>"$GATE_WORK/cells"
                [[ "$result" != passed ]] || n_passed=$((n_passed + 1))
                [[ "$result" != FAILED* ]] || n_failed=$((n_failed + 1))
            done
        done
    done
    for device in cpu gpu; do
        i=$((i + 1))
        echo "cell $i: Ollama, GGUF, $device: not run: no Ollama here" >>"$GATE_WORK/cells"
    done
    cat "$GATE_WORK/cells"
    [ "$n_failed" -eq 0 ] && [ "$n_passed" -ge 3 ] && [ "$i" -eq 20 ]
}
