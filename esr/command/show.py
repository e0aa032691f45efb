"""python -m esr show: one trial whole: how it was made, its reply with the attempts marked, what every judge said."""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from esr.command.reading import existing


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("trial", help="a trial_id, as in outcomes or the sample of replies; its first characters are enough")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def run(args: Namespace) -> int:
    from esr.show.trial import gathered

    found = gathered(existing(), args.trial)
    sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=1, default=str) + "\n" if args.json else told(found))
    return 0


def told(found: dict[str, Any]) -> str:
    from esr.show.reply_sample import attempts
    from esr.show.trial import again

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
