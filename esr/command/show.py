"""python -m esr show: one trial whole: how it was made, its reply with the attempts marked, what every judge said."""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from esr.command.reading import existing

if TYPE_CHECKING:
    from esr.store import Store


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("trial", help="a trial_id, as in outcomes or the sample of replies; its first characters are enough")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: Namespace) -> int:

    found = gathered(existing(), args.trial)
    sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=1, default=str) + "\n" if args.json else told(found))
    return 0


def gathered(store: "Store", beginning: str) -> dict[str, Any]:
    """Everything that the store holds of the one trial whose id begins so."""
    from esr.errors import DataError

    rows = store.sql("select * from trials where starts_with(trial_id, ?) limit 2", [beginning]).to_pylist()
    if len(rows) != 1:
        many = "several trials have" if rows else "no trial has"
        raise DataError(
            f'{many} an id that begins with {beginning!r}; `python -m esr sql "select trial_id from outcomes"` lists them'
        )
    trial = rows[0]
    of = [trial["trial_id"]]
    replies = store.sql("select * from replies where trial_id = ?", of).to_pylist()
    places = store.sql(
        "select experiment, arm, scale, latent, latent_label, boost, threshold, question from current_members where trial_id = ? order by all",
        of,
    ).to_pylist()
    grades = store.sql("select * from grades where trial_id = ? order by judge, latent, graded_at", of).to_pylist()
    return {"trial": trial, "reply": replies[0] if replies else None, "members": places, "grades": grades}


def told(found: dict[str, Any]) -> str:
    from esr.show.reply_sample import attempts

    trial, reply = found["trial"], found["reply"]
    ops = [
        f"{op['kind']} {op['value']:.6g} × latent {op['latent']} of {op['sae']} at layer {op['layer']}" for op in trial["ops"] or []
    ]
    lines = [
        f"trial {trial['trial_id']} of {trial['model']} ({trial['weights'] or 'weights not recorded'})",
        f"sampling: seed {trial['seed']}, temperature {trial['temperature']}, top_p {trial['top_p']}, "
        f"repetition penalty {trial['repetition_penalty']}, at most {trial['max_tokens']} tokens; prompt {trial['prompt_format']}",
        f"interventions ({trial['scope']}): {'; '.join(ops) or 'none'}",
    ]
    for m in found["members"]:
        steered = f"boost {m['boost']:.6g}" if m["boost"] else "unsteered"
        lines.append(
            f"{m['experiment']}/{m['arm']}, scale {m['scale']}: latent {m['latent']} ({m['latent_label'] or 'no label'}), {steered}"
        )
    lines += ["", "prompt:", trial["prompt"]]
    if trial["prefill"]:
        lines += ["", "prefill:", trial["prefill"]]
    if reply is None:
        lines += ["", "no reply yet"]
    else:
        cut = {"length": "cut at the limit", "stop": "ended by the model"}.get(reply["finish_reason"], "end not recorded")
        lines += ["", f"reply ({cut}{', degraded' if reply['degraded'] else ''}):", reply["text"]]
    for one in found["grades"]:
        cost = "price unknown" if one["cost"] is None else f"${one['cost']:.4f}"
        asked = "blind" if one["latent"] == -1 else f"told of latent {one['latent']}"
        lines += ["", f"judge {one['judge']} ({asked}, instructions {one['judge_prompt']}, {cost}): {one['missing'] or 'graded'}"]
        if reply is not None and one["attempts"]:
            lines.append(attempts(reply["text"], one["attempts"]))
    lines += ["", *(f"make it again: {line}" for line in again(trial, found["members"]))]
    return "\n".join(lines) + "\n"


def again(trial: dict[str, Any], members: list[dict[str, Any]]) -> list[str]:
    """The lines that plan this trial; each generates only what the store lacks."""
    lines = [f"python -m flows {m['experiment']} {trial['model']} --scale {m['scale']}" for m in members]
    return list(dict.fromkeys(lines)) or ["it is part of a threshold search; the line of any experiment on this model makes it"]
