"""Reading real graphs: every layout, files that are missing or broken, the published files."""

from __future__ import annotations

import csv
import io
import itertools
import zipfile

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets.fairness_graphs.files import HOMEPAGE
from benchsuite.datasets.fairness_graphs.reader import (
    BAIL_COLUMNS,
    CREDIT_COLUMNS,
    GERMAN_COLUMNS,
    load_bail,
    load_credit,
    load_german,
)
from benchsuite.datasets.fairness_graphs.rules import class_balanced_split, similarity_edges, symmetric_with_self_loops


def _write_bail(folder, rows=40, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(0, 3, (rows, 18)), columns=BAIL_COLUMNS)
    table["WHITE"] = rng.integers(0, 2, rows)
    table.insert(16, "RECID", rng.integers(0, 2, rows))
    table.to_csv(folder / "bail.csv", index=False)
    return table


def _raw_edges(table):
    return similarity_edges(table[BAIL_COLUMNS].to_numpy(float), 0.6)


def _write_edges(folder, edges, form):
    if form == "npz":
        np.savez(folder / "bail_edges.npz", edges=edges.astype(np.int16))
        return
    text = io.StringIO()
    np.savetxt(text, edges)
    if form == "txt":
        (folder / "bail_edges.txt").write_text(text.getvalue())
    else:
        with zipfile.ZipFile(folder / "bail_edges.txt.zip", "w") as archive:
            archive.writestr("bail_edges.txt", text.getvalue())


@pytest.mark.parametrize("form", ["npz", "txt", "zip"])
def test_every_edge_layout_equals_regeneration(tmp_path, form):
    table = _write_bail(tmp_path)
    regenerated = load_bail(tmp_path, 0)
    _write_edges(tmp_path, _raw_edges(table), form)
    assert load_bail(tmp_path, 0).content_hash() == regenerated.content_hash()


def test_an_edge_file_is_what_counts(tmp_path):
    rows = len(_write_bail(tmp_path))
    ring = np.stack([np.arange(rows), np.roll(np.arange(rows), 1)], axis=1)
    _write_edges(tmp_path, ring, "txt")
    assert load_bail(tmp_path, 0).edge_index.shape == (2, 3 * rows)


def test_bail_rows_are_divided_by_their_sum(tmp_path):
    table = _write_bail(tmp_path)
    table.loc[0, BAIL_COLUMNS] = 0
    table.loc[1, BAIL_COLUMNS] = [1] * 18
    table.to_csv(tmp_path / "bail.csv", index=False)
    features = load_bail(tmp_path, 0).features
    assert not features[0].any()
    assert np.allclose(features[1], 1 / 18)


def test_bail_takes_label_and_group_from_their_columns(tmp_path):
    table = _write_bail(tmp_path)
    graph = load_bail(tmp_path, 0)
    assert graph.labels.tolist() == table["RECID"].tolist()
    assert graph.sensitive.tolist() == table["WHITE"].tolist()
    assert list(graph.feature_names) == BAIL_COLUMNS


def test_split_files_win_over_the_rule_and_may_be_floats(tmp_path):
    _write_bail(tmp_path)
    (tmp_path / "split").mkdir()
    parts = {"train": [3, 1], "val": [5], "test": [2, 0, 7]}
    for part, nodes in parts.items():
        np.save(tmp_path / "split" / f"{part}_split.npy", np.array(nodes, dtype=np.float64))
    graph = load_bail(tmp_path, 0)
    assert [graph.train.tolist(), graph.validation.tolist(), graph.test.tolist()] == list(parts.values())


def _write_german(folder, rows=20):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 3, (rows, len(GERMAN_COLUMNS))), columns=GERMAN_COLUMNS)
    table["Gender"] = rng.choice(["Male", "Female"], rows)
    table["GoodCustomer"] = rng.choice([-1, 1], rows)
    table.to_csv(folder / "german.csv", index=False)


def test_a_split_beside_german_counts_and_one_beside_credit_is_refused(tmp_path):
    _write_german(tmp_path)
    _write_credit(tmp_path)
    (tmp_path / "split").mkdir()
    parts = {"train": [3, 1], "val": [5], "test": [2, 0, 7]}
    for part, nodes in parts.items():
        np.save(tmp_path / "split" / f"{part}_split.npy", np.array(nodes))
    graph = load_german(tmp_path, 0)
    assert [graph.train.tolist(), graph.validation.tolist(), graph.test.tolist()] == list(parts.values())
    with pytest.raises(DataError, match=r"split: is not read, credit is split by rule .* remove it"):
        load_credit(tmp_path, 0)


@pytest.mark.parametrize(("load", "name"), [(load_bail, "bail"), (load_german, "german"), (load_credit, "credit")])
def test_missing_files_say_what_to_do(tmp_path, load, name):
    for root in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetNotFound, match="--data-root DIR") as caught:
            load(root, 0)
        message = str(caught.value)
        assert "\n" not in message
        assert f"{name}.csv" in message
        assert HOMEPAGE in message
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.csv").write_text("")
    with pytest.raises(DatasetNotFound, match=f"did you mean --data-root .*{name}"):
        load(tmp_path, 0)


def _spoil_column(value):
    def spoil(folder, table):
        table["AGE"] = table["AGE"].astype(object)
        table.loc[4, "AGE"] = value
        table.to_csv(folder / "bail.csv", index=False)

    return spoil


def _spoil_edges(edges):
    return lambda folder, table: np.savez(folder / "bail_edges.npz", edges=edges(_raw_edges(table)))


def _spoil_split(train):
    def spoil(folder, table):
        (folder / "split").mkdir()
        for part in ("val", "test"):
            np.save(folder / "split" / f"{part}_split.npy", np.array([8, 9]) + (part == "val") * 2)
        if train is not None:
            np.save(folder / "split" / "train_split.npy", np.array(train))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, t: t.drop(columns=["AGE", "TIME"]).to_csv(f / "bail.csv"), "lacks the columns AGE, TIME"),
        (lambda f, t: (f / "bail.csv").write_bytes(b"\xff\xfe\x00\x81" * 9), "not a readable CSV"),
        (lambda f, t: (f / "bail.csv").write_text(""), "not a readable CSV"),
        (lambda f, t: (f / "bail.csv").write_text("a,b\n1,2\n3,4,5\n"), "not a readable CSV"),
        (lambda f, t: t.iloc[:0].to_csv(f / "bail.csv"), "has 0 rows"),
        (_spoil_column("old"), "column AGE in line 6 is not a number"),
        (_spoil_column(None), "column AGE in line 6 is not a number"),
        (lambda f, t: t.assign(RECID=7).to_csv(f / "bail.csv"), "column RECID .* only hold 0 and 1"),
        (_spoil_edges(lambda e: e[: len(e) // 2]), "file is cut off"),
        (_spoil_edges(lambda e: e + 10), "names nodes outside 0 .. 39"),
        (_spoil_edges(lambda e: e.ravel()), "two columns"),
        (_spoil_edges(lambda e: e + 0.5), "no node numbers"),
        (lambda f, t: np.savez(f / "bail_edges.npz", rows=[1]), "not a readable edge list"),
        (lambda f, t: (f / "bail_edges.npz").write_bytes(b"no archive"), "not a readable edge list"),
        (lambda f, t: (f / "bail_edges.txt").write_text("0 1\n1 x\n"), "not a readable edge list"),
        (lambda f, t: (f / "bail_edges.txt").write_text(""), "not a readable edge list"),
        (_spoil_split([0, 99]), "names nodes outside 0 .. 39"),
        (_spoil_split([0.5]), "no list of node numbers"),
        (_spoil_split(["a"]), "not a readable array"),
        (_spoil_split([8]), "share nodes"),
        (_spoil_split(None), "train_split.npy: is missing"),
    ],
)
def test_broken_files_are_named_in_one_line(tmp_path, spoil, message):
    table = _write_bail(tmp_path)
    spoil(tmp_path, table)
    with pytest.raises(DataError, match=message) as caught:
        load_bail(tmp_path, 0)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_german_refuses_an_unknown_gender(tmp_path):
    table = pd.DataFrame(1, index=range(5), columns=["GoodCustomer", *GERMAN_COLUMNS])
    table["Gender"] = ["Male", "Female", "Male", "?", "Male"]
    table.to_csv(tmp_path / "german.csv", index=False)
    with pytest.raises(DataError, match="column Gender in line 5 is not Male or Female"):
        load_german(tmp_path, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[::-1],
        lambda e: np.concatenate([e, e]),
        lambda e: np.concatenate([e, e[:, ::-1]]),
        lambda e: np.concatenate([e, np.repeat(np.arange(40), 2).reshape(-1, 2)]),
        lambda e: np.unique(np.sort(e, axis=1), axis=0),
        lambda e: np.unique(np.sort(e, axis=1), axis=0)[:, ::-1],
    ],
    ids=["order", "repeated", "both ways", "self-loops", "once", "once, turned"],
)
@pytest.mark.parametrize("form", ["npz", "txt"])
def test_one_graph_however_its_edges_are_listed(tmp_path, change, form):
    table = _write_bail(tmp_path)
    sound = load_bail(tmp_path, 0).content_hash()
    _write_edges(tmp_path, change(_raw_edges(table)), form)
    assert load_bail(tmp_path, 0).content_hash() == sound


def test_marks_of_order_and_line_ends_of_edges_and_tables_change_nothing(tmp_path):
    table = _write_bail(tmp_path)
    sound = load_bail(tmp_path, 0).content_hash()
    _write_edges(tmp_path, _raw_edges(table), "txt")
    for name in ("bail_edges.txt", "bail.csv"):
        text = (tmp_path / name).read_bytes()
        for changed in (b"\xef\xbb\xbf" + text, text.replace(b"\n", b"\r\n"), text + b"\n\n", text.rstrip()):
            (tmp_path / name).write_bytes(changed)
            assert load_bail(tmp_path, 0).content_hash() == sound
    table.iloc[:, ::-1].assign(more="x").to_csv(tmp_path / "bail.csv", quoting=csv.QUOTE_ALL)
    assert load_bail(tmp_path, 0).content_hash() == sound


def test_edge_files_of_the_same_edges_agree_and_others_are_refused(tmp_path):
    table = _write_bail(tmp_path)
    edges = _raw_edges(table)
    _write_edges(tmp_path, edges, "txt")
    _write_edges(tmp_path, edges[::-1], "npz")
    assert load_bail(tmp_path, 0).edge_index.shape[1] > 40
    ring = np.stack([np.arange(40), np.roll(np.arange(40), 1)], axis=1)
    _write_edges(tmp_path, ring, "npz")
    with pytest.raises(DataError, match=r"bail_edges\.npz: holds other edges than bail_edges\.txt"):
        load_bail(tmp_path, 0)
    (tmp_path / "bail_edges.npz").rename(tmp_path / "bail_edges_t07.npz")
    with pytest.raises(DataError, match=r"bail_edges_t07\.npz: is no edge file that is read"):
        load_bail(tmp_path, 0)


def _text(folder, old, new, count=1):
    text = (folder / "bail.csv").read_text()
    assert old in text
    (folder / "bail.csv").write_text(text.replace(old, new, count))


def _lines(change):
    def spoil(folder, table):
        lines = (folder / "bail.csv").read_text().splitlines()
        change(lines)
        (folder / "bail.csv").write_text("\n".join(lines) + "\n")

    return spoil


def _cell(line, text):
    def change(lines):
        lines[line - 1] = ",".join([text, *lines[line - 1].split(",")[1:]])

    return _lines(change)


def _ring_of(change):
    ring = np.stack([np.arange(40), np.roll(np.arange(40), 1)], axis=1)
    return lambda folder, table: np.savez(folder / "bail_edges.npz", edges=change(ring))


def _splits(**parts):
    def spoil(folder, table):
        (folder / "split").mkdir()
        for part, nodes in ({"train": [1, 2], "val": [3], "test": [4, 5]} | parts).items():
            np.save(folder / "split" / f"{part}_split.npy", np.array(nodes))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, t: _text(f, "ALCHY", "WHITE"), "lacks the column ALCHY"),
        (lambda f, t: _text(f, "FILE", "FILE,AGE"), "line 2: has 19 cells, needs 20|names the column 'AGE' twice"),
        (lambda f, t: _text(f, ",", ";", -1), "its cells are separated by ';'"),
        (_lines(lambda lines: lines.__setitem__(4, lines[4] + ",7")), "line 5: has 20 cells, needs 19"),
        (_lines(lambda lines: lines.__setitem__(4, lines[4][:20])), "line 5: has .* cells, needs 19"),
        (lambda f, t: (f / "bail.csv").write_text("\n".join(
            [",".join(t.columns), *(f"{i}," + ",".join(map(str, r)) for i, r in enumerate(t.values.tolist()))])),
         "line 2: has 20 cells, needs 19"),
        (_cell(3, '"0,5"'), "column WHITE in line 3 is not a number but '0,5'"),
        (_cell(3, "nan"), "column WHITE in line 3 is not a number but 'nan'"),
        (_cell(3, "True"), "column WHITE in line 3 is not a number but 'True'"),
        (_cell(3, "0.5"), "column WHITE of the table may only hold 0 and 1, row 2 holds 0.5"),
        (lambda f, t: t.assign(WHITE=1).to_csv(f / "bail.csv"), "column WHITE of the table holds only 1"),
        (lambda f, t: t.assign(RECID=0).to_csv(f / "bail.csv"), "column RECID of the table holds only 0"),
        (lambda f, t: t.drop(columns="WHITE").to_csv(f / "bail.csv"), "lacks the column WHITE"),
        (_ring_of(lambda e: e + 1), "numbered from 1. Subtract 1"),
        (_ring_of(lambda e: np.where(e == 3, 4, e)), "only 39 of 40 nodes have an edge"),
        (_ring_of(lambda e: np.where(e == 3, np.nan, e)), r"row 4 holds values that are no node numbers, \[nan, 2.0\]"),
        (_ring_of(lambda e: e.astype(str)), "not a readable edge list .it holds <U"),
        (_ring_of(lambda e: e.astype(complex)), "it holds complex128"),
        (_ring_of(lambda e: e > 5), "it holds bool"),
        (_ring_of(lambda e: np.column_stack([e, e])), "needs two columns"),
        (_ring_of(lambda e: e[:0]), "it is empty"),
        (lambda f, t: np.savez(f / "bail_edges.npz", np.zeros((3, 2))), "not a readable edge list"),
        (lambda f, t: (f / "bail_edges.txt").write_text("0,1\n1,2\n"), "not a readable edge list"),
        (lambda f, t: (f / "bail_edges.txt").write_text("source target\n0 1\n"), "not a readable edge list"),
        (lambda f, t: (f / "bail_edges.txt").write_text("0 1\n1\n"), "row 2 holds values that are no node numbers"),
        (lambda f, t: (f / "bail_edges.csv").write_text("0 1\n"), r"bail_edges\.csv: is no edge file that is read"),
        (_splits(train=["1", "2"]), "not a readable array .it holds <U1"),
        (_splits(train=[True, False]), "not a readable array .it holds bool"),
        (_splits(train=[1, 1]), "train_split.npy: names a node twice"),
        (_splits(train=[]), "train_split.npy: names no node"),
        (_splits(train=[[1, 2]]), "train_split.npy: is no list of node numbers"),
        (_splits(test=[4, 1]), r"train_split.npy and test_split.npy share nodes \(1, the first 1\)"),
        (_splits(val=[-1]), "val_split.npy: names nodes outside 0 .. 39"),
        (_splits(val=[1.5]), "val_split.npy: is no list of node numbers"),
    ],
)  # fmt: skip
def test_files_that_would_be_cast_dropped_or_misunderstood(tmp_path, spoil, message):
    spoil(tmp_path, _write_bail(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        load_bail(tmp_path, 0)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


# --- the real files --------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_german_is_the_published_graph(real_data):
    graph = load_german(real_data / "graphs" / "german", 0)
    assert graph.features.shape == (1000, 27)
    assert graph.edge_index.shape == (2, 44_484)
    assert graph.labels.mean() == pytest.approx(0.7)
    assert graph.sensitive.mean() == pytest.approx(0.31)
    scaled = [graph.feature_names.index(name) for name in ("LoanAmount", "Age", "LoanDuration")]
    assert graph.features[:, scaled].min(axis=0).tolist() == [-1, -1, -1]
    assert graph.features[:, scaled].max(axis=0).tolist() == [1, 1, 1]
    assert [len(part) for part in (graph.train, graph.validation, graph.test)] == [500, 250, 250]


@pytest.mark.real_data
def test_german_edges_regenerate_the_official_set(real_data, tmp_path):
    folder = real_data / "graphs" / "german"
    (tmp_path / "german.csv").write_bytes((folder / "german.csv").read_bytes())
    assert load_german(tmp_path, 0).content_hash() == load_german(folder, 0).content_hash()
    with np.load(folder / "german_edges.npz") as arrays:
        assert arrays["edges"].shape == (24_970, 2)


@pytest.mark.real_data
def test_bail_is_the_published_graph(real_data):
    folder = real_data / "graphs" / "bail"
    graph = load_bail(folder, 0)
    assert graph.features.shape == (18_876, 18)
    assert graph.edge_index.shape == (2, 642_616)
    assert graph.sensitive.mean() == pytest.approx(0.5064, abs=5e-5)
    rule = class_balanced_split(graph.labels, (0.3, 0.5), seed=20)
    for part, ours in zip((graph.train, graph.validation, graph.test), rule, strict=True):
        assert np.array_equal(part, ours)
        assert graph.labels[part].mean() == pytest.approx(0.3764, abs=1.5e-4)
    assert [len(part) for part in rule] == [5_662, 3_776, 9_438]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "load", "rows", "entries"),
    [("bail", load_bail, 403_977, 642_616), ("credit", load_credit, 200_526, 304_754)],
)
def test_large_edge_lists_regenerate(real_data, tmp_path, name, load, rows, entries):
    folder = real_data / "graphs" / name
    (tmp_path / f"{name}.csv").write_bytes((folder / f"{name}.csv").read_bytes())
    graph = load(folder, 0)
    assert load(tmp_path, 0).content_hash() == graph.content_hash()
    (edge_file,) = folder.glob(f"{name}_edges*.npz")
    with np.load(edge_file) as arrays:
        edges = arrays["edges"].astype(np.int64)
    assert edges.shape == (rows, 2)
    nodes = len(pd.read_csv(folder / f"{name}.csv"))
    assert symmetric_with_self_loops(edges, nodes).shape == (2, entries)
    if name == "bail":
        assert graph.edge_index.shape == (2, entries)


@pytest.mark.real_data
def test_credit_is_prepared_as_the_official_loader_does(real_data):
    graph = load_credit(real_data / "graphs" / "credit", 0)
    nodes = len(graph.labels)
    assert graph.features.shape == (nodes, 13) == (29_460, 13)
    whole = coo_array((np.ones(graph.edge_index.shape[1]), tuple(graph.edge_index)), shape=(nodes, nodes))
    assert connected_components(whole, directed=False)[0] == 1
    assert set(np.unique(graph.features)) == {0, 1}
    assert np.bincount(graph.labels[graph.train]).tolist() == [500, 500]
    quarters = sum(n - int(0.75 * n) for n in np.bincount(graph.labels))
    assert [len(graph.train), len(graph.test)] == [1_000, quarters]
    assert abs(len(graph.validation) - quarters) <= 2


def _write_credit(folder, rows=40):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(-1, 3, (rows, 13)), columns=CREDIT_COLUMNS)
    table["Age"] = rng.integers(0, 2, rows)
    table["NoDefaultNextMonth"] = rng.integers(0, 2, rows)
    table.to_csv(folder / "credit.csv", index=False)
    return table


def test_credit_keeps_the_largest_component_and_makes_features_binary(tmp_path):
    table = _write_credit(tmp_path)
    kept = np.r_[5:25, 30:40]
    lines = [(i, j) for part in (range(5), kept, range(25, 30)) for i, j in itertools.pairwise(part)]
    np.savez(tmp_path / "credit_edges.npz", edges=np.array(lines + [(j, i) for i, j in lines], dtype=np.int16))
    graph = load_credit(tmp_path, 0)
    of_kept = table.iloc[kept]
    assert np.array_equal(graph.features, of_kept[CREDIT_COLUMNS].to_numpy() != 0)
    assert graph.labels.tolist() == of_kept["NoDefaultNextMonth"].tolist()
    assert graph.sensitive.tolist() == of_kept["Age"].tolist()
    path = np.stack([np.arange(29), np.arange(1, 30)], axis=1)
    assert np.array_equal(graph.edge_index, symmetric_with_self_loops(path, 30))
    rule = class_balanced_split(graph.labels, (0.5, 0.75), seed=20, train_at_most=500)
    for part, ours in zip((graph.train, graph.validation, graph.test), rule, strict=True):
        assert np.array_equal(part, ours)
