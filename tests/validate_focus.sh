#!/bin/sh
# Checks a file of FOCUS 1.2, such as `skyledger bill export --focus 1.2 out.csv` writes, with the FOCUS validator:
#
#     tests/validate_focus.sh out.csv
#
# On demand, and not in the suite: it needs Python 3.12 or later and the package index, and three quarters of its rules are
# skipped. What must always hold is tested in tests/features/bill_exports.rs.
set -eu
file=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet focus-validator==2.2.1
# It asks for an older numpy than the pyarrow it gets along with.
"$folder/venv/bin/pip" install --quiet 'numpy>=2' 2>/dev/null || true
rules=$("$folder/venv/bin/python" -c 'import focus_validator; print(focus_validator.__path__[0])')/rules
# It looks for this one from where it is started.
mkdir -p "$folder/focus_validator/rules"
cp "$rules/currency_codes.csv" "$folder/focus_validator/rules/"
cd "$folder"
venv/bin/focus-validator --data-file "$file" --validate-version 1.2.0.1 --block-download --focus-dataset CostAndUsage > report || true
grep '^Total' report
grep 'FAIL' report || true
