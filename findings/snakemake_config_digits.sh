#!/usr/bin/env bash
# Snakemake 9.27.1: --config cannot pass a text of digits; quotes inside the value do not help.
#
# Guess: --config name='"007"' is YAML or Python text, so the quotes keep it one. Seen: all surrounding quotes are
# stripped before the value is tried as a number, so a run, sample or profile called 007 arrives as the integer 7, and a
# path made of it names another folder. A value that is more than digits (x/007) arrives as it is, and so does a
# configuration file in which the text is quoted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet snakemake==9.27.1 2>/dev/null
cd "$folder"
cat > Snakefile <<'RULES'
print("GOT", repr(config.get("name")))
rule all:
RULES
echo 'name: "007"' > quoted.yaml
got() { "$folder/venv/bin/snakemake" --cores 1 "$@" 2>&1 | sed -n 's/^GOT //p' | head -1; }

plain=$(got --config name=007)
quoted=$(got --config 'name="007"')
path=$(got --config name=x/007)
file=$(got --configfile quoted.yaml)
"$folder/venv/bin/snakemake" --version
echo "name=007: $plain   name=\"007\": $quoted   name=x/007: $path   quoted in a file: $file"
test "$plain,$quoted,$path,$file" = "7,7,'x/007','007'" || { echo "CHANGED"; exit 1; }
