"""Apps in Dify's DSL: word for word as it should be, and shaped like what Dify took in."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from knowledge.applications.dify.dsl import (
    SEARCH,
    Retrieval,
    Unrenderable,
    digest_of,
    dsl_version,
    fills_search,
    render,
)
from knowledge.applications.spec import AppSpec, Input, Knowledge, Sampling
from knowledge.models import AppMode, Method
from knowledge.retrieval import MOST_QUERY_CHARS
from tests.knowledge.dify.recorded import recorded
from tests.knowledge.dify.shapes import differences

GOLDEN = Path(__file__).parent / "golden"
BASE = UUID("01a20968-0000-7000-8000-000000000001")
DATASET = "99a85b24-52aa-4f8b-9e2d-f9f1403bcfc2"
SAMPLING = Sampling(temperature=0.2, max_tokens=256)

CHAT = AppSpec(
    model="private-llm",
    instructions="Answer from context: {{context}}",
    prompt="{{query}}",
    knowledge=(Knowledge(BASE),),
    sampling=SAMPLING,
)
RUN = AppSpec(
    model="private-llm",
    instructions="You shorten texts for {{audience}}.",
    prompt="Summarise: {{text}}",
    inputs=(
        Input("text", most_chars=2000),
        Input("audience", "choice", options=("staff", "clients"), required=False),
        Input("words", "number", required=False),
        Input("polite", "boolean", required=False),
    ),
    sampling=SAMPLING,
)


def rendered(
    spec: AppSpec, mode: AppMode = AppMode.CHAT, retrieval: Retrieval | None = None, **how: Any
) -> Any:
    if spec.knowledge and retrieval is None:
        retrieval = Retrieval([DATASET], top_k=4)
    words = {"name": "HR", "description": "", "model": "private-llm", "dify_version": "1.16.0"}
    return render(spec, mode, retrieval=retrieval, **{**words, **how})


def nodes_of(spec: AppSpec, mode: AppMode = AppMode.CHAT) -> Any:
    return rendered(spec, mode).document["workflow"]["graph"]["nodes"]


def llm_of(spec: AppSpec, mode: AppMode = AppMode.CHAT) -> Any:
    return next(node["data"] for node in nodes_of(spec, mode) if node["id"] == "llm")


def test_prompt_is_the_last_message_behind_earlier_turns() -> None:
    node = llm_of(AppSpec(model="m", instructions="Be kind.", prompt="Shortly: {{query}}"))
    assert node["prompt_template"] == [{"role": "system", "text": "Be kind."}]
    assert node["memory"]["query_prompt_template"] == "Shortly: {{#sys.query#}}"
    assert node["memory"]["window"] == {"enabled": True, "size": 6}


def test_prompt_with_passages_stands_before_earlier_turns() -> None:
    """Dify puts no passages into the last message."""
    node = llm_of(CONVERSATION)
    [message] = node["prompt_template"]
    assert message["role"] == "system"
    assert message["text"].startswith("You help {{#start.company#}}.\n\nPassages:\n{{#context#}}")
    assert node["memory"]["query_prompt_template"] == "{{#sys.query#}}"


def test_prompt_without_earlier_turns_is_a_message_of_the_user() -> None:
    spec = AppSpec(model="m", instructions="Be kind.", prompt="{{query}}!", history=0)
    node = llm_of(spec)
    assert [part["role"] for part in node["prompt_template"]] == ["system", "user"]
    assert "memory" not in node


CONVERSATION = AppSpec(
    model="private-llm",
    instructions="You help {{company}}.",
    prompt="Passages:\n{{context}}\n\nQuestion: {{query}}",
    search="{{query}}",
    inputs=(Input("company"),),
    knowledge=(Knowledge(BASE),),
    sampling=Sampling(temperature=0.0, top_p=0.9, max_tokens=200, seed=7, stop=("END",)),
    opening="你好",
    history=3,
)


@pytest.mark.parametrize(
    ("name", "spec", "mode"),
    [
        ("chat_with_knowledge", CONVERSATION, AppMode.CHAT),
        ("run", RUN, AppMode.RUN),
    ],
)
def test_app_is_rendered_word_for_word(name: str, spec: AppSpec, mode: AppMode) -> None:
    assert rendered(spec, mode).yaml == (GOLDEN / f"{name}.yml").read_text()


def test_chat_has_the_shape_of_the_chatflow_that_dify_took_in() -> None:
    theirs = dsl_of("console_app_import_overwrite_advanced_chat_200")
    ours = yaml.safe_load(rendered(CHAT).yaml)
    found = set(differences(ours, theirs))
    # What Dify adds by itself, and what makes it a conversation.
    assert found == {
        "$.workflow.features.text_to_speech.language is only in ours",
        "$.workflow.features.text_to_speech.voice is only in ours",
        "$.workflow.graph.nodes[2].data.memory is only in ours",
    }


def test_run_has_the_shape_of_the_workflow_that_dify_took_in() -> None:
    theirs = dsl_of("console_app_import_workflow_200")
    spec = AppSpec(model="m", prompt="{{text}}", inputs=(Input("text"),), sampling=SAMPLING)
    ours = yaml.safe_load(rendered(spec, AppMode.RUN).yaml)
    assert set(differences(ours, theirs)) == {
        "$.workflow.features.text_to_speech.language is only in ours",
        "$.workflow.features.text_to_speech.voice is only in ours",
    }


def dsl_of(name: str) -> Any:
    return yaml.safe_load(recorded(name).sent["yaml_content"])


def test_run_searches_for_what_its_template_names() -> None:
    spec = AppSpec(
        model="m",
        prompt="{{context}} {{fault}}",
        search=" {{ fault }} ",
        inputs=(Input("fault"),),
        knowledge=(Knowledge(BASE),),
    )
    document = rendered(spec, AppMode.RUN, Retrieval([DATASET, "b"], 7, 0.4)).document
    [node] = [
        n["data"]
        for n in document["workflow"]["graph"]["nodes"]
        if n["data"]["type"] == "knowledge-retrieval"
    ]
    assert node["query_variable_selector"] == ["start", "fault"]
    assert node["dataset_ids"] == [DATASET, "b"]
    assert node["multiple_retrieval_config"]["top_k"] == 7
    assert node["multiple_retrieval_config"]["score_threshold"] == 0.4


def test_run_that_searches_by_several_inputs_is_handed_what_it_searches_for() -> None:
    spec = AppSpec(
        model="m",
        prompt="{{context}} {{fault}}",
        search="{{fault}} {{device}}",
        inputs=(Input("fault"), Input("device")),
        knowledge=(Knowledge(BASE),),
    )
    nodes = {node["id"]: node["data"] for node in nodes_of(spec, AppMode.RUN)}
    assert nodes["kr"]["query_variable_selector"] == ["start", SEARCH]
    handed = nodes["start"]["variables"][-1]
    assert (handed["variable"], handed["max_length"]) == (SEARCH, MOST_QUERY_CHARS)


def test_run_that_searches_by_an_input_that_may_be_missing_is_handed_it_too() -> None:
    """Dify fails a run whose search is empty."""
    spec = AppSpec(
        model="m",
        prompt="{{context}} {{fault}}",
        search="{{fault}}",
        inputs=(Input("fault", required=False),),
        knowledge=(Knowledge(BASE),),
    )
    assert fills_search(spec, AppMode.RUN)
    assert not fills_search(spec, AppMode.CHAT)


def test_schema_is_told_as_the_plugin_of_models_reads_it() -> None:
    held = {"type": "object", "properties": {"风险": {"type": "string"}}}
    spec = AppSpec(model="m", schema=held, sampling=SAMPLING)
    params = llm_of(spec)["model"]["completion_params"]
    assert (params["temperature"], params["response_format"]) == (0.2, "json_schema")
    told = json.loads(params["json_schema"])
    assert told == {"name": "answer", "schema": held, "strict": True}


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        (AppSpec(model="m", inputs=(Input(SEARCH),)), "inputs"),
        (AppSpec(model="m", prompt="{{query}} {{#sys.user_id#}}"), "prompt"),
        (AppSpec(model="m", instructions="{{ #env.SECRET#}}"), "instructions"),
        (
            AppSpec(
                model="m",
                prompt="{{context}}{{query}}",
                search="about {{query}}",
                knowledge=(Knowledge(BASE),),
            ),
            "search",
        ),
        (
            AppSpec(
                model="m",
                prompt="{{context}}{{query}}",
                knowledge=(Knowledge(BASE, method=Method.FULL_TEXT),),
            ),
            "knowledge",
        ),
    ],
)
def test_what_dify_has_no_words_for_is_refused(spec: AppSpec, param: str) -> None:
    with pytest.raises(Unrenderable) as raised:
        rendered(spec)
    assert raised.value.param == param


@pytest.mark.parametrize("version", ["1.15.3", "1.17.0", "2.0.0", "", "one"])
def test_version_that_was_never_seen_is_refused_with_a_sentence(version: str) -> None:
    with pytest.raises(Unrenderable, match="writes apps for Dify 1.16"):
        rendered(CHAT, dify_version=version)


def test_version_that_was_seen_has_its_dsl() -> None:
    assert dsl_version("1.16.0") == dsl_version("1.16.4") == "0.7.0"


def test_digest_tells_what_the_app_does_and_not_where_it_is_drawn() -> None:
    first = rendered(CHAT)
    workflow = yaml.safe_load(first.yaml)["workflow"]
    workflow["graph"]["nodes"][0]["position"]["x"] += 100
    workflow["graph"]["nodes"].reverse()
    workflow["graph"]["viewport"]["zoom"] = 0.5
    assert digest_of(workflow["graph"], workflow["features"]) == first.digest
    assert rendered(CHAT, name="Another name").digest == first.digest
    workflow["graph"]["nodes"][0]["data"]["answer"] = "{{#llm.text#}}!"
    assert digest_of(workflow["graph"], workflow["features"]) != first.digest
