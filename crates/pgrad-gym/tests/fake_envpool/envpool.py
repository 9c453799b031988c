"""An EnvPool that goes wrong, for the tests: what pgrad calls of it, in Python.

`fault` is `[call, how]`: the first call that steps is number 1.
"""

import os
import time
from types import SimpleNamespace

import numpy as np
from gymnasium import spaces

__version__ = "0-fake"


def list_all_envs():
    return ["Fake-v1", "Fakir-v0"]


class Fake:
    """Episodes of 3 to 7 steps that show seed, episode and step."""

    _state_keys = ["info:env_id", "step_type", "done", "reward", "trunc", "obs"]
    observation_space = spaces.Box(-1e9, 1e9, (3,), np.float32)
    action_space = spaces.Discrete(2)
    spec = SimpleNamespace(action_array_spec={"env_id": None, "action": SimpleNamespace(dtype=np.int32)})

    def __init__(self, num_envs, num_threads, seed, fault=(0, ""), players=1):
        self.config = {"max_num_players": players, "max_episode_steps": 7}
        self.seed = np.array(seed) % 1000
        self.episode, self.t = np.full(num_envs, -1), np.zeros(num_envs, np.int32)
        self.over = np.ones(num_envs, bool)
        self.fault, self.calls = fault, 0

    def _to(self, state, reset, info):
        return state[5], {}

    def _reset(self, ids):
        self.over[ids] = True
        self._send([ids, ids, np.zeros(len(ids), np.int32)], reset=True)

    def _send(self, actions, reset=False):
        ids, _, action = actions
        assert action.dtype == np.int32 and action.shape == ids.shape and ids.dtype == np.int32, actions
        assert np.isin(action, (0, 1)).all(), action
        self.calls += not reset
        begins = self.over[ids]
        self.episode[ids] += begins
        self.t[ids] = np.where(begins, 0, self.t[ids] + 1)
        over = self.t[ids] >= 3 + self.seed[ids] % 5
        self.over[ids] = over
        trunc = over & (self.seed[ids] % 2 == 0)
        obs = np.stack([self.seed[ids], self.episode[ids], self.t[ids]], 1).astype(np.float32)
        reward = np.where(begins, 0, 10 * self.t[ids] + action).astype(np.float32)
        step_type = np.where(begins, 0, np.where(over, 2, 1)).astype(np.int32)
        self.state = [ids.copy(), step_type, over, reward, trunc, obs]
        if not reset and self.calls == self.fault[0]:
            self.go_wrong(self.fault[1])

    def go_wrong(self, how):
        env_id, step_type, done, reward, trunc, obs = self.state
        if how == "raise":
            raise RuntimeError("as planned")
        if how == "exit":
            os._exit(3)
        if how == "hang":
            time.sleep(60)
        if how == "order":
            env_id[:2] = env_id[1::-1].copy()
        if how == "began":
            step_type[0] = 0
        if how == "nan":
            obs[1, 2] = np.nan
        if how == "bounds":
            obs[1, 2] = 2e9
        if how == "reward":
            reward[1] = np.inf
        replaced = {
            "dtype": (5, obs.astype(np.float64)),
            "shape": (5, obs[:, :2].copy()),
            "short": (5, obs[:-1].copy()),
            "no-reward": (3, reward.astype(np.int32)),
            "rewards": (3, reward[:-1].copy()),
        }.get(how)
        if replaced:
            self.state[replaced[0]] = replaced[1]

    def _recv(self):
        return self.state


def make(name, env_type, **kwargs):
    assert env_type == "gymnasium"
    return Fake(**kwargs)
