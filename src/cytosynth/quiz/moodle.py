"""Teaching cells as questions for Moodle: its XML format, images inside, feedback with the criteria."""

import base64
import html
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from . import criteria
from .key import Key, KeyItem
from .page import NOT_FOR_DIAGNOSIS
from .settings import SYNTHETIC


def text(key: Key, items: Sequence[tuple[KeyItem, bytes]]) -> str:
    """Return the question bank: a multiple-choice question for each of `items` with its PNG.

    See https://docs.moodle.org/en/Moodle_XML_format.
    """
    quiz = ET.Element("quiz")
    category = ET.SubElement(quiz, "question", type="category")
    _text(ET.SubElement(category, "category"), f"$course$/Cervical cytology, quiz {key.quiz}")
    for item, png in items:
        _question(quiz, key, item, png)
    ET.indent(quiz)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(quiz, encoding="unicode") + "\n"


def _question(quiz: ET.Element, key: Key, item: KeyItem, png: bytes) -> None:
    question = ET.SubElement(quiz, "question", type="multichoice")
    _text(ET.SubElement(question, "name"), f"Cell {item.id}")
    asked = "Is this cell real or synthetic?" if key.settings.mode == "origin" else "Which class is this cell?"
    picture = f"cell-{item.id}.png"
    body = ET.SubElement(question, "questiontext", format="html")
    side = 3 * key.settings.side
    shown = f'<img src="@@PLUGINFILE@@/{picture}" alt="Cell {item.id}" width="{side}" height="{side}">'
    _text(body, f"<p>{shown}</p><p>{asked}</p><p>{NOT_FOR_DIAGNOSIS}</p>")
    file = ET.SubElement(body, "file", name=picture, path="/", encoding="base64")
    file.text = base64.b64encode(png).decode()
    _text(ET.SubElement(question, "generalfeedback", format="html"), _feedback(key, item))
    for name, value in (("defaultgrade", "1"), ("penalty", "0.3333333"), ("hidden", "0"), ("single", "true"),
                        ("shuffleanswers", "false"), ("answernumbering", "none")):  # fmt: skip
        ET.SubElement(question, name).text = value
    for choice in key.choices:
        right = choice == key.answer(item)
        answer = ET.SubElement(question, "answer", fraction="100" if right else "0", format="html")
        _text(answer, html.escape(choice))
        _text(ET.SubElement(answer, "feedback", format="html"), "Right." if right else f"It is {key.answer(item)}.")


def _feedback(key: Key, item: KeyItem) -> str:
    lines = [f"<p>{html.escape(key.answer(item))} ({html.escape(item.category)})</p>"]
    if item.origin == SYNTHETIC:
        lines.append("<p><b>Synthetic image</b>, made by a program to look like this class; no patient's cell.</p>")
    said = criteria.said(item.category)
    if said:
        entries = "".join(f"<li><b>{label}</b>: {html.escape(value)}</li>" for label, value in said.items())
        lines.append(f"<ul>{entries}</ul><p>{html.escape(criteria.SOURCE)}</p>")
    return "".join(lines)


def _text(parent: ET.Element, value: str) -> None:
    ET.SubElement(parent, "text").text = value
