import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ganjax.parallel.mesh import make_mesh
from ganjax.parallel.rules import REPLICATE, Rule, fsdp, name_of, replicate, shardings, whole


@flax.struct.dataclass
class Player:
    params: object
    collections: object
    optimizer: object


@flax.struct.dataclass
class State:
    step: object
    players: object
    ema: object


def shape(*dimensions):
    return jax.ShapeDtypeStruct(dimensions, jnp.float32)


def example():
    """The shapes of a state whose players have parameters of the same names."""

    def player(width):
        params = {
            "linear": {"kernel": shape(4, width), "bias": shape(width)},
            "experts": {"kernel": shape(8, width, 3)},
        }
        adam = optax.chain(optax.clip(1.0), optax.adam(1e-3))
        return Player(
            params=params,
            collections={"batch_stats": {"mean": shape(width)}},
            optimizer={"all": jax.eval_shape(adam.init, params)},
        )

    g, d = player(16), player(24)
    return State(step=shape(), players={"g": g, "d": d}, ema={"params": g.params})


RULES = (
    Rule("experts/", P("expert")),
    Rule("^g/params/.*kernel", P(None, "data")),
    Rule("", replicate),
)


def specs(tree, rules, mesh):
    placed = shardings(tree, rules, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
    leaves, _ = jax.tree_util.tree_flatten_with_path(placed)
    assert all(sharding.mesh == mesh for _, sharding in leaves)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): s.spec for p, s in leaves}


def test_without_rules_all_is_replicated():
    mesh = make_mesh()
    assert set(specs(example(), (), mesh).values()) == {P()}
    assert specs(example(), (), mesh) == specs(example(), REPLICATE, mesh)


def test_the_first_rule_that_matches_places_a_parameter():
    found = specs(example(), RULES, make_mesh({"data": -1, "expert": 4}))
    assert found["players/g/params/experts/kernel"] == P("expert")
    assert found["players/d/params/experts/kernel"] == P("expert")
    assert found["ema/params/experts/kernel"] == P("expert")
    assert found["players/g/params/linear/kernel"] == P(None, "data")
    assert found["players/d/params/linear/kernel"] == P()
    assert found["players/g/collections/batch_stats/mean"] == P()


def test_an_optimizer_follows_its_parameter():
    found = specs(example(), RULES, make_mesh({"data": -1, "expert": 4}))
    moments = [name for name in found if "/mu/" in name or "/nu/" in name]
    assert len(moments) == 12
    for name in moments:
        player, parameter = name.split("/")[1], name.rsplit("u/", 1)[1]
        assert found[name] == found[f"players/{player}/params/{parameter}"], name
    assert found["players/g/optimizer/all/1/0/count"] == P()


def test_an_optimizer_state_of_another_shape_has_a_name_of_its_own():
    params = {"kernel": shape(256, 128)}
    factored = jax.eval_shape(optax.scale_by_factored_rms().init, params)
    state = State(step=shape(), players={"g": Player(params, {}, {"all": factored})}, ema={})
    found = specs(state, RULES, make_mesh())
    assert found["players/g/params/kernel"] == P(None, "data")
    assert found["players/g/optimizer/all/v_row/kernel"] == P()  # its shape is (256,)


def test_scalars_need_no_rule():
    state = State(step=shape(), players={}, ema={"params": {"w": shape(8)}})
    assert specs(state, (Rule("w", P("data")),), make_mesh())["step"] == P()


def test_names_of_rules():
    assert name_of("players/g/params/linear/kernel") == "g/params/linear/kernel"
    assert name_of("players/d/collections/spectral/u") == "d/spectral/u"
    assert name_of("ema/params/linear/kernel") == "ema/params/linear/kernel"


def test_an_unmatched_parameter_is_an_error():
    with pytest.raises(ValueError) as error:
        shardings(example(), (Rule("kernel", replicate),), make_mesh())
    for words in ("'d/params/linear/bias'", "(24,)", "'kernel'", "Rule('', replicate)"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (P("expert"), r"dimension 0 of parameter 'ema/params/w' of shape \(6, 8\) over expert = 4"),
        (P(None, ("data", "expert", "fsdp")), r"axis 'fsdp'; the mesh has .*config.mesh.fsdp"),
        (P(("data", "expert")), r"over data\*expert = 8 devices, which does not divide 6"),
        (P(None, None, "data"), r"of shape \(6, 8\) by .* 3 dimensions. Give at most 2"),
        (P("model"), "axis 'model'"),
    ],
)
def test_a_place_that_does_not_fit_names_parameter_shape_and_axis(place, words):
    state = State(step=shape(), players={}, ema={"params": {"w": shape(6, 8)}})
    with pytest.raises(ValueError, match=words):
        shardings(state, (Rule("w", place),), make_mesh({"data": -1, "expert": 4}))


@pytest.mark.parametrize(
    ("dimensions", "spec"),
    [
        ((3, 3, 64, 128), P(None, None, None, "fsdp")),  # the largest
        ((3, 3, 128, 128), P(None, None, None, "fsdp")),  # the last of equals
        ((3, 3, 130, 128), P(None, None, None, "fsdp")),  # the largest that divides
        ((512, 130), P("fsdp")),
        ((16, 16), P()),  # small
        ((257, 263), P()),  # indivisible
        ((2**12,), P("fsdp")),
        ((2**12 - 4,), P()),
    ],
)
def test_fsdp_splits_what_is_large(dimensions, spec):
    mesh = make_mesh({"data": -1, "fsdp": 4})
    assert fsdp()(dimensions, mesh) == spec
    assert fsdp()(dimensions, make_mesh()) == P()  # no such axis


def test_fsdp_over_another_axis_and_from_another_size():
    assert fsdp("data", min_size=16)((4, 8), make_mesh()) == P(None, "data")


def test_fsdp_lightens_each_device():
    mesh = make_mesh({"data": 1, "fsdp": -1})
    tree = {"params": {"w": jnp.ones((64, 32)), "b": jnp.ones(5)}}
    placed = jax.device_put(tree, shardings(tree, (Rule("", fsdp(min_size=64)),), mesh))
    assert {s.data.shape for s in placed["params"]["w"].addressable_shards} == {(8, 32)}
    assert {s.data.shape for s in placed["params"]["b"].addressable_shards} == {(5,)}
    gathered = whole(placed)
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(gathered))
    np.testing.assert_array_equal(gathered["params"]["w"], tree["params"]["w"])


def test_every_axis_is_gathered():
    mesh = make_mesh({"data": 1, "expert": 2, "fsdp": 4})
    split = jax.device_put(jnp.ones((4, 8)), NamedSharding(mesh, P("expert", "fsdp")))
    assert {s.data.shape for s in whole({"w": split})["w"].addressable_shards} == {(4, 8)}
