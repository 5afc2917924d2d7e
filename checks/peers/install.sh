#!/usr/bin/env bash
# Make or update checks/peers/.venv: MultiVae and this package, apart from the project's .venv.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-python3}
venv=.venv
[[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" 'torch==2.13.0'
"${pip[@]}" -r requirements.txt
"${pip[@]}" --no-build-isolation --no-deps --editable ../..
"$venv/bin/python" run.py --help > /dev/null
echo "installed; run: checks/peers/$venv/bin/python checks/peers/run.py --help"
