"""Runs some environments of a pgrad run. pgrad starts it and speaks to it; it is not meant to be started by hand.

Descriptor 0 is the socket on which both sides ring and send messages, 1 the shared memory, 2 a pipe that pgrad reads.
A ring is one byte; what is to be done, and what came of it, lies in the shared memory.
"""

import atexit
import ctypes
import difflib
import faulthandler
import json
import math
import mmap
import numbers
import os
import select
import signal
import struct
import sys
import threading
import time
import traceback

# What an environment is asked to do, and how that ended. The same numbers are in batch.rs.
STEP, RESET, REBUILD = 1, 2, 3
RUNNING, TERMINATED, TRUNCATED, RAISED, BAD, PENDING = 0, 1, 2, 8, 9, 255
LONGEST_TRACE = 16_000


class Raised(Exception):
    """What something of the environment raised, as text."""


class BadData(Exception):
    """An environment returned what its spaces do not allow."""


class UnknownName(Exception):
    """There is no environment of that name."""


def die_with(parent):
    """The kernel kills this process, and what its main thread forks, when its parent dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind():
        prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG

    def bind_child():
        # The kernel means the thread that forked. One that is not the main thread may end long before its
        # process, and what it forked must not end with it.
        nonlocal main
        forked_by_main, main = threading.get_ident() == main, threading.get_ident()
        if forked_by_main:
            bind()

    main = threading.get_ident()
    bind()
    if os.getppid() != parent:
        os._exit(0)
    os.register_at_fork(after_in_child=bind_child)


def watch_over_programs():
    """Starts a process that ends what environments have started, when this one is gone.

    Programs that environments start are in its group, but the kernel tells only children of their parent's death. pgrad ends
    the group by itself, as long as it lives; a program that leaves the group is nobody's.
    """
    worker = os.getpid()
    if os.fork():
        return
    # What pgrad asks of the group is not for this process, and it must keep nothing open.
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP})
    os.closerange(0, 1024)
    ctypes.CDLL(None).prctl(1, signal.SIGHUP, 0, 0, 0)  # PR_SET_PDEATHSIG
    while os.getppid() == worker:
        signal.sigwait({signal.SIGHUP})
    os.killpg(0, signal.SIGKILL)


class Control:
    """The socket to pgrad."""

    def __init__(self, fd):
        self.fd = fd

    def byte(self, watch_secs=0):
        if watch_secs:
            look = select.poll()
            look.register(self.fd, select.POLLIN)
            until = time.perf_counter() + watch_secs
            while not look.poll(0) and time.perf_counter() < until:
                os.sched_yield()
        return os.read(self.fd, 1)

    def exactly(self, n):
        parts = []
        while n:
            part = os.read(self.fd, n)
            if not part:
                os._exit(0)
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def message(self):
        return json.loads(self.exactly(struct.unpack("<I", self.exactly(4))[0]))

    def send(self, data):
        while data:
            data = data[os.write(self.fd, data) :]

    def ring(self):
        os.write(self.fd, b".")

    def tell(self, value):
        self.tell_bytes(json.dumps(plain(value), allow_nan=False).encode())

    def tell_bytes(self, text):
        self.send(b"m" + struct.pack("<I", len(text)) + text)


def plain(value):
    """The same with half characters (of a file's name that is not UTF-8) written out: JSON has no place for them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: plain(x) for key, x in value.items()}
    return [plain(x) for x in value] if isinstance(value, (list, tuple)) else value


def trace():
    """What the exception under way says, without our own frame."""
    kind, value, tb = sys.exc_info()
    text = "".join(traceback.format_exception(kind, value, tb.tb_next if tb else None)).strip()
    return text[-LONGEST_TRACE:]


# Spaces


def number(x):
    return repr(float(x))


def finite(x):
    """A number that says something; an infinite return is never reached, and a text is no number."""
    try:
        return float(x) if not isinstance(x, str) and x is not None and math.isfinite(float(x)) else None
    except (TypeError, ValueError, OverflowError):
        return None


def steps(limit):
    """A time limit, or none: also what is less than 1, with which Gymnasium has none, and what is infinite."""
    limit = single(limit)
    if limit is None or isinstance(limit, numbers.Real) and (not limit >= 1 or limit == math.inf):
        return None
    if not isinstance(limit, numbers.Real):
        raise BadData(f"`max_episode_steps` is {describe(limit)}, not a number of steps")
    return min(int(limit), (1 << 63) - 1)


def leaf_of(space, name, spaces, np):
    """Describes a space that is numbers, or says why it is none."""
    what = {"name": name}
    if isinstance(space, spaces.Box):
        kind = np.dtype(space.dtype).kind
        if kind not in "fiub" or np.dtype(space.dtype).itemsize > 8:
            raise BadData(f"{name or 'the space'} is a Box of {space.dtype}, which is no number of at most 8 bytes")
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        alike = low.size > 0 and (low == low[0]).all() and (high == high[0]).all()
        take = 1 if alike else low.size
        what.update(kind="box", dtype=np.dtype(space.dtype).str, shape=list(space.shape), count=int(low.size))
        what.update(low=[number(x) for x in low[:take]], high=[number(x) for x in high[:take]])
    elif isinstance(space, spaces.Discrete):
        what.update(kind="discrete", dtype=np.dtype(space.dtype).str, shape=[], count=1)
        what.update(n=[int(space.n)], start=[int(space.start)])
    elif isinstance(space, spaces.MultiDiscrete):
        n = [int(x) for x in space.nvec.reshape(-1)]
        start = getattr(space, "start", None)
        start = [0] * len(n) if start is None else [int(x) for x in np.asarray(start).reshape(-1)]
        what.update(kind="multi-discrete", dtype=np.dtype(space.dtype).str, shape=list(space.shape))
        what.update(count=len(n), n=n, start=start)
    elif isinstance(space, spaces.MultiBinary):
        count = int(np.prod(space.shape))
        what.update(kind="multi-binary", dtype=np.dtype(space.dtype).str, shape=list(space.shape), count=count)
    else:
        place = f"`{name}` is" if name else "it is"
        raise BadData(
            f"{place} a {type(space).__name__} space; Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of "
            "these can be used"
        )
    return what


def inner(space, name, spaces):
    """The spaces in a Dict or Tuple, each with its key and the way to it; none where the space is a part itself."""
    if isinstance(space, spaces.Dict):
        found = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        found = list(enumerate(space.spaces))
    else:
        return None
    return [(key, s, f"{name}.{key}" if name else str(key)) for key, s in found]


def kept(name, parts):
    """Whether a part is used, of those that are asked for; without any, all are."""
    return not parts or any(name == part or name.startswith(f"{part}.") for part in parts)


def leaves_of(space, name, spaces, np, parts=()):
    """The numbers of a space, part after part, in Gymnasium's order of flattening."""
    found = inner(space, name, spaces)
    if found is None:
        return [leaf_of(space, name, spaces, np)] if kept(name, parts) else []
    return [leaf for _, s, own in found for leaf in leaves_of(s, own, spaces, np, parts)]


def names_of(space, name, spaces, np):
    """The names of all parts, and whether each can be used."""
    found = inner(space, name, spaces)
    if found is not None:
        return [x for _, s, own in found for x in names_of(s, own, spaces, np)]
    try:
        leaf_of(space, name, spaces, np)
        return [(name, True)]
    except BadData:
        return [(name, False)]


def observations_of(space, spaces, np, parts):
    """The numbers of an observation, of the parts that are asked for."""
    names = names_of(space, "", spaces, np)
    for part in parts:
        if not any(kept(name, [part]) for name, _ in names if name):
            there = ", ".join(f"`{name}`" for name, _ in names if name)
            raise UnknownName(f"`obs_parts` has `{part}`; the observation has {f'the parts {there}' if there else 'no parts'}")
    try:
        return leaves_of(space, "", spaces, np, parts)
    except BadData as e:
        usable = ",".join(name for name, can in names if can and kept(name, parts))
        hint = f"; `obs_parts={usable}` uses the others" if usable else ""
        raise BadData(f"the observation space cannot be used: {e}{hint}") from None


def spec_of(env, gymnasium, np, parts=()):
    out = {}
    spec = getattr(env, "spec", None)
    threshold = getattr(spec, "reward_threshold", None)
    out["reward_threshold"] = finite(threshold)
    out["max_episode_steps"] = steps(getattr(spec, "max_episode_steps", None))
    out["observation"] = observations_of(env.observation_space, gymnasium.spaces, np, parts)
    try:
        out["action"] = leaves_of(env.action_space, "", gymnasium.spaces, np)
    except BadData as e:
        raise BadData(f"the action space cannot be used: {e}") from None
    several = gymnasium.spaces.Dict, gymnasium.spaces.Tuple
    out["composite"] = isinstance(env.observation_space, several)
    out["action_composite"] = isinstance(env.action_space, several)
    out["versions"] = f"gymnasium {gymnasium.__version__}, numpy {np.__version__}, python {sys.version.split()[0]}"
    return out


def describe(x):
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{type(x).__name__} of shape {tuple(x.shape)} and dtype {x.dtype}"
    return f"{type(x).__name__} {x!r:.80}"


def where(leaf):
    return f"`{leaf['name']}` of the observation" if leaf["name"] else "the observation"


def array_writer(leaf, memory, np):
    shape, dtype, rows = tuple(leaf["shape"]), np.dtype(leaf["dtype"]), list(memory)
    single = shape == ()
    # Assigning to a view of the memory compares type and length itself, and takes no longer than numpy's
    # copy.
    views = [memoryview(row) for row in rows] if len(shape) == 1 else None

    def put(i, x):
        if views:
            try:
                views[i][:] = x
                return
            except (TypeError, ValueError, BufferError):
                pass
        try:
            if x.shape == shape and x.dtype == dtype:
                if single:
                    memory[i] = x
                else:
                    rows[i][...] = x
                return
        except AttributeError:
            pass
        raise BadData(f"{where(leaf)} is {describe(x)}, its space has shape {shape} and dtype {dtype}")

    return put


def index_writer(leaf, memory, np):
    start, integer = leaf["start"][0], np.integer

    def put(i, x):
        if not isinstance(x, (int, integer)):
            if not (isinstance(x, np.ndarray) and x.shape == () and x.dtype.kind in "iu"):
                raise BadData(f"{where(leaf)} is {describe(x)}, its space has integers")
        if not start <= x < start + leaf["n"][0]:
            raise BadData(f"{where(leaf)} is {int(x)}, its space has {start} to {start + leaf['n'][0] - 1}")
        memory[i] = x

    return put


def writer(space, spaces, leaves, memories, np, parts, name=""):
    """A function that writes an observation of a space for environment i; takes what it needs of the iterators."""
    found = inner(space, name, spaces)
    if found is not None:
        named = isinstance(space, spaces.Dict)
        puts = [(key, writer(s, spaces, leaves, memories, np, parts, own)) for key, s, own in found]

        def put_parts(i, x):
            if named:
                if not isinstance(x, dict) or len(x) != len(puts) or any(k not in x for k, _ in puts):
                    got = sorted(map(str, x)) if isinstance(x, dict) else describe(x)
                    raise BadData(f"the observation has the parts {got}, its space has {[k for k, _ in puts]}")
            elif not isinstance(x, (tuple, list)) or len(x) != len(puts):
                got = len(x) if isinstance(x, (tuple, list)) else describe(x)
                raise BadData(f"the observation has the parts {got}, its space has {len(puts)}")
            for k, put in puts:
                put(i, x[k])

        return put_parts
    if not kept(name, parts):
        return lambda i, x: None
    leaf, memory = next(leaves), next(memories)
    return (index_writer if leaf["kind"] == "discrete" else array_writer)(leaf, memory, np)


def action_reader(space, spaces, leaves, memories):
    """A function that reads an action of a space for environment i; takes what it needs of the iterators."""
    if isinstance(space, spaces.Dict):
        named = [(key, action_reader(s, spaces, leaves, memories)) for key, s in space.spaces.items()]
        return lambda i: {key: read(i) for key, read in named}
    if isinstance(space, spaces.Tuple):
        reads = [action_reader(s, spaces, leaves, memories) for s in space.spaces]
        return lambda i: tuple(read(i) for read in reads)
    leaf, memory = next(leaves), next(memories)
    if leaf["kind"] == "discrete":
        # A number of the space's own type, as `sample` gives.
        return lambda i: memory[i]
    # A copy: an environment may keep what it is given.
    return lambda i: memory[i].copy()


def method_of(env, name):
    """A method of an environment or of one of its wrappers, if there is one."""
    try:
        found = env.get_wrapper_attr(name)
    except AttributeError:
        found = getattr(env.unwrapped, name, None)
    return found if callable(found) else None


def choices_of(space, spaces):
    """Alternatives of each choice, part after part; switches and numbers have no mask."""
    if isinstance(space, spaces.Dict):
        return [n for s in space.spaces.values() for n in choices_of(s, spaces)]
    if isinstance(space, spaces.Tuple):
        return [n for s in space.spaces for n in choices_of(s, spaces)]
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    return [int(n) for n in space.nvec.reshape(-1)] if isinstance(space, spaces.MultiDiscrete) else []


def mask_size(space, spaces):
    return sum(choices_of(space, spaces))


def mask_entries(mask, space, spaces, np, name):
    """The entries of a mask, one for each alternative of each choice: as one array, or in the form that the space's
    `sample` takes, in which None is the mask of a part that is not masked."""
    n = choices_of(space, spaces)
    if not n:
        return [np.ones(0, bool)]
    if isinstance(space, spaces.Dict) and isinstance(mask, dict):
        unknown = sorted(str(key) for key in mask if key not in space.spaces)
        missing = [str(key) for key, s in space.spaces.items() if key not in mask and choices_of(s, spaces)]
        if unknown or missing:
            wrong = f"no `{missing[0]}`" if missing else f"`{unknown[0]}`"
            raise BadData(f"{name} has {wrong}; its action space has the parts {[str(k) for k in space.spaces]}")
        parts = [(mask.get(key), s) for key, s in space.spaces.items()]
    elif isinstance(space, spaces.Tuple) and isinstance(mask, (tuple, list)) and len(mask) == len(space.spaces):
        parts = list(zip(mask, space.spaces))
    elif isinstance(space, spaces.MultiDiscrete) and isinstance(mask, (tuple, list)) and len(mask) == len(n):
        return [zeros_and_ones(x, k, space, np, name) for x, k in zip(mask, n)]
    else:
        return [zeros_and_ones(mask, sum(n), space, np, name)]
    entries = [(own, s) for own, s in parts if choices_of(s, spaces)]
    return [
        x
        for own, s in entries
        for x in ([np.ones(mask_size(s, spaces), bool)] if own is None else mask_entries(own, s, spaces, np, name))
    ]


def zeros_and_ones(x, n, space, np, name):
    try:
        found = np.asarray(x)
    except ValueError:
        raise BadData(f"{name} is {describe(x)}, rows of different lengths; its action space is {space}") from None
    if found.dtype.kind not in "biu":
        raise BadData(f"{name} is {describe(x)}; a mask has numbers of type bool or int, true or 1 for what is allowed")
    if found.size != n:
        raise BadData(f"{name} is {describe(x)}, its action space {space} has {n} alternatives there")
    if not ((found == 0) | (found == 1)).all():
        raise BadData(f"{name} has other numbers than 0 and 1: {describe(x)}")
    return found.reshape(-1) != 0


class Memory:
    """What is shared with pgrad: `at` says where it lies."""

    def __init__(self, fd, at, n, spec, np):
        self.memory, self.n, self.spec, self.np = mmap.mmap(fd, at["size"]), n, spec, np

    def array(self, offset, dtype, shape):
        count = int(self.np.prod(shape, dtype=self.np.int64))
        return self.np.frombuffer(self.memory, dtype, count, offset).reshape(shape)

    def observations(self, offset):
        """An array of each part, from `offset` on."""
        for leaf in self.spec["observation"]:
            yield self.array(offset, leaf["dtype"], (self.n, *leaf["shape"]))
            size = self.np.dtype(leaf["dtype"]).itemsize * leaf["count"] * self.n
            offset += (size + 63) // 64 * 64

    def actions(self, at, n):
        """An array of each part of `n` actions, whose rows of bytes begin at `at["actions"]`."""
        np, step = self.np, at["action_bytes"]
        for leaf, place in zip(self.spec["action"], at["action_places"]):
            shape, dtype = tuple(leaf["shape"]), np.dtype(leaf["dtype"])
            inner = np.empty(shape, dtype).strides
            yield np.ndarray((n, *shape), dtype, self.memory, at["actions"] + place, (step, *inner))

    def view(self, offset, size, kind):
        return memoryview(self.memory)[offset : offset + size].cast(kind)


class Worker:
    """Environments of Gymnasium, one by one."""

    watch_secs = 0

    def __init__(self, control, setup):
        import gymnasium
        import numpy as np

        self.control, self.gymnasium, self.np = control, gymnasium, np
        self.id, self.kwargs, self.n = setup["id"], json.loads(setup["kwargs"]), setup["n"]
        if setup["drawn"]:
            self.kwargs = {"render_mode": "rgb_array"} | self.kwargs
        kinds = (np.integer, np.floating, np.bool_)
        # Others are looked at more closely.
        self.reals = frozenset([float, int, bool, *(t for t in np.sctypeDict.values() if issubclass(t, kinds))])
        self.envs = [self.make() for _ in range(self.n)]
        self.parts = setup["parts"]
        self.spec = spec_of(self.envs[0], gymnasium, np, self.parts)
        self.masks, note = (setup["masks"], None) if setup["masks"] != "look" else self.look_for_masks()
        self.spec.update(masks=self.masks, note=note)

    def look_for_masks(self):
        """Where action masks come from, and what is to be said of it; this process is there to look, and its
        environment may be reset for it."""
        env, spaces = self.envs[0], self.gymnasium.spaces
        if not mask_size(env.action_space, spaces):
            return "none", None
        if method_of(env, "action_masks"):
            return "method", None
        for again in (True, False):
            try:
                _, info = self.envs[0].reset(seed=0)
                return ("info" if isinstance(info, dict) and "action_mask" in info else "none"), None
            except BaseException:
                why = trace().splitlines()[-1]
                if again and not self.rebuild(0, []):
                    break
        return "none", (
            f"action masks of `info` are not used: whether there are any is not known, since the first reset failed ({why})"
        )

    def frame(self, i):
        env = self.envs[i]
        return env.render(), env.metadata.get("render_fps") or 30

    def make(self):
        return self.gymnasium.make(self.id, disable_env_checker=True, **self.kwargs)

    def share(self, fd, at):
        np, n = self.np, self.n
        memory = Memory(fd, at, n, self.spec, np)
        arrays = memory.observations
        space, spaces = self.envs[0].observation_space, self.gymnasium.spaces
        leaves, parts = self.spec["observation"], self.parts
        self.put = writer(space, spaces, iter(leaves), arrays(at["obs"]), np, parts)
        self.put_first = writer(space, spaces, iter(leaves), arrays(at["first"]), np, parts)
        actions = self.envs[0].action_space
        self.action = action_reader(actions, spaces, iter(self.spec["action"]), memory.actions(at, n))
        self.put_mask = self.mask_writer(memory.array(at["masks"], "?", (n, at["mask_dim"])))
        self.put_first_mask = self.mask_writer(memory.array(at["first_masks"], "?", (n, at["mask_dim"])))
        self.todo = memory.view(at["todo"], n, "B")
        self.status = memory.view(at["status"], n, "B")
        self.first_status = memory.view(at["first_status"], n, "B")
        self.seeds = memory.view(at["seeds"], 8 * n, "q")
        self.rewards = memory.view(at["rewards"], 8 * n, "d")

    def mask_of(self, i, info, name):
        """The mask of environment i, as it says it."""
        if self.masks == "method":
            try:
                mask = method_of(self.envs[i], "action_masks")()
            except BaseException:
                raise Raised(trace()) from None
        elif isinstance(info, dict) and "action_mask" in info:
            mask = info["action_mask"]
        else:
            raise BadData(f"{name} is missing, which was there after the first reset")
        if mask is None:
            raise BadData(f"{name} is None, not an array with an entry for each alternative")
        return mask

    def mask_writer(self, rows):
        """A function that writes the mask of environment i; none without masks."""
        np, spaces, space = self.np, self.gymnasium.spaces, self.envs[0].action_space
        if self.masks == "none":
            return None
        starts = np.cumsum([0, *choices_of(space, spaces)[:-1]])
        name = "`action_masks()`" if self.masks == "method" else '`info["action_mask"]`'

        def put(i, info, over=False):
            try:
                flat = np.concatenate(mask_entries(self.mask_of(i, info, name), space, spaces, np, name))
            except Exception:
                if not over:
                    raise
                # Nothing is chosen after the end.
                rows[i] = True
                return
            some = np.logical_or.reduceat(flat, starts)
            if not some.all():
                if not over:
                    which = f" for choice {some.tolist().index(False)}" if len(starts) > 1 else ""
                    raise BadData(f"{name} allows no action{which}; at least one must be allowed until the episode ends")
                flat = flat | np.repeat(~some, np.diff([*starts, flat.size]))
            rows[i] = flat

        return put

    def work(self):
        """Does what is asked of each environment; what went wrong."""
        reals = self.reals
        todo, status, rewards, put, action = self.todo, self.status, self.rewards, self.put, self.action
        put_mask = self.put_mask
        errors = []
        for i in range(self.n):
            do = todo[i]
            if do == STEP:
                try:
                    result = self.envs[i].step(action(i))
                except BaseException:
                    errors.append({"env": i, "during": "step", "text": trace()})
                    status[i] = RAISED
                    continue
                try:
                    obs, reward, terminated, truncated, info = result
                    put(i, obs)
                    rewards[i] = reward if reward.__class__ in reals else real(reward)
                    if terminated is False and truncated is False:
                        if put_mask:
                            put_mask(i, info)
                        status[i] = RUNNING
                        continue
                    over = flag(terminated, "terminated"), flag(truncated, "truncated")
                    if put_mask:
                        put_mask(i, info, any(over))
                except Raised as e:
                    errors.append({"env": i, "during": "step", "text": str(e)})
                    status[i] = RAISED
                    continue
                except Exception as e:
                    errors.append({"env": i, "during": "step", "bad": True, "text": said(e, result)})
                    status[i] = BAD
                    continue
                if not any(over):
                    status[i] = RUNNING
                    continue
                # The final observation is safe where it is; the next episode begins in another place.
                status[i] = TERMINATED if over[0] else TRUNCATED
                self.first_status[i] = self.begin(i, self.put_first, self.put_first_mask, errors)
            elif do:
                if do == REBUILD and not self.rebuild(i, errors):
                    status[i] = RAISED
                else:
                    status[i] = self.begin(i, put, put_mask, errors)
        return errors

    def begin(self, i, put, put_mask, errors):
        """Resets environment i."""
        try:
            result = self.envs[i].reset(seed=self.seeds[i])
        except BaseException:
            errors.append({"env": i, "during": "reset", "text": trace()})
            return RAISED
        try:
            obs, info = result
            put(i, obs)
            if put_mask:
                put_mask(i, info)
        except Raised as e:
            errors.append({"env": i, "during": "reset", "text": str(e)})
            return RAISED
        except Exception as e:
            errors.append({"env": i, "during": "reset", "bad": True, "text": said(e, result)})
            return BAD
        return RUNNING

    def rebuild(self, i, errors):
        try:
            self.envs[i].close()
        except BaseException:
            errors.append({"env": i, "during": "close", "text": trace()})
        try:
            self.envs[i] = self.make()
            return True
        except BaseException:
            errors.append({"env": i, "during": "making", "text": trace()})
            return False

    def close(self):
        errors = []
        for i, env in enumerate(self.envs):
            try:
                env.close()
            except BaseException:
                errors.append({"env": i, "during": "close", "text": trace()})
            # Closed, and the next one has its own time.
            self.status[i] = RUNNING
        return errors


class Pool:
    """The environments of an EnvPool, stepped in one call.

    Which of them are stepped or reset with which actions, and what that means for the run, is pgrad's business
    (turns.rs): here it is handed on, and what comes back is compared with what was said of it. Little is done here because
    Python does it slowly: 16 CartPoles are stepped in 50 us.

    A call of EnvPool that raises ends this process: nobody knows then how its environments stand.
    """

    # Keys of what EnvPool returns, and their types.
    COLUMNS = (
        ("info:env_id", "i4"),
        ("step_type", "i4"),
        ("done", "?"),
        ("trunc", "?"),
        ("reward", "f4"),
    )
    def __init__(self, control, setup):
        import envpool
        import gymnasium
        import numpy as np

        self.control, self.np, self.n = control, np, setup["n"]
        # How long to look for what is asked next before sleeping: waking up takes as long.
        self.watch_secs = 50e-6 if setup["pool"]["watched"] else 0
        name, n = setup["id"], self.n
        tasks = envpool.list_all_envs()
        if name not in tasks:
            near = difflib.get_close_matches(name, tasks, 3)
            meant = f"; did you mean {' or '.join(f'`{x}`' for x in near)}?" if near else ""
            raise UnknownName(f"EnvPool {envpool.__version__} has no task `{name}`{meant}")
        threads, seeds = setup["pool"]["threads"], setup["pool"]["seeds"]
        own = json.loads(setup["kwargs"])
        if setup["drawn"]:
            own = {"render_mode": "rgb_array"} | own
        kwargs = dict(num_envs=2 * n, num_threads=threads, seed=seeds, **own)
        pool = envpool.make(name, env_type="gymnasium", **kwargs)
        # The arrays as they are: what is built around them in `step` costs as much as 16 CartPoles.
        lacking = [x for x in ("_send", "_recv", "_reset", "_to", "_state_keys") if not hasattr(pool, x)]
        if lacking:
            raise BadData(f"EnvPool {envpool.__version__} lacks {lacking}; version 1.2.5 has them")
        if pool.config.get("max_num_players", 1) != 1:
            raise BadData("it has several players")
        self.pool = pool
        keys = list(pool._state_keys)
        self.columns = [(keys.index(key), key, dtype) for key, dtype in self.COLUMNS]
        self.obs_key = keys.index("obs") if "obs" in keys else None
        self.space = pool.observation_space
        self.composite = isinstance(self.space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple))
        self.spec = self.describe(envpool, gymnasium)
        pool._reset(np.arange(2 * n, dtype=np.int32))
        self.start = pool._recv()
        for leaf, x in zip(self.spec["observation"], self.parts(self.start)):
            if x.dtype.kind in "fiub":
                # The space of some tasks says something else, or nothing of the size.
                leaf["dtype"] = x.dtype.str

    def describe(self, envpool, gymnasium):
        np, pool = self.np, self.pool
        spec = spec_of(pool, gymnasium, np)
        if len(spec["action"]) > 1:
            raise BadData(f"the action space cannot be used: it is {pool.action_space}, and EnvPool's must have one part")
        array = list(pool.spec.action_array_spec.values())[-1]
        spec["action"][0]["dtype"] = np.dtype(array.dtype).str
        limit = pool.config.get("max_episode_steps")
        # Its largest number says that there is none.
        spec["max_episode_steps"] = None if limit is None or limit >= (1 << 31) - 1 else steps(limit)
        threshold = pool.config.get("reward_threshold")
        spec["reward_threshold"] = finite(threshold)
        spec["versions"] = f"envpool {envpool.__version__}, {spec['versions']}"
        spec.update(masks="none", note=None)
        for leaf in spec["observation"]:
            if leaf["kind"] == "box" and np.dtype(leaf["dtype"]).kind == "f":
                # EnvPool takes the smallest positive number for the lowest one.
                info = np.finfo(leaf["dtype"])
                leaf["low"] = ["-inf" if x == number(info.tiny) else x for x in leaf["low"]]
                leaf["high"] = ["inf" if x == number(info.max) else x for x in leaf["high"]]
        return spec

    def parts(self, state):
        """The arrays of the observations, part after part."""
        if self.obs_key is not None and not self.composite:
            return [state[self.obs_key]]

        def walk(space, x):
            inner = getattr(space, "spaces", None)
            if inner is None:
                return [x]
            keys = list(inner) if hasattr(inner, "keys") else range(len(inner))
            return [leaf for k in keys for leaf in walk(inner[k], x[k])]

        return walk(self.space, self.pool._to(state, True, True)[0])

    def share(self, fd, at):
        np, n, at = self.np, 2 * self.n, at | at["pool"]
        memory = Memory(fd, at, n, self.spec, np)
        self.command, self.count = memory.view(at["command"], 1, "B"), memory.view(at["count"], 8, "q")
        self.ids = memory.array(at["ids"], "i4", (n,))
        (self.actions,) = memory.actions(at, n)
        # How an array is called, which one it is (`None`: a part of the observation), its place, its rows'
        # shape.
        self.out = [
            (f"the column `{key}`", column, memory.array(at[key], dtype, (n,)), ())
            for column, key, dtype in self.columns
        ]
        arrays = memory.observations(at["obs"])
        self.out += [
            (f"{where(leaf)} of all", None, array, tuple(leaf["shape"]))
            for leaf, array in zip(self.spec["observation"], arrays)
        ]
        self.views = {}
        self.take(self.start, n)

    def of(self, k):
        """Views of the first `k` rows of everything: cutting them anew takes longer than copying them."""
        if k not in self.views:
            out = [(name, column, x[:k], (k, *shape), x.dtype) for name, column, x, shape in self.out]
            self.views[k] = (self.ids[:k], self.actions[:k], out)
        return self.views[k]

    def work(self):
        k = self.count[0]
        ids, actions, _ = self.of(k)
        if self.command[0] == STEP:
            self.pool._send([ids, ids, actions])
        else:
            self.pool._reset(ids)
        try:
            self.take(self.pool._recv(), k)
            return []
        except BadData as e:
            return [{"env": 0, "during": "step", "bad": True, "text": str(e)}]

    def frame(self, i):
        # It does not say how fast its time is.
        return self.pool.render(env_ids=self.np.array([i], self.np.int32))[0], 30

    def take(self, state, k):
        parts = iter(self.parts(state))
        for name, column, to, shape, dtype in self.of(k)[2]:
            x = next(parts) if column is None else state[column]
            if x.shape != shape or x.dtype != dtype:
                raise BadData(f"{name} is {describe(x)}, and should be of shape {shape} and dtype {dtype}")
            to[...] = x

    def close(self):
        return []


def serve(worker):
    """Does what pgrad asks for, until it asks for no more."""
    control = worker.control
    while True:
        byte = control.byte(worker.watch_secs)
        if byte == b"s":
            errors = worker.work()
            if errors:
                control.tell(errors)
            else:
                control.ring()
        elif byte == b"p":
            control.exactly(1)
            draw(worker, control.message()["env"])
        elif byte == b"q":
            control.tell(worker.close())
            return
        else:
            # pgrad is gone.
            return


def draw(worker, i):
    """Tells what environment `i` looks like."""
    control = worker.control
    try:
        frame, fps = worker.frame(i)
    except BaseException:
        control.tell({"failed": f"drawing it raised\n{trace()}"})
        return
    if getattr(frame, "ndim", 0) != 3 or frame.shape[2] != 3 or frame.dtype != "u1":
        control.tell({"failed": f"its picture is {describe(frame)}, not rows of pixels of red, green and blue"})
        return
    fps = finite(fps)
    control.tell({"width": frame.shape[1], "height": frame.shape[0], "fps": fps if fps and fps > 0 else 30})
    control.tell_bytes(frame.tobytes())


def single(x):
    """What an array without dimensions (of whatever library) holds; everything else as it is."""
    return x.item() if getattr(x, "shape", None) == () and hasattr(x, "item") else x


def real(reward):
    value = single(reward)
    if isinstance(value, numbers.Real):
        return float(value)
    raise BadData(f"the reward is {describe(reward)}, not a number")


def flag(x, name):
    value = single(x)
    if value is True or value is False:
        return value
    raise BadData(f"`{name}` is {describe(x)}, not True or False")


def said(e, result):
    if isinstance(e, BadData):
        return str(e)
    if isinstance(result, tuple):
        return f"it returned {len(result)} values that cannot be used ({type(e).__name__}: {e})"
    return f"it returned {describe(result)}, not a tuple"


def end_tracker():
    """Waits until the process that removes what `multiprocessing` has left behind is done: its group is about to end."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    if getattr(tracker, "_fd", None) is not None:
        tracker._stop()


def main():
    # What is registered first is done last.
    atexit.register(end_tracker)
    die_with(int(sys.argv[1]))
    watch_over_programs()
    control, memory = Control(os.dup(0)), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    faulthandler.enable(file=2)
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    sys.argv = ["pgrad-worker"]
    control.exactly(1)
    setup = control.message()
    try:
        worker = (Pool if "pool" in setup else Worker)(control, setup)
    except BaseException as e:
        causes = [c for c in (e, e.__cause__) if isinstance(c, ModuleNotFoundError)]
        missing = next((c.name for c in causes if c.name), None)
        bad = isinstance(e, BadData)
        told = isinstance(e, (BadData, UnknownName))
        names = [c.__name__ for c in type(e).__mro__]
        control.tell({"failed": str(e) if told else trace(), "missing": missing, "bad": bad, "kinds": names})
        os._exit(1)
    control.tell({"spec": worker.spec})
    if control.byte() != b"m":
        os._exit(0)
    worker.share(memory, control.message())
    control.ring()
    serve(worker)
    # What follows is an ordinary exit, with all that Python and the environments do then.


main()
