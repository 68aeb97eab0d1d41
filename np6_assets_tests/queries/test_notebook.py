"""Run the notebook of the documentation."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from np6_assets_tests.report.rendering import build_row, write_rates

NOTEBOOK = Path(__file__).parents[2] / "docs" / "explore.ipynb"
FIRST = date(2026, 3, 2)


def test_notebook_plots_the_rate_of_each_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        build_row(FIRST, 1, 100, bounced=20, hit_activations=8),
        build_row(FIRST, 2, 20, hit_activations=4),
        build_row(FIRST + timedelta(days=1), 1, None, hit_activations=50),  # without sends: no day of the plot
        build_row(FIRST + timedelta(days=2), 1, 50, status="open", hit_activations=10),
        build_row(FIRST + timedelta(days=2), 2, 50, status="incomplete", hit_activations=50),
    ]
    write_rates(tmp_path, rows, {1: "Cart reminder", 2: "Welcome"})
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
