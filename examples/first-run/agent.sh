#!/bin/sh
# Stands in for a coding agent: reads its prompt, does the next piece of the task with awk, and leaves a note for the next one.
set -eu

prompt=$(cat)
notes=$(printf '%s\n' "$prompt" | sed -n 's/^Your notes .* are in \(.*\): read them first.*/\1/p')
promise=$(printf '%s\n' "$prompt" | sed -n 's/.* final message is exactly \(.*\)$/\1/p')
next=$(($(cat "$notes" 2>/dev/null | grep -c '^done' || true) + 1))
title=$(printf '%s\n' "$prompt" | sed -n "s/^- \[$next\] //p")

sums() { # sums FIELD [LENGTH]: the amounts, added up by a field, or by the beginning of it
    awk -F, -v by="$1" -v length_="${2:-99}" '{ sum[substr($by, 1, length_)] += $4 } END { for (key in sum) print "- " key ": " sum[key] }' sales.csv | sort
}
total() { # total SECTION: what the figures of a section of the report come to
    awk -v title="## $1" '/^## / { here = ($0 == title) } here && /^- / { sum += $NF } END { print sum + 0 }' report.md
}
section() {
    printf '## %s\n\n' "$title" >>report.md
    cat >>report.md
    echo >>report.md
    echo "done: $title" >>"$notes"
    echo "Wrote section $next of report.md: $title."
}

case $next in
    1) printf '# Sales\n\n' >report.md && sums 2 | section ;;
    2) sums 1 7 | section ;;
    3) awk -F, '{ sum[$2 "," $3] += $4 }
           END { for (key in sum) { split(key, part, ","); if (sum[key] > best[part[1]]) { best[part[1]] = sum[key]; name[part[1]] = part[2] } }
                 for (region in best) print "- " region ": " name[region] ", " best[region] }' sales.csv | sort | section ;;
    *)
        regions=$(total 'Sales by region') months=$(total 'Sales by month')
        [ "$regions" -eq "$months" ] || { echo "The sections disagree: $regions and $months." >&2 && exit 1; }
        echo "Total: $regions" >>report.md
        echo "The sections agree: $regions. The report is complete."
        echo "$promise"
        ;;
esac
