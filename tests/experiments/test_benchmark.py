"""What the benchmark command writes."""

import json

from experiments import benchmark
from experiments.benchmarks import charts

ROW = {"what": "96 x 180", "ours": 2.0, "reference": 1.0, "ratio": 2.0, "unit": "charts/s"}


def test_the_file_of_one_benchmark_is_the_list_of_its_rows(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(charts, "run", lambda: [ROW])
    monkeypatch.setattr(benchmark.logger, "disable", lambda _: None)
    monkeypatch.setattr("sys.argv", ["benchmark.py", "charts", "--json", str(tmp_path / "b.json")])
    benchmark.main()
    assert json.loads((tmp_path / "b.json").read_text()) == [ROW]
    assert "96 x 180" in capsys.readouterr().out
