#!/bin/sh
# test.sh FOLDER...: runs the C tests that were built into the folders and the specs, shows what they print, and ends
# with a line `N passed, N failed` of all that really ran. Fails if anything failed or nothing ran. What hangs has
# failed after half an hour.
set -u
lua=${LUA:-lua5.4} passed=0 failed=0
report=$(mktemp)
trap 'rm -f "$report"' EXIT

# count PASSED FAILED STATUS: a runner that ended badly without a failed test to show for it counts as one.
count() {
  passed=$((passed + ${1:-0})) failed=$((failed + ${2:-0}))
  if [ "$3" != 0 ] && [ "${2:-0}" = 0 ]; then failed=$((failed + 1)); fi
}

for folder; do for test in "$folder"/*_test; do
  [ -x "$test" ] || continue
  echo "== ${test##*/}"
  timeout 1800 "$test" >"$report" 2>&1; status=$?
  cat "$report"
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$report" | tail -n 1)
  count "$(echo "$line" | cut -d' ' -f1)" "$(echo "$line" | cut -d' ' -f3)" $status
done; done

if [ "${SPECS:-yes}" = yes ]; then
  echo "== specs"
  timeout 1800 "$lua" tools/busted.lua "${SPEC:-spec}" >"$report" 2>&1; status=$?
  cat "$report"
  line=$(grep -E '^[0-9]+ success(es)? / ' "$report" | tail -n 1)
  good=$(echo "$line" | sed -E 's/^([0-9]+) success.*/\1/')
  bad=$(echo "$line" | sed -E 's|.* / ([0-9]+) failures? / ([0-9]+) errors? .*|\1 \2|')
  count "$good" "$(( $(echo "${bad:-0 0}" | tr ' ' '+') ))" $status
fi

echo "$passed passed, $failed failed"
[ $failed = 0 ] && [ $passed -gt 0 ]
