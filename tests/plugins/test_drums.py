"""Language models as drummers: texts to tokens, windows, training, cached sampling, likelihoods, and the opponents."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("pretty_midi")

import torch
import torch.nn.functional as F
from support import context

from benchsuite.core.errors import ConfigError, DataError, InvalidPrediction, UserError
from benchsuite.core.registry import get_registry
from benchsuite.datasets.drums.drumroll import SILENT, record_of, text_of
from benchsuite.datasets.drums.generated import load_generated
from benchsuite.tasks.drum_generation.contract import Record, TrainingGrooves, read_midi
from benchsuite_drums import english_text
from benchsuite_drums.config import LanguageModelConfig, MarkovConfig
from benchsuite_drums.convert import convert, main
from benchsuite_drums.method import LanguageModel
from benchsuite_drums.model import load_model, parameters_of, save_model, tiny_gpt2
from benchsuite_drums.opponents import CoinFlip, Human, LineMarkov, LineMarkovDrummer, RepeatBar
from benchsuite_drums.sampling import completion_bits, continue_texts, draw, first_remembered
from benchsuite_drums.tokenizer import CharacterTokenizer, GivenTokenizer, LineTokenizer
from benchsuite_drums.training import Document, documents_of, loss_of, rate, window

SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "context": 64, "steps": 3, "english_steps": 3}
SCRATCH = LanguageModelConfig(**SMALL, pretraining="none", max_new_tokens=40)
PLAIN = CharacterTokenizer()


@pytest.fixture(scope="module")
def grooves() -> TrainingGrooves:
    data = load_generated(None, 0)
    train, validation = ([record_of(r.name, r.lines) for r in data.of(part)] for part in ("train", "validation"))
    return TrainingGrooves(train[:8], validation[:3])


def model_of(config: LanguageModelConfig = SCRATCH, size: int = 128, seed: int = 0) -> Any:
    """Return a small model with large random weights: its choices depend on all it has read."""
    torch.manual_seed(seed)
    model = tiny_gpt2(config, size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model.eval()


# --- sizes and rows ---------------------------------------------------------------------------------------


def test_the_tiny_gpt2_has_its_published_size() -> None:
    assert parameters_of(tiny_gpt2(LanguageModelConfig(), 128)) == 384_864
    assert not any(isinstance(part, torch.nn.Dropout) and part.p for part in tiny_gpt2(SCRATCH, 128).modules())


def test_the_compute_of_pre_training_goes_to_the_control() -> None:
    method = get_registry().method
    configs = {
        name: LanguageModelConfig(**method(name).presets["embedded"].resolve({}))
        for name in ("gpt2-pretrained", "gpt2-scratch", "gpt2-scratch-equal-compute", "line-gpt")
    }
    pretrained, scratch = configs["gpt2-pretrained"], configs["gpt2-scratch"]
    assert (pretrained.pretraining, scratch.pretraining) == ("english", "none")
    tuned = {"pretraining", "lr"}  # the rate is the best of the same grid for each
    assert {k: v for k, v in vars(pretrained).items() if k not in tuned} == {
        k: v for k, v in vars(scratch).items() if k not in tuned
    }
    assert configs["gpt2-scratch-equal-compute"].steps == pretrained.steps + pretrained.english_steps
    assert configs["line-gpt"].vocabulary == "lines"
    assert get_registry().method("gpt2-scratch").role == "baseline"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "heads": 4}, "no multiple"),
        ({"steps": 0}, "give steps"),
        ({"temperature": 0.0}, "above 0"),
        ({"top_p": 1.5}, "top_p"),
        ({"context": 8}, "at least 32"),
        ({"batch_size": 0}, "at least 1"),
        ({"prompt_weight": 2.0}, "prompt_weight"),
        ({"vocabulary": "lines"}, "has no English"),
    ],
)
def test_odd_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LanguageModelConfig(**settings)


# --- tokens -----------------------------------------------------------------------------------------------


def test_texts_come_back(grooves: TrainingGrooves) -> None:
    for record, tokenizer in itertools.product(grooves.train[:3], (PLAIN, LineTokenizer())):
        text = record.prompt + record.completion
        assert tokenizer.decode(tokenizer.encode(text)) == text
        tokens, starts = tokenizer.encode_bars(text)
        assert tokens == tokenizer.encode(text)
        assert [tokenizer.decode(tokens[a:b]) for a, b in itertools.pairwise([*starts, len(tokens)])] == [
            bar + "SEP\n" * (k < text.count("SEP\n")) for k, bar in enumerate(text.split("SEP\n"))
        ]
    assert LineTokenizer().size == 66
    assert len(LineTokenizer().encode("o-----\nSEP\nEND")) == 3


def test_other_texts_are_refused() -> None:
    with pytest.raises(InvalidPrediction, match="needs ASCII"):
        PLAIN.encode("ö")
    with pytest.raises(InvalidPrediction, match="no line of a record"):
        LineTokenizer().encode("oo\n")


def test_english_is_the_shipped_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = english_text.english_text()
    assert (len(text), text.isascii()) == (464_473, True)
    assert 'The "assert" statement' in text
    monkeypatch.setattr(english_text, "SHA256", "0" * 64)
    with pytest.raises(DataError, match="was changed"):
        english_text.english_text()


# --- training ---------------------------------------------------------------------------------------------


def test_windows_begin_with_bars_and_end_with_the_text(grooves: TrainingGrooves) -> None:
    documents = documents_of(grooves.train, PLAIN, 0.25)
    order = torch.Generator().manual_seed(0)
    tokens, weights = window(documents, 200, order, 200)
    texts = [record.prompt + record.completion for record in grooves.train]
    ends = 0
    for row, weight in zip(tokens.tolist(), weights, strict=True):
        text = PLAIN.decode(row).rstrip("\0")
        (whole,) = [t for t in texts if text in t][:1]
        place = whole.index(text)
        assert place == 0 or whole[place - 4 : place] == "SEP\n" or whole.count(text) > 1
        assert (weight[len(text) - 1 :] == 0).all()
        assert set(weight[: len(text) - 1].tolist()) <= {0.25, 1.0}
        ends += text.endswith("END")
    assert ends > 5
    assert weights[:, 0].min() == 0.25  # some window begins in a prompt


def test_the_prompts_weight_ends_with_the_prompt(grooves: TrainingGrooves) -> None:
    (document,) = documents_of(grooves.train[:1], PLAIN, 0.5)
    prompt = len(grooves.train[0].prompt)
    assert document.weights[:prompt].eq(0.5).all()
    assert document.weights[prompt:].eq(1).all()


def test_english_windows_begin_anywhere() -> None:
    text = Document(torch.arange(100), torch.ones(100))
    order = torch.Generator().manual_seed(0)
    firsts = {int(window([text], 10, order, 1)[0][0, 0]) for _ in range(600)}
    assert firsts == set(range(90))


def test_the_loss_is_a_weighted_mean() -> None:
    model = model_of()
    tokens = torch.randint(128, (2, 9), generator=torch.Generator().manual_seed(1))
    weights = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0.5]])
    logits = model(input_ids=tokens[:, :-1]).logits.log_softmax(dim=2)
    expected = -(logits[0, 0, tokens[0, 1]] + 0.5 * logits[1, 7, tokens[1, 8]]) / 1.5
    assert loss_of(model, tokens, weights).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_rate_rises_and_falls_to_a_tenth() -> None:
    rates = [rate(step, 30, 10) for step in range(30)]
    assert rates[:10] == pytest.approx([(k + 1) / 11 for k in range(10)])
    assert (rates[10], rates[-1]) == (1.0, pytest.approx(0.1))
    assert np.diff(rates[10:]) == pytest.approx(-0.9 / 19)
    assert all(0 < rate(step, 3, 10) <= 1 for step in range(3))


def test_pre_training_changes_the_start_and_is_shared(grooves: TrainingGrooves, tmp_path: Path) -> None:
    ctx = context(tmp_path)
    states = {}
    for name, config in {"english": LanguageModelConfig(**SMALL), "none": SCRATCH}.items():
        states[name] = LanguageModel(config)._start(PLAIN, ctx).state_dict()
    assert {k: v.shape for k, v in states["english"].items()} == {k: v.shape for k, v in states["none"].items()}
    assert not torch.equal(states["english"]["transformer.wte.weight"], states["none"]["transformer.wte.weight"])
    before = sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("english.pt"))
    LanguageModel(LanguageModelConfig(**SMALL, temperature=0.5))._start(PLAIN, ctx)
    assert sorted(path.stat().st_mtime_ns for path in tmp_path.rglob("english.pt")) == before
    LanguageModel(LanguageModelConfig(**{**SMALL, "english_steps": 4}))._start(PLAIN, ctx)
    assert len(list(tmp_path.rglob("english.pt"))) == len(before) + 1


def test_training_learns_drumroll(grooves: TrainingGrooves, tmp_path: Path) -> None:
    config = LanguageModelConfig(layers=1, width=32, heads=2, context=128, steps=40, lr=0.01, pretraining="none")
    ctx = context(tmp_path)
    trained = LanguageModel(config).fit(grooves, ctx)
    untrained = LanguageModel(LanguageModelConfig(**{**vars(config), "steps": 1, "lr": 1e-9})).fit(grooves, ctx)
    bits = [sum(drummer.bits(grooves.validation, ctx)) for drummer in (trained, untrained)]
    characters = sum(len(record.completion) for record in grooves.validation)
    assert bits[1] / characters == pytest.approx(7, abs=0.5)  # one of 128
    assert bits[0] / characters < 2


def test_a_whole_run_at_full_size_needs_a_model(grooves: TrainingGrooves, tmp_path: Path) -> None:
    config = LanguageModelConfig(layers=1, width=512, heads=8)
    with pytest.raises(ConfigError, match="model=FOLDER"):
        LanguageModel(config).fit(grooves, context(tmp_path))
    assert parameters_of(LanguageModel(config)._start(PLAIN, context(tmp_path, max_steps=1))) > 1_000_000


def test_weights_are_kept_and_loaded(grooves: TrainingGrooves, tmp_path: Path) -> None:
    model = model_of()
    save_model(model, tmp_path / "model.pt")
    loaded = LanguageModel(SCRATCH).fit(grooves, context(tmp_path, weights=tmp_path / "model.pt"))
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True))
    with pytest.raises(ConfigError, match="no weights of this model"):
        load_model(tiny_gpt2(LanguageModelConfig(), 128), tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ConfigError, match="no weights of this model"):
        load_model(model, tmp_path / "model.pt")


# --- sampling ---------------------------------------------------------------------------------------------


def plainly(model: Any, prompts: list[str], steps: int, size: int, seed: int) -> list[str]:
    """Continue prompts of equal length without a cache, reading all that is remembered again at every step."""
    texts = [list(prompt.encode()) for prompt in prompts]
    starts = [[0, len(prompt)] for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    kept = 0
    for _ in range(steps):
        if len(texts[0]) - kept > size:
            kept = first_remembered(starts[0], len(texts[0]), size)
        with torch.no_grad():
            logits = torch.stack([model(input_ids=torch.tensor([text[kept:]])).logits[0, -1] for text in texts])
        for text, code in zip(texts, draw(logits, 1.0, 1.0, generator).tolist(), strict=True):
            text.append(code)
    return ["".join(map(chr, text[len(prompt) :])).split("END")[0] for text, prompt in zip(texts, prompts, strict=True)]


def test_cached_sampling_equals_reading_everything_again(tmp_path: Path) -> None:
    model, prompts = model_of(), ["o----o\n---o--\n", "------\noo-o--\n"]
    settings: dict[str, Any] = {"context": 64, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 120, "seed": 3}
    found = continue_texts(model, PLAIN, prompts, context(tmp_path), **settings)
    assert found == plainly(model, prompts, 120, 64, 3)
    assert len(set(found)) == 2
    assert found != continue_texts(model, PLAIN, prompts, context(tmp_path), **{**settings, "seed": 4})


def test_padding_changes_nothing(tmp_path: Path) -> None:
    model = model_of()
    cold: dict[str, Any] = {"context": 64, "temperature": 1e-4, "top_p": 1.0, "max_new_tokens": 30, "seed": 0}
    prompts = ["o----o\n---o--\n-----o\n", "oo-o--\n", "-\n"]
    together = continue_texts(model, PLAIN, prompts, context(tmp_path), **cold)
    alone = [continue_texts(model, PLAIN, [prompt], context(tmp_path), **cold)[0] for prompt in prompts]
    assert together == alone


class Script(torch.nn.Module):
    """Writes a text, whatever it reads, by counting real positions."""

    def __init__(self, text: str, prompt: int) -> None:
        super().__init__()
        self.text, self.prompt, self.weight = text, prompt, torch.nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(
        self, input_ids: Any, attention_mask: Any, position_ids: Any, past_key_values: Any, use_cache: bool
    ) -> Any:
        place = int(attention_mask.sum(dim=1)[0]) - self.prompt
        self.calls += 1
        logits = torch.full((*input_ids.shape, 128), -100.0)
        logits[:, -1, ord(self.text[place % len(self.text)])] = 100.0
        return type("Output", (), {"logits": logits})


def test_sampling_stops_at_the_end_and_at_the_limit(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"context": 64, "temperature": 0.9, "top_p": 1.0, "max_new_tokens": 30, "seed": 0}
    script = Script("o-----\nEND and more", 2)
    assert continue_texts(script, PLAIN, ["x\n"], context(tmp_path), **settings) == ["o-----\nEND"]
    assert script.calls == 10
    endless = continue_texts(Script("o-----\n", 2), PLAIN, ["x\n"], context(tmp_path), **settings)
    assert endless == [("o-----\n" * 5)[:30]]


def test_what_is_remembered_begins_with_a_bar() -> None:
    assert first_remembered([0, 30, 60, 90], 40, 64) == 0  # all of it
    assert first_remembered([0, 30, 60, 90], 100, 64) == 60
    assert first_remembered([0, 30, 60, 90], 107, 64) == 60
    assert first_remembered([0, 30, 60, 90], 109, 64) == 90
    assert first_remembered([0], 100, 64) == 68  # no bar: half a context


def test_draws_follow_temperature_and_nucleus() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -9.0]]).repeat(20_000, 1)
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 0.9):
        counts = torch.bincount(draw(logits, temperature, 1.0, generator), minlength=4) / 20_000
        assert counts.tolist() == pytest.approx(torch.softmax(logits[0] / temperature, dim=0).tolist(), abs=0.015)
    kept = draw(logits, 1.0, 0.8, generator)  # .665 + .245 > .8
    assert set(kept.tolist()) == {0, 1}
    assert (draw(logits, 1.0, 0.5, generator) == 0).all()


def test_bits_are_those_of_every_token_once(tmp_path: Path) -> None:
    model, ctx = model_of(), context(tmp_path)
    record = Record("x", "o-----\nSEP\n", "---o--\nEND")
    tokens = torch.tensor([list((record.prompt + record.completion).encode())])
    logits = model(input_ids=tokens[:, :-1]).logits[0]
    each = F.cross_entropy(logits, tokens[0, 1:], reduction="none")
    expected = each[len(record.prompt) - 1 :].sum().item() / math.log(2)
    assert completion_bits(model, PLAIN, [record], 64, ctx) == [pytest.approx(expected, rel=1e-5)]


def test_bits_of_long_texts_use_what_is_remembered(grooves: TrainingGrooves, tmp_path: Path) -> None:
    model, record = model_of(), grooves.train[0]
    tokens, starts = PLAIN.encode_bars(record.prompt + record.completion)
    first_scored = len(record.prompt)
    scored, total = first_scored, 0.0
    while scored < len(tokens):
        first = first_remembered(starts, scored, 64)
        for place in range(scored, min(first + 65, len(tokens))):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens[first:place]])).logits[0, -1]
            total -= float(logits.log_softmax(dim=0)[tokens[place]]) / math.log(2)
            scored = place + 1
    assert completion_bits(model, PLAIN, [record], 64, context(tmp_path)) == [pytest.approx(total, rel=1e-4)]


# --- a given model ----------------------------------------------------------------------------------------


def given_folder(folder: Path) -> Path:
    """Write a small GPT-2 with a tokenizer of its own: whole lines where it knows them, else characters."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = ["?", f"{SILENT}\n", "SEP\n", "END", *"o-\n"]
    tokenizer = Tokenizer(models.WordLevel({word: code for code, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SILENT}\n|SEP\n|END|[o\\-\n]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    torch.manual_seed(5)
    shape = GPT2Config(
        vocab_size=len(words), n_positions=48, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    GPT2LMHeadModel(shape).save_pretrained(folder)
    return folder


def test_a_folder_brings_model_and_tokenizer(grooves: TrainingGrooves, tmp_path: Path) -> None:
    folder = given_folder(tmp_path / "given")
    tokenizer = GivenTokenizer(str(folder))
    text = grooves.train[0].prompt + grooves.train[0].completion
    tokens, starts = tokenizer.encode_bars(text)
    assert tokenizer.decode(tokens) == text
    assert len(starts) == 16
    assert len(tokens) < len(text)
    config = LanguageModelConfig(model=str(folder), steps=2, context=384, max_new_tokens=70)
    ctx = context(tmp_path)
    drummer = LanguageModel(config).fit(grooves, ctx)
    assert drummer.context == 48  # no more than the model has positions for
    played = drummer.play([record.prompt for record in grooves.validation], ctx)
    assert all(set(text) <= set("o-\nSEPND?") and text for text in played)
    assert all(bits > 0 for bits in drummer.bits(grooves.validation, ctx))
    fresh = LanguageModel(LanguageModelConfig(model=str(folder), pretraining="none"))._start(tokenizer, ctx)
    own = LanguageModel(config)._start(tokenizer, ctx)
    assert not torch.equal(fresh.transformer.wte.weight, own.transformer.wte.weight)


def test_folders_without_a_model_are_refused_in_one_line(grooves: TrainingGrooves, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lossy = given_folder(tmp_path / "lossy")
    text = (lossy / "tokenizer.json").read_text().replace('"END": 3', '"DNE": 3')
    (lossy / "tokenizer.json").write_text(text)
    bare = given_folder(tmp_path / "bare")
    (bare / "config.json").unlink()
    cases = {
        tmp_path / "none": "no such folder",
        tmp_path / "empty": "holds no tokenizer",
        lossy: "give drumroll text back",
    }
    for folder, message in cases.items():
        with pytest.raises(ConfigError, match=message) as caught:
            LanguageModel(LanguageModelConfig(model=str(folder))).fit(grooves, context(tmp_path))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no causal language model"):
        LanguageModel(LanguageModelConfig(model=str(bare)))._start(PLAIN, context(tmp_path))


# --- opponents --------------------------------------------------------------------------------------------


def test_the_repeater_plays_the_second_bar(grooves: TrainingGrooves, tmp_path: Path) -> None:
    prompt = "o-----\n" * 16 + "SEP\n" + "---o--\n" * 16 + "SEP\n"
    (played,) = RepeatBar(None).fit(grooves, context(tmp_path)).play([prompt], context(tmp_path))
    assert played == "SEP\n".join(["---o--\n" * 16] * 14) + "END"


def test_coins_fall_evenly(grooves: TrainingGrooves, tmp_path: Path) -> None:
    drummer = CoinFlip(None).fit(grooves, context(tmp_path))
    played = drummer.play(["x"] * 20, context(tmp_path))
    assert len(set(played)) == 20
    assert "".join(played).count("o") / (20 * 14 * 96) == pytest.approx(0.5, abs=0.01)
    assert played[0].count("SEP\n") == 13
    assert drummer.bits(grooves.train, context(tmp_path)) is None


def test_people_are_each_heard_once_before_any_is_again(grooves: TrainingGrooves, tmp_path: Path) -> None:
    completions = [record.completion for record in grooves.validation]
    played = Human(None).fit(grooves, context(tmp_path)).play(["x"] * 7, context(tmp_path))
    assert sorted(played[:3]) == sorted(played[3:6]) == sorted(completions)
    other = Human(None).fit(grooves, context(tmp_path)).play(["x"] * 7, context(tmp_path, seeds={"run": 1}))
    assert played != other


def test_the_markov_chain_backs_off_as_witten_and_bell_say() -> None:
    a, b, c = "o-----\n", "-o----\n", "--o---\n"
    record = Record("x", a + b, a + b + a + c)
    chain = LineMarkovDrummer([record], MarkovConfig(order=1))
    codes = {line: chain.tokenizer.encode(line)[0] for line in (a, b, c)}
    empty = {a: 3, b: 2, c: 1}
    lowest = {line: (empty.get(line, 0) + 3 / 66) / (6 + 3) for line in (a, b, c)}
    behind_a = {b: 2, c: 1}
    found = chain.probabilities([codes[c], codes[a]])
    for line in (a, b, c):
        assert found[codes[line]] == pytest.approx((behind_a.get(line, 0) + 2 * lowest[line]) / (3 + 2))
    assert found.sum() == pytest.approx(1)
    unseen = chain.probabilities([codes[c]])
    assert unseen[codes[a]] == pytest.approx(lowest[a])  # nothing stood behind c


def test_the_markov_chain_goes_on_as_far_back_as_its_order(grooves: TrainingGrooves, tmp_path: Path) -> None:
    record = grooves.train[0]
    ctx = context(tmp_path)
    bits = {
        order: LineMarkov(MarkovConfig(order=order)).fit(grooves, ctx).bits([record], ctx)[0] for order in (0, 2, 16)
    }
    assert bits[16] < bits[2] < bits[0]
    chain = LineMarkov(MarkovConfig(order=16, temperature=0.05)).fit(TrainingGrooves([record], []), ctx)
    (played,) = chain.play([record.prompt], ctx)
    assert played.count("\n") <= 14 * 17
    assert played[:116] == record.completion[:116]
    manual = LineMarkovDrummer(grooves.train, MarkovConfig(order=16))
    codes = manual.tokenizer.encode(record.prompt + record.completion)
    total = -sum(np.log2(manual.probabilities(codes[:n])[codes[n]]) for n in range(34, len(codes)))
    assert bits[16] == pytest.approx(total)


# --- the converter ----------------------------------------------------------------------------------------


def test_files_are_converted_or_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["---o--", *[SILENT] * 254, "oooooo"]
    source, song, back = (tmp_path / name for name in ("a.txt", "b.mid", "c.txt"))
    source.write_text(text_of(lines))
    assert convert(source, song) == "256 lines, 7 notes"
    assert "256 lines of 16 bars, 7 notes" in convert(song, back)
    assert back.read_bytes() == source.read_bytes()
    waltz = ["---o--"] * 192
    source.write_text(text_of(waltz))
    convert(source, song)
    assert list(read_midi(song.read_bytes(), "x").lines) == waltz
    for name, content in {
        "seven.txt": b"-------\n",
        "empty.txt": b"",
        "empty.mid": b"",
        "broken.mid": b"MThd\0",
        "odd.txt": b"\xc3",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        target = tmp_path / ("out.mid" if name.endswith("txt") else "out.txt")
        with pytest.raises(UserError) as caught:
            convert(path, target)
        assert "\n" not in str(caught.value)
        assert not target.exists()
        assert main([str(path), str(target)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([str(tmp_path / "nothing.mid"), str(back)]) == 2
    assert main([str(song), str(tmp_path / "out.wav")]) == 2
    assert main([]) == 2
    assert main([str(song), str(back)]) == 0
