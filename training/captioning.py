"""Figures of captions, through the server: against what people or a data source wrote, against what is in the pictures, and where the model
looked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training import captions, metrics
from training.data import Dataset, Split, drawn
from training.data.captions import cleaned
from training.problems import TrainingError
from training.served import Served

ATTENTION = "attention.png"
SEEDS = range(8)
SAMPLED = 50
"""Pictures of which several sentences are drawn."""
SHOWN, LINE = 4, 16
"""Pictures with their words' maps, and the height of a line of text."""
LEAST = 0.01
"""Of test pictures, the share of which the model may be less sure than of what it does not know."""

Figures = dict[str, tuple[float, float | None, str | None]]
Answers = list[dict[str, Any]]


async def measure_caption(model: Served, data: Dataset, folder: Path) -> tuple[Figures, dict[str, Any]]:
    """What is said of the test pictures by beam search, word by word and by chance, and of pictures that show nothing known.

    CIDEr-D weighs words by how few of several pictures they are said of: of one picture it is no figure.

    Raises:
        TrainingError: the data has no captions.
    """
    test = data.test
    if not test.captions:
        raise TrainingError(f"--data {data.source} has no captions to hold those of {model.model} against.")
    beam = await model.shown("caption", test.images, attention="true")
    greedy = await model.shown("caption", test.images, decoding="greedy")
    some = test.images[:SAMPLED]
    sampled = [await model.shown("caption", some, decoding="sample", seed=str(seed)) for seed in SEEDS]
    again = await model.shown("caption", some, decoding="sample", seed=str(SEEDS[0]))
    if said(again) != said(sampled[0]):
        raise TrainingError(f"{model.model} does not say the same again with the same seed.")
    references = [[cleaned(sentence) for sentence in sentences] for sentences in test.captions]
    figures = _against_references([cleaned(sentence) for sentence in said(beam)], references)
    if len(test) > 1:
        figures["caption_greedy_cider_d"] = captions.cider_d([cleaned(sentence) for sentence in said(greedy)], references), None, None
    figures["caption_distinct"] = captions.distinct(said(beam)), None, None
    figures["caption_sampled_distinct"] = (
        float(np.mean([len(set(sentences)) for sentences in zip(*map(said, sampled), strict=True)])),
        None,
        None,
    )
    if test.objects:
        figures |= _against_objects(beam, test, data.shape[0])
    figures |= await _unknown(model, beam, data)
    _sheet(beam, test, folder / ATTENTION)
    shown = {"captions": [{"said": one, "references": list(others)} for one, others in zip(said(beam), test.captions, strict=True)][:50]}
    return figures, {"pictures": len(test), **shown}


def said(answers: Answers) -> list[str]:
    return [str(answer["caption"]) for answer in answers]


def _against_references(sentences: list[str], references: list[list[str]]) -> Figures:
    names = [f"caption_bleu_{order}" for order in captions.ORDERS]
    figures: Figures = {name: (value, None, None) for name, value in zip(names, captions.bleu(sentences, references), strict=True)}
    figures["caption_rouge_l"] = captions.rouge_l(sentences, references), None, None
    figures["caption_word_recall"] = captions.word_recall(sentences, references), None, None
    if len(references) > 1:
        agreement = captions.agreement(references)
        beside = (agreement, "one reference against the others") if agreement else (None, None)
        figures["caption_cider_d"] = captions.cider_d(sentences, references), *beside
    return figures


def _against_objects(answers: Answers, split: Split, side: int) -> Figures:
    recall, precision = captions.object_figures(said(answers), split.objects)
    right, stating = captions.relation_figures(said(answers), split.objects)
    words = [[word["word"] for word in answer["words"]] for answer in answers]
    maps = [np.array([word["attention"] for word in answer["words"]]) for answer in answers]
    return {
        "caption_object_recall": (recall, None, None),
        "caption_object_precision": (precision, None, None),
        "caption_relations_right": (right, None, None),
        "caption_relations_stated": (stating, None, None),
        "caption_pointing_game": (captions.pointing_game(words, maps, split.objects, side), _by_chance(split, side), "the boxes' share"),
    }


def _by_chance(split: Split, side: int) -> float:
    """The share of a picture that the boxes of one of its labels cover, on average: what pointing anywhere would hit."""
    shares = []
    for things in split.objects:
        for label in {thing.label for thing in things}:
            covered = np.zeros((side, side), bool)
            for left, top, width, height in (thing.box for thing in things if thing.label == label):
                covered[top : top + height, left : left + width] = True
            shares.append(covered.mean())
    return float(np.mean(shares))


async def _unknown(model: Served, answers: Answers, data: Dataset) -> Figures:
    """How sure the model is of what it does not know.

    Of a grey, a white and a noisy picture and of a drawn digit, the surest of these, beside the hundredth of the test pictures of which
    it is least sure; and how well that tells test pictures from digits and, where the data has some, from photographs without things.
    """
    height, width, _ = data.shape
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    digit = Image.new("RGB", (width, height))
    font = ImageFont.load_default(height * 0.8)
    ImageDraw.Draw(digit).text((width / 2, height / 2), "7", fill="white", font=font, anchor="mm")
    pictures = np.stack([np.full_like(noise, 128), np.full_like(noise, 255), noise, np.asarray(digit)])
    surest, known = _sureness(await model.shown("caption", pictures)).max(), _sureness(answers)
    figures: Figures = {
        "caption_unknown_log_probability": (float(surest), float(np.quantile(known, LEAST)), "the 1st percentile of test pictures")
    }
    digits = _sureness(await model.shown("caption", drawn.load().test.images))
    figures["caption_digits_auroc"] = metrics.auroc(digits, known), None, None
    if data.empty is not None:
        empty = _sureness(await model.shown("caption", data.empty))
        figures["caption_photographs_auroc"] = metrics.auroc(empty, known), None, None
    return figures


def _sureness(answers: Answers) -> np.ndarray:
    return np.array([answer["mean_log_probability"] for answer in answers])


def _sheet(answers: Answers, split: Split, path: Path) -> None:
    """Some pictures, a row each: the picture with its caption, and each word with where the model looked for it."""
    chosen = np.linspace(0, len(answers) - 1, min(SHOWN, len(answers))).astype(int)
    rows = [laid_over(split.images[index], answers[index]["words"]) for index in chosen]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.save(path)


def laid_over(picture: np.ndarray, words: Sequence[dict[str, Any]]) -> Image.Image:
    """A picture, uint8 (h, w, 3), and beside it once for each word, bright where the model looked for it."""
    height, width, _ = picture.shape
    row, font = Image.new("RGB", (width * (len(words) + 1), height + LINE), "white"), ImageFont.load_default(12)
    row.paste(Image.fromarray(picture), (0, LINE))
    for place, word in enumerate(words, start=1):
        grid = np.array(word["attention"], np.float32)
        light = Image.fromarray(grid / max(1e-9, grid.max())).resize((width, height), Image.Resampling.BICUBIC)
        shown = picture * (0.2 + 0.8 * np.clip(np.asarray(light), 0, 1)[..., None])
        row.paste(Image.fromarray(shown.astype(np.uint8)), (place * width, LINE))
        ImageDraw.Draw(row).text((place * width + 4, 1), word["word"], fill="black", font=font)
    return row
