"""The card of a model of the zoo, the table of all of them, and the list of their data, from their facts."""

from itertools import groupby
from pathlib import Path

from huggingface_hub import EvalResult

from emfm.hub.card import dataset_slug, fill, fill_card, model_card_data, table
from emfm.hub.zoo import FORMS, DataSource, Metric, ModelInfo, mean_and_spread
from emfm.pretraining.card import KIND, OPENING, command_lines, training_table
from emfm.tasks import TASKS

# Ahead of what needs no training by so much (dB) is a gain that can be seen.
AHEAD = {"denoising": 1.0, "super-resolution": 0.5}
LOWER_IS_BETTER = ("l1",)
HUB_TASKS = {"segmentation": "image-segmentation"}

TEMPLATES = Path(__file__).parent / "templates"


def zoo_card(info: ModelInfo) -> str:
    """Return the README.md of a model of the zoo."""
    return _ready_card(info) if info.finetuning else _generator_card(info)


def _ready_card(info: ModelInfo) -> str:
    """Return the card of a model that is used as it is."""
    assert info.task is not None
    words = TASKS[info.task].card
    data = model_card_data(
        license=info.license,
        model_name=info.name,
        pipeline_tag=words.pipeline_tag,
        tags=[info.task],
        eval_results=[evaluation(metric) for metric in info.metrics] or None,
    )
    return fill_card(
        TEMPLATES / "ready_card.md",
        data,
        info=info,
        run=info.finetuning,
        words=words,
        model=TASKS[info.task].__name__,
        sources=data_table(info.data),
        command=command_lines(info.command),
        figures=_figures(info.metrics),
    )


def _generator_card(info: ModelInfo) -> str:
    data = model_card_data(
        license=info.license,
        model_name=info.name,
        eval_results=[evaluation(metric) for metric in info.metrics] or None,
        **KIND,
    )
    return fill_card(
        TEMPLATES / "zoo_card.md",
        data,
        info=info,
        opening=fill(OPENING, place=info.name),
        sources=data_table(info.data),
        training=training_table(info.pretraining, info.pretraining["norm"]),
        command=command_lines(info.command),
        figures=_figures(info.metrics),
    )


def evaluation(metric: Metric) -> EvalResult:
    """Return a figure in the form that the Hub shows beside a card."""
    heading, form = FORMS[metric.name]
    return EvalResult(
        task_type=HUB_TASKS.get(metric.task, "image-to-image"),
        task_name=metric.task,
        dataset_type=dataset_slug(metric.data),
        dataset_name=metric.data,
        # figures of several tasks on one set would else be taken for one
        dataset_config=metric.task,
        dataset_split="test" if "test" in metric.n else "validation",
        dataset_args={"n": metric.n},
        metric_type=metric.name,
        metric_name=f"{heading}, {metric.setting}",
        metric_value=float(format(metric.value, form)),
        metric_args={"repeats": metric.repeats, "spread": metric.spread and float(format(metric.spread, form))},
    )


def data_table(sources: list[DataSource]) -> str:
    """Return the sources of training data as a Markdown table."""
    rows = []
    for source in sources:
        pixel_size = f"{source.pixel_size:g}" if source.pixel_size else "not stated"
        rows.append([source.name, source.what, source.origin, source.license, pixel_size])
    return table(["name", "what", "origin", "licence", "nm per pixel"], rows)


def zoo_page(models: list[ModelInfo]) -> str:
    """Return docs/models.md."""
    rows = []
    for info in models:
        size = f"{info.size / 1e6:.2f} MB"
        numbers = [f"{info.parameters:,}", f"{info.receptive_field} px", size]
        rows.append([f"`{info.name}`", *numbers, info.shown_pixel_sizes(), info.license, info.place])
    headings = ["name", "weights", "receptive field", "file", "pixel sizes", "licence", "where"]
    page = fill(
        TEMPLATES / "zoo_page.md",
        table=table(headings, rows),
        models=models,
        sources=data_table(_all_sources(models)),
    )
    return f"{page}\n"


def data_page(models: list[ModelInfo]) -> str:
    """Return the list of the data behind all models."""
    return fill(TEMPLATES / "data_page.md", sources=data_table(_all_sources(models))) + "\n"


def _all_sources(models: list[ModelInfo]) -> list[DataSource]:
    return list({source.name: source for info in models for source in info.data}.values())


def _figures(metrics: list[Metric]) -> str:
    """Return a section for each benchmark, with how to measure it again."""
    groups = groupby(metrics, lambda metric: (metric.command, metric.task))
    return "\n\n".join(_section(list(group)) for _, group in groups) or "Nothing was measured."


def _section(metrics: list[Metric]) -> str:
    first = metrics[0]
    ready = first.task in AHEAD and "no network" not in first.compared  # used as it is
    return fill(
        TEMPLATES / "figures.md",
        first=first,
        ready=ready,
        heading=FORMS[first.name][0],
        table=_restored(metrics) if first.task == "restoration" else _transferred(metrics),
        verdict=_ahead(metrics) if ready else _verdict(metrics),
        command=command_lines(first.command),
    )


def _restored(metrics: list[Metric]) -> str:
    """Return the figures of a restoration as a table, one column a metric."""
    rows = [["this model", *(_figure(m, m.value, m.spread) for m in metrics)]]
    for other in metrics[0].compared:
        rows.append([other, *(_figure(m, *m.compared[other]) for m in metrics)])
    return table(["what", *(FORMS[m.name][0] for m in metrics)], rows)


def _transferred(metrics: list[Metric]) -> str:
    """Return the figures after fine-tuning as a table, one row a setting."""
    compared = list(metrics[0].compared)
    rows = []
    for metric in metrics:
        others = [_figure(metric, *metric.compared[other]) for other in compared]
        value = _figure(metric, metric.value, metric.spread)
        rows.append([metric.data, metric.n, metric.setting, value, *others])
    return table(["data", "n", "setting", "this model", *compared], rows)


def _figure(metric: Metric, value: float, spread: float | None) -> str:
    return mean_and_spread(value, spread, FORMS[metric.name][1])


def _verdict(metrics: list[Metric]) -> str:
    """Say whether pretraining helped by more than chance.

    The difference is compared with the larger of the two standard deviations.
    """
    name = metrics[0].name
    named = [m for m in metrics if m.name == name and "random weights" in m.compared]
    better = worse = 0
    for metric in named:
        gain = _gain(metric, "random weights")
        noise = max(metric.spread or 0.0, metric.compared["random weights"][1] or 0.0)
        better += gain > noise
        worse += -gain > noise
    beaten = _not_better_than("random weights", named)
    useless = _not_better_than("no network", named)
    verdict = (
        f"By {FORMS[name][0]} the pretrained start is better than random weights by more than one "
        f"standard deviation in {better} of {len(named)} settings, and worse in {worse}. Its mean "
        "is "
    )
    verdict += f"not above theirs in: {beaten}." if beaten else "above theirs in all of them."
    if useless:
        verdict += f" **Not better than no network** in: {useless}."
    return verdict


def _ahead(metrics: list[Metric]) -> str:
    """Say by how much a ready model's PSNR is ahead of the best of what it is compared with."""
    measured, least = [m for m in metrics if m.name == "psnr"], AHEAD[metrics[0].task]
    gains = {m.setting: m.value - max(value for value, _ in m.compared.values()) for m in measured}
    shown = ", ".join(f"{gain:+.2f} dB at {setting}" for setting, gain in gains.items())
    short = ", ".join(setting for setting, gain in gains.items() if gain < least)
    verdict = f"Beside the best of the others: {shown}."
    return f"{verdict} **Less than {least:g} dB ahead** at: {short}." if short else verdict


def _not_better_than(other: str, metrics: list[Metric]) -> str:
    """Return the settings in which the model is not better, as text."""
    return ", ".join(f"{m.data} ({m.setting})" for m in metrics if not _gain(m, other) > 0)


def _gain(metric: Metric, other: str) -> float:
    """Return by how much the model is better than what it is compared with; below 0 where it is worse."""
    gain = metric.value - metric.compared[other][0]
    return -gain if metric.name in LOWER_IS_BETTER else gain
