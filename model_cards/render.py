"""Render what is rendered from the zoo's facts: cards and facts beside the weights, the list of data, docs/models.md.

python -m model_cards.render [--check]
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from emfm.errors import EMError
from emfm.files import write_text
from emfm.hub.zoo import FACTS, NOT_STORED, ModelInfo
from model_cards.card import data_page, zoo_card, zoo_page
from model_cards.facts import ROOT, zoo_facts


def rendered(models: list[ModelInfo] | None = None) -> dict[Path, str]:
    """Return the text of every rendered file by its path in the checkout."""
    models = zoo_facts() if models is None else models
    files = {Path("docs/models.md"): zoo_page(models), Path("emfm/weights/DATA.md"): data_page(models)}
    for info in models:
        stored = {name: value for name, value in asdict(info).items() if name not in NOT_STORED}
        files[Path("emfm/weights") / info.name / "README.md"] = zoo_card(info)
        files[Path("emfm/weights") / info.name / FACTS] = json.dumps(stored, indent=1, ensure_ascii=False) + "\n"
    return files


def main() -> int:
    """Write what has changed, or only tell; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a file would change")
    arguments = parser.parse_args()
    try:
        files = rendered()
    except EMError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    stale = [
        path for path, text in files.items() if not (ROOT / path).is_file() or (ROOT / path).read_text("utf-8") != text
    ]
    for path in stale:
        if not arguments.check:
            write_text(ROOT / path, files[path])
        sys.stdout.write(f"{path} {'is not as rendered' if arguments.check else 'rendered'}\n")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
