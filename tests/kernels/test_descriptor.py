"""benchdnn's problem descriptors: read, written, deduced, refused."""

from __future__ import annotations

import pytest
from kernel_cases import CONVS, LAYERS, POOLS

from kernels import ConvSpec, PoolSpec

# From benchdnn's inputs for its convolution driver, or written by its documented rules.
READ = {
    'ic3ih227iw227_oc96oh55ow55_kh11kw11_sh4sw4ph0pw0_n"alexnet:conv1"': (
        ConvSpec(2, 3, 227, 227, 96, 11, 11, stride=4),
        "alexnet:conv1",
    ),
    'mb1_ic16ih7iw7oc16oh7ow7_kh5kw5_ph2pw2n"vgg_like"': (
        ConvSpec(1, 16, 7, 7, 16, 5, 5, padding=2),
        "vgg_like",
    ),
    'ic3ih224oc64oh112kh7sh2ph3n"resnet_50:conv1"': (
        ConvSpec(2, 3, 224, 224, 64, 7, 7, stride=2, padding=3),
        "resnet_50:conv1",
    ),
    "g32ic32ih112oc32oh112kh3ph1nmobilenet:conv2_1/dw": (
        ConvSpec(2, 32, 112, 112, 32, 3, 3, padding=1, groups=32),
        "mobilenet:conv2_1/dw",
    ),
    "g2ic96ih27oc256oh27kh5ph2n": (ConvSpec(2, 96, 27, 27, 256, 5, 5, padding=2, groups=2), ""),
    'mb3ic4iw10oc5ow8kw3n"1d"': (ConvSpec(3, 4, 1, 10, 5, 1, 3), "1d"),
    "mb1ic4iw10oc5ow5kw3sw2pw1": (ConvSpec(1, 4, 1, 10, 5, 1, 3, stride=(1, 2), padding=(0, 1)), ""),
    "mb1ic1iw9oc1kw3pw2dw1": (ConvSpec(1, 1, 1, 9, 1, 1, 3, padding=(0, 2), dilation=(1, 2)), ""),
    # dilation is zero-based
    "mb1ic2ih9oc3kh3dh1": (ConvSpec(1, 2, 9, 9, 3, 3, 3, dilation=2), ""),
    "mb1ic2ih9oc3kh3dh0": (ConvSpec(1, 2, 9, 9, 3, 3, 3), ""),
    "mb1ic2ih9oc3oh9kh3ph2dh1": (ConvSpec(1, 2, 9, 9, 3, 3, 3, padding=2, dilation=2), ""),
    # a missing width takes the height's value, one that is given its own
    "mb1ic2ih6iw9oc3kh2": (ConvSpec(1, 2, 6, 9, 3, 2, 2), ""),
    "mb1ic2ih6iw9oc3kh2kw3sh2sw1ph0pw1": (
        ConvSpec(1, 2, 6, 9, 3, 2, 3, stride=(2, 1), padding=(0, 1)),
        "",
    ),
    # padding deduced from the output, the odd element at the end; what is left over stays so
    "mb1ic2ih6oc3oh6kh3": (ConvSpec(1, 2, 6, 6, 3, 3, 3, padding=1), ""),
    "mb1ic2ih6oc3oh6kh2": (ConvSpec(1, 2, 6, 6, 3, 2, 2, padding=((0, 1), (0, 1))), ""),
    "mb1ic2ih6oc3oh6kh4ph2": (ConvSpec(1, 2, 6, 6, 3, 4, 4, padding=((2, 1), (2, 1))), ""),
    "mb1ic2ih224oc3oh112kh3sh2ph0": (
        ConvSpec(1, 2, 224, 224, 3, 3, 3, stride=2, padding=((0, 1), (0, 1))),
        "",
    ),
    "mb1ic2ih8oc3oh2kh3sh3": (ConvSpec(1, 2, 8, 8, 3, 3, 3, stride=3), ""),
    # keys come in any order
    "kh3oc3ih6mb1ic2": (ConvSpec(1, 2, 6, 6, 3, 3, 3), ""),
    " mb1ic2ih6oc3kh3\n": (ConvSpec(1, 2, 6, 6, 3, 3, 3), ""),
}


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_read(text: str, expected: tuple[ConvSpec, str]) -> None:
    spec = ConvSpec.parse(text)
    assert (spec, spec.name) == expected
    assert ConvSpec.parse(spec.descriptor) == spec


POOLS_READ = {
    'mb32ic6ih24oh12kh2sh2n"lenet:pool1"': PoolSpec("max", 32, 6, 24, 24, 2, 2),
    "ic64ih112oh56kh3sh2ph1": PoolSpec("max", 2, 64, 112, 112, 3, 3, stride=2, padding=1),
    "mb1ic2ih6kh3sh2cm1": PoolSpec("max", 1, 2, 6, 6, 3, 3, stride=2, ceil_mode=True),
    "mb1ic2ih6kh3ph1cp0": PoolSpec("max", 1, 2, 6, 6, 3, 3, stride=1, padding=1, count_include_pad=False),
    "mb1ic2iw9kw3sw3": PoolSpec("max", 1, 2, 1, 9, 1, 3, stride=(1, 3)),
}


@pytest.mark.parametrize(("text", "spec"), POOLS_READ.items())
def test_read_pools(text: str, spec: PoolSpec) -> None:
    assert PoolSpec.parse(text) == spec
    assert PoolSpec.parse(text, "avg").mode == "avg"


# In the form that `descriptor` writes: shortest, the batch always given.
CANONICAL = [
    'mb32ic6ih12oc16oh8kh5n"lenet:conv2"',
    'mb2ic3ih227oc96oh55kh11sh4n"alexnet:conv1"',
    "g32mb1ic32ih112oc32oh112kh3ph1",
    'mb1ic3ih5oc4oh3kh3n"block:conv"*3',
    'mb1ic3ih5oc4oh3kh3n""*2',
    "mb1ic2ih8iw7oc3oh3ow5kh3kw2sh3sw1ph1pw0dh0dw1",
    "mb4ic3iw9oc4ow7kw3",
    "mb4ic3iw9oc4ow9kw3pw2",
    "mb0ic3ih5oc4oh3kh3",
]


@pytest.mark.parametrize("text", CANONICAL)
def test_read_and_written_back(text: str) -> None:
    assert ConvSpec.parse(text).descriptor == text


def test_the_example_of_the_documentation() -> None:
    spec = ConvSpec.parse('mb32ic6ih12oc16oh8kh5n"lenet:conv2"')
    assert spec == ConvSpec(32, 6, 12, 12, 16, 5, 5)
    assert (spec.name, spec.repeat) == ("lenet:conv2", 1)
    assert spec.descriptor == 'mb32ic6ih12oc16oh8kh5n"lenet:conv2"'


@pytest.mark.parametrize(
    ("label", "name", "repeat"),
    [
        ('n"a:b c"', "a:b c", 1),
        ("na:b_c", "a:b_c", 1),
        ('n"x"*3', "x", 3),
        ("nx*3", "x", 3),
        ("n*12", "", 12),
        ('n""', "", 1),
        ('n"star*2"', "star*2", 1),
        ('n"ic9"', "ic9", 1),
        ("", "", 1),
    ],
)
def test_names_and_repeats(label: str, name: str, repeat: int) -> None:
    spec = ConvSpec.parse(f"mb1ic1ih3oc1kh3{label}")
    assert (spec.name, spec.repeat) == (name, repeat)
    again = ConvSpec.parse(spec.descriptor)
    assert (again.name, again.repeat) == (name, repeat)


@pytest.mark.parametrize("name", ['a"b', "a\nb", "*", "ünïcode"])
def test_a_name_comes_back_or_is_refused(name: str) -> None:
    """What is written can be read: a name that the grammar has no room for is no name."""
    try:
        spec = ConvSpec(1, 1, 4, 4, 1, 2, 2, name=name)
    except ValueError as error:
        assert "name" in str(error)  # noqa: PT017  both outcomes are right
    else:
        assert ConvSpec.parse(spec.descriptor).name == name


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_of_the_tests_comes_back(layer: str) -> None:
    """Padding at the end that no window reaches cannot be told from none; everything else can."""
    spec = LAYERS[layer]
    again = ConvSpec.parse(spec.descriptor) if layer in CONVS else PoolSpec.parse(spec.descriptor, spec.mode)
    assert (again.x_shape, again.y_shape, again.flops) == (spec.x_shape, spec.y_shape, spec.flops)
    assert [axis[0] for axis in again.padding] == [axis[0] for axis in spec.padding]
    if layer in POOLS:
        assert (again.divisors == spec.divisors).all()


def test_flops_count_taps_on_the_input_only() -> None:
    """6x6 under a padded 3x3: the windows at an edge see two of three rows, hence 2 + 4 x 3 + 2 of 18."""
    dense = ConvSpec.parse("mb1ic2ih6oc3oh4kh3")
    assert dense.flops == 2 * 2 * 3 * (4 * 3) ** 2
    padded = ConvSpec.parse("mb1ic2ih6oc3oh6kh3ph1")
    assert padded.flops == 2 * 2 * 3 * 16**2
    # AlexNet's first layer has no padding: all products count.
    assert ConvSpec.parse("mb1ic3ih227oc96oh55kh11sh4").flops == 2 * 96 * 3 * (55 * 11) ** 2
    depthwise = ConvSpec.parse("g32mb1ic32ih112oc32oh112kh3ph1")
    assert depthwise.flops == 2 * 32 * (3 * 112 - 2) ** 2


BAD = {
    "unknown key": ("mb1ic3ih5oc4kh3zz4", "unknown key 'zz' at 'zz4'; expected one of g, mb, ic, oc,"),
    "pooling's key": ("mb1ic3ih5oc4kh3cm1", "unknown key 'cm'"),
    "no channels": ("mb1ih5kh3", "ic and oc missing; expected the channels"),
    "no filters": ("mb1ic3ih5kh3", "oc missing; expected the channels"),
    "no input size": ("mb1ic3oc4kh3", "ih missing; expected input and kernel sizes"),
    "no kernel size": ("mb1ic3oc4ih5", "kh missing; expected input and kernel sizes"),
    "no sizes": ("mb1ic3oc4", "missing; expected input and kernel sizes"),
    "no width": ("mb1ic3oc4kw3", "iw missing; expected input and kernel sizes"),
    "twice": ("mb1ic3ih5ic3oc4kh3", "ic is given twice; expected once"),
    "output against padding": (
        "mb1ic3ih5oc4oh3kh3ph1",
        "oh3 does not follow from ih5 kh3 sh1 ph1 dh0; expected",
    ),
    "output too small": ("mb1ic3ih5oc4oh2kh3", "oh2 does not follow from ih5 kh3 sh1 ph0 dh0; expected oh3"),
    "output zero": ("mb1ic3ih5oc4oh0kh3", "oh0 does not follow from ih5 kh3 sh1 ph0 dh0; expected oh3"),
    "zero input": ("mb1ic3ih0oc4kh3", "ih0 kh3 sh1; expected 1 or more"),
    "zero kernel": ("mb1ic3ih5oc4kh0", "ih5 kh0 sh1; expected 1 or more"),
    "zero stride": ("mb1ic3ih5oc4kh3sh0", "ih5 kh3 sh0; expected 1 or more"),
    "negative": ("mb1ic3ih5oc4kh3ph-1", "cannot read 'ph-1'; expected a key with a number"),
    "no number": ("mb1ic3ih5oc4kh", "cannot read 'kh'; expected a key with a number"),
    "a fraction": ("mb1ic3ih5.5oc4kh3", "cannot read '.5oc4kh3'; expected a key with a number"),
    "blank inside": ("mb1ic3 ih5oc4kh3", "cannot read ' ih5oc4kh3'"),
    "open quote": ('mb1ic3ih5oc4kh3n"conv', "cannot read 'n\"conv'"),
    "after the name": ('mb1ic3ih5oc4kh3n"conv"kh3', "cannot read"),
    "repeat without a name": ("mb1ic3ih5oc4kh3*3", "cannot read '*3'"),
    "empty": ("", "ic and oc missing"),
    "blank": ("  ", "ic and oc missing"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"^descriptor ") as caught:
        ConvSpec.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    assert words in message
    assert "\n" not in message


# The layer itself is none; its own error says which number is at fault.
NO_LAYER = {
    "mb1ic0ih5oc4kh3": "0; expected",
    "mb1ic3ih5oc0kh3": "0; expected",
    "g0mb1ic3ih5oc4kh3": "0; expected",
    "g2mb1ic3ih5oc4kh3": "groups is 2 and does not divide the 3 channels of x; expected a divisor",
    "mb1ic3ih5oc4kh6": "larger than the padded input 5x5; expected",
    'mb1ic3ih5oc4kh3n"a"*0': "repeat is 0; expected a positive int",
}


@pytest.mark.parametrize(("text", "words"), NO_LAYER.items())
def test_layers_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        ConvSpec.parse(text)
    assert words in str(caught.value)


def test_pools_refuse_filters() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'oc' at 'oc4kh3'; expected one of mb, ic, ih"):
        PoolSpec.parse("mb1ic3ih5oc4kh3")


@pytest.mark.parametrize("text", [None, 3, b"mb1ic3ih5oc4kh3", ["mb1"]])
@pytest.mark.parametrize("spec", [ConvSpec, PoolSpec])
def test_no_string(spec, text) -> None:
    with pytest.raises(
        TypeError, match=r"^descriptor is .*; expected a string like 'mb32ic6ih12oc16oh8kh5'$"
    ):
        spec.parse(text)
