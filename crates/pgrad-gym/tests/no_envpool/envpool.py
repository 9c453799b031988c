"""Stands in the way of EnvPool, as if it were not installed."""

raise ModuleNotFoundError("No module named 'envpool'", name="envpool")
