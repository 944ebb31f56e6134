"""The report as one HTML file that asks for nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from interaction_train.tracking.report.charts import SECTIONS, Chart
from interaction_train.tracking.report.material import Run, Table
from interaction_train.tracking.report.numbers import all_numbers, headlines
from interaction_train.tracking.report.places import caption, facts, figure_title, section_of

_ROWS = 60  # of a table; the rest is in its file

_STYLE = """
:root{color-scheme:light dark;--page:#fbfcfd;--card:#fff;--ink:#1f2933;--soft:#5f6b76;
--line:#d5dbe1;--accent:#0b7285;--s1:#0b7285;--s2:#e8590c;--s3:#7048e8;--s4:#2b8a3e;--s5:#c2255c;
--s6:#868e96}
@media (prefers-color-scheme:dark){:root{--page:#14181c;--card:#1c2126;--ink:#dee2e6;--soft:#98a2ad;
--line:#3b434c;--accent:#3bc9db;--s1:#3bc9db;--s2:#ffa94d;--s3:#b197fc;--s4:#69db7c;--s5:#f783ac;
--s6:#adb5bd}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,footer{max-width:68rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
h1{font-size:1.9rem;line-height:1.2;margin:0;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:3rem 0 1rem;padding-bottom:.4rem;border-bottom:2px solid var(--accent)}
h3{font-size:1rem;margin:0 0 .4rem;overflow-wrap:anywhere}
p,footer{color:var(--soft);margin:.4rem 0}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:1rem 0 0;padding:0}
a{color:var(--accent)}
dl.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:1rem;
margin:2rem 0 0}
dl.numbers div{background:var(--card);border:1px solid var(--line);border-radius:.6rem;
padding:.9rem 1rem}
dl.numbers dt{font-size:.85rem;color:var(--soft);line-height:1.3}
dl.numbers dd{margin:.2rem 0 0}
dl.numbers .value{font-size:1.7rem;font-weight:650;font-variant-numeric:tabular-nums;
line-height:1.2}
dl.numbers .where{display:block;font-size:.75rem;color:var(--soft);overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.25rem;
align-items:start}
figure,.card,details{margin:0 0 1.25rem;background:var(--card);border:1px solid var(--line);
border-radius:.6rem;padding:1rem;min-width:0}
.grid figure{margin:0}
figcaption{font-weight:600;margin-bottom:.5rem;overflow-wrap:anywhere}
figure svg,figure img{display:block;width:100%;height:auto}
figure img{background:#fff;border-radius:.3rem}
svg text{font-family:inherit!important}
details>summary{cursor:pointer;font-weight:600}
details>*+*{margin-top:.8rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.25rem .7rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
.card td{text-align:left;white-space:normal;overflow-wrap:anywhere}
thead th{color:var(--soft);font-weight:600}
tbody th{font-weight:400}
pre{margin:.8rem 0 0;overflow-x:auto;font:.8rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,
monospace}
footer{font-size:.85rem;padding-top:2rem;padding-bottom:3rem}
@media print{details{break-inside:avoid}}
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(run: Run, charts: Sequence[Chart]) -> str:
    """The whole page.

    Args:
        run: what the run's folder holds.
        charts: the curves.
    """
    parts = {title: body for title in SECTIONS if (body := _section(run, charts, title))}
    parts["All numbers and tables"] = _tables([all_numbers(run.series), *run.tables])
    parts["How it was made"] = _origin(run)
    links = "".join(f'<li><a href="#{_id(title)}">{escape(title)}</a></li>' for title in parts)
    body = "".join(
        f'<section aria-labelledby="{_id(title)}"><h2 id="{_id(title)}">{escape(title)}</h2>'
        f"{content}</section>\n"
        for title, content in parts.items()
    )
    name = escape(run.name)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{name} · run report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{name}</h1><p>{escape(caption(run))}</p>"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>{_numbers(run)}</header>\n'
        f"<main>\n{body}</main>\n"
        f"<footer>Made from the files in <code>{escape(str(run.folder))}</code>.</footer>\n"
        "</body>\n</html>\n"
    )


def _id(title: str) -> str:
    return title.lower().replace(" ", "-")


def _numbers(run: Run) -> str:
    cards = "".join(
        f'<div><dt>{escape(label)}</dt><dd><span class="value">{escape(value)}</span> '
        f'<span class="where">{escape(where).replace("/", "/<wbr>")}</span></dd></div>'
        for label, value, where in headlines(run.series)
    )
    return f'<dl class="numbers">{cards}</dl>' if cards else ""


def _section(run: Run, charts: Iterable[Chart], title: str) -> str:
    found = [_chart(chart) for chart in charts if chart.section == title]
    found += [_image(path) for path in run.figures if section_of(path) == title]
    grid = f'<div class="grid">{"".join(found)}</div>' if found else ""
    if grid and title == "Other metrics":
        return f"<details><summary>{len(found)} more</summary>{grid}</details>"
    return grid


def _chart(chart: Chart) -> str:
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{chart.svg}</figure>\n"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = escape(figure_title(path))
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<img src="data:image/png;base64,{data}" alt="Figure: {name}"></figure>\n'
    )


def _tables(tables: Iterable[Table]) -> str:
    return "".join(
        f"<details><summary>{escape(table.name)}</summary>{_table(table)}</details>\n"
        for table in tables
        if table.rows
    )


def _table(table: Table) -> str:
    cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.columns)
    head = f"<thead><tr>{cells}</tr></thead>" if cells else ""
    rows = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in table.rows[:_ROWS]
    )
    left = len(table.rows) - _ROWS
    note = f"<p>{left} more rows in {escape(table.name)}.</p>" if left > 0 else ""
    return (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="Table: {escape(table.name)}"><table>{head}'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _origin(run: Run) -> str:
    starts = "".join(
        f'<div class="card"><h3>{escape(title)}</h3>'
        f"{_table(Table(title, [], [list(fact) for fact in entries]))}</div>\n"
        for title, entries in facts(run)
    )
    configs = "".join(
        f"<details><summary>{escape(name)}</summary>"
        f'<pre tabindex="0">{escape(text)}</pre></details>\n'
        for name, text in run.configs.items()
    )
    return starts + configs or "<p>Nothing is recorded.</p>"
