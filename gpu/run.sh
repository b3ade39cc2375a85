#!/usr/bin/env bash
# Everything that waits for a GPU, in one command and without a network; see README.md beside this.
#   ./run.sh [--minutes 8] [--results DIR] [--device cpu --tiny]
set -euo pipefail
cd "$(dirname "$0")"
export LUTHIER_HOME=$PWD/home HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true PYTHONPATH=$PWD/benchmarks
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Over the packages of this Python, which may be a virtual environment itself: --system-site-packages would miss those.
"$python" -m venv --without-pip "$work/venv"
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sep="\n")' \
  >"$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth"
"$python" -m pip --python "$work/venv/bin/python" install \
  --quiet --no-index --no-deps --no-compile --disable-pip-version-check --no-cache-dir wheels/*.whl

"$work/venv/bin/python" stages.py "$@"
