"""How good answers are: counted from what was expected and what was said, by nothing else."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knowledge.scenarios.catalogue import Case, Scenario


@dataclass(frozen=True, slots=True)
class Judged:
    """A case and what came of it.

    Attributes:
        answer: the answer's object; None where it is none, or there was no answer.
        valid: it keeps to the schema.
        rules: the verdict of the rules alone; empty where there are none.
        found: whether the case's document was among what was retrieved; None where none is named.
    """

    case: Case
    answer: Mapping[str, Any] | None
    valid: bool
    rules: str
    found: bool | None


def score(scenario: Scenario, judged: Sequence[Judged]) -> dict[str, Any]:
    """Shares of the cases, from 0 to 1.

    ``valid``: answers that keep to the schema. ``exact``: all fields as expected. ``fields``: each
    of them. ``rules_and_model`` and ``rules_alone``: accuracy of the verdict, and precision and
    recall of each class. ``retrieval_recall``: whose document was found.
    """
    total = len(judged)
    right = {field: sum(_same(one, field) for one in judged) / total for field in scenario.fields}
    exact = sum(all(_same(one, field) for field in scenario.fields) for one in judged) / total
    found: dict[str, Any] = {
        "valid": sum(one.valid for one in judged) / total,
        "exact": exact,
        "fields": right,
    }
    if scenario.rules:
        wanted = [one.case.expected[scenario.verdict] for one in judged]
        said = [(one.answer or {}).get(scenario.verdict) for one in judged]
        found["rules_and_model"] = classes(wanted, said)
        found["rules_alone"] = classes(wanted, [one.rules for one in judged])
    asked = [one.found for one in judged if one.found is not None]
    if asked:
        found["retrieval_recall"] = sum(asked) / len(asked)
    return found


def classes(wanted: Sequence[Any], said: Sequence[Any]) -> dict[str, Any]:
    """Accuracy, and precision and recall of each class that was wanted; None of nothing."""
    hits = Counter(w for w, s in zip(wanted, said, strict=True) if w == s)
    of_wanted, of_said = Counter(wanted), Counter(s for s in said if isinstance(s, str))
    return {
        "accuracy": hits.total() / len(wanted),
        "classes": {
            one: {
                "precision": hits[one] / of_said[one] if of_said[one] else None,
                "recall": hits[one] / of_wanted[one],
            }
            for one in sorted(of_wanted)
        },
    }


def _same(judged: Judged, field: str) -> bool:
    if judged.answer is None or field not in judged.answer:
        return False
    return bool(_plain(judged.answer[field]) == _plain(judged.case.expected[field]))


def _plain(value: Any) -> Any:
    """Lists are compared as sets of words, in lower case; numbers and texts as they are."""
    return sorted(str(one).strip().lower() for one in value) if isinstance(value, list) else value


def failed(scenario: Scenario, one: Judged) -> dict[str, Any] | None:
    """What was wrong about a case; None where nothing was."""
    wrong = [field for field in scenario.fields if not _same(one, field)]
    if not wrong and one.valid:
        return None
    return {
        "case": one.case.id,
        "kind": one.case.kind,
        "wrong": wrong,
        "expected": {field: one.case.expected[field] for field in scenario.fields},
        "answer": None if one.answer is None else dict(one.answer),
        "valid": one.valid,
        "rules": one.rules,
    }
