#!/usr/bin/env bash
# Counts instructions for each packet with callgrind, and compares them with fallback-sw/benches/instructions.txt: more than 3 % over the
# budget fails; more than 3 % under it asks for a new figure there. Unlike times, counts are the same on a busy machine.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "budget: valgrind is missing: make setup FOR=bench" >&2; exit 1; }
budgets=fallback-sw/benches/instructions.txt
bench=$(cargo bench --quiet -p fallback-sw --bench dataplane --no-run --message-format=json \
  | grep -o '"executable":"[^"]*dataplane-[^"]*"' | cut -d '"' -f 4 | tail -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
while IFS='|' read -r budget packets part within row; do
  [[ $budget == \#* || -z $budget ]] && continue
  valgrind --tool=callgrind --callgrind-out-file="$work/out" --toggle-collect="$within" \
    "$bench" --bench --once ${row:+--row "$row"} "$part" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
  # What is inclusive of Worker::receive; the largest line of it is the function itself.
  count=$(callgrind_annotate --inclusive=yes --threshold=100 "$work/out" 2>/dev/null \
    | sed -n 's/^ *\([0-9,]*\) .*Worker>::receive\b.*/\1/p' | tr -d , | sort -n | tail -n 1)
  [[ -n $count ]] || { echo "budget: $part, $row: no packet was received" >&2; exit 1; }
  each=$((count / packets))
  verdict=ok
  if ((each * 100 > budget * 103)); then
    verdict="OVER the budget"
    failed=1
  elif ((each * 103 < budget * 100)); then
    verdict="under it: write the new figure into $budgets"
  fi
  printf '%6d instructions a packet, budget %6d: %-5s %s  %s\n' "$each" "$budget" "$part" "$row" "$verdict"
done <"$budgets"
exit "$failed"
