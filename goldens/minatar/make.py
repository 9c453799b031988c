#!/usr/bin/env python3
"""Records trajectories of MinAtar's five games, one text file per game, next to this script.

Needs: python3, MinAtar, numpy (the versions used are written into the files).
Run:   python3 goldens/minatar/make.py

The package's random generator is replaced by one that writes down what it hands out, in the order in which it is
asked, so that another implementation can be given the same numbers:

    3 hexadecimal digits    a uniform number on [0, 1), in units of 1/4096
    `=` and two digits      a whole number: `=nv` is v of 0..n-1

A trajectory is one episode. Its lines:

    trajectory STICKY_PROBABILITY RAMPING what it is
    start DRAWS             the reset
    state NUMBERS           only where it does not start in the state after the reset: that state
    ACTIONS REWARDS DRAWS DIGEST

with up to 20 steps in each of the last. Actions are digits of the full action set, rewards digits of base 36 (`.`
is 0), `!` follows the reward of a step that was terminal. The digest is the 64-bit FNV-1a hash of all steps from
the trajectory's start: of each, the observation's bits in C order, eight to a byte (the first is the highest), and
then every variable of the game as a little-endian 32-bit integer, in the order of NUMBERS. `state_of` is that
order.
"""

import copy
import pathlib

import minatar
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
NOOP, LEFT, UP, RIGHT, DOWN, FIRE = range(6)
STEPS_A_LINE = 20
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Recorder:
    """Stands in for numpy's RandomState."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.drawn = []

    def rand(self, *shape):
        units = self.rng.integers(4096, size=shape)
        self.drawn += [f"{int(u):03x}" for u in np.ravel(units)]
        return units / 4096

    def randint(self, low, high=None, size=None):
        low, high = (0, low) if high is None else (low, high)
        n = high - low
        values = self.rng.integers(n, size=size)
        self.drawn += [f"={n}{int(v)}" for v in np.ravel(values)]
        return values + low

    def take(self):
        drawn, self.drawn = "".join(self.drawn), []
        return drawn


def rows_of(board, first, last):
    """Each row of ten cells as a number, column x being bit x."""
    return [int(sum(1 << x for x in range(10) if board[y, x])) for y in range(first, last)]


def state_of(env):
    """Every variable of the game that a later step depends on, `last_action` first."""
    g = env.env
    if env.env_name == "breakout":
        numbers = [g.ball_x, g.ball_y, g.ball_dir, g.pos, g.strike, g.last_x, g.last_y]
        numbers += rows_of(g.brick_map, 1, 4)
    elif env.env_name == "asterix":
        numbers = [g.player_x, g.player_y, g.spawn_speed, g.spawn_timer, g.move_speed, g.move_timer]
        numbers += [g.ramp_timer, g.ramp_index]
        numbers += [-1 if e is None else e[0] + 10 * int(e[2]) + 20 * int(e[3]) for e in g.entities]
    elif env.env_name == "freeway":
        numbers = [g.pos, g.move_timer, g.terminate_timer]
        for x, _, timer, speed in g.cars:
            numbers += [x, timer, speed]
    elif env.env_name == "space_invaders":
        numbers = [g.pos, g.alien_dir, g.enemy_move_interval, g.alien_move_timer, g.alien_shot_timer]
        numbers += [g.ramp_index, g.shot_timer]
        for board in (g.f_bullet_map, g.e_bullet_map, g.alien_map):
            numbers += rows_of(board, 0, 10)
    else:
        numbers = [g.sub_x, g.sub_y, g.sub_or, g.oxygen, g.diver_count, g.shot_timer, g.surface]
        numbers += [g.e_spawn_speed, g.e_spawn_timer, g.d_spawn_timer, g.move_speed, g.ramp_index]
        lists = (g.f_bullets, g.e_bullets, g.e_fish, g.e_subs, g.divers)
        numbers += [len(entries) for entries in lists]
        for entries in lists:
            for entry in entries:
                numbers += entry
    return [int(x) for x in [env.last_action] + numbers]


def fnv1a(digest, data):
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 % 2**64
    return digest


# Players: functions of (environment, generator of their own, step).


def chance(moves):
    return lambda env, rng, t: int(rng.choice(moves))


def always(move):
    return lambda env, rng, t: move


def first(n, one, other):
    """`one` for n steps, then `other`."""
    return lambda env, rng, t: (one if t < n else other)(env, rng, t)


def sometimes(p, one, other):
    """`other` with probability p."""
    return lambda env, rng, t: (other if rng.random() < p else one)(env, rng, t)


def outlook(env, move, then, horizon):
    """What comes of a move, followed by `then`: rewards soon, and above all no end."""
    game = copy.deepcopy(env.env)
    game.random = np.random.RandomState(0)
    worth = 0.0
    for t in range(horizon):
        reward, terminal = game.act(move if t == 0 else then)
        worth += reward * 0.9**t - 100 * terminal * 0.9**t
        if terminal:
            break
    return worth


def careful(moves, horizon, wish=lambda env, rng, move: 0.0):
    def play(env, rng, t):
        worth = [outlook(env, m, NOOP, horizon) + wish(env, rng, m) + 1e-3 * rng.random() for m in moves]
        return moves[int(np.argmax(worth))]

    return play


def paddle(straight):
    """Meets every ball; `straight` says how often with the cell below it, else with the one it flies to."""

    def play(env, rng, t):
        game = copy.deepcopy(env.env)
        for _ in range(60):
            if game.ball_y == 8 and game.ball_dir in (2, 3):
                break
            game.pos = -1
            game.act(NOOP)
        x = game.ball_x
        ahead = min(9, max(0, x + (1 if game.ball_dir == 2 else -1)))
        target = x if (game.ball_x * 7 + int(game.brick_map.sum())) % 10 < 10 * straight else ahead
        return LEFT if target < env.env.pos else RIGHT if target > env.env.pos else NOOP

    return play


def toward(env, x, y, tx, ty, move):
    dx, dy = {LEFT: (-1, 0), RIGHT: (1, 0), UP: (0, -1), DOWN: (0, 1)}.get(move, (0, 0))
    return 0.1 * (abs(tx - x) + abs(ty - y) - abs(tx - x - dx) - abs(ty - y - dy))


def for_gold(env, rng, move):
    g = env.env
    gold = [e for e in g.entities if e is not None and e[3]]
    if not gold:
        return toward(env, g.player_x, g.player_y, 5, 5, move)
    e = min(gold, key=lambda e: abs(e[0] - g.player_x) + abs(e[1] - g.player_y))
    return toward(env, g.player_x, g.player_y, e[0], e[1], move)


def under_aliens(env, rng, move):
    g = env.env
    columns = [x for x in range(10) if g.alien_map[:, x].any()]
    x = min(columns, key=lambda x: abs(x - g.pos))
    return toward(env, g.pos, 0, x, 0, move)


def dive(env, rng, move):
    g = env.env
    if g.diver_count == 6 or (g.oxygen < 60 and g.diver_count != 0):
        return toward(env, 0, g.sub_y, 0, 0, move)
    if g.divers and g.diver_count < 6:
        d = min(g.divers, key=lambda d: abs(d[0] - g.sub_x) + abs(d[1] - g.sub_y))
        return toward(env, g.sub_x, g.sub_y, d[0], d[1], move)
    if g.sub_y == 0 and len(g.e_fish) + len(g.e_subs) + len(g.divers) == 0:
        return 0.0
    return toward(env, g.sub_x, g.sub_y, 5, 5, move) + (0.05 if move == FIRE else 0.0)


def ashore(env, rng, move):
    """Keeps from coming up without divers."""
    g = env.env
    return dive(env, rng, move) - (50 if g.sub_y == 1 and move == UP and g.diver_count == 0 else 0)


def bricks(*cells):
    board = np.zeros((10, 10))
    for x, y in cells:
        board[y, x] = 1
    return board


class Cases:
    """The trajectories of one game."""

    def __init__(self, module, name):
        self.module, self.name, self.cases = module, name, []

    def add(self, what, play, sticky=0.1, ramping=True, limit=20_000, **start):
        self.cases.append((what, play, sticky, ramping, limit, start))


def breakout():
    c = Cases("breakout", "Breakout")
    c.add("random actions", chance(range(6)))
    c.add("random actions, nothing sticky", chance(range(6)), sticky=0)
    c.add("no action", always(NOOP), sticky=0)
    c.add("always left", always(LEFT))
    c.add("always right", always(RIGHT), sticky=0)
    c.add("every ball met, sticky", first(1500, paddle(0.5), chance(range(6))))
    c.add("the same again", first(1500, paddle(0.2), always(NOOP)))
    c.add("every ball met from below", first(900, paddle(1.0), chance(range(6))), sticky=0)
    c.add("every ball met at the edge", first(900, paddle(0.0), always(NOOP)), sticky=0)
    c.add("every ball met either way", first(1500, paddle(0.5), chance(range(6))), sticky=0)
    c.add("one action in ten random", sometimes(0.1, paddle(0.6), chance(range(6))), sticky=0)
    c.add("few bricks", first(400, paddle(0.7), chance(range(6))), brick_map=bricks((0, 1), (9, 1), (4, 3)), sticky=0)
    c.add("no bricks", first(300, paddle(0.4), chance(range(6))), brick_map=bricks(), ball_y=6, ball_x=5)
    c.add("into a corner of bricks", first(300, paddle(0.3), always(LEFT)), sticky=0,
          ball_x=1, ball_y=4, last_x=2, last_y=5, ball_dir=0, brick_map=bricks((0, 3), (1, 3), (0, 2)))
    return c


def asterix():
    c = Cases("asterix", "Asterix")
    moves = [NOOP, LEFT, UP, RIGHT, DOWN]
    c.add("random actions", chance(range(6)))
    c.add("random actions, nothing sticky, no ramping", chance(range(6)), sticky=0, ramping=False)
    c.add("no action", always(NOOP))
    c.add("always up", always(UP), sticky=0)
    c.add("always down", always(DOWN), ramping=False)
    c.add("into the left wall and up and down", chance([LEFT, LEFT, UP, DOWN]))
    for what in ("gold sought", "gold sought again"):
        c.add(what, careful(moves, 6, for_gold))
    c.add("gold sought, nothing sticky", careful(moves, 6, for_gold), sticky=0)
    c.add("gold sought, no ramping", first(1200, careful(moves, 6, for_gold), chance(moves)), ramping=False)
    c.add("nothing met", careful(moves, 9), sticky=0)
    c.add("nearly at its hardest", careful(moves, 4, for_gold), spawn_speed=3, spawn_timer=3, move_speed=2,
          ramp_timer=20, ramp_index=7)
    c.add("all rows full", sometimes(0.3, careful(moves, 4), chance(moves)), spawn_speed=1, spawn_timer=0,
          move_speed=5, ramp_timer=60, ramp_index=3)
    c.add("at its hardest", careful(moves, 3, for_gold), spawn_speed=1, spawn_timer=1, move_speed=1, move_timer=0)
    return c


def freeway():
    c = Cases("freeway", "Freeway")
    moves = [NOOP, UP, DOWN]
    c.add("random actions", chance(range(6)))
    c.add("random actions, nothing sticky", chance(range(6)), sticky=0)
    c.add("always up", always(UP))
    c.add("always up, nothing sticky", always(UP), sticky=0)
    c.add("no action", always(NOOP), sticky=0)
    c.add("up, now and then anything", sometimes(0.2, always(UP), chance(range(6))))
    c.add("up and down", chance([UP, UP, UP, DOWN]))
    c.add("cars looked out for", careful(moves, 4, lambda env, rng, m: 0.05 * (m == UP) - 20 * (env.env.pos == 9 and m == DOWN)))
    c.add("waits in the middle", sometimes(0.3, always(UP), chance([NOOP, DOWN])), sticky=0)
    c.add("a chicken that waits for a gap", first(2000, sometimes(0.4, always(UP), always(NOOP)), always(UP)))
    c.add("the last steps", always(UP), terminate_timer=5, pos=1, move_timer=0)
    return c


def space_invaders():
    c = Cases("space_invaders", "SpaceInvaders")
    moves = [NOOP, LEFT, RIGHT, FIRE]
    few = bricks((3, 2), (6, 5))
    c.add("random actions", chance(range(6)))
    c.add("random actions, nothing sticky, no ramping", chance(range(6)), sticky=0, ramping=False)
    c.add("no action", always(NOOP), sticky=0)
    c.add("always fire", always(FIRE))
    c.add("left and fire", chance([LEFT, LEFT, FIRE]), sticky=0)
    c.add("right and fire", chance([RIGHT, RIGHT, FIRE]))
    c.add("shoots and dodges", careful(moves, 9, under_aliens))
    c.add("shoots and dodges again", careful(moves, 9, under_aliens))
    c.add("shoots and dodges, nothing sticky", first(1500, careful(moves, 9, under_aliens), always(NOOP)), sticky=0)
    c.add("shoots and dodges, no ramping", first(1000, careful(moves, 9, under_aliens), chance(moves)), ramping=False, sticky=0)
    c.add("dodges until they land", careful([NOOP, LEFT, RIGHT], 9), sticky=0)
    c.add("dodges until they land, sticky", careful([NOOP, LEFT, RIGHT], 9))
    c.add("two left", first(300, careful(moves, 9, under_aliens), chance(moves)), alien_map=few, enemy_move_interval=7, ramp_index=5)
    c.add("the last one", first(300, careful(moves, 9, under_aliens), chance(moves)), alien_map=bricks((8, 4)),
          enemy_move_interval=6, ramp_index=6, alien_dir=1, alien_move_timer=1, sticky=0)
    c.add("landed, one at each edge", always(NOOP), alien_map=bricks((0, 9), (9, 3)), alien_move_timer=0, sticky=0)
    c.add("landed on the cannon", always(LEFT), alien_map=bricks((3, 9), (2, 9)), alien_move_timer=2, sticky=0)
    return c


def seaquest():
    c = Cases("seaquest", "Seaquest")
    moves = list(range(6))
    c.add("random actions", chance(moves))
    c.add("random actions, nothing sticky, no ramping", chance(moves), sticky=0, ramping=False)
    c.add("stays at the surface, then sinks", first(150, always(NOOP), always(DOWN)))
    c.add("down, without air", careful([NOOP, DOWN, LEFT, RIGHT], 6), sticky=0)
    c.add("up without divers", first(12, always(DOWN), always(UP)))
    for what in ("divers rescued", "divers rescued again"):
        c.add(what, careful(moves, 7, ashore), limit=1500)
    c.add("divers rescued, nothing sticky", first(1500, careful(moves, 7, ashore), always(DOWN)), sticky=0)
    c.add("divers rescued, no ramping", first(900, careful(moves, 7, ashore), chance(moves)), ramping=False)
    c.add("five on board, little air", careful(moves, 7, ashore), diver_count=5, oxygen=45, sub_y=3, surface=False, limit=900)
    c.add("six on board", first(400, careful(moves, 7, ashore), chance(moves)), diver_count=6, oxygen=131, sub_y=2, surface=False, sticky=0)
    c.add("fewer than none on board", first(40, chance([UP, DOWN, DOWN, LEFT]), chance(moves)), diver_count=-1, sub_y=1, surface=False)
    fast = dict(e_spawn_speed=2, e_spawn_timer=1, move_speed=2, ramp_index=18, d_spawn_timer=3)
    c.add("nearly at its hardest", careful(moves, 7, ashore), diver_count=3, sub_y=5, surface=False, **fast)
    c.add("nearly at its hardest, shooting", first(200, sometimes(0.5, careful(moves, 7), always(FIRE)), chance(moves)),
          diver_count=2, sub_y=4, surface=False, **fast)
    c.add("at its hardest, from the surface", first(120, sometimes(0.02, always(NOOP), always(DOWN)), careful(moves, 7, ashore)),
          limit=700, sticky=0, **dict(fast, e_spawn_speed=1))
    # Two of a kind in one cell: what the list loses is the first of the two.
    c.add("equal bullets, fish, enemies and divers", first(60, careful(moves, 5), chance(moves)), sticky=0,
          sub_x=4, sub_y=6, surface=False, shot_timer=3, sub_or=True,
          f_bullets=[[3, 2, True], [3, 2, True], [2, 2, True], [7, 4, False], [8, 4, False], [0, 8, False], [0, 8, False]],
          e_bullets=[[9, 7, True], [9, 7, True], [8, 7, True], [1, 5, False], [0, 5, False]],
          e_fish=[[4, 2, True, 3], [4, 2, True, 3], [5, 4, False, 0], [5, 4, False, 0], [9, 3, True, 0], [9, 3, True, 0]],
          e_subs=[[6, 4, False, 0, 2], [6, 4, False, 0, 2], [0, 1, False, 0, 0], [0, 1, False, 0, 0]],
          divers=[[5, 6, False, 0], [5, 6, False, 0], [0, 8, False, 0], [0, 8, False, 0], [4, 6, False, 2]])
    c.add("a bullet that goes equals an earlier one, and a diver too", always(NOOP), limit=40, sticky=0,
          sub_x=5, sub_y=6, surface=False, diver_count=1,
          f_bullets=[[4, 2, True], [7, 5, False], [3, 2, True]], e_fish=[[4, 2, True, 5]],
          divers=[[5, 6, False, 5], [2, 1, False, 3], [6, 6, False, 0]])
    c.add("six on board and two divers in one cell", always(NOOP), limit=40, sticky=0,
          sub_x=5, sub_y=6, surface=False, diver_count=5,
          divers=[[5, 6, False, 5], [2, 1, False, 3], [6, 6, False, 0]])
    c.add("out of air", always(NOOP), sticky=0, sub_y=8, surface=False, oxygen=9, diver_count=3)
    c.add("up on the last air", always(UP), limit=40, sticky=0, sub_y=6, surface=False, oxygen=5, diver_count=2)
    c.add("up too late", always(UP), sticky=0, sub_y=7, surface=False, oxygen=6, diver_count=6)
    c.add("an enemy is shot on the step in which it shoots", always(NOOP), limit=20, sticky=0, sub_y=8, surface=False,
          f_bullets=[[2, 3, True]], e_subs=[[4, 3, False, 0, 0], [0, 5, False, 0, 0]])
    c.add("shot", always(NOOP), sticky=0, sub_y=6, surface=False, e_bullets=[[1, 6, True]])
    c.add("into a bullet", always(LEFT), sticky=0, sub_y=6, surface=False, e_bullets=[[4, 6, True]])
    c.add("a bullet meets the second of two equal enemies", always(NOOP), limit=60, sticky=0,
          f_bullets=[[2, 3, True], [8, 3, False]],
          e_subs=[[4, 3, False, 0, 1], [4, 3, False, 0, 1], [5, 3, False, 1, 5]],
          e_fish=[[6, 3, True, 0], [6, 3, True, 0]])
    return c


def record(cases):
    lines = [
        f"# MinAtar {cases.name}: MinAtar {minatar_version()}, NumPy {np.__version__}",
        "# made by goldens/minatar/make.py",
    ]
    endings = []
    for number, (what, play, sticky, ramping, limit, start) in enumerate(cases.cases):
        env = minatar.Environment(cases.module, sticky_action_prob=sticky, difficulty_ramping=ramping)
        draws = env.random = env.env.random = Recorder(number)
        rng = np.random.default_rng(1000 + number)
        env.reset()
        lines.append(f"trajectory {sticky} {int(ramping)} {what}")
        lines.append(f"start {draws.take()}".rstrip())
        for name, value in start.items():
            assert hasattr(env.env, name), name
            setattr(env.env, name, value)
        if start:
            lines.append("state " + " ".join(map(str, state_of(env))))
        digest, t, total, terminal = 0xCBF29CE484222325, 0, 0, False
        actions = rewards = ""
        while not terminal and t < limit:
            action = play(env, rng, t)
            reward, terminal = env.act(action)
            actions += str(action)
            rewards += (DIGITS[int(reward)] if reward else ".") + ("!" if terminal else "")
            digest = fnv1a(digest, np.packbits(env.state().ravel()).tobytes())
            digest = fnv1a(digest, np.array(state_of(env), dtype="<i4").tobytes())
            t += 1
            total += int(reward)
            if t % STEPS_A_LINE == 0 or terminal or t == limit:
                lines.append(f"{actions} {rewards} {draws.take()} {digest:016x}")
                actions = rewards = ""
        endings.append(f"{t}{'T' if terminal else ''}:{total}")
    path = HERE / f"{cases.name}.txt"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes, {' '.join(endings)}", flush=True)


def minatar_version():
    from importlib.metadata import version

    return version("minatar")


if __name__ == "__main__":
    for make in (breakout, asterix, freeway, space_invaders, seaquest):
        record(make())
