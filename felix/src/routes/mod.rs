//! Kernel routes: model, wanted set, difference.
