//! Policy: parsed objects, the one evaluator, and the tables that tabulate it.
