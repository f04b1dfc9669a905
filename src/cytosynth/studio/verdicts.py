"""The verdict of the quality gate in words."""

from ..cell.quality.gate import FAINTEST, NUCLEUS, Verdict
from ..cell.settings import GateSettings


def words(verdict: Verdict, category: str, settings: GateSettings) -> list[str]:
    """Return a sentence on each criterion of the gate, the decision first."""
    scores, reasons = verdict.scores, verdict.reasons
    lines = ["The gate would reject this cell." if reasons else "The gate would keep this cell."]
    if "seam" in scores:
        most = f"at most {settings.seam:g}" if settings.seam is not None else "any"
        state = "shows" if "seam" in reasons else "does not show"
        lines.append(f"The edge of the edited region {state} (seam {scores['seam']:.2f}, {most}).")
    if "nucleus_density" in scores:
        if scores["nucleus_density"] == 0:
            lines.append("No nucleus was found at the middle of the box.")
        else:
            state = "too faint" if NUCLEUS in reasons else "there"
            lines.append(
                f"A nucleus of {scores['nucleus_diameter']:.1f} pixels across is {state} (optical density "
                f"{scores['nucleus_density']:.2f}, at least {FAINTEST:g})."
            )
    if "probability" in scores:
        state = "does not classify it as" if "class" in reasons else "classifies it as"
        lines.append(f"The classifier {state} {category} (probability {scores['probability']:.2f}).")
    if "normal_after" in scores:
        lines.append(
            f"NILM: probability {scores['normal_after']:.2f} after the edit, {scores['normal_before']:.2f} before"
            f"{': still too normal' if 'normal' in reasons else ''}."
        )
    if "distance" in scores:
        state = "too near to" if "copy" in reasons else "no copy of"
        lines.append(f"It is {state} a training cell (distance {scores['distance']:.3f}).")
    return lines
