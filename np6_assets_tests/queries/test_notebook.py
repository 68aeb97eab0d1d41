"""The notebook of the documentation runs, and plots what the views have."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from np6_assets_tests.report.made import make, sends

NOTEBOOK = Path(__file__).parents[2] / "docs" / "explore.ipynb"
FIRST = date(2026, 3, 2)


def test_notebook_runs_and_plots_the_rate_of_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        sends(FIRST, 1, 100, bounced=20, hit_activations=8),
        sends(FIRST, 2, 20, hit_activations=4),
        sends(FIRST + timedelta(days=1), 1, None, hit_activations=50),  # without sends: no day of the plot
        sends(FIRST + timedelta(days=2), 1, 50, status="open", hit_activations=10),
        sends(FIRST + timedelta(days=2), 2, 50, status="incomplete", hit_activations=50),
    ]
    make(tmp_path, rows, {1: "Cart reminder", 2: "Welcome"})
    monkeypatch.setenv("NP6_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("NP6_TIMEZONE", "Europe/Paris")
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    with mpl.rc_context({"backend": "agg"}):
        import matplotlib.pyplot as plt

        names: dict[str, Any] = {}
        for cell in cells:
            if cell["cell_type"] == "code":
                assert [output["output_type"] for output in cell["outputs"]] != []
                exec("".join(cell["source"]), names)
        by_day = plt.figure(1).axes[0]
        assert len(plt.get_fignums()) == 3
        everything, final = (list(line.get_ydata()) for line in by_day.lines)
        plt.close("all")
    assert everything == [12 / 100, 10 / 50]
    assert final == [12 / 100]
