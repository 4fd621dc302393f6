#!/usr/bin/env bash
# Snakemake 9.27.1: --rerun-triggers params reruns on modification times too.
#
# Guess: with --rerun-triggers params alone, only changed parameters rerun a job, as the option's help says ("define
# what triggers the rerunning of a job"). Seen: an input that was only touched, with the same parameters, reruns it
# ("Updated input files"). The mtime trigger cannot be left out this way; ancient() around the input does leave it out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1 2>/dev/null
cd "$folder"
cat > Snakefile <<'RULES'
rule plain:
    input: "in.txt"
    output: "plain.txt"
    shell: "date +%N > {output}"
rule old:
    input: ancient("in.txt")
    output: "old.txt"
    shell: "date +%N > {output}"
RULES
run() { "$folder/venv/bin/snakemake" --cores 1 --rerun-triggers params -- plain.txt old.txt > log.txt 2>&1; }

head -c 2000000 /dev/zero > in.txt  # larger than what Snakemake takes checksums of
run
before="$(cat plain.txt) $(cat old.txt)"
sleep 1.1
touch in.txt
run
"$folder/venv/bin/snakemake" --version
grep "reason:" log.txt || true
read -r plain old <<< "$before"
echo "plain was made anew: $(test "$(cat plain.txt)" != "$plain" && echo yes || echo no)"
echo "ancient was made anew: $(test "$(cat old.txt)" != "$old" && echo yes || echo no)"
test "$(cat plain.txt)" != "$plain" && test "$(cat old.txt)" = "$old" || { echo "CHANGED"; exit 1; }
