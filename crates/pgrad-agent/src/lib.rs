//! Policy, critic, rollout storage, normalisers, minibatches; the one place that turns endings into bootstrap values.
