#!/usr/bin/env python3
"""Trajectories of the tasks of Degris, White and Sutton (2012), computed from their definitions.

Needs: python3 only.
Run:   python3 goldens/degris/make.py

Written apart from pgrad's own code, from the table in RLPark's MountainCar.java, SwingPendulum.java and
OffPACPuddleWorld.java: scalar arithmetic with Python's `math`. Lines are

    trajectory, step, state before (2 numbers), action, state after (2 numbers), reward, terminated

The grid world's noise is left out of its file: there, a line is `x, y, reward at (x, y), at the goal`.
"""

import math
import pathlib
import random

HERE = pathlib.Path(__file__).resolve().parent


def mountain_car(state, action):
    position, velocity = state
    throttle = [-1.0, 0.0, 1.0][action]
    velocity = min(max(velocity + 0.001 * throttle - 0.0025 * math.cos(3 * position), -0.07), 0.07)
    position += velocity
    if position < -1.2:
        velocity = 0.0
    position = min(max(position, -1.2), 0.6)
    return (position, velocity), -1.0, position >= 0.6


def pendulum(state, action):
    theta, velocity = state
    torque = [-2.0, 0.0, 2.0][action]
    limit = (math.pi / 4.0) / 0.01
    acceleration = -0.01 * velocity + 1.0 * 9.8 * 1.0 * math.sin(theta) + torque
    velocity = min(max(velocity + acceleration, -limit), limit)
    theta += velocity * 0.01
    if theta >= math.pi:
        theta -= 2 * math.pi
    if theta < -math.pi:
        theta += 2 * math.pi
    return (theta, velocity), math.cos(theta), False


def grid_reward(x, y):
    def normal(z, mean, std):
        return 1.0 / math.sqrt(2 * math.pi * std**2) * math.exp(-((z - mean) ** 2) / (2 * std**2))

    puddles = (
        normal(x, 0.3, 0.1) * normal(y, 0.6, 0.03)
        + normal(x, 0.4, 0.03) * normal(y, 0.5, 0.1)
        + normal(x, 0.8, 0.03) * normal(y, 0.9, 0.1)
    )
    return -1.0 - 2.0 * puddles


def along(state, step, rng):
    """Bang-bang along the velocity: it reaches the car's goal, and swings the pendulum."""
    return 2 if state[1] >= 0 else 0


def at_random(state, step, rng):
    return rng.randrange(3)


def left(state, step, rng):
    return 0


def write(name, update, cases):
    rng = random.Random(20120626)
    with open(HERE / f"{name}.csv", "w", newline="\n") as file:
        for number, (start, control, steps) in enumerate(cases):
            state = start
            for step in range(steps):
                action = control(state, step, rng)
                after, reward, terminated = update(state, action)
                cells = [number, step, *state, action, *after, reward, int(terminated)]
                print(",".join(repr(c) for c in cells), file=file)
                state = after
                if terminated:
                    break


write(
    "DegrisMountainCar-v0",
    mountain_car,
    [((-0.5, 0.0), along, 300), ((-0.5, 0.0), at_random, 300), ((-1.1, -0.06), left, 20), ((0.55, 0.069), left, 5)],
)
write(
    "DegrisPendulum-v0",
    pendulum,
    [((math.pi / 2, 0.0), at_random, 150), ((0.1, 0.0), along, 150), ((-3.0, -78.0), left, 40), ((0.0, 0.0), left, 30)],
)
with open(HERE / "ContinuousGridWorld-v0.csv", "w", newline="\n") as file:
    rng = random.Random(20120626)
    points = [(0.2, 0.4), (0.3, 0.6), (0.4, 0.5), (0.8, 0.9), (1.0, 1.0), (0.95, 0.951), (0.95, 0.949)]
    points += [(rng.random(), rng.random()) for _ in range(40)]
    for x, y in points:
        print(",".join(repr(c) for c in [x, y, grid_reward(x, y), int(abs(1 - x) + abs(1 - y) < 0.1)]), file=file)
