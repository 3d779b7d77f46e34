"""What the HTML pages share: one look, everything in the file itself, and text that stays text.

No scripts, so nothing that an agent wrote can ever run: the content security policy forbids even what escaping might miss.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ralph_core.errors import UserError

from .common import say

if TYPE_CHECKING:
    from ralph_core.redaction import Redactor
    from ralph_core.session import Session

CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #667085; --faint: #e4e7ec; --paper: #f7f8fa; --card: #fff;
  --good: #12805c; --bad: #c8372d; --warn: #b25e02; --agent: #2f6fde; --tool: #8ab4f8; --gate: #8e4ec6; --wait: #e0a030;
  --step: #9aa4b2; --own: #3a9d8f; --a: #2f6fde; --b: #8ab4f8; --c: #8e4ec6; --d: #e08a3c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #98a2b3; --faint: #2b3240; --paper: #12161d; --card: #1a2029;
  --good: #4cc38a; --bad: #ff6b61; --warn: #f5a74d; --agent: #5b93f5; --tool: #3f649f; --gate: #b57ae8; --wait: #c98b1f;
  --step: #5d6878; --own: #43b3a3; --a: #5b93f5; --b: #3f649f; --c: #b57ae8; --d: #e0955a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 22px; margin: 0; line-height: 1.3; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 34px 0 10px; }
.dim, small { color: var(--dim); } .good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.card { background: var(--card); border: 1px solid var(--faint); border-radius: 10px; padding: 16px 18px; }
.mono, code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12.5px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 6px 0 0; max-height: 340px; overflow: auto; background: var(--paper);
  border-radius: 6px; padding: 8px 10px; }
a { color: var(--agent); text-decoration: none; } a:hover { text-decoration: underline; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 500; color: var(--dim); font-size: 12px; }
th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid var(--faint); vertical-align: top; overflow-wrap: anywhere; }
tr:last-child > td { border-bottom: 0; } td.num + td, th.num + th { padding-left: 14px; }
.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; } summary::marker { color: var(--dim); }
.keep { white-space: nowrap; }
.pill { display: inline-block; border-radius: 99px; padding: 1px 10px; font-size: 12.5px; font-weight: 600; border: 1px solid currentColor; }
"""


def document(title: str, style: str, body: Iterable[str]) -> str:
    """A whole page; `body` is markup, `title` is text."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{CSP}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title><style>{STYLE}{style}</style></head><body><main>",
            *body,
            "</main></body></html>",
            "",
        ]
    )


def text(value: object) -> str:
    """Anything as text of a page or of an attribute: no markup, and no control characters."""
    words = "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )
    return escape(words, quote=True)


def element(name: str, content: str, **attributes: str) -> str:
    """An element; `content` is markup, the attributes are text (`class_` for class)."""
    said = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return f"<{name}{said}>{content}</{name}>"


def table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> str:
    """A table; the cells are markup, the head is text. `numbers` says which columns are figures."""
    right = set(numbers)

    def line(cells: Iterable[str], kind: str) -> str:
        return "".join(f"<{kind}{' class=num' if at in right else ''}>{cell}</{kind}>" for at, cell in enumerate(cells))

    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return f"<table><thead><tr>{line([text(cell) for cell in head], 'th')}</tr></thead><tbody>{body}</tbody></table>"


def redactor(here: Session) -> Redactor:
    """What keeps secrets out of what is shown: those of now, which may not be those of the run."""
    from ralph_core.redaction import Redactor

    return Redactor(here.env)


def write_page(path: Path, text: str) -> None:
    """Write a page, and say where. Raises `UserError`."""
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from None
    say(f"{path} ({len(text.encode(errors='replace')) // 1024 + 1} KB)")
