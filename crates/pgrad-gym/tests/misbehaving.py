"""Environments that go wrong, for the tests: `gym:tests.misbehaving:ID`."""

import atexit
import ctypes
import enum
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from multiprocessing import shared_memory

import gymnasium as gym
import numpy as np
from gymnasium import spaces


def fail(how):
    """Goes wrong in one way."""
    if how == "raise":
        raise RuntimeError("as planned")
    if how == "exit-by-exception":
        sys.exit(3)
    if how.startswith("exit "):
        os._exit(int(how.split()[1]))
    if how.startswith("kill "):
        os.kill(os.getpid(), getattr(signal, how.split()[1]))
        time.sleep(60)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "abort":
        os.abort()
    if how == "memory":
        resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
        np.ones(1 << 32)
    if how.startswith("out-of-memory "):
        # Into a control group that is allowed little, and then there is no end to it.
        with open(how.split()[1], "w") as members:
            members.write(str(os.getpid()))
        hoard = []
        while True:
            hoard.append(np.ones(1 << 20))
    if how == "import":
        import no_such_module_of_pgrad  # noqa: F401
    if how == "fork":
        # A child that keeps every descriptor open, when its parent is gone.
        if os.fork() == 0:
            time.sleep(60)
        os._exit(1)
    if how == "grandchild":
        subprocess.Popen(["sleep", "61"])
        os._exit(1)
    if how == "program":
        subprocess.Popen(["sleep", "62"])
        how = "busy"
    if how == "sleep":
        time.sleep(60)
    if how == "busy":
        while True:
            pass
    if how == "deadlock":
        lock = ctypes.PyDLL(None)  # holds the interpreter's lock
        lock.pause()
    if how == "print":
        for _ in range(200):
            print("x" * 1000)
    if how == "truncate":
        for fd in range(64):
            if os.path.exists(f"/proc/self/fd/{fd}") and "pgrad-gym" in os.readlink(f"/proc/self/fd/{fd}"):
                os.ftruncate(fd, 0)
    if how == "later":
        threading.Timer(0.1, os._exit, (4,)).start()
        return
    if how == "stdin":
        input()
    raise RuntimeError(f"no fault is called {how}")


class Planned(gym.Env):
    """Episodes of 5 to 12 steps whose observations depend on seed and actions; goes wrong as planned.

    `faults` maps the seed of an episode to `[step, how]`; step 0 is the reset.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}
    observation_space = spaces.Box(-100.0, 100.0, (3,), np.float32)
    action_space = spaces.Discrete(2, start=5)

    def __init__(self, faults=None, close=None, init=None, render_mode=None, render=None, fps=25):
        self.render_mode, self.on_render = render_mode, render
        self.metadata = self.metadata | {"render_fps": fps}
        self.faults = {int(seed): fault for seed, fault in (faults or {}).items()}
        self.on_close = close
        if init:
            fail(init)

    def go_wrong(self):
        step, how = self.fault
        if step == self.t:
            fail(how)

    def obs(self):
        return np.array([self.x, self.t, self.length], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.fault = 0, self.faults.get(seed, (-1, ""))
        self.length = int(self.np_random.integers(5, 13))
        self.x = float(self.np_random.normal())
        self.go_wrong()
        return self.obs(), {}

    def step(self, action):
        assert action in (5, 6), action
        self.t += 1
        self.go_wrong()
        self.x += (action - 5.5) * float(self.np_random.normal())
        over = self.t >= self.length
        cut = over and self.length % 2 == 0
        return self.obs(), self.x, over and not cut, cut, {}

    def render(self):
        if self.on_render == "gray":
            return np.zeros((4, 6), np.uint8)
        if self.on_render:
            fail(self.on_render)
        return np.full((4, 6, 3), [self.t, 7, 9], np.uint8) if self.render_mode == "rgb_array" else None

    def close(self):
        if self.on_close:
            fail(self.on_close)


gym.register("Planned-v0", Planned)


class Tidy(Planned):
    """Takes its time to close, and leaves something to be cleaned up when Python ends."""

    def __init__(self, log, seconds, thread=False):
        super().__init__()
        self.log, self.seconds = log, seconds
        self.memory = shared_memory.SharedMemory(create=True, size=100)
        self.say(".shm", self.memory.name)
        atexit.register(self.say, "", "atexit")
        if thread:
            threading.Thread(target=time.sleep, args=(60,)).start()

    def say(self, which, text):
        with open(self.log + which, "a") as f:
            f.write(text + "\n")

    def close(self):
        time.sleep(self.seconds)
        self.say("", "closed")


gym.register("Tidy-v0", Tidy)


def simulator(pipe):
    while (x := pipe.recv()) is not None:
        pipe.send(x + 1)


class Threaded(Planned):
    """Has a process that was started from a thread, for a start with a deadline."""

    def __init__(self):
        super().__init__()
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=simulator, args=(theirs,), daemon=True)
        starter = threading.Thread(target=self.process.start)
        starter.start()
        starter.join()
        time.sleep(0.2)

    def step(self, action):
        if not self.process.is_alive():
            raise RuntimeError(f"the simulator is gone, exit code {self.process.exitcode}")
        self.pipe.send(1)
        obs, _, terminated, truncated, info = super().step(action)
        return obs, self.pipe.recv(), terminated, truncated, info

    def close(self):
        self.pipe.send(None)


gym.register("Threaded-v0", Threaded)


class Soak(Planned):
    """Raises or kills its process at random."""

    def step(self, action):
        x = self.np_random.random()
        if x < 0.06:
            fail("kill SIGKILL" if x < 0.003 else "raise")
        return super().step(action)


gym.register("Soak-v0", Soak)


class Parts(gym.Env):
    """An observation of every kind of part, and the action that is asked for."""

    SPACE = spaces.Dict(
        {
            "b": spaces.Box(np.array([-1, 0], np.float64), np.array([1, np.inf], np.float64), dtype=np.float64),
            "a": spaces.Discrete(3, start=-1),
            "c": spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.MultiBinary([2, 2])]),
            "d": spaces.Box(0, 255, (2, 1, 2), np.uint8),
        }
    )

    def __init__(self, action="discrete"):
        self.observation_space = self.SPACE
        self.action_space = {
            "discrete": spaces.Discrete(3, start=2),
            "multi-discrete": spaces.MultiDiscrete([2, 3], start=[1, -1]),
            "multi-binary": spaces.MultiBinary(3),
            "box": spaces.Box(np.array([-0.1, 0]), np.array([0.1, 2]), dtype=np.float64),
            "box32": spaces.Box(-1, 1, (2, 2), np.float32),
            "int": spaces.Box(-2, 3, (2,), np.int16),
            "half": spaces.Box(-1.5, 1.5, (2,), np.float16),
            "tuple": spaces.Tuple([spaces.Discrete(3, start=2), spaces.Box(-0.5, 0.5, (2,), np.float64)]),
            "dict": spaces.Dict(
                {
                    "turn": spaces.Box(-1, 1, (2, 1), np.float16),
                    "gear": spaces.Discrete(4, start=-1),
                    "lamps": spaces.Tuple([spaces.MultiBinary(3), spaces.MultiDiscrete([2, 5], start=[1, -2])]),
                    "gas": spaces.Box(0, 9, (), np.int32),
                }
            ),
        }[action]
        self.seen = []

    def numbers(self, action, space):
        if isinstance(space, (spaces.Dict, spaces.Tuple)):
            keys = list(space.spaces) if isinstance(space, spaces.Dict) else range(len(space.spaces))
            return [x for key in keys for x in self.numbers(action[key], space.spaces[key])]
        # A number or an array of NumPy's, as a space's `sample` gives.
        assert action.dtype == space.dtype, (action, type(action))
        return np.asarray(action, np.float64).reshape(-1).tolist()

    def obs(self):
        return {
            "a": 1 if not self.seen else -1,
            "b": np.array([0.5, 1e6]),
            "c": (np.array([1, 2]), np.array([[0, 1], [1, 0]], np.int8)),
            "d": np.array([[[1, 2]], [[3, 255]]], np.uint8),
        }

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = []
        return self.obs(), {}

    def step(self, action):
        assert self.action_space.contains(action), (action, type(action))
        assert type(action) is type(self.action_space.sample()), (action, type(action))
        self.seen.append(sum(self.numbers(action, self.action_space)))
        return self.obs(), float(self.seen[-1]), False, len(self.seen) == 3, {}


gym.register("Parts-v0", Parts)

# What an environment returns, and may return in its place.
OK = np.zeros(4, np.float32)


def with_number(x):
    obs = OK.copy()
    obs[2] = x
    return obs


BAD_OBS = {
    "shape (1,)": np.zeros(1, np.float32),
    "shape (2, 2)": np.zeros((2, 2), np.float32),
    "shape (5,)": np.zeros(5, np.float32),
    "shape ()": np.float32(0),
    "float64": np.zeros(4),
    "float64 1e300": np.full(4, 1e300),
    "int64": np.zeros(4, np.int64),
    "list": [0.0, 0.0, 0.0, 0.0],
    "none": None,
    "text": "0000",
    "nan": with_number(np.nan),
    "inf": with_number(np.inf),
    "-inf": with_number(-np.inf),
}


class Wrong(gym.Env):
    """Returns one wrong thing, at a step (0 is the reset)."""

    observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, case, at):
        self.case, self.at = case, at
        spaces_of = {
            "discrete": spaces.Discrete(3),
            "multi-discrete": spaces.MultiDiscrete([2, 3]),
            "multi-binary": spaces.MultiBinary(2),
            "dict": spaces.Dict({"p": spaces.Box(-1, 1, (2,), np.float32), "q": spaces.Discrete(2)}),
            "tuple": spaces.Tuple([spaces.Discrete(2), spaces.Discrete(2)]),
            "wide": spaces.Box(-np.inf, np.inf, (2,), np.float64),
        }
        kind = case.split(":")[0]
        self.observation_space = spaces_of.get(kind, Wrong.observation_space)

    def right(self):
        kind = self.case.split(":")[0]
        return {
            "discrete": 1,
            "multi-discrete": np.array([1, 2]),
            "multi-binary": np.array([0, 1], np.int8),
            "dict": {"p": np.zeros(2, np.float32), "q": 1},
            "tuple": (0, 1),
            "wide": np.zeros(2),
        }.get(kind, OK.copy())

    def returned(self):
        p = np.zeros(2, np.float32)
        wrong = {
            "out of bounds": with_number(1e9),
            "rounding": with_number(np.nextafter(np.float32(1), np.float32(2))),
            "discrete:3": 3,
            "discrete:-1": -1,
            "discrete:1.5": 1.5,
            "discrete:huge": 1 << 70,
            "multi-discrete:2": np.array([2, 0]),
            "multi-discrete:float": np.array([1.0, 0.0]),
            "multi-binary:2": np.array([2, 0], np.int8),
            "multi-binary:-1": np.array([-1, 0], np.int8),
            "dict:missing": {"p": p},
            "dict:more": {"p": p, "q": 1, "r": 1},
            "dict:shape": {"p": np.zeros(3, np.float32), "q": 1},
            "dict:nan": {"p": np.array([0, np.nan], np.float32), "q": 1},
            "dict:array": p,
            "tuple:short": (0,),
            "tuple:range": (0, 2),
            "wide:1e300": np.array([0, 1e300]),
            **BAD_OBS,
        }
        return wrong[self.case] if self.t == self.at and self.case in wrong else self.right()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        if self.case == "reset returns no pair" and self.at == 0:
            return self.right()
        return self.returned(), {}

    def step(self, action):
        self.t += 1
        result = [self.returned(), 1.0, False, self.t == 8, {}]
        if self.t == self.at:
            name, value = {
                "reward nan": (1, np.nan),
                "reward inf": (1, np.inf),
                "reward 1e300": (1, 1e300),
                "reward none": (1, None),
                "reward text": (1, "1.0"),
                "reward array": (1, np.ones(1)),
                "reward vector": (1, np.ones(2)),
                "terminated none": (2, None),
                "terminated text": (2, "False"),
                "truncated array": (3, np.zeros(2, bool)),
                "truncated nan": (3, np.nan),
            }.get(self.case, (None, None))
            if name is not None:
                result[name] = value
            if self.case == "four values":
                return tuple(result[:4])
            if self.case == "no tuple":
                return None
        return tuple(result)


gym.register("Wrong-v0", Wrong)


class Win(enum.IntEnum):
    TWICE = 2


class Half(float):
    pass


class Kinds(gym.Env):
    """Rewards and flags of types that are numbers, each in its way."""

    REWARDS = (
        *(True, np.True_, np.False_, Win.TWICE, Half(0.5), Fraction(1, 4)),
        *(np.int8(3), np.array(0.75), np.array(4, np.uint8)),
    )
    observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return OK, {}

    def step(self, action):
        reward, over = self.REWARDS[self.t], self.t == len(self.REWARDS) - 1
        self.t += 1
        return OK, reward, np.array(over), np.False_, {}


gym.register("Kinds-v0", Kinds)


class Masked(gym.Env):
    """Allows one alternative of each choice in each state, and raises at any other."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, kind="discrete", source="info", case="", at=2, cut=False):
        self.source, self.case, self.at, self.cut = source, case, at, cut
        self.action_space = {
            "discrete": spaces.Discrete(3, start=1),
            "multi": spaces.MultiDiscrete([2, 3]),
            "dict": spaces.Dict(
                {
                    "gear": spaces.Discrete(4),
                    "gas": spaces.Box(-1, 1, (1,), np.float32),
                    "grip": spaces.MultiDiscrete([2, 3], start=[5, 0]),
                    "lamps": spaces.MultiBinary(2),
                }
            ),
            "box": spaces.Box(-1, 1, (1,), np.float32),
        }[kind]
        self.n = {"discrete": [3], "multi": [2, 3], "dict": [4, 2, 3], "box": []}[kind]
        if source == "method":
            self.action_masks = self.mask

    def allowed(self):
        return [(self.t + self.start + k) % n for k, n in enumerate(self.n)]

    def mask(self):
        each = [np.eye(n, dtype=np.int8)[k] for n, k in zip(self.n, self.allowed())]
        wrong = self.t == self.at
        if self.t == 5:
            # Nothing can be done any more.
            return np.zeros(sum(self.n), bool) if self.source == "info" else None / 0
        if wrong and self.case == "nothing":
            each[-1][:] = 0
        if wrong and self.case == "shape":
            each.pop()
        if wrong and self.case == "numbers":
            return np.linspace(0, 1, sum(self.n))
        if wrong and self.case == "seven":
            return np.full(sum(self.n), 7)
        if wrong and self.case == "forgotten":
            return None
        if wrong and self.case == "misspelt":
            return {"gaer": each[0], "grip": tuple(each[1:])}
        if wrong and self.case == "raises":
            raise ConnectionError("no server")
        if self.case == "sampled":
            # As the space's `sample` takes it.
            if len(self.n) == 3:
                return {"gear": each[0], "grip": tuple(each[1:]), "gas": None}
            return tuple(each) if len(each) > 1 else each[0]
        return np.concatenate(each).astype(bool)

    def info(self):
        missing = self.source != "info" or self.case == "missing" and self.t == self.at
        return {} if missing else {"action_mask": self.mask()}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.start = 0, int(self.np_random.integers(12))
        return np.zeros(1, np.float32), self.info()

    def step(self, action):
        parts = [action["gear"], *(action["grip"] - [5, 0])] if isinstance(action, dict) else np.atleast_1d(action)
        start = 1 if len(self.n) == 1 else 0
        assert [int(x) - start for x in parts] == self.allowed(), (action, self.allowed())
        self.t += 1
        over = self.t == 5
        return np.zeros(1, np.float32), 1.0, over and not self.cut, over and self.cut, self.info()


gym.register("Masked-v0", Masked)


class Unspeakable(Kinds):
    def step(self, action):
        open(os.fsdecode(b"/no\xff"))


gym.register("Unspeakable-v0", Unspeakable, reward_threshold=float("inf"), max_episode_steps=10**10)


class Limits(Kinds):
    """Says what it is told of its own limits."""

    def __init__(self, limit, threshold):
        super().__init__()
        limit = 10**400 if limit == "huge" else float(limit) if limit in ("inf", "nan") else limit
        self.own = gym.envs.registration.EnvSpec("Limits-v0", max_episode_steps=limit, reward_threshold=threshold)

    @property
    def spec(self):
        return self.own

    @spec.setter
    def spec(self, _):
        pass


gym.register("Limits-v0", Limits)


class Unusable(gym.Env):
    """A space that cannot be used."""

    def __init__(self, case):
        box = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space, self.action_space = {
            "text": (spaces.Text(5), spaces.Discrete(2)),
            "sequence in dict": (spaces.Dict({"s": spaces.Sequence(box)}), spaces.Discrete(2)),
            "text in dict": (
                spaces.Dict(
                    {
                        "image": box,
                        "mission": spaces.Text(50),
                        "more": spaces.Dict({"x": spaces.Discrete(3), "y": spaces.Text(5)}),
                    }
                ),
                spaces.Discrete(2),
            ),
            "text in dict action": (box, spaces.Dict({"a": box, "t": spaces.Text(3)})),
            "empty tuple action": (box, spaces.Tuple([])),
            "part without numbers": (box, spaces.Dict({"a": box, "none": spaces.Box(-1, 1, (0,))})),
        }[case]

    def obs(self):
        return {"image": np.array([0.5, -0.5], np.float32), "mission": "go", "more": {"x": 1, "y": "far"}}

    def reset(self, *, seed=None, options=None):
        return self.obs(), {}

    def step(self, action):
        return self.obs(), 0.0, False, False, {}


gym.register("Unusable-v0", Unusable)


class Echo(gym.Env):
    """Says what it was given."""

    def __init__(self, **kwargs):
        raise ValueError(f"given {kwargs!r}")


gym.register("Echo-v0", Echo)
