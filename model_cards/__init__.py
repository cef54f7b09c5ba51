"""The zoo's facts, one TOML file a model, and what is rendered from them: `python -m model_cards.render`."""
