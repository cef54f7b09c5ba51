"""The model zoo: names, bundled weights and cards."""
