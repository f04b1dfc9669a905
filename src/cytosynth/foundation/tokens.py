"""A small CLIP tokenizer with one token for every prompt word, for foundations trained from scratch."""

from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def build(texts: Iterable[str], max_length: int = 32) -> CLIPTokenizer:
    """Return a CLIPTokenizer that holds every byte, and one token for each word of `texts`."""
    alphabet = _byte_characters()
    tokens = [*alphabet, *(character + "</w>" for character in alphabet)]
    merges: list[tuple[str, str]] = []
    for word in sorted({word for text in texts for word in _words(text)}):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
                tokens.append(parts[0] + parts[1])
            parts = [parts[0] + parts[1], *parts[2:]]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=max_length,
        bos_token=START, eos_token=END, unk_token=END, pad_token=END,
    )  # fmt: skip


def save(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write `tokenizer` into `folder`, without the padding and truncation that it was last asked for."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)


def _words(text: str) -> list[str]:
    """Split as CLIP does: letters, digits one by one, runs of other signs."""
    words: list[str] = []
    current = previous = ""
    for character in text.lower() + " ":
        kind = "a" if character.isalpha() else "d" if character.isdigit() else " " if character == " " else "s"
        if current and (kind == "d" or kind != previous):
            words.append(current)
            current = ""
        if kind != " ":
            current += character
        previous = kind
    return words


def _byte_characters() -> list[str]:
    """Return the 256 printable stand-ins for bytes that GPT-2's and CLIP's vocabularies use, in their order."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index, _ in enumerate(rest)]
