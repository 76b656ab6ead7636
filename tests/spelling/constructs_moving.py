"""Constructs that move elements, mix positions, reduce features, and unroll over time."""

from __future__ import annotations

from tests.spelling.constructs import Draw, construct
from tests.spelling.program import channel_axis


@construct("c tc ct chw")
def channels_by_index(d: Draw, x: int) -> int:
    size = d.channels(x)
    which = d.choose((tuple(range(size))[::-1], (0, *range(size)), (size - 1, 0)))
    return d.take(x, channel_axis(d.layout(x)), which)


@construct("c tc ct chw")
def first_channels(d: Draw, x: int) -> int:
    return d.slice(x, channel_axis(d.layout(x)), 0, (d.channels(x) + 1) // 2)


@construct("c tc ct chw")
def two_halves(d: Draw, x: int) -> int:
    h = d.layer(x, 4)
    axis = channel_axis(d.layout(h))
    left, right = d.slice(h, axis, 0, 2), d.slice(h, axis, 2, 4)
    return d.cat([d.any_act(left), right], axis)


@construct("ct chw")
def channel_shuffle(d: Draw, x: int) -> int:
    return d.shuffle(d.layer(x, 4), 2)


@construct("chw")
def pixel_shuffle(d: Draw, x: int) -> int | None:
    return d.pixel_shuffle(d.conv(x, 4)) if d.shape(x)[1] <= 2 else None


@construct("chw")
def pixel_unshuffle(d: Draw, x: int) -> int | None:
    return d.pixel_unshuffle(x) if d.shape(x)[1] == d.shape(x)[2] == 4 else None


@construct("c tc ct chw")
def padded_channels(d: Draw, x: int) -> int:
    return d.pad(x, channel_axis(d.layout(x)), 0, 1)


@construct("c tc ct chw")
def channels_flipped(d: Draw, x: int) -> int:
    h = d.layer(x)
    other = d.flip(d.any_act(h), channel_axis(d.layout(h)))
    return d.sum(h, other)


@construct("c tc")
def channels_rolled(d: Draw, x: int) -> int:
    h = d.layer(x, 3)
    return d.product(h, d.roll(d.any_act(h), channel_axis(d.layout(h))))


@construct("tc ct chw")
def positions_flipped(d: Draw, x: int) -> int:
    return d.flip(x, d.choose(d.position_axes(x)))


@construct("tc ct chw")
def positions_rolled_and_added(d: Draw, x: int) -> int:
    h = d.layer(x)
    return d.sum(h, d.roll(d.any_act(h), d.position_axes(h)[0]))


@construct("tc ct")
def differences_of_positions(d: Draw, x: int) -> int:
    axis = d.position_axes(x)[0]
    size = d.shape(x)[axis]
    if size < 3:
        return d.roll(x, axis)
    later, earlier = d.slice(x, axis, 1, size), d.slice(x, axis, 0, size - 1)
    return d.sum(later, earlier, factors=(1.0, -1.0))


@construct("tc ct")
def positions_by_index(d: Draw, x: int) -> int:
    axis = d.position_axes(x)[0]
    return d.take(x, axis, (d.shape(x)[axis] - 1, 0))


@construct("tc ct chw")
def positions_repeated(d: Draw, x: int) -> int | None:
    axis = d.position_axes(x)[0]
    return d.repeat(x, axis, 2) if d.shape(x)[axis] < 3 else None


@construct("tc")
def tokens_padded(d: Draw, x: int) -> int:
    return d.linear(d.pad(x, 0, 1, 0), d.size())


@construct("tc ct")
def swapped(d: Draw, x: int) -> int:
    return d.swap(x)


@construct("tc chw")
def flattened(d: Draw, x: int) -> int:
    return d.linear(d.flatten(x), d.size())


@construct("tc")
def windows_of_tokens(d: Draw, x: int) -> int | None:
    return d.linear(d.unfold(x, 2), d.size()) if d.shape(x)[0] > 2 else None


@construct("tc")
def two_streams_of_tokens(d: Draw, x: int) -> int:
    other = d.any_act(d.linear(x, d.channels(x)))
    return d.linear(d.cat([x, other], 0), d.size()) if d.shape(x)[0] < 4 else other


# --- windows --------------------------------------------------------------------------------------


@construct("tc ct chw")
def average_pooling(d: Draw, x: int) -> int | None:
    axes = d.position_axes(x)
    size = 2
    if any(d.shape(x)[axis] < 3 for axis in axes):
        return None
    return d.pool(x, "avg", axes, size, d.choose((1, 2)))


@construct("tc ct chw")
def max_pooling(d: Draw, x: int) -> int | None:
    axes = d.position_axes(x)
    if any(d.shape(x)[axis] < 3 for axis in axes):
        return None
    return d.pool(x, "max", axes, 2, d.choose((1, 2)))


@construct("ct chw")
def pooled_and_resized(d: Draw, x: int) -> int | None:
    axes = d.position_axes(x)
    if any(d.shape(x)[axis] != 4 for axis in axes):
        return None
    pooled = d.pool(x, d.choose(("avg", "max")), axes, 2, 2)
    small = d.any_act(pooled) if d.choose((True, False)) else pooled
    return d.sum(x, d.upsample(small, "nearest"))


@construct("ct chw")
def upsampling(d: Draw, x: int) -> int | None:
    if max(d.shape(x)[1:]) > 2:
        return None
    return d.upsample(x, d.choose(("nearest", "linear")))


@construct("tc ct")
def running_sum(d: Draw, x: int) -> int:
    return d.scan(x, "cumsum", d.position_axes(x)[0])


@construct("tc ct")
def running_sum_beside_its_entry(d: Draw, x: int) -> int:
    h = d.layer(x)
    return d.sum(h, d.any_act(d.scan(h, "cumsum", d.position_axes(h)[0])))


@construct("tc ct")
def running_maximum(d: Draw, x: int) -> int:
    return d.scan(x, "cummax", d.position_axes(x)[0])


@construct("tc ct chw")
def sorted_positions(d: Draw, x: int) -> int:
    return d.scan(x, "sort", d.position_axes(x)[0])


@construct("tc ct chw")
def fft_over_positions(d: Draw, x: int) -> int:
    return d.scan(x, "fft", d.position_axes(x)[0])


@construct("c tc ct chw")
def fft_over_channels(d: Draw, x: int) -> int:
    return d.scan(x, "fft", channel_axis(d.layout(x)))


@construct("c tc")
def sorted_channels(d: Draw, x: int) -> int:
    return d.scan(x, "sort", channel_axis(d.layout(x)))


@construct("c tc ct chw")
def running_sum_of_channels(d: Draw, x: int) -> int:
    return d.scan(d.layer(x, 3), "cumsum", channel_axis(d.layout(x)))


@construct("c tc")
def running_maximum_of_channels(d: Draw, x: int) -> int:
    return d.scan(d.layer(x, 3), "cummax", channel_axis(d.layout(x)))


@construct("c tc ct")
def channels_pooled(d: Draw, x: int) -> int:
    return d.pool(d.layer(x, 4), d.choose(("avg", "max")), [channel_axis(d.layout(x))], 2, 2)


@construct("c tc ct chw")
def reduced_channels(d: Draw, x: int) -> int:
    kind = d.choose(("mean", "sum", "amax", "norm", "logsumexp", "std"))
    reduced = d.reduce(d.layer(x), kind, [channel_axis(d.layout(x))])
    return d.layer(d.any_act(reduced)) if d.choose((True, False)) else d.layer(reduced)


@construct("tc ct chw")
def global_pooling(d: Draw, x: int) -> int:
    axes = d.position_axes(x)
    kind = d.choose(("mean", "amax", "sum", "std"))
    return d.reduce(x, kind, axes, keep=False)


@construct("tc ct chw")
def activation_of_a_pooled_copy(d: Draw, x: int) -> int:
    pooled = d.reduce(d.layer(x), "mean", d.position_axes(x), keep=False)
    return d.any_act(pooled)


# --- over time ------------------------------------------------------------------------------------


@construct("tc")
def recurrent_cell_unrolled(d: Draw, x: int) -> int:
    """h_t = tanh(W x_t + U h_(t-1)): each step has layers of its own."""
    state, states = None, []
    for at in range(d.shape(x)[0]):
        new = d.linear(d.step(x, at), 2)
        state = d.act(new if state is None else d.sum(new, d.linear(state, 2)), "tanh")
        states.append(state)
    return d.stack(states) if d.choose((True, False)) else states[-1]


@construct("tc")
def gated_cell_unrolled(d: Draw, x: int) -> int:
    """A minimal gated unit: h_t = h_(t-1) + z_t * n_t."""
    state, states = d.linear(d.step(x, 0), 2), []
    for at in range(1, min(d.shape(x)[0], 3)):
        token = d.step(x, at)
        update = d.act(d.sum(d.linear(token, 2), d.linear(state, 2)), "sigmoid")
        new = d.act(d.linear(token, 2), "tanh")
        state = d.sum(state, d.product(update, new))
        states.append(state)
    return d.stack(states)


@construct("tc")
def one_token(d: Draw, x: int) -> int:
    return d.step(x, d.choose((0, d.shape(x)[0] - 1)))


@construct("c")
def iterated_outputs(d: Draw, x: int) -> int:
    """out[t] = h in a loop: a layer three times, all its results."""
    states = []
    for _ in range(3):
        x = d.any_act(d.linear(x, d.channels(x)))
        states.append(x)
    return d.stack(states)
