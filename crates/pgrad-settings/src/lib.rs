//! Declare a setting once: type, default, range, unit, source and help; everything else follows from it.
