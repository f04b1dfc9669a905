"""The cards of a run folder and of its weights."""

from pathlib import Path

from ..config import dump
from ..data.sources import Source
from ..io.bundled import BUNDLED
from ..io.plain import portable
from ..licences import passed_on
from ..provenance import NOTICE
from .recipe import Recipe

RUN = """# A training run: {title}

| | |
|---|---|
| `recipe.yaml` | all settings |
| `stats.jsonl` | mean losses since the previous entry |
| `timing.jsonl` | seconds per step, mean since the previous entry |
| `previews/` | examples made with the weights, by step |
| `checkpoints/` | complete states to continue from, verified by hash when read |
| `weights/` | the trained weights, in the usual format of their kind |
| `tensorboard/` | the same losses and scores for TensorBoard, if the recipe enables it |
| `validation.jsonl`, `best/` | scores on held-out data, and the weights with the best score, if the recipe enables it |

The command that started this run continues it. The number of steps, and the intervals of logs, checkpoints and
previews, may change; other settings may not.
"""

WEIGHTS = """# {title}

Weights after {step} steps of this recipe:

```yaml
{recipe}```

The licences of the data sets listed there apply. Images made with these weights are synthetic. {notice}
"""
FOUNDATION = """
## Licence of the foundation

{terms}
"""


def run_card(title: str) -> str:
    """Return the README of a run folder."""
    return RUN.format(title=title)


def weights_card(title: str, step: int, recipe: Recipe) -> str:
    """Return the model card of weights after `step` steps of `recipe`, with the licence terms of its foundation."""
    text = WEIGHTS.format(title=title, step=step, recipe=dump(_portable(recipe)), notice=NOTICE)
    terms = passed_on(getattr(recipe, "foundation", BUNDLED))
    return text + FOUNDATION.format(terms=terms) if terms else text


def _portable(recipe: Recipe) -> Recipe:
    """Return `recipe` with the paths of this machine cut to their last part."""
    recipe = recipe.model_validate(portable(recipe.model_dump()))
    changes: dict[str, object] = {}
    for name, value in recipe:
        if isinstance(value, list) and value and isinstance(value[0], Source):
            changes[name] = [source.model_copy(update={"root": Path(source.root).name}) for source in value]
    return recipe.model_copy(update=changes)
