"""vLLM as engine, by a stand-in with a tiny model: the same prompts, words and greedy answers as in this process."""

import ast
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import BaseModel, ValidationError

from rlaifv_pl.feedback.candidates.sampling import sample_candidates
from rlaifv_pl.feedback.engines.engine import Engine, EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.isolated_env import VISIBLE, isolated_environment
from rlaifv_pl.feedback.engines.openai_engine import OpenAIEngine
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.feedback.engines.vllm_engine import VLLMEngine
from rlaifv_pl.miniature import packaged_model
from rlaifv_pl.miniature.shards import Scenes
from rlaifv_pl.records import Sample
from tests.feedback import vllm_stand_in
from tests.feedback.vllm_stand_in import LLM
from tests.training.tiny import REPOSITORY

GREEDY = Sampling(n=1, temperature=0, max_new_tokens=40)


class Form(BaseModel):
    """What is filled in."""

    right: bool
    words: list[str]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch) -> list[LLM]:
    """The models that the stand-in has loaded so far."""
    for name, module in vllm_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    vllm_stand_in.made.clear()
    return vllm_stand_in.made


@pytest.fixture(scope="module")
def scenes() -> list[Sample]:
    return list(Scenes(out="", split="tune", count=3, seed=3).samples())


def engine(**settings) -> VLLMEngine:
    return VLLMEngine(**{"path": str(packaged_model("base")), "dtype": "float32", **settings})


def requests(scenes: list[Sample]) -> list[Request]:
    things = ("red cup", "blue ring")
    return [Request(f"is there a {thing}?", one.images, one.key) for one in scenes for thing in things]


def test_greedy_answers_are_those_of_the_model_in_this_process(scenes):
    asked: Engine = engine()
    seeds = [[1], [2], [3]]
    texts = asked.sample(scenes, seeds, GREEDY)
    here = TransformersEngine(path=str(packaged_model("base")))
    assert texts == here.sample(scenes, seeds, GREEDY) and all(len(one.text.split()) > 3 for (one,) in texts)


def test_a_prompt_of_several_turns_or_without_an_image_has_the_tokens_that_it_has_here(scenes):
    turns = [
        {"role": "user", "content": "is it red?"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "what is in it?"},
    ]
    asked = [Sample(key="talk", prompt=turns, images=scenes[0].images), Sample(key="blind", prompt="look.")]
    here = TransformersEngine(path=str(packaged_model("base")))
    seeds = [[0], [0]]
    assert engine().sample(asked, seeds, GREEDY) == here.sample(asked, seeds, GREEDY)


def test_probabilities_of_words_are_those_of_the_model_in_this_process(scenes, stand_in):
    path = str(packaged_model("labeler"))
    found = engine(path=path).choose(requests(scenes), ("yes", "no"))
    here = TransformersEngine(path=path).choose(requests(scenes), ("yes", "no"))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(here), atol=1e-4, rtol=0)
    (llm,) = stand_in
    assert {params.max_tokens for _, params in llm.asked} == {1}
    assert llm.enable_prefix_caching and llm.limit_mm_per_prompt == {"image": 1}


def test_a_candidate_depends_on_its_own_seed_alone(scenes, stand_in):
    asked, sampling = engine(), Sampling(n=3, temperature=1.0, max_new_tokens=30)
    whole = sample_candidates(asked, scenes, sampling, seed=1)
    assert sample_candidates(asked, scenes[1:2], sampling, seed=1) == whole[1:2]
    sent = [params.seed for _, params in stand_in[0].asked[:9]]
    assert sent == [one.seed for drawn in whole for one in drawn] and len(set(sent)) == 9
    assert len({one.text for drawn in whole for one in drawn}) > 3


def test_an_answer_never_holds_an_images_token(scenes, stand_in):
    asked = engine()
    asked.sample(scenes[:1], [[1]], GREEDY)
    ((_, params),) = stand_in[0].asked
    (image_token,) = {*stand_in[0].processor.image_token_ids}
    assert params.logit_bias == {image_token: -100.0}


def test_a_form_is_drawn_again_where_it_was_cut_and_given_up_after_three_drafts(scenes, stand_in):
    asked = engine()
    asked._llm.forms[:] = [
        '{"right": true, "words": []}',
        '{"right"',
        '{"ri',
        "",
        '{"right": false, "words": ["a"]}',
        "{",
    ]
    found = asked.fill([Request(f"question {number}", scenes[0].images) for number in range(3)], Form)
    assert found == [Form(right=True, words=[]), None, Form(right=False, words=["a"])]
    params = [params for _, params in stand_in[0].asked]
    assert [one.temperature for one in params] == [0.0] * 3 + [0.7] * 3 and len(
        {one.seed for one in params}
    ) == 6
    assert all(one.structured_outputs.json == Form.model_json_schema() for one in params)
    assert asked.fill([], Form) == []


def test_release_ends_vllm_and_the_next_question_starts_it_again(scenes, stand_in):
    asked = engine()
    first = asked.sample(scenes[:1], [[1]], GREEDY)
    asked.release()
    asked.release()
    assert [llm.ended for llm in stand_in] == [True]
    assert asked.sample(scenes[:1], [[1]], GREEDY) == first and [llm.ended for llm in stand_in] == [
        True,
        False,
    ]


def test_identity_changes_with_what_decides_answers_and_needs_no_vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    same = engine().identity
    assert same == engine(tensor_parallel_size=4, gpu_memory_utilization=0.5, max_model_len=512).identity
    others = [
        {"dtype": "bfloat16"},
        {"options": {"quantization": "fp8"}},
        {"path": str(packaged_model("labeler"))},
    ]
    assert len({same, *(engine(**one).identity for one in others)}) == 4
    assert same != TransformersEngine(path=str(packaged_model("base"))).identity


def test_what_vllm_refuses_and_its_absence_are_said_with_what_to_do(scenes, monkeypatch):
    two = Request("which?", scenes[0].images * 2)
    with pytest.raises(EngineError, match=r"At most 1 image.*`images_per_prompt`"):
        engine().choose([two], ("yes", "no"))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=r"an environment for itself: .* `pip install vllm`.*`vllm serve`"):
        engine().choose(requests(scenes), ("yes", "no"))
    with pytest.raises(ValueError, match="at least 1; got 0, 1 and 3"):
        engine(tensor_parallel_size=0)


def test_options_are_vllms_own_and_go_before_the_engines(stand_in):
    assert engine(options={"max_num_seqs": 7, "enable_prefix_caching": False})._llm.max_num_seqs == 7
    assert stand_in[0].enable_prefix_caching is False and stand_in[0].distributed_executor_backend is None
    assert engine(tensor_parallel_size=2)._llm.distributed_executor_backend == "mp"
    with pytest.raises(TypeError, match="no_such"):
        _ = engine(options={"no_such": 1})._llm


def test_a_launchers_process_starts_vllm_on_its_own_gpus_and_without_the_launcher(monkeypatch, stand_in):
    launched = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "MASTER_PORT": "1", "ROLE_NAME": "default",
                "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    for name, value in {**launched, VISIBLE: "4,5,6,7"}.items():
        monkeypatch.setenv(name, value)
    llm = engine(tensor_parallel_size=2)._llm
    assert llm.environment[VISIBLE] == "6,7" and not launched.keys() & llm.environment.keys()
    assert {name: os.environ.get(name) for name in launched} == launched and os.environ[VISIBLE] == "4,5,6,7"
    with pytest.raises(EngineError, match=r"needs GPUs 3 to 5, and there are 4"), isolated_environment(3):
        pytest.fail("entered")


def test_without_a_launcher_the_environment_stays(monkeypatch):
    for name in ("LOCAL_RANK", VISIBLE):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with isolated_environment(2):
        assert dict(os.environ).keys() == before.keys() - {"RANK", "WORLD_SIZE"}
    assert dict(os.environ) == before


# Against vLLM itself, by its source: it need not be able to run here.


def look_for_vllm(monkeypatch) -> None:
    """Put the stand-in aside, and skip the test where there is no vLLM."""
    for name in vllm_stand_in.modules():
        monkeypatch.delitem(sys.modules, name)
    if find_spec("vllm") is None:
        pytest.skip("the vllm package is not installed")


def parameters(file: str, name: str, method: str | None = None) -> set[str]:
    """Names of a class's annotated fields, or of the parameters of one of its methods."""
    spec = find_spec("vllm")
    tree = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text())
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if method is None:
        return {node.target.id for node in found.body if isinstance(node, ast.AnnAssign)}
    (made,) = [node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == method]
    return {argument.arg for argument in [*made.args.args, *made.args.kwonlyargs]}


def test_vllm_knows_every_name_that_it_is_asked_by(monkeypatch):
    look_for_vllm(monkeypatch)
    arguments = parameters("entrypoints/llm.py", "LLM", "__init__") | parameters(
        "engine/arg_utils.py", "EngineArgs"
    )
    assert engine(tensor_parallel_size=2)._arguments.keys() <= arguments
    fields = {name: {*vars(kind)["__dataclass_fields__"]} for name, kind in vars(vllm_stand_in).items()
              if name.endswith("Params")}  # fmt: skip
    for name, known in fields.items():
        assert known <= parameters("sampling_params.py", name), name
    assert {"prompts", "sampling_params", "use_tqdm"} <= parameters("entrypoints/llm.py", "LLM", "generate")
    assert {"prompt_token_ids"} <= parameters("inputs/llm.py", "TokensPrompt")
    assert {"multi_modal_data"} <= parameters("inputs/llm.py", "_PromptOptions")
    assert {"text", "logprobs"} <= parameters("outputs.py", "CompletionOutput")
    assert {"self"} <= parameters("v1/engine/core_client.py", "EngineCoreClient", "shutdown")


def test_vllms_server_knows_every_field_of_a_request(monkeypatch, scenes):
    look_for_vllm(monkeypatch)
    config = yaml.safe_load((REPOSITORY / "configs/feedback/servers.yaml").read_text())
    asked, sent = OpenAIEngine(**config["policy"]["init_args"]), []

    def ask(calls, *_):
        sent.extend(call.wire for call in calls)
        return [[]] * len(calls)

    monkeypatch.setattr(asked, "_ask", ask)
    asked.sample(scenes, [[1], [2], [3]], GREEDY)
    asked.choose(requests(scenes), ("yes", "no"))
    with pytest.raises(ValidationError):
        asked.fill(requests(scenes), Form)
    assert len(sent) == 3 + 6 + 6
    fields = {name for body in sent for name in body}
    assert {"seed", "top_logprobs", "response_format", "add_special_tokens", "top_k"} <= fields
    assert fields <= parameters("entrypoints/openai/chat_completion/protocol.py", "ChatCompletionRequest")
