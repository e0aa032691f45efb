"""How active detectors are where a reply is off topic, corrects itself and is on topic again; read anew, without steering."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from esr.engine import Capture, Request
from esr.study.study import Study
from esr.types import Sampling

READ = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=1)
REGIONS = """
with corrected as (select * from outcomes where experiment = 'exp01' and arm = 'baseline' and model = $1 and scale = $2 and judge = $3 and corrected),
     quiet as (select * from outcomes where experiment = 'exp08' and arm = 'no-steering' and model = $1 and scale = $2 and judge = $3)
select c.latent, c.prompt, r.text, u.text as quiet, j.located as attempts
from corrected c join replies r using (trial_id)
join judged j on j.trial_id = c.trial_id and j.latent = c.latent and j.experiment = c.experiment and j.arm = c.arm and j.judge = c.judge and j.scale = c.scale
join quiet q on q.latent = c.latent and q.question = c.question and q.seed = c.seed join replies u on u.trial_id = q.trial_id
order by c.latent, c.question, c.seed
"""


def off_topic_regions(study: Study, latents: Sequence[int]) -> pd.DataFrame:
    """For each reply with a correction: the detectors' mean activation in its off-topic first attempt, in the correction, in its
    last attempt, and over the unsteered reply to the same question with the same seed. Offsets are of the replies as recorded."""
    rows = study.store.sql(REGIONS, [study.model, study.params.scale, study.spec.judge]).to_pylist()
    if not rows:
        return pd.DataFrame()
    engine, spec, form = study.engine, study.spec, study.params.protocol.prompt_format
    capture = Capture(layer=spec.read_layer, sae=spec.sae, mode="latents", latents=tuple(latents))
    both = [(row["prompt"], text) for row in rows for text in (row["text"], row["quiet"])]
    asked = [Request(prompt=prompt, prompt_format=form, prefill=text, sampling=READ, capture=capture) for prompt, text in both]
    readings, out = engine.read(asked), []
    for row, said, quiet in zip(rows, readings[::2], readings[1::2], strict=True):
        start = len(engine.render(row["prompt"], form))
        places = np.array(engine.offsets(engine.render(row["prompt"], form, row["text"])[start:]))
        values = said.values[start:].mean(axis=1)
        (first, second), last = row["attempts"][:2], row["attempts"][-1]
        ends = {
            "off": (first["start"], first["end"]),
            "correction": (first["end"], second["start"]),
            "on": (last["start"], last["end"]),
        }
        places, values = places[: len(values)], values[: len(places)]
        inside = {name: (places[:, 0] < high) & (places[:, 1] > low) for name, (low, high) in ends.items()}
        means = {name: float(values[some].mean()) if some.any() else float("nan") for name, some in inside.items()}
        out.append({"latent": row["latent"], **means, "unsteered": float(quiet.values[start:].mean())})
    return pd.DataFrame(out)
