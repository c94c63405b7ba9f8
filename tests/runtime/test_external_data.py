"""A graph may keep tensors only in files whose hash the manifest lists, wherever in the graph the tensor is."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from runtime.bundle import GRAPH, Bundle, Writer, load
from runtime.errors import BundleError
from runtime.external_data import external_files
from runtime.manifest import Manifest
from runtime.tensors import TensorSpec

WEIGHTS = "weights.bin"
IMAGE = TensorSpec("image", "float32", ("N", 3, "H", "W"), (0, 1))
MANIFEST = Manifest("tiny", "upscale", "float32", (IMAGE,), (IMAGE,), tile_sizes=(64,), halo=8)


def tensor(location: str | None = WEIGHTS, *, name: str = "weights") -> onnx.TensorProto:
    """Four values; in the file at `location`, or with None in the graph."""
    made = numpy_helper.from_array(np.zeros(4, np.float32), name)
    if location is not None:
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"offset": "0", "location": location, "length": "16"}.items():
            made.external_data.add(key=key, value=value)
    return made


def graph(*initializers: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, "graph", [], [], initializer=initializers)


def model(content: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(content)


def constant(value: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["value"], value=value)


def in_an_initializer(value: onnx.TensorProto) -> onnx.ModelProto:
    return model(graph(tensor(None), value))


def in_a_constant(value: onnx.TensorProto) -> onnx.ModelProto:
    return model(graph(nodes=(constant(value),)))


def in_a_list_of_tensors(value: onnx.TensorProto) -> onnx.ModelProto:
    return model(graph(nodes=(helper.make_node("Custom", [], ["y"], tables=[tensor(None), value]),)))


def in_a_branch(value: onnx.TensorProto) -> onnx.ModelProto:
    inner = helper.make_node("If", ["a"], ["b"], then_branch=graph(value), else_branch=graph())
    outer = helper.make_node("If", ["a"], ["b"], then_branch=graph(nodes=(inner,)), else_branch=graph())
    return model(graph(nodes=(outer,)))


def in_a_list_of_graphs(value: onnx.TensorProto) -> onnx.ModelProto:
    return model(graph(nodes=(helper.make_node("Custom", [], ["y"], bodies=[graph(), graph(value)]),)))


def in_a_function(value: onnx.TensorProto) -> onnx.ModelProto:
    made = model(graph())
    made.functions.append(
        helper.make_function("own", "F", [], ["value"], [constant(value)], [helper.make_opsetid("", 18)])
    )
    return made


def in_a_functions_attribute(value: onnx.TensorProto) -> onnx.ModelProto:
    made = in_a_function(tensor(None))
    made.functions[0].attribute_proto.append(helper.make_attribute("default", value))
    return made


def sparse(value: onnx.TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(value, numpy_helper.from_array(np.arange(4), "indices"), [9])


def in_a_sparse_initializer(value: onnx.TensorProto) -> onnx.ModelProto:
    made = model(graph())
    made.graph.sparse_initializer.append(sparse(value))
    return made


def in_a_sparse_constant(value: onnx.TensorProto) -> onnx.ModelProto:
    return model(graph(nodes=(helper.make_node("Constant", [], ["y"], sparse_value=sparse(value)),)))


def in_the_training(value: onnx.TensorProto) -> onnx.ModelProto:
    made = model(graph())
    made.training_info.add().algorithm.CopyFrom(graph(value))
    return made


PLACES = [
    in_an_initializer,
    in_a_constant,
    in_a_list_of_tensors,
    in_a_branch,
    in_a_list_of_graphs,
    in_a_function,
    in_a_functions_attribute,
    in_a_sparse_initializer,
    in_a_sparse_constant,
    in_the_training,
]
Place = Callable[[onnx.TensorProto], onnx.ModelProto]


def write(folder: Path, content: bytes, *, weights: str | None = None) -> Bundle:
    """A bundle with this graph. weights: name of a listed file with the tensors."""
    with Writer(folder, "tiny") as writer:
        (writer.path / GRAPH).write_bytes(content)
        if weights is not None:
            (writer.path / weights).parent.mkdir(exist_ok=True)
            (writer.path / weights).write_bytes(bytes(16))
        return writer.commit(MANIFEST)


@pytest.mark.parametrize("place", PLACES)
def test_a_file_that_the_manifest_does_not_list_is_refused(tmp_path: Path, place: Place) -> None:
    content = place(tensor()).SerializeToString()
    with pytest.raises(
        BundleError, match=f"{GRAPH} keeps tensors in '{WEIGHTS}', which the manifest does not list"
    ):
        write(tmp_path, content)


def test_a_file_put_beside_a_built_bundle_is_refused(tmp_path: Path) -> None:
    built = write(tmp_path, in_an_initializer(tensor()).SerializeToString(), weights=WEIGHTS)
    text = (built.path / "manifest.json").read_text()
    listed = re.search(rf'    "{WEIGHTS}": {{.*?}},?\n', text, re.DOTALL)
    assert listed
    unlisted = text.replace(listed[0], "").replace("},\n  },\n", "}\n  },\n")
    (built.path / "manifest.json").write_text(unlisted)
    with pytest.raises(BundleError, match=f"keeps tensors in '{WEIGHTS}'"):
        load(built.path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", [WEIGHTS, f"./{WEIGHTS}", f"data/{WEIGHTS}"])
def test_a_listed_file_is_accepted(tmp_path: Path, place: Place, location: str) -> None:
    content = place(tensor(location)).SerializeToString()
    assert write(tmp_path, content, weights=location).path.is_dir()


def test_a_listed_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path, in_an_initializer(tensor()).SerializeToString(), weights=WEIGHTS)
    (bundle.path / WEIGHTS).write_bytes(bytes(15) + b"x")
    with pytest.raises(BundleError, match=f"{WEIGHTS} was altered"):
        load(bundle.path)


@pytest.mark.parametrize(
    "location",
    [f"../tiny/{WEIGHTS}", f"data/../{WEIGHTS}", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "", "nowhere"],
)
def test_a_path_that_is_not_spelt_as_in_the_manifest_is_refused(tmp_path: Path, location: str) -> None:
    content = in_an_initializer(tensor(location)).SerializeToString()
    with pytest.raises(BundleError, match="keeps tensors in"):
        write(tmp_path, content, weights=WEIGHTS)


def test_an_external_tensor_without_a_location_is_refused(tmp_path: Path) -> None:
    value = tensor()
    del value.external_data[:]
    with pytest.raises(BundleError, match="keeps tensors in ''"):
        write(tmp_path, in_an_initializer(value).SerializeToString())


def test_a_location_counts_whatever_the_tensor_says_of_itself(tmp_path: Path) -> None:
    value = tensor()
    value.data_location = onnx.TensorProto.DEFAULT
    with pytest.raises(BundleError, match=f"keeps tensors in '{WEIGHTS}'"):
        write(tmp_path, in_an_initializer(value).SerializeToString())


@pytest.mark.parametrize(
    "content", [b'<?xml version="1.0"?><net name="m" version="11">', b"a graph", b"\x00\x00"]
)
def test_a_graph_in_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    """OpenVINO goes by the content: it would read its own XML, and its weights from the unlisted model.bin."""
    with pytest.raises(BundleError, match="not in ONNX's format"):
        write(tmp_path, content)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with suppress(BundleError):
        external_files(path)


@given(st.data())
@settings(deadline=None)
def test_a_cut_graph_is_refused_or_names_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.onnx"
    whole = in_a_branch(tensor()).SerializeToString()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with suppress(BundleError):
        assert external_files(path) <= {WEIGHTS}


def test_seventy_megabytes_of_weights_take_no_time(tmp_path: Path) -> None:
    """As large as ESRGAN with 23 blocks: the weights are skipped. 20 ms where hashing takes 300."""
    side = np.zeros((64, 192, 3, 3), np.float32)
    weights = [numpy_helper.from_array(side, f"w{n}") for n in range(160)]
    nodes = tuple(
        helper.make_node("Conv", ["x", f"w{n}"], ["y"], pads=[1, 1, 1, 1], name=f"conv{n}")
        for n in range(700)
    )
    path = tmp_path / GRAPH
    path.write_bytes(model(graph(*weights, nodes=nodes)).SerializeToString())
    assert path.stat().st_size > 70e6
    start = time.process_time()
    assert external_files(path) == set()
    assert time.process_time() - start < 1
