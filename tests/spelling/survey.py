"""Many networks in several spellings against the oracle, and what disagrees, by kind."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pathlen
from tests.spelling.constructs import CONSTRUCTS
from tests.spelling.grammar import STEMS, draw, draw_one
from tests.spelling.network import Choice, Network, applicable, example, parameters, spelled
from tests.spelling.oracle import Answer, answer
from tests.spelling.path_dag import Numbers
from tests.spelling.program import Program


def measured(network: Network) -> Numbers | str:
    """What pathlen says, or its error in a line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = pathlen.measure(network.eval(), example(network.program), exact=True)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {' | '.join(lines[:2])[:200]}"
    return Numbers(
        report.path_count,
        report.average_path_length,
        report.normalized_average_path_length,
        report.num_active,
    )


def culprits(plain: Network, other: Network, want: Numbers) -> list[str]:
    """The rules that make the plain spelling wrong, each alone; all of them if none does."""
    found = []
    none = plain.choice[1]
    for place, name in enumerate(other.choice[0]):
        alone: list[Choice] = []
        if name != plain.choice[0][place]:
            changed = (*plain.choice[0][:place], name, *plain.choice[0][place + 1 :])
            alone.append((changed, none))
        if other.choice[1][place]:
            detours = (*none[:place], other.choice[1][place], *none[place + 1 :])
            alone.append((plain.choice[0], detours))
        for choice in alone:
            network = Network(plain.program, plain.weights, choice)
            if measured(network) != want:
                new, old = network.rules()[place], plain.rules()[place]
                found += [rule for rule in new if rule not in old]
    return found or ["several rules together"]


@dataclass
class Disagreement:
    """A network whose plain spelling, or another, has other numbers than the oracle."""

    program: Program
    rules: list[list[str]]
    blamed: list[str]
    want: Numbers
    got: Numbers | str

    def __str__(self) -> str:
        lines = str(self.program).splitlines()
        width = max(map(len, lines))
        shown = [
            f"  {line:<{width}}  # {', '.join(rules)}" if rules else f"  {line}"
            for line, rules in zip(lines, [*self.rules, []], strict=True)
        ]
        return "\n".join([*shown, f"  definitions: {self.want}", f"  measured:    {self.got}"])


@dataclass
class Survey:
    """Counts and the smallest examples."""

    networks: int = 0
    spellings: int = 0
    agreeing: int = 0
    open_cases: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    plain_wrong: Counter[str] = field(default_factory=Counter)
    rule_wrong: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    by_construct: dict[str, Disagreement] = field(default_factory=dict)
    by_rule: dict[str, Disagreement] = field(default_factory=dict)

    def examine(self, program: Program, seed: int, number: int) -> None:
        """One network in several spellings."""
        expected = answer(program)
        if expected.open_cases:
            self.open_cases.update(expected.open_cases)
            return
        self.networks += 1
        self.drawn.update(set(program.constructs))
        networks = spelled(program, parameters(program, seed), number, Random(seed))
        wrong = [
            (network, got)
            for network in networks
            if (got := self._measured(network)) != expected.numbers
        ]
        self.agreeing += not wrong
        if wrong and wrong[0][0] is networks[0]:
            blamed = sorted(set(program.constructs))
            self.plain_wrong.update(blamed)
            self._keep(self.by_construct, *wrong[0], blamed, expected)
            return
        for network, got in wrong:
            blamed = sorted(set(culprits(networks[0], network, expected.numbers)))
            self.rule_wrong.update(blamed)
            self._keep(self.by_rule, network, got, blamed, expected)

    def examine_each_spelling(self, program: Program, seed: int, times: int) -> None:
        """Every spelling of each operation, one at a time, that was not tried so often before."""
        expected = answer(program)
        weights = parameters(program, seed)
        plain = spelled(program, weights, 1, Random(seed))[0]
        if expected.open_cases or self._measured(plain) != expected.numbers:
            return
        for place, indices in enumerate(applicable(program, weights)):
            for index in indices[1:]:
                chosen = (*plain.choice[0][:place], index, *plain.choice[0][place + 1 :])
                network = Network(program, weights, (chosen, plain.choice[1]))
                rule = network.rules()[place][0]
                if self.alone[rule] < times:
                    self.alone[rule] += 1
                    got = self._measured(network)
                    if got != expected.numbers:
                        self.rule_wrong[rule] += 1
                        self._keep(self.by_rule, network, got, [rule], expected)

    def _measured(self, network: Network) -> Numbers | str:
        self.spellings += 1
        self.used.update({rule for rules in network.rules() for rule in rules})
        got = measured(network)
        if isinstance(got, str):
            self.errors[got] += 1
        return got

    def _keep(
        self,
        kept: dict[str, Disagreement],
        network: Network,
        got: Numbers | str,
        blamed: list[str],
        expected: Answer,
    ) -> None:
        found = Disagreement(network.program, network.rules(), blamed, expected.numbers, got)
        for name in blamed:
            if name not in kept or len(kept[name].program.nodes) > len(found.program.nodes):
                kept[name] = found

    def lines(self, examples: int = 40) -> Iterator[str]:
        """The report."""
        yield f"{self.networks} networks in {self.spellings} spellings: {self.agreeing} agree"
        yield f"{len(self.drawn)} constructs, {len(self.used)} rules were used"
        for case, count in self.open_cases.most_common():
            yield f"left out, the definitions are open: {count} x {case}"
        if self.errors:
            yield "\nErrors"
            yield from (f"{count:6}  {name}" for name, count in self.errors.most_common())
        if self.plain_wrong:
            yield "\nThe plain spelling is wrong, by construct (networks with it)"
            shares = {n: c / self.drawn[n] for n, c in self.plain_wrong.items()}
            for name in sorted(shares, key=lambda n: -shares[n]):
                yield f"{self.plain_wrong[name]:6} of {self.drawn[name]:5}  {name}"
        if self.rule_wrong:
            yield "\nAnother spelling is wrong, by rule (spellings that use it)"
            for name, count in self.rule_wrong.most_common():
                yield f"{count:6} of {self.used[name]:5}  {name}"
        for title, kept, counts in (
            ("construct", self.by_construct, self.plain_wrong),
            ("rule", self.by_rule, self.rule_wrong),
        ):
            shown: set[int] = set()
            for name, _ in counts.most_common():
                if id(kept[name]) not in shown and len(shown) < examples:
                    shown.add(id(kept[name]))
                    yield f"\nSmallest network with the {title} {name!r}\n{kept[name]}"


def survey(
    networks: int,
    seed: int,
    spellings: int = 3,
    alone: int = 0,
    seconds: float = math.inf,
) -> Survey:
    """Draws networks from a seed and examines them.

    Args:
        networks: How many.
        seed: Another seed draws others.
        spellings: Of each network, the plain one among them.
        alone: How many networks are made of each construct alone, before; and how often each
            spelling of an operation is tried alone in these.
        seconds: After which no more networks are drawn.
    """
    result, end = Survey(), time.monotonic() + seconds
    for number in range(alone):
        for place, name in enumerate([*STEMS, *sorted(CONSTRUCTS)]):
            own = (seed * 1_000_003 + number) * 1000 + place
            program = draw_one(Random(own).choice, name)
            result.examine(program, own, spellings)
            result.examine_each_spelling(program, own, times=alone)
    for number in range(networks):
        if time.monotonic() > end:
            break
        own = seed * 1_000_003 + number
        result.examine(draw(Random(own).choice), own, spellings)
    return result
