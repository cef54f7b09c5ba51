"""The zoo's facts, one TOML file a model, and what is rendered from them.

To add a model, put the folder of its run into `emfm/weights/NAME` and write
`model_cards/NAME.toml`; a source of data that is new goes into `data_sources.toml`. Then measure
and render:

    python -m benchmarks.restoration --data FOLDER --model NAME --draws 5
    python -m model_cards.render

Weights that are too large for the package stay out of the folder: with `size` (bytes) and
`parameters` in the TOML file, `config.json` is enough, and the name then loads from the zoo's
namespace on the Hub.
"""
