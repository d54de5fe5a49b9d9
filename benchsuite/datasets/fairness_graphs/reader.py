"""The real graphs, bail, german and credit: nodes are people, edges connect similar records.

Published edge lists and splits are read where they are present, else made by the published rules. Tables and edge
rule come from the NIFTY repository (chirag126/nifty, MIT), splits and features of bail from yushundong/RELIANT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchsuite.core.errors import DataError
from benchsuite.datasets.fairness_graphs.files import GET_AGAIN, binary, data_folder, read_edges, read_split, read_table
from benchsuite.datasets.fairness_graphs.graph import FairnessGraph, Floats, Integers
from benchsuite.datasets.fairness_graphs.rules import (
    class_balanced_split,
    largest_component,
    similarity_edges,
    symmetric_with_self_loops,
)

BAIL_LAYOUT = "bail.csv, bail_edges.txt or .npz (else regenerated), split/{train,val,test}_split.npy (else by rule)"
GERMAN_LAYOUT = "german.csv, german_edges.txt or .npz (else regenerated), split/... as of bail (else by rule)"
CREDIT_LAYOUT = "credit.csv, credit_edges.txt, .npz or credit_edges_t07.npz (else regenerated)"

BAIL_COLUMNS = [
    "WHITE",
    "ALCHY",
    "JUNKY",
    "SUPER",
    "MARRIED",
    "FELON",
    "WORKREL",
    "PROPTY",
    "PERSON",
    "MALE",
    "PRIORS",
    "SCHOOL",
    "RULE",
    "AGE",
    "TSERVD",
    "FOLLOW",
    "TIME",
    "FILE",
]
GERMAN_COLUMNS = [
    "Gender",
    "ForeignWorker",
    "Single",
    "Age",
    "LoanDuration",
    "LoanAmount",
    "LoanRateAsPercentOfIncome",
    "YearsAtCurrentHome",
    "NumberOfOtherLoansAtBank",
    "NumberOfLiableIndividuals",
    "HasTelephone",
    "CheckingAccountBalance_geq_0",
    "CheckingAccountBalance_geq_200",
    "SavingsAccountBalance_geq_100",
    "SavingsAccountBalance_geq_500",
    "MissedPayments",
    "NoCurrentLoan",
    "CriticalAccountOrLoansElsewhere",
    "OtherLoansAtBank",
    "HasCoapplicant",
    "HasGuarantor",
    "OwnsHouse",
    "RentsHouse",
    "Unemployed",
    "YearsAtCurrentJob_lt_1",
    "YearsAtCurrentJob_geq_4",
    "JobClassIsSkilled",
]
CREDIT_COLUMNS = [
    "Married",
    "Age",
    "EducationLevel",
    "MaxBillAmountOverLast6Months",
    "MaxPaymentAmountOverLast6Months",
    "MonthsWithZeroBalanceOverLast6Months",
    "MonthsWithLowSpendingOverLast6Months",
    "MonthsWithHighSpendingOverLast6Months",
    "MostRecentBillAmount",
    "MostRecentPaymentAmount",
    "TotalOverdueCounts",
    "TotalMonthsOverdue",
    "HistoryOfOverduePayments",
]


def load_bail(root: Path | None, draw: int) -> FairnessGraph:
    """Read the bail (recidivism) graph: 18,876 released defendants, who may reoffend.

    Features are all columns but RECID, each row divided by its own sum (a row of sum 0 becomes zeros).
    Edges follow the similarity rule on the raw columns with t = 0.6. Split 30/20/50 % per class, seed 20.

    Parameters
    ----------
    root
        Folder laid out as `BAIL_LAYOUT`.
    draw
        Ignored: real data have one draw.

    Raises
    ------
    DatasetNotFound
        If ``root`` is None or the table is missing.
    DataError
        If a file is broken.
    """
    folder = data_folder(root, "bail", BAIL_LAYOUT)
    table = read_table(folder / "bail.csv", ["RECID", *BAIL_COLUMNS])
    raw = table[BAIL_COLUMNS].to_numpy(np.float64)
    labels = binary(table, "RECID", folder)
    return _assemble(
        folder,
        name="bail",
        features=_rows_divided_by_sum(raw),
        edges=read_edges(folder, "bail", len(raw), lambda: similarity_edges(raw, 0.6)),
        labels=labels,
        sensitive=binary(table, "WHITE", folder),
        split=read_split(folder, len(raw)) or class_balanced_split(labels, (0.3, 0.5), seed=20),
        feature_names=BAIL_COLUMNS,
    )


def load_german(root: Path | None, draw: int) -> FairnessGraph:
    """Read the german credit graph: 1,000 clients, good customers or not.

    Features are all columns but GoodCustomer, OtherLoansAtStore and PurposeOfLoan; LoanAmount, Age and
    LoanDuration are scaled to [-1, 1]. Edges follow the similarity rule on these features with t = 0.8.
    Label -1 becomes 0, Gender is 1 for Female. Split 50/25/25 % per class, seed 0, unless the folder has one.

    Parameters
    ----------
    root
        Folder laid out as `GERMAN_LAYOUT`.
    draw
        Ignored: real data have one draw.

    Raises
    ------
    DatasetNotFound
        If ``root`` is None or the table is missing.
    DataError
        If a file is broken.
    """
    folder = data_folder(root, "german", GERMAN_LAYOUT)
    table = read_table(
        folder / "german.csv",
        ["GoodCustomer", *GERMAN_COLUMNS],
        codes={"Gender": {"Male": 0, "Female": 1}, "GoodCustomer": {"-1": 0, "1": 1}},
    )
    scaled = ["LoanAmount", "Age", "LoanDuration"]
    table[scaled] = _scaled_to_unit(table[scaled].to_numpy(np.float64))
    features = table[GERMAN_COLUMNS].to_numpy(np.float64)
    labels = binary(table, "GoodCustomer", folder)
    return _assemble(
        folder,
        name="german",
        features=features,
        edges=read_edges(folder, "german", len(features), lambda: similarity_edges(features, 0.8)),
        labels=labels,
        sensitive=binary(table, "Gender", folder),
        split=read_split(folder, len(features)) or class_balanced_split(labels, (0.5, 0.75), seed=0),
        feature_names=GERMAN_COLUMNS,
    )


def load_credit(root: Path | None, draw: int) -> FairnessGraph:
    """Read the credit default graph: 30,000 card holders, who may default next month.

    Edges follow the similarity rule on the raw columns with t = 0.7; this gives the graph that PyGDebias
    counts (200,526 rows), not the denser one of the RELIANT logs, whose edge list is used instead if it is there.

    The rest is what RELIANT's loader of archives does with its credit file: features become 1 where they are
    not 0, only the largest connected component stays (29,460 nodes of this graph), and the class-balanced
    rule with seed 20 takes the first half of a class but at most 500 nodes for training, the third quarter
    for validation and the last for the test. [inferred] That file is unpublished; its features are taken to be all
    columns but NoDefaultNextMonth and Single (NIFTY's 13), which need not be so.

    Parameters
    ----------
    root
        Folder laid out as `CREDIT_LAYOUT`.
    draw
        Ignored: real data have one draw.

    Raises
    ------
    DatasetNotFound
        If ``root`` is None or the table is missing.
    DataError
        If a file is broken.
    """
    folder = data_folder(root, "credit", CREDIT_LAYOUT)
    if (folder / "split").exists():
        raise DataError(
            f"{folder / 'split'}: is not read, credit is split by rule after nodes were left out: remove it"
        )
    table = read_table(folder / "credit.csv", ["NoDefaultNextMonth", *CREDIT_COLUMNS])
    raw = table[CREDIT_COLUMNS].to_numpy(np.float64)
    edges = read_edges(folder, "credit", len(raw), lambda: similarity_edges(raw, 0.7), ("credit_edges_t07.npz",))
    kept, edges = largest_component(edges, len(raw))
    labels = binary(table, "NoDefaultNextMonth", folder)[kept]
    return _assemble(
        folder,
        name="credit",
        features=(raw[kept] != 0).astype(np.float64),
        edges=edges,
        labels=labels,
        sensitive=binary(table, "Age", folder)[kept],
        split=class_balanced_split(labels, (0.5, 0.75), seed=20, train_at_most=500),
        feature_names=CREDIT_COLUMNS,
    )


def _rows_divided_by_sum(raw: Floats) -> Floats:
    sums = raw.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(raw, sums, out=np.zeros_like(raw), where=sums != 0)
    return shares


def _scaled_to_unit(raw: Floats) -> Floats:
    """Map every column linearly to [-1, 1] (a constant column to -1)."""
    low = raw.min(axis=0)
    span = raw.max(axis=0) - low
    scaled: Floats = 2 * (raw - low) / np.where(span == 0, 1, span) - 1
    return scaled


def _assemble(
    folder: Path,
    *,
    name: str,
    features: Floats,
    edges: Integers,
    labels: Integers,
    sensitive: Integers,
    split: tuple[Integers, Integers, Integers],
    feature_names: Sequence[str],
) -> FairnessGraph:
    graph = FairnessGraph(
        name=name,
        features=features.astype(np.float32),
        edge_index=symmetric_with_self_loops(edges, len(labels)),
        labels=labels,
        sensitive=sensitive,
        train=split[0],
        validation=split[1],
        test=split[2],
        feature_names=tuple(feature_names),
    )
    try:
        graph.validate()
    except DataError as error:
        raise DataError(f"{folder}: {error}; {GET_AGAIN}") from None
    return graph
