"""Fairness graphs: the published files, the published rules, the generator, and broken input."""

from __future__ import annotations

import io
import random
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchsuite.core.errors import DataError, DatasetNotFound
from benchsuite.datasets import fairness_graphs as graphs
from benchsuite.datasets.fairness_graphs import (
    class_balanced_split,
    load_bail,
    load_credit,
    load_german,
    load_synthetic,
    similarity_edges,
    symmetric_with_self_loops,
)


def _dense_similarity_edges(x, threshold):
    """The rule word by word, N x N at once."""
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
    similarity = 1 / (1 + distance)
    edges = []
    for i, row in enumerate(similarity):
        second = np.sort(row)[-2]
        edges += [(i, j) for j in np.flatnonzero(row > threshold * second) if j != i]
    return np.array(edges, dtype=np.int64).reshape(-1, 2)


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 4)), elements=st.integers(-5, 5)),
    st.sampled_from([0.3, 0.6, 0.7, 0.8]),
    st.integers(1, 7),
)
def test_similarity_edges_follow_the_rule_with_ties(x, threshold, chunk):
    # Small whole numbers: duplicates and exact ties at the threshold abound.
    assert np.array_equal(similarity_edges(x, threshold, chunk=chunk), _dense_similarity_edges(x, threshold))


def test_similarity_edges_on_real_valued_rows():
    x = np.random.default_rng(0).standard_normal((300, 6))
    assert np.array_equal(similarity_edges(x, 0.6), _dense_similarity_edges(x, 0.6))


@pytest.mark.parametrize(
    ("features", "threshold", "message"),
    [
        (np.zeros((1, 2)), 0.5, "at least two rows"),
        (np.array([[0.0], [np.nan]]), 0.5, "finite"),
        (np.zeros((3, 2)), 1.5, "between 0 and 1"),
    ],
)
def test_similarity_edges_refuse_bad_input(features, threshold, message):
    with pytest.raises(DataError, match=message):
        similarity_edges(features, threshold)


def test_symmetric_with_self_loops():
    edges = np.array([[2, 0], [0, 2], [1, 0], [1, 1]])
    assert symmetric_with_self_loops(edges, 3).T.tolist() == [
        [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0], [2, 2],
    ]  # fmt: skip


def test_split_is_pythons_global_random_per_class():
    labels = np.random.default_rng(1).integers(0, 3, 50)
    random.seed(7)
    expected = [[], [], []]
    for c in range(3):
        members = list(np.flatnonzero(labels == c))
        random.shuffle(members)
        n = len(members)
        for part, chosen in zip(
            expected,
            (members[: int(0.3 * n)], members[int(0.3 * n) : int(0.5 * n)], members[int(0.5 * n) :]),
            strict=True,
        ):
            part.extend(chosen)
    for ours, theirs in zip(class_balanced_split(labels, (0.3, 0.5), seed=7), expected, strict=True):
        assert ours.tolist() == theirs


def test_split_can_bound_the_training_nodes_of_a_class():
    labels = np.repeat([0, 1], [100, 20])
    train, validation, test = class_balanced_split(labels, (0.5, 0.75), seed=0, train_at_most=30)
    assert np.bincount(labels[train]).tolist() == [30, 10]
    assert np.bincount(labels[validation]).tolist() == [25, 5]
    assert np.bincount(labels[test]).tolist() == [25, 5]


# --- the generated graph ---------------------------------------------------------------------------------


def test_synthetic_graph_has_the_described_bias():
    drawn = [load_synthetic(None, draw) for draw in range(5)]
    for graph in drawn:
        graph.validate()
        assert graph.features.shape == (1000, 15)
        assert np.array_equal(graph.features[:, 0], graph.sensitive)
        assert 9_500 < graph.edge_index.shape[1] < 12_500
        assert abs(len(graph.train) - 300) <= 2
        assert abs(len(graph.test) - 500) <= 2
    sensitive = np.concatenate([graph.sensitive for graph in drawn])
    labels = np.concatenate([graph.labels for graph in drawn])
    features = np.concatenate([graph.features for graph in drawn])
    assert sensitive.mean() == pytest.approx(0.5, abs=0.03)
    assert labels[sensitive == 0].mean() == pytest.approx(0.35, abs=0.04)
    assert labels[sensitive == 1].mean() == pytest.approx(0.65, abs=0.04)
    assert features[labels == 1, 1:7].mean() == pytest.approx(0.55, abs=0.05)
    assert features[sensitive == 1, 7:10].mean() == pytest.approx(1, abs=0.05)
    assert features[:, 10:].mean() == pytest.approx(0, abs=0.03)
    same = [g.labels[g.edge_index[0]] == g.labels[g.edge_index[1]] for g in drawn]
    assert np.concatenate(same).mean() > 0.75


def test_draws_differ_and_repeat():
    first, again, other = (load_synthetic(None, draw) for draw in (3, 3, 4))
    assert first.content_hash() == again.content_hash() != other.content_hash()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: {"features": g.features.astype(np.float64)}, "features are float64"),
        (lambda g: {"features": np.full_like(g.features, np.nan)}, "NaN"),
        (lambda g: {"edge_index": g.edge_index[:, ::-1]}, "sorted"),
        (lambda g: {"edge_index": g.edge_index[:, 1:]}, "self-loop"),
        (lambda g: {"edge_index": g.edge_index + 1}, "outside"),
        (lambda g: {"edge_index": np.delete(g.edge_index, 1, axis=1)}, "symmetric"),
        (lambda g: {"edge_index": g.edge_index.T}, "not \\(2, E\\)"),
        (lambda g: {"sensitive": g.sensitive[1:]}, "sensitive has shape"),
        (lambda g: {"labels": g.labels - 1}, "numbered from 0"),
        (lambda g: {"labels": g.labels.astype(np.int32)}, "labels is int32"),
        (lambda g: {"train": g.test}, "share nodes"),
        (lambda g: {"train": g.train[:0]}, "at least one"),
        (lambda g: {"test": g.test + 1000}, "outside"),
    ],
)
def test_validate_names_the_broken_promise(change, message):
    graph = load_synthetic(None, 0)
    # The first stored entry is the self-loop of node 0, the second its first neighbour.
    with pytest.raises(DataError, match=message) as caught:
        replace(graph, **change(graph)).validate()
    assert "\n" not in str(caught.value)


# --- reading files ---------------------------------------------------------------------------------------


def _write_bail(folder, rows=40, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.integers(0, 3, (rows, 18)), columns=graphs.BAIL_COLUMNS)
    table["WHITE"] = rng.integers(0, 2, rows)
    table.insert(16, "RECID", rng.integers(0, 2, rows))
    table.to_csv(folder / "bail.csv", index=False)
    return table


def _raw_edges(table):
    return similarity_edges(table[graphs.BAIL_COLUMNS].to_numpy(float), 0.6)


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
    table.loc[0, graphs.BAIL_COLUMNS] = 0
    table.loc[1, graphs.BAIL_COLUMNS] = [1] * 18
    table.to_csv(tmp_path / "bail.csv", index=False)
    features = load_bail(tmp_path, 0).features
    assert not features[0].any()
    assert np.allclose(features[1], 1 / 18)


def test_split_files_win_over_the_rule_and_may_be_floats(tmp_path):
    _write_bail(tmp_path)
    (tmp_path / "split").mkdir()
    parts = {"train": [3, 1], "val": [5], "test": [2, 0, 7]}
    for part, nodes in parts.items():
        np.save(tmp_path / "split" / f"{part}_split.npy", np.array(nodes, dtype=np.float64))
    graph = load_bail(tmp_path, 0)
    assert [graph.train.tolist(), graph.validation.tolist(), graph.test.tolist()] == list(parts.values())


@pytest.mark.parametrize(("load", "name"), [(load_bail, "bail"), (load_german, "german"), (load_credit, "credit")])
def test_missing_files_say_what_to_do(tmp_path, load, name):
    for root in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetNotFound, match="--data-root DIR") as caught:
            load(root, 0)
        message = str(caught.value)
        assert "\n" not in message
        assert f"{name}.csv" in message
        assert graphs.HOMEPAGE in message
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
    table = pd.DataFrame(1, index=range(5), columns=["GoodCustomer", *graphs.GERMAN_COLUMNS])
    table["Gender"] = ["Male", "Female", "Male", "?", "Male"]
    table.to_csv(tmp_path / "german.csv", index=False)
    with pytest.raises(DataError, match="column Gender in line 5 is not Male or Female"):
        load_german(tmp_path, 0)


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
    regenerated = load(tmp_path, 0)
    assert regenerated.edge_index.shape == (2, entries)
    assert regenerated.content_hash() == load(folder, 0).content_hash()
    (edge_file,) = folder.glob(f"{name}_edges*.npz")
    with np.load(edge_file) as arrays:
        assert arrays["edges"].shape == (rows, 2)


@pytest.mark.real_data
def test_credit_split_and_scaling(real_data):
    graph = load_credit(real_data / "graphs" / "credit", 0)
    assert graph.features.shape == (30_000, 13)
    assert [len(part) for part in (graph.train, graph.validation, graph.test)] == [1_000, 7_500, 7_500]
    assert np.bincount(graph.labels[graph.train]).tolist() == [500, 500]
    assert graph.features.min() == -1
    assert graph.features.max() == 1
    assert set(np.unique(graph.features[:, graph.feature_names.index("Age")])) == {0, 1}
