"""What experiment 13 exports beside outcomes: each direction's threshold, also as a multiple of the residual stream's length."""

import json

import pandas as pd

from esr.errors import DataError
from esr.experiment import Selection, Table
from esr.store import Store

FOUND = """
select m.latent as direction, m.latent_label as label, m.threshold, any_value(t.meaning) as meaning,
    any_value(c.low) as low, any_value(c.high) as high, any_value(c.status) as status, any_value(c.verified_score) as verified_score
from current_members m join trials t using (trial_id)
left join thresholds c on c.model = m.model and c.latent = m.latent and c.label = m.latent_label and c.threshold = m.threshold
where m.experiment = ? and m.arm = 'steered' and m.model = ? and m.scale = ?
group by m.latent, m.latent_label, m.threshold order by m.latent
"""


def directions(store: Store, chosen: Selection) -> pd.DataFrame:
    """A row a direction that is steered."""
    found = store.sql(FOUND, [chosen.experiment, chosen.model, chosen.scale]).to_pylist()
    out = []
    for row in found:
        [(name, sha)] = json.loads(row.pop("meaning"))["saes"].items()
        file = store.root / "directions" / f"{name}-{sha}.json"
        if not file.is_file():
            raise DataError(
                f"the store lacks {file.name}, which tells of the directions {name!r}; run {chosen.experiment} again, which makes it"
            )
        told = json.loads(file.read_text(encoding="utf-8"))
        length, norm = told["lengths"][row["direction"]], told["norm"]
        out.append(
            {
                **row,
                "set": name,
                "sha256": told["sha256"],
                "layers": ",".join(map(str, told["layers"])),
                "length": length,
                "norm": norm,
            }
            | {"dose": row["threshold"] * length / norm}
        )
    return pd.DataFrame(out)


DIRECTIONS = Table("directions", directions)
