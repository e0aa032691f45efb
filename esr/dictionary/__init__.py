"""An SAE of one's own, for any model of params.yaml: text by the model itself, SAELens, and how good it is.

    from esr import dictionary
    dictionary.make(params.load(), "smollm2", store().root)

The recipe is `saes.NAME.recipe` in params.yaml. Text is kept batch by batch and the finished SAE is put in its place whole, so that
what was stopped goes on where it stood; the training itself, minutes on a GPU, begins again.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esr import params as places
from esr.dictionary import corpus, training
from esr.dictionary.rows import Rows
from esr.errors import DataError, ParamsError
from esr.params import ModelParams, Params, RecipeParams, SaeParams
from esr.params.weights import identity

if TYPE_CHECKING:
    from esr.engine import Backend

CARD = "card.json"


def recipe_of(params: Params, model: str) -> tuple[ModelParams, SaeParams, RecipeParams]:
    block = params.model(model)
    sae = params.sae(block.sae)
    if sae.recipe is None or sae.loader != "folder":
        raise ParamsError(
            f"SAE {sae.name!r} of {model!r} has no recipe; an SAE of our own is a folder with a `recipe` in params.yaml, as smollm2-l18 is"
        )
    return block, sae, sae.recipe


def write(
    params: Params,
    model: str,
    root: Path,
    backend: "Backend",
    say: Callable[[str], object],
    part: corpus.Part,
    *,
    rows: bool = False,
    **options: Any,
) -> None:
    """A part of the text alone, with `rows` those of the stream too, for processes that share the work; `make` goes on from what they
    wrote. `options`: of the engine."""
    from esr.engine.open import close_engine, open_engine

    block, _, recipe = recipe_of(params, model)
    engine = open_engine(params, model, backend, saes=False, **options)
    try:
        text = corpus.made(engine, params, model, recipe, root, say, part)
        if rows:
            Rows(engine, text, block.read_layer, params.sampling(model)).write(say, part)
    finally:
        close_engine(engine)


def make(
    params: Params, model: str, root: Path, backend: "Backend" = "vllm", say: Callable[[str], object] = lambda said: None
) -> Path:
    """The SAE's folder; made anew also where one is. `root`: of the store, where the text is kept meanwhile."""
    from esr.dictionary import quality
    from esr.engine.open import close_engine, open_engine

    block, sae, recipe = recipe_of(params, model)
    engine = open_engine(params, model, backend, saes=False)
    try:
        text = corpus.made(engine, params, model, recipe, root, say)
        if not text.held:
            raise DataError(f"of {text.prompts} prompts none is held out to measure by; raise saes.{sae.name}.recipe.held_out")
        say(f"text: {text.replies:,} replies, {text.tokens:,} tokens; {len(text.held):,} replies held out")
        rows = Rows(engine, text, block.read_layer, params.sampling(model))
        trained = training.train(rows, sae, recipe, model, say)
        folder = places.resolve(str(sae.repo))
        aside = folder.with_name(f".{folder.name}-{os.getpid()}")
        try:
            training.save(trained, aside)
            found = quality.measure(aside, sae, rows, block)
            card = {
                "model": model,
                "weights": identity(params, model),
                "engine": engine.fingerprint,
                "recipe": recipe.model_dump(),
                "text": {"replies": text.replies, "tokens": text.tokens, "prompts": text.prompts},
                "quality": asdict(found),
            }
            (aside / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        close_engine(engine)
    say(f"{sae.repo}: {found}")
    return folder
