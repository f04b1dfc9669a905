#!/usr/bin/env bash
# How detectors hold up, from training to tables: examples/robustness.sh DATA OUT [NAME=DETECTOR ...]
#
# DATA holds cric, lbc_x40 and tct_fields. Without detectors, four small ones are trained first. The same command
# continues. STEPS of each training, IMAGES of the part `test`, synthetic FIELDS: quick values are given.
set -euo pipefail
data=$1 out=$2
shift 2
STEPS=${STEPS:-80} IMAGES=${IMAGES:-8} FIELDS=${FIELDS:-4} DRAWS=${DRAWS:-100}
cytosynth=(${PYTHON:-python} -m cytosynth)

train() {  # NAME STEPS OPTIONS...
    "${cytosynth[@]}" train detector "$out/$1" --data-root "$data" --max-steps "$2" \
        --set 'data=[{root: cric, scale: 0.5, split: train}]' --set weights=bundled --set batch_size=2 \
        --set 'categories=[NILM, ASC-US, ASC-H, LSIL, HSIL]' --set warmup_steps=10 "${@:3}"
}

detectors=("$@")
if [ $# = 0 ]; then
    train faster-rcnn "$STEPS"
    centres='{name: stain, strength: [1, 4]}, {name: defocus, amount: [-4, 4]}'
    train augmented "$STEPS" --set "augment={mpp: 0.49, variations: [$centres]}"
    train other-seed "$STEPS" --set seed=1
    train short "$((STEPS / 4))"
    for name in faster-rcnn augmented other-seed short; do detectors+=("$name=$out/$name/weights"); done
fi
also=()
for one in "${detectors[@]:1}"; do also+=(--also "$one"); done

# Real images under variation; the section "Where this detector fails" of the model cards.
"${cytosynth[@]}" evaluate robustness "${detectors[0]}" "$data/cric" ${also[@]+"${also[@]}"} --output "$out/real" --scale 0.5 \
    --card --set 'variations=[stain, defocus]' --set 'strengths=[2, 4]' --set limit="$IMAGES" --set draws="$DRAWS"
# Cells edited under control, and whether that ranks detectors and conditions as real images do.
"${cytosynth[@]}" evaluate controlled "${detectors[0]}" ${also[@]+"${also[@]}"} --output "$out/controlled" \
    --data-root "$data" --real "$out/real" --set fields="$FIELDS" --set draws="$DRAWS" ${CONTROLLED:-}
# Other centres.
"${cytosynth[@]}" evaluate centres "${detectors[0]}" ${also[@]+"${also[@]}"} --output "$out/centres" --data-root "$data" \
    --centre "cric={root: cric, scale: 0.5, split: test}" --centre 'lbc={root: lbc_x40, scale: 0.5}' \
    --centre 'tct={root: tct_fields, scale: 0.5, exhaustive: false}'
