"""The card of a model of the zoo, the table of all of them, and the list of their data, from their facts."""

from itertools import groupby

from huggingface_hub import EvalResult

from emfm.hub.card import bullets, dataset_slug, front_matter, table
from emfm.hub.zoo import FORMS, DataSource, Metric, ModelInfo, mean_and_spread
from emfm.pretraining.card import INTRODUCTION, KIND, USE, command_lines, training_table

LOWER_IS_BETTER = ("l1",)
HUB_TASKS = {"segmentation": "image-segmentation"}

CARD = """\
---
{header}
---

# {info.name}, pretrained on electron micrographs

{info.summary}

{introduction}

## Use

{use}

Intended for:

{intended_use}

## Data

{data}

Pixel sizes: {info.pixel_sizes} The weights are under the licence `{info.license}`.

## Training

{training}

```bash
{command}
```

## Figures

{figures}

## Limits

{limits}

Not tested:

{not_tested}
"""
RESTORED = """\
### Restoration

{n}; mean and standard deviation over {first.repeats}. In network values: the micrograph's 1st and 99th percentile lie
at -1 and +1, PSNR and SSIM have a data range of 2. Neighbouring slices of those held out were trained on, so expect
somewhat less on another specimen.

{table}
"""
TRANSFERRED = """\
### Fine-tuned: {first.task}

{name}, mean and standard deviation over {first.repeats}, on the central 768 pixels of each test micrograph. Random
weights: the same network without pretraining, its rate chosen in the same way. No network: the best single class for
every pixel, the input as it is, or its bicubic enlargement.

{table}

{verdict}
"""
COMMAND = """
```bash
{command}
```

Results: `{result}`"""
ZOO = """\
# Models of the zoo

`from_pretrained(NAME)` and `--model NAME` take these names. `emfm list` shows the same, `emfm info NAME` everything.

{models}

```bash
emfm list
emfm info unet4-rf200-w16
```

The cards tell what each was trained on and how, and with which command each figure is measured. Figures are means and
standard deviations; in brackets stands what they have to beat.

{cards}

## Data

{data}
"""
DATA = """\
# Data behind the bundled weights

Unlabelled, openly licensed electron micrographs; no image of a downstream benchmark is among them.

{data}

A twentieth of the micrographs was held out for the validation figures in each card.
"""


def zoo_card(info: ModelInfo) -> str:
    """Return the README.md of a model of the zoo."""
    header = front_matter(
        license=info.license,
        model_name=info.name,
        eval_results=[evaluation(metric) for metric in info.metrics] or None,
        **KIND,
    )
    return CARD.format(
        header=header,
        info=info,
        introduction=INTRODUCTION,
        use=USE.format(here=info.name),
        intended_use=bullets(info.intended_use),
        data=data_table(info.data),
        training=training_table(info.pretraining, info.pretraining["norm"]),
        command=command_lines(info.command),
        figures=_figures(info.metrics),
        limits=bullets(info.limits),
        not_tested=bullets(info.not_tested),
    )


def evaluation(metric: Metric) -> EvalResult:
    """Return a figure in the form that the Hub shows beside a card."""
    heading, form = FORMS[metric.name]
    return EvalResult(
        task_type=HUB_TASKS.get(metric.task, "image-to-image"),
        task_name=metric.task,
        dataset_type=dataset_slug(metric.data),
        dataset_name=metric.data,
        dataset_config=metric.task,  # figures of several tasks on one set would else be taken for one
        dataset_split="test" if "test" in metric.n else "validation",
        dataset_args={"n": metric.n},
        metric_type=metric.name,
        metric_name=f"{heading}, {metric.setting}",
        metric_value=float(format(metric.value, form)),
        metric_args={"repeats": metric.repeats, "spread": metric.spread and float(format(metric.spread, form))},
    )


def data_table(sources: list[DataSource]) -> str:
    """Return the sources of training data as a Markdown table."""
    rows = [
        [s.name, s.what, s.origin, s.license, f"{s.pixel_size:g}" if s.pixel_size else "not stated"] for s in sources
    ]
    return table(["name", "what", "origin", "licence", "nm per pixel"], rows)


def zoo_page(models: list[ModelInfo]) -> str:
    """Return docs/models.md."""
    rows = []
    for info in models:
        rows.append(
            [f"`{info.name}`", f"{info.parameters:,}", f"{info.receptive_field} px", f"{info.size / 1e6:.2f} MB"]
        )
        rows[-1] += [info.shown_pixel_sizes(), info.license, info.place]
    headings = ["name", "weights", "receptive field", "file", "pixel sizes", "licence", "where"]
    cards = "\n\n".join(_paragraph(info) for info in models)
    return ZOO.format(models=table(headings, rows), cards=cards, data=data_table(_all_sources(models)))


def _paragraph(info: ModelInfo) -> str:
    told = f"[`{info.name}`](../emfm/weights/{info.name}/README.md). {info.summary}"
    return f"{told}\n\n{bullets([str(metric) for metric in info.headlines]) or 'Nothing was measured.'}"


def data_page(models: list[ModelInfo]) -> str:
    """Return the list of the data behind all models."""
    return DATA.format(data=data_table(_all_sources(models)))


def _all_sources(models: list[ModelInfo]) -> list[DataSource]:
    return list({source.name: source for info in models for source in info.data}.values())


def _figures(metrics: list[Metric]) -> str:
    groups = groupby(metrics, lambda metric: (metric.command, metric.task))
    return "\n\n".join(_measured(list(group)) for _, group in groups) or "Nothing was measured."


def _measured(metrics: list[Metric]) -> str:
    """Return the section of one benchmark, and how to measure it again."""
    restored = metrics[0].task == "restoration"
    return (_restored if restored else _transferred)(metrics) + COMMAND.format(
        command=command_lines(metrics[0].command), result=metrics[0].result
    )


def _restored(metrics: list[Metric]) -> str:
    first = metrics[0]
    rows = [["this model", *(_figure(m, m.value, m.spread) for m in metrics)]]
    rows += [[other, *(_figure(m, *m.compared[other]) for m in metrics)] for other in first.compared]
    n = first.n[0].upper() + first.n[1:]
    return RESTORED.format(first=first, n=n, table=table(["what", *(FORMS[m.name][0] for m in metrics)], rows))


def _transferred(metrics: list[Metric]) -> str:
    first, rows = metrics[0], []
    for metric in metrics:
        others = [_figure(metric, *metric.compared[other]) for other in first.compared]
        rows.append([metric.data, metric.n, metric.setting, _figure(metric, metric.value, metric.spread), *others])
    shown = table(["data", "n", "setting", "this model", *first.compared], rows)
    return TRANSFERRED.format(first=first, name=FORMS[first.name][0], table=shown, verdict=_verdict(metrics))


def _figure(metric: Metric, value: float, spread: float | None) -> str:
    return mean_and_spread(value, spread, FORMS[metric.name][1])


def _verdict(metrics: list[Metric]) -> str:
    """Say whether pretraining helped by more than chance: the difference beside the larger of the two deviations."""
    named = [metric for metric in metrics if metric.name == metrics[0].name and "random weights" in metric.compared]
    better = worse = 0
    for metric in named:
        gain, noise = _gain(metric), max(metric.spread or 0.0, metric.compared["random weights"][1] or 0.0)
        better, worse = better + (gain > noise), worse + (-gain > noise)
    beaten, useless = (
        ", ".join(f"{m.data} ({m.setting})" for m in named if not _gain(m, other) > 0)
        for other in ("random weights", "no network")
    )
    return (
        f"By {FORMS[metrics[0].name][0]} the pretrained start is better than random weights by more than one standard "
        f"deviation in {better} of {len(named)} settings, and worse in {worse}. Its mean is "
        + (f"not above theirs in: {beaten}." if beaten else "above theirs in all of them.")
        + (f" **Not better than no network** in: {useless}." if useless else "")
    )


def _gain(metric: Metric, other: str = "random weights") -> float:
    """Return by how much the model is better than what it is compared with; below 0 where it is worse."""
    return (metric.value - metric.compared[other][0]) * (-1 if metric.name in LOWER_IS_BETTER else 1)
