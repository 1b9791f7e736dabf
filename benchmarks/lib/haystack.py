"""Made passages in which the benchmark's answers are sought: of the same world, answering nothing.

``near_miss`` makes short rules such as a handbook has. ``filler`` makes passages of the length
that a document is cut into, with words as frequent as words are: a few everywhere, most hardly
anywhere.
"""

import itertools
from collections.abc import Iterator
from random import Random
from typing import Final

LANGUAGES: Final = ("en", "zh")

_SUBJECTS: Final = {
    "en": (
        "the archive", "the paint shop", "the loading ramp", "the laboratory", "the call centre",
        "the print room", "the boiler house", "the pharmacy", "the branch office", "the ward",
        "the tool crib", "the test field", "the data centre", "the fleet", "the apprentices",
        "the works council", "the controlling team", "the cash desk", "the cold store", "the gate",
    ),
    "zh": (
        "档案室", "喷漆车间", "装卸平台", "化验室", "呼叫中心", "文印室", "锅炉房", "药房",
        "分公司", "病区", "工具库", "试验场", "数据中心", "车队",
        "学徒", "工会", "控制部", "收银台", "冷库", "门卫",
    ),
}  # fmt: skip
_RULES: Final = {
    "en": (
        "For {s}, keys are handed out by the shift lead and returned within {n} hours.",
        "In {s}, cleaning is done every {n} days and noted on the sheet at the door.",
        "The inventory of {s} is counted by two people and compared with list {n}.",
        "Requests that concern {s} are answered within {n} working days by letter.",
        "Lighting in {s} is switched off {n} minutes after the last person has left.",
        "The contract for {s} runs for {n} months and is renewed in writing.",
        "New equipment of {s} is labelled with a number that begins with {n}.",
        "At {s}, deliveries are accepted until {n} o'clock and weighed on arrival.",
        "The minutes of meetings about {s} are sent round within {n} days.",
        "Furniture of {s} is depreciated over {n} years in equal parts.",
        "Windows of {s} are replaced when they are older than {n} years.",
        "Measurements in {s} are repeated {n} times and the mean is recorded.",
    ),
    "zh": (
        "{s}的钥匙由班长发放,须在{n}小时内归还。",
        "{s}每{n}天清扫一次,并在门口表格上登记。",
        "{s}的库存由两人清点,并与第{n}号清单核对。",
        "涉及{s}的申请在{n}个工作日内以书面答复。",
        "最后一人离开{s}后{n}分钟关闭照明。",
        "{s}的合同期限为{n}个月,续签须采用书面形式。",
        "{s}的新设备贴有以{n}开头的编号。",
        "{s}收货至{n}点为止,到货时称重。",
        "关于{s}的会议纪要在{n}天内分发。",
        "{s}的家具按{n}年平均折旧。",
        "{s}的窗户使用超过{n}年即更换。",
        "{s}的测量重复{n}次并记录平均值。",
    ),
}
_SYLLABLES: Final = [a + b for a, b in itertools.product("bdfgklmnprstvz", "aeiou")]
_VOCABULARY: Final = 30_000
_RARE_WORDS: Final = 30
_FIRST_CHARACTER: Final = 0x4E00


def near_miss(language: str, number: int) -> str:
    """The short rule of that number; no two of the first two hundred are alike."""
    subjects, rules = _SUBJECTS[language], _RULES[language]
    subject = subjects[number % len(subjects)]
    rule = rules[(number // len(subjects) + number) % len(rules)]
    return rule.format(s=subject, n=3 + number % 37)


def filler(language: str, chance: Random) -> str:
    """A passage of about a hundred words, or as many characters thrice."""
    rules = " ".join(near_miss(language, chance.randrange(10_000)) for _ in range(5))
    rare = (_rare(language, int(_VOCABULARY * chance.random() ** 4)) for _ in range(_RARE_WORDS))
    return f"{rules} {('' if language == 'zh' else ' ').join(rare)}"


def fillers(count: int, seed: int) -> Iterator[str]:
    """Passages, by turns in each language."""
    chance = Random(seed)
    for number in range(count):
        yield filler(LANGUAGES[number % len(LANGUAGES)], chance)


def _rare(language: str, rank: int) -> str:
    """The made word of that rank, 0 for the commonest."""
    if language == "zh":
        return chr(_FIRST_CHARACTER + rank // 3) + chr(_FIRST_CHARACTER + rank % 4000)
    first, rest = divmod(rank, len(_SYLLABLES))
    return _SYLLABLES[rest] + _SYLLABLES[first % len(_SYLLABLES)] + _SYLLABLES[first // 70]
