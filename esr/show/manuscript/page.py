"""One page over the folder, plain HTML that opens from a file: every figure with its title, n, run and model, and the line that makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from esr.show import words
from esr.show.manuscript.exported import Exported, told
from esr.show.manuscript.numbers import Number


@dataclass(frozen=True, slots=True)
class Picture:
    title: str
    stem: str
    """Of its files, below the folder."""
    line: str
    """What draws it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One experiment on one model, or on several side by side."""

    exported: Exported
    pictures: tuple[Picture, ...]
    table: Sequence[tuple[str, ...]]
    files: tuple[str, ...]
    several: tuple[Exported, ...] = ()
    captioned: tuple[tuple[str, Sequence[tuple[str, ...]]], ...] = ()
    """Further tables, each after what is said above it."""

    @property
    def anchor(self) -> str:
        return f"{self.exported.experiment.name}-{'models' if self.several else self.exported.title}"


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; background: white; padding: 4px; }
figcaption, .how { font-size: 13px; } code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 12.5px; }
td, th { padding: 2px 8px; text-align: right; border-bottom: 1px solid #8884; } td:first-child, th:first-child { text-align: left; }
"""


def html(shown: Sequence[Shown], numbers: Sequence[Number], absent: Mapping[str, str]) -> str:
    body = ["<h1>Figures, tables and numbers</h1>", _lead(len(shown), len(numbers)), _contents(shown)]
    for name in dict.fromkeys(one.exported.experiment.name for one in shown):
        some = [one for one in shown if one.exported.experiment.name == name]
        experiment = some[0].exported.experiment
        body.append(f'<h2 id="{escape(name)}">{escape(name)}: {escape(experiment.question)}</h2>')
        body.append(f"<p>In the paper: {escape(experiment.paper)}.</p>")
        body += [part for one in some for part in _section(one)]
    left = "".join(f"<li>{escape(line)}</li>" for line in told(absent))
    body += [
        '<h2 id="left-out">Not run, and left out</h2>',
        f"<p><code>python -m flows EXPERIMENT MODEL</code> runs what is not run.</p><ul>{left}</ul>" if left else "<p>Nothing.</p>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Figures and numbers</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _lead(results: int, numbers: int) -> str:
    return (
        f"<p>{numbers:,} numbers of {results} sets of results: as LaTeX macros in <a href='numbers.tex'>numbers.tex</a>, to read in "
        "<a href='numbers.md'>numbers.md</a>, with every digit in <a href='numbers.json'>numbers.json</a>. "
        f"{escape(words.NOTE)} <a href='#left-out'>What was not run</a> is listed at the end.</p>"
    )


def _contents(shown: Sequence[Shown]) -> str:
    rows: dict[str, list[str]] = {}
    for one in shown:
        label = "models side by side" if one.several else one.exported.title
        rows.setdefault(one.exported.experiment.name, []).append(f'<a href="#{escape(one.anchor)}">{escape(label)}</a>')
    return "<ul>" + "".join(f"<li>{escape(name)}: {', '.join(links)}</li>" for name, links in rows.items()) + "</ul>"


def _section(one: Shown) -> list[str]:
    whose = one.several or (one.exported,)
    title = "Models side by side" if one.several else one.exported.title
    return [
        f'<h3 id="{escape(one.anchor)}">{escape(title)}</h3>',
        *(f'<p class="how">{_how(some)}</p>' for some in whose),
        *(_figure(picture, whose) for picture in one.pictures),
        _table(one.table),
        *(f"<p>{escape(caption)}</p>{_table(rows)}" for caption, rows in one.captioned),
        f'<p class="how">Files: {", ".join(f"<a href={chr(34)}{escape(file)}{chr(34)}>{escape(file)}</a>" for file in one.files)}</p>'
        if one.files
        else "",
    ]


def _how(one: Exported) -> str:
    about = one.about
    return (
        f"Model {escape(str(about['model']))}, judge {escape(str(about['judge']))}, engine {escape(str(about.get('engine', 'vllm')))}, "
        f"results {one.results}, run by <code>{escape(one.line())}</code>"
    )


def _figure(picture: Picture, whose: Sequence[Exported]) -> str:
    stem, title = escape(picture.stem, quote=True), escape(picture.title)
    kinds = " ".join(f'<a href="{stem}.{kind}">{kind.upper()}</a>' for kind in ("pdf", "png", "json"))
    n = "; ".join(f"{escape(one.title)}: {escape(one.n())}" for one in whose)
    return (
        f'<figure><img src="{stem}.png" alt="{title}" loading="lazy"><figcaption><b>{title}</b>. n: {n}. '
        f"Drawn by <code>{escape(picture.line)}</code>. {kinds}</figcaption></figure>"
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
