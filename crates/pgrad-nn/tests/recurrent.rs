//! LSTM and GRU: `forward` against a loop written from the definition and against PyTorch, `vjp` through time
//! against PyTorch and finite differences, `jvp` against `vjp` by the adjoint law, with episodes that end
//! inside a sequence; and a sequence has the same bits as its steps one by one.

#![expect(clippy::unwrap_used, reason = "helpers of tests may stop a test")]

use pgrad_nn::{Activation, Cell, Dense, Head, Init, Network, NetworkTape, Recurrent};
use pgrad_num::{Cols, ColsMut, Real, Stream};
use pgrad_testkit::{assert_adjoint, assert_gradient};

const CELLS: [Cell; 2] = [Cell::Lstm, Cell::Gru];

/// A recurrent layer as a network of its own.
struct Case<R> {
    cell: Cell,
    net: Network,
    steps: usize,
    cols: usize,
    theta: Vec<R>,
    x: Vec<R>,
    state: Vec<R>,
    fresh: Vec<bool>,
    d_out: Vec<R>,
}

impl<R: Real> Case<R> {
    fn new(layer: Recurrent, steps: usize, cols: usize, seed: u64) -> Self {
        let (cell, net) = (layer.cell(), Network::of(vec![layer.into()]).unwrap());
        let mut rng = Stream::new(seed, 0, 0);
        let mut normal =
            |n: usize, scale: f64| (0..n).map(|_| R::of(scale * rng.normal())).collect::<Vec<R>>();
        let n = steps * cols;
        Self {
            theta: normal(net.n_params(), 0.7),
            x: normal(net.n_inputs() * n, 1.0),
            state: normal(net.state_rows() * cols, 1.0),
            d_out: normal(net.n_outputs() * n, 1.0),
            // The first step of a sequence, one in the middle, two in a row.
            fresh: (0..n).map(|i| [2, 3, 7].contains(&(i % 11))).collect(),
            cell,
            net,
            steps,
            cols,
        }
    }
    fn begin(&self, tape: &mut NetworkTape<R>) {
        tape.begin(self.steps, Cols::new(&self.state, self.net.state_rows(), self.cols), &self.fresh);
    }
    fn n(&self) -> usize {
        self.steps * self.cols
    }
    fn x(&self) -> Cols<'_, R> {
        Cols::new(&self.x, self.net.n_inputs(), self.n())
    }
    /// A tape that `forward` has filled.
    fn seen(&self) -> NetworkTape<R> {
        let mut tape = self.net.tape_of(self.steps, self.cols);
        self.begin(&mut tape);
        self.net.forward(&self.theta, self.x(), &mut tape);
        tape
    }
    /// Gradients of `<d_out, h'>` by parameters and input.
    fn vjp(&self, tape: &mut NetworkTape<R>) -> (Vec<R>, Vec<R>) {
        let mut d_theta = vec![R::ZERO; self.net.n_params()];
        let mut d_x = vec![R::ZERO; self.x.len()];
        self.net.vjp(
            &self.theta,
            self.x(),
            tape,
            Cols::new(&self.d_out, self.net.n_outputs(), self.n()),
            &mut d_theta,
            Some(ColsMut::new(&mut d_x, self.net.n_inputs(), self.n())),
        );
        (d_theta, d_x)
    }
}

fn cases() -> Vec<Case<f64>> {
    let mut all = Vec::new();
    for cell in CELLS {
        for (inputs, size, steps, cols) in [(3, 4, 1, 1), (3, 4, 6, 2), (2, 3, 5, 3), (1, 5, 8, 1)] {
            all.push(Case::new(Recurrent::new(cell, inputs, size), steps, cols, all.len() as u64));
        }
    }
    all
}

/// The definition, one number at a time, through the named views. Returns `h'` of every step.
fn slow_forward(case: &Case<f64>) -> Vec<f64> {
    let Case { cell, net, steps, cols, theta, x, state, fresh, .. } = case;
    let (size, n) = (net.n_outputs(), steps * cols);
    let get = |name: &str| {
        let view = net.views().into_iter().find(|v| v.name.ends_with(name));
        view.map_or(&[][..], |v| &theta[v.range])
    };
    let (w, u, b) = (get(".input.weight"), get(".recurrent.weight"), &theta[net.views()[2].range.clone()]);
    let candidate = get(".candidate.bias");
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let mut out = vec![0.0; size * n];
    for col in 0..*cols {
        let mut h: Vec<f64> = (0..size).map(|r| state[r * cols + col]).collect();
        let mut c: Vec<f64> = (size..net.state_rows()).map(|r| state[r * cols + col]).collect();
        for t in 0..*steps {
            if fresh[t * cols + col] {
                h.fill(0.0);
                c.fill(0.0);
            }
            let from_x = |row: usize| -> f64 {
                let inputs = net.n_inputs();
                b[row] + (0..inputs).map(|i| w[row * inputs + i] * x[i * n + t * cols + col]).sum::<f64>()
            };
            let from_h = |row: usize| (0..size).map(|i| u[row * size + i] * h[i]).sum::<f64>();
            let mut next = h.clone();
            for r in 0..size {
                let [z0, z1, z2, z3] = [0, 1, 2, 3].map(|gate| gate * size + r);
                match cell {
                    Cell::Lstm => {
                        let i = sigmoid(from_x(z0) + from_h(z0));
                        let f = sigmoid(from_x(z1) + from_h(z1));
                        let g = (from_x(z2) + from_h(z2)).tanh();
                        let o = sigmoid(from_x(z3) + from_h(z3));
                        c[r] = f * c[r] + i * g;
                        next[r] = o * c[r].tanh();
                    }
                    Cell::Gru => {
                        let reset = sigmoid(from_x(z0) + from_h(z0));
                        let z = sigmoid(from_x(z1) + from_h(z1));
                        let new = (from_x(z2) + reset * (from_h(z2) + candidate[r])).tanh();
                        next[r] = (1.0 - z) * new + z * h[r];
                    }
                }
            }
            h = next;
            (0..size).for_each(|r| out[r * n + t * cols + col] = h[r]);
        }
    }
    out
}

fn near(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "number {i}: {a}, expected {b}");
    }
}

#[test]
fn forward_is_the_definition() {
    for case in cases() {
        near(case.seen().outputs(), &slow_forward(&case), 1e-12);
    }
}

#[test]
fn vjp_through_time_agrees_with_finite_differences() {
    for case in cases() {
        let mut tape = case.net.tape_of(case.steps, case.cols);
        let mut value = |theta: &[f64], x: &[f64]| -> f64 {
            case.begin(&mut tape);
            let y = case.net.forward(theta, Cols::new(x, case.net.n_inputs(), case.n()), &mut tape);
            y.into_data().iter().zip(&case.d_out).map(|(a, b)| a * b).sum()
        };
        let (d_theta, d_x) = case.vjp(&mut case.seen());
        assert_gradient(|t| value(t, &case.x), &case.theta, &d_theta, 1e-6);
        assert_gradient(|x| value(&case.theta, x), &case.x, &d_x, 1e-6);
    }
}

#[test]
fn vjp_adds_to_what_is_there() {
    for case in cases() {
        let mut tape = case.seen();
        let (once, _) = case.vjp(&mut tape);
        let mut twice = once.clone();
        let d_out = Cols::new(&case.d_out, case.net.n_outputs(), case.n());
        case.net.vjp(&case.theta, case.x(), &mut tape, d_out, &mut twice, None);
        near(&twice, &once.iter().map(|g| 2.0 * g).collect::<Vec<_>>(), 1e-12);
    }
}

#[test]
fn jvp_is_the_adjoint_of_vjp() {
    for case in cases() {
        let (mut forward_tape, mut backward_tape) = (case.seen(), case.seen());
        let (net, size, n) = (&case.net, case.net.n_outputs(), case.n());
        assert_adjoint(
            |v, out| net.jvp(&case.theta, case.x(), &mut forward_tape, v, ColsMut::new(out, size, n)),
            |u, out| {
                out.fill(0.0);
                net.vjp(&case.theta, case.x(), &mut backward_tape, Cols::new(u, size, n), out, None);
            },
            net.n_params(),
            size * n,
            1e-12,
        );
    }
}

#[test]
fn no_derivative_goes_past_the_end_of_an_episode() {
    for cell in CELLS {
        let mut case = Case::<f64>::new(Recurrent::new(cell, 2, 3), 5, 1, 1);
        case.fresh = (0..5).map(|t| t == 3).collect();
        case.d_out = (0..15).map(|i| if i % 5 == 4 { 1.0 } else { 0.0 }).collect();
        let (_, d_x) = case.vjp(&mut case.seen());
        for (i, d) in d_x.iter().enumerate() {
            assert_eq!(*d == 0.0, i % 5 < 3, "{cell:?}, step {}", i % 5);
        }
    }
}

#[test]
fn agrees_with_pytorch() {
    let text = include_str!("../../../goldens/torch/recurrent.txt");
    let mut cases = 0;
    let mut lines = text.lines().filter(|l| !l.starts_with('#'));
    while let Some(head) = lines.next() {
        let words: Vec<&str> = head.split(' ').collect();
        let [inputs, size, steps, cols] = [2, 3, 4, 5].map(|i| words[i].parse::<usize>().unwrap());
        let cell = if words[1] == "lstm" { Cell::Lstm } else { Cell::Gru };
        let mut get = |name: &str| -> Vec<f64> {
            let line = lines.next().and_then(|l| l.strip_prefix(name)).unwrap();
            line[1..].split_whitespace().map(|v| v.parse().unwrap()).collect()
        };
        let mut case = Case::new(Recurrent::new(cell, inputs, size), steps, cols, 0);
        case.theta = get("theta");
        case.x = get("x");
        case.state = get("state");
        case.fresh = get("fresh").iter().map(|f| *f == 1.0).collect();
        case.d_out = get("d_out");
        let mut tape = case.seen();
        near(tape.outputs(), &get("out"), 1e-13);
        let mut last = vec![0.0; case.state.len()];
        tape.last_state(ColsMut::new(&mut last, case.net.state_rows(), cols));
        near(&last, &get("last"), 1e-13);
        let (d_theta, d_x) = case.vjp(&mut tape);
        near(&d_theta, &get("d_theta"), 1e-12);
        near(&d_x, &get("d_x"), 1e-12);
        cases += 1;
    }
    assert_eq!(cases, 6);
}

fn heads() -> Vec<Head> {
    vec![
        Head::Linear { name: "mean", rows: 2, gain: 0.5 },
        Head::Free { name: "log_std", rows: 2, value: 0.1 },
    ]
}

/// Hidden layers and heads on a recurrent layer.
fn on(cell: Cell, inputs: usize, size: usize, hidden: &[usize], heads: Vec<Head>) -> Network {
    let hidden = hidden.iter().map(|units| Dense::spec(Activation::Tanh, *units));
    let layers: Vec<_> = std::iter::once(Recurrent::spec(cell, size)).chain(hidden).collect();
    Network::new(inputs, &layers, heads).unwrap()
}

/// A recurrent layer under a perceptron with every kind of head, without and with hidden layers.
fn networks(inputs: usize, size: usize) -> Vec<(Recurrent, Network)> {
    let mut all = Vec::new();
    for cell in CELLS {
        for hidden in [&[][..], &[5], &[6, 4]] {
            all.push((Recurrent::new(cell, inputs, size), on(cell, inputs, size, hidden, heads())));
        }
    }
    all
}

struct Whole {
    net: Network,
    theta: Vec<f64>,
    /// Supplies inputs, states and ends.
    case: Case<f64>,
}

impl Whole {
    fn new((layer, net): (Recurrent, Network), steps: usize, cols: usize, seed: u64) -> Self {
        let case = Case::new(layer, steps, cols, seed);
        let mut rng = Stream::new(seed, 1, 0);
        Self { theta: (0..net.n_params()).map(|_| 0.7 * rng.normal()).collect(), net, case }
    }
    fn begin(&self) -> NetworkTape<f64> {
        let Case { steps, cols, state, fresh, .. } = &self.case;
        let mut tape = self.net.tape_of(*steps, *cols);
        tape.begin(*steps, Cols::new(state, self.net.state_rows(), *cols), fresh);
        tape
    }
}

fn wholes() -> Vec<Whole> {
    let sizes = [(1, 1), (4, 3), (3, 8), (2, 11)]; // fewer columns than 8, and not
    let nets = networks(2, 3).into_iter().enumerate();
    nets.flat_map(|(i, net)| sizes.map(|(steps, cols)| Whole::new(net.clone(), steps, cols, i as u64)))
        .collect()
}

#[test]
fn a_recurrent_network_is_its_layers_one_after_the_other() {
    for Whole { net, theta, case } in wholes() {
        let whole = Whole { net, theta, case };
        let mut tape = whole.begin();
        let out = whole.net.forward(&whole.theta, whole.case.x(), &mut tape).into_data().to_vec();
        assert_eq!(tape.outputs(), out);
        let (own, rest) = whole.theta.split_at(whole.case.net.n_params());
        let case = Case { theta: own.to_vec(), ..whole.case };
        let h = slow_forward(&case);
        let above = whole
            .net
            .views()
            .iter()
            .filter(|v| v.name.ends_with("weight"))
            .skip(2)
            .map(|v| v.shape[0])
            .collect::<Vec<_>>();
        let (outputs, hidden) = above.split_last().unwrap();
        assert_eq!(*outputs, 2);
        let mlp = Network::mlp(case.net.n_outputs(), hidden, Activation::Tanh, heads()).unwrap();
        let mut mlp_tape = mlp.tape(case.n());
        let slow = mlp.forward(rest, Cols::new(&h, case.net.n_outputs(), case.n()), &mut mlp_tape);
        near(&out, slow.as_cols().data(), 1e-12);
        let (rows, cols) = (whole.net.state_rows(), case.cols);
        let mut last = vec![0.0; rows * cols];
        tape.last_state(ColsMut::new(&mut last, rows, cols));
        for c in 0..cols {
            let own: Vec<f64> = (0..rows).map(|r| last[r * cols + c]).collect();
            assert_eq!(tape.state_after(case.steps - 1, c).collect::<Vec<_>>(), own);
        }
    }
}

#[test]
fn derivatives_of_a_recurrent_network_agree_with_finite_differences_and_each_other() {
    for whole in wholes() {
        let Whole { net, theta, case } = &whole;
        let (rows, n) = (net.n_outputs(), case.n());
        let u: Vec<f64> = {
            let mut rng = Stream::new(7, 0, 0);
            (0..rows * n).map(|_| rng.normal()).collect()
        };
        let seen = || {
            let mut tape = whole.begin();
            net.forward(theta, case.x(), &mut tape);
            tape
        };
        let mut d_theta = vec![0.0; net.n_params()];
        net.vjp(theta, case.x(), &mut seen(), Cols::new(&u, rows, n), &mut d_theta, None);
        let mut tape = whole.begin();
        let value = |theta: &[f64]| -> f64 {
            let y = net.forward(theta, case.x(), &mut tape).into_data();
            y.iter().zip(&u).map(|(a, b)| a * b).sum()
        };
        assert_gradient(value, theta, &d_theta, 1e-6);
        let (mut forward_tape, mut backward_tape) = (seen(), seen());
        assert_adjoint(
            |v, out| net.jvp(theta, case.x(), &mut forward_tape, v, ColsMut::new(out, rows, n)),
            |u, out| {
                out.fill(0.0);
                net.vjp(theta, case.x(), &mut backward_tape, Cols::new(u, rows, n), out, None);
            },
            net.n_params(),
            rows * n,
            1e-12,
        );
    }
}

#[test]
fn the_inputs_cotangent_goes_through_both_layers() {
    for net in networks(2, 3) {
        let whole = Whole::new(net, 3, 8, 5);
        let Whole { net, theta, case } = &whole;
        let (rows, n) = (net.n_outputs(), case.n());
        let d_out: Vec<f64> = (0..rows * n).map(|i| (i as f64).sin()).collect();
        let mut tape = whole.begin();
        let mut value = |x: &[f64]| -> f64 {
            let y = net.forward(theta, Cols::new(x, 2, n), &mut tape).into_data();
            y.iter().zip(&d_out).map(|(a, b)| a * b).sum()
        };
        value(&case.x);
        let mut seen = whole.begin();
        net.forward(theta, case.x(), &mut seen);
        let (mut d_theta, mut d_x) = (vec![0.0; net.n_params()], vec![0.0; 2 * n]);
        let d = ColsMut::new(&mut d_x, 2, n);
        net.vjp(theta, case.x(), &mut seen, Cols::new(&d_out, rows, n), &mut d_theta, Some(d));
        assert_gradient(value, &case.x, &d_x, 1e-6);
    }
}

/// What makes the ratio of a first pass exactly 1: a rollout runs a few sequences step by step, training runs
/// other sequences beside them, all steps at once, and the bits are the same.
#[test]
fn a_sequence_has_the_same_bits_as_its_steps() {
    for cell in CELLS {
        for (inputs, size, hidden) in
            [(2, 64, &[64, 64][..]), (4, 64, &[64]), (1, 7, &[]), (60, 33, &[200, 9])]
        {
            let (steps, all) = (9, 32);
            let heads = vec![Head::Linear { name: "logits", rows: 2, gain: 1.0 }];
            let net = on(cell, inputs, size, hidden, heads);
            let theta: Vec<f32> = net.init(init(true, None), &mut Stream::new(1, 0, 0));
            let case = Case::<f32>::new(Recurrent::new(cell, inputs, size), steps, all, 3);
            let mut tape = net.tape_of::<f32>(steps, all);
            let rows = net.state_rows();
            tape.begin(steps, Cols::new(&case.state, rows, all), &case.fresh);
            net.forward(&theta, case.x(), &mut tape);
            for few in [1, 2, 3, 4, 8, 9, 16, 31] {
                // The last `few` sequences, so that they stand elsewhere among the columns.
                let from = all - few;
                let mut own = net.tape::<f32>(few);
                let mut state: Vec<f32> =
                    (0..rows * few).map(|i| case.state[i / few * all + from + i % few]).collect();
                for t in 0..steps {
                    let column = |i: usize| t * all + from + i % few;
                    let x: Vec<f32> =
                        (0..inputs * few).map(|i| case.x[i / few * steps * all + column(i)]).collect();
                    let fresh: Vec<bool> = (0..few).map(|i| case.fresh[column(i)]).collect();
                    own.begin(1, Cols::new(&state, rows, few), &fresh);
                    let out = net.forward(&theta, Cols::new(&x, inputs, few), &mut own).into_data();
                    for (i, y) in out.iter().enumerate() {
                        let together = tape.outputs()[i / few * steps * all + column(i)];
                        assert_eq!(y.to_bits(), together.to_bits(), "{cell:?} {inputs}-{size}, {few}, {t}");
                    }
                    own.last_state(ColsMut::new(&mut state, rows, few));
                    for c in 0..few {
                        let kept: Vec<f32> = tape.state_after(t, from + c).collect();
                        let own: Vec<f32> = (0..rows).map(|r| state[r * few + c]).collect();
                        assert_eq!(kept, own);
                    }
                }
            }
        }
    }
}

fn init(orthogonal: bool, span: Option<usize>) -> Init {
    Init { orthogonal, span }
}

#[test]
fn views_tile_the_parameters() {
    for (_, net) in networks(3, 5) {
        let mut at = 0;
        for view in net.views() {
            assert_eq!(view.range.start, at);
            assert_eq!(view.shape.iter().product::<usize>(), view.range.len());
            at = view.range.end;
        }
        assert_eq!(at, net.n_params());
    }
}

#[test]
fn initial_weights_are_orthogonal_gate_by_gate_or_uniform() {
    for cell in CELLS {
        let net = Case::<f64>::new(Recurrent::new(cell, 3, 6), 1, 1, 0).net;
        let theta: Vec<f64> = net.init(init(true, None), &mut Stream::new(1, 0, 0));
        let views = net.views();
        for (view, cols) in views[..2].iter().zip([3, 6]) {
            for gate in theta[view.range.clone()].chunks_exact(6 * cols) {
                for i in 0..cols {
                    for j in 0..=i {
                        let dot: f64 = (0..6).map(|r| gate[r * cols + i] * gate[r * cols + j]).sum();
                        assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
                    }
                }
            }
        }
        let ones = theta[views[2].range.clone()].iter().enumerate().filter(|(_, b)| **b == 1.0);
        let forget: Vec<usize> = ones.map(|(i, _)| i).collect();
        assert_eq!(forget, if cell == Cell::Lstm { (6..12).collect() } else { Vec::new() });
        let theta: Vec<f64> = net.init(init(false, None), &mut Stream::new(1, 0, 0));
        let bound = 1.0 / 6.0f64.sqrt();
        assert_eq!(theta.len(), net.n_params());
        assert!(theta.iter().all(|v| v.abs() <= bound) && theta.iter().any(|v| v.abs() > 0.9 * bound));
    }
}

#[test]
fn units_remember_for_different_times_up_to_a_span() {
    for cell in CELLS {
        for orthogonal in [false, true] {
            let net = Case::<f64>::new(Recurrent::new(cell, 3, 400), 1, 1, 0).net;
            let draw = |span| net.init::<f64>(init(orthogonal, span), &mut Stream::new(1, 0, 0));
            let (plain, theta) = (draw(None), draw(Some(50)));
            let bias = net.views()[2].range.clone();
            let (first, keep) = theta[bias.start..bias.start + 800].split_at(400);
            // u = exp(b) is uniform on [1, 49).
            let times: Vec<f64> = keep.iter().map(|b| b.exp()).collect();
            let mean = times.iter().sum::<f64>() / 400.0;
            assert!(times.iter().all(|u| (1.0..49.0).contains(u)) && (mean - 25.0).abs() < 3.0, "{mean}");
            if cell == Cell::Lstm {
                assert!(first.iter().zip(keep).all(|(i, f)| *i == -*f));
            } else {
                assert_eq!(first, &plain[bias.start..bias.start + 400]);
            }
            assert_eq!(theta[..bias.start], plain[..bias.start]);
            assert_eq!(theta[bias.start + 800..], plain[bias.start + 800..]);
        }
    }
}

#[test]
#[should_panic(expected = "room for")]
fn more_than_the_tape_was_made_for_is_refused() {
    let net = Case::<f32>::new(Recurrent::new(Cell::Gru, 2, 3), 1, 1, 0).net;
    net.tape_of::<f32>(4, 8).begin(5, Cols::new(&[0.0; 24], 3, 8), &[false; 40]);
}
