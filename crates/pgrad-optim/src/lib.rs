//! Step rules over small local-problem traits; schedules.
