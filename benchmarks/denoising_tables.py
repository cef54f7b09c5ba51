"""Tables of `benchmarks.denoising`: what needs no training, and what learns from the micrograph in equal time."""

from typing import Any

import numpy as np

from benchmarks.denoisers import TRAINED

Results = list[dict[str, Any]]
# Doses in electrons per pixel at value 1; "lines": 20 of them, each line displaced.
NOISES = ("5", "20", "80", "lines")
# Correlations of neighbours in what was taken away: 0 of white noise.
WHITE = ("along_rows", "along_columns")


def table(results: Results) -> str:
    """Return a row for each method: PSNR for each noise, mean over micrographs, SSIM and seconds over all."""
    noises = [noise for noise in NOISES if any(result["noise"] == noise for result in results)]
    heads = ["method", *(f"PSNR at {n}" if n != "lines" else "PSNR, lines" for n in noises), "SSIM", "seconds", "n"]
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in dict.fromkeys(result["method"] for result in results):
        mine = [result for result in results if result["method"] == name]
        ssim, took = np.mean([result["ssim"] for result in mine]), np.median([result["took"] for result in mine])
        rows.append(f"| {name} | {' | '.join(_by_noise(mine, noises))} | {ssim:.3f} | {took:.2f} | {len(mine)} |")
    return "\n".join(rows)


def untrained(results: Results) -> Results:
    """Return the results of what needs no training."""
    return [result for result in results if result["method"] not in TRAINED]


def learnt_table(results: Results, early: bool = False) -> str:
    """Return a row for each method, on the cells that all that learn have; the worst beside the mean.

    Those are shown that had all the seconds, or the `early` ones, which had a part of them.
    """
    learnt = [result for result in results if result["method"] in TRAINED]
    most = max(result["seconds"] for result in learnt)
    learnt = [result for result in learnt if (result["seconds"] < most) is early]
    rows = dict.fromkeys((result["method"], result["seconds"]) for result in (*untrained(results), *learnt))
    shared = set.intersection(*({_cell(r) for r in learnt if _row(r) == row} for row in rows if row[0] in TRAINED))
    noises = [noise for noise in NOISES if any(cell[2] == noise for cell in shared)]
    heads = ["method", "seconds", *(f"PSNR at {n}" if n != "lines" else "PSNR, lines" for n in noises)]
    heads += ["mean", "least above non-local means", "SSIM", "residual's neighbours", "n"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    floor = {_cell(r): r["psnr"] for r in results if r["method"] == "non-local means"}
    for row in rows:
        mine = [r for r in results if _row(r) == row and _cell(r) in shared]
        if not mine:
            continue
        least = min(r["psnr"] - floor[_cell(r)] for r in mine)
        ssim, whole = np.mean([r["ssim"] for r in mine]), np.mean([r["psnr"] for r in mine])
        taken = [abs(r["residual"][name]) for r in mine if r["residual"] for name in WHITE]
        seconds, white = "" if row[1] is None else f"{row[1]:g}", f"{np.mean(taken):.2f}" if taken else ""
        shown = " | ".join(_by_noise(mine, noises))
        lines.append(
            f"| {row[0]} | {seconds} | {shown} | {whole:.2f} | {least:+.2f} | {ssim:.3f} | {white} | {len(mine)} |"
        )
    return "\n".join(lines)


def _by_noise(results: Results, noises: list[str]) -> list[str]:
    found = [[result["psnr"] for result in results if result["noise"] == noise] for noise in noises]
    return [f"{np.mean(values):.2f}" if values else "" for values in found]


def _cell(result: dict[str, Any]) -> tuple[Any, ...]:
    return result["set"], result["micrograph"], result["noise"], result["draw"]


def _row(result: dict[str, Any]) -> tuple[str, float | None]:
    return result["method"], result["seconds"]
