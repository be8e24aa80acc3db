#!/bin/bash
# What finject does, on a real server: the third fsync of a Redis that promises to have every write on
# the disk fails, and we see how it takes that. Runs in the virtual machine of `cargo xtask demo`.
set -euo pipefail
cd "$(dirname "$0")/../.."

finject=target/release/finject
dir=$(mktemp -d)
server='' injector=''
finish() {
    [ -z "$injector" ] || kill "$injector" 2>/dev/null || true
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' INT TERM

say() { printf '\n# %s\n' "$*"; }
shown() { printf '$ %s\n' "$*"; }
fail() {
    echo "demo: $*" >&2
    cat "$dir"/log "$dir"/finject.err >&2 2>/dev/null || true
    exit 1
}

say 'A Redis server that answers a write only once it is on the disk.'
shown redis-server --appendonly yes --appendfsync always
redis-server --bind 127.0.0.1 --port 7777 --dir "$dir" --logfile "$dir/log" \
    --save '' --appendonly yes --appendfsync always &
server=$!
redis() { timeout 10 redis-cli -p 7777 "$@"; }
for _ in {1..300}; do
    [ "$(redis ping 2>/dev/null)" != PONG ] || break
    sleep 0.1
done
[ "$(redis ping 2>/dev/null)" = PONG ] || fail 'the server does not answer'
echo "redis is pid $server"

say 'Its third fdatasync is to fail.'
shown "sudo target/release/finject --pid $server --rule 'fdatasync=EIO@3'"
mkfifo "$dir/ready"
"$finject" --pid "$server" --rule 'fdatasync=EIO@3' --ready-fd 3 \
    3>"$dir/ready" 2>"$dir/finject.err" &
injector=$!
read -r -t 60 _ <"$dir/ready" || fail 'finject did not get ready'
cat "$dir/finject.err"
armed=$(wc -l <"$dir/finject.err")

say 'Three writes.'
answer=''
for key in one two three; do
    shown redis-cli set "$key" 1
    answer=$(redis set "$key" 1 2>&1) || true
    echo "$answer"
done
case $answer in
OK*) fail 'the third write was answered as if it were on the disk' ;;
esac

for _ in {1..100}; do
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
! kill -0 "$server" 2>/dev/null || fail 'the server lives'
wait "$server" || true
server=''
say "The server's own words:"
grep -F "Can't persist AOF" "$dir/log" || fail 'it did not say why it ended'

status=0
wait "$injector" || status=$?
injector=''
say "finject's:"
tail -n "+$((armed + 1))" "$dir/finject.err"
[ "$status" -eq 0 ] || fail "finject ended with status $status"
