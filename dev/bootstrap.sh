#!/usr/bin/env bash
# Makes the virtual environment, from nothing but python3 >= 3.11.
#   bootstrap.sh demo         what `make demo` needs
#   bootstrap.sh full         what the tests and linters need too (torch, ray, ...)
#   bootstrap.sh constraints  resolve constraints.txt and dev/docs.txt anew
set -euo pipefail
cd "$(dirname "$0")/.."
home=${LUTHIER_HOME:-$HOME/.cache/luthier}
export UV_CACHE_DIR="$home/uv"
members=(crds artifacts operator trainer_image serving cli dev)

# A name on the PATH may be a shim that leads nowhere, so each is asked.
python=
for candidate in python3 python3.12 python3.13 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$(command -v "$candidate")
    break
  fi
done
[ -n "$python" ] ||
  { echo "Luthier needs Python 3.11 or newer; install it (apt-get install python3) and run this again." >&2; exit 1; }

uv=$home/tools/bin/uv
if ! "$uv" --version >/dev/null 2>&1; then
  echo "==> Installing uv into $home/tools"
  mkdir -p "$home"
  if ! "$python" -m venv --clear "$home/tools" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || { echo "python3-venv is missing; install it as root (apt-get install python3-venv)." >&2; exit 1; }
    apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    "$python" -m venv --clear "$home/tools"
  fi
  "$home/tools/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$(sed -n 's/^uv==\([^ ]*\).*/\1/p' dev/tools.txt)"
fi

case "${1:?demo, full or constraints}" in
  constraints)
    compile=("$uv" pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --no-annotate --no-header
      --python-version 3.11)
    "${compile[@]}" --group dev --all-extras --no-emit-package luthier-api --no-emit-package luthier-artifacts \
      "${members[@]/%//pyproject.toml}" -o constraints.txt
    "${compile[@]}" --group docs -o dev/docs.txt
    exit ;;
  demo) wanted=(-e crds -e artifacts -e dev) ;;
  full) wanted=(-e crds -e artifacts -e operator -e "trainer_image[train]" -e serving -e cli -e dev --group dev) ;;
  *) echo "bootstrap.sh: no such set: $1" >&2; exit 2 ;;
esac

echo "==> Python packages ($1) into .venv: about a minute the first time, a second after that"
[ -x .venv/bin/python ] || "$uv" venv --quiet --python "$python" .venv
"$uv" pip install --quiet -c constraints.txt "${wanted[@]}"
