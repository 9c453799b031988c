"""Runs some environments of a pgrad run. pgrad starts it and speaks to it; it is not meant to be started by hand.

Descriptor 0 is the socket on which both sides ring and send messages, 1 the shared memory, 2 a pipe that pgrad reads.
A ring is one byte; what is to be done, and what came of it, lies in the shared memory.
"""

import ctypes
import faulthandler
import json
import mmap
import os
import signal
import struct
import sys
import traceback

# What an environment is asked to do, and how that ended. The same numbers are in batch.rs.
STEP, RESET, REBUILD = 1, 2, 3
RUNNING, TERMINATED, TRUNCATED, RAISED, BAD, PENDING = 0, 1, 2, 8, 9, 255
LONGEST_TRACE = 16_000


class BadData(Exception):
    """An environment returned what its spaces do not allow."""


def die_with(parent):
    """The kernel kills this process, and what it forks, when its parent dies."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def bind():
        prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG

    bind()
    if os.getppid() != parent:
        os._exit(0)
    os.register_at_fork(after_in_child=bind)


class Control:
    """The socket to pgrad."""

    def __init__(self, fd):
        self.fd = fd

    def byte(self):
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
        text = json.dumps(value).encode()
        self.send(b"m" + struct.pack("<I", len(text)) + text)


def trace():
    """What the exception under way says, without our own frame."""
    kind, value, tb = sys.exc_info()
    text = "".join(traceback.format_exception(kind, value, tb.tb_next if tb else None)).strip()
    return text[-LONGEST_TRACE:]


# Spaces


def number(x):
    return repr(float(x))


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
        what.update(kind="discrete", dtype="<i8", shape=[], count=1, n=[int(space.n)], start=[int(space.start)])
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
            f"{place} a {type(space).__name__} space; Box, Discrete, MultiDiscrete, MultiBinary, and for observations "
            "Dict and Tuple of these can be used"
        )
    return what


def leaves_of(space, name, spaces, np):
    """The numbers of a space, part after part, in Gymnasium's order of flattening."""
    if isinstance(space, spaces.Dict):
        parts = [(str(key), s) for key, s in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        parts = [(str(i), s) for i, s in enumerate(space.spaces)]
    else:
        return [leaf_of(space, name, spaces, np)]
    return [leaf for key, s in parts for leaf in leaves_of(s, f"{name}.{key}" if name else key, spaces, np)]


def spec_of(env, gymnasium, np):
    out = {}
    spec = getattr(env, "spec", None)
    threshold = getattr(spec, "reward_threshold", None)
    out["reward_threshold"] = None if threshold is None else float(threshold)
    limit = getattr(spec, "max_episode_steps", None)
    out["max_episode_steps"] = None if limit is None else int(limit)
    try:
        out["observation"] = leaves_of(env.observation_space, "", gymnasium.spaces, np)
    except BadData as e:
        raise BadData(f"the observation space cannot be used: {e}") from None
    try:
        out["action"] = leaf_of(env.action_space, "", gymnasium.spaces, np)
    except BadData as e:
        raise BadData(f"the action space cannot be used: {e}") from None
    out["composite"] = isinstance(env.observation_space, (gymnasium.spaces.Dict, gymnasium.spaces.Tuple))
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

    def put(i, x):
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
        memory[i] = x
        if not start <= x < start + leaf["n"][0]:
            raise BadData(f"{where(leaf)} is {int(x)}, its space has {start} to {start + leaf['n'][0] - 1}")

    return put


def writer(space, spaces, leaves, memories, np):
    """A function that writes an observation of a space for environment i; takes what it needs of the iterators."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        named = isinstance(space, spaces.Dict)
        keys = list(space.spaces) if named else range(len(space.spaces))
        puts = [(k, writer(space.spaces[k], spaces, leaves, memories, np)) for k in keys]

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
    leaf, memory = next(leaves), next(memories)
    return (index_writer if leaf["kind"] == "discrete" else array_writer)(leaf, memory, np)


def action_reader(leaf, memory, np):
    if leaf["kind"] == "discrete":
        values = memory.data
        return lambda i: values[i]
    # A copy: an environment may keep what it is given.
    return lambda i: memory[i].copy()


class Worker:
    def __init__(self, control, setup):
        import gymnasium
        import numpy as np

        self.control, self.gymnasium, self.np = control, gymnasium, np
        self.id, self.kwargs, self.n = setup["id"], setup["kwargs"], setup["n"]
        reals = [t for t in np.sctypeDict.values() if issubclass(t, (np.integer, np.floating))]
        self.reals = frozenset([float, int, bool, *reals])
        self.envs = [self.make() for _ in range(self.n)]
        self.spec = spec_of(self.envs[0], gymnasium, np)

    def make(self):
        return self.gymnasium.make(self.id, disable_env_checker=True, **self.kwargs)

    def share(self, fd, at):
        np, n = self.np, self.n
        memory = mmap.mmap(fd, at["size"])

        def array(offset, dtype, shape):
            count = int(np.prod(shape, dtype=np.int64))
            return np.frombuffer(memory, dtype, count, offset).reshape(shape)

        def arrays(offset):
            for leaf in self.spec["observation"]:
                shape = (n, *leaf["shape"])
                yield array(offset, leaf["dtype"], shape)
                size = np.dtype(leaf["dtype"]).itemsize * leaf["count"] * n
                offset += (size + 63) // 64 * 64

        space, spaces = self.envs[0].observation_space, self.gymnasium.spaces
        self.put = writer(space, spaces, iter(self.spec["observation"]), arrays(at["obs"]), np)
        self.put_first = writer(space, spaces, iter(self.spec["observation"]), arrays(at["first"]), np)
        action = self.spec["action"]
        self.action = action_reader(action, array(at["actions"], action["dtype"], (n, *action["shape"])), np)
        self.todo = memory_view(memory, at["todo"], n, "B")
        self.status = memory_view(memory, at["status"], n, "B")
        self.first_status = memory_view(memory, at["first_status"], n, "B")
        self.seeds = memory_view(memory, at["seeds"], 8 * n, "q")
        self.rewards = memory_view(memory, at["rewards"], 8 * n, "d")
        self.memory = memory

    def run(self):
        control = self.control
        while True:
            byte = control.byte()
            if byte == b"s":
                errors = self.work()
                if errors:
                    control.tell(errors)
                else:
                    control.ring()
            elif byte == b"q":
                control.tell(self.close())
                return
            else:
                # pgrad is gone.
                return

    def work(self):
        """Does what is asked of each environment; what went wrong."""
        np, reals = self.np, self.reals
        todo, status, rewards, put, action = self.todo, self.status, self.rewards, self.put, self.action
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
                    obs, reward, terminated, truncated, _ = result
                    put(i, obs)
                    if reward.__class__ not in reals:
                        raise BadData(f"the reward is {describe(reward)}, not a number")
                    rewards[i] = reward
                    if terminated is False and truncated is False:
                        status[i] = RUNNING
                        continue
                    over = flag(terminated, "terminated", np), flag(truncated, "truncated", np)
                except Exception as e:
                    errors.append({"env": i, "during": "step", "bad": True, "text": said(e, result)})
                    status[i] = BAD
                    continue
                if not any(over):
                    status[i] = RUNNING
                    continue
                # The final observation is safe where it is; the next episode begins in another place.
                status[i] = TERMINATED if over[0] else TRUNCATED
                self.first_status[i] = self.begin(i, self.put_first, errors)
            elif do:
                if do == REBUILD and not self.rebuild(i, errors):
                    status[i] = RAISED
                else:
                    status[i] = self.begin(i, put, errors)
        return errors

    def begin(self, i, put, errors):
        """Resets environment i."""
        try:
            result = self.envs[i].reset(seed=self.seeds[i])
        except BaseException:
            errors.append({"env": i, "during": "reset", "text": trace()})
            return RAISED
        try:
            obs, _ = result
            put(i, obs)
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
        return errors


def memory_view(memory, offset, size, kind):
    return memoryview(memory)[offset : offset + size].cast(kind)


def flag(x, name, np):
    if x is True or x is False or x.__class__ is np.bool_:
        return bool(x)
    raise BadData(f"`{name}` is {describe(x)}, not True or False")


def said(e, result):
    if isinstance(e, BadData):
        return str(e)
    if isinstance(result, tuple):
        return f"it returned {len(result)} values that cannot be used ({type(e).__name__}: {e})"
    return f"it returned {describe(result)}, not a tuple"


def main():
    die_with(int(sys.argv[1]))
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
        worker = Worker(control, setup)
    except BaseException as e:
        causes = [c for c in (e, e.__cause__) if isinstance(c, ModuleNotFoundError)]
        missing = next((c.name for c in causes if c.name), None)
        bad = isinstance(e, BadData)
        names = [c.__name__ for c in type(e).__mro__]
        control.tell({"failed": str(e) if bad else trace(), "missing": missing, "bad": bad, "kinds": names})
        os._exit(1)
    control.tell({"spec": worker.spec})
    if control.byte() != b"m":
        os._exit(0)
    worker.share(memory, control.message())
    control.ring()
    worker.run()
    sys.stdout.flush()
    os._exit(0)


main()
