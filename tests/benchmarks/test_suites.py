"""The suite files and their format."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.suites import load_suite, parse_line, parse_suite, suites
from kernels import ConvSpec, PoolSpec
from trainer import build_model, models

# Multiply-adds of one image through all convolutions, in units of 10**9, as the papers or their authors
# give them (padding counted, and without the classifiers), and the number of convolutions.
PUBLISHED = {"vgg19": (19.5, 16), "resnet50": (3.8, 53), "mobilenet": (0.568, 27), "alexnet": (0.666, 5)}


def test_the_default_suite_comes_first():
    assert suites()[0] == "default"
    assert set(suites()) == {"default", "peers", *PUBLISHED}


@pytest.mark.parametrize("name", suites())
def test_every_line_reads_back(name):
    for layer in load_suite(name):
        (again,) = parse_line(f"{layer.kind} {layer.descriptor}")
        assert again == layer
        assert (again.name, again.repeat) == (layer.name, layer.repeat)
        assert layer.name.startswith("" if name == "default" else f"{name}:")
        assert layer.N == 1 or name == "peers"


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_networks_have_the_published_size(name, published):
    convolutions = [layer for layer in load_suite(name) if isinstance(layer, ConvSpec)]
    macs = sum(
        layer.repeat * layer.K * (layer.C // layer.groups) * layer.R * layer.S * layer.OH * layer.OW
        for layer in convolutions
    )
    assert macs / 1e9 == pytest.approx(published[0], rel=0.02)
    assert sum(layer.repeat for layer in convolutions) == published[1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_follow_on_each_other(name):
    """Each layer's input is some earlier layer's output, the first one's the image."""
    layers = load_suite(name)
    sizes = {(3, layers[0].H, layers[0].W)}
    for layer in layers:
        assert (layer.C, layer.H, layer.W) in sizes, layer.name
        sizes.add(tuple(layer.y_shape[1:]))


def test_the_default_suite_is_the_course_networks():
    layers = {layer.name: layer for layer in load_suite("default")}
    assert {name.partition(":")[0] for name in layers} == {
        "mnist3", "mnist2", "scratch", "lenet", "tanhavg", "signal"
    }  # fmt: skip
    flat = {"mnist3:conv3": 2048, "mnist2:pool2": 1600, "scratch:pool1": 1568, "lenet:pool2": 256,
            "tanhavg:pool1": 3456}  # fmt: skip
    for name, features in flat.items():
        _, channels, height, width = layers[name].y_shape
        assert channels * height * width == features
    assert layers["signal:conv1"].kind == "conv1d"


def test_the_peers_suite_has_poolings_for_every_cache():
    layers = load_suite("peers")
    assert sum(isinstance(layer, ConvSpec) for layer in layers) == 17
    for mode in ("max", "avg"):
        sizes = [
            layer.least_bytes("float32") / 2**20
            for layer in layers
            if isinstance(layer, PoolSpec) and layer.mode == mode
        ]
        assert sum(size < 1 for size in sizes) == sum(1 < size < 32 for size in sizes) == 2
        assert sum(size > 105 for size in sizes) == 2


@pytest.mark.parametrize("name", models())
def test_the_default_suite_holds_every_layer_of_every_model(name):
    layers = load_suite(name)
    assert layers == tuple(build_model(name).specs().values())
    assert {layer.name.partition(":")[0] for layer in layers} == {name}
    assert set(layers) <= set(load_suite("default"))


def test_comments_blank_lines_and_kinds():
    conv, pool, signal = parse_suite(
        '# a comment\n\nmb1ic1ih8oc2kh3n"a"  # dense\navg_pool2d ic2ih6kh2sh2\nconv1d ic1iw9oc2kw3\n', "mine"
    )
    assert isinstance(conv, ConvSpec)
    assert isinstance(pool, PoolSpec)
    assert (conv.name, pool.kind, signal.kind) == ("a", "avg_pool2d", "conv1d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine holds no layers; expected a descriptor a line"),
        (
            "ic1ih8oc2kh3\nic1ih8oc2kh9\n",
            "mine:2: descriptor 'ic1ih8oc2kh9': kernel 9x9 (dilation counted) is larger than the padded "
            "input 8x8; expected a smaller kernel or more padding",
        ),
        ("\n\nic1ih8oc2kx3", "mine:3: descriptor 'ic1ih8oc2kx3': unknown key 'kx' at 'kx3'; expected one of"),
        ("pool ic1ih8kh2", "mine:1: cannot read 'pool ic1ih8kh2'; expected a descriptor, one of conv2d, "
         "conv1d, max_pool2d, avg_pool2d and a descriptor, or model and its name"),
        ("model nope", "mine:1: model is 'nope'; expected one of mnist3, mnist2, scratch, lenet"),
        ("model lenet\nmodel lenet", "mine:2: a second layer named 'lenet:conv1'; expected names to differ"),
        ('ic1ih8oc2kh3n"a"\nic1ih9oc2kh3n"a"', "mine:2: a second layer named 'a'; expected names to differ"),
        ("max_pool2d ic1ih8kh2ph2", "mine:1: descriptor 'ic1ih8kh2ph2': padding (2, 2) of the height is not"),
    ],
)  # fmt: skip
def test_malformed_lines_are_named(text, message):
    with pytest.raises(ValueError, match="mine") as error:
        parse_suite(text, "mine")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_suite_from_a_file(tmp_path: Path):
    path = tmp_path / "mine.txt"
    path.write_text('ic1ih8oc2kh3n"mine:conv"\n')
    (layer,) = load_suite(str(path))
    assert layer.name == "mine:conv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a text file in UTF-8; expected a suite"):
        load_suite(str(path))


def test_an_unknown_suite_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="suite is 'nope'; expected one of default, alexnet, mobilenet"):
        load_suite("nope")
