#!/usr/bin/env bash
# Snakemake 9.27.1: an input with other content and an older modification time is "nothing to be done".
#
# Guess: since 8.0 Snakemake records checksums of small inputs, so that a changed input reruns its job whatever its time
# stamp says. Seen: the recorded checksum can only take back a rerun that the time stamp asked for; it never asks for
# one itself. An input that cp -p, rsync -a, tar or git-restore-mtime replaced by an older file leaves a stale output,
# with the default --rerun-triggers, which name "input" and "code" beside "mtime".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1 2>/dev/null
cd "$folder"
cat > Snakefile <<'RULES'
rule copy:
    input: "in.txt"
    output: "out.txt"
    shell: "cp {input} {output}"
RULES
run() { "$folder/venv/bin/snakemake" --cores 1 out.txt > log.txt 2>&1; }

echo first > in.txt
run
echo second > in.txt
touch -d "2001-01-01" in.txt
run
"$folder/venv/bin/snakemake" --version
echo "in.txt: $(cat in.txt)  out.txt: $(cat out.txt)"
grep -i "nothing to be done" log.txt
test "$(cat out.txt)" = first || { echo "CHANGED: the output was made anew"; exit 1; }
