"""Check the links between the pages of the repository, as GitHub shows them; list those that lead outside.

    python docs/site/links.py

A link to a file that is not there, or to a heading that its page does not have, is printed, and the
exit code is 1. Links to other sites are only listed: nothing is fetched.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[2]
PATTERNS = ("*.md", ".github/*.md", "docs/**/*.md", "hub_scripts/**/*.md", "emfm/weights/**/*.md")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(<?([^()\s>]+)>?(?: \"[^\"]*\")?\)|<(https?://[^>\s]+)>")


def pages() -> list[Path]:
    """Return every page that people read in the repository."""
    return sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern)})


def prose(text: str) -> str:
    """Return a page without its blocks of code, its code within lines and its comments."""
    text = re.sub(r"^(```+).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def links(text: str) -> list[str]:
    """Return what the links and pictures of a page lead to."""
    return [first or second for first, second in LINK.findall(prose(text))]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page; a repeated one has a number at its end."""
    found: dict[str, int] = {}
    names = set()
    without_code = re.sub(r"^(```+).*?^\1\s*$", "", text, flags=re.DOTALL | re.MULTILINE)
    for title in re.findall(r"^#{1,6} +(.+?) *$", without_code, flags=re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return names


def external(target: str) -> bool:
    """Tell whether a link leads out of the repository."""
    return target.startswith(("http://", "https://", "mailto:"))


def mistake(page: Path, target: str) -> str | None:
    """Return what is wrong with a link of a page; None where it leads somewhere, or outside."""
    if external(target):
        return None
    place, _, anchor = unquote(target).partition("#")
    file = (page.parent / place).resolve() if place else page
    if not file.exists():
        return f"{target}: there is no such file"
    if not file.is_relative_to(ROOT):
        return f"{target}: leads out of the repository"
    if anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
        return f"{target}: the page has no such heading"
    return None


def main() -> int:
    """Print mistakes and links to other sites; returns the exit code."""
    outside: dict[str, str] = {}
    mistakes = []
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        for target in links(page.read_text(encoding="utf-8")):
            wrong = mistake(page, target)
            if wrong:
                mistakes.append(f"{name}: {wrong}")
            elif external(target):
                outside.setdefault(target, name)
    sys.stdout.write("Links to other sites, not fetched:\n")
    for target, name in sorted(outside.items()):
        sys.stdout.write(f"  {target} ({name})\n")
    sys.stderr.write("".join(f"{line}\n" for line in mistakes))
    return int(bool(mistakes))


if __name__ == "__main__":
    sys.exit(main())
