# count.sh: runs checks, counts what passed, failed and was skipped, and notes how long each took. Sourced by tests/run and cross/test.
# Its files are in the folder `work`, which whoever sources it removes at its end.

passed=0 failed=0 skipped=0
work=$(mktemp -d)
log=$work/log steps=$work/steps
# A test that finds that it cannot run here says so in this file, and counts as passed for cargo.
export GODWIT_SKIP_FILE=$work/skips
touch "$steps" "$GODWIT_SKIP_FILE"

say() { printf '\n== %s\n' "$*"; }

# timed NAME COMMAND…: runs it, and notes how long it took for the list at the end.
timed() {
    local begun=$SECONDS status=0
    "${@:2}" || status=$?
    printf '%5d s  %s\n' $((SECONDS - begun)) "$1" >>"$steps"
    return $status
}

# check NAME COMMAND…: something that passes or fails as a whole.
check() {
    say "$1"
    if timed "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        return 1
    fi
}

# skip NAME WHY
skip() {
    say "$1"
    echo "SKIPPED: $2"
    skipped=$((skipped + 1))
}

# absent NAME WHY: it needs what could not be had. Skipped; in continuous integration, which says so by CI, a failure.
absent() {
    [ -n "${CI:-}" ] || { skip "$@" && return; }
    say "$1"
    echo "FAILED: $1: $2"
    failed=$((failed + 1))
}

# shown NAME COMMAND…: runs it with all it prints kept in `log` too; the status is the command's.
shown() {
    say "$1"
    timed "$@" 2>&1 | tee "$log"
    return "${PIPESTATUS[0]}"
}

# count OK BAD SKIPPED STATUS NAME: what a run has printed; one that fails without saying of what counts as one, and so does one
# that ran nothing.
count() {
    local bad=$2
    [ "$4" -eq 0 ] || [ "$bad" -gt 0 ] || { bad=1 && echo "FAILED: $5"; }
    [ $(($1 + bad + $3)) -gt 0 ] || { bad=1 && echo "FAILED: $5: nothing was run"; }
    passed=$((passed + $1)) failed=$((failed + bad)) skipped=$((skipped + $3))
}

# tests NAME COMMAND…: runs of Rust's test programs, counted by their result lines.
tests() {
    local status ok bad ignored own
    shown "$@"
    status=$?
    read -r ok bad ignored < <(awk '/^test result:/ {
        for (i = 2; i <= NF; i++) { if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1); if ($i == "ignored;") s += $(i-1) }
    } END { print p + 0, f + 0, s + 0 }' "$log")
    own=$(wc -l <"$GODWIT_SKIP_FILE")
    sed 's/^/SKIPPED: /' "$GODWIT_SKIP_FILE"
    : >"$GODWIT_SKIP_FILE"
    count $((ok - own)) "$bad" $((ignored + own)) "$status" "$1"
}

# lines NAME COMMAND…: many checks, each with a line of its own that begins with ok:, FAILED or skipped:.
lines() {
    local status
    shown "$@"
    status=$?
    count "$(grep -c '^ok:' "$log")" "$(grep -c '^FAILED' "$log")" "$(grep -c '^skipped:' "$log")" "$status" "$1"
}

# counted NAME COMMAND…: a script that counts by itself, in a line at its end.
counted() {
    local status ok=0 bad=0 left=0
    shown "$@"
    status=$?
    read -r ok bad left < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/\1 \2 0\4/p' "$log" | tail -n 1)
    count "${ok:-0}" "${bad:-0}" $((10#${left:-0})) "$status" "$1"
}

# summary: how long each took, and the count; the status is 0 only when nothing failed.
summary() {
    say "how long each step took"
    cat "$steps"
    printf '%5d s  in all\n\n' "$SECONDS"
    if [ "$skipped" -gt 0 ]; then
        echo "$passed passed, $failed failed, $skipped skipped"
    else
        echo "$passed passed, $failed failed"
    fi
    [ "$failed" -eq 0 ]
}
