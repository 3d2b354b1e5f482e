#!/usr/bin/env bash
# Trains every network of the demo model one after the other and assembles it. What is done is kept: call it again to go on.
# usage: DEMO_WORK=DIR tools/demo_model/train.sh      (T3_MINUTES, T3_DECAY, THREADS: minutes for T3, those in which its rate falls, threads of a training)
set -euo pipefail
work=${DEMO_WORK:?usage: DEMO_WORK=DIR tools/demo_model/train.sh}
here=$(cd "$(dirname "$0")" && pwd)
threads=${THREADS:-2}
export DEMO_WORK=$work PYTHONPATH=$here/../../python:$here
step() { "$work/env/bin/python" -W ignore "$here/$1" "${@:2}" --work "$work"; }
step texts.py
step align.py --shards 90 --sound 8
step natural.py --shards 2
step vocoder.py --minutes 60 --threads "$threads"
step s3gen.py --mean --minutes 30 --batch 12 --threads "$threads"
step s3gen.py --minutes 90 --threads "$threads"
step tokenizer.py --minutes 50 --threads "$threads"
step heard.py --threads "$threads"
step s3gen.py --heard 0.5 --minutes 110 --threads "$threads"
step speakers.py xvector --minutes 5 --threads "$threads"
step speakers.py voice_encoder --minutes 5 --threads "$threads"
step t3.py --minutes "${T3_MINUTES:-600}" --threads "$threads"
step t3.py --decay "${T3_DECAY:-60}" --threads "$threads"
step export.py
