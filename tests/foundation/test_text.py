"""The small foundation's words: each one token, each category told apart, the whole prompt inside the length."""

import pytest
import torch
import torch.nn.functional as F

from cytosynth.bethesda import ABNORMAL, NILM, NORMAL_PROMPT, abnormal_prompt
from cytosynth.foundation import tokens
from cytosynth.foundation.scratch import text

PROMPTS = [NORMAL_PROMPT, *(abnormal_prompt(name) for name in (NILM, *ABNORMAL))]


def test_every_word_of_a_prompt_is_one_token() -> None:
    tokenizer = tokens.build(PROMPTS)
    read = tokenizer.tokenize(abnormal_prompt("ASC-US"))
    words = ["a", "cervical", "cytopathological", "image", "with", "asc", "-", "us", "cell"]
    assert read == [word + "</w>" for word in words]
    unseen = tokenizer.tokenize("koilocyte")
    assert "".join(unseen) == "koilocyte</w>", "an unseen word is spelled, not lost"


def test_no_prompt_is_cut_off() -> None:
    tokenizer, encoder = text.build(16, 1)
    ids = tokenizer(PROMPTS, padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    assert len({tuple(row) for row in ids}) == len(PROMPTS)
    assert all(row.count(tokenizer.eos_token_id) >= 1 and len(row) == tokenizer.model_max_length for row in ids)
    assert all(row[-1] == tokenizer.pad_token_id for row in ids)
    likeness = text.similarity(encoder, tokenizer, PROMPTS)
    assert likeness.diagonal().tolist() == pytest.approx([1.0] * len(PROMPTS), abs=1e-5)
    others = likeness[~torch.eye(len(PROMPTS), dtype=torch.bool)]
    assert others.max() < 0.9999, "an untrained encoder already tells the prompts apart"


def test_the_contrastive_loss_is_clips_with_the_target_spread_over_the_right_texts() -> None:
    """With one text to a category and every category once, it is CLIP's: cross-entropy along rows and columns."""
    torch.manual_seed(0)
    logits = torch.randn(4, 4)
    owner = category = torch.arange(4)
    expected = (F.cross_entropy(logits, category) + F.cross_entropy(logits.T, category)) / 2
    assert text.contrastive(logits, owner, category).item() == pytest.approx(expected.item(), abs=1e-6)
    doubled = torch.cat([logits, logits], 1)
    twice = text.contrastive(doubled, owner.repeat(2), category)
    rows = F.cross_entropy(logits, category) + torch.tensor(2.0).log()
    assert twice.item() == pytest.approx(((rows + F.cross_entropy(logits.T, category)) / 2).item(), abs=1e-6)
