#!/usr/bin/env bash
# From a laboratory's own slides or fields to a detector that was trained with synthetic cells, and a report on how it
# holds up. Each step is a command of docs/tutorial.md; the same line again continues where it was stopped.
#
#   SLIDES=/data/slides PATIENTS=/data/patients.csv examples/own_lab.sh     # QuPath's GeoJSON or COCO next to the slides
#   FIELDS=/data/export PATIENTS=/data/patients.csv examples/own_lab.sh     # as your annotation tool exported them
#
# Made for one GPU of 24 GB, and bash 4.4 or newer. PATIENTS is a table (CSV) with the columns slide and patient, or
# image and patient.
set -euf -o pipefail   # -f: options hold brackets, which are no patterns here

SLIDES=${SLIDES:-} FIELDS=${FIELDS:-} PATIENTS=${PATIENTS:-}
WORK=${WORK:-own_lab}                     # everything is written below it
RENAME=${RENAME:-}                        # "negative=NILM lsil=LSIL": your names of cells; normal ones must be NILM
CATEGORIES=${CATEGORIES:-ASC-US,ASC-H,LSIL,HSIL}                         # abnormal ones
FOUNDATION=${FOUNDATION:-stable-diffusion-v1-5/stable-diffusion-v1-5}    # hub id, folder or .safetensors file
NILM_DETECTOR=${NILM_DETECTOR:-}          # finds the normal cells that are edited; none: trained on your NILM cells
GATE=${GATE:-nucleus}                     # or the folder of a classifier of `train features`
PRESET=${PRESET:-paper-24gb} DEVICE=${DEVICE:-auto}
COUNT=${COUNT:-2000}                      # synthetic images
RATIO=${RATIO:-1}                         # those for each real one, at most, in the training set
# Further options of single steps, such as "--set max_steps=20000 --set batch_size=2".
TILES=${TILES:-} NORMAL=${NORMAL:-} CELL=${CELL:-} NILM=${NILM:-} DISTILL_NORMAL=${DISTILL_NORMAL:-}
DISTILL_CELL=${DISTILL_CELL:-} SYNTHESIZE=${SYNTHESIZE:---set precision=bf16}
SELECT=${SELECT:-} DETECTOR=${DETECTOR:-} ROBUSTNESS=${ROBUSTNESS:-}

absolute() { if [ -e "$1" ]; then realpath "$1"; else printf '%s\n' "$1"; fi; }
SLIDES=$(absolute "$SLIDES") FIELDS=$(absolute "$FIELDS") PATIENTS=$(absolute "$PATIENTS") GATE=$(absolute "$GATE")
FOUNDATION=$(absolute "$FOUNDATION") NILM_DETECTOR=$(absolute "$NILM_DETECTOR") HERE=$(realpath "$(dirname "$0")")
mkdir -p "$WORK" && cd "$WORK" && WORK=$PWD
YOLO_TRAIN=${YOLO_TRAIN:-yolo detect train data=data.yaml model=yolo11s.pt imgsz=1024 project=$WORK/runs name=yolo}
YOLO_PREDICT=${YOLO_PREDICT:-python $HERE/yolo_predict.py $WORK/runs/yolo/weights/best.pt}
cytosynth=${CYTOSYNTH:-cytosynth}
on=(--device "$DEVICE")
names=(); for pair in $RENAME; do names+=(--rename "$pair"); done
patients=(); if [ -n "$PATIENTS" ]; then patients=(--patients "$PATIENTS"); fi
wanted=(--set "categories=[$CATEGORIES]")
step() { printf '\n== %s\n' "$*"; }

step "1. Is the machine ready, and what will it take: hours, memory, disk"
$cytosynth doctor --recipe normal --recipe cell --recipe distill-normal --recipe distill-cell --recipe detector \
    --recipe synthesize --preset "$PRESET" --foundation "$FOUNDATION" --count "$COUNT"

step "2. A data set with parts by patient"
if [ -n "$SLIDES" ]; then
    $cytosynth tiles "$SLIDES" fields "${patients[@]}" "${names[@]}" $TILES
elif [ ! -d fields ]; then
    $cytosynth convert "${FIELDS:?SLIDES or FIELDS says where your data are}" fields --to coco "${patients[@]}" "${names[@]}"
fi
$cytosynth check fields

step "3. Both stages on $FOUNDATION"
$cytosynth train normal runs/normal --preset "$PRESET" --data fields --set foundation="$FOUNDATION" "${on[@]}" $NORMAL
$cytosynth train cell runs/cell --preset "$PRESET" --data fields --set foundation="$FOUNDATION" "${wanted[@]}" \
    "${on[@]}" $CELL
if [ -z "$NILM_DETECTOR" ]; then
    NILM_DETECTOR=runs/nilm
    $cytosynth train detector runs/nilm --preset "$PRESET" --data fields --set 'categories=[NILM]' "${on[@]}" $NILM
fi

step "4. Both distilled: four sampler steps for twenty-five"
$cytosynth distill normal runs/fast_normal --preset "$PRESET" --data fields --foundation "$FOUNDATION" \
    --normal runs/normal "${on[@]}" $DISTILL_NORMAL
$cytosynth distill cell runs/fast_cell --preset "$PRESET" --data fields --foundation "$FOUNDATION" --cell runs/cell \
    --set "categories=[NILM,$CATEGORIES]" "${on[@]}" $DISTILL_CELL

step "5. Synthetic images, each cell looked at by the gate"
$cytosynth synthesize synthetic --count "$COUNT" --gate "$GATE" --foundation "$FOUNDATION" --normal runs/normal \
    --cell runs/cell --fast-normal runs/fast_normal --fast-cell runs/fast_cell --detector "$NILM_DETECTOR" "${on[@]}" \
    $SYNTHESIZE

step "6. How many of them help, and which"
$cytosynth select runs/select --preset "${PRESET%-24gb}" --synthetic synthetic "${wanted[@]}" \
    --set 'real=[{root: fields, split: train}]' --set 'validation={root: fields, split: val}' "${on[@]}" $SELECT
chosen=runs/select/subset
if [ ! -d "$chosen" ]; then
    echo "No ratio helps significantly on the validation images. A detector is trained with them all the same, to compare."
    chosen=synthetic
fi

step "7. One data set for every detector"
$cytosynth mix fields "$chosen" mixed --ratio "$RATIO"
$cytosynth mix fields "$chosen" mixed_yolo --ratio "$RATIO" --to yolo

step "8. Detectors: ours without and with synthetic images, and a YOLO with them"
$cytosynth train detector runs/real --preset "$PRESET" --data fields "${wanted[@]}" "${on[@]}" $DETECTOR
$cytosynth train detector runs/mixed --preset "$PRESET" --data mixed "${wanted[@]}" "${on[@]}" $DETECTOR
also=(--also "synthetic=runs/mixed")
if command -v "${YOLO_TRAIN%% *}" > /dev/null; then
    if [ ! -e runs/yolo.trained ]; then (cd mixed_yolo && $YOLO_TRAIN) && touch runs/yolo.trained; fi
    also+=(--also "yolo=command:$YOLO_PREDICT {images} {annotations} {results}")
else
    echo "${YOLO_TRAIN%% *} is not installed: only our detector is trained. (pip install ultralytics; its licence is AGPL.)"
fi

step "9. How they hold up on the real test images"
$cytosynth evaluate robustness real=runs/real fields "${also[@]}" --output runs/robustness --split test --card "${on[@]}" \
    $ROBUSTNESS
echo "Read $WORK/runs/robustness/robustness.md, $WORK/runs/select/select.md and $WORK/synthetic/README.md."
