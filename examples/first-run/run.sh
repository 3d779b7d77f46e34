#!/bin/sh
# A whole run with Ralph's defaults: a scratch git repository, a small task, and an agent that is a shell script.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
ralph=${RALPH:-ralph}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ralph-first-run.XXXXXX")
show() { printf '\n$ %s\n' "$*"; }

cp "$here/PROMPT.md" "$here/sales.csv" "$here/agent.sh" "$scratch"
cd "$scratch"
git init --quiet
git add .
git -c user.name=example -c user.email=example@localhost -c commit.gpgsign=false commit --quiet --message 'The task'

show ralph run -a command --command ./agent.sh
"$ralph" run -a command --command ./agent.sh

show ralph status
"$ralph" status

show cat report.md
cat report.md

show 'git for-each-ref refs/ralph   # snapshots; branch, index and stash are as they were'
git for-each-ref --format='%(refname)  %(subject)' refs/ralph
git status --short --branch

show ralph audit query --limit 8
"$ralph" audit query --limit 8

show ralph audit verify
"$ralph" audit verify

printf '\nAll of it is in %s\n' "$scratch"
